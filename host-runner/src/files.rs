//! The only place where a file changes, and none is ever lost.
//!
//! A file is replaced as a whole (temporary file in the same directory, fsync, rename, fsync of the directory) and
//! keeps owner, mode and SELinux label, so a crash leaves the old or the new text and never a part. Copies and files
//! moved aside go to a name that does not exist yet (`RENAME_NOREPLACE`, `O_EXCL`): nothing is overwritten or deleted
//! (invariant 3). Directories of the database owner are walked without following links, in a process that has become
//! the owner ([`crate::owner`]), so a link planted there leads nowhere its planter could not go himself (H33).

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tde2hsm_protocol::{Code, Digest, Timestamp};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` is not what it was when it was read")]
    Changed { path: PathBuf },
    #[error("`{path}` is a link or not a plain file")]
    NotPlain { path: PathBuf },
    #[error("`{path}` exists already and is never overwritten")]
    Exists { path: PathBuf },
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("the database owner's process answered: {message}")]
    Remote { code: Code, message: String },
}

impl FileError {
    pub fn code(&self) -> Code {
        match self {
            FileError::Changed { .. } => Code::FILE_CHANGED,
            FileError::Remote { code, .. } => *code,
            _ => Code::FILE_WORK,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    File,
    Directory,
    Link,
    Other,
}

/// What `stat` says, and the hash of a plain file where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    pub path: PathBuf,
    pub kind: FileKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A copy, or a file moved aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub from: PathBuf,
    pub to: PathBuf,
    pub sha256: Digest,
}
