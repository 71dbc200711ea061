//! Carries out what `dr` decides: five jobs, each of which compares what should exist with what does and does the next
//! things. A job may run at any time, twice, late or never, and only the delay changes.
//!
//! Generic over [`Cloud`], so that the same jobs run in Lambda, in the command line, and in a simulated year.

#![forbid(unsafe_code)]

mod calls;
mod config;
pub mod drill;
mod jobs;
mod outcome;
mod passwords;
mod ports;
mod remembered;
pub mod store;
pub mod survey;
pub mod world;

pub use config::{Approved, DrConfig, Expiry};
pub use jobs::{Due, run};
pub use outcome::{Hint, Job, Message, Metric, Outcome, Unasked, Unit};
pub use ports::*;
pub use remembered::Remembered;
