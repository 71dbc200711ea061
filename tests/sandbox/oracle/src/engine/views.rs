//! The views, with Oracle's columns (O§3), filled from the instance at the moment of the query.

use std::collections::BTreeSet;

use rusqlite::types::Value;

use super::sql::Data;
use super::{Instance, PdbMode, Sess, State};
use crate::disk::{Container, Tablespace};
use crate::env::now;
use crate::error::{Ora, Result};
use crate::keys::{KeyMeta, Kind, Mkid};
use crate::params;
use crate::spec::TsStatus;

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn int(value: impl Into<i64>) -> Value {
    Value::Integer(value.into())
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn maybe(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { text(value) }
}

fn yes_no(value: bool) -> Value {
    text(if value { "YES" } else { "NO" })
}

fn data(columns: &str, rows: Vec<Vec<Value>>) -> Data {
    Data { columns: columns.split_whitespace().map(str::to_owned).collect(), rows }
}

/// What state a view needs.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Needs {
    Instance,
    ControlFile,
    OpenDatabase,
}

/// The view of this name, or none. An ORA- error where the state does not allow it.
pub fn view(instance: &mut Instance, sess: &Sess, name: &str) -> Result<Option<Data>> {
    let plain = name.strip_prefix("GV$").map_or_else(|| name.to_owned(), |rest| format!("V${rest}"));
    let Some((needs, make)) = find(&plain) else { return Ok(None) };
    match needs {
        Needs::ControlFile if instance.state < State::Mounted => return Err(Ora::new(1507)),
        Needs::OpenDatabase if instance.state < State::OpenReadOnly => {
            return Err(Ora::new(1219));
        }
        Needs::OpenDatabase if sess.con > 2 && instance.pdbs.get(&sess.con) == Some(&PdbMode::Mounted) => {
            return Err(Ora::new(1219));
        }
        _ => {}
    }
    let mut data = make(instance, sess, &plain)?;
    if name.starts_with("GV$") {
        data.columns.insert(0, "INST_ID".into());
        data.rows.iter_mut().for_each(|row| row.insert(0, int(1)));
    }
    Ok(Some(data))
}

type Make = fn(&mut Instance, &Sess, &str) -> Result<Data>;

fn find(name: &str) -> Option<(Needs, Make)> {
    use Needs::{ControlFile, Instance, OpenDatabase};
    let found: (Needs, Make) = match name {
        "DUAL" => (Instance, |_, _, _| Ok(data("DUMMY", vec![vec![text("X")]]))),
        "V$INSTANCE" => (Instance, instance_view),
        "V$VERSION" => (Instance, version_view),
        "V$OPTION" => (Instance, option_view),
        "V$PARAMETER" | "V$SYSTEM_PARAMETER" => (Instance, parameter_view),
        "V$SPPARAMETER" => (Instance, spparameter_view),
        "V$SESSION" => (Instance, session_view),
        "V$PROCESS" => (Instance, process_view),
        "V$TRANSACTION" => (Instance, transaction_view),
        "V$SESSION_LONGOPS" => (Instance, |_, _, _| Ok(data("SID SERIAL# OPNAME SOFAR TOTALWORK TIME_REMAINING", vec![]))),
        "V$RESOURCE_LIMIT" => (Instance, resource_limit_view),
        "V$RMAN_STATUS" => (ControlFile, rman_status_view),
        "V$ENCRYPTION_WALLET" => (ControlFile, wallet_view),
        "V$ENCRYPTION_KEYS" => (ControlFile, keys_view),
        "V$ENCRYPTED_TABLESPACES" => (ControlFile, encrypted_tablespaces_view),
        "V$DATABASE_KEY_INFO" => (ControlFile, key_info_view),
        "V$DATABASE" => (ControlFile, database_view),
        "V$CONTAINERS" => (ControlFile, containers_view),
        "V$PDBS" => (ControlFile, pdbs_view),
        "V$TABLESPACE" => (ControlFile, |i, s, _| {
            let rows = spaces(i, s)?
                .iter()
                .map(|t| vec![int(t.ts), text(&t.name), text("YES"), text("NO"), text("YES"), con(i, t.con_id)])
                .collect();
            Ok(data("TS# NAME INCLUDED_IN_DATABASE_BACKUP BIGFILE FLASHBACK_ON CON_ID", rows))
        }),
        "V$DATAFILE" | "V$DATAFILE_HEADER" => (ControlFile, datafile_view),
        "V$LOG" => (ControlFile, log_view),
        "V$LOGFILE" => (ControlFile, logfile_view),
        "V$ARCHIVED_LOG" => (ControlFile, archived_log_view),
        "V$ARCHIVE_DEST" => (Instance, archive_dest_view),
        "V$ARCHIVE_DEST_STATUS" => (Instance, archive_dest_status_view),
        "V$ARCHIVE_PROCESSES" => (Instance, archive_processes_view),
        "V$RECOVERY_FILE_DEST" => (Instance, recovery_file_dest_view),
        "V$RESTORE_POINT" => (ControlFile, restore_point_view),
        "V$FLASHBACK_DATABASE_LOG" => (ControlFile, flashback_view),
        "V$DATAFILE_COPY" => {
            (ControlFile, |_, _, _| Ok(data("RECID NAME FILE# STATUS DELETED CREATION_TIME COMPLETION_TIME CON_ID", vec![])))
        }
        "V$BACKUP_SET" | "V$BACKUP_PIECE" | "V$BACKUP_DATAFILE" | "V$RMAN_BACKUP_JOB_DETAILS" => (ControlFile, backup_view),
        "V$RECOVER_FILE" => (ControlFile, recover_file_view),
        "V$DATAGUARD_CONFIG" => (Instance, dataguard_view),
        "V$BACKUP" => (ControlFile, |i, s, _| {
            let status = if i.backup_mode { "ACTIVE" } else { "NOT ACTIVE" };
            let rows = spaces(i, s)?.iter().map(|t| vec![int(t.file_id), text(status), con(i, t.con_id)]).collect();
            Ok(data("FILE# STATUS CON_ID", rows))
        }),
        "V$CONTROLFILE" => (Instance, |i, _, _| {
            let names = params::list(i.memory.get("control_files").map(String::as_str).unwrap_or_default());
            let area = i.memory.get("db_recovery_file_dest").cloned().unwrap_or_default();
            let rows = names
                .into_iter()
                .map(|name| {
                    let in_area = !area.is_empty() && name.starts_with(&area);
                    vec![Value::Null, text(name), yes_no(in_area), int(16384), int(0)]
                })
                .collect();
            Ok(data("STATUS NAME IS_RECOVERY_DEST_FILE BLOCK_SIZE CON_ID", rows))
        }),
        "V$LOGMNR_SESSION" | "V$GOLDENGATE_CAPTURE" => (Instance, |_, _, _| Ok(data("SESSION_ID SESSION_NAME", vec![]))),
        "DBA_TABLESPACES" | "CDB_TABLESPACES" => (OpenDatabase, tablespaces_view),
        "DBA_DATA_FILES" | "CDB_DATA_FILES" => (OpenDatabase, data_files_view),
        "DBA_TABLES" | "CDB_TABLES" => (OpenDatabase, tables_view),
        "DBA_TAB_PARTITIONS" => {
            (OpenDatabase, |_, _, _| Ok(data("TABLE_OWNER TABLE_NAME PARTITION_NAME TABLESPACE_NAME", vec![])))
        }
        "DBA_ENCRYPTED_COLUMNS" | "CDB_ENCRYPTED_COLUMNS" => (OpenDatabase, encrypted_columns_view),
        "ENC$" => (OpenDatabase, enc_view),
        "PROPS$" | "DATABASE_PROPERTIES" => (OpenDatabase, properties_view),
        "DBA_DATAPUMP_JOBS" => (OpenDatabase, datapump_view),
        "DBA_CAPTURE" | "ALL_CAPTURE" => (OpenDatabase, capture_view),
        "DBA_PDBS" | "CDB_PDBS" => (OpenDatabase, |i, _, _| {
            let rows = pdbs(i)?
                .iter()
                .map(|c| vec![int(c.con_id), text(&c.name), text("NORMAL"), text(&c.guid), number(u64::from(c.dbid))])
                .collect();
            Ok(data("PDB_ID PDB_NAME STATUS GUID DBID", rows))
        }),
        "DBA_REGISTRY" => (OpenDatabase, |i, _, _| {
            Ok(data(
                "COMP_ID COMP_NAME VERSION STATUS",
                vec![vec![text("CATALOG"), text("Oracle Database Catalog Views"), text(i.version()), text("VALID")]],
            ))
        }),
        "DBA_JOBS_RUNNING" | "DBA_SCHEDULER_RUNNING_JOBS" => {
            (OpenDatabase, |_, _, _| Ok(data("OWNER JOB_NAME SESSION_ID", vec![])))
        }
        _ => return None,
    };
    Some(found)
}

