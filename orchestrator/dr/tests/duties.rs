//! Copying, retention, the RPO, the old HSM's last day, drills.

mod common;

use common::*;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::copying::*;
use tde2hsm_dr::drill::{self, Action, Egress, EgressTo, NoPlan, Place, PlaceFacts, Request, Route, RouteTarget, Violation};
use tde2hsm_dr::facts::*;
use tde2hsm_dr::points::*;
use tde2hsm_dr::records::Attempt;
use tde2hsm_dr::retention::{self, Item, Why};
use tde2hsm_dr::retire::{self, Answer, DatabaseFacts, Missing, Need, RetireWhen, Source, Thing};
use tde2hsm_dr::rpo::{self, AlarmState, Level, Sight, What};
use tde2hsm_protocol::*;

const DAILY: Retention = Retention { hourly: 0, daily: 3, weekly: 0, monthly: 0, count: 0, days: 0 };

fn expire(w: &World, policy: &Retention) -> retention::Expiry {
    retention::expire(&w.common, std::slice::from_ref(&w.host), &w.points(), policy, 7)
}

fn gone(expiry: &retention::Expiry) -> BTreeSet<SnapshotId> {
    let id = |d: &retention::Deletion| match &d.item {
        Item::Snapshot { id, .. } => Some(id.clone()),
        _ => None,
    };
    expiry.delete.iter().filter_map(id).collect()
}

/// Sets 10, 20, … on ten days, each with its copies.
fn ten_days() -> World {
    let mut w = world();
    for day in 1..10 {
        add_set(&mut w, day * 10, TAKEN.plus(i64::from(day) * DAY));
    }
    w.common.now = TAKEN.plus(10 * DAY);
    w
}

#[test]
fn grandfather_father_and_son_keep_what_opens() {
    let w = ten_days();
    let expiry = expire(&w, &DAILY);
    // Days 7, 8 and 9 stay.
    let kept: BTreeSet<SnapshotId> = [70, 71, 80, 81, 90, 91].map(|n| snapshot(n + 1_000_000)).into();
    let all: BTreeSet<SnapshotId> = w.host.snapshots.iter().filter(|s| s.region == dr()).map(|s| s.id.clone()).collect();
    assert_eq!(gone(&expiry), all.difference(&kept).cloned().collect());
    // Day 9 does not open: it is younger than the newest that does, and three days that open stand.
    let mut w = ten_days();
    w.dr_snapshot(1_000_091).state = SnapshotState::Error;
    let expiry = expire(&w, &DAILY);
    for stays in [60, 70, 80, 90] {
        assert!(!gone(&expiry).contains(&snapshot(stays + 1_000_000)), "{stays}");
    }
    assert!(gone(&expiry).contains(&snapshot(1_000_050)));
    // Day 5 never opened; a month later nothing keeps it, and it took nobody's place.
    let count = Retention { count: 4, daily: 0, ..DAILY };
    let expiry = expire(&ten_days(), &count);
    assert_eq!(gone(&expiry).len(), 12);
    let age = Retention { days: 4, daily: 0, ..DAILY };
    assert_eq!(gone(&expire(&ten_days(), &age)).len(), 12, "sets of the last four days stay");
}

#[test]
fn a_policy_of_nothing_still_keeps_the_last_that_opens_and_what_is_held() {
    let nothing = Retention { daily: 0, ..DAILY };
    let mut w = ten_days();
    w.dr_snapshot(1_000_030).tags.insert(tag::HOLD.into(), "case 7".into());
    let expiry = expire(&w, &nothing);
    let kept: BTreeSet<(SnapshotId, Vec<Why>)> = expiry
        .keep
        .iter()
        .filter_map(|k| match &k.item {
            Item::Snapshot { id, .. } => Some((id.clone(), k.why.clone())),
            _ => None,
        })
        .collect();
    let expected = [(30, Why::Held), (31, Why::Held), (90, Why::LastThatOpens), (91, Why::LastThatOpens)];
    assert_eq!(kept, expected.map(|(n, why)| (snapshot(n + 1_000_000), vec![why])).into());
    // While nothing opens, nothing goes that may open yet: the KMS key may be enabled again.
    let mut w = ten_days();
    w.common.kms[0].state = KmsState::Disabled;
    assert!(expire(&w, &nothing).delete.iter().all(|d| !matches!(d.item, Item::Snapshot { .. } | Item::Backup { .. })));
    // And while something could not be asked, nothing at all.
    for ask in
        [Ask::SourceInstances, Ask::SourceSnapshots, Ask::DrBackups, Ask::Records, Ask::DrSecret(secret_arn(&source(), "cu"))]
    {
        let mut w = ten_days();
        w.common.unasked.insert(ask.clone());
        assert!(expire(&w, &nothing).delete.is_empty(), "{ask:?}");
    }
}

/// Takes what expiry lets go, and what the customer's own tool removes after a week.
fn let_go(w: &mut World, expiry: &retention::Expiry) {
    let week = w.common.now.plus(-7 * DAY);
    w.host.snapshots.retain(|s| s.region == dr() || s.started >= week);
    for deletion in &expiry.delete {
        match &deletion.item {
            Item::Snapshot { id, .. } => w.host.snapshots.retain(|s| s.id != *id),
            Item::Inventory { taken_at, .. } => w.host.inventories.retain(|i| i.taken_at != *taken_at),
            Item::CopyRecord { source } => w.host.copies.retain(|c| c.source != *source),
            other => panic!("{other:?}"),
        }
    }
}

