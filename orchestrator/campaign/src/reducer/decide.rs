//! `(state, now) -> decisions`.
//!
//! Every decision is taken from the state alone, so a controller that starts anew takes the same one. Two rules keep
//! harm small: a host whose order is uncertain or open gets nothing else, and a database is touched only by a host
//! that holds a place in a wave, of which there are never more than the budget can bear to lose (invariant 5).

use super::*;
use crate::rules;
use std::ops::ControlFlow;
use tde2hsm_protocol::{HostOrder, ORDER_HOSTS, PROTOCOL_VERSION, Severity, WireError};

/// An order may be this many seconds early on the host's clock.
const CLOCK_SKEW: i64 = 300;
/// The oldest view of the cluster that a proof may rest on, in seconds.
const PROOF_VIEW: i64 = 300;
/// How long a question may take to be delivered.
const QUESTION: i64 = 600;
/// Up to this many secrets the order carries the plan's whole table, so that an index means the same in every order.
const WHOLE_TABLE: usize = 64;

/// The right to put one more host in flight in its failure domain. Only [`BudgetPermit::issue`] makes one, and it does
/// not when all that are out and this one failing would overrun the budget.
#[derive(Debug)]
struct BudgetPermit(());

impl BudgetPermit {
    fn issue(failed: u32, in_flight: u32, budget: u32) -> Option<BudgetPermit> {
        (failed + in_flight < budget).then_some(BudgetPermit(()))
    }
}

/// A host by its place, with the secrets whose login it is to prove.
type Addressee = (usize, Vec<u16>);

/// What one host needs now.
pub(super) enum Need {
    /// It has reached its goal, or a person must look at it.
    Nothing,
    /// Its order is open; the answer is waited for.
    Open,
    Later {
        until: Timestamp,
        why: Reason,
    },
    /// Something other than time must happen.
    Blocked {
        why: Reason,
    },
    ObserveCluster,
    Send {
        work: Work,
        proves: Vec<u16>,
    },
}

/// Why a host waits. `status` makes sentences of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reason {
    Gate(Gate),
    Wave,
    Pause,
    Ask,
    LateDelivery,
    Frozen(u16),
    Proof(u16),
    WindowOpens(Timestamp),
    WindowClosed,
    Cluster(String),
    UndoSlot,
}

