//! The rules R1 to R21 of O§10, each by its number.

mod common;

use common::*;
use sandbox_shim::Vendor;
use serde_json::json;

const WALLET: &str = "SELECT wrl_type||'|'||status||'|'||wallet_type||'|'||wallet_order FROM v$encryption_wallet;";

fn open_fin(world: &mut World) {
    world.seed(&hsm19("FIN"));
    let out = world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}"));
    has(&out, "keystore altered.");
}

/// FIN with its keys in the software keystore, configuration `FILE|HSM`.
fn reversed(world: &mut World) {
    open_fin(world);
    let out = world.sql("FIN", &format!("{CREATE_SW}\n{}\n{OPEN_SW}\n{REVERSE}", configure("FILE|HSM")));
    has_not(&out, "ORA-");
}

/// FIN down, CloudHSM's library in place, up again with the software keystore open.
fn swapped(world: &mut World) {
    reversed(world);
    let out = world.sql("FIN", &format!("{}\nALTER SYSTEM CHECKPOINT;\nSHUTDOWN IMMEDIATE", configure("FILE")));
    has(&out, "ORACLE instance shut down.");
    world.install_library(Vendor::CloudHsm);
    let out = world.sql("FIN", &format!("STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;"));
    has_not(&out, "ORA-");
}

#[test]
fn r01_wallet_root_wins_over_sqlnet_and_sqlnet_is_read_per_session() {
    let mut world = World::new();
    open_fin(&mut world);
    let sqlnet = |home: &str| world.path(home).join("network/admin/sqlnet.ora");
    std::fs::write(sqlnet(HOME19), "ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=FILE)(METHOD_DATA=(DIRECTORY=/tmp)))\n").unwrap();
    has(&world.sql("FIN", WALLET), "HSM|OPEN|HSM|SINGLE");

    let mut world = World::new();
    world.seed(&hsm12("OLDA"));
    let out = world.sql("OLDA", &format!("STARTUP\n{OPEN_OLD}\n{WALLET}"));
    has(&out, "HSM|OPEN|HSM|SINGLE");
    let sqlnet = world.path(HOME12).join("network/admin/sqlnet.ora");
    // A session that is there keeps what it read; the next one reads again.
    let mut child = world.spawn_sql("OLDA", "SELECT 'ready' FROM dual;");
    world.until("the session is there", || {
        let seen = world.sql("OLDA", "SELECT count(*)||' sessions' FROM v$session WHERE type='USER';");
        seen.contains("2 sessions").then_some(())
    });
    std::fs::write(
        &sqlnet,
        "ENCRYPTION_WALLET_LOCATION =\n  (SOURCE = (METHOD = FILE)\n    (METHOD_DATA = (DIRECTORY = /u01/app/oracle/admin/$ORACLE_SID/wallet)))\n",
    )
    .unwrap();
    use std::io::Write as _;
    writeln!(child.stdin.as_mut().unwrap(), "{WALLET}").unwrap();
    drop(child.stdin.take());
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    has(&out, "HSM|OPEN|HSM|SINGLE");
    has(&world.sql("OLDA", WALLET), "FILE|NOT_AVAILABLE|UNKNOWN|SINGLE");
}

#[test]
fn r02_no_library_two_libraries_and_a_failed_load_is_remembered() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    world.add_library(Vendor::CloudHsm);
    let out = world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}"));
    has(&out, "ORA-28376: cannot find PKCS11 library");
    // The tree is right again, and the process still says no.
    world.install_library(Vendor::OldHsm);
    has(&world.sql("FIN", OPEN_OLD), "ORA-28376");
    let out = world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_OLD}"));
    has(&out, "keystore altered.");

    world.sql("FIN", "SHUTDOWN IMMEDIATE");
    std::fs::rename(world.extapi(), world.path("/opt/gone")).unwrap();
    has(&world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}")), "ORA-28376");
    world.sql("FIN", "SHUTDOWN IMMEDIATE");

    world.add_library(Vendor::CloudHsm);
    world.add_library(Vendor::OldHsm);
    world.switch("two_libraries", "first");
    // cloudhsm/… sorts before oldhsm/…, and the key is not on that token.
    has(&world.sql("FIN", &format!("STARTUP\n{OPEN_NEW}")), "ORA-28353");
}