/// Nothing opens any more, for months: one database's sets forget a volume, another's new key is in no HSM backup. What is kept
/// behind the last good point is bounded by the policy's ages, and when it heals there is a point for each of them.
#[test]
fn h45_what_does_not_open_does_not_pile_up_behind_the_last_point_that_does() {
    let policy = Retention { hourly: 0, daily: 7, weekly: 3, monthly: 2, count: 0, days: 0 };
    for forgets in [true, false] {
        let mut w = world();
        let rotated = TAKEN.plus(DAY / 2);
        let mut most = (0, 0);
        for day in 1..200i64 {
            let (n, taken) = (day as u32 * 10, TAKEN.plus(day * DAY));
            add_set(&mut w, n, taken);
            if forgets {
                w.host.snapshots.retain(|s| s.id != snapshot(n + 1) && s.id != snapshot(n + 1_000_001));
                w.host.copies.retain(|c| c.source != snapshot(n + 1));
            }
            for inventory in w.host.inventories.iter_mut().filter(|i| !forgets && i.taken_at > rotated) {
                inventory.databases[0].needs = vec![active(2, Store::Hsm)];
                inventory.databases[0].known = vec![known(2, Store::Hsm, rotated)];
            }
            w.common.now = taken.plus(2 * HOUR);
            let expiry = expire(&w, &policy);
            let_go(&mut w, &expiry);
            let points = w.points();
            let opens = |point: &&Point| point.databases[0].verdict.opens().is_some();
            assert_eq!(points.iter().filter(opens).map(|point| point.taken).collect::<Vec<_>>(), [TAKEN], "day {day}");
            for young in (day - 6).max(1)..=day {
                let taken = TAKEN.plus(young * DAY);
                let point = points.iter().find(|point| point.taken == taken).unwrap();
                assert!(point.copied(), "day {young} on day {day}");
            }
            let copied = points.iter().filter(|point| point.parts.iter().any(|part| part.copy.is_some())).count();
            most = (most.0.max(copied), most.1.max(w.host.inventories.len()));
        }
        // The last good one, a week of everything, three weeks, two months; and two looks at each, and one where a key was seen first.
        assert!(most.0 <= 1 + 8 + 3 + 2 && most.1 <= 2 * most.0 + 4, "{most:?} of 200");
        if !forgets {
            let made = TAKEN.plus(199 * DAY);
            w.common.backups.extend([source_backup(9, made), backup_copy(9, made)]);
            w.common.hsm_copies.push(hsm_intent(9, made, 10));
            let points = w.points();
            let ages = points.iter().filter(|point| point.databases[0].verdict.opens().is_some());
            let ages: Vec<i64> = ages.map(|point| w.common.now.since(point.taken) / DAY).collect();
            for span in [0..1, 1..2, 6..7, 7..15, 15..32] {
                assert!(ages.iter().any(|age| span.contains(age)), "{span:?}: {ages:?}");
            }
        }
    }
}

#[test]
fn h37_what_is_not_ours_is_never_deleted() {
    let mut w = ten_days();
    w.dr_snapshot(1_000_010).tags.insert(tag::TOKEN.into(), "forged".into());
    let expiry = expire(&w, &DAILY);
    assert!(!gone(&expiry).contains(&snapshot(1_000_010)) && gone(&expiry).contains(&snapshot(1_000_011)));
    // A second copy of ours goes, once the first is finished.
    let mut w = ten_days();
    let mut twin = w.dr_snapshot(1_000_090).clone();
    twin.id = snapshot(2_000_090);
    twin.started = twin.started.plus(60);
    w.host.snapshots.push(twin);
    assert!(gone(&expire(&w, &DAILY)).contains(&snapshot(2_000_090)));
    w.dr_snapshot(1_000_090).state = SnapshotState::Pending;
    assert!(!gone(&expire(&w, &DAILY)).contains(&snapshot(2_000_090)), "it is the one that counts now");
}

#[test]
fn h43_points_of_the_old_hsm_stand_for_their_days_where_no_better_one_does() {
    let mut w = ten_days();
    // Migrated on day 6.
    for inventory in w.host.inventories.iter_mut().filter(|i| i.taken_at < TAKEN.plus(5 * DAY + 2 * HOUR)) {
        inventory.provider = Some(tde2hsm_dr::inventory::Provider::Other);
        inventory.databases[0].needs = vec![active(9, Store::Hsm)];
        inventory.databases[0].known = vec![known(9, Store::Hsm, TAKEN.plus(-30 * DAY))];
    }
    let weekly = Retention { daily: 7, ..DAILY };
    let left = gone(&expire(&w, &weekly));
    assert!(!left.contains(&snapshot(1_000_050)), "day 5 opens where the old HSM is");
    assert!(left.contains(&snapshot(1_000_010)), "out of the seven days");
}

#[test]
fn h45_hsm_backups_stay_while_a_point_opens_with_them_and_the_last_two_always() {
    let mut w = ten_days();
    for day in 1..10u32 {
        let created = TAKEN.plus(i64::from(day) * DAY - 6 * HOUR);
        w.common.backups.extend([source_backup(day + 1, created), backup_copy(day + 1, created)]);
        w.common.hsm_copies.push(hsm_intent(day + 1, created, 10));
    }
    w.common.now = TAKEN.plus(40 * DAY);
    let left = |w: &World| -> BTreeSet<BackupId> {
        let delete = expire(w, &DAILY).delete.into_iter();
        delete.filter_map(|d| if let Item::Backup { id, .. } = d.item { Some(id) } else { None }).collect()
    };
    assert_eq!(left(&w), (1..9).map(|n| backup(n + 1_000_000)).collect(), "all but the last two");
    // The newer passwords are gone: points open with the fifth alone.
    for record in w.common.hsm_copies.iter_mut().filter(|r| r.created > TAKEN.plus(4 * DAY)) {
        record.secrets[0].versions = vec![version(11)];
    }
    assert!(!left(&w).contains(&backup(1_000_005)) && left(&w).contains(&backup(1_000_004)));
    // One that is not ours stays.
    let token = |w: &mut World| {
        w.common.backups.iter_mut().filter(|b| b.id == backup(1_000_002)).for_each(|b| b.tags.clear());
    };
    token(&mut w);
    assert!(!left(&w).contains(&backup(1_000_002)));
    // Nor does one go that somebody holds.
    w.common.backups.iter_mut().filter(|b| b.id == backup(1_000_003)).for_each(|b| {
        b.tags.insert(tag::HOLD.into(), "case 7".into());
    });
    assert!(!left(&w).contains(&backup(1_000_003)) && left(&w).contains(&backup(1_000_004)));
    // Held off from the purge of the source region until its copy is READY.
    w.common.hsm_copies[9].held = true;
    let index = w.common.backups.iter().position(|b| b.id == backup(10)).unwrap();
    w.common.backups[index].never_expires = Some(true);
    assert_eq!(expire(&w, &DAILY).may_expire, [backup(10)]);
    w.common.backups.iter_mut().filter(|b| b.id == backup(1_000_010)).for_each(|b| b.state = BackupState::CreateInProgress);
    assert!(expire(&w, &DAILY).may_expire.is_empty());
}

