//! The work runs in a process that no one who started it can end (invariant 8).
//!
//! What SSM starts only delivers: it checks the order, puts it down as a file, sees to it that a worker is at work on it,
//! and waits for the worker's report. The worker is a session (or a systemd unit) of its own; the agent's SIGKILL to its
//! process group and the loss of its pipes do not reach it. Everything between the two is on disk:
//!
//! ```text
//! /var/lib/tde2hsm/operations/OPERATION/order.json     written before a worker is started
//!                                       report.json    written by the worker as its last act
//! ```
//!
//! So a second delivery joins or is answered from the file, in any order and at any time (H28, H31). A worker that died
//! left an order without a report and an unheld lock: whoever asks next starts another, and the steps find out by
//! looking how far the first one came.

use crate::clock::Clock;
use crate::details;
use crate::drill;
use crate::engine::{self, Host, Steps, Table, blank, in_window, sids};
use crate::files::{self, FileError};
use crate::identity::Identity;
use crate::journal::{Entries, Event, Journal};
use crate::lock::{Holder, Lock};
use crate::paths::Paths;
use nix::fcntl::{Flock, FlockArg};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tde2hsm_protocol::{
    CampaignId, Code, Digest, Generation, HostJournal, HostOrder, InstanceId, KnownOperation, OperationId, Order, Outcome,
    PROTOCOL_VERSION, Report, Retriable, Sid, Timestamp, WireError, Work,
};

/// Longest wait of a delivery for its worker: below the document's own time limit, after which the agent would end it.
const WAIT: Duration = Duration::from_secs(50 * 60);
/// How long a worker may take from its start to its lock.
const START: Duration = Duration::from_secs(20);
/// Workers that may die over one operation before a person has to look.
const WORKERS: usize = 8;

/// Answers one delivery. `text`: the order as it stood in `SSM_Order`.
pub fn deliver(paths: &Paths, clock: &dyn Clock, text: Option<&str>) -> Report {
    deliver_with(paths, clock, text, &|operation| start_worker(paths, operation), &Steps)
}

/// How a worker is started.
type Start<'a> = &'a dyn Fn(&OperationId) -> std::io::Result<()>;

fn deliver_with(paths: &Paths, clock: &dyn Clock, text: Option<&str>, start: Start<'_>, table: &dyn Table) -> Report {
    let order = match text.ok_or(WireError::NoReport).and_then(Order::decode) {
        Ok(order) => order,
        Err(WireError::Version(v)) => {
            let words = format!("the order has protocol version {v}, this runner speaks {PROTOCOL_VERSION}");
            return unknown(paths, clock, None, no(Code::PROTOCOL_VERSION), words);
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return unknown(paths, clock, None, no(Code::ORDER_UNREADABLE), format!("no order can be read: {error}{cause}"));
        }
    };
    let identity = match Identity::read(paths) {
        Ok(identity) => identity,
        Err(error) => return unknown(paths, clock, Some(&order), yes(error.code()), error.to_string()),
    };
    let foreign = order.account != identity.account || order.region != identity.region;
    let Some(mine) = order.host(&identity.instance).filter(|_| !foreign) else {
        let words = format!("this is {} of {} in {}", identity.instance, identity.account, identity.region);
        let mut report = unknown(paths, clock, Some(&order), no(Code::ORDER_NOT_MINE), words);
        report.instance = identity.instance;
        return report;
    };
    let delivery = Delivery { host: Host { paths, identity: &identity, clock, table }, start, order: &order, mine };
    delivery.answer().unwrap_or_else(|failure| delivery.report(failure.outcome, failure.message))
}

fn yes(code: Code) -> Outcome {
    Outcome::Failed { code, retriable: Retriable::Yes }
}
fn no(code: Code) -> Outcome {
    Outcome::Failed { code, retriable: Retriable::No }
}

/// A report of a host that does not know itself or its order. The instance is nobody's: no controller will take the
/// report for another host's.
fn unknown(paths: &Paths, clock: &dyn Clock, order: Option<&Order>, outcome: Outcome, message: String) -> Report {
    let name = "unknown";
    // A batch has an operation a host; without an identity the right one is not known.
    let only = order.and_then(|order| match order.hosts.as_slice() {
        [host] => Some(host.operation.clone()),
        _ => None,
    });
    Report {
        v: PROTOCOL_VERSION,
        instance: InstanceId::new("i-00000000").expect("an instance id"),
        campaign: order.map_or_else(|| CampaignId::new(name).expect("a campaign id"), |order| order.campaign.clone()),
        generation: order.map_or(Generation::default(), |order| order.generation),
        operation: only.unwrap_or_else(|| OperationId::new(name).expect("an operation id")),
        at: clock.now(),
        outcome,
        step: None,
        message,
        databases: Vec::new(),
        logins: Vec::new(),
        journal_head: Journal::read(&paths.journal()).map_or(Digest::ZERO, |journal| journal.head()),
        saw: None,
        detail: None,
        chunk: None,
        omitted: 0,
    }
}

/// Why a delivery was not answered as asked.
struct Failure {
    outcome: Outcome,
    message: String,
}

