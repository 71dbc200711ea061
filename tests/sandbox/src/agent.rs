//! The SSM agent of a host (A§1.7, A§1.8): runs command documents inside the host as the real agent does.
//!
//! It keeps to the traps a product has to survive: later steps run after a failed one unless `onFailure` says
//! otherwise, patterns are checked unanchored, a skipped step looks like a success, exit 194 runs the same script again
//! after a reboot, a reply can only be given while the agent is online, and at most five documents run at once.

use crate::cloud::Cloud;
use crate::host::{Namespace, PATH};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tde2hsm_model::ssm::{StepOutcome, StepState};
use tde2hsm_model::{CommandId, InstanceId, Millis, Principal, Region, Service};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, Semaphore};

/// Documents one agent runs at once.
const WORKERS: usize = 5;
const MAX_STDOUT: usize = 24_000;
const MAX_STDERR: usize = 8_000;
/// The first agent that knows `interpolationType`.
const ENV_VAR_SINCE: [u32; 4] = [3, 3, 2746, 0];
/// How often exit 194 may restart one script before the agent is taken to loop.
const MAX_REBOOTS: usize = 5;

#[derive(Debug)]
pub struct Agent {
    cloud: Arc<Cloud>,
    host: Arc<Namespace>,
    region: Region,
    instance: InstanceId,
    slots: Semaphore,
    /// What is running: how to cancel it, and the process that entered the host for it.
    running: Mutex<BTreeMap<CommandId, Vec<Arc<Run>>>>,
}

#[derive(Debug, Default)]
struct Run {
    cancel: Notify,
    pid: Mutex<Option<u32>>,
}

/// A document's step in one form, whichever schema it came from.
struct Step {
    name: String,
    action: String,
    inputs: Value,
    precondition: Value,
}

/// Parameters as a document refers to them.
struct Bindings {
    values: BTreeMap<String, Value>,
    /// Those that go into the environment instead of the text.
    as_env: Vec<String>,
}

enum Ended {
    Exit(i32),
    TimedOut,
    Cancelled,
    NotRun(String),
}

