//! How many recovery points are kept. The fleet file and the functions' environment say it in the same words, so there is one
//! reader of them: what one refuses the other does not accept. Of all zeros only what must not go would be left, so that is no
//! retention.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Points of each kind that are kept (grandfather, father, son), written `hourly=8,daily=14,weekly=5,monthly=12`; beside
/// them `count=N` and `days=N`. What is left out is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Retention {
    pub hourly: u16,
    pub daily: u16,
    pub weekly: u16,
    pub monthly: u16,
    /// The newest so many that open, whatever their time.
    pub count: u16,
    /// Everything younger than this.
    pub days: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    #[error("`{entry}` is not a part of a retention such as `hourly=8,daily=14,weekly=5,monthly=12`")]
    Part { entry: String },
    #[error("`{name}` stands twice in a retention")]
    Twice { name: &'static str },
    #[error("at least one point is kept: a retention of zeros is none")]
    Nothing,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { hourly: 8, daily: 14, weekly: 5, monthly: 12, count: 0, days: 0 }
    }
}

impl Retention {
    fn fields(&mut self) -> [(&'static str, &mut u16); 6] {
        [
            ("hourly", &mut self.hourly),
            ("daily", &mut self.daily),
            ("weekly", &mut self.weekly),
            ("monthly", &mut self.monthly),
            ("count", &mut self.count),
            ("days", &mut self.days),
        ]
    }
}

impl FromStr for Retention {
    type Err = RetentionError;
    fn from_str(text: &str) -> Result<Retention, RetentionError> {
        let mut retention = Retention { hourly: 0, daily: 0, weekly: 0, monthly: 0, count: 0, days: 0 };
        let mut seen = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let refuse = || RetentionError::Part { entry: entry.chars().filter(|c| !c.is_control()).take(40).collect() };
            let (name, number) = entry.split_once('=').ok_or_else(refuse)?;
            let (name, number) = (name.trim(), number.trim());
            let mut fields = retention.fields();
            let (name, place) = fields.iter_mut().find(|(field, _)| *field == name).ok_or_else(refuse)?;
            if seen.contains(name) {
                return Err(RetentionError::Twice { name });
            }
            seen.push(*name);
            // `parse` would take a sign.
            if !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refuse());
            }
            **place = number.parse().map_err(|_| refuse())?;
        }
        match retention.fields().iter().all(|(_, number)| **number == 0) {
            true => Err(RetentionError::Nothing),
            false => Ok(retention),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        let fields = copy.fields();
        let named = fields.iter().enumerate().filter(|(i, (_, n))| *i < 4 || **n > 0);
        let named: Vec<String> = named.map(|(_, (name, n))| format!("{name}={n}")).collect();
        f.pad(&named.join(","))
    }
}
impl From<Retention> for String {
    fn from(retention: Retention) -> String {
        retention.to_string()
    }
}
impl TryFrom<String> for Retention {
    type Error = RetentionError;
    fn try_from(text: String) -> Result<Retention, RetentionError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_read_as_it_is_written() {
        let some: Retention = "daily=3, monthly = 1,days=2".parse().unwrap();
        assert_eq!(some, Retention { hourly: 0, daily: 3, weekly: 0, monthly: 1, count: 0, days: 2 });
        assert_eq!(some.to_string(), "hourly=0,daily=3,weekly=0,monthly=1,days=2");
        assert_eq!(some.to_string().parse(), Ok(some));
        assert_eq!(Retention::default().to_string().parse(), Ok(Retention::default()));
    }

    #[test]
    fn what_is_no_retention_is_refused() {
        for bad in ["", "daily", "daily=", "daily=x", "daily=-1", "daily=+1", "daily=70000", "yearly=1", "daily=1,,", "=1"] {
            assert!(matches!(bad.parse::<Retention>(), Err(RetentionError::Part { .. })), "{bad}");
        }
        assert_eq!("daily=1, daily=2".parse::<Retention>(), Err(RetentionError::Twice { name: "daily" }));
    }

    #[test]
    fn a_retention_that_keeps_nothing_is_refused() {
        for nothing in ["daily=0", "hourly=0,daily=0,weekly=0,monthly=0,count=0,days=0"] {
            assert_eq!(nothing.parse::<Retention>(), Err(RetentionError::Nothing), "{nothing}");
        }
        for something in ["count=1", "days=1", "hourly=0,daily=0,weekly=0,monthly=1"] {
            assert!(something.parse::<Retention>().is_ok(), "{something}");
        }
    }
}
