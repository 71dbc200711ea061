//! When the old HSM may be switched off (H43).
//!
//! The date is the latest of the dates until which something needs a key that only the old HSM has. Every database must
//! have an answer for every kind of thing; one that has none makes the date *not yet computable* and is named. An answer
//! counts only if it was given after the database's keys had moved: before, more such things could still be made. Where a
//! look at the host and a declaration disagree, the longer need holds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tde2hsm_protocol::{InstanceId, Sid, Timestamp};

/// What may need a former key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// Backup pieces and image copies that began before the keys moved, in the control file, a catalog, or on tape.
    RmanPieces,
    ArchivedLogs,
    RestorePoints,
    FlashbackLogs,
    /// Data Pump dumps with ENCRYPTION_MODE=TRANSPARENT.
    TransparentDumps,
    UnpluggedPdbs,
    /// Tablespaces that were read-only or offline and still name an old key.
    ReadOnlyTablespaces,
}

impl Thing {
    pub const ALL: [Thing; 7] = [
        Thing::RmanPieces,
        Thing::ArchivedLogs,
        Thing::RestorePoints,
        Thing::FlashbackLogs,
        Thing::TransparentDumps,
        Thing::UnpluggedPdbs,
        Thing::ReadOnlyTablespaces,
    ];

    pub fn words(self) -> &'static str {
        match self {
            Thing::RmanPieces => "RMAN pieces",
            Thing::ArchivedLogs => "archived logs",
            Thing::RestorePoints => "restore points",
            Thing::FlashbackLogs => "flashback logs",
            Thing::TransparentDumps => "TRANSPARENT Data Pump dumps",
            Thing::UnpluggedPdbs => "unplugged PDBs",
            Thing::ReadOnlyTablespaces => "read-only and offline tablespaces",
        }
    }
}

