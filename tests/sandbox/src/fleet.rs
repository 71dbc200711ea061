//! The fleets `sandbox up` can build.

use serde::{Deserialize, Serialize};

/// Which Oracle, and with it how its keystore is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// 19c: WALLET_ROOT and TDE_CONFIGURATION.
    R19,
    /// 12.2: sqlnet.ora.
    R122,
}

/// Where the master keys are at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    OldHsm,
    Software,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub sid: String,
    pub release: Release,
    pub source: Source,
    pub pdbs: Vec<String>,
    /// Pluggable databases without any encryption.
    pub plain_pdbs: Vec<String>,
    /// Has a TNS_ADMIN of its own, because it shares its home (H16).
    pub own_tns_admin: bool,
    /// Ships its redo to a standby (H19).
    pub standby: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    pub name: String,
    pub databases: Vec<Database>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Mixed,
    Count(u16),
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "small" => Ok(Self::Small),
            "mixed" => Ok(Self::Mixed),
            number => match number.parse() {
                Ok(n) if (1..=1000).contains(&n) => Ok(Self::Count(n)),
                _ => Err(format!("`{text}` is no fleet; use small, mixed or a number of hosts from 1 to 1000")),
            },
        }
    }
}

fn database(sid: &str, release: Release, source: Source) -> Database {
    Database {
        sid: sid.to_owned(),
        release,
        source,
        pdbs: Vec::new(),
        plain_pdbs: Vec::new(),
        own_tns_admin: false,
        standby: false,
    }
}

fn host(number: usize, databases: Vec<Database>) -> HostPlan {
    HostPlan { name: format!("ora-{number:02}"), databases }
}

impl Size {
    pub fn plan(self) -> Vec<HostPlan> {
        use Release::{R19, R122};
        use Source::{OldHsm, Software};
        match self {
            Self::Small => vec![host(1, vec![database("ORCL1", R19, OldHsm)])],
            Self::Count(n) => (1..=usize::from(n)).map(|i| host(i, vec![database(&format!("DB{i:03}"), R19, OldHsm)])).collect(),
            Self::Mixed => {
                let with_pdbs = |mut db: Database, pdbs: &[&str]| {
                    db.pdbs = pdbs.iter().map(|&p| p.to_owned()).collect();
                    db
                };
                let own_tns = |mut db: Database| {
                    db.own_tns_admin = true;
                    db
                };
                let mut crm = with_pdbs(database("CRM", R19, OldHsm), &["CRMEU", "CRMUS"]);
                crm.plain_pdbs = vec!["CRMDEV".to_owned(), "CRMREP".to_owned()];
                let mut refused = database("SHIP", R19, OldHsm);
                refused.standby = true;
                vec![
                    host(1, vec![database("SALES", R19, OldHsm), database("STOCK", R19, OldHsm)]),
                    host(2, vec![database("LEDGER", R122, OldHsm)]),
                    host(3, vec![crm]),
                    host(
                        4,
                        vec![
                            database("HR", R19, OldHsm),
                            own_tns(database("PAYR", R122, OldHsm)),
                            own_tns(database("TAX", R122, OldHsm)),
                        ],
                    ),
                    host(5, vec![database("WEB", R19, Software)]),
                    host(6, vec![with_pdbs(database("BILL", R122, OldHsm), &["BILLA"])]),
                    host(7, vec![database("ARCH", R122, Software)]),
                    host(8, vec![refused]),
                ]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn mixed_is_eight_hosts_and_eleven_databases_with_names_of_their_own() {
        let plan = Size::Mixed.plan();
        let sids: BTreeSet<&str> = plan.iter().flat_map(|h| &h.databases).map(|d| d.sid.as_str()).collect();
        assert_eq!((plan.len(), sids.len()), (8, 11));
        assert_eq!(plan.iter().flat_map(|h| &h.databases).filter(|d| d.standby).count(), 1);
    }
}
