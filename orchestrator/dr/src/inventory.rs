//! What one look at a host said that recovery depends on: keys, files and volumes (H40, H41).
//!
//! Made from the host's survey by a pure function and kept, one JSON object each, in the records bucket of the DR region.
//! Inventories are never changed after they are written; a later look is a later object.

use crate::facts::FleetInstance;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::survey::{self, AutoLogin, Survey, Vendor, what};
pub use tde2hsm_protocol::survey::{FileKind, KnownKey};
use tde2hsm_protocol::{ContainerName, InstanceId, MasterKeyId, Sid, Store, Timestamp, VolumeId};

pub const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub v: u8,
    pub instance: InstanceId,
    /// Host clock.
    pub taken_at: Timestamp,
    /// AWS time when the answer was received; the only clock that can be compared with snapshots and backups (H8).
    pub received_at: Timestamp,
    /// AWS time before the look was asked for: it was taken between the two. `None`: nobody noted it.
    #[serde(default)]
    pub ordered_at: Option<Timestamp>,
    /// Whose HSM a key of the store `hsm` lies in. `None`: it cannot be told.
    #[serde(default)]
    pub provider: Option<Provider>,
    pub databases: Vec<DatabaseInventory>,
    /// Files of the host itself that a point needs: `/opt/cloudhsm` with CA and client certificate, extapi, oratab.
    pub files: Vec<FilePlace>,
    /// What could not be asked of the host as a whole: a point over it is not proven for any database.
    pub unreadable: Vec<String>,
}

impl Inventory {
    /// What databases the host has is known. Where it is not, that none is listed means nothing.
    pub fn lists_databases(&self) -> bool {
        !self.unreadable.iter().any(|unreadable| unreadable == what::DATABASES)
    }
}

