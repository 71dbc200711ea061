//! Where a database is told to find its keystores, and the one place that changes it (`O§2`).
//!
//! Two styles. WALLET_ROOT and TDE_CONFIGURATION belong to one database. ENCRYPTION_WALLET_LOCATION belongs to the
//! `sqlnet.ora` of a home or TNS_ADMIN and every database that reads it (H16): a change is one for the whole group, and
//! a directory for several must name `$ORACLE_SID`. The text that stood there first is remembered for the undo.

use super::common::{all_places, failed, subject};
use crate::journal::Subject;
use crate::oracle::ddl::{self, TdeConfiguration};
use crate::oracle::{Db, Place, Session, state, views};
use crate::sqlnet::{Method, SqlnetFile, WalletLocation};
use crate::step::{Context, Kind, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::{Code, Digest, Sid};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    WalletRoot,
    Sqlnet { file: PathBuf },
}

/// A database's keystore: how it is configured and where the software keystore lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keystore {
    pub style: Style,
    /// The directory, with variables replaced.
    pub dir: PathBuf,
    /// DIRECTORY as it stands, or shall stand, in `sqlnet.ora`.
    pub said: String,
}

/// What a step wants to be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// For a reverse migrate: `FILE|HSM`, or METHOD=FILE.
    FileFirst,
    /// The software keystore alone: `FILE`, or METHOD=FILE.
    File,
    /// For a migrate and for good (H4): `HSM|FILE`, or METHOD=HSM with DIRECTORY.
    HsmFile,
}

/// What is configured now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    Tde(Option<TdeConfiguration>),
    Sqlnet(Option<WalletLocation>),
}

impl Now {
    pub fn is(&self, want: Want) -> bool {
        match self {
            Now::Tde(Some(now)) => *now == tde(want),
            Now::Sqlnet(Some(now)) => now.directory.is_some() && now.method == method(want),
            _ => false,
        }
    }
    /// An HSM is configured, first or second (H17).
    pub fn names_hsm(&self) -> bool {
        match self {
            Now::Tde(now) => !matches!(now, None | Some(TdeConfiguration::File)),
            Now::Sqlnet(now) => now.as_ref().is_some_and(|now| now.method == Method::Hsm),
        }
    }
    /// The software keystore is reachable under it.
    pub fn names_file(&self) -> bool {
        match self {
            Now::Tde(now) => !matches!(now, None | Some(TdeConfiguration::Hsm)),
            Now::Sqlnet(now) => now.as_ref().is_some_and(|now| now.directory.is_some()),
        }
    }
}

fn tde(want: Want) -> TdeConfiguration {
    match want {
        Want::FileFirst => TdeConfiguration::FileHsm,
        Want::File => TdeConfiguration::File,
        Want::HsmFile => TdeConfiguration::HsmFile,
    }
}

fn method(want: Want) -> Method {
    match want {
        Want::FileFirst | Want::File => Method::File,
        Want::HsmFile => Method::Hsm,
    }
}

fn sqlnet_error(file: &Path, error: impl std::fmt::Display) -> StepError {
    StepError::new(Kind::Final, Code::SQLNET_UNREADABLE, format!("`{}`: {error}", file.display()))
}

/// Databases whose server processes read the same `sqlnet.ora` (H16).
pub fn sharers(ctx: &Context<'_>, file: &Path) -> Result<Vec<Place>, StepError> {
    Ok(all_places(ctx)?.into_iter().filter(|place| Path::new(&place.sqlnet_ora()) == file).collect())
}

/// `$ORACLE_SID` and its like, as the server replaces them. `None`: a variable that is not known here.
pub fn expand(text: &str, place: &Place, unique_name: Option<&str>) -> Option<PathBuf> {
    let base = place.base();
    let known = [
        ("ORACLE_UNQNAME", unique_name),
        ("ORACLE_SID", Some(place.sid.as_str())),
        ("ORACLE_HOME", Some(place.home.trim_end_matches('/'))),
        ("ORACLE_BASE", base.as_deref()),
    ];
    let mut text = text.to_owned();
    for (name, value) in known {
        if let Some(value) = value {
            text = text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        }
    }
    (text.starts_with('/') && !text.contains('$')).then(|| PathBuf::from(text.trim_end_matches('/')))
}