#[test]
fn r03_open_says_why_not() {
    let mut world = World::new();
    open_fin(&mut world);
    has(&world.sql("FIN", OPEN_OLD), "ORA-28354");
    has(&world.sql("FIN", "SHUTDOWN IMMEDIATE"), "shut down");
    // Bad PIN: one failed login each, and the fifth locks the user.
    world.sql("FIN", "STARTUP");
    let bad = OPEN_OLD.replace("OldPass_1", "wrong_one");
    for failed in 1..=5 {
        has(&world.sql("FIN", &bad), "ORA-28353");
        assert_eq!(world.old.state().unwrap().logins.failed, failed);
    }
    assert!(world.old.state().unwrap().users["tdeold"].locked);
    has(&world.sql("FIN", OPEN_OLD), "ORA-28353");
    world.old.set_user("tdeold", "OldPass_1").unwrap();
    world.old.modify(|s| s.reachable = false).unwrap();
    has(&world.sql("FIN", OPEN_OLD), "ORA-28407: Hardware Security Module failed with PKCS#11 error CKR_GENERAL_ERROR(5)");
    world.old.modify(|s| s.reachable = true).unwrap();
    has(&world.sql("FIN", OPEN_OLD), "keystore altered.");
    // Another token: the active key is missing there.
    world.sql("FIN", "SHUTDOWN IMMEDIATE");
    world.install_library(Vendor::CloudHsm);
    has(&world.sql("FIN", &format!("STARTUP\n{OPEN_NEW}")), "ORA-28353");
    // File: no keystore, then a wrong password.
    has(&world.sql("FIN", &format!("{}\n{OPEN_SW}", configure("FILE"))), "ORA-28367");
    has(&world.sql("FIN", CREATE_SW), "keystore altered.");
    has(&world.sql("FIN", &OPEN_SW.replace("Soft_Pw_1", "other")), "ORA-28353");
    let out = world.sql("FIN", &format!("{OPEN_SW}\n{WALLET}"));
    has(&out, "FILE|OPEN_NO_MASTER_KEY|PASSWORD|SINGLE");
}

#[test]
fn r04_the_password_selects_the_store() {
    let mut world = World::new();
    open_fin(&mut world);
    let out = world.sql("FIN", &format!("{CREATE_SW}\n{}\nSHUTDOWN IMMEDIATE\nSTARTUP", configure("FILE|HSM")));
    has(&out, "Database opened.");
    let out = world.sql("FIN", &format!("{OPEN_SW}\n{WALLET}"));
    has(&out, "FILE|OPEN_NO_MASTER_KEY|PASSWORD|SINGLE");
    has(&out, "HSM|CLOSED|UNKNOWN|SINGLE");
    let out = world.sql("FIN", &format!("{OPEN_OLD}\n{WALLET}"));
    has(&out, "HSM|OPEN|HSM|SINGLE");
    assert_eq!(world.old.state().unwrap().logins.failed, 0);
}

#[test]
fn r05_close() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    world.sql("SOFT", &format!("STARTUP\n{OPEN_SW}"));
    has(&world.sql("SOFT", "ADMINISTER KEY MANAGEMENT SET KEYSTORE CLOSE;"), "ORA-28357");
    let close = "ADMINISTER KEY MANAGEMENT SET KEYSTORE CLOSE IDENTIFIED BY \"Soft_Pw_1\";";
    has(&world.sql("SOFT", &format!("{close}\nSELECT count(*) FROM app.data_t;")), "ORA-28365");

    let mut spec = software19("AUTO");
    spec["source"]["software"]["auto_login"] = "auto".into();
    world.seed(&spec);
    has(&world.sql("AUTO", &format!("STARTUP\n{WALLET}")), "FILE|OPEN|AUTOLOGIN|SINGLE");
    has(&world.sql("AUTO", "ADMINISTER KEY MANAGEMENT SET KEYSTORE CLOSE;"), "keystore altered.");
    world.sql("AUTO", WALLET);
    let sso = world.path("/u01/app/oracle/admin/AUTO/wallet/tde/cwallet.sso");
    std::fs::rename(&sso, sso.with_extension("aside")).unwrap();
    has(&world.sql("AUTO", "ADMINISTER KEY MANAGEMENT SET KEYSTORE CLOSE;"), "ORA-28389");

    let mut spec = software19("CORE");
    spec["encrypted_undo"] = true.into();
    world.seed(&spec);
    let out = world.sql("CORE", &format!("STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;\n{close}"));
    has(&out, "ORA-28439");
}

