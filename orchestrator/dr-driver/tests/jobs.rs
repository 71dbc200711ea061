//! What each job does when the world is not as it should be.

mod common;

use common::*;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::*;
use tde2hsm_dr::inventory::{DatabaseInventory, Inventory, KeystoreFacts};
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::{Code, InstanceId, Sid, SnapshotId, Timestamp};

fn said(outcome: &Outcome, code: Code) -> usize {
    outcome.messages.iter().filter(|message| message.code == code).count()
}

/// A copy as someone else would make it: with our tags, and never called for by us.
fn plant(memory: &Memory, n: usize, of: &SnapshotId, token: &str) -> SnapshotId {
    let mut world = memory.world();
    let id = snapshot_id(0x9000 + n);
    let mut copy = world.snapshots[of].clone();
    copy.id = id.clone();
    copy.region = dr();
    copy.volume = None;
    copy.started = world.now;
    copy.tags = BTreeMap::from([
        (tag::FLEET.to_owned(), "demo".to_owned()),
        (tag::SOURCE_SNAPSHOT.to_owned(), of.to_string()),
        (tag::TOKEN.to_owned(), token.to_owned()),
    ]);
    world.snapshots.insert(id.clone(), copy);
    id
}

fn empty_inventory() -> Inventory {
    Inventory {
        v: 1,
        instance: instance(0),
        taken_at: START.plus(-600),
        received_at: START.plus(-600),
        ordered_at: None,
        provider: None,
        databases: vec![],
        files: vec![],
        unreadable: vec![],
    }
}

/// An inventory with one database that no set can open: nothing is known of its files.
fn with_database(memory: &Memory) {
    let mut world = memory.world();
    let inventory = Inventory {
        databases: vec![DatabaseInventory {
            sid: Sid::new("ORCL").unwrap(),
            dbid: Some(1),
            needs: vec![],
            known: vec![],
            blind: BTreeSet::new(),
            files: vec![],
            keystore: KeystoreFacts::default(),
            unreadable: vec![],
        }],
        ..empty_inventory()
    };
    let key = store::inventory_key(&inventory.instance, inventory.taken_at);
    let body = serde_json::to_vec(&inventory).unwrap();
    let at = world.now;
    world.objects.insert(key, (body, 0, at));
}

#[tokio::test]
async fn a_full_region_queues_and_never_fails() {
    let memory = Memory::new();
    memory.world().places = 1;
    let mut queued = 0;
    for _ in 0..14 {
        let outcomes = memory.tick(&config()).await;
        let copying = &outcomes[&Job::CopySnapshots];
        queued += said(copying, Code::COPIES_QUEUE);
        assert_eq!(said(copying, Code::COPY_REFUSED), 0, "{copying:?}");
        assert_eq!(outcomes[&Job::SettleCopies].count("copies-failed"), 0);
        memory.pass(900);
    }
    let world = memory.world();
    assert!(queued > 0);
    assert_eq!(world.copies().len(), 4);
    assert!(world.copy_calls.values().all(|calls| *calls == 1), "{:?}", world.copy_calls);
    for n in 1..=4 {
        let record = world.record(&format!("copies/{}.json", snapshot_id(n)));
        assert_eq!(record["attempts"].as_array().unwrap().len(), 1, "a refused call is no attempt: {record}");
    }
}

/// Whoever goes first and is refused leaves its places to others, in the same run.
#[tokio::test]
async fn copies_that_are_refused_keep_no_other_host_waiting() {
    let config = DrConfig { copies_in_flight: 2, ..config() };
    for refused in [[1, 2], [3, 4]] {
        let memory = Memory::new();
        memory.world().forbidden = refused.map(snapshot_id).into();
        memory.tick(&config).await;
        let world = memory.world();
        assert_eq!(world.copy_calls.len(), 2, "{refused:?}: {:?}", world.copy_calls);
    }
}

