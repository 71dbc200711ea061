//! What really opens: disks, HSMs and an Oracle that has only what was restored.
//!
//! A [`Machine`] is the files of one host, a [`Frozen`] one volume of it at one moment, a [`Token`] the keys and users of
//! an HSM at one moment. [`open`] starts where a restored host starts, at the root volume's mount table and `oratab`, and
//! follows path by path what an instance reads: parameter file, control file, datafiles, redo. Every key that a file was
//! written under must then be found in a keystore file that a password opens or in an HSM that a login opens. The walk
//! knows nothing of inventories, tags, clocks of AWS or anybody's verdict: it is what verdicts are held against.

use crate::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;

/// A master key, by its identifier.
pub type Key = [u8; 16];

pub const ORATAB: &str = "/etc/oratab";
pub const PROVIDER: &str = "/opt/oracle/extapi/64/hsm";
pub const CLIENT: &str = "/opt/cloudhsm";

/// Keys and crypto users of an HSM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    pub keys: BTreeSet<Key>,
    /// User to password.
    pub users: BTreeMap<String, String>,
}

impl Token {
    /// What a login with `user:password` gets to see.
    fn login(&self, pin: &str) -> Option<&BTreeSet<Key>> {
        let (user, password) = pin.split_once(':')?;
        (self.users.get(user).map(String::as_str) == Some(password)).then_some(&self.keys)
    }
}

/// An HSM that lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hsm {
    token: Token,
    limited: bool,
}

impl Hsm {
    /// What a backup made now would hold.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// While the cluster's HSMs are exchanged one by one it makes and deletes no token key and changes no user (A§4.7).
    pub fn limit(&mut self, limited: bool) {
        self.limited = limited;
    }

    pub fn make_key(&mut self, key: Key) -> Result<(), Refusal> {
        self.writable()?;
        self.token.keys.insert(key);
        Ok(())
    }

    /// A person deletes the object. Whether there was one.
    pub fn delete_key(&mut self, key: &Key) -> Result<bool, Refusal> {
        self.writable()?;
        Ok(self.token.keys.remove(key))
    }

    pub fn set_password(&mut self, user: &str, password: &str) -> Result<(), Refusal> {
        self.writable()?;
        self.token.users.insert(user.to_owned(), password.to_owned());
        Ok(())
    }

    fn writable(&self) -> Result<(), Refusal> {
        if self.limited { Err(Refusal::LimitedWrite) } else { Ok(()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Old,
    CloudHsm,
}

/// A file, as far as opening a database depends on what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// SID and home of each database.
    Oratab(Vec<(String, String)>),
    Home,
    /// The directory of the keystore; `None`: the HSM alone.
    Sqlnet {
        keystore: Option<String>,
    },
    Spfile {
        control: String,
    },
    PasswordFile,
    Controlfile {
        datafiles: Vec<String>,
        redo: Vec<String>,
        archive: String,
    },
    /// The key of each encrypted tablespace and of each encrypted column in it.
    Datafile {
        keys: Vec<Key>,
    },
    /// Keys that redo which crash recovery reads was written under.
    Redo {
        keys: BTreeSet<Key>,
    },
    Archive,
    P12 {
        password: String,
        keys: BTreeSet<Key>,
    },
    /// A LOCAL one opens on the host it was made on.
    Sso {
        local: bool,
        keys: BTreeSet<Key>,
    },
    Provider(Library),
    /// `/opt/cloudhsm` with the cluster's CA.
    Client,
}

/// The files of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub root: String,
    /// Mount point to volume, the root's own aside.
    pub mounts: BTreeMap<String, String>,
    pub files: BTreeMap<String, File>,
}

impl Machine {
    /// The volume that a path lies on: that of the longest mount point above it.
    fn volume_of(&self, path: &str) -> &str {
        let below = |point: &str| path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mount = self.mounts.iter().filter(|(point, _)| below(point)).max_by_key(|(point, _)| point.len());
        mount.map_or(&self.root, |(_, volume)| volume)
    }
}

/// One volume of a machine at one moment.
#[derive(Debug, Clone)]
pub struct Frozen {
    pub machine: Arc<Machine>,
    pub volume: String,
    pub at: Millis,
}

/// Why a database does not open: the first thing that an instance would meet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("no root volume")]
    NoRoot,
    #[error("the volumes show different moments")]
    Torn,
    #[error("{0} is not there")]
    NoFile(String),
    #[error("{0} is something else")]
    Strange(String),
    #[error("no HSM backup was given")]
    NoHsm,
    #[error("the library belongs to another HSM")]
    OldLibrary,
    #[error("no password logs in to the restored HSM")]
    Login,
    #[error("key {0} is nowhere")]
    NoKey(String),
    #[error("the HSM is in limited-write mode")]
    LimitedWrite,
}

