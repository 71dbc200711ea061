//! What is copied next.
//!
//! There are few places (20 copies in flight a region, `A§3.3`), and half a set opens nothing. So a set that was begun is
//! finished first; then each host's newest set, in the order of the hosts' deadlines, those first that have nothing yet; then older
//! sets that retention would keep, the newest first: where places are short, a host goes over to its newest set and what it missed
//! stays missed. Nothing is asked for twice while the first call may still show its effect, and what failed waits longer each time.

mod feasible;

use crate::facts::{BackupState, HsmBackup, SetId, Snapshot, SnapshotState};
use crate::points::{Ask, Common, Host, Point};
use crate::records::{Attempt, HsmCopyIntent};
use crate::retention;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{BackupId, InstanceId, Retention, SnapshotId, Timestamp, VolumeId};

pub use feasible::{Feasible, Limit, Load, VolumeLoad, feasible, loads};

/// How long a call may take to show in DescribeSnapshots or DescribeBackups, in seconds; not repeated before.
pub const SETTLE: i64 = 15 * 60;
/// The first pause after a failed copy, doubled each time up to the last, in seconds.
const PAUSE: i64 = 15 * 60;
const LONGEST_PAUSE: i64 = 6 * 3600;
const DAY: i64 = 86_400;

/// A timed copy takes 15 to 2,880 minutes in steps of 15, and moves at most 500 MiB/s (`A§3.2`).
const STEP: i64 = 15;
const LONGEST: i64 = 2_880;
const MIB_A_SECOND: u64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Copies in flight in the DR region, at most, whoever began them (`A§3.3`).
    pub in_flight: u16,
    pub rpo_minutes: u32,
    /// Whether a copy may be bought to be done by a time (`A§3.2`).
    pub timed: Timed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timed {
    /// EBS takes its time.
    Never,
    /// Each by its deadline, while the throughput of the pair of regions, in MiB/s, has room for it. A copy that finds none left is
    /// begun like any other.
    ByDeadline { throughput: u32 },
}

impl Timed {
    /// As configurations say it: zero is never.
    pub fn from_mib_s(throughput: u32) -> Timed {
        if throughput == 0 { Timed::Never } else { Timed::ByDeadline { throughput } }
    }

    /// What the copies that are in flight leave of it.
    pub fn left(self, copies: &[Snapshot]) -> Timed {
        let Timed::ByDeadline { throughput } = self else { return self };
        let pending = copies.iter().filter(|copy| copy.state == SnapshotState::Pending);
        let taken: u64 = pending.filter_map(|copy| Some(rate(copy.size_gib, i64::from(copy.completion_minutes?)))).sum();
        Timed::ByDeadline { throughput: throughput.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)) }
    }
}

