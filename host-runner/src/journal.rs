//! What the host did, entry by entry: the truth about intents, never about keys (invariant 1).
//!
//! Safe because each entry is on disk before the effect it announces (append, fsync), each carries the digest of the
//! one before (H38), and a line that a crash tore off is told from one that was changed: only the *last* line may be
//! unreadable, and it is then cut off, since nothing can have followed from it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::{
    CampaignId, Code, Digest, Direction, Generation, OperationId, OrderToken, Outcome, Sid, Step, Timestamp, Work,
};

/// The version of the entries this program writes; another one is refused, not guessed.
pub const JOURNAL_VERSION: u8 = 1;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    Host,
    Database(Sid),
    /// The databases that share one `sqlnet.ora`, by its path (H16).
    HomeGroup(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An order was accepted. `controller_head` is the controller's journal at that time (H38).
    Accepted {
        plan: Digest,
        generation: Generation,
        token: OrderToken,
        work: Work,
        controller_head: Digest,
    },
    /// A worker took the operation up, for the first time or again after a crash.
    Worker {
        pid: u32,
    },
    StepBegun {
        step: Step,
        direction: Direction,
    },
    StepEnded {
        step: Step,
        direction: Direction,
        end: StepEnded,
    },
    /// An effect is about to happen (invariant 2).
    Intent {
        step: Step,
        direction: Direction,
        subject: Subject,
        action: String,
        data: Value,
    },
    /// What was seen after an effect, or instead of one.
    Observed {
        step: Step,
        direction: Direction,
        subject: Subject,
        action: String,
        data: Value,
    },
    /// Something a later step or the undo has to know.
    Fact {
        subject: Subject,
        name: String,
        value: Value,
    },
    /// A database was started by us.
    Start {
        sid: Sid,
    },
    Reported {
        outcome: Outcome,
    },
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnded {
    Done,
    AlreadyDone,
    Undone,
    Nothing,
    Failed { outcome: Outcome, message: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub v: u8,
    pub seq: u64,
    pub at: Timestamp,
    pub campaign: CampaignId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// Digest of everything before.
    pub prev: Digest,
    pub event: Event,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal `{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("journal entry {seq} does not follow from the one before")]
    Broken { seq: u64 },
    #[error("journal entry {seq} has version {version}; this program writes version {JOURNAL_VERSION}")]
    Version { seq: u64, version: u64 },
}

pub struct Journal {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    head: Digest,
}

impl Journal {
    /// Opens the journal in `dir`, verifies it and cuts off a torn tail.
    pub fn open(dir: &Path) -> Result<Journal, JournalError> {
        let path = dir.join("journal.jsonl");
        let fail = |what| {
            let path = path.clone();
            move |source| JournalError::Io { path, what, source }
        };
        std::fs::create_dir_all(dir).map_err(fail("created"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(fail("opened"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail("read"))?;
        let (entries, head, good) = verify(&bytes)?;
        if good < bytes.len() {
            file.set_len(good as u64).map_err(fail("mended"))?;
            file.seek(SeekFrom::End(0)).map_err(fail("mended"))?;
            file.sync_all().map_err(fail("mended"))?;
        }
        if bytes.is_empty() {
            // The name itself has to survive a crash.
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail("created"))?;
        }
        Ok(Journal { path, file, entries, head })
    }

    /// Durable when it returns.
    pub fn append(
        &mut self,
        at: Timestamp,
        campaign: &CampaignId,
        operation: Option<&OperationId>,
        event: Event,
    ) -> Result<&Entry, JournalError> {
        let entry = Entry {
            v: JOURNAL_VERSION,
            seq: self.entries.len() as u64,
            at,
            campaign: campaign.clone(),
            operation: operation.cloned(),
            prev: self.head,
            event,
        };
        let mut line = serde_json::to_vec(&entry).expect("entries serialise: string keys, no foreign Serialize");
        let head = self.head.chain(&line);
        line.push(b'\n');
        let io = |source| JournalError::Io { path: self.path.clone(), what: "written", source };
        let length = self.file.metadata().map_err(io)?.len();
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Half a line in the middle would look like tampering: take it back while it is the last.
            let _ = self.file.set_len(length);
            return Err(io(source));
        }
        self.head = head;
        self.entries.push(entry);
        Ok(self.entries.last().expect("pushed above"))
    }

    /// Digest over the whole journal (H38).
    pub fn head(&self) -> Digest {
        self.head
    }
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
    pub fn of_campaign<'a>(&'a self, campaign: &'a CampaignId) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.campaign == *campaign)
    }
    pub fn of_operation<'a>(&'a self, operation: &'a OperationId) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.operation.as_ref() == Some(operation))
    }

    /// The newest value remembered under a name.
    pub fn fact(&self, campaign: &CampaignId, subject: &Subject, name: &str) -> Option<Value> {
        self.of_campaign(campaign).rev().find_map(|entry| match &entry.event {
            Event::Fact { subject: s, name: n, value } if s == subject && n == name => Some(value.clone()),
            _ => None,
        })
    }

    /// Starts of a database by this campaign.
    pub fn starts(&self, campaign: &CampaignId, sid: &Sid) -> u16 {
        let starts = self.of_campaign(campaign).filter(|e| matches!(&e.event, Event::Start { sid: s } if s == sid));
        u16::try_from(starts.count()).unwrap_or(u16::MAX)
    }

    /// The newest intent of an action, and what was observed of it afterwards, if anything.
    pub fn last_intent(
        &self,
        campaign: &CampaignId,
        step: Step,
        direction: Direction,
        subject: &Subject,
        action: &str,
    ) -> Option<(&Entry, Option<&Value>)> {
        let at = self.entries.iter().rposition(|e| {
            e.campaign == *campaign
                && matches!(&e.event, Event::Intent { step: s, direction: d, subject: j, action: a, .. }
                    if *s == step && *d == direction && j == subject && a == action)
        })?;
        let seen = self.entries[at..].iter().filter(|e| e.campaign == *campaign).find_map(|e| match &e.event {
            Event::Observed { step: s, direction: d, subject: j, action: a, data }
                if *s == step && *d == direction && j == subject && a == action =>
            {
                Some(data)
            }
            _ => None,
        });
        Some((&self.entries[at], seen))
    }

    /// How a step ended last in this campaign.
    pub fn last_end(&self, campaign: &CampaignId, step: Step, direction: Direction) -> Option<&StepEnded> {
        self.entries.iter().rev().filter(|entry| entry.campaign == *campaign).find_map(|entry| match &entry.event {
            Event::StepEnded { step: s, direction: d, end } if *s == step && *d == direction => Some(end),
            _ => None,
        })
    }

    /// This campaign has announced an effect in `cutover` or later: the host may differ from what the plan saw (H23).
    pub fn has_moved(&self, campaign: &CampaignId) -> bool {
        self.of_campaign(campaign).any(|entry| match &entry.event {
            Event::Intent { step, .. } => step.info().segment.is_some_and(|segment| segment != tde2hsm_protocol::Segment::Stage),
            _ => false,
        })
    }

    /// The newest generation any accepted order of the campaign had, unless its hold was released since.
    pub fn generation(&self, campaign: &CampaignId) -> Option<Generation> {
        self.of_campaign(campaign)
            .filter_map(|entry| match &entry.event {
                Event::Accepted { generation, .. } => Some(*generation),
                _ => None,
            })
            .max()
    }
}

/// The entries of a journal's bytes, its head, and how many bytes of it hold.
fn verify(bytes: &[u8]) -> Result<(Vec<Entry>, Digest, usize), JournalError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut head = Digest::ZERO;
    let mut good = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let seq = entries.len() as u64;
        let last = good + line.len() == bytes.len();
        let Some(text) = line.strip_suffix(b"\n") else {
            break; // torn: a whole line ends with its newline
        };
        match serde_json::from_slice::<Entry>(text) {
            Ok(entry) if entry.v == JOURNAL_VERSION && entry.seq == seq && entry.prev == head => {
                head = head.chain(text);
                good += line.len();
                entries.push(entry);
            }
            Ok(entry) if entry.v != JOURNAL_VERSION => return Err(JournalError::Version { seq, version: entry.v.into() }),
            Ok(_) => return Err(JournalError::Broken { seq }),
            Err(_) => {
                let version = serde_json::from_slice::<Value>(text).ok().and_then(|v| v.get("v").and_then(Value::as_u64));
                match version {
                    Some(version) if version != u64::from(JOURNAL_VERSION) => {
                        return Err(JournalError::Version { seq, version });
                    }
                    // A block of zeroes with a newline in it can only be a torn tail.
                    None if last => break,
                    _ => return Err(JournalError::Broken { seq }),
                }
            }
        }
    }
    Ok((entries, head, good))
}

/// For a message that has to name a code without a step.
impl JournalError {
    pub fn code(&self) -> Code {
        Code::HOST_JOURNAL
    }
}
