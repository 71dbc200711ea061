//! What stands in the way, found before anything is touched.
//!
//! A rule is a row of one table and a pure function over facts; it knows neither AWS nor Oracle, only what was seen. A
//! fact that is not known makes a finding like any other: to pass a host whose state nobody could read is how keys
//! get lost. Errors refuse the host (or the plan); only warnings can be accepted.

mod cloud;
mod database;
mod host;

use crate::facts::{CloudFacts, Cluster, Instance, ManagedInstance};
use crate::fleet::{Fleet, SecretChoice, Secrets};
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use tde2hsm_protocol::survey::{Database, Facts, KeystoreConfig, Survey};
use tde2hsm_protocol::{AutoOpen, Code, ContainerName, InstanceId, RestartProof, Severity, Sid, Store, Timestamp, describe};

/// What a rule says of a survey or of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub code: Code,
    pub severity: Severity,
    /// `None`: the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Sid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
    pub message: String,
    pub way_out: String,
    /// The fleet file accepts it.
    #[serde(default)]
    pub accepted: bool,
}

impl Finding {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// What all rules see.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub fleet: &'a Fleet,
    pub facts: &'a CloudFacts,
    pub surveys: &'a [Survey],
    pub targets: &'a [InstanceId],
    pub now: Timestamp,
    /// The plan that is to be undone; rules then look the other way (H30).
    pub undo_of: Option<&'a Plan>,
}

pub struct HostContext<'a> {
    pub all: &'a Context<'a>,
    pub instance: &'a InstanceId,
    pub survey: &'a Survey,
    pub classes: Vec<(&'a Database, Class)>,
}

pub struct DatabaseContext<'a> {
    pub all: &'a Context<'a>,
    pub host: &'a HostContext<'a>,
    pub database: &'a Database,
    pub facts: &'a Facts,
    pub class: Class,
    pub options: Effective<'a>,
}

/// Where a database stands, as far as its keys tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    OldHsm,
    Software,
    OnCloudHsm,
    /// No keys, and nothing that ties it to a provider: not of the campaign.
    Plain,
    /// Tied to a provider or encrypted, and down or silent.
    Down,
    /// A key whose store is not known, or a configuration without keys.
    Unclear,
    Mixed,
}

impl Class {
    /// It is to be migrated, or undone.
    pub fn in_scope(self) -> bool {
        matches!(self, Class::OldHsm | Class::Software | Class::OnCloudHsm)
    }
}

/// The options that hold for one database: its own, else its host's, else the fleet's.
#[derive(Debug, Clone, Copy)]
pub struct Effective<'a> {
    pub auto_open: Option<AutoOpen>,
    pub restart_proof: RestartProof,
    pub backup_hours: u16,
    pub old_hsm: Option<&'a SecretChoice>,
    pub cloudhsm: Option<&'a SecretChoice>,
    pub software: Option<&'a SecretChoice>,
}

pub fn effective<'a>(fleet: &'a Fleet, instance: &InstanceId, sid: &Sid) -> Effective<'a> {
    let host = fleet.host(instance);
    let database = host.and_then(|h| h.databases.iter().find(|d| d.sid == *sid));
    let secret = |pick: fn(&Secrets) -> Option<&SecretChoice>| -> Option<&'a SecretChoice> {
        database.and_then(|d| pick(&d.secrets)).or_else(|| host.and_then(|h| pick(&h.secrets))).or_else(|| pick(&fleet.secrets))
    };
    Effective {
        auto_open: database.and_then(|d| d.auto_open).or_else(|| host.and_then(|h| h.auto_open)).or(fleet.options.auto_open),
        restart_proof: database
            .and_then(|d| d.restart_proof)
            .or_else(|| host.and_then(|h| h.restart_proof))
            .unwrap_or(fleet.options.restart_proof),
        backup_hours: database
            .and_then(|d| d.backup_hours)
            .or_else(|| host.and_then(|h| h.backup_hours))
            .unwrap_or(fleet.options.backup_hours),
        old_hsm: secret(|s| s.old_hsm.as_ref()),
        cloudhsm: secret(|s| s.cloudhsm.as_ref()),
        software: secret(|s| s.software.as_ref()),
    }
}

/// For which direction a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Do,
    Both,
    /// Whoever undoes may not be kept from it by what only the way forward needs, nor by the half-done state that is the
    /// reason for undoing: a warning then, and the host judges before each step.
    Warns,
}

