//! How old the newest point of each database is that opens, and who is told.
//!
//! It runs in the DR region and goes on when the source region is gone: what could not be asked there makes points unproven
//! where it matters, and is said. Each breach is told once. What is to be told is written down first, with the state in which
//! it stands; then it is told; then that is written down. A run that ends in between leaves messages that are told again, and
//! of two runs at the same time one loses the write and tells nothing.

use crate::Unit;
use crate::store;
use crate::world::Asker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tde2hsm_dr::copying::{self, Load};
use tde2hsm_dr::points::{Judge, Point, Verdict};
use tde2hsm_dr::rpo::{self, Alarm, AlarmState, Level, Sight, What};
use tde2hsm_protocol::{Code, InstanceId, Severity, Timestamp};

/// A run that wrote down what it would tell and is not heard of again is taken for dead after this, in seconds: longer than a
/// function may live.
const DEAD: i64 = 1_200;

/// `alarms.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Alarms {
    #[serde(flatten)]
    state: AlarmState,
    #[serde(default)]
    untold: Vec<Alarm>,
    /// When somebody began to tell them.
    #[serde(default)]
    telling: Option<Timestamp>,
}

pub async fn run(asker: &mut Asker<'_>) {
    let Some(world) = asker.world().await else { return };
    let judge = Judge::new(&world.common);
    let points: Vec<Point> = world.hosts.iter().flat_map(|host| judge.host(host)).collect();
    let status = rpo::status(&world.common, &world.hosts, &points, asker.config.rpo_minutes);
    foresee(asker, &copying::loads(&world.common, &world.hosts, &points));
    let state = tell(asker, &status).await;
    measure(asker, &points, &status);
    // What could not be seen now counts as it was seen last, in metrics as in messages.
    if let Some(state) = state {
        measure_levels(asker, &status, &state);
    }
}

fn measure(asker: &mut Asker<'_>, points: &[Point], status: &rpo::Status) {
    let (mut open, mut shut, mut unproven) = (0u64, 0u64, 0u64);
    for database in points.iter().flat_map(|point| &point.databases) {
        match database.verdict {
            Verdict::Opens(_) => open += 1,
            Verdict::DoesNotOpen { .. } => shut += 1,
            Verdict::NotProven { .. } => unproven += 1,
        }
    }
    let out = &mut asker.outcome;
    for (name, what, n) in [
        ("PointsThatOpen", "points-that-open", open),
        ("PointsThatDoNotOpen", "points-that-do-not-open", shut),
        ("PointsNotProven", "points-not-proven", unproven),
    ] {
        out.metric(name, Unit::Count, n as f64, &[]);
        out.add(what, n);
    }
    out.metric("Unasked", Unit::Count, out.unasked.len() as f64, &[]);
    out.add("databases", status.databases.len() as u64);
    out.metric("InstancesSeen", Unit::Count, status.instances() as f64, &[]);
    let untagged = status.untagged.iter().flatten();
    let unwatched: BTreeSet<&InstanceId> = status.unseen.iter().chain(untagged.clone()).collect();
    out.metric("HostsUnseen", Unit::Count, unwatched.len() as f64, &[]);
    for instance in untagged {
        let text = format!("{instance}: it carries the fleet's tag no more; nothing of it is copied or looked at");
        out.say(Severity::Warning, Code::HOST_UNSURVEYED, text);
    }
    for instance in &status.unseen {
        let text = format!("{instance}: no inventory was ever taken; what databases it has is not known");
        out.say(Severity::Warning, Code::HOST_UNSURVEYED, text);
    }
}

fn measure_levels(asker: &mut Asker<'_>, status: &rpo::Status, state: &AlarmState) {
    let now = asker.now;
    let out = &mut asker.outcome;
    let at = |level: Level| {
        let of_databases = state.standing.iter().filter(|(name, _)| name.contains('/'));
        of_databases.filter(|(_, standing)| standing.level == level).count() as f64
    };
    out.metric("DatabasesBreached", Unit::Count, at(Level::Breached), &[]);
    out.metric("DatabasesPredicted", Unit::Count, at(Level::Predicted), &[]);
    // A database without any point has no age; DatabasesBreached counts it.
    let age = |name: &str| state.opened.get(name).map(|at| now.since(*at));
    for (name, at) in &state.opened {
        out.metric("RecoveryPointAge", Unit::Seconds, now.since(*at) as f64, &[("database", name)]);
    }
    if let Some(age) = status.fleet_age(|database| age(&rpo::key(database))) {
        out.metric("RecoveryPointAge", Unit::Seconds, age as f64, &[]);
    }
}

