//! What became of each copy that was begun.
//!
//! A copy counts when it is completed (READY) and like its source, not when its call was answered (`A§3.2`, `A§4.4`). What
//! failed or vanished is written into its record, which is what the planner retries by, and told once: the record says that
//! it was told, and it says so only after it was.

use crate::store::{Came, CopyRecord, HsmCopyRecord, Intent, Read, Record};
use crate::world::{Asker, Records, believed};
use crate::{Hint, Put, Unit, Wrote, outcome};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::{BackupState, HsmBackup, Snapshot, SnapshotState, tag};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{BackupId, Code, Severity, SnapshotId, Timestamp};

/// A copy that is in no list this long after it was answered, or first missed, is gone, not late (eventual consistency), in seconds.
const APPEARS: i64 = 600;

/// One thing that ended otherwise than it should.
struct Trouble {
    code: Code,
    text: String,
}

pub async fn run(asker: &mut Asker<'_>, hint: &Hint) {
    if let Hint::Snapshots(ids) = hint
        && !any_of_ours(asker, ids).await
    {
        asker.outcome.add("hints-foreign", 1);
        return;
    }
    let Some(mut records) = asker.copy_records(None).await else { return };
    if asker.hsm_copy_records(&mut records).await.is_none() {
        return;
    }
    let mut changes = Vec::new();
    if let Some(snapshots) = asker.dr_snapshots().await {
        changes.extend(settle_snapshots(asker, &records, snapshots));
    }
    let sources = records.hsm_copies.keys().cloned().collect();
    if let Some(backups) = asker.dr_backups(&sources).await {
        changes.extend(settle_backups(asker, &records, backups));
    }
    keep(asker, changes).await;
    let failed = asker.outcome.count("copies-failed") as f64;
    asker.outcome.metric("CopiesFailed", Unit::Count, failed, &[]);
}

/// H37: the event's ids are described again; only a snapshot that is the account's own and carries the fleet's tag counts. What
/// could not be asked is looked into.
async fn any_of_ours(asker: &mut Asker<'_>, ids: &BTreeSet<SnapshotId>) -> bool {
    let region = asker.config.dr_region.clone();
    for id in ids {
        let answer = asker.cloud.snapshot(&region, id).await;
        match asker.note(&region, answer) {
            Some(Some(found)) if found.tags.get(tag::FLEET) == Some(&asker.config.fleet) => return true,
            Some(_) => {}
            None => return true,
        }
    }
    // A failed copy may be gone by the time of its event (`A§3.2`); the schedule's run sees that.
    false
}

