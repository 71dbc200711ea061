//! How old the newest point that opens is, and who is told (once for each breach).

use crate::points::{Ask, Cause, Common, DatabasePoint, Host, Point, Unknown, Verdict, moment};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::{Code, InstanceId, Sid, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub databases: Vec<DatabaseStatus>,
    /// The oldest of the databases' newest points that open. `None`: some database has none.
    pub fleet_age: Option<i64>,
    /// Instances of the fleet that no inventory was ever taken of: what databases they have is not known.
    pub unseen: Vec<InstanceId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    pub instance: InstanceId,
    pub sid: Sid,
    /// When the newest set was taken, whatever its verdict.
    pub newest: Option<Timestamp>,
    pub newest_that_opens: Option<Timestamp>,
    /// Why the newest does not open, by code; empty where it does.
    pub why: Vec<Code>,
    /// Seconds.
    pub age: Option<i64>,
    /// When the next point may be expected to open, by the cadence seen.
    pub next_expected: Option<Timestamp>,
    pub level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Kept,
    /// The newest point that opens will be older than the RPO before the next can be expected to open.
    Predicted,
    Breached,
}

/// `alarms.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    pub v: u8,
    /// By `INSTANCE/SID`.
    pub standing: BTreeMap<String, Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub level: Level,
    pub since: Timestamp,
    /// The newest point that opened then: a prediction holds until there is a newer one.
    pub about: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub instance: InstanceId,
    pub sid: Sid,
    /// `Kept`: the breach is over.
    pub level: Level,
    pub code: Option<Code>,
    pub text: String,
}

/// Of every database that its host's newest inventory knows. A host that EC2 no longer knows counts for nothing, unless it is
/// the source region that cannot be asked.
pub fn status(common: &Common, hosts: &[Host], points: &[Point], rpo_minutes: u32) -> Status {
    let mut of: BTreeMap<&InstanceId, Vec<&Point>> = BTreeMap::new();
    for point in points {
        of.entry(&point.instance).or_default().push(point);
    }
    let mut status = Status { databases: Vec::new(), fleet_age: None, unseen: Vec::new() };
    for host in hosts.iter().filter(|host| host.now.is_some() || common.unasked.contains(&Ask::SourceSnapshots)) {
        let Some(newest) = host.newest() else {
            status.unseen.push(host.instance.clone());
            continue;
        };
        let mut points = of.remove(&host.instance).unwrap_or_default();
        points.sort_by_key(|point| (point.taken, &point.set));
        for database in &newest.databases {
            status.databases.push(of_database(common.now, &host.instance, &database.sid, &points, rpo_minutes));
        }
    }
    let ages: Option<Vec<i64>> = status.databases.iter().map(|database| database.age).collect();
    status.fleet_age = ages.filter(|_| status.unseen.is_empty()).and_then(|ages| ages.into_iter().max());
    status
}

fn of_database(now: Timestamp, instance: &InstanceId, sid: &Sid, points: &[&Point], rpo_minutes: u32) -> DatabaseStatus {
    let of = |point: &'_ Point| -> Option<usize> { point.databases.iter().position(|database| database.sid == *sid) };
    let opens = |point: &&&Point| of(point).is_some_and(|index| point.databases[index].verdict.opens().is_some());
    let opening: Vec<&&Point> = points.iter().filter(opens).collect();
    let newest_that_opens = opening.last().map(|point| point.taken);
    let newest = points.last().map(|point| point.taken);
    let why = points.last().map_or_else(BTreeSet::new, |point| match of(point) {
        Some(index) => codes(&point.databases[index].verdict),
        None => BTreeSet::from([Code::POINT_NO_INVENTORY]),
    });
    let limit = i64::from(rpo_minutes) * 60;
    let age = newest_that_opens.map(|taken| now.since(taken));
    let next_expected = expected(now, sid, points, &opening);
    let level = match (newest_that_opens, next_expected) {
        (None, _) => Level::Breached,
        (Some(taken), _) if now.since(taken) > limit => Level::Breached,
        (Some(taken), Some(next)) if next > taken.plus(limit) => Level::Predicted,
        (Some(_), _) => Level::Kept,
    };
    DatabaseStatus {
        instance: instance.clone(),
        sid: sid.clone(),
        newest,
        newest_that_opens,
        why: why.into_iter().collect(),
        age,
        next_expected,
        level,
    }
}

fn codes(verdict: &Verdict) -> BTreeSet<Code> {
    match verdict {
        Verdict::Opens(_) => BTreeSet::new(),
        Verdict::DoesNotOpen { causes, .. } => causes.iter().map(Cause::code).collect(),
        Verdict::NotProven { unknowns } => unknowns.iter().map(Unknown::code).collect(),
    }
}

