//! What holds for every estate: a small history is drawn, its truth kept beside it, and verdicts, plans and expiries are held
//! against it.

mod common;

use common::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::copying::*;
use tde2hsm_dr::facts::*;
use tde2hsm_dr::inventory::*;
use tde2hsm_dr::points::*;
use tde2hsm_dr::records::*;
use tde2hsm_dr::retention::{self, Item};
use tde2hsm_protocol::*;

/// One host over some days. Times are minutes from the beginning.
#[derive(Debug, Clone)]
struct History {
    /// When the key was rotated.
    rotations: Vec<i64>,
    /// A read-only tablespace keeps the key that was active then.
    read_only: Option<i64>,
    sets: Vec<i64>,
    looks: Vec<i64>,
    /// And whether its copy is READY.
    backups: Vec<(i64, bool)>,
    /// When the crypto user's secret was rotated.
    secrets: Vec<i64>,
    /// Versions that are gone in the DR region, by number.
    gone: BTreeSet<usize>,
    /// Copies that failed, by number.
    failed: BTreeSet<usize>,
    /// By how many seconds the host's clock is wrong.
    clock: i64,
    /// A key that somebody took out of the HSM, by its number, and when.
    removed: Option<(u8, i64)>,
}

const SPAN: i64 = 6 * 24 * 60;
const START: i64 = 1_772_000_000;

fn at(minute: i64) -> Timestamp {
    Timestamp(START + minute * 60)
}

fn history() -> impl Strategy<Value = History> {
    let times = |n: usize| proptest::collection::btree_set(0..SPAN, 0..n).prop_map(|set| set.into_iter().collect::<Vec<i64>>());
    (
        times(5),
        proptest::option::of(0..SPAN),
        times(7),
        times(12),
        proptest::collection::btree_map(0..SPAN, any::<bool>(), 0..7).prop_map(|map| map.into_iter().collect::<Vec<_>>()),
        times(3),
        proptest::collection::btree_set(0..4usize, 0..2),
        proptest::collection::btree_set(0..14usize, 0..3),
        -290..290i64,
        proptest::option::of((1..4u8, 0..SPAN)),
    )
        .prop_map(|(rotations, read_only, sets, looks, backups, secrets, gone, failed, clock, removed)| History {
            // A key that no look ever listed, or that was taken out after the last of them, is known to nobody as gone.
            removed: removed.filter(|(key, minute)| {
                let made = if *key == 1 { -1 } else { rotations.get(usize::from(*key) - 2).copied().unwrap_or(SPAN) };
                looks.iter().any(|look| made < *look && look <= minute) && looks.iter().any(|look| look > minute)
            }),
            rotations,
            read_only,
            sets,
            looks,
            backups,
            secrets,
            gone,
            failed,
            clock,
        })
}

impl History {
    /// Number of the key that is active at a moment; the first was made long before.
    fn active(&self, minute: i64) -> u8 {
        1 + self.rotations.iter().filter(|r| **r < minute).count() as u8
    }
    fn made(&self, key: u8) -> Timestamp {
        match key {
            1 => at(-40 * 24 * 60),
            n => at(self.rotations[usize::from(n) - 2]),
        }
    }
    /// Whether a backup of a moment has a key.
    fn has(&self, key: u8, moment: Timestamp) -> bool {
        self.made(key) < moment && self.removed.is_none_or(|(gone, minute)| gone != key || moment <= at(minute))
    }
    fn needs(&self, minute: i64) -> BTreeSet<u8> {
        let kept = self.read_only.filter(|frozen| *frozen < minute).map(|frozen| self.active(frozen));
        kept.into_iter().chain([self.active(minute)]).collect()
    }
    fn secret(&self, minute: i64) -> usize {
        self.secrets.iter().filter(|s| **s < minute).count()
    }
    /// Whether the set of a minute opens with anything that the DR region has.
    fn truth(&self, index: usize) -> bool {
        let minute = self.sets[index];
        let copies = !self.failed.contains(&(2 * index)) && !self.failed.contains(&(2 * index + 1));
        let hsm = self.backups.iter().any(|(made, ready)| {
            *ready && !self.gone.contains(&self.secret(*made)) && self.needs(minute).iter().all(|key| self.has(*key, at(*made)))
        });
        copies && hsm
    }

