//! One file a command.

pub mod adopt;
pub mod apply;
pub mod clean;
pub mod discover;
pub mod dr;
pub mod explain;
pub mod plan;
pub mod release;
pub mod resume;
pub mod setup;
pub mod status;
pub mod survey;
pub mod undo;