/// Every token that was ever written down.
fn tokens<'a, I: Intent + 'a>(records: impl Iterator<Item = &'a Read<Record<I, I::Copy>>>) -> BTreeSet<&'a str> {
    records.flat_map(|read| read.value.intent.attempts()).map(|attempt| attempt.token.as_str()).collect()
}

/// What is new, attempt by attempt. A copy is known by its id once it was heard or found, until then by its token. `became`
/// says what is to be written down of an attempt, where that is something new.
fn changes<'a, I: Intent + 'a, C>(
    now: Timestamp,
    records: impl Iterator<Item = &'a Read<Record<I, I::Copy>>>,
    by_id: &BTreeMap<&I::Copy, &C>,
    by_token: &BTreeMap<&str, &C>,
    became: Became<I, C>,
) -> Vec<Change> {
    let of = |read: &Read<Record<I, I::Copy>>| {
        let mut record = read.value.clone();
        let mut troubles = Vec::new();
        for attempt in record.intent.attempts() {
            let came = record.results.get(&attempt.token);
            let seen = match came {
                Some(came) => by_id.get(came.copy()),
                None => by_token.get(attempt.token.as_str()),
            };
            if let Some(next) = became(now, &record, came, seen.copied(), &mut troubles) {
                record.results.insert(attempt.token.clone(), next);
            }
        }
        Change::of(read, &record, troubles)
    };
    records.filter_map(of).collect()
}

type Became<I, C> = fn(
    Timestamp,
    &Record<I, <I as Intent>::Copy>,
    Option<&Came<<I as Intent>::Copy>>,
    Option<&C>,
    &mut Vec<Trouble>,
) -> Option<Came<<I as Intent>::Copy>>;

fn settle_snapshots(asker: &mut Asker<'_>, records: &Records, snapshots: Vec<Snapshot>) -> Vec<Change> {
    let snapshots = believed(snapshots, records, &mut asker.outcome);
    let by_id: BTreeMap<&SnapshotId, &Snapshot> = snapshots.iter().map(|copy| (&copy.id, copy)).collect();
    let mut by_token: BTreeMap<&str, &Snapshot> = BTreeMap::new();
    let known = tokens(records.copies.values());
    let pending = snapshots.iter().filter(|copy| copy.state == SnapshotState::Pending).count();
    for copy in &snapshots {
        match copy.tags.get(tag::TOKEN) {
            Some(token) if known.contains(token.as_str()) => drop(by_token.insert(token, copy)),
            // Where some records could not be read, theirs may be among them.
            _ if !records.unreadable.is_empty() => {}
            _ => {
                let text = format!("`{}` carries the fleet's tag, and no record knows its token", copy.id);
                asker.outcome.say(Severity::Warning, Code::COPY_CLAIMED, text);
                asker.outcome.add("copies-claimed", 1);
            }
        }
    }
    asker.outcome.metric("CopiesInFlight", Unit::Count, pending as f64, &[]);
    changes(asker.now, records.copies.values(), &by_id, &by_token, snapshot_came)
}

fn snapshot_came(
    now: Timestamp,
    record: &CopyRecord,
    came: Option<&Came<SnapshotId>>,
    seen: Option<&Snapshot>,
    troubles: &mut Vec<Trouble>,
) -> Option<Came<SnapshotId>> {
    let source = &record.intent.source;
    match (came, seen) {
        (Some(Came::Failed { .. } | Came::Expired { .. }), _) => None,
        // Not in the list, and known by its answer or found before.
        (Some(Came::Settled { copy, .. }), None) => Some(Came::Missed { copy: copy.clone(), at: now }),
        (Some(Came::Made { copy, at } | Came::Missed { copy, at }), None) => gone(now, source, copy, *at, troubles),
        (Some(Came::Gone { .. }) | None, None) => None,
        (_, Some(copy)) => match copy.state {
            SnapshotState::Completed => {
                if matches!(came, Some(Came::Settled { .. })) {
                    return None;
                }
                if let Some(why) = unfit(record, copy) {
                    let text = format!("`{}`, the copy of `{source}`, {why}", copy.id);
                    troubles.push(Trouble { code: Code::COPY_UNFIT, text });
                    return Some(Came::Failed { copy: copy.id.clone(), why, at: now });
                }
                Some(Came::Settled { copy: copy.id.clone(), at: now })
            }
            SnapshotState::Error | SnapshotState::Recoverable | SnapshotState::Recovering => {
                let why = printable(copy.state_message.as_deref().unwrap_or("no reason is given"), 300);
                let text = format!("`{}`, the copy of `{source}` on {}: {why}", copy.id, record.intent.instance);
                troubles.push(Trouble { code: Code::COPY_BROKE, text });
                Some(Came::Failed { copy: copy.id.clone(), why, at: now })
            }
            // Found by its token after an answer that was lost, or not seen for a while.
            SnapshotState::Pending | SnapshotState::Unknown if !matches!(came, Some(Came::Made { .. })) => {
                Some(Came::Made { copy: copy.id.clone(), at: now })
            }
            SnapshotState::Pending | SnapshotState::Unknown => None,
        },
    }
}

/// A list may lack what is there: only what is still missing a while after it was first missed, or heard of, is gone.
fn gone<Id: Clone + std::fmt::Display>(
    now: Timestamp,
    source: &impl std::fmt::Display,
    copy: &Id,
    since: Timestamp,
    troubles: &mut Vec<Trouble>,
) -> Option<Came<Id>> {
    (now.since(since) >= APPEARS).then(|| vanished(now, source, copy, troubles))
}

fn vanished<Id: Clone + std::fmt::Display>(
    now: Timestamp,
    source: &impl std::fmt::Display,
    copy: &Id,
    troubles: &mut Vec<Trouble>,
) -> Came<Id> {
    let text = format!("`{copy}`, the copy of `{source}`, is no longer there");
    troubles.push(Trouble { code: Code::COPY_VANISHED, text });
    Came::Gone { copy: copy.clone(), at: now }
}

/// H37: size, encryption and start must fit what was asked for.
fn unfit(record: &CopyRecord, copy: &Snapshot) -> Option<String> {
    let intent = &record.intent;
    if copy.size_gib != intent.size_gib {
        return Some(format!("has {} GiB and not {}", copy.size_gib, intent.size_gib));
    }
    if !copy.encrypted {
        return Some("is not encrypted".to_owned());
    }
    if copy.started < intent.started {
        return Some("was begun before its source was".to_owned());
    }
    None
}

fn settle_backups(asker: &mut Asker<'_>, records: &Records, backups: Vec<HsmBackup>) -> Vec<Change> {
    let known = tokens(records.hsm_copies.values());
    let mut by_token: BTreeMap<&str, &HsmBackup> = BTreeMap::new();
    let by_id: BTreeMap<&BackupId, &HsmBackup> = backups.iter().map(|copy| (&copy.id, copy)).collect();
    for copy in &backups {
        let Some(token) = copy.tags.get(tag::TOKEN) else { continue };
        if known.contains(token.as_str()) {
            by_token.insert(token, copy);
        } else if records.unreadable.is_empty() {
            let text = format!("`{}` carries a token that no record knows", copy.id);
            asker.outcome.say(Severity::Warning, Code::COPY_CLAIMED, text);
            asker.outcome.add("copies-claimed", 1);
        }
    }
    changes(asker.now, records.hsm_copies.values(), &by_id, &by_token, backup_came)
}

fn backup_came(
    now: Timestamp,
    record: &HsmCopyRecord,
    came: Option<&Came<BackupId>>,
    seen: Option<&HsmBackup>,
    troubles: &mut Vec<Trouble>,
) -> Option<Came<BackupId>> {
    let source = &record.intent.source;
    let ended = |state: BackupState| matches!(state, BackupState::Deleted | BackupState::PendingDeletion);
    match (came, seen) {
        (Some(Came::Failed { .. } | Came::Expired { .. }), _) => None,
        (Some(Came::Gone { .. }) | None, None) => None,
        // AWS keeps a deleted backup for a week, and it can be restored for so long: then it settles again.
        (Some(Came::Gone { .. }), Some(seen)) if ended(seen.state) => None,
        (Some(Came::Settled { copy, .. } | Came::Missed { copy, .. }), Some(seen)) if ended(seen.state) => {
            Some(vanished(now, source, copy, troubles))
        }
        (Some(Came::Settled { copy, .. }), None) => Some(Came::Missed { copy: copy.clone(), at: now }),
        (Some(Came::Made { copy, at } | Came::Missed { copy, at }), None) => gone(now, source, copy, *at, troubles),
        (came, Some(copy)) => match copy.state {
            BackupState::Ready if matches!(came, Some(Came::Settled { .. })) => None,
            // The copy has its source's time, or it is no copy of that source.
            BackupState::Ready if copy.created.is_some_and(|created| created != record.intent.created) => {
                let why = "was made at another time than its source".to_owned();
                troubles.push(Trouble { code: Code::COPY_UNFIT, text: format!("`{}`, the copy of `{source}`, {why}", copy.id) });
                Some(Came::Failed { copy: copy.id.clone(), why, at: now })
            }
            BackupState::Ready => Some(Came::Settled { copy: copy.id.clone(), at: now }),
            BackupState::Deleted | BackupState::PendingDeletion => {
                let why = "it ended as DELETED".to_owned();
                troubles.push(Trouble { code: Code::COPY_BROKE, text: format!("`{}`, the copy of `{source}`: {why}", copy.id) });
                Some(Came::Failed { copy: copy.id.clone(), why, at: now })
            }
            BackupState::CreateInProgress | BackupState::Unknown if came.is_none() => {
                Some(Came::Made { copy: copy.id.clone(), at: now })
            }
            BackupState::CreateInProgress | BackupState::Unknown => None,
        },
    }
}

/// A record that is to be written over.
struct Change {
    key: String,
    body: Vec<u8>,
    etag: String,
    settled: u64,
    troubles: Vec<Trouble>,
}

impl Change {
    /// `None`: nothing new.
    fn of<I: Intent>(read: &Read<Record<I, I::Copy>>, record: &Record<I, I::Copy>, troubles: Vec<Trouble>) -> Option<Change> {
        if *record == read.value {
            return None;
        }
        let settled = |record: &Record<I, I::Copy>| {
            record.results.values().filter(|came| matches!(came, Came::Settled { .. })).count() as u64
        };
        let more = settled(record).saturating_sub(settled(&read.value));
        let body = serde_json::to_vec(record).ok()?;
        Some(Change { key: record.intent.key(), body, etag: read.etag.clone(), settled: more, troubles })
    }
}

/// Tells all of a run's troubles with one message, then writes down that they were told: told twice in the worst case, never
/// not at all.
async fn keep(asker: &mut Asker<'_>, changes: Vec<Change>) {
    let troubles: Vec<&Trouble> = changes.iter().flat_map(|change| &change.troubles).collect();
    for trouble in &troubles {
        asker.outcome.add("copies-failed", 1);
        asker.outcome.say(Severity::Error, trouble.code, trouble.text.clone());
    }
    let mut told = true;
    if !troubles.is_empty() {
        let lines = troubles.iter().map(|trouble| format!("{}: {}", trouble.code, trouble.text));
        let subject = format!("tde2hsm {}: {} copies failed", asker.config.fleet, troubles.len());
        if let Err(error) = asker.cloud.publish(&subject, &outcome::message(lines)).await {
            asker.outcome.failed += 1;
            asker.outcome.say(Severity::Error, Code::ALARM_UNSENT, error.to_string());
            told = false;
        }
    }
    for change in changes.iter().filter(|change| told || change.troubles.is_empty()) {
        let wrote = asker.cloud.put(&change.key, &change.body, &Put::Over(change.etag.clone())).await;
        match asker.note_records(wrote) {
            Some(Wrote::Yes(_)) => asker.outcome.add("copies-settled", change.settled),
            Some(Wrote::Lost) => asker.outcome.add("raced", 1),
            None => {}
        }
    }
}
