//! What the host is, facts only; whether they are good is the control plane's to say.
//!
//! Nothing is changed, no password is used, no keystore is opened. Each database costs one session, and
//! V$ENCRYPTION_WALLET is read once in it, for reading it can log in to an HSM (H12). A fact that cannot be read is
//! named among the unreadable ones; it never becomes a default that a rule could take for a "no".

use crate::clock::Clock;
use crate::identity::Identity;
use crate::oracle::parameter_file::ParameterFiles;
use crate::oracle::views::{self, Status};
use crate::oracle::{Db, Place, Session, SessionError, places, state};
use crate::packages::Packages;
use crate::paths::Paths;
use crate::procs;
use crate::provider::Provider as Tree;
use crate::sqlnet::{Method, SqlnetFile};
use crate::storage::Storage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::survey::{
    AutoLogin, Blockers, ColumnKey, Container, Database, EncryptedTablespace, Facts, FileKind, Flashback, InstanceState, Kept,
    KeystoreConfig, KeystoreFile, KnownKey, Os, Owner, Pmon, Provider, Survey, Unreadable, what,
};
use tde2hsm_protocol::{ContainerName, Digest, PROTOCOL_VERSION, Sid, Timestamp};

/// Never fails: what cannot be read stands in `unreadable`.
pub fn take(paths: &Paths, identity: &Identity, clock: &dyn Clock) -> Survey {
    let mut unreadable = Unread::default();
    let places = unreadable.of(what::DATABASES, places::places(paths)).unwrap_or_default();
    let storage = Storage::read(paths);
    let mut wanted: Vec<PathBuf> =
        ["/var/lib/tde2hsm", "/opt/oracle/extapi", "/opt/cloudhsm", "/opt/tde2hsm"].iter().map(PathBuf::from).collect();
    let databases: Vec<Database> =
        places.iter().map(|place| database(paths, place, &places, clock, &storage, &mut unreadable)).collect();
    for database in &databases {
        wanted.push(PathBuf::from(&database.home));
        wanted.extend(database.keystore_dir.iter().map(PathBuf::from));
    }
    wanted.sort();
    wanted.dedup();
    let files = storage.places(host_files(paths));
    Survey {
        v: PROTOCOL_VERSION,
        taken_at: clock.now(),
        instance: identity.instance.clone(),
        account: identity.account.clone(),
        region: identity.region.clone(),
        runner_version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os(paths, &mut unreadable),
        clusterware: paths.at("/etc/oracle/olr.loc").exists(),
        autostarts: autostarts(paths),
        provider: provider(paths, &mut unreadable),
        filesystems: wanted.iter().filter_map(|path| storage.filesystem(path)).collect(),
        mounts: storage.mounted(databases.iter().flat_map(|database| database.files.iter().flatten()).chain(&files)),
        files: Some(files),
        databases,
        unreadable: unreadable.0,
    }
}

#[derive(Default)]
struct Unread(Vec<Unreadable>);

impl Unread {
    fn of<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let why: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
                self.0.push(Unreadable { what: what.to_owned(), why });
                None
            }
        }
    }
}

fn os(paths: &Paths, unreadable: &mut Unread) -> Os {
    let release = unreadable.of("/etc/os-release", std::fs::read_to_string(paths.at("/etc/os-release"))).unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    let kernel = std::fs::read_to_string(paths.proc().join("sys/kernel/osrelease")).unwrap_or_default();
    Os {
        id: field("ID"),
        version: field("VERSION_ID"),
        arch: std::env::consts::ARCH.to_owned(),
        kernel: kernel.trim().to_owned(),
        systemd: paths.at("/run/systemd/system").exists(),
    }
}

