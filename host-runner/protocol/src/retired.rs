//! What a fleet had and has no more. The fleet file and the functions' environment say it in the same words.

use crate::{InstanceId, Sid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A database, written `i-0123456789abcdef0/HR`, or a host with all of its own, written `i-0123456789abcdef0`. A SID alone is not
/// enough: another host may have one of that name that is alive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Retired {
    pub instance: InstanceId,
    pub sid: Option<Sid>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is neither an instance nor a database such as `i-0123456789abcdef0/HR`")]
pub struct RetiredError {
    text: String,
}

impl Retired {
    /// `sid` is `None` for the whole host: one retired database does not retire it.
    pub fn covers(&self, instance: &InstanceId, sid: Option<&Sid>) -> bool {
        self.instance == *instance && (self.sid.is_none() || self.sid.as_ref() == sid)
    }
}

impl FromStr for Retired {
    type Err = RetiredError;
    fn from_str(text: &str) -> Result<Retired, RetiredError> {
        let (instance, sid) = text.split_once('/').map_or((text, None), |(instance, sid)| (instance, Some(sid)));
        let sid = sid.map(Sid::new).transpose().map_err(drop);
        match (InstanceId::new(instance), sid) {
            (Ok(instance), Ok(sid)) => Ok(Retired { instance, sid }),
            _ => Err(RetiredError { text: text.chars().filter(|c| !c.is_control()).take(60).collect() }),
        }
    }
}

impl fmt::Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sid {
            Some(sid) => write!(f, "{}/{sid}", self.instance),
            None => self.instance.fmt(f),
        }
    }
}

impl From<Retired> for String {
    fn from(retired: Retired) -> String {
        retired.to_string()
    }
}

impl TryFrom<String> for Retired {
    type Error = RetiredError;
    fn try_from(text: String) -> Result<Retired, RetiredError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_covers_its_databases_and_a_database_no_other() {
        let parse = |text: &str| text.parse::<Retired>();
        let (host, other) = ("i-0123456789abcdef0", "i-0123456789abcdef1");
        let instance = |text: &str| InstanceId::new(text).unwrap();
        let (hr, tst) = (Sid::new("HR").unwrap(), Sid::new("TST").unwrap());
        let whole = parse(host).unwrap();
        assert!(whole.covers(&instance(host), Some(&hr)) && whole.covers(&instance(host), None));
        assert!(!whole.covers(&instance(other), Some(&hr)));
        let one = parse(&format!("{host}/TST")).unwrap();
        assert!(one.covers(&instance(host), Some(&tst)));
        assert!(!one.covers(&instance(host), Some(&hr)) && !one.covers(&instance(host), None));
        assert_eq!(one.to_string().parse(), Ok(one));
        for wrong in ["", "TST", "i-0123456789abcdef0/", "/TST", "i-0123456789abcdef0/A/B"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
