//! What a person approved goes, and nothing else.

mod common;

use common::*;
use std::collections::BTreeSet;
use tde2hsm_dr::facts::*;
use tde2hsm_dr::points::{Judge, Point};
use tde2hsm_dr::retention::{Because, Item};
use tde2hsm_dr::secrets;
use tde2hsm_dr_driver::world::Asker;
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::{SecretVersion, SnapshotId, Timestamp};

async fn due(memory: &Memory, config: &DrConfig, now: Timestamp) -> Due {
    let mut asker = Asker::new(Job::ExpireCopies, now, config, memory);
    let world = asker.world().await.unwrap();
    let judge = Judge::new(&world.common);
    let points: Vec<Point> = world.hosts.iter().flat_map(|host| judge.host(host)).collect();
    Due::of(&world, &points, config)
}

async fn expire(memory: &Memory, expiry: Expiry, now: Timestamp) -> Outcome {
    run(Job::ExpireCopies, now, &DrConfig { expiry, ..config() }, memory, &Hint::Tick).await
}

/// A second copy of each of the first three sources, with the token of the first: spare ones, and ours by record.
fn spares(memory: &Memory, sources: std::ops::RangeInclusive<usize>) -> BTreeSet<SnapshotId> {
    let mut world = memory.world();
    let copies: Vec<Snapshot> = world.copies().into_iter().cloned().collect();
    let mut made = BTreeSet::new();
    for n in sources {
        let of = copies.iter().find(|copy| copy.tags[tag::SOURCE_SNAPSHOT] == snapshot_id(n).to_string()).unwrap();
        let id = snapshot_id(0x7000 + n);
        let key = format!("copies/{}.json", snapshot_id(n));
        let (body, etag, at) = world.objects[&key].clone();
        let mut record: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let token = format!("again-{n}");
        record["attempts"].as_array_mut().unwrap().push(serde_json::json!({"token": token, "at": of.started}));
        world.objects.insert(key, (serde_json::to_vec(&record).unwrap(), etag + 1_000_000, at));
        let mut spare = of.clone();
        spare.id = id.clone();
        spare.started = of.started.plus(60);
        spare.tags.insert(tag::TOKEN.to_owned(), token);
        world.snapshots.insert(id.clone(), spare);
        made.insert(id);
    }
    made
}

fn snapshots_of(due: &Due) -> BTreeSet<SnapshotId> {
    let id = |item: &Item| match item {
        Item::Snapshot { id, .. } => Some(id.clone()),
        _ => None,
    };
    due.delete.iter().filter_map(|deletion| id(&deletion.item)).collect()
}

/// Between the list and the answer to it more becomes due: a spare copy is seen that was not there.
#[tokio::test]
async fn h45_what_became_due_after_the_list_was_approved_waits_for_the_next_time() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let now = memory.world().now;
    let first = spares(&memory, 1..=2);
    let shown = due(&memory, &config(), now).await;
    assert_eq!(snapshots_of(&shown), first, "{shown:?}");
    let later = spares(&memory, 3..=3);
    assert!(snapshots_of(&due(&memory, &config(), now).await).is_superset(&later), "it is due now");
    let outcome = expire(&memory, Expiry::Approved(shown.approve()), now).await;
    assert_eq!((outcome.count("deleted"), outcome.count("newly-due")), (2, 1), "{outcome:?}");
    let there = |ids: &BTreeSet<SnapshotId>| ids.iter().filter(|id| memory.world().snapshots.contains_key(*id)).count();
    assert_eq!((there(&first), there(&later)), (0, 1), "nobody approved the later one");
    let outcome = expire(&memory, Expiry::Delete, now).await;
    assert_eq!(outcome.count("deleted"), 1, "{outcome:?}");
}

