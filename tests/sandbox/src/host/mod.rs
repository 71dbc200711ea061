//! A host: a mount, PID, IPC and UTS namespace whose root is a directory of ours.
//!
//! Paths inside are absolute and real, users are those of its own `/etc/passwd`, so the product's document and binary
//! run exactly as shipped. A host lives as long as its process 1, which does nothing but wait for its standard input
//! to end: when the sandbox dies, however it dies, the kernel ends every process of every host with it.

mod exec;
mod init;
pub mod rootfs;

pub use exec::{ExecArgs, run as run_exec};
pub use init::{InitArgs, Mount, run as run_init};

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HostError {
    #[error("{what} failed: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("the host did not start: {0}")]
    NotStarted(String),
    #[error("the host is down")]
    Down,
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let what = what.into();
    move |source| HostError::Io { what, source }
}

/// The environment of everything a host runs.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug)]
struct Running {
    child: Child,
    /// Held open; its end is the host's end.
    _life: ChildStdin,
    pid1: i32,
}

#[derive(Debug)]
pub struct Namespace {
    root: PathBuf,
    init: Mutex<InitArgs>,
    program: PathBuf,
    running: Mutex<Option<Running>>,
}

impl Namespace {
    /// A host over `args.root`, not started yet. `program` is the sandbox itself.
    pub fn new(program: &Path, args: &InitArgs) -> Self {
        Self { root: args.root.clone(), init: Mutex::new(args.clone()), program: program.to_owned(), running: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an absolute path of the host lies outside. Of a host that is up this goes through its own mounts: a layer that is
    /// written to behind the back of its overlay may not show there.
    pub fn outside(&self, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        if let Some(running) = self.lock().as_ref() {
            return PathBuf::from(format!("/proc/{}/root", running.pid1)).join(path);
        }
        let init = self.init();
        let mounts =
            init.mounts.iter().filter_map(|m| Some((Path::new(path).strip_prefix(m.target.trim_start_matches('/')).ok()?, m)));
        match mounts.min_by_key(|(rest, _)| rest.components().count()) {
            Some((rest, mount)) => mount.upper.join(rest),
            None => self.root.join(path),
        }
    }

    /// The upper layer of the root volume.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn init(&self) -> InitArgs {
        self.init.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One more volume, there from the next start on.
    pub fn add_volume(&self, mount: Mount, device: &str, volume: &str) {
        let mut init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        init.mounts.push(mount);
        init.devices.push((device.to_owned(), volume.to_owned()));
    }

    pub fn is_up(&self) -> bool {
        let mut running = self.lock();
        match running.as_mut().map(|r| r.child.try_wait()) {
            None => false,
            Some(Ok(None)) => true,
            Some(_) => {
                *running = None;
                false
            }
        }
    }

    /// Starts the host; returns when its file systems are in place.
    pub fn start(&self) -> Result<(), HostError> {
        let mut running = self.lock();
        if running.is_some() {
            return Ok(());
        }
        let mut child = Command::new(&self.program)
            .arg("host-init")
            .args(self.init().to_argv()?)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io("starting a host"))?;
        let life = child.stdin.take().ok_or(HostError::Down)?;
        let stdout = child.stdout.take().ok_or(HostError::Down)?;
        let (mut pid1, mut ready) = (None, false);
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(io("reading from a host"))?;
            match line.split_once(' ') {
                Some(("pid", pid)) => pid1 = pid.parse().ok(),
                Some(("error", why)) => {
                    let _ = child.wait();
                    return Err(HostError::NotStarted(why.to_owned()));
                }
                _ => ready = ready || line == "ready",
            }
            if ready && let Some(pid1) = pid1 {
                *running = Some(Running { child, _life: life, pid1 });
                return Ok(());
            }
        }
        let _ = child.wait();
        Err(HostError::NotStarted("process 1 ended without a word".to_owned()))
    }

    /// Ends every process of the host at once, as a crash does.
    pub fn kill(&self) {
        if let Some(mut running) = self.lock().take() {
            // SAFETY: a plain system call; the process is our own child's child and cannot have been reaped yet.
            unsafe { libc::kill(running.pid1, libc::SIGKILL) };
            let _ = running.child.wait();
        }
    }

    /// The arguments of `sandbox host-exec` that put a command into the host.
    pub fn exec_args(&self, argv: &[String], dir: Option<&str>) -> Result<Vec<String>, HostError> {
        let pid1 = self.lock().as_ref().map(|r| r.pid1).ok_or(HostError::Down)?;
        let mut out = vec!["host-exec".to_owned(), "--pid".to_owned(), pid1.to_string()];
        if let Some(dir) = dir {
            out.extend(["--cd".to_owned(), dir.to_owned()]);
        }
        out.push("--".to_owned());
        out.extend_from_slice(argv);
        Ok(out)
    }

    /// A command inside the host, as root, with a clean environment.
    pub fn command(&self, argv: &[&str]) -> Result<Command, HostError> {
        let argv: Vec<String> = argv.iter().map(|&s| s.to_owned()).collect();
        let mut command = Command::new(&self.program);
        command.args(self.exec_args(&argv, None)?).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }

    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.kill();
    }
}
