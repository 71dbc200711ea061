//! A drill that is broken off at each of its calls, before and after the call had its effect, and one that loses each
//! answer: whatever happened, it can be gone on with, spends one login, and is taken down to nothing.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use tde2hsm_dr::drill::{Action, Device, Egress, EgressTo, Place, PlaceFacts, Plan, Route, RouteTarget, tags};
use tde2hsm_dr::facts::{BackupState, FleetInstance, HsmBackup, KmsKey, Secret, SetId, Snapshot};
use tde2hsm_dr_driver::drill::*;
use tde2hsm_dr_driver::{
    CallError, Cloud, CopySnapshot, DocumentPin, Effect, HostAnswer, Object, ObjectInfo, Put, Result, SurveyCommand, Wrote,
};
use tde2hsm_protocol::{
    AccountId, BackupId, CampaignId, ClusterId, Code, DatabaseReport, Digest, DrillId, DrillRead, Generation, InstanceId,
    KmsKeyArn, Order, OrderToken, PROTOCOL_VERSION, Region, Report, Retriable, SecretArn, SecretRef, SecretVersion,
    SecurityGroupId, Sid, SnapshotId, SubnetId, Timestamp, Unread, VolumeId, Work,
};
use tokio::sync::Notify;

const PRODUCTION: &str = "cluster-aaaaaaaaaaa";

fn dr() -> Region {
    Region::new("us-west-2").unwrap()
}
fn drill_id() -> DrillId {
    DrillId::new("drill-0123456789abcdef").unwrap()
}
fn cluster_id(n: usize) -> ClusterId {
    ClusterId::new(format!("cluster-bbbbbbbbbb{}", ['b', 'c', 'd', 'e', 'f', 'g'][n])).unwrap()
}
fn host_id(n: usize) -> InstanceId {
    InstanceId::new(format!("i-00000000{n:08}0")).unwrap()
}
fn backup_id(letter: char) -> BackupId {
    BackupId::new(format!("backup-{}", letter.to_string().repeat(11))).unwrap()
}

/// How a call ends that the test has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The program ends before the call has an effect.
    CrashBefore,
    /// The call has its effect and the program ends without its answer.
    CrashAfter,
    /// The call has its effect and the answer is lost.
    LoseAnswer,
    /// The call never leaves.
    NotSent,
}

#[derive(Default)]
struct State {
    calls: usize,
    broken: Option<(usize, Break)>,
    names: Vec<&'static str>,
    now: i64,
    stopping: bool,
    objects: BTreeMap<String, (u64, Vec<u8>)>,
    etags: u64,
    clusters: Vec<Cluster>,
    images: Vec<(MadeImage, Tags)>,
    instances: Vec<(MadeInstance, Tags, String)>,
    volumes: Vec<(MadeVolume, Tags)>,
    backups: Vec<HsmBackup>,
    clusters_made: usize,
    commands: Vec<(String, Order)>,
    /// Operations that the host has carried out.
    operations: BTreeSet<String>,
    logins: usize,
    deleted: Vec<String>,
    /// Clusters are not listed before this much time has gone by since they were made.
    listed_after: i64,
    refuse: Option<(&'static str, &'static str)>,
    outcome: Option<(Code, DrillRead)>,
    open_route: bool,
    /// Where the restored cluster's group lets its members out to.
    cluster_egress: Option<EgressTo>,
}

struct Cluster {
    id: ClusterId,
    tags: Tags,
    made: i64,
    deleting: bool,
    hsm: Option<(String, bool)>,
}

struct Room {
    state: Mutex<State>,
    crashed: Notify,
}

enum Fate {
    Go,
    Hang,
    Lose,
}

impl Room {
    fn new() -> Room {
        let room = Room { state: Mutex::new(State::default()), crashed: Notify::new() };
        {
            let mut state = room.state();
            state.now = 1_800_000_000;
            state.listed_after = 3;
            // Production's own cluster lies in the same list and somebody has given it the drill's tag.
            let ours = tags("drill-0123456789abcdef", "demo");
            let hsm = Some(("hsm-production".to_owned(), false));
            state.clusters.push(Cluster {
                id: ClusterId::new(PRODUCTION).unwrap(),
                tags: ours,
                made: 0,
                deleting: false,
                hsm: hsm.clone(),
            });
            let other = tags("drill-ffffffffffffffff", "demo");
            state.clusters.push(Cluster { id: cluster_id(5), tags: other.clone(), made: 0, deleting: false, hsm });
            state.instances.push((MadeInstance { id: host_id(9), state: "running".to_owned() }, other.clone(), "x".to_owned()));
            state.volumes.push((MadeVolume { id: "vol-other".to_owned(), size_gib: 1, state: "available".to_owned() }, other));
            let copy = backup(backup_id('c'), ClusterId::new(PRODUCTION).unwrap(), Some(backup_id('s')));
            state.backups.push(copy);
        }
        room
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Logins spent and clusters made.
    fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.logins, state.clusters_made)
    }

    fn fate(&self, name: &'static str) -> Result<Fate> {
        let mut state = self.state();
        state.calls += 1;
        state.names.push(name);
        if let Some((refused, code)) = state.refuse
            && refused == name
        {
            return Err(error(name, Effect::Refused, Some(code)));
        }
        let chosen = state.broken.filter(|(at, _)| *at == state.calls).map(|(_, how)| how);
        match chosen {
            None => Ok(Fate::Go),
            Some(Break::CrashBefore | Break::CrashAfter) => Ok(Fate::Hang),
            Some(Break::LoseAnswer) => Ok(Fate::Lose),
            Some(Break::NotSent) => Err(error(name, Effect::NotSent, None)),
        }
    }

    /// One call: it may be broken before or after its effect.
    async fn call<T>(&self, name: &'static str, effect: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let before = matches!(self.state().broken, Some((_, Break::CrashBefore)));
        match self.fate(name)? {
            Fate::Go => effect(&mut self.state()),
            Fate::Lose => {
                let _ = effect(&mut self.state());
                Err(error(name, Effect::Ambiguous, None))
            }
            Fate::Hang => {
                if !before {
                    let _ = effect(&mut self.state());
                }
                self.crashed.notify_one();
                std::future::pending().await
            }
        }
    }
}

