//! A small world for the reducer: hosts that work, fail and remember, commands that are lost, late, doubled, and a driver
//! that may die at every boundary. It knows what really happened, and judges the reducer by that alone.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tde2hsm_campaign::facts::{Backup, BackupCopy, Cluster, Hsm};
use tde2hsm_campaign::fleet::ProtectMode;
use tde2hsm_campaign::plan::Plan;
use tde2hsm_campaign::reducer::*;

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: i64) -> i64 {
        (self.next() % n.max(1) as u64) as i64
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.next().is_multiple_of(n)
    }
}

/// How often things go wrong: one in so many, 0 for never.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub crash: u64,
    pub send: u64,
    pub reply: u64,
    pub duplicate: u64,
    pub never: u64,
    pub worker: u64,
    pub step: u64,
    pub forge: u64,
    /// In what the gate asks of CloudHSM.
    pub guard: u64,
}

impl Faults {
    pub const NONE: Faults =
        Faults { crash: 0, send: 0, reply: 0, duplicate: 0, never: 0, worker: 0, step: 0, forge: 0, guard: 0 };
    pub const MANY: Faults =
        Faults { crash: 6, send: 6, reply: 5, duplicate: 4, never: 9, worker: 6, step: 8, forge: 9, guard: 5 };
}

struct Delivery {
    token: OrderToken,
    instance: InstanceId,
    at: Timestamp,
    /// The first delivery of a command to a host is the one whose answer SSM shows.
    shown: bool,
    lost: bool,
}

struct Command {
    id: CommandId,
    order: Arc<Order>,
    listed_at: Timestamp,
    /// Per host: when it ends, and with which report.
    ends: BTreeMap<InstanceId, (Timestamp, Option<Report>)>,
}

struct Worked {
    work: Work,
    finish_at: Timestamp,
    outcome: Outcome,
    logins: Vec<LoginProof>,
}

/// CloudHSM as it is, on AWS's own clock, which is not the controller's.
pub struct Keeping {
    /// Seconds that AWS's clock is ahead.
    pub ahead: i64,
    /// Its answers bear a date.
    dated: bool,
    pub hsms: Vec<OneHsm>,
    backups: Vec<OneBackup>,
    copies: Vec<OneCopy>,
    next_daily: Timestamp,
    /// When each key may have been made, on the controller's clock.
    keys: Vec<Timestamp>,
    /// Ids that an answer of CreateHsm told the controller.
    told: BTreeSet<String>,
    pub created: u32,
    pub copy_runs: u32,
    /// An HSM that somebody else adds at the next CreateHsm, whose answer is lost.
    pub stranger: bool,
    /// No backup is ever made.
    pub barren: bool,
    /// AWS refuses each CreateHsm; how often it was asked, and for which zones.
    pub refuses: bool,
    pub asked: u32,
    pub zones: BTreeSet<String>,
}

#[derive(Clone)]
pub struct OneHsm {
    pub id: String,
    zone: String,
    state: &'static str,
    /// Until when it is coming or going.
    until: Option<Timestamp>,
    pub whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Fleet,
    Ours,
    /// Ours, and no answer said so.
    Lost,
    Stranger,
}

struct OneBackup {
    id: BackupId,
    created: Timestamp,
    ready: Timestamp,
}

struct OneCopy {
    id: BackupId,
    source: BackupId,
    ready: Timestamp,
    failed: bool,
}

/// Ids of backups hold letters and the digits 2 to 7.
fn letters(prefix: &str, number: usize) -> BackupId {
    let digits = format!("{number:010}").bytes().map(|b| char::from(b - b'0' + b'a')).collect::<String>();
    BackupId::new(format!("{prefix}{digits}")).expect("id")
}

impl OneHsm {
    pub fn degrade(&mut self) {
        self.state = "DEGRADED";
    }
    pub fn mend(&mut self) {
        self.state = "ACTIVE";
    }
}

impl Keeping {
    fn new(seed: u64) -> Keeping {
        let mut rng = Rng(seed ^ 0x48);
        let hsm = |id: &str, zone: &str| OneHsm {
            id: id.to_owned(),
            zone: zone.to_owned(),
            state: "ACTIVE",
            until: None,
            whose: Whose::Fleet,
        };
        Keeping {
            ahead: rng.below(500) - 250,
            dated: rng.one_in(2),
            hsms: vec![hsm("hsm-a", "us-east-1a"), hsm("hsm-b", "us-east-1b")],
            backups: Vec::new(),
            copies: Vec::new(),
            next_daily: NOW.plus(rng.below(86_400)),
            keys: Vec::new(),
            told: BTreeSet::new(),
            created: 0,
            copy_runs: 0,
            stranger: false,
            barren: false,
            refuses: false,
            asked: 0,
            zones: BTreeSet::new(),
        }
    }

    fn aws(&self, now: Timestamp) -> Timestamp {
        now.plus(self.ahead)
    }

    fn active(&self) -> usize {
        self.hsms.iter().filter(|h| h.state == "ACTIVE").count()
    }

