//! What a drill must stay away from (H44), as far as it is known: the addresses of production's HSMs, which nothing may answer at,
//! and the instance profiles of production's hosts, which no drill host may have.
//!
//! The source region may be gone, that is the day drills are for; the records are not, and where they cannot be read nothing is
//! known at all. Whatever answer could not be had is said, so that a short list is never taken for a complete one.

use super::record::RecordError;
use crate::store::{self, CopyRecord, ReadError};
use crate::{Cloud, DrConfig};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use tde2hsm_dr::inventory::{Inventory, Provider};
use tde2hsm_protocol::InstanceId;
use tde2hsm_protocol::wire::printable;

/// What is known, and in one sentence each what could not be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard<T> {
    pub known: T,
    pub unheard: Vec<String>,
}

#[derive(Deserialize)]
struct Known {
    addresses: BTreeSet<String>,
}

/// Addresses that HSMs of production have or ever had.
pub async fn hsm_addresses(
    cloud: &dyn Cloud,
    config: &DrConfig,
    instance: &InstanceId,
) -> Result<Heard<BTreeSet<IpAddr>>, RecordError> {
    let mut texts: BTreeSet<String> = BTreeSet::new();
    let mut unheard = Vec::new();
    match cloud.hsm_addresses(&config.source_region, &config.cluster).await {
        Ok(found) => texts.extend(found.into_iter().flatten()),
        Err(error) => unheard.push(format!("{}: {error}; only what the records know is looked at", config.source_region)),
    }
    match store::read::<Known>(cloud, store::CLUSTER).await {
        Ok(found) => texts.extend(found.into_iter().flat_map(|read| read.value.addresses)),
        Err(ReadError::Call(error)) => return Err(error.into()),
        Err(ReadError::Unreadable(one)) => unheard.push(format!("`{}`: {}", one.key, printable(&one.why, 200))),
    }
    let below = format!("{}{instance}/", store::INVENTORIES);
    let (inventories, unreadable) = store::read_all::<Inventory>(cloud, &below).await?;
    unheard.extend(unreadable.iter().map(|one| format!("`{}`: {}", one.key, printable(&one.why, 200))));
    for inventory in inventories.into_values() {
        if let Some(Provider::CloudHsm { servers: Some(servers) }) = inventory.value.provider {
            texts.extend(servers);
        }
    }
    let mut known = BTreeSet::new();
    for text in texts {
        match text.parse::<IpAddr>() {
            Ok(address) => drop(known.insert(address)),
            Err(_) => unheard.push(format!("`{}` is an HSM's name, and names are not looked up", printable(&text, 100))),
        }
    }
    if known.is_empty() {
        unheard.push("no address of production's HSMs is known: the drill host cannot try whether it reaches one".to_owned());
    }
    Ok(Heard { known, unheard })
}

/// Instance profiles of the hosts whose snapshots were copied, as they were then.
pub async fn instance_profiles(cloud: &dyn Cloud) -> Result<Heard<BTreeSet<String>>, RecordError> {
    let (records, unreadable) = store::read_all::<CopyRecord>(cloud, store::COPIES).await?;
    Ok(Heard {
        known: records.into_values().filter_map(|record| record.value.intent.instance_profile).collect(),
        unheard: unreadable.iter().map(|one| format!("`{}`: {}", one.key, printable(&one.why, 200))).collect(),
    })
}
