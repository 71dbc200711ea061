//! The `host-runner`: what runs as root on a database host, for as long as one operation takes.
//!
//! It is split so that no room can do another's work: [`oracle`] speaks to databases but knows no order,
//! [`steps`] know what to do but neither lock, report nor clock, [`engine`] knows the table of steps but no
//! statement, [`owner`] is the only place where a program of the database owner is started (H33), [`files`] the
//! only one that changes a file, [`secrets`] the only one that holds a value that must not be seen (H39).

mod cli;
pub mod clock;
pub mod details;
mod doctor;
pub mod drill;
pub mod endpoints;
pub mod engine;
pub mod files;
pub mod identity;
pub mod journal;
pub mod lock;
pub mod oracle;
pub mod owner;
pub mod packages;
pub mod paths;
pub mod procs;
pub mod provider;
pub mod redact;
pub mod secrets;
pub mod sqlnet;
pub mod step;
pub mod steps;
pub mod storage;
pub mod survey;
pub mod worker;

pub use cli::main;
pub use clock::{Clock, SystemClock};
pub use journal::{Entries, Event, Journal, Subject};
pub use paths::Paths;
pub use secrets::{Secret, Secrets};
pub use step::{Context, Kind, Results, StepBody, StepEnd, StepError};
