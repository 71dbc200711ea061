//! `prepare-keystore`: the software keystore is there and its password is known, before anything changes (H14).
//!
//! OPEN proves nothing on a keystore that is open. A keystore that lies there already is proven by BACKUP KEYSTORE into
//! a directory of our own while the configuration names it; while it names an HSM alone, BACKUP KEYSTORE ends in
//! ORA-00600 (`O§1.3`), and a *copy* of the file is merged into a keystore of our own, which opens it with the same
//! password check and touches neither file nor configuration. No file is ever replaced or removed; undo keeps them.

use super::common::{connect, failed, orders, send_once, subject, unique};
use super::config::{self, Keystore};
use super::restart;
use crate::oracle::ddl::{self, Force, SoftwarePassword, WithBackup};
use crate::oracle::errors::Class;
use crate::oracle::{Db, Session};
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::json;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::{Code, DatabaseOrder};

pub struct PrepareKeystore;

pub const P12: &str = "ewallet.p12";
pub const SSO: &str = "cwallet.sso";

impl StepBody for PrepareKeystore {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut end = StepEnd::AlreadyDone;
        for order in orders(ctx) {
            if prepare(ctx, &order)? {
                end = StepEnd::Done;
            }
        }
        Ok(if ctx.databases().is_empty() { StepEnd::Nothing } else { end })
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}

/// Where our own copies of a keystore's files go: beside the keystore, so that a rename and the owner's rights do.
pub fn aside(ctx: &Context<'_>, dir: &Path, what: &str) -> PathBuf {
    let parent = dir.parent().unwrap_or(dir);
    parent.join("tde2hsm").join(format!("{}-{what}", ctx.order.campaign))
}

/// Copies of the keystore's files, each with its hash in the journal.
pub fn copy_files(ctx: &mut Context<'_>, db: &Db, dir: &Path, what: &str) -> Result<Vec<PathBuf>, StepError> {
    let to = aside(ctx, dir, what);
    let mut files = db.owner.files()?;
    let mut copies = Vec::new();
    for name in [P12, SSO] {
        let path = dir.join(name);
        if files.stat(&path)?.is_some() {
            let kept = files.copy_into(&path, &to)?;
            ctx.observed(subject(db.sid()), "keystore file copied", json!(kept))?;
            copies.push(kept.to);
        }
    }
    Ok(copies)
}