impl Agent {
    pub fn new(cloud: Arc<Cloud>, host: Arc<Namespace>, region: Region, instance: InstanceId) -> Arc<Self> {
        Arc::new(Self { cloud, host, region, instance, slots: Semaphore::new(WORKERS), running: Mutex::new(BTreeMap::new()) })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<CommandId, Vec<Arc<Run>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent hears that a command is not wanted any more.
    pub fn cancel(&self, command: &CommandId) {
        for run in self.running().get(command).into_iter().flatten() {
            run.cancel.notify_one();
        }
    }

    /// Kills what the agent is running for every command right now, as an impatient person would; the scripts' exit
    /// status is 137. Returns how many there were.
    pub fn kill_scripts(&self) -> usize {
        let pids: Vec<u32> =
            self.running().values().flatten().filter_map(|run| *run.pid.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        for pid in &pids {
            terminate(*pid);
        }
        pids.len()
    }

    /// Runs one document and answers for it.
    pub async fn deliver(self: Arc<Self>, command: CommandId, document: Value, parameters: BTreeMap<String, Value>) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        self.cloud.world().agent_started(&self.region, &command, &self.instance);
        let run = Arc::new(Run::default());
        self.running().entry(command.clone()).or_default().push(run.clone());
        let steps = self.run_document(&command, &document, parameters, &run).await;
        if let Some(runs) = self.running().get_mut(&command) {
            runs.retain(|other| !Arc::ptr_eq(other, &run));
        }
        // A reply that cannot be given now is given when the agent is back.
        while !self.cloud.world().agent_online(&self.region, &self.instance) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.cloud.world().agent_finished(&self.region, &command, &self.instance, steps);
    }

    fn version(&self) -> [u32; 4] {
        let world = self.cloud.world();
        let node = world.region(&self.region).and_then(|r| r.ssm.node(&self.instance));
        let mut out = [0; 4];
        for (part, text) in out.iter_mut().zip(node.map(|n| n.agent_version.as_str()).unwrap_or_default().split('.')) {
            *part = text.parse().unwrap_or(0);
        }
        out
    }

    async fn run_document(
        &self,
        command: &CommandId,
        document: &Value,
        values: BTreeMap<String, Value>,
        run: &Run,
    ) -> Vec<StepOutcome> {
        let steps = read_steps(document);
        let declared = document["parameters"].as_object().cloned().unwrap_or_default();
        let as_env = if self.version() >= ENV_VAR_SINCE { env_parameters(&declared) } else { Vec::new() };
        let bindings = Bindings { values, as_env };
        let mut done: Vec<StepOutcome> = Vec::new();
        if let Err(why) = check_values(&declared, &bindings.values) {
            let now = self.cloud.clock.now();
            let name = steps.first().map_or_else(String::new, |s| s.name.clone());
            return vec![StepOutcome {
                name,
                state: StepState::Failed,
                code: 1,
                stdout: String::new(),
                stderr: why,
                started: now,
                finished: Some(now),
            }];
        }
        let last = steps.len().saturating_sub(1);
        let (mut skip_rest, mut cancelled) = (false, false);
        for (n, step) in steps.iter().enumerate() {
            let is_finally = n == last && truthy(&step.inputs["finallyStep"]);
            if (skip_rest || cancelled) && !is_finally {
                continue;
            }
            let started = self.cloud.clock.now();
            let mut so_far = done.clone();
            so_far.push(StepOutcome {
                name: step.name.clone(),
                state: StepState::InProgress,
                code: -1,
                stdout: String::new(),
                stderr: String::new(),
                started,
                finished: None,
            });
            self.cloud.world().agent_progress(&self.region, command, &self.instance, so_far);
            let outcome = self.run_step(command, step, &bindings, run, started).await;
            let failed = !matches!(outcome.state, StepState::Success | StepState::Skipped);
            cancelled = cancelled || outcome.state == StepState::Cancelled;
            let (on_failure, on_success) = (step.inputs["onFailure"].as_str(), step.inputs["onSuccess"].as_str());
            let mut outcome = outcome;
            match outcome.code {
                168 => {
                    outcome.state = StepState::Success;
                    skip_rest = true;
                }
                169 => skip_rest = true,
                _ if failed && matches!(on_failure, Some("exit")) => skip_rest = true,
                _ if failed && matches!(on_failure, Some("successAndExit")) => {
                    outcome.state = StepState::Success;
                    skip_rest = true;
                }
                _ if !failed && on_success == Some("exit") => skip_rest = true,
                _ => {}
            }
            done.push(outcome);
        }
        done
    }

    async fn run_step(&self, command: &CommandId, step: &Step, bindings: &Bindings, run: &Run, started: Millis) -> StepOutcome {
        let outcome = |state, code, stdout: String, stderr: String| StepOutcome {
            name: step.name.clone(),
            state,
            code,
            stdout,
            stderr,
            started,
            finished: Some(self.cloud.clock.now()),
        };
        if !precondition_holds(&step.precondition, bindings) {
            let text = format!(
                "Step execution skipped due to unsatisfied preconditions: '{}'. Step name: {}",
                step.precondition, step.name
            );
            return outcome(StepState::Skipped, 0, text, String::new());
        }
        match step.action.as_str() {
            "aws:runShellScript" => {
                let (ended, stdout, stderr) = self.run_script(command, step, bindings, run).await;
                let (state, code, extra) = match ended {
                    Ended::Exit(0) => (StepState::Success, 0, String::new()),
                    // The agent takes this status for a script that was stopped.
                    Ended::Exit(137) => (StepState::TimedOut, 137, String::new()),
                    Ended::Exit(code) => (StepState::Failed, code, format!("failed to run commands: exit status {code}")),
                    Ended::TimedOut => (StepState::TimedOut, 137, String::new()),
                    Ended::Cancelled => (StepState::Cancelled, 137, String::new()),
                    Ended::NotRun(why) => (StepState::Failed, 1, why),
                };
                let stderr = if extra.is_empty() { stderr } else { stderr + &extra };
                outcome(state, code, stdout, stderr)
            }
            // Megabytes to a disk: whoever calls a service meanwhile does not wait for it.
            "aws:downloadContent" => match tokio::task::block_in_place(|| self.download(command, step, bindings)) {
                Ok(to) => outcome(StepState::Success, 0, format!("Content downloaded to {to}"), String::new()),
                Err(why) => outcome(StepState::Failed, 1, String::new(), why),
            },
            other => outcome(StepState::Failed, 1, String::new(), format!("Unsupported plugin: {other}")),
        }
    }

    /// `/var/lib/amazon/ssm/<id>/document/orchestration/<command>`, in the host.
    fn orchestration(&self, command: &CommandId) -> String {
        format!("/var/lib/amazon/ssm/{}/document/orchestration/{command}", self.instance)
    }

    async fn run_script(&self, command: &CommandId, step: &Step, bindings: &Bindings, run: &Run) -> (Ended, String, String) {
        let lines: Vec<String> = match bindings.resolve(&step.inputs["runCommand"]) {
            Value::Array(lines) => lines.iter().map(as_text).collect(),
            other => vec![as_text(&other)],
        };
        let dir = format!("{}/{}", self.orchestration(command), step.name.replace([':', '/'], ""));
        let outside = self.host.outside(&dir);
        let script = format!("{dir}/_script.sh");
        if let Err(e) = write_script(&outside, &lines.join("\n")) {
            return (Ended::NotRun(format!("failed to create the script: {e}")), String::new(), String::new());
        }
        let secs = as_text(&bindings.resolve(&step.inputs["timeoutSeconds"])).parse::<u64>().ok();
        // Outside of its range the agent silently takes 3600.
        let limit = Duration::from_secs(secs.filter(|s| (5..=172_800).contains(s)).unwrap_or(3600));
        let working_dir = as_text(&bindings.resolve(&step.inputs["workingDirectory"]));
        let working_dir = match working_dir.as_str() {
            // An empty or relative directory lies below the command's downloads, where that exists.
            "" if !self.host.outside(&format!("{}/downloads", self.orchestration(command))).is_dir() => "/usr/bin".to_owned(),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("{}/downloads/{relative}", self.orchestration(command)),
        };
        let mut reboots = 0;
        loop {
            let (ended, stdout, stderr) = self.run_once(command, &script, &working_dir, bindings, limit, run).await;
            let _ = std::fs::write(outside.join("stdout"), &stdout);
            let _ = std::fs::write(outside.join("stderr"), &stderr);
            let (stdout, stderr) = (clip(&stdout, MAX_STDOUT), clip(&stderr, MAX_STDERR));
            if matches!(ended, Ended::Exit(194)) && reboots < MAX_REBOOTS {
                reboots += 1;
                self.host.kill();
                if let Err(e) = self.host.start() {
                    return (Ended::NotRun(format!("the host did not come back: {e}")), stdout, stderr);
                }
                crate::recovery::boot(&self.host);
                continue;
            }
            return (ended, stdout, stderr);
        }
    }

    async fn run_once(
        &self,
        command: &CommandId,
        script: &str,
        dir: &str,
        bindings: &Bindings,
        limit: Duration,
        run: &Run,
    ) -> (Ended, Vec<u8>, Vec<u8>) {
        let argv = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let args = match self.host.exec_args(&argv, Some(dir)) {
            Ok(args) => args,
            Err(e) => return (Ended::NotRun(e.to_string()), Vec::new(), Vec::new()),
        };
        let mut process = tokio::process::Command::new(self.host.program());
        process.args(args).env_clear().envs(self.environment(command, bindings));
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match process.spawn() {
            Ok(child) => child,
            Err(e) => return (Ended::NotRun(e.to_string()), Vec::new(), Vec::new()),
        };
        let set_pid = |pid: Option<u32>| *run.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
        set_pid(child.id());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return (Ended::NotRun("no pipes".to_owned()), stdout, stderr);
        };
        // Like the real agent this waits for both pipes to close: a child that keeps them open keeps the step running.
        let finish = async {
            let (_, _, status) = tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), child.wait());
            status
        };
        let ended = tokio::select! {
            status = finish => match status {
                Ok(status) => Ended::Exit(status.code().unwrap_or(137)),
                Err(e) => Ended::NotRun(e.to_string()),
            },
            () = tokio::time::sleep(limit) => Ended::TimedOut,
            () = run.cancel.notified() => Ended::Cancelled,
        };
        if matches!(ended, Ended::TimedOut | Ended::Cancelled) {
            if let Some(pid) = child.id() {
                terminate(pid);
            }
            let _ = child.wait().await;
        }
        set_pid(None);
        let ended = match ended {
            Ended::Exit(137) if !self.host.is_up() => Ended::NotRun(
                "document process failed unexpectedly: document worker timed out, check [ssm-document-worker]/[ssm-session-worker] log for crash reason".to_owned(),
            ),
            other => other,
        };
        (ended, stdout, stderr)
    }

    fn environment(&self, command: &CommandId, bindings: &Bindings) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = [
            ("PATH", PATH),
            ("SSM_COMMAND_ID", command.as_str()),
            ("AWS_SSM_INSTANCE_ID", self.instance.as_str()),
            ("AWS_SSM_REGION_NAME", self.region.as_str()),
            ("AWS_SSM_PLATFORM_NAME", "Red Hat Enterprise Linux"),
            ("AWS_SSM_PLATFORM_VERSION", "8.10"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        for name in &bindings.as_env {
            env.push((format!("SSM_{name}"), as_text(&bindings.values[name])));
        }
        env
    }

    fn download(&self, command: &CommandId, step: &Step, bindings: &Bindings) -> Result<String, String> {
        let kind = as_text(&bindings.resolve(&step.inputs["sourceType"]));
        if kind != "S3" {
            return Err(format!("source type {kind} is not known here"));
        }
        let info = match bindings.resolve(&step.inputs["sourceInfo"]) {
            Value::String(text) => {
                serde_json::from_str::<Value>(&text).map_err(|e| format!("sourceInfo could not be read: {e}"))?
            }
            other => other,
        };
        let object = S3Path::parse(info["path"].as_str().unwrap_or_default())?;
        if !self.cloud.agent_reaches(&self.instance, &object.bucket) {
            return Err(format!("failed to download {}: dial tcp: i/o timeout", object.key));
        }
        if let Some(action) = missing_right(&self.cloud, &self.region, &self.instance, &object) {
            return Err(format!(
                "failed to download {}: AccessDenied: Access Denied (s3:{action}), status code: 403",
                object.key
            ));
        }
        let bytes = self.cloud.s3.read(&object.bucket, &object.key, object.version.as_deref())?;
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let downloads = format!("{}/downloads", self.orchestration(command));
        let wanted = as_text(&bindings.resolve(&step.inputs["destinationPath"]));
        let mut to = match wanted.as_str() {
            "" => format!("{downloads}/"),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("{downloads}/{relative}"),
        };
        if to.ends_with('/') || self.host.outside(&to).is_dir() {
            to = format!("{}/{name}", to.trim_end_matches('/'));
        }
        let outside = self.host.outside(&to);
        write_0700(&outside, &bytes).map_err(|e| format!("{to}: {e}"))?;
        Ok(to)
    }
}

