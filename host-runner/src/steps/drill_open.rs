//! `drill-open`: a copy of a database, opened from the restored cluster and read (H44).
//!
//! It begins from nothing each time: an instance that runs is ended, every keystore file is out of the way, the configuration
//! names the HSM alone. So what is read then was opened by keys of the restored cluster, and a second drill with that cluster
//! away reads nothing. The keystore is opened by one statement with one login, in MOUNT; whether a refusal is the password or the
//! key Oracle does not say (ORA-28353), so the library is asked afterwards, with a login of its own that nobody else shares.
//!
//! What the HSM alone does not open may need the interim keystore, which belongs to the point (H4, H40). That is a second
//! phase with a start of its own, counted apart.

use super::common::{
    Credentials, Pin, Wallet, all_places, cloudhsm_pin, connect, db as find, failed, observe, open_everywhere, orders,
    report_keys, subject, unique,
};
use super::neutralise::{self, beside};
use super::prepare_keystore::P12;
use crate::files::Kept;
use crate::journal::Subject;
use crate::oracle::errors::Class;
use crate::oracle::parameter_file::{self, Entry, ParameterError, ParameterFiles, Piece};
use crate::oracle::state::{self, KeyState};
use crate::oracle::views::{self, Status};
use crate::oracle::{Db, Place, Session, SessionError, ddl};
use crate::sqlnet::{Method, SqlnetFile, WalletLocation};
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use crate::survey;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::survey::{Access, KeystoreConfig};
use tde2hsm_protocol::{Code, DatabaseOrder, Digest, DrillRead, LoginResult, Store, Unread};

pub struct DrillOpen;

/// Tables of one tablespace, and rows of one table, that are read at most: volumes of a snapshot come block by block from
/// far away, and a drill shows that data opens, not how much there is.
const TABLES: usize = 20;
const ROWS: u32 = 10_000;

impl StepBody for DrillOpen {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut first = None;
        for order in orders(ctx) {
            // One that does not open keeps no other from being tried.
            if let Err(error) = drill(ctx, &order) {
                ctx.results.database(&order.sid).outcome = Some(error.outcome());
                ctx.observed(subject(&order.sid), "not drilled to the end", json!({ "code": error.code, "why": error.message }))?;
                first.get_or_insert(error);
            } else {
                ctx.results.database(&order.sid).outcome = Some(tde2hsm_protocol::Outcome::Done);
            }
        }
        match first {
            Some(error) => Err(error),
            None if ctx.databases().is_empty() => Ok(StepEnd::Nothing),
            None => Ok(StepEnd::Done),
        }
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Err(neutralise::no_undo())
    }
}

/// Where the copy's keystore is, found out while it is down.
struct Copy {
    place: Place,
    dir: PathBuf,
    style: Style,
}

enum Style {
    WalletRoot {
        root: String,
    },
    /// `sqlnet.ora`, and DIRECTORY as it stood there.
    Sqlnet {
        file: PathBuf,
        said: String,
    },
}

/// Which keystores the copy may reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Hsm,
    HsmFile,
}

