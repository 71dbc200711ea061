//! Process 1 of a host: makes the file systems, then waits for its standard input to end.

use super::{HostError, io};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{ForkResult, chdir, fork, pivot_root, sethostname};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Directories of the machine that every host sees read-only.
const SHARED: [&str; 5] = ["usr", "bin", "sbin", "lib", "lib64"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A file system of the host, on a volume of its own.
///
/// It is an overlay whose upper layer holds what the volume holds: a mount of its own, with a device number of its own,
/// which the mount table says to come from the volume's NVMe device, as on an instance. A volume made from a snapshot has the
/// snapshot's content as its lower layer, and a throw-away copy of a host has the host's own layers there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// As the mount table names it, such as `/dev/nvme0n1p1`.
    pub source: String,
    /// Absolute path in the host.
    pub target: String,
    /// Uppermost first; may be empty.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    /// Emptied at each start, on the file system of `upper`.
    pub work: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitArgs {
    /// Where the root is put together; also the upper layer of the host's root volume.
    pub root: PathBuf,
    pub hostname: String,
    /// Directories and files of the machine to show inside: source, absolute path in the host.
    pub binds: Vec<(PathBuf, String)>,
    /// The root volume first, then the others.
    pub mounts: Vec<Mount>,
    /// NVMe devices with their volume ids, as udev links them: `nvme1n1`, `vol-0123…`.
    pub devices: Vec<(String, String)>,
    /// A network of its own, which leads nowhere but to these ports of the machine's loopback (H44). `None`: the machine's.
    #[serde(default)]
    pub closed: Option<Vec<u16>>,
}

impl InitArgs {
    pub fn to_argv(&self) -> Result<Vec<String>, HostError> {
        let text = serde_json::to_string(self).map_err(|e| io("writing a host's arguments")(e.into()))?;
        Ok(vec!["--args".to_owned(), text])
    }
}

/// Becomes a host. Returns the exit status of the process that waits outside.
pub fn run(args: &InitArgs) -> i32 {
    if let Some(ports) = &args.closed
        && let Err(e) = close_network(ports)
    {
        println!("error {e}");
        return 1;
    }
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

/// Leaves the machine's network for one that leads to these ports of the machine's loopback and nowhere else. What is forked from
/// here on is in it.
///
/// What comes to a port is carried by a process that stays behind and lives as long as this one: to come back into the machine's
/// network takes rights that an ordinary user does not have, and threads cannot be made here once this process has given its
/// children another PID namespace.
fn close_network(ports: &[u16]) -> Result<(), HostError> {
    let (here, behind) = UnixStream::pair().map_err(io("making a way to carry"))?;
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }.map_err(nix_io("starting to carry"))? {
        drop(here);
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        // SAFETY: this process uses neither; whoever reads the other end waits for the host's own words alone.
        unsafe {
            libc::close(0);
            libc::close(1);
        }
        let doors: Vec<_> = handed(&behind).map(|listener| std::thread::spawn(move || pass(&listener))).collect();
        doors.into_iter().for_each(|door| drop(door.join()));
        std::process::exit(0)
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(nix_io("making a network"))?;
    loopback_up().map_err(io("bringing the loopback up"))?;
    for port in ports {
        let listener = TcpListener::bind(("127.0.0.1", *port)).map_err(io(format!("opening port {port}")))?;
        let fds = [listener.as_raw_fd()];
        let what = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(&[0])], &what, MsgFlags::empty(), None)
            .map_err(nix_io(format!("handing port {port} over")))?;
    }
    Ok(())
}

/// The listeners that come over a socket until its other end is closed.
fn handed(from: &UnixStream) -> impl Iterator<Item = TcpListener> {
    std::iter::from_fn(|| {
        let (mut byte, mut space) = ([0u8; 1], nix::cmsg_space!([RawFd; 1]));
        let mut into = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(from.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty()).ok()?;
        let fd = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })?;
        // SAFETY: the kernel has just made it for this process, and nothing else knows it.
        Some(unsafe { TcpListener::from_raw_fd(fd) })
    })
}

