//! Forty databases on eight hosts, coarse: which keys they use, which files lie on which volume, what a survey of them says.
//!
//! What is on the disks goes to the truth as a [`Machine`]; what host-runner would report is a [`Survey`]. The two are made
//! of one state and by separate code, so that a survey that left something out would be caught.

use crate::schedule::DAY;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tde2hsm_model::truth::{self, File, Hsm, Key, Library, Machine, Refusal};
use tde2hsm_model::{Ids, Millis};
use tde2hsm_protocol::survey::{self, Access, AutoLogin, FileKind, InstanceState, Survey};
use tde2hsm_protocol::{AccountId, ContainerName, Digest, InstanceId, MasterKeyId, Region, Sid, Store, Timestamp, VolumeId};

pub const HOSTS: usize = 8;
pub const PER_HOST: usize = 5;
pub const HOME: &str = "/u01/app/oracle/product/19.0.0/dbhome_1";
/// How long crash recovery may meet redo of a former key, at most: log switches and checkpoints come sooner.
const REDO_MS: i64 = 6 * 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    OldHsm,
    Software,
    CloudHsm,
}

impl Place {
    fn store(self) -> Store {
        if self == Place::Software { Store::Software } else { Store::Hsm }
    }
}

#[derive(Debug, Clone)]
pub struct KeyRow {
    pub key: Key,
    pub place: Place,
    pub container: usize,
    /// By the host's clock.
    pub made: Millis,
    pub used: Millis,
    /// Somebody deleted it from the HSM.
    pub gone: bool,
}

#[derive(Debug, Clone)]
pub struct Tablespace {
    pub name: String,
    pub key: Key,
    pub access: Access,
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub active: Key,
    pub tablespaces: Vec<Tablespace>,
    /// The key of encrypted columns, which SET KEY re-wraps like a read-write tablespace's.
    pub columns: bool,
    /// Former keys that redo may still ask for, until when.
    pub redo: Vec<(Key, Millis)>,
    pub open: bool,
}

#[derive(Debug, Clone)]
pub struct Database {
    pub sid: String,
    pub dbid: u64,
    pub place: Place,
    pub containers: Vec<Container>,
    pub keys: Vec<KeyRow>,
    /// Password and keys of `ewallet.p12`.
    pub p12: Option<(String, BTreeSet<Key>)>,
    pub sso: Option<Sso>,
}

#[derive(Debug, Clone)]
pub struct Sso {
    pub local: bool,
    pub keys: BTreeSet<Key>,
}

#[derive(Debug)]
pub struct Host {
    pub id: String,
    pub root: String,
    /// Mount point to volume.
    pub mounts: BTreeMap<String, String>,
    pub library: Library,
    pub client: bool,
    pub servers: Vec<String>,
    pub databases: Vec<Database>,
    /// How many seconds the host's clock is ahead, now and on a good day: less than the five minutes of H8.
    pub clock: i64,
    pub usual_clock: i64,
    pub reachable: bool,
    frozen: Option<Arc<Machine>>,
    frozen_until: Option<Millis>,
}

/// HSMs that live: the fleet's CloudHSM cluster and the old one.
#[derive(Debug, Default)]
pub struct Hsms {
    pub cluster: Hsm,
    pub old: Hsm,
}

pub fn key(ids: &mut Ids) -> Key {
    let mut key = [0; 16];
    hex_into(&ids.hex(32), &mut key);
    key
}

fn hex_into(text: &str, out: &mut Key) {
    for (n, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hexadecimal digits");
    }
}

