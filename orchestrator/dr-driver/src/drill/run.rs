//! Carries a drill's plan out: look, ask, write down, act, write down.
//!
//! Each action first looks for what it would make, by the drill's tag. A drill that was broken off anywhere is therefore gone on
//! with by running the same plan again, and nothing is made twice: what an earlier run may have asked for without hearing
//! the answer is looked for until AWS must have shown it. The one login is spent by one operation, and a host answers a second
//! delivery of an operation from its journal.

use super::ports::{ClusterState, Consent, DrillCloud, MadeCluster, NewImage, NewInstance, Pace, Watcher};
use super::record::{Ending, Kept, Outcome, RecordError, Step};
use super::words;
use crate::{CallError, Cloud, DocumentPin, Effect, SurveyCommand};
use std::net::SocketAddr;
use tde2hsm_dr::drill::{self, Action, EgressTo, Place, PlaceFacts};
use tde2hsm_dr::points::MARGIN;
use tde2hsm_protocol::{
    AccountId, AutoOpen, CampaignId, ClusterId, Code, DatabaseOrder, Digest, Direction, Drill as DrillOrder, DrillRead,
    Generation, HostOrder, InstanceId, KeyAvailabilityCheck, OperationId, Order, OrderToken, PROTOCOL_VERSION, Region, Report,
    RestartProof, SecretRef, SecurityGroupId, Segment, Source, Target, Work,
};

/// Everything a drill is carried out with.
pub struct Drill<'a> {
    pub account: &'a AccountId,
    pub source_region: &'a Region,
    /// Records, backups and orders.
    pub cloud: &'a dyn Cloud,
    pub room: &'a dyn DrillCloud,
    pub pace: &'a dyn Pace,
    pub watcher: &'a dyn Watcher,
    /// The document of the DR region.
    pub document: &'a DocumentPin,
    /// Where nothing may answer the drill host.
    pub unreachable: &'a [SocketAddr],
}

/// Why a drill stopped before its end. None of these tears anything down: a later `--resume` or `--teardown` does.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("interrupted; everything that was made is still there")]
    Interrupted,
}

/// Why an action did not reach its goal.
enum Miss {
    Failed { code: Code, message: String },
    Declined,
    Stop(Stop),
}

impl From<RecordError> for Miss {
    fn from(error: RecordError) -> Miss {
        Miss::Stop(error.into())
    }
}

/// Seconds between looks: short at first, since many things are there at once.
const PAUSES: [i64; 8] = [1, 1, 2, 3, 5, 5, 10, 15];
/// How long what was perhaps asked for is looked for before it is asked for (anew), in looks (`A§1.5`, `A§4.1`).
pub(super) const LOOKS: usize = 8;
/// How long each may take, in seconds, before the drill has failed. AWS names no bounds; these are several times what is usual.
const CLUSTER: i64 = 30 * 60;
const HSM: i64 = 45 * 60;
const IMAGE: i64 = 30 * 60;
const AGENT: i64 = 30 * 60;
/// A crash-consistent copy recovers before it opens, and volumes made from snapshots are read slowly at first.
const ORDER: i64 = 2 * 60 * 60;
/// How often the host is asked anew after SSM has lost its answer.
const ASKS: u32 = 5;

pub(super) struct Waits<'a> {
    pace: &'a dyn Pace,
    until: i64,
    looks: usize,
}

