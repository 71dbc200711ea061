//! The reducer against a world that fails: invariants 2, 5, 7 and 9 of the design, in every order of events that a seed makes.

mod common;

use common::sim::*;
use common::*;
use proptest::prelude::*;
use tde2hsm_campaign::plan::Plan;
use tde2hsm_campaign::reducer::*;
use tde2hsm_protocol::*;

fn plan(hosts: usize, concurrency: u16, budget: u16, on_failure: &str) -> Plan {
    guarded(hosts, concurrency, budget, on_failure, "off")
}

fn guarded(hosts: usize, concurrency: u16, budget: u16, on_failure: &str, protect: &str) -> Plan {
    let text = FLEET
        .replace("[waves]", &format!("[protect]\nmode = \"{protect}\"\n[waves]"))
        .replace("concurrency = 4", &format!("concurrency = {concurrency}"))
        .replace("budget = 4", &format!("budget = {budget}"))
        .replace(
            "[options]",
            &format!("[options]\non_failure = \"{on_failure}\"\npoll_seconds = 5\nfind_seconds = 20\norder_minutes = 2"),
        );
    let surveys: Vec<_> = (0..hosts)
        .map(|n| {
            let name = format!("DB{n}");
            // Every third host is a software source.
            survey(n, vec![if n % 3 == 2 { software(&name, n as u64) } else { database(&name, n as u64) }])
        })
        .collect();
    plan_of(&text, &facts(hosts), &surveys)
}

fn mode(seed: u64) -> &'static str {
    ["off", "wait", "force", "force"][(seed % 4) as usize]
}

fn secret(name: &str, n: u32) -> SecretRef {
    SecretRef { arn: arn(name), version: version(n) }
}

#[test]
fn a_night_without_a_fault_is_done_in_the_waves_of_the_plan() {
    let plan = plan(8, 3, 3, "undo");
    let expected = plan.waves.expected.clone();
    let mut sim = Sim::new(plan, 1, Faults::NONE);
    assert_eq!(sim.drive(), End::Done);
    let summary = sim.state.summary(sim.now);
    assert_eq!(summary.waves, expected, "the plan prints the waves that happen");
    assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), vec![1, 3, 3, 1]);
    assert!(sim.all(|staged, cut_over, proven| staged && cut_over && proven));
    assert_eq!(summary.counts.get(&Standing::Done), Some(&8));
}

#[test]
fn inv2_a_crash_at_every_boundary_sends_nothing_twice_and_ends_done() {
    let mut whole = Sim::new(plan(4, 2, 2, "undo"), 7, Faults::NONE);
    assert_eq!(whole.drive(), End::Done);
    assert_eq!(whole.begun(), [3; 4]);
    for point in 1..=whole.points {
        let mut sim = Sim::new(plan(4, 2, 2, "undo"), 7, Faults::NONE);
        sim.crash_at = Some(point);
        assert_eq!(sim.drive(), End::Done, "point {point}");
        assert_eq!(sim.crashes, 1);
        assert!(sim.all(|_, cut_over, proven| cut_over && proven));
        assert_eq!(sim.begun(), [3; 4], "point {point}: a segment was begun twice");
    }
    println!("{} crash points", whole.points);
}

#[test]
fn inv2_an_intended_order_is_looked_for_before_anything_else_happens_to_its_hosts() {
    let mut sim = Sim::new(plan(3, 1, 1, "undo"), 3, Faults::NONE);
    sim.record(EventKind::Approved { gate: Gate::Stage });
    let decisions = sim.state.decide(sim.now);
    let Some(Decision::Send(send)) = decisions.first() else { panic!("{decisions:?}") };
    sim.record(EventKind::OrderIntended(send.intent.clone()));
    let token = send.intent.token.clone();
    let mut sends = 0;
    for _ in 0..4 {
        let decisions = sim.state.decide(sim.now);
        assert!(matches!(&decisions[0], Decision::FindCommand { token: t, .. } if *t == token), "{decisions:?}");
        sends += decisions.iter().filter(|d| matches!(d, Decision::Send(_))).count();
        sim.record(EventKind::CommandNotFound { token: token.clone() });
        sim.now = sim.now.plus(5);
    }
    assert_eq!(sends, 0, "nothing goes out while the order is uncertain: the first host proves the passwords");
    sim.now = sim.now.plus(20);
    sim.record(EventKind::CommandNotFound { token });
    let decisions = sim.state.decide(sim.now);
    let Some(Decision::Send(again)) = decisions.first() else { panic!("{decisions:?}") };
    assert_eq!(again.intent.hosts, send.intent.hosts, "the same operation, so that a late delivery is joined");
    assert_ne!(again.intent.token, send.intent.token);
}

#[test]
fn inv7_h10_one_wrong_password_costs_one_login_through_resume_and_retry() {
    for (name, hosts) in [("old-hsm", 8), ("cloudhsm", 8), ("software", 8)] {
        for seed in 0..20 {
            let mut sim = Sim::new(plan(hosts, 4, 4, "undo"), seed, if seed % 2 == 0 { Faults::NONE } else { Faults::MANY });
            sim.faults.step = 0; // Nothing else goes wrong in a step.
            sim.faults.worker = 0;
            sim.bad = Some(secret(name, 1));
            assert_eq!(sim.drive(), End::LoginRefused, "{name} {seed}");
            assert_eq!(sim.bad_logins, 1, "{name} {seed}");
            assert!(sim.all(|_, cut_over, _| !cut_over), "{name}: it stops in stage");
            if name == "cloudhsm" && seed % 2 == 0 {
                assert_eq!(sim.begun().iter().sum::<usize>(), 1, "no other host that uses it is even staged");
            }
            let frozen = sim.state.summary(sim.now).frozen;
            assert_eq!(frozen, vec![secret(name, 1)]);
            for _ in 0..3 {
                sim.record(EventKind::Resumed { hosts: Retry::Failed, window: None });
                assert_eq!(sim.drive(), End::LoginRefused);
                assert_eq!(sim.bad_logins, 1, "{name} {seed}: resume costs no login");
            }
            sim.record(EventKind::SecretNamed { secret: secret(name, 1), version: version(2) });
            sim.faults = Faults::NONE;
            let end = sim.drive();
            if end != End::Done {
                sim.resume_until(End::Done);
            }
            assert_eq!(sim.bad_logins, 1);
            assert!(sim.all(|_, _, proven| proven));
        }
    }
}

