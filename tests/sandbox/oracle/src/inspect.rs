//! `oracle sim-inspect`: what is on disk and on the tokens, database by database, whether or not it runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::disk::Files;
use crate::env::host_path;
use crate::keys::Kind;
use crate::params::{self, Config};
use crate::wallet;

/// A database as `inspect` prints it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inspected {
    /// STARTUPs since seeding.
    pub starts: u64,
    pub containers: BTreeMap<String, InspectedContainer>,
    /// Statements that reached the engine, by class.
    pub statements: BTreeMap<String, u64>,
    /// Master keys begun and not active in any container, by label or key id: orphans and predecessors.
    pub keystore_dir: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InspectedContainer {
    /// Keys that exist, by store, orphans included.
    pub keys: BTreeMap<String, u64>,
    pub active: Option<InspectedActive>,
    /// MASTERKEYIDs that headers of tablespaces and ENC$ rows name.
    pub in_use: BTreeSet<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InspectedActive {
    pub store: String,
    pub id: String,
}

/// Every database of the host's oratab.
#[must_use]
pub fn inspect() -> BTreeMap<String, Inspected> {
    let oratab = std::fs::read_to_string(host_path("/etc/oratab")).unwrap_or_default();
    oratab
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (sid, home) = (fields.next()?, fields.next()?);
            Some((sid.to_owned(), database(sid, home)?))
        })
        .collect()
}

/// Labels that exist on the token of a store.
fn token_labels(store: &str) -> BTreeSet<String> {
    let dir = host_path("/run/hsm").join(store);
    sandbox_shim::state::read(&dir).map(|s| s.keys.into_keys().collect()).unwrap_or_default()
}

fn database(sid: &str, home: &str) -> Option<Inspected> {
    let values = params::find(home, sid).ok()??.values;
    let first = params::list(values.get("control_files")?).into_iter().next()?;
    let files = Files::of(&first);
    let control = files.load_control().ok()?;
    let ledger = files.load_ledger();
    let base = "/u01/app/oracle".to_owned();
    let environment = BTreeMap::from([
        ("ORACLE_HOME".to_owned(), home.to_owned()),
        ("ORACLE_SID".to_owned(), sid.to_owned()),
        ("ORACLE_BASE".to_owned(), base.clone()),
    ]);
    let sqlnet = params::read_sqlnet(&environment);
    let config = Config::resolve(&values, sqlnet.as_deref(), &environment);
    let default = host_path(&format!("{base}/admin/{sid}/wallet"));
    let mut software: BTreeSet<String> = BTreeSet::new();
    for dir in [config.dir.clone(), Some(default.join("tde")), Some(default)].into_iter().flatten() {
        software.extend(wallet::ids(&dir));
    }
    let mut tokens: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut inspected = Inspected {
        starts: ledger.starts,
        statements: ledger.statements,
        keystore_dir: config.dir.as_deref().map(crate::env::shown),
        ..Inspected::default()
    };
    for container in &control.containers {
        let mut seen = InspectedContainer {
            active: container.active.as_ref().map(|a| InspectedActive { store: a.store.clone(), id: a.mkid.key_id(a.kind) }),
            ..InspectedContainer::default()
        };
        for birth in ledger.keys.iter().filter(|k| k.container == container.name) {
            let exists = match birth.kind {
                Kind::File => software.contains(&birth.mkid.key_id(Kind::File)),
                Kind::Hsm => {
                    tokens.entry(birth.store.clone()).or_insert_with(|| token_labels(&birth.store)).contains(&birth.mkid.label())
                }
            };
            if exists {
                *seen.keys.entry(birth.store.clone()).or_default() += 1;
            }
        }
        if let Ok(dictionary) = files.load_dictionary(container) {
            seen.in_use.extend(dictionary.header.map(|h| h.mkid.0));
            seen.in_use.extend(dictionary.enc.into_iter().map(|e| e.key.mkid.0));
        }
        for ts in control.tablespaces.iter().filter(|t| t.con_id == container.con_id) {
            let header = files.load_data(ts).ok().and_then(|d| d.header);
            seen.in_use.extend(header.map(|h| h.mkid.0));
        }
        if container.con_id != 2 {
            inspected.containers.insert(container.name.clone(), seen);
        }
    }
    Some(inspected)
}