    fn back_up(&mut self, at: Timestamp, takes: i64) {
        if !self.barren {
            let id = letters("backup-a", self.backups.len());
            self.backups.push(OneBackup { id, created: at, ready: at.plus(takes) });
        }
    }

    fn pass(&mut self, now: Timestamp) {
        let aws = self.aws(now);
        while self.next_daily <= aws {
            self.back_up(self.next_daily, 300);
            self.next_daily = self.next_daily.plus(86_400);
        }
        for hsm in &mut self.hsms {
            match (hsm.state, hsm.until) {
                ("CREATE_IN_PROGRESS", Some(until)) if until <= now => (hsm.state, hsm.until) = ("ACTIVE", None),
                ("DELETE_IN_PROGRESS", Some(until)) if until <= now => hsm.state = "DELETED",
                _ => {}
            }
        }
        self.hsms.retain(|hsm| hsm.state != "DELETED");
    }

    fn add(&mut self, zone: &str, whose: Whose, until: Timestamp) -> String {
        self.created += 1;
        let id = format!("hsm-{:011}", self.created);
        self.hsms.push(OneHsm { id: id.clone(), zone: zone.to_owned(), state: "CREATE_IN_PROGRESS", until: Some(until), whose });
        id
    }

    /// Every key that there is lies in a READY backup, and in a READY copy of it.
    fn keeps_all(&self, now: Timestamp) -> bool {
        let aws = self.aws(now);
        let newest = self.keys.iter().filter(|key| **key <= now).max().map(|key| self.aws(*key));
        let copied = |backup: &OneBackup| self.copies.iter().any(|c| c.source == backup.id && !c.failed && c.ready <= aws);
        newest.is_none_or(|key| self.backups.iter().any(|b| b.created > key && b.ready <= aws && copied(b)))
    }

    fn cluster(&self) -> Cluster {
        let hsm = |(n, hsm): (usize, &OneHsm)| Hsm {
            id: hsm.id.clone(),
            state: hsm.state.to_owned(),
            az: Some(hsm.zone.clone()),
            ip: Some(format!("10.0.{n}.5").parse().expect("ip")),
        };
        Cluster { hsms: self.hsms.iter().enumerate().map(hsm).collect(), ..super::cluster() }
    }
}

#[derive(Default)]
struct Host {
    /// Each operation it has begun, in order.
    begun: Vec<OperationId>,
    known: BTreeMap<OperationId, Worked>,
    pub staged: bool,
    pub cut_over: bool,
    pub proven: bool,
}

pub struct Sim {
    pub rng: Rng,
    pub now: Timestamp,
    pub plan: Arc<Plan>,
    pub journal: Vec<Event>,
    pub state: State,
    pub faults: Faults,
    /// A secret version whose password is wrong.
    pub bad: Option<SecretRef>,
    pub bad_logins: u32,
    pub sent: u32,
    pub crashes: u32,
    pub points: u32,
    commands: Vec<Command>,
    deliveries: Vec<Delivery>,
    hosts: BTreeMap<InstanceId, Host>,
    /// Operations issued to each host, in order, by intents in the journal.
    issued: BTreeMap<InstanceId, Vec<OperationId>>,
    final_reports: BTreeSet<OperationId>,
    pub crash_at: Option<u32>,
    /// The next cutover that begins fails for good.
    pub fail_next_cutover: bool,
    /// No host ever answers.
    pub deaf: bool,
    /// This host never answers from now on.
    pub mute: Option<InstanceId>,
    /// AWS refuses every call that names this instance.
    pub unsendable: Option<InstanceId>,
    /// Leaves out what costs time with every event.
    pub quiet_checks: bool,
    pub keeping: Keeping,
    /// What the newest inventory of each host says: cut over or not, after how many operations.
    pub inventoried: BTreeMap<InstanceId, (bool, usize)>,
    pub looks: u32,
}

/// The driver died here.
pub struct Crash;

pub fn campaign() -> CampaignId {
    CampaignId::new("night-1").expect("id")
}

impl Sim {
    pub fn new(plan: Plan, seed: u64, faults: Faults) -> Sim {
        let plan = Arc::new(plan);
        let hosts = plan.hosts.iter().map(|h| (h.instance.clone(), Host::default())).collect();
        let mut sim = Sim {
            rng: Rng(seed),
            now: NOW,
            state: State::new(plan.clone()),
            plan,
            journal: Vec::new(),
            faults,
            bad: None,
            bad_logins: 0,
            sent: 0,
            crashes: 0,
            points: 0,
            commands: Vec::new(),
            deliveries: Vec::new(),
            hosts,
            issued: BTreeMap::new(),
            final_reports: BTreeSet::new(),
            crash_at: None,
            fail_next_cutover: false,
            deaf: false,
            mute: None,
            unsendable: None,
            quiet_checks: false,
            keeping: Keeping::new(seed),
            inventoried: BTreeMap::new(),
            looks: 0,
        };
        let plan = sim.plan.digest();
        sim.record(EventKind::CampaignStarted { plan, campaign: campaign(), generation: Generation(1) });
        sim
    }

