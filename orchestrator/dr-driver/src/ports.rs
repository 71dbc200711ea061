//! The two regions as the jobs need them.
//!
//! One trait for both: a job is handed one cloud and says of every call which region it is for. An adapter sends each
//! call that has no client token exactly once, with retries off, and never calls again by itself: whether a lost call had
//! its effect is found out by the job, not guessed here.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::{FleetInstance, HsmBackup, KmsKey, Secret, Snapshot};
use tde2hsm_protocol::{
    BackupId, ClusterId, Digest, InstanceId, KmsKeyArn, OrderToken, Region, SecretArn, SecretVersion, SnapshotId, Timestamp,
    VolumeId,
};

/// How a call failed. Only `Refused` and `NotSent` say that nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{call}`: {message}")]
pub struct CallError {
    /// Such as `ec2:CopySnapshot`.
    pub call: String,
    pub effect: Effect,
    /// AWS's own code, such as `ResourceLimitExceeded`.
    pub aws_code: Option<String>,
    pub message: String,
}

/// Whether a call that failed may have had its effect all the same (`A§11.4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It never left: nothing can have happened.
    NotSent,
    /// It may have been carried out. It is looked for before it is sent again.
    Ambiguous,
    /// AWS refused it: nothing happened.
    Refused,
}

impl CallError {
    /// AWS's own code is one of these.
    pub fn is(&self, codes: &[&str]) -> bool {
        self.aws_code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// Too many requests, whatever they ask for: turned away, and to be asked again later.
    pub fn throttled(&self) -> bool {
        self.aws_code.as_deref().is_some_and(tde2hsm_protocol::throttled)
    }

    /// Too much of anything: turned away for now, and nothing is wrong with what was asked for.
    pub fn limited(&self) -> bool {
        self.aws_code.as_deref().is_some_and(tde2hsm_protocol::limited)
    }

    /// Nobody was heard: another question may wait as long.
    pub fn unanswered(&self) -> bool {
        self.effect == Effect::Ambiguous && self.aws_code.is_none()
    }
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
    pub etag: String,
    pub modified: Timestamp,
}

/// When an object may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Only where there is none (`If-None-Match: *`).
    New,
    /// Only over the one with this ETag (`If-Match`).
    Over(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrote {
    /// And this is the object's ETag now.
    Yes(String),
    /// Another was there already, or it is no longer the one that was read.
    Lost,
}

/// The SSM document of the source region that surveys are ordered through, pinned by version and hash (H34).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentPin {
    pub name: String,
    pub version: String,
    pub hash: Digest,
}

/// One order for at most fifty hosts. Sent once: SendCommand has no client token (`A§1.5`).
#[derive(Debug, Clone, Copy)]
pub struct SurveyCommand<'a> {
    pub document: &'a DocumentPin,
    pub instances: &'a [InstanceId],
    /// The encoded order.
    pub order: &'a str,
    /// In the command's Comment: what a command whose answer was lost is found by.
    pub token: &'a OrderToken,
    /// How long SSM may try to deliver it, in seconds.
    pub delivery_seconds: i64,
}

/// One host's part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAnswer {
    pub instance: InstanceId,
    /// SSM is done with it. That says nothing of the host (`A§1.3`).
    pub over: bool,
    /// SSM's StatusDetails.
    pub details: String,
    /// What host-runner wrote, where it has ended.
    pub output: Option<String>,
}

