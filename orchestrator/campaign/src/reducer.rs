//! The campaign as one pure function: `(state, event) -> state` and `(state, now) -> decisions`.
//!
//! The driver carries decisions out and decides nothing. It appends an event to the journal before each effect and one
//! after, and asks for decisions only when every effect it began has its event. So a state rebuilt from the journal
//! knows of each order whether it was only intended, sent, or never came back, and the same code that drives a
//! campaign also resumes it.
//!
//! Nothing is sent twice blindly: an order that was intended and has no answer is looked for by its token before
//! anything else happens to its hosts, and a command that ended without a readable report is answered by asking the
//! host, never by sending the work again.

mod apply;
mod decide;
mod inventories;
mod protect;
mod status;

use crate::facts::{Backup, BackupCopy, Cluster};
use crate::plan::{DocumentPin, Plan, Window};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use tde2hsm_protocol::{
    CampaignId, Code, DatabaseReport, Digest, Direction, Generation, HostJournal, HsmId, InstanceId, LoginResult, OperationId,
    Order, OrderToken, Region, Report, SecretRef, SecretVersion, Segment, ShortDigest, Sid, Step, Timestamp, Work,
};

pub use inventories::{Inventories, InventoryTaken, MissingInventory};
pub use protect::{HsmIntent, Protected, Protection, WaveProtection};
pub use status::{HostStatus, Standing, Summary, Why};
pub use tde2hsm_protocol::Fetch;

/// What happened, and when on the controller's clock. One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The first entry of every journal.
    CampaignStarted {
        plan: Digest,
        campaign: CampaignId,
        generation: Generation,
    },
    Approved {
        gate: Gate,
    },
    /// Before SendCommand; taken as it is from [`SendOrder::intent`].
    OrderIntended(Intent),
    /// SendCommand answered.
    OrderSent {
        token: OrderToken,
        command: CommandId,
    },
    /// AWS refused the call, or it never left this machine: proved not sent.
    OrderNotSent {
        token: OrderToken,
        why: String,
    },
    /// The answer was lost.
    OrderAmbiguous {
        token: OrderToken,
        why: String,
    },
    /// A command with the token in its Comment exists.
    CommandFound {
        token: OrderToken,
        command: CommandId,
    },
    /// No command with the token is listed at `at`.
    CommandNotFound {
        token: OrderToken,
    },
    /// An invocation of the order ended with a readable report. Text from a host: judged here, not by the driver (H36).
    ReportReceived {
        token: OrderToken,
        instance: InstanceId,
        operation: OperationId,
        report: Box<Report>,
        /// When it was read, on AWS's clock, where that is known: backups bear times of no other (H8).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aws_at: Option<Timestamp>,
    },
    /// An invocation of the order reached a terminal status without a readable report.
    InvocationEnded {
        token: OrderToken,
        instance: InstanceId,
        operation: OperationId,
        /// As SSM spells StatusDetails.
        status: String,
    },
    ClusterObserved {
        cluster: Cluster,
    },
    /// The cluster could not be described, or is not there.
    ClusterUnknown {
        why: String,
    },
    /// Backups of the cluster that were begun after the time that was asked for, and their copies in the second region.
    ProtectionObserved {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aws_at: Option<Timestamp>,
        backups: Vec<Backup>,
        copies: Vec<BackupCopy>,
    },
    ProtectionUnknown {
        why: String,
    },
    /// Backups were asked to be copied into the second region; what came of it is seen there.
    BackupsCopied {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Before CreateHsm; taken as it is from [`Decision::AddHsm`].
    HsmIntended(HsmIntent),
    HsmAdded {
        hsm: HsmId,
    },
    /// AWS refused CreateHsm, or it never left this machine.
    HsmNotAdded {
        why: String,
    },
    /// The answer of CreateHsm was lost.
    HsmAmbiguous {
        why: String,
    },
    /// Before DeleteHsm of the one that [`EventKind::HsmAdded`] names.
    HsmRemovalIntended {
        hsm: HsmId,
    },
    /// DeleteHsm was accepted; that it is gone is seen.
    HsmRemovalAccepted {
        hsm: HsmId,
    },
    /// AWS refused DeleteHsm, or it never left this machine.
    HsmNotRemoved {
        hsm: HsmId,
        why: String,
    },
    /// Key inventories of hosts were written down in the second region, or were not (H41).
    InventoriesTaken {
        hosts: Vec<InventoryTaken>,
    },
    /// The operator approved an undo plan for these hosts (H30).
    UndoRequested {
        /// Digest of the undo plan.
        plan: Digest,
        hosts: Vec<UndoHost>,
    },
    /// The operator names the version to use from now on, which ends the freeze (H10).
    SecretNamed {
        secret: SecretRef,
        version: SecretVersion,
    },
    /// The operator names the version of the SSM document to use from now on: the one that the plan pins is gone, or is no
    /// longer what it was (H34).
    DocumentNamed {
        document: DocumentPin,
    },
    /// A controller that lost its journal rebuilt it from the hosts' journals (H32).
    Adopted {
        generation: Generation,
        hosts: Vec<HostJournal>,
    },
    /// The operator wants the campaign's hold on these hosts ended.
    ReleaseRequested {
        hosts: Vec<InstanceId>,
    },
    /// The host is no longer of this campaign, whatever its state.
    Released {
        instance: InstanceId,
    },
    /// A controller starts anew on this journal. Orders intended and not answered are uncertain from now on.
    Interrupted {
        why: String,
    },
    /// The operator wants to go on after an end: hosts that failed, parked or stuck are tried again.
    Resumed {
        hosts: Retry,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Window>,
    },
    Ended {
        end: End,
    },
}

