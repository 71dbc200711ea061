//! Drives a campaign from here: progress on stderr, gates asked on the terminal, one answer at the end.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::night::Night;
use crate::out::Out;
use crate::text;
use async_trait::async_trait;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tde2hsm_campaign::plan::{DocumentPin, Plan};
use tde2hsm_campaign::reducer::{End, Event, EventKind, Gate, Intent, Standing, State, Summary, Why};
use tde2hsm_cloud::Aws;
use tde2hsm_document::{Artefact, DocumentSource};
use tde2hsm_driver::{Answer, Clock as _, Driver, Fault, Observer, Operator, Turn, plan_of};
use tde2hsm_journal::{Journal, Seq};
use tde2hsm_protocol::{CampaignId, Code, Digest, Direction, InstanceId, OrderToken, Outcome, Timestamp, Work};

/// A plan is carried out once: its campaign's name follows from it, so that a second `apply` meets the first.
pub fn campaign_of(plan: &Plan) -> CampaignId {
    let fleet: String = plan.fleet.to_string().chars().take(27).collect();
    let name = format!("{}-{}", fleet.trim_end_matches('-'), &plan.digest().to_string()[..12]);
    CampaignId::new(name).expect("a fleet's name and twelve hexadecimal digits")
}

#[derive(Serialize)]
struct Answered<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    /// The loop was stopped before the campaign's end.
    stopped: bool,
    journal_entries: u64,
    journal_head: Digest,
    /// Requests to AWS of this run, by `service:Operation`.
    calls: &'a BTreeMap<String, u64>,
    calls_total: u64,
    /// Steps that hosts completed, or undid, in this run.
    host_steps: u64,
    calls_per_host_step: f64,
}

/// Drives to the campaign's end, or to where it has to stop, and answers.
pub async fn drive(
    context: &Context,
    command: &str,
    night: &Night,
    journal: &dyn Journal,
    driver: &mut Driver<'_>,
    yes: bool,
) -> Result<Exit, Failure> {
    let since = driver.head().seq;
    let gatekeeper = Gatekeeper { out: context.out, yes };
    let turn = driver.run(&gatekeeper).await.map_err(|e| {
        let failure = Failure::from(e);
        failure.hint("run `tde2hsm resume`; it goes on where the journal ends")
    })?;
    let stopped = !matches!(turn, Turn::Ended(_));
    let summary = driver.state().summary(context.now());
    let calls = night.calls();
    let calls_total: u64 = calls.values().sum();
    let host_steps = host_steps(journal, driver.campaign(), since).await?;
    let answered = Answered {
        summary: &summary,
        stopped,
        journal_entries: driver.head().seq,
        journal_head: driver.head().link,
        calls_per_host_step: calls_total as f64 / host_steps.max(1) as f64,
        calls: &calls,
        calls_total,
        host_steps,
    };
    let human = format!("{}\n{calls_total} AWS calls for {host_steps} host-steps", text::summary(&summary, context.now()));
    context.out.answer(command, &answered, &human)?;
    Ok(exit(context, &summary, stopped))
}

/// Where a host ended that nobody wanted there.
const BAD: [Standing; 4] = [Standing::Failed, Standing::FailedUndone, Standing::Parked, Standing::Stale];

fn exit(context: &Context, summary: &Summary, stopped: bool) -> Exit {
    let count = |standing| summary.counts.get(&standing).copied().unwrap_or(0);
    if stopped {
        return if context.clock.stopping() { Exit::Interrupted } else { Exit::Waits };
    }
    match summary.end {
        Some(End::Done | End::Undone) => Exit::Ok,
        Some(End::WindowClosed) => Exit::Waits,
        Some(End::Superseded) => Exit::Journal,
        Some(End::Unprotected) => unprotected(summary),
        _ if count(Standing::Stuck) > 0 => Exit::HostsStuck,
        // Some hosts are done and others were undone or released, as the operator wanted.
        Some(End::Incomplete) if BAD.iter().all(|standing| count(*standing) == 0) => Exit::Ok,
        _ => Exit::HostsFailed,
    }
}

