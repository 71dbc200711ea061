//! What is copied next.

use crate::facts::{SetId, SnapshotState};
use crate::records::Attempt;
use serde::{Deserialize, Serialize};
use tde2hsm_protocol::{BackupId, InstanceId, SnapshotId, Timestamp, VolumeId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Copies in flight in the DR region, at most, whoever began them (`A§3.3`).
    pub in_flight: u16,
    pub rpo_minutes: u32,
    /// Whether a copy may be bought to be done by a time (`A§3.2`).
    pub timed: Timed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timed {
    /// EBS takes its time.
    Never,
    /// Where the deadline asks for it and the throughput of the pair of regions, in MiB/s, has room for it.
    ByDeadline { throughput: u32 },
}

/// One snapshot that should be in the DR region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub source: SnapshotId,
    pub set: SetId,
    pub instance: InstanceId,
    pub volume: VolumeId,
    pub size_gib: u32,
    pub started: Timestamp,
    pub source_state: SnapshotState,
    /// The source is in the archive tier and cannot be copied.
    pub archived: bool,
    pub copy: CopyStatus,
    /// Calls made for it, oldest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyStatus {
    /// There is none, or there was one and it is gone.
    Missing,
    Pending,
    Completed,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlan {
    /// In this order.
    pub begin: Vec<Begin>,
    pub waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    pub source: SnapshotId,
    pub set: SetId,
    pub instance: InstanceId,
    /// When the host's newest copied point will be older than the RPO.
    pub deadline: Timestamp,
    /// For a timed copy.
    pub minutes: Option<u16>,
    /// The number of calls made before.
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub source: SnapshotId,
    pub set: SetId,
    pub why: WaitsFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The set's snapshots are not all completed.
    Source,
    /// The source failed, or lies in the archive tier.
    SourceUnusable,
    /// A place among the copies in flight.
    Place,
    /// It failed before; not tried again before this.
    BackOff { until: Timestamp },
    /// It was asked for and cannot be seen yet; not asked for again before this.
    Settling { until: Timestamp },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmPlan {
    /// Backups of the source region to copy, most wanted first.
    pub copy: Vec<BackupId>,
    /// Backups of the source region to mark NeverExpires until their copy is READY (H45).
    pub keep: Vec<BackupId>,
    pub settling: Vec<BackupId>,
}
