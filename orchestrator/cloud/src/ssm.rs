//! SSM Run Command.
//!
//! SendCommand has no client token (`A§1.1`), so it goes out once, whatever happens. The order's token travels in the
//! Comment, and [`Ssm::find`] looks for it among the commands of its time: that is how an answer that was lost is
//! found again (`A§1.5`). Results are read with one ListCommandInvocations a command, fifty hosts a page, never with
//! a call a host (`A§1.4`). What a command as a whole says is not looked at: it can be `Success` while hosts never
//! ran (`A§1.3`).

use crate::TokenBucket;
use aws_config::SdkConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::operation::send_command::builders::SendCommandFluentBuilder;
use aws_sdk_ssm::types::{
    CommandFilter, CommandFilterKey, DocumentFormat, DocumentHashType, DocumentStatus, DocumentType,
    InstanceInformationStringFilter, PingStatus,
};
use jiff::Timestamp as Instant;
use std::time::Duration;
use tde2hsm_campaign::facts::{ManagedInstance, Ping};
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::CommandId;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_document::{Document, Fetch, PARAMETER_FETCH, PARAMETER_ORDER, STEP_RUN};
pub use tde2hsm_driver::{Invocation, Stage};
use tde2hsm_protocol::{Code, Digest, InstanceId, OrderToken, Timestamp};

#[derive(Debug, Clone)]
pub struct Ssm {
    client: Client,
    bucket: TokenBucket,
}

const fn call(operation: &'static str) -> Call {
    Call { service: "ssm", operation }
}

/// A little below what users report as the point where SSM begins to throttle (`A§1.4`).
const BURST: u32 = 20;
const PER_SECOND: u32 = 8;
/// Members of one filter, and of one page (`A§1.6`).
const PAGE: usize = 50;
/// SSM takes no delivery deadline below this (`A§1.1`).
const SHORTEST_DELIVERY: i64 = 30;
const LONGEST_DELIVERY: i64 = 2_592_000;

/// A command for at most fifty hosts.
#[derive(Debug, Clone)]
pub struct Sending<'a> {
    pub document: &'a DocumentPin,
    pub instances: &'a [InstanceId],
    /// The encoded order.
    pub order: &'a str,
    pub fetch: Fetch,
    pub token: &'a OrderToken,
    /// How long SSM may try to deliver it, in seconds.
    pub delivery_seconds: i64,
}

impl Ssm {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> Ssm {
        let config = aws_sdk_ssm::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Ssm { client: Client::from_conf(config), bucket: TokenBucket::new(BURST, PER_SECOND) }
    }

    /// Sends once. An error with [`tde2hsm_cloud_call::Effect::Ambiguous`] may be a command that runs.
    pub async fn send(&self, sending: &Sending<'_>) -> Result<CommandId, CloudError> {
        let command = self
            .command(sending.document, sending.instances, sending.token, sending.delivery_seconds)
            .parameters(PARAMETER_ORDER, vec![sending.order.to_owned()])
            .parameters(PARAMETER_FETCH, vec![sending.fetch.as_str().to_owned()]);
        self.once(command).await
    }

    /// Sends a document without parameters, once.
    pub async fn send_plain(
        &self,
        document: &DocumentPin,
        instances: &[InstanceId],
        token: &OrderToken,
    ) -> Result<CommandId, CloudError> {
        self.once(self.command(document, instances, token, 120)).await
    }

    fn command(
        &self,
        document: &DocumentPin,
        instances: &[InstanceId],
        token: &OrderToken,
        delivery_seconds: i64,
    ) -> SendCommandFluentBuilder {
        let delivery = delivery_seconds.clamp(SHORTEST_DELIVERY, LONGEST_DELIVERY);
        self.client
            .send_command()
            .set_instance_ids(Some(instances.iter().map(ToString::to_string).collect()))
            .document_name(&document.name)
            .document_version(&document.version)
            .document_hash(document.hash.to_string())
            .document_hash_type(DocumentHashType::Sha256)
            .timeout_seconds(i32::try_from(delivery).expect("clamped to 2,592,000"))
            .comment(token.as_str())
            // How many hosts work at once is decided by whoever made this batch, and one host's failure must not
            // keep the order from another.
            .max_concurrency(PAGE.to_string())
            .max_errors("100%")
    }

