//! What the steps share: a database by its order, its credentials, a statement that is sent once, and the judging
//! look afterwards.

use crate::journal::Subject;
use crate::oracle::ddl::{self, HsmPin, SoftwarePassword, Statement};
use crate::oracle::errors::{Class, OraError};
use crate::oracle::state::{self, KeyState};
use crate::oracle::{Answer, Db, Place, ServerSession, Session, SessionError, places, views};
use crate::secrets::Secret;
use crate::step::{Context, Kind, StepError};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use tde2hsm_protocol::survey::{Access, WalletRow};
use tde2hsm_protocol::{Code, DatabaseOrder, LoginResult, Sid, Source, Step, Store, Timestamp};

pub fn subject(sid: &Sid) -> Subject {
    Subject::Database(sid.clone())
}

/// Every database of the host, in the order or not.
pub fn all_places(ctx: &Context<'_>) -> Result<Vec<Place>, StepError> {
    places::places(ctx.paths)
        .map_err(|error| StepError::new(Kind::Retriable, Code::OWNER_WORK, error.to_string()).caused_by(error))
}

/// A database of the order, with the environment it has or had.
pub fn db(ctx: &Context<'_>, sid: &Sid) -> Result<Db, StepError> {
    let place = all_places(ctx)?.into_iter().find(|place| place.sid == *sid).ok_or_else(|| {
        StepError::new(Kind::Final, Code::DATABASE_UNKNOWN, format!("neither oratab nor a process names `{sid}`")).of(sid)
    })?;
    let mut db = Db::new(ctx.paths, place).map_err(|error| StepError::from(error).of(sid))?;
    if db.place.pmon.is_none() {
        db.former = ctx.recall(&subject(sid), "pmon").and_then(|value| serde_json::from_value(value).ok());
        if let Some(former) = &db.former
            && let Some(home) = former.env("ORACLE_HOME")
        {
            home.clone_into(&mut db.place.home);
        }
    }
    Ok(db)
}

pub fn orders(ctx: &Context<'_>) -> Vec<DatabaseOrder> {
    ctx.databases().to_vec()
}

/// An error of a session as the step's. A statement that carries a secret is never tried again by itself (H11).
pub fn failed(sid: &Sid, error: SessionError) -> StepError {
    let kind = match &error {
        SessionError::Quote(_) | SessionError::Row { .. } | SessionError::Answer { .. } => Kind::Final,
        SessionError::Refused { statement, error } => match error.class() {
            // The server process died: the next turn looks what became of it.
            _ if error.code() == Code::SESSION_LOST => Kind::Retriable,
            _ if statement.contains('*') && statement.starts_with("ADMINISTER") => Kind::Final,
            Class::Fatal => Kind::Final,
            _ => Kind::Retriable,
        },
        _ => Kind::Retriable,
    };
    StepError::new(kind, error.code(), format!("{sid}: {error}")).of(sid).caused_by(error)
}

pub fn refused(sid: &Sid, kind: Kind, statement: &Statement, error: &OraError) -> StepError {
    StepError::new(kind, error.code(), format!("{sid}: {} in `{}`", error.explain(), statement.shown())).of(sid)
}

/// A session to an instance that runs.
pub fn connect(db: &Db) -> Result<Session, StepError> {
    let session = db.connect().map_err(|error| failed(db.sid(), error))?;
    if session.idle() { Err(failed(db.sid(), SessionError::Idle)) } else { Ok(session) }
}

pub fn observe(db: &Db, s: &mut Session) -> Result<KeyState, StepError> {
    state::observe(s).map_err(|error| failed(db.sid(), error))
}

/// The PIN of the HSM behind the library that is in place, by the order's index.
#[derive(Clone)]
pub struct Pin {
    pub index: u16,
    pub value: Rc<Secret>,
}

impl Pin {
    pub fn hsm(&self) -> HsmPin<'_> {
        HsmPin(self.value.reveal())
    }
}

#[derive(Clone)]
pub struct Credentials {
    pub software: Rc<Secret>,
    /// None: no library is in place that an order's PIN would belong to (a software source before the swap).
    pub hsm: Option<Pin>,
}

impl Credentials {
    pub fn software(&self) -> SoftwarePassword<'_> {
        SoftwarePassword(self.software.reveal())
    }
}

