//! `dr expire`: what retention lets go. Shown first, deleted by the job that the function runs.

use super::{Second, when};
use crate::args::DrExpire;
use crate::context::Context;
use crate::drive::approve;
use crate::exit::Exit;
use crate::failure::Failure;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use tde2hsm_dr::retention::{Deletion, Item, Kept};
use tde2hsm_dr_driver::{Due, Expiry as Carry, Hint, Job, Outcome};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{BackupId, Code, SecretArn, SecretVersion, Severity, Timestamp};

#[derive(Serialize)]
struct Answer<'a> {
    at: Timestamp,
    dry_run: bool,
    delete: &'a [Deletion],
    /// Backups of the source region that go back to their cluster's purge.
    let_go: &'a BTreeSet<BackupId>,
    /// Secret versions that lose the stage which keeps them.
    unstage: &'a BTreeSet<(SecretArn, SecretVersion)>,
    keep: &'a [Kept],
    /// Why so much stays, where a database has no point that opens.
    waits: Option<&'a str>,
    deleted: u64,
    refused: u64,
    /// Became due after the list was shown, and waits for the next time.
    newly_due: u64,
}

pub async fn run(context: &Context, args: DrExpire) -> Result<Exit, Failure> {
    let mut second = Second::open(context, &args.fleet).await?;
    let look = second.look_for(Job::ExpireCopies, context.now()).await?;
    super::status::say_unasked(context.out, &look);
    let due = Due::of(&look.world, &look.points, &second.config);
    let mut answer = Answer {
        at: context.now(),
        dry_run: args.dry_run,
        delete: &due.delete,
        let_go: &due.let_go,
        unstage: &due.unstage,
        keep: &due.keep,
        waits: due.waits.as_deref(),
        deleted: 0,
        refused: 0,
        newly_due: 0,
    };
    if args.dry_run || due.is_nothing() {
        context.out.answer("dr-expire", &answer, &list(&due, When::Would))?;
        return Ok(Exit::Ok);
    }
    context.out.show(&list(&due, When::Now));
    approve(context.out, args.approval.yes, &question(&due))?;
    // Gathered again by the job, and whoever answers a question may take an hour: nothing goes that was not in the list.
    second.config.expiry = Carry::Approved(due.approve());
    let outcome = tde2hsm_dr_driver::run(Job::ExpireCopies, context.now(), &second.config, &second.cloud, &Hint::Tick).await;
    for message in outcome.messages.iter().filter(|message| message.severity != Severity::Note) {
        context.out.warn(&format!("[{}] {}", message.code, message.text));
    }
    answer.deleted = outcome.count("deleted");
    answer.refused = outcome.count("deletions-refused");
    answer.newly_due = outcome.count("newly-due");
    let mut human = format!("{} deleted, {} refused\n", answer.deleted, answer.refused);
    if answer.newly_due > 0 {
        let _ = writeln!(human, "{} more became due meanwhile; they wait for the next `tde2hsm dr expire`", answer.newly_due);
    }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Would,
    Now,
}

fn question(due: &Due) -> String {
    let mut parts = vec![format!("delete these {}", due.delete.len())];
    if !due.let_go.is_empty() {
        parts.push(format!("give {} HSM backups back to the purge", due.let_go.len()));
    }
    if !due.unstage.is_empty() {
        parts.push(format!("let go of {} secret versions", due.unstage.len()));
    }
    let mut text = parts.join(", ");
    text.replace_range(..1, "D");
    text.push('?');
    text
}

fn list(due: &Due, when: When) -> String {
    let goes = if when == When::Would { "would go" } else { "goes" };
    let mut text = String::new();
    for one in &due.delete {
        let _ = writeln!(text, "{goes}: {}: {}", name(&one.item), printable(&one.why, 300));
    }
    for id in &due.let_go {
        let _ = writeln!(text, "{goes} back to its cluster's purge: HSM backup {id} in the source region");
    }
    for (secret, version) in &due.unstage {
        let _ = writeln!(text, "{goes}: the stage that keeps version {version} of {secret}, which AWS may remove then");
    }
    let _ = writeln!(text, "{} of what is there {goes}, {} stay", due.delete.len(), due.keep.len());
    if let Some(why) = &due.waits {
        let _ = writeln!(text, "{why}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_dr::retention::Because;
    use tde2hsm_protocol::SnapshotId;

    #[test]
    fn everything_that_goes_is_in_the_list_and_in_the_question() {
        let id = |n: u8| SnapshotId::new(format!("snap-{n:017x}")).expect("a snapshot");
        let deletion = |n: u8| Deletion {
            item: Item::CopyRecord { source: id(n) },
            because: Because::Unneeded,
            why: "its copy is gone".to_owned(),
        };
        let secret = SecretArn::new("arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/x-AbCdEf").expect("a secret");
        let version = SecretVersion::new("00000000-0000-0000-0000-0000000000aa").expect("a version");
        let backup = BackupId::new("backup-abcdefghijk").expect("a backup");
        let due = Due {
            delete: vec![deletion(1), deletion(2)],
            let_go: BTreeSet::from([backup.clone()]),
            unstage: BTreeSet::from([(secret.clone(), version.clone())]),
            ..Due::default()
        };
        let text = list(&due, When::Now);
        for named in [id(1).as_str(), id(2).as_str(), backup.as_str(), secret.as_str(), version.as_str()] {
            assert!(text.contains(named), "{named}: {text}");
        }
        assert_eq!(question(&due), "Delete these 2, give 1 HSM backups back to the purge, let go of 1 secret versions?");
    }
}
