//! What surveys, points and people say of the old HSM's remaining users, as [`crate::retire`] wants it (H43).
//!
//! A control file forgets: of RMAN pieces and archived logs that are older than its record keep time it may know nothing, and a
//! tape keeps them all the same. A survey can therefore show that something is there; that nothing is there only a person who
//! keeps the catalog can say. Of dumps and unplugged databases a database knows nothing at all.

use crate::points::{Cause, Point, Unknown, Verdict};
use crate::retire::{Answer, DatabaseFacts, Declaration, DeclaredNeed, Estate, Need, PointNeed, Source, Thing};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::survey::{Access, Database, Facts, Flashback, Span, Survey, Vendor};
use tde2hsm_protocol::{MasterKeyId, Retention, Store, Timestamp};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

pub struct Known<'a> {
    pub surveys: &'a [Survey],
    pub declared: &'a [Declaration],
    /// `None`: the snapshots could not be asked for.
    pub points: Option<&'a [Point]>,
    pub policy: &'a Retention,
    pub undo_until: Option<Timestamp>,
    pub now: Timestamp,
}

pub fn estate(known: &Known<'_>) -> Estate {
    let mut databases = Vec::new();
    for survey in known.surveys {
        for database in &survey.databases {
            databases.push(facts(survey, database, known.declared));
        }
    }
    let points = known.points.map(|points| needs(points, &databases, known));
    Estate { databases, points, undo_until: known.undo_until }
}

fn facts(survey: &Survey, database: &Database, declared: &[Declaration]) -> DatabaseFacts {
    let migrated = database.facts.as_ref().and_then(|facts| migrated(survey, facts));
    let mut answers: BTreeMap<Thing, Vec<Answer>> = BTreeMap::new();
    if let (Some(facts), Some(migrated)) = (&database.facts, migrated) {
        for (thing, need) in seen(survey, facts, migrated) {
            answers.entry(thing).or_default().push(Answer { need, source: Source::Seen { at: survey.taken_at } });
        }
    }
    let of_it =
        declared.iter().filter(|one| one.instance == survey.instance && one.sid.as_ref().is_none_or(|sid| *sid == database.sid));
    for one in of_it {
        let what = if one.note.is_empty() { one.thing.words().to_owned() } else { one.note.clone() };
        let need = match one.needs {
            DeclaredNeed::None => Need::None,
            DeclaredNeed::Until(when) => Need::Until { when, what },
            DeclaredNeed::Open => Need::Open { what },
        };
        let known = answers.entry(one.thing).or_default();
        // Whoever says until when knows what was seen. Whoever says "none" while something is seen is contradicted by it.
        if need != Need::None && migrated.is_some_and(|migrated| one.at >= migrated) {
            known.retain(|answer| !matches!((&answer.need, &answer.source), (Need::Open { .. }, Source::Seen { .. })));
        }
        known.push(Answer { need, source: Source::Declared { who: one.who.clone(), at: one.at } });
    }
    DatabaseFacts { instance: survey.instance.clone(), sid: database.sid.clone(), migrated, answers }
}

/// When the last container got its first key in CloudHSM, on the host's clock. `None`: an active key lies elsewhere, or it
/// cannot be told.
fn migrated(survey: &Survey, facts: &Facts) -> Option<Timestamp> {
    if survey.provider.vendor != Some(Vendor::CloudHsm) {
        return None;
    }
    let keys = facts.keys.as_ref()?;
    let mut last = None;
    for container in &facts.containers {
        let Some(active) = &container.key else { continue };
        if active.store != Some(Store::Hsm) {
            return None;
        }
        let in_hsm = keys.iter().filter(|key| key.store == Some(Store::Hsm));
        let of_it = in_hsm.filter(|key| key.container.as_ref() == Some(&container.name) || key.key == active.id);
        let first = of_it.filter_map(|key| key.activated).min().or(active.activated)?;
        last = last.max(Some(first));
    }
    last
}