/// Where a campaign waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Before the first host is staged.
    Stage,
    /// Before the wave of this number; the first is the canary.
    Wave(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    Nothing,
    /// Every host that failed, parked, stuck or did not answer.
    Failed,
}

/// An AWS command id, 36 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CommandId(String);

impl CommandId {
    pub fn new(text: impl Into<String>) -> Result<CommandId, String> {
        let text = text.into();
        if text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            Ok(CommandId(text))
        } else {
            Err(format!("`{}` is not a command id", text.chars().filter(|c| !c.is_control()).take(80).collect::<String>()))
        }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl From<CommandId> for String {
    fn from(id: CommandId) -> String {
        id.0
    }
}
impl TryFrom<String> for CommandId {
    type Error = String;
    fn try_from(text: String) -> Result<CommandId, String> {
        CommandId::new(text)
    }
}

/// What is about to be sent: enough to rebuild, from the journal alone, what the hosts may have been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub token: OrderToken,
    pub work: Work,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Index in the order → index in the plan.
    pub secrets: Vec<u16>,
    pub hosts: Vec<IntendedHost>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntendedHost {
    pub instance: InstanceId,
    pub operation: OperationId,
    /// Secrets, by index in the plan, whose login the host proves (H10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proves: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoHost {
    pub instance: InstanceId,
    /// What the undo plan saw; `None` keeps what the host last said.
    pub saw: Option<ShortDigest>,
}

/// How a campaign ended. `resume` may go on from every end but `Superseded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Every host is done, and the keys of the last wave are in a backup, unless the plan leaves that gate out.
    Done,
    /// Every host is undone.
    Undone,
    /// Nothing is left to do; some hosts are done and some are not.
    Incomplete,
    /// As many hosts failed as the budget allows; the others were not touched.
    BudgetSpent,
    /// A password was refused (H10).
    LoginRefused,
    WindowClosed,
    /// Keys are not known to be in a backup, or an HSM that was added for one is not known to be gone (H8). No further wave
    /// was begun.
    Unprotected,
    /// A newer generation drives this campaign (H32).
    Superseded,
}

