//! `dr status`: for each database the newest point, the newest that opens, its age against the RPO, and why newer ones do
//! not open.

use super::{Look, Second, long, when};
use crate::args::{DatabaseName, DrStatus};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use tde2hsm_dr::copying::{self, Feasible};
use tde2hsm_dr::facts::BackupState;
use tde2hsm_dr::points::{DatabasePoint, Point, Verdict};
use tde2hsm_dr::rpo::{self, DatabaseStatus, Level};
use tde2hsm_dr_driver::Unasked;
use tde2hsm_dr_driver::drill::Kept;
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{BackupId, Code, DrillId, InstanceId, Sid, Timestamp};

/// One cause or unknown.
#[derive(Serialize)]
pub(super) struct Why {
    code: Code,
    message: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    at: Timestamp,
    rpo_minutes: u32,
    /// The RPO that can be kept as the fleet is.
    feasible: &'a Feasible,
    /// What is wrong with more than one database.
    findings: &'a [Why],
    level: Level,
    /// Age of the oldest of the databases' newest points that open, in seconds; `null`: some database has none.
    fleet_age: Option<i64>,
    databases: Vec<Row<'a>>,
    /// Instances that no inventory was ever taken of.
    unseen: &'a [InstanceId],
    /// Instances without the fleet's tag: nothing of them is copied or looked at. `null`: AWS could not be asked.
    untagged: Option<&'a BTreeSet<InstanceId>>,
    /// READY in the DR region, newest first.
    hsm_backups: &'a [BackupRow],
    unasked: &'a [Unasked],
    /// `null`: the records did not say.
    open_drills: Option<&'a [DrillId]>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    status: &'a DatabaseStatus,
    /// Of the newest point, where it does not open or is not proven.
    verdict: &'static str,
    causes: Vec<Why>,
    unknowns: Vec<Why>,
}

#[derive(Serialize)]
struct BackupRow {
    id: BackupId,
    source: Option<BackupId>,
    created: Option<Timestamp>,
}

#[derive(Serialize)]
struct Points<'a> {
    at: Timestamp,
    instance: &'a InstanceId,
    database: &'a Sid,
    points: Vec<PointRow<'a>>,
    unasked: &'a [Unasked],
}

#[derive(Serialize)]
struct PointRow<'a> {
    point: &'a str,
    taken: Timestamp,
    held: bool,
    verdict: &'static str,
    causes: Vec<Why>,
    unknowns: Vec<Why>,
    opens_with: Option<&'a tde2hsm_dr::points::Opening>,
}

pub async fn run(context: &Context, args: DrStatus) -> Result<Exit, Failure> {
    let second = Second::open(context, &args.fleet).await?;
    let look = second.look(context.now()).await?;
    if let Some(name) = &args.points {
        return points(context, &look, name);
    }
    let drills = Kept::open(&second.cloud).await.map_err(super::drill::record);
    let drills: Result<Vec<DrillId>, Failure> = drills.map(|open| open.into_iter().map(|(id, _)| id).collect());
    let status = look.status(second.config.rpo_minutes);
    let rows: Vec<Row<'_>> = status
        .databases
        .iter()
        .map(|status| {
            let newest = look.newest(&status.instance, &status.sid).map(|(_, database)| &database.verdict);
            let (causes, unknowns) = newest.map(whys).unwrap_or_default();
            Row { status, verdict: newest.map_or("no point", word), causes, unknowns }
        })
        .collect();
    let backups = look.backups();
    let loads = copying::loads(&look.world.common, &look.world.hosts, &look.points);
    let feasible = copying::feasible(&loads, &second.config.limits());
    let findings = findings(&feasible, &drills);
    let human = table(context, &second, &Seen { status: &status, rows: &rows, look: &look, backups: &backups, drills: &drills })
        + &outlook(&feasible, &findings);
    let answer = Answer {
        at: context.now(),
        rpo_minutes: second.config.rpo_minutes,
        feasible: &feasible,
        findings: &findings,
        level: level(&status),
        fleet_age: fleet_age(&status),
        databases: rows,
        unseen: &status.unseen,
        untagged: status.untagged.as_ref(),
        hsm_backups: &backups,
        unasked: &look.unasked,
        open_drills: drills.as_deref().ok(),
    };
    context.out.answer("dr-status", &answer, &human)?;
    let Some(failure) = broken(&status) else { return Ok(Exit::Ok) };
    context.out.complain(&failure);
    Ok(failure.exit)
}

