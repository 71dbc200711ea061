//! Initialisation parameters, and where the keystore is configured (R1, O§2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env::{host_path, write_atomic};
use crate::error::{Ora, Result};
use crate::keys::Kind;

pub type Values = BTreeMap<String, String>;

/// What STARTUP reads.
#[derive(Clone, Debug)]
pub struct ParameterFile {
    /// As Oracle names it.
    pub name: String,
    /// The server parameter file in use: itself, or the one that an `init.ora` leads to.
    pub spfile: Option<String>,
    pub values: Values,
}

#[must_use]
pub fn spfile_name(home: &str, sid: &str) -> String {
    format!("{}/dbs/spfile{sid}.ora", home.trim_end_matches('/'))
}

#[must_use]
pub fn pfile_name(home: &str, sid: &str) -> String {
    format!("{}/dbs/init{sid}.ora", home.trim_end_matches('/'))
}

/// Finds the file STARTUP would use: `spfile<SID>.ora`, `spfile.ora`, `init<SID>.ora`.
pub fn find(home: &str, sid: &str) -> Result<Option<ParameterFile>> {
    for name in [spfile_name(home, sid), format!("{}/dbs/spfile.ora", home.trim_end_matches('/'))] {
        if host_path(&name).exists() {
            return Ok(Some(ParameterFile { values: read(&name)?, spfile: Some(name.clone()), name }));
        }
    }
    let name = pfile_name(home, sid);
    if host_path(&name).exists() { load(home, sid, &name).map(Some) } else { Ok(None) }
}

/// A text parameter file with the files that it leads to by SPFILE and IFILE, each in its place: the last of a name counts.
pub fn load(home: &str, sid: &str, name: &str) -> Result<ParameterFile> {
    let mut file = ParameterFile { name: name.to_owned(), spfile: None, values: Values::new() };
    let mut todo: Vec<(String, String)> = lines(name)?.into_iter().rev().collect();
    let mut files = 1;
    while let Some((parameter, value)) = todo.pop() {
        let leads = || {
            let value = value.replace('?', home.trim_end_matches('/')).replace('@', sid);
            if value.starts_with('/') { value } else { format!("{}/dbs/{value}", home.trim_end_matches('/')) }
        };
        match parameter.as_str() {
            "spfile" => {
                let leads = leads();
                file.values.extend(read(&leads)?);
                file.spfile = Some(leads);
            }
            "ifile" => {
                files += 1;
                if files > 100 {
                    return Err(Ora::new(1078));
                }
                todo.extend(lines(&leads())?.into_iter().rev());
            }
            _ => drop(file.values.insert(parameter, value)),
        }
    }
    Ok(file)
}

/// Reads `*.name='value'` and `name=value` lines of one file.
pub fn read(name: &str) -> Result<Values> {
    Ok(lines(name)?.into_iter().collect())
}

fn lines(name: &str) -> Result<Vec<(String, String)>> {
    let path = host_path(name);
    let text = std::fs::read_to_string(&path).map_err(|e| Ora::io(&path, &e))?;
    Ok(text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let name = name.trim().rsplit('.').next().unwrap_or_default().to_lowercase();
            let value = value.trim();
            let value = if name == "control_files" { list(value).join(", ") } else { unquote(value).to_owned() };
            (name, value)
        })
        .collect())
}

/// The members of a parameter that is a list: `'a','b'`, `a, b`.
#[must_use]
pub fn list(value: &str) -> Vec<String> {
    value.split(',').map(|item| unquote(item.trim()).to_owned()).filter(|item| !item.is_empty()).collect()
}

