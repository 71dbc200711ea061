//! Where things are. Every absolute path of the product passes through [`Paths`], so that a test can put a whole
//! host below a directory; nothing else, no order and no environment, may move one (H34, H35).

use std::path::{Path, PathBuf};

/// Where SDK 5's package puts everything (`O§6.2`).
pub const CLOUDHSM: &str = "/opt/cloudhsm";
/// The tree that Oracle searches for the one PKCS#11 library (`O§4.1`).
pub const EXTAPI: &str = "/opt/oracle/extapi";
/// What the runner keeps: journal, operations, details, copies.
pub const STATE: &str = "/var/lib/tde2hsm";
/// What the SSM document installs.
pub const INSTALLED: &str = "/opt/tde2hsm";

/// The kernel's name of the running program, good even when its file was replaced.
pub const SELF: &str = "/proc/self/exe";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
    runner: Option<PathBuf>,
}

impl Paths {
    /// The host itself.
    pub fn host() -> Paths {
        Paths { root: PathBuf::from("/"), runner: None }
    }

    /// A host below a directory, for tests.
    pub fn below(root: impl Into<PathBuf>) -> Paths {
        Paths { root: root.into(), runner: None }
    }

    /// Another program than the running one answers as the owner: a test's own is not the runner.
    pub fn with_runner(mut self, runner: impl Into<PathBuf>) -> Paths {
        self.runner = Some(runner.into());
        self
    }

    /// The program that is started again as the database owner or as a worker: the very image that runs. Its name may
    /// lead to another by now, because each command installs the runner anew.
    pub fn runner(&self) -> PathBuf {
        self.runner.clone().unwrap_or_else(|| PathBuf::from(SELF))
    }

    /// What the runner is called, in the process table and where a path must outlive this process.
    pub fn runner_name(&self) -> PathBuf {
        let name = self.runner.clone().or_else(|| std::env::current_exe().ok());
        let name = name.unwrap_or_else(|| self.at(INSTALLED).join("host-runner"));
        match name.to_string_lossy().strip_suffix(" (deleted)") {
            Some(name) => PathBuf::from(name),
            None => name,
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an absolute path of the host lies.
    pub fn at(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    pub fn state(&self) -> PathBuf {
        self.at(STATE)
    }
    pub fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }
    pub fn operations(&self) -> PathBuf {
        self.state().join("operations")
    }
    pub fn details(&self) -> PathBuf {
        self.state().join("details")
    }
    /// Copies that `back-up` makes, a directory a campaign.
    pub fn copies(&self) -> PathBuf {
        self.state().join("copies")
    }
    pub fn packages(&self) -> PathBuf {
        self.at(INSTALLED).join("packages")
    }
    pub fn extapi(&self) -> PathBuf {
        self.at(EXTAPI)
    }
    pub fn cloudhsm(&self) -> PathBuf {
        self.at(CLOUDHSM)
    }
    pub fn oratab(&self) -> PathBuf {
        self.at("/etc/oratab")
    }
    pub fn proc(&self) -> PathBuf {
        self.at("/proc")
    }
    pub fn endpoints(&self) -> PathBuf {
        self.at("/etc/tde2hsm/endpoints.toml")
    }
}