/// What a look after the migration shows. What it cannot show is left out.
fn seen(survey: &Survey, facts: &Facts, migrated: Timestamp) -> Vec<(Thing, Need)> {
    let mut found = Vec::new();
    if survey.taken_at < migrated {
        return found;
    }
    // Without this room nobody looked for what is kept, nor for the times of restore points.
    let looked = facts.kept.is_some();
    let kept = facts.kept.clone().unwrap_or_default();
    for (thing, span) in [(Thing::RmanPieces, &kept.backups), (Thing::ArchivedLogs, &kept.archived_logs)] {
        if let Some(need) = span.as_ref().and_then(|span| older(span, migrated)) {
            found.push((thing, need));
        }
    }
    let before: Vec<&str> = facts
        .restore_points
        .iter()
        // One whose time is not known may be older.
        .filter(|point| point.time.is_none_or(|time| time < migrated))
        .map(|point| point.name.as_str())
        .collect();
    if looked || !before.is_empty() {
        found.push((Thing::RestorePoints, open(before, "made before the keys moved")));
    }
    match kept.flashback {
        Some(Flashback::Off) => found.push((Thing::FlashbackLogs, Need::None)),
        Some(Flashback::Since(time)) if time >= migrated => found.push((Thing::FlashbackLogs, Need::None)),
        Some(Flashback::Since(_)) => {
            let what = "they reach back to before the keys moved".to_owned();
            found.push((Thing::FlashbackLogs, Need::Open { what }));
        }
        None => {}
    }
    let ours: BTreeSet<MasterKeyId> =
        facts.keys.iter().flatten().filter(|key| key.store == Some(Store::Hsm)).map(|key| key.key).collect();
    let stale: Vec<&str> = facts
        .tablespaces
        .iter()
        .filter(|tablespace| tablespace.access != Access::ReadWrite && !ours.contains(&tablespace.key))
        .map(|tablespace| tablespace.name.as_str())
        .collect();
    found.push((Thing::ReadOnlyTablespaces, open(stale, "under a key that is not in CloudHSM")));
    found
}

fn open(names: Vec<&str>, why: &str) -> Need {
    match names.is_empty() {
        true => Need::None,
        false => Need::Open { what: format!("{} {why}", names.join(", ")) },
    }
}

fn older(span: &Span, migrated: Timestamp) -> Option<Need> {
    let oldest = span.oldest.filter(|oldest| span.count > 0 && *oldest < migrated)?;
    Some(Need::Open { what: format!("{} are kept, the oldest of {}", span.count, crate::points::moment(oldest)) })
}

/// Sets that an old key is needed for, or may be.
fn needs(points: &[Point], databases: &[DatabaseFacts], known: &Known<'_>) -> Vec<PointNeed> {
    let mut found = Vec::new();
    for point in points.iter().filter(|point| wants_old_hsm(point, databases)) {
        let ours = point.parts.iter().any(|part| part.copy.is_some());
        let theirs = point.parts.iter().any(|part| part.source_state.is_some());
        // What somebody else's tool made goes when that tool lets it go.
        let until = (ours && !theirs && !point.held).then(|| horizon(known.policy).map(|longest| point.taken.plus(longest)));
        // Days and weeks of retention are those that have a set: where none came, older ones stay, and so they do where expiry
        // deletes nothing. One that outlived its date has none.
        let until = until.flatten().filter(|until| *until > known.now);
        found.push(PointNeed { instance: point.instance.clone(), set: point.set.clone(), until });
    }
    found
}

/// A set from before its host's last key had moved does. One of a database that no survey shows does unless it is proven to open
/// without the old HSM, and so does any whose verdict says so or cannot tell where a key lies: a read-only tablespace may have
/// left its old key only after the set.
fn wants_old_hsm(point: &Point, databases: &[DatabaseFacts]) -> bool {
    let of_host = || databases.iter().filter(|database| database.instance == point.instance);
    let before = of_host().any(|d| d.migrated.is_none_or(|m| point.taken < m.plus(crate::points::MARGIN)));
    let judged = point.databases.iter().any(|database| {
        let shown = of_host().any(|surveyed| surveyed.sid == database.sid);
        let may_lie_there = |unknown: &Unknown| matches!(unknown, Unknown::KeyPlace { .. } | Unknown::KeyPerhapsNeeded { .. });
        match &database.verdict {
            Verdict::Opens(_) => false,
            Verdict::DoesNotOpen { causes, unknowns } => {
                !shown
                    || causes.iter().any(|cause| matches!(cause, Cause::KeyInOldHsm { .. }))
                    || unknowns.iter().any(may_lie_there)
            }
            Verdict::NotProven { unknowns } => !shown || unknowns.iter().any(may_lie_there),
        }
    });
    before || judged || (point.databases.is_empty() && of_host().next().is_none())
}

/// The longest that retention keeps a set, in seconds. `None`: a number of newest ones is kept, whatever their age.
fn horizon(policy: &Retention) -> Option<i64> {
    if policy.count > 0 {
        return None;
    }
    let kept = [
        i64::from(policy.hourly) * HOUR,
        i64::from(policy.daily) * DAY,
        i64::from(policy.weekly) * 7 * DAY,
        i64::from(policy.monthly) * 31 * DAY,
        i64::from(policy.days) * DAY,
    ];
    kept.into_iter().max()
}