#[tokio::test]
async fn a_failed_copy_is_told_once_and_made_again() {
    let memory = Memory::new();
    memory.world().fails.insert(snapshot_id(1), 1);
    memory.ticks(&config(), 12).await;
    let world = memory.world();
    assert_eq!(world.copy_calls[&snapshot_id(1)], 2);
    assert_eq!(world.copy_calls[&snapshot_id(2)], 1);
    let told: Vec<_> = world.published.iter().filter(|(_, text)| text.contains("TDE0847")).collect();
    assert_eq!(told.len(), 1, "{:?}", world.published);
    assert!(told[0].1.contains("Given key ID is not accessible"), "AWS's own words: {}", told[0].1);
    let record = world.record(&format!("copies/{}.json", snapshot_id(1)));
    let came: Vec<&str> = record["results"].as_object().unwrap().values().map(|r| r["came"].as_str().unwrap()).collect();
    assert!(came.contains(&"settled"), "{record}");
}

#[tokio::test]
async fn what_fails_for_ever_is_tried_less_and_less() {
    let memory = Memory::new();
    memory.world().fails.insert(snapshot_id(1), u32::MAX);
    memory.ticks(&config(), 4 * 48).await;
    let calls = memory.world().copy_calls[&snapshot_id(1)];
    assert!((6..=16).contains(&calls), "{calls} calls in two days");
}

/// A copy that vanishes is told, and made again while its source is there.
#[tokio::test]
async fn a_copy_that_someone_deleted_is_told_and_made_again() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let gone = {
        let mut world = memory.world();
        let id = world.copies()[0].id.clone();
        world.snapshots.remove(&id);
        id
    };
    memory.ticks(&config(), 6).await;
    let world = memory.world();
    assert_eq!(world.copies().len(), 4);
    let told: Vec<_> = world.published.iter().filter(|(_, text)| text.contains(&gone.to_string())).collect();
    assert_eq!(told.len(), 1, "{:?}", world.published);
    assert!(told[0].1.contains("TDE0848"));
}

#[tokio::test]
async fn h37_what_only_claims_to_be_ours_is_told_and_never_deleted() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let token = memory.world().copies()[0].tags[tag::TOKEN].clone();
    let of = SnapshotId::new(memory.world().copies()[0].tags[tag::SOURCE_SNAPSHOT].clone()).unwrap();
    let stolen = plant(&memory, 1, &of, &token);
    let unknown = plant(&memory, 2, &of, "0123456789abcdef0123456789abcdef");
    let outcomes = memory.ticks(&config(), 3).await;
    for id in [&stolen, &unknown] {
        let named =
            outcomes[&Job::SettleCopies].messages.iter().any(|m| m.code == Code::COPY_CLAIMED && m.text.contains(id.as_str()));
        assert!(named, "{id}: {:?}", outcomes[&Job::SettleCopies].messages);
    }
    let world = memory.world();
    assert!(world.snapshots.contains_key(&stolen) && world.snapshots.contains_key(&unknown));
    assert!(!world.effects.iter().any(|call| call == "ec2:DeleteSnapshot"), "not theirs, and not ours because of them");
}

#[tokio::test]
async fn h37_an_event_of_a_strangers_snapshot_starts_nothing() {
    let memory = Memory::new();
    let config = config();
    {
        let mut world = memory.world();
        let mut foreign = world.snapshots[&snapshot_id(1)].clone();
        foreign.id = snapshot_id(0x8000);
        foreign.volume = Some(volume(7, 7));
        world.snapshots.insert(foreign.id.clone(), foreign);
    }
    for id in [snapshot_id(0x8000), snapshot_id(0x8001)] {
        let hint = Hint::Snapshots(BTreeSet::from([id]));
        for job in [Job::CopySnapshots, Job::SettleCopies] {
            let outcome = run(job, START, &config, &memory, &hint).await;
            assert_eq!(outcome.count("hints-foreign"), 1, "{outcome:?}");
        }
    }
    assert!(memory.world().effects.is_empty());
    // One of ours is as good as a tick: it begins every copy that is due.
    let hint = Hint::Snapshots(BTreeSet::from([snapshot_id(1)]));
    let outcome = run(Job::CopySnapshots, START, &config, &memory, &hint).await;
    assert_eq!(outcome.count("copies-begun"), 4, "{outcome:?}");
}

/// A→B→A: what carries the mark of a copy is never copied on, whoever put it there.
#[tokio::test]
async fn a_copy_is_never_copied_on() {
    let memory = Memory::new();
    {
        let mut world = memory.world();
        for snapshot in world.snapshots.values_mut() {
            snapshot.tags.insert(tag::SOURCE_REGION.to_owned(), "eu-west-1".to_owned());
        }
    }
    memory.ticks(&config(), 3).await;
    assert!(memory.world().copies().is_empty());
}