/// What would start a database while it is to be down (H20): a unit that restarts its program, or cron. A unit that
/// acts at boot alone does not.
fn autostarts(paths: &Paths) -> Vec<String> {
    let starts = |text: &str| ["dbstart", "startup", "srvctl start"].iter().any(|word| text.to_ascii_lowercase().contains(word));
    let mut found = Vec::new();
    for (dir, units) in [
        ("/etc/systemd/system", true),
        ("/usr/lib/systemd/system", true),
        ("/etc/cron.d", false),
        ("/var/spool/cron", false),
        ("/var/spool/cron/crontabs", false),
    ] {
        for entry in std::fs::read_dir(paths.at(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !plain || entry.metadata().is_ok_and(|meta| meta.len() > 1 << 20) || (units && !name.ends_with(".service")) {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let live: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
            let again = live.iter().any(|line| line.strip_prefix("Restart=").is_some_and(|how| !matches!(how.trim(), "no" | "")));
            if live.iter().any(|line| starts(line)) && (!units || again) {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    found.sort();
    found
}

fn provider(paths: &Paths, unreadable: &mut Unread) -> Provider {
    let tree = Tree::new(paths);
    Provider {
        libraries: unreadable.of(what::LIBRARIES, tree.libraries()).unwrap_or_default(),
        mapped: unreadable.of(what::MAPPED, tree.mapped()).unwrap_or_default(),
        packages: unreadable.of("installed packages", Packages::new(paths).cloudhsm()).unwrap_or_default(),
        cloudhsm_mapped: unreadable.of("processes that map /opt/cloudhsm", tree.cloudhsm_mapped()).unwrap_or_default(),
        vendor: unreadable.of("the provider in place", tree.vendor()).flatten(),
        cloudhsm_servers: unreadable.of(what::CLIENT, Packages::new(paths).servers()).flatten(),
    }
}

fn database(
    paths: &Paths,
    place: &Place,
    all: &[Place],
    clock: &dyn Clock,
    storage: &Storage<'_>,
    unreadable: &mut Unread,
) -> Database {
    let sid = &place.sid;
    let db = unreadable.of(&format!("{sid}: owner of its home"), Db::new(paths, place.clone()));
    let mut session = db.as_ref().and_then(|db| {
        let result = if place.pmon.is_some() { unreadable.of(&format!("{sid}: session"), db.connect()) } else { None };
        result.filter(|session| !session.idle())
    });
    let instance = session.as_mut().and_then(|s| unreadable.of(&format!("{sid}: V$INSTANCE"), views::instance(s)));
    let mut named = Vec::new();
    let facts = match (&mut session, &instance) {
        (Some(s), Some(instance)) if instance.status != Status::Started => {
            if let Some(found) = unreadable.of(&format!("{sid}: {}", what::FILES), views::files(s)) {
                named = found;
            }
            let found = facts(s, instance, clock, sid, unreadable);
            unreadable.of(&format!("{sid}: facts"), found)
        }
        _ => None,
    };
    let state = match (&place.pmon, &instance, &facts) {
        (None, ..) => InstanceState::Down,
        (Some(_), None, _) => InstanceState::Unreadable,
        (Some(_), Some(instance), facts) => match instance.status {
            Status::Started => InstanceState::Started,
            Status::Mounted => InstanceState::Mounted,
            Status::Open => match facts.as_ref().map(|facts| facts.open_mode.as_str()) {
                Some("READ WRITE") => InstanceState::OpenReadWrite,
                Some(_) => InstanceState::OpenReadOnly,
                None => InstanceState::Unreadable,
            },
        },
    };
    let keystore = db.as_ref().map_or_else(
        || KeystoreConfig::Unreadable { why: "the owner of its home is not known".to_owned() },
        |db| keystore(db, session.as_mut(), all),
    );
    if let Some(session) = session {
        session.close();
    }
    let unique = facts.as_ref().map(|facts| facts.unique_name.as_str());
    let keystore_dir = keystore_dir(&keystore, place, unique, all);
    let mut keystore_files = Vec::new();
    let mut kind = None;
    if let (Some(db), Some(dir)) = (&db, &keystore_dir)
        && let Some(found) = unreadable.of(&format!("{sid}: keystore directory"), files(db, dir, storage))
    {
        keystore_files = found;
        kind =
            unreadable.of(&format!("{sid}: auto-login keystore"), auto_login(db, dir, &keystore_files, facts.as_ref())).flatten();
    }
    let present = keystore_files.iter().any(|file| file.name == SSO);
    let facts = facts.map(|facts| Facts { opens_by_itself: present && reaches_file(&keystore), ..facts });
    let started_from = match &db {
        Some(db) => unreadable.of(&format!("{sid}: {}", what::PARAMETER_FILE), ParameterFiles::of(db)).flatten(),
        None => None,
    };
    let reached = keystore_dir.as_deref().filter(|_| reaches_file(&keystore));
    named.extend(database_files(paths, place, facts.as_ref(), started_from.as_ref(), reached));
    Database {
        sid: sid.clone(),
        home: place.oratab_home.clone().unwrap_or_else(|| place.home.clone()),
        owner: db.as_ref().map_or_else(
            || Owner { user: String::new(), uid: 0, gid: 0 },
            |db| Owner { user: db.owner.user.clone(), uid: db.owner.uid, gid: db.owner.gid },
        ),
        tns_admin: place.tns_admin(),
        in_oratab: place.oratab_home.is_some(),
        state,
        pmon: place.pmon.as_ref().map(pmon),
        facts,
        keystore,
        keystore_dir,
        keystore_files,
        auto_login: kind,
        files: Some(storage.places(named)),
    }
}

fn pmon(pmon: &procs::Pmon) -> Pmon {
    Pmon {
        pid: pmon.pid,
        oracle_home: pmon.env("ORACLE_HOME").map(str::to_owned),
        tns_admin: pmon.env("TNS_ADMIN").map(str::to_owned),
        started_at: pmon.started_at,
        cgroup: pmon.cgroup.clone(),
        memlock: pmon.limit("Max locked memory").and_then(|limit| limit.soft),
        binary_replaced: pmon.exe.ends_with(" (deleted)"),
    }
}

/// How the database is told where its keystore is (`O§2.4`).
pub(crate) fn keystore(db: &Db, session: Option<&mut Session>, all: &[Place]) -> KeystoreConfig {
    let parameters = match session {
        Some(s) => match views::parameters(s, &["wallet_root", "tde_configuration"]) {
            Ok(parameters) => parameters,
            Err(error) => return KeystoreConfig::Unreadable { why: error.to_string() },
        },
        None => match parameters_of_file(db) {
            Ok(parameters) => parameters,
            Err(why) => return KeystoreConfig::Unreadable { why },
        },
    };
    if let Some(root) = parameters.get("wallet_root") {
        return KeystoreConfig::WalletRoot {
            wallet_root: root.clone(),
            tde_configuration: parameters.get("tde_configuration").cloned(),
        };
    }
    let file = db.place.sqlnet_ora();
    let bytes =
        match db.owner.files().map_err(|e| e.to_string()).and_then(|mut f| f.read(Path::new(&file)).map_err(|e| e.to_string())) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return KeystoreConfig::None,
            Err(why) => return KeystoreConfig::Unreadable { why },
        };
    match SqlnetFile::parse(&bytes).and_then(|parsed| parsed.wallet_location()) {
        Ok(Some(location)) => KeystoreConfig::Sqlnet {
            method: match location.method {
                Method::File => "FILE".to_owned(),
                Method::Hsm => "HSM".to_owned(),
                Method::Other(other) => other,
            },
            directory: location.directory,
            shared_by: all.iter().filter(|place| place.sqlnet_ora() == file).map(|place| place.sid.clone()).collect(),
            file,
        },
        Ok(None) => KeystoreConfig::None,
        Err(error) => KeystoreConfig::Unreadable { why: format!("`{file}`: {error}") },
    }
}

/// DB_UNIQUE_NAME of a database that is down, which a keystore's directory may be named after.
pub(crate) fn unique_name(db: &Db) -> Option<String> {
    let found = ParameterFiles::of(db).ok()??;
    found.value("db_unique_name").or_else(|| found.value("db_name")).map(str::to_owned)
}

/// Of a database that is down: what it would start with.
fn parameters_of_file(db: &Db) -> Result<BTreeMap<String, String>, String> {
    let Some(found) = ParameterFiles::of(db).map_err(|error| error.to_string())? else { return Ok(BTreeMap::new()) };
    let of = |name: &str| Some((name.to_owned(), found.value(name)?.to_owned()));
    Ok(["wallet_root", "tde_configuration"].into_iter().filter_map(of).collect())
}

fn reaches_file(keystore: &KeystoreConfig) -> bool {
    match keystore {
        KeystoreConfig::Sqlnet { directory, .. } => directory.is_some(),
        KeystoreConfig::WalletRoot { tde_configuration, .. } => {
            tde_configuration.as_ref().is_none_or(|value| value.to_ascii_uppercase().contains("FILE"))
        }
        KeystoreConfig::None | KeystoreConfig::Unreadable { .. } => false,
    }
}

pub(crate) fn keystore_dir(keystore: &KeystoreConfig, place: &Place, unique: Option<&str>, all: &[Place]) -> Option<String> {
    match keystore {
        KeystoreConfig::WalletRoot { wallet_root, .. } if wallet_root.starts_with('/') => {
            Some(format!("{}/tde", wallet_root.trim_end_matches('/')))
        }
        KeystoreConfig::Sqlnet { directory: Some(directory), .. } => {
            crate::steps::expand(directory, place, unique).map(|dir| dir.display().to_string())
        }
        // Where the interim keystore will be made: Oracle's default, or one for each SID.
        KeystoreConfig::Sqlnet { file, directory: None, .. } => {
            let alone = all.iter().filter(|other| other.sqlnet_ora() == *file).count() == 1;
            let name = if alone { unique? } else { place.sid.as_str() };
            Some(format!("{}/admin/{name}/wallet", place.base()?))
        }
        _ => None,
    }
}

const SSO: &str = "cwallet.sso";

/// What auto-login there is (H40). Only an instance that has opened it knows; the file itself says of a LOCAL one that it is.
fn auto_login(db: &Db, dir: &str, files: &[KeystoreFile], facts: Option<&Facts>) -> Result<Option<AutoLogin>, String> {
    /// What a LOCAL auto-login file begins with; of the others it is not certain what each version writes.
    const LOCAL: [u8; 4] = [0xa1, 0xf8, 0x4e, 0x38];
    if !files.iter().any(|file| file.name == SSO) {
        return Ok(Some(AutoLogin::Absent));
    }
    let mut owned = db.owner.files().map_err(|error| error.to_string())?;
    let bytes = owned.read(&Path::new(dir).join(SSO)).map_err(|error| error.to_string())?;
    if bytes.is_some_and(|bytes| zeroize::Zeroizing::new(bytes).starts_with(&LOCAL)) {
        return Ok(Some(AutoLogin::Local));
    }
    let opened = facts.and_then(|facts| {
        facts.wallet.iter().filter(|row| row.con_id <= 1).find_map(|row| match row.wallet_type.as_str() {
            "LOCAL_AUTOLOGIN" => Some(AutoLogin::Local),
            "AUTOLOGIN" => Some(AutoLogin::Anywhere),
            _ => None,
        })
    });
    Ok(opened)
}

/// Files of the host that a recovery point needs (H40).
fn host_files(paths: &Paths) -> Vec<(FileKind, String)> {
    let mut files: Vec<(FileKind, String)> = [
        (FileKind::Provider, crate::paths::EXTAPI),
        (FileKind::CloudHsmClient, crate::paths::CLOUDHSM),
        (FileKind::Oratab, "/etc/oratab"),
    ]
    .into_iter()
    .filter(|(_, path)| paths.at(path).exists())
    .map(|(what, path)| (what, path.to_owned()))
    .collect();
    // A CA or a client's key that lies elsewhere.
    let elsewhere = Packages::new(paths).files_named().unwrap_or_default();
    files.extend(elsewhere.into_iter().map(|path| (FileKind::CloudHsmClient, path)));
    files
}

/// Those that are known without asking the database, or beside what it names.
fn database_files(
    paths: &Paths,
    place: &Place,
    facts: Option<&Facts>,
    started_from: Option<&ParameterFiles>,
    keystore: Option<&str>,
) -> Vec<(FileKind, String)> {
    let home = place.home.trim_end_matches('/');
    let sid = &place.sid;
    let mut files = vec![(FileKind::OracleHome, home.to_owned()), (FileKind::NetworkConfig, place.tns_admin())];
    let there = |names: &[String]| names.iter().find(|name| std::fs::symlink_metadata(paths.at(name)).is_ok()).cloned();
    // What it runs with, and what it would start with next time.
    let mut parameters: Vec<String> = facts.and_then(|facts| facts.spfile.clone()).into_iter().collect();
    parameters.extend(started_from.into_iter().flat_map(|found| found.paths.iter().cloned()));
    parameters.sort();
    parameters.dedup();
    files.extend(parameters.into_iter().map(|path| (FileKind::ParameterFile, path)));
    files.extend(
        there(&[format!("{home}/dbs/orapw{sid}"), format!("{home}/dbs/orapw")]).map(|path| (FileKind::PasswordFile, path)),
    );
    files.extend(keystore.map(|dir| (FileKind::KeystoreDir, dir.to_owned())));
    files
}

fn files(db: &Db, dir: &str, storage: &Storage<'_>) -> Result<Vec<KeystoreFile>, String> {
    let mut files = db.owner.files().map_err(|error| error.to_string())?;
    let found = files.list(Path::new(dir)).map_err(|error| error.to_string())?.unwrap_or_default();
    Ok(found
        .into_iter()
        .filter_map(|info| {
            let name = info.path.file_name()?.to_string_lossy().into_owned();
            let sha256: Digest = info.sha256?;
            (name.ends_with(".p12") || name.ends_with(".sso")).then(|| KeystoreFile {
                name,
                size: info.size,
                sha256,
                uid: info.uid,
                mode: info.mode & 0o7777,
                filesystem: storage.kind(&info.path),
            })
        })
        .collect())
}

fn facts(
    s: &mut Session,
    instance: &views::Instance,
    clock: &dyn Clock,
    sid: &Sid,
    unreadable: &mut Unread,
) -> Result<Facts, SessionError> {
    let database = views::database(s)?;
    let open = instance.status == Status::Open;
    // A version that is not known has no wallet query; the rules refuse it by its number.
    let wallet = match instance.version {
        Some(version) => unreadable.of(&format!("{sid}: V$ENCRYPTION_WALLET"), views::wallet(s, version)).unwrap_or_default(),
        None => Vec::new(),
    };
    let mut containers = Vec::new();
    let mut tablespaces = Vec::new();
    let mut column_keys = Vec::new();
    let mut keys = None;
    if let Some(state) = unreadable.of(&format!("{sid}: keys"), state::observe(s)) {
        // The view shows keys of open keystores alone: where none is open, it shows nothing rather than that there is none.
        if wallet.iter().any(|row| row.status.starts_with("OPEN")) {
            keys = Some(known_keys(&state));
        }
        for keys in state.containers {
            let con_id = keys.container.con_id;
            match keys.columns {
                Some(columns) => column_keys.extend(columns.into_iter().map(|(key, tables)| ColumnKey { con_id, key, tables })),
                None if keys.key.is_some() => unreadable.0.push(Unreadable {
                    what: format!("{sid}: column keys of {}", keys.container.name),
                    why: format!("it is {}", keys.container.open_mode),
                }),
                None => {}
            }
            containers.push(Container {
                con_id,
                name: keys.container.name,
                open_mode: keys.container.open_mode,
                restricted: keys.container.restricted,
                key: keys.key,
            });
        }
        let named = |space: views::Tablespace| EncryptedTablespace {
            con_id: space.con_id,
            name: space.name,
            key: space.key,
            access: space.access,
            status: space.status,
        };
        tablespaces = state.tablespaces.into_iter().map(named).collect();
    }
    if containers.is_empty() {
        let name = if database.cdb { ContainerName::ROOT } else { &database.name };
        if let Ok(name) = ContainerName::new(name) {
            containers.push(Container {
                con_id: u32::from(database.cdb),
                name,
                open_mode: database.open_mode.clone(),
                restricted: instance.restricted,
                key: None,
            });
        }
    }
    let mut ask = |what: &str, result: Result<bool, SessionError>| unreadable.of(&format!("{sid}: {what}"), result);
    let data_guard = ask("Data Guard", views::data_guard(s)).unwrap_or_default();
    let capture = if open { ask("capture processes", views::capture(s)).unwrap_or_default() } else { false };
    let blockers = if open {
        unreadable.of(&format!("{sid}: blockers"), views::blockers(s, instance)).unwrap_or_default()
    } else {
        Blockers { archiver_stuck: instance.archiver_stuck, ..Blockers::default() }
    };
    let age = unreadable.of(&format!("{sid}: backups"), views::full_backup_age(s)).flatten();
    let (processes, processes_limit) = unreadable.of(&format!("{sid}: processes"), views::processes(s)).unwrap_or_default();
    let spfile = views::parameters(s, &["spfile"])?.remove("spfile");
    let pending = unreadable.of(&format!("{sid}: pending parameters"), views::pending(s)).unwrap_or_default();
    let redo = unreadable.of(&format!("{sid}: redo logs"), views::redo(s)).unwrap_or_default();
    let now = clock.now();
    let kept = Kept {
        record_keep_days: unreadable.of(&format!("{sid}: record keep time"), views::record_keep_days(s)).flatten(),
        backups: unreadable.of(&format!("{sid}: backup pieces"), views::backup_pieces(s, now)),
        archived_logs: unreadable.of(&format!("{sid}: archived logs"), views::archived_logs(s, now)),
        flashback: match database.flashback {
            false => Some(Flashback::Off),
            true => {
                unreadable.of(&format!("{sid}: flashback logs"), views::flashback_since(s, now)).flatten().map(Flashback::Since)
            }
        },
    };
    Ok(Facts {
        dbid: database.dbid,
        name: database.name,
        unique_name: database.unique_name,
        version: instance.version_text.clone(),
        role: database.role,
        open_mode: database.open_mode,
        cdb: database.cdb,
        log_mode: database.log_mode,
        restricted: instance.restricted,
        rac: instance.rac,
        data_guard,
        capture,
        flashback: database.flashback,
        spfile,
        pending,
        wallet,
        containers,
        tablespaces,
        column_keys,
        redo: redo.into_iter().map(|(log, _)| log).collect(),
        restore_points: unreadable.of(&format!("{sid}: restore points"), views::restore_points(s, Some(now))).unwrap_or_default(),
        blockers,
        last_full_backup: age.map(|age| Timestamp(clock.now().0 - age)),
        processes,
        processes_limit,
        opens_by_itself: false,
        keys,
        kept: Some(kept),
    })
}

/// The rows of V$ENCRYPTION_KEYS that are this database's. An HSM user may be shared, and the view then lists keys of other
/// databases, too; a key of a database that was plugged in has another maker and is named by something here.
fn known_keys(state: &state::KeyState) -> Vec<KnownKey> {
    let ours: Vec<u64> = state.containers.iter().map(|keys| keys.container.dbid).chain([state.database.dbid]).collect();
    let named = |id| {
        state.tablespaces.iter().any(|space| space.key == id)
            || state.containers.iter().any(|keys| {
                keys.key.as_ref().is_some_and(|key| key.id == id) || keys.columns.iter().flatten().any(|(key, _)| *key == id)
            })
    };
    let mut known: Vec<KnownKey> = state
        .keys
        .iter()
        .filter(|row| row.creator_dbid.is_none_or(|dbid| ours.contains(&dbid)) || named(row.id))
        .map(|row| KnownKey {
            key: row.id,
            store: row.store,
            container: row.container.clone(),
            created: row.created,
            activated: row.activated,
        })
        .collect();
    known.sort();
    known.dedup();
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h20_a_unit_that_starts_again_is_an_autostart_and_one_at_boot_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let write = |name: &str, text: &str| {
            let path = paths.at(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("/etc/systemd/system/dbora.service", "[Service]\nType=oneshot\nExecStart=/u01/bin/dbstart\n");
        write("/etc/systemd/system/monitor.service", "[Service]\nExecStart=/opt/dbstart.sh\nRestart=always\n");
        write("/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/true\nRestart=always\n");
        write("/var/spool/cron/oracle", "# */5 * * * * dbstart\n*/5 * * * * /home/oracle/dbstart.sh\n");
        write("/etc/cron.d/sysstat", "*/10 * * * * root sa1\n");
        assert_eq!(autostarts(&paths), ["/etc/systemd/system/monitor.service", "/var/spool/cron/oracle"]);
    }
}
