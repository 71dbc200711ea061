//! The functions of the DR half, run as Lambda runs them: the real program, under a runtime API on loopback, with the environment
//! and the role of its template.
//!
//! One instance a function at most (their reserved concurrency is one): events wait in Lambda's queue. How long, and how often an
//! asynchronous invocation that failed is tried again, is what the template says. A role may call what the template's policies allow, in the regions and with the
//! tags they ask for; everything else is refused as AWS refuses it.

use crate::sandbox::{ACCOUNT, FLEET_TAG, Sandbox};
use crate::template::{self, Deployment, Function};
use anyhow::{Context as _, Result, bail};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tde2hsm_model::{Millis, Region};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};

/// How long Lambda waits before it tries an asynchronous invocation again (A§7), shortened.
const BETWEEN: Duration = Duration::from_millis(500);
/// What `tde2hsm setup` calls the document it makes.
const DOCUMENT: &str = "tde2hsm-run";
/// How long role credentials are good for.
const CREDENTIALS_SECS: i64 = 12 * 3600;
/// How long before their end a process gets no event any more.
const BEFORE_END_MS: i64 = 15 * 60 * 1000;

/// How functions run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The program that is every function: `bootstrap`.
    pub program: PathBuf,
    /// Directory of the templates.
    pub templates: PathBuf,
    /// Each invocation gets a new process.
    pub cold: bool,
    /// Parameters of the templates that are to be others than this world's.
    pub parameters: BTreeMap<String, String>,
}

/// What an invocation came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub answer: Result<Value, Value>,
    pub log: String,
    pub millis: u128,
    pub cold: bool,
}

impl Outcome {
    pub fn json(&self) -> Value {
        let mut out = json!({"ok": self.answer.is_ok(), "ms": self.millis, "cold": self.cold, "log": self.log});
        match &self.answer {
            Ok(value) => out["answer"] = value.clone(),
            Err(value) => out["error"] = value.clone(),
        }
        out
    }
}

#[derive(Debug, Default, Clone)]
struct Count {
    ok: u64,
    failed: u64,
    cold: u64,
    /// By what asked for it.
    by: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
pub struct Functions {
    setup: Mutex<Option<Setup>>,
    runtimes: Mutex<BTreeMap<String, Arc<Runtime>>>,
    counts: Mutex<BTreeMap<String, Count>>,
    /// Events by region: how many came, and how many no rule took.
    events: Mutex<BTreeMap<String, (u64, u64)>>,
    under_way: Mutex<usize>,
}

/// One function; held by who invokes it.
#[derive(Debug, Default)]
struct Runtime(tokio::sync::Mutex<Option<Running>>);

/// A process and its runtime API. The next process gets another: what the former one was still asking for is not answered to it.
#[derive(Debug)]
struct Running {
    child: Child,
    waiting: Arc<Waiting>,
    server: tokio::task::JoinHandle<()>,
    environment: BTreeMap<String, String>,
    /// When its credentials end.
    until: Millis,
}

/// What the runtime API hands out and takes back.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<VecDeque<Pending>>,
    asked: Notify,
    answers: Mutex<BTreeMap<String, oneshot::Sender<Result<Value, Value>>>>,
    /// An error before the first event.
    init: Mutex<Option<Value>>,
    init_failed: Notify,
}

