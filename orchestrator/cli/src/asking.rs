//! Asks hosts something outside of any campaign's decisions: a survey, a piece of a detail, a journal.
//!
//! Such an order moves nothing, so it may be sent again when nobody knows whether it went out; its window still ends,
//! and an answer is believed only from the instance and for the operation it was asked for (H36).

use crate::context::SystemClock;
use crate::failure::Failure;
use crate::out::Out;
use std::collections::BTreeMap;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::CommandId;
use tde2hsm_cloud::ssm::{Sending, Stage};
use tde2hsm_cloud::{Aws, CloudError, Effect};
use tde2hsm_document::Fetch;
use tde2hsm_driver::Clock as _;
use tde2hsm_protocol::{
    AccountId, CampaignId, Chunk, Code, DetailRef, Digest, Generation, HostOrder, InstanceId, ORDER_HOSTS, OperationId, Order,
    OrderToken, PROTOCOL_VERSION, Region, Report, Timestamp, Work,
};

pub struct Asking<'a> {
    pub aws: &'a Aws,
    pub clock: &'a SystemClock,
    pub out: Out,
    pub document: &'a DocumentPin,
    pub account: &'a AccountId,
    pub region: &'a Region,
    pub campaign: CampaignId,
    pub plan: Digest,
    pub generation: Generation,
    pub journal_head: Digest,
}

/// What came of asking one host.
#[derive(Debug, Clone)]
pub enum Heard {
    Report(Box<Report>),
    /// No readable report, and what SSM says of it.
    Nothing(String),
}

/// How long an order of this kind is valid, in seconds.
const VALID: i64 = 600;
/// How far the clocks of this machine, of AWS and of a host may be apart: a host whose clock is behind must not refuse a
/// fresh order (H31), and a command just sent must not look as if it were an older one.
const MARGIN: i64 = tde2hsm_dr::points::MARGIN;
/// How much longer an answer is waited for.
const GRACE: i64 = 30;
/// Seconds between two looks at a command, the first ones short: most answers come at once.
const PAUSES: [i64; 6] = [1, 1, 2, 3, 5, 5];
/// How long a command whose sending is uncertain is looked for, in looks of one pause (`A§1.5`).
const LOOKS: usize = 6;

/// Pieces that are fetched at once: an agent runs five commands side by side, and more would only wait in its queue.
const TOGETHER: usize = 5;

struct Open {
    command: CommandId,
    hosts: BTreeMap<InstanceId, OperationId>,
}

