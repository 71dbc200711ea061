//! Runs a segment: step by step, each announced before and recorded after.
//!
//! The engine decides nothing about a database. It knows the table's order (and walks it backwards to undo), asks for
//! permission before each step (window and clock, H31), compares the host with what the plan saw before the first effect
//! (H23), and turns the way a step ended into the report. It never retries: what is done twice is decided elsewhere, and
//! each step looks before it acts (invariant 1).

use crate::clock::Clock;
use crate::details;
use crate::identity::Identity;
use crate::journal::{Event, Journal, JournalError, StepEnded};
use crate::paths::Paths;
use crate::secrets::Secrets;
use crate::step::{Context, Kind, Results, StepBody, StepEnd, StepError};
use crate::survey;
use serde::Serialize;
use std::error::Error as _;
use tde2hsm_protocol::survey::Survey;
use tde2hsm_protocol::{
    Code, Digest, Direction, HostOrder, Order, Outcome, PROTOCOL_VERSION, Report, Retriable, Segment, ShortDigest, Sid, Step,
};

/// The host as an operation meets it.
pub struct Host<'a> {
    pub paths: &'a Paths,
    pub identity: &'a Identity,
    pub clock: &'a dyn Clock,
    /// The bodies of the steps and the survey; another set in tests.
    pub table: &'a dyn Table,
}

/// Where the engine takes steps and facts from.
pub trait Table {
    fn body(&self, step: Step) -> &dyn StepBody;
    fn survey(&self, host: &Host<'_>) -> Survey;
}

/// The steps of this program.
pub struct Steps;

impl Table for Steps {
    fn body(&self, step: Step) -> &dyn StepBody {
        crate::steps::body(step)
    }
    fn survey(&self, host: &Host<'_>) -> Survey {
        survey::take(host.paths, host.identity, host.clock)
    }
}

/// The steps of a segment in the order in which they are walked. Undoing `cutover` undoes what `prove` did, too.
pub fn walk(segment: Segment, direction: Direction) -> Vec<Step> {
    let mut steps: Vec<Step> = Step::of(segment).collect();
    if direction == Direction::Undo {
        if segment == Segment::Cutover {
            steps.extend(Step::of(Segment::Prove));
        }
        steps.reverse();
    }
    steps
}

/// The order's window, by this host's clock (H31).
pub fn in_window(order: &Order, clock: &dyn Clock) -> bool {
    let now = clock.now();
    order.not_before <= now && now < order.not_after
}

/// A report of this host about an operation, with nothing in it yet.
pub fn blank(identity: &Identity, order: &Order, mine: &HostOrder, clock: &dyn Clock, outcome: Outcome) -> Report {
    Report {
        v: PROTOCOL_VERSION,
        instance: identity.instance.clone(),
        campaign: order.campaign.clone(),
        generation: order.generation,
        operation: mine.operation.clone(),
        at: clock.now(),
        outcome,
        step: None,
        message: String::new(),
        databases: Vec::new(),
        logins: Vec::new(),
        journal_head: Digest::ZERO,
        saw: None,
        detail: None,
        chunk: None,
        omitted: 0,
    }
}

pub fn sids(mine: &HostOrder) -> Vec<Sid> {
    mine.databases.iter().map(|database| database.sid.clone()).collect()
}

/// How the walk ended.
struct End {
    outcome: Outcome,
    step: Option<Step>,
    message: String,
    saw: Option<ShortDigest>,
}

impl End {
    fn of(error: &StepError, step: Option<Step>) -> End {
        End { outcome: error.outcome(), step, message: error.message.clone(), saw: None }
    }
}

/// The whole of a report, and the part of the journal that belongs to it, for whoever fetches the detail.
#[derive(Serialize)]
struct Detail<'a> {
    report: &'a Report,
    journal: Vec<&'a crate::journal::Entry>,
}

/// Runs the segment and answers the report. Whatever happens, there is one.
pub fn run(
    host: &Host<'_>,
    journal: &mut Journal,
    order: &Order,
    mine: &HostOrder,
    segment: Segment,
    direction: Direction,
) -> Report {
    let mut secrets = Secrets::new(host.identity, &order.secrets);
    let mut results = Results::default();
    let end = match walk_steps(host, journal, &mut secrets, &mut results, order, mine, segment, direction) {
        Ok(end) => end,
        Err(error) => End::of(&error.into(), None),
    };
    let mut report = blank(host.identity, order, mine, host.clock, end.outcome.clone());
    report.step = end.step;
    report.message = secrets.redact(&end.message);
    report.databases = results.reports(mine, &end.outcome, |sid| journal.starts(&order.campaign, sid));
    report.logins = results.logins;
    report.saw = end.saw;
    report.journal_head = journal.head();
    let detail = Detail { report: &report, journal: journal.of_operation(&mine.operation).collect() };
    // Without a detail the report still says what matters.
    let detail = details::put(host.paths, &detail).ok();
    report.detail = detail;
    report
}