#[tokio::test]
async fn with_the_source_region_gone_the_rest_goes_on_and_says_so() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    memory.world().away.insert(source());
    let before = memory.world().effects.len();
    let outcomes = memory.tick(&config()).await;
    for job in [Job::CopySnapshots, Job::CopyHsmBackups, Job::ExpireCopies, Job::AuditRecovery] {
        let outcome = &outcomes[&job];
        assert!(outcome.unasked.iter().all(|one| one.region == source()), "{outcome:?}");
        assert!(!outcome.unasked.is_empty() && said(outcome, Code::PARTLY_ASKED) > 0, "{outcome:?}");
    }
    assert!(outcomes[&Job::SettleCopies].unasked.is_empty(), "it asks the DR region alone");
    assert!(outcomes[&Job::AuditRecovery].metrics.iter().any(|metric| metric.name == "Unasked" && metric.value > 0.0));
    let after: Vec<String> = memory.world().effects[before..].to_vec();
    assert!(!after.iter().any(|call| call.contains("Delete")), "{after:?}");
    assert_eq!(memory.world().copies().len(), 4);
}

#[tokio::test]
async fn without_records_nothing_is_begun_and_nothing_deleted() {
    let memory = Memory::new();
    memory.world().records_away = true;
    let outcomes = memory.tick(&config()).await;
    for (job, outcome) in &outcomes {
        assert!(said(outcome, Code::RECORDS_AWAY) > 0, "{job:?}: {outcome:?}");
    }
    let effects = memory.world().effects.clone();
    let stages = |call: &&String| !call.contains("UpdateSecretVersionStage");
    assert_eq!(effects.iter().filter(stages).count(), 0, "{effects:?}");
}

/// A record that cannot be understood decides nothing: what it is about is left alone, the rest goes on.
#[tokio::test]
async fn an_unreadable_record_is_told_and_left_alone() {
    let memory = Memory::new();
    memory.world().objects.insert(format!("copies/{}.json", snapshot_id(1)), (b"{".to_vec(), 0, START));
    let outcomes = memory.ticks(&config(), 6).await;
    for job in [Job::CopySnapshots, Job::SettleCopies] {
        assert!(said(&outcomes[&job], Code::RECORD_INVALID) > 0, "{:?}", outcomes[&job]);
    }
    let world = memory.world();
    assert!(!world.copy_calls.contains_key(&snapshot_id(1)));
    assert_eq!(world.copy_calls.len(), 3);
    assert_eq!(world.objects[&format!("copies/{}.json", snapshot_id(1))].0, b"{");
}

/// Kept from the cluster's purge before its copy is begun, and given back when the copy is READY; what somebody else keeps
/// stays theirs.
#[tokio::test]
async fn h45_a_backup_is_held_until_its_copy_is_ready() {
    let memory = Memory::new();
    let source_backup = memory.world().backups.keys().next().unwrap().clone();
    memory.tick(&config()).await;
    {
        let world = memory.world();
        assert_eq!(world.backups[&source_backup].never_expires, Some(true));
        let hold = world.effects.iter().position(|call| call == "cloudhsmv2:ModifyBackupAttributes").unwrap();
        let copy = world.effects.iter().position(|call| call == "cloudhsmv2:CopyBackupToRegion").unwrap();
        assert!(hold < copy);
    }
    memory.pass(900);
    memory.ticks(&config(), 6).await;
    assert_eq!(memory.world().backups[&source_backup].never_expires, Some(false), "given back");

    let memory = Memory::new();
    memory.world().backups.values_mut().for_each(|backup| backup.never_expires = Some(true));
    memory.ticks(&config(), 6).await;
    let world = memory.world();
    assert!(world.backups.values().filter(|b| b.region == source()).all(|b| b.never_expires == Some(true)));
    assert!(!world.effects.iter().any(|call| call == "cloudhsmv2:ModifyBackupAttributes"));
}