/// The two regions of one account. Every call names its region, since the jobs' calls go to either; objects and the topic
/// are the DR region's.
///
/// What a list leaves out may still be on its way (DescribeSnapshots and DescribeBackups are eventually consistent).
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Instances with the tag that are not terminated.
    async fn fleet_instances(&self, region: &Region, tag: &(String, String)) -> Result<Vec<FleetInstance>>;
    /// Which of these instances are not terminated, whatever tags they carry. One that AWS knows no more is left out.
    async fn instances_there(&self, region: &Region, ids: &[InstanceId]) -> Result<BTreeSet<InstanceId>>;
    /// One snapshot with owner `self`; `None`: there is none with this id that is ours.
    async fn snapshot(&self, region: &Region, id: &SnapshotId) -> Result<Option<Snapshot>>;
    /// Snapshots of these volumes, owner `self`, every state.
    async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>>;
    /// Snapshots that carry a tag with one of these values, owner `self`, every state.
    async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>>;
    /// Copies that are not finished, owner `self`, whoever asked for them: all of an account's take places (`A§3.3`).
    async fn copies_in_flight(&self, region: &Region) -> Result<Vec<Snapshot>>;
    async fn copy_snapshot(&self, region: &Region, copy: &CopySnapshot) -> Result<SnapshotId>;
    /// Only called for what is ours by tag and record. One that is gone already is `Ok`.
    async fn delete_snapshot(&self, region: &Region, id: &SnapshotId) -> Result<()>;
    /// Addresses of the cluster's HSMs, by which a host's client is known to use this cluster. `None`: there is no such
    /// cluster.
    async fn hsm_addresses(&self, region: &Region, cluster: &ClusterId) -> Result<Option<BTreeSet<String>>>;
    /// Backups of a cluster in a region, copies included, every state.
    async fn hsm_backups(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>>;
    /// Copies in a region of these backups (`sourceBackupIds`), every state.
    async fn hsm_copies(&self, region: &Region, sources: &[BackupId]) -> Result<Vec<HsmBackup>>;
    /// Called in the source region (`A§4.4`); the answer names no id. Sent once: CopyBackupToRegion has no client token.
    async fn copy_hsm_backup(&self, region: &Region, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<()>;
    async fn keep_hsm_backup(&self, region: &Region, id: &BackupId, never_expires: bool) -> Result<()>;
    /// Only called for what is ours by tag and record.
    async fn delete_hsm_backup(&self, region: &Region, id: &BackupId) -> Result<()>;
    /// The secret as that region has it: a replica has the ARN of its source but for the region. `None`: there is none. In the DR
    /// region also the key that it is encrypted with.
    async fn secret(&self, region: &Region, arn: &SecretArn) -> Result<Option<Secret>>;
    /// Moves a stage of our own from one version to another (H42): `from` has it now, `to` gets it. At most twenty stages
    /// fit a secret.
    async fn stage_secret(
        &self,
        region: &Region,
        arn: &SecretArn,
        stage: &str,
        from: Option<&SecretVersion>,
        to: Option<&SecretVersion>,
    ) -> Result<()>;
    /// A key that is not there, or that nobody may ask about, is a state and no error.
    async fn kms_key(&self, region: &Region, arn: &KmsKeyArn) -> Result<KmsKey>;

    /// Sends once, in the source region. Answers the command's id.
    async fn send_survey(&self, region: &Region, command: &SurveyCommand<'_>) -> Result<String>;
    /// Ids of commands with this document whose Comment is the token, sent at or after `since`.
    async fn find_survey(
        &self,
        region: &Region,
        document: &DocumentPin,
        token: &OrderToken,
        since: Timestamp,
    ) -> Result<Vec<String>>;
    /// Each host's part of a command; a host that is absent is not known yet.
    async fn read_survey(&self, region: &Region, command: &str) -> Result<Vec<HostAnswer>>;

    /// Objects of the records bucket below a prefix, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;
    async fn get(&self, key: &str) -> Result<Option<Object>>;
    /// One that was listed just now: may be answered by what was read before, where that has the listed ETag.
    async fn get_listed(&self, key: &str) -> Result<Option<Object>> {
        self.get(key).await
    }
    /// Sent once, so that `Lost` is never an own write whose answer was lost.
    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote>;
    /// One that is gone already is `Ok`.
    async fn delete(&self, key: &str) -> Result<()>;
    /// A message to the topic.
    async fn publish(&self, subject: &str, message: &str) -> Result<()>;
}
