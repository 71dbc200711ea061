//! The bucket that host-runner and the client packages come from.
//!
//! Keys hold the digest of their content, so storing a file twice is the same as storing it once, and a bucket that
//! keeps versions lets the document name exactly one object (H34). Every call names the account that has to own the
//! bucket: a bucket's name alone says nothing about whose it is.

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, ChecksumAlgorithm, CreateBucketConfiguration, VersioningConfiguration,
};
use base64::Engine as _;
use tde2hsm_cloud_call::{Call, CloudError, Effect, Ledger, sort, timeouts};
use tde2hsm_document::{BucketName, ObjectVersion};
use tde2hsm_protocol::{AccountId, Code, Digest, Region};

#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
    region: Region,
}

const fn call(operation: &'static str) -> Call {
    Call { service: "s3", operation }
}

/// Metadata under which an object's digest is kept, so that it can be read without the object.
const SHA256: &str = "sha256";

/// What became of a bucket or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    WasThere,
}

impl S3 {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger, region: Region) -> S3 {
        // Path style works with every endpoint, also one that is an address.
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts())
            .force_path_style(true)
            .interceptor(ledger.clone())
            .build();
        S3 { client: Client::from_conf(config), region }
    }

    /// A bucket of this account, in this region, that keeps versions; made where there is none. One that is there but
    /// keeps no versions is refused, not changed: it may be somebody's for another purpose.
    pub async fn ensure_bucket(&self, bucket: &BucketName, owner: &AccountId) -> Result<Made, CloudError> {
        let head = self.client.head_bucket().bucket(bucket.as_str()).expected_bucket_owner(owner.as_str()).send().await;
        let made = match head {
            Ok(_) => Made::WasThere,
            Err(e) => {
                let status = e.raw_response().map(|raw| raw.status().as_u16());
                let error = sort(call("HeadBucket"), e);
                match status {
                    Some(404) => {
                        self.create_bucket(bucket).await?;
                        Made::New
                    }
                    Some(403) => {
                        return Err(self.unfit("HeadBucket", bucket, "it belongs to another account, or may not be read"));
                    }
                    Some(301) => return Err(self.unfit("HeadBucket", bucket, "it lies in another region")),
                    _ => return Err(error),
                }
            }
        };
        let versioning = self
            .client
            .get_bucket_versioning()
            .bucket(bucket.as_str())
            .expected_bucket_owner(owner.as_str())
            .send()
            .await
            .map_err(|e| sort(call("GetBucketVersioning"), e))?;
        if versioning.status() == Some(&BucketVersioningStatus::Enabled) {
            return Ok(made);
        }
        if made == Made::WasThere {
            return Err(self.unfit("GetBucketVersioning", bucket, "it keeps no versions"));
        }
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        self.client
            .put_bucket_versioning()
            .bucket(bucket.as_str())
            .expected_bucket_owner(owner.as_str())
            .versioning_configuration(enabled)
            .send()
            .await
            .map_err(|e| sort(call("PutBucketVersioning"), e))?;
        Ok(made)
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<(), CloudError> {
        let mut create = self.client.create_bucket().bucket(bucket.as_str());
        // us-east-1 is the one region that must not be named.
        if self.region.as_str() != "us-east-1" {
            let location = BucketLocationConstraint::from(self.region.as_str());
            create =
                create.create_bucket_configuration(CreateBucketConfiguration::builder().location_constraint(location).build());
        }
        match create.send().await.map_err(|e| sort(call("CreateBucket"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&["BucketAlreadyOwnedByYou"]) => Ok(()),
            Err(e) if e.is(&["BucketAlreadyExists"]) => {
                Err(self.unfit("CreateBucket", bucket, "the name belongs to another account"))
            }
            Err(e) => Err(e),
        }
    }

    fn unfit(&self, operation: &'static str, bucket: &BucketName, why: &str) -> CloudError {
        CloudError::found(call(operation), Code::BUCKET_UNFIT, format!("bucket `{bucket}`: {why}"))
    }

    /// The version of the object under `key`, if it is there and says it has this digest.
    async fn head(
        &self,
        bucket: &BucketName,
        owner: &AccountId,
        key: &str,
        sha256: Digest,
    ) -> Result<Option<ObjectVersion>, CloudError> {
        let head = self.client.head_object().bucket(bucket.as_str()).key(key).expected_bucket_owner(owner.as_str()).send().await;
        let found = match head {
            Ok(found) => found,
            Err(e) if e.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => return Ok(None),
            Err(e) => return Err(sort(call("HeadObject"), e)),
        };
        let same = found.metadata().and_then(|m| m.get(SHA256)).is_some_and(|digest| *digest == sha256.to_string());
        Ok(found.version_id().filter(|_| same).and_then(|id| ObjectVersion::new(id).ok()))
    }

    /// Stores a file under a key that holds its digest, unless it is there already.
    pub async fn put(
        &self,
        bucket: &BucketName,
        owner: &AccountId,
        key: &str,
        content: Vec<u8>,
    ) -> Result<(ObjectVersion, Made), CloudError> {
        let sha256 = Digest::of(&content);
        if let Some(version) = self.head(bucket, owner, key, sha256).await? {
            return Ok((version, Made::WasThere));
        }
        let stored = self
            .client
            .put_object()
            .bucket(bucket.as_str())
            .key(key)
            .expected_bucket_owner(owner.as_str())
            .metadata(SHA256, sha256.to_string())
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(base64::engine::general_purpose::STANDARD.encode(sha256.as_bytes()))
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|e| sort(call("PutObject"), e))?;
        let version = stored.version_id().and_then(|id| ObjectVersion::new(id).ok());
        let unversioned =
            || CloudError { effect: Effect::Refused, ..self.unfit("PutObject", bucket, "it gave the object no VersionId") };
        Ok((version.ok_or_else(unversioned)?, Made::New))
    }
}
