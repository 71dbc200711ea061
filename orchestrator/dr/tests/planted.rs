//! One thing taken away at a time: each has its own cause.

mod common;

use common::*;
use tde2hsm_dr::facts::*;
use tde2hsm_dr::inventory::*;
use tde2hsm_dr::points::*;
use tde2hsm_protocol::*;

#[test]
fn h40_with_everything_there_it_opens_and_names_with_what() {
    let Verdict::Opens(opening) = world().verdict() else { panic!("{:?}", world().verdict()) };
    assert_eq!(opening.backup.map(|b| b.id), Some(backup(1_000_001)));
    assert_eq!(opening.snapshots, [snapshot(1_000_001), snapshot(1_000_002)]);
    assert_eq!(opening.secrets, [(SecretRole::CryptoUser, SecretRef { arn: secret_arn(&dr(), "cu"), version: version(10) })]);
    assert_eq!(opening.hsm_keys.into_iter().collect::<Vec<_>>(), [key(1)]);
    assert!(opening.software_keys.is_empty() && opening.keystore.is_none());
}

fn expect(name: &str, world: &World, code: u16) {
    let verdict = world.verdict();
    assert!(matches!(verdict, Verdict::DoesNotOpen { .. }), "{name}: {verdict:?}");
    let mut found = codes(&verdict);
    found.dedup();
    assert_eq!(found, [code], "{name}: {verdict:?}");
}

fn unproven(name: &str, world: &World, code: u16) {
    let verdict = world.verdict();
    assert!(matches!(verdict, Verdict::NotProven { .. }), "{name}: {verdict:?}");
    let mut found = codes(&verdict);
    found.dedup();
    assert_eq!(found, [code], "{name}: {verdict:?}");
}

/// The look before does not know a key that was activated twelve hours before the set.
fn rotated(world: &mut World, seen: bool) {
    let at = TAKEN.plus(-12 * HOUR);
    for (index, inventory) in world.host.inventories.iter_mut().enumerate() {
        let database = &mut inventory.databases[0];
        if seen || index == 1 {
            database.known.push(known(2, Store::Hsm, at));
            database.needs = vec![active(2, Store::Hsm)];
        } else {
            inventory.taken_at = at.plus(-HOUR);
            inventory.received_at = at.plus(-HOUR);
            inventory.ordered_at = None;
        }
    }
}

#[test]
fn h40_h41_h42_ten_planted_causes_each_have_their_own_code() {
    // 1. The set is newer than any copied HSM backup: the source region has one with the key.
    let mut w = world();
    rotated(&mut w, true);
    w.common.backups.push(source_backup(2, TAKEN.plus(-6 * HOUR)));
    expect("set newer than any copied HSM backup", &w, 809);
    // Copied, it opens.
    w.common.backups.push(backup_copy(2, TAKEN.plus(-6 * HOUR)));
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());

    // 2. Every backup is older than a key.
    let mut w = world();
    rotated(&mut w, true);
    expect("backup older than a key", &w, 810);

    // 3. A volume of the set is missing: the sets before had it.
    let mut w = world();
    add_set(&mut w, 11, TAKEN.plus(6 * HOUR));
    w.host.snapshots.retain(|s| s.id != snapshot(12) && s.id != snapshot(1_000_012));
    w.host.copies.retain(|c| c.source != snapshot(12));
    expect("volume of the set missing", &w, 801);

    // 4. A copy is in error.
    let mut w = world();
    w.dr_snapshot(1_000_002).state = SnapshotState::Error;
    expect("copy in error", &w, 805);

    // 5. A key lies in the interim keystore alone, and that is not part of the point.
    let mut w = world();
    interim(&mut w);
    assert!(w.verdict().opens().is_some_and(|o| o.software_keys.contains(&key(9)) && o.keystore.is_some()), "{:?}", w.verdict());
    w.data(|d| d.keystore = KeystoreFacts { p12: false, auto_login: false, local: None, ..d.keystore.clone() });
    expect("key in the interim keystore only", &w, 813);
    let mut w = world();
    interim(&mut w);
    w.data(|d| d.files.iter_mut().filter(|f| f.what == FileKind::KeystoreDir).for_each(|f| f.volume = Some(volume(7))));
    expect("interim keystore on a volume outside the set", &w, 813);

    // 6. A key was rotated behind our back.
    let mut w = world();
    rotated(&mut w, false);
    expect("key rotated behind our back", &w, 811);

    // 7. The secret was rotated after the backup, and the version of its time is gone.
    let mut w = world();
    *w.dr_secret("cu") = secret("cu", &dr(), &[(11, TAKEN.plus(-HOUR))]);
    expect("secret rotated after the backup", &w, 815);

    // 8. Only a LOCAL auto-login keystore.
    let mut w = world();
    interim(&mut w);
    w.data(|d| d.keystore.p12 = false);
    expect("LOCAL_AUTOLOGIN only", &w, 814);

    // 9. The KMS key is disabled.
    let mut w = world();
    w.common.kms[0].state = KmsState::Disabled;
    expect("KMS key disabled", &w, 807);

    // And that of the secrets' replicas: the version is there, and nobody can read it.
    let mut w = world();
    w.common.kms[1].state = KmsState::PendingDeletion;
    expect("KMS key of the secrets about to be deleted", &w, 807);
    interim(&mut w);
    w.data(|d| d.keystore.auto_login = false);
    expect("and of the keystore's password", &w, 807);

    // 10. The control file lies on a volume outside the set.
    let mut w = world();
    w.data(|d| d.files.iter_mut().filter(|f| f.what == FileKind::Controlfile).for_each(|f| f.volume = Some(volume(7))));
    expect("controlfile on a volume outside the set", &w, 802);
}

