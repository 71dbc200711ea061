//! Which databases a host has, and how to reach one (`O§7.8`).
//!
//! A running instance is believed about itself: home and environment of its pmon are what its server processes have,
//! and a bequeath session that differs from it (a trailing slash is enough) reaches another shared memory segment.
//! What is down is believed of oratab. Both may name one SID differently; the survey shows both (H20).

use super::ddl::Limits;
use super::session::{Session, SessionError};
use crate::owner::{Owner, OwnerError, Privileges, Program};
use crate::paths::Paths;
use crate::procs::{Pmon, Procs};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use tde2hsm_protocol::Sid;

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("`{path}` cannot be read")]
    Oratab {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the processes of the host cannot be read")]
    Procs(#[source] std::io::Error),
}

/// One database of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub sid: Sid,
    /// ORACLE_HOME of the running instance, else oratab's.
    pub home: String,
    pub oratab_home: Option<String>,
    pub pmon: Option<Pmon>,
}

impl Place {
    /// Directory of `sqlnet.ora` for the server processes (H16).
    pub fn tns_admin(&self) -> String {
        match self.pmon.as_ref().and_then(|pmon| pmon.env("TNS_ADMIN")).filter(|dir| dir.starts_with('/')) {
            Some(dir) => dir.trim_end_matches('/').to_owned(),
            None => format!("{}/network/admin", self.home.trim_end_matches('/')),
        }
    }
    pub fn sqlnet_ora(&self) -> String {
        format!("{}/sqlnet.ora", self.tns_admin())
    }
    /// ORACLE_BASE: the environment's, else what stands before `/product/` in the home.
    pub fn base(&self) -> Option<String> {
        let said = self.pmon.as_ref().and_then(|pmon| pmon.env("ORACLE_BASE")).filter(|dir| dir.starts_with('/'));
        said.map(|dir| dir.trim_end_matches('/').to_owned())
            .or_else(|| self.home.split_once("/product/").map(|(base, _)| base.to_owned()))
    }
}

/// Lines of oratab: `SID:HOME:Y`. Comments, `*` and ASM instances are left out.
fn oratab(text: &str) -> BTreeMap<Sid, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut fields = line.split(':');
        let (Some(sid), Some(home)) = (fields.next(), fields.next()) else { continue };
        if let Ok(sid) = Sid::new(sid.trim())
            && home.trim().starts_with('/')
        {
            found.entry(sid).or_insert_with(|| home.trim().to_owned());
        }
    }
    found
}

/// Every database of the host, running or not.
pub fn places(paths: &Paths) -> Result<Vec<Place>, PlaceError> {
    let path = paths.oratab();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(PlaceError::Oratab { path, source }),
    };
    let named = oratab(&text);
    let pmons = Procs::new(paths).pmons().map_err(PlaceError::Procs)?;
    Ok(join(named, pmons))
}

fn join(named: BTreeMap<Sid, String>, pmons: Vec<Pmon>) -> Vec<Place> {
    let mut all: BTreeMap<Sid, Place> = named
        .into_iter()
        .map(|(sid, home)| (sid.clone(), Place { sid, home: home.clone(), oratab_home: Some(home), pmon: None }))
        .collect();
    for pmon in pmons {
        let exe = pmon.exe.trim_end_matches(" (deleted)").strip_suffix("/bin/oracle").map(str::to_owned);
        let home = pmon.env("ORACLE_HOME").filter(|home| home.starts_with('/')).map(str::to_owned).or(exe);
        let place = all.entry(pmon.sid.clone()).or_insert_with(|| Place {
            sid: pmon.sid.clone(),
            home: String::new(),
            oratab_home: None,
            pmon: None,
        });
        if let Some(home) = home {
            place.home = home;
        }
        place.pmon = Some(pmon);
    }
    all.retain(|_, place| !place.home.is_empty());
    all.into_values().collect()
}

/// A place with its owner: what a session is opened through.
#[derive(Debug, Clone)]
pub struct Db {
    pub place: Place,
    pub owner: Owner,
    pub limits: Limits,
    /// The environment that a former pmon had, while the instance is down (H24).
    pub former: Option<Pmon>,
}

/// Variables that would send sqlplus elsewhere or let it run something (`O§7.9`).
const UNWANTED: [&str; 12] = [
    "TWO_TASK",
    "LOCAL",
    "ORACLE_PATH",
    "SQLPATH",
    "LD_PRELOAD",
    "LD_AUDIT",
    "NLS_LANG",
    "NLS_NUMERIC_CHARACTERS",
    "NLS_DATE_FORMAT",
    "NLS_TIMESTAMP_TZ_FORMAT",
    "ORACLE_HOME",
    "ORACLE_SID",
];

