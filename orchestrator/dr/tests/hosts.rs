//! Hosts and databases that come and go: nothing that somebody may still need ends without a word, and nothing that is gone stays
//! for ever.

mod common;

use common::*;
use std::collections::BTreeSet;
use tde2hsm_dr::inventory::DatabaseInventory;
use tde2hsm_dr::points::Ask;
use tde2hsm_dr::retention::{self, Item};
use tde2hsm_dr::rpo::{self, AlarmState, Level, Sight, What};
use tde2hsm_protocol::{Retention, Sid, Timestamp};

const RPO_MINUTES: u32 = 36 * 60;

fn tst() -> Sid {
    Sid::new("TST").unwrap()
}

/// A set a day for so many days.
fn daily(days: i64) -> World {
    let mut w = world();
    for day in 1..days {
        add_set(&mut w, day as u32 * 10, TAKEN.plus(day * DAY));
    }
    w.common.now = TAKEN.plus((days - 1) * DAY + 2 * HOUR);
    w
}

/// A stranger in the looks of these days that never opens: it is down, or it was dropped.
fn with_stranger(w: &mut World, days: std::ops::Range<i64>) {
    let days = TAKEN.plus(days.start * DAY - 2 * HOUR)..TAKEN.plus(days.end * DAY - 2 * HOUR);
    for look in w.host.inventories.iter_mut().filter(|look| days.contains(&look.taken_at)) {
        let known = look.databases[0].clone();
        look.databases.push(DatabaseInventory { sid: tst(), unreadable: vec!["the instance: it is down".into()], ..known });
    }
}

/// Looks at one world after the other, and what each tells.
#[derive(Default)]
struct Told {
    state: AlarmState,
    ids: BTreeSet<String>,
}

impl Told {
    fn look(&mut self, w: &World) -> Vec<(What, String)> {
        let status = rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), RPO_MINUTES);
        let (state, alarms) = rpo::alarms(&self.state, &status, Sight::Whole, RPO_MINUTES, w.common.now);
        self.state = state;
        for alarm in &alarms {
            assert!(self.ids.insert(alarm.id.clone()), "two messages, one id");
            assert!(alarm.text.ends_with(&alarm.id), "{}", alarm.text);
        }
        alarms.into_iter().map(|alarm| (alarm.what, alarm.text)).collect()
    }

    fn whats(&mut self, w: &World) -> Vec<What> {
        self.look(w).into_iter().map(|(what, _)| what).collect()
    }

    fn level(&self, sid: &Sid) -> Level {
        self.state.standing.get(&format!("{}/{sid}", instance(1))).map_or(Level::Kept, |standing| standing.level)
    }
}

/// Terraform or a tag policy takes the tag away: copies stop, and the breach that follows must still be told, and stand.
#[test]
fn a_host_that_lost_its_tag_counts_until_it_is_terminated() {
    let mut w = daily(5);
    let mut told = Told::default();
    assert_eq!(told.whats(&w), []);
    let tagged = w.host.now.take();
    let said = told.look(&w);
    assert_eq!((said.len(), said[0].0), (1, What::Lost));
    assert!(said[0].1.contains(instance(1).as_str()) && said[0].1.contains("tag"), "{said:?}");
    assert_eq!(told.whats(&w), [], "once");
    w.common.now = w.common.now.plus(2 * DAY);
    assert_eq!(told.whats(&w), [What::Breached]);
    assert_eq!(told.whats(&w), []);
    // AWS cannot be asked: what is lost is not found by that.
    w.common.unasked.insert(Ask::SourceInstances);
    assert_eq!((told.whats(&w), told.level(&sid())), (vec![], Level::Breached));
    w.common.unasked.clear();
    // The tag is back, and lost again.
    w.host.now = tagged;
    assert_eq!(told.whats(&w), [What::Found]);
    w.host.now = None;
    w.common.now = w.common.now.plus(HOUR);
    assert_eq!((told.whats(&w), told.level(&sid())), (vec![What::Lost], Level::Breached));
    w.common.gone.insert(instance(1));
    let said = told.look(&w);
    assert_eq!((said.len(), said[0].0), (1, What::Gone));
    assert!(said[0].1.contains("terminated") && said[0].1.contains(sid().as_str()), "{said:?}");
    assert_eq!(told.state, AlarmState { v: 1, ..AlarmState::default() });
    assert_eq!(told.whats(&w), []);
}

