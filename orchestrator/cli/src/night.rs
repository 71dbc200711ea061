//! AWS as a campaign sees it: the region of its plan, and the second one, where its keys are to lie too (H8).

use crate::commands::survey;
use crate::context::Context;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_campaign::facts::{BackupCopy, Cluster};
use tde2hsm_campaign::plan::{DocumentPin, Plan, Second, SecretPurpose};
use tde2hsm_campaign::reducer::{CommandId, InventoryTaken};
use tde2hsm_cloud::{Aws, DrAws};
use tde2hsm_dr::copying::Timed;
use tde2hsm_dr::facts::BackupState;
use tde2hsm_dr::inventory::Inventory;
use tde2hsm_dr::points::{SecretRole, SecretUse};
use tde2hsm_dr_driver::store::keep_inventory;
use tde2hsm_dr_driver::{CallError, Cloud as _, DrConfig, Expiry, Hint, Job};
use tde2hsm_driver::{Backups, Cloud, Command, Fault, Invocation, SendError};
use tde2hsm_protocol::{ClusterId, Code, HsmId, InstanceId, OrderToken, Region, Retention, Severity, Sid, Timestamp};

pub struct Night {
    pub aws: Aws,
    context: Context,
    document: DocumentPin,
    second: Option<Beyond>,
}

/// The second region, as the plan names it.
struct Beyond {
    cloud: DrAws,
    config: DrConfig,
}

impl Night {
    /// By the document that the campaign uses.
    pub async fn new(context: &Context, aws: &Aws, plan: &Plan, document: &DocumentPin) -> Night {
        let second = match plan.protect.as_ref().and_then(|protect| protect.second.as_ref()) {
            Some(second) => {
                let config = config(plan, second);
                Some(Beyond { cloud: context.both_regions(&config).await, config })
            }
            None => None,
        };
        Night { aws: aws.clone(), context: context.clone(), document: document.clone(), second }
    }

    /// Surveys the hosts and writes each one's inventory down; answers with those that have none, and why.
    async fn inventories(&self, hosts: &[InstanceId]) -> Result<BTreeMap<InstanceId, String>, String> {
        let there = self.second.as_ref().ok_or_else(|| unnamed().message)?;
        let (account, region) = (&there.config.account, &there.config.source_region);
        let ordered = self.aws_now();
        let managed = self.aws.ssm.managed(hosts).await.map_err(|e| e.to_string())?;
        let attached = self.aws.ec2.instances_attached(hosts, account).await.map_err(|e| e.to_string())?;
        let asked = survey::of_hosts(&self.context, &self.aws, account, region, &self.document, hosts, &managed);
        let surveys = asked.await.map_err(|failure| failure.message)?;
        // AWS's clock, as of an answer that came after the last survey.
        let received = self.aws_now().ok_or("AWS's answers bear no time")?;
        let mut without: BTreeMap<InstanceId, String> =
            surveys.silent.into_iter().map(|silent| (silent.instance, silent.why)).collect();
        for seen in &surveys.surveys {
            let instance = attached.iter().find(|attached| attached.instance == seen.instance);
            let inventory = Inventory::from_survey(seen, received, ordered, instance);
            if let Err(error) = keep_inventory(&there.cloud, &inventory).await {
                without.insert(seen.instance.clone(), error.to_string());
            }
        }
        Ok(without)
    }

    /// Requests so far, of both regions.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let mut calls = self.aws.ledger.counts();
        for (call, times) in self.second.iter().flat_map(|second| second.cloud.ledger.counts()) {
            *calls.entry(call).or_default() += times;
        }
        calls
    }
}

/// What the job that copies HSM backups is told. The rest of it is of jobs that no campaign runs.
fn config(plan: &Plan, second: &Second) -> DrConfig {
    DrConfig {
        account: plan.account.clone(),
        fleet: plan.fleet.to_string(),
        fleet_tag: (String::new(), String::new()),
        source_region: plan.region.clone(),
        dr_region: second.region.clone(),
        cluster: plan.target.cluster.clone(),
        kms_key: second.kms_key.clone(),
        records_bucket: second.records_bucket.clone(),
        secrets: secrets(plan),
        rpo_minutes: 0,
        copies_in_flight: 0,
        timed: Timed::Never,
        retention: Retention::default(),
        hsm_backup_retention_days: 0,
        retired: Default::default(),
        topic: None,
        document: None,
        expiry: Expiry::DryRun,
    }
}