/// A hold that nobody ends is one that the cluster's purge meets for ever: what was never copied is given back once its copy would
/// not be kept either. A newer copy alone ends no hold, for it need not have the keys.
#[test]
fn h45_a_held_backup_is_given_back_when_no_key_is_in_it_alone() {
    let made = TAKEN.plus(3 * HOUR);
    let mut w = world();
    let mut held = source_backup(7, made);
    held.never_expires = Some(true);
    w.common.backups.extend([held, backup_copy(8, made.plus(DAY))]);
    w.common.hsm_copies.push(tde2hsm_dr::records::HsmCopyIntent { held: true, ..hsm_intent(7, made, 10) });
    w.common.hsm_copies.push(hsm_intent(8, made.plus(DAY), 10));
    w.host.inventories.push(inventory(made.plus(2 * DAY)));
    w.common.now = made.plus(3 * DAY);
    assert!(expire(&w, &DAILY).may_expire.is_empty(), "it may still be copied");
    w.common.now = made.plus(8 * DAY);
    assert_eq!(expire(&w, &DAILY).may_expire, [backup(7)], "never copied, and a newer one was seen to have its keys");
    // Nobody looked since: the newer one may lack them.
    let mut unseen = World { common: w.common.clone(), host: w.host.clone() };
    unseen.host.inventories.pop();
    assert!(expire(&unseen, &DAILY).may_expire.is_empty());
    // Its key is gone, and the newer one lacks it.
    let mut gone = World { common: w.common.clone(), host: w.host.clone() };
    let between = gone.host.inventories.last_mut().unwrap();
    *between = inventory(made.plus(HOUR));
    let mut look = inventory(made.plus(2 * HOUR));
    look.databases[0].known.clear();
    gone.host.inventories.push(look);
    assert!(expire(&gone, &DAILY).may_expire.is_empty());
    // The newer one's password is gone.
    w.common.hsm_copies.last_mut().unwrap().secrets[0].versions = vec![version(11)];
    assert!(expire(&w, &DAILY).may_expire.is_empty());
}

/// What the HSM lists no more is in old backups alone: the newest of them stays while a look needs the key, whatever points do.
#[test]
fn h45_the_last_backup_with_a_key_that_is_gone_stays() {
    let hours = |n: i64| TAKEN.plus(n * HOUR);
    let made = TAKEN.plus(-30 * DAY);
    let mut w = world();
    w.common.now = hours(48);
    for (n, hour) in [(2, 8), (3, 12)] {
        w.common.backups.push(backup_copy(n, hours(hour)));
        w.common.hsm_copies.push(hsm_intent(n, hours(hour), 10));
    }
    w.host.inventories.push(inventory(hours(14)));
    w.data(|database| {
        database.needs = vec![active(2, Store::Hsm)];
        database.known = vec![known(1, Store::Hsm, made), known(2, Store::Hsm, made)];
    });
    let goes = |w: &World| {
        let expiry = retention::expire(&w.common, std::slice::from_ref(&w.host), &w.points(), &DAILY, 0);
        let backup_1 =
            |deletion: &&retention::Deletion| matches!(&deletion.item, Item::Backup { id, .. } if *id == backup(1_000_001));
        expiry.delete.iter().filter(backup_1).count()
    };
    assert_eq!(goes(&w), 1, "two newer ones have all that is needed");
    w.host.inventories.pop();
    assert_eq!(goes(&w), 0, "nobody looked since they were made");
    for (hour, needs) in [(10, vec![]), (11, vec![read_only(1, Some(Store::Hsm))])] {
        let mut look = inventory(hours(hour));
        look.databases[0].known = vec![known(2, Store::Hsm, made)];
        look.databases[0].needs = [vec![active(2, Store::Hsm)], needs].concat();
        w.host.inventories.push(look);
    }
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
    assert_eq!(goes(&w), 0);
}

/// Until when a key was seen is told by one look; without it the backups in between would count no more.
#[test]
fn h45_the_looks_between_which_a_key_went_stay() {
    let mut w = world();
    w.common.now = TAKEN.plus(40 * DAY);
    let made = TAKEN.plus(8 * DAY);
    w.common.backups = vec![backup_copy(2, made)];
    w.common.hsm_copies = vec![hsm_intent(2, made, 10)];
    for day in 1..40 {
        let mut look = inventory(TAKEN.plus(day * DAY));
        if day > 10 {
            look.databases[0].known = vec![known(2, Store::Hsm, TAKEN.plus(10 * DAY))];
        }
        w.host.inventories.push(look);
    }
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
    let expiry = expire(&w, &DAILY);
    let_go(&mut w, &expiry);
    assert!(w.host.inventories.len() < 15, "{}", w.host.inventories.len());
    assert!(w.verdict().opens().is_some(), "{:?}", w.verdict());
}

#[test]
fn h42_versions_that_kept_points_and_backups_open_with_stay_staged() {
    let mut w = ten_days();
    w.host.copies.last_mut().unwrap().secrets[0].versions = vec![version(21)];
    w.common.hsm_copies[0].secrets[0].versions = vec![version(10), version(11)];
    let staged = expire(&w, &DAILY).staged;
    let versions: BTreeSet<SecretVersion> = staged.into_iter().map(|(_, v)| v).collect();
    assert_eq!(versions, [10, 11, 20, 21].map(version).into());
}

fn wanted(n: u32, host: u32, set: &str, started: Timestamp, last_copied: Option<Timestamp>) -> Wanted {
    Wanted {
        source: snapshot(n),
        set: SetId(set.into()),
        instance: instance(host),
        volume: volume(n),
        size_gib: 100,
        started,
        source_state: SnapshotState::Completed,
        archived: false,
        copy: CopyStatus::Missing,
        attempts: vec![],
        last_copied,
    }
}

const LIMITS: Limits = Limits { in_flight: 3, rpo_minutes: 1_440, timed: Timed::Never };

fn begun(plan: &CopyPlan) -> Vec<SnapshotId> {
    plan.begin.iter().map(|b| b.source.clone()).collect()
}

#[test]
fn the_oldest_deadline_comes_first_and_a_begun_set_before_it() {
    let list = vec![
        wanted(1, 1, "a", TAKEN, Some(TAKEN.plus(-2 * DAY))),
        wanted(2, 2, "b", TAKEN, Some(TAKEN.plus(-3 * DAY))),
        wanted(3, 2, "b", TAKEN, Some(TAKEN.plus(-3 * DAY))),
        wanted(4, 3, "c", TAKEN, Some(TAKEN.plus(-DAY))),
    ];
    let now = TAKEN.plus(HOUR);
    assert_eq!(begun(&plan(&list, 0, now, &LIMITS)), [snapshot(2), snapshot(3), snapshot(1)]);
    // One part of the third host's set is on its way: that set is finished first.
    let mut with = list.clone();
    with.push(Wanted { copy: CopyStatus::Pending, ..wanted(5, 3, "c", TAKEN, Some(TAKEN.plus(-DAY))) });
    assert_eq!(begun(&plan(&with, 1, now, &LIMITS)), [snapshot(4), snapshot(2)]);
    assert!(plan(&with, 3, now, &LIMITS).begin.is_empty());
    // A host that fell behind goes over to its newest set.
    let mut behind = list.clone();
    behind.extend([wanted(6, 1, "a2", TAKEN.plus(DAY), Some(TAKEN.plus(-2 * DAY)))]);
    let order = begun(&plan(&behind, 0, now.plus(DAY), &Limits { in_flight: 9, ..LIMITS }));
    let place = |n| order.iter().position(|id| *id == snapshot(n)).unwrap();
    assert!(place(6) < place(1) && place(6) < place(4), "{order:?}");
}

