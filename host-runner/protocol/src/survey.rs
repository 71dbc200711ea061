//! What a host says of itself: facts only, no judgement. Rules over them live in the control plane.
//!
//! A fact that could not be read is `None` or an [`Unreadable`], never a default: a rule must be able to tell "no"
//! from "not known".

use crate::{AccountId, ContainerName, InstanceId, MasterKeyId, Region, ShortDigest, Sid, Store, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    pub v: u8,
    pub taken_at: Timestamp,
    pub instance: InstanceId,
    pub account: AccountId,
    pub region: Region,
    pub runner_version: String,
    pub os: Os,
    /// Clusterware or Oracle Restart is configured (`/etc/oracle/olr.loc`, `O§7.8`).
    pub clusterware: bool,
    /// Things that would start a database in the middle of a swap (H20): unit or script names.
    pub autostarts: Vec<String>,
    pub provider: Provider,
    pub filesystems: Vec<Filesystem>,
    pub databases: Vec<Database>,
    /// What could not be read at all, and why.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub what: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// ID and VERSION_ID of os-release.
    pub id: String,
    pub version: String,
    pub arch: String,
    pub kernel: String,
    pub systemd: bool,
}

/// The tree under `/opt/oracle/extapi` and who maps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    pub libraries: Vec<Library>,
    pub mapped: Vec<Mapping>,
    /// Installed packages whose name starts with `cloudhsm`, as `name-version`.
    pub packages: Vec<String>,
    /// Some process maps a file under `/opt/cloudhsm` (H18).
    pub cloudhsm_mapped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    pub path: String,
    pub size: u64,
    pub sha256: crate::Digest,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub symlink: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub pid: u32,
    pub path: String,
    /// The file behind the mapping is gone from its path (`O§4.3`).
    pub deleted: bool,
    /// The database whose process it is, where the process's name tells.
    pub sid: Option<Sid>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// A path the product writes to or needs.
    pub path: String,
    /// `ext4`, `xfs`, `tmpfs`, …
    pub kind: String,
    pub free_bytes: u64,
    pub noexec: bool,
    pub readonly: bool,
    /// tmpfs, or a device that is an instance store (H5).
    pub ephemeral: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub sid: Sid,
    pub home: String,
    pub owner: Owner,
    /// Directory of `sqlnet.ora` for this database's server processes (H16).
    pub tns_admin: String,
    pub in_oratab: bool,
    pub state: InstanceState,
    /// The pmon process: environment, limits, cgroup (H24).
    pub pmon: Option<Pmon>,
    /// What only a running instance can say; `None` while it is down or cannot be asked.
    pub facts: Option<Facts>,
    pub keystore: KeystoreConfig,
    /// Keystore directory, where one is configured, and the files in it.
    pub keystore_dir: Option<String>,
    pub keystore_files: Vec<KeystoreFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    Down,
    Started,
    Mounted,
    OpenReadWrite,
    OpenReadOnly,
    /// A pmon runs, but the instance does not answer.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pmon {
    pub pid: u32,
    pub oracle_home: Option<String>,
    pub tns_admin: Option<String>,
    pub started_at: Timestamp,
    pub cgroup: String,
    pub memlock: Option<u64>,
    /// `bin/oracle` was replaced after the instance started (H20).
    pub binary_replaced: bool,
}

