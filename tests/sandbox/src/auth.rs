//! Who signed a request (AWS Signature Version 4), checked and not believed.
//!
//! Only two kinds of key exist: the operator's, printed by `sandbox up`, and those the instance metadata of a host
//! hands out with a session token. The canonical request is rebuilt from what arrived and the signature recomputed
//! with the `aws-sigv4` crate, so a product that signs wrongly, or not at all, is refused with AWS's own error.

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tde2hsm_model::{AccountId, ApiError, Caller, Ids, InstanceId, Millis, Principal, Region, Service};
use thiserror::Error;

/// How far a signature's time may lie from the clock.
const SKEW: i64 = 15 * 60 * 1000;

#[derive(Debug, Clone)]
pub struct Key {
    pub access: String,
    pub secret: String,
    pub token: Option<String>,
    pub expires: Option<Millis>,
    pub caller: Caller,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    #[error("the request carries no signature")]
    Missing,
    #[error("the signature cannot be read: {0}")]
    Malformed(&'static str),
    #[error("the access key {0} is not known here")]
    UnknownKey(String),
    #[error("the session token does not belong to the key")]
    WrongToken,
    #[error("the session token has expired")]
    Expired,
    #[error("the signature's time is too far from the clock")]
    Skewed,
    #[error("the signature does not match")]
    Mismatch,
}

impl AuthError {
    /// The refusal as `service` words it.
    pub fn for_service(&self, service: Service) -> ApiError {
        const INVALID: &str = "The security token included in the request is invalid.";
        const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";
        const EXPIRED: &str = "The security token included in the request is expired";
        match service {
            Service::Ssm | Service::CloudHsm | Service::Secrets | Service::Kms => match self {
                Self::Missing => ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token"),
                Self::Malformed(why) => ApiError::new("IncompleteSignatureException", *why),
                Self::UnknownKey(_) | Self::WrongToken => ApiError::new("UnrecognizedClientException", INVALID),
                Self::Expired => ApiError::new("ExpiredTokenException", EXPIRED),
                Self::Skewed => ApiError::new("InvalidSignatureException", "Signature expired"),
                Self::Mismatch => ApiError::new("InvalidSignatureException", MISMATCH),
            },
            Service::Ec2 => match self {
                Self::Missing => ApiError::new("MissingParameter", "The request must contain the parameter AWSAccessKeyId"),
                Self::Expired | Self::Skewed => ApiError::new("RequestExpired", "Request has expired."),
                _ => {
                    ApiError::new("AuthFailure", "AWS was not able to validate the provided access credentials").with_status(401)
                }
            },
            Service::Sts | Service::Sns => match self {
                Self::Missing => {
                    ApiError::new("MissingAuthenticationToken", "Request is missing Authentication Token").with_status(403)
                }
                Self::Malformed(why) => ApiError::new("IncompleteSignature", *why),
                Self::UnknownKey(_) | Self::WrongToken => ApiError::new("InvalidClientTokenId", INVALID).with_status(403),
                Self::Expired => ApiError::new("ExpiredToken", EXPIRED).with_status(403),
                Self::Skewed | Self::Mismatch => ApiError::new("SignatureDoesNotMatch", MISMATCH).with_status(403),
            },
            Service::S3 => match self {
                Self::Missing => ApiError::new("AccessDenied", "Access Denied").with_status(403),
                Self::UnknownKey(_) => {
                    ApiError::new("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
                        .with_status(403)
                }
                Self::Expired => ApiError::new("ExpiredToken", "The provided token has expired."),
                Self::WrongToken => ApiError::new("InvalidToken", "The provided token is malformed or otherwise invalid."),
                Self::Skewed => ApiError::new(
                    "RequestTimeTooSkewed",
                    "The difference between the request time and the server's time is too large.",
                )
                .with_status(403),
                Self::Malformed(_) | Self::Mismatch => ApiError::new("SignatureDoesNotMatch", MISMATCH).with_status(403),
            },
        }
    }
}

/// What an `Authorization` header says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Scope {
    pub access: String,
    pub date: String,
    pub region: Region,
    pub service: String,
    signed_headers: Vec<String>,
    signature: String,
}

impl Scope {
    pub fn read(parts: &Parts) -> Result<Self, AuthError> {
        let header = parts.headers.get(http::header::AUTHORIZATION).ok_or(AuthError::Missing)?;
        let text = header.to_str().map_err(|_| AuthError::Malformed("not ASCII"))?;
        let rest = text.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(AuthError::Malformed("not AWS4-HMAC-SHA256"))?;
        let fields: HashMap<&str, &str> = rest.split(',').filter_map(|field| field.trim().split_once('=')).collect();
        let field = |name| fields.get(name).copied().ok_or(AuthError::Malformed("a part is missing"));
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access, date, region, service, "aws4_request"] = credential[..] else {
            return Err(AuthError::Malformed("Credential has not five parts"));
        };
        Ok(Self {
            access: access.to_owned(),
            date: date.to_owned(),
            region: Region::new(region),
            service: service.to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
        })
    }
}

