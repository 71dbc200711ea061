//! CloudHSM v2 of one region: clusters, HSMs, backups and their states (A§4.2–4.5).

use crate::ec2::Ec2;
use crate::page::page;
use crate::world::{Turn, unknown};
use crate::{AccountId, ApiError, Effect, Ids, Millis, Region, Service};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;
/// How long a deleted backup can still be restored (A§4.5).
const PENDING_DELETION_MS: i64 = 7 * DAY_MS;
/// How long a failed copy is shown as DELETED.
const DELETED_SHOWN_MS: i64 = 7 * DAY_MS;
/// What a cluster keeps its backups for where nobody says.
const RETENTION_DAYS: u32 = 90;
/// Clusters of a region.
const CLUSTER_LIMIT: usize = 4;
/// HSMs of a cluster, at most.
const HSM_LIMIT: usize = 28;

#[derive(Debug, Clone, PartialEq, Eq)]
enum HsmState {
    Creating(Millis),
    Active,
    Degraded,
    Deleting(Millis),
}

#[derive(Debug, Clone)]
struct Hsm {
    id: String,
    zone: String,
    subnet: String,
    eni: String,
    ip: String,
    state: HsmState,
}

#[derive(Debug, Clone)]
struct Cluster {
    id: String,
    created: Millis,
    state: String,
    group: String,
    vpc: String,
    /// Availability zone to subnet.
    subnets: Vec<(String, String)>,
    certificate: String,
    hsms: Vec<Hsm>,
    tags: Vec<(String, String)>,
    last_backup: Millis,
    kind: String,
    source_backup: Option<String>,
    /// Days; `None` keeps them all.
    retention: Option<u32>,
    /// When it leaves the state it is in, for which; `DELETED` is the end of it.
    becomes: Option<(Millis, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackupState {
    CreateInProgress(Millis),
    Ready,
    /// A copy that failed; since when.
    Failed(Millis),
    /// Since when.
    PendingDeletion(Millis),
}

#[derive(Debug, Clone)]
pub(crate) struct Backup {
    id: String,
    cluster: String,
    created: Millis,
    state: BackupState,
    never_expires: bool,
    copied_from: Option<(Region, String, String, Millis)>,
    tags: Vec<(String, String)>,
    certificate: String,
    kind: String,
    doomed: bool,
}

#[derive(Debug)]
pub struct CloudHsm {
    account: AccountId,
    region: Region,
    clusters: Vec<Cluster>,
    backups: Vec<Backup>,
    next_purge: Millis,
}

/// What a cluster is built from.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub id: String,
    pub created: Millis,
    pub group: String,
    pub vpc: String,
    /// Availability zone to subnet; an HSM is put into each.
    pub subnets: Vec<(String, String)>,
    /// The issuing certificate, in PEM.
    pub certificate: String,
    /// Address of the HSM in each zone.
    pub addresses: Vec<String>,
}

pub(crate) fn invalid(why: impl Into<String>) -> ApiError {
    ApiError::new("CloudHsmInvalidRequestException", why)
}

pub(crate) fn not_found(why: impl Into<String>) -> ApiError {
    ApiError::new("CloudHsmResourceNotFoundException", why)
}

impl CloudHsm {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        Self {
            account: account.clone(),
            region: region.clone(),
            clusters: Vec::new(),
            backups: Vec::new(),
            next_purge: Millis(0),
        }
    }

    /// An active cluster with one HSM in each zone, and the backup its activation made, whose id is returned.
    pub fn add_cluster(&mut self, spec: ClusterSpec, ids: &mut Ids) -> String {
        let hsms = spec
            .subnets
            .iter()
            .zip(&spec.addresses)
            .map(|((zone, subnet), ip)| Hsm {
                id: format!("hsm-{}", base32(ids, 11)),
                zone: zone.clone(),
                subnet: subnet.clone(),
                eni: format!("eni-{}", ids.hex(17)),
                ip: ip.clone(),
                state: HsmState::Active,
            })
            .collect();
        let cluster = Cluster {
            id: spec.id,
            created: spec.created,
            state: "ACTIVE".to_owned(),
            group: spec.group,
            vpc: spec.vpc,
            subnets: spec.subnets,
            certificate: spec.certificate,
            hsms,
            tags: vec![("Name".to_owned(), "tde".to_owned())],
            last_backup: spec.created,
            kind: "hsm2m.medium".to_owned(),
            source_backup: None,
            retention: Some(RETENTION_DAYS),
            becomes: None,
        };
        let backup = Backup { state: BackupState::Ready, ..backup_of(&cluster, spec.created, spec.created, ids) };
        let id = backup.id.clone();
        self.backups.push(backup);
        self.clusters.push(cluster);
        id
    }