/// A host that has nothing yet would wait for ever, were its time counted from its newest set: the others' last copies are older.
#[test]
fn a_host_of_which_nothing_is_copied_yet_goes_first() {
    let list = vec![
        wanted(1, 1, "a", TAKEN, Some(TAKEN.plus(-3 * DAY))),
        wanted(2, 2, "old", TAKEN.plus(-HOUR), None),
        wanted(3, 2, "new", TAKEN, None),
    ];
    let begun = begun(&plan(&list, 0, TAKEN.plus(HOUR), &LIMITS));
    assert_eq!(begun, [snapshot(3), snapshot(1), snapshot(2)]);
}

#[test]
fn a_call_is_not_repeated_while_it_may_still_show_and_failures_wait_longer_each_time() {
    let attempt = |at: Timestamp| Attempt { token: "t".into(), at };
    let now = TAKEN.plus(DAY);
    let one = |attempts: Vec<Attempt>, copy: CopyStatus| vec![Wanted { attempts, copy, ..wanted(1, 1, "a", TAKEN, None) }];
    let waits = |list: &[Wanted]| plan(list, 0, now, &LIMITS).waiting.first().map(|w| w.why);
    assert_eq!(
        waits(&one(vec![attempt(now.plus(-60))], CopyStatus::Missing)),
        Some(WaitsFor::Settling { until: now.plus(SETTLE - 60) })
    );
    assert_eq!(waits(&one(vec![attempt(now.plus(-SETTLE))], CopyStatus::Missing)), None);
    let failed = |n: i64| one((0..n).map(|i| attempt(now.plus(-60 - (n - 1 - i) * DAY))).collect(), CopyStatus::Failed);
    assert_eq!(waits(&failed(1)), Some(WaitsFor::BackOff { until: now.plus(900 - 60) }));
    assert_eq!(waits(&failed(3)), Some(WaitsFor::BackOff { until: now.plus(3_600 - 60) }));
    assert_eq!(waits(&failed(30)), Some(WaitsFor::BackOff { until: now.plus(6 * 3_600 - 60) }));
    // What settles takes a place.
    let mut list = one(vec![attempt(now.plus(-60))], CopyStatus::Missing);
    list.push(wanted(2, 2, "b", TAKEN, None));
    assert!(plan(&list, 2, now, &LIMITS).begin.is_empty());
    assert_eq!(begun(&plan(&list, 1, now, &LIMITS)), [snapshot(2)]);
}

#[test]
fn half_a_set_is_not_begun_when_its_other_half_cannot_follow() {
    let mut list = vec![wanted(1, 1, "a", TAKEN, None), wanted(2, 1, "a", TAKEN, None)];
    list[1].source_state = SnapshotState::Error;
    assert!(plan(&list, 0, TAKEN.plus(HOUR), &LIMITS).waiting.iter().all(|w| w.why == WaitsFor::SourceUnusable));
    list[1].source_state = SnapshotState::Pending;
    assert!(plan(&list, 0, TAKEN.plus(HOUR), &LIMITS).waiting.iter().all(|w| w.why == WaitsFor::Source));
}

#[test]
fn a_timed_copy_is_as_slow_as_the_deadline_allows_and_shares_the_throughput() {
    let limits = Limits { timed: Timed::ByDeadline { throughput: 2_000 }, in_flight: 9, rpo_minutes: 120 };
    let with = |size: u32, now: Timestamp| {
        let list = vec![Wanted { size_gib: size, ..wanted(1, 1, "a", TAKEN, Some(TAKEN)) }];
        plan(&list, 0, now, &limits).begin[0].minutes
    };
    assert_eq!(with(100, TAKEN.plus(60 * 20)), Some(90), "100 min are left, in steps of 15");
    assert_eq!(with(100, TAKEN.plus(DAY)), Some(15), "late: as fast as can be");
    assert_eq!(with(1_000, TAKEN.plus(DAY)), Some(45), "500 MiB/s at most");
    // Five terabytes each: the sixth finds no throughput left.
    let list: Vec<Wanted> =
        (0..6).map(|n| Wanted { size_gib: 5_000, ..wanted(n, n, "a", TAKEN, Some(TAKEN.plus(-DAY))) }).collect();
    let minutes: Vec<Option<u16>> = plan(&list, 0, TAKEN.plus(60), &limits).begin.iter().map(|b| b.minutes).collect();
    assert_eq!(minutes, [Some(180), Some(180), Some(180), Some(180), None, None]);
}

#[test]
fn timed_copies_in_flight_leave_less_of_the_throughput() {
    let of = |n: u32, size_gib: u32, minutes: Option<u16>, state: SnapshotState| Snapshot {
        size_gib,
        state,
        completion_minutes: minutes,
        ..copy_of(&source_snapshot(n, 1, TAKEN), "t")
    };
    let copies = [
        // 1,024,000 MiB in 3,600 s.
        of(1, 1_000, Some(60), SnapshotState::Pending),
        of(2, 1_000, Some(60), SnapshotState::Completed),
        of(3, 1_000, None, SnapshotState::Pending),
    ];
    let timed = Timed::ByDeadline { throughput: 2_000 };
    assert_eq!(timed.left(&copies), Timed::ByDeadline { throughput: 2_000 - 285 });
    assert_eq!(Timed::ByDeadline { throughput: 100 }.left(&copies), Timed::ByDeadline { throughput: 0 });
    assert_eq!(Timed::Never.left(&copies), Timed::Never);
    // With nothing left a copy takes its time.
    let limits = Limits { timed: Timed::ByDeadline { throughput: 0 }, ..LIMITS };
    assert_eq!(plan(&[wanted(1, 1, "a", TAKEN, None)], 0, TAKEN, &limits).begin[0].minutes, None);
}

/// A host with a set every `interval`, whose copies took so long.
fn load(n: u32, interval: i64, volumes: &[(u32, Option<i64>)]) -> Load {
    Load {
        instance: instance(n),
        interval: Some(interval),
        snapshots: None,
        survey: Some(900),
        volumes: volumes.iter().map(|(size_gib, took)| VolumeLoad { size_gib: *size_gib, took: *took }).collect(),
    }
}

