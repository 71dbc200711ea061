//! A campaign taken up again from its journal: the state is what its events make, nothing is remembered elsewhere.

use crate::{Clock, Cloud, Driver, Observer};
use std::collections::BTreeMap;
use std::sync::Arc;
use tde2hsm_campaign::plan::{Plan, PlanError};
use tde2hsm_campaign::reducer::{Event, EventKind, State};
use tde2hsm_journal::{Entry, Head, Journal, JournalError};
use tde2hsm_protocol::{CampaignId, Code, Digest};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("campaign `{0}` is not in the journal")]
    Unknown(CampaignId),
    #[error("the first entry of campaign `{0}` does not begin one")]
    NoStart(CampaignId),
    #[error("the plan {0} is not kept in the journal")]
    NoPlan(Digest),
    #[error("the plan that the journal keeps cannot be read")]
    Plan(#[source] PlanError),
    #[error("the journal cannot be read")]
    Journal(#[source] JournalError),
}

impl OpenError {
    pub fn code(&self) -> Code {
        match self {
            OpenError::Unknown(_) => Code::CAMPAIGN_UNKNOWN,
            OpenError::NoStart(_) | OpenError::NoPlan(_) => Code::JOURNAL_BROKEN,
            OpenError::Plan(cause) => cause.code(),
            OpenError::Journal(cause) => cause.code(),
        }
    }
}

/// The plan of a campaign, and its events.
pub async fn plan_of(journal: &dyn Journal, campaign: &CampaignId) -> Result<(Arc<Plan>, Vec<Event>, Head), OpenError> {
    let entries = journal.read(campaign, 0).await.map_err(OpenError::Journal)?;
    let head = entries.last().map_or(Head::START, |e| Head { seq: e.seq, link: e.link });
    let events: Vec<Event> = entries.iter().map(Entry::event).collect::<Result<_, _>>().map_err(OpenError::Journal)?;
    let digest = match events.first().map(|event| &event.kind) {
        None => return Err(OpenError::Unknown(campaign.clone())),
        Some(EventKind::CampaignStarted { plan, .. }) => *plan,
        Some(_) => return Err(OpenError::NoStart(campaign.clone())),
    };
    let text = journal.kept(digest).await.map_err(OpenError::Journal)?.ok_or(OpenError::NoPlan(digest))?;
    let plan = Plan::from_json(&text).map_err(OpenError::Plan)?;
    if plan.digest() != digest {
        return Err(OpenError::NoPlan(digest));
    }
    Ok((Arc::new(plan), events, head))
}

impl<'a> Driver<'a> {
    /// Takes a campaign up where its journal ends. Writes nothing: whoever goes on says so with an event of their own.
    pub async fn open(
        journal: &'a dyn Journal,
        cloud: &'a dyn Cloud,
        clock: &'a dyn Clock,
        observer: &'a dyn Observer,
        campaign: CampaignId,
    ) -> Result<Driver<'a>, OpenError> {
        let (plan, events, head) = plan_of(journal, &campaign).await?;
        let state = State::replay(plan, &events);
        Ok(Driver { journal, cloud, clock, observer, campaign, state, head, due: BTreeMap::new() })
    }
}
