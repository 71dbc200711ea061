//! Work as the database owner.
//!
//! Root runs no program of a home and opens no file of one (H33): whoever owns `bin/oracle` could make either do
//! anything. Both are done by a child that has become that user for good (groups, gid, uid, `no_new_privs`) before it
//! executes anything, with an environment of its own and in a session of its own. It holds nothing of root's: no
//! descriptor (all are close-on-exec), no capability, no secret but what is written to its standard input.

use crate::files::{self, FileError, FileInfo, Kept};
use crate::paths::Paths;
use crate::procs::{Limit, Pmon};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tde2hsm_protocol::{Code, Digest};

#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error("the owner of `{path}` cannot be found")]
    Unknown {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` belongs to root; nothing of it is run")]
    Root { path: PathBuf },
    #[error("`{program}` cannot be started as `{user}`")]
    Spawn {
        program: PathBuf,
        user: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` cannot be talked to")]
    Talk {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {seconds} s and was ended")]
    TimedOut { program: PathBuf, seconds: u64 },
}

impl OwnerError {
    pub fn code(&self) -> Code {
        match self {
            OwnerError::Root { .. } => Code::OWNER_IS_ROOT,
            _ => Code::OWNER_WORK,
        }
    }
}

/// The user that `bin/oracle` of a home belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub user: String,
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one and that of `bin/oracle` included.
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`.
    pub directory: PathBuf,
    /// This host knows one user only (a user namespace that maps a single id): nothing can be dropped, nothing is gained
    /// by it either, and `doctor` says so.
    pub only_user: bool,
    runner: PathBuf,
    runner_name: PathBuf,
}

/// What the child may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// `no_new_privs`: for everything but a STARTUP.
    Locked,
    /// As a login of the owner would have it. Only for STARTUP: background processes inherit `no_new_privs`, and
    /// Oracle's own setuid helpers (`oradism`, `extjob`) would fail for the database's whole life (H24).
    Login,
}

/// A program to run as the owner. Its environment holds `env` alone, plus `PATH`, `HOME`, `USER`, `LOGNAME` where absent.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub dir: Option<PathBuf>,
    /// Wall-clock limit for [`Owner::run`]; then the process group is ended.
    pub limit: Duration,
    pub privileges: Privileges,
    /// Limits and cgroup of a former pmon, under which the program shall run (H24).
    pub like: Option<Pmon>,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>, limit: Duration) -> Program {
        Program {
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            limit,
            privileges: Privileges::Locked,
            like: None,
        }
    }
    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.args.push(arg.into());
        self
    }
    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
    /// Without `no_new_privs`, as a login would have it: for STARTUP, see [`Privileges::Login`].
    pub fn login(mut self) -> Program {
        self.privileges = Privileges::Login;
        self
    }
    /// Under the limits and in the cgroup of a former pmon (H24).
    pub fn like(mut self, pmon: &Pmon) -> Program {
        self.like = Some(pmon.clone());
        self
    }
    /// The whole environment of a pmon (H24, H33), without what would change what is loaded.
    pub fn env_of(mut self, pmon: &Pmon) -> Program {
        for (name, value) in &pmon.environ {
            if !["LD_PRELOAD", "LD_AUDIT", "TWO_TASK", "ORACLE_PATH", "SQLPATH"].contains(&name.as_str()) {
                self = self.env(name, value);
            }
        }
        self
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

impl From<std::process::ExitStatus> for Ended {
    fn from(status: std::process::ExitStatus) -> Ended {
        status.code().map_or_else(|| Ended::Signal(status.signal().unwrap_or_default()), Ended::Exit)
    }
}

pub struct Output {
    /// Not redacted: whoever keeps it passes it through [`crate::Secrets::redact`] first.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub ended: Ended,
}

/// A running program, spoken to line by line: sqlplus. Dropping it ends the program, not what the program started.
pub struct Child {
    program: PathBuf,
    child: std::process::Child,
    input: Option<ChildStdin>,
    output: Receiver<std::io::Result<Vec<u8>>>,
    ended: Option<Ended>,
}

/// What was read until a deadline.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Some(Vec<u8>),
    /// Nothing came before the deadline; the program still runs.
    Nothing,
    /// The program closed its output.
    End,
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input; the caller's buffer is his to zeroise.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), OwnerError> {
        let input = self.input.as_mut().ok_or(std::io::ErrorKind::BrokenPipe.into());
        let done = input.and_then(|input| input.write_all(bytes).and_then(|()| input.flush()));
        done.map_err(|source| OwnerError::Talk { program: self.program.clone(), source })
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// What comes next on standard output and standard error together.
    pub fn read(&mut self, within: Duration) -> Result<Read, OwnerError> {
        match self.output.recv_timeout(within) {
            Ok(Ok(bytes)) => Ok(Read::Some(bytes)),
            Ok(Err(source)) => Err(OwnerError::Talk { program: self.program.clone(), source }),
            Err(RecvTimeoutError::Timeout) => Ok(Read::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(Read::End),
        }
    }

    /// `None`: still running after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<Option<Ended>, OwnerError> {
        if self.ended.is_none() {
            let ended = wait(&mut self.child, within);
            self.ended = ended.map_err(|source| OwnerError::Talk { program: self.program.clone(), source })?;
        }
        Ok(self.ended)
    }

    /// Ends the program and only it. Its process group is left alone on purpose: a server process that sqlplus forked
    /// finishes its statement or notices that its client is gone, and the caller waits for that session (H28). To kill
    /// it in the middle of a key change is what must not happen.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok().map(Ended::from);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.close_input();
        self.kill();
    }
}

/// Polls for the end of a child, up to a deadline.
fn wait(child: &mut std::process::Child, within: Duration) -> std::io::Result<Option<Ended>> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.into()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A thread that reads to the end, so that neither side ever waits for the other.
fn reader(mut from: impl std::io::Read + Send + 'static) -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1024);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let answer = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(buffer[..n].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let end = answer.is_err();
            if sender.send(answer).is_err() || end {
                return;
            }
        }
    });
    receiver
}

impl Owner {
    /// The owner of `ORACLE_HOME/bin/oracle`.
    pub fn of_home(paths: &Paths, oracle_home: &str) -> Result<Owner, OwnerError> {
        Owner::of_file(paths, &paths.at(oracle_home).join("bin/oracle"))
    }

    /// The owner of a file that stands for a home. Only the file's owner is read, no link is followed.
    pub fn of_file(paths: &Paths, path: &Path) -> Result<Owner, OwnerError> {
        let unknown = |source| OwnerError::Unknown { path: path.to_owned(), source };
        let binary = std::fs::symlink_metadata(path).map_err(unknown)?;
        if !binary.is_file() {
            return Err(unknown(std::io::Error::other("not a plain file")));
        }
        let only_user = only_user(&std::fs::read_to_string("/proc/self/uid_map").map_err(unknown)?);
        if binary.uid() == 0 && !only_user {
            return Err(OwnerError::Root { path: path.to_owned() });
        }
        let user = nix::unistd::User::from_uid(binary.uid().into()).map_err(|error| unknown(error.into()))?;
        let user = user.ok_or_else(|| unknown(std::io::Error::other(format!("uid {} has no name", binary.uid()))))?;
        let gid = user.gid.as_raw();
        let mut groups = vec![gid];
        if !only_user {
            let name = CString::new(user.name.as_str()).map_err(|error| unknown(error.into()))?;
            let of_user = nix::unistd::getgrouplist(&name, user.gid).map_err(|error| unknown(error.into()))?;
            groups.extend(of_user.into_iter().map(nix::unistd::Gid::as_raw));
            groups.push(binary.gid());
            groups.sort_unstable();
            groups.dedup();
            // Root's own group would be a way back.
            groups.retain(|group| *group != 0);
        }
        Ok(Owner {
            user: user.name,
            uid: binary.uid(),
            gid,
            groups,
            directory: user.dir,
            only_user,
            runner: paths.runner(),
            runner_name: paths.runner_name(),
        })
    }

    pub fn spawn(&self, program: &Program) -> Result<Child, OwnerError> {
        let spawn = |source: std::io::Error| self.spawn_error(program, source);
        let (output, out) = std::io::pipe().map_err(spawn)?;
        let err = out.try_clone().map_err(spawn)?;
        let mut command = self.command(program);
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        let mut child = command.spawn().map_err(spawn)?;
        drop(command); // it holds our ends of the pipe
        let input = child.stdin.take();
        Ok(Child { program: program.path.clone(), child, input, output: reader(output), ended: None })
    }

    /// Runs with its output in a file, so that what it says outlives us; `stdin` is written at once. `None`: it did not
    /// end within its limit, and its process group was ended.
    pub fn run_into(&self, program: &Program, stdin: &[u8], output: &File) -> Result<Option<Ended>, OwnerError> {
        let spawn = |source: std::io::Error| self.spawn_error(program, source);
        let mut command = self.command(program);
        command.stdin(Stdio::piped()).stdout(output.try_clone().map_err(spawn)?).stderr(Stdio::null());
        let mut child = command.spawn().map_err(spawn)?;
        drop(command);
        if let Some(mut input) = child.stdin.take() {
            // A program that ended before it read its input is judged by what it said.
            let _ = input.write_all(stdin);
        }
        let talk = |source| OwnerError::Talk { program: program.path.clone(), source };
        let ended = wait(&mut child, program.limit).map_err(talk)?;
        if ended.is_none() {
            end_group(&mut child);
        }
        Ok(ended)
    }

    /// Runs to its end or limit. Standard error is kept apart; a program that runs into its limit is ended with its
    /// whole process group.
    pub fn run(&self, program: &Program, stdin: &[u8]) -> Result<Output, OwnerError> {
        let talk = |source| OwnerError::Talk { program: program.path.clone(), source };
        let mut command = self.command(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.spawn_error(program, source))?;
        let deadline = Instant::now() + program.limit;
        let out = reader(child.stdout.take().expect("piped above"));
        let err = reader(child.stderr.take().expect("piped above"));
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(stdin) {
                // A program that does not read its input is judged by its end.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(talk(error)),
                _ => {}
            }
        }
        let ended = match wait(&mut child, program.limit).map_err(talk)? {
            Some(ended) => ended,
            None => {
                end_group(&mut child);
                return Err(OwnerError::TimedOut { program: program.path.clone(), seconds: program.limit.as_secs() });
            }
        };
        Ok(Output { stdout: collect(&out, deadline), stderr: collect(&err, deadline), ended })
    }

    /// A process of the owner that answers for files.
    pub fn files(&self) -> Result<OwnerFiles, OwnerError> {
        let program = Program::new(&self.runner, FILES_LIMIT).arg("as-owner");
        let mut command = self.command(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| self.spawn_error(&program, source))?;
        let input = child.stdin.take().expect("piped above");
        let output = child.stdout.take().expect("piped above");
        Ok(OwnerFiles { child, input, output })
    }

    fn spawn_error(&self, program: &Program, source: std::io::Error) -> OwnerError {
        OwnerError::Spawn { program: program.path.clone(), user: self.user.clone(), source }
    }

    /// The command, up to its pipes.
    fn command(&self, program: &Program) -> Command {
        let mut command = Command::new(&program.path);
        command.args(&program.args).env_clear();
        if program.path == Path::new(crate::paths::SELF) {
            command.arg0(&self.runner_name);
        }
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", &self.directory.to_string_lossy()),
            ("USER", &self.user),
            ("LOGNAME", &self.user),
        ] {
            command.env(name, value);
        }
        command.envs(program.env.iter().map(|(name, value)| (name, value)));
        // The owner's home may be away (NFS); the root directory never is.
        command.current_dir(program.dir.as_deref().unwrap_or(Path::new("/")));

        let become_owner = Become {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            drop: nix::unistd::geteuid().is_root() && !self.only_user,
            lock: program.privileges == Privileges::Locked,
            limits: program.like.as_ref().map(|pmon| limits(&pmon.limits)).unwrap_or_default(),
            cgroup: program.like.as_ref().and_then(|pmon| cgroup(&pmon.cgroup)),
        };
        // SAFETY: between fork and exec `Become::enter` makes system calls on memory prepared here; it neither allocates
        // nor takes a lock.
        unsafe {
            command.pre_exec(move || become_owner.enter());
        }
        command
    }

    /// Root itself, for the few tools that install and configure a package and for nothing of a home (H33).
    pub(crate) fn root(paths: &Paths) -> Owner {
        Owner {
            user: "root".to_owned(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            directory: PathBuf::from("/root"),
            // Nothing is dropped.
            only_user: true,
            runner: paths.runner(),
            runner_name: paths.runner_name(),
        }
    }

    /// The program that answers as this owner.
    pub(crate) fn runner(&self) -> &Path {
        &self.runner
    }
}

/// A user namespace that maps one id only. The initial namespace maps them all.
fn only_user(uid_map: &str) -> bool {
    let counts: Vec<u64> =
        uid_map.lines().filter_map(|line| line.split_whitespace().nth(2)).filter_map(|n| n.parse().ok()).collect();
    counts == [1]
}

fn collect(from: &Receiver<std::io::Result<Vec<u8>>>, deadline: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    // A grandchild may hold the pipe open; what it says after the deadline is not waited for.
    let grace = deadline.max(Instant::now() + Duration::from_secs(2));
    while let Ok(Ok(bytes)) = from.recv_timeout(grace.saturating_duration_since(Instant::now())) {
        all.extend(bytes);
    }
    all
}

fn end_group(child: &mut std::process::Child) {
    let group = nix::unistd::Pid::from_raw(-child.id().cast_signed());
    let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
    let _ = child.kill();
    let _ = child.wait();
}

/// The names of `/proc/PID/limits` that a STARTUP inherits (H24).
fn limits(of_pmon: &[Limit]) -> Vec<(libc::__rlimit_resource_t, libc::rlimit)> {
    const NAMES: [(&str, libc::__rlimit_resource_t); 9] = [
        ("Max stack size", libc::RLIMIT_STACK),
        ("Max data size", libc::RLIMIT_DATA),
        ("Max file size", libc::RLIMIT_FSIZE),
        ("Max core file size", libc::RLIMIT_CORE),
        ("Max processes", libc::RLIMIT_NPROC),
        ("Max open files", libc::RLIMIT_NOFILE),
        ("Max locked memory", libc::RLIMIT_MEMLOCK),
        ("Max address space", libc::RLIMIT_AS),
        ("Max msgqueue size", libc::RLIMIT_MSGQUEUE),
    ];
    let value = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    NAMES
        .iter()
        .filter_map(|(name, resource)| {
            let limit = of_pmon.iter().find(|limit| limit.name == *name)?;
            Some((*resource, libc::rlimit { rlim_cur: value(limit.soft), rlim_max: value(limit.hard) }))
        })
        .collect()
}

/// Where to write a pid so that it enters a cgroup; `None` where that cgroup is gone or not ours to enter.
fn cgroup(path: &str) -> Option<File> {
    let relative = path.trim_start_matches('/');
    if relative.split('/').any(|part| part == "..") {
        return None;
    }
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];
    hierarchies
        .iter()
        .find_map(|hierarchy| File::options().write(true).open(Path::new(hierarchy).join(relative).join("cgroup.procs")).ok())
}

/// What happens between fork and exec.
struct Become {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    drop: bool,
    lock: bool,
    limits: Vec<(libc::__rlimit_resource_t, libc::rlimit)>,
    cgroup: Option<File>,
}

impl Become {
    fn enter(&self) -> std::io::Result<()> {
        fn check(result: libc::c_int) -> std::io::Result<()> {
            if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        }
        // SAFETY: system calls on plain values and on memory that outlives the call, in a process with one thread.
        unsafe {
            // A session and a group of its own: whoever ends ours does not end this (invariant 8).
            if libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            libc::umask(0o022);
            if let Some(cgroup) = &self.cgroup {
                // A start in another cgroup than before is compared and reported, not refused.
                let _ = libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
            }
            if self.lock {
                // Its memory holds secrets (H39).
                check(libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }))?;
            } else {
                // As the former pmon had them; without one, as ours are.
                for (resource, limit) in &self.limits {
                    let _ = libc::setrlimit(*resource, limit);
                }
            }
            if self.drop {
                check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
                check(libc::setresgid(self.gid, self.gid, self.gid))?;
                check(libc::setresuid(self.uid, self.uid, self.uid))?;
                if libc::setresuid(0, 0, 0) == 0 {
                    return Err(std::io::Error::from_raw_os_error(libc::EPERM));
                }
            }
            if self.lock {
                check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
        }
        Ok(())
    }
}

/// Longest wait for one answer about a file.
const FILES_LIMIT: Duration = Duration::from_secs(120);

/// Asked of the child, each answered once. `write` requests are followed by the bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Ask {
    Stat(PathBuf),
    Read(PathBuf),
    List(PathBuf),
    Replace { path: PathBuf, was: Option<Digest> },
    CopyInto { path: PathBuf, dir: PathBuf },
    MoveInto { path: PathBuf, dir: PathBuf },
    MoveBack(Kept),
    MakeDir { path: PathBuf, mode: u32 },
    SetMode { path: PathBuf, mode: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Nothing,
    Stat(FileInfo),
    /// The bytes follow.
    Bytes,
    List(Vec<FileInfo>),
    Digest(Digest),
    Kept(Kept),
    Failed(Failed),
}

/// A [`FileError`], so that the asking side can tell one cause from another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Failed {
    Io { path: PathBuf, what: String, errno: Option<i32>, why: String },
    Changed(PathBuf),
    NotPlain(PathBuf),
    Exists(PathBuf),
    TooLarge(PathBuf, u64),
    Other(String),
}

impl From<FileError> for Failed {
    fn from(error: FileError) -> Failed {
        match error {
            FileError::Io { path, what, source } => {
                Failed::Io { path, what: what.to_owned(), errno: source.raw_os_error(), why: source.to_string() }
            }
            FileError::Changed { path } => Failed::Changed(path),
            FileError::NotPlain { path } => Failed::NotPlain(path),
            FileError::Exists { path } => Failed::Exists(path),
            FileError::TooLarge { path, limit } => Failed::TooLarge(path, limit),
            FileError::Remote { message, .. } => Failed::Other(message),
        }
    }
}

impl From<Failed> for FileError {
    fn from(failed: Failed) -> FileError {
        match failed {
            Failed::Io { path, what, errno, why } => {
                let source = errno.map_or_else(|| std::io::Error::other(why), std::io::Error::from_raw_os_error);
                const KNOWN: [&str; 8] = ["opened", "read", "written", "renamed", "created", "listed", "synced", "labelled"];
                let what = KNOWN.into_iter().find(|known| *known == what).unwrap_or("worked on");
                FileError::Io { path, what, source }
            }
            Failed::Changed(path) => FileError::Changed { path },
            Failed::NotPlain(path) => FileError::NotPlain { path },
            Failed::Exists(path) => FileError::Exists { path },
            Failed::TooLarge(path, limit) => FileError::TooLarge { path, limit },
            Failed::Other(message) => FileError::Remote { code: Code::OWNER_WORK, message },
        }
    }
}

/// A frame: lengths of head and bytes, the head as JSON, the bytes.
fn send(to: &mut impl std::io::Write, head: &impl Serialize, bytes: &[u8]) -> std::io::Result<()> {
    let head = serde_json::to_vec(head)?;
    to.write_all(&u64::try_from(head.len()).unwrap_or(u64::MAX).to_le_bytes())?;
    to.write_all(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

/// `None` at the end of the stream. A frame that is too large is refused before it is read.
fn receive<T: for<'de> Deserialize<'de>>(from: &mut impl std::io::Read) -> std::io::Result<Option<(T, Vec<u8>)>> {
    let mut lengths = [0; 16];
    match from.read_exact(&mut lengths) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (head, bytes) = lengths.split_at(8);
    let length = |raw: &[u8]| u64::from_le_bytes(raw.try_into().expect("8 of 16 bytes"));
    let (head, bytes) = (length(head), length(bytes));
    if head > 16 * 1024 * 1024 || bytes > files::READ_LIMIT {
        return Err(std::io::Error::other("a frame is too large"));
    }
    let mut text = vec![0; usize::try_from(head).map_err(std::io::Error::other)?];
    from.read_exact(&mut text)?;
    let mut body = vec![0; usize::try_from(bytes).map_err(std::io::Error::other)?];
    from.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&text)?, body)))
}

/// The child's side: answers until its input ends. It is the owner already and can do what the owner can.
pub fn serve(mut input: impl std::io::Read, mut output: impl std::io::Write) -> std::io::Result<()> {
    while let Some((ask, bytes)) = receive::<Ask>(&mut input)? {
        let mut body = Vec::new();
        let answer = match answer(ask, &bytes, &mut body) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error.into()),
        };
        send(&mut output, &answer, &body)?;
    }
    Ok(())
}

fn answer(ask: Ask, bytes: &[u8], body: &mut Vec<u8>) -> Result<Answer, FileError> {
    Ok(match ask {
        Ask::Stat(path) => files::stat(&path)?.map_or(Answer::Nothing, Answer::Stat),
        Ask::Read(path) => match files::read(&path)? {
            Some(read) => {
                *body = read;
                Answer::Bytes
            }
            None => Answer::Nothing,
        },
        Ask::List(dir) => files::list(&dir)?.map_or(Answer::Nothing, Answer::List),
        Ask::Replace { path, was } => Answer::Digest(files::replace(&path, bytes, was)?),
        Ask::CopyInto { path, dir } => Answer::Kept(files::copy_into(&path, &dir)?),
        Ask::MoveInto { path, dir } => Answer::Kept(files::move_into(&path, &dir)?),
        Ask::MoveBack(kept) => {
            files::move_back(&kept)?;
            Answer::Nothing
        }
        Ask::MakeDir { path, mode } => {
            files::make_dir(&path, mode)?;
            Answer::Nothing
        }
        Ask::SetMode { path, mode } => {
            files::set_mode(&path, mode)?;
            Answer::Nothing
        }
    })
}

/// Files, seen and changed by a process that is the owner.
pub struct OwnerFiles {
    child: std::process::Child,
    input: ChildStdin,
    output: std::process::ChildStdout,
}

impl OwnerFiles {
    fn ask(&mut self, ask: &Ask, bytes: &[u8]) -> Result<(Answer, Vec<u8>), FileError> {
        let lost = |why: String| FileError::Remote { code: Code::OWNER_WORK, message: why };
        // A program of ours reads and writes in turn, so neither side can wait for the other for ever; a mount that
        // hangs is the operation's own time limit to notice.
        send(&mut self.input, ask, bytes).map_err(|error| lost(format!("it cannot be asked: {error}")))?;
        match receive(&mut self.output) {
            Ok(Some((Answer::Failed(failed), _))) => Err(failed.into()),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(lost("it ended".to_owned())),
            Err(error) => Err(lost(format!("it cannot be heard: {error}"))),
        }
    }

    fn unexpected<T>(&self) -> Result<T, FileError> {
        Err(FileError::Remote { code: Code::OWNER_WORK, message: "an answer to another question".to_owned() })
    }

    /// `None` when there is no such file.
    pub fn stat(&mut self, path: &Path) -> Result<Option<FileInfo>, FileError> {
        match self.ask(&Ask::Stat(path.to_owned()), &[])?.0 {
            Answer::Nothing => Ok(None),
            Answer::Stat(info) => Ok(Some(info)),
            _ => self.unexpected(),
        }
    }

    /// `None` when there is no such file.
    pub fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        match self.ask(&Ask::Read(path.to_owned()), &[])? {
            (Answer::Nothing, _) => Ok(None),
            (Answer::Bytes, bytes) => Ok(Some(bytes)),
            _ => self.unexpected(),
        }
    }

    /// `None` when there is no such directory. Plain files come with their hash; links are not followed.
    pub fn list(&mut self, dir: &Path) -> Result<Option<Vec<FileInfo>>, FileError> {
        match self.ask(&Ask::List(dir.to_owned()), &[])?.0 {
            Answer::Nothing => Ok(None),
            Answer::List(infos) => Ok(Some(infos)),
            _ => self.unexpected(),
        }
    }

    /// Replaces a file whose content hashes to `was` (else [`FileError::Changed`]); `None`: creates it, 0640.
    pub fn replace(&mut self, path: &Path, bytes: &[u8], was: Option<Digest>) -> Result<Digest, FileError> {
        match self.ask(&Ask::Replace { path: path.to_owned(), was }, bytes)?.0 {
            Answer::Digest(digest) => Ok(digest),
            _ => self.unexpected(),
        }
    }

    /// Copies a plain file into a directory that is made when missing (0700); never over another file.
    /// The same name with the same content there already is fine; with another content a number is added.
    pub fn copy_into(&mut self, path: &Path, dir: &Path) -> Result<Kept, FileError> {
        match self.ask(&Ask::CopyInto { path: path.to_owned(), dir: dir.to_owned() }, &[])?.0 {
            Answer::Kept(kept) => Ok(kept),
            _ => self.unexpected(),
        }
    }

    /// Moves a file aside into a directory on the same filesystem, by rename.
    pub fn move_into(&mut self, path: &Path, dir: &Path) -> Result<Kept, FileError> {
        match self.ask(&Ask::MoveInto { path: path.to_owned(), dir: dir.to_owned() }, &[])?.0 {
            Answer::Kept(kept) => Ok(kept),
            _ => self.unexpected(),
        }
    }

    /// Moves a file back to a name that must not exist.
    pub fn move_back(&mut self, kept: &Kept) -> Result<(), FileError> {
        self.ask(&Ask::MoveBack(kept.clone()), &[]).map(drop)
    }

    /// Makes a directory, its parents too, with this mode. Existing is fine.
    pub fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FileError> {
        self.ask(&Ask::MakeDir { path: path.to_owned(), mode }, &[]).map(drop)
    }

    pub fn set_mode(&mut self, path: &Path, mode: u32) -> Result<(), FileError> {
        self.ask(&Ask::SetMode { path: path.to_owned(), mode }, &[]).map(drop)
    }

    /// Copies a file of the owner's into a directory of root's own, for example below [`Paths::copies`].
    pub fn keep(&mut self, path: &Path, into: &Path) -> Result<Option<Kept>, FileError> {
        match self.read(path)? {
            Some(bytes) => files::keep_bytes(path, &zeroize::Zeroizing::new(bytes), into).map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for OwnerFiles {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_of_one_id_is_one() {
        assert!(only_user("         0       1000          1\n"));
        assert!(!only_user("         0          0 4294967295\n"));
        assert!(!only_user("         0       1000          1\n         1     100000      65536\n"));
        assert!(!only_user(""));
    }

    #[test]
    fn errors_cross_the_pipe_as_what_they_are() {
        let path = PathBuf::from("/x");
        let gone = FileError::Io { path: path.clone(), what: "opened", source: std::io::ErrorKind::NotFound.into() };
        for (error, code) in [
            (FileError::Changed { path: path.clone() }, Code::FILE_CHANGED),
            (FileError::Exists { path: path.clone() }, Code::FILE_WORK),
            (gone, Code::FILE_WORK),
        ] {
            let text = error.to_string();
            let json = serde_json::to_vec(&Failed::from(error)).unwrap();
            let back = FileError::from(serde_json::from_slice::<Failed>(&json).unwrap());
            assert_eq!((back.to_string(), back.code()), (text, code));
        }
    }

    #[test]
    fn a_served_file_is_replaced_and_hostile_frames_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sqlnet.ora");
        std::fs::write(&path, "old").unwrap();
        let mut asks = Vec::new();
        send(&mut asks, &Ask::Read(path.clone()), &[]).unwrap();
        send(&mut asks, &Ask::Replace { path: path.clone(), was: Some(Digest::of(b"old")) }, b"new").unwrap();
        send(&mut asks, &Ask::Replace { path: path.clone(), was: Some(Digest::of(b"old")) }, b"newer").unwrap();
        let mut answers = Vec::new();
        serve(asks.as_slice(), &mut answers).unwrap();
        let mut answers = answers.as_slice();
        assert_eq!(receive::<Answer>(&mut answers).unwrap().unwrap().1, b"old");
        assert!(matches!(receive::<Answer>(&mut answers).unwrap().unwrap().0, Answer::Digest(_)));
        assert!(matches!(receive::<Answer>(&mut answers).unwrap().unwrap().0, Answer::Failed(Failed::Changed(_))));
        assert!(receive::<Answer>(&mut answers).unwrap().is_none());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");

        let huge = [u64::MAX.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        assert!(serve(huge.as_slice(), Vec::new()).is_err());
    }
}
