//! Keys that the HSM listed once and lists no more: deleted by a person, pruned, or undone with a cluster that was taken back
//! (`A§4.6`, `A§4.7`).
//!
//! A look that saw everything and no longer lists a key says that backups made since the last look that did list it may lack
//! it. When it went lies somewhere between the two, so of a backup made after the former nothing is known, until a later look
//! lists the key again.

use super::judge::{Look, cluster_seen};
use super::{Common, MARGIN};
use crate::inventory::Inventory;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{MasterKeyId, Sid, Store, Timestamp};

/// Between two moments of AWS time a backup may lack the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub after: Timestamp,
    /// By then it was gone.
    pub by: Timestamp,
    pub until: Timestamp,
    /// When the look was taken that first missed it, by the host's clock.
    pub missed: Timestamp,
}

impl Gap {
    pub fn holds(&self, created: Timestamp) -> bool {
        created > self.after && created < self.until
    }

    /// When it went is not known nearer: a backup of that time may have the key still.
    pub fn may_have(&self, created: Timestamp) -> bool {
        created > self.after && created <= self.by
    }
}

/// Of one host.
#[derive(Debug, Default)]
pub(super) struct Gaps<'a> {
    of: HashMap<(&'a Sid, MasterKeyId), Vec<Gap>>,
    /// The looks that say so, by the time they were taken: without them the gaps would be others.
    looks: BTreeSet<(&'a Sid, MasterKeyId, Timestamp)>,
}

impl<'a> Gaps<'a> {
    pub fn new(common: &Common, inventories: impl Iterator<Item = &'a Inventory>) -> Gaps<'a> {
        let mut gaps = Gaps::default();
        let mut by_sid: BTreeMap<&Sid, Vec<Look<'_>>> = BTreeMap::new();
        for inventory in inventories.filter(|inventory| cluster_seen(common, inventory)) {
            for look in Look::all(inventory).filter(Look::clear) {
                by_sid.entry(&look.database.sid).or_default().push(look);
            }
        }
        for (sid, mut looks) in by_sid {
            looks.sort_by_key(|look| (look.not_after, look.not_before));
            gaps.of_database(sid, &looks);
        }
        gaps
    }

    fn of_database(&mut self, sid: &'a Sid, looks: &[Look<'_>]) {
        let mut before: Option<(&Look<'_>, Vec<MasterKeyId>)> = None;
        for look in looks {
            let listed = listed(look);
            if let Some((last, earlier)) = &before
                && *earlier != listed
            {
                let (gone, come) = (without(earlier, &listed), without(&listed, earlier));
                for key in gone {
                    let (after, by) = (last.not_before.plus(-MARGIN), look.not_after.plus(MARGIN));
                    let gap = Gap { after, by, until: Timestamp(i64::MAX), missed: look.inventory.taken_at };
                    self.of.entry((sid, key)).or_default().push(gap);
                    self.looks.extend([last, look].map(|look| (sid, key, look.inventory.taken_at)));
                }
                for key in come {
                    let open = self.of.get_mut(&(sid, key)).and_then(|gaps| gaps.last_mut());
                    if let Some(gap) = open {
                        gap.until = look.not_after.plus(MARGIN);
                        self.looks.insert((sid, key, look.inventory.taken_at));
                    }
                }
            }
            before = Some((look, listed));
        }
    }

    /// Looks that tell of these keys, by when they were taken.
    pub fn looks(&self, keys: impl Fn((&'a Sid, MasterKeyId)) -> bool) -> BTreeSet<Timestamp> {
        self.looks.iter().filter(|(sid, key, _)| keys((sid, *key))).map(|(.., taken_at)| *taken_at).collect()
    }

    pub fn of(&self, sid: &'a Sid, key: MasterKeyId) -> &[Gap] {
        if self.of.is_empty() { &[] } else { self.of.get(&(sid, key)).map_or(&[], Vec::as_slice) }
    }
}

/// Keys that a look lists and that may lie in the HSM, in order.
fn listed(look: &Look<'_>) -> Vec<MasterKeyId> {
    let rows = look.database.known.iter().filter(|known| known.store != Some(Store::Software));
    let mut keys: Vec<MasterKeyId> = rows.map(|known| known.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What of a sorted list is not in another.
fn without(of: &[MasterKeyId], other: &[MasterKeyId]) -> Vec<MasterKeyId> {
    of.iter().filter(|key| other.binary_search(key).is_err()).copied().collect()
}
