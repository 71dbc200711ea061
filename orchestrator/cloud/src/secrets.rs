//! Secrets Manager, without values: which versions there are, and which is current (H13).

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use tde2hsm_campaign::facts::Secret;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_protocol::{Region, SecretArn, SecretVersion};

#[derive(Debug, Clone)]
pub struct Secrets {
    client: Client,
}

const DESCRIBE: Call = Call { service: "secretsmanager", operation: "DescribeSecret" };
const CURRENT: &str = "AWSCURRENT";

impl Secrets {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> Secrets {
        let config =
            aws_sdk_secretsmanager::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Secrets { client: Client::from_conf(config) }
    }

    /// `None`: there is no such secret.
    pub async fn describe(&self, arn: &SecretArn) -> Result<Option<Secret>, CloudError> {
        let found = match self.client.describe_secret().secret_id(arn.as_str()).send().await {
            Ok(found) => found,
            Err(e) => {
                let error = sort(DESCRIBE, e);
                return if error.is(&["ResourceNotFoundException"]) { Ok(None) } else { Err(error) };
            }
        };
        let mut current = None;
        let mut versions = Vec::new();
        for (id, stages) in found.version_ids_to_stages().into_iter().flatten() {
            let Ok(version) = SecretVersion::new(id.clone()) else { continue };
            if stages.iter().any(|stage| stage == CURRENT) {
                current = Some(version.clone());
            }
            versions.push(version);
        }
        versions.sort();
        let replicas = found.replication_status().iter().filter_map(|r| Region::new(r.region()?).ok());
        Ok(Some(Secret {
            arn: arn.clone(),
            current,
            versions,
            replicas: replicas.collect(),
            deleted: found.deleted_date().is_some(),
        }))
    }
}
