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
    CampaignId, Code, Digest, Direction, Generation, KnownLogin, LoginResult, OperationId, OrderToken, Outcome, SecretRef, Sid,
    Step, Timestamp, Work,
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
    /// How a try of a secret version ended (H10).
    LoginEnded {
        secret: SecretRef,
        result: LoginResult,
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
    entries: Entries,
}

impl Journal {
    /// Opens the journal in `dir`, verifies it and cuts off a torn tail.
    pub fn open(dir: &Path) -> Result<Journal, JournalError> {
        let path = dir.join("journal.jsonl");
        let fail = |what| {
            let path = path.clone();
            move |source| JournalError::Io { path, what, source }
        };
        crate::files::make_dir(dir, 0o700).map_err(|error| fail("created")(std::io::Error::other(error)))?;
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
        let (entries, good) = verify(&bytes)?;
        if good < bytes.len() {
            file.set_len(good as u64).map_err(fail("mended"))?;
            file.seek(SeekFrom::End(0)).map_err(fail("mended"))?;
            file.sync_all().map_err(fail("mended"))?;
        }
        if bytes.is_empty() {
            // The name itself has to survive a crash.
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail("created"))?;
        }
        Ok(Journal { path, file, entries })
    }

    /// Reads it without mending: for whoever does not hold the lock, while its holder may be writing. A last line that
    /// is not whole is not there yet.
    pub fn read(dir: &Path) -> Result<Entries, JournalError> {
        let path = dir.join("journal.jsonl");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(verify(&bytes)?.0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(verify(&[])?.0),
            Err(source) => Err(JournalError::Io { path, what: "read", source }),
        }
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
            seq: self.entries.list.len() as u64,
            at,
            campaign: campaign.clone(),
            operation: operation.cloned(),
            prev: self.entries.head,
            event,
        };
        let mut line = serde_json::to_vec(&entry).expect("entries serialise: string keys, no foreign Serialize");
        let head = self.entries.head.chain(&line);
        line.push(b'\n');
        let io = |source| JournalError::Io { path: self.path.clone(), what: "written", source };
        let length = self.file.metadata().map_err(io)?.len();
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Half a line in the middle would look like tampering: take it back while it is the last.
            let _ = self.file.set_len(length);
            return Err(io(source));
        }
        self.entries.head = head;
        self.entries.list.push(entry);
        Ok(self.entries.list.last().expect("pushed above"))
    }

    pub fn entries(&self) -> &[Entry] {
        self.entries.all()
    }
}

/// What can be asked of a journal, whether it is open for writing or was only read.
#[derive(Debug)]
pub struct Entries {
    list: Vec<Entry>,
    head: Digest,
}

impl Entries {
    pub fn all(&self) -> &[Entry] {
        &self.list
    }

    /// Digest over the whole journal (H38).
    pub fn head(&self) -> Digest {
        self.head
    }

