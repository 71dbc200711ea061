//! A plan as people read it.

use crate::plan::Plan;

/// The text of `plan show`, at most 110 columns wide, no colour.
pub fn plan(plan: &Plan) -> String {
    format!("plan {}\n", plan.digest())
}
