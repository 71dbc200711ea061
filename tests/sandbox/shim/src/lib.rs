//! The shared half of the sandbox's PKCS#11 providers (H47).
//!
//! A plain copy of SoftHSM in the provider tree would prove no swap of providers: both copies would open the
//! same token. So each vendor has a library of its own, bound to its own configuration file and through it
//! to its own token directory, and what SoftHSM lacks of a network HSM is added in front of it: lockout,
//! latency, availability on two HSMs, limited-write, cut-off. The state behind that lies in `state.json` of
//! the token directory, is guarded by a file lock and is seen by every process of every host.

pub mod admin;
pub mod config;
pub mod forward;
pub mod state;

pub use config::{ADDRESSES, Vendor};
pub use state::{Hsm, HsmState, KeyCopies, Logins, User};

/// Where Debian's `softhsm2` installs the library that all calls end in.
pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Prefixes the absolute paths of a host, for tests without a chroot.
pub const ROOT_ENV: &str = "ORACLE_SIM_ROOT";

/// Names token stores (`old-hsm`, `cloudhsm`, comma separated) this process must not reach; for `verify`,
/// which may not cut off the fleet that is running beside it.
pub const CUT_OFF_ENV: &str = "SANDBOX_HSM_CUT_OFF";

/// An absolute path of a host, under `ORACLE_SIM_ROOT` where that is set.
#[must_use]
pub fn host_path(path: &str) -> std::path::PathBuf {
    match std::env::var_os(ROOT_ENV) {
        Some(root) if !root.is_empty() => std::path::Path::new(&root).join(path.trim_start_matches('/')),
        _ => std::path::PathBuf::from(path),
    }
}

/// Logins of this process leave no trace in the state: `verify` only looks.
pub const OBSERVER_ENV: &str = "SANDBOX_HSM_OBSERVER";