fn unquote(value: &str) -> &str {
    for quote in ['\'', '"'] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

pub fn write(name: &str, values: &Values) -> Result<()> {
    let path = host_path(name);
    let mut text = String::new();
    for (name, value) in values {
        let plain = value.parse::<u64>().is_ok() || matches!(value.as_str(), "TRUE" | "FALSE");
        let quoted: Vec<String> = if name == "control_files" { list(value) } else { vec![value.clone()] };
        let quoted = quoted.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(",");
        text += &if plain { format!("*.{name}={value}\n") } else { format!("*.{name}={quoted}\n") };
    }
    write_atomic(&path, text.as_bytes(), 0o640).map_err(|e| Ora::io(&path, &e))
}

/// Parameters of every instance, with Oracle's type number; WALLET_ROOT and TDE_CONFIGURATION since 18c.
#[must_use]
pub fn known(version: &str) -> Vec<(&'static str, &'static str, u32)> {
    let mut all = vec![
        ("audit_file_dest", "", 2),
        ("background_dump_dest", "", 2),
        ("cluster_database", "FALSE", 1),
        ("aq_tm_processes", "1", 3),
        ("compatible", "", 2),
        ("control_file_record_keep_time", "7", 3),
        ("control_files", "", 2),
        ("db_block_size", "8192", 3),
        ("db_create_file_dest", "", 2),
        ("db_domain", "", 2),
        ("db_name", "", 2),
        ("db_recovery_file_dest", "", 2),
        ("db_recovery_file_dest_size", "0", 6),
        ("db_unique_name", "", 2),
        ("dg_broker_start", "FALSE", 1),
        ("diagnostic_dest", "", 2),
        ("enable_pluggable_database", "FALSE", 1),
        ("encrypt_new_tablespaces", "CLOUD_ONLY", 2),
        ("external_keystore_credential_location", "", 2),
        ("fal_server", "", 2),
        ("instance_name", "", 2),
        ("job_queue_processes", "80", 3),
        ("local_listener", "", 2),
        ("log_archive_config", "", 2),
        ("log_archive_dest_1", "", 2),
        ("log_archive_dest_2", "", 2),
        ("log_archive_dest_state_1", "enable", 2),
        ("log_archive_dest_state_2", "enable", 2),
        ("log_archive_format", "%t_%s_%r.dbf", 2),
        ("memory_target", "0", 6),
        ("open_cursors", "300", 3),
        ("pga_aggregate_target", "0", 6),
        ("processes", "300", 3),
        ("remote_login_passwordfile", "EXCLUSIVE", 2),
        ("remote_listener", "", 2),
        ("sessions", "472", 3),
        ("sga_target", "0", 6),
        ("spfile", "", 2),
        ("undo_management", "AUTO", 2),
        ("undo_tablespace", "UNDOTBS1", 2),
        ("use_large_pages", "TRUE", 2),
    ];
    if major(version) >= 18 {
        all.push(("tde_configuration", "", 2));
        all.push(("wallet_root", "", 2));
    }
    all.sort_unstable();
    all
}

/// Parameters that ALTER SYSTEM can set in the spfile alone.
#[must_use]
pub fn is_static(name: &str) -> bool {
    matches!(
        name,
        "wallet_root"
            | "processes"
            | "sessions"
            | "db_name"
            | "db_unique_name"
            | "control_files"
            | "compatible"
            | "cluster_database"
            | "enable_pluggable_database"
            | "instance_name"
            | "use_large_pages"
            | "memory_max_target"
            | "audit_file_dest"
    )
}

#[must_use]
pub fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(19)
}

/// Which keystores a session sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub primary: Option<Kind>,
    pub secondary: Option<Kind>,
    /// Directory of the software keystore.
    pub dir: Option<PathBuf>,
}

