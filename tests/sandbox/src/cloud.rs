//! The cloud of a sandbox: one world, the keys that may sign, the services on one loopback port.
//!
//! A request says itself which service and region it means, in the scope of its signature; `AWS_ENDPOINT_URL` is
//! therefore all a client needs. Replies that a fault loses are carried out first and then end in a closed connection.

use crate::auth::{AuthError, Key, KeyRing, Scope, http_date};
use crate::clock::Clock;
use crate::layout::Layout;
use crate::template::{self, Statement};
use crate::{s3, wire};
use futures::StreamExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::config::{S3Config, S3ConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tde2hsm_model::{AccountId, ApiError, Fate, InstanceId, Principal, Region, Service, World};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// More than any request of these services may be long, an object of S3 aside.
const MAX_BODY: usize = 512 * 1024 * 1024;

#[derive(Debug)]
pub struct Cloud {
    world: Mutex<World>,
    keys: Mutex<KeyRing>,
    pub clock: Clock,
    pub s3: s3::Store,
    pub account: AccountId,
    /// A line for each call, for whoever wants to know what happened.
    log: Mutex<std::fs::File>,
    recorder: Option<Mutex<std::fs::File>>,
    /// Told after each call, because a call may have effects.
    pub changed: Notify,
    /// Carries out what a call did to real things before the call is answered: a snapshot is of the moment of its call.
    carrier: OnceLock<Carrier>,
    reach: Mutex<Reach>,
    /// What the role of each function, and of each host of a drill, allows.
    policies: Mutex<BTreeMap<String, Vec<Statement>>>,
}

struct Carrier(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Carrier")
    }
}

/// What cannot be reached.
#[derive(Debug, Default)]
struct Reach {
    /// Regions of which nothing answers.
    lost: BTreeSet<Region>,
    /// Hosts without a route out of their region.
    confined: BTreeMap<InstanceId, Region>,
    /// Calls of such hosts to other regions, none of which arrived.
    crossings: u64,
}

/// Why a connection ends without an answer.
#[derive(Debug, Error)]
pub enum Dropped {
    #[error("a fault lost the reply")]
    Lost,
    #[error("there is no way there")]
    NoRoute,
    #[error("the request could not be read")]
    Unreadable,
}

/// `s3s` judges the time of a signature by the machine's clock; who lives by the world's is as far from it as the world is.
struct Skew(Arc<Cloud>);

impl S3ConfigProvider for Skew {
    fn snapshot(&self) -> Arc<S3Config> {
        let mut config = S3Config::default();
        let ahead = u32::try_from(self.0.clock.ahead().as_secs()).unwrap_or(u32::MAX);
        config.presigned_url_max_skew_time_secs = config.presigned_url_max_skew_time_secs.saturating_add(ahead);
        Arc::new(config)
    }
}

impl Cloud {
    pub fn new(world: World, seed: u64, layout: &Layout, record: Option<&Path>) -> std::io::Result<Arc<Self>> {
        let append = |path: &Path| std::fs::OpenOptions::new().create(true).append(true).open(path);
        let recorder = record.map(append).transpose()?;
        let log = Mutex::new(append(&layout.log().join("calls"))?);
        let account = world.account.clone();
        Ok(Arc::new(Self {
            keys: Mutex::new(KeyRing::new(&account, seed)),
            account,
            world: Mutex::new(world),
            clock: Clock::new(&layout.clock())?,
            s3: s3::Store::new(&layout.s3(), seed),
            log,
            recorder: recorder.map(Mutex::new),
            changed: Notify::new(),
            carrier: OnceLock::new(),
            reach: Mutex::default(),
            policies: Mutex::default(),
        }))
    }

    /// Says who carries out effects.
    pub fn carried_by(&self, carrier: impl Fn() + Send + Sync + 'static) {
        let _ = self.carrier.set(Carrier(Box::new(carrier)));
    }