fn error(call: &str, effect: Effect, code: Option<&str>) -> CallError {
    CallError { call: call.to_owned(), effect, aws_code: code.map(str::to_owned), message: format!("{effect:?}") }
}

fn backup(id: BackupId, cluster: ClusterId, source: Option<BackupId>) -> HsmBackup {
    HsmBackup {
        id,
        region: dr(),
        cluster: Some(cluster),
        state: BackupState::Ready,
        created: Some(Timestamp(1_799_990_000)),
        copied: None,
        source_region: source.as_ref().map(|_| Region::new("us-east-1").unwrap()),
        source_backup: source,
        never_expires: None,
        deleted: None,
        tags: BTreeMap::new(),
    }
}

fn has(tags: &Tags, drill: &DrillId) -> bool {
    tags.get("tde2hsm:drill").is_some_and(|value| value == drill.as_str())
}

#[async_trait]
impl DrillCloud for Room {
    async fn place(&self, place: &Place) -> Result<PlaceFacts> {
        let place = place.clone();
        self.call("place", |state| {
            let group = SecurityGroupId::new("sg-00000000000000002").unwrap();
            let mut routes = vec![Route { destination: "10.9.0.0/16".to_owned(), target: RouteTarget::Local }];
            if state.open_route {
                routes.push(Route { destination: "10.0.0.0/16".to_owned(), target: RouteTarget::Other("pcx-1".to_owned()) });
            }
            let mut egress = vec![Egress { to: EgressTo::Group(group.clone()), ports: "443".to_owned() }];
            let of_cluster = state.cluster_egress.clone().filter(|_| place.security_group.as_str() == "sg-00000000000000003");
            egress.extend(of_cluster.map(|to| Egress { to, ports: "-1".to_owned() }));
            Ok(PlaceFacts {
                subnet: place.subnet,
                vpc: "vpc-1".to_owned(),
                availability_zone: "us-west-2a".to_owned(),
                assigns_public_addresses: false,
                routes,
                security_group: place.security_group,
                egress,
                endpoint_groups: BTreeSet::from([group]),
                endpoint_prefix_lists: BTreeSet::new(),
                production_profiles: Some(BTreeSet::new()),
            })
        })
        .await
    }
    async fn clusters(&self, drill: &DrillId) -> Result<Vec<MadeCluster>> {
        self.call("clusters", |state| {
            let (now, after) = (state.now, state.listed_after);
            state.clusters.retain(|cluster| !(cluster.deleting && cluster.hsm.is_none() && cluster.tags.is_empty()));
            let seen = state.clusters.iter_mut().filter(|c| has(&c.tags, drill) && now >= c.made + after);
            Ok(seen
                .map(|cluster| {
                    let hsms: Vec<MadeHsm> = cluster
                        .hsm
                        .iter()
                        .map(|(id, deleting)| MadeHsm {
                            id: id.clone(),
                            active: !deleting,
                            deleting: *deleting,
                            ip: Some("10.9.0.7".parse().unwrap()),
                        })
                        .collect();
                    let state = match (cluster.deleting, hsms.iter().any(|h| h.active)) {
                        (true, _) => ClusterState::Deleting,
                        (_, true) => ClusterState::Active,
                        _ => ClusterState::Ready,
                    };
                    // What is going is gone at the next look.
                    if cluster.hsm.as_ref().is_some_and(|(_, deleting)| *deleting) {
                        cluster.hsm = None;
                    }
                    if cluster.deleting {
                        cluster.tags.clear();
                    }
                    MadeCluster {
                        id: cluster.id.clone(),
                        state,
                        state_message: None,
                        security_group: Some(SecurityGroupId::new("sg-00000000000000003").unwrap()),
                        hsms,
                    }
                })
                .collect())
        })
        .await
    }
    async fn create_cluster(&self, backup: &BackupId, _: &Place, tags: &Tags) -> Result<ClusterId> {
        let (tags, from) = (tags.clone(), backup.clone());
        self.call("create_cluster", |state| {
            assert_eq!(from, backup_id('c'));
            let id = cluster_id(state.clusters_made);
            state.clusters_made += 1;
            let made = state.now;
            state.clusters.push(Cluster { id: id.clone(), tags, made, deleting: false, hsm: None });
            Ok(id)
        })
        .await
    }
    async fn create_hsm(&self, cluster: &ClusterId, zone: &str) -> Result<()> {
        assert_eq!(zone, "us-west-2a");
        let id = cluster.clone();
        self.call("create_hsm", |state| {
            let found = state.clusters.iter_mut().find(|c| c.id == id).unwrap();
            assert!(found.hsm.is_none(), "a second HSM");
            found.hsm = Some(("hsm-drill".to_owned(), false));
            // AWS makes a backup of its own whenever an HSM is added (A§4.5).
            state.backups.push(backup(backup_id('d'), id, None));
            Ok(())
        })
        .await
    }
    async fn delete_hsm(&self, cluster: &ClusterId, hsm: &str) -> Result<()> {
        let (id, hsm) = (cluster.clone(), hsm.to_owned());
        self.call("delete_hsm", |state| {
            state.deleted.push(format!("{id}/{hsm}"));
            let found = state.clusters.iter_mut().find(|c| c.id == id).unwrap();
            found.hsm = Some((hsm, true));
            Ok(())
        })
        .await
    }
    async fn delete_cluster(&self, cluster: &ClusterId) -> Result<()> {
        let id = cluster.clone();
        self.call("delete_cluster", |state| {
            state.deleted.push(id.to_string());
            let found = state.clusters.iter_mut().find(|c| c.id == id).unwrap();
            assert!(found.hsm.is_none(), "a cluster with an HSM cannot be deleted");
            found.deleting = true;
            Ok(())
        })
        .await
    }
    async fn images(&self, drill: &DrillId) -> Result<Vec<MadeImage>> {
        self.call("images", |state| Ok(state.images.iter().filter(|(_, t)| has(t, drill)).map(|(i, _)| i.clone()).collect()))
            .await
    }
    async fn register_image(&self, image: &NewImage<'_>) -> Result<String> {
        let (name, tags) = (image.name.to_owned(), image.tags.clone());
        assert_eq!((image.root_device, image.devices.len()), ("/dev/xvda", 2));
        self.call("register_image", |state| {
            if state.images.iter().any(|(found, _)| found.name == name) {
                return Err(error("register_image", Effect::Refused, Some("InvalidAMIName.Duplicate")));
            }
            let id = format!("ami-{}", state.images.len());
            state.images.push((MadeImage { id: id.clone(), name, state: "available".to_owned() }, tags));
            Ok(id)
        })
        .await
    }
    async fn deregister_image(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.call("deregister_image", |state| {
            state.deleted.push(id.clone());
            state.images.retain(|(image, _)| image.id != id);
            Ok(())
        })
        .await
    }
    async fn instances(&self, drill: &DrillId) -> Result<Vec<MadeInstance>> {
        self.call("instances", |state| {
            let seen = state.instances.iter().filter(|(_, t, _)| has(t, drill)).map(|(i, _, _)| i.clone()).collect();
            let gone: Vec<InstanceId> =
                state.instances.iter().filter(|(i, ..)| i.state == "shutting-down").map(|(i, ..)| i.id.clone()).collect();
            for id in gone {
                state.instances.retain(|(i, ..)| i.id != id);
                state.volumes.retain(|(v, t)| !(v.state == "in-use" && has(t, drill)));
            }
            Ok(seen)
        })
        .await
    }
    async fn run_instance(&self, new: &NewInstance<'_>) -> Result<InstanceId> {
        let (token, tags) = (new.client_token.to_owned(), new.tags.clone());
        assert_eq!(new.cluster_group.as_str(), "sg-00000000000000003");
        self.call("run_instance", |state| {
            if let Some((found, ..)) = state.instances.iter().find(|(_, _, t)| *t == token) {
                return Ok(found.id.clone());
            }
            let id = host_id(1);
            state.instances.push((MadeInstance { id: id.clone(), state: "running".to_owned() }, tags.clone(), token));
            state
                .volumes
                .push((MadeVolume { id: "vol-drill".to_owned(), size_gib: 8, state: "in-use".to_owned() }, tags.clone()));
            // One that does not go with its instance.
            state.volumes.push((MadeVolume { id: "vol-stray".to_owned(), size_gib: 8, state: "available".to_owned() }, tags));
            Ok(id)
        })
        .await
    }
    async fn terminate_instance(&self, id: &InstanceId) -> Result<()> {
        let id = id.clone();
        self.call("terminate_instance", |state| {
            state.deleted.push(id.to_string());
            for (instance, ..) in state.instances.iter_mut().filter(|(i, ..)| i.id == id) {
                instance.state = "shutting-down".to_owned();
            }
            Ok(())
        })
        .await
    }
    async fn managed(&self, _: &InstanceId) -> Result<bool> {
        self.call("managed", |_| Ok(true)).await
    }
    async fn volumes(&self, drill: &DrillId) -> Result<Vec<MadeVolume>> {
        self.call("volumes", |state| Ok(state.volumes.iter().filter(|(_, t)| has(t, drill)).map(|(v, _)| v.clone()).collect()))
            .await
    }
    async fn delete_volume(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.call("delete_volume", |state| {
            state.deleted.push(id.clone());
            state.volumes.retain(|(v, _)| v.id != id);
            Ok(())
        })
        .await
    }
}

