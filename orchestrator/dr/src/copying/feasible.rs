//! The RPO that a fleet can keep as it is, said before it is broken.
//!
//! The newest point is oldest just before the next one is usable: a cadence and a delay. Both are taken from what was seen: how
//! far apart sets are, how long their snapshots took, how long the copies of each volume took (what changed between two sets is
//! in there), how long the inventory after a set let wait. Where copies are bought by their deadline, AWS's own rates count
//! (`A§3.2`). What was never seen is said, and never guessed to be quick. It is an upper bound while nothing fails: whoever takes
//! the next copy whenever a place is free is done no later than Graham's bound.

use super::{LONGEST, Limits, Timed, shortest};
use crate::facts::Snapshot;
use crate::points::{Ask, Common, Host, Point};
use crate::rpo;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tde2hsm_protocol::{InstanceId, SnapshotId, Timestamp, VolumeId};

/// So many of the newest sets are looked at: a fleet changes, and what once was slow is not so for ever.
const RECENT: usize = 5;
/// What AWS grants a pair of regions unless asked for more, in MiB/s (`A§3.2`).
const GRANTED: u32 = 2_000;

/// What was seen of one host, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub instance: InstanceId,
    /// Between two sets. `None`: there were not two.
    pub interval: Option<i64>,
    /// Until the snapshots of a set were completed.
    pub snapshots: Option<i64>,
    /// From a set to the inventory after it.
    pub survey: Option<i64>,
    /// One a volume of the newest set.
    pub volumes: Vec<VolumeLoad>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLoad {
    pub size_gib: u32,
    /// How long its copies took. `None`: none was completed yet.
    pub took: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feasible {
    pub asked_minutes: u32,
    /// The oldest that the newest point may become while nothing fails. `None`: not known yet.
    pub rpo_minutes: Option<u64>,
    pub limit: Option<Limit>,
    /// The host that it is so for.
    pub instance: Option<InstanceId>,
    /// How long one round of copies over all hosts takes at most.
    pub round_minutes: Option<u64>,
    /// Whether every set is copied; else hosts skip sets.
    pub every_set: bool,
    /// Hosts that are not in it: two sets of them were never seen.
    pub unseen: Vec<InstanceId>,
    /// What copies bought by their deadline would make of it, where they are not and it is better.
    pub timed_minutes: Option<u64>,
    pub text: String,
}

/// What would have to change for it to become better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// How often sets are taken.
    Cadence,
    /// How long the snapshots of a set take before they can be copied.
    Snapshots,
    /// The longest of the copies by itself.
    LongestCopy,
    /// Copies in flight.
    Places,
    /// MiB/s of copies bought by their deadline.
    Throughput,
    /// How long after a set the keys are looked at.
    Surveys,
}

impl Limit {
    fn words(self) -> &'static str {
        match self {
            Limit::Cadence => "how often sets are taken",
            Limit::Snapshots => "how long the snapshots of a set take",
            Limit::LongestCopy => "how long its largest copy takes",
            Limit::Places => "the number of copies in flight",
            Limit::Throughput => "the throughput of timed copies",
            Limit::Surveys => "how long after a set the host is surveyed",
        }
    }
}

impl Feasible {
    /// What was asked for cannot be kept.
    pub fn missed(&self) -> bool {
        self.rpo_minutes.is_some_and(|minutes| minutes > u64::from(self.asked_minutes))
    }

    /// What is said of it where it is missed.
    pub fn finding(&self) -> Option<String> {
        let timed = self.timed_minutes.map_or_else(String::new, |minutes| format!("; with timed copies at most {minutes} min"));
        self.missed().then(|| format!("an RPO of {} min cannot be kept: {}{timed}", self.asked_minutes, self.text))
    }
}

/// What was seen of each host that is copied, or may be while nobody can say.
pub fn loads(common: &Common, hosts: &[Host], points: &[Point]) -> Vec<Load> {
    let mut of: HashMap<&InstanceId, Vec<&Point>> = HashMap::new();
    for point in points {
        of.entry(&point.instance).or_default().push(point);
    }
    let silent = common.unasked.contains(&Ask::SourceInstances);
    let there = hosts.iter().filter(|host| host.now.is_some() || silent && !common.gone.contains(&host.instance));
    there.map(|host| load(common, host, of.remove(&host.instance).unwrap_or_default())).collect()
}

