//! What a job does when a region does not answer, refuses, or is used by others as well.

mod common;

use common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tde2hsm_dr::facts::*;
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_dr::points::Ask;
use tde2hsm_dr_driver::world::Asker;
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::{Code, Severity, Timestamp};

fn metric(outcome: &Outcome, name: &str) -> Option<f64> {
    outcome.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
}

fn asked_of_source(memory: &Memory) -> Vec<String> {
    let world = memory.world();
    world.asked.iter().filter(|(region, _)| *region == source()).map(|(_, call)| call.clone()).collect()
}

/// Each question to a region that is lost costs as long as the first, and the audit is what must still be heard then.
#[tokio::test]
async fn a_lost_source_region_is_asked_one_question() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    memory.world().away.insert(source());
    for job in [Job::AuditRecovery, Job::ExpireCopies] {
        memory.world().asked.clear();
        let outcome = run(job, START.plus(5_400), &config(), &memory, &Hint::Tick).await;
        assert_eq!(asked_of_source(&memory), ["ec2:DescribeInstances"], "{job:?}");
        let [one] = outcome.unasked.as_slice() else { panic!("one line a region: {:?}", outcome.unasked) };
        assert!(one.why.contains("nothing more is asked"), "{one:?}");
    }
    let outcome = run(Job::AuditRecovery, START.plus(5_400), &config(), &memory, &Hint::Tick).await;
    assert!(metric(&outcome, "DatabasesBreached").is_some(), "{outcome:?}");
    assert_eq!(metric(&outcome, "Unasked"), Some(1.0));
}

/// A region that takes a question and never answers it: what the DR region has is said all the same.
#[tokio::test]
async fn a_source_region_that_hangs_is_not_waited_for() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    memory.world().hangs.insert(source());
    let config = config();
    let mut asker = Asker::new(Job::AuditRecovery, START.plus(5_400), &config, &memory).with_patience(Duration::from_millis(50));
    let world = tokio::time::timeout(Duration::from_secs(20), asker.world()).await.expect("it goes on").expect("records");
    assert!([Ask::SourceSnapshots, Ask::SourceBackups].iter().all(|ask| world.common.unasked.contains(ask)));
    assert!(!world.common.unasked.contains(&Ask::DrSnapshots));
    assert_eq!(asker.outcome.unasked.len(), 1, "{:?}", asker.outcome.unasked);
    assert_eq!(world.hosts.iter().flat_map(|host| &host.snapshots).filter(|copy| copy.region == dr()).count(), 4);
}

/// A second region with thousands of copies takes minutes to list them, and no minute of that is the source region's.
#[tokio::test]
async fn what_the_dr_region_takes_is_no_silence_of_the_source_region() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let (short, long) = (Duration::from_millis(20), Duration::from_millis(700));
    memory.world().takes_its_time = BTreeMap::from([(source(), short), (dr(), long)]);
    let config = config();
    let mut asker = Asker::new(Job::AuditRecovery, START.plus(5_400), &config, &memory).with_patience(Duration::from_millis(600));
    let world = asker.world().await.expect("records");
    assert!(asker.outcome.unasked.is_empty(), "{:?}", asker.outcome.unasked);
    assert!(!world.common.unasked.contains(&Ask::SourceBackups));
}

/// Answers that come, each in its time, are no silence; but a function has five minutes, and must say what it saw.
#[tokio::test]
async fn a_slow_source_region_has_its_time_for_each_question_and_a_bound_for_all() {
    let memory = Memory::new();
    memory.world().takes_its_time = BTreeMap::from([(source(), Duration::from_millis(240))]);
    let config = config();
    let mut asker = Asker::new(Job::AuditRecovery, START, &config, &memory).with_patience(Duration::from_millis(400));
    for n in 0..4 {
        assert!(asker.instances().await.is_some(), "question {n}");
    }
    // 1.2 s in all.
    for _ in 0..4 {
        asker.instances().await;
    }
    assert!(asked_of_source(&memory).len() <= 6);
    let [one] = asker.outcome.unasked.as_slice() else { panic!("{:?}", asker.outcome.unasked) };
    assert!(one.why.contains("used up"), "{one:?}");
}