/// What the host answers: one login for each operation, however often its order comes.
fn host_answers(state: &mut State, order: &Order) -> String {
    let host = &order.hosts[0];
    if matches!(order.work, Work::Run { .. }) && state.operations.insert(host.operation.to_string()) {
        state.logins += 1;
    }
    let read = DrillRead { rows: 40, tablespaces: 3, ..DrillRead::default() };
    let (code, read) = state.outcome.clone().map_or((None, read), |(code, read)| (Some(code), read));
    let outcome = match code {
        Some(code) => tde2hsm_protocol::Outcome::Failed { code, retriable: Retriable::No },
        None => tde2hsm_protocol::Outcome::Done,
    };
    Report {
        v: PROTOCOL_VERSION,
        instance: host.instance.clone(),
        campaign: CampaignId::new(order.campaign.as_str()).unwrap(),
        generation: Generation(1),
        operation: host.operation.clone(),
        at: Timestamp(state.now),
        outcome: outcome.clone(),
        step: None,
        message: code.map(|c| format!("host says {c}")).unwrap_or_default(),
        databases: vec![DatabaseReport {
            sid: Sid::new("ORCL").unwrap(),
            outcome,
            starts: 1,
            away: 0,
            keys: Vec::new(),
            orphans: 0,
            drill: Some(read),
        }],
        logins: Vec::new(),
        journal_head: Digest::ZERO,
        saw: None,
        detail: None,
        chunk: None,
        omitted: 0,
    }
    .encode()
}

