//! The command line.

use crate::out::Format;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use tde2hsm_document::{BucketName, DEFAULT_NAME, OsName};
use tde2hsm_protocol::{BackupId, CampaignId, DrillId, InstanceId, SecretArn, SecretVersion, Sid};

/// Moves the TDE master keys of a fleet of Oracle databases into AWS CloudHSM
#[derive(Debug, Parser)]
#[command(name = "tde2hsm", version, max_term_width = 100, propagate_version = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// How answers are printed on stdout
    #[arg(long, global = true, value_enum, default_value = "human", value_name = "FORMAT")]
    pub output: Format,
    /// Profile of AWS's configuration files; wins over keys in the environment
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region; by default the one that the fleet file or plan names
    #[arg(long, global = true, value_name = "NAME")]
    pub region: Option<String>,
    /// The journal of campaigns; by default in the user's state directory
    #[arg(long, global = true, env = "TDE2HSM_JOURNAL", hide_env_values = true, value_name = "PATH")]
    pub journal: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put host-runner, client packages and the SSM document into the account
    Setup(Setup),
    /// List the hosts that a fleet file names, as AWS knows them
    Discover(Discover),
    /// Ask hosts for the facts about their databases; changes nothing
    Survey(Survey),
    /// Make a plan from a fleet file, or show one
    #[command(args_conflicts_with_subcommands = true)]
    Plan(Plan),
    /// Carry a plan out
    Apply(Apply),
    /// Go on with a campaign where its journal ends
    Resume(Resume),
    /// Say how a campaign stands and what each host waits for; changes nothing
    Status(Status),
    /// Bring hosts back to where they were
    Undo(Undo),
    /// Rebuild a lost journal from the hosts' own, and take the campaign over
    Adopt(Adopt),
    /// End a campaign's hold on a host
    Release(Release),
    /// Take host-runner off the hosts and the SSM document out of the account
    Clean(Clean),
    /// Recovery in the second region: what opens, how old it is, and proof of it
    #[command(subcommand)]
    Dr(Dr),
    /// Explain a code, such as TDE0107
    Explain(Explain),
}

#[derive(Debug, Args)]
pub struct Setup {
    /// The host-runner program for the hosts
    #[arg(long, value_name = "PATH")]
    pub runner: PathBuf,
    /// A CloudHSM client package for an operating system, such as `rhel8=cloudhsm-pkcs11.rpm`; repeatable
    #[arg(long = "client-package", value_name = "OS=PATH", value_parser = os_path)]
    pub packages: Vec<(OsName, PathBuf)>,
    /// The certificate of the cluster's own CA (customerCA.crt)
    #[arg(long, value_name = "PATH")]
    pub ca: Option<PathBuf>,
    /// Bucket for them; by default `tde2hsm-ACCOUNT-REGION`, made where there is none
    #[arg(long, value_name = "NAME", value_parser = bucket)]
    pub bucket: Option<BucketName>,
    #[command(flatten)]
    pub document: Document,
}

#[derive(Debug, Args)]
pub struct Document {
    /// Name of the SSM document
    #[arg(long = "document", value_name = "NAME", default_value = DEFAULT_NAME, value_parser = document)]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Discover {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
}

#[derive(Debug, Args)]
pub struct Survey {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// File for the surveys, as JSON
    #[arg(short = 'o', long = "out", value_name = "PATH")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub document: Document,
}

#[derive(Debug, Args)]
pub struct Plan {
    #[command(subcommand)]
    pub show: Option<PlanCommand>,
    #[command(flatten)]
    pub make: PlanMake,
}