    /// Whether it opens with what is left of the DR region.
    fn opens_with(&self, index: usize, left: &World) -> bool {
        let minute = self.sets[index];
        let whole = [1, 2].iter().all(|vol| {
            let copy = snapshot((2 * index + vol) as u32 + 1_000_000);
            left.host.snapshots.iter().any(|s| s.id == copy && s.state == SnapshotState::Completed)
        });
        let made = |backup: &HsmBackup| self.backups.iter().map(|(made, _)| *made).find(|made| Some(at(*made)) == backup.created);
        let there = left.common.backups.iter().filter(|backup| backup.region == dr() && backup.state == BackupState::Ready);
        let opens =
            |made: i64| !self.gone.contains(&self.secret(made)) && self.needs(minute).iter().all(|key| self.has(*key, at(made)));
        whole && there.filter_map(made).any(opens)
    }

    fn world(&self) -> World {
        let mut world = world();
        world.common.now = at(SPAN + 60);
        world.host.snapshots.clear();
        world.host.copies.clear();
        for (index, minute) in self.sets.iter().enumerate() {
            for vol in [1, 2] {
                let number = 2 * index + vol;
                let snapshot = source_snapshot(number as u32, vol as u32, at(*minute));
                let mut copy = copy_of(&snapshot, "t");
                if self.failed.contains(&(number - 1)) {
                    copy.state = SnapshotState::Error;
                }
                world.host.copies.push(intent(&snapshot, "t"));
                world.host.snapshots.extend([snapshot, copy]);
            }
        }
        world.host.inventories = self.looks.iter().map(|minute| self.look(*minute)).collect();
        world.common.backups.clear();
        world.common.hsm_copies.clear();
        for (index, (minute, ready)) in self.backups.iter().enumerate() {
            let number = index as u32 + 1;
            world.common.backups.push(source_backup(number, at(*minute)));
            let mut copy = backup_copy(number, at(*minute));
            if !*ready {
                copy.state = BackupState::Deleted;
            }
            world.common.backups.push(copy);
            world.common.hsm_copies.push(hsm_intent(number, at(*minute), 100 + self.secret(*minute) as u32));
        }
        let versions: Vec<(u32, Timestamp)> = (0..=self.secrets.len())
            .map(|n| (100 + n as u32, if n == 0 { at(-1_000_000) } else { at(self.secrets[n - 1]) }))
            .collect();
        let mut replica = secret("cu", &dr(), &versions);
        for version in &mut replica.versions {
            version.stages.insert("tde2hsm-kept".into());
        }
        replica.versions.retain(|v| !self.gone.iter().any(|gone| v.version == version(100 + *gone as u32)));
        *world.dr_secret("cu") = replica;
        world
    }

    fn look(&self, minute: i64) -> Inventory {
        let host = |t: Timestamp| t.plus(self.clock);
        let mut look = inventory(host(at(minute)));
        look.received_at = at(minute).plus(20);
        look.ordered_at = Some(at(minute).plus(-20));
        let store = Some(Store::Hsm);
        let database = &mut look.databases[0];
        let listed = |n: &u8| self.removed.is_none_or(|(gone, at)| gone != *n || at >= minute);
        database.known = (1..=self.active(minute)).filter(listed).map(|n| known(n, Store::Hsm, host(self.made(n)))).collect();
        database.needs = vec![active(self.active(minute), Store::Hsm)];
        if let Some(frozen) = self.read_only.filter(|frozen| *frozen < minute) {
            database.needs.push(read_only(self.active(frozen), store));
        }
        look
    }
}

fn judged(world: &World) -> Vec<Point> {
    world.points()
}

fn opens(point: &Point) -> bool {
    point.databases.first().is_some_and(|d| d.verdict.opens().is_some())
}

