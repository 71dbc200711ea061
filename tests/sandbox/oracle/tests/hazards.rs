//! The hazards the simulator makes happen, each by its number.

mod common;

use common::*;
use sandbox_shim::Vendor;
use serde_json::{Value, json};

const WALLET: &str = "SELECT wrl_type||'|'||status||'|'||wallet_type||'|'||wallet_order FROM v$encryption_wallet;";
const COUNT: &str = "SELECT count(*)||' rows' FROM app.data_t;";

fn open_hsm(world: &mut World, spec: &Value) {
    world.seed(spec);
    let sid = spec["sid"].as_str().unwrap();
    has(&world.sql(sid, &format!("STARTUP\n{OPEN_OLD}")), "keystore altered.");
}

fn ready_to_reverse(world: &mut World) {
    open_hsm(world, &hsm19("FIN"));
    let out = world.sql("FIN", &format!("{CREATE_SW}\n{}\n{OPEN_SW}", configure("FILE|HSM")));
    has_not(&out, "ORA-");
}

fn ready_to_migrate(world: &mut World) {
    world.install_library(Vendor::CloudHsm);
    world.seed(&software19("FIN"));
    let out = world.sql("FIN", &format!("STARTUP\n{OPEN_SW}\n{}", configure("HSM|FILE")));
    has_not(&out, "ORA-");
}

#[test]
fn h02_redo_needs_the_key_it_was_written_under() {
    let mut world = World::new();
    ready_to_reverse(&mut world);
    has(&world.sql("FIN", REVERSE), "keystore altered.");
    has(&world.sql("FIN", "SELECT 'log '||status FROM v$log;"), "log ACTIVE");
    // A crash before the redo is clean, and the library is swapped: the first start cannot recover.
    has(&world.sql("FIN", &configure("FILE")), "System altered.");
    world.crash("FIN");
    world.install_library(Vendor::CloudHsm);
    let out = world.sql("FIN", &format!("STARTUP\n{OPEN_SW}\nALTER DATABASE OPEN;\nSELECT status||' still' FROM v$instance;"));
    has(&out, "Database mounted.\nORA-28365");
    has(&out, "ORA-28374: typed master key not found in wallet");
    has(&out, "MOUNTED still");
    // On the old library it comes up, and once the redo is clean it needs the old key no more.
    world.sql("FIN", "SHUTDOWN IMMEDIATE");
    world.install_library(Vendor::OldHsm);
    let out = world.sql(
        "FIN",
        &format!("STARTUP MOUNT\n{}\n{OPEN_SW}\n{OPEN_OLD}\nALTER DATABASE OPEN;\n{}", configure("FILE|HSM"), configure("FILE")),
    );
    has_not(&out, "ORA-");
    let out = world.sql("FIN", "ALTER SYSTEM ARCHIVE LOG CURRENT;\nALTER SYSTEM CHECKPOINT;\nSELECT 'log '||status FROM v$log;");
    has_not(&out, "log ACTIVE");
    world.crash("FIN");
    world.install_library(Vendor::CloudHsm);
    let out = world.sql("FIN", &format!("STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;\n{COUNT}"));
    has_not(&out, "ORA-");
    has(&out, "20 rows");
}

#[test]
fn h03_read_only_and_offline_tablespaces_keep_the_old_key() {
    let mut world = World::new();
    let mut spec = hsm19("FIN");
    for (name, status) in [("HIST", "READ ONLY"), ("ARCH", "OFFLINE")] {
        let mut ts = tablespace(name);
        ts["status"] = status.into();
        spec["tablespaces"].as_array_mut().unwrap().push(ts);
    }
    open_hsm(&mut world, &spec);
    let out = world.sql(
        "FIN",
        "SELECT tablespace_name||'='||status||'='||encrypted FROM dba_tablespaces;\nSELECT count(*) FROM app.arch_t;",
    );
    has(&out, "HIST=READ ONLY=YES");
    has(&out, "ARCH=OFFLINE=YES");
    has(&out, "ORA-00376");
    world.sql("FIN", &format!("{CREATE_SW}\n{}\n{OPEN_SW}\n{REVERSE}\nALTER SYSTEM CHECKPOINT;", configure("FILE|HSM")));
    let seen = &world.verify(&["old-hsm"])["FIN"];
    assert_eq!((seen.rows_readable, seen.rows_total), (50, 90), "{seen:?}");
    // Made read-write, it follows at the next rotation.
    let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"Soft_Pw_1\" WITH BACKUP;";
    let out = world.sql(
        "FIN",
        &format!("ALTER TABLESPACE hist READ WRITE;\nALTER TABLESPACE arch ONLINE;\n{set}\nALTER SYSTEM CHECKPOINT;"),
    );
    has_not(&out, "ORA-");
    assert_eq!(world.verify(&["old-hsm"])["FIN"].rows_readable, 90);
}

