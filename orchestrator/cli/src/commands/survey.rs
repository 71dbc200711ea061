//! `survey`: hosts say what they are. On a host this changes the runner's own directory and nothing else.

use crate::args::Survey as Args;
use crate::asking::{Asking, random};
use crate::context::{Context, file_text, read_fleet, write_file};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gather;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;
use tde2hsm_campaign::facts::{ManagedInstance, Ping};
use tde2hsm_campaign::fleet::Fleet;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_cloud::Aws;
use tde2hsm_protocol::survey::Survey;
use tde2hsm_protocol::{AccountId, CampaignId, Code, Digest, Generation, InstanceId, Region, Work};

/// The version of survey files this program writes and reads.
const SURVEYS_VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Surveys {
    tde2hsm_surveys: u32,
    pub surveys: Vec<Survey>,
    /// Hosts that gave no survey, and why.
    pub silent: Vec<Silent>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Silent {
    pub instance: InstanceId,
    pub why: String,
}

pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let fleet = read_fleet(&args.fleet)?;
    let aws = context.aws_of(&fleet.fleet.account, &fleet.fleet.region).await?;
    let document = pin(&aws, &args.document.name).await?;
    let surveys = of_fleet(context, &aws, &fleet, &document).await?;
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&surveys).map_err(|e| Failure::internal(e.to_string()))?;
        write_file(path, &(text + "\n"))?;
    }
    let mut human = String::new();
    for survey in &surveys.surveys {
        let sids: Vec<&str> = survey.databases.iter().map(|d| d.sid.as_str()).collect();
        let _ = writeln!(human, "{:<20} {} databases: {}", survey.instance, sids.len(), sids.join(" "));
    }
    for silent in &surveys.silent {
        let _ = writeln!(human, "{:<20} no survey: {}", silent.instance, tde2hsm_protocol::wire::printable(&silent.why, 300));
    }
    context.out.answer("survey", &surveys, &human)?;
    Ok(if surveys.silent.is_empty() { Exit::Ok } else { Exit::HostsFailed })
}

/// The document as it is now, or a refusal.
pub async fn pin(aws: &Aws, name: &str) -> Result<DocumentPin, Failure> {
    aws.ssm
        .document(name)
        .await?
        .ok_or_else(|| Failure::new(Code::DOCUMENT_MISSING, format!("there is no SSM document `{name}` in {}", aws.region)))
}

pub async fn of_fleet(context: &Context, aws: &Aws, fleet: &Fleet, document: &DocumentPin) -> Result<Surveys, Failure> {
    let instances = gather::instances(aws, fleet).await?;
    let ids: Vec<InstanceId> = instances.into_iter().map(|i| i.instance).collect();
    let managed = aws.ssm.managed(&ids).await?;
    of_hosts(context, aws, &fleet.fleet.account, &fleet.fleet.region, document, &ids, &managed).await
}

/// Surveys of these hosts, those that are online.
pub async fn of_hosts(
    context: &Context,
    aws: &Aws,
    account: &AccountId,
    region: &Region,
    document: &DocumentPin,
    ids: &[InstanceId],
    managed: &[ManagedInstance],
) -> Result<Surveys, Failure> {
    let is_online = |id: &&InstanceId| managed.iter().any(|m| m.instance == **id && m.ping == Ping::Online);
    let (online, offline): (Vec<&InstanceId>, Vec<&InstanceId>) = ids.iter().partition(is_online);
    let online: Vec<InstanceId> = online.into_iter().cloned().collect();
    let mut out = Surveys { tde2hsm_surveys: SURVEYS_VERSION, surveys: Vec::new(), silent: Vec::new() };
    out.silent
        .extend(offline.into_iter().map(|id| Silent { instance: id.clone(), why: "its SSM agent is not online".to_owned() }));
    context.out.say(&format!("surveying {} hosts", online.len()));
    let asking = Asking {
        aws,
        clock: &context.clock,
        out: context.out,
        document,
        account,
        region,
        campaign: CampaignId::new(format!("survey-{}", random())).expect("hexadecimal digits after a word"),
        plan: Digest::ZERO,
        generation: Generation(0),
        journal_head: Digest::ZERO,
    };
    for (instance, detail) in asking.ask_in_full(&online, Work::Survey).await? {
        let survey = detail
            .and_then(|bytes| serde_json::from_slice::<Survey>(&bytes).map_err(|e| format!("its survey cannot be read: {e}")));
        match survey {
            Ok(survey) if survey.instance == instance => out.surveys.push(survey),
            Ok(survey) => {
                out.silent.push(Silent { instance, why: format!("its survey says it is `{}`", survey.instance) });
            }
            Err(why) => out.silent.push(Silent { instance, why }),
        }
    }
    for silent in &out.silent {
        context.out.warn(&format!("{}: no survey: {}", silent.instance, silent.why));
    }
    Ok(out)
}

pub fn read(path: &Path) -> Result<Surveys, Failure> {
    let text = file_text(path, Code::ARGUMENT_FILE)?;
    let wrong = |why: String| {
        let failure = Failure::new(Code::ARGUMENT_FILE, format!("`{}`: {why}", path.display()));
        failure.hint("name a file that `tde2hsm survey --out PATH` wrote, or leave `--surveys` out")
    };
    let surveys: Surveys = serde_json::from_str(&text).map_err(|e| wrong(format!("not a file of surveys: {e}")))?;
    if surveys.tde2hsm_surveys != SURVEYS_VERSION {
        return Err(wrong(format!("version {} is not the version {SURVEYS_VERSION} of this program", surveys.tde2hsm_surveys)));
    }
    Ok(surveys)
}