/// Everything that an expiry deletes is gone.
fn without(world: &World, expiry: &retention::Expiry) -> World {
    let mut left = World { common: world.common.clone(), host: world.host.clone() };
    for deletion in &expiry.delete {
        match &deletion.item {
            Item::Snapshot { id, .. } => left.host.snapshots.retain(|s| s.id != *id),
            Item::Backup { id, region } => left.common.backups.retain(|b| b.id != *id || b.region != *region),
            Item::Inventory { taken_at, .. } => left.host.inventories.retain(|i| i.taken_at != *taken_at),
            Item::CopyRecord { source } => left.host.copies.retain(|c| c.source != *source),
            Item::HsmCopyRecord { source } => left.common.hsm_copies.retain(|c| c.source != *source),
        }
    }
    left
}

fn policy() -> impl Strategy<Value = Retention> {
    (0..3u16, 0..4u16, 0..2u16, 0..2u16, 0..2u16, 0..2u16).prop_map(|(hourly, daily, weekly, monthly, count, days)| Retention {
        hourly,
        daily,
        weekly,
        monthly,
        count,
        days,
    })
}

fn nothing_needed_goes(history: &History, policy: &Retention, days: u16, later: i64) -> Result<(), TestCaseError> {
    let mut world = history.world();
    world.common.now = world.common.now.plus(later * DAY);
    let points = judged(&world);
    let expiry = retention::expire(&world.common, std::slice::from_ref(&world.host), &points, policy, days);
    let left = without(&world, &expiry);
    let after: BTreeMap<SetId, bool> = judged(&left).iter().map(|p| (p.set.clone(), opens(p))).collect();
    let last = points.iter().filter(|p| opens(p)).max_by_key(|p| p.taken);
    if let Some(last) = last {
        prop_assert_eq!(after.get(&last.set), Some(&true), "the last point that opens was lost");
    }
    let gone: BTreeSet<&SetId> = expiry
        .delete
        .iter()
        .filter_map(|d| match &d.item {
            Item::Snapshot { set, .. } => Some(set),
            _ => None,
        })
        .collect();
    for point in points.iter().filter(|p| opens(p) && !gone.contains(&p.set)) {
        prop_assert_eq!(after.get(&point.set), Some(&true), "{} was kept and opens no more", &point.set.0);
    }
    // Nor is anything lost of which nobody can say yet that it opens.
    for point in points.iter().filter(|p| !gone.contains(&p.set)) {
        let index = history.sets.iter().position(|minute| at(*minute) == point.taken).expect("a set");
        let lost = history.opens_with(index, &world) && !history.opens_with(index, &left);
        prop_assert!(!lost, "{} was kept and can be opened no more: {:?}", &point.set.0, expiry.delete);
    }
    let again = retention::expire(&left.common, std::slice::from_ref(&left.host), &judged(&left), policy, days);
    prop_assert!(again.delete.is_empty(), "{:?}", again.delete);
    // What is kept is never deleted in the same breath.
    let kept: BTreeSet<_> = expiry.keep.iter().map(|k| &k.item).collect();
    prop_assert!(expiry.delete.iter().all(|d| !kept.contains(&d.item)));
    Ok(())
}

const NOTHING: Retention = Retention { hourly: 0, daily: 0, weekly: 0, monthly: 0, count: 0, days: 0 };

fn quiet() -> History {
    History {
        rotations: vec![],
        read_only: None,
        sets: vec![],
        looks: vec![],
        backups: vec![],
        secrets: vec![],
        gone: BTreeSet::new(),
        failed: BTreeSet::new(),
        clock: 0,
        removed: None,
    }
}

/// Made after the last look that lists the key and before the first that does not, the only backup that has it is not known to.
#[test]
fn h45_the_backup_from_while_a_key_went_stays() {
    let history = History {
        rotations: vec![0, 3_244],
        sets: vec![97, 3_245],
        looks: vec![0, 3_245, 5_975],
        backups: vec![(3_245, true), (5_975, true), (5_976, true)],
        removed: Some((2, 3_245)),
        ..quiet()
    };
    nothing_needed_goes(&history, &Retention { daily: 2, ..NOTHING }, 0, 0).unwrap();
}

