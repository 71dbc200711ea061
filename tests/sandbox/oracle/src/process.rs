//! The processes of an instance: `ora_pmon_<SID>`, which is the engine, and one server process a client.
//!
//! A server process belongs to its client only by a pipe: when the client dies it finishes what it does and
//! ends (H28). When the server process itself dies, the statement stops at its next phase (H49).

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, getuid};

use crate::engine::ddl;
use crate::engine::{Hello, Instance, Privilege, Run, Sess, Shared};
use crate::env::{host_path, instance_socket};
use crate::error::{Ora, Result};
use crate::params;
use crate::wire::{Ask, Reply, Stage, receive, send};

/// Ends this process as SIGKILL does.
pub fn die() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    std::process::abort();
}

/// Ends one server process, whose id the session told us.
pub fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// `bin/oracle` is setuid: from here on the process is its owner altogether.
fn become_owner() {
    let (uid, gid) = (geteuid(), getegid());
    let _ = nix::unistd::setresgid(gid, gid, gid);
    let _ = nix::unistd::setresuid(uid, uid, uid);
}

/// Whether the user may connect AS SYSDBA without a password: the owner of the software, or a member of dba.
fn is_dba(home: &str, uid: Uid) -> bool {
    let owner = std::fs::metadata(host_path(home).join("bin/oracle")).map(|m| m.uid());
    if owner.is_ok_and(|owner| owner == uid.as_raw()) {
        return true;
    }
    let groups = std::fs::read_to_string(host_path("/etc/group")).unwrap_or_default();
    let dba = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some("dba")).then(|| fields.nth(1)?.parse::<u32>().ok())?
    });
    dba.is_some_and(|gid| {
        let gid = Gid::from_raw(gid);
        nix::unistd::getgid() == gid || getgroups().is_ok_and(|all| all.contains(&gid))
    })
}

fn user_name(uid: Uid) -> String {
    let passwd = std::fs::read_to_string(host_path("/etc/passwd")).unwrap_or_default();
    let wanted = uid.as_raw().to_string();
    passwd
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2) == Some(&wanted.as_str())).then(|| fields[0].to_owned())
        })
        .unwrap_or(wanted)
}

struct Link {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

struct Server {
    home: String,
    sid: String,
    environment: BTreeMap<String, String>,
    uid: Uid,
    privilege: Privilege,
    link: Option<Link>,
}

/// The server process: `oracle<SID> (DESCRIPTION=(LOCAL=YES)…)`, fed by the client's pipe.
pub fn server_main(sid: &str) -> i32 {
    let uid = getuid();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let home = environment.get("ORACLE_HOME").cloned().unwrap_or_default();
    let _ = nix::unistd::setsid();
    // Children are instances: they outlive this process and are nobody's zombies.
    // SAFETY: no handler is installed, and no thread exists yet.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let allowed = is_dba(&home, uid);
    become_owner();
    let mut server = Server { home, sid: sid.to_owned(), environment, uid, privilege: Privilege::Sysdba, link: None };
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout();
    while let Ok(Some(ask)) = receive::<Ask>(&mut input) {
        let reply = match ask {
            Ask::Connect(_) if server.sid.is_empty() => Reply::error(&Ora::new(12162)),
            Ask::Connect(_) if !allowed => Reply::error(&Ora::new(1017)),
            Ask::Connect(privilege) => {
                server.privilege = privilege;
                server.connect()
            }
            Ask::Startup { stage, restrict, pfile } => server.startup(stage, restrict, pfile, &mut output),
            // Parameter files can be made of each other while there is no instance.
            Ask::Sql(text) if server.link.is_none() && ddl::class(&text).starts_with("CREATE") => {
                match ddl::create_parameter_file(&server.home, &server.sid, &text) {
                    Ok(answer) => Reply::Answer(answer),
                    Err(error) => Reply::error(&error),
                }
            }
            Ask::Hello(_) => Reply::error(&Ora::new(600)),
            ask @ (Ask::Sql(_) | Ask::Shutdown(_)) => server.forward(&ask, &mut output),
        };
        // The client may be gone; what it asked for is done all the same.
        let _ = send(&mut output, &reply);
    }
    0
}

impl Server {
    /// An instance that dies takes a moment to let go of its socket: who is hung up on asks again.
    fn connect(&mut self) -> Reply {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        loop {
            match self.connect_once() {
                Reply::Error(lines) if lines.first().is_some_and(|l| l.0 == 3113) && std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                reply => return reply,
            }
        }
    }