/// CON_ID as the instance prints it: 0 in a non-CDB.
fn con(instance: &Instance, con_id: u32) -> Value {
    int(if instance.root() == 0 { 0 } else { con_id })
}

/// Containers this session sees: all from the root, its own from a PDB.
fn visible(instance: &Instance, sess: &Sess) -> Result<Vec<Container>> {
    let root = instance.root();
    Ok(instance.control()?.containers.iter().filter(|c| sess.con == root || c.con_id == sess.con).cloned().collect())
}

fn pdbs(instance: &Instance) -> Result<Vec<Container>> {
    Ok(instance.control()?.containers.iter().filter(|c| c.con_id > 1).cloned().collect())
}

fn spaces(instance: &Instance, sess: &Sess) -> Result<Vec<Tablespace>> {
    let root = instance.root();
    Ok(instance.control()?.tablespaces.iter().filter(|t| sess.con == root || t.con_id == sess.con).cloned().collect())
}

/// Of DBA_ the current container, of CDB_ every open one.
fn dictionary_containers(instance: &Instance, sess: &Sess, name: &str) -> Result<Vec<Container>> {
    let all = instance.control()?.containers.clone();
    Ok(all
        .into_iter()
        .filter(|c| {
            if !name.starts_with("CDB_") {
                return c.con_id == sess.con;
            }
            (sess.con == instance.root() || c.con_id == sess.con)
                && c.con_id != 2
                && (c.con_id < 2 || instance.pdbs.get(&c.con_id) != Some(&PdbMode::Mounted))
        })
        .collect())
}

fn instance_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let version = i.version();
    let status = match i.state {
        State::Started => "STARTED",
        State::Mounted => "MOUNTED",
        _ => "OPEN",
    };
    let archivelog = i.control.as_ref().is_some_and(|c| c.archivelog);
    let archiver = match (i.archiver_stuck(&crate::sim::load()), archivelog && i.state >= State::OpenReadOnly) {
        (true, _) => "FAILED",
        (_, true) => "STARTED",
        _ => "STOPPED",
    };
    let row = vec![
        int(1),
        text(&i.sid),
        text(&sess.hello.machine),
        text(&version),
        Value::Real(i.started),
        text(status),
        yes_no(i.memory.get("cluster_database").is_some_and(|v| v.eq_ignore_ascii_case("true"))),
        int(1),
        text(archiver),
        Value::Null,
        text(if i.restricted { "RESTRICTED" } else { "ALLOWED" }),
        text(if i.shutting_down { "YES" } else { "NO" }),
        text("ACTIVE"),
        text("PRIMARY_INSTANCE"),
        text("NORMAL"),
        text("NO"),
        int(0),
        text("EE"),
        text(&version),
    ];
    Ok(data(
        "INSTANCE_NUMBER INSTANCE_NAME HOST_NAME VERSION STARTUP_TIME STATUS PARALLEL THREAD# \
         ARCHIVER LOG_SWITCH_WAIT LOGINS SHUTDOWN_PENDING DATABASE_STATUS INSTANCE_ROLE \
         ACTIVE_STATE BLOCKED CON_ID EDITION VERSION_FULL",
        vec![row],
    ))
}

fn version_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let version = i.version();
    let major = params::major(&version);
    let release = if major >= 18 { format!("{major}c ") } else { "12c ".into() };
    let banner = format!(
        "Oracle Database {release}Enterprise Edition Release {version} - {}",
        if major >= 18 { "Production" } else { "64bit Production" }
    );
    let full = format!("{banner}\nVersion {version}");
    Ok(data("BANNER BANNER_FULL BANNER_LEGACY CON_ID", vec![vec![text(&banner), text(full), text(&banner), int(0)]]))
}

fn option_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rac = i.memory.get("cluster_database").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let options = [
        ("Partitioning", true),
        ("Real Application Clusters", rac),
        ("Transparent Data Encryption", true),
        ("Oracle Data Guard", true),
        ("Unified Auditing", false),
    ];
    let rows = options.iter().map(|(name, on)| vec![text(*name), text(if *on { "TRUE" } else { "FALSE" }), int(0)]).collect();
    Ok(data("PARAMETER VALUE CON_ID", rows))
}

