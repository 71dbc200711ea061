//! An inventory out of a survey (H40, H41).

#![recursion_limit = "256"]

mod common;

use common::{instance, root, volume};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tde2hsm_dr::facts::FleetInstance;
use tde2hsm_dr::inventory::*;
use tde2hsm_protocol::survey::Survey;
use tde2hsm_protocol::*;

const TAKEN: i64 = 1_772_582_400;

fn key(n: u8) -> String {
    MasterKeyId([n; 16]).to_string()
}

fn survey() -> Value {
    let library = "/opt/oracle/extapi/64/hsm/cloudhsm/libcloudhsm_pkcs11.so";
    let place = |what: &str, path: &str, mounts: Value| json!({ "what": what, "path": path, "mounts": mounts });
    json!({
        "v": 1, "taken_at": TAKEN, "instance": instance(1), "account": "111122223333", "region": "eu-central-1",
        "runner_version": "0.1.0", "clusterware": false, "autostarts": [], "filesystems": [], "unreadable": [],
        "os": { "id": "ol", "version": "8", "arch": "x86_64", "kernel": "5", "systemd": true },
        "provider": {
            "libraries": [{ "path": library, "size": 1, "sha256": "0".repeat(64), "uid": 0, "gid": 0, "mode": 493, "symlink": false }],
            "mapped": [{ "pid": 7, "path": library, "deleted": false, "sid": "ORCL" }],
            "packages": [], "cloudhsm_mapped": true, "vendor": "cloud-hsm", "cloudhsm_servers": ["10.0.1.5"],
        },
        "files": [place("oratab", "/etc/oratab", json!(["/"]))],
        "mounts": [
            { "point": "/", "source": "/dev/xvda1", "disks": [{ "name": "xvda", "volume": null }] },
            { "point": "/u02", "source": "/dev/mapper/data", "disks": [
                { "name": "nvme1n1", "volume": volume(2) }, { "name": "nvme2n1", "volume": volume(3) },
            ] },
            { "point": "/u03", "source": "/dev/nvme3n1", "disks": [{ "name": "nvme3n1", "volume": null, "ephemeral": true }] },
            { "point": "/nfs", "source": "fs:/", "disks": null },
        ],
        "databases": [{
            "sid": "ORCL", "home": "/u01/home", "owner": { "user": "oracle", "uid": 1, "gid": 1 }, "tns_admin": "/u01",
            "in_oratab": true, "state": "open-read-write", "pmon": null, "keystore": "none",
            "keystore_dir": "/etc/wallet", "auto_login": "local",
            "keystore_files": [{ "name": "ewallet.p12", "size": 1, "sha256": "0".repeat(64), "uid": 1, "mode": 384, "filesystem": "/" }],
            "files": [
                place("datafile", "/u02/users.dbf", json!(["/u02"])),
                place("redo-log", "/u03/redo.log", json!(["/u03"])),
                place("controlfile", "/nfs/c.ctl", json!(["/nfs"])),
                place("archived-logs", "+FRA", json!(null)),
            ],
            "facts": {
                "dbid": 7, "name": "ORCL", "unique_name": "ORCL", "version": "19.0.0.0.0", "role": "PRIMARY",
                "open_mode": "READ WRITE", "cdb": true, "log_mode": "ARCHIVELOG", "restricted": false, "rac": false,
                "data_guard": false, "capture": false, "flashback": false, "spfile": null, "pending": [], "wallet": [],
                "containers": [
                    { "con_id": 1, "name": "CDB$ROOT", "open_mode": "READ WRITE", "restricted": false,
                      "key": { "id": key(3), "store": "hsm", "activated": TAKEN - 3_600 } },
                    { "con_id": 3, "name": "PDB1", "open_mode": "MOUNTED", "restricted": false, "key": null },
                ],
                "tablespaces": [{ "con_id": 3, "name": "HIST", "key": key(1), "access": "offline", "status": "NORMAL" }],
                "column_keys": [{ "con_id": 1, "key": key(3), "tables": 2 }],
                "redo": [], "restore_points": [], "last_full_backup": null, "processes": 1, "processes_limit": 2,
                "opens_by_itself": true,
                "blockers": { "archiver_stuck": false, "recovery_area_used": null, "long_transactions": 0, "rman_jobs": 0,
                    "data_pump_jobs": 0, "offline_datafiles": 0, "files_needing_recovery": 0, "backup_mode_files": 0 },
                "keys": [
                    { "key": key(1), "store": "software", "container": "PDB1", "activated": TAKEN - 900_000 },
                    { "key": key(2), "store": "hsm", "container": "CDB$ROOT", "activated": TAKEN - 800_000 },
                    { "key": key(3), "store": "hsm", "container": "CDB$ROOT", "created": TAKEN - 4_000, "activated": TAKEN - 3_600 },
                ],
            },
        }],
    })
}

fn look(survey: Value) -> Inventory {
    let survey: Survey = serde_json::from_value(survey).expect("a survey");
    let now = FleetInstance {
        instance: instance(1),
        volumes: BTreeMap::from([("/dev/sda1".to_string(), volume(1))]),
        root_device: Some("/dev/sda1".to_string()),
        instance_profile: None,
        name: None,
    };
    Inventory::from_survey(&survey, Timestamp(TAKEN + 60), Some(Timestamp(TAKEN - 60)), Some(&now))
}