/// The version of the backup's time is noted and keeps a stage of ours through rotations.
#[tokio::test]
async fn h42_the_password_of_a_backups_time_stays() {
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    {
        let world = memory.world();
        let record = world.objects.keys().find(|key| key.starts_with("hsm-copies/")).unwrap().clone();
        assert_eq!(world.record(&record)["secrets"][0]["versions"][0], VERSION);
    }
    for n in 2..5 {
        memory.rotate(n);
        memory.ticks(&config(), 8).await;
    }
    let world = memory.world();
    assert!(world.secrets[&source()].versions.iter().any(|version| version.version.as_str() == VERSION));
}

/// H41: a set lies between two looks, and a host that is silent is asked less and less, and told of.
#[tokio::test]
async fn h41_a_new_set_is_followed_by_a_survey() {
    let memory = Memory::new();
    memory.world().silent.insert(instance(1));
    memory.ticks(&config(), 4).await;
    let taken = {
        let mut world = memory.world();
        let now = world.now;
        world.add_sets(now);
        now
    };
    let (_, told) = watch(&memory, 5, 900).await;
    let world = memory.world();
    let after = world
        .objects
        .keys()
        .filter_map(|key| store::parse_inventory_key(key))
        .filter(|(of, at)| *of == instance(0) && at.since(taken) >= tde2hsm_dr::points::MARGIN);
    assert_eq!(after.count(), 1, "{:?}", world.objects.keys());
    assert!(!world.objects.keys().any(|key| key.starts_with(&format!("inventories/{}/", instance(1)))));
    assert!(told[&instance(1)] > 0 && !told.contains_key(&instance(0)), "{told:?}");
    assert_eq!(world.copies().len(), 8, "snapshots are copied all the same");
}

/// Ticks of copy-snapshots, and how often each host was said to give no survey; the last outcome.
async fn watch(memory: &Memory, times: usize, apart: i64) -> (Outcome, BTreeMap<InstanceId, usize>) {
    let mut told: BTreeMap<InstanceId, usize> = BTreeMap::new();
    let mut last = None;
    for _ in 0..times {
        let outcome = memory.tick(&config()).await.remove(&Job::CopySnapshots).unwrap();
        for message in outcome.messages.iter().filter(|message| message.code == Code::HOST_UNSURVEYED) {
            let of = (0..2).map(instance).find(|one| message.text.starts_with(one.as_str())).unwrap();
            *told.entry(of).or_default() += 1;
        }
        memory.pass(apart);
        last = Some(outcome);
    }
    (last.unwrap(), told)
}

fn inventories_of(memory: &Memory, n: usize) -> Vec<Timestamp> {
    let world = memory.world();
    let of = world.objects.keys().filter_map(|key| store::parse_inventory_key(key)).filter(|(of, _)| *of == instance(n));
    of.map(|(_, at)| at).collect()
}

fn orders_sent(memory: &Memory) -> usize {
    memory.world().effects.iter().filter(|call| *call == "ssm:SendCommand").count()
}

/// A host that refused an order as too early would never be surveyed, and nothing of it ever be proven.
#[tokio::test]
async fn h41_a_host_whose_clock_is_off_by_the_margin_is_surveyed() {
    let memory = Memory::new();
    let margin = tde2hsm_dr::points::MARGIN;
    memory.world().clocks = BTreeMap::from([(instance(0), -margin), (instance(1), margin)]);
    let (last, told) = watch(&memory, 4, 900).await;
    assert!(told.is_empty(), "{last:?}");
    assert_eq!([inventories_of(&memory, 0).len(), inventories_of(&memory, 1).len()], [1, 1]);
}

/// Events come seconds apart, and a host takes minutes: what was ordered is waited for, not ordered again by each of them.
#[tokio::test]
async fn h41_a_host_that_takes_its_time_is_asked_once() {
    let memory = Memory::new();
    memory.world().slow = 300;
    for _ in 0..8 {
        let now = memory.world().now;
        run(Job::CopySnapshots, now, &config(), &memory, &Hint::Tick).await;
        memory.pass(30);
    }
    assert_eq!(orders_sent(&memory), 1);
    let (_, told) = watch(&memory, 4, 300).await;
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(inventories_of(&memory, 0).len(), 1);
}

