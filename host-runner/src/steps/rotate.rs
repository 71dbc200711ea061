//! The two key rotations, HSM to software keystore and back, each for every direction that needs it: `reverse-migrate`
//! and the undo of `migrate` are one, `migrate` and the undo of `reverse-migrate` the other.
//!
//! Safe because the statement is sent once, after a look that shows its goal does not hold, and judged by another look,
//! whatever it answered and whether or not anyone was left to hear it (H28). A half-done rotation has its pointer
//! still on the former key, and both keystores stay reachable under every configuration that is left behind here, so
//! the next turn rotates again; keys that nothing points to are reported and never touched (H9).

use super::common::{
    Credentials, Sent, Wallet, connect, failed, note_login, observe, open_everywhere, remember_place, report_keys, send_once,
    subject, unique, unsupported,
};
use super::config::{self, Keystore, Style, Want};
use super::{redo, restart};
use crate::oracle::ddl::{self, Force, QuoteError, Statement, WithBackup};
use crate::oracle::errors::{Class, OraError};
use crate::oracle::state::{self, KeyState, OldKeys};
use crate::oracle::views::{self, Container, Version};
use crate::oracle::{Db, Session};
use crate::step::{Context, Kind, StepError};
use serde_json::{Value, json};
use std::path::PathBuf;
use tde2hsm_protocol::survey::{Access, ActiveKey};
use tde2hsm_protocol::{Code, DatabaseOrder, Sid, Store, Timestamp};

/// One database of a rotation.
pub struct Member {
    pub order: DatabaseOrder,
    pub db: Db,
    pub credentials: Credentials,
    pub keystore: Keystore,
}

impl Member {
    pub fn sid(&self) -> &Sid {
        &self.order.sid
    }
}

