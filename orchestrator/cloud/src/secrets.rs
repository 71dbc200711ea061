//! Secrets Manager, without values: which versions there are, and which is current (H13); a stage of our own on the version
//! that an HSM backup was made under, so that it stays (H42).

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use std::collections::BTreeMap;
use tde2hsm_campaign::facts::Secret;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_dr::facts;
use tde2hsm_protocol::{Region, SecretArn, SecretVersion, Timestamp};

#[derive(Debug, Clone)]
pub struct Secrets {
    client: Client,
}

const DESCRIBE: Call = Call { service: "secretsmanager", operation: "DescribeSecret" };
const VERSIONS: Call = Call { service: "secretsmanager", operation: "ListSecretVersionIds" };
const STAGE: Call = Call { service: "secretsmanager", operation: "UpdateSecretVersionStage" };
const GONE: [&str; 1] = ["ResourceNotFoundException"];
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

    /// The secret as this client's region has it, with every version that is still there and the day each was made. `None`:
    /// there is no such secret. Beside it what its key is called, where one was named.
    pub async fn in_region(
        &self,
        region: &Region,
        arn: &SecretArn,
    ) -> Result<Option<(facts::Secret, Option<String>)>, CloudError> {
        let Ok(arn) = in_region(arn, region) else { return Ok(None) };
        let found = match self.client.describe_secret().secret_id(arn.as_str()).send().await.map_err(|e| sort(DESCRIBE, e)) {
            Ok(found) => found,
            Err(e) if e.is(&GONE) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut versions: BTreeMap<SecretVersion, facts::SecretVersionFact> = BTreeMap::new();
        let list = self.client.list_secret_version_ids().secret_id(arn.as_str()).include_deprecated(true);
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(VERSIONS, e))?;
            for entry in page.versions() {
                let Some(version) = entry.version_id().and_then(|id| SecretVersion::new(id).ok()) else { continue };
                let stages = entry.version_stages().iter().cloned().collect();
                let created = entry.created_date().map(|at| Timestamp(at.secs()));
                versions.insert(version.clone(), facts::SecretVersionFact { version, stages, created });
            }
        }
        let replicas = found.replication_status().iter().filter_map(|r| Region::new(r.region()?).ok());
        let secret = facts::Secret {
            region: region.clone(),
            versions: versions.into_values().collect(),
            replicas: replicas.collect(),
            deleted: found.deleted_date().is_some(),
            arn,
            kms_key: None,
        };
        Ok(Some((secret, found.kms_key_id().map(str::to_owned))))
    }

    /// Takes a stage from one version and gives it to another. Asked twice, the second changes nothing.
    pub async fn stage(
        &self,
        arn: &SecretArn,
        stage: &str,
        from: Option<&SecretVersion>,
        to: Option<&SecretVersion>,
    ) -> Result<(), CloudError> {
        self.client
            .update_secret_version_stage()
            .secret_id(arn.as_str())
            .version_stage(stage)
            .set_remove_from_version_id(from.map(ToString::to_string))
            .set_move_to_version_id(to.map(ToString::to_string))
            .send()
            .await
            .map(drop)
            .map_err(|e| sort(STAGE, e))
    }
}

/// A replica has its source's ARN but for the region.
fn in_region(arn: &SecretArn, region: &Region) -> Result<SecretArn, tde2hsm_protocol::IdError> {
    let mut parts: Vec<&str> = arn.as_str().splitn(7, ':').collect();
    if let Some(part) = parts.get_mut(3) {
        *part = region.as_str();
    }
    SecretArn::new(parts.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_the_arn_of_its_source_but_for_the_region() {
        let arn = SecretArn::new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/x-AbCdEf").unwrap();
        let replica = in_region(&arn, &Region::new("eu-west-1").unwrap()).unwrap();
        assert_eq!(replica.as_str(), "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tde/x-AbCdEf");
    }
}