/// What the host's role lacks to fetch an object: the agent lists what it is told to fetch first (A§1.8), and a version is read by a
/// right of its own.
fn missing_right(cloud: &Cloud, region: &Region, instance: &InstanceId, object: &S3Path) -> Option<&'static str> {
    let host = Principal::Host(instance.clone());
    let read = if object.version.is_some() { "GetObjectVersion" } else { "GetObject" };
    let mut wanted = ["ListBucket", read].into_iter();
    wanted.find(|action| !cloud.permits(&host, Service::S3, action, region, &BTreeMap::new()))
}

/// An object as `aws:downloadContent` names it.
#[derive(Debug, PartialEq, Eq)]
struct S3Path {
    bucket: String,
    key: String,
    version: Option<String>,
}

impl S3Path {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no URL of an S3 object");
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        let path = url.path().trim_start_matches('/');
        let host = host.strip_suffix(".amazonaws.com").ok_or_else(wrong)?;
        let is_s3 = |h: &str| h == "s3" || h.starts_with("s3.") || h.starts_with("s3-");
        let (bucket, key) = if is_s3(host) {
            path.split_once('/').ok_or_else(wrong)?
        } else {
            let at = host.find(".s3").filter(|at| is_s3(&host[at + 1..])).ok_or_else(wrong)?;
            (&host[..at], path)
        };
        let decode = |text: &str| {
            url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
                .next()
                .map(|(k, _)| k.into_owned())
                .unwrap_or_default()
        };
        let version = url.query_pairs().find(|(name, _)| name == "versionId").map(|(_, id)| id.into_owned());
        if bucket.is_empty() || key.is_empty() {
            Err(wrong())
        } else {
            Ok(Self { bucket: bucket.to_owned(), key: decode(key), version })
        }
    }
}