#[test]
fn the_rpo_that_can_be_kept_is_said_beforehand_with_what_limits_it() {
    let limits = Limits { in_flight: 20, rpo_minutes: 480, timed: Timed::Never };
    let six = |volumes: &[(u32, Option<i64>)]| load(1, 6 * HOUR, volumes);
    // Sets every six hours, an hour's copies.
    let kept = feasible(&[six(&[(50, Some(600)), (200, Some(HOUR))])], &limits);
    assert_eq!((kept.rpo_minutes, kept.limit, kept.missed()), (Some(420), Some(Limit::Cadence), false), "{}", kept.text);
    assert_eq!(kept.timed_minutes, Some(375), "a quarter of an hour is AWS's least");
    // The same asked for in six hours and a half.
    assert!(feasible(&[six(&[(50, Some(600)), (200, Some(HOUR))])], &Limits { rpo_minutes: 390, ..limits }).missed());
    // One copy that takes longer than a set's time: the next is begun beside it, while there are places.
    let long = feasible(&[six(&[(2_000, Some(7 * HOUR))])], &limits);
    assert_eq!((long.rpo_minutes, long.every_set, long.limit), (Some(13 * 60), true, Some(Limit::LongestCopy)), "{}", long.text);
    let one = feasible(&[six(&[(2_000, Some(7 * HOUR))])], &Limits { in_flight: 1, ..limits });
    assert!(!one.every_set && one.text.contains("is copied") && one.missed(), "{}", one.text);
    // Forty hosts over four places.
    let many: Vec<Load> = (0..40).map(|n| load(n, DAY, &[(100, Some(4 * HOUR))])).collect();
    let places = feasible(&many, &Limits { in_flight: 4, ..limits });
    assert_eq!((places.limit, places.every_set), (Some(Limit::Places), false), "{}", places.text);
    // The survey is what lets wait.
    let late = feasible(&[Load { survey: Some(9 * HOUR), ..six(&[(50, Some(600))]) }], &limits);
    assert_eq!((late.rpo_minutes, late.limit), (Some(15 * 60), Some(Limit::Surveys)));
    let slow = feasible(&[Load { snapshots: Some(8 * HOUR), ..six(&[(50, Some(600))]) }], &limits);
    assert_eq!((slow.rpo_minutes, slow.limit), (Some(14 * 60 + 10), Some(Limit::Snapshots)));
    // The host that is worst off is named.
    let two = feasible(&[six(&[(50, Some(600))]), load(2, DAY, &[(50, Some(600))])], &limits);
    assert_eq!((two.rpo_minutes, two.instance), (Some(1_455), Some(instance(2))));
}

#[test]
fn timed_copies_keep_to_awss_rates_when_the_rpo_is_reckoned() {
    let limits = Limits { in_flight: 20, rpo_minutes: 480, timed: Timed::ByDeadline { throughput: 2_000 } };
    // Forty hosts of two terabytes over the throughput of the pair of regions: 80 TB at 2,000 MiB/s are more than eleven hours.
    let large: Vec<Load> = (0..40).map(|n| load(n, 6 * HOUR, &[(1_000, None), (1_000, None)])).collect();
    let found = feasible(&large, &limits);
    assert_eq!((found.round_minutes, found.every_set, found.limit), (Some(683), false, Some(Limit::Throughput)));
    assert_eq!(found.rpo_minutes, Some(2 * 360 + 683));
    assert_eq!(found.timed_minutes, None, "they are bought already");
    let more = feasible(&large, &Limits { timed: Timed::ByDeadline { throughput: 8_000 }, ..limits });
    assert_eq!((more.round_minutes, more.limit), (Some(226), Some(Limit::Cadence)), "{}", more.text);
}

#[test]
fn what_was_never_seen_is_not_guessed() {
    let limits = Limits { in_flight: 20, rpo_minutes: 480, timed: Timed::Never };
    let fresh = feasible(&[load(1, 6 * HOUR, &[(50, None)])], &limits);
    assert_eq!((fresh.rpo_minutes, fresh.missed()), (None, false));
    assert!(fresh.text.contains("not known before a copy is completed"), "{}", fresh.text);
    assert_eq!(fresh.timed_minutes, Some(375), "AWS says how long that would take");
    // One volume was copied: another is taken for as slow, by its size.
    let some = feasible(&[load(1, 6 * HOUR, &[(50, Some(HOUR)), (100, None)])], &limits);
    assert!(some.rpo_minutes.is_some_and(|minutes| (480..=485).contains(&minutes)), "{}", some.text);
    let no_cadence = Load { interval: None, ..load(2, DAY, &[(50, Some(HOUR))]) };
    let two = feasible(&[load(1, 6 * HOUR, &[(50, Some(HOUR))]), no_cadence.clone()], &limits);
    assert_eq!((two.rpo_minutes, two.unseen.as_slice()), (Some(420), [instance(2)].as_slice()));
    assert!(two.text.contains("1 hosts of which no two sets were seen"), "{}", two.text);
    assert_eq!(feasible(&[no_cadence], &limits).rpo_minutes, None);
    assert_eq!(feasible(&[], &limits).rpo_minutes, None);
}

#[test]
fn what_is_seen_of_a_fleet_are_its_newest_sets() {
    let mut w = ten_days();
    for copy in w.host.snapshots.iter_mut().filter(|one| one.region == dr()) {
        copy.completed = Some(copy.started.plus(HOUR));
    }
    // The first copy of a volume is of everything, and long ago one was slow.
    for (n, hours) in [(1_000_010, 30), (1_000_020, 9), (1_000_080, 2)] {
        let copy = w.dr_snapshot(n);
        copy.completed = Some(copy.started.plus(hours * HOUR));
    }
    let points = w.points();
    let of = |points: &[Point]| loads(&w.common, std::slice::from_ref(&w.host), points).remove(0);
    let seen = of(&points);
    assert_eq!(seen.interval, Some(DAY));
    let took: Vec<Option<i64>> = seen.volumes.iter().map(|volume| volume.took).collect();
    assert_eq!(took, [Some(2 * HOUR), Some(HOUR)], "{seen:?}");
    assert!(seen.survey.is_some(), "{seen:?}");
    // Of a host that has nothing but its first set, the full copy is what is known.
    let first = of(&points[..1]);
    assert_eq!((first.interval, first.volumes[0].took), (None, Some(HOUR)));
    // Gone hosts count for nothing, unless nobody can say which are gone.
    let mut gone = w.host.clone();
    gone.now = None;
    w.common.unasked.insert(Ask::SourceSnapshots);
    assert!(loads(&w.common, std::slice::from_ref(&gone), &points).is_empty());
    w.common.unasked.insert(Ask::SourceInstances);
    assert_eq!(loads(&w.common, std::slice::from_ref(&gone), &points).len(), 1);
    w.common.gone.insert(gone.instance.clone());
    assert!(loads(&w.common, &[gone], &points).is_empty());
}

