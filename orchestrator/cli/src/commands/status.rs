//! `status`: what the journal says, and nothing else. Writes nothing and asks nobody.

use crate::args::Status;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::text;
use serde::Serialize;
use tde2hsm_campaign::reducer::{End, State, Summary};
use tde2hsm_driver::plan_of;
use tde2hsm_journal::Journal;
use tde2hsm_protocol::{CampaignId, Code, Digest};

#[derive(Serialize)]
struct Standing<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    journal_entries: u64,
    journal_head: Digest,
}

pub async fn run(context: &Context, args: Status) -> Result<Exit, Failure> {
    let journal = context.existing_journal().await?;
    let campaign = pick(&journal, args.campaign, Pick::Any).await?;
    let (plan, events, head) = plan_of(&journal, &campaign).await?;
    let now = context.now();
    let summary = State::replay(plan, &events).summary(now);
    let standing = Standing { summary: &summary, journal_entries: head.seq, journal_head: head.link };
    context.out.answer("status", &standing, &text::summary(&summary, now))?;
    Ok(Exit::Ok)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Any campaign can be meant.
    Any,
    /// One that has more to do is meant first.
    Unfinished,
}

/// The campaign that is meant: the named one, the only one, or the only unfinished one.
pub async fn pick(journal: &dyn Journal, named: Option<CampaignId>, pick: Pick) -> Result<CampaignId, Failure> {
    let listed = journal.campaigns().await?;
    if let Some(named) = named {
        return match listed.iter().any(|l| l.campaign == named) {
            true => Ok(named),
            false => Err(Failure::new(Code::CAMPAIGN_UNKNOWN, format!("campaign `{named}` is not in the journal"))),
        };
    }
    let all: Vec<CampaignId> = listed.into_iter().map(|l| l.campaign).collect();
    let mut open = Vec::new();
    for campaign in &all {
        // A campaign that cannot be read is not passed over in silence: it may be the one that is meant.
        let (plan, events, _) = plan_of(journal, campaign).await?;
        if !matches!(State::replay(plan, &events).end(), Some(End::Done | End::Undone | End::Superseded)) {
            open.push(campaign.clone());
        }
    }
    match (open.as_slice(), all.as_slice(), pick) {
        ([one], _, _) | ([], [one], _) => Ok(one.clone()),
        (_, [], _) => Err(Failure::new(Code::CAMPAIGN_UNKNOWN, "the journal holds no campaign")),
        ([], [newest, ..], Pick::Any) => Ok(newest.clone()),
        _ => {
            let names: Vec<String> = all.iter().map(|c| format!("`{c}`")).collect();
            Err(Failure::new(Code::CAMPAIGN_AMBIGUOUS, format!("the journal holds {}", names.join(", "))))
        }
    }
}
