//! Processes of the host, read from `/proc`.
//!
//! A process may end between two reads of it; it then counts as not there, which is what it is.

use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
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

/// A process's name in the process table says which instance it is of: `ora_pmon_ORCL`, `ora_gen0_ORCL`, `oracleORCL`.
pub fn sid_of(title: &str) -> Option<Sid> {
    let first = title.split_whitespace().next()?;
    let sid = match first.strip_prefix("ora_").and_then(|rest| rest.split_once('_')) {
        Some((_, sid)) => sid,
        None => first.strip_prefix("oracle")?,
    };
    Sid::new(sid).ok()
}

impl Procs {
    pub fn new(paths: &Paths) -> Procs {
        Procs { proc: paths.proc() }
    }

    /// Every process id of the host, in ascending order.
    pub fn pids(&self) -> std::io::Result<Vec<u32>> {
        let mut pids: Vec<u32> =
            std::fs::read_dir(&self.proc)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    fn dir(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// Every `ora_pmon_SID` of the host.
    pub fn pmons(&self) -> std::io::Result<Vec<Pmon>> {
        Ok(self.pids()?.into_iter().filter_map(|pid| self.read_pmon(pid)).collect())
    }

    pub fn pmon(&self, sid: &Sid) -> std::io::Result<Option<Pmon>> {
        Ok(self.pmons()?.into_iter().find(|pmon| pmon.sid == *sid))
    }

    fn read_pmon(&self, pid: u32) -> Option<Pmon> {
        let dir = self.dir(pid);
        let title = self.command(pid)?;
        let sid = Sid::new(title.split_whitespace().next()?.strip_prefix("ora_pmon_")?).ok()?;
        if self.is_zombie(pid) {
            return None;
        }
        Some(Pmon {
            pid,
            sid,
            uid: std::fs::metadata(&dir).ok()?.uid(),
            environ: environ(&std::fs::read(dir.join("environ")).ok()?),
            limits: limits(&std::fs::read_to_string(dir.join("limits")).ok()?),
            cgroup: cgroup(&std::fs::read_to_string(dir.join("cgroup")).unwrap_or_default()),
            started_at: self.started_at(pid)?,
            exe: std::fs::read_link(dir.join("exe")).map(|exe| exe.to_string_lossy().into_owned()).unwrap_or_default(),
        })
    }

    fn is_zombie(&self, pid: u32) -> bool {
        let stat = std::fs::read_to_string(self.dir(pid).join("stat")).unwrap_or_default();
        stat_fields(&stat).first().is_none_or(|state| *state == "Z" || *state == "X")
    }

    /// The process is there and started at that time: a pid alone may have been given again (H28).
    pub fn is_there(&self, pid: u32, started: Timestamp) -> bool {
        // The kernel computes start times from a boot time that follows the clock: two seconds either way are the same.
        !self.is_zombie(pid) && self.started_at(pid).is_some_and(|at| at.since(started).abs() <= 2)
    }

    /// When a process started; `None` when it is gone.
    pub fn started_at(&self, pid: u32) -> Option<Timestamp> {
        let stat = std::fs::read_to_string(self.dir(pid).join("stat")).ok()?;
        // Field 22 of the line, the 20th after the name (proc(5)).
        let ticks: i64 = stat_fields(&stat).get(19)?.parse().ok()?;
        let boot: i64 = std::fs::read_to_string(self.proc.join("stat"))
            .ok()?
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|time| time.trim().parse().ok())?;
        Some(Timestamp(boot + ticks / ticks_per_second()))
    }

    /// Whole command line, arguments joined by spaces.
    pub fn command(&self, pid: u32) -> Option<String> {
        let bytes = std::fs::read(self.dir(pid).join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Files that a process maps, each once, as the kernel names them (` (deleted)` included).
    /// A process that is gone maps nothing; one that is there and cannot be read is an error (H17).
    pub fn mapped(&self, pid: u32) -> std::io::Result<Vec<String>> {
        let maps = match std::fs::read(self.dir(pid).join("maps")) {
            Ok(maps) => maps,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files: Vec<String> = mapped_files(&String::from_utf8_lossy(&maps)).map(str::to_owned).collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The root directory a process sees, where it can be read: a path in its maps is relative to it.
    pub fn root(&self, pid: u32) -> Option<PathBuf> {
        std::fs::read_link(self.dir(pid).join("root")).ok()
    }

    pub fn path(&self) -> &Path {
        &self.proc
    }
}

/// The fields of `/proc/PID/stat` after the name, which may itself hold blanks and brackets.
fn stat_fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default()
}

fn ticks_per_second() -> i64 {
    // SAFETY: sysconf reads a constant.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks } else { 100 }
}

fn environ(bytes: &[u8]) -> Vec<(String, String)> {
    bytes
        .split(|b| *b == 0)
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `Max locked memory         65536                65536                bytes`
fn limits(text: &str) -> Vec<Limit> {
    let value = |word: &str| if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            // Names hold single blanks; two end them.
            let (name, rest) = line.split_once("  ")?;
            let mut words = rest.split_whitespace();
            Some(Limit { name: name.trim().to_owned(), soft: value(words.next()?)?, hard: value(words.next()?)? })
        })
        .collect()
}

fn cgroup(text: &str) -> String {
    let path = |prefix: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix(prefix).map(str::to_owned)
        })
    };
    path("name=systemd:").or_else(|| path(":")).unwrap_or_default()
}