impl Failure {
    fn new(outcome: Outcome, message: impl Into<String>) -> Failure {
        Failure { outcome, message: message.into() }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        Failure::new(yes(error.code()), error.to_string())
    }
}
impl From<drill::Refusal> for Failure {
    fn from(refusal: drill::Refusal) -> Failure {
        let retriable = [Code::FILE_WORK, Code::BUSY].contains(&refusal.code);
        Failure::new(if retriable { yes(refusal.code) } else { no(refusal.code) }, refusal.message)
    }
}
impl From<crate::journal::JournalError> for Failure {
    fn from(error: crate::journal::JournalError) -> Failure {
        Failure::new(Outcome::Stuck { code: error.code() }, error.to_string())
    }
}

struct Delivery<'a> {
    host: Host<'a>,
    start: Start<'a>,
    order: &'a Order,
    mine: &'a HostOrder,
}

fn place(paths: &Paths, operation: &OperationId, file: &str) -> PathBuf {
    paths.operations().join(operation.as_str()).join(file)
}

/// The report of an operation that ended, or that said it waits.
fn recorded(paths: &Paths, operation: &OperationId) -> Result<Option<Report>, FileError> {
    let bytes = files::read(&place(paths, operation, "report.json"))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn stored_order(paths: &Paths, operation: &OperationId) -> Result<Option<Order>, FileError> {
    let bytes = files::read(&place(paths, operation, "order.json"))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn is_final(report: &Report) -> bool {
    !matches!(report.outcome, Outcome::Waiting { .. })
}

/// Who may move this host, by its journal (H31, H32).
fn fence(entries: &Entries, order: &Order) -> Result<(), Failure> {
    if let Some(holder) = entries.held_by()
        && holder != order.campaign
    {
        return Err(Failure::new(yes(Code::HOST_HELD), format!("campaign {holder} holds the host")));
    }
    match entries.generation(&order.campaign) {
        Some(seen) if seen > order.generation => {
            let words = format!("generation {} is older than {seen}, which the host has seen", order.generation);
            Err(Failure::new(Outcome::Stale { code: Code::ORDER_SUPERSEDED }, words))
        }
        _ => Ok(()),
    }
}

impl Delivery<'_> {
    fn report(&self, outcome: Outcome, message: impl Into<String>) -> Report {
        let mut report = blank(self.host.identity, self.order, self.mine, self.host.clock, outcome);
        report.message = message.into();
        report.journal_head = Journal::read(&self.host.paths.journal()).map_or(Digest::ZERO, |journal| journal.head());
        report
    }

    fn answer(&self) -> Result<Report, Failure> {
        // A question about an operation is answered with the truth at any time; "expired" would be taken for its end.
        let late = !in_window(self.order, self.host.clock) && self.order.work != Work::Status;
        if late {
            return match self.order.work {
                // One that ended in time may be delivered a second time when it is late.
                Work::Run { .. } => match recorded(self.host.paths, &self.mine.operation)? {
                    Some(report) if is_final(&report) => Ok(report),
                    _ => Ok(self.report(Outcome::Expired, self.window())),
                },
                _ => Ok(self.report(Outcome::Expired, self.window())),
            };
        }
        match self.order.work {
            Work::Survey => self.survey(),
            Work::Run { .. } => self.run(),
            Work::Status => self.status(),
            Work::Fetch { chunk } => self.fetch(chunk),
            Work::Adopt => self.adopt(),
            Work::Release => self.release(),
        }
    }

    fn window(&self) -> String {
        let (from, until, now) = (self.order.not_before.0, self.order.not_after.0, self.host.clock.now().0);
        format!("valid from {from} until {until}; this host's clock says {now}")
    }

    fn survey(&self) -> Result<Report, Failure> {
        let survey = self.host.table.survey(&self.host);
        let asked = sids(self.mine);
        let all: Vec<Sid> = survey.databases.iter().map(|database| database.sid.clone()).collect();
        let mut report = self.report(Outcome::Done, "");
        report.saw = Some(survey.saw(if asked.is_empty() { &all } else { &asked }));
        report.detail = Some(details::put(self.host.paths, &survey)?);
        Ok(report)
    }

    fn fetch(&self, index: u16) -> Result<Report, Failure> {
        let unknown = || Failure::new(no(Code::DETAIL_UNKNOWN), "the host does not keep that detail");
        let digest = self.mine.detail.ok_or_else(unknown)?;
        let (detail, chunk) = details::chunk(self.host.paths, digest, index)?.ok_or_else(unknown)?;
        let mut report = self.report(Outcome::Done, "");
        report.detail = Some(detail);
        report.chunk = Some(chunk);
        Ok(report)
    }

    fn run(&self) -> Result<Report, Failure> {
        // Before a file of ours is written, for on a copy they are the source's.
        drill::admit(self.order, self.host.identity)?;
        drill::own_state(self.host.paths, self.order, self.host.identity)?;
        let operation = &self.mine.operation;
        let dir = self.host.paths.operations().join(operation.as_str());
        files::make_dir(&dir, 0o700)?;
        if let Some(stored) = stored_order(self.host.paths, operation)?
            && stored.campaign != self.order.campaign
        {
            return Err(Failure::new(no(Code::ORDER_UNREADABLE), format!("{operation} is an operation of {}", stored.campaign)));
        }
        self.join(Some(self.order))
    }

    fn status(&self) -> Result<Report, Failure> {
        match stored_order(self.host.paths, &self.mine.operation)? {
            Some(stored) if stored.campaign == self.order.campaign => self.join(None),
            _ => Err(Failure::new(yes(Code::OPERATION_UNKNOWN), "no such operation was ever delivered")),
        }
    }

    /// Waits for the operation's report, and sees to it that someone works on it. `fresh`: an order to put down first.
    fn join(&self, fresh: Option<&Order>) -> Result<Report, Failure> {
        let operation = &self.mine.operation;
        let start = self.host.clock.monotonic();
        let left = Duration::from_secs(u64::try_from(self.order.not_after.since(self.host.clock.now())).unwrap_or(0));
        // A question that came late is still answered, with what is known at once.
        let limit = left.min(WAIT);
        for _ in 0..WORKERS {
            if let Some(end) = self.see_to_it(fresh)? {
                return Ok(end);
            }
            // Someone is at work: until the report is there, or nobody is any more.
            let mut pause = Duration::from_millis(5);
            loop {
                if let Some(report) = recorded(self.host.paths, operation)? {
                    return Ok(report);
                }
                if self.holder()? != Holder::Operation(operation.clone()) {
                    // It may have reported between the two looks.
                    if let Some(report) = recorded(self.host.paths, operation)? {
                        return Ok(report);
                    }
                    break;
                }
                if self.host.clock.monotonic() - start >= limit {
                    let entries = Journal::read(&self.host.paths.journal())?;
                    let mut report = self.report(Outcome::Waiting { code: Code::STILL_RUNNING }, "the worker is still at work");
                    report.step = entries.step_of(operation);
                    return Ok(report);
                }
                self.host.clock.pause(pause);
                pause = (pause * 2).min(Duration::from_millis(250));
            }
        }
        Err(Failure::new(
            Outcome::Stuck { code: Code::WORKER_DIED },
            format!("{WORKERS} workers came up and ended without a report"),
        ))
    }

    fn holder(&self) -> Result<Holder, Failure> {
        let io = |error: std::io::Error| Failure::new(yes(Code::FILE_WORK), format!("the lock cannot be read: {error}"));
        // A worker names itself right after it took the lock.
        let start = self.host.clock.monotonic();
        loop {
            match Lock::holder(self.host.paths).map_err(io)? {
                Holder::Unnamed if self.host.clock.monotonic() - start < Duration::from_secs(1) => {
                    self.host.clock.pause(Duration::from_millis(5));
                }
                holder => return Ok(holder),
            }
        }
    }

    /// Answers a report where there is nothing to wait for; else a worker is at work on the operation.
    fn see_to_it(&self, fresh: Option<&Order>) -> Result<Option<Report>, Failure> {
        let operation = &self.mine.operation;
        // Two deliveries of one operation decide one after the other.
        let io = |error: std::io::Error| Failure::new(yes(Code::FILE_WORK), format!("the operation cannot be locked: {error}"));
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(place(
            self.host.paths,
            operation,
            "deliver.lock",
        ));
        let _one = Flock::lock(file.map_err(io)?, FlockArg::LockExclusive).map_err(|(_, error)| io(error.into()))?;

        let before = recorded(self.host.paths, operation)?;
        if let Some(report) = before.as_ref().filter(|report| is_final(report)) {
            return Ok(Some(report.clone()));
        }
        match self.holder()? {
            Holder::Operation(at_work) if at_work == *operation => return Ok(None),
            Holder::Nobody => {}
            Holder::Operation(other) => {
                return Err(Failure::new(yes(Code::BUSY), format!("operation {other} is at work")));
            }
            Holder::Unnamed => return Err(Failure::new(yes(Code::BUSY), "another operation is at work")),
        }
        let entries = Journal::read(&self.host.paths.journal())?;
        if let Some(order) = fresh {
            fence(&entries, order)?;
            let bytes = serde_json::to_vec(order).expect("protocol types serialise");
            files::write_own(&place(self.host.paths, operation, "order.json"), &bytes, 0o600)?;
        }
        let stored = stored_order(self.host.paths, operation)?;
        let valid = stored.as_ref().is_some_and(|order| in_window(order, self.host.clock));
        if entries.deaths(operation) >= WORKERS {
            let words = format!("{WORKERS} workers have died over it");
            return Err(Failure::new(Outcome::Stuck { code: Code::WORKER_DIED }, words));
        }
        if !valid {
            // Nobody works on it and nobody may any more: that is its end, and a new order may go on from there.
            return match before {
                Some(waited) => Err(Failure::new(yes(Code::ORDER_EXPIRED), waited.message)),
                None => Err(Failure::new(yes(Code::WORKER_DIED), "its worker ended without a report, and its order has expired")),
            };
        }
        if before.is_some() {
            // It waited for something; it looks again.
            std::fs::remove_file(place(self.host.paths, operation, "report.json")).map_err(io)?;
        }
        let started = (self.start)(operation);
        started.map_err(|error| Failure::new(yes(Code::WORKER_DIED), format!("the worker cannot be started: {error}")))?;
        let start = self.host.clock.monotonic();
        let mut looks = 0_u32;
        while self.host.clock.monotonic() - start < START {
            if recorded(self.host.paths, operation)?.is_some() || self.holder()? == Holder::Operation(operation.clone()) {
                return Ok(None);
            }
            // One that died between two looks has left a line in the journal.
            looks += 1;
            if looks.is_multiple_of(16)
                && Journal::read(&self.host.paths.journal())?.workers(operation) > entries.workers(operation)
            {
                return Ok(None);
            }
            self.host.clock.pause(Duration::from_millis(3));
        }
        Err(Failure::new(yes(Code::WORKER_DIED), format!("no worker came up within {} s", START.as_secs())))
    }

    fn adopt(&self) -> Result<Report, Failure> {
        let entries = Journal::read(&self.host.paths.journal())?;
        let campaign = &self.order.campaign;
        let mut operations: Vec<KnownOperation> = Vec::new();
        let mut plan = None;
        for entry in entries.of_campaign(campaign) {
            let Some(operation) = &entry.operation else { continue };
            match &entry.event {
                Event::Accepted { plan: p, work: Work::Run { segment, direction }, .. } => {
                    plan = Some(*p);
                    if !operations.iter().any(|known| known.operation == *operation) {
                        let (operation, segment, direction) = (operation.clone(), *segment, *direction);
                        operations.push(KnownOperation { operation, segment, direction, outcome: None });
                    }
                }
                Event::Worker { .. } => {
                    // Taken up again: what it said before is not its end.
                    operations.iter_mut().filter(|known| known.operation == *operation).for_each(|known| known.outcome = None);
                }
                Event::Reported { outcome } => {
                    let outcome = Some(outcome.clone()).filter(|outcome| !matches!(outcome, Outcome::Waiting { .. }));
                    operations
                        .iter_mut()
                        .filter(|known| known.operation == *operation)
                        .for_each(|known| known.outcome = outcome.clone());
                }
                _ => {}
            }
        }
        // The databases of the last order; not while someone is changing them.
        let last = operations.last().and_then(|known| stored_order(self.host.paths, &known.operation).ok().flatten());
        let databases = last.as_ref().and_then(|order| order.host(&self.host.identity.instance)).map(sids).unwrap_or_default();
        let quiet = self.holder()? == Holder::Nobody;
        let saw = (quiet && !databases.is_empty()).then(|| self.host.table.survey(&self.host).saw(&databases));
        let journal = HostJournal {
            v: PROTOCOL_VERSION,
            instance: self.host.identity.instance.clone(),
            held_by: entries.held_by(),
            generation: entries.generation(campaign).unwrap_or_default(),
            plan,
            operations,
            saw,
            logins: entries.logins(campaign),
            journal_head: entries.head(),
        };
        let mut report = self.report(Outcome::Done, "");
        report.saw = saw;
        report.detail = Some(details::put(self.host.paths, &journal)?);
        Ok(report)
    }

    fn release(&self) -> Result<Report, Failure> {
        let io = |error: std::io::Error| Failure::new(yes(Code::FILE_WORK), format!("the lock cannot be taken: {error}"));
        let Some(_lock) = Lock::take(self.host.paths, Some(&self.mine.operation)).map_err(io)? else {
            return Err(Failure::new(yes(Code::BUSY), "another operation is at work"));
        };
        let mut journal = Journal::open(&self.host.paths.journal())?;
        fence(&journal, self.order)?;
        let outcome = match journal.held_by() {
            None => Outcome::AlreadyDone,
            Some(_) => {
                journal.append(self.host.clock.now(), &self.order.campaign, Some(&self.mine.operation), Event::Released)?;
                Outcome::Done
            }
        };
        Ok(self.report(outcome, ""))
    }
}

/// In a unit of its own where there is systemd, else in a session of its own.
fn start_worker(paths: &Paths, operation: &OperationId) -> std::io::Result<()> {
    let operation = operation.as_str();
    if paths.at("/run/systemd/system").is_dir() {
        let unit = format!("--unit=tde2hsm-{operation}-{}", std::process::id());
        let status = Command::new("/usr/bin/systemd-run")
            .args(["--quiet", "--collect", "--no-block", &unit])
            // The unit's end must not end a database that was started from it (H24).
            .args(["--property=KillMode=process", "--property=SendSIGKILL=no", "--property=TasksMax=infinity"])
            .arg(paths.runner_name())
            .args(["worker", operation])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    let mut command = Command::new(paths.runner());
    command
        .arg0(paths.runner_name())
        .args(["worker", operation])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: two system calls between fork and exec, no memory touched.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // Not waited for: it outlives us, and is init's child then.
    let started = command.spawn();
    started.map(drop)
}

/// The worker: `host-runner worker OPERATION`. It speaks to nobody; its report is a file.
pub fn work(paths: &Paths, clock: &dyn Clock, operation: &OperationId) -> std::io::Result<()> {
    report_panics(paths, operation);
    work_with(paths, clock, operation, &Steps)
}

fn work_with(paths: &Paths, clock: &dyn Clock, operation: &OperationId, table: &dyn Table) -> std::io::Result<()> {
    let other = std::io::Error::other::<FileError>;
    let start = clock.monotonic();
    // Whoever started us may be looking at the lock in this very moment.
    let lock = loop {
        match Lock::take(paths, Some(operation))? {
            Some(lock) => break lock,
            None if clock.monotonic() - start < START / 2 => clock.pause(Duration::from_millis(10)),
            None => return Ok(()),
        }
    };
    if recorded(paths, operation).map_err(other)?.is_some() {
        return Ok(());
    }
    let Some(order) = stored_order(paths, operation).map_err(other)? else { return Ok(()) };
    let keep = |report: &Report| {
        let bytes = serde_json::to_vec(report).expect("protocol types serialise");
        files::write_own(&place(paths, operation, "report.json"), &bytes, 0o600).map_err(other)
    };
    let identity = match Identity::read(paths) {
        Ok(identity) => identity,
        Err(error) => {
            let mut report = unknown(paths, clock, Some(&order), yes(error.code()), error.to_string());
            // The delivery knew who this is, or there would be no order.
            if let Some(host) = order.hosts.iter().find(|host| host.operation == *operation) {
                report.instance = host.instance.clone();
                report.operation = operation.clone();
            }
            return keep(&report);
        }
    };
    let Some(mine) = order.host(&identity.instance).filter(|mine| mine.operation == *operation) else {
        return keep(&unknown(paths, clock, Some(&order), no(Code::ORDER_NOT_MINE), "the order is for another host".to_owned()));
    };
    let report = match attempt(&Host { paths, identity: &identity, clock, table }, &order, mine) {
        Ok(report) => report,
        Err(failure) => {
            let mut report = blank(&identity, &order, mine, clock, failure.outcome);
            report.message = failure.message;
            report
        }
    };
    keep(&report)?;
    drop(lock);
    Ok(())
}

/// A defect ends as a report, too. Only the place is told: a panic's words may hold anything.
fn report_panics(paths: &Paths, operation: &OperationId) {
    let (paths, operation) = (paths.clone(), operation.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let at = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        if let (Ok(identity), Ok(Some(order))) = (Identity::read(&paths), stored_order(&paths, &operation))
            && let Some(mine) = order.host(&identity.instance)
        {
            let report = engine::defect(&identity, &order, mine, &crate::clock::SystemClock::new(), &format!("a defect{at}"));
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            let _ = files::write_own(&place(&paths, &operation, "report.json"), &bytes, 0o600);
        }
        std::process::exit(0);
    }));
}