impl Host {
    pub fn new(number: usize, place: Place, password: &str, now: Millis, hsms: &mut Hsms, ids: &mut Ids) -> Self {
        let volume = |n: usize| format!("vol-{:017x}", number * 16 + n + 1);
        let mut mounts = BTreeMap::from([("/u02".to_owned(), volume(1))]);
        // Some hosts have their archived logs on a volume of their own.
        if number.is_multiple_of(4) {
            mounts.insert("/u03".to_owned(), volume(2));
        }
        let mut host = Self {
            id: format!("i-{:017x}", number + 1),
            root: volume(0),
            mounts,
            library: if place == Place::OldHsm { Library::Old } else { Library::CloudHsm },
            client: place == Place::CloudHsm,
            servers: if place == Place::CloudHsm { vec!["10.0.9.10".into(), "10.0.9.11".into()] } else { Vec::new() },
            databases: Vec::new(),
            clock: 0,
            usual_clock: 0,
            reachable: true,
            frozen: None,
            frozen_until: None,
        };
        host.usual_clock = ids.between(-240, 240);
        host.clock = host.usual_clock;
        for n in 0..PER_HOST {
            let cdb = n % 2 == 0;
            let names: Vec<String> = if cdb { vec!["CDB$ROOT".into(), "PDB1".into()] } else { vec![format!("DB{number}{n}")] };
            let mut database = Database {
                sid: format!("DB{number}{n}"),
                dbid: 1_000_000 + (number * 10 + n) as u64,
                place,
                containers: Vec::new(),
                keys: Vec::new(),
                p12: (place != Place::OldHsm).then(|| (password.to_owned(), BTreeSet::new())),
                sso: None,
            };
            for (at, name) in names.into_iter().enumerate() {
                database.containers.push(Container {
                    name,
                    active: [0; 16],
                    tablespaces: ["DATA", "HIST"][..if at == 0 && cdb { 1 } else { 2 }]
                        .iter()
                        .map(|name| Tablespace { name: (*name).to_owned(), key: [0; 16], access: Access::ReadWrite })
                        .collect(),
                    columns: n == 1,
                    redo: Vec::new(),
                    open: true,
                });
                // Long before the year begins.
                let long_ago = now.plus_ms(-60 * 86_400_000);
                database.make_key(at, place, long_ago, 0, hsms, ids).expect("no HSM is limited before the year begins");
            }
            for container in &mut database.containers {
                container.redo.clear();
            }
            if place == Place::CloudHsm {
                database.auto_open(n == 3);
            }
            host.databases.push(database);
        }
        host
    }

    pub fn volumes(&self) -> Vec<String> {
        std::iter::once(&self.root).chain(self.mounts.values()).cloned().collect()
    }

    /// Whatever changes on its disks is said here, before or after.
    pub fn touch(&mut self) {
        self.frozen = None;
    }

