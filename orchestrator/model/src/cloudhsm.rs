//! CloudHSM v2 of one region: clusters, HSMs, backups and their states (A§4.2–4.5).

use crate::page::page;
use crate::world::{WorldOptions, unknown};
use crate::{AccountId, ApiError, Ids, Millis, Region, Service};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;
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
}

#[derive(Debug, Clone)]
pub(crate) struct Backup {
    id: String,
    cluster: String,
    created: Millis,
    ready: Millis,
    never_expires: bool,
    copied_from: Option<(Region, String, String, Millis)>,
    tags: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct CloudHsm {
    account: AccountId,
    region: Region,
    clusters: Vec<Cluster>,
    backups: Vec<Backup>,
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
        Self { account: account.clone(), region: region.clone(), clusters: Vec::new(), backups: Vec::new() }
    }

    /// An active cluster with one HSM in each zone, and the backup its activation made.
    pub fn add_cluster(&mut self, spec: ClusterSpec, ids: &mut Ids) {
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
        };
        self.backups.push(backup_of(&cluster.id, spec.created, spec.created, ids));
        self.clusters.push(cluster);
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

    pub(crate) fn backup(&self, id: &str, now: Millis) -> Option<Backup> {
        self.backups.iter().find(|b| b.id == id && b.ready <= now).cloned()
    }

    /// The backups of a cluster, as they lie here, with the moment each was made.
    pub fn backups_of(&self, cluster: &str) -> Vec<(String, Millis)> {
        self.backups.iter().filter(|b| b.cluster == cluster).map(|b| (b.id.clone(), b.created)).collect()
    }

    pub(crate) fn adopt_copy(
        &mut self,
        from: &Region,
        source: &Backup,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
    ) -> Result<Value, ApiError> {
        let tags = if body["TagList"].is_array() { read_tags(&body["TagList"]) } else { source.tags.clone() };
        self.backups.push(Backup {
            id: format!("backup-{}", base32(ids, 11)),
            ready: now.plus_ms(options.backup_ms),
            copied_from: Some((from.clone(), source.id.clone(), source.cluster.clone(), now)),
            tags,
            ..source.clone()
        });
        Ok(json!({"DestinationBackup": {
            "CreateTimestamp": source.created.epoch(),
            "SourceRegion": from.as_str(),
            "SourceBackup": source.id,
            "SourceCluster": source.cluster,
        }}))
    }

    /// Whether an HSM is on its way in or out.
    pub(crate) fn is_busy(&self) -> bool {
        let mut hsms = self.clusters.iter().flat_map(|c| &c.hsms);
        hsms.any(|h| matches!(h.state, HsmState::Creating(_) | HsmState::Deleting(_)))
    }

