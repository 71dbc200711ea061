//! Surveys that nobody waits for: one run sends the orders, a later one reads what the hosts answered.
//!
//! Each set of snapshots must lie between two looks at its host (H41). A host is asked again as soon as a set is newer than
//! its last inventory, so the inventory after one set is the one before the next. What was sent and what came of it lies in
//! `surveys/INSTANCE.json`; a survey goes through three states there: *ordered*, then *fetching* the pieces of its detail,
//! then an inventory. A survey moves nothing on a host, so an order that nobody answered is simply given again; an answer is
//! believed only from the instance and for the operation that it was asked for (H36).

use crate::store::{self, Read};
use crate::world::Asker;
use crate::{CallError, DocumentPin, Effect, HostAnswer, SurveyCommand};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::{FleetInstance, Snapshot};
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_protocol::survey::Survey;
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{
    CampaignId, Chunk, Code, DetailRef, Digest, Generation, HostOrder, InstanceId, ORDER_HOSTS, OperationId, Order, OrderToken,
    PROTOCOL_VERSION, Report, Severity, Timestamp, VolumeId, Work,
};

/// How long an order is valid, and how long SSM may try to deliver it, in seconds.
const VALID: i64 = 600;
/// After this an order has no answer any more: its window and what the agent needs to report, in seconds.
const SILENT: i64 = VALID + 120;
/// An order that AWS says nothing of for so long is given again: AWS forgets commands after a month (`A§1.2`). In seconds.
const GONE: i64 = 24 * 3600;
/// A command whose sending is uncertain is looked for this long (`A§1.5`), in seconds.
const LOOK: i64 = 300;
/// An inventory older than this is followed by another, set or no set: the closer two looks lie, the less can have happened
/// between them. In seconds.
const OLD: i64 = 6 * 3600;
/// Between two tries for a host that gives no survey, doubled with each: from a quarter of an hour to six hours, in seconds.
const PAUSE: i64 = 900;
const LONGEST_PAUSE: i64 = 6 * 3600;
/// AWS's word for an instance that is stopped, gone, or without a running agent (`A§1.1`).
const NOT_MANAGED: &str = "InvalidInstanceId";
/// How far host and AWS clock may be apart: an inventory this close to a set may lie on either side of it.
const MARGIN: i64 = tde2hsm_dr::points::MARGIN;

/// Hosts that will be looked at once enough time has passed since their newest set.
pub const SURVEYS_AWAITED: &str = "surveys-awaited";
/// Hosts of the fleet from whom an answer is still to come.
pub const SURVEYS_OPEN: &str = "surveys-open";
/// How long a look may take that comes to something, in seconds: its set grows old enough, the order, and the detail's pieces.
pub const LONGEST: i64 = 2 * MARGIN + 2 * SILENT;

/// `surveys/INSTANCE.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSurvey {
    pub v: u8,
    /// What is under way.
    pub open: Option<Open>,
    /// Host clock of the last inventory.
    pub taken_at: Option<Timestamp>,
    /// Since the last inventory.
    pub failures: u32,
    /// The last failure.
    pub why: Option<String>,
    /// No order before this.
    pub not_before: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Open {
    Ordered {
        sent: Sent,
    },
    Fetching {
        detail: DetailRef,
        ordered_at: Timestamp,
        /// When the report with the detail's digest was read: no part of it is younger.
        received_at: Timestamp,
        pieces: Vec<Chunk>,
        sent: Vec<(u16, Sent)>,
    },
}

/// One order to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub token: OrderToken,
    pub operation: OperationId,
    pub at: Timestamp,
    /// `None`: whether it went out is not known.
    pub command: Option<String>,
}

/// What is to be asked of a host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Survey,
    Piece(u16),
}

struct Desk {
    states: BTreeMap<InstanceId, Read<HostSurvey>>,
    answers: BTreeMap<String, Vec<HostAnswer>>,
}

/// When the sets of each instance were taken.
pub type SetTimes = BTreeMap<InstanceId, BTreeSet<Timestamp>>;

pub fn set_times(instances: &[FleetInstance], sources: &[Snapshot]) -> SetTimes {
    let mut of_volume: BTreeMap<&VolumeId, BTreeSet<Timestamp>> = BTreeMap::new();
    for (volume, started) in sources.iter().filter_map(|source| Some((source.volume.as_ref()?, source.started))) {
        of_volume.entry(volume).or_default().insert(started);
    }
    let times = |instance: &FleetInstance| {
        let of = instance.volumes.values().filter_map(|volume| of_volume.get(volume));
        (instance.instance.clone(), of.flatten().copied().collect())
    };
    instances.iter().map(times).collect()
}

