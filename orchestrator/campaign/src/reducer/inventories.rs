//! H41: which keys a host needs changes with each cutover and each undo, and a recovery point is judged by looks that were
//! taken around it. So after a wave, when no host is at work, its hosts are looked at and what they need is written down
//! in the second region. A look that fails holds nobody up: it is tried again after the next wave and at the end.

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Inventoried {
    /// When the host last said that its keys may be others.
    changed: Timestamp,
    written: Option<Timestamp>,
    /// Since the last wave began, or somebody last looked.
    tries: u8,
    failed: Option<String>,
}

/// What came of a look at one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryTaken {
    pub instance: InstanceId,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl State {
    pub(super) fn keys_changed(&mut self, place: usize, at: Timestamp) {
        if self.plan.protect.as_ref().is_none_or(|protect| protect.second.is_none()) {
            return;
        }
        let inventoried =
            self.core.inventories.entry(place).or_insert(Inventoried { changed: at, written: None, tries: 0, failed: None });
        inventoried.changed = at;
        inventoried.tries = 0;
    }

    pub(super) fn inventories_taken(&mut self, hosts: &[InventoryTaken], at: Timestamp) {
        for taken in hosts {
            let Some(place) = self.index.get(&taken.instance) else { continue };
            let Some(inventoried) = self.core.inventories.get_mut(place) else { continue };
            inventoried.failed = taken.failed.as_deref().map(apply::clean);
            match taken.failed {
                None => inventoried.written = Some(at),
                Some(_) => inventoried.tries = inventoried.tries.saturating_add(1),
            }
        }
    }

    /// Another wave, or somebody who looks: what failed is tried again.
    pub(super) fn inventories_again(&mut self) {
        self.core.inventories.values_mut().for_each(|inventoried| inventoried.tries = 0);
    }

    fn lacking(&self) -> impl Iterator<Item = (&usize, &Inventoried)> {
        let here = |place: &usize| self.core.hosts.get(*place).is_some_and(|host| host.result != Some(HostEnd::Released));
        let lacks = |inventoried: &Inventoried| inventoried.written.is_none_or(|written| written < inventoried.changed);
        self.core.inventories.iter().filter(move |(place, inventoried)| here(place) && lacks(inventoried))
    }

    /// Hosts to look at now: each once after a wave, and once more before the end. None while a password is refused: where an
    /// auto-login file holds it, a look is a login (H10, H12).
    pub(super) fn uninventoried(&self, last: bool) -> Option<Decision> {
        if self.any_refused() {
            return None;
        }
        let most = u8::from(last);
        let due = |(place, i): &(&usize, &Inventoried)| i.tries <= most && self.core.hosts[**place].operation.is_none();
        let hosts: Vec<InstanceId> = self.lacking().filter(due).map(|(p, _)| self.plan.hosts[*p].instance.clone()).collect();
        (!hosts.is_empty()).then_some(Decision::TakeInventories { hosts })
    }

    pub(super) fn inventories(&self) -> Option<Inventories> {
        self.plan.protect.as_ref()?.second.as_ref()?;
        let written = self.core.inventories.values().filter(|i| i.written.is_some_and(|written| written >= i.changed));
        let missing = self.lacking().map(|(place, inventoried)| MissingInventory {
            instance: self.plan.hosts[*place].instance.clone(),
            code: inventoried.failed.as_ref().map(|_| Code::INVENTORY_UNWRITTEN),
            why: inventoried.failed.clone().unwrap_or_else(|| "it is not at rest yet".to_owned()),
        });
        Some(Inventories { written: u32::try_from(written.count()).unwrap_or(u32::MAX), missing: missing.collect() })
    }
}

/// The hosts whose keys this campaign changed, and what is written down of them in the second region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventories {
    pub written: u32,
    pub missing: Vec<MissingInventory>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingInventory {
    pub instance: InstanceId,
    /// `None`: it was not tried yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    pub why: String,
}