/// One snapshot that should be in the DR region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub source: SnapshotId,
    pub set: SetId,
    pub instance: InstanceId,
    pub volume: VolumeId,
    pub size_gib: u32,
    pub started: Timestamp,
    pub source_state: SnapshotState,
    /// The source is in the archive tier and cannot be copied.
    pub archived: bool,
    pub copy: CopyStatus,
    /// Calls made for it, oldest first.
    pub attempts: Vec<Attempt>,
    /// When the host's newest set that is wholly copied was taken.
    pub last_copied: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyStatus {
    /// There is none, or there was one and it is gone.
    Missing,
    Pending,
    Completed,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlan {
    /// In this order.
    pub begin: Vec<Begin>,
    pub waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    pub source: SnapshotId,
    pub set: SetId,
    pub instance: InstanceId,
    /// When the host's newest copied point will be older than the RPO.
    pub deadline: Timestamp,
    /// For a timed copy.
    pub minutes: Option<u16>,
    /// The number of calls made before.
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub source: SnapshotId,
    pub set: SetId,
    pub why: WaitsFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The set's snapshots are not all completed.
    Source,
    /// The source failed, or lies in the archive tier.
    SourceUnusable,
    /// A place among the copies in flight.
    Place,
    /// It failed before; not tried again before this.
    BackOff { until: Timestamp },
    /// It was asked for and cannot be seen yet; not asked for again before this.
    Settling { until: Timestamp },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmPlan {
    /// Backups of the source region to copy, most wanted first.
    pub copy: Vec<BackupId>,
    /// Backups of the source region to mark NeverExpires until their copy is READY (H45).
    pub keep: Vec<BackupId>,
    pub settling: Vec<BackupId>,
}

/// Every snapshot of a host that should be in the DR region: sets newer than the newest that is wholly copied, and older
/// ones that retention would keep. What retention has let go is not wanted again, nor what the source region no longer has.
pub fn wanted(host: &Host, points: &[Point], policy: &Retention) -> Vec<Wanted> {
    let of_host: Vec<&Point> = points.iter().filter(|point| point.instance == host.instance).collect();
    let records: HashMap<&SnapshotId, _> = host.copies.iter().map(|intent| (&intent.source, intent)).collect();
    let last_copied = of_host.iter().filter(|point| point.copied()).map(|point| point.taken).max();
    let kept = retention::buckets(of_host.iter().map(|point| (point.taken, retention::Rank::NotProven)), policy);
    let mut wanted = Vec::new();
    for point in of_host {
        let newer = last_copied.is_none_or(|last| point.taken > last);
        if !newer && !kept.contains_key(&point.taken) && !point.held {
            continue;
        }
        let expired = point.parts.iter().any(|part| records.get(&part.source).is_some_and(|record| record.expired.is_some()));
        if expired {
            continue;
        }
        for part in &point.parts {
            let Some(source_state) = part.source_state else { continue };
            let copy = match part.copy.as_ref().map(|copy| copy.state) {
                None => CopyStatus::Missing,
                Some(SnapshotState::Completed) => CopyStatus::Completed,
                // A word that is not known is waited for like a copy under way, never copied over.
                Some(SnapshotState::Pending | SnapshotState::Unknown) => CopyStatus::Pending,
                Some(SnapshotState::Error | SnapshotState::Recoverable | SnapshotState::Recovering) => CopyStatus::Failed,
            };
            wanted.push(Wanted {
                source: part.source.clone(),
                set: point.set.clone(),
                instance: point.instance.clone(),
                volume: part.volume.clone(),
                size_gib: part.size_gib,
                started: part.started,
                source_state,
                archived: part.source_archived,
                copy,
                attempts: records.get(&part.source).map_or_else(Vec::new, |record| record.attempts.clone()),
                last_copied,
            });
        }
    }
    wanted
}

/// One set as the plan sees it.
struct Candidate<'a> {
    parts: Vec<&'a Wanted>,
    started: Timestamp,
    deadline: Timestamp,
    begun: bool,
    /// The host's newest.
    newest: bool,
    fit: Result<(), WaitsFor>,
}

/// What to begin now. `in_flight` counts every pending copy of the DR region, ours or not.
pub fn plan(wanted: &[Wanted], in_flight: u16, now: Timestamp, limits: &Limits) -> CopyPlan {
    let mut sets: BTreeMap<(&InstanceId, &SetId), Vec<&Wanted>> = BTreeMap::new();
    for each in wanted {
        sets.entry((&each.instance, &each.set)).or_default().push(each);
    }
    // A host of which nothing is copied has waited since its first set.
    let mut first: HashMap<&InstanceId, Timestamp> = HashMap::new();
    for each in wanted {
        let earliest = first.entry(&each.instance).or_insert(each.started);
        *earliest = each.started.min(*earliest);
    }
    let mut newest: HashMap<&InstanceId, Timestamp> = HashMap::new();
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let mut settling = 0u32;
    for ((instance, _), parts) in sets {
        let Some(started) = parts.iter().map(|part| part.started).min() else { continue };
        settling += parts.iter().filter(|part| settles(part, now).is_some()).count() as u32;
        if parts.iter().all(|part| part.copy == CopyStatus::Completed) {
            continue;
        }
        let unusable =
            |part: &&Wanted| part.source_state != SnapshotState::Pending && part.source_state != SnapshotState::Completed;
        let open: Vec<&&Wanted> = parts.iter().filter(|part| part.copy != CopyStatus::Completed).collect();
        let fit = if open.iter().any(|part| part.archived || unusable(part)) {
            Err(WaitsFor::SourceUnusable)
        } else if open.iter().any(|part| part.source_state == SnapshotState::Pending) {
            Err(WaitsFor::Source)
        } else {
            Ok(())
        };
        if fit.is_ok() {
            let latest = newest.entry(instance).or_insert(started);
            *latest = started.max(*latest);
        }
        let last = parts.iter().filter_map(|part| part.last_copied).max();
        let since = last.or_else(|| first.get(instance).copied()).unwrap_or(started);
        candidates.push(Candidate {
            deadline: since.plus(i64::from(limits.rpo_minutes) * 60),
            begun: parts.iter().any(|part| part.copy != CopyStatus::Missing || !part.attempts.is_empty()),
            parts,
            started,
            newest: false,
            fit,
        });
    }
    for candidate in &mut candidates {
        let instance = &candidate.parts[0].instance;
        let last = candidate.parts.iter().filter_map(|part| part.last_copied).max();
        candidate.newest = newest.get(instance) == Some(&candidate.started) && last.is_none_or(|last| candidate.started > last);
    }
    candidates.sort_by(|a, b| {
        let key = |c: &Candidate<'_>| (!c.begun, !c.newest);
        // What has nothing yet goes before what has something old: else, where places are always short, it would never come.
        let some = |c: &Candidate<'_>| c.parts[0].last_copied.is_some();
        let by_deadline = || match a.newest {
            true => some(a).cmp(&some(b)).then(a.deadline.cmp(&b.deadline)),
            false => b.started.cmp(&a.started),
        };
        let id = |c: &Candidate<'_>| (c.parts[0].instance.clone(), c.parts[0].set.clone());
        key(a).cmp(&key(b)).then_with(by_deadline).then_with(|| id(a).cmp(&id(b)))
    });
    let mut plan = CopyPlan::default();
    let mut places = i64::from(limits.in_flight) - i64::from(in_flight) - i64::from(settling);
    let mut throughput = match limits.timed {
        Timed::Never => 0,
        Timed::ByDeadline { throughput } => u64::from(throughput),
    };
    for candidate in &candidates {
        for part in &candidate.parts {
            if matches!(part.copy, CopyStatus::Completed | CopyStatus::Pending) {
                continue;
            }
            let (source, set) = (part.source.clone(), part.set.clone());
            let wait = match (&candidate.fit, settles(part, now), pause(part, now)) {
                (_, Some(until), _) => Some(WaitsFor::Settling { until }),
                (Err(why), ..) => Some(*why),
                (_, _, Some(until)) => Some(WaitsFor::BackOff { until }),
                _ if places <= 0 => Some(WaitsFor::Place),
                _ => None,
            };
            if let Some(why) = wait {
                plan.waiting.push(Waiting { source, set, why });
                continue;
            }
            places -= 1;
            plan.begin.push(Begin {
                source,
                set,
                instance: part.instance.clone(),
                deadline: candidate.deadline,
                minutes: minutes(part.size_gib, candidate.deadline.since(now), &mut throughput, limits.timed),
                attempt: part.attempts.len() as u32,
            });
        }
    }
    plan
}

/// Until when a call that left no trace may still show its effect.
fn settles(part: &Wanted, now: Timestamp) -> Option<Timestamp> {
    if part.copy != CopyStatus::Missing {
        return None;
    }
    part.attempts.last().map(|attempt| attempt.at.plus(SETTLE)).filter(|until| *until > now)
}

fn pause(part: &Wanted, now: Timestamp) -> Option<Timestamp> {
    back_off(&part.attempts).filter(|until| *until > now)
}

fn back_off(attempts: &[Attempt]) -> Option<Timestamp> {
    let last = attempts.last()?;
    let doublings = u32::try_from(attempts.len() - 1).unwrap_or(u32::MAX).min(10);
    Some(last.at.plus((PAUSE << doublings).min(LONGEST_PAUSE)))
}

fn shortest(size_gib: u32) -> i64 {
    let seconds = (u64::from(size_gib) * 1024).div_ceil(MIB_A_SECOND);
    let minutes = i64::try_from(seconds.div_ceil(60)).unwrap_or(LONGEST);
    (minutes.div_euclid(STEP) + i64::from(minutes % STEP != 0)).max(1) * STEP
}

/// MiB/s.
fn rate(size_gib: u32, minutes: i64) -> u64 {
    (u64::from(size_gib) * 1024).div_ceil(u64::try_from(minutes * 60).unwrap_or(1).max(1))
}

/// For a timed copy: as slow, and so as cheap, as the deadline allows. `None`: not wanted, or no throughput is left for it.
fn minutes(size_gib: u32, left: i64, throughput: &mut u64, timed: Timed) -> Option<u16> {
    let Timed::ByDeadline { .. } = timed else { return None };
    let shortest = shortest(size_gib);
    let minutes = (left.div_euclid(60 * STEP) * STEP).clamp(STEP, LONGEST).max(shortest);
    let rate = rate(size_gib, minutes);
    if minutes > LONGEST || rate > *throughput {
        return None;
    }
    *throughput -= rate;
    u16::try_from(minutes).ok()
}

/// Which HSM backups are copied next: each from the first one on that was, the newest before the others. A key may leave the HSM
/// before anybody looks (`A§4.6`, `A§4.7`), so no later backup stands for one that was missed. Until its copy is READY a backup is
/// kept from the cluster's own purge (H45). What is older than `days` is copied only if it is held: retention gives it back when
/// nothing needs it.
pub fn plan_hsm(common: &Common, days: u16) -> HsmPlan {
    let mut plan = HsmPlan::default();
    if common.unasked.contains(&Ask::SourceBackups) || common.unasked.contains(&Ask::DrBackups) {
        return plan;
    }
    let of_cluster = |backup: &&HsmBackup| common.of_cluster(backup);
    let mut sources: Vec<(Timestamp, &HsmBackup)> = common
        .backups
        .iter()
        .filter(of_cluster)
        .filter(|backup| backup.region == common.source_region && backup.state == BackupState::Ready)
        .filter_map(|backup| backup.created.map(|created| (created, backup)))
        .collect();
    sources.sort_by_key(|(created, backup)| (*created, backup.id.clone()));
    let mut ready: BTreeSet<&BackupId> = BTreeSet::new();
    let mut under_way: BTreeSet<&BackupId> = BTreeSet::new();
    for copy in common.backups.iter().filter(of_cluster).filter(|backup| backup.region == common.dr_region) {
        let Some(source) = &copy.source_backup else { continue };
        match copy.state {
            BackupState::Ready => drop(ready.insert(source)),
            BackupState::CreateInProgress | BackupState::Unknown => drop(under_way.insert(source)),
            BackupState::Deleted | BackupState::PendingDeletion => {}
        }
    }
    let records: HashMap<&BackupId, &HsmCopyIntent> = common.hsm_copies.iter().map(|record| (&record.source, record)).collect();
    let first = common.hsm_copies.iter().map(|record| record.created).min();
    let young = common.now.plus(-i64::from(days) * DAY);
    let held = |id: &BackupId| records.get(id).is_some_and(|record| record.held);
    let newest = sources.last().copied();
    let since = sources
        .into_iter()
        .filter(|(created, _)| first.is_some_and(|first| *created >= first))
        .filter(|(created, backup)| *created >= young || held(&backup.id));
    let wanted: BTreeMap<(Timestamp, &BackupId), &HsmBackup> =
        since.chain(newest).map(|(created, backup)| ((created, &backup.id), backup)).collect();
    for ((_, id), backup) in wanted.into_iter().rev().filter(|((_, id), _)| !ready.contains(id)) {
        if backup.never_expires != Some(true) {
            plan.keep.push(id.clone());
        }
        if under_way.contains(id) {
            continue;
        }
        let attempts = records.get(id).map_or(&[][..], |record| record.attempts.as_slice());
        let settled = attempts.last().map(|attempt| attempt.at.plus(SETTLE)).max(back_off(attempts));
        match settled.is_some_and(|until| until > common.now) {
            true => plan.settling.push(id.clone()),
            false => plan.copy.push(id.clone()),
        }
    }
    plan
}
