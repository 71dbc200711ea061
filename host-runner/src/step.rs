//! What a step sees, and what it may answer.

use crate::clock::Clock;
use crate::identity::Identity;
use crate::journal::{Event, Journal, JournalError, Subject};
use crate::owner::{Owner, OwnerError};
use crate::packages::Packages;
use crate::paths::Paths;
use crate::procs::Procs;
use crate::provider::Provider;
use crate::secrets::{SecretError, Secrets};
use serde_json::Value;
use std::collections::BTreeMap;
use tde2hsm_protocol::{
    Code, DatabaseOrder, DatabaseReport, Direction, DrillRead, HostOrder, KeyObservation, LoginProof, LoginResult, Order,
    Outcome, Retriable, Sid, Step,
};

/// One step of the table, for all databases of the order that it concerns.
pub trait StepBody: Sync {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError>;
    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError>;
}

/// How a step that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    Done,
    /// The goal held before anything was done (invariant 1).
    AlreadyDone,
    Undone,
    /// The step does not concern any database of this order (for example `reverse-migrate` for a software source).
    Nothing,
}

/// What the end of a step means for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is half done; a new order may try again.
    Retriable,
    /// Nothing is half done, but trying again would end the same.
    Final,
    /// Every database open and readable, part of the work done, no provider change (H29).
    Parked,
    /// Waits for something it names; ask again.
    Waiting,
    /// Neither finished nor undone without a person.
    Stuck,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    pub code: Code,
    /// One sentence for a person, without secrets; what is longer goes into the journal.
    pub message: String,
    pub kind: Kind,
    /// Which database it is about, where it is about one.
    pub sid: Option<Sid>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    pub fn new(kind: Kind, code: Code, message: impl Into<String>) -> StepError {
        StepError { code, message: message.into(), kind, sid: None, source: None }
    }
    pub fn of(mut self, sid: &Sid) -> StepError {
        self.sid = Some(sid.clone());
        self
    }
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> StepError {
        self.source = Some(Box::new(source));
        self
    }
    pub fn outcome(&self) -> Outcome {
        let code = self.code;
        match self.kind {
            Kind::Retriable => Outcome::Failed { code, retriable: Retriable::Yes },
            Kind::Final => Outcome::Failed { code, retriable: Retriable::No },
            Kind::Parked => Outcome::Parked { code },
            Kind::Waiting => Outcome::Waiting { code },
            Kind::Stuck => Outcome::Stuck { code },
        }
    }
}

/// Everything a step may touch.
pub struct Context<'a> {
    pub order: &'a Order,
    pub host: &'a HostOrder,
    pub identity: &'a Identity,
    pub journal: &'a mut Journal,
    pub secrets: &'a mut Secrets,
    pub clock: &'a dyn Clock,
    pub paths: &'a Paths,
    pub results: &'a mut Results,
    pub step: Step,
    pub direction: Direction,
    /// Checks clock, identity and validity again; the engine calls it before each step, a step before each key change (H23, H31).
    pub permit: &'a dyn Fn() -> Result<(), StepError>,
}

