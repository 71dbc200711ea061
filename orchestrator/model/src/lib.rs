//! AWS as the product meets it, as pure and seeded state machines: SSM Run Command, EC2 with snapshots and instances,
//! CloudHSM v2, Secrets Manager, KMS and SNS of one account in several regions.
//!
//! `(state, request, now) -> (reply, effects)`: nothing here reads a clock, makes a random number of its own or does
//! I/O. Time is an argument, identifiers come from a seed, and what has to happen outside (a document to run on a
//! host, an HSM that appeared) is an [`Effect`] for the caller to carry out. So the same machines serve the
//! sandbox over HTTP, a simulation in virtual time, and tests.
//!
//! Request and reply bodies are JSON in the member names of the service; EC2 replies carry the names of its XML.
//! Faults are methods of [`Faults`], so that a test says what goes wrong instead of waiting for it.

pub mod cloudhsm;
pub mod ec2;
mod error;
mod faults;
mod ids;
pub mod kms;
mod page;
pub mod secrets;
pub mod sns;
pub mod ssm;
mod time;
pub mod truth;
mod world;

pub use error::ApiError;
pub use faults::{CallFault, Fate, Faults, denied};
pub use ids::{AccountId, CommandId, Ids, InstanceId, Region};
pub use time::Millis;
pub use world::{
    Caller, Effect, LaunchedVolume, Principal, RegionState, Reply, Request, Service, World, WorldOptions, iam_action,
};
