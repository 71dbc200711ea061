//! Clusters and what really holds their keys: a token directory each, copies of it for backups, and the network that leads
//! hosts to them.
//!
//! A network is a directory that a host sees as `/run/hsm`: the tokens in it, and `addresses.json`, which says which HSM
//! address is answered by which. What is not in a host's network cannot be reached from it, whatever its configuration says.

use crate::layout::Layout;
use anyhow::{Context as _, Result};
use sandbox_shim::Hsm;
use sandbox_shim::admin::Token;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tde2hsm_model::Region;

#[derive(Debug, Clone)]
pub struct Cluster {
    pub region: Region,
    pub token: Token,
    /// `user:password` of its crypto user.
    pub pin: String,
    /// Addresses of its HSMs.
    addresses: Vec<String>,
}

#[derive(Debug)]
pub struct Tokens {
    layout: Layout,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clusters: BTreeMap<String, Cluster>,
    /// The crypto user's `user:password` in each backup that is here.
    backups: BTreeMap<String, String>,
    /// Logins, good and failed, of clusters that were deleted.
    former: BTreeMap<String, (u64, u64)>,
}

impl Tokens {
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, cluster: &str, region: &Region, token: Token, pin: &str) {
        let row = Cluster { region: region.clone(), token, pin: pin.to_owned(), addresses: Vec::new() };
        self.lock().clusters.insert(cluster.to_owned(), row);
    }

    pub fn cluster(&self, id: &str) -> Option<Cluster> {
        self.lock().clusters.get(id).cloned()
    }

    pub fn clusters(&self) -> BTreeMap<String, Cluster> {
        self.lock().clusters.clone()
    }

    /// The cluster of a region that answers at the first of these addresses which any does.
    pub fn at(&self, region: &Region, addresses: &[String]) -> Option<Cluster> {
        let inner = self.lock();
        let mut found = addresses
            .iter()
            .filter_map(|address| inner.clusters.values().find(|c| c.region == *region && c.addresses.contains(address)));
        found.next().cloned()
    }

    /// Backups whose content is here.
    pub fn backups(&self) -> BTreeSet<String> {
        self.lock().backups.keys().cloned().collect()
    }

    /// Logins of clusters that are gone.
    pub fn former(&self) -> BTreeMap<String, (u64, u64)> {
        self.lock().former.clone()
    }

    /// Gives the crypto user of a cluster another password, as its operator does.
    pub fn set_pin(&self, cluster: &str, pin: &str) -> Result<()> {
        let (user, password) = pin.split_once(':').context("a PIN is written user:password")?;
        let mut inner = self.lock();
        let row = inner.clusters.get_mut(cluster).with_context(|| format!("there is no cluster {cluster}"))?;
        row.token.set_user(user, password)?;
        pin.clone_into(&mut row.pin);
        Ok(())
    }

    /// Freezes keys and users of a cluster.
    pub fn back_up(&self, cluster: &str, backup: &str) -> Result<()> {
        let mut inner = self.lock();
        let Some(row) = inner.clusters.get(cluster).cloned() else { return Ok(()) };
        row.token.copy_to(&self.layout.hsm_backup(backup))?;
        inner.backups.insert(backup.to_owned(), row.pin);
        Ok(())
    }

    /// The copy holds what the source holds.
    pub fn copied(&self, source: &str, backup: &str) -> Result<()> {
        let mut inner = self.lock();
        let Some(pin) = inner.backups.get(source).cloned() else { return Ok(()) };
        Token::at(&self.layout.hsm_backup(source)).copy_to(&self.layout.hsm_backup(backup))?;
        inner.backups.insert(backup.to_owned(), pin);
        Ok(())
    }

    pub fn backup_gone(&self, backup: &str) {
        if self.lock().backups.remove(backup).is_some() {
            let _ = fs::remove_dir_all(self.layout.hsm_backup(backup));
        }
    }

    /// A new cluster with the keys and users of a backup, and no HSM yet.
    pub fn restore(&self, region: &Region, cluster: &str, backup: &str) -> Result<()> {
        let mut inner = self.lock();
        let pin = inner.backups.get(backup).cloned().with_context(|| format!("the content of {backup} is not here"))?;
        let dir = self.layout.network(region).join(cluster);
        let token = Token::at(&self.layout.hsm_backup(backup)).copy_to(&dir)?;
        token.modify(|state| {
            state.hsms.clear();
            state.logins = sandbox_shim::Logins::default();
            state.keys.values_mut().for_each(|key| key.copies.clear());
            (state.reachable, state.cut_off, state.limited_write, state.latency_ms) = (true, false, false, 0);
        })?;
        let row = Cluster { region: region.clone(), token, pin, addresses: Vec::new() };
        inner.clusters.insert(cluster.to_owned(), row);
        Ok(())
    }

    pub fn cluster_gone(&self, cluster: &str) {
        let mut inner = self.lock();
        let Some(row) = inner.clusters.remove(cluster) else { return };
        if let Ok(state) = row.token.state() {
            inner.former.insert(cluster.to_owned(), (state.logins.ok, state.logins.failed));
        }
        let _ = fs::remove_dir_all(row.token.dir());
        let _ = route(&self.layout.network(&row.region), &inner.clusters, &row.region);
    }

    /// Makes the HSMs of a cluster these, with their addresses. A new HSM is cloned from one that has every key.
    pub fn set_hsms(&self, cluster: &str, hsms: &[(String, bool)], addresses: Vec<String>) -> Result<()> {
        let mut inner = self.lock();
        let Some(row) = inner.clusters.get_mut(cluster) else { return Ok(()) };
        row.token.modify(|state| {
            for (id, active) in hsms {
                match state.hsms.iter_mut().find(|hsm| hsm.id == *id) {
                    Some(hsm) => hsm.active = *active,
                    None => {
                        state.hsms.push(Hsm { id: id.clone(), active: *active });
                        state.keys.values_mut().for_each(|key| key.copies.push(id.clone()));
                    }
                }
            }
            state.hsms.retain(|hsm| hsms.iter().any(|(id, _)| *id == hsm.id));
            let left: Vec<String> = state.hsms.iter().map(|hsm| hsm.id.clone()).collect();
            state.keys.values_mut().for_each(|key| key.copies.retain(|copy| left.contains(copy)));
        })?;
        // An address stays while an HSM that is not ACTIVE may have it: who connects there learns that it is dead.
        row.addresses.retain(|old| addresses.len() < hsms.len() && !addresses.contains(old));
        row.addresses.extend(addresses);
        let region = row.region.clone();
        route(&self.layout.network(&region), &inner.clusters, &region)
    }
}

/// Writes the network of a region.
fn route(network: &Path, clusters: &BTreeMap<String, Cluster>, region: &Region) -> Result<()> {
    fs::create_dir_all(network)?;
    let mut table = BTreeMap::new();
    for row in clusters.values().filter(|row| row.region == *region) {
        let name = row.token.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        table.extend(row.addresses.iter().map(|address| (address.clone(), name.clone())));
    }
    let beside: PathBuf = network.join(".addresses.json");
    fs::write(&beside, serde_json::to_vec_pretty(&table)?)?;
    fs::rename(&beside, network.join("addresses.json")).context("writing a network")
}
