//! `dr drill`: restores a point where it can reach nothing, reads rows of it, and takes it all down again.

use super::{Look, Second, long, when};
use crate::args::{DatabaseName, DrDrill};
use crate::asking::random;
use crate::context::{Context, SystemClock};
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::out::Out;
use async_trait::async_trait;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tde2hsm_cloud::DrillAws;
use tde2hsm_dr::drill::{self, Action, NoPlan, Place, PlaceFacts, Plan, Request};
use tde2hsm_dr::points::{BackupChoice, DatabasePoint, Judge, Point, Verdict};
use tde2hsm_dr_driver::DocumentPin;
use tde2hsm_dr_driver::drill::{
    Consent, Drill, DrillCloud as _, Ending, Heard, Kept, Left, Outcome, Pace, Record, RecordError, Stop, Teardown, Watcher,
    describe, effect, hsm_addresses, instance_profiles, summary, violation,
};
use tde2hsm_driver::Clock as _;
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{BackupId, Code, DrillId, DrillRead, InstanceId, Sid, Timestamp};

/// TCP ports on which a CloudHSM answers (`A§4.6`).
const HSM_PORTS: [u16; 3] = [2223, 2224, 2225];

#[derive(Serialize)]
struct Answer<'a> {
    drill: &'a DrillId,
    instance: &'a InstanceId,
    database: &'a Sid,
    point: &'a str,
    taken: Timestamp,
    ending: Option<&'a Ending>,
    reading: Option<&'a DrillRead>,
    kept: bool,
    left: &'a [Left],
    torn_down: Option<Timestamp>,
}

pub async fn run(context: &Context, args: DrDrill) -> Result<Exit, Failure> {
    let second = Second::open(context, &args.fleet).await?;
    let source = context.aws(Some(&second.config.source_region)).await?;
    // Only the look at a drill's place asks which profiles production has, and a teardown never takes one.
    let profiles = match args.teardown {
        Some(_) => BTreeSet::new(),
        None => heard(context, instance_profiles(&second.cloud).await.map_err(record)?, "instance profiles of production"),
    };
    let room = DrillAws::new(&second.there, source, &second.config, profiles);
    let pace = Wall(&context.clock);
    let watcher = Terminal { out: context.out, yes: args.approval.yes };
    let mut kept = match (&args.resume, &args.teardown, &args.database) {
        (Some(id), ..) | (None, Some(id), _) => Kept::read(&second.cloud, id).await.map_err(record)?,
        (None, None, Some(database)) => {
            let kept = begin(context, &second, &room, &args, database).await?;
            context.out.show(&plan_text(&kept.record.plan));
            crate::drive::approve(context.out, args.approval.yes, "Carry this drill out?")?;
            kept
        }
        (None, None, None) => return Err(Failure::usage("name a database, or a drill to go on with or take down")),
    };
    if args.teardown.is_none() {
        kept.record.kept |= args.keep;
        kept.save(&second.cloud, &pace).await.map_err(record)?;
        context.out.say(&format!("drill {}", kept.record.id));
        let document = document(&second, &args.document).await?;
        let production = hsm_addresses(&second.cloud, &second.config, &kept.record.plan.instance).await.map_err(record)?;
        let production = heard(context, production, "addresses of production's HSMs");
        // Nothing there may answer a drill host.
        let unreachable: Vec<SocketAddr> =
            production.into_iter().flat_map(|ip| HSM_PORTS.map(|port| SocketAddr::new(ip, port))).collect();
        let drill = Drill {
            account: &second.config.account,
            source_region: &second.config.source_region,
            cloud: &second.cloud,
            room: &room,
            pace: &pace,
            watcher: &watcher,
            document: &document,
            unreachable: &unreachable,
        };
        let outcome = drill.run(&mut kept).await.map_err(|stop| stopped(stop, &kept.record.id))?;
        match outcome {
            Outcome::Read => context.out.say("rows were read"),
            Outcome::Failed { code, message } => context.out.warn(&format!("[{code}] {message}")),
            Outcome::Declined => context.out.warn("the drill was not allowed to go on"),
        }
    }
    if args.teardown.is_some() || !kept.record.kept {
        let teardown = Teardown { cloud: &second.cloud, room: &room, pace: &pace, watcher: &watcher };
        teardown.run(&mut kept).await.map_err(|stop| stopped(stop, &kept.record.id))?;
    }
    answer(context, &kept.record, args.teardown.is_some())
}