#[test]
fn r06_set_key_and_what_it_refuses() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    world.sql("SOFT", "STARTUP");
    let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"Soft_Pw_1\" WITH BACKUP;";
    has(&world.sql("SOFT", set), "ORA-28365");
    world.sql("SOFT", OPEN_SW);
    has(&world.sql("SOFT", &set.replace(" WITH BACKUP", "")), "ORA-46631");
    has(&world.sql("SOFT", &set.replace("Soft_Pw_1", "wrong")), "ORA-46627");
    let id = "SELECT masterkeyid||'' FROM v$database_key_info;";
    let before = world.sql("SOFT", id);
    has(&world.sql("SOFT", set), "keystore altered.");
    assert_ne!(before, world.sql("SOFT", id));
    has(&world.sql("SOFT", "SELECT count(*)||' rows' FROM app.data_t;"), "20 rows");
    // The key is in the wallet and the configuration says HSM: migrate (28415).
    let hsm = set.replace("Soft_Pw_1", "tdeold:OldPass_1");
    has(&world.sql("SOFT", &format!("{}\n{OPEN_OLD}\n{hsm}", configure("HSM|FILE"))), "ORA-28415");

    let mut world = World::new();
    open_fin(&mut world);
    has(&world.sql("FIN", &format!("{CREATE_SW}\n{}\n{OPEN_SW}\n{set}", configure("FILE|HSM"))), "ORA-28414");
    let out = world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP RESTRICT\n{OPEN_OLD}\n{}\n{hsm}", configure("HSM")));
    has(&out, "ORA-28442");
    has(&world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP MOUNT\n{OPEN_OLD}\n{hsm}")), "ORA-28388");
}

#[test]
fn r07_reverse_migrate_moves_columns_and_read_write_tablespaces() {
    let mut world = World::new();
    let mut spec = hsm19("FIN");
    spec["tablespaces"].as_array_mut().unwrap().push(json!(
        {"name": "HIST", "status": "READ ONLY", "tables": [{"name": "APP.HIST_T", "rows": 7}]}
    ));
    world.seed(&spec);
    world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}\n{CREATE_SW}"));
    has(&world.sql("FIN", REVERSE), "ORA-28414");
    world.sql("FIN", &format!("{}\n{OPEN_SW}", configure("FILE|HSM")));
    has(&world.sql("FIN", &REVERSE.replace(" WITH BACKUP USING 'rm_1'", "")), "ORA-46631");
    has(&world.sql("FIN", &REVERSE.replace("IDENTIFIED BY \"Soft_Pw_1\"", "IDENTIFIED BY \"wrong\"")), "ORA-46627");
    let bad = world.sql("FIN", &REVERSE.replace("OldPass_1", "bad_pass"));
    has(&bad, "ORA-28353");
    assert_eq!(world.old.state().unwrap().logins.failed, 1);
    let ids = "SELECT 'id '||masterkeyid FROM v$database_key_info;\nSELECT 'ts '||t.name||' '||e.masterkeyid FROM v$encrypted_tablespaces e JOIN v$tablespace t ON t.ts# = e.ts# ORDER BY t.name;\nSELECT 'enc '||mkeyid FROM sys.enc$;\nSELECT 'log '||max(sequence#) FROM v$log;";
    let before = world.sql("FIN", ids);
    has(&world.sql("FIN", REVERSE), "keystore altered.");
    let after = world.sql("FIN", ids);
    let line = |text: &str, start: &str| {
        text.lines().find_map(|l| l.strip_prefix(start).map(str::to_owned)).unwrap_or_else(|| panic!("{start} in {text}"))
    };
    let (old, new) = (line(&before, "id "), line(&after, "id "));
    assert_ne!(old, new);
    assert_eq!(line(&after, "ts DATA "), new);
    assert_eq!(line(&after, "ts HIST "), old, "O§7.5: a read-only tablespace keeps its key");
    assert!(line(&after, "enc ").starts_with('A') && line(&before, "enc ").starts_with("06"));
    assert_eq!(line(&after, "log ").parse::<u32>().unwrap(), line(&before, "log ").parse::<u32>().unwrap() + 2);
    has(&world.sql("FIN", REVERSE), "ORA-28410");
    world.switch("repeated_reverse_migrate", 28414);
    has(&world.sql("FIN", REVERSE), "ORA-28414");
    let backups = std::fs::read_dir(world.path("/u01/app/oracle/admin/FIN/wallet/tde")).unwrap();
    let backups = backups.flatten().filter(|e| e.file_name().to_string_lossy().ends_with("_rm_1.p12"));
    assert_eq!(backups.count(), 1);
}

