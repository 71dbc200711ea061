//! How old the newest point that opens is, and what is told of it: once for each breach, before it where it can be seen.

use crate::facts::{BackupState, HsmBackup, SnapshotState};
use crate::points::{Ask, Cause, Common, DatabasePoint, Host, MARGIN, Part, Point, Unknown, Verdict, moment};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::{Code, Digest, InstanceId, Retired, Sid, SnapshotId, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub databases: Vec<DatabaseStatus>,
    /// Instances of the fleet that no inventory was ever taken of: what databases they have is not known.
    pub unseen: Vec<InstanceId>,
    /// Instances of the fleet that were looked at, whether they have a database or none.
    #[serde(default)]
    pub seen: BTreeSet<InstanceId>,
    /// Of both, those that AWS has and that carry the fleet's tag no more: nothing of them is copied or looked at. `None`: AWS
    /// could not be asked.
    pub untagged: Option<BTreeSet<InstanceId>>,
    /// What counts no more.
    pub gone: BTreeSet<InstanceId>,
    pub retired: BTreeSet<Retired>,
}

impl Status {
    /// The oldest of the databases' newest points that open, each by its age. `None`: some database has none, or nobody knows which
    /// databases there are.
    pub fn fleet_age(&self, age: impl Fn(&DatabaseStatus) -> Option<i64>) -> Option<i64> {
        let ages: Option<Vec<i64>> = self.databases.iter().map(age).collect();
        ages.filter(|_| self.unseen.is_empty())?.into_iter().max()
    }

    /// Instances that carry the fleet's tag, as far as anybody knows. None at all is a tag that was mistyped rather than a fleet.
    pub fn instances(&self) -> usize {
        self.seen.len() + self.unseen.len() - self.untagged.as_ref().map_or(0, BTreeSet::len)
    }

    /// Why something of [`AlarmState`] counts no more. `None`: nobody said that it is no more.
    fn ended(&self, key: &str) -> Option<&'static str> {
        let (instance, sid) = key.split_once('/').map_or((key, None), |(instance, sid)| (instance, Some(sid)));
        let (instance, sid) = (InstanceId::new(instance).ok()?, sid.and_then(|sid| Sid::new(sid).ok()));
        if self.gone.contains(&instance) {
            return Some("the instance is terminated");
        }
        self.retired
            .iter()
            .any(|retired| retired.covers(&instance, sid.as_ref()))
            .then_some("the configuration says that it is retired")
    }
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
    /// The newest look at its host lists it.
    pub listed: bool,
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
    /// By `INSTANCE/SID`, and by `INSTANCE` where no look says what databases it has.
    pub standing: BTreeMap<String, Standing>,
    /// The newest point that was seen to open, by `INSTANCE/SID`.
    #[serde(default)]
    pub opened: BTreeMap<String, Timestamp>,
    /// What is no longer seen and nobody said is gone, since when: `INSTANCE` without the fleet's tag, `INSTANCE/SID` that the
    /// newest look at its host does not list.
    #[serde(default)]
    pub lost: BTreeMap<String, Timestamp>,
}

/// What a look could see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Whole,
    /// The DR region did not answer every question: a point that opened at the last whole look and is not proven now may only be
    /// out of sight. It counts, and grows older.
    Partly,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub level: Level,
    pub since: Timestamp,
    /// The newest point that opens: a prediction holds until there is a newer one.
    pub about: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Of what it says, not of the telling: who gets two messages with the same id got one twice.
    pub id: String,
    pub instance: InstanceId,
    /// `None`: of the whole host.
    pub sid: Option<Sid>,
    pub what: What,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Predicted,
    Breached,
    /// A breach ended.
    Over,
    /// What was predicted did not come.
    Averted,
    /// A host that no look was taken at: nothing of it is copied with its keys known, and no breach of it can be seen.
    Unseen,
    /// It was looked at.
    Seen,
    /// A host or database is no longer seen, and nobody said that it is gone. It counts as before.
    Lost,
    /// It is seen again.
    Found,
    /// It is gone for good: AWS or the configuration says so.
    Gone,
}

impl Alarm {
    /// An older message that never got out says what is no longer so.
    pub fn replaces(&self, old: &Alarm) -> bool {
        (&self.instance, &self.sid, self.what.about()) == (&old.instance, &old.sid, old.what.about())
    }
}