/// A plan for the named database, written nowhere yet.
async fn begin(
    context: &Context,
    second: &Second,
    room: &DrillAws,
    args: &DrDrill,
    name: &DatabaseName,
) -> Result<Kept, Failure> {
    let Some(drill) = &second.dr.drill else {
        return Err(Failure::new(Code::DRILL_PLACE_UNNAMED, format!("{}: there is no `[dr.drill]`", args.fleet.display())));
    };
    if let Some((id, _)) = Kept::open(&second.cloud).await.map_err(record)?.into_iter().next() {
        let failure = Failure::new(Code::DRILL_UNFINISHED, format!("drill `{id}` is not ended"));
        return Err(failure.hint(format!("`tde2hsm dr drill --resume {id}`, or `tde2hsm dr drill --teardown {id}`")));
    }
    let look = second.look(context.now()).await?;
    super::status::say_unasked(context.out, &look);
    let (point, database) = choose(&look, name, args.point.as_deref())?;
    // Only the newest that opens is taken unasked, but what nobody knows of a point its drill can find out.
    let judge = Judge::new(&look.world.common);
    let host = look.world.hosts.iter().find(|host| host.instance == point.instance);
    let mut attempt = host.and_then(|host| judge.attempt(host, point, &database.sid));
    let mut point = point.clone();
    if let Some(wanted) = &args.backup {
        let choice = backup_of(&look, wanted)?;
        for one in point.databases.iter_mut().filter(|one| one.sid == database.sid) {
            if let Verdict::Opens(opening) = &mut one.verdict {
                opening.backup = Some(choice.clone());
            }
        }
        if let Some(attempt) = &mut attempt {
            attempt.backup = Some(choice);
        }
    }
    let place = Place {
        subnet: drill.subnet.clone(),
        security_group: drill.security_group.clone(),
        instance_profile: drill.instance_profile.clone(),
        instance_type: drill.instance_type.clone(),
    };
    let facts: PlaceFacts = room.place(&place).await.map_err(|e| Failure::new(Code::DRILL_NOT_ISOLATED, e.to_string()))?;
    let id = format!("drill-{}", random());
    let request = Request {
        id: &id,
        region: &second.config.dr_region,
        fleet: &second.config.fleet,
        point: &point,
        sid: &database.sid,
        attempt: attempt.as_ref(),
        place: &place,
        facts: &facts,
    };
    let plan = drill::plan(&request).map_err(|e| no_plan(&e))?;
    let id = DrillId::new(id).map_err(|e| Failure::internal(e.to_string()))?;
    Ok(Kept::new(Record::begin(id, second.config.fleet.clone(), plan, second.config.cluster.clone(), context.now())))
}

/// The named point, else the newest that opens.
fn choose<'a>(look: &'a Look, name: &DatabaseName, wanted: Option<&str>) -> Result<(&'a Point, &'a DatabasePoint), Failure> {
    let (instance, points) = look.of(name)?;
    let place = format!("{instance}/{}", name.sid);
    match wanted {
        Some(id) => points
            .into_iter()
            .find(|(point, _)| point.set.0 == id)
            .ok_or_else(|| Failure::new(Code::POINT_UNKNOWN, format!("`{place}` has no point `{id}`"))),
        None => points
            .into_iter()
            .rev()
            .find(|(_, database)| database.verdict.opens().is_some())
            .ok_or_else(|| Failure::new(Code::DRILL_NO_POINT, format!("no point of `{place}` is known to open"))),
    }
}

