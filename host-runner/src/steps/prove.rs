//! `prove`: the views agree (`O§3.7` items 1 to 4) and a session that has never opened anything reads a row of every
//! encrypted tablespace. Changes nothing. What it cannot show, an opening after a restart, is `restart-proof`'s (H6).

use super::common::{connect, observe, orders, read_everything, subject};
use super::reverse_migrate::member;
use super::rotate;
use crate::oracle::state::OldKeys;
use crate::step::{Context, StepBody, StepEnd, StepError};
use serde_json::json;
use tde2hsm_protocol::Store;

pub struct Prove;

impl StepBody for Prove {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut end = if ctx.databases().is_empty() { StepEnd::Nothing } else { StepEnd::AlreadyDone };
        for order in orders(ctx) {
            let member = member(ctx, order)?;
            rotate::prove(ctx, &member, Store::Hsm, OldKeys::Reachable)?;
            let mut s = connect(&member.db)?;
            let state = observe(&member.db, &mut s)?;
            let (read, empty) = read_everything(&member.db, &mut s, &state)?;
            s.close();
            ctx.observed(subject(member.sid()), "rows read", json!({ "tablespaces": read, "nothing to read in": empty }))?;
            let proven = json!(state.ids());
            if ctx.recall(&subject(member.sid()), "proven").as_ref() != Some(&proven) {
                ctx.remember(subject(member.sid()), "proven", proven)?;
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}
