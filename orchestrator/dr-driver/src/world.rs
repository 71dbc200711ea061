//! What is there, as far as it can be asked: the facts that `dr` judges, and the records they are compared with.
//!
//! An answer that did not come is noted and leaves its place empty; `dr` is told which questions were not answered, so that
//! an empty place is never taken for "there is none".

use crate::store::{self, CopyRecord, HsmCopyRecord, Read, ReadError, Unreadable};
use crate::{CallError, Cloud, DrConfig, Effect, Job, Outcome, Wrote};
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;
use tde2hsm_dr::facts::{FleetInstance, HsmBackup, KmsKey, Secret, Snapshot, tag};
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_dr::points::{Ask, Common, Host, SecretUse, Stray, gather};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{BackupId, Code, InstanceId, KmsKeyArn, Region, SecretArn, Severity, SnapshotId, Timestamp, VolumeId};
use tokio::time::Instant;

/// Records of the product's own calls.
#[derive(Debug, Default)]
pub struct Records {
    pub copies: BTreeMap<SnapshotId, Read<CopyRecord>>,
    pub hsm_copies: BTreeMap<BackupId, Read<HsmCopyRecord>>,
    /// Some could not be understood: what they are about must not be decided.
    pub unreadable: Vec<Unreadable>,
}

/// Everything of both regions.
#[derive(Debug)]
pub struct World {
    pub common: Common,
    pub hosts: Vec<Host>,
    pub records: Records,
    /// Secrets as the source region has them, where the job is one that changes their stages: no verdict needs them.
    pub secrets: Vec<Secret>,
}

/// How long a job that runs in the DR region waits for the source region to answer one question: a large fleet's snapshots take
/// a while to list, and the first that is not answered is the last.
pub const SOURCE_TIME: Duration = Duration::from_secs(60);
/// And how long for all of them, in parts of [`SOURCE_TIME`]: what such a job has to say of the DR region it must still say, and
/// a function has a quarter of an hour.
const SOURCE_TIMES: u32 = 3;

/// Questions about secrets at a time.
const AT_ONCE: usize = 8;

/// A job's questions and what it says of them.
pub struct Asker<'a> {
    pub now: Timestamp,
    pub config: &'a DrConfig,
    pub cloud: &'a dyn Cloud,
    pub outcome: Outcome,
    /// The source region gave no answer to a question. It is not asked again in this run: each question would cost as long.
    silent: bool,
    /// How long one question to it is waited for, and how long it was waited for in this run. What the DR region takes is no
    /// silence of the source region.
    patience: Duration,
    waited: Duration,
}

