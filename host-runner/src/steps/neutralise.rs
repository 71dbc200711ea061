use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use tde2hsm_protocol::Code;

pub struct Neutralise;

impl StepBody for Neutralise {
    fn act(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Err(StepError::new(Kind::Final, Code::DRILL_REFUSED, "this runner makes no drills yet"))
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Err(StepError::new(Kind::Final, Code::DRILL_NO_UNDO, "a drill's host is thrown away, not undone"))
    }
}
