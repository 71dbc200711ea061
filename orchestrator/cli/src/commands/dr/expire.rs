//! `dr expire`: what retention lets go. Shown first, deleted by the job that the function runs.

use super::{Second, when};
use crate::args::DrExpire;
use crate::context::Context;
use crate::drive::approve;
use crate::exit::Exit;
use crate::failure::Failure;
use serde::Serialize;
use std::fmt::Write as _;
use tde2hsm_dr::retention::{self, Deletion, Expiry, Item, Kept};
use tde2hsm_dr_driver::{Expiry as Carry, Hint, Job, Outcome};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{Code, Severity, Timestamp};

#[derive(Serialize)]
struct Answer<'a> {
    at: Timestamp,
    dry_run: bool,
    delete: &'a [Deletion],
    keep: &'a [Kept],
    deleted: u64,
    refused: u64,
}

pub async fn run(context: &Context, args: DrExpire) -> Result<Exit, Failure> {
    let mut second = Second::open(context, &args.fleet).await?;
    let look = second.look(context.now()).await?;
    super::status::say_unasked(context.out, &look);
    let days = second.config.hsm_backup_retention_days;
    let expiry = retention::expire(&look.world.common, &look.world.hosts, &look.points, &second.config.retention, days);
    let mut answer =
        Answer { at: context.now(), dry_run: args.dry_run, delete: &expiry.delete, keep: &expiry.keep, deleted: 0, refused: 0 };
    if args.dry_run || expiry.delete.is_empty() {
        context.out.answer("dr-expire", &answer, &list(&expiry, "would go"))?;
        return Ok(Exit::Ok);
    }
    context.out.show(&list(&expiry, "goes"));
    approve(context.out, args.approval.yes, &format!("Delete these {}?", expiry.delete.len()))?;
    second.config.expiry = Carry::Delete;
    let outcome = tde2hsm_dr_driver::run(Job::ExpireCopies, context.now(), &second.config, &second.cloud, &Hint::Tick).await;
    for message in outcome.messages.iter().filter(|message| message.severity != Severity::Note) {
        context.out.warn(&format!("[{}] {}", message.code, message.text));
    }
    answer.deleted = outcome.count("deleted");
    answer.refused = outcome.count("deletions-refused");
    let human = format!("{} deleted, {} refused\n", answer.deleted, answer.refused);
    context.out.answer("dr-expire", &answer, &human)?;
    Ok(exit(context, &outcome))
}

fn exit(context: &Context, outcome: &Outcome) -> Exit {
    match outcome.messages.iter().find(|message| message.severity == Severity::Error) {
        Some(message) => {
            let failure = Failure::new(message.code, message.text.clone());
            context.out.complain(&failure);
            failure.exit
        }
        None if outcome.count("deletions-refused") > 0 => {
            let failure = Failure::new(Code::DELETE_REFUSED, "not everything could be deleted");
            context.out.complain(&failure);
            failure.exit
        }
        None => Exit::Ok,
    }
}

fn list(expiry: &Expiry, goes: &str) -> String {
    let mut text = String::new();
    for one in &expiry.delete {
        let _ = writeln!(text, "{goes}: {}: {}", name(&one.item), printable(&one.why, 300));
    }
    let _ = writeln!(text, "{} of what is there {goes}, {} stay", expiry.delete.len(), expiry.keep.len());
    text
}

fn name(item: &Item) -> String {
    match item {
        Item::Snapshot { id, instance, set } => format!("copy {id} of {instance}, set {}", set.0),
        Item::Backup { id, region } => format!("HSM backup {id} in {region}"),
        Item::Inventory { instance, taken_at } => format!("inventory of {instance} of {}", when(*taken_at)),
        Item::CopyRecord { source } => format!("record of {source}"),
        Item::HsmCopyRecord { source } => format!("record of {source}"),
    }
}