#[derive(Debug)]
struct Pending {
    id: String,
    event: Value,
    arn: String,
    deadline: Millis,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Functions {
    pub fn set_up(&self, setup: Setup) {
        *lock(&self.setup) = Some(setup);
    }

    /// An event reaches the bus of a region, and by its rules functions.
    pub fn event(&self, sandbox: &Arc<Sandbox>, region: &Region, event: Value) {
        note_event(sandbox, &event);
        lock(&self.events).entry(region.to_string()).or_default().0 += 1;
        let Some(setup) = lock(&self.setup).clone() else { return };
        if sandbox.cloud.is_lost(region) {
            return;
        }
        let sandbox = sandbox.clone();
        let region = region.clone();
        *lock(&self.under_way) += 1;
        tokio::spawn(async move {
            match declared(&sandbox, &setup) {
                Ok(all) => {
                    let takes = |f: &&Function| f.region == region && f.patterns.iter().any(|p| template::takes(p, &event));
                    let takers: Vec<Function> = all.iter().filter(takes).cloned().collect();
                    if takers.is_empty() {
                        lock(&sandbox.functions.events).entry(region.to_string()).or_default().1 += 1;
                    }
                    for function in takers {
                        sandbox.functions.asynchronously(&sandbox, &setup, &function, &event, "event").await;
                    }
                }
                Err(why) => tracing::warn!("the templates cannot be read: {why:#}"),
            }
            *lock(&sandbox.functions.under_way) -= 1;
        });
    }

    async fn asynchronously(
        &self,
        sandbox: &Arc<Sandbox>,
        setup: &Setup,
        function: &Function,
        event: &Value,
        by: &'static str,
    ) -> Option<Outcome> {
        let mut last = None;
        // By the machine's clock: what waits here waits for programs that really run, however far the world's clock is moved.
        let came = Instant::now();
        for attempt in 0..=function.retries {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN).await;
            }
            let by = if attempt == 0 { by } else { "retry" };
            match self.invoke(sandbox, setup, function, event.clone(), by, Some(came)).await {
                Ok(outcome) if outcome.answer.is_ok() => return Some(outcome),
                Ok(outcome) => last = Some(outcome),
                Err(why) => {
                    tracing::warn!("{}: {why:#}", function.name);
                    return last;
                }
            }
        }
        last
    }

    /// Invokes a function once, by its name or by its full name.
    pub async fn once(&self, sandbox: &Arc<Sandbox>, setup: Option<Setup>, name: &str, event: Option<Value>) -> Result<Outcome> {
        let setup = setup.or_else(|| lock(&self.setup).clone()).context("say which program the functions are: --program PATH")?;
        let all = declared(sandbox, &setup)?;
        let function = all.iter().find(|f| f.name == name || f.function_name == name).with_context(|| {
            let known: Vec<&str> = all.iter().map(|f| f.name.as_str()).collect();
            format!("there is no function `{name}`; the templates have {}", known.join(", "))
        })?;
        let (event, by) = match event {
            Some(event) => (event, "call"),
            None => (function.schedules.first().cloned().unwrap_or_else(|| json!({})), "schedule"),
        };
        self.invoke(sandbox, &setup, function, event, by, None).await
    }

    /// What every schedule does when its time comes, once.
    pub async fn tick(&self, sandbox: &Arc<Sandbox>, setup: Option<Setup>) -> Result<Value> {
        let setup = setup.or_else(|| lock(&self.setup).clone()).context("say which program the functions are: --program PATH")?;
        let mut out = Map::new();
        for function in declared(sandbox, &setup)? {
            for event in &function.schedules {
                let row = if sandbox.cloud.is_lost(&function.region) {
                    json!({"ok": false, "error": format!("{} does not answer", function.region)})
                } else {
                    match self.asynchronously(sandbox, &setup, &function, event, "schedule").await {
                        Some(outcome) => outcome.json(),
                        None => json!({"ok": false, "error": "it could not be run"}),
                    }
                };
                out.insert(function.name.clone(), row);
            }
        }
        Ok(out.into())
    }

    /// Events that are on their way to functions.
    pub fn under_way(&self) -> usize {
        *lock(&self.under_way)
    }

    /// Returns when no event is on its way to a function any more.
    pub async fn settled(&self) {
        while *lock(&self.under_way) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `came`: when the event came into the queue, of an asynchronous invocation.
    async fn invoke(
        &self,
        sandbox: &Arc<Sandbox>,
        setup: &Setup,
        function: &Function,
        event: Value,
        by: &'static str,
        came: Option<Instant>,
    ) -> Result<Outcome> {
        let runtime = lock(&self.runtimes).entry(function.name.clone()).or_default().clone();
        let mut process = runtime.0.lock().await;
        if came.is_some_and(|came| came.elapsed() > function.event_age) {
            *lock(&self.counts).entry(function.name.clone()).or_default().by.entry("dropped").or_default() += 1;
            bail!("an event waited longer than {} s and is dropped", function.event_age.as_secs());
        }
        // An environment that is another than at the start is a deployment, which replaces what runs; and none outlives its
        // credentials.
        let now = sandbox.cloud.clock.now();
        let stale = |running: &mut Running| {
            running.environment != function.environment
                || running.until.since(now) < BEFORE_END_MS
                || !matches!(running.child.try_wait(), Ok(None))
        };
        if setup.cold || process.as_mut().is_some_and(stale) {
            stop(&mut process).await;
        }
        let log = sandbox.layout.log().join("functions").join(format!("{}.log", function.name));
        std::fs::create_dir_all(log.parent().unwrap_or(Path::new("/")))?;
        let from = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        let started = Instant::now();
        let cold = process.is_none();
        if cold {
            *process = Some(start(sandbox, setup, function, &log).await?);
        }
        let running = process.as_mut().context("it has just been started")?;
        let waiting = running.waiting.clone();
        let id = uuid::Uuid::new_v4().to_string();
        let (answered, answer) = oneshot::channel();
        lock(&waiting.answers).insert(id.clone(), answered);
        let arn = format!("arn:aws:lambda:{}:{ACCOUNT}:function:{}", function.region, function.function_name);
        let deadline = sandbox.cloud.clock.now().plus_ms(i64::try_from(function.timeout.as_millis()).unwrap_or(i64::MAX));
        lock(&waiting.queue).push_back(Pending { id: id.clone(), event, arn, deadline });
        waiting.asked.notify_one();
        let failed = |kind: &str, message: String| Err(json!({"errorType": kind, "errorMessage": message}));
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| failed("Runtime.NoAnswer", "the answer was lost".to_owned())),
            status = running.child.wait() => {
                let status = status.map(|s| s.to_string()).unwrap_or_default();
                match lock(&waiting.init).take() {
                    Some(error) => Err(error),
                    None => failed("Runtime.ExitError", format!("RequestId: {id} Error: Runtime exited with {status}")),
                }
            }
            () = waiting.init_failed.notified() => {
                Err(lock(&waiting.init).take().unwrap_or(Value::Null))
            }
            () = tokio::time::sleep(function.timeout) => {
                failed("Sandbox.Timedout", format!("RequestId: {id} Error: Task timed out after {:.2} seconds", function.timeout.as_secs_f64()))
            }
        };
        let millis = started.elapsed().as_millis();
        // As Lambda does with an environment whose invocation ended badly, or which nobody keeps.
        let keep = answer.is_ok() && !setup.cold;
        if !keep {
            stop(&mut process).await;
        }
        let mut counts = lock(&self.counts);
        let count = counts.entry(function.name.clone()).or_default();
        *if answer.is_ok() { &mut count.ok } else { &mut count.failed } += 1;
        count.cold += u64::from(cold);
        *count.by.entry(by).or_default() += 1;
        Ok(Outcome { answer, log: tail(&log, from), millis, cold })
    }

    /// Ends every process, with `sandbox up`.
    pub fn down(&self) {
        for runtime in lock(&self.runtimes).values() {
            if let Ok(mut process) = runtime.0.try_lock()
                && let Some(running) = process.as_mut()
            {
                let _ = running.child.start_kill();
            }
        }
    }

    pub fn inspect(&self) -> Value {
        let counts = lock(&self.counts);
        let functions: Map<String, Value> = counts
            .iter()
            .map(|(name, c)| (name.clone(), json!({"ok": c.ok, "failed": c.failed, "cold": c.cold, "by": c.by})))
            .collect();
        let events: Map<String, Value> = lock(&self.events)
            .iter()
            .map(|(region, (all, untaken))| (region.clone(), json!({"arrived": all, "no_rule": untaken})))
            .collect();
        json!({"invoked": functions, "events": events, "under_way": *lock(&self.under_way)})
    }

    /// The names of the functions that were ever invoked.
    pub fn names(&self) -> Vec<String> {
        lock(&self.counts).keys().cloned().collect()
    }
}

