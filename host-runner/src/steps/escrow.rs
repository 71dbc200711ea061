//! `escrow`: every keystore file off the host, read back and compared (H5).
//!
//! Between the reverse migrate and the migrate the interim keystore is the only copy of the keys, on one disk. Each
//! content has a name of its own in Secrets Manager, so nothing that was kept is ever replaced.

use super::common::{all_places, orders, subject};
use super::config;
use super::prepare_keystore::{P12, SSO};
use crate::oracle::Db;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::{Value, json};
use std::path::Path;
use tde2hsm_protocol::{Code, Digest, Sid};
use zeroize::Zeroizing;

pub struct Escrow;

impl StepBody for Escrow {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut end = if ctx.databases().is_empty() { StepEnd::Nothing } else { StepEnd::AlreadyDone };
        for order in orders(ctx) {
            if keep(ctx, &order.sid)? {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}

/// Works on files alone, so that a database may be down.
pub fn keep(ctx: &mut Context<'_>, sid: &Sid) -> Result<bool, StepError> {
    if ctx.order.escrow.is_none() {
        return Err(StepError::new(Kind::Final, Code::ESCROW_FAILED, "the order does not say where keystore files go"));
    }
    let place = all_places(ctx)?.into_iter().find(|place| place.sid == *sid).ok_or_else(|| {
        StepError::new(Kind::Final, Code::DATABASE_UNKNOWN, format!("neither oratab nor a process names `{sid}`")).of(sid)
    })?;
    let keystore = config::remembered(ctx, sid).ok_or_else(|| {
        StepError::new(Kind::Retriable, Code::KEYSTORE_MISSING, format!("{sid}: no keystore directory is known yet")).of(sid)
    })?;
    let db = Db::new(ctx.paths, place)?;
    let mut kept = false;
    for name in [P12, SSO] {
        kept |= keep_file(ctx, &db, &keystore.dir, name)?;
    }
    Ok(kept)
}

fn keep_file(ctx: &mut Context<'_>, db: &Db, dir: &Path, name: &str) -> Result<bool, StepError> {
    let sid = db.sid();
    let Some(bytes) = db.owner.files()?.read(&dir.join(name))? else {
        if name == P12 {
            let message = format!("{sid}: `{}` holds no `{P12}`", dir.display());
            return Err(StepError::new(Kind::Retriable, Code::KEYSTORE_MISSING, message).of(sid));
        }
        return Ok(false);
    };
    let bytes = Zeroizing::new(bytes);
    let digest = Digest::of(&bytes);
    let fact = format!("escrowed {name}");
    let known = ctx.recall(&subject(sid), &fact).and_then(|value| value.get("sha256").cloned());
    if known == Some(Value::String(digest.to_string())) {
        return Ok(false);
    }
    let Some(escrow) = ctx.order.escrow.clone() else { return Ok(false) };
    ctx.intend(subject(sid), "escrow", json!({ "file": name, "sha256": digest }))?;
    let escrowed = ctx.secrets.escrow(&escrow, sid, name, &bytes).map_err(|error| StepError::from(error).of(sid))?;
    ctx.remember(subject(sid), &fact, serde_json::to_value(&escrowed).expect("plain data serialises"))?;
    Ok(true)
}