fn attempt(host: &Host<'_>, order: &Order, mine: &HostOrder) -> Result<Report, Failure> {
    let (paths, clock) = (host.paths, host.clock);
    let Work::Run { segment, direction } = order.work else {
        return Err(Failure::new(no(Code::ORDER_UNREADABLE), "the order asks for nothing that a worker does"));
    };
    drill::admit(order, host.identity)?;
    let mut journal = Journal::open(&paths.journal())?;
    fence(&journal, order)?;
    if !in_window(order, clock) {
        return Err(Failure::new(Outcome::Expired, ""));
    }
    let write = |journal: &mut Journal, event: Event| {
        journal.append(clock.now(), &order.campaign, Some(&mine.operation), event).map(drop)
    };
    let accepted = Event::Accepted {
        plan: order.plan,
        generation: order.generation,
        token: order.token.clone(),
        work: order.work,
        controller_head: order.journal_head,
    };
    write(&mut journal, accepted)?;
    write(&mut journal, Event::Worker { pid: std::process::id() })?;
    let mut report = engine::run(host, &mut journal, order, mine, segment, direction);
    write(&mut journal, Event::Reported { outcome: report.outcome.clone() })?;
    report.journal_head = journal.head();
    report.at = clock.now();
    Ok(report)
}

/// An order that a person gives on the host itself: the last one of the campaign that holds it, the other way round.
pub fn undo_order(paths: &Paths, clock: &dyn Clock, identity: &Identity) -> Result<Option<Order>, FileError> {
    let Ok(entries) = Journal::read(&paths.journal()) else { return Ok(None) };
    let Some(campaign) = entries.held_by() else { return Ok(None) };
    let last = entries.of_campaign(&campaign).rev().find_map(|entry| match &entry.event {
        Event::Accepted { work: Work::Run { .. }, .. } => entry.operation.clone(),
        _ => None,
    });
    let Some(mut order) = last.map(|last| stored_order(paths, &last)).transpose()?.flatten() else { return Ok(None) };
    let now = clock.now();
    let Some(mut mine) = order.host(&identity.instance).cloned() else { return Ok(None) };
    let name = format!("undo-on-host-{}", now.0);
    mine.operation = OperationId::new(name).expect("digits and letters");
    mine.saw = None;
    mine.prove_logins.clear();
    order.hosts = vec![mine];
    order.generation = entries.generation(&campaign).unwrap_or(order.generation);
    let segment = tde2hsm_protocol::Segment::Cutover;
    order.work = Work::Run { segment, direction: tde2hsm_protocol::Direction::Undo };
    (order.not_before, order.not_after) = (now, now.plus(4 * 3600));
    Ok(Some(order))
}