fn parameter_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let version = i.version();
    let mut rows = Vec::new();
    for (n, (name, default, kind)) in params::known(&version).into_iter().enumerate() {
        let value = i.memory.get(name).cloned();
        let is_default = value.is_none();
        let value = value.unwrap_or_else(|| default.to_owned());
        let modifiable = if params::is_static(name) { "FALSE" } else { "IMMEDIATE" };
        rows.push(vec![
            int(n as i64 + 1),
            text(name),
            int(kind),
            maybe(&value),
            maybe(&value),
            maybe(default),
            text(if is_default { "TRUE" } else { "FALSE" }),
            text("FALSE"),
            text(modifiable),
            text(if name == "tde_configuration" { "TRUE" } else { "FALSE" }),
            text("FALSE"),
            int(0),
        ]);
    }
    Ok(data(
        "NUM NAME TYPE VALUE DISPLAY_VALUE DEFAULT_VALUE ISDEFAULT ISSES_MODIFIABLE \
         ISSYS_MODIFIABLE ISPDB_MODIFIABLE ISMODIFIED CON_ID",
        rows,
    ))
}

fn spparameter_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let values = i.parameter_file.spfile.as_deref().map(params::read).transpose()?.unwrap_or_default();
    let version = i.version();
    let mut names: BTreeSet<String> = params::known(&version).into_iter().map(|(name, ..)| name.to_owned()).collect();
    names.extend(values.keys().cloned());
    let rows = names
        .into_iter()
        .map(|name| {
            let value = values.get(&name);
            let shown = value.map_or(Value::Null, text);
            vec![
                text("*"),
                text(name),
                text("string"),
                shown.clone(),
                shown,
                text(if value.is_some() { "TRUE" } else { "FALSE" }),
                if value.is_some() { int(1) } else { Value::Null },
                int(0),
            ]
        })
        .collect();
    Ok(data("SID NAME TYPE VALUE DISPLAY_VALUE ISSPECIFIED ORDINAL CON_ID", rows))
}

fn address(sid: u32) -> String {
    format!("{:016X}", 0x7_6A50_0000_u64 + u64::from(sid) * 0x1000)
}

/// Sessions that only the seed knows of: running jobs.
fn planted_sessions(i: &Instance) -> Vec<(u32, &'static str, &'static str)> {
    let Some(control) = &i.control else { return vec![] };
    let mut found = Vec::new();
    if control.planted.rman_running {
        found.push((901, "rman@host (TNS V1-V3)", "backup full datafile"));
    }
    if control.planted.datapump_running {
        found.push((902, "oracle@host (DW00)", "Data Pump Worker"));
    }
    if control.planted.long_transaction_minutes.is_some() {
        found.push((903, "JDBC Thin Client", "batch"));
    }
    found
}

fn session_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let mut rows = vec![vec![
        text(address(1)),
        int(1),
        int(1),
        text(address(1)),
        Value::Null,
        text("ACTIVE"),
        text("BACKGROUND"),
        text("oracle"),
        Value::Null,
        Value::Null,
        text("oracle@host (PMON)"),
        Value::Null,
        Value::Null,
        Value::Real(i.started),
        Value::Null,
        int(0),
        Value::Null,
        int(0),
        int(0),
    ]];
    for s in i.sessions.values() {
        rows.push(vec![
            text(address(s.sid)),
            int(s.sid),
            int(s.serial),
            text(address(s.sid)),
            text("SYS"),
            text(if s.active { "ACTIVE" } else { "INACTIVE" }),
            text("USER"),
            text(&s.hello.os_user),
            text(s.hello.client_pid.to_string()),
            text(&s.hello.machine),
            text(format!("sqlplus@{} (TNS V1-V3)", s.hello.machine)),
            text(format!("sqlplus@{} (TNS V1-V3)", s.hello.machine)),
            maybe(&s.running),
            Value::Real(s.logon),
            Value::Null,
            int(0),
            text("SYS"),
            int(3),
            con(i, s.con),
        ]);
    }
    for (sid, program, action) in planted_sessions(i) {
        rows.push(vec![
            text(address(sid)),
            int(sid),
            int(7),
            text(address(sid)),
            text("APP"),
            text("ACTIVE"),
            text("USER"),
            text("app"),
            text("4711"),
            text("app01"),
            text(program),
            text(program),
            text(action),
            Value::Real(i.started),
            text(if sid == 903 { address(9903) } else { String::new() }),
            int(0),
            text("APP"),
            int(0),
            int(0),
        ]);
    }
    Ok(data(
        "SADDR SID SERIAL# PADDR USERNAME STATUS TYPE OSUSER PROCESS MACHINE PROGRAM MODULE ACTION \
         LOGON_TIME TADDR LAST_CALL_ET SCHEMANAME COMMAND CON_ID",
        rows,
    ))
}

fn process_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let pmon = std::process::id();
    let mut rows = vec![vec![
        text(address(1)),
        int(2),
        int(1),
        text(pmon.to_string()),
        text("PMON"),
        text("oracle"),
        text("oracle@host (PMON)"),
        text("1"),
        int(0),
    ]];
    for s in i.sessions.values() {
        rows.push(vec![
            text(address(s.sid)),
            int(s.sid),
            int(1),
            text(s.hello.server_pid.to_string()),
            Value::Null,
            text("oracle"),
            text(format!("oracle@{} (TNS V1-V3)", s.hello.machine)),
            Value::Null,
            int(0),
        ]);
    }
    Ok(data("ADDR PID SERIAL# SPID PNAME USERNAME PROGRAM BACKGROUND CON_ID", rows))
}

fn transaction_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let minutes = i.control.as_ref().and_then(|c| c.planted.long_transaction_minutes);
    let rows = minutes
        .map(|minutes| {
            let start = now() - f64::from(minutes) / 1440.0;
            vec![
                text(address(9903)),
                int(5),
                int(12),
                int(3391),
                text("ACTIVE"),
                text(super::sql::format_date(start, "MM/DD/YY HH24:MI:SS")),
                Value::Real(start),
                text(address(903)),
                int(5120),
                int(250_000),
                int(0),
            ]
        })
        .into_iter()
        .collect();
    Ok(data("ADDR XIDUSN XIDSLOT XIDSQN STATUS START_TIME START_DATE SES_ADDR USED_UBLK USED_UREC CON_ID", rows))
}

fn resource_limit_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let planted = i.control.as_ref().map_or(0, |c| c.planted.processes);
    let processes = i.sessions.len() as i64 + 1 + i64::from(planted);
    let limit = i.memory.get("processes").cloned().unwrap_or_else(|| "300".into());
    let row = |name: &str, limit: &str| {
        vec![text(name), int(processes), int(processes), text(format!("{limit:>10}")), text(format!("{limit:>10}")), int(0)]
    };
    Ok(data(
        "RESOURCE_NAME CURRENT_UTILIZATION MAX_UTILIZATION INITIAL_ALLOCATION LIMIT_VALUE CON_ID",
        vec![row("processes", &limit), row("sessions", "472")],
    ))
}