#[test]
fn h06_a_running_instance_reads_on_without_its_hsm() {
    let mut world = World::new();
    open_hsm(&mut world, &hsm19("FIN"));
    has(&world.sql("FIN", COUNT), "20 rows");
    world.old.modify(|s| s.cut_off = true).unwrap();
    has(&world.sql("FIN", COUNT), "20 rows");
    // What was never read is not in the SGA.
    has(&world.sql("FIN", "SELECT count(*) FROM app.more_t;"), "ORA-28407");
    has(&world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_OLD}\n{COUNT}")), "ORA-28365");
}

#[test]
fn h10_a_wrong_pin_counts_once_for_every_host_of_the_fleet() {
    let mut first = World::new();
    open_hsm(&mut first, &hsm19("FIN"));
    first.sql("FIN", "SHUTDOWN IMMEDIATE\nSTARTUP");
    let bad = OPEN_OLD.replace("OldPass_1", "wrong_one");
    first.sql("FIN", &bad);
    let state = first.old.state().unwrap();
    assert_eq!((state.logins.failed, state.users["tdeold"].failed), (1, 1));
    // A right one clears the run but not the counter.
    first.sql("FIN", OPEN_OLD);
    let state = first.old.state().unwrap();
    assert_eq!((state.logins.failed, state.users["tdeold"].failed), (1, 0));
}

#[test]
fn h12_an_sso_with_the_old_pin_logs_in_at_every_look() {
    let mut world = World::new();
    let mut spec = hsm19("FIN");
    spec["source"]["hsm"]["auto_open"] = json!({"software_password": SW, "auto_login": "auto"});
    world.seed(&spec);
    world.install_library(Vendor::CloudHsm);
    has(&world.sql("FIN", "STARTUP NOMOUNT"), "ORACLE instance started.");
    world.sql("FIN", "ALTER DATABASE MOUNT;");
    for failed in 1..=5 {
        world.sql("FIN", WALLET);
        assert_eq!(world.cloud.state().unwrap().logins.failed, failed);
    }
    // tdeold is no user there; nobody is locked, but with one user for both stores all would be.
    assert!(!world.cloud.state().unwrap().users["tdecu"].locked);
}

#[test]
fn h15_a_source_that_opens_by_itself() {
    let mut world = World::new();
    let mut spec = hsm12("OLDA");
    spec["source"]["hsm"]["auto_open"] = json!({"software_password": SW, "auto_login": "auto"});
    world.seed(&spec);
    let out = world.sql("OLDA", &format!("STARTUP\n{WALLET}\n{COUNT}"));
    has(&out, "HSM|OPEN|HSM|SINGLE");
    has(&out, "20 rows");
}

