//! Every query, and every difference between versions.
//!
//! Queries are plain joins over fixed views wherever one will do, because those answer in MOUNT, cover pluggable
//! databases that are closed, and need no PL/SQL. Times are computed by the server in UTC (`O§7.9`); ages of DATE
//! columns, which have no time zone, as a difference to SYSDATE. V$ENCRYPTION_WALLET has a function of its own since
//! reading it can log in to an HSM (H12).

use super::ddl;
use super::session::{END, ROW, Session, SessionError, select};
use std::collections::BTreeMap;
use tde2hsm_protocol::survey::{Access, Blockers, FileKind, RedoLog, RestorePoint, Span, WalletRow};
use tde2hsm_protocol::{ContainerName, MasterKeyId, Store, Timestamp};

/// Versions whose views and statements are known. Others are refused by code, not guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V12_2,
    V19,
}

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.');
        match (parts.next()?, parts.next()?) {
            ("12", "2") => Some(Version::V12_2),
            ("19", _) => Some(Version::V19),
            _ => None,
        }
    }

    /// V$ENCRYPTION_WALLET.KEYSTORE_MODE came with 18c (`O§3.1`).
    fn has_keystore_mode(self) -> bool {
        self >= Version::V19
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Started,
    Mounted,
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub version_text: String,
    pub version: Option<Version>,
    pub status: Status,
    pub restricted: bool,
    pub archiver_stuck: bool,
    pub rac: bool,
    /// Tells one start of the instance from another.
    pub startup: String,
}

fn unreadable(sql: &str, what: impl Into<String>) -> SessionError {
    SessionError::Answer { statement: sql.to_owned(), what: what.into() }
}

fn number<T: std::str::FromStr>(sql: &str, text: &str) -> Result<T, SessionError> {
    text.trim().parse().map_err(|_| unreadable(sql, format!("`{}` for a number", text.trim())))
}

