//! Two regions in memory, in virtual time, and a fuse that breaks any one call.

#![allow(dead_code, reason = "each test file uses its part of it")]

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tde2hsm_dr::facts::*;
use tde2hsm_dr::points::{SecretRole, SecretUse};
use tde2hsm_dr_driver::{Outcome, *};
use tde2hsm_protocol::survey::{Os, Provider, Survey};
use tde2hsm_protocol::*;
use tokio::sync::Notify;

pub const START: Timestamp = Timestamp(1_795_600_000);
pub const VERSION: &str = "11111111-1111-1111-1111-111111111111";

pub fn source() -> Region {
    Region::new("eu-central-1").unwrap()
}
pub fn dr() -> Region {
    Region::new("eu-west-1").unwrap()
}
pub fn cluster() -> ClusterId {
    ClusterId::new("cluster-abcdefghijk").unwrap()
}
pub fn instance(n: usize) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).unwrap()
}
pub fn volume(host: usize, n: usize) -> VolumeId {
    VolumeId::new(format!("vol-{:017x}", host * 16 + n)).unwrap()
}
pub fn snapshot_id(n: usize) -> SnapshotId {
    SnapshotId::new(format!("snap-{n:017x}")).unwrap()
}
pub fn backup_id(n: usize) -> BackupId {
    let letters: String = format!("{n:011}").bytes().map(|b| char::from(b'a' + (b - b'0'))).collect();
    BackupId::new(format!("backup-{letters}")).unwrap()
}
pub fn secret_arn() -> SecretArn {
    SecretArn::new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/hsm-AbCdEf").unwrap()
}
pub fn key() -> KmsKeyArn {
    KmsKeyArn::new("arn:aws:kms:eu-west-1:123456789012:key/0f1e2d3c-0000-4000-8000-0123456789ab").unwrap()
}

pub fn config() -> DrConfig {
    DrConfig {
        account: AccountId::new("123456789012").unwrap(),
        fleet: "demo".to_owned(),
        fleet_tag: ("tde2hsm".to_owned(), "demo".to_owned()),
        source_region: source(),
        dr_region: dr(),
        cluster: cluster(),
        kms_key: key(),
        records_bucket: "records".to_owned(),
        secrets: vec![SecretUse { secret: secret_arn(), role: SecretRole::CryptoUser, of: None }],
        rpo_minutes: 1_440,
        copies_in_flight: 20,
        timed: tde2hsm_dr::copying::Timed::Never,
        retention: "hourly=8,daily=14,weekly=5,monthly=12".parse().unwrap(),
        hsm_backup_retention_days: 90,
        retired: BTreeSet::new(),
        topic: Some("arn:aws:sns:eu-west-1:123456789012:alarms".to_owned()),
        document: Some(DocumentPin { name: "tde2hsm-run".to_owned(), version: "3".to_owned(), hash: Digest::of(b"document") }),
        expiry: Expiry::Delete,
    }
}

/// What happens to one call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The program ends before it.
    Before,
    /// The program ends after it.
    After,
    /// It is done and its answer is lost.
    LostReply,
    /// It is not done, and nobody can tell.
    LostCall,
}