#[test]
fn h16_sqlnet_is_per_home() {
    let mut world = World::new();
    world.seed(&hsm12("OLDA"));
    world.seed(&hsm12("OLDB"));
    for sid in ["OLDA", "OLDB"] {
        has(&world.sql(sid, &format!("STARTUP\n{OPEN_OLD}\n{COUNT}")), "20 rows");
    }
    let sqlnet = world.path(HOME12).join("network/admin/sqlnet.ora");
    let text = std::fs::read_to_string(&sqlnet).unwrap();
    let text = text.replace(
        "(SOURCE=(METHOD=HSM))",
        "(SOURCE=(METHOD=FILE)(METHOD_DATA=(DIRECTORY=/u01/app/oracle/admin/$ORACLE_SID/wallet)))",
    );
    std::fs::write(&sqlnet, text).unwrap();
    for sid in ["OLDA", "OLDB"] {
        let create = CREATE_SW.replace("KEYSTORE ", &format!("KEYSTORE '/u01/app/oracle/admin/{sid}/wallet' "));
        let out = world.sql(sid, &format!("{create}\n{OPEN_SW}\n{REVERSE}\n{WALLET}\nALTER SYSTEM CHECKPOINT;"));
        has_not(&out, "ORA-");
        has(&out, "FILE|OPEN|PASSWORD|SINGLE");
    }
    let seen = world.verify(&["old-hsm"]);
    assert_eq!(seen["OLDA"].rows_readable + seen["OLDB"].rows_readable, 100, "{seen:?}");
    // TNS_ADMIN wins over the home's own file.
    std::fs::create_dir_all(world.path("/etc/tns")).unwrap();
    std::fs::write(world.path("/etc/tns/sqlnet.ora"), "encryption_wallet_location=(source=(method=hsm))\n").unwrap();
    let mut command = world.sqlplus_command(HOME12, "OLDA");
    let mut child = command.env("TNS_ADMIN", "/etc/tns").spawn().unwrap();
    use std::io::Write as _;
    write!(child.stdin.take().unwrap(), "CONNECT / AS SYSDBA\nSET PAGESIZE 0\n{WALLET}\n").unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    has(&out, "HSM|OPEN|HSM|SINGLE");
}

#[test]
fn h17_one_process_of_an_instance_maps_the_library() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    world.seed(&software19("SOFT"));
    world.sql("SOFT", &format!("STARTUP\n{OPEN_SW}\n{COUNT}"));
    world.sql("FIN", "STARTUP");
    let maps = |sid: &str| {
        let pid = world.pmon(sid).unwrap();
        std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("/opt/oracle/extapi/64/hsm/")
    };
    assert!(!maps("FIN") && !maps("SOFT"), "not before the first use");
    world.sql("FIN", OPEN_OLD);
    assert!(maps("FIN") && !maps("SOFT"));
    let close = OPEN_OLD.replace("OPEN", "CLOSE");
    has(&world.sql("FIN", &close), "keystore altered.");
    assert!(maps("FIN"), "until the process ends");
}

