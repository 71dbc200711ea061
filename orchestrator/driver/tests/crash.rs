//! What a campaign survives: the end of the program between any two effects, and every kind of lost answer.

mod common;

use common::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tde2hsm_campaign::plan::{DocumentPin, Plan};
use tde2hsm_campaign::reducer::{End, EventKind, Gate, Retry};
use tde2hsm_driver::{Driver, OpenError, Silent, Turn, plan_of};
use tde2hsm_journal::{Head, Journal, JournalError, MemoryJournal};
use tde2hsm_protocol::{Code, Digest, Direction, Generation, Segment, Work};

const HOSTS: usize = 3;

struct Bench {
    plan: Arc<Plan>,
    journal: FusedJournal,
    cloud: FakeCloud,
    clock: Arc<FakeClock>,
    fuse: Arc<Fuse>,
}

impl Bench {
    fn new() -> Bench {
        Bench::of(plan(HOSTS))
    }

    fn of(plan: Arc<Plan>) -> Bench {
        let fuse = Arc::new(Fuse::default());
        let clock = Arc::new(FakeClock { now: Mutex::new(START), deadline: START.plus(86_400) });
        Bench {
            plan,
            journal: FusedJournal { inner: MemoryJournal::default(), fuse: Arc::clone(&fuse) },
            cloud: FakeCloud::new(Arc::clone(&clock), Arc::clone(&fuse)),
            clock,
            fuse,
        }
    }

    fn first(&self) -> Vec<EventKind> {
        let started = EventKind::CampaignStarted { plan: self.plan.digest(), campaign: campaign(), generation: Generation(1) };
        vec![started, EventKind::Approved { gate: Gate::Stage }]
    }

    /// `apply`: begins the campaign and drives it.
    async fn apply(&self, operator: &Opens) -> Turn {
        let plan = Arc::clone(&self.plan);
        let mut driver =
            Driver::start(&self.journal, &self.cloud, &*self.clock, &Silent, plan, campaign(), self.first()).await.unwrap();
        driver.run(operator).await.unwrap()
    }

    /// `resume`, or `apply` where nothing was begun.
    async fn resume(&self, operator: &Opens) -> Turn {
        let mut driver = match Driver::open(&self.journal, &self.cloud, &*self.clock, &Silent, campaign()).await {
            Ok(driver) => driver,
            Err(OpenError::Unknown(_)) => return self.apply(operator).await,
            Err(e) => panic!("{e}"),
        };
        let interrupted = EventKind::Interrupted { why: "test".to_owned() };
        let hosts = if driver.state().end().is_some() { Retry::Failed } else { Retry::Nothing };
        driver.record(vec![interrupted, EventKind::Resumed { hosts, window: None }]).await.unwrap();
        driver.run(operator).await.unwrap()
    }

    /// Drives until the fuse blows, if it does; answers whether it did.
    async fn apply_until_blown(&self) -> bool {
        let operator = Opens::default();
        tokio::select! {
            biased;
            () = self.fuse.blown.notified() => true,
            turn = self.apply(&operator) => { assert_eq!(turn, Turn::Ended(End::Done)); false }
        }
    }

    /// Every host ran every segment once, and nothing was delivered twice that had arrived once.
    fn check(&self, what: &str) {
        for host in 0..HOSTS {
            let mut runs = self.cloud.runs(&instance(host));
            let expected = Segment::ALL.map(|segment| Work::Run { segment, direction: Direction::Do });
            let place = |work: &Work| expected.iter().position(|w| w == work);
            runs.sort_by_key(place);
            assert_eq!(runs, expected, "{what}: host {host}");
        }
        for ((instance, operation), times) in &self.cloud.world.lock().unwrap().delivered {
            assert_eq!(*times, 1, "{what}: {operation} was sent to {instance} {times} times");
        }
    }
}

