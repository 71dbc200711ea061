//! A drill: the plan of [`tde2hsm_dr::drill`] carried out in the DR region, and taken down again.

mod ports;
mod production;
mod record;
mod run;
mod teardown;
mod words;

pub use ports::*;
pub use production::{Heard, hsm_addresses, instance_profiles};
pub use record::{Ending, Kept, Left, Made, Outcome, PREFIX, Record, RecordError, Step};
pub use run::{Drill, Stop};
pub use teardown::{Teardown, summary};
pub use words::{describe, effect, violation};
