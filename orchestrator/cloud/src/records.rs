//! The records bucket: objects that are written only where there is none, or only over the one that was read.
//!
//! A conditional write goes out once. Sent again by the SDK after a lost answer, it would find its own first try and be told
//! that it lost (`A§6`); so `Lost` means another's write, and an answer that is lost stays ambiguous.

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::primitives::ByteStream;
use tde2hsm_cloud_call::{Call, CloudError, Effect, Ledger, sort, timeouts};
use tde2hsm_dr_driver::{Object, ObjectInfo, Put, Wrote};
use tde2hsm_protocol::{AccountId, Code, Timestamp};

#[derive(Debug, Clone)]
pub struct Records {
    client: Client,
    bucket: String,
    /// Every call names who has to own the bucket: its name alone says nothing about whose it is.
    owner: AccountId,
}

const fn call(operation: &'static str) -> Call {
    Call { service: "s3", operation }
}

impl Records {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger, bucket: String, owner: AccountId) -> Records {
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts())
            .force_path_style(true)
            .interceptor(ledger.clone())
            .build();
        Records { client: Client::from_conf(config), bucket, owner }
    }

    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, CloudError> {
        let mut found = Vec::new();
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).expected_bucket_owner(self.owner.as_str());
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("ListObjectsV2"), e))?;
            found.extend(page.contents().iter().filter_map(|object| {
                let modified = Timestamp(object.last_modified()?.secs());
                let etag = object.e_tag().unwrap_or_default().to_owned();
                Some(ObjectInfo { key: object.key()?.to_owned(), etag, modified })
            }));
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// `None`: there is no such object.
    pub async fn get(&self, key: &str) -> Result<Option<Object>, CloudError> {
        const GET: Call = call("GetObject");
        let get = self.client.get_object().bucket(&self.bucket).key(key).expected_bucket_owner(self.owner.as_str());
        let found = match get.send().await {
            Ok(found) => found,
            Err(e) if status(&e) == Some(404) => return Ok(None),
            Err(e) => return Err(sort(GET, e)),
        };
        let etag = found.e_tag().unwrap_or_default().to_owned();
        let modified = Timestamp(found.last_modified().map_or(0, |at| at.secs()));
        let body = found.body.collect().await.map_err(|e| CloudError {
            effect: Effect::Ambiguous,
            ..CloudError::found(GET, Code::AWS_UNREACHABLE, e.to_string())
        })?;
        Ok(Some(Object { key: key.to_owned(), body: body.to_vec(), etag, modified }))
    }

    /// Sends once.
    pub async fn put(&self, key: &str, body: &[u8], when: &Put) -> Result<Wrote, CloudError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .expected_bucket_owner(self.owner.as_str())
            .content_type("application/json")
            .body(ByteStream::from(body.to_vec()));
        let put = match when {
            Put::New => put.if_none_match("*"),
            Put::Over(etag) => put.if_match(etag),
        };
        let once = aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled());
        match put.customize().config_override(once).send().await {
            Ok(done) => Ok(Wrote::Yes(done.e_tag().unwrap_or_default().to_owned())),
            // 412: the condition does not hold; 409: another write is under way; 404: what was to be written over is gone.
            Err(e) if matches!(status(&e), Some(404 | 409 | 412)) && !missing_bucket(&e) => Ok(Wrote::Lost),
            Err(e) => Err(sort(call("PutObject"), e)),
        }
    }

    pub async fn delete(&self, key: &str) -> Result<(), CloudError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key).expected_bucket_owner(self.owner.as_str());
        delete.send().await.map(drop).map_err(|e| sort(call("DeleteObject"), e))
    }
}

type SdkError<E> = aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>;

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|raw| raw.status().as_u16())
}

fn missing_bucket<E: aws_sdk_s3::error::ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    use aws_sdk_s3::error::ProvideErrorMetadata as _;
    error.code() == Some("NoSuchBucket")
}