/// What is not known is not kept: a host without an inventory has databases that nobody counts, and a fleet without any is one
/// whose tag was mistyped.
fn unkept(status: &rpo::Status) -> Vec<String> {
    let broken = status.databases.iter().filter(|row| row.level == Level::Breached);
    let mut names: Vec<String> = broken.map(rpo::key).collect();
    names.extend(status.unseen.iter().map(|instance| format!("{instance} (no inventory was ever taken)")));
    if names.is_empty() && status.databases.is_empty() {
        names.push("no database is known".to_owned());
    }
    names
}

fn broken(status: &rpo::Status) -> Option<Failure> {
    let names = unkept(status);
    (!names.is_empty()).then(|| Failure::new(Code::RPO_BROKEN, names.join(", ")))
}

/// Says the same as the exit.
fn level(status: &rpo::Status) -> Level {
    if !unkept(status).is_empty() {
        return Level::Breached;
    }
    status.databases.iter().map(|row| row.level).max().unwrap_or(Level::Breached)
}

impl Look {
    fn status(&self, rpo_minutes: u32) -> rpo::Status {
        rpo::status(&self.world.common, &self.world.hosts, &self.points, rpo_minutes)
    }

    /// READY in the DR region, newest first.
    fn backups(&self) -> Vec<BackupRow> {
        let there = self.world.common.backups.iter();
        let mut ready: Vec<BackupRow> = there
            .filter(|backup| backup.region == self.world.common.dr_region && backup.state == BackupState::Ready)
            .map(|backup| BackupRow { id: backup.id.clone(), source: backup.source_backup.clone(), created: backup.created })
            .collect();
        ready.sort_by_key(|backup| std::cmp::Reverse(backup.created));
        ready
    }

    fn newest(&self, instance: &InstanceId, sid: &Sid) -> Option<(&Point, &DatabasePoint)> {
        let of = self.points.iter().filter(|point| point.instance == *instance);
        of.filter_map(|point| Some((point, point.database(sid)?))).max_by_key(|(point, _)| point.taken)
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Opens(_) => "opens",
        Verdict::DoesNotOpen { .. } => "does not open",
        Verdict::NotProven { .. } => "not proven",
    }
}

fn whys(verdict: &Verdict) -> (Vec<Why>, Vec<Why>) {
    let (causes, unknowns) = match verdict {
        Verdict::Opens(_) => return Default::default(),
        Verdict::DoesNotOpen { causes, unknowns } => (causes.as_slice(), unknowns.as_slice()),
        Verdict::NotProven { unknowns } => (&[][..], unknowns.as_slice()),
    };
    (
        causes.iter().map(|cause| Why { code: cause.code(), message: cause.to_string() }).collect(),
        unknowns.iter().map(|unknown| Why { code: unknown.code(), message: unknown.to_string() }).collect(),
    )
}

/// The first cause, else the first unknown, and how many more there are.
pub(super) fn why(verdict: &Verdict) -> Option<String> {
    let (causes, unknowns) = whys(verdict);
    let more = (causes.len() + unknowns.len()).saturating_sub(1);
    let first = causes.into_iter().chain(unknowns).next()?;
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    Some(format!("[{}] {}{more}", first.code, first.message))
}

pub(super) fn say_unasked(out: Out, look: &Look) {
    for one in &look.unasked {
        out.warn(&format!("[{}] `{}` in {} did not answer: {}", Code::ASKED_IN_PART, one.call, one.region, one.why));
    }
}

/// What is wrong with more than one database: each with its code.
fn findings(feasible: &Feasible, drills: &Result<Vec<DrillId>, Failure>) -> Vec<Why> {
    let missed = feasible.finding().map(|message| Why { code: Code::RPO_NOT_FEASIBLE, message });
    let unread = drills.as_ref().err().map(|failure| Why {
        code: Code::RECORDS_UNREADABLE,
        message: format!("whether a drill is open is not known: {}", failure.message),
    });
    missed.into_iter().chain(unread).collect()
}

fn outlook(feasible: &Feasible, findings: &[Why]) -> String {
    let mut text = String::new();
    if !feasible.missed() {
        let _ = writeln!(text, "RPO that can be kept: {}", feasible.text);
    }
    for one in findings {
        let _ = writeln!(text, "[{}] {}", one.code, printable(&one.message, 600));
    }
    text
}

