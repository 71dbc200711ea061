//! Recovery that opens, as pure functions: which points there are, which of them can be opened and why the others cannot,
//! what is to be copied next, what may go, how old the newest point that opens is, and when the old HSM may be switched off.
//!
//! Time is an argument, facts come as plain values ([`facts`]), nothing here does I/O and no AWS type is named. A fact that is
//! not known is `None` and never a default: what is unknown makes a point *not proven*, never *opens* (H41).

#![forbid(unsafe_code)]

pub mod copying;
pub mod drill;
pub mod estate;
pub mod facts;
pub mod inventory;
pub mod points;
pub mod records;
pub mod retention;
pub mod retire;
pub mod rpo;
pub mod secrets;