    /// Returns the clusters whose HSMs are others than before.
    pub(crate) fn tick(&mut self, now: Millis, ids: &mut Ids, options: &WorldOptions) -> Vec<String> {
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
            // At least one backup every 24 hours.
            while now.since(cluster.last_backup) >= DAY_MS {
                cluster.last_backup = cluster.last_backup.plus_ms(DAY_MS);
                self.backups.push(backup_of(
                    &cluster.id,
                    cluster.last_backup,
                    cluster.last_backup.plus_ms(options.backup_ms),
                    ids,
                ));
            }
        }
        changed
    }

    /// The reply, and the cluster whose HSMs changed.
    pub(crate) fn call(
        &mut self,
        operation: &str,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
    ) -> Result<(Value, Option<String>), ApiError> {
        match operation {
            "DescribeClusters" => self.describe_clusters(body).map(|v| (v, None)),
            "DescribeBackups" => self.describe_backups(body, now).map(|v| (v, None)),
            "ListTags" => self.list_tags(body).map(|v| (v, None)),
            "TagResource" => self.tag_resource(body).map(|v| (v, None)),
            "ModifyBackupAttributes" => self.modify_backup(body, now).map(|v| (v, None)),
            "CreateHsm" => self.create_hsm(body, now, ids, options),
            "DeleteHsm" => self.delete_hsm(body, now, ids, options),
            other => Err(unknown(Service::CloudHsm, other)),
        }
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

    fn describe_backups(&self, body: &Value, now: Millis) -> Result<Value, ApiError> {
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
                    && wants(body, "states", b.state(now))
                    && wants(body, "neverExpires", if b.never_expires { "true" } else { "false" })
            })
            .collect();
        found.sort_by_key(|b| b.created);
        if body["SortAscending"] != true {
            found.reverse();
        }
        let rows: Vec<Value> = found.iter().map(|b| self.describe_backup(b, now)).collect();
        let scope = format!("backups{}{}", body["Filters"], body["SortAscending"]);
        let (rows, next) = page(&rows, &scope, max, body["NextToken"].as_str(), "CloudHsmInvalidRequestException")?;
        let mut reply = json!({"Backups": rows});
        crate::ssm::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    fn describe_backup(&self, backup: &Backup, now: Millis) -> Value {
        let mut row = json!({
            "BackupId": backup.id,
            "BackupArn": format!("arn:aws:cloudhsm:{}:{}:backup/{}", self.region, self.account, backup.id),
            "BackupState": backup.state(now),
            "ClusterId": backup.cluster,
            "CreateTimestamp": backup.created.epoch(),
            "NeverExpires": backup.never_expires,
            "TagList": tag_list(&backup.tags),
            "HsmType": "hsm2m.medium",
            "Mode": "FIPS",
        });
        if let Some((region, id, cluster, at)) = &backup.copied_from {
            row["CopyTimestamp"] = at.epoch();
            row["SourceRegion"] = region.as_str().into();
            row["SourceBackup"] = id.as_str().into();
            row["SourceCluster"] = cluster.as_str().into();
        }
        row
    }

    fn modify_backup(&mut self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let id = body["BackupId"].as_str().unwrap_or_default();
        let Some(at) = self.backups.iter().position(|b| b.id == id) else {
            return Err(not_found(format!("Backup {id} was not found")));
        };
        self.backups[at].never_expires = body["NeverExpires"].as_bool().unwrap_or(false);
        Ok(json!({"Backup": self.describe_backup(&self.backups[at], now)}))
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

    fn cluster_mut(&mut self, body: &Value) -> Result<&mut Cluster, ApiError> {
        let id = body["ClusterId"].as_str().unwrap_or_default();
        self.clusters.iter_mut().find(|c| c.id == id).ok_or_else(|| not_found(format!("Cluster {id} was not found")))
    }

    fn create_hsm(
        &mut self,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
    ) -> Result<(Value, Option<String>), ApiError> {
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
        let hsm = Hsm {
            id: format!("hsm-{}", base32(ids, 11)),
            zone,
            subnet,
            eni: format!("eni-{}", ids.hex(17)),
            ip: body["IpAddress"].as_str().map_or_else(|| format!("10.0.9.{}", cluster.hsms.len() + 20), str::to_owned),
            state: HsmState::Creating(now.plus_ms(options.hsm_ms)),
        };
        let reply = json!({"Hsm": describe_hsm(&cluster.id, &hsm)});
        cluster.hsms.push(hsm);
        let id = cluster.id.clone();
        self.backup_now(&id, now, ids, options);
        Ok((reply, Some(id)))
    }

    fn delete_hsm(
        &mut self,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
    ) -> Result<(Value, Option<String>), ApiError> {
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
        hsm.state = HsmState::Deleting(now.plus_ms(options.hsm_ms));
        let reply = json!({"HsmId": hsm.id});
        let id = cluster.id.clone();
        self.backup_now(&id, now, ids, options);
        Ok((reply, Some(id)))
    }

    /// Adding and removing an HSM each make a backup (A§4.5).
    fn backup_now(&mut self, cluster: &str, now: Millis, ids: &mut Ids, options: &WorldOptions) {
        self.backups.push(backup_of(cluster, now, now.plus_ms(options.backup_ms), ids));
    }
}

