//! Deletes what retention lets go, and sees to it that what must stay does.
//!
//! What may go is decided in `dr`. Here it is only asked whether it is ours: by its tag *and* by our record of its token, and
//! that the record knows no other copy for that token (H37). Anything else is left alone and said. What a person is shown before
//! is the same value that a run works off, so nothing goes that was not in it.

use crate::config::Approved;
use crate::store::{self, Came, Intent, Read, Record};
use crate::world::{Asker, World};
use crate::{CallError, DrConfig, Effect, Expiry};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::tag;
use tde2hsm_dr::points::{Judge, Point};
use tde2hsm_dr::records::{CopyIntent, HsmCopyIntent};
use tde2hsm_dr::retention::{self, Because, Deletion, Item, Kept};
use tde2hsm_dr::secrets;
use tde2hsm_protocol::{BackupId, Code, InstanceId, SecretArn, SecretVersion, Severity, Sid, SnapshotId};

/// What is due now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    pub delete: Vec<Deletion>,
    pub keep: Vec<Kept>,
    /// Backups of the source region that go back to their cluster's purge.
    pub let_go: BTreeSet<BackupId>,
    /// Secret versions that nothing needs any more: they lose our stage, and AWS may remove them then (H42).
    pub unstage: BTreeSet<(SecretArn, SecretVersion)>,
    /// Secret versions that something needs and that have no stage of ours yet.
    pub stage: BTreeSet<(SecretArn, SecretVersion)>,
    /// Why so much stays, where a database has no point that opens.
    pub waits: Option<String>,
}

impl Due {
    pub fn of(world: &World, points: &[Point], config: &DrConfig) -> Due {
        let days = config.hsm_backup_retention_days;
        let expiry = retention::expire(&world.common, &world.hosts, points, &config.retention, days);
        let held = |id: &BackupId| world.records.hsm_copies.get(id).is_some_and(|read| read.value.intent.held);
        let mut due = Due {
            waits: waits(&expiry.nothing_opens),
            delete: expiry.delete,
            keep: expiry.keep,
            // Only what our record says we held off.
            let_go: expiry.may_expire.into_iter().filter(held).collect(),
            ..Due::default()
        };
        for secret in &world.secrets {
            for fact in &secret.versions {
                let has = fact.stages.contains(&secrets::stage_of(&fact.version));
                let needed = secrets::is_young(fact)
                    || expiry.staged.contains(&(secrets::without_region(&secret.arn), fact.version.clone()));
                let into = match (has, needed) {
                    (false, true) => &mut due.stage,
                    // Only where all of what may need it was looked at.
                    (true, false) if world.common.unasked.is_empty() => &mut due.unstage,
                    _ => continue,
                };
                into.insert((secret.arn.clone(), fact.version.clone()));
            }
        }
        due
    }

    /// Nothing of it takes anything away.
    pub fn is_nothing(&self) -> bool {
        self.delete.is_empty() && self.let_go.is_empty() && self.unstage.is_empty()
    }

    /// Leave to carry out all of it, and nothing else.
    pub fn approve(&self) -> Approved {
        Approved {
            deletions: self.delete.iter().map(|deletion| (deletion.item.clone(), deletion.because)).collect(),
            let_go: self.let_go.clone(),
            unstaged: self.unstage.clone(),
        }
    }

    /// Takes out what is not in the list; how many that are.
    fn keep_to(&mut self, approved: &Approved) -> usize {
        let before = self.size();
        self.delete.retain(|deletion| approved.deletions.contains(&(deletion.item.clone(), deletion.because)));
        self.let_go.retain(|id| approved.let_go.contains(id));
        self.unstage.retain(|version| approved.unstaged.contains(version));
        before - self.size()
    }

    fn size(&self) -> usize {
        self.delete.len() + self.let_go.len() + self.unstage.len()
    }
}

fn waits(nothing_opens: &BTreeSet<(InstanceId, Option<Sid>)>) -> Option<String> {
    let name = |(instance, sid): &(InstanceId, Option<Sid>)| match sid {
        Some(sid) => format!("{instance}/{sid}"),
        None => instance.to_string(),
    };
    let names: Vec<String> = nothing_opens.iter().map(name).collect();
    let text = "no HSM backup goes, and none of their points that may open yet: none opens of";
    (!names.is_empty()).then(|| format!("{text} {}; retire what is no more", names.join(", ")))
}