impl Bindings {
    /// A value of the document with its `{{ parameters }}` put in: a text that is nothing but one parameter becomes the
    /// parameter itself, a list included.
    fn resolve(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.resolve_text(text),
            Value::Array(items) => {
                let mut out = Vec::new();
                for item in items {
                    match self.resolve(item) {
                        Value::Array(inner) => out.extend(inner),
                        other => out.push(other),
                    }
                }
                Value::Array(out)
            }
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), self.resolve(v))).collect::<Map<_, _>>().into(),
            other => other.clone(),
        }
    }

    fn resolve_text(&self, text: &str) -> Value {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let Some(end) = rest[start..].find("}}").map(|at| start + at) else { break };
            let name = rest[start + 2..end].trim();
            let whole = start == 0 && end + 2 == rest.len() && out.is_empty();
            match self.values.get(name) {
                _ if self.as_env.iter().any(|env| env == name) => {
                    out.push_str(&rest[..start]);
                    out.push_str(&format!("$SSM_{name}"));
                }
                Some(value) if whole => return value.clone(),
                Some(value) => {
                    out.push_str(&rest[..start]);
                    out.push_str(&as_text(value));
                }
                None => out.push_str(&rest[..end + 2]),
            }
            rest = &rest[end + 2..];
        }
        out.push_str(rest);
        Value::String(out)
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn truthy(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn clip(bytes: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned()
}

fn env_parameters(declared: &Map<String, Value>) -> Vec<String> {
    declared.iter().filter(|(_, p)| p["interpolationType"] == "ENV_VAR").map(|(name, _)| name.clone()).collect()
}

/// The agent checks patterns again, and unanchored (A§1.7).
fn check_values(declared: &Map<String, Value>, values: &BTreeMap<String, Value>) -> Result<(), String> {
    for (name, parameter) in declared {
        let Some(pattern) = parameter["allowedPattern"].as_str() else { continue };
        if let Some(count) = beyond_go(pattern) {
            return Err(format!(
                "encountered error while compiling allowed pattern - internal error: error parsing regexp: invalid repeat count: `{count}`"
            ));
        }
        let regex = regex::Regex::new(pattern).map_err(|e| e.to_string())?;
        let texts: Vec<String> = match values.get(name) {
            Some(Value::Array(items)) => items.iter().map(as_text).collect(),
            Some(value) => vec![as_text(value)],
            None => Vec::new(),
        };
        if texts.iter().any(|text| !regex.is_match(text)) {
            return Err(format!("parameter value for {name} does not match the allowed pattern {pattern}"));
        }
    }
    Ok(())
}

/// The agent is written in Go, whose regular expressions repeat at most 1000 times: a document whose pattern says
/// more fails on every host, though the service takes it.
fn beyond_go(pattern: &str) -> Option<&str> {
    let repeat = regex::Regex::new(r"\{(\d+)(?:,(\d*))?\}").expect("the pattern is a constant");
    repeat.captures_iter(pattern).find_map(|found| {
        let over = |n: usize| found.get(n).and_then(|m| m.as_str().parse::<u64>().ok()).is_some_and(|n| n > 1000);
        (over(1) || over(2)).then(|| found.get(0).map_or("", |m| m.as_str()))
    })
}

fn precondition_holds(precondition: &Value, bindings: &Bindings) -> bool {
    precondition.as_object().into_iter().flatten().all(|(operator, operands)| {
        let operands = bindings.resolve(operands);
        let texts: Vec<String> = operands.as_array().into_iter().flatten().map(as_text).collect();
        let fixed = |text: &str| if text == "platformType" { "Linux".to_owned() } else { text.to_owned() };
        operator == "StringEquals" && texts.len() == 2 && fixed(&texts[0]) == fixed(&texts[1])
    })
}

fn read_steps(document: &Value) -> Vec<Step> {
    if let Some(steps) = document["mainSteps"].as_array() {
        return steps
            .iter()
            .map(|step| Step {
                name: as_text(&step["name"]),
                action: as_text(&step["action"]),
                inputs: step["inputs"].clone(),
                precondition: step["precondition"].clone(),
            })
            .collect();
    }
    let plugins = document["runtimeConfig"].as_object().into_iter().flatten();
    plugins
        .flat_map(|(action, plugin)| {
            plugin["properties"].as_array().into_iter().flatten().map(|inputs| Step {
                name: action.clone(),
                action: action.clone(),
                inputs: inputs.clone(),
                precondition: Value::Null,
            })
        })
        .collect()
}

fn write_script(dir: &std::path::Path, text: &str) -> std::io::Result<()> {
    write_0700(&dir.join("_script.sh"), format!("{text}\n").as_bytes())
}

fn write_0700(path: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Written beside and renamed: a program that is running may not be opened for writing.
    let beside = path.with_extension("download");
    std::fs::write(&beside, bytes)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o700))?;
    std::fs::rename(&beside, path)
}

