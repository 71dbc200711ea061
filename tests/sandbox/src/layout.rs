//! Where things lie in the directory of a sandbox.

use std::path::{Path, PathBuf};
use tde2hsm_model::InstanceId;

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