    pub fn of_campaign<'a>(&'a self, campaign: &'a CampaignId) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.all().iter().filter(move |entry| entry.campaign == *campaign)
    }
    pub fn of_operation<'a>(&'a self, operation: &'a OperationId) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.all().iter().filter(move |entry| entry.operation.as_ref() == Some(operation))
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
        let at = self.all().iter().rposition(|e| {
            e.campaign == *campaign
                && matches!(&e.event, Event::Intent { step: s, direction: d, subject: j, action: a, .. }
                    if *s == step && *d == direction && j == subject && a == action)
        })?;
        let seen = self.all()[at..].iter().filter(|e| e.campaign == *campaign).find_map(|e| match &e.event {
            Event::Observed { step: s, direction: d, subject: j, action: a, data }
                if *s == step && *d == direction && j == subject && a == action =>
            {
                Some(data)
            }
            _ => None,
        });
        Some((&self.all()[at], seen))
    }

    /// How a step ended last in this campaign.
    pub fn last_end(&self, campaign: &CampaignId, step: Step, direction: Direction) -> Option<&StepEnded> {
        self.all().iter().rev().filter(|entry| entry.campaign == *campaign).find_map(|entry| match &entry.event {
            Event::StepEnded { step: s, direction: d, end } if *s == step && *d == direction => Some(end),
            _ => None,
        })
    }

    /// The campaign has brought the host's keys over and not back since: what `prove` may be asked to prove.
    pub fn is_cut_over(&self, campaign: &CampaignId) -> bool {
        let last = self.of_campaign(campaign).rev().find_map(|entry| match &entry.event {
            Event::StepEnded { step: Step::Migrate, direction, end } => Some((*direction, end)),
            _ => None,
        });
        matches!(last, Some((Direction::Do, end)) if !matches!(end, StepEnded::Failed { .. }))
    }

    /// This campaign has announced an effect in `cutover` or later: the host may differ from what the plan saw (H23).
    pub fn has_moved(&self, campaign: &CampaignId) -> bool {
        self.of_campaign(campaign).any(|entry| match &entry.event {
            Event::Intent { step, .. } => step.info().segment.is_some_and(|segment| segment != tde2hsm_protocol::Segment::Stage),
            _ => false,
        })
    }

    /// The newest generation that any order of the campaign had which moved something.
    pub fn generation(&self, campaign: &CampaignId) -> Option<Generation> {
        let accepted = self.all().iter().filter(|entry| entry.campaign == *campaign);
        accepted
            .filter_map(|entry| match &entry.event {
                Event::Accepted { generation, .. } => Some(*generation),
                _ => None,
            })
            .max()
    }

    /// The campaign that holds the host: the last one whose order was accepted, unless it was released since (H32).
    pub fn held_by(&self) -> Option<CampaignId> {
        self.all().iter().rev().find_map(|entry| match &entry.event {
            Event::Accepted { work: Work::Run { .. }, .. } => Some(Some(entry.campaign.clone())),
            Event::Released => Some(None),
            _ => None,
        })?
    }

    /// Every secret version that this host tried in a campaign, each with its newest end.
    pub fn logins(&self, campaign: &CampaignId) -> Vec<KnownLogin> {
        let mut known: Vec<KnownLogin> = Vec::new();
        for entry in self.all().iter().filter(|entry| entry.campaign == *campaign) {
            if let Event::LoginEnded { secret, result } = &entry.event {
                known.retain(|login| login.secret != *secret);
                known.push(KnownLogin { secret: secret.clone(), result: *result });
            }
        }
        known
    }

    /// How often a worker took an operation up.
    pub fn workers(&self, operation: &OperationId) -> usize {
        let mine = self.all().iter().filter(|entry| entry.operation.as_ref() == Some(operation));
        mine.filter(|entry| matches!(entry.event, Event::Worker { .. })).count()
    }

    /// How many of them ended without a report: one that waits reports, and looks again when it is asked.
    pub fn deaths(&self, operation: &OperationId) -> usize {
        let mut deaths = 0;
        let mut at_work = false;
        for entry in self.all().iter().filter(|entry| entry.operation.as_ref() == Some(operation)) {
            match entry.event {
                Event::Worker { .. } => {
                    deaths += usize::from(at_work);
                    at_work = true;
                }
                Event::Reported { .. } => at_work = false,
                _ => {}
            }
        }
        deaths + usize::from(at_work)
    }

    /// The step an operation is in, or was last in.
    pub fn step_of(&self, operation: &OperationId) -> Option<Step> {
        let mine = self.all().iter().rev().filter(|entry| entry.operation.as_ref() == Some(operation));
        mine.into_iter().find_map(|entry| match &entry.event {
            Event::StepBegun { step, .. } => Some(*step),
            _ => None,
        })
    }
}

impl std::ops::Deref for Journal {
    type Target = Entries;
    fn deref(&self) -> &Entries {
        &self.entries
    }
}

/// The entries of a journal's bytes, its head, and how many bytes of it hold.
fn verify(bytes: &[u8]) -> Result<(Entries, usize), JournalError> {
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
    Ok((Entries { list: entries, head }, good))
}

