//! One entry as text: `{"v":1,"event":{…}}`. The version is read before the event is looked at.

use crate::JournalError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version this program writes.
pub const JOURNAL_VERSION: u32 = 1;
/// The oldest version it reads.
pub const OLDEST_VERSION: u32 = 1;

/// An encoded entry. What the chain is computed over, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(String);

#[derive(Serialize)]
struct Written<'a, E> {
    v: u32,
    event: &'a E,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Read<E> {
    event: E,
}

impl Body {
    pub fn of<E: Serialize>(event: &E) -> Body {
        let text = serde_json::to_string(&Written { v: JOURNAL_VERSION, event });
        Body(text.expect("events are plain data: string keys, no foreign Serialize"))
    }

    /// A body as it was stored. Checked only when it is decoded.
    pub fn stored(text: String) -> Body {
        Body(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn event<E: DeserializeOwned>(&self) -> Result<E, JournalError> {
        let broken = |cause: serde_json::Error| JournalError::Broken { seq: 0, why: cause.to_string() };
        let Version { v } = serde_json::from_str(&self.0).map_err(broken)?;
        if v < OLDEST_VERSION {
            return Err(JournalError::Older { found: v });
        }
        if v > JOURNAL_VERSION {
            return Err(JournalError::Newer { found: v });
        }
        let read: Read<E> = serde_json::from_str(&self.0).map_err(broken)?;
        Ok(read.event)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_back_as_it_was_written() {
        let body = Body::of(&"approved");
        assert_eq!(body.as_str(), r#"{"v":1,"event":"approved"}"#);
        assert_eq!(body.event::<String>().unwrap(), "approved");
    }

    #[test]
    fn other_versions_are_refused_by_code_before_the_event_is_read() {
        let newer = Body::stored(r#"{"v":2,"event":{"of":"another shape"}}"#.to_owned());
        assert!(matches!(newer.event::<String>(), Err(JournalError::Newer { found: 2 })));
        let older = Body::stored(r#"{"v":0,"event":"approved"}"#.to_owned());
        assert!(matches!(older.event::<String>(), Err(JournalError::Older { found: 0 })));
    }

    #[test]
    fn an_event_that_cannot_be_read_is_broken_not_skipped() {
        let odd = Body::stored(r#"{"v":1,"event":17}"#.to_owned());
        assert!(matches!(odd.event::<String>(), Err(JournalError::Broken { .. })));
    }
}