    pub fn record(&mut self, kind: EventKind) {
        let event = Event { at: self.now, kind };
        self.judge(&event);
        // What is written is what is read: the journal holds text.
        let text = serde_json::to_string(&event).expect("serialises");
        let event: Event = serde_json::from_str(&text).expect("reads back");
        self.state.apply(&event);
        self.journal.push(event);
        self.check();
    }

    /// Invariant 2: a host gets a new operation only when the fate of the one before is known.
    fn judge(&mut self, event: &Event) {
        match &event.kind {
            EventKind::OrderIntended(intent) if matches!(intent.work, Work::Run { .. }) => {
                for host in &intent.hosts {
                    let issued = self.issued.entry(host.instance.clone()).or_default();
                    if issued.contains(&host.operation) {
                        assert_eq!(issued.last(), Some(&host.operation), "an older operation is sent again");
                        continue;
                    }
                    if let Some(before) = issued.last() {
                        let known = self.hosts[&host.instance].known.contains_key(before);
                        let coming = self.deliveries.iter().filter(|d| d.instance == host.instance).any(|d| {
                            let order = self.commands.iter().map(|c| &c.order).find(|o| o.token == d.token);
                            order.is_some_and(|o| {
                                let names = o.host(&host.instance).is_some_and(|h| h.operation == *before);
                                names && matches!(o.work, Work::Run { .. }) && d.at <= o.not_after
                            })
                        });
                        assert!(
                            self.final_reports.contains(before) || (!known && !coming),
                            "{} gets {} while the end of {before} is not known",
                            host.instance,
                            host.operation
                        );
                    }
                    issued.push(host.operation.clone());
                }
            }
            EventKind::ReportReceived { report, instance, operation, .. } => {
                let genuine = report.operation == *operation && report.instance == *instance;
                if genuine && !matches!(report.outcome, Outcome::Waiting { .. }) {
                    self.final_reports.insert(operation.clone());
                }
            }
            // H8, by the truth.
            EventKind::Approved { gate: Gate::Wave(2..) } | EventKind::Ended { end: End::Done } if self.gated() => {
                assert!(self.keeping.keeps_all(self.now), "H8: {:?} with a key that is in no backup there", event.kind);
                let extra: Vec<_> = self.keeping.hsms.iter().filter(|h| h.whose == Whose::Ours).map(|h| &h.id).collect();
                assert!(extra.is_empty(), "H8: {:?} with {extra:?} still there", event.kind);
            }
            _ => {}
        }
    }

    fn gated(&self) -> bool {
        self.plan.protect.as_ref().is_some_and(|protect| protect.mode != ProtectMode::Off)
    }

    /// Invariant 5, by what the state says and by what the hosts are.
    fn check(&self) {
        if self.quiet_checks {
            return;
        }
        let summary = self.state.summary(self.now);
        assert!(
            summary.failed <= self.plan.waves.budget,
            "{} hosts failed, the budget is {}",
            summary.failed,
            self.plan.waves.budget
        );
    }

    fn boundary(&mut self) -> Result<(), Crash> {
        self.points += 1;
        if self.crash_at == Some(self.points) || self.rng.one_in(self.faults.crash) {
            self.crashes += 1;
            return Err(Crash);
        }
        Ok(())
    }

    /// Drives until the campaign ends, approving every gate; a crash is followed by a replay of the journal.
    pub fn drive(&mut self) -> End {
        for turn in 0..if self.gated() { 20_000 } else { 4_000 } {
            match self.turn() {
                Ok(Some(end)) => return end,
                Ok(None) => {}
                Err(Crash) => {
                    self.state = State::replay(self.plan.clone(), &self.journal);
                    self.record(EventKind::Interrupted { why: "crash".to_owned() });
                }
            }
            if turn % 64 == 0 && !self.quiet_checks {
                let replayed = State::replay(self.plan.clone(), &self.journal);
                assert_eq!(replayed.snapshot(), self.state.snapshot(), "a replay makes another state");
                let text = serde_json::to_string(&self.state.snapshot()).expect("serialises");
                let restored =
                    State::restore(self.plan.clone(), serde_json::from_str(&text).expect("reads back")).expect("same plan");
                assert_eq!(restored.decide(self.now), self.state.decide(self.now), "a snapshot decides otherwise");
            }
        }
        panic!("the campaign does not end: {:#?}", self.state.summary(self.now));
    }