/// The functions that the templates declare, deployed into this world.
fn declared(sandbox: &Sandbox, setup: &Setup) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    for (file, region) in [("source.yaml", &sandbox.region), ("dr.yaml", &sandbox.dr.region)] {
        let template = template::read(&setup.templates.join(file))?;
        let deployment = deployment(sandbox, &setup.parameters, region);
        found.extend(template::functions(&template, &deployment).with_context(|| file.to_owned())?);
    }
    if found.is_empty() {
        bail!("{} declares no function", setup.templates.display());
    }
    Ok(found)
}

/// What the DR region's template says that the role of an instance profile may do.
pub fn profile(sandbox: &Sandbox, templates: &Path, name: &str) -> Result<Option<Vec<template::Statement>>> {
    let template = template::read(&templates.join("dr.yaml"))?;
    template::profile(&template, &deployment(sandbox, &BTreeMap::new(), &sandbox.dr.region), name)
}

impl Sandbox {
    /// Roles of the DR region's template that somebody has keys of.
    pub fn assumed(&self) -> Vec<String> {
        let hosts = |name: &&String| self.host(name).is_err();
        let functions = self.functions.names();
        let policies = self.cloud.policies();
        policies.keys().filter(hosts).filter(|name| !functions.contains(name)).cloned().collect()
    }
}

