//! What a host's own journal says of a campaign: the detail of a report on [`crate::Work::Adopt`], from which a
//! controller that lost its journal rebuilds it (H32).

use crate::{
    CampaignId, Digest, Direction, Generation, InstanceId, LoginResult, OperationId, Outcome, SecretRef, Segment, ShortDigest,
};
use serde::{Deserialize, Serialize};

/// Reading it takes no lock and moves no fence: an `Adopt` order is answered whatever its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostJournal {
    pub v: u8,
    pub instance: InstanceId,
    /// The campaign that holds the host; `None`: none does.
    pub held_by: Option<CampaignId>,
    /// The newest generation the host has seen of the campaign that the order names.
    pub generation: Generation,
    /// The plan of the last order that ran something.
    pub plan: Option<Digest>,
    /// Each operation of the campaign that the order names, the oldest first.
    pub operations: Vec<KnownOperation>,
    /// What the host is now, over the databases of its last order; as in [`crate::Report::saw`].
    pub saw: Option<ShortDigest>,
    /// Logins proven or refused on this host.
    pub logins: Vec<KnownLogin>,
    pub journal_head: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownOperation {
    pub operation: OperationId,
    pub segment: Segment,
    pub direction: Direction,
    /// `None`: it is still at work.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLogin {
    pub secret: SecretRef,
    pub result: LoginResult,
}
