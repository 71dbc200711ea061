//! Where the keys of a database are: the one reading that every step begins and ends with (invariant 1).
//!
//! The active key of a container is what the control file names (V$DATABASE_KEY_INFO), never the newest row of
//! V$ENCRYPTION_KEYS: that view may list keys of other databases that share an HSM user, and orphans of an interrupted
//! MIGRATE (H9). V$ENCRYPTION_KEYS tells which store an active key lies in and since when (`O§3.3`, `O§3.7`).

use super::ddl::{self, TdeConfiguration};
use super::session::{Session, SessionError};
use super::views::{self, Container, Database, Instance, KeyRow, Status, Tablespace, Version};
use std::collections::BTreeMap;
use tde2hsm_protocol::survey::{Access, ActiveKey};
use tde2hsm_protocol::{ContainerName, KeyObservation, MasterKeyId, Store, Timestamp};

#[derive(Debug, Clone)]
pub struct ContainerKeys {
    pub container: Container,
    pub key: Option<ActiveKey>,
    /// MASTERKEY_ACTIVATED.
    pub activated: bool,
    /// Keys that ENC$ names, with the number of tables; `None`: the container is closed.
    pub columns: Option<Vec<(MasterKeyId, u32)>>,
}

#[derive(Debug, Clone)]
pub struct KeyState {
    pub instance: Instance,
    pub database: Database,
    pub containers: Vec<ContainerKeys>,
    pub tablespaces: Vec<Tablespace>,
    pub keys: Vec<KeyRow>,
}

/// Leaves the session in the root.
pub fn in_container<T>(
    s: &mut Session,
    database: &Database,
    container: &Container,
    work: impl FnOnce(&mut Session) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    if !database.cdb || container.con_id <= 1 {
        return work(s);
    }
    let limits = s.limits();
    s.run(&ddl::set_container(container.name.as_str(), &limits)?)?;
    let result = work(s);
    let back = s.run(&ddl::set_container(ContainerName::ROOT, &limits)?);
    let value = result?;
    back?;
    Ok(value)
}

/// Reads everything but V$ENCRYPTION_WALLET (H12). The database is at least mounted.
pub fn observe(s: &mut Session) -> Result<KeyState, SessionError> {
    let instance = views::instance(s)?;
    let database = views::database(s)?;
    let all = views::containers(s, &database)?;
    let active = views::key_info(s)?;
    let mut keys = views::keys(s)?;
    let tablespaces = views::tablespaces(s)?;
    let mut containers = Vec::new();
    for container in all {
        let of = |con_id: u32| container.con_id == con_id || (container.con_id == 1 && con_id == 0);
        let found = active.iter().filter(|(con_id, ..)| of(*con_id)).max_by_key(|(.., activated)| *activated).copied();
        let open = instance.status == Status::Open && container.open_mode.starts_with("READ");
        let mut columns = None;
        if open {
            let known = found.is_none_or(|(_, id, _)| keys.iter().any(|row| row.id == id));
            let (named, own) = in_container(s, &database, &container, |s| {
                Ok((views::column_keys(s)?, if known { Vec::new() } else { views::keys(s)? }))
            })?;
            columns = Some(named);
            keys.extend(own);
        }
        let key = found.map(|(_, id, _)| {
            let row = keys.iter().filter(|row| row.id == id).max_by_key(|row| row.activated);
            ActiveKey { id, store: row.and_then(|row| row.store), activated: row.and_then(|row| row.activated) }
        });
        let activated = found.is_some_and(|(.., activated)| activated);
        containers.push(ContainerKeys { container, key, activated, columns });
    }
    Ok(KeyState { instance, database, containers, tablespaces, keys })
}

impl KeyState {
    pub fn version(&self) -> Option<Version> {
        self.instance.version
    }

    /// Containers that have a master key.
    pub fn keyed(&self) -> impl Iterator<Item = (&ContainerKeys, &ActiveKey)> {
        self.containers.iter().filter_map(|container| Some((container, container.key.as_ref()?)))
    }

    /// Every container that has a key has it in this store.
    pub fn all_in(&self, store: Store) -> bool {
        self.keyed().next().is_some() && self.keyed().all(|(_, key)| key.store == Some(store))
    }
    pub fn any_in(&self, store: Store) -> bool {
        self.keyed().any(|(_, key)| key.store == Some(store))
    }