#[test]
fn h10_a_password_that_is_refused_at_cutover_freezes_the_others() {
    refused_at_cutover("hold");
    refused_at_cutover("undo");
}

fn refused_at_cutover(on_failure: &str) {
    let mut sim = Sim::new(plan(6, 3, 3, on_failure), 5, Faults::NONE);
    // It is proven while staging, and rotated away before the canary's cutover.
    while !sim.state.summary(sim.now).waves.iter().any(|w| !w.is_empty()) {
        let before = sim.journal.len();
        let decisions = sim.state.decide(sim.now);
        assert!(!decisions.is_empty());
        sim.step();
        assert!(sim.journal.len() >= before);
    }
    sim.bad = Some(secret("cloudhsm", 1));
    assert_eq!(sim.drive(), End::LoginRefused);
    assert_eq!(sim.bad_logins, 1);
    sim.record(EventKind::SecretNamed { secret: secret("cloudhsm", 1), version: version(2) });
    assert_eq!(sim.drive(), End::Done);
    assert_eq!(sim.bad_logins, 1);
}

#[test]
fn h10_hosts_in_the_middle_of_a_wave_are_frozen_too_undo_included() {
    let mut sim = Sim::new(plan(4, 3, 3, "undo"), 5, Faults::NONE);
    let send = loop {
        let decisions = sim.state.decide(sim.now);
        let cutover = decisions.into_iter().find_map(|d| match d {
            Decision::Send(send)
                if send.intent.hosts.len() == 3 && matches!(send.order.work, Work::Run { segment: Segment::Cutover, .. }) =>
            {
                Some(send)
            }
            _ => None,
        });
        match cutover {
            Some(send) => break send,
            None => sim.step(),
        }
    };
    let failed = |code| Outcome::Failed { code, retriable: Retriable::No };
    sim.answer(&send, &[failed(Code::LOGIN_REFUSED), Outcome::Done, failed(Code::STATEMENT_FAILED)]);
    // One is to be undone for its password, one is to be proven, one is to be undone for another reason: all log in.
    for _ in 0..50 {
        let decisions = sim.state.decide(sim.now);
        assert!(!decisions.iter().any(|d| matches!(d, Decision::Send(_))), "{decisions:?}");
        sim.now = sim.now.plus(30);
        sim.record(EventKind::ClusterObserved { cluster: cluster() });
    }
    for host in &send.intent.hosts {
        let why = sim.state.why(&host.instance, sim.now).expect("it waits");
        assert_eq!(why.code, Some(Code::LOGIN_REFUSED), "{why:?}");
    }
    assert_eq!(sim.state.decide(sim.now), vec![Decision::Finish { end: End::LoginRefused }]);
}

/// The night's report says how long users were without a database: the proof's restart is added, it is not all there was.
#[test]
fn seconds_away_are_summed_over_the_operations_of_a_host() {
    let mut sim = Sim::new(plan(1, 1, 1, "undo"), 5, Faults::NONE);
    for segment in [Segment::Cutover, Segment::Prove] {
        let send = loop {
            let send = sim.state.decide(sim.now).into_iter().find_map(|d| match d {
                Decision::Send(send) if matches!(send.order.work, Work::Run { segment: s, .. } if s == segment) => Some(send),
                _ => None,
            });
            match send {
                Some(send) => break send,
                None => sim.step(),
            }
        };
        // It says twice how the operation stands: at work, and then done.
        let waiting = Outcome::Waiting { code: Code::STILL_RUNNING };
        sim.answer(&send, &[waiting]);
        let token = send.intent.token.clone();
        let Some(EventKind::ReportReceived { instance, operation, report, .. }) = sim.journal.last().map(|e| e.kind.clone())
        else {
            panic!("a report was the last event")
        };
        let report = Box::new(tde2hsm_protocol::Report { outcome: Outcome::Done, ..*report });
        sim.record(EventKind::ReportReceived { token, instance, operation, report, aws_at: None });
    }
    let summary = sim.state.summary(sim.now);
    assert!(!summary.hosts[0].databases.is_empty());
    for database in &summary.hosts[0].databases {
        assert_eq!(database.away, 340, "{database:?}");
    }
}

#[test]
fn inv5_a_failed_canary_stops_a_fleet_whose_budget_is_one() {
    let mut sim = Sim::new(plan(6, 4, 1, "undo"), 11, Faults::NONE);
    sim.fail_next_cutover = true;
    assert_eq!(sim.drive(), End::BudgetSpent);
    let summary = sim.state.summary(sim.now);
    assert_eq!((summary.failed, summary.waves.len()), (1, 1));
    assert_eq!(summary.counts.get(&Standing::FailedUndone), Some(&1));
    assert_eq!(summary.counts.get(&Standing::Staged), Some(&5));
    assert!(sim.all(|_, cut_over, _| !cut_over));
    assert_eq!(sim.resume_until(End::Done), 1);
}