#[expect(clippy::too_many_arguments, reason = "the operation's parts, borrowed apart from each other")]
fn walk_steps(
    host: &Host<'_>,
    journal: &mut Journal,
    secrets: &mut Secrets,
    results: &mut Results,
    order: &Order,
    mine: &HostOrder,
    segment: Segment,
    direction: Direction,
) -> Result<End, JournalError> {
    let permit = || -> Result<(), StepError> {
        if in_window(order, host.clock) {
            return Ok(());
        }
        Err(StepError::new(Kind::Retriable, Code::ORDER_EXPIRED, "the order's window has ended before the step was begun"))
    };
    if segment == Segment::Cutover
        && direction == Direction::Do
        && let Some(planned) = mine.saw
        && !journal.has_moved(&order.campaign)
    {
        let survey = host.table.survey(host);
        let saw = survey.saw(&sids(mine));
        if saw != planned {
            let message = "keys, configuration or databases are not what the plan saw".to_owned();
            return Ok(End { outcome: Outcome::Stale { code: Code::PLAN_STALE }, step: None, message, saw: Some(saw) });
        }
    }

    let mut anything = false;
    for step in walk(segment, direction) {
        if let Err(error) = permit() {
            let mut end = End::of(&error, Some(step));
            if !anything {
                end.outcome = Outcome::Expired;
            }
            return Ok(end);
        }
        let write = |journal: &mut Journal, event: Event| {
            journal.append(host.clock.now(), &order.campaign, Some(&mine.operation), event).map(drop)
        };
        write(journal, Event::StepBegun { step, direction })?;
        let body = host.table.body(step);
        let mut context = Context {
            order,
            host: mine,
            identity: host.identity,
            journal,
            secrets,
            clock: host.clock,
            paths: host.paths,
            results,
            step,
            direction,
            permit: &permit,
        };
        let ended = match direction {
            Direction::Do => body.act(&mut context),
            Direction::Undo => body.undo(&mut context),
        };
        match ended {
            Ok(end) => {
                anything |= matches!(end, StepEnd::Done | StepEnd::Undone);
                let end = match end {
                    StepEnd::Done => StepEnded::Done,
                    StepEnd::AlreadyDone => StepEnded::AlreadyDone,
                    StepEnd::Undone => StepEnded::Undone,
                    StepEnd::Nothing => StepEnded::Nothing,
                };
                write(journal, Event::StepEnded { step, direction, end })?;
            }
            Err(error) => {
                let outcome = error.outcome();
                let message = secrets.redact(&with_causes(&error));
                write(
                    journal,
                    Event::StepEnded { step, direction, end: StepEnded::Failed { outcome: outcome.clone(), message } },
                )?;
                if let Some(sid) = &error.sid {
                    results.database(sid).outcome = Some(outcome);
                }
                let mut end = End::of(&error, Some(step));
                end.saw = saw_now(host, mine, segment);
                return Ok(end);
            }
        }
    }
    let outcome = match direction {
        Direction::Undo => Outcome::Undone,
        Direction::Do if anything => Outcome::Done,
        Direction::Do => Outcome::AlreadyDone,
    };
    Ok(End { outcome, step: None, message: String::new(), saw: saw_now(host, mine, segment) })
}

/// What the next order should have seen. `stage` changes nothing of it, and is spared the sessions.
fn saw_now(host: &Host<'_>, mine: &HostOrder, segment: Segment) -> Option<ShortDigest> {
    (segment != Segment::Stage && !mine.databases.is_empty()).then(|| host.table.survey(host).saw(&sids(mine)))
}

/// An error with everything below it, for the journal.
fn with_causes(error: &StepError) -> String {
    let mut text = format!("{} {}", error.code, error.message);
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // A wrapped error says the same as its wrapper.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// Not retriable here: a defect of ours met on the way.
pub fn defect(identity: &Identity, order: &Order, mine: &HostOrder, clock: &dyn Clock, what: &str) -> Report {
    let outcome = Outcome::Failed { code: Code::RUNNER_PANIC, retriable: Retriable::No };
    let mut report = blank(identity, order, mine, clock, outcome);
    report.message = what.to_owned();
    report
}
