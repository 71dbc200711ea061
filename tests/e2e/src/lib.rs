//! Drives the shipped programs against the sandbox, as a person at a terminal would: processes, files and exit codes.
//!
//! Nothing here links the product. What the tests believe comes from `sandbox verify` and `sandbox inspect`, never from
//! the product's own word (H46).

pub mod canary;
pub mod kill;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tde2hsm_conformance::{Served, without_aws};

pub use tde2hsm_conformance::{programs, target_dir};

/// Where every world's raw responses are recorded, for `tests/z_responses.rs` to judge.
pub fn records() -> Result<PathBuf> {
    let dir = target_dir()?.join("records");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A recording that no other world writes.
fn record(seed: u64) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(records()?.join(format!("{}-{seed}-{number}.jsonl", std::process::id())))
}

/// A directory for a world. In memory where there is plenty of it: a world is thousands of files that a disk would be told to
/// keep and, seconds later, to forget.
pub fn scratch() -> Result<tempfile::TempDir> {
    const MEMORY: &str = "/dev/shm";
    const GIB: u64 = 1 << 30;
    // A world holds programs that are run.
    let runs = |stat: &nix::sys::statvfs::Statvfs| !stat.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC);
    let memory = nix::sys::statvfs::statvfs(MEMORY).ok().filter(runs);
    let free = memory.map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let plenty = free >= 8 * GIB && available.unwrap_or(0) * 1024 >= 8 * GIB;
    let dir = if plenty { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
    dir.context("a directory for a world")
}

