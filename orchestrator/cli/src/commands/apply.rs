//! `apply`: begins a campaign and drives it.

use crate::args::Apply;
use crate::context::{Context, read_plan};
use crate::drive::{Progress, approve, campaign_of, drive};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::night::Night;
use std::sync::Arc;
use tde2hsm_campaign::reducer::{EventKind, Gate};
use tde2hsm_campaign::render;
use tde2hsm_driver::Driver;
use tde2hsm_journal::{Head, Journal as _};
use tde2hsm_protocol::{Code, Generation};

pub async fn run(context: &Context, args: Apply) -> Result<Exit, Failure> {
    let plan = read_plan(&args.plan)?;
    let campaign = campaign_of(&plan);
    let journal = context.journal().await?;
    if journal.head(&campaign).await? != Head::START {
        return Err(Failure::new(Code::CAMPAIGN_EXISTS, format!("campaign `{campaign}` is in the journal")));
    }
    let aws = context.aws_for(&plan).await?;
    context.out.show(&render::plan(&plan));
    approve(context.out, args.approval.yes, &format!("Carry this plan out on {} hosts?", plan.hosts.len()))?;
    let night = Night::new(context, &aws, &plan, &plan.document).await;
    let progress = Progress::new(context.out);
    let first = vec![
        EventKind::CampaignStarted { plan: plan.digest(), campaign: campaign.clone(), generation: Generation(1) },
        EventKind::Approved { gate: Gate::Stage },
    ];
    let mut driver = Driver::start(&journal, &night, &context.clock, &progress, Arc::new(plan), campaign, first).await?;
    drive(context, "apply", &night, &journal, &mut driver, args.approval.yes).await
}
