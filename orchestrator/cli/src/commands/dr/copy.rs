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
use tde2hsm_dr_driver::survey::{self, SURVEYS_AWAITED, SURVEYS_OPEN};
use tde2hsm_dr_driver::{Hint, Job, Message, Outcome};
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
    surveys_open: u64,
    /// Hosts whose newest set is too young for the look that it needs.
    surveys_awaited: u64,
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
    let mut turns = 0;
    let mut patience = Patience::default();
    loop {
        let (mut awaited, mut open) = (0, 0);
        // What AWS refused before may be mended by now, and whoever asks waits for no pause; what it refuses now has one.
        let hint = if turns == 0 { Hint::Person } else { Hint::Tick };
        for job in JOBS {
            if context.clock.stopping() {
                return Err(interrupted().hint("`tde2hsm dr copy` goes on; copies in flight go on by themselves"));
            }
            let outcome = tde2hsm_dr_driver::run(job, context.now(), &second.config, &second.cloud, &hint).await;
            // Said by a job that asked the fleet in this turn: nobody waits for a host that is gone, or cannot be asked.
            awaited += outcome.count(SURVEYS_AWAITED);
            open += outcome.count(SURVEYS_OPEN);
            tell(context, &outcome, &mut said, &mut messages);
        }
        turns += 1;
        let look = second.look(context.now()).await?;
        let stand = Stand { surveys_awaited: awaited, surveys_open: open, ..stand(&second, &look) };
        let start = *first.get_or_insert(stand);
        if stand != last || turns == 1 {
            context.out.say(&progress(&stand, &start, context.now().since(began)));
        }
        last = stand;
        if args.once || !patience.goes_on(context.now(), &stand) {
            break;
        }
        context.clock.pause(PAUSES[(turns - 1).min(PAUSES.len() - 1)]).await;
    }
    let answer = Answer { at: context.now(), turns, stand: last, messages: &messages };
    let human = format!("{}\n", progress(&last, &last, context.now().since(began)));
    context.out.answer("dr-copy", &answer, &human)?;
    let Some(failure) = failure(&last, &messages) else { return Ok(Exit::Ok) };
    context.out.complain(&failure);
    Ok(failure.exit)
}

/// A question that was refused is no copy that failed. It is no success either: what hangs on it was not done.
fn failure(stand: &Stand, messages: &[Message]) -> Option<Failure> {
    let errors = || messages.iter().filter(|message| message.severity == Severity::Error);
    if let Some(wrong) = errors().find(|message| message.code != Code::PARTLY_ASKED) {
        return Some(Failure::new(Code::COPIES_FAILED, wrong.text.clone()));
    }
    if stand.snapshots_failed > 0 {
        return Some(Failure::new(Code::COPIES_FAILED, format!("{} copies failed", stand.snapshots_failed)));
    }
    errors().next().map(|refused| Failure::new(Code::ASKED_IN_PART, refused.text.clone()))
}

/// How long the copies are watched.
#[derive(Default)]
struct Patience {
    /// The last turn: when, the copies then, and whether any was in flight.
    last: Option<(Timestamp, Stand, bool)>,
    /// Turns without a change of the copies.
    still: usize,
    /// Seconds in which nothing but surveys was under way. New sets bring new surveys for ever, so in all they have no longer
    /// than a set has that was there from the start.
    surveys_alone: i64,
}

impl Patience {
    fn goes_on(&mut self, now: Timestamp, stand: &Stand) -> bool {
        let copying = stand.snapshots_in_flight + stand.hsm_backups_in_flight > 0;
        let copies = Stand { surveys_open: 0, surveys_awaited: 0, ..*stand };
        if let Some((at, before, was_copying)) = self.last.replace((now, copies, copying)) {
            self.still = if copies == before { self.still + 1 } else { 0 };
            self.surveys_alone += if was_copying { 0 } else { now.since(at).max(0) };
        }
        let surveying = stand.surveys_open + stand.surveys_awaited > 0 && self.surveys_alone < survey::LONGEST;
        let left = stand.gib_left > 0 || stand.hsm_backups_to_copy > 0;
        copying || surveying || (left && self.still < STILL)
    }
}

