//! Both regions as the jobs of `dr-driver` see them. Nothing is decided here.
//!
//! Clients are made when they are first needed and kept: a function that asks three services makes three clients, whatever
//! the other functions ask.

use crate::{Choice, CloudError, CloudHsm, Effect, Kms, Ledger, Records, Secrets, Sns, Ssm};
use async_trait::async_trait;
use aws_config::SdkConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use tde2hsm_campaign::plan::DocumentPin as PlanPin;
use tde2hsm_campaign::reducer::CommandId;
use tde2hsm_cloud_ec2::Ec2;
use tde2hsm_cloud_ec2::snapshots::Copying;
use tde2hsm_document::Fetch;
use tde2hsm_dr::facts::{FleetInstance, HsmBackup, KmsKey, Secret, Snapshot};
use tde2hsm_dr_driver::{
    CallError, Cloud, CopySnapshot, DocumentPin, DrConfig, Effect as CallEffect, HostAnswer, Job, Object, ObjectInfo, Put,
    Remembered, Result, SurveyCommand, Wrote,
};
use tde2hsm_protocol::{
    AccountId, BackupId, ClusterId, InstanceId, KmsKeyArn, OrderToken, Region, SecretArn, SecretVersion, SnapshotId, Timestamp,
    VolumeId,
};

/// One account's source region and DR region.
#[derive(Debug)]
pub struct DrAws {
    account: AccountId,
    bucket: String,
    topic: Option<String>,
    source: Side,
    dr: Side,
    pub ledger: Ledger,
    /// What was read of the records: a function is asked again and again.
    remembered: Remembered,
}

#[derive(Debug)]
struct Side {
    region: Region,
    config: SdkConfig,
    ledger: Ledger,
    ec2: OnceLock<Ec2>,
    cloudhsm: OnceLock<CloudHsm>,
    secrets: OnceLock<Secrets>,
    kms: OnceLock<Kms>,
    ssm: OnceLock<Ssm>,
    sns: OnceLock<Sns>,
    records: OnceLock<Records>,
}

impl Side {
    fn new(config: &SdkConfig, region: &Region, ledger: &Ledger) -> Side {
        let config = config.to_builder().region(aws_config::Region::new(region.to_string())).build();
        Side {
            region: region.clone(),
            config,
            ledger: ledger.clone(),
            ec2: OnceLock::new(),
            cloudhsm: OnceLock::new(),
            secrets: OnceLock::new(),
            kms: OnceLock::new(),
            ssm: OnceLock::new(),
            sns: OnceLock::new(),
            records: OnceLock::new(),
        }
    }

    fn ec2(&self) -> &Ec2 {
        self.ec2.get_or_init(|| Ec2::new(&self.config, &self.ledger))
    }
    fn cloudhsm(&self) -> &CloudHsm {
        self.cloudhsm.get_or_init(|| CloudHsm::new(&self.config, &self.ledger))
    }
    fn secrets(&self) -> &Secrets {
        self.secrets.get_or_init(|| Secrets::new(&self.config, &self.ledger))
    }
    fn kms(&self) -> &Kms {
        self.kms.get_or_init(|| Kms::new(&self.config, &self.ledger))
    }
    fn ssm(&self) -> &Ssm {
        self.ssm.get_or_init(|| Ssm::new(&self.config, &self.ledger))
    }
    fn sns(&self) -> &Sns {
        self.sns.get_or_init(|| Sns::new(&self.config, &self.ledger))
    }
}

impl DrAws {
    /// From one configuration; its region does not count.
    pub fn new(config: &SdkConfig, dr: &DrConfig) -> DrAws {
        let ledger = Ledger::default();
        DrAws {
            account: dr.account.clone(),
            bucket: dr.records_bucket.clone(),
            topic: dr.topic.clone(),
            source: Side::new(config, &dr.source_region, &ledger),
            dr: Side::new(config, &dr.dr_region, &ledger),
            remembered: Remembered::default(),
            ledger,
        }
    }

    /// With the credentials that the command line's choice finds.
    pub async fn connect(choice: &Choice, dr: &DrConfig) -> DrAws {
        DrAws::new(&crate::load(choice, Some(&dr.source_region)).await, dr)
    }

    /// Makes the clients that a job begins with, so that its first run does not have to.
    pub fn warm(&self, job: Job) {
        self.records();
        match job {
            Job::CopySnapshots => {
                self.source.ec2();
                self.dr.ec2();
            }
            Job::CopyHsmBackups => {
                self.source.cloudhsm();
                self.dr.cloudhsm();
                self.source.secrets();
            }
            Job::SettleCopies => {
                self.dr.ec2();
                self.dr.cloudhsm();
            }
            Job::ExpireCopies | Job::AuditRecovery => {
                self.dr.ec2();
                self.dr.cloudhsm();
                self.source.ec2();
            }
        }
    }