/// The same of the machine that sends the order: a laptop's clock is not AWS's.
#[tokio::test]
async fn an_order_whose_answer_was_lost_is_found_although_the_clocks_differ() {
    let mut lost = None;
    for point in 1..100 {
        let memory = Memory::new();
        memory.world().aws_ahead = -tde2hsm_dr::points::MARGIN;
        memory.set_fuse(Some((point, Break::LostReply)));
        memory.tick(&config()).await;
        if memory.world().effects.get(point - 1).is_some_and(|call| call == "ssm:SendCommand") {
            lost = Some(memory);
            break;
        }
    }
    let memory = lost.expect("a survey is ordered in the first tick");
    assert_eq!(orders_sent(&memory), 1);
    memory.pass(900);
    let (_, told) = watch(&memory, 4, 900).await;
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(inventories_of(&memory, 0).len(), 1);
}

/// Whatever of a survey was not answered in time is given up, said once, and the survey ordered anew.
#[tokio::test]
async fn h41_a_survey_that_stops_half_way_is_ordered_anew_and_told_once() {
    for apart in [900, 3_600, 7 * 3_600] {
        let memory = Memory::new();
        watch(&memory, 1, apart).await;
        // It has answered the survey, and is away when its pieces are asked for.
        memory.world().silent.insert(instance(1));
        let (_, first) = watch(&memory, 2, apart).await;
        memory.world().silent.clear();
        let (_, told) = watch(&memory, 5, apart).await;
        assert_eq!((first.get(&instance(1)), told.get(&instance(1))), (Some(&1), None), "{apart} s apart");
        assert!(!inventories_of(&memory, 1).is_empty(), "{apart} s apart");
    }
}

/// A command that AWS forgot, as when nothing ran for a month, does not leave a host unsurveyed for ever.
#[tokio::test]
async fn h41_an_order_that_aws_knows_no_more_is_given_again() {
    let memory = Memory::new();
    watch(&memory, 1, 900).await;
    {
        let mut world = memory.world();
        world.forgotten = world.commands.keys().cloned().collect();
        assert!(!world.forgotten.is_empty());
    }
    watch(&memory, 4, 900).await;
    assert_eq!(orders_sent(&memory), 1);
    assert!(inventories_of(&memory, 0).is_empty(), "it may only be away");
    memory.pass(86_400);
    let (_, told) = watch(&memory, 6, 900).await;
    assert_eq!(told, BTreeMap::from([(instance(0), 1), (instance(1), 1)]));
    assert_eq!(inventories_of(&memory, 0).len(), 1);
}

/// A clock that was a week ahead for an hour: what was looked at then bears a time to come. It must not put off the next look.
#[tokio::test]
async fn h41_a_clock_that_was_ahead_does_not_keep_a_host_from_being_asked() {
    let memory = Memory::new();
    let ahead = Inventory { taken_at: START.plus(7 * 86_400), received_at: START, ..empty_inventory() };
    let key = store::inventory_key(&ahead.instance, ahead.taken_at);
    memory.world().objects.insert(key, (serde_json::to_vec(&ahead).unwrap(), 0, START));
    watch(&memory, 4, 900).await;
    let looks: Vec<Timestamp> = inventories_of(&memory, 0).into_iter().filter(|at| *at != ahead.taken_at).collect();
    assert_eq!(looks.len(), 1, "{looks:?}");
}

#[tokio::test]
async fn each_breach_is_told_once() {
    let memory = Memory::new();
    with_database(&memory);
    let config = DrConfig { document: None, ..config() };
    memory.world().topic_away = true;
    let outcomes = memory.ticks(&config, 2).await;
    assert_eq!(said(&outcomes[&Job::AuditRecovery], Code::ALARM_UNSENT), 1, "{:?}", outcomes[&Job::AuditRecovery]);
    memory.world().topic_away = false;
    memory.ticks(&config, 8).await;
    let world = memory.world();
    let told: Vec<&String> = world.published.iter().map(|(subject, _)| subject).filter(|s| s.contains("RPO")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("breached: ORCL"), "{told:?}");
}

