//! How old the newest point that opens is, and who is told (once for each breach).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tde2hsm_protocol::{Code, InstanceId, Sid, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub databases: Vec<DatabaseStatus>,
    /// The oldest of the databases' newest points that open. `None`: some database has none.
    pub fleet_age: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    pub instance: InstanceId,
    pub sid: Sid,
    /// When the newest set was taken, whatever its verdict.
    pub newest: Option<Timestamp>,
    pub newest_that_opens: Option<Timestamp>,
    /// Why the newest does not open, by code; empty where it does.
    pub why: Vec<Code>,
    /// Seconds.
    pub age: Option<i64>,
    /// When the next point may be expected to open, by the cadence seen.
    pub next_expected: Option<Timestamp>,
    pub level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Kept,
    /// The newest point that opens will be older than the RPO before the next can be expected to open.
    Predicted,
    Breached,
}

/// `alarms.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    pub v: u8,
    /// By `INSTANCE/SID`.
    pub standing: BTreeMap<String, Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub level: Level,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub instance: InstanceId,
    pub sid: Sid,
    /// `Kept`: the breach is over.
    pub level: Level,
    pub code: Option<Code>,
    pub text: String,
}