#[tokio::test]
async fn a_campaign_runs_to_its_end_and_shows_the_hosts_its_journal() {
    let bench = Bench::new();
    let operator = Opens::default();
    assert_eq!(bench.apply(&operator).await, Turn::Ended(End::Done));
    bench.check("nothing planted");
    assert_eq!(*operator.asked.lock().unwrap(), [Gate::Wave(1), Gate::Wave(2)], "each gate is asked once");
    let links: Vec<_> = bench.journal.read(&campaign(), 0).await.unwrap().iter().map(|e| e.link).collect();
    let heads = bench.cloud.world.lock().unwrap().heads.clone();
    assert!(!heads.is_empty() && heads.iter().all(|head| links.contains(head)), "H38: each order carries the journal's head");
}

#[tokio::test]
async fn a_command_is_first_read_after_three_seconds_or_as_soon_as_the_plan_lets_it_be() {
    for (poll, first) in [(15, 3), (1, 1)] {
        let mut body = (**plan(HOSTS)).clone();
        body.policy.poll_seconds = poll;
        let bench = Bench::of(Arc::new(Plan::seal(body)));
        assert_eq!(bench.apply(&Opens::default()).await, Turn::Ended(End::Done));
        let looks = bench.cloud.world.lock().unwrap().first_looks.clone();
        assert!(!looks.is_empty() && looks.values().all(|look| *look == first), "every {poll} s: {looks:?}");
    }
}

/// The program ends before or after each durable write and each call; `resume` brings the campaign to the same end.
#[tokio::test]
async fn a_crash_between_any_two_effects_is_resumed() {
    let bench = Bench::new();
    bench.fuse.set(None);
    assert!(!bench.apply_until_blown().await);
    let points = bench.fuse.passed();
    assert!(points > 40, "only {points} points: the test tests nothing");
    for lag in [0, 20] {
        for point in 1..=points {
            let bench = Bench::new();
            bench.cloud.world.lock().unwrap().list_lag = lag;
            bench.fuse.set(Some(point));
            assert!(bench.apply_until_blown().await || lag > 0, "point {point} was not reached");
            bench.fuse.set(None);
            let turn = bench.resume(&Opens::default()).await;
            assert_eq!(turn, Turn::Ended(End::Done), "crash at point {point}, lists lag {lag} s");
            bench.check(&format!("crash at point {point}, lists lag {lag} s"));
        }
    }
    println!("resumed from {points} crash points, with lists at once and 20 s late");
}

/// H8: the same with an HSM added and removed a wave. Only a crash between CreateHsm and its answer's entry leaves a person to
/// look, and then the HSM is left alone and no second one is added.
#[tokio::test]
async fn h08_a_crash_between_any_two_effects_of_a_forced_backup_is_resumed() {
    const WAVES: usize = 2;
    let bench = Bench::of(guarded(HOSTS));
    bench.fuse.set(None);
    assert!(!bench.apply_until_blown().await);
    bench.check("nothing planted");
    assert_eq!(bench.cloud.world.lock().unwrap().hsms.len(), WAVES);
    let points = bench.fuse.passed();
    let mut uncertain = 0;
    for point in 1..=points {
        let what = format!("crash at point {point}");
        let bench = Bench::of(guarded(HOSTS));
        bench.fuse.set(Some(point));
        assert!(bench.apply_until_blown().await, "{what} was not reached");
        bench.fuse.set(None);
        let mut turn = bench.resume(&Opens::default()).await;
        let stuck = turn == Turn::Ended(End::Unprotected);
        if stuck {
            uncertain += 1;
            turn = bench.resume(&Opens::default()).await;
        }
        assert_eq!(turn, Turn::Ended(End::Done), "{what}");
        bench.check(&what);
        let world = bench.cloud.world.lock().unwrap();
        let left = world.hsms.iter().filter(|hsm| hsm.gone.is_none()).count();
        assert_eq!((world.hsms.len(), left), (WAVES, usize::from(stuck)), "{what}");
        assert!(!world.copies.is_empty(), "{what}");
        assert_eq!(world.inventoried.len(), HOSTS, "{what}");
    }
    // After the call, and before its answer is written down.
    assert_eq!(uncertain, 2 * WAVES);
    println!("resumed from {points} crash points with a forced backup, {uncertain} of them with a person's help");
}