/// Which HSM the host is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "maker")]
pub enum Provider {
    CloudHsm {
        /// Addresses that the client is configured for: they tell which cluster it is.
        servers: Option<BTreeSet<String>>,
    },
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInventory {
    pub sid: Sid,
    pub dbid: Option<u64>,
    /// Every key that opening and recovering this database needs, with who needs it.
    pub needs: Vec<KeyNeed>,
    /// Every key that V$ENCRYPTION_KEYS knows, with its time: tells what was rotated between two looks. That view lists open
    /// keystores only, so a key in it with the store `hsm` lies in the HSM that the host was on.
    pub known: Vec<KnownKey>,
    /// Containers whose needs could not be read (a closed PDB).
    pub blind: BTreeSet<ContainerName>,
    pub files: Vec<FilePlace>,
    pub keystore: KeystoreFacts,
    /// What of this database could not be asked.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyNeed {
    pub key: MasterKeyId,
    /// `None`: the views do not say where it lies (U4).
    pub store: Option<Store>,
    pub needed_by: NeededBy,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeededBy {
    /// The active key of a container: redo, undo and temp are written under it.
    Container(ContainerName),
    /// The key before the active one, while redo that was written under it may not be checkpointed yet (H2).
    Redo(ContainerName),
    Tablespace {
        container: ContainerName,
        name: String,
        access: survey::Access,
    },
    Columns {
        container: ContainerName,
        tables: u32,
    },
}

/// Where a file that a point needs lies. A file on several volumes has a line for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FilePlace {
    pub what: FileKind,
    pub path: String,
    /// `None`: the device behind the path could not be followed to a volume.
    pub volume: Option<VolumeId>,
    /// It lies on an instance store: no snapshot can hold it.
    #[serde(default)]
    pub ephemeral: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreFacts {
    pub directory: Option<String>,
    /// `ewallet.p12` is there.
    pub p12: bool,
    /// `cwallet.sso` is there.
    pub auto_login: bool,
    /// It is a LOCAL one: it opens on this host and nowhere else. `None`: cannot be told.
    pub local: Option<bool>,
}

/// How long after a rotation crash recovery may still meet redo of the key before, in seconds. Logs are switched and
/// checkpointed far more often; the views have no time for it.
const REDO_OF_FORMER_KEY: i64 = 24 * 3600;

impl Inventory {
    /// `received_at` and `ordered_at` are AWS time; `now` is the instance as EC2 knows it, which names the volumes of disks
    /// that cannot name themselves (Xen).
    pub fn from_survey(
        survey: &Survey,
        received_at: Timestamp,
        ordered_at: Option<Timestamp>,
        now: Option<&FleetInstance>,
    ) -> Inventory {
        let mut unreadable = Vec::new();
        if unread(survey, what::DATABASES) {
            unreadable.push(what::DATABASES.to_owned());
        }
        if survey.files.is_none() {
            unreadable.push(String::from("files of the host"));
        }
        // Which cluster it is only this tells. Where there is none, keys in an HSM lie nobody knows where; others need none.
        if unread(survey, what::CLIENT) {
            unreadable.push(what::CLIENT.to_owned());
        }
        let mut databases = Vec::new();
        for database in &survey.databases {
            databases.push(of_database(survey, database, now));
        }
        Inventory {
            v: VERSION,
            instance: survey.instance.clone(),
            taken_at: survey.taken_at,
            received_at,
            ordered_at,
            provider: provider(survey),
            databases,
            files: places(survey, survey.files.as_deref().unwrap_or_default(), now),
            unreadable,
        }
    }
}

fn unread(survey: &Survey, what: &str) -> bool {
    survey.unreadable.iter().any(|unreadable| unreadable.what == what)
}

/// A server process that still maps another library than the one in place talks to another HSM than the tree tells.
fn provider(survey: &Survey) -> Option<Provider> {
    if unread(survey, what::LIBRARIES) || unread(survey, what::MAPPED) {
        return None;
    }
    let seen = &survey.provider;
    let strange =
        |mapping: &survey::Mapping| mapping.deleted || !seen.libraries.iter().any(|library| library.path == mapping.path);
    if seen.mapped.iter().any(strange) {
        return None;
    }
    Some(match seen.vendor? {
        Vendor::CloudHsm => {
            Provider::CloudHsm { servers: seen.cloudhsm_servers.clone().map(|servers| servers.into_iter().collect()) }
        }
        Vendor::Other => Provider::Other,
    })
}

fn of_database(survey: &Survey, database: &survey::Database, now: Option<&FleetInstance>) -> DatabaseInventory {
    let mut unreadable = Vec::new();
    let prefix = format!("{}: ", database.sid);
    for failed in &survey.unreadable {
        let Some(of_it) = failed.what.strip_prefix(&prefix) else { continue };
        // A running instance knows its keystore by itself; one that is started from a set knows what its parameter file says.
        if of_it.contains("keystore") || [what::PARAMETER_FILE, what::FILES].contains(&of_it) {
            unreadable.push(failed.what.clone());
        }
    }
    if let survey::KeystoreConfig::Unreadable { .. } = database.keystore {
        unreadable.push(String::from("keystore configuration"));
    }
    if database.files.is_none() {
        unreadable.push(String::from("files of the database"));
    }
    let mut needs = BTreeSet::new();
    let mut known = Vec::new();
    let mut blind = BTreeSet::new();
    match &database.facts {
        None => unreadable.push(format!("the instance: it is {}", state(database.state))),
        Some(facts) => {
            match &facts.keys {
                None => unreadable.push(String::from("V$ENCRYPTION_KEYS")),
                Some(keys) => known.extend(keys.iter().cloned()),
            }
            needs_of(facts, &known, survey.taken_at, &mut needs, &mut blind);
            // Its keys lie in a keystore of its own, with a password of its own, and the root's is the one that was looked at.
            let isolated = facts.wallet.iter().filter(|row| row.keystore_mode.as_deref() == Some("ISOLATED"));
            for con_id in isolated.map(|row| row.con_id).collect::<BTreeSet<u32>>() {
                let name = facts.containers.iter().find(|container| container.con_id == con_id);
                let name = name.map_or_else(|| con_id.to_string(), |container| container.name.to_string());
                unreadable.push(format!("keystore of {name}, which is ISOLATED"));
            }
        }
    }
    let file = |name: &str| database.keystore_files.iter().any(|file| file.name == name);
    let (auto_login, local) = match database.auto_login {
        Some(AutoLogin::Absent) => (false, None),
        Some(AutoLogin::Anywhere) => (true, Some(false)),
        Some(AutoLogin::Local) => (true, Some(true)),
        None => (file("cwallet.sso"), None),
    };
    DatabaseInventory {
        sid: database.sid.clone(),
        dbid: database.facts.as_ref().map(|facts| facts.dbid),
        needs: needs.into_iter().collect(),
        known,
        blind,
        files: places(survey, database.files.as_deref().unwrap_or_default(), now),
        keystore: KeystoreFacts { directory: database.keystore_dir.clone(), p12: file("ewallet.p12"), auto_login, local },
        unreadable,
    }
}

fn state(state: survey::InstanceState) -> &'static str {
    match state {
        survey::InstanceState::Down => "down",
        survey::InstanceState::Started => "started only",
        survey::InstanceState::Mounted => "mounted only",
        survey::InstanceState::OpenReadWrite | survey::InstanceState::OpenReadOnly => "open, and its facts were not read",
        survey::InstanceState::Unreadable => "not answering",
    }
}

fn needs_of(
    facts: &survey::Facts,
    known: &[KnownKey],
    taken_at: Timestamp,
    needs: &mut BTreeSet<KeyNeed>,
    blind: &mut BTreeSet<ContainerName>,
) {
    let names: BTreeMap<u32, &ContainerName> = facts.containers.iter().map(|c| (c.con_id, &c.name)).collect();
    let store_of: BTreeMap<MasterKeyId, Option<Store>> = known.iter().map(|key| (key.key, key.store)).collect();
    let store = |key: &MasterKeyId| store_of.get(key).copied().flatten();
    // A CON_ID that no container has is a row of the whole database.
    let container = |con_id: u32| {
        let root = || ContainerName::new(ContainerName::ROOT).expect("a valid name");
        names.get(&con_id).map_or_else(root, |name| (*name).clone())
    };
    for each in &facts.containers {
        if !each.open_mode.starts_with("READ") {
            blind.insert(each.name.clone());
        }
        let Some(active) = &each.key else { continue };
        needs.insert(KeyNeed {
            key: active.id,
            store: active.store.or_else(|| store(&active.id)),
            needed_by: NeededBy::Container(each.name.clone()),
        });
        let Some(since) = active.activated else { continue };
        let former = known
            .iter()
            .filter(|key| key.key != active.id && key.container.as_ref() == Some(&each.name))
            .filter(|key| key.activated.is_some_and(|activated| activated <= since))
            .max_by_key(|key| key.activated);
        if let Some(former) = former.filter(|_| taken_at.since(since) < REDO_OF_FORMER_KEY) {
            needs.insert(KeyNeed { key: former.key, store: former.store, needed_by: NeededBy::Redo(each.name.clone()) });
        }
    }
    for tablespace in &facts.tablespaces {
        needs.insert(KeyNeed {
            key: tablespace.key,
            store: store(&tablespace.key),
            needed_by: NeededBy::Tablespace {
                container: container(tablespace.con_id),
                name: tablespace.name.clone(),
                access: tablespace.access,
            },
        });
    }
    for columns in &facts.column_keys {
        needs.insert(KeyNeed {
            key: columns.key,
            store: store(&columns.key),
            needed_by: NeededBy::Columns { container: container(columns.con_id), tables: columns.tables },
        });
    }
}

fn places(survey: &Survey, files: &[survey::FilePlace], now: Option<&FleetInstance>) -> Vec<FilePlace> {
    let mut places = BTreeSet::new();
    for file in files {
        let place = |volume, ephemeral| FilePlace { what: file.what, path: file.path.clone(), volume, ephemeral };
        match survey.disks(file) {
            None => {
                places.insert(place(None, false));
            }
            Some(disks) if disks.is_empty() => {
                places.insert(place(None, false));
            }
            Some(disks) => places.extend(disks.into_iter().map(|disk| match (&disk.volume, disk.ephemeral) {
                (Some(volume), _) => place(Some(volume.clone()), false),
                (None, true) => place(None, true),
                (None, false) => place(now.and_then(|now| mapped(now, &disk.name)), false),
            })),
        }
    }
    places.into_iter().collect()
}

/// Xen shows `/dev/sdf` of the block-device mapping as `xvdf`, and the root device `/dev/sda1` or `/dev/xvda` as `xvda`.
fn mapped(now: &FleetInstance, disk: &str) -> Option<VolumeId> {
    let letter = disk.strip_prefix("xvd")?;
    let names = [format!("/dev/xvd{letter}"), format!("/dev/sd{letter}"), format!("xvd{letter}"), format!("/dev/sd{letter}1")];
    let mut found = names.iter().filter_map(|name| now.volumes.get(name));
    let volume = found.next()?;
    found.all(|other| other == volume).then(|| volume.clone())
}
