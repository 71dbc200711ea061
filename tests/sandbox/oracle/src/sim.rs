//! The simulator's physics: `/etc/oracle-sim.json`, read at each statement, so that a running world can be
//! changed. The product never reads it. An absent file means the defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::env::host_path;
use crate::hsm::TwoLibraries;
use crate::spec::Planted;

pub const PATH: &str = "/etc/oracle-sim.json";

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sim {
    pub switches: Switches,
    pub faults: Vec<Fault>,
    /// Milliseconds to wait at a phase (`MIGRATE:columns`); `*` is for every phase of every statement.
    pub phase_delay_ms: BTreeMap<String, u64>,
    /// What comes up in a database while it runs, by SID: it replaces what was planted there (H21).
    pub planted: BTreeMap<String, Planted>,
    /// Moves the host's clock, in seconds.
    pub clock_offset_secs: f64,
}

/// What nobody knows of the real Oracle (H48): every value must do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// The file keystore opened in one session is closed in the next (U8).
    pub file_keystore_per_session: bool,
    /// MIGRATE and REVERSE MIGRATE in the root rotate open PDBs as well (U5).
    pub migrate_rotates_pdbs: bool,
    /// A change of TDE_CONFIGURATION is seen after a restart only (U9).
    pub tde_configuration_needs_restart: bool,
    /// WITH BACKUP of a MIGRATE is refused with ORA-46623 (U10).
    pub with_backup_refused: bool,
    /// WITH BACKUP may be left out of a REVERSE MIGRATE (the 12.2 diagram has none).
    pub reverse_migrate_without_backup: bool,
    /// Code of a MIGRATE where the HSM is already primary (R8).
    pub repeated_migrate: u32,
    /// Code of a REVERSE MIGRATE where the file is already primary (R7, U2).
    pub repeated_reverse_migrate: u32,
    /// OPEN with the software password is put to the HSM, too, and burns a login (R4).
    pub open_burns_hsm_login: bool,
    /// OPEN of the HSM answers ORA-28353 while the active key is in the software keystore, as for any key that is not on its
    /// token (R3).
    pub hsm_open_needs_active_key: bool,
    /// Answer to a connection while a shutdown is in progress: 1089, 1090 or 1012.
    pub connection_in_shutdown: u32,
    /// More than one library: `error` or `first` (R2, U3).
    pub two_libraries: String,
    /// MIGRATE under a configuration without a file keystore (R8, U7).
    pub migrate_without_file: u32,
    /// OPEN without `ewallet.p12` (R3).
    pub open_without_file: u32,
    /// CREATE KEYSTORE without its directory (R14).
    pub create_without_directory: u32,
    /// CREATE AUTO_LOGIN with a wrong password (R15).
    pub auto_login_wrong_password: u32,
    /// ADD SECRET for a client that has one (R16).
    pub repeated_add_secret: u32,
    /// BACKUP KEYSTORE of an HSM (R17).
    pub backup_of_hsm: u32,
    /// Login error of an HSM that cannot be reached (R3).
    pub unreachable_hsm: u32,
    /// V$ENCRYPTION_KEYS lists HSM keys of other databases that share the user.
    pub foreign_keys_visible: bool,
    /// 3: key generation needs CLOUDHSM_IGNORE_CKA_MODIFIABLE_FALSE in the server's environment (R8).
    pub client_sdk: u32,
}

impl Default for Switches {
    fn default() -> Switches {
        Switches {
            file_keystore_per_session: false,
            migrate_rotates_pdbs: true,
            tde_configuration_needs_restart: false,
            with_backup_refused: false,
            reverse_migrate_without_backup: false,
            repeated_migrate: 28377,
            repeated_reverse_migrate: 28410,
            open_burns_hsm_login: false,
            hsm_open_needs_active_key: false,
            connection_in_shutdown: 1089,
            two_libraries: "error".into(),
            migrate_without_file: 28367,
            open_without_file: 28367,
            create_without_directory: 46690,
            auto_login_wrong_password: 46627,
            repeated_add_secret: 46670,
            backup_of_hsm: 600,
            unreachable_hsm: 28407,
            foreign_keys_visible: false,
            client_sdk: 5,
        }
    }
}

impl Switches {
    #[must_use]
    pub fn two_libraries(&self) -> TwoLibraries {
        if self.two_libraries == "first" { TwoLibraries::First } else { TwoLibraries::Error }
    }
}

/// What goes wrong at a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The instance dies, as by a power cut.
    CrashInstance,
    /// The server process of the session dies; the statement stops here.
    KillServer,
    /// The statement answers `code` here.
    Error,
    /// The statement waits while the fault stands.
    Hang,
    /// The archiver is stuck while the fault stands (`at` is not looked at).
    ArchiverStuck,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Told apart by this; a fault that was carried out `times` times is not repeated.
    pub id: String,
    /// The instance, or every instance of the host.
    #[serde(default)]
    pub sid: Option<String>,
    /// `STATEMENT:phase`, such as `MIGRATE:columns`.
    #[serde(default)]
    pub at: String,
    #[serde(rename = "do")]
    pub act: Act,
    #[serde(default)]
    pub code: Option<u32>,
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

/// The file as it is now; an unreadable one is as none, for a half-written file must not stop a database.
#[must_use]
pub fn load() -> Sim {
    std::fs::read(host_path(PATH))
        .ok()
        .and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(sim) => Some(sim),
            Err(error) => {
                eprintln!("{PATH}: {error}");
                None
            }
        })
        .unwrap_or_default()
}

#[must_use]
pub fn clock_offset_secs() -> f64 {
    // Asked for at every time stamp: read the number alone.
    std::fs::read(host_path(PATH))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|sim| sim.get("clock_offset_secs").and_then(serde_json::Value::as_f64))
        .unwrap_or(0.0)
}