pub async fn run(asker: &mut Asker<'_>) {
    let Some(mut world) = asker.world().await else { return };
    let judge = Judge::new(&world.common);
    let points: Vec<Point> = world.hosts.iter().flat_map(|host| judge.host(host)).collect();
    let mut due = Due::of(&world, &points, asker.config);
    // What must stay is seen to before anything goes.
    for (secret, version) in &due.stage {
        stage(asker, secret, version, Stage::On).await;
    }
    asker.outcome.add("kept", due.keep.len() as u64);
    if let Some(text) = &due.waits {
        asker.outcome.say(Severity::Note, Code::DELETE_REFUSED, text.clone());
    }
    match asker.config.expiry.clone() {
        Expiry::DryRun => return would(asker, &due),
        Expiry::Delete => {}
        Expiry::Approved(approved) => {
            let waits = due.keep_to(&approved);
            if waits > 0 {
                asker.outcome.add("newly-due", waits as u64);
                let text = format!("{waits} more became due since the list was approved; they wait for the next time");
                asker.outcome.say(Severity::Note, Code::DELETE_REFUSED, text);
            }
        }
    }
    for deletion in &due.delete {
        delete(asker, &mut world, deletion).await;
    }
    for id in &due.let_go {
        let_go(asker, &mut world, id).await;
    }
    for (secret, version) in &due.unstage {
        stage(asker, secret, version, Stage::Off).await;
    }
}

fn would(asker: &mut Asker<'_>, due: &Due) {
    let deletions = due.delete.iter().map(|deletion| format!("delete {}: {}", name(&deletion.item), deletion.why));
    let let_go = due.let_go.iter().map(|id| format!("give `{id}` back to its cluster's purge"));
    let unstage = due.unstage.iter().map(|(secret, version)| format!("take our stage from version `{version}` of `{secret}`"));
    for text in deletions.chain(let_go).chain(unstage) {
        asker.outcome.say(Severity::Note, Code::DELETE_REFUSED, format!("would {text}"));
    }
    asker.outcome.add("would-delete", due.delete.len() as u64);
    asker.outcome.add("would-let-go", (due.let_go.len() + due.unstage.len()) as u64);
}

fn name(item: &Item) -> String {
    match item {
        Item::Snapshot { id, set, .. } => format!("`{id}` of the set `{}`", set.0),
        Item::Backup { id, region } => format!("`{id}` in {region}"),
        Item::Inventory { instance, taken_at } => format!("the inventory of {instance} of {}", taken_at.0),
        Item::CopyRecord { source } => format!("the record of `{source}`"),
        Item::HsmCopyRecord { source } => format!("the record of `{source}`"),
    }
}