    /// How long a cluster keeps its backups; `None` for ever, as clusters did before there was a policy.
    pub fn set_retention(&mut self, cluster: &str, days: Option<u32>) {
        if let Some(cluster) = self.clusters.iter_mut().find(|c| c.id == cluster) {
            cluster.retention = days;
        }
    }

    /// A cluster's state in AWS's words.
    pub fn state(&self, cluster: &str) -> Option<&str> {
        self.clusters.iter().find(|c| c.id == cluster).map(|c| c.state.as_str())
    }

    /// Token keys can be neither made nor deleted there (A§4.7).
    pub fn limited_write(&self, cluster: &str) -> bool {
        matches!(self.state(cluster), Some("MODIFY_IN_PROGRESS" | "ROLLBACK_IN_PROGRESS"))
    }

    /// A backup's state in AWS's words; `None` when it is gone without a trace.
    pub fn backup_state(&self, id: &str) -> Option<&'static str> {
        self.backups.iter().find(|b| b.id == id).map(Backup::state_name)
    }

    /// When a backup was begun; of a copy, when its source was.
    pub fn backup_created(&self, id: &str) -> Option<Millis> {
        self.backups.iter().find(|backup| backup.id == id).map(|backup| backup.created)
    }

    /// Puts a cluster into another state, such as `MODIFY_IN_PROGRESS`.
    pub fn set_state(&mut self, cluster: &str, state: &str) {
        if let Some(cluster) = self.clusters.iter_mut().find(|c| c.id == cluster) {
            cluster.state = state.to_owned();
        }
    }

    /// One ACTIVE HSM becomes DEGRADED; its id.
    pub fn degrade_one(&mut self, cluster: &str) -> Option<String> {
        let hsms = self.clusters.iter_mut().find(|c| c.id == cluster).map(|c| &mut c.hsms)?;
        let hsm = hsms.iter_mut().find(|h| h.state == HsmState::Active)?;
        hsm.state = HsmState::Degraded;
        Some(hsm.id.clone())
    }

    /// Every HSM of a cluster that has come to life, and whether it is ACTIVE.
    pub fn hsms(&self, cluster: &str) -> Vec<(String, bool)> {
        let cluster = self.clusters.iter().find(|c| c.id == cluster);
        let hsms = cluster.into_iter().flat_map(|c| &c.hsms).filter(|h| !matches!(h.state, HsmState::Creating(_)));
        hsms.map(|h| (h.id.clone(), h.state == HsmState::Active)).collect()
    }

    /// Addresses of the HSMs that are ACTIVE.
    pub fn active_hsms(&self, cluster: &str) -> Vec<String> {
        let cluster = self.clusters.iter().find(|c| c.id == cluster);
        cluster.map(|c| c.hsms.iter().filter(|h| h.state == HsmState::Active).map(|h| h.ip.clone()).collect()).unwrap_or_default()
    }

    pub(crate) fn backup(&self, id: &str) -> Option<&Backup> {
        self.backups.iter().find(|b| b.id == id)
    }

    /// It can be read, also by a copy in flight.
    pub(crate) fn is_ready(&self, id: &str) -> bool {
        self.backup(id).is_some_and(|b| b.state == BackupState::Ready)
    }

    /// CopyBackupToRegion in its destination. `source` is READY.
    pub(crate) fn adopt_copy(
        &mut self,
        from: &Region,
        source: &Backup,
        body: &Value,
        turn: &mut Turn<'_>,
    ) -> Result<Value, ApiError> {
        if source.state != BackupState::Ready {
            return Err(invalid(format!("Backup {} is in state {}", source.id, source.state_name())));
        }
        if !turn.options.duplicate_backup_copies {
            let alive = |b: &Backup| !matches!(b.state, BackupState::Failed(_));
            let same = |b: &Backup| b.copied_from.as_ref().is_some_and(|(_, id, _, _)| *id == source.id);
            if self.backups.iter().any(|b| alive(b) && same(b)) {
                return Err(invalid(format!("Backup {} was copied to {} already", source.id, self.region)));
            }
        }
        let tags = if body["TagList"].is_array() { read_tags(&body["TagList"]) } else { source.tags.clone() };
        let ready = turn.now.plus_ms(turn.options.backup_ms + turn.faults.copy_delay());
        self.backups.push(Backup {
            id: format!("backup-{}", base32(turn.ids, 11)),
            state: BackupState::CreateInProgress(ready),
            never_expires: false,
            copied_from: Some((from.clone(), source.id.clone(), source.cluster.clone(), turn.now)),
            tags,
            doomed: turn.faults.fail_next_backup_copies(),
            ..source.clone()
        });
        Ok(json!({"DestinationBackup": {
            "CreateTimestamp": source.created.epoch(),
            "SourceRegion": from.as_str(),
            "SourceBackup": source.id,
            "SourceCluster": source.cluster,
        }}))
    }

    /// The copies that are due, each with its source.
    pub(crate) fn copies_due(&self, now: Millis) -> Vec<(String, Region, String)> {
        let due = |b: &&Backup| matches!(b.state, BackupState::CreateInProgress(until) if until <= now);
        let copies = self.backups.iter().filter(due);
        copies
            .filter_map(|b| b.copied_from.as_ref().map(|(region, id, _, _)| (b.id.clone(), region.clone(), id.clone())))
            .collect()
    }

    pub(crate) fn settle_copy(&mut self, id: &str, source_readable: bool, turn: &mut Turn<'_>) {
        let Some(backup) = self.backups.iter_mut().find(|b| b.id == id) else { return };
        let Some((from, source, _, _)) = backup.copied_from.clone() else { return };
        let region = self.region.clone();
        if source_readable && !backup.doomed {
            backup.state = BackupState::Ready;
            turn.effects.push(Effect::BackupCopied { from, source, region, backup: id.to_owned() });
        } else {
            backup.state = BackupState::Failed(turn.now);
            turn.effects.push(Effect::BackupGone { region, backup: id.to_owned() });
        }
    }

    /// Whether an HSM, a cluster or a backup is on its way in or out.
    pub(crate) fn is_busy(&self) -> bool {
        let mut hsms = self.clusters.iter().flat_map(|c| &c.hsms);
        hsms.any(|h| matches!(h.state, HsmState::Creating(_) | HsmState::Deleting(_)))
            || self.clusters.iter().any(|c| c.becomes.is_some())
            || self.backups.iter().any(|b| matches!(b.state, BackupState::CreateInProgress(_)))
    }

    /// When something of its own accord happens next.
    pub(crate) fn next_due(&self, every: i64) -> Option<Millis> {
        let hsms = self.clusters.iter().flat_map(|c| &c.hsms).filter_map(|h| match h.state {
            HsmState::Creating(until) | HsmState::Deleting(until) => Some(until),
            HsmState::Active | HsmState::Degraded => None,
        });
        let daily = self.clusters.iter().filter(|c| c.makes_backups()).map(|c| c.last_backup.plus_ms(every));
        let states = self.clusters.iter().filter_map(|c| c.becomes.map(|(at, _)| at));
        let backups = self.backups.iter().filter_map(|b| match b.state {
            BackupState::CreateInProgress(until) => Some(until),
            BackupState::PendingDeletion(since) => Some(since.plus_ms(PENDING_DELETION_MS)),
            BackupState::Ready | BackupState::Failed(_) => None,
        });
        hsms.chain(daily).chain(states).chain(backups).min()
    }

    /// Returns the clusters whose HSMs are others than before.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) -> Vec<String> {
        let now = turn.now;
        let mut changed = Vec::new();
        for cluster in &mut self.clusters {
            let before = cluster.hsms.clone();
            for hsm in &mut cluster.hsms {
                if matches!(hsm.state, HsmState::Creating(until) if until <= now) {
                    hsm.state = HsmState::Active;
                }
            }
            cluster.hsms.retain(|hsm| !matches!(hsm.state, HsmState::Deleting(until) if until <= now));
            let differs = before.len() != cluster.hsms.len() || before.iter().zip(&cluster.hsms).any(|(a, b)| a.state != b.state);
            if differs {
                changed.push(cluster.id.clone());
            }
            if let Some((_, state)) = cluster.becomes.take_if(|(at, _)| *at <= now) {
                cluster.state = state.to_owned();
                let region = self.region.clone();
                match (&cluster.source_backup, state) {
                    (Some(backup), "ACTIVE") => {
                        cluster.last_backup = now;
                        let (cluster, backup) = (cluster.id.clone(), backup.clone());
                        turn.effects.push(Effect::ClusterRestored { region, cluster, backup });
                    }
                    (_, "DELETED") => turn.effects.push(Effect::ClusterGone { region, cluster: cluster.id.clone() }),
                    _ => {}
                }
            }
            // At least one backup every 24 hours.
            let every = turn.options.backup_every_ms;
            while cluster.makes_backups() && now.since(cluster.last_backup) >= every {
                cluster.last_backup = cluster.last_backup.plus_ms(every);
                let ready = cluster.last_backup.plus_ms(turn.options.backup_ms);
                let backup = backup_of(cluster, cluster.last_backup, ready, turn.ids);
                turn.effects.push(taken(&self.region, &backup));
                self.backups.push(backup);
            }
        }
        self.clusters.retain(|c| c.state != "DELETED");
        for backup in &mut self.backups {
            let own = backup.copied_from.is_none();
            if own && matches!(backup.state, BackupState::CreateInProgress(until) if until <= now) {
                backup.state = BackupState::Ready;
            }
        }
        self.purge(turn);
        changed
    }

    /// The service's own retention (A§4.5): by the cluster's policy, never the newest one, never what NeverExpires, never a
    /// copy.
    fn purge(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.next_purge > now && !self.backups.iter().any(|b| b.is_over(now)) {
            return;
        }
        self.next_purge = now.plus_ms(3_600_000);
        for cluster in &self.clusters {
            let Some(days) = cluster.retention else { continue };
            let own = |b: &&mut Backup| b.cluster == cluster.id && b.copied_from.is_none();
            let newest = self.backups.iter_mut().filter(own).filter(|b| b.state == BackupState::Ready).map(|b| b.created).max();
            for backup in self.backups.iter_mut().filter(own) {
                let old = now.since(backup.created) >= i64::from(days) * DAY_MS;
                if old && backup.state == BackupState::Ready && !backup.never_expires && Some(backup.created) != newest {
                    backup.state = BackupState::PendingDeletion(now);
                }
            }
        }
        for backup in self.backups.extract_if(.., |b| b.is_over(now)) {
            if matches!(backup.state, BackupState::PendingDeletion(_)) {
                turn.effects.push(Effect::BackupGone { region: self.region.clone(), backup: backup.id });
            }
        }
    }

    /// The reply, and the cluster whose HSMs changed.
    pub(crate) fn call(
        &mut self,
        operation: &str,
        body: &Value,
        ec2: &mut Ec2,
        turn: &mut Turn<'_>,
    ) -> Result<(Value, Option<String>), ApiError> {
        match operation {
            "DescribeClusters" => self.describe_clusters(body).map(|v| (v, None)),
            "DescribeBackups" => self.describe_backups(body).map(|v| (v, None)),
            "ListTags" => self.list_tags(body).map(|v| (v, None)),
            "TagResource" => self.tag_resource(body).map(|v| (v, None)),
            "UntagResource" => self.untag_resource(body).map(|v| (v, None)),
            "ModifyBackupAttributes" => self.modify_backup(body).map(|v| (v, None)),
            "DeleteBackup" => self.delete_backup(body, turn).map(|v| (v, None)),
            "RestoreBackup" => self.restore_backup(body).map(|v| (v, None)),
            "CreateCluster" => self.create_cluster(body, ec2, turn).map(|v| (v, None)),
            "DeleteCluster" => self.delete_cluster(body, ec2, turn).map(|v| (v, None)),
            "CreateHsm" => self.create_hsm(body, ec2, turn),
            "DeleteHsm" => self.delete_hsm(body, turn),
            other => Err(unknown(Service::CloudHsm, other)),
        }
    }

    fn create_cluster(&mut self, body: &Value, ec2: &mut Ec2, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        let Some(source) = body["SourceBackupId"].as_str() else {
            return Err(invalid("This world makes clusters only from backups: SourceBackupId is missing"));
        };
        let source = source.rsplit('/').next().unwrap_or_default();
        let backup = self.backup(source).cloned().ok_or_else(|| not_found(format!("Backup {source} was not found")))?;
        if backup.state != BackupState::Ready {
            return Err(invalid(format!("Backup {source} is in state {}", backup.state_name())));
        }
        if self.clusters.len() >= CLUSTER_LIMIT {
            return Err(ApiError::new(
                "CloudHsmResourceLimitExceededException",
                "The account has as many clusters as it may have",
            ));
        }
        let kind = body["HsmType"].as_str().unwrap_or_default();
        if kind != "hsm2m.medium" {
            return Err(invalid(format!("Invalid HSM type {kind}")));
        }
        let mut subnets: Vec<(String, String)> = Vec::new();
        let mut vpc = String::new();
        for id in body["SubnetIds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (its_vpc, zone, _) = ec2.subnet(id).ok_or_else(|| invalid(format!("Invalid subnet {id}")))?;
            if subnets.iter().any(|(z, _)| *z == zone) || !vpc.is_empty() && its_vpc != vpc {
                return Err(invalid("The subnets must lie in one VPC, one to an Availability Zone"));
            }
            vpc = its_vpc;
            subnets.push((zone, id.to_owned()));
        }
        if subnets.is_empty() || subnets.len() > 10 {
            return Err(invalid("SubnetIds must name one to ten subnets"));
        }
        let retention = match &body["BackupRetentionPolicy"] {
            Value::Null => Some(RETENTION_DAYS),
            policy => {
                let days = policy["Value"].as_str().and_then(|days| days.parse().ok());
                Some(days.filter(|days| (7..=379).contains(days)).ok_or_else(|| invalid("Invalid backup retention policy"))?)
            }
        };
        let id = format!("cluster-{}", base32(turn.ids, 11));
        let group = format!("sg-{}", turn.ids.hex(17));
        ec2.add_group(&group, &format!("cloudhsm-{id}-sg"), &vpc, &[(2223, 2225)], &[&group]);
        self.clusters.push(Cluster {
            id: id.clone(),
            created: turn.now,
            state: "CREATE_IN_PROGRESS".to_owned(),
            group,
            vpc,
            subnets,
            certificate: backup.certificate,
            hsms: Vec::new(),
            tags: read_tags(&body["TagList"]),
            last_backup: turn.now,
            kind: kind.to_owned(),
            source_backup: Some(source.to_owned()),
            retention,
            becomes: Some((turn.now.plus_ms(turn.options.cluster_ms), "ACTIVE")),
        });
        Ok(json!({"Cluster": self.clusters.last().map(describe_cluster)}))
    }

    fn delete_cluster(&mut self, body: &Value, ec2: &mut Ec2, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        let cluster = self.cluster_mut(body)?;
        if !cluster.hsms.is_empty() {
            return Err(invalid(format!("Cluster {} still has HSMs", cluster.id)));
        }
        cluster.state = "DELETE_IN_PROGRESS".to_owned();
        cluster.becomes = Some((turn.now.plus_ms(turn.options.cluster_ms), "DELETED"));
        ec2.remove_group(&cluster.group);
        Ok(json!({"Cluster": describe_cluster(cluster)}))
    }

    fn describe_clusters(&self, body: &Value) -> Result<Value, ApiError> {
        let max = bounded(body, 25)?;
        let filters = body["Filters"].as_object();
        for key in filters.into_iter().flat_map(|f| f.keys()) {
            if !matches!(key.as_str(), "clusterIds" | "vpcIds" | "states") {
                return Err(invalid(format!("Unknown filter {key}")));
            }
        }
        let rows: Vec<Value> = self
            .clusters
            .iter()
            .filter(|c| wants(body, "clusterIds", &c.id) && wants(body, "vpcIds", &c.vpc) && wants(body, "states", &c.state))
            .map(describe_cluster)
            .collect();
        let (rows, next) = page(
            &rows,
            &format!("clusters{}", body["Filters"]),
            max,
            body["NextToken"].as_str(),
            "CloudHsmInvalidRequestException",
        )?;
        let mut reply = json!({"Clusters": rows});
        crate::ssm::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    fn describe_backups(&self, body: &Value) -> Result<Value, ApiError> {
        let max = bounded(body, 50)?;
        for key in body["Filters"].as_object().into_iter().flat_map(|f| f.keys()) {
            if !matches!(key.as_str(), "backupIds" | "sourceBackupIds" | "clusterIds" | "states" | "neverExpires") {
                return Err(invalid(format!("Unknown filter {key}")));
            }
        }
        let mut found: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                let source = b.copied_from.as_ref().map_or("", |(_, id, _, _)| id);
                wants(body, "backupIds", &b.id)
                    && wants(body, "sourceBackupIds", source)
                    && wants(body, "clusterIds", &b.cluster)
                    && wants(body, "states", b.state_name())
                    && wants(body, "neverExpires", if b.never_expires { "true" } else { "false" })
            })
            .collect();
        found.sort_by_key(|b| b.created);
        if body["SortAscending"] != true {
            found.reverse();
        }
        let rows: Vec<Value> = found.iter().map(|b| self.describe_backup(b)).collect();
        let scope = format!("backups{}{}", body["Filters"], body["SortAscending"]);
        let (rows, next) = page(&rows, &scope, max, body["NextToken"].as_str(), "CloudHsmInvalidRequestException")?;
        let mut reply = json!({"Backups": rows});
        crate::ssm::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    fn describe_backup(&self, backup: &Backup) -> Value {
        let mut row = json!({
            "BackupId": backup.id,
            "BackupArn": format!("arn:aws:cloudhsm:{}:{}:backup/{}", self.region, self.account, backup.id),
            "BackupState": backup.state_name(),
            "ClusterId": backup.cluster,
            "CreateTimestamp": backup.created.epoch(),
            "NeverExpires": backup.never_expires,
            "TagList": tag_list(&backup.tags),
            "HsmType": backup.kind,
            "Mode": "FIPS",
        });
        if let BackupState::PendingDeletion(since) | BackupState::Failed(since) = backup.state {
            row["DeleteTimestamp"] = since.epoch();
        }
        if let Some((region, id, cluster, at)) = &backup.copied_from {
            row["CopyTimestamp"] = at.epoch();
            row["SourceRegion"] = region.as_str().into();
            row["SourceBackup"] = id.as_str().into();
            row["SourceCluster"] = cluster.as_str().into();
        }
        row
    }

    fn backup_at(&self, body: &Value) -> Result<usize, ApiError> {
        let id = body["BackupId"].as_str().unwrap_or_default();
        self.backups.iter().position(|b| b.id == id).ok_or_else(|| not_found(format!("Backup {id} was not found")))
    }

    fn modify_backup(&mut self, body: &Value) -> Result<Value, ApiError> {
        let at = self.backup_at(body)?;
        let backup = &mut self.backups[at];
        if backup.state != BackupState::Ready {
            return Err(invalid(format!("Backup {} is in state {}", backup.id, backup.state_name())));
        }
        backup.never_expires = body["NeverExpires"].as_bool().unwrap_or(false);
        Ok(json!({"Backup": self.describe_backup(&self.backups[at])}))
    }

    fn delete_backup(&mut self, body: &Value, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        let at = self.backup_at(body)?;
        let backup = &mut self.backups[at];
        if backup.state != BackupState::Ready {
            return Err(invalid(format!("Backup {} is in state {}", backup.id, backup.state_name())));
        }
        backup.state = BackupState::PendingDeletion(turn.now);
        Ok(json!({"Backup": self.describe_backup(&self.backups[at])}))
    }

    fn restore_backup(&mut self, body: &Value) -> Result<Value, ApiError> {
        let at = self.backup_at(body)?;
        let backup = &mut self.backups[at];
        if !matches!(backup.state, BackupState::PendingDeletion(_)) {
            return Err(invalid(format!("Backup {} is in state {}", backup.id, backup.state_name())));
        }
        backup.state = BackupState::Ready;
        Ok(json!({"Backup": self.describe_backup(&self.backups[at])}))
    }

    fn tags_of(&mut self, id: &str) -> Result<&mut Vec<(String, String)>, ApiError> {
        let clusters = self.clusters.iter_mut().filter(|c| c.id == id).map(|c| &mut c.tags);
        let backups = self.backups.iter_mut().filter(|b| b.id == id).map(|b| &mut b.tags);
        clusters.chain(backups).next().ok_or_else(|| not_found(format!("Resource {id} was not found")))
    }

    fn list_tags(&mut self, body: &Value) -> Result<Value, ApiError> {
        let max = bounded(body, 50)?;
        let id = body["ResourceId"].as_str().unwrap_or_default().to_owned();
        let tags = tag_list(self.tags_of(&id)?);
        let (rows, next) = page(&tags, &id, max, body["NextToken"].as_str(), "CloudHsmInvalidRequestException")?;
        let mut reply = json!({"TagList": rows});
        crate::ssm::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    fn tag_resource(&mut self, body: &Value) -> Result<Value, ApiError> {
        let tags = self.tags_of(body["ResourceId"].as_str().unwrap_or_default())?;
        for (key, value) in read_tags(&body["TagList"]) {
            tags.retain(|(old, _)| *old != key);
            tags.push((key, value));
        }
        Ok(json!({}))
    }

    fn untag_resource(&mut self, body: &Value) -> Result<Value, ApiError> {
        let keys = body["TagKeyList"].clone();
        let tags = self.tags_of(body["ResourceId"].as_str().unwrap_or_default())?;
        tags.retain(|(have, _)| !keys.as_array().is_some_and(|keys| keys.iter().any(|key| key == have.as_str())));
        Ok(json!({}))
    }

    fn cluster_mut(&mut self, body: &Value) -> Result<&mut Cluster, ApiError> {
        let id = body["ClusterId"].as_str().unwrap_or_default();
        self.clusters.iter_mut().find(|c| c.id == id).ok_or_else(|| not_found(format!("Cluster {id} was not found")))
    }

    fn create_hsm(&mut self, body: &Value, ec2: &Ec2, turn: &mut Turn<'_>) -> Result<(Value, Option<String>), ApiError> {
        let taken: Vec<String> = self.clusters.iter().flat_map(|c| &c.hsms).map(|h| h.ip.clone()).collect();
        let cluster = self.cluster_mut(body)?;
        if cluster.state != "ACTIVE" {
            return Err(invalid(format!("Cluster {} is in state {}", cluster.id, cluster.state)));
        }
        if cluster.hsms.len() >= HSM_LIMIT {
            return Err(ApiError::new("CloudHsmResourceLimitExceededException", "The cluster has as many HSMs as it may have"));
        }
        let zone = body["AvailabilityZone"].as_str().unwrap_or_default();
        let Some((zone, subnet)) = cluster.subnets.iter().find(|(z, _)| z == zone).cloned() else {
            return Err(invalid(format!("The cluster has no subnet in {zone}")));
        };
        let network = ec2.subnet(&subnet).map_or_else(|| "10.0.9".to_owned(), |(_, _, network)| network);
        // An address of a subnet is one interface's, whichever cluster it is of.
        let free = || (20..=250).map(|n| format!("{network}.{n}")).find(|ip| !taken.contains(ip));
        let ip = body["IpAddress"].as_str().map(str::to_owned).or_else(free);
        let ip = ip.ok_or_else(|| invalid("The subnet has no free address"))?;
        let hsm = Hsm {
            id: format!("hsm-{}", base32(turn.ids, 11)),
            zone,
            eni: format!("eni-{}", turn.ids.hex(17)),
            ip,
            subnet,
            state: HsmState::Creating(turn.now.plus_ms(turn.options.hsm_ms)),
        };
        let reply = json!({"Hsm": describe_hsm(&cluster.id, &hsm)});
        cluster.hsms.push(hsm);
        let id = cluster.id.clone();
        self.backup_now(&id, turn);
        Ok((reply, Some(id)))
    }

    fn delete_hsm(&mut self, body: &Value, turn: &mut Turn<'_>) -> Result<(Value, Option<String>), ApiError> {
        let cluster = self.cluster_mut(body)?;
        let by = |member: &str, value: &str| body[member].as_str().is_some_and(|wanted| wanted == value);
        let hsm = cluster
            .hsms
            .iter_mut()
            .find(|h| by("HsmId", &h.id) || by("EniId", &h.eni) || by("EniIp", &h.ip))
            .ok_or_else(|| not_found("The HSM was not found"))?;
        if !matches!(hsm.state, HsmState::Active | HsmState::Degraded) {
            return Err(invalid("The HSM is neither ACTIVE nor DEGRADED"));
        }
        hsm.state = HsmState::Deleting(turn.now.plus_ms(turn.options.hsm_ms));
        let reply = json!({"HsmId": hsm.id});
        let id = cluster.id.clone();
        self.backup_now(&id, turn);
        Ok((reply, Some(id)))
    }

    /// Adding and removing an HSM each make a backup (A§4.5).
    fn backup_now(&mut self, cluster: &str, turn: &mut Turn<'_>) {
        if let Some(cluster) = self.clusters.iter().find(|c| c.id == cluster) {
            let backup = backup_of(cluster, turn.now, turn.now.plus_ms(turn.options.backup_ms), turn.ids);
            turn.effects.push(taken(&self.region, &backup));
            self.backups.push(backup);
        }
    }
}