fn prepare(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<bool, StepError> {
    let sid = &order.sid;
    if restart::in_window(ctx, sid)? {
        return Ok(false);
    }
    let db = restart::ensure_up(ctx, order)?;
    let mut s = connect(&db)?;
    let keystore = config::keystore(ctx, &db, &mut s)?;
    let mut files = db.owner.files()?;
    let p12 = files.stat(&keystore.dir.join(P12))?;
    let sso = files.stat(&keystore.dir.join(SSO))?;
    // Before anything changes: whether it opens by itself today, for the undo.
    if ctx.recall(&subject(sid), "had-auto-login").is_none() {
        ctx.remember(subject(sid), "had-auto-login", json!(sso.is_some()))?;
    }
    let secret = ctx.secrets.get(order.software)?;
    let password = SoftwarePassword(secret.reveal());
    let made = match p12 {
        Some(_) => false,
        None if sso.is_some() => {
            let message = format!("{sid}: `{}` holds an auto-login keystore without its `{P12}`", keystore.dir.display());
            return Err(StepError::new(Kind::Final, Code::KEYSTORE_OCCUPIED, message).of(sid));
        }
        None => {
            files.make_dir(&keystore.dir, 0o700)?;
            let dir = keystore.dir.display().to_string();
            let statement = ddl::create_keystore(&dir, password, &s.limits()).map_err(|e| failed(sid, e.into()))?;
            super::common::send_once_ok(ctx, &db, &mut s, "create keystore", &statement)?;
            true
        }
    };
    let mode = files.stat(&keystore.dir.join(P12))?.ok_or_else(|| {
        let message = format!("{sid}: `{}` holds no `{P12}`", keystore.dir.display());
        StepError::new(Kind::Retriable, Code::KEYSTORE_MISSING, message).of(sid)
    })?;
    if mode.mode & 0o077 != 0 {
        files.set_mode(&keystore.dir.join(P12), 0o600)?;
    }
    let proven = prove_password(ctx, &db, &mut s, &keystore, order, password)?;
    s.close();
    Ok(made || proven)
}

/// The password of a keystore that opens with it today, proven in `stage` (H14) on a copy in the runner's own directory:
/// BACKUP KEYSTORE would write into the keystore itself that it has been backed up.
pub fn prove_in_stage(ctx: &mut Context<'_>, db: &Db, order: &DatabaseOrder) -> Result<(), StepError> {
    let mut s = connect(db)?;
    let keystore = config::keystore(ctx, db, &mut s)?;
    let secret = ctx.secrets.get(order.software)?;
    let to = crate::files::scratch(ctx.paths, db.owner.uid, db.owner.gid)?;
    let proven = prove_on_copy(ctx, db, &mut s, &keystore, &to, SoftwarePassword(secret.reveal()));
    s.close();
    proven
}

/// Merges a copy of the keystore into a keystore of ours below `to`: that takes the copy's password, and nothing of the
/// database's own is written.
fn prove_on_copy(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    keystore: &Keystore,
    to: &Path,
    password: SoftwarePassword<'_>,
) -> Result<(), StepError> {
    let word = unique(ctx);
    let limits = s.limits();
    let quoted = |error| failed(db.sid(), ddl_error(error));
    let copy = db.owner.files()?.copy_into(&keystore.dir.join(P12), &to.join(format!("copy-{word}")))?;
    let ours = to.join(format!("own-{word}"));
    db.owner.files()?.make_dir(&ours, 0o700)?;
    let ours = ours.display().to_string();
    let from = copy.to.parent().unwrap_or(to).display().to_string();
    let create = ddl::create_keystore(&ours, password, &limits).map_err(quoted)?;
    password_statement(ctx, db, s, "make a keystore of our own", &create)?;
    let backup = WithBackup::unique("proof", &word);
    let merge = ddl::merge_keystore(&from, password, &ours, password, &backup, &limits).map_err(quoted)?;
    password_statement(ctx, db, s, "prove the software password", &merge)
}

/// True when a proof was made; false when this version of the password was proven on this keystore before in this
/// campaign: our own statements change the file since, and each of them checks the password again.
fn prove_password(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    keystore: &Keystore,
    order: &DatabaseOrder,
    password: SoftwarePassword<'_>,
) -> Result<bool, StepError> {
    let sid = db.sid().clone();
    let fact = json!({ "secret": ctx.order.secret(order.software), "dir": keystore.dir });
    if ctx.recall(&subject(&sid), "password-proven").as_ref() == Some(&fact) {
        return Ok(false);
    }
    let now = config::now(db, keystore, s)?;
    let to = aside(ctx, &keystore.dir, "password");
    db.owner.files()?.make_dir(&to, 0o700)?;
    if now.names_file() {
        let id = format!("tde2hsm_{}", unique(ctx));
        let statement = ddl::backup_keystore(&id, password, &to.display().to_string(), Force::Yes, &s.limits());
        let statement = statement.map_err(|error| failed(&sid, ddl_error(error)))?;
        password_statement(ctx, db, s, "prove the software password", &statement)?;
    } else {
        prove_on_copy(ctx, db, s, keystore, &to, password)?;
    }
    ctx.remember(subject(&sid), "password-proven", fact)?;
    Ok(true)
}

fn ddl_error(error: ddl::QuoteError) -> crate::oracle::SessionError {
    error.into()
}

fn password_statement(
    ctx: &mut Context<'_>,
    db: &Db,
    s: &mut Session,
    action: &str,
    statement: &ddl::Statement,
) -> Result<(), StepError> {
    let sid = db.sid();
    match send_once(ctx, db, s, action, statement)? {
        super::common::Sent::Answered(answer) => match answer.worst().filter(|error| error.class() > Class::Ok) {
            None => Ok(()),
            Some(error) => {
                let mut refused = super::common::refused(sid, Kind::Final, statement, error);
                if error.is(46627) || error.is(28353) {
                    refused.code = Code::LOGIN_REFUSED;
                }
                Err(refused)
            }
        },
        super::common::Sent::Unknown => {
            let message = format!("{sid}: the session of `{action}` was lost and has ended");
            Err(StepError::new(Kind::Retriable, Code::SESSION_LOST, message).of(sid))
        }
    }
}