/// `7f1c2000-7f1c3000 r-xp 00000000 08:01 1234   /opt/oracle/extapi/64/hsm/lib.so (deleted)`
fn mapped_files(maps: &str) -> impl Iterator<Item = &str> {
    maps.lines().filter_map(|line| {
        let mut rest = line;
        for _ in 0..5 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        let path = rest.trim();
        path.starts_with('/').then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_is_read() {
        let maps = "7f1c2000-7f1c3000 r-xp 00000000 08:01 1234                       /opt/oracle/extapi/64/hsm/old hsm/lib.so (deleted)\n\
                    7f1c4000-7f1c5000 rw-p 00000000 00:00 0 \n\
                    7ffd0000-7ffd1000 r-xp 00000000 00:00 0                          [vdso]\n";
        assert_eq!(mapped_files(maps).collect::<Vec<_>>(), ["/opt/oracle/extapi/64/hsm/old hsm/lib.so (deleted)"]);
        let limits = limits(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max locked memory         65536                134217728            bytes     \n",
        );
        assert_eq!(limits[1], Limit { name: "Max locked memory".into(), soft: Some(65536), hard: Some(134_217_728) });
        assert_eq!((limits[0].soft, limits.len()), (None, 2));
        assert_eq!(cgroup("0::/system.slice/dbora.service\n"), "/system.slice/dbora.service");
        assert_eq!(cgroup("12:cpu:/x\n1:name=systemd:/user.slice/user-54321.slice\n"), "/user.slice/user-54321.slice");
        assert_eq!(stat_fields("12 (ora (x) y) S 1 2")[..2], ["S", "1"]);
        assert_eq!(environ(b"A=1\0B=x=y\0broken\0=z\0"), [("A".into(), "1".into()), ("B".into(), "x=y".into())]);
        assert_eq!(sid_of("ora_pmon_ORCL"), Sid::new("ORCL").ok());
        assert_eq!(sid_of("oracleFIN1 (DESCRIPTION=(LOCAL=YES))"), Sid::new("FIN1").ok());
        assert_eq!(sid_of("sshd: oracle"), None);
    }

    #[test]
    fn h28_a_process_is_known_by_pid_and_start() {
        let procs = Procs::new(&Paths::host());
        let me = std::process::id();
        let started = procs.started_at(me).unwrap();
        assert!(procs.is_there(me, started));
        assert!(!procs.is_there(me, started.plus(-60)));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (pid, at) = (child.id(), procs.started_at(child.id()));
        // Not waited for yet: a zombie counts as gone as soon as it is one.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while procs.is_there(pid, at.unwrap()) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!procs.is_there(pid, at.unwrap()));
        child.wait().unwrap();
        assert_eq!(procs.started_at(pid), None);
    }
}