fn rman_status_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rows = if i.control()?.planted.rman_running {
        vec![vec![
            int(77),
            int(1),
            text("BACKUP"),
            text("RUNNING"),
            Value::Real(now() - 0.02),
            Value::Null,
            text("DB FULL"),
            int(0),
        ]]
    } else {
        vec![]
    };
    Ok(data("RECID STAMP OPERATION STATUS START_TIME END_TIME OBJECT_TYPE CON_ID", rows))
}

/// O§3.1, O§3.2. Reading it opens what opens by itself (R10, H12).
fn wallet_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    i.auto_open(sess);
    let config = i.config(sess);
    let with_mode = params::major(&i.version()) >= 18;
    let migrated = i.container(i.root())?.migrated;
    let both = config.primary.is_some() && config.secondary.is_some();
    // Containers that have a key on the token, by DBID.
    let hsm_dbids: BTreeSet<u32> = if i.hsm.is_some() && config.has(Kind::Hsm) {
        let policy = crate::sim::load().switches.two_libraries();
        i.provider
            .load(policy)
            .and_then(|lib| lib.list())
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(_, meta)| Some(meta?.dbid))
            .collect()
    } else {
        BTreeSet::new()
    };
    let mut rows = Vec::new();
    for container in visible(i, sess)? {
        if container.con_id == 2 {
            continue;
        }
        let root = container.con_id < 2;
        let active =
            if root { container.active.clone() } else { container.active.clone().or(i.container(i.root())?.active.clone()) };
        for kind in [config.primary, config.secondary].into_iter().flatten() {
            let order = match (&active, both && migrated) {
                (Some(active), true) if active.kind == kind => "PRIMARY",
                (Some(_), true) => "SECONDARY",
                _ => "SINGLE",
            };
            let opened = i.is_open(sess, container.con_id, kind);
            let has_key = container.active.is_some()
                && match kind {
                    Kind::File => {
                        i.file_open(sess).is_some_and(|f| f.body.keys.values().any(|k| k.meta.container == container.name))
                    }
                    Kind::Hsm => hsm_dbids.contains(&container.dbid),
                };
            let there = match kind {
                Kind::Hsm => true,
                Kind::File => config
                    .dir
                    .as_ref()
                    .is_some_and(|d| d.join(crate::wallet::P12).exists() || d.join(crate::wallet::SSO).exists()),
            };
            let status = match (opened, has_key) {
                (true, _) if kind == Kind::Hsm && i.state == State::Mounted => "OPEN_UNKNOWN_MASTER_KEY_STATUS",
                (true, true) => "OPEN",
                (true, false) => "OPEN_NO_MASTER_KEY",
                (false, _) if !there => "NOT_AVAILABLE",
                _ => "CLOSED",
            };
            let wallet_type = match kind {
                _ if !opened => "UNKNOWN",
                Kind::Hsm => "HSM",
                Kind::File => i.file_open(sess).map_or("UNKNOWN", |f| f.kind.name()),
            };
            let parameter = match (kind, root, &config.dir) {
                (Kind::File, true, Some(dir)) => text(format!("{}/", crate::env::shown(dir).trim_end_matches('/'))),
                _ => Value::Null,
            };
            let backed_up = match kind {
                Kind::File if opened && has_key => {
                    let done = i.file_open(sess).is_some_and(|f| f.body.fully_backed_up);
                    if done { "YES" } else { "NO" }
                }
                _ => "UNDEFINED",
            };
            let mode = match (i.root(), root, container.isolated) {
                (0, ..) | (_, true, _) => "NONE",
                (_, _, true) => "ISOLATED",
                _ => "UNITED",
            };
            let mut row = vec![text(kind.wrl_type()), parameter, text(status), text(wallet_type), text(order)];
            if with_mode {
                row.push(text(mode));
            }
            row.extend([text(backed_up), con(i, container.con_id)]);
            rows.push(row);
        }
    }
    let columns = if with_mode {
        "WRL_TYPE WRL_PARAMETER STATUS WALLET_TYPE WALLET_ORDER KEYSTORE_MODE FULLY_BACKED_UP CON_ID"
    } else {
        "WRL_TYPE WRL_PARAMETER STATUS WALLET_TYPE WALLET_ORDER FULLY_BACKED_UP CON_ID"
    };
    Ok(data(columns, rows))
}

/// O§3.3: keys of every open keystore.
fn keys_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    i.auto_open(sess);
    let sim = crate::sim::load();
    let mut found: Vec<(Mkid, Kind, Option<KeyMeta>)> = Vec::new();
    if let Some(open) = i.file_open(sess) {
        found.extend(open.body.keys.iter().map(|(id, k)| (id.clone(), Kind::File, Some(k.meta.clone()))));
    }
    if i.hsm.is_some() {
        let lib = i.provider.load(sim.switches.two_libraries())?;
        found.extend(lib.list()?.into_iter().map(|(id, meta)| (id, Kind::Hsm, meta)));
    }
    let db_name = i.control()?.db_name.clone();
    let dbids: Vec<u32> = i.control()?.containers.iter().map(|c| c.dbid).collect();
    let visible: Vec<u32> = visible(i, sess)?.iter().map(|c| c.con_id).collect();
    let control = i.control()?.clone();
    let mut rows = Vec::new();
    for (id, kind, meta) in found {
        let own = meta.as_ref().is_some_and(|m| dbids.contains(&m.dbid));
        let shown = own || (sim.switches.foreign_keys_visible && kind == Kind::Hsm);
        if !shown {
            continue;
        }
        let con_id = meta.as_ref().map_or(0, |m| m.con_id);
        if !visible.contains(&con_id) {
            continue;
        }
        let activated = control.containers.iter().find_map(|c| c.activations.get(&id).copied());
        let creator = meta.as_ref();
        let name = creator.map_or(db_name.clone(), |m| m.db_name.clone());
        let pdb = creator.map_or(String::new(), |m| m.container.clone());
        let guid = creator.map_or(String::new(), |m| m.pdb_guid.clone());
        let dbid = creator.map_or(0, |m| m.dbid);
        let user = text("SYS");
        let on_activation = |v: Value| if activated.is_some() { v } else { Value::Null };
        rows.push(vec![
            text(id.key_id(kind)),
            creator.and_then(|m| m.tag.clone()).map_or(Value::Null, Value::Text),
            creator.map_or(Value::Null, |m| Value::Real(m.created)),
            activated.map_or(Value::Null, Value::Real),
            user.clone(),
            int(0),
            on_activation(user.clone()),
            on_activation(int(0)),
            text(if con_id > 1 { "TDE IN PDB" } else { "TDE" }),
            text(kind.keystore_type()),
            text("LOCAL"),
            text("NO"),
            text(&name),
            number(u64::from(dbid)),
            text(&control.sid),
            int(1),
            int(1),
            text(&pdb),
            int(con_id),
            number(u64::from(dbid)),
            text(&guid),
            on_activation(text(&name)),
            on_activation(number(u64::from(dbid))),
            on_activation(text(&control.sid)),
            on_activation(int(1)),
            on_activation(int(1)),
            on_activation(text(&pdb)),
            on_activation(int(con_id)),
            on_activation(number(u64::from(dbid))),
            on_activation(text(&guid)),
            con(i, con_id),
        ]);
    }
    Ok(data(
        "KEY_ID TAG CREATION_TIME ACTIVATION_TIME CREATOR CREATOR_ID USER USER_ID KEY_USE \
         KEYSTORE_TYPE ORIGIN BACKED_UP CREATOR_DBNAME CREATOR_DBID CREATOR_INSTANCE_NAME \
         CREATOR_INSTANCE_NUMBER CREATOR_INSTANCE_SERIAL CREATOR_PDBNAME CREATOR_PDBID \
         CREATOR_PDBUID CREATOR_PDBGUID ACTIVATING_DBNAME ACTIVATING_DBID ACTIVATING_INSTANCE_NAME \
         ACTIVATING_INSTANCE_NUMBER ACTIVATING_INSTANCE_SERIAL ACTIVATING_PDBNAME ACTIVATING_PDBID \
         ACTIVATING_PDBUID ACTIVATING_PDBGUID CON_ID",
        rows,
    ))
}