impl Asking<'_> {
    /// Asks all hosts the same, fifty in a command. Each gets exactly one entry in the answer.
    pub async fn ask(
        &self,
        hosts: &[InstanceId],
        work: Work,
        details: &BTreeMap<InstanceId, DetailRef>,
    ) -> Result<BTreeMap<InstanceId, Heard>, Failure> {
        let mut heard = BTreeMap::new();
        let mut open = Vec::new();
        for batch in hosts.chunks(ORDER_HOSTS) {
            self.send(batch, work, details, &mut open, &mut heard).await?;
        }
        let until = self.clock.now().plus(VALID + GRACE);
        let mut looks = 0;
        while !open.is_empty() {
            if self.clock.stopping() {
                return Err(interrupted());
            }
            self.clock.pause(PAUSES[looks.min(PAUSES.len() - 1)]).await;
            looks += 1;
            for command in &mut open {
                self.look(command, &mut heard).await?;
            }
            open.retain(|command| !command.hosts.is_empty());
            if self.clock.now() > until {
                for (instance, _) in open.drain(..).flat_map(|command| command.hosts) {
                    heard.insert(instance, Heard::Nothing("no answer in time".to_owned()));
                }
            }
        }
        Ok(heard)
    }

    async fn send(
        &self,
        batch: &[InstanceId],
        work: Work,
        details: &BTreeMap<InstanceId, DetailRef>,
        open: &mut Vec<Open>,
        heard: &mut BTreeMap<InstanceId, Heard>,
    ) -> Result<(), Failure> {
        match self.send_batch(batch, work, details).await {
            Ok(command) => open.push(command),
            Err(error) if error.is(&["InvalidInstanceId"]) && batch.len() > 1 => {
                // One bad id rejects the whole call (A§1.1); alone, each speaks for itself.
                for instance in batch {
                    match self.send_batch(std::slice::from_ref(instance), work, details).await {
                        Ok(command) => open.push(command),
                        Err(error) => silent(instance, error, heard)?,
                    }
                }
            }
            Err(error) if batch.len() == 1 => silent(&batch[0], error, heard)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn send_batch(
        &self,
        batch: &[InstanceId],
        work: Work,
        details: &BTreeMap<InstanceId, DetailRef>,
    ) -> Result<Open, CloudError> {
        loop {
            let valid = window(self.clock.now());
            let token = OrderToken::new(format!("ask-{}", random())).expect("hexadecimal digits after a word");
            let host = |instance: &InstanceId| HostOrder {
                instance: instance.clone(),
                operation: OperationId::new(format!("ask-{}", random())).expect("hexadecimal digits after a word"),
                saw: None,
                prove_logins: Vec::new(),
                databases: Vec::new(),
                detail: details.get(instance).map(|detail| detail.digest),
            };
            let order = Order {
                v: PROTOCOL_VERSION,
                account: self.account.clone(),
                region: self.region.clone(),
                campaign: self.campaign.clone(),
                plan: self.plan,
                generation: self.generation,
                token: token.clone(),
                not_before: valid.0,
                not_after: valid.1,
                journal_head: self.journal_head,
                work,
                target: None,
                secrets: Vec::new(),
                escrow: None,
                drill: None,
                hosts: batch.iter().map(host).collect(),
            };
            let text = order.encode().expect("fifty hosts without databases fit an order: tested in protocol");
            let sending = Sending {
                document: self.document,
                instances: batch,
                order: &text,
                fetch: Fetch::Runner,
                token: &token,
                delivery_seconds: VALID,
            };
            let hosts = order.hosts.into_iter().map(|host| (host.instance, host.operation)).collect();
            match self.aws.ssm.send(&sending).await {
                Ok(command) => return Ok(Open { command, hosts }),
                Err(error) if error.effect != Effect::Ambiguous => return Err(error),
                Err(error) => self.out.warn(&format!("{error}; looking for the command by its token")),
            }
            for _ in 0..LOOKS {
                self.clock.pause(2).await;
                if let Some(command) = self.aws.ssm.find(self.document, &token, valid.0).await?.pop() {
                    return Ok(Open { command, hosts });
                }
            }
        }
    }

    async fn look(&self, command: &mut Open, heard: &mut BTreeMap<InstanceId, Heard>) -> Result<(), Failure> {
        let invocations = match self.aws.ssm.invocations(&command.command).await {
            Ok(invocations) => invocations,
            // The next look may do better; what never does is said as it is.
            Err(error) if error.code == Code::AWS_THROTTLED || error.effect == Effect::Ambiguous => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for invocation in invocations.into_iter().filter(|i| i.stage == Stage::Over) {
            let Some(operation) = command.hosts.remove(&invocation.instance) else { continue };
            let output = invocation.output.unwrap_or_default();
            let answer = match Report::decode(&output) {
                Ok(report) if report.instance == invocation.instance && report.operation == operation => {
                    Heard::Report(Box::new(report))
                }
                Ok(_) => Heard::Nothing("it answered for another host or operation".to_owned()),
                Err(_) => Heard::Nothing(format!("SSM says `{}`: {}", invocation.details, first_line(&output))),
            };
            heard.insert(invocation.instance, answer);
        }
        Ok(())
    }

    /// Reports and the details they name, fetched piece by piece, fifty hosts a command and piece.
    pub async fn ask_in_full(
        &self,
        hosts: &[InstanceId],
        work: Work,
    ) -> Result<BTreeMap<InstanceId, Result<Vec<u8>, String>>, Failure> {
        let mut done = BTreeMap::new();
        let mut details = BTreeMap::new();
        let mut pieces: BTreeMap<InstanceId, Vec<Chunk>> = BTreeMap::new();
        for (instance, heard) in self.ask(hosts, work, &details).await? {
            match heard {
                Heard::Nothing(why) => drop(done.insert(instance, Err(why))),
                Heard::Report(report) => match (report.detail, report.outcome.code()) {
                    (Some(detail), None) => {
                        pieces.insert(instance.clone(), report.chunk.into_iter().collect());
                        details.insert(instance, detail);
                    }
                    (None, None) => drop(done.insert(instance, Err("its report names no detail".to_owned()))),
                    (_, Some(code)) => drop(done.insert(instance, Err(format!("{code}: {}", report.message)))),
                },
            }
        }
        let most = details.values().map(|detail| detail.chunks).max().unwrap_or(0);
        let chunks: Vec<u16> = (0..most).collect();
        for some in chunks.chunks(TOGETHER) {
            let lacking = |chunk: u16| -> Vec<InstanceId> {
                let has = |instance: &InstanceId| pieces[instance].iter().any(|piece| piece.index == chunk);
                let lacks = details
                    .iter()
                    .filter(|(instance, detail)| !done.contains_key(*instance) && chunk < detail.chunks && !has(instance));
                lacks.map(|(instance, _)| instance.clone()).collect()
            };
            let asked: Vec<(u16, Vec<InstanceId>)> =
                some.iter().map(|chunk| (*chunk, lacking(*chunk))).filter(|(_, hosts)| !hosts.is_empty()).collect();
            let Some(widest) = asked.iter().map(|(_, hosts)| hosts.len()).max() else { continue };
            self.out.say(&format!("fetching {} of {most} pieces of {widest} hosts", asked.len()));
            let answers = asked.iter().map(|(chunk, hosts)| self.ask(hosts, Work::Fetch { chunk: *chunk }, &details));
            for (instance, heard) in futures::future::try_join_all(answers).await?.into_iter().flatten() {
                let piece = match heard {
                    Heard::Nothing(why) => Err(why),
                    Heard::Report(report) => report.chunk.ok_or_else(|| format!("no piece came: {}", report.message)),
                };
                match piece {
                    Ok(piece) => pieces.entry(instance).or_default().push(piece),
                    Err(why) => drop(done.insert(instance, Err(why))),
                }
            }
        }
        for (instance, detail) in &details {
            if !done.contains_key(instance) {
                let whole = detail.assemble(&pieces[instance]).map_err(|e| e.to_string());
                done.insert(instance.clone(), whole);
            }
        }
        Ok(done)
    }
}

/// A host that cannot be asked is a fact about it; credentials that do not hold are a fact about all.
fn silent(instance: &InstanceId, error: CloudError, heard: &mut BTreeMap<InstanceId, Heard>) -> Result<(), Failure> {
    if error.is(&["InvalidInstanceId"]) {
        heard.insert(instance.clone(), Heard::Nothing(error.to_string()));
        return Ok(());
    }
    Err(error.into())
}

/// From when until when an order given now is valid.
fn window(now: Timestamp) -> (Timestamp, Timestamp) {
    (now.plus(-MARGIN), now.plus(VALID))
}

fn first_line(output: &str) -> &str {
    output.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output")
}

pub fn interrupted() -> Failure {
    Failure::plain(crate::exit::Exit::Interrupted, "interrupted")
}

/// Sixteen hexadecimal digits that no other order has.
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H31: within the margin of clocks a host takes an order as it comes, and AWS's list of commands shows it.
    #[test]
    fn h31_a_host_whose_clock_is_off_by_the_margin_takes_a_question() {
        let now = Timestamp(1_795_600_000);
        let (from, until) = window(now);
        for off in [-300, -60, 0, 60, 300] {
            let host = now.plus(off);
            assert!(from <= host && host < until, "off by {off} s");
        }
    }
}
