//! `(state, event) -> state`: total, and deaf to what does not fit.
//!
//! A journal holds what hosts and AWS said, in the order in which it was heard: late, twice, or from a host that lies.
//! Each arm therefore checks that what it hears is of an order that is open, and of the operation that was issued to
//! that very instance (H36); anything else changes nothing.

use super::*;
use tde2hsm_protocol::{KnownOperation, Outcome, Retriable};

/// The most doublings of a pause between two tries.
const BACK_OFF: u32 = 5;
const MESSAGE: usize = 240;

impl State {
    /// Takes in one event. Total: an event that does not fit the state changes nothing.
    pub fn apply(&mut self, event: &Event) {
        let at = event.at;
        self.core.now = self.core.now.max(at);
        if let EventKind::CampaignStarted { plan, campaign, generation } = &event.kind {
            if self.core.started.is_none() && *plan == self.plan.digest() {
                self.core.started = Some(Started { plan: *plan, campaign: campaign.clone(), generation: *generation, at });
                for host in &mut self.core.hosts {
                    host.since = at;
                }
            }
            return;
        }
        if self.core.started.is_none() {
            return;
        }
        match &event.kind {
            EventKind::CampaignStarted { .. } | EventKind::Interrupted { .. } => {}
            EventKind::Approved { gate } => self.approved(*gate, at),
            EventKind::OrderIntended(intent) => self.intended(intent, at),
            EventKind::OrderSent { token, command } | EventKind::CommandFound { token, command } => {
                if let Some(order) = self.core.orders.get_mut(token)
                    && matches!(order.sending, Sending::Uncertain { .. })
                {
                    order.sending = Sending::Sent { command: command.clone() };
                }
            }
            EventKind::OrderAmbiguous { .. } => {} // Intended and not answered is uncertain already.
            EventKind::OrderNotSent { token, .. } => self.not_sent(token, at, Proved::Yes),
            EventKind::CommandNotFound { token } => {
                let find = i64::from(self.plan.policy.find_seconds);
                let Some(order) = self.core.orders.get_mut(token) else { return };
                let Sending::Uncertain { looked } = &mut order.sending else { return };
                *looked = Some(at);
                if at.since(order.at) >= find {
                    self.not_sent(token, at, Proved::No);
                }
            }
            EventKind::ReportReceived { token, instance, operation, report, aws_at } => {
                self.reported(token, instance, operation, report, at, *aws_at)
            }
            EventKind::InvocationEnded { token, instance, operation, status } => {
                self.ended_without_report(token, instance, operation, status, at);
            }
            EventKind::ClusterObserved { cluster } => {
                if cluster.cluster == self.plan.target.cluster {
                    self.core.cluster = Some(ClusterView { at, seen: Ok(cluster.clone()) });
                }
                self.guard_apply(&event.kind, at);
            }
            EventKind::ClusterUnknown { why } => self.core.cluster = Some(ClusterView { at, seen: Err(clean(why)) }),
            EventKind::ProtectionObserved { .. }
            | EventKind::ProtectionUnknown { .. }
            | EventKind::BackupsCopied { .. }
            | EventKind::HsmIntended(_)
            | EventKind::HsmAdded { .. }
            | EventKind::HsmNotAdded { .. }
            | EventKind::HsmAmbiguous { .. }
            | EventKind::HsmRemovalIntended { .. }
            | EventKind::HsmRemovalAccepted { .. }
            | EventKind::HsmNotRemoved { .. } => self.guard_apply(&event.kind, at),
            EventKind::InventoriesTaken { hosts } => self.inventories_taken(hosts, at),
            EventKind::UndoRequested { hosts, .. } => self.undo_requested(hosts, at),
            EventKind::SecretNamed { secret, version } => self.secret_named(secret, version, at),
            EventKind::DocumentNamed { document } => {
                // Commands are looked for by the document's name: one that is still out must be found.
                if document.name == self.plan.document.name {
                    self.core.document = Some(document.clone());
                }
            }
            EventKind::Adopted { generation, hosts } => self.adopted(*generation, hosts, at),
            EventKind::ReleaseRequested { hosts } => {
                for place in self.places(hosts.iter()) {
                    self.retarget(place, Goal::Release, at);
                }
                self.core.end = None;
            }
            EventKind::Released { instance } => {
                if let Some(&place) = self.index.get(instance) {
                    self.close_orders_of(place);
                    let host = &mut self.core.hosts[place];
                    host.operation = None;
                    host.finish(HostEnd::Released, at);
                }
            }
            EventKind::Resumed { hosts, window } => {
                self.resumed(*hosts, *window, at);
                self.inventories_again();
                self.guard_apply(&event.kind, at);
            }
            EventKind::Ended { end } => self.core.end = Some(*end),
        }
    }

