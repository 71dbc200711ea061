//! The templates in the hands of others: moto and MiniStack make of them what they can, and are then asked what they made.
//!
//! Neither is ours and neither is AWS. What one of them lacks is a fixed list in `deploy.py`, which must stay exactly true:
//! a third party that accepts anything proves nothing by accepting (H50).

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tde2hsm_conformance::{end, virtualenv, without_aws};

/// The crate's own directory, where the scripts are.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository.
pub fn root() -> PathBuf {
    here().join("../..")
}

/// The account that everything is deployed to; also the key by which MiniStack knows it.
pub const ACCOUNT: &str = "123456789012";

/// Writes both templates into a directory, each with its changes: file, words, other words.
pub fn changed(dir: &Path, changes: &[(&str, &str, &str)]) -> Result<()> {
    for name in ["source.yaml", "dr.yaml"] {
        let mut text = std::fs::read_to_string(root().join("infra").join(name))?;
        for (_, from, to) in changes.iter().filter(|(file, ..)| *file == name) {
            ensure!(text.contains(from), "{name} no longer says `{from}`");
            text = text.replace(from, to);
        }
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// A function's archive with one program in it.
pub fn archive(program: &Path, zip: &Path) -> Result<()> {
    let text = "import sys, zipfile; zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED, compresslevel=1).write(sys.argv[1], 'bootstrap')";
    let output = Command::new("python3").args(["-c", text]).arg(program).arg(zip).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Who makes something of the templates. The versions are fixed, since the lists of what they lack are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Moto,
    MiniStack,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Who::Moto => "moto",
            Who::MiniStack => "ministack",
        }
    }

    fn venv(self) -> Result<PathBuf> {
        let exact = |package: &str, version: &str| {
            format!("import importlib.metadata as m; assert m.version({package:?}) == {version:?}")
        };
        match self {
            Who::Moto => virtualenv("venv-moto", &exact("moto", "5.2.5"), &["moto[server]==5.2.5", "boto3", "pyyaml"]),
            Who::MiniStack => virtualenv(
                "venv-ministack",
                &(exact("ministack", "1.5.33") + ", awscli"),
                &["ministack==1.5.33", "awscli", "boto3", "pyyaml"],
            ),
        }
    }

    pub fn python(self) -> Result<PathBuf> {
        Ok(self.venv()?.join("bin/python"))
    }
}

/// A third party's server, on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Server {
    pub who: Who,
    pub endpoint: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// `env` is what its functions' environment has beside the template's.
    pub fn up(who: Who, dir: &Path, env: &[(&str, &str)]) -> Result<Server> {
        let venv = who.venv()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = match who {
            Who::Moto => {
                let mut command = Command::new(venv.join("bin/moto_server"));
                command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
                command
            }
            Who::MiniStack => {
                let mut command = Command::new(venv.join("bin/ministack"));
                command.env("GATEWAY_PORT", port.to_string()).env("MINISTACK_HOST", "127.0.0.1");
                command
            }
        };
        let log = dir.join(format!("{}.log", who.name()));
        without_aws(&mut command);
        command.envs(env.iter().copied()).env("TMPDIR", dir).current_dir(dir).stdin(Stdio::null());
        command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let child = command.spawn().with_context(|| format!("starting {}", who.name()))?;
        let mut server = Server { who, endpoint: format!("http://127.0.0.1:{port}"), child, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", who.name(), server.log());
            }
            ensure!(Instant::now() < deadline, "{} does not listen:\n{}", who.name(), server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child, Duration::from_secs(5));
    }
}

/// Runs one of the crate's scripts; what it printed, and whether it was content.
pub fn script(who: Who, name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(bool, String)> {
    let mut command = Command::new(who.python()?);
    command.arg(here().join(name)).args(args).envs(env.iter().copied()).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("running {name}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}