fn encrypted_tablespaces_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let rekeying = i.control()?.planted.tablespaces_rekeying.clone();
    let mut rows = Vec::new();
    for ts in spaces(i, sess)? {
        let Some(header) = i.files.load_data(&ts)?.header else { continue };
        let key: String = header.bytes.to_uppercase().chars().take(64).collect();
        rows.push(vec![
            int(ts.ts),
            text("AES256"),
            text("YES"),
            text(key),
            text(&header.mkid.0),
            int(1280),
            int(0),
            int(1),
            text(if rekeying.contains(&ts.name) { "REKEYING" } else { "NORMAL" }),
            con(i, ts.con_id),
        ]);
    }
    Ok(data(
        "TS# ENCRYPTIONALG ENCRYPTEDTS ENCRYPTEDKEY MASTERKEYID BLOCKS_ENCRYPTED BLOCKS_DECRYPTED \
         KEY_VERSION STATUS CON_ID",
        rows,
    ))
}

fn key_info_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let rows = visible(i, sess)?
        .iter()
        .filter(|c| c.con_id != 2)
        .map(|c| match &c.db_key {
            Some(key) => vec![
                text("AES256"),
                text(key.bytes.to_uppercase().chars().take(96).collect::<String>()),
                text(&key.mkid.0),
                text("YES"),
                con(i, c.con_id),
            ],
            None => vec![text("AES256"), text("0".repeat(96)), text("0".repeat(32)), text("NO"), con(i, c.con_id)],
        })
        .collect();
    Ok(data("ENCRYPTIONALG ENCRYPTEDKEY MASTERKEYID MASTERKEY_ACTIVATED CON_ID", rows))
}

fn database_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let control = i.control()?.clone();
    let mode = match i.state {
        State::OpenReadWrite => "READ WRITE",
        State::OpenReadOnly => "READ ONLY",
        _ => "MOUNTED",
    };
    let role = if control.planted.role.is_empty() { "PRIMARY" } else { &control.planted.role };
    let guaranteed = control.planted.restore_points.iter().any(|(_, g)| *g);
    let flashback = match (control.planted.flashback_on, guaranteed) {
        (true, _) => "YES",
        (false, true) => "RESTORE POINT ONLY",
        _ => "NO",
    };
    let row = vec![
        number(u64::from(control.dbid)),
        text(&control.db_name),
        Value::Real(control.created),
        text(if control.archivelog { "ARCHIVELOG" } else { "NOARCHIVELOG" }),
        number(control.checkpoint_scn),
        number(control.scn),
        text("CURRENT"),
        text(mode),
        text("UNPROTECTED"),
        text(role),
        text("NOT ALLOWED"),
        text("DISABLED"),
        text("NONE"),
        text("NO"),
        text("NO"),
        text(flashback),
        text(&control.db_unique_name),
        text(if control.cdb { "YES" } else { "NO" }),
        text("Linux x86 64-bit"),
        int(13),
        text(if control.planted.capture { "YES" } else { "NO" }),
        int(0),
    ];
    Ok(data(
        "DBID NAME CREATED LOG_MODE CHECKPOINT_CHANGE# CURRENT_SCN CONTROLFILE_TYPE OPEN_MODE \
         PROTECTION_LEVEL DATABASE_ROLE SWITCHOVER_STATUS DATAGUARD_BROKER GUARD_STATUS \
         FORCE_LOGGING REMOTE_ARCHIVE FLASHBACK_ON DB_UNIQUE_NAME CDB PLATFORM_NAME PLATFORM_ID \
         SUPPLEMENTAL_LOG_DATA_MIN CON_ID",
        vec![row],
    ))
}

fn pdb_mode(i: &Instance, con_id: u32) -> &'static str {
    match con_id {
        0 | 1 => match i.state {
            State::OpenReadWrite => "READ WRITE",
            State::OpenReadOnly => "READ ONLY",
            _ => "MOUNTED",
        },
        _ => i.pdbs.get(&con_id).copied().unwrap_or(PdbMode::Mounted).name(),
    }
}

fn containers_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let rows = visible(i, sess)?
        .iter()
        .map(|c| {
            vec![
                con(i, c.con_id),
                number(u64::from(c.dbid)),
                number(u64::from(c.dbid)),
                text(&c.guid),
                text(&c.name),
                text(pdb_mode(i, c.con_id)),
                text("NO"),
                text("ENABLED"),
            ]
        })
        .collect();
    Ok(data("CON_ID DBID CON_UID GUID NAME OPEN_MODE RESTRICTED RECOVERY_STATUS", rows))
}

