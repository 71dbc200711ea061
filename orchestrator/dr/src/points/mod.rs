//! Which points there are and which of them open (H40–H42).
//!
//! A verdict is about the DR region alone: what of a point is there, finished, readable. It never rests on a default. What
//! must be there and is proven absent is a [`Cause`]; what must or may be there and cannot be told is an [`Unknown`];
//! only a point with neither opens.
//!
//! Which keys a point needs is bounded from both sides. Needed for sure: what the inventories before and after both need,
//! and the key of a container that was active when the set was taken. Perhaps needed: everything else that either of them
//! needs or that was activated between them. A key that is needed for sure and absent makes a cause; one that is perhaps
//! needed and absent makes an unknown; a point opens only with all of them.

mod gather;
mod gone;
mod judge;
mod sets;
mod words;

pub use gather::{Stray, gather};
pub use judge::Judge;
pub use sets::set_id;
pub(crate) use words::moment;
pub use words::{Cause, Unknown};

use crate::facts::{Consistency, FleetInstance, HsmBackup, KmsKey, Secret, SetId, Snapshot, SnapshotState};
use crate::inventory::Inventory;
use crate::records::{CopyIntent, HsmCopyIntent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tde2hsm_protocol::{
    BackupId, ClusterId, InstanceId, KmsKeyArn, MasterKeyId, Region, Retired, SecretArn, SecretRef, Sid, SnapshotId, Timestamp,
    VolumeId,
};

/// How far the clocks of a host and of AWS may be apart, in seconds (H8). Nothing closer than this is an order of events.
pub const MARGIN: i64 = 300;

/// What all points of a fleet share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    pub now: Timestamp,
    pub source_region: Region,
    pub dr_region: Region,
    /// The cluster that the fleet's keys live in.
    pub cluster: ClusterId,
    /// Addresses of the cluster's HSMs, where they were asked for: a host configured for others uses another HSM.
    pub cluster_addresses: Option<BTreeSet<String>>,
    /// Backups of the cluster in both regions.
    pub backups: Vec<HsmBackup>,
    /// Of both regions.
    pub secrets: Vec<Secret>,
    pub uses: Vec<SecretUse>,
    pub kms: Vec<KmsKey>,
    pub hsm_copies: Vec<HsmCopyIntent>,
    /// What gave no answer: its absence below means nothing.
    pub unasked: BTreeSet<Ask>,
    /// Instances that AWS says are terminated or knows no more; while it does not answer, what it said last.
    pub gone: BTreeSet<InstanceId>,
    pub retired: BTreeSet<Retired>,
}

/// What is known of one instance of the fleet, present or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub instance: InstanceId,
    /// `None`: gone, without the fleet's tag, or the source region cannot be asked.
    pub now: Option<FleetInstance>,
    /// Of both regions, whatever their state.
    pub snapshots: Vec<Snapshot>,
    pub inventories: Vec<Inventory>,
    pub copies: Vec<CopyIntent>,
}

/// What a secret is for. A fleet may share one crypto user and have a keystore password each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretUse {
    /// As the source region names it.
    pub secret: SecretArn,
    pub role: SecretRole,
    /// `None`: of every database of the fleet that no other line of that role names.
    pub of: Option<(InstanceId, Option<Sid>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRole {
    /// `user:password` of the HSM.
    CryptoUser,
    /// Password of the software keystore.
    Keystore,
}

/// A question that may have gone unanswered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The fleet's instances: without them nobody knows which hosts are gone.
    SourceInstances,
    SourceSnapshots,
    SourceBackups,
    DrSnapshots,
    DrBackups,
    /// A secret, as the source region names it, in the DR region.
    DrSecret(SecretArn),
    /// Intents of the records bucket.
    Records,
    /// Inventories of the records bucket. What one of them would have said is missing, and no verdict counts on what it does
    /// not have; but what an unread one leans on is not let go.
    Inventories,
}

/// One set of snapshots of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub set: SetId,
    pub instance: InstanceId,
    /// The earliest StartTime of the set.
    pub taken: Timestamp,
    pub consistency: Consistency,
    pub parts: Vec<Part>,
    /// Somebody holds it: a part or its source carries the tag.
    pub held: bool,
    pub databases: Vec<DatabasePoint>,
}