/// A key may be gone before anybody looks: a later backup stands for none that was missed.
#[test]
fn h45_each_hsm_backup_is_copied_and_kept_from_the_purge_until_it_is() {
    let mut w = world();
    let plan = |w: &World| plan_hsm(&w.common, 7);
    assert_eq!(plan(&w), HsmPlan::default(), "the only one is READY");
    let made = TAKEN.plus(-DAY);
    w.common.backups.push(source_backup(9, TAKEN.plus(-3 * DAY)));
    for (n, after) in [(2, 60), (3, 7_200)] {
        w.common.backups.push(source_backup(n, made.plus(after)));
    }
    assert_eq!(plan(&w).copy, [backup(3), backup(2)], "those since the first that was copied, the newest before the others");
    assert_eq!(plan(&w).keep, plan(&w).copy);
    // The newest came first. The other is wanted all the same.
    w.common.backups.push(backup_copy(3, made.plus(7_200)));
    assert_eq!((plan(&w).copy, plan(&w).keep), (vec![backup(2)], vec![backup(2)]));
    // On its way: nothing is asked for twice, and it is kept until it is READY.
    w.common.backups.last_mut().unwrap().state = BackupState::CreateInProgress;
    assert_eq!((plan(&w).copy, plan(&w).keep), (vec![backup(2)], vec![backup(3), backup(2)]));
    // A copy that failed shows as DELETED, and is made again after a pause.
    w.common.backups.last_mut().unwrap().state = BackupState::Deleted;
    let mut record = hsm_intent(3, made.plus(7_200), 10);
    record.attempts[0].at = w.common.now.plus(-60);
    w.common.hsm_copies.push(record);
    assert_eq!((plan(&w).copy, plan(&w).settling), (vec![backup(2)], vec![backup(3)]));
    w.common.now = w.common.now.plus(HOUR);
    assert_eq!(plan(&w).copy, [backup(3), backup(2)]);
    // What retention would not keep is not copied, unless it is held.
    w.common.now = TAKEN.plus(30 * DAY);
    assert_eq!(plan(&w).copy, [backup(3)]);
    w.common.hsm_copies.push(tde2hsm_dr::records::HsmCopyIntent { held: true, ..hsm_intent(2, made.plus(60), 10) });
    assert_eq!(plan(&w).copy, [backup(3), backup(2)]);
    w.common.unasked.insert(Ask::DrBackups);
    assert_eq!(plan(&w), HsmPlan::default());
    // Before anything was copied, the newest alone.
    let mut first = world();
    first.common.hsm_copies.clear();
    first.common.backups = vec![source_backup(1, TAKEN.plus(-2 * DAY)), source_backup(2, TAKEN.plus(-DAY))];
    assert_eq!(plan(&first).copy, [backup(2)]);
}

#[test]
fn what_retention_let_go_is_not_copied_again_and_older_sets_only_where_it_would_keep_them() {
    let mut w = ten_days();
    let policy = DAILY;
    for n in [20, 21, 80, 81, 90, 91] {
        w.host.snapshots.retain(|s| s.id != snapshot(n + 1_000_000));
    }
    let sources = |w: &World| -> BTreeSet<SnapshotId> {
        let list = tde2hsm_dr::copying::wanted(&w.host, &w.points(), &policy);
        list.into_iter().filter(|x| x.copy == CopyStatus::Missing).map(|x| x.source).collect()
    };
    assert_eq!(sources(&w), [80, 81, 90, 91].map(snapshot).into(), "day 2 is out of the three days");
    w.host.copies.iter_mut().filter(|c| c.source == snapshot(81)).for_each(|c| c.expired = Some(TAKEN));
    assert_eq!(sources(&w), [90, 91].map(snapshot).into());
}

fn status(w: &World, rpo_minutes: u32) -> rpo::Status {
    rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), rpo_minutes)
}

#[test]
fn each_breach_is_alarmed_once_and_its_end_once() {
    let mut w = ten_days();
    w.common.now = TAKEN.plus(9 * DAY + 2 * HOUR);
    let rpo_minutes = 36 * 60;
    let mut state = AlarmState::default();
    let mut said: Vec<What> = Vec::new();
    let mut look = |w: &World, state: &mut AlarmState| {
        let status = status(w, rpo_minutes);
        let (next, alarms) = rpo::alarms(state, &status, Sight::Whole, rpo_minutes, w.common.now);
        *state = next;
        said.extend(alarms.iter().map(|a| a.what));
        status.databases[0].level
    };
    assert_eq!(look(&w, &mut state), Level::Kept);
    // No set comes any more. First it is seen coming, then it is there, each once.
    let mut levels = Vec::new();
    for hour in 0..60 {
        w.common.now = TAKEN.plus(9 * DAY + (2 + hour) * HOUR);
        levels.push(look(&w, &mut state));
    }
    assert!(levels.contains(&Level::Predicted) && levels.last() == Some(&Level::Breached), "{levels:?}");
    // A set comes and opens.
    let taken = w.common.now.plus(-2 * HOUR);
    add_set(&mut w, 500, taken);
    assert_eq!(look(&w, &mut state), Level::Kept);
    assert_eq!(look(&w, &mut state), Level::Kept);
    assert_eq!(said, [What::Predicted, What::Breached, What::Over]);
    assert!(state.standing.is_empty());
}

#[test]
fn the_rpo_counts_points_that_open_and_says_why_the_newest_does_not() {
    let mut w = ten_days();
    w.dr_snapshot(1_000_091).state = SnapshotState::Error;
    let status_now = status(&w, 60);
    let row = &status_now.databases[0];
    assert_eq!(row.newest, Some(TAKEN.plus(9 * DAY)));
    assert_eq!(row.newest_that_opens, Some(TAKEN.plus(8 * DAY)));
    assert_eq!((row.age, row.level), (Some(2 * DAY), Level::Breached));
    assert_eq!(row.why, [Code::POINT_COPY_FAILED]);
    assert_eq!(status_now.fleet_age(|database| database.age), Some(2 * DAY));
    // That the last look could not list the databases ends none of them.
    let mut none = inventory(w.common.now.plus(-HOUR));
    none.databases.clear();
    none.unreadable.push("databases".into());
    w.host.inventories.push(none);
    assert_eq!(status(&w, 60).databases.len(), 1);
    w.host.inventories.clear();
    let blind = status(&w, 60);
    assert_eq!((blind.unseen.len(), blind.fleet_age(|database| database.age)), (1, None));
}