#[derive(Debug, Default)]
pub struct World {
    pub now: Timestamp,
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    pub backups: BTreeMap<BackupId, HsmBackup>,
    pub secrets: BTreeMap<Region, Secret>,
    pub instances: Vec<FleetInstance>,
    /// Instances that lost the fleet's tag.
    pub untagged: BTreeSet<InstanceId>,
    pub objects: BTreeMap<String, (Vec<u8>, u64, Timestamp)>,
    pub published: Vec<(String, String)>,
    /// Calls that changed something, in their order.
    pub effects: Vec<String>,
    pub copy_calls: BTreeMap<SnapshotId, u32>,
    pub hsm_copy_calls: BTreeMap<BackupId, u32>,
    /// When each snapshot or backup can be seen in lists.
    pub visible: BTreeMap<String, Timestamp>,
    /// Seconds that lists are behind.
    pub lag: i64,
    /// Seconds that a copy takes.
    pub takes: i64,
    /// Copies of these sources end in error, so many times.
    pub fails: BTreeMap<SnapshotId, u32>,
    /// Places in the DR region.
    pub places: usize,
    /// Sources that nobody may copy.
    pub forbidden: BTreeSet<SnapshotId>,
    /// With this word copies that are to be done by a time are refused: the throughput is used up.
    pub throughput: Option<&'static str>,
    /// Minutes that each copy was asked for in.
    pub minutes: BTreeMap<SnapshotId, Option<u16>>,
    /// Regions that do not answer.
    pub away: BTreeSet<Region>,
    /// Regions that take a question and never answer it.
    pub hangs: BTreeSet<Region>,
    /// How long a region takes to answer.
    pub takes_its_time: BTreeMap<Region, std::time::Duration>,
    /// Snapshots under a lock.
    pub locked: BTreeSet<SnapshotId>,
    /// Secrets that nobody answers for.
    pub stuck: BTreeSet<SecretArn>,
    /// Calls that nobody may make.
    pub denied: BTreeSet<String>,
    /// Every call to a region, in their order.
    pub asked: Vec<(Region, String)>,
    pub records_away: bool,
    /// How many objects were read.
    pub gets: usize,
    pub topic_away: bool,
    /// Commands: token, when, and the answers to be.
    pub commands: BTreeMap<String, (OrderToken, Timestamp, Vec<HostAnswer>)>,
    pub silent: BTreeSet<InstanceId>,
    /// Hosts whose agent SSM does not know.
    pub unmanaged: BTreeSet<InstanceId>,
    /// Seconds that a host's clock is ahead.
    pub clocks: BTreeMap<InstanceId, i64>,
    /// Seconds that a host takes to answer.
    pub slow: i64,
    /// Seconds that AWS's clock is ahead of ours.
    pub aws_ahead: i64,
    /// AWS knows these commands no more.
    pub forgotten: BTreeSet<String>,
    /// What each host answered last, for the pieces.
    details: BTreeMap<InstanceId, Vec<u8>>,
    made: usize,
    writes: u64,
    fuse: Option<(usize, Break)>,
    passed: usize,
}

#[derive(Default)]
pub struct Memory {
    world: Mutex<World>,
    pub blown: Notify,
    remembered: Remembered,
}

fn error(call: &str, effect: Effect, code: Option<&str>, message: &str) -> CallError {
    CallError { call: call.to_owned(), effect, aws_code: code.map(str::to_owned), message: message.to_owned() }
}

impl Memory {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two hosts with a root and a data volume, one set each an hour old, one HSM backup of two hours ago.
    pub fn new() -> Memory {
        let memory = Memory::default();
        {
            let mut world = memory.world();
            world.now = START;
            world.takes = 1_200;
            world.places = 20;
            for host in 0..2 {
                world.instances.push(FleetInstance {
                    instance: instance(host),
                    volumes: BTreeMap::from([
                        ("/dev/xvda".to_owned(), volume(host, 0)),
                        ("/dev/sdf".to_owned(), volume(host, 1)),
                    ]),
                    root_device: Some("/dev/xvda".to_owned()),
                    name: None,
                    instance_profile: Some("oracle".to_owned()),
                });
            }
            world.add_sets(START.plus(-3_600));
            world.add_backup(START.plus(-7_200));
            let version = SecretVersion::new(VERSION).unwrap();
            let stages = BTreeSet::from(["AWSCURRENT".to_owned()]);
            let versions = vec![SecretVersionFact { version, stages, created: Some(START.plus(-86_400)) }];
            for region in [source(), dr()] {
                let text = secret_arn().to_string().replace("eu-central-1", region.as_str());
                let arn = SecretArn::new(text).unwrap();
                let secret = Secret {
                    arn,
                    region: region.clone(),
                    versions: versions.clone(),
                    replicas: BTreeSet::from([dr()]),
                    deleted: false,
                    kms_key: (region == dr()).then(key),
                };
                world.secrets.insert(region, secret);
            }
        }
        memory
    }

    pub fn set_fuse(&self, fuse: Option<(usize, Break)>) {
        let mut world = self.world();
        world.fuse = fuse;
        world.passed = 0;
    }

    pub fn passed(&self) -> usize {
        self.world().passed
    }

