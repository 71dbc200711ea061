//! The whole way by hand: old HSM → software keystore → CloudHSM, on both styles.

mod common;

use common::*;
use sandbox_shim::Vendor;

#[test]
fn hsm_to_file_to_hsm_by_hand_19c() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    let out = world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}\nSELECT count(*)||'|'||max(name) FROM app.data_t;"));
    has(&out, "Connected to an idle instance.");
    has(&out, "Database opened.");
    has(&out, "20|APP.DATA_T 9");
    let seen = world.verify(&[]);
    assert_eq!(seen["FIN"].rows_readable, 50, "{seen:?}");
    let seen = world.verify(&["old-hsm"]);
    assert_eq!(seen["FIN"].rows_readable, 0, "{seen:?}");

    let out = world.sql("FIN", &format!("{CREATE_SW}\n{}\n{OPEN_SW}\n{REVERSE}", configure("FILE|HSM")));
    has_not(&out, "ORA-");
    let out = world.sql(
        "FIN",
        "ALTER SYSTEM ARCHIVE LOG CURRENT;\nALTER SYSTEM CHECKPOINT;\nSELECT wrl_type||'|'||status||'|'||wallet_type||'|'||wallet_order FROM v$encryption_wallet;",
    );
    has(&out, "FILE|OPEN|PASSWORD|PRIMARY");
    has(&out, "HSM|OPEN|HSM|SECONDARY");
    let out = world.sql("FIN", &format!("{}\nSHUTDOWN IMMEDIATE", configure("FILE")));
    has(&out, "Database closed.\nDatabase dismounted.\nORACLE instance shut down.");
    assert!(world.pmon("FIN").is_none());

    world.install_library(Vendor::CloudHsm);
    let out = world.sql(
        "FIN",
        &format!(
            "STARTUP MOUNT\n{OPEN_SW}\nALTER DATABASE OPEN;\nSELECT count(*) c FROM app.data_t;\n{}\n{MIGRATE}",
            configure("HSM|FILE")
        ),
    );
    has_not(&out, "ORA-");
    has(&out, "20");
    let out = world.sql("FIN", "SELECT wrl_type||'|'||status||'|'||wallet_type||'|'||wallet_order FROM v$encryption_wallet;");
    has(&out, "HSM|OPEN|HSM|PRIMARY");
    let out = world.sql(
        "FIN",
        &format!("SHUTDOWN IMMEDIATE\nSTARTUP\n{OPEN_NEW}\nSELECT count(*) FROM app.cards WHERE payload IS NOT NULL;"),
    );
    has(&out, "10");
    let seen = world.verify(&["old-hsm", "software"]);
    assert_eq!(seen["FIN"].rows_readable, 50, "{seen:?}");
    let seen = world.verify(&["target"]);
    assert_eq!(seen["FIN"].rows_readable, 0, "{seen:?}");
    let inspect = world.inspect();
    assert_eq!(inspect["FIN"]["starts"], 3);
    assert_eq!(inspect["FIN"]["containers"]["FIN"]["active"]["store"], "cloudhsm");
    assert_eq!(inspect["FIN"]["containers"]["FIN"]["keys"], serde_json::json!({"old-hsm":1,"software":1,"cloudhsm":1}));
    assert_eq!(inspect["FIN"]["statements"]["MIGRATE"], 1);
}
