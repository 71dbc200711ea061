//! Kills, spread by seed over a measured campaign.
//!
//! Where in a campaign a kill falls is told by the hosts' own journals: their number of lines is a clock that counts
//! intents and results and does not depend on how fast the machine is.

use crate::{World, files_below};
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Cli,
    /// `host-runner run`, the process that Systems Manager started.
    SsmSide,
    Worker,
    Sqlplus,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub args: Vec<String>,
}

/// Every process below `root` (a sandbox), however deep: a worker that called setsid has its host's init for an ancestor.
pub fn below(root: u32) -> Vec<Process> {
    let mut all: HashMap<u32, Process> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some(parent) = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|p| p.parse().ok()) else {
            continue;
        };
        let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let args = args.split(|b| *b == 0).filter(|a| !a.is_empty()).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        all.insert(pid, Process { pid, parent, args });
    }
    let is_below = |mut pid: u32| {
        for _ in 0..64 {
            match all.get(&pid) {
                Some(process) if process.parent == root => return true,
                Some(process) if process.parent > 1 => pid = process.parent,
                _ => return false,
            }
        }
        false
    };
    all.values().filter(|process| is_below(process.pid)).cloned().collect()
}

impl Victim {
    fn is(self, process: &Process) -> bool {
        let program = process.args.first().map_or("", |arg| arg.rsplit('/').next().unwrap_or(arg));
        let verb = process.args.get(1).map_or("", String::as_str);
        match self {
            Victim::Cli => false,
            Victim::SsmSide => program == "host-runner" && verb == "run",
            Victim::Worker => program == "host-runner" && verb == "worker",
            Victim::Sqlplus => program == "sqlplus",
        }
    }
}

/// Kills one victim below the world's sandbox; says whether there was one.
pub fn strike(world: &World, victim: Victim) -> bool {
    let mut found: Vec<u32> = below(world.pid()).iter().filter(|p| victim.is(p)).map(|p| p.pid).collect();
    found.sort_unstable();
    found.first().is_some_and(|pid| kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).is_ok())
}

/// Makes one victim stand still, and answers which.
pub fn hold(world: &World, victim: Victim) -> Option<u32> {
    let found = below(world.pid()).into_iter().filter(|p| victim.is(p)).map(|p| p.pid).min()?;
    kill(Pid::from_raw(found as i32), Signal::SIGSTOP).is_ok().then_some(found)
}

pub fn go_on(pid: u32) -> Result<()> {
    Ok(kill(Pid::from_raw(pid as i32), Signal::SIGCONT)?)
}

/// Where the hosts of a world are: lines of their journals, and the last step that each names.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub lines: usize,
    pub in_cutover: bool,
}

const CUTOVER: [&str; 6] = ["prepare-keystore", "reverse-migrate", "escrow", "swap-provider", "migrate", "enable-auto-open"];

pub fn progress(world: &World) -> Result<Progress> {
    let mut progress = Progress::default();
    for journal in journals(world)? {
        let Ok(text) = fs::read_to_string(&journal) else { continue };
        progress.lines += text.lines().count();
        if let Some(last) = text.lines().rev().find(|line| line.contains("\"step\":\"")) {
            progress.in_cutover |= CUTOVER.iter().any(|step| last.contains(&format!("\"step\":\"{step}\"")));
        }
    }
    Ok(progress)
}

/// The hosts' journals.
pub fn journals(world: &World) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for host in world.hosts()? {
        found.extend(files_below(&world.root(&host).join("var/lib/tde2hsm/journal"))?);
    }
    found.sort();
    Ok(found)
}