impl Backup {
    fn state(&self, now: Millis) -> &'static str {
        if self.ready <= now { "READY" } else { "CREATE_IN_PROGRESS" }
    }
}

fn backup_of(cluster: &str, created: Millis, ready: Millis, ids: &mut Ids) -> Backup {
    Backup {
        id: format!("backup-{}", base32(ids, 11)),
        cluster: cluster.to_owned(),
        created,
        ready,
        never_expires: false,
        copied_from: None,
        tags: vec![("Name".to_owned(), "tde".to_owned())],
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
    json!({
        "BackupPolicy": "DEFAULT",
        "BackupRetentionPolicy": {"Type": "DAYS", "Value": "90"},
        "ClusterId": cluster.id,
        "CreateTimestamp": cluster.created.epoch(),
        "Hsms": cluster.hsms.iter().map(|hsm| describe_hsm(&cluster.id, hsm)).collect::<Vec<_>>(),
        "HsmType": "hsm2m.medium",
        "SecurityGroup": cluster.group,
        "State": cluster.state,
        "SubnetMapping": subnets,
        "VpcId": cluster.vpc,
        "NetworkType": "IPV4",
        "Certificates": {"ClusterCertificate": cluster.certificate},
        "TagList": tag_list(&cluster.tags),
        "Mode": "FIPS",
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (CloudHsm, Ids, WorldOptions) {
        let mut ids = Ids::new(1);
        let mut hsm = CloudHsm::new(&AccountId::new("123456789012"), &Region::new("us-east-1"));
        hsm.add_cluster(
            ClusterSpec {
                id: "cluster-abcdefghijk".into(),
                created: Millis(0),
                group: "sg-1".into(),
                vpc: "vpc-1".into(),
                subnets: vec![("us-east-1a".into(), "subnet-1".into()), ("us-east-1b".into(), "subnet-2".into())],
                certificate: "PEM".into(),
                addresses: vec!["10.0.9.10".into(), "10.0.9.11".into()],
            },
            &mut ids,
        );
        (hsm, ids, WorldOptions::default())
    }

    #[test]
    fn adding_an_hsm_takes_time_and_makes_a_backup_a4_5() {
        let (mut hsm, mut ids, options) = world();
        let body = json!({"ClusterId": "cluster-abcdefghijk", "AvailabilityZone": "us-east-1a"});
        let (reply, changed) = hsm.call("CreateHsm", &body, Millis(1000), &mut ids, &options).unwrap();
        assert_eq!(reply["Hsm"]["State"], "CREATE_IN_PROGRESS");
        assert!(changed.is_some());
        let backups = hsm.describe_backups(&json!({}), Millis(1000)).unwrap();
        assert_eq!(backups["Backups"][0]["BackupState"], "CREATE_IN_PROGRESS");
        assert_eq!(hsm.active_hsms("cluster-abcdefghijk").len(), 2);
        let later = Millis(1000).plus_ms(options.hsm_ms);
        assert_eq!(hsm.tick(later, &mut ids, &options).len(), 1);
        assert_eq!(hsm.active_hsms("cluster-abcdefghijk").len(), 3);
        assert_eq!(hsm.describe_backups(&json!({}), later).unwrap()["Backups"][0]["BackupState"], "READY");
    }

    #[test]
    fn a_backup_is_made_each_day() {
        let (mut hsm, mut ids, options) = world();
        hsm.tick(Millis(3 * DAY_MS), &mut ids, &options);
        assert_eq!(hsm.backups_of("cluster-abcdefghijk").len(), 4);
    }

    #[test]
    fn a_cluster_that_changes_its_type_takes_no_hsm() {
        let (mut hsm, mut ids, options) = world();
        hsm.set_state("cluster-abcdefghijk", "MODIFY_IN_PROGRESS");
        let body = json!({"ClusterId": "cluster-abcdefghijk", "AvailabilityZone": "us-east-1a"});
        assert_eq!(
            hsm.call("CreateHsm", &body, Millis(0), &mut ids, &options).unwrap_err().code,
            "CloudHsmInvalidRequestException"
        );
    }
}
