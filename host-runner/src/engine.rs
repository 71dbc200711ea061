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
    let end = walk_steps(host, journal, &mut secrets, &mut results, order, mine, segment, direction)
        .and_then(|end| logins(host, journal, &results, order, mine).map(|()| end));
    let end = match end {
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

/// For the controller that adopts the campaign, which knows of no report (H32).
fn logins(
    host: &Host<'_>,
    journal: &mut Journal,
    results: &Results,
    order: &Order,
    mine: &HostOrder,
) -> Result<(), JournalError> {
    for proof in &results.logins {
        if let Some(secret) = order.secret(proof.secret).cloned() {
            let event = Event::LoginEnded { secret, result: proof.result };
            journal.append(host.clock.now(), &order.campaign, Some(&mine.operation), event)?;
        }
    }
    Ok(())
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

    // A proof may restart databases; of a host that was never cut over it would prove nothing.
    if segment == Segment::Prove && direction == Direction::Do && !journal.is_cut_over(&order.campaign) {
        let message = "this campaign has not brought the keys of this host over".to_owned();
        return Ok(End { outcome: Outcome::Stale { code: Code::PLAN_STALE }, step: None, message, saw: None });
    }

    let mut anything = false;
    for step in walk(segment, direction) {
        if let Err(error) = permit() {
            let mut end = End::of(&error, Some(step));
            if !anything && !acted(journal, mine) {
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
        Direction::Do if anything || acted(journal, mine) => Outcome::Done,
        Direction::Do => Outcome::AlreadyDone,
    };
    Ok(End { outcome, step: None, message: String::new(), saw: saw_now(host, mine, segment) })
}

/// The operation had an effect, be it through a worker that has died since.
fn acted(journal: &Journal, mine: &HostOrder) -> bool {
    journal.of_operation(&mine.operation).any(|entry| matches!(entry.event, Event::Intent { .. }))
}

/// What the next order should have seen. `stage` changes nothing of it, and is spared the sessions; nothing comes after `drill`.
fn saw_now(host: &Host<'_>, mine: &HostOrder, segment: Segment) -> Option<ShortDigest> {
    (!matches!(segment, Segment::Stage | Segment::Drill) && !mine.databases.is_empty())
        .then(|| host.table.survey(host).saw(&sids(mine)))
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::journal::Subject;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tde2hsm_protocol::survey as facts;
    use tde2hsm_protocol::*;

    /// A clock that a test moves.
    struct Hand(Cell<i64>);
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.get())
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
        fn pause(&self, _: Duration) {}
    }

    type Act = Box<dyn Fn(&mut Context<'_>) -> Result<StepEnd, StepError> + Send + Sync>;

    /// One body for all steps.
    pub struct Script {
        act: Act,
    }
    impl StepBody for Script {
        fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
            (self.act)(ctx)
        }
        fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
            (self.act)(ctx)
        }
    }

    pub struct Scripted {
        body: Script,
        survey: Survey,
    }
    impl Table for Scripted {
        fn body(&self, _: Step) -> &dyn StepBody {
            &self.body
        }
        fn survey(&self, _: &Host<'_>) -> Survey {
            self.survey.clone()
        }
    }

    pub fn scripted(act: impl Fn(&mut Context<'_>) -> Result<StepEnd, StepError> + Send + Sync + 'static) -> Scripted {
        let survey = Survey {
            v: 1,
            taken_at: Timestamp(0),
            instance: InstanceId::new("i-0123456789abcdef0").unwrap(),
            account: AccountId::new("123456789012").unwrap(),
            region: Region::new("us-east-1").unwrap(),
            runner_version: String::new(),
            os: facts::Os {
                id: String::new(),
                version: String::new(),
                arch: String::new(),
                kernel: String::new(),
                systemd: false,
            },
            clusterware: false,
            autostarts: Vec::new(),
            provider: facts::Provider {
                libraries: Vec::new(),
                mapped: Vec::new(),
                packages: Vec::new(),
                cloudhsm_mapped: false,
                vendor: None,
                cloudhsm_servers: None,
            },
            filesystems: Vec::new(),
            databases: Vec::new(),
            unreadable: Vec::new(),
            files: None,
            mounts: Vec::new(),
        };
        Scripted { body: Script { act: Box::new(act) }, survey }
    }

    pub fn order(segment: Segment, direction: Direction) -> Order {
        let sid = Sid::new("FIN").unwrap();
        let version = SecretVersion::new("11111111-2222-3333-4444-555555555555").unwrap();
        let arn = SecretArn::new("arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/x-AbCdEf").unwrap();
        Order {
            v: PROTOCOL_VERSION,
            account: AccountId::new("123456789012").unwrap(),
            region: Region::new("us-east-1").unwrap(),
            campaign: CampaignId::new("c-1").unwrap(),
            plan: Digest::ZERO,
            generation: Generation(1),
            token: OrderToken::new("t-1").unwrap(),
            not_before: Timestamp(100),
            not_after: Timestamp(200),
            journal_head: Digest::ZERO,
            work: Work::Run { segment, direction },
            target: None,
            secrets: vec![SecretRef { arn, version }],
            escrow: None,
            drill: None,
            hosts: vec![HostOrder {
                instance: InstanceId::new("i-0123456789abcdef0").unwrap(),
                operation: OperationId::new("op-1").unwrap(),
                saw: None,
                prove_logins: Vec::new(),
                databases: vec![DatabaseOrder {
                    sid,
                    source: Source::OldHsm { pin: 0 },
                    software: 0,
                    cloudhsm: 0,
                    auto_open: AutoOpen::Typed,
                    restart_proof: RestartProof::Do,
                    backup_hours: 0,
                }],
                detail: None,
            }],
        }
    }

    struct World {
        _dir: tempfile::TempDir,
        paths: Paths,
        identity: Identity,
        clock: Hand,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let identity = crate::identity::tests::host_with_imds("http://127.0.0.1:1");
        World { _dir: dir, paths, identity, clock: Hand(Cell::new(150)) }
    }

    impl World {
        fn run(&self, table: &Scripted, order: &Order) -> Report {
            let mut journal = Journal::open(&self.paths.journal()).unwrap();
            let host = Host { paths: &self.paths, identity: &self.identity, clock: &self.clock, table };
            let Work::Run { segment, direction } = order.work else { panic!() };
            run(&host, &mut journal, order, &order.hosts[0], segment, direction)
        }
    }

    #[test]
    fn undo_walks_the_table_backwards_over_cutover_and_prove() {
        use Step::*;
        let forward = [PrepareKeystore, ReverseMigrate, Escrow, SwapProvider, Migrate, EnableAutoOpen];
        assert_eq!(walk(Segment::Cutover, Direction::Do), forward);
        let mut all = forward.to_vec();
        all.extend([Prove, RestartProof]);
        all.reverse();
        assert_eq!(walk(Segment::Cutover, Direction::Undo), all);
        assert_eq!(walk(Segment::Stage, Direction::Undo), [StageClient, BackUp]);
    }

    #[test]
    fn each_step_is_announced_before_and_recorded_after() {
        let world = world();
        let table = scripted(|ctx| {
            // What the engine wrote is durable before the step is called.
            let written = Journal::read(&ctx.paths.journal()).unwrap();
            assert!(matches!(written.all().last().unwrap().event, Event::StepBegun { step, .. } if step == ctx.step));
            Ok(if ctx.step == Step::Escrow { StepEnd::Done } else { StepEnd::AlreadyDone })
        });
        let report = world.run(&table, &order(Segment::Cutover, Direction::Do));
        assert_eq!(report.outcome, Outcome::Done);
        let journal = Journal::read(&world.paths.journal()).unwrap();
        assert_eq!(journal.all().len(), 12);
        assert_eq!(report.journal_head, journal.head());
        assert!(report.saw.is_some() && report.detail.is_some());

        let nothing = scripted(|_| Ok(StepEnd::AlreadyDone));
        assert_eq!(world.run(&nothing, &order(Segment::Cutover, Direction::Do)).outcome, Outcome::AlreadyDone);
        assert_eq!(world.run(&nothing, &order(Segment::Cutover, Direction::Undo)).outcome, Outcome::Undone);
        assert_eq!(world.run(&nothing, &order(Segment::Stage, Direction::Do)).saw, None);
    }

    /// Every kind of failure at every step of every segment: the walk ends there, and the report says so.
    #[test]
    fn a_failure_at_any_step_ends_the_walk_with_its_code() {
        let mut points = 0;
        for segment in Segment::ALL {
            for direction in [Direction::Do, Direction::Undo] {
                for fails in walk(segment, direction) {
                    for kind in [Kind::Retriable, Kind::Final, Kind::Parked, Kind::Waiting, Kind::Stuck] {
                        let world = world();
                        if segment == Segment::Prove && direction == Direction::Do {
                            let ready = scripted(|_| Ok(StepEnd::Done));
                            let early = world.run(&ready, &order(segment, direction));
                            assert_eq!(early.outcome, Outcome::Stale { code: Code::PLAN_STALE });
                            world.run(&ready, &order(Segment::Cutover, Direction::Do));
                        }
                        let seen = Arc::new(Mutex::new(Vec::new()));
                        let steps = seen.clone();
                        let table = scripted(move |ctx| {
                            steps.lock().unwrap().push(ctx.step);
                            if ctx.step == fails {
                                let sid = ctx.databases()[0].sid.clone();
                                return Err(StepError::new(kind, Code::STATEMENT_FAILED, "no\u{1b}[31m").of(&sid));
                            }
                            Ok(StepEnd::Done)
                        });
                        let report = world.run(&table, &order(segment, direction));
                        let expected = StepError::new(kind, Code::STATEMENT_FAILED, "").outcome();
                        assert_eq!((&report.outcome, report.step), (&expected, Some(fails)));
                        assert_eq!(report.databases[0].outcome, expected);
                        assert_eq!(seen.lock().unwrap().last(), Some(&fails));
                        let read = Report::decode(&report.encode()).unwrap();
                        assert_eq!(read.message, "no?[31m");
                        points += 1;
                    }
                }
            }
        }
        println!("{points} failure points");
    }

    #[test]
    fn h31_the_window_is_checked_before_each_step() {
        let world = world();
        let hand = Arc::new(AtomicU32::new(0));
        let calls = hand.clone();
        let table = scripted(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(StepEnd::Done)
        });
        world.clock.0.set(200);
        assert_eq!(world.run(&table, &order(Segment::Cutover, Direction::Do)).outcome, Outcome::Expired);
        world.clock.0.set(99);
        assert_eq!(world.run(&table, &order(Segment::Cutover, Direction::Do)).outcome, Outcome::Expired);
        assert_eq!(hand.load(Ordering::Relaxed), 0);

        let until = order(Segment::Cutover, Direction::Do).not_after;
        let late = scripted(move |ctx| {
            // The step's own check says what the engine's will say.
            let mut expired = ctx.order.clone();
            expired.not_after = Timestamp(0);
            assert!((ctx.permit)().is_ok() && !in_window(&expired, ctx.clock) && ctx.order.not_after == until);
            Ok(StepEnd::Done)
        });
        world.clock.0.set(150);
        assert_eq!(world.run(&late, &order(Segment::Cutover, Direction::Do)).outcome, Outcome::Done);
    }

    #[test]
    fn h31_a_window_that_ends_between_steps_is_a_failure_to_go_on_from() {
        let world = world();
        /// Moves on each time it is read: the window ends somewhere in the middle of the walk.
        struct Running(Cell<i64>);
        impl Clock for Running {
            fn now(&self) -> Timestamp {
                self.0.set(self.0.get() + 9);
                Timestamp(self.0.get())
            }
            fn monotonic(&self) -> Duration {
                Duration::ZERO
            }
            fn pause(&self, _: Duration) {}
        }
        let clock = Running(Cell::new(120));
        let table = scripted(|_| Ok(StepEnd::Done));
        let mut journal = Journal::open(&world.paths.journal()).unwrap();
        let host = Host { paths: &world.paths, identity: &world.identity, clock: &clock, table: &table };
        let order = order(Segment::Cutover, Direction::Do);
        let report = run(&host, &mut journal, &order, &order.hosts[0], Segment::Cutover, Direction::Do);
        assert_eq!(report.outcome, Outcome::Failed { code: Code::ORDER_EXPIRED, retriable: Retriable::Yes });
        assert!(matches!(report.step, Some(step) if step != Step::PrepareKeystore));
    }

    #[test]
    fn h23_cutover_looks_again_before_its_first_effect_and_not_after_it() {
        let world = world();
        let act = |ctx: &mut Context<'_>| {
            let subject = Subject::Database(ctx.databases()[0].sid.clone());
            ctx.intend(subject, "test", serde_json::json!(null))?;
            Ok(StepEnd::Done)
        };
        let table = scripted(act);
        let mut wrong = order(Segment::Cutover, Direction::Do);
        wrong.hosts[0].saw = Some(Digest::of(b"another").short());
        let report = world.run(&table, &wrong);
        assert_eq!(report.outcome, Outcome::Stale { code: Code::PLAN_STALE });
        assert!(!Journal::read(&world.paths.journal()).unwrap().has_moved(&wrong.campaign), "nothing was done");

        let mut right = order(Segment::Cutover, Direction::Do);
        right.hosts[0].saw = report.saw;
        assert_eq!(world.run(&table, &right).outcome, Outcome::Done);
        // This campaign has changed the host itself: what the plan saw is gone, and must be.
        assert_eq!(world.run(&table, &wrong).outcome, Outcome::Done);
        // Another campaign has not.
        wrong.campaign = CampaignId::new("c-2").unwrap();
        assert_eq!(world.run(&table, &wrong).outcome, Outcome::Stale { code: Code::PLAN_STALE });
    }

    #[test]
    fn h39_a_secret_in_a_message_reaches_neither_report_nor_journal_nor_detail() {
        let world = world();
        let table = scripted(|ctx| {
            let secret = crate::secrets::Secret::new("cu:S3cret-canary".to_owned());
            ctx.secrets.learn(&secret);
            let leak = format!("IDENTIFIED BY \"{}\"", secret.reveal());
            ctx.intend(Subject::Host, "test", serde_json::json!({ "sql": leak.clone() }))?;
            ctx.observed(Subject::Host, "test", serde_json::json!([leak.clone()]))?;
            ctx.remember(Subject::Host, "test", serde_json::json!(leak.clone()))?;
            let cause = std::io::Error::other(leak.clone());
            Err(StepError::new(Kind::Final, Code::STATEMENT_FAILED, leak).caused_by(cause))
        });
        let report = world.run(&table, &order(Segment::Cutover, Direction::Do));
        assert_eq!(report.message, "IDENTIFIED BY \"*redacted*\"");
        let mut redactor = crate::redact::Redactor::default();
        redactor.learn(&crate::secrets::Secret::new("cu:S3cret-canary".to_owned()));
        let journal = std::fs::read(world.paths.journal().join("journal.jsonl")).unwrap();
        let detail = report.detail.unwrap();
        let bytes = std::fs::read(world.paths.details().join(detail.digest.to_string())).unwrap();
        let detail = wire::inflate(&bytes).unwrap();
        for (name, bytes) in [("journal", journal), ("detail", detail), ("report", serde_json::to_vec(&report).unwrap())] {
            assert!(bytes.len() > 100, "{name} is there");
            assert!(!redactor.finds(&bytes), "a secret is in the {name}");
        }
        assert!(redactor.finds(b"a planted S3cret-canary"), "the search finds what is there");
    }
}
