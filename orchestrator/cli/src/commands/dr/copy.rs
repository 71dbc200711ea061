//! `dr copy`: the copy jobs, run here until nothing is left to do. They are the ones that the functions run on their schedule.

use super::{Look, Second, long};
use crate::args::DrCopy;
use crate::asking::interrupted;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use serde::Serialize;
use std::collections::BTreeSet;
use tde2hsm_dr::copying::{self, CopyStatus, Wanted};
use tde2hsm_dr::facts::BackupState;
use tde2hsm_dr_driver::survey::{HostSurvey, SURVEYS_AWAITED};
use tde2hsm_dr_driver::{Hint, Job, Outcome, store};
use tde2hsm_driver::Clock as _;
use tde2hsm_protocol::{Code, Severity, Timestamp};

const JOBS: [Job; 3] = [Job::CopySnapshots, Job::CopyHsmBackups, Job::SettleCopies];
/// Seconds between two turns, the first ones short.
const PAUSES: [i64; 6] = [1, 1, 2, 5, 10, 30];
/// Turns without any change while nothing is in flight: what is left then waits for something else than time.
const STILL: usize = 4;

/// Where the copies stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Stand {
    snapshots_wanted: usize,
    snapshots_copied: usize,
    snapshots_in_flight: usize,
    snapshots_failed: usize,
    gib_left: u64,
    hsm_backups_to_copy: usize,
    hsm_backups_in_flight: usize,
    surveys_open: usize,
    /// Hosts whose newest set is too young for the look that it needs.
    surveys_awaited: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    at: Timestamp,
    turns: usize,
    #[serde(flatten)]
    stand: Stand,
    /// Errors and warnings of the jobs, each once.
    messages: &'a [tde2hsm_dr_driver::Message],
}

pub async fn run(context: &Context, args: DrCopy) -> Result<Exit, Failure> {
    let second = Second::open(context, &args.fleet).await?.with_document(context).await;
    let began = context.now();
    let mut said: BTreeSet<String> = BTreeSet::new();
    let mut messages = Vec::new();
    let mut first: Option<Stand> = None;
    let mut last = Stand::default();
    let (mut turns, mut still) = (0, 0);
    loop {
        let mut awaited = 0;
        for job in JOBS {
            if context.clock.stopping() {
                return Err(interrupted().hint("`tde2hsm dr copy` goes on; copies in flight go on by themselves"));
            }
            let outcome = tde2hsm_dr_driver::run(job, context.now(), &second.config, &second.cloud, &Hint::Tick).await;
            awaited += usize::try_from(outcome.count(SURVEYS_AWAITED)).unwrap_or(usize::MAX);
            tell(context, &outcome, &mut said, &mut messages);
        }
        turns += 1;
        let look = second.look(context.now()).await?;
        let stand = Stand { surveys_awaited: awaited, ..stand(&second, &look).await? };
        still = if stand == last { still + 1 } else { 0 };
        let start = *first.get_or_insert(stand);
        if stand != last || turns == 1 {
            context.out.say(&progress(&stand, &start, context.now().since(began)));
        }
        last = stand;
        let moving = stand.snapshots_in_flight + stand.hsm_backups_in_flight + stand.surveys_open + awaited > 0;
        let left = stand.gib_left > 0 || stand.hsm_backups_to_copy > 0;
        if args.once || !(moving || left) || (!moving && still >= STILL) {
            break;
        }
        context.clock.pause(PAUSES[(turns - 1).min(PAUSES.len() - 1)]).await;
    }
    let answer = Answer { at: context.now(), turns, stand: last, messages: &messages };
    let human = format!("{}\n", progress(&last, &last, context.now().since(began)));
    context.out.answer("dr-copy", &answer, &human)?;
    let wrong = messages.iter().find(|message| message.severity == Severity::Error);
    if last.snapshots_failed > 0 || wrong.is_some() {
        let why = wrong.map_or_else(|| format!("{} copies failed", last.snapshots_failed), |one| one.text.clone());
        let failure = Failure::new(Code::COPIES_FAILED, why);
        context.out.complain(&failure);
        return Ok(failure.exit);
    }
    Ok(Exit::Ok)
}