/// One volume of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub volume: VolumeId,
    pub device: Option<String>,
    pub root: bool,
    pub source: SnapshotId,
    pub started: Timestamp,
    #[serde(default)]
    pub started_ms: Option<u16>,
    pub size_gib: u32,
    /// `None`: it is no longer there, or the source region cannot be asked.
    pub source_state: Option<SnapshotState>,
    /// The source lies in the archive tier.
    pub source_archived: bool,
    /// The copy that counts.
    pub copy: Option<PartCopy>,
    /// Other copies of it: twice made, failed, or claimed by a tag alone.
    pub others: Vec<PartCopy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartCopy {
    pub id: SnapshotId,
    pub state: SnapshotState,
    pub encrypted: bool,
    pub kms_key: Option<KmsKeyArn>,
    pub archived: bool,
    pub started: Timestamp,
    pub completed: Option<Timestamp>,
    pub maker: Maker,
}

/// Who made a copy (H37).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// Its token is in our records.
    Ours,
    /// Its tags name the source, the records do not know its token; size and start fit. It counts, is reported, and is never
    /// deleted by us.
    Claimed,
    /// The same, and size or start do not fit: it does not count.
    Refuted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePoint {
    pub sid: Sid,
    pub dbid: Option<u64>,
    /// The inventories that the verdict leans on, by the time they were taken.
    pub before: Option<Timestamp>,
    pub after: Option<Timestamp>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    Opens(Opening),
    DoesNotOpen { causes: Vec<Cause>, unknowns: Vec<Unknown> },
    NotProven { unknowns: Vec<Unknown> },
}

/// With what a point opens. Whatever is named here must be kept while the point is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    pub snapshots: Vec<SnapshotId>,
    pub kms_keys: BTreeSet<KmsKeyArn>,
    /// `None`: nothing in an HSM is needed.
    pub backup: Option<BackupChoice>,
    /// Versions as the DR region has them, one a secret.
    pub secrets: Vec<(SecretRole, SecretRef)>,
    /// Directory of the software keystore, where a key in it is needed.
    pub keystore: Option<String>,
    /// Keys in the HSM backup, and keys in the keystore.
    pub hsm_keys: BTreeSet<MasterKeyId>,
    pub software_keys: BTreeSet<MasterKeyId>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackupChoice {
    /// In the DR region.
    pub id: BackupId,
    pub source: Option<BackupId>,
    pub created: Timestamp,
}

impl Part {
    /// Its copy is finished, whatever else may be wrong with it.
    pub fn copied(&self) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.state == SnapshotState::Completed)
    }
}

impl Common {
    /// Somebody said that it is no more: of a host with all its databases, or of one of them.
    pub fn retired(&self, instance: &InstanceId, sid: Option<&Sid>) -> bool {
        self.retired.iter().any(|retired| retired.covers(instance, sid))
    }

    /// A host counts until AWS says that it is gone, or somebody that it is retired. One that lost its tag is neither.
    pub fn counts(&self, instance: &InstanceId) -> bool {
        !self.gone.contains(instance) && !self.retired(instance, None)
    }

    /// Of the fleet's cluster; one that names none counts as such.
    pub fn of_cluster(&self, backup: &HsmBackup) -> bool {
        backup.cluster.as_ref().is_none_or(|cluster| *cluster == self.cluster)
    }
}

impl Host {
    /// The last look at it that tells which databases it has.
    pub fn newest(&self) -> Option<&Inventory> {
        self.inventories.iter().filter(|inventory| inventory.lists_databases()).max_by_key(|inventory| inventory.received_at)
    }
}

impl Point {
    pub fn database(&self, sid: &Sid) -> Option<&DatabasePoint> {
        self.databases.iter().find(|database| database.sid == *sid)
    }

    /// Every volume of the set is in the DR region.
    pub fn copied(&self) -> bool {
        self.parts.iter().all(Part::copied)
    }
}

impl Verdict {
    pub fn opens(&self) -> Option<&Opening> {
        match self {
            Verdict::Opens(opening) => Some(opening),
            _ => None,
        }
    }
}
