//! Commands and their invocations (A§1.1–1.3).

use super::document::{check_parameters, plain};
use super::{Ssm, max_results, put, text, texts};
use crate::ec2::Ec2;
use crate::page::page;
use crate::time::iso_duration;
use crate::world::WorldOptions;
use crate::{ApiError, CommandId, Effect, Faults, Ids, InstanceId, Millis, Region};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What ListCommandInvocations shows of stdout and stderr together, in bytes.
const LIST_OUTPUT: usize = 2_500;
/// What GetCommandInvocation shows.
const GET_STDOUT: usize = 24_000;
const GET_STDERR: usize = 8_000;
/// An offline agent turns a pending delivery into a delayed one after this long.
const DELAYED_AFTER_MS: i64 = 5_000;
/// The document and its rendered parameters together.
const MAX_RENDERED: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    InProgress,
    Success,
    /// A precondition did not hold; looks like success (A§1.7).
    Skipped,
    Failed,
    TimedOut,
    Cancelled,
}

/// What the agent says of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOutcome {
    pub name: String,
    pub state: StepState,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub started: Millis,
    pub finished: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvocationState {
    Pending,
    Delayed,
    InProgress,
    Success,
    Failed,
    Cancelled,
    DeliveryTimedOut,
    ExecutionTimedOut,
    Undeliverable,
    Terminated,
}

impl InvocationState {
    /// `(Status, StatusDetails)`.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pending => ("Pending", "Pending"),
            Self::Delayed => ("Delayed", "Delayed"),
            Self::InProgress => ("InProgress", "InProgress"),
            Self::Success => ("Success", "Success"),
            Self::Failed => ("Failed", "Failed"),
            Self::Cancelled => ("Cancelled", "Cancelled"),
            Self::DeliveryTimedOut => ("TimedOut", "DeliveryTimedOut"),
            Self::ExecutionTimedOut => ("TimedOut", "ExecutionTimedOut"),
            Self::Undeliverable => ("Failed", "Undeliverable"),
            Self::Terminated => ("Cancelled", "Terminated"),
        }
    }

    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Delayed | Self::InProgress)
    }

    const fn counts_as_error(self) -> bool {
        matches!(self, Self::Failed | Self::ExecutionTimedOut)
    }
}

#[derive(Debug, Clone)]
struct Invocation {
    state: InvocationState,
    due: Millis,
    delivered: bool,
    steps: Vec<StepOutcome>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) id: CommandId,
    document: String,
    version: String,
    content: Value,
    /// As given, which is how they are shown.
    given: Value,
    parameters: BTreeMap<String, Value>,
    comment: String,
    instances: Vec<InstanceId>,
    targets: Value,
    requested: Millis,
    visible: Millis,
    deliver_by: Millis,
    expires: Millis,
    timeout_secs: i64,
    max_concurrency: String,
    max_errors: String,
    bucket: String,
    prefix: String,
    cancelling: bool,
    invocations: BTreeMap<InstanceId, Invocation>,
    /// Deliveries that are still to be made outside the normal course: late or second ones.
    strays: Vec<(Millis, InstanceId)>,
}

/// A command on its way to an agent, or a wish to cancel one.
#[derive(Debug, Clone)]
pub struct Delivery {
    instance: InstanceId,
    command: CommandId,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Run { document_name: String, document: Value, parameters: BTreeMap<String, Value> },
    Cancel,
}

impl Delivery {
    pub(crate) fn into_effect(self, region: &Region) -> Effect {
        let Self { instance, command, what } = self;
        match what {
            What::Run { document_name, document, parameters } => {
                Effect::Deliver { region: region.clone(), instance, command, document_name, document, parameters }
            }
            What::Cancel => Effect::Cancel { region: region.clone(), instance, command },
        }
    }
}

impl Command {
    fn delivery(&self, instance: &InstanceId) -> Delivery {
        Delivery {
            instance: instance.clone(),
            command: self.id.clone(),
            what: What::Run {
                document_name: self.document.clone(),
                document: self.content.clone(),
                parameters: self.parameters.clone(),
            },
        }
    }

    fn limit(text: &str, of: usize) -> usize {
        match text.strip_suffix('%') {
            Some(percent) => percent.parse::<usize>().unwrap_or(0) * of / 100,
            None => text.parse().unwrap_or(0),
        }
    }

