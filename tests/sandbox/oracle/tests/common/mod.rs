//! A host without a chroot: a directory that every program of the simulator takes for `/`.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sandbox_oracle::{Binaries, DatabaseSpec, HomeSpec, Truth, Verified, VerifyDatabase, VerifySpec, install_home};
use sandbox_shim::Vendor;
use sandbox_shim::admin::Token;
use serde_json::{Value, json};

pub const HOME19: &str = "/u01/app/oracle/product/19.0.0/dbhome_1";
pub const HOME12: &str = "/u01/app/oracle/product/12.2.0/dbhome_1";
pub const OLD_PIN: &str = "tdeold:OldPass_1";
pub const NEW_PIN: &str = "tdecu:NewPass_1";
pub const SW: &str = "Soft_Pw_1";

pub struct World {
    pub dir: tempfile::TempDir,
    pub old: Token,
    pub cloud: Token,
    pub truths: Vec<Truth>,
}

/// The shim of a vendor. Cargo builds no library of another package for a test, and building one from here would compile
/// with another set of features than the workspace's.
fn library(vendor: Vendor) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_oracle")).with_file_name(vendor.library_name());
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// The programs, copied once: a home gets hard links, and the mode of what cargo built stays as it is.
fn staged() -> &'static Binaries {
    static STAGED: std::sync::OnceLock<Binaries> = std::sync::OnceLock::new();
    STAGED.get_or_init(|| {
        let stage = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = |from: &str, name: &str| {
            let (temp, to) = (stage.join(format!("{name}.{}", std::process::id())), stage.join(name));
            std::fs::copy(from, &temp).unwrap();
            std::fs::rename(&temp, &to).unwrap();
            to
        };
        Binaries {
            oracle: place(env!("CARGO_BIN_EXE_oracle"), "staged-oracle"),
            sqlplus: place(env!("CARGO_BIN_EXE_sqlplus"), "staged-sqlplus"),
            link: true,
        }
    })
}

