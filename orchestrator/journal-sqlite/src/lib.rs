//! The journal in one SQLite file: the default engine, for one operator on one machine.
//!
//! Safe because an append is one transaction with `synchronous=FULL`: when it has returned the entries are on the
//! disk, and when it has not none of them is. The primary key (campaign, seq) is a second lock beside the check of
//! the expected head: whatever two controllers do, one number is written once. The chain is verified from a
//! campaign's first entry at each read.

#![forbid(unsafe_code)]

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tde2hsm_journal::{Body, Entry, Head, Journal, JournalError, Listed, Seq, verify};
use tde2hsm_protocol::{CampaignId, Digest, Timestamp};

/// `tde2` in ASCII: marks the file as ours.
const APPLICATION_ID: i64 = 0x7464_6532;
/// Version of the tables; the entries have their own.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE entry (
    campaign   TEXT    NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq > 0),
    written_at INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    link       BLOB    NOT NULL CHECK (length(link) = 32),
    PRIMARY KEY (campaign, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE kept (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    text   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

#[derive(Debug, Clone)]
pub struct SqliteJournal {
    connection: Arc<Mutex<Connection>>,
}

fn storage(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> JournalError {
    move |source| JournalError::Storage { doing, source: Box::new(source) }
}

impl SqliteJournal {
    /// Opens the file, or makes it, readable for its owner alone.
    pub async fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
        let path = path.to_owned();
        blocking(move || {
            let connection = open(&path)?;
            Ok(SqliteJournal { connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// SQLite waits for the disk; the threads that drive the fleet must not.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, JournalError> + Send + 'static) -> Result<T, JournalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cause) => Err(JournalError::Storage { doing: "finish its work", source: Box::new(cause) }),
    }
}

fn open(path: &Path) -> Result<Connection, JournalError> {
    let io = |source: std::io::Error| JournalError::Storage { doing: "create its file", source: Box::new(source) };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io)?;
    }
    {
        // SQLite makes its files with the umask's mode; made here first, the file and its companions are the owner's.
        use std::os::unix::fs::OpenOptionsExt as _;
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    }
    let mut connection = Connection::open(path).map_err(storage("open its file"))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(storage("be configured"))?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(storage("be configured"))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(storage("be configured"))?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(storage("start a transaction"))?;
    let pragma = |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (application, version) =
        (pragma("application_id").map_err(storage("be read"))?, pragma("user_version").map_err(storage("be read"))?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(storage("be read"))?;
    if tables == 0 {
        transaction.execute_batch(SCHEMA).map_err(storage("make its tables"))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(storage("make its tables"))?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(storage("make its tables"))?;
    } else if application != APPLICATION_ID {
        return Err(JournalError::Broken { seq: 0, why: "the file is a database of another program".to_owned() });
    } else if version > SCHEMA_VERSION {
        return Err(JournalError::Newer { found: u32::try_from(version).unwrap_or(u32::MAX) });
    } else if version < SCHEMA_VERSION {
        return Err(JournalError::Older { found: u32::try_from(version).unwrap_or(0) });
    }
    transaction.commit().map_err(storage("make its tables"))?;
    Ok(connection)
}

fn head(connection: &Connection, campaign: &str) -> Result<Head, JournalError> {
    let found = connection
        .query_row("SELECT seq, link FROM entry WHERE campaign = ?1 ORDER BY seq DESC LIMIT 1", [campaign], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
        })
        .optional()
        .map_err(storage("be read"))?;
    Ok(found.map_or(Head::START, |(seq, link)| Head { seq: seq.unsigned_abs(), link: Digest::from_bytes(link) }))
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, campaign: &CampaignId, expected: Seq, at: Timestamp, bodies: &[Body]) -> Result<Head, JournalError> {
        let (campaign, bodies) = (campaign.clone(), bodies.to_vec());
        self.with(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(storage("start a transaction"))?;
            let mut at_head = head(&transaction, campaign.as_str())?;
            if at_head.seq != expected {
                return Err(JournalError::Conflict { campaign, expected, found: at_head.seq });
            }
            {
                let mut insert = transaction
                    .prepare_cached("INSERT INTO entry (campaign, seq, written_at, body, link) VALUES (?1, ?2, ?3, ?4, ?5)")
                    .map_err(storage("append"))?;
                for body in &bodies {
                    at_head = at_head.next(body);
                    let seq = i64::try_from(at_head.seq).expect("an entry number fits 63 bits");
                    insert
                        .execute(params![campaign.as_str(), seq, at.0, body.as_str(), at_head.link.as_bytes()])
                        .map_err(storage("append"))?;
                }
            }
            transaction.commit().map_err(storage("append"))?;
            Ok(at_head)
        })
        .await
    }

    async fn read(&self, campaign: &CampaignId, from: Seq) -> Result<Vec<Entry>, JournalError> {
        let campaign = campaign.clone();
        self.with(move |connection| {
            let mut select = connection
                .prepare_cached("SELECT seq, written_at, body, link FROM entry WHERE campaign = ?1 ORDER BY seq")
                .map_err(storage("be read"))?;
            let rows = select
                .query_map([campaign.as_str()], |row| {
                    Ok(Entry {
                        seq: row.get::<_, i64>(0)?.unsigned_abs(),
                        written_at: Timestamp(row.get(1)?),
                        body: Body::stored(row.get(2)?),
                        link: Digest::from_bytes(row.get(3)?),
                    })
                })
                .map_err(storage("be read"))?;
            let mut entries = rows.collect::<Result<Vec<_>, _>>().map_err(storage("be read"))?;
            verify(&entries)?;
            entries.retain(|entry| entry.seq >= from);
            Ok(entries)
        })
        .await
    }

    async fn head(&self, campaign: &CampaignId) -> Result<Head, JournalError> {
        let campaign = campaign.clone();
        self.with(move |connection| head(connection, campaign.as_str())).await
    }

    async fn keep(&self, digest: Digest, text: &str) -> Result<(), JournalError> {
        let text = text.to_owned();
        self.with(move |connection| {
            let insert = "INSERT INTO kept (digest, text) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            connection.execute(insert, params![digest.as_bytes(), text]).map_err(storage("append"))?;
            Ok(())
        })
        .await
    }

    async fn kept(&self, digest: Digest) -> Result<Option<String>, JournalError> {
        self.with(move |connection| {
            connection
                .query_row("SELECT text FROM kept WHERE digest = ?1", [digest.as_bytes()], |row| row.get(0))
                .optional()
                .map_err(storage("be read"))
        })
        .await
    }

    async fn campaigns(&self) -> Result<Vec<Listed>, JournalError> {
        self.with(|connection| {
            let mut select = connection
                .prepare_cached(
                    "SELECT campaign, min(written_at), max(written_at) FROM entry GROUP BY campaign ORDER BY 3 DESC, 1",
                )
                .map_err(storage("be read"))?;
            let rows = select
                .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
                .map_err(storage("be read"))?;
            let rows = rows.collect::<Result<Vec<_>, _>>().map_err(storage("be read"))?;
            rows.into_iter()
                .map(|(name, first, last)| {
                    let campaign =
                        CampaignId::new(name).map_err(|cause| JournalError::Broken { seq: 0, why: cause.to_string() })?;
                    let head = head(connection, campaign.as_str())?;
                    Ok(Listed { campaign, head, first_at: Timestamp(first), last_at: Timestamp(last) })
                })
                .collect()
        })
        .await
    }
}