/// One step for every host: reads what was answered, writes inventories, sends what is due.
pub async fn step(asker: &mut Asker<'_>, document: &DocumentPin, instances: &[FleetInstance], sets: &SetTimes) {
    let keys = instances.iter().map(|one| store::survey_key(&one.instance)).collect();
    let read = store::read_keys::<HostSurvey>(asker.cloud, keys).await;
    let Some((found, unreadable)) = asker.note_records(read) else { return };
    asker.note_unreadable(&unreadable);
    let mut desk = Desk { states: BTreeMap::new(), answers: BTreeMap::new() };
    for instance in instances {
        let key = store::survey_key(&instance.instance);
        if unreadable.iter().any(|one| one.key == key) {
            continue;
        }
        let state = found.get(&key).cloned().unwrap_or_else(|| Read { value: HostSurvey::default(), etag: String::new() });
        desk.states.insert(instance.instance.clone(), state);
    }
    let looks = last_looks(asker).await;
    let mut due: BTreeMap<Ask, Vec<InstanceId>> = BTreeMap::new();
    let failures: BTreeMap<InstanceId, u32> =
        desk.states.iter().map(|(instance, state)| (instance.clone(), state.value.failures)).collect();
    for instance in instances {
        let Some(mut state) = desk.states.remove(&instance.instance) else { continue };
        let before = state.value.clone();
        collect(asker, document, instance, &mut state.value, &mut desk.answers).await;
        let latest = state.value.taken_at.filter(|taken| taken.since(asker.now) <= MARGIN);
        let taken = looks.get(&instance.instance).copied().or(latest);
        let dueness = dueness(taken, sets.get(&instance.instance), asker.now);
        for ask in wanted(&state.value, dueness, asker.now) {
            due.entry(ask).or_default().push(instance.instance.clone());
        }
        if state.value.open.is_none() && asker.now >= state.value.not_before && dueness == Dueness::Awaited {
            asker.outcome.add(SURVEYS_AWAITED, 1);
        }
        // Nothing is ordered for a host whose state could not be kept: its answer would be nobody's.
        if state.value != before && !keep(asker, &instance.instance, &mut state).await {
            for hosts in due.values_mut() {
                hosts.retain(|one| *one != instance.instance);
            }
            continue;
        }
        desk.states.insert(instance.instance.clone(), state);
    }
    for (ask, hosts) in due {
        for batch in hosts.chunks(ORDER_HOSTS) {
            send(asker, document, ask, batch, &mut desk.states).await;
        }
    }
    for (instance, state) in &desk.states {
        if state.value.open.is_some() {
            asker.outcome.add(SURVEYS_OPEN, 1);
        }
        say(asker, instance, failures.get(instance).copied().unwrap_or(0), &state.value);
    }
}

/// When each instance was last looked at, by its own clock: campaigns write inventories too. One of a time that is yet to come was taken
/// while the host's clock was ahead, and would keep the host from being asked until then.
async fn last_looks(asker: &mut Asker<'_>) -> BTreeMap<InstanceId, Timestamp> {
    let listed = asker.cloud.list(store::INVENTORIES).await;
    let listed = asker.note_records(listed).unwrap_or_default();
    // In the order of time, so the last of each stays.
    let of = listed.iter().filter_map(|info| store::parse_inventory_key(&info.key));
    of.filter(|(_, taken)| taken.since(asker.now) <= MARGIN).collect()
}

