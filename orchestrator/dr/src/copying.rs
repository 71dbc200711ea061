//! What is copied next.
//!
//! There are few places (20 copies in flight a region, `A§3.3`), and half a set opens nothing. So a set that was begun is
//! finished first; then each host's newest set in the order of the hosts' deadlines; then older sets that retention would
//! keep, the newest first: where places are short, a host goes over to its newest set and what it missed stays missed.
//! Nothing is asked for twice while the first call may still show its effect, and what failed waits longer each time.

use crate::facts::{BackupState, HsmBackup, SetId, SnapshotState};
use crate::inventory::Provider;
use crate::points::{Ask, Common, Host, MARGIN, Point};
use crate::records::{Attempt, HsmCopyIntent};
use crate::retention::{self, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{BackupId, InstanceId, SnapshotId, Store, Timestamp, VolumeId};

/// How long a call may take to show in DescribeSnapshots or DescribeBackups, in seconds; not repeated before.
pub const SETTLE: i64 = 15 * 60;
/// The first pause after a failed copy, doubled each time up to the last, in seconds.
const PAUSE: i64 = 15 * 60;
const LONGEST_PAUSE: i64 = 6 * 3600;

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
    /// Where the deadline asks for it and the throughput of the pair of regions, in MiB/s, has room for it.
    ByDeadline { throughput: u32 },
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
pub fn wanted(host: &Host, points: &[Point], policy: &Policy) -> Vec<Wanted> {
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
        let since = parts.iter().filter_map(|part| part.last_copied).max().unwrap_or(started);
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
        let by_deadline = || match a.newest {
            true => a.deadline.cmp(&b.deadline),
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

/// For a timed copy: as slow, and so as cheap, as the deadline allows. `None`: not wanted, or no throughput is left for it.
fn minutes(size_gib: u32, left: i64, throughput: &mut u64, timed: Timed) -> Option<u16> {
    let Timed::ByDeadline { .. } = timed else { return None };
    let shortest = shortest(size_gib);
    let minutes = (left.div_euclid(60 * STEP) * STEP).clamp(STEP, LONGEST).max(shortest);
    let rate = (u64::from(size_gib) * 1024).div_ceil(u64::try_from(minutes * 60).ok()?);
    if minutes > LONGEST || rate > *throughput {
        return None;
    }
    *throughput -= rate;
    u16::try_from(minutes).ok()
}

/// What a fleet's copies take, worked out beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Minutes between two sets of a host.
    pub interval_minutes: u32,
    /// Of one copy, in MiB/s: measured, or 500 for timed ones.
    pub copy_mib_s: u32,
    /// Of all copies together, in MiB/s: 2,000 for timed ones (`A§3.2`).
    pub total_mib_s: u32,
    /// Minutes from a set to the inventory after it.
    pub survey_minutes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feasible {
    /// How long one round over all hosts takes at most, in minutes.
    pub round_minutes: u64,
    /// The oldest that the newest point may become, in minutes, while nothing fails.
    pub rpo_minutes: u64,
    /// Whether each set can be copied before the next is taken; else hosts skip sets.
    pub every_set: bool,
    pub text: String,
}

/// The RPO that can be reached with these sizes (GiB, one list a host), if nothing fails and no key is new. A point whose
/// key is new also waits for the HSM backup, which comes within a day (`A§4.5`).
pub fn feasible(hosts: &[Vec<u32>], in_flight: u16, load: &Load) -> Feasible {
    let time = |size: u32| match load.copy_mib_s {
        0 => u64::MAX / 1_000_000,
        rate => (u64::from(size) * 1024).div_ceil(u64::from(rate)).div_ceil(60).max(1),
    };
    let times: Vec<u64> = hosts.iter().flatten().map(|size| time(*size)).collect();
    let total: u64 = times.iter().sum();
    let longest = times.iter().max().copied().unwrap_or(0);
    let size: u64 = hosts.iter().flatten().map(|size| u64::from(*size) * 1024).sum();
    // Whoever takes the next piece whenever a place is free is done after this at the latest (Graham's bound).
    let by_places = total.div_ceil(u64::from(in_flight.max(1))) + longest;
    let by_rate = match load.total_mib_s {
        0 => 0,
        rate => size.div_ceil(u64::from(rate)).div_ceil(60),
    };
    let round_minutes = if times.is_empty() { 0 } else { by_places.max(by_rate) };
    let interval = u64::from(load.interval_minutes.max(1));
    let sets = round_minutes.div_ceil(interval).max(1);
    let rpo_minutes = sets * interval + round_minutes.max(u64::from(load.survey_minutes));
    let every_set = sets == 1;
    let text = format!(
        "{} copies a round over {in_flight} places take up to {round_minutes} min; with a set every {interval} min{} the newest point \
         is at most {rpo_minutes} min old; a point under a new key waits for an HSM backup besides, up to 1,440 min",
        times.len(),
        if every_set { String::new() } else { format!(", of which one in {sets} is copied,") }
    );
    Feasible { round_minutes, rpo_minutes, every_set, text }
}

/// Which HSM backups are copied next: the newest, and the first that has each key which no READY copy has. What is wanted
/// and not yet READY in the DR region is kept from the cluster's own purge (H45).
pub fn plan_hsm(common: &Common, hosts: &[Host]) -> HsmPlan {
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
    let mut newest_copied: Option<Timestamp> = None;
    for copy in common.backups.iter().filter(of_cluster).filter(|backup| backup.region == common.dr_region) {
        let Some(source) = &copy.source_backup else { continue };
        match copy.state {
            BackupState::Ready => {
                ready.insert(source);
                newest_copied = newest_copied.max(copy.created);
            }
            BackupState::CreateInProgress | BackupState::Unknown => drop(under_way.insert(source)),
            BackupState::Deleted | BackupState::PendingDeletion => {}
        }
    }
    let mut wanted: BTreeSet<(Timestamp, &BackupId)> =
        sources.last().map(|(created, backup)| (*created, &backup.id)).into_iter().collect();
    for made in made_in_cluster(hosts) {
        let from = made.plus(MARGIN);
        if newest_copied.is_some_and(|copied| copied >= from) {
            continue;
        }
        let first = sources.partition_point(|(created, _)| *created < from);
        wanted.extend(sources.get(first).map(|(created, backup)| (*created, &backup.id)));
    }
    let records: HashMap<&BackupId, &HsmCopyIntent> = common.hsm_copies.iter().map(|record| (&record.source, record)).collect();
    let facts: HashMap<&BackupId, &HsmBackup> = sources.iter().map(|(_, backup)| (&backup.id, *backup)).collect();
    for (_, id) in wanted.into_iter().rev().filter(|(_, id)| !ready.contains(id)) {
        if facts.get(id).is_some_and(|backup| backup.never_expires != Some(true)) {
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

/// When each key was made that the newest look at each host shows in the cluster.
fn made_in_cluster(hosts: &[Host]) -> BTreeSet<Timestamp> {
    let newest = hosts.iter().filter_map(|host| host.newest());
    newest
        .filter(|inventory| matches!(inventory.provider, Some(Provider::CloudHsm { .. })))
        .flat_map(|inventory| &inventory.databases)
        .flat_map(|database| &database.known)
        .filter(|known| known.store == Some(Store::Hsm))
        .filter_map(|known| known.created.or(known.activated))
        .collect()
}