    /// Does one thing that changes the world, unless the fuse breaks it.
    async fn effect<T>(&self, call: &str, what: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let (answer, broken) = {
            let mut world = self.world();
            world.passed += 1;
            let broken = world.fuse.filter(|(at, _)| *at == world.passed).map(|(_, how)| how);
            if broken.is_some() {
                world.fuse = None;
            }
            match broken {
                Some(Break::Before) => (None, broken),
                Some(Break::LostCall) => (Some(Err(error(call, Effect::Ambiguous, None, "no answer"))), None),
                Some(Break::LostReply) => {
                    world.effects.push(call.to_owned());
                    let _ = what(&mut world);
                    (Some(Err(error(call, Effect::Ambiguous, None, "no answer"))), None)
                }
                _ => {
                    world.effects.push(call.to_owned());
                    (Some(what(&mut world)), broken)
                }
            }
        };
        if broken.is_some() {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
        answer.expect("only a broken call has no answer")
    }

    async fn reach(&self, region: &Region, call: &str) -> Result<()> {
        let (hangs, takes) = {
            let mut world = self.world();
            world.asked.push((region.clone(), call.to_owned()));
            (world.hangs.contains(region), world.takes_its_time.get(region).copied())
        };
        if let Some(takes) = takes {
            tokio::time::sleep(takes).await;
        }
        if hangs {
            std::future::pending::<()>().await;
        }
        let world = self.world();
        if world.denied.contains(call) {
            return Err(error(call, Effect::Refused, Some("AccessDenied"), "not authorized to perform it"));
        }
        if world.away.contains(region) { Err(error(call, Effect::Ambiguous, None, "timed out")) } else { Ok(()) }
    }

    fn reach_records(&self, call: &str) -> Result<()> {
        let world = self.world();
        if world.records_away { Err(error(call, Effect::Ambiguous, None, "timed out")) } else { Ok(()) }
    }

    /// One tick of every job.
    pub async fn tick(&self, config: &DrConfig) -> BTreeMap<Job, Outcome> {
        let mut outcomes = BTreeMap::new();
        for job in Job::ALL {
            let now = self.world().now;
            outcomes.insert(job, run(job, now, config, self, &Hint::Tick).await);
        }
        outcomes
    }

    pub fn pass(&self, seconds: i64) {
        let mut world = self.world();
        world.now = world.now.plus(seconds);
        world.settle();
    }

    /// What a rotation does to a secret, and what AWS then does with a version that nothing holds.
    pub fn rotate(&self, n: u32) {
        let mut world = self.world();
        let now = world.now;
        for secret in world.secrets.values_mut() {
            for version in &mut secret.versions {
                version.stages.remove("AWSPREVIOUS");
                if version.stages.remove("AWSCURRENT") {
                    version.stages.insert("AWSPREVIOUS".to_owned());
                }
            }
            secret.versions.retain(|version| !version.stages.is_empty());
            secret.versions.push(SecretVersionFact {
                version: SecretVersion::new(VERSION.replace('1', &n.to_string())).unwrap(),
                stages: BTreeSet::from(["AWSCURRENT".to_owned()]),
                created: Some(now),
            });
        }
    }

    /// Ticks every quarter of an hour.
    pub async fn ticks(&self, config: &DrConfig, times: usize) -> BTreeMap<Job, Outcome> {
        let mut last = BTreeMap::new();
        for _ in 0..times {
            last = self.tick(config).await;
            self.pass(900);
        }
        last
    }
}

impl World {
    pub fn add_sets(&mut self, at: Timestamp) {
        for host in 0..self.instances.len() {
            for (n, volume) in self.instances[host].volumes.clone().into_values().enumerate() {
                self.made += 1;
                let snapshot = Snapshot {
                    id: snapshot_id(self.made),
                    region: source(),
                    volume: Some(volume),
                    size_gib: 8 + n as u32,
                    state: SnapshotState::Completed,
                    state_message: None,
                    progress: Some(100),
                    started: at,
                    started_ms: 137,
                    completed: Some(at.plus(60)),
                    encrypted: true,
                    kms_key: None,
                    archived: false,
                    completion_minutes: None,
                    description: String::new(),
                    tags: BTreeMap::new(),
                };
                self.snapshots.insert(snapshot.id.clone(), snapshot);
            }
        }
    }

    pub fn add_backup(&mut self, at: Timestamp) -> BackupId {
        self.made += 1;
        let id = backup_id(self.made);
        let backup = HsmBackup {
            id: id.clone(),
            region: source(),
            cluster: Some(cluster()),
            state: BackupState::Ready,
            created: Some(at),
            copied: None,
            source_backup: None,
            source_region: None,
            never_expires: Some(false),
            deleted: None,
            tags: BTreeMap::new(),
        };
        self.backups.insert(id.clone(), backup);
        id
    }