#[derive(Debug, Args)]
pub struct PlanMake {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// File for the plan
    #[arg(short = 'o', long = "out", value_name = "PATH", default_value = "plan.json")]
    pub out: PathBuf,
    /// Surveys made before, in place of new ones
    #[arg(long, value_name = "PATH")]
    pub surveys: Option<PathBuf>,
    #[command(flatten)]
    pub document: Document,
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Show a plan file
    Show {
        #[arg(default_value = "plan.json")]
        plan: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Approval {
    /// Approve beforehand whatever the command would ask about
    #[arg(short = 'y', long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Anew {
    /// Go on with the SSM document as it is now, where the pinned version is gone or was changed
    #[arg(long)]
    pub document: bool,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[arg(default_value = "plan.json")]
    pub plan: PathBuf,
    #[command(flatten)]
    pub approval: Approval,
}

#[derive(Debug, Args)]
pub struct Resume {
    /// The campaign; may be left out where only one can be meant
    #[arg(value_parser = campaign)]
    pub campaign: Option<CampaignId>,
    #[command(flatten)]
    pub approval: Approval,
    #[command(flatten)]
    pub anew: Anew,
    /// A secret's version to use from now on, after a refused login; `ARN=FORMER:VERSION` where the plan has several
    #[arg(long = "secret", value_name = "ARN=VERSION", value_parser = secret)]
    pub secrets: Vec<NamedSecret>,
}

#[derive(Debug, Args)]
pub struct Status {
    /// The campaign; may be left out where only one can be meant
    #[arg(value_parser = campaign)]
    pub campaign: Option<CampaignId>,
}

#[derive(Debug, Args)]
pub struct Undo {
    /// The campaign; may be left out where only one can be meant
    #[arg(value_parser = campaign)]
    pub campaign: Option<CampaignId>,
    /// Only this host; repeatable
    #[arg(long = "host", value_name = "ID", value_parser = instance)]
    pub hosts: Vec<InstanceId>,
    #[command(flatten)]
    pub approval: Approval,
    #[command(flatten)]
    pub anew: Anew,
}

#[derive(Debug, Args)]
pub struct Adopt {
    #[arg(default_value = "plan.json")]
    pub plan: PathBuf,
    #[command(flatten)]
    pub anew: Anew,
    #[command(flatten)]
    pub approval: Approval,
}

#[derive(Debug, Args)]
pub struct Release {
    /// The host's instance id
    #[arg(value_name = "HOST", value_parser = instance)]
    pub host: InstanceId,
    /// The campaign that holds it; may be left out where only one can be meant
    #[arg(long, value_parser = campaign)]
    pub campaign: Option<CampaignId>,
}

#[derive(Debug, Args)]
pub struct Clean {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    #[command(flatten)]
    pub document: Document,
    #[command(flatten)]
    pub approval: Approval,
}

#[derive(Debug, Subcommand)]
pub enum Dr {
    /// Say for each database how old the newest point that opens is, and why newer ones do not; changes nothing
    Status(DrStatus),
    /// Run the copy jobs now, until every copy has settled
    Copy(DrCopy),
    /// Delete copies that retention lets go
    Expire(DrExpire),
    /// Say when the old HSM may be switched off, or which facts are missing; changes nothing
    RetireWhen(DrRetireWhen),
    /// Restore a point in the DR region, read rows of it, and take everything down again
    Drill(DrDrill),
}

#[derive(Debug, Args)]
pub struct DrStatus {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// Every point of one database, `SID` or `INSTANCE/SID`
    #[arg(long, value_name = "DATABASE", value_parser = database)]
    pub points: Option<DatabaseName>,
}

#[derive(Debug, Args)]
pub struct DrCopy {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// One run of each job, without waiting for copies to settle
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Args)]
pub struct DrExpire {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// Say what would go, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub approval: Approval,
}

#[derive(Debug, Args)]
pub struct DrRetireWhen {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// Surveys made before, in place of new ones
    #[arg(long, value_name = "PATH")]
    pub surveys: Option<PathBuf>,
    /// Facts that only people know, as TOML
    #[arg(long, value_name = "PATH")]
    pub facts: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DrDrill {
    #[arg(default_value = "fleet.toml")]
    pub fleet: PathBuf,
    /// The database, `SID` or `INSTANCE/SID`
    #[arg(long, value_name = "DATABASE", value_parser = database, required_unless_present_any = ["resume", "teardown"])]
    pub database: Option<DatabaseName>,
    /// The point, as `dr status --points` names it; by default the newest that opens
    #[arg(long, value_name = "ID", requires = "database")]
    pub point: Option<String>,
    /// Another HSM backup of the DR region than the one that the point would be restored with
    #[arg(long, value_name = "ID", requires = "database", value_parser = backup)]
    pub backup: Option<BackupId>,
    /// Leave everything in place afterwards, to look at; `--teardown` removes it
    #[arg(long)]
    pub keep: bool,
    /// Go on with a drill that was broken off
    #[arg(long, value_name = "ID", value_parser = drill, conflicts_with_all = ["database", "teardown"])]
    pub resume: Option<DrillId>,
    /// Remove everything that a drill has made
    #[arg(long, value_name = "ID", value_parser = drill, conflicts_with_all = ["database", "keep"])]
    pub teardown: Option<DrillId>,
    /// Name of the SSM document in the DR region
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, value_parser = document)]
    pub document: String,
    #[command(flatten)]
    pub approval: Approval,
}

