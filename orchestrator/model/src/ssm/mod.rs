//! SSM Run Command of one region (A§1.1–1.7).
//!
//! The service decides nothing about what a command did: an invocation's status is what the agent's replies and the
//! clock make of it. `Delivery Timed Out` is given when no terminal reply came in time, whether or not the work was done
//! (A§1.3), because that is the trap a client has to live with.

mod command;
mod document;
mod node;

pub use command::{Delivery, InvocationState, StepOutcome, StepState, output_block};
pub use document::{Document, DocumentVersion, RUN_SHELL_SCRIPT};
pub use node::Node;

use crate::ec2::Ec2;
use crate::world::{WorldOptions, unknown};
use crate::{AccountId, ApiError, CommandId, Ids, InstanceId, Millis, Region, Service};
use command::Command;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Ssm {
    account: AccountId,
    region: Region,
    documents: BTreeMap<String, Document>,
    nodes: BTreeMap<InstanceId, Node>,
    /// Newest last, the order of sending.
    commands: Vec<Command>,
    /// How many of the oldest commands have ended for good.
    settled: usize,
    /// Wishes to cancel that agents have not been told yet.
    cancels: Vec<Delivery>,
}

impl Ssm {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        let documents = document::owned_by_amazon().into_iter().map(|d| (d.name.clone(), d)).collect();
        Self {
            account: account.clone(),
            region: region.clone(),
            documents,
            nodes: BTreeMap::new(),
            commands: Vec::new(),
            settled: 0,
            cancels: Vec::new(),
        }
    }

    /// Registers the agent of an instance.
    pub fn register(&mut self, node: Node) {
        self.nodes.insert(node.instance.clone(), node);
    }

    pub fn node(&self, instance: &InstanceId) -> Option<&Node> {
        self.nodes.get(instance)
    }

    pub fn node_mut(&mut self, instance: &InstanceId) -> Option<&mut Node> {
        self.nodes.get_mut(instance)
    }

    pub(crate) fn call(
        &mut self,
        operation: &str,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
        ec2: &Ec2,
    ) -> Result<Value, ApiError> {
        match operation {
            "SendCommand" => self.send_command(body, now, ids, options, ec2),
            "ListCommands" => self.list_commands(body, now),
            "ListCommandInvocations" => self.list_command_invocations(body, now),
            "GetCommandInvocation" => self.get_command_invocation(body, now),
            "CancelCommand" => self.cancel_command(body, now),
            "DescribeInstanceInformation" => self.describe_instance_information(body, now, ec2),
            "CreateDocument" => self.create_document(body, now),
            "UpdateDocument" => self.update_document(body, now),
            "UpdateDocumentDefaultVersion" => self.update_document_default_version(body),
            "DescribeDocument" => self.describe_document(body, now, options),
            "GetDocument" => self.get_document(body, now, options),
            "DeleteDocument" => self.delete_document(body),
            other => Err(unknown(Service::Ssm, other)),
        }
    }

    fn command_mut(&mut self, id: &CommandId) -> Option<&mut Command> {
        self.commands.iter_mut().rev().find(|command| command.id == *id)
    }
}

/// A string member, checked for its length.
pub(crate) fn text<'a>(body: &'a Value, member: &str, max: usize) -> Result<Option<&'a str>, ApiError> {
    match &body[member] {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() <= max => Ok(Some(text)),
        Value::String(_) => Err(ApiError::validation(format!(
            "1 validation error detected: Value at '{}' failed to satisfy constraint: Member must have length less than or equal to {max}",
            lower_first(member)
        ))),
        _ => Err(ApiError::new("SerializationException", format!("{member} is not a string"))),
    }
}

/// A list of strings, of at most `max` members.
pub(crate) fn texts<'a>(body: &'a Value, member: &str, max: usize) -> Result<Vec<&'a str>, ApiError> {
    let Some(list) = body[member].as_array() else { return Ok(Vec::new()) };
    if list.len() > max {
        return Err(ApiError::validation(format!(
            "1 validation error detected: Value at '{}' failed to satisfy constraint: Member must have length less than or equal to {max}",
            lower_first(member)
        )));
    }
    Ok(list.iter().filter_map(Value::as_str).collect())
}

/// `MaxResults`, checked against its bounds.
pub(crate) fn max_results(body: &Value, low: i64, high: i64) -> Result<usize, ApiError> {
    match body["MaxResults"].as_i64() {
        None => Ok(high as usize),
        Some(n) if (low..=high).contains(&n) => Ok(n as usize),
        Some(n) => Err(ApiError::validation(format!(
            "1 validation error detected: Value '{n}' at 'maxResults' failed to satisfy constraint: Member must have value between {low} and {high}"
        ))),
    }
}

fn lower_first(member: &str) -> String {
    let mut chars = member.chars();
    chars.next().map(|c| c.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// Puts `value` under `member` unless it is absent.
pub(crate) fn put(object: &mut Value, member: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(member.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