    /// What time does to copies.
    fn settle(&mut self) {
        let now = self.now;
        let takes = self.takes;
        for snapshot in self.snapshots.values_mut().filter(|s| s.region == dr() && s.state == SnapshotState::Pending) {
            if now.since(snapshot.started) < takes {
                continue;
            }
            let source = SnapshotId::new(snapshot.tags[tag::SOURCE_SNAPSHOT].clone()).unwrap();
            match self.fails.get_mut(&source).filter(|left| **left > 0) {
                Some(left) => {
                    *left -= 1;
                    snapshot.state = SnapshotState::Error;
                    snapshot.state_message = Some("Given key ID is not accessible".to_owned());
                }
                None => {
                    snapshot.state = SnapshotState::Completed;
                    snapshot.completed = Some(now);
                }
            }
        }
        for backup in self.backups.values_mut().filter(|b| b.region == dr() && b.state == BackupState::CreateInProgress) {
            if backup.copied.is_some_and(|copied| now.since(copied) >= takes) {
                backup.state = BackupState::Ready;
            }
        }
    }

    fn seen(&self, id: &str) -> bool {
        self.visible.get(id).is_none_or(|at| *at <= self.now)
    }

    pub fn copies(&self) -> Vec<&Snapshot> {
        self.snapshots.values().filter(|snapshot| snapshot.region == dr()).collect()
    }

    pub fn hsm_copies(&self) -> Vec<&HsmBackup> {
        self.backups.values().filter(|backup| backup.region == dr()).collect()
    }

    pub fn record(&self, key: &str) -> serde_json::Value {
        serde_json::from_slice(&self.objects[key].0).unwrap()
    }

    fn write(&mut self, key: &str, body: &[u8]) -> String {
        self.writes += 1;
        self.objects.insert(key.to_owned(), (body.to_vec(), self.writes, self.now));
        format!("\"{}\"", self.writes)
    }

    fn answer(&mut self, order: &Order, host: &HostOrder) -> HostAnswer {
        let clock = self.now.plus(self.clocks.get(&host.instance).copied().unwrap_or(0));
        let mut report = Report {
            v: PROTOCOL_VERSION,
            instance: host.instance.clone(),
            campaign: order.campaign.clone(),
            generation: order.generation,
            operation: host.operation.clone(),
            at: self.now,
            outcome: Outcome_::Done,
            step: None,
            message: String::new(),
            databases: Vec::new(),
            logins: Vec::new(),
            journal_head: Digest::ZERO,
            saw: None,
            detail: None,
            chunk: None,
            omitted: 0,
        };
        match order.work {
            _ if clock < order.not_before || clock >= order.not_after => report.outcome = Outcome_::Expired,
            Work::Survey => {
                let survey = survey(&host.instance, clock);
                let detail = wire::deflate(&serde_json::to_vec(&survey).unwrap());
                report.detail = Some(DetailRef::of(&detail));
                self.details.insert(host.instance.clone(), detail);
            }
            Work::Fetch { chunk } => {
                let detail = &self.details[&host.instance];
                assert_eq!(host.detail, Some(DetailRef::of(detail).digest));
                report.chunk = Chunk::of(detail, chunk);
            }
            other => panic!("nothing but surveys is ordered: {other:?}"),
        }
        HostAnswer { instance: host.instance.clone(), over: true, details: "Success".to_owned(), output: Some(report.encode()) }
    }
}

use tde2hsm_protocol::Outcome as Outcome_;

/// A host without databases whose survey does not fit into one piece.
fn survey(instance: &InstanceId, at: Timestamp) -> Survey {
    let os = Os { id: "ol".into(), version: "8.9".into(), arch: "x86_64".into(), kernel: "5.15".into(), systemd: true };
    let provider = Provider {
        libraries: vec![],
        mapped: vec![],
        packages: (0..120).map(|n| format!("cloudhsm-{}", Digest::of(format!("{n}").as_bytes()))).collect(),
        cloudhsm_mapped: false,
        vendor: None,
        cloudhsm_servers: None,
    };
    Survey {
        v: 1,
        taken_at: at,
        instance: instance.clone(),
        account: AccountId::new("123456789012").unwrap(),
        region: source(),
        runner_version: "0.1.0".into(),
        os,
        clusterware: false,
        autostarts: vec![],
        provider,
        filesystems: vec![],
        databases: vec![],
        unreadable: vec![],
        files: Some(vec![]),
        mounts: vec![],
    }
}

#[async_trait]
impl Cloud for Memory {
    async fn fleet_instances(&self, region: &Region, _tag: &(String, String)) -> Result<Vec<FleetInstance>> {
        self.reach(region, "ec2:DescribeInstances").await?;
        let world = self.world();
        Ok(world.instances.iter().filter(|one| !world.untagged.contains(&one.instance)).cloned().collect())
    }

