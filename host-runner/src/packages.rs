//! The client's package: installed, configured, removed again.

use crate::files::FileError;
use crate::owner::Owner;
use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tde2hsm_protocol::{Code, Target};

#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("no package for `{os}` in the manifest")]
    NoneForOs { os: String },
    #[error("the manifest `{path}` is not valid: {why}")]
    Manifest { path: PathBuf, why: String },
    #[error("`{file}` does not have the digest that the manifest names")]
    Digest { file: String },
    #[error("`{tool}` failed: {why}")]
    Tool { tool: String, why: String },
    #[error(transparent)]
    File(#[from] FileError),
}

impl PackageError {
    pub fn code(&self) -> Code {
        match self {
            PackageError::NoneForOs { .. } => Code::PACKAGE_NONE,
            PackageError::File(error) => error.code(),
            _ => Code::PACKAGE_WORK,
        }
    }
}

pub struct Packages {
    paths: Paths,
}

/// Before and after an installation; goes into the journal, for the undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// `name-version` of what was there before, if anything (H18).
    pub before: Option<String>,
    /// This call installed it.
    pub changed: bool,
}

impl Packages {
    pub fn new(paths: &Paths) -> Packages {
        Packages { paths: paths.clone() }
    }
    /// Installed packages whose name starts with `cloudhsm`, as `name-version`.
    pub fn cloudhsm(&self) -> Result<Vec<String>, PackageError> {
        let _ = &self.paths;
        unimplemented!()
    }
    /// Installs the manifest's package for this operating system; nothing when that version is there.
    pub fn install(&self) -> Result<Installed, PackageError> {
        unimplemented!()
    }
    /// CA file and configuration, in this order; the owner can read `etc/` and write `run/` afterwards (`O§6.2`).
    pub fn configure(&self, _target: &Target, _owner: &Owner) -> Result<(), PackageError> {
        unimplemented!()
    }
    /// The configuration names these HSMs and the CA already.
    pub fn is_configured(&self, _target: &Target) -> Result<bool, PackageError> {
        unimplemented!()
    }
    /// Removes what `install` added, and the CA and configuration it brought.
    pub fn remove(&self, _installed: &Installed) -> Result<(), PackageError> {
        unimplemented!()
    }
}