/// Waiting on may be all that is needed, or a person.
fn unprotected(summary: &Summary) -> Exit {
    match summary.protection.as_ref().and_then(|p| p.why.as_ref()).and_then(|why| why.code) {
        Some(Code::FORCED_HSM_UNCERTAIN | Code::FORCED_HSM_LEFT) => Exit::HostsStuck,
        _ => Exit::Waits,
    }
}

/// Steps of segments that ended well after entry `since`, from the journal itself.
async fn host_steps(journal: &dyn Journal, campaign: &CampaignId, since: Seq) -> Result<u64, Failure> {
    let (plan, events, _) = plan_of(journal, campaign).await?;
    let mut work = HashMap::new();
    let mut steps = 0;
    for (seq, event) in (1..).zip(&events) {
        match &event.kind {
            EventKind::OrderIntended(intent) if matches!(intent.work, Work::Run { .. }) => {
                work.extend(intent.hosts.iter().map(|host| (host.operation.clone(), intent.work)));
            }
            EventKind::ReportReceived { instance, operation, report, .. }
                if seq > since && matches!(report.outcome, Outcome::Done | Outcome::Undone) =>
            {
                // Counted once: a second report of the same operation says nothing new.
                let Some(Work::Run { segment, direction }) = work.remove(operation) else { continue };
                let host = plan.host(instance);
                let of = |s| host.and_then(|h| h.segments.iter().find(|p| p.segment == s)).map_or(0, |p| p.steps.len() as u64);
                steps += of(segment);
                if direction == Direction::Undo && segment == tde2hsm_protocol::Segment::Cutover {
                    steps += of(tde2hsm_protocol::Segment::Prove);
                }
            }
            _ => {}
        }
    }
    Ok(steps)
}

/// Asks on the terminal; without one, or without `yes`, a gate stays shut.
struct Gatekeeper {
    out: Out,
    yes: bool,
}

#[async_trait]
impl Operator for Gatekeeper {
    async fn ask(&self, gate: Gate, hosts: &[InstanceId], _state: &State) -> Answer {
        let name = match gate {
            Gate::Stage => "staging".to_owned(),
            Gate::Wave(1) => "wave 1, the canary".to_owned(),
            Gate::Wave(number) => format!("wave {number}"),
        };
        let names: Vec<&str> = hosts.iter().map(|h| h.as_str()).collect();
        let question = format!("Open {name}: {}? Type `yes`:", names.join(" "));
        let (out, yes) = (self.out, self.yes);
        if yes {
            out.say(&format!("{name} is approved: {}", names.join(" ")));
            return Answer::Approved;
        }
        let answer = tokio::task::spawn_blocking(move || out.ask(&question)).await.ok().flatten();
        match answer.as_deref() {
            Some("yes") => Answer::Approved,
            Some(_) => Answer::Declined,
            None => {
                self.out.warn(&format!("{name} waits for approval; run `tde2hsm resume` at a terminal, or with `--yes`"));
                Answer::Declined
            }
        }
    }
}

/// Asks for a plain yes before anything begins.
pub fn approve(out: Out, yes: bool, question: &str) -> Result<(), Failure> {
    if yes || out.ask(&format!("{question} Type `yes`:")).as_deref() == Some("yes") {
        return Ok(());
    }
    Err(Failure::new(Code::NOT_APPROVED, "nothing was changed"))
}

