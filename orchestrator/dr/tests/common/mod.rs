//! A host with one database, one set, one HSM backup: everything is there, and a test takes something away.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::*;
use tde2hsm_dr::inventory::*;
use tde2hsm_dr::points::*;
use tde2hsm_dr::records::*;
use tde2hsm_protocol::*;

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 86_400;
/// When the set of [`world`] was taken: 2026-03-04T00:00:00Z.
pub const TAKEN: Timestamp = Timestamp(1_772_582_400);

pub fn source() -> Region {
    Region::new("eu-central-1").unwrap()
}
pub fn dr() -> Region {
    Region::new("eu-west-1").unwrap()
}
pub fn instance(n: u32) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).unwrap()
}
pub fn volume(n: u32) -> VolumeId {
    VolumeId::new(format!("vol-{n:017x}")).unwrap()
}
pub fn snapshot(n: u32) -> SnapshotId {
    SnapshotId::new(format!("snap-{n:017x}")).unwrap()
}
/// Ids allow letters and 2 to 7.
fn letters(n: u32) -> String {
    let mut n = n;
    (0..11)
        .map(|_| {
            let c = b"abcdefghijklmnopqrstuvwxyz234567"[(n % 32) as usize] as char;
            n /= 32;
            c
        })
        .collect()
}
pub fn backup(n: u32) -> BackupId {
    BackupId::new(format!("backup-{}", letters(n))).unwrap()
}
pub fn cluster() -> ClusterId {
    ClusterId::new(format!("cluster-{}", letters(1))).unwrap()
}
/// Of the secrets' replicas.
pub fn secrets_key() -> KmsKeyArn {
    KmsKeyArn::new("arn:aws:kms:eu-west-1:111122223333:key/0c0c").unwrap()
}
pub fn kms_key() -> KmsKeyArn {
    KmsKeyArn::new("arn:aws:kms:eu-west-1:111122223333:key/0a0a").unwrap()
}
pub fn key(n: u8) -> MasterKeyId {
    MasterKeyId([n; 16])
}
pub fn version(n: u32) -> SecretVersion {
    SecretVersion::new(format!("version-{n:04}")).unwrap()
}
pub fn secret_arn(region: &Region, name: &str) -> SecretArn {
    SecretArn::new(format!("arn:aws:secretsmanager:{region}:111122223333:secret:{name}-AbCdEf")).unwrap()
}
pub fn sid() -> Sid {
    Sid::new("ORCL").unwrap()
}
pub fn root() -> ContainerName {
    ContainerName::new("CDB$ROOT").unwrap()
}

pub struct World {
    pub common: Common,
    pub host: Host,
}

impl World {
    pub fn points(&self) -> Vec<Point> {
        Judge::new(&self.common).host(&self.host)
    }
    /// Of the newest set.
    pub fn verdict(&self) -> Verdict {
        self.points().last().expect("a point").databases[0].verdict.clone()
    }
    pub fn codes(&self) -> Vec<u16> {
        codes(&self.verdict())
    }
    pub fn data(&mut self, f: impl Fn(&mut DatabaseInventory)) {
        self.host.inventories.iter_mut().flat_map(|i| &mut i.databases).for_each(f);
    }
    pub fn dr_snapshot(&mut self, n: u32) -> &mut Snapshot {
        self.host.snapshots.iter_mut().find(|s| s.id == snapshot(n)).expect("a snapshot")
    }
    pub fn dr_backup(&mut self) -> &mut HsmBackup {
        self.common.backups.iter_mut().find(|b| b.region == dr()).expect("a copied backup")
    }
    pub fn dr_secret(&mut self, name: &str) -> &mut Secret {
        let arn = secret_arn(&dr(), name);
        self.common.secrets.iter_mut().find(|s| s.arn == arn).expect("a replica")
    }
}

/// Codes of what keeps it from opening, causes before unknowns.
pub fn codes(verdict: &Verdict) -> Vec<u16> {
    match verdict {
        Verdict::Opens(_) => vec![],
        Verdict::DoesNotOpen { causes, .. } => causes.iter().map(|c| c.code().number()).collect(),
        Verdict::NotProven { unknowns } => unknowns.iter().map(|u| u.code().number()).collect(),
    }
}

pub fn file(what: FileKind, path: &str, n: u32) -> FilePlace {
    FilePlace { what, path: path.into(), volume: Some(volume(n)), ephemeral: false }
}

pub fn known(n: u8, store: Store, activated: Timestamp) -> KnownKey {
    KnownKey { key: key(n), store: Some(store), container: Some(root()), created: Some(activated), activated: Some(activated) }
}

