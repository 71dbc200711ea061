//! The DR region as a drill needs it, and the person who watches.
//!
//! An adapter is of one region and one account. Whatever makes something gives it its tags in the call that makes it, goes
//! out once, and says of a failure whether it may have had its effect; whatever removes something is only called for what was
//! found by the drill's tag. A thing that is gone already is removed.

use crate::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tde2hsm_dr::drill::{Action, Device, Place, PlaceFacts};
use tde2hsm_protocol::{BackupId, ClusterId, DrillId, InstanceId, SecurityGroupId, Timestamp};

pub type Tags = BTreeMap<String, String>;

/// A cluster that carries the drill's tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeCluster {
    pub id: ClusterId,
    pub state: ClusterState,
    pub state_message: Option<String>,
    /// The group that lets its members talk to the HSMs; made with the cluster.
    pub security_group: Option<SecurityGroupId>,
    pub hsms: Vec<MadeHsm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// On its way to one of the next.
    Coming,
    /// Restored from its backup and without any HSM: it has what CreateHsm needs, and no more.
    Ready,
    /// At least one HSM works.
    Active,
    Degraded,
    Deleting,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeHsm {
    pub id: String,
    pub active: bool,
    pub deleting: bool,
    pub ip: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeImage {
    pub id: String,
    pub name: String,
    /// `available` alone may be started from; `failed` and the like never become so.
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeInstance {
    pub id: InstanceId,
    /// As EC2 spells it. Terminated ones are left out.
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeVolume {
    pub id: String,
    pub size_gib: u32,
    pub state: String,
}

/// An image over every volume of a set.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// Unique in account and region: a second one with it is refused, which is how one is found whose answer was lost.
    pub name: &'a str,
    pub root_device: &'a str,
    pub devices: &'a [Device],
    pub tags: &'a Tags,
}

/// The drill host: IMDSv2 only, with its tags in its metadata, no user data, no public address, volumes going with it.
#[derive(Debug, Clone, Copy)]
pub struct NewInstance<'a> {
    /// The same for each try: a second call with it makes no second instance.
    pub client_token: &'a str,
    pub image: &'a str,
    pub place: &'a Place,
    /// The restored cluster's, beside the place's own.
    pub cluster_group: &'a SecurityGroupId,
    pub tags: &'a Tags,
}

#[async_trait]
pub trait DrillCloud: Send + Sync {
    /// What AWS says of the place. Production's profiles are asked for in the source region; `None` where that does not answer.
    async fn place(&self, place: &Place) -> Result<PlaceFacts>;

    /// Every one with the tag that is not deleted.
    async fn clusters(&self, drill: &DrillId) -> Result<Vec<MadeCluster>>;
    /// In the HSM type and mode that the backup has. Sent once: CreateCluster has no client token.
    async fn create_cluster(&self, backup: &BackupId, place: &Place, tags: &Tags) -> Result<ClusterId>;
    /// Sent once.
    async fn create_hsm(&self, cluster: &ClusterId, availability_zone: &str) -> Result<()>;
    async fn delete_hsm(&self, cluster: &ClusterId, hsm: &str) -> Result<()>;
    async fn delete_cluster(&self, cluster: &ClusterId) -> Result<()>;

    async fn images(&self, drill: &DrillId) -> Result<Vec<MadeImage>>;
    async fn register_image(&self, image: &NewImage<'_>) -> Result<String>;
    async fn deregister_image(&self, id: &str) -> Result<()>;

    async fn instances(&self, drill: &DrillId) -> Result<Vec<MadeInstance>>;
    async fn run_instance(&self, instance: &NewInstance<'_>) -> Result<InstanceId>;
    async fn terminate_instance(&self, id: &InstanceId) -> Result<()>;
    /// Its SSM agent is online.
    async fn managed(&self, id: &InstanceId) -> Result<bool>;

    async fn volumes(&self, drill: &DrillId) -> Result<Vec<MadeVolume>>;
    async fn delete_volume(&self, id: &str) -> Result<()>;
}

/// Time as the drill waits in it.
#[async_trait]
pub trait Pace: Send + Sync {
    fn now(&self) -> Timestamp;
    async fn pause(&self, seconds: i64);
    /// Somebody wants it to end where the record is complete.
    fn stopping(&self) -> bool;
}

/// Who watches a drill: asked before each effect, told what happens.
#[async_trait]
pub trait Watcher: Send + Sync {
    async fn allows(&self, action: &Action) -> Consent;
    fn says(&self, line: &str);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Yes,
    No,
}