    /// What its disks hold now.
    pub fn machine(&mut self, now: Millis) -> Arc<Machine> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.frozen = None;
        }
        if self.frozen.is_none() {
            let redo = self.databases.iter().flat_map(|d| &d.containers).flat_map(|c| &c.redo);
            self.frozen_until = redo.map(|(_, until)| *until).filter(|until| *until > now).min();
            self.frozen = Some(Arc::new(self.disks(now)));
        }
        self.frozen.clone().expect("made above")
    }

    fn archive(&self, sid: &str) -> String {
        let point = if self.mounts.contains_key("/u03") { "/u03" } else { "/u02" };
        format!("{point}/arch/{sid}")
    }

    fn disks(&self, now: Millis) -> Machine {
        let mut files = BTreeMap::new();
        let homes = self.databases.iter().map(|d| (d.sid.clone(), HOME.to_owned())).collect();
        files.insert(truth::ORATAB.to_owned(), File::Oratab(homes));
        files.insert(HOME.to_owned(), File::Home);
        files.insert(truth::PROVIDER.to_owned(), File::Provider(self.library));
        if self.client {
            files.insert(truth::CLIENT.to_owned(), File::Client);
        }
        for database in &self.databases {
            let sid = &database.sid;
            let data = format!("/u02/oradata/{sid}");
            let keystore = format!("/u01/keystore/{sid}");
            let mut datafiles = Vec::new();
            let mut redo = BTreeSet::new();
            for container in &database.containers {
                for (n, tablespace) in container.tablespaces.iter().enumerate() {
                    let path = format!("{data}/{}_{}.dbf", container.name, tablespace.name);
                    let mut keys = vec![tablespace.key];
                    if container.columns && n == 0 {
                        keys.push(container.active);
                    }
                    files.insert(path.clone(), File::Datafile { keys });
                    datafiles.push(path);
                }
                redo.insert(container.active);
                redo.extend(container.redo.iter().filter(|(_, until)| *until > now).map(|(key, _)| *key));
            }
            files.insert(format!("{HOME}/dbs/spfile{sid}.ora"), File::Spfile { control: format!("{data}/control01.ctl") });
            files.insert(format!("{HOME}/dbs/orapw{sid}"), File::PasswordFile);
            let sqlnet = format!("{HOME}/network/admin/{sid}/sqlnet.ora");
            let has_keystore = database.p12.is_some() || database.sso.is_some();
            files.insert(sqlnet, File::Sqlnet { keystore: has_keystore.then(|| keystore.clone()) });
            let logs = vec![format!("{data}/redo01.log")];
            let archive = self.archive(sid);
            files.insert(
                format!("{data}/control01.ctl"),
                File::Controlfile { datafiles, redo: logs.clone(), archive: archive.clone() },
            );
            files.insert(logs[0].clone(), File::Redo { keys: redo });
            files.insert(archive, File::Archive);
            if let Some((password, keys)) = &database.p12 {
                files.insert(format!("{keystore}/ewallet.p12"), File::P12 { password: password.clone(), keys: keys.clone() });
            }
            if let Some(sso) = &database.sso {
                files.insert(format!("{keystore}/cwallet.sso"), File::Sso { local: sso.local, keys: sso.keys.clone() });
            }
        }
        Machine { root: self.root.clone(), mounts: self.mounts.clone(), files }
    }

    /// What host-runner says of it.
    pub fn survey(&self, account: &AccountId, region: &Region, now: Millis) -> Survey {
        let disk = |name: &str, volume: &str| survey::Disk {
            name: name.to_owned(),
            volume: Some(VolumeId::new(volume).expect("a volume id")),
            ephemeral: false,
        };
        let mut mounts = vec![mount("/", disk("nvme0n1", &self.root))];
        mounts.extend(
            self.mounts.iter().enumerate().map(|(n, (point, volume))| mount(point, disk(&format!("nvme{}n1", n + 1), volume))),
        );
        let vendor = match self.library {
            Library::Old => survey::Vendor::Other,
            Library::CloudHsm => survey::Vendor::CloudHsm,
        };
        let mut files = vec![self.place(FileKind::Provider, truth::PROVIDER), self.place(FileKind::Oratab, truth::ORATAB)];
        if self.client {
            files.push(self.place(FileKind::CloudHsmClient, truth::CLIENT));
        }
        Survey {
            v: 1,
            taken_at: Timestamp(now.0.div_euclid(1000) + self.clock),
            instance: InstanceId::new(self.id.as_str()).expect("an instance id"),
            account: account.clone(),
            region: region.clone(),
            runner_version: "0.1.0".into(),
            os: survey::Os {
                id: "ol".into(),
                version: "8.9".into(),
                arch: "x86_64".into(),
                kernel: "5.15".into(),
                systemd: true,
            },
            clusterware: false,
            autostarts: Vec::new(),
            provider: survey::Provider {
                libraries: Vec::new(),
                mapped: Vec::new(),
                packages: Vec::new(),
                cloudhsm_mapped: false,
                vendor: Some(vendor),
                cloudhsm_servers: (!self.servers.is_empty()).then(|| self.servers.clone()),
            },
            filesystems: Vec::new(),
            databases: self.databases.iter().map(|d| self.survey_of(d)).collect(),
            unreadable: Vec::new(),
            files: Some(files),
            mounts,
        }
    }

    fn place(&self, what: FileKind, path: &str) -> survey::FilePlace {
        let point = self.mounts.keys().find(|point| path.starts_with(&format!("{point}/"))).map_or("/", String::as_str);
        survey::FilePlace { what, path: path.to_owned(), mounts: Some(vec![point.to_owned()]) }
    }

    fn survey_of(&self, database: &Database) -> survey::Database {
        let sid = &database.sid;
        let data = format!("/u02/oradata/{sid}");
        let keystore = format!("/u01/keystore/{sid}");
        let has_keystore = database.p12.is_some() || database.sso.is_some();
        let tns = format!("{HOME}/network/admin/{sid}");
        let mut files = vec![
            self.place(FileKind::Controlfile, &format!("{data}/control01.ctl")),
            self.place(FileKind::RedoLog, &format!("{data}/redo01.log")),
            self.place(FileKind::ArchivedLogs, &self.archive(sid)),
            self.place(FileKind::ParameterFile, &format!("{HOME}/dbs/spfile{sid}.ora")),
            self.place(FileKind::PasswordFile, &format!("{HOME}/dbs/orapw{sid}")),
            self.place(FileKind::NetworkConfig, &format!("{tns}/sqlnet.ora")),
            self.place(FileKind::OracleHome, HOME),
        ];
        for container in &database.containers {
            for tablespace in &container.tablespaces {
                files.push(self.place(FileKind::Datafile, &format!("{data}/{}_{}.dbf", container.name, tablespace.name)));
            }
        }
        if has_keystore {
            files.push(self.place(FileKind::KeystoreDir, &keystore));
        }
        let names = |name: &str| survey::KeystoreFile {
            name: name.to_owned(),
            size: 4_096,
            sha256: Digest::ZERO,
            uid: 54_321,
            mode: 0o600,
            filesystem: "xfs".into(),
        };
        let mut keystore_files = Vec::new();
        keystore_files.extend(database.p12.is_some().then(|| names("ewallet.p12")));
        keystore_files.extend(database.sso.is_some().then(|| names("cwallet.sso")));
        survey::Database {
            sid: Sid::new(sid.as_str()).expect("a SID"),
            home: HOME.into(),
            owner: survey::Owner { user: "oracle".into(), uid: 54_321, gid: 54_321 },
            tns_admin: tns,
            in_oratab: true,
            state: InstanceState::OpenReadWrite,
            pmon: None,
            facts: Some(facts(database)),
            keystore: survey::KeystoreConfig::Sqlnet {
                file: "sqlnet.ora".into(),
                method: if database.place == Place::Software { "FILE" } else { "HSM" }.into(),
                directory: has_keystore.then(|| keystore.clone()),
                shared_by: Vec::new(),
            },
            keystore_dir: has_keystore.then_some(keystore),
            keystore_files,
            auto_login: Some(match &database.sso {
                None => AutoLogin::Absent,
                Some(sso) if sso.local => AutoLogin::Local,
                Some(_) => AutoLogin::Anywhere,
            }),
            files: Some(files),
        }
    }
}