fn seen(need: Need, at: Timestamp) -> Vec<Answer> {
    vec![Answer { need, source: Source::Seen { at } }]
}

fn estate() -> retire::Estate {
    let after = TAKEN.plus(DAY);
    let until = |days: i64, what: &str| Need::Until { when: TAKEN.plus(days * DAY), what: what.into() };
    let mut answers: BTreeMap<Thing, Vec<Answer>> =
        Thing::ALL.into_iter().map(|thing| (thing, seen(Need::None, after))).collect();
    answers.insert(Thing::RmanPieces, seen(until(35, "the oldest piece is kept for 35 days"), after));
    answers.insert(Thing::TransparentDumps, seen(until(60, "exp_2026_02.dmp"), after));
    retire::Estate {
        databases: vec![DatabaseFacts { instance: instance(1), sid: sid(), migrated: Some(TAKEN), answers }],
        points: Some(vec![retire::PointNeed {
            instance: instance(1),
            set: SetId("s".into()),
            until: Some(TAKEN.plus(90 * DAY)),
        }]),
        undo_until: Some(TAKEN.plus(30 * DAY)),
    }
}

#[test]
fn h43_the_old_hsm_goes_when_the_last_thing_that_needs_it_is_gone() {
    let RetireWhen::From { when, reasons } = retire::when(&estate()) else { panic!("{:?}", retire::when(&estate())) };
    assert_eq!(when, TAKEN.plus(90 * DAY));
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert!(reasons[0].text.contains("snapshot set s") && reasons[1].text.contains("exp_2026_02.dmp"), "{reasons:?}");
    // A declaration that needs it longer holds; one that says "none" does not outweigh what was seen.
    let mut later = estate();
    let who = || Source::Declared { who: "A. Archivist".into(), at: TAKEN.plus(2 * DAY) };
    let pieces = later.databases[0].answers.get_mut(&Thing::RmanPieces).unwrap();
    pieces.push(Answer { need: Need::Until { when: TAKEN.plus(400 * DAY), what: "tapes".into() }, source: who() });
    assert!(matches!(retire::when(&later), RetireWhen::From { when, .. } if when == TAKEN.plus(400 * DAY)));
    let mut none = estate();
    none.databases[0].answers.get_mut(&Thing::TransparentDumps).unwrap().push(Answer { need: Need::None, source: who() });
    none.points = Some(vec![]);
    assert!(matches!(retire::when(&none), RetireWhen::From { when, .. } if when == TAKEN.plus(60 * DAY)));
    let mut open = estate();
    open.databases[0].answers.insert(Thing::ReadOnlyTablespaces, seen(Need::Open { what: "HIST".into() }, TAKEN.plus(DAY)));
    assert!(matches!(retire::when(&open), RetireWhen::Held { reasons } if reasons[0].text.contains("HIST")));
}

#[test]
fn h43_each_missing_fact_is_named() {
    for thing in Thing::ALL {
        let missing = |estate: &retire::Estate| match retire::when(estate) {
            RetireWhen::NotYetComputable { missing, .. } => missing,
            other => panic!("{thing:?}: {other:?}"),
        };
        let mut without = estate();
        without.databases[0].answers.remove(&thing);
        assert_eq!(missing(&without), [Missing::Answer { instance: instance(1), sid: sid(), thing }]);
        let mut stale = estate();
        stale.databases[0].answers.insert(thing, seen(Need::None, TAKEN.plus(-1)));
        assert_eq!(missing(&stale), [Missing::Stale { instance: instance(1), sid: sid(), thing }], "seen before the keys moved");
    }
    type Change = fn(&mut retire::Estate);
    let spoil: [(Change, Missing); 4] = [
        (|e| e.points = None, Missing::Points),
        (|e| e.undo_until = None, Missing::Undo),
        (|e| e.databases[0].migrated = None, Missing::Migration { instance: instance(1), sid: sid() }),
        (|e| e.databases.clear(), Missing::NoDatabases),
    ];
    for (change, expected) in spoil {
        let mut estate = estate();
        change(&mut estate);
        let RetireWhen::NotYetComputable { missing, .. } = retire::when(&estate) else { panic!("{expected:?}") };
        assert_eq!(missing, [expected]);
    }
}

fn place() -> (Place, PlaceFacts) {
    let subnet = SubnetId::new("subnet-00000000").unwrap();
    let security_group = SecurityGroupId::new("sg-00000001").unwrap();
    let endpoints = SecurityGroupId::new("sg-00000002").unwrap();
    let place = Place {
        subnet: subnet.clone(),
        security_group: security_group.clone(),
        instance_profile: "drill".into(),
        instance_type: "m6i.xlarge".into(),
    };
    let facts = PlaceFacts {
        subnet,
        vpc: "vpc-1".into(),
        availability_zone: "eu-west-1a".into(),
        assigns_public_addresses: false,
        routes: vec![
            Route { destination: "10.1.0.0/16".into(), target: RouteTarget::Local },
            Route { destination: "pl-s3".into(), target: RouteTarget::GatewayEndpoint },
        ],
        security_group,
        egress: vec![
            Egress { to: EgressTo::Group(endpoints.clone()), ports: "443".into() },
            Egress { to: EgressTo::PrefixList("pl-s3".into()), ports: "443".into() },
        ],
        endpoint_groups: [endpoints].into(),
        endpoint_prefix_lists: ["pl-s3".to_string()].into(),
        production_profiles: Some(["production".to_string()].into()),
    };
    (place, facts)
}

fn drill_plan(w: &World, place: &(Place, PlaceFacts)) -> Result<drill::Plan, NoPlan> {
    drill_plan_with(w, place, None)
}

fn drill_plan_with(w: &World, place: &(Place, PlaceFacts), attempt: Option<&Opening>) -> Result<drill::Plan, NoPlan> {
    let points = w.points();
    let region = dr();
    let request = Request {
        id: "d-1",
        region: &region,
        fleet: "bank",
        point: points.last().unwrap(),
        sid: &sid(),
        attempt,
        place: &place.0,
        facts: &place.1,
    };
    drill::plan(&request)
}

