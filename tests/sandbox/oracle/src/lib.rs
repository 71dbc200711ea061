//! An Oracle for the sandbox: the behaviour model of the facts (O§10) with real envelope encryption.
//!
//! Rows lie under tablespace keys, tablespace keys under master keys, and master keys in a software keystore
//! or in a PKCS#11 token that the engine reaches as Oracle does, through the one library below extapi. So a
//! product that loses a key loses rows here, too, and no bookkeeping of ours can hide it.
//!
//! See the README for how to seed and drive it by hand.

pub mod crypto;
pub mod disk;
pub mod engine;
pub mod env;
pub mod error;
pub mod home;
pub mod hsm;
pub mod inspect;
pub mod keys;
pub mod params;
pub mod process;
pub mod seed;
pub mod sim;
pub mod spec;
pub mod sqlplus;
pub mod verify;
pub mod wallet;
pub mod wire;

pub use home::install_home;
pub use spec::{
    AutoLogin, AutoOpen, Binaries, DatabaseSpec, HomeSpec, PdbSpec, Planted, Source, Style, TableSpec, TablespaceSpec, Truth,
    TruthTable, TsStatus, Verified, VerifyDatabase, VerifySpec,
};