    fn errors(&self) -> usize {
        self.invocations.values().filter(|i| i.state.counts_as_error()).count()
    }

    /// `(Status, StatusDetails)` of the whole. An unreachable node does not spoil it (A§1.3, the aggregate trap).
    fn status(&self) -> (&'static str, &'static str) {
        let states: Vec<InvocationState> = self.invocations.values().map(|i| i.state).collect();
        let any = |wanted: InvocationState| states.contains(&wanted);
        if states.is_empty() {
            return ("Success", "NoInstancesInTag");
        }
        if states.iter().any(|state| !state.is_terminal()) {
            return match () {
                () if self.cancelling => ("Cancelling", "Cancelling"),
                () if states.iter().all(|s| matches!(s, InvocationState::Pending | InvocationState::Delayed)) => {
                    ("Pending", "Pending")
                }
                () => ("InProgress", "InProgress"),
            };
        }
        match () {
            () if any(InvocationState::Terminated) => ("Failed", "Incomplete"),
            () if any(InvocationState::Failed) => ("Failed", "Failed"),
            () if any(InvocationState::ExecutionTimedOut) => ("TimedOut", "ExecutionTimedOut"),
            () if any(InvocationState::Cancelled) => ("Cancelled", "Cancelled"),
            () if any(InvocationState::DeliveryTimedOut) => ("TimedOut", "DeliveryTimedOut"),
            () => ("Success", "Success"),
        }
    }

    fn describe(&self) -> Value {
        let (status, details) = self.status();
        let done = self.invocations.values().filter(|i| i.state.is_terminal()).count();
        let timed_out = self.invocations.values().filter(|i| i.state == InvocationState::DeliveryTimedOut).count();
        let mut row = json!({
            "CommandId": self.id.as_str(),
            "DocumentName": self.document,
            "DocumentVersion": self.version,
            "Comment": self.comment,
            "ExpiresAfter": self.expires.epoch(),
            "Parameters": self.given,
            "InstanceIds": self.instances.iter().map(InstanceId::as_str).collect::<Vec<_>>(),
            "Targets": self.targets,
            "RequestedDateTime": self.requested.epoch(),
            "Status": status,
            "StatusDetails": details,
            "MaxConcurrency": self.max_concurrency,
            "MaxErrors": self.max_errors,
            "TargetCount": self.invocations.len(),
            "CompletedCount": done,
            "ErrorCount": self.errors(),
            "DeliveryTimedOutCount": timed_out,
            "ServiceRole": "",
            "NotificationConfig": {"NotificationArn": "", "NotificationEvents": []},
            "CloudWatchOutputConfig": {"CloudWatchOutputEnabled": false},
            "TimeoutSeconds": self.timeout_secs,
        });
        put(&mut row, "OutputS3BucketName", present(&self.bucket));
        put(&mut row, "OutputS3KeyPrefix", present(&self.prefix));
        row
    }
}

/// The patterns of MaxConcurrency and MaxErrors.
fn rate(body: &Value, member: &str, pattern: &str, default: &str) -> Result<String, ApiError> {
    let value = text(body, member, 7)?.unwrap_or(default);
    if Regex::new(pattern).expect("the pattern is a constant").is_match(value) {
        return Ok(value.to_owned());
    }
    Err(ApiError::validation(format!("Value '{value}' at '{member}' failed to satisfy constraint: {pattern}")))
}

