//! What the jobs survive: the end of the program at any call that changes something, and every kind of lost answer.

mod common;

use common::*;
use tde2hsm_dr::facts::*;
use tde2hsm_dr_driver::*;

/// Ticks in which everything is over: copies take less than two, a failed one is made again after its pause.
const TICKS: usize = 9;

/// Runs until the fuse blows, if it does; answers whether it did.
async fn until_blown(memory: &Memory, config: &DrConfig) -> bool {
    tokio::select! {
        biased;
        () = memory.blown.notified() => true,
        _ = memory.ticks(config, TICKS) => false,
    }
}

/// One copy of everything, all settled, and a fleet whose hosts were seen.
fn check(memory: &Memory, what: &str) {
    let world = memory.world();
    let sources: Vec<&Snapshot> = world.snapshots.values().filter(|s| s.region == source()).collect();
    assert_eq!(sources.len(), 4);
    for of in sources {
        let copies: Vec<_> =
            world.copies().into_iter().filter(|copy| copy.tags[tag::SOURCE_SNAPSHOT] == of.id.to_string()).collect();
        assert_eq!(copies.len(), 1, "{what}: `{}` was copied {} times", of.id, copies.len());
        assert_eq!(copies[0].state, SnapshotState::Completed, "{what}");
        let record = world.record(&format!("copies/{}.json", of.id));
        let token = &copies[0].tags[tag::TOKEN];
        assert_eq!(record["results"][token]["came"], "settled", "{what}: {record}");
        assert_eq!(record["results"][token]["copy"], copies[0].id.to_string(), "{what}");
    }
    let copies = world.hsm_copies();
    assert_eq!(copies.len(), 1, "{what}: the HSM backup was copied {} times", copies.len());
    assert_eq!(copies[0].state, BackupState::Ready, "{what}");
    let record = world.record(&format!("hsm-copies/{}.json", copies[0].source_backup.clone().unwrap()));
    assert_eq!(record["results"][&copies[0].tags[tag::TOKEN]]["came"], "settled", "{what}: {record}");
    let stage = format!("tde2hsm-{VERSION}");
    assert!(world.secrets[&source()].versions[0].stages.contains(&stage), "{what}: H42: the version of the backup's time stays");
    for host in 0..2 {
        let prefix = format!("inventories/{}/", instance(host));
        assert!(world.objects.keys().any(|key| key.starts_with(&prefix)), "{what}: {prefix} has no inventory");
    }
}

#[tokio::test]
async fn everything_is_copied_once_and_settled() {
    let memory = Memory::new();
    let outcomes = memory.ticks(&config(), TICKS).await;
    check(&memory, "nothing broken");
    for outcome in outcomes.values() {
        assert!(outcome.unasked.is_empty(), "{outcome:?}");
    }
    let before = memory.world().effects.len();
    memory.ticks(&config(), 4).await;
    let after: Vec<String> = memory.world().effects[before..].to_vec();
    let copies = after.iter().filter(|call| call.contains("Copy") || call.contains("Modify") || call.contains("Delete"));
    assert_eq!(copies.count(), 0, "a settled world is left alone: {after:?}");
}

/// The program ends before or after each call that changes something, or the call or its answer is lost; later runs bring
/// everything to the same end, and nothing is copied twice.
#[tokio::test]
async fn any_one_broken_call_costs_nothing_but_time() {
    let memory = Memory::new();
    memory.set_fuse(None);
    assert!(!until_blown(&memory, &config()).await);
    let points = memory.passed();
    assert!(points > 40, "only {points} calls change something: the test tests nothing");
    let mut tried = 0;
    for lag in [0, 240] {
        for how in [Break::Before, Break::After, Break::LostReply, Break::LostCall] {
            for point in 1..=points {
                let memory = Memory::new();
                memory.world().lag = lag;
                memory.set_fuse(Some((point, how)));
                let blown = until_blown(&memory, &config()).await;
                assert_eq!(blown, matches!(how, Break::Before | Break::After), "call {point}, {how:?}: not reached");
                memory.ticks(&config(), TICKS).await;
                check(&memory, &format!("call {point}, {how:?}, lists {lag} s behind"));
                tried += 1;
            }
        }
    }
    println!("brought {tried} runs with one broken call to their end: {points} calls, 4 ways, lists at once and 240 s behind");
}

/// A second break while the first is made good.
#[tokio::test]
async fn a_second_broken_call_is_made_good_too() {
    let mut tried = 0;
    for first in (1..60).step_by(9) {
        for second in (1..40).step_by(5) {
            for (one, two) in
                [(Break::After, Break::LostReply), (Break::LostReply, Break::Before), (Break::LostCall, Break::After)]
            {
                let memory = Memory::new();
                memory.world().lag = 120;
                memory.set_fuse(Some((first, one)));
                until_blown(&memory, &config()).await;
                memory.set_fuse(Some((second, two)));
                until_blown(&memory, &config()).await;
                memory.set_fuse(None);
                memory.ticks(&config(), TICKS).await;
                check(&memory, &format!("call {first} {one:?}, then {second} {two:?}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 150);
    println!("brought {tried} runs with two broken calls to their end");
}

/// Two runs of a job at the same second: one loses every conditional write, and nothing is done twice.
#[tokio::test]
async fn two_runs_at_the_same_time_copy_once() {
    for job in [Job::CopySnapshots, Job::CopyHsmBackups] {
        let memory = Memory::new();
        let config = config();
        let (a, b) = tokio::join!(run(job, START, &config, &memory, &Hint::Tick), run(job, START, &config, &memory, &Hint::Tick));
        let world = memory.world();
        assert!(world.copy_calls.values().chain(world.hsm_copy_calls.values()).all(|calls| *calls == 1), "{a:?} {b:?}");
        assert!(a.count("copies-begun") + b.count("copies-begun") > 0);
    }
}