/// The version of a secret that is to be used, and in place of which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSecret {
    pub arn: SecretArn,
    pub former: Option<SecretVersion>,
    pub version: SecretVersion,
}

/// A database as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseName {
    pub instance: Option<InstanceId>,
    pub sid: Sid,
}

impl std::fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{instance}/{}", self.sid),
            None => write!(f, "{}", self.sid),
        }
    }
}

#[derive(Debug, Args)]
pub struct Explain {
    /// The code, as errors and findings print it
    #[arg(value_name = "CODE")]
    pub code: String,
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Command::Setup(_) => "setup",
            Command::Discover(_) => "discover",
            Command::Survey(_) => "survey",
            Command::Plan(_) => "plan",
            Command::Apply(_) => "apply",
            Command::Resume(_) => "resume",
            Command::Status(_) => "status",
            Command::Undo(_) => "undo",
            Command::Adopt(_) => "adopt",
            Command::Release(_) => "release",
            Command::Clean(_) => "clean",
            Command::Dr(Dr::Status(_)) => "dr-status",
            Command::Dr(Dr::Copy(_)) => "dr-copy",
            Command::Dr(Dr::Expire(_)) => "dr-expire",
            Command::Dr(Dr::RetireWhen(_)) => "dr-retire-when",
            Command::Dr(Dr::Drill(_)) => "dr-drill",
            Command::Explain(_) => "explain",
        }
    }
}

fn os_path(text: &str) -> Result<(OsName, PathBuf), String> {
    let (os, path) = text.split_once('=').ok_or("write it as OS=PATH, such as `rhel8=cloudhsm-pkcs11.rpm`")?;
    Ok((OsName::new(os).map_err(|e| e.to_string())?, PathBuf::from(path)))
}

fn secret(text: &str) -> Result<NamedSecret, String> {
    // `=` may stand in a secret's name; a version has neither `=` nor `:`.
    let (arn, versions) = text.rsplit_once('=').ok_or("write it as ARN=VERSION")?;
    let (former, version) = versions.split_once(':').map_or((None, versions), |(former, version)| (Some(former), version));
    Ok(NamedSecret {
        arn: SecretArn::new(arn).map_err(|e| e.to_string())?,
        former: former.map(SecretVersion::new).transpose().map_err(|e| e.to_string())?,
        version: SecretVersion::new(version).map_err(|e| e.to_string())?,
    })
}

fn bucket(text: &str) -> Result<BucketName, String> {
    BucketName::new(text).map_err(|e| e.to_string())
}

fn campaign(text: &str) -> Result<CampaignId, String> {
    CampaignId::new(text).map_err(|e| e.to_string())
}

fn instance(text: &str) -> Result<InstanceId, String> {
    InstanceId::new(text).map_err(|e| e.to_string())
}

fn database(text: &str) -> Result<DatabaseName, String> {
    let (instance, sid) = text.split_once('/').map_or((None, text), |(instance, sid)| (Some(instance), sid));
    let instance = instance.map(InstanceId::new).transpose().map_err(|e| e.to_string())?;
    Ok(DatabaseName { instance, sid: Sid::new(sid).map_err(|e| e.to_string())? })
}

fn backup(text: &str) -> Result<BackupId, String> {
    BackupId::new(text).map_err(|e| e.to_string())
}

fn drill(text: &str) -> Result<DrillId, String> {
    DrillId::new(text).map_err(|e| e.to_string())
}

fn document(text: &str) -> Result<String, String> {
    let good = (3..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("a document's name has 3 to 128 letters, digits, `_`, `-` and `.`".to_owned()) }
}
