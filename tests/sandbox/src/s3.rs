//! S3 as far as a fleet needs it: buckets, versioned objects, their bytes as files of `DIR/s3`.
//!
//! The `s3s` crate speaks the protocol and checks signatures; this is the storage behind it. An object is never
//! overwritten in a versioned bucket, so a VersionId always names the same bytes (H34).

use crate::auth::{self, AuthError};
use crate::cloud::Cloud;
use futures::StreamExt as _;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, S3ConfigProvider, StaticConfigProvider};
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use tde2hsm_model::{Fate, Ids, Service};

tokio::task_local! {
    /// What access control saw of the request being answered.
    pub static SEEN: RefCell<Seen>;
}

#[derive(Debug, Default)]
pub struct Seen {
    pub operation: String,
    /// What becomes of the reply.
    pub fate: Option<Fate>,
}

#[derive(Debug, Clone)]
struct Stored {
    version: Option<String>,
    /// None for a delete marker.
    blob: Option<Blob>,
    modified: SystemTime,
    kind: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Clone)]
struct Blob {
    file: PathBuf,
    size: i64,
    sha256: [u8; 32],
}

#[derive(Debug)]
struct Bucket {
    region: String,
    versioned: bool,
    /// Newest last.
    objects: BTreeMap<String, Vec<Stored>>,
}