/// For a message that has to name a code without a step.
impl JournalError {
    pub fn code(&self) -> Code {
        Code::HOST_JOURNAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn campaign() -> CampaignId {
        CampaignId::new("c-1").unwrap()
    }
    fn fact(n: u64) -> Event {
        Event::Fact { subject: Subject::Host, name: "n".into(), value: json!({"z": n, "a": [1.5, "\u{e4}"]}) }
    }
    fn write(dir: &Path, entries: u64) -> Vec<u8> {
        let mut journal = Journal::open(dir).unwrap();
        for n in 0..entries {
            journal.append(Timestamp(7), &campaign(), None, fact(n)).unwrap();
        }
        std::fs::read(dir.join("journal.jsonl")).unwrap()
    }

    #[test]
    fn a_journal_is_read_back_with_the_same_head() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.fact(&campaign(), &Subject::Host, "n").unwrap()["z"], 2);
        assert_eq!(Journal::read(dir.path()).unwrap().head(), journal.head());
        assert_ne!(journal.head(), Digest::ZERO);
    }

    /// A crash at every byte of the last write: what was whole is kept, and writing goes on.
    #[test]
    fn a_torn_tail_is_cut_off_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(dir.path(), 3);
        let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        let mut points = 0;
        for end in last..whole.len() {
            std::fs::write(dir.path().join("journal.jsonl"), &whole[..end]).unwrap();
            // A reader does not mend: the writer may be in the middle of this very line.
            assert_eq!(Journal::read(dir.path()).unwrap().all().len(), 2);
            assert_eq!(std::fs::read(dir.path().join("journal.jsonl")).unwrap().len(), end);
            let mut journal = Journal::open(dir.path()).unwrap();
            assert_eq!(journal.entries().len(), 2);
            journal.append(Timestamp(8), &campaign(), None, fact(9)).unwrap();
            assert_eq!(Journal::open(dir.path()).unwrap().entries().len(), 3);
            points += 1;
        }
        println!("{points} crash points");
        let mut zeroes = whole.clone();
        zeroes.extend([0; 100]);
        std::fs::write(dir.path().join("journal.jsonl"), zeroes).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().entries().len(), 3);
    }

    #[test]
    fn h38_a_changed_entry_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(dir.path(), 3);
        let path = dir.path().join("journal.jsonl");
        let changed = String::from_utf8(whole.clone()).unwrap().replacen("\"z\":1", "\"z\":4", 1);
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Broken { seq: 2 })));
        let mut lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        lines.remove(1);
        std::fs::write(&path, lines.concat()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Broken { seq: 1 })));
        std::fs::write(&path, String::from_utf8(whole).unwrap().replace("\"v\":1", "\"v\":2")).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Version { version: 2, .. })));
    }

    #[test]
    fn h32_the_last_accepted_order_holds_the_host_until_its_release() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.held_by(), None);
        let work = Work::Run { segment: tde2hsm_protocol::Segment::Stage, direction: Direction::Do };
        let accepted = |generation| Event::Accepted {
            plan: Digest::ZERO,
            generation: Generation(generation),
            token: OrderToken::new("t-1").unwrap(),
            work,
            controller_head: Digest::ZERO,
        };
        for generation in [3, 2] {
            journal.append(Timestamp(1), &campaign(), None, accepted(generation)).unwrap();
        }
        assert_eq!((journal.held_by(), journal.generation(&campaign())), (Some(campaign()), Some(Generation(3))));
        journal.append(Timestamp(1), &campaign(), None, Event::Released).unwrap();
        assert_eq!(journal.held_by(), None);
        assert!(!journal.has_moved(&campaign()));
    }

    #[test]
    fn an_intent_without_its_observation_is_told_from_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let subject = Subject::Database(Sid::new("FIN").unwrap());
        let (step, direction) = (Step::Migrate, Direction::Do);
        let intent =
            Event::Intent { step, direction, subject: subject.clone(), action: "migrate".into(), data: json!({"id": 1}) };
        let seen = Event::Observed { step, direction, subject: subject.clone(), action: "migrate".into(), data: json!("06") };
        journal.append(Timestamp(1), &campaign(), None, intent).unwrap();
        assert!(journal.last_intent(&campaign(), step, direction, &subject, "migrate").unwrap().1.is_none());
        assert!(journal.has_moved(&campaign()));
        journal.append(Timestamp(2), &campaign(), None, seen).unwrap();
        assert_eq!(journal.last_intent(&campaign(), step, direction, &subject, "migrate").unwrap().1, Some(&json!("06")));
        assert!(journal.last_intent(&campaign(), step, Direction::Undo, &subject, "migrate").is_none());
    }
}