impl<'a> Waits<'a> {
    pub(super) fn new(pace: &'a dyn Pace, seconds: i64) -> Waits<'a> {
        Waits { pace, until: pace.now().0.saturating_add(seconds), looks: 0 }
    }

    /// One pause longer; `false`: the time is over.
    pub(super) async fn next(&mut self) -> bool {
        if self.pace.now().0 >= self.until || self.pace.stopping() {
            return false;
        }
        self.pace.pause(PAUSES[self.looks.min(PAUSES.len() - 1)]).await;
        self.looks += 1;
        true
    }
}

impl Drill<'_> {
    /// Runs the plan to its end or to its first failure and writes down which. Teardown is another call.
    pub async fn run(&self, kept: &mut Kept) -> Result<Outcome, Stop> {
        if kept.record.ending.is_none() {
            let outcome = match self.actions(kept).await {
                Ok(()) => Outcome::Read,
                Err(Miss::Failed { code, message }) => Outcome::Failed { code, message },
                Err(Miss::Declined) => Outcome::Declined,
                Err(Miss::Stop(stop)) => return Err(stop),
            };
            let now = self.pace.now();
            kept.record.ending = Some(Ending { at: now, seconds: now.since(kept.record.began), outcome });
            self.save(kept).await?;
        }
        Ok(kept.record.ending.as_ref().map_or(Outcome::Declined, |ending| ending.outcome.clone()))
    }

    pub(super) async fn save(&self, kept: &mut Kept) -> Result<(), RecordError> {
        kept.save(self.cloud, self.pace).await
    }

    async fn actions(&self, kept: &mut Kept) -> Result<(), Miss> {
        for index in 0..kept.record.plan.actions.len() {
            if self.pace.stopping() {
                return Err(Miss::Stop(Stop::Interrupted));
            }
            let action = kept.record.plan.actions[index].clone();
            let before = kept.record.steps.iter().find(|step| step.action == index).cloned();
            // A place may have changed since it was looked at; all else that is done stays done.
            if before.as_ref().is_some_and(|step| step.done.is_some()) && !matches!(action, Action::CheckPlace) {
                continue;
            }
            if words::effect(&action) && self.watcher.allows(&action).await == Consent::No {
                return Err(Miss::Declined);
            }
            // Begun by a run that never said how it ended: its effect may be there without being seen yet.
            let uncertain = before.is_some();
            if before.is_none() {
                kept.record.steps.push(Step { action: index, begun: self.pace.now(), done: None });
                self.save(kept).await?;
            }
            self.watcher.says(&words::begins(&action));
            self.act(kept, &action, uncertain).await?;
            let now = self.pace.now();
            if let Some(step) = kept.record.steps.iter_mut().find(|step| step.action == index) {
                step.done = Some(now);
            }
            self.save(kept).await?;
        }
        Ok(())
    }

    async fn act(&self, kept: &mut Kept, action: &Action, uncertain: bool) -> Result<(), Miss> {
        match action {
            Action::CheckPlace => self.check_place(kept).await,
            Action::CreateCluster { backup, tags, .. } => {
                if let Some(found) = self.cluster(kept, uncertain).await? {
                    self.watcher.says(&format!("cluster {} is there already", found.id));
                    return Ok(());
                }
                let place = place(kept)?;
                match self.room.create_cluster(backup, &place, tags).await {
                    Ok(id) => {
                        remember(&mut kept.record.made.clusters, &id);
                        self.watcher.says(&format!("cluster {id} is being made"));
                        Ok(())
                    }
                    Err(error) if error.effect == Effect::Ambiguous => match self.cluster(kept, true).await? {
                        Some(_) => Ok(()),
                        None => {
                            Err(failed(Code::DRILL_CLUSTER_FAILED, format!("{error}; no cluster appears with the drill's tag")))
                        }
                    },
                    Err(error) => Err(failed(Code::DRILL_CLUSTER_FAILED, error.to_string())),
                }
            }
            Action::AwaitCluster => {
                let ready = |cluster: &MadeCluster| matches!(cluster.state, ClusterState::Ready | ClusterState::Active);
                let cluster = self.await_cluster(kept, CLUSTER, &ready).await?;
                kept.record.made.cluster_group = cluster.security_group;
                Ok(())
            }
            Action::CreateHsm { availability_zone } => self.create_hsm(kept, availability_zone, uncertain).await,
            Action::AwaitHsm => {
                let works = |cluster: &MadeCluster| {
                    cluster.state == ClusterState::Active && cluster.hsms.iter().any(|hsm| hsm.active && hsm.ip.is_some())
                };
                let cluster = self.await_cluster(kept, HSM, &works).await?;
                kept.record.made.hsm_ip = cluster.hsms.iter().filter(|hsm| hsm.active).find_map(|hsm| hsm.ip);
                kept.record.made.cluster_group = cluster.security_group.or(kept.record.made.cluster_group.take());
                Ok(())
            }
            Action::RegisterImage { name, root_device, devices, tags } => {
                let image = NewImage { name, root_device, devices, tags };
                self.register_image(kept, &image, uncertain).await
            }
            Action::RunInstance { place, tags } => self.run_instance(kept, place, tags).await,
            Action::AwaitManaged => self.await_managed(kept).await,
            Action::Neutralise { .. } => self.send(kept).await,
            Action::Open { sid, .. } => {
                let report = self.answer(kept).await?;
                let read = report.databases.iter().find(|database| database.sid == *sid).and_then(|found| found.drill.clone());
                kept.record.reading = read;
                judge(&report, kept.record.reading.as_ref())
            }
            Action::Record => self.save(kept).await.map_err(Miss::from),
            Action::TerminateInstance
            | Action::DeregisterImage
            | Action::DeleteHsms
            | Action::DeleteCluster
            | Action::DeleteClusterBackups => Ok(()),
        }
    }

