//! `clean`: takes the document out of the account, so that no host can be sent an order any more. Hosts keep their
//! journal and backups; nothing here touches them.

use crate::args::Clean;
use crate::context::Context;
use crate::drive::approve;
use crate::exit::Exit;
use crate::failure::Failure;
use serde::Serialize;
use tde2hsm_campaign::reducer::{End, State};
use tde2hsm_driver::plan_of;
use tde2hsm_journal::Journal as _;
use tde2hsm_protocol::Code;

#[derive(Serialize)]
struct Cleaned {
    document: String,
    deleted: bool,
}

pub async fn run(context: &Context, args: Clean) -> Result<Exit, Failure> {
    let name = args.document.name;
    if context.journal_path()?.exists() {
        let journal = context.journal().await?;
        for listed in journal.campaigns().await? {
            let (plan, events, _) = plan_of(&journal, &listed.campaign).await?;
            let ended = matches!(State::replay(plan.clone(), &events).end(), Some(End::Done | End::Undone | End::Superseded));
            if !ended && plan.document.name == name {
                let message = format!("campaign `{}` still needs the document `{name}`", listed.campaign);
                return Err(Failure::new(Code::CAMPAIGN_EXISTS, message));
            }
        }
    }
    let aws = context.aws(None).await?;
    let caller = aws.sts.caller().await?;
    let question = format!("Delete the SSM document `{name}` of account {} in {}?", caller.account, aws.region);
    approve(context.out, args.approval.yes, &question)?;
    let deleted = aws.ssm.delete_document(&name).await?;
    let human = if deleted { format!("document `{name}` is deleted") } else { format!("there was no document `{name}`") };
    context.out.answer("clean", &Cleaned { document: name, deleted }, &human)?;
    Ok(Exit::Ok)
}
