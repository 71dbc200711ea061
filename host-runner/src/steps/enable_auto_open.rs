//! `enable-auto-open`: the keystore opens by itself after a restart, where the fleet file wants that (H15).
//!
//! Order matters (`O§1.7`): the secret is in `ewallet.p12` before the auto-login keystore is made of it, the library it
//! belongs to is in place, and only then does an auto-login file lie under `HSM|FILE` at all (H12). An auto-login file
//! that lies there is moved aside, never replaced. What the files hold cannot be read, so a second run knows by their
//! hashes, which the journal has, that they are the ones it made. The undo takes our file away; the former secret comes
//! back with the former library, in the undo of `reverse-migrate` and `swap-provider`.

use super::common::{connect, failed, orders, send_once, subject, unique};
use super::config::{self, Want};
use super::prepare_keystore::{P12, SSO, aside};
use super::reverse_migrate::member;
use super::rotate::Member;
use crate::oracle::ddl::{self, HsmPin, SecretVerb, WithBackup};
use crate::oracle::errors::Class;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::{Value, json};
use tde2hsm_protocol::{AutoOpen, Code, DatabaseOrder, Digest, Sid, Source};
use zeroize::Zeroizing;

pub struct EnableAutoOpen;

impl StepBody for EnableAutoOpen {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut end = if ctx.databases().is_empty() { StepEnd::Nothing } else { StepEnd::AlreadyDone };
        for order in orders(ctx) {
            let auto_open = order.auto_open;
            let member = member(ctx, order)?;
            let mut s = connect(&member.db)?;
            let mut changed = config::configure(ctx, &member.db, &member.keystore, &mut s, Want::HsmFile)?;
            s.close();
            if auto_open == AutoOpen::Enable {
                changed |= enable(ctx, &member)?;
            }
            changed |= super::escrow::keep(ctx, member.sid())?;
            if changed {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut end = StepEnd::AlreadyDone;
        for order in orders(ctx) {
            let sid = order.sid.clone();
            let Some(keystore) = config::remembered(ctx, &sid) else { continue };
            let db = super::common::db(ctx, &sid)?;
            let ours = ctx.recall(&subject(&sid), "auto-open").filter(|value| !value.is_null());
            let mut files = db.owner.files()?;
            let there = files.read(&keystore.dir.join(SSO))?.map(|bytes| Digest::of(&Zeroizing::new(bytes)));
            if let (Some(ours), Some(there)) = (ours, there)
                && ours["sso"] == Value::String(there.to_string())
            {
                move_aside(ctx, &sid, "undone")?;
                ctx.remember(subject(&sid), "auto-open", Value::Null)?;
                end = StepEnd::Undone;
            }
            // A database that opened from the old HSM by itself has had a secret, which the undo of `reverse-migrate`
            // puts back.
            let had_secret = opened_by_itself(ctx, &sid) && matches!(order.source, Source::OldHsm { .. });
            if secret_put(ctx, &sid) && !had_secret {
                take_secret_out(ctx, &order)?;
                end = StepEnd::Undone;
            }
        }
        Ok(if ctx.databases().is_empty() { StepEnd::Nothing } else { end })
    }
}

/// Our secret is in the keystore.
fn secret_put(ctx: &Context<'_>, sid: &Sid) -> bool {
    ctx.recall(&subject(sid), "secret-put") == Some(Value::Bool(true))
}

/// Where there was none before, the PIN of CloudHSM must not stay in the keystore: an auto-login file that someone made
/// of it later would log in to the former HSM with it (H12). A secret is no key.
fn take_secret_out(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<(), StepError> {
    let sid = order.sid.clone();
    let member = member(ctx, order.clone())?;
    let mut s = connect(&member.db)?;
    let backup = WithBackup::unique("secret", &unique(ctx));
    let statement = ddl::delete_hsm_secret(member.credentials.software(), &backup, &s.limits())
        .map_err(|error| failed(&sid, error.into()))?;
    match send_once(ctx, &member.db, &mut s, "take secret out", &statement)? {
        super::common::Sent::Unknown => {
            let message = format!("{sid}: the session of `take secret out` was lost and has ended");
            return Err(StepError::new(Kind::Retriable, Code::SESSION_LOST, message).of(&sid));
        }
        super::common::Sent::Answered(answer) => {
            // Gone already: a turn before this one took it out and was not heard.
            if let Some(error) = answer.worst().filter(|error| error.class() > Class::Ok && !error.is(46670)) {
                return Err(super::common::refused(&sid, Kind::Final, &statement, error));
            }
        }
    }
    s.close();
    ctx.remember(subject(&sid), "secret-put", Value::Null)
}

/// The database opened by itself when the campaign came.
pub fn opened_by_itself(ctx: &Context<'_>, sid: &Sid) -> bool {
    ctx.recall(&subject(sid), "had-auto-login") == Some(Value::Bool(true))
}

/// Moves the auto-login file aside, into a directory of this campaign beside the keystore. The files it left there are
/// told by the journal; none is ever replaced.
pub fn move_aside(ctx: &mut Context<'_>, sid: &Sid, why: &str) -> Result<bool, StepError> {
    let Some(keystore) = config::remembered(ctx, sid) else { return Ok(false) };
    let db = super::common::db(ctx, sid)?;
    let path = keystore.dir.join(SSO);
    let mut files = db.owner.files()?;
    if files.stat(&path)?.is_none() {
        return Ok(false);
    }
    let to = aside(ctx, &keystore.dir, "auto-login");
    ctx.intend(subject(sid), "move auto-login aside", json!({ "file": path, "to": to, "why": why }))?;
    let kept = files.move_into(&path, &to)?;
    ctx.observed(subject(sid), "move auto-login aside", json!(kept))?;
    Ok(true)
}

fn hashes(member: &Member) -> Result<Value, StepError> {
    let mut files = member.db.owner.files()?;
    let mut hash = |name: &str| -> Result<Option<Digest>, StepError> {
        let bytes = files.read(&member.keystore.dir.join(name))?;
        Ok(bytes.map(|bytes| Digest::of(&Zeroizing::new(bytes))))
    };
    Ok(json!({ "p12": hash(P12)?, "sso": hash(SSO)? }))
}

/// The secret of the HSM behind the library in place, then an auto-login keystore of it.
pub fn enable(ctx: &mut Context<'_>, member: &Member) -> Result<bool, StepError> {
    let sid = member.sid().clone();
    let Some(pin) = member.credentials.hsm.clone() else { return Ok(false) };
    let secret_of = ctx.order.secret(pin.index).cloned();
    let mut found = hashes(member)?;
    found["secret"] = json!(secret_of);
    if !found["sso"].is_null() && ctx.recall(&subject(&sid), "auto-open").as_ref() == Some(&found) {
        return Ok(false);
    }
    let mut s = connect(&member.db)?;
    put_secret(ctx, member, &mut s, pin.hsm())?;
    move_aside(ctx, &sid, "replaced")?;
    let dir = member.keystore.dir.display().to_string();
    let statement =
        ddl::create_auto_login(&dir, member.credentials.software(), &s.limits()).map_err(|error| failed(&sid, error.into()))?;
    super::common::send_once_ok(ctx, &member.db, &mut s, "create auto-login keystore", &statement)?;
    s.close();
    let mut made = hashes(member)?;
    if made["sso"].is_null() {
        let message = format!("{sid}: `{dir}` holds no `{SSO}` after CREATE AUTO_LOGIN KEYSTORE");
        return Err(StepError::new(Kind::Retriable, Code::KEYSTORE_NOT_WRITTEN, message).of(&sid));
    }
    member.db.owner.files()?.set_mode(&member.keystore.dir.join(SSO), 0o600)?;
    made["secret"] = json!(secret_of);
    ctx.remember(subject(&sid), "auto-open", made)?;
    Ok(true)
}

/// ADD SECRET, or UPDATE SECRET where there is one. No view says which, and the code of the wrong one is not known
/// (U, `O§10` R16); neither goes to the HSM, so the other may follow, unless the refusal speaks of the password.
fn put_secret(ctx: &mut Context<'_>, member: &Member, s: &mut crate::oracle::Session, pin: HsmPin<'_>) -> Result<(), StepError> {
    let sid = member.sid().clone();
    let had = opened_by_itself(ctx, &sid) && matches!(member.order.source, Source::OldHsm { .. });
    let known = had || secret_put(ctx, &sid);
    let order = if known { [SecretVerb::Update, SecretVerb::Add] } else { [SecretVerb::Add, SecretVerb::Update] };
    let mut refusal = None;
    for verb in order {
        let backup = WithBackup::unique("secret", &unique(ctx));
        let statement = ddl::hsm_secret(verb, pin, member.credentials.software(), &backup, &s.limits())
            .map_err(|error| failed(&sid, error.into()))?;
        match send_once(ctx, &member.db, s, "put secret", &statement)? {
            super::common::Sent::Unknown => {
                let message = format!("{sid}: the session of `put secret` was lost and has ended");
                return Err(StepError::new(Kind::Retriable, Code::SESSION_LOST, message).of(&sid));
            }
            super::common::Sent::Answered(answer) => match answer.worst().filter(|error| error.class() > Class::Ok) {
                None => {
                    ctx.remember(subject(&sid), "secret-put", Value::Bool(true))?;
                    return Ok(());
                }
                Some(error) if [46627, 28353, 28417, 28365, 46631, 46623].iter().any(|ora| error.is(*ora)) => {
                    return Err(super::common::refused(&sid, Kind::Final, &statement, error));
                }
                Some(error) => refusal = Some(super::common::refused(&sid, Kind::Final, &statement, error)),
            },
        }
    }
    Err(refusal.expect("both verbs were refused"))
}