#[test]
fn r08_migrate_and_what_it_refuses() {
    let mut world = World::new();
    swapped(&mut world);
    has(&world.sql("FIN", MIGRATE), "ORA-28415");
    world.sql("FIN", &configure("HSM"));
    has(&world.sql("FIN", MIGRATE), "ORA-28367");
    world.sql("FIN", &configure("HSM|FILE"));
    has(&world.sql("FIN", &MIGRATE.replace("Soft_Pw_1", "wrong")), "ORA-46627");
    world.switch("client_sdk", 3);
    has(&world.sql("FIN", MIGRATE), "ORA-28407");
    world.switch("with_backup_refused", true);
    has(&world.sql("FIN", MIGRATE), "ORA-46623");
    let without = MIGRATE.replace(" WITH BACKUP USING 'mg_1'", "");
    has(&world.sql("FIN", &without), "keystore altered.");
    has(&world.sql("FIN", MIGRATE), "ORA-28377");
    let out = world.sql("FIN", WALLET);
    has(&out, "HSM|OPEN|HSM|PRIMARY");
    has(&out, "FILE|OPEN|PASSWORD|SECONDARY");
    assert_eq!(world.cloud.state().unwrap().keys.len(), 1);
}

#[test]
fn r09_an_auto_login_keystore_needs_force() {
    let mut world = World::new();
    let mut spec = software19("AUTO");
    spec["source"]["software"]["auto_login"] = "auto".into();
    world.seed(&spec);
    world.install_library(Vendor::CloudHsm);
    world.sql("AUTO", &format!("STARTUP\n{}", configure("HSM|FILE")));
    let add = "ADMINISTER KEY MANAGEMENT ADD SECRET 'tdecu:NewPass_1' FOR CLIENT 'HSM_PASSWORD' IDENTIFIED BY \"Soft_Pw_1\" WITH BACKUP;";
    has(&world.sql("AUTO", add), "ORA-28417");
    has(&world.sql("AUTO", MIGRATE), "ORA-28417");
    let forced = add.replace(" IDENTIFIED", " FORCE KEYSTORE IDENTIFIED");
    has(&world.sql("AUTO", &forced), "keystore altered.");
    let out = world.sql("AUTO", &MIGRATE.replace(" MIGRATE", " FORCE KEYSTORE MIGRATE"));
    has(&out, "keystore altered.");
    // FORCE refreshed the sso: the secret in it opens the HSM after a restart.
    let out = world.sql("AUTO", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{WALLET}"));
    has(&out, "HSM|OPEN|HSM|PRIMARY");
    has(&out, "FILE|OPEN|AUTOLOGIN|SECONDARY");
}

#[test]
fn r10_a_restart_closes_what_does_not_open_by_itself() {
    let mut world = World::new();
    open_fin(&mut world);
    let out = world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{WALLET}\nSELECT count(*) FROM app.data_t;"));
    has(&out, "HSM|CLOSED|UNKNOWN|SINGLE");
    has(&out, "ORA-28365");

    let mut spec = hsm19("AUTO");
    spec["source"]["hsm"]["auto_open"] = json!({"software_password": SW, "auto_login": "local"});
    world.seed(&spec);
    let out = world.sql("AUTO", &format!("STARTUP\n{WALLET}\nSELECT count(*)||' rows' FROM app.data_t;"));
    has(&out, "HSM|OPEN|HSM|SINGLE");
    has(&out, "FILE|OPEN_NO_MASTER_KEY|LOCAL_AUTOLOGIN|SINGLE");
    has(&out, "20 rows");
    // Plain HSM ignores the secret; another host cannot open a LOCAL keystore.
    let out = world.sql("AUTO", &format!("{}\nSHUTDOWN IMMEDIATE\nSTARTUP\n{WALLET}", configure("HSM")));
    has(&out, "HSM|CLOSED|UNKNOWN|SINGLE");
    world.sql("AUTO", &format!("{}\nSHUTDOWN IMMEDIATE", configure("HSM|FILE")));
    std::fs::write(world.path("/etc/hostname"), "elsewhere\n").unwrap();
    let out = world.sql("AUTO", &format!("STARTUP\n{WALLET}"));
    has(&out, "HSM|CLOSED|UNKNOWN|SINGLE");
    has(&out, "FILE|CLOSED|UNKNOWN|SINGLE");
}

#[test]
fn r11_an_encrypted_core_stops_startup_at_mounted() {
    for what in ["encrypted_undo", "encrypted_system"] {
        let mut world = World::new();
        let mut spec = software19("CORE");
        spec[what] = true.into();
        world.seed(&spec);
        let out = world.sql("CORE", "STARTUP\nSELECT status||' now' FROM v$instance;");
        has(&out, "Database mounted.\nORA-28365: wallet is not open");
        has(&out, "MOUNTED now");
        has(&world.sql("CORE", &format!("{OPEN_SW}\nALTER DATABASE OPEN;")), "Database altered.");
    }
}

#[test]
fn r12_reading_needs_the_store_open_and_the_key_there() {
    let mut world = World::new();
    swapped(&mut world);
    has(&world.sql("FIN", "SELECT count(*)||' rows' FROM app.data_t;"), "20 rows");
    let close = "ADMINISTER KEY MANAGEMENT SET KEYSTORE CLOSE IDENTIFIED BY \"Soft_Pw_1\";";
    has(&world.sql("FIN", &format!("{close}\nSELECT count(*) FROM app.data_t;")), "ORA-28365");
    // The key is in no configured store.
    let other = "/u01/app/oracle/admin/FIN/wallet/tde/ewallet.p12";
    std::fs::rename(world.path(other), world.path("/tmp.p12")).unwrap();
    has(&world.sql("FIN", &format!("{CREATE_SW}\n{OPEN_SW}\nSELECT count(*) FROM app.data_t;")), "ORA-28374");
}

#[test]
fn r13_an_open_keystore_outlives_its_files() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    world.sql("SOFT", &format!("STARTUP\n{OPEN_SW}"));
    let p12 = world.path("/u01/app/oracle/admin/SOFT/wallet/tde/ewallet.p12");
    std::fs::rename(&p12, p12.with_extension("aside")).unwrap();
    has(&world.sql("SOFT", "SELECT count(*)||' rows' FROM app.data_t;"), "20 rows");
    let out = world.sql("SOFT", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_SW}\nSELECT count(*) FROM app.data_t;"));
    has(&out, "ORA-28367");
    has(&out, "ORA-28365");
}

