//! What AWS refuses is asked for less and less, is told all the while, and is made soon after it was mended.

mod common;

use common::*;
use std::collections::BTreeSet;
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::{Code, KmsKeyArn, Severity};

const COPY: &str = "ec2:CopySnapshot";
const COPY_HSM: &str = "cloudhsmv2:CopyBackupToRegion";

fn asked(memory: &Memory, call: &str) -> usize {
    memory.world().asked.iter().filter(|(_, one)| one == call).count()
}

/// Snapshots and HSM backups.
fn copied(memory: &Memory) -> (usize, usize) {
    let world = memory.world();
    (world.copies().len(), world.hsm_copies().len())
}

fn refusing() -> Memory {
    let memory = Memory::new();
    memory.world().denied = BTreeSet::from([COPY.to_owned(), COPY_HSM.to_owned()]);
    memory
}

/// Two days of ticks. Of each run an alarm on calls that fail must hear, whether it asked or waited.
#[tokio::test]
async fn what_is_refused_is_asked_for_less_and_less_and_told_in_every_run() {
    let memory = refusing();
    for tick in 0..2 * 96 {
        let outcomes = memory.ticks(&config(), 1).await;
        for (job, calls) in [(Job::CopySnapshots, 4), (Job::CopyHsmBackups, 1)] {
            let outcome = &outcomes[&job];
            assert!(outcome.failed >= calls, "{tick}: {outcome:?}");
            let told = outcome.messages.iter().filter(|m| m.code == Code::COPY_REFUSED && m.severity == Severity::Error);
            assert_eq!(told.count() as u64, calls, "{tick}: {outcome:?}");
            let waiting = if job == Job::CopySnapshots { "CopiesWaiting" } else { "HsmCopiesWaiting" };
            let waiting = outcome.metrics.iter().find(|metric| metric.name == waiting).unwrap().value;
            assert!(outcome.count("copies-paused") as f64 <= waiting, "{tick}: {outcome:?}");
        }
    }
    // At once, after 45 and 90 minutes, then every three hours.
    assert_eq!((asked(&memory, COPY), asked(&memory, COPY_HSM)), (4 * 18, 18));
}

/// Whenever it is mended, the copies are there three hours and a tick later.
#[tokio::test]
async fn what_was_mended_is_found_within_three_hours() {
    for ticks in [1, 2, 4, 13, 100] {
        let memory = refusing();
        memory.ticks(&config(), ticks).await;
        memory.world().denied.clear();
        memory.ticks(&config(), 12 + 1).await;
        assert_eq!(copied(&memory), (4, 1), "{ticks}");
        let record = memory.world().record(&format!("copies/{}.json", snapshot_id(1)));
        assert_eq!(record["refused"], serde_json::Value::Null, "{record}");
    }
}

#[tokio::test]
async fn somebody_who_asks_is_not_kept_waiting_and_another_kms_key_is_another_question() {
    let memory = refusing();
    memory.ticks(&config(), 20).await;
    memory.world().denied.clear();
    let now = memory.world().now;
    for job in [Job::CopySnapshots, Job::CopyHsmBackups] {
        let outcome = run(job, now, &config(), &memory, &Hint::Tick).await;
        assert_eq!((outcome.count("copies-begun"), outcome.count("copies-refused")), (0, 0), "{outcome:?}");
        let outcome = run(job, now, &config(), &memory, &Hint::Person).await;
        assert!(outcome.count("copies-begun") > 0, "{outcome:?}");
    }
    let memory = refusing();
    memory.ticks(&config(), 20).await;
    memory.world().denied.clear();
    let kms_key = KmsKeyArn::new(key().to_string().replace("89ab", "89ac")).unwrap();
    let now = memory.world().now;
    let outcome = run(Job::CopySnapshots, now, &DrConfig { kms_key, ..config() }, &memory, &Hint::Tick).await;
    assert_eq!(outcome.count("copies-begun"), 4, "{outcome:?}");
}

/// A full region refuses nothing: what finds no place is asked for at the next run, as it always was.
#[tokio::test]
async fn a_full_region_pauses_nobody() {
    let memory = Memory::new();
    memory.world().places = 0;
    memory.ticks(&config(), 3).await;
    assert_eq!(memory.world().effects.iter().filter(|call| *call == COPY).count(), 3);
    memory.world().places = 20;
    memory.tick(&config()).await;
    assert_eq!(memory.world().copies().len(), 4);
}
