//! Secrets Manager of one region: secrets, their versions and stages, replicas.

use crate::kms::SECRETS_ALIAS;
use crate::page::page;
use crate::world::unknown;
use crate::{AccountId, ApiError, Ids, Millis, Region, Service};
use serde_json::{Value, json};

/// 64 KiB, before base64.
const MAX_SECRET: usize = 65_536;

#[derive(Debug, Clone)]
struct Version {
    id: String,
    stages: Vec<String>,
    created: Millis,
    string: Option<String>,
    /// Base64, as it travels.
    binary: Option<String>,
    /// Since when it carries no stage: AWS may remove it at any time (H42).
    bare: Option<Millis>,
}

#[derive(Debug, Clone)]
pub(crate) struct Secret {
    name: String,
    suffix: String,
    description: String,
    created: Millis,
    changed: Millis,
    tags: Value,
    /// Oldest first.
    versions: Vec<Version>,
    /// Where it came from, and where it is copied to.
    primary: Option<Region>,
    replicas: Vec<(Region, Option<String>)>,
    /// The key that somebody named for it.
    key: Option<String>,
}

impl Secret {
    fn unlabel(&mut self, stage: &str) {
        for version in &mut self.versions {
            version.stages.retain(|have| have != stage);
        }
    }

    fn mark_bare(&mut self, now: Millis) {
        for version in &mut self.versions {
            version.bare = version.stages.is_empty().then(|| version.bare.unwrap_or(now));
        }
    }
}

#[derive(Debug)]
pub struct Secrets {
    account: AccountId,
    region: Region,
    secrets: Vec<Secret>,
}

fn named(body: &Value) -> Option<String> {
    body["KmsKeyId"].as_str().map(str::to_owned)
}

fn invalid(why: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterException", why)
}