pub fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: a plain system call on a child of ours that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_named_by_path_or_by_host() {
        let object =
            |version: Option<&str>| S3Path { bucket: "b-1".into(), key: "dir/x y".into(), version: version.map(str::to_owned) };
        for (text, version) in [
            ("https://s3.us-east-1.amazonaws.com/b-1/dir/x%20y?versionId=a.b_c", Some("a.b_c")),
            ("https://s3.amazonaws.com/b-1/dir/x%20y", None),
            ("https://b-1.s3.us-west-2.amazonaws.com/dir/x%20y?versionId=1", Some("1")),
        ] {
            assert_eq!(S3Path::parse(text).unwrap(), object(version), "{text}");
        }
        for wrong in ["", "/etc/passwd", "https://example.com/b/k", "https://s3.amazonaws.com/b"] {
            assert!(S3Path::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// The rights are those of the template that a drill host's role is made by.
    #[test]
    fn an_artefact_is_fetched_by_who_may_list_and_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = crate::layout::Layout::new(dir.path());
        std::fs::create_dir_all(layout.log()).unwrap();
        let (region, instance) = (Region::new("us-west-2"), InstanceId::new("i-0123456789abcdef0"));
        let world = tde2hsm_model::World::new(
            tde2hsm_model::AccountId::new(crate::sandbox::ACCOUNT),
            std::slice::from_ref(&region),
            1,
            tde2hsm_model::WorldOptions::default(),
        );
        let cloud = Cloud::new(world, 1, &layout, None).unwrap();
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/dr.yaml");
        let template = crate::template::read(&file).unwrap();
        let parameters = [
            ("ArtifactBucket", "artifacts"),
            ("ReplicaSecretArns", "arn:aws:secretsmanager:us-west-2:123456789012:secret:a-AbCdEf"),
            ("SecretsKeyArns", "arn:aws:kms:us-west-2:123456789012:key/none"),
        ];
        let deployment = crate::template::Deployment {
            account: crate::sandbox::ACCOUNT.to_owned(),
            region: region.clone(),
            parameters: parameters.map(|(name, value)| (name.to_owned(), json!(value))).into(),
            resources: BTreeMap::new(),
        };
        let role = crate::template::profile(&template, &deployment, crate::network::DRILL_ROLE).unwrap().unwrap();
        let object = S3Path { bucket: "artifacts".into(), key: "run".into(), version: Some("1".into()) };
        let lacks = |without: &str| {
            let rest = role.iter().filter(|s| !s.actions.iter().any(|action| action == without)).cloned().collect();
            cloud.policies().insert(instance.to_string(), rest);
            missing_right(&cloud, &region, &instance, &object)
        };
        assert_eq!(lacks(""), None);
        assert_eq!(lacks("s3:ListBucket"), Some("ListBucket"));
        assert_eq!(lacks("s3:GetObjectVersion"), Some("GetObjectVersion"));
    }

    #[test]
    fn env_var_parameters_never_reach_the_text() {
        let bindings = Bindings {
            values: BTreeMap::from([("a".into(), json!("x; rm -rf /")), ("l".into(), json!(["1", "2"]))]),
            as_env: vec!["a".into()],
        };
        assert_eq!(bindings.resolve(&json!("echo {{ a }}")), json!("echo $SSM_a"));
        assert_eq!(bindings.resolve(&json!(["{{l}}", "3"])), json!(["1", "2", "3"]));
        assert_eq!(bindings.resolve(&json!("v={{ unknown }}")), json!("v={{ unknown }}"));
    }

    #[test]
    fn a_pattern_that_go_cannot_compile_fails_the_document() {
        assert_eq!(beyond_go("^[a-z]{1,24576}$"), Some("{1,24576}"));
        assert_eq!(beyond_go("^[a-z]{1,1000}$"), None);
        assert_eq!(beyond_go("^[a-z]{8}{9999,}$"), Some("{9999,}"));
    }

    #[test]
    fn a_precondition_compares_parameters_too() {
        let bindings = Bindings { values: BTreeMap::from([("mode".into(), json!("run"))]), as_env: vec![] };
        let holds = |p: Value| precondition_holds(&p, &bindings);
        assert!(holds(Value::Null));
        assert!(holds(json!({"StringEquals": ["platformType", "Linux"]})));
        assert!(!holds(json!({"StringEquals": ["platformType", "Windows"]})));
        assert!(holds(json!({"StringEquals": ["{{ mode }}", "run"]})));
        assert!(!holds(json!({"StringEquals": ["{{ mode }}", "survey"]})));
    }
}