/// Says each message of the jobs once: they say the same in every turn while it is so.
fn tell(context: &Context, outcome: &Outcome, said: &mut BTreeSet<String>, messages: &mut Vec<tde2hsm_dr_driver::Message>) {
    for message in outcome.messages.iter().filter(|message| message.severity != Severity::Note) {
        let line = format!("[{}] {}", message.code, message.text);
        if said.insert(line.clone()) {
            // Said below, with the call and the region.
            if message.code != Code::PARTLY_ASKED {
                context.out.warn(&line);
            }
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

fn stand(second: &Second, look: &Look) -> Stand {
    let hosts = &look.world.hosts;
    let wanted: Vec<Wanted> =
        hosts.iter().flat_map(|host| copying::wanted(host, &look.points, &second.config.retention)).collect();
    let count = |status: CopyStatus| wanted.iter().filter(|one| one.copy == status).count();
    let open = wanted.iter().filter(|one| one.copy != CopyStatus::Completed && !one.archived);
    let hsm = copying::plan_hsm(&look.world.common, second.config.hsm_backup_retention_days);
    let coming = look
        .world
        .common
        .backups
        .iter()
        .filter(|backup| backup.region == second.config.dr_region && backup.state == BackupState::CreateInProgress);
    Stand {
        snapshots_wanted: wanted.len(),
        snapshots_copied: count(CopyStatus::Completed),
        snapshots_in_flight: count(CopyStatus::Pending),
        snapshots_failed: count(CopyStatus::Failed),
        gib_left: open.map(|one| u64::from(one.size_gib)).sum(),
        hsm_backups_to_copy: hsm.copy.len() + hsm.settling.len(),
        hsm_backups_in_flight: coming.count(),
        surveys_awaited: 0,
        surveys_open: 0,
    }
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

    /// Turns half a minute apart, until it ends or a day is over.
    fn minutes(stand: impl Fn(i64) -> Stand) -> i64 {
        let mut patience = Patience::default();
        (0..2_880).find(|turn| !patience.goes_on(Timestamp(turn * 30), &stand(*turn))).unwrap_or(i64::MAX) / 2
    }

    #[test]
    fn surveys_that_never_end_do_not_keep_the_copies_from_ending() {
        let open = |_| Stand { surveys_open: 1, ..Stand::default() };
        assert_eq!(minutes(open), survey::LONGEST / 60);
        let by_turns = |turn| Stand { surveys_open: (turn % 2) as u64, surveys_awaited: 1, gib_left: 8, ..Stand::default() };
        assert_eq!(minutes(by_turns), survey::LONGEST / 60, "what is left waits for something else than time");
        let ten = |turn| Stand { surveys_open: u64::from(turn < 20), ..Stand::default() };
        assert_eq!(minutes(ten), 10, "one that takes minutes is waited for");
        let copying = |turn| Stand { snapshots_in_flight: usize::from(turn < 600), surveys_open: 1, ..Stand::default() };
        assert_eq!(minutes(copying), 300 + survey::LONGEST / 60, "copies take no time from the surveys");
        assert_eq!(minutes(|_| Stand { gib_left: 8, ..Stand::default() }), 2);
    }

    #[test]
    fn a_question_that_was_refused_is_no_copy_that_failed() {
        let said = |severity, code| Message { severity, code, text: "so it is".to_owned() };
        let refused = said(Severity::Error, Code::PARTLY_ASKED);
        let code = |stand: &Stand, messages: &[Message]| failure(stand, messages).and_then(|failure| failure.code);
        let well = Stand::default();
        assert_eq!(code(&well, &[said(Severity::Warning, Code::HOST_UNSURVEYED)]), None);
        assert_eq!(code(&well, std::slice::from_ref(&refused)), Some(Code::ASKED_IN_PART));
        assert_eq!(code(&well, &[refused.clone(), said(Severity::Error, Code::COPY_REFUSED)]), Some(Code::COPIES_FAILED));
        assert_eq!(code(&Stand { snapshots_failed: 1, ..well }, &[refused]), Some(Code::COPIES_FAILED));
    }

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
