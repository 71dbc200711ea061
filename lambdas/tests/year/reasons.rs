//! Each reason that a verdict names, on its own: a point that does not open for one cause proves nothing of a second.

use crate::cloud::{Inner, copies_of};
use crate::estate::{KeyRow, Place};
use crate::judge::{There, region, restorable};
use crate::schedule::{DAY, Gone, MINUTE, Spell, TrueSet, last_backup, next_backup};
use tde2hsm_dr::points::{Ask, Cause, Point, Unknown};
use tde2hsm_model::Millis;
use tde2hsm_model::ec2::SnapshotState;
use tde2hsm_model::truth::Key;

/// One database of one point.
pub struct Case<'a> {
    pub inner: &'a Inner,
    pub there: &'a There,
    pub spells: &'a [Spell],
    pub gone: &'a [Gone],
    pub set: &'a TrueSet,
    pub point: &'a Point,
    pub sid: &'a str,
}

type Just = Result<(), String>;

fn just(is_so: bool, otherwise: &str) -> Just {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

impl Case<'_> {
    fn copy_state(&self, copy: &str) -> Option<SnapshotState> {
        region(self.inner).ec2.snapshots.get(copy).map(|s| s.state)
    }

    /// Anywhere in the second region.
    fn in_a_copied_backup(&self, key: &Key) -> bool {
        self.there.tokens.iter().any(|token| token.keys.contains(key))
    }

    fn row(&self, key: &Key) -> Option<&KeyRow> {
        self.inner.hosts[self.set.host].databases.iter().flat_map(|d| &d.keys).find(|row| row.key == *key)
    }

    fn place(&self, key: &Key) -> Option<Place> {
        self.row(key).map(|row| row.place)
    }

    /// Whether a spell of this host lay around a moment, give or take.
    fn spell(&self, of_clock: bool, at: Millis, slack: i64) -> bool {
        let databases = &self.inner.hosts[self.set.host].databases;
        self.spells.iter().any(|spell| {
            let fits = match spell.database {
                None => of_clock,
                Some(n) => !of_clock && databases[n].sid == self.sid,
            };
            fits && spell.host == self.set.host && spell.from.plus_ms(-slack) <= at && at.0 <= spell.to.0.saturating_add(slack)
        })
    }

    /// A volume of the set can be restored, by a copy that does not say it is of something else.
    fn holds(&self, volume: &str) -> bool {
        let part = self.set.parts.iter().find(|(_, v)| v == volume);
        part.is_some_and(|(source, _)| {
            let honest = |(key, value): &(String, String)| key == "tde2hsm:source-snapshot" && value == source;
            copies_of(&self.inner.world, &self.inner.dr, source)
                .any(|copy| copy.tags.iter().any(honest) && restorable(self.inner, &copy.id).is_some())
        })
    }
}

pub fn cause(case: &Case<'_>, cause: &Cause) -> Just {
    let dr = region(case.inner);
    match cause {
        Cause::VolumeMissing { volume, .. } => {
            let host = &case.inner.hosts[case.set.host];
            just(host.volumes().iter().any(|v| v == volume.as_str()), "the host has no such volume")?;
            // A part that failed, and was purged before anybody copied it, is as good as never taken.
            let part = case.set.parts.iter().find(|(_, v)| v == volume.as_str());
            let source = tde2hsm_model::Region::new(case.inner.source.as_str());
            let state = |id: &str| case.inner.world.region(&source).and_then(|r| r.ec2.snapshots.get(id)).map(|s| s.state);
            let gone = part.is_none_or(|(id, _)| state(id).is_none_or(|state| state == SnapshotState::Error));
            just(gone && !case.holds(volume.as_str()), "the set has it")
        }
        Cause::CopyMissing { source } => {
            let ours = |id: &str| case.inner.ledger.ours.contains(id);
            let any = copies_of(&case.inner.world, &case.inner.dr, source.as_str()).any(|copy| ours(&copy.id));
            just(!any, "there is one")
        }
        Cause::CopyPending { copy } => just(case.copy_state(copy.as_str()) == Some(SnapshotState::Pending), "it is not pending"),
        Cause::CopyFailed { copy } => just(case.copy_state(copy.as_str()) == Some(SnapshotState::Error), "it did not fail"),
        Cause::CopyArchived { copy } => {
            just(dr.ec2.snapshots.get(copy.as_str()).is_some_and(|s| s.archived), "it is not in the archive")
        }
        Cause::CopyKeyUnusable { key, .. } | Cause::SecretKeyUnusable { key, .. } => {
            just(!dr.kms.usable(key.as_str()), "the key can be used")
        }
        Cause::BackupNotCopied { key, .. } | Cause::KeyRotatedUnseen { key, .. } => {
            just(!case.in_a_copied_backup(&key.0), "a copied backup has the key")
        }
        Cause::KeyInNoBackup { key, .. } => {
            let ready = |id: &str| {
                let source = tde2hsm_model::Region::new(case.inner.source.as_str());
                let east = case.inner.world.region(&source).and_then(|r| r.hsm.backup_state(id));
                dr.hsm.backup_state(id).or(east) == Some("READY")
            };
            let any = case.inner.tokens.iter().any(|(id, token)| ready(id) && token.keys.contains(&key.0));
            just(!any, "a backup has the key")
        }
        Cause::KeyInOldHsm { key } => just(case.inner.hsms.old.token().keys.contains(&key.0), "the old HSM does not have it"),
        Cause::KeyInKeystoreOnly { key, .. } | Cause::LocalAutoLoginOnly { key, .. } => {
            just(case.place(&key.0) == Some(Place::Software), "it is no key of the keystore")
        }
        Cause::SecretVersionGone { secret, version, .. } => {
            let name = if secret.as_str().contains("tde/cu") { "tde/cu" } else { "tde/keystore" };
            let readable = dr.secrets.readable(name);
            just(!readable.iter().any(|(id, _)| id == version.as_str()), "it can be read")
        }
        Cause::FileOutside { .. } | Cause::FileOnNoVolume { .. } | Cause::Inconsistent | Cause::SecretNotReplicated { .. } => {
            Err("nothing of the kind was planted".to_owned())
        }
    }
}

