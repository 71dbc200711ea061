use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A moment of the world: milliseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0 + ms)
    }

    pub const fn plus_secs(self, secs: i64) -> Self {
        Self(self.0 + secs * 1000)
    }

    /// How many milliseconds have passed since `earlier`; negative when it lies ahead.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// `2026-11-24T03:51:28.120Z`, the form of EC2 and of command filters.
    pub fn iso(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    /// `2026-11-24T03:51:28Z`: the pattern of GetCommandInvocation has no room for milliseconds.
    pub fn iso_secs(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Epoch seconds with a fraction, the form of AWS JSON 1.1.
    pub fn epoch(self) -> Value {
        Value::from(self.0 as f64 / 1000.0)
    }

    /// Reads an ISO-8601 moment; `None` when it is none.
    pub fn parse_iso(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|at| Self(at.as_millisecond()))
    }
}

/// An ISO-8601 duration such as `PT3.25S`, as `ExecutionElapsedTime` has it.
pub(crate) fn iso_duration(ms: i64) -> String {
    let ms = ms.max(0);
    if ms % 1000 == 0 { format!("PT{}S", ms / 1000) } else { format!("PT{}.{:03}S", ms / 1000, ms % 1000) }
}