impl<'a> Asker<'a> {
    pub fn new(job: Job, now: Timestamp, config: &'a DrConfig, cloud: &'a dyn Cloud) -> Asker<'a> {
        let outcome = Outcome::new(job, now);
        Asker { now, config, cloud, outcome, silent: false, patience: SOURCE_TIME, waited: Duration::ZERO }
    }

    /// Waits as long for an answer of the source region instead of [`SOURCE_TIME`].
    pub fn with_patience(self, patience: Duration) -> Asker<'a> {
        Asker { patience, ..self }
    }

    /// Asks a region a question and notes where no answer came.
    pub(crate) async fn ask<T>(
        &mut self,
        region: &Region,
        call: &str,
        question: impl Future<Output = Result<T, CallError>>,
    ) -> Option<T> {
        if *region != self.config.source_region {
            let answer = question.await;
            return self.note(region, answer);
        }
        if self.silent {
            return None;
        }
        let mut answer = match self.outcome.job {
            Job::CopySnapshots | Job::CopyHsmBackups => question.await,
            Job::SettleCopies | Job::ExpireCopies | Job::AuditRecovery => {
                let whole = self.patience * SOURCE_TIMES;
                let left = whole.saturating_sub(self.waited);
                let asked = Instant::now();
                let answer = tokio::time::timeout(left.min(self.patience), question).await;
                self.waited += asked.elapsed();
                answer.unwrap_or_else(|_| {
                    let message = if left < self.patience {
                        format!("the region used up the {} s that a run has for it", whole.as_secs())
                    } else {
                        format!("the region did not answer within {} s", self.patience.as_secs())
                    };
                    Err(CallError { call: call.to_owned(), effect: Effect::Ambiguous, aws_code: None, message })
                })
            }
        };
        if let Err(error) = &mut answer
            && error.unanswered()
        {
            self.silent = true;
            error.message.push_str("; nothing more is asked of it in this run");
        }
        self.note(region, answer)
    }

    /// Notes a call that gave no answer.
    pub fn note<T>(&mut self, region: &Region, answer: Result<T, CallError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                self.outcome.not_asked(region, &error);
                None
            }
        }
    }

    /// Notes that the records could not be read: without them nothing is begun and nothing removed.
    pub fn note_records<T>(&mut self, answer: Result<T, CallError>) -> Option<T> {
        if let Err(error) = &answer {
            self.outcome.say(Severity::Error, Code::RECORDS_AWAY, error.to_string());
        }
        let region = self.config.dr_region.clone();
        self.note(&region, answer)
    }

    pub fn note_unreadable(&mut self, unreadable: &[Unreadable]) {
        for one in unreadable {
            self.outcome.say(Severity::Error, Code::RECORD_INVALID, format!("`{}`: {}", one.key, one.why));
        }
    }

    /// One object; what cannot be understood is as good as not answered.
    pub async fn object<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<Option<Read<T>>> {
        match store::read(self.cloud, key).await {
            Ok(found) => Some(found),
            Err(ReadError::Call(error)) => self.note_records(Err(error)),
            Err(ReadError::Unreadable(why)) => {
                self.note_unreadable(&[why]);
                None
            }
        }
    }

    /// Writes over what was read, or where there was nothing; the ETag of what stands there now. `None`: another run was quicker,
    /// or it could not be written.
    pub async fn write<T: Serialize>(&mut self, key: &str, value: &T, etag: Option<&str>) -> Option<String> {
        let wrote = store::write(self.cloud, key, value, etag).await;
        match self.note_records(wrote)? {
            Wrote::Yes(etag) => Some(etag),
            Wrote::Lost => {
                self.outcome.add("raced", 1);
                None
            }
        }
    }

    pub async fn copy_records(&mut self, sources: Option<&BTreeSet<SnapshotId>>) -> Option<Records> {
        // Listed first: most sources have no record yet, and a question for each would be many.
        let listed = self.cloud.list(store::COPIES).await;
        let listed = self.note_records(listed)?;
        let wanted: Option<BTreeSet<String>> = sources.map(|sources| sources.iter().map(store::copy_key).collect());
        let keys = listed.into_iter().map(|info| info.key).filter(|key| wanted.as_ref().is_none_or(|keys| keys.contains(key)));
        let read = store::read_keys::<CopyRecord>(self.cloud, keys.collect()).await;
        let (found, unreadable) = self.note_records(read)?;
        self.note_unreadable(&unreadable);
        let copies = found.into_values().map(|read| (read.value.intent.source.clone(), read)).collect();
        Some(Records { copies, hsm_copies: BTreeMap::new(), unreadable })
    }

    pub async fn hsm_copy_records(&mut self, into: &mut Records) -> Option<()> {
        let read = store::read_all::<HsmCopyRecord>(self.cloud, store::HSM_COPIES).await;
        let (found, unreadable) = self.note_records(read)?;
        self.note_unreadable(&unreadable);
        into.hsm_copies = found.into_values().map(|read| (read.value.intent.source.clone(), read)).collect();
        into.unreadable.extend(unreadable);
        Some(())
    }

    /// Copies that carry the fleet's tag in the DR region.
    pub async fn dr_snapshots(&mut self) -> Option<Vec<Snapshot>> {
        let region = self.config.dr_region.clone();
        let answer = self.cloud.snapshots_tagged(&region, tag::FLEET, std::slice::from_ref(&self.config.fleet)).await;
        self.note(&region, answer)
    }

    pub async fn source_snapshots(&mut self, volumes: &BTreeSet<VolumeId>) -> Option<Vec<Snapshot>> {
        let region = self.config.source_region.clone();
        let volumes: Vec<VolumeId> = volumes.iter().cloned().collect();
        if volumes.is_empty() {
            return Some(Vec::new());
        }
        let found = self.ask(&region, "ec2:DescribeSnapshots", self.cloud.snapshots_of(&region, &volumes)).await?;
        // A copy is never a source: what came from another region does not go on to a third, or back (no A→B→A).
        Some(found.into_iter().filter(|snapshot| !snapshot.tags.contains_key(tag::SOURCE_REGION)).collect())
    }

    pub async fn instances(&mut self) -> Option<Vec<FleetInstance>> {
        let region = self.config.source_region.clone();
        let question = self.cloud.fleet_instances(&region, &self.config.fleet_tag);
        let found = self.ask(&region, "ec2:DescribeInstances", question).await?;
        if found.is_empty() {
            let (key, value) = &self.config.fleet_tag;
            let text = format!("no instance of {region} carries the tag `{key}={value}`");
            self.outcome.say(Severity::Warning, Code::NO_FLEET, text);
        }
        Some(found)
    }

    /// Backups of the cluster in the source region.
    pub async fn source_backups(&mut self) -> Option<Vec<HsmBackup>> {
        let region = self.config.source_region.clone();
        let question = self.cloud.hsm_backups(&region, &self.config.cluster);
        self.ask(&region, "cloudhsmv2:DescribeBackups", question).await
    }

    /// Copies in the DR region. A copy keeps its cluster's id (`A§4.3`); those of the given sources are asked for as well, so
    /// that nothing depends on it.
    pub async fn dr_backups(&mut self, sources: &BTreeSet<BackupId>) -> Option<Vec<HsmBackup>> {
        let region = self.config.dr_region.clone();
        let of_cluster = self.cloud.hsm_backups(&region, &self.config.cluster).await;
        let mut found = self.note(&region, of_cluster)?;
        let seen: BTreeSet<BackupId> = found.iter().filter_map(|backup| backup.source_backup.clone()).collect();
        let lacking: Vec<BackupId> = sources.difference(&seen).cloned().collect();
        if !lacking.is_empty() {
            let of_sources = self.cloud.hsm_copies(&region, &lacking).await;
            let more = self.note(&region, of_sources)?;
            let known: BTreeSet<BackupId> = found.iter().map(|backup| backup.id.clone()).collect();
            found.extend(more.into_iter().filter(|backup| !known.contains(&backup.id)));
        }
        Some(found)
    }

    /// What each secret is for: the configuration's and those that the records name.
    pub async fn secret_uses(&mut self) -> Vec<SecretUse> {
        let mut uses = self.config.secrets.clone();
        if let Some(Some(more)) = self.object::<Vec<SecretUse>>(store::SECRETS).await {
            uses.extend(more.value);
        }
        uses.sort();
        uses.dedup();
        uses
    }

    /// Secrets as a region has them. One that is lacking gave no answer, and `None`: there is no such secret there. A fleet may have
    /// hundreds, and one question after the other would take minutes between far regions.
    pub async fn secrets(&mut self, region: &Region, arns: &BTreeSet<SecretArn>) -> BTreeMap<SecretArn, Option<Secret>> {
        const CALL: &str = "secretsmanager:DescribeSecret";
        let cloud = self.cloud;
        // Those that hang must not keep from us what the others say, nor a copy waiting until the function's time is over.
        let (patience, dr_region) = (self.patience * 3 / 4, self.config.dr_region.clone());
        let unheard = || CallError {
            call: CALL.to_owned(),
            effect: Effect::Ambiguous,
            aws_code: None,
            message: format!("no answer came within {} s", patience.as_secs()),
        };
        let mut questions = Vec::new();
        for arn in arns {
            questions.push(async move { (arn, cloud.secret(region, arn).await) });
        }
        let mut questions = stream::iter(questions).buffer_unordered(AT_ONCE);
        let heard = async {
            let mut heard = BTreeMap::new();
            let all = async {
                while let Some((arn, answer)) = questions.next().await {
                    heard.insert(arn, answer);
                }
            };
            // What there is to be said is of the DR region: it has all the time that there is.
            if *region == dr_region {
                all.await;
                return Ok(heard);
            }
            // Of a region that answers nothing at all nothing more is asked.
            match tokio::time::timeout(patience, all).await {
                Err(_) if heard.is_empty() => Err(unheard()),
                _ => Ok(heard),
            }
        };
        let Some(mut heard) = self.ask(region, CALL, heard).await else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        // In the order of the questions.
        for arn in arns {
            let answer = heard.remove(arn).unwrap_or_else(|| Err(unheard()));
            found.extend(self.note(region, answer).map(|secret| (arn.clone(), secret)));
        }
        found
    }

    /// All of them, and whether each could be read.
    async fn inventories(&mut self) -> Option<(Vec<Inventory>, bool)> {
        let listed = self.cloud.list(store::INVENTORIES).await;
        let keys = self.note_records(listed)?.into_iter().map(|info| info.key).collect();
        let read = store::read_keys::<Inventory>(self.cloud, keys).await;
        let (found, unreadable) = self.note_records(read)?;
        self.note_unreadable(&unreadable);
        let mut whole = unreadable.is_empty();
        let mut inventories = Vec::new();
        for (key, read) in found {
            // An inventory is believed for the instance whose place it lies in, and for no other.
            let place = store::parse_inventory_key(&key);
            if place.is_some_and(|(instance, at)| instance == read.value.instance && at == read.value.taken_at) {
                inventories.push(read.value);
            } else {
                let why = "it speaks of another instance or time than its key".to_owned();
                self.note_unreadable(&[Unreadable { key, why }]);
                whole = false;
            }
        }
        Some((inventories, whole))
    }

    pub fn note_strays(&mut self, strays: &[Stray]) {
        for stray in strays {
            let text =
                format!("`{}` says it is a copy of `{}`, which nobody knows", stray.snapshot, printable(&stray.claims, 60));
            self.outcome.say(Severity::Warning, Code::COPY_CLAIMED, text);
        }
    }

    /// Which instances of the records are gone, and whether AWS said so now. It knows a terminated instance for about an hour; what
    /// it does not know is none any more. One that lost the fleet's tag is there. What it said last is kept for the time when it says
    /// nothing.
    async fn gone(&mut self, fleet: Option<&[FleetInstance]>, named: BTreeSet<InstanceId>) -> (BTreeSet<InstanceId>, bool) {
        let read = self.object::<Gone>(store::GONE).await;
        let known = read.as_ref().and_then(Option::as_ref).map(|read| read.value.instances.clone()).unwrap_or_default();
        let Some(fleet) = fleet else { return (known, false) };
        let members: BTreeSet<&InstanceId> = fleet.iter().map(|one| &one.instance).collect();
        let asked: Vec<InstanceId> = named.into_iter().filter(|instance| !members.contains(instance)).collect();
        let there = if asked.is_empty() {
            BTreeSet::new()
        } else {
            let region = self.config.source_region.clone();
            let question = self.cloud.instances_there(&region, &asked);
            let Some(there) = self.ask(&region, "ec2:DescribeInstances", question).await else {
                return (known.into_iter().filter(|instance| !members.contains(instance)).collect(), false);
            };
            there
        };
        let gone: BTreeSet<InstanceId> = asked.into_iter().filter(|instance| !there.contains(instance)).collect();
        if let Some(read) = read.filter(|_| gone != known) {
            let value = Gone { v: 1, instances: gone.clone() };
            let wrote = store::write(self.cloud, store::GONE, &value, read.map(|read| read.etag).as_deref()).await;
            self.note_records(wrote);
        }
        (gone, true)
    }

    /// Addresses that the cluster's HSMs have or ever had. They change when an HSM is replaced, and an inventory may be older
    /// than that; and the source region may be away. So what was seen once is kept.
    async fn cluster_addresses(&mut self) -> Option<BTreeSet<String>> {
        let region = self.config.source_region.clone();
        let question = self.cloud.hsm_addresses(&region, &self.config.cluster);
        let now = self.ask(&region, "cloudhsmv2:DescribeClusters", question).await.flatten();
        let known = self.object::<ClusterAddresses>(store::CLUSTER).await?;
        let (mut addresses, etag) = match known {
            Some(read) if read.value.cluster == self.config.cluster.as_str() => (read.value.addresses, Some(read.etag)),
            Some(read) => (BTreeSet::new(), Some(read.etag)),
            None => (BTreeSet::new(), None),
        };
        let before = addresses.len();
        addresses.extend(now.iter().flatten().cloned());
        if addresses.len() > before {
            let value = ClusterAddresses { v: 1, cluster: self.config.cluster.to_string(), addresses: addresses.clone() };
            let wrote = store::write(self.cloud, store::CLUSTER, &value, etag.as_deref()).await;
            self.note_records(wrote);
        }
        (now.is_some() || !addresses.is_empty()).then_some(addresses)
    }

    /// Everything of both regions. `None`: the records cannot be read, and without them nothing can be said.
    pub async fn world(&mut self) -> Option<World> {
        let mut unasked = BTreeSet::new();
        let mut records = self.copy_records(None).await?;
        self.hsm_copy_records(&mut records).await?;
        let (inventories, whole) = self.inventories().await?;
        if !records.unreadable.is_empty() {
            unasked.insert(Ask::Records);
        }
        if !whole {
            unasked.insert(Ask::Inventories);
        }
        let instances = self.instances().await;
        let named = inventories.iter().map(|one| one.instance.clone());
        let named = named.chain(records.copies.values().map(|read| read.value.intent.instance.clone())).collect();
        let (gone, said) = self.gone(instances.as_deref(), named).await;
        if !said {
            unasked.insert(Ask::SourceInstances);
        }
        let volumes = volumes(instances.as_deref().unwrap_or_default(), &records, inventories.iter());
        let source = match &instances {
            // Without the instances it is not known which volumes there are beside the recorded ones.
            None => None,
            Some(_) => self.source_snapshots(&volumes).await,
        };
        if source.is_none() {
            unasked.insert(Ask::SourceSnapshots);
        }
        let dr = self.dr_snapshots().await;
        if dr.is_none() {
            unasked.insert(Ask::DrSnapshots);
        }
        let dr = believed(dr.unwrap_or_default(), &records, &mut self.outcome);
        let source_backups = self.source_backups().await;
        if source_backups.is_none() {
            unasked.insert(Ask::SourceBackups);
        }
        let dr_backups = self.dr_backups(&records.hsm_copies.keys().cloned().collect()).await;
        if dr_backups.is_none() {
            unasked.insert(Ask::DrBackups);
        }
        let uses = self.secret_uses().await;
        let arns: BTreeSet<SecretArn> = uses.iter().map(|one| one.secret.clone()).collect();
        let (source_region, dr_region) = (self.config.source_region.clone(), self.config.dr_region.clone());
        let of_source: Vec<Secret> = match self.outcome.job {
            Job::ExpireCopies => self.secrets(&source_region, &arns).await.into_values().flatten().collect(),
            _ => Vec::new(),
        };
        let of_dr = self.secrets(&dr_region, &arns).await;
        unasked.extend(arns.iter().filter(|arn| !of_dr.contains_key(arn)).map(|arn| Ask::DrSecret(arn.clone())));
        let mut secrets: Vec<Secret> = of_dr.into_values().flatten().collect();
        secrets.extend(of_source.iter().cloned());
        let of_secrets = secrets.iter().filter_map(|secret| secret.kms_key.clone());
        let keys: BTreeSet<KmsKeyArn> =
            dr.iter().filter_map(|copy| copy.kms_key.clone()).chain([self.config.kms_key.clone()]).chain(of_secrets).collect();
        let mut kms: Vec<KmsKey> = Vec::new();
        for key in &keys {
            let answer = self.cloud.kms_key(&dr_region, key).await;
            kms.extend(self.note(&dr_region, answer));
        }
        let cluster_addresses = self.cluster_addresses().await;
        let snapshots = source.into_iter().flatten().chain(dr).collect();
        let intents = records.copies.values().map(|read| read.value.intent.clone()).collect();
        let (hosts, strays) = gather(&source_region, instances.unwrap_or_default(), snapshots, inventories, intents);
        self.note_strays(&strays);
        let common = Common {
            now: self.now,
            source_region,
            dr_region,
            cluster: self.config.cluster.clone(),
            cluster_addresses,
            backups: source_backups.into_iter().flatten().chain(dr_backups.into_iter().flatten()).collect(),
            secrets,
            uses,
            kms,
            hsm_copies: records.hsm_copies.values().map(|read| read.value.intent.clone()).collect(),
            unasked,
            gone,
            retired: self.config.retired.clone(),
        };
        Some(World { common, hosts, records, secrets: of_source })
    }
}