#[test]
fn r14_create_keystore_never_overwrites() {
    let mut world = World::new();
    world.seed(&cdb19("CDB"));
    world.sql("CDB", "STARTUP\nALTER PLUGGABLE DATABASE ALL OPEN;");
    has(&world.sql("CDB", &format!("ALTER SESSION SET CONTAINER=PDB1;\n{CREATE_SW}")), "ORA-65040");
    has(&world.sql("CDB", CREATE_SW), "keystore altered.");
    has(&world.sql("CDB", CREATE_SW), "ORA-46630");
    let elsewhere = "ADMINISTER KEY MANAGEMENT CREATE KEYSTORE '/u01/nowhere' IDENTIFIED BY \"Soft_Pw_1\";";
    has(&world.sql("CDB", elsewhere), "ORA-46690");
    world.switch("create_without_directory", 28353);
    has(&world.sql("CDB", elsewhere), "ORA-28353");
}

#[test]
fn r15_create_auto_login_needs_the_password_keystore() {
    let mut world = World::new();
    open_fin(&mut world);
    let create = "ADMINISTER KEY MANAGEMENT CREATE AUTO_LOGIN KEYSTORE FROM KEYSTORE IDENTIFIED BY \"Soft_Pw_1\";";
    has(&world.sql("FIN", create), "ORA-46632");
    world.sql("FIN", CREATE_SW);
    has(&world.sql("FIN", &create.replace("Soft_Pw_1", "wrong")), "ORA-46627");
    has(&world.sql("FIN", create), "keystore altered.");
    assert!(world.path("/u01/app/oracle/admin/FIN/wallet/tde/cwallet.sso").exists());
}

