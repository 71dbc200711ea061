//! CloudHSM v2, read only: the cluster before each key change (H23), and its backups (H8).

use aws_config::SdkConfig;
use aws_sdk_cloudhsmv2::Client;
use aws_sdk_cloudhsmv2::types as hsm;
use std::net::IpAddr;
use tde2hsm_campaign::facts::{Cluster, Hsm};
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_protocol::{ClusterId, Timestamp};

#[derive(Debug, Clone)]
pub struct CloudHsm {
    client: Client,
}

const CLUSTERS: Call = Call { service: "cloudhsmv2", operation: "DescribeClusters" };
const BACKUPS: Call = Call { service: "cloudhsmv2", operation: "DescribeBackups" };

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