/// The RPO that can be kept as the fleet is, beside the one that is asked for.
fn foresee(asker: &mut Asker<'_>, loads: &[Load]) {
    let feasible = copying::feasible(loads, &asker.config.limits());
    if let Some(minutes) = feasible.rpo_minutes {
        asker.outcome.metric("FeasibleRecoveryPointAge", Unit::Seconds, minutes as f64 * 60.0, &[]);
    }
    if let Some(text) = feasible.finding() {
        asker.outcome.say(Severity::Warning, Code::RPO_NOT_FEASIBLE, text);
    }
}

/// Tells what is new, and gives the state that follows. `None`: the records do not answer.
async fn tell(asker: &mut Asker<'_>, status: &rpo::Status) -> Option<AlarmState> {
    let found = asker.object::<Alarms>(store::ALARMS).await?;
    let (mut alarms, etag) = match found {
        Some(read) => (read.value, Some(read.etag)),
        None => (Alarms::default(), None),
    };
    let (state, new) = rpo::alarms(&alarms.state, status, sight(asker), asker.config.rpo_minutes, asker.now);
    let others_tell = alarms.telling.is_some_and(|since| asker.now.since(since) < DEAD);
    if new.is_empty() && (alarms.untold.is_empty() || others_tell) {
        if state != alarms.state {
            alarms.state = state;
            let wrote = store::write(asker.cloud, store::ALARMS, &alarms, etag.as_deref()).await;
            asker.note_records(wrote);
        }
        return Some(alarms.state);
    }
    if others_tell {
        // What is new is still new at the next run.
        return Some(state);
    }
    // An older message of the same database that never got out says what is no longer so. Of this run a database may have
    // two: its breach is over, and the next is near.
    alarms.untold.retain(|old| !new.iter().any(|alarm| alarm.replaces(old)));
    alarms.untold.extend(new);
    alarms.state = state;
    alarms.telling = Some(asker.now);
    let Some(etag) = asker.write(store::ALARMS, &alarms, etag.as_deref()).await else { return Some(alarms.state) };
    let mut untold = Vec::new();
    for alarm in std::mem::take(&mut alarms.untold) {
        match asker.cloud.publish(&subject(&asker.config.fleet, &alarm), &alarm.text).await {
            Ok(()) => asker.outcome.add("alarms-told", 1),
            Err(error) => {
                asker.outcome.failed += 1;
                asker.outcome.say(Severity::Error, Code::ALARM_UNSENT, error.to_string());
                untold.push(alarm);
            }
        }
    }
    alarms.untold = untold;
    alarms.telling = None;
    let wrote = store::write(asker.cloud, store::ALARMS, &alarms, Some(&etag)).await;
    asker.note_records(wrote);
    Some(alarms.state)
}

/// The source region's silence hides no point that opens: everything that it opens with lies in the DR region.
fn sight(asker: &Asker<'_>) -> Sight {
    let blind = asker.outcome.unasked.iter().any(|one| one.region == asker.config.dr_region);
    if blind { Sight::Partly } else { Sight::Whole }
}

fn subject(fleet: &str, alarm: &Alarm) -> String {
    let what = match alarm.what {
        What::Predicted => "RPO will be breached",
        What::Breached => "RPO breached",
        What::Over => "RPO kept again",
        What::Averted => "RPO out of danger",
        What::Unseen => "host without an inventory",
        What::Seen => "host has an inventory",
        What::Lost => "no longer seen",
        What::Found => "seen again",
        What::Gone => "counts no more",
    };
    match &alarm.sid {
        Some(sid) => format!("tde2hsm {fleet}: {what}: {sid} on {}", alarm.instance),
        None => format!("tde2hsm {fleet}: {what}: {}", alarm.instance),
    }
}