/// Keys of a role of the DR region's template, for a person who has assumed it. What the template does not allow is refused.
pub fn assume(sandbox: &Sandbox, name: &str) -> Result<Value> {
    let template = template::read(&sandbox.templates.join("dr.yaml"))?;
    let deployment = deployment(sandbox, &BTreeMap::new(), &sandbox.dr.region);
    let statements = template::role(&template, &deployment, name)?.with_context(|| format!("there is no role `{name}`"))?;
    let actions = statements.iter().filter(|s| !s.deny).flat_map(|s| s.actions.clone()).collect();
    sandbox.cloud.policies().insert(name.to_owned(), statements);
    sandbox.cloud.world().grant(name, actions);
    let until = sandbox.cloud.clock.now().plus_secs(CREDENTIALS_SECS);
    let key = sandbox.cloud.keys().issue_function(&sandbox.cloud.account, name, name, until);
    Ok(json!({
        "AWS_ACCESS_KEY_ID": key.access,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_SESSION_TOKEN": key.token,
    }))
}

/// The templates' parameters as they are in this world.
fn deployment(sandbox: &Sandbox, more: &BTreeMap<String, String>, region: &Region) -> Deployment {
    let document = {
        let world = sandbox.cloud.world();
        let document = world.region(&sandbox.region).and_then(|r| r.ssm.document(DOCUMENT).ok());
        document.and_then(|d| d.version(None).ok()).map(|v| (v.number.to_string(), v.hash()))
    };
    // Before `setup` there is no document; a function that needs one says so.
    let (version, hash) = document.unwrap_or_else(|| ("1".to_owned(), "0".repeat(64)));
    let arns = |names: &[&str]| names.iter().filter_map(|n| sandbox.arns.get(*n).cloned()).collect::<Vec<_>>().join(",");
    let all = arns(&["tde/cloudhsm-cu", "tde/software"]);
    let dr = &sandbox.dr;
    let records = format!("arn:aws:s3:::{}", dr.bucket);
    let parameters: BTreeMap<String, Value> = [
        ("Fleet", "demo".to_owned()),
        ("FleetTagKey", FLEET_TAG.0.to_owned()),
        ("FleetTagValue", FLEET_TAG.1.to_owned()),
        ("Cluster", sandbox.cluster.clone()),
        ("SourceRegion", sandbox.region.to_string()),
        ("DrRegion", dr.region.to_string()),
        ("CryptoUserSecrets", arns(&["tde/cloudhsm-cu"])),
        ("KeystoreSecrets", arns(&["tde/software"])),
        ("SecretArns", all.clone()),
        ("ReplicaSecretArns", all.replace(sandbox.region.as_str(), dr.region.as_str())),
        ("SecretsKeyArns", format!("arn:aws:kms:{}:{ACCOUNT}:key/none", dr.region)),
        ("SourceKmsKeyArns", sandbox.volumes_key.clone()),
        ("DrKmsKeyArn", dr.key.clone()),
        ("RecordsBucket", dr.bucket.clone()),
        ("RecordsKeyArn", dr.key.clone()),
        ("DocumentVersion", version),
        ("DocumentHash", hash),
        ("ExpireDryRun", "false".to_owned()),
        ("ArtifactBucket", "artifacts".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Value::from(value)))
    .chain(more.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))))
    .collect();
    let same = |id: &str| (id.to_owned(), id.to_owned());
    let resources: BTreeMap<String, (String, String)> =
        [("Records", (dr.bucket.clone(), records)), ("CopiesKey", (dr.key.clone(), dr.key.clone())), ("Alarms", same(&dr.topic))]
            .into_iter()
            .map(|(id, value)| (id.to_owned(), value))
            .collect();
    let resources = if *region == dr.region { resources } else { BTreeMap::new() };
    Deployment { account: ACCOUNT.to_owned(), region: region.clone(), parameters, resources }
}

