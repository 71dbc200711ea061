//! A token bucket that all calls of one service share. SSM's limits are not published (`A§1.4`), and a fleet's poller
//! that runs into them slows down every other user of the account: better to wait here than there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct TokenBucket {
    state: Arc<Mutex<State>>,
    burst: f64,
    per_second: f64,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// `burst` calls at once, then `per_second`.
    pub fn new(burst: u32, per_second: u32) -> TokenBucket {
        let state = State { tokens: f64::from(burst), at: Instant::now() };
        TokenBucket { state: Arc::new(Mutex::new(state)), burst: f64::from(burst), per_second: f64::from(per_second) }
    }

    /// Waits until a call may be made.
    pub async fn take(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token, on credit if there is none, and answers how long the credit lasts.
    fn reserve(&self, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(state.at).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + gained).min(self.burst) - 1.0;
        state.at = now;
        Duration::from_secs_f64((-state.tokens / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_calls_are_spread() {
        let bucket = TokenBucket::new(3, 10);
        let now = Instant::now();
        let waits: Vec<u128> = (0..6).map(|_| bucket.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        let waits: Vec<u128> = (0..4).map(|_| bucket.reserve(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100], "a quiet minute gives no more than a burst");
    }
}
