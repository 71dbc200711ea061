//! The two regions as the jobs need them.

use async_trait::async_trait;
use std::collections::BTreeMap;
use tde2hsm_dr::facts::{FleetInstance, HsmBackup, KmsKey, Secret, Snapshot};
use tde2hsm_protocol::{BackupId, ClusterId, KmsKeyArn, Region, SecretArn, SecretVersion, SnapshotId, Timestamp, VolumeId};

/// How a call failed. Only `Refused` and `NotSent` say that nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{call}`: {message}")]
pub struct CallError {
    pub call: String,
    pub effect: Effect,
    /// AWS's own code, such as `ResourceLimitExceeded`.
    pub aws_code: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    NotSent,
    Ambiguous,
    Refused,
}

pub type Result<T> = std::result::Result<T, CallError>;

/// Copies one snapshot into the region it is called in. Sent once: CopySnapshot has no client token (`A§3.2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySnapshot {
    pub source: SnapshotId,
    pub source_region: Region,
    pub description: String,
    pub kms_key: KmsKeyArn,
    pub tags: BTreeMap<String, String>,
    /// 15 to 2,880 in steps of 15; `None` leaves the time to EBS.
    pub completion_minutes: Option<u16>,
}

/// An object of the records bucket and its ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub body: Vec<u8>,
    pub etag: String,
    pub modified: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: String,
    pub modified: Timestamp,
}

/// When an object may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Only where there is none (`If-None-Match: *`).
    New,
    /// Only over the one that was read (`If-Match`).
    Over(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    Yes,
    /// Another was there already, or it is no longer the one that was read.
    Lost,
}

/// The two regions of one account. Every call names its region, since the jobs' calls go to either.
#[async_trait]
pub trait Cloud: Send + Sync {
    async fn fleet_instances(&self, region: &Region, tag: &(String, String)) -> Result<Vec<FleetInstance>>;
    /// Snapshots of these volumes, owner `self`, every state.
    async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>>;
    /// Snapshots that carry a tag, owner `self`, every state.
    async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>>;
    async fn copy_snapshot(&self, region: &Region, copy: &CopySnapshot) -> Result<SnapshotId>;
    /// Only called for what is ours by tag and record.
    async fn delete_snapshot(&self, region: &Region, id: &SnapshotId) -> Result<()>;
    /// Backups of a cluster in a region, copies included, every state.
    async fn hsm_backups(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>>;
    /// Called in the source region (`A§4.4`); the answer names no id.
    async fn copy_hsm_backup(&self, region: &Region, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<()>;
    async fn keep_hsm_backup(&self, region: &Region, id: &BackupId, never_expires: bool) -> Result<()>;
    async fn delete_hsm_backup(&self, region: &Region, id: &BackupId) -> Result<()>;
    /// `None`: there is no such secret.
    async fn secret(&self, region: &Region, arn: &SecretArn) -> Result<Option<Secret>>;
    /// Gives a version a stage of our own, so that it is not removed (H42); with `None` takes the stage away.
    async fn label_secret(&self, region: &Region, arn: &SecretArn, stage: &str, version: Option<&SecretVersion>) -> Result<()>;
    async fn kms_key(&self, region: &Region, arn: &KmsKeyArn) -> Result<KmsKey>;
    /// Objects of the records bucket below a prefix, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;
    async fn get(&self, key: &str) -> Result<Option<Object>>;
    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote>;
    async fn delete(&self, key: &str) -> Result<()>;
    /// A message to the topic.
    async fn publish(&self, subject: &str, message: &str) -> Result<()>;
}