#[test]
fn inv10_undo_after_success_brings_every_host_back_a_few_at_a_time() {
    let mut sim = Sim::new(plan(7, 2, 2, "undo"), 2, Faults::NONE);
    assert_eq!(sim.drive(), End::Done);
    sim.now = sim.now.plus(3 * 86_400);
    let hosts = sim.plan.hosts.iter().map(|h| UndoHost { instance: h.instance.clone(), saw: None }).collect();
    sim.record(EventKind::UndoRequested { plan: Digest::of(b"undo"), hosts });
    assert_eq!(sim.drive(), End::Undone);
    assert!(sim.all(|staged, cut_over, proven| !staged && !cut_over && !proven));
}

#[test]
fn h31_undo_waits_until_an_order_that_may_be_late_can_no_longer_begin() {
    let mut sim = Sim::new(plan(1, 1, 1, "undo"), 9, Faults::NONE);
    sim.record(EventKind::Approved { gate: Gate::Stage });
    let send = sim.next_send();
    let (token, host) = (send.intent.token.clone(), send.intent.hosts[0].clone());
    sim.record(EventKind::OrderIntended(send.intent.clone()));
    sim.record(EventKind::OrderAmbiguous { token: token.clone(), why: "lost".to_owned() });
    sim.now = sim.now.plus(30);
    sim.record(EventKind::CommandNotFound { token });
    sim.record(EventKind::UndoRequested {
        plan: Digest::ZERO,
        hosts: vec![UndoHost { instance: host.instance.clone(), saw: None }],
    });
    let decisions = sim.state.decide(sim.now);
    let [Decision::Wait { until, why }] = decisions.as_slice() else { panic!("{decisions:?}") };
    assert!(*until > send.intent.not_after, "{until:?} {:?}", send.intent.not_after);
    assert!(why[0].1.waits_for.contains("may still be delivered"), "{why:?}");
    sim.now = *until;
    assert!(
        matches!(sim.state.decide(sim.now).first(), Some(Decision::Send(s)) if s.order.work == Work::Run { segment: Segment::Stage, direction: Direction::Undo })
    );
}

#[test]
fn h23_no_cutover_is_sent_on_a_view_of_the_cluster_older_than_a_minute() {
    let mut sim = Sim::new(plan(1, 1, 1, "undo"), 4, Faults::NONE);
    while sim.state.standing(&instance(0)) != Some(Standing::Staged) || sim.state.summary(sim.now).waves.is_empty() {
        sim.step();
    }
    sim.now = sim.now.plus(3600);
    let decisions = sim.state.decide(sim.now);
    assert!(
        decisions.contains(&Decision::ObserveCluster) && !decisions.iter().any(|d| matches!(d, Decision::Send(_))),
        "{decisions:?}"
    );
    let mut changing = cluster();
    changing.state = "MODIFY_IN_PROGRESS".to_owned();
    sim.record(EventKind::ClusterObserved { cluster: changing });
    let why = sim.state.why(&instance(0), sim.now).expect("it waits");
    assert!(why.waits_for.contains("MODIFY_IN_PROGRESS"), "{why:?}");
    assert!(matches!(sim.state.decide(sim.now).as_slice(), [Decision::Wait { .. }]));
    sim.now = sim.now.plus(6);
    assert!(sim.state.decide(sim.now).contains(&Decision::ObserveCluster), "it is looked at again");
    sim.record(EventKind::ClusterObserved { cluster: cluster() });
    let sends = |sim: &Sim| sim.state.decide(sim.now).iter().any(|d| matches!(d, Decision::Send(_)));
    assert!(sends(&sim));
    sim.now = sim.now.plus(60);
    assert!(sends(&sim), "a minute old will do");
    sim.now = sim.now.plus(1);
    assert!(!sends(&sim) && sim.state.decide(sim.now).contains(&Decision::ObserveCluster), "and a second more will not");
}

#[test]
fn the_window_holds_cutover_and_not_stage_and_an_order_ends_with_it() {
    let text = FLEET
        .replace("[waves]", "[window]\nnot_before = \"2026-11-25T12:00:00Z\"\nnot_after = \"2026-11-25T12:10:00Z\"\n[waves]");
    let opens = Timestamp(1_795_608_000);
    assert!(NOW < opens);
    let mut sim = Sim::new(plan_of(&text, &facts(2), &surveys(2)), 1, Faults::NONE);
    while sim.state.summary(sim.now).counts.get(&Standing::Staged) != Some(&2) {
        sim.step();
    }
    assert!(sim.now < opens);
    let decisions = sim.state.decide(sim.now);
    assert!(matches!(decisions.as_slice(), [Decision::Wait { until, .. }] if *until == opens), "{decisions:?}");
    while sim.state.standing(&sim.plan.hosts[0].instance.clone()) != Some(Standing::CuttingOver) {
        sim.step();
    }
    assert!(sim.now >= opens);
    let closes = sim.plan.window.not_after.expect("closes");
    let cutover = sim.journal.iter().find_map(|e| match &e.kind {
        EventKind::OrderIntended(intent) if matches!(intent.work, Work::Run { segment: Segment::Cutover, .. }) => {
            Some(intent.clone())
        }
        _ => None,
    });
    assert!(cutover.expect("sent").not_after <= closes);
    sim.now = closes.plus(1);
    assert_eq!(sim.drive(), End::WindowClosed);
    let late = sim.journal.iter().any(|e| {
        let moves = matches!(&e.kind, EventKind::OrderIntended(i) if matches!(i.work, Work::Run { .. }));
        moves && e.at >= closes
    });
    assert!(!late, "a proof restarts a database, too");
    let window = tde2hsm_campaign::plan::Window { not_before: None, not_after: None };
    sim.record(EventKind::Resumed { hosts: Retry::Failed, window: Some(window) });
    assert_eq!(sim.drive(), End::Done);
}

