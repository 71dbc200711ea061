//! `plan`: surveys, facts and rules make a plan; `plan show` reads one.

use super::survey;
use crate::args::{Plan as Args, PlanCommand, PlanMake};
use crate::context::{Context, read_fleet, read_plan, write_file};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gather;
use serde::Serialize;
use std::path::PathBuf;
use tde2hsm_campaign::plan::{self, DocumentPin, Plan, PlanBody, PlanInput};
use tde2hsm_campaign::render;
use tde2hsm_protocol::Digest;

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
    write_file(&args.out, &plan.to_json())?;
    context.out.say(&format!("plan written to {}", args.out.display()));
    answer(context, "plan", Some(args.out), &plan)?;
    Ok(Exit::Ok)
}