/// How the database is told where its keystore is (`O§2`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeystoreConfig {
    /// No keystore is configured.
    None,
    /// `sqlnet.ora`: METHOD and DIRECTORY of ENCRYPTION_WALLET_LOCATION.
    Sqlnet { file: String, method: String, directory: Option<String>, shared_by: Vec<Sid> },
    /// WALLET_ROOT and TDE_CONFIGURATION.
    WalletRoot { wallet_root: String, tde_configuration: Option<String> },
    /// There is something, but it cannot be understood; the reason is for a person.
    Unreadable { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreFile {
    pub name: String,
    pub size: u64,
    pub sha256: crate::Digest,
    pub uid: u32,
    pub mode: u32,
    pub filesystem: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub dbid: u64,
    pub name: String,
    pub unique_name: String,
    /// As V$INSTANCE has it, for example `19.0.0.0.0` or `12.2.0.1.0`.
    pub version: String,
    pub role: String,
    pub open_mode: String,
    pub cdb: bool,
    pub log_mode: String,
    pub restricted: bool,
    pub rac: bool,
    /// A standby destination or a Data Guard configuration exists (H19).
    pub data_guard: bool,
    /// In use: GoldenGate, LogMiner or Streams capture (H21).
    pub capture: bool,
    pub flashback: bool,
    pub spfile: Option<String>,
    /// Parameters whose value in memory is not the spfile's (H20).
    pub pending: Vec<String>,
    pub wallet: Vec<WalletRow>,
    pub containers: Vec<Container>,
    pub tablespaces: Vec<EncryptedTablespace>,
    /// Per container: master keys that ENC$ rows name, with the number of tables.
    pub column_keys: Vec<ColumnKey>,
    pub redo: Vec<RedoLog>,
    pub restore_points: Vec<RestorePoint>,
    pub blockers: Blockers,
    /// End of the newest full backup that RMAN knows of (H7).
    pub last_full_backup: Option<Timestamp>,
    /// PROCESSES in use and their limit (H22).
    pub processes: u32,
    pub processes_limit: u32,
    /// It opens its keystore by itself today (H15): an auto-login keystore is configured and present.
    pub opens_by_itself: bool,
}

/// A row of V$ENCRYPTION_WALLET, read once a survey (H12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletRow {
    pub con_id: u32,
    pub wrl_type: String,
    pub wrl_parameter: Option<String>,
    pub status: String,
    pub wallet_type: String,
    pub wallet_order: String,
    /// 18c and later: NONE, UNITED, ISOLATED.
    pub keystore_mode: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub con_id: u32,
    pub name: ContainerName,
    pub open_mode: String,
    pub restricted: bool,
    /// The active master key, where the container has one.
    pub key: Option<ActiveKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveKey {
    pub id: MasterKeyId,
    /// `None` when V$ENCRYPTION_KEYS does not name it (U4).
    pub store: Option<Store>,
    pub activated: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedTablespace {
    pub con_id: u32,
    pub name: String,
    pub key: MasterKeyId,
    pub access: Access,
    /// V$ENCRYPTED_TABLESPACES.STATUS: NORMAL, REKEYING, …
    pub status: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    ReadWrite,
    ReadOnly,
    Offline,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnKey {
    pub con_id: u32,
    pub key: MasterKeyId,
    pub tables: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedoLog {
    pub group: u32,
    pub status: String,
    pub archived: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    pub name: String,
    pub guaranteed: bool,
}

/// What stands in the way right now (H21).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blockers {
    pub archiver_stuck: bool,
    /// Percent of the recovery area that is used and not reclaimable; `None` without one.
    pub recovery_area_used: Option<u32>,
    pub long_transactions: u32,
    pub rman_jobs: u32,
    pub data_pump_jobs: u32,
    pub offline_datafiles: u32,
    pub files_needing_recovery: u32,
    pub backup_mode_files: u32,
}

impl Survey {
    pub fn database(&self, sid: &Sid) -> Option<&Database> {
        self.databases.iter().find(|database| database.sid == *sid)
    }

    /// Digest of what a plan relies on: which database, which active keys, which configuration (H23). Host and control
    /// plane compute it with this one function. Databases that are not in `sids` do not count.
    pub fn saw(&self, sids: &[Sid]) -> ShortDigest {
        let seen: Vec<_> = sids
            .iter()
            .map(|sid| {
                let database = self.database(sid);
                let facts = database.and_then(|d| d.facts.as_ref());
                (
                    sid,
                    facts.map(|f| f.dbid),
                    database.map(|d| (&d.home, &d.tns_admin, &d.keystore)),
                    facts.map(|f| {
                        f.containers.iter().map(|c| (&c.name, c.key.as_ref().map(|k| (k.id, k.store)))).collect::<Vec<_>>()
                    }),
                )
            })
            .collect();
        crate::Digest::of_json(&seen).short()
    }
}