/// The answer of CreateHsm is lost: nothing is added again, nothing removed, and the page says whom to ask.
#[tokio::test]
async fn h08_a_lost_answer_of_create_hsm_is_looked_for_and_left_to_a_person() {
    let bench = Bench::of(guarded(HOSTS));
    bench.cloud.world.lock().unwrap().hsm_loss = Some(Loss::Reply);
    assert_eq!(bench.apply(&Opens::default()).await, Turn::Ended(End::Unprotected));
    let (plan, events, _) = plan_of(&bench.journal, &campaign()).await.unwrap();
    let state = tde2hsm_campaign::reducer::State::replay(plan, &events);
    let why = state.summary(START).protection.and_then(|p| p.why).expect("it says why");
    assert_eq!(why.code, Some(Code::FORCED_HSM_UNCERTAIN));
    bench.cloud.world.lock().unwrap().hsm_loss = None;
    assert_eq!(bench.resume(&Opens::default()).await, Turn::Ended(End::Done));
    let world = bench.cloud.world.lock().unwrap();
    assert_eq!(world.hsms.iter().filter(|hsm| hsm.gone.is_none()).count(), 1);
}

/// A crash while resuming from a crash.
#[tokio::test]
async fn a_second_crash_is_resumed_too() {
    let mut tried = 0;
    for first in (1..60).step_by(7) {
        for second in (1..40).step_by(3) {
            let bench = Bench::new();
            bench.fuse.set(Some(first));
            if !bench.apply_until_blown().await {
                continue;
            }
            bench.fuse.set(Some(second));
            let operator = Opens::default();
            let ended = tokio::select! {
                biased;
                () = bench.fuse.blown.notified() => false,
                turn = bench.resume(&operator) => { assert_eq!(turn, Turn::Ended(End::Done)); true }
            };
            bench.fuse.set(None);
            if !ended {
                assert_eq!(bench.resume(&Opens::default()).await, Turn::Ended(End::Done), "{first}, then {second}");
            }
            bench.check(&format!("crash at {first}, then {second}"));
            tried += 1;
        }
    }
    println!("resumed from {tried} pairs of crashes");
    assert!(tried > 50);
}

/// A§1.5: an answer that is lost is found by its token, and the command is not sent again.
#[tokio::test]
async fn a_lost_reply_is_found_by_its_token_and_never_sent_twice() {
    let bench = Bench::new();
    assert_eq!(bench.apply(&Opens::default()).await, Turn::Ended(End::Done));
    let sends = bench.cloud.world.lock().unwrap().sends;
    let mut tried = 0;
    for loss in [Loss::Reply, Loss::Command, Loss::Throttled] {
        for lag in [0, 45] {
            for lost in 0..sends {
                let bench = Bench::new();
                {
                    let mut world = bench.cloud.world.lock().unwrap();
                    world.losses = BTreeMap::from([(lost, loss)]);
                    world.list_lag = lag;
                }
                let what = format!("{loss:?} at send {lost}, lists lag {lag} s");
                assert_eq!(bench.apply(&Opens::default()).await, Turn::Ended(End::Done), "{what}");
                bench.check(&what);
                tried += 1;
            }
        }
    }
    println!("tried {tried} lost sends");
}

/// What no waiting mends is said at once, and the campaign goes on once it is mended.
#[tokio::test]
async fn a_denied_call_ends_the_loop_and_not_the_campaign() {
    let bench = Bench::new();
    bench.cloud.world.lock().unwrap().losses = BTreeMap::from([(1, Loss::Denied)]);
    let plan = Arc::clone(&bench.plan);
    let mut driver =
        Driver::start(&bench.journal, &bench.cloud, &*bench.clock, &Silent, plan, campaign(), bench.first()).await.unwrap();
    let error = driver.run(&Opens::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::AWS_DENIED);
    assert_eq!(bench.resume(&Opens::default()).await, Turn::Ended(End::Done));
    bench.check("after a denied call");
}

