//! The pure core of a campaign: fleet file, cloud facts, rules, plan and reducer.
//!
//! Nothing here waits, reads a clock, draws a random number or speaks to AWS: time and facts come in as arguments, and
//! decisions go out as values. So the same input always gives the same plan, a journal replayed gives the same state,
//! and recovery is not a second program but the first one run again.

#![forbid(unsafe_code)]

pub mod facts;
pub mod fleet;
pub mod plan;
pub mod reducer;
pub mod render;
pub mod rules;
