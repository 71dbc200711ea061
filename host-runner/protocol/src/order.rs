//! Work orders: what the control plane asks of the hosts of one batch.
//!
//! Whoever may send an order must not thereby be root on a host (H34). An order therefore holds steps of the table,
//! identifiers and numbers: no path, command, SQL, URL or package name. It also carries everything a host needs to
//! refuse it: whose account and region, which instances, from when until when, under which plan and generation (H31).

use crate::{
    AccountId, CampaignId, ClusterId, Digest, Direction, DrillId, EscrowPrefix, Generation, InstanceId, OperationId, OrderToken,
    Region, SecretRef, Segment, ShortDigest, Sid, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The version of orders and reports this crate speaks. A host answers any other with `TDE0206`.
pub const PROTOCOL_VERSION: u8 = 1;

/// The most hosts one order may name: the limit of SendCommand's InstanceIds (`A§1.1`).
pub const ORDER_HOSTS: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub v: u8,
    pub account: AccountId,
    pub region: Region,
    pub campaign: CampaignId,
    /// Digest of the plan; `Digest::ZERO` for a survey outside any campaign.
    pub plan: Digest,
    pub generation: Generation,
    /// Also in the command's Comment: how a lost SendCommand is found again (`A§1.5`).
    pub token: OrderToken,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Head of the controller's journal when the order was made (H38).
    pub journal_head: Digest,
    pub work: Work,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Secrets that databases refer to by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
    /// Where keystore files go off the host (H5); no order for `cutover` is without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escrow: Option<Escrow>,
    /// What makes the order one for the segment `drill`: there it is wanted, everywhere else refused. [`Order::target`] is
    /// the restored cluster then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    pub hosts: Vec<HostOrder>,
}

/// A drill: of what the host is a copy, and what it must not reach (H44).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// The value of the tag `tde2hsm:drill`. The host moves nothing before its own metadata service has said that the
    /// instance carries it (`InstanceMetadataTags` is enabled).
    pub id: DrillId,
    /// The instance whose volumes were copied.
    pub source: InstanceId,
    pub source_region: Region,
    /// Where nothing may answer, not even with a refusal: production's HSMs, the old HSM, the source. Addresses of
    /// [`Order::target`] do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<SocketAddr>,
}

/// Copies of keystore files in Secrets Manager, named below `prefix` in the order's own account and region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escrow {
    pub prefix: EscrowPrefix,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replica_regions: Vec<Region>,
}

/// What is asked. Only `Run` moves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// Facts only. Needs no fence and takes no lock.
    Survey,
    /// Does, or undoes, the steps of one segment that belong to this host's databases.
    /// Undoing `Cutover` undoes what `Cutover` and `Prove` did; undoing `Stage` removes what `Stage` added.
    Run { segment: Segment, direction: Direction },
    /// What became of an operation: joins it while it runs, else answers its recorded report.
    Status,
    /// A piece of a detail too large for a report (survey, key inventory, journal): of the one that each host's
    /// [`HostOrder::detail`] names, so that fifty hosts are asked with one command.
    Fetch { chunk: u16 },
    /// The host's journal of this campaign, as a detail, from which a lost controller's is rebuilt (H32).
    Adopt,
    /// Ends this campaign's hold on the host.
    Release,
}

/// What a command downloads before it starts host-runner: a parameter of the document, beside the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetch {
    /// host-runner alone.
    Runner,
    /// And the client packages and the cluster's CA: for the `stage` segment.
    Client,
}

impl Fetch {
    /// As the document's parameter spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Fetch::Runner => "runner",
            Fetch::Client => "client",
        }
    }
}

/// The CloudHSM cluster the keys go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub cluster: ClusterId,
    /// Addresses of its ACTIVE HSMs' network interfaces.
    pub hsms: Vec<IpAddr>,
    /// The SDK's own check that a key lies on two HSMs before it is used (`O§6.2`); off only when the fleet file says so.
    pub key_availability_check: KeyAvailabilityCheck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAvailabilityCheck {
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOrder {
    pub instance: InstanceId,
    pub operation: OperationId,
    /// Digest of what the plan saw on this host ([`crate::survey::Survey::saw`]); a difference is `stale` (H23).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saw: Option<ShortDigest>,
    /// Secrets, by index, whose login this host proves for the whole fleet (H10). Empty for all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prove_logins: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseOrder>,
    /// For `Fetch`: the digest in the [`crate::DetailRef`] of a report of this host. `None` for all other work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseOrder {
    pub sid: Sid,
    pub source: Source,
    /// Index of the software keystore's password.
    pub software: u16,
    /// Index of the CloudHSM crypto user's `user:password`.
    pub cloudhsm: u16,
    pub auto_open: AutoOpen,
    pub restart_proof: RestartProof,
    /// A full backup must be newer than this many hours (H7); 0: the fleet file waives it.
    pub backup_hours: u16,
}

/// Where a database's active keys lie when the campaign starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// `pin`: index of the old HSM's `user:password`.
    OldHsm {
        pin: u16,
    },
    Software,
}

/// How the keystore is to open after a restart (H15). An explicit choice of the fleet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoOpen {
    /// `HSM|FILE` with the HSM_PASSWORD secret in an auto-login keystore.
    Enable,
    /// Someone types the password after each restart.
    Typed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartProof {
    Do,
    /// The fleet file waived it; the report says `not proven across a restart` (H6).
    Skip,
}

impl Order {
    /// The part of the order that is for one host.
    pub fn host(&self, instance: &InstanceId) -> Option<&HostOrder> {
        self.hosts.iter().find(|host| host.instance == *instance)
    }

    pub fn secret(&self, index: u16) -> Option<&SecretRef> {
        self.secrets.get(usize::from(index))
    }
}