impl What {
    fn about(self) -> u8 {
        match self {
            What::Predicted | What::Breached | What::Over | What::Averted => 0,
            What::Unseen | What::Seen => 1,
            What::Lost | What::Found => 2,
            What::Gone => 3,
        }
    }

    /// `None`: good news.
    pub fn code(self) -> Option<Code> {
        match self {
            What::Predicted => Some(Code::RPO_BREACH_AHEAD),
            What::Breached => Some(Code::RPO_BREACH),
            What::Unseen | What::Lost => Some(Code::HOST_UNSURVEYED),
            What::Over | What::Averted | What::Seen | What::Found | What::Gone => None,
        }
    }
}

const DAY: i64 = 86_400;
/// How often somebody looks, in seconds: what is late by less is not known to be late.
const LOOK: i64 = 15 * 60;
/// A host that just came is surveyed within an hour; one that was not by then will not be, in seconds.
const NEW: i64 = 2 * 3600;

/// Of every database that an inventory of its host knows, until AWS says that the instance is terminated, or somebody that host or
/// database is retired. That the fleet's tag is lost, or that a look lists it no more, ends nothing: tags are taken away by mistake,
/// and a database that is down need not be in oratab.
pub fn status(common: &Common, hosts: &[Host], points: &[Point], rpo_minutes: u32) -> Status {
    let mut of: BTreeMap<&InstanceId, Vec<&Point>> = BTreeMap::new();
    for point in points {
        of.entry(&point.instance).or_default().push(point);
    }
    let mut status = Status {
        databases: Vec::new(),
        unseen: Vec::new(),
        seen: BTreeSet::new(),
        untagged: (!common.unasked.contains(&Ask::SourceInstances)).then(BTreeSet::new),
        gone: common.gone.clone(),
        retired: common.retired.clone(),
    };
    for host in hosts.iter().filter(|host| common.counts(&host.instance)) {
        if let Some(untagged) = status.untagged.as_mut().filter(|_| host.now.is_none()) {
            untagged.insert(host.instance.clone());
        }
        let Some(newest) = host.newest() else {
            status.unseen.push(host.instance.clone());
            continue;
        };
        status.seen.insert(host.instance.clone());
        let mut points = of.remove(&host.instance).unwrap_or_default();
        points.sort_by_key(|point| (point.taken, &point.set));
        let sids: BTreeSet<&Sid> =
            host.inventories.iter().flat_map(|look| &look.databases).map(|database| &database.sid).collect();
        for sid in sids.into_iter().filter(|sid| !common.retired(&host.instance, Some(sid))) {
            let listed = newest.databases.iter().any(|database| database.sid == *sid);
            let of_it = of_database(common, &host.instance, sid, &points, rpo_minutes);
            status.databases.push(DatabaseStatus { listed, ..of_it });
        }
    }
    status
}

fn of_database(common: &Common, instance: &InstanceId, sid: &Sid, points: &[&Point], rpo_minutes: u32) -> DatabaseStatus {
    let now = common.now;
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
    let next_expected = expected(common, sid, points, &opening);
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
        listed: true,
    }
}

fn codes(verdict: &Verdict) -> BTreeSet<Code> {
    match verdict {
        Verdict::Opens(_) => BTreeSet::new(),
        Verdict::DoesNotOpen { causes, .. } => causes.iter().map(Cause::code).collect(),
        Verdict::NotProven { unknowns } => unknowns.iter().map(Unknown::code).collect(),
    }
}

/// When the next point may be expected to open.
///
/// Points take as long as they usually took, from their start until everything they open with was there. One that takes
/// longer is expected to be late as long again, so that a quarter of an hour alarms nobody and a delay that grows is seen
/// hours before the RPO is broken. The oldest that may still open speaks for those after it: what holds it up holds them
/// up as well. Where none may open, the next set is waited for, and sets that did not open, or did not come, are late too.
fn expected(common: &Common, sid: &Sid, points: &[&Point], opening: &[&&Point]) -> Option<Timestamp> {
    let now = common.now;
    let delay = usual_delay(sid, opening)?;
    let newest_that_opens = opening.last()?.taken;
    let newer: Vec<&&Point> = points.iter().filter(|point| point.taken > newest_that_opens).collect();
    let hopeful = newer.iter().find(|point| point.database(sid).is_none_or(|database| may_open(common, point, database)));
    if let Some(point) = hopeful {
        let due = point.taken.plus(delay);
        let backup = point.database(sid).and_then(|database| next_backup(common, database));
        return Some(overdue(backup.map_or(due, |backup| backup.max(due)), now));
    }
    let (interval, last) = cadence(points).zip(points.last())?;
    // Sets that should have come and did not.
    let missed = now.since(last.taken).max(0).div_euclid(interval);
    let next = last.taken.plus((missed + 1) * interval);
    let set = if missed > 0 { next.min(overdue(last.taken.plus(interval), now)) } else { next };
    let held_up = newer.first().map(|point| overdue(point.taken.plus(delay), now));
    Some(held_up.map_or(set.plus(delay), |at| at.max(set.plus(delay))))
}