    fn turn(&mut self) -> Result<Option<End>, Crash> {
        let decisions = self.state.decide(self.now);
        assert!(!decisions.is_empty(), "a campaign that has not ended decides nothing: {:#?}", self.state.summary(self.now));
        let before = self.journal.len();
        let mut until = self.now.plus(if self.gated() { 300 } else { 60 });
        let mut ask = None;
        for decision in decisions {
            match decision {
                Decision::ObserveCluster => {
                    self.boundary()?;
                    self.keeping.pass(self.now);
                    let mut cluster = self.keeping.cluster();
                    if self.rng.one_in(self.faults.step) {
                        cluster.state = "MODIFY_IN_PROGRESS".to_owned();
                    }
                    self.record(EventKind::ClusterObserved { cluster });
                }
                Decision::Send(send) => self.send(*send)?,
                Decision::ObserveProtection { second, after } => self.observe_protection(second.is_some(), after)?,
                Decision::CopyBackups => self.copy_backups()?,
                Decision::TakeInventories { hosts } => {
                    self.boundary()?;
                    let mut taken = Vec::new();
                    for instance in hosts {
                        let host = &self.hosts[&instance];
                        assert!(host.known.values().all(|w| w.finish_at <= self.now), "{instance} is looked at while it works");
                        let failed = self.rng.one_in(self.faults.guard).then(|| "the bucket is not there".to_owned());
                        if failed.is_none() {
                            self.inventoried.insert(instance.clone(), (host.cut_over, host.begun.len()));
                        }
                        taken.push(InventoryTaken { instance, failed });
                    }
                    self.looks += 1;
                    self.boundary()?;
                    self.record(EventKind::InventoriesTaken { hosts: taken });
                }
                Decision::AddHsm(intent) => self.add_hsm(intent)?,
                Decision::RemoveHsm { hsm } => self.remove_hsm(hsm)?,
                Decision::FindCommand { token, .. } => {
                    self.boundary()?;
                    let now = self.now;
                    let found = self.commands.iter().find(|c| c.order.token == token && c.listed_at <= now).map(|c| c.id.clone());
                    self.boundary()?;
                    self.record(match found {
                        Some(command) => EventKind::CommandFound { token, command },
                        None => EventKind::CommandNotFound { token },
                    });
                }
                Decision::ReadCommands { commands, every } => {
                    until = until.min(self.now.plus(i64::from(every)));
                    for open in commands {
                        self.read(&open)?;
                    }
                }
                Decision::Ask { gate, .. } => ask = Some(gate),
                Decision::Wait { until: at, why } => {
                    assert!(why.iter().all(|(_, why)| !why.waits_for.is_empty() && !why.unblocked_by.is_empty()));
                    until = until.min(at);
                }
                Decision::Finish { end } => {
                    self.boundary()?;
                    self.record(EventKind::Ended { end });
                    return Ok(Some(end));
                }
            }
        }
        if self.journal.len() > before {
            return Ok(None);
        }
        if let Some(gate) = ask {
            self.boundary()?;
            self.record(EventKind::Approved { gate });
            return Ok(None);
        }
        // Nothing waits for ever without saying for what (invariant 9).
        let hosts = if self.quiet_checks { Vec::new() } else { self.state.summary(self.now).hosts };
        for status in hosts {
            let ended = matches!(status.standing, Standing::Done | Standing::Undone | Standing::Released);
            assert!(ended || status.why.is_some(), "{} is {} and says not why", status.instance, status.standing);
        }
        self.advance(until.max(self.now.plus(1)));
        Ok(None)
    }

    fn aws_at(&self) -> Option<Timestamp> {
        self.keeping.dated.then(|| self.keeping.aws(self.now))
    }

    fn observe_protection(&mut self, second: bool, after: Timestamp) -> Result<(), Crash> {
        self.boundary()?;
        self.keeping.pass(self.now);
        if self.rng.one_in(self.faults.guard) {
            self.record(EventKind::ProtectionUnknown { why: "the region does not answer".to_owned() });
            return Ok(());
        }
        let aws = self.keeping.aws(self.now);
        let state = |ready: Timestamp| if ready <= aws { "READY" } else { "CREATE_IN_PROGRESS" }.to_owned();
        let newer: Vec<&OneBackup> = self.keeping.backups.iter().filter(|b| b.created > after && b.created <= aws).collect();
        let copies = self.keeping.copies.iter().filter(|c| second && newer.iter().any(|b| b.id == c.source));
        let copies = copies.map(|c| BackupCopy {
            id: c.id.clone(),
            source: c.source.clone(),
            state: if c.failed { "DELETED".to_owned() } else { state(c.ready) },
        });
        let event = EventKind::ProtectionObserved {
            aws_at: self.aws_at(),
            copies: copies.collect(),
            backups: newer.iter().map(|b| Backup { id: b.id.clone(), state: state(b.ready), created: b.created }).collect(),
        };
        self.boundary()?;
        self.record(event);
        Ok(())
    }

    /// As the job does it: whatever is READY and not copied.
    fn copy_backups(&mut self) -> Result<(), Crash> {
        self.boundary()?;
        self.keeping.copy_runs += 1;
        let aws = self.keeping.aws(self.now);
        let copied: BTreeSet<BackupId> = self.keeping.copies.iter().filter(|c| !c.failed).map(|c| c.source.clone()).collect();
        let missing: Vec<BackupId> =
            self.keeping.backups.iter().filter(|b| b.ready <= aws && !copied.contains(&b.id)).map(|b| b.id.clone()).collect();
        for source in missing {
            let id = letters("backup-c", self.keeping.copies.len());
            let (takes, failed) = (self.rng.below(900), self.rng.one_in(self.faults.guard));
            self.keeping.copies.push(OneCopy { id, source, ready: aws.plus(takes), failed });
        }
        self.boundary()?;
        let failed = self.rng.one_in(self.faults.guard).then(|| "a key of KMS is disabled".to_owned());
        self.record(EventKind::BackupsCopied { failed });
        Ok(())
    }