#[test]
fn h19_h20_h21_what_rules_must_find_is_in_the_views() {
    let mut world = World::new();
    let mut spec = hsm19("FIN");
    spec["parameters"] = json!({"open_cursors": "500"});
    spec["planted"] = json!({
        "data_guard": true, "rac": true, "flashback_on": true, "capture": true, "rman_running": true,
        "datapump_running": true, "long_transaction_minutes": 90, "restore_points": [["BEFORE_RELEASE", true]],
        "datafiles_offline": ["MORE"], "tablespaces_rekeying": ["DATA"], "recovery_area_used": 10737418240u64,
        "memory_parameters": {"open_cursors": "900"}, "processes": 250
    });
    world.seed(&spec);
    let out = world.sql("FIN", &format!("STARTUP RESTRICT\n{OPEN_OLD}"));
    has(&out, "keystore altered.");
    for (sql, wanted) in [
        ("SELECT value FROM v$parameter WHERE name = 'cluster_database'", "TRUE"),
        ("SELECT parallel FROM gv$instance", "YES"),
        ("SELECT count(*)||' DG' FROM v$dataguard_config", "2 DG"),
        ("SELECT target||' '||destination FROM v$archive_dest WHERE dest_id = 2", "STANDBY FIN_STBY"),
        ("SELECT flashback_on||' '||database_role FROM v$database", "YES PRIMARY"),
        ("SELECT name||' '||guarantee_flashback_database FROM v$restore_point", "BEFORE_RELEASE YES"),
        ("SELECT status||' '||capture_name FROM dba_capture", "ENABLED OGG$CAP_E1"),
        ("SELECT status||' '||operation FROM v$rman_status WHERE status = 'RUNNING'", "RUNNING BACKUP"),
        ("SELECT state||' '||job_name FROM dba_datapump_jobs", "EXECUTING SYS_EXPORT_FULL_01"),
        (
            "SELECT round((SYSDATE - t.start_date) * 1440)||' '||s.username FROM v$transaction t JOIN v$session s ON s.taddr = t.addr",
            "90",
        ),
        (
            "SELECT status||' '||t.name FROM v$datafile d, v$tablespace t WHERE t.ts# = d.ts# AND t.con_id = d.con_id AND d.status NOT IN ('SYSTEM','ONLINE')",
            "RECOVER MORE",
        ),
        ("SELECT count(*)||' to recover' FROM v$recover_file", "1 to recover"),
        (
            "SELECT t.name||' '||e.status FROM v$encrypted_tablespaces e JOIN v$tablespace t ON t.ts# = e.ts# WHERE e.status <> 'NORMAL'",
            "DATA REKEYING",
        ),
        ("SELECT space_limit - space_used||' free' FROM v$recovery_file_dest", "0 free"),
        ("SELECT status||' '||nvl(error, 'none') FROM v$archive_dest WHERE dest_id = 1", "ERROR ORA-19809"),
        (
            "SELECT p.value||' <> '||s.value FROM v$parameter p JOIN v$spparameter s ON s.name = p.name WHERE s.isspecified = 'TRUE' AND p.value <> s.value",
            "900 <> 500",
        ),
        ("SELECT logins FROM v$instance", "RESTRICTED"),
        ("SELECT current_utilization||' processes' FROM v$resource_limit WHERE resource_name = 'processes'", "252 processes"),
        ("SELECT count(*)||' backups' FROM v$backup_datafile WHERE completion_time > SYSDATE - 7", "0 backups"),
        ("SELECT count(*) || ' rman' FROM v$session WHERE program LIKE 'rman%'", "1 rman"),
    ] {
        has(&world.sql("FIN", &format!("{sql};")), wanted);
    }
    has(&world.sql("FIN", "ALTER SYSTEM ARCHIVE LOG CURRENT;"), "ORA-16038");

    let mut spec = cdb19("CDB");
    spec["pdbs"][1]["isolated"] = true.into();
    spec["no_spfile"] = true.into();
    world.seed(&spec);
    let out = world.sql("CDB", &format!("STARTUP\n{OPEN_OLD}\nSELECT con_id||' '||keystore_mode FROM v$encryption_wallet;\nSELECT 'spfile '||nvl(value, 'none') FROM v$parameter WHERE name = 'spfile';"));
    for wanted in ["1 NONE", "3 UNITED", "4 ISOLATED", "spfile none"] {
        has(&out, wanted);
    }
    has(&world.sql("CDB", "ALTER SYSTEM SET open_cursors=400 SCOPE=SPFILE;"), "ORA-32001");
}

#[test]
fn h17_startup_looks_for_its_parameter_file_where_oracle_does() {
    let mut world = World::new();
    world.seed(&cdb19("CDB"));
    let dbs = world.path(&format!("{HOME19}/dbs"));
    let spfile = |world: &World| {
        world.sql("CDB", "STARTUP\nSELECT 'spfile '||nvl(value, 'none')||' '||(SELECT value FROM v$parameter WHERE name = 'open_cursors') FROM v$parameter WHERE name = 'spfile';\nALTER SYSTEM SET open_cursors=444 SCOPE=SPFILE;\nSHUTDOWN ABORT")
    };
    has(&spfile(&world), "dbs/spfileCDB.ora 300");
    // The name that any instance of the home would take.
    std::fs::rename(dbs.join("spfileCDB.ora"), dbs.join("spfile.ora")).unwrap();
    has(&spfile(&world), "dbs/spfile.ora 444");
    // One line that leads elsewhere, and what stands behind it counts.
    std::fs::rename(dbs.join("spfile.ora"), dbs.join("elsewhere.ora")).unwrap();
    std::fs::write(dbs.join("more.ora"), "open_cursors=555\n").unwrap();
    std::fs::write(dbs.join("initCDB.ora"), "SPFILE='?/dbs/elsewhere.ora'\nIFILE=?/dbs/more.ora\n").unwrap();
    has(&spfile(&world), "dbs/elsewhere.ora 555");
    assert!(std::fs::read_to_string(dbs.join("elsewhere.ora")).unwrap().contains("open_cursors=444"));
    std::fs::remove_file(dbs.join("elsewhere.ora")).unwrap();
    has_not(&spfile(&world), "instance started");
}