/// The document as it is now, which the operator approves by what it would bring to the hosts as root (H34). `None`: it is the
/// one that is in use.
pub async fn document_anew(out: Out, aws: &Aws, used: &DocumentPin, yes: bool) -> Result<Option<DocumentPin>, Failure> {
    let Some(found) = aws.ssm.document(&used.name).await? else {
        let message = format!("there is no SSM document `{}` in {}", used.name, aws.region);
        return Err(Failure::new(Code::DOCUMENT_MISSING, message));
    };
    if found == *used {
        return Ok(None);
    }
    let source = |text: String| DocumentSource::of_document(&text);
    let Some(brings) = source(aws.ssm.document_text(&found).await?) else {
        let message = format!("version {} of the SSM document `{}` is not one that this program made", found.version, found.name);
        return Err(Failure::new(Code::DOCUMENT_CHANGED, message));
    };
    // What was in use may be gone, which is why somebody asks.
    let before = aws.ssm.document_text(used).await.ok().and_then(source);
    let same = |now: Option<&Artefact>, then: Option<&Artefact>| match before {
        None => "",
        Some(_) if now.map(|a| a.sha256) == then.map(|a| a.sha256) => ", as before",
        Some(_) => ", ANOTHER than before",
    };
    let mut text = format!(
        "the campaign uses {} version {}, sha256 {}\nthere is now        version {}, sha256 {}\n  host-runner sha256 {}{}\n",
        used.name,
        used.version,
        used.hash,
        found.version,
        found.hash,
        brings.runner.sha256,
        same(Some(&brings.runner), before.as_ref().map(|b| &b.runner))
    );
    for package in &brings.packages {
        let then = before.as_ref().and_then(|b| b.packages.iter().find(|p| p.os == package.os)).map(|p| &p.artefact);
        let kept = same(Some(&package.artefact), then);
        text.push_str(&format!("  client {} {} sha256 {}{kept}\n", package.os, package.version, package.artefact.sha256));
    }
    let kept = same(brings.ca.as_ref(), before.as_ref().and_then(|b| b.ca.as_ref()));
    let ca = brings.ca.as_ref().map_or_else(|| "none".to_owned(), |ca| format!("sha256 {}", ca.sha256));
    text.push_str(&format!("  CA {ca}{kept}\n"));
    out.show(&text);
    approve(out, yes, "Run this as root on the campaign's hosts from now on?")?;
    Ok(Some(found))
}

/// A line at least this often says what is waited for.
const QUIET: Duration = Duration::from_secs(20);

/// Prints what happens.
pub struct Progress {
    out: Out,
    intents: Mutex<HashMap<OrderToken, Intent>>,
    /// When a line was printed last.
    said: Mutex<Instant>,
    /// What the keys were last said to wait for.
    keys: Mutex<String>,
}

impl Progress {
    pub fn new(out: Out) -> Progress {
        Progress { out, intents: Mutex::new(HashMap::new()), said: Mutex::new(Instant::now()), keys: Mutex::default() }
    }

    fn say(&self, text: &str) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.out.say(text);
    }

    /// What the keys wait for, or lie in, where that is news.
    fn keys(&self, state: &State, at: Timestamp) {
        let Some(protection) = state.summary(at).protection else { return };
        let text = match (&protection.why, protection.waves.last()) {
            (Some(why), _) => format!("the next wave waits for {}", why.waits_for),
            (None, Some(wave)) => {
                let copy = wave.copy.as_ref().map(|copy| format!(" and in its copy {copy}")).unwrap_or_default();
                format!("the keys of wave {} are in {}{copy}", wave.wave, wave.backup)
            }
            (None, None) => return,
        };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if *keys != text {
            self.say(&text);
            *keys = text;
        }
    }

    fn work(&self, token: &OrderToken) -> String {
        let intents = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        match intents.get(token) {
            Some(intent) => {
                let hosts: Vec<&str> = intent.hosts.iter().map(|h| h.instance.as_str()).collect();
                format!("{} to {}", work(intent.work), hosts.join(" "))
            }
            None => format!("order {token}"),
        }
    }
}

