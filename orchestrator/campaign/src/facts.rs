//! What AWS says of a fleet, as plain data gathered by the adapters.
//!
//! A fact that could not be gathered is `None` or absent, never a default: a rule makes a finding of it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tde2hsm_protocol::{AccountId, BackupId, ClusterId, Digest, InstanceId, Region, SecretArn, SecretVersion, Timestamp};

/// Everything `plan` needs to know of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudFacts {
    pub account: AccountId,
    pub region: Region,
    pub gathered_at: Timestamp,
    /// Instances that SSM manages; one that is absent is not managed (`A§1.6`).
    pub managed: Vec<ManagedInstance>,
    pub instances: Vec<Instance>,
    /// Security groups of the instances and of the cluster.
    pub security_groups: Vec<SecurityGroup>,
    /// Route tables of the instances' subnets.
    pub routes: Vec<SubnetRoutes>,
    pub clusters: Vec<Cluster>,
    pub secrets: Vec<Secret>,
    pub document: Option<DocumentFact>,
}

/// From DescribeInstanceInformation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedInstance {
    pub instance: InstanceId,
    pub ping: Ping,
    pub agent_version: String,
    pub platform: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ping {
    Online,
    ConnectionLost,
    Inactive,
    Unknown,
}

/// From DescribeInstances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub instance: InstanceId,
    /// `pending`, `running`, `stopping`, …
    pub state: String,
    pub tags: BTreeMap<String, String>,
    pub vpc: Option<String>,
    pub subnet: Option<String>,
    pub az: Option<String>,
    pub private_ip: Option<IpAddr>,
    pub security_groups: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: String,
    pub ingress: Vec<Permission>,
    pub egress: Vec<Permission>,
}

/// One rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// `tcp`, or `-1` for everything.
    pub protocol: String,
    pub from_port: Option<u16>,
    pub to_port: Option<u16>,
    pub peers: Vec<Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    Group(String),
    /// `10.0.0.0/16`.
    Cidr(String),
    /// Its entries are not known here; it counts as not known.
    PrefixList(String),
}

/// Routes that hold for a subnet, from its own route table or the main one of its VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRoutes {
    pub subnet: String,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub cidr: String,
    /// `active`, and not `blackhole`.
    pub active: bool,
}

/// From DescribeClusters (`A§4.2`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub cluster: ClusterId,
    /// As AWS spells it: `ACTIVE`, `MODIFY_IN_PROGRESS`, …
    pub state: String,
    pub hsm_type: String,
    /// `FIPS` or `NON_FIPS`.
    pub mode: Option<String>,
    pub rollback_expiration: Option<Timestamp>,
    pub vpc: Option<String>,
    pub security_group: Option<String>,
    pub hsms: Vec<Hsm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hsm {
    pub id: String,
    pub state: String,
    pub az: Option<String>,
    pub ip: Option<IpAddr>,
}

/// From DescribeBackups in the cluster's own region (`A§4.3`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub id: BackupId,
    /// As AWS spells it: `CREATE_IN_PROGRESS`, `READY`, …
    pub state: String,
    /// When it was begun, on AWS's clock.
    pub created: Timestamp,
}

/// From DescribeBackups in the second region: a copy names its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupCopy {
    pub id: BackupId,
    pub source: BackupId,
    pub state: String,
}

/// From DescribeSecret: never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub arn: SecretArn,
    /// The version labelled AWSCURRENT.
    pub current: Option<SecretVersion>,
    /// All versions that still have a label.
    pub versions: Vec<SecretVersion>,
    pub replicas: Vec<Region>,
    pub deleted: bool,
}

/// The Command document that `setup` made, from DescribeDocument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFact {
    pub name: String,
    pub version: String,
    /// SHA-256 of its text, as SendCommand's DocumentHash wants it.
    pub hash: Digest,
    /// Operating systems, as the manifest names them (`rhel8`), for which it brings a client package.
    pub packages: Vec<String>,
    /// Version of the client packages, for example `5.17.0-1`.
    pub client_version: Option<String>,
}

impl CloudFacts {
    pub fn managed(&self, instance: &InstanceId) -> Option<&ManagedInstance> {
        self.managed.iter().find(|m| m.instance == *instance)
    }
    pub fn instance(&self, instance: &InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|i| i.instance == *instance)
    }
    pub fn cluster(&self, cluster: &ClusterId) -> Option<&Cluster> {
        self.clusters.iter().find(|c| c.cluster == *cluster)
    }
    pub fn secret(&self, arn: &SecretArn) -> Option<&Secret> {
        self.secrets.iter().find(|s| s.arn == *arn)
    }
    pub fn security_group(&self, id: &str) -> Option<&SecurityGroup> {
        self.security_groups.iter().find(|g| g.id == id)
    }
}

impl Cluster {
    /// HSMs that are ACTIVE and have an address.
    pub fn active_hsms(&self) -> impl Iterator<Item = (&Hsm, IpAddr)> {
        self.hsms.iter().filter(|h| h.state == "ACTIVE").filter_map(|h| h.ip.map(|ip| (h, ip)))
    }
}
