//! What is told of a database, look by look: a breach once, before it where it can be seen, and nothing that passes by itself.

mod common;

use common::*;
use tde2hsm_dr::facts::{BackupState, SnapshotState};
use tde2hsm_dr::points::Ask;
use tde2hsm_dr::rpo::{self, AlarmState, Sight, What};
use tde2hsm_protocol::{Store, Timestamp};

const MINUTE: i64 = 60;
/// Between two looks.
const LOOK: i64 = 15 * MINUTE;
const RPO: i64 = 36 * HOUR;

/// One set: when it was taken and how long its copies take; `None`: they never end.
#[derive(Clone, Copy)]
struct Set {
    taken: i64,
    takes: Option<i64>,
    /// The data volume was forgotten.
    torn: bool,
}

fn set(taken: i64, takes: i64) -> Set {
    Set { taken, takes: Some(takes), torn: false }
}

fn daily(days: std::ops::Range<i64>) -> Vec<Set> {
    days.map(|day| set(day * DAY, 90 * MINUTE)).collect()
}

/// What is there at a time, in seconds after [`TAKEN`].
fn at(now: i64, sets: &[Set]) -> World {
    let mut w = world();
    w.common.now = TAKEN.plus(now);
    w.host.snapshots.clear();
    w.host.copies.clear();
    w.host.inventories = vec![inventory(TAKEN.plus(-30 * DAY))];
    for (n, set) in sets.iter().enumerate().filter(|(_, set)| set.taken <= now) {
        let first = 10 * (n as u32 + 1);
        add_set(&mut w, first, TAKEN.plus(set.taken));
        let done = set.takes.map(|takes| TAKEN.plus(set.taken + takes)).filter(|done| *done <= w.common.now);
        for copy in [first, first + 1] {
            let copy = w.dr_snapshot(copy + 1_000_000);
            copy.completed = done;
            copy.state = if done.is_some() { SnapshotState::Completed } else { SnapshotState::Pending };
        }
        if set.torn {
            w.host.snapshots.retain(|s| s.id != snapshot(first + 1) && s.id != snapshot(first + 1_000_001));
        }
    }
    let now = w.common.now;
    w.host.inventories.retain(|inventory| inventory.received_at <= now);
    w
}

fn sight(w: &World) -> Sight {
    if w.common.unasked.contains(&Ask::DrSnapshots) { Sight::Partly } else { Sight::Whole }
}

/// What is told between two times, and when, in seconds after [`TAKEN`].
fn told(from: i64, to: i64, rpo: i64, world: impl Fn(i64) -> World) -> Vec<(What, i64)> {
    let minutes = (rpo / MINUTE) as u32;
    let mut state = AlarmState::default();
    let mut told = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    let mut now = from;
    while now <= to {
        let w = world(now);
        let status = rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), minutes);
        let (next, alarms) = rpo::alarms(&state, &status, sight(&w), minutes, w.common.now);
        state = next;
        for alarm in alarms {
            assert!(alarm.text.contains(&alarm.id), "{}", alarm.text);
            assert!(ids.insert(alarm.id), "two messages, one id");
            told.push((alarm.what, now));
        }
        now += LOOK;
    }
    told
}

fn whats(told: &[(What, i64)]) -> Vec<What> {
    told.iter().map(|(what, _)| *what).collect()
}

/// Copies take between one and seven hours, as they do: nobody is woken.
#[test]
fn a_point_that_takes_longer_than_the_last_few_alarms_nobody() {
    let takes = [90, 95, 240, 120, 100, 300, 110, 390, 90, 180, 130, 360];
    let sets: Vec<Set> = takes.iter().enumerate().map(|(day, takes)| set(day as i64 * DAY, takes * MINUTE)).collect();
    assert_eq!(told(3 * DAY, 12 * DAY, RPO, |now| at(now, &sets[..])), []);
}

/// The tool that takes sets is not a clock.
#[test]
fn a_set_that_comes_some_hours_late_alarms_nobody() {
    let mut sets = daily(0..8);
    for (set, late) in sets.iter_mut().zip([0, 5, 0, 40, 10, 180, 240, 0]) {
        set.taken += late * MINUTE;
    }
    assert_eq!(told(3 * DAY, 8 * DAY, RPO, |now| at(now, &sets)), []);
}

#[test]
fn a_copy_that_hangs_is_seen_hours_before_the_breach() {
    let mut sets = daily(0..8);
    sets[5].takes = Some(20 * HOUR);
    let told = told(4 * DAY, 7 * DAY, RPO, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Breached, What::Over]);
    let (seen, broken) = (told[0].1, told[1].1);
    assert!((4 * DAY + RPO..=4 * DAY + RPO + LOOK + 1).contains(&broken));
    assert!(broken - seen >= 5 * HOUR, "{} min before", (broken - seen) / MINUTE);
}