    /// Something of the container that a rotation re-wraps is under another key than the active one: a rotation, in
    /// whichever direction, was broken off before it moved the pointer (H49).
    pub fn is_half_done(&self, keys: &ContainerKeys) -> bool {
        let Some(active) = &keys.key else { return false };
        let spaces = self.tablespaces_of(&keys.container).any(|ts| ts.access == Access::ReadWrite && ts.key != active.id);
        spaces || keys.columns.iter().flatten().any(|(id, _)| *id != active.id)
    }
    pub fn any_half_done(&self) -> bool {
        self.containers.iter().any(|keys| self.is_half_done(keys))
    }

    pub fn ids(&self) -> BTreeMap<ContainerName, MasterKeyId> {
        self.keyed().map(|(c, key)| (c.container.name.clone(), key.id)).collect()
    }

    /// For the report.
    pub fn observations(&self, now: Timestamp) -> Vec<KeyObservation> {
        self.keyed()
            .filter_map(|(c, key)| {
                Some(KeyObservation {
                    container: c.container.name.clone(),
                    key: key.id,
                    store: key.store?,
                    activated: key.activated.unwrap_or(now),
                })
            })
            .collect()
    }

    pub fn tablespaces_of(&self, container: &Container) -> impl Iterator<Item = &Tablespace> {
        let con_id = container.con_id;
        self.tablespaces.iter().filter(move |ts| ts.con_id == con_id || (con_id == 1 && ts.con_id == 0))
    }

    /// Items 1 to 3 of `O§3.7`, in words; empty: proven. `old_keys_gone`: nothing at all may name another key than
    /// the active one, whatever its access (H1, H3): wanted where the former keystore will no longer be reachable.
    pub fn faults(&self, store: Store, old_keys_gone: OldKeys) -> Vec<String> {
        let mut faults = Vec::new();
        if self.keyed().next().is_none() {
            faults.push("no container has a master key".to_owned());
        }
        for (c, key) in self.keyed() {
            let name = &c.container.name;
            match key.store {
                Some(found) if found == store => {}
                Some(found) => faults.push(format!("{name}: the active key is in the {} keystore", word(found))),
                None => faults.push(format!("{name}: V$ENCRYPTION_KEYS does not name the active key {}", key.id)),
            }
            if !c.activated {
                faults.push(format!("{name}: the key {} is not activated", key.id));
            }
            for ts in self.tablespaces_of(&c.container).filter(|ts| ts.key != key.id) {
                if ts.access == Access::ReadWrite || old_keys_gone == OldKeys::Gone {
                    faults.push(format!("{name}: tablespace {} is under the key {}", ts.name, ts.key));
                }
            }
            match &c.columns {
                Some(columns) => {
                    for (id, tables) in columns.iter().filter(|(id, _)| *id != key.id) {
                        faults.push(format!("{name}: {tables} tables have columns under the key {id}"));
                    }
                }
                None => faults.push(format!("{name}: closed, its column keys cannot be read")),
            }
        }
        faults
    }

    /// Keys of this database that lie in a store, were made at or after a time, and are active nowhere (H9).
    pub fn orphans(&self, store: Store, since: Timestamp) -> Vec<MasterKeyId> {
        let active: Vec<MasterKeyId> = self.keyed().map(|(_, key)| key.id).collect();
        // A key of a pluggable database may carry its own DBID or the whole database's.
        let ours: Vec<u64> = self.containers.iter().map(|keys| keys.container.dbid).collect();
        let mut orphans: Vec<MasterKeyId> = self
            .keys
            .iter()
            .filter(|row| row.store == Some(store) && row.created.is_some_and(|at| at >= since))
            .filter(|row| row.creator_dbid.is_none_or(|dbid| ours.contains(&dbid)) && row.activated.is_none())
            .map(|row| row.id)
            .filter(|id| !active.contains(id))
            .collect();
        orphans.sort();
        orphans.dedup();
        orphans
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// The former keystore stays reachable: read-only and offline tablespaces may need it (H3).
    Reachable,
    /// It does not.
    Gone,
}

pub fn word(store: Store) -> &'static str {
    match store {
        Store::Hsm => "HSM",
        Store::Software => "software",
    }
}

