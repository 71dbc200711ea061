use crate::DocumentPin;
use std::collections::BTreeSet;
use tde2hsm_dr::copying::{Limits, Timed};
use tde2hsm_dr::points::SecretUse;
use tde2hsm_dr::retention::{Because, Item};
use tde2hsm_protocol::{AccountId, BackupId, ClusterId, KmsKeyArn, Region, Retention, Retired, SecretArn, SecretVersion};

/// What the five jobs are told, from the environment of a function or the fleet file's `[dr]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrConfig {
    pub account: AccountId,
    pub fleet: String,
    /// The tag of the fleet's instances.
    pub fleet_tag: (String, String),
    pub source_region: Region,
    pub dr_region: Region,
    pub cluster: ClusterId,
    /// KMS key of the DR region that copies are encrypted with.
    pub kms_key: KmsKeyArn,
    /// Bucket of the DR region that holds inventories, intents and records.
    pub records_bucket: String,
    /// Secrets (ARNs of the source region) that points need, and what each is for. The object `secrets.json` of the records
    /// bucket may name more: an environment holds no hundred of them.
    pub secrets: Vec<SecretUse>,
    pub rpo_minutes: u32,
    /// Copies in flight in the DR region, at most (20 unless raised, `A§3.3`).
    pub copies_in_flight: u16,
    /// Whether copies are bought to be done by their deadline (`A§3.2`).
    pub timed: Timed,
    pub retention: Retention,
    /// HSM backups that no kept point needs are deleted after this many days.
    pub hsm_backup_retention_days: u16,
    /// Databases and hosts that count in no RPO and hold up no expiry any more.
    pub retired: BTreeSet<Retired>,
    /// SNS topic of the DR region.
    pub topic: Option<String>,
    /// The SSM document of the source region that surveys are ordered through; without it none is ordered.
    pub document: Option<DocumentPin>,
    pub expiry: Expiry,
}

impl DrConfig {
    /// What copies are planned within, and the RPO reckoned by.
    pub fn limits(&self) -> Limits {
        Limits { in_flight: self.copies_in_flight, rpo_minutes: self.rpo_minutes, timed: self.timed }
    }
}

/// Whether what may go does go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    Delete,
    /// It is only said what would be deleted.
    DryRun,
    /// Of what is due, what a person saw and approved. What became due since waits for the next time.
    Approved(Approved),
}

/// What somebody was shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approved {
    /// With what it means: a copy approved as a spare one is not approved as the last of its point.
    pub deletions: BTreeSet<(Item, Because)>,
    /// Backups of the source region, given back to their cluster's purge.
    pub let_go: BTreeSet<BackupId>,
    /// Secret versions that lose our stage; AWS may remove them then.
    pub unstaged: BTreeSet<(SecretArn, SecretVersion)>,
}
