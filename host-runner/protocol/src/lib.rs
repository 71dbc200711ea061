//! What the control plane and a host say to each other.
//!
//! Both sides are built from this crate and neither trusts the other further than it: every identifier is parsed
//! into a newtype that cannot hold anything else, an [`Order`] names steps of a table and typed arguments only (H34),
//! and both lines have a size that holds by construction: 24 KB for an order (`A§1.1`), 2,000 bytes for a report
//! (`A§1.2`). No I/O, no clock, no AWS type.

#![forbid(unsafe_code)]

mod adopt;
mod aws;
mod codes;
mod digest;
mod ids;
mod order;
mod report;
mod retention;
mod retired;
mod step;
pub mod survey;
pub mod wire;

pub use adopt::*;
pub use aws::{limited, throttled};
pub use codes::{CATALOGUE, Code, Severity, describe};
pub use digest::{Digest, ShortDigest};
pub use ids::*;
pub use order::*;
pub use report::*;
pub use retention::{Retention, RetentionError};
pub use retired::{Retired, RetiredError};
pub use step::{Direction, Reversibility, STEPS, Scope, Segment, Step, StepInfo};
pub use wire::{ORDER_LIMIT, REPORT_LIMIT, REPORT_PREFIX, WireError};