impl Context<'_> {
    pub fn databases(&self) -> &[DatabaseOrder] {
        &self.host.databases
    }
    pub fn database(&self, sid: &Sid) -> Option<&DatabaseOrder> {
        self.host.databases.iter().find(|database| database.sid == *sid)
    }
    pub fn provider(&self) -> Provider {
        Provider::new(self.paths)
    }
    pub fn packages(&self) -> Packages {
        Packages::new(self.paths)
    }
    pub fn procs(&self) -> Procs {
        Procs::new(self.paths)
    }
    /// The owner of a home's `bin/oracle`, who does all work on its files and programs (H33).
    pub fn owner(&self, oracle_home: &str) -> Result<Owner, OwnerError> {
        Owner::of_home(self.paths, oracle_home)
    }

    /// Durable before the effect it announces (invariant 2).
    pub fn intend(&mut self, subject: Subject, action: &str, data: Value) -> Result<(), StepError> {
        let data = self.secrets.redact_json(data);
        self.write(Event::Intent { step: self.step, direction: self.direction, subject, action: action.to_owned(), data })
    }
    /// What was observed after an effect.
    pub fn observed(&mut self, subject: Subject, action: &str, data: Value) -> Result<(), StepError> {
        let data = self.secrets.redact_json(data);
        self.write(Event::Observed { step: self.step, direction: self.direction, subject, action: action.to_owned(), data })
    }
    /// Something that a later step or the undo needs to know, for example pmon's environment before the swap.
    pub fn remember(&mut self, subject: Subject, name: &str, value: Value) -> Result<(), StepError> {
        let value = self.secrets.redact_json(value);
        self.write(Event::Fact { subject, name: name.to_owned(), value })
    }
    /// The newest value that this campaign remembered.
    pub fn recall(&self, subject: &Subject, name: &str) -> Option<Value> {
        self.journal.fact(&self.order.campaign, subject, name)
    }
    /// A database was started by us: counted over the whole campaign, for the report and the plan's promise.
    pub fn started(&mut self, sid: &Sid) -> Result<(), StepError> {
        self.write(Event::Start { sid: sid.clone() })
    }
    pub fn redact(&self, text: &str) -> String {
        self.secrets.redact(text)
    }

    fn write(&mut self, event: Event) -> Result<(), StepError> {
        let at = self.clock.now();
        self.journal.append(at, &self.order.campaign, Some(&self.host.operation), event)?;
        Ok(())
    }
}

/// What this operation found out, a database a row; the engine makes the report of it.
#[derive(Debug, Default)]
pub struct Results {
    pub databases: BTreeMap<Sid, DatabaseResult>,
    pub logins: Vec<LoginProof>,
}

#[derive(Debug, Clone, Default)]
pub struct DatabaseResult {
    /// Set where a database ended otherwise than the step it was in.
    pub outcome: Option<Outcome>,
    /// Seconds away from its users, summed over this operation.
    pub away: u32,
    pub keys: Vec<KeyObservation>,
    pub orphans: u16,
    pub drill: Option<DrillRead>,
}

impl Results {
    pub fn database(&mut self, sid: &Sid) -> &mut DatabaseResult {
        self.databases.entry(sid.clone()).or_default()
    }
    pub fn login(&mut self, secret: u16, result: LoginResult) {
        self.logins.retain(|proof| proof.secret != secret);
        self.logins.push(LoginProof { secret, result });
    }
    /// The report's rows, in the order's order.
    pub fn reports(&self, host: &HostOrder, outcome: &Outcome, starts: impl Fn(&Sid) -> u16) -> Vec<DatabaseReport> {
        host.databases
            .iter()
            .map(|database| {
                let found = self.databases.get(&database.sid).cloned().unwrap_or_default();
                DatabaseReport {
                    sid: database.sid.clone(),
                    outcome: found.outcome.unwrap_or_else(|| outcome.clone()),
                    starts: starts(&database.sid),
                    away: found.away,
                    keys: found.keys,
                    orphans: found.orphans,
                    drill: found.drill,
                }
            })
            .collect()
    }
}

macro_rules! step_error {
    ($($error:ty => $kind:expr;)*) => {
        $(impl From<$error> for StepError {
            fn from(error: $error) -> StepError {
                StepError::new($kind, error.code(), error.to_string()).caused_by(error)
            }
        })*
    };
}
step_error! {
    JournalError => Kind::Stuck;
    OwnerError => Kind::Retriable;
    SecretError => Kind::Retriable;
    crate::files::FileError => Kind::Retriable;
    crate::provider::ProviderError => Kind::Retriable;
    crate::packages::PackageError => Kind::Retriable;
    crate::sqlnet::SqlnetError => Kind::Final;
}