impl World {
    /// A host with both homes, both tokens and the old vendor's library below extapi.
    pub fn new() -> World {
        assert!(Path::new(sandbox_shim::SOFTHSM).exists(), "{} is missing: install Debian's `softhsm2`", sandbox_shim::SOFTHSM);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for home in [HOME19, HOME12] {
            let spec = HomeSpec { home: home.into(), base: "/u01/app/oracle".into(), owner: None };
            install_home(root, &spec, staged()).unwrap();
        }
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/hostname", "host1\n");
        write("etc/group", "oinstall:x:54321:\ndba:x:54322:oracle\n");
        write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        write("opt/oldhsm/etc/pkcs11.cfg", r#"{"hsm_dir":"/run/hsm/old-hsm"}"#);
        write("opt/cloudhsm/etc/customerCA.crt", "-----BEGIN CERTIFICATE-----\n");
        write("opt/cloudhsm/etc/cloudhsm-pkcs11.cfg", r#"{"hsm_dir":"/run/hsm/cloudhsm","servers":["10.0.1.10"]}"#);
        std::fs::create_dir_all(root.join("run/hsm")).unwrap();
        let (user, password) = OLD_PIN.split_once(':').unwrap();
        let old = Token::create(&root.join("run/hsm/old-hsm"), Vendor::OldHsm, &["old-1", "old-2"]).unwrap();
        old.set_user(user, password).unwrap();
        let (user, password) = NEW_PIN.split_once(':').unwrap();
        let cloud = Token::create(&root.join("run/hsm/cloudhsm"), Vendor::CloudHsm, &["hsm-a", "hsm-b"]).unwrap();
        cloud.set_user(user, password).unwrap();
        let world = World { dir, old, cloud, truths: Vec::new() };
        world.install_library(Vendor::OldHsm);
        world
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub fn extapi(&self) -> PathBuf {
        self.path("/opt/oracle/extapi/64/hsm")
    }

    /// Exactly this vendor's library below extapi, by rename.
    pub fn install_library(&self, vendor: Vendor) {
        let tree = self.extapi();
        if tree.exists() {
            let aside = self.path("/opt/aside").join(format!("{:?}", Instant::now()));
            std::fs::create_dir_all(aside.parent().unwrap()).unwrap();
            std::fs::rename(&tree, aside).unwrap();
        }
        self.add_library(vendor);
    }

    pub fn add_library(&self, vendor: Vendor) {
        let dir = match vendor {
            Vendor::OldHsm => self.extapi().join("oldhsm/7.4.0"),
            Vendor::CloudHsm => self.extapi().join("cloudhsm/5.0.0"),
        };
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(library(vendor), dir.join(vendor.library_name())).unwrap();
    }

    pub fn sim(&self, value: &Value) {
        let temp = self.path("/etc/.oracle-sim.json");
        std::fs::write(&temp, value.to_string()).unwrap();
        std::fs::rename(temp, self.path("/etc/oracle-sim.json")).unwrap();
    }

    pub fn switch(&self, name: &str, value: impl Into<Value>) {
        self.sim(&json!({ "switches": { name: value.into() } }));
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env(sandbox_shim::ROOT_ENV, self.root());
        command
    }

    pub fn oracle(&self, arguments: &[&str], input: &Value) -> Value {
        let mut child = self
            .command(&self.path(HOME19).join("bin/oracle"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Not everything reads its input.
        let _ = write!(child.stdin.take().unwrap(), "{input}");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "oracle {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn seed(&mut self, spec: &Value) -> Truth {
        let spec: DatabaseSpec = serde_json::from_value(spec.clone()).unwrap();
        let truth = self.oracle(&["sim-seed", "-"], &serde_json::to_value(&spec).unwrap());
        let truth: Truth = serde_json::from_value(truth).unwrap();
        self.truths.push(truth.clone());
        truth
    }

    pub fn sqlplus_command(&self, home: &str, sid: &str) -> Command {
        let mut command = self.command(&self.path(home).join("bin/sqlplus"));
        command
            .env("ORACLE_HOME", home)
            .env("ORACLE_SID", sid)
            .env("ORACLE_BASE", "/u01/app/oracle")
            .args(["-S", "-L", "/nolog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a script in a new session and returns everything it said.
    pub fn sql_in(&self, home: &str, sid: &str, script: &str) -> String {
        let mut child = self.sqlplus_command(home, sid).spawn().unwrap();
        feed(&mut child, script);
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn sql(&self, sid: &str, script: &str) -> String {
        let home = if sid.starts_with("OLD") { HOME12 } else { HOME19 };
        self.sql_in(home, sid, script)
    }

    /// Starts a script and leaves it running.
    pub fn spawn_sql(&self, sid: &str, script: &str) -> Child {
        let home = if sid.starts_with("OLD") { HOME12 } else { HOME19 };
        let mut child = self.sqlplus_command(home, sid).spawn().unwrap();
        feed_open(&mut child, script);
        child
    }

    pub fn verify(&self, cut_off: &[&str]) -> std::collections::BTreeMap<String, Verified> {
        self.verify_those(cut_off, |_| true)
    }

    pub fn verify_one(&self, sid: &str, cut_off: &[&str]) -> Verified {
        self.verify_those(cut_off, |truth| truth.sid == sid).remove(sid).unwrap()
    }

    fn verify_those(&self, cut_off: &[&str], wanted: impl Fn(&Truth) -> bool) -> std::collections::BTreeMap<String, Verified> {
        let databases = self
            .truths
            .iter()
            .filter(|truth| wanted(truth))
            .map(|truth| VerifyDatabase {
                truth: truth.clone(),
                pins: [("old-hsm", OLD_PIN), ("cloudhsm", NEW_PIN)].map(|(store, pin)| (store.to_owned(), pin.to_owned())).into(),
                software: vec![SW.into()],
            })
            .collect();
        let spec = VerifySpec { databases, cut_off: cut_off.iter().map(|s| (*s).to_owned()).collect() };
        // Of a copy, as the sandbox does: verifying writes, by rename alone, so links are copy enough.
        let copy = self.dir.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        let status = Command::new("cp").arg("-al").arg(self.path("/u01")).arg(&copy).status();
        assert!(status.unwrap().success());
        let aside = self.dir.path().join("u01.live");
        std::fs::rename(self.path("/u01"), &aside).unwrap();
        std::fs::rename(&copy, self.path("/u01")).unwrap();
        let result = self.oracle(&["sim-verify", "-"], &serde_json::to_value(&spec).unwrap());
        std::fs::remove_dir_all(self.path("/u01")).unwrap();
        std::fs::rename(&aside, self.path("/u01")).unwrap();
        serde_json::from_value(result).unwrap()
    }

    pub fn inspect(&self) -> Value {
        self.oracle(&["sim-inspect"], &Value::Null)
    }

    /// Waits until `done`, at most a minute.
    pub fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(value) = done() {
                return value;
            }
            assert!(Instant::now() < deadline, "not in a minute: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id of an instance, if it runs.
    pub fn pmon(&self, sid: &str) -> Option<i32> {
        let wanted = format!("ora_pmon_{sid}");
        let root = self.root().to_string_lossy().into_owned();
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let ours = String::from_utf8_lossy(&environment).contains(&root);
            (ours && command.starts_with(wanted.as_bytes())).then_some(pid)
        })
    }

    /// Kills the instance, by the id just found.
    pub fn crash(&self, sid: &str) {
        let pid = self.pmon(sid).expect("the instance runs");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        self.until("the instance is gone", || self.pmon(sid).is_none().then_some(()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for truth in &self.truths {
            if let Some(pid) = self.pmon(&truth.sid) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

fn feed(child: &mut Child, script: &str) {
    let mut input = child.stdin.take().unwrap();
    write_script(&mut input, script);
}

fn feed_open(child: &mut Child, script: &str) {
    write_script(child.stdin.as_mut().unwrap(), script);
}

fn write_script(input: &mut impl std::io::Write, script: &str) {
    let prologue = "SET DEFINE OFF ECHO OFF VERIFY OFF FEEDBACK ON HEADING OFF PAGESIZE 0 LINESIZE 32767 TRIMSPOOL ON TAB OFF SQLBLANKLINES ON\nCONNECT / AS SYSDBA\n";
    // A client that has exited by WHENEVER reads no further.
    let _ = input.write_all(prologue.as_bytes());
    let _ = input.write_all(script.as_bytes());
    let _ = input.write_all(b"\n");
    let _ = input.flush();
}

/// A tablespace with one table of 20 rows.
pub fn tablespace(name: &str) -> Value {
    json!({"name": name, "tables": [{"name": format!("APP.{name}_T"), "rows": 20}]})
}

/// A 19c non-CDB in WALLET_ROOT style whose key is in the old HSM.
pub fn hsm19(sid: &str) -> Value {
    json!({
        "sid": sid, "home": HOME19, "version": "19.0.0.0.0", "style": "wallet_root",
        "source": {"hsm": {"pin": OLD_PIN}},
        "tablespaces": [
            tablespace("DATA"), tablespace("MORE"),
            {"name": "USERS", "encrypted": false, "tables": [
                {"name": "APP.CARDS", "rows": 10, "encrypted_columns": ["PAYLOAD"]}
            ]}
        ],
        "planted": {"last_full_backup_hours": 5.0}
    })
}

/// The same as a 12.2 database in sqlnet style; its SID begins with OLD.
pub fn hsm12(sid: &str) -> Value {
    let mut spec = hsm19(sid);
    spec["home"] = HOME12.into();
    spec["version"] = "12.2.0.1.0".into();
    spec["style"] = "sqlnet".into();
    spec
}

/// A 19c CDB with two PDBs.
pub fn cdb19(sid: &str) -> Value {
    let mut spec = hsm19(sid);
    spec["cdb"] = true.into();
    spec["tablespaces"] = json!([]);
    spec["pdbs"] = json!([
        {"name": "PDB1", "tablespaces": [tablespace("DATA")]},
        {"name": "PDB2", "tablespaces": [tablespace("DATA")]}
    ]);
    spec
}

/// A 19c non-CDB with a software keystore.
pub fn software19(sid: &str) -> Value {
    let mut spec = hsm19(sid);
    spec["source"] = json!({"software": {"password": SW}});
    spec
}

pub const OPEN_OLD: &str = "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"tdeold:OldPass_1\";";
pub const OPEN_NEW: &str = "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"tdecu:NewPass_1\";";
pub const OPEN_SW: &str = "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"Soft_Pw_1\";";
pub const CREATE_SW: &str = "ADMINISTER KEY MANAGEMENT CREATE KEYSTORE IDENTIFIED BY \"Soft_Pw_1\";";
pub const REVERSE: &str = "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"Soft_Pw_1\" REVERSE MIGRATE USING \"tdeold:OldPass_1\" WITH BACKUP USING 'rm_1';";
pub const MIGRATE: &str = "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"tdecu:NewPass_1\" MIGRATE USING \"Soft_Pw_1\" WITH BACKUP USING 'mg_1';";

pub fn configure(value: &str) -> String {
    format!("ALTER SYSTEM SET TDE_CONFIGURATION='KEYSTORE_CONFIGURATION={value}' SCOPE=BOTH;")
}

/// A check that names what it looked for.
#[track_caller]
pub fn has(output: &str, wanted: &str) {
    assert!(output.contains(wanted), "`{wanted}` is not in:\n{output}");
}

#[track_caller]
pub fn has_not(output: &str, unwanted: &str) {
    assert!(!output.contains(unwanted), "`{unwanted}` is in:\n{output}");
}