/// A running sandbox and a journal, in one directory.
pub struct World {
    pub dir: PathBuf,
    programs: PathBuf,
    env: BTreeMap<String, String>,
    served: Served,
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn ok(self) -> Result<Ran> {
        ensure!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        Ok(self)
    }
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}\n{}", self.stdout, self.stderr))
    }
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl World {
    /// Starts a sandbox in `dir`, which is emptied first.
    pub fn up(dir: &Path, fleet: &str, seed: u64) -> Result<World> {
        World::start(dir, fleet, seed, &[], &record(seed)?)
    }

    /// The same under `strace`, which writes argv and environment of every program that any host, or the sandbox
    /// itself, starts into `trace`: a sampler of /proc would miss the short-lived ones.
    pub fn up_traced(dir: &Path, fleet: &str, seed: u64, trace: &Path, record: &Path) -> Result<World> {
        World::start(dir, fleet, seed, &strace(trace), record)
    }

    /// With the functions of the templates behind events and [`World::tick`].
    pub fn up_with_functions(dir: &Path, fleet: &str, seed: u64) -> Result<World> {
        let record = record(seed)?;
        let functions = programs()?.join("bootstrap");
        World::start_with(dir, fleet, seed, &[], &record, &["--functions".into(), functions.into()])
    }

    fn start(dir: &Path, fleet: &str, seed: u64, wrapper: &[OsString], record: &Path) -> Result<World> {
        World::start_with(dir, fleet, seed, wrapper, record, &[])
    }

    fn start_with(dir: &Path, fleet: &str, seed: u64, wrapper: &[OsString], record: &Path, more: &[OsString]) -> Result<World> {
        let programs = programs()?;
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let log = File::create(dir.join("sandbox.log"))?;
        let mut words = wrapper.to_vec();
        words.push(programs.join("sandbox").into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["up", "--dir"]).arg(&dir).args(["--fleet", fleet, "--seed", &seed.to_string()]);
        command.arg("--record").arg(record).args(more).stderr(log);
        let served = Served::start(&mut command).with_context(|| {
            let log = std::fs::read_to_string(dir.join("sandbox.log")).unwrap_or_default();
            format!("the sandbox did not get ready: {}", log.trim())
        })?;
        let env = served.exports.iter().cloned().collect();
        Ok(World { dir, programs, env, served })
    }

    /// The sandbox's process; every host and everything in it is below it.
    pub fn pid(&self) -> u32 {
        self.served.pid()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.db")
    }

    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The CLI as the operator has it: the sandbox's environment and nothing else of AWS.
    pub fn tde2hsm(&self) -> Command {
        let mut command = Command::new(self.programs.join("tde2hsm"));
        without_aws(&mut command);
        command.envs(&self.env).env("TDE2HSM_JOURNAL", self.journal()).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    pub fn cli(&self, args: &[&str]) -> Result<Ran> {
        run(self.tde2hsm().args(args))
    }

    /// The same for a person who has assumed a role of the DR region's template: what that does not allow is refused.
    pub fn as_role(&self, role: &str) -> Result<Command> {
        let keys = self.sandbox("assume", &[role])?.ok()?.json()?;
        let mut command = self.tde2hsm();
        for (name, value) in keys.as_object().context("keys")? {
            command.env(name, value.as_str().context("a key")?);
        }
        Ok(command)
    }

    /// Instance ids of the hosts.
    pub fn hosts(&self) -> Result<Vec<String>> {
        let mut hosts: Vec<String> = std::fs::read_dir(self.dir.join("hosts"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("i-"))
            .collect();
        hosts.sort();
        Ok(hosts)
    }

    /// The host of a database, by its oratab.
    pub fn host_of(&self, sid: &str) -> Result<String> {
        let has = |host: &String| {
            let oratab = std::fs::read_to_string(self.root(host).join("etc/oratab")).unwrap_or_default();
            oratab.lines().any(|line| line.starts_with(&format!("{sid}:")))
        };
        self.hosts()?.into_iter().find(has).with_context(|| format!("no host has {sid}"))
    }

    /// The CLI beside the test; what it says is in [`World::said`].
    pub fn spawn(&self, words: &[&str]) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.path("cli.log"))?;
        Ok(self.tde2hsm().args(words).stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    /// What every [`World::spawn`] has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.path("cli.log")).unwrap_or_default()
    }

    /// Looks until something is found, while `child` runs and for so long at most.
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        child: &mut Child,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            ensure!(child.try_wait()?.is_none(), "it ended before {what}:\n{}", self.said());
            ensure!(Instant::now() < deadline, "{what}: not within {within:?}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A host's root file system.
    pub fn root(&self, host: &str) -> PathBuf {
        self.dir.join("hosts").join(host).join("root")
    }

    /// The value of a secret (`old-hsm`, `cloudhsm`, `software`), which no part of the product tells.
    pub fn secret(&self, name: &str) -> Result<String> {
        let values: Value = serde_json::from_slice(&std::fs::read(self.dir.join("truth/secrets.json"))?)?;
        values[name].as_str().map(str::to_owned).with_context(|| format!("no secret `{name}`"))
    }

    pub fn client_package(&self) -> Result<PathBuf> {
        std::fs::read_dir(self.dir.join("packages"))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|e| e == "rpm"))
            .context("the sandbox left no client package")
    }

    /// What is wrong with the fleet, if every database of it was to be migrated. Empty after a right migration.
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        let inspection = self.inspect()?;
        let (open, cut, without) = (self.verify("")?, self.verify("old-hsm,software")?, self.verify("target")?);
        let sids = inspection.sids();
        ensure!(!sids.is_empty(), "no database");
        let any = |test: &dyn Fn(&str) -> bool| sids.iter().any(|sid| test(sid));
        let repeated = |sid: &str| ["MIGRATE", "REVERSE MIGRATE"].iter().any(|s| inspection.statements(sid, s) > 1);
        let found = [
            (Verdict::Unreadable, any(&|sid| !open.all_readable(sid))),
            (Verdict::NotOnCloudHsm, any(&|sid| !inspection.on_cloudhsm(sid))),
            (Verdict::NeedsOldKeystores, any(&|sid| !cut.all_readable(sid))),
            (Verdict::ReadsWithoutTarget, any(&|sid| without.readable(sid) > 0)),
            (Verdict::LoginWasted, ["old-hsm", "cloudhsm"].iter().any(|token| inspection.logins(token).1 > 0)),
            (Verdict::StatementRepeated, any(&repeated)),
        ];
        Ok(found.into_iter().filter(|(_, is)| *is).map(|(verdict, _)| verdict).collect())
    }

    /// `setup` with what the sandbox left for an operator to install.
    pub fn setup(&self) -> Result<Ran> {
        self.setup_with(&[])
    }

    /// The same in another region, for what a drill starts there.
    pub fn setup_in(&self, region: &str) -> Result<Ran> {
        self.setup_with(&["--region", region])
    }

    fn setup_with(&self, more: &[&str]) -> Result<Ran> {
        let packages = self.dir.join("packages");
        let rpm = self.client_package()?;
        run(self
            .tde2hsm()
            .arg("setup")
            .args(more)
            .arg("--runner")
            .arg(self.runner()?)
            .arg("--client-package")
            .arg(format!("rhel8={}", rpm.display()))
            .arg("--ca")
            .arg(packages.join("customerCA.crt")))
    }

    /// The runner without what only a debugger reads: every order brings it to its host anew.
    fn runner(&self) -> Result<PathBuf> {
        let (built, dir) = (self.programs.join("host-runner"), self.dir.join("runner"));
        std::fs::create_dir_all(&dir)?;
        let stripped = dir.join("host-runner");
        if !stripped.exists() && !run(Command::new("strip").arg("-o").arg(&stripped).arg(&built))?.status.success() {
            std::fs::copy(&built, &stripped)?;
        }
        Ok(stripped)
    }

    /// The gate after each wave as the fleet file may have it (H8): a world's own lets nobody wait.
    pub fn protect(&self, mode: &str) -> Result<()> {
        self.fleet_file("mode = \"off\"", &format!("mode = \"{mode}\""))
    }

    /// Other words in the fleet file.
    pub fn fleet_file(&self, instead_of: &str, words: &str) -> Result<()> {
        let file = self.path("fleet.toml");
        let text = std::fs::read_to_string(&file)?;
        let with = text.replace(instead_of, words);
        ensure!(text != with, "the fleet file does not say `{instead_of}`");
        Ok(std::fs::write(&file, with)?)
    }

    pub fn plan(&self) -> Result<Ran> {
        self.cli(&["plan", "fleet.toml", "-o", "plan.json"])
    }

    fn sandbox(&self, verb: &str, args: &[&str]) -> Result<Ran> {
        run(Command::new(self.programs.join("sandbox")).arg(verb).arg("--dir").arg(&self.dir).args(args).stdin(Stdio::null()))
    }

    pub fn fault(&self, args: &[&str]) -> Result<()> {
        self.sandbox("fault", args)?.ok().map(drop)
    }

    pub fn advance(&self, by: &str) -> Result<()> {
        self.sandbox("clock", &["--advance", by])?.ok().map(drop)
    }

    /// Lets the world's time pass, a minute every quarter of a second, while something waits in it. It stands still while a
    /// command runs on a host: an order lives for minutes, and a busy machine would be too late for it.
    pub fn while_time_passes<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let _ = self.settle().and_then(|()| self.advance("1m"));
                    std::thread::sleep(Duration::from_millis(250));
                }
            });
            let done = work();
            over.store(true, Ordering::SeqCst);
            done
        })
    }

    /// A snapshot set of each host, or of one, as the customer's own tool takes it.
    pub fn snapshot(&self, args: &[&str]) -> Result<Value> {
        self.sandbox("snapshot", args)?.ok()?.json()
    }

    /// Waits until no command runs on any host and no event is on its way to a function.
    pub fn settle(&self) -> Result<()> {
        self.sandbox("settle", &[])?.ok().map(drop)
    }

    /// Every schedule of the functions once.
    pub fn tick(&self) -> Result<Value> {
        self.sandbox("tick", &[])?.ok()?.json()
    }

    /// Reads the rows that a host's own files hold, over its own network; also of a host that a drill made.
    pub fn verify_host(&self, host: &str, cut_off: &str) -> Result<Verification> {
        let cut: &[&str] = if cut_off.is_empty() { &[] } else { &["--cut-off", cut_off] };
        let value = self.sandbox("verify", &[&["--host", host], cut].concat())?.ok()?.json()?;
        Ok(Verification(value))
    }

    pub fn inspect(&self) -> Result<Inspection> {
        let value = self.sandbox("inspect", &[])?.ok()?.json()?;
        Ok(Inspection(value))
    }

    /// Reads every seeded row on fresh instances, with some keystores out of reach.
    pub fn verify(&self, cut_off: &str) -> Result<Verification> {
        let args: &[&str] = if cut_off.is_empty() { &[] } else { &["--cut-off", cut_off] };
        let value = self.sandbox("verify", args)?.ok()?.json()?;
        Ok(Verification(value))
    }

    /// Runs a command in a host.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<Ran> {
        run(Command::new(self.programs.join("sandbox"))
            .args(["exec", "--dir"])
            .arg(&self.dir)
            .arg(host)
            .arg("--")
            .args(command)
            .stdin(Stdio::null()))
    }
}

