//! `release`: ends a campaign's hold on a host, so that another campaign may have it. The host stays as it is.

use super::status::{Pick, pick};
use crate::args::Release;
use crate::context::Context;
use crate::drive::Progress;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::night::Night;
use crate::text;
use tde2hsm_campaign::reducer::{EventKind, Standing, State};
use tde2hsm_driver::{Clock as _, Driver, Turn, plan_of};
use tde2hsm_protocol::Code;

pub async fn run(context: &Context, args: Release) -> Result<Exit, Failure> {
    let journal = context.existing_journal().await?;
    let campaign = pick(&journal, args.campaign, Pick::Any).await?;
    let (plan, events, _) = plan_of(&journal, &campaign).await?;
    let state = State::replay(plan.clone(), &events);
    if plan.host(&args.host).is_none() {
        return Err(Failure::usage(format!("host `{}` is not of campaign `{campaign}`", args.host)));
    }
    let aws = context.aws_of(&plan.account, &plan.region).await?;
    aws.ssm.check_document(state.document()).await?;
    let night = Night::new(context, &aws, &plan, state.document()).await;
    let progress = Progress::new(context.out);
    let mut driver = Driver::open(&journal, &night, &context.clock, &progress, campaign).await?;
    let had_ended = driver.state().end().is_some();
    let why = format!("release of {} was asked for", args.host);
    driver.record(vec![EventKind::Interrupted { why }, EventKind::ReleaseRequested { hosts: vec![args.host.clone()] }]).await?;
    let until = context.now().plus(600);
    loop {
        let summary = driver.state().summary(context.now());
        let standing = summary.hosts.iter().find(|host| host.instance == args.host).map(|host| host.standing);
        if standing == Some(Standing::Released) {
            if had_ended {
                // Nothing else is left to do: it ends again, as it had.
                driver.turn().await?;
            }
            let summary = driver.state().summary(context.now());
            context.out.answer("release", &summary, &text::summary(&summary, context.now()))?;
            return Ok(Exit::Ok);
        }
        if context.clock.stopping() {
            return Err(crate::asking::interrupted());
        }
        match driver.turn().await? {
            Turn::Wait { until } => context.clock.sleep_until(until).await,
            Turn::Asks { wake, .. } => context.clock.sleep_until(wake.unwrap_or_else(|| context.now().plus(5))).await,
            Turn::Again => {}
            Turn::Stopped | Turn::Ended(_) => break,
        }
        if context.now() > until {
            break;
        }
    }
    Err(Failure::new(Code::HOST_HELD, format!("host `{}` did not confirm that it is released", args.host)))
}