impl Cluster {
    /// A cluster without HSMs has nothing to back up.
    fn makes_backups(&self) -> bool {
        self.hsms.iter().any(|hsm| matches!(hsm.state, HsmState::Active))
    }
}

impl Backup {
    fn state_name(&self) -> &'static str {
        match self.state {
            BackupState::CreateInProgress(_) => "CREATE_IN_PROGRESS",
            BackupState::Ready => "READY",
            BackupState::Failed(_) => "DELETED",
            BackupState::PendingDeletion(_) => "PENDING_DELETION",
        }
    }

    /// It is no longer to be seen.
    fn is_over(&self, now: Millis) -> bool {
        match self.state {
            BackupState::PendingDeletion(since) => now.since(since) >= PENDING_DELETION_MS,
            BackupState::Failed(since) => now.since(since) >= DELETED_SHOWN_MS,
            BackupState::CreateInProgress(_) | BackupState::Ready => false,
        }
    }
}

fn taken(region: &Region, backup: &Backup) -> Effect {
    Effect::BackupTaken { region: region.clone(), cluster: backup.cluster.clone(), backup: backup.id.clone() }
}

fn backup_of(cluster: &Cluster, created: Millis, ready: Millis, ids: &mut Ids) -> Backup {
    Backup {
        id: format!("backup-{}", base32(ids, 11)),
        cluster: cluster.id.clone(),
        created,
        state: BackupState::CreateInProgress(ready),
        never_expires: false,
        copied_from: None,
        tags: vec![("Name".to_owned(), "tde".to_owned())],
        certificate: cluster.certificate.clone(),
        kind: cluster.kind.clone(),
        doomed: false,
    }
}