/// The words that make `strace` follow everything and write down whole argument lists and environments.
pub fn strace(trace: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["strace", "-f", "-v", "-s", "100000", "-e", "trace=execve", "-e", "signal=none", "--seccomp-bpf", "-o"]
            .map(OsString::from)
            .into();
    words.push(trace.into());
    words
}

/// Every regular file below `root`, links not followed. Nothing where there is no `root`.
pub fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| dir.display().to_string())?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

pub fn run(command: &mut Command) -> Result<Ran> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    Ok(Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What tells a wrong migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Unreadable,
    NotOnCloudHsm,
    NeedsOldKeystores,
    ReadsWithoutTarget,
    LoginWasted,
    StatementRepeated,
}

impl Verdict {
    pub fn says(self) -> &'static str {
        match self {
            Verdict::Unreadable => "rows do not read",
            Verdict::NotOnCloudHsm => "an active key is not in CloudHSM",
            Verdict::NeedsOldKeystores => "rows need the old keystores",
            Verdict::ReadsWithoutTarget => "rows read without CloudHSM",
            Verdict::LoginWasted => "failed logins",
            Verdict::StatementRepeated => "a key change ran twice",
        }
    }
}

/// `sandbox inspect`, typed where tests look.
pub struct Inspection(pub Value);

