//! What a network HSM remembers, in `state.json` of its directory.
//!
//! Many processes of many hosts change it, and any of them may be killed: a change happens under an exclusive
//! lock on `state.lock` and becomes visible by rename, so a reader never sees half of one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// A user of the token: a crypto user of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Failed logins in a row.
    pub failed: u32,
    pub locked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logins {
    pub ok: u64,
    pub failed: u64,
}

/// One HSM of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hsm {
    pub id: String,
    pub active: bool,
}

/// Where copies of a key lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCopies {
    /// Ids of HSMs.
    pub copies: Vec<String>,
}

/// The whole state of one "network HSM".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmState {
    pub store: String,
    pub users: BTreeMap<String, User>,
    pub logins: Logins,
    /// Failed logins that lock a user (A: 5).
    pub max_failed: u32,
    /// The network to the HSM.
    pub reachable: bool,
    /// As `reachable`, but said by `--cut-off`: the HSM is gone for good.
    pub cut_off: bool,
    pub hsms: Vec<Hsm>,
    /// New keys are copied to every active HSM at once; otherwise they stay on the first.
    pub replicate: bool,
    /// Token objects cannot be made (a cluster changing its type).
    pub limited_write: bool,
    pub latency_ms: u64,
    /// Keys by label, with where they lie. Only `C_GenerateKey` writes here: it counts orphans too.
    pub keys: BTreeMap<String, KeyCopies>,
}

impl HsmState {
    #[must_use]
    pub fn new(store: &str, hsms: &[&str]) -> HsmState {
        HsmState {
            store: store.into(),
            users: BTreeMap::new(),
            logins: Logins::default(),
            max_failed: 5,
            reachable: true,
            cut_off: false,
            hsms: hsms.iter().map(|id| Hsm { id: (*id).into(), active: true }).collect(),
            replicate: true,
            limited_write: false,
            latency_ms: 0,
            keys: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn active_hsms(&self) -> Vec<String> {
        self.hsms.iter().filter(|h| h.active).map(|h| h.id.clone()).collect()
    }
}

/// Why the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot use `{0}`")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("`{0}` is not a token state")]
    Malformed(PathBuf, #[source] serde_json::Error),
}

/// Reads the state; a rename may be under way, so no lock is needed.
pub fn read(dir: &Path) -> Result<HsmState, StateError> {
    let path = dir.join("state.json");
    let text = std::fs::read(&path).map_err(|e| StateError::Io(path.clone(), e))?;
    serde_json::from_slice(&text).map_err(|e| StateError::Malformed(path, e))
}

/// Changes the state under its lock and returns what it became.
pub fn modify(dir: &Path, change: impl FnOnce(&mut HsmState)) -> Result<HsmState, StateError> {
    let _lock = lock(dir)?;
    let mut state = read(dir)?;
    let before = state.clone();
    change(&mut state);
    if state != before {
        write(dir, &state)?;
    }
    Ok(state)
}

/// Writes a first state.
pub fn create(dir: &Path, state: &HsmState) -> Result<(), StateError> {
    let _lock = lock(dir)?;
    write(dir, state)
}

pub(crate) fn lock(dir: &Path) -> Result<Flock<File>, StateError> {
    let path = dir.join("state.lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|e| StateError::Io(path.clone(), e))?;
    // Fails for one who is not its owner, and then the owner has done it.
    let _ = file.set_permissions(Permissions::from_mode(0o666));
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| StateError::Io(path, e.into()))
}

fn write(dir: &Path, state: &HsmState) -> Result<(), StateError> {
    let temp = dir.join(format!(".state.{}", std::process::id()));
    let text = serde_json::to_vec_pretty(state).map_err(|e| StateError::Malformed(dir.join("state.json"), e))?;
    let io = |e| StateError::Io(temp.clone(), e);
    let mut file = File::create(&temp).map_err(io)?;
    file.write_all(&text).map_err(io)?;
    file.set_permissions(Permissions::from_mode(0o666)).map_err(io)?;
    drop(file);
    std::fs::rename(&temp, dir.join("state.json")).map_err(io)
}