#[test]
fn h44_a_drill_looks_at_its_place_before_it_starts_a_host_and_neutralises_before_it_opens() {
    let plan = drill_plan(&world(), &place()).unwrap();
    let at = |wanted: fn(&Action) -> bool| plan.actions.iter().position(wanted).unwrap();
    let last_check = plan.actions.iter().rposition(|a| *a == Action::CheckPlace).unwrap();
    let run = at(|a| matches!(a, Action::RunInstance { .. }));
    assert_eq!(plan.actions[0], Action::CheckPlace);
    assert_eq!(last_check + 1, run);
    assert!(run < at(|a| matches!(a, Action::Neutralise { .. })));
    assert!(at(|a| matches!(a, Action::Neutralise { .. })) < at(|a| matches!(a, Action::Open { .. })));
    for action in &plan.actions {
        match action {
            Action::CreateCluster { backup: id, tags, .. } => {
                assert_eq!(*id, backup(1_000_001));
                assert_eq!(tags.get(tag::DRILL).map(String::as_str), Some("d-1"));
            }
            Action::RegisterImage { root_device, devices, tags, .. } => {
                assert_eq!((root_device.as_str(), devices[0].snapshot.clone()), ("/dev/xvda", snapshot(1_000_001)));
                assert_eq!(devices.len(), 2);
                assert!(tags.contains_key(tag::DRILL));
            }
            Action::RunInstance { tags, .. } => assert!(tags.contains_key(tag::DRILL)),
            Action::Open { secret, .. } => assert_eq!(secret.as_ref().map(|s| s.arn.region()), Some(dr())),
            _ => {}
        }
    }
}

#[test]
fn h44_any_way_out_of_the_place_refuses_the_drill() {
    type Change = fn(&mut Place, &mut PlaceFacts);
    let changes: [(&str, Change); 9] = [
        ("internet gateway", |_, f| {
            f.routes.push(Route { destination: "0.0.0.0/0".into(), target: RouteTarget::Other("igw-1".into()) })
        }),
        ("peering", |_, f| {
            f.routes.push(Route { destination: "10.0.0.0/16".into(), target: RouteTarget::Other("pcx-1".into()) })
        }),
        ("public addresses", |_, f| f.assigns_public_addresses = true),
        ("egress anywhere", |_, f| f.egress.push(Egress { to: EgressTo::Cidr("0.0.0.0/0".into()), ports: "all".into() })),
        ("egress to a group that is no endpoint's", |_, f| {
            let group = SecurityGroupId::new("sg-00000009").unwrap();
            f.egress.push(Egress { to: EgressTo::Group(group), ports: "2223-2225".into() });
        }),
        ("a prefix list that is no endpoint's", |_, f| {
            f.egress.push(Egress { to: EgressTo::PrefixList("pl-corp".into()), ports: "443".into() });
        }),
        ("production's profile", |p, _| p.instance_profile = "production".into()),
        ("profiles not asked", |_, f| f.production_profiles = None),
        ("another subnet", |p, _| p.subnet = SubnetId::new("subnet-0000000a").unwrap()),
    ];
    for (name, change) in changes {
        let mut there = place();
        change(&mut there.0, &mut there.1);
        let refused = drill_plan(&world(), &there);
        assert!(matches!(&refused, Err(NoPlan::Place(v)) if v.len() == 1), "{name}: {refused:?}");
    }
    let (a, b) = place();
    assert_eq!(drill::violations(&a, &b), Vec::<Violation>::new());
    let mut w = world();
    w.common.kms[0].state = KmsState::Disabled;
    assert!(matches!(drill_plan(&w, &place()), Err(NoPlan::DoesNotOpen(_))));
}

/// When a region dies, nobody looks any more at the hosts of the last sets.
#[test]
fn h44_a_point_that_is_not_proven_is_drilled_where_it_is_asked_for_and_one_that_does_not_open_is_not() {
    let attempt = |w: &World| Judge::new(&w.common).attempt(&w.host, w.points().last().unwrap(), &sid());
    let mut w = world();
    let proven = w.verdict().opens().cloned().unwrap();
    w.host.inventories.pop();
    assert!(matches!(drill_plan(&w, &place()), Err(NoPlan::DoesNotOpen(_))), "not unasked");
    let tried = attempt(&w).unwrap();
    assert_eq!((&tried.backup, &tried.snapshots, &tried.secrets[0]), (&proven.backup, &proven.snapshots, &proven.secrets[0]));
    assert_eq!(tried.secrets.iter().map(|(role, _)| *role).collect::<Vec<_>>(), [SecretRole::CryptoUser, SecretRole::Keystore]);
    let plan = drill_plan_with(&w, &place(), Some(&tried)).unwrap();
    assert_eq!(plan.unknowns, [Unknown::NoInventoryAfter]);
    assert_eq!(drill_plan_with(&world(), &place(), Some(&tried)).unwrap().unknowns, []);
    w.common.kms[0].state = KmsState::Disabled;
    assert!(matches!(w.verdict(), Verdict::DoesNotOpen { .. }));
    let refused = drill_plan_with(&w, &place(), Some(&tried));
    assert!(matches!(refused, Err(NoPlan::DoesNotOpen(_))), "that costs a cluster for nothing");
    // Half a set, or no backup that somebody can log in to, is nothing to try.
    let mut half = world();
    half.host.inventories.clear();
    half.host.inventories.push(inventory(TAKEN.plus(-HOUR)));
    half.dr_snapshot(1_000_001).state = SnapshotState::Pending;
    assert_eq!(attempt(&half), None);
    let mut locked = world();
    locked.dr_secret("cu").versions.clear();
    assert_eq!(attempt(&locked), None);
}

#[test]
fn a_fleet_of_five_hundred_hosts_is_judged_in_a_moment() {
    let mut w = world();
    w.common.backups.clear();
    w.common.hsm_copies.clear();
    for n in 0..400u32 {
        let created = TAKEN.plus(i64::from(n) * DAY / 2 - 150 * DAY);
        w.common.backups.extend([source_backup(n, created), backup_copy(n, created)]);
        w.common.hsm_copies.push(hsm_intent(n, created, 10));
    }
    for n in 1..60u32 {
        add_set(&mut w, n * 10, TAKEN.plus(i64::from(n) * DAY));
    }
    let hosts: Vec<Host> = (1..=500)
        .map(|n| {
            let mut host = w.host.clone();
            host.instance = instance(n);
            host.copies.iter_mut().for_each(|c| c.instance = instance(n));
            host.inventories.iter_mut().for_each(|i| i.instance = instance(n));
            host
        })
        .collect();
    let begin = std::time::Instant::now();
    let judge = Judge::new(&w.common);
    let points: Vec<Point> = hosts.iter().flat_map(|host| judge.host(host)).collect();
    let took = begin.elapsed();
    let open = points.iter().filter(|p| p.databases[0].verdict.opens().is_some()).count();
    println!("{} points, {open} of which open, in {took:?}", points.len());
    assert_eq!(points.len(), 30_000);
    assert_eq!(open, 30_000);
    // Unoptimised and on a busy machine; a scan of backups for each point would be minutes.
    assert!(took.as_secs() < 30, "{took:?}");
}