/// A read-only tablespace still needs the interim software key.
fn interim(world: &mut World) {
    world.data(|d| {
        d.needs.push(read_only(9, Some(Store::Software)));
        d.known.push(known(9, Store::Software, TAKEN.plus(-40 * DAY)));
    });
}

#[test]
fn h40_the_point_is_what_the_dr_region_has() {
    let mut w = world();
    w.host.snapshots.retain(|s| s.id != snapshot(1_000_002));
    expect("no copy", &w, 803);
    let mut w = world();
    w.dr_snapshot(1_000_001).state = SnapshotState::Pending;
    expect("pending", &w, 804);
    let mut w = world();
    w.dr_snapshot(1_000_001).archived = true;
    expect("archived", &w, 806);
    let mut w = world();
    w.common.kms.clear();
    unproven("KMS key not asked about", &w, 825);
    let mut w = world();
    w.common.kms.truncate(1);
    unproven("KMS key of the secrets not asked about", &w, 825);
    let mut w = world();
    w.dr_secret("cu").kms_key = None;
    unproven("KMS key of the secret not told", &w, 825);
    let mut w = world();
    w.data(|d| d.files.iter_mut().filter(|f| f.what == FileKind::RedoLog).for_each(|f| (f.volume, f.ephemeral) = (None, true)));
    expect("redo on an instance store", &w, 802);
    let mut w = world();
    w.data(|d| d.files.iter_mut().filter(|f| f.what == FileKind::RedoLog).for_each(|f| f.volume = None));
    unproven("redo in ASM", &w, 820);
    let mut w = world();
    w.data(|d| d.files.retain(|f| f.what != FileKind::Controlfile));
    unproven("nobody knows where the control file is", &w, 820);
}

#[test]
fn h40_the_source_region_may_be_lost_and_nothing_changes() {
    let mut w = world();
    let before = w.verdict();
    w.common.unasked = [Ask::SourceSnapshots, Ask::SourceBackups].into();
    w.host.snapshots.retain(|s| s.region == dr());
    w.host.now = None;
    w.common.backups.retain(|b| b.region == dr());
    w.common.secrets.retain(|s| s.region == dr());
    assert_eq!(w.verdict(), before);
    let parts = &w.points()[0].parts;
    assert!(parts.iter().all(|p| p.device.is_some() && p.source_state.is_none()) && parts.iter().filter(|p| p.root).count() == 1);
}