    fn add_hsm(&mut self, intent: HsmIntent) -> Result<(), Crash> {
        self.boundary()?;
        let zone = intent.zone.clone();
        self.record(EventKind::HsmIntended(intent));
        self.boundary()?;
        self.keeping.pass(self.now);
        let kind = if self.rng.one_in(self.faults.guard) { self.rng.below(3) } else { 3 };
        self.keeping.asked += 1;
        self.keeping.zones.insert(zone.clone());
        let kind = if self.keeping.refuses { 0 } else { kind };
        let lost = EventKind::HsmAmbiguous { why: "the connection closed".to_owned() };
        if std::mem::take(&mut self.keeping.stranger) {
            self.keeping.add(&zone, Whose::Stranger, self.now.plus(60));
            self.record(lost);
            return Ok(());
        }
        let event = match kind {
            0 => EventKind::HsmNotAdded { why: "no capacity in that zone".to_owned() },
            1 => lost,
            _ => {
                let until = self.now.plus(60 + self.rng.below(600));
                let id = self.keeping.add(&zone, Whose::Lost, until);
                let (aws, takes) = (self.keeping.aws(self.now), 30 + self.rng.below(400));
                self.keeping.back_up(aws, takes);
                match kind {
                    2 => lost,
                    _ => EventKind::HsmAdded { hsm: HsmId::new(id).expect("id") },
                }
            }
        };
        self.boundary()?;
        if let EventKind::HsmAdded { hsm } = &event {
            self.keeping.told.insert(hsm.to_string());
            self.keeping.hsms.last_mut().expect("added").whose = Whose::Ours;
        }
        self.record(event);
        Ok(())
    }

    fn remove_hsm(&mut self, hsm: HsmId) -> Result<(), Crash> {
        self.boundary()?;
        assert!(self.keeping.told.contains(hsm.as_str()), "H8: {hsm} is removed, which no answer of ours named");
        self.record(EventKind::HsmRemovalIntended { hsm: hsm.clone() });
        self.boundary()?;
        self.keeping.pass(self.now);
        let kind = if self.rng.one_in(self.faults.guard) { self.rng.below(3) } else { 3 };
        let until = self.now.plus(30 + self.rng.below(200));
        if kind > 1
            && let Some(going) = self.keeping.hsms.iter_mut().find(|h| h.id == hsm.as_str())
        {
            (going.state, going.until) = ("DELETE_IN_PROGRESS", Some(until));
            assert!(self.keeping.active() >= 2, "H8: fewer HSMs are ACTIVE than before");
            let (aws, takes) = (self.keeping.aws(self.now), 30 + self.rng.below(400));
            self.keeping.back_up(aws, takes);
        }
        self.boundary()?;
        match kind {
            0 => self.record(EventKind::HsmNotRemoved { hsm, why: "throttled".to_owned() }),
            1 | 2 => {}
            _ => self.record(EventKind::HsmRemovalAccepted { hsm }),
        }
        Ok(())
    }

    fn send(&mut self, send: SendOrder) -> Result<(), Crash> {
        self.boundary()?;
        let token = send.intent.token.clone();
        assert!(self.quiet_checks || send.order.encode().is_ok(), "an order does not fit");
        assert!(self.quiet_checks || self.commands.iter().all(|c| c.order.token != token), "a token is used twice");
        self.record(EventKind::OrderIntended(send.intent));
        self.boundary()?;
        let faulty = self.rng.one_in(self.faults.send);
        let mut kind = if faulty { self.rng.below(3) } else { 3 };
        if self.unsendable.as_ref().is_some_and(|bad| send.order.host(bad).is_some()) {
            kind = 0;
        }
        let token_ = token.clone();
        match kind {
            0 => {
                self.record(EventKind::OrderNotSent { token, why: "throttled".to_owned() });
                return Ok(());
            }
            1 => {
                self.record(EventKind::OrderAmbiguous { token, why: "the connection closed".to_owned() });
                return Ok(());
            }
            _ => {}
        }
        self.sent += 1;
        let id = CommandId::new(format!("{:08x}-0000-0000-0000-{:012x}", self.sent, self.rng.next() >> 16)).expect("id");
        for host in &send.order.hosts {
            let never = self.rng.one_in(self.faults.never) || self.deaf || self.mute.as_ref() == Some(&host.instance);
            let at = self.now.plus(1 + self.rng.below(if self.faults.reply > 0 { 40 } else { 3 }));
            let lost = self.rng.one_in(self.faults.reply);
            let delivery = |at, shown, lost| Delivery { token: token_.clone(), instance: host.instance.clone(), at, shown, lost };
            if !never {
                self.deliveries.push(delivery(at, true, lost));
            }
            if self.rng.one_in(self.faults.duplicate) {
                self.deliveries.push(delivery(at.plus(self.rng.below(200)), false, true));
            }
        }
        let mut command = Command {
            id: id.clone(),
            listed_at: self.now.plus(self.rng.below(8)),
            ends: BTreeMap::new(),
            order: Arc::new(send.order),
        };
        // SSM gives up on what it cannot deliver, and on what never answers.
        for host in &command.order.hosts {
            command.ends.insert(host.instance.clone(), (self.now.plus(90), None));
        }
        self.commands.push(command);
        self.boundary()?;
        self.record(match kind {
            2 => EventKind::OrderAmbiguous { token: token_, why: "the answer was lost".to_owned() },
            _ => EventKind::OrderSent { token: token_, command: id },
        });
        Ok(())
    }