    fn records(&self) -> &Records {
        let dr = &self.dr;
        dr.records.get_or_init(|| Records::new(&dr.config, &dr.ledger, self.bucket.clone(), self.account.clone()))
    }

    fn side(&self, region: &Region, call: &str) -> Result<&Side> {
        [&self.source, &self.dr].into_iter().find(|side| side.region == *region).ok_or_else(|| CallError {
            call: call.to_owned(),
            effect: CallEffect::NotSent,
            aws_code: None,
            message: format!("`{region}` is neither the source region nor the DR region"),
        })
    }
}

pub(crate) fn call_error(error: CloudError) -> CallError {
    let message = error.to_string();
    // The call is named before the message wherever a `CallError` is shown.
    let message = message.strip_prefix(&format!("`{}` ", error.call)).unwrap_or(&message).to_owned();
    CallError {
        call: error.call.to_string(),
        effect: match error.effect {
            Effect::NotSent => CallEffect::NotSent,
            Effect::Ambiguous => CallEffect::Ambiguous,
            Effect::Refused => CallEffect::Refused,
        },
        aws_code: error.aws_code,
        message,
    }
}

fn pin(document: &DocumentPin) -> PlanPin {
    PlanPin { name: document.name.clone(), version: document.version.clone(), hash: document.hash }
}

#[async_trait]
impl Cloud for DrAws {
    async fn fleet_instances(&self, region: &Region, tag: &(String, String)) -> Result<Vec<FleetInstance>> {
        let ec2 = self.side(region, "ec2:DescribeInstances")?.ec2();
        ec2.fleet_instances(&tag.0, &tag.1, &self.account).await.map_err(call_error)
    }

    async fn instances_there(&self, region: &Region, ids: &[InstanceId]) -> Result<BTreeSet<InstanceId>> {
        let ec2 = self.side(region, "ec2:DescribeInstances")?.ec2();
        let found = ec2.instances_attached(ids, &self.account).await.map_err(call_error)?;
        Ok(found.into_iter().map(|one| one.instance).collect())
    }

    async fn snapshot(&self, region: &Region, id: &SnapshotId) -> Result<Option<Snapshot>> {
        self.side(region, "ec2:DescribeSnapshots")?.ec2().snapshot(region, id).await.map_err(call_error)
    }

    async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>> {
        self.side(region, "ec2:DescribeSnapshots")?.ec2().snapshots_of(region, volumes).await.map_err(call_error)
    }

    async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>> {
        self.side(region, "ec2:DescribeSnapshots")?.ec2().snapshots_tagged(region, key, values).await.map_err(call_error)
    }

    async fn copies_in_flight(&self, region: &Region) -> Result<Vec<Snapshot>> {
        self.side(region, "ec2:DescribeSnapshots")?.ec2().copies_in_flight(region).await.map_err(call_error)
    }

    async fn copy_snapshot(&self, region: &Region, copy: &CopySnapshot) -> Result<SnapshotId> {
        let copying = Copying {
            source: &copy.source,
            source_region: &copy.source_region,
            description: &copy.description,
            kms_key: &copy.kms_key,
            tags: &copy.tags,
            completion_minutes: copy.completion_minutes,
        };
        self.side(region, "ec2:CopySnapshot")?.ec2().copy_snapshot(&copying).await.map_err(call_error)
    }

    async fn delete_snapshot(&self, region: &Region, id: &SnapshotId) -> Result<()> {
        self.side(region, "ec2:DeleteSnapshot")?.ec2().delete_snapshot(id).await.map_err(call_error)
    }

    async fn hsm_addresses(&self, region: &Region, cluster: &ClusterId) -> Result<Option<BTreeSet<String>>> {
        let found = self.side(region, "cloudhsmv2:DescribeClusters")?.cloudhsm().cluster(cluster).await.map_err(call_error)?;
        Ok(found.map(|cluster| cluster.hsms.iter().filter_map(|hsm| hsm.ip).map(|ip| ip.to_string()).collect()))
    }