/// The same for a database that is down and not in oratab.
#[test]
fn a_database_that_a_look_does_not_list_counts_until_it_is_retired() {
    let mut w = daily(5);
    let mut told = Told::default();
    assert_eq!(told.whats(&w), []);
    let unlisted = |w: &mut World| {
        let mut look = inventory(w.common.now);
        look.databases.clear();
        w.host.inventories.push(look);
    };
    unlisted(&mut w);
    let said = told.look(&w);
    assert_eq!((said.len(), said[0].0), (1, What::Lost), "{said:?}");
    assert!(said[0].1.contains(&format!("{}/{}", instance(1), sid())), "{said:?}");
    w.common.now = w.common.now.plus(2 * DAY);
    unlisted(&mut w);
    assert_eq!((told.whats(&w), told.level(&sid())), (vec![What::Breached], Level::Breached));
    assert_eq!(told.whats(&w), []);
    // Another database is not it.
    w.common.retired.insert(format!("{}/OTHER", instance(1)).parse().unwrap());
    assert_eq!((told.whats(&w), told.level(&sid())), (vec![], Level::Breached));
    w.common.retired.insert(format!("{}/{}", instance(1), sid()).parse().unwrap());
    assert_eq!((told.whats(&w), told.level(&sid())), (vec![What::Gone], Level::Kept));
    assert_eq!(told.state, AlarmState { v: 1, ..AlarmState::default() });
}

/// That nothing is known of a host any more is no word of anybody that it is gone.
#[test]
fn a_breach_of_a_host_without_any_record_stands_until_somebody_ends_it() {
    let mut w = daily(5);
    let mut told = Told::default();
    w.common.now = w.common.now.plus(2 * DAY);
    assert_eq!(told.whats(&w), [What::Breached]);
    let nothing = rpo::status(&w.common, &[], &[], RPO_MINUTES);
    let (state, said) = rpo::alarms(&told.state, &nothing, Sight::Whole, RPO_MINUTES, w.common.now);
    assert_eq!((state, said), (told.state.clone(), vec![]));
}

/// A decommissioned host's last look stays while points lean on it: silence of the region brings it back to nobody's mind.
#[test]
fn a_host_that_is_gone_alarms_nobody_while_the_region_is_silent() {
    let mut w = daily(5);
    let mut told = Told::default();
    assert_eq!(told.whats(&w), []);
    w.host.now = None;
    w.common.gone.insert(instance(1));
    assert_eq!(told.whats(&w), [What::Gone]);
    w.common.now = w.common.now.plus(30 * DAY);
    w.common.unasked.insert(Ask::SourceInstances);
    assert_eq!(told.whats(&w), []);
    w.common.gone.clear();
    assert_eq!(told.whats(&w), [What::Breached], "nobody said that it is gone");
}

const POLICY: Retention = Retention { hourly: 0, daily: 3, weekly: 0, monthly: 0, count: 0, days: 0 };

/// What is left after each day's expiry for 200 days, and how many HSM backups went.
fn year(stranger: std::ops::Range<i64>, change: impl Fn(&mut World)) -> (World, usize, retention::Expiry) {
    let mut w = world();
    change(&mut w);
    let mut backups = 0;
    let mut last = retention::Expiry::default();
    for day in 1..200 {
        let (n, taken) = (day as u32 * 10, TAKEN.plus(day * DAY));
        add_set(&mut w, n, taken);
        if stranger.contains(&day) {
            with_stranger(&mut w, day..day + 1);
        }
        let created = taken.plus(-6 * HOUR);
        w.common.backups.extend([source_backup(day as u32 + 1, created), backup_copy(day as u32 + 1, created)]);
        w.common.hsm_copies.push(hsm_intent(day as u32 + 1, created, 10));
        w.common.now = taken.plus(2 * HOUR);
        let week = w.common.now.plus(-7 * DAY);
        w.host.snapshots.retain(|s| s.region == dr() || s.started >= week);
        last = retention::expire(&w.common, std::slice::from_ref(&w.host), &w.points(), &POLICY, 7);
        for deletion in &last.delete {
            match &deletion.item {
                Item::Snapshot { id, .. } => w.host.snapshots.retain(|s| s.id != *id),
                Item::Inventory { taken_at, .. } => w.host.inventories.retain(|i| i.taken_at != *taken_at),
                Item::CopyRecord { source } => w.host.copies.retain(|c| c.source != *source),
                Item::Backup { id, .. } => {
                    w.common.backups.retain(|b| b.id != *id);
                    backups += 1;
                }
                Item::HsmCopyRecord { source } => w.common.hsm_copies.retain(|c| c.source != *source),
            }
        }
    }
    (w, backups, last)
}