/// That what is said to be unknown cannot be known.
pub fn unknown(case: &Case<'_>, unknown: &Unknown) -> Just {
    let point = case.point;
    let prefix = format!("inventories/{}/", point.instance);
    let looks = || {
        let keys = case.inner.keys(&prefix);
        keys.iter().filter_map(|key| key[prefix.len()..].trim_end_matches(".json").parse::<i64>().ok()).collect::<Vec<i64>>()
    };
    match unknown {
        Unknown::NoInventoryBefore => just(!looks().iter().any(|at| *at < point.taken.0 - 900), "there is one"),
        Unknown::NoInventoryAfter => just(!looks().iter().any(|at| *at > point.taken.0 + 900), "there is one"),
        Unknown::ClockOff { at, .. } => just(case.spell(true, Millis(at.0 * 1_000), 20 * MINUTE), "the clock was right"),
        Unknown::Blind { at, .. } => just(case.spell(false, Millis(at.0 * 1_000), 20 * MINUTE), "the container was open"),
        Unknown::Consistency => just(case.set.torn, "the set was taken as one"),
        Unknown::VolumePerhapsMissing { volume } => just(!case.holds(volume.as_str()), "it is there"),
        Unknown::KeyPerhapsNeeded { key } => {
            let there = case.place(&key.0) == Some(Place::CloudHsm) && case.in_a_copied_backup(&key.0);
            just(!there, "a copied backup has the key")
        }
        Unknown::KeyInBackup { key, .. } => {
            let row = case.row(&key.0).ok_or("nobody made the key")?;
            let near = |backup: Millis| backup.since(row.made).abs() <= 5 * MINUTE + 1_000;
            let close = near(next_backup(row.made)) || near(last_backup(row.made));
            just(close || case.spell(true, row.made, DAY), "it was made long before or after a backup")
        }
        Unknown::KeyNoLongerListed { key, missed, .. } => {
            let missed = Millis(missed.0 * 1_000);
            let away = |gone: &&Gone| {
                gone.at <= missed.plus_ms(20 * MINUTE) && gone.back.is_none_or(|back| missed <= back.plus_ms(20 * MINUTE))
            };
            just(case.gone.iter().filter(away).any(|gone| gone.key == key.0), "nobody deleted it")
        }
        Unknown::SecretUnstaged { secret, version, .. } => {
            let name = if secret.as_str().contains("tde/cu") { "tde/cu" } else { "tde/keystore" };
            just(case.there.bare(name, version.as_str()), "it has a stage")
        }
        Unknown::SecretVersion { secret, .. } => {
            let name = if secret.as_str().contains("tde/cu") { "tde/cu" } else { "tde/keystore" };
            let since = |at: Millis| at.since(case.set.at) > -6 * MINUTE && at.since(case.set.at) < 3 * DAY;
            just(case.inner.ledger.rotated.iter().any(|(of, at)| *of == name && since(*at)), "it was not rotated then")
        }
        Unknown::NotAsked { what } => {
            just(case.inner.away && matches!(what, Ask::SourceSnapshots | Ask::SourceBackups), "it was")
        }
        other => Err(format!("nothing of the kind was planted: {other:?}")),
    }
}
