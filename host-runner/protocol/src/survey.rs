//! What a host says of itself: facts only, no judgement. Rules over them live in the control plane.
//!
//! A fact that could not be read is `None` or an [`Unreadable`], never a default: a rule must be able to tell "no"
//! from "not known".

use crate::{AccountId, ContainerName, InstanceId, MasterKeyId, Region, ShortDigest, Sid, Store, Timestamp, VolumeId};
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
    /// Files of the host itself that a recovery point needs (H40). `None`: nobody looked.
    #[serde(default)]
    pub files: Option<Vec<FilePlace>>,
    /// What the mount points that files name lie on.
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub what: String,
    pub why: String,
}

/// What [`Unreadable::what`] says of things that somebody looks for there. Of a database it stands behind the SID, a colon and a
/// space; of keystores each has that word in it.
pub mod what {
    pub const DATABASES: &str = "databases";
    pub const LIBRARIES: &str = "libraries below /opt/oracle/extapi";
    pub const MAPPED: &str = "processes that map the provider";
    pub const FILES: &str = "files";
    pub const PARAMETER_FILE: &str = "parameter file";
    pub const CLIENT: &str = "the CloudHSM client's configuration";
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
    /// Whose HSM a key of the store `hsm` lies in: the maker of the one library in the tree. `None`: there is no library,
    /// there are several, or nobody looked.
    #[serde(default)]
    pub vendor: Option<Vendor>,
    /// Addresses of HSMs in the configuration of the CloudHSM client, whether or not its library is the one in place.
    /// `None`: no configuration, or one that cannot be read.
    #[serde(default)]
    pub cloudhsm_servers: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// The library is the one that the installed CloudHSM client brought, or bears its name.
    CloudHsm,
    Other,
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
    /// `cwallet.sso` of the keystore directory. `None`: which kind it is cannot be told, or nobody looked.
    #[serde(default)]
    pub auto_login: Option<AutoLogin>,
    /// Files of the database that a recovery point needs (H40); of one that is down only those that are known without
    /// asking it. `None`: nobody looked.
    #[serde(default)]
    pub files: Option<Vec<FilePlace>>,
}

/// What an auto-login keystore is good for after a restore elsewhere (H40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoLogin {
    /// There is none.
    Absent,
    Anywhere,
    /// LOCAL: it opens on this host and nowhere else.
    Local,
}

/// A file, or a directory with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilePlace {
    pub what: FileKind,
    /// As the database or the host names it.
    pub path: String,
    /// Mount points it lies on, each one in [`Survey::mounts`]: the file's own first, then those of symbolic links on the way.
    /// `None`: it cannot be followed (in ASM, or not there).
    pub mounts: Option<Vec<String>>,
}

/// What a recovery point is made of (H40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    Datafile,
    Controlfile,
    RedoLog,
    ArchivedLogs,
    /// Flashback logs, and archived logs where no destination is named.
    RecoveryArea,
    ParameterFile,
    PasswordFile,
    NetworkConfig,
    KeystoreDir,
    OracleHome,
    Provider,
    CloudHsmClient,
    Oratab,
}

/// A mount point and the disks below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub point: String,
    /// As mountinfo has it: `/dev/nvme1n1p1`, `/dev/mapper/data-u01`, `fs-1.efs:/`.
    pub source: String,
    /// All of them hold a part of it (LVM, md). `None`: it could not be followed to disks (NFS, tmpfs, a stranger).
    pub disks: Option<Vec<Disk>>,
}

/// A whole disk of the instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name: `nvme1n1`, `xvdf`.
    pub name: String,
    /// The EBS volume, where the disk's own serial says it (NVMe). `None` on Xen: EC2's block-device mapping knows the
    /// volume by the disk's name; or not an EBS volume.
    pub volume: Option<VolumeId>,
    /// An instance store: no snapshot holds it.
    #[serde(default)]
    pub ephemeral: bool,
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
    /// Rows of V$ENCRYPTION_KEYS that are of this database or that something in it names. `None`: nobody looked.
    #[serde(default)]
    pub keys: Option<Vec<KnownKey>>,
    /// What may need a former key for as long as it is kept (H43). `None`: nobody looked.
    #[serde(default)]
    pub kept: Option<Kept>,
}

/// A row of V$ENCRYPTION_KEYS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownKey {
    pub key: MasterKeyId,
    pub store: Option<Store>,
    /// The container it was made in.
    pub container: Option<ContainerName>,
    /// A key may lie in the HSM long before it is used (CREATE KEY, then USE KEY).
    #[serde(default)]
    pub created: Option<Timestamp>,
    pub activated: Option<Timestamp>,
}

/// What the control file knows of backups and logs. Dumps and unplugged databases leave no trace there. Times are the
/// host's clock; each `None` could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// CONTROL_FILE_RECORD_KEEP_TIME in days: of what is older the control file may have forgotten (a recovery catalog has not).
    pub record_keep_days: Option<u32>,
    /// RMAN pieces and image copies that are not deleted, by the time their backup began.
    pub backups: Option<Span>,
    /// Archived logs that are not deleted, by the time of their first change.
    pub archived_logs: Option<Span>,
    pub flashback: Option<Flashback>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flashback {
    Off,
    /// Flashback logs reach back to this time.
    Since(Timestamp),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub count: u32,
    /// `None`: there is none.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
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
    #[serde(default)]
    pub time: Option<Timestamp>,
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
    pub fn mount(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.point == point)
    }

    /// Every disk that a file needs; `None`: one of them is not known.
    pub fn disks<'a>(&'a self, file: &FilePlace) -> Option<Vec<&'a Disk>> {
        let mut disks = Vec::new();
        for point in file.mounts.as_ref()? {
            disks.extend(self.mount(point)?.disks.as_ref()?);
        }
        disks.sort();
        disks.dedup();
        Some(disks)
    }

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