#[derive(Clone, Copy)]
enum Check {
    Fleet(fn(&Context<'_>, &mut Out<'_>)),
    /// Of a target, whether or not it was surveyed.
    Instance(fn(&Context<'_>, &InstanceId, &mut Out<'_>)),
    Cluster(fn(&Cluster, Timestamp, &mut Out<'_>)),
    Host(fn(&HostContext<'_>, &mut Out<'_>)),
    /// Of a database that is to be migrated.
    Database(fn(&DatabaseContext<'_>, &mut Out<'_>)),
}

struct Rule {
    code: Code,
    severity: Severity,
    when: When,
    check: Check,
}

impl Rule {
    fn at_most(&self, undo: bool) -> Severity {
        if undo && self.when == Warns { Warning } else { Error }
    }
}

/// What a rule may say: its own code, at its own severity or less.
struct Out<'a> {
    rule: &'a Rule,
    at_most: Severity,
    fleet: Option<&'a Fleet>,
    instance: Option<InstanceId>,
    sid: Option<Sid>,
    found: &'a mut Vec<Finding>,
}

impl Out<'_> {
    fn say(&mut self, message: impl Into<String>) {
        self.push(self.rule.severity, None, None, message.into());
    }
    fn warn(&mut self, message: impl Into<String>) {
        self.push(self.rule.severity.min(Severity::Warning), None, None, message.into());
    }
    fn of_container(&mut self, container: &ContainerName, message: impl Into<String>) {
        self.push(self.rule.severity, Some(container.clone()), None, message.into());
    }
    fn of_database(&mut self, sid: &Sid, message: impl Into<String>) {
        self.sid = Some(sid.clone());
        self.push(self.rule.severity, None, None, message.into());
        self.sid = None;
    }
    fn warn_with_way_out(&mut self, message: impl Into<String>, way_out: impl Into<String>) {
        self.push(self.rule.severity.min(Severity::Warning), None, Some(way_out.into()), message.into());
    }
    fn with_way_out(&mut self, message: impl Into<String>, way_out: impl Into<String>) {
        self.push(self.rule.severity, None, Some(way_out.into()), message.into());
    }
    fn push(&mut self, severity: Severity, container: Option<ContainerName>, way_out: Option<String>, message: String) {
        let code = self.rule.code;
        let severity = severity.min(self.at_most);
        let accepted = severity == Severity::Warning
            && self
                .fleet
                .is_some_and(|f| f.options.accept.iter().any(|a| a.covers(code, self.instance.as_ref(), self.sid.as_ref())));
        self.found.push(Finding {
            code,
            severity,
            instance: self.instance.clone(),
            sid: self.sid.clone(),
            container,
            // What a host says reaches terminals and files (H36).
            message: message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect(),
            way_out: way_out.unwrap_or_else(|| describe(code).map_or(String::new(), |info| info.hint.to_owned())),
            accepted,
        });
    }
}

const fn rule(code: Code, severity: Severity, when: When, check: Check) -> Rule {
    Rule { code, severity, when, check }
}

use Check::{Cluster as OfCluster, Database as OfDatabase, Fleet as OfFleet, Host as OfHost, Instance as OfInstance};
use Severity::{Error, Note, Warning};
use When::{Both, Do, Warns};

