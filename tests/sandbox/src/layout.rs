//! Where things lie in the directory of a sandbox.

use std::path::{Path, PathBuf};
use tde2hsm_model::{InstanceId, Region};

#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn fleet_file(&self) -> PathBuf {
        self.dir.join("fleet.toml")
    }

    pub fn env_file(&self) -> PathBuf {
        self.dir.join("env")
    }

    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    pub fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    pub fn host_root(&self, id: &InstanceId) -> PathBuf {
        self.hosts().join(id.as_str()).join("root")
    }

    pub fn hsm(&self, name: &str) -> PathBuf {
        self.dir.join("hsm").join(name)
    }

    /// The network to the HSMs of a region, as its hosts see it.
    pub fn network(&self, region: &Region) -> PathBuf {
        if region.as_str() == crate::sandbox::PRIMARY {
            self.dir.join("hsm")
        } else {
            self.dir.join("hsm-of").join(region.as_str())
        }
    }

    pub fn hsm_backups(&self) -> PathBuf {
        self.dir.join("hsm-backups")
    }

    pub fn hsm_backup(&self, id: &str) -> PathBuf {
        self.hsm_backups().join(id)
    }

    pub fn ebs(&self) -> PathBuf {
        self.dir.join("ebs")
    }

    /// Hosts that a drill made.
    pub fn drills(&self) -> PathBuf {
        self.dir.join("drills")
    }

    /// The milliseconds that the world is ahead of the machine.
    pub fn clock(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// The library that tells it.
    pub fn clock_library(&self) -> PathBuf {
        self.dir.join("bin/libsandbox_clock.so")
    }

    pub fn truth(&self, id: &InstanceId) -> PathBuf {
        self.dir.join("truth").join(id.as_str())
    }

    pub fn s3(&self) -> PathBuf {
        self.dir.join("s3")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn packages(&self) -> PathBuf {
        self.dir.join("packages")
    }

    /// For what lives only as long as one command.
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }
}