pub fn active(n: u8, store: Store) -> KeyNeed {
    KeyNeed { key: key(n), store: Some(store), needed_by: NeededBy::Container(root()) }
}

pub fn read_only(n: u8, store: Option<Store>) -> KeyNeed {
    let access = tde2hsm_protocol::survey::Access::ReadOnly;
    KeyNeed { key: key(n), store, needed_by: NeededBy::Tablespace { container: root(), name: "OLD".into(), access } }
}

/// Of the cluster's HSM.
pub const ADDRESS: &str = "10.0.1.5";

/// A CloudHSM client that is configured for these.
pub fn client(servers: &[&str]) -> Option<Provider> {
    Some(Provider::CloudHsm { servers: Some(servers.iter().map(ToString::to_string).collect()) })
}

/// Two volumes, 1 (root) and 2 (data), and the keystore on the root volume.
pub fn inventory(taken_at: Timestamp) -> Inventory {
    Inventory {
        v: VERSION,
        instance: instance(1),
        taken_at,
        received_at: taken_at.plus(60),
        ordered_at: Some(taken_at.plus(-60)),
        provider: client(&[ADDRESS]),
        databases: vec![DatabaseInventory {
            sid: sid(),
            dbid: Some(1),
            needs: vec![active(1, Store::Hsm)],
            known: vec![known(1, Store::Hsm, TAKEN.plus(-30 * DAY))],
            blind: BTreeSet::new(),
            files: vec![
                file(FileKind::Datafile, "/u02/users01.dbf", 2),
                file(FileKind::Controlfile, "/u02/control01.ctl", 2),
                file(FileKind::RedoLog, "/u02/redo01.log", 2),
                file(FileKind::KeystoreDir, "/etc/oracle/wallets", 1),
            ],
            keystore: KeystoreFacts {
                directory: Some("/etc/oracle/wallets".into()),
                p12: true,
                auto_login: true,
                local: Some(true),
            },
            unreadable: vec![],
        }],
        files: vec![file(FileKind::Oratab, "/etc/oratab", 1), file(FileKind::CloudHsmClient, "/opt/cloudhsm", 1)],
        unreadable: vec![],
    }
}

pub fn source_snapshot(n: u32, vol: u32, started: Timestamp) -> Snapshot {
    Snapshot {
        id: snapshot(n),
        region: source(),
        volume: Some(volume(vol)),
        size_gib: 10 * vol,
        state: SnapshotState::Completed,
        state_message: None,
        progress: Some(100),
        started,
        started_ms: 137,
        completed: Some(started.plus(600)),
        encrypted: true,
        kms_key: Some(KmsKeyArn::new("arn:aws:kms:eu-central-1:111122223333:key/0b0b").unwrap()),
        archived: false,
        completion_minutes: None,
        description: String::new(),
        tags: BTreeMap::new(),
    }
}

/// The copy of snapshot `n` is `n + 1_000_000`.
pub fn copy_of(from: &Snapshot, token: &str) -> Snapshot {
    let number = u32::from_str_radix(&from.id.as_str()[5..], 16).unwrap();
    let tags = [(tag::SOURCE_SNAPSHOT, from.id.as_str()), (tag::TOKEN, token), (tag::FLEET, "bank")];
    Snapshot {
        id: snapshot(number + 1_000_000),
        region: dr(),
        volume: None,
        started: from.started.plus(1_200),
        completed: Some(from.started.plus(3_600)),
        kms_key: Some(kms_key()),
        tags: tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..from.clone()
    }
}

pub fn intent(from: &Snapshot, token: &str) -> CopyIntent {
    let vol = from.volume.clone().unwrap();
    CopyIntent {
        v: 1,
        source: from.id.clone(),
        source_region: source(),
        set: set_id(&from.tags, &instance(1), from.started),
        instance: instance(1),
        root: vol == volume(1),
        instance_profile: None,
        device: Some(if vol == volume(1) { "/dev/xvda".into() } else { format!("/dev/{vol}") }),
        volume: vol,
        size_gib: from.size_gib,
        started: from.started,
        started_ms: Some(from.started_ms),
        consistency: None,
        kms_key: kms_key(),
        attempts: vec![Attempt { token: token.into(), at: from.started.plus(1_199) }],
        secrets: vec![SecretAt { secret: secret_arn(&source(), "keystore"), versions: vec![version(20)] }],
        expired: None,
    }
}

pub fn source_backup(n: u32, created: Timestamp) -> HsmBackup {
    HsmBackup {
        id: backup(n),
        region: source(),
        cluster: Some(cluster()),
        state: BackupState::Ready,
        created: Some(created),
        copied: None,
        source_backup: None,
        source_region: None,
        never_expires: Some(false),
        deleted: None,
        tags: BTreeMap::new(),
    }
}