/// The set's key came and went between two looks, so neither of them needs it; a week later it is gone from the HSM.
#[test]
fn h45_the_looks_that_tell_of_a_key_that_came_between_two_of_them_stay() {
    let history = History {
        rotations: vec![0, 1_597, 1_598],
        sets: vec![1_597],
        looks: vec![0, 1_599, 6_571, 7_023],
        backups: vec![(1_600, true)],
        clock: -180,
        removed: Some((2, 6_571)),
        ..quiet()
    };
    nothing_needed_goes(&history, &NOTHING, 0, 6).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// `opens` only if it does, `does not open` only if it does not.
    #[test]
    fn h41_verdicts_are_true(history in history()) {
        let world = history.world();
        for point in judged(&world) {
            let index = history.sets.iter().position(|minute| at(*minute) == point.taken).expect("a set");
            for database in &point.databases {
                match &database.verdict {
                    Verdict::Opens(opening) => {
                        prop_assert!(history.truth(index), "said to open: {:?}", opening);
                        let made = opening.backup.as_ref().map(|b| b.created).expect("a backup");
                        prop_assert!(history.needs(history.sets[index]).iter().all(|key| history.has(*key, made)));
                    }
                    Verdict::DoesNotOpen { causes, .. } => prop_assert!(!history.truth(index), "{:?}", causes),
                    Verdict::NotProven { unknowns } => prop_assert!(!unknowns.is_empty()),
                }
            }
        }
    }

    /// With a look on each side, no key or backup near another's time and every copy and password there, nothing stays open.
    #[test]
    fn h41_what_is_fully_observed_is_decided(mut history in history(), sets in 1..5i64) {
        history.clock %= 60;
        history.sets = (1..=sets).map(|n| n * 1_440 + 600).collect();
        history.looks = (0..=sets).map(|n| n * 1_440 + 1_200).collect();
        history.looks.insert(0, 1);
        history.rotations = history.rotations.iter().map(|r| r / 1_440 * 1_440 + 300).collect();
        history.rotations.dedup();
        history.read_only = None;
        history.backups = (0..=sets).map(|n| (n * 1_440 + 60, true)).collect();
        history.secrets.clear();
        history.gone.clear();
        history.removed = None;
        for point in judged(&history.world()) {
            for database in &point.databases {
                let undecided = matches!(database.verdict, Verdict::NotProven { .. });
                prop_assert!(!undecided, "{:?}", database.verdict);
            }
        }
    }

    /// Whatever is taken away, no point begins to open.
    #[test]
    fn taking_a_part_away_never_makes_a_point_open(mut history in history(), what in 0..7u8, which in 0..20usize) {
        if what == 2 {
            // That a key is gone is known by a look alone.
            history.removed = None;
        }
        let world = history.world();
        let before: BTreeMap<SetId, bool> = judged(&world).iter().map(|p| (p.set.clone(), opens(p))).collect();
        let mut less = World { common: world.common.clone(), host: world.host.clone() };
        fn drop_one<T>(list: &mut Vec<T>, which: usize) {
            if !list.is_empty() {
                list.remove(which % list.len());
            }
        }
        match what {
            0 => drop_one(&mut less.host.snapshots, which),
            1 => drop_one(&mut less.common.backups, which),
            2 => drop_one(&mut less.host.inventories, which),
            3 => drop_one(&mut less.common.hsm_copies, which),
            4 => drop_one(&mut less.common.kms, which),
            5 => drop_one(&mut less.common.secrets, which),
            _ => drop_one(&mut less.common.uses, which),
        }
        for point in judged(&less) {
            if opens(&point) {
                prop_assert_eq!(before.get(&point.set), Some(&true), "{} opens without {}", point.set.0, what);
            }
        }
    }

    /// The last point that opens stays and opens still, every kept point that opened opens, and a second run finds nothing.
    #[test]
    fn h45_nothing_that_is_needed_goes_and_expiry_comes_to_rest(
        history in history(), policy in policy(), days in 0..3u16, later in 0..20i64,
    ) {
        nothing_needed_goes(&history, &policy, days, later)?;
    }
}