/// Every key that may sign.
#[derive(Debug)]
pub struct KeyRing {
    ids: Ids,
    keys: BTreeMap<String, Key>,
    operator: String,
}

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl KeyRing {
    pub fn new(account: &AccountId, seed: u64) -> Self {
        // Apart from the world's own identifiers, so that a key more does not change the rest of it.
        let mut ids = Ids::new(seed ^ 0x6b65_7973);
        let access = format!("AKIA{}", ids.text(UPPER, 16));
        let caller = Caller {
            principal: Principal::Operator,
            arn: format!("arn:aws:sts::{account}:assumed-role/tde2hsm-operator/night-shift"),
            user_id: format!("AROA{}:night-shift", ids.text(UPPER, 17)),
        };
        let key = Key { access: access.clone(), secret: ids.text(SECRET, 40), token: None, expires: None, caller };
        Self { ids, keys: BTreeMap::from([(access.clone(), key)]), operator: access }
    }

    pub fn operator(&self) -> &Key {
        &self.keys[&self.operator]
    }

    /// New credentials of a host's role.
    pub fn issue(&mut self, account: &AccountId, role: &str, instance: &InstanceId, until: Millis) -> Key {
        let caller = Caller {
            principal: Principal::Host(instance.clone()),
            arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{instance}"),
            user_id: format!("AROA{}:{instance}", self.ids.text(UPPER, 17)),
        };
        self.session(caller, until)
    }

    fn session(&mut self, caller: Caller, until: Millis) -> Key {
        let key = Key {
            access: format!("ASIA{}", self.ids.text(UPPER, 16)),
            secret: self.ids.text(SECRET, 40),
            token: Some(self.ids.text(SECRET, 240)),
            expires: Some(until),
            caller,
        };
        self.keys.insert(key.access.clone(), key.clone());
        key
    }

    /// New credentials of a function's role.
    pub fn issue_function(&mut self, account: &AccountId, role: &str, name: &str, until: Millis) -> Key {
        let caller = Caller {
            principal: Principal::Function(name.to_owned()),
            arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{role}"),
            user_id: format!("AROA{}:{role}", self.ids.text(UPPER, 17)),
        };
        self.session(caller, until)
    }

    pub fn key(&self, access: &str) -> Option<&Key> {
        self.keys.get(access)
    }

    /// The key, its session token checked.
    pub fn find(&self, access: &str, token: Option<&str>, now: Millis) -> Result<&Key, AuthError> {
        let key = self.keys.get(access).ok_or_else(|| AuthError::UnknownKey(access.to_owned()))?;
        if key.token.as_deref() != token {
            return Err(AuthError::WrongToken);
        }
        if key.expires.is_some_and(|at| at < now) {
            return Err(AuthError::Expired);
        }
        Ok(key)
    }

    /// Checks the signature of a request whose body has been read. `clocks` are the times that count as now: the
    /// machine's, which programs sign with, and the world's.
    pub fn verify(&self, scope: &Scope, parts: &Parts, body: &[u8], clocks: [Millis; 2]) -> Result<&Key, AuthError> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let key = self.find(&scope.access, text("x-amz-security-token"), clocks[1])?;
        let date = text("x-amz-date").ok_or(AuthError::Malformed("X-Amz-Date is missing"))?;
        let at = parse_amz_date(date).ok_or(AuthError::Malformed("X-Amz-Date is no date"))?;
        if !date.starts_with(&scope.date) {
            return Err(AuthError::Malformed("the scope's date is not that of the request"));
        }
        if clocks.iter().all(|now| now.since(at).abs() > SKEW) {
            return Err(AuthError::Skewed);
        }
        for must in ["host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
            if parts.headers.contains_key(must) && !scope.signed_headers.iter().any(|signed| signed == must) {
                return Err(AuthError::Malformed("a header that must be signed is not"));
            }
        }
        let canonical = canonical_request(scope, parts, body)?;
        let region = &scope.region;
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{}/{region}/{}/aws4_request\n{}",
            scope.date,
            scope.service,
            hex::encode(Sha256::digest(canonical.as_bytes()))
        );
        let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
        let signing_key = generate_signing_key(&key.secret, time, region.as_str(), &scope.service);
        if calculate_signature(signing_key, to_sign.as_bytes()) == scope.signature { Ok(key) } else { Err(AuthError::Mismatch) }
    }
}

