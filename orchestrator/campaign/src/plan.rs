//! The plan: an immutable value with nothing left to choose at run time.
//!
//! What the operator approves is exactly what is carried out, because both sides name the plan by the digest of its
//! content: a plan file that was edited is refused when it is read, and a host that finds something else than the plan
//! saw answers `stale` (H23).

use crate::facts::CloudFacts;
use crate::fleet::{Acceptance, Fleet, FleetName, OnFailure, ProtectMode};
use crate::rules::Finding;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use tde2hsm_protocol::survey::Survey;
use tde2hsm_protocol::{
    AccountId, Code, DatabaseOrder, Digest, Direction, Escrow, InstanceId, KmsKeyArn, Region, SecretRef, Segment, ShortDigest,
    Source, Step, Target, Timestamp,
};

/// The version of plan files this program writes and reads.
pub const PLAN_VERSION: u32 = 1;

/// A plan whose digest has been computed or verified. There is no other way to get one, and no way to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    digest: Digest,
    body: PlanBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// Version of the program that made it.
    pub program: String,
    pub fleet: FleetName,
    pub direction: Direction,
    pub made_at: Timestamp,
    pub account: AccountId,
    pub region: Region,
    pub document: DocumentPin,
    pub target: Target,
    /// Pinned (H13). Databases refer to them by index.
    pub secrets: Vec<PlannedSecret>,
    pub escrow: Escrow,
    pub window: Window,
    pub waves: Waves,
    pub policy: Policy,
    /// `None`: an undo, or a plan of a version that had no such gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<Protect>,
    /// In the order in which they enter waves.
    pub hosts: Vec<HostPlan>,
    pub refused: Vec<Refused>,
    /// Warnings and notes on hosts that are not refused, and on the fleet.
    pub findings: Vec<Finding>,
    pub accepted: Vec<Acceptance>,
}