/// What opened at the last whole look is not lost because the region does not answer now.
#[tokio::test]
async fn an_audit_that_could_not_see_tells_no_breach() {
    let memory = Memory::new();
    with_database(&memory);
    let opened = serde_json::json!({format!("{}/ORCL", instance(0)): START.plus(-3_600).0});
    let alarms = serde_json::json!({"v": 1, "standing": {}, "opened": opened});
    memory.world().objects.insert(store::ALARMS.to_owned(), (serde_json::to_vec(&alarms).unwrap(), 0, START));
    memory.world().away.insert(dr());
    let told = |memory: &Memory| memory.world().published.iter().filter(|(subject, _)| subject.contains("RPO")).count();
    let breached = |outcome: &Outcome| outcome.metrics.iter().find(|one| one.name == "DatabasesBreached").map(|one| one.value);
    let blind = run(Job::AuditRecovery, START, &config(), &memory, &Hint::Tick).await;
    assert_eq!(told(&memory), 0, "{:?}", memory.world().published);
    assert_eq!(breached(&blind), Some(0.0), "the alarm on the metric goes by the same");
    memory.world().away.clear();
    let seen = run(Job::AuditRecovery, START.plus(900), &config(), &memory, &Hint::Tick).await;
    assert_eq!(told(&memory), 1, "now it is seen that nothing opens: {:?}", memory.world().published);
    assert_eq!(breached(&seen), Some(1.0));
}

/// Which hosts are gone is another question than which snapshots there are.
#[tokio::test]
async fn a_host_that_is_gone_alarms_nobody_while_the_snapshots_alone_cannot_be_listed() {
    let audit = async |denied: &str| {
        let memory = Memory::new();
        with_database(&memory);
        {
            let mut world = memory.world();
            world.instances.retain(|one| one.instance != instance(0));
            world.denied.insert(denied.to_owned());
        }
        let outcome = run(Job::AuditRecovery, START, &config(), &memory, &Hint::Tick).await;
        assert!(outcome.unasked.iter().any(|one| one.call == denied), "{outcome:?}");
        let world = memory.world();
        world.published.iter().filter(|(subject, _)| subject.contains(instance(0).as_str())).count()
    };
    assert_eq!(audit("ec2:DescribeSnapshots").await, 0);
    assert_eq!(audit("ec2:DescribeInstances").await, 1, "it may be there");
}

/// A lost tag is no end of anything, a terminated instance is one; and what AWS said of that holds while it says nothing.
#[tokio::test]
async fn a_host_counts_without_its_tag_and_no_more_once_it_is_terminated() {
    let memory = Memory::new();
    with_database(&memory);
    let audit = async |memory: &Memory| {
        let now = memory.world().now;
        let outcome = run(Job::AuditRecovery, now, &config(), memory, &Hint::Tick).await;
        memory.pass(900);
        let metric = |name: &str| outcome.metrics.iter().find(|one| one.name == name).map(|one| one.value);
        let told = std::mem::take(&mut memory.world().published);
        let told: Vec<String> = told.into_iter().map(|(subject, _)| subject.replace("tde2hsm demo: ", "")).collect();
        (told, metric("DatabasesBreached"), metric("InstancesSeen"), metric("HostsUnseen"))
    };
    let host = instance(0);
    // The topic is away: a message of one kind that did not get out is not replaced by one of another.
    memory.world().topic_away = true;
    assert_eq!(audit(&memory).await, (vec![], Some(1.0), Some(2.0), Some(1.0)));
    memory.world().untagged.insert(host.clone());
    assert_eq!(audit(&memory).await, (vec![], Some(1.0), Some(1.0), Some(2.0)));
    memory.world().topic_away = false;
    let told = vec![format!("RPO breached: ORCL on {host}"), format!("no longer seen: {host}")];
    assert_eq!(audit(&memory).await, (told, Some(1.0), Some(1.0), Some(2.0)));
    assert_eq!(audit(&memory).await, (vec![], Some(1.0), Some(1.0), Some(2.0)));
    memory.world().away.insert(source());
    assert_eq!(audit(&memory).await.1, Some(1.0), "nobody says that it is gone");
    memory.world().away.clear();
    memory.world().instances.retain(|one| one.instance != host);
    assert_eq!(audit(&memory).await, (vec![format!("counts no more: {host}")], Some(0.0), Some(1.0), Some(1.0)));
    assert_eq!(memory.world().record(store::GONE)["instances"], serde_json::json!([host]));
    let written = memory.world().effects.len();
    memory.world().away.insert(source());
    assert_eq!(audit(&memory).await, (vec![], Some(0.0), Some(0.0), Some(0.0)));
    memory.world().away.clear();
    audit(&memory).await;
    assert_eq!(memory.world().effects[written..].iter().filter(|call| call.contains("Put")).count(), 0);
}