/// The passwords that the new keys need, as the plan's databases use them (H42).
fn secrets(plan: &Plan) -> Vec<SecretUse> {
    type Users = Vec<(InstanceId, Option<Sid>)>;
    let mut uses: BTreeMap<(u16, SecretRole), Users> = BTreeMap::new();
    for host in &plan.hosts {
        for database in &host.databases {
            let order = &database.order;
            for (index, role) in [(order.cloudhsm, SecretRole::CryptoUser), (order.software, SecretRole::Keystore)] {
                uses.entry((index, role)).or_default().push((host.instance.clone(), Some(order.sid.clone())));
            }
        }
    }
    let roles: Vec<SecretRole> = uses.keys().map(|(_, role)| *role).collect();
    let alone = |role: SecretRole| roles.iter().filter(|other| **other == role).count() == 1;
    let mut named = Vec::new();
    for ((index, role), databases) in uses {
        let Some(planned) = plan.secrets.get(usize::from(index)).filter(|s| s.purpose != SecretPurpose::OldHsm) else { continue };
        let secret = planned.secret.arn.clone();
        match alone(role) {
            true => named.push(SecretUse { secret, role, of: None }),
            false => named.extend(databases.into_iter().map(|of| SecretUse { secret: secret.clone(), role, of: Some(of) })),
        }
    }
    named
}

fn beyond(error: &CallError) -> Fault {
    // A denial is told apart by AWS's own word; everything else may pass.
    let denied = error.is(&["AccessDeniedException", "CloudHsmAccessDeniedException", "AccessDenied", "UnauthorizedOperation"]);
    Fault { code: if denied { Code::AWS_DENIED } else { Code::PROTECTION_UNSEEN }, message: error.to_string() }
}

fn spelled(state: BackupState) -> &'static str {
    match state {
        BackupState::CreateInProgress => "CREATE_IN_PROGRESS",
        BackupState::Ready => "READY",
        BackupState::Deleted => "DELETED",
        BackupState::PendingDeletion => "PENDING_DELETION",
        BackupState::Unknown => "UNKNOWN",
    }
}

#[async_trait]
impl Cloud for Night {
    async fn send(&self, command: &Command<'_>) -> Result<CommandId, SendError> {
        self.aws.send(command).await
    }

    async fn find(&self, document: &DocumentPin, token: &OrderToken, since: Timestamp) -> Result<Vec<CommandId>, Fault> {
        self.aws.find(document, token, since).await
    }

    async fn read(&self, command: &CommandId) -> Result<Vec<Invocation>, Fault> {
        self.aws.read(command).await
    }

    async fn cluster(&self, cluster: &ClusterId) -> Result<Option<Cluster>, Fault> {
        Cloud::cluster(&self.aws, cluster).await
    }

    async fn backups(&self, cluster: &ClusterId, second: Option<&Region>, after: Timestamp) -> Result<Backups, Fault> {
        let mut found = Cloud::backups(&self.aws, cluster, None, after).await?;
        let sources: BTreeSet<_> = found.backups.iter().map(|backup| backup.id.clone()).collect();
        let (Some(region), false) = (second, sources.is_empty()) else { return Ok(found) };
        let Some(there) = &self.second else { return Err(unnamed()) };
        let sources: Vec<_> = sources.into_iter().collect();
        let copies = there.cloud.hsm_copies(region, &sources).await.map_err(|e| beyond(&e))?;
        found.copies = copies
            .into_iter()
            .filter_map(|copy| {
                Some(BackupCopy { id: copy.id, source: copy.source_backup?, state: spelled(copy.state).to_owned() })
            })
            .collect();
        Ok(found)
    }

    async fn copy_backups(&self) -> Result<(), Fault> {
        let Some(there) = &self.second else { return Err(unnamed()) };
        let now = self.aws_now().unwrap_or_else(|| Timestamp(jiff::Timestamp::now().as_second()));
        let outcome = tde2hsm_dr_driver::run(Job::CopyHsmBackups, now, &there.config, &there.cloud, &Hint::Tick).await;
        let unasked = outcome.unasked.iter().map(|unasked| format!("`{}` in {}: {}", unasked.call, unasked.region, unasked.why));
        let said =
            outcome.messages.iter().filter(|message| message.severity == Severity::Error).map(|message| message.text.clone());
        match unasked.chain(said).next() {
            Some(message) => Err(Fault { code: Code::BACKUP_NOT_COPIED, message }),
            None => Ok(()),
        }
    }

    async fn add_hsm(&self, cluster: &ClusterId, zone: &str) -> Result<HsmId, SendError> {
        self.aws.add_hsm(cluster, zone).await
    }

    async fn remove_hsm(&self, cluster: &ClusterId, hsm: &HsmId) -> Result<(), SendError> {
        self.aws.remove_hsm(cluster, hsm).await
    }

    async fn take_inventories(&self, hosts: &[InstanceId]) -> Vec<InventoryTaken> {
        let without = self.inventories(hosts).await;
        let failed = |instance: &InstanceId| match &without {
            Ok(without) => without.get(instance).cloned(),
            Err(why) => Some(why.clone()),
        };
        hosts.iter().map(|instance| InventoryTaken { instance: instance.clone(), failed: failed(instance) }).collect()
    }

    fn aws_now(&self) -> Option<Timestamp> {
        self.aws.aws_now()
    }
}

fn unnamed() -> Fault {
    Fault { code: Code::BACKUP_NOT_COPIED, message: "the plan names no second region".to_owned() }
}
