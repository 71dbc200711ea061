//! What a database of the sandbox shall be: the input of `sim-seed`, `sim-verify` and `install_home`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the simulator's programs were built.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub oracle: std::path::PathBuf,
    pub sqlplus: std::path::PathBuf,
    /// Hard links instead of copies: the files given then get the owner and the setuid mode themselves.
    pub link: bool,
}

/// A home to be installed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeSpec {
    /// ORACLE_HOME.
    pub home: String,
    #[serde(default = "oracle_base")]
    pub base: String,
    /// Owner and group of the files, `oracle:oinstall` in the field; none leaves them to the caller.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

fn oracle_base() -> String {
    "/u01/app/oracle".into()
}

/// How the keystore is configured (O§2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    Sqlnet,
    WalletRoot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoLogin {
    Auto,
    Local,
}

/// Where the master keys are before the campaign.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// In the HSM behind the library of extapi.
    Hsm {
        /// `user:password`.
        pin: String,
        /// Opens by itself: a software keystore carries HSM_PASSWORD.
        #[serde(default)]
        auto_open: Option<AutoOpen>,
    },
    Software {
        password: String,
        #[serde(default)]
        auto_login: Option<AutoLogin>,
    },
    /// No encryption anywhere.
    None,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoOpen {
    pub software_password: String,
    pub auto_login: AutoLogin,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    pub sid: String,
    pub home: String,
    #[serde(default = "oracle_base")]
    pub base: String,
    /// `19.0.0.0.0`, `12.2.0.1.0`.
    pub version: String,
    #[serde(default)]
    pub db_unique_name: Option<String>,
    pub style: Style,
    pub source: Source,
    /// WALLET_ROOT, or sqlnet's DIRECTORY; `<base>/admin/<SID>/wallet` otherwise.
    #[serde(default)]
    pub wallet_dir: Option<String>,
    #[serde(default)]
    pub cdb: bool,
    /// Of a non-CDB or of CDB$ROOT.
    #[serde(default)]
    pub tablespaces: Vec<TablespaceSpec>,
    #[serde(default)]
    pub pdbs: Vec<PdbSpec>,
    #[serde(default)]
    pub encrypted_system: bool,
    #[serde(default)]
    pub encrypted_undo: bool,
    #[serde(default = "yes")]
    pub archivelog: bool,
    /// Third field of oratab.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Added to the spfile.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Only an `init<SID>.ora` (H20).
    #[serde(default)]
    pub no_spfile: bool,
    #[serde(default)]
    pub planted: Planted,
    /// Rows are made from this and the names.
    #[serde(default)]
    pub seed: u64,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PdbSpec {
    pub name: String,
    #[serde(default)]
    pub tablespaces: Vec<TablespaceSpec>,
    /// Has a keystore of its own (H19).
    #[serde(default)]
    pub isolated: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TsStatus {
    #[default]
    #[serde(rename = "ONLINE")]
    Online,
    #[serde(rename = "READ ONLY")]
    ReadOnly,
    #[serde(rename = "OFFLINE")]
    Offline,
}

impl TsStatus {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TsStatus::Online => "ONLINE",
            TsStatus::ReadOnly => "READ ONLY",
            TsStatus::Offline => "OFFLINE",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablespaceSpec {
    pub name: String,
    #[serde(default = "yes")]
    pub encrypted: bool,
    #[serde(default)]
    pub status: TsStatus,
    #[serde(default)]
    pub tables: Vec<TableSpec>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// `OWNER.NAME`.
    pub name: String,
    pub rows: u32,
    /// Of ID, NAME, PAYLOAD.
    #[serde(default)]
    pub encrypted_columns: Vec<String>,
}

/// Conditions that rules of a plan must find (H5, H7, H15, H17, H19–H21).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Planted {
    /// Age of the newest full RMAN backup, in hours; none was ever made otherwise.
    pub last_full_backup_hours: Option<f64>,
    /// The archiver cannot write.
    pub archiver_stuck: bool,
    /// Bytes used of the recovery area; its size is the parameter.
    pub recovery_area_used: u64,
    /// Name, and whether it is guaranteed.
    pub restore_points: Vec<(String, bool)>,
    pub flashback_on: bool,
    /// A transaction open for so many minutes.
    pub long_transaction_minutes: Option<u32>,
    pub rman_running: bool,
    pub datapump_running: bool,
    /// GoldenGate or Streams capture.
    pub capture: bool,
    /// A second archive destination is a standby, with a DG_CONFIG.
    pub data_guard: bool,
    pub rac: bool,
    /// PRIMARY when empty.
    pub role: String,
    /// Tablespaces with a datafile offline and in need of recovery.
    pub datafiles_offline: Vec<String>,
    /// Tablespaces with V$ENCRYPTED_TABLESPACES.STATUS other than NORMAL.
    pub tablespaces_rekeying: Vec<String>,
    /// Set in memory after each start, so that the spfile differs (H20).
    pub memory_parameters: BTreeMap<String, String>,
    /// Processes beside our own in V$RESOURCE_LIMIT.
    pub processes: u32,
}

/// What was seeded, kept outside the fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    pub sid: String,
    pub home: String,
    pub rows_total: u64,
    /// Container → table → what it holds.
    pub containers: BTreeMap<String, BTreeMap<String, TruthTable>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TruthTable {
    pub tablespace: String,
    pub encrypted: bool,
    /// SHA-256 of each row's canonical text, in the order of ID.
    pub rows: Vec<String>,
}

/// The input of `sim-verify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    pub databases: Vec<VerifyDatabase>,
    /// `old-hsm`, `software`, `cloudhsm` (or `target`).
    #[serde(default)]
    pub cut_off: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyDatabase {
    pub truth: Truth,
    /// PIN by store (`old-hsm`, `cloudhsm`); the one of the library found is used.
    #[serde(default)]
    pub pins: BTreeMap<String, String>,
    /// Passwords of the software keystore, tried in order.
    #[serde(default)]
    pub software: Vec<String>,
}

/// The output of `sim-verify` for a database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Rows in encrypted tablespaces or with encrypted columns.
    pub rows_total: u64,
    pub rows_readable: u64,
    /// Rows that need no key.
    pub plain_rows_total: u64,
    pub plain_rows_readable: u64,
    /// Why the database did not open, if it did not.
    pub open_error: Option<String>,
    pub containers: BTreeMap<String, VerifiedContainer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifiedContainer {
    pub rows_total: u64,
    pub rows_readable: u64,
    /// Rows that were read and are not the seeded ones.
    pub rows_wrong: u64,
    /// Cause → tables.
    pub causes: BTreeMap<String, Vec<String>>,
}
