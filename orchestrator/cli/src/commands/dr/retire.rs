//! `dr retire-when`: when the old HSM may be switched off, or what must be found out before there is a date (H43).

use super::{Second, when};
use crate::args::DrRetireWhen;
use crate::context::{Context, file_text};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;
use tde2hsm_dr::estate::{Known, estate};
use tde2hsm_dr::points::Ask;
use tde2hsm_dr::retire::{self, Declaration, DeclaredNeed, Missing, Reason, RetireWhen, Thing};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{Code, InstanceId, Sid, Timestamp};

/// The operator's file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsFile {
    /// How long the campaign is to be undoable.
    #[serde(default)]
    undo_until: Option<Time>,
    #[serde(default)]
    facts: Vec<Declared>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    /// `INSTANCE/SID`, or `INSTANCE` for every database of it.
    database: String,
    thing: Thing,
    /// `none`, `open`, or the time until which it needs the old HSM.
    needs: Needs,
    by: String,
    at: Time,
    #[serde(default)]
    note: String,
}

/// An instant with its offset, as TOML's own or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time(Timestamp);

#[derive(Debug)]
struct Needs(DeclaredNeed);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Date(toml::value::Datetime),
}

impl Written {
    fn text(self) -> String {
        match self {
            Written::Text(text) => text,
            Written::Date(date) => date.to_string(),
        }
    }
}

fn instant<E: serde::de::Error>(text: &str) -> Result<Timestamp, E> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed
        .map(|at| Timestamp(at.as_second()))
        .map_err(|_| E::custom(format!("`{text}` is not an RFC 3339 time with an offset, such as `2027-03-01T00:00:00Z`")))
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        instant(&Written::deserialize(deserializer)?.text()).map(Time)
    }
}

impl<'de> Deserialize<'de> for Needs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Needs, D::Error> {
        let text = Written::deserialize(deserializer)?.text();
        Ok(Needs(match text.as_str() {
            "none" => DeclaredNeed::None,
            "open" => DeclaredNeed::Open,
            _ => DeclaredNeed::Until(instant(&text)?),
        }))
    }
}

#[derive(Serialize)]
struct Answered<'a> {
    at: Timestamp,
    #[serde(flatten)]
    answer: &'a RetireWhen,
    /// Hosts that gave no survey.
    silent: Vec<String>,
}

pub async fn run(context: &Context, args: DrRetireWhen) -> Result<Exit, Failure> {
    let facts = match &args.facts {
        Some(path) => read(path, context.now())?,
        None => FactsFile::default(),
    };
    let declared = declarations(&facts, args.facts.as_deref())?;
    let second = Second::open(context, &args.fleet).await?;
    let surveys = match &args.surveys {
        Some(path) => crate::commands::survey::read(path)?,
        None => {
            let source = context.aws_of(&second.fleet.fleet.account, &second.fleet.fleet.region).await?;
            let name = second.dr.document.clone().unwrap_or_else(|| tde2hsm_document::DEFAULT_NAME.to_owned());
            let document = crate::commands::survey::pin(&source, &name).await?;
            crate::commands::survey::of_fleet(context, &source, &second.fleet, &document).await?
        }
    };
    let look = second.look(context.now()).await?;
    let unasked = &look.world.common.unasked;
    let all_points = !unasked.contains(&Ask::DrSnapshots) && !unasked.contains(&Ask::SourceSnapshots);
    let known = Known {
        surveys: &surveys.surveys,
        declared: &declared,
        points: all_points.then_some(look.points.as_slice()),
        policy: &second.config.retention,
        undo_until: facts.undo_until.map(|time| time.0),
        now: context.now(),
    };
    let mut answer = retire::when(&estate(&known));
    let silent: Vec<String> = surveys.silent.iter().map(|one| format!("{}: {}", one.instance, one.why)).collect();
    if !silent.is_empty() {
        answer = without_silent(answer, &surveys.silent.iter().map(|one| one.instance.clone()).collect::<Vec<_>>());
    }
    let text = words(&answer, &silent);
    context.out.answer("dr-retire-when", &Answered { at: context.now(), answer: &answer, silent }, &text)?;
    Ok(finish(context.out, &answer))
}

/// A host that gave no survey may have any number of databases.
fn without_silent(answer: RetireWhen, silent: &[InstanceId]) -> RetireWhen {
    let (mut missing, reasons) = match answer {
        RetireWhen::From { reasons, .. } | RetireWhen::Held { reasons } => (Vec::new(), reasons),
        RetireWhen::NotYetComputable { missing, reasons } => (missing, reasons),
    };
    missing.extend(silent.iter().map(|instance| Missing::Host { instance: instance.clone() }));
    RetireWhen::NotYetComputable { missing, reasons }
}

fn finish(out: Out, answer: &RetireWhen) -> Exit {
    let failure = match answer {
        RetireWhen::From { .. } => return Exit::Ok,
        RetireWhen::Held { .. } => Failure::new(Code::RETIRE_NOT_COMPUTABLE, "something needs the old HSM without an end"),
        RetireWhen::NotYetComputable { missing, .. } => {
            let what = format!("{} facts are missing", missing.len());
            Failure::new(Code::RETIRE_NOT_COMPUTABLE, what)
        }
    };
    out.complain(&failure);
    failure.exit
}

