//! What a driver needs of the world.

use async_trait::async_trait;
use tde2hsm_campaign::facts::{Backup, BackupCopy, Cluster};
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::{CommandId, Event, Fetch, Gate, InventoryTaken, State, Why};
use tde2hsm_protocol::{ClusterId, Code, HsmId, InstanceId, OrderToken, Region, Timestamp};

/// A command to be sent, once.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    pub document: &'a DocumentPin,
    pub instances: &'a [InstanceId],
    /// The encoded order.
    pub order: &'a str,
    pub fetch: Fetch,
    /// In the command's Comment.
    pub token: &'a OrderToken,
    /// How long it may take to be delivered, in seconds.
    pub delivery_seconds: i64,
}

/// The part of a cloud that a campaign runs on.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Sends once, whatever happens.
    async fn send(&self, command: &Command<'_>) -> Result<CommandId, SendError>;

    /// Commands of this document with this token, sent at or after `since`, the newest first.
    async fn find(&self, document: &DocumentPin, token: &OrderToken, since: Timestamp) -> Result<Vec<CommandId>, Fault>;

    /// Each host's part of a command; a host that is absent is not known yet.
    async fn read(&self, command: &CommandId) -> Result<Vec<Invocation>, Fault>;

    /// `None`: there is no such cluster.
    async fn cluster(&self, cluster: &ClusterId) -> Result<Option<Cluster>, Fault>;

    /// Backups of the cluster that were begun after this on AWS's clock, and their copies in the second region.
    async fn backups(&self, cluster: &ClusterId, second: Option<&Region>, after: Timestamp) -> Result<Backups, Fault>;

    /// Has READY backups copied into the second region; those that are copied, or on their way, are left alone.
    async fn copy_backups(&self) -> Result<(), Fault>;

    /// Adds an HSM, sent once.
    async fn add_hsm(&self, cluster: &ClusterId, zone: &str) -> Result<HsmId, SendError>;

    /// Removes one HSM, sent once. That it is gone already is success.
    async fn remove_hsm(&self, cluster: &ClusterId, hsm: &HsmId) -> Result<(), SendError>;

    /// Surveys hosts and writes down what keys they need, in the second region. Answers for each of them.
    async fn take_inventories(&self, hosts: &[InstanceId]) -> Vec<InventoryTaken>;

    /// The time on AWS's clock, as far as its last answer told.
    fn aws_now(&self) -> Option<Timestamp>;
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backups {
    pub backups: Vec<Backup>,
    pub copies: Vec<BackupCopy>,
}

/// One host's part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub instance: InstanceId,
    pub stage: Stage,
    /// SSM's StatusDetails.
    pub details: String,
    /// What the script's step wrote, where it has ended.
    pub output: Option<String>,
}

/// Whether SSM is done with an invocation. That it is says nothing of the host (`A§1.3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Open,
    Over,
}

/// A call that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub code: Code,
    pub message: String,
}

/// A call that was not, or may not have been, sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Surely nothing happened.
    #[error(transparent)]
    NotSent(Fault),
    /// It may run.
    #[error(transparent)]
    Ambiguous(Fault),
}

#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    /// Returns at `until`, or earlier when there is reason to look again.
    async fn sleep_until(&self, until: Timestamp);
    /// Whether someone wants the loop to stop. What is begun is written down first.
    fn stopping(&self) -> bool {
        false
    }
}

/// Whoever watches. Nothing depends on it.
pub trait Observer: Send + Sync {
    fn event(&self, _event: &Event, _state: &State) {}
    /// A call that failed and will be made again.
    fn trouble(&self, _fault: &Fault) {}
    /// Nothing more to do before `until`, and what each host waits for.
    fn waiting(&self, _until: Timestamp, _why: &[(InstanceId, Why)]) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;
impl Observer for Silent {}

/// Whoever may open a gate.
#[async_trait]
pub trait Operator: Send + Sync {
    async fn ask(&self, gate: Gate, hosts: &[InstanceId], state: &State) -> Answer;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Approved,
    /// Not now: the campaign stands at its gate.
    Declined,
}

/// Opens no gate: for a Lambda, where an approval comes as an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverAsks;

#[async_trait]
impl Operator for NeverAsks {
    async fn ask(&self, _gate: Gate, _hosts: &[InstanceId], _state: &State) -> Answer {
        Answer::Declined
    }
}