impl Config {
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.primary == Some(kind) || self.secondary == Some(kind)
    }

    /// Parses TDE_CONFIGURATION's value.
    pub fn parse_tde(value: &str) -> Result<(Kind, Option<Kind>)> {
        for part in value.split(';') {
            let (name, value) = part.split_once('=').ok_or_else(|| Ora::new(46695))?;
            if !name.trim().eq_ignore_ascii_case("KEYSTORE_CONFIGURATION") {
                continue;
            }
            return match value.trim().to_uppercase().as_str() {
                "FILE" => Ok((Kind::File, None)),
                "HSM" => Ok((Kind::Hsm, None)),
                "FILE|HSM" => Ok((Kind::File, Some(Kind::Hsm))),
                "HSM|FILE" => Ok((Kind::Hsm, Some(Kind::File))),
                _ => Err(Ora::new(46695)),
            };
        }
        Err(Ora::new(46695))
    }

    /// R1: WALLET_ROOT with TDE_CONFIGURATION, else sqlnet.ora, else the default directory.
    #[must_use]
    pub fn resolve(memory: &Values, sqlnet: Option<&str>, environment: &BTreeMap<String, String>) -> Config {
        let get = |name: &str| memory.get(name).map(String::as_str).filter(|v| !v.is_empty());
        if let Some(root) = get("wallet_root") {
            let dir = Some(host_path(root).join("tde"));
            return match get("tde_configuration").map(Config::parse_tde) {
                Some(Ok((primary, secondary))) => Config { primary: Some(primary), secondary, dir },
                _ => {
                    let found = sqlnet.map(|t| sqlnet_config(t, environment)).unwrap_or_default();
                    Config { primary: found.primary.or(Some(Kind::File)), dir, ..found }
                }
            };
        }
        let found = sqlnet.map(|text| sqlnet_config(text, environment)).unwrap_or_default();
        if found.primary.is_some() {
            return found;
        }
        let base = environment.get("ORACLE_BASE").map_or("/u01/app/oracle", String::as_str);
        let name = get("db_unique_name").unwrap_or_default();
        Config { primary: Some(Kind::File), secondary: None, dir: Some(host_path(&format!("{base}/admin/{name}/wallet"))) }
    }
}

fn sqlnet_config(text: &str, environment: &BTreeMap<String, String>) -> Config {
    let Some(value) = sqlnet_parameter(text, "ENCRYPTION_WALLET_LOCATION") else {
        return Config::default();
    };
    let compact: String = value.chars().filter(|c| !c.is_whitespace()).collect();
    let field = |name: &str| {
        let at = compact.to_uppercase().find(&format!("({name}="))? + name.len() + 2;
        let rest = &compact[at..];
        Some(rest[..rest.find(')').unwrap_or(rest.len())].to_owned())
    };
    let dir = field("DIRECTORY").map(|dir| {
        let mut dir = dir;
        for name in ["ORACLE_SID", "ORACLE_UNQNAME", "ORACLE_BASE", "ORACLE_HOME"] {
            let value = environment.get(name).map_or("", String::as_str);
            dir = dir.replace(&format!("${name}"), value).replace(&format!("${{{name}}}"), value);
        }
        host_path(&dir)
    });
    match field("METHOD").map(|m| m.to_uppercase()).as_deref() {
        Some("FILE") => Config { primary: Some(Kind::File), secondary: None, dir },
        Some("HSM") => Config { primary: Some(Kind::Hsm), secondary: dir.as_ref().map(|_| Kind::File), dir },
        _ => Config::default(),
    }
}

/// A parameter of sqlnet.ora: continuation lines are indented, `#` begins a comment.
#[must_use]
pub fn sqlnet_parameter(text: &str, name: &str) -> Option<String> {
    let mut logical: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        if line.trim().is_empty() {
            continue;
        }
        match logical.last_mut() {
            Some(last) if line.starts_with([' ', '\t', ')']) => last.push_str(line),
            _ => logical.push(line.to_owned()),
        }
    }
    logical.iter().rev().find_map(|line| {
        let (found, value) = line.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// `sqlnet.ora` as a session that starts now reads it.
#[must_use]
pub fn read_sqlnet(environment: &BTreeMap<String, String>) -> Option<String> {
    let dir = match environment.get("TNS_ADMIN").filter(|v| !v.is_empty()) {
        Some(dir) => host_path(dir),
        None => host_path(environment.get("ORACLE_HOME")?).join("network/admin"),
    };
    std::fs::read_to_string(Path::new(&dir).join("sqlnet.ora")).ok()
}