/// The configuration of a database in parameter style, as it is in memory.
pub fn tde_configuration(s: &mut Session) -> Result<Option<TdeConfiguration>, SessionError> {
    let parameters = views::parameters(s, &["tde_configuration"])?;
    Ok(parameters.get("tde_configuration").and_then(|value| TdeConfiguration::parse(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MasterKeyId = MasterKeyId([1; 16]);
    const NEW: MasterKeyId = MasterKeyId([2; 16]);
    const ORPHAN: MasterKeyId = MasterKeyId([3; 16]);

    fn space(name: &str, key: MasterKeyId, access: Access) -> Tablespace {
        Tablespace { con_id: 0, name: name.into(), key, access, status: "NORMAL".into() }
    }

    fn row(id: MasterKeyId, store: Store, created: i64, activated: Option<i64>) -> KeyRow {
        KeyRow {
            id,
            store: Some(store),
            created: Some(Timestamp(created)),
            activated: activated.map(Timestamp),
            creator_dbid: Some(7),
            container: None,
        }
    }

    /// A non-CDB whose active key is NEW, in the software keystore, and everything under it.
    fn moved() -> KeyState {
        let container = Container {
            con_id: 0,
            dbid: 7,
            name: ContainerName::new("ORCL").expect("name"),
            open_mode: "READ WRITE".into(),
            restricted: false,
        };
        KeyState {
            instance: Instance {
                version_text: "19.0.0.0.0".into(),
                version: Some(Version::V19),
                status: Status::Open,
                restricted: false,
                archiver_stuck: false,
                rac: false,
                startup: String::new(),
            },
            database: Database {
                dbid: 7,
                name: "ORCL".into(),
                unique_name: "ORCL".into(),
                role: "PRIMARY".into(),
                open_mode: "READ WRITE".into(),
                cdb: false,
                log_mode: "ARCHIVELOG".into(),
                flashback: false,
            },
            containers: vec![ContainerKeys {
                container,
                key: Some(ActiveKey { id: NEW, store: Some(Store::Software), activated: Some(Timestamp(20)) }),
                activated: true,
                columns: Some(vec![(NEW, 3)]),
            }],
            tablespaces: vec![space("DATA", NEW, Access::ReadWrite)],
            keys: vec![row(OLD, Store::Hsm, 10, Some(10)), row(NEW, Store::Software, 20, Some(20))],
        }
    }

    #[test]
    fn a_moved_database_is_proven_and_each_doubt_is_a_fault() {
        let faults = |state: &KeyState| state.faults(Store::Software, OldKeys::Gone);
        assert_eq!(faults(&moved()), Vec::<String>::new());
        let spoil: [fn(&mut KeyState); 6] = [
            |s| s.containers[0].key = None,
            |s| s.containers[0].key.as_mut().expect("key").store = Some(Store::Hsm),
            |s| s.containers[0].key.as_mut().expect("key").store = None,
            |s| s.containers[0].activated = false,
            |s| s.containers[0].columns = None,
            |s| s.containers[0].columns = Some(vec![(NEW, 1), (OLD, 2)]),
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let mut state = moved();
            spoil(&mut state);
            assert_eq!(faults(&state).len(), 1, "spoilt by {n}: {:?}", faults(&state));
        }
    }

    #[test]
    fn h3_an_old_key_is_a_fault_everywhere_once_it_is_out_of_reach() {
        for access in [Access::ReadWrite, Access::ReadOnly, Access::Offline] {
            let mut state = moved();
            state.tablespaces.push(space("HISTORY", OLD, access));
            assert_eq!(state.faults(Store::Software, OldKeys::Gone).len(), 1, "{access:?}");
            let reachable = state.faults(Store::Software, OldKeys::Reachable).len();
            assert_eq!(reachable, usize::from(access == Access::ReadWrite), "{access:?}");
        }
    }

    #[test]
    fn h49_a_rotation_that_was_broken_off_is_seen_although_the_pointer_has_not_moved() {
        assert!(!moved().any_half_done());
        let mut columns = moved();
        columns.containers[0].columns = Some(vec![(ORPHAN, 3)]);
        assert!(columns.any_half_done() && columns.all_in(Store::Software));
        let mut spaces = moved();
        spaces.tablespaces.push(space("HISTORY", ORPHAN, Access::ReadWrite));
        assert!(spaces.any_half_done());
        // A read-only tablespace stays where it is: no rotation moves it (O§7.5).
        let mut kept = moved();
        kept.tablespaces.push(space("ARCHIVE", OLD, Access::ReadOnly));
        assert!(!kept.any_half_done());
    }

    #[test]
    fn h9_an_orphan_is_a_key_of_ours_that_was_never_activated() {
        let mut state = moved();
        state.keys.push(row(ORPHAN, Store::Software, 30, None));
        state.keys.push(row(MasterKeyId([4; 16]), Store::Software, 5, None));
        state.keys.push(KeyRow { creator_dbid: Some(8), ..row(MasterKeyId([5; 16]), Store::Software, 30, None) });
        state.keys.push(row(MasterKeyId([6; 16]), Store::Hsm, 30, None));
        assert_eq!(state.orphans(Store::Software, Timestamp(15)), [ORPHAN]);
    }
}