/// An HSM backup in place of the point's own: to see what an older one would give.
fn backup_of(look: &Look, wanted: &BackupId) -> Result<BackupChoice, Failure> {
    let dr = &look.world.common.dr_region;
    let found = look.world.common.backups.iter().find(|backup| backup.id == *wanted && backup.region == *dr);
    let Some(found) = found else {
        return Err(Failure::new(Code::POINT_UNKNOWN, format!("there is no HSM backup `{wanted}` in {dr}")));
    };
    Ok(BackupChoice { id: found.id.clone(), source: found.source_backup.clone(), created: found.created.unwrap_or(Timestamp(0)) })
}

fn no_plan(error: &NoPlan) -> Failure {
    match error {
        NoPlan::Place(violations) => {
            let all: Vec<String> = violations.iter().map(violation).collect();
            Failure::new(Code::DRILL_NOT_ISOLATED, all.join("; "))
        }
        NoPlan::DoesNotOpen(verdict) => {
            let why = super::status::why(verdict).unwrap_or_default();
            Failure::new(Code::DRILL_NO_POINT, format!("{error}: {why}"))
        }
        other => Failure::new(Code::DRILL_NO_POINT, other.to_string()),
    }
}

async fn document(second: &Second, name: &str) -> Result<DocumentPin, Failure> {
    let found = second.there.ssm.document(name).await?;
    let region = &second.config.dr_region;
    let pin = found.ok_or_else(|| {
        let failure = Failure::new(Code::DOCUMENT_MISSING, format!("there is no SSM document `{name}` in {region}"));
        failure.hint(format!("run `tde2hsm setup --region {region}` with the same runner"))
    })?;
    Ok(DocumentPin { name: pin.name, version: pin.version, hash: pin.hash })
}

/// Takes what is known, and says what could not be heard.
fn heard<T>(context: &Context, heard: Heard<T>, of: &str) -> T {
    for why in &heard.unheard {
        context.out.warn(&format!("[{}] {of}: {}", Code::ASKED_IN_PART, printable(why, 300)));
    }
    heard.known
}

fn plan_text(plan: &Plan) -> String {
    let mut text = format!(
        "drill {} of {}/{} in {}: point {}, taken {}\n",
        plan.id,
        plan.instance,
        plan.sid,
        plan.region,
        plan.set.0,
        when(plan.taken)
    );
    for (number, action) in (1..).zip(plan.actions.iter().chain(&plan.teardown)) {
        let mark = if effect(action) { "*" } else { " " };
        text.push_str(&format!("{number:>3} {mark} {}\n", describe(action)));
    }
    text.push_str("    * changes something, and is asked for\n");
    if !plan.unknowns.is_empty() {
        text.push_str("The point is not proven, and this drill may fail for what is not known of it:\n");
        for unknown in &plan.unknowns {
            text.push_str(&format!("    [{}] {unknown}\n", unknown.code()));
        }
    }
    if !plan.software_keys.is_empty() {
        text.push_str("Rows under keys that only the software keystore has are read with its `ewallet.p12` back in place.\n");
    }
    text
}

fn answer(context: &Context, record: &Record, teardown: bool) -> Result<Exit, Failure> {
    let plan = &record.plan;
    let answer = Answer {
        drill: &record.id,
        instance: &plan.instance,
        database: &plan.sid,
        point: &plan.set.0,
        taken: plan.taken,
        ending: record.ending.as_ref(),
        reading: record.reading.as_ref(),
        kept: record.kept,
        left: &record.left,
        torn_down: record.torn_down,
    };
    context.out.answer("dr-drill", &answer, &text(record))?;
    let outcome = record.ending.as_ref().map(|ending| &ending.outcome);
    let failure = match outcome {
        Some(Outcome::Failed { code, message }) if !teardown => Some(Failure::new(*code, message.clone())),
        Some(Outcome::Declined) if !teardown => Some(Failure::new(Code::NOT_APPROVED, "the drill was not allowed to go on")),
        _ if record.torn_down.is_none() && !record.left.is_empty() => {
            Some(Failure::new(Code::DRILL_LEFT_OVER, summary(&record.left)))
        }
        _ => None,
    };
    match failure {
        // The answer is out already: the cause goes to stderr alone.
        Some(failure) => {
            context.out.complain(&failure);
            Ok(failure.exit)
        }
        None => Ok(Exit::Ok),
    }
}

