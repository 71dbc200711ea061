//! `migrate`: from the software keystore into CloudHSM, database by database.
//!
//! A database whose MIGRATE fails stays open on its software keystore, under a configuration that reaches both; the
//! host is `parked`, for another database may be on CloudHSM already and the former library cannot come back (H29).
//! The undo is a reverse migrate for the whole home group.

use super::common::orders;
use super::reverse_migrate::{complete, member};
use super::rotate::{self, Changed};
use crate::oracle::state::OldKeys;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use tde2hsm_protocol::Code;

pub struct Migrate;

/// With the cluster gone a database on it can neither be undone nor can the former library come back; all of them run
/// on, and read (H29).
fn parked(mut error: StepError) -> StepError {
    if error.code == Code::HSM_FAILED && error.kind != Kind::Stuck {
        error.kind = Kind::Parked;
    }
    error
}

impl StepBody for Migrate {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.databases().is_empty() {
            return Ok(StepEnd::Nothing);
        }
        if !ctx.provider().is_swapped()? {
            return Err(StepError::new(Kind::Retriable, Code::PROVIDER_NOT_LOADED, "the new library is not in place"));
        }
        let mut end = StepEnd::AlreadyDone;
        for order in orders(ctx) {
            let member = member(ctx, order)?;
            if rotate::to_hsm(ctx, &member).map_err(parked)? == Changed::Yes {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.databases().is_empty() {
            return Ok(StepEnd::Nothing);
        }
        // Without the new library in place nothing can be in CloudHSM.
        if !ctx.provider().is_swapped()? {
            return Ok(StepEnd::AlreadyDone);
        }
        let mut members = Vec::new();
        for order in orders(ctx) {
            members.push(member(ctx, order)?);
        }
        let mut end = StepEnd::AlreadyDone;
        for group in rotate::groups(members) {
            complete(ctx, &group)?;
            if rotate::to_software(ctx, &group, OldKeys::Gone).map_err(parked)? == Changed::Yes {
                end = StepEnd::Undone;
            }
        }
        Ok(end)
    }
}