#[test]
fn h41_every_key_that_something_needs_is_in_the_inventory_with_its_place_and_time() {
    let inventory = look(survey());
    let database = &inventory.databases[0];
    let id = |n: u8| MasterKeyId([n; 16]);
    let needs: Vec<(MasterKeyId, Option<Store>, &NeededBy)> =
        database.needs.iter().map(|n| (n.key, n.store, &n.needed_by)).collect();
    let pdb = || ContainerName::new("PDB1").unwrap();
    let access = tde2hsm_protocol::survey::Access::Offline;
    assert_eq!(
        needs,
        [
            (id(1), Some(Store::Software), &NeededBy::Tablespace { container: pdb(), name: "HIST".into(), access }),
            // Rotated an hour ago: redo under the former key may not be checkpointed yet (H2).
            (id(2), Some(Store::Hsm), &NeededBy::Redo(root())),
            (id(3), Some(Store::Hsm), &NeededBy::Container(root())),
            (id(3), Some(Store::Hsm), &NeededBy::Columns { container: root(), tables: 2 }),
        ]
    );
    assert_eq!(database.known.len(), 3);
    assert_eq!(database.known[2].created, Some(Timestamp(TAKEN - 4_000)));
    assert_eq!(database.blind, [pdb()].into(), "a closed container may have columns under any key");
    let servers = Some(["10.0.1.5".to_string()].into());
    assert_eq!(inventory.provider, Some(Provider::CloudHsm { servers }));
    assert_eq!(
        (inventory.taken_at, inventory.received_at.0, inventory.ordered_at.unwrap().0),
        (Timestamp(TAKEN), TAKEN + 60, TAKEN - 60)
    );
    // A day later that redo is checkpointed.
    let mut later = survey();
    later["databases"][0]["facts"]["containers"][0]["key"]["activated"] = json!(TAKEN - 90_000);
    assert!(!look(later).databases[0].needs.iter().any(|n| matches!(n.needed_by, NeededBy::Redo(_))));
}

#[test]
fn h40_files_are_followed_to_every_volume_below_them_or_to_none() {
    let inventory = look(survey());
    let at = |what: FileKind| -> Vec<(Option<VolumeId>, bool)> {
        let files = inventory.databases[0].files.iter().chain(&inventory.files);
        files.filter(|f| f.what == what).map(|f| (f.volume.clone(), f.ephemeral)).collect()
    };
    assert_eq!(at(FileKind::Datafile), [(Some(volume(2)), false), (Some(volume(3)), false)], "striped over two");
    assert_eq!(at(FileKind::RedoLog), [(None, true)], "an instance store");
    assert_eq!(at(FileKind::Controlfile), [(None, false)], "NFS");
    assert_eq!(at(FileKind::ArchivedLogs), [(None, false)], "ASM");
    assert_eq!(at(FileKind::Oratab), [(Some(volume(1)), false)], "Xen: by the block-device mapping");
    let keystore = &inventory.databases[0].keystore;
    assert_eq!((keystore.p12, keystore.auto_login, keystore.local), (true, true, Some(true)));
}

#[test]
fn h41_what_was_not_seen_is_said_and_never_taken_for_absent() {
    let change = |f: fn(&mut Value)| {
        let mut value = survey();
        f(&mut value);
        look(value)
    };
    let down = change(|s| (s["databases"][0]["facts"], s["databases"][0]["state"]) = (json!(null), json!("down")));
    assert!(down.databases[0].unreadable[0].contains("down") && down.databases[0].needs.is_empty());
    assert_eq!(change(|s| s["databases"][0]["facts"]["keys"] = json!(null)).databases[0].unreadable, ["V$ENCRYPTION_KEYS"]);
    assert_eq!(change(|s| s["databases"][0]["files"] = json!(null)).databases[0].unreadable, ["files of the database"]);
    assert_eq!(change(|s| s["files"] = json!(null)).unreadable, ["files of the host"]);
    // What an instance is started with after a restore, where that cannot be followed to its end, and what else decides.
    let unread = |what: &'static str| {
        let mut value = survey();
        value["unreadable"] = json!([{ "what": what, "why": "it leads to a file that is not there" }]);
        look(value)
    };
    for what in ["ORCL: parameter file", "ORCL: files", "ORCL: keystore directory"] {
        assert_eq!(unread(what).databases[0].unreadable, [what]);
    }
    for what in ["HR: parameter file", "ORCL: redo logs", "/etc/os-release"] {
        let look = unread(what);
        assert!(look.databases[0].unreadable.is_empty() && look.unreadable.is_empty() && look.provider.is_some(), "{what}");
    }
    assert!(unread("databases").unreadable == ["databases"] && !unread("databases").lists_databases());
    assert_eq!(unread("processes that map the provider").provider, None);
    // A process that still maps the former library talks to another HSM than the tree tells.
    assert_eq!(change(|s| s["provider"]["mapped"][0]["deleted"] = json!(true)).provider, None);
    assert_eq!(change(|s| s["provider"]["vendor"] = json!(null)).provider, None);
    assert_eq!(change(|s| s["provider"]["vendor"] = json!("other")).provider, Some(Provider::Other));
    let kind = change(|s| s["databases"][0]["auto_login"] = json!(null));
    assert_eq!(kind.databases[0].keystore.local, None);
}

#[test]
fn an_inventory_without_the_later_fields_is_still_read() {
    let mut value = serde_json::to_value(look(survey())).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("provider");
    object.remove("ordered_at");
    let old: Inventory = serde_json::from_value(value).unwrap();
    assert_eq!((old.provider, old.ordered_at), (None, None));
}
