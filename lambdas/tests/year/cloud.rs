//! The two regions in memory: the port of the jobs over the model's calls, and everything that happens between calls.

use crate::estate::{Host, Hsms};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tde2hsm_dr::facts::{
    BackupState, FleetInstance, HsmBackup, KmsKey, KmsState, Secret, SecretVersionFact, Snapshot, SnapshotState,
};
use tde2hsm_dr_driver::{
    CallError, Cloud, CopySnapshot, DocumentPin, Effect as CallEffect, HostAnswer, Job, Object, ObjectInfo, Put, Result,
    SurveyCommand, Wrote,
};
use tde2hsm_model::truth::{Frozen, Token};
use tde2hsm_model::{ApiError, Caller, Effect, Fate, Millis, Principal, Request, Service, World};
use tde2hsm_protocol::{
    AccountId, BackupId, Chunk, ClusterId, DetailRef, Digest, InstanceId, KmsKeyArn, Order, OrderToken, Outcome,
    PROTOCOL_VERSION, Region, Report, SecretArn, SecretVersion, SnapshotId, Timestamp, VolumeId, Work, wire,
};

#[derive(Debug, Clone)]
struct Stored {
    body: Vec<u8>,
    etag: String,
    modified: Timestamp,
}

#[derive(Debug)]
struct Command {
    token: String,
    sent: Millis,
    order: Order,
    /// Instance to when its agent gets to it, and what it said.
    hosts: BTreeMap<String, (Millis, Option<Answer>)>,
}

#[derive(Debug, Clone)]
struct Answer {
    details: String,
    output: Option<String>,
}

/// What the functions did to the second region, by the model's own account.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Snapshots and backups that a function's call made.
    pub ours: BTreeSet<String>,
    /// Copies that came to their end, by source.
    pub completed: BTreeMap<String, u32>,
    pub begun: u32,
    pub walls: u32,
    pub deleted: u32,
    pub surveys: u32,
    pub calls_failed: u32,
    pub events: [u32; 2],
    /// How often each event reached a function, by its id.
    pub given: BTreeMap<String, u32>,
    /// Secrets that were rotated, and when.
    pub rotated: Vec<(&'static str, Millis)>,
    /// HSM backups of the source region that its cluster's policy removed for good.
    pub purged: BTreeSet<String>,
    /// Calls into the source region while it answered nobody.
    pub unanswered: u32,
    /// Surveys that reached no agent.
    pub undelivered: u32,
    /// Orders that a host took for expired or not yet due.
    pub clocks_off: u32,
    /// Copies that a function bought to be done in so many minutes: copy, and when it was begun.
    pub bought: Vec<(String, u32, Millis)>,
    /// Sources of copies that AWS had no throughput for.
    pub unbought: Vec<String>,
}

pub struct Inner {
    pub world: World,
    pub now: Millis,
    /// The function that is calling.
    pub function: String,
    pub source: Region,
    pub dr: Region,
    pub topic: String,
    pub cluster: String,
    /// Of the second region, for copies.
    pub kms_key: String,
    pub hosts: Vec<Host>,
    pub hsms: Hsms,
    /// What each snapshot of either region holds.
    pub frozen: BTreeMap<String, Frozen>,
    /// What each HSM backup of either region holds.
    pub tokens: BTreeMap<String, Arc<Token>>,
    /// Events not yet given to a function: region, envelope.
    pub events: Vec<(String, Value)>,
    pub ledger: Ledger,
    pub violations: Vec<String>,
    /// The source region answers nobody.
    pub away: bool,
    /// MiB/s that the functions were told to buy at most.
    pub told: u64,
    objects: BTreeMap<String, Stored>,
    etags: u64,
    commands: BTreeMap<String, Command>,
    details: BTreeMap<Digest, Vec<u8>>,
}

pub struct YearCloud(Mutex<Inner>);

fn model(region: &Region) -> tde2hsm_model::Region {
    tde2hsm_model::Region::new(region.as_str())
}

impl Inner {
    pub fn new(world: World, source: Region, dr: Region, topic: String, cluster: String, kms_key: String) -> Self {
        Self {
            world,
            now: Millis(0),
            function: String::new(),
            source,
            dr,
            topic,
            cluster,
            kms_key,
            hosts: Vec::new(),
            hsms: Hsms::default(),
            frozen: BTreeMap::new(),
            tokens: BTreeMap::new(),
            events: Vec::new(),
            ledger: Ledger::default(),
            violations: Vec::new(),
            away: false,
            told: 0,
            objects: BTreeMap::new(),
            etags: 0,
            commands: BTreeMap::new(),
            details: BTreeMap::new(),
        }
    }