fn drill(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<(), StepError> {
    let sid = &order.sid;
    let pin = cloudhsm_pin(ctx, order)?;
    let named = |places: &[Place]| {
        places.iter().find(|place| place.sid == *sid).cloned().ok_or_else(|| {
            StepError::new(Kind::Final, Code::DATABASE_UNKNOWN, format!("the copy has no database `{sid}`")).of(sid)
        })
    };
    let running = named(&all_places(ctx)?)?;
    neutralise::down(ctx, &running)?;
    let places = neutralise::at_rest(ctx)?;
    let place = named(&places)?;
    neutralise::auto_login_aside(ctx, &place, &places)?;
    let copy = copy(ctx, &place, &places)?;
    let p12 = p12_aside(ctx, &copy)?;
    let mut read = DrillRead::default();
    let left = from_hsm(ctx, order, &copy, &pin, &mut read);
    ctx.results.database(sid).drill = Some(read.clone());
    let mut left = left?;
    let second = match p12.filter(|_| left.iter().any(Todo::needs_key)) {
        Some(p12) => with_p12(ctx, order, &copy, &pin, &p12, &mut left, &mut read),
        None => Ok(()),
    };
    read.unread.extend(left.iter().map(|todo| Unread { what: todo.name(), code: todo.code }));
    ctx.observed(subject(sid), "drilled", json!(read))?;
    ctx.results.database(sid).drill = Some(read);
    second?;
    // What is offline at the source is offline after a restore, too; that its key is there is all that can be seen of it.
    match left.iter().find(|todo| !todo.offline_with_key) {
        None => Ok(()),
        Some(todo) => {
            let code = if todo.code == Code::OLD_KEY_MISSING { Code::DRILL_KEY_ABSENT } else { Code::DRILL_UNREAD };
            let count = left.iter().filter(|todo| !todo.offline_with_key).count();
            let message = format!("{sid}: {} is not read ({}); {count} in all", todo.name(), todo.code);
            Err(StepError::new(Kind::Final, code, message).of(sid))
        }
    }
}

fn copy(ctx: &Context<'_>, place: &Place, places: &[Place]) -> Result<Copy, StepError> {
    let sid = &place.sid;
    let db = Db::new(ctx.paths, place.clone()).map_err(|error| StepError::from(error).of(sid))?;
    let unknown = |why: &str| StepError::new(Kind::Final, Code::KEYSTORE_MISSING, format!("{sid}: {why}")).of(sid);
    let group = Subject::HomeGroup(db.place.sqlnet_ora());
    let keystore = survey::keystore(&db, None, places);
    let unique = survey::unique_name(&db);
    let (style, dir) = match &keystore {
        KeystoreConfig::WalletRoot { wallet_root, .. } => {
            let dir = survey::keystore_dir(&keystore, &db.place, unique.as_deref(), places);
            (Style::WalletRoot { root: wallet_root.clone() }, dir)
        }
        KeystoreConfig::Sqlnet { file, directory, .. } => {
            // A drill before this one has taken DIRECTORY away.
            let former = ctx.recall(&group, "directory").and_then(|value| value.as_str().map(str::to_owned));
            let said = former.or_else(|| directory.clone());
            let dir = match &said {
                Some(said) => super::expand(said, &db.place, unique.as_deref()).map(|dir| dir.display().to_string()),
                None => survey::keystore_dir(&keystore, &db.place, unique.as_deref(), places),
            };
            let said = said.or_else(|| dir.clone()).ok_or_else(|| unknown("where its keystore lies is not known"))?;
            (Style::Sqlnet { file: PathBuf::from(file), said }, dir)
        }
        KeystoreConfig::None => return Err(unknown("no keystore is configured in the copy")),
        KeystoreConfig::Unreadable { why } => return Err(unknown(why)),
    };
    let dir = dir.map(PathBuf::from).ok_or_else(|| unknown("where its keystore lies is not known"))?;
    Ok(Copy { place: place.clone(), dir, style })
}

/// `ewallet.p12` beside its directory, and where it lies now. `None`: the copy has none.
fn p12_aside(ctx: &mut Context<'_>, copy: &Copy) -> Result<Option<Kept>, StepError> {
    let sid = copy.place.sid.clone();
    let db = find(ctx, &sid)?;
    let path = copy.dir.join(P12);
    let mut files = db.owner.files()?;
    if files.stat(&path)?.is_some() {
        let to = beside(ctx, &copy.dir);
        ctx.intend(subject(&sid), "move p12 aside", json!({ "file": path, "to": to }))?;
        let kept = files.move_into(&path, &to)?;
        ctx.remember(subject(&sid), "p12", json!(kept))?;
    }
    let kept: Option<Kept> = ctx.recall(&subject(&sid), "p12").and_then(|value| serde_json::from_value(value).ok());
    let Some(kept) = kept else { return Ok(None) };
    Ok(files.stat(&kept.to)?.is_some().then_some(kept))
}

/// Something encrypted that is to be read.
#[derive(Debug, Clone)]
struct Todo {
    con_id: u32,
    container: String,
    what: What,
    /// Why it was not read.
    code: Code,
    offline_with_key: bool,
}

#[derive(Debug, Clone)]
enum What {
    Tablespace(String),
    /// Quoted table and column.
    Column {
        table: String,
        column: String,
    },
    /// A container that did not open.
    Container,
}

impl Todo {
    fn name(&self) -> String {
        let text = match &self.what {
            What::Tablespace(name) => format!("{}.{name}", self.container),
            What::Column { table, column } => format!("{}.{table}.{column}", self.container).replace('"', ""),
            What::Container => self.container.clone(),
        };
        tde2hsm_protocol::wire::printable(&text, 120)
    }
    fn needs_key(&self) -> bool {
        [Code::OLD_KEY_MISSING, Code::KEYSTORE_CLOSED].contains(&self.code)
    }
}

/// Phase one. Gives what was not read.
fn from_hsm(
    ctx: &mut Context<'_>,
    order: &DatabaseOrder,
    copy: &Copy,
    pin: &Pin,
    read: &mut DrillRead,
) -> Result<Vec<Todo>, StepError> {
    let credentials = Credentials { software: pin.value.clone(), hsm: Some(pin.clone()) };
    let (db, mut s) = mount(ctx, copy, Reach::Hsm)?;
    open_hsm(ctx, &db, &mut s, &credentials, pin)?;
    ctx.results.login(order.cloudhsm, LoginResult::Proven);
    let closed = open(ctx, &db, &mut s, &credentials, &[Store::Hsm])?;
    let state = observe(&db, &mut s)?;
    report_keys(ctx, &order.sid, &state);
    let mut all = everything(&db, &mut s, &state)?;
    all.extend(closed);
    let mut counted = BTreeSet::new();
    let mut left = Vec::new();
    for todo in all {
        match try_read(&db, &mut s, &state, &todo, &mut counted)? {
            Ok(rows) => {
                read.rows += u64::from(rows);
                match todo.what {
                    What::Column { .. } => read.columns = read.columns.saturating_add(1),
                    _ => read.tablespaces = read.tablespaces.saturating_add(1),
                }
            }
            Err(code) => left.push(Todo { code, ..todo }),
        }
    }
    s.close();
    Ok(left)
}

/// Phase two: the keystore's file back in its place, the HSM first and the file after it, as production has it (H4).
fn with_p12(
    ctx: &mut Context<'_>,
    order: &DatabaseOrder,
    copy: &Copy,
    pin: &Pin,
    p12: &Kept,
    left: &mut Vec<Todo>,
    read: &mut DrillRead,
) -> Result<(), StepError> {
    let sid = order.sid.clone();
    let software = ctx.secrets.get(order.software)?;
    neutralise::down(ctx, &copy.place)?;
    ctx.intend(subject(&sid), "p12 back", json!(p12))?;
    find(ctx, &sid)?.owner.files()?.move_back(p12)?;
    let credentials = Credentials { software, hsm: Some(pin.clone()) };
    let (db, mut s) = mount(ctx, copy, Reach::HsmFile)?;
    let closed = open(ctx, &db, &mut s, &credentials, &[Store::Hsm, Store::Software])?;
    let state = observe(&db, &mut s)?;
    let mut all: Vec<Todo> = left.drain(..).filter(|todo| !matches!(todo.what, What::Container)).collect();
    all.extend(closed);
    let mut counted = BTreeSet::new();
    for todo in all {
        match try_read(&db, &mut s, &state, &todo, &mut counted)? {
            Ok(rows) => {
                read.rows_with_p12 += u64::from(rows);
                read.with_p12.push(todo.name());
            }
            Err(code) => left.push(Todo { code, ..todo }),
        }
    }
    s.close();
    Ok(())
}

/// STARTUP MOUNT with a parameter file of the drill's own.
fn mount(ctx: &mut Context<'_>, copy: &Copy, reach: Reach) -> Result<(Db, Session), StepError> {
    let sid = copy.place.sid.clone();
    let db = find(ctx, &sid)?;
    if let Style::Sqlnet { file, said } = &copy.style {
        sqlnet(ctx, &db, file, said, reach)?;
    }
    let not_mounted = |error: SessionError| {
        StepError::new(Kind::Final, Code::DRILL_NOT_RECOVERED, format!("{sid}: {error}")).of(&sid).caused_by(error)
    };
    let mut starter = db.connect_to_start().map_err(not_mounted)?;
    if !starter.idle() {
        return Err(StepError::new(Kind::Retriable, Code::DRILL_NOT_QUIET, format!("{sid}: its instance runs again")).of(&sid));
    }
    let pfile = pfile(ctx, &db, &mut starter, copy, reach)?;
    let command = format!("STARTUP MOUNT PFILE='{}'", pfile.display());
    ctx.intend(subject(&sid), "startup", json!({ "command": command }))?;
    let answer = starter.command(&command, db.limits.startup).map_err(not_mounted)?;
    ctx.observed(subject(&sid), "startup", json!({ "codes": answer.codes(), "notes": answer.notes }))?;
    starter.close();
    if let Some(error) = answer.worst().filter(|error| error.class() > Class::Ok) {
        return Err(not_mounted(SessionError::Refused { statement: "STARTUP MOUNT".into(), error: error.clone() }));
    }
    ctx.started(&sid)?;
    let db = find(ctx, &sid)?;
    let s = connect(&db)?;
    Ok((db, s))
}

/// Each session reads the file anew, so it is changed for the whole copy; the former text is kept.
fn sqlnet(ctx: &mut Context<'_>, db: &Db, file: &Path, said: &str, reach: Reach) -> Result<(), StepError> {
    let group = Subject::HomeGroup(file.display().to_string());
    if ctx.recall(&group, "directory").is_none() {
        ctx.remember(group.clone(), "directory", json!(said))?;
    }
    let unreadable = |error: crate::sqlnet::SqlnetError| {
        StepError::new(Kind::Final, Code::SQLNET_UNREADABLE, format!("`{}`: {error}", file.display())).of(db.sid())
    };
    let mut files = db.owner.files()?;
    let bytes = files.read(file)?.unwrap_or_default();
    let was = (!bytes.is_empty()).then(|| Digest::of(&bytes));
    let mut parsed = SqlnetFile::parse(&bytes).map_err(unreadable)?;
    let wanted = WalletLocation { method: Method::Hsm, directory: (reach == Reach::HsmFile).then(|| said.to_owned()) };
    if parsed.wallet_location().map_err(unreadable)?.as_ref() == Some(&wanted) {
        return Ok(());
    }
    files.keep(file, &ctx.paths.state().join("drill"))?;
    parsed.set_wallet_location(&wanted).map_err(unreadable)?;
    let bytes = parsed.print();
    ctx.intend(group.clone(), "configure", json!({ "file": file, "becomes": Digest::of(&bytes) }))?;
    let digest = files.replace(file, &bytes, was)?;
    ctx.observed(group, "configure", json!({ "sha256": digest }))
}

/// The copy's own parameters, without what would act by itself or reach out.
fn pfile(ctx: &mut Context<'_>, db: &Db, starter: &mut Session, copy: &Copy, reach: Reach) -> Result<PathBuf, StepError> {
    let sid = db.sid().clone();
    let dir = crate::files::scratch(ctx.paths, db.owner.uid, db.owner.gid)?;
    let word = unique(ctx);
    let mut files = db.owner.files()?;
    let unread = |error: ParameterError| {
        StepError::new(Kind::Final, Code::DRILL_NOT_RECOVERED, format!("{sid}: {error}")).of(&sid).caused_by(error)
    };
    let found = ParameterFiles::of(db).map_err(unread)?.ok_or_else(|| {
        let message = format!("{sid}: no parameter file in `{}/dbs`", db.place.home.trim_end_matches('/'));
        StepError::new(Kind::Final, Code::DRILL_NOT_RECOVERED, message).of(&sid)
    })?;
    let mut entries = Vec::new();
    for (number, piece) in found.pieces.into_iter().enumerate() {
        let name = match piece {
            Piece::Text(these) => {
                entries.extend(these);
                continue;
            }
            Piece::Spfile(name, _) => name,
        };
        let to = dir.join(format!("of-spfile-{word}-{number}.ora"));
        let quote = |text: &str| ddl::literal(text, "a path").map_err(|error| failed(&sid, error.into()));
        let text = format!("CREATE PFILE={} FROM SPFILE={}", *quote(&to.display().to_string())?, *quote(&name)?);
        let statement = ddl::Statement::plain(text, db.limits.open).map_err(|error| failed(&sid, error.into()))?;
        ctx.intend(subject(&sid), "parameters", json!({ "statement": statement.shown() }))?;
        starter.run(&statement).map_err(|error| {
            StepError::new(Kind::Final, Code::DRILL_NOT_RECOVERED, format!("{sid}: {error}")).of(&sid).caused_by(error)
        })?;
        let bytes = files.read(&to)?.unwrap_or_default();
        let these = parameter_file::entries(&to.display().to_string(), &String::from_utf8_lossy(&bytes)).map_err(unread)?;
        entries.extend(these);
    }
    let keystore = match (&copy.style, reach) {
        (Style::Sqlnet { .. }, _) => None,
        (Style::WalletRoot { root }, Reach::Hsm) => Some((root.as_str(), "HSM")),
        (Style::WalletRoot { root }, Reach::HsmFile) => Some((root.as_str(), "HSM|FILE")),
    };
    if let Some((root, _)) = keystore {
        ddl::literal(root, "WALLET_ROOT").map_err(|error| failed(&sid, error.into()))?;
    }
    let path = dir.join(format!("drill-{word}.ora"));
    files.replace(&path, quiet(&entries, keystore).as_bytes(), None)?;
    Ok(path)
}

/// Parameters that go, whatever stands in them, and those that come in their place.
fn quiet(entries: &[Entry], keystore: Option<(&str, &str)>) -> String {
    const GONE: [&str; 15] = [
        "aq_tm_processes",
        "dg_broker_start",
        "dispatchers",
        "enable_goldengate_replication",
        "fal_client",
        "fal_server",
        "ifile",
        "job_queue_processes",
        "listener_networks",
        "local_listener",
        "log_archive_config",
        "remote_listener",
        "shared_servers",
        "smtp_out_server",
        "spfile",
    ];
    let stays = |entry: &&Entry| {
        let name = entry.name.as_str();
        // A destination on another host: what is archived here stays here.
        let elsewhere =
            name.starts_with("log_archive_dest_") && entry.raw.to_ascii_lowercase().replace(' ', "").contains("service=");
        let configuration = keystore.is_some() && ["tde_configuration", "wallet_root"].contains(&name);
        !(GONE.contains(&name) || elsewhere || configuration)
    };
    let mut quiet: String = entries.iter().filter(stays).map(|entry| format!("{entry}\n")).collect();
    quiet += "*.job_queue_processes=0\n*.aq_tm_processes=0\n";
    // Nobody listens there; without an address of its own the instance would look for a listener of the host.
    quiet += "*.local_listener='(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT=1))'\n";
    // The root whose files were moved aside, and no other that stands somewhere.
    if let Some((root, value)) = keystore {
        quiet += &format!("*.wallet_root='{root}'\n*.tde_configuration='KEYSTORE_CONFIGURATION={value}'\n");
    }
    quiet
}

/// The one login.
fn open_hsm(ctx: &mut Context<'_>, db: &Db, s: &mut Session, credentials: &Credentials, pin: &Pin) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let wallet = Wallet::read(db, s)?;
    if !wallet.has(Store::Hsm) {
        let message = format!("{sid}: the copy does not see an HSM keystore");
        return Err(StepError::new(Kind::Final, Code::DRILL_CONFIGURATION, message).of(&sid));
    }
    ctx.intend(subject(&sid), "open keystore", json!({ "from": "HSM" }))?;
    let opened = open_everywhere(ctx, db, s, &wallet, Store::Hsm, credentials);
    ctx.observed(subject(&sid), "open keystore", json!({ "refused": opened.as_ref().err().map(|error| error.message.clone()) }))?;
    let Err(error) = opened else { return Ok(()) };
    let probe = || ctx.provider().probe("drill", &db.owner, db.pmon(), &ctx.provider().new_library(), &pin.value);
    let (code, why, login) = match error.code {
        // The password, or the active key: a login outside of Oracle tells.
        Code::KEYSTORE_REFUSED => match probe() {
            Ok(probe) if probe.login == LoginResult::Proven => (
                Code::DRILL_KEY_ABSENT,
                "its active key is not in the restored cluster, whose password is right",
                LoginResult::Proven,
            ),
            Ok(probe) if probe.login == LoginResult::Refused => {
                (Code::DRILL_NOT_OPENED, "the restored cluster refuses the password", LoginResult::Refused)
            }
            _ => (Code::DRILL_NOT_OPENED, "the restored cluster cannot be asked", LoginResult::Unreachable),
        },
        Code::HSM_FAILED => (Code::DRILL_NOT_OPENED, "the restored cluster does not answer", LoginResult::Unreachable),
        Code::OLD_KEY_MISSING => (Code::DRILL_KEY_ABSENT, "a key is not in the restored cluster", LoginResult::Proven),
        code => {
            let message = error.message.clone();
            return Err(StepError::new(Kind::Final, code, message).of(&sid).caused_by(error));
        }
    };
    ctx.results.login(pin.index, login);
    let message = format!("{sid}: {why} ({})", error.message);
    Err(StepError::new(Kind::Final, code, message).of(&sid).caused_by(error))
}

/// From MOUNT to open everywhere, with these keystores. Gives the containers that did not open.
fn open(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    credentials: &Credentials,
    stores: &[Store],
) -> Result<Vec<Todo>, StepError> {
    let sid = db.sid().clone();
    let keystores = |ctx: &mut Context<'_>, s: &mut Session| -> Result<(), StepError> {
        for store in stores {
            let wallet = Wallet::read(db, s)?;
            open_everywhere(ctx, db, s, &wallet, *store, credentials)?;
        }
        Ok(())
    };
    keystores(ctx, s)?;
    let not_open = |error: SessionError| {
        let missing = key_is_missing(&error);
        let code = if missing { Code::DRILL_KEY_ABSENT } else { Code::DRILL_NOT_RECOVERED };
        StepError::new(Kind::Final, code, format!("{sid}: {error}")).of(&sid).caused_by(error)
    };
    let plain = |text: String| ddl::Statement::plain(text, db.limits.startup).map_err(|error| failed(&sid, error.into()));
    let instance = views::instance(s).map_err(|error| failed(&sid, error))?;
    if instance.status != Status::Open {
        if views::in_backup_mode(s).map_err(|error| failed(&sid, error))? {
            // The set was taken between BEGIN and END BACKUP.
            s.run(&plain("ALTER DATABASE END BACKUP".to_owned())?).map_err(not_open)?;
        }
        ctx.intend(subject(&sid), "open database", json!({}))?;
        let opened = s.run(&plain("ALTER DATABASE OPEN".to_owned())?).map_err(not_open);
        ctx.observed(subject(&sid), "open database", json!({ "failed": opened.as_ref().err().map(|e| e.message.clone()) }))?;
        opened?;
    }
    let database = views::database(s).map_err(|error| failed(&sid, error))?;
    let mut closed = Vec::new();
    for container in views::containers(s, &database).map_err(|error| failed(&sid, error))? {
        if container.con_id <= 1 || container.open_mode.starts_with("READ") {
            continue;
        }
        let name = ddl::quote(container.name.as_str(), "a container name").map_err(|error| failed(&sid, error.into()))?;
        if let Err(error) = s.run(&plain(format!("ALTER PLUGGABLE DATABASE {} OPEN", *name))?) {
            ctx.observed(subject(&sid), "container not opened", json!({ "name": container.name, "why": error.to_string() }))?;
            let (con_id, container) = (container.con_id, container.name.to_string());
            closed.push(Todo { con_id, container, what: What::Container, code: code_of(&error), offline_with_key: false });
        }
    }
    keystores(ctx, s)?;
    Ok(closed)
}

