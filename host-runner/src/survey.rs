//! What the host is, facts only.

use crate::clock::Clock;
use crate::identity::Identity;
use crate::paths::Paths;
use tde2hsm_protocol::survey::Survey;

/// Never fails: what cannot be read stands in `unreadable`.
pub fn take(_paths: &Paths, _identity: &Identity, _clock: &dyn Clock) -> Survey {
    unimplemented!()
}