#[test]
fn h40_a_set_is_consistent_by_one_start_or_by_its_word() {
    let late = |w: &mut World, word: Option<&str>| {
        for s in w.host.snapshots.iter_mut().filter(|s| s.region == source()) {
            s.tags.insert(tag::SET.into(), "nightly-1".into());
            if s.id == snapshot(2) {
                s.started = TAKEN.plus(120);
            }
            s.tags.extend(word.map(|word| (tag::CONSISTENCY.to_string(), word.to_string())));
        }
    };
    let mut w = world();
    late(&mut w, None);
    assert_eq!(w.points().len(), 1);
    unproven("two starts and no word", &w, 821);
    let mut w = world();
    late(&mut w, Some("backup-mode"));
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
    assert_eq!(w.points()[0].consistency, Consistency::BackupMode);
    let mut w = world();
    late(&mut w, Some("none"));
    expect("its own tag denies it", &w, 808);
    let mut w = world();
    late(&mut w, Some("crash-consistent"));
    unproven("a tag that the starts contradict", &w, 821);
}

/// A loop over the volumes, or a policy for each: all calls within one second.
#[test]
fn h40_calls_within_one_second_are_no_set() {
    let ms = |w: &mut World| {
        w.dr_snapshot(2).started_ms = 640;
        w.host.copies.iter_mut().find(|c| c.source == snapshot(2)).unwrap().started_ms = Some(640);
    };
    let mut w = world();
    ms(&mut w);
    assert_eq!(w.points().len(), 1);
    // The root volume holds nothing that recovery must bring together with the rest, unless files of the database lie there.
    w.data(|d| d.files.push(file(FileKind::Datafile, "/u01/system01.dbf", 1)));
    unproven("two calls", &w, 821);
    assert_eq!(w.points()[0].consistency, Consistency::None);
    let mut tagged = world();
    ms(&mut tagged);
    tagged.data(|d| d.files.push(file(FileKind::Datafile, "/u01/system01.dbf", 1)));
    for s in tagged.host.snapshots.iter_mut().filter(|s| s.region == source()) {
        s.tags.insert(tag::CONSISTENCY.into(), "crash-consistent".into());
    }
    assert!(tagged.verdict().opens().is_some(), "whoever took it says so, and the second is one: {:?}", tagged.verdict());
    // What the records know when the sources are gone.
    w.host.snapshots.retain(|s| s.region == dr());
    unproven("two calls, by the records", &w, 821);
    let mut w = world();
    w.host.snapshots.retain(|s| s.region == dr());
    assert!(w.verdict().opens().is_some());
    w.host.copies.iter_mut().for_each(|copy| copy.started_ms = None);
    unproven("nobody noted the milliseconds", &w, 821);
}

/// Redo of END BACKUP is needed, and a control file that knows of it.
#[test]
fn h40_in_backup_mode_redo_and_control_files_come_last() {
    for what in [FileKind::RedoLog, FileKind::Controlfile, FileKind::ArchivedLogs, FileKind::RecoveryArea] {
        for (seconds, ms, opens) in [(-1_800, 0, false), (0, 136, false), (0, 137, true), (1_800, 0, true)] {
            let mut w = world();
            let mut third = source_snapshot(3, 3, TAKEN.plus(seconds));
            third.started_ms = ms;
            w.host.copies.push(intent(&third, "t"));
            w.host.snapshots.extend([copy_of(&third, "t"), third]);
            w.data(|d| {
                d.files.retain(|f| f.what != what);
                d.files.push(file(what, "/u03/it", 3));
            });
            for s in w.host.snapshots.iter_mut().filter(|s| s.region == source()) {
                s.tags.insert(tag::SET.into(), "nightly-1".into());
                s.tags.insert(tag::CONSISTENCY.into(), "backup-mode".into());
            }
            match opens {
                true => assert!(w.verdict().opens().is_some(), "{what:?} {seconds}: {:?}", w.verdict()),
                false => unproven(&format!("{what:?} {seconds} {ms}"), &w, 821),
            }
        }
    }
}

#[test]
fn h40_a_tag_that_comes_back_each_day_names_no_set() {
    let mut w = world();
    add_set(&mut w, 11, TAKEN.plus(DAY));
    for s in w.host.snapshots.iter_mut().filter(|s| s.region == source()) {
        s.tags.insert(tag::SET.into(), "daily".into());
    }
    let points = w.points();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|p| p.parts.len() == 2 && p.databases[0].verdict.opens().is_some()), "{points:?}");
}

