//! Instance metadata, version 2 only, one loopback listener a host: which host asks is told by the port it came to.

use crate::cloud::Cloud;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::Body;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tde2hsm_model::{InstanceId, Millis, Region};
use tokio::net::TcpListener;

/// How long role credentials are good for, and how long the same ones are handed out.
const CREDENTIALS_SECS: i64 = 6 * 3600;
const RENEW_SECS: i64 = 3600;

#[derive(Debug, Clone)]
pub struct Identity {
    pub instance: InstanceId,
    pub region: Region,
    pub zone: String,
    pub kind: String,
    pub image: String,
    pub private_ip: String,
    pub role: String,
    pub launched: Millis,
}

#[derive(Debug)]
pub struct Imds {
    cloud: Arc<Cloud>,
    who: Identity,
    tokens: Mutex<BTreeMap<String, Millis>>,
    issued: Mutex<Option<(Millis, String)>>,
}

impl Imds {
    pub fn new(cloud: Arc<Cloud>, who: Identity) -> Arc<Self> {
        Arc::new(Self { cloud, who, tokens: Mutex::new(BTreeMap::new()), issued: Mutex::new(None) })
    }

    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let imds = self.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let response = imds.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        let now = self.cloud.clock.now();
        let path = request.uri().path();
        if path == "/latest/api/token" {
            let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<i64>().ok());
            return match (request.method(), ttl) {
                // A request that came through a proxy gets no token.
                (&Method::PUT, _) if header("x-forwarded-for").is_some() => plain(StatusCode::FORBIDDEN, ""),
                (&Method::PUT, Some(ttl)) if (1..=21_600).contains(&ttl) => {
                    let token = uuid::Uuid::new_v4().simple().to_string() + "==";
                    let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.insert(token.clone(), now.plus_secs(ttl));
                    let mut response = plain(StatusCode::OK, token);
                    response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl.into());
                    response
                }
                (&Method::PUT, _) => plain(StatusCode::BAD_REQUEST, ""),
                _ => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
            };
        }
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let known = header("x-aws-ec2-metadata-token").and_then(|token| tokens.get(token)).is_some_and(|until| *until > now);
        drop(tokens);
        if !known {
            return plain(StatusCode::UNAUTHORIZED, "");
        }
        match self.read(path, now) {
            Some(text) => plain(StatusCode::OK, text),
            None => plain(StatusCode::NOT_FOUND, ""),
        }
    }

    fn read(&self, path: &str, now: Millis) -> Option<String> {
        let who = &self.who;
        let rest = path.strip_prefix("/latest/")?.trim_end_matches('/');
        Some(match rest {
            "dynamic/instance-identity/document" => serde_json::to_string_pretty(&json!({
                "accountId": self.cloud.account.as_str(),
                "architecture": "x86_64",
                "availabilityZone": who.zone,
                "billingProducts": null,
                "devpayProductCodes": null,
                "marketplaceProductCodes": null,
                "imageId": who.image,
                "instanceId": who.instance.as_str(),
                "instanceType": who.kind,
                "kernelId": null,
                "pendingTime": who.launched.iso(),
                "privateIp": who.private_ip,
                "ramdiskId": null,
                "region": who.region.as_str(),
                "version": "2017-09-30",
            }))
            .ok()?,
            "meta-data/instance-id" => who.instance.to_string(),
            "meta-data/placement/region" => who.region.to_string(),
            "meta-data/placement/availability-zone" => who.zone.clone(),
            "meta-data/local-ipv4" => who.private_ip.clone(),
            "meta-data/instance-type" => who.kind.clone(),
            "meta-data/services/domain" => "amazonaws.com".to_owned(),
            "meta-data/iam/security-credentials" => who.role.clone(),
            tag if tag.starts_with("meta-data/tags/instance/") => {
                let key = tag.strip_prefix("meta-data/tags/instance/")?;
                let world = self.cloud.world();
                world.region(&who.region)?.ec2.tag_in_metadata(&who.instance, key)?.to_owned()
            }
            other => {
                let role = other.strip_prefix("meta-data/iam/security-credentials/")?;
                if role != who.role {
                    return None;
                }
                self.credentials(now)
            }
        })
    }

    fn credentials(&self, now: Millis) -> String {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, text)) = issued.as_ref()
            && until.since(now) > RENEW_SECS * 1000
        {
            return text.clone();
        }
        let until = now.plus_secs(CREDENTIALS_SECS);
        let key = self.cloud.keys().issue(&self.cloud.account, &self.who.role, &self.who.instance, until);
        let text = json!({
            "Code": "Success",
            "LastUpdated": now.iso(),
            "Type": "AWS-HMAC",
            "AccessKeyId": key.access,
            "SecretAccessKey": key.secret,
            "Token": key.token,
            "Expiration": until.iso(),
        })
        .to_string();
        *issued = Some((until, text.clone()));
        text
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