/// Whatever single call of the audit breaks, the breach is told at least once and hardly ever twice.
#[tokio::test]
async fn a_broken_call_of_the_audit_loses_no_alarm() {
    let config = DrConfig { document: None, ..config() };
    let mut twice = 0;
    let mut tried = 0;
    for how in [Break::Before, Break::After, Break::LostReply, Break::LostCall] {
        for point in 1..=5 {
            let memory = Memory::new();
            with_database(&memory);
            memory.set_fuse(Some((point, how)));
            tokio::select! {
                biased;
                () = memory.blown.notified() => {}
                _ = run(Job::AuditRecovery, START, &config, &memory, &Hint::Tick) => {}
            }
            memory.set_fuse(None);
            for _ in 0..4 {
                memory.pass(900);
                let now = memory.world().now;
                run(Job::AuditRecovery, now, &config, &memory, &Hint::Tick).await;
            }
            let world = memory.world();
            let told = world.published.len();
            assert!((1..=2).contains(&told), "call {point} {how:?}: told {told} times");
            // Who gets it twice can tell: it is the same to the letter, its id with it.
            assert!(world.published.iter().all(|one| *one == world.published[0]), "{:?}", world.published);
            let id = world.published[0].1.lines().last().and_then(|line| line.strip_prefix("alarm "));
            assert!(id.is_some_and(|id| id.len() == 12), "{:?}", world.published[0]);
            twice += usize::from(told == 2);
            tried += 1;
        }
    }
    println!("{tried} runs with a broken call, {twice} of them told twice");
    assert!(twice <= 4);
}

/// Nothing of a dry run changes AWS; it says what it would do.
#[tokio::test]
async fn a_dry_run_deletes_nothing() {
    let memory = Memory::new();
    memory.ticks(&config(), 6).await;
    let dry = DrConfig { expiry: Expiry::DryRun, ..config() };
    let before = memory.world().effects.len();
    let now = Timestamp(memory.world().now.0 + 400 * 86_400);
    run(Job::ExpireCopies, now, &dry, &memory, &Hint::Tick).await;
    let after: Vec<String> = memory.world().effects[before..].to_vec();
    assert!(after.is_empty(), "{after:?}");
}

fn came(memory: &Memory, key: &str) -> Vec<String> {
    let record = memory.world().record(key);
    record["results"].as_object().unwrap().values().map(|came| came["came"].as_str().unwrap().to_owned()).collect()
}

async fn settle(memory: &Memory) -> Outcome {
    let now = memory.world().now;
    run(Job::SettleCopies, now, &config(), memory, &Hint::Tick).await
}

/// Lists are eventually consistent: what one of them lacks may be there.
#[tokio::test]
async fn a_copy_that_one_list_lacks_has_not_vanished_and_one_that_stays_away_has() {
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    let copy = memory.world().copies()[0].clone();
    let key = store::copy_key(&SnapshotId::new(copy.tags[tag::SOURCE_SNAPSHOT].clone()).unwrap());
    let hsm = memory.world().hsm_copies()[0].clone();
    let hsm_key = store::hsm_copy_key(hsm.source_backup.as_ref().unwrap());
    let both = |memory: &Memory| [came(memory, &key), came(memory, &hsm_key)].concat();
    assert_eq!(both(&memory), ["settled", "settled"]);
    let later = memory.world().now.plus(60);
    for id in [copy.id.to_string(), hsm.id.to_string()] {
        memory.world().visible.insert(id, later);
    }
    let outcome = settle(&memory).await;
    assert_eq!(said(&outcome, Code::COPY_VANISHED), 0, "{outcome:?}");
    assert_eq!(both(&memory), ["missed", "missed"]);
    memory.pass(120);
    settle(&memory).await;
    assert_eq!(both(&memory), ["settled", "settled"], "they are there");
    assert_eq!(memory.world().published, []);
    // Now they are away.
    memory.world().snapshots.remove(&copy.id);
    memory.world().backups.remove(&hsm.id);
    for expected in [0, 0, 2, 0] {
        let outcome = settle(&memory).await;
        assert_eq!(said(&outcome, Code::COPY_VANISHED), expected, "{outcome:?}");
        memory.pass(300);
    }
    assert_eq!(both(&memory), ["gone", "gone"]);
    assert_eq!(memory.world().published.len(), 1);
    // Somebody restored them.
    memory.world().snapshots.insert(copy.id.clone(), copy);
    memory.world().backups.insert(hsm.id.clone(), hsm);
    settle(&memory).await;
    assert_eq!(both(&memory), ["settled", "settled"]);
}