/// What the driver does next. All of a list, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// DescribeClusters; answer with `ClusterObserved` or `ClusterUnknown`.
    ObserveCluster,
    Send(Box<SendOrder>),
    /// DescribeBackups of the cluster, begun after this on AWS's clock, and of their copies in the second region; answer
    /// with `ProtectionObserved` or `ProtectionUnknown`.
    ObserveProtection {
        second: Option<Region>,
        after: Timestamp,
    },
    /// Have READY backups copied into the second region, which may be asked for any number of times; answer with
    /// `BackupsCopied`.
    CopyBackups,
    /// CreateHsm, once; answer with `HsmAdded`, `HsmNotAdded` or `HsmAmbiguous`.
    AddHsm(HsmIntent),
    /// DeleteHsm; answer with `HsmRemovalAccepted` or `HsmNotRemoved`, or with nothing where the answer was lost.
    RemoveHsm {
        hsm: HsmId,
    },
    /// Survey these hosts and write their key inventories down in the second region; answer with `InventoriesTaken`, which
    /// names each of them. A look changes nothing, and one more does no harm.
    TakeInventories {
        hosts: Vec<InstanceId>,
    },
    /// ListCommands from `since`; answer with `CommandFound` or `CommandNotFound`.
    FindCommand {
        token: OrderToken,
        since: Timestamp,
        instances: Vec<InstanceId>,
    },
    /// ListCommandInvocations of each, at most once in `every` seconds; an event for each listed host that ended.
    ReadCommands {
        commands: Vec<OpenCommand>,
        every: u32,
    },
    /// Ask the operator, once; answer with `Approved`, or stop.
    Ask {
        gate: Gate,
        hosts: Vec<InstanceId>,
    },
    /// Nothing more to do before `until` unless an event comes.
    Wait {
        until: Timestamp,
        why: Vec<(InstanceId, Why)>,
    },
    /// Append `Ended` and stop.
    Finish {
        end: End,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCommand {
    pub token: OrderToken,
    pub command: CommandId,
    /// Hosts whose end has not been seen, with the operation each was sent.
    pub hosts: Vec<(InstanceId, OperationId)>,
}

/// An order to send, complete but for the journal head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOrder {
    /// `journal_head` is zero; the driver fills in the head after the intent was appended (H38).
    pub order: Order,
    pub fetch: Fetch,
    pub intent: Intent,
}

/// A campaign as its events have made it.
#[derive(Debug, Clone)]
pub struct State {
    plan: Arc<Plan>,
    /// Place of each host in the plan.
    index: HashMap<InstanceId, usize>,
    /// Secrets that each host's databases use, by index in the plan.
    uses: Vec<Vec<u16>>,
    /// Hosts that can prove each secret, by place.
    provers: Vec<Vec<usize>>,
    core: Core,
}

/// A state without its plan, for storing. A turn reads the newest snapshot and the events after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    plan: Digest,
    core: Core,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot belongs to plan {found}, not to {expected}")]
