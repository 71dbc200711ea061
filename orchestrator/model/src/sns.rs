//! SNS of one region: topics, and every message that was published to them.

use crate::world::{Turn, unknown};
use crate::{AccountId, ApiError, Millis, Region, Service};
use serde_json::{Value, json};

/// Of a subject, in characters.
const SUBJECT_LIMIT: usize = 100;
/// Of a message, in bytes.
const MESSAGE_LIMIT: usize = 262_144;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub at: Millis,
    pub topic: String,
    pub subject: String,
    pub message: String,
}

#[derive(Debug)]
pub struct Sns {
    account: AccountId,
    region: Region,
    topics: Vec<String>,
    published: Vec<Message>,
}

fn invalid(why: &str) -> ApiError {
    ApiError::new("InvalidParameter", format!("Invalid parameter: {why}"))
}

impl Sns {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        Self { account: account.clone(), region: region.clone(), topics: Vec::new(), published: Vec::new() }
    }

    /// Makes a topic and returns its ARN.
    pub fn add_topic(&mut self, name: &str) -> String {
        let arn = format!("arn:aws:sns:{}:{}:{name}", self.region, self.account);
        self.topics.push(arn.clone());
        arn
    }

    /// Oldest first.
    pub fn published(&self) -> &[Message] {
        &self.published
    }

    pub(crate) fn call(&mut self, operation: &str, body: &Value, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        match operation {
            "Publish" => self.publish(body, turn),
            other => Err(unknown(Service::Sns, other)),
        }
    }

    fn publish(&mut self, body: &Value, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let topic = text("TopicArn");
        if !self.topics.iter().any(|have| have == topic) {
            return Err(ApiError::new("NotFound", "Topic does not exist").with_status(404));
        }
        let (subject, message) = (text("Subject"), text("Message"));
        // A subject is one line of printable ASCII that begins with a letter, digit or punctuation.
        let printable = |c: char| c == ' ' || c.is_ascii_graphic();
        if subject.len() > SUBJECT_LIMIT || !subject.chars().all(printable) || subject.starts_with(' ') {
            return Err(invalid("Subject"));
        }
        if message.is_empty() {
            return Err(invalid("Empty message"));
        }
        if message.len() > MESSAGE_LIMIT {
            return Err(invalid("Message too long"));
        }
        self.published.push(Message {
            at: turn.now,
            topic: topic.to_owned(),
            subject: subject.to_owned(),
            message: message.to_owned(),
        });
        Ok(json!({"MessageId": turn.ids.uuid()}))
    }
}