/// The topic takes no message beyond 256 KB: one that is refused would be refused at every run, and nothing ever told.
#[tokio::test]
async fn the_loss_of_thousands_of_copies_is_told_once_in_part() {
    const LOST: usize = 3_000;
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    {
        let mut world = memory.world();
        let record = world.record(&store::copy_key(&snapshot_id(1)));
        let at = world.now;
        for n in 0..LOST {
            let (mut lost, source) = (record.clone(), snapshot_id(0x10_0000 + n));
            let token = format!("token-{n}");
            lost["source"] = source.to_string().into();
            lost["attempts"] = serde_json::json!([{"token": token, "at": START}]);
            lost["results"] = serde_json::json!({token: {"came": "made", "copy": snapshot_id(0x20_0000 + n), "at": START}});
            world.objects.insert(store::copy_key(&source), (serde_json::to_vec(&lost).unwrap(), 0, at));
        }
    }
    let outcome = settle(&memory).await;
    assert_eq!(outcome.count("copies-failed"), LOST as u64);
    assert_eq!(came(&memory, &store::copy_key(&snapshot_id(0x10_0000 + LOST - 1))), ["gone"]);
    let published = memory.world().published.clone();
    assert_eq!(published.len(), 1);
    let told = published[0].1.matches("is no longer there").count();
    assert!(published[0].1.ends_with(&format!("and {} more; the log has them all", LOST - told)), "{told}");
    settle(&memory).await;
    assert_eq!(memory.world().published.len(), 1, "it is told once");
}

/// A fleet's records are as many as its snapshots, and most never change again. What was read is not read again while the list
/// says that it is the same.
#[tokio::test]
async fn records_that_did_not_change_are_read_once() {
    const MANY: usize = 2_000;
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    let (settled, key) =
        (memory.world().record(&store::copy_key(&snapshot_id(1))), |n| store::copy_key(&snapshot_id(0x10_0000 + n)));
    {
        let mut world = memory.world();
        let at = world.now;
        for n in 0..MANY {
            let mut record = settled.clone();
            record["source"] = snapshot_id(0x10_0000 + n).to_string().into();
            record["attempts"] = serde_json::json!([{"token": format!("token-{n}"), "at": START}]);
            record["results"] = serde_json::json!({});
            world.objects.insert(key(n), (serde_json::to_vec(&record).unwrap(), 1, at));
        }
    }
    let reads = async |job| {
        memory.world().gets = 0;
        let now = memory.world().now;
        let outcome = run(job, now, &config(), &memory, &Hint::Tick).await;
        assert_eq!(said(&outcome, Code::RECORDS_AWAY), 0, "{outcome:?}");
        memory.world().gets
    };
    assert!(reads(Job::SettleCopies).await >= MANY, "a process that has just begun has read nothing");
    for job in [Job::SettleCopies, Job::AuditRecovery, Job::AuditRecovery] {
        let again = reads(job).await;
        assert!(again < 20, "{job:?} read {again}");
    }
    // One is written over, by whomever: it is read, and what it says counts.
    let before = reads(Job::SettleCopies).await;
    memory.world().objects.insert(key(7), (b"{".to_vec(), 2, START));
    assert_eq!(reads(Job::SettleCopies).await, before + 1);
    let outcome = settle(&memory).await;
    assert_eq!(said(&outcome, Code::RECORD_INVALID), 1, "{outcome:?}");
    memory.world().objects.remove(&key(7));
    assert_eq!(said(&settle(&memory).await, Code::RECORD_INVALID), 0);
}