#[test]
fn what_was_predicted_and_did_not_come_is_taken_back_once() {
    let mut sets = daily(0..8);
    sets[5].takes = Some(9 * HOUR);
    let told = told(4 * DAY, 7 * DAY, RPO, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Averted]);
    assert!((5 * DAY + 9 * HOUR..=5 * DAY + 9 * HOUR + LOOK).contains(&told[1].1));
}

/// Newer sets come and are as late as the oldest: none of them is a reason to wait for.
#[test]
fn copies_that_all_hang_are_seen_however_often_sets_are_taken() {
    let mut sets: Vec<Set> = (0..40).map(|n| set(n * HOUR, 30 * MINUTE)).collect();
    sets[20..].iter_mut().for_each(|set| set.takes = None);
    let rpo = 8 * HOUR;
    let told = told(15 * HOUR, 40 * HOUR, rpo, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Breached]);
    assert!(told[1].1 - told[0].1 >= 2 * HOUR, "{told:?}");
}

#[test]
fn sets_that_forget_a_volume_are_seen_however_often_they_are_taken() {
    let mut sets: Vec<Set> = (0..40).map(|n| set(n * HOUR, 30 * MINUTE)).collect();
    sets[20..].iter_mut().for_each(|set| set.torn = true);
    let told = told(15 * HOUR, 40 * HOUR, 8 * HOUR, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Breached]);
    assert!(told[1].1 - told[0].1 >= 2 * HOUR, "{told:?}");
}

#[test]
fn sets_that_come_no_more_are_seen_before_the_breach() {
    let sets = daily(0..6);
    let told = told(4 * DAY, 8 * DAY, RPO, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Breached]);
    assert!(told[1].1 - told[0].1 >= 4 * HOUR, "{told:?}");
}

/// No copy is ever made of a snapshot that failed: waiting for one would hide the breach until it is there.
#[test]
fn a_set_that_failed_at_its_source_is_seen_before_the_breach() {
    let sets = daily(0..7);
    let failed = |state: SnapshotState| {
        let sets = sets.clone();
        move |now: i64| {
            let mut w = at(now, &sets);
            let last = sets.len() as u32 * 10;
            w.host.copies.retain(|copy| copy.source != snapshot(last) && copy.source != snapshot(last + 1));
            w.host.snapshots.retain(|s| s.id != snapshot(last + 1_000_000) && s.id != snapshot(last + 1_000_001));
            w.host.snapshots.iter_mut().filter(|s| s.id == snapshot(last)).for_each(|s| s.state = state);
            w
        }
    };
    let until = 6 * DAY + 12 * HOUR;
    let seen = told(5 * DAY, until, RPO, failed(SnapshotState::Error));
    assert_eq!(whats(&seen), [What::Predicted]);
    assert!(seen[0].1 < 6 * DAY + 30 * MINUTE, "at once: {seen:?}");
    // The copy of one that is whole may still be made.
    let late = told(5 * DAY, until, RPO, failed(SnapshotState::Completed));
    assert!(late.first().is_none_or(|(_, at)| *at > 6 * DAY + 4 * HOUR), "{late:?}");
}

/// A new key is in the next HSM backup at the earliest, and that is known at once.
#[test]
fn h41_a_key_that_waits_for_tomorrows_backup_is_seen_as_soon_as_it_is_known() {
    let sets = daily(0..7);
    let rotated = 5 * DAY - 2 * HOUR;
    let world = |now: i64| {
        let mut w = at(now, &sets);
        for inventory in w.host.inventories.iter_mut().filter(|inventory| inventory.taken_at > TAKEN.plus(rotated)) {
            inventory.databases[0].needs.push(active(2, Store::Hsm));
            inventory.databases[0].needs.remove(0);
            inventory.databases[0].known.push(known(2, Store::Hsm, TAKEN.plus(rotated)));
        }
        w.common.backups.clear();
        w.common.hsm_copies.clear();
        // At three hours before midnight of each day; copied within the hour.
        for day in -3..7 {
            let created = (day + 1) * DAY - 3 * HOUR;
            let n = (day + 4) as u32;
            if created <= now {
                w.common.backups.push(source_backup(n, TAKEN.plus(created)));
            }
            if created + HOUR <= now {
                w.common.backups.push(backup_copy(n, TAKEN.plus(created)));
                w.common.hsm_copies.push(hsm_intent(n, TAKEN.plus(created), 10));
            }
        }
        w
    };
    let told = told(4 * DAY, 6 * DAY, RPO, world);
    assert_eq!(whats(&told), [What::Predicted, What::Breached, What::Over]);
    assert!(told[1].1 - told[0].1 >= 9 * HOUR, "{told:?}");
}