#[test]
fn h21_a_stuck_archiver_holds_a_reverse_migrate() {
    let mut world = World::new();
    ready_to_reverse(&mut world);
    world.sim(&json!({"faults": [{"id": "a", "do": "archiver-stuck"}]}));
    let mut child = world.spawn_sql("FIN", REVERSE);
    world.until("the pointer has moved and the logs wait", || {
        let out = world.sql("FIN", "SELECT action||' '||s.status FROM v$session s WHERE type = 'USER';\nSELECT 'at '||keystore_type FROM v$encryption_keys ORDER BY activation_time DESC;");
        (out.contains("REVERSE MIGRATE ACTIVE") && out.contains("at SOFTWARE KEYSTORE")).then_some(())
    });
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    world.sim(&json!({}));
    drop(child.stdin.take());
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    has(&out, "keystore altered.");
}

#[test]
fn h25_startup_uses_the_spfile_and_pdbs_come_back_mounted() {
    let mut world = World::new();
    world.seed(&cdb19("CDB"));
    let out = world.sql(
        "CDB",
        &format!("STARTUP\nSELECT name||' '||open_mode FROM v$pdbs;\n{OPEN_OLD}\nALTER PLUGGABLE DATABASE ALL OPEN READ WRITE;"),
    );
    for wanted in ["PDB$SEED READ ONLY", "PDB1 MOUNTED", "PDB2 MOUNTED", "Pluggable database altered."] {
        has(&out, wanted);
    }
    let in_pdb = "ALTER SESSION SET CONTAINER = PDB1;";
    has(&world.sql("CDB", &format!("{in_pdb}\n{COUNT}")), "ORA-28365");
    let all = OPEN_OLD.replace(';', " CONTAINER = ALL;");
    has(&world.sql("CDB", &format!("{all}\n{in_pdb}\nSHOW CON_NAME\n{COUNT}")), "20 rows");
    // What was set in memory alone is gone after a restart.
    world.sql("CDB", "ALTER SYSTEM SET open_cursors=777 SCOPE=MEMORY;\nSHUTDOWN IMMEDIATE\nSTARTUP");
    has_not(&world.sql("CDB", "SHOW PARAMETER open_cursors"), "777");
}

#[test]
fn h26_a_hanging_shutdown() {
    let mut world = World::new();
    open_hsm(&mut world, &hsm19("FIN"));
    world.sim(&json!({"faults": [{"id": "h", "sid": "FIN", "at": "SHUTDOWN:begin", "do": "hang"}]}));
    let mut child = world.spawn_sql("FIN", "SHUTDOWN IMMEDIATE");
    world.until("the shutdown hangs", || {
        world.sql("FIN", "SELECT action FROM v$session WHERE status = 'ACTIVE';").contains("SHUTDOWN").then_some(())
    });
    world.sim(&json!({}));
    drop(child.stdin.take());
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    has(&out, "ORACLE instance shut down.");
}

#[test]
fn h28_a_killed_client_leaves_a_server_that_finishes() {
    let mut world = World::new();
    ready_to_migrate(&mut world);
    world.sim(&json!({"phase_delay_ms": {"MIGRATE:columns": 600}}));
    let mut client = world.spawn_sql("FIN", MIGRATE);
    let session = |world: &World| {
        world.sql("FIN", "SELECT 'is '||s.sid||','||s.serial#||','||p.spid||','||s.process FROM v$session s JOIN v$process p ON p.addr = s.paddr WHERE s.action = 'MIGRATE';")
    };
    let row = world.until("MIGRATE runs", || session(&world).lines().find_map(|l| l.strip_prefix("is ").map(str::to_owned)));
    assert!(row.ends_with(&format!(",{}", client.id())), "{row} is of client {}", client.id());
    client.kill().unwrap();
    client.wait().unwrap();
    has(&session(&world), &row);
    world.until("the server has finished", || (!session(&world).contains("is ")).then_some(()));
    has(&world.sql("FIN", WALLET), "HSM|OPEN|HSM|PRIMARY");
    let spid = row.split(',').nth(2).unwrap();
    world.until("the server process is gone", || (!std::path::Path::new(&format!("/proc/{spid}")).exists()).then_some(()));
    // Sent again blindly, it would have been a second rotation: it answers that it is done.
    has(&world.sql("FIN", MIGRATE), "ORA-28377");
}