fn pdbs_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let rows = visible(i, sess)?
        .iter()
        .filter(|c| c.con_id > 1)
        .map(|c| {
            let mode = pdb_mode(i, c.con_id);
            vec![
                con(i, c.con_id),
                number(u64::from(c.dbid)),
                number(u64::from(c.dbid)),
                text(&c.guid),
                text(&c.name),
                text(mode),
                if mode == "MOUNTED" { Value::Null } else { yes_no(i.restricted_pdbs.contains(&c.con_id)) },
                text("ENABLED"),
            ]
        })
        .collect();
    Ok(data("CON_ID DBID CON_UID GUID NAME OPEN_MODE RESTRICTED RECOVERY_STATUS", rows))
}

fn datafile_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let control = i.control()?.clone();
    let rows = spaces(i, sess)?
        .iter()
        .map(|t| {
            let offline = control.planted.datafiles_offline.contains(&t.name);
            let status = match (offline, t.name.as_str(), t.status) {
                (true, ..) => "RECOVER",
                (_, "SYSTEM", _) => "SYSTEM",
                (.., TsStatus::Offline) => "OFFLINE",
                _ => "ONLINE",
            };
            vec![
                int(t.file_id),
                int(t.ts),
                text(status),
                text(if t.status == TsStatus::ReadOnly { "READ ONLY" } else { "READ WRITE" }),
                number(control.checkpoint_scn),
                Value::Real(control.created),
                int(104_857_600),
                text(&t.file),
                con(i, t.con_id),
            ]
        })
        .collect();
    Ok(data("FILE# TS# STATUS ENABLED CHECKPOINT_CHANGE# CREATION_TIME BYTES NAME CON_ID", rows))
}

fn log_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let control = i.control()?;
    let rows = control
        .logs
        .iter()
        .map(|l| {
            let status = match (l.current, l.next_scn) {
                (true, _) => "CURRENT",
                (_, _) if l.sequence == 0 => "UNUSED",
                (_, Some(next)) if next > control.checkpoint_scn => "ACTIVE",
                _ => "INACTIVE",
            };
            vec![
                int(l.group),
                int(1),
                int(l.sequence),
                int(209_715_200),
                int(512),
                int(1),
                yes_no(l.archived),
                text(status),
                number(l.first_scn),
                Value::Real(l.first_time),
                l.next_scn.map_or(Value::Integer(i64::MAX), number),
                int(0),
            ]
        })
        .collect();
    Ok(data(
        "GROUP# THREAD# SEQUENCE# BYTES BLOCKSIZE MEMBERS ARCHIVED STATUS FIRST_CHANGE# FIRST_TIME NEXT_CHANGE# CON_ID",
        rows,
    ))
}

fn logfile_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rows = i
        .control()?
        .logs
        .iter()
        .map(|l| vec![int(l.group), Value::Null, text("ONLINE"), text(&l.file), text("NO"), int(0)])
        .collect();
    Ok(data("GROUP# STATUS TYPE MEMBER IS_RECOVERY_DEST_FILE CON_ID", rows))
}

fn archived_log_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rows = i
        .control()?
        .archived
        .iter()
        .map(|a| {
            vec![
                int(a.sequence),
                text(&a.name),
                int(1),
                int(1),
                number(a.first_scn),
                number(a.next_scn),
                Value::Real(a.first_time),
                Value::Real(a.completed),
                text("YES"),
                text("NO"),
                text("A"),
                text("ARCH"),
                text("ARCH"),
                int(2048),
                int(512),
                int(0),
            ]
        })
        .collect();
    Ok(data(
        "SEQUENCE# NAME DEST_ID THREAD# FIRST_CHANGE# NEXT_CHANGE# FIRST_TIME COMPLETION_TIME \
         ARCHIVED DELETED STATUS CREATOR REGISTRAR BLOCKS BLOCK_SIZE CON_ID",
        rows,
    ))
}

fn standby_service(i: &Instance) -> Option<String> {
    let dest = i.memory.get("log_archive_dest_2").cloned().unwrap_or_default();
    let upper = dest.to_uppercase();
    let at = upper.find("SERVICE=")?;
    dest[at + 8..].split_whitespace().next().map(str::to_owned)
}

/// The recovery area goes by a name of its own.
fn archive_destination(i: &Instance) -> String {
    let area = i.memory.get("db_recovery_file_dest").is_some_and(|dir| !dir.is_empty());
    let named = i.memory.get("log_archive_dest_1").is_some_and(|dest| dest.to_uppercase().contains("LOCATION=/"));
    if area && !named { "USE_DB_RECOVERY_FILE_DEST".to_owned() } else { i.archive_dir() }
}

fn archive_dest_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let stuck = i.archiver_stuck(&crate::sim::load());
    let archivelog = i.control.as_ref().is_some_and(|c| c.archivelog);
    let error = if stuck { text("ORA-19809: limit exceeded for recovery files") } else { Value::Null };
    let mut rows = vec![vec![
        int(1),
        text("LOG_ARCHIVE_DEST_1"),
        text(match (archivelog, stuck) {
            (false, _) => "INACTIVE",
            (_, true) => "ERROR",
            _ => "VALID",
        }),
        text("PRIMARY"),
        text("ARCH"),
        text(archive_destination(i)),
        error,
        text("LOCAL"),
        int(0),
    ]];
    if let Some(service) = standby_service(i) {
        rows.push(vec![
            int(2),
            text("LOG_ARCHIVE_DEST_2"),
            text("VALID"),
            text("STANDBY"),
            text("LGWR"),
            text(service),
            Value::Null,
            text("REMOTE"),
            int(0),
        ]);
    }
    Ok(data("DEST_ID DEST_NAME STATUS TARGET ARCHIVER DESTINATION ERROR TYPE CON_ID", rows))
}

fn archive_dest_status_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let stuck = i.archiver_stuck(&crate::sim::load());
    let mut rows = vec![vec![
        int(1),
        text("LOG_ARCHIVE_DEST_1"),
        text(if stuck { "ERROR" } else { "VALID" }),
        text("LOCAL"),
        text("OPEN"),
        text("IDLE"),
        text(i.archive_dir()),
        Value::Null,
        if stuck { text("ORA-19809: limit exceeded for recovery files") } else { Value::Null },
        int(0),
    ]];
    if let Some(service) = standby_service(i) {
        rows.push(vec![
            int(2),
            text("LOG_ARCHIVE_DEST_2"),
            text("VALID"),
            text("PHYSICAL"),
            text("MOUNTED-STANDBY"),
            text("MANAGED REAL TIME APPLY"),
            text(&service),
            text(service),
            Value::Null,
            int(0),
        ]);
    }
    Ok(data("DEST_ID DEST_NAME STATUS TYPE DATABASE_MODE RECOVERY_MODE DESTINATION DB_UNIQUE_NAME ERROR CON_ID", rows))
}

