//! The steps of the table, a file each.
//!
//! Each looks before it acts and looks again afterwards (invariant 1); none trusts what an earlier turn wrote about
//! keys. What they share: [`common`] sends and judges statements, [`config`] says where keystores are, [`rotate`] moves
//! keys, [`redo`] waits for redo to let go of a key, [`restart`] stops and starts.

mod back_up;
mod common;
mod config;
mod drill_open;
mod enable_auto_open;
mod escrow;
mod migrate;
mod neutralise;
mod prepare_keystore;
mod prove;
mod redo;
mod restart;
mod restart_proof;
mod reverse_migrate;
mod rotate;
mod stage_client;
mod swap_provider;

use crate::step::{Context, StepBody, StepEnd, StepError};
use tde2hsm_protocol::Step;

pub(crate) use config::expand;

/// `survey` is no step of a segment: the worker takes it by itself.
struct Survey;

impl StepBody for Survey {
    fn act(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}

/// The body of a step of the table.
pub fn body(step: Step) -> &'static dyn StepBody {
    match step {
        Step::Survey => &Survey,
        Step::BackUp => &back_up::BackUp,
        Step::StageClient => &stage_client::StageClient,
        Step::PrepareKeystore => &prepare_keystore::PrepareKeystore,
        Step::ReverseMigrate => &reverse_migrate::ReverseMigrate,
        Step::Escrow => &escrow::Escrow,
        Step::SwapProvider => &swap_provider::SwapProvider,
        Step::Migrate => &migrate::Migrate,
        Step::EnableAutoOpen => &enable_auto_open::EnableAutoOpen,
        Step::Prove => &prove::Prove,
        Step::RestartProof => &restart_proof::RestartProof,
        Step::Neutralise => &neutralise::Neutralise,
        Step::DrillOpen => &drill_open::DrillOpen,
    }
}