/// H34: the version that the operator names in place of one that is gone is used from then on, and after a restart too.
#[tokio::test]
async fn h34_orders_go_out_by_the_document_that_the_operator_has_named_since() {
    let bench = Bench::new();
    let shut = Opens { shut: [Gate::Wave(1)].into(), ..Opens::default() };
    assert_eq!(bench.apply(&shut).await, Turn::Stopped);
    let pinned = bench.plan.document.clone();
    let named = |name: &str| DocumentPin { name: name.to_owned(), version: "9".to_owned(), hash: Digest::of(b"anew") };
    let mut driver = Driver::open(&bench.journal, &bench.cloud, &*bench.clock, &Silent, campaign()).await.unwrap();
    driver.record(vec![EventKind::DocumentNamed { document: named("another-document") }]).await.unwrap();
    assert_eq!(driver.state().document(), &pinned, "commands that are out are looked for by the name");
    driver.record(vec![EventKind::DocumentNamed { document: named(&pinned.name) }]).await.unwrap();
    let before = bench.cloud.world.lock().unwrap().documents.clone();
    assert_eq!(before.iter().collect::<Vec<_>>(), [&pinned.version]);
    bench.cloud.world.lock().unwrap().documents.clear();
    assert_eq!(bench.resume(&Opens::default()).await, Turn::Ended(End::Done));
    assert_eq!(bench.cloud.world.lock().unwrap().documents.iter().collect::<Vec<_>>(), ["9"]);
}

/// Whoever says no at a gate leaves a campaign that stands there, and can be asked again later.
#[tokio::test]
async fn a_shut_gate_stops_the_campaign_after_the_hosts_in_hand() {
    let bench = Bench::new();
    let shut = Opens { shut: [Gate::Wave(2)].into(), ..Opens::default() };
    assert_eq!(bench.apply(&shut).await, Turn::Stopped);
    assert_eq!(shut.asked.lock().unwrap().iter().filter(|gate| **gate == Gate::Wave(2)).count(), 1, "asked once");
    assert_eq!(bench.resume(&Opens::default()).await, Turn::Ended(End::Done));
    bench.check("after a shut gate");
}

/// H32: of two controllers on one journal, the second to write has no effect on any host.
#[tokio::test]
async fn a_second_controller_is_refused_before_it_sends() {
    let bench = Bench::new();
    let first = bench.first();
    let plan = Arc::clone(&bench.plan);
    let mut one =
        Driver::start(&bench.journal, &bench.cloud, &*bench.clock, &Silent, Arc::clone(&plan), campaign(), first).await.unwrap();
    let again = Driver::start(&bench.journal, &bench.cloud, &*bench.clock, &Silent, plan, campaign(), bench.first()).await;
    assert!(matches!(again.err(), Some(JournalError::Conflict { .. })), "the same campaign is begun once");
    let mut two = Driver::open(&bench.journal, &bench.cloud, &*bench.clock, &Silent, campaign()).await.unwrap();
    one.record(vec![EventKind::Interrupted { why: "one".to_owned() }]).await.unwrap();
    let before = bench.cloud.world.lock().unwrap().sends;
    assert!(two.run(&Opens::default()).await.is_err());
    assert_eq!(bench.cloud.world.lock().unwrap().sends, before, "nothing was sent by the one that lost");
}

#[tokio::test]
async fn a_campaign_is_rebuilt_from_its_journal_alone() {
    let bench = Bench::new();
    assert_eq!(bench.apply(&Opens::default()).await, Turn::Ended(End::Done));
    let (plan, events, head) = plan_of(&bench.journal, &campaign()).await.unwrap();
    assert_eq!(plan.digest(), bench.plan.digest());
    assert_eq!(head.seq as usize, events.len());
    assert_ne!(head, Head::START);
}
