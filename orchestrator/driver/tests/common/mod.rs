//! A small cloud in virtual time, and a fuse that ends the program at any point.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tde2hsm_campaign::facts::{Backup, BackupCopy, Cluster, Hsm};
use tde2hsm_campaign::fleet::{FleetName, OnFailure, ProtectMode};
use tde2hsm_campaign::plan::{
    ConfigurationStyle, DatabasePlan, DocumentPin, HostPlan, Plan, PlanBody, PlannedSecret, Policy, Protect, Restarts, Second,
    SecretPurpose, SegmentPlan, Waves, Window,
};
use tde2hsm_campaign::reducer::{CommandId, Gate, InventoryTaken, State};
use tde2hsm_driver::{Answer, Backups, Clock, Cloud, Command, Fault, Invocation, Operator, SendError, Stage};
use tde2hsm_journal::{Body, Entry, Head, Journal, JournalError, Listed, MemoryJournal, Seq};
use tde2hsm_protocol::*;
use tokio::sync::Notify;

pub const START: Timestamp = Timestamp(1_795_600_000);

pub fn instance(n: usize) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).unwrap()
}

fn secret(name: &str) -> SecretRef {
    SecretRef {
        arn: SecretArn::new(format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/{name}-AbCdEf")).unwrap(),
        version: SecretVersion::new("11111111-1111-1111-1111-111111111111").unwrap(),
    }
}

/// The same plan with a backup of each wave's keys forced, in two regions.
pub fn guarded(hosts: usize) -> Arc<Plan> {
    let mut body = (**plan(hosts)).clone();
    body.protect = Some(Protect {
        mode: ProtectMode::Force,
        wait_seconds: 30 * 3_600,
        second: Some(Second {
            region: Region::new("us-west-2").unwrap(),
            records_bucket: "records".to_owned(),
            kms_key: KmsKeyArn::new("arn:aws:kms:us-west-2:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e11").unwrap(),
        }),
    });
    Arc::new(Plan::seal(body))
}

/// A plan of `hosts` hosts with one database each, from a software keystore.
pub fn plan(hosts: usize) -> Arc<Plan> {
    let instances: Vec<InstanceId> = (0..hosts).map(instance).collect();
    let database = |n: usize| DatabasePlan {
        order: DatabaseOrder {
            sid: Sid::new(format!("DB{n}")).unwrap(),
            source: Source::Software,
            software: 1,
            cloudhsm: 0,
            auto_open: AutoOpen::Enable,
            restart_proof: RestartProof::Do,
            backup_hours: 24,
        },
        version: "19.0.0.0.0".to_owned(),
        home: "/u01/app/oracle/product/19.0.0/dbhome_1".to_owned(),
        style: ConfigurationStyle::WalletRoot,
        containers: 1,
        restarts: Restarts { swap: 1, proof: 1 },
        reversible: true,
        typed: vec![],
        keeps: vec![],
    };
    let planned = |name: &str, purpose| PlannedSecret { secret: secret(name), purpose, provers: instances.clone() };
    Arc::new(Plan::seal(PlanBody {
        program: "test".to_owned(),
        fleet: FleetName::try_from("demo".to_owned()).unwrap(),
        direction: Direction::Do,
        made_at: START,
        account: AccountId::new("123456789012").unwrap(),
        region: Region::new("us-east-1").unwrap(),
        document: DocumentPin { name: "tde2hsm-run".to_owned(), version: "3".to_owned(), hash: Digest::of(b"document") },
        target: Target {
            cluster: ClusterId::new("cluster-abcdefghijk").unwrap(),
            hsms: vec!["10.0.1.5".parse().unwrap(), "10.0.2.5".parse().unwrap()],
            key_availability_check: KeyAvailabilityCheck::On,
        },
        secrets: vec![planned("cloudhsm", SecretPurpose::Cloudhsm), planned("software", SecretPurpose::Software)],
        escrow: Escrow { prefix: EscrowPrefix::new("tde/escrow").unwrap(), replica_regions: vec![] },
        window: Window::default(),
        waves: Waves { canary: 1, concurrency: 4, budget: 4, failure_domain: None, expected: vec![instances.clone()] },
        policy: Policy {
            on_failure: OnFailure::Undo,
            retries: 2,
            order_seconds: 3_600,
            poll_seconds: 15,
            find_seconds: 120,
            cluster_seconds: 60,
            asks: 5,
        },
        protect: None,
        hosts: (0..hosts)
            .map(|n| HostPlan {
                instance: instance(n),
                domain: String::new(),
                saw: Digest::of(b"saw").short(),
                databases: vec![database(n)],
                segments: Segment::ALL.map(|segment| SegmentPlan { segment, steps: Step::of(segment).collect() }).to_vec(),
            })
            .collect(),
        refused: vec![],
        findings: vec![],
        accepted: vec![],
    }))
}

/// Ends the program at one of the points at which it can end: before or after any effect on the world.
#[derive(Debug, Default)]
pub struct Fuse {
    state: Mutex<FuseState>,
    pub blown: Notify,
}

#[derive(Debug, Default)]
struct FuseState {
    at: Option<usize>,
    passed: usize,
}

impl Fuse {
    pub fn set(&self, at: Option<usize>) {
        *self.state.lock().unwrap() = FuseState { at, passed: 0 };
    }
    pub fn passed(&self) -> usize {
        self.state.lock().unwrap().passed
    }
    /// Never returns at the point that was set: the caller is dropped there, as a killed program would be.
    async fn point(&self) {
        let ends = {
            let mut state = self.state.lock().unwrap();
            state.passed += 1;
            state.at == Some(state.passed)
        };
        if ends {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A journal on a machine that may lose power at any moment.
#[derive(Debug)]
pub struct FusedJournal {
    pub inner: MemoryJournal,
    pub fuse: Arc<Fuse>,
}

#[async_trait]
impl Journal for FusedJournal {
    async fn append(&self, campaign: &CampaignId, expected: Seq, at: Timestamp, bodies: &[Body]) -> Result<Head, JournalError> {
        self.fuse.point().await;
        let head = self.inner.append(campaign, expected, at, bodies).await;
        self.fuse.point().await;
        head
    }
    async fn read(&self, campaign: &CampaignId, from: Seq) -> Result<Vec<Entry>, JournalError> {
        self.inner.read(campaign, from).await
    }
    async fn head(&self, campaign: &CampaignId) -> Result<Head, JournalError> {
        self.inner.head(campaign).await
    }
    async fn keep(&self, digest: Digest, text: &str) -> Result<(), JournalError> {
        self.fuse.point().await;
        let kept = self.inner.keep(digest, text).await;
        self.fuse.point().await;
        kept
    }
    async fn kept(&self, digest: Digest) -> Result<Option<String>, JournalError> {
        self.inner.kept(digest).await
    }
    async fn campaigns(&self) -> Result<Vec<Listed>, JournalError> {
        self.inner.campaigns().await
    }
}

/// Time that passes when it is waited for.
#[derive(Debug)]
pub struct FakeClock {
    pub now: Mutex<Timestamp>,
    /// The campaign ought to have ended by then.
    pub deadline: Timestamp,
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
    async fn sleep_until(&self, until: Timestamp) {
        let mut now = self.now.lock().unwrap();
        assert!(until > *now, "a wait that waits for nothing would spin");
        *now = until;
        assert!(*now < self.deadline, "the campaign does not end");
    }
}

/// What goes wrong with SendCommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The command runs, the answer is lost.
    Reply,
    /// The command never arrived, and nobody can tell.
    Command,
    /// AWS refuses: surely not sent.
    Throttled,
    /// AWS refuses, and will refuse again.
    Denied,
}

#[derive(Debug)]
struct Sent {
    id: CommandId,
    token: OrderToken,
    at: Timestamp,
    order: Order,
}

/// Hosts that do what they are told ten seconds after they are told, once an operation, and answer from then on.
#[derive(Debug)]
pub struct World {
    sent: Vec<Sent>,
    /// What each operation of each host did.
    pub ran: BTreeMap<(InstanceId, OperationId), Work>,
    /// How often each operation was delivered as work.
    pub delivered: BTreeMap<(InstanceId, OperationId), usize>,
    /// Which of the sends, from 0, is lost how.
    pub losses: BTreeMap<usize, Loss>,
    pub sends: usize,
    /// Seconds until a command shows in lists.
    pub list_lag: i64,
    pub heads: Vec<Digest>,
    /// HSMs that CreateHsm added, and what became of them.
    pub hsms: Vec<Added>,
    /// How the answers of CreateHsm are lost.
    pub hsm_loss: Option<Loss>,
    pub backups: Vec<(BackupId, Timestamp)>,
    pub copies: BTreeMap<BackupId, Timestamp>,
    pub inventoried: BTreeSet<InstanceId>,
    /// Versions that commands were sent by.
    pub documents: BTreeSet<String>,
    /// Seconds from the sending of each command that was read to its first reading.
    pub first_looks: BTreeMap<CommandId, i64>,
}

#[derive(Debug)]
pub struct Added {
    pub id: HsmId,
    pub at: Timestamp,
    /// From when it is no longer there.
    pub gone: Option<Timestamp>,
}

impl World {
    fn back_up(&mut self, at: Timestamp) {
        let letters: String = format!("{:011}", self.backups.len()).bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        self.backups.push((BackupId::new(format!("backup-{letters}")).unwrap(), at));
    }
}

#[derive(Debug)]
pub struct FakeCloud {
    pub world: Mutex<World>,
    pub clock: Arc<FakeClock>,
    pub fuse: Arc<Fuse>,
}

const TAKES: i64 = 10;
const HSM_TAKES: i64 = 240;
const BACKUP_TAKES: i64 = 60;

impl FakeCloud {
    pub fn new(clock: Arc<FakeClock>, fuse: Arc<Fuse>) -> FakeCloud {
        let world = World {
            sent: vec![],
            ran: BTreeMap::new(),
            delivered: BTreeMap::new(),
            losses: BTreeMap::new(),
            sends: 0,
            list_lag: 0,
            heads: vec![],
            hsms: vec![],
            hsm_loss: None,
            backups: vec![],
            copies: BTreeMap::new(),
            inventoried: BTreeSet::new(),
            documents: BTreeSet::new(),
            first_looks: BTreeMap::new(),
        };
        FakeCloud { world: Mutex::new(world), clock, fuse }
    }

    fn fault(code: Code) -> Fault {
        Fault { code, message: "planted".to_owned() }
    }

    /// Segments that were run on a host, each as often as it was.
    pub fn runs(&self, instance: &InstanceId) -> Vec<Work> {
        let world = self.world.lock().unwrap();
        world.ran.iter().filter(|((i, _), _)| i == instance).map(|(_, work)| *work).collect()
    }
}

fn report(world: &World, order: &Order, host: &HostOrder, at: Timestamp) -> Report {
    let known = world.ran.contains_key(&(host.instance.clone(), host.operation.clone()));
    let outcome = match order.work {
        Work::Status if !known => Outcome::Failed { code: Code::OPERATION_UNKNOWN, retriable: Retriable::Yes },
        _ => Outcome::Done,
    };
    let result = LoginResult::Proven;
    Report {
        v: PROTOCOL_VERSION,
        instance: host.instance.clone(),
        campaign: order.campaign.clone(),
        generation: order.generation,
        operation: host.operation.clone(),
        at,
        outcome,
        step: None,
        message: String::new(),
        databases: vec![],
        logins: host.prove_logins.iter().map(|secret| LoginProof { secret: *secret, result }).collect(),
        journal_head: Digest::of(host.operation.as_str().as_bytes()),
        saw: host.saw,
        detail: None,
        chunk: None,
        omitted: 0,
    }
}

#[async_trait]
impl Cloud for FakeCloud {
    async fn send(&self, command: &Command<'_>) -> Result<CommandId, SendError> {
        self.fuse.point().await;
        let result = {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            let number = world.sends;
            world.sends += 1;
            world.documents.insert(command.document.version.clone());
            let loss = world.losses.get(&number).copied();
            let id = CommandId::new(format!("{number:08x}-0000-4000-8000-000000000000")).unwrap();
            if !matches!(loss, Some(Loss::Command | Loss::Throttled | Loss::Denied)) {
                let order = Order::decode(command.order).unwrap();
                assert_eq!(order.token, *command.token);
                assert!(world.sent.iter().all(|sent| sent.token != order.token), "a token is sent once: {}", order.token);
                world.heads.push(order.journal_head);
                for host in &order.hosts {
                    let operation = (host.instance.clone(), host.operation.clone());
                    if matches!(order.work, Work::Run { .. }) {
                        *world.delivered.entry(operation.clone()).or_default() += 1;
                        world.ran.entry(operation).or_insert(order.work);
                    }
                }
                world.sent.push(Sent { id: id.clone(), token: command.token.clone(), at: self.clock.now(), order });
            }
            match loss {
                None => Ok(id),
                Some(Loss::Reply | Loss::Command) => Err(SendError::Ambiguous(Self::fault(Code::AWS_UNREACHABLE))),
                Some(Loss::Denied) => Err(SendError::NotSent(Self::fault(Code::AWS_DENIED))),
                Some(Loss::Throttled) => Err(SendError::NotSent(Self::fault(Code::AWS_THROTTLED))),
            }
        };
        self.fuse.point().await;
        result
    }

    async fn find(&self, document: &DocumentPin, token: &OrderToken, since: Timestamp) -> Result<Vec<CommandId>, Fault> {
        assert_eq!(document.name, "tde2hsm-run");
        self.fuse.point().await;
        let world = self.world.lock().unwrap();
        let seen = |sent: &&Sent| sent.token == *token && sent.at >= since && self.clock.now() >= sent.at.plus(world.list_lag);
        Ok(world.sent.iter().rev().filter(seen).map(|sent| sent.id.clone()).collect())
    }

    async fn read(&self, command: &CommandId) -> Result<Vec<Invocation>, Fault> {
        self.fuse.point().await;
        let mut world = self.world.lock().unwrap();
        let now = self.clock.now();
        let age = world.sent.iter().find(|sent| sent.id == *command).map(|sent| now.since(sent.at));
        if let Some(age) = age {
            world.first_looks.entry(command.clone()).or_insert(age);
        }
        let Some(sent) = world.sent.iter().find(|sent| sent.id == *command) else { return Ok(vec![]) };
        if now < sent.at.plus(world.list_lag) {
            return Ok(vec![]);
        }
        let over = now >= sent.at.plus(TAKES);
        let invocation = |host: &HostOrder| Invocation {
            instance: host.instance.clone(),
            stage: if over { Stage::Over } else { Stage::Open },
            details: if over { "Success" } else { "InProgress" }.to_owned(),
            output: over.then(|| report(&world, &sent.order, host, now).encode()),
        };
        Ok(sent.order.hosts.iter().map(invocation).collect())
    }

    async fn cluster(&self, cluster: &ClusterId) -> Result<Option<Cluster>, Fault> {
        self.fuse.point().await;
        let hsm = |id: &str, az: &str, ip: &str| Hsm {
            id: id.to_owned(),
            state: "ACTIVE".to_owned(),
            az: Some(az.to_owned()),
            ip: Some(ip.parse().unwrap()),
        };
        let now = self.clock.now();
        let world = self.world.lock().unwrap();
        let hsms = [hsm("hsm-a", "us-east-1a", "10.0.1.5"), hsm("hsm-b", "us-east-1b", "10.0.2.5")].into_iter();
        let added = world.hsms.iter().filter(|added| added.gone.is_none_or(|gone| now < gone)).map(|added| Hsm {
            state: match added.gone {
                Some(_) => "DELETE_IN_PROGRESS",
                None if now < added.at.plus(HSM_TAKES) => "CREATE_IN_PROGRESS",
                None => "ACTIVE",
            }
            .to_owned(),
            ..hsm(added.id.as_str(), "us-east-1a", "10.0.1.6")
        });
        Ok(Some(Cluster {
            cluster: cluster.clone(),
            state: "ACTIVE".to_owned(),
            hsm_type: "hsm2m.medium".to_owned(),
            mode: None,
            rollback_expiration: None,
            vpc: None,
            security_group: None,
            hsms: hsms.chain(added).collect(),
        }))
    }

    async fn backups(&self, _cluster: &ClusterId, second: Option<&Region>, after: Timestamp) -> Result<Backups, Fault> {
        self.fuse.point().await;
        let now = self.clock.now();
        let world = self.world.lock().unwrap();
        let made = world.backups.iter().filter(|(_, created)| *created > after);
        let state = |at: Timestamp| if at.plus(BACKUP_TAKES) <= now { "READY" } else { "CREATE_IN_PROGRESS" }.to_owned();
        let backups: Vec<Backup> =
            made.map(|(id, created)| Backup { id: id.clone(), state: state(*created), created: *created }).collect();
        let copies = world.copies.iter().filter(|_| second.is_some()).map(|(source, at)| BackupCopy {
            id: source.clone(),
            source: source.clone(),
            state: state(*at),
        });
        Ok(Backups { copies: copies.collect(), backups })
    }

    async fn copy_backups(&self) -> Result<(), Fault> {
        self.fuse.point().await;
        {
            let now = self.clock.now();
            let mut world = self.world.lock().unwrap();
            let ready: Vec<BackupId> =
                world.backups.iter().filter(|(_, created)| created.plus(BACKUP_TAKES) <= now).map(|(id, _)| id.clone()).collect();
            for id in ready {
                world.copies.entry(id).or_insert(now);
            }
        }
        self.fuse.point().await;
        Ok(())
    }

    async fn add_hsm(&self, _cluster: &ClusterId, zone: &str) -> Result<HsmId, SendError> {
        self.fuse.point().await;
        assert!(["us-east-1a", "us-east-1b"].contains(&zone), "{zone}");
        let now = self.clock.now();
        let answer = {
            let mut world = self.world.lock().unwrap();
            let id = HsmId::new(format!("hsm-{:011}", world.hsms.len())).unwrap();
            world.hsms.push(Added { id: id.clone(), at: now, gone: None });
            world.back_up(now);
            match world.hsm_loss {
                Some(Loss::Reply) => Err(SendError::Ambiguous(Self::fault(Code::AWS_UNREACHABLE))),
                _ => Ok(id),
            }
        };
        self.fuse.point().await;
        answer
    }

    async fn remove_hsm(&self, _cluster: &ClusterId, hsm: &HsmId) -> Result<(), SendError> {
        self.fuse.point().await;
        let now = self.clock.now();
        {
            let mut world = self.world.lock().unwrap();
            let added = world.hsms.iter_mut().find(|added| added.id == *hsm).expect("only what was added is removed");
            assert!(now >= added.at.plus(HSM_TAKES), "it is not there yet");
            let again = added.gone.is_some();
            added.gone.get_or_insert(now.plus(HSM_TAKES));
            if !again {
                world.back_up(now);
            }
        }
        self.fuse.point().await;
        Ok(())
    }

    async fn take_inventories(&self, hosts: &[InstanceId]) -> Vec<InventoryTaken> {
        self.fuse.point().await;
        self.world.lock().unwrap().inventoried.extend(hosts.iter().cloned());
        self.fuse.point().await;
        hosts.iter().map(|instance| InventoryTaken { instance: instance.clone(), failed: None }).collect()
    }

    fn aws_now(&self) -> Option<Timestamp> {
        Some(self.clock.now())
    }
}

/// Opens every gate but those named.
#[derive(Debug, Default)]
pub struct Opens {
    pub shut: BTreeSet<Gate>,
    pub asked: Mutex<Vec<Gate>>,
}

#[async_trait]
impl Operator for Opens {
    async fn ask(&self, gate: Gate, _hosts: &[InstanceId], _state: &State) -> Answer {
        self.asked.lock().unwrap().push(gate);
        if self.shut.contains(&gate) { Answer::Declined } else { Answer::Approved }
    }
}

pub fn campaign() -> CampaignId {
    CampaignId::new("demo-1").unwrap()
}