#[async_trait]
impl Cloud for Room {
    async fn hsm_backups(&self, _: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>> {
        let id = cluster.clone();
        self.call("hsm_backups", |state| {
            // Copies of production's backups as well: what a careless filter would answer.
            Ok(state.backups.iter().filter(|b| b.cluster.as_ref() == Some(&id) || b.source_backup.is_some()).cloned().collect())
        })
        .await
    }
    async fn delete_hsm_backup(&self, _: &Region, id: &BackupId) -> Result<()> {
        let id = id.clone();
        self.call("delete_hsm_backup", |state| {
            state.deleted.push(id.to_string());
            state.backups.retain(|b| b.id != id);
            Ok(())
        })
        .await
    }
    async fn send_survey(&self, region: &Region, command: &SurveyCommand<'_>) -> Result<String> {
        assert_eq!(*region, dr());
        let order = Order::decode(command.order).expect("an order");
        assert_eq!(command.token, &order.token);
        self.call("send", |state| {
            let id = format!("command-{}", state.commands.len());
            state.commands.push((id.clone(), order));
            Ok(id)
        })
        .await
    }
    async fn find_survey(&self, _: &Region, _: &DocumentPin, token: &OrderToken, _: Timestamp) -> Result<Vec<String>> {
        let token = token.clone();
        self.call("find", |state| Ok(state.commands.iter().filter(|(_, o)| o.token == token).map(|(id, _)| id.clone()).collect()))
            .await
    }
    async fn read_survey(&self, _: &Region, command: &str) -> Result<Vec<HostAnswer>> {
        let command = command.to_owned();
        self.call("read", |state| {
            let Some((_, order)) = state.commands.iter().find(|(id, _)| *id == command).cloned() else { return Ok(Vec::new()) };
            let output = host_answers(state, &order);
            let instance = order.hosts[0].instance.clone();
            Ok(vec![HostAnswer { instance, over: true, details: "Success".to_owned(), output: Some(output) }])
        })
        .await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let prefix = prefix.to_owned();
        self.call("list", |state| {
            let keys = state.objects.keys().filter(|key| key.starts_with(&prefix));
            Ok(keys.map(|key| ObjectInfo { key: key.clone(), etag: String::new(), modified: Timestamp(0) }).collect())
        })
        .await
    }
    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let key = key.to_owned();
        self.call("get", |state| {
            Ok(state.objects.get(&key).map(|(etag, body)| Object {
                key: key.clone(),
                body: body.clone(),
                etag: etag.to_string(),
                modified: Timestamp(0),
            }))
        })
        .await
    }
    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote> {
        let (key, body, when) = (key.to_owned(), body.to_vec(), when.clone());
        self.call("put", |state| {
            let fits = match (&when, state.objects.get(&key)) {
                (Put::New, None) => true,
                (Put::Over(etag), Some((found, _))) => *etag == found.to_string(),
                _ => false,
            };
            if !fits {
                return Ok(Wrote::Lost);
            }
            state.etags += 1;
            let etag = state.etags;
            state.objects.insert(key, (etag, body));
            Ok(Wrote::Yes(etag.to_string()))
        })
        .await
    }

