//! What one look at a host said that recovery depends on: keys, files and volumes (H40, H41).
//!
//! Made from the host's survey by a pure function and kept, one JSON object each, in the records bucket of the DR region.
//! Inventories are never changed after they are written; a later look is a later object.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tde2hsm_protocol::{ContainerName, InstanceId, MasterKeyId, Sid, Store, Timestamp, VolumeId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub v: u8,
    pub instance: InstanceId,
    /// Host clock.
    pub taken_at: Timestamp,
    /// AWS time when the answer was received; the only clock that can be compared with snapshots and backups (H8).
    pub received_at: Timestamp,
    pub databases: Vec<DatabaseInventory>,
    /// Files of the host itself that a point needs: `/opt/cloudhsm` with CA and client certificate, extapi, oratab.
    pub files: Vec<FilePlace>,
    /// Databases or parts that could not be asked: a point over them is not proven.
    pub unreadable: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInventory {
    pub sid: Sid,
    pub dbid: Option<u64>,
    /// Every key that opening and recovering this database needs, with who needs it.
    pub needs: Vec<KeyNeed>,
    /// Every key that V$ENCRYPTION_KEYS knows, with its time: tells what was rotated between two looks.
    pub known: Vec<KnownKey>,
    /// Containers whose needs could not be read (a closed PDB).
    pub blind: BTreeSet<ContainerName>,
    pub files: Vec<FilePlace>,
    pub keystore: KeystoreFacts,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    Tablespace {
        container: ContainerName,
        name: String,
        access: tde2hsm_protocol::survey::Access,
    },
    Columns {
        container: ContainerName,
        tables: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KnownKey {
    pub key: MasterKeyId,
    pub store: Option<Store>,
    pub container: Option<ContainerName>,
    /// Host clock.
    pub activated: Option<Timestamp>,
}

/// Where a file that a point needs lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FilePlace {
    pub what: FileKind,
    pub path: String,
    /// `None`: the device behind the path could not be followed to a volume.
    pub volume: Option<VolumeId>,
}

/// What a recovery point is made of (H40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    Datafile,
    Controlfile,
    RedoLog,
    ArchivedLogs,
    ParameterFile,
    PasswordFile,
    NetworkConfig,
    KeystoreDir,
    OracleHome,
    Provider,
    CloudHsmClient,
    Oratab,
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