/// Every rule, in the order in which findings are read.
const RULES: &[Rule] = &[
    rule(Code::TARGETS_EMPTY, Error, Both, OfFleet(cloud::targets_empty)),
    rule(Code::CLUSTER_MISSING, Error, Warns, OfFleet(cloud::cluster_missing)),
    rule(Code::CLUSTER_NOT_ACTIVE, Error, Warns, OfCluster(cloud::cluster_not_active)),
    rule(Code::CLUSTER_HSMS, Error, Warns, OfCluster(cloud::cluster_hsms)),
    rule(Code::CLUSTER_CHANGING, Error, Warns, OfCluster(cloud::cluster_changing)),
    rule(Code::CLUSTER_ROLLBACK, Error, Warns, OfCluster(cloud::cluster_rollback)),
    rule(Code::ESCROW_UNNAMED, Error, Do, OfFleet(cloud::escrow_unnamed)),
    rule(Code::PROTECT_OFF, Warning, Do, OfFleet(cloud::protect_off)),
    rule(Code::PROTECT_ONE_REGION, Warning, Do, OfFleet(cloud::protect_one_region)),
    rule(Code::DOCUMENT_FACTS, Error, Both, OfFleet(cloud::document_facts)),
    rule(Code::SECRET_MISSING, Error, Warns, OfFleet(cloud::secret_missing)),
    rule(Code::SECRET_FOREIGN, Error, Both, OfFleet(cloud::secret_foreign)),
    rule(Code::SECRET_ROTATED, Warning, Both, OfFleet(cloud::secret_rotated)),
    rule(Code::CONNECTIONS, Error, Do, OfFleet(cloud::connections)),
    rule(Code::KEY_QUOTA, Error, Do, OfFleet(cloud::key_quota)),
    rule(Code::INSTANCE_STATE, Error, Both, OfInstance(cloud::instance_state)),
    rule(Code::AGENT_OFFLINE, Error, Both, OfInstance(cloud::agent_offline)),
    rule(Code::AGENT_OLD, Error, Both, OfInstance(cloud::agent_old)),
    rule(Code::AGENT_PLATFORM, Error, Both, OfInstance(cloud::agent_platform)),
    rule(Code::HSM_RULES, Error, Warns, OfInstance(cloud::hsm_rules)),
    rule(Code::HSM_ROUTE, Error, Warns, OfInstance(cloud::hsm_route)),
    rule(Code::TAG_MISSING, Warning, Both, OfInstance(cloud::tag_missing)),
    rule(Code::SURVEY_MISSING, Error, Both, OfInstance(host::survey_missing)),
    rule(Code::SURVEY_OLD, Error, Both, OfHost(host::survey_old)),
    rule(Code::SURVEY_IDENTITY, Error, Both, OfHost(host::survey_identity)),
    rule(Code::FACT_UNKNOWN, Error, Warns, OfHost(host::fact_unknown)),
    rule(Code::CLUSTERWARE_REFUSED, Error, Both, OfHost(host::clusterware)),
    rule(Code::SDK3_REFUSED, Error, Do, OfHost(host::sdk3)),
    rule(Code::OS_PACKAGE, Error, Do, OfHost(host::os_package)),
    rule(Code::MATRIX, Error, Do, OfHost(host::matrix)),
    rule(Code::SPACE, Error, Warns, OfHost(host::space)),
    rule(Code::NOEXEC, Error, Warns, OfHost(host::noexec)),
    rule(Code::READ_ONLY_MOUNT, Error, Warns, OfHost(host::read_only_mount)),
    rule(Code::AUTOSTART, Warning, Both, OfHost(host::autostart)),
    rule(Code::LIBRARIES, Error, Warns, OfHost(host::libraries)),
    rule(Code::LIBRARY_DELETED, Error, Warns, OfHost(host::library_deleted)),
    rule(Code::LIBRARY_STRANGER, Error, Both, OfHost(host::library_stranger)),
    rule(Code::CLOUDHSM_IN_USE, Error, Do, OfHost(host::cloudhsm_in_use)),
    rule(Code::KEYSTORE_SHARED, Error, Warns, OfHost(host::keystore_shared)),
    rule(Code::DATABASE_DOWN, Error, Warns, OfHost(host::database_down)),
    rule(Code::KEY_STORE_UNKNOWN, Error, Warns, OfHost(host::key_store_unknown)),
    rule(Code::KEYS_MIXED, Error, Warns, OfHost(host::keys_mixed)),
    rule(Code::ALREADY_MIGRATED, Note, Do, OfHost(host::already_migrated)),
    rule(Code::NOTHING_TO_DO, Error, Do, OfHost(host::nothing_to_do)),
    rule(Code::NOT_TO_UNDO, Error, Both, OfHost(host::not_to_undo)),
    rule(Code::SECRET_UNNAMED, Error, Do, OfDatabase(database::secret_unnamed)),
    rule(Code::VERSION_REFUSED, Error, Both, OfDatabase(database::version)),
    rule(Code::HSM_112_REFUSED, Error, Both, OfDatabase(database::hsm_112)),
    rule(Code::RAC_REFUSED, Error, Both, OfDatabase(database::rac)),
    rule(Code::DATA_GUARD_REFUSED, Error, Both, OfDatabase(database::data_guard)),
    rule(Code::LOGICAL_STANDBY_REFUSED, Error, Both, OfDatabase(database::logical_standby)),
    rule(Code::ISOLATED_PDB_REFUSED, Error, Both, OfDatabase(database::isolated_pdb)),
    rule(Code::ASM_KEYSTORE_REFUSED, Error, Both, OfDatabase(database::asm_keystore)),
    rule(Code::DATABASE_ROLE, Error, Both, OfDatabase(database::role)),
    rule(Code::DATABASE_MODE, Error, Warns, OfDatabase(database::mode)),
    rule(Code::PDB_MODE, Error, Warns, OfDatabase(database::pdb_mode)),
    rule(Code::RESTRICTED, Error, Warns, OfDatabase(database::restricted)),
    rule(Code::KEYSTORE_CONFIGURATION, Error, Warns, OfDatabase(database::keystore_configuration)),
    rule(Code::KEYSTORE_IS_CLOSED, Error, Warns, OfDatabase(database::keystore_closed)),
    rule(Code::SQLNET_SHARED, Error, Warns, OfDatabase(database::sqlnet_shared)),
    rule(Code::KEYSTORE_EPHEMERAL, Error, Warns, OfDatabase(database::keystore_ephemeral)),
    rule(Code::KEYSTORE_LARGE, Error, Warns, OfDatabase(database::keystore_large)),
    rule(Code::OLD_KEY_TABLESPACE_HSM, Error, Both, OfDatabase(database::old_key_tablespace_hsm)),
    rule(Code::OLD_KEY_TABLESPACE, Warning, Both, OfDatabase(database::old_key_tablespace)),
    rule(Code::TABLESPACE_STATUS, Error, Both, OfDatabase(database::tablespace_status)),
    rule(Code::BACKUP_MISSING, Error, Warns, OfDatabase(database::backup_missing)),
    rule(Code::NOARCHIVELOG, Error, Both, OfDatabase(database::noarchivelog)),
    rule(Code::ARCHIVER_STUCK, Error, Both, OfDatabase(database::archiver_stuck)),
    rule(Code::RECOVERY_AREA_FULL, Error, Warns, OfDatabase(database::recovery_area_full)),
    rule(Code::RESTORE_POINT, Error, Warns, OfDatabase(database::restore_point)),
    rule(Code::FLASHBACK, Error, Warns, OfDatabase(database::flashback)),
    rule(Code::CAPTURE_ACTIVE, Error, Both, OfDatabase(database::capture)),
    rule(Code::DATAFILES_OFFLINE, Error, Both, OfDatabase(database::datafiles_offline)),
    rule(Code::FILES_NEED_RECOVERY, Error, Both, OfDatabase(database::files_need_recovery)),
    rule(Code::BACKUP_MODE, Warning, Both, OfDatabase(database::backup_mode)),
    rule(Code::LONG_TRANSACTIONS, Warning, Both, OfDatabase(database::long_transactions)),
    rule(Code::JOBS_RUNNING, Warning, Both, OfDatabase(database::jobs_running)),
    rule(Code::AUTO_OPEN_UNDECIDED, Error, Do, OfDatabase(database::auto_open_undecided)),
    rule(Code::AUTO_OPEN_LOST, Warning, Do, OfDatabase(database::auto_open_lost)),
    rule(Code::SPFILE_NONE, Error, Warns, OfDatabase(database::spfile_none)),
    rule(Code::SPFILE_PENDING, Warning, Both, OfDatabase(database::spfile_pending)),
    rule(Code::OWNER_ROOT, Error, Both, OfDatabase(database::owner_root)),
    rule(Code::HOME_REPLACED, Error, Warns, OfDatabase(database::home_replaced)),
    rule(Code::ENVIRONMENT_DIFFERS, Error, Warns, OfDatabase(database::environment_differs)),
    rule(Code::HOST_CGROUP, Warning, Both, OfDatabase(database::host_cgroup)),
];