fn mount(point: &str, disk: survey::Disk) -> survey::Mount {
    survey::Mount { point: point.to_owned(), source: format!("/dev/{}p1", disk.name), disks: Some(vec![disk]) }
}

fn facts(database: &Database) -> survey::Facts {
    let row = |key: &Key| database.keys.iter().find(|row| row.key == *key);
    let at = |moment: Millis| Some(Timestamp(moment.0.div_euclid(1000)));
    // V$ENCRYPTION_KEYS lists what the open keystores hold: not the keys of an HSM that the host no longer talks to.
    let seen =
        |row: &KeyRow| !row.gone && (row.place == database.place || row.place == Place::Software && database.p12.is_some());
    let con_id = |at: usize| if database.containers.len() == 1 { 0 } else { [1, 3][at] };
    let name = |at: usize| ContainerName::new(database.containers[at].name.as_str()).expect("a container name");
    let mut keys: Vec<survey::KnownKey> = database
        .keys
        .iter()
        .filter(|row| seen(row))
        .map(|row| survey::KnownKey {
            key: MasterKeyId(row.key),
            store: Some(row.place.store()),
            container: Some(name(row.container)),
            created: at(row.made),
            activated: at(row.used),
        })
        .collect();
    keys.sort();
    survey::Facts {
        dbid: database.dbid,
        name: database.sid.clone(),
        unique_name: database.sid.clone(),
        version: "19.0.0.0.0".into(),
        role: "PRIMARY".into(),
        open_mode: "READ WRITE".into(),
        cdb: database.containers.len() > 1,
        log_mode: "ARCHIVELOG".into(),
        restricted: false,
        rac: false,
        data_guard: false,
        capture: false,
        flashback: false,
        spfile: Some(format!("{HOME}/dbs/spfile{}.ora", database.sid)),
        pending: Vec::new(),
        wallet: Vec::new(),
        containers: database
            .containers
            .iter()
            .enumerate()
            .map(|(n, container)| survey::Container {
                con_id: con_id(n),
                name: name(n),
                open_mode: if container.open { "READ WRITE" } else { "MOUNTED" }.into(),
                restricted: false,
                key: row(&container.active).map(|row| survey::ActiveKey {
                    id: MasterKeyId(row.key),
                    store: Some(row.place.store()),
                    activated: at(row.used),
                }),
            })
            .collect(),
        tablespaces: database
            .containers
            .iter()
            .enumerate()
            .filter(|(_, container)| container.open)
            .flat_map(|(n, container)| {
                container.tablespaces.iter().map(move |tablespace| survey::EncryptedTablespace {
                    con_id: con_id(n),
                    name: tablespace.name.clone(),
                    key: MasterKeyId(tablespace.key),
                    access: tablespace.access,
                    status: "NORMAL".into(),
                })
            })
            .collect(),
        column_keys: database
            .containers
            .iter()
            .enumerate()
            .filter(|(_, container)| container.columns && container.open)
            .map(|(n, container)| survey::ColumnKey { con_id: con_id(n), key: MasterKeyId(container.active), tables: 2 })
            .collect(),
        redo: Vec::new(),
        restore_points: Vec::new(),
        blockers: survey::Blockers::default(),
        last_full_backup: None,
        processes: 120,
        processes_limit: 600,
        opens_by_itself: database.sso.is_some(),
        keys: Some(keys),
        kept: None,
    }
}