/// A copy that was approved as a spare one has become the only one: it is no longer due, and stays.
#[tokio::test]
async fn h45_what_is_no_longer_due_stays_although_it_was_approved() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let now = memory.world().now;
    let spare = spares(&memory, 1..=1);
    let shown = due(&memory, &config(), now).await;
    assert_eq!(snapshots_of(&shown), spare);
    memory.world().snapshots.retain(|id, copy| {
        copy.region == source() || spare.contains(id) || copy.tags[tag::SOURCE_SNAPSHOT] != snapshot_id(1).to_string()
    });
    let outcome = expire(&memory, Expiry::Approved(shown.approve()), now).await;
    assert_eq!(outcome.count("deleted"), 0, "{outcome:?}");
    assert!(spare.iter().all(|id| memory.world().snapshots.contains_key(id)));
    // Nor does leave for a spare copy stand for leave to let a point go.
    let mut approved = shown.approve();
    approved.deletions = approved.deletions.into_iter().map(|(item, _)| (item, Because::PointGoes)).collect();
    let again = spares(&memory, 2..=2);
    let due = due(&memory, &config(), now).await;
    assert_eq!(snapshots_of(&due), again);
    let outcome = expire(&memory, Expiry::Approved(approved), now).await;
    assert_eq!((outcome.count("deleted"), outcome.count("newly-due")), (0, 1), "{outcome:?}");
}

/// H42: what else a run lets go of is in the list, is said by a dry run, and is kept where it was not approved.
#[tokio::test]
async fn h42_a_secret_version_that_loses_its_stage_is_in_the_list_and_keeps_it_unless_that_was_approved() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let now = memory.world().now;
    let old = SecretVersion::new("00000000-0000-0000-0000-0000000000aa").unwrap();
    let stage = secrets::stage_of(&old);
    {
        let mut world = memory.world();
        let secret = world.secrets.get_mut(&source()).unwrap();
        secret.versions.push(SecretVersionFact {
            version: old.clone(),
            stages: BTreeSet::from([stage.clone()]),
            created: Some(START.plus(-40 * 86_400)),
        });
        // The last one before today's stays: what was made while its secret gave no answer may want it.
        let last = SecretVersion::new("00000000-0000-0000-0000-0000000000bb").unwrap();
        secret.versions.push(SecretVersionFact {
            stages: BTreeSet::from([secrets::stage_of(&last), secrets::PREVIOUS.to_owned()]),
            version: last,
            created: Some(START.plus(-20 * 86_400)),
        });
    }
    let has = |memory: &Memory| memory.world().secrets[&source()].versions.iter().any(|fact| fact.stages.contains(&stage));
    let shown = due(&memory, &config(), now).await;
    assert_eq!(shown.unstage, BTreeSet::from([(secret_arn(), old.clone())]));
    assert!(!shown.is_nothing());
    let dry = expire(&memory, Expiry::DryRun, now).await;
    assert_eq!(dry.count("would-let-go"), 1);
    assert!(dry.messages.iter().any(|message| message.text.contains(old.as_str())), "{dry:?}");
    let nothing = expire(&memory, Expiry::Approved(Approved::default()), now).await;
    assert_eq!(nothing.count("newly-due"), 1);
    assert!(has(&memory), "nobody approved it");
    let outcome = expire(&memory, Expiry::Approved(shown.approve()), now).await;
    assert_eq!(outcome.count("versions-let-go"), 1, "{outcome:?}");
    assert!(!has(&memory));
}

/// Somebody locked a copy that is due: it goes when the lock ends, and until then no run fails for it, nor writes anything.
#[tokio::test]
async fn h45_a_copy_under_a_lock_is_told_once_and_goes_when_the_lock_ends() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let now = memory.world().now;
    let locked = spares(&memory, 1..=1);
    memory.world().locked = locked.clone();
    let first = expire(&memory, Expiry::Delete, now).await;
    assert_eq!((first.failed, first.count("deleted"), first.count("kept-by-others")), (0, 0, 1), "{first:?}");
    let told = |outcome: &Outcome| outcome.messages.iter().filter(|message| message.text.contains("is locked")).count();
    assert_eq!(told(&first), 1, "{first:?}");
    memory.world().effects.clear();
    let second = expire(&memory, Expiry::Delete, now.plus(3_600)).await;
    assert_eq!((second.failed, second.count("kept-by-others"), told(&second)), (0, 1, 0), "{second:?}");
    assert_eq!(memory.world().effects, Vec::<String>::new());
    memory.world().locked.clear();
    assert_eq!(expire(&memory, Expiry::Delete, now.plus(7_200)).await.count("deleted"), 1);
    // A right that is missing is no lock.
    let forbidden = spares(&memory, 2..=2);
    memory.world().denied.insert("ec2:DeleteSnapshot".to_owned());
    let outcome = expire(&memory, Expiry::Delete, now.plus(7_200)).await;
    assert_eq!((outcome.failed, outcome.count("kept-by-others")), (1, 0), "{outcome:?}");
    assert!(forbidden.iter().all(|id| memory.world().snapshots.contains_key(id)));
}