    /// A call of the customer or of AWS's owner of the account; it must work.
    pub fn operator(&mut self, region: &Region, service: Service, operation: &str, body: Value) -> Value {
        let caller = Caller { principal: Principal::Operator, arn: "arn:operator".into(), user_id: "O".into() };
        let region = model(region);
        let request = Request { caller: &caller, region: &region, service, operation, body: &body };
        let reply = self.world.call(&request, self.now);
        self.absorb();
        reply.result.unwrap_or_else(|e| panic!("{operation}: {e}"))
    }

    /// The HSMs as the cluster's state lets them be: while it changes its type they make no key (A§4.7).
    pub fn live(&mut self) -> (&mut Vec<Host>, &mut Hsms) {
        let limited = self.world.region(&model(&self.source)).is_some_and(|r| r.hsm.limited_write(&self.cluster));
        self.hsms.cluster.limit(limited);
        (&mut self.hosts, &mut self.hsms)
    }

    /// What can still be read of a secret in the second region when every version without a stage is gone (H42).
    pub fn staged(&mut self, name: &str) -> BTreeMap<String, String> {
        let dr = self.dr.clone();
        let described = self.operator(&dr, Service::Secrets, "DescribeSecret", json!({"SecretId": name}));
        let staged = described["VersionIdsToStages"].as_object().cloned().unwrap_or_default();
        let readable = self.world.region(&model(&dr)).map(|r| r.secrets.readable(name)).unwrap_or_default();
        let stays = |id: &str| staged.get(id).and_then(Value::as_array).is_some_and(|stages| !stages.is_empty());
        readable.into_iter().filter(|(id, _)| stays(id)).collect()
    }

    /// One function alone removes anything.
    fn deletes(&mut self, what: &str) {
        if self.function != Job::ExpireCopies.name() {
            self.violations.push(format!("{} was to delete {what}", self.function));
        }
    }

    /// The product's copies that are alive, by source; as the model has them, whatever the records say.
    pub fn copied_twice(&mut self) {
        let mut alive: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for s in self.world.region(&model(&self.dr)).into_iter().flat_map(|r| r.ec2.snapshots.all()) {
            let lives = s.state != tde2hsm_model::ec2::SnapshotState::Error && self.ledger.ours.contains(&s.id);
            if let Some(origin) = s.origin.as_ref().filter(|_| lives) {
                alive.entry(&origin.snapshot).or_default().push(&s.id);
            }
        }
        let twice = alive.into_iter().filter(|(_, copies)| copies.len() > 1);
        let twice =
            twice.map(|(source, copies)| format!("{source} has the copies {} after {}", copies.join(", "), self.function));
        self.violations.extend(twice);
    }

    /// Nobody bought more of the pair of regions than may be bought (A§3.2).
    fn overbought(&mut self) {
        let dr = self.world.region(&model(&self.dr)).expect("a region");
        let pending = |id: &str| {
            let copy = dr.ec2.snapshots.get(id)?;
            (copy.state == tde2hsm_model::ec2::SnapshotState::Pending).then_some(u64::from(copy.size_gib) * 1_024)
        };
        let rates =
            self.ledger.bought.iter().filter_map(|(id, minutes, _)| Some(pending(id)?.div_ceil(u64::from(*minutes) * 60)));
        let rate: u64 = rates.sum();
        if rate > self.told {
            self.violations.push(format!("{} MiB/s were bought, and {} may be", rate, self.told));
        }
    }

    fn as_function(&self) -> Caller {
        let principal = Principal::Function(self.function.clone());
        Caller { principal, arn: format!("arn:role/{}", self.function), user_id: "F".into() }
    }

    /// The second region's copies that were lost without a fault of ours: they may be made again.
    pub fn lose_copy(&mut self, copy: &str, source: &str) {
        let dr = self.dr.clone();
        self.operator(&dr, Service::Ec2, "DeleteSnapshot", json!({"SnapshotId": copy}));
        self.ledger.completed.remove(source);
    }

    /// A function's call. What was carried out comes back even where the reply is lost.
    fn call(
        &mut self,
        region: &Region,
        service: Service,
        operation: &str,
        body: &Value,
    ) -> (std::result::Result<Value, ApiError>, Fate) {
        if self.away && *region == self.source {
            self.ledger.unanswered += 1;
            return (Ok(Value::Null), Fate::Lost);
        }
        let caller = self.as_function();
        let region = model(region);
        let request = Request { caller: &caller, region: &region, service, operation, body };
        let reply = self.world.call(&request, self.now);
        self.absorb();
        (reply.result, reply.fate)
    }

    fn ask(&mut self, region: &Region, service: Service, operation: &str, body: &Value) -> Result<Value> {
        let (result, fate) = self.call(region, service, operation, body);
        self.answered(service, operation, result, fate)
    }

