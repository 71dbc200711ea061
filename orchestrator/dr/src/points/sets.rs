//! Snapshots of one instance, put together into sets (`A§3.1`: one StartTime and no id), and each with its copies.

use super::{Common, Host, Maker, Part, PartCopy};
use crate::facts::{Consistency, KmsState, SetId, Snapshot, SnapshotState, tag};
use crate::records::{CopyIntent, SecretAt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{InstanceId, KmsKeyArn, SnapshotId, Timestamp, VolumeId};

/// The set that a snapshot of an instance belongs to: by its tag, else by its start.
pub fn set_id(tags: &BTreeMap<String, String>, instance: &InstanceId, started: Timestamp) -> SetId {
    match tags.get(tag::SET).filter(|set| !set.is_empty()) {
        Some(set) => SetId(set.clone()),
        None => SetId(format!("{instance}@{}", started.0)),
    }
}

/// What is known of a snapshot that was or should be copied, from the snapshot itself or, when it is gone, from our record.
#[derive(Debug, Clone)]
struct Source<'a> {
    id: &'a SnapshotId,
    volume: &'a VolumeId,
    size_gib: u32,
    started: Timestamp,
    started_ms: Option<u16>,
    set: SetId,
    snapshot: Option<&'a Snapshot>,
    intent: Option<&'a CopyIntent>,
}

pub(super) struct Set<'a> {
    pub id: SetId,
    pub parts: Vec<Part>,
    pub first: Timestamp,
    pub last: Timestamp,
    pub consistency: Word,
    pub held: bool,
    pub secrets: Vec<&'a SecretAt>,
}

/// What the tags of a set say of its consistency; StartTimes are looked at besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Nothing,
    CrashConsistent,
    BackupMode,
    None,
}

impl Word {
    /// With these starts.
    pub fn over(self, starts: &BTreeSet<Start>) -> Option<Consistency> {
        let seconds: BTreeSet<Timestamp> = starts.iter().map(|start| start.at).collect();
        match (self, seconds.len(), starts.len()) {
            (Word::None, ..) => Some(Consistency::None),
            (Word::BackupMode, ..) => Some(Consistency::BackupMode),
            // Several calls may fit into a second. Silence is one call only where the milliseconds are one as well.
            (Word::Nothing, 1, 1) if starts.iter().all(|start| start.ms.is_some()) => Some(Consistency::CrashConsistent),
            (Word::CrashConsistent, 1, _) => Some(Consistency::CrashConsistent),
            // "Crash-consistent" over several starts is a contradiction, and silence over several starts is nothing.
            (Word::Nothing | Word::CrashConsistent, ..) => None,
        }
    }
}

/// StartTime of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Start {
    pub at: Timestamp,
    pub ms: Option<u16>,
}

impl Start {
    pub fn of(part: &Part) -> Start {
        Start { at: part.started, ms: part.started_ms }
    }

    /// Not earlier, for sure.
    pub fn follows(self, other: Start) -> bool {
        match (self.ms, other.ms) {
            (Some(_), Some(_)) => self >= other,
            _ => self.at > other.at,
        }
    }
}

fn word(source: &Source<'_>) -> Word {
    let tagged = source.snapshot.and_then(|s| s.tags.get(tag::CONSISTENCY)).map(String::as_str);
    match (tagged, source.intent.and_then(|intent| intent.consistency)) {
        (Some("backup-mode"), _) | (None, Some(Consistency::BackupMode)) => Word::BackupMode,
        (Some("crash-consistent"), _) | (None, Some(Consistency::CrashConsistent)) => Word::CrashConsistent,
        (Some("none"), _) | (None, Some(Consistency::None)) => Word::None,
        _ => Word::Nothing,
    }
}

