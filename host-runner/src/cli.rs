//! The command line.
//!
//! `run` is what the SSM document executes: it reads the order from `SSM_Order`, writes one report line to standard
//! output, nothing to standard error, and ends with 0 whenever it could write. `survey`, `status`, `undo` and `doctor`
//! are for a person on the host; `worker`, `as-owner` and `probe` are what the program starts itself.

use crate::clock::{Clock, SystemClock};
use crate::engine::blank;
use crate::identity::Identity;
use crate::paths::Paths;
use crate::{doctor, owner, provider, secrets, worker};
use std::io::Write as _;
use tde2hsm_protocol::{
    CampaignId, Code, Digest, Generation, HostOrder, OperationId, Order, OrderToken, Outcome, PROTOCOL_VERSION, Report,
    Retriable, Work,
};

const USAGE: &str = "usage: host-runner run | survey | status | undo | doctor\n\
    `run` reads its order from the environment variable SSM_Order and prints one report line\n";

pub fn main() -> i32 {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Started with another user's rights; it holds no secret but what it is given.
        ["as-owner"] => i32::from(owner::serve(std::io::stdin().lock(), std::io::stdout().lock()).is_err()),
        ["probe", what, library] => {
            secrets::harden();
            provider::probe::main(what, library)
        }
        ["worker", operation] => {
            secrets::harden();
            let Ok(operation) = OperationId::new(*operation) else { return 2 };
            i32::from(worker::work(&Paths::host(), &SystemClock::new(), &operation).is_err())
        }
        ["run"] => {
            secrets::harden();
            report_panics();
            let text = std::env::var("SSM_Order").ok();
            say(&worker::deliver(&Paths::host(), &SystemClock::new(), text.as_deref()))
        }
        ["survey"] => person(survey),
        ["status"] => person(status),
        ["undo"] => person(undo),
        ["doctor"] => {
            let mut out = std::io::stdout().lock();
            i32::from(doctor::examine(&Paths::host(), &mut out).is_err())
        }
        ["--version" | "-V" | "version"] => print(concat!("host-runner ", env!("CARGO_PKG_VERSION"), "\n")),
        ["help" | "--help" | "-h"] => print(USAGE),
        _ => {
            print(USAGE);
            2
        }
    }
}

fn print(text: &str) -> i32 {
    i32::from(std::io::stdout().lock().write_all(text.as_bytes()).is_err())
}

/// The one line. A reader that is gone is no panic: the report is on disk as well.
fn say(report: &Report) -> i32 {
    print(&format!("{}\n", report.encode()))
}

/// A defect ends as a report, too. Only the place is told: a panic's words may hold anything.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let identity = Identity::read(&Paths::host());
        let order = std::env::var("SSM_Order").ok().and_then(|text| Order::decode(&text).ok());
        if let (Ok(identity), Some(order)) = (identity, order)
            && let Some(mine) = order.host(&identity.instance)
        {
            say(&crate::engine::defect(&identity, &order, mine, &SystemClock::new(), &format!("a defect{at}")));
        } else {
            print(&format!("host-runner met a defect{at}\n"));
        }
        std::process::exit(0);
    }));
}

/// Something that a person asks for on the host: needs root and an identity.
fn person(ask: fn(&Paths, &dyn Clock, &Identity) -> Report) -> i32 {
    secrets::harden();
    let (paths, clock) = (Paths::host(), SystemClock::new());
    if !nix::unistd::geteuid().is_root() {
        return print(&format!("{}: run it as root\n", Code::NOT_ROOT));
    }
    match Identity::read(&paths) {
        Ok(identity) => say(&ask(&paths, &clock, &identity)),
        Err(error) => print(&format!("{}: {error}\n", error.code())),
    }
}

/// An order that a person gives by starting us.
fn own_order(identity: &Identity, clock: &dyn Clock, work: Work) -> Order {
    let name = format!("on-host-{}", clock.now().0);
    Order {
        v: PROTOCOL_VERSION,
        account: identity.account.clone(),
        region: identity.region.clone(),
        campaign: CampaignId::new("on-host").expect("a campaign id"),
        plan: Digest::ZERO,
        generation: Generation(0),
        token: OrderToken::new(name.as_str()).expect("letters and digits"),
        not_before: clock.now(),
        not_after: clock.now().plus(4 * 3600),
        journal_head: Digest::ZERO,
        work,
        target: None,
        secrets: Vec::new(),
        escrow: None,
        drill: None,
        hosts: vec![HostOrder {
            instance: identity.instance.clone(),
            operation: OperationId::new(name.as_str()).expect("letters and digits"),
            saw: None,
            prove_logins: Vec::new(),
            databases: Vec::new(),
            detail: None,
        }],
    }
}

fn survey(paths: &Paths, clock: &dyn Clock, identity: &Identity) -> Report {
    deliver(paths, clock, &own_order(identity, clock, Work::Survey))
}

/// What became of the last operation.
fn status(paths: &Paths, clock: &dyn Clock, identity: &Identity) -> Report {
    let order = own_order(identity, clock, Work::Status);
    let known = worker::known(paths);
    let words = match known.last() {
        Some((operation, Some(outcome), _)) => format!("{operation} ended as {}", outcome.name()),
        Some((operation, None, _)) => format!("{operation} is at work, or its worker died"),
        None => "no operation was ever accepted on this host".to_owned(),
    };
    let outcome = known.into_iter().next_back().and_then(|(_, outcome, _)| outcome).unwrap_or(Outcome::Done);
    let mut report = blank(identity, &order, &order.hosts[0], clock, outcome);
    report.message = words;
    report
}

/// The last campaign's cutover, undone on the host without a controller.
fn undo(paths: &Paths, clock: &dyn Clock, identity: &Identity) -> Report {
    match worker::undo_order(paths, clock, identity) {
        Ok(Some(order)) => deliver(paths, clock, &order),
        other => {
            let order = own_order(identity, clock, Work::Status);
            let outcome = Outcome::Failed { code: Code::OPERATION_UNKNOWN, retriable: Retriable::No };
            let mut report = blank(identity, &order, &order.hosts[0], clock, outcome);
            report.message = match other {
                Err(error) => error.to_string(),
                _ => "no campaign holds this host".to_owned(),
            };
            report
        }
    }
}

fn deliver(paths: &Paths, clock: &dyn Clock, order: &Order) -> Report {
    let text = order.encode().ok();
    worker::deliver(paths, clock, text.as_deref())
}
