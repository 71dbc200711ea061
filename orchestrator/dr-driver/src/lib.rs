//! Carries out what `dr` decides: five jobs, each of which compares what should exist with what does and does the next
//! things. A job may run at any time, twice, late or never, and only the delay changes.
//!
//! Generic over [`Cloud`], so that the same jobs run in Lambda, in the command line, and in a simulated year.

#![forbid(unsafe_code)]

mod config;
mod ports;

pub use config::DrConfig;
pub use ports::*;
