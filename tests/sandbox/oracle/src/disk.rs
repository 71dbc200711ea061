//! What a database has on disk: control file, dictionary, data files, redo, and the simulator's own ledger.
//!
//! Each file is replaced by rename and none depends on another being written in the same moment: a statement
//! that dies between two of them leaves what a real one leaves (H49).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::env::{host_path, write_atomic};
use crate::error::{Ora, Result};
use crate::keys::{Kind, Mkid, Wrapped};
use crate::spec::{Planted, TsStatus};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    pub sid: String,
    pub db_name: String,
    pub db_unique_name: String,
    pub dbid: u32,
    pub cdb: bool,
    pub version: String,
    pub created: f64,
    pub archivelog: bool,
    /// The last shutdown was clean: no recovery.
    pub clean: bool,
    pub scn: u64,
    /// Redo up to here is in the data files.
    pub checkpoint_scn: u64,
    pub containers: Vec<Container>,
    pub tablespaces: Vec<Tablespace>,
    pub logs: Vec<Log>,
    pub archived: Vec<Archived>,
    pub planted: Planted,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 0 for a non-CDB, 1 root, 2 seed, 3… PDBs.
    pub con_id: u32,
    pub name: String,
    pub guid: String,
    pub dbid: u32,
    pub isolated: bool,
    /// The database key (V$DATABASE_KEY_INFO): redo is written under it.
    pub db_key: Option<Wrapped>,
    pub active: Option<Active>,
    /// Activation times by MASTERKEYID.
    pub activations: BTreeMap<Mkid, f64>,
    /// There was a MIGRATE or REVERSE MIGRATE: the wallet view names an order (O§3.2).
    pub migrated: bool,
}

/// The active master key of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    pub mkid: Mkid,
    pub kind: Kind,
    /// `old-hsm`, `software` or `cloudhsm`.
    pub store: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tablespace {
    pub con_id: u32,
    pub ts: u32,
    pub file_id: u32,
    pub name: String,
    /// As Oracle names the file.
    pub file: String,
    /// PERMANENT, UNDO or TEMPORARY.
    pub contents: String,
    pub status: TsStatus,
    pub encrypted: bool,
}

/// A redo log group as the control file knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    pub group: u32,
    pub sequence: u32,
    pub current: bool,
    pub archived: bool,
    pub first_scn: u64,
    /// Of the log that follows; only of one that is not current.
    pub next_scn: Option<u64>,
    pub first_time: f64,
    pub file: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Archived {
    pub sequence: u32,
    pub name: String,
    pub first_scn: u64,
    pub next_scn: u64,
    pub first_time: f64,
    pub completed: f64,
    /// MASTERKEYIDs its redo needs (H43).
    pub keys: Vec<Mkid>,
}

/// A redo log file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Redo {
    pub entries: Vec<RedoEntry>,
}

/// Redo of one container under one key: recovery must unwrap the key and open the change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedoEntry {
    pub scn: u64,
    pub con_id: u32,
    pub key: Wrapped,
}

/// `system01.dbf` of a container: ENC$.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dictionary {
    /// The wrapped key of an encrypted SYSTEM tablespace.
    #[serde(default)]
    pub header: Option<Wrapped>,
    #[serde(default)]
    pub enc: Vec<EncRow>,
}

/// A row of ENC$: the column key of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncRow {
    pub table: String,
    pub tablespace: String,
    pub columns: Vec<String>,
    pub key: Wrapped,
}

/// A data file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DataFile {
    /// The tablespace key, if the tablespace is encrypted.
    #[serde(default)]
    pub header: Option<Wrapped>,
    /// None in `system01.dbf`, which is a dictionary and shares the header alone.
    #[serde(default)]
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// `OWNER.NAME`.
    pub name: String,
    /// Hex of the sealed row, or its text in a tablespace without encryption.
    pub rows: Vec<String>,
}

/// What the simulator itself remembers of an instance, for `inspect`; no Oracle file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// STARTUPs since seeding.
    pub starts: u64,
    /// Statements that reached the engine, by class.
    pub statements: BTreeMap<String, u64>,
    /// Faults carried out, by id.
    pub faults: BTreeMap<String, u32>,
    /// Every master key ever begun: written before the key is made, so an orphan is known by container.
    pub keys: Vec<KeyBirth>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyBirth {
    pub mkid: Mkid,
    pub kind: Kind,
    pub store: String,
    pub container: String,
}

/// The files of one database.
#[derive(Clone, Debug)]
pub struct Files {
    pub control: PathBuf,
    /// Written with the first one.
    copies: Vec<PathBuf>,
    dir: PathBuf,
}

impl Files {
    /// Of the parameter CONTROL_FILES; the data files lie beside the first.
    #[must_use]
    pub fn of(control_files: &str) -> Files {
        let mut all = crate::params::list(control_files).into_iter().map(|name| host_path(&name));
        let control = all.next().unwrap_or_default();
        let dir = control.parent().map(Path::to_path_buf).unwrap_or_default();
        Files { control, copies: all.collect(), dir }
    }

    #[must_use]
    pub fn dictionary_name(container: &Container, dir: &str) -> String {
        match container.con_id {
            0 | 1 => format!("{dir}/system01.dbf"),
            _ => format!("{dir}/{}/system01.dbf", container.name.to_lowercase()),
        }
    }

    fn dictionary_path(&self, container: &Container) -> PathBuf {
        PathBuf::from(Files::dictionary_name(container, &self.dir.to_string_lossy()))
    }

    /// Every copy has to be there; the first is believed.
    pub fn load_control(&self) -> Result<Control> {
        for copy in &self.copies {
            std::fs::metadata(copy).map_err(|e| Ora::io(copy, &e))?;
        }
        load(&self.control)
    }

    pub fn save_control(&self, control: &Control) -> Result<()> {
        save(&self.control, control)?;
        self.copies.iter().try_for_each(|copy| save(copy, control))
    }

    pub fn load_dictionary(&self, container: &Container) -> Result<Dictionary> {
        load(&self.dictionary_path(container))
    }

    pub fn save_dictionary(&self, container: &Container, dictionary: &Dictionary) -> Result<()> {
        save(&self.dictionary_path(container), dictionary)
    }

    pub fn load_data(&self, ts: &Tablespace) -> Result<DataFile> {
        load(&host_path(&ts.file))
    }

    pub fn save_data(&self, ts: &Tablespace, data: &DataFile) -> Result<()> {
        save(&host_path(&ts.file), data)
    }

    pub fn load_redo(&self, log: &Log) -> Result<Redo> {
        load(&host_path(&log.file))
    }

    pub fn save_redo(&self, log: &Log, redo: &Redo) -> Result<()> {
        save(&host_path(&log.file), redo)
    }

    fn ledger_path(&self) -> PathBuf {
        self.dir.join("sim-ledger.json")
    }

    #[must_use]
    pub fn load_ledger(&self) -> Ledger {
        load(&self.ledger_path()).unwrap_or_default()
    }

    pub fn save_ledger(&self, ledger: &Ledger) -> Result<()> {
        save(&self.ledger_path(), ledger)
    }
}

pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Ora::io(path, &e))?;
    serde_json::from_slice(&bytes).map_err(|e| Ora::io(path, &std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
}

pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| Ora::io(dir, &e))?;
    }
    let bytes = serde_json::to_vec(value).map_err(|e| Ora::io(path, &std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?;
    write_atomic(path, &bytes, 0o640).map_err(|e| Ora::io(path, &e))
}