#[test]
fn h41_outside_observed_time_nothing_is_proven() {
    let mut w = world();
    w.host.inventories.remove(1);
    unproven("no look after", &w, 818);
    let mut w = world();
    w.host.inventories.remove(0);
    unproven("no look before", &w, 818);
    // A look within five minutes of the set is on no side of it, unless AWS's clock says so.
    let mut w = world();
    w.host.inventories[1].taken_at = TAKEN.plus(200);
    w.host.inventories[1].received_at = TAKEN.plus(260);
    w.host.inventories[1].ordered_at = Some(TAKEN.plus(-10));
    unproven("too near to tell", &w, 818);
    w.host.inventories[1].ordered_at = Some(TAKEN.plus(10));
    assert!(w.verdict().opens().is_some());
    let mut w = world();
    w.data(|d| d.blind = [ContainerName::new("PDB1").unwrap()].into());
    let verdict = w.verdict();
    assert!(matches!(verdict, Verdict::NotProven { .. }) && codes(&verdict) == [819, 819], "{verdict:?}");
    let mut w = world();
    w.host.inventories[1].databases[0].dbid = Some(2);
    unproven("another database of that name", &w, 818);
    let mut w = world();
    w.host.inventories[1].taken_at = TAKEN.plus(3 * HOUR);
    unproven("the clock was hours ahead", &w, 819);
}

#[test]
fn h41_a_look_that_saw_everything_is_worth_more_than_a_nearer_one() {
    let mut w = world();
    let mut dim = inventory(TAKEN.plus(-600));
    dim.databases[0].unreadable.push("the instance: it is down".into());
    w.host.inventories.push(dim);
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
}

#[test]
fn h41_what_was_rotated_after_the_set_is_not_asked_of_it() {
    let mut w = world();
    let database = &mut w.host.inventories[1].databases[0];
    database.known.push(known(2, Store::Hsm, TAKEN.plus(HOUR / 2)));
    database.needs = vec![active(2, Store::Hsm)];
    let Verdict::Opens(opening) = w.verdict() else { panic!("{:?}", w.verdict()) };
    assert_eq!(opening.hsm_keys.into_iter().collect::<Vec<_>>(), [key(1)]);
    // So near to the set that it may have been before it: then it must be in the backup, and is not.
    let database = &mut w.host.inventories[1].databases[0];
    database.known.pop();
    database.known.push(known(2, Store::Hsm, TAKEN.plus(100)));
    unproven("rotated at the time of the set", &w, 822);
}

#[test]
fn h41_a_former_key_is_needed_perhaps_and_an_active_one_for_sure() {
    // Rotated six hours before the set; the backup of four hours before it has both keys.
    let mut w = world();
    w.host.inventories[0] = inventory(TAKEN.plus(-12 * HOUR));
    let database = &mut w.host.inventories[1].databases[0];
    database.known.push(known(2, Store::Hsm, TAKEN.plus(-6 * HOUR)));
    database.needs = vec![active(2, Store::Hsm)];
    w.common.backups.push(backup_copy(2, TAKEN.plus(-4 * HOUR)));
    w.common.hsm_copies.push(hsm_intent(2, TAKEN.plus(-4 * HOUR), 10));
    let Verdict::Opens(opening) = w.verdict() else { panic!("{:?}", w.verdict()) };
    assert_eq!(opening.hsm_keys.into_iter().collect::<Vec<_>>(), [key(1), key(2)]);
    // Without it, the key that was active decides, and what was before it is not held against the point.
    w.common.backups.pop();
    expect("the active key is in no backup", &w, 811);
    // Had the former one been in the old HSM, it would only perhaps be needed.
    let mut w = world();
    w.host.inventories[0] = inventory(TAKEN.plus(-12 * HOUR));
    w.host.inventories[0].provider = Some(Provider::Other);
    let database = &mut w.host.inventories[1].databases[0];
    database.known = vec![known(2, Store::Hsm, TAKEN.plus(-6 * HOUR))];
    database.needs = vec![active(2, Store::Hsm)];
    w.common.backups.push(backup_copy(2, TAKEN.plus(-4 * HOUR)));
    unproven("redo of the old HSM's key", &w, 822);
}