#[test]
fn r16_add_secret_twice_is_an_error() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    let add = "ADMINISTER KEY MANAGEMENT ADD SECRET 'u:p''q' FOR CLIENT 'HSM_PASSWORD' IDENTIFIED BY \"Soft_Pw_1\" WITH BACKUP;";
    has(&world.sql("SOFT", &format!("STARTUP\n{add}")), "ORA-46670");
    world.sql("SOFT", OPEN_SW);
    has(&world.sql("SOFT", &add.replace(" WITH BACKUP", "")), "ORA-46631");
    has(&world.sql("SOFT", &add.replace("ADD", "UPDATE")), "ORA-46670");
    has(&world.sql("SOFT", add), "keystore altered.");
    has(&world.sql("SOFT", add), "ORA-46670");
    has(&world.sql("SOFT", &add.replace("ADD", "UPDATE")), "keystore altered.");
    let dir = world.path("/u01/app/oracle/admin/SOFT/wallet/tde");
    assert_eq!(sandbox_oracle::wallet::open(&dir, SW).unwrap().secrets["HSM_PASSWORD"], "u:p'q");
}

#[test]
fn r17_backup_keystore_of_an_hsm_is_an_internal_error() {
    let mut world = World::new();
    open_fin(&mut world);
    let backup = "ADMINISTER KEY MANAGEMENT BACKUP KEYSTORE USING 'x' IDENTIFIED BY \"tdeold:OldPass_1\";";
    has(&world.sql("FIN", backup), "ORA-00600: internal error code, arguments: [kzckmbkup: invalid keystore location], [4]");
    world.switch("backup_of_hsm", 46716);
    has(&world.sql("FIN", backup), "ORA-46716");
    world.sql("FIN", &format!("{}\n{CREATE_SW}", configure("FILE|HSM")));
    std::fs::create_dir(world.path("/u01/mine")).unwrap();
    let file = "ADMINISTER KEY MANAGEMENT BACKUP KEYSTORE USING 'x' FORCE KEYSTORE IDENTIFIED BY \"Soft_Pw_1\" TO '/u01/mine';";
    has(&world.sql("FIN", &file.replace("Soft_Pw_1", "wrong")), "ORA-46627");
    has(&world.sql("FIN", file), "keystore altered.");
    assert_eq!(std::fs::read_dir(world.path("/u01/mine")).unwrap().count(), 1);
}

#[test]
fn r18_a_failing_statement_is_echoed_with_its_secrets() {
    let mut world = World::new();
    open_fin(&mut world);
    let out = world.sql("FIN", "WHENEVER SQLERROR EXIT FAILURE ROLLBACK\nADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"tdeold:Secret_9\";\nPROMPT never");
    has(&out, "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"tdeold:Secret_9\"\n*\nERROR at line 1:\nORA-28354: ");
    has_not(&out, "never");
    has(&world.sql("FIN", "FROBNICATE now"), "SP2-0734: unknown command beginning \"FROBNICATE...\" - rest of line ignored.");
    has(&world.sql("FIN", "DISCONNECT\nSELECT 1 FROM dual;"), "SP2-0640: Not connected");
}

#[test]
fn r19_a_new_library_on_disk_is_not_the_one_mapped() {
    let mut world = World::new();
    open_fin(&mut world);
    let maps = || {
        let pid = world.pmon("FIN").unwrap();
        std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap()
    };
    has(&maps(), "/oldhsm/7.4.0/libcryptoki_oldhsm.so");
    std::fs::remove_dir_all(world.extapi()).unwrap();
    world.add_library(Vendor::CloudHsm);
    has(&maps(), "libcryptoki_oldhsm.so (deleted)");
    has_not(&maps(), "libcloudhsm_pkcs11.so");
    // It still talks to the old HSM.
    let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"tdeold:OldPass_1\";";
    has(&world.sql("FIN", set), "keystore altered.");
    assert_eq!(world.old.state().unwrap().keys.len(), 2);
    assert_eq!(world.cloud.state().unwrap().keys.len(), 0);
}

#[test]
fn r20_a_key_on_one_hsm_cannot_be_used() {
    let mut world = World::new();
    swapped(&mut world);
    world.cloud.modify(|s| s.hsms[1].active = false).unwrap();
    let out = world.sql("FIN", &format!("{}\n{MIGRATE}", configure("HSM|FILE")));
    has(&out, "ORA-28407: Hardware Security Module failed with PKCS#11 error CKR_FUNCTION_FAILED(6)");
    // The key was made and is an orphan now (H9); the data is as it was.
    let inspect = world.inspect();
    assert_eq!(inspect["FIN"]["containers"]["FIN"]["keys"]["cloudhsm"], 1);
    assert_eq!(inspect["FIN"]["containers"]["FIN"]["active"]["store"], "software");
    let off = r#"{"hsm_dir":"/run/hsm/cloudhsm","servers":["10.0.1.10"],"key_availability_check":false}"#;
    std::fs::write(world.path("/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg"), off).unwrap();
    world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_SW}"));
    has(&world.sql("FIN", &MIGRATE.replace("mg_1", "mg_2")), "keystore altered.");
}