    fn connect_once(&mut self) -> Reply {
        self.link = None;
        let Ok(stream) = UnixStream::connect(instance_socket(&self.home, &self.sid)) else {
            return Reply::Idle;
        };
        let Ok(writer) = stream.try_clone() else { return Reply::Idle };
        self.link = Some(Link { reader: BufReader::new(stream), writer });
        let hello = Hello {
            os_user: user_name(self.uid),
            machine: crate::wallet::host_name(),
            client_pid: u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(0),
            server_pid: std::process::id(),
            privilege: self.privilege,
            sqlnet: params::read_sqlnet(&self.environment),
            environment: self.environment.clone(),
        };
        self.forward(&Ask::Hello(Box::new(hello)), &mut std::io::sink())
    }

    /// Puts a request to the instance and passes its lines on.
    fn forward(&mut self, ask: &Ask, output: &mut impl std::io::Write) -> Reply {
        let Some(link) = &mut self.link else {
            return Reply::error(&Ora::new(1034).and(Ora::new(27101)));
        };
        if send(&mut link.writer, ask).is_err() {
            self.link = None;
            return Reply::error(&Ora::new(3113));
        }
        loop {
            match receive::<Reply>(&mut link.reader) {
                Ok(Some(line @ Reply::Line(_))) => {
                    let _ = send(output, &line);
                }
                Ok(Some(reply)) => {
                    if matches!(ask, Ask::Shutdown(_)) && matches!(reply, Reply::Ok) {
                        // Down means that its process has ended: wait for the end of the line.
                        let _ = receive::<Reply>(&mut link.reader);
                        self.link = None;
                    }
                    return reply;
                }
                _ => {
                    self.link = None;
                    return Reply::error(&Ora::new(3113));
                }
            }
        }
    }

    fn startup(&mut self, stage: Stage, restrict: bool, pfile: Option<String>, output: &mut impl std::io::Write) -> Reply {
        if self.link.is_some() || matches!(self.connect(), Reply::Ok) {
            return Reply::error(&Ora::new(1081));
        }
        if let Err(error) = self.spawn_instance(pfile.as_deref()) {
            return Reply::error(&error);
        }
        match self.connect() {
            Reply::Ok => self.forward(&Ask::Startup { stage, restrict, pfile }, output),
            _ => Reply::error(&Ora::new(3113)),
        }
    }

    /// Starts `ora_pmon_<SID>` and waits for its first word.
    fn spawn_instance(&self, pfile: Option<&str>) -> Result<()> {
        let program = host_path(&self.home).join("bin/oracle");
        let mut command = Command::new(&program);
        command
            .arg0(format!("ora_pmon_{}", self.sid))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/");
        // SAFETY: setsid is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                let _ = nix::unistd::setsid();
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|e| Ora::io(&program, &e))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { return Err(Ora::new(12547)) };
        send(&mut stdin, &pfile).map_err(|e| Ora::io(&program, &e))?;
        drop(stdin);
        let mut first = BufReader::new(stdout);
        match receive::<Reply>(&mut first) {
            Ok(Some(Reply::Ok)) => Ok(()),
            Ok(Some(Reply::Error(lines))) => Err(Ora { lines }),
            _ => Err(Ora::new(3113)),
        }
    }
}

/// The instance: `ora_pmon_<SID>`.
pub fn pmon_main(sid: &str) -> i32 {
    become_owner();
    // SAFETY: no handler is installed, and no thread exists yet.
    unsafe { libc::umask(0o027) };
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let home = environment.get("ORACLE_HOME").cloned().unwrap_or_default();
    let pfile: Option<String> = receive(&mut std::io::stdin().lock()).ok().flatten().flatten();
    let (listener, shared, _lock) = match prepare(&home, sid, environment, pfile.as_deref()) {
        Ok(ready) => ready,
        Err(error) => {
            let _ = send(&mut std::io::stdout(), &Reply::error(&error));
            return 1;
        }
    };
    let _ = send(&mut std::io::stdout(), &Reply::Ok);
    // The server process that started us must not be held by our end of its pipe.
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        // SAFETY: both descriptors are open; stdout is not used afterwards.
        unsafe { libc::dup2(null.as_raw_fd(), 1) };
    }
    if let Ok(null) = std::fs::File::open("/dev/null") {
        // SAFETY: both descriptors are open; stdin was read to its end.
        unsafe { libc::dup2(null.as_raw_fd(), 0) };
    }
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || serve(&shared, stream));
    }
    0
}

type Ready = (UnixListener, Arc<Shared>, nix::fcntl::Flock<std::fs::File>);

