//! The fleet file: what the operator wants, before anything of it is known to be so.
//!
//! It is refused as a whole at the first thing that means nothing: a misspelt key that is silently ignored is an
//! option the operator believes in and nobody carries out.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tde2hsm_protocol::{
    AccountId, AutoOpen, ClusterId, Code, EscrowPrefix, InstanceId, KeyAvailabilityCheck, KmsKeyArn, Region, RestartProof,
    Retention, Retired, SecretArn, SecretVersion, SecurityGroupId, Sid, SubnetId, Timestamp,
};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    pub fleet: Identity,
    pub cluster: ClusterChoice,
    pub secrets: Secrets,
    pub escrow: Option<EscrowChoice>,
    #[serde(default)]
    pub options: Options,
    #[serde(default)]
    pub waves: Waves,
    #[serde(default)]
    pub window: Window,
    pub targets: Vec<Targets>,
    #[serde(default)]
    pub hosts: Vec<HostOverride>,
    pub dr: Option<Dr>,
    #[serde(default)]
    pub protect: Protect,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub name: FleetName,
    pub account: AccountId,
    pub region: Region,
}

/// A fleet's name: lower-case letters, digits and `-`, at most 32.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FleetName(String);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterChoice {
    pub id: ClusterId,
    #[serde(default = "check_on")]
    pub key_availability_check: KeyAvailabilityCheck,
}

fn check_on() -> KeyAvailabilityCheck {
    KeyAvailabilityCheck::On
}

/// The secrets of the fleet; a host or database may name others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    pub old_hsm: Option<SecretChoice>,
    pub cloudhsm: Option<SecretChoice>,
    pub software: Option<SecretChoice>,
}

/// A secret by its full ARN; without a version, `plan` pins the one that is current (H13).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretChoice {
    pub arn: SecretArn,
    pub version: Option<SecretVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowChoice {
    pub prefix: EscrowPrefix,
    #[serde(default)]
    pub replica_regions: Vec<Region>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// No default for a database that opens by itself today (H15); `typed` for any other.
    pub auto_open: Option<AutoOpen>,
    pub restart_proof: RestartProof,
    /// A full backup must be newer than this (H7); 0 waives it.
    pub backup_hours: u16,
    pub on_failure: OnFailure,
    /// How often a failure that may pass is tried again.
    pub retries: u8,
    /// How long an order is valid, from when it is sent.
    pub order_minutes: u16,
    pub poll_seconds: u16,
    /// How long a command whose sending is uncertain is looked for before it counts as not sent.
    pub find_seconds: u16,
    /// A survey older than this is a finding (H23).
    pub survey_hours: u16,
    /// Cells of the support matrix that AWS has not given its word for, by name (H22).
    pub oracle_matrix: Vec<MatrixCell>,
    /// Warnings that were read and accepted.
    pub accept: Vec<Acceptance>,
}

/// What becomes of a host that failed in `cutover` or `prove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    Undo,
    /// It stays as it is for a person to look at.
    Hold,
}

/// A cell of the support matrix by name: `oracle-12.2/sdk-5/hsm2m.medium/rhel-8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MatrixCell(String);

/// A warning accepted by its code, for the whole fleet, one host or one database: `TDE0141`, `TDE0141 i-…`,
/// `TDE0141 i-…/SID`, each followed by words that say why, if any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Acceptance {
    pub code: Code,
    pub instance: Option<InstanceId>,
    pub sid: Option<Sid>,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waves {
    /// Hosts in the first wave.
    pub canary: u16,
    /// The most hosts of a later wave.
    pub concurrency: u16,
    /// Failed hosts at most, in each failure domain.
    pub budget: u16,
    /// The tag whose values are failure domains; without it the fleet is one.
    pub failure_domain: Option<String>,
}