fn key_is_missing(error: &SessionError) -> bool {
    matches!(error.ora(), Some(28374 | 28362 | 28304 | 28396))
}

fn code_of(error: &SessionError) -> Code {
    if key_is_missing(error) { Code::OLD_KEY_MISSING } else { error.code() }
}

/// Every encrypted tablespace and column of the containers that are open.
fn everything(db: &Db, s: &mut Session, state: &KeyState) -> Result<Vec<Todo>, StepError> {
    let mut all = Vec::new();
    for keys in &state.containers {
        let container = &keys.container;
        if container.con_id > 1 && !container.open_mode.starts_with("READ") {
            continue;
        }
        let todo = |what, code, offline_with_key| Todo {
            con_id: container.con_id,
            container: container.name.to_string(),
            what,
            code,
            offline_with_key,
        };
        for space in state.tablespaces_of(container) {
            let offline = space.access == Access::Offline;
            let known = state.keys.iter().any(|row| row.id == space.key && row.store.is_some());
            let code = if offline { Code::DATAFILES_OFFLINE } else { Code::ROWS_UNREADABLE };
            all.push(todo(What::Tablespace(space.name.clone()), code, offline && known));
        }
        let columns = state::in_container(s, &state.database, container, views::encrypted_columns);
        for (table, column) in columns.map_err(|error| failed(db.sid(), error))? {
            all.push(todo(What::Column { table, column }, Code::ROWS_UNREADABLE, false));
        }
    }
    Ok(all)
}