    fn answered(
        &mut self,
        service: Service,
        operation: &str,
        result: std::result::Result<Value, ApiError>,
        fate: Fate,
    ) -> Result<Value> {
        let call = format!("{}:{operation}", service.prefix());
        let error = match (result, fate) {
            (Ok(value), Fate::Delivered) => return Ok(value),
            (_, Fate::Lost) => CallError { call, effect: CallEffect::Ambiguous, aws_code: None, message: "no answer".into() },
            // A throttled call was not carried out; any other 5xx may have been.
            (Err(e), _) => {
                let limits = ["Throttl", "RequestLimitExceeded", "ResourceLimitExceeded", "TooManyRequests", "SlowDown"];
                let throttled = limits.iter().any(|word| e.code.contains(word));
                let effect = if e.status >= 500 && !throttled { CallEffect::Ambiguous } else { CallEffect::Refused };
                CallError { call, effect, aws_code: Some(e.code), message: e.message }
            }
        };
        self.ledger.calls_failed += 1;
        Err(error)
    }

    /// Lets time pass until `to`, moment by moment.
    pub fn pass(&mut self, to: Millis) {
        let to = to.max(self.now);
        loop {
            let deliveries =
                self.commands.values().flat_map(|c| c.hosts.values()).filter(|(_, a)| a.is_none()).map(|(at, _)| *at);
            let next = self.world.next_due().into_iter().chain(deliveries).filter(|at| *at <= to).min();
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            self.world.tick(self.now);
            self.absorb();
            self.deliver();
        }
        self.now = to;
        self.world.tick(to);
        self.absorb();
        self.commands.retain(|_, command| to.since(command.sent) < 2 * 86_400_000);
    }

    fn absorb(&mut self) {
        for effect in self.world.take_effects() {
            match effect {
                Effect::SnapshotTaken { snapshot, volume, .. } => {
                    let now = self.now;
                    if let Some(host) =
                        self.hosts.iter_mut().find(|h| h.root == volume || h.mounts.values().any(|v| *v == volume))
                    {
                        self.frozen.insert(snapshot, Frozen { machine: host.machine(now), volume, at: now });
                    }
                }
                Effect::SnapshotCopied { source, snapshot, .. } => {
                    if let Some(content) = self.frozen.get(&source).cloned() {
                        self.frozen.insert(snapshot.clone(), content);
                    }
                    if self.ledger.ours.contains(&snapshot) {
                        let times = self.ledger.completed.entry(source.clone()).or_default();
                        *times += 1;
                        if *times > 1 {
                            self.violations.push(format!("snapshot {source} was copied {times} times"));
                        }
                    }
                }
                Effect::SnapshotDeleted { snapshot, .. } => drop(self.frozen.remove(&snapshot)),
                Effect::BackupTaken { region, cluster, backup }
                    if region.as_str() == self.source.as_str() && cluster == self.cluster =>
                {
                    self.tokens.insert(backup, Arc::new(self.hsms.cluster.token().clone()));
                }
                Effect::BackupCopied { source, backup, .. } => {
                    if let Some(content) = self.tokens.get(&source).cloned() {
                        self.tokens.insert(backup.clone(), content);
                    }
                    let times = self.ledger.completed.entry(source.clone()).or_default();
                    *times += 1;
                    if *times > 1 {
                        self.violations.push(format!("HSM backup {source} was copied {times} times"));
                    }
                    self.ledger.ours.insert(backup);
                }
                Effect::BackupGone { region, backup } => {
                    let known = self.tokens.remove(&backup).is_some();
                    if known && region.as_str() == self.source.as_str() {
                        self.ledger.purged.insert(backup);
                    }
                }
                Effect::Event { region, detail } => self.events.push((region.as_str().to_owned(), detail)),
                _ => {}
            }
        }
    }