/// The digits of identifiers of this service.
pub fn base32(ids: &mut Ids, len: usize) -> String {
    ids.text(b"abcdefghijklmnopqrstuvwxyz234567", len)
}

fn bounded(body: &Value, high: i64) -> Result<usize, ApiError> {
    match body["MaxResults"].as_i64() {
        None => Ok(high as usize),
        Some(n) if (1..=high).contains(&n) => Ok(n as usize),
        Some(n) => Err(invalid(format!("MaxResults {n} is not between 1 and {high}"))),
    }
}

fn wants(body: &Value, filter: &str, value: &str) -> bool {
    match body["Filters"][filter].as_array() {
        None => true,
        Some(values) => values.iter().any(|wanted| wanted == value),
    }
}

fn read_tags(list: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    list.as_array().into_iter().flatten().map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
}

fn tag_list(tags: &[(String, String)]) -> Vec<Value> {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

fn describe_cluster(cluster: &Cluster) -> Value {
    let mut subnets = json!({});
    for (zone, subnet) in &cluster.subnets {
        subnets[zone] = subnet.as_str().into();
    }
    let mut row = json!({
        "BackupPolicy": "DEFAULT",
        "ClusterId": cluster.id,
        "CreateTimestamp": cluster.created.epoch(),
        "Hsms": cluster.hsms.iter().map(|hsm| describe_hsm(&cluster.id, hsm)).collect::<Vec<_>>(),
        "HsmType": cluster.kind,
        "SecurityGroup": cluster.group,
        "State": cluster.state,
        "SubnetMapping": subnets,
        "VpcId": cluster.vpc,
        "NetworkType": "IPV4",
        "Certificates": {"ClusterCertificate": cluster.certificate},
        "TagList": tag_list(&cluster.tags),
        "Mode": "FIPS",
    });
    let retention = cluster.retention.map(|days| json!({"Type": "DAYS", "Value": days.to_string()}));
    crate::ssm::put(&mut row, "BackupRetentionPolicy", retention);
    crate::ssm::put(&mut row, "SourceBackupId", cluster.source_backup.clone().map(Value::from));
    row
}

fn describe_hsm(cluster: &str, hsm: &Hsm) -> Value {
    let state = match hsm.state {
        HsmState::Creating(_) => "CREATE_IN_PROGRESS",
        HsmState::Active => "ACTIVE",
        HsmState::Degraded => "DEGRADED",
        HsmState::Deleting(_) => "DELETE_IN_PROGRESS",
    };
    json!({
        "AvailabilityZone": hsm.zone,
        "ClusterId": cluster,
        "SubnetId": hsm.subnet,
        "EniId": hsm.eni,
        "EniIp": hsm.ip,
        "HsmId": hsm.id,
        "HsmType": "hsm2m.medium",
        "State": state,
    })
}
