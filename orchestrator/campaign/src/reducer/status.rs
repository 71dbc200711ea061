//! What a campaign says of itself to people.

use super::decide::{Need, Reason, Turn};
use super::*;

/// What a host waits for, since when, and what unblocks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    pub waits_for: String,
    pub since: Timestamp,
    pub unblocked_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Pending,
    Staging,
    Staged,
    CuttingOver,
    Proving,
    Done,
    Undoing,
    Undone,
    /// Failed; nothing more is tried by itself.
    Failed,
    FailedUndone,
    Parked,
    Stuck,
    Stale,
    Released,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Staging => "staging",
            Standing::Staged => "staged",
            Standing::CuttingOver => "cutting-over",
            Standing::Proving => "proving",
            Standing::Done => "done",
            Standing::Undoing => "undoing",
            Standing::Undone => "undone",
            Standing::Failed => "failed",
            Standing::FailedUndone => "failed-undone",
            Standing::Parked => "parked",
            Standing::Stuck => "stuck",
            Standing::Stale => "stale",
            Standing::Released => "released",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    pub instance: InstanceId,
    pub standing: Standing,
    pub since: Timestamp,
    pub wave: Option<u16>,
    pub step: Option<Step>,
    pub code: Option<Code>,
    pub message: String,
    /// As last reported; `away` is the sum of all operations that this controller has heard of.
    pub databases: Vec<DatabaseReport>,
    /// Head of the host's journal as it last said (H38).
    pub journal_head: Digest,
    pub why: Option<Why>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub campaign: Option<CampaignId>,
    pub generation: Option<Generation>,
    pub plan: Digest,
    pub started_at: Option<Timestamp>,
    pub end: Option<End>,
    /// Hosts by standing; standings without a host are left out.
    pub counts: BTreeMap<Standing, u32>,
    pub waves: Vec<Vec<InstanceId>>,
    pub budget: u16,
    pub failed: u16,
    /// Gate that the campaign stands at.
    pub gate: Option<Gate>,
    /// Secrets whose login was refused; the hosts that use them are frozen (H10).
    pub frozen: Vec<SecretRef>,
    /// Reports that were not believed (H36).
    pub disbelieved: u32,
    /// How the new keys are kept (H8); `None` where the plan knows of no such gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// What is written down of their keys in the second region (H41); `None` where the plan names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventories: Option<Inventories>,
    pub hosts: Vec<HostStatus>,
}

impl State {
    pub fn summary(&self, now: Timestamp) -> Summary {
        let mut turn = Turn::new(self, now);
        let hosts: Vec<HostStatus> = (0..self.core.hosts.len()).map(|place| self.host_status(place, &mut turn)).collect();
        let mut counts = BTreeMap::new();
        for host in &hosts {
            *counts.entry(host.standing).or_default() += 1;
        }
        let name = |place: &usize| self.plan.hosts[*place].instance.clone();
        Summary {
            campaign: self.campaign().cloned(),
            generation: self.generation(),
            plan: self.plan.digest(),
            started_at: self.core.started.as_ref().map(|s| s.at),
            end: self.core.end,
            counts,
            waves: self.core.waves.iter().map(|wave| wave.iter().map(name).collect()).collect(),
            budget: self.plan.waves.budget,
            failed: u16::try_from(self.core.hosts.iter().filter(|h| h.failed).count()).unwrap_or(u16::MAX),
            gate: self.current_gate(now),
            frozen: (0..self.core.secrets.len() as u16).filter(|s| self.refused(*s)).filter_map(|s| self.secret(s)).collect(),
            disbelieved: self.core.disbelieved,
            protection: self.protection(now),
            inventories: self.inventories(),
            hosts,
        }
    }

    /// `None`: the host waits for nothing, or is not of this campaign.
    pub fn why(&self, instance: &InstanceId, now: Timestamp) -> Option<Why> {
        let place = *self.index.get(instance)?;
        let mut turn = Turn::new(self, now);
        // Places and claims are given in the plan's order, so those before it are asked first.
        (0..place).for_each(|before| drop(turn.need(before)));
        self.why_of(place, &mut turn)
    }

    pub fn standing(&self, instance: &InstanceId) -> Option<Standing> {
        self.index.get(instance).map(|place| self.standing_of(*place))
    }

    fn standing_of(&self, place: usize) -> Standing {
        let host = &self.core.hosts[place];
        match host.result {
            Some(HostEnd::Failed) => return Standing::Failed,
            Some(HostEnd::FailedUndone) => return Standing::FailedUndone,
            Some(HostEnd::Parked) => return Standing::Parked,
            Some(HostEnd::Stuck) => return Standing::Stuck,
            Some(HostEnd::Stale) => return Standing::Stale,
            Some(HostEnd::Released) => return Standing::Released,
            None => {}
        }
        match (host.goal, host.wanted(), &host.operation) {
            (Goal::Do, None, _) => Standing::Done,
            (Goal::Do, _, Some(operation)) => match operation.work {
                Work::Run { segment: Segment::Stage, .. } => Standing::Staging,
                Work::Run { segment: Segment::Cutover, direction: Direction::Do } => Standing::CuttingOver,
                Work::Run { segment: Segment::Prove, .. } => Standing::Proving,
                _ => Standing::Undoing,
            },
            (Goal::Do, _, None) if host.cutover == Phase::Done => Standing::Proving,
            (Goal::Do, _, None) if host.cutover == Phase::Touched => Standing::CuttingOver,
            (Goal::Do, _, None) if host.stage == Phase::Done => Standing::Staged,
            (Goal::Do, _, None) => Standing::Pending,
            (_, None, None) => Standing::Undone,
            _ => Standing::Undoing,
        }
    }