/// What comes to a listener goes to the same port of the machine.
fn pass(listener: &TcpListener) {
    let Ok(to) = listener.local_addr() else { return };
    for inside in listener.incoming().flatten() {
        let Ok(outside) = TcpStream::connect(to) else { continue };
        let ways = [(inside.try_clone(), outside.try_clone()), (Ok(outside), Ok(inside))];
        for (mut from, mut to) in ways.into_iter().filter_map(|(from, to)| Some((from.ok()?, to.ok()?))) {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}

fn loopback_up() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open and the request outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
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
    for volume in &args.mounts {
        mount_volume(root, volume)?;
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
    name_devices(&dev, args)?;
    tmpfs("dev/shm", "mode=1777")?;
    tmpfs("run", "mode=755")?;
    let proc = root.join("proc");
    fs::create_dir_all(&proc).map_err(io("making /proc"))?;
    mount(Some("proc"), &proc, Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, NONE)
        .map_err(nix_io("mounting /proc"))?;
    for (source, target) in &args.binds {
        let target = root.join(target.trim_start_matches('/'));
        if source.is_file() {
            fs::create_dir_all(target.parent().unwrap_or(root))
                .and_then(|()| fs::write(&target, ""))
                .map_err(io(format!("making {}", target.display())))?;
        } else {
            fs::create_dir_all(&target).map_err(io(format!("making {}", target.display())))?;
        }
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

fn mount_volume(root: &Path, volume: &Mount) -> Result<(), HostError> {
    let target = root.join(volume.target.trim_start_matches('/'));
    // What an earlier mount left there forbids the next.
    let _ = fs::remove_dir_all(&volume.work);
    let none = volume.work.join("none");
    let work = volume.work.join("work");
    for dir in [&target, &volume.upper, &work, &none] {
        fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
    }
    let mut lower: Vec<String> = volume.lower.iter().map(|dir| dir.display().to_string()).collect();
    if lower.is_empty() {
        lower.push(none.display().to_string());
    }
    let options =
        format!("index=off,lowerdir={},upperdir={},workdir={}", lower.join(":"), volume.upper.display(), work.display());
    let try_mount = |more: &str| {
        mount(Some(volume.source.as_str()), &target, Some("overlay"), MsFlags::empty(), Some(&*format!("{options}{more}")))
    };
    // Nobody waits for the machine's disk here: what is gone with the machine may be gone. A user namespace may not write
    // trusted.* attributes.
    // Without a redirection a directory that came with the volume could not be renamed, as it can on any other file system.
    try_mount(",volatile,redirect_dir=on")
        .or_else(|_| try_mount(",volatile"))
        .or_else(|_| try_mount(",volatile,userxattr"))
        .or_else(|_| try_mount(",userxattr"))
        .or_else(|_| try_mount(""))
        .map_err(nix_io(format!("mounting {} at {}", volume.source, volume.target)))
}

/// What udev makes of NVMe devices on an instance: nodes, and links that name the EBS volume.
fn name_devices(dev: &Path, args: &InitArgs) -> Result<(), HostError> {
    let by_id = dev.join("disk/by-id");
    fs::create_dir_all(&by_id).map_err(io("making /dev/disk/by-id"))?;
    let node = |name: &str, link: String| -> std::io::Result<()> {
        fs::write(dev.join(name), "")?;
        symlink(format!("../../{name}"), by_id.join(link))
    };
    for (device, volume) in &args.devices {
        let link = format!("nvme-Amazon_Elastic_Block_Store_{}", volume.replace('-', ""));
        let parts =
            args.mounts.iter().filter_map(|m| m.source.strip_prefix("/dev/")?.strip_prefix(device.as_str())?.strip_prefix('p'));
        for part in parts {
            node(&format!("{device}p{part}"), format!("{link}-part{part}")).map_err(io("naming a partition"))?;
        }
        node(device, link).map_err(io("naming a device"))?;
    }
    Ok(())
}