/// Of a running database.
pub fn keystore(ctx: &mut Context<'_>, db: &Db, s: &mut Session) -> Result<Keystore, StepError> {
    let sid = db.sid().clone();
    let parameters = views::parameters(s, &["wallet_root"]).map_err(|error| failed(&sid, error))?;
    let found = if let Some(root) = parameters.get("wallet_root") {
        if !root.starts_with('/') {
            let message = format!("{sid}: WALLET_ROOT `{root}` is not a directory of the host");
            return Err(StepError::new(Kind::Final, Code::KEYSTORE_MISSING, message).of(&sid));
        }
        let dir = PathBuf::from(root.trim_end_matches('/')).join("tde");
        Keystore { style: Style::WalletRoot, said: dir.display().to_string(), dir }
    } else {
        let file = PathBuf::from(db.place.sqlnet_ora());
        let unique = views::database(s).map_err(|error| failed(&sid, error))?.unique_name;
        let location = read_sqlnet(db, &file)?.1;
        let said = match location.and_then(|location| location.directory) {
            Some(dir) => dir,
            None => default_dir(ctx, db, &file, &unique)?,
        };
        let dir = expand(&said, &db.place, Some(&unique)).ok_or_else(|| {
            let message = format!("{sid}: the keystore directory `{said}` holds a variable that is not known");
            StepError::new(Kind::Final, Code::KEYSTORE_MISSING, message).of(&sid)
        })?;
        Keystore { style: Style::Sqlnet { file }, dir, said }
    };
    if let Style::Sqlnet { file } = &found.style {
        let sharers = sharers(ctx, file)?;
        if sharers.len() > 1 && !found.said.contains("ORACLE_SID") {
            let names: Vec<_> = sharers.iter().map(|place| place.sid.as_str()).collect();
            let message = format!("{} share `{}` and its keystore directory `{}`", names.join(", "), file.display(), found.said);
            return Err(StepError::new(Kind::Final, Code::CONFIGURATION_SHARED, message).of(&sid));
        }
    }
    let value = serde_json::to_value(&found).expect("plain data serialises");
    if ctx.recall(&subject(&sid), "keystore").as_ref() != Some(&value) {
        ctx.remember(subject(&sid), "keystore", value)?;
    }
    Ok(found)
}

/// Of a database that is down: as it was found when it ran.
pub fn remembered(ctx: &Context<'_>, sid: &Sid) -> Option<Keystore> {
    ctx.recall(&subject(sid), "keystore").and_then(|value| serde_json::from_value(value).ok())
}

/// Oracle's own default (`O§2.1`), with `$ORACLE_SID` where several databases read the file.
fn default_dir(ctx: &Context<'_>, db: &Db, file: &Path, unique: &str) -> Result<String, StepError> {
    let base = db.place.base().ok_or_else(|| {
        StepError::new(Kind::Final, Code::KEYSTORE_MISSING, format!("{}: ORACLE_BASE is not known", db.sid())).of(db.sid())
    })?;
    let name = if sharers(ctx, file)?.len() > 1 { "$ORACLE_SID" } else { unique };
    Ok(format!("{base}/admin/{name}/wallet"))
}

/// A `sqlnet.ora` as it was read, and its hash for the replacing; nothing where there is no file.
type Read = Option<(SqlnetFile, Digest)>;

fn read_sqlnet(db: &Db, file: &Path) -> Result<(Read, Option<WalletLocation>), StepError> {
    let Some(bytes) = db.owner.files()?.read(file)? else { return Ok((None, None)) };
    let digest = Digest::of(&bytes);
    let parsed = SqlnetFile::parse(&bytes).map_err(|error| sqlnet_error(file, error))?;
    let location = parsed.wallet_location().map_err(|error| sqlnet_error(file, error))?;
    Ok((Some((parsed, digest)), location))
}

pub fn now(db: &Db, keystore: &Keystore, s: &mut Session) -> Result<Now, StepError> {
    match &keystore.style {
        Style::WalletRoot => Ok(Now::Tde(state::tde_configuration(s).map_err(|error| failed(db.sid(), error))?)),
        Style::Sqlnet { file } => Ok(Now::Sqlnet(read_sqlnet(db, file)?.1)),
    }
}

fn whose(db: &Db, keystore: &Keystore) -> Subject {
    match &keystore.style {
        Style::WalletRoot => subject(db.sid()),
        Style::Sqlnet { file } => Subject::HomeGroup(file.display().to_string()),
    }
}

/// The configuration that stood before this campaign changed it, kept once.
fn remember_former(ctx: &mut Context<'_>, db: &Db, keystore: &Keystore, now: &Now) -> Result<(), StepError> {
    let subject = whose(db, keystore);
    if ctx.recall(&subject, "former-configuration").is_some() {
        return Ok(());
    }
    let value = match now {
        Now::Tde(now) => json!({ "tde": now.map(TdeConfiguration::value) }),
        Now::Sqlnet(now) => json!({
            "sqlnet": now.as_ref().map(|now| json!({ "hsm": now.method == Method::Hsm, "directory": now.directory })),
        }),
    };
    ctx.remember(subject, "former-configuration", value)
}