fn archive_processes_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let stuck = i.archiver_stuck(&crate::sim::load());
    let rows = (0..4)
        .map(|n| vec![int(n), text("ACTIVE"), int(0), text(if stuck && n == 0 { "BUSY" } else { "IDLE" }), int(0)])
        .collect();
    Ok(data("PROCESS STATUS LOG_SEQUENCE STATE CON_ID", rows))
}

fn recovery_file_dest_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let Some(name) = i.memory.get("db_recovery_file_dest").filter(|v| !v.is_empty()).cloned() else {
        return Ok(data("NAME SPACE_LIMIT SPACE_USED SPACE_RECLAIMABLE NUMBER_OF_FILES CON_ID", vec![]));
    };
    let size = i.memory.get("db_recovery_file_dest_size").map_or(0, |v| super::size_in_bytes(v));
    let (used, files) = i.control.as_ref().map_or((0, 0), |c| (c.planted.recovery_area_used, c.archived.len() as u64));
    Ok(data(
        "NAME SPACE_LIMIT SPACE_USED SPACE_RECLAIMABLE NUMBER_OF_FILES CON_ID",
        vec![vec![text(name), number(size), number(used + files * 1_048_576), int(0), number(files), int(0)]],
    ))
}

fn restore_point_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let created = i.control()?.created;
    let rows = i
        .control()?
        .planted
        .restore_points
        .iter()
        .map(|(name, guaranteed)| {
            vec![int(100), int(1), yes_no(*guaranteed), int(52_428_800), Value::Real(created), text(name), text("NO"), int(0)]
        })
        .collect();
    Ok(data("SCN DATABASE_INCARNATION# GUARANTEE_FLASHBACK_DATABASE STORAGE_SIZE TIME NAME PRESERVED CON_ID", rows))
}

fn flashback_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let control = i.control()?;
    let on = control.planted.flashback_on || control.planted.restore_points.iter().any(|r| r.1);
    let rows = if on { vec![vec![int(100), Value::Real(control.created), int(1440), int(52_428_800), int(0)]] } else { vec![] };
    Ok(data("OLDEST_FLASHBACK_SCN OLDEST_FLASHBACK_TIME RETENTION_TARGET FLASHBACK_SIZE CON_ID", rows))
}

fn backup_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let done = i.control()?.planted.last_full_backup_hours.map(|h| now() - h / 24.0);
    let spaces = spaces(i, sess)?;
    Ok(match name {
        "V$BACKUP_DATAFILE" => {
            let rows = done
                .map(|at| {
                    spaces
                        .iter()
                        .map(|t| {
                            vec![
                                int(1),
                                int(t.file_id),
                                int(0),
                                Value::Real(at),
                                int(900),
                                int(12800),
                                text("NO"),
                                con(i, t.con_id),
                            ]
                        })
                        .collect()
                })
                .unwrap_or_default();
            data("RECID FILE# INCREMENTAL_LEVEL COMPLETION_TIME CHECKPOINT_CHANGE# BLOCKS USED_OPTIMIZATION CON_ID", rows)
        }
        "V$BACKUP_PIECE" => {
            let name =
                format!("{}/{}/backupset/1.bkp", i.memory.get("db_recovery_file_dest").cloned().unwrap_or_default(), i.sid);
            let rows = done
                .map(|at| {
                    vec![
                        int(1),
                        int(1),
                        int(1),
                        text("A"),
                        text("DISK"),
                        text(name),
                        Value::Real(at - 0.01),
                        Value::Real(at),
                        text("NO"),
                        int(0),
                    ]
                })
                .into_iter()
                .collect();
            data("RECID SET_COUNT PIECE# STATUS DEVICE_TYPE HANDLE START_TIME COMPLETION_TIME DELETED CON_ID", rows)
        }
        "V$BACKUP_SET" => {
            let rows = done
                .map(|at| vec![int(1), int(1), text("D"), text("NO"), int(0), Value::Real(at - 0.01), Value::Real(at), int(0)])
                .into_iter()
                .collect();
            data("RECID SET_COUNT BACKUP_TYPE CONTROLFILE_INCLUDED INCREMENTAL_LEVEL START_TIME COMPLETION_TIME CON_ID", rows)
        }
        _ => {
            let rows = done
                .map(|at| {
                    vec![
                        int(1),
                        text("DB FULL"),
                        text("COMPLETED"),
                        Value::Real(at - 0.01),
                        Value::Real(at),
                        int(900),
                        text("DISK"),
                    ]
                })
                .into_iter()
                .collect();
            data("SESSION_KEY INPUT_TYPE STATUS START_TIME END_TIME ELAPSED_SECONDS OUTPUT_DEVICE_TYPE", rows)
        }
    })
}

fn recover_file_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let offline = i.control()?.planted.datafiles_offline.clone();
    let rows = spaces(i, sess)?
        .iter()
        .filter(|t| offline.contains(&t.name))
        .map(|t| {
            vec![
                int(t.file_id),
                text("OFFLINE"),
                text("OFFLINE"),
                Value::Null,
                int(100),
                Value::Real(i.started),
                con(i, t.con_id),
            ]
        })
        .collect();
    Ok(data("FILE# ONLINE ONLINE_STATUS ERROR CHANGE# TIME CON_ID", rows))
}

fn dataguard_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let config = i.memory.get("log_archive_config").cloned().unwrap_or_default();
    let names: Vec<String> = config
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(inner, _)| inner.split(',').map(|n| n.trim().to_owned()).collect())
        .unwrap_or_default();
    let rows = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            vec![
                text(name),
                if n == 0 { text("NONE") } else { text(&names[0]) },
                text(if n == 0 { "PRIMARY DATABASE" } else { "PHYSICAL STANDBY" }),
                int(0),
                int(0),
            ]
        })
        .collect();
    Ok(data("DB_UNIQUE_NAME PARENT_DBUN DEST_ROLE CURRENT_SCN CON_ID", rows))
}

/// SYSTEM and SYSAUX are in every container besides what the seed made.
fn tablespaces_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let mut rows = Vec::new();
    for container in dictionary_containers(i, sess, name)? {
        for t in i.control()?.tablespaces.iter().filter(|t| t.con_id == container.con_id) {
            let encrypted = t.encrypted || (t.name == "SYSTEM" && i.files.load_dictionary(&container)?.header.is_some());
            let mut row = vec![
                text(&t.name),
                int(8192),
                text(t.status.name()),
                text(&t.contents),
                text("LOGGING"),
                text("NO"),
                yes_no(encrypted),
            ];
            if name.starts_with("CDB_") {
                row.push(con(i, t.con_id));
            }
            rows.push(row);
        }
    }
    let mut columns = "TABLESPACE_NAME BLOCK_SIZE STATUS CONTENTS LOGGING BIGFILE ENCRYPTED".to_owned();
    if name.starts_with("CDB_") {
        columns += " CON_ID";
    }
    Ok(data(&columns, rows))
}