fn words(answer: &RetireWhen, silent: &[String]) -> String {
    let mut text = String::new();
    let reasons = match answer {
        RetireWhen::From { when: at, reasons } => {
            let _ = writeln!(text, "the old HSM may be switched off from {} on", when(*at));
            text.push_str(
                "ask again right before: snapshots outlive their date where sets stop coming or expiry deletes nothing\n",
            );
            reasons
        }
        RetireWhen::Held { reasons } => {
            text.push_str("no date: something needs the old HSM for as long as it is there\n");
            reasons
        }
        RetireWhen::NotYetComputable { missing, reasons } => {
            text.push_str("not yet computable; missing:\n");
            for one in missing {
                let _ = writeln!(text, "  {}", lacks(one));
            }
            reasons
        }
    };
    if !reasons.is_empty() {
        text.push_str("what is known:\n");
    }
    for Reason { until, text: why } in reasons {
        let until = until.map_or_else(|| "without an end".to_owned(), when);
        let _ = writeln!(text, "  {until:<21} {}", printable(why, 300));
    }
    for one in silent {
        let _ = writeln!(text, "no survey of {}", printable(one, 300));
    }
    text
}

fn lacks(missing: &Missing) -> String {
    match missing {
        Missing::Migration { instance, sid } => format!("{instance}/{sid}: when its last key left the old HSM; it may not have"),
        Missing::Answer { instance, sid, thing } => format!("{instance}/{sid}: {}", thing.words()),
        Missing::Stale { instance, sid, thing } => {
            format!("{instance}/{sid}: {}, found out after the keys had moved", thing.words())
        }
        Missing::Host { instance } => format!("{instance}: it gave no survey"),
        Missing::Points => "which snapshots are kept".to_owned(),
        Missing::Undo => "until when the campaign is to be undoable (`undo_until` in the facts file)".to_owned(),
        Missing::NoDatabases => "any database".to_owned(),
    }
}

fn read(path: &Path, now: Timestamp) -> Result<FactsFile, Failure> {
    let text = file_text(path, Code::RETIRE_FACTS_INVALID)?;
    parse(&text, now).map_err(|why| Failure::new(Code::RETIRE_FACTS_INVALID, format!("{}: {why}", path.display())))
}

fn parse(text: &str, now: Timestamp) -> Result<FactsFile, String> {
    let file: FactsFile = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(0, |span| text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1);
        format!("line {line}: {}", e.message())
    })?;
    for one in &file.facts {
        if one.by.trim().is_empty() {
            return Err(format!("`{}`, {}: nobody signed for it", one.database, one.thing.words()));
        }
        if one.at.0 > now {
            return Err(format!("`{}`, {}: it was found out in the future", one.database, one.thing.words()));
        }
    }
    Ok(file)
}

fn declarations(file: &FactsFile, path: Option<&Path>) -> Result<Vec<Declaration>, Failure> {
    let wrong = |why: String| {
        let place = path.map(|path| format!("{}: ", path.display())).unwrap_or_default();
        Failure::new(Code::RETIRE_FACTS_INVALID, format!("{place}{why}"))
    };
    let mut found = Vec::new();
    for one in &file.facts {
        let (instance, sid) = one.database.split_once('/').map_or((one.database.as_str(), None), |(i, s)| (i, Some(s)));
        found.push(Declaration {
            instance: InstanceId::new(instance).map_err(|e| wrong(e.to_string()))?,
            sid: sid.map(Sid::new).transpose().map_err(|e| wrong(e.to_string()))?,
            thing: one.thing,
            needs: one.needs.0.clone(),
            who: printable(&one.by, 80),
            at: one.at.0,
            note: printable(&one.note, 200),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    #[test]
    fn facts_are_signed_dated_and_of_something_known() {
        let text = r#"
undo_until = 2027-03-01T00:00:00Z

[[facts]]
database = "i-0123456789abcdef0/HR"
thing = "transparent-dumps"
needs = "none"
by = "keeper of the backups"
at = 2026-11-20T09:00:00Z

[[facts]]
database = "i-0123456789abcdef0"
thing = "rman-pieces"
needs = "2027-01-31T00:00:00+01:00"
by = "keeper of the backups"
at = "2026-11-20T09:00:00Z"
note = "tape set 7"
"#;
        let file = parse(text, NOW).expect("reads");
        let found = declarations(&file, None).expect("reads");
        assert_eq!((found.len(), found[0].needs.clone(), found[1].sid.is_none()), (2, DeclaredNeed::None, true));
        assert!(matches!(found[1].needs, DeclaredNeed::Until(Timestamp(at)) if at == 1_801_350_000));
        for (from, to, words) in [
            ("by = \"keeper of the backups\"\nat = 2026", "by = \" \"\nat = 2026", "nobody signed"),
            ("at = 2026-11-20", "at = 2096-11-20", "in the future"),
            ("transparent-dumps", "dumps", "unknown variant"),
            ("note =", "nota =", "unknown field"),
            ("needs = \"none\"", "needs = \"never\"", "not an RFC 3339 time"),
        ] {
            let broken = text.replacen(from, to, 1);
            assert_ne!(broken, text, "{from}");
            let why = parse(&broken, NOW).expect_err("refused");
            assert!(why.contains(words), "{why}");
        }
        let nobody = parse(&text.replace("i-0123456789abcdef0/HR", "HR"), NOW).expect("reads");
        assert_eq!(declarations(&nobody, None).expect_err("refused").code, Some(Code::RETIRE_FACTS_INVALID));
    }
}
