//! Copies bought by their deadline, and the RPO that can be kept.

mod common;

use common::*;
use tde2hsm_dr::copying::Timed;
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::Code;

fn timed(throughput: u32) -> DrConfig {
    DrConfig { timed: Timed::ByDeadline { throughput }, ..config() }
}

fn records_show_one_attempt_each(memory: &Memory) {
    let world = memory.world();
    assert_eq!(world.copy_calls.len(), 4);
    assert!(world.copy_calls.values().all(|calls| *calls == 1), "{:?}", world.copy_calls);
    for n in 1..=4 {
        let record = world.record(&format!("copies/{}.json", snapshot_id(n)));
        assert_eq!(record["attempts"].as_array().unwrap().len(), 1, "{record}");
    }
}

#[tokio::test]
async fn a_copy_is_asked_for_by_its_deadline_only_where_a_throughput_is_named() {
    let memory = Memory::new();
    memory.tick(&config()).await;
    assert!(memory.world().minutes.values().all(Option::is_none), "it costs money");

    let memory = Memory::new();
    let outcomes = memory.tick(&timed(2_000)).await;
    assert_eq!(outcomes[&Job::CopySnapshots].count("copies-timed"), 4);
    // The set is an hour old, and the RPO a day: 23 hours are left.
    assert!(memory.world().minutes.values().all(|minutes| *minutes == Some(23 * 60)), "{:?}", memory.world().minutes);
}

/// 8 and 9 GiB in a quarter of an hour, the RPO broken long ago: 10 and 11 MiB/s each. The copies that are in flight are counted,
/// those of this run and those of the runs before.
#[tokio::test]
async fn what_is_in_flight_is_taken_from_the_throughput() {
    let memory = Memory::new();
    let late = DrConfig { rpo_minutes: 30, ..timed(30) };
    memory.tick(&late).await;
    let bought = |memory: &Memory| memory.world().minutes.values().filter(|minutes| minutes.is_some()).count();
    assert_eq!((bought(&memory), memory.world().minutes.len()), (2, 4));
    memory.world().takes = 86_400;
    let now = memory.world().now;
    memory.world().add_sets(now);
    memory.pass(60);
    memory.tick(&late).await;
    assert_eq!((bought(&memory), memory.world().minutes.len()), (2, 8), "nothing was left");
}

/// Which word AWS has for it is not known: whatever it is, the copy is made, once.
#[tokio::test]
async fn a_copy_whose_throughput_is_refused_is_made_without_a_time() {
    for code in ["SnapshotCopyThroughputExceeded", "ResourceLimitExceeded", "InvalidParameterValue"] {
        let memory = Memory::new();
        memory.world().throughput = Some(code);
        let outcomes = memory.ticks(&timed(2_000), 4).await;
        records_show_one_attempt_each(&memory);
        assert!(memory.world().minutes.values().all(Option::is_none));
        assert_eq!(outcomes[&Job::CopySnapshots].count("copies-refused"), 0, "{code}");
    }
    // Too many requests are no reason to send one more.
    let memory = Memory::new();
    memory.world().throughput = Some("RequestLimitExceeded");
    memory.tick(&timed(2_000)).await;
    assert!(memory.world().copy_calls.is_empty());
}

#[tokio::test]
async fn the_audit_says_when_the_rpo_that_is_asked_for_cannot_be_kept() {
    let memory = Memory::new();
    // Sets every four hours, and copies that take twenty minutes.
    for hours in [9, 5] {
        memory.world().add_sets(START.plus(-hours * 3_600));
    }
    memory.ticks(&config(), 8).await;
    let audit = |rpo_minutes: u32| {
        let config = DrConfig { rpo_minutes, ..config() };
        let memory = &memory;
        let now = memory.world().now;
        async move { run(Job::AuditRecovery, now, &config, memory, &Hint::Tick).await }
    };
    let said = |outcome: &Outcome| outcome.messages.iter().find(|message| message.code == Code::RPO_NOT_FEASIBLE).cloned();
    let wide = audit(480).await;
    assert_eq!(said(&wide), None);
    let metric = wide.metrics.iter().find(|metric| metric.name == "FeasibleRecoveryPointAge").unwrap();
    assert!((4.0..5.5).contains(&(metric.value / 3_600.0)), "{metric:?}");
    let narrow = said(&audit(200).await).unwrap();
    assert!(
        narrow.text.contains("an RPO of 200 min cannot be kept") && narrow.text.contains("how often sets are taken"),
        "{narrow:?}"
    );
}

/// A queue that is full is no trouble with the time that was asked for, and is told as what it is.
#[tokio::test]
async fn a_timed_copy_that_finds_no_place_queues_without_a_warning() {
    let memory = Memory::new();
    memory.world().places = 1;
    let outcomes = memory.tick(&timed(2_000)).await;
    let copying = &outcomes[&Job::CopySnapshots];
    assert_eq!(memory.world().copies().len(), 1);
    let said = |code: Code| copying.messages.iter().filter(|message| message.code == code).count();
    assert_eq!((said(Code::COPY_REFUSED), said(Code::COPIES_QUEUE)), (0, 1), "{copying:?}");
}