    /// Agents run what they were sent.
    fn deliver(&mut self) {
        let now = self.now;
        let account = AccountId::new(self.world.account.as_str()).expect("an account");
        for command in self.commands.values_mut() {
            let order = &command.order;
            for (instance, (_, answer)) in command.hosts.iter_mut().filter(|(_, (at, answer))| *at <= now && answer.is_none()) {
                let host = self.hosts.iter().find(|h| h.id == *instance);
                let Some(host) = host.filter(|h| h.reachable) else {
                    self.ledger.undelivered += 1;
                    *answer = Some(Answer { details: "Undeliverable".into(), output: None });
                    continue;
                };
                let clock = Timestamp(now.0 / 1000 + host.clock);
                let id = InstanceId::new(instance.as_str()).expect("an instance id");
                let Some(mine) = order.host(&id) else {
                    *answer = Some(Answer { details: "Failed".into(), output: Some("not for this host".into()) });
                    continue;
                };
                let (outcome, detail, chunk) = match order.work {
                    _ if clock < order.not_before || clock > order.not_after => {
                        self.ledger.clocks_off += 1;
                        (Outcome::Expired, None, None)
                    }
                    Work::Survey => {
                        let survey = host.survey(&account, &self.source, now);
                        let bytes = wire::deflate(&serde_json::to_vec(&survey).expect("a survey serialises"));
                        let detail = DetailRef::of(&bytes);
                        self.details.insert(detail.digest, bytes);
                        self.ledger.surveys += 1;
                        (Outcome::Done, Some(detail), None)
                    }
                    Work::Fetch { chunk } => {
                        let bytes = mine.detail.and_then(|digest| self.details.get(&digest));
                        (Outcome::Done, bytes.map(|b| DetailRef::of(b)), bytes.and_then(|b| Chunk::of(b, chunk)))
                    }
                    _ => (Outcome::Expired, None, None),
                };
                let report = Report {
                    v: PROTOCOL_VERSION,
                    instance: id.clone(),
                    campaign: order.campaign.clone(),
                    generation: order.generation,
                    operation: mine.operation.clone(),
                    at: clock,
                    outcome,
                    step: None,
                    message: String::new(),
                    databases: Vec::new(),
                    logins: Vec::new(),
                    journal_head: Digest::ZERO,
                    saw: None,
                    detail,
                    chunk,
                    omitted: 0,
                };
                *answer = Some(Answer { details: "Success".into(), output: Some(report.encode()) });
            }
        }
    }

    /// Writes an object as someone else than a function would: a campaign keeps inventories.
    pub fn write(&mut self, key: &str, body: Vec<u8>) {
        self.etags += 1;
        let stored = Stored { body, etag: format!("\"{}\"", self.etags), modified: Timestamp(self.now.0 / 1000) };
        self.objects.insert(key.to_owned(), stored);
    }

    pub fn sizes(&self) -> String {
        let mut sizes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (key, stored) in &self.objects {
            let at = sizes.entry(key.split('/').next().unwrap_or_default()).or_default();
            at.0 += 1;
            at.1 += stored.body.len();
        }
        format!("{sizes:?}")
    }

    pub fn keys(&self, prefix: &str) -> Vec<&str> {
        self.objects.keys().filter(|key| key.starts_with(prefix)).map(String::as_str).collect()
    }

    fn s3(&mut self, operation: &str) -> Result<Fate> {
        let caller = self.as_function();
        let call = format!("s3:{operation}");
        match self.world.admit(&caller, Service::S3, operation) {
            Ok(fate) => Ok(fate),
            Err(refused) => {
                self.ledger.calls_failed += 1;
                let effect = match &refused {
                    None => CallEffect::Ambiguous,
                    Some(e) if e.status == 500 => CallEffect::Ambiguous,
                    Some(_) => CallEffect::Refused,
                };
                let message = refused.as_ref().map_or_else(|| "no answer".to_owned(), |e| e.message.clone());
                Err(CallError { call, effect, aws_code: refused.map(|e| e.code), message })
            }
        }
    }
}