/// What `status` tells a person on the host.
pub fn known(paths: &Paths) -> Vec<(OperationId, Option<Outcome>, Timestamp)> {
    let Ok(entries) = Journal::read(&paths.journal()) else { return Vec::new() };
    let mut known: Vec<(OperationId, Option<Outcome>, Timestamp)> = Vec::new();
    for entry in entries.all() {
        let Some(operation) = &entry.operation else { continue };
        let outcome = match &entry.event {
            Event::Worker { .. } => None,
            Event::Reported { outcome } => Some(outcome.clone()),
            _ => continue,
        };
        known.retain(|(id, ..)| id != operation);
        known.push((operation.clone(), outcome, entry.at));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::engine::tests::{Scripted, order as segment_order, scripted};
    use crate::identity::tests::imds;
    use crate::step::{Context, Kind, StepEnd, StepError};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Condvar, Mutex};
    use tde2hsm_protocol::{Chunk, Direction, LoginResult, Segment, Step};

    /// Time limits pass fifty times as fast; the time of day does not.
    struct Fast(SystemClock);
    impl Clock for Fast {
        fn now(&self) -> Timestamp {
            self.0.now()
        }
        fn monotonic(&self) -> Duration {
            self.0.monotonic() * 50
        }
        fn pause(&self, time: Duration) {
            self.0.pause(time);
        }
    }
    fn fast() -> Fast {
        Fast(SystemClock::new())
    }

    struct World {
        _dir: tempfile::TempDir,
        paths: Paths,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let document = r#"{"accountId":"123456789012","region":"us-east-1","instanceId":"i-0123456789abcdef0"}"#;
        let imds = imds(vec![("/latest/dynamic/instance-identity/document", document.into())]);
        std::fs::create_dir_all(paths.endpoints().parent().unwrap()).unwrap();
        std::fs::write(paths.endpoints(), format!("imds = \"{imds}\"\n")).unwrap();
        World { _dir: dir, paths }
    }

    fn order(operation: &str) -> Order {
        let mut order = segment_order(Segment::Stage, Direction::Do);
        let now = SystemClock::new().now();
        (order.not_before, order.not_after) = (now.plus(-60), now.plus(3600));
        order.hosts[0].operation = OperationId::new(operation).unwrap();
        order
    }

    fn table(act: impl Fn(&mut Context<'_>) -> Result<StepEnd, StepError> + Send + Sync + 'static) -> Arc<Scripted> {
        Arc::new(scripted(act))
    }

    impl World {
        /// Delivers to workers that are threads of this process: the lock and the files do not know the difference.
        fn deliver(&self, table: &Arc<Scripted>, order: &Order) -> Report {
            let start = |operation: &OperationId| {
                let (paths, table, operation) = (self.paths.clone(), table.clone(), operation.clone());
                std::thread::spawn(move || work_with(&paths, &fast(), &operation, &*table));
                Ok(())
            };
            deliver_with(&self.paths, &fast(), Some(&order.encode().unwrap()), &start, &**table)
        }
        fn journal(&self) -> Entries {
            Journal::read(&self.paths.journal()).unwrap()
        }
    }

    fn ask(order: &Order, work: Work) -> Order {
        Order { work, ..order.clone() }
    }

    #[test]
    fn h31_what_is_late_foreign_old_or_unreadable_moves_nothing_and_has_its_code() {
        let world = world();
        let never = table(|_| panic!("no step may run"));
        let good = order("op-1");
        let changed = |change: &dyn Fn(&mut Order)| {
            let mut order = good.clone();
            change(&mut order);
            world.deliver(&never, &order).outcome
        };
        let code = |outcome: Outcome| outcome.code().unwrap();
        assert_eq!(changed(&|o| o.not_after = Timestamp(1)), Outcome::Expired);
        assert_eq!(changed(&|o| o.not_before = o.not_after), Outcome::Expired);
        let other = |o: &mut Order| o.account = tde2hsm_protocol::AccountId::new("210987654321").unwrap();
        assert_eq!(code(changed(&other)), Code::ORDER_NOT_MINE);
        let other = |o: &mut Order| o.region = tde2hsm_protocol::Region::new("eu-west-1").unwrap();
        assert_eq!(code(changed(&other)), Code::ORDER_NOT_MINE);
        let other = |o: &mut Order| o.hosts[0].instance = InstanceId::new("i-0fedcba9876543210").unwrap();
        assert_eq!(code(changed(&other)), Code::ORDER_NOT_MINE);
        assert_eq!(code(changed(&|o| o.v = 9)), Code::PROTOCOL_VERSION);
        for text in [None, Some(""), Some("rm -rf /"), Some("AAAA")] {
            let report = deliver_with(&world.paths, &fast(), text, &|_| panic!("nothing to start"), &*never);
            assert_eq!(report.outcome, no(Code::ORDER_UNREADABLE), "{text:?}");
        }
        assert!(world.journal().all().is_empty() && !world.paths.operations().exists());
    }

    #[test]
    fn h44_a_drill_order_for_a_host_that_is_no_copy_moves_nothing() {
        let world = world();
        let never = table(|_| panic!("no step may run"));
        // The runner's directory as the source has it.
        let mut journal = Journal::open(&world.paths.journal()).unwrap();
        journal.append(Timestamp(1), &CampaignId::new("change-1").unwrap(), None, Event::Released).unwrap();
        let all = |world: &World| -> Vec<(PathBuf, Vec<u8>)> {
            let mut found = Vec::new();
            let mut todo = vec![world.paths.root().to_owned()];
            while let Some(dir) = todo.pop() {
                for entry in std::fs::read_dir(dir).unwrap().flatten() {
                    match entry.file_type().unwrap().is_dir() {
                        true => todo.push(entry.path()),
                        false => found.push((entry.path(), std::fs::read(entry.path()).unwrap())),
                    }
                }
            }
            found.sort();
            found
        };
        let before = all(&world);
        let mut order = order("op-1");
        order.work = Work::Run { segment: Segment::Drill, direction: Direction::Do };
        let drill = |source: &str, region: &str| tde2hsm_protocol::Drill {
            id: tde2hsm_protocol::DrillId::new("d-1").unwrap(),
            source: InstanceId::new(source).unwrap(),
            source_region: tde2hsm_protocol::Region::new(region).unwrap(),
            unreachable: Vec::new(),
        };
        order.target = Some(tde2hsm_protocol::Target {
            cluster: tde2hsm_protocol::ClusterId::new("cluster-abcdefghijk").unwrap(),
            hsms: vec!["10.9.0.5".parse().unwrap()],
            key_availability_check: tde2hsm_protocol::KeyAvailabilityCheck::Off,
        });
        let cases = [
            ("the source itself", Some(drill("i-0123456789abcdef0", "eu-central-1"))),
            ("the source's region", Some(drill("i-0fedcba9876543210", "us-east-1"))),
            ("an instance without the tag", Some(drill("i-0fedcba9876543210", "eu-central-1"))),
            ("no facts", None),
        ];
        for (what, facts) in cases {
            order.drill = facts;
            assert_eq!(world.deliver(&never, &order).outcome, no(Code::DRILL_REFUSED), "{what}");
            assert_eq!(all(&world), before, "{what}");
        }
        order.drill = Some(drill("i-0fedcba9876543210", "eu-central-1"));
        order.work = Work::Run { segment: Segment::Drill, direction: Direction::Undo };
        assert_eq!(world.deliver(&never, &order).outcome, no(Code::DRILL_NO_UNDO));
        assert_eq!(all(&world), before);
    }

    #[test]
    fn h31_an_older_generation_and_another_campaign_are_kept_out_until_the_release() {
        let world = world();
        let table = table(|_| Ok(StepEnd::Done));
        let mut newer = order("op-1");
        newer.generation = Generation(4);
        assert_eq!(world.deliver(&table, &newer).outcome, Outcome::Done);
        let mut older = order("op-2");
        older.generation = Generation(3);
        assert_eq!(world.deliver(&table, &older).outcome, Outcome::Stale { code: Code::ORDER_SUPERSEDED });
        let mut stranger = order("op-3");
        stranger.campaign = CampaignId::new("c-2").unwrap();
        assert_eq!(world.deliver(&table, &stranger).outcome, yes(Code::HOST_HELD));
        assert_eq!(world.deliver(&table, &ask(&stranger, Work::Release)).outcome, yes(Code::HOST_HELD));
        assert_eq!(world.deliver(&table, &ask(&older, Work::Release)).outcome, Outcome::Stale { code: Code::ORDER_SUPERSEDED });

        let mut release = ask(&newer, Work::Release);
        release.hosts[0].operation = OperationId::new("op-4").unwrap();
        assert_eq!(world.deliver(&table, &release).outcome, Outcome::Done);
        assert_eq!(world.deliver(&table, &release).outcome, Outcome::AlreadyDone);
        assert_eq!(world.deliver(&table, &stranger).outcome, Outcome::Done);
        // An operation's id belongs to its campaign.
        let mut thief = stranger.clone();
        thief.hosts[0].operation = OperationId::new("op-1").unwrap();
        assert_eq!(world.deliver(&table, &thief).outcome, no(Code::ORDER_UNREADABLE));
    }

    #[test]
    fn h28_deliveries_of_one_operation_share_one_worker_and_one_report() {
        let world = Arc::new(world());
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let table = table(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(StepEnd::Done)
        });
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (world, table) = (world.clone(), table.clone());
                std::thread::spawn(move || world.deliver(&table, &order("op-1")))
            })
            .collect();
        let reports: Vec<Report> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(reports.iter().all(|report| report == &reports[0] && report.outcome == Outcome::Done));
        assert_eq!(calls.load(Ordering::SeqCst), 2, "the two steps of `stage`, once");
        // Late, by hours: answered with what it was, and nothing is done.
        let mut late = order("op-1");
        late.not_after = Timestamp(5);
        assert_eq!(world.deliver(&table, &late), reports[0]);
        assert_eq!(world.deliver(&table, &ask(&late, Work::Status)), reports[0]);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_worker_that_dies_is_noticed_and_followed_by_another() {
        let world = world();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let dying = table(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            0 => std::panic::resume_unwind(Box::new("killed")),
            _ => Ok(StepEnd::Done),
        });
        assert_eq!(world.deliver(&dying, &order("op-1")).outcome, Outcome::Done);
        assert_eq!(world.journal().workers(&OperationId::new("op-1").unwrap()), 2);

        // One that never comes up is not waited for for ever, and the next delivery goes on.
        let text = order("op-2").encode().unwrap();
        let report = deliver_with(&world.paths, &fast(), Some(&text), &|_| Ok(()), &*dying);
        assert_eq!(report.outcome, yes(Code::WORKER_DIED));
        assert_eq!(world.deliver(&dying, &order("op-2")).outcome, Outcome::Done);

        // One that dies each time ends as something a person has to look at.
        let hopeless = table(|_| std::panic::resume_unwind(Box::new("killed")));
        assert_eq!(world.deliver(&hopeless, &order("op-3")).outcome, Outcome::Stuck { code: Code::WORKER_DIED });
        assert_eq!(world.deliver(&hopeless, &order("op-3")).outcome, Outcome::Stuck { code: Code::WORKER_DIED });
    }

    #[test]
    fn a_killed_messenger_kills_no_work_and_a_question_joins_it() {
        let world = world();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let opened = gate.clone();
        let table = table(move |_| {
            let mut open = opened.0.lock().unwrap();
            while !*open {
                open = opened.1.wait(open).unwrap();
            }
            Ok(StepEnd::Done)
        });
        // The messenger's time ends long before the work.
        let mut short = order("op-1");
        short.not_after = SystemClock::new().now().plus(5);
        let report = world.deliver(&table, &short);
        assert_eq!(report.outcome, Outcome::Waiting { code: Code::STILL_RUNNING });
        assert_eq!(report.step, Some(Step::BackUp));
        // Nothing else gets in meanwhile; a survey or an adoption is answered.
        assert_eq!(world.deliver(&table, &order("op-2")).outcome, yes(Code::BUSY));
        let question = Order { not_after: short.not_after, ..ask(&order("op-2"), Work::Status) };
        assert_eq!(world.deliver(&table, &question).outcome, yes(Code::OPERATION_UNKNOWN));
        let adopted = adopt(&world, &table);
        assert_eq!((adopted.operations.len(), &adopted.operations[0].outcome, adopted.saw), (1, &None, None));

        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        let question = ask(&order("op-1"), Work::Status);
        assert_eq!(world.deliver(&table, &question).outcome, Outcome::Done);
        assert_eq!(world.journal().workers(&short.hosts[0].operation), 1);
    }

    #[test]
    fn h26_an_operation_that_waits_looks_again_when_it_is_asked() {
        let world = world();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let table = table(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            looks if looks < WAITS => Err(StepError::new(Kind::Waiting, Code::STATEMENT_FAILED, "SHUTDOWN of FIN is at work")),
            _ => Ok(StepEnd::Done),
        });
        // More often than workers may die over it.
        const WAITS: u32 = WORKERS as u32 + 2;
        let waits = Outcome::Waiting { code: Code::STATEMENT_FAILED };
        assert_eq!(world.deliver(&table, &order("op-1")).outcome, waits);
        let question = ask(&order("op-1"), Work::Status);
        // A question that meets a worker that has just reported is answered with that report.
        let mut answer = world.deliver(&table, &question).outcome;
        while answer != Outcome::Done {
            assert_eq!(answer, waits);
            answer = world.deliver(&table, &question).outcome;
        }
        assert_eq!(world.deliver(&table, &question).outcome, Outcome::Done);
        assert_eq!(calls.load(Ordering::SeqCst), WAITS + 2);
    }

    fn adopt(world: &World, table: &Arc<Scripted>) -> HostJournal {
        let mut order = order("op-adopt");
        order.work = Work::Adopt;
        let detail = world.deliver(table, &order).detail.unwrap();
        order.hosts[0].detail = Some(detail.digest);
        let chunks: Vec<Chunk> = (0..detail.chunks)
            .map(|chunk| {
                let report = world.deliver(table, &ask(&order, Work::Fetch { chunk }));
                // As it arrives, through the line.
                Report::decode(&report.encode()).unwrap().chunk.unwrap()
            })
            .collect();
        serde_json::from_slice(&detail.assemble(&chunks).unwrap()).unwrap()
    }

    #[test]
    fn h32_an_adopting_controller_learns_operations_logins_and_the_next_generation() {
        let world = world();
        let login = |ctx: &mut Context<'_>| {
            ctx.results.login(0, LoginResult::Refused);
            Err(StepError::new(Kind::Final, Code::LOGIN_REFUSED, "refused"))
        };
        let table = table(login);
        let mut first = order("op-1");
        first.generation = Generation(2);
        let report = world.deliver(&table, &first);
        assert_eq!((report.outcome.clone(), report.logins[0].result), (no(Code::LOGIN_REFUSED), LoginResult::Refused));
        let adopted = adopt(&world, &table);
        assert_eq!(
            (adopted.generation, adopted.held_by, adopted.plan),
            (Generation(2), Some(first.campaign.clone()), Some(first.plan))
        );
        assert_eq!(adopted.operations[0].outcome, Some(report.outcome));
        assert_eq!((adopted.logins.len(), adopted.logins[0].result), (1, LoginResult::Refused));
        assert_eq!(adopted.logins[0].secret, first.secrets[0]);
        // A detail that is not there is said so.
        let mut fetch = ask(&first, Work::Fetch { chunk: 0 });
        fetch.hosts[0].detail = Some(Digest::ZERO);
        assert_eq!(world.deliver(&table, &fetch).outcome, no(Code::DETAIL_UNKNOWN));
    }
    #[test]
    fn a_person_on_the_host_undoes_the_campaign_that_holds_it() {
        let world = world();
        let identity = Identity::read(&world.paths).unwrap();
        assert!(undo_order(&world.paths, &fast(), &identity).unwrap().is_none());
        let table = table(|ctx| Ok(if ctx.direction == Direction::Undo { StepEnd::Undone } else { StepEnd::Done }));
        let mut first = order("op-1");
        first.generation = Generation(2);
        first.hosts[0].prove_logins = vec![0];
        world.deliver(&table, &first);
        let undo = undo_order(&world.paths, &fast(), &identity).unwrap().unwrap();
        assert_eq!((&undo.campaign, undo.generation), (&first.campaign, first.generation));
        assert_eq!(undo.work, Work::Run { segment: Segment::Cutover, direction: Direction::Undo });
        // The databases and secrets of the campaign, and no login to prove.
        assert_eq!((&undo.secrets, &undo.hosts[0].databases), (&first.secrets, &first.hosts[0].databases));
        assert!(undo.hosts[0].prove_logins.is_empty());
        assert_eq!(world.deliver(&table, &undo).outcome, Outcome::Undone);
    }
}