    async fn fleet_instances(&self, _: &Region, _: &(String, String)) -> Result<Vec<FleetInstance>> {
        unreachable!("a drill does not ask for the fleet")
    }
    async fn instances_there(&self, _: &Region, _: &[InstanceId]) -> Result<BTreeSet<InstanceId>> {
        unreachable!("a drill does not ask for the fleet")
    }
    async fn hsm_addresses(&self, _: &Region, _: &ClusterId) -> Result<Option<BTreeSet<String>>> {
        unreachable!("a drill asks production nothing")
    }
    async fn snapshot(&self, _: &Region, _: &SnapshotId) -> Result<Option<Snapshot>> {
        unreachable!("a drill takes what its plan names")
    }
    async fn snapshots_of(&self, _: &Region, _: &[VolumeId]) -> Result<Vec<Snapshot>> {
        unreachable!("a drill takes what its plan names")
    }
    async fn snapshots_tagged(&self, _: &Region, _: &str, _: &[String]) -> Result<Vec<Snapshot>> {
        unreachable!("a drill takes what its plan names")
    }
    async fn copies_in_flight(&self, _: &Region) -> Result<Vec<Snapshot>> {
        unreachable!("a drill copies nothing")
    }
    async fn copy_snapshot(&self, _: &Region, _: &CopySnapshot) -> Result<SnapshotId> {
        unreachable!("a drill copies nothing")
    }
    async fn delete_snapshot(&self, _: &Region, _: &SnapshotId) -> Result<()> {
        unreachable!("a drill deletes no snapshot")
    }
    async fn hsm_copies(&self, _: &Region, _: &[BackupId]) -> Result<Vec<HsmBackup>> {
        unreachable!("a drill takes what its plan names")
    }
    async fn copy_hsm_backup(&self, _: &Region, _: &BackupId, _: &Region, _: &Tags) -> Result<()> {
        unreachable!("a drill copies nothing")
    }
    async fn keep_hsm_backup(&self, _: &Region, _: &BackupId, _: bool) -> Result<()> {
        unreachable!("a drill keeps nothing")
    }
    async fn secret(&self, _: &Region, _: &SecretArn) -> Result<Option<Secret>> {
        unreachable!("a drill's secrets are in its plan")
    }
    async fn stage_secret(
        &self,
        _: &Region,
        _: &SecretArn,
        _: &str,
        _: Option<&SecretVersion>,
        _: Option<&SecretVersion>,
    ) -> Result<()> {
        unreachable!("a drill moves no stage")
    }
    async fn kms_key(&self, _: &Region, _: &KmsKeyArn) -> Result<KmsKey> {
        unreachable!("a drill asks for no key")
    }
    async fn delete(&self, _: &str) -> Result<()> {
        unreachable!("a drill deletes no record")
    }
    async fn publish(&self, _: &str, _: &str) -> Result<()> {
        unreachable!("a drill alarms nobody")
    }
}

#[async_trait]
impl Pace for Room {
    fn now(&self) -> Timestamp {
        Timestamp(self.state().now)
    }
    async fn pause(&self, seconds: i64) {
        self.state().now += seconds;
        tokio::task::yield_now().await;
    }
    fn stopping(&self) -> bool {
        self.state().stopping
    }
}

struct Person {
    allows: fn(&Action) -> bool,
}

#[async_trait]
impl Watcher for Person {
    async fn allows(&self, action: &Action) -> Consent {
        if (self.allows)(action) { Consent::Yes } else { Consent::No }
    }
    fn says(&self, _: &str) {}
}

fn plan() -> Plan {
    let id = "drill-0123456789abcdef";
    let place = Place {
        subnet: SubnetId::new("subnet-00000000000000001").unwrap(),
        security_group: SecurityGroupId::new("sg-00000000000000001").unwrap(),
        instance_profile: "drill".to_owned(),
        instance_type: "m6i.large".to_owned(),
    };
    let sid = Sid::new("ORCL").unwrap();
    let secret = SecretRef {
        arn: SecretArn::new("arn:aws:secretsmanager:us-west-2:123456789012:secret:tde/cloudhsm-AbCdEf").unwrap(),
        version: SecretVersion::new("11111111-1111-1111-1111-111111111111").unwrap(),
    };
    let device = |name: &str, n: usize| Device {
        name: name.to_owned(),
        snapshot: SnapshotId::new(format!("snap-0000000000000000{n}")).unwrap(),
        size_gib: 8,
    };
    let tags = tags(id, "demo");
    Plan {
        id: id.to_owned(),
        region: dr(),
        instance: host_id(7),
        sid: sid.clone(),
        set: SetId("set".to_owned()),
        taken: Timestamp(1_799_990_000),
        actions: vec![
            Action::CheckPlace,
            Action::CreateCluster { backup: backup_id('c'), subnet: place.subnet.clone(), tags: tags.clone() },
            Action::AwaitCluster,
            Action::CreateHsm { availability_zone: "us-west-2a".to_owned() },
            Action::AwaitHsm,
            Action::RegisterImage {
                name: format!("tde2hsm-drill-{id}"),
                root_device: "/dev/xvda".to_owned(),
                devices: vec![device("/dev/xvda", 1), device("/dev/sdf", 2)],
                tags: tags.clone(),
            },
            Action::CheckPlace,
            Action::RunInstance { place, tags },
            Action::AwaitManaged,
            Action::Neutralise { databases: vec![sid.clone()] },
            Action::Open { sid, secret: Some(secret), keystore_secret: None },
            Action::Record,
        ],
        teardown: vec![
            Action::TerminateInstance,
            Action::DeregisterImage,
            Action::DeleteHsms,
            Action::DeleteCluster,
            Action::DeleteClusterBackups,
        ],
        hsm_keys: BTreeSet::new(),
        software_keys: BTreeSet::new(),
        unknowns: Vec::new(),
    }
}