/// The instance's lock. One that has just said goodbye may hold it for a moment.
fn own(mut file: std::fs::File) -> Result<nix::fcntl::Flock<std::fs::File>> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if std::time::Instant::now() > deadline => return Err(Ora::new(1081)),
            Err((back, _)) => {
                file = back;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn prepare(home: &str, sid: &str, environment: BTreeMap<String, String>, pfile: Option<&str>) -> Result<Ready> {
    let lock_path = host_path(home).join(format!("dbs/lk{sid}"));
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|e| Ora::io(&lock_path, &e))?;
    let lock = own(file)?;
    let instance = Instance::start(home, sid, environment, true, pfile)?;
    let socket = instance_socket(home, sid);
    if let Some(dir) = socket.parent() {
        let _ = std::fs::create_dir_all(dir);
        let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1777));
    }
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|e| Ora::io(&socket, &e))?;
    Ok((listener, Arc::new(Shared::new(instance)), lock))
}

/// One session, from its Hello to its end.
fn serve(shared: &Shared, stream: UnixStream) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let peer = stream.as_raw_fd();
    let mut reader = BufReader::new(stream);
    let mut session: Option<Sess> = None;
    while let Ok(Some(ask)) = receive::<Ask>(&mut reader) {
        let shutdown = matches!(ask, Ask::Shutdown(_));
        let reply = match (ask, session.as_mut()) {
            (Ask::Hello(hello), None) => {
                let mut instance = shared.lock();
                if instance.shutting_down {
                    Reply::error(&Ora::new(crate::sim::load().switches.connection_in_shutdown))
                } else {
                    session = Some(instance.log_on(*hello));
                    Reply::Ok
                }
            }
            (ask, Some(sess)) => {
                let alive = || !hung_up(peer);
                let mut run = Run { shared, alive: &alive, class: String::new(), server_pid: sess.hello.server_pid };
                let mut say = |line: &str| {
                    let _ = send(&mut writer, &Reply::Line(line.into()));
                };
                answer(&mut run, sess, ask, &mut say)
            }
            (_, None) => Reply::error(&Ora::new(600)),
        };
        let down = shutdown && matches!(reply, Reply::Ok);
        let sent = send(&mut writer, &reply);
        if down {
            end(shared);
        }
        if sent.is_err() {
            break;
        }
    }
    if let Some(sess) = session {
        shared.lock().log_off(sess.sid);
    }
}

fn hung_up(fd: i32) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let mut byte = [0u8; 1];
    matches!(recv(fd, &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Ok(0))
}

fn answer(run: &mut Run<'_>, sess: &mut Sess, ask: Ask, say: &mut dyn FnMut(&str)) -> Reply {
    let class = match &ask {
        Ask::Sql(text) => ddl::class(text),
        Ask::Shutdown(_) => "SHUTDOWN".into(),
        _ => "STARTUP".into(),
    };
    if let Some(row) = run.shared.lock().sessions.get_mut(&sess.sid) {
        row.active = true;
        row.running.clone_from(&class);
    }
    let reply = match ask {
        Ask::Sql(text) => match ddl::execute(run, sess, &text) {
            Ok(answer) => Reply::Answer(answer),
            Err(error) => Reply::error(&error),
        },
        Ask::Startup { stage, restrict, .. } => match startup(run, sess, stage, restrict, say) {
            Ok(()) => Reply::Ok,
            Err(error) => Reply::error(&error),
        },
        Ask::Shutdown(mode) => match ddl::shutdown(run, mode, say) {
            Ok(()) => {
                say("ORACLE instance shut down.");
                Reply::Ok
            }
            Err(error) => Reply::error(&error),
        },
        Ask::Connect(_) | Ask::Hello(_) => Reply::error(&Ora::new(600)),
    };
    if let Some(row) = run.shared.lock().sessions.get_mut(&sess.sid) {
        row.active = false;
        row.running.clear();
    }
    reply
}

/// The instance is down; the last thing its clients see is the end of the line.
fn end(shared: &Shared) -> ! {
    let instance = shared.lock();
    let _ = std::fs::remove_file(instance_socket(&instance.home, &instance.sid));
    std::process::exit(0);
}

fn startup(run: &mut Run<'_>, sess: &mut Sess, stage: Stage, restrict: bool, say: &mut dyn FnMut(&str)) -> Result<()> {
    run.class = "STARTUP".into();
    {
        let mut instance = run.shared.lock();
        instance.restricted = restrict;
        instance.count("STARTUP")?;
    }
    say("ORACLE instance started.");
    say("");
    for line in [
        "Total System Global Area 1610609432 bytes",
        "Fixed Size                  9135896 bytes",
        "Variable Size             385875968 bytes",
        "Database Buffers         1207959552 bytes",
        "Redo Buffers                7639040 bytes",
    ] {
        say(line);
    }
    run.phase("begin")?;
    if stage >= Stage::Mount {
        let mut instance = run.shared.lock();
        instance.mount()?;
        sess.con = instance.root();
        drop(instance);
        say("Database mounted.");
        run.phase("mount")?;
    }
    if stage >= Stage::Open {
        run.shared.lock().open(sess, true)?;
        say("Database opened.");
        run.phase("open")?;
    }
    Ok(())
}
