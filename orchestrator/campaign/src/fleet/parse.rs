//! From text to [`Fleet`]: keys first, against the schema, then values into their newtypes.

use super::*;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What may stand where. Values are left to serde; only names are here, so that a wrong one can be told from a right one.
enum Shape {
    Value,
    Table(&'static [(&'static str, Shape)]),
    List(&'static Shape),
}
use Shape::{List, Table, Value};

const SECRET: Shape = Table(&[("arn", Value), ("version", Value)]);
const SECRETS: Shape = Table(&[("old_hsm", SECRET), ("cloudhsm", SECRET), ("software", SECRET)]);
const DATABASE: Shape =
    Table(&[("sid", Value), ("auto_open", Value), ("restart_proof", Value), ("backup_hours", Value), ("secrets", SECRETS)]);
const HOST: Shape = Table(&[
    ("instance", Value),
    ("auto_open", Value),
    ("restart_proof", Value),
    ("backup_hours", Value),
    ("secrets", SECRETS),
    ("databases", List(&DATABASE)),
]);
const TARGET: Shape = Table(&[("tag", Table(&[("key", Value), ("value", Value)])), ("instances", Value)]);
const SCHEMA: &[(&str, Shape)] = &[
    ("fleet", Table(&[("name", Value), ("account", Value), ("region", Value)])),
    ("cluster", Table(&[("id", Value), ("key_availability_check", Value)])),
    ("secrets", SECRETS),
    ("escrow", Table(&[("prefix", Value), ("replica_regions", Value)])),
    (
        "options",
        Table(&[
            ("auto_open", Value),
            ("restart_proof", Value),
            ("backup_hours", Value),
            ("on_failure", Value),
            ("retries", Value),
            ("order_minutes", Value),
            ("poll_seconds", Value),
            ("find_seconds", Value),
            ("survey_hours", Value),
            ("oracle_matrix", Value),
            ("accept", Value),
        ]),
    ),
    ("waves", Table(&[("canary", Value), ("concurrency", Value), ("budget", Value), ("failure_domain", Value)])),
    ("window", Table(&[("not_before", Value), ("not_after", Value)])),
    ("protect", Table(&[("mode", Value), ("wait_hours", Value)])),
    ("targets", List(&TARGET)),
    ("hosts", List(&HOST)),
    (
        "dr",
        Table(&[
            ("region", Value),
            ("kms_key", Value),
            ("records_bucket", Value),
            ("rpo_minutes", Value),
            ("retention", Value),
            ("timed_copies_mib_s", Value),
            ("hsm_backup_retention_days", Value),
            ("retired", Value),
            ("copies_in_flight", Value),
            ("topic", Value),
            ("document", Value),
            (
                "drill",
                Table(&[("subnet", Value), ("security_group", Value), ("instance_profile", Value), ("instance_type", Value)]),
            ),
        ]),
    ),
];

/// How alike a misspelt key and its suggestion must be.
const ALIKE: f64 = 0.75;

pub(super) fn parse(text: &str) -> Result<Fleet, FleetError> {
    let invalid = |e: toml::de::Error| at(text, Code::FLEET_INVALID, e.span().map_or(0, |s| s.start), e.message().to_owned());
    let tree = DeTable::parse(text).map_err(invalid)?;
    check_table(text, tree.get_ref(), SCHEMA, "")?;
    let fleet = toml::from_str::<Fleet>(text).map_err(invalid)?;
    check_values(&fleet).map_err(|(path, message)| at(text, Code::FLEET_INVALID, locate(tree.get_ref(), path), message))?;
    Ok(fleet)
}

fn check_table(text: &str, table: &DeTable<'_>, schema: &[(&str, Shape)], path: &str) -> Result<(), FleetError> {
    for (key, value) in table.iter() {
        let name: &str = key.get_ref();
        let Some((_, shape)) = schema.iter().find(|(known, _)| *known == name) else {
            return Err(at(text, Code::FLEET_UNKNOWN_KEY, key.span().start, unknown(name, schema, path)));
        };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match (shape, value.get_ref()) {
            (Table(inner), DeValue::Table(table)) => check_table(text, table, inner, &path)?,
            (List(Table(inner)), DeValue::Array(rows)) => {
                for row in rows.iter().filter_map(|row| row.get_ref().as_table()) {
                    check_table(text, row, inner, &path)?;
                }
            }
            // A value of the wrong kind: serde says so, with its place.
            _ => {}
        }
    }
    Ok(())
}

fn unknown(name: &str, schema: &[(&str, Shape)], path: &str) -> String {
    let place = if path.is_empty() { "here".to_owned() } else { format!("in `{path}`") };
    let near = schema.iter().map(|(known, _)| (strsim::jaro_winkler(name, known), *known));
    let best = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(alike, _)| *alike >= ALIKE);
    if let Some((_, known)) = best {
        return format!("`{name}` means nothing {place}; did you mean `{known}`?");
    }
    let elsewhere =
        SCHEMA.iter().find(|(_, shape)| matches!(shape, Table(inner) if inner.iter().any(|(known, _)| *known == name)));
    match elsewhere {
        Some((table, _)) => format!("`{name}` means nothing {place}; it belongs into `[{table}]`"),
        None => {
            let known: Vec<String> = schema.iter().map(|(known, _)| format!("`{known}`")).collect();
            format!("`{name}` means nothing {place}; known are {}", known.join(", "))
        }
    }
}