    pub fn policies(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Statement>>> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Region and tags decide too, where a policy of a template says so; the model knows of actions alone.
    fn forbidden(&self, call: &tde2hsm_model::Request<'_>) -> Option<ApiError> {
        let tags = request_tags(call.body);
        // Tags in the call that makes a resource are a right of their own.
        let tagging = match call.service {
            Service::Ec2 if !tags.is_empty() => Some("CreateTags"),
            Service::CloudHsm if !tags.is_empty() => Some("TagResource"),
            _ => None,
        };
        let actions = [Some(call.operation), tagging.filter(|action| *action != call.operation)];
        let missing = actions.into_iter().flatten();
        let mut missing =
            missing.filter(|action| !self.permits(&call.caller.principal, call.service, action, call.region, &tags));
        missing.next().map(|action| tde2hsm_model::denied(call.service, &call.caller.arn, action))
    }

    /// Whether the policy of a function or of a drill's host permits an action. Who has no policy of a template is not judged here.
    pub fn permits(
        &self,
        principal: &Principal,
        service: Service,
        action: &str,
        region: &Region,
        tags: &BTreeMap<String, String>,
    ) -> bool {
        let who = match principal {
            Principal::Function(name) => name.as_str(),
            Principal::Host(instance) => instance.as_str(),
            Principal::Operator => return true,
        };
        let action = format!("{}:{action}", service.prefix());
        self.policies().get(who).is_none_or(|statements| template::permits(statements, &action, region, tags))
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host has no route out of its region.
    pub fn confine(&self, instance: &InstanceId, region: &Region) {
        self.reach().confined.insert(instance.clone(), region.clone());
    }

    /// Nothing of the region answers, or everything again.
    pub fn lose(&self, region: &Region, lost: bool) {
        let mut reach = self.reach();
        if lost {
            reach.lost.insert(region.clone())
        } else {
            reach.lost.remove(region)
        };
    }

    pub fn is_lost(&self, region: &Region) -> bool {
        self.reach().lost.contains(region)
    }

    /// Whether an agent gets at a bucket: its region answers, and lies on this side for a host without a route out of it.
    pub fn agent_reaches(&self, instance: &InstanceId, bucket: &str) -> bool {
        let Some(place) = self.s3.region_of(bucket).map(Region::new) else { return true };
        let host = Principal::Host(instance.clone());
        if !self.permits(&host, Service::S3, "GetObject", &place, &BTreeMap::new()) {
            return false;
        }
        let reach = self.reach();
        !reach.lost.contains(&place) && reach.confined.get(instance).is_none_or(|home| *home == place)
    }

    /// How often a host that is confined called another region, in vain.
    pub fn crossings(&self) -> u64 {
        self.reach().crossings
    }

    /// Whether a request with this scope arrives anywhere.
    fn arrives(&self, scope: &Scope) -> bool {
        let principal = self.keys().key(&scope.access).map(|key| key.caller.principal.clone());
        let mut reach = self.reach();
        if reach.lost.contains(&scope.region) {
            return false;
        }
        let home = match principal {
            Some(Principal::Host(instance)) => reach.confined.get(&instance),
            _ => None,
        };
        let crosses = home.is_some_and(|home| *home != scope.region);
        reach.crossings += u64::from(crosses);
        !crosses
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keys(&self) -> MutexGuard<'_, KeyRing> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn operator(&self) -> Key {
        self.keys().operator().clone()
    }

    /// Serves every service on `listener` until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut builder = S3ServiceBuilder::new(s3::Service3(self.clone()));
        builder.set_auth(s3::Service3(self.clone()));
        builder.set_access(s3::Service3(self.clone()));
        builder.set_config(s3::config());
        builder.set_config(Arc::new(Skew(self.clone())));
        let s3 = builder.build();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (cloud, s3) = (self.clone(), s3.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let (cloud, s3) = (cloud.clone(), s3.clone());
                    async move { cloud.answer(request, &s3).await }
                });
                // An error here is a client that went away, or a reply that was lost on purpose.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, s3: &S3Service) -> Result<Response<Body>, Dropped> {
        let (parts, body) = request.into_parts();
        let scope = Scope::read(&parts);
        if scope.as_ref().is_ok_and(|scope| !self.arrives(scope)) {
            return Err(Dropped::NoRoute);
        }
        let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let service = match &scope {
            Ok(scope) => Service::from_prefix(&scope.service),
            Err(_) => Some(unsigned_service(&target)),
        };
        let Some(service) = service else {
            let name = scope.map(|s| s.service).unwrap_or_default();
            let refused = ApiError::new("UnknownOperationException", format!("The service {name} is not part of this world"));
            return Ok(wire::respond(Service::Ssm, "", &Err(refused), &request_id()));
        };
        if service == Service::S3 {
            return self.answer_s3(Request::from_parts(parts, Body::from(body)), s3).await;
        }
        let body = collect(body).await?;
        let form = matches!(service, Service::Ec2 | Service::Sts | Service::Sns).then(|| wire::form(&body));
        let operation = match &form {
            Some(form) => form["Action"].as_str().unwrap_or_default().to_owned(),
            None => target.rsplit('.').next().unwrap_or_default().to_owned(),
        };
        let id = request_id();
        let (result, fate) = match self.caller(scope, &parts, &body) {
            Err(refused) => (Err(refused.for_service(service)), Fate::Delivered),
            Ok((key, region)) => match form.map_or_else(|| parse_json(&body), Ok) {
                Err(refused) => (Err(refused), Fate::Delivered),
                Ok(value) => {
                    let call = tde2hsm_model::Request {
                        caller: &key.caller,
                        region: &region,
                        service,
                        operation: &operation,
                        body: &value,
                    };
                    let reply = match self.forbidden(&call) {
                        Some(refused) => tde2hsm_model::Reply { result: Err(refused), fate: Fate::Delivered },
                        None => self.world().call(&call, self.clock.now()),
                    };
                    let cloud = self.clone();
                    let carried = tokio::task::spawn_blocking(move || cloud.carrier.get().map(|carrier| (carrier.0)()));
                    let _ = carried.await;
                    self.changed.notify_one();
                    (reply.result, reply.fate)
                }
            },
        };
        tracing::debug!(
            service = service.prefix(),
            operation,
            error = result.as_ref().err().map(|e| e.code.as_str()),
            ?fate,
            "call"
        );
        let outcome = result.as_ref().err().map_or("ok", |e| e.code.as_str());
        self.note(service, &operation, if fate == Fate::Lost { "reply lost" } else { outcome });
        if fate == Fate::Lost {
            return Err(Dropped::Lost);
        }
        let response = wire::respond(service, &operation, &result, &id);
        self.finish(service, &operation, response).await
    }