#[derive(Debug)]
struct Inner {
    ids: Ids,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

impl Store {
    pub fn new(dir: &Path, seed: u64) -> Self {
        let inner = Inner { ids: Ids::new(seed ^ 0x7333), buckets: BTreeMap::new() };
        Self { dir: dir.to_owned(), inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes a versioned bucket, as a template does.
    pub fn make(&self, bucket: &str, region: &str) {
        let row = Bucket { region: region.to_owned(), versioned: true, objects: BTreeMap::new() };
        self.lock().buckets.entry(bucket.to_owned()).or_insert(row);
    }

    /// Where a bucket is.
    pub fn region_of(&self, bucket: &str) -> Option<String> {
        self.lock().buckets.get(bucket).map(|b| b.region.clone())
    }

    /// The bytes of an object as the agent of a host fetches them.
    pub fn read(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<Vec<u8>, String> {
        let stored = self.find(bucket, key, version).map_err(|e| e.message().unwrap_or("no such object").to_owned())?;
        let blob = stored.blob.ok_or("the object was deleted")?;
        std::fs::read(&blob.file).map_err(|e| e.to_string())
    }

    fn find(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Stored> {
        let inner = self.lock();
        let bucket = inner.buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        let absent = || s3_error!(NoSuchKey, "The specified key does not exist.");
        let versions = bucket.objects.get(key).ok_or_else(absent)?;
        match version {
            None => versions.last().filter(|v| v.blob.is_some()).cloned().ok_or_else(absent),
            Some(id) => versions
                .iter()
                .find(|v| v.version.as_deref().unwrap_or("null") == id)
                .cloned()
                .ok_or_else(|| s3_error!(NoSuchVersion, "The specified version does not exist.")),
        }
    }

    fn put(&self, bucket: &str, key: &str, bytes: &[u8], about: About, when: &Precondition, now: SystemTime) -> S3Result<Stored> {
        let About { kind, metadata } = about;
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let mut inner = self.lock();
        let Inner { ids, buckets } = &mut *inner;
        let bucket = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        let current = bucket.objects.get(key).and_then(|versions| versions.last()).and_then(|v| v.blob.as_ref());
        when.check(current)?;
        let file = self.dir.join(hex::encode(sha256));
        std::fs::create_dir_all(&self.dir)
            .and_then(|()| std::fs::write(&file, bytes))
            .map_err(|e| s3_error!(e, InternalError))?;
        let version = bucket.versioned.then(|| ids.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._", 32));
        let stored = Stored {
            version,
            blob: Some(Blob { file, size: i64::try_from(bytes.len()).unwrap_or(i64::MAX), sha256 }),
            modified: now,
            kind,
            metadata,
        };
        let versions = bucket.objects.entry(key.to_owned()).or_default();
        if !bucket.versioned {
            versions.retain(|old| old.version.is_some());
        }
        versions.push(stored.clone());
        Ok(stored)
    }
}

/// What its writer says of an object.
#[derive(Debug, Default)]
struct About {
    kind: Option<String>,
    metadata: Option<Metadata>,
}

/// What must be so for an object to be written, looked at and written in one step.
#[derive(Debug, Default)]
struct Precondition {
    matches: Option<ETagCondition>,
    none_matches: Option<ETagCondition>,
}

impl Precondition {
    fn check(&self, current: Option<&Blob>) -> S3Result<()> {
        let fits = |condition: &ETagCondition, blob: &Blob| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => *tag == blob.etag(),
        };
        let failed = || s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold");
        match (&self.matches, &self.none_matches, current) {
            (_, Some(ETagCondition::ETag(_)), _) => {
                Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented"))
            }
            // There is nothing that could match.
            (Some(_), _, None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(wanted), _, Some(blob)) if !fits(wanted, blob) => Err(failed()),
            (_, Some(ETagCondition::Any), Some(_)) => Err(failed()),
            _ => Ok(()),
        }
    }
}

impl Blob {
    /// Stable, and like the real one no promise of being an MD5.
    fn etag(&self) -> ETag {
        ETag::Strong(hex::encode(&self.sha256[..16]))
    }
}

/// The S3 service of a cloud.
pub struct Service3(pub Arc<Cloud>);

impl Service3 {
    fn store(&self) -> &Store {
        &self.0.s3
    }
}

#[async_trait::async_trait]
impl S3Auth for Service3 {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let keys = self.0.keys();
        match keys.key(access_key) {
            Some(key) => Ok(SecretKey::from(key.secret.as_str())),
            None => Err(refusal(&AuthError::UnknownKey(access_key.to_owned()))),
        }
    }
}

fn refusal(error: &AuthError) -> S3Error {
    api_error(&error.for_service(Service::S3))
}

fn api_error(error: &tde2hsm_model::ApiError) -> S3Error {
    let code = S3ErrorCode::from_bytes(error.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    S3Error::with_message(code, error.message.clone())
}

/// The crate compares a request's time with the machine's clock alone; [`S3Access`] does it with the world's too.
pub fn config() -> Arc<dyn S3ConfigProvider> {
    let mut config = S3Config::default();
    config.presigned_url_max_skew_time_secs = u32::MAX;
    Arc::new(StaticConfigProvider::new(Arc::new(config)))
}

#[async_trait::async_trait]
impl S3Access for Service3 {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(access) = cx.credentials().map(|c| c.access_key.clone()) else {
            return Err(refusal(&AuthError::Missing));
        };
        let token = cx.headers().get("x-amz-security-token").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let date = cx.headers().get("x-amz-date").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !auth::is_timely(date, [crate::clock::Clock::real(), self.0.clock.now()]) {
            return Err(refusal(&AuthError::Skewed));
        }
        let operation = cx.s3_op().name().to_owned();
        let caller = {
            let keys = self.0.keys();
            keys.find(&access, token.as_deref(), self.0.clock.now()).map_err(|e| refusal(&e))?.caller.clone()
        };
        let saw = |fate| {
            let _ = SEEN.try_with(|seen| *seen.borrow_mut() = Seen { operation: operation.clone(), fate });
        };
        saw(None);
        let signed = cx.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let region = signed.and_then(|text| text.split('/').nth(2)).map(tde2hsm_model::Region::new);
        let version = cx.uri().query().is_some_and(|query| query.contains("versionId="));
        let action = tde2hsm_model::iam_action(Service::S3, &operation, version);
        if let Some(region) = region
            && !self.0.permits(&caller.principal, Service::S3, action, &region, &BTreeMap::new())
        {
            return Err(api_error(&tde2hsm_model::denied(Service::S3, &caller.arn, action)));
        }
        match self.0.world().admit(&caller, Service::S3, &operation) {
            Ok(fate) => {
                saw(Some(fate));
                Ok(())
            }
            Err(None) => {
                saw(Some(Fate::Lost));
                Err(s3_error!(InternalError))
            }
            Err(Some(error)) => Err(api_error(&error)),
        }
    }
}

fn no_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

#[async_trait::async_trait]
impl S3 for Service3 {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let region = req.region.as_ref().map_or_else(|| "us-east-1".to_owned(), |r| r.as_str().to_owned());
        let wanted = req
            .input
            .create_bucket_configuration
            .as_ref()
            .and_then(|c| c.location_constraint.as_ref())
            .map(|l| l.as_str().to_owned());
        match wanted.as_deref() {
            None if region != "us-east-1" => {
                return Err(s3_error!(
                    IllegalLocationConstraintException,
                    "The unspecified location constraint is incompatible for the region specific endpoint this request was sent to."
                ));
            }
            Some(place) if place != region => {
                return Err(s3_error!(
                    IllegalLocationConstraintException,
                    "The {place} location constraint is incompatible for the region specific endpoint this request was sent to."
                ));
            }
            _ => {}
        }
        let name = req.input.bucket;
        let mut inner = self.store().lock();
        if let Some(old) = inner.buckets.get(&name) {
            // The region of old answers a repeated request with success.
            if old.region != "us-east-1" || region != "us-east-1" {
                return Err(s3_error!(
                    BucketAlreadyOwnedByYou,
                    "Your previous request to create the named bucket succeeded and you already own it."
                ));
            }
        } else {
            inner.buckets.insert(name.clone(), Bucket { region, versioned: false, objects: BTreeMap::new() });
        }
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{name}")) }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let inner = self.store().lock();
        let bucket = inner.buckets.get(&req.input.bucket).ok_or_else(no_bucket)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(bucket.region.clone()), ..Default::default() }))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let inner = self.store().lock();
        let buckets = inner.buckets.iter().map(|(name, b)| s3s::dto::Bucket {
            name: Some(name.clone()),
            bucket_region: Some(b.region.clone()),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let inner = self.store().lock();
        let bucket = inner.buckets.get(&req.input.bucket).ok_or_else(no_bucket)?;
        let place = (bucket.region != "us-east-1").then(|| BucketLocationConstraint::from(bucket.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: place }))
    }

