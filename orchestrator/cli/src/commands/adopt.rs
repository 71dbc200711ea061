//! `adopt`: the journal is lost; the hosts' own journals tell what was done (H32). This controller takes the next
//! generation, so that hosts refuse the one before it should it come back.

use super::resume::document;
use crate::args::Adopt;
use crate::asking::Asking;
use crate::context::{Context, read_plan};
use crate::drive::{Progress, campaign_of};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::text;
use std::collections::BTreeSet;
use std::sync::Arc;
use tde2hsm_campaign::reducer::{EventKind, Gate, State};
use tde2hsm_driver::Driver;
use tde2hsm_journal::{Head, Journal as _};
use tde2hsm_protocol::{CampaignId, Code, Digest, Generation, HostJournal, InstanceId, Work};

pub async fn run(context: &Context, args: Adopt) -> Result<Exit, Failure> {
    let plan = read_plan(&args.plan)?;
    let campaign = campaign_of(&plan);
    let journal = context.journal().await?;
    if journal.head(&campaign).await? != Head::START {
        return Err(Failure::new(Code::CAMPAIGN_EXISTS, format!("campaign `{campaign}` is in the journal")));
    }
    let state = State::new(Arc::new(plan.clone()));
    let (aws, anew) = context.aws_again(&state, &args.anew, &args.approval).await?;
    let asking = Asking {
        aws: &aws,
        clock: &context.clock,
        out: context.out,
        document: document(&state, anew.as_ref()),
        account: &plan.account,
        region: &plan.region,
        campaign: campaign.clone(),
        plan: plan.digest(),
        generation: Generation(0),
        journal_head: Digest::ZERO,
    };
    let instances: Vec<InstanceId> = plan.hosts.iter().map(|host| host.instance.clone()).collect();
    let mut hosts = Vec::new();
    for (instance, detail) in asking.ask_in_full(&instances, Work::Adopt).await? {
        let told = detail.and_then(|bytes| serde_json::from_slice::<HostJournal>(&bytes).map_err(|e| e.to_string()));
        match told {
            Ok(told) if told.instance != instance => {
                context.out.warn(&format!("{instance}: its journal says it is `{}`", told.instance));
            }
            Ok(told) => {
                if let Some(other) = told.plan.filter(|digest| *digest != plan.digest()) {
                    let message = format!("{instance} worked on plan {other}, not on {}", plan.digest());
                    return Err(Failure::new(Code::ADOPT_IMPOSSIBLE, message));
                }
                let operations = told.operations.len();
                context.out.say(&format!("{instance}: {operations} operations, generation {}", told.generation));
                hosts.push(told);
            }
            Err(why) => context.out.warn(&format!("{instance}: no journal: {why}")),
        }
    }
    if hosts.iter().all(|host| host.operations.is_empty()) {
        return Err(nobody_knows(&campaign, hosts.iter().filter_map(|host| host.held_by.as_ref())));
    }
    let generation = Generation(hosts.iter().map(|host| host.generation.0).max().unwrap_or(0) + 1);
    let progress = Progress::new(context.out);
    let mut first = vec![
        EventKind::CampaignStarted { plan: plan.digest(), campaign: campaign.clone(), generation },
        // The campaign was under way, so its first gate had been opened.
        EventKind::Approved { gate: Gate::Stage },
    ];
    first.extend(anew.clone());
    first.push(EventKind::Adopted { generation, hosts });
    let driver = Driver::start(&journal, &aws, &context.clock, &progress, Arc::new(plan), campaign, first).await?;
    let now = context.now();
    let summary = driver.state().summary(now);
    context.out.answer("adopt", &summary, &text::summary(&summary, now))?;
    context.out.show("hint: run `tde2hsm resume` to go on");
    Ok(Exit::Ok)
}

/// No host has worked on the campaign. Where another holds them, the plan file is the wrong one, and to begin with it is
/// the last thing to do.
fn nobody_knows<'a>(campaign: &CampaignId, held_by: impl Iterator<Item = &'a CampaignId>) -> Failure {
    let message = format!("no host has worked on campaign `{campaign}`");
    let others: BTreeSet<&CampaignId> = held_by.filter(|other| *other != campaign).collect();
    let Some(other) = others.first() else {
        return Failure::new(Code::ADOPT_IMPOSSIBLE, message).hint("begin it with `tde2hsm apply`");
    };
    let names: Vec<String> = others.iter().map(|other| format!("`{other}`")).collect();
    let hash = other.as_str().rsplit('-').next().unwrap_or_default();
    Failure::new(Code::ADOPT_IMPOSSIBLE, format!("{message}; they are held by {}", names.join(", ")))
        .hint(format!("name the plan file of that campaign, such as `plan-{hash}.json`; its hash begins with `{hash}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h32_who_adopts_with_another_plan_is_sent_to_the_right_one_and_not_to_apply() {
        let campaign = |name: &str| CampaignId::new(name).unwrap();
        let (mine, other) = (campaign("demo-0123456789ab"), campaign("demo-ba9876543210"));
        let failure = nobody_knows(&mine, [&other, &other].into_iter());
        assert_eq!(failure.code, Some(Code::ADOPT_IMPOSSIBLE));
        assert!(failure.message.ends_with("held by `demo-ba9876543210`"), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("`plan-ba9876543210.json`"));
        assert!(nobody_knows(&mine, [&mine].into_iter()).hint.unwrap().contains("tde2hsm apply"));
    }
}
