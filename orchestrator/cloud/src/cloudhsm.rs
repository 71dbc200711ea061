//! CloudHSM v2: the cluster before each key change (H23), its backups and their copies (H8, H45), and HSMs and clusters that
//! a forced backup or a drill makes and removes.
//!
//! No call of this service has a client token (`A§4.1`): each that makes something goes out once, and what became of it is
//! looked for. CopyBackupToRegion is called in the *source* region and names no destination id (`A§4.4`).

use aws_config::SdkConfig;
use aws_sdk_cloudhsmv2::Client;
use aws_sdk_cloudhsmv2::config::retry::RetryConfig;
use aws_sdk_cloudhsmv2::types as hsm;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tde2hsm_campaign::facts::{Cluster, Hsm};
use tde2hsm_cloud_call::{Call, CloudError, Effect, Ledger, sort, timeouts};
use tde2hsm_dr::facts::{BackupState, HsmBackup};
use tde2hsm_protocol::{BackupId, ClusterId, Code, Region, SubnetId, Timestamp};

#[derive(Debug, Clone)]
pub struct CloudHsm {
    client: Client,
}

const fn call(operation: &'static str) -> Call {
    Call { service: "cloudhsmv2", operation }
}

const CLUSTERS: Call = call("DescribeClusters");
const BACKUPS: Call = call("DescribeBackups");
/// What AWS says of a cluster, an HSM or a backup that is not there.
const GONE: [&str; 1] = ["CloudHsmResourceNotFoundException"];
/// Ids of one filter.
const IDS_A_CALL: usize = 50;

fn once() -> aws_sdk_cloudhsmv2::config::Builder {
    aws_sdk_cloudhsmv2::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// A backup of a cluster (`A§4.3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub id: String,
    /// As AWS spells it: `READY`, `CREATE_IN_PROGRESS`, …
    pub state: String,
    pub created_at: Option<Timestamp>,
}

impl CloudHsm {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> CloudHsm {
        let config =
            aws_sdk_cloudhsmv2::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        CloudHsm { client: Client::from_conf(config) }
    }