impl Secrets {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        Self { account: account.clone(), region: region.clone(), secrets: Vec::new() }
    }

    fn arn(&self, secret: &Secret) -> String {
        format!("arn:aws:secretsmanager:{}:{}:secret:{}-{}", self.region, self.account, secret.name, secret.suffix)
    }

    /// By name, by ARN, or by ARN without its six random characters.
    fn position(&self, id: &str) -> Result<usize, ApiError> {
        self.secrets
            .iter()
            .position(|secret| {
                let arn = self.arn(secret);
                secret.name == id || arn == id || arn.len() == id.len() + 7 && arn.starts_with(id)
            })
            .ok_or_else(|| ApiError::new("ResourceNotFoundException", "Secrets Manager can't find the specified secret."))
    }

    /// What a secret's key is called.
    pub(crate) fn key(&self, id: &str) -> Option<&str> {
        self.position(id).ok().map(|at| self.secrets[at].key.as_deref().unwrap_or(SECRETS_ALIAS))
    }

    /// The name behind a name or ARN.
    pub(crate) fn name(&self, id: &str) -> Option<String> {
        self.position(id).ok().map(|at| self.secrets[at].name.clone())
    }

    fn find(&self, body: &Value) -> Result<&Secret, ApiError> {
        self.position(body["SecretId"].as_str().unwrap_or_default()).map(|at| &self.secrets[at])
    }

    /// Puts a new value under a secret made before, as someone who rotates it would, and returns its version id.
    pub fn rotate(&mut self, name: &str, value: &str, now: Millis, ids: &mut Ids) -> Result<String, ApiError> {
        let reply = self.call("PutSecretValue", &json!({"SecretId": name, "SecretString": value}), now, ids)?;
        Ok(reply["VersionId"].as_str().unwrap_or_default().to_owned())
    }

    /// Whatever someone labelled loses its label, and what AWS itself does not label is removed, as it may be at any time (H42).
    /// Gives the ids of what is gone.
    pub(crate) fn lose_versions(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let at = self.position(name)?;
        let secret = &mut self.secrets[at];
        for version in &mut secret.versions {
            version.stages.retain(|stage| matches!(stage.as_str(), "AWSCURRENT" | "AWSPREVIOUS" | "AWSPENDING"));
        }
        let (gone, left) = std::mem::take(&mut secret.versions).into_iter().partition(|version| version.stages.is_empty());
        secret.versions = left;
        Ok(Vec::into_iter(gone).map(|version: Version| version.id).collect())
    }

    /// Overwrites a version in place, which AWS cannot do: a wrong password under a pinned version (H10).
    pub fn tamper(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let at = self.position(name)?;
        for version in &mut self.secrets[at].versions {
            if version.stages.iter().any(|stage| stage == "AWSCURRENT") {
                version.string = Some(value.to_owned());
            }
        }
        Ok(())
    }

    /// The reply, and the copies for other regions.
    pub(crate) fn create(
        &mut self,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        known: &[Region],
    ) -> Result<(Value, Vec<(Region, Secret)>), ApiError> {
        let name = body["Name"].as_str().unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
        if name.is_empty() || name.len() > 512 || !name.chars().all(good) {
            return Err(ApiError::validation(
                "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
            ));
        }
        let mut replicas = Vec::new();
        for replica in body["AddReplicaRegions"].as_array().into_iter().flatten() {
            let region = Region::new(replica["Region"].as_str().unwrap_or_default());
            if region == self.region || !known.contains(&region) {
                return Err(invalid(format!("Invalid replica region {region}")));
            }
            replicas.push((region, named(replica)));
        }
        let token = token(body, ids)?;
        if let Some(old) = self.secrets.iter().find(|s| s.name == name) {
            // The same request twice is one request.
            let same = old.versions.iter().any(|v| v.id == token && same_value(v, body));
            if !same {
                return Err(ApiError::new(
                    "ResourceExistsException",
                    format!("The operation failed because the secret {name} already exists."),
                ));
            }
            let reply = json!({"ARN": self.arn(old), "Name": name, "VersionId": token});
            return Ok((reply, Vec::new()));
        }
        let mut secret = Secret {
            name: name.to_owned(),
            suffix: ids.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 6),
            description: body["Description"].as_str().unwrap_or_default().to_owned(),
            created: now,
            changed: now,
            tags: if body["Tags"].is_array() { body["Tags"].clone() } else { json!([]) },
            versions: Vec::new(),
            primary: None,
            replicas,
            key: named(body),
        };
        let has_value = body["SecretString"].is_string() || body["SecretBinary"].is_string();
        if has_value {
            secret.versions.push(read_version(body, token.clone(), now)?);
        }
        let mut reply = json!({"ARN": self.arn(&secret), "Name": name});
        if has_value {
            reply["VersionId"] = token.into();
        }
        if !secret.replicas.is_empty() {
            reply["ReplicationStatus"] = self.replication(&secret);
        }
        let copies = self.copies(&secret);
        self.secrets.push(secret);
        Ok((reply, copies))
    }

    fn replication(&self, secret: &Secret) -> Value {
        secret
            .replicas
            .iter()
            .map(|(r, key)| {
                let key = key.as_deref().unwrap_or(SECRETS_ALIAS);
                json!({"Region": r.as_str(), "KmsKeyId": key, "Status": "InSync", "StatusMessage": "Replication succeeded"})
            })
            .collect()
    }

    fn copies(&self, secret: &Secret) -> Vec<(Region, Secret)> {
        let copy = |key: &Option<String>| Secret {
            primary: Some(self.region.clone()),
            replicas: Vec::new(),
            key: key.clone(),
            ..secret.clone()
        };
        secret.replicas.iter().map(|(region, key)| (region.clone(), copy(key))).collect()
    }

    pub(crate) fn replicas(&self, name: &str) -> Vec<(Region, Secret)> {
        self.secrets.iter().find(|s| s.name == name).map(|s| self.copies(s)).unwrap_or_default()
    }

    /// Takes a replica from its primary region, in place of the one it had.
    pub(crate) fn adopt(&mut self, copy: Secret) {
        self.secrets.retain(|old| old.name != copy.name);
        self.secrets.push(copy);
    }

    pub(crate) fn call(&mut self, operation: &str, body: &Value, now: Millis, ids: &mut Ids) -> Result<Value, ApiError> {
        match operation {
            "GetSecretValue" => self.get_secret_value(body),
            "DescribeSecret" => self.describe_secret(body),
            "PutSecretValue" => self.put_secret_value(body, now, ids),
            "ListSecretVersionIds" => self.list_secret_version_ids(body),
            "ReplicateSecretToRegions" => self.replicate_to(body),
            "UpdateSecretVersionStage" => self.update_secret_version_stage(body, now),
            "TagResource" => {
                let at = self.position(body["SecretId"].as_str().unwrap_or_default())?;
                if let (Some(have), Some(more)) = (self.secrets[at].tags.as_array_mut(), body["Tags"].as_array()) {
                    have.retain(|old| !more.iter().any(|new| new["Key"] == old["Key"]));
                    have.extend(more.iter().cloned());
                }
                Ok(json!({}))
            }
            other => Err(unknown(Service::Secrets, other)),
        }
    }

    /// Moves a stage, or takes it away. Without the version that carries it now being named, a stage that is in use does not
    /// move.
    fn update_secret_version_stage(&mut self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let at = self.position(body["SecretId"].as_str().unwrap_or_default())?;
        let arn = self.arn(&self.secrets[at]);
        let secret = &mut self.secrets[at];
        if secret.primary.is_some() {
            return Err(ApiError::new("InvalidRequestException", "You can't change a replica secret; change its primary."));
        }
        let stage = body["VersionStage"].as_str().unwrap_or_default();
        if stage.is_empty() || stage.len() > 256 {
            return Err(ApiError::validation("VersionStage must be 1-256 characters long."));
        }
        let (from, to) = (body["RemoveFromVersionId"].as_str(), body["MoveToVersionId"].as_str());
        for id in from.iter().chain(&to) {
            if !secret.versions.iter().any(|v| v.id == **id) {
                return Err(ApiError::new(
                    "ResourceNotFoundException",
                    format!("Secrets Manager can't find the specified secret value for VersionId: {id}"),
                ));
            }
        }
        let holder = secret.versions.iter().find(|v| v.stages.iter().any(|s| s == stage)).map(|v| v.id.clone());
        if holder.as_deref() != from && holder.as_deref() != to {
            return Err(match (&holder, from) {
                (Some(holder), None) => invalid(format!(
                    "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version {holder}, so you must explicitly reference that version in RemoveFromVersionId."
                )),
                _ => invalid(format!("The staging label {stage} isn't attached to version {}.", from.unwrap_or_default())),
            });
        }
        if stage == "AWSCURRENT" && to.is_none() {
            return Err(invalid("You can't remove the staging label AWSCURRENT; move it to another version."));
        }
        let Some(to) = to else {
            secret.unlabel(stage);
            secret.mark_bare(now);
            return Ok(json!({"ARN": arn, "Name": secret.name}));
        };
        if holder.as_deref() != Some(to) {
            if secret.versions.iter().any(|v| v.id == to && v.stages.len() >= 20) {
                return Err(ApiError::new("LimitExceededException", "A version can have at most 20 staging labels."));
            }
            if stage == "AWSCURRENT" {
                secret.unlabel("AWSPREVIOUS");
            }
            secret.unlabel(stage);
            for version in &mut secret.versions {
                if version.id == to {
                    version.stages.push(stage.to_owned());
                } else if stage == "AWSCURRENT" && holder.as_deref() == Some(&version.id) {
                    version.stages.push("AWSPREVIOUS".to_owned());
                }
            }
        }
        secret.mark_bare(now);
        Ok(json!({"ARN": arn, "Name": secret.name}))
    }

    /// Removes the versions that have carried no stage for `after` milliseconds.
    pub(crate) fn tick(&mut self, now: Millis, after: i64) {
        for secret in &mut self.secrets {
            secret.versions.retain(|v| v.bare.is_none_or(|since| now.since(since) < after));
        }
    }

    pub(crate) fn next_due(&self, after: i64) -> Option<Millis> {
        self.secrets.iter().flat_map(|s| &s.versions).filter_map(|v| v.bare).map(|since| since.plus_ms(after)).min()
    }

    /// Every version's id and text, oldest first: what someone who may read the secret in this region can read.
    pub fn readable(&self, id: &str) -> Vec<(String, String)> {
        let secret = self.position(id).ok().map(|at| &self.secrets[at]);
        let versions = secret.into_iter().flat_map(|s| &s.versions);
        versions.filter_map(|v| Some((v.id.clone(), v.string.clone()?))).collect()
    }

    fn replicate_to(&mut self, body: &Value) -> Result<Value, ApiError> {
        let at = self.position(body["SecretId"].as_str().unwrap_or_default())?;
        for replica in body["AddReplicaRegions"].as_array().into_iter().flatten() {
            let region = Region::new(replica["Region"].as_str().unwrap_or_default());
            if region == self.region || self.secrets[at].primary.is_some() {
                return Err(invalid(format!("Invalid replica region {region}")));
            }
            if !self.secrets[at].replicas.iter().any(|(have, _)| *have == region) {
                self.secrets[at].replicas.push((region, named(replica)));
            }
        }
        let secret = &self.secrets[at];
        Ok(json!({"ARN": self.arn(secret), "ReplicationStatus": self.replication(secret)}))
    }

    fn get_secret_value(&self, body: &Value) -> Result<Value, ApiError> {
        let secret = self.find(body)?;
        let stage = body["VersionStage"].as_str();
        let version = match body["VersionId"].as_str() {
            Some(id) => {
                secret.versions.iter().find(|v| v.id == id && stage.is_none_or(|s| v.stages.iter().any(|have| have == s)))
            }
            None => {
                let stage = stage.unwrap_or("AWSCURRENT");
                secret.versions.iter().find(|v| v.stages.iter().any(|have| have == stage))
            }
        };
        let version = version.ok_or_else(|| {
            let wanted = body["VersionId"]
                .as_str()
                .map_or_else(|| format!("staging label: {}", stage.unwrap_or("AWSCURRENT")), |id| format!("VersionId: {id}"));
            ApiError::new(
                "ResourceNotFoundException",
                format!("Secrets Manager can't find the specified secret value for {wanted}"),
            )
        })?;
        let mut reply = json!({
            "ARN": self.arn(secret),
            "Name": secret.name,
            "VersionId": version.id,
            "VersionStages": version.stages,
            "CreatedDate": version.created.epoch(),
        });
        crate::ssm::put(&mut reply, "SecretString", version.string.clone().map(Value::from));
        crate::ssm::put(&mut reply, "SecretBinary", version.binary.clone().map(Value::from));
        if version.stages.is_empty()
            && let Some(reply) = reply.as_object_mut()
        {
            reply.remove("VersionStages");
        }
        Ok(reply)
    }

    fn describe_secret(&self, body: &Value) -> Result<Value, ApiError> {
        let secret = self.find(body)?;
        let mut stages = json!({});
        for version in secret.versions.iter().filter(|v| !v.stages.is_empty()) {
            stages[&version.id] = json!(version.stages);
        }
        let mut reply = json!({
            "ARN": self.arn(secret),
            "Name": secret.name,
            "Description": secret.description,
            "LastChangedDate": secret.changed.epoch(),
            "CreatedDate": secret.created.epoch(),
            "Tags": secret.tags,
            "VersionIdsToStages": stages,
        });
        if !secret.replicas.is_empty() {
            reply["ReplicationStatus"] = self.replication(secret);
            reply["PrimaryRegion"] = self.region.as_str().into();
        }
        // Not there where it is AWS's own.
        crate::ssm::put(&mut reply, "KmsKeyId", secret.key.clone().map(Value::from));
        if let Some(primary) = &secret.primary {
            reply["PrimaryRegion"] = primary.as_str().into();
        }
        Ok(reply)
    }

    fn put_secret_value(&mut self, body: &Value, now: Millis, ids: &mut Ids) -> Result<Value, ApiError> {
        let at = self.position(body["SecretId"].as_str().unwrap_or_default())?;
        let token = token(body, ids)?;
        let arn = self.arn(&self.secrets[at]);
        let secret = &mut self.secrets[at];
        if secret.primary.is_some() {
            return Err(ApiError::new("InvalidRequestException", "You can't change a replica secret; change its primary."));
        }
        if let Some(old) = secret.versions.iter().find(|v| v.id == token) {
            if !same_value(old, body) {
                return Err(ApiError::new("ResourceExistsException", "The version exists already with another value."));
            }
            return Ok(json!({"ARN": arn, "Name": secret.name, "VersionId": token, "VersionStages": old.stages}));
        }
        let mut version = read_version(body, token.clone(), now)?;
        if let Some(wanted) = body["VersionStages"].as_array() {
            version.stages = wanted.iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        }
        if version.stages.iter().any(|s| s == "AWSCURRENT") {
            for old in &mut secret.versions {
                old.stages.retain(|s| s != "AWSPREVIOUS");
                for stage in old.stages.iter_mut().filter(|s| *s == "AWSCURRENT") {
                    *stage = "AWSPREVIOUS".to_owned();
                }
            }
        }
        for old in &mut secret.versions {
            old.stages.retain(|stage| !version.stages.contains(stage));
        }
        secret.mark_bare(now);
        let reply = json!({"ARN": arn, "Name": secret.name, "VersionId": token, "VersionStages": version.stages});
        secret.versions.push(version);
        secret.changed = now;
        Ok(reply)
    }

    fn list_secret_version_ids(&self, body: &Value) -> Result<Value, ApiError> {
        let secret = self.find(body)?;
        let max = match body["MaxResults"].as_i64() {
            None => 100,
            Some(n) if (1..=100).contains(&n) => n as usize,
            Some(_) => return Err(invalid("MaxResults must lie between 1 and 100")),
        };
        let all = body["IncludeDeprecated"] == true;
        let rows: Vec<Value> = secret
            .versions
            .iter()
            .filter(|v| all || !v.stages.is_empty())
            .map(|v| {
                let mut row = json!({"VersionId": v.id, "CreatedDate": v.created.epoch()});
                if !v.stages.is_empty() {
                    row["VersionStages"] = json!(v.stages);
                }
                row
            })
            .collect();
        let (rows, next) =
            page(&rows, &format!("versions{}{all}", secret.name), max, body["NextToken"].as_str(), "InvalidNextTokenException")?;
        let mut reply = json!({"Versions": rows, "ARN": self.arn(secret), "Name": secret.name});
        crate::ssm::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }
}

