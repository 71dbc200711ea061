//! One turn, and the loop of turns.

use crate::ports::{Backups, Command, Fault, SendError, Stage};
use crate::{Answer, Driver, Operator};
use tde2hsm_campaign::reducer::{Decision, End, EventKind, Gate, HsmIntent, OpenCommand, SendOrder};
use tde2hsm_journal::JournalError;
use tde2hsm_protocol::{Code, HsmId, InstanceId, OrderToken, Region, Report, Timestamp, WireError};

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Something happened; decide again.
    Again,
    /// Nothing more to do before this.
    Wait {
        until: Timestamp,
    },
    /// A person has to open a gate; other hosts may be at work all the same, and want to be looked at by `wake`.
    Asks {
        gate: Gate,
        hosts: Vec<InstanceId>,
        wake: Option<Timestamp>,
    },
    /// The operator did not open a gate, or wants to stop.
    Stopped,
    Ended(End),
}

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("the campaign's journal did not take an entry")]
    Journal(#[source] JournalError),
    #[error("an order cannot be written")]
    Order(#[source] WireError),
    /// A call that will not succeed by being made again, or that failed too often in a row.
    #[error("{0}")]
    Cloud(Fault),
}

impl DriverError {
    pub fn code(&self) -> Code {
        match self {
            DriverError::Journal(cause) => cause.code(),
            DriverError::Order(_) => Code::ORDER_UNREADABLE,
            DriverError::Cloud(fault) => fault.code,
        }
    }
}

impl From<JournalError> for DriverError {
    fn from(cause: JournalError) -> DriverError {
        DriverError::Journal(cause)
    }
}

/// Seconds from sending a command until it is first read.
const FIRST_LOOK: i64 = 3;
/// Seconds until a call that failed is made again.
const PAUSE: i64 = 5;
/// This many failing turns in a row, a few minutes, end the loop; the campaign can be resumed.
const PATIENCE: u32 = 30;

impl Driver<'_> {
    /// Carries out what the reducer decides now, once.
    pub async fn turn(&mut self) -> Result<Turn, DriverError> {
        self.turn_with(&mut None).await
    }

    /// Turns until the campaign ends, stops at a gate nobody opens, or is told to stop.
    pub async fn run(&mut self, operator: &dyn Operator) -> Result<Turn, DriverError> {
        let mut troubles = 0;
        // Asked once: who said no is not asked again while the last hosts come in.
        let mut declined = None;
        loop {
            if self.clock.stopping() {
                return Ok(Turn::Stopped);
            }
            let mut trouble = None;
            let turn = self.turn_with(&mut trouble).await?;
            match trouble {
                Some(fault) if hopeless(&fault) || troubles >= PATIENCE => return Err(DriverError::Cloud(fault)),
                Some(fault) => {
                    troubles += 1;
                    self.observer.trouble(&fault);
                    self.clock.sleep_until(self.clock.now().plus(PAUSE)).await;
                    continue;
                }
                None => troubles = 0,
            }
            match turn {
                Turn::Again => {}
                Turn::Wait { until } => self.clock.sleep_until(until).await,
                Turn::Asks { gate, wake, .. } if declined == Some(gate) => match wake {
                    Some(wake) => self.clock.sleep_until(wake).await,
                    None => return Ok(Turn::Stopped),
                },
                Turn::Asks { gate, hosts, .. } => match operator.ask(gate, &hosts, &self.state).await {
                    Answer::Approved => self.record(vec![EventKind::Approved { gate }]).await?,
                    Answer::Declined => declined = Some(gate),
                },
                Turn::Stopped | Turn::Ended(_) => return Ok(turn),
            }
        }
    }

    /// A call without an answer leaves `trouble` behind and no event: the reducer asks for it again.
    async fn turn_with(&mut self, trouble: &mut Option<Fault>) -> Result<Turn, DriverError> {
        let decisions = self.state.decide(self.clock.now());
        let before = self.head;
        // The earliest moment at which any of the decisions wants to be looked at again.
        let mut wake: Option<Timestamp> = None;
        let mut sooner = |at: Timestamp| wake = Some(wake.map_or(at, |wake| wake.min(at)));
        let mut asks = None;
        for decision in decisions {
            if self.clock.stopping() {
                return Ok(Turn::Stopped);
            }
            match decision {
                Decision::ObserveCluster => self.observe_cluster(trouble).await?,
                Decision::Send(order) => self.send(*order, trouble).await?,
                Decision::ObserveProtection { second, after } => self.observe_protection(second, after, trouble).await?,
                Decision::TakeInventories { hosts } => {
                    let hosts = self.cloud.take_inventories(&hosts).await;
                    self.record(vec![EventKind::InventoriesTaken { hosts }]).await?;
                }
                Decision::CopyBackups => self.copy_backups(trouble).await?,
                Decision::AddHsm(intent) => self.add_hsm(intent, trouble).await?,
                Decision::RemoveHsm { hsm } => self.remove_hsm(hsm, trouble).await?,
                Decision::FindCommand { token, since, .. } => self.find(&token, since, trouble).await?,
                Decision::ReadCommands { commands, every } => {
                    for command in &commands {
                        sooner(self.read(command, every, trouble).await?);
                    }
                }
                Decision::Ask { gate, hosts } => asks = Some((gate, hosts)),
                Decision::Wait { until, why } => {
                    self.observer.waiting(until, &why);
                    sooner(until);
                }
                Decision::Finish { end } => {
                    self.record(vec![EventKind::Ended { end }]).await?;
                    return Ok(Turn::Ended(end));
                }
            }
        }
        if self.head != before {
            return Ok(Turn::Again);
        }
        if let Some((gate, hosts)) = asks {
            return Ok(Turn::Asks { gate, hosts, wake });
        }
        // Nothing to do and nothing to wait for: the reducer is asked again, but not in a hurry.
        Ok(Turn::Wait { until: wake.unwrap_or_else(|| self.clock.now().plus(PAUSE)) })
    }

    async fn observe_cluster(&mut self, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let id = self.state.plan().target.cluster.clone();
        let event = match self.cloud.cluster(&id).await {
            Ok(Some(cluster)) => EventKind::ClusterObserved { cluster },
            Ok(None) => EventKind::ClusterUnknown { why: format!("there is no cluster `{id}`") },
            Err(fault) => {
                let why = fault.to_string();
                *trouble = Some(fault);
                EventKind::ClusterUnknown { why }
            }
        };
        Ok(self.record(vec![event]).await?)
    }

    /// A look that failed is an event too: the gate says what it could not see, and is patient where the loop is not.
    async fn observe_protection(
        &mut self,
        second: Option<Region>,
        after: Timestamp,
        trouble: &mut Option<Fault>,
    ) -> Result<(), DriverError> {
        let cluster = self.state.plan().target.cluster.clone();
        let event = match self.cloud.backups(&cluster, second.as_ref(), after).await {
            Ok(Backups { backups, copies }) => EventKind::ProtectionObserved { aws_at: self.cloud.aws_now(), backups, copies },
            Err(fault) => EventKind::ProtectionUnknown { why: self.failed(fault, trouble) },
        };
        Ok(self.record(vec![event]).await?)
    }

    async fn copy_backups(&mut self, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let failed = self.cloud.copy_backups().await.err().map(|fault| self.failed(fault, trouble));
        Ok(self.record(vec![EventKind::BackupsCopied { failed }]).await?)
    }

    async fn add_hsm(&mut self, intent: HsmIntent, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let cluster = self.state.plan().target.cluster.clone();
        let zone = intent.zone.clone();
        self.record(vec![EventKind::HsmIntended(intent)]).await?;
        let event = match self.cloud.add_hsm(&cluster, &zone).await {
            Ok(hsm) => EventKind::HsmAdded { hsm },
            Err(SendError::NotSent(fault)) => EventKind::HsmNotAdded { why: self.failed(fault, trouble) },
            Err(SendError::Ambiguous(fault)) => EventKind::HsmAmbiguous { why: self.failed(fault, trouble) },
        };
        Ok(self.record(vec![event]).await?)
    }

    async fn remove_hsm(&mut self, hsm: HsmId, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let cluster = self.state.plan().target.cluster.clone();
        self.record(vec![EventKind::HsmRemovalIntended { hsm: hsm.clone() }]).await?;
        let event = match self.cloud.remove_hsm(&cluster, &hsm).await {
            Ok(()) => EventKind::HsmRemovalAccepted { hsm },
            Err(SendError::NotSent(fault)) => EventKind::HsmNotRemoved { hsm, why: self.failed(fault, trouble) },
            // Whether it is going is seen in the cluster.
            Err(SendError::Ambiguous(fault)) => {
                self.failed(fault, trouble);
                return Ok(());
            }
        };
        Ok(self.record(vec![event]).await?)
    }

    /// What no waiting mends ends the loop; of what may pass it is said, and the reducer asks again in its own time.
    fn failed(&self, fault: Fault, trouble: &mut Option<Fault>) -> String {
        let why = fault.to_string();
        if hopeless(&fault) {
            *trouble = Some(fault);
        } else {
            self.observer.trouble(&fault);
        }
        why
    }

    async fn send(&mut self, send: SendOrder, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let SendOrder { mut order, fetch, intent } = send;
        let token = intent.token.clone();
        self.record(vec![EventKind::OrderIntended(intent)]).await?;
        // The hosts are shown the journal as it is with this intent in it (H38).
        order.journal_head = self.head.link;
        let text = order.encode().map_err(DriverError::Order)?;
        let instances: Vec<InstanceId> = order.hosts.iter().map(|host| host.instance.clone()).collect();
        let document = self.state.document().clone();
        let delivery_seconds = order.not_after.since(self.clock.now());
        let command =
            Command { document: &document, instances: &instances, order: &text, fetch, token: &token, delivery_seconds };
        let event = match self.cloud.send(&command).await {
            Ok(command) => {
                let every = i64::from(self.state.plan().policy.poll_seconds.max(1));
                self.due.insert(token.clone(), self.clock.now().plus(FIRST_LOOK.min(every)));
                EventKind::OrderSent { token, command }
            }
            Err(SendError::NotSent(fault)) => EventKind::OrderNotSent { token, why: self.failed(fault, trouble) },
            Err(SendError::Ambiguous(fault)) => {
                self.observer.trouble(&fault);
                EventKind::OrderAmbiguous { token, why: fault.to_string() }
            }
        };
        Ok(self.record(vec![event]).await?)
    }

    async fn find(&mut self, token: &OrderToken, since: Timestamp, trouble: &mut Option<Fault>) -> Result<(), DriverError> {
        let document = self.state.document().clone();
        let event = match self.cloud.find(&document, token, since).await {
            // The oldest of several is the one that the hosts' answers belong to; to a second they answer the same.
            Ok(mut found) => match found.pop() {
                Some(command) => EventKind::CommandFound { token: token.clone(), command },
                None => EventKind::CommandNotFound { token: token.clone() },
            },
            Err(fault) => {
                *trouble = Some(fault);
                return Ok(());
            }
        };
        Ok(self.record(vec![event]).await?)
    }

    /// Reads a command when it is due, and then at most once in `every` seconds; answers when it is due again.
    async fn read(&mut self, open: &OpenCommand, every: u32, trouble: &mut Option<Fault>) -> Result<Timestamp, DriverError> {
        let now = self.clock.now();
        let every = i64::from(every);
        // The first look comes early, but not at once: no host has answered by then.
        if let Some(due) = self.due.get(&open.token).map(|due| (*due).min(now.plus(every)))
            && now < due
        {
            return Ok(due);
        }
        let due = now.plus(every);
        self.due.insert(open.token.clone(), due);
        let invocations = match self.cloud.read(&open.command).await {
            Ok(invocations) => invocations,
            Err(fault) => {
                *trouble = Some(fault);
                return Ok(due);
            }
        };
        let aws_at = self.cloud.aws_now();
        let mut events = Vec::new();
        for (instance, operation) in &open.hosts {
            let Some(found) = invocations.iter().find(|i| i.instance == *instance && i.stage == Stage::Over) else { continue };
            let report = found.output.as_deref().and_then(|output| Report::decode(output).ok());
            let (token, instance, operation) = (open.token.clone(), instance.clone(), operation.clone());
            events.push(match report {
                Some(report) => EventKind::ReportReceived { token, instance, operation, report: Box::new(report), aws_at },
                None => EventKind::InvocationEnded { token, instance, operation, status: found.details.clone() },
            });
        }
        if events.len() == open.hosts.len() {
            self.due.remove(&open.token);
        }
        self.record(events).await?;
        Ok(due)
    }
}

/// Calls that no waiting mends.
fn hopeless(fault: &Fault) -> bool {
    [Code::AWS_DENIED, Code::AWS_CREDENTIALS].contains(&fault.code)
}