fn load(common: &Common, host: &Host, mut points: Vec<&Point>) -> Load {
    points.sort_by_key(|point| (point.taken, &point.set));
    let recent = &points[points.len().saturating_sub(RECENT)..];
    let sources: HashMap<&SnapshotId, &Snapshot> =
        host.snapshots.iter().filter(|one| one.region == common.source_region).map(|one| (&one.id, one)).collect();
    let completed = |id: &SnapshotId| sources.get(id).and_then(|one| Some(one.completed?.since(one.started).max(0)));
    let snapshots = recent.iter().flat_map(|point| &point.parts).filter_map(|part| completed(&part.source)).max();
    let looked = |point: &&&Point| -> Option<i64> {
        point.databases.iter().filter_map(|database| database.after).map(|after| after.since(point.taken).max(0)).max()
    };
    let newest = points.last().map(|point| point.parts.as_slice()).unwrap_or_default();
    Load {
        instance: host.instance.clone(),
        interval: rpo::cadence(&points),
        snapshots,
        survey: recent.iter().filter_map(|point| looked(&point)).max(),
        volumes: newest.iter().map(|part| VolumeLoad { size_gib: part.size_gib, took: took(&points, &part.volume) }).collect(),
    }
}

/// The longest that a copy of the volume took of late. The first into a region is of everything (`A§3.2`) and counts only while
/// there is no other.
fn took(points: &[&Point], volume: &VolumeId) -> Option<i64> {
    let parts = points.iter().flat_map(|point| &point.parts).filter(|part| part.volume == *volume);
    let span = |copy: &crate::points::PartCopy| -> Option<(Timestamp, i64)> {
        Some((copy.started, copy.completed?.since(copy.started).max(1)))
    };
    let mut spans: Vec<(Timestamp, i64)> = parts.filter_map(|part| part.copy.as_ref()).filter_map(span).collect();
    spans.sort_unstable();
    let first = usize::from(spans.len() > 1);
    spans.iter().skip(first).rev().take(RECENT).map(|(_, seconds)| *seconds).max()
}

/// The RPO that can be kept with these hosts and limits, if nothing fails and no key is new. A point whose key is new waits for
/// the HSM backup besides, which comes within a day (`A§4.5`).
pub fn feasible(loads: &[Load], limits: &Limits) -> Feasible {
    let mut found = reckon(loads, limits);
    if limits.timed == Timed::Never {
        let timed = reckon(loads, &Limits { timed: Timed::ByDeadline { throughput: GRANTED }, ..*limits });
        found.timed_minutes = timed.rpo_minutes.filter(|minutes| found.rpo_minutes.is_none_or(|now| *minutes < now));
    }
    found
}

/// One round of copies over all hosts, in seconds.
struct Round {
    seconds: i64,
    /// Which of its bounds it is.
    limit: Limit,
    /// No copy waits for another.
    no_wait: bool,
}

/// `None`: no copy was ever completed, and none is bought.
fn round(loads: &[Load], limits: &Limits) -> Option<Round> {
    let volumes: Vec<VolumeLoad> = loads.iter().flat_map(|load| load.volumes.iter().copied()).collect();
    // A volume that was never copied: as slow, by its size, as the slowest that was.
    let slowest = volumes.iter().filter_map(|v| Some(v.took?.div_euclid(i64::from(v.size_gib.max(1))) + 1)).max();
    let seen = |v: &VolumeLoad| v.took.or_else(|| Some(slowest? * i64::from(v.size_gib)));
    let time = |v: &VolumeLoad| match limits.timed {
        Timed::ByDeadline { .. } if shortest(v.size_gib) <= LONGEST => Some(shortest(v.size_gib) * 60),
        _ => seen(v),
    };
    let times: Vec<i64> = volumes.iter().map(time).collect::<Option<_>>()?;
    let places = i64::from(limits.in_flight.max(1));
    let longest = times.iter().copied().max().unwrap_or(0);
    let queued = times.iter().sum::<i64>().div_euclid(places) + 1;
    // Copies that are in flight at once if none ever waits: a set's may still be, when the next sets are taken.
    let at_once = |load: &Load| load.volumes.len() as i64 * load.interval.map_or(1, |interval| ceil(longest, interval));
    let no_wait = loads.iter().map(at_once).sum::<i64>() <= places;
    let overlaps = loads.iter().filter_map(|load| load.interval).min().is_some_and(|interval| queued + longest > interval);
    let (by_places, limit) = match (no_wait, overlaps) {
        (true, _) => (longest, Limit::LongestCopy),
        // Copies of one set begin while those of the set before are under way, and the last of them waits for these.
        (false, true) => (queued + 2 * longest, if queued >= longest { Limit::Places } else { Limit::LongestCopy }),
        (false, false) => (queued + longest, if queued >= longest { Limit::Places } else { Limit::LongestCopy }),
    };
    let by_rate = match limits.timed {
        Timed::Never => 0,
        Timed::ByDeadline { throughput } => {
            let mib: i64 = volumes.iter().map(|v| i64::from(v.size_gib) * 1024).sum();
            mib.div_euclid(i64::from(throughput.max(1))) + 1
        }
    };
    Some(match by_rate > by_places {
        true => Round { seconds: by_rate, limit: Limit::Throughput, no_wait: false },
        false => Round { seconds: by_places, limit, no_wait },
    })
}