    async fn check_place(&self, kept: &Kept) -> Result<(), Miss> {
        let place = place(kept)?;
        let facts = self.ask(Code::DRILL_NOT_ISOLATED, || self.room.place(&place)).await?;
        let violations = drill::violations(&place, &facts);
        if violations.is_empty() {
            return Ok(());
        }
        let all: Vec<String> = violations.iter().map(words::violation).collect();
        Err(failed(Code::DRILL_NOT_ISOLATED, all.join("; ")))
    }

    /// The host is a member of the restored cluster's group as well, and what any of its groups lets out gets out. Which rules
    /// AWS makes that group with is not ours to say: a rule to addresses leads as far as the routes do, which are looked at once
    /// more; one to another group or list must lead to an endpoint.
    async fn check_group(&self, place: &Place, group: &SecurityGroupId) -> Result<(), Miss> {
        let joined = Place { security_group: group.clone(), ..place.clone() };
        let facts = self.ask(Code::DRILL_NOT_ISOLATED, || self.room.place(&joined)).await?;
        let elsewhere = facts.egress.iter().filter(|one| !matches!(one.to, EgressTo::Cidr(_))).cloned().collect();
        let violations = drill::violations(&joined, &PlaceFacts { egress: elsewhere, ..facts });
        if violations.is_empty() {
            return Ok(());
        }
        let all: Vec<String> = violations.iter().map(words::violation).collect();
        let text = format!("with the restored cluster's security group {group}: {}", all.join("; "));
        Err(failed(Code::DRILL_NOT_ISOLATED, text))
    }

    /// The drill's cluster. Where one may have been asked for without an answer, it is looked for several times.
    async fn cluster(&self, kept: &mut Kept, uncertain: bool) -> Result<Option<MadeCluster>, Miss> {
        let production = kept.record.production.clone();
        let id = kept.record.id.clone();
        for look in 0..if uncertain { LOOKS } else { 1 } {
            if look > 0 {
                self.pace.pause(PAUSES[look.min(PAUSES.len() - 1)]).await;
            }
            let found = self.ask(Code::DRILL_CLUSTER_FAILED, || self.room.clusters(&id)).await?;
            let ours = found.into_iter().find(|cluster| cluster.id != production && cluster.state != ClusterState::Deleting);
            if let Some(ours) = ours {
                remember(&mut kept.record.made.clusters, &ours.id);
                return Ok(Some(ours));
            }
        }
        Ok(None)
    }

