//! KMS of one region, as far as DescribeKey shows it. Whoever uses a key asks [`Kms::usable`], late, as EBS does (A§3.2).

use crate::world::unknown;
use crate::{AccountId, ApiError, Ids, Millis, Region, Service};
use serde_json::{Value, json};

/// The key that volumes of a new world are encrypted with.
const DEFAULT_KEY: &str = "00000000-0000-4000-8000-000000000000";
/// The key of secrets for which nobody named one.
const SECRETS_KEY: &str = "00000000-0000-4000-8000-000000000001";
pub(crate) const SECRETS_ALIAS: &str = "alias/aws/secretsmanager";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion,
}

impl KeyState {
    const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
        }
    }
}

#[derive(Debug, Clone)]
struct Key {
    id: String,
    alias: String,
    created: Millis,
    state: KeyState,
}

#[derive(Debug)]
pub struct Kms {
    account: AccountId,
    region: Region,
    keys: Vec<Key>,
}

fn key_arn(account: &AccountId, region: &Region, id: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{id}")
}

/// What EBS encrypts with where nobody names a key.
pub(crate) fn default_key(account: &AccountId, region: &Region) -> String {
    key_arn(account, region, DEFAULT_KEY)
}

impl Kms {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        let aws = [(DEFAULT_KEY, "alias/aws/ebs"), (SECRETS_KEY, SECRETS_ALIAS)];
        let aws = aws.map(|(id, alias)| Key {
            id: id.to_owned(),
            alias: alias.to_owned(),
            created: Millis(0),
            state: KeyState::Enabled,
        });
        Self { account: account.clone(), region: region.clone(), keys: aws.to_vec() }
    }

    /// Makes a key and returns its ARN. `alias` begins with `alias/`.
    pub fn add_key(&mut self, alias: &str, now: Millis, ids: &mut Ids) -> String {
        let key = Key { id: ids.uuid(), alias: alias.to_owned(), created: now, state: KeyState::Enabled };
        let arn = key_arn(&self.account, &self.region, &key.id);
        self.keys.push(key);
        arn
    }

    /// False where there is no such key.
    pub fn set_state(&mut self, id: &str, state: KeyState) -> bool {
        let Some(at) = self.position(id) else { return false };
        self.keys[at].state = state;
        true
    }

    /// By id, ARN, alias or ARN of an alias.
    fn position(&self, id: &str) -> Option<usize> {
        let prefix = format!("arn:aws:kms:{}:{}:", self.region, self.account);
        let local = id.strip_prefix(&prefix).unwrap_or(id);
        let local = local.strip_prefix("key/").unwrap_or(local);
        self.keys.iter().position(|key| key.id == local || key.alias == local)
    }

    /// The ARN behind what a caller wrote; `None` where this region has no such key.
    pub fn resolve(&self, id: &str) -> Option<String> {
        self.position(id).map(|at| key_arn(&self.account, &self.region, &self.keys[at].id))
    }

    /// It is there and Enabled.
    pub fn usable(&self, id: &str) -> bool {
        self.position(id).is_some_and(|at| self.keys[at].state == KeyState::Enabled)
    }

    pub(crate) fn call(&self, operation: &str, body: &Value) -> Result<Value, ApiError> {
        match operation {
            "DescribeKey" => self.describe_key(body["KeyId"].as_str().unwrap_or_default()),
            other => Err(unknown(Service::Kms, other)),
        }
    }

    fn describe_key(&self, id: &str) -> Result<Value, ApiError> {
        let at = self.position(id).ok_or_else(|| {
            let arn = if id.starts_with("arn:") { id.to_owned() } else { key_arn(&self.account, &self.region, id) };
            ApiError::new("NotFoundException", format!("Key '{arn}' does not exist"))
        })?;
        let key = &self.keys[at];
        let mut row = json!({
            "AWSAccountId": self.account.as_str(),
            "KeyId": key.id,
            "Arn": key_arn(&self.account, &self.region, &key.id),
            "CreationDate": key.created.epoch(),
            "Enabled": key.state == KeyState::Enabled,
            "Description": "",
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": key.state.name(),
            "Origin": "AWS_KMS",
            "KeyManager": if key.alias.starts_with("alias/aws/") { "AWS" } else { "CUSTOMER" },
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": false,
        });
        if key.state == KeyState::PendingDeletion {
            row["DeletionDate"] = key.created.plus_secs(400 * 86_400).epoch();
        }
        Ok(json!({"KeyMetadata": row}))
    }
}