/// `gone.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Gone {
    v: u8,
    instances: BTreeSet<InstanceId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClusterAddresses {
    v: u8,
    cluster: String,
    addresses: BTreeSet<String>,
}

/// What the jobs that judge nothing need of it.
pub fn bare(now: Timestamp, config: &DrConfig) -> Common {
    Common {
        now,
        source_region: config.source_region.clone(),
        dr_region: config.dr_region.clone(),
        cluster: config.cluster.clone(),
        cluster_addresses: None,
        backups: Vec::new(),
        secrets: Vec::new(),
        uses: Vec::new(),
        kms: Vec::new(),
        hsm_copies: Vec::new(),
        unasked: BTreeSet::new(),
        gone: BTreeSet::new(),
        retired: BTreeSet::new(),
    }
}

/// Volumes that are or were the fleet's: attached, recorded, or named by an inventory.
pub fn volumes<'a>(
    instances: &[FleetInstance],
    records: &Records,
    inventories: impl Iterator<Item = &'a Inventory>,
) -> BTreeSet<VolumeId> {
    let attached = instances.iter().flat_map(|instance| instance.volumes.values().cloned());
    let recorded = records.copies.values().map(|read| read.value.intent.volume.clone());
    let files = inventories.flat_map(|one| one.files.iter().chain(one.databases.iter().flat_map(|database| &database.files)));
    let named = files.filter_map(|file| file.volume.clone());
    attached.chain(recorded).chain(named).collect()
}