/// SendCommand pins both (H34).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentPin {
    pub name: String,
    pub version: String,
    pub hash: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSecret {
    pub secret: SecretRef,
    pub purpose: SecretPurpose,
    /// Hosts that can prove it before anything is touched (H10, H14); empty when nothing yet opens with it.
    pub provers: Vec<InstanceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretPurpose {
    OldHsm,
    Cloudhsm,
    Software,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waves {
    pub canary: u16,
    pub concurrency: u16,
    pub budget: u16,
    pub failure_domain: Option<String>,
    /// The waves if nothing fails; a failure makes the later ones narrower.
    pub expected: Vec<Vec<InstanceId>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub on_failure: OnFailure,
    pub retries: u8,
    /// How long an order is valid, in seconds.
    pub order_seconds: u32,
    pub poll_seconds: u32,
    /// How long a command whose sending is uncertain is looked for before it counts as not sent (`A§1.5`).
    pub find_seconds: u32,
    /// The oldest view of the cluster a key change may rest on (H23).
    pub cluster_seconds: u32,
    /// How often a host that does not answer is asked before it counts as stuck.
    pub asks: u8,
}

/// Where keys must lie before the next wave may make more of them (H8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    pub mode: ProtectMode,
    /// How long a wave may wait, in seconds.
    pub wait_seconds: u32,
    /// `None`: the fleet file names no second region, and a backup in the cluster's own has to do.
    pub second: Option<Second>,
}

/// The second region, as far as a campaign has to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    pub region: Region,
    pub records_bucket: String,
    pub kms_key: KmsKeyArn,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPlan {
    pub instance: InstanceId,
    /// Value of the failure domain's tag; empty without one.
    pub domain: String,
    /// Digest of what the plan saw (H23).
    pub saw: ShortDigest,
    pub databases: Vec<DatabasePlan>,
    pub segments: Vec<SegmentPlan>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentPlan {
    pub segment: Segment,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabasePlan {
    pub order: DatabaseOrder,
    /// As V$INSTANCE has it.
    pub version: String,
    pub home: String,
    pub style: ConfigurationStyle,
    /// Containers that have a master key.
    pub containers: u16,
    pub restarts: Restarts,
    pub reversible: bool,
    /// What someone must type after a reboot; empty when it opens by itself (H15).
    pub typed: Vec<String>,
    /// Old key material that must stay, and until when (H4, H43).
    pub keeps: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigurationStyle {
    Sqlnet,
    WalletRoot,
}

/// Restarts of one database, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restarts {
    pub swap: u16,
    pub proof: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    pub instance: InstanceId,
    pub findings: Vec<Finding>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the plan file is not JSON of a plan")]
    Json(#[source] serde_json::Error),
    #[error("the plan file has version {0}; this program reads version {PLAN_VERSION}")]
    Version(u32),
    #[error("the plan's hash is {written}, its content has {computed}: it was changed after it was made")]
    Hash { written: Digest, computed: Digest },
    #[error("no host can be migrated as planned")]
    Refused { findings: Vec<Finding> },
}

impl PlanError {
    pub fn code(&self) -> Code {
        match self {
            PlanError::Json(_) | PlanError::Version(_) | PlanError::Hash { .. } => Code::PLAN_UNREADABLE,
            PlanError::Refused { .. } => Code::PLAN_REFUSED,
        }
    }
    pub fn findings(&self) -> &[Finding] {
        match self {
            PlanError::Refused { findings } => findings,
            _ => &[],
        }
    }
}

impl HostPlan {
    /// Indices of the secrets that its databases use, in order, each once.
    pub fn secrets(&self) -> Vec<u16> {
        let mut used: Vec<u16> = Vec::new();
        for database in &self.databases {
            let order = &database.order;
            used.extend([order.software, order.cloudhsm]);
            if let Source::OldHsm { pin } = order.source {
                used.push(pin);
            }
        }
        used.sort_unstable();
        used.dedup();
        used
    }
}

impl Restarts {
    pub fn total(self) -> u16 {
        self.swap + self.proof
    }
}

impl Deref for Plan {
    type Target = PlanBody;
    fn deref(&self) -> &PlanBody {
        &self.body
    }
}

/// The file: version and hash around the content.
#[derive(Serialize, Deserialize)]
struct PlanFile<B> {
    tde2hsm_plan: u32,
    hash: Digest,
    plan: B,
}

impl Plan {
    pub fn seal(body: PlanBody) -> Plan {
        Plan { digest: Digest::of_json(&body), body }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn host(&self, instance: &InstanceId) -> Option<&HostPlan> {
        self.body.hosts.iter().find(|h| h.instance == *instance)
    }

    pub fn to_json(&self) -> String {
        let file = PlanFile { tde2hsm_plan: PLAN_VERSION, hash: self.digest, plan: &self.body };
        let mut text = serde_json::to_string_pretty(&file).expect("a plan serialises: string keys, no foreign Serialize");
        text.push('\n');
        text
    }

    /// Reads a plan file; one whose hash does not fit its content is refused.
    pub fn from_json(text: &str) -> Result<Plan, PlanError> {
        #[derive(Deserialize)]
        struct Head {
            tde2hsm_plan: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(PlanError::Json)?;
        if head.tde2hsm_plan != PLAN_VERSION {
            return Err(PlanError::Version(head.tde2hsm_plan));
        }
        let file: PlanFile<PlanBody> = serde_json::from_str(text).map_err(PlanError::Json)?;
        let plan = Plan::seal(file.plan);
        if plan.digest != file.hash {
            return Err(PlanError::Hash { written: file.hash, computed: plan.digest });
        }
        Ok(plan)
    }
}

/// Makes the plan from what is wanted and what was seen.
///
/// `surveys` holds at most one survey a host; a target without one is refused. For [`Direction::Undo`] the surveys are
/// of the hosts as they are now and `sources` is the plan that brought them there (H30).
pub fn build(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    build::build(input)
}

#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    pub fleet: &'a Fleet,
    pub facts: &'a CloudFacts,
    pub surveys: &'a [Survey],
    pub now: Timestamp,
    pub program: &'a str,
    /// `Some`: the plan to undo.
    pub undo_of: Option<&'a Plan>,
    /// Only these hosts; empty: all targets.
    pub only: &'a [InstanceId],
}

/// The instances that a fleet file's targets select, in order of id.
pub fn targets(fleet: &Fleet, facts: &CloudFacts) -> Vec<InstanceId> {
    build::targets(fleet, facts)
}

mod build;