pub struct SnapshotError {
    pub found: Digest,
    pub expected: Digest,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Core {
    started: Option<Started>,
    now: Timestamp,
    approved: BTreeSet<Gate>,
    /// Orders with at least one host whose end has not been seen.
    orders: BTreeMap<OrderToken, OpenOrder>,
    orders_made: u32,
    /// One a host of the plan, in its order.
    hosts: Vec<HostState>,
    secrets: Vec<SecretState>,
    cluster: Option<ClusterView>,
    waves: Vec<Vec<usize>>,
    window: Window,
    /// Reports that were not believed (H36).
    disbelieved: u32,
    superseded: bool,
    /// In place of the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<DocumentPin>,
    #[serde(default)]
    guard: protect::Guard,
    /// By place.
    #[serde(default)]
    inventories: BTreeMap<usize, inventories::Inventoried>,
    end: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Started {
    plan: Digest,
    campaign: CampaignId,
    generation: Generation,
    at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OpenOrder {
    intent: Intent,
    at: Timestamp,
    sending: Sending,
    /// Places in the plan of the hosts whose end has not been seen.
    open: BTreeSet<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Sending {
    /// Intended, or the answer was lost: it may or may not be on its way.
    Uncertain {
        looked: Option<Timestamp>,
    },
    Sent {
        command: CommandId,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SecretState {
    version: SecretVersion,
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Proof {
    Open,
    Proven {
        by: InstanceId,
        at: Timestamp,
    },
    /// One login was spent; no host is sent anything that would spend another.
    Refused {
        by: InstanceId,
        at: Timestamp,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ClusterView {
    at: Timestamp,
    /// Why it was not seen, where it was not.
    seen: Result<Cluster, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    /// Nothing of the segment was ever asked, or it was undone.
    #[default]
    Untouched,
    /// It was asked for, and may have begun.
    Touched,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Goal {
    Do,
    /// Undo `cutover` and `prove` after a failure.
    UndoCutover,
    /// Undo everything: the operator asked for it.
    UndoAll,
    /// End the campaign's hold.
    Release,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct HostState {
    goal: Goal,
    stage: Phase,
    cutover: Phase,
    prove: Phase,
    /// The operation in hand: sent or about to be, its end not yet known.
    operation: Option<Operation>,
    /// Orders that name this host and whose end has not been seen.
    order: Option<OrderToken>,
    attempts: u8,
    operations_made: u16,
    /// Nothing is sent before this.
    not_before: Timestamp,
    /// No order of another direction before this: a delivery the host never acknowledged may still come (H31).
    quiet_until: Timestamp,
    quiet_direction: Direction,
    wave: Option<u16>,
    /// Counts against the budget.
    failed: bool,
    failure: Option<Failure>,
    result: Option<HostEnd>,
    since: Timestamp,
    saw: Option<ShortDigest>,
    journal_head: Digest,
    step: Option<Step>,
    message: String,
    /// As last reported, but for `away`, which is summed over the campaign.
    databases: BTreeMap<Sid, DatabaseReport>,
    /// Seconds of operations that have ended.
    #[serde(default)]
    away: BTreeMap<Sid, u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Operation {
    id: OperationId,
    work: Work,
    /// What the segment was before, should it turn out that nothing was done.
    before: Phase,
    proves: Vec<u16>,
    /// Index in the order → index in the plan, for the login proofs of its report.
    secrets: Vec<u16>,
    /// Until when a delivery of it may still start on the host.
    exposed_until: Timestamp,
    /// `exposed_until` before the newest intent, should that be proved not sent.
    exposed_before: Timestamp,
    /// The host has said something of it, so no delivery of it can start anew.
    acknowledged: bool,
    next: Next,
    /// Sent or asked this often without an answer.
    unanswered: u8,
    waiting: Option<Code>,
}

/// What an operation without an open order needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Next {
    /// It was proved not sent, or the host does not know it: send it, under the same id.
    Send,
    /// Ask the host what became of it, not before this.
    Ask { due: Timestamp },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    code: Code,
    message: String,
    step: Option<Step>,
    at: Timestamp,
}

/// How a host ended short of its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HostEnd {
    /// Failed before any database was touched, or held as it is.
    Failed,
    /// Failed, and was undone.
    FailedUndone,
    Parked,
    Stuck,
    Stale,
    Released,
}

impl State {
    /// A campaign of a plan before its first event.
    pub fn new(plan: Arc<Plan>) -> State {
        let index: HashMap<InstanceId, usize> =
            plan.hosts.iter().enumerate().map(|(place, host)| (host.instance.clone(), place)).collect();
        let uses = plan.hosts.iter().map(crate::plan::HostPlan::secrets).collect();
        let provers =
            plan.secrets.iter().map(|s| s.provers.iter().filter_map(|instance| index.get(instance).copied()).collect()).collect();
        let core = Core {
            hosts: plan.hosts.iter().map(HostState::new).collect(),
            secrets: plan.secrets.iter().map(|s| SecretState { version: s.secret.version.clone(), proof: Proof::Open }).collect(),
            window: plan.window,
            ..Core::default()
        };
        State { plan, index, uses, provers, core }
    }

    /// The state that a journal's events make.
    pub fn replay<'a>(plan: Arc<Plan>, events: impl IntoIterator<Item = &'a Event>) -> State {
        let mut state = State::new(plan);
        for event in events {
            state.apply(event);
        }
        state
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The version of the SSM document that orders go out by: the plan's, or the one that the operator has named since.
    pub fn document(&self) -> &DocumentPin {
        self.core.document.as_ref().unwrap_or(&self.plan.document)
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { plan: self.plan.digest(), core: self.core.clone() }
    }

    pub fn restore(plan: Arc<Plan>, snapshot: Snapshot) -> Result<State, SnapshotError> {
        if snapshot.plan != plan.digest() {
            return Err(SnapshotError { found: snapshot.plan, expected: plan.digest() });
        }
        let mut state = State::new(plan);
        state.core = snapshot.core;
        Ok(state)
    }

    pub fn campaign(&self) -> Option<&CampaignId> {
        self.core.started.as_ref().map(|s| &s.campaign)
    }
    pub fn generation(&self) -> Option<Generation> {
        self.core.started.as_ref().map(|s| s.generation)
    }
    pub fn end(&self) -> Option<End> {
        self.core.end
    }

    fn poll(&self) -> i64 {
        i64::from(self.plan.policy.poll_seconds.max(1))
    }

    /// A secret as it is used now: the plan's, or the version the operator has named since.
    fn secret(&self, index: u16) -> Option<SecretRef> {
        let planned = self.plan.secrets.get(usize::from(index))?;
        let state = self.core.secrets.get(usize::from(index))?;
        Some(SecretRef { arn: planned.secret.arn.clone(), version: state.version.clone() })
    }

    fn refused(&self, index: u16) -> bool {
        matches!(self.core.secrets.get(usize::from(index)).map(|s| &s.proof), Some(Proof::Refused { .. }))
    }

    /// Open, and there are hosts that could have proven it.
    fn unproven(&self, index: u16) -> bool {
        matches!(self.core.secrets.get(usize::from(index)).map(|s| &s.proof), Some(Proof::Open))
            && self.provers.get(usize::from(index)).is_some_and(|p| !p.is_empty())
    }
}

impl Goal {
    fn direction(self) -> Direction {
        match self {
            Goal::Do => Direction::Do,
            Goal::UndoCutover | Goal::UndoAll | Goal::Release => Direction::Undo,
        }
    }
}

impl HostState {
    /// What is left to do for the goal; `None` when it is reached.
    fn wanted(&self) -> Option<Work> {
        let run = |segment, direction| Some(Work::Run { segment, direction });
        match self.goal {
            Goal::Do if self.stage != Phase::Done => run(Segment::Stage, Direction::Do),
            Goal::Do if self.cutover != Phase::Done => run(Segment::Cutover, Direction::Do),
            Goal::Do if self.prove != Phase::Done => run(Segment::Prove, Direction::Do),
            Goal::UndoCutover | Goal::UndoAll if self.cutover != Phase::Untouched || self.prove != Phase::Untouched => {
                run(Segment::Cutover, Direction::Undo)
            }
            Goal::UndoAll if self.stage != Phase::Untouched => run(Segment::Stage, Direction::Undo),
            Goal::Release => Some(Work::Release),
            Goal::Do | Goal::UndoCutover | Goal::UndoAll => None,
        }
    }

    /// Staged and not cut over: its databases are untouched.
    fn staged_only(&self) -> bool {
        self.goal == Goal::Do && self.result.is_none() && self.stage == Phase::Done && self.cutover == Phase::Untouched
    }

    /// Nothing will be sent to it any more, as things stand.
    fn ended(&self) -> bool {
        self.result.is_some() || (self.operation.is_none() && self.wanted().is_none())
    }

    /// It is in the hands of a wave: it may yet fail.
    fn in_flight(&self) -> bool {
        self.wave.is_some() && self.goal == Goal::Do && !self.failed && !self.ended()
    }

    fn phase_mut(&mut self, segment: Segment) -> &mut Phase {
        match segment {
            Segment::Stage => &mut self.stage,
            Segment::Cutover => &mut self.cutover,
            // No campaign orders a drill, and a report is believed only of what was ordered.
            Segment::Prove | Segment::Drill => &mut self.prove,
        }
    }

    fn new(host: &crate::plan::HostPlan) -> HostState {
        HostState {
            goal: Goal::Do,
            stage: Phase::Untouched,
            cutover: Phase::Untouched,
            prove: Phase::Untouched,
            operation: None,
            order: None,
            attempts: 0,
            operations_made: 0,
            not_before: Timestamp::default(),
            quiet_until: Timestamp::default(),
            quiet_direction: Direction::Do,
            wave: None,
            failed: false,
            failure: None,
            result: None,
            since: Timestamp::default(),
            saw: Some(host.saw),
            journal_head: Digest::ZERO,
            step: None,
            message: String::new(),
            databases: BTreeMap::new(),
            away: BTreeMap::new(),
        }
    }
}