/// Every finding on the fleet and its targets, the fleet's first.
pub fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut found = fleet(context);
    for instance in context.targets {
        found.extend(host(context, instance));
    }
    found
}

/// Findings on the fleet as a whole; an error among them refuses the plan.
pub fn fleet(context: &Context<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let undo = context.undo_of.is_some();
    for rule in RULES.iter().filter(|r| !undo || r.when != Do) {
        let mut out =
            Out { rule, at_most: rule.at_most(undo), fleet: Some(context.fleet), instance: None, sid: None, found: &mut found };
        match rule.check {
            OfFleet(check) => check(context, &mut out),
            OfCluster(check) => {
                if let Some(cluster) = context.facts.cluster(&context.fleet.cluster.id) {
                    check(cluster, context.now, &mut out);
                }
            }
            OfInstance(_) | OfHost(_) | OfDatabase(_) => {}
        }
    }
    found
}

/// Findings on one target; an error among them refuses the host.
pub fn host(context: &Context<'_>, instance: &InstanceId) -> Vec<Finding> {
    let mut found = Vec::new();
    let undo = context.undo_of.is_some();
    let survey = context.surveys.iter().find(|s| s.instance == *instance);
    let surveyed = survey.map(|survey| HostContext {
        all: context,
        instance,
        survey,
        classes: survey.databases.iter().map(|d| (d, class(d, survey))).collect(),
    });
    for rule in RULES.iter().filter(|r| !undo || r.when != Do) {
        let mut out = Out {
            rule,
            at_most: rule.at_most(undo),
            fleet: Some(context.fleet),
            instance: Some(instance.clone()),
            sid: None,
            found: &mut found,
        };
        match (rule.check, &surveyed) {
            (OfInstance(check), _) => check(context, instance, &mut out),
            (OfHost(check), Some(host)) => check(host, &mut out),
            (OfDatabase(check), Some(host)) => {
                for (database, class) in host.classes.iter().filter(|(_, class)| concerns(*class, undo)) {
                    let Some(facts) = &database.facts else { continue };
                    let options = effective(context.fleet, instance, &database.sid);
                    out.sid = Some(database.sid.clone());
                    check(&DatabaseContext { all: context, host, database, facts, class: *class, options }, &mut out);
                }
            }
            (OfFleet(_) | OfCluster(_), _) | (_, None) => {}
        }
    }
    found
}

