//! What the operator of an HSM does: make a token, name a crypto user, set a PIN, look at the state.
//!
//! It works on SoftHSM directly and not through a shim: a cluster administrator needs no client library.
//! PINs never stand in a command line: `softhsm2-util` is not called.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

use nix::fcntl::{Flock, FlockArg};

use crate::config::Vendor;
use crate::state::{self, HsmState, StateError, User};

/// The security officer's PIN: nobody attacks the administrator of a sandbox.
const SO_PIN: &str = "sandbox-security-officer";

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot prepare `{0}`")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("SoftHSM refused")]
    SoftHsm(#[from] cryptoki::error::Error),
    #[error("no token in `{0}`")]
    NoToken(PathBuf),
    #[error(transparent)]
    State(#[from] StateError),
}

/// A token directory (`DIR/hsm/old-hsm`, `DIR/hsm/cloudhsm`).
#[derive(Clone, Debug)]
pub struct Token {
    dir: PathBuf,
}

// SoftHSM is one context a process, and its configuration comes from one environment variable.
static SOFTHSM: Mutex<()> = Mutex::new(());

impl Token {
    /// Makes the directory, the token and a first state. All of it is for every user of every host.
    pub fn create(dir: &Path, vendor: Vendor, hsms: &[&str]) -> Result<Token, AdminError> {
        let io = |e| AdminError::Io(dir.to_path_buf(), e);
        let tokens = dir.join("tokens");
        std::fs::create_dir_all(&tokens).map_err(io)?;
        state::create(dir, &HsmState::new(vendor.name(), hsms))?;
        let mut conf = std::fs::File::create(dir.join("softhsm2.conf")).map_err(io)?;
        conf.write_all(softhsm_conf(&tokens).as_bytes()).map_err(io)?;
        let token = Token { dir: dir.to_path_buf() };
        token.with_softhsm(|p11| {
            let slot = *p11.get_slots_with_token()?.last().ok_or_else(|| AdminError::NoToken(token.dir.clone()))?;
            p11.init_token(slot, &AuthPin::new(SO_PIN.into()), vendor.name())?;
            Ok(())
        })?;
        token.open_to_all()?;
        Ok(token)
    }

    /// A token that exists.
    #[must_use]
    pub fn at(dir: &Path) -> Token {
        Token { dir: dir.to_path_buf() }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names the crypto user and its password, and unlocks it. SoftHSM has one user a token.
    pub fn set_user(&self, user: &str, password: &str) -> Result<(), AdminError> {
        self.with_softhsm(|p11| {
            let slot = *p11.get_slots_with_initialized_token()?.first().ok_or_else(|| AdminError::NoToken(self.dir.clone()))?;
            let session = p11.open_rw_session(slot)?;
            session.login(UserType::So, Some(&AuthPin::new(SO_PIN.into())))?;
            session.init_pin(&AuthPin::new(format!("{user}:{password}").into()))?;
            session.logout()?;
            Ok(())
        })?;
        self.open_to_all()?;
        self.modify(|s| {
            s.users.clear();
            s.users.insert(user.into(), User::default());
        })?;
        Ok(())
    }

    pub fn state(&self) -> Result<HsmState, AdminError> {
        Ok(state::read(&self.dir)?)
    }

    /// Changes the state: faults of a sandbox are made this way.
    pub fn modify(&self, change: impl FnOnce(&mut HsmState)) -> Result<HsmState, AdminError> {
        Ok(state::modify(&self.dir, change)?)
    }

    /// Copies keys, users and state into `to`, which must not exist, while nobody changes them: what a backup of a cluster holds.
    pub fn copy_to(&self, to: &Path) -> Result<Token, AdminError> {
        let io = |e| AdminError::Io(to.to_path_buf(), e);
        // The order in which a login takes them.
        let _state = state::lock(&self.dir)?;
        let path = self.dir.join("softhsm.lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| AdminError::Io(path.clone(), e))?;
        let _ = file.set_permissions(Permissions::from_mode(0o666));
        let _alone = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| AdminError::Io(path, e.into()))?;
        copy_tree(&self.dir.join("tokens"), &to.join("tokens")).map_err(io)?;
        std::fs::copy(self.dir.join("state.json"), to.join("state.json")).map_err(io)?;
        std::fs::write(to.join("softhsm2.conf"), softhsm_conf(&to.join("tokens"))).map_err(io)?;
        let token = Token { dir: to.to_path_buf() };
        token.open_to_all()?;
        Ok(token)
    }

    fn with_softhsm<T>(&self, work: impl FnOnce(&Pkcs11) -> Result<T, AdminError>) -> Result<T, AdminError> {
        let _one = SOFTHSM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let conf = self.dir.join("softhsm2.conf");
        // SAFETY: SoftHSM reads the variable in C_Initialize below, under the lock held here; a program that
        // administers tokens does so before it serves.
        unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
        let p11 = Pkcs11::new(crate::SOFTHSM)?;
        p11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let done = work(&p11);
        p11.finalize()?;
        done
    }

    fn open_to_all(&self) -> Result<(), AdminError> {
        open_tree(&self.dir).map_err(|e| AdminError::Io(self.dir.clone(), e))
    }
}

/// The configuration SoftHSM is given.
pub(crate) fn softhsm_conf(tokens: &Path) -> String {
    format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        tokens.display()
    )
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?
        } else {
            std::fs::copy(entry.path(), target).map(drop)?
        }
    }
    Ok(())
}

/// Opens what this user owns below `path` to every user: the token is shared by all hosts.
pub(crate) fn open_tree(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path)?;
    let mode = if meta.is_dir() { 0o777 } else { 0o666 };
    let mine = meta.uid() == nix::unistd::geteuid().as_raw();
    if mine && meta.mode() & 0o777 != mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            match open_tree(&entry?.path()) {
                // Another process may replace a file meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}