fn canonical_request(scope: &Scope, parts: &Parts, body: &[u8]) -> Result<String, AuthError> {
    let mut query: Vec<(String, String)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut headers = String::new();
    for name in &scope.signed_headers {
        let values: Vec<String> = parts
            .headers
            .get_all(name.as_str())
            .iter()
            .map(|value| value.to_str().map(|v| v.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
            .collect::<Result<_, _>>()
            .map_err(|_| AuthError::Malformed("a signed header is not ASCII"))?;
        if values.is_empty() {
            return Err(AuthError::Malformed("a signed header is missing"));
        }
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    Ok(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        parts.method,
        // These services know no path but `/`.
        parts.uri.path(),
        query.join("&"),
        scope.signed_headers.join(";"),
        hex::encode(Sha256::digest(body))
    ))
}

/// Whether `X-Amz-Date` lies near one of the times that count as now.
pub fn is_timely(date: &str, clocks: [Millis; 2]) -> bool {
    parse_amz_date(date).is_some_and(|at| clocks.iter().any(|now| now.since(at).abs() <= SKEW))
}

/// `20261124T035128Z`.
fn parse_amz_date(text: &str) -> Option<Millis> {
    let (date, time) =
        text.strip_suffix('Z')?.split_once('T').filter(|(d, t)| d.len() == 8 && t.len() == 6 && text.is_ascii())?;
    let iso = format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]);
    Millis::parse_iso(&iso)
}

/// The machine's time as these services write it in headers.
pub fn http_date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;

    const NOW: &str = "20261124T035128Z";

    fn ring() -> (KeyRing, AccountId) {
        let account = AccountId::new("123456789012");
        (KeyRing::new(&account, 7), account)
    }

    /// A request as an AWS client signs it.
    fn signed(key: &Key, body: &[u8], secret: &str) -> Parts {
        let at = parse_amz_date(NOW).unwrap();
        let time = UNIX_EPOCH + Duration::from_millis(at.0 as u64);
        let identity = aws_sigv4_credentials(key, secret);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("ssm")
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let headers = [("host", "127.0.0.1:4566"), ("x-amz-target", "AmazonSSM.ListCommands")];
        let signable =
            SignableRequest::new("POST", "http://127.0.0.1:4566/", headers.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(signable, &params.into()).unwrap().into_parts();
        let mut request = http::Request::builder().method("POST").uri("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(()).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        request.into_parts().0
    }

    fn aws_sigv4_credentials(key: &Key, secret: &str) -> aws_smithy_runtime_api::client::identity::Identity {
        aws_credential_types::Credentials::new(&key.access, secret, key.token.clone(), None, "test").into()
    }

    fn check<'a>(ring: &'a KeyRing, parts: &Parts, body: &[u8]) -> Result<&'a Key, AuthError> {
        let now = parse_amz_date(NOW).unwrap();
        ring.verify(&Scope::read(parts)?, parts, body, [now, now])
    }

    #[test]
    fn what_the_crate_signs_is_accepted() {
        let (mut ring, account) = ring();
        let operator = ring.operator().clone();
        assert_eq!(
            check(&ring, &signed(&operator, b"{}", &operator.secret), b"{}").unwrap().caller.principal,
            Principal::Operator
        );
        let until = parse_amz_date(NOW).unwrap().plus_secs(60);
        let host = ring.issue(&account, "role", &InstanceId::new("i-0123456789abcdef0"), until);
        assert!(check(&ring, &signed(&host, b"{}", &host.secret), b"{}").is_ok());
    }

    #[test]
    fn anything_that_was_changed_is_refused() {
        let (mut ring, account) = ring();
        let key = ring.operator().clone();
        assert_eq!(check(&ring, &signed(&key, b"{}", "another secret"), b"{}").unwrap_err(), AuthError::Mismatch);
        let parts = signed(&key, b"{}", &key.secret);
        assert_eq!(check(&ring, &parts, b"{ }").unwrap_err(), AuthError::Mismatch);
        let mut other = signed(&key, b"{}", &key.secret);
        other.headers.insert("x-amz-target", "AmazonSSM.SendCommand".parse().unwrap());
        assert_eq!(check(&ring, &other, b"{}").unwrap_err(), AuthError::Mismatch);
        let mut unsigned = signed(&key, b"{}", &key.secret);
        unsigned.headers.remove("authorization");
        assert_eq!(check(&ring, &unsigned, b"{}").unwrap_err(), AuthError::Missing);
        let stranger = Key { access: "AKIAIOSFODNN7EXAMPLE".into(), ..key.clone() };
        assert!(matches!(check(&ring, &signed(&stranger, b"{}", &key.secret), b"{}"), Err(AuthError::UnknownKey(_))));

        let now = parse_amz_date(NOW).unwrap();
        let late = ring.verify(&Scope::read(&parts).unwrap(), &parts, b"{}", [now.plus_secs(3600), now.plus_secs(90_000)]);
        assert_eq!(late.unwrap_err(), AuthError::Skewed);

        let host = ring.issue(&account, "role", &InstanceId::new("i-0123456789abcdef0"), now.plus_secs(-1));
        assert_eq!(check(&ring, &signed(&host, b"{}", &host.secret), b"{}").unwrap_err(), AuthError::Expired);
        let no_token = Key { token: None, ..host.clone() };
        assert_eq!(check(&ring, &signed(&no_token, b"{}", &host.secret), b"{}").unwrap_err(), AuthError::WrongToken);
    }
}
