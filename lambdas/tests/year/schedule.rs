//! What happens when: the customer's backups, the DBAs, the functions, the faults.

use crate::cloud::{Inner, YearCloud, copies_of};
use crate::estate::{HOSTS, Host, Hsms, PER_HOST, Place};
use crate::judge::{Foretold, Judging};
use crate::tally::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_dr::points::{SecretRole, SecretUse, set_id};
use tde2hsm_dr_driver::{Cloud as _, DocumentPin, DrConfig, Expiry, Job, store};
use tde2hsm_lambdas::handle;
use tde2hsm_model::cloudhsm::ClusterSpec;
use tde2hsm_model::ec2::InstanceSpec;
use tde2hsm_model::kms::KeyState;
use tde2hsm_model::truth::{Key, Library};
use tde2hsm_model::{CallFault, Ids, Millis, Service, World, WorldOptions};
use tde2hsm_protocol::survey::Access;
use tde2hsm_protocol::{AccountId, ClusterId, Digest, KmsKeyArn, Region, SecretArn, Timestamp};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// 2027-01-01.
const START: Millis = Millis(1_798_761_600_000);
const CLUSTER: &str = "cluster-abcdefghijk";
const FLEET_TAG: (&str, &str) = ("tde2hsm:fleet", "year");
/// How long the customer's own tool keeps what it made.
const SOURCE_DAYS: i64 = 7;
pub const RPO_HOURS: i64 = 36;
/// Days at the year's end without new faults, so that every fault that was planted can strike.
const SETTLES: i64 = 5;
/// How long the copies of strangers take.
const FLOOD: i64 = 10 * HOUR;
/// When the customer's tool takes the first host's set, and how much later each next one's.
const FIRST_SET: i64 = HOUR;
const NEXT_HOST: i64 = 4 * MINUTE;
/// Copies in flight that a region takes.
const PLACES: usize = 20;
/// When the cluster makes its daily backup.
const BACKUP: i64 = 22 * HOUR;
/// MiB/s of timed copies that AWS grants a pair of regions (A§3.2).
const GRANTED: u32 = 2_000;
/// A stranger's volume of 12,000 GiB, copied by so many in so many minutes: more than is granted.
const WAREHOUSE: (u32, usize, u32) = (12_000, 5, 480);
/// How long a key is away that a tablespace needs, until somebody brings it back from a backup.
const BROUGHT_BACK: i64 = 5 * DAY;

#[derive(Debug, Clone)]
pub enum Act {
    Set {
        host: usize,
    },
    /// The next set is not what it should be.
    Careless(Careless),
    /// Somebody deletes a copy of ours by hand.
    LoseCopy,
    /// Somebody else copies with our tags.
    Claim,
    /// Somebody takes every stage that is not AWS's own off a secret.
    Unstage(usize),
    /// The source region answers nobody, or does again.
    Away(bool),
    /// The customer's tool removes its old sets.
    Purge,
    Run(Job),
    /// SET KEY in one container. `Ours`: a campaign does it and writes inventories.
    Rotate {
        host: usize,
        database: usize,
        ours: bool,
    },
    Access {
        host: usize,
        database: usize,
    },
    RotatePin,
    RotatePassword,
    /// A PDB is closed for some days: nobody can read which keys it needs.
    Close {
        host: usize,
        database: usize,
    },
    Open {
        host: usize,
        database: usize,
    },
    Migrate {
        host: usize,
        step: Step,
    },
    Clock {
        host: usize,
        seconds: i64,
    },
    Reach {
        host: usize,
        reachable: bool,
    },
    Key(KeyState),
    Limited(bool),
    Fault(Fault),
    /// Copies of others that fill the destination's places.
    Strangers,
    /// While they last: whether anything waits for them.
    Queue,
    /// The region takes fewer copies at a time than it should, or as many again; how often that was met before.
    Wall(usize, u32),
    /// Somebody deletes the cluster's backups while the newest is being copied.
    PurgeBackups,
    /// Somebody deletes a key that looks left over from the HSM, or brings one back.
    Prune,
    BringBack(Key),
    /// Copies may be bought by their deadline, of so many MiB/s; with none, it is counted what was bought.
    Timed(u32),
    /// Somebody else's copies take all of the throughput. The functions are told of so many MiB/s.
    Warehouse(u32),
    /// What was copied meanwhile, and how much was bought, refused and failed before.
    WithoutTime {
        told: u32,
        since: Millis,
        before: [usize; 2],
    },
    /// A breach was foretold for now.
    Due {
        sid: String,
        at: Millis,
        foretold: Foretold,
    },
}