/// ClientRequestToken, which becomes the version id.
fn token(body: &Value, ids: &mut Ids) -> Result<String, ApiError> {
    match body["ClientRequestToken"].as_str() {
        None => Ok(ids.uuid()),
        Some(token) if (32..=64).contains(&token.len()) => Ok(token.to_owned()),
        Some(_) => Err(invalid("ClientRequestToken must be 32-64 characters long.")),
    }
}

fn read_version(body: &Value, id: String, now: Millis) -> Result<Version, ApiError> {
    let (string, binary) = (body["SecretString"].as_str(), body["SecretBinary"].as_str());
    if string.is_some() == binary.is_some() {
        return Err(invalid("You must provide either SecretString or SecretBinary."));
    }
    if string.is_some_and(|s| s.len() > MAX_SECRET) || binary.is_some_and(|b| b.len() / 4 * 3 > MAX_SECRET + 2) {
        return Err(ApiError::validation("The secret value is longer than 65536 bytes"));
    }
    Ok(Version {
        id,
        stages: vec!["AWSCURRENT".to_owned()],
        created: now,
        string: string.map(str::to_owned),
        binary: binary.map(str::to_owned),
        bare: None,
    })
}

fn same_value(version: &Version, body: &Value) -> bool {
    version.string.as_deref() == body["SecretString"].as_str() && version.binary.as_deref() == body["SecretBinary"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bed() -> (Secrets, Ids) {
        (Secrets::new(&AccountId::new("123456789012"), &Region::new("us-east-1")), Ids::new(3))
    }

    fn regions() -> [Region; 2] {
        [Region::new("us-east-1"), Region::new("us-west-2")]
    }

    #[test]
    fn h13_a_pinned_version_stays_readable_after_a_rotation() {
        let (mut secrets, mut ids) = bed();
        let (made, _) =
            secrets.create(&json!({"Name": "tde/pin", "SecretString": "one"}), Millis(0), &mut ids, &regions()).unwrap();
        let new = secrets.rotate("tde/pin", "two", Millis(1), &mut ids).unwrap();
        let get = |body: Value| secrets.get_secret_value(&body).map(|v| v["SecretString"].as_str().unwrap().to_owned());
        assert_eq!(get(json!({"SecretId": made["ARN"], "VersionId": made["VersionId"]})).unwrap(), "one");
        assert_eq!(get(json!({"SecretId": "tde/pin"})).unwrap(), "two");
        assert_eq!(get(json!({"SecretId": "tde/pin", "VersionStage": "AWSPREVIOUS"})).unwrap(), "one");
        let partial = made["ARN"].as_str().unwrap();
        assert_eq!(get(json!({"SecretId": partial[..partial.len() - 7]})).unwrap(), "two");
        assert_eq!(
            get(json!({"SecretId": "tde/pin", "VersionId": "x".repeat(36)})).unwrap_err().code,
            "ResourceNotFoundException"
        );
        let described = secrets.describe_secret(&json!({"SecretId": "tde/pin"})).unwrap();
        assert_eq!(described["VersionIdsToStages"][&new], json!(["AWSCURRENT"]));
    }

    #[test]
    fn h42_a_stage_of_ones_own_keeps_a_version_that_would_go() {
        let (mut secrets, mut ids) = bed();
        let (made, _) =
            secrets.create(&json!({"Name": "tde/pin", "SecretString": "one"}), Millis(0), &mut ids, &regions()).unwrap();
        let label = |stage: &str, to: &Value| json!({"SecretId": "tde/pin", "VersionStage": stage, "MoveToVersionId": to});
        secrets.call("UpdateSecretVersionStage", &label("ours", &made["VersionId"]), Millis(0), &mut ids).unwrap();
        let second = json!(secrets.rotate("tde/pin", "two", Millis(1), &mut ids).unwrap());
        secrets.rotate("tde/pin", "three", Millis(2), &mut ids).unwrap();
        secrets.rotate("tde/pin", "four", Millis(3), &mut ids).unwrap();
        assert_eq!(secrets.next_due(10), Some(Millis(13)));
        secrets.tick(Millis(12), 10);
        assert_eq!(secrets.readable("tde/pin").len(), 4);
        secrets.tick(Millis(13), 10);
        let texts: Vec<String> = secrets.readable("tde/pin").into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["one", "three", "four"], "AWSPREVIOUS, AWSCURRENT and the one that was labelled");
        let gone = secrets.call("UpdateSecretVersionStage", &label("ours", &second), Millis(14), &mut ids);
        assert_eq!(gone.unwrap_err().code, "ResourceNotFoundException");
        // A stage in use moves only when the version that has it is named.
        let third = json!(secrets.readable("tde/pin")[1].0);
        let refused = secrets.call("UpdateSecretVersionStage", &label("ours", &third), Millis(14), &mut ids);
        assert_eq!(refused.unwrap_err().code, "InvalidParameterException");
        let away = json!({"SecretId": "tde/pin", "VersionStage": "ours", "RemoveFromVersionId": made["VersionId"]});
        secrets.call("UpdateSecretVersionStage", &away, Millis(14), &mut ids).unwrap();
        secrets.tick(Millis(24), 10);
        assert_eq!(secrets.readable("tde/pin").len(), 2);
    }

    #[test]
    fn h42_a_version_whose_label_somebody_took_away_is_removed() {
        let (mut secrets, mut ids) = bed();
        let (made, _) =
            secrets.create(&json!({"Name": "tde/pin", "SecretString": "one"}), Millis(0), &mut ids, &regions()).unwrap();
        let label = json!({"SecretId": "tde/pin", "VersionStage": "ours", "MoveToVersionId": made["VersionId"]});
        secrets.call("UpdateSecretVersionStage", &label, Millis(0), &mut ids).unwrap();
        assert!(secrets.lose_versions("tde/pin").unwrap().is_empty(), "AWS labels it still");
        secrets.call("UpdateSecretVersionStage", &label, Millis(0), &mut ids).unwrap();
        secrets.rotate("tde/pin", "two", Millis(1), &mut ids).unwrap();
        secrets.rotate("tde/pin", "three", Millis(2), &mut ids).unwrap();
        assert_eq!(secrets.lose_versions("tde/pin").unwrap(), [made["VersionId"].as_str().unwrap()]);
        let texts: Vec<String> = secrets.readable("tde/pin").into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["two", "three"]);
    }

    #[test]
    fn h5_a_keystore_is_replicated_and_written_once_per_token() {
        let (mut secrets, mut ids) = bed();
        let body = json!({"Name": "tde/escrow", "SecretBinary": "aGVsbG8=", "ClientRequestToken": "t".repeat(36),
            "AddReplicaRegions": [{"Region": "us-west-2"}]});
        let (made, copies) = secrets.create(&body, Millis(0), &mut ids, &regions()).unwrap();
        assert_eq!(copies.len(), 1);
        let mut west = Secrets::new(&AccountId::new("123456789012"), &Region::new("us-west-2"));
        west.adopt(copies[0].1.clone());
        assert_eq!(west.get_secret_value(&json!({"SecretId": "tde/escrow"})).unwrap()["SecretBinary"], "aGVsbG8=");
        let put = json!({"SecretId": "tde/escrow", "SecretBinary": "AAAA"});
        assert_eq!(west.call("PutSecretValue", &put, Millis(1), &mut ids).unwrap_err().code, "InvalidRequestException");
        // The same request again is the same secret; another under the token is refused.
        assert_eq!(secrets.create(&body, Millis(1), &mut ids, &regions()).unwrap().0["ARN"], made["ARN"]);
        let mut other = body.clone();
        other["SecretBinary"] = json!("AAAA");
        assert_eq!(secrets.create(&other, Millis(1), &mut ids, &regions()).unwrap_err().code, "ResourceExistsException");
        let large = json!({"SecretId": "tde/escrow", "SecretBinary": "A".repeat(90_000)});
        assert_eq!(secrets.call("PutSecretValue", &large, Millis(1), &mut ids).unwrap_err().code, "ValidationException");
    }
}
