//! Speaks to the databases of a host, and knows neither order nor step.
//!
//! Everything here is either a question or exactly one statement that the caller chose; nothing repeats, retries or
//! decides. [`places`] finds the databases, [`parameter_file`] what one would start with, [`session`] is one conversation, [`ddl`] builds statements, [`errors`]
//! judges answers, [`views`] asks and [`state`] puts the answers together.

pub mod ddl;
pub mod errors;
pub mod parameter_file;
pub mod places;
pub mod session;
pub mod state;
pub mod views;

pub use places::{Db, Place};
pub use session::{Answer, ServerSession, Session, SessionError};