#[test]
fn h8_a_backup_has_a_key_only_with_five_minutes_between_them() {
    let at = |made: i64, created: i64| {
        let mut w = world();
        w.data(|d| d.known = vec![known(1, Store::Hsm, TAKEN.plus(-2 * DAY + made))]);
        w.common.backups = vec![backup_copy(1, TAKEN.plus(-2 * DAY + created))];
        w.common.hsm_copies[0].created = TAKEN.plus(-2 * DAY + created);
        w
    };
    assert!(at(0, 300).verdict().opens().is_some());
    unproven("299 s after", &at(0, 299), 823);
    unproven("300 s before", &at(0, -300), 823);
    expect("301 s before", &at(0, -301), 810);
    // A look that AWS received five minutes before the backup shows it there, whatever the host's clock says.
    let mut w = at(0, 299);
    let mut early = inventory(TAKEN.plus(-2 * DAY));
    early.taken_at = TAKEN.plus(-2 * DAY + 10);
    early.received_at = TAKEN.plus(-2 * DAY - 1);
    early.ordered_at = Some(TAKEN.plus(-2 * DAY - 30));
    w.host.inventories.push(early);
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
    // A key may be made long before it is used.
    let mut w = world();
    w.data(|d| d.known[0].activated = Some(TAKEN.plus(-DAY)));
    assert!(w.verdict().opens().is_some(), "made in time, used later: {:?}", w.verdict());
}

/// Somebody takes a key out of the HSM, or a cluster is taken back to before it: backups made since need not have it (`A§4.7`).
#[test]
fn h41_a_backup_from_after_a_key_was_last_seen_in_the_hsm_does_not_prove_it() {
    let hours = |n: i64| TAKEN.plus(n * HOUR);
    let mut w = world();
    w.common.now = hours(48);
    for (n, hour) in [(2, 8), (3, 12)] {
        w.common.backups.push(backup_copy(n, hours(hour)));
        w.common.hsm_copies.push(hsm_intent(n, hours(hour), 10));
    }
    let chosen = |w: &World| w.verdict().opens().and_then(|o| o.backup.clone()).map(|b| b.id);
    assert_eq!(chosen(&w), Some(backup(1_000_001)), "the newest that a look came after which found the key still there");
    let mut alone = World { common: w.common.clone(), host: w.host.clone() };
    alone.common.backups.retain(|b| b.id != backup(1) && b.id != backup(1_000_001));
    assert_eq!(chosen(&alone), Some(backup(1_000_003)), "as long as nobody found it gone");
    alone.host.inventories.push(inventory(hours(9)));
    assert_eq!(chosen(&alone), Some(backup(1_000_002)));
    let missed = |hour: i64| {
        let mut look = inventory(hours(hour));
        look.databases[0].known = vec![known(2, Store::Hsm, hours(3))];
        look
    };
    w.host.inventories.push(missed(10));
    assert_eq!(chosen(&w), Some(backup(1_000_001)), "the last from before: {:?}", w.verdict());

    // Without that backup none is known to have it, and none is known to lack it.
    let mut without = World { common: w.common.clone(), host: w.host.clone() };
    without.common.backups.retain(|b| b.id != backup(1) && b.id != backup(1_000_001));
    unproven("gone from the HSM", &without, 823);
    assert!(without.verdict() != w.verdict());

    // A look that did not see everything, or saw another HSM, finds nothing gone.
    let cloudhsm = client(&[ADDRESS]);
    for (blind, provider) in [(vec![root()], cloudhsm), (vec![], Some(Provider::Other)), (vec![], None)] {
        let mut dimmed = World { common: w.common.clone(), host: w.host.clone() };
        let look = dimmed.host.inventories.last_mut().unwrap();
        look.databases[0].needs.clear();
        look.databases[0].blind.extend(blind);
        look.provider = provider;
        dimmed.common.backups.retain(|b| b.id != backup(1) && b.id != backup(1_000_001));
        assert_eq!(chosen(&dimmed), Some(backup(1_000_003)), "{:?}", dimmed.verdict());
    }

    // Seen again, as after a keystore that was closed for a while: what is made from then on has it.
    w.host.inventories.push(inventory(hours(14)));
    assert_eq!(chosen(&w), Some(backup(1_000_001)), "made while it was not seen: {:?}", w.verdict());
    w.common.backups.push(backup_copy(4, hours(16)));
    w.common.hsm_copies.push(hsm_intent(4, hours(16), 10));
    w.host.inventories.push(inventory(hours(18)));
    assert_eq!(chosen(&w), Some(backup(1_000_004)));
}