fn data_files_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let offline = i.control()?.planted.datafiles_offline.clone();
    let mut rows = Vec::new();
    for container in dictionary_containers(i, sess, name)? {
        for t in i.control()?.tablespaces.iter().filter(|t| t.con_id == container.con_id) {
            let online = match (offline.contains(&t.name), t.status) {
                (true, _) => "RECOVER",
                (_, TsStatus::Offline) => "OFFLINE",
                _ => "ONLINE",
            };
            let mut row =
                vec![text(&t.file), int(t.file_id), text(&t.name), int(104_857_600), int(12800), text("AVAILABLE"), text(online)];
            if name.starts_with("CDB_") {
                row.push(con(i, t.con_id));
            }
            rows.push(row);
        }
    }
    let mut columns = "FILE_NAME FILE_ID TABLESPACE_NAME BYTES BLOCKS STATUS ONLINE_STATUS".to_owned();
    if name.starts_with("CDB_") {
        columns += " CON_ID";
    }
    Ok(data(&columns, rows))
}

fn split(table: &str) -> (&str, &str) {
    table.split_once('.').unwrap_or(("SYS", table))
}

fn tables_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let mut rows = Vec::new();
    for container in dictionary_containers(i, sess, name)? {
        let spaces: Vec<Tablespace> = i.control()?.tablespaces.iter().filter(|t| t.con_id == container.con_id).cloned().collect();
        for ts in spaces {
            for table in i.files.load_data(&ts)?.tables {
                let (owner, plain) = split(&table.name);
                let mut row =
                    vec![text(owner), text(plain), text(&ts.name), text("VALID"), number(table.rows.len() as u64), text("N")];
                if name.starts_with("CDB_") {
                    row.push(con(i, ts.con_id));
                }
                rows.push(row);
            }
        }
    }
    let mut columns = "OWNER TABLE_NAME TABLESPACE_NAME STATUS NUM_ROWS TEMPORARY".to_owned();
    if name.starts_with("CDB_") {
        columns += " CON_ID";
    }
    Ok(data(&columns, rows))
}

fn encrypted_columns_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let mut rows = Vec::new();
    for container in dictionary_containers(i, sess, name)? {
        for enc in i.files.load_dictionary(&container)?.enc {
            let (owner, table) = split(&enc.table);
            for column in &enc.columns {
                let mut row = vec![text(owner), text(table), text(column), text("AES 192 bits key"), text("YES"), text("SHA-1")];
                if name.starts_with("CDB_") {
                    row.push(con(i, container.con_id));
                }
                rows.push(row);
            }
        }
    }
    let mut columns = "OWNER TABLE_NAME COLUMN_NAME ENCRYPTION_ALG SALT INTEGRITY_ALG".to_owned();
    if name.starts_with("CDB_") {
        columns += " CON_ID";
    }
    Ok(data(&columns, rows))
}

fn enc_view(i: &mut Instance, sess: &Sess, _: &str) -> Result<Data> {
    let container = i.container(sess.con)?.clone();
    let rows = i
        .files
        .load_dictionary(&container)?
        .enc
        .iter()
        .enumerate()
        .map(|(n, enc)| {
            vec![
                int(73_000 + n as i64),
                int(0),
                int(3),
                int(1),
                text(enc.key.mkid.key_id(enc.key.kind)),
                text(&enc.key.bytes),
                int(0),
            ]
        })
        .collect();
    Ok(data("OBJ# OWNER# ENCALG INTALG MKEYID COLKLC KLCLEN", rows))
}

fn properties_view(i: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    let container = i.container(sess.con)?.clone();
    let mut rows = vec![
        vec![text("DEFAULT_PERMANENT_TABLESPACE"), text("USERS"), Value::Null],
        vec![text("NLS_CHARACTERSET"), text("AL32UTF8"), Value::Null],
        vec![text("DBTIMEZONE"), text("00:00"), Value::Null],
    ];
    if let Some(active) = &container.active {
        rows.push(vec![text("TDE_MASTER_KEY_ID"), text(active.mkid.key_id(active.kind)), Value::Null]);
        rows.push(vec![text("TDE_PRIMARY_KEYSTORE"), text(active.kind.wrl_type()), Value::Null]);
    }
    Ok(match name {
        "PROPS$" => data("NAME VALUE$ COMMENT$", rows),
        _ => data("PROPERTY_NAME PROPERTY_VALUE DESCRIPTION", rows),
    })
}

fn datapump_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rows = if i.control()?.planted.datapump_running {
        vec![vec![text("SYSTEM"), text("SYS_EXPORT_FULL_01"), text("EXPORT"), text("FULL"), text("EXECUTING"), int(1), int(1)]]
    } else {
        vec![]
    };
    Ok(data("OWNER_NAME JOB_NAME OPERATION JOB_MODE STATE DEGREE ATTACHED_SESSIONS", rows))
}

fn capture_view(i: &mut Instance, _: &Sess, _: &str) -> Result<Data> {
    let rows = if i.control()?.planted.capture {
        vec![vec![text("OGG$CAP_E1"), text("OGG$Q_E1"), text("ENABLED"), text("LOCAL"), text("GoldenGate")]]
    } else {
        vec![]
    };
    Ok(data("CAPTURE_NAME QUEUE_NAME STATUS CAPTURE_TYPE PURPOSE", rows))
}

/// A user table, decrypted (R12).
pub fn user_table(instance: &mut Instance, sess: &Sess, name: &str) -> Result<Data> {
    if instance.state < State::OpenReadOnly {
        return Err(Ora::new(1109));
    }
    if sess.con > 2 && instance.pdbs.get(&sess.con) == Some(&PdbMode::Mounted) {
        return Err(Ora::new(1109));
    }
    let rows = instance.read_table(sess, sess.con, name)?;
    let columns = ["ID", "NAME", "PAYLOAD"];
    let rows = rows
        .iter()
        .filter_map(|row| serde_json::from_str::<serde_json::Value>(row).ok())
        .map(|row| {
            columns
                .iter()
                .map(|column| match row.get(*column) {
                    Some(serde_json::Value::Number(n)) => int(n.as_i64().unwrap_or(0)),
                    Some(serde_json::Value::String(s)) => text(s),
                    _ => Value::Null,
                })
                .collect()
        })
        .collect();
    Ok(data("ID NAME PAYLOAD", rows))
}
