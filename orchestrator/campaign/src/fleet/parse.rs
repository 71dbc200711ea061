//! From text to [`Fleet`]: keys first, against the schema, then values into their newtypes.

use super::*;
use std::str::FromStr;

pub(super) fn parse(text: &str) -> Result<Fleet, FleetError> {
    let error = |e: toml::de::Error| at(text, Code::FLEET_INVALID, e.span().map_or(0, |s| s.start), e.message().to_owned());
    toml::from_str::<Fleet>(text).map_err(error)
}

fn at(text: &str, code: Code, offset: usize, message: String) -> FleetError {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    FleetError { code, line, column, message }
}

/// An RFC 3339 instant, written as a string or as TOML's own date.
pub(super) fn instant<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Date(toml::value::Datetime),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Date(date) => date.to_string(),
    };
    match jiff::Timestamp::from_str(&text) {
        Ok(instant) => Ok(Some(Timestamp(instant.as_second()))),
        Err(_) => Err(serde::de::Error::custom(format!(
            "`{text}` is not an RFC 3339 time with an offset, such as `2026-11-24T22:00:00Z`"
        ))),
    }
}

impl FleetName {
    pub fn new(text: impl Into<String>) -> Result<FleetName, String> {
        let text = text.into();
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(FleetName(text))
        } else {
            Err(format!("`{text}` is not a fleet name (lower-case letters, digits and `-`, at most 32)"))
        }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MatrixCell {
    pub fn new(text: impl Into<String>) -> Result<MatrixCell, String> {
        let text = text.into();
        let fits = text.split('/').count() == 4
            && text.len() <= 80
            && text.split('/').all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)));
        if fits {
            Ok(MatrixCell(text))
        } else {
            Err(format!("`{text}` is not a cell of the support matrix, such as `oracle-12.2/sdk-5/hsm2m.medium/rhel-8`"))
        }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Acceptance {
    type Err = String;
    fn from_str(text: &str) -> Result<Acceptance, String> {
        let mut words = text.splitn(2, ' ');
        let code = words.next().unwrap_or_default().trim_end_matches(':');
        let code = code.parse::<Code>().map_err(|e| e.to_string())?;
        let rest = words.next().unwrap_or_default().trim();
        let (target, why) = rest.split_once(' ').unwrap_or((rest, ""));
        if !target.starts_with("i-") {
            return Ok(Acceptance { code, instance: None, sid: None, why: rest.to_owned() });
        }
        let (instance, sid) = target.split_once('/').map_or((target, None), |(i, s)| (i, Some(s)));
        let instance = InstanceId::new(instance).map_err(|e| e.to_string())?;
        let sid = sid.map(Sid::new).transpose().map_err(|e| e.to_string())?;
        Ok(Acceptance { code, instance: Some(instance), sid, why: why.trim().to_owned() })
    }
}

impl Acceptance {
    pub fn covers(&self, code: Code, instance: Option<&InstanceId>, sid: Option<&Sid>) -> bool {
        self.code == code
            && self.instance.as_ref().is_none_or(|wanted| instance == Some(wanted))
            && self.sid.as_ref().is_none_or(|wanted| sid == Some(wanted))
    }
}

macro_rules! as_text {
    ($name:ident, $parse:expr, $print:expr) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<$name, String> {
                let parse: fn(String) -> Result<$name, String> = $parse;
                parse(text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let print: fn(&$name) -> String = $print;
                f.pad(&print(self))
            }
        }
    };
}
as_text!(FleetName, FleetName::new, |n| n.0.clone());
as_text!(MatrixCell, MatrixCell::new, |n| n.0.clone());
as_text!(Acceptance, |t| t.parse(), |a| {
    let mut text = a.code.to_string();
    if let Some(instance) = &a.instance {
        text.push_str(&format!(" {instance}"));
        if let Some(sid) = &a.sid {
            text.push_str(&format!("/{sid}"));
        }
    }
    if !a.why.is_empty() {
        text.push_str(&format!(" {}", a.why));
    }
    text
});
