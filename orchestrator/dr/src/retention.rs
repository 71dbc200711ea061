//! What may go and what must stay (H45).

use crate::facts::SetId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::str::FromStr;
use tde2hsm_protocol::{BackupId, InstanceId, Region, SecretArn, SecretVersion, SnapshotId, Timestamp};

/// How many points of each kind are kept. Zero of everything keeps nothing but what must not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Policy {
    pub hourly: u16,
    pub daily: u16,
    pub weekly: u16,
    pub monthly: u16,
    /// The newest so many, whatever their time.
    pub count: u16,
    /// Everything younger than this.
    pub days: u16,
}

impl Policy {
    fn fields(&mut self) -> [(&'static str, &mut u16); 6] {
        [
            ("hourly", &mut self.hourly),
            ("daily", &mut self.daily),
            ("weekly", &mut self.weekly),
            ("monthly", &mut self.monthly),
            ("count", &mut self.count),
            ("days", &mut self.days),
        ]
    }
}

impl FromStr for Policy {
    type Err = PolicyError;
    /// `hourly=8,daily=14,weekly=5,monthly=12`, each at most once; `count=N` and `days=N` beside them.
    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        let mut policy = Policy { hourly: 0, daily: 0, weekly: 0, monthly: 0, count: 0, days: 0 };
        let mut seen = BTreeSet::new();
        for entry in text.split(',').map(str::trim) {
            let refuse = || PolicyError { entry: entry.chars().filter(|c| !c.is_control()).take(40).collect() };
            let (name, number) = entry.split_once('=').ok_or_else(refuse)?;
            let number = number.trim();
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) || !seen.insert(name.trim().to_owned()) {
                return Err(refuse());
            }
            let number = number.parse().map_err(|_| refuse())?;
            let mut fields = policy.fields();
            *fields.iter_mut().find(|(field, _)| *field == name.trim()).ok_or_else(refuse)?.1 = number;
        }
        Ok(policy)
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut copy = *self;
        let named: Vec<String> = copy
            .fields()
            .iter()
            .enumerate()
            .filter(|(i, (_, n))| *i < 4 || **n > 0)
            .map(|(_, (name, n))| format!("{name}={n}"))
            .collect();
        f.write_str(&named.join(","))
    }
}
impl From<Policy> for String {
    fn from(policy: Policy) -> String {
        policy.to_string()
    }
}
impl TryFrom<String> for Policy {
    type Error = PolicyError;
    fn try_from(text: String) -> Result<Policy, PolicyError> {
        text.parse()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is not a part of a retention such as `hourly=8,daily=14,weekly=5,monthly=12`")]
pub struct PolicyError {
    pub entry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    pub delete: Vec<Deletion>,
    pub keep: Vec<Kept>,
    /// Backups of the source region whose own purge must be held off, because a kept point needs them and no copy is READY.
    pub never_expires: Vec<BackupId>,
    /// Those that were held off and need not be any more.
    pub may_expire: Vec<BackupId>,
    /// Secret versions of the source region that must carry a stage of ours; those that do and are in no line here may lose it.
    pub staged: BTreeSet<(SecretArn, SecretVersion)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Item {
    Snapshot {
        id: SnapshotId,
        instance: InstanceId,
        set: SetId,
    },
    Backup {
        id: BackupId,
        region: Region,
    },
    Inventory {
        instance: InstanceId,
        taken_at: Timestamp,
    },
    /// Record of a snapshot's copy: goes when neither copy nor source is there.
    CopyRecord {
        source: SnapshotId,
    },
    HsmCopyRecord {
        source: BackupId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub item: Item,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub item: Item,
    pub why: Vec<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The newest point that opens, of some database.
    LastThatOpens,
    /// Nothing opens: until something does, the newest point stays whatever it lacks.
    NothingOpens,
    Held,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Count,
    Age,
    /// It is younger than the newest that opens, and may open yet.
    Newer,
    /// A kept point needs it.
    Needed,
    /// It is not ours.
    NotOurs,
    /// Something of what decides could not be asked.
    NotAsked,
}