/// With sets as often as runs there is always a young one, in some phases in every run.
#[tokio::test]
async fn h41_a_set_that_is_always_young_keeps_no_host_from_being_surveyed() {
    for (phase, apart) in [(30, 900), (299, 900), (301, 900), (450, 900), (599, 900), (30, 300)] {
        let memory = Memory::new();
        memory.tick(&config()).await;
        for _ in 0..24 {
            let at = memory.world().now;
            memory.pass(apart - phase % apart);
            let now = memory.world().now;
            memory.world().add_sets(now);
            memory.pass(phase % apart);
            memory.tick(&config()).await;
            assert_eq!(memory.world().now.since(at), apart);
        }
        let world = memory.world();
        let mut looks: Vec<Timestamp> = world
            .objects
            .keys()
            .filter_map(|key| store::parse_inventory_key(key))
            .filter(|(of, _)| *of == instance(0))
            .map(|(_, at)| at)
            .collect();
        looks.sort();
        let last = *looks.last().unwrap();
        assert!(world.now.since(last) <= 3 * 900, "{phase} {apart}: {looks:?}");
        assert!(looks.windows(2).all(|two| two[1].since(two[0]) <= 3 * 900), "{phase} {apart}: {looks:?}");
    }
}

/// An inventory grows old whatever sets come.
#[tokio::test]
async fn h41_an_old_inventory_is_followed_by_another_although_a_set_is_young() {
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    let orders = |memory: &Memory| memory.world().effects.iter().filter(|call| *call == "ssm:SendCommand").count();
    memory.world().snapshots.retain(|_, one| one.region == dr());
    memory.pass(6 * 3_600);
    {
        let mut world = memory.world();
        let now = world.now;
        world.add_sets(now.plus(-60));
    }
    let before = orders(&memory);
    memory.tick(&config()).await;
    assert_eq!(orders(&memory), before + 1);
}

/// Only hosts that are still the fleet's are waited for, and only while they can be asked.
#[tokio::test]
async fn a_survey_of_a_host_that_is_gone_is_not_under_way() {
    let memory = Memory::new();
    memory.world().silent = BTreeSet::from([instance(0), instance(1)]);
    let now = memory.world().now;
    let outcome = run(Job::CopySnapshots, now, &config(), &memory, &Hint::Tick).await;
    assert_eq!(outcome.count(survey::SURVEYS_OPEN), 2);
    memory.world().instances.pop();
    let outcome = run(Job::CopySnapshots, now.plus(60), &config(), &memory, &Hint::Tick).await;
    assert_eq!(outcome.count(survey::SURVEYS_OPEN), 1);
    memory.world().away.insert(source());
    let outcome = run(Job::CopySnapshots, now.plus(120), &config(), &memory, &Hint::Tick).await;
    assert_eq!(outcome.count(survey::SURVEYS_OPEN), 0);
}

/// A stopped host is no refusal of the region: the others are surveyed, and what is said is said of it.
#[tokio::test]
async fn a_host_without_an_agent_is_that_hosts_failure() {
    let memory = Memory::new();
    memory.world().unmanaged.insert(instance(1));
    let outcome = run(Job::CopySnapshots, START, &config(), &memory, &Hint::Tick).await;
    assert!(outcome.unasked.is_empty() && outcome.failed == 0, "{outcome:?}");
    assert!(!outcome.messages.iter().any(|message| message.severity == Severity::Error), "{outcome:?}");
    let said: Vec<&Message> = outcome.messages.iter().filter(|message| message.code == Code::HOST_UNSURVEYED).collect();
    assert!(said.len() == 1 && said[0].text.starts_with(instance(1).as_str()), "{said:?}");
    assert_eq!((outcome.count("survey-commands-sent"), outcome.count(survey::SURVEYS_OPEN)), (1, 1));
}

/// A verdict is about the DR region's secrets; the source region's are asked about where their stages are changed.
#[tokio::test]
async fn only_what_changes_secrets_asks_the_source_region_about_them() {
    for (job, asks) in [(Job::AuditRecovery, false), (Job::ExpireCopies, true)] {
        let memory = Memory::new();
        run(job, START, &config(), &memory, &Hint::Tick).await;
        let asked = asked_of_source(&memory).iter().any(|call| call == "secretsmanager:DescribeSecret");
        assert_eq!(asked, asks, "{job:?}");
    }
}