    async fn instances_there(&self, region: &Region, ids: &[InstanceId]) -> Result<BTreeSet<InstanceId>> {
        self.reach(region, "ec2:DescribeInstances").await?;
        let world = self.world();
        Ok(world.instances.iter().map(|one| one.instance.clone()).filter(|id| ids.contains(id)).collect())
    }

    async fn snapshot(&self, region: &Region, id: &SnapshotId) -> Result<Option<Snapshot>> {
        self.reach(region, "ec2:DescribeSnapshots").await?;
        let world = self.world();
        Ok(world.snapshots.get(id).filter(|found| found.region == *region && world.seen(id.as_str())).cloned())
    }

    async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>> {
        self.reach(region, "ec2:DescribeSnapshots").await?;
        let world = self.world();
        let of = |found: &&Snapshot| found.region == *region && found.volume.as_ref().is_some_and(|v| volumes.contains(v));
        Ok(world.snapshots.values().filter(of).cloned().collect())
    }

    async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>> {
        self.reach(region, "ec2:DescribeSnapshots").await?;
        let world = self.world();
        let of = |found: &&Snapshot| {
            found.region == *region && found.tags.get(key).is_some_and(|v| values.contains(v)) && world.seen(found.id.as_str())
        };
        Ok(world.snapshots.values().filter(of).cloned().collect())
    }

    async fn copies_in_flight(&self, region: &Region) -> Result<Vec<Snapshot>> {
        self.reach(region, "ec2:DescribeSnapshots").await?;
        let world = self.world();
        Ok(world.copies().into_iter().filter(|copy| copy.state == SnapshotState::Pending).cloned().collect())
    }

    async fn copy_snapshot(&self, region: &Region, copy: &CopySnapshot) -> Result<SnapshotId> {
        self.reach(region, "ec2:CopySnapshot").await?;
        assert_eq!(*region, dr(), "CopySnapshot is called where the copy is to lie");
        self.effect("ec2:CopySnapshot", |world| {
            let key = format!("copies/{}.json", copy.source);
            let record = String::from_utf8(world.objects[&key].0.clone()).unwrap();
            assert!(record.contains(&copy.tags[tag::TOKEN]), "the intent is recorded before the call");
            let pending = world.copies().iter().filter(|copy| copy.state == SnapshotState::Pending).count();
            if pending >= world.places {
                let text = "Too many snapshot copies in progress";
                return Err(error("ec2:CopySnapshot", Effect::Refused, Some("ResourceLimitExceeded"), text));
            }
            if world.forbidden.contains(&copy.source) {
                let code = Some("OperationNotPermitted");
                return Err(error("ec2:CopySnapshot", Effect::Refused, code, "The snapshot may not be copied"));
            }
            if let (Some(code), Some(_)) = (world.throughput, copy.completion_minutes) {
                return Err(error("ec2:CopySnapshot", Effect::Refused, Some(code), "The copy throughput is used up"));
            }
            *world.copy_calls.entry(copy.source.clone()).or_default() += 1;
            world.minutes.insert(copy.source.clone(), copy.completion_minutes);
            world.made += 1;
            let id = snapshot_id(0x1000 + world.made);
            let of = world.snapshots[&copy.source].clone();
            world.visible.insert(id.to_string(), world.now.plus(world.lag));
            let made = Snapshot {
                id: id.clone(),
                region: dr(),
                volume: None,
                state: SnapshotState::Pending,
                progress: Some(0),
                started: world.now,
                completed: None,
                completion_minutes: copy.completion_minutes,
                kms_key: Some(copy.kms_key.clone()),
                tags: copy.tags.clone(),
                ..of
            };
            world.snapshots.insert(id.clone(), made);
            Ok(id)
        })
        .await
    }

    async fn delete_snapshot(&self, region: &Region, id: &SnapshotId) -> Result<()> {
        self.reach(region, "ec2:DeleteSnapshot").await?;
        if self.world().locked.contains(id) {
            return Err(error("ec2:DeleteSnapshot", Effect::Refused, Some("OperationNotPermitted"), "the snapshot is locked"));
        }
        self.effect("ec2:DeleteSnapshot", |world| {
            let gone = world.snapshots.remove(id);
            assert!(gone.is_none_or(|gone| gone.region == dr()), "nothing of the source region is ever deleted");
            Ok(())
        })
        .await
    }