fn fleet_age(status: &rpo::Status) -> Option<i64> {
    status.fleet_age(|database| database.age)
}

struct Seen<'a> {
    status: &'a rpo::Status,
    rows: &'a [Row<'a>],
    look: &'a Look,
    backups: &'a [BackupRow],
    drills: &'a Result<Vec<DrillId>, Failure>,
}

fn table(context: &Context, second: &Second, seen: &Seen<'_>) -> String {
    let Seen { status, rows, look, backups, drills } = *seen;
    let now = context.now();
    let mut text = String::new();
    let _ = writeln!(text, "{:<32} {:<21} {:<21} age", "database", "newest point", "newest that opens");
    for row in rows {
        let of = |at: Option<Timestamp>| at.map_or_else(|| "none".to_owned(), when);
        let age = row.status.age.map_or_else(|| "-".to_owned(), long);
        let level = match row.status.level {
            Level::Kept => "kept",
            Level::Predicted => "will be broken",
            Level::Breached => "BROKEN",
        };
        let name = format!("{}/{}", row.status.instance, row.status.sid);
        let _ =
            writeln!(text, "{name:<32} {:<21} {:<21} {age:<12} {level}", of(row.status.newest), of(row.status.newest_that_opens));
        if !row.causes.is_empty() || !row.unknowns.is_empty() {
            let _ = writeln!(text, "    newest {}:", row.verdict);
        }
        for why in row.causes.iter().chain(&row.unknowns) {
            let _ = writeln!(text, "      [{}] {}", why.code, printable(&why.message, 400));
        }
    }
    let fleet = match fleet_age(status) {
        Some(age) => format!("the oldest newest point that opens is {} old", long(age)),
        None if rows.is_empty() => "no database is known: no inventory and no set of snapshots".to_owned(),
        None => "a database has no point that opens".to_owned(),
    };
    let _ = writeln!(
        text,
        "\nfleet `{}` at {}: {fleet}; RPO {}",
        second.config.fleet,
        when(now),
        long(i64::from(second.config.rpo_minutes) * 60)
    );
    let newest = backups.first().map_or_else(
        || "no HSM backup".to_owned(),
        |one| format!("{} HSM backups, the newest {} of {}", backups.len(), one.id, one.created.map_or_else(String::new, when)),
    );
    let _ = writeln!(text, "in {}: {newest}", second.config.dr_region);
    for instance in &status.unseen {
        let _ = writeln!(text, "no inventory of {instance}: what databases it has is not known; `tde2hsm dr copy` surveys it");
    }
    for instance in status.untagged.iter().flatten() {
        let _ = writeln!(
            text,
            "{instance} carries the fleet's tag no more: nothing of it is copied or looked at, and it counts all the same"
        );
    }
    for row in rows.iter().filter(|row| !row.status.listed) {
        let _ = writeln!(text, "{} is not in the newest look at its host, and counts all the same", rpo::key(row.status));
    }
    for one in &look.unasked {
        let why = printable(&one.why, 200);
        let _ = writeln!(text, "[{}] not asked: `{}` in {}: {why}", Code::ASKED_IN_PART, one.call, one.region);
    }
    for drill in drills.iter().flatten() {
        let _ = writeln!(text, "drill {drill} is not ended: `tde2hsm dr drill --resume {drill}` or `--teardown {drill}`");
    }
    text
}

