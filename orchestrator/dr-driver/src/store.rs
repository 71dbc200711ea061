//! The records bucket: what lies where, and how it is read and written.
//!
//! Objects are JSON, one a thing, so that two jobs that work on different things never meet. A job that changes one writes
//! over what it read and nothing else; where another was quicker it lets the matter rest until its next run.

use crate::{CallError, Cloud, Effect, Object, Put, Wrote};
use futures::stream::{self, StreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_dr::records::{Attempt, CopyIntent, HsmCopyIntent, SecretAt};
use tde2hsm_protocol::{BackupId, InstanceId, SnapshotId, Timestamp};

pub const COPIES: &str = "copies/";
pub const HSM_COPIES: &str = "hsm-copies/";
pub const INVENTORIES: &str = "inventories/";
pub const SURVEYS: &str = "surveys/";
pub const ALARMS: &str = "alarms.json";
/// More secrets than an environment holds: a list of [`tde2hsm_dr::points::SecretUse`].
pub const SECRETS: &str = "secrets.json";
/// Addresses that the cluster's HSMs ever had.
pub const CLUSTER: &str = "cluster.json";
/// Instances that had a place in the fleet and are gone.
pub const GONE: &str = "gone.json";

/// Objects read at a time.
const AT_ONCE: usize = 16;

pub fn copy_key(source: &SnapshotId) -> String {
    format!("{COPIES}{source}.json")
}

pub fn hsm_copy_key(source: &BackupId) -> String {
    format!("{HSM_COPIES}{source}.json")
}

/// Ten digits, so that keys are in the order of time.
pub fn inventory_key(instance: &InstanceId, taken_at: Timestamp) -> String {
    format!("{INVENTORIES}{instance}/{:010}.json", taken_at.0)
}

pub fn survey_key(instance: &InstanceId) -> String {
    format!("{SURVEYS}{instance}.json")
}

/// Instance and time of an inventory's key; `None` where it is no such key.
pub fn parse_inventory_key(key: &str) -> Option<(InstanceId, Timestamp)> {
    let (instance, time) = key.strip_prefix(INVENTORIES)?.strip_suffix(".json")?.split_once('/')?;
    Some((InstanceId::new(instance).ok()?, Timestamp(time.parse().ok()?)))
}

/// What the intents of both kinds of copies have in common.
pub trait Intent: Clone + PartialEq + Serialize {
    type Copy: Clone + Ord + Serialize + std::fmt::Display;
    /// Of its record.
    fn key(&self) -> String;
    fn source(&self) -> &str;
    fn attempts(&self) -> &[Attempt];
    fn attempts_mut(&mut self) -> &mut Vec<Attempt>;
    /// When what is copied was made.
    fn moment(&self) -> Timestamp;
    /// Versions of secrets at that moment.
    fn secrets(&self) -> &[SecretAt];
    fn secrets_mut(&mut self) -> &mut Vec<SecretAt>;
}

impl Intent for CopyIntent {
    type Copy = SnapshotId;
    fn key(&self) -> String {
        copy_key(&self.source)
    }
    fn source(&self) -> &str {
        self.source.as_str()
    }
    fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }
    fn attempts_mut(&mut self) -> &mut Vec<Attempt> {
        &mut self.attempts
    }
    fn moment(&self) -> Timestamp {
        self.started
    }
    fn secrets(&self) -> &[SecretAt] {
        &self.secrets
    }
    fn secrets_mut(&mut self) -> &mut Vec<SecretAt> {
        &mut self.secrets
    }
}

impl Intent for HsmCopyIntent {
    type Copy = BackupId;
    fn key(&self) -> String {
        hsm_copy_key(&self.source)
    }
    fn source(&self) -> &str {
        self.source.as_str()
    }
    fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }
    fn attempts_mut(&mut self) -> &mut Vec<Attempt> {
        &mut self.attempts
    }
    fn moment(&self) -> Timestamp {
        self.created
    }
    fn secrets(&self) -> &[SecretAt] {
        &self.secrets
    }
    fn secrets_mut(&mut self) -> &mut Vec<SecretAt> {
        &mut self.secrets
    }
}

/// An intent with what came of its calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<I, Id: Ord> {
    #[serde(flatten)]
    pub intent: I,
    /// By the attempt's token.
    #[serde(default = "BTreeMap::new")]
    pub results: BTreeMap<String, Came<Id>>,
    /// The last call was refused; a refused attempt is none and is taken back. A region that is full refuses nothing: the call
    /// waits for a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

pub type CopyRecord = Record<CopyIntent, SnapshotId>;
pub type HsmCopyRecord = Record<HsmCopyIntent, BackupId>;

/// What came of an attempt. An attempt without a line here got no answer, or nobody wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "came")]
pub enum Came<Id> {
    /// The call was answered, or the copy was found by its token.
    Made {
        copy: Id,
        at: Timestamp,
    },
    /// Completed or READY, and like its source.
    Settled {
        copy: Id,
        at: Timestamp,
    },
    Failed {
        copy: Id,
        why: String,
        at: Timestamp,
    },
    /// Settled, and not there at the last look: it is looked for once more before it counts as gone.
    Missed {
        copy: Id,
        at: Timestamp,
    },
    /// Settled or made, and then not there; nobody of ours deleted it.
    Gone {
        copy: Id,
        at: Timestamp,
    },
    /// By our own expiry. What was expired once is never copied again.
    Expired {
        copy: Id,
        at: Timestamp,
    },
}