/// A function that is refused is one that does nothing, and no one sees that from its having ended well.
#[tokio::test]
async fn a_function_that_is_refused_says_so_by_a_metric_and_an_error() {
    for (job, call) in [
        (Job::CopySnapshots, "ec2:DescribeInstances"),
        (Job::CopySnapshots, "ec2:CopySnapshot"),
        (Job::CopySnapshots, "ssm:SendCommand"),
        (Job::CopyHsmBackups, "cloudhsmv2:CopyBackupToRegion"),
        (Job::CopyHsmBackups, "cloudhsmv2:ModifyBackupAttributes"),
        (Job::CopyHsmBackups, "secretsmanager:UpdateSecretVersionStage"),
        (Job::SettleCopies, "ec2:DescribeSnapshots"),
        (Job::ExpireCopies, "ec2:DeleteSnapshot"),
        (Job::AuditRecovery, "kms:DescribeKey"),
    ] {
        let memory = Memory::new();
        if job == Job::ExpireCopies {
            memory.ticks(&config(), 6).await;
            spare(&memory);
        }
        let now = memory.world().now;
        let well = run(job, now, &config(), &memory, &Hint::Tick).await;
        assert_eq!(metric(&well, "CallsFailed"), Some(0.0), "{job:?}: {well:?}");
        let memory = Memory::new();
        if job == Job::ExpireCopies {
            memory.ticks(&config(), 6).await;
            spare(&memory);
        }
        memory.world().denied.insert(call.to_owned());
        let now = memory.world().now;
        let outcome = run(job, now, &config(), &memory, &Hint::Tick).await;
        assert!(metric(&outcome, "CallsFailed") > Some(0.0), "{job:?} {call}: {outcome:?}");
        let failed = outcome.metrics.iter().find(|metric| metric.name == "CallsFailed").unwrap();
        assert_eq!(failed.dimensions, BTreeMap::from([("function".to_owned(), job.name().to_owned())]));
        let errors: Vec<&Message> = outcome.messages.iter().filter(|m| m.severity == Severity::Error).collect();
        assert!(errors.iter().any(|m| m.text.contains(call)), "{job:?} {call}: {:?}", outcome.messages);
    }
}

/// A second copy of the first source, ours by record.
fn spare(memory: &Memory) {
    let mut world = memory.world();
    let of = world.copies()[0].clone();
    let from = of.tags[tag::SOURCE_SNAPSHOT].clone();
    let key = format!("copies/{from}.json");
    let (body, etag, at) = world.objects[&key].clone();
    let mut record: serde_json::Value = serde_json::from_slice(&body).unwrap();
    record["attempts"].as_array_mut().unwrap().push(serde_json::json!({"token": "again", "at": of.started}));
    world.objects.insert(key, (serde_json::to_vec(&record).unwrap(), etag + 1_000_000, at));
    let mut second = Snapshot { id: snapshot_id(0x7001), ..of };
    second.tags.insert(tag::TOKEN.to_owned(), "again".to_owned());
    world.snapshots.insert(second.id.clone(), second);
}

/// The limit is the account's, not ours: whatever else is being copied takes places as well.
#[tokio::test]
async fn copies_of_others_take_places_too() {
    let memory = Memory::new();
    {
        let mut world = memory.world();
        let of = world.snapshots[&snapshot_id(1)].clone();
        for n in 0..18 {
            let copy = Snapshot {
                id: snapshot_id(0x6000 + n),
                region: dr(),
                volume: None,
                state: SnapshotState::Pending,
                started: START,
                tags: BTreeMap::from([(tag::SOURCE_SNAPSHOT.to_owned(), snapshot_id(0x5000 + n).to_string())]),
                ..of.clone()
            };
            world.snapshots.insert(copy.id.clone(), copy);
        }
    }
    let outcome = run(Job::CopySnapshots, START, &config(), &memory, &Hint::Tick).await;
    assert_eq!(metric(&outcome, "CopiesInFlight"), Some(18.0));
    assert_eq!(outcome.count("copies-begun"), 2, "{outcome:?}");
    assert!(!outcome.messages.iter().any(|message| message.code == Code::COPIES_QUEUE), "the wall is not run into");
    assert_eq!(metric(&outcome, "CopiesWaiting"), Some(2.0));
}

/// A version that finds no place among the twenty stages of its secret is one that AWS may remove.
#[tokio::test]
async fn h42_a_version_that_cannot_be_pinned_is_measured() {
    let memory = Memory::new();
    let unkept = |outcome: &Outcome| metric(outcome, "VersionsUnkept");
    memory.world().denied = BTreeSet::from(["secretsmanager:UpdateSecretVersionStage".to_owned()]);
    let outcome = run(Job::CopyHsmBackups, START, &config(), &memory, &Hint::Tick).await;
    assert_eq!(unkept(&outcome), Some(1.0));
    memory.world().denied.clear();
    let outcome = run(Job::CopyHsmBackups, START, &config(), &memory, &Hint::Tick).await;
    assert_eq!(unkept(&outcome), Some(0.0));
}

