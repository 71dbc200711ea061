//! What a campaign says of itself to people.

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    pub instance: InstanceId,
    pub standing: Standing,
    pub since: Timestamp,
    pub wave: Option<u16>,
    pub step: Option<Step>,
    pub code: Option<Code>,
    pub message: String,
    pub databases: Vec<DatabaseReport>,
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
    pub hosts: Vec<HostStatus>,
}

impl State {
    pub fn summary(&self, _now: Timestamp) -> Summary {
        Summary {
            campaign: self.campaign().cloned(),
            generation: self.generation(),
            plan: self.plan.digest(),
            started_at: None,
            end: self.core.end,
            counts: BTreeMap::new(),
            waves: Vec::new(),
            budget: self.plan.waves.budget,
            failed: 0,
            gate: None,
            frozen: Vec::new(),
            disbelieved: self.core.disbelieved,
            hosts: Vec::new(),
        }
    }

    /// `None`: the host waits for nothing, or is not of this campaign.
    pub fn why(&self, _instance: &InstanceId, _now: Timestamp) -> Option<Why> {
        None
    }
}