impl Ssm {
    pub(super) fn send_command(
        &mut self,
        body: &Value,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
        ec2: &Ec2,
    ) -> Result<Value, ApiError> {
        let named = texts(body, "InstanceIds", 50)?;
        let distinct: BTreeSet<&str> = named.iter().copied().collect();
        if distinct.len() != named.len() {
            return Err(ApiError::new("DuplicateInstanceId", "You cannot specify an instance ID in more than one association."));
        }
        let targets = body["Targets"].as_array().cloned().unwrap_or_default();
        if named.is_empty() == targets.is_empty() {
            return Err(ApiError::validation("Specify either InstanceIds or Targets"));
        }
        let document = self.document(text(body, "DocumentName", 256)?.unwrap_or_default())?;
        let version = document.version(text(body, "DocumentVersion", 8)?)?;
        if !Self::usable(version, now, options) {
            return Err(ApiError::new("InvalidDocument", format!("Document {} is not active yet", document.name)));
        }
        if let Some(hash) = text(body, "DocumentHash", 256)?
            && hash != version.hash()
        {
            return Err(ApiError::new("InvalidDocument", "The document hash does not match the document"));
        }
        let comment = text(body, "Comment", 100)?.unwrap_or_default().to_owned();
        let timeout_secs = body["TimeoutSeconds"].as_i64().unwrap_or(3600);
        if !(30..=2_592_000).contains(&timeout_secs) {
            return Err(ApiError::validation(format!(
                "1 validation error detected: Value '{timeout_secs}' at 'timeoutSeconds' failed to satisfy constraint: Member must have value between 30 and 2592000"
            )));
        }
        let parameters = check_parameters(&version.content, &body["Parameters"])?;
        if version.text.len() + parameters.values().map(|v| plain(v).len()).sum::<usize>() > MAX_RENDERED {
            return Err(ApiError::new("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB."));
        }
        let max_concurrency = rate(body, "MaxConcurrency", r"^([1-9][0-9]*|[1-9][0-9]%|[1-9]%|100%)$", "50")?;
        let max_errors = rate(body, "MaxErrors", r"^([1-9][0-9]*|[0]|[1-9][0-9]%|[0-9]%|100%)$", "0")?;

        // One id that is not in a valid state rejects the whole call (A§1.1).
        let bad: Vec<&str> = named.iter().copied().filter(|id| !self.may_receive(&InstanceId::new(*id), ec2)).collect();
        if !bad.is_empty() {
            return Err(ApiError::new(
                "InvalidInstanceId",
                format!("Instances [[{}]] not in a valid state for account {}", bad.join(", "), self.account),
            ));
        }
        let instances: Vec<InstanceId> = named.iter().map(|id| InstanceId::new(*id)).collect();
        let mut reached = instances.clone();
        if !targets.is_empty() {
            for id in self.nodes.keys().filter(|id| self.may_receive(id, ec2)) {
                if targets.iter().try_fold(true, |all, target| Ok::<_, ApiError>(all && targeted(target, id, ec2)?))? {
                    reached.push(id.clone());
                }
            }
        }

        let due = now.plus_ms(ids.between(0, options.delivery_ms));
        let execution_secs = execution_timeout(&version.content, &parameters);
        let command = Command {
            id: CommandId::new(ids.uuid()),
            document: document.name.clone(),
            version: body["DocumentVersion"].as_str().unwrap_or("$DEFAULT").to_owned(),
            content: version.content.clone(),
            given: if body["Parameters"].is_object() { body["Parameters"].clone() } else { json!({}) },
            parameters,
            comment,
            instances,
            targets: Value::from(targets),
            requested: now,
            visible: now.plus_ms(ids.between(0, options.visibility_lag_ms)),
            deliver_by: now.plus_secs(timeout_secs),
            expires: now.plus_secs(timeout_secs + execution_secs),
            timeout_secs,
            max_concurrency,
            max_errors,
            bucket: text(body, "OutputS3BucketName", 63)?.unwrap_or_default().to_owned(),
            prefix: text(body, "OutputS3KeyPrefix", 500)?.unwrap_or_default().to_owned(),
            cancelling: false,
            invocations: reached
                .into_iter()
                .map(|id| (id, Invocation { state: InvocationState::Pending, due, delivered: false, steps: Vec::new() }))
                .collect(),
            strays: Vec::new(),
        };
        let reply = json!({"Command": command.describe()});
        self.commands.push(command);
        Ok(reply)
    }

    /// Running, Pending, Stopped, Stopping (A§1.1).
    fn may_receive(&self, id: &InstanceId, ec2: &Ec2) -> bool {
        self.nodes.contains_key(id) && matches!(ec2.state(id), Some("running" | "pending" | "stopped" | "stopping"))
    }

    /// Whether a command waits for a moment: to be delivered, or to time out.
    /// An invocation has not ended.
    pub fn is_busy(&self) -> bool {
        let waits =
            |command: &Command| !command.strays.is_empty() || command.invocations.values().any(|i| !i.state.is_terminal());
        self.commands[self.settled..].iter().any(waits)
    }