/// Reads one of them: rows that no other has counted, or why it cannot be read.
fn try_read(
    db: &Db,
    s: &mut Session,
    state: &KeyState,
    todo: &Todo,
    counted: &mut BTreeSet<(u32, String)>,
) -> Result<Result<u32, Code>, StepError> {
    let container = state.containers.iter().map(|keys| &keys.container).find(|container| container.con_id == todo.con_id);
    let (Some(container), false) = (container, matches!(todo.what, What::Container) || todo.code == Code::DATAFILES_OFFLINE)
    else {
        return Ok(Err(todo.code));
    };
    let mut fresh = Vec::new();
    let result = state::in_container(s, &state.database, container, |s| {
        let mut rows = 0;
        match &todo.what {
            What::Tablespace(name) => {
                for table in views::tables_in(s, name, TABLES)? {
                    let found = views::read_rows(s, &table, ROWS)?;
                    if !counted.contains(&(todo.con_id, table.clone())) {
                        rows += found;
                        fresh.push(table);
                    }
                }
            }
            What::Column { table, column } => {
                let found = views::read_column_rows(s, table, column, ROWS)?;
                if !counted.contains(&(todo.con_id, table.clone())) {
                    rows += found;
                    fresh.push(table.clone());
                }
            }
            What::Container => {}
        }
        Ok(rows)
    });
    match result {
        Ok(rows) => {
            counted.extend(fresh.into_iter().map(|table| (todo.con_id, table)));
            Ok(Ok(rows))
        }
        // A client or a server that is gone has said nothing about a key.
        Err(error) if error.unknown_outcome() || error.code() == Code::SESSION_LOST => Err(failed(db.sid(), error)),
        Err(error) => Ok(Err(code_of(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h44_the_copys_parameters_reach_nobody_and_start_nothing() {
        let text = "fin.__sga_target=1\n*.db_name='FIN'\n*.job_queue_processes=80\nFIN.local_listener='LISTENER_FIN'\n\
            *.log_archive_dest_1='LOCATION=/u01/arch'\n*.log_archive_dest_2='SERVICE=FIN_STBY ASYNC'\n\
            *.log_archive_dest_3='service = other'\n*.fal_server='X'\n*.dispatchers='(PROTOCOL=TCP)'\n\
            *.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'\nFIN.wallet_root='/v'\n*.spfile='/x'\n";
        let entries = parameter_file::entries("f", text).unwrap();
        let quiet = super::quiet(&entries, Some(("/w", "HSM")));
        let wanted = "fin.__sga_target=1\n*.db_name='FIN'\n*.log_archive_dest_1='LOCATION=/u01/arch'\n\
            *.job_queue_processes=0\n*.aq_tm_processes=0\n\
            *.local_listener='(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT=1))'\n*.wallet_root='/w'\n\
            *.tde_configuration='KEYSTORE_CONFIGURATION=HSM'\n";
        assert_eq!(quiet, wanted);
        // Where the keystore is configured elsewhere, nothing is said of it.
        assert!(super::quiet(&entries, None).contains("HSM|FILE"));
    }

    #[test]
    fn names_of_what_was_read_are_told_without_quotes() {
        let todo =
            |what| Todo { con_id: 3, container: "PDB1".into(), what, code: Code::OLD_KEY_MISSING, offline_with_key: false };
        assert_eq!(todo(What::Tablespace("SECRETS".into())).name(), "PDB1.SECRETS");
        let column = What::Column { table: "\"APP\".\"T\"".into(), column: "\"PAN\"".into() };
        assert_eq!(todo(column).name(), "PDB1.APP.T.PAN");
        assert!(todo(What::Container).needs_key());
    }
}