/// The truth is the sandbox's, and it tells a database that lost its keys from one that did not.
#[test]
fn h46_verify_reads_rows_and_believes_nobody() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    world.seed(&hsm19("FIN"));
    assert_eq!(world.verify(&[])["SOFT"].rows_readable, 50);
    let seen = world.verify(&["software"]);
    assert_eq!((seen["SOFT"].rows_readable, seen["FIN"].rows_readable), (0, 50));
    assert!(seen["SOFT"].containers["SOFT"].causes.keys().any(|cause| cause.contains("28365")), "{seen:?}");
    // A tablespace whose rows are another's: readable, and wrong.
    let mut truth = world.truths.clone();
    truth[0].containers.get_mut("SOFT").unwrap().get_mut("APP.DATA_T").unwrap().rows[3] = "00".into();
    let right = std::mem::replace(&mut world.truths, truth);
    let seen = world.verify(&[]);
    assert_eq!((seen["SOFT"].rows_readable, seen["SOFT"].containers["SOFT"].rows_wrong), (49, 1));
    world.truths = right;
    // Verifying leaves no trace on the tokens.
    let before = world.old.state().unwrap();
    world.verify(&["old-hsm"]);
    assert_eq!(world.old.state().unwrap(), before);
    // A lost keystore is lost.
    std::fs::remove_file(world.path("/u01/app/oracle/admin/SOFT/wallet/tde/ewallet.p12")).unwrap();
    assert_eq!(world.verify(&[])["SOFT"].rows_readable, 0);
}

#[test]
fn h47_two_vendors_two_tokens() {
    let mut world = World::new();
    ready_to_migrate(&mut world);
    // The old vendor's PIN opens nothing at the other's.
    has(&world.sql("FIN", OPEN_OLD), "ORA-28353");
    world.cloud.modify(|s| s.limited_write = true).unwrap();
    has(&world.sql("FIN", MIGRATE), "ORA-28407: Hardware Security Module failed with PKCS#11 error CKR_FUNCTION_FAILED(6)");
    assert!(world.cloud.state().unwrap().keys.is_empty());
    world.cloud.modify(|s| (s.limited_write, s.reachable) = (false, false)).unwrap();
    has(&world.sql("FIN", &MIGRATE.replace("mg_1", "mg_2")), "ORA-28407");
    world.cloud.modify(|s| (s.reachable, s.latency_ms) = (true, 30)).unwrap();
    let before = std::time::Instant::now();
    has(&world.sql("FIN", &MIGRATE.replace("mg_1", "mg_3")), "keystore altered.");
    assert!(before.elapsed().as_millis() > 300, "{:?}", before.elapsed());
    assert!(world.old.state().unwrap().keys.is_empty());
    // Without its own /opt/… a library reaches nothing.
    world.cloud.modify(|s| s.latency_ms = 0).unwrap();
    world.sql("FIN", "SHUTDOWN IMMEDIATE");
    std::fs::remove_file(world.path("/opt/cloudhsm/etc/customerCA.crt")).unwrap();
    has(&world.sql("FIN", &format!("STARTUP\n{OPEN_NEW}")), "ORA-28407");
}

#[test]
fn h48_file_keystore_per_session() {
    let mut world = World::new();
    world.seed(&software19("SOFT"));
    world.switch("file_keystore_per_session", true);
    has(&world.sql("SOFT", &format!("STARTUP\n{OPEN_SW}\n{COUNT}")), "20 rows");
    has(&world.sql("SOFT", WALLET), "FILE|CLOSED|UNKNOWN|SINGLE");
    has(&world.sql("SOFT", COUNT), "ORA-28365");
    let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"Soft_Pw_1\" WITH BACKUP;";
    has(&world.sql("SOFT", &format!("{OPEN_SW}\n{set}\n{COUNT}")), "20 rows");
}

