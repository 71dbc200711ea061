//! Work as the database owner.
//!
//! Root runs no program of a home and opens no file of one (H33).

use crate::files::{FileError, FileInfo, Kept};
use crate::paths::Paths;
use crate::procs::Pmon;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tde2hsm_protocol::{Code, Digest};

#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error("the owner of `{path}` cannot be found")]
    Unknown {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` belongs to root; nothing of it is run")]
    Root { path: PathBuf },
    #[error("`{program}` cannot be started as `{user}`")]
    Spawn {
        program: PathBuf,
        user: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` cannot be talked to")]
    Talk {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {seconds} s and was ended")]
    TimedOut { program: PathBuf, seconds: u64 },
}

impl OwnerError {
    pub fn code(&self) -> Code {
        match self {
            OwnerError::Root { .. } => Code::OWNER_IS_ROOT,
            _ => Code::OWNER_WORK,
        }
    }
}

/// The user that `bin/oracle` of a home belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`.
    pub directory: PathBuf,
}

/// What the child may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// `no_new_privs`: for everything but a STARTUP.
    Locked,
    /// As a login of the owner would have it. Only for STARTUP: background processes inherit `no_new_privs`, and
    /// Oracle's own setuid helpers (`oradism`, `extjob`) would fail for the database's whole life (H24).
    Login,
}

/// A program to run as the owner. Its environment holds `env` alone, plus `PATH`, `HOME`, `USER`, `LOGNAME` where absent.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub dir: Option<PathBuf>,
    /// Wall-clock limit for [`Owner::run`]; then the process group is ended.
    pub limit: Duration,
    pub privileges: Privileges,
    /// Limits and cgroup of a former pmon, under which the program shall run (H24).
    pub like: Option<Pmon>,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>, limit: Duration) -> Program {
        Program {
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            limit,
            privileges: Privileges::Locked,
            like: None,
        }
    }
    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.args.push(arg.into());
        self
    }
    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

pub struct Output {
    /// Not redacted: whoever keeps it passes it through [`crate::Secrets::redact`] first.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub ended: Ended,
}

/// A running program: line by line, for sqlplus.
pub struct Child {
    _todo: (),
}

/// What was read until a deadline.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Some(Vec<u8>),
    /// Nothing came before the deadline; the program still runs.
    Nothing,
    /// The program closed its output.
    End,
}

impl Child {
    pub fn pid(&self) -> u32 {
        unimplemented!()
    }
    /// Writes to its standard input; the caller's buffer is his to zeroise.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), OwnerError> {
        unimplemented!()
    }
    pub fn close_input(&mut self) {
        unimplemented!()
    }
    /// What comes next on standard output and standard error together.
    pub fn read(&mut self, _within: Duration) -> Result<Read, OwnerError> {
        unimplemented!()
    }
    /// `None`: still running after `within`.
    pub fn wait(&mut self, _within: Duration) -> Result<Option<Ended>, OwnerError> {
        unimplemented!()
    }
    /// Ends the process group. A server process of Oracle is in a session of its own and is not in it (H28).
    pub fn kill(&mut self) {
        unimplemented!()
    }
}

impl Owner {
    /// The owner of `ORACLE_HOME/bin/oracle`.
    pub fn of_home(_paths: &Paths, _oracle_home: &str) -> Result<Owner, OwnerError> {
        unimplemented!()
    }
    pub fn spawn(&self, _program: &Program) -> Result<Child, OwnerError> {
        unimplemented!()
    }
    /// Runs to its end or limit. Standard error is kept apart.
    pub fn run(&self, _program: &Program, _stdin: &[u8]) -> Result<Output, OwnerError> {
        unimplemented!()
    }
    /// A process of the owner that answers for files.
    pub fn files(&self) -> Result<OwnerFiles, OwnerError> {
        unimplemented!()
    }
}

/// Files, seen and changed by a process that is the owner.
pub struct OwnerFiles {
    _todo: (),
}

impl OwnerFiles {
    /// `None` when there is no such file.
    pub fn stat(&mut self, _path: &Path) -> Result<Option<FileInfo>, FileError> {
        unimplemented!()
    }
    /// `None` when there is no such file.
    pub fn read(&mut self, _path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        unimplemented!()
    }
    /// `None` when there is no such directory. Plain files come with their hash; links are not followed.
    pub fn list(&mut self, _dir: &Path) -> Result<Option<Vec<FileInfo>>, FileError> {
        unimplemented!()
    }
    /// Replaces a file whose content hashes to `was` (else [`FileError::Changed`]); `None`: creates it, 0640.
    pub fn replace(&mut self, _path: &Path, _bytes: &[u8], _was: Option<Digest>) -> Result<Digest, FileError> {
        unimplemented!()
    }
    /// Copies a plain file into a directory that is made when missing (0700); never over another file.
    /// The same name with the same content there already is fine; with another content a number is added.
    pub fn copy_into(&mut self, _path: &Path, _dir: &Path) -> Result<Kept, FileError> {
        unimplemented!()
    }
    /// Moves a file aside into a directory on the same filesystem, by rename.
    pub fn move_into(&mut self, _path: &Path, _dir: &Path) -> Result<Kept, FileError> {
        unimplemented!()
    }
    /// Moves a file back to a name that must not exist.
    pub fn move_back(&mut self, _kept: &Kept) -> Result<(), FileError> {
        unimplemented!()
    }
    /// Makes a directory, its parents too, with this mode. Existing is fine.
    pub fn make_dir(&mut self, _path: &Path, _mode: u32) -> Result<(), FileError> {
        unimplemented!()
    }
    pub fn set_mode(&mut self, _path: &Path, _mode: u32) -> Result<(), FileError> {
        unimplemented!()
    }
}