    fn places<'a>(&self, instances: impl Iterator<Item = &'a InstanceId>) -> Vec<usize> {
        instances.filter_map(|instance| self.index.get(instance).copied()).collect()
    }

    fn approved(&mut self, gate: Gate, at: Timestamp) {
        match gate {
            Gate::Stage => {
                self.core.approved.insert(gate);
            }
            // The members of a wave are fixed when it is approved, by the function that proposed them.
            Gate::Wave(number) if usize::from(number) == self.core.waves.len() + 1 => {
                let members = self.next_wave();
                if members.is_empty() {
                    return;
                }
                for &place in &members {
                    self.core.hosts[place].wave = Some(number);
                    self.core.hosts[place].since = at;
                }
                self.core.waves.push(members);
                self.inventories_again();
                self.core.approved.insert(gate);
            }
            Gate::Wave(_) => {}
        }
    }

    fn intended(&mut self, intent: &Intent, at: Timestamp) {
        if self.core.orders.contains_key(&intent.token) {
            return;
        }
        self.core.orders_made = self.core.orders_made.saturating_add(1);
        let mut open = BTreeSet::new();
        for asked in &intent.hosts {
            let Some(&place) = self.index.get(&asked.instance) else { continue };
            // An order that is overdue is given up for a question; its answer is still heard, by its operation.
            self.close_orders_of(place);
            let host = &mut self.core.hosts[place];
            host.order = Some(intent.token.clone());
            open.insert(place);
            if intent.work == Work::Status {
                continue;
            }
            match &mut host.operation {
                Some(operation) if operation.id == asked.operation => {
                    operation.exposed_before = operation.exposed_until;
                    operation.exposed_until = operation.exposed_until.max(intent.not_after);
                }
                _ => {
                    let before = match intent.work {
                        Work::Run { segment, .. } => std::mem::replace(host.phase_mut(segment), Phase::Touched),
                        _ => Phase::Untouched,
                    };
                    host.operations_made = host.operations_made.saturating_add(1);
                    host.since = at;
                    host.operation = Some(Operation {
                        id: asked.operation.clone(),
                        work: intent.work,
                        before,
                        proves: asked.proves.clone(),
                        secrets: intent.secrets.clone(),
                        exposed_until: intent.not_after,
                        exposed_before: Timestamp::default(),
                        acknowledged: false,
                        next: Next::Send,
                        unanswered: 0,
                        waiting: None,
                    });
                }
            }
        }
        if !open.is_empty() {
            let order = OpenOrder { intent: intent.clone(), at, sending: Sending::Uncertain { looked: None }, open };
            self.core.orders.insert(intent.token.clone(), order);
        }
    }

    /// The order is not on its way: its operations are sent again under the same ids, its questions asked again. Where
    /// that is proved, no delivery can start; where it was only looked for, one still may, and the operation id makes
    /// the host join it instead of beginning a second time.
    fn not_sent(&mut self, token: &OrderToken, at: Timestamp, proved: Proved) {
        let Some(order) = self.core.orders.get(token) else { return };
        if matches!(order.sending, Sending::Sent { .. }) {
            return;
        }
        let Some(order) = self.core.orders.remove(token) else { return };
        for place in order.open {
            let pause = self.pause(place);
            let host = &mut self.core.hosts[place];
            host.order = None;
            let Some(operation) = &mut host.operation else { continue };
            if proved == Proved::Yes {
                operation.unanswered = operation.unanswered.saturating_add(1);
                if order.intent.work != Work::Status {
                    operation.exposed_until = operation.exposed_before;
                }
                host.not_before = at.plus(pause);
            }
            match order.intent.work {
                Work::Status => operation.next = Next::Ask { due: at.plus(pause) },
                _ => operation.next = Next::Send,
            }
            self.silent(place, at);
        }
    }

    /// Seconds until the next try of a host that did not answer.
    fn pause(&self, place: usize) -> i64 {
        let tries = self.core.hosts[place].operation.as_ref().map_or(0, |o| u32::from(o.unanswered));
        self.poll().saturating_mul(1 << tries.min(BACK_OFF))
    }

    /// A host that did not answer as often as the policy allows is stuck: a result, not an endless wait.
    fn silent(&mut self, place: usize, at: Timestamp) {
        let asks = self.plan.policy.asks.max(1);
        let host = &mut self.core.hosts[place];
        let Some(operation) = &host.operation else { return };
        if operation.unanswered < asks {
            return;
        }
        let touched = operation.exposed_until > Timestamp::default() || operation.acknowledged;
        let work = operation.work;
        let message = format!("asked {} times without an answer", operation.unanswered);
        host.failure = Some(Failure { code: Code::HOST_SILENT, message, step: host.step, at });
        if touched {
            host.failed |= counts(work);
            host.finish(HostEnd::Stuck, at);
            if work == (Work::Run { segment: Segment::Cutover, direction: Direction::Do }) {
                self.keys_changed(place, at);
                self.keys_made(place, at, None);
            }
        } else {
            // Nothing ever left for the host.
            host.take_back();
            host.failed |= counts(work);
            host.finish(HostEnd::Failed, at);
        }
    }

    fn close_orders_of(&mut self, place: usize) {
        if let Some(token) = self.core.hosts[place].order.take() {
            self.close(&token, place);
        }
    }

    /// The order is over for one host. Answers whether it was open for it.
    fn close(&mut self, token: &OrderToken, place: usize) -> bool {
        let Some(order) = self.core.orders.get_mut(token) else { return false };
        let was_open = order.open.remove(&place);
        if order.open.is_empty() {
            self.core.orders.remove(token);
        }
        let host = &mut self.core.hosts[place];
        if was_open && host.order.as_ref() == Some(token) {
            host.order = None;
        }
        was_open
    }

    fn ended_without_report(
        &mut self,
        token: &OrderToken,
        instance: &InstanceId,
        operation: &OperationId,
        status: &str,
        at: Timestamp,
    ) {
        let Some(&place) = self.index.get(instance) else { return };
        let question = self.core.orders.get(token).is_some_and(|o| o.intent.work == Work::Status);
        if !self.close(token, place) {
            return;
        }
        let pause = self.pause(place);
        let host = &mut self.core.hosts[place];
        let Some(current) = host.operation.as_mut().filter(|o| o.id == *operation) else { return };
        // Whatever the status says, "did not run" is not among the things it can prove (`A§1.3`): the host is asked.
        host.message = format!("the command ended as `{}` without a report", clean(status));
        current.next = Next::Ask { due: if question { at.plus(pause) } else { at } };
        if question {
            current.unanswered = current.unanswered.saturating_add(1);
            self.silent(place, at);
        }
    }

    fn reported(
        &mut self,
        token: &OrderToken,
        instance: &InstanceId,
        operation: &OperationId,
        report: &Report,
        at: Timestamp,
        aws_at: Option<Timestamp>,
    ) {
        let Some(&place) = self.index.get(instance) else {
            self.core.disbelieved = self.core.disbelieved.saturating_add(1);
            return;
        };
        let fits = report.instance == *instance
            && report.operation == *operation
            && self.core.started.as_ref().is_some_and(|s| s.campaign == report.campaign && report.generation <= s.generation);
        if !fits {
            self.core.disbelieved = self.core.disbelieved.saturating_add(1);
            self.ended_without_report(token, instance, operation, "a report that is not of this order", at);
            return;
        }
        self.close(token, place);
        let host = &mut self.core.hosts[place];
        let Some(current) = host.operation.as_mut().filter(|o| o.id == *operation) else { return };
        current.unanswered = 0;
        let work = current.work;
        let proves = current.proves.clone();
        let secrets = current.secrets.clone();
        host.journal_head = report.journal_head;
        host.step = report.step;
        host.message = clean(&report.message);
        host.not_before = Timestamp::default();
        for database in &report.databases {
            let mut row = database.clone();
            // A report tells of its own operation alone.
            row.away = row.away.saturating_add(host.away.get(&row.sid).copied().unwrap_or(0));
            host.databases.insert(row.sid.clone(), row);
        }
        if let Outcome::Failed { code: Code::OPERATION_UNKNOWN, .. } = report.outcome {
            self.unknown(place, at);
            return;
        }
        if matches!(report.outcome, Outcome::Failed { code: Code::BUSY, .. }) {
            // Another operation is at work there; this one was not begun.
            if let Some(current) = &mut host.operation {
                current.next = Next::Ask { due: at.plus(self.plan.policy.poll_seconds.max(1).into()) };
                current.waiting = Some(Code::BUSY);
            }
            return;
        }
        if let Some(current) = &mut host.operation {
            current.acknowledged = true;
        }
        self.logins(place, report, &proves, &secrets, at);
        if let Work::Run { segment: Segment::Cutover, direction } = work
            && !matches!(report.outcome, Outcome::Expired | Outcome::Stale { .. })
        {
            self.keys_changed(place, at);
            if direction == Direction::Do {
                self.keys_made(place, at, aws_at);
            }
        }
        if let Outcome::Waiting { code } = report.outcome {
            let due = at.plus(self.poll());
            if let Some(current) = &mut self.core.hosts[place].operation {
                current.next = Next::Ask { due };
                current.waiting = Some(code);
            }
            return;
        }
        let host = &mut self.core.hosts[place];
        let before = host.operation.take().map_or(Phase::Untouched, |o| o.before);
        host.since = at;
        host.away = host.databases.values().map(|row| (row.sid.clone(), row.away)).collect();
        match work {
            Work::Run { segment, direction } => self.ran(place, segment, direction, before, report, at),
            Work::Release => match report.outcome {
                Outcome::Done | Outcome::AlreadyDone | Outcome::Undone => host.finish(HostEnd::Released, at),
                _ => self.fail(place, work, report, at),
            },
            _ => {}
        }
    }

    /// The host knows nothing of the operation: the delivery never began. It is sent again under the same id, so that a
    /// delivery that is only late is joined and not done twice.
    fn unknown(&mut self, place: usize, at: Timestamp) {
        let pause = self.pause(place);
        let host = &mut self.core.hosts[place];
        if let Some(current) = &mut host.operation {
            current.unanswered = current.unanswered.saturating_add(1);
            current.next = Next::Send;
            host.not_before = at.plus(pause);
        }
        self.silent(place, at);
    }

    /// What the report says of passwords (H10). A refusal that names no secret freezes all that the host uses.
    fn logins(&mut self, place: usize, report: &Report, proves: &[u16], secrets: &[u16], at: Timestamp) {
        let by = report.instance.clone();
        let mut named = false;
        for login in &report.logins {
            let Some(&index) = secrets.get(usize::from(login.secret)).filter(|i| self.uses[place].contains(i)) else { continue };
            let Some(state) = self.core.secrets.get_mut(usize::from(index)) else { continue };
            match login.result {
                LoginResult::Refused => {
                    named = true;
                    state.proof = Proof::Refused { by: by.clone(), at };
                }
                LoginResult::Proven if proves.contains(&index) && matches!(state.proof, Proof::Open) => {
                    state.proof = Proof::Proven { by: by.clone(), at };
                }
                LoginResult::Proven | LoginResult::Unreachable => {}
            }
        }
        let refused = |outcome: &Outcome| matches!(outcome.code(), Some(Code::LOGIN_REFUSED | Code::KEYSTORE_REFUSED));
        if !named && (refused(&report.outcome) || report.databases.iter().any(|d| refused(&d.outcome))) {
            for index in self.uses[place].clone() {
                if let Some(state) = self.core.secrets.get_mut(usize::from(index)) {
                    state.proof = Proof::Refused { by: by.clone(), at };
                }
            }
        }
    }

    fn ran(&mut self, place: usize, segment: Segment, direction: Direction, before: Phase, report: &Report, at: Timestamp) {
        let poll = self.poll();
        let retries = self.plan.policy.retries;
        let work = Work::Run { segment, direction };
        let host = &mut self.core.hosts[place];
        match report.saw {
            Some(saw) => host.saw = Some(saw),
            // Keys may have changed, and the host has not said what they are now: it must judge by its own journal.
            None if segment == Segment::Cutover && !matches!(report.outcome, Outcome::Expired | Outcome::Stale { .. }) => {
                host.saw = None
            }
            None => {}
        }
        match (&report.outcome, direction) {
            (Outcome::Done | Outcome::AlreadyDone, Direction::Do) => {
                *host.phase_mut(segment) = Phase::Done;
                host.attempts = 0;
                if segment == Segment::Cutover {
                    self.used(place, at);
                }
            }
            (Outcome::Done | Outcome::AlreadyDone | Outcome::Undone, Direction::Undo) => {
                host.attempts = 0;
                match segment {
                    Segment::Stage => host.stage = Phase::Untouched,
                    Segment::Cutover | Segment::Prove | Segment::Drill => {
                        host.cutover = Phase::Untouched;
                        host.prove = Phase::Untouched;
                    }
                }
                if host.goal == Goal::UndoCutover && host.wanted().is_none() {
                    host.finish(HostEnd::FailedUndone, at);
                }
            }
            (Outcome::Expired, _) => {
                // Nothing was done; the window of the order was missed.
                *host.phase_mut(segment) = before;
                self.again_or_fail(place, work, report, at);
            }
            (Outcome::Stale { code: Code::ORDER_SUPERSEDED }, _) => {
                *host.phase_mut(segment) = before;
                self.core.superseded = true;
            }
            (Outcome::Stale { code }, _) => {
                *host.phase_mut(segment) = before;
                host.failure = Some(Failure { code: *code, message: host.message.clone(), step: report.step, at });
                if host.goal.direction() == direction {
                    host.failed |= counts(work);
                    host.finish(HostEnd::Stale, at);
                }
            }
            (Outcome::Parked { code }, _) => {
                host.failure = Some(Failure { code: *code, message: host.message.clone(), step: report.step, at });
                host.failed |= counts(work);
                host.finish(HostEnd::Parked, at);
            }
            (Outcome::Stuck { code }, _) => {
                host.failure = Some(Failure { code: *code, message: host.message.clone(), step: report.step, at });
                host.failed |= counts(work);
                host.finish(HostEnd::Stuck, at);
            }
            // The order ended between two steps, and at least one was done under it: that is no failure.
            (Outcome::Failed { code: Code::ORDER_EXPIRED, retriable: Retriable::Yes }, _) => host.not_before = at.plus(poll),
            (Outcome::Failed { code, retriable: Retriable::Yes }, _)
                if host.attempts < retries && !matches!(*code, Code::LOGIN_REFUSED | Code::KEYSTORE_REFUSED) =>
            {
                host.failure = Some(Failure { code: *code, message: host.message.clone(), step: report.step, at });
                host.attempts += 1;
                host.not_before = at.plus(poll);
            }
            (Outcome::Failed { .. } | Outcome::Undone, _) => self.fail(place, work, report, at),
            (Outcome::Waiting { .. }, _) => {}
        }
    }

    fn again_or_fail(&mut self, place: usize, work: Work, report: &Report, at: Timestamp) {
        let retries = self.plan.policy.retries;
        let poll = self.poll();
        let host = &mut self.core.hosts[place];
        if host.attempts < retries {
            host.attempts += 1;
            host.not_before = at.plus(poll);
        } else {
            self.fail(place, work, report, at);
        }
    }

    /// Cutover was done with these passwords: they open.
    fn used(&mut self, place: usize, at: Timestamp) {
        let by = self.plan.hosts[place].instance.clone();
        for &index in &self.uses[place] {
            if let Some(state) = self.core.secrets.get_mut(usize::from(index))
                && matches!(state.proof, Proof::Open)
            {
                state.proof = Proof::Proven { by: by.clone(), at };
            }
        }
    }

    /// The operation failed for good.
    fn fail(&mut self, place: usize, work: Work, report: &Report, at: Timestamp) {
        let on_failure = self.plan.policy.on_failure;
        let host = &mut self.core.hosts[place];
        let code = report.outcome.code().unwrap_or(Code::NOT_AS_ASKED);
        host.failure = Some(Failure { code, message: host.message.clone(), step: report.step, at });
        host.attempts = 0;
        let direction = match work {
            Work::Run { direction, .. } => direction,
            _ => Direction::Undo,
        };
        if host.goal.direction() != direction {
            return; // The operator wants something else by now; that goes on from here.
        }
        host.failed |= counts(work);
        match work {
            Work::Run { direction: Direction::Do, segment: Segment::Cutover | Segment::Prove }
                if on_failure == crate::fleet::OnFailure::Undo && host.cutover != Phase::Untouched =>
            {
                host.goal = Goal::UndoCutover;
                host.since = at;
            }
            Work::Run { direction: Direction::Do, .. } => host.finish(HostEnd::Failed, at),
            // Undo never fails silently.
            _ => host.finish(HostEnd::Stuck, at),
        }
    }

    /// Gives a host another goal. What is on its way is waited for; what never left is dropped.
    fn retarget(&mut self, place: usize, goal: Goal, at: Timestamp) {
        let host = &mut self.core.hosts[place];
        if host.result == Some(HostEnd::Released) {
            return;
        }
        host.goal = goal;
        host.result = None;
        host.attempts = 0;
        host.not_before = Timestamp::default();
        host.since = at;
        host.revive(at);
        let undelivered = host.order.is_none() && host.operation.as_ref().is_some_and(|o| o.next == Next::Send);
        if undelivered {
            host.take_back();
        }
    }

    fn undo_requested(&mut self, hosts: &[UndoHost], at: Timestamp) {
        for wanted in hosts {
            let Some(&place) = self.index.get(&wanted.instance) else { continue };
            self.retarget(place, Goal::UndoAll, at);
            if wanted.saw.is_some() {
                self.core.hosts[place].saw = wanted.saw;
            }
        }
        self.core.end = None;
    }

    fn secret_named(&mut self, secret: &SecretRef, version: &SecretVersion, at: Timestamp) {
        for index in 0..self.core.secrets.len() {
            let planned = &self.plan.secrets[index].secret;
            let state = &mut self.core.secrets[index];
            // Named as the plan has it, or as it is used now.
            if planned.arn != secret.arn || (state.version != secret.version && planned.version != secret.version) {
                continue;
            }
            state.version = version.clone();
            state.proof = Proof::Open;
            let index = index as u16;
            for place in 0..self.core.hosts.len() {
                let host = &mut self.core.hosts[place];
                let refused =
                    host.failure.as_ref().is_some_and(|f| matches!(f.code, Code::LOGIN_REFUSED | Code::KEYSTORE_REFUSED));
                if refused && self.uses[place].contains(&index) {
                    // Its undo was frozen as well and has not begun: with the right password it goes on instead.
                    if host.goal == Goal::UndoCutover && host.operation.is_none() {
                        host.goal = Goal::Do;
                    }
                    host.retry(at);
                }
            }
            // One host that was staged and not cut over stages again, to prove the new version before the others use it.
            let staged = |h: &HostState| h.goal == Goal::Do && h.result.is_none() && h.cutover == Phase::Untouched;
            let provers = &self.provers[usize::from(index)];
            let again = provers.iter().copied().find(|p| self.core.hosts[*p].staged_only());
            let pending = provers.iter().any(|p| staged(&self.core.hosts[*p]) && self.core.hosts[*p].stage != Phase::Done);
            if let Some(place) = again.filter(|_| !pending) {
                self.core.hosts[place].stage = Phase::Touched;
            }
        }
        self.core.end = None;
    }

    fn resumed(&mut self, retry: Retry, window: Option<Window>, at: Timestamp) {
        if let Some(window) = window {
            self.core.window = window;
        }
        for host in &mut self.core.hosts {
            // Someone is looking: what was tried before they came does not count against what follows.
            if host.result.is_none() {
                host.attempts = 0;
            } else if retry == Retry::Failed && host.result != Some(HostEnd::Released) {
                host.retry(at);
            }
        }
        self.core.end = None;
    }

    /// The state that the hosts' own journals tell (H32).
    fn adopted(&mut self, generation: Generation, hosts: &[HostJournal], at: Timestamp) {
        if let Some(started) = &mut self.core.started {
            started.generation = started.generation.max(generation);
        }
        self.core.orders.clear();
        let mut told = BTreeSet::new();
        for adopted in hosts {
            let Some(&place) = self.index.get(&adopted.instance) else { continue };
            told.insert(place);
            let mut host = HostState::new(&self.plan.hosts[place]);
            host.since = at;
            host.journal_head = adopted.journal_head;
            if adopted.saw.is_some() {
                host.saw = adopted.saw;
            }
            for operation in &adopted.operations {
                self.adopt_operation(&mut host, operation, at);
            }
            self.core.hosts[place] = host;
            for login in &adopted.logins {
                for (index, planned) in self.plan.secrets.iter().enumerate() {
                    if planned.secret == login.secret {
                        let proof = match login.result {
                            LoginResult::Proven => Proof::Proven { by: adopted.instance.clone(), at },
                            LoginResult::Refused => Proof::Refused { by: adopted.instance.clone(), at },
                            LoginResult::Unreachable => continue,
                        };
                        if !matches!(self.core.secrets[index].proof, Proof::Refused { .. }) {
                            self.core.secrets[index].proof = proof;
                        }
                    }
                }
            }
        }
        let mut wave = Vec::new();
        for (place, host) in self.core.hosts.iter_mut().enumerate() {
            if !told.contains(&place) {
                host.order = None;
                host.failure = Some(Failure {
                    code: Code::HOST_SILENT,
                    message: "did not tell its journal when the campaign was adopted".to_owned(),
                    step: None,
                    at,
                });
                host.failed = true;
                host.finish(HostEnd::Stuck, at);
            } else if host.cutover != Phase::Untouched || host.prove != Phase::Untouched {
                wave.push(place);
            }
            if host.stage != Phase::Untouched {
                self.core.approved.insert(Gate::Stage);
            }
        }
        self.core.waves.clear();
        self.core.approved.retain(|gate| *gate == Gate::Stage);
        if !wave.is_empty() {
            for &place in &wave {
                self.core.hosts[place].wave = Some(1);
            }
            self.core.waves.push(wave);
            self.core.approved.insert(Gate::Wave(1));
        }
        self.guard_adopted(at);
        self.core.inventories.clear();
        for place in 0..self.core.hosts.len() {
            if self.core.hosts[place].cutover != Phase::Untouched {
                self.keys_changed(place, at);
            }
        }
        self.core.end = None;
    }

    fn adopt_operation(&self, host: &mut HostState, adopted: &KnownOperation, at: Timestamp) {
        let work = Work::Run { segment: adopted.segment, direction: adopted.direction };
        host.result = None;
        host.operation = None;
        host.goal = match adopted.direction {
            Direction::Do => Goal::Do,
            Direction::Undo if adopted.segment == Segment::Stage => Goal::UndoAll,
            Direction::Undo => Goal::UndoCutover,
        };
        let before = std::mem::replace(host.phase_mut(adopted.segment), Phase::Touched);
        let Some(outcome) = &adopted.outcome else {
            host.operation = Some(Operation {
                id: adopted.operation.clone(),
                work,
                before,
                proves: Vec::new(),
                secrets: Vec::new(),
                exposed_until: at,
                exposed_before: at,
                acknowledged: true,
                next: Next::Ask { due: at },
                unanswered: 0,
                waiting: None,
            });
            return;
        };
        let failure = |code| Some(Failure { code, message: "as the host's journal has it".to_owned(), step: None, at });
        match (outcome, adopted.direction) {
            (Outcome::Done | Outcome::AlreadyDone, Direction::Do) => *host.phase_mut(adopted.segment) = Phase::Done,
            (Outcome::Done | Outcome::AlreadyDone | Outcome::Undone, Direction::Undo) => {
                *host.phase_mut(adopted.segment) = Phase::Untouched;
                if adopted.segment != Segment::Stage {
                    host.cutover = Phase::Untouched;
                    host.prove = Phase::Untouched;
                    host.failed = true;
                    host.result = Some(HostEnd::FailedUndone);
                }
            }
            (Outcome::Expired | Outcome::Stale { .. }, _) => *host.phase_mut(adopted.segment) = before,
            (Outcome::Parked { code }, _) => {
                host.failure = failure(*code);
                host.failed |= counts(work);
                host.result = Some(HostEnd::Parked);
            }
            (Outcome::Stuck { code }, _) => {
                host.failure = failure(*code);
                host.failed |= counts(work);
                host.result = Some(HostEnd::Stuck);
            }
            // A failure is tried again by the controller that adopts: it does not know how often it was tried before.
            (Outcome::Failed { code, .. }, _) => host.failure = failure(*code),
            (Outcome::Waiting { .. } | Outcome::Undone, _) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proved {
    Yes,
    No,
}

/// Only what touches databases counts against the budget.
fn counts(work: Work) -> bool {
    matches!(work, Work::Run { segment: Segment::Cutover | Segment::Prove, .. })
}

/// Text from outside, fit for a terminal and for a journal (H36).
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).take(MESSAGE).collect()
}