/// A backup from after the key that somebody deleted before it was copied: the key waits for the next one, a day after that.
#[test]
fn h41_a_key_whose_only_backup_is_gone_waits_for_the_next_and_that_is_seen_at_once() {
    let sets = daily(0..7);
    let rotated = 5 * DAY - 40 * MINUTE;
    let world = |now: i64| {
        let mut w = at(now, &sets);
        for inventory in w.host.inventories.iter_mut().filter(|inventory| inventory.taken_at > TAKEN.plus(rotated)) {
            inventory.databases[0].needs = vec![active(2, Store::Hsm)];
            inventory.databases[0].known.push(known(2, Store::Hsm, TAKEN.plus(rotated)));
        }
        w.common.backups.clear();
        w.common.hsm_copies.clear();
        // Twenty minutes before midnight of each day; copied within the hour, but for the one after the rotation.
        for day in -3..7 {
            let created = (day + 1) * DAY - 20 * MINUTE;
            let n = (day + 4) as u32;
            if created <= now {
                w.common.backups.push(source_backup(n, TAKEN.plus(created)));
            }
            if day == 4 {
                w.common.backups.iter_mut().filter(|one| one.id == backup(n)).for_each(|one| one.state = BackupState::Deleted);
            } else if created + HOUR <= now {
                w.common.backups.push(backup_copy(n, TAKEN.plus(created)));
                w.common.hsm_copies.push(hsm_intent(n, TAKEN.plus(created), 10));
            }
        }
        w
    };
    let told = told(4 * DAY, 7 * DAY, RPO, world);
    assert_eq!(whats(&told), [What::Predicted, What::Breached, What::Over]);
    assert!(told[1].1 - told[0].1 >= 9 * HOUR, "{told:?}");
}

/// DescribeSnapshots is throttled now and then: no breach begins and ends by that. If it stays so, what was seen to open grows
/// old, and that is told.
#[test]
fn a_region_that_does_not_answer_breaks_no_rpo_until_what_was_seen_is_too_old() {
    let sets = daily(0..12);
    let blind = |now: i64, when: bool| {
        let mut w = at(now, &sets);
        if when {
            w.common.unasked.insert(Ask::DrSnapshots);
            w.host.snapshots.retain(|s| s.region != dr());
        }
        w
    };
    let now_and_then = told(3 * DAY, 6 * DAY, RPO, |now| blind(now, now / LOOK % 3 == 1));
    assert_eq!(now_and_then, []);
    let since = 5 * DAY + 6 * HOUR;
    let for_long = told(3 * DAY, 8 * DAY, RPO, |now| blind(now, (since..since + 2 * DAY).contains(&now)));
    assert_eq!(whats(&for_long), [What::Breached, What::Over]);
    assert!((5 * DAY + RPO..=5 * DAY + RPO + LOOK).contains(&for_long[0].1), "{for_long:?}");
}

/// After a week without the KMS key all of them open at once. That is no way to tell how long a point takes.
#[test]
fn points_that_open_after_a_long_outage_are_no_measure() {
    let mut sets = daily(0..20);
    for set in &mut sets[8..14] {
        set.takes = Some(14 * DAY + 4 * HOUR - set.taken);
    }
    let told = told(7 * DAY, 20 * DAY, RPO, |now| at(now, &sets));
    assert_eq!(whats(&told), [What::Predicted, What::Breached, What::Over]);
}

/// Where the cadence alone breaks the RPO, each breach is told with its end, and each is seen coming.
#[test]
fn an_rpo_that_cannot_be_kept_is_told_at_each_turn_and_not_in_between() {
    let sets = daily(0..8);
    let told = told(2 * DAY + 3 * HOUR, 6 * DAY, DAY, |now| at(now, &sets));
    let turn = [What::Predicted, What::Breached, What::Over];
    assert_eq!(whats(&told), turn.repeat(4)[..10], "{told:?}");
}

/// The id is of what is told: the same look at the same state has the same.
#[test]
fn an_alarm_has_the_same_id_however_often_it_is_made() {
    let w = at(5 * DAY, &daily(0..2));
    let minutes = (RPO / MINUTE) as u32;
    let status = rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), minutes);
    let tell = |now: Timestamp| rpo::alarms(&AlarmState::default(), &status, Sight::Whole, minutes, now).1;
    let (first, again, later) = (tell(w.common.now), tell(w.common.now), tell(w.common.now.plus(DAY)));
    assert_eq!(first, again);
    assert_eq!(first[0].what, What::Breached);
    assert_ne!(first[0].id, later[0].id, "another breach");
}