impl Inspection {
    pub fn sids(&self) -> Vec<String> {
        self.0["databases"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }
    pub fn starts(&self, sid: &str) -> u64 {
        self.0["databases"][sid]["starts"].as_u64().unwrap_or(u64::MAX)
    }
    pub fn containers(&self, sid: &str) -> Vec<(String, Value)> {
        self.0["databases"][sid]["containers"]
            .as_object()
            .map(|map| map.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
            .unwrap_or_default()
    }
    /// The stores of a database's active keys, one a container that has a key.
    pub fn active_stores(&self, sid: &str) -> Vec<String> {
        self.containers(sid).iter().filter_map(|(_, c)| c["active"]["store"].as_str().map(str::to_owned)).collect()
    }
    pub fn on_cloudhsm(&self, sid: &str) -> bool {
        let stores = self.active_stores(sid);
        !stores.is_empty() && stores.iter().all(|store| store == "cloudhsm")
    }
    pub fn statements(&self, sid: &str, class: &str) -> u64 {
        self.0["databases"][sid]["statements"][class].as_u64().unwrap_or(0)
    }
    pub fn keys(&self, sid: &str, container: &str, store: &str) -> u64 {
        self.0["databases"][sid]["containers"][container]["keys"][store].as_u64().unwrap_or(0)
    }
    pub fn logins(&self, token: &str) -> (u64, u64) {
        let row = &self.0["logins"][token];
        (row["ok"].as_u64().unwrap_or(0), row["failed"].as_u64().unwrap_or(0))
    }
    pub fn api_calls(&self) -> u64 {
        self.0["api_calls"].as_object().map_or(0, |map| map.values().filter_map(Value::as_u64).sum())
    }
    pub fn api_call(&self, name: &str) -> u64 {
        self.0["api_calls"][name].as_u64().unwrap_or(0)
    }
}

/// `sandbox verify`: rows per database.
pub struct Verification(pub Value);

impl Verification {
    fn database(&self, sid: &str) -> &Value {
        &self.0["databases"][sid]
    }
    pub fn rows(&self, sid: &str) -> u64 {
        self.database(sid)["rows_total"].as_u64().unwrap_or(0)
    }
    pub fn readable(&self, sid: &str) -> u64 {
        self.database(sid)["rows_readable"].as_u64().unwrap_or(u64::MAX)
    }
    pub fn all_readable(&self, sid: &str) -> bool {
        self.rows(sid) > 0 && self.readable(sid) == self.rows(sid)
    }
}
