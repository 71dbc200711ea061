//! Stops and starts a database, as it was.
//!
//! A stop is SHUTDOWN IMMEDIATE with a time limit and never an ABORT (H2, H26). A start is STARTUP MOUNT under the
//! former pmon's environment, limits and cgroup (H24), then in a session of its own: keystores open, database open,
//! pluggable databases to their recorded modes, keystores open in them (H25). Each of these looks first, so a start
//! that a crash broke off goes on where it stood. What is recorded before a stop, pmon and modes, is the only thing
//! the journal is believed about: nothing else can know it afterwards.

use super::common::{
    Credentials, Wallet, connect, credentials, db as find, failed, open_everywhere, read_everything, settle, subject,
};
use super::config::{self, Want};
use crate::oracle::errors::Class;
use crate::oracle::views::{self, Status};
use crate::oracle::{Db, Session, SessionError, ddl, state};
use crate::procs::Pmon;
use crate::step::{Context, Kind, StepError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use tde2hsm_protocol::{Code, DatabaseOrder, Sid, Step, Store, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mode {
    name: String,
    open_mode: String,
    restricted: bool,
}

/// Remembers what a start will have to restore.
pub fn remember(ctx: &mut Context<'_>, db: &Db, s: &mut Session) -> Result<(), StepError> {
    let sid = db.sid();
    let fail = |error| failed(sid, error);
    if let Some(pmon) = &db.place.pmon {
        ctx.remember(subject(sid), "pmon", serde_json::to_value(pmon).expect("plain data serialises"))?;
    }
    let database = views::database(s).map_err(fail)?;
    let modes: Vec<Mode> = views::containers(s, &database)
        .map_err(fail)?
        .into_iter()
        .filter(|container| container.con_id > 1)
        .map(|container| Mode {
            name: container.name.to_string(),
            open_mode: container.open_mode,
            restricted: container.restricted,
        })
        .collect();
    ctx.remember(subject(sid), "modes", serde_json::to_value(modes).expect("plain data serialises"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// By us, and cleanly: seen by us, or recorded by us.
    Clean,
    /// It was down already and we did not stop it: a start has to recover it, with the keys it had (H2).
    Found,
}

/// A shutdown is in progress, or a start.
fn in_shutdown(error: &SessionError) -> bool {
    matches!(error, SessionError::Refused { error, .. } if [1012, 1033, 1089, 1090].into_iter().any(|ora| error.is(ora)))
}

/// Whether this campaign has sent the database a SHUTDOWN and not started it since.
pub fn stop_begun(ctx: &Context<'_>, sid: &Sid) -> bool {
    ctx.recall(&subject(sid), "down").is_some_and(|value| !value.is_null())
}

/// Whether this campaign has stopped the database cleanly and not started it since.
fn stopped_by_us(ctx: &Context<'_>, sid: &Sid) -> bool {
    ctx.recall(&subject(sid), "down").is_some_and(|value| value.get("clean") == Some(&Value::Bool(true)))
}

/// The database is down because the swap stopped it cleanly: all before the swap was proven then, and cannot be looked
/// at now. One that another step stopped for a restart of its own has proven nothing (H1): it starts first.
pub fn in_window(ctx: &Context<'_>, sid: &Sid) -> Result<bool, StepError> {
    let by = ctx.recall(&subject(sid), "down").and_then(|value| serde_json::from_value(value.get("by")?.clone()).ok());
    Ok(by == Some(Step::SwapProvider) && stopped_by_us(ctx, sid) && is_down(&find(ctx, sid)?)?)
}

pub fn is_down(db: &Db) -> Result<bool, StepError> {
    let session = db.connect().map_err(|error| failed(db.sid(), error))?;
    let idle = session.idle();
    session.close();
    Ok(idle)
}

/// SHUTDOWN IMMEDIATE. `Waiting` when it does not end in time; it goes on by itself then.
pub fn stop(ctx: &mut Context<'_>, db: &Db) -> Result<Stopped, StepError> {
    let sid = db.sid().clone();
    let hangs = |why: String| StepError::new(Kind::Waiting, Code::SHUTDOWN_HANGS, format!("{sid}: {why}")).of(&sid);
    let mut s = match db.connect() {
        Ok(session) => session,
        // Our own of an earlier turn or somebody else's, of which nothing is known.
        Err(error) if in_shutdown(&error) => {
            return if stop_begun(ctx, &sid) {
                wait_down(ctx, db).map(|()| Stopped::Clean)
            } else {
                wait_gone(ctx, db).map(|()| Stopped::Found)
            };
        }
        Err(error) => return Err(failed(&sid, error)),
    };
    if s.idle() {
        return Ok(if stopped_by_us(ctx, &sid) { Stopped::Clean } else { Stopped::Found });
    }
    remember(ctx, db, &mut s)?;
    (ctx.permit)()?;
    let now = ctx.clock.now();
    ctx.remember(subject(&sid), "down", json!({ "clean": false, "since": now, "by": ctx.step }))?;
    ctx.intend(subject(&sid), "shutdown", json!({}))?;
    let answer = s.command("SHUTDOWN IMMEDIATE", db.limits.shutdown);
    match answer {
        Ok(answer) => {
            // ORA-01109 and ORA-01507 are how it says that it was not open or not mounted.
            let bad = answer.errors.iter().find(|error| !(error.is(1109) || error.is(1507) || error.is(1034)));
            ctx.observed(subject(&sid), "shutdown", json!({ "codes": answer.codes(), "notes": answer.notes }))?;
            if let Some(error) = bad {
                return Err(hangs(format!("SHUTDOWN answered {}", error.explain())));
            }
        }
        Err(error) => {
            ctx.observed(subject(&sid), "shutdown", json!({ "lost": error.to_string() }))?;
            return Err(hangs(format!("SHUTDOWN IMMEDIATE has not ended: {error}")));
        }
    }
    s.close();
    wait_down(ctx, db)?;
    Ok(Stopped::Clean)
}

/// Only a shutdown that we sent, and that said nothing bad, ends here: the stop was clean.
fn wait_down(ctx: &mut Context<'_>, db: &Db) -> Result<(), StepError> {
    wait_gone(ctx, db)?;
    let sid = db.sid();
    // Whoever waits here may not be the step that sent it.
    let down = ctx.recall(&subject(sid), "down").unwrap_or(Value::Null);
    let since = down.get("since").and_then(Value::as_i64).unwrap_or(ctx.clock.now().0);
    ctx.remember(subject(sid), "down", json!({ "clean": true, "since": since, "by": down.get("by") }))
}

/// Until pmon is gone.
fn wait_gone(ctx: &Context<'_>, db: &Db) -> Result<(), StepError> {
    let sid = db.sid();
    let deadline = ctx.clock.monotonic() + Duration::from_secs(60);
    loop {
        let running = ctx.procs().pmon(sid).map_err(|error| {
            StepError::new(Kind::Retriable, Code::OWNER_WORK, format!("processes cannot be read: {error}")).of(sid)
        })?;
        if running.is_none() {
            break;
        }
        if ctx.clock.monotonic() >= deadline {
            let message = format!("{sid}: shut down, but its pmon still runs");
            return Err(StepError::new(Kind::Waiting, Code::SHUTDOWN_HANGS, message).of(sid));
        }
        ctx.clock.pause(Duration::from_millis(100));
    }
    Ok(())
}

fn start_failed(sid: &Sid, error: SessionError) -> StepError {
    let code = match error.code() {
        code @ (Code::OLD_KEY_MISSING | Code::KEYSTORE_REFUSED | Code::HSM_FAILED | Code::SQLPLUS_UNUSABLE) => code,
        _ => Code::START_FAILED,
    };
    StepError::new(Kind::Retriable, code, format!("{sid}: {error}")).of(sid).caused_by(error)
}

/// Brings a database from wherever it is to open with its pluggable databases as recorded and every configured keystore
/// open. Counts a start where it makes one, and the seconds the database was away.
pub fn start(ctx: &mut Context<'_>, db: &Db, credentials: &Credentials) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let mut starter = db.connect_to_start().map_err(|error| start_failed(&sid, error))?;
    let mut began = None;
    // No permit is asked for: a database that is down comes up, whatever the order's window says by now.
    if starter.idle() {
        began = Some(ctx.clock.monotonic());
        // From here on it may be used, and go down with redo to recover: a clean stop is none any more (H2).
        if let Some(mut down) = ctx.recall(&subject(&sid), "down").filter(|value| !value.is_null()) {
            down["clean"] = json!(false);
            ctx.remember(subject(&sid), "down", down)?;
        }
        ctx.intend(subject(&sid), "startup", json!({ "like": db.pmon().map(|pmon| pmon.cgroup.clone()) }))?;
        let answer = starter.command("STARTUP MOUNT", db.limits.startup).map_err(|error| start_failed(&sid, error))?;
        ctx.observed(subject(&sid), "startup", json!({ "codes": answer.codes(), "notes": answer.notes }))?;
        if let Some(error) = answer.worst().filter(|error| error.class() > Class::Ok) {
            let refused = SessionError::Refused { statement: "STARTUP MOUNT".into(), error: error.clone() };
            return Err(start_failed(&sid, refused));
        }
        ctx.started(&sid)?;
    }
    starter.close();
    let db = &find(ctx, &sid)?;
    let mut s = connect(db)?;
    open(ctx, db, &mut s, credentials)?;
    s.close();
    if let Some(down) = ctx.recall(&subject(&sid), "down").filter(|value| !value.is_null()) {
        // By the journal's clock when another process stopped it, else by this one's.
        let since = down.get("since").and_then(Value::as_i64).unwrap_or(ctx.clock.now().0);
        let away = u32::try_from(ctx.clock.now().since(Timestamp(since)).max(0)).unwrap_or(u32::MAX);
        ctx.results.database(&sid).away += away;
        ctx.remember(subject(&sid), "down", Value::Null)?;
    } else if let Some(began) = began {
        let away = ctx.clock.monotonic().saturating_sub(began).as_secs();
        ctx.results.database(&sid).away += u32::try_from(away).unwrap_or(u32::MAX);
    }
    compare(ctx, db)
}

/// From mounted (or further) to open everywhere.
fn open(ctx: &mut Context<'_>, db: &Db, s: &mut Session, credentials: &Credentials) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let instance = views::instance(s).map_err(|error| failed(&sid, error))?;
    if instance.status == Status::Started {
        let mount = ddl::Statement::plain("ALTER DATABASE MOUNT", db.limits.startup).map_err(|e| failed(&sid, e.into()))?;
        s.run(&mount).map_err(|error| start_failed(&sid, error))?;
    }
    if instance.status != Status::Open {
        open_keystores(ctx, db, s, credentials)?;
        let statement = ddl::Statement::plain("ALTER DATABASE OPEN", db.limits.startup).map_err(|e| failed(&sid, e.into()))?;
        s.run(&statement).map_err(|error| start_failed(&sid, error))?;
    }
    let modes: Vec<Mode> =
        ctx.recall(&subject(&sid), "modes").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let database = views::database(s).map_err(|error| failed(&sid, error))?;
    for container in views::containers(s, &database).map_err(|error| failed(&sid, error))? {
        let Some(mode) = modes.iter().find(|mode| mode.name == container.name.as_str()) else { continue };
        if container.open_mode == mode.open_mode || !mode.open_mode.starts_with("READ") {
            continue;
        }
        let name = ddl::quote(&mode.name, "a container name").map_err(|error| failed(&sid, error.into()))?;
        let how = if mode.open_mode == "READ ONLY" { "READ ONLY" } else { "READ WRITE" };
        let restricted = if mode.restricted { " RESTRICTED" } else { "" };
        let text = format!("ALTER PLUGGABLE DATABASE {} OPEN {how}{restricted}", *name);
        let statement = ddl::Statement::plain(text, db.limits.startup).map_err(|e| failed(&sid, e.into()))?;
        s.run(&statement).map_err(|error| start_failed(&sid, error))?;
    }
    open_keystores(ctx, db, s, credentials)
}

/// The HSM first: an OPEN with the software password while the HSM is closed might be put to it, too (H48). An HSM that
/// cannot be reached does not keep a database down that may do without it (H29): whatever needs it says so itself.
fn open_keystores(ctx: &mut Context<'_>, db: &Db, s: &mut Session, credentials: &Credentials) -> Result<(), StepError> {
    let wallet = Wallet::read(db, s)?;
    match open_everywhere(ctx, db, s, &wallet, Store::Hsm, credentials) {
        Ok(()) => {}
        Err(error) if error.code == Code::HSM_FAILED => {
            ctx.observed(subject(db.sid()), "HSM not opened", json!({ "why": error.message }))?;
        }
        Err(error) => return Err(error),
    }
    open_everywhere(ctx, db, s, &wallet, Store::Software, credentials)
}

/// What the new instance has otherwise than the former (H24): for the report and the journal, it changes nothing.
fn compare(ctx: &mut Context<'_>, db: &Db) -> Result<(), StepError> {
    let former: Option<Pmon> = ctx.recall(&subject(db.sid()), "pmon").and_then(|value| serde_json::from_value(value).ok());
    if let (Some(former), Some(now)) = (former, &db.place.pmon)
        && former.pid != now.pid
    {
        let differs = differences(&former, now);
        ctx.observed(subject(db.sid()), "started like before", json!({ "differs": differs }))?;
    }
    Ok(())
}

fn differences(former: &Pmon, now: &Pmon) -> Vec<String> {
    let mut differs = Vec::new();
    if former.cgroup != now.cgroup {
        differs.push(format!("cgroup `{}` was `{}`", now.cgroup, former.cgroup));
    }
    for limit in &former.limits {
        if now.limit(&limit.name).is_some_and(|other| other != limit) {
            differs.push(format!("limit `{}`", limit.name));
        }
    }
    // Values of an environment are nobody's business.
    for (name, value) in &former.environ {
        if now.env(name) != Some(value) && !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()) {
            differs.push(format!("environment variable `{name}`"));
        }
    }
    differs
}

/// A database of the order that is not open, for whatever reason, is started on the library that is in place; crash
/// recovery may need both keystores (H2). Then no statement of a lost client is at work on it (H28).
pub fn ensure_up(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<Db, StepError> {
    let mut db = find(ctx, &order.sid)?;
    settle(ctx, &db)?;
    let mut s = match db.connect() {
        Ok(session) => session,
        // Our own SHUTDOWN of an earlier turn has not ended: it does by itself, and the database is started then (H26).
        Err(error) if in_shutdown(&error) && stop_begun(ctx, &order.sid) => {
            let message = format!("{}: its SHUTDOWN IMMEDIATE has not ended: {error}", order.sid);
            return Err(StepError::new(Kind::Waiting, Code::SHUTDOWN_HANGS, message).of(&order.sid));
        }
        Err(error) => return Err(failed(&order.sid, error)),
    };
    let up = !s.idle() && views::instance(&mut s).map_err(|error| failed(&order.sid, error))?.status == Status::Open;
    s.close();
    if !up {
        let credentials = credentials(ctx, order)?;
        match start(ctx, &db, &credentials) {
            Ok(()) => {}
            Err(error) if error.code == Code::OLD_KEY_MISSING || error.code == Code::START_FAILED => {
                widen(ctx, &order.sid, &credentials).map_err(|_| error)?;
            }
            Err(error) => return Err(error),
        }
        db = find(ctx, &order.sid)?;
    }
    Ok(db)
}

/// After a crash right after a reverse migrate, METHOD=FILE hides the HSM whose key the redo still needs: both are made
/// reachable, and the step that wants another configuration sets it later.
fn widen(ctx: &mut Context<'_>, sid: &Sid, credentials: &Credentials) -> Result<(), StepError> {
    let db = find(ctx, sid)?;
    let mut s = connect(&db)?;
    let keystore = config::remembered(ctx, sid)
        .ok_or_else(|| StepError::new(Kind::Retriable, Code::START_FAILED, "no keystore is remembered").of(sid))?;
    if config::configure(ctx, &db, &keystore, &mut s, Want::HsmFile)? {
        s.close();
        s = connect(&db)?;
    }
    open(ctx, &db, &mut s, credentials)?;
    s.close();
    Ok(())
}

/// The database reads what it has encrypted.
pub fn reads(ctx: &mut Context<'_>, db: &Db, s: &mut Session) -> Result<u32, StepError> {
    let state = state::observe(s).map_err(|error| failed(db.sid(), error))?;
    let (read, empty) = read_everything(db, s, &state)?;
    ctx.observed(subject(db.sid()), "read encrypted tablespaces", json!({ "read": read, "nothing to read in": empty }))?;
    Ok(read)
}