    async fn hsm_addresses(&self, region: &Region, _cluster: &ClusterId) -> Result<Option<BTreeSet<String>>> {
        self.reach(region, "cloudhsmv2:DescribeClusters").await?;
        Ok(Some(BTreeSet::from(["10.0.1.5".to_owned()])))
    }

    async fn hsm_backups(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>> {
        self.reach(region, "cloudhsmv2:DescribeBackups").await?;
        let world = self.world();
        let of = |b: &&HsmBackup| b.region == *region && b.cluster.as_ref() == Some(cluster) && world.seen(b.id.as_str());
        Ok(world.backups.values().filter(of).cloned().collect())
    }

    async fn hsm_copies(&self, region: &Region, sources: &[BackupId]) -> Result<Vec<HsmBackup>> {
        self.reach(region, "cloudhsmv2:DescribeBackups").await?;
        let world = self.world();
        let of = |b: &&HsmBackup| {
            b.region == *region && b.source_backup.as_ref().is_some_and(|s| sources.contains(s)) && world.seen(b.id.as_str())
        };
        Ok(world.backups.values().filter(of).cloned().collect())
    }

    async fn copy_hsm_backup(&self, region: &Region, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<()> {
        self.reach(region, "cloudhsmv2:CopyBackupToRegion").await?;
        assert_eq!((region, to), (&source(), &dr()), "CopyBackupToRegion is called in the source region");
        self.effect("cloudhsmv2:CopyBackupToRegion", |world| {
            *world.hsm_copy_calls.entry(id.clone()).or_default() += 1;
            world.made += 1;
            let of = world.backups[id].clone();
            let made = backup_id(world.made);
            world.visible.insert(made.to_string(), world.now.plus(world.lag));
            let copy = HsmBackup {
                id: made.clone(),
                region: dr(),
                state: BackupState::CreateInProgress,
                copied: Some(world.now),
                source_backup: Some(id.clone()),
                source_region: Some(source()),
                never_expires: None,
                tags: tags.clone(),
                ..of
            };
            world.backups.insert(made, copy);
            Ok(())
        })
        .await
    }

    async fn keep_hsm_backup(&self, region: &Region, id: &BackupId, never_expires: bool) -> Result<()> {
        self.reach(region, "cloudhsmv2:ModifyBackupAttributes").await?;
        self.effect("cloudhsmv2:ModifyBackupAttributes", |world| {
            world.backups.get_mut(id).unwrap().never_expires = Some(never_expires);
            Ok(())
        })
        .await
    }

    async fn delete_hsm_backup(&self, region: &Region, id: &BackupId) -> Result<()> {
        self.reach(region, "cloudhsmv2:DeleteBackup").await?;
        self.effect("cloudhsmv2:DeleteBackup", |world| {
            let found = world.backups.get_mut(id).unwrap();
            assert_eq!(found.region, dr(), "nothing of the source region is ever deleted");
            found.state = BackupState::PendingDeletion;
            Ok(())
        })
        .await
    }

    async fn secret(&self, region: &Region, arn: &SecretArn) -> Result<Option<Secret>> {
        self.reach(region, "secretsmanager:DescribeSecret").await?;
        if self.world().stuck.contains(arn) {
            std::future::pending::<()>().await;
        }
        Ok(self.world().secrets.get(region).cloned())
    }

    async fn stage_secret(
        &self,
        region: &Region,
        _arn: &SecretArn,
        stage: &str,
        from: Option<&SecretVersion>,
        to: Option<&SecretVersion>,
    ) -> Result<()> {
        self.reach(region, "secretsmanager:UpdateSecretVersionStage").await?;
        self.effect("secretsmanager:UpdateSecretVersionStage", |world| {
            for secret in world.secrets.values_mut() {
                for version in &mut secret.versions {
                    if Some(&version.version) == from {
                        version.stages.remove(stage);
                    }
                    if Some(&version.version) == to {
                        version.stages.insert(stage.to_owned());
                    }
                }
            }
            Ok(())
        })
        .await
    }

    async fn kms_key(&self, region: &Region, arn: &KmsKeyArn) -> Result<KmsKey> {
        self.reach(region, "kms:DescribeKey").await?;
        Ok(KmsKey { arn: arn.clone(), state: KmsState::Enabled })
    }

    async fn send_survey(&self, region: &Region, command: &SurveyCommand<'_>) -> Result<String> {
        self.reach(region, "ssm:SendCommand").await?;
        if let Some(bad) = command.instances.iter().find(|one| self.world().unmanaged.contains(*one)) {
            return Err(error(
                "ssm:SendCommand",
                Effect::Refused,
                Some("InvalidInstanceId"),
                &format!("not in a valid state: {bad}"),
            ));
        }
        let order = Order::decode(command.order).unwrap();
        assert_eq!(order.token, *command.token);
        assert!(command.instances.len() <= ORDER_HOSTS);
        self.effect("ssm:SendCommand", |world| {
            let id = format!("command-{}", world.commands.len());
            let hosts: Vec<&HostOrder> = order.hosts.iter().filter(|host| !world.silent.contains(&host.instance)).collect();
            let answers = hosts.into_iter().map(|host| world.answer(&order, host)).collect();
            let at = world.now.plus(world.aws_ahead);
            world.commands.insert(id.clone(), (order.token.clone(), at, answers));
            Ok(id)
        })
        .await
    }

    async fn find_survey(
        &self,
        region: &Region,
        _document: &DocumentPin,
        token: &OrderToken,
        since: Timestamp,
    ) -> Result<Vec<String>> {
        self.reach(region, "ssm:ListCommands").await?;
        let world = self.world();
        let of = |(_, (its, at, _)): &(&String, &(OrderToken, Timestamp, Vec<HostAnswer>))| its == token && *at >= since;
        Ok(world.commands.iter().filter(of).map(|(id, _)| id.clone()).collect())
    }

    async fn read_survey(&self, region: &Region, command: &str) -> Result<Vec<HostAnswer>> {
        self.reach(region, "ssm:ListCommandInvocations").await?;
        let world = self.world();
        if world.forgotten.contains(command) {
            return Err(error("ssm:ListCommandInvocations", Effect::Refused, Some("InvalidCommandId"), ""));
        }
        let (_, sent, answers) = &world.commands[command];
        let over = world.now.plus(world.aws_ahead).since(*sent) >= world.slow;
        Ok(answers.iter().map(|answer| HostAnswer { over: answer.over && over, ..answer.clone() }).collect())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.reach_records("s3:ListObjectsV2")?;
        let world = self.world();
        let below = world.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let info = |(key, (_, etag, modified)): (&String, &(Vec<u8>, u64, Timestamp))| ObjectInfo {
            key: key.clone(),
            etag: format!("\"{etag}\""),
            modified: *modified,
        };
        let found: Vec<ObjectInfo> = below.map(info).collect();
        self.remembered.listed(prefix, &found);
        Ok(found)
    }

    async fn get_listed(&self, key: &str) -> Result<Option<Object>> {
        self.remembered.or_read(self, key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        self.reach_records("s3:GetObject")?;
        let mut world = self.world();
        world.gets += 1;
        Ok(world.objects.get(key).map(|(body, etag, modified)| Object {
            key: key.to_owned(),
            body: body.clone(),
            etag: format!("\"{etag}\""),
            modified: *modified,
        }))
    }

    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote> {
        self.reach_records("s3:PutObject")?;
        self.effect("s3:PutObject", |world| {
            let there = world.objects.get(key).map(|(_, etag, _)| format!("\"{etag}\""));
            let fits = match when {
                Put::New => there.is_none(),
                Put::Over(etag) => there.as_ref() == Some(etag),
            };
            Ok(if fits { Wrote::Yes(world.write(key, body)) } else { Wrote::Lost })
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.reach_records("s3:DeleteObject")?;
        self.effect("s3:DeleteObject", |world| {
            world.objects.remove(key);
            Ok(())
        })
        .await
    }

    async fn publish(&self, subject: &str, message: &str) -> Result<()> {
        if self.world().topic_away {
            return Err(error("sns:Publish", Effect::Ambiguous, None, "timed out"));
        }
        if message.len() > 262_144 {
            return Err(error("sns:Publish", Effect::Refused, Some("InvalidParameter"), "Message too long"));
        }
        self.effect("sns:Publish", |world| {
            world.published.push((subject.to_owned(), message.to_owned()));
            Ok(())
        })
        .await
    }
}