#[test]
fn h32_a_lost_journal_is_rebuilt_from_the_hosts_and_ends_the_same() {
    for stop in 0..40 {
        let mut sim = Sim::new(plan(5, 2, 2, "undo"), 21, Faults::NONE);
        for _ in 0..stop {
            sim.step();
        }
        sim.lose_journal();
        assert_eq!(sim.drive(), End::Done, "stopped after {stop} turns");
        assert!(sim.all(|_, _, proven| proven));
        assert_eq!(sim.state.generation(), Some(Generation(2)));
    }
}

#[test]
fn a_newer_generation_ends_this_controller() {
    let mut sim = Sim::new(plan(2, 1, 1, "undo"), 1, Faults::NONE);
    sim.record(EventKind::Approved { gate: Gate::Stage });
    let send = sim.next_send();
    sim.answer(&send, &[Outcome::Stale { code: Code::ORDER_SUPERSEDED }]);
    assert_eq!(sim.state.decide(sim.now), vec![Decision::Finish { end: End::Superseded }]);
}

#[test]
fn a_host_that_never_answers_is_stuck_with_a_code_and_resume_asks_it_again() {
    let mut sim = Sim::new(plan(1, 1, 1, "undo"), 1, Faults::NONE);
    sim.deaf = true;
    assert_eq!(sim.drive(), End::Incomplete);
    let status = sim.state.summary(sim.now).hosts.remove(0);
    assert_eq!((status.standing, status.code), (Standing::Stuck, Some(Code::HOST_SILENT)));
    sim.deaf = false;
    sim.resume_until(End::Done);
}

#[test]
fn a_refused_call_is_repeated_host_by_host_so_that_one_bad_id_stops_only_its_host() {
    let mut sim = Sim::new(plan(6, 3, 3, "undo"), 1, Faults::NONE);
    sim.unsendable = Some(sim.plan.hosts[3].instance.clone());
    let end = sim.drive();
    let summary = sim.state.summary(sim.now);
    assert_eq!(end, End::Incomplete);
    assert_eq!(summary.counts.get(&Standing::Done), Some(&5), "{:#?}", summary.counts);
    assert_eq!(summary.counts.get(&Standing::Failed), Some(&1));
}

#[test]
fn release_ends_the_hold_and_leaves_the_others_alone() {
    let mut sim = Sim::new(plan(3, 1, 1, "undo"), 1, Faults::NONE);
    assert_eq!(sim.drive(), End::Done);
    sim.record(EventKind::ReleaseRequested { hosts: vec![instance(1)] });
    assert_eq!(sim.drive(), End::Done);
    assert_eq!(sim.state.standing(&instance(1)), Some(Standing::Released));
    assert_eq!(sim.state.standing(&instance(0)), Some(Standing::Done));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Invariants 2, 5 and 9 are checked by the world at every event; this makes the nights.
    #[test]
    fn inv2_inv5_inv9_any_night_ends_and_resume_brings_every_host_to_done(
        seed in any::<u64>(), hosts in 1usize..9, concurrency in 1u16..5, budget in 1u16..5, hold in any::<bool>(),
    ) {
        let mut sim = Sim::new(plan(hosts, concurrency, budget, if hold { "hold" } else { "undo" }), seed, Faults::MANY);
        let end = sim.drive();
        for status in sim.state.summary(sim.now).hosts {
            prop_assert!(status.why.is_some() || matches!(status.standing, Standing::Done), "{} is {}", status.instance, status.standing);
        }
        if end != End::Done {
            sim.resume_until(End::Done);
        }
        prop_assert!(sim.all(|staged, cut_over, proven| staged && cut_over && proven));
    }

    #[test]
    fn inv9_inv10_undo_at_any_moment_of_any_night_brings_every_host_back(
        seed in any::<u64>(), hosts in 1usize..7, stop in 0u32..80,
    ) {
        let mut sim = Sim::new(guarded(hosts, 3, 3, "undo", mode(seed)), seed, Faults::MANY);
        for _ in 0..stop {
            if sim.state.end().is_some() {
                break;
            }
            sim.step();
        }
        let wanted = sim.plan.hosts.iter().map(|h| UndoHost { instance: h.instance.clone(), saw: None }).collect();
        sim.record(EventKind::UndoRequested { plan: Digest::of(b"undo"), hosts: wanted });
        if sim.drive() != End::Undone {
            sim.resume_until(End::Undone);
        }
        prop_assert!(sim.all(|staged, cut_over, proven| !staged && !cut_over && !proven));
        prop_assert!(sim.keeping.hsms.iter().all(|h| h.whose != Whose::Ours), "H8: its HSM is left behind");
        written_in_the_end(&mut sim, End::Undone);
    }

    /// Total: any events in any order change a state or do not, and never more.
    #[test]
    fn events_in_any_order_never_panic_and_replay_the_same(seed in any::<u64>(), hosts in 1usize..5) {
        let mut sim = Sim::new(guarded(hosts, 2, 2, "undo", mode(seed)), seed, Faults::MANY);
        let _ = sim.drive();
        let mut events = sim.journal.clone();
        let mut rng = Rng(seed);
        for i in (1..events.len()).rev() {
            events.swap(i, rng.below(i as i64 + 1) as usize);
        }
        let first = State::replay(sim.plan.clone(), &events);
        let second = State::replay(sim.plan.clone(), &events);
        prop_assert_eq!(first.snapshot(), second.snapshot());
        let decisions = first.decide(sim.now);
        prop_assert_eq!(decisions, second.decide(sim.now));
        let _ = first.summary(sim.now);
    }
}