/// What is wrong with a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Careless {
    /// The data volume is left out.
    Excludes,
    /// One volume after the other.
    Torn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Reverse,
    Swap,
    Forward,
}

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    CopiesFail(u32),
    BackupCopiesFail(u32),
    CopiesLate(u32, i64),
    SnapshotsFail,
    Lost(Service, &'static str),
    Throttle(Service, &'static str, u32),
    EventsLost(u32),
    EventsTwice(u32),
    EventsLate(u32, i64),
}

impl Fault {
    /// As the model names it, and how often it is to strike.
    fn name(self) -> (&'static str, u32) {
        match self {
            Fault::CopiesFail(n) => (COPIES_FAIL, n),
            Fault::BackupCopiesFail(n) => (BACKUP_COPIES_FAIL, n),
            Fault::CopiesLate(n, _) => (COPIES_LATE, n),
            Fault::SnapshotsFail => (SNAPSHOTS_FAIL, 1),
            Fault::Lost(_, "CopySnapshot") => ("LoseReply ec2:CopySnapshot", 1),
            Fault::Lost(_, "CopyBackupToRegion") => ("LoseReply cloudhsm:CopyBackupToRegion", 1),
            Fault::Lost(_, "PutObject") => ("LoseReply s3:PutObject", 1),
            Fault::Lost(..) => ("LoseReply ssm:SendCommand", 1),
            Fault::Throttle(_, _, n) => (THROTTLED, n),
            Fault::EventsLost(n) => (EVENTS_LOST, n),
            Fault::EventsTwice(n) => (EVENTS_TWICE, n),
            Fault::EventsLate(n, _) => (EVENTS_LATE, n),
        }
    }
}

/// When a host's next regular set is taken.
pub fn next_set(now: Millis, host: usize) -> Millis {
    daily(now, FIRST_SET + host as i64 * NEXT_HOST).plus_ms(DAY)
}

/// When the cluster backs itself up, every day.
pub fn next_backup(now: Millis) -> Millis {
    last_backup(now).plus_ms(DAY)
}

pub fn last_backup(now: Millis) -> Millis {
    daily(now, BACKUP)
}

/// The last time of the day before or at a moment.
fn daily(now: Millis, ms: i64) -> Millis {
    START.plus_ms(now.since(START.plus_ms(ms)).div_euclid(DAY) * DAY + ms)
}

fn end(spells: &mut [Spell], host: usize, database: Option<usize>, now: Millis) {
    let open = spells.iter_mut().filter(|s| s.host == host && s.database == database && s.to > now);
    open.for_each(|spell| spell.to = now);
}

/// A set as it was really taken.
#[derive(Debug, Clone)]
pub struct TrueSet {
    pub host: usize,
    pub at: Millis,
    /// Snapshot and volume.
    pub parts: Vec<(String, String)>,
    /// One volume after the other.
    pub torn: bool,
}

/// What was wrong with a host for a while, so that what is said of that while can be held against it.
#[derive(Debug, Clone)]
pub struct Spell {
    pub host: usize,
    /// `None`: the clock.
    pub database: Option<usize>,
    pub from: Millis,
    pub to: Millis,
}

/// A key that somebody deleted from the HSM.
#[derive(Debug, Clone)]
pub struct Gone {
    pub key: Key,
    pub host: usize,
    pub sid: String,
    pub at: Millis,
    pub back: Option<Millis>,
    /// A verdict took it into account.
    pub seen: bool,
}

pub struct Year {
    seed: u64,
    pub days: i64,
    pub cloud: YearCloud,
    pub config: DrConfig,
    pub sets: Vec<TrueSet>,
    pub judging: Judging,
    pub runs: BTreeMap<&'static str, u32>,
    ids: Ids,
    acts: BTreeMap<(Millis, u32), Act>,
    runtime: tokio::runtime::Runtime,
    took: BTreeMap<&'static str, std::time::Duration>,
    secrets: [String; 2],
    pin: String,
    password: String,
    strangers: [String; 2],
    /// For what was planted later than the rest, which stays what it is.
    later: Ids,
    careless: Option<Careless>,
    pub spells: Vec<Spell>,
    pub gone: Vec<Gone>,
    pub tally: Tally,
    planned: u32,
    armed: BTreeMap<&'static str, u32>,
}

impl Year {
    pub fn new(seed: u64, days: i64) -> Self {
        let (source, dr) = (Region::new("us-east-1").expect("a region"), Region::new("us-west-2").expect("a region"));
        let regions = [&source, &dr].map(|r| tde2hsm_model::Region::new(r.as_str()));
        let account = tde2hsm_model::AccountId::new("123456789012");
        let options = WorldOptions {
            hsm_ms: 10 * MINUTE,
            backup_ms: 5 * MINUTE,
            snapshot_ms: 20 * MINUTE,
            snapshot_lag_ms: 30_000,
            snapshot_spacing_ms: 15_000,
            copy_ms: 10 * MINUTE,
            copy_ms_per_gib: 1_500,
            key_check_ms: 3 * MINUTE,
            wrong_source_ms: 30 * MINUTE,
            duplicate_backup_copies: seed % 2 == 1,
            failed_copy_vanishes_ms: seed.is_multiple_of(2).then_some(3 * HOUR),
            ..WorldOptions::default()
        };
        let mut world = World::new(account.clone(), &regions, seed, options);
        let mut ids = Ids::new(seed ^ 0x7965_6172);
        for job in Job::ALL {
            world.grant(job.name(), vec!["*".into()]);
        }
        let west = world.region_mut(&regions[1]).expect("a region");
        let topic = west.sns.add_topic("alarms");
        let kms_key = west.kms.add_key("alias/dr", Millis(0), &mut ids);
        let mut inner = Inner::new(world, source.clone(), dr.clone(), topic.clone(), CLUSTER.to_owned(), kms_key.clone());
        inner.now = START.plus_ms(-10 * DAY);
        let (pin, password) = ("tde:first-pin".to_owned(), "first-password".to_owned());
        let secrets = [("tde/cu", &pin), ("tde/keystore", &password)].map(|(name, value)| {
            let body = json!({"Name": name, "SecretString": value, "AddReplicaRegions": [{"Region": "us-west-2"}]});
            inner.operator(&source, Service::Secrets, "CreateSecret", body)["ARN"].as_str().expect("an ARN").to_owned()
        });
        let mut hsms = Hsms::default();
        hsms.cluster.set_password("tde", "first-pin").expect("it is not limited");
        for number in 0..HOSTS {
            let place = match number {
                0..=3 => Place::CloudHsm,
                4..=6 => Place::OldHsm,
                _ => Place::Software,
            };
            inner.hosts.push(Host::new(number, place, &password, START, &mut hsms, &mut ids));
        }
        inner.hsms = hsms;
        let east = inner.world.region_mut(&regions[0]).expect("a region");
        east.ec2.add_subnet("subnet-1", "vpc-1", "us-east-1a", "10.0.1.0/24");
        let instance = |id: &str, volumes: Vec<String>, sizes: [u32; 3], tags: Vec<(String, String)>| InstanceSpec {
            id: tde2hsm_model::InstanceId::new(id),
            image: "ami-1".into(),
            kind: "r6i.large".into(),
            subnet: "subnet-1".into(),
            groups: vec![],
            private_ip: "10.0.1.5".into(),
            profile: "arn".into(),
            launched: Millis(0),
            tags,
            volumes: volumes
                .into_iter()
                .zip(["/dev/xvda", "/dev/sdf", "/dev/sdg"])
                .zip(sizes)
                .map(|((volume, device), size)| (device.to_owned(), volume, size))
                .collect(),
        };
        for host in &inner.hosts {
            let tags = vec![(FLEET_TAG.0.to_owned(), FLEET_TAG.1.to_owned()), ("Name".to_owned(), host.id.clone())];
            east.ec2.add_instance(&instance(&host.id, host.volumes(), [50, 200, 100], tags));
        }
        let strangers = ["vol-000000000000f0001", "vol-000000000000f0002"].map(str::to_owned);
        east.ec2.add_instance(&instance("i-000000000000f0001", strangers.to_vec(), [50, WAREHOUSE.0, 0], vec![]));
        let created = START.plus_ms(-21 * DAY + BACKUP);
        let zones = [("us-east-1a".to_owned(), "subnet-1".to_owned()), ("us-east-1b".to_owned(), "subnet-2".to_owned())];
        let first = east.hsm.add_cluster(
            ClusterSpec {
                id: CLUSTER.into(),
                created,
                group: "sg-1".into(),
                vpc: "vpc-1".into(),
                subnets: zones.to_vec(),
                certificate: "PEM".into(),
                addresses: vec!["10.0.9.10".into(), "10.0.9.11".into()],
            },
            &mut ids,
        );
        east.hsm.set_retention(CLUSTER, Some(7));
        let token = inner.hsms.cluster.token().clone();
        inner.tokens.insert(first, token.into());
        inner.pass(START);
        let arn = |at: usize| SecretArn::new(secrets[at].as_str()).expect("an ARN");
        let config = DrConfig {
            account: AccountId::new(account.as_str()).expect("an account"),
            fleet: FLEET_TAG.1.to_owned(),
            fleet_tag: (FLEET_TAG.0.to_owned(), FLEET_TAG.1.to_owned()),
            source_region: source,
            dr_region: dr,
            cluster: ClusterId::new(CLUSTER).expect("a cluster"),
            kms_key: KmsKeyArn::new(kms_key).expect("a key"),
            records_bucket: "records".into(),
            secrets: vec![
                SecretUse { secret: arn(0), role: SecretRole::CryptoUser, of: None },
                SecretUse { secret: arn(1), role: SecretRole::Keystore, of: None },
            ],
            rpo_minutes: (RPO_HOURS * 60) as u32,
            copies_in_flight: PLACES as u16,
            timed: tde2hsm_dr::copying::Timed::Never,
            retention: "hourly=0,daily=7,weekly=3,monthly=2".parse().expect("a policy"),
            hsm_backup_retention_days: 10,
            retired: std::collections::BTreeSet::new(),
            topic: Some(topic),
            document: Some(DocumentPin { name: "tde2hsm-host-runner".into(), version: "1".into(), hash: Digest::ZERO }),
            expiry: Expiry::Delete,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let mut year = Self {
            seed,
            days,
            cloud: YearCloud::new(inner),
            config,
            sets: Vec::new(),
            judging: Judging::default(),
            runs: BTreeMap::new(),
            ids,
            acts: BTreeMap::new(),
            runtime,
            took: BTreeMap::new(),
            secrets,
            pin,
            password,
            strangers,
            later: Ids::new(seed ^ 0x006c_6174_6572),
            careless: None,
            spells: Vec::new(),
            gone: Vec::new(),
            tally: Tally::default(),
            planned: 0,
            armed: BTreeMap::new(),
        };
        year.plan();
        year
    }

    fn at(&mut self, day: i64, ms: i64, act: Act) {
        self.then(START.plus_ms(day * DAY + ms), act);
    }

    pub fn then(&mut self, at: Millis, act: Act) {
        self.planned += 1;
        self.acts.insert((at, self.planned), act);
    }

    /// A fault that is sure to have had its time when the year ends.
    fn fault_at(&mut self, day: i64, ms: i64, name: &'static str, n: u32, act: Act) {
        if (0..self.days - SETTLES).contains(&day) {
            self.tally.plant(name, n);
            self.at(day, ms, act);
        }
    }

    /// Whether events reach the functions on a day: the bus works every third day.
    fn has_events(day: i64) -> bool {
        day % 3 == 0
    }

    /// A day of one out of `n`.
    fn one_in(&mut self, n: i64) -> bool {
        self.ids.between(1, n) == 1
    }

    fn pick(&mut self) -> (usize, usize) {
        (self.ids.between(0, HOSTS as i64 - 1) as usize, self.ids.between(0, PER_HOST as i64 - 1) as usize)
    }

    fn plan(&mut self) {
        let away = self.days * 5 / 6;
        for day in 0..self.days {
            // While the source region is away nothing is taken there, and no event comes.
            let taken = !(away..=away + 2).contains(&day);
            for host in 0..HOSTS {
                self.at(day, FIRST_SET + host as i64 * NEXT_HOST, Act::Set { host });
            }
            // The 6-hourly tick of copy-snapshots, and a few shortly after the sets: a survey takes three.
            for ms in [0, 2 * HOUR, 2 * HOUR + 15 * MINUTE, 2 * HOUR + 30 * MINUTE, 6 * HOUR, 12 * HOUR, 18 * HOUR] {
                self.at(day, ms, Act::Run(Job::CopySnapshots));
            }
            for ms in [3 * HOUR, 15 * HOUR] {
                self.at(day, ms, Act::Run(Job::SettleCopies));
            }
            for ms in [30 * MINUTE, 22 * HOUR + 30 * MINUTE] {
                self.at(day, ms, Act::Run(Job::CopyHsmBackups));
            }
            self.at(day, 4 * HOUR, Act::Run(Job::AuditRecovery));
            if day % 2 == 0 {
                self.at(day, 5 * HOUR, Act::Run(Job::ExpireCopies));
            }
            self.at(day, 23 * HOUR, Act::Purge);
            let any = |year: &mut Self| year.ids.between(5 * MINUTE, DAY - 5 * MINUTE);
            if self.one_in(2) {
                let ((host, database), ms, ours) = (self.pick(), any(self), self.ids.between(0, 1) == 0);
                self.fault_at(day, ms, ROTATED, 1, Act::Rotate { host, database, ours });
            }
            // Around the moment of the daily HSM backup, where the clocks of hosts and AWS decide (H8).
            if self.one_in(3) {
                let ((host, database), ms) = (self.pick(), BACKUP + self.ids.between(-5 * MINUTE, 5 * MINUTE));
                self.fault_at(day, ms, ROTATED, 1, Act::Rotate { host, database, ours: false });
            }
            if self.one_in(3) {
                let ((host, database), ms) = (self.pick(), any(self));
                self.fault_at(day, ms, SWITCHED, 1, Act::Access { host, database });
            }
            if self.one_in(20) {
                let ms = any(self);
                self.fault_at(day, ms, PASSWORDS, 1, Act::RotatePin);
            }
            if self.one_in(25) {
                let ms = any(self);
                self.fault_at(day, ms, PASSWORDS, 1, Act::RotatePassword);
            }
            if self.one_in(15) {
                let ((host, database), ms) = (self.pick(), any(self));
                let again = self.ids.between(1, 4);
                self.at(day, ms, Act::Close { host, database });
                self.at(day + again, ms, Act::Open { host, database });
            }
            if self.one_in(4) {
                let (fault, ms) = (self.fault(), any(self));
                self.plant(day, ms, fault);
            }
            if self.one_in(12) {
                let careless = if self.one_in(2) { Careless::Excludes } else { Careless::Torn };
                let ms = FIRST_SET + self.ids.between(0, HOSTS as i64 - 2) * NEXT_HOST + MINUTE;
                let name = if careless == Careless::Torn { TORN } else { EXCLUDES };
                if taken {
                    self.fault_at(day, ms, name, 1, Act::Careless(careless));
                }
            }
            if self.one_in(25) {
                let ms = any(self);
                self.fault_at(day, ms, LOST_COPIES, 1, Act::LoseCopy);
            }
            if self.one_in(25) {
                let ms = any(self);
                self.fault_at(day, ms, CLAIMS, 1, Act::Claim);
            }
            if Self::has_events(day) && self.one_in(3) {
                let fault = match self.ids.between(0, 2) {
                    0 => Fault::EventsLost(2),
                    1 => Fault::EventsTwice(4),
                    _ => Fault::EventsLate(3, 7 * HOUR),
                };
                if taken {
                    self.plant(day, 30 * MINUTE, fault);
                }
            }
            if day % 31 == 11 && taken {
                self.fault_at(day, FIRST_SET + 30 * MINUTE, FLOODS, 1, Act::Strangers);
            }
            if day % 31 == 26 && taken {
                self.fault_at(day, FIRST_SET, WALLS, 1, Act::Wall(6, 0));
            }
            if day % 17 == 8 {
                let ms = self.later.between(5 * MINUTE, DAY - 5 * MINUTE);
                self.fault_at(day, ms, KEYS_GONE, 1, Act::Prune);
            }
            // Copies are bought in the second third of the year.
            for (of_31, name, told) in [(4, NOTHING_LEFT, GRANTED), (18, REFUSED, 2 * GRANTED)] {
                if day % 31 == of_31 && (self.days / 3 + 1..self.days * 2 / 3 - 1).contains(&day) {
                    self.fault_at(day, FIRST_SET + 28 * MINUTE, name, 1, Act::Warehouse(told));
                }
            }
            if day % 45 == 30 {
                self.fault_at(day, BACKUP + 32 * MINUTE, DELETED, 1, Act::PurgeBackups);
            }
            if day % 45 == 20 {
                let host = self.pick().0;
                self.tally.plant(CLOCKS, 1);
                self.at(day, 0, Act::Clock { host, seconds: if day % 2 == 0 { 900 } else { -900 } });
                self.at(day + 3, 0, Act::Clock { host, seconds: 0 });
            }
            if day % 40 == 25 {
                let host = self.pick().0;
                self.tally.plant(UNREACHED, 1);
                self.at(day, 0, Act::Reach { host, reachable: false });
                self.at(day + 3, 0, Act::Reach { host, reachable: true });
            }
        }
        self.fault_at(self.days / 3, 0, BOUGHT, 1, Act::Timed(GRANTED));
        self.at(self.days * 2 / 3, 0, Act::Timed(0));
        // A host a day: old HSM to the interim keystore, the library, and the day after to CloudHSM.
        for (n, host) in (4..HOSTS).enumerate() {
            let day = self.days / 2 - 5 + 2 * n as i64;
            let night = 21 * HOUR + self.ids.between(0, HOUR);
            for (later, step) in
                [(0, Step::Reverse), (50 * MINUTE, Step::Swap), (80 * MINUTE + (n as i64 % 2) * DAY, Step::Forward)]
            {
                self.at(day, night + later, Act::Migrate { host, step });
            }
            self.tally.plant(MIGRATED, PER_HOST as u32);
        }
        let day = self.days / 4;
        self.fault_at(day, 7 * HOUR, KEYLESS, 7, Act::Key(KeyState::Disabled));
        self.at(day + 7, 7 * HOUR, Act::Key(KeyState::Enabled));
        // The keystores' password while a host still depends on it, the HSM's later. AWS keeps the last two by itself.
        for (secret, day) in [(1, self.days * 2 / 5), (0, self.days * 3 / 5)] {
            for before in 1..4 {
                let act = if secret == 1 { Act::RotatePassword } else { Act::RotatePin };
                self.fault_at(day - before, 13 * HOUR, PASSWORDS, 1, act);
            }
            self.fault_at(day, 23 * HOUR, UNSTAGED, 1, Act::Unstage(secret));
        }
        self.fault_at(away, 8 * HOUR, AWAY, 1, Act::Away(true));
        self.at(away + 2, 8 * HOUR, Act::Away(false));
        // Somebody changes keys and the user's password while the cluster refuses both.
        let day = self.days * 2 / 3;
        self.at(day, 9 * HOUR, Act::Limited(true));
        self.at(day + 2, 9 * HOUR, Act::Limited(false));
        for (later, ms, ours) in [(0, 12 * HOUR, true), (0, 23 * HOUR, false), (1, 10 * HOUR, false), (2, 3 * HOUR, true)] {
            let (host, database) = (self.ids.between(0, 3) as usize, self.pick().1);
            self.fault_at(day + later, ms, LIMITED, 1, Act::Rotate { host, database, ours });
        }
        self.fault_at(day + 1, 15 * HOUR, LIMITED, 1, Act::RotatePin);
        // A backup a day, the first twenty days before the year; each goes a week after it was a week old.
        self.tally.plant(PURGED, u32::try_from((self.days - 15).max(0)).unwrap_or(0));
    }

    /// Plants a fault that counts down.
    fn plant(&mut self, day: i64, ms: i64, fault: Fault) {
        let (name, n) = fault.name();
        self.fault_at(day, ms, name, n, Act::Fault(fault));
    }

    fn fault(&mut self) -> Fault {
        match self.ids.between(0, 11) {
            0 => Fault::CopiesFail(3),
            1 => Fault::CopiesFail(12),
            2 => Fault::BackupCopiesFail(1),
            3 => Fault::CopiesLate(4, 20 * HOUR),
            4 => Fault::SnapshotsFail,
            5 => Fault::Lost(Service::Ec2, "CopySnapshot"),
            6 => Fault::Lost(Service::CloudHsm, "CopyBackupToRegion"),
            7 => Fault::Lost(Service::S3, "PutObject"),
            8 => Fault::Lost(Service::Ssm, "SendCommand"),
            9 => Fault::Throttle(Service::Ec2, "DescribeSnapshots", 2),
            10 => Fault::Throttle(Service::CloudHsm, "*", 2),
            _ => Fault::Throttle(Service::S3, "GetObject", 1),
        }
    }

    pub fn times(&self) -> String {
        format!("{:?} {}", self.took, self.cloud.inner().sizes())
    }

    pub fn run(&mut self) {
        let end = START.plus_ms(self.days * DAY);
        while let Some(((at, _), act)) = self.acts.pop_first() {
            if at >= end {
                break;
            }
            self.pass(at);
            self.act(act);
        }
        self.finish();
    }

    /// Lets time pass, and gives each event to its function when it comes.
    fn pass(&mut self, to: Millis) {
        loop {
            let next = self.cloud.inner().world.next_due().filter(|at| *at <= to);
            let Some(at) = next else { break };
            self.cloud.inner().pass(at);
            self.events();
        }
        self.cloud.inner().pass(to);
        self.events();
    }

    fn events(&mut self) {
        let events = std::mem::take(&mut self.cloud.inner().events);
        for (region, event) in events {
            let day = self.cloud.inner().now.since(START).div_euclid(DAY);
            let comes = Self::has_events(day);
            let mut inner = self.cloud.inner();
            inner.ledger.events[usize::from(!comes)] += 1;
            if !comes {
                continue;
            }
            *inner.ledger.given.entry(event["id"].as_str().expect("an event has an id").to_owned()).or_default() += 1;
            drop(inner);
            let job = if region == self.config.dr_region.as_str() { Job::SettleCopies } else { Job::CopySnapshots };
            self.invoke(job, &event);
        }
    }

    fn invoke(&mut self, job: Job, event: &Value) {
        let now = Timestamp(self.cloud.inner().now.0 / 1000);
        self.cloud.inner().function = job.name().to_owned();
        *self.runs.entry(job.name()).or_default() += 1;
        // What a function cannot do now it does at its next run.
        let begun = std::time::Instant::now();
        let answer = self.runtime.block_on(handle(job, event, now, &self.cloud, &self.config));
        *self.took.entry(job.name()).or_default() += begun.elapsed();
        self.judging.said(job, answer.as_ref().unwrap_or_else(|again| &again.outcome));
        self.cloud.inner().copied_twice();
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Set { host } => self.take_set(host),
            Act::Purge => self.purge(),
            Act::Careless(careless) => self.careless = Some(careless),
            Act::LoseCopy => self.lose_copy(),
            Act::Claim => self.claim(),
            Act::Unstage(secret) => self.unstage(secret),
            Act::Away(away) => {
                let mut inner = self.cloud.inner();
                inner.away = away;
                if !away && inner.ledger.unanswered > 0 {
                    self.tally.strike(AWAY, 1);
                }
            }
            Act::Run(Job::ExpireCopies) => {
                let begun = std::time::Instant::now();
                let (before, old) = (self.newest_that_open(), self.that_need_gone_keys());
                *self.took.entry("newest").or_default() += begun.elapsed();
                self.invoke(Job::ExpireCopies, &json!({}));
                self.still_open(&before);
                self.open_with_gone_keys(&old);
            }
            Act::Run(job) => {
                self.invoke(job, &json!({}));
                if job == Job::AuditRecovery {
                    let begun = std::time::Instant::now();
                    self.audit();
                    *self.took.entry("truth").or_default() += begun.elapsed();
                }
            }
            Act::Rotate { host, database, ours } => self.rotate(host, database, ours),
            Act::Access { host, database } => {
                let mut inner = self.cloud.inner();
                // A migration wants everything read-write: the first four hosts are where none is to come.
                let moved = inner.hosts[host].databases[database].place == Place::CloudHsm;
                let at = &mut inner.hosts[if moved { host } else { host % 4 }];
                for container in &mut at.databases[database].containers {
                    if let Some(tablespace) = container.tablespaces.last_mut() {
                        let next = match tablespace.access {
                            Access::ReadWrite => Access::ReadOnly,
                            Access::ReadOnly => Access::Offline,
                            Access::Offline => Access::ReadWrite,
                        };
                        tablespace.access = next;
                    }
                }
                at.touch();
                self.tally.strike(SWITCHED, 1);
            }
            Act::RotatePin => {
                let new = format!("pin-{}", self.ids.hex(8));
                let mut inner = self.cloud.inner();
                if inner.live().1.cluster.set_password("tde", &new).is_err() {
                    self.tally.strike(LIMITED, 1);
                    let later = inner.now.plus_ms(DAY);
                    drop(inner);
                    self.then(later, Act::RotatePin);
                    return;
                }
                self.pin = format!("tde:{new}");
                let body = json!({"SecretId": self.secrets[0], "SecretString": self.pin});
                let region = inner.source.clone();
                inner.operator(&region, Service::Secrets, "PutSecretValue", body);
                let now = inner.now;
                inner.ledger.rotated.push(("tde/cu", now));
                self.tally.strike(PASSWORDS, 1);
            }
            Act::RotatePassword => {
                self.password = format!("password-{}", self.ids.hex(8));
                let body = json!({"SecretId": self.secrets[1], "SecretString": self.password});
                let mut inner = self.cloud.inner();
                for host in &mut inner.hosts {
                    for (password, _) in host.databases.iter_mut().filter_map(|d| d.p12.as_mut()) {
                        password.clone_from(&self.password);
                    }
                    host.touch();
                }
                let region = inner.source.clone();
                inner.operator(&region, Service::Secrets, "PutSecretValue", body);
                let now = inner.now;
                inner.ledger.rotated.push(("tde/keystore", now));
                self.tally.strike(PASSWORDS, 1);
            }
            Act::Close { host, database } => {
                let mut inner = self.cloud.inner();
                let now = inner.now;
                if let Some(container) = inner.hosts[host].databases[database].containers.get_mut(1) {
                    container.open = false;
                    self.spells.push(Spell { host, database: Some(database), from: now, to: Millis(i64::MAX) });
                }
            }
            Act::Open { host, database } => {
                let mut inner = self.cloud.inner();
                let now = inner.now;
                inner.hosts[host].databases[database].containers.iter_mut().for_each(|container| container.open = true);
                end(&mut self.spells, host, Some(database), now);
            }
            Act::Migrate { host, step } => self.migrate(host, step),
            Act::Clock { host, seconds } => {
                let mut inner = self.cloud.inner();
                let now = inner.now;
                inner.hosts[host].clock = inner.hosts[host].usual_clock + seconds;
                match seconds {
                    0 => end(&mut self.spells, host, None, now),
                    _ => self.spells.push(Spell { host, database: None, from: now, to: Millis(i64::MAX) }),
                }
            }
            Act::Reach { host, reachable } => self.cloud.inner().hosts[host].reachable = reachable,
            Act::Key(state) => {
                let region = tde2hsm_model::Region::new(self.config.dr_region.as_str());
                let mut inner = self.cloud.inner();
                assert!(inner.world.region_mut(&region).expect("a region").kms.set_state(self.config.kms_key.as_str(), state));
            }
            Act::Limited(limited) => {
                let region = tde2hsm_model::Region::new(self.config.source_region.as_str());
                let mut inner = self.cloud.inner();
                let state = if limited { "MODIFY_IN_PROGRESS" } else { "ACTIVE" };
                inner.world.region_mut(&region).expect("a region").hsm.set_state(CLUSTER, state);
            }
            Act::Fault(fault) => {
                let mut inner = self.cloud.inner();
                let (name, n) = fault.name();
                // Those that have not struck yet stay.
                let faults = &mut inner.world.faults;
                let left = self.armed.entry(name).or_default();
                *left += n;
                let left = *left - faults.struck().get(name).copied().unwrap_or(0);
                match fault {
                    Fault::CopiesFail(_) => faults.fail_copies(left),
                    Fault::BackupCopiesFail(_) => faults.fail_backup_copies(left),
                    Fault::CopiesLate(_, ms) => faults.delay_copies(left, ms),
                    Fault::SnapshotsFail => faults.fail_snapshots(left),
                    Fault::Lost(service, call) => faults.arm(CallFault::LoseReply, service, call, n),
                    Fault::Throttle(service, call, n) => faults.arm(CallFault::Throttle, service, call, n),
                    Fault::EventsLost(_) => faults.lose_events(left),
                    Fault::EventsTwice(_) => faults.repeat_events(left),
                    Fault::EventsLate(_, ms) => faults.delay_events(left, ms),
                }
            }
            Act::Queue => {
                let inner = self.cloud.inner();
                let dr = inner.world.region(&tde2hsm_model::Region::new(inner.dr.as_str())).expect("a region");
                let today = self.sets.iter().rev().take_while(|set| inner.now.since(set.at) < 12 * HOUR);
                let begun =
                    |source: &str| dr.ec2.snapshots.all().any(|s| s.origin.as_ref().is_some_and(|o| o.snapshot == source));
                if today.flat_map(|set| &set.parts).any(|(source, _)| !begun(source)) {
                    self.tally.strike(FLOODS, 1);
                }
            }
            Act::Wall(places, before) => {
                let mut inner = self.cloud.inner();
                inner.world.options.copies_in_flight = places;
                let (over, walls) = (inner.now.plus_ms(FLOOD), inner.ledger.walls);
                drop(inner);
                if places < PLACES {
                    self.then(over, Act::Wall(PLACES, walls));
                } else if walls > before {
                    self.tally.strike(WALLS, 1);
                }
            }
            Act::Prune => self.prune(),
            Act::BringBack(key) => self.bring_back(key),
            Act::Timed(told) => {
                if told == 0 && self.cloud.inner().ledger.bought.len() > HOSTS * self.days as usize / 3 {
                    self.tally.strike(BOUGHT, 1);
                }
                self.told(told);
            }
            Act::Warehouse(told) => self.warehouse(told),
            Act::WithoutTime { told, since, before } => self.without_time(told, since, before),
            Act::PurgeBackups => self.purge_backups(),
            Act::Due { sid, at, foretold } => self.due(&sid, at, foretold),
            Act::Strangers => self.strangers(),
        }
    }

    /// The customer's own tool: one CreateSnapshots, tagged with a set id or not.
    fn take_set(&mut self, host: usize) {
        let mut inner = self.cloud.inner();
        if inner.away {
            return;
        }
        let region = inner.source.clone();
        let id = inner.hosts[host].id.clone();
        let at = inner.now;
        // One host's tool forgets a volume for months: whatever retention says, the last good point must outlive them.
        let day = at.since(START).div_euclid(DAY) - self.days * 11 / 20;
        let forgets = host == 2 && (0..80).contains(&day);
        let planted = self.careless.take();
        match planted {
            Some(Careless::Torn) => self.tally.strike(TORN, 1),
            Some(Careless::Excludes) => self.tally.strike(EXCLUDES, 1),
            None => {}
        }
        let careless = planted.or(forgets.then_some(Careless::Excludes));
        let torn = careless == Some(Careless::Torn);
        let mut tag = json!({});
        // A torn set is one by its tag alone.
        if host % 2 == 1 || careless == Some(Careless::Torn) {
            tag["TagSpecification.1.ResourceType"] = json!("snapshot");
            tag["TagSpecification.1.Tag.1.Key"] = json!("tde2hsm:set");
            tag["TagSpecification.1.Tag.1.Value"] = json!(format!("set-{id}-{}", at.0 / 1000));
        }
        let with = |name: &str, value: &str| {
            let mut body = tag.clone();
            body[name] = json!(value);
            body
        };
        let mut rows = Vec::new();
        if careless == Some(Careless::Torn) {
            for volume in inner.hosts[host].volumes() {
                rows.push(inner.operator(&region, Service::Ec2, "CreateSnapshot", with("VolumeId", &volume)));
                // A quick script and a slow one.
                let later = inner.now.plus_ms(if host.is_multiple_of(2) { 300 } else { 20_000 });
                inner.pass(later);
            }
        } else {
            let mut body = with("InstanceSpecification.InstanceId", &id);
            if careless == Some(Careless::Excludes) {
                body["InstanceSpecification.ExcludeDataVolumeId.1"] = json!(inner.hosts[host].mounts["/u02"]);
            }
            let reply = inner.operator(&region, Service::Ec2, "CreateSnapshots", body);
            rows.extend(reply["snapshotSet"].as_array().cloned().unwrap_or_default());
        }
        let text = |row: &Value, member: &str| row[member].as_str().unwrap_or_default().to_owned();
        let parts = rows.iter().map(|row| (text(row, "snapshotId"), text(row, "volumeId"))).collect();
        drop(inner);
        self.sets.push(TrueSet { host, at, parts, torn });
    }

    /// A completed copy of a recent set whose source is still there.
    fn lose_copy(&mut self) {
        let mut inner = self.cloud.inner();
        let (now, dr) = (inner.now, inner.dr.clone());
        let recent = self.sets.iter().rev().filter(|set| now.since(set.at) < 4 * DAY).flat_map(|set| &set.parts);
        let copies: Vec<(String, String)> = recent
            .flat_map(|(source, _)| {
                let copies: Vec<String> = copies_of(&inner.world, &dr, source).map(|s| s.id.clone()).collect();
                copies.into_iter().map(|copy| (copy, source.clone()))
            })
            .filter(|(copy, _)| inner.ledger.ours.contains(copy))
            .collect();
        if copies.is_empty() {
            drop(inner);
            self.then(now.plus_ms(DAY), Act::LoseCopy);
            return;
        }
        let (copy, source) = &copies[self.ids.between(0, copies.len() as i64 - 1) as usize];
        inner.lose_copy(copy, source);
        self.tally.strike(LOST_COPIES, 1);
    }

    fn unstage(&mut self, secret: usize) {
        let mut inner = self.cloud.inner();
        let region = inner.source.clone();
        let arn = &self.secrets[secret];
        let described = inner.operator(&region, Service::Secrets, "DescribeSecret", json!({"SecretId": arn}));
        let mut taken = 0;
        for (version, stages) in described["VersionIdsToStages"].as_object().into_iter().flatten() {
            for stage in stages.as_array().into_iter().flatten().filter(|s| s.as_str().is_some_and(|s| !s.starts_with("AWS"))) {
                let body = json!({"SecretId": arn, "VersionStage": stage, "RemoveFromVersionId": version});
                inner.operator(&region, Service::Secrets, "UpdateSecretVersionStage", body);
                taken += 1;
            }
        }
        self.tally.strike(UNSTAGED, u32::from(taken > 0));
    }

    /// A copy that says it is one of ours and that nobody of ours made, of what it says or of something else (H37).
    fn claim(&mut self) {
        let mut inner = self.cloud.inner();
        let (now, dr) = (inner.now, inner.dr.clone());
        let again = now.plus_ms(HOUR);
        let Some(set) = self.sets.iter().rev().find(|set| now.since(set.at) > 2 * HOUR && now.since(set.at) < 3 * DAY) else {
            drop(inner);
            self.then(again, Act::Claim);
            return;
        };
        let (source, volume) = &set.parts[0];
        let honest = self.ids.between(0, 1) == 0;
        let really = if honest { source } else { &set.parts[set.parts.len() - 1].0 };
        let east = tde2hsm_model::Region::new(inner.source.as_str());
        let there = |id: &str| {
            let snapshot = inner.world.region(&east).and_then(|r| r.ec2.snapshots.get(id));
            snapshot.is_some_and(|s| s.state == tde2hsm_model::ec2::SnapshotState::Completed)
        };
        let places = inner.world.options.copies_in_flight;
        let free = inner
            .world
            .region(&tde2hsm_model::Region::new(dr.as_str()))
            .is_some_and(|r| r.ec2.snapshots.copies_in_flight() + 1 < places);
        if !there(really) || !free {
            drop(inner);
            self.then(again, Act::Claim);
            return;
        }
        let id = inner.hosts[set.host].id.clone();
        let shown = inner.world.region(&east).and_then(|r| r.ec2.snapshots.get(source)).map(|s| s.tags.clone());
        let instance = tde2hsm_protocol::InstanceId::new(id.as_str()).expect("an instance id");
        let label = set_id(&shown.unwrap_or_default().into_iter().collect(), &instance, Timestamp(set.at.0 / 1000));
        let mut body =
            json!({"SourceRegion": "us-east-1", "SourceSnapshotId": really, "TagSpecification.1.ResourceType": "snapshot"});
        let tags = [
            ("tde2hsm:fleet", FLEET_TAG.1.to_owned()),
            ("tde2hsm:set", label.0),
            ("tde2hsm:source-snapshot", source.clone()),
            ("tde2hsm:source-region", "us-east-1".to_owned()),
            ("tde2hsm:source-volume", volume.clone()),
            ("tde2hsm:instance", id),
            ("tde2hsm:source-started", (set.at.0 / 1000).to_string()),
        ];
        for (n, (key, value)) in tags.iter().enumerate() {
            body[format!("TagSpecification.1.Tag.{}.Key", n + 1)] = json!(key);
            body[format!("TagSpecification.1.Tag.{}.Value", n + 1)] = json!(value);
        }
        // Faults are for the product's own calls.
        let armed = std::mem::take(&mut inner.world.faults);
        inner.operator(&dr, Service::Ec2, "CopySnapshot", body);
        inner.world.faults = armed;
        self.tally.strike(CLAIMS, 1);
    }

    fn purge(&mut self) {
        let mut inner = self.cloud.inner();
        if inner.away {
            return;
        }
        let (region, now) = (inner.source.clone(), inner.now);
        let old = tde2hsm_model::Region::new(region.as_str());
        let gone: Vec<String> = inner
            .world
            .region(&old)
            .into_iter()
            .flat_map(|r| r.ec2.snapshots.all())
            .filter(|s| now.since(s.started) > SOURCE_DAYS * DAY)
            .map(|s| s.id.clone())
            .collect();
        for id in gone {
            inner.operator(&region, Service::Ec2, "DeleteSnapshot", json!({"SnapshotId": id}));
        }
    }

    fn rotate(&mut self, host: usize, database: usize, ours: bool) {
        let mut inner = self.cloud.inner();
        let now = inner.now;
        let (hosts, hsms) = inner.live();
        let at = &mut hosts[host];
        let clock = at.clock;
        let target = &mut at.databases[database];
        let container = target.containers.len() - 1;
        if target.stands_still(container) {
            drop(inner);
            self.then(now.plus_ms(DAY), Act::Rotate { host, database, ours });
            return;
        }
        if target.make_key(container, target.place, now, clock, hsms, &mut self.ids).is_err() {
            drop(inner);
            self.tally.strike(LIMITED, 1);
            self.then(now.plus_ms(DAY), Act::Rotate { host, database, ours });
            return;
        }
        self.tally.strike(ROTATED, 1);
        at.touch();
        drop(inner);
        if ours {
            self.campaign_looks(host);
        }
    }

    /// A campaign writes an inventory after it changed something.
    fn campaign_looks(&mut self, host: usize) {
        let account = self.config.account.clone();
        let mut inner = self.cloud.inner();
        let (now, region) = (inner.now, inner.source.clone());
        if !inner.hosts[host].reachable {
            return;
        }
        let survey = inner.hosts[host].survey(&account, &region, now);
        inner.function = "campaign".into();
        inner.world.grant("campaign", vec!["*".into()]);
        drop(inner);
        let now = Timestamp(now.0 / 1000);
        let instances = self.runtime.block_on(self.cloud.fleet_instances(&region, &self.config.fleet_tag)).unwrap_or_default();
        let instance = instances.iter().find(|one| one.instance == survey.instance);
        let inventory = Inventory::from_survey(&survey, now.plus(30), Some(now.plus(-5)), instance);
        let _ = self.runtime.block_on(store::keep_inventory(&self.cloud, &inventory));
    }

    fn migrate(&mut self, host: usize, step: Step) {
        let mut inner = self.cloud.inner();
        let now = inner.now;
        let password = self.password.clone();
        let (hosts, hsms) = inner.live();
        let at = &mut hosts[host];
        let clock = at.clock;
        for (n, database) in at.databases.iter_mut().enumerate().filter(|_| step != Step::Swap) {
            let (from, to) = match step {
                Step::Reverse => (Place::OldHsm, Place::Software),
                _ => (Place::Software, Place::CloudHsm),
            };
            if database.place != from {
                continue;
            }
            if to == Place::Software {
                database.p12.get_or_insert_with(|| (password.clone(), Default::default()));
            }
            for container in 0..database.containers.len() {
                database.containers[container].open = true;
                if database.make_key(container, to, now, clock, hsms, &mut self.ids).is_err() {
                    drop(inner);
                    self.tally.strike(LIMITED, 1);
                    self.then(now.plus_ms(DAY), Act::Migrate { host, step });
                    return;
                }
            }
            end(&mut self.spells, host, Some(n), now);
            database.place = to;
            database.checkpoint();
            if to == Place::CloudHsm {
                database.auto_open(n == 2);
            }
        }
        if step == Step::Swap {
            at.library = Library::CloudHsm;
            at.client = true;
            at.servers = vec!["10.0.9.10".into(), "10.0.9.11".into()];
        }
        at.touch();
        drop(inner);
        self.campaign_looks(host);
    }

    /// Somebody else's copies, which take most places of the destination for ten hours.
    fn strangers(&mut self) {
        let mut inner = self.cloud.inner();
        let (source, dr) = (inner.source.clone(), inner.dr.clone());
        let body = json!({"VolumeId": self.strangers[0]});
        let made = inner.operator(&source, Service::Ec2, "CreateSnapshot", body)["snapshotId"].clone();
        let later = inner.now.plus_ms(20 * MINUTE);
        inner.pass(later);
        let armed = std::mem::take(&mut inner.world.faults);
        inner.world.faults.delay_copies(18, FLOOD);
        for _ in 0..18 {
            let region = tde2hsm_model::Region::new(dr.as_str());
            let full = inner.world.region(&region).is_some_and(|r| r.ec2.snapshots.copies_in_flight() >= PLACES - 1);
            if full {
                break;
            }
            let body = json!({"SourceRegion": "us-east-1", "SourceSnapshotId": made});
            inner.operator(&dr, Service::Ec2, "CopySnapshot", body);
        }
        inner.world.faults = armed;
        let soon = inner.now.plus_ms(HOUR);
        drop(inner);
        self.then(soon, Act::Queue);
    }

    fn prune(&mut self) {
        let mut inner = self.cloud.inner();
        let now = inner.now;
        let (hosts, hsms) = inner.live();
        let mut left_over = Vec::new();
        for (host, database) in hosts.iter().enumerate().flat_map(|(n, host)| host.databases.iter().map(move |d| (n, d))) {
            left_over.extend(database.left_over(now).into_iter().map(|key| (host, database.sid.clone(), key)));
        }
        let at = self.later.between(0, left_over.len() as i64 - 1) as usize;
        let gone = left_over.get(at).filter(|(.., key)| hsms.cluster.delete_key(key) == Ok(true)).cloned();
        let Some((host, sid, key)) = gone else {
            drop(inner);
            self.then(now.plus_ms(DAY), Act::Prune);
            return;
        };
        let databases = &mut hosts[host].databases;
        let database = databases.iter_mut().find(|database| database.sid == sid).expect("it has just been found");
        database.keys.iter_mut().filter(|row| row.key == key).for_each(|row| row.gone = true);
        let read = database.reads(key);
        drop(inner);
        self.gone.push(Gone { key, host, sid, at: now, back: None, seen: false });
        if read {
            self.then(now.plus_ms(BROUGHT_BACK), Act::BringBack(key));
        }
    }

    fn bring_back(&mut self, key: Key) {
        let mut inner = self.cloud.inner();
        let now = inner.now;
        let (hosts, hsms) = inner.live();
        if hsms.cluster.make_key(key).is_err() {
            drop(inner);
            self.then(now.plus_ms(DAY), Act::BringBack(key));
            return;
        }
        let rows = hosts.iter_mut().flat_map(|host| &mut host.databases).flat_map(|database| &mut database.keys);
        rows.filter(|row| row.key == key).for_each(|row| row.gone = false);
        self.gone.iter_mut().filter(|gone| gone.key == key).for_each(|gone| gone.back = Some(now));
    }

    fn told(&mut self, mib_s: u32) {
        self.config.timed = tde2hsm_dr::copying::Timed::from_mib_s(mib_s);
        self.cloud.inner().told = mib_s.into();
    }

    /// Copies of a volume so large that they take all of the throughput for hours.
    fn warehouse(&mut self, told: u32) {
        let (_, copies, minutes) = WAREHOUSE;
        let mut inner = self.cloud.inner();
        let (source, dr) = (inner.source.clone(), inner.dr.clone());
        let west = tde2hsm_model::Region::new(dr.as_str());
        let taken = inner.world.region(&west).map_or(0, |r| r.ec2.snapshots.copies_in_flight());
        let now = inner.now;
        if taken + copies > PLACES / 2 {
            drop(inner);
            self.then(now.plus_ms(DAY), Act::Warehouse(told));
            return;
        }
        let armed = std::mem::take(&mut inner.world.faults);
        let body = json!({"VolumeId": self.strangers[1]});
        let made = inner.operator(&source, Service::Ec2, "CreateSnapshot", body)["snapshotId"].clone();
        let completed = inner.now.plus_ms(21 * MINUTE);
        inner.pass(completed);
        for _ in 0..copies {
            let body =
                json!({"SourceRegion": "us-east-1", "SourceSnapshotId": made, "CompletionDurationMinutes": minutes.to_string()});
            inner.operator(&dr, Service::Ec2, "CopySnapshot", body);
        }
        inner.world.faults = armed;
        let before = [inner.ledger.unbought.len(), inner.ledger.calls_failed as usize];
        let (since, check) = (inner.now, inner.now.plus_ms(HOUR));
        drop(inner);
        self.told(told);
        self.then(check, Act::WithoutTime { told, since, before });
    }

    /// What was to be bought meanwhile was begun like any other: at once where the functions knew that nothing was left, after
    /// AWS's refusal where they were told of more than there is.
    fn without_time(&mut self, told: u32, since: Millis, before: [usize; 2]) {
        let inner = self.cloud.inner();
        let dr = inner.world.region(&tde2hsm_model::Region::new(inner.dr.as_str())).expect("a region");
        let ours = |id: &str| inner.ledger.ours.contains(id);
        let begun: Vec<_> = dr.ec2.snapshots.all().filter(|s| s.started >= since && ours(&s.id)).collect();
        let untimed = |source: &str| {
            begun.iter().any(|s| s.completion_minutes.is_none() && s.origin.as_ref().is_some_and(|o| o.snapshot == source))
        };
        let refused = &inner.ledger.unbought[before[0]..];
        let all = begun.iter().all(|s| s.completion_minutes.is_none()) && refused.iter().all(|source| untimed(source));
        let struck = match told > GRANTED {
            true => all && !refused.is_empty(),
            // Who could not ask what is in flight may be refused.
            false => all && (refused.is_empty() || inner.ledger.calls_failed as usize > before[1] + refused.len()),
        };
        let (nothing, now) = (begun.is_empty(), inner.now);
        drop(inner);
        self.told(GRANTED);
        match nothing {
            true => self.then(now.plus_ms(DAY - HOUR), Act::Warehouse(told)),
            false => self.tally.strike(if told > GRANTED { REFUSED } else { NOTHING_LEFT }, u32::from(struck)),
        }
    }

    /// All of them, the newest too, while it is being copied: the copy fails, and its source can be copied no more.
    fn purge_backups(&mut self) {
        let mut inner = self.cloud.inner();
        let (source, dr, now) = (inner.source.clone(), inner.dr.clone(), inner.now);
        let ids = |inner: &mut Inner, region: &Region, state: &str, id: &str| -> Vec<String> {
            let body = json!({"Filters": {"clusterIds": [CLUSTER], "states": [state]}});
            let reply = inner.operator(region, Service::CloudHsm, "DescribeBackups", body);
            reply["Backups"].as_array().into_iter().flatten().filter_map(|b| b[id].as_str().map(str::to_owned)).collect()
        };
        let armed = std::mem::take(&mut inner.world.faults);
        let flying = ids(&mut inner, &dr, "CREATE_IN_PROGRESS", "SourceBackup");
        if !flying.is_empty() {
            for id in ids(&mut inner, &source, "READY", "BackupId") {
                inner.operator(&source, Service::CloudHsm, "DeleteBackup", json!({"BackupId": id}));
            }
        }
        inner.world.faults = armed;
        drop(inner);
        if flying.is_empty() {
            self.then(now.plus_ms(DAY), Act::PurgeBackups);
        } else {
            self.tally.strike(DELETED, 1);
        }
    }

    /// Counts what only the end of the year shows.
    fn finish(&mut self) {
        let opens = self.newest_that_open();
        let inner = self.cloud.inner();
        let struck = inner.world.faults.struck();
        for name in self.tally.names() {
            self.tally.strike(name, struck.get(name).copied().unwrap_or(0));
        }
        self.tally.strike(KEYS_GONE, self.gone.iter().filter(|gone| gone.seen).count() as u32);
        let throttled = struck.iter().filter(|(name, _)| name.starts_with("Throttle ")).map(|(_, n)| n).sum();
        self.tally.strike(THROTTLED, throttled);
        let ledger = &inner.ledger;
        self.tally.strike(PURGED, ledger.purged.len() as u32);
        self.tally.strike(CLOCKS, ledger.clocks_off);
        self.tally.strike(UNREACHED, ledger.undelivered);
        let moved = inner.hosts[4..].iter().flat_map(|host| &host.databases).filter(|d| {
            let fresh = opens.get(&d.sid).is_some_and(|n| inner.now.since(self.sets[*n].at) < 2 * DAY);
            d.place == Place::CloudHsm && fresh
        });
        let moved = moved.count() as u32;
        self.tally.strike(MIGRATED, moved);
        // A fault of the bus counts where a function felt it.
        let twice = ledger.given.values().filter(|n| **n > 1).count() as u32;
        self.tally.felt(EVENTS_TWICE, twice);
    }

    pub fn wrong(&self) -> Vec<String> {
        let inner = self.cloud.inner();
        inner.violations.iter().chain(&self.judging.wrong).cloned().collect()
    }

    pub fn table(&self) -> String {
        let inner = self.cloud.inner();
        let ledger = &inner.ledger;
        let mut rows = vec![
            ("seed".to_owned(), self.seed.to_string()),
            ("days".to_owned(), self.days.to_string()),
            ("databases".to_owned(), (HOSTS * PER_HOST).to_string()),
            ("sets".to_owned(), self.sets.len().to_string()),
            ("copies begun".to_owned(), ledger.begun.to_string()),
            ("copies completed".to_owned(), ledger.completed.keys().filter(|k| k.starts_with("snap-")).count().to_string()),
            ("HSM backups copied".to_owned(), ledger.completed.keys().filter(|k| k.starts_with("backup-")).count().to_string()),
            ("copies bought by their deadline".to_owned(), ledger.bought.len().to_string()),
            ("calls for which no throughput was left".to_owned(), ledger.unbought.len().to_string()),
            ("calls at the in-flight wall".to_owned(), ledger.walls.to_string()),
            ("calls that failed".to_owned(), ledger.calls_failed.to_string()),
            ("events delivered".to_owned(), ledger.events[0].to_string()),
            ("events lost".to_owned(), ledger.events[1].to_string()),
            ("surveys".to_owned(), ledger.surveys.to_string()),
            ("deletions of ours".to_owned(), ledger.deleted.to_string()),
        ];
        rows.extend(self.runs.iter().map(|(job, n)| (format!("runs of {job}"), n.to_string())));
        rows.push(("faults".to_owned(), String::new()));
        rows.extend(self.tally.rows());
        rows.extend(self.judging.rows());
        rows.push(("wrong".to_owned(), (inner.violations.len() + self.judging.wrong.len()).to_string()));
        rows.iter().map(|(name, value)| format!("{name:<64} {value:>12}\n")).collect()
    }
}