#[test]
fn h48_migrate_rotates_pdbs_or_not() {
    for rotates in [true, false] {
        let mut world = World::new();
        world.install_library(Vendor::CloudHsm);
        let mut spec = cdb19("CDB");
        spec["source"] = json!({"software": {"password": SW}});
        world.seed(&spec);
        world.switch("migrate_rotates_pdbs", rotates);
        let all = OPEN_SW.replace(';', " CONTAINER = ALL;");
        let out = world
            .sql("CDB", &format!("STARTUP\nALTER PLUGGABLE DATABASE ALL OPEN;\n{all}\n{}\n{MIGRATE}", configure("HSM|FILE")));
        has_not(&out, "ORA-");
        let store = |con: &str| world.inspect()["CDB"]["containers"][con]["active"]["store"].as_str().unwrap().to_owned();
        assert_eq!(store("CDB$ROOT"), "cloudhsm");
        assert_eq!(store("PDB1"), if rotates { "cloudhsm" } else { "software" });
        if !rotates {
            let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"tdecu:NewPass_1\";";
            let out =
                world.sql("CDB", &format!("ALTER SESSION SET CONTAINER=PDB1;\n{set}\nALTER SESSION SET CONTAINER=PDB2;\n{set}"));
            has_not(&out, "ORA-");
        }
        assert_eq!(store("PDB2"), "cloudhsm");
        world.sql("CDB", "ALTER SYSTEM CHECKPOINT;");
        assert_eq!(world.verify(&["software"])["CDB"].rows_readable, 40);
        assert_eq!(world.inspect()["CDB"]["containers"]["PDB1"]["keys"], json!({"software": 1, "cloudhsm": 1}));
    }
}

