//! Reports: what a host answers, one ASCII line of at most 2,000 bytes.
//!
//! The agent cuts output at 2,500 bytes over stdout and stderr together and may add words of its own (`A§1.2`). A
//! report therefore never relies on luck: [`Report::encode`] drops the least needed part until the line fits, and
//! says how much it left out; the whole is kept on the host as a [`DetailRef`] and fetched on demand.

use crate::{
    CampaignId, Code, ContainerName, Digest, Generation, InstanceId, MasterKeyId, OperationId, ShortDigest, Sid, Step, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub v: u8,
    pub instance: InstanceId,
    pub campaign: CampaignId,
    pub generation: Generation,
    pub operation: OperationId,
    /// Host clock when the report was written.
    pub at: Timestamp,
    pub outcome: Outcome,
    /// The step it ended in, or is in while `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// One sentence for a person: at most 240 printable ASCII characters, no secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseReport>,
    /// Secrets, by the order's index, whose login this operation proved, and how that ended (H10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<LoginProof>,
    /// Head of the host's journal after this operation (H38).
    pub journal_head: Digest,
    /// What the next order should carry as `saw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saw: Option<ShortDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<DetailRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<Chunk>,
    /// Databases and keys that did not fit; they are in the detail.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u16,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    Done,
    /// Every step's goal held already.
    AlreadyDone,
    Undone,
    /// Every database open and readable, part of the work done, no provider change (H29).
    Parked {
        code: Code,
    },
    /// Still at work, or waiting for something that it names; ask again.
    Waiting {
        code: Code,
    },
    /// The order came outside its window (H31).
    Expired,
    /// The order belongs to an older generation, or the host is not what the plan saw (H23, H31).
    Stale {
        code: Code,
    },
    Failed {
        code: Code,
        retriable: Retriable,
    },
    /// Can be neither finished nor undone without a person.
    Stuck {
        code: Code,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retriable {
    Yes,
    No,
}

impl Outcome {
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::AlreadyDone => "already-done",
            Outcome::Undone => "undone",
            Outcome::Parked { .. } => "parked",
            Outcome::Waiting { .. } => "waiting",
            Outcome::Expired => "expired",
            Outcome::Stale { .. } => "stale",
            Outcome::Failed { .. } => "failed",
            Outcome::Stuck { .. } => "stuck",
        }
    }

    pub fn code(&self) -> Option<Code> {
        match self {
            Outcome::Parked { code }
            | Outcome::Waiting { code }
            | Outcome::Stale { code }
            | Outcome::Failed { code, .. }
            | Outcome::Stuck { code } => Some(*code),
            Outcome::Expired => Some(Code::ORDER_EXPIRED),
            Outcome::Done | Outcome::AlreadyDone | Outcome::Undone => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseReport {
    pub sid: Sid,
    pub outcome: Outcome,
    /// Starts this campaign has made of this database so far, on this host's own count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub starts: u16,
    /// Seconds the database was away from its users in this operation.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub away: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyObservation>,
    /// Orphan keys found, by store: reported, never deleted (H9).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub orphans: u16,
    /// What a drill read of this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillRead>,
}

/// What a drill read of a database: first by keys of the HSM alone, the keystore's file moved aside; then, of what is left,
/// with the file back in its place. Rows are counted up to a limit a table, so they show that a tablespace opens and not how
/// large it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRead {
    pub rows: u64,
    /// Encrypted tablespaces read, those with nothing in them included.
    pub tablespaces: u16,
    /// Encrypted columns read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub columns: u16,
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub rows_with_p12: u64,
    /// What only the keystore's file opened: `CONTAINER.TABLESPACE`, or `CONTAINER.OWNER.TABLE.COLUMN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with_p12: Vec<String>,
    /// What neither opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    pub what: String,
    pub code: Code,
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// The active key of one container, as read from the database after the last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyObservation {
    pub container: ContainerName,
    pub key: MasterKeyId,
    pub store: Store,
    pub activated: Timestamp,
}

/// The kind of keystore a key lies in. Which HSM an `hsm` is follows from the provider that is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    Hsm,
    Software,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginProof {
    pub secret: u16,
    pub result: LoginResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginResult {
    Proven,
    /// The token or keystore refused it. One login was spent; it must not be tried again (H10).
    Refused,
    /// The token could not be asked; no login was spent.
    Unreachable,
}

/// A detail kept on the host: deflated JSON, fetched in chunks of [`CHUNK_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailRef {
    /// Digest of the deflated bytes.
    pub digest: Digest,
    pub chunks: u16,
}

/// Raw bytes of a detail in one report. In base64, deflated again and in base64 once more they stay under the limit.
pub const CHUNK_BYTES: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub index: u16,
    /// Base64url without padding.
    pub data: String,
}