pub(super) fn sets<'a>(common: &Common, kms: &HashMap<&KmsKeyArn, KmsState>, host: &'a Host) -> Vec<Set<'a>> {
    let mut sources: BTreeMap<&SnapshotId, Source<'_>> = BTreeMap::new();
    let mut copies: HashMap<&str, Vec<&Snapshot>> = HashMap::new();
    for snapshot in &host.snapshots {
        if snapshot.region == common.dr_region {
            if let Some(source) = snapshot.tags.get(tag::SOURCE_SNAPSHOT) {
                copies.entry(source.as_str()).or_default().push(snapshot);
            }
        } else if let Some(volume) = snapshot.volume.as_ref().filter(|_| snapshot.region == common.source_region) {
            let set = set_id(&snapshot.tags, &host.instance, snapshot.started);
            let (size_gib, started, started_ms) = (snapshot.size_gib, snapshot.started, Some(snapshot.started_ms));
            sources.insert(
                &snapshot.id,
                Source { id: &snapshot.id, volume, size_gib, started, started_ms, set, snapshot: Some(snapshot), intent: None },
            );
        }
    }
    for intent in &host.copies {
        sources.entry(&intent.source).and_modify(|source| source.intent = Some(intent)).or_insert_with(|| Source {
            id: &intent.source,
            volume: &intent.volume,
            size_gib: intent.size_gib,
            started: intent.started,
            started_ms: intent.started_ms,
            set: intent.set.clone(),
            snapshot: None,
            intent: Some(intent),
        });
    }
    let mut named: BTreeMap<SetId, Vec<Source<'_>>> = BTreeMap::new();
    for source in sources.into_values() {
        named.entry(source.set.clone()).or_default().push(source);
    }
    // A tag that comes back every day names a schedule and no set: the StartTimes tell them apart then.
    let mut groups: BTreeMap<SetId, Vec<Source<'_>>> = BTreeMap::new();
    for (id, sources) in named {
        let volumes: BTreeSet<&VolumeId> = sources.iter().map(|source| source.volume).collect();
        if volumes.len() == sources.len() {
            groups.entry(id).or_default().extend(sources);
        } else {
            for source in sources {
                groups.entry(SetId(format!("{}@{}", id.0, source.started.0))).or_default().push(source);
            }
        }
    }
    let devices: HashMap<&VolumeId, &str> =
        host.now.iter().flat_map(|now| now.volumes.iter().map(|(device, volume)| (volume, device.as_str()))).collect();
    let root = host.now.as_ref().and_then(|now| now.root_device.as_deref());
    let mut sets: Vec<Set<'_>> = groups
        .into_iter()
        .filter_map(|(id, sources)| {
            let first = sources.iter().map(|source| source.started).min()?;
            let last = sources.iter().map(|source| source.started).max()?;
            let words: Vec<Word> = sources.iter().map(word).collect();
            let consistency = match words.as_slice() {
                words if words.contains(&Word::None) => Word::None,
                [head, rest @ ..] if rest.iter().all(|word| word == head) => *head,
                _ => Word::Nothing,
            };
            let mut held = false;
            let mut secrets: Vec<&SecretAt> = Vec::new();
            let mut parts = Vec::with_capacity(sources.len());
            for source in &sources {
                let mut made: Vec<(&Snapshot, PartCopy)> =
                    copies.get(source.id.as_str()).into_iter().flatten().map(|copy| (*copy, part_copy(copy, source))).collect();
                made.sort_by_key(|(snapshot, copy)| {
                    (std::cmp::Reverse(worth(snapshot, copy, kms)), copy.maker, copy.started, copy.id.clone())
                });
                held |= source.snapshot.is_some_and(|s| s.tags.contains_key(tag::HOLD));
                held |= made.iter().any(|(snapshot, _)| snapshot.tags.contains_key(tag::HOLD));
                secrets.extend(source.intent.iter().flat_map(|intent| &intent.secrets));
                let mut made: Vec<PartCopy> = made.into_iter().map(|(_, copy)| copy).collect();
                let counts = made.first().is_some_and(|copy| copy.maker != Maker::Refuted);
                let copy = counts.then(|| made.remove(0));
                let noted = source.intent.and_then(|intent| intent.device.as_deref());
                let device = noted.or_else(|| devices.get(source.volume).copied());
                parts.push(Part {
                    volume: source.volume.clone(),
                    device: device.map(str::to_owned),
                    root: source.intent.is_some_and(|intent| intent.root) || (device.is_some() && device == root),
                    source: source.id.clone(),
                    started: source.started,
                    started_ms: source.started_ms,
                    size_gib: source.size_gib,
                    source_state: source.snapshot.map(|s| s.state),
                    source_archived: source.snapshot.is_some_and(|s| s.archived),
                    copy,
                    others: made,
                });
            }
            parts.sort_by(|a, b| a.volume.cmp(&b.volume).then_with(|| a.source.cmp(&b.source)));
            Some(Set { id, parts, first, last, consistency, held, secrets })
        })
        .collect();
    sets.sort_by(|a, b| (a.first, &a.id).cmp(&(b.first, &b.id)));
    sets
}

fn part_copy(copy: &Snapshot, source: &Source<'_>) -> PartCopy {
    let token = copy.tags.get(tag::TOKEN);
    let ours = source.intent.is_some_and(|intent| intent.attempts.iter().any(|attempt| Some(&attempt.token) == token));
    let maker = match ours {
        true => Maker::Ours,
        // A copy has its source's size, and cannot have been begun before the source was.
        false if copy.size_gib == source.size_gib && copy.started >= source.started => Maker::Claimed,
        false => Maker::Refuted,
    };
    PartCopy {
        id: copy.id.clone(),
        state: copy.state,
        encrypted: copy.encrypted,
        kms_key: copy.kms_key.clone(),
        archived: copy.archived,
        started: copy.started,
        completed: copy.completed,
        maker,
    }
}

/// The more, the rather it counts.
fn worth(snapshot: &Snapshot, copy: &PartCopy, kms: &HashMap<&KmsKeyArn, KmsState>) -> u8 {
    if copy.maker == Maker::Refuted {
        return 0;
    }
    let key = !snapshot.encrypted
        || snapshot.kms_key.as_ref().and_then(|key| kms.get(key)).is_some_and(|state| *state == KmsState::Enabled);
    match (snapshot.state, snapshot.archived) {
        (SnapshotState::Completed, false) if key => 6,
        (SnapshotState::Completed, false) => 5,
        (SnapshotState::Completed, true) => 4,
        (SnapshotState::Unknown, _) => 3,
        (SnapshotState::Pending, _) => 2,
        (SnapshotState::Error | SnapshotState::Recoverable | SnapshotState::Recovering, _) => 1,
    }
}
