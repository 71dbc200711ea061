//! An ordinary user becomes root of a user namespace; everything else then works as for root.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork, getegid, geteuid, getpid};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const MARK: &str = "SANDBOX_USER_NAMESPACE";

/// What the sandbox can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Real users: root, or a user namespace with a range of ids.
    Users,
    /// One id: everything runs as one user.
    OneUser,
}

/// Whether this process is root of a user namespace that it made.
pub fn is_borrowed() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Returns as root of something, or says in one line why not. May replace the running program by itself in a namespace.
pub fn become_root() -> Result<Rights, String> {
    match std::env::var(MARK).as_deref() {
        Ok("users") => return Ok(Rights::Users),
        Ok("one") => return Ok(Rights::OneUser),
        _ => {}
    }
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return Ok(Rights::Users);
    }
    let mine = getpid();
    let pipe = nix::unistd::pipe().map_err(|e| e.to_string())?;
    let back = nix::unistd::pipe().map_err(|e| e.to_string())?;
    // The helper stays outside and maps the ids once this process is inside.
    // SAFETY: no thread has been started yet.
    let mapped = match unsafe { fork() }.map_err(|e| e.to_string())? {
        ForkResult::Child => {
            drop((pipe.1, back.0));
            let mut byte = [0u8; 1];
            let inside = std::fs::File::from(pipe.0).read(&mut byte).is_ok_and(|n| n == 1);
            let ok = inside
                && map_range("newuidmap", "/etc/subuid", mine.as_raw(), uid.as_raw())
                && map_range("newgidmap", "/etc/subgid", mine.as_raw(), gid.as_raw());
            let _ = std::fs::File::from(back.1).write_all(&[u8::from(ok)]);
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            drop((pipe.0, back.1));
            unshare(CloneFlags::CLONE_NEWUSER).map_err(|_| {
                "user namespaces are not available here; run as root, or allow them with: sysctl kernel.unprivileged_userns_clone=1 (and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)".to_owned()
            })?;
            let _ = std::fs::File::from(pipe.1).write_all(&[1]);
            let mut byte = [0u8; 1];
            let ok = std::fs::File::from(back.0).read(&mut byte).is_ok_and(|n| n == 1) && byte[0] == 1;
            let _ = nix::sys::wait::waitpid(child, None);
            ok
        }
    };
    if !mapped {
        std::fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")))
            .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")))
            .map_err(|e| format!("the user namespace could not be set up ({e}); run as root"))?;
        eprintln!(
            "sandbox: every user of a host is one and the same here, so privilege drop and file owners cannot be shown; install `uidmap` and give this user a range in /etc/subuid and /etc/subgid to see them"
        );
    }
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let error = Command::new(me).args(std::env::args_os().skip(1)).env(MARK, if mapped { "users" } else { "one" }).exec();
    Err(format!("the sandbox could not start itself again: {error}"))
}

/// Maps root to the user, and 1..65536 to the range the machine gave it.
fn map_range(program: &str, file: &str, pid: i32, own: u32) -> bool {
    let name = nix::unistd::User::from_uid(geteuid()).ok().flatten().map(|u| u.name).unwrap_or_default();
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let range = text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let who = parts.next()?;
        (who == name || who == geteuid().to_string()).then_some(())?;
        Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
    });
    let Some((first, count)) = range.filter(|(_, count)| *count >= 65_535) else { return false };
    let args =
        [pid.to_string(), "0".into(), own.to_string(), "1".into(), "1".into(), first.to_string(), count.min(65_535).to_string()];
    Command::new(program).args(args).stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}