    fn read(&mut self, open: &OpenCommand) -> Result<(), Crash> {
        self.boundary()?;
        let now = self.now;
        let Some(command) = self.commands.iter().find(|c| c.id == open.command) else { return Ok(()) };
        let mut events = Vec::new();
        for (instance, operation) in &open.hosts {
            let Some((at, report)) = command.ends.get(instance).filter(|(at, _)| *at <= now) else { continue };
            let (token, instance, operation) = (open.token.clone(), instance.clone(), operation.clone());
            let _ = at;
            let report = report.as_ref().filter(|_| self.mute.as_ref() != Some(&instance));
            events.push(match report {
                Some(report) => {
                    // Through the wire now and then: it is slow without optimisation, and has tests of its own.
                    let wire = !self.quiet_checks && self.commands.len().is_multiple_of(8);
                    let report = if wire { Report::decode(&report.encode()).expect("decodes") } else { report.clone() };
                    EventKind::ReportReceived { token, instance, operation, report: Box::new(report), aws_at: self.aws_at() }
                }
                None => EventKind::InvocationEnded { token, instance, operation, status: "Delivery Timed Out".to_owned() },
            });
        }
        // Answers come in any order, and some twice.
        if self.rng.one_in(2) {
            events.reverse();
        }
        for event in events {
            self.boundary()?;
            if self.rng.one_in(self.faults.forge) {
                self.forge(&event);
            }
            if self.rng.one_in(self.faults.duplicate) {
                self.record(event.clone());
            }
            self.record(event);
        }
        Ok(())
    }

    /// A host that speaks for an operation it was never given.
    fn forge(&mut self, event: &EventKind) {
        if let EventKind::ReportReceived { token, instance, operation, report, .. } = event {
            let before = self.state.summary(self.now);
            let mut forged = report.clone();
            forged.outcome = Outcome::Done;
            forged.operation = OperationId::new("op-forged").expect("id");
            let other = self.plan.hosts.iter().map(|h| &h.instance).find(|i| *i != instance).cloned();
            self.record(EventKind::ReportReceived {
                token: OrderToken::new("t-forged").expect("id"),
                instance: other.unwrap_or_else(|| instance.clone()),
                operation: operation.clone(),
                report: forged,
                aws_at: None,
            });
            let after = self.state.summary(self.now);
            assert_eq!(before.hosts, after.hosts, "h36: a forged report changed a host ({token})");
            assert_eq!(after.disbelieved, before.disbelieved + 1);
        }
    }