impl State {
    /// What to do now. The same state and time give the same decisions. To be asked only when each effect of earlier
    /// decisions has its event: an intent without an answer counts as uncertain.
    pub fn decide(&self, now: Timestamp) -> Vec<Decision> {
        let core = &self.core;
        if core.started.is_none() || core.end.is_some() {
            return Vec::new();
        }
        if core.superseded {
            return vec![Decision::Finish { end: End::Superseded }];
        }
        let mut decisions = Vec::new();
        let mut until: Option<Timestamp> = None;
        let mut at_latest = |t: Timestamp| until = Some(until.map_or(t, |u| u.min(t)));

        let mut commands = Vec::new();
        for (token, order) in &core.orders {
            match &order.sending {
                Sending::Uncertain { looked } => {
                    let due = looked.map_or(order.at, |l| l.plus(self.poll()));
                    if due <= now {
                        let instances = order.intent.hosts.iter().map(|h| h.instance.clone()).collect();
                        decisions.push(Decision::FindCommand {
                            token: token.clone(),
                            since: order.at.plus(-CLOCK_SKEW),
                            instances,
                        });
                    }
                    at_latest(due.max(now.plus(1)));
                }
                Sending::Sent { command } => {
                    let hosts = order.open.iter().filter_map(|place| self.sent_to(order, *place)).collect();
                    commands.push(OpenCommand { token: token.clone(), command: command.clone(), hosts });
                    at_latest(now.plus(self.poll()));
                }
            }
        }
        if !commands.is_empty() {
            decisions.push(Decision::ReadCommands { commands, every: self.plan.policy.poll_seconds.max(1) });
        }

        let mut turn = Turn::new(self, now);
        let mut observe = false;
        // No host is at work, nor about to be by itself, as far as is known; and surely none is.
        let at_work = |host: &HostState| host.operation.is_some();
        let mut idle = core.orders.is_empty() && core.hosts.iter().all(|host| !at_work(host) || host.result.is_some());
        let still = !core.hosts.iter().any(at_work);
        let mut sends: Vec<(Work, bool, Vec<Addressee>)> = Vec::new();
        for place in 0..core.hosts.len() {
            match turn.need(place) {
                Need::Nothing | Need::Open | Need::Blocked { .. } => {}
                Need::Later { until, why } => {
                    idle &= matches!(why, Reason::WindowOpens(_));
                    at_latest(until);
                }
                Need::ObserveCluster => (observe, idle) = (true, false),
                Need::Send { work, proves } => {
                    idle = false;
                    // A host that did not answer may be why AWS refused the whole call: it is sent to alone.
                    let doubtful = core.hosts[place].operation.as_ref().is_some_and(|o| o.unanswered > 0);
                    let alone = doubtful || (!proves.is_empty() && self.plan.secrets.len() > WHOLE_TABLE);
                    match sends.iter_mut().find(|(w, a, _)| *w == work && !*a) {
                        Some((_, _, hosts)) if !alone => hosts.push((place, proves)),
                        _ => sends.push((work, alone, vec![(place, proves)])),
                    }
                }
            }
        }
        if idle {
            decisions.extend(self.uninventoried(false));
        }
        let how = self.how_it_ends(now);
        // Whoever undid everything waits for no key, and a refused password wants a person at once; but an HSM that was
        // added is taken away in any case.
        let guard = if self.forcing() || !matches!(how, End::Undone | End::LoginRefused) {
            self.guard(now, idle, idle && still)
        } else {
            Default::default()
        };
        if observe || guard.observe_cluster {
            decisions.push(Decision::ObserveCluster);
        }
        decisions.extend(guard.decisions);
        if let Some(until) = guard.until {
            at_latest(until);
        }
        let mut made = core.orders_made;
        for (work, _, hosts) in sends {
            for batch in hosts.chunks(ORDER_HOSTS) {
                self.batch(work, batch, now, &mut made, &mut decisions);
            }
        }
        let busy = !core.orders.is_empty() || !decisions.is_empty();
        let asked = self.gate(now);
        if let Some((gate, hosts)) = asked {
            decisions.push(Decision::Ask { gate, hosts });
        } else if let Some(opens) = self.window_opens(now) {
            at_latest(opens);
        }
        if !busy && until.is_none() && decisions.is_empty() {
            return vec![self.uninventoried(true).unwrap_or(Decision::Finish { end: how })];
        }
        if let Some(until) = until {
            let mut turn = Turn::new(self, now);
            let going = (0..core.hosts.len()).filter(|place| core.hosts[*place].result.is_none());
            let why = going.filter_map(|p| Some((self.plan.hosts[p].instance.clone(), self.why_of(p, &mut turn)?))).collect();
            decisions.push(Decision::Wait { until: until.max(now.plus(1)), why });
        }
        decisions
    }

    fn sent_to(&self, order: &OpenOrder, place: usize) -> Option<(InstanceId, OperationId)> {
        let instance = &self.plan.hosts.get(place)?.instance;
        let asked = order.intent.hosts.iter().find(|h| h.instance == *instance)?;
        Some((instance.clone(), asked.operation.clone()))
    }

    /// One order, or two halves where it would not fit its line.
    fn batch(&self, work: Work, hosts: &[Addressee], now: Timestamp, made: &mut u32, out: &mut Vec<Decision>) {
        match self.order(work, hosts, now, *made) {
            Some(send) => {
                if matches!(send.order.encode(), Err(WireError::OrderTooLarge(_))) && hosts.len() > 1 {
                    let (first, second) = hosts.split_at(hosts.len() / 2);
                    self.batch(work, first, now, made, out);
                    self.batch(work, second, now, made, out);
                } else {
                    *made = made.saturating_add(1);
                    out.push(Decision::Send(Box::new(send)));
                }
            }
            None => debug_assert!(false, "decide is not asked before the campaign has started"),
        }
    }

