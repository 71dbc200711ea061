//! The truth of a campaign: events, each chained to all before it.
//!
//! A journal appends and reads; it never changes an entry. Three things make it safe to drive a fleet from:
//!
//! * an append names the head it follows, so of two controllers that write to one campaign one is refused before it
//!   has had any effect (intent is recorded first);
//! * each entry carries a link over all before it, so a changed or missing entry is seen when the journal is read; a
//!   cut-off tail is seen by the hosts, to whom every order shows the head (H38);
//! * each entry names the version it was written in, and any other version is refused by code, never guessed.
//!
//! No engine here: `journal-sqlite` is one.

#![forbid(unsafe_code)]

mod codec;
mod memory;

pub use codec::{Body, JOURNAL_VERSION, OLDEST_VERSION};
pub use memory::MemoryJournal;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tde2hsm_protocol::{CampaignId, Code, Digest, Timestamp};

/// Number of an entry within its campaign; the first is 1, and 0 stands before it.
pub type Seq = u64;

/// Where a campaign's journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub seq: Seq,
    pub link: Digest,
}

impl Head {
    /// The head of a campaign without an entry.
    pub const START: Head = Head { seq: 0, link: Digest::ZERO };

    pub fn next(self, body: &Body) -> Head {
        Head { seq: self.seq + 1, link: self.link.chain(body.as_str().as_bytes()) }
    }
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: Seq,
    /// When it was written, on the controller's clock. Not part of the chain: only for people.
    pub written_at: Timestamp,
    pub body: Body,
    pub link: Digest,
}

impl Entry {
    pub fn event<E: DeserializeOwned>(&self) -> Result<E, JournalError> {
        self.body.event().map_err(|cause| match cause {
            JournalError::Broken { why, .. } => JournalError::Broken { seq: self.seq, why },
            other => other,
        })
    }
}

/// A campaign as a journal lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub campaign: CampaignId,
    pub head: Head,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("entry {seq} does not verify: {why}")]
    Broken { seq: Seq, why: String },
    #[error("written in version {found}, the oldest this program reads is {OLDEST_VERSION}")]
    Older { found: u32 },
    #[error("written in version {found}, this program reads up to {JOURNAL_VERSION}")]
    Newer { found: u32 },
    #[error("campaign `{campaign}` has grown to entry {found} while this controller followed entry {expected}")]
    Conflict { campaign: CampaignId, expected: Seq, found: Seq },
    #[error("the journal cannot {doing}")]
    Storage {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl JournalError {
    pub fn code(&self) -> Code {
        match self {
            JournalError::Broken { .. } => Code::JOURNAL_BROKEN,
            JournalError::Older { .. } => Code::JOURNAL_OLDER,
            JournalError::Newer { .. } => Code::JOURNAL_NEWER,
            JournalError::Conflict { .. } => Code::JOURNAL_CONFLICT,
            JournalError::Storage { .. } => Code::JOURNAL_UNWRITABLE,
        }
    }
}

/// An event log of several campaigns. An append that has returned is durable.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends `bodies` after entry `expected`, all or none, and answers the new head.
    async fn append(&self, campaign: &CampaignId, expected: Seq, at: Timestamp, bodies: &[Body]) -> Result<Head, JournalError>;

    /// Entries from `from` on, in order, the chain verified from the first entry of the campaign.
    async fn read(&self, campaign: &CampaignId, from: Seq) -> Result<Vec<Entry>, JournalError>;

    /// Where the campaign ends; [`Head::START`] when there is none.
    async fn head(&self, campaign: &CampaignId) -> Result<Head, JournalError>;

    /// Keeps a text under its digest, beside the campaigns: the plan that a campaign's first entry names. The digest is
    /// the text's own word for itself; whoever reads it checks.
    async fn keep(&self, digest: Digest, text: &str) -> Result<(), JournalError>;

    async fn kept(&self, digest: Digest) -> Result<Option<String>, JournalError>;

    /// All campaigns, the one written to last first.
    async fn campaigns(&self) -> Result<Vec<Listed>, JournalError>;
}

/// Verifies a campaign's entries from its first: numbers without a gap and links that fit.
pub fn verify(entries: &[Entry]) -> Result<Head, JournalError> {
    let mut head = Head::START;
    for entry in entries {
        let next = head.next(&entry.body);
        if entry.seq != next.seq {
            return Err(JournalError::Broken { seq: next.seq, why: format!("the entry after it is number {}", entry.seq) });
        }
        if entry.link != next.link {
            return Err(JournalError::Broken { seq: entry.seq, why: "its link does not fit the entries before it".to_owned() });
        }
        head = next;
    }
    Ok(head)
}