impl<Id> Came<Id> {
    pub fn copy(&self) -> &Id {
        match self {
            Came::Made { copy, .. }
            | Came::Settled { copy, .. }
            | Came::Failed { copy, .. }
            | Came::Missed { copy, .. }
            | Came::Gone { copy, .. }
            | Came::Expired { copy, .. } => copy,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub at: Timestamp,
    pub code: Option<String>,
    pub message: String,
    /// One after the other.
    #[serde(default)]
    pub times: u32,
}

impl Refused {
    /// Not asked again before: longer than the pause between two ticks, and twice as long each time. What was refused is found
    /// mended after the longest pause at the latest.
    pub fn until(&self) -> Timestamp {
        const FIRST: i64 = 45 * 60;
        const LONGEST: i64 = 3 * 3600;
        self.at.plus((FIRST << self.times.saturating_sub(1).min(10)).min(LONGEST))
    }
}

impl<I, Id: Ord> Record<I, Id> {
    pub fn new(intent: I) -> Self {
        Record { intent, results: BTreeMap::new(), refused: None }
    }

    /// Our own expiry deleted a copy of it.
    pub fn expired(&self) -> bool {
        self.results.values().any(|came| matches!(came, Came::Expired { .. }))
    }
}

/// Something as it was read, and the ETag that it may be written over with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    pub value: T,
    pub etag: String,
}

/// An object that is there and says nothing that can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub key: String,
    pub why: String,
}

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("`{}`: {}", .0.key, .0.why)]
    Unreadable(Unreadable),
}

pub async fn read<T: DeserializeOwned>(cloud: &dyn Cloud, key: &str) -> Result<Option<Read<T>>, ReadError> {
    parse(key, cloud.get(key).await?)
}

fn parse<T: DeserializeOwned>(key: &str, object: Option<Object>) -> Result<Option<Read<T>>, ReadError> {
    let Some(object) = object else { return Ok(None) };
    match serde_json::from_slice(&object.body) {
        Ok(value) => Ok(Some(Read { value, etag: object.etag })),
        Err(e) => Err(ReadError::Unreadable(Unreadable { key: key.to_owned(), why: e.to_string() })),
    }
}

/// Everything below a prefix, by key. An object that cannot be understood is told apart from one that is not there.
pub async fn read_all<T: DeserializeOwned>(
    cloud: &dyn Cloud,
    prefix: &str,
) -> Result<(BTreeMap<String, Read<T>>, Vec<Unreadable>), CallError> {
    let keys = cloud.list(prefix).await?.into_iter().map(|info| info.key).collect();
    read_keys(cloud, keys).await
}

/// The objects under these keys that are there.
pub async fn read_keys<T: DeserializeOwned>(
    cloud: &dyn Cloud,
    keys: Vec<String>,
) -> Result<(BTreeMap<String, Read<T>>, Vec<Unreadable>), CallError> {
    let mut found = BTreeMap::new();
    let mut unreadable = Vec::new();
    let reads = keys.into_iter().map(|key| async move {
        let read = cloud.get_listed(&key).await.map_err(ReadError::from).and_then(|object| parse::<T>(&key, object));
        (key, read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
    while let Some((key, read)) = reads.next().await {
        match read {
            Ok(Some(read)) => drop(found.insert(key, read)),
            Ok(None) => {}
            Err(ReadError::Unreadable(why)) => unreadable.push(why),
            Err(ReadError::Call(error)) => return Err(error),
        }
    }
    unreadable.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((found, unreadable))
}

/// Writes over what was read, or where there was nothing.
pub async fn write<T: Serialize>(cloud: &dyn Cloud, key: &str, value: &T, etag: Option<&str>) -> Result<Wrote, CallError> {
    let body = serde_json::to_vec(value).map_err(|e| CallError {
        call: "s3:PutObject".to_owned(),
        effect: Effect::NotSent,
        aws_code: None,
        message: e.to_string(),
    })?;
    let when = etag.map_or(Put::New, |etag| Put::Over(etag.to_owned()));
    cloud.put(key, &body, &when).await
}

/// Keeps an inventory. One that was kept before is the same: inventories are never changed.
pub async fn keep_inventory(cloud: &dyn Cloud, inventory: &Inventory) -> Result<Wrote, CallError> {
    write(cloud, &inventory_key(&inventory.instance, inventory.taken_at), inventory, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_inventories_are_in_the_order_of_time() {
        let instance = InstanceId::new("i-0123456789abcdef0").unwrap();
        let keys = [9, 999_999_999, 1_795_500_000].map(|at| inventory_key(&instance, Timestamp(at)));
        assert!(keys.is_sorted());
        assert_eq!(parse_inventory_key(&keys[1]), Some((instance, Timestamp(999_999_999))));
        assert_eq!(parse_inventory_key("inventories/i-0123456789abcdef0/x.json"), None);
        assert_eq!(parse_inventory_key("copies/snap-0123456789abcdef0.json"), None);
    }
}
