//! `plan`: surveys, facts and rules make a plan; `plan show` reads one.

use super::survey;
use crate::args::{Plan as Args, PlanCommand, PlanMake};
use crate::context::{Context, read_fleet, read_plan, write_file};
use crate::exit::Exit;
use crate::failure::{Failure, file};
use crate::gather;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tde2hsm_campaign::plan::{self, DocumentPin, Plan, PlanBody, PlanInput};
use tde2hsm_campaign::render;
use tde2hsm_protocol::{Code, Digest};

/// Version of the program, as plans name it.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Made<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    hash: Digest,
    plan: &'a PlanBody,
}

pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    match args.show {
        Some(PlanCommand::Show { plan }) => {
            let plan = read_plan(&plan)?;
            answer(context, "plan-show", None, &plan)?;
            Ok(Exit::Ok)
        }
        None => make(context, args.make).await,
    }
}

fn answer(context: &Context, command: &str, file: Option<PathBuf>, plan: &Plan) -> Result<(), Failure> {
    context.out.answer(command, &Made { file, hash: plan.digest(), plan }, &render::plan(plan))
}

async fn make(context: &Context, args: PlanMake) -> Result<Exit, Failure> {
    let fleet = read_fleet(&args.fleet)?;
    let former = former(&args.out)?;
    let aws = context.aws_of(&fleet.fleet.account, &fleet.fleet.region).await?;
    let facts = gather::facts(&aws, &fleet, &args.document.name, context.now(), context.out).await?;
    let surveys = match (&args.surveys, &facts.document) {
        (Some(path), _) => survey::read(path)?.surveys,
        (None, Some(document)) => {
            let pin = DocumentPin { name: document.name.clone(), version: document.version.clone(), hash: document.hash };
            let ids = plan::targets(&fleet, &facts);
            survey::of_hosts(context, &aws, &facts.account, &facts.region, &pin, &ids, &facts.managed).await?.surveys
        }
        // Without a document no host can be asked; the rules say so, with whatever else they find.
        (None, None) => Vec::new(),
    };
    let input = PlanInput {
        fleet: &fleet,
        facts: &facts,
        surveys: &surveys,
        now: context.now(),
        program: PROGRAM,
        undo_of: None,
        only: &[],
    };
    let plan = plan::build(&input)?;
    if let Some(former) = former.filter(|former| former.digest() != plan.digest()) {
        let kept = args.out.with_file_name(format!("plan-{}.json", &former.digest().to_string()[..12]));
        write_file(&kept, &former.to_json())?;
        context.out.say(&format!("the former plan is kept as {}", kept.display()));
    }
    write_file(&args.out, &plan.to_json())?;
    context.out.say(&format!("plan written to {}", args.out.display()));
    answer(context, "plan", Some(args.out), &plan)?;
    Ok(Exit::Ok)
}

/// The plan that lies where the new one is to be written. A campaign may be under way with it, and `adopt` needs it, so
/// it is never lost; nor is any other file, which a misspelt `--out` would name.
fn former(out: &Path) -> Result<Option<Plan>, Failure> {
    let text = match std::fs::read_to_string(out) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(file("read", out, Code::ARGUMENT_FILE, &e)),
    };
    Plan::from_json(&text).map(Some).map_err(|e| {
        let message = format!("`{}` is there and is not written over: {e}", out.display());
        Failure::new(Code::ARGUMENT_FILE, message).hint("name another file with `--out`, or move that one away")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plan_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        assert!(former(&path).unwrap().is_none());
        std::fs::write(&path, "[fleet]\n").unwrap();
        let failure = former(&path).unwrap_err();
        assert_eq!(failure.code, Some(Code::ARGUMENT_FILE));
        assert!(failure.message.contains("plan.json` is there") && failure.hint.unwrap().contains("--out"));
    }
}