/// Says each message of the jobs once: they say the same in every turn while it is so.
fn tell(context: &Context, outcome: &Outcome, said: &mut BTreeSet<String>, messages: &mut Vec<tde2hsm_dr_driver::Message>) {
    for message in outcome.messages.iter().filter(|message| message.severity != Severity::Note) {
        let line = format!("[{}] {}", message.code, message.text);
        if said.insert(line.clone()) {
            context.out.warn(&line);
            messages.push(message.clone());
        }
    }
    for one in &outcome.unasked {
        let line = format!("[{}] `{}` in {} did not answer: {}", Code::ASKED_IN_PART, one.call, one.region, one.why);
        if said.insert(line.clone()) {
            context.out.warn(&line);
        }
    }
}

async fn stand(second: &Second, look: &Look) -> Result<Stand, Failure> {
    let hosts = &look.world.hosts;
    let wanted: Vec<Wanted> =
        hosts.iter().flat_map(|host| copying::wanted(host, &look.points, &second.config.retention)).collect();
    let count = |status: CopyStatus| wanted.iter().filter(|one| one.copy == status).count();
    let open = wanted.iter().filter(|one| one.copy != CopyStatus::Completed && !one.archived);
    let hsm = copying::plan_hsm(&look.world.common, hosts);
    let coming = look
        .world
        .common
        .backups
        .iter()
        .filter(|backup| backup.region == second.config.dr_region && backup.state == BackupState::CreateInProgress);
    let surveys = store::read_all::<HostSurvey>(&second.cloud, store::SURVEYS).await;
    let (surveys, _) = surveys.map_err(|error| Failure::new(Code::RECORDS_UNREADABLE, error.to_string()))?;
    Ok(Stand {
        snapshots_wanted: wanted.len(),
        snapshots_copied: count(CopyStatus::Completed),
        snapshots_in_flight: count(CopyStatus::Pending),
        snapshots_failed: count(CopyStatus::Failed),
        gib_left: open.map(|one| u64::from(one.size_gib)).sum(),
        hsm_backups_to_copy: hsm.copy.len() + hsm.settling.len(),
        hsm_backups_in_flight: coming.count(),
        surveys_awaited: 0,
        surveys_open: surveys.values().filter(|read| read.value.open.is_some()).count(),
    })
}

/// What, how many, and how long still: by the rate of this run, once there is one.
fn progress(stand: &Stand, start: &Stand, seconds: i64) -> String {
    let done = start.gib_left.saturating_sub(stand.gib_left);
    let left = match (stand.gib_left, done) {
        (0, _) => String::new(),
        (left, 0) => format!(", {left} GiB left, how long is not known yet"),
        (left, done) => {
            let rest = i128::from(seconds.max(1)) * i128::from(left) / i128::from(done);
            format!(", {left} GiB left, about {} at this rate", long(i64::try_from(rest).unwrap_or(i64::MAX)))
        }
    };
    let failed = if stand.snapshots_failed > 0 { format!(", {} failed", stand.snapshots_failed) } else { String::new() };
    let awaited = match stand.surveys_awaited {
        0 => String::new(),
        n => format!(", {n} to come, ten minutes after their sets"),
    };
    format!(
        "{} of {} snapshots copied, {} in flight{failed}{left}; {} HSM backups to copy, {} in flight; {} surveys under way{awaited}",
        stand.snapshots_copied,
        stand.snapshots_wanted,
        stand.snapshots_in_flight,
        stand.hsm_backups_to_copy,
        stand.hsm_backups_in_flight,
        stand.surveys_open
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_said_once_something_was_copied() {
        let start = Stand { snapshots_wanted: 4, gib_left: 100, ..Stand::default() };
        assert!(progress(&start, &start, 60).contains("how long is not known yet"));
        let later = Stand { snapshots_copied: 1, snapshots_in_flight: 3, gib_left: 75, ..start };
        assert!(progress(&later, &start, 600).contains("75 GiB left, about 30 min"), "{}", progress(&later, &start, 600));
        let done = Stand { snapshots_copied: 4, gib_left: 0, ..start };
        assert!(!progress(&done, &start, 600).contains("left"));
    }
}
