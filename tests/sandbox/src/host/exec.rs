//! Puts a command into a host: joins its namespaces, forks, runs it in a process group of its own, and waits.
//!
//! SIGTERM means that whoever asked wants the command gone: its group gets SIGKILL, as the agent does at a time-out or
//! cancellation, and the exit status is 137. Children that left the group survive, as they do on a real host (A§1.8).

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, execvp, fork, setpgid};
use std::ffi::CString;
use std::fs::File;

#[derive(Debug, Clone)]
pub struct ExecArgs {
    /// Process 1 of the host, as seen from outside.
    pub pid: i32,
    pub dir: Option<String>,
    pub argv: Vec<String>,
}

/// What a command that was killed on request exits with.
const KILLED: i32 = 137;

pub fn run(args: &ExecArgs) -> i32 {
    match enter_and_run(args) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("sandbox: {e}");
            125
        }
    }
}

fn enter_and_run(args: &ExecArgs) -> Result<i32, String> {
    let kinds = [
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("net", CloneFlags::CLONE_NEWNET),
    ];
    // Most hosts have the machine's network, which nobody may enter who is in it.
    let here = std::fs::read_link("/proc/self/ns/net").ok();
    let shares = std::fs::read_link(format!("/proc/{}/ns/net", args.pid)).ok() == here;
    let files: Vec<(File, CloneFlags)> = kinds
        .iter()
        .filter(|(name, _)| *name != "net" || !shares)
        .map(|(name, flag)| File::open(format!("/proc/{}/ns/{name}", args.pid)).map(|file| (file, *flag)))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the host is down ({e})"))?;
    for (file, flag) in &files {
        setns(file, *flag).map_err(|e| format!("the host could not be entered: {e}"))?;
    }
    drop(files);
    chdir(args.dir.as_deref().unwrap_or("/")).map_err(|e| format!("{}: {e}", args.dir.as_deref().unwrap_or("/")))?;
    let argv: Vec<CString> =
        args.argv.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let program = argv.first().ok_or("no command")?;

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block().map_err(|e| e.to_string())?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(|e| e.to_string())? {
        ForkResult::Child => {
            let _ = signals.thread_unblock();
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            let e = execvp(program, &argv).expect_err("execvp returns only when it failed");
            eprintln!("sandbox: {}: {e}", args.argv[0]);
            // SAFETY: ends this process at once, without running what belongs to the parent.
            unsafe { libc::_exit(if e == nix::Error::ENOENT { 127 } else { 126 }) }
        }
        ForkResult::Parent { child } => {
            // Both sides do it, so that neither has to wait for the other.
            let _ = setpgid(child, child);
            Ok(wait(child, &signals))
        }
    }
}

fn wait(child: Pid, signals: &SigSet) -> i32 {
    let mut killed = false;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, _, _)) if killed => return KILLED,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) => {}
            Err(_) => return KILLED,
        }
        if let Ok(Signal::SIGTERM) = signals.wait() {
            killed = true;
            let _ = killpg(child, Signal::SIGKILL);
        }
    }
}