    async fn hsm_backups(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>> {
        let cloudhsm = self.side(region, "cloudhsmv2:DescribeBackups")?.cloudhsm();
        cloudhsm.backups_of(region, cluster).await.map_err(call_error)
    }

    async fn hsm_copies(&self, region: &Region, sources: &[BackupId]) -> Result<Vec<HsmBackup>> {
        let cloudhsm = self.side(region, "cloudhsmv2:DescribeBackups")?.cloudhsm();
        cloudhsm.copies_of(region, sources).await.map_err(call_error)
    }

    async fn copy_hsm_backup(&self, region: &Region, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<()> {
        let cloudhsm = self.side(region, "cloudhsmv2:CopyBackupToRegion")?.cloudhsm();
        cloudhsm.copy_backup(id, to, tags).await.map_err(call_error)
    }

    async fn keep_hsm_backup(&self, region: &Region, id: &BackupId, never_expires: bool) -> Result<()> {
        let cloudhsm = self.side(region, "cloudhsmv2:ModifyBackupAttributes")?.cloudhsm();
        cloudhsm.keep_backup(id, never_expires).await.map_err(call_error)
    }

    async fn delete_hsm_backup(&self, region: &Region, id: &BackupId) -> Result<()> {
        self.side(region, "cloudhsmv2:DeleteBackup")?.cloudhsm().delete_backup(id).await.map_err(call_error)
    }

    async fn secret(&self, region: &Region, arn: &SecretArn) -> Result<Option<Secret>> {
        let side = self.side(region, "secretsmanager:DescribeSecret")?;
        let Some((mut secret, key)) = side.secrets().in_region(region, arn).await.map_err(call_error)? else { return Ok(None) };
        // Only there must it be readable when the day comes.
        if *region == self.dr.region {
            secret.kms_key = side.kms().named(key.as_deref().unwrap_or(crate::kms::SECRETS)).await.map_err(call_error)?;
        }
        Ok(Some(secret))
    }

    async fn stage_secret(
        &self,
        region: &Region,
        arn: &SecretArn,
        stage: &str,
        from: Option<&SecretVersion>,
        to: Option<&SecretVersion>,
    ) -> Result<()> {
        let secrets = self.side(region, "secretsmanager:UpdateSecretVersionStage")?.secrets();
        secrets.stage(arn, stage, from, to).await.map_err(call_error)
    }

    async fn kms_key(&self, region: &Region, arn: &KmsKeyArn) -> Result<KmsKey> {
        self.side(region, "kms:DescribeKey")?.kms().key(arn).await.map_err(call_error)
    }

    async fn send_survey(&self, region: &Region, command: &SurveyCommand<'_>) -> Result<String> {
        let document = pin(command.document);
        let sending = crate::ssm::Sending {
            document: &document,
            instances: command.instances,
            order: command.order,
            fetch: Fetch::Runner,
            token: command.token,
            delivery_seconds: command.delivery_seconds,
        };
        let sent = self.side(region, "ssm:SendCommand")?.ssm().send(&sending).await;
        sent.map(|id| id.to_string()).map_err(call_error)
    }

    async fn find_survey(
        &self,
        region: &Region,
        document: &DocumentPin,
        token: &OrderToken,
        since: Timestamp,
    ) -> Result<Vec<String>> {
        let found = self.side(region, "ssm:ListCommands")?.ssm().find(&pin(document), token, since).await.map_err(call_error)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    async fn read_survey(&self, region: &Region, command: &str) -> Result<Vec<HostAnswer>> {
        const CALL: &str = "ssm:ListCommandInvocations";
        let id = CommandId::new(command).map_err(|why| CallError {
            call: CALL.to_owned(),
            effect: CallEffect::NotSent,
            aws_code: None,
            message: why.to_string(),
        })?;
        let found = self.side(region, CALL)?.ssm().invocations(&id).await.map_err(call_error)?;
        Ok(found
            .into_iter()
            .map(|invocation| HostAnswer {
                instance: invocation.instance,
                over: invocation.stage == crate::ssm::Stage::Over,
                details: invocation.details,
                output: invocation.output,
            })
            .collect())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let found = self.records().list(prefix).await.map_err(call_error)?;
        self.remembered.listed(prefix, &found);
        Ok(found)
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        self.records().get(key).await.map_err(call_error)
    }

    async fn get_listed(&self, key: &str) -> Result<Option<Object>> {
        self.remembered.or_read(self, key).await
    }

    async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote> {
        self.records().put(key, body, when).await.map_err(call_error)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.records().delete(key).await.map_err(call_error)
    }

    async fn publish(&self, subject: &str, message: &str) -> Result<()> {
        let Some(topic) = &self.topic else { return Ok(()) };
        self.dr.sns().publish(topic, subject, message).await.map_err(call_error)
    }
}
