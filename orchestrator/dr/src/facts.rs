//! What AWS says of the two regions, as plain data gathered by adapters.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::{
    BackupId, ClusterId, InstanceId, KmsKeyArn, Region, SecretArn, SecretVersion, SnapshotId, Timestamp, VolumeId,
};

/// Tags by which the product knows its own. They are given in the call that makes the resource, never afterwards (`A§3.5`).
pub mod tag {
    /// On a snapshot of a set and on its copy: the set's id, see [`super::SetId`].
    pub const SET: &str = "tde2hsm:set";
    pub const FLEET: &str = "tde2hsm:fleet";
    /// On a copy: whence it came.
    pub const SOURCE_SNAPSHOT: &str = "tde2hsm:source-snapshot";
    pub const SOURCE_REGION: &str = "tde2hsm:source-region";
    /// On a copy: the volume that its source is of, since a copy names none (`A§3.2`), and the instance it was attached to.
    pub const SOURCE_VOLUME: &str = "tde2hsm:source-volume";
    pub const INSTANCE: &str = "tde2hsm:instance";
    /// On a copy: the source's StartTime in seconds since 1970, which says what moment the copy shows.
    pub const SOURCE_STARTED: &str = "tde2hsm:source-started";
    /// On a copy of an HSM backup: the backup it is of.
    pub const SOURCE_BACKUP: &str = "tde2hsm:source-backup";
    /// On a copy: the token of the intent that was recorded before the call. What carries our tags without a recorded token
    /// was not made by us (H37).
    pub const TOKEN: &str = "tde2hsm:token";
    /// On a snapshot, a set's member or a copied HSM backup: never expired while it is there (legal hold).
    pub const HOLD: &str = "tde2hsm:hold";
    /// On a snapshot of a set: how the set is consistent, one of [`super::Consistency`]'s names, where whoever took it says so.
    pub const CONSISTENCY: &str = "tde2hsm:consistency";
    /// On everything a drill makes: the drill's id; teardown removes what carries it and nothing else.
    pub const DRILL: &str = "tde2hsm:drill";
}

/// A snapshot as DescribeSnapshots has it, owner `self`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub region: Region,
    /// `None` for a copy: AWS names `vol-ffffffff` there (`A§3.2`).
    pub volume: Option<VolumeId>,
    pub size_gib: u32,
    pub state: SnapshotState,
    pub state_message: Option<String>,
    /// Percent.
    pub progress: Option<u8>,
    pub started: Timestamp,
    /// Milliseconds of StartTime beyond `started`: several calls may fit into a second.
    pub started_ms: u16,
    pub completed: Option<Timestamp>,
    pub encrypted: bool,
    pub kms_key: Option<KmsKeyArn>,
    /// A copy that was bought to be done by then (`A§3.2`).
    #[serde(default)]
    pub completion_minutes: Option<u16>,
    /// `standard` or `archive`: an archived snapshot cannot be used before it is restored (`A§3.4`).
    pub archived: bool,
    pub description: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    Pending,
    Completed,
    Error,
    Recoverable,
    Recovering,
    /// A word this program does not know: never taken for completed.
    Unknown,
}

/// An HSM backup as DescribeBackups has it, in either region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmBackup {
    pub id: BackupId,
    pub region: Region,
    /// The cluster it was made of; in a copy the original cluster's id (`A§4.3`).
    pub cluster: Option<ClusterId>,
    pub state: BackupState,
    /// In a copy the source backup's.
    pub created: Option<Timestamp>,
    pub copied: Option<Timestamp>,
    pub source_backup: Option<BackupId>,
    pub source_region: Option<Region>,
    pub never_expires: Option<bool>,
    pub deleted: Option<Timestamp>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    CreateInProgress,
    Ready,
    Deleted,
    PendingDeletion,
    Unknown,
}

/// A secret of one region without values: its versions and which stages they carry. A version without any stage may be
/// removed by AWS at any time (H42).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub arn: SecretArn,
    pub region: Region,
    pub versions: Vec<SecretVersionFact>,
    pub replicas: BTreeSet<Region>,
    pub deleted: bool,
    /// The key that its values are encrypted with, told in the DR region alone; `None`: not known.
    #[serde(default)]
    pub kms_key: Option<KmsKeyArn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersionFact {
    pub version: SecretVersion,
    pub stages: BTreeSet<String>,
    pub created: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsKey {
    pub arn: KmsKeyArn,
    pub state: KmsState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KmsState {
    Enabled,
    Disabled,
    PendingDeletion,
    /// Asked for and not there.
    NotFound,
    /// It could not be asked about (access denied, region away), or a state this program does not know.
    Unknown,
}

/// An instance of the fleet and what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetInstance {
    pub instance: InstanceId,
    /// Device name to volume.
    pub volumes: BTreeMap<String, VolumeId>,
    pub root_device: Option<String>,
    pub name: Option<String>,
    /// Name of its instance profile.
    #[serde(default)]
    pub instance_profile: Option<String>,
}

/// The snapshots that CreateSnapshots made of one instance at one moment have one StartTime and no id of their own
/// (`A§3.1`): a set is known by its tag, else by instance and start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetId(pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// One StartTime over all volumes of one instance: recovery with SNAPSHOT TIME (`A§3.6`).
    CrashConsistent,
    /// Taken between BEGIN and END BACKUP, says the tag.
    BackupMode,
    /// Different StartTimes and no word of backup mode.
    None,
}
