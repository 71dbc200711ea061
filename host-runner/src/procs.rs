//! Processes of the host, read from `/proc`.

use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tde2hsm_protocol::{Sid, Timestamp};

#[derive(Debug, Clone)]
pub struct Procs {
    proc: PathBuf,
}

/// The pmon process of a running instance, and under what it runs (H24).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pmon {
    pub pid: u32,
    pub sid: Sid,
    pub uid: u32,
    /// In the process's own order.
    pub environ: Vec<(String, String)>,
    pub limits: Vec<Limit>,
    /// Path of its cgroup (v2, or the `systemd` hierarchy of v1).
    pub cgroup: String,
    pub started_at: Timestamp,
    /// Target of `/proc/PID/exe`, ` (deleted)` included where the kernel says so.
    pub exe: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// As `/proc/PID/limits` names it: `Max locked memory`.
    pub name: String,
    /// `None`: unlimited.
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl Pmon {
    pub fn env(&self, name: &str) -> Option<&str> {
        self.environ.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub fn limit(&self, name: &str) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.name == name)
    }
}

impl Procs {
    pub fn new(paths: &Paths) -> Procs {
        Procs { proc: paths.proc() }
    }
    /// Every `ora_pmon_SID` of the host.
    pub fn pmons(&self) -> std::io::Result<Vec<Pmon>> {
        let _ = &self.proc;
        unimplemented!()
    }
    pub fn pmon(&self, _sid: &Sid) -> std::io::Result<Option<Pmon>> {
        unimplemented!()
    }
    /// The process is there and started at that time: a pid alone may have been given again (H28).
    pub fn is_there(&self, _pid: u32, _started: Timestamp) -> bool {
        unimplemented!()
    }
    /// When a process started; `None` when it is gone.
    pub fn started_at(&self, _pid: u32) -> Option<Timestamp> {
        unimplemented!()
    }
    /// Whole command line, arguments joined by spaces.
    pub fn command(&self, _pid: u32) -> Option<String> {
        unimplemented!()
    }
}