#[test]
fn h42_an_older_backup_opens_where_the_newer_ones_password_is_gone() {
    let mut w = world();
    let (old, new) = (TAKEN.plus(-5 * DAY), TAKEN.plus(-DAY));
    w.common.backups = vec![backup_copy(1, old), backup_copy(2, new)];
    w.common.hsm_copies = vec![hsm_intent(1, old, 10), hsm_intent(2, new, 11)];
    let chosen = |w: &World| w.verdict().opens().and_then(|o| o.backup.clone()).map(|b| b.id);
    assert_eq!(chosen(&w), Some(backup(1_000_001)), "{:?}", w.verdict());
    w.dr_secret("cu").versions.extend(secret("cu", &dr(), &[(11, TAKEN.plus(-2 * DAY))]).versions);
    assert_eq!(chosen(&w), Some(backup(1_000_002)), "the newest that opens");
    // A version without a stage may go at any time.
    w.dr_secret("cu").versions.iter_mut().for_each(|v| v.stages.clear());
    unproven("no stage", &w, 824);
}

#[test]
fn h42_a_password_that_was_not_recorded_is_known_only_as_far_as_stages_tell() {
    let with = |versions: &[(u32, Timestamp)]| {
        let mut w = world();
        w.common.hsm_copies.clear();
        *w.dr_secret("cu") = secret("cu", &dr(), versions);
        w
    };
    let backup_at = TAKEN.plus(-2 * DAY);
    assert!(with(&[(10, backup_at.plus(-DAY))]).verdict().opens().is_some());
    assert!(with(&[(10, backup_at.plus(-DAY)), (11, backup_at.plus(DAY))]).verdict().opens().is_some());
    unproven("rotated twice since", &with(&[(9, backup_at.plus(-DAY)), (10, backup_at.plus(HOUR)), (11, TAKEN)]), 824);
    unproven("rotated at that moment", &with(&[(10, backup_at.plus(-DAY)), (11, backup_at.plus(60))]), 824);
    let mut w = world();
    w.common.secrets.retain(|s| s.region == source());
    expect("not replicated", &w, 816);
    let mut w = world();
    w.common.uses.retain(|u| u.role != SecretRole::CryptoUser);
    unproven("nobody named a secret", &w, 824);
    let mut w = world();
    w.common.secrets.retain(|s| s.region == source());
    w.common.unasked.insert(Ask::DrSecret(secret_arn(&source(), "cu")));
    unproven("not asked", &w, 826);
}

#[test]
fn h40_the_software_keystore_wants_its_password_or_an_auto_login_that_is_known() {
    let gone = |local: Option<bool>, auto_login: bool| {
        let mut w = world();
        interim(&mut w);
        w.common.secrets.iter_mut().filter(|s| s.arn.as_str().contains("keystore")).for_each(|s| s.versions.clear());
        w.data(|d| (d.keystore.local, d.keystore.auto_login) = (local, auto_login));
        w
    };
    expect("no auto-login", &gone(None, false), 817);
    assert_eq!(gone(Some(true), true).codes(), [814, 817]);
    unproven("an auto-login that opens anywhere may lack the key", &gone(Some(false), true), 822);
    unproven("an auto-login of unknown kind", &gone(None, true), 822);
    let mut w = world();
    interim(&mut w);
    w.common.uses.retain(|u| u.role != SecretRole::Keystore);
    expect("LOCAL, and nobody has the password", &w, 814);
    // Without a key in it, none of this matters.
    let mut w = world();
    w.data(|d| d.keystore = KeystoreFacts::default());
    assert!(w.verdict().opens().is_some());
}