fn points(context: &Context, look: &Look, name: &DatabaseName) -> Result<Exit, Failure> {
    let (instance, found) = look.of(name)?;
    let mut text = format!("{instance}/{}\n", name.sid);
    let mut rows = Vec::new();
    for (point, database) in found.into_iter().rev() {
        let (causes, unknowns) = whys(&database.verdict);
        let held = if point.held { ", held" } else { "" };
        let _ = writeln!(text, "{:<24} {:<21} {}{held}", point.set.0, when(point.taken), word(&database.verdict));
        for why in causes.iter().chain(&unknowns) {
            let _ = writeln!(text, "    [{}] {}", why.code, printable(&why.message, 400));
        }
        let opens_with = database.verdict.opens();
        if let Some(opening) = opens_with {
            let backup = opening.backup.as_ref().map_or_else(
                || "no HSM backup".to_owned(),
                |backup| format!("HSM backup {} of {}", backup.id, when(backup.created)),
            );
            let secrets: Vec<String> = opening.secrets.iter().map(|(_, secret)| secret.version.to_string()).collect();
            let _ = writeln!(
                text,
                "    {} copies, {backup}, {} keys in the HSM, {} in the keystore, secret versions {}",
                opening.snapshots.len(),
                opening.hsm_keys.len(),
                opening.software_keys.len(),
                if secrets.is_empty() { "none".to_owned() } else { secrets.join(" ") }
            );
        }
        rows.push(PointRow {
            point: &point.set.0,
            taken: point.taken,
            held: point.held,
            verdict: word(&database.verdict),
            causes,
            unknowns,
            opens_with,
        });
    }
    if rows.is_empty() {
        text.push_str("no point\n");
    }
    say_unasked(context.out, look);
    let answer = Points { at: context.now(), instance: &instance, database: &name.sid, points: rows, unasked: &look.unasked };
    context.out.answer("dr-points", &answer, &text)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_dr::copying::{Limits, Load, Timed, VolumeLoad};

    /// Sets every six hours, whose copies take an hour.
    fn feasible(rpo_minutes: u32) -> Feasible {
        let load = Load {
            instance: InstanceId::new("i-0123456789abcdef0").expect("an instance"),
            interval: Some(6 * 3_600),
            snapshots: None,
            survey: None,
            volumes: vec![VolumeLoad { size_gib: 100, took: Some(3_600) }],
        };
        copying::feasible(&[load], &Limits { in_flight: 20, rpo_minutes, timed: Timed::Never })
    }

    #[test]
    fn the_rpo_that_can_be_kept_is_said_and_a_finding_where_it_is_not_what_was_asked_for() {
        let none = Ok(Vec::new());
        let kept = feasible(480);
        assert!(findings(&kept, &none).is_empty());
        let text = outlook(&kept, &[]);
        assert!(text.starts_with("RPO that can be kept: at most 420 min") && text.contains("how often sets are taken"), "{text}");
        let missed = feasible(240);
        let found = findings(&missed, &none);
        let text = outlook(&missed, &found);
        assert!(text.starts_with("[TDE0859] an RPO of 240 min cannot be kept: at most 420 min"), "{text}");
        assert!(text.contains("with timed copies at most 375 min"), "{text}");
    }

    /// "No open drills" is said by the records, and by nobody else.
    #[test]
    fn drills_that_could_not_be_listed_are_not_none() {
        let unread = Err(Failure::new(Code::RECORDS_UNREADABLE, "the records bucket does not answer"));
        let found = findings(&feasible(480), &unread);
        let [one] = found.as_slice() else { panic!("one finding") };
        assert_eq!(one.code, Code::RECORDS_UNREADABLE);
        assert!(one.message.contains("whether a drill is open is not known"), "{}", one.message);
    }

    #[test]
    fn a_host_or_a_fleet_of_which_nothing_is_known_is_not_kept() {
        let instance: InstanceId = "i-0123456789abcdef0".parse().expect("an id");
        let kept = DatabaseStatus {
            instance: instance.clone(),
            sid: "ORCL".parse().expect("a SID"),
            newest: Some(Timestamp(1)),
            newest_that_opens: Some(Timestamp(1)),
            why: vec![],
            age: Some(1),
            next_expected: None,
            level: Level::Kept,
            listed: true,
        };
        let fleet = |databases: Vec<DatabaseStatus>, seen: BTreeSet<InstanceId>| rpo::Status {
            databases,
            unseen: vec![],
            seen,
            untagged: None,
            gone: BTreeSet::new(),
            retired: BTreeSet::new(),
        };
        let mut status = fleet(vec![kept], BTreeSet::from([instance]));
        assert!(broken(&status).is_none());
        assert_eq!(level(&status), Level::Kept);
        status.unseen.push("i-0123456789abcdef1".parse().expect("an id"));
        let failure = broken(&status).expect("a host that nobody looked at");
        assert_eq!(failure.exit, Exit::NotRecoverable);
        assert_eq!(level(&status), Level::Breached, "the answer and the exit say the same");
        assert!(failure.message.contains("i-0123456789abcdef1"), "{}", failure.message);
        let nothing = fleet(vec![], BTreeSet::new());
        assert_eq!(broken(&nothing).map(|failure| failure.exit), Some(Exit::NotRecoverable));
        status.unseen.clear();
        status.databases[0].level = Level::Breached;
        assert!(broken(&status).is_some());
    }
}