/// Databases that rules look into. One that is on CloudHSM already is left alone by a plan that does, and is what a plan
/// that undoes is about.
fn concerns(class: Class, undo: bool) -> bool {
    match class {
        Class::OldHsm | Class::Software | Class::Mixed | Class::Unclear => true,
        Class::OnCloudHsm => undo,
        Class::Plain | Class::Down => false,
    }
}

/// Findings on a cluster alone: before a plan, and within a minute before each key change (H23).
pub fn cluster(cluster: &Cluster, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in RULES {
        if let OfCluster(check) = rule.check {
            check(cluster, now, &mut Out { rule, at_most: Error, fleet: None, instance: None, sid: None, found: &mut found });
        }
    }
    found
}

/// Where a database stands, by the stores of its containers' active keys and the library that is in place.
pub fn class(database: &Database, survey: &Survey) -> Class {
    let tied = tied_to_hsm(database, survey);
    let configured = !matches!(database.keystore, KeystoreConfig::None);
    let Some(facts) = &database.facts else {
        return if tied || configured { Class::Down } else { Class::Plain };
    };
    let keys: Vec<_> = facts.containers.iter().filter_map(|c| c.key.as_ref()).collect();
    if keys.is_empty() {
        return if tied || !facts.tablespaces.is_empty() || !facts.column_keys.is_empty() {
            Class::Unclear
        } else {
            Class::Plain
        };
    }
    let count = |store| keys.iter().filter(|k| k.store == Some(store)).count();
    match (count(Store::Hsm), count(Store::Software)) {
        (hsm, 0) if hsm == keys.len() && cloudhsm_in_place(survey) => Class::OnCloudHsm,
        (hsm, 0) if hsm == keys.len() => Class::OldHsm,
        (0, software) if software == keys.len() => Class::Software,
        (hsm, software) if hsm + software == keys.len() => Class::Mixed,
        _ => Class::Unclear,
    }
}

/// H17: it maps a file under extapi, or is configured for an HSM, running or not.
pub fn tied_to_hsm(database: &Database, survey: &Survey) -> bool {
    let hsm = |text: &str| text.to_ascii_uppercase().contains("HSM");
    let configured = match &database.keystore {
        KeystoreConfig::Sqlnet { method, .. } => hsm(method),
        KeystoreConfig::WalletRoot { tde_configuration, .. } => tde_configuration.as_deref().is_some_and(hsm),
        KeystoreConfig::None => false,
        KeystoreConfig::Unreadable { .. } => true,
    };
    configured || maps_library(database, survey)
}

pub fn maps_library(database: &Database, survey: &Survey) -> bool {
    survey.provider.mapped.iter().any(|m| m.sid.as_ref() == Some(&database.sid))
}

fn cloudhsm_in_place(survey: &Survey) -> bool {
    survey.provider.libraries.iter().any(|l| l.path.rsplit('/').next().is_some_and(|name| name.contains("cloudhsm")))
}

fn instance_of<'a>(context: &Context<'a>, instance: &InstanceId) -> Option<&'a Instance> {
    context.facts.instance(instance)
}

fn managed_of<'a>(context: &Context<'a>, instance: &InstanceId) -> Option<&'a ManagedInstance> {
    context.facts.managed(instance)
}