/// When databases may be touched. Time zones are resolved before: both ends are instants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    #[serde(default, deserialize_with = "parse::instant")]
    pub not_before: Option<Timestamp>,
    #[serde(default, deserialize_with = "parse::instant")]
    pub not_after: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Targets {
    Tag(Tag),
    Instances(Vec<InstanceId>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOverride {
    pub instance: InstanceId,
    pub auto_open: Option<AutoOpen>,
    pub restart_proof: Option<RestartProof>,
    pub backup_hours: Option<u16>,
    #[serde(default)]
    pub secrets: Secrets,
    #[serde(default)]
    pub databases: Vec<DatabaseOverride>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseOverride {
    pub sid: Sid,
    pub auto_open: Option<AutoOpen>,
    pub restart_proof: Option<RestartProof>,
    pub backup_hours: Option<u16>,
    #[serde(default)]
    pub secrets: Secrets,
}

/// The second region: where copies go, how old the newest one that opens may be, and what is kept. The functions of the DR
/// half are told the same by their template's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dr {
    pub region: Region,
    /// KMS key of that region which copies are encrypted with.
    pub kms_key: KmsKeyArn,
    /// Versioned bucket of that region: inventories, intents, records of drills.
    pub records_bucket: String,
    pub rpo_minutes: u32,
    #[serde(default)]
    pub retention: Retention,
    /// HSM backups that no kept point needs are deleted after this many days; copies have no purge of their own (`A§4.5`).
    #[serde(default = "ninety")]
    pub hsm_backup_retention_days: u16,
    /// Databases and hosts that are no more, or need no recovery: they count in no RPO and hold up no expiry.
    #[serde(default)]
    pub retired: BTreeSet<Retired>,
    /// Copies in flight towards the region, at most; AWS allows 20 unless it was asked for more (`A§3.3`).
    #[serde(default = "twenty")]
    pub copies_in_flight: u16,
    /// MiB/s of the pair of regions that copies done by a time may take, which AWS asks a price for (`A§3.2`). Zero: none is bought.
    #[serde(default)]
    pub timed_copies_mib_s: u32,
    /// SNS topic of that region for breaches.
    pub topic: Option<String>,
    /// SSM document of the *source* region that surveys are ordered through; the program's own name for it when left out.
    pub document: Option<String>,
    /// Without it there is no `dr drill`.
    pub drill: Option<DrillPlace>,
}

fn ninety() -> u16 {
    90
}

fn twenty() -> u16 {
    20
}

/// Where a drill may make a cluster and a host: a subnet without any route to the source region (H44).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillPlace {
    pub subnet: SubnetId,
    pub security_group: SecurityGroupId,
    /// Name of the instance profile: SSM, the secrets' replicas, nothing of production.
    pub instance_profile: String,
    /// Such as `m6i.xlarge`.
    pub instance_type: String,
}

/// Whether a wave waits until the keys of the wave before it are in an HSM backup (H8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    pub mode: ProtectMode,
    /// How long a wave may wait for it; then the campaign ends unprotected and says so.
    pub wait_hours: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectMode {
    /// Nobody waits, and nobody knows.
    Off,
    /// For the backup that CloudHSM makes by itself, at least every 24 hours (`A§4.5`).
    Wait,
    /// An HSM is added and removed once a wave, which makes a backup each, and costs its hours.
    Force,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct FleetError {
    pub code: Code,
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            auto_open: None,
            restart_proof: RestartProof::Do,
            backup_hours: 24,
            on_failure: OnFailure::Undo,
            retries: 2,
            order_minutes: 60,
            poll_seconds: 15,
            find_seconds: 60,
            survey_hours: 24,
            oracle_matrix: Vec::new(),
            accept: Vec::new(),
        }
    }
}

impl Default for Protect {
    fn default() -> Protect {
        // A day until CloudHSM's own backup, and time for its copy.
        Protect { mode: ProtectMode::Wait, wait_hours: 30 }
    }
}

impl ProtectMode {
    pub fn name(self) -> &'static str {
        match self {
            ProtectMode::Off => "off",
            ProtectMode::Wait => "wait",
            ProtectMode::Force => "force",
        }
    }
}

impl Default for Waves {
    fn default() -> Waves {
        Waves { canary: 1, concurrency: 4, budget: 1, failure_domain: None }
    }
}

impl Fleet {
    /// Reads a fleet file's text.
    pub fn parse(text: &str) -> Result<Fleet, FleetError> {
        parse::parse(text)
    }

    pub fn host(&self, instance: &InstanceId) -> Option<&HostOverride> {
        self.hosts.iter().find(|h| h.instance == *instance)
    }
}

mod parse;
#[cfg(test)]
mod tests;
