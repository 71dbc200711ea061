//! The real program, become a database owner (H33). Needs root; as another user each test says that it shows nothing.

#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tde2hsm_host_runner::owner::{Ended, Owner, OwnerError, Program, Read};
use tde2hsm_host_runner::procs::{Limit, Pmon};
use tde2hsm_host_runner::provider::Provider;
use tde2hsm_host_runner::{Paths, Secret};
use tde2hsm_protocol::{Digest, LoginResult, Sid, Timestamp};

const HOME: &str = "/u01/app/oracle/product/19.0.0/dbhome_1";
const LIMIT: Duration = Duration::from_secs(60);

struct World {
    _dir: tempfile::TempDir,
    paths: Paths,
    owner: Owner,
}

/// A home of `daemon`, whom every Linux knows. `None` where this is not root.
fn world() -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: nothing shown");
        return None;
    }
    let user = nix::unistd::User::from_name("daemon").unwrap().expect("the user daemon");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let runner = dir.path().join("host-runner");
    fs::copy(env!("CARGO_BIN_EXE_host-runner"), &runner).unwrap();
    let paths = Paths::below(dir.path()).with_runner(runner);
    let oracle = paths.at(HOME).join("bin/oracle");
    fs::create_dir_all(oracle.parent().unwrap()).unwrap();
    fs::create_dir_all(paths.at(HOME).join("network/admin")).unwrap();
    fs::write(&oracle, "").unwrap();
    assert!(matches!(Owner::of_home(&paths, HOME), Err(OwnerError::Root { .. })), "root's home is refused");
    for path in [oracle.as_path(), &paths.at(HOME).join("network/admin")] {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    fs::set_permissions(&oracle, fs::Permissions::from_mode(0o6751)).unwrap();
    let owner = Owner::of_home(&paths, HOME).unwrap();
    assert_eq!((owner.user.as_str(), owner.uid), ("daemon", user.uid.as_raw()));
    Some(World { _dir: dir, paths, owner })
}

fn pmon(environ: &[(&str, &str)], limits: Vec<Limit>) -> Pmon {
    Pmon {
        pid: 1,
        sid: Sid::new("FIN").unwrap(),
        uid: 1,
        environ: environ.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        limits,
        cgroup: String::new(),
        started_at: Timestamp(0),
        exe: String::new(),
    }
}

fn shell(script: &str) -> Program {
    Program::new("/bin/sh", LIMIT).arg("-c").arg(script)
}