impl Database {
    /// SET KEY: a new key in the store of `place`. Read-write tablespaces and columns are wrapped by it from now on, what is
    /// read-only or offline keeps the key it has. Where the HSM refuses the key nothing changes.
    pub fn make_key(
        &mut self,
        container: usize,
        place: Place,
        now: Millis,
        clock: i64,
        hsms: &mut Hsms,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        let new = key(ids);
        match place {
            Place::OldHsm => hsms.old.make_key(new)?,
            Place::CloudHsm => hsms.cluster.make_key(new)?,
            Place::Software => {
                if let Some((_, keys)) = &mut self.p12 {
                    keys.insert(new);
                }
            }
        }
        let at = now.plus_secs(clock);
        self.keys.push(KeyRow { key: new, place, container, made: at, used: at, gone: false });
        let target = &mut self.containers[container];
        let former = std::mem::replace(&mut target.active, new);
        target.redo.retain(|(_, until)| *until > now);
        if former != [0; 16] {
            target.redo.push((former, now.plus_ms(ids.between(600_000, REDO_MS))));
        }
        for tablespace in target.tablespaces.iter_mut().filter(|t| t.access == Access::ReadWrite || t.key == [0; 16]) {
            tablespace.key = new;
        }
        Ok(())
    }

    /// Keys of the cluster that nothing is written under any more, though a tablespace that is only read is wrapped by one, or
    /// sets of the last two weeks are: what somebody who makes room in an HSM takes for left over.
    pub fn left_over(&self, now: Millis) -> Vec<Key> {
        let of_cluster = self.keys.iter().filter(|row| row.place == Place::CloudHsm && !row.gone);
        let former = of_cluster.filter(|row| self.containers[row.container].active != row.key);
        let recent = |row: &KeyRow| {
            let next = self.keys.iter().filter(|next| next.container == row.container && next.made > row.made);
            next.map(|next| next.made).min().is_some_and(|until| (DAY..14 * DAY).contains(&now.since(until)))
        };
        former.filter(|row| recent(row) || self.reads(row.key)).map(|row| row.key).collect()
    }

    /// Whether a tablespace is wrapped by a key.
    pub fn reads(&self, key: Key) -> bool {
        self.containers.iter().flat_map(|container| &container.tablespaces).any(|tablespace| tablespace.key == key)
    }

    /// Whether SET KEY in a container would have to unwrap what nobody can.
    pub fn stands_still(&self, container: usize) -> bool {
        let gone = |key: Key| self.keys.iter().any(|row| row.key == key && row.gone);
        self.containers[container].tablespaces.iter().any(|t| t.access == Access::ReadWrite && gone(t.key))
    }

    /// After a key change with archived and checkpointed logs (H2) redo asks for no former key.
    pub fn checkpoint(&mut self) {
        self.containers.iter_mut().for_each(|container| container.redo.clear());
    }

    pub fn auto_open(&mut self, local: bool) {
        let keys = self.p12.as_ref().map(|(_, keys)| keys.clone()).unwrap_or_default();
        self.sso = Some(Sso { local, keys });
    }
}