fn optional(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn one(s: &mut Session, fields: &[&str], rest: &str) -> Result<(String, Vec<String>), SessionError> {
    let sql = select(fields, rest);
    let mut rows = s.query(&sql, fields.len())?;
    match rows.len() {
        1 => Ok((sql, rows.remove(0))),
        n => Err(unreadable(&sql, format!("{n} rows in place of one"))),
    }
}

fn count(s: &mut Session, from: &str) -> Result<u32, SessionError> {
    let (sql, row) = one(s, &["COUNT(*)"], from)?;
    number(&sql, &row[0])
}

pub const UTC: &str = "YYYY-MM-DD\"T\"HH24:MI:SS";

fn utc_of(column: &str) -> String {
    format!("TO_CHAR({column} AT TIME ZONE 'UTC','{UTC}')")
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = format!("{}Z", text.trim()).parse().ok()?;
    Some(Timestamp(at.as_second()))
}

/// Answers in every state of the instance.
pub fn instance(s: &mut Session) -> Result<Instance, SessionError> {
    let (sql, row) = one(
        s,
        &["version", "status", "logins", "archiver", "parallel", "TO_CHAR(startup_time,'YYYYMMDDHH24MISS')"],
        "FROM v$instance",
    )?;
    let status = match row[1].trim() {
        "STARTED" => Status::Started,
        "MOUNTED" => Status::Mounted,
        "OPEN" | "OPEN MIGRATE" => Status::Open,
        other => return Err(unreadable(&sql, format!("status `{other}`"))),
    };
    Ok(Instance {
        version: Version::parse(row[0].trim()),
        version_text: row[0].trim().to_owned(),
        status,
        restricted: row[2].trim() == "RESTRICTED",
        archiver_stuck: row[3].trim() == "FAILED",
        rac: row[4].trim() == "YES",
        startup: row[5].trim().to_owned(),
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub dbid: u64,
    pub name: String,
    pub unique_name: String,
    pub role: String,
    pub open_mode: String,
    pub cdb: bool,
    pub log_mode: String,
    pub flashback: bool,
}

impl Database {
    pub fn read_write(&self) -> bool {
        self.open_mode == "READ WRITE"
    }
}

/// From MOUNT on.
pub fn database(s: &mut Session) -> Result<Database, SessionError> {
    let (sql, row) = one(
        s,
        &["dbid", "name", "db_unique_name", "database_role", "open_mode", "cdb", "log_mode", "flashback_on"],
        "FROM v$database",
    )?;
    Ok(Database {
        dbid: number(&sql, &row[0])?,
        name: row[1].trim().to_owned(),
        unique_name: row[2].trim().to_owned(),
        role: row[3].trim().to_owned(),
        open_mode: row[4].trim().to_owned(),
        cdb: row[5].trim() == "YES",
        log_mode: row[6].trim().to_owned(),
        flashback: row[7].trim() != "NO",
    })
}

/// Parameters in memory; what the server does not know is absent.
pub fn parameters(s: &mut Session, names: &[&str]) -> Result<BTreeMap<String, String>, SessionError> {
    let list = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    let sql = select(&["name", "value"], &format!("FROM v$parameter WHERE name IN ({list})"));
    let rows = s.query(&sql, 2)?;
    Ok(rows.into_iter().filter_map(|row| Some((row[0].trim().to_owned(), optional(&row[1])?))).collect())
}

/// Parameters whose value in the spfile is not the one in memory (H20).
pub fn pending(s: &mut Session) -> Result<Vec<String>, SessionError> {
    let sql = select(&["name", "ordinal", "value"], "FROM v$spparameter WHERE isspecified = 'TRUE' ORDER BY name, ordinal");
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in s.query(&sql, 3)? {
        wanted.entry(row[0].trim().to_owned()).or_default().push(row[2].trim().to_owned());
    }
    let sql = select(&["name", "value"], "FROM v$parameter");
    let memory: BTreeMap<String, String> =
        s.query(&sql, 2)?.into_iter().map(|row| (row[0].trim().to_owned(), row[1].trim().to_owned())).collect();
    Ok(wanted
        .into_iter()
        .filter(|(name, values)| memory.get(name).is_some_and(|now| same_value(now) != same_value(&values.join(","))))
        .map(|(name, _)| name)
        .collect())
}

/// `1G` and 1073741824, `TRUE` and `true`, `a, b` and `a,b` are the same.
fn same_value(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '"').collect::<String>().to_ascii_lowercase();
    let (digits, unit) = text.split_at(text.len() - usize::from(text.ends_with(['k', 'm', 'g', 't'])));
    match (digits.parse::<u128>(), unit) {
        (Ok(n), "") => n.to_string(),
        (Ok(n), unit) => {
            let shift = match unit {
                "k" => 10,
                "m" => 20,
                "g" => 30,
                _ => 40,
            };
            (n << shift).to_string()
        }
        (Err(_), _) => text,
    }
}

/// Reads V$ENCRYPTION_WALLET: a login to an HSM may be the price (H12).
pub fn wallet(s: &mut Session, version: Version) -> Result<Vec<WalletRow>, SessionError> {
    let mode = if version.has_keystore_mode() { "keystore_mode" } else { "''" };
    let fields = ["con_id", "wrl_type", "wrl_parameter", "status", "wallet_type", "wallet_order", mode];
    let sql = select(&fields, "FROM v$encryption_wallet ORDER BY con_id, wrl_type");
    s.query(&sql, fields.len())?
        .into_iter()
        .map(|row| {
            Ok(WalletRow {
                con_id: number(&sql, &row[0])?,
                wrl_type: row[1].trim().to_owned(),
                wrl_parameter: optional(&row[2]),
                status: row[3].trim().to_owned(),
                wallet_type: row[4].trim().to_owned(),
                wallet_order: row[5].trim().to_owned(),
                keystore_mode: optional(&row[6]),
            })
        })
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub con_id: u32,
    pub dbid: u64,
    pub name: ContainerName,
    pub open_mode: String,
    pub restricted: bool,
}

impl Container {
    /// PDB$SEED: read only for ever, never rekeyed (`O§7.1`).
    pub fn is_seed(&self) -> bool {
        self.name.as_str() == "PDB$SEED"
    }
    pub fn read_write(&self) -> bool {
        self.open_mode == "READ WRITE"
    }
}

/// The root (or the non-CDB itself) first, then every pluggable database but the seed.
pub fn containers(s: &mut Session, database: &Database) -> Result<Vec<Container>, SessionError> {
    let root = if database.cdb { ContainerName::ROOT } else { &database.name };
    let name =
        |text: &str| ContainerName::new(text.trim()).map_err(|error| unreadable("the list of containers", error.to_string()));
    let mut all = vec![Container {
        con_id: u32::from(database.cdb),
        dbid: database.dbid,
        name: name(root)?,
        open_mode: database.open_mode.clone(),
        restricted: false,
    }];
    if database.cdb {
        let sql = select(&["con_id", "name", "open_mode", "restricted", "dbid"], "FROM v$pdbs ORDER BY con_id");
        for row in s.query(&sql, 5)? {
            all.push(Container {
                con_id: number(&sql, &row[0])?,
                dbid: number(&sql, &row[4])?,
                name: name(&row[1])?,
                open_mode: row[2].trim().to_owned(),
                restricted: row[3].trim() == "YES",
            });
        }
        all.retain(|container| !container.is_seed());
    }
    Ok(all)
}

/// A row of V$ENCRYPTION_KEYS. Its CON_ID is where the key was made, not where it is used (`O§3.3`), so it is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: MasterKeyId,
    pub store: Option<Store>,
    pub created: Option<Timestamp>,
    pub activated: Option<Timestamp>,
    pub creator_dbid: Option<u64>,
    /// Where it was made. A database without containers has its own name here, or nothing.
    pub container: Option<ContainerName>,
}

pub fn keys(s: &mut Session) -> Result<Vec<KeyRow>, SessionError> {
    let (created, activated) = (utc_of("creation_time"), utc_of("activation_time"));
    let container = "NVL(creator_pdbname, creator_dbname)";
    let fields = ["key_id", "keystore_type", created.as_str(), activated.as_str(), "creator_dbid", container];
    let sql = select(&fields, "FROM v$encryption_keys");
    s.query(&sql, fields.len())?
        .into_iter()
        .map(|row| {
            Ok(KeyRow {
                id: row[0].trim().parse().map_err(|_| unreadable(&sql, format!("`{}` for a key id", row[0].trim())))?,
                store: match row[1].trim() {
                    "SOFTWARE KEYSTORE" => Some(Store::Software),
                    "HSM" => Some(Store::Hsm),
                    _ => None,
                },
                created: timestamp(&row[2]),
                activated: timestamp(&row[3]),
                creator_dbid: row[4].trim().parse().ok(),
                container: ContainerName::new(row[5].trim()).ok(),
            })
        })
        .collect()
}

/// The active key of each container, from the control file: (CON_ID, key, activated).
pub fn key_info(s: &mut Session) -> Result<Vec<(u32, MasterKeyId, bool)>, SessionError> {
    let sql = select(&["con_id", "RAWTOHEX(masterkeyid)", "masterkey_activated"], "FROM v$database_key_info");
    let mut all = Vec::new();
    for row in s.query(&sql, 3)? {
        let id = row[1].trim();
        if id.is_empty() || id.bytes().all(|b| b == b'0') {
            continue;
        }
        let id = id.parse().map_err(|_| unreadable(&sql, format!("`{id}` for a key id")))?;
        all.push((number(&sql, &row[0])?, id, row[2].trim() == "YES"));
    }
    Ok(all)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    pub con_id: u32,
    pub name: String,
    pub key: MasterKeyId,
    pub access: Access,
    pub status: String,
}

/// Encrypted tablespaces, with their access as the control file has it, so that closed containers are covered (H1, H3).
pub fn tablespaces(s: &mut Session) -> Result<Vec<Tablespace>, SessionError> {
    let files = select(&["con_id", "ts#", "enabled", "status"], "FROM v$datafile");
    let mut access: BTreeMap<(u32, u32), Access> = BTreeMap::new();
    for row in s.query(&files, 4)? {
        let this = match (row[2].trim(), row[3].trim()) {
            (_, "OFFLINE" | "RECOVER" | "SYSOFF") | ("DISABLED", _) => Access::Offline,
            ("READ ONLY", _) => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        let slot = access.entry((number(&files, &row[0])?, number(&files, &row[1])?)).or_insert(this);
        if *slot == Access::ReadWrite {
            *slot = this;
        }
    }
    let sql = select(
        &["e.con_id", "e.ts#", "t.name", "RAWTOHEX(e.masterkeyid)", "e.status"],
        "FROM v$encrypted_tablespaces e, v$tablespace t WHERE t.ts# = e.ts# AND t.con_id = e.con_id ORDER BY e.con_id, e.ts#",
    );
    s.query(&sql, 5)?
        .into_iter()
        .map(|row| {
            let place = (number(&sql, &row[0])?, number(&sql, &row[1])?);
            let key = row[3].trim();
            Ok(Tablespace {
                con_id: place.0,
                name: row[2].trim().to_owned(),
                key: key.parse().map_err(|_| unreadable(&sql, format!("`{key}` for a key id")))?,
                // A temporary tablespace has no data file; it is written anew under the active key.
                access: access.get(&place).copied().unwrap_or(Access::ReadWrite),
                status: row[4].trim().to_owned(),
            })
        })
        .collect()
}

/// Master keys that ENC$ rows of the session's container name, and how many tables each has.
pub fn column_keys(s: &mut Session) -> Result<Vec<(MasterKeyId, u32)>, SessionError> {
    let sql = select(&["mkeyid", "COUNT(*)"], "FROM sys.enc$ GROUP BY mkeyid");
    s.query(&sql, 2)?
        .into_iter()
        .map(|row| {
            let id = row[0].trim();
            let id = id.parse().map_err(|_| unreadable(&sql, format!("`{id}` for a key id")))?;
            Ok((id, number(&sql, &row[1])?))
        })
        .collect()
}

pub fn redo(s: &mut Session) -> Result<Vec<(RedoLog, u64)>, SessionError> {
    let sql = select(&["group#", "status", "archived", "sequence#"], "FROM v$log ORDER BY group#");
    s.query(&sql, 4)?
        .into_iter()
        .map(|row| {
            let log =
                RedoLog { group: number(&sql, &row[0])?, status: row[1].trim().to_owned(), archived: row[2].trim() == "YES" };
            Ok((log, number(&sql, &row[3])?))
        })
        .collect()
}

/// Their times by this host's clock where `now` is it; without, none.
pub fn restore_points(s: &mut Session, now: Option<Timestamp>) -> Result<Vec<RestorePoint>, SessionError> {
    // TIME has no zone: it is the server's, as SYSDATE is.
    let age = age_of("CAST(time AS DATE)");
    let sql = select(&["name", "guarantee_flashback_database", &age], "FROM v$restore_point");
    let rows = s.query(&sql, 3)?;
    rows.into_iter()
        .map(|row| {
            let time = now.map_or(Ok(None), |now| before(&sql, now, &row[2]))?;
            Ok(RestorePoint { name: row[0].trim().to_owned(), guaranteed: row[1].trim() == "YES", time })
        })
        .collect()
}

/// Every file that the control file names, where the host has to have it: data files, control files, redo logs, places of
/// archived logs. From MOUNT on. Temporary files are made again by whoever recovers.
pub fn files(s: &mut Session) -> Result<Vec<(FileKind, String)>, SessionError> {
    let mut all = Vec::new();
    for (what, column, view) in [
        (FileKind::Datafile, "name", "v$datafile"),
        (FileKind::Controlfile, "name", "v$controlfile"),
        (FileKind::RedoLog, "member", "v$logfile"),
    ] {
        let sql = select(&[column], &format!("FROM {view}"));
        all.extend(s.query(&sql, 1)?.into_iter().filter_map(|row| Some((what, optional(&row[0])?))));
    }
    let area = parameters(s, &["db_recovery_file_dest"])?.remove("db_recovery_file_dest");
    all.extend(area.map(|dir| (FileKind::RecoveryArea, dir)));
    let sql = select(&["destination"], "FROM v$archive_dest WHERE target = 'PRIMARY' AND status NOT IN ('INACTIVE', 'DEFERRED')");
    for row in s.query(&sql, 1)? {
        // The recovery area goes by a name of its own.
        all.extend(optional(&row[0]).filter(|dir| dir != "USE_DB_RECOVERY_FILE_DEST").map(|dir| (FileKind::ArchivedLogs, dir)));
    }
    Ok(all)
}

fn age_of(column: &str) -> String {
    format!("ROUND((SYSDATE - {column}) * 86400)")
}

/// The time that was so many seconds ago; nothing where the answer is NULL.
fn before(sql: &str, now: Timestamp, age: &str) -> Result<Option<Timestamp>, SessionError> {
    match age.trim() {
        "" => Ok(None),
        text => Ok(Some(Timestamp(now.0.saturating_sub(number(sql, text)?)))),
    }
}

fn span(s: &mut Session, column: &str, from: &str, now: Timestamp) -> Result<Span, SessionError> {
    let (oldest, newest) = (age_of(&format!("MIN({column})")), age_of(&format!("MAX({column})")));
    let (sql, row) = one(s, &["COUNT(*)", &oldest, &newest], from)?;
    Ok(Span { count: number(&sql, &row[0])?, oldest: before(&sql, now, &row[1])?, newest: before(&sql, now, &row[2])? })
}

/// RMAN's pieces and image copies that are not deleted (H43). What a recovery catalog knows beyond that is not seen.
pub fn backup_pieces(s: &mut Session, now: Timestamp) -> Result<Span, SessionError> {
    let pieces = span(s, "start_time", "FROM v$backup_piece WHERE status <> 'D'", now)?;
    let copies = span(s, "completion_time", "FROM v$datafile_copy WHERE status <> 'D'", now)?;
    Ok(Span {
        count: pieces.count + copies.count,
        oldest: pieces.oldest.into_iter().chain(copies.oldest).min(),
        newest: pieces.newest.into_iter().chain(copies.newest).max(),
    })
}

/// Archived logs that are not deleted (H43).
pub fn archived_logs(s: &mut Session, now: Timestamp) -> Result<Span, SessionError> {
    span(s, "first_time", "FROM v$archived_log WHERE deleted = 'NO' AND name IS NOT NULL", now)
}

/// How far flashback logs reach back (H43).
pub fn flashback_since(s: &mut Session, now: Timestamp) -> Result<Option<Timestamp>, SessionError> {
    let sql = select(&[&age_of("oldest_flashback_time")], "FROM v$flashback_database_log");
    let rows = s.query(&sql, 1)?;
    rows.first().map_or(Ok(None), |row| before(&sql, now, &row[0]))
}

/// For how many days the control file remembers what may be overwritten in it.
pub fn record_keep_days(s: &mut Session) -> Result<Option<u32>, SessionError> {
    let name = "control_file_record_keep_time";
    Ok(parameters(s, &[name])?.get(name).and_then(|days| days.parse().ok()))
}

/// A standby destination or a broker configuration (H19).
pub fn data_guard(s: &mut Session) -> Result<bool, SessionError> {
    let parameters = parameters(s, &["dg_broker_start", "log_archive_config"])?;
    let broker = parameters.get("dg_broker_start").is_some_and(|value| value.eq_ignore_ascii_case("TRUE"));
    let config = parameters.get("log_archive_config").is_some_and(|value| value.to_ascii_uppercase().contains("DG_CONFIG"));
    Ok(broker || config || count(s, "FROM v$archive_dest WHERE target = 'STANDBY' AND status <> 'INACTIVE'")? > 0)
}

/// GoldenGate, Streams or LogMiner at work (H21). The database must be open.
pub fn capture(s: &mut Session) -> Result<bool, SessionError> {
    Ok(count(s, "FROM dba_capture WHERE status <> 'DISABLED'")? > 0)
}

/// What stands in the way of a key change now (H21). The database must be open.
pub fn blockers(s: &mut Session, instance: &Instance) -> Result<Blockers, SessionError> {
    let sql = select(
        &["ROUND((space_used - space_reclaimable) * 100 / space_limit)"],
        "FROM v$recovery_file_dest WHERE space_limit > 0",
    );
    let recovery_area_used = match s.query(&sql, 1)?.first() {
        Some(row) => Some(number(&sql, &row[0])?),
        None => None,
    };
    Ok(Blockers {
        archiver_stuck: instance.archiver_stuck,
        recovery_area_used,
        long_transactions: count(s, "FROM v$transaction WHERE start_date < SYSDATE - 1/24")?,
        rman_jobs: count(s, "FROM v$rman_status WHERE status LIKE 'RUNNING%'")?,
        data_pump_jobs: count(s, "FROM dba_datapump_jobs WHERE state = 'EXECUTING'")?,
        offline_datafiles: count(s, "FROM v$datafile WHERE status = 'OFFLINE'")?,
        files_needing_recovery: count(s, "FROM v$recover_file")?,
        backup_mode_files: count(s, "FROM v$backup WHERE status = 'ACTIVE'")?,
    })
}

/// Seconds since the newest full backup that RMAN knows of ended (H7).
pub fn full_backup_age(s: &mut Session) -> Result<Option<i64>, SessionError> {
    let (sql, row) = one(
        s,
        &["ROUND((SYSDATE - MAX(end_time)) * 86400)"],
        "FROM v$rman_backup_job_details WHERE status LIKE 'COMPLETED%' AND input_type IN ('DB FULL','DB INCR')",
    )?;
    match row[0].trim() {
        "" => Ok(None),
        text => number(&sql, text).map(Some),
    }
}

/// PROCESSES in use and their limit.
pub fn processes(s: &mut Session) -> Result<(u32, u32), SessionError> {
    let (sql, row) = one(s, &["current_utilization", "limit_value"], "FROM v$resource_limit WHERE resource_name = 'processes'")?;
    Ok((number(&sql, &row[0])?, number(&sql, &row[1])?))
}

/// The server session is still there (H28).
pub fn session_exists(s: &mut Session, sid: u32, serial: u32) -> Result<bool, SessionError> {
    Ok(count(s, &format!("FROM v$session WHERE sid = {sid} AND serial# = {serial}"))? > 0)
}

/// Tables with a segment in a tablespace of the session's container, by quoted name; at most `limit`.
pub fn tables_in(s: &mut Session, tablespace: &str, limit: usize) -> Result<Vec<String>, SessionError> {
    let name = ddl::literal(tablespace, "a tablespace name")?;
    let whole = select(
        &["owner", "table_name"],
        &format!(
            "FROM dba_tables WHERE tablespace_name = {} AND temporary = 'N' ORDER BY num_rows DESC, owner, table_name",
            *name
        ),
    );
    let mut rows = s.query(&whole, 2)?;
    if rows.is_empty() {
        // A partitioned table has no tablespace of its own.
        let parts = select(
            &["table_owner", "table_name"],
            &format!("FROM dba_tab_partitions WHERE tablespace_name = {} ORDER BY table_owner, table_name", *name),
        );
        rows = match s.query(&parts, 2) {
            Err(error) if error.ora() == Some(942) => Vec::new(),
            other => other?,
        };
        rows.dedup();
    }
    // A name that cannot be quoted is not worth a risk; another table will do.
    let quoted = rows.iter().filter_map(|row| {
        let (owner, table) = (ddl::quote(&row[0], "an owner").ok()?, ddl::quote(&row[1], "a table").ok()?);
        Some(format!("{}.{}", *owner, *table))
    });
    Ok(quoted.take(limit).collect())
}

/// Encrypted columns of the session's container: quoted table, quoted column.
pub fn encrypted_columns(s: &mut Session) -> Result<Vec<(String, String)>, SessionError> {
    let sql =
        select(&["owner", "table_name", "column_name"], "FROM dba_encrypted_columns ORDER BY owner, table_name, column_name");
    let mut all = Vec::new();
    for row in s.query(&sql, 3)? {
        let (owner, table, column) =
            (ddl::quote(&row[0], "an owner")?, ddl::quote(&row[1], "a table")?, ddl::quote(&row[2], "a column")?);
        all.push((format!("{}.{}", *owner, *table), (*column).clone()));
    }
    Ok(all)
}

/// Reads one row; the block has to be decrypted for it, which an index elsewhere would spare (hence the hint).
/// The number of rows found, 0 or 1.
pub fn read_one(s: &mut Session, table: &str) -> Result<u32, SessionError> {
    let sql = format!("SELECT /*+ FULL(t) */ '{ROW}'||COUNT(*)||'{END}' FROM {table} t WHERE ROWNUM <= 1");
    match s.query(&sql, 1)?.first() {
        Some(row) => number(&sql, &row[0]),
        None => Err(unreadable(&sql, "no row")),
    }
}

/// The same with the column's own key. Nothing of the value leaves the server.
pub fn read_column(s: &mut Session, table: &str, column: &str) -> Result<(), SessionError> {
    let sql = format!("SELECT /*+ FULL(t) */ '{ROW}'||COUNT(LENGTH(t.{column}))||'{END}' FROM {table} t WHERE ROWNUM <= 1");
    s.query(&sql, 1).map(|_| ())
}

/// Reads rows, at most so many; how many there were. The inner query is not merged away, for it counts its rows itself.
pub fn read_rows(s: &mut Session, table: &str, limit: u32) -> Result<u32, SessionError> {
    let inner = format!("SELECT /*+ FULL(t) */ 1 AS hit FROM {table} t WHERE ROWNUM <= {limit}");
    count(s, &format!("FROM ({inner})"))
}

/// The same with the column's own key. Nothing of the values leaves the server.
pub fn read_column_rows(s: &mut Session, table: &str, column: &str, limit: u32) -> Result<u32, SessionError> {
    let inner = format!("SELECT /*+ FULL(t) */ LENGTH(t.{column}) AS hit FROM {table} t WHERE ROWNUM <= {limit}");
    let (sql, row) = one(s, &["COUNT(*)", "COUNT(hit)"], &format!("FROM ({inner})"))?;
    number(&sql, &row[0])
}

/// A data file is in backup mode, as a copy taken between BEGIN and END BACKUP has it. From MOUNT on.
pub fn in_backup_mode(s: &mut Session) -> Result<bool, SessionError> {
    Ok(count(s, "FROM v$backup WHERE status = 'ACTIVE'")? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_not_known_are_refused() {
        assert_eq!(Version::parse("12.2.0.1.0"), Some(Version::V12_2));
        assert_eq!(Version::parse("19.0.0.0.0"), Some(Version::V19));
        for other in ["12.1.0.2.0", "11.2.0.4.0", "21.0.0.0.0", "23.4.0.24.05", "", "x"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }

    #[test]
    fn h20_values_that_mean_the_same_are_not_pending() {
        assert_eq!(same_value("1G"), same_value("1073741824"));
        assert_eq!(same_value("TRUE"), same_value("true"));
        assert_eq!(same_value("/a/b, /c/d"), same_value("/a/b,/c/d"));
        assert_ne!(same_value("300"), same_value("301"));
        assert_ne!(same_value("KEYSTORE_CONFIGURATION=HSM"), same_value("KEYSTORE_CONFIGURATION=FILE"));
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(timestamp("1970-01-01T00:00:10"), Some(Timestamp(10)));
        assert_eq!(timestamp(""), None);
    }
}
