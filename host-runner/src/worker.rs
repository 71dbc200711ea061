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
use crate::engine::{self, Host, Steps, blank, in_window, sids};
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
    let order = match text.ok_or(WireError::NoReport).and_then(Order::decode) {
        Ok(order) => order,
        Err(WireError::Version(v)) => {
            let words = format!("the order has protocol version {v}, this runner speaks {PROTOCOL_VERSION}");
            return unknown(paths, clock, None, no(Code::PROTOCOL_VERSION), words);
        }
        Err(error) => return unknown(paths, clock, None, no(Code::ORDER_UNREADABLE), format!("no order can be read: {error}")),
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
    let delivery = Delivery { paths, clock, identity: &identity, order: &order, mine };
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
impl From<crate::journal::JournalError> for Failure {
    fn from(error: crate::journal::JournalError) -> Failure {
        Failure::new(Outcome::Stuck { code: error.code() }, error.to_string())
    }
}

struct Delivery<'a> {
    paths: &'a Paths,
    clock: &'a dyn Clock,
    identity: &'a Identity,
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
        let mut report = blank(self.identity, self.order, self.mine, self.clock, outcome);
        report.message = message.into();
        report.journal_head = Journal::read(&self.paths.journal()).map_or(Digest::ZERO, |journal| journal.head());
        report
    }

    fn answer(&self) -> Result<Report, Failure> {
        // A question about an operation is answered with the truth at any time; "expired" would be taken for its end.
        let late = !in_window(self.order, self.clock) && self.order.work != Work::Status;
        if late {
            return match self.order.work {
                // One that ended in time may be delivered a second time when it is late.
                Work::Run { .. } => match recorded(self.paths, &self.mine.operation)? {
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
        let (from, until, now) = (self.order.not_before.0, self.order.not_after.0, self.clock.now().0);
        format!("valid from {from} until {until}; this host's clock says {now}")
    }

    fn survey(&self) -> Result<Report, Failure> {
        let survey = crate::survey::take(self.paths, self.identity, self.clock);
        let asked = sids(self.mine);
        let all: Vec<Sid> = survey.databases.iter().map(|database| database.sid.clone()).collect();
        let mut report = self.report(Outcome::Done, "");
        report.saw = Some(survey.saw(if asked.is_empty() { &all } else { &asked }));
        report.detail = Some(details::put(self.paths, &survey)?);
        Ok(report)
    }

    fn fetch(&self, index: u16) -> Result<Report, Failure> {
        let unknown = || Failure::new(no(Code::DETAIL_UNKNOWN), "the host does not keep that detail");
        let digest = self.mine.detail.ok_or_else(unknown)?;
        let (detail, chunk) = details::chunk(self.paths, digest, index)?.ok_or_else(unknown)?;
        let mut report = self.report(Outcome::Done, "");
        report.detail = Some(detail);
        report.chunk = Some(chunk);
        Ok(report)
    }

    fn run(&self) -> Result<Report, Failure> {
        let operation = &self.mine.operation;
        let dir = self.paths.operations().join(operation.as_str());
        files::make_dir(&dir, 0o700)?;
        if let Some(stored) = stored_order(self.paths, operation)?
            && stored.campaign != self.order.campaign
        {
            return Err(Failure::new(no(Code::ORDER_UNREADABLE), format!("{operation} is an operation of {}", stored.campaign)));
        }
        self.join(Some(self.order))
    }

    fn status(&self) -> Result<Report, Failure> {
        match stored_order(self.paths, &self.mine.operation)? {
            Some(stored) if stored.campaign == self.order.campaign => self.join(None),
            _ => Err(Failure::new(yes(Code::OPERATION_UNKNOWN), "no such operation was ever delivered")),
        }
    }

    /// Waits for the operation's report, and sees to it that someone works on it. `fresh`: an order to put down first.
    fn join(&self, fresh: Option<&Order>) -> Result<Report, Failure> {
        let operation = &self.mine.operation;
        let start = self.clock.monotonic();
        let left = Duration::from_secs(u64::try_from(self.order.not_after.since(self.clock.now())).unwrap_or(0));
        // A question that came late is still answered, with what is known at once.
        let limit = left.min(WAIT);
        for _ in 0..WORKERS {
            if let Some(end) = self.see_to_it(fresh)? {
                return Ok(end);
            }
            // Someone is at work: until the report is there, or nobody is any more.
            let mut pause = Duration::from_millis(5);
            loop {
                if let Some(report) = recorded(self.paths, operation)? {
                    return Ok(report);
                }
                if self.holder()? != Holder::Operation(operation.clone()) {
                    // It may have reported between the two looks.
                    if let Some(report) = recorded(self.paths, operation)? {
                        return Ok(report);
                    }
                    break;
                }
                if self.clock.monotonic() - start >= limit {
                    let entries = Journal::read(&self.paths.journal())?;
                    let mut report = self.report(Outcome::Waiting { code: Code::STILL_RUNNING }, "the worker is still at work");
                    report.step = entries.step_of(operation);
                    return Ok(report);
                }
                self.clock.pause(pause);
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
        let start = self.clock.monotonic();
        loop {
            match Lock::holder(self.paths).map_err(io)? {
                Holder::Unnamed if self.clock.monotonic() - start < Duration::from_secs(1) => {
                    self.clock.pause(Duration::from_millis(5));
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
        let file =
            std::fs::File::options().create(true).truncate(false).write(true).open(place(self.paths, operation, "deliver.lock"));
        let _one = Flock::lock(file.map_err(io)?, FlockArg::LockExclusive).map_err(|(_, error)| io(error.into()))?;

        let before = recorded(self.paths, operation)?;
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
        let entries = Journal::read(&self.paths.journal())?;
        if let Some(order) = fresh {
            fence(&entries, order)?;
            let bytes = serde_json::to_vec(order).expect("protocol types serialise");
            files::write_own(&place(self.paths, operation, "order.json"), &bytes, 0o600)?;
        }
        let stored = stored_order(self.paths, operation)?;
        let valid = stored.as_ref().is_some_and(|order| in_window(order, self.clock));
        if entries.workers(operation) >= WORKERS {
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
            std::fs::remove_file(place(self.paths, operation, "report.json")).map_err(io)?;
        }
        self.start_worker()?;
        let start = self.clock.monotonic();
        while self.clock.monotonic() - start < START {
            if recorded(self.paths, operation)?.is_some() || self.holder()? == Holder::Operation(operation.clone()) {
                return Ok(None);
            }
            self.clock.pause(Duration::from_millis(3));
        }
        Err(Failure::new(yes(Code::WORKER_DIED), format!("no worker came up within {} s", START.as_secs())))
    }

    /// In a unit of its own where there is systemd, else in a session of its own.
    fn start_worker(&self) -> Result<(), Failure> {
        let runner = self.paths.runner();
        let operation = self.mine.operation.as_str();
        if self.paths.at("/run/systemd/system").is_dir() {
            let unit = format!("--unit=tde2hsm-{operation}-{}", self.clock.now().0);
            let status = Command::new("/usr/bin/systemd-run")
                .args(["--quiet", "--collect", "--no-block", &unit])
                // The unit's end must not end a database that was started from it (H24).
                .args(["--property=KillMode=process", "--property=SendSIGKILL=no", "--property=TasksMax=infinity"])
                .arg(&runner)
                .args(["worker", operation])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if status.is_ok_and(|status| status.success()) {
                return Ok(());
            }
        }
        let mut command = Command::new(&runner);
        command.args(["worker", operation]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
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
        #[expect(clippy::zombie_processes, reason = "the worker outlives the process that delivers")]
        let started = command.spawn();
        started.map(drop).map_err(|error| Failure::new(yes(Code::WORKER_DIED), format!("the worker cannot be started: {error}")))
    }

    fn adopt(&self) -> Result<Report, Failure> {
        let entries = Journal::read(&self.paths.journal())?;
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
        let last = operations.last().and_then(|known| stored_order(self.paths, &known.operation).ok().flatten());
        let databases = last.as_ref().and_then(|order| order.host(&self.identity.instance)).map(sids).unwrap_or_default();
        let quiet = self.holder()? == Holder::Nobody;
        let saw =
            (quiet && !databases.is_empty()).then(|| crate::survey::take(self.paths, self.identity, self.clock).saw(&databases));
        let journal = HostJournal {
            v: PROTOCOL_VERSION,
            instance: self.identity.instance.clone(),
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
        report.detail = Some(details::put(self.paths, &journal)?);
        Ok(report)
    }

    fn release(&self) -> Result<Report, Failure> {
        let io = |error: std::io::Error| Failure::new(yes(Code::FILE_WORK), format!("the lock cannot be taken: {error}"));
        let Some(_lock) = Lock::take(self.paths, Some(&self.mine.operation)).map_err(io)? else {
            return Err(Failure::new(yes(Code::BUSY), "another operation is at work"));
        };
        let mut journal = Journal::open(&self.paths.journal())?;
        fence(&journal, self.order)?;
        let outcome = match journal.held_by() {
            None => Outcome::AlreadyDone,
            Some(_) => {
                journal.append(self.clock.now(), &self.order.campaign, Some(&self.mine.operation), Event::Released)?;
                Outcome::Done
            }
        };
        Ok(self.report(outcome, ""))
    }
}

/// The worker: `host-runner worker OPERATION`. It speaks to nobody; its report is a file.
pub fn work(paths: &Paths, clock: &dyn Clock, operation: &OperationId) -> std::io::Result<()> {
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
    let hook = (paths.clone(), identity.clone(), order.clone(), mine.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let (paths, identity, order, mine) = &hook;
        let at = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        // The words of a panic may hold anything; only the place is told.
        let report = engine::defect(identity, order, mine, &crate::clock::SystemClock::new(), &format!("a defect{at}"));
        let bytes = serde_json::to_vec(&report).unwrap_or_default();
        let _ = files::write_own(&place(paths, &mine.operation, "report.json"), &bytes, 0o600);
        std::process::exit(0);
    }));
    let report = match attempt(paths, clock, &identity, &order, mine) {
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

fn attempt(paths: &Paths, clock: &dyn Clock, identity: &Identity, order: &Order, mine: &HostOrder) -> Result<Report, Failure> {
    let Work::Run { segment, direction } = order.work else {
        return Err(Failure::new(no(Code::ORDER_UNREADABLE), "the order asks for nothing that a worker does"));
    };
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
    let host = Host { paths, identity, clock, table: &Steps };
    let mut report = engine::run(&host, &mut journal, order, mine, segment, direction);
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