fn text(record: &Record) -> String {
    let plan = &record.plan;
    let mut text =
        format!("drill {} of {}/{}, point {} of {}\n", record.id, plan.instance, plan.sid, plan.set.0, when(plan.taken));
    match &record.ending {
        Some(Ending { seconds, outcome: Outcome::Read, .. }) => {
            let read = record.reading.clone().unwrap_or_default();
            text.push_str(&format!(
                "read {} rows of {} encrypted tablespaces and {} columns from the restored cluster alone, in {}\n",
                read.rows,
                read.tablespaces,
                read.columns,
                long(*seconds)
            ));
            if !read.with_p12.is_empty() {
                text.push_str(&format!(
                    "{} rows more only with the software keystore: {}\n",
                    read.rows_with_p12,
                    read.with_p12.join(", ")
                ));
            }
        }
        Some(Ending { seconds, outcome: Outcome::Failed { code, message }, .. }) => {
            text.push_str(&format!("failed after {}: [{code}] {message}\n", long(*seconds)));
        }
        Some(Ending { outcome: Outcome::Declined, .. }) => text.push_str("not carried out\n"),
        None => text.push_str("not ended\n"),
    }
    match (record.torn_down, record.left.as_slice()) {
        (Some(at), left) => {
            text.push_str(&format!("everything of it was removed, {}\n", when(at)));
            for one in left {
                text.push_str(&format!("except {} {}, which costs {}: {}\n", one.what, one.id, one.cost, one.why));
            }
        }
        (None, []) => text.push_str(&format!("it is still there; `tde2hsm dr drill --teardown {}` removes it\n", record.id)),
        (None, left) => {
            for one in left {
                text.push_str(&format!("left: {} {}, costs {}: {}\n", one.what, one.id, one.cost, one.why));
            }
        }
    }
    text
}

pub(super) fn record(error: RecordError) -> Failure {
    let code = match &error {
        RecordError::Unknown(_) => Code::DRILL_UNKNOWN,
        RecordError::Taken(_) => Code::DRILL_UNFINISHED,
        RecordError::Unreadable { .. } | RecordError::Call(_) => Code::RECORDS_UNREADABLE,
    };
    Failure::new(code, chain(&error))
}

fn stopped(stop: Stop, id: &DrillId) -> Failure {
    match stop {
        Stop::Record(error) => record(error),
        Stop::Interrupted => crate::asking::interrupted()
            .hint(format!("`tde2hsm dr drill --resume {id}` goes on; `tde2hsm dr drill --teardown {id}` removes what was made")),
    }
}

struct Wall<'a>(&'a SystemClock);

#[async_trait]
impl Pace for Wall<'_> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
    async fn pause(&self, seconds: i64) {
        self.0.pause(seconds).await;
    }
    fn stopping(&self) -> bool {
        self.0.stopping()
    }
}

struct Terminal {
    out: Out,
    yes: bool,
}

#[async_trait]
impl Watcher for Terminal {
    async fn allows(&self, action: &Action) -> Consent {
        if self.yes {
            return Consent::Yes;
        }
        let (out, question) = (self.out, format!("{}? Type `yes`:", describe(action)));
        match tokio::task::spawn_blocking(move || out.ask(&question)).await.ok().flatten().as_deref() {
            Some("yes") => Consent::Yes,
            _ => Consent::No,
        }
    }

    fn says(&self, line: &str) {
        self.out.say(line);
    }
}