/// Sets the configuration; nothing is written where it stands already. New sessions see it, the given one may not.
pub fn configure(ctx: &mut Context<'_>, db: &Db, keystore: &Keystore, s: &mut Session, want: Want) -> Result<bool, StepError> {
    let sid = db.sid().clone();
    let found = now(db, keystore, s)?;
    if found.is(want) {
        return Ok(false);
    }
    remember_former(ctx, db, keystore, &found)?;
    let what = format!("configure {want:?}");
    match &keystore.style {
        Style::WalletRoot => {
            let statement = ddl::set_tde_configuration(tde(want), &s.limits()).map_err(|error| failed(&sid, error.into()))?;
            ctx.intend(subject(&sid), &what, json!({ "statement": statement.shown() }))?;
            s.run(&statement).map_err(|error| failed(&sid, error))?;
            ctx.observed(subject(&sid), &what, json!({ "was": format!("{found:?}") }))?;
        }
        Style::Sqlnet { file } => {
            let location = WalletLocation { method: method(want), directory: Some(keystore.said.clone()) };
            write_sqlnet(ctx, db, keystore, file, &location, &what)?;
        }
    }
    Ok(true)
}

fn write_sqlnet(
    ctx: &mut Context<'_>,
    db: &Db,
    keystore: &Keystore,
    file: &Path,
    location: &WalletLocation,
    what: &str,
) -> Result<(), StepError> {
    let (parsed, was) = match read_sqlnet(db, file)?.0 {
        Some((parsed, digest)) => (parsed, Some(digest)),
        None => (SqlnetFile::parse(b"").map_err(|error| sqlnet_error(file, error))?, None),
    };
    let mut changed = parsed;
    changed.set_wallet_location(location).map_err(|error| sqlnet_error(file, error))?;
    let bytes = changed.print();
    ctx.intend(whose(db, keystore), what, json!({ "file": file, "was": was, "becomes": Digest::of(&bytes) }))?;
    let digest = db.owner.files()?.replace(file, &bytes, was)?;
    ctx.observed(whose(db, keystore), what, json!({ "file": file, "sha256": digest }))
}

/// Puts back what stood before this campaign. `None` where nothing was changed.
pub fn restore_former(ctx: &mut Context<'_>, db: &Db, keystore: &Keystore, s: &mut Session) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let Some(former) = ctx.recall(&whose(db, keystore), "former-configuration") else { return Ok(()) };
    match &keystore.style {
        Style::WalletRoot => {
            let all = [TdeConfiguration::File, TdeConfiguration::Hsm, TdeConfiguration::FileHsm, TdeConfiguration::HsmFile];
            let wanted = former["tde"].as_str().and_then(|text| all.into_iter().find(|known| known.value() == text));
            let Some(wanted) = wanted else { return Ok(()) };
            if now(db, keystore, s)? != Now::Tde(Some(wanted)) {
                let statement = ddl::set_tde_configuration(wanted, &s.limits()).map_err(|error| failed(&sid, error.into()))?;
                ctx.intend(subject(&sid), "restore configuration", json!({ "statement": statement.shown() }))?;
                s.run(&statement).map_err(|error| failed(&sid, error))?;
            }
        }
        Style::Sqlnet { file } => {
            let location = WalletLocation {
                method: if former["sqlnet"]["hsm"] == true { Method::Hsm } else { Method::File },
                directory: former["sqlnet"]["directory"].as_str().map(str::to_owned),
            };
            if former["sqlnet"].is_object() && now(db, keystore, s)? != Now::Sqlnet(Some(location.clone())) {
                write_sqlnet(ctx, db, keystore, file, &location, "restore configuration")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            sid: Sid::new("ORCL").expect("sid"),
            home: "/u01/app/oracle/product/19.0.0/dbhome_1".into(),
            oratab_home: None,
            pmon: None,
        }
    }

    #[test]
    fn h16_variables_of_a_keystore_directory_are_replaced_or_refused() {
        let is = |text: &str, unique: Option<&str>| expand(text, &place(), unique).map(|path| path.display().to_string());
        assert_eq!(is("/u01/admin/$ORACLE_SID/wallet/", None).as_deref(), Some("/u01/admin/ORCL/wallet"));
        assert_eq!(
            is("$ORACLE_BASE/admin/${ORACLE_UNQNAME}/w", Some("orcl_a")).as_deref(),
            Some("/u01/app/oracle/admin/orcl_a/w")
        );
        assert_eq!(is("/u01/admin/$ORACLE_UNQNAME/wallet", None), None);
        assert_eq!(is("+DATA/wallet", None), None);
        assert_eq!(is("/u01/$HOME/w", None), None);
    }

    #[test]
    fn h4_plain_hsm_is_not_the_end_configuration() {
        let plain = Now::Sqlnet(Some(WalletLocation { method: Method::Hsm, directory: None }));
        assert!(!plain.is(Want::HsmFile) && plain.names_hsm() && !plain.names_file());
        assert!(!Now::Tde(Some(TdeConfiguration::Hsm)).is(Want::HsmFile));
        assert!(Now::Tde(Some(TdeConfiguration::HsmFile)).is(Want::HsmFile));
    }
}