    async fn once(&self, command: SendCommandFluentBuilder) -> Result<CommandId, CloudError> {
        self.bucket.take().await;
        let once = aws_sdk_ssm::config::Builder::new().retry_config(RetryConfig::disabled());
        let answer = command.customize().config_override(once).send().await.map_err(|e| sort(call("SendCommand"), e))?;
        let id = answer.command().and_then(|command| command.command_id()).unwrap_or_default();
        // An answer without an id is as good as a lost one.
        CommandId::new(id).map_err(|why| CloudError {
            effect: tde2hsm_cloud_call::Effect::Ambiguous,
            ..CloudError::found(call("SendCommand"), Code::SEND_UNCERTAIN, why)
        })
    }

    /// Commands with this document whose Comment is the token, sent at or after `since`. More than one means that
    /// something sent twice; hosts answer the second from their journal.
    pub async fn find(&self, document: &DocumentPin, token: &OrderToken, since: Timestamp) -> Result<Vec<CommandId>, CloudError> {
        let after = Instant::from_second(since.0).unwrap_or(Instant::UNIX_EPOCH).to_string();
        let filter = |key, value: &str| {
            CommandFilter::builder()
                .key(key)
                .value(value)
                .build()
                .map_err(|e| CloudError::found(call("ListCommands"), Code::AWS_INVALID, e.to_string()))
        };
        let filters =
            vec![filter(CommandFilterKey::InvokedAfter, &after)?, filter(CommandFilterKey::DocumentName, &document.name)?];
        let mut found = Vec::new();
        let mut next = None;
        loop {
            self.bucket.take().await;
            let page = self
                .client
                .list_commands()
                .set_filters(Some(filters.clone()))
                .max_results(PAGE as i32)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| sort(call("ListCommands"), e))?;
            let ours = page.commands().iter().filter(|command| command.comment() == Some(token.as_str()));
            found.extend(ours.filter_map(|command| CommandId::new(command.command_id()?).ok()));
            next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Every host's part of a command. Right after sending the list may be short or empty: what is absent is not
    /// known yet, never "not sent" (`A§1.2`).
    pub async fn invocations(&self, command: &CommandId) -> Result<Vec<Invocation>, CloudError> {
        let mut found = Vec::new();
        let mut next = None;
        loop {
            self.bucket.take().await;
            let page = self
                .client
                .list_command_invocations()
                .command_id(command.as_str())
                .details(true)
                .max_results(PAGE as i32)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| sort(call("ListCommandInvocations"), e))?;
            for invocation in page.command_invocations() {
                let Ok(instance) = InstanceId::new(invocation.instance_id().unwrap_or_default()) else { continue };
                let details = invocation.status_details().unwrap_or_default().to_owned();
                let run = invocation.command_plugins().iter().find(|plugin| plugin.name() == Some(STEP_RUN));
                let stage = stage(invocation.status().map_or("", |s| s.as_str()), &details);
                let output = run.and_then(|plugin| plugin.output()).filter(|_| stage == Stage::Over).map(str::to_owned);
                found.push(Invocation { instance, stage, details, output });
            }
            next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Instances that SSM manages, of those with the given ids; any other is absent.
    pub async fn managed(&self, ids: &[InstanceId]) -> Result<Vec<ManagedInstance>, CloudError> {
        let mut found = Vec::new();
        for ids in ids.chunks(PAGE) {
            let values: Vec<String> = ids.iter().map(ToString::to_string).collect();
            found.extend(self.managed_by("InstanceIds", values).await?);
        }
        Ok(found)
    }

    async fn managed_by(&self, key: &str, values: Vec<String>) -> Result<Vec<ManagedInstance>, CloudError> {
        const CALL: Call = call("DescribeInstanceInformation");
        let filter = InstanceInformationStringFilter::builder()
            .key(key)
            .set_values(Some(values))
            .build()
            .map_err(|e| CloudError::found(CALL, Code::AWS_INVALID, e.to_string()))?;
        let mut found = Vec::new();
        let mut next = None;
        loop {
            self.bucket.take().await;
            let page = self
                .client
                .describe_instance_information()
                .filters(filter.clone())
                .max_results(PAGE as i32)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| sort(CALL, e))?;
            found.extend(page.instance_information_list().iter().filter_map(|info| {
                Some(ManagedInstance {
                    instance: InstanceId::new(info.instance_id()?).ok()?,
                    ping: match info.ping_status() {
                        Some(PingStatus::Online) => Ping::Online,
                        Some(PingStatus::ConnectionLost) => Ping::ConnectionLost,
                        Some(PingStatus::Inactive) => Ping::Inactive,
                        _ => Ping::Unknown,
                    },
                    agent_version: info.agent_version().unwrap_or_default().to_owned(),
                    platform: info.platform_type().map(|p| p.as_str().to_owned()).unwrap_or_default(),
                })
            }));
            next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The document's newest version; `None`: there is no such document.
    pub async fn document(&self, name: &str) -> Result<Option<DocumentPin>, CloudError> {
        self.document_version(name, "$LATEST").await.map(|found| found.map(|(pin, _)| pin))
    }

    async fn document_version(&self, name: &str, version: &str) -> Result<Option<(DocumentPin, bool)>, CloudError> {
        const CALL: Call = call("DescribeDocument");
        self.bucket.take().await;
        let found = match self.client.describe_document().name(name).document_version(version).send().await {
            Ok(found) => found,
            Err(e) => {
                let error = sort(CALL, e);
                return if error.is(&["InvalidDocument"]) { Ok(None) } else { Err(error) };
            }
        };
        let described =
            found.document().ok_or_else(|| CloudError::found(CALL, Code::AWS_INVALID, "the answer describes no document"))?;
        let hash: Digest = described
            .hash()
            .and_then(|hash| hash.parse().ok())
            .ok_or_else(|| CloudError::found(CALL, Code::AWS_INVALID, "the answer names no SHA-256 hash"))?;
        let version = described.document_version().unwrap_or_default().to_owned();
        let active = described.status() == Some(&DocumentStatus::Active);
        Ok(Some((DocumentPin { name: name.to_owned(), version, hash }, active)))
    }

    /// That the pinned version is there, active, and still has the pinned hash (H34).
    pub async fn check_document(&self, pin: &DocumentPin) -> Result<(), CloudError> {
        const CALL: Call = call("DescribeDocument");
        let found = match self.document_version(&pin.name, &pin.version).await {
            Err(e) if e.is(&["InvalidDocumentVersion"]) => None,
            found => found?,
        };
        match found {
            None => {
                let message = format!("there is no version {} of the SSM document `{}`", pin.version, pin.name);
                Err(CloudError::found(CALL, Code::DOCUMENT_MISSING, message))
            }
            Some((found, _)) if found.hash != pin.hash => {
                let message = format!("version {} of the SSM document `{}` has another hash than planned", pin.version, pin.name);
                Err(CloudError::found(CALL, Code::DOCUMENT_CHANGED, message))
            }
            Some(_) => Ok(()),
        }
    }

    /// The text of one version of a document, believed only if it has the pinned hash.
    pub async fn document_text(&self, pin: &DocumentPin) -> Result<String, CloudError> {
        const CALL: Call = call("GetDocument");
        self.bucket.take().await;
        let found =
            self.client.get_document().name(&pin.name).document_version(&pin.version).send().await.map_err(|e| sort(CALL, e))?;
        let text = found.content().unwrap_or_default().to_owned();
        if Digest::of(text.as_bytes()) != pin.hash {
            return Err(CloudError::found(CALL, Code::DOCUMENT_CHANGED, "its text does not have the hash that SSM names"));
        }
        Ok(text)
    }

    /// Creates the document, or a new version of it, and waits until that may be sent. A version with the same text
    /// is used as it is.
    pub async fn ensure_document(&self, name: &str, document: &Document) -> Result<(DocumentPin, crate::s3::Made), CloudError> {
        use crate::s3::Made;
        let made = match self.document(name).await? {
            Some(pin) if pin.hash == document.sha256 => Made::WasThere,
            Some(_) => {
                self.bucket.take().await;
                self.client
                    .update_document()
                    .name(name)
                    .content(&document.text)
                    .document_version("$LATEST")
                    .document_format(DocumentFormat::Json)
                    .send()
                    .await
                    .map_err(|e| sort(call("UpdateDocument"), e))
                    .map(|_| Made::New)
                    .or_else(|e| if e.is(&["DuplicateDocumentContent"]) { Ok(Made::WasThere) } else { Err(e) })?
            }
            None => {
                self.bucket.take().await;
                self.client
                    .create_document()
                    .name(name)
                    .content(&document.text)
                    .document_type(DocumentType::Command)
                    .document_format(DocumentFormat::Json)
                    .target_type("/AWS::EC2::Instance")
                    .send()
                    .await
                    .map_err(|e| sort(call("CreateDocument"), e))?;
                Made::New
            }
        };
        let pin = self.active_version(name, document.sha256).await?;
        Ok((pin, made))
    }

    /// Waits for the version with this hash to become active. An older version may be the one that fits: the newest
    /// is tried first.
    async fn active_version(&self, name: &str, hash: Digest) -> Result<DocumentPin, CloudError> {
        const TRIES: u32 = 60;
        for _ in 0..TRIES {
            let Some((newest, active)) = self.document_version(name, "$LATEST").await? else { continue };
            if newest.hash == hash && active {
                return Ok(newest);
            }
            if newest.hash != hash {
                let last: u32 = newest.version.parse().unwrap_or(0);
                for number in (1..last).rev() {
                    match self.document_version(name, &number.to_string()).await {
                        Ok(Some((pin, true))) if pin.hash == hash => return Ok(pin),
                        Ok(_) => {}
                        Err(e) if e.is(&["InvalidDocumentVersion"]) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(CloudError::found(call("DescribeDocument"), Code::AWS_FAILED, "the document's version does not become active"))
    }

    pub async fn delete_document(&self, name: &str) -> Result<bool, CloudError> {
        self.bucket.take().await;
        match self.client.delete_document().name(name).send().await.map_err(|e| sort(call("DeleteDocument"), e)) {
            Ok(_) => Ok(true),
            Err(e) if e.is(&["InvalidDocument"]) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// A word of SSM that this program does not know leaves the invocation open: it is asked again, and the order's own
/// window ends the waiting.
fn stage(status: &str, details: &str) -> Stage {
    const OVER: [&str; 10] = [
        "Success",
        "Failed",
        "DeliveryTimedOut",
        "ExecutionTimedOut",
        "Cancelled",
        "Undeliverable",
        "Terminated",
        "InvalidPlatform",
        "AccessDenied",
        "TimedOut",
    ];
    let details: String = details.chars().filter(|c| !c.is_whitespace()).collect();
    if OVER.contains(&details.as_str()) || OVER.contains(&status) { Stage::Over } else { Stage::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A§1.3: every StatusDetails of an invocation, in both spellings that the documentation has.
    #[test]
    fn every_status_is_open_or_over() {
        for details in ["Pending", "In Progress", "InProgress", "Delayed", "", "a word of next year"] {
            assert_eq!(stage("InProgress", details), Stage::Open, "{details}");
        }
        for details in ["Success", "Failed", "Delivery Timed Out", "DeliveryTimedOut", "Execution Timed Out", "Cancelled"] {
            assert_eq!(stage("InProgress", details), Stage::Over, "{details}");
        }
        for details in ["Undeliverable", "Terminated", "Invalid Platform", "Access Denied"] {
            assert_eq!(stage("Pending", details), Stage::Over, "{details}");
        }
        assert_eq!(stage("TimedOut", "a word of next year"), Stage::Over);
    }
}