    /// `None`: there is no such cluster.
    pub async fn cluster(&self, id: &ClusterId) -> Result<Option<Cluster>, CloudError> {
        let mut pages = self.client.describe_clusters().filters("clusterIds", vec![id.to_string()]).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(e) => {
                    let error = sort(CLUSTERS, e);
                    return if error.is(&["CloudHsmResourceNotFoundException"]) { Ok(None) } else { Err(error) };
                }
            };
            if let Some(found) = page.clusters().iter().find(|c| c.cluster_id() == Some(id.as_str())) {
                return Ok(Some(cluster(id, found)));
            }
        }
        Ok(None)
    }

    pub async fn backups(&self, id: &ClusterId) -> Result<Vec<Backup>, CloudError> {
        let mut found = Vec::new();
        let mut pages = self.client.describe_backups().filters("clusterIds", vec![id.to_string()]).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(BACKUPS, e))?;
            found.extend(page.backups().iter().map(|backup| Backup {
                id: backup.backup_id().to_owned(),
                state: backup.backup_state().map(|s| s.as_str().to_owned()).unwrap_or_default(),
                created_at: backup.create_timestamp().map(|at| Timestamp(at.secs())),
            }));
        }
        Ok(found)
    }

    /// Backups of a cluster in this client's region, copies included, every state.
    pub async fn backups_of(&self, region: &Region, cluster: &ClusterId) -> Result<Vec<HsmBackup>, CloudError> {
        self.backups_by(region, "clusterIds", vec![cluster.to_string()]).await
    }

    /// Copies in this client's region of these backups: the only way to find what CopyBackupToRegion made (`A§4.4`).
    pub async fn copies_of(&self, region: &Region, sources: &[BackupId]) -> Result<Vec<HsmBackup>, CloudError> {
        let mut found = Vec::new();
        for sources in sources.chunks(IDS_A_CALL) {
            let ids = sources.iter().map(ToString::to_string).collect();
            found.extend(self.backups_by(region, "sourceBackupIds", ids).await?);
        }
        Ok(found)
    }

    async fn backups_by(&self, region: &Region, filter: &str, values: Vec<String>) -> Result<Vec<HsmBackup>, CloudError> {
        let mut found = Vec::new();
        let mut pages = self.client.describe_backups().filters(filter, values).into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => found.extend(page.backups().iter().filter_map(|backup| one_backup(region, backup))),
                Err(e) => {
                    let error = sort(BACKUPS, e);
                    // A copied backup's cluster does not exist in its region; a filter that says so means: none.
                    return if error.is(&GONE) { Ok(found) } else { Err(error) };
                }
            }
        }
        Ok(found)
    }

    /// Sends once, in the source region.
    pub async fn copy_backup(&self, id: &BackupId, to: &Region, tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
        const CALL: Call = call("CopyBackupToRegion");
        self.client
            .copy_backup_to_region()
            .backup_id(id.as_str())
            .destination_region(to.as_str())
            .set_tag_list(Some(tag_list(CALL, tags)?))
            .customize()
            .config_override(once())
            .send()
            .await
            .map(drop)
            .map_err(|e| sort(CALL, e))
    }

    /// Keeps a backup from the cluster's own purge, or gives it back to it (H45).
    pub async fn keep_backup(&self, id: &BackupId, never_expires: bool) -> Result<(), CloudError> {
        let modify = self.client.modify_backup_attributes().backup_id(id.as_str()).never_expires(never_expires);
        modify.send().await.map(drop).map_err(|e| sort(call("ModifyBackupAttributes"), e))
    }

    /// Sends once. A backup that is gone is what was wanted. For seven days it can be restored (`A§4.5`).
    pub async fn delete_backup(&self, id: &BackupId) -> Result<(), CloudError> {
        let deleted = self.client.delete_backup().backup_id(id.as_str()).customize().config_override(once()).send().await;
        match deleted.map_err(|e| sort(call("DeleteBackup"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&GONE) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Adds an HSM, sent once. Where the answer is lost, the cluster's HSMs before and after say what it made.
    pub async fn create_hsm(&self, cluster: &ClusterId, az: &str) -> Result<Hsm, CloudError> {
        const CALL: Call = call("CreateHsm");
        let create = self.client.create_hsm().cluster_id(cluster.as_str()).availability_zone(az);
        let answer = create.customize().config_override(once()).send().await.map_err(|e| sort(CALL, e))?;
        answer.hsm().map(one_hsm).ok_or_else(|| lost(CALL, "the answer names no HSM"))
    }

    /// Removes one HSM, sent once. Only for an HSM whose id our own CreateHsm answered (H8), or of a drill's cluster. One that
    /// is gone is what was wanted.
    pub async fn delete_hsm(&self, cluster: &ClusterId, hsm_id: &str) -> Result<(), CloudError> {
        let delete = self.client.delete_hsm().cluster_id(cluster.as_str()).hsm_id(hsm_id);
        match delete.customize().config_override(once()).send().await.map_err(|e| sort(call("DeleteHsm"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&GONE) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A cluster made from a backup that lies in this client's region, sent once. It needs neither initialisation nor
    /// activation (`A§4.6`). Where the answer is lost it is looked for by its tags.
    pub async fn restore_cluster(&self, restore: &Restore<'_>) -> Result<ClusterId, CloudError> {
        const CALL: Call = call("CreateCluster");
        let answer = self
            .client
            .create_cluster()
            .hsm_type(restore.hsm_type)
            .set_mode(restore.mode.map(hsm::ClusterMode::from))
            .set_subnet_ids(Some(restore.subnets.iter().map(ToString::to_string).collect()))
            .source_backup_id(restore.backup.as_str())
            .set_tag_list(Some(tag_list(CALL, restore.tags)?))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|e| sort(CALL, e))?;
        let id = answer.cluster().and_then(|cluster| cluster.cluster_id()).unwrap_or_default();
        ClusterId::new(id).map_err(|why| lost(CALL, &why.to_string()))
    }

    /// HSM type and mode of a backup of this client's region, which a cluster made from it must have. `None`: there is no such
    /// backup.
    pub async fn backup_kind(&self, id: &BackupId) -> Result<Option<(String, Option<String>)>, CloudError> {
        let answer = self.client.describe_backups().filters("backupIds", vec![id.to_string()]).send().await;
        let answer = match answer.map_err(|e| sort(BACKUPS, e)) {
            Ok(answer) => answer,
            Err(e) if e.is(&GONE) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(answer
            .backups()
            .iter()
            .find(|backup| backup.backup_id() == id.as_str())
            .and_then(|backup| Some((backup.hsm_type()?.to_owned(), backup.mode().map(|mode| mode.as_str().to_owned())))))
    }

    /// Clusters of this client's region that carry a tag, deleted ones left out.
    pub async fn clusters_tagged(&self, key: &str, value: &str) -> Result<Vec<Cluster>, CloudError> {
        let mut found = Vec::new();
        let mut pages = self.client.describe_clusters().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(CLUSTERS, e))?;
            found.extend(page.clusters().iter().filter_map(|one| {
                let id = ClusterId::new(one.cluster_id()?).ok()?;
                let tagged = one.tag_list().iter().any(|tag| tag.key() == key && tag.value() == value);
                let there = one.state() != Some(&hsm::ClusterState::Deleted);
                (tagged && there).then(|| cluster(&id, one))
            }));
        }
        Ok(found)
    }

    /// Removes a cluster without HSMs, sent once. One that is gone is what was wanted.
    pub async fn delete_cluster(&self, cluster: &ClusterId) -> Result<(), CloudError> {
        let delete = self.client.delete_cluster().cluster_id(cluster.as_str());
        match delete.customize().config_override(once()).send().await.map_err(|e| sort(call("DeleteCluster"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&GONE) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// A cluster to be made from a backup.
#[derive(Debug, Clone, Copy)]
pub struct Restore<'a> {
    pub backup: &'a BackupId,
    /// `hsm1.medium` or `hsm2m.medium`.
    pub hsm_type: &'a str,
    /// `FIPS` or `NON_FIPS`: as the backup's cluster had it, since a restore cannot change it.
    pub mode: Option<&'a str>,
    /// One a zone, all of one VPC.
    pub subnets: &'a BTreeSet<SubnetId>,
    pub tags: &'a BTreeMap<String, String>,
}

fn lost(call: Call, why: &str) -> CloudError {
    CloudError { effect: Effect::Ambiguous, ..CloudError::found(call, Code::AWS_INVALID, why) }
}

fn tag_list(call: Call, tags: &BTreeMap<String, String>) -> Result<Vec<hsm::Tag>, CloudError> {
    let tag = |(key, value)| hsm::Tag::builder().key(key).value(value).build();
    let tags: Result<Vec<_>, _> = tags.iter().map(tag).collect();
    tags.map_err(|e| CloudError { effect: Effect::NotSent, ..CloudError::found(call, Code::AWS_INVALID, e.to_string()) })
}

fn one_backup(region: &Region, found: &hsm::Backup) -> Option<HsmBackup> {
    let at = |time: Option<&aws_sdk_cloudhsmv2::primitives::DateTime>| time.map(|at| Timestamp(at.secs()));
    Some(HsmBackup {
        id: BackupId::new(found.backup_id()).ok()?,
        region: region.clone(),
        cluster: found.cluster_id().or_else(|| found.source_cluster()).and_then(|id| ClusterId::new(id).ok()),
        state: match found.backup_state() {
            Some(hsm::BackupState::CreateInProgress) => BackupState::CreateInProgress,
            Some(hsm::BackupState::Ready) => BackupState::Ready,
            Some(hsm::BackupState::Deleted) => BackupState::Deleted,
            Some(hsm::BackupState::PendingDeletion) => BackupState::PendingDeletion,
            _ => BackupState::Unknown,
        },
        created: at(found.create_timestamp()),
        copied: at(found.copy_timestamp()),
        source_backup: found.source_backup().and_then(|id| BackupId::new(id).ok()),
        source_region: found.source_region().and_then(|region| Region::new(region).ok()),
        never_expires: found.never_expires(),
        deleted: at(found.delete_timestamp()),
        tags: found.tag_list().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect(),
    })
}

fn cluster(id: &ClusterId, found: &hsm::Cluster) -> Cluster {
    Cluster {
        cluster: id.clone(),
        state: found.state().map(|s| s.as_str().to_owned()).unwrap_or_default(),
        hsm_type: found.hsm_type().unwrap_or_default().to_owned(),
        mode: found.mode().map(|m| m.as_str().to_owned()),
        rollback_expiration: found.hsm_type_rollback_expiration().map(|at| Timestamp(at.secs())),
        vpc: found.vpc_id().map(str::to_owned),
        security_group: found.security_group().map(str::to_owned),
        hsms: found.hsms().iter().map(one_hsm).collect(),
    }
}

fn one_hsm(found: &hsm::Hsm) -> Hsm {
    Hsm {
        id: found.hsm_id().to_owned(),
        state: found.state().map(|s| s.as_str().to_owned()).unwrap_or_default(),
        az: found.availability_zone().map(str::to_owned),
        ip: found.eni_ip().and_then(|ip| ip.parse::<IpAddr>().ok()),
    }
}
