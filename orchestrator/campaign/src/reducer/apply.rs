//! `(state, event) -> state`: total, and deaf to what does not fit.

use super::*;

impl State {
    /// Takes in one event. Total: an event that does not fit the state changes nothing.
    pub fn apply(&mut self, event: &Event) {
        self.core.now = self.core.now.max(event.at);
    }
}
