//! Time as the host sees it. A trait, so that a test can let an order expire between two steps (H31).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tde2hsm_protocol::Timestamp;

pub trait Clock {
    fn now(&self) -> Timestamp;
    /// Time since some fixed point; never goes back. For limits and for how long a database was away.
    fn monotonic(&self) -> Duration;
    /// Lets time pass while a state is polled. Only for loops that have a deadline.
    fn pause(&self, time: Duration);
}

pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