fn keep(memory: &Memory, key: String, body: Vec<u8>) {
    let mut world = memory.world();
    let at = world.now;
    world.objects.insert(key, (body, 0, at));
}

/// Of a host without databases.
fn look(host: usize, taken_at: Timestamp) -> Inventory {
    Inventory {
        v: 1,
        instance: instance(host),
        taken_at,
        received_at: taken_at,
        ordered_at: None,
        provider: None,
        databases: vec![],
        files: vec![],
        unreadable: vec![],
    }
}

/// What an inventory would have said is not known, so nothing goes that one might lean on.
#[tokio::test]
async fn h45_an_inventory_that_cannot_be_read_keeps_everything() {
    for unreadable in [false, true] {
        let memory = Memory::new();
        memory.ticks(&config(), 6).await;
        let old = look(1, START.plus(-30 * 86_400));
        keep(&memory, store::inventory_key(&old.instance, old.taken_at), serde_json::to_vec(&old).unwrap());
        if unreadable {
            keep(&memory, format!("inventories/{}/0123456789.json", instance(0)), b"{".to_vec());
        }
        let now = memory.world().now;
        let outcome = run(Job::ExpireCopies, now, &config(), &memory, &Hint::Tick).await;
        let said = outcome.messages.iter().any(|message| message.code == Code::RECORD_INVALID);
        assert_eq!((said, outcome.count("deleted")), (unreadable, u64::from(!unreadable)), "{outcome:?}");
    }
}

/// A host without a look has no database that anybody knows, so none of its breaches is seen: the host itself is told of.
#[tokio::test]
async fn a_host_that_was_never_surveyed_is_told_once() {
    let memory = Memory::new();
    let config = DrConfig { document: None, ..config() };
    let audit = |memory: Memory| async {
        let now = memory.world().now;
        let outcome = run(Job::AuditRecovery, now, &config, &memory, &Hint::Tick).await;
        memory.pass(900);
        (memory, outcome)
    };
    let told = |memory: &Memory, what: &str| {
        let world = memory.world();
        world.published.iter().filter(|(subject, text)| subject.contains(what) && text.contains(instance(1).as_str())).count()
    };
    let mut memory = memory;
    for _ in 0..8 {
        let (m, outcome) = audit(memory).await;
        memory = m;
        assert_eq!((metric(&outcome, "InstancesSeen"), metric(&outcome, "HostsUnseen")), (Some(2.0), Some(2.0)));
    }
    assert_eq!(told(&memory, "host without"), 0, "one that just came is surveyed soon");
    for _ in 0..12 {
        memory = audit(memory).await.0;
    }
    assert_eq!((told(&memory, "host without"), told(&memory, "host has")), (1, 0), "{:?}", memory.world().published);
    let taken_at = memory.world().now;
    let look = look(1, taken_at);
    keep(&memory, store::inventory_key(&instance(1), taken_at), serde_json::to_vec(&look).unwrap());
    for _ in 0..4 {
        memory = audit(memory).await.0;
    }
    assert_eq!((told(&memory, "host without"), told(&memory, "host has")), (1, 1), "{:?}", memory.world().published);
    memory.world().instances.clear();
    let (_, outcome) = audit(memory).await;
    assert_eq!((metric(&outcome, "InstancesSeen"), metric(&outcome, "HostsUnseen")), (Some(0.0), Some(0.0)));
}

/// H45: while copies are refused, backups go on being made. Each of them is copied afterwards, for a key that was in the HSM then may
/// be in none that is newer, and none is left to the cluster's purge meanwhile.
#[tokio::test]
async fn h45_a_backup_that_was_missed_is_copied_although_a_newer_one_is() {
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    memory.world().denied.insert("cloudhsmv2:CopyBackupToRegion".to_owned());
    let mut made = Vec::new();
    for _ in 0..3 {
        memory.pass(86_400);
        let now = memory.world().now;
        made.push(memory.world().add_backup(now));
        memory.ticks(&config(), 2).await;
    }
    assert!(made.iter().all(|id| memory.world().backups[id].never_expires == Some(true)), "held meanwhile");
    memory.world().denied.clear();
    memory.ticks(&config(), 20).await;
    let world = memory.world();
    for id in &made {
        let copies = world.backups.values().filter(|one| one.source_backup.as_ref() == Some(id));
        assert_eq!(copies.map(|copy| copy.state).collect::<Vec<_>>(), [BackupState::Ready], "{id}");
        assert_eq!(world.backups[id].never_expires, Some(false), "given back");
    }
}
