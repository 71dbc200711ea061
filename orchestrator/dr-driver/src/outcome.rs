use crate::{CallError, Effect};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::{Code, Region, Severity, SnapshotId, Timestamp};

/// Why a job runs now. A hint only says where to look first: what an event claims is described again, and a job does what
/// the state of the world calls for (H37).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hint {
    /// The schedule.
    #[default]
    Tick,
    /// Somebody asks, and may have mended what was refused: that is asked for again at once.
    Person,
    /// An event names these snapshots.
    Snapshots(BTreeSet<SnapshotId>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    CopySnapshots,
    CopyHsmBackups,
    SettleCopies,
    ExpireCopies,
    AuditRecovery,
}

impl Job {
    pub const ALL: [Job; 5] = [Job::CopySnapshots, Job::CopyHsmBackups, Job::SettleCopies, Job::ExpireCopies, Job::AuditRecovery];

    /// Also the function's name.
    pub fn name(self) -> &'static str {
        match self {
            Job::CopySnapshots => "copy-snapshots",
            Job::CopyHsmBackups => "copy-hsm-backups",
            Job::SettleCopies => "settle-copies",
            Job::ExpireCopies => "expire-copies",
            Job::AuditRecovery => "audit-recovery",
        }
    }
}

/// What one run of a job did, saw and could not see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub job: Job,
    pub at: Timestamp,
    /// How many of what, such as `copies-begun`.
    pub counts: BTreeMap<String, u64>,
    pub messages: Vec<Message>,
    pub metrics: Vec<Metric>,
    /// Calls that gave no answer: what follows from them is not known, and was not acted on.
    pub unasked: Vec<Unasked>,
    /// Calls that AWS refused or did not answer, those of `unasked` among them: what was to be known or done and is not.
    #[serde(default)]
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub severity: Severity,
    pub code: Code,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    pub unit: Unit,
    pub value: f64,
    /// Beside the fleet, which is a dimension of all.
    pub dimensions: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Count,
    Seconds,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unasked {
    pub region: Region,
    /// Such as `ec2:DescribeSnapshots`.
    pub call: String,
    pub why: String,
}

impl Outcome {
    pub fn new(job: Job, at: Timestamp) -> Outcome {
        Outcome { job, at, counts: BTreeMap::new(), messages: Vec::new(), metrics: Vec::new(), unasked: Vec::new(), failed: 0 }
    }

    pub(crate) fn add(&mut self, what: &str, n: u64) {
        *self.counts.entry(what.to_owned()).or_default() += n;
    }

    pub(crate) fn say(&mut self, severity: Severity, code: Code, text: impl Into<String>) {
        let message = Message { severity, code, text: text.into() };
        if !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }

    pub(crate) fn not_asked(&mut self, region: &Region, error: &CallError) {
        self.unasked.push(Unasked { region: region.clone(), call: error.call.clone(), why: error.message.clone() });
        self.failed += 1;
        // A permission that is missing stays missing; what gave no answer, or was too much, may be heard next time.
        let lasts = error.effect == Effect::Refused && !error.throttled();
        let severity = if lasts { Severity::Error } else { Severity::Warning };
        self.say(severity, Code::PARTLY_ASKED, format!("{region}: {error}"));
    }

    pub(crate) fn metric(&mut self, name: &str, unit: Unit, value: f64, dimensions: &[(&str, &str)]) {
        let dimensions = dimensions.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.metrics.push(Metric { name: name.to_owned(), unit, value, dimensions });
    }

    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

/// Of a message, in bytes. The topic takes 262,144 of them and nothing at all of a longer one; nobody reads as many.
const MESSAGE: usize = 64 * 1024;

/// As many lines as a message holds, and how many more there are: what is too much to tell is told in part, since a message that
/// is refused tells nothing, and would be refused again at each run.
pub(crate) fn message(lines: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    let mut more = 0u64;
    for line in lines {
        if more > 0 || text.len() + line.len() >= MESSAGE {
            more += 1;
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&line);
    }
    if more > 0 {
        text.push_str(&format!("\nand {more} more; the log has them all"));
    }
    text
}
