//! Which facts belong to which instance.

use super::Host;
use crate::facts::{FleetInstance, Snapshot, tag};
use crate::inventory::Inventory;
use crate::records::CopyIntent;
use std::collections::{BTreeMap, HashMap};
use tde2hsm_protocol::{InstanceId, Region, SnapshotId, VolumeId};

/// A snapshot of the DR region that claims to be a copy of something nobody knows (H37).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    pub snapshot: SnapshotId,
    pub claims: String,
}

/// Sorts facts by instance. A volume belongs to the instance that a record, else EC2, else the newest inventory names;
/// snapshots of other volumes are none of the fleet's and are left out.
pub fn gather(
    source_region: &Region,
    instances: Vec<FleetInstance>,
    snapshots: Vec<Snapshot>,
    inventories: Vec<Inventory>,
    copies: Vec<CopyIntent>,
) -> (Vec<Host>, Vec<Stray>) {
    let mut seen: HashMap<VolumeId, (tde2hsm_protocol::Timestamp, InstanceId)> = HashMap::new();
    for inventory in &inventories {
        let files = inventory.databases.iter().flat_map(|d| &d.files).chain(&inventory.files);
        for volume in files.filter_map(|file| file.volume.as_ref()) {
            let newer = seen.get(volume).is_none_or(|(at, _)| *at < inventory.received_at);
            if newer {
                seen.insert(volume.clone(), (inventory.received_at, inventory.instance.clone()));
            }
        }
    }
    for instance in &instances {
        for volume in instance.volumes.values() {
            seen.insert(volume.clone(), (Default::default(), instance.instance.clone()));
        }
    }
    let mut hosts: BTreeMap<InstanceId, Host> = BTreeMap::new();
    let empty = |instance: InstanceId| Host { instance, now: None, snapshots: vec![], inventories: vec![], copies: vec![] };
    let mut owner: HashMap<String, InstanceId> = HashMap::new();
    for copy in copies {
        owner.insert(copy.source.as_str().to_owned(), copy.instance.clone());
        hosts.entry(copy.instance.clone()).or_insert_with(|| empty(copy.instance.clone())).copies.push(copy);
    }
    for instance in instances {
        let host = hosts.entry(instance.instance.clone()).or_insert_with(|| empty(instance.instance.clone()));
        host.now = Some(instance);
    }
    for inventory in inventories {
        let host = hosts.entry(inventory.instance.clone()).or_insert_with(|| empty(inventory.instance.clone()));
        host.inventories.push(inventory);
    }
    let (sources, others): (Vec<Snapshot>, Vec<Snapshot>) = snapshots.into_iter().partition(|s| s.region == *source_region);
    for snapshot in sources {
        let by_volume = || snapshot.volume.as_ref().and_then(|volume| seen.get(volume)).map(|(_, instance)| instance.clone());
        let Some(instance) = owner.get(snapshot.id.as_str()).cloned().or_else(by_volume) else { continue };
        owner.insert(snapshot.id.as_str().to_owned(), instance.clone());
        hosts.entry(instance.clone()).or_insert_with(|| empty(instance)).snapshots.push(snapshot);
    }
    let mut strays = Vec::new();
    for snapshot in others {
        let Some(claims) = snapshot.tags.get(tag::SOURCE_SNAPSHOT) else { continue };
        match owner.get(claims) {
            Some(instance) => {
                hosts.entry(instance.clone()).or_insert_with(|| empty(instance.clone())).snapshots.push(snapshot);
            }
            None => strays.push(Stray { claims: claims.clone(), snapshot: snapshot.id }),
        }
    }
    (hosts.into_values().collect(), strays)
}