/// A destination region in which copies end after a while, well or not.
struct Region2 {
    now: Timestamp,
    pending: BTreeMap<SnapshotId, Timestamp>,
    done: BTreeSet<SnapshotId>,
    failed: BTreeSet<SnapshotId>,
    attempts: BTreeMap<SnapshotId, Vec<Attempt>>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never more in flight than there are places, no source asked for twice while its copy is on its way, and everything is
    /// there in the end although each copy may fail twice.
    #[test]
    fn copies_keep_within_their_places_and_all_come(
        sizes in proptest::collection::vec(proptest::collection::vec(1..200u32, 1..5), 1..8),
        limit in 1..6u16,
        others in 0..2u16,
        fate in proptest::collection::vec(0..4u8, 64),
        timed in any::<bool>(),
    ) {
        let others = others.min(limit - 1);
        let timed = if timed { Timed::ByDeadline { throughput: 2_000 } } else { Timed::Never };
        let limits = Limits { in_flight: limit, rpo_minutes: 1_440, timed };
        let mut all: Vec<(SnapshotId, u32, u32)> = Vec::new();
        for (host, volumes) in sizes.iter().enumerate() {
            for size in volumes {
                all.push((snapshot(all.len() as u32), host as u32, *size));
            }
        }
        let mut region = Region2 {
            now: TAKEN.plus(3_600),
            pending: BTreeMap::new(),
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
            attempts: BTreeMap::new(),
        };
        let mut turns = 0;
        while region.done.len() < all.len() {
            turns += 1;
            prop_assert!(turns < 5_000, "{} of {} came", region.done.len(), all.len());
            region.now = region.now.plus(300);
            let ended: Vec<SnapshotId> = region.pending.iter().filter(|(_, end)| **end <= region.now).map(|(id, _)| id.clone()).collect();
            for id in ended {
                region.pending.remove(&id);
                let tries = region.attempts[&id].len();
                let lot = fate[(id.as_str().bytes().map(usize::from).sum::<usize>() * 7 + tries * 13) % fate.len()];
                match lot {
                    0 if tries < 3 => drop(region.failed.insert(id)),
                    // It vanishes without a word.
                    1 if tries < 3 => {}
                    _ => drop(region.done.insert(id)),
                }
            }
            let wanted: Vec<Wanted> = all
                .iter()
                .map(|(id, host, size)| Wanted {
                    source: id.clone(),
                    set: SetId(format!("set-{host}")),
                    instance: instance(*host),
                    volume: volume(1),
                    size_gib: *size,
                    started: TAKEN,
                    source_state: SnapshotState::Completed,
                    archived: false,
                    copy: match () {
                        _ if region.done.contains(id) => CopyStatus::Completed,
                        _ if region.pending.contains_key(id) => CopyStatus::Pending,
                        _ if region.failed.contains(id) => CopyStatus::Failed,
                        _ => CopyStatus::Missing,
                    },
                    attempts: region.attempts.get(id).cloned().unwrap_or_default(),
                    last_copied: None,
                })
                .collect();
            let plan = plan(&wanted, region.pending.len() as u16 + others, region.now, &limits);
            let mut begun = BTreeSet::new();
            for begin in &plan.begin {
                prop_assert!(begun.insert(begin.source.clone()) && !region.pending.contains_key(&begin.source));
                prop_assert!(begin.minutes.is_none_or(|m| m % 15 == 0 && (15..=2_880).contains(&m)));
                region.failed.remove(&begin.source);
                region.attempts.entry(begin.source.clone()).or_default().push(Attempt { token: "t".into(), at: region.now });
                region.pending.insert(begin.source.clone(), region.now.plus(1_800));
            }
            prop_assert!(region.pending.len() + usize::from(others) <= usize::from(limit), "{} in flight", region.pending.len());
            let twice = plan.waiting.iter().filter(|w| begun.contains(&w.source)).count();
            prop_assert_eq!(twice, 0);
        }
    }
}