/// Starts the function's program with a role of its own.
async fn start(sandbox: &Sandbox, setup: &Setup, function: &Function, log: &Path) -> Result<Running> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a runtime API")?;
    let api = listener.local_addr()?.to_string();
    let until = sandbox.cloud.clock.now().plus_secs(CREDENTIALS_SECS);
    sandbox.cloud.policies().insert(function.name.clone(), function.statements.clone());
    let actions = function.statements.iter().filter(|s| !s.deny).flat_map(|s| s.actions.clone()).collect();
    sandbox.cloud.world().grant(&function.name, actions);
    let key = sandbox.cloud.keys().issue_function(&sandbox.cloud.account, &function.function_name, &function.name, until);
    let out = std::fs::OpenOptions::new().create(true).append(true).open(log).context("opening a function's log")?;
    let mut command = Command::new(&setup.program);
    command
        .env_clear()
        .envs(&function.environment)
        .env("AWS_LAMBDA_RUNTIME_API", api)
        .env("_HANDLER", &function.name)
        .env("AWS_REGION", function.region.as_str())
        .env("AWS_DEFAULT_REGION", function.region.as_str())
        .env("AWS_LAMBDA_FUNCTION_NAME", &function.function_name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory.to_string())
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", function.function_name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "sandbox")
        .env("AWS_ACCESS_KEY_ID", &key.access)
        .env("AWS_SECRET_ACCESS_KEY", &key.secret)
        .env("AWS_SESSION_TOKEN", key.token.unwrap_or_default())
        .env("AWS_ENDPOINT_URL", &sandbox.endpoint)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PATH", crate::host::PATH)
        .env("LANG", "en_US.UTF-8")
        .env("TZ", ":UTC")
        .env("SANDBOX_CLOCK", sandbox.layout.clock())
        .env("LD_PRELOAD", sandbox.layout.clock_library())
        .current_dir(setup.program.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("starting {}", setup.program.display()))?;
    let waiting = Arc::new(Waiting::default());
    let server = tokio::spawn(serve(listener, waiting.clone()));
    Ok(Running { child, waiting, server, environment: function.environment.clone(), until })
}

async fn stop(process: &mut Option<Running>) {
    if let Some(mut running) = process.take() {
        running.server.abort();
        let _ = running.child.start_kill();
        let _ = running.child.wait().await;
    }
}

fn tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Each event that came to a bus, one line each, for whoever wants to send one again.
fn note_event(sandbox: &Sandbox, event: &Value) {
    let path = sandbox.layout.log().join("events");
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
        let _ = writeln!(file, "{event}");
    }
}

/// The runtime API of one function (2018-06-01).
async fn serve(listener: TcpListener, waiting: Arc<Waiting>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let waiting = waiting.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let waiting = waiting.clone();
                async move { Ok::<_, Infallible>(waiting.answer(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Waiting {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches("/2018-06-01/runtime/").to_owned();
        let words: Vec<&str> = path.split('/').collect();
        match (&parts.method, words.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, what @ ("response" | "error")]) => {
                let value = read(body).await;
                let known = lock(&self.answers).remove(*id);
                match known {
                    Some(sender) => {
                        let _ = sender.send(if *what == "response" { Ok(value) } else { Err(value) });
                        reply(StatusCode::ACCEPTED, &json!({"status": "OK"}))
                    }
                    None => reply(
                        StatusCode::BAD_REQUEST,
                        &json!({"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"}),
                    ),
                }
            }
            (&Method::POST, ["init", "error"]) => {
                let value = read(body).await;
                *lock(&self.init) = Some(value);
                self.init_failed.notify_one();
                reply(StatusCode::ACCEPTED, &json!({"status": "OK"}))
            }
            _ => reply(StatusCode::NOT_FOUND, &json!({"errorType": "NotFound", "errorMessage": path})),
        }
    }

    /// Blocks until there is an event, as the real one does.
    async fn next(&self) -> Response<Body> {
        loop {
            let asked = self.asked.notified();
            if let Some(pending) = lock(&self.queue).pop_front() {
                let mut response = Response::new(Body::from(pending.event.to_string()));
                let headers = response.headers_mut();
                let mut set = |name: &'static str, value: String| {
                    if let Ok(value) = value.parse() {
                        headers.insert(name, value);
                    }
                };
                set("content-type", "application/json".to_owned());
                set("lambda-runtime-aws-request-id", pending.id);
                set("lambda-runtime-deadline-ms", pending.deadline.0.to_string());
                set("lambda-runtime-invoked-function-arn", pending.arn);
                set("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned());
                return response;
            }
            asked.await;
        }
    }
}

async fn read(body: Incoming) -> Value {
    let bytes = crate::cloud::collect(Body::from(body)).await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
}

fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