fn reckon(loads: &[Load], limits: &Limits) -> Feasible {
    let unseen: Vec<InstanceId> = loads.iter().filter(|load| load.interval.is_none()).map(|load| load.instance.clone()).collect();
    let mut found = Feasible {
        asked_minutes: limits.rpo_minutes,
        rpo_minutes: None,
        limit: None,
        instance: None,
        round_minutes: None,
        every_set: true,
        unseen,
        timed_minutes: None,
        text: String::new(),
    };
    let Some(round) = round(loads, limits) else {
        found.text = "not known before a copy is completed: how long copies take has not been seen".to_owned();
        return found;
    };
    found.round_minutes = Some(minutes(round.seconds));
    let copies: usize = loads.iter().map(|load| load.volumes.len()).sum();
    let mut worst: Option<(i64, &Load, i64)> = None;
    for (load, interval) in loads.iter().filter_map(|load| Some((load, load.interval?))) {
        let sets = if round.no_wait { 1 } else { ceil(round.seconds, interval).max(1) };
        found.every_set &= sets == 1;
        let rpo = sets * interval + delay(load, &round);
        if worst.is_none_or(|(most, ..)| rpo > most) {
            worst = Some((rpo, load, sets));
        }
    }
    let Some((rpo, load, sets)) = worst else {
        found.text = "not known before two sets of a host are seen: how often sets are taken is not known".to_owned();
        return found;
    };
    let interval = load.interval.unwrap_or_default();
    let (copied, looked) = (load.snapshots.unwrap_or(0) + round.seconds, load.survey.unwrap_or(0));
    let limit = match () {
        () if sets == 1 && interval >= copied.max(looked) => Limit::Cadence,
        () if looked > copied => Limit::Surveys,
        () if load.snapshots.unwrap_or(0) > round.seconds => Limit::Snapshots,
        () => round.limit,
    };
    found.rpo_minutes = Some(minutes(rpo));
    found.limit = Some(limit);
    found.instance = Some(load.instance.clone());
    let skipping = if sets > 1 { format!(", of which one in {sets} is copied") } else { String::new() };
    let survey = match load.survey {
        Some(seconds) => format!("{} min until the host is surveyed", minutes(seconds)),
        None => "no survey after a set seen yet".to_owned(),
    };
    let unseen = match found.unseen.len() {
        0 => String::new(),
        n => format!("; {n} hosts of which no two sets were seen are not in it"),
    };
    found.text = format!(
        "at most {} min while nothing fails, limited by {} ({}): a set every {} min{skipping}, {} min until its snapshots are \
         completed, {} min for a round of {copies} copies over {} places, {survey}{unseen}; a point under a new key waits for an \
         HSM backup besides, up to 1,440 min",
        minutes(rpo),
        limit.words(),
        load.instance,
        minutes(interval),
        minutes(load.snapshots.unwrap_or(0)),
        minutes(round.seconds),
        limits.in_flight,
    );
    found
}

/// From a set until it can be opened.
fn delay(load: &Load, round: &Round) -> i64 {
    (load.snapshots.unwrap_or(0) + round.seconds).max(load.survey.unwrap_or(0))
}

fn ceil(of: i64, by: i64) -> i64 {
    of.div_euclid(by) + i64::from(of.rem_euclid(by) != 0)
}

fn minutes(seconds: i64) -> u64 {
    u64::try_from(seconds.max(0)).unwrap_or(0).div_ceil(60)
}
