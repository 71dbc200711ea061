//! Judges that no one here wrote: boto3 as a client of the sandbox, botocore's service models over its raw responses (H50).
//!
//! The Python they need lives in a virtual environment below the target directory, made on first use.

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The crate's own directory, where the scripts are.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where Cargo put the programs: beside the test or the program that runs.
pub fn programs() -> Result<PathBuf> {
    let me = std::env::current_exe().context("own path")?;
    me.ancestors()
        .find(|dir| ["sandbox", "oracle", "libcloudhsm_pkcs11.so"].iter().all(|name| dir.join(name).is_file()))
        .map(Path::to_owned)
        .context("the sandbox's programs are not built; run `cargo build --workspace` first")
}

/// The target directory that the programs lie in.
pub fn target_dir() -> Result<PathBuf> {
    programs()?.parent().map(Path::to_owned).context("programs lie in a target directory")
}

/// A Python that has boto3; made if it is not there yet.
pub fn python() -> Result<PathBuf> {
    Ok(virtualenv("venv", "import boto3", &["boto3", "botocore"])?.join("bin/python"))
}

/// A virtual environment below the target directory, with these packages; made if `probe`, a line of Python, does not run in it.
pub fn virtualenv(name: &str, probe: &str, packages: &[&str]) -> Result<PathBuf> {
    // A probe starts an interpreter; one a process is enough.
    static FOUND: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target_dir()?;
    let venv = target.join(name);
    if found.contains(name) {
        return Ok(venv);
    }
    // Two tests may want it at once.
    let lock = File::create(target.join(format!("{name}.lock")))?;
    lock.lock().context("waiting for the virtual environment")?;
    let mut works = Command::new(venv.join("bin/python"));
    works.args(["-c", probe]).stdout(Stdio::null()).stderr(Stdio::null());
    if !works.status().is_ok_and(|status| status.success()) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context("making a virtual environment")?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))
            .with_context(|| format!("installing {packages:?}"))?;
    }
    found.insert(name.to_owned());
    Ok(venv)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Checks recorded responses; the output is the checker's, exit status 0 when every response is valid.
pub fn check_responses(recordings: &[&Path]) -> Result<Output> {
    Ok(Command::new(python()?).arg(here().join("check_responses.py")).args(recordings).output()?)
}

/// Runs the boto3 client with the environment a sandbox printed.
pub fn run_client(exports: &[(String, String)]) -> Result<Output> {
    let mut command = Command::new(python()?);
    command.arg(here().join("client.py")).envs(exports.iter().cloned());
    Ok(command.output()?)
}

/// A sandbox that is served until it is dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    pub exports: Vec<(String, String)>,
}

impl Served {
    /// Starts it; returns when it is ready.
    pub fn up(dir: &Path, args: &[&str]) -> Result<Self> {
        Self::start(Command::new(programs()?.join("sandbox")).args(["up", "--dir"]).arg(dir).args(args))
    }

    /// The same from the caller's own command line.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the sandbox")?;
        let out = child.stdout.take().context("stdout is piped")?;
        let mut served = Self { child, exports: Vec::new() };
        for line in BufReader::new(out).lines() {
            let line = line?;
            if let Some((name, value)) = line.strip_prefix("export ").and_then(|l| l.split_once('=')) {
                served.exports.push((name.to_owned(), value.to_owned()));
            }
            if line == "ready" {
                return Ok(served);
            }
        }
        bail!("the sandbox ended with {} before it was ready", served.child.wait()?)
    }

    /// Its process; every host and everything in it is below it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a machine that loses its power.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It takes its namespaces and mounts down itself; waited for, so that the next one finds none.
        end(&mut self.child, Duration::from_secs(20));
    }
}

/// Asks a child to end, and ends it where it does not within this time.
pub fn end(child: &mut Child, within: Duration) {
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Takes everything of AWS out of a command's environment.
pub fn without_aws(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
}