    fn host_status(&self, place: usize, turn: &mut Turn<'_>) -> HostStatus {
        let host = &self.core.hosts[place];
        let waiting = host.operation.as_ref().and_then(|o| o.waiting);
        let code = host.failure.as_ref().map(|f| f.code).filter(|_| host.result.is_some() || host.failed).or(waiting);
        let message = match &host.failure {
            Some(failure) if host.result.is_some() || host.failed => failure.message.clone(),
            _ => host.message.clone(),
        };
        HostStatus {
            instance: self.plan.hosts[place].instance.clone(),
            standing: self.standing_of(place),
            since: host.since,
            wave: host.wave,
            step: host.failure.as_ref().filter(|_| host.result.is_some()).and_then(|f| f.step).or(host.step),
            code,
            message,
            databases: host.databases.values().cloned().collect(),
            journal_head: host.journal_head,
            why: self.why_of(place, turn),
        }
    }

    pub(super) fn why_of(&self, place: usize, turn: &mut Turn<'_>) -> Option<Why> {
        let host = &self.core.hosts[place];
        let why = |waits_for: String, unblocked_by: &str, code| {
            Some(Why { waits_for, since: host.since, unblocked_by: unblocked_by.to_owned(), code })
        };
        if let Some(result) = host.result {
            let code = host.failure.as_ref().map(|f| f.code);
            return match result {
                HostEnd::Released => None,
                HostEnd::Stale => why("a new plan".to_owned(), "`tde2hsm survey`, then `tde2hsm plan`", code),
                _ => why("a person".to_owned(), "`tde2hsm explain CODE`, then `tde2hsm resume` or `tde2hsm undo`", code),
            };
        }
        let waiting = host.operation.as_ref().and_then(|o| o.waiting);
        if let Some(order) = host.order.as_ref().and_then(|token| self.core.orders.get(token)) {
            return match &order.sending {
                Sending::Uncertain { .. } => {
                    why("word whether its order was sent".to_owned(), "the command being found by its token, or not", None)
                }
                Sending::Sent { command } => {
                    let what = match order.intent.work {
                        Work::Status => "the host's answer on what became of its work",
                        _ => "the host's report",
                    };
                    why(format!("{what} (command {command})"), "the host", waiting)
                }
            };
        }
        match turn.need(place) {
            Need::Nothing | Need::Open => None,
            Need::Send { .. } => why("its order".to_owned(), "the controller's next turn", None),
            Need::ObserveCluster => why("a fresh view of the cluster".to_owned(), "the controller's next turn", None),
            Need::Later { why: reason, .. } | Need::Blocked { why: reason } => self.explain(host, &reason, waiting, turn.now()),
        }
    }

    fn explain(&self, host: &HostState, reason: &Reason, waiting: Option<Code>, now: Timestamp) -> Option<Why> {
        let arn = |index: &u16| self.secret(*index).map_or_else(String::new, |s| s.arn.to_string());
        let (waits_for, unblocked_by, code) = match reason {
            Reason::Gate(_) => ("approval to stage".to_owned(), "the operator", None),
            Reason::Wave if self.unprotected() => return self.protection_why(now),
            Reason::Wave => ("its wave".to_owned(), "the end of the wave before it, and the operator's approval", None),
            Reason::Pause => ("a pause before the next try".to_owned(), "time", host.failure.as_ref().map(|f| f.code)),
            Reason::Ask => ("the host, which is still at work".to_owned(), "the host; it is asked again soon", waiting),
            Reason::LateDelivery => ("the end of an order that may still be delivered".to_owned(), "time", None),
            Reason::Frozen(secret) => (
                format!("a password that is not refused, in {}", arn(secret)),
                "the operator naming the secret's version, once it is corrected",
                Some(Code::LOGIN_REFUSED),
            ),
            Reason::Proof(secret) => (format!("another host's proof of the password in {}", arn(secret)), "that host", None),
            Reason::WindowOpens(at) => (format!("the window, which opens at {}", crate::render::instant(*at)), "time", None),
            Reason::WindowClosed => ("a new window".to_owned(), "`tde2hsm resume` in the next window", None),
            Reason::Cluster(trouble) => (format!("the cluster: {trouble}"), "the cluster; it is looked at again soon", None),
            Reason::UndoSlot => ("other hosts to be undone first".to_owned(), "those hosts", None),
        };
        Some(Why { waits_for, since: host.since, unblocked_by: unblocked_by.to_owned(), code })
    }
}