/// What one host's copies take, in minutes, and when its first set is taken.
type Pace = (Vec<i64>, i64);

/// The oldest that a host's newest copied set ever becomes, in minutes: copies begun by the planner whenever one may be, for some
/// days, the first of which do not count.
fn oldest(hosts: &[Pace], interval: i64, places: u16) -> i64 {
    let limits = Limits { in_flight: places, rpo_minutes: 600, timed: Timed::Never };
    let rounds = hosts.iter().flat_map(|(volumes, _)| volumes).sum::<i64>() / interval + 2;
    let (warm, end) = (4 * rounds * interval, 12 * rounds * interval);
    let at = |minute: i64| TAKEN.plus(minute * 60);
    let id = |host: usize, n: i64, volume: usize| snapshot(((n as u32) << 8) | ((host as u32) << 4) | volume as u32);
    let mut pending: BTreeMap<SnapshotId, i64> = BTreeMap::new();
    let mut done: BTreeSet<SnapshotId> = BTreeSet::new();
    let mut newest: Vec<Option<i64>> = vec![None; hosts.len()];
    let mut worst = 0;
    for minute in 0..end {
        pending.retain(|id, until| *until > minute || !done.insert(id.clone()));
        let mut wanted = Vec::new();
        let mut times = BTreeMap::new();
        for (host, (volumes, phase)) in hosts.iter().enumerate() {
            let sets = (minute - phase).div_euclid(interval) + 1;
            let whole = (0..sets).rev().find(|n| (0..volumes.len()).all(|v| done.contains(&id(host, *n, v))));
            newest[host] = whole.map(|n| phase + n * interval);
            // What was missed stays missed after some sets, as retention would have it.
            for n in whole.map_or(0, |n| n + 1).max(sets - 6).min(sets)..sets {
                for (volume, time) in volumes.iter().enumerate() {
                    let source = id(host, n, volume);
                    times.insert(source.clone(), *time);
                    wanted.push(Wanted {
                        copy: match () {
                            _ if done.contains(&source) => CopyStatus::Completed,
                            _ if pending.contains_key(&source) => CopyStatus::Pending,
                            _ => CopyStatus::Missing,
                        },
                        source,
                        set: SetId(format!("set-{host}-{n:06}")),
                        instance: instance(host as u32),
                        volume: self::volume(volume as u32),
                        size_gib: 1,
                        started: at(phase + n * interval),
                        source_state: SnapshotState::Completed,
                        archived: false,
                        attempts: vec![],
                        last_copied: newest[host].map(at),
                    });
                }
            }
        }
        let in_flight = pending.len() as u16;
        for begin in plan(&wanted, in_flight, at(minute), &limits).begin {
            pending.insert(begin.source.clone(), minute + times[&begin.source]);
        }
        if minute >= warm {
            worst = newest.iter().map(|taken| minute - taken.unwrap_or(0)).max().unwrap_or(0).max(worst);
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is said beforehand is never less than what then happens.
    #[test]
    fn the_rpo_that_is_said_to_be_feasible_is_kept(
        hosts in proptest::collection::vec((proptest::collection::vec(1..40i64, 1..4), 0..30i64), 1..6),
        interval in 30..60i64,
        places in 1..5u16,
    ) {
        let loads: Vec<Load> = hosts
            .iter()
            .enumerate()
            .map(|(n, (volumes, _))| Load {
                instance: instance(n as u32),
                interval: Some(interval * 60),
                snapshots: None,
                survey: None,
                volumes: volumes.iter().map(|minutes| VolumeLoad { size_gib: 1, took: Some(minutes * 60) }).collect(),
            })
            .collect();
        let limits = Limits { in_flight: places, rpo_minutes: 600, timed: Timed::Never };
        let said = feasible(&loads, &limits).rpo_minutes.unwrap();
        let came = oldest(&hosts, interval, places) as u64;
        prop_assert!(came <= said, "{came} min came, {said} were said");
        // And it is no idle bound.
        prop_assert!(said <= 3 * came + 2 * interval as u64, "{came} min came, {said} were said");
    }
}
