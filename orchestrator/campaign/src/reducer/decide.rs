//! `(state, now) -> decisions`.

use super::*;

impl State {
    /// What to do now. The same state and time give the same decisions.
    pub fn decide(&self, _now: Timestamp) -> Vec<Decision> {
        Vec::new()
    }
}