/// Ten thousand hosts: what a replay costs is measured elsewhere; here that it holds, and that it makes few calls.
#[test]
fn ten_thousand_hosts_replay_to_done_with_few_orders() {
    let mut body = (*plan(1, 2_000, 2_000, "undo")).clone();
    let host = body.hosts.remove(0);
    body.hosts = (0..10_000).map(|n| tde2hsm_campaign::plan::HostPlan { instance: instance(n), ..host.clone() }).collect();
    let mut sim = Sim::new(Plan::seal(body), 1, Faults::NONE);
    sim.quiet_checks = true;
    assert_eq!(sim.drive(), End::Done);
    let events = sim.journal.len();
    let begun = std::time::Instant::now();
    let state = State::replay(sim.plan.clone(), &sim.journal);
    println!("{events} events replayed in {:?}", begun.elapsed());
    assert_eq!(state.snapshot(), sim.state.snapshot());
    assert_eq!(state.summary(sim.now).counts.get(&Standing::Done), Some(&10_000));
    let reports = sim.journal.iter().filter(|e| matches!(e.kind, EventKind::ReportReceived { .. })).count();
    assert!(reports >= 30_000 && events < reports + 8_000, "{events} events, {reports} reports");
    assert!(sim.sent < 3_000, "{} orders for 90,000 host-steps", sim.sent);
}

#[test]
fn h10_a_host_staged_for_a_password_that_turns_out_wrong_is_unstaged_and_staged_again_with_the_right_one() {
    let mut sim = Sim::new(plan(5, 2, 2, "hold"), 5, Faults::NONE);
    while sim.state.summary(sim.now).waves.is_empty() {
        sim.step();
    }
    sim.bad = Some(secret("cloudhsm", 1));
    assert_eq!(sim.drive(), End::LoginRefused);
    let counts = sim.state.summary(sim.now).counts;
    assert_eq!((counts.get(&Standing::Pending), counts.get(&Standing::Staged)), (Some(&4), None), "{counts:?}");
    sim.record(EventKind::SecretNamed { secret: secret("cloudhsm", 1), version: version(2) });
    assert_eq!(sim.drive(), End::Done);
    assert!(sim.all(|staged, _, proven| staged && proven));
    assert_eq!(sim.bad_logins, 1);
}

/// H41: what could not be written by the end is named, and written by the resume after it.
fn written_in_the_end(sim: &mut Sim, end: End) {
    if !sim.all_inventoried() {
        let missing = sim.state.summary(sim.now).inventories.expect("a second region is named").missing;
        assert!(!missing.is_empty() && missing.iter().all(|m| m.code == Some(Code::INVENTORY_UNWRITTEN)), "{missing:?}");
        sim.resume_until(end);
    }
    assert!(sim.all_inventoried(), "{:?}", sim.inventoried);
}

/// The state of the gate, as `status` has it.
fn gate_of(sim: &Sim) -> Protection {
    sim.state.summary(sim.now).protection.expect("the plan has the gate")
}

/// Until the first wave has ended and the gate is asked about backups.
fn canary_done(sim: &mut Sim) {
    while !sim.state.decide(sim.now).iter().any(|d| matches!(d, Decision::ObserveProtection { .. })) {
        assert_eq!(sim.state.end(), None);
        sim.step();
    }
}