/// How long a thing needs the old HSM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "need")]
pub enum Need {
    /// There is none that does.
    None,
    Until {
        when: Timestamp,
        what: String,
    },
    /// For as long as it is there: somebody must drop it, make it read-write, or take it anew.
    Open {
        what: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Source {
    /// A survey of the host, by its time.
    Seen { at: Timestamp },
    /// A person, in the file of declared facts.
    Declared { who: String, at: Timestamp },
}

impl Source {
    pub fn at(&self) -> Timestamp {
        match self {
            Source::Seen { at } | Source::Declared { at, .. } => *at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub need: Need,
    pub source: Source,
}

/// An entry of the operator's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    pub instance: InstanceId,
    /// `None`: for every database of the instance.
    #[serde(default)]
    pub sid: Option<Sid>,
    pub thing: Thing,
    pub needs: DeclaredNeed,
    pub who: String,
    /// When it was found out.
    pub at: Timestamp,
    #[serde(default)]
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeclaredNeed {
    None,
    Until(Timestamp),
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub instance: InstanceId,
    pub sid: Sid,
    /// When its last key had moved into the new HSM. `None`: it has not, or that is not known.
    pub migrated: Option<Timestamp>,
    pub answers: BTreeMap<Thing, Vec<Answer>>,
}

/// What is kept of snapshots that an old key is needed for. `None` where the points could not be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointNeed {
    pub instance: InstanceId,
    pub set: crate::facts::SetId,
    /// When retention lets it go, if sets are still taken and expiry deletes. `None`: it is held, nobody knows, or it is still
    /// there after that.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estate {
    pub databases: Vec<DatabaseFacts>,
    /// `None`: it is not known which points are kept and need an old key.
    pub points: Option<Vec<PointNeed>>,
    /// How long the operator wants to be able to undo the campaign. `None`: nobody said.
    pub undo_until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub until: Option<Timestamp>,
    pub text: String,
}

/// What must be found out before there is a date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "missing")]
pub enum Missing {
    /// A database whose keys have not moved, or nobody knows when.
    Migration {
        instance: InstanceId,
        sid: Sid,
    },
    Answer {
        instance: InstanceId,
        sid: Sid,
        thing: Thing,
    },
    /// There is an answer, but it is older than the migration.
    Stale {
        instance: InstanceId,
        sid: Sid,
        thing: Thing,
    },
    /// It gave no survey: what databases it has is not known.
    Host {
        instance: InstanceId,
    },
    Points,
    Undo,
    NoDatabases,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum RetireWhen {
    /// It may be switched off from this moment on. The reasons are in the order of their dates, the latest first.
    From {
        when: Timestamp,
        reasons: Vec<Reason>,
    },
    /// Every fact is there, and something needs it without an end.
    Held {
        reasons: Vec<Reason>,
    },
    NotYetComputable {
        missing: Vec<Missing>,
        reasons: Vec<Reason>,
    },
}

/// The date, or what stands between now and a date.
pub fn when(estate: &Estate) -> RetireWhen {
    let mut missing = Vec::new();
    let mut reasons = Vec::new();
    if estate.databases.is_empty() {
        missing.push(Missing::NoDatabases);
    }
    for database in &estate.databases {
        let (instance, sid) = (&database.instance, &database.sid);
        let Some(migrated) = database.migrated else {
            missing.push(Missing::Migration { instance: instance.clone(), sid: sid.clone() });
            continue;
        };
        reasons.push(Reason { until: Some(migrated), text: format!("{instance}/{sid}: its last key left the old HSM then") });
        for thing in Thing::ALL {
            let answers = database.answers.get(&thing).map_or(&[][..], Vec::as_slice);
            // What is known to need the old HSM is said, however old the answer is; only "none" and an end want a late look.
            let late = answers.iter().any(|answer| answer.source.at() >= migrated);
            if !late {
                let (instance, sid) = (instance.clone(), sid.clone());
                missing.push(match answers.is_empty() {
                    true => Missing::Answer { instance, sid, thing },
                    false => Missing::Stale { instance, sid, thing },
                });
            }
            for answer in answers {
                let by = match &answer.source {
                    Source::Seen { .. } => String::from("seen"),
                    Source::Declared { who, .. } => format!("declared by {who}"),
                };
                match &answer.need {
                    Need::None => {}
                    Need::Until { when, what } => reasons
                        .push(Reason { until: Some(*when), text: format!("{instance}/{sid}: {}: {what} ({by})", thing.words()) }),
                    Need::Open { what } => {
                        reasons.push(Reason { until: None, text: format!("{instance}/{sid}: {}: {what} ({by})", thing.words()) });
                    }
                }
            }
        }
    }
    match &estate.points {
        None => missing.push(Missing::Points),
        Some(points) => reasons.extend(points.iter().map(|point| Reason {
            until: point.until,
            text: match point.until {
                Some(_) => format!(
                    "{}: snapshot set {} needs an old key; retention lets it go then, if sets are still taken and expiry deletes",
                    point.instance, point.set.0
                ),
                None => format!("{}: snapshot set {} needs an old key for as long as it is there", point.instance, point.set.0),
            },
        })),
    }
    match estate.undo_until {
        None => missing.push(Missing::Undo),
        Some(until) => reasons.push(Reason { until: Some(until), text: String::from("until then the campaign can be undone") }),
    }
    reasons.sort_by(|a, b| (b.until.is_none(), b.until, &a.text).cmp(&(a.until.is_none(), a.until, &b.text)));
    if !missing.is_empty() {
        return RetireWhen::NotYetComputable { missing, reasons };
    }
    if reasons.iter().any(|reason| reason.until.is_none()) {
        return RetireWhen::Held { reasons };
    }
    match reasons.iter().filter_map(|reason| reason.until).max() {
        Some(when) => RetireWhen::From { when, reasons },
        None => RetireWhen::NotYetComputable { missing: vec![Missing::NoDatabases], reasons },
    }
}