impl Db {
    pub fn new(paths: &Paths, place: Place) -> Result<Db, OwnerError> {
        let owner = Owner::of_home(paths, &place.home)?;
        Ok(Db { place, owner, limits: Limits::default(), former: None })
    }

    pub fn sid(&self) -> &Sid {
        &self.place.sid
    }

    /// The pmon that is or, while the instance is down, was.
    pub fn pmon(&self) -> Option<&Pmon> {
        self.place.pmon.as_ref().or(self.former.as_ref())
    }

    fn sqlplus(&self) -> Program {
        let path = format!("{}/bin/sqlplus", self.place.home.trim_end_matches('/'));
        let mut program = Program::new(path, self.limits.startup).arg("-S").arg("-L").arg("/nolog");
        if self.pmon().is_none_or(|pmon| pmon.env("LD_LIBRARY_PATH").is_none()) {
            program = program.env("LD_LIBRARY_PATH", &format!("{}/lib", self.place.home.trim_end_matches('/')));
        }
        program
    }

    /// A session as the database owner, `/ AS SYSDBA`. A bequeath server inherits our environment, and a PKCS#11
    /// library in it reads its own from there (`O§4.3`), so it is pmon's wherever that is known.
    pub fn connect(&self) -> Result<Session, SessionError> {
        let mut program = self.sqlplus();
        for (name, value) in self.pmon().map(|pmon| pmon.environ.as_slice()).unwrap_or_default() {
            if !UNWANTED.contains(&name.as_str()) {
                program = program.env(name, value);
            }
        }
        program = program
            .env("ORACLE_HOME", &self.place.home)
            .env("ORACLE_SID", self.place.sid.as_str())
            .env("NLS_LANG", "AMERICAN_AMERICA.AL32UTF8");
        self.talk(&program)
    }

    /// A session for STARTUP: what it starts inherits environment, limits and cgroup for good, so they are exactly
    /// the former pmon's (H24).
    pub fn connect_to_start(&self) -> Result<Session, SessionError> {
        let mut program = self.sqlplus();
        program.privileges = Privileges::Login;
        match self.pmon() {
            Some(pmon) => {
                for (name, value) in &pmon.environ {
                    program = program.env(name, value);
                }
                program.like = Some(pmon.clone());
            }
            None => program = program.env("NLS_LANG", "AMERICAN_AMERICA.AL32UTF8"),
        }
        program = program.env("ORACLE_HOME", &self.place.home).env("ORACLE_SID", self.place.sid.as_str());
        self.talk(&program)
    }

    fn talk(&self, program: &Program) -> Result<Session, SessionError> {
        let child = self.owner.spawn(program)?;
        // Only has to differ from whatever text a database may answer.
        let mark = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Session::connect(Box::new(child), &format!("{mark:016x}"), self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::Timestamp;

    fn pmon(sid: &str, environ: &[(&str, &str)], exe: &str) -> Pmon {
        Pmon {
            pid: 7,
            sid: Sid::new(sid).expect("sid"),
            uid: 54321,
            environ: environ.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            limits: Vec::new(),
            cgroup: "/".into(),
            started_at: Timestamp(1),
            exe: exe.into(),
        }
    }

    #[test]
    fn oratab_is_read_as_dbstart_reads_it() {
        let text = "# comment\nORCL:/u01/app/oracle/product/19.0.0/dbhome_1:Y # why\n*:/u01/x:N\n+ASM1:/u01/grid:N\nDOWN:/u01/y:N\nORCL:/other:N\nbad line\n:x:\nREL:home:Y\n";
        let found = oratab(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[&Sid::new("ORCL").expect("sid")], "/u01/app/oracle/product/19.0.0/dbhome_1");
    }

    #[test]
    fn h17_databases_are_found_running_or_not_and_pmon_is_believed_about_its_home() {
        let named = oratab("A:/u01/product/a:Y\nB:/u01/product/b:N\n");
        let all = join(
            named,
            vec![
                pmon("A", &[("ORACLE_HOME", "/u01/product/a/")], "/u01/product/a/bin/oracle"),
                pmon("C", &[("TNS_ADMIN", "/etc/tns/")], "/u02/product/c/bin/oracle (deleted)"),
            ],
        );
        let seen: Vec<_> = all.iter().map(|p| (p.sid.as_str(), p.home.as_str(), p.tns_admin(), p.pmon.is_some())).collect();
        assert_eq!(
            seen,
            [
                ("A", "/u01/product/a/", "/u01/product/a/network/admin".to_owned(), true),
                ("B", "/u01/product/b", "/u01/product/b/network/admin".to_owned(), false),
                ("C", "/u02/product/c", "/etc/tns".to_owned(), true),
            ]
        );
        assert_eq!(all[0].oratab_home.as_deref(), Some("/u01/product/a"));
        assert_eq!(all[2].base().as_deref(), Some("/u02"));
    }
}