/// What each value by itself cannot tell. Answers the path of the value at fault.
fn check_values(fleet: &Fleet) -> Result<(), (&'static [&'static str], String)> {
    let waves = &fleet.waves;
    if waves.canary == 0 {
        return Err((&["waves", "canary"], "the canary is at least one host".to_owned()));
    }
    if waves.concurrency == 0 {
        return Err((&["waves", "concurrency"], "a wave is at least one host".to_owned()));
    }
    if waves.budget == 0 {
        return Err((&["waves", "budget"], "a budget of 0 failed hosts admits no host at all: each one may fail".to_owned()));
    }
    if fleet.targets.is_empty() {
        return Err((&["targets"], "at least one target is needed".to_owned()));
    }
    let options = &fleet.options;
    if options.poll_seconds == 0 {
        return Err((&["options", "poll_seconds"], "hosts are asked at most once a second".to_owned()));
    }
    if options.order_minutes == 0 || options.order_minutes > 24 * 60 {
        return Err((&["options", "order_minutes"], "an order is valid for 1 to 1440 minutes".to_owned()));
    }
    if let (Some(opens), Some(closes)) = (fleet.window.not_before, fleet.window.not_after)
        && opens >= closes
    {
        return Err((&["window", "not_after"], "the window closes before it opens".to_owned()));
    }
    for (at, host) in fleet.hosts.iter().enumerate() {
        if fleet.hosts.iter().take(at).any(|h| h.instance == host.instance) {
            return Err((&["hosts"], format!("{} has two entries in `hosts`", host.instance)));
        }
        for (at, database) in host.databases.iter().enumerate() {
            if host.databases.iter().take(at).any(|d| d.sid == database.sid) {
                return Err((&["hosts"], format!("`{}` has two entries at {}", database.sid, host.instance)));
            }
        }
    }
    if fleet.protect.wait_hours == 0 {
        return Err((&["protect", "wait_hours"], "a backup takes time; to wait for none say `mode = \"off\"`".to_owned()));
    }
    fleet.dr.as_ref().map_or(Ok(()), |dr| check_dr(dr, &fleet.fleet))
}

fn check_dr(dr: &Dr, fleet: &Identity) -> Result<(), (&'static [&'static str], String)> {
    if dr.region == fleet.region {
        return Err((&["dr", "region"], "a second region is another one than the fleet's".to_owned()));
    }
    if dr.kms_key.region() != dr.region {
        return Err((&["dr", "kms_key"], format!("copies in {} are encrypted with a key of that region", dr.region)));
    }
    let bucket = &dr.records_bucket;
    let fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bucket.ends_with(|c: char| c.is_ascii_alphanumeric());
    if !fits {
        return Err((&["dr", "records_bucket"], format!("`{bucket}` is not the name of a bucket")));
    }
    if dr.rpo_minutes == 0 {
        return Err((&["dr", "rpo_minutes"], "a point is at least one minute old when it is made".to_owned()));
    }
    if dr.hsm_backup_retention_days == 0 {
        return Err((&["dr", "hsm_backup_retention_days"], "an HSM backup is kept for at least one day".to_owned()));
    }
    if dr.copies_in_flight == 0 {
        return Err((&["dr", "copies_in_flight"], "at least one copy may be in flight".to_owned()));
    }
    if let Some(topic) = &dr.topic {
        let parts: Vec<&str> = topic.split(':').collect();
        let fits = parts.len() == 6 && parts[0] == "arn" && parts[2] == "sns" && parts[3] == dr.region.as_str();
        if !fits || parts[4] != fleet.account.as_str() {
            return Err((&["dr", "topic"], format!("`{topic}` is not an SNS topic of {} in {}", fleet.account, dr.region)));
        }
    }
    if let Some(document) = &dr.document
        && !((3..=128).contains(&document.len()) && document.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)))
    {
        return Err((&["dr", "document"], format!("`{document}` is not the name of an SSM document")));
    }
    let Some(drill) = &dr.drill else { return Ok(()) };
    let profile = &drill.instance_profile;
    if !((1..=128).contains(&profile.len()) && profile.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))) {
        return Err((&["dr", "drill", "instance_profile"], format!("`{profile}` is not the name of an instance profile")));
    }
    let kind = &drill.instance_type;
    let fits = kind.split_once('.').is_some_and(|(family, size)| !family.is_empty() && !size.is_empty())
        && kind.len() <= 32
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    if !fits {
        return Err((&["dr", "drill", "instance_type"], format!("`{kind}` is not an instance type, such as `m6i.xlarge`")));
    }
    Ok(())
}

/// Where the value at a path stands; the nearest table above it where it is left out.
fn locate(root: &DeTable<'_>, path: &[&str]) -> usize {
    let mut place = 0;
    let mut table = root;
    for name in path {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        place = Spanned::span(key).start;
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    place
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