impl HostState {
    fn finish(&mut self, end: HostEnd, at: Timestamp) {
        self.result = Some(end);
        self.since = at;
    }

    /// The operation in hand was not begun and will not be sent again. A delivery that may still come keeps orders of
    /// the other direction away until it can no longer start.
    fn take_back(&mut self) {
        let Some(operation) = self.operation.take() else { return };
        if let Work::Run { segment, direction } = operation.work {
            if !operation.acknowledged && operation.exposed_until > Timestamp::default() {
                self.quiet_until = self.quiet_until.max(operation.exposed_until);
                self.quiet_direction = direction;
            } else {
                *self.phase_mut(segment) = operation.before;
            }
        }
    }

    /// What was given up for want of an answer is asked again.
    fn revive(&mut self, at: Timestamp) {
        if let Some(operation) = &mut self.operation {
            operation.unanswered = 0;
            if let Next::Ask { due } = &mut operation.next {
                *due = at;
            }
        }
    }

    /// Tries again after the operator said so.
    fn retry(&mut self, at: Timestamp) {
        self.result = None;
        self.failed = false;
        self.attempts = 0;
        self.not_before = Timestamp::default();
        self.since = at;
        self.revive(at);
        if self.goal == Goal::UndoCutover && self.cutover == Phase::Untouched && self.prove == Phase::Untouched {
            self.goal = Goal::Do;
        }
        if self.goal == Goal::Do {
            // It enters a wave again, under the budget as it then is; what is on its way stays in its wave.
            if self.operation.is_none() {
                self.wave = None;
            }
        }
    }
}
