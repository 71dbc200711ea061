//! A cloud on one Linux machine: the wire protocols of the AWS services the product calls, on loopback, and hosts that
//! are namespaces with real paths, real users and real programs in them.

pub mod agent;
pub mod auth;
pub mod backup_tool;
pub mod clock;
pub mod cloud;
pub mod control;
pub mod databases;
pub mod ebs;
pub mod fault;
pub mod fleet;
pub mod functions;
pub mod host;
pub mod imds;
pub mod inspect;
pub mod layout;
pub mod network;
pub mod package;
pub mod recovery;
pub mod s3;
pub mod sandbox;
pub mod template;
pub mod tokens;
pub mod userns;
pub mod verify;
pub mod wire;