/// How long points take, of the newest few. One that came to open when a newer one did already was not waited for: after a week
/// without the KMS key seven points open at once, and only the newest says how long one takes.
fn usual_delay(sid: &Sid, opening: &[&&Point]) -> Option<i64> {
    let mut earliest = Timestamp(i64::MAX);
    let mut delays = Vec::new();
    for point in opening.iter().rev() {
        let ready = ready(point, sid);
        if ready < earliest {
            earliest = ready;
            delays.push(ready.since(point.taken).max(0));
        }
    }
    delays.truncate(7);
    delays.sort_unstable();
    delays.get(delays.len() / 2).copied()
}

/// When something is expected that is due at a time and may be late.
fn overdue(due: Timestamp, now: Timestamp) -> Timestamp {
    if due > now { due } else { now.plus(now.since(due).max(LOOK)) }
}

/// A new key is in no backup until the cluster's next one is made, a day after the last at the latest (`A§4.5`). `None`: the
/// point waits for none.
fn next_backup(common: &Common, database: &DatabasePoint) -> Option<Timestamp> {
    let of_cluster = || common.backups.iter().filter(|backup| common.of_cluster(backup));
    // When the next one is made follows from all that were; what is waited for, from those that can be restored or copied.
    let newest = of_cluster().filter_map(|backup| backup.created).max()?;
    let usable = |backup: &&HsmBackup| matches!(backup.state, BackupState::Ready | BackupState::CreateInProgress);
    let newest_usable = of_cluster().filter(usable).filter_map(|backup| backup.created).max();
    let (causes, unknowns) = match &database.verdict {
        Verdict::Opens(_) => return None,
        Verdict::DoesNotOpen { causes, unknowns } => (&causes[..], unknowns),
        Verdict::NotProven { unknowns } => (&[][..], unknowns),
    };
    let cause = |cause: &Cause| match cause {
        Cause::KeyInNoBackup { .. } => true,
        Cause::KeyRotatedUnseen { activated, .. } => newest_usable.is_none_or(|newest| newest < activated.plus(MARGIN)),
        _ => false,
    };
    let unknown = |unknown: &Unknown| matches!(unknown, Unknown::KeyInBackup { backup: Some(_), .. });
    (causes.iter().any(cause) || unknowns.iter().any(unknown)).then(|| newest.plus(DAY))
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
fn may_open(common: &Common, point: &Point, database: &DatabasePoint) -> bool {
    // What failed at its source, or is gone there, no copy will ever be made of.
    let can_be_copied = |part: &Part| match part.source_state {
        Some(state) => state != SnapshotState::Error && !part.source_archived,
        None => common.unasked.contains(&Ask::SourceSnapshots),
    };
    let of_source = |source: &SnapshotId| point.parts.iter().find(|part| part.source == *source);
    let of_copy = |copy: &SnapshotId| point.parts.iter().find(|part| part.copy.as_ref().is_some_and(|c| c.id == *copy));
    let cause = |cause: &Cause| match cause {
        Cause::CopyMissing { source } => of_source(source).is_none_or(can_be_copied),
        Cause::CopyFailed { copy } => of_copy(copy).is_none_or(can_be_copied),
        Cause::CopyPending { .. }
        | Cause::BackupNotCopied { .. }
        | Cause::KeyInNoBackup { .. }
        | Cause::KeyRotatedUnseen { .. } => true,
        _ => false,
    };
    let unknown =
        |unknown: &Unknown| matches!(unknown, Unknown::NoInventoryAfter | Unknown::NotAsked { .. } | Unknown::KeyInBackup { .. });
    match &database.verdict {
        Verdict::Opens(_) => true,
        Verdict::DoesNotOpen { causes, unknowns } => causes.iter().all(cause) && unknowns.iter().all(unknown),
        Verdict::NotProven { unknowns } => unknowns.iter().all(unknown),
    }
}

/// What a database is called in [`AlarmState`].
pub fn key(database: &DatabaseStatus) -> String {
    format!("{}/{}", database.instance, database.sid)
}

/// The new state of the alarms and what is to be said: each breach once and its end once; each time that a breach is seen coming
/// once, and once that it is out of sight. A prediction holds until a newer point opens or the breach is there, whatever the
/// next look thinks of it, so that nobody is told twice of the same.
pub fn alarms(before: &AlarmState, status: &Status, sight: Sight, rpo_minutes: u32, now: Timestamp) -> (AlarmState, Vec<Alarm>) {
    let limit = i64::from(rpo_minutes) * 60;
    let mut after = AlarmState { v: 1, ..AlarmState::default() };
    let mut said = Vec::new();
    for database in &status.databases {
        let key = key(database);
        let standing = before.standing.get(&key);
        let was = standing.map_or(Level::Kept, |standing| standing.level);
        let known = before.opened.get(&key).copied().filter(|_| sight == Sight::Partly);
        let (about, level) = match known.filter(|known| database.newest_that_opens.is_none_or(|seen| seen < *known)) {
            Some(known) if now.since(known) > limit => (Some(known), Level::Breached),
            Some(known) => (Some(known), was),
            None => (database.newest_that_opens, database.level),
        };
        after.opened.extend(about.map(|at| (key.clone(), at)));
        let newest = about
            .map_or_else(|| String::from("no point opens"), |at| format!("the newest point that opens is of {}", moment(at)));
        let holds = was == Level::Predicted && standing.is_some_and(|standing| standing.about == about);
        let level = if holds { level.max(Level::Predicted) } else { level };
        let since = standing.filter(|standing| standing.level == level).map_or(now, |standing| standing.since);
        let mut say = |alarm: What, about: Timestamp, text: String| {
            let id = alarm_id(&key, alarm, about);
            let code = alarm.code().map_or_else(String::new, |code| format!("{code}: "));
            let text = format!("{code}{key}: {text}\nalarm {id}");
            said.push(Alarm { id, instance: database.instance.clone(), sid: Some(database.sid.clone()), what: alarm, text });
        };
        let began = standing.map_or(now, |standing| standing.since);
        match (was, level) {
            (Level::Breached, Level::Kept | Level::Predicted) => say(What::Over, began, format!("the breach is over: {newest}")),
            (Level::Predicted, Level::Kept) => say(What::Averted, began, format!("the RPO is out of danger: {newest}")),
            _ => {}
        }
        match (was, level) {
            (Level::Kept | Level::Predicted, Level::Breached) => {
                say(What::Breached, since, format!("{newest}; the RPO is {rpo_minutes} min"));
            }
            (Level::Kept | Level::Breached, Level::Predicted) => {
                let next = database.next_expected.map_or_else(String::new, |at| format!("; the next may open at {}", moment(at)));
                let limit = about.map_or_else(String::new, |at| moment(at.plus(limit)));
                say(What::Predicted, since, format!("{newest}{next}; the RPO is broken at {limit}"));
            }
            _ => {}
        }
        if level != Level::Kept {
            after.standing.insert(key, Standing { level, since, about });
        }
    }
    hosts(before, status, now, &mut after, &mut said);
    lost(before, status, now, &mut after, &mut said);
    gone(before, status, now, &mut after, &mut said);
    (after, said)
}

/// What is no longer seen, once, and once that it is seen again.
fn lost(before: &AlarmState, status: &Status, now: Timestamp, after: &mut AlarmState, said: &mut Vec<Alarm>) {
    const UNTAGGED: &str = "it carries the fleet's tag no more, so nothing of it is copied or looked at. \
        It counts until it is terminated, or retired by configuration";
    const UNLISTED: &str = "the newest look at its host does not list it. \
        It counts until the instance is terminated, or it is retired by configuration";
    let mut say = |what: What, since: Timestamp, instance: &InstanceId, sid: Option<&Sid>, key: &str, text: &str| {
        let id = alarm_id(key, what, since);
        let code = what.code().map_or_else(String::new, |code| format!("{code}: "));
        let text = format!("{code}{key}: {text}\nalarm {id}");
        said.push(Alarm { id, instance: instance.clone(), sid: sid.cloned(), what, text });
    };
    let mut tell = |key: String, is_lost: Option<bool>, instance: &InstanceId, sid: Option<&Sid>, text: &str| {
        let since = before.lost.get(&key).copied();
        match (since, is_lost) {
            (None, Some(true)) => say(What::Lost, now, instance, sid, &key, text),
            (Some(since), Some(false)) => say(What::Found, since, instance, sid, &key, "it is seen again"),
            _ => {}
        }
        if is_lost.unwrap_or(since.is_some()) {
            after.lost.insert(key, since.unwrap_or(now));
        }
    };
    for instance in status.seen.iter().chain(&status.unseen) {
        let is_lost = status.untagged.as_ref().map(|untagged| untagged.contains(instance));
        tell(instance.to_string(), is_lost, instance, None, UNTAGGED);
    }
    for database in &status.databases {
        tell(key(database), Some(!database.listed), &database.instance, Some(&database.sid), UNLISTED);
    }
}

/// What stood of something that is not looked at any more. It ends where AWS or the configuration says so, and is told, once for
/// each host; else it stands on.
fn gone(before: &AlarmState, status: &Status, now: Timestamp, after: &mut AlarmState, said: &mut Vec<Alarm>) {
    let here: BTreeSet<String> =
        status.databases.iter().map(key).chain(status.seen.iter().chain(&status.unseen).map(ToString::to_string)).collect();
    let stood = before.standing.keys().chain(before.opened.keys()).chain(before.lost.keys());
    let mut ended: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for key in stood.filter(|key| !here.contains(*key)).collect::<BTreeSet<_>>() {
        match status.ended(key) {
            Some(why) => {
                let instance = key.split_once('/').map_or(key.as_str(), |(instance, _)| instance);
                ended.entry((instance, why)).or_default().insert(key);
            }
            None => {
                after.standing.extend(before.standing.get(key).map(|standing| (key.clone(), standing.clone())));
                after.opened.extend(before.opened.get(key).map(|at| (key.clone(), *at)));
                after.lost.extend(before.lost.get(key).map(|at| (key.clone(), *at)));
            }
        }
    }
    for ((instance, why), keys) in ended {
        let Ok(instance) = InstanceId::new(instance) else { continue };
        let names = keys.into_iter().collect::<Vec<_>>().join(", ");
        let id = alarm_id(&names, What::Gone, now);
        let text = format!("{names}: it counts no more: {why}\nalarm {id}");
        said.push(Alarm { id, instance, sid: None, what: What::Gone, text });
    }
}

/// Each host that stays without a look once, and once that it has one.
fn hosts(before: &AlarmState, status: &Status, now: Timestamp, after: &mut AlarmState, said: &mut Vec<Alarm>) {
    let mut say = |instance: &InstanceId, what: What, since: Timestamp, text: &str| {
        let id = alarm_id(instance.as_str(), what, since);
        let code = what.code().map_or_else(String::new, |code| format!("{code}: "));
        let text = format!("{code}{instance}: {text}\nalarm {id}");
        said.push(Alarm { id, instance: instance.clone(), sid: None, what, text });
    };
    for instance in &status.unseen {
        let standing = before.standing.get(instance.as_str());
        let since = standing.map_or(now, |standing| standing.since);
        let told = standing.is_some_and(|standing| standing.level == Level::Breached);
        let late = told || now.since(since) >= NEW;
        if late && !told {
            let text = "no inventory was ever taken; what databases it has is not known, and none of them counts in any RPO";
            say(instance, What::Unseen, since, text);
        }
        let level = if late { Level::Breached } else { Level::Predicted };
        after.standing.insert(instance.to_string(), Standing { level, since, about: None });
    }
    for instance in &status.seen {
        let told = before.standing.get(instance.as_str()).filter(|standing| standing.level == Level::Breached);
        if let Some(standing) = told {
            say(instance, What::Seen, standing.since, "it has an inventory now");
        }
    }
}

/// The same for the same thing, however often it is told: a run that ends between telling and writing down that it told is
/// followed by one that tells again.
fn alarm_id(key: &str, what: What, since: Timestamp) -> String {
    Digest::of_json(&(key, what, since)).to_string()[..12].to_owned()
}