/// When the next point may be expected to open: by how long points took so far from their start until everything they open
/// with was there, counted from a set that may still open, else from the set that the cadence promises next.
fn expected(now: Timestamp, sid: &Sid, points: &[&Point], opening: &[&&Point]) -> Option<Timestamp> {
    let mut delays: Vec<i64> = opening.iter().rev().take(5).map(|point| ready(point, sid).since(point.taken).max(0)).collect();
    delays.sort_unstable();
    let delay = *delays.last()?;
    let newest_that_opens = opening.last()?.taken;
    let interval = cadence(points);
    let hopeful =
        points.iter().filter(|point| point.taken > newest_that_opens).filter(|point| point.database(sid).is_none_or(may_open));
    let waiting = hopeful.map(|point| point.taken.plus(delay)).filter(|at| *at >= now);
    let promised = interval.zip(points.last()).map(|(interval, last)| {
        // Sets that should have come and did not: the next one that may.
        let behind = now.since(last.taken).max(0).div_euclid(interval) + 1;
        last.taken.plus(behind * interval).plus(delay)
    });
    waiting.chain(promised).min()
}

/// Seconds between two sets, of the newest of one host in the order of time: the middle one, since a set that failed to come is
/// no cadence.
pub(crate) fn cadence(points: &[&Point]) -> Option<i64> {
    let recent: Vec<Timestamp> = points.iter().rev().take(6).map(|point| point.taken).collect();
    let mut intervals: Vec<i64> = recent.windows(2).map(|pair| pair[0].since(pair[1])).filter(|interval| *interval > 0).collect();
    intervals.sort_unstable();
    intervals.get(intervals.len() / 2).copied()
}

/// When everything was there that a point opens with.
fn ready(point: &Point, sid: &Sid) -> Timestamp {
    let copied = point.parts.iter().filter_map(|part| part.copy.as_ref()).filter_map(|copy| copy.completed).max();
    let looked = point.database(sid).and_then(|database| database.after);
    copied.max(looked).unwrap_or(point.taken)
}

/// Nothing is wrong with it but what time heals by itself.
fn may_open(database: &DatabasePoint) -> bool {
    let cause = |cause: &Cause| {
        matches!(
            cause,
            Cause::CopyPending { .. }
                | Cause::CopyMissing { .. }
                | Cause::BackupNotCopied { .. }
                | Cause::KeyInNoBackup { .. }
                | Cause::KeyRotatedUnseen { .. }
        )
    };
    let unknown = |unknown: &Unknown| matches!(unknown, Unknown::NoInventoryAfter | Unknown::NotAsked { .. });
    match &database.verdict {
        Verdict::Opens(_) => true,
        Verdict::DoesNotOpen { causes, unknowns } => causes.iter().all(cause) && unknowns.iter().all(unknown),
        Verdict::NotProven { unknowns } => unknowns.iter().all(unknown),
    }
}

/// The new state of the alarms and what is to be said: each breach once, each prediction once for the point it is about,
/// and the end of a breach once.
pub fn alarms(before: &AlarmState, status: &Status, rpo_minutes: u32, now: Timestamp) -> (AlarmState, Vec<Alarm>) {
    let mut after = AlarmState { v: 1, standing: BTreeMap::new() };
    let mut said = Vec::new();
    for database in &status.databases {
        let key = format!("{}/{}", database.instance, database.sid);
        let about = database.newest_that_opens;
        let standing = before.standing.get(&key);
        let mut say = |level: Level, code: Option<Code>, text: String| {
            said.push(Alarm { instance: database.instance.clone(), sid: database.sid.clone(), level, code, text });
        };
        let newest = || {
            about.map_or_else(|| String::from("no point opens"), |at| format!("the newest point that opens is of {}", moment(at)))
        };
        let was = standing.map(|standing| standing.level);
        match (was, database.level) {
            (Some(Level::Breached), Level::Breached) => {}
            (_, Level::Breached) => {
                say(Level::Breached, Some(Code::RPO_BREACH), format!("{key}: {}; the RPO is {rpo_minutes} min", newest()));
            }
            (Some(Level::Breached), _) => say(Level::Kept, None, format!("{key}: the breach is over: {}", newest())),
            _ => {}
        }
        // A prediction that stands for this very point is not made twice, whatever the level did in between.
        let known = standing.is_some_and(|standing| standing.level == Level::Predicted && standing.about == about);
        if database.level == Level::Predicted && !known {
            let next = database.next_expected.map_or_else(String::new, |at| format!("; the next may open at {}", moment(at)));
            let limit = about.map_or_else(String::new, |at| moment(at.plus(i64::from(rpo_minutes) * 60)));
            say(
                Level::Predicted,
                Some(Code::RPO_BREACH_AHEAD),
                format!("{key}: {}{next}; the RPO is broken at {limit}", newest()),
            );
        }
        let level = if known && database.level == Level::Kept { Level::Predicted } else { database.level };
        if level != Level::Kept {
            let since = standing.filter(|standing| standing.level == level).map_or(now, |standing| standing.since);
            after.standing.insert(key, Standing { level, since, about });
        }
    }
    (after, said)
}
