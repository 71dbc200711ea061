//! What a campaign relies on, on a real file.

use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt as _;
use tde2hsm_journal::{Body, Head, Journal, JournalError, MemoryJournal};
use tde2hsm_journal_sqlite::SqliteJournal;
use tde2hsm_protocol::{CampaignId, Digest, Timestamp};

fn campaign(name: &str) -> CampaignId {
    CampaignId::new(name).unwrap()
}

fn bodies(texts: &[&str]) -> Vec<Body> {
    texts.iter().map(Body::of).collect()
}

async fn filled(path: &std::path::Path) -> SqliteJournal {
    let journal = SqliteJournal::open(path).await.unwrap();
    let head = journal.append(&campaign("one"), 0, Timestamp(10), &bodies(&["a", "b"])).await.unwrap();
    journal.append(&campaign("one"), head.seq, Timestamp(20), &bodies(&["c"])).await.unwrap();
    journal.append(&campaign("two"), 0, Timestamp(15), &bodies(&["x"])).await.unwrap();
    journal
}

#[tokio::test]
async fn several_campaigns_live_in_one_file_and_survive_it_being_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/journal.db");
    let journal = filled(&path).await;
    let head = journal.head(&campaign("one")).await.unwrap();
    drop(journal);
    let journal = SqliteJournal::open(&path).await.unwrap();
    let entries = journal.read(&campaign("one"), 2).await.unwrap();
    assert_eq!(entries.iter().map(|e| e.event::<String>().unwrap()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(journal.head(&campaign("one")).await.unwrap(), head);
    assert_eq!(journal.head(&campaign("none")).await.unwrap(), Head::START);
    let listed = journal.campaigns().await.unwrap();
    assert_eq!(listed.iter().map(|l| (l.campaign.as_str(), l.head.seq)).collect::<Vec<_>>(), [("one", 3), ("two", 1)]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn of_two_controllers_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let first = filled(&path).await;
    let second = SqliteJournal::open(&path).await.unwrap();
    second.append(&campaign("one"), 3, Timestamp(30), &bodies(&["theirs"])).await.unwrap();
    let refused = first.append(&campaign("one"), 3, Timestamp(30), &bodies(&["ours", "also"])).await.unwrap_err();
    assert!(matches!(refused, JournalError::Conflict { expected: 3, found: 4, .. }), "{refused}");
    assert_eq!(first.head(&campaign("one")).await.unwrap().seq, 4, "none of the refused entries is there");
}

/// Every single change to the stored rows that a person could make by hand is seen (TDE0701).
#[tokio::test]
async fn h38_a_changed_or_missing_entry_is_seen() {
    let changes = [
        "UPDATE entry SET body = replace(body, 'a', 'z') WHERE campaign = 'one' AND seq = 1",
        "UPDATE entry SET body = replace(body, 'c', 'z') WHERE campaign = 'one' AND seq = 3",
        "UPDATE entry SET link = zeroblob(32) WHERE campaign = 'one' AND seq = 2",
        "DELETE FROM entry WHERE campaign = 'one' AND seq = 1",
        "DELETE FROM entry WHERE campaign = 'one' AND seq = 2",
        "UPDATE entry SET seq = seq + 1 WHERE campaign = 'one' AND seq = 3",
    ];
    for change in changes {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let journal = filled(&path).await;
        assert_eq!(Connection::open(&path).unwrap().execute(change, []).unwrap(), 1, "{change}");
        let seen = journal.read(&campaign("one"), 3).await.unwrap_err();
        assert!(matches!(seen, JournalError::Broken { .. }), "{change}: {seen}");
        assert!(journal.read(&campaign("two"), 0).await.is_ok(), "another campaign is not touched by it");
    }
}

#[tokio::test]
async fn a_file_of_another_version_or_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    drop(filled(&path).await);
    let set = |name: &str, value: i64| Connection::open(&path).unwrap().pragma_update(None, name, value).unwrap();
    set("user_version", 2);
    assert!(matches!(SqliteJournal::open(&path).await.unwrap_err(), JournalError::Newer { found: 2 }));
    set("user_version", 0);
    assert!(matches!(SqliteJournal::open(&path).await.unwrap_err(), JournalError::Older { found: 0 }));
    set("user_version", 1);
    set("application_id", 1);
    assert!(matches!(SqliteJournal::open(&path).await.unwrap_err(), JournalError::Broken { .. }));
    std::fs::write(&path, b"not a database, only text, long enough to be looked at").unwrap();
    assert!(matches!(SqliteJournal::open(&path).await.unwrap_err(), JournalError::Storage { .. }));
}

/// The journal in memory, which tests of the driver rely on, keeps the same promises.
#[tokio::test]
async fn memory_and_file_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteJournal::open(&dir.path().join("journal.db")).await.unwrap();
    let memory = MemoryJournal::default();
    let one = campaign("one");
    for journal in [&file as &dyn Journal, &memory] {
        assert_eq!(journal.append(&one, 0, Timestamp(1), &bodies(&["a"])).await.unwrap().seq, 1);
        journal.keep(Digest::of(b"plan"), "a plan").await.unwrap();
        journal.keep(Digest::of(b"plan"), "a plan").await.unwrap();
        assert_eq!(journal.kept(Digest::of(b"plan")).await.unwrap().as_deref(), Some("a plan"));
        assert_eq!(journal.kept(Digest::ZERO).await.unwrap(), None);
        assert!(matches!(
            journal.append(&one, 0, Timestamp(1), &bodies(&["b"])).await,
            Err(JournalError::Conflict { expected: 0, found: 1, .. })
        ));
    }
    assert_eq!(file.head(&one).await.unwrap(), memory.head(&one).await.unwrap());
    assert_eq!(file.read(&one, 0).await.unwrap(), memory.read(&one, 0).await.unwrap());
    assert_eq!(file.campaigns().await.unwrap(), memory.campaigns().await.unwrap());
}

/// H32: the file was deleted under a program that died. What it had not yet moved out of its write-ahead log must not
/// come back as part of a new journal.
#[tokio::test]
async fn h32_a_deleted_file_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    std::mem::forget(filled(&path).await);
    assert!(dir.path().join("journal.db-wal").exists(), "the test needs a log that was left behind");
    std::fs::remove_file(&path).unwrap();
    let journal = SqliteJournal::open(&path).await.unwrap();
    assert_eq!(journal.campaigns().await.unwrap(), []);
    journal.append(&campaign("one"), 0, Timestamp(1), &bodies(&["new"])).await.unwrap();
    assert_eq!(journal.read(&campaign("one"), 0).await.unwrap().len(), 1);
}