fn said(world: &World, program: &Program) -> String {
    let output = world.owner.run(program, b"").unwrap();
    assert_eq!(output.ended, Ended::Exit(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn h33_a_program_runs_as_the_owner_and_cannot_become_root_again() {
    let Some(world) = world() else { return };
    let status = said(&world, &shell("cat /proc/self/status; id -G; cat /proc/self/environ | tr '\\0' '\\n'; ulimit -c"));
    let uid = world.owner.uid;
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert_eq!(line("Uid:"), format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    assert_eq!(line("CapEff:"), "CapEff:\t0000000000000000");
    assert!(!line("Groups:").split_whitespace().any(|group| group == "0"), "root's group: {}", line("Groups:"));
    assert!(status.contains("\nUSER=daemon\n") && !status.contains("CARGO"), "the environment is its own");
    assert!(status.trim_end().ends_with("\n0"), "no core dump (H39)");
}

#[test]
fn h24_a_startup_runs_under_pmons_limits_and_may_use_setuid_helpers() {
    let Some(world) = world() else { return };
    let limits = vec![
        Limit { name: "Max open files".into(), soft: Some(77), hard: Some(99) },
        Limit { name: "Max locked memory".into(), soft: Some(1 << 20), hard: Some(2 << 20) },
    ];
    let pmon = pmon(&[("ORACLE_SID", "FIN"), ("LD_PRELOAD", "/tmp/evil.so")], limits);
    let program =
        shell("ulimit -Sn; ulimit -Hn; ulimit -l; env; grep NoNewPrivs /proc/self/status").env_of(&pmon).like(&pmon).login();
    let said = said(&world, &program);
    assert!(said.starts_with("77\n99\n1024\n"), "{said}");
    assert!(said.contains("ORACLE_SID=FIN\n") && !said.contains("evil") && said.ends_with("NoNewPrivs:\t0\n"), "{said}");
}

#[test]
fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let Some(world) = world() else { return };
    let mut program = shell("sleep 1000 & echo $! > \"$MARK\"; wait");
    let mark = world.paths.at(HOME).join("network/admin/mark");
    program = program.env("MARK", mark.to_str().unwrap());
    program.limit = Duration::from_millis(700);
    assert!(matches!(world.owner.run(&program, b""), Err(OwnerError::TimedOut { .. })));
    let grandchild = fs::read_to_string(&mark).unwrap().trim().to_owned();
    let deadline = std::time::Instant::now() + LIMIT;
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "{grandchild} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn h28_a_conversation_is_held_line_by_line_and_its_end_ends_the_client_alone() {
    let Some(world) = world() else { return };
    let mut child = world
        .owner
        .spawn(&shell("sleep 1000 & echo server $!; echo talk >&2; while read line; do echo \"<$line>\"; done"))
        .unwrap();
    let mut heard = String::new();
    let mut until = |child: &mut tde2hsm_host_runner::owner::Child, words: &str| {
        while !heard.contains(words) {
            match child.read(LIMIT).unwrap() {
                Read::Some(bytes) => heard.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} before {words} in {heard}"),
            }
        }
        heard.clone()
    };
    until(&mut child, "talk\n");
    child.write(b"one\n").unwrap();
    let heard = until(&mut child, "<one>\n");
    assert_eq!(child.read(Duration::from_millis(20)).unwrap(), Read::Nothing);
    assert_eq!(child.wait(Duration::ZERO).unwrap(), None);
    child.kill();
    assert_eq!(child.wait(Duration::ZERO).unwrap(), Some(Ended::Signal(9)));
    let server: i32 = heard.split_whitespace().nth(1).unwrap().parse().unwrap();
    let server = nix::unistd::Pid::from_raw(server);
    assert!(nix::sys::signal::kill(server, None).is_ok(), "what it started goes on");
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn h33_files_are_worked_on_by_the_owner_and_by_nobody_more_powerful() {
    let Some(world) = world() else { return };
    let admin = world.paths.at(HOME).join("network/admin");
    let sqlnet = admin.join("sqlnet.ora");
    let mut files = world.owner.files().unwrap();
    assert_eq!(files.read(&sqlnet).unwrap(), None);
    let first = files.replace(&sqlnet, b"A=1\n", None).unwrap();
    files.replace(&sqlnet, b"A=2\n", Some(first)).unwrap();
    assert_eq!(files.read(&sqlnet).unwrap().unwrap(), b"A=2\n");
    let info = files.stat(&sqlnet).unwrap().unwrap();
    assert_eq!((info.uid, info.mode), (world.owner.uid, 0o640));

    // A link to root's file is not followed, and without a link the owner's own rights end there.
    let shadow = world.paths.at("/shadow");
    fs::write(&shadow, "root's").unwrap();
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&shadow, admin.join("link.ora")).unwrap();
    assert!(files.read(&admin.join("link.ora")).is_err());
    assert!(files.read(&shadow).is_err());
    assert!(files.replace(&shadow, b"x", Some(Digest::of(b"root's"))).is_err());
    assert!(files.copy_into(&sqlnet, Path::new("/root/theirs")).is_err());

    let aside = admin.join("tde2hsm.c-1");
    let kept = files.move_into(&sqlnet, &aside).unwrap();
    assert!(files.read(&sqlnet).unwrap().is_none());
    files.move_back(&kept).unwrap();
    let copy = files.keep(&sqlnet, &world.paths.copies()).unwrap().unwrap();
    assert_eq!((fs::read(&copy.to).unwrap(), copy.sha256), (b"A=2\n".to_vec(), Digest::of(b"A=2\n")));
    assert_eq!(files.list(&admin).unwrap().unwrap().len(), 3);
}

/// A token of SoftHSM that the owner may use; `None` where it is not installed.
fn token(world: &World) -> Option<(String, String)> {
    let library = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
    let library = library.into_iter().find(|path| Path::new(path).exists())?;
    let dir = world.paths.at("/tokens");
    fs::create_dir_all(&dir).unwrap();
    let conf = world.paths.at("/softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", dir.display())).unwrap();
    let args = ["--init-token", "--free", "--label", "t", "--so-pin", "0000", "--pin", "cu:Right1"];
    let made = Command::new("softhsm2-util").args(args).env("SOFTHSM2_CONF", &conf).output().ok()?;
    assert!(made.status.success());
    let all = Command::new("chown").arg("-R").arg(world.owner.uid.to_string()).arg(&dir).status().unwrap();
    assert!(all.success());
    Some((library.to_owned(), conf.to_str().unwrap().to_owned()))
}

#[test]
fn h10_the_probe_logs_in_once_and_tells_refused_from_unreachable() {
    let Some(world) = world() else { return };
    let Some((library, conf)) = token(&world) else {
        eprintln!("SoftHSM is not installed: nothing shown");
        return;
    };
    let provider = Provider::new(&world.paths);
    let pmon = pmon(&[("SOFTHSM2_CONF", &conf)], Vec::new());
    let ask = |library: &str, pin: &str| {
        provider.probe("one", &world.owner, Some(&pmon), Path::new(library), &Secret::new(pin.to_owned())).unwrap()
    };
    let right = ask(&library, "cu:Right1");
    assert_eq!(right.login, LoginResult::Proven, "{right:?}");
    assert!(right.library.unwrap().contains("SoftHSM"));
    let wrong = ask(&library, "cu:Wrong1");
    assert_eq!(wrong.login, LoginResult::Refused);
    assert_eq!(wrong.said, "C_Login answered CKR_PIN_INCORRECT");
    let missing = ask("/nowhere/libnone.so", "cu:Right1");
    assert_eq!(missing.login, LoginResult::Unreachable);
    assert_eq!(provider.probe_load(&world.owner, Some(&pmon), Path::new(&library)).unwrap().login, LoginResult::Proven);
    provider.loads(&world.owner, Some(&pmon), Path::new(&library)).unwrap();
    assert!(provider.loads(&world.owner, None, Path::new("/etc/hostname")).is_err());
}

#[test]
fn h10_a_worker_that_dies_in_the_middle_of_a_login_costs_no_second_one() {
    let Some(world) = world() else { return };
    let Some((library, conf)) = token(&world) else {
        eprintln!("SoftHSM is not installed: nothing shown");
        return;
    };
    let provider = Provider::new(&world.paths);
    let pmon = pmon(&[("SOFTHSM2_CONF", &conf)], Vec::new());
    assert_eq!(provider.last_probe("secret v1").unwrap(), None);
    let pin = Secret::new("cu:Right1".to_owned());
    let said = provider.probe("secret v1", &world.owner, Some(&pmon), Path::new(&library), &pin).unwrap();
    // Whoever comes after the caller's death reads what the probe wrote down itself.
    provider.probe_load(&world.owner, Some(&pmon), Path::new(&library)).unwrap();
    assert_eq!(provider.last_probe("secret v1").unwrap(), Some(said));
    assert_eq!(provider.last_probe("secret v2").unwrap(), None);

    // Its process still runs: it is waited for. The lock is the probe's own, inherited with its output.
    let path = world.paths.state().join("probe-login");
    fs::write(&path, "secret v2\ntde2hsm-probe login C_Login\n").unwrap();
    let file = fs::File::options().append(true).open(&path).unwrap();
    let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut going = Command::new("sh");
    going.arg("-c").arg("read go; echo 'tde2hsm-probe proven late'").stdin(std::process::Stdio::piped());
    let mut child = going.stdout(held.try_clone().unwrap()).spawn().unwrap();
    drop(going);
    // A killed caller's descriptor is closed without an unlock.
    let descriptor = held.as_raw_fd();
    std::mem::forget(held);
    // SAFETY: its owner was forgotten in the line above.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| provider.last_probe("secret v2").unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        asked.join().unwrap()
    });
    let asked = asked.unwrap();
    assert_eq!((asked.login, asked.said.as_str()), (LoginResult::Proven, "late"));
}