fn work(work: Work) -> String {
    match work {
        Work::Run { segment, direction: Direction::Do } => segment.to_string(),
        Work::Run { segment, direction: Direction::Undo } => format!("undo of {segment}"),
        Work::Survey => "survey".to_owned(),
        Work::Status => "a question how it stands".to_owned(),
        Work::Fetch { .. } => "fetch".to_owned(),
        Work::Adopt => "adopt".to_owned(),
        Work::Release => "release".to_owned(),
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event, state: &State) {
        match &event.kind {
            EventKind::CampaignStarted { campaign, generation, .. } => {
                self.say(&format!("campaign {campaign}, generation {generation}"));
            }
            EventKind::OrderIntended(intent) => {
                let mut intents = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
                intents.insert(intent.token.clone(), intent.clone());
            }
            EventKind::OrderSent { token, .. } => self.say(&format!("sent {}", self.work(token))),
            EventKind::OrderNotSent { token, why } => self.say(&format!("not sent: {}: {why}", self.work(token))),
            EventKind::OrderAmbiguous { token, .. } => self.say(&format!("uncertain whether sent: {}", self.work(token))),
            EventKind::CommandFound { token, .. } => self.say(&format!("found: {}", self.work(token))),
            EventKind::ReportReceived { instance, report, .. } => {
                let code = report.outcome.code().map(|c| format!(" {c}")).unwrap_or_default();
                let step = report.step.map(|s| format!(" in {s}")).unwrap_or_default();
                let message = if report.message.is_empty() { String::new() } else { format!(": {}", report.message) };
                self.say(&format!("{instance} {}{code}{step}{message}", report.outcome.name()));
            }
            EventKind::InvocationEnded { instance, status, .. } => {
                self.say(&format!("{instance} gave no report; SSM says {status}"))
            }
            EventKind::ClusterUnknown { why } => self.say(&format!("the cluster cannot be seen: {why}")),
            EventKind::ProtectionObserved { .. } | EventKind::ProtectionUnknown { .. } => self.keys(state, event.at),
            EventKind::InventoriesTaken { hosts } => {
                let written = hosts.iter().filter(|taken| taken.failed.is_none()).count();
                self.say(&format!("key inventories of {written} hosts are written down in the second region"));
                for (taken, why) in hosts.iter().filter_map(|taken| Some((taken, taken.failed.as_ref()?))) {
                    self.out.warn(&format!("[{}] {}: {why}", Code::INVENTORY_UNWRITTEN, taken.instance));
                }
            }
            EventKind::BackupsCopied { failed: None } => {}
            EventKind::BackupsCopied { failed: Some(why) } => {
                self.out.warn(&format!("[{}] {why}", Code::BACKUP_NOT_COPIED));
            }
            EventKind::HsmIntended(intent) => {
                self.say(&format!("adding an HSM in {} for a backup of the keys of wave {}", intent.zone, intent.wave));
            }
            EventKind::HsmAdded { hsm } => self.say(&format!("{hsm} is added; it is removed when it is ACTIVE")),
            EventKind::HsmNotAdded { why } => self.say(&format!("no HSM was added: {why}")),
            EventKind::HsmAmbiguous { .. } => self.say("uncertain whether an HSM was added"),
            EventKind::HsmRemovalIntended { hsm } => self.say(&format!("removing {hsm}")),
            EventKind::HsmNotRemoved { hsm, why } => self.say(&format!("{hsm} is not removed: {why}")),
            EventKind::DocumentNamed { document } => {
                self.say(&format!("going on with {} version {}", document.name, document.version));
            }
            EventKind::Released { instance } => self.say(&format!("{instance} is released")),
            EventKind::Ended { end } => self.say(&format!("campaign ended: {}", text::end(*end))),
            _ => {}
        }
    }

    fn trouble(&self, fault: &Fault) {
        self.out.warn(&format!("[{}] {fault}", fault.code));
    }

    /// When nothing was said for a while: what the hosts wait for.
    fn waiting(&self, _until: Timestamp, why: &[(InstanceId, Why)]) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < QUIET {
            return;
        }
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, why) in why {
            // The reason without the ids in its parentheses: hosts of different commands wait for the same thing.
            let reason = why.waits_for.split(" (").next().unwrap_or_default();
            *groups.entry(reason).or_default() += 1;
        }
        let hosts = |n: usize| if n == 1 { "1 host waits".to_owned() } else { format!("{n} hosts wait") };
        let text = groups.iter().map(|(what, n)| format!("{} for {what}", hosts(*n))).collect::<Vec<_>>().join("; ");
        if !text.is_empty() {
            self.say(&text);
        }
    }
}