    fn order(&self, work: Work, hosts: &[Addressee], now: Timestamp, made: u32) -> Option<SendOrder> {
        let started = self.core.started.as_ref()?;
        let plan = &self.plan;
        let moves = matches!(work, Work::Run { .. });
        let table: Vec<u16> = if !moves {
            Vec::new()
        } else if plan.secrets.len() <= WHOLE_TABLE {
            (0..plan.secrets.len() as u16).collect()
        } else {
            let mut used: Vec<u16> = hosts.iter().flat_map(|(place, _)| self.uses[*place].iter().copied()).collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        let at = |index: u16| table.iter().position(|i| *i == index).map_or(u16::MAX, |p| p as u16);
        let mut not_after = now.plus(i64::from(plan.policy.order_seconds.max(60)));
        if !moves {
            // A question changes nothing; one that is not delivered soon is better asked again.
            not_after = not_after.min(now.plus(QUESTION));
        }
        if let (true, Some(closes)) = (self.windowed(work), self.core.window.not_after) {
            not_after = not_after.min(closes);
        }
        let not_before = now.plus(-CLOCK_SKEW);
        let token = id(&["t", started.campaign.as_str(), &started.generation.to_string(), &made.to_string()]);
        let token = OrderToken::new(format!("t-{token}")).ok()?;
        let mut asked = Vec::new();
        let mut ordered = Vec::new();
        for (place, proves) in hosts {
            let planned = &plan.hosts[*place];
            let host = &self.core.hosts[*place];
            let operation = match &host.operation {
                Some(operation) => operation.id.clone(),
                None => self.next_operation(started, planned, host)?,
            };
            asked.push(IntendedHost { instance: planned.instance.clone(), operation: operation.clone(), proves: proves.clone() });
            ordered.push(HostOrder {
                instance: planned.instance.clone(),
                operation,
                saw: host.saw.filter(|_| moves),
                prove_logins: proves.iter().map(|i| at(*i)).collect(),
                databases: if moves { planned.databases.iter().map(|d| reindexed(&d.order, at)).collect() } else { Vec::new() },
                detail: None,
            });
        }
        let order = Order {
            v: PROTOCOL_VERSION,
            account: plan.account.clone(),
            region: plan.region.clone(),
            campaign: started.campaign.clone(),
            plan: plan.digest(),
            generation: started.generation,
            token: token.clone(),
            not_before,
            not_after,
            journal_head: Digest::ZERO,
            work,
            target: moves.then(|| plan.target.clone()),
            secrets: table.iter().filter_map(|i| self.secret(*i)).collect(),
            escrow: moves.then(|| plan.escrow.clone()),
            drill: None,
            hosts: ordered,
        };
        let fetch = match work {
            Work::Run { segment: Segment::Stage, direction: Direction::Do } => Fetch::Client,
            _ => Fetch::Runner,
        };
        let intent = Intent { token, work, not_before, not_after, secrets: table, hosts: asked };
        Some(SendOrder { order, fetch, intent })
    }

    /// The same state always makes the same id, and no two operations of a campaign share one.
    fn next_operation(&self, started: &Started, planned: &crate::plan::HostPlan, host: &HostState) -> Option<OperationId> {
        let text = id(&[
            "op",
            started.campaign.as_str(),
            &started.generation.to_string(),
            planned.instance.as_str(),
            &host.operations_made.to_string(),
        ]);
        OperationId::new(format!("op-{text}")).ok()
    }

    /// The window holds for what takes databases away from their users; undoing is never kept waiting by it.
    fn windowed(&self, work: Work) -> bool {
        matches!(work, Work::Run { segment: Segment::Cutover | Segment::Prove, direction: Direction::Do })
    }

    fn window_opens(&self, now: Timestamp) -> Option<Timestamp> {
        let opens = self.core.window.not_before.filter(|t| now < *t)?;
        (!self.candidates().is_empty() && !self.unprotected()).then_some(opens)
    }

    fn window_closed(&self, now: Timestamp) -> bool {
        self.core.window.not_after.is_some_and(|t| now >= t)
    }

    /// Hosts that are staged and in no wave.
    fn candidates(&self) -> Vec<usize> {
        let ready = |h: &HostState| {
            h.goal == Goal::Do
                && h.result.is_none()
                && h.operation.is_none()
                && h.stage == Phase::Done
                && h.prove != Phase::Done
                && h.wave.is_none()
        };
        (0..self.core.hosts.len()).filter(|place| ready(&self.core.hosts[*place])).collect()
    }

    /// The hosts of the next wave: at most the canary's width until one host is proven, the concurrency after, and of each
    /// failure domain no more than may all fail.
    pub(super) fn next_wave(&self) -> Vec<usize> {
        let waves = &self.plan.waves;
        let proven = self.core.hosts.iter().any(|h| h.prove == Phase::Done);
        let width = usize::from(if proven { waves.concurrency } else { waves.canary.min(waves.concurrency) }.max(1));
        let budget = u32::from(waves.budget);
        let mut domains: HashMap<&str, (u32, u32)> = HashMap::new();
        for (planned, host) in self.plan.hosts.iter().zip(&self.core.hosts) {
            let (failed, in_flight) = domains.entry(planned.domain.as_str()).or_default();
            *failed += u32::from(host.failed);
            *in_flight += u32::from(host.in_flight());
        }
        let mut members = Vec::new();
        for place in self.candidates() {
            if members.len() == width {
                break;
            }
            let Some((failed, in_flight)) = domains.get_mut(self.plan.hosts[place].domain.as_str()) else { continue };
            if let Some(BudgetPermit(())) = BudgetPermit::issue(*failed, *in_flight, budget) {
                *in_flight += 1;
                members.push(place);
            }
        }
        members
    }

    /// The gate the campaign stands at now, with the hosts it is about.
    fn gate(&self, now: Timestamp) -> Option<(Gate, Vec<InstanceId>)> {
        let core = &self.core;
        let name = |places: Vec<usize>| places.into_iter().map(|p| self.plan.hosts[p].instance.clone()).collect::<Vec<_>>();
        let going = |h: &HostState| h.goal == Goal::Do && h.result.is_none();
        if !core.approved.contains(&Gate::Stage) {
            let hosts: Vec<usize> =
                (0..core.hosts.len()).filter(|p| going(&core.hosts[*p]) && core.hosts[*p].stage != Phase::Done).collect();
            if !hosts.is_empty() {
                return Some((Gate::Stage, name(hosts)));
            }
        }
        // A wave begins when the one before has ended and no host is still to be staged.
        let unsettled = core.hosts.iter().any(|h| h.in_flight() || (going(h) && h.stage != Phase::Done));
        let stop = self.unprotected()
            || self.any_refused()
            || self.window_closed(now)
            || core.window.not_before.is_some_and(|t| now < t);
        if unsettled || stop {
            return None;
        }
        let members = self.next_wave();
        let number = u16::try_from(core.waves.len() + 1).unwrap_or(u16::MAX);
        (!members.is_empty()).then(|| (Gate::Wave(number), name(members)))
    }

    pub(super) fn current_gate(&self, now: Timestamp) -> Option<Gate> {
        if self.core.started.is_none() || self.core.end.is_some() {
            return None;
        }
        self.gate(now).map(|(gate, _)| gate)
    }

    pub(super) fn any_refused(&self) -> bool {
        self.core.secrets.iter().any(|s| matches!(s.proof, Proof::Refused { .. }))
    }

    fn how_it_ends(&self, now: Timestamp) -> End {
        let hosts = || self.core.hosts.iter().filter(|h| h.result != Some(HostEnd::Released));
        let reached = |goal: fn(Goal) -> bool| hosts().all(|h| h.ended() && h.result.is_none() && goal(h.goal));
        let (done, undone) = (reached(|g| g == Goal::Do), reached(|g| g == Goal::UndoAll));
        if undone && !self.forcing() {
            return End::Undone;
        }
        if !done && self.any_refused() && !self.forcing() {
            return End::LoginRefused;
        }
        if self.unprotected() {
            return End::Unprotected;
        }
        if done {
            return End::Done;
        }
        let candidates = !self.candidates().is_empty();
        let unfinished = hosts().any(|h| h.goal == Goal::Do && h.result.is_none() && !h.ended());
        if self.window_closed(now) && (candidates || unfinished) {
            return End::WindowClosed;
        }
        if candidates { End::BudgetSpent } else { End::Incomplete }
    }
}

/// A database's order with secrets as this order's table has them.
fn reindexed(order: &tde2hsm_protocol::DatabaseOrder, at: impl Fn(u16) -> u16) -> tde2hsm_protocol::DatabaseOrder {
    use tde2hsm_protocol::Source;
    let mut order = order.clone();
    order.software = at(order.software);
    order.cloudhsm = at(order.cloudhsm);
    if let Source::OldHsm { pin } = order.source {
        order.source = Source::OldHsm { pin: at(pin) };
    }
    order
}

fn id(parts: &[&str]) -> String {
    Digest::of(parts.join("|").as_bytes()).to_string()[..24].to_owned()
}

/// What the hosts of one turn share: who proves what, who undoes, how the cluster looks.
pub(super) struct Turn<'a> {
    state: &'a State,
    now: Timestamp,
    /// Secrets that a host in hand is to prove or uses while they are open.
    claimed: HashMap<u16, usize>,
    undoing: usize,
    cluster: ControlFlow<Need>,
    cluster_to_prove: ControlFlow<Need>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(state: &'a State, now: Timestamp) -> Turn<'a> {
        let mut claimed = HashMap::new();
        let mut undoing = 0;
        for (place, host) in state.core.hosts.iter().enumerate() {
            let Some(operation) = &host.operation else { continue };
            match operation.work {
                Work::Run { segment: Segment::Stage, direction: Direction::Do } => {
                    claimed.extend(operation.proves.iter().map(|s| (*s, place)));
                }
                Work::Run { segment, direction } => {
                    claimed.extend(state.uses[place].iter().filter(|s| state.unproven(**s)).map(|s| (*s, place)));
                    undoing += usize::from(segment == Segment::Cutover && direction == Direction::Undo);
                }
                _ => {}
            }
        }
        let fresh = i64::from(state.plan.policy.cluster_seconds);
        let cluster = state.cluster_need(now, fresh);
        let cluster_to_prove = state.cluster_need(now, fresh.max(PROOF_VIEW));
        Turn { state, now, claimed, undoing, cluster, cluster_to_prove }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// What a host needs now. Takes places and claims as it answers, so it is asked once a host and in the plan's order.
    pub(super) fn need(&mut self, place: usize) -> Need {
        let host = &self.state.core.hosts[place];
        if host.result.is_some() {
            return Need::Nothing;
        }
        if let Some(token) = &host.order {
            return match self.state.core.orders.get(token) {
                Some(order) if self.state.overdue(order) < self.now && host.operation.is_some() => {
                    Need::Send { work: Work::Status, proves: Vec::new() }
                }
                _ => Need::Open,
            };
        }
        let (work, resend) = match &host.operation {
            Some(operation) => match operation.next {
                Next::Ask { due } if due > self.now => return Need::Later { until: due, why: Reason::Ask },
                Next::Ask { .. } => return Need::Send { work: Work::Status, proves: Vec::new() },
                Next::Send => (operation.work, true),
            },
            // A refused password stops the whole campaign, and one that stops in `stage` leaves no trace: what waits for a
            // wave is unstaged, once.
            None if self.state.any_refused() && host.staged_only() && host.wave.is_none() && host.failure.is_none() => {
                (Work::Run { segment: Segment::Stage, direction: Direction::Undo }, false)
            }
            None => match host.wanted() {
                Some(work) => (work, false),
                None => return Need::Nothing,
            },
        };
        if host.not_before > self.now {
            return Need::Later { until: host.not_before, why: Reason::Pause };
        }
        let Work::Run { segment, direction } = work else {
            return Need::Send { work, proves: Vec::new() };
        };
        if host.quiet_until.plus(CLOCK_SKEW) > self.now
            && host.quiet_direction != direction
            && host.quiet_until > Timestamp::default()
        {
            return Need::Later { until: host.quiet_until.plus(CLOCK_SKEW), why: Reason::LateDelivery };
        }
        match (segment, direction) {
            (Segment::Stage, Direction::Do) => self.stage(place, resend),
            (Segment::Stage, Direction::Undo) => Need::Send { work, proves: Vec::new() },
            (Segment::Cutover | Segment::Prove | Segment::Drill, Direction::Do) => {
                if host.wave.is_none() {
                    return Need::Blocked { why: Reason::Wave };
                }
                if let Some(wait) = self.passwords(place, resend) {
                    return wait;
                }
                if self.state.window_closed(self.now) {
                    return Need::Blocked { why: Reason::WindowClosed };
                }
                if let Some(opens) = self.state.core.window.not_before.filter(|t| self.now < *t) {
                    return Need::Later { until: opens, why: Reason::WindowOpens(opens) };
                }
                // A proof changes no key: it does with an older view than a cutover, but not with one that is bad.
                let view = if segment == Segment::Cutover { &self.cluster } else { &self.cluster_to_prove };
                match view {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(Need::Later { until, why }) => return Need::Later { until: *until, why: why.clone() },
                    ControlFlow::Break(_) => return Need::ObserveCluster,
                }
                self.claim(place);
                Need::Send { work, proves: Vec::new() }
            }
            (Segment::Cutover | Segment::Prove | Segment::Drill, Direction::Undo) => {
                if let Some(wait) = self.passwords(place, resend) {
                    return wait;
                }
                if !resend {
                    if self.undoing >= usize::from(self.state.plan.waves.concurrency.max(1)) {
                        return Need::Blocked { why: Reason::UndoSlot };
                    }
                    self.undoing += 1;
                }
                self.claim(place);
                Need::Send { work, proves: Vec::new() }
            }
        }
    }

    /// H10: the first host to stage with a secret version proves its login, alone; the others follow when it has.
    fn stage(&mut self, place: usize, resend: bool) -> Need {
        let state = self.state;
        let work = Work::Run { segment: Segment::Stage, direction: Direction::Do };
        if !state.core.approved.contains(&Gate::Stage) {
            return Need::Blocked { why: Reason::Gate(Gate::Stage) };
        }
        let uses = &state.uses[place];
        // A refused password stops the campaign: who does not use it is not staged either, or would be staged and unstaged in
        // turn.
        let refused = (0..state.core.secrets.len() as u16).filter(|s| state.refused(*s));
        if let Some(frozen) = uses.iter().copied().chain(refused).find(|s| state.refused(*s)) {
            return Need::Blocked { why: Reason::Frozen(frozen) };
        }
        if resend {
            let proves = state.core.hosts[place].operation.as_ref().map_or_else(Vec::new, |o| o.proves.clone());
            return Need::Send { work, proves };
        }
        let mut proves = Vec::new();
        for secret in uses.iter().copied().filter(|s| state.unproven(*s)) {
            match self.claimed.get(&secret) {
                Some(other) if *other != place => return Need::Blocked { why: Reason::Proof(secret) },
                _ if state.provers[usize::from(secret)].contains(&place) => proves.push(secret),
                _ => {}
            }
        }
        // Staging proves no login that it is not asked to prove. So a host that proves one secret need not wait for
        // another, which could wait for it in turn.
        let waits = uses.iter().copied().find(|s| state.unproven(*s) && self.prover_left(*s));
        if let Some(secret) = waits.filter(|_| proves.is_empty()) {
            return Need::Blocked { why: Reason::Proof(secret) };
        }
        for secret in &proves {
            self.claimed.insert(*secret, place);
        }
        Need::Send { work, proves }
    }

    /// A host that has yet to stage can prove the secret.
    fn prover_left(&self, secret: u16) -> bool {
        self.state.provers[usize::from(secret)].iter().any(|p| {
            let host = &self.state.core.hosts[*p];
            host.goal == Goal::Do && host.result.is_none() && host.stage != Phase::Done
        })
    }

    /// A secret that was refused freezes its hosts; one that is still open is used by one host at a time (H10).
    fn passwords(&self, place: usize, resend: bool) -> Option<Need> {
        for secret in self.state.uses[place].iter().copied() {
            if self.state.refused(secret) {
                return Some(Need::Blocked { why: Reason::Frozen(secret) });
            }
            if !resend && self.state.unproven(secret) && self.claimed.get(&secret).is_some_and(|other| *other != place) {
                return Some(Need::Blocked { why: Reason::Proof(secret) });
            }
        }
        None
    }

    fn claim(&mut self, place: usize) {
        for secret in self.state.uses[place].iter().copied().filter(|s| self.state.unproven(*s)) {
            self.claimed.insert(secret, place);
        }
    }
}

impl State {
    /// When a command that was sent and has shown no end is given up, and its hosts are asked: SSM ends each invocation,
    /// but not for ever does it remember it.
    fn overdue(&self, order: &OpenOrder) -> Timestamp {
        match order.sending {
            Sending::Uncertain { .. } => Timestamp(i64::MAX),
            Sending::Sent { .. } => order.intent.not_after.plus(i64::from(self.plan.policy.order_seconds)).plus(2 * CLOCK_SKEW),
        }
    }

    /// H23: a key change rests on a view of the cluster that is at most a minute old.
    pub(super) fn cluster_need(&self, now: Timestamp, fresh: i64) -> ControlFlow<Need> {
        let Some(view) = &self.core.cluster else { return ControlFlow::Break(Need::ObserveCluster) };
        let age = now.since(view.at);
        let trouble = match &view.seen {
            Err(why) => Some(why.clone()),
            Ok(cluster) => rules::cluster(cluster, now).into_iter().find(|f| f.severity == Severity::Error).map(|f| f.message),
        };
        match trouble {
            None if (0..=fresh).contains(&age) => ControlFlow::Continue(()),
            Some(why) if (0..self.poll()).contains(&age) => {
                ControlFlow::Break(Need::Later { until: view.at.plus(self.poll()), why: Reason::Cluster(why) })
            }
            _ => ControlFlow::Break(Need::ObserveCluster),
        }
    }
}