fn all(_: &Action) -> bool {
    true
}

/// One run of the program: begins or goes on, then takes down. `None`: it crashed on the way.
async fn program(room: &Room, person: &Person, goal: Goal) -> Option<std::result::Result<(Outcome, Vec<Left>), Stop>> {
    let account = AccountId::new("123456789012").unwrap();
    let document = DocumentPin { name: "tde2hsm-run".to_owned(), version: "1".to_owned(), hash: Digest::ZERO };
    let source = Region::new("us-east-1").unwrap();
    let drill = Drill {
        account: &account,
        source_region: &source,
        cloud: room,
        room,
        pace: room,
        watcher: person,
        document: &document,
        unreachable: &[],
    };
    let teardown = Teardown { cloud: room, room, pace: room, watcher: person };
    let work = async {
        let mut kept = match goal {
            Goal::Begin => {
                let production = ClusterId::new(PRODUCTION).unwrap();
                let mut kept = Kept::new(Record::begin(drill_id(), "demo".to_owned(), plan(), production, room.now()));
                kept.save(room, room).await?;
                kept
            }
            Goal::Resume | Goal::Teardown => Kept::read(room, &drill_id()).await?,
        };
        let outcome = match goal {
            Goal::Teardown => Outcome::Declined,
            Goal::Begin | Goal::Resume => drill.run(&mut kept).await?,
        };
        Ok((outcome, teardown.run(&mut kept).await?))
    };
    tokio::select! {
        biased;
        () = room.crashed.notified() => None,
        ended = work => Some(ended),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Begin,
    Resume,
    Teardown,
}

/// Nothing of the drill is left, and everything else is as it was.
fn gone(room: &Room) {
    let state = room.state();
    let id = drill_id();
    let ours: Vec<&ClusterId> =
        state.clusters.iter().filter(|c| has(&c.tags, &id) && c.id.as_str() != PRODUCTION).map(|c| &c.id).collect();
    assert!(ours.is_empty(), "clusters left: {ours:?}");
    assert!(!state.instances.iter().any(|(_, t, _)| has(t, &id)), "an instance is left");
    assert!(!state.images.iter().any(|(_, t)| has(t, &id)), "an image is left");
    assert!(!state.volumes.iter().any(|(_, t)| has(t, &id)), "a volume is left");
    assert!(state.backups.iter().all(|b| b.id == backup_id('c')), "backups left: {:?}", state.backups);
    untouched(&state);
}

fn untouched(state: &State) {
    assert!(state.backups.iter().any(|b| b.id == backup_id('c')), "the copied backup of production is gone");
    for name in [PRODUCTION, cluster_id(5).as_str(), host_id(9).as_str(), "vol-other", "hsm-production"] {
        let touched: Vec<&String> = state.deleted.iter().filter(|d| d.contains(name)).collect();
        assert!(touched.is_empty(), "{name} was touched: {touched:?}");
    }
    assert_eq!(state.clusters.iter().filter(|c| c.hsm.as_ref().is_some_and(|(id, d)| id == "hsm-production" && !d)).count(), 2);
}

fn record(room: &Room) -> Option<Record> {
    let state = room.state();
    state.objects.get(&Record::key(&drill_id())).map(|(_, body)| serde_json::from_slice(body).expect("a record"))
}

#[tokio::test]
async fn a_drill_reads_rows_with_one_login_and_leaves_nothing() {
    let room = Room::new();
    let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
    assert_eq!((outcome, left), (Outcome::Read, Vec::new()));
    assert_eq!(room.counts(), (1, 1));
    gone(&room);
    let record = record(&room).expect("a record");
    assert!(record.torn_down.is_some() && record.ending.is_some_and(|e| e.seconds > 0));
    assert_eq!(record.reading.map(|r| r.rows), Some(40));
    let order = room.state().commands[0].1.clone();
    let target = order.target.expect("the restored cluster");
    assert_eq!((target.cluster, target.hsms.len()), (cluster_id(0), 1));
    assert_eq!(order.drill.expect("a drill").source, host_id(7));
}

/// The number of calls of a whole run.
async fn calls() -> usize {
    let room = Room::new();
    program(&room, &Person { allows: all }, Goal::Begin).await;
    room.state().calls
}

#[tokio::test]
async fn whatever_call_a_drill_is_broken_off_at_teardown_leaves_nothing() {
    let total = calls().await;
    let mut crashed = 0;
    for how in [Break::CrashBefore, Break::CrashAfter] {
        for at in 1..=total {
            let room = Room::new();
            room.state().broken = Some((at, how));
            crashed += usize::from(program(&room, &Person { allows: all }, Goal::Begin).await.is_none());
            room.state().broken = None;
            if record(&room).is_some() {
                let (_, left) = program(&room, &Person { allows: all }, Goal::Teardown).await.expect("no crash").expect("ends");
                assert_eq!(left, Vec::new(), "{how:?} at call {at}: {:?}", room.state().names.get(at - 1));
                assert!(record(&room).expect("a record").torn_down.is_some());
            }
            gone(&room);
        }
    }
    println!("{crashed} crash points of {total} calls, before and after their effect");
    assert_eq!(crashed, 2 * total);
}

#[tokio::test]
async fn whatever_call_a_drill_is_broken_off_at_it_is_gone_on_with_and_logs_in_once() {
    let total = calls().await;
    for how in [Break::CrashBefore, Break::CrashAfter] {
        for at in 1..=total {
            let room = Room::new();
            room.state().broken = Some((at, how));
            assert!(program(&room, &Person { allows: all }, Goal::Begin).await.is_none());
            room.state().broken = None;
            let goal = if record(&room).is_some() { Goal::Resume } else { Goal::Begin };
            let (outcome, left) = program(&room, &Person { allows: all }, goal).await.expect("no crash").expect("ends");
            let name = room.state().names[at - 1];
            assert_eq!((outcome, left), (Outcome::Read, Vec::new()), "{how:?} at call {at}: {name}");
            assert_eq!(room.counts(), (1, 1), "{how:?} at call {at}: {name}");
            gone(&room);
        }
    }
}

#[tokio::test]
async fn an_answer_lost_at_any_call_makes_nothing_twice_and_leaves_nothing() {
    let total = calls().await;
    let mut read = 0;
    for how in [Break::LoseAnswer, Break::NotSent] {
        for at in 1..=total {
            let room = Room::new();
            room.state().broken = Some((at, how));
            let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
            let name = room.state().names[at - 1];
            assert_eq!(left, Vec::new(), "{how:?} at call {at}: {name}");
            let (logins, clusters) = room.counts();
            assert!(clusters <= 1 && logins <= 1, "{how:?} at call {at}: {name}");
            read += usize::from(outcome == Outcome::Read);
            if how == Break::LoseAnswer {
                assert_eq!(outcome, Outcome::Read, "{how:?} at call {at}: {name}");
            }
            gone(&room);
        }
    }
    println!("{read} of {} drills read their rows all the same", 2 * total);
}

#[tokio::test]
async fn h44_a_place_with_a_way_to_production_gets_no_cluster_and_no_host() {
    let room = Room::new();
    room.state().open_route = true;
    let (outcome, _) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
    let Outcome::Failed { code, message } = outcome else { panic!("{outcome:?}") };
    assert!(code == Code::DRILL_NOT_ISOLATED && message.contains("pcx-1"), "{code} {message}");
    let state = room.state();
    assert!(!state.names.iter().any(|name| name.starts_with("create") || name.starts_with("run")), "{:?}", state.names);
}

/// The host joins the restored cluster's group to reach its HSMs; what that group lets out, the host may send.
#[tokio::test]
async fn h44_a_cluster_whose_group_lets_out_gets_no_host() {
    let room = Room::new();
    room.state().cluster_egress = Some(EgressTo::Group(SecurityGroupId::new("sg-00000000000000009").unwrap()));
    let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
    let Outcome::Failed { code, message } = outcome else { panic!("{outcome:?}") };
    assert!(code == Code::DRILL_NOT_ISOLATED && message.contains("sg-00000000000000003"), "{code} {message}");
    assert_eq!((left.len(), room.state().names.contains(&"run_instance")), (0, false));
    gone(&room);
    // Addresses lead as far as the routes do: nowhere.
    let room = Room::new();
    room.state().cluster_egress = Some(EgressTo::Cidr("0.0.0.0/0".to_owned()));
    program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
    assert!(room.state().names.contains(&"run_instance"));
}

/// The route is added while the cluster is being made: the second look finds it, before there is a host.
#[tokio::test]
async fn h44_the_place_is_looked_at_again_right_before_the_host() {
    let room = Room::new();
    let person = Person { allows: all };
    room.state().broken = Some((usize::MAX, Break::CrashBefore));
    let looks = {
        program(&room, &person, Goal::Begin).await;
        room.state().names.iter().position(|name| *name == "register_image").expect("registered")
    };
    let room = Room::new();
    room.state().broken = Some((looks + 1, Break::CrashAfter));
    assert!(program(&room, &person, Goal::Begin).await.is_none());
    room.state().broken = None;
    room.state().open_route = true;
    let (outcome, left) = program(&room, &person, Goal::Resume).await.expect("no crash").expect("ends");
    assert!(matches!(outcome, Outcome::Failed { code: Code::DRILL_NOT_ISOLATED, .. }), "{outcome:?}");
    assert_eq!((left.len(), room.state().names.contains(&"run_instance")), (0, false));
    gone(&room);
}

#[tokio::test]
async fn what_the_host_says_is_the_drills_cause_and_everything_is_taken_down() {
    let some = DrillRead { rows: 40, tablespaces: 3, ..DrillRead::default() };
    let unread = vec![Unread { what: "PDB1.DATA".to_owned(), code: Code::OLD_KEY_MISSING }];
    for (host, read, code, words) in [
        (Code::DRILL_KEY_ABSENT, DrillRead::default(), Code::DRILL_KEY_MISSING, "host says"),
        (Code::DRILL_NOT_OPENED, DrillRead::default(), Code::DRILL_KEYSTORE_CLOSED, "host says"),
        (Code::DRILL_UNREAD, DrillRead { unread: unread.clone(), ..some.clone() }, Code::DRILL_ROWS_UNREAD, "PDB1.DATA"),
        (Code::DRILL_NOT_RECOVERED, DrillRead::default(), Code::DRILL_NOT_RECOVERED, "host says"),
    ] {
        let room = Room::new();
        room.state().outcome = Some((host, read));
        let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
        let Outcome::Failed { code: found, message } = outcome else { panic!("{host}: {outcome:?}") };
        assert!(found == code && message.contains(words), "{host}: {found} {message}");
        assert_eq!((left.len(), room.counts().0), (0, 1));
        gone(&room);
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_listed_with_its_cost_and_the_drill_stays_open() {
    for (call, kind) in [
        ("delete_cluster", "cluster"),
        ("delete_hsm", "HSM"),
        ("terminate_instance", "instance"),
        ("deregister_image", "image"),
        ("delete_volume", "volume"),
    ] {
        let room = Room::new();
        room.state().refuse = Some((call, "AccessDeniedException"));
        let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
        assert_eq!(outcome, Outcome::Read);
        assert!(left.iter().any(|l| l.what == kind && !l.cost.is_empty() && l.why.contains(call)), "{call}: {left:?}");
        let written = record(&room).expect("a record");
        assert!(written.torn_down.is_none() && written.left == left, "{call}");
        room.state().refuse = None;
        let (_, left) = program(&room, &Person { allows: all }, Goal::Teardown).await.expect("no crash").expect("ends");
        assert_eq!(left, Vec::new(), "{call}");
        gone(&room);
    }
}

/// Whoever may run a drill need not be able to delete HSM backups: a point may need one.
#[tokio::test]
async fn a_backup_that_may_not_be_deleted_is_named_and_keeps_no_drill_open() {
    let room = Room::new();
    room.state().refuse = Some(("delete_hsm_backup", "CloudHsmAccessDeniedException"));
    let (outcome, left) = program(&room, &Person { allows: all }, Goal::Begin).await.expect("no crash").expect("ends");
    assert_eq!(outcome, Outcome::Read);
    assert!(left.len() == 1 && left[0].what == "HSM backup" && left[0].id == backup_id('d').to_string(), "{left:?}");
    assert!(record(&room).expect("a record").torn_down.is_some());
}

#[tokio::test]
async fn nothing_is_made_that_nobody_allowed() {
    let room = Room::new();
    let person = Person { allows: |action| !matches!(action, Action::CreateCluster { .. }) };
    let (outcome, _) = program(&room, &person, Goal::Begin).await.expect("no crash").expect("ends");
    assert_eq!((outcome, room.counts().1), (Outcome::Declined, 0));
    // Nothing is removed either, and it is said.
    let room = Room::new();
    let person = Person { allows: |action| !matches!(action, Action::DeleteHsms | Action::DeleteCluster) };
    let (outcome, left) = program(&room, &person, Goal::Begin).await.expect("no crash").expect("ends");
    assert_eq!(outcome, Outcome::Read);
    assert!(left.iter().any(|l| l.what == "HSM" && l.why == "nobody allowed it"), "{left:?}");
    assert!(record(&room).expect("a record").torn_down.is_none());
}

#[tokio::test]
async fn two_programs_do_not_write_one_drill() {
    let room = Room::new();
    let production = ClusterId::new(PRODUCTION).unwrap();
    let mut one = Kept::new(Record::begin(drill_id(), "demo".to_owned(), plan(), production, room.now()));
    one.save(&room, &room).await.expect("written");
    let mut other = Kept::read(&room, &drill_id()).await.expect("read");
    other.record.kept = true;
    other.save(&room, &room).await.expect("written");
    assert!(matches!(one.save(&room, &room).await, Err(RecordError::Taken(_))));
    let open = Kept::open(&room).await.expect("listed");
    assert!(open.len() == 1 && open[0].1.as_ref().is_some_and(|r| r.kept));
    let unknown = Kept::read(&room, &DrillId::new("drill-1").unwrap()).await;
    assert!(matches!(unknown, Err(RecordError::Unknown(_))));
}