    fn advance(&mut self, until: Timestamp) {
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deliveries).into_iter().partition(|d| d.at <= until);
        self.deliveries = later;
        due.sort_by_key(|d| d.at);
        for delivery in due {
            self.deliver(delivery);
        }
        self.now = until;
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Some(at) = self.commands.iter().rposition(|c| c.order.token == delivery.token) else { return };
        let order = self.commands[at].order.clone();
        let (ready, report) = self.host(&order, &delivery.instance, delivery.at);
        if delivery.shown && !delivery.lost {
            self.commands[at].ends.insert(delivery.instance, (ready, Some(report)));
        }
    }

    /// What a host does with an order, and when it answers what.
    fn host(&mut self, order: &Order, instance: &InstanceId, now: Timestamp) -> (Timestamp, Report) {
        let asked = order.host(instance).expect("named in its order");
        let operation = asked.operation.clone();
        let report = |outcome: Outcome, logins: Vec<LoginProof>| Report {
            v: PROTOCOL_VERSION,
            instance: instance.clone(),
            campaign: order.campaign.clone(),
            generation: order.generation,
            operation: operation.clone(),
            at: now,
            outcome,
            step: None,
            message: String::new(),
            databases: Vec::new(),
            logins,
            journal_head: Digest::of(operation.as_str().as_bytes()),
            saw: None,
            detail: None,
            chunk: None,
            omitted: 0,
        };
        const PATIENCE: i64 = 30;
        let known = self.hosts[instance].known.get(&operation).map(|w| (w.finish_at, w.outcome.clone(), w.logins.clone()));
        if let Some((finish_at, outcome, logins)) = known {
            return if finish_at > now.plus(PATIENCE) {
                (now.plus(PATIENCE), report(Outcome::Waiting { code: Code::STILL_RUNNING }, Vec::new()))
            } else {
                (finish_at.max(now), report(outcome, logins))
            };
        }
        let unknown = Outcome::Failed { code: Code::OPERATION_UNKNOWN, retriable: Retriable::Yes };
        let Work::Run { segment, direction } = order.work else {
            return match order.work {
                Work::Status => (now, report(unknown, Vec::new())),
                _ => (now, report(Outcome::Done, Vec::new())),
            };
        };
        if now > order.not_after {
            return (now, report(Outcome::Expired, Vec::new()));
        }
        if self.hosts[instance].known.values().any(|w| w.finish_at > now) {
            return (now, report(Outcome::Failed { code: Code::BUSY, retriable: Retriable::Yes }, Vec::new()));
        }
        // It begins. An operation older than one that began before must never get here.
        let issued = &self.issued[instance];
        let place = |id: &OperationId| issued.iter().position(|i| i == id);
        if let Some(last) = self.hosts[instance].begun.last() {
            assert!(place(&operation) > place(last), "{instance}: {operation} begins after the newer {last}");
        }
        let used: Vec<u16> = match (segment, direction) {
            (Segment::Stage, Direction::Do) => asked.prove_logins.clone(),
            (Segment::Stage, Direction::Undo) => Vec::new(),
            _ => asked
                .databases
                .iter()
                .flat_map(|d| {
                    let old = match d.source {
                        Source::OldHsm { pin } => Some(pin),
                        Source::Software => None,
                    };
                    [Some(d.software), Some(d.cloudhsm), old].into_iter().flatten()
                })
                .collect(),
        };
        let mut logins = Vec::new();
        let mut refused = false;
        for index in used {
            if self.bad.is_some() && order.secret(index) == self.bad.as_ref() {
                refused = true;
                logins.push(LoginProof { secret: index, result: LoginResult::Refused });
                break;
            }
            if segment == Segment::Stage {
                logins.push(LoginProof { secret: index, result: LoginResult::Proven });
            }
        }
        let died = self.rng.one_in(self.faults.worker);
        let step = if self.rng.one_in(self.faults.step) { self.rng.below(4) } else { 4 };
        let cutover = order.work == Work::Run { segment: Segment::Cutover, direction: Direction::Do };
        let fails = cutover && std::mem::take(&mut self.fail_next_cutover);
        let outcome = match step {
            _ if fails => Outcome::Failed { code: Code::STATEMENT_FAILED, retriable: Retriable::No },
            _ if refused => {
                self.bad_logins += 1;
                Outcome::Failed { code: Code::LOGIN_REFUSED, retriable: Retriable::No }
            }
            _ if died => Outcome::Failed { code: Code::WORKER_DIED, retriable: Retriable::Yes },
            0 => Outcome::Failed { code: Code::STATEMENT_FAILED, retriable: Retriable::No },
            1 => Outcome::Failed { code: Code::HSM_FAILED, retriable: Retriable::Yes },
            2 if segment == Segment::Cutover => Outcome::Parked { code: Code::HSM_FAILED },
            3 if segment == Segment::Cutover => Outcome::Stuck { code: Code::SESSION_STILL_RUNNING },
            _ if direction == Direction::Undo => Outcome::Undone,
            _ => Outcome::Done,
        };
        let finish_at = now.plus(2 + self.rng.below(60));
        if cutover {
            self.keeping.keys.push(finish_at);
        }
        let host = self.hosts.get_mut(instance).expect("a host");
        match (segment, direction, &outcome) {
            (Segment::Stage, Direction::Do, Outcome::Done) => host.staged = true,
            (Segment::Cutover, Direction::Do, Outcome::Done) => {
                assert!(host.staged, "{instance} is cut over without being staged");
                host.cut_over = true;
            }
            (Segment::Prove, Direction::Do, Outcome::Done) => {
                assert!(host.cut_over, "{instance} is proven without being cut over");
                host.proven = true;
            }
            (Segment::Cutover, Direction::Undo, Outcome::Undone) => (host.cut_over, host.proven) = (false, false),
            (Segment::Stage, Direction::Undo, Outcome::Undone) => {
                assert!(!host.cut_over, "{instance} loses its client while it is cut over");
                host.staged = false;
            }
            _ => {}
        }
        host.begun.push(operation.clone());
        host.known.insert(operation.clone(), Worked { work: order.work, finish_at, outcome, logins });
        // Invariant 5, by the truth: hosts that are being cut over, or have failed there, are never more than the budget.
        if self.quiet_checks {
            return self.host(order, instance, now);
        }
        let in_cutover = self.hosts.values().filter(|h| {
            h.known
                .values()
                .any(|w| w.finish_at > now && w.work == Work::Run { segment: Segment::Cutover, direction: Direction::Do })
        });
        let busy = in_cutover.count();
        assert!(busy <= usize::from(self.plan.waves.budget), "{busy} hosts are in cutover");
        self.host(order, instance, now)
    }

    /// Operations that each host has begun.
    pub fn begun(&self) -> Vec<usize> {
        self.hosts.values().map(|h| h.begun.len()).collect()
    }

    /// One turn, a crash included.
    pub fn step(&mut self) {
        if self.turn().is_err() {
            self.state = State::replay(self.plan.clone(), &self.journal);
        }
    }

    /// The order that is to be sent now.
    pub fn next_send(&self) -> SendOrder {
        let decisions = self.state.decide(self.now);
        let send = decisions.iter().find_map(|d| match d {
            Decision::Send(send) => Some((**send).clone()),
            _ => None,
        });
        send.unwrap_or_else(|| panic!("{decisions:?}"))
    }

    /// Sends an order and has each of its hosts answer in turn.
    pub fn answer(&mut self, send: &SendOrder, outcomes: &[Outcome]) {
        self.answer_at(send, outcomes, None);
    }

    /// A database was away 300 seconds for the cutover and 40 for the proof.
    pub fn answer_at(&mut self, send: &SendOrder, outcomes: &[Outcome], aws_at: Option<Timestamp>) {
        let away = match send.order.work {
            Work::Run { segment: Segment::Cutover, .. } => 300,
            Work::Run { segment: Segment::Prove, .. } => 40,
            _ => 0,
        };
        let token = send.intent.token.clone();
        self.record(EventKind::OrderIntended(send.intent.clone()));
        let number = self.journal.len();
        let command = CommandId::new(format!("00000000-0000-0000-0000-{number:012}")).expect("id");
        self.record(EventKind::OrderSent { token: token.clone(), command });
        for (asked, outcome) in send.intent.hosts.iter().zip(outcomes) {
            let ordered = send.order.host(&asked.instance).expect("who is asked is ordered");
            let row = |sid: &Sid| DatabaseReport {
                sid: sid.clone(),
                outcome: outcome.clone(),
                starts: 0,
                away,
                keys: Vec::new(),
                orphans: 0,
                drill: None,
            };
            let report = Report {
                v: PROTOCOL_VERSION,
                instance: asked.instance.clone(),
                campaign: campaign(),
                generation: send.order.generation,
                operation: asked.operation.clone(),
                at: self.now,
                outcome: outcome.clone(),
                step: None,
                message: "said so".to_owned(),
                databases: ordered.databases.iter().map(|database| row(&database.sid)).collect(),
                logins: Vec::new(),
                journal_head: Digest::ZERO,
                saw: None,
                detail: None,
                chunk: None,
                omitted: 0,
            };
            let (instance, operation) = (asked.instance.clone(), asked.operation.clone());
            let report = Box::new(report);
            self.record(EventKind::ReportReceived { token: token.clone(), instance, operation, report, aws_at });
        }
    }

    /// The laptop is gone: a new controller has the plan file and the hosts' own journals (H32).
    pub fn lose_journal(&mut self) {
        let hosts = self
            .hosts
            .iter()
            .map(|(instance, host)| HostJournal {
                v: 1,
                instance: instance.clone(),
                held_by: Some(campaign()),
                generation: Generation(1),
                plan: Some(self.plan.digest()),
                operations: host
                    .begun
                    .iter()
                    .filter_map(|id| {
                        let worked = &host.known[id];
                        let Work::Run { segment, direction } = worked.work else { return None };
                        let outcome = (worked.finish_at <= self.now).then(|| worked.outcome.clone());
                        Some(KnownOperation { operation: id.clone(), segment, direction, outcome })
                    })
                    .collect(),
                saw: None,
                logins: Vec::new(),
                journal_head: Digest::ZERO,
            })
            .collect();
        // What the hosts have told is known.
        let told = self.hosts.values().flat_map(|h| h.known.iter()).filter(|(_, w)| w.finish_at <= self.now);
        self.final_reports.extend(told.map(|(id, _)| id.clone()));
        self.keeping.hsms.iter_mut().filter(|h| h.whose == Whose::Ours).for_each(|h| h.whose = Whose::Lost);
        self.journal.clear();
        self.state = State::new(self.plan.clone());
        self.commands.clear();
        // What is on its way is fenced off by the hosts, which have seen the new generation.
        self.deliveries.clear();
        let plan = self.plan.digest();
        self.record(EventKind::CampaignStarted { plan, campaign: campaign(), generation: Generation(2) });
        self.record(EventKind::Adopted { generation: Generation(2), hosts });
    }

    pub fn all(&self, test: fn(bool, bool, bool) -> bool) -> bool {
        self.hosts.values().all(|h| test(h.staged, h.cut_over, h.proven))
    }

    /// Every host that was ever cut over has an inventory that says how it is now.
    pub fn all_inventoried(&self) -> bool {
        self.hosts.iter().all(|(instance, host)| {
            let touched = host.known.values().any(|w| matches!(w.work, Work::Run { segment: Segment::Cutover, .. }));
            !touched || self.inventoried.get(instance).is_some_and(|(cut_over, _)| *cut_over == host.cut_over)
        })
    }

    /// Resumes after every end, as an operator would once the fault is gone.
    pub fn resume_until(&mut self, wanted: End) -> u32 {
        self.faults = Faults::NONE;
        for round in 1..=12 {
            self.record(EventKind::Resumed { hosts: Retry::Failed, window: None });
            if self.drive() == wanted {
                return round;
            }
        }
        panic!("resume does not bring the campaign to {wanted:?}: {:#?}", self.state.summary(self.now));
    }
}