#[test]
fn h43_a_key_of_the_old_hsm_is_in_no_backup() {
    let mut w = world();
    w.host.inventories.iter_mut().for_each(|i| i.provider = Some(Provider::Other));
    expect("before the migration", &w, 812);
    let mut w = world();
    w.host.inventories.iter_mut().for_each(|i| i.provider = None);
    unproven("which HSM is not known", &w, 822);
    for (what, provider) in [
        ("addresses of another cluster", client(&["10.9.9.9"])),
        ("one of ours and one of another", client(&[ADDRESS, "10.9.9.9"])),
        ("none", client(&[])),
        ("a configuration that could not be read", Some(Provider::CloudHsm { servers: None })),
    ] {
        let mut w = world();
        w.host.inventories.iter_mut().for_each(|i| i.provider = provider.clone());
        unproven(what, &w, 822);
    }
    let mut w = world();
    w.common.cluster_addresses = None;
    unproven("nobody ever heard the cluster's addresses", &w, 822);
    // An HSM was replaced since: what was heard once is kept.
    let mut w = world();
    w.common.cluster_addresses = Some(["10.0.1.9".to_string(), ADDRESS.to_string()].into());
    assert!(w.verdict().opens().is_some());
}

#[test]
fn h37_a_copy_that_we_did_not_make_counts_only_if_it_fits_and_is_never_ours() {
    let mut w = world();
    w.dr_snapshot(1_000_002).tags.insert(tag::TOKEN.into(), "forged".into());
    let maker = |w: &World| w.points()[0].parts[1].copy.as_ref().map(|c| c.maker);
    assert_eq!(maker(&w), Some(Maker::Claimed));
    assert!(w.verdict().opens().is_some());
    w.dr_snapshot(1_000_002).size_gib += 1;
    assert_eq!(maker(&w), None);
    assert_eq!(w.points()[0].parts[1].others[0].maker, Maker::Refuted);
    expect("another size", &w, 803);
    w.dr_snapshot(1_000_002).size_gib -= 1;
    w.dr_snapshot(1_000_002).started = TAKEN.plus(-1);
    expect("begun before its source", &w, 803);
}

#[test]
fn what_was_not_asked_is_not_taken_for_absent() {
    for (ask, code) in [(Ask::DrBackups, 826), (Ask::Records, 826)] {
        let mut w = world();
        w.common.backups.clear();
        w.common.backups.push(backup_copy(1, TAKEN.plus(-2 * DAY)));
        w.common.unasked.insert(ask);
        unproven("not asked", &w, code);
    }
    let mut w = world();
    w.host.snapshots.retain(|s| s.region == source());
    w.common.unasked.insert(Ask::DrSnapshots);
    assert!(matches!(w.verdict(), Verdict::NotProven { .. }));
}

#[test]
fn every_database_of_a_host_has_its_own_verdict() {
    let mut w = world();
    for inventory in &mut w.host.inventories {
        let mut second = inventory.databases[0].clone();
        second.sid = Sid::new("SECOND").unwrap();
        second.files.iter_mut().for_each(|f| f.volume = Some(volume(1)));
        inventory.databases.push(second);
    }
    w.dr_snapshot(1_000_002).state = SnapshotState::Error;
    let point = w.points().remove(0);
    assert_eq!(codes(&point.databases[0].verdict), [805]);
    assert!(point.databases[1].verdict.opens().is_some(), "its files lie on the other volume");
}

#[test]
fn sentences_name_what_they_are_about_and_hold_no_control_character() {
    let mut w = world();
    w.data(|d| d.files[2] = FilePlace { path: "/u0\u{1b}[31m2/redo".into(), volume: Some(volume(7)), ..d.files[2].clone() });
    let Verdict::DoesNotOpen { causes, .. } = w.verdict() else { panic!() };
    let text = causes[0].to_string();
    assert!(text.contains(volume(7).as_str()) && text.contains("redo logs"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let rotated = Cause::KeyRotatedUnseen { key: key(2), container: Some(root()), activated: TAKEN, newest_copied: None };
    assert!(rotated.to_string().contains("2026-03-04T00:00:00Z"), "{rotated}");
}
