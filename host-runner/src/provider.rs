//! The one PKCS#11 library of the host, and who maps it.

use crate::files::FileError;
use crate::owner::{Ended, Owner};
use crate::paths::Paths;
use crate::procs::Pmon;
use crate::secrets::Secret;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tde2hsm_protocol::survey::{Library, Mapping};
use tde2hsm_protocol::{Code, Digest, LoginResult};

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{found} libraries below `/opt/oracle/extapi`; exactly one must be there")]
    NotOne { found: usize },
    #[error("process {pid} maps `{path}`")]
    Mapped { pid: u32, path: String },
    #[error("the library does not load as `{user}`: {why}")]
    DoesNotLoad { user: String, why: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Owner(#[from] crate::owner::OwnerError),
}

impl ProviderError {
    pub fn code(&self) -> Code {
        match self {
            ProviderError::NotOne { .. } => Code::PROVIDER_LIBRARIES,
            ProviderError::Mapped { .. } => Code::PROVIDER_MAPPED,
            ProviderError::DoesNotLoad { .. } => Code::PROVIDER_LOAD,
            ProviderError::Io { .. } => Code::PROVIDER_WORK,
            ProviderError::File(error) => error.code(),
            ProviderError::Owner(error) => error.code(),
        }
    }
}

pub struct Provider {
    paths: Paths,
}

/// What a swap did, for its undo; goes into the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Where the old tree (the `hsm` directory below extapi/64) lies now; `None` when there was none.
    pub former: Option<PathBuf>,
    /// The new library's path.
    pub library: PathBuf,
    pub sha256: Digest,
}

/// What one C_Login as the owner found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub login: LoginResult,
    /// `CKR_PIN_INCORRECT`, `loads`, `dlopen: …`: for a person.
    pub said: String,
    /// CK_INFO's manufacturer and library version, where it answered.
    pub library: Option<String>,
}

impl Provider {
    pub fn new(paths: &Paths) -> Provider {
        Provider { paths: paths.clone() }
    }
    /// Every file and link below extapi that is or could be taken for a library.
    pub fn libraries(&self) -> Result<Vec<Library>, ProviderError> {
        let _ = &self.paths;
        unimplemented!()
    }
    /// Every mapping of a file below extapi by any process of the host (H17).
    pub fn mapped(&self) -> Result<Vec<Mapping>, ProviderError> {
        unimplemented!()
    }
    /// Some process maps a file below `/opt/cloudhsm` (H18).
    pub fn cloudhsm_mapped(&self) -> Result<bool, ProviderError> {
        unimplemented!()
    }
    /// The library that the new client brings: `/opt/cloudhsm/lib/libcloudhsm_pkcs11.so`.
    pub fn new_library(&self) -> PathBuf {
        self.paths.cloudhsm().join("lib/libcloudhsm_pkcs11.so")
    }
    /// The one library in the tree is the one of `/opt/cloudhsm`, by hash.
    pub fn is_swapped(&self) -> Result<bool, ProviderError> {
        unimplemented!()
    }
    /// Refused while any process maps a file below extapi. Old tree out, exactly one new library in, both by rename.
    /// `stamp` names the dated directory below `/opt/oracle`. Goes on where a crash left off.
    pub fn swap(&self, _owner: &Owner, _stamp: &str) -> Result<Swap, ProviderError> {
        unimplemented!()
    }
    /// The new tree aside (dated), the old one back. Refused while mapped.
    pub fn swap_back(&self, _swap: &Swap, _stamp: &str) -> Result<(), ProviderError> {
        unimplemented!()
    }
    /// `ldd` as the owner, in pmon's environment: every dependency resolves.
    pub fn loads(&self, _owner: &Owner, _pmon: Option<&Pmon>, _library: &Path) -> Result<(), ProviderError> {
        unimplemented!()
    }
    /// One C_Login, exactly one, as the owner (H10, H33).
    pub fn probe(&self, _owner: &Owner, _pmon: Option<&Pmon>, _library: &Path, _pin: &Secret) -> Result<Probe, ProviderError> {
        unimplemented!()
    }
    /// The same without a login: does it load and find a token?
    pub fn probe_load(&self, _owner: &Owner, _pmon: Option<&Pmon>, _library: &Path) -> Result<Probe, ProviderError> {
        unimplemented!()
    }
}

/// How the probe's process ended, when not by itself: a finding.
pub fn death(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("ended with status {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
    }
}
