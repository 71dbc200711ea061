//! `drills/ID.json`: what a drill intends, did, and left, written before and after each effect.
//!
//! The record is never proof that something is there or gone: that is asked of AWS by the drill's tag. It says what to look
//! for, with which plan, and it outlives the program and the machine that ran the drill.

use super::ports::Pace;
use crate::{CallError, Cloud, Effect, Put, Wrote};
use serde::{Deserialize, Serialize};
use tde2hsm_dr::drill::Plan;
use tde2hsm_protocol::{ClusterId, Code, DrillId, DrillRead, InstanceId, SecurityGroupId, Timestamp};

pub const VERSION: u8 = 1;

/// Objects below this are records of drills.
pub const PREFIX: &str = "drills/";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u8,
    pub id: DrillId,
    pub fleet: String,
    pub plan: Plan,
    /// Production's cluster. Nothing is ever asked of it or done to it, whatever its tags say.
    pub production: ClusterId,
    pub began: Timestamp,
    /// One for each of the plan's actions that was begun, in order.
    pub steps: Vec<Step>,
    #[serde(default)]
    pub made: Made,
    #[serde(default)]
    pub reading: Option<DrillRead>,
    #[serde(default)]
    pub ending: Option<Ending>,
    /// Everything is to stay for somebody to look at.
    #[serde(default)]
    pub kept: bool,
    #[serde(default)]
    pub teardown_begun: Option<Timestamp>,
    /// What the last teardown could not remove.
    #[serde(default)]
    pub left: Vec<Left>,
    /// Nothing is left that carries the drill's tag.
    #[serde(default)]
    pub torn_down: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Place in the plan's actions.
    pub action: usize,
    pub begun: Timestamp,
    /// `None`: begun, and how it ended was never written down.
    #[serde(default)]
    pub done: Option<Timestamp>,
}

/// Ids as they became known. What is looked for is found by the tag all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Every cluster that ever carried the tag: its backups are removed after it.
    #[serde(default)]
    pub clusters: Vec<ClusterId>,
    #[serde(default)]
    pub cluster_group: Option<SecurityGroupId>,
    #[serde(default)]
    pub hsm_ip: Option<std::net::IpAddr>,
    #[serde(default)]
    pub image: Option<String>,
    #[serde(default)]
    pub instance: Option<InstanceId>,
    #[serde(default)]
    pub command: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub at: Timestamp,
    /// From the record's first word to the last row, teardown not counted: how long a recovery takes.
    pub seconds: i64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The keystore opened from the restored cluster and every encrypted tablespace was read.
    Read,
    Failed {
        code: Code,
        message: String,
    },
    Declined,
}

/// Something that carries the drill's tag and could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub what: String,
    pub id: String,
    /// What it costs while it is there.
    pub cost: String,
    pub why: String,
}

impl Record {
    pub fn begin(id: DrillId, fleet: String, plan: Plan, production: ClusterId, now: Timestamp) -> Record {
        Record {
            v: VERSION,
            id,
            fleet,
            plan,
            production,
            began: now,
            steps: Vec::new(),
            made: Made::default(),
            reading: None,
            ending: None,
            kept: false,
            teardown_begun: None,
            left: Vec::new(),
            torn_down: None,
        }
    }

    pub fn key(id: &DrillId) -> String {
        format!("{PREFIX}{id}.json")
    }

    /// It may have made something that is still there.
    pub fn is_open(&self) -> bool {
        self.torn_down.is_none()
    }
}

/// A record and the ETag it was read or written with: another program's write in between is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub record: Record,
    etag: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record of drill `{0}` is written by another program at the same time")]
    Taken(DrillId),
    #[error("there is no record of drill `{0}`")]
    Unknown(DrillId),
    #[error("the record of drill `{id}` cannot be understood: {why}")]
    Unreadable { id: DrillId, why: String },
    #[error("the records bucket does not answer")]
    Call(#[from] CallError),
}

/// Tries of a write whose answer was lost.
const TRIES: usize = 4;

impl Kept {
    /// Not written yet.
    pub fn new(record: Record) -> Kept {
        Kept { record, etag: None }
    }

    pub async fn read(cloud: &dyn Cloud, id: &DrillId) -> Result<Kept, RecordError> {
        let object = cloud.get(&Record::key(id)).await?.ok_or_else(|| RecordError::Unknown(id.clone()))?;
        let unreadable = |why: String| RecordError::Unreadable { id: id.clone(), why };
        let record: Record = serde_json::from_slice(&object.body).map_err(|e| unreadable(e.to_string()))?;
        if record.v != VERSION || record.id != *id {
            return Err(unreadable(format!("it is version {} of drill `{}`", record.v, record.id)));
        }
        Ok(Kept { record, etag: Some(object.etag) })
    }

    /// Drills that may have left something. A record that cannot be read is one.
    pub async fn open(cloud: &dyn Cloud) -> Result<Vec<(DrillId, Option<Record>)>, RecordError> {
        let mut open = Vec::new();
        for info in cloud.list(PREFIX).await? {
            let name = info.key.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(".json"));
            let Some(Ok(id)) = name.map(DrillId::new) else { continue };
            match Kept::read(cloud, &id).await {
                Ok(kept) if !kept.record.is_open() => {}
                Ok(kept) => open.push((id, Some(kept.record))),
                Err(RecordError::Unreadable { .. }) => open.push((id, None)),
                Err(RecordError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    /// Written down, or an error: no effect follows an intent that was not.
    pub async fn save(&mut self, cloud: &dyn Cloud, pace: &dyn Pace) -> Result<(), RecordError> {
        let key = Record::key(&self.record.id);
        let body = serde_json::to_vec_pretty(&self.record)
            .map_err(|e| RecordError::Unreadable { id: self.record.id.clone(), why: e.to_string() })?;
        let mut tried = 0;
        loop {
            tried += 1;
            let when = self.etag.clone().map_or(Put::New, Put::Over);
            let failed = match cloud.put(&key, &body, &when).await {
                Ok(Wrote::Yes(etag)) => {
                    self.etag = Some(etag);
                    return Ok(());
                }
                Ok(Wrote::Lost) => return Err(RecordError::Taken(self.record.id.clone())),
                Err(error) => error,
            };
            if failed.effect == Effect::Refused || tried == TRIES {
                return Err(failed.into());
            }
            pace.pause(2).await;
            if failed.effect == Effect::NotSent {
                continue;
            }
            match cloud.get(&key).await? {
                Some(object) if object.body == body => {
                    self.etag = Some(object.etag);
                    return Ok(());
                }
                Some(object) if self.etag.as_ref() == Some(&object.etag) => {}
                None if self.etag.is_none() => {}
                _ => return Err(RecordError::Taken(self.record.id.clone())),
            }
        }
    }
}
