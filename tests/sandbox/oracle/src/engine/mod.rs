//! The instance: what a running database keeps in memory, and what of it survives on disk.
//!
//! One lock guards it all and is held for moments only. A statement with phases (key management, shutdown)
//! takes the lock once a phase and lets go between, so that other sessions see a half-done statement as they
//! would see a real one, and a crash there leaves exactly the phases before it (H28, H49).

pub mod akm;
pub mod ddl;
pub mod parse;
pub mod sql;
pub mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto::{self, Key};
use crate::disk::{Archived, Container, Control, DataFile, Files, Ledger, Redo, RedoEntry, Tablespace};
use crate::env::{host_path, now};
use crate::error::{Ora, Result, ora};
use crate::hsm::Provider;
use crate::keys::{Kind, Mkid, Wrapped};
use crate::params::{self, Config, ParameterFile, Values};
use crate::sim::{Act, Sim};
use crate::spec::TsStatus;
use crate::wallet::{self, Body, SsoKind};

/// How a session is logged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privilege {
    Sysdba,
    Syskm,
}

/// What a server process tells the instance of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub os_user: String,
    pub machine: String,
    pub client_pid: u32,
    pub server_pid: u32,
    pub privilege: Privilege,
    /// The server process' environment, which is the client's (O§4.3).
    pub environment: BTreeMap<String, String>,
    /// sqlnet.ora as this connection has read it (O§2.1).
    pub sqlnet: Option<String>,
}

/// A session.
pub struct Sess {
    pub sid: u32,
    pub serial: u32,
    pub hello: Hello,
    /// The current container.
    pub con: u32,
    /// The file keystore where it belongs to the session (H48).
    pub file: Option<FileOpen>,
}

/// What other sessions see of a session (V$SESSION, V$PROCESS).
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub sid: u32,
    pub serial: u32,
    pub hello: Hello,
    pub con: u32,
    pub logon: f64,
    pub active: bool,
    /// Class of the statement it runs.
    pub running: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Started,
    Mounted,
    OpenReadOnly,
    OpenReadWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdbMode {
    Mounted,
    ReadOnly,
    ReadWrite,
}

impl PdbMode {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PdbMode::Mounted => "MOUNTED",
            PdbMode::ReadOnly => "READ ONLY",
            PdbMode::ReadWrite => "READ WRITE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletType {
    Password,
    Autologin,
    LocalAutologin,
}

impl WalletType {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WalletType::Password => "PASSWORD",
            WalletType::Autologin => "AUTOLOGIN",
            WalletType::LocalAutologin => "LOCAL_AUTOLOGIN",
        }
    }
}

/// An open software keystore. It outlives its files (R13).
#[derive(Clone, Debug)]
pub struct FileOpen {
    pub dir: PathBuf,
    pub kind: WalletType,
    pub body: Body,
    /// Containers it is open in; a united keystore is opened container by container.
    pub containers: BTreeSet<u32>,
}

#[derive(Default)]
pub struct HsmOpen {
    pub containers: BTreeSet<u32>,
    /// Opened by the HSM_PASSWORD secret.
    pub auto: bool,
}

pub struct Instance {
    pub home: String,
    pub sid: String,
    pub environment: BTreeMap<String, String>,
    pub state: State,
    pub restricted: bool,
    pub shutting_down: bool,
    pub started: f64,
    pub parameter_file: ParameterFile,
    /// Parameters in memory.
    pub memory: Values,
    /// As of STARTUP, where a change of TDE_CONFIGURATION needs a restart (H48).
    pub at_start: Values,
    pub files: Files,
    pub control: Option<Control>,
    pub ledger: Ledger,
    pub pdbs: BTreeMap<u32, PdbMode>,
    /// Open in restricted session.
    pub restricted_pdbs: BTreeSet<u32>,
    /// ALTER DATABASE BEGIN BACKUP.
    pub backup_mode: bool,
    /// `OWNER.NAME` of the user tables of each container; nobody makes tables after the seed.
    pub tables: HashMap<u32, BTreeSet<String>>,
    pub provider: Provider,
    pub file: Option<FileOpen>,
    pub hsm: Option<HsmOpen>,
    /// Unwrapped tablespace and column keys (H6): by container and name.
    pub sga_keys: HashMap<(u32, String), Key>,
    pub sessions: BTreeMap<u32, SessionRow>,
    next_session: u32,
}