/// Databases that share a `sqlnet.ora` stand together, others alone (H16).
pub fn groups(members: Vec<Member>) -> Vec<Vec<Member>> {
    let mut groups: Vec<(Option<PathBuf>, Vec<Member>)> = Vec::new();
    for member in members {
        let file = match &member.keystore.style {
            Style::Sqlnet { file } => Some(file.clone()),
            Style::WalletRoot => None,
        };
        match groups.iter_mut().find(|(other, _)| file.is_some() && *other == file) {
            Some((_, group)) => group.push(member),
            None => groups.push((file, vec![member])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Yes,
    No,
}

fn step_error(sid: &Sid, kind: Kind, code: Code, why: impl std::fmt::Display) -> StepError {
    StepError::new(kind, code, format!("{sid}: {why}")).of(sid)
}

/// What must hold before a key change (H3, H21).
pub fn preflight(db: &Db, s: &mut Session, state: &KeyState, from: Store, old_keys: OldKeys) -> Result<(), StepError> {
    let sid = db.sid();
    if state.version().is_none_or(|version| version < Version::V12_2) {
        return Err(unsupported(sid, &state.instance.version_text));
    }
    let database = &state.database;
    if database.role != "PRIMARY" || !database.read_write() || state.instance.restricted {
        let why = format!(
            "{} and {}{}",
            database.role,
            database.open_mode,
            if state.instance.restricted { ", restricted" } else { "" }
        );
        return Err(step_error(sid, Kind::Retriable, Code::DATABASE_NOT_OPEN, why));
    }
    if state.instance.archiver_stuck {
        return Err(step_error(sid, Kind::Retriable, Code::BLOCKED, "the archiver is stuck"));
    }
    for keys in &state.containers {
        let held = keys.key.is_some() || state.tablespaces_of(&keys.container).next().is_some();
        if held && keys.container.con_id > 1 && !keys.container.read_write() {
            let why = format!("{} is {}", keys.container.name, keys.container.open_mode);
            return Err(step_error(sid, Kind::Retriable, Code::CONTAINER_NOT_OPEN, why));
        }
    }
    if state.any_in(from) {
        blockers(db, s, state)?;
    }
    if let Some(space) = state.tablespaces.iter().find(|space| space.status != "NORMAL") {
        return Err(step_error(sid, Kind::Retriable, Code::BLOCKED, format!("tablespace {} is {}", space.name, space.status)));
    }
    if old_keys == OldKeys::Gone && state.any_in(from) {
        let left: Vec<_> =
            state.tablespaces.iter().filter(|space| space.access != Access::ReadWrite).map(|space| space.name.as_str()).collect();
        if !left.is_empty() {
            let why = format!("read-only or offline tablespaces would keep the former key: {}", left.join(", "));
            return Err(step_error(sid, Kind::Final, Code::OLD_KEY_NEEDED, why));
        }
        redo::nothing_older(db, s, old_keys)?;
    }
    Ok(())
}

/// What may have come up since the survey (H19, H21): only while there are keys to move.
fn blockers(db: &Db, s: &mut Session, state: &KeyState) -> Result<(), StepError> {
    let sid = db.sid();
    let fail = |error| failed(sid, error);
    let found = views::blockers(s, &state.instance).map_err(fail)?;
    let mut why = Vec::new();
    let mut say = |holds: bool, what: &str| {
        if holds {
            why.push(what.to_owned());
        }
    };
    say(state.instance.rac, "it is a RAC instance");
    say(views::data_guard(s).map_err(fail)?, "Data Guard is configured");
    say(views::capture(s).map_err(fail)?, "a capture process reads its redo");
    say(found.recovery_area_used.is_some_and(|used| used >= RECOVERY_AREA), "its recovery area is full");
    say(found.offline_datafiles > 0, "datafiles are offline");
    say(found.files_needing_recovery > 0, "files need recovery");
    // SHUTDOWN IMMEDIATE refuses with them (ORA-01149).
    say(found.backup_mode_files > 0, "datafiles are in backup mode");
    if why.is_empty() { Ok(()) } else { Err(step_error(sid, Kind::Retriable, Code::BLOCKED, why.join(", "))) }
}

/// Percent of the recovery area that is used for good, from which on a key change's log switches may get stuck.
const RECOVERY_AREA: u32 = 95;

/// A look that shows the store of every active key. V$ENCRYPTION_KEYS lists open keystores only, so what is closed is
/// opened, but nothing that the look can do without: an HSM that is down must not stand in the way of an undo (H29).
fn look(ctx: &mut Context<'_>, member: &Member, s: &mut Session) -> Result<KeyState, StepError> {
    let known = |state: &KeyState| state.keyed().all(|(_, key)| key.store.is_some());
    let state = observe(&member.db, s)?;
    if known(&state) {
        return Ok(state);
    }
    let wallet = Wallet::read(&member.db, s)?;
    let unreachable = match open_everywhere(ctx, &member.db, s, &wallet, Store::Hsm, &member.credentials) {
        Ok(()) => None,
        // No login was spent, so an OPEN of the other keystore cannot spend one either.
        Err(error) if error.code == Code::HSM_FAILED => Some(error),
        Err(error) => return Err(error),
    };
    open_everywhere(ctx, &member.db, s, &wallet, Store::Software, &member.credentials)?;
    let state = observe(&member.db, s)?;
    match unreachable {
        Some(error) if !known(&state) => Err(error),
        _ => Ok(state),
    }
}

/// Which way a rotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToSoftware,
    ToHsm,
}

impl Way {
    fn to(self) -> Store {
        match self {
            Way::ToSoftware => Store::Software,
            Way::ToHsm => Store::Hsm,
        }
    }
    fn want(self) -> Want {
        match self {
            Way::ToSoftware => Want::FileFirst,
            Way::ToHsm => Want::HsmFile,
        }
    }
    fn verb(self) -> &'static str {
        match self {
            Way::ToSoftware => "reverse migrate",
            Way::ToHsm => "migrate",
        }
    }
    fn statement(self, c: &Credentials, force: Force, backup: &WithBackup, s: &Session) -> Result<Statement, QuoteError> {
        let pin = c.hsm.as_ref().ok_or(QuoteError::Empty { what: "the HSM's PIN" })?;
        match self {
            Way::ToSoftware => ddl::reverse_migrate(c.software(), pin.hsm(), force, backup, &s.limits()),
            Way::ToHsm => ddl::migrate(pin.hsm(), c.software(), force, backup, &s.limits()),
        }
    }
    fn set_key(self, c: &Credentials, force: Force, backup: &WithBackup, s: &Session) -> Result<Statement, QuoteError> {
        let pin = c.hsm.as_ref().ok_or(QuoteError::Empty { what: "the HSM's PIN" })?;
        match self {
            Way::ToSoftware => ddl::set_key_software(c.software(), force, backup, &s.limits()),
            Way::ToHsm => ddl::set_key_hsm(pin.hsm(), &s.limits()),
        }
    }
}

/// Whether all of these may be rotated out of the HSM.
pub fn may_leave(ctx: &mut Context<'_>, group: &[Member], old_keys: OldKeys) -> Result<(), StepError> {
    group.iter().try_for_each(|member| seen_fit(ctx, member, old_keys).map(drop))
}

/// A look at one of them, by which it may be rotated out of the HSM or is in software already.
fn seen_fit(ctx: &mut Context<'_>, member: &Member, old_keys: OldKeys) -> Result<KeyState, StepError> {
    let mut s = connect(&member.db)?;
    let state = look(ctx, member, &mut s)?;
    preflight(&member.db, &mut s, &state, Store::Hsm, old_keys)?;
    s.close();
    Ok(state)
}

/// From the HSM behind the library in place into the software keystore, for a whole group (H16).
pub fn to_software(ctx: &mut Context<'_>, group: &[Member], old_keys: OldKeys) -> Result<Changed, StepError> {
    let mut waiting = Vec::new();
    for member in group {
        let state = seen_fit(ctx, member, old_keys)?;
        if !state.all_in(Store::Software) || state.any_half_done() {
            waiting.push((member, state.all_in(Store::Software)));
        }
    }
    let outcome = waiting.iter().try_for_each(|(member, there)| {
        if *there {
            // A migrate was broken off: it is finished first, for METHOD=FILE alone cannot reach the keys it has made.
            rotate(ctx, member, Way::ToHsm)?;
        }
        rotate(ctx, member, Way::ToSoftware)
    });
    if let Err(error) = outcome {
        // Everything stays readable: METHOD=FILE would hide the HSM from whatever is still in it.
        fall_back(ctx, group)?;
        return Err(error);
    }
    for member in group {
        prove(ctx, member, Way::ToSoftware, old_keys)?;
    }
    Ok(if waiting.is_empty() { Changed::No } else { Changed::Yes })
}

/// From the software keystore into the HSM behind the library in place.
pub fn to_hsm(ctx: &mut Context<'_>, member: &Member) -> Result<Changed, StepError> {
    let mut s = connect(&member.db)?;
    let state = look(ctx, member, &mut s)?;
    preflight(&member.db, &mut s, &state, Store::Software, OldKeys::Reachable)?;
    s.close();
    let done = state.all_in(Store::Hsm) && !state.any_half_done();
    if !done {
        rotate(ctx, member, Way::ToHsm)?;
    }
    prove(ctx, member, Way::ToHsm, OldKeys::Reachable)?;
    Ok(if done { Changed::No } else { Changed::Yes })
}

/// After a failure: whatever was moved and whatever was not is reachable for new sessions and after a restart.
fn fall_back(ctx: &mut Context<'_>, group: &[Member]) -> Result<(), StepError> {
    for member in group {
        let Ok(mut s) = connect(&member.db) else { continue };
        let Ok(state) = observe(&member.db, &mut s) else { continue };
        // A keystore that each session opens for itself is closed here (U8): a key of which nothing is known may have moved.
        let untouched = state.keyed().next().is_some() && state.all_in(Store::Hsm) && !state.any_half_done();
        if untouched && group.len() == 1 {
            config::restore_former(ctx, &member.db, &member.keystore, &mut s)?;
        } else {
            config::configure(ctx, &member.db, &member.keystore, &mut s, Want::HsmFile)?;
        }
        s.close();
    }
    Ok(())
}

/// Configuration first, then in a new session: open, one statement, and SET KEY where a container was left behind.
fn rotate(ctx: &mut Context<'_>, member: &Member, way: Way) -> Result<(), StepError> {
    let db = &member.db;
    let sid = db.sid().clone();
    let mut s = connect(db)?;
    config::configure(ctx, db, &member.keystore, &mut s, way.want())?;
    s.close();
    let mut s = connect(db)?;
    let mut wallet = Wallet::read(db, &mut s)?;
    if !in_effect(&wallet, way) {
        s = restarted(ctx, member, s, "the configuration is not in effect in a new session")?;
        wallet = Wallet::read(db, &mut s)?;
    }
    if !in_effect(&wallet, way) {
        let why = "the configuration is not in effect, not even after a restart";
        return Err(step_error(&sid, Kind::Final, Code::CONFIGURATION_REFUSED, why));
    }
    let moved = |key: &ActiveKey| key.store == Some(way.to());
    let root = |state: &KeyState| state.keyed().find(|(keys, _)| keys.container.con_id <= 1).map(|(_, key)| key.clone());
    for attempt in 0..2 {
        // A MIGRATE opens the software keystore itself (FORCE KEYSTORE): an OPEN of it while the HSM is closed might
        // be put to the HSM as well, and cost a login (H48).
        if way == Way::ToSoftware {
            open_everywhere(ctx, db, &mut s, &wallet, Store::Hsm, &member.credentials)?;
            open_everywhere(ctx, db, &mut s, &wallet, Store::Software, &member.credentials)?;
        } else if wallet.is_open(Store::Software, 1) {
            open_everywhere(ctx, db, &mut s, &wallet, Store::Software, &member.credentials)?;
        }
        let state = observe(db, &mut s)?;
        if root(&state).as_ref().is_some_and(moved) {
            break;
        }
        if way == Way::ToHsm && state.database.cdb && !wallet.is_open(Store::Software, 1) {
            // A keystore that each session opens for itself (U8) has to be open in the pluggable databases, too; in
            // one statement, so that at most one login is at stake; the MIGRATE's own follows and clears it. Not the HSM
            // before it: an OPEN may answer 28353 while the active key is not on its token (O§3.9).
            let open = ddl::open_software(member.credentials.software(), ddl::Containers::All, &s.limits());
            s.run(&open.map_err(|error| failed(&sid, error.into()))?).map_err(|error| failed(&sid, error))?;
        }
        if ctx.recall(&subject(&sid), way.verb()).is_none() {
            ctx.remember(subject(&sid), way.verb(), json!({ "since": ctx.clock.now(), "keys": state.ids() }))?;
        }
        let force = if wallet.needs_force() { Force::Yes } else { Force::No };
        let backup = WithBackup::unique(if way == Way::ToHsm { "mg" } else { "rm" }, &unique(ctx));
        let statement = way.statement(&member.credentials, force, &backup, &s).map_err(|error| failed(&sid, error.into()))?;
        remember_place(ctx, &sid, None)?;
        let sent = send_once(ctx, db, &mut s, way.verb(), &statement)?;
        match refusal(&sent) {
            Some(error) if error.is(46623) || error.is(46631) => clause_fix(ctx, member, &mut s, way, force, &state, &error)?,
            // The configuration in memory is not the one that counts (U9): refused before anything was tried, so
            // it goes out again after a restart, where a look has shown that nothing changed.
            Some(error) if attempt == 0 && (error.is(28414) || error.is(28415)) && observe(db, &mut s)?.ids() == state.ids() => {
                s = restarted(ctx, member, s, &error.to_string())?;
                wallet = Wallet::read(db, &mut s)?;
                continue;
            }
            _ => judge(ctx, member, &mut s, way, &sent, &statement)?,
        }
        break;
    }
    let mut state = look(ctx, member, &mut s)?;
    let behind: Vec<Container> = state
        .keyed()
        .filter(|(keys, key)| (keys.container.con_id > 1 && !moved(key)) || state.is_half_done(keys))
        .map(|(keys, _)| keys.container.clone())
        .collect();
    for container in &behind {
        set_key(ctx, member, &mut s, way, container)?;
    }
    if !behind.is_empty() {
        state = observe(db, &mut s)?;
    }
    changed_everywhere(ctx, &sid, way, &state)?;
    redo::clean(ctx, db, &mut s)?;
    s.close();
    Ok(())
}

fn in_effect(wallet: &Wallet, way: Way) -> bool {
    wallet.has(way.to()) && (way == Way::ToSoftware || wallet.has(Store::Software))
}

/// A clean restart for a configuration that takes effect at a start alone (U9). Its redo may need the former key, which
/// the library in place still reaches.
fn restarted(ctx: &mut Context<'_>, member: &Member, s: Session, why: &str) -> Result<Session, StepError> {
    s.close();
    ctx.intend(subject(member.sid()), "restart", json!({ "why": why }))?;
    restart::stop(ctx, &member.db)?;
    restart::start(ctx, &member.db, &member.credentials)?;
    connect(&super::common::db(ctx, member.sid())?)
}

fn refusal(sent: &Sent) -> Option<OraError> {
    match sent {
        Sent::Answered(answer) => answer.worst().filter(|error| error.class() > Class::Ok).cloned(),
        Sent::Unknown => None,
    }
}

/// WITH BACKUP is wanted or not possible (ORA-46631, 46623): nothing was begun, which a look confirms, and the statement
/// goes out once more with the other clause. The one exception of H11.
fn clause_fix(
    ctx: &mut Context<'_>,
    member: &Member,
    s: &mut Session,
    way: Way,
    force: Force,
    before: &KeyState,
    error: &OraError,
) -> Result<(), StepError> {
    let db = &member.db;
    let sid = db.sid().clone();
    let after = observe(db, s)?;
    if after.ids() != before.ids() {
        let why = format!("{error} although a key has changed");
        return Err(step_error(&sid, Kind::Stuck, Code::STATEMENT_FAILED, why));
    }
    let backup = if error.is(46623) {
        // The copy that the clause would have made.
        super::prepare_keystore::copy_files(ctx, db, &member.keystore.dir, "before-migrate")?;
        WithBackup::Without
    } else {
        WithBackup::unique("fix", &unique(ctx))
    };
    let statement = way.statement(&member.credentials, force, &backup, s).map_err(|error| failed(&sid, error.into()))?;
    let sent = send_once(ctx, db, s, way.verb(), &statement)?;
    judge(ctx, member, s, way, &sent, &statement)
}

/// Nothing but success, or a code that says it was done, goes on; what really became of it the look after this says.
fn judge(
    ctx: &mut Context<'_>,
    member: &Member,
    s: &mut Session,
    way: Way,
    sent: &Sent,
    statement: &Statement,
) -> Result<(), StepError> {
    let db = &member.db;
    let sid = db.sid();
    match sent {
        Sent::Answered(_) => match refusal(sent) {
            None => Ok(()),
            Some(error) if error.class() == Class::Done => Ok(()),
            Some(error) => {
                if let Some(pin) = &member.credentials.hsm {
                    note_login(ctx, pin, &error);
                }
                let kind = match (way, error.code()) {
                    (_, Code::OLD_KEY_MISSING) => Kind::Stuck,
                    // Every database of the host is open and reads; the provider stays (H29).
                    (Way::ToHsm, _) => Kind::Parked,
                    (Way::ToSoftware, _) => Kind::Final,
                };
                Err(super::common::refused(sid, kind, statement, &error))
            }
        },
        Sent::Unknown => {
            *s = connect(db)?;
            let state = look(ctx, member, s)?;
            let root = state.keyed().find(|(keys, _)| keys.container.con_id <= 1);
            if root.is_some_and(|(_, key)| key.store == Some(way.to())) {
                return Ok(());
            }
            let why = format!("the session of `{}` was lost and has ended; the active key did not change", way.verb());
            Err(step_error(sid, Kind::Retriable, Code::SESSION_LOST, why))
        }
    }
}

/// A container that the statement in the root left behind (U5), or in which a rotation the other way was broken off.
fn set_key(ctx: &mut Context<'_>, member: &Member, s: &mut Session, way: Way, container: &Container) -> Result<(), StepError> {
    let db = &member.db;
    let sid = db.sid().clone();
    let wallet = Wallet::read(db, s)?;
    open_everywhere(ctx, db, s, &wallet, way.to(), &member.credentials)?;
    let wallet = Wallet::read(db, s)?;
    open_everywhere(ctx, db, s, &wallet, Store::Software, &member.credentials)?;
    let force = if wallet.needs_force() { Force::Yes } else { Force::No };
    let backup = WithBackup::unique("pdb", &unique(ctx));
    let statement = way.set_key(&member.credentials, force, &backup, s).map_err(|error| failed(&sid, error.into()))?;
    let limits = s.limits();
    let enter = |name: &str| ddl::set_container(name, &limits).map_err(|error| failed(&sid, error.into()));
    let inside = container.con_id > 1;
    if inside {
        s.run(&enter(container.name.as_str())?).map_err(|error| failed(&sid, error))?;
    }
    let action = format!("set key in {}", container.name);
    remember_place(ctx, &sid, None)?;
    let sent = send_once(ctx, db, s, &action, &statement)?;
    match &sent {
        Sent::Unknown => {
            let why = format!("the session of `{action}` was lost and has ended");
            Err(step_error(&sid, Kind::Retriable, Code::SESSION_LOST, why))
        }
        Sent::Answered(_) => {
            if let Some(error) = refusal(&sent) {
                if let Some(pin) = &member.credentials.hsm {
                    note_login(ctx, pin, &error);
                }
                let kind = if way == Way::ToHsm { Kind::Parked } else { Kind::Final };
                return Err(super::common::refused(&sid, kind, &statement, &error));
            }
            if inside {
                s.run(&enter(tde2hsm_protocol::ContainerName::ROOT)?).map_err(|error| failed(&sid, error))?;
            }
            Ok(())
        }
    }
}

/// Item 1 of `O§3.7`: each container's key is another than before this campaign's rotation.
fn changed_everywhere(ctx: &Context<'_>, sid: &Sid, way: Way, state: &KeyState) -> Result<(), StepError> {
    let Some(before) = ctx.recall(&subject(sid), way.verb()) else { return Ok(()) };
    for (keys, key) in state.keyed() {
        if before["keys"][keys.container.name.as_str()] == Value::String(key.id.to_string()) && key.store != Some(way.to()) {
            let why = format!("{}: the active key is still {}", keys.container.name, key.id);
            return Err(step_error(sid, Kind::Retriable, Code::KEYS_NOT_PROVEN, why));
        }
    }
    Ok(())
}

/// `O§3.7` items 1 to 4, and what the report says of it.
pub fn prove(ctx: &mut Context<'_>, member: &Member, way_to: impl Into<Store>, old_keys: OldKeys) -> Result<KeyState, StepError> {
    let to = way_to.into();
    let db = &member.db;
    let sid = db.sid().clone();
    let mut s = connect(db)?;
    let wallet = Wallet::read(db, &mut s)?;
    let needed = if wallet.is_open(to, 0) { None } else { Some(to) };
    if let Some(store) = needed {
        open_everywhere(ctx, db, &mut s, &wallet, store, &member.credentials)?;
    }
    let state = observe(db, &mut s)?;
    let mut faults = state.faults(to, old_keys);
    if let Some(row) = wallet.root(to)
        && row.wallet_order == "SECONDARY"
    {
        faults.push(format!("the {} keystore is SECONDARY in V$ENCRYPTION_WALLET", state::word(to)));
    }
    if !wallet.has(to) {
        faults.push(format!("V$ENCRYPTION_WALLET has no {} keystore", state::word(to)));
    }
    s.close();
    report_keys(ctx, &sid, &state);
    let verb = if to == Store::Hsm { "migrate" } else { "reverse migrate" };
    if let Some(since) = ctx.recall(&subject(&sid), verb).and_then(|value| value["since"].as_i64()) {
        let orphans = state.orphans(to, Timestamp(since));
        if !orphans.is_empty() {
            // By the label that a person finds it under (`O§3.9`); never deleted (H9).
            let label = |id: &tde2hsm_protocol::MasterKeyId| match to {
                Store::Hsm => format!("ORACLE.TDE.HSM.MK.06{id}"),
                Store::Software => id.to_string(),
            };
            let labels: Vec<_> = orphans.iter().map(label).collect();
            ctx.observed(subject(&sid), "orphan keys", json!({ "store": to, "labels": labels }))?;
        }
        ctx.results.database(&sid).orphans = u16::try_from(orphans.len()).unwrap_or(u16::MAX);
    }
    if faults.is_empty() {
        ctx.observed(subject(&sid), "keys proven", json!({ "store": to, "keys": state.ids() }))?;
        remember_place(ctx, &sid, Some(to))?;
        return Ok(state);
    }
    Err(step_error(&sid, Kind::Retriable, Code::KEYS_NOT_PROVEN, faults.join("; ")))
}

impl From<Way> for Store {
    fn from(way: Way) -> Store {
        way.to()
    }
}