impl YearCloud {
    pub fn new(inner: Inner) -> Self {
        Self(Mutex::new(inner))
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query of numbered members.
#[derive(Default)]
struct Query(Map<String, Value>);

impl Query {
    fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), Value::from(value.into()));
        self
    }

    fn filter<T: AsRef<str>>(mut self, n: usize, name: &str, values: &[T]) -> Self {
        self = self.set(&format!("Filter.{n}.Name"), name);
        for (at, value) in values.iter().enumerate() {
            self = self.set(&format!("Filter.{n}.Value.{}", at + 1), value.as_ref());
        }
        self
    }

    fn tags(mut self, kind: &str, tags: &BTreeMap<String, String>) -> Self {
        self = self.set("TagSpecification.1.ResourceType", kind);
        for (at, (key, value)) in tags.iter().enumerate() {
            self = self.set(&format!("TagSpecification.1.Tag.{}.Key", at + 1), key.as_str());
            self = self.set(&format!("TagSpecification.1.Tag.{}.Value", at + 1), value.as_str());
        }
        self
    }

    fn body(self) -> Value {
        Value::Object(self.0)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn epoch(value: &Value) -> Option<Timestamp> {
    value.as_f64().map(|seconds| Timestamp(seconds.floor() as i64))
}

fn ec2_tags(row: &Value) -> BTreeMap<String, String> {
    row["tagSet"].as_array().into_iter().flatten().map(|t| (text(&t["key"]).to_owned(), text(&t["value"]).to_owned())).collect()
}

fn snapshot(region: &Region, s: &tde2hsm_model::ec2::Snapshot) -> Snapshot {
    let seconds = |at: Millis| Timestamp(at.0.div_euclid(1000));
    Snapshot {
        id: SnapshotId::new(s.id.as_str()).expect("a snapshot id"),
        region: region.clone(),
        volume: VolumeId::new(s.volume.as_str()).ok().filter(|v| v.as_str() != "vol-ffffffff"),
        size_gib: s.size_gib,
        state: match s.state {
            tde2hsm_model::ec2::SnapshotState::Pending => SnapshotState::Pending,
            tde2hsm_model::ec2::SnapshotState::Completed => SnapshotState::Completed,
            tde2hsm_model::ec2::SnapshotState::Error => SnapshotState::Error,
        },
        state_message: s.message.clone(),
        progress: None,
        started: seconds(s.started),
        started_ms: s.started.0.rem_euclid(1_000) as u16,
        completed: s.completed.map(seconds),
        encrypted: s.encrypted,
        kms_key: s.kms_key.as_ref().and_then(|key| KmsKeyArn::new(key.as_str()).ok()),
        completion_minutes: s.completion_minutes.and_then(|minutes| u16::try_from(minutes).ok()),
        archived: s.archived,
        description: s.description.clone(),
        tags: s.tags.iter().cloned().collect(),
    }
}

fn backup(region: &Region, row: &Value) -> HsmBackup {
    let tags = row["TagList"].as_array().into_iter().flatten();
    HsmBackup {
        id: BackupId::new(text(&row["BackupId"])).expect("a backup id"),
        region: region.clone(),
        cluster: ClusterId::new(text(&row["ClusterId"])).ok(),
        state: match text(&row["BackupState"]) {
            "CREATE_IN_PROGRESS" => BackupState::CreateInProgress,
            "READY" => BackupState::Ready,
            "DELETED" => BackupState::Deleted,
            "PENDING_DELETION" => BackupState::PendingDeletion,
            _ => BackupState::Unknown,
        },
        created: epoch(&row["CreateTimestamp"]),
        copied: epoch(&row["CopyTimestamp"]),
        source_backup: BackupId::new(text(&row["SourceBackup"])).ok(),
        source_region: Region::new(text(&row["SourceRegion"])).ok(),
        never_expires: row["NeverExpires"].as_bool(),
        deleted: epoch(&row["DeleteTimestamp"]),
        tags: tags.map(|t| (text(&t["Key"]).to_owned(), text(&t["Value"]).to_owned())).collect(),
    }
}

fn there(arn: &SecretArn, region: &Region) -> String {
    arn.as_str().replacen(arn.region().as_str(), region.as_str(), 1)
}

#[async_trait]
impl Cloud for YearCloud {
    async fn fleet_instances(&self, region: &Region, tag: &(String, String)) -> Result<Vec<FleetInstance>> {
        let query = Query::default().filter(1, &format!("tag:{}", tag.0), &[&tag.1]).filter(
            2,
            "instance-state-name",
            &["pending", "running", "stopping", "stopped"],
        );
        let reply = self.inner().ask(region, Service::Ec2, "DescribeInstances", &query.body())?;
        let rows = reply["reservationSet"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|r| r["instancesSet"].as_array().into_iter().flatten());
        Ok(rows
            .map(|row| FleetInstance {
                instance: InstanceId::new(text(&row["instanceId"])).expect("an instance id"),
                volumes: row["blockDeviceMapping"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|d| {
                        (text(&d["deviceName"]).to_owned(), VolumeId::new(text(&d["ebs"]["volumeId"])).expect("a volume id"))
                    })
                    .collect(),
                root_device: row["rootDeviceName"].as_str().map(str::to_owned),
                name: ec2_tags(row).remove("Name"),
                instance_profile: None,
            })
            .collect())
    }

    async fn instances_there(&self, region: &Region, ids: &[InstanceId]) -> Result<BTreeSet<InstanceId>> {
        let values: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let states = ["pending", "running", "stopping", "stopped"];
        let query = Query::default().filter(1, "instance-id", &values).filter(2, "instance-state-name", &states);
        let reply = self.inner().ask(region, Service::Ec2, "DescribeInstances", &query.body())?;
        let reservations = reply["reservationSet"].as_array().into_iter().flatten();
        let rows = reservations.flat_map(|r| r["instancesSet"].as_array().into_iter().flatten());
        Ok(rows.map(|row| InstanceId::new(text(&row["instanceId"])).expect("an instance id")).collect())
    }

    async fn snapshot(&self, region: &Region, id: &SnapshotId) -> Result<Option<Snapshot>> {
        Ok(self.snapshots(region, |s| s.id == id.as_str())?.pop())
    }

    async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>> {
        let volumes: BTreeSet<&str> = volumes.iter().map(|v| v.as_str()).collect();
        self.snapshots(region, |s| volumes.contains(s.volume.as_str()))
    }

    async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>> {
        self.snapshots(region, |s| s.tags.iter().any(|(have, value)| have == key && values.contains(value)))
    }

    async fn copies_in_flight(&self, region: &Region) -> Result<Vec<Snapshot>> {
        self.snapshots(region, |s| s.state == tde2hsm_model::ec2::SnapshotState::Pending && s.origin.is_some())
    }

    async fn copy_snapshot(&self, region: &Region, copy: &CopySnapshot) -> Result<SnapshotId> {
        let mut query = Query::default()
            .set("SourceRegion", copy.source_region.as_str())
            .set("SourceSnapshotId", copy.source.as_str())
            .set("Description", copy.description.as_str())
            .set("Encrypted", "true")
            .set("KmsKeyId", copy.kms_key.as_str())
            .tags("snapshot", &copy.tags);
        if let Some(minutes) = copy.completion_minutes {
            query = query.set("CompletionDurationMinutes", minutes.to_string());
        }
        let mut inner = self.inner();
        let (result, fate) = inner.call(region, Service::Ec2, "CopySnapshot", &query.body());
        match &result {
            Ok(reply) if !reply.is_null() => {
                inner.ledger.begun += 1;
                let made = text(&reply["snapshotId"]).to_owned();
                inner.ledger.ours.insert(made.clone());
                if let Some(minutes) = copy.completion_minutes {
                    let now = inner.now;
                    inner.ledger.bought.push((made, minutes.into(), now));
                    inner.overbought();
                }
            }
            Err(e) if e.code == inner.world.options.throughput_code => inner.ledger.unbought.push(copy.source.to_string()),
            Err(e) if e.code == "ResourceLimitExceeded" => inner.ledger.walls += 1,
            _ => {}
        }
        let reply = inner.answered(Service::Ec2, "CopySnapshot", result, fate)?;
        Ok(SnapshotId::new(text(&reply["snapshotId"])).expect("a snapshot id"))
    }

    async fn delete_snapshot(&self, region: &Region, id: &SnapshotId) -> Result<()> {
        let mut inner = self.inner();
        inner.deletes(id.as_str());
        if !inner.ledger.ours.contains(id.as_str()) || *region != inner.dr {
            inner.violations.push(format!("{id} of {region} is none of ours and was to be deleted"));
        }
        inner.ledger.deleted += 1;
        match inner.ask(region, Service::Ec2, "DeleteSnapshot", &json!({"SnapshotId": id.as_str()})) {
            Err(e) if e.is(&["InvalidSnapshot.NotFound"]) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn hsm_addresses(&self, region: &Region, cluster: &ClusterId) -> Result<Option<BTreeSet<String>>> {
        let body = json!({"Filters": {"clusterIds": [cluster.as_str()]}});
        let reply = self.inner().ask(region, Service::CloudHsm, "DescribeClusters", &body)?;
        let cluster = reply["Clusters"].get(0);
        Ok(cluster.map(|c| c["Hsms"].as_array().into_iter().flatten().map(|h| text(&h["EniIp"]).to_owned()).collect()))
    }

    async fn hsm_backups(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>> {
        self.backups(region, json!({"clusterIds": [cluster.as_str()]}))
    }

    async fn hsm_copies(&self, region: &Region, sources: &[BackupId]) -> Result<Vec<HsmBackup>> {
        let sources: Vec<&str> = sources.iter().map(|id| id.as_str()).collect();
        self.backups(region, json!({"sourceBackupIds": sources}))
    }

    async fn copy_hsm_backup(&self, region: &Region, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<()> {
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        let body = json!({"BackupId": id.as_str(), "DestinationRegion": to.as_str(), "TagList": tags});
        self.inner().ask(region, Service::CloudHsm, "CopyBackupToRegion", &body).map(drop)
    }

    async fn keep_hsm_backup(&self, region: &Region, id: &BackupId, never_expires: bool) -> Result<()> {
        let body = json!({"BackupId": id.as_str(), "NeverExpires": never_expires});
        self.inner().ask(region, Service::CloudHsm, "ModifyBackupAttributes", &body).map(drop)
    }

    async fn delete_hsm_backup(&self, region: &Region, id: &BackupId) -> Result<()> {
        let mut inner = self.inner();
        inner.deletes(id.as_str());
        if !inner.ledger.ours.contains(id.as_str()) || *region != inner.dr {
            inner.violations.push(format!("{id} of {region} is none of ours and was to be deleted"));
        }
        inner.ledger.deleted += 1;
        inner.ask(region, Service::CloudHsm, "DeleteBackup", &json!({"BackupId": id.as_str()})).map(drop)
    }

    async fn secret(&self, region: &Region, arn: &SecretArn) -> Result<Option<Secret>> {
        let here = there(arn, region);
        let mut inner = self.inner();
        let body = json!({"SecretId": here});
        let described = match inner.ask(region, Service::Secrets, "DescribeSecret", &body) {
            Err(e) if e.is(&["ResourceNotFoundException"]) => return Ok(None),
            answer => answer?,
        };
        let body = json!({"SecretId": here, "IncludeDeprecated": true});
        let listed = inner.ask(region, Service::Secrets, "ListSecretVersionIds", &body)?;
        let versions = listed["Versions"].as_array().into_iter().flatten().map(|row| SecretVersionFact {
            version: SecretVersion::new(text(&row["VersionId"])).expect("a version"),
            stages: row["VersionStages"].as_array().into_iter().flatten().map(|s| text(s).to_owned()).collect(),
            created: epoch(&row["CreatedDate"]),
        });
        let key = described["KmsKeyId"].as_str().unwrap_or("alias/aws/secretsmanager").to_owned();
        let found = (*region == inner.dr).then(|| inner.ask(region, Service::Kms, "DescribeKey", &json!({"KeyId": key})));
        let kms_key = found.transpose()?.and_then(|found| KmsKeyArn::new(text(&found["KeyMetadata"]["Arn"])).ok());
        let replicas = described["ReplicationStatus"].as_array().into_iter().flatten();
        Ok(Some(Secret {
            arn: SecretArn::new(text(&described["ARN"])).expect("an ARN"),
            region: region.clone(),
            versions: versions.collect(),
            replicas: replicas.map(|row| Region::new(text(&row["Region"])).expect("a region")).collect(),
            deleted: false,
            kms_key,
        }))
    }

    async fn stage_secret(
        &self,
        region: &Region,
        arn: &SecretArn,
        stage: &str,
        from: Option<&SecretVersion>,
        to: Option<&SecretVersion>,
    ) -> Result<()> {
        let mut body = json!({"SecretId": there(arn, region), "VersionStage": stage});
        if let Some(from) = from {
            body["RemoveFromVersionId"] = from.as_str().into();
        }
        if let Some(to) = to {
            body["MoveToVersionId"] = to.as_str().into();
        }
        self.inner().ask(region, Service::Secrets, "UpdateSecretVersionStage", &body).map(drop)
    }

    async fn kms_key(&self, region: &Region, arn: &KmsKeyArn) -> Result<KmsKey> {
        let answer = self.inner().ask(region, Service::Kms, "DescribeKey", &json!({"KeyId": arn.as_str()}));
        let state = match answer {
            Ok(reply) => match text(&reply["KeyMetadata"]["KeyState"]) {
                "Enabled" => KmsState::Enabled,
                "Disabled" => KmsState::Disabled,
                "PendingDeletion" => KmsState::PendingDeletion,
                _ => KmsState::Unknown,
            },
            Err(e) if e.is(&["NotFoundException"]) => KmsState::NotFound,
            Err(e) if e.is(&["AccessDeniedException"]) => KmsState::Unknown,
            Err(e) => return Err(e),
        };
        Ok(KmsKey { arn: arn.clone(), state })
    }

    async fn send_survey(&self, _region: &Region, command: &SurveyCommand<'_>) -> Result<String> {
        let mut inner = self.inner();
        let caller = inner.as_function();
        let admitted = inner.world.admit(&caller, Service::Ssm, "SendCommand");
        let (result, fate) = match admitted {
            _ if inner.away => {
                return Err(CallError {
                    call: "ssm:SendCommand".into(),
                    effect: CallEffect::Ambiguous,
                    aws_code: None,
                    message: "no answer".into(),
                });
            }
            Ok(fate) => (Ok(Value::Null), fate),
            Err(None) => (Ok(Value::Null), Fate::Lost),
            Err(Some(e)) => (Err(e), Fate::Delivered),
        };
        let id = inner.world.ids.uuid();
        if result.is_ok() {
            let order = Order::decode(command.order).expect("an order that a host understands");
            let now = inner.now;
            let hosts: Vec<(String, Millis)> =
                command.instances.iter().map(|i| (i.to_string(), now.plus_ms(inner.world.ids.between(2_000, 60_000)))).collect();
            let hosts = hosts.into_iter().map(|(instance, at)| (instance, (at, None))).collect();
            let token = command.token.to_string();
            inner.commands.insert(id.clone(), Command { token, sent: now, order, hosts });
        }
        inner.answered(Service::Ssm, "SendCommand", result, fate)?;
        Ok(id)
    }

    async fn find_survey(
        &self,
        _region: &Region,
        _document: &DocumentPin,
        token: &OrderToken,
        since: Timestamp,
    ) -> Result<Vec<String>> {
        let inner = self.inner();
        let fits = |c: &Command| c.token == token.as_str() && c.sent.0 / 1000 >= since.0;
        Ok(inner.commands.iter().filter(|(_, c)| fits(c)).map(|(id, _)| id.clone()).collect())
    }

    async fn read_survey(&self, _region: &Region, command: &str) -> Result<Vec<HostAnswer>> {
        let inner = self.inner();
        let hosts = inner.commands.get(command).into_iter().flat_map(|c| &c.hosts);
        Ok(hosts
            .map(|(instance, (_, answer))| HostAnswer {
                instance: InstanceId::new(instance.as_str()).expect("an instance id"),
                over: answer.is_some(),
                details: answer.as_ref().map_or_else(|| "InProgress".to_owned(), |a| a.details.clone()),
                output: answer.as_ref().and_then(|a| a.output.clone()),
            })
            .collect())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut inner = self.inner();
        inner.s3("ListObjectsV2")?;
        let found = inner.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(found
            .map(|(key, stored)| ObjectInfo { key: key.clone(), etag: stored.etag.clone(), modified: stored.modified })
            .collect())
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let mut inner = self.inner();
        inner.s3("GetObject")?;
        Ok(inner.objects.get(key).map(|stored| Object {
            key: key.to_owned(),
            body: stored.body.clone(),
            etag: stored.etag.clone(),
            modified: stored.modified,
        }))
    }

    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote> {
        let mut inner = self.inner();
        let fate = inner.s3("PutObject")?;
        let old = inner.objects.get(key).map(|stored| stored.etag.clone());
        let fits = match when {
            Put::New => old.is_none(),
            Put::Over(etag) => old.as_ref() == Some(etag),
        };
        if !fits {
            return Ok(Wrote::Lost);
        }
        inner.write(key, body.to_vec());
        if fate == Fate::Lost {
            return Err(CallError {
                call: "s3:PutObject".into(),
                effect: CallEffect::Ambiguous,
                aws_code: None,
                message: "no answer".into(),
            });
        }
        Ok(Wrote::Yes(inner.objects[key].etag.clone()))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut inner = self.inner();
        inner.s3("DeleteObject")?;
        inner.objects.remove(key);
        Ok(())
    }

    async fn publish(&self, subject: &str, message: &str) -> Result<()> {
        let mut inner = self.inner();
        let region = inner.dr.clone();
        let body = json!({"TopicArn": inner.topic, "Subject": subject, "Message": message});
        inner.ask(&region, Service::Sns, "Publish", &body).map(drop)
    }
}

impl YearCloud {
    /// DescribeSnapshots without its JSON: the year calls it ten thousand times, and the model's own tests hold the two
    /// together.
    fn snapshots(&self, region: &Region, wanted: impl Fn(&tde2hsm_model::ec2::Snapshot) -> bool) -> Result<Vec<Snapshot>> {
        let mut inner = self.inner();
        let caller = inner.as_function();
        let admitted = if inner.away && *region == inner.source {
            Err(None)
        } else {
            inner.world.admit(&caller, Service::Ec2, "DescribeSnapshots")
        };
        let (result, fate) = match admitted {
            Ok(fate) => (Ok(Value::Null), fate),
            Err(None) => (Ok(Value::Null), Fate::Lost),
            Err(Some(e)) => (Err(e), Fate::Delivered),
        };
        inner.answered(Service::Ec2, "DescribeSnapshots", result, fate)?;
        let now = inner.now;
        let state = inner.world.region(&model(region)).expect("a region");
        Ok(state.ec2.snapshots.visible(now).filter(|s| wanted(s)).map(|s| snapshot(region, s)).collect())
    }

    fn backups(&self, region: &Region, filters: Value) -> Result<Vec<HsmBackup>> {
        let mut found = Vec::new();
        let mut body = json!({"Filters": filters, "MaxResults": 50});
        loop {
            let reply = self.inner().ask(region, Service::CloudHsm, "DescribeBackups", &body)?;
            found.extend(reply["Backups"].as_array().into_iter().flatten().map(|row| backup(region, row)));
            let Some(token) = reply.get("NextToken") else { return Ok(found) };
            body["NextToken"] = token.clone();
        }
    }
}

/// Copies of a source that are complete and ours or anybody's, as the model has them and whatever their tags say.
pub fn copies_of<'a>(world: &'a World, dr: &Region, source: &'a str) -> impl Iterator<Item = &'a tde2hsm_model::ec2::Snapshot> {
    let all = world.region(&model(dr)).into_iter().flat_map(|r| r.ec2.snapshots.all());
    all.filter(move |s| {
        s.state == tde2hsm_model::ec2::SnapshotState::Completed
            && !s.archived
            && s.origin.as_ref().is_some_and(|origin| origin.snapshot == source)
    })
}