fn copies(w: &World) -> usize {
    w.host.snapshots.iter().filter(|s| s.region == dr()).count()
}

/// A trial instance that one look saw, and that was dropped the next day.
#[test]
fn h45_a_database_that_was_dropped_stops_no_expiry() {
    let (w, backups, last) = year(1..2, |_| ());
    assert!(copies(&w) < 30, "{} copies", copies(&w));
    assert!(w.host.inventories.len() < 60, "{} inventories", w.host.inventories.len());
    assert!(backups > 100, "{backups} HSM backups went");
    assert_eq!(last.nothing_opens, BTreeSet::new());
    // It counts all the same, so that somebody says what became of it.
    let status = rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), RPO_MINUTES);
    let row = status.databases.iter().find(|row| row.sid == tst()).unwrap();
    assert_eq!((row.level, row.listed), (Level::Breached, false));
}

/// One that looks still list may be started any day: while none of its points opens, nothing goes that may open yet, and no HSM
/// backup; unless somebody says that it is a stale line of oratab.
#[test]
fn h45_a_database_that_is_down_keeps_everything_until_it_is_retired() {
    let (w, backups, last) = year(1..200, |_| ());
    assert_eq!((copies(&w), backups), (400, 0));
    assert_eq!(last.nothing_opens, BTreeSet::from([(instance(1), Some(tst()))]));
    let retired = format!("{}/{}", instance(1), tst());
    let (w, backups, last) = year(1..200, |w| w.common.retired.extend([retired.parse().unwrap()]));
    assert!(copies(&w) < 30 && backups > 100, "{} copies, {backups} HSM backups went", copies(&w));
    assert_eq!(last.nothing_opens, BTreeSet::new());
    let status = rpo::status(&w.common, std::slice::from_ref(&w.host), &w.points(), RPO_MINUTES);
    assert_eq!(status.databases.iter().map(|row| &row.sid).collect::<Vec<_>>(), [&sid()]);
    // Not in the looks of six days is not dropped.
    let (w, _, last) = year(1..195, |_| ());
    assert_eq!((copies(&w), last.nothing_opens.len()), (400, 1));
}

/// Looks at a host that is gone lead to nothing once its last point went.
#[test]
fn looks_at_a_gone_host_go_with_its_last_point() {
    let going = |w: &World| {
        let expiry = retention::expire(&w.common, std::slice::from_ref(&w.host), &w.points(), &POLICY, 7);
        expiry.delete.iter().filter(|deletion| matches!(deletion.item, Item::Inventory { .. })).count()
    };
    let mut w = daily(3);
    w.common.now = Timestamp(TAKEN.0 + 40 * DAY);
    w.host.now = None;
    w.host.snapshots.clear();
    w.host.copies.clear();
    assert_eq!(going(&w), 0, "it may be there");
    w.common.gone.insert(instance(1));
    assert_eq!(going(&w), w.host.inventories.len());
    w.common.unasked.insert(Ask::DrSnapshots);
    assert_eq!(going(&w), 0, "it may have points");
    // The last that opens stays, and what it leans on.
    let mut w = daily(3);
    w.common.now = Timestamp(TAKEN.0 + 40 * DAY);
    w.host.now = None;
    w.common.gone.insert(instance(1));
    assert!(going(&w) < w.host.inventories.len());
}