    async fn put_bucket_versioning(
        &self,
        req: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let mut inner = self.store().lock();
        let bucket = inner.buckets.get_mut(&req.input.bucket).ok_or_else(no_bucket)?;
        let status = req.input.versioning_configuration.status;
        bucket.versioned = status.is_some_and(|s| s.as_str() == BucketVersioningStatus::ENABLED);
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let inner = self.store().lock();
        let bucket = inner.buckets.get(&req.input.bucket).ok_or_else(no_bucket)?;
        let status = bucket.versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    async fn put_public_access_block(
        &self,
        req: S3Request<PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
        self.store().lock().buckets.get(&req.input.bucket).ok_or_else(no_bucket)?;
        Ok(S3Response::new(PutPublicAccessBlockOutput::default()))
    }

    async fn put_bucket_encryption(
        &self,
        req: S3Request<PutBucketEncryptionInput>,
    ) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
        self.store().lock().buckets.get(&req.input.bucket).ok_or_else(no_bucket)?;
        Ok(S3Response::new(PutBucketEncryptionOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mut bytes = Vec::new();
        if let Some(mut body) = input.body {
            while let Some(chunk) = body.next().await {
                bytes.extend_from_slice(&chunk.map_err(|e| S3Error::with_source(S3ErrorCode::IncompleteBody, e))?);
            }
        }
        let kind = input.content_type.map(|kind| kind.to_string());
        let when = Precondition { matches: input.if_match, none_matches: input.if_none_match };
        let now = self.0.clock.system();
        let stored = self.store().put(&input.bucket, &input.key, &bytes, About { kind, metadata: input.metadata }, &when, now)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: stored.blob.as_ref().map(Blob::etag),
            version_id: stored.version,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let stored = self.store().find(&input.bucket, &input.key, input.version_id.as_deref())?;
        let blob = stored
            .blob
            .ok_or_else(|| s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource."))?;
        let mut bytes = std::fs::read(&blob.file).map_err(|e| s3_error!(e, InternalError))?;
        let mut content_range = None;
        if let Some(range) = input.range {
            let part = range.check(bytes.len() as u64)?;
            content_range = Some(format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), bytes.len()));
            let (start, end) = (usize::try_from(part.start).unwrap_or(0), usize::try_from(part.end).unwrap_or(0));
            bytes = bytes[start..end].to_vec();
        }
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(stored.kind.unwrap_or_else(|| "binary/octet-stream".to_owned())).and_then(|k| k.parse().ok()),
            e_tag: Some(blob.etag()),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: stored.metadata,
            version_id: stored.version,
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let stored = self.store().find(&input.bucket, &input.key, input.version_id.as_deref())?;
        let blob = stored
            .blob
            .ok_or_else(|| s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource."))?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(blob.size),
            content_type: Some(stored.kind.unwrap_or_else(|| "binary/octet-stream".to_owned())).and_then(|k| k.parse().ok()),
            e_tag: Some(blob.etag()),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: stored.metadata,
            version_id: stored.version,
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let now = self.0.clock.system();
        let mut inner = self.store().lock();
        let Inner { ids, buckets } = &mut *inner;
        let bucket = buckets.get_mut(&input.bucket).ok_or_else(no_bucket)?;
        let versions = bucket.objects.entry(input.key).or_default();
        let mut output = DeleteObjectOutput::default();
        match input.version_id {
            Some(id) => {
                versions.retain(|v| v.version.as_deref().unwrap_or("null") != id);
                output.version_id = Some(id);
            }
            None if bucket.versioned => {
                let id = ids.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._", 32);
                versions.push(Stored { version: Some(id.clone()), blob: None, modified: now, kind: None, metadata: None });
                output.delete_marker = Some(true);
                output.version_id = Some(id);
            }
            None => versions.clear(),
        }
        bucket.objects.retain(|_, versions| !versions.is_empty());
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let inner = self.store().lock();
        let bucket = inner.buckets.get(&input.bucket).ok_or_else(no_bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or_else(|| input.start_after.clone()).unwrap_or_default();
        let max = usize::try_from(input.max_keys.unwrap_or(1000).clamp(0, 1000)).unwrap_or(1000);
        let (mut contents, mut groups, mut last, mut truncated) = (Vec::new(), Vec::<String>::new(), None, false);
        for (key, versions) in bucket.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after) {
            let Some(stored) = versions.last().filter(|v| v.blob.is_some()) else { continue };
            let group = (!delimiter.is_empty())
                .then(|| key[prefix.len()..].find(&delimiter).map(|at| key[..prefix.len() + at + delimiter.len()].to_owned()))
                .flatten();
            if group.as_ref().is_some_and(|group| groups.last() == Some(group)) {
                last = Some(key.clone());
                continue;
            }
            if contents.len() + groups.len() >= max {
                truncated = true;
                break;
            }
            last = Some(key.clone());
            match (group, &stored.blob) {
                (Some(group), _) => groups.push(group),
                (None, Some(blob)) => contents.push(Object {
                    key: Some(key.clone()),
                    size: Some(blob.size),
                    e_tag: Some(blob.etag()),
                    last_modified: Some(Timestamp::from(stored.modified)),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    ..Default::default()
                }),
                (None, None) => {}
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            delimiter: input.delimiter,
            max_keys: i32::try_from(max).ok(),
            key_count: i32::try_from(contents.len() + groups.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(groups.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect()),
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            is_truncated: Some(truncated),
            next_continuation_token: truncated.then_some(last).flatten(),
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let inner = self.store().lock();
        let bucket = inner.buckets.get(&input.bucket).ok_or_else(no_bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        for (key, all) in bucket.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            for (at, stored) in all.iter().enumerate().rev() {
                let (is_latest, version_id) =
                    (Some(at + 1 == all.len()), Some(stored.version.clone().unwrap_or_else(|| "null".to_owned())));
                match &stored.blob {
                    Some(blob) => versions.push(ObjectVersion {
                        key: Some(key.clone()),
                        version_id,
                        is_latest,
                        size: Some(blob.size),
                        e_tag: Some(blob.etag()),
                        last_modified: Some(Timestamp::from(stored.modified)),
                        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
                        ..Default::default()
                    }),
                    None => markers.push(DeleteMarkerEntry {
                        key: Some(key.clone()),
                        version_id,
                        is_latest,
                        last_modified: Some(Timestamp::from(stored.modified)),
                        ..Default::default()
                    }),
                }
            }
        }
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(prefix),
            versions: Some(versions),
            delete_markers: Some(markers),
            max_keys: Some(1000),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }
}
