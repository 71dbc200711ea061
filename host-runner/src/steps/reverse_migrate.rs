//! `reverse-migrate`: from the old HSM into the software keystore, once, for every database of a home group (H16).
//!
//! After the swap the old HSM cannot be reached, so this step ends only when nothing names one of its keys: no
//! tablespace whatever its access, no ENC$ row, no closed container (H1, H3), and no redo that crash recovery would
//! read (H2). Its undo is another rotation, back into the old HSM, and keeps the interim keystore reachable (H4).

use super::common::{connect, credentials, observe, old_pin, orders, subject};
use super::config::{self, Want};
use super::restart;
use super::rotate::{self, Changed, Member};
use crate::oracle::state::OldKeys;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::json;
use tde2hsm_protocol::{Code, DatabaseOrder, Source, Store};

pub struct ReverseMigrate;

fn from_old_hsm(ctx: &Context<'_>) -> Vec<DatabaseOrder> {
    orders(ctx).into_iter().filter(|order| matches!(order.source, Source::OldHsm { .. })).collect()
}

pub fn member(ctx: &mut Context<'_>, order: DatabaseOrder) -> Result<Member, StepError> {
    let db = restart::ensure_up(ctx, &order)?;
    let mut s = connect(&db)?;
    let keystore = config::keystore(ctx, &db, &mut s)?;
    s.close();
    let credentials = credentials(ctx, &order)?;
    Ok(Member { order, db, credentials, keystore })
}

/// Everyone who reads the group's `sqlnet.ora` has to be part of it (H16).
pub fn complete(ctx: &Context<'_>, group: &[Member]) -> Result<(), StepError> {
    let Some(config::Style::Sqlnet { file }) = group.first().map(|member| &member.keystore.style) else { return Ok(()) };
    let missing: Vec<_> = config::sharers(ctx, file)?
        .into_iter()
        .filter(|place| !group.iter().any(|member| member.sid() == &place.sid))
        .map(|place| place.sid.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("`{}` is also read by {}, which the order does not name", file.display(), missing.join(", "));
    Err(StepError::new(Kind::Final, Code::CONFIGURATION_SHARED, message))
}

impl StepBody for ReverseMigrate {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let orders = from_old_hsm(ctx);
        if orders.is_empty() {
            return Ok(StepEnd::Nothing);
        }
        // The swap's gate let nobody pass whose keys were still in the old HSM.
        if ctx.provider().is_swapped()? {
            return Ok(StepEnd::AlreadyDone);
        }
        let mut members = Vec::new();
        for order in orders {
            if !restart::in_window(ctx, &order.sid)? {
                members.push(member(ctx, order)?);
            }
        }
        let groups = rotate::groups(members);
        // All are looked at before the first key moves: one that is refused sends every other one back again.
        for group in &groups {
            complete(ctx, group)?;
            rotate::may_leave(ctx, group, OldKeys::Gone)?;
        }
        let mut end = StepEnd::AlreadyDone;
        for group in groups {
            if rotate::to_software(ctx, &group, OldKeys::Gone)? == Changed::Yes {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let orders = from_old_hsm(ctx);
        if orders.is_empty() {
            return Ok(StepEnd::Nothing);
        }
        if ctx.provider().is_swapped()? {
            let message = "the former library is not back; the old HSM cannot be reached";
            return Err(StepError::new(Kind::Parked, Code::DATABASES_ON_CLOUDHSM, message));
        }
        let mut end = StepEnd::AlreadyDone;
        for order in orders {
            if old_pin(ctx, &order)?.is_none() {
                continue;
            }
            let member = member(ctx, order)?;
            let sid = member.sid().clone();
            let mut s = connect(&member.db)?;
            let state = observe(&member.db, &mut s)?;
            // Never rotated: the configuration goes back to the letter. Else a rotation back, and HSM|FILE (H4).
            let never = ctx.recall(&subject(&sid), "reverse migrate").is_none() && !state.any_in(Store::Software);
            if never && state.any_in(Store::Hsm) {
                config::restore_former(ctx, &member.db, &member.keystore, &mut s)?;
                s.close();
                continue;
            }
            s.close();
            if rotate::to_hsm(ctx, &member)? == Changed::Yes {
                end = StepEnd::Undone;
            }
            let mut s = connect(&member.db)?;
            config::configure(ctx, &member.db, &member.keystore, &mut s, Want::HsmFile)?;
            s.close();
            if super::enable_auto_open::opened_by_itself(ctx, &sid) {
                super::enable_auto_open::enable(ctx, &member)?;
            }
            ctx.observed(subject(&sid), "back on the old HSM", json!({}))?;
        }
        Ok(end)
    }
}
