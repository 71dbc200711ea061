//! A cloud on one Linux machine: the wire protocols of the AWS services the product calls, on loopback, and hosts that
//! are namespaces with real paths, real users and real programs in them.

pub mod auth;
pub mod clock;
pub mod cloud;
pub mod s3;
pub mod wire;
