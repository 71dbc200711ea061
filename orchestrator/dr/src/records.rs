//! What the records bucket keeps of the product's own calls: written before a call, read whenever a region is looked at.
//! They survive the source region, so they carry what a copy's own description cannot say (its VolumeId is meaningless,
//! `A§3.2`) and what will be gone later (which version of a secret was current).

use crate::facts::{Consistency, SetId};
use serde::{Deserialize, Serialize};
use tde2hsm_protocol::{
    BackupId, ClusterId, InstanceId, KmsKeyArn, Region, SecretArn, SecretVersion, SnapshotId, Timestamp, VolumeId,
};

/// `copies/SNAPSHOT.json`: one snapshot that is to be in the DR region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyIntent {
    pub v: u8,
    pub source: SnapshotId,
    pub source_region: Region,
    pub set: SetId,
    pub instance: InstanceId,
    pub volume: VolumeId,
    /// Device name and whether it is the root device, for a host made of the copies.
    pub device: Option<String>,
    pub root: bool,
    /// The instance's profile: a host made of the copies must not have it (H44), and the source region may be gone by then.
    #[serde(default)]
    pub instance_profile: Option<String>,
    pub size_gib: u32,
    /// StartTime of the source.
    pub started: Timestamp,
    /// Milliseconds of it beyond the second. `None`: nobody noted them.
    #[serde(default)]
    pub started_ms: Option<u16>,
    /// The word of the set's tag, where it has one.
    pub consistency: Option<Consistency>,
    pub kms_key: KmsKeyArn,
    /// Every call that was made or may have been made, oldest first.
    pub attempts: Vec<Attempt>,
    /// Versions of the keystore passwords when the set was taken (H42); of a secret that is not named nobody knows yet.
    pub secrets: Vec<SecretAt>,
    /// When retention let the copy go: it is not made again.
    #[serde(default)]
    pub expired: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// In the copy's tag: what makes a copy ours (H37).
    pub token: String,
    pub at: Timestamp,
}

/// `hsm-copies/BACKUP.json`: one HSM backup that is to be in the DR region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmCopyIntent {
    pub v: u8,
    pub source: BackupId,
    pub source_region: Region,
    pub cluster: ClusterId,
    /// CreateTimestamp of the source.
    pub created: Timestamp,
    pub attempts: Vec<Attempt>,
    /// Versions of the crypto users' secrets when the backup was made (H42); of one that is not named nobody knows yet.
    pub secrets: Vec<SecretAt>,
    /// We marked the source NeverExpires, so we may take the mark away again (H45).
    #[serde(default)]
    pub held: bool,
}

/// A secret at a moment. Made by [`crate::secrets::at`] while the versions of that time can still be seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretAt {
    /// As the source region names it.
    pub secret: SecretArn,
    /// One: it was current. Several: it was rotated around that moment, and any of them may be the one. None: not known.
    pub versions: Vec<SecretVersion>,
}