/// What a database needs of a set of volumes, before any key is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub needs: BTreeSet<Key>,
    /// Password and keys of the software keystore.
    p12: Option<(String, BTreeSet<Key>)>,
    /// Keys of an auto-login keystore that opens anywhere.
    anywhere: BTreeSet<Key>,
    library: Option<Library>,
    client: bool,
}

struct Disks<'a> {
    volumes: &'a [Frozen],
    root: &'a Machine,
}

impl<'a> Disks<'a> {
    fn read(&self, path: &str) -> Option<&'a File> {
        let volume = self.root.volume_of(path);
        self.volumes.iter().find(|v| v.volume == volume)?.machine.files.get(path)
    }

    fn must(&self, path: &str) -> Result<&'a File, Refusal> {
        self.read(path).ok_or_else(|| Refusal::NoFile(path.to_owned()))
    }
}

/// Starts an instance as far as MOUNT: every file found, every key that is needed named.
pub fn mount(volumes: &[Frozen], sid: &str) -> Result<Mounted, Refusal> {
    let root = volumes.iter().find(|v| v.machine.root == v.volume).ok_or(Refusal::NoRoot)?;
    // Nothing was taken in backup mode here, so only one moment can be recovered from.
    if volumes.iter().any(|v| v.at != root.at) {
        return Err(Refusal::Torn);
    }
    let disks = Disks { volumes, root: &root.machine };
    let strange = |path: &str| Refusal::Strange(path.to_owned());
    let File::Oratab(databases) = disks.must(ORATAB)? else { return Err(strange(ORATAB)) };
    let (_, home) = databases.iter().find(|(name, _)| name == sid).ok_or_else(|| strange(ORATAB))?;
    disks.must(home)?;
    let spfile = format!("{home}/dbs/spfile{sid}.ora");
    let File::Spfile { control } = disks.must(&spfile)? else { return Err(strange(&spfile)) };
    disks.must(&format!("{home}/dbs/orapw{sid}"))?;
    let sqlnet = format!("{home}/network/admin/{sid}/sqlnet.ora");
    let File::Sqlnet { keystore } = disks.must(&sqlnet)? else { return Err(strange(&sqlnet)) };
    let File::Controlfile { datafiles, redo, archive } = disks.must(control)? else { return Err(strange(control)) };
    disks.must(archive)?;
    let mut needs = BTreeSet::new();
    for path in datafiles {
        let File::Datafile { keys } = disks.must(path)? else { return Err(strange(path)) };
        needs.extend(keys);
    }
    for path in redo {
        let File::Redo { keys } = disks.must(path)? else { return Err(strange(path)) };
        needs.extend(keys);
    }
    let in_keystore = |name: &str| keystore.as_ref().and_then(|directory| disks.read(&format!("{directory}/{name}")));
    let p12 = match in_keystore("ewallet.p12") {
        Some(File::P12 { password, keys }) => Some((password.clone(), keys.clone())),
        _ => None,
    };
    let anywhere = match in_keystore("cwallet.sso") {
        Some(File::Sso { local: false, keys }) => keys.clone(),
        _ => BTreeSet::new(),
    };
    let library = match disks.read(PROVIDER) {
        Some(File::Provider(library)) => Some(*library),
        _ => None,
    };
    Ok(Mounted { needs, p12, anywhere, library, client: disks.read(CLIENT).is_some() })
}