#[test]
fn h48_the_other_switches() {
    let mut world = World::new();
    ready_to_migrate(&mut world);
    // needs restart
    world.switch("tde_configuration_needs_restart", true);
    has(&world.sql("FIN", MIGRATE), "ORA-28415");
    has(&world.sql("FIN", &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_SW}\n{MIGRATE}")), "keystore altered.");
    // burns a login
    world.switch("open_burns_hsm_login", true);
    world.sql("FIN", "SHUTDOWN IMMEDIATE\nSTARTUP");
    has(&world.sql("FIN", OPEN_SW), "keystore altered.");
    assert_eq!(world.cloud.state().unwrap().logins.failed, 1);
    // codes
    world.switch("repeated_migrate", 28414);
    has(&world.sql("FIN", &format!("{OPEN_NEW}\n{MIGRATE}")), "ORA-28414");
}

/// In a CDB a crash behind the root's pointer leaves PDBs on the old key: MIGRATE is done, SET KEY finishes each.
#[test]
fn h49_a_crash_between_root_and_pdbs() {
    let mut world = World::new();
    world.install_library(Vendor::CloudHsm);
    let mut spec = cdb19("CDB");
    spec["source"] = json!({"software": {"password": SW}});
    world.seed(&spec);
    let all = |open: &str| open.replace(';', " CONTAINER = ALL;");
    let start = format!("STARTUP MOUNT\n{OPEN_SW}\n{OPEN_NEW}\nALTER DATABASE OPEN;\nALTER PLUGGABLE DATABASE ALL OPEN;");
    world.sql("CDB", &format!("{start}\n{}\n{}", all(OPEN_SW), configure("HSM|FILE")));
    world.sim(&json!({"faults": [{"id": "f", "at": "MIGRATE:pointer", "do": "crash-instance"}]}));
    has(&world.sql("CDB", MIGRATE), "ORA-03113");
    world.until("the instance is gone", || world.pmon("CDB").is_none().then_some(()));
    let out = world.sql("CDB", &format!("{start}\n{}\n{}\n{MIGRATE}", all(OPEN_SW), all(OPEN_NEW)));
    has(&out, "ORA-28377");
    for pdb in ["PDB1", "PDB2"] {
        let set = "ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"tdecu:NewPass_1\";";
        let out = world.sql("CDB", &format!("ALTER SESSION SET CONTAINER={pdb};\n{COUNT}\n{set}\n{COUNT}"));
        has_not(&out, "ORA-");
        assert_eq!(out.matches("20 rows").count(), 2);
    }
    world.sql("CDB", "ALTER SYSTEM CHECKPOINT;");
    assert_eq!(world.verify(&["software"])["CDB"].rows_readable, 40);
}

/// Every phase of both migrations, with the instance or the server process dying there: the data reads on,
/// and the statement, sent again by someone who looked first, ends it.
#[test]
fn h49_a_crash_after_every_phase_loses_nothing() {
    let phases = ["begin", "key", "columns", "tablespace", "tablespaces", "pointer", "end"];
    let mut tried = 0;
    for class in ["REVERSE MIGRATE", "MIGRATE"] {
        for act in ["crash-instance", "kill-server"] {
            let mut world = World::new();
            for phase in phases {
                tried += 1;
                interrupted(&mut world, class, act, phase);
            }
        }
    }
    println!("{tried} crash points");
}

fn interrupted(world: &mut World, class: &str, act: &str, phase: &str) {
    let case = format!("{class}:{phase} {act}");
    let sid = &format!("S{}", world.truths.len());
    let reverse = class == "REVERSE MIGRATE";
    let vendor = if reverse { Vendor::OldHsm } else { Vendor::CloudHsm };
    world.sim(&json!({}));
    world.install_library(vendor);
    let (spec, configuration, statement) =
        if reverse { (hsm19(sid), "FILE|HSM", REVERSE) } else { (software19(sid), "HSM|FILE", MIGRATE) };
    world.seed(&spec);
    let opens = if reverse { format!("{OPEN_SW}\n{OPEN_OLD}") } else { OPEN_SW.to_owned() };
    let create = if reverse { CREATE_SW } else { "" };
    let out = world.sql(sid, &format!("STARTUP\n{create}\n{}\n{opens}", configure(configuration)));
    has_not(&out, "ORA-");
    world.sim(&json!({"faults": [{"id": case, "at": format!("{class}:{phase}"), "do": act}]}));
    let out = world.sql(sid, statement);
    has_not(&out, "keystore altered.");
    if act == "crash-instance" {
        world.until("the instance is gone", || world.pmon(sid).is_none().then_some(()));
        // Where the pointer has moved, the HSM is the one to be opened first; every open is tolerant.
        let out = world.sql(sid, &format!("STARTUP\n{opens}\n{}\nALTER DATABASE OPEN;", if reverse { "" } else { OPEN_NEW }));
        has(&out, "Database altered.");
    } else {
        world.until("its session is gone", || {
            let out = world.sql(sid, "SELECT count(*)||' sessions' FROM v$session WHERE type = 'USER';");
            out.contains("1 sessions").then_some(())
        });
    }
    has(&world.sql(sid, COUNT), "20 rows");
    // Look, then act.
    let target = if reverse { "software" } else { "cloudhsm" };
    let active = |world: &World| world.inspect()[sid]["containers"][sid]["active"]["store"].as_str().unwrap().to_owned();
    let done = active(world) == target;
    assert_eq!(done, phase == "pointer" || phase == "end", "{case}");
    if !done {
        let out = world.sql(sid, &statement.replace("_1'", "_2'"));
        has(&out, "keystore altered.");
    }
    assert_eq!(active(world), target, "{case}");
    let made: u64 = world.inspect()[sid]["containers"][sid]["keys"][target].as_u64().unwrap();
    let orphan = !done && phase != "begin";
    assert_eq!(made, 1 + u64::from(orphan), "{case}: one active key, and at most one orphan");
    has_not(&world.sql(sid, "ALTER SYSTEM CHECKPOINT;"), "ORA-");
    let source = if reverse { "old-hsm" } else { "software" };
    let seen = world.verify_one(sid, &[source]);
    assert_eq!(seen.rows_readable, 50, "{case}: {seen:?}");
    world.crash(sid);
}