#[test]
fn h08_no_wave_begins_before_the_keys_of_the_wave_before_are_in_a_backup_of_both_regions() {
    // The world itself asserts it at each approval and at the end.
    for seed in 0..12 {
        let mut sim = Sim::new(guarded(6, 2, 2, "undo", "wait"), seed, Faults::NONE);
        canary_done(&mut sim);
        let gate = gate_of(&sim);
        assert_eq!((gate.standing, gate.waves.len()), (Protected::Waits, 0));
        let waiting = sim.plan.hosts.iter().map(|h| &h.instance).find(|i| sim.state.standing(i) == Some(Standing::Staged));
        let why = sim.state.why(waiting.expect("the others are staged"), sim.now).expect("it waits");
        assert!(why.waits_for.contains("the keys of wave 1") && why.unblocked_by.contains("24 hours"), "{why:?}");
        let settled = sim.now;
        assert_eq!(sim.drive(), End::Done);
        assert!(sim.now.since(settled) > 600, "a backup of before the keys was taken for one after them");
        let gate = gate_of(&sim);
        assert_eq!(gate.standing, Protected::Protected);
        assert_eq!(gate.waves.iter().map(|w| w.wave).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(gate.waves.iter().all(|w| w.copy.is_some()), "{gate:?}");
        assert_eq!(sim.keeping.created, 0, "nobody asked for an HSM");
    }
}

#[test]
fn h08_a_forced_backup_adds_one_hsm_a_wave_and_leaves_as_many_as_there_were() {
    for seed in 0..12 {
        let mut sim = Sim::new(guarded(6, 2, 2, "undo", "force"), seed, Faults::NONE);
        let begun = sim.now;
        assert_eq!(sim.drive(), End::Done);
        let added = sim.keeping.created;
        // Once a wave, unless CloudHSM's own backup came in time.
        assert!((3..=4).contains(&added), "{added}");
        assert!(sim.now.since(begun) < 6 * 3_600, "a forced backup does not take a day");
        assert!(sim.keeping.hsms.iter().all(|h| h.whose == Whose::Fleet) && sim.keeping.hsms.len() == 2);
        // Its backup is begun with it, so the next look does not wait as long as the gate has waited already.
        for (place, event) in sim.journal.iter().enumerate() {
            if matches!(event.kind, EventKind::HsmAdded { .. }) {
                let looks = sim.journal[place..].iter().find(|e| matches!(e.kind, EventKind::ProtectionObserved { .. }));
                let after = looks.expect("it is looked for").at.since(event.at);
                assert!(after <= 10, "the first look is {after} s after the HSM");
            }
        }
    }
}

/// A§4.5 and clocks: five minutes between the report and the backup, on AWS's clock, or ten on ours where AWS's is not seen.
#[test]
fn h08_newer_than_the_key_is_judged_on_awss_clock() {
    for (aws_ahead, margin) in [(Some(7_200), 300), (Some(-7_200), 300), (None, 600)] {
        let mut sim = Sim::new(guarded(2, 1, 1, "undo", "wait"), 1, Faults::NONE);
        let send = loop {
            let decisions = sim.state.decide(sim.now);
            let cutover = decisions.into_iter().find_map(|d| match d {
                Decision::Send(send) if matches!(send.order.work, Work::Run { segment: Segment::Cutover, .. }) => Some(send),
                _ => None,
            });
            match cutover {
                Some(send) => break send,
                None => sim.step(),
            }
        };
        let aws = |at: Timestamp| aws_ahead.map(|ahead| at.plus(ahead));
        sim.answer_at(&send, &[Outcome::Done], aws(sim.now));
        let received = aws(sim.now).unwrap_or(sim.now);
        let send = loop {
            match sim.state.decide(sim.now).into_iter().find_map(|d| match d {
                Decision::Send(send) => Some(send),
                _ => None,
            }) {
                Some(send) => break send,
                None => sim.record(EventKind::ClusterObserved { cluster: cluster() }),
            }
        };
        sim.answer_at(&send, &[Outcome::Done], aws(sim.now));
        let wanted = sim.state.decide(sim.now);
        let after = wanted.iter().find_map(|d| match d {
            Decision::ObserveProtection { after, .. } => Some(*after),
            _ => None,
        });
        assert_eq!(after, Some(received.plus(margin)), "{wanted:?}");
        for (created, state, copy, protected) in [
            (margin, "READY", "READY", false),
            (margin + 1, "CREATE_IN_PROGRESS", "READY", false),
            (margin + 1, "READY", "CREATE_IN_PROGRESS", false),
            (margin + 1, "READY", "DELETED", false),
            (margin + 1, "READY", "READY", true),
        ] {
            let id = BackupId::new("backup-aaaaaaaaaaa").expect("id");
            let (there, state) = (BackupId::new("backup-bbbbbbbbbbb").expect("id"), state.to_owned());
            let backup = tde2hsm_campaign::facts::Backup { id: id.clone(), state, created: received.plus(created) };
            let copy = tde2hsm_campaign::facts::BackupCopy { id: there, source: id, state: copy.to_owned() };
            sim.now = sim.now.plus(10);
            sim.record(EventKind::ProtectionObserved { aws_at: aws(sim.now), backups: vec![backup], copies: vec![copy] });
            assert_eq!(gate_of(&sim).standing == Protected::Protected, protected, "{created}: {:?}", gate_of(&sim));
            let asks = sim.state.decide(sim.now).iter().any(|d| matches!(d, Decision::Ask { gate: Gate::Wave(2), .. }));
            assert_eq!(asks, protected);
        }
    }
}

#[test]
fn h08_a_copy_of_another_backup_is_not_a_copy_of_the_one_with_the_keys() {
    let mut sim = Sim::new(guarded(2, 1, 1, "undo", "wait"), 3, Faults::NONE);
    canary_done(&mut sim);
    let id = |text: &str| BackupId::new(text).expect("id");
    let late = sim.now.plus(3_600);
    let backup = tde2hsm_campaign::facts::Backup { id: id("backup-newaaaaaaaa"), state: "READY".to_owned(), created: late };
    let copy = tde2hsm_campaign::facts::BackupCopy {
        id: id("backup-copyaaaaaaa"),
        source: id("backup-oldaaaaaaaa"),
        state: "READY".to_owned(),
    };
    sim.record(EventKind::ProtectionObserved { aws_at: None, backups: vec![backup], copies: vec![copy] });
    assert_eq!(gate_of(&sim).standing, Protected::Waits);
    assert!(sim.state.decide(sim.now).contains(&Decision::CopyBackups), "its own copy is asked for");
}

#[test]
fn h08_a_lost_answer_of_create_hsm_removes_nothing_and_is_stuck() {
    let mut sim = Sim::new(guarded(3, 1, 1, "undo", "force"), 4, Faults::NONE);
    sim.keeping.stranger = true;
    assert_eq!(sim.drive(), End::Unprotected);
    let gate = gate_of(&sim);
    assert_eq!(gate.standing, Protected::Stuck);
    let why = gate.why.expect("says why");
    assert_eq!(why.code, Some(Code::FORCED_HSM_UNCERTAIN));
    assert!(why.waits_for.contains("hsm-00000000001"), "{why:?}");
    assert!(sim.keeping.hsms.iter().any(|h| h.whose == Whose::Stranger), "somebody else's HSM is left alone");
    assert_eq!(sim.state.summary(sim.now).waves.len(), 1, "no wave was begun after it");
    // A person has looked; no second one is added for that wave, the backup comes in its own time.
    sim.record(EventKind::Resumed { hosts: Retry::Failed, window: None });
    let end = sim.drive();
    assert_eq!(end, End::Done, "{:#?}", gate_of(&sim));
    assert!(sim.keeping.hsms.iter().any(|h| h.whose == Whose::Stranger));
    assert_eq!(sim.keeping.created, 3, "the stranger's, and one for each of the two waves after");
}

#[test]
fn h08_a_hsm_of_ours_stays_while_fewer_others_are_active_than_before() {
    let mut sim = Sim::new(guarded(2, 1, 1, "undo", "force"), 5, Faults::NONE);
    while !sim.keeping.hsms.iter().any(|h| h.whose == Whose::Ours) {
        sim.step();
    }
    sim.keeping.hsms[0].degrade();
    for _ in 0..60 {
        sim.step();
        assert!(sim.keeping.hsms.iter().any(|h| h.whose == Whose::Ours), "it was removed");
    }
    let why = gate_of(&sim).why.expect("waits");
    assert_eq!(why.code, Some(Code::FORCED_HSM_LEFT), "{why:?}");
    sim.keeping.hsms[0].mend();
    assert_eq!(sim.drive(), End::Done);
    assert_eq!(sim.keeping.hsms.len(), 2);
}

#[test]
fn h08_a_gate_that_waits_too_long_ends_unprotected_and_resume_waits_on() {
    for mode in ["wait", "force"] {
        let mut sim = Sim::new(guarded(3, 1, 1, "undo", mode), 6, Faults::NONE);
        sim.keeping.barren = true;
        assert_eq!(sim.drive(), End::Unprotected, "{mode}");
        let gate = gate_of(&sim);
        assert_eq!(gate.why.and_then(|why| why.code), Some(Code::NOT_PROTECTED), "{mode}");
        assert!(sim.keeping.hsms.iter().all(|h| h.whose == Whose::Fleet), "{mode}: its HSM is removed all the same");
        assert_eq!(sim.state.summary(sim.now).counts.get(&Standing::Done), Some(&1));
        sim.keeping.barren = false;
        assert_eq!(sim.resume_until(End::Done), 1, "{mode}");
    }
}

#[test]
fn h08_where_aws_adds_no_hsm_the_gate_waits_for_the_backup_that_comes_by_itself() {
    let mut sim = Sim::new(guarded(2, 1, 1, "undo", "force"), 7, Faults::NONE);
    sim.keeping.refuses = true;
    canary_done(&mut sim);
    let settled = sim.now;
    while sim.keeping.asked < 3 {
        sim.step();
    }
    sim.step();
    let why = gate_of(&sim).why.expect("waits");
    assert_eq!(why.code, Some(Code::FORCED_HSM_REFUSED), "{why:?}");
    assert_eq!(sim.drive(), End::Done);
    assert_eq!(sim.keeping.zones.len(), 2, "the zones of the cluster in turn");
    assert!(sim.keeping.asked <= 6, "three times a wave: {}", sim.keeping.asked);
    assert!(sim.now.since(settled) > 600);
}

#[test]
fn h08_an_undone_campaign_waits_for_no_key_and_a_refused_password_wants_a_person_at_once() {
    let mut sim = Sim::new(guarded(2, 1, 1, "undo", "wait"), 8, Faults::NONE);
    canary_done(&mut sim);
    let hosts = sim.plan.hosts.iter().map(|h| UndoHost { instance: h.instance.clone(), saw: None }).collect();
    sim.record(EventKind::UndoRequested { plan: Digest::of(b"undo"), hosts });
    let asked = sim.now;
    assert_eq!(sim.drive(), End::Undone);
    assert!(sim.now.since(asked) < 3_600);
}

#[test]
fn h08_a_crash_at_every_boundary_adds_no_second_hsm_and_removes_only_ours() {
    let whole = {
        let mut sim = Sim::new(guarded(2, 1, 1, "undo", "force"), 9, Faults::NONE);
        assert_eq!(sim.drive(), End::Done);
        assert_eq!(sim.keeping.created, 2);
        sim.points
    };
    let mut uncertain = 0;
    for point in 1..=whole {
        let mut sim = Sim::new(guarded(2, 1, 1, "undo", "force"), 9, Faults::NONE);
        sim.crash_at = Some(point);
        let mut end = sim.drive();
        assert_eq!(sim.crashes, 1);
        if end == End::Unprotected {
            // Between CreateHsm and its answer: an HSM is there, and no answer says that it is ours.
            assert_eq!(gate_of(&sim).why.and_then(|why| why.code), Some(Code::FORCED_HSM_UNCERTAIN), "point {point}");
            uncertain += 1;
            sim.record(EventKind::Resumed { hosts: Retry::Failed, window: None });
            end = sim.drive();
        }
        assert_eq!(end, End::Done, "point {point}");
        assert!(sim.keeping.created <= 2, "point {point}: {} HSMs", sim.keeping.created);
        let left: Vec<_> = sim.keeping.hsms.iter().filter(|h| h.whose != Whose::Fleet).collect();
        assert!(left.len() <= 1 && left.iter().all(|h| h.whose == Whose::Lost), "point {point}");
    }
    assert_eq!(uncertain, 2, "one point a wave at which nobody can know");
    println!("{whole} crash points with a forced backup");
}

/// It may have made a key that nobody reported, and may be at work yet: the gate waits for a backup, and no HSM comes or goes.
#[test]
fn h08_a_host_that_never_answers_counts_as_one_with_new_keys() {
    let mut sim = Sim::new(guarded(3, 1, 3, "undo", "force"), 3, Faults::NONE);
    while sim.state.standing(&sim.plan.hosts[0].instance.clone()) != Some(Standing::CuttingOver) {
        sim.step();
    }
    sim.mute = Some(sim.plan.hosts[0].instance.clone());
    while sim.state.standing(&sim.plan.hosts[0].instance.clone()) != Some(Standing::Stuck) {
        sim.step();
    }
    let silent = sim.now;
    assert_eq!(gate_of(&sim).standing, Protected::Waits);
    while sim.state.summary(sim.now).waves.len() < 2 {
        sim.step();
        assert_eq!(sim.state.end(), None);
    }
    assert_eq!(sim.keeping.created, 0, "an HSM came while a host may have been at work");
    assert!(sim.now.since(silent) > 600);
}

#[test]
fn h41_after_each_wave_the_keys_of_its_hosts_are_written_down_and_again_when_they_are_undone() {
    let mut sim = Sim::new(guarded(5, 2, 2, "undo", "force"), 4, Faults::NONE);
    canary_done(&mut sim);
    while sim.looks == 0 {
        sim.step();
    }
    let canary = sim.state.summary(sim.now).waves[0].clone();
    assert_eq!(sim.inventoried.keys().cloned().collect::<Vec<_>>(), canary, "the canary's, before the next wave begins");
    assert_eq!(sim.drive(), End::Done);
    assert!(sim.all_inventoried());
    assert_eq!(sim.looks, 3, "once a wave");
    let written = sim.state.summary(sim.now).inventories.expect("a second region is named");
    assert_eq!((written.written, written.missing.len()), (5, 0));
    let hosts = vec![UndoHost { instance: instance(1), saw: None }];
    sim.record(EventKind::UndoRequested { plan: Digest::of(b"undo"), hosts });
    sim.drive();
    assert!(sim.all_inventoried() && sim.looks == 4, "one host was undone: it needs other keys now");
}

#[test]
fn h41_an_inventory_that_cannot_be_written_holds_nobody_up_and_is_tried_again() {
    let mut sim = Sim::new(guarded(3, 1, 1, "undo", "off"), 4, Faults::NONE);
    sim.faults.guard = 1; // With the gate off, only inventories are asked for.
    assert_eq!(sim.drive(), End::Done);
    // One more a wave for what failed before, and one more at the end.
    assert_eq!(sim.looks, 4);
    let missing = sim.state.summary(sim.now).inventories.expect("a second region is named").missing;
    assert_eq!(missing.len(), 3);
    assert!(missing.iter().all(|m| m.code == Some(Code::INVENTORY_UNWRITTEN) && m.why.contains("bucket")), "{missing:?}");
    sim.resume_until(End::Done);
    assert!(sim.all_inventoried());
    assert_eq!(sim.state.summary(sim.now).inventories.expect("named").missing, vec![]);
}

#[test]
fn a_journal_and_a_plan_of_before_the_gate_mean_what_they_meant() {
    let plan = guarded(2, 1, 1, "undo", "wait");
    let mut body = (*plan).clone();
    body.protect = None;
    let old = Plan::seal(body);
    assert!(!old.to_json().contains("protect"), "its text, and so its hash, is that of the version before");
    assert_eq!(Plan::from_json(&old.to_json()).expect("reads"), old);
    let mut sim = Sim::new(old, 2, Faults::NONE);
    assert_eq!(sim.drive(), End::Done);
    assert!(sim.journal.iter().all(|e| !matches!(e.kind, EventKind::ProtectionObserved { .. })));
    assert_eq!(sim.state.summary(sim.now).protection, None);
    let report = r#"{"at":1,"kind":{"report-received":{"token":"t-1","instance":"i-00000000000000001","operation":"op-1","report":REPORT}}}"#;
    let event = sim.journal.iter().find(|e| matches!(e.kind, EventKind::ReportReceived { .. })).expect("a report");
    let EventKind::ReportReceived { report: told, .. } = &event.kind else { panic!() };
    let report = report.replace("REPORT", &serde_json::to_string(told).expect("serialises"));
    let read: Event = serde_json::from_str(&report).expect("an event without AWS's time is read");
    assert!(matches!(read.kind, EventKind::ReportReceived { aws_at: None, .. }));
    let mut snapshot = serde_json::to_value(sim.state.snapshot()).expect("serialises");
    snapshot["core"].as_object_mut().expect("an object").remove("guard").expect("the gate's part");
    let restored = State::restore(sim.plan.clone(), serde_json::from_value(snapshot).expect("reads back")).expect("same plan");
    assert_eq!(restored.snapshot(), sim.state.snapshot());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// H8 is checked by the world at each approval, removal and end; this makes the nights.
    #[test]
    fn h08_any_night_with_the_gate_ends_protected_and_with_the_hsms_it_found(
        seed in any::<u64>(), hosts in 1usize..7, concurrency in 1u16..4, force in any::<bool>(), lost in 0u32..200,
    ) {
        let mode = if force { "force" } else { "wait" };
        let mut sim = Sim::new(guarded(hosts, concurrency, 3, "undo", mode), seed, Faults::MANY);
        if lost < 40 {
            for _ in 0..lost {
                if sim.state.end().is_some() {
                    break;
                }
                sim.step();
            }
            sim.lose_journal();
        }
        let mut end = sim.drive();
        if end != End::Done {
            sim.resume_until(End::Done);
            end = End::Done;
        }
        prop_assert_eq!(end, End::Done);
        prop_assert!(sim.all(|staged, cut_over, proven| staged && cut_over && proven));
        prop_assert_eq!(sim.keeping.hsms.iter().filter(|h| h.whose == Whose::Fleet).count(), 2);
        prop_assert!(sim.keeping.hsms.iter().all(|h| h.whose != Whose::Ours));
        prop_assert_eq!(gate_of(&sim).standing, Protected::Protected);
        written_in_the_end(&mut sim, End::Done);
    }
}
