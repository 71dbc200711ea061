//! `resume`: goes on where the journal ends. Hosts that failed are tried again; what was intended and has no answer is
//! looked up before anything is sent.

use super::status::{Pick, pick};
use crate::args::Resume;
use crate::context::Context;
use crate::drive::{Progress, drive};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::night::Night;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::{End, EventKind, Retry, State};
use tde2hsm_driver::{Driver, plan_of};
use tde2hsm_protocol::{Code, SecretRef};

pub async fn run(context: &Context, args: Resume) -> Result<Exit, Failure> {
    let journal = context.existing_journal().await?;
    let campaign = pick(&journal, args.campaign, Pick::Unfinished).await?;
    let (plan, events, _) = plan_of(&journal, &campaign).await?;
    let state = State::replay(plan.clone(), &events);
    let (aws, anew) = context.aws_again(&state, &args.anew, &args.approval).await?;
    let night = Night::new(context, &aws, &plan, document(&state, anew.as_ref())).await;
    let progress = Progress::new(context.out);
    let mut driver = Driver::open(&journal, &night, &context.clock, &progress, campaign).await?;
    if driver.state().end() == Some(End::Superseded) {
        return Err(Failure::new(Code::JOURNAL_CONFLICT, "a newer controller has taken the campaign over"));
    }
    let mut events = vec![EventKind::Interrupted { why: "resumed".to_owned() }];
    events.extend(anew);
    for (arn, version) in args.secrets {
        let planned = plan.secrets.iter().find(|s| s.secret.arn == arn);
        let Some(planned) = planned else {
            return Err(Failure::usage(format!("the plan uses no secret `{arn}`")));
        };
        let secret = SecretRef { arn, version: planned.secret.version.clone() };
        events.push(EventKind::SecretNamed { secret, version });
    }
    let retry = if driver.state().end().is_some() { Retry::Failed } else { Retry::Nothing };
    events.push(EventKind::Resumed { hosts: retry, window: None });
    driver.record(events).await?;
    drive(context, "resume", &night, &journal, &mut driver, args.approval.yes).await
}

/// The document in use, or the one that is about to be named.
pub fn document<'a>(state: &'a State, anew: Option<&'a EventKind>) -> &'a DocumentPin {
    match anew {
        Some(EventKind::DocumentNamed { document }) => document,
        _ => state.document(),
    }
}
