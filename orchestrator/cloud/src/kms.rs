//! KMS, as far as a copy or a secret depends on it: whether its key can be used. A key that is disabled or to be deleted makes
//! every copy under it unreadable, and CopySnapshot says nothing of it until much later (`A§3.2`); a secret's value cannot be read
//! either, and DescribeSecret says nothing of that.

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::KeyState;
use std::sync::OnceLock;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_dr::facts::{KmsKey, KmsState};
use tde2hsm_protocol::{Code, KmsKeyArn};

#[derive(Debug, Clone)]
pub struct Kms {
    client: Client,
    /// What [`SECRETS`] means here: an alias of AWS's own never comes to mean another key.
    secrets: OnceLock<KmsKeyArn>,
}

/// The key of secrets for which nobody named one.
pub const SECRETS: &str = "alias/aws/secretsmanager";

const DESCRIBE: Call = Call { service: "kms", operation: "DescribeKey" };

impl Kms {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> Kms {
        let config = aws_sdk_kms::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Kms { client: Client::from_conf(config), secrets: OnceLock::new() }
    }

    /// The key behind what a secret names: an ARN, an id or an alias. `None`: it is not there, or may not be asked about.
    pub async fn named(&self, name: &str) -> Result<Option<KmsKeyArn>, CloudError> {
        if let Ok(arn) = KmsKeyArn::new(name) {
            return Ok(Some(arn));
        }
        if let Some(known) = self.secrets.get().filter(|_| name == SECRETS) {
            return Ok(Some(known.clone()));
        }
        let found = match self.client.describe_key().key_id(name).send().await.map_err(|e| sort(DESCRIBE, e)) {
            Ok(found) => found,
            Err(e) if e.code == Code::AWS_NOT_FOUND || e.code == Code::AWS_DENIED => return Ok(None),
            Err(e) => return Err(e),
        };
        let arn = found.key_metadata().and_then(|key| KmsKeyArn::new(key.arn()?).ok());
        if name == SECRETS
            && let Some(arn) = &arn
        {
            self.secrets.get_or_init(|| arn.clone());
        }
        Ok(arn)
    }

    /// A key that is not there, or that may not be asked about, is a state and no error.
    pub async fn key(&self, arn: &KmsKeyArn) -> Result<KmsKey, CloudError> {
        let state = match self.client.describe_key().key_id(arn.as_str()).send().await.map_err(|e| sort(DESCRIBE, e)) {
            Ok(found) => state(found.key_metadata().and_then(|key| key.key_state())),
            Err(e) if e.code == Code::AWS_NOT_FOUND => KmsState::NotFound,
            Err(e) if e.code == Code::AWS_DENIED => KmsState::Unknown,
            Err(e) => return Err(e),
        };
        Ok(KmsKey { arn: arn.clone(), state })
    }
}

fn state(found: Option<&KeyState>) -> KmsState {
    match found {
        Some(KeyState::Enabled) => KmsState::Enabled,
        Some(KeyState::Disabled) => KmsState::Disabled,
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => KmsState::PendingDeletion,
        _ => KmsState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_is_enabled() {
        let states = ["Enabled", "Disabled", "PendingDeletion", "PendingReplicaDeletion", "PendingImport", "a word of next year"];
        let seen: Vec<KmsState> = states.map(|word| state(Some(&KeyState::from(word)))).to_vec();
        use KmsState::*;
        assert_eq!(seen, [Enabled, Disabled, PendingDeletion, PendingDeletion, Unknown, Unknown]);
        assert_eq!(state(None), Unknown);
    }
}