    async fn await_cluster(
        &self,
        kept: &mut Kept,
        seconds: i64,
        reached: &(dyn Fn(&MadeCluster) -> bool + Sync),
    ) -> Result<MadeCluster, Miss> {
        let mut waits = Waits::new(self.pace, seconds);
        let mut last;
        loop {
            match self.cluster(kept, false).await? {
                Some(cluster) if reached(&cluster) => return Ok(cluster),
                Some(cluster) if matches!(cluster.state, ClusterState::Degraded | ClusterState::Deleting) => {
                    let why = cluster.state_message.unwrap_or_else(|| format!("its state is `{:?}`", cluster.state));
                    return Err(failed(Code::DRILL_CLUSTER_FAILED, format!("cluster {}: {why}", cluster.id)));
                }
                Some(cluster) => {
                    last = format!("cluster {} is `{:?}` with {} HSMs", cluster.id, cluster.state, cluster.hsms.len())
                }
                None => last = "the cluster does not appear".to_owned(),
            }
            if !waits.next().await {
                return Err(self.out_of_time(Code::DRILL_CLUSTER_FAILED, seconds, &last));
            }
        }
    }

    async fn create_hsm(&self, kept: &mut Kept, zone: &str, uncertain: bool) -> Result<(), Miss> {
        let mut asked = false;
        for look in 0..LOOKS {
            let Some(cluster) = self.cluster(kept, look > 0).await? else {
                return Err(failed(Code::DRILL_CLUSTER_FAILED, "the cluster is gone".to_owned()));
            };
            if cluster.hsms.iter().any(|hsm| !hsm.deleting) {
                return Ok(());
            }
            // What may have been asked for before is waited for; then it is asked for once.
            if !asked && (!uncertain || look + 1 == LOOKS / 2) {
                match self.room.create_hsm(&cluster.id, zone).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.effect == Effect::Ambiguous => asked = true,
                    Err(error) => return Err(failed(Code::DRILL_CLUSTER_FAILED, error.to_string())),
                }
            }
            self.pace.pause(PAUSES[look.min(PAUSES.len() - 1)]).await;
        }
        Err(failed(Code::DRILL_CLUSTER_FAILED, "whether an HSM was made is not known; none appears".to_owned()))
    }

    async fn register_image(&self, kept: &mut Kept, image: &NewImage<'_>, uncertain: bool) -> Result<(), Miss> {
        let mut waits = Waits::new(self.pace, IMAGE);
        let mut registered = false;
        // An image has no other name: a second registration is refused and makes nothing.
        let mut looks = if uncertain { LOOKS } else { 1 };
        loop {
            let id = kept.record.id.clone();
            let found = self.ask(Code::DRILL_HOST_FAILED, || self.room.images(&id)).await?;
            match found.into_iter().find(|found| found.name == image.name) {
                Some(found) => {
                    kept.record.made.image = Some(found.id.clone());
                    match found.state.as_str() {
                        "available" => return Ok(()),
                        "pending" | "transient" => {}
                        other => return Err(failed(Code::DRILL_HOST_FAILED, format!("image {} is `{other}`", found.id))),
                    }
                }
                None if !registered && looks <= 1 => match self.room.register_image(image).await {
                    Ok(id) => {
                        kept.record.made.image = Some(id);
                        registered = true;
                    }
                    Err(error) if error.effect == Effect::Ambiguous || error.is(&["InvalidAMIName.Duplicate"]) => {
                        registered = true
                    }
                    Err(error) => return Err(failed(Code::DRILL_HOST_FAILED, error.to_string())),
                },
                None => looks = looks.saturating_sub(1),
            }
            if !waits.next().await {
                return Err(self.out_of_time(Code::DRILL_HOST_FAILED, IMAGE, "the image does not become available"));
            }
        }
    }

    async fn run_instance(&self, kept: &mut Kept, place: &Place, tags: &super::ports::Tags) -> Result<(), Miss> {
        let lacks = |what: &str| failed(Code::DRILL_HOST_FAILED, format!("{what} is not known"));
        let image = kept.record.made.image.clone().ok_or_else(|| lacks("the image"))?;
        let group = kept.record.made.cluster_group.clone().ok_or_else(|| lacks("the cluster's security group"))?;
        self.check_group(place, &group).await?;
        let token = kept.record.id.to_string();
        let new = NewInstance { client_token: &token, image: &image, place, cluster_group: &group, tags };
        // The client token makes a second call harmless: it answers with the first one's instance.
        let mut last = String::new();
        for look in 0..LOOKS {
            match self.room.run_instance(&new).await {
                Ok(id) => {
                    kept.record.made.instance = Some(id);
                    return Ok(());
                }
                Err(error) if error.effect == Effect::Refused => return Err(failed(Code::DRILL_HOST_FAILED, error.to_string())),
                Err(error) => last = error.to_string(),
            }
            self.pace.pause(PAUSES[look.min(PAUSES.len() - 1)]).await;
        }
        Err(failed(Code::DRILL_HOST_FAILED, last))
    }

    async fn await_managed(&self, kept: &mut Kept) -> Result<(), Miss> {
        let instance = instance(kept)?;
        let mut waits = Waits::new(self.pace, AGENT);
        let mut last;
        loop {
            let id = kept.record.id.clone();
            let found = self.ask(Code::DRILL_HOST_FAILED, || self.room.instances(&id)).await?;
            match found.iter().find(|found| found.id == instance).map(|found| found.state.as_str()) {
                Some("running") => {
                    if self.ask(Code::DRILL_HOST_FAILED, || self.room.managed(&instance)).await? {
                        return Ok(());
                    }
                    last = format!("{instance} runs, and its SSM agent is not online");
                }
                Some(state @ ("shutting-down" | "stopping" | "stopped")) => {
                    return Err(failed(Code::DRILL_HOST_FAILED, format!("{instance} is `{state}`")));
                }
                Some(state) => last = format!("{instance} is `{state}`"),
                None => last = format!("{instance} does not appear"),
            }
            if !waits.next().await {
                return Err(self.out_of_time(Code::DRILL_HOST_FAILED, AGENT, &last));
            }
        }
    }

    /// The one order of a drill: both steps, one operation, one login.
    async fn send(&self, kept: &mut Kept) -> Result<(), Miss> {
        let instance = instance(kept)?;
        let token = token(kept, "order")?;
        let since = kept.record.steps.last().map_or(kept.record.began, |step| step.begun).plus(-MARGIN);
        let region = kept.record.plan.region.clone();
        for look in 0..LOOKS {
            let found =
                self.ask(Code::DRILL_HOST_FAILED, || self.cloud.find_survey(&region, self.document, &token, since)).await?;
            if let Some(command) = found.into_iter().next() {
                kept.record.made.command = Some(command);
                return Ok(());
            }
            let work = Work::Run { segment: Segment::Drill, direction: Direction::Do };
            let order = self.order(kept, &instance, &token, work)?;
            match self.command(&region, &instance, &order, &token).await {
                Ok(command) => {
                    kept.record.made.command = Some(command);
                    return Ok(());
                }
                // A host answers a second delivery of an operation from its journal, so that another order spends no login.
                Err(error) if error.effect != Effect::Refused => {
                    self.watcher.says(&format!("{error}; looking for it by its token"))
                }
                Err(error) if error.is(&["InvalidInstanceId"]) && look + 1 < LOOKS => {}
                Err(error) => return Err(failed(Code::DRILL_HOST_FAILED, error.to_string())),
            }
            self.pace.pause(PAUSES[look.min(PAUSES.len() - 1)]).await;
        }
        Err(failed(Code::DRILL_HOST_FAILED, "whether the order was sent is not known".to_owned()))
    }

    async fn command(&self, region: &Region, instance: &InstanceId, order: &Order, token: &OrderToken) -> crate::Result<String> {
        let text = order.encode().map_err(|e| CallError {
            call: "ssm:SendCommand".to_owned(),
            effect: Effect::NotSent,
            aws_code: None,
            message: e.to_string(),
        })?;
        let instances = std::slice::from_ref(instance);
        let command = SurveyCommand { document: self.document, instances, order: &text, token, delivery_seconds: 600 };
        self.cloud.send_survey(region, &command).await
    }

    fn order(&self, kept: &Kept, instance: &InstanceId, token: &OrderToken, work: Work) -> Result<Order, Miss> {
        let record = &kept.record;
        let wrong = |e: tde2hsm_protocol::IdError| failed(Code::DRILL_HOST_FAILED, e.to_string());
        let lacks = |what: &str| failed(Code::DRILL_HOST_FAILED, format!("{what} is not known"));
        let (Some(cluster), Some(ip)) = (record.made.clusters.last().cloned(), record.made.hsm_ip) else {
            return Err(lacks("the restored cluster's address"));
        };
        let open = record.plan.actions.iter().find_map(|action| match action {
            Action::Open { sid, secret, keystore_secret } => Some((sid.clone(), secret.clone(), keystore_secret.clone())),
            _ => None,
        });
        let (sid, Some(secret), keystore) = open.ok_or_else(|| lacks("what is to be opened"))? else {
            return Err(lacks("the crypto user's secret"));
        };
        let secrets: Vec<SecretRef> = [Some(secret), keystore].into_iter().flatten().collect();
        let now = self.pace.now();
        let database = DatabaseOrder {
            sid,
            source: Source::Software,
            // Beyond the list where the point needs no software key: the host then has no password to try.
            software: 1,
            cloudhsm: 0,
            auto_open: AutoOpen::Typed,
            restart_proof: RestartProof::Skip,
            backup_hours: 0,
        };
        let host = HostOrder {
            instance: instance.clone(),
            operation: OperationId::new(record.id.as_str()).map_err(wrong)?,
            saw: None,
            prove_logins: Vec::new(),
            databases: vec![database],
            detail: None,
        };
        Ok(Order {
            v: PROTOCOL_VERSION,
            account: self.account.clone(),
            region: record.plan.region.clone(),
            campaign: CampaignId::new(record.id.as_str()).map_err(wrong)?,
            plan: Digest::ZERO,
            generation: Generation(1),
            token: token.clone(),
            not_before: now.plus(-MARGIN),
            not_after: now.plus(ORDER),
            journal_head: serde_json::to_vec(record).map(|body| Digest::of(&body)).unwrap_or(Digest::ZERO),
            work,
            target: Some(Target { cluster, hsms: vec![ip], key_availability_check: KeyAvailabilityCheck::Off }),
            secrets,
            escrow: None,
            drill: Some(DrillOrder {
                id: record.id.clone(),
                source: record.plan.instance.clone(),
                source_region: self.source_region.clone(),
                unreachable: self.unreachable.to_vec(),
            }),
            hosts: vec![host],
        })
    }

    /// The host's report. What SSM says of a command says nothing of the host (`A§1.3`): where no report came, the host is
    /// asked how the operation stands.
    async fn answer(&self, kept: &mut Kept) -> Result<Report, Miss> {
        let instance = instance(kept)?;
        let region = kept.record.plan.region.clone();
        let mut command = kept.record.made.command.clone();
        let mut waits = Waits::new(self.pace, ORDER);
        let mut asks = 0;
        let mut last = "no answer yet".to_owned();
        loop {
            if let Some(id) = &command {
                let answers = self.ask(Code::DRILL_HOST_FAILED, || self.cloud.read_survey(&region, id)).await?;
                if let Some(answer) = answers.into_iter().find(|answer| answer.instance == instance && answer.over) {
                    match Report::decode(&answer.output.unwrap_or_default()) {
                        Ok(report) if report.instance == instance && report.operation.as_str() == kept.record.id.as_str() => {
                            if !matches!(report.outcome, tde2hsm_protocol::Outcome::Waiting { .. }) {
                                return Ok(report);
                            }
                            last = format!("the host waits: {}", report.message);
                        }
                        // A host that does not know itself is nobody, and says why.
                        Ok(report) => {
                            let code = report.outcome.code().map(|code| format!("{code}: ")).unwrap_or_default();
                            last = format!(
                                "the host answers as {} for {}: {code}{}",
                                report.instance, report.operation, report.message
                            );
                        }
                        Err(_) => last = format!("SSM says `{}`", answer.details),
                    }
                    command = None;
                }
            }
            if command.is_none() {
                if asks == ASKS {
                    return Err(failed(Code::DRILL_HOST_FAILED, last));
                }
                asks += 1;
                self.watcher.says(&format!("{last}; asking the host how it stands"));
                let token = token(kept, &format!("ask{asks}"))?;
                let order = self.order(kept, &instance, &token, Work::Status)?;
                match self.command(&region, &instance, &order, &token).await {
                    Ok(id) => command = Some(id),
                    Err(error) => last = error.to_string(),
                }
            }
            if !waits.next().await {
                return Err(self.out_of_time(Code::DRILL_HOST_FAILED, ORDER, &last));
            }
        }
    }

    /// A question that may be asked again: AWS not answering is not yet a failure of the drill.
    async fn ask<T, F>(&self, code: Code, mut question: impl FnMut() -> F) -> Result<T, Miss>
    where
        F: Future<Output = crate::Result<T>>,
    {
        let mut tried = 0;
        loop {
            let error = match question().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tried += 1;
            if tried == LOOKS || self.pace.stopping() || (error.effect == Effect::Refused && !error.throttled()) {
                return Err(failed(code, error.to_string()));
            }
            self.pace.pause(PAUSES[tried.min(PAUSES.len() - 1)]).await;
        }
    }

    fn out_of_time(&self, code: Code, seconds: i64, last: &str) -> Miss {
        match self.pace.stopping() {
            true => Miss::Stop(Stop::Interrupted),
            false => failed(code, format!("{last} after {} minutes", seconds / 60)),
        }
    }
}