/// A copy that carries a token of ours while the record of that token knows another copy only claims to be it: the token is
/// taken from it, so that it counts for what it is (H37).
pub fn believed(mut copies: Vec<Snapshot>, records: &Records, outcome: &mut Outcome) -> Vec<Snapshot> {
    let mut known: BTreeMap<&str, &SnapshotId> = BTreeMap::new();
    for read in records.copies.values() {
        known.extend(read.value.results.iter().map(|(token, came)| (token.as_str(), came.copy())));
    }
    for copy in &mut copies {
        let Some(token) = copy.tags.get(tag::TOKEN) else { continue };
        if let Some(other) = known.get(token.as_str())
            && **other != copy.id
        {
            let text = format!("`{}` carries the token of `{other}`", copy.id);
            outcome.say(Severity::Warning, Code::COPY_CLAIMED, text);
            copy.tags.remove(tag::TOKEN);
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Job;
    use crate::store::Came;
    use tde2hsm_dr::facts::{SetId, SnapshotState};
    use tde2hsm_dr::records::{Attempt, CopyIntent};

    fn id(n: u32) -> SnapshotId {
        SnapshotId::new(format!("snap-{n:017x}")).unwrap()
    }

    fn copy(n: u32) -> Snapshot {
        Snapshot {
            id: id(n),
            region: Region::new("eu-west-1").unwrap(),
            volume: None,
            size_gib: 8,
            state: SnapshotState::Completed,
            state_message: None,
            progress: None,
            started: Timestamp(2),
            started_ms: 0,
            completed: None,
            encrypted: true,
            kms_key: None,
            archived: false,
            completion_minutes: None,
            description: String::new(),
            tags: BTreeMap::from([(tag::TOKEN.to_owned(), "t-1".to_owned())]),
        }
    }

    /// H37: a token can be read off a copy and written onto another. The record says which copy it was for.
    #[test]
    fn h37_a_token_counts_for_the_copy_that_the_record_knows() {
        let intent = CopyIntent {
            v: 1,
            source: id(1),
            source_region: Region::new("eu-central-1").unwrap(),
            set: SetId("set".to_owned()),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            volume: VolumeId::new("vol-0123456789abcdef0").unwrap(),
            device: None,
            root: false,
            instance_profile: None,
            size_gib: 8,
            started: Timestamp(1),
            started_ms: None,
            consistency: None,
            kms_key: "arn:aws:kms:eu-west-1:123456789012:key/1".parse().unwrap(),
            attempts: vec![Attempt { token: "t-1".to_owned(), at: Timestamp(2) }],
            secrets: vec![],
            expired: None,
        };
        let mut record = CopyRecord::new(intent);
        let records = |record: &CopyRecord| Records {
            copies: BTreeMap::from([(id(1), Read { value: record.clone(), etag: String::new() })]),
            ..Records::default()
        };
        let mut outcome = Outcome::new(Job::SettleCopies, Timestamp(3));
        let unanswered = believed(vec![copy(2)], &records(&record), &mut outcome);
        assert!(unanswered[0].tags.contains_key(tag::TOKEN), "no answer came: it may be this one");
        record.results.insert("t-1".to_owned(), Came::Made { copy: id(2), at: Timestamp(2) });
        let seen = believed(vec![copy(2), copy(3)], &records(&record), &mut outcome);
        assert!(seen[0].tags.contains_key(tag::TOKEN));
        assert!(!seen[1].tags.contains_key(tag::TOKEN));
        assert_eq!(outcome.messages.len(), 1);
        assert!(outcome.messages[0].text.contains(id(3).as_str()));
    }
}
