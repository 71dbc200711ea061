//! `clean`: takes the runner off the hosts and the document out of the account. Journals and backups on the hosts
//! stay: as long as old keys may be needed, so may they.

use crate::args::Clean;
use crate::asking::{interrupted, random};
use crate::context::{Context, read_fleet};
use crate::drive::approve;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gather;
use serde::Serialize;
use std::collections::BTreeSet;
use tde2hsm_campaign::facts::Ping;
use tde2hsm_campaign::reducer::State;
use tde2hsm_cloud::Aws;
use tde2hsm_cloud::ssm::Stage;
use tde2hsm_document::{REMOVED, removal};
use tde2hsm_driver::{Clock as _, plan_of};
use tde2hsm_journal::Journal as _;
use tde2hsm_protocol::{Code, InstanceId, ORDER_HOSTS, OrderToken};

#[derive(Serialize)]
struct Cleaned {
    cleaned: Vec<InstanceId>,
    /// Hosts that did not confirm it, or could not be asked.
    left: Vec<InstanceId>,
    document: String,
    document_deleted: bool,
}

pub async fn run(context: &Context, args: Clean) -> Result<Exit, Failure> {
    let name = args.document.name;
    let fleet = read_fleet(&args.fleet)?;
    no_open_campaign(context, &name).await?;
    let aws = context.aws_of(&fleet.fleet.account, &fleet.fleet.region).await?;
    let instances = gather::instances(&aws, &fleet).await?;
    let ids: Vec<InstanceId> = instances.into_iter().map(|i| i.instance).collect();
    let managed = aws.ssm.managed(&ids).await?;
    let online: Vec<InstanceId> = managed.into_iter().filter(|m| m.ping == Ping::Online).map(|m| m.instance).collect();
    let question = format!("Take host-runner off {} hosts and delete the SSM document `{name}`?", online.len());
    approve(context.out, args.approval.yes, &question)?;

    let cleaned = remove(context, &aws, &format!("{name}-removal"), &online).await?;
    let left: Vec<InstanceId> = ids.into_iter().filter(|id| !cleaned.contains(id)).collect();
    let document_deleted = aws.ssm.delete_document(&name).await?;
    let human = format!("host-runner is off {} hosts, left on {}; document `{name}` deleted", cleaned.len(), left.len());
    let exit = if left.is_empty() { Exit::Ok } else { Exit::HostsFailed };
    let cleaned = Cleaned { cleaned: cleaned.into_iter().collect(), left, document: name, document_deleted };
    context.out.answer("clean", &cleaned, &human)?;
    Ok(exit)
}

async fn no_open_campaign(context: &Context, document: &str) -> Result<(), Failure> {
    if !context.journal_path()?.exists() {
        return Ok(());
    }
    let journal = context.journal().await?;
    for listed in journal.campaigns().await? {
        let (plan, events, _) = plan_of(&journal, &listed.campaign).await?;
        if plan.document.name == document && State::replay(plan.clone(), &events).end().is_none() {
            let message = format!("campaign `{}` still needs the document `{document}`", listed.campaign);
            return Err(Failure::new(Code::CAMPAIGN_EXISTS, message));
        }
    }
    Ok(())
}

/// Runs the removal on all of them and answers which confirmed it.
async fn remove(context: &Context, aws: &Aws, document: &str, hosts: &[InstanceId]) -> Result<BTreeSet<InstanceId>, Failure> {
    let mut cleaned = BTreeSet::new();
    if hosts.is_empty() {
        return Ok(cleaned);
    }
    let (pin, _) = aws.ssm.ensure_document(document, &removal()).await?;
    let mut open = Vec::new();
    for batch in hosts.chunks(ORDER_HOSTS) {
        let token = OrderToken::new(format!("clean-{}", random())).expect("hexadecimal digits after a word");
        open.push((aws.ssm.send_plain(&pin, batch, &token).await?, batch.len()));
    }
    let until = context.now().plus(180);
    while !open.is_empty() && context.now() < until {
        if context.clock.stopping() {
            return Err(interrupted());
        }
        context.clock.pause(2).await;
        let mut still = Vec::new();
        for (command, hosts) in open {
            let over: Vec<_> = aws.ssm.invocations(&command).await?.into_iter().filter(|i| i.stage == Stage::Over).collect();
            let ended = over.len();
            let done = over.into_iter().filter(|i| i.output.as_deref().is_some_and(|output| output.contains(REMOVED)));
            cleaned.extend(done.map(|i| i.instance));
            if ended < hosts {
                still.push((command, hosts));
            }
        }
        open = still;
    }
    aws.ssm.delete_document(document).await?;
    Ok(cleaned)
}