fn failed(code: Code, message: String) -> Miss {
    Miss::Failed { code, message }
}

fn remember(clusters: &mut Vec<ClusterId>, id: &ClusterId) {
    if !clusters.contains(id) {
        clusters.push(id.clone());
    }
}

fn place(kept: &Kept) -> Result<Place, Miss> {
    let place = kept.record.plan.actions.iter().find_map(|action| match action {
        Action::RunInstance { place, .. } => Some(place.clone()),
        _ => None,
    });
    place.ok_or_else(|| failed(Code::DRILL_NOT_ISOLATED, "the plan names no place".to_owned()))
}

fn instance(kept: &Kept) -> Result<InstanceId, Miss> {
    kept.record.made.instance.clone().ok_or_else(|| failed(Code::DRILL_HOST_FAILED, "the instance is not known".to_owned()))
}

fn token(kept: &Kept, word: &str) -> Result<OrderToken, Miss> {
    OrderToken::new(format!("{}-{word}", kept.record.id)).map_err(|e| failed(Code::DRILL_HOST_FAILED, e.to_string()))
}

/// A drill is good if the host says so and its reading bears it out: something was read, and nothing stayed unread.
fn judge(report: &Report, reading: Option<&DrillRead>) -> Result<(), Miss> {
    let unread = reading.and_then(|read| read.unread.first());
    let ended = report.databases.iter().find_map(|database| database.outcome.code());
    let code = report.outcome.code().or(ended).or(unread.map(|unread| unread.code));
    if let Some(code) = code {
        let what = unread.map(|unread| format!(" (`{}`: {})", unread.what, unread.code)).unwrap_or_default();
        let code = match code {
            Code::DRILL_KEY_ABSENT | Code::OLD_KEY_MISSING => Code::DRILL_KEY_MISSING,
            Code::DRILL_NOT_OPENED
            | Code::KEYSTORE_REFUSED
            | Code::KEYSTORE_CLOSED
            | Code::LOGIN_REFUSED
            | Code::TOKEN_UNREACHABLE => Code::DRILL_KEYSTORE_CLOSED,
            Code::DRILL_UNREAD | Code::ROWS_UNREADABLE => Code::DRILL_ROWS_UNREAD,
            other => other,
        };
        return Err(failed(code, format!("{}{what}", report.message)));
    }
    match reading {
        Some(read) if read.tablespaces > 0 || read.columns > 0 => Ok(()),
        Some(_) => Err(failed(Code::DRILL_ROWS_UNREAD, "the host found nothing encrypted to read".to_owned())),
        None => Err(failed(Code::NOT_AS_ASKED, "the host's report says nothing of the database".to_owned())),
    }
}
