//! What was planted, and how often it struck. A fault that never strikes shows nothing.

use std::collections::BTreeMap;

pub const ROTATED: &str = "keys rotated";
pub const SWITCHED: &str = "tablespaces switched";
pub const PASSWORDS: &str = "secrets rotated";
pub const UNSTAGED: &str = "secrets whose stages were taken off";
pub const MIGRATED: &str = "databases migrated";
pub const KEYLESS: &str = "audits without the KMS key";
pub const LIMITED: &str = "changes refused in limited-write mode";
pub const PURGED: &str = "source HSM backups purged";
pub const FLOODS: &str = "copies that queue behind strangers'";
pub const WALLS: &str = "in-flight wall met";
pub const DELETED: &str = "source HSM backups deleted under their copy";
pub const AWAY: &str = "source region away";
pub const TORN: &str = "sets taken volume by volume";
pub const EXCLUDES: &str = "sets that lack a volume";
pub const LOST_COPIES: &str = "copies deleted by hand";
pub const CLAIMS: &str = "copies that claim to be ours";
pub const CLOCKS: &str = "orders that a wrong clock refused";
pub const UNREACHED: &str = "surveys that reached no host";
pub const KEYS_GONE: &str = "keys deleted from the HSM";
pub const BOUGHT: &str = "months in which copies are bought";
pub const NOTHING_LEFT: &str = "copies that find the throughput taken";
pub const REFUSED: &str = "copies refused for want of throughput";
/// As the model names them.
pub const COPIES_FAIL: &str = "copies fail";
pub const BACKUP_COPIES_FAIL: &str = "backup copies fail";
pub const COPIES_LATE: &str = "copies late";
pub const SNAPSHOTS_FAIL: &str = "snapshots fail";
pub const EVENTS_LOST: &str = "events lost";
pub const EVENTS_TWICE: &str = "events twice";
pub const EVENTS_LATE: &str = "events late";
pub const THROTTLED: &str = "calls throttled";

/// What a year must have had.
pub const ALL: [&str; 33] = [
    ROTATED,
    SWITCHED,
    PASSWORDS,
    UNSTAGED,
    MIGRATED,
    KEYLESS,
    LIMITED,
    PURGED,
    FLOODS,
    WALLS,
    DELETED,
    AWAY,
    TORN,
    EXCLUDES,
    LOST_COPIES,
    CLAIMS,
    CLOCKS,
    UNREACHED,
    KEYS_GONE,
    BOUGHT,
    NOTHING_LEFT,
    REFUSED,
    COPIES_FAIL,
    BACKUP_COPIES_FAIL,
    COPIES_LATE,
    SNAPSHOTS_FAIL,
    EVENTS_LOST,
    EVENTS_TWICE,
    EVENTS_LATE,
    THROTTLED,
    "LoseReply ec2:CopySnapshot",
    "LoseReply cloudhsm:CopyBackupToRegion",
    "LoseReply s3:PutObject",
];

#[derive(Debug, Default)]
pub struct Tally(BTreeMap<&'static str, [u32; 2]>);

impl Tally {
    pub fn plant(&mut self, name: &'static str, n: u32) {
        self.0.entry(name).or_default()[0] += n;
    }

    pub fn strike(&mut self, name: &'static str, n: u32) {
        self.0.entry(name).or_default()[1] += n;
    }

    /// It struck no oftener than this.
    pub fn felt(&mut self, name: &'static str, at_most: u32) {
        if let Some([_, struck]) = self.0.get_mut(name) {
            *struck = (*struck).min(at_most);
        }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    pub fn rows(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(name, [planted, struck])| (format!("  {name}: planted, struck"), format!("{planted}, {struck}")))
    }

    /// Faults that were planted and did not strike as often.
    pub fn short(&self) -> Vec<String> {
        let short = self.0.iter().filter(|(_, [planted, struck])| struck < planted);
        short.map(|(name, [planted, struck])| format!("{name}: planted {planted} times, struck {struck} times")).collect()
    }

    /// Faults that nobody planted.
    pub fn unplanted(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|name| self.0.get(name).is_none_or(|[planted, _]| *planted == 0)).collect()
    }
}