impl Mounted {
    /// Opens it: each key that is needed is in the keystore file, under one of `passwords`, or in the HSM, under one of
    /// `pins`.
    pub fn open(&self, hsm: Option<&Token>, pins: &[&str], passwords: &[&str]) -> Result<(), Refusal> {
        let software = self.p12.as_ref().filter(|(password, _)| passwords.contains(&password.as_str())).map(|(_, keys)| keys);
        let has = |key: &Key| self.anywhere.contains(key) || software.is_some_and(|keys| keys.contains(key));
        let rest: Vec<&Key> = self.needs.iter().filter(|key| !has(key)).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let token = hsm.ok_or(Refusal::NoHsm)?;
        if self.library != Some(Library::CloudHsm) || !self.client {
            return Err(Refusal::OldLibrary);
        }
        let keys = pins.iter().find_map(|pin| token.login(pin)).ok_or(Refusal::Login)?;
        match rest.into_iter().find(|key| !keys.contains(*key)) {
            Some(missing) => Err(Refusal::NoKey(hex::encode(missing))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: Key = [1; 16];
    const OLD: Key = [2; 16];

    /// Starts an instance of `sid` on these volumes, with an HSM restored from a backup and these secrets.
    fn open(volumes: &[Frozen], sid: &str, hsm: Option<&Token>, pins: &[&str], passwords: &[&str]) -> Result<(), Refusal> {
        mount(volumes, sid)?.open(hsm, pins, passwords)
    }

    fn machine() -> Machine {
        let home = "/u01/home";
        let mut machine = Machine { root: "vol-root".into(), ..Machine::default() };
        machine.mounts.insert("/u02".into(), "vol-data".into());
        for (path, file) in [
            (ORATAB, File::Oratab(vec![("ORCL".into(), home.into())])),
            (home, File::Home),
            ("/u01/home/dbs/spfileORCL.ora", File::Spfile { control: "/u02/control01.ctl".into() }),
            ("/u01/home/dbs/orapwORCL", File::PasswordFile),
            ("/u01/home/network/admin/ORCL/sqlnet.ora", File::Sqlnet { keystore: Some("/u01/keystore".into()) }),
            (
                "/u02/control01.ctl",
                File::Controlfile {
                    datafiles: vec!["/u02/users01.dbf".into()],
                    redo: vec!["/u02/redo01.log".into()],
                    archive: "/u02/arch".into(),
                },
            ),
            ("/u02/users01.dbf", File::Datafile { keys: vec![ACTIVE] }),
            ("/u02/redo01.log", File::Redo { keys: BTreeSet::from([ACTIVE]) }),
            ("/u02/arch", File::Archive),
            (PROVIDER, File::Provider(Library::CloudHsm)),
            (CLIENT, File::Client),
            ("/u01/keystore/ewallet.p12", File::P12 { password: "soft".into(), keys: BTreeSet::from([OLD]) }),
        ] {
            machine.files.insert(path.to_owned(), file);
        }
        machine
    }

    fn volumes(machine: &Machine) -> Vec<Frozen> {
        let machine = Arc::new(machine.clone());
        let volume = |name: &str| Frozen { machine: machine.clone(), volume: name.to_owned(), at: Millis(0) };
        vec![volume("vol-root"), volume("vol-data")]
    }

    fn token() -> Token {
        Token { keys: BTreeSet::from([ACTIVE]), users: BTreeMap::from([("cu".to_owned(), "pass".to_owned())]) }
    }

    #[test]
    fn it_opens_with_everything_and_with_nothing_less() {
        let disks = volumes(&machine());
        let hsm = token();
        let try_with = |volumes: &[Frozen], hsm: Option<&Token>, pins: &[&str]| open(volumes, "ORCL", hsm, pins, &["soft"]);
        assert_eq!(try_with(&disks, Some(&hsm), &["cu:pass"]), Ok(()));
        assert_eq!(try_with(&disks, None, &["cu:pass"]), Err(Refusal::NoHsm));
        assert_eq!(try_with(&disks, Some(&hsm), &["cu:former"]), Err(Refusal::Login));
        assert_eq!(
            try_with(&disks, Some(&Token { keys: BTreeSet::new(), ..token() }), &["cu:pass"]),
            Err(Refusal::NoKey("01".repeat(16)))
        );
        assert_eq!(try_with(&disks[1..], Some(&hsm), &["cu:pass"]), Err(Refusal::NoRoot));
        assert_eq!(try_with(&disks[..1], Some(&hsm), &["cu:pass"]), Err(Refusal::NoFile("/u02/control01.ctl".into())));
        let mut torn = disks.clone();
        torn[1].at = Millis(1);
        assert_eq!(try_with(&torn, Some(&hsm), &["cu:pass"]), Err(Refusal::Torn));
    }

    #[test]
    fn h41_a_read_only_tablespace_and_redo_ask_for_the_keys_they_were_written_under() {
        let mut machine = machine();
        machine.files.insert("/u02/users01.dbf".into(), File::Datafile { keys: vec![ACTIVE, OLD] });
        let hsm = token();
        let with = |m: &Machine, passwords: &[&str]| open(&volumes(m), "ORCL", Some(&hsm), &["cu:pass"], passwords);
        assert_eq!(with(&machine, &["soft"]), Ok(()), "from the keystore file");
        assert_eq!(with(&machine, &["other"]), Err(Refusal::NoKey("02".repeat(16))));
        machine.files.remove("/u01/keystore/ewallet.p12");
        assert!(with(&machine, &["soft"]).is_err());
        // H40: an auto-login keystore helps elsewhere only if it is not LOCAL.
        let sso = |local| File::Sso { local, keys: BTreeSet::from([OLD]) };
        machine.files.insert("/u01/keystore/cwallet.sso".into(), sso(true));
        assert!(with(&machine, &[]).is_err());
        machine.files.insert("/u01/keystore/cwallet.sso".into(), sso(false));
        assert_eq!(with(&machine, &[]), Ok(()));
        machine.files.insert("/u02/redo01.log".into(), File::Redo { keys: BTreeSet::from([[9; 16]]) });
        assert!(with(&machine, &[]).is_err());
    }

    #[test]
    fn an_hsm_in_limited_write_mode_keeps_its_keys_and_passwords_as_they_are_and_still_opens_databases() {
        let mut hsm = Hsm::default();
        hsm.make_key(ACTIVE).unwrap();
        hsm.set_password("cu", "pass").unwrap();
        let before = hsm.clone();
        hsm.limit(true);
        assert_eq!(hsm.make_key([3; 16]), Err(Refusal::LimitedWrite));
        assert_eq!(hsm.delete_key(&ACTIVE), Err(Refusal::LimitedWrite));
        assert_eq!(hsm.set_password("cu", "other"), Err(Refusal::LimitedWrite));
        assert_eq!(hsm.token(), before.token());
        assert_eq!(open(&volumes(&machine()), "ORCL", Some(hsm.token()), &["cu:pass"], &["soft"]), Ok(()));
        hsm.limit(false);
        assert_eq!(hsm.make_key([3; 16]), Ok(()));
        assert_eq!((hsm.delete_key(&ACTIVE), hsm.delete_key(&ACTIVE)), (Ok(true), Ok(false)));
        assert!(matches!(open(&volumes(&machine()), "ORCL", Some(hsm.token()), &["cu:pass"], &["soft"]), Err(Refusal::NoKey(_))));
    }

    #[test]
    fn a_library_of_another_hsm_reaches_no_restored_one() {
        let mut machine = machine();
        machine.files.insert(PROVIDER.into(), File::Provider(Library::Old));
        assert_eq!(open(&volumes(&machine), "ORCL", Some(&token()), &["cu:pass"], &["soft"]), Err(Refusal::OldLibrary));
    }
}