    /// Lets time pass over every command that is not finished.
    pub(crate) fn tick(
        &mut self,
        now: Millis,
        ids: &mut Ids,
        options: &WorldOptions,
        faults: &mut Faults,
        ec2: &Ec2,
    ) -> Vec<Delivery> {
        let mut out = std::mem::take(&mut self.cancels);
        // Commands that lie behind this mark have ended; a long campaign sends thousands.
        let settled =
            |command: &Command| command.strays.is_empty() && command.invocations.values().all(|i| i.state.is_terminal());
        while self.commands.get(self.settled).is_some_and(settled) {
            self.settled += 1;
        }
        let nodes = &self.nodes;
        for command in &mut self.commands[self.settled..] {
            let due: Vec<InstanceId> = command.strays.iter().filter(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
            command.strays.retain(|(at, _)| *at > now);
            out.extend(due.iter().map(|id| command.delivery(id)));

            if command.invocations.values().all(|i| i.state.is_terminal()) {
                continue;
            }
            let stopped = command.errors() > Command::limit(&command.max_errors, command.invocations.len());
            let width = Command::limit(&command.max_concurrency, command.invocations.len()).max(1);
            let mut in_flight = command.invocations.values().filter(|i| i.delivered && !i.state.is_terminal()).count();
            let mut deliver = Vec::new();
            for (id, invocation) in &mut command.invocations {
                if invocation.state.is_terminal() {
                    continue;
                }
                if !invocation.delivered && stopped {
                    invocation.state = InvocationState::Terminated;
                    continue;
                }
                if now >= command.expires || (!invocation.delivered && now >= command.deliver_by) {
                    invocation.state = InvocationState::DeliveryTimedOut;
                    continue;
                }
                if invocation.delivered || command.cancelling || now < invocation.due || in_flight >= width {
                    continue;
                }
                let Some(node) = nodes.get(id) else { continue };
                if node.undeliverable {
                    invocation.state = InvocationState::Undeliverable;
                    continue;
                }
                if !node.online || ec2.state(id) != Some("running") {
                    if now.since(invocation.due) > DELAYED_AFTER_MS {
                        invocation.state = InvocationState::Delayed;
                    }
                    continue;
                }
                invocation.delivered = true;
                in_flight += 1;
                deliver.push(id.clone());
            }
            for id in deliver {
                match &mut faults.deliver_late {
                    Some((left, ms)) if *left > 0 => {
                        *left -= 1;
                        command.strays.push((now.plus_ms(*ms), id.clone()));
                    }
                    _ => out.push(command.delivery(&id)),
                }
                if faults.deliver_twice > 0 {
                    faults.deliver_twice -= 1;
                    command.strays.push((now.plus_ms(ids.between(0, options.delivery_ms)), id));
                }
            }
        }
        out
    }

    /// Delivers an old command once more, to `instance`, whether or not it was meant for it (H31). False when there is no
    /// such command.
    pub fn redeliver(&mut self, id: &CommandId, instance: &InstanceId) -> bool {
        let Some(at) = self.commands.iter().position(|command| command.id == *id) else { return false };
        self.commands[at].strays.push((Millis(i64::MIN), instance.clone()));
        self.settled = self.settled.min(at);
        true
    }

    /// Every command so far with the comment it was sent with, oldest first.
    pub fn sent(&self) -> impl Iterator<Item = (&CommandId, &str)> {
        self.commands.iter().map(|command| (&command.id, command.comment.as_str()))
    }

    /// The agent says that it has begun.
    pub fn agent_started(&mut self, id: &CommandId, instance: &InstanceId) {
        if let Some(invocation) = self.command_mut(id).and_then(|c| c.invocations.get_mut(instance))
            && !invocation.state.is_terminal()
        {
            invocation.state = InvocationState::InProgress;
        }
    }

    /// The agent says how far it is.
    pub fn agent_progress(&mut self, id: &CommandId, instance: &InstanceId, steps: Vec<StepOutcome>) {
        if let Some(invocation) = self.command_mut(id).and_then(|c| c.invocations.get_mut(instance))
            && !invocation.state.is_terminal()
        {
            invocation.steps = steps;
        }
    }

    /// The agent's terminal reply. A command that has its final status already keeps it.
    pub fn agent_finished(&mut self, id: &CommandId, instance: &InstanceId, steps: Vec<StepOutcome>, faults: &mut Faults) {
        if faults.lose_terminal_reply > 0 {
            faults.lose_terminal_reply -= 1;
            return;
        }
        let Some(invocation) = self.command_mut(id).and_then(|c| c.invocations.get_mut(instance)) else { return };
        if invocation.state.is_terminal() {
            return;
        }
        let any = |state: StepState| steps.iter().any(|step| step.state == state);
        invocation.state = match () {
            () if any(StepState::Cancelled) => InvocationState::Cancelled,
            () if any(StepState::TimedOut) => InvocationState::ExecutionTimedOut,
            () if any(StepState::Failed) => InvocationState::Failed,
            () => InvocationState::Success,
        };
        invocation.steps = steps;
    }

    pub(super) fn cancel_command(&mut self, body: &Value, _now: Millis) -> Result<Value, ApiError> {
        let named = texts(body, "InstanceIds", 50)?.into_iter().map(InstanceId::new).collect::<Vec<_>>();
        let id = CommandId::new(body["CommandId"].as_str().unwrap_or_default());
        let command = self.command_mut(&id).ok_or_else(|| ApiError::new("InvalidCommandId", "The command id is not valid"))?;
        if let Some(bad) = named.iter().find(|id| !command.invocations.contains_key(*id)) {
            return Err(ApiError::new("InvalidInstanceId", format!("The instance {bad} is not part of the command")));
        }
        command.cancelling = true;
        let mut wishes = Vec::new();
        for (instance, invocation) in &mut command.invocations {
            if invocation.state.is_terminal() || (!named.is_empty() && !named.contains(instance)) {
                continue;
            }
            if invocation.delivered {
                wishes.push(instance.clone());
            } else {
                invocation.state = InvocationState::Cancelled;
            }
        }
        self.cancels.extend(wishes.into_iter().map(|instance| Delivery { instance, command: id.clone(), what: What::Cancel }));
        Ok(json!({}))
    }

    pub(super) fn list_commands(&self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let max = max_results(body, 1, 50)?;
        let mut rows = Vec::new();
        for command in self.commands.iter().rev().filter(|c| c.visible <= now) {
            let (status, details) = command.status();
            let executing = matches!(status, "Pending" | "InProgress" | "Cancelling");
            let instance = body["InstanceId"].as_str();
            let fits = body["CommandId"].as_str().is_none_or(|id| id == command.id.as_str())
                && instance.is_none_or(|id| command.invocations.contains_key(id))
                && filters(body, &|key, value| match key {
                    "Status" => Some(value == status || value == details),
                    "DocumentName" => Some(value == command.document),
                    "ExecutionStage" => Some((value == "Executing") == executing),
                    _ => by_time(key, value, command.requested),
                })?;
            if fits {
                rows.push(command.describe());
            }
        }
        let scope = format!("commands{}{}{}", body["CommandId"], body["InstanceId"], body["Filters"]);
        let (rows, next) = page(&rows, &scope, max, body["NextToken"].as_str(), "InvalidNextToken")?;
        let mut reply = json!({"Commands": rows});
        put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    pub(super) fn list_command_invocations(&self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let max = max_results(body, 1, 50)?;
        let details = body["Details"].as_bool().unwrap_or(false);
        let wanted = body["CommandId"].as_str();
        if let Some(id) = wanted
            && id.len() != 36
        {
            return Err(ApiError::validation("Value at 'commandId' failed to satisfy constraint: Member must have length 36"));
        }
        let mut rows = Vec::new();
        for command in self.commands.iter().rev().filter(|c| c.visible <= now) {
            for (instance, invocation) in &command.invocations {
                let (status, status_details) = invocation.state.names();
                let fits = wanted.is_none_or(|id| id == command.id.as_str())
                    && body["InstanceId"].as_str().is_none_or(|id| id == instance.as_str())
                    && filters(body, &|key, value| match key {
                        "Status" => Some(value == status || value == status_details),
                        "DocumentName" => Some(value == command.document),
                        _ => by_time(key, value, command.requested),
                    })?;
                if fits {
                    rows.push(describe_invocation(command, instance, invocation, details));
                }
            }
        }
        let scope = format!("invocations{}{}{}", body["CommandId"], body["InstanceId"], body["Filters"]);
        let (rows, next) = page(&rows, &scope, max, body["NextToken"].as_str(), "InvalidNextToken")?;
        let mut reply = json!({"CommandInvocations": rows});
        put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }

    pub(super) fn get_command_invocation(&self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let (id, instance) = (body["CommandId"].as_str().unwrap_or_default(), body["InstanceId"].as_str().unwrap_or_default());
        let absent = || ApiError::new("InvocationDoesNotExist", "");
        let command = self.commands.iter().find(|c| c.id.as_str() == id && c.visible <= now).ok_or_else(absent)?;
        let invocation = command.invocations.get(instance).ok_or_else(absent)?;
        let plugins = plugin_names(&command.content);
        let plugin = match body["PluginName"].as_str() {
            Some(name) if plugins.iter().any(|p| p == name) => name.to_owned(),
            None if plugins.len() == 1 => plugins[0].clone(),
            _ => return Err(ApiError::new("InvalidPluginName", "")),
        };
        let (status, details) = invocation.state.names();
        let step = invocation.steps.iter().find(|step| step.name == plugin && step.state != StepState::InProgress);
        let mut reply = json!({
            "CommandId": id,
            "InstanceId": instance,
            "Comment": command.comment,
            "DocumentName": command.document,
            "DocumentVersion": command.version,
            "PluginName": plugin,
            "ResponseCode": step.map_or(-1, |s| s.code),
            "Status": status,
            "StatusDetails": details,
            "StandardOutputContent": step.map_or_else(String::new, |s| clip(&s.stdout, GET_STDOUT)),
            "StandardOutputUrl": "",
            "StandardErrorContent": step.map_or_else(String::new, |s| clip(&s.stderr, GET_STDERR)),
            "StandardErrorUrl": "",
            "CloudWatchOutputConfig": {"CloudWatchOutputEnabled": false},
        });
        if let Some((step, finished)) = step.and_then(|s| s.finished.map(|f| (s, f))) {
            reply["ExecutionStartDateTime"] = step.started.iso_secs().into();
            reply["ExecutionEndDateTime"] = finished.iso_secs().into();
            reply["ExecutionElapsedTime"] = iso_duration(finished.since(step.started)).into();
        }
        Ok(reply)
    }
}

fn present(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::from(text))
}

fn targeted(target: &Value, id: &InstanceId, ec2: &Ec2) -> Result<bool, ApiError> {
    let values = texts(target, "Values", 50)?;
    match target["Key"].as_str().unwrap_or_default() {
        "InstanceIds" => Ok(values.contains(&id.as_str())),
        "tag-key" => Ok(values.iter().any(|name| ec2.tag(id, name).is_some())),
        key => match key.strip_prefix("tag:") {
            Some(name) => Ok(ec2.tag(id, name).is_some_and(|value| values.contains(&value))),
            None => Err(ApiError::new("InvalidTarget", format!("The target key {key} is not known here"))),
        },
    }
}

/// Applies every filter of a list call; `None` from `matches` means that the key does not exist there.
fn filters(body: &Value, matches: &dyn Fn(&str, &str) -> Option<bool>) -> Result<bool, ApiError> {
    let mut all = true;
    for filter in body["Filters"].as_array().into_iter().flatten() {
        let (key, value) = (filter["key"].as_str().unwrap_or_default(), filter["value"].as_str().unwrap_or_default());
        all &= matches(key, value)
            .ok_or_else(|| ApiError::new("InvalidFilterKey", format!("The filter key {key} is not valid here")))?;
    }
    Ok(all)
}

fn by_time(key: &str, value: &str, requested: Millis) -> Option<bool> {
    let at = Millis::parse_iso(value)?;
    match key {
        "InvokedAfter" => Some(requested >= at),
        "InvokedBefore" => Some(requested <= at),
        _ => None,
    }
}

/// The steps of a document as results name them.
fn plugin_names(content: &Value) -> Vec<String> {
    match content["mainSteps"].as_array() {
        Some(steps) => steps.iter().filter_map(|step| step["name"].as_str().map(str::to_owned)).collect(),
        None => content["runtimeConfig"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
    }
}

/// The execution time-out the service counts with: that of the document's steps, or 3600.
fn execution_timeout(content: &Value, parameters: &BTreeMap<String, Value>) -> i64 {
    let resolve = |value: &Value| -> Option<i64> {
        let text = plain(value);
        let name = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
        let text = name.and_then(|name| parameters.get(name)).map_or(text.clone(), plain);
        text.parse().ok().filter(|secs| (5..=172_800).contains(secs))
    };
    let steps = content["mainSteps"].as_array().into_iter().flatten().map(|step| &step["inputs"]);
    let old = content["runtimeConfig"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(_, p)| p["properties"].as_array().into_iter().flatten());
    let sum: i64 = steps.chain(old).map(|inputs| resolve(&inputs["timeoutSeconds"]).unwrap_or(3600)).sum();
    if sum == 0 { 3600 } else { sum }
}

fn describe_invocation(command: &Command, instance: &InstanceId, invocation: &Invocation, details: bool) -> Value {
    let (status, status_details) = invocation.state.names();
    let plugins: Vec<Value> = if details {
        plugin_names(&command.content).iter().map(|name| plugin(command, invocation, name)).collect()
    } else {
        Vec::new()
    };
    json!({
        "CommandId": command.id.as_str(),
        "InstanceId": instance.as_str(),
        "InstanceName": "",
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.version,
        "RequestedDateTime": command.requested.epoch(),
        "Status": status,
        "StatusDetails": status_details,
        "TraceOutput": "",
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "CommandPlugins": plugins,
        "ServiceRole": "",
        "NotificationConfig": {"NotificationArn": "", "NotificationEvents": []},
        "CloudWatchOutputConfig": {"CloudWatchOutputEnabled": false},
    })
}

fn plugin(command: &Command, invocation: &Invocation, name: &str) -> Value {
    let step = invocation.steps.iter().find(|step| step.name == name);
    let (status, details) = match step.map(|s| s.state) {
        Some(StepState::InProgress) => ("InProgress", "InProgress"),
        Some(StepState::Success | StepState::Skipped) => ("Success", "Success"),
        Some(StepState::Failed) => ("Failed", "Failed"),
        Some(StepState::TimedOut) => ("TimedOut", "ExecutionTimedOut"),
        Some(StepState::Cancelled) => ("Cancelled", "Cancelled"),
        None if invocation.state == InvocationState::DeliveryTimedOut => ("TimedOut", "DeliveryTimedOut"),
        None if matches!(invocation.state, InvocationState::Cancelled | InvocationState::Terminated) => {
            ("Cancelled", "Cancelled")
        }
        None if invocation.state.is_terminal() => ("Failed", invocation.state.names().1),
        None => ("Pending", "Pending"),
    };
    let ended = step.filter(|s| s.state != StepState::InProgress);
    let mut row = json!({
        "Name": name,
        "Status": status,
        "StatusDetails": details,
        "ResponseCode": ended.map_or(-1, |s| s.code),
        // Nothing is shown before the step has ended.
        "Output": ended.map_or_else(String::new, |s| output_block(&s.stdout, &s.stderr)),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
    });
    put(&mut row, "OutputS3BucketName", present(&command.bucket));
    put(&mut row, "OutputS3KeyPrefix", present(&command.prefix));
    put(&mut row, "ResponseStartDateTime", step.map(|s| s.started.epoch()));
    put(&mut row, "ResponseFinishDateTime", step.and_then(|s| s.finished).map(Millis::epoch));
    row
}

/// At most `max` bytes of `text`, cut at a character.
fn clip(text: &str, max: usize) -> String {
    if text.len() <= max { text.to_owned() } else { text[..text.floor_char_boundary(max)].to_owned() }
}

/// What the agent makes of stdout and stderr for `Output`: one limit over both (A§1.2).
pub fn output_block(stdout: &str, stderr: &str) -> String {
    const ERROR: &str = "\n----------ERROR-------\n";
    const CUT: &str = "\n---Output truncated---";
    const CUT_ERROR: &str = "\n---Error truncated----";
    let title = if stderr.is_empty() { "" } else { ERROR };
    let room = LIST_OUTPUT - title.len();
    if stdout.len() + stderr.len() <= room {
        return format!("{stdout}{title}{stderr}");
    }
    let half = room / 2;
    let for_stderr = stderr.len().min(half.max(room.saturating_sub(stdout.len())));
    let for_stdout = stdout.len().min(room - for_stderr);
    let cut = |text: &str, room: usize, mark: &str| {
        if text.len() <= room { text.to_owned() } else { clip(text, room.saturating_sub(mark.len())) + mark }
    };
    format!("{}{title}{}", cut(stdout, for_stdout, CUT), cut(stderr, for_stderr, CUT_ERROR))
}