/// The instance as its threads share it.
pub struct Shared {
    instance: Mutex<Instance>,
    /// Key management is one statement at a time.
    km: Mutex<()>,
}

/// A statement under way.
pub struct Run<'a> {
    pub shared: &'a Shared,
    /// The server process of the session still lives; when it dies the statement stops at the next phase.
    pub alive: &'a dyn Fn() -> bool,
    /// Class of the statement, as faults and counters name it.
    pub class: String,
    /// The session's server process.
    pub server_pid: u32,
}

impl Shared {
    #[must_use]
    pub fn new(instance: Instance) -> Shared {
        Shared { instance: Mutex::new(instance), km: Mutex::new(()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn one_key_management(&self) -> MutexGuard<'_, ()> {
        self.km.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run<'_> {
    /// Between two effects of a statement: waits, and fails as the physics say. No lock is held here.
    pub fn phase(&self, phase: &str) -> Result<()> {
        let at = format!("{}:{phase}", self.class);
        let sim = crate::sim::load();
        let delay = sim.phase_delay_ms.get(&at).or_else(|| sim.phase_delay_ms.get("*"));
        if let Some(ms) = delay {
            self.wait(*ms)?;
        }
        self.stop_if_dead()?;
        loop {
            let sim = crate::sim::load();
            let due = self.due(&sim, &at);
            let Some(fault) = due else { return self.stop_if_dead() };
            match fault.act {
                Act::CrashInstance => {
                    // As SIGKILL would: nothing is written any more.
                    crate::process::die();
                }
                Act::KillServer => {
                    crate::process::kill(self.server_pid);
                    ora!(3113);
                }
                Act::Error => {
                    return Err(Ora::new(fault.code.unwrap_or(600)));
                }
                Act::Hang => self.wait(50)?,
                Act::ArchiverStuck => return Ok(()),
            }
        }
    }

    /// The fault to carry out here, noted before it strikes.
    fn due(&self, sim: &Sim, at: &str) -> Option<crate::sim::Fault> {
        let mut instance = self.shared.lock();
        let fault = sim.faults.iter().find(|f| {
            f.at == at
                && f.sid.as_ref().is_none_or(|sid| *sid == instance.sid)
                && (f.act == Act::Hang || instance.ledger.faults.get(&f.id).copied().unwrap_or(0) < f.times)
        })?;
        if fault.act != Act::Hang {
            *instance.ledger.faults.entry(fault.id.clone()).or_default() += 1;
            instance.save_ledger().ok()?;
        }
        Some(fault.clone())
    }

    /// Waits in small pieces, for a statement ends when its server process does.
    pub fn wait(&self, ms: u64) -> Result<()> {
        let mut left = ms;
        while left > 0 {
            self.stop_if_dead()?;
            let piece = left.min(20);
            std::thread::sleep(Duration::from_millis(piece));
            left -= piece;
        }
        Ok(())
    }

    fn stop_if_dead(&self) -> Result<()> {
        if (self.alive)() { Ok(()) } else { Err(Ora::new(3113)) }
    }
}

impl Instance {
    /// STARTUP NOMOUNT.
    pub fn start(
        home: &str,
        sid: &str,
        environment: BTreeMap<String, String>,
        count: bool,
        pfile: Option<&str>,
    ) -> Result<Instance> {
        let found = match pfile {
            Some(name) if host_path(name).exists() => Some(params::load(home, sid, name)?),
            Some(_) => None,
            None => params::find(home, sid)?,
        };
        let Some(parameter_file) = found else {
            let name = pfile.map_or_else(|| params::pfile_name(home, sid), str::to_owned);
            return Err(Ora::new(1078).and(Ora::with(109, format!("LRM-00109: could not open parameter file '{name}'"))));
        };
        let mut memory = parameter_file.values.clone();
        memory.insert("spfile".into(), parameter_file.spfile.clone().unwrap_or_default());
        memory.entry("instance_name".into()).or_insert_with(|| sid.to_owned());
        let name = memory.get("db_name").cloned().unwrap_or_else(|| sid.to_owned());
        memory.entry("db_unique_name".into()).or_insert(name);
        let control = memory.get("control_files").cloned().unwrap_or_default();
        let files = Files::of(&control);
        let mut instance = Instance {
            home: home.into(),
            sid: sid.into(),
            environment,
            state: State::Started,
            restricted: false,
            shutting_down: false,
            started: now(),
            parameter_file,
            at_start: memory.clone(),
            memory,
            ledger: files.load_ledger(),
            files,
            control: None,
            pdbs: BTreeMap::new(),
            restricted_pdbs: BTreeSet::new(),
            backup_mode: false,
            tables: HashMap::new(),
            provider: Provider::default(),
            file: None,
            hsm: None,
            sga_keys: HashMap::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
        };
        if count {
            instance.ledger.starts += 1;
            instance.save_ledger()?;
        }
        Ok(instance)
    }

    /// What has come up since the start.
    pub fn plant(&mut self, sim: &Sim) {
        let (Some(planted), Some(control)) = (sim.planted.get(&self.sid), &mut self.control) else { return };
        if control.planted != *planted {
            control.planted.clone_from(planted);
            let parameters = planted.memory_parameters.iter();
            self.memory.extend(parameters.map(|(name, value)| (name.to_lowercase(), value.clone())));
        }
    }

    pub fn save_ledger(&self) -> Result<()> {
        self.files.save_ledger(&self.ledger)
    }

    /// Counts a statement that reached the engine.
    pub fn count(&mut self, class: &str) -> Result<()> {
        *self.ledger.statements.entry(class.to_owned()).or_default() += 1;
        self.save_ledger()
    }

    /// A new session, in the root.
    pub fn log_on(&mut self, hello: Hello) -> Sess {
        self.next_session += 1;
        let sid = 40 + self.next_session;
        let serial = 1000 + self.next_session * 7;
        let con = self.root();
        self.sessions.insert(
            sid,
            SessionRow { sid, serial, hello: hello.clone(), con, logon: now(), active: false, running: String::new() },
        );
        Sess { sid, serial, hello, con, file: None }
    }

    pub fn log_off(&mut self, sid: u32) {
        self.sessions.remove(&sid);
    }

    pub fn mount(&mut self) -> Result<()> {
        if self.state > State::Started {
            ora!(1100);
        }
        let control = self
            .files
            .load_control()
            .map_err(|e| Ora::with(205, "error in identifying control file, check alert log for more info").and(e))?;
        for (name, value) in control.planted.memory_parameters.clone() {
            self.memory.insert(name.to_lowercase(), value);
        }
        self.pdbs = control.containers.iter().filter(|c| c.con_id >= 2).map(|c| (c.con_id, PdbMode::Mounted)).collect();
        for ts in &control.tablespaces {
            if let Ok(data) = self.files.load_data(ts) {
                self.tables.entry(ts.con_id).or_default().extend(data.tables.into_iter().map(|t| t.name));
            }
        }
        self.control = Some(control);
        self.state = State::Mounted;
        for session in self.sessions.values_mut() {
            session.con = u32::from(self.control.as_ref().is_some_and(|c| c.cdb));
        }
        Ok(())
    }

    /// ALTER DATABASE OPEN: recovery if the last end was not clean, then what is encrypted at the core.
    pub fn open(&mut self, sess: &Sess, read_write: bool) -> Result<()> {
        match self.state {
            State::Started => ora!(1507),
            State::Mounted => {}
            _ => ora!(1531),
        }
        for ts in &self.control()?.tablespaces {
            if ts.status != TsStatus::Offline && !host_path(&ts.file).exists() {
                return Err(Ora::with(1157, format!("cannot identify/lock data file {} - see DBWR trace file", ts.file_id))
                    .and(Ora::with(1110, format!("data file {}: '{}'", ts.file_id, ts.file))));
            }
        }
        self.recover(sess)?;
        let root = self.root();
        let container = self.container(root)?.clone();
        let mut core: Vec<Wrapped> = Vec::new();
        core.extend(self.files.load_dictionary(&container)?.header);
        let undo: Vec<Tablespace> = self
            .control()?
            .tablespaces
            .iter()
            .filter(|t| t.con_id == root && t.contents == "UNDO" && t.encrypted)
            .cloned()
            .collect();
        for ts in undo {
            core.extend(self.files.load_data(&ts)?.header);
        }
        for key in core {
            // R11, O§7.6: an encrypted SYSTEM or UNDO needs its key before the database opens.
            self.unwrap(sess, root, &key)?;
        }
        let read_write = read_write && !self.control()?.planted.role.contains("PHYSICAL STANDBY");
        self.state = if read_write { State::OpenReadWrite } else { State::OpenReadOnly };
        if self.control()?.cdb {
            self.pdbs.insert(2, PdbMode::ReadOnly);
        }
        if read_write {
            let control = self.control_mut()?;
            control.clean = false;
            self.save_control()?;
            self.write_redo(sess)?;
        }
        Ok(())
    }

    /// Crash recovery: all redo after the checkpoint, each change under the key it was written under (H2).
    fn recover(&mut self, sess: &Sess) -> Result<()> {
        let control = self.control()?.clone();
        if control.clean {
            return Ok(());
        }
        let root = self.root();
        for log in &control.logs {
            let needed = log.current || log.next_scn.is_some_and(|n| n > control.checkpoint_scn);
            if !needed {
                continue;
            }
            for entry in self.files.load_redo(log)?.entries {
                if entry.scn > control.checkpoint_scn {
                    self.unwrap(sess, root, &entry.key)?;
                }
            }
        }
        self.checkpoint()
    }

    /// Everything redo knows is in the data files from here on.
    pub fn checkpoint(&mut self) -> Result<()> {
        let control = self.control_mut()?;
        control.scn += 1;
        control.checkpoint_scn = control.scn;
        self.save_control()
    }

    /// Changes are made all the time: the current log gets redo of every container whose key is at hand.
    pub fn write_redo(&mut self, sess: &Sess) -> Result<()> {
        if self.state != State::OpenReadWrite {
            return Ok(());
        }
        let containers: Vec<Container> = self.control()?.containers.clone();
        for container in containers {
            let Some(key) = container.db_key.clone() else { continue };
            if self.is_open(sess, container.con_id, key.kind) {
                self.redo_entry(container.con_id, key)?;
            }
        }
        Ok(())
    }

    fn redo_entry(&mut self, con_id: u32, key: Wrapped) -> Result<()> {
        let control = self.control()?.clone();
        let Some(log) = control.logs.iter().find(|l| l.current) else { return Ok(()) };
        let mut redo = self.files.load_redo(log)?;
        let there = redo.entries.iter().any(|e| e.con_id == con_id && e.key.mkid == key.mkid && e.scn > control.checkpoint_scn);
        if there {
            return Ok(());
        }
        let control = self.control_mut()?;
        control.scn += 1;
        let scn = control.scn;
        redo.entries.push(RedoEntry { scn, con_id, key });
        self.files.save_redo(log, &redo)?;
        self.save_control()
    }

    /// The archiver cannot work: planted, by a fault, or the recovery area is full (H21).
    pub fn archiver_stuck(&self, sim: &Sim) -> bool {
        let Some(control) = &self.control else { return false };
        let size: u64 = self.memory.get("db_recovery_file_dest_size").map_or(0, |v| size_in_bytes(v));
        let uses_area = self.memory.get("db_recovery_file_dest").is_some_and(|v| !v.is_empty());
        control.archivelog
            && (control.planted.archiver_stuck
                || (uses_area && size > 0 && control.planted.recovery_area_used >= size)
                || sim.faults.iter().any(|f| f.act == Act::ArchiverStuck && f.sid.as_ref().is_none_or(|sid| *sid == self.sid)))
    }

    fn archive_pending(&mut self, sim: &Sim) -> Result<()> {
        if !self.control()?.archivelog || self.archiver_stuck(sim) {
            return Ok(());
        }
        let control = self.control()?.clone();
        for log in control.logs.iter().filter(|l| !l.current && !l.archived && l.sequence > 0) {
            let redo = self.files.load_redo(log)?;
            let name = format!("{}/1_{}_{}.arc", self.archive_dir(), log.sequence, control.dbid);
            crate::disk::save(&host_path(&name), &redo)?;
            let keys: BTreeSet<Mkid> = redo.entries.iter().map(|e| e.key.mkid.clone()).collect();
            let control = self.control_mut()?;
            control.archived.push(Archived {
                sequence: log.sequence,
                name,
                first_scn: log.first_scn,
                next_scn: log.next_scn.unwrap_or_default(),
                first_time: log.first_time,
                completed: now(),
                keys: keys.into_iter().collect(),
            });
            if let Some(found) = control.logs.iter_mut().find(|l| l.group == log.group) {
                found.archived = true;
            }
            self.save_control()?;
        }
        Ok(())
    }

    /// Archives what waits, and says whether nothing waits any more.
    pub fn all_archived(&mut self) -> Result<bool> {
        self.archive_pending(&crate::sim::load())?;
        let control = self.control()?;
        Ok(!control.archivelog || control.logs.iter().all(|l| l.current || l.archived))
    }

    #[must_use]
    pub fn archive_dir(&self) -> String {
        let dest = self.memory.get("log_archive_dest_1").map(String::as_str).unwrap_or_default();
        if let Some(at) = dest.to_uppercase().find("LOCATION=") {
            let rest = dest[at + 9..].split_whitespace().next().unwrap_or_default();
            if rest.starts_with('/') {
                return rest.trim_end_matches('/').to_owned();
            }
        }
        match self.memory.get("db_recovery_file_dest").filter(|v| !v.is_empty()) {
            Some(area) => format!("{area}/{}/archivelog", self.sid),
            None => format!("{}/dbs/arch", self.home),
        }
    }

    /// Switches to the next log; `false` if every other log still waits for the archiver.
    pub fn switch_log(&mut self, sess: &Sess) -> Result<bool> {
        let sim = crate::sim::load();
        self.archive_pending(&sim)?;
        let control = self.control_mut()?;
        let archivelog = control.archivelog;
        let next = control
            .logs
            .iter()
            .filter(|l| !l.current && (l.archived || !archivelog || l.sequence == 0))
            .min_by_key(|l| l.sequence)
            .map(|l| (l.group, l.next_scn.unwrap_or(0)));
        let Some((group, old_end)) = next else { return Ok(false) };
        // A log is used again only when recovery no longer needs it.
        control.checkpoint_scn = control.checkpoint_scn.max(old_end);
        control.scn += 1;
        let scn = control.scn;
        let sequence = control.logs.iter().map(|l| l.sequence).max().unwrap_or(0) + 1;
        let mut fresh = None;
        for log in &mut control.logs {
            if log.current {
                log.current = false;
                log.next_scn = Some(scn);
                log.archived = false;
            }
            if log.group == group {
                log.current = true;
                log.sequence = sequence;
                log.first_scn = scn;
                log.next_scn = None;
                log.archived = false;
                log.first_time = now();
                fresh = Some(log.clone());
            }
        }
        if let Some(log) = fresh {
            self.files.save_redo(&log, &Redo::default())?;
        }
        self.save_control()?;
        self.archive_pending(&sim)?;
        self.write_redo(sess)?;
        Ok(true)
    }

    /// The end of a clean shutdown: nothing will need recovery.
    pub fn close_cleanly(&mut self) -> Result<()> {
        if self.state == State::OpenReadWrite {
            self.checkpoint()?;
            let control = self.control_mut()?;
            control.clean = true;
            self.save_control()?;
        }
        Ok(())
    }

    pub fn save_control(&self) -> Result<()> {
        self.files.save_control(self.control()?)
    }

    pub fn control(&self) -> Result<&Control> {
        self.control.as_ref().ok_or_else(|| Ora::new(1507))
    }

    pub fn control_mut(&mut self) -> Result<&mut Control> {
        self.control.as_mut().ok_or_else(|| Ora::new(1507))
    }

    /// 1 in a CDB, 0 else.
    #[must_use]
    pub fn root(&self) -> u32 {
        u32::from(self.control.as_ref().is_some_and(|c| c.cdb))
    }

    pub fn container(&self, con: u32) -> Result<&Container> {
        self.control()?.containers.iter().find(|c| c.con_id == con).ok_or_else(|| Ora::new(65011))
    }

    pub fn container_mut(&mut self, con: u32) -> Result<&mut Container> {
        self.control_mut()?.containers.iter_mut().find(|c| c.con_id == con).ok_or_else(|| Ora::new(65011))
    }

    #[must_use]
    pub fn version(&self) -> String {
        self.control
            .as_ref()
            .map(|c| c.version.clone())
            .or_else(|| self.memory.get("compatible").cloned())
            .unwrap_or_else(|| "19.0.0.0.0".into())
    }

    /// Whether the container can be changed.
    #[must_use]
    pub fn read_write(&self, con: u32) -> bool {
        self.state == State::OpenReadWrite && (con < 2 || self.pdbs.get(&con) == Some(&PdbMode::ReadWrite))
    }

    /// The keystore configuration this session sees (R1).
    #[must_use]
    pub fn config(&self, sess: &Sess) -> Config {
        let mut values = self.memory.clone();
        if crate::sim::load().switches.tde_configuration_needs_restart {
            match self.at_start.get("tde_configuration") {
                Some(value) => values.insert("tde_configuration".into(), value.clone()),
                None => values.remove("tde_configuration"),
            };
        }
        Config::resolve(&values, sess.hello.sqlnet.as_deref(), &sess.hello.environment)
    }

    /// The open software keystore as this session sees it.
    #[must_use]
    pub fn file_open<'a>(&'a self, sess: &'a Sess) -> Option<&'a FileOpen> {
        self.file.as_ref().or(sess.file.as_ref())
    }

    #[must_use]
    pub fn is_open(&self, sess: &Sess, con: u32, kind: Kind) -> bool {
        match kind {
            Kind::File => self.file_open(sess).is_some_and(|f| f.containers.contains(&con)),
            Kind::Hsm => self.hsm.as_ref().is_some_and(|h| h.containers.contains(&con)),
        }
    }

    /// R10: what opens by itself does so at the first use, and the HSM's secret is tried at every use that
    /// finds it closed (H12).
    pub fn auto_open(&mut self, sess: &Sess) {
        if self.state == State::Started {
            return;
        }
        let config = self.config(sess);
        let Some(dir) = config.dir.clone() else { return };
        let everywhere: BTreeSet<u32> = self.control.iter().flat_map(|c| c.containers.iter().map(|c| c.con_id)).collect();
        if config.has(Kind::File)
            && self.file_open(sess).is_none()
            && let Ok((kind, body)) = wallet::open_sso(&dir)
        {
            let kind = match kind {
                SsoKind::Auto => WalletType::Autologin,
                SsoKind::Local => WalletType::LocalAutologin,
            };
            self.file = Some(FileOpen { dir: dir.clone(), kind, body, containers: everywhere.clone() });
        }
        let hsm_and_file = config.primary == Some(Kind::Hsm) && config.secondary == Some(Kind::File);
        if hsm_and_file && self.hsm.is_none() {
            let auto = self.file.as_ref().filter(|f| f.kind != WalletType::Password);
            let secret = match auto {
                Some(open) => open.body.secrets.get("HSM_PASSWORD").cloned(),
                None => wallet::open_sso(&dir).ok().and_then(|(_, body)| body.secrets.get("HSM_PASSWORD").cloned()),
            };
            if let Some(pin) = secret {
                let policy = crate::sim::load().switches.two_libraries();
                let opened = self.provider.load(policy).and_then(|lib| lib.login(&pin));
                if opened.is_ok() {
                    self.hsm = Some(HsmOpen { containers: everywhere, auto: true });
                }
            }
        }
    }

    /// A data key, from whichever open keystore has its master key (R12).
    pub fn unwrap(&mut self, sess: &Sess, con: u32, wrapped: &Wrapped) -> Result<Key> {
        if !self.is_open(sess, con, wrapped.kind) {
            self.auto_open(sess);
        }
        if !self.is_open(sess, con, wrapped.kind) {
            let config = self.config(sess);
            let other = wrapped.kind.other();
            if !config.has(wrapped.kind) && config.has(other) && self.is_open(sess, con, other) {
                ora!(28374);
            }
            ora!(28365);
        }
        let bytes = hex::decode(&wrapped.bytes).map_err(|_| Ora::new(28304))?;
        match wrapped.kind {
            Kind::File => {
                let open = self.file_open(sess).ok_or_else(|| Ora::new(28365))?;
                let key = open.body.keys.get(&wrapped.mkid).ok_or_else(|| Ora::new(28374))?;
                let master = key_bytes(&key.key)?;
                let plain = crypto::open(&master, wrapped.mkid.0.as_bytes(), &bytes).ok_or_else(|| Ora::new(28304))?;
                plain.try_into().map_err(|_| Ora::new(28304))
            }
            Kind::Hsm => {
                let policy = crate::sim::load().switches.two_libraries();
                self.provider.load(policy)?.unwrap(&wrapped.mkid, &bytes)
            }
        }
    }

    /// Wraps a data key under a master key of an open keystore; the caller has checked that it is open.
    pub fn wrap(&mut self, kind: Kind, mkid: &Mkid, body: Option<&Body>, key: &Key) -> Result<Wrapped> {
        let bytes = match kind {
            Kind::File => {
                let body = body.ok_or_else(|| Ora::new(28365))?;
                let master = body.keys.get(mkid).ok_or_else(|| Ora::new(28374))?;
                crypto::seal(&key_bytes(&master.key)?, mkid.0.as_bytes(), key)
            }
            Kind::Hsm => {
                let policy = crate::sim::load().switches.two_libraries();
                self.provider.load(policy)?.wrap(mkid, key)?
            }
        };
        Ok(Wrapped { mkid: mkid.clone(), kind, bytes: hex::encode(bytes) })
    }

    /// The data key behind a header, from the SGA if it is there: closing the keystore closes it, losing the
    /// HSM does not (H6).
    pub fn data_key(&mut self, sess: &Sess, con: u32, name: &str, header: &Wrapped) -> Result<Key> {
        let slot = (con, name.to_owned());
        if !self.is_open(sess, con, header.kind) {
            self.auto_open(sess);
        }
        if self.is_open(sess, con, header.kind)
            && let Some(key) = self.sga_keys.get(&slot)
        {
            return Ok(*key);
        }
        let key = self.unwrap(sess, con, header)?;
        self.sga_keys.insert(slot, key);
        Ok(key)
    }

    /// Every row of a table, decrypted: canonical JSON texts.
    pub fn read_table(&mut self, sess: &Sess, con: u32, table: &str) -> Result<Vec<String>> {
        let spaces: Vec<Tablespace> = self.control()?.tablespaces.iter().filter(|t| t.con_id == con).cloned().collect();
        for ts in spaces {
            let data = self.files.load_data(&ts)?;
            if data.tables.iter().any(|t| t.name == table) {
                return self.read_from(sess, &ts, &data, table);
            }
        }
        ora!(942)
    }

    fn read_from(&mut self, sess: &Sess, ts: &Tablespace, data: &DataFile, table: &str) -> Result<Vec<String>> {
        if ts.status == TsStatus::Offline || self.control()?.planted.datafiles_offline.contains(&ts.name) {
            return Err(Ora::with(376, format!("file {} cannot be read at this time", ts.file_id))
                .and(Ora::with(1110, format!("data file {}: '{}'", ts.file_id, ts.file))));
        }
        let key = match &data.header {
            Some(header) => Some(self.data_key(sess, ts.con_id, &ts.name, header)?),
            None => None,
        };
        let container = self.container(ts.con_id)?.clone();
        let dictionary = self.files.load_dictionary(&container)?;
        let column_key = match dictionary.enc.iter().find(|e| e.table == table) {
            Some(row) => {
                let slot = format!("ENC$ {table}");
                Some((row.columns.clone(), self.data_key(sess, ts.con_id, &slot, &row.key)?))
            }
            None => None,
        };
        let Some(found) = data.tables.iter().find(|t| t.name == table) else { ora!(942) };
        found.rows.iter().map(|row| open_row(row, table, key.as_ref(), column_key.as_ref())).collect()
    }
}

fn key_bytes(hex_text: &str) -> Result<Key> {
    hex::decode(hex_text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Ora::new(28304))
}

/// Bytes of `2G`, `512M`, `1024`.
#[must_use]
pub fn size_in_bytes(text: &str) -> u64 {
    let text = text.trim();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text[digits.len()..].trim().to_uppercase().as_str() {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or(0).saturating_mul(unit)
}

/// Seals a row as it lies in its data file: encrypted columns first, then the whole row.
#[must_use]
pub fn seal_row(row: &serde_json::Value, table: &str, key: Option<&Key>, columns: Option<&(Vec<String>, Key)>) -> String {
    let mut row = row.clone();
    if let (Some((names, column_key)), Some(fields)) = (columns, row.as_object_mut()) {
        for name in names {
            if let Some(value) = fields.get_mut(name) {
                let plain = value.to_string();
                *value = hex::encode(crypto::seal(column_key, name.as_bytes(), plain.as_bytes())).into();
            }
        }
    }
    let text = row.to_string();
    match key {
        Some(key) => hex::encode(crypto::seal(key, table.as_bytes(), text.as_bytes())),
        None => text,
    }
}

fn open_row(row: &str, table: &str, key: Option<&Key>, columns: Option<&(Vec<String>, Key)>) -> Result<String> {
    let corrupt = || Ora::new(28304);
    let text = match key {
        Some(key) => {
            let sealed = hex::decode(row).map_err(|_| corrupt())?;
            let plain = crypto::open(key, table.as_bytes(), &sealed).ok_or_else(corrupt)?;
            String::from_utf8(plain).map_err(|_| corrupt())?
        }
        None => row.to_owned(),
    };
    let Some((names, column_key)) = columns else { return Ok(text) };
    let mut row: serde_json::Value = serde_json::from_str(&text).map_err(|_| corrupt())?;
    if let Some(fields) = row.as_object_mut() {
        for name in names {
            if let Some(value) = fields.get_mut(name) {
                let sealed = value.as_str().and_then(|text| hex::decode(text).ok()).ok_or_else(corrupt)?;
                let plain = crypto::open(column_key, name.as_bytes(), &sealed).ok_or_else(corrupt)?;
                *value = serde_json::from_slice(&plain).map_err(|_| corrupt())?;
            }
        }
    }
    Ok(row.to_string())
}
