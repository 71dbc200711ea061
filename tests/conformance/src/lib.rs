//! Judges that no one here wrote: boto3 as a client of the sandbox, botocore's service models over its raw responses (H50).
//!
//! The Python they need lives in a virtual environment below the target directory, made on first use.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The crate's own directory, where the scripts are.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's target directory.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => here().join("../../target"),
    }
}

/// A Python that has boto3; made if it is not there yet.
pub fn python() -> Result<PathBuf> {
    let venv = target_dir().join("venv");
    let python = venv.join("bin/python");
    std::fs::create_dir_all(target_dir())?;
    // Two tests may want it at once.
    let lock = File::create(target_dir().join("venv.lock"))?;
    lock.lock().context("waiting for the virtual environment")?;
    let works = |python: &Path| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import boto3"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|s| s.success())
    };
    if !works(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context("making a virtual environment")?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", "boto3", "botocore"]))
            .context("installing boto3")?;
    }
    Ok(python)
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
    /// Builds the program if need be and starts it; returns when it is ready.
    pub fn up(dir: &Path, args: &[&str]) -> Result<Self> {
        run(Command::new(env!("CARGO")).args([
            "build",
            "--quiet",
            "-p",
            "sandbox",
            "-p",
            "sandbox-oracle",
            "-p",
            "sandbox-old-hsm",
            "-p",
            "sandbox-cloudhsm",
        ]))
        .context("building the sandbox")?;
        let mut child = Command::new(target_dir().join("debug/sandbox"))
            .args(["up", "--dir"])
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the sandbox")?;
        let mut exports = Vec::new();
        let mut ready = false;
        for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
            let line = line?;
            if let Some((name, value)) = line.strip_prefix("export ").and_then(|l| l.split_once('=')) {
                exports.push((name.to_owned(), value.to_owned()));
            }
            if line == "ready" {
                ready = true;
                break;
            }
        }
        if !ready {
            let status = child.wait()?;
            bail!("the sandbox ended with {status} before it was ready");
        }
        Ok(Self { child, exports })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // SIGTERM through the program of that name: it takes its hosts down.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