fn wanted(state: &HostSurvey, dueness: Dueness, now: Timestamp) -> Vec<Ask> {
    match &state.open {
        Some(Open::Ordered { .. }) => Vec::new(),
        Some(Open::Fetching { detail, pieces, sent, .. }) => (0..detail.chunks)
            .filter(|index| !pieces.iter().any(|piece| piece.index == *index) && !sent.iter().any(|(of, _)| of == index))
            .map(Ask::Piece)
            .collect(),
        None if now >= state.not_before && dueness == Dueness::Now => vec![Ask::Survey],
        None => Vec::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dueness {
    Now,
    /// As soon as the newest set is old enough.
    Awaited,
    No,
}

/// A look counts for a set that is twice the margin old: the host's clock may be behind, and then a look at a younger one would
/// seem not to have come after it. A younger set only waits; it holds up no look that an older one needs, for where sets come
/// as often as runs there is always a young one.
fn dueness(taken: Option<Timestamp>, sets: Option<&BTreeSet<Timestamp>>, now: Timestamp) -> Dueness {
    let Some(taken) = taken else { return Dueness::Now };
    let unseen = |set: &&Timestamp| taken.since(**set) < MARGIN;
    let oldest = sets.and_then(|sets| sets.iter().find(unseen));
    match oldest {
        _ if now.since(taken) >= OLD => Dueness::Now,
        Some(set) if now.since(*set) >= 2 * MARGIN => Dueness::Now,
        Some(_) => Dueness::Awaited,
        None => Dueness::No,
    }
}

/// Reads the answers to what was sent, and writes the inventory when all of it is there.
async fn collect(
    asker: &mut Asker<'_>,
    document: &DocumentPin,
    instance: &FleetInstance,
    state: &mut HostSurvey,
    answers: &mut BTreeMap<String, Vec<HostAnswer>>,
) {
    let id = &instance.instance;
    let now = asker.now;
    match state.open.take() {
        None => {}
        Some(Open::Ordered { mut sent }) => match hear(asker, document, id, &mut sent, answers).await {
            Heard::Nothing => state.open = Some(Open::Ordered { sent }),
            Heard::Failed(why) => state.fail(why, now),
            Heard::Report(report) => match (report.detail, report.outcome.code()) {
                (_, Some(code)) => state.fail(format!("{code}: {}", report.message), now),
                (None, None) => state.fail("its report names no detail".to_owned(), now),
                (Some(detail), None) => {
                    let pieces = report.chunk.into_iter().collect();
                    state.open = Some(Open::Fetching { detail, ordered_at: sent.at, received_at: now, pieces, sent: Vec::new() });
                }
            },
        },
        fetching @ Some(Open::Fetching { .. }) => state.open = fetching,
    }
    if let Some(Open::Fetching { detail, ordered_at, received_at, mut pieces, sent }) =
        state.open.take_if(|open| matches!(open, Open::Fetching { .. }))
    {
        let mut still = Vec::new();
        let mut failed = None;
        for (index, mut one) in sent {
            match hear(asker, document, id, &mut one, answers).await {
                Heard::Nothing => still.push((index, one)),
                Heard::Failed(why) => failed = Some(why),
                Heard::Report(report) => match report.chunk {
                    Some(piece) if piece.index == index => pieces.push(piece),
                    _ => failed = Some(format!("no piece came: {}", report.message)),
                },
            }
        }
        let complete = (0..detail.chunks).all(|index| pieces.iter().any(|piece| piece.index == index));
        if let Some(why) = failed {
            state.fail(why, now);
        } else if complete {
            let inventory = assemble(&detail, &pieces, instance, received_at, ordered_at);
            match inventory {
                Err(why) => state.fail(why, now),
                Ok(inventory) => {
                    let wrote = store::keep_inventory(asker.cloud, &inventory).await;
                    if asker.note_records(wrote).is_some() {
                        asker.outcome.add("inventories-written", 1);
                        // A look of a time to come proves nothing (the clock is off), and is not followed by one a tick.
                        let ahead = inventory.taken_at.since(now) > MARGIN;
                        let not_before = if ahead { now.plus(4 * PAUSE) } else { Timestamp::default() };
                        let taken_at = Some(inventory.taken_at);
                        *state = HostSurvey { v: 1, taken_at, not_before, ..HostSurvey::default() };
                    } else {
                        state.open = Some(Open::Fetching { detail, ordered_at, received_at, pieces, sent: still });
                    }
                }
            }
        } else {
            state.open = Some(Open::Fetching { detail, ordered_at, received_at, pieces, sent: still });
        }
    }
}

/// Each failure is said once, when it is found; that a host is without its survey is counted as long as it is.
fn say(asker: &mut Asker<'_>, instance: &InstanceId, failures_before: u32, state: &HostSurvey) {
    let Some(why) = &state.why else { return };
    asker.outcome.add("hosts-unsurveyed", 1);
    if state.failures != failures_before {
        let again = state.not_before.since(asker.now).max(0) / 60;
        let text = format!("{instance}: {}; it is asked again in {again} min", printable(why, 300));
        asker.outcome.say(Severity::Warning, Code::HOST_UNSURVEYED, text);
    }
}

impl HostSurvey {
    fn fail(&mut self, why: String, now: Timestamp) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.v = 1;
        self.open = None;
        self.failures = self.failures.saturating_add(1);
        self.why = Some(printable(&why, 300));
        self.not_before = now.plus(pause);
    }
}

enum Heard {
    /// Not yet.
    Nothing,
    Report(Box<Report>),
    Failed(String),
}

/// What one host answered to one order, if it did.
async fn hear(
    asker: &mut Asker<'_>,
    document: &DocumentPin,
    instance: &InstanceId,
    sent: &mut Sent,
    answers: &mut BTreeMap<String, Vec<HostAnswer>>,
) -> Heard {
    let region = asker.config.source_region.clone();
    let age = asker.now.since(sent.at);
    if sent.command.is_none() {
        let found = asker.cloud.find_survey(&region, document, &sent.token, sent.at.plus(-MARGIN)).await;
        match asker.note(&region, found) {
            Some(mut found) => sent.command = found.pop(),
            None if age > GONE => return Heard::Failed("whether the order was sent could not be found out".to_owned()),
            None => return Heard::Nothing,
        }
    }
    let Some(command) = sent.command.clone() else {
        // Lists are behind (`A§1.2`): what is not there yet may come.
        return if age > LOOK { Heard::Failed("the order was not sent".to_owned()) } else { Heard::Nothing };
    };
    if !answers.contains_key(&command) {
        let read = asker.cloud.read_survey(&region, &command).await;
        match asker.note(&region, read) {
            Some(read) => drop(answers.insert(command.clone(), read)),
            None if age > GONE => return Heard::Failed("its answer can no longer be read".to_owned()),
            None => return Heard::Nothing,
        }
    }
    let answer = answers.get(&command).and_then(|answers| answers.iter().find(|answer| answer.instance == *instance));
    let Some(answer) = answer.filter(|answer| answer.over) else {
        return if age > SILENT { Heard::Failed("no answer in time".to_owned()) } else { Heard::Nothing };
    };
    let output = answer.output.as_deref().unwrap_or_default();
    match Report::decode(output) {
        Ok(report) if report.instance == *instance && report.operation == sent.operation => Heard::Report(Box::new(report)),
        Ok(_) => Heard::Failed("it answered for another host or operation".to_owned()),
        Err(_) => {
            let line = output.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output");
            Heard::Failed(format!("SSM says `{}`: {line}", answer.details))
        }
    }
}

fn assemble(
    detail: &DetailRef,
    pieces: &[Chunk],
    instance: &FleetInstance,
    received_at: Timestamp,
    ordered_at: Timestamp,
) -> Result<Inventory, String> {
    let bytes = detail.assemble(pieces).map_err(|e| e.to_string())?;
    let survey: Survey = serde_json::from_slice(&bytes).map_err(|e| format!("its survey cannot be read: {e}"))?;
    if survey.instance != instance.instance {
        return Err(format!("its survey says it is `{}`", survey.instance));
    }
    Ok(Inventory::from_survey(&survey, received_at, Some(ordered_at), Some(instance)))
}

/// One command for at most fifty hosts: written down for each of them, sent once, and its id written down.
async fn send(
    asker: &mut Asker<'_>,
    document: &DocumentPin,
    ask: Ask,
    batch: &[InstanceId],
    states: &mut BTreeMap<InstanceId, Read<HostSurvey>>,
) {
    let now = asker.now;
    let token = token(&(now, ask_name(ask), batch));
    let mut orders = Vec::new();
    for instance in batch {
        let Some(state) = states.get_mut(instance) else { continue };
        let sent = Sent { token: token.clone(), operation: operation(&(&token, instance)), at: now, command: None };
        let order = |detail| HostOrder {
            instance: instance.clone(),
            operation: sent.operation.clone(),
            saw: None,
            prove_logins: Vec::new(),
            databases: Vec::new(),
            detail,
        };
        state.value.v = 1;
        let order = match (&mut state.value.open, ask) {
            (open @ None, Ask::Survey) => {
                let order = order(None);
                *open = Some(Open::Ordered { sent });
                order
            }
            (Some(Open::Fetching { detail, sent: pieces, .. }), Ask::Piece(index)) => {
                let order = order(Some(detail.digest));
                pieces.push((index, sent));
                order
            }
            _ => continue,
        };
        if keep(asker, instance, state).await {
            orders.push(order);
        }
    }
    if orders.is_empty() {
        return;
    }
    let hosts: BTreeSet<InstanceId> = orders.iter().map(|order| order.instance.clone()).collect();
    let instances: Vec<InstanceId> = hosts.iter().cloned().collect();
    let order = Order {
        v: PROTOCOL_VERSION,
        account: asker.config.account.clone(),
        region: asker.config.source_region.clone(),
        campaign: CampaignId::new("dr-survey").expect("lower-case letters and a dash"),
        plan: Digest::ZERO,
        generation: Generation(0),
        token: token.clone(),
        // A host whose clock is behind by what a point forgives must not refuse it (H31, H41).
        not_before: now.plus(-MARGIN),
        not_after: now.plus(VALID),
        journal_head: Digest::ZERO,
        work: match ask {
            Ask::Survey => Work::Survey,
            Ask::Piece(chunk) => Work::Fetch { chunk },
        },
        target: None,
        secrets: Vec::new(),
        escrow: None,
        drill: None,
        hosts: orders,
    };
    let answer = match order.encode() {
        Ok(text) => {
            let command = SurveyCommand { document, instances: &instances, order: &text, token: &token, delivery_seconds: VALID };
            asker.cloud.send_survey(&asker.config.source_region, &command).await
        }
        Err(e) => {
            Err(CallError { call: "ssm:SendCommand".to_owned(), effect: Effect::NotSent, aws_code: None, message: e.to_string() })
        }
    };
    asker.outcome.add("survey-commands-sent", u64::from(answer.is_ok()));
    let refused = match &answer {
        Err(error) if error.effect != Effect::Ambiguous => Some(error.clone()),
        _ => None,
    };
    // AWS answered, and of a host: that it cannot be ordered is that host's failure, and is said as such.
    if let Err(error) = &answer
        && !error.is(&[NOT_MANAGED])
    {
        let region = asker.config.source_region.clone();
        asker.outcome.not_asked(&region, error);
    }
    for instance in &instances {
        let Some(state) = states.get_mut(instance) else { continue };
        match (&answer, &refused) {
            (Ok(command), _) => state.value.sent(&token, command),
            // One bad id rejects the whole call (`A§1.1`): all of them are asked again later, each failed one less often.
            (Err(_), Some(error)) => state.value.fail(error.to_string(), now),
            // It may run: the next run looks for it.
            (Err(_), None) => continue,
        }
        keep(asker, instance, state).await;
    }
    // A refused batch says nothing of each host: asked alone, each speaks for itself.
    if refused.is_some_and(|error| error.is(&[NOT_MANAGED])) && instances.len() > 1 {
        for instance in &instances {
            if let Some(state) = states.get_mut(instance)
                && ask == Ask::Survey
            {
                state.value.failures = state.value.failures.saturating_sub(1);
                state.value.why = None;
                Box::pin(send(asker, document, ask, std::slice::from_ref(instance), states)).await;
            }
        }
    }
}

impl HostSurvey {
    fn sent(&mut self, token: &OrderToken, command: &str) {
        let mark = |sent: &mut Sent| {
            if sent.token == *token {
                sent.command = Some(command.to_owned());
            }
        };
        match &mut self.open {
            Some(Open::Ordered { sent }) => mark(sent),
            Some(Open::Fetching { sent, .. }) => sent.iter_mut().for_each(|(_, sent)| mark(sent)),
            None => {}
        }
    }
}

/// Whether the state was written; what another run wrote meanwhile stays.
async fn keep(asker: &mut Asker<'_>, instance: &InstanceId, state: &mut Read<HostSurvey>) -> bool {
    let etag = Some(state.etag.as_str()).filter(|etag| !etag.is_empty());
    match asker.write(&store::survey_key(instance), &state.value, etag).await {
        Some(etag) => {
            state.etag = etag;
            true
        }
        None => false,
    }
}

fn ask_name(ask: Ask) -> (u8, u16) {
    match ask {
        Ask::Survey => (0, 0),
        Ask::Piece(index) => (1, index),
    }
}

/// Two runs at the same second have the same token only for the same batch, and then one of them loses every record.
fn token<T: Serialize>(of: &T) -> OrderToken {
    OrderToken::new(format!("dr-{}", short(of))).expect("hexadecimal digits after a word")
}

fn operation<T: Serialize>(of: &T) -> OperationId {
    OperationId::new(format!("dr-{}", short(of))).expect("hexadecimal digits after a word")
}

fn short<T: Serialize>(of: &T) -> String {
    Digest::of_json(of).to_string()[..20].to_owned()
}
