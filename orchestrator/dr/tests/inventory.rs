//! What comes of a survey: an inventory (H40, H41), and what still needs the old HSM (H43).

#![recursion_limit = "256"]

mod common;

use common::{DAY, add_set, instance, key as master, read_only, root, volume, world};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tde2hsm_dr::estate::{Known, estate};
use tde2hsm_dr::facts::{FleetInstance, tag};
use tde2hsm_dr::inventory::*;
use tde2hsm_dr::points::{Point, Verdict};
use tde2hsm_dr::retire::PointNeed;
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
    // Its keys lie in a keystore of its own, which nobody looked for.
    let isolated = change(|s| {
        let row = |con_id: u32, mode: &str| {
            json!({ "con_id": con_id, "wrl_type": "FILE", "wrl_parameter": null, "status": "OPEN", "wallet_type": "PASSWORD",
                "wallet_order": "SINGLE", "keystore_mode": mode })
        };
        s["databases"][0]["facts"]["containers"][1]["open_mode"] = json!("READ WRITE");
        s["databases"][0]["facts"]["wallet"] = json!([row(1, "NONE"), row(3, "ISOLATED")]);
    });
    assert_eq!(isolated.databases[0].unreadable, ["keystore of PDB1, which is ISOLATED"]);
    let client = unread("the CloudHSM client's configuration").unreadable;
    assert_eq!(client, [tde2hsm_protocol::survey::what::CLIENT]);
    // A host without a configuration may have no key in an HSM; which one it would be is not known.
    let none = change(|s| s["provider"]["cloudhsm_servers"] = json!(null));
    assert_eq!((none.provider, none.unreadable.len()), (Some(Provider::CloudHsm { servers: None }), 0));
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

/// Sets that the old HSM is kept for, as a fleet knows it whose surveys are of [`survey`]'s host and a day's sets are kept.
fn old_hsm(points: &[Point], surveyed: bool, now: i64) -> Vec<PointNeed> {
    let surveys: Vec<Survey> = surveyed.then(|| serde_json::from_value(survey()).expect("a survey")).into_iter().collect();
    let policy = Retention { count: 0, hourly: 0, daily: 1, weekly: 0, monthly: 0, days: 0 };
    let known =
        Known { surveys: &surveys, declared: &[], points: Some(points), policy: &policy, undo_until: None, now: Timestamp(now) };
    estate(&known).points.expect("points were asked for")
}

/// A point of the host, taken after its keys had moved, of which the second region alone has something.
fn of_old_hsm() -> common::World {
    let mut w = world();
    w.host.snapshots.retain(|snapshot| snapshot.volume.is_none());
    w.data(|database| {
        database.needs.push(read_only(2, None));
        database.known.push(common::known(2, Store::Hsm, Timestamp(TAKEN - 900_000)));
    });
    let mut old = w.host.inventories[0].clone();
    old.taken_at = Timestamp(TAKEN - 400_000);
    old.received_at = Timestamp(TAKEN - 399_990);
    old.ordered_at = None;
    old.provider = Some(Provider::Other);
    for inventory in &mut w.host.inventories {
        inventory.databases[0].known.retain(|known| known.key != master(2));
    }
    old.databases[0].known.retain(|known| known.key == master(2));
    w.host.inventories.push(old);
    w
}

#[test]
fn h43_a_set_whose_verdict_says_old_hsm_counts_whoever_was_surveyed() {
    let w = of_old_hsm();
    let points = w.points();
    assert!(common::codes(&points[0].databases[0].verdict).contains(&812), "{:?}", points[0].databases);
    for surveyed in [false, true] {
        let found = old_hsm(&points, surveyed, TAKEN);
        assert_eq!(found.len(), 1, "surveyed: {surveyed}");
        assert_eq!(found[0].until, Some(Timestamp(TAKEN + DAY)));
    }
    // Held: without an end.
    let mut held = of_old_hsm();
    held.dr_snapshot(1_000_001).tags.insert(tag::HOLD.into(), "court".into());
    assert_eq!(old_hsm(&held.points(), false, TAKEN)[0].until, None);
}

#[test]
fn h43_a_host_that_is_gone_keeps_the_old_hsm_until_its_sets_are_proven_to_open_without_it() {
    let mut w = world();
    assert!(w.verdict().opens().is_some());
    assert_eq!(old_hsm(&w.points(), false, TAKEN), []);
    assert_eq!(old_hsm(&w.points(), true, TAKEN), [], "its keys had moved before");
    w.host.inventories.pop();
    assert!(matches!(w.verdict(), Verdict::NotProven { .. }));
    assert_eq!(old_hsm(&w.points(), false, TAKEN).len(), 1);
    w.host.inventories.clear();
    assert!(w.points()[0].databases.is_empty());
    assert_eq!(old_hsm(&w.points(), false, TAKEN).len(), 1);
    // A read-only tablespace may have left its old key only after the set.
    let mut w = of_old_hsm();
    w.host.inventories[1].databases[0].needs.pop();
    assert!(matches!(w.verdict(), Verdict::NotProven { .. }), "{:?}", w.verdict());
    assert_eq!(old_hsm(&w.points(), true, TAKEN).len(), 1);
}

#[test]
fn h43_a_set_that_outlived_its_date_has_none() {
    let mut w = of_old_hsm();
    add_set(&mut w, 11, Timestamp(TAKEN - 3 * DAY));
    w.host.snapshots.retain(|snapshot| snapshot.volume.is_none());
    let until: Vec<_> = old_hsm(&w.points(), false, TAKEN).into_iter().map(|need| need.until).collect();
    assert_eq!(until, [None, Some(Timestamp(TAKEN + DAY))], "{:?}", w.points());
}