/// The copy of backup `n` is `n + 1_000_000`.
pub fn backup_copy(n: u32, created: Timestamp) -> HsmBackup {
    HsmBackup {
        id: backup(n + 1_000_000),
        region: dr(),
        copied: Some(created.plus(1_800)),
        source_backup: Some(backup(n)),
        source_region: Some(source()),
        never_expires: None,
        tags: BTreeMap::from([(tag::TOKEN.to_string(), format!("hsm-{n}"))]),
        ..source_backup(n, created)
    }
}

pub fn hsm_intent(n: u32, created: Timestamp, current: u32) -> HsmCopyIntent {
    HsmCopyIntent {
        v: 1,
        source: backup(n),
        source_region: source(),
        cluster: cluster(),
        created,
        attempts: vec![Attempt { token: format!("hsm-{n}"), at: created.plus(1_700) }],
        secrets: vec![SecretAt { secret: secret_arn(&source(), "cu"), versions: vec![version(current)] }],
        held: false,
    }
}

/// Versions by number, the last one current and the one before previous.
pub fn secret(name: &str, region: &Region, versions: &[(u32, Timestamp)]) -> Secret {
    let count = versions.len();
    let fact = |(index, (n, created)): (usize, &(u32, Timestamp))| SecretVersionFact {
        version: version(*n),
        stages: match count - index {
            1 => BTreeSet::from(["AWSCURRENT".to_string()]),
            2 => BTreeSet::from(["AWSPREVIOUS".to_string()]),
            _ => BTreeSet::new(),
        },
        created: Some(*created),
    };
    Secret {
        arn: secret_arn(region, name),
        region: region.clone(),
        versions: versions.iter().enumerate().map(fact).collect(),
        replicas: BTreeSet::new(),
        deleted: false,
        kms_key: Some(secrets_key()),
    }
}

/// A point that opens.
pub fn world() -> World {
    let snapshots = [source_snapshot(1, 1, TAKEN), source_snapshot(2, 2, TAKEN)];
    let copies: Vec<Snapshot> = snapshots.iter().map(|s| copy_of(s, "t")).collect();
    let long_ago = TAKEN.plus(-90 * DAY);
    World {
        common: Common {
            now: TAKEN.plus(DAY),
            source_region: source(),
            dr_region: dr(),
            cluster: cluster(),
            cluster_addresses: Some([ADDRESS.to_string()].into()),
            backups: vec![source_backup(1, TAKEN.plus(-2 * DAY)), backup_copy(1, TAKEN.plus(-2 * DAY))],
            secrets: ["cu", "keystore"]
                .iter()
                .zip([10, 20])
                .flat_map(|(name, n)| [source(), dr()].map(|region| secret(name, &region, &[(n, long_ago)])))
                .collect(),
            uses: vec![
                SecretUse { secret: secret_arn(&source(), "cu"), role: SecretRole::CryptoUser, of: None },
                SecretUse { secret: secret_arn(&source(), "keystore"), role: SecretRole::Keystore, of: None },
            ],
            kms: [kms_key(), secrets_key()].map(|arn| KmsKey { arn, state: KmsState::Enabled }).to_vec(),
            hsm_copies: vec![hsm_intent(1, TAKEN.plus(-2 * DAY), 10)],
            unasked: BTreeSet::new(),
            gone: BTreeSet::new(),
            retired: BTreeSet::new(),
        },
        host: Host {
            instance: instance(1),
            now: Some(FleetInstance {
                instance: instance(1),
                volumes: BTreeMap::from([("/dev/xvda".into(), volume(1)), ("/dev/sdf".into(), volume(2))]),
                root_device: Some("/dev/xvda".into()),
                name: None,
                instance_profile: None,
            }),
            copies: snapshots.iter().map(|s| intent(s, "t")).collect(),
            snapshots: snapshots.into_iter().chain(copies).collect(),
            inventories: vec![inventory(TAKEN.plus(-HOUR)), inventory(TAKEN.plus(HOUR))],
        },
    }
}

/// A second set, taken at another time, with its copies and the look after it.
pub fn add_set(world: &mut World, first: u32, taken: Timestamp) {
    let snapshots = [source_snapshot(first, 1, taken), source_snapshot(first + 1, 2, taken)];
    for s in &snapshots {
        world.host.copies.push(intent(s, "t"));
        world.host.snapshots.push(copy_of(s, "t"));
    }
    world.host.snapshots.extend(snapshots);
    world.host.inventories.push(inventory(taken.plus(-HOUR)));
    world.host.inventories.push(inventory(taken.plus(HOUR)));
}