/// Gives a backup back to its cluster's purge. Only one that our record says we held off; the record says so until it is done.
async fn let_go(asker: &mut Asker<'_>, world: &mut World, id: &BackupId) {
    let Some(read) = world.records.hsm_copies.get(id).filter(|read| read.value.intent.held).cloned() else { return };
    let region = asker.config.source_region.clone();
    let answer = asker.cloud.keep_hsm_backup(&region, id, false).await;
    if asker.note(&region, answer).is_none() {
        return;
    }
    asker.outcome.add("backups-let-go", 1);
    let mut record = read.value;
    record.intent.held = false;
    if let Some(etag) = asker.write(&store::hsm_copy_key(id), &record, Some(&read.etag)).await {
        world.records.hsm_copies.insert(id.clone(), Read { value: record, etag });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    On,
    Off,
}

/// Puts our stage on a version, or takes it away (H42).
async fn stage(asker: &mut Asker<'_>, secret: &SecretArn, version: &SecretVersion, to: Stage) {
    let region = asker.config.source_region.clone();
    let (from, onto) = match to {
        Stage::On => (None, Some(version)),
        Stage::Off => (Some(version), None),
    };
    match asker.cloud.stage_secret(&region, secret, &secrets::stage_of(version), from, onto).await {
        Ok(()) => asker.outcome.add(if to == Stage::On { "versions-kept" } else { "versions-let-go" }, 1),
        Err(error) => {
            let text = format!("`{secret}` version `{version}`: {error}");
            asker.outcome.failed += 1;
            asker.outcome.say(Severity::Error, Code::SECRET_UNKEPT, text);
        }
    }
}

async fn delete(asker: &mut Asker<'_>, world: &mut World, deletion: &Deletion) {
    let done = match &deletion.item {
        Item::Snapshot { id, .. } => delete_snapshot(asker, world, id, deletion.because).await,
        Item::Backup { id, region } if *region == asker.config.dr_region => delete_backup(asker, world, id).await,
        Item::Backup { id, region } => refuse(asker, format!("`{id}` lies in {region}, where the product deletes nothing")),
        Item::Inventory { instance, taken_at } => remove(asker, &store::inventory_key(instance, *taken_at)).await,
        Item::CopyRecord { source } => remove(asker, &store::copy_key(source)).await,
        Item::HsmCopyRecord { source } => remove(asker, &store::hsm_copy_key(source)).await,
    };
    if done {
        asker.outcome.add("deleted", 1);
        asker.outcome.say(Severity::Note, Code::DELETE_REFUSED, format!("deleted {}: {}", name(&deletion.item), deletion.why));
    }
}

fn refuse(asker: &mut Asker<'_>, text: String) -> bool {
    asker.outcome.add("deletions-refused", 1);
    asker.outcome.say(Severity::Error, Code::DELETE_REFUSED, text);
    false
}

async fn remove(asker: &mut Asker<'_>, key: &str) -> bool {
    let gone = asker.cloud.delete(key).await;
    asker.note_records(gone).is_some()
}

/// The token by which a copy is ours: it carries the fleet's tag and the token of an attempt that the record of its own source
/// knows, and no other copy stands there for it.
fn ours<I: Intent>(
    fleet: &str,
    tags: &BTreeMap<String, String>,
    id: &I::Copy,
    record: &Record<I, I::Copy>,
) -> Result<String, String> {
    if tags.get(tag::FLEET).map(String::as_str) != Some(fleet) {
        return Err("it does not carry the fleet's tag".to_owned());
    }
    let Some(token) = tags.get(tag::TOKEN) else { return Err("it carries no token".to_owned()) };
    if !record.intent.attempts().iter().any(|attempt| attempt.token == *token) {
        return Err("the record of its source does not know its token".to_owned());
    }
    match record.results.get(token) {
        Some(came) if came.copy() != id => Err("the record knows another copy for its token".to_owned()),
        _ => Ok(token.clone()),
    }
}

/// Writes down, before a copy of ours is deleted, that it is let go: what is missing afterwards did not vanish, and is not copied
/// again. Refuses what is not ours (`None`).
async fn write_off<I: Intent>(
    asker: &mut Asker<'_>,
    records: &mut BTreeMap<I::Copy, Read<Record<I, I::Copy>>>,
    source: Option<I::Copy>,
    id: &I::Copy,
    tags: &BTreeMap<String, String>,
    going: impl FnOnce(&mut I),
) -> Option<Written> {
    let Some((source, read)) = source.and_then(|source| records.get(&source).cloned().map(|read| (source, read))) else {
        refuse(asker, format!("`{id}`: no record knows its source"));
        return None;
    };
    let token = match ours(&asker.config.fleet, tags, id, &read.value) {
        Ok(token) => token,
        Err(why) => {
            refuse(asker, format!("`{id}`: {why}"));
            return None;
        }
    };
    let mut record = read.value.clone();
    going(&mut record.intent);
    if !matches!(record.results.get(&token), Some(Came::Expired { .. })) {
        record.results.insert(token, Came::Expired { copy: id.clone(), at: asker.now });
    }
    if record == read.value {
        return Some(Written::Before);
    }
    let etag = asker.write(&record.intent.key(), &record, Some(&read.etag)).await?;
    records.insert(source, Read { value: record, etag });
    Some(Written::Now)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Now,
    /// By an earlier run, whose deletion did not come about.
    Before,
}

/// Somebody else keeps the snapshot: it is locked, or an image is made of it. Which word AWS has for a lock is not known, so any
/// that speaks of one counts.
fn kept_by_others(error: &CallError) -> bool {
    let locked = error.aws_code.as_deref().is_some_and(|code| code.contains("Lock")) || error.message.contains(" locked");
    error.effect == Effect::Refused && (locked || error.is(&["InvalidSnapshot.InUse"]))
}

async fn delete_snapshot(asker: &mut Asker<'_>, world: &mut World, id: &SnapshotId, because: Because) -> bool {
    let found =
        world.hosts.iter().flat_map(|host| &host.snapshots).find(|copy| copy.id == *id && copy.region == asker.config.dr_region);
    let Some(copy) = found.cloned() else { return refuse(asker, format!("`{id}` is no copy in the DR region")) };
    let source = copy.tags.get(tag::SOURCE_SNAPSHOT).and_then(|source| SnapshotId::new(source.clone()).ok());
    let now = asker.now;
    let going = |intent: &mut CopyIntent| {
        if because == Because::PointGoes {
            intent.expired.get_or_insert(now);
        }
    };
    let Some(written) = write_off(asker, &mut world.records.copies, source, id, &copy.tags, going).await else { return false };
    let region = asker.config.dr_region.clone();
    match asker.cloud.delete_snapshot(&region, id).await {
        // It goes when they let it go: told once, and tried again without a word.
        Err(error) if kept_by_others(&error) => {
            asker.outcome.add("kept-by-others", 1);
            if written == Written::Now {
                let text = format!("`{id}` is due and stays until it is let go of: {error}");
                asker.outcome.say(Severity::Warning, Code::DELETE_REFUSED, text);
            }
            false
        }
        answer => asker.note(&region, answer).is_some(),
    }
}

async fn delete_backup(asker: &mut Asker<'_>, world: &mut World, id: &BackupId) -> bool {
    let found = world.common.backups.iter().find(|copy| copy.id == *id && copy.region == asker.config.dr_region);
    let Some(copy) = found.cloned() else { return refuse(asker, format!("`{id}` is no backup in the DR region")) };
    let source = copy.source_backup.clone();
    if write_off(asker, &mut world.records.hsm_copies, source, id, &copy.tags, |_: &mut HsmCopyIntent| {}).await.is_none() {
        return false;
    }
    let region = asker.config.dr_region.clone();
    let answer = asker.cloud.delete_hsm_backup(&region, id).await;
    asker.note(&region, answer).is_some()
}