pub fn old_pin(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<Option<Pin>, StepError> {
    match order.source {
        Source::OldHsm { pin } => Ok(Some(Pin { index: pin, value: ctx.secrets.get(pin)? })),
        Source::Software => Ok(None),
    }
}

pub fn cloudhsm_pin(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<Pin, StepError> {
    Ok(Pin { index: order.cloudhsm, value: ctx.secrets.get(order.cloudhsm)? })
}

pub fn credentials(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<Credentials, StepError> {
    let software = ctx.secrets.get(order.software)?;
    let hsm = if ctx.provider().is_swapped()? { Some(cloudhsm_pin(ctx, order)?) } else { old_pin(ctx, order)? };
    Ok(Credentials { software, hsm })
}

/// The exchange is behind this campaign: the installed library is in place or, where the client was patched since, the one that
/// this campaign has written down. A CloudHSM library that lay there before is exchanged like any other.
pub fn exchanged(ctx: &Context<'_>) -> Result<bool, StepError> {
    let provider = ctx.provider();
    let noted = ctx.recall(&Subject::Host, "swap").is_some_and(|value| !value.is_null());
    Ok(provider.is_installed_one()? || (noted && provider.is_swapped()?))
}

/// Waits until no statement of a lost client can still be at work on a database (H28). Called before anything else of
/// a step looks at it.
pub fn settle(ctx: &mut Context<'_>, db: &Db) -> Result<(), StepError> {
    let subject = subject(db.sid());
    let Some(value) = ctx.recall(&subject, "server-session").filter(|value| !value.is_null()) else { return Ok(()) };
    let lost: Lost = serde_json::from_value(value).map_err(|error| {
        StepError::new(Kind::Stuck, Code::HOST_JOURNAL, format!("{}: a server session in the journal: {error}", db.sid()))
    })?;
    wait_gone(ctx, db, &lost)?;
    ctx.remember(subject, "server-session", Value::Null)
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Lost {
    session: ServerSession,
    /// Start of the server process, in case its number is given again.
    started: Option<Timestamp>,
    action: String,
}

fn wait_gone(ctx: &Context<'_>, db: &Db, lost: &Lost) -> Result<(), StepError> {
    let deadline = ctx.clock.monotonic() + db.limits.key_change;
    let mut pause = Duration::from_millis(100);
    loop {
        if is_gone(ctx, db, lost) {
            return Ok(());
        }
        if ctx.clock.monotonic() >= deadline {
            let ServerSession { sid, serial, spid } = lost.session;
            let message = format!(
                "{}: session {sid},{serial} (process {spid}) of `{}` still runs although its client is gone",
                db.sid(),
                lost.action
            );
            return Err(StepError::new(Kind::Stuck, Code::SESSION_STILL_RUNNING, message).of(db.sid()));
        }
        ctx.clock.pause(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn is_gone(ctx: &Context<'_>, db: &Db, lost: &Lost) -> bool {
    if lost.started.is_some_and(|started| !ctx.procs().is_there(lost.session.spid, started)) {
        return true;
    }
    match db.connect() {
        Ok(session) if session.idle() => true,
        Ok(mut session) => {
            let here = session.server();
            let exists = views::session_exists(&mut session, lost.session.sid, lost.session.serial);
            session.close();
            here != Some(lost.session) && matches!(exists, Ok(false))
        }
        Err(_) => false,
    }
}

/// What became of a statement that was sent once.
pub enum Sent {
    Answered(Answer),
    /// The client or the server process died; the server session has ended since. Only a look can tell.
    Unknown,
}

/// Sends a statement that must not be sent twice: permit, intent and session numbers first, all durable (H28, H31).
pub fn send_once(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    action: &str,
    statement: &Statement,
) -> Result<Sent, StepError> {
    (ctx.permit)()?;
    let sid = db.sid().clone();
    let server = s.server().ok_or_else(|| failed(&sid, SessionError::Idle))?;
    let lost = Lost { session: server, started: ctx.procs().started_at(server.spid), action: action.to_owned() };
    let lost_value = serde_json::to_value(&lost).expect("plain data serialises");
    ctx.intend(subject(&sid), action, json!({ "statement": statement.shown(), "session": server }))?;
    ctx.remember(subject(&sid), "server-session", lost_value)?;
    let result = s.execute(statement);
    let sent = match result {
        Ok(answer) if answer.worst().is_some_and(|error| error.code() == Code::SESSION_LOST) => {
            ctx.observed(subject(&sid), action, json!({ "lost": answer.codes() }))?;
            Sent::Unknown
        }
        Ok(answer) => {
            ctx.observed(subject(&sid), action, json!({ "codes": answer.codes(), "notes": answer.notes }))?;
            Sent::Answered(answer)
        }
        Err(error) if error.unknown_outcome() => {
            ctx.observed(subject(&sid), action, json!({ "lost": error.to_string() }))?;
            Sent::Unknown
        }
        Err(error) => return Err(failed(&sid, error)),
    };
    if matches!(sent, Sent::Unknown) {
        wait_gone(ctx, db, &lost)?;
    }
    ctx.remember(subject(&sid), "server-session", Value::Null)?;
    Ok(sent)
}

/// The same where a success is all that will do and a look by the caller judges the rest.
pub fn send_once_ok(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    action: &str,
    statement: &Statement,
) -> Result<(), StepError> {
    match send_once(ctx, db, s, action, statement)? {
        Sent::Answered(answer) => match answer.worst().filter(|error| error.class() > Class::Ok) {
            Some(error) => Err(refused(db.sid(), Kind::Final, statement, error)),
            None => Ok(()),
        },
        Sent::Unknown => Err(StepError::new(
            Kind::Retriable,
            Code::SESSION_LOST,
            format!("{}: the session of `{action}` was lost; it has ended", db.sid()),
        )
        .of(db.sid())),
    }
}

/// A word that no other statement of any operation has, for backup ids (ORA-46625).
pub fn unique(ctx: &Context<'_>) -> String {
    let head = ctx.journal.head().to_string();
    format!("{}_{}", ctx.clock.now().0, &head[..10])
}

/// Rows of V$ENCRYPTION_WALLET, read once.
pub struct Wallet(pub Vec<WalletRow>);

impl Wallet {
    pub fn read(db: &Db, s: &mut Session) -> Result<Wallet, StepError> {
        let version = views::instance(s).map_err(|error| failed(db.sid(), error))?;
        let version = version.version.ok_or_else(|| unsupported(db.sid(), &version.version_text))?;
        Ok(Wallet(views::wallet(s, version).map_err(|error| failed(db.sid(), error))?))
    }
    fn of(&self, store: Store, con_id: u32) -> Option<&WalletRow> {
        let wanted = |row: &&WalletRow| (row.wrl_type == "HSM") == (store == Store::Hsm);
        let same = |row: &&WalletRow| row.con_id == con_id || (con_id <= 1 && row.con_id <= 1);
        self.0.iter().filter(wanted).find(same)
    }
    pub fn has(&self, store: Store) -> bool {
        self.of(store, 0).is_some()
    }
    pub fn root(&self, store: Store) -> Option<&WalletRow> {
        self.of(store, 0)
    }
    pub fn is_open(&self, store: Store, con_id: u32) -> bool {
        self.of(store, con_id).is_some_and(|row| row.status.starts_with("OPEN"))
    }
    /// Open by an auto-login file, not by its password: statements need FORCE KEYSTORE (`O§1.6`).
    pub fn needs_force(&self) -> bool {
        !self.root(Store::Software).is_some_and(|row| row.status.starts_with("OPEN") && row.wallet_type == "PASSWORD")
    }
}

pub fn unsupported(sid: &Sid, version: &str) -> StepError {
    StepError::new(Kind::Final, Code::VERSION_UNSUPPORTED, format!("{sid}: Oracle {version} is not supported")).of(sid)
}

/// Opens a keystore in the root and in every open pluggable database where it is closed. An OPEN is sent only where a
/// look found it closed: with two keystores an OPEN of one may be put to the other, and cost a login there (H48).
pub fn open_everywhere(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    wallet: &Wallet,
    store: Store,
    credentials: &Credentials,
) -> Result<(), StepError> {
    let sid = db.sid().clone();
    if !wallet.has(store) {
        return Ok(());
    }
    let limits = s.limits();
    let statement = match store {
        Store::Software => ddl::open_software(credentials.software(), ddl::Containers::Current, &limits),
        Store::Hsm => {
            let Some(pin) = &credentials.hsm else { return Ok(()) };
            // An answer that was no clear word about the PIN may have cost a login all the same: one an operation (H11).
            if ctx.results.logins.iter().any(|login| login.secret == pin.index && login.result == LoginResult::Unreachable) {
                let message = format!("{sid}: the HSM gave no clear answer before, and is not asked again by the same operation");
                return Err(StepError::new(Kind::Final, Code::HSM_FAILED, message).of(&sid));
            }
            ddl::open_hsm(pin.hsm(), ddl::Containers::Current, &limits)
        }
    }
    .map_err(|error| failed(&sid, error.into()))?;
    let database = views::database(s).map_err(|error| failed(&sid, error))?;
    let containers = views::containers(s, &database).map_err(|error| failed(&sid, error))?;
    for container in containers {
        let root = container.con_id <= 1;
        if wallet.is_open(store, container.con_id) || !(root || container.open_mode.starts_with("READ")) {
            continue;
        }
        (ctx.permit)()?;
        let answer =
            state::in_container(s, &database, &container, |s| s.execute(&statement)).map_err(|error| failed(&sid, error))?;
        if let Some(error) = answer.worst().filter(|error| error.class() > Class::Ok) {
            if store == Store::Hsm && error.is(28353) && keys_in_software(ctx, &sid) {
                let message =
                    format!("{sid}: the HSM does not open while the active key is in the software keystore: {}", error.explain());
                return Err(StepError::new(Kind::Final, Code::HSM_FAILED, message).of(&sid));
            }
            return Err(open_refused(ctx, &sid, store, credentials, &statement, error));
        }
    }
    Ok(())
}

/// Where the active keys are, as it was last proven; forgotten before each statement that changes it.
pub fn remember_place(ctx: &mut Context<'_>, sid: &Sid, place: Option<Store>) -> Result<(), StepError> {
    ctx.remember(subject(sid), "keys-proven-in", json!(place))
}

/// An OPEN of the HSM may look for the active key on its token, and answer 28353 when it is not there (O§3.9). While that key is
/// known to be in software, this is no word about the PIN; the MIGRATE that follows logs in itself.
fn keys_in_software(ctx: &Context<'_>, sid: &Sid) -> bool {
    match ctx.recall(&subject(sid), "keys-proven-in").filter(|value| !value.is_null()) {
        Some(place) => place == json!(Store::Software),
        // Not rotated yet. A drill's copy has another history.
        None => {
            ctx.step != Step::DrillOpen
                && ctx.database(sid).is_some_and(|order| order.source == Source::Software)
                && ctx.recall(&subject(sid), "migrate").is_none()
        }
    }
}

/// An OPEN or a key change that was refused. Whether it cost a login is what the whole fleet must know (H10).
pub fn open_refused(
    ctx: &mut Context<'_>,
    sid: &Sid,
    store: Store,
    credentials: &Credentials,
    statement: &Statement,
    error: &OraError,
) -> StepError {
    if store == Store::Hsm
        && let Some(pin) = &credentials.hsm
    {
        note_login(ctx, pin, error);
    }
    let kind = if error.code() == Code::SESSION_LOST { Kind::Retriable } else { Kind::Final };
    refused(sid, kind, statement, error)
}

/// 28353 is a refused login or a dozen other things, 28407 may be one (H11): a doubt counts as a login spent.
pub fn note_login(ctx: &mut Context<'_>, pin: &Pin, error: &OraError) {
    let unreachable = error.is(28407) && !error.text.contains("CKR_PIN") && !error.text.contains("CKR_USER");
    if error.is(28353) || error.is(28407) {
        ctx.results.login(pin.index, if unreachable { LoginResult::Unreachable } else { LoginResult::Refused });
    }
}

/// Reads one row of every encrypted tablespace and of every encrypted column that can be read at all. Gives the number
/// of tablespaces read, and the names of those in which there is nothing to read.
pub fn read_everything(db: &Db, s: &mut Session, state: &KeyState) -> Result<(u32, Vec<String>), StepError> {
    let sid = db.sid();
    let mut read = 0;
    let mut empty = Vec::new();
    for keys in &state.containers {
        let container = &keys.container;
        if container.con_id > 1 && !container.open_mode.starts_with("READ") {
            continue;
        }
        let spaces: Vec<_> = state.tablespaces_of(container).filter(|ts| ts.access != Access::Offline).cloned().collect();
        let outcome = state::in_container(s, &state.database, container, |s| {
            for space in &spaces {
                let mut found = false;
                for table in views::tables_in(s, &space.name, 20)? {
                    if views::read_one(s, &table)? > 0 {
                        found = true;
                        break;
                    }
                }
                if found {
                    read += 1;
                } else {
                    empty.push(format!("{}.{}", container.name, space.name));
                }
            }
            for (table, column) in views::encrypted_columns(s)? {
                views::read_column(s, &table, &column)?;
            }
            Ok(())
        });
        outcome.map_err(|error| {
            let fatal = matches!(error.ora(), Some(28365 | 28374 | 28304 | 28353 | 28407 | 28376 | 28362));
            let code = if fatal { Code::ROWS_UNREADABLE } else { error.code() };
            let message = format!("{sid}: reading encrypted data of {}: {error}", container.name);
            StepError::new(Kind::Retriable, code, message).of(sid).caused_by(error)
        })?;
    }
    Ok((read, empty))
}

/// Records the keys for the report.
pub fn report_keys(ctx: &mut Context<'_>, sid: &Sid, state: &KeyState) {
    let now = ctx.clock.now();
    ctx.results.database(sid).keys = state.observations(now);
}