#[test]
fn r21_key_ids_and_labels() {
    let mut world = World::new();
    swapped(&mut world);
    world.sql("FIN", &format!("{}\n{MIGRATE}", configure("HSM|FILE")));
    let out = world.sql("FIN", "SELECT keystore_type||'='||key_id||'=' FROM v$encryption_keys WHERE activation_time IS NOT NULL ORDER BY activation_time;\nSELECT 'mkid '||rawtohex(masterkeyid) FROM v$database_key_info;");
    let ids: Vec<(&str, &str)> = out.lines().filter_map(|l| l.strip_suffix('=')?.split_once('=')).collect();
    // The old HSM is gone with its library; the file's key and CloudHSM's are listed in order of activation.
    let [("SOFTWARE KEYSTORE", file), ("HSM", hsm)] = ids.as_slice() else { panic!("{out}") };
    assert!(file.len() == 52 && file.starts_with('A') && file.ends_with("AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "{file}");
    assert!(hsm.len() == 34 && hsm.starts_with("06"), "{hsm}");
    has(&out, &format!("mkid {}", &hsm[2..]));
    assert_eq!(&hsm[14..15], "4", "UUID v4: {hsm}");
    let label = world.cloud.state().unwrap().keys.into_keys().next().unwrap();
    assert_eq!(label, format!("ORACLE.TDE.HSM.MK.{hsm}"));
}

#[test]
fn h40_a_database_needs_every_file_that_its_control_file_names_and_every_copy_of_that() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    let views = "SELECT 'control '||name FROM v$controlfile;\nSELECT 'log '||member FROM v$logfile;\n\
        SELECT 'pieces '||COUNT(*)||' '||ROUND((SYSDATE - MIN(start_time)) * 24) FROM v$backup_piece WHERE status <> 'D';\n\
        SELECT 'copies '||COUNT(*) FROM v$datafile_copy WHERE status <> 'D';";
    let out = world.sql("SOFT", &format!("STARTUP\n{OPEN_SW}\n{views}\nSHUTDOWN IMMEDIATE"));
    for wanted in [
        "control /u01/oradata/SOFT/control01.ctl",
        "control /u01/fast_recovery_area/SOFT/control02.ctl",
        "log /u01/oradata/SOFT/redo01.log",
        "copies 0",
    ] {
        has(&out, wanted);
    }
    let take_away = |path: &str, say: &str| {
        let path = world.path(path);
        std::fs::rename(&path, path.with_extension("away")).unwrap();
        has(&world.sql("SOFT", &format!("STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;\nSHUTDOWN ABORT")), say);
        std::fs::rename(path.with_extension("away"), &path).unwrap();
    };
    take_away("/u01/fast_recovery_area/SOFT/control02.ctl", "ORA-00205");
    take_away("/u01/oradata/SOFT/data01.dbf", "ORA-01157");
    has(&world.sql("SOFT", &format!("STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;")), "Database altered.");
}

#[test]
fn a_parameter_file_is_made_without_an_instance_and_started_from_by_name() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    let make = "CREATE PFILE='/u01/drill.ora' FROM SPFILE;";
    has(&world.sql("SOFT", make), "File created.");
    let path = world.path("/u01/drill.ora");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("*.control_files='/u01/oradata/SOFT/control01.ctl','/u01/fast_recovery_area/SOFT/control02.ctl'"),
        "{text}"
    );
    std::fs::write(&path, format!("{text}*.job_queue_processes=0\n")).unwrap();
    let ask = "SELECT name||'='||value FROM v$parameter WHERE name IN ('spfile','job_queue_processes','control_files');";
    let out = world.sql("SOFT", &format!("STARTUP MOUNT PFILE='/u01/drill.ora'\n{ask}\nSHUTDOWN ABORT"));
    has(&out, "spfile=\n");
    has(&out, "job_queue_processes=0");
    has(&world.sql("SOFT", "STARTUP MOUNT PFILE='/u01/none.ora'"), "LRM-00109");
    has(&world.sql("SOFT", &format!("STARTUP MOUNT\n{ask}")), "job_queue_processes=80");
}
