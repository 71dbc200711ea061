//! `restart-proof`: a clean restart, after which the keystore opens, by itself or with the password, and every encrypted
//! tablespace is read (H6). A read in an instance that has run since before the migrate proves nothing: its tablespace
//! keys lie unwrapped in memory.
//!
//! Proven once for one set of keys and one start of the instance; both are looked at again before a second run says so.

use super::common::{Wallet, connect, credentials, observe, orders, read_everything, report_keys, subject};
use super::restart::{self, Stopped};
use crate::oracle::Db;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::{Value, json};
use tde2hsm_protocol::{AutoOpen, Code, DatabaseOrder, RestartProof as Wanted, Store};

pub struct RestartProof;

impl StepBody for RestartProof {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let wanted: Vec<DatabaseOrder> = orders(ctx).into_iter().filter(|order| order.restart_proof == Wanted::Do).collect();
        let mut end = if wanted.is_empty() { StepEnd::Nothing } else { StepEnd::AlreadyDone };
        for order in &wanted {
            if prove(ctx, order)? {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}

/// What the proof was of: these keys, and an instance that started at this time.
fn of(state: &crate::oracle::state::KeyState) -> Value {
    json!({ "startup": state.instance.startup, "keys": state.ids() })
}

fn prove(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<bool, StepError> {
    let sid = &order.sid;
    let db = super::common::db(ctx, sid)?;
    super::common::settle(ctx, &db)?;
    if restart::is_down(&db)? {
        // A turn before this one stopped it: its start is the proof.
        return again(ctx, order).map(|()| true);
    }
    let db = restart::ensure_up(ctx, order)?;
    let mut s = connect(&db)?;
    let state = observe(&db, &mut s)?;
    let known = ctx.recall(&subject(sid), "restart-proof");
    if known == Some(of(&state)) {
        report_keys(ctx, sid, &state);
        return Ok(false);
    }
    s.close();
    // Begun by an earlier turn: it started, but did not get as far as the proof.
    let started = ctx.recall(&subject(sid), "restart-proof-started");
    if started != Some(json!(state.instance.startup)) {
        if restart::stop(ctx, &db)? == Stopped::Found {
            let message = format!("{sid} went down while it was looked at");
            return Err(StepError::new(Kind::Retriable, Code::DATABASE_NOT_OPEN, message).of(sid));
        }
        return again(ctx, order).map(|()| true);
    }
    finish(ctx, order, &db).map(|()| true)
}

/// The start, and what it proves.
fn again(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<(), StepError> {
    let sid = &order.sid;
    let mut credentials = credentials(ctx, order)?;
    if order.auto_open == AutoOpen::Enable {
        // No PIN is given: it opens by itself, or the proof has failed.
        credentials.hsm = None;
    }
    let db = super::common::db(ctx, sid)?;
    match restart::start(ctx, &db, &credentials) {
        Ok(()) => {}
        Err(error) if order.auto_open == AutoOpen::Enable && error.code != Code::SHUTDOWN_HANGS => {
            // Open it with the password, so that the users have their database, and say what failed.
            let message = format!("{sid} did not open by itself: {error}");
            let credentials = super::common::credentials(ctx, order)?;
            let db = super::common::db(ctx, sid)?;
            restart::start(ctx, &db, &credentials)?;
            return Err(StepError::new(Kind::Final, Code::NOT_AUTO_OPEN, message).of(sid));
        }
        Err(error) => return Err(error),
    }
    let db = super::common::db(ctx, sid)?;
    finish(ctx, order, &db)
}

fn finish(ctx: &mut Context<'_>, order: &DatabaseOrder, db: &Db) -> Result<(), StepError> {
    let sid = &order.sid;
    let mut s = connect(db)?;
    let wallet = Wallet::read(db, &mut s)?;
    if !wallet.is_open(Store::Hsm, 0) {
        s.close();
        if order.auto_open == AutoOpen::Enable {
            let credentials = credentials(ctx, order)?;
            restart::start(ctx, db, &credentials)?;
            let message = format!("{sid}: after a restart the HSM keystore was closed");
            return Err(StepError::new(Kind::Final, Code::NOT_AUTO_OPEN, message).of(sid));
        }
        let message = format!("{sid}: the HSM keystore is closed although it was opened with the password");
        return Err(StepError::new(Kind::Retriable, Code::KEYSTORE_CLOSED, message).of(sid));
    }
    let state = observe(db, &mut s)?;
    ctx.remember(subject(sid), "restart-proof-started", json!(state.instance.startup))?;
    if !state.all_in(Store::Hsm) {
        let message = format!("{sid}: after the restart not every active key is in the HSM");
        return Err(StepError::new(Kind::Retriable, Code::KEYS_NOT_PROVEN, message).of(sid));
    }
    let (read, empty) = read_everything(db, &mut s, &state)?;
    s.close();
    report_keys(ctx, sid, &state);
    ctx.observed(
        subject(sid),
        "proven across a restart",
        json!({ "tablespaces": read, "nothing to read in": empty, "by itself": order.auto_open == AutoOpen::Enable }),
    )?;
    ctx.remember(subject(sid), "restart-proof", of(&state))
}
