//! Process 1 of a host: makes the file systems, then waits for its standard input to end.

use super::{HostError, io};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, chdir, fork, pivot_root, sethostname};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Directories of the machine that every host sees read-only.
const SHARED: [&str; 5] = ["usr", "bin", "sbin", "lib", "lib64"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A throw-away layer over a host's root, in which a fresh instance may write without a trace.
#[derive(Debug, Clone)]
pub struct Overlay {
    pub lower: PathBuf,
    pub scratch: PathBuf,
}

#[derive(Debug, Clone)]
pub struct InitArgs {
    pub root: PathBuf,
    pub hostname: String,
    /// Directories of the machine to show inside: source, absolute path in the host, writable or not.
    pub binds: Vec<(PathBuf, String)>,
    pub overlay: Option<Overlay>,
}

impl InitArgs {
    pub fn to_argv(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut argv = vec!["--root".to_owned(), text(&self.root), "--hostname".to_owned(), self.hostname.clone()];
        for (source, target) in &self.binds {
            argv.extend(["--bind".to_owned(), format!("{}={target}", source.display())]);
        }
        if let Some(overlay) = &self.overlay {
            argv.extend(["--lower".to_owned(), text(&overlay.lower), "--scratch".to_owned(), text(&overlay.scratch)]);
        }
        argv
    }
}

/// Becomes a host. Returns the exit status of the process that waits outside.
pub fn run(args: &InitArgs) -> i32 {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    if let Err(e) = unshare(flags) {
        println!("error a namespace could not be made: {e}");
        return 1;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Err(e) => {
            println!("error {e}");
            1
        }
        Ok(ForkResult::Child) => {
            if let Err(e) = build(args) {
                println!("error {e}");
                return 1;
            }
            println!("ready");
            let _ = std::io::stdout().flush();
            wait_for_the_end();
            0
        }
        Ok(ForkResult::Parent { child }) => {
            println!("pid {child}");
            let _ = std::io::stdout().flush();
            // SAFETY: descriptors 0 and 1 are not used by this process any more.
            unsafe {
                libc::close(0);
                libc::close(1);
            }
            let _ = nix::sys::wait::waitpid(child, None);
            0
        }
    }
}

/// The kernel reaps for a process 1 that ignores SIGCHLD, orphans included.
fn wait_for_the_end() {
    // SAFETY: no handler of ours runs; the disposition is changed to ignore.
    unsafe {
        let _ = signal(Signal::SIGCHLD, SigHandler::SigIgn);
        libc::close(1);
    }
    let mut byte = [0u8; 1];
    loop {
        match std::io::stdin().read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn nix_io(what: impl Into<String>) -> impl FnOnce(nix::Error) -> HostError {
    let what = what.into();
    move |e| HostError::Io { what, source: e.into() }
}

fn build(args: &InitArgs) -> Result<(), HostError> {
    const NONE: Option<&str> = None;
    let root = &args.root;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(nix_io("making mounts private"))?;
    match &args.overlay {
        None => bind(root, root, false)?,
        Some(overlay) => mount_overlay(root, overlay)?,
    }
    for name in SHARED {
        let source = Path::new("/").join(name);
        let target = root.join(name);
        match fs::read_link(&source) {
            Ok(to) => {
                if fs::symlink_metadata(&target).is_err() {
                    symlink(to, &target).map_err(io(format!("linking {}", target.display())))?;
                }
            }
            Err(_) if source.is_dir() => {
                fs::create_dir_all(&target).map_err(io(format!("making {}", target.display())))?;
                bind(&source, &target, true)?;
            }
            Err(_) => {}
        }
    }
    let tmpfs = |at: &str, mode: &str| -> Result<PathBuf, HostError> {
        let target = root.join(at);
        fs::create_dir_all(&target).map_err(io(format!("making {at}")))?;
        mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::MS_NOSUID, Some(mode))
            .map_err(nix_io(format!("mounting /{at}")))?;
        Ok(target)
    };
    let dev = tmpfs("dev", "mode=755,size=64k")?;
    for name in DEVICES {
        let node = dev.join(name);
        fs::write(&node, "").map_err(io(format!("making /dev/{name}")))?;
        let source = Path::new("/dev").join(name);
        if source.exists() {
            bind(&source, &node, false)?;
        }
    }
    for (name, to) in
        [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")]
    {
        symlink(to, dev.join(name)).map_err(io(format!("linking /dev/{name}")))?;
    }
    tmpfs("dev/shm", "mode=1777")?;
    tmpfs("run", "mode=755")?;
    let proc = root.join("proc");
    fs::create_dir_all(&proc).map_err(io("making /proc"))?;
    mount(Some("proc"), &proc, Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, NONE)
        .map_err(nix_io("mounting /proc"))?;
    for (source, target) in &args.binds {
        let target = root.join(target.trim_start_matches('/'));
        fs::create_dir_all(&target).map_err(io(format!("making {}", target.display())))?;
        bind(source, &target, false)?;
    }
    chdir(root).map_err(nix_io("entering the root"))?;
    pivot_root(".", ".").map_err(nix_io("changing the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(nix_io("leaving the old root"))?;
    chdir("/").map_err(nix_io("entering the root"))?;
    sethostname(&args.hostname).map_err(nix_io("naming the host"))
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), HostError> {
    const NONE: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, NONE, flags, NONE).map_err(nix_io(format!(
        "showing {} at {}",
        source.display(),
        target.display()
    )))?;
    if read_only {
        set_read_only(target)?;
    }
    Ok(())
}

/// `mount_setattr` over the whole tree: unlike a remount it only adds, so it also works where the other flags are locked.
fn set_read_only(target: &Path) -> Result<(), HostError> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    let path = std::ffi::CString::new(target.as_os_str().as_bytes()).map_err(|e| io("naming a mount")(e.into()))?;
    // SAFETY: the path and the structure outlive the call, and the size is that of the structure.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io(format!("making {} read-only", target.display()))(std::io::Error::last_os_error())) }
}

fn mount_overlay(root: &Path, overlay: &Overlay) -> Result<(), HostError> {
    let (upper, work) = (overlay.scratch.join("upper"), overlay.scratch.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(io("opening the upper layer"))?;
    let options = format!("lowerdir={},upperdir={},workdir={}", overlay.lower.display(), upper.display(), work.display());
    let try_mount = |options: &str| mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options));
    // A user namespace may not write trusted.* attributes.
    try_mount(&options).or_else(|_| try_mount(&format!("{options},userxattr"))).map_err(nix_io("mounting the overlay"))
}