    async fn answer_s3(&self, request: Request<Body>, s3: &S3Service) -> Result<Response<Body>, Dropped> {
        let (response, seen) = s3::SEEN
            .scope(RefCell::default(), async {
                let response = s3.call(request).await;
                (response, s3::SEEN.with(RefCell::take))
            })
            .await;
        self.changed.notify_one();
        let status = response.as_ref().map_or(0, |r| r.status().as_u16());
        self.note(
            Service::S3,
            &seen.operation,
            &if seen.fate == Some(Fate::Lost) { "reply lost".to_owned() } else { status.to_string() },
        );
        if seen.fate == Some(Fate::Lost) {
            return Err(Dropped::Lost);
        }
        let response = response.map_err(|_| Dropped::Unreadable)?;
        self.finish(Service::S3, &seen.operation, response).await
    }

    fn note(&self, service: Service, operation: &str, outcome: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(log, "{} {}:{operation} {outcome}", self.clock.now().iso(), service.prefix());
    }

    /// Adds the date and writes the reply down, if it is to be recorded.
    async fn finish(&self, service: Service, operation: &str, response: Response<Body>) -> Result<Response<Body>, Dropped> {
        let (mut parts, body) = response.into_parts();
        if let Ok(date) = http_date(self.clock.system()).parse() {
            parts.headers.insert(http::header::DATE, date);
        }
        // Objects are no messages: only their headers would be of interest.
        let Some(recorder) = self.recorder.as_ref().filter(|_| operation != "GetObject") else {
            return Ok(Response::from_parts(parts, body));
        };
        let bytes = collect(body).await?;
        let headers: Value = parts
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned().into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let line = json!({
            "service": service.prefix(),
            "operation": operation,
            "status": parts.status.as_u16(),
            "headers": headers,
            "body": String::from_utf8_lossy(&bytes),
        });
        let mut file = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(file, "{line}");
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }

    fn caller(
        &self,
        scope: Result<Scope, AuthError>,
        parts: &http::request::Parts,
        body: &[u8],
    ) -> Result<(Key, Region), AuthError> {
        let scope = scope?;
        let key = self.keys().verify(&scope, parts, body, [Clock::real(), self.clock.now()])?.clone();
        Ok((key, scope.region))
    }
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The service whose refusal an unsigned request gets.
fn unsigned_service(target: &str) -> Service {
    match target.split('.').next().unwrap_or_default() {
        "AmazonSSM" => Service::Ssm,
        "BaldrApiService" => Service::CloudHsm,
        "secretsmanager" => Service::Secrets,
        "TrentService" => Service::Kms,
        _ => Service::S3,
    }
}

fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    let value: Value = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) }
        .map_err(|e| ApiError::new("SerializationException", e.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(ApiError::new("SerializationException", "the body is no object")) }
}

/// The tags that a request gives to what it makes.
fn request_tags(body: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut tags = BTreeMap::new();
    for (name, key) in body.as_object().into_iter().flatten() {
        if let Some(at) = name.strip_suffix(".Key").filter(|at| at.contains("Tag.")) {
            tags.insert(text(key), text(&body[format!("{at}.Value")]));
        }
    }
    for list in ["TagList", "Tags"] {
        for tag in body[list].as_array().into_iter().flatten() {
            tags.insert(text(&tag["Key"]), text(&tag["Value"]));
        }
    }
    tags
}

pub(crate) async fn collect(body: impl Into<Body>) -> Result<Vec<u8>, Dropped> {
    let mut body = body.into();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| Dropped::Unreadable)?);
        if bytes.len() > MAX_BODY {
            return Err(Dropped::Unreadable);
        }
    }
    Ok(bytes)
}
