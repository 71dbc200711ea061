//! Values that must not be seen.
//!
//! A value exists in three places: in Secrets Manager, in this process's memory for as long as the operation lasts, and
//! on the standard input of sqlplus or in C_Login's argument. Here it is kept in memory that is overwritten when it is
//! given back, without Debug or Display, and whatever is read teaches the [`Redactor`] at once, so that nothing can be
//! captured with it before it is known (H39). The process leaves no core and cannot be traced by its user's others.

use crate::identity::{Identity, IdentityError};
use crate::redact::Redactor;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{
    BehaviorVersion, Credentials, Region as SdkRegion, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_secretsmanager::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::ReplicaRegionType;
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tde2hsm_protocol::{Code, Digest, Escrow, SecretRef, Sid};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the order has no secret number {0}")]
    NoSuch(u16),
    #[error("secret `{name}` cannot be read: {why}")]
    Unreadable { name: String, why: String },
    #[error("secret `{name}` belongs to another account or region")]
    Foreign { name: String },
    #[error("secret `{name}` is not text, or empty")]
    NotText { name: String },
    #[error("`{name}` cannot be kept in Secrets Manager: {why}")]
    Escrow { name: String, why: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no runtime for the calls")]
    Runtime(#[source] std::io::Error),
}

impl SecretError {
    pub fn code(&self) -> Code {
        match self {
            SecretError::Escrow { .. } => Code::ESCROW_FAILED,
            SecretError::NotText { .. } => Code::SECRET_UNFIT,
            SecretError::Identity(error) => error.code(),
            SecretError::NoSuch(_) | SecretError::Unreadable { .. } | SecretError::Foreign { .. } | SecretError::Runtime(_) => {
                Code::SECRET_UNREADABLE
            }
        }
    }
}

/// A secret's value. No Debug of it, no Display, no Clone; overwritten when dropped.
pub struct Secret {
    value: Zeroizing<String>,
}

impl Secret {
    pub fn new(value: String) -> Secret {
        Secret { value: Zeroizing::new(value) }
    }
    /// The value, for sqlplus' standard input or C_Login and nothing else (H39).
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub struct Secrets {
    identity: Identity,
    refs: Vec<SecretRef>,
    known: BTreeMap<u16, Rc<Secret>>,
    redactor: Redactor,
    cloud: Option<Cloud>,
}

/// A keystore file off the host (H5).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Escrowed {
    pub name: String,
    pub arn: String,
    pub version: String,
    pub sha256: Digest,
}

/// What a SecretBinary holds at most (H5).
pub const ESCROW_LIMIT: usize = 65_536;
/// Credentials and client are made anew after this time.
const FRESH: Duration = Duration::from_secs(600);

struct Cloud {
    runtime: Runtime,
    client: Client,
    made: Instant,
}

impl Secrets {
    /// Reads nothing yet: a survey needs no secret, and starts no runtime.
    pub fn new(identity: &Identity, refs: &[SecretRef]) -> Secrets {
        Secrets {
            identity: identity.clone(),
            refs: refs.to_vec(),
            known: BTreeMap::new(),
            redactor: Redactor::default(),
            cloud: None,
        }
    }

    /// By the order's index; read once and kept for the process's life.
    pub fn get(&mut self, index: u16) -> Result<Rc<Secret>, SecretError> {
        if let Some(secret) = self.known.get(&index) {
            return Ok(secret.clone());
        }
        let wanted = self.refs.get(usize::from(index)).ok_or(SecretError::NoSuch(index))?.clone();
        let name = wanted.arn.as_str().to_owned();
        if wanted.arn.account() != self.identity.account || wanted.arn.region() != self.identity.region {
            return Err(SecretError::Foreign { name });
        }
        let cloud = self.cloud()?;
        let call = cloud.client.get_secret_value().secret_id(&name).version_id(wanted.version.as_str()).send();
        let answer =
            cloud.runtime.block_on(call).map_err(|error| SecretError::Unreadable { name: name.clone(), why: why(&error) })?;
        if answer.version_id() != Some(wanted.version.as_str()) {
            let why = "the answer is another version".to_owned();
            return Err(SecretError::Unreadable { name, why });
        }
        let text = answer.secret_string.filter(|text| !text.is_empty()).ok_or(SecretError::NotText { name })?;
        let secret = Rc::new(Secret::new(text));
        self.redactor.learn(&secret);
        self.known.insert(index, secret.clone());
        Ok(secret)
    }

    /// Keeps a keystore file's bytes off the host, reads them back by version and compares (H5).
    ///
    /// The name holds the content's digest, so each content has a secret of its own: a version that lost its label may
    /// be deleted by the service, and a keystore file must never be (invariant 3). That makes the call repeatable, too.
    pub fn escrow(&mut self, escrow: &Escrow, sid: &Sid, file: &str, bytes: &[u8]) -> Result<Escrowed, SecretError> {
        let sha256 = Digest::of(bytes);
        let digest = sha256.to_string();
        let (host, sid) = (self.identity.instance.clone(), safe(sid.as_str()));
        let name = format!("{}/{host}/{sid}/{}-{}", escrow.prefix, safe(file), &digest[..16]);
        let fail = |why: String| SecretError::Escrow { name: name.clone(), why };
        if bytes.len() > ESCROW_LIMIT {
            return Err(fail(format!("{} bytes are over the limit of {ESCROW_LIMIT}", bytes.len())));
        }
        let replicas: Vec<_> =
            escrow.replica_regions.iter().map(|region| ReplicaRegionType::builder().region(region.as_str()).build()).collect();
        let cloud = self.cloud()?;
        let create = cloud
            .client
            .create_secret()
            .name(&name)
            .client_request_token(&digest)
            .description(format!("tde2hsm: keystore file {file} of {sid} on {host}, sha256 {digest}"))
            .secret_binary(Blob::new(bytes))
            .set_add_replica_regions((!replicas.is_empty()).then_some(replicas));
        match cloud.runtime.block_on(create.send()) {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceExistsException") => {}
            Err(error) => return Err(fail(why(&error))),
        }
        let back = cloud.runtime.block_on(cloud.client.get_secret_value().secret_id(&name).version_id(&digest).send());
        let back = back.map_err(|error| fail(why(&error)))?;
        let read = Zeroizing::new(back.secret_binary.map(Blob::into_inner).unwrap_or_default());
        if Digest::of(&read) != sha256 {
            return Err(fail("what was read back is not what was kept".to_owned()));
        }
        Ok(Escrowed { name: name.clone(), arn: back.arn.unwrap_or_default(), version: digest, sha256 })
    }

    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }
    pub fn redact_json(&self, value: Value) -> Value {
        self.redactor.redact_json(value)
    }
    /// Teaches it a value that did not come from here, for example one that a test planted.
    pub fn learn(&mut self, secret: &Secret) {
        self.redactor.learn(secret);
    }

    fn cloud(&mut self) -> Result<&Cloud, SecretError> {
        if self.cloud.as_ref().is_none_or(|cloud| cloud.made.elapsed() > FRESH) {
            let credentials = self.identity.credentials()?;
            self.redactor.learn(&Secret::new(credentials.secret_key.to_string()));
            self.redactor.learn(&Secret::new(credentials.session_token.to_string()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SecretError::Runtime)?;
            let client = client(&self.identity, &credentials);
            self.cloud = Some(Cloud { runtime, client, made: Instant::now() });
        }
        Ok(self.cloud.as_ref().expect("made above"))
    }
}

/// Built by hand: nothing of the environment or of a profile takes part (H35).
fn client(identity: &Identity, credentials: &crate::identity::Credentials) -> Client {
    let token = Some(credentials.session_token.to_string());
    let credentials =
        Credentials::new(&credentials.access_key, credentials.secret_key.as_str(), token, None, "IMDSv2 of tde2hsm");
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(20))
        .operation_timeout(Duration::from_secs(60))
        .build();
    let mut config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new(identity.region.to_string()))
        .credentials_provider(credentials)
        // Each of our calls may be repeated: reads, and a creation with a token.
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .timeout_config(timeouts);
    if let Some(endpoint) = &identity.endpoints.secretsmanager {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

/// What a person needs to know of a failed call: the service's code and words, else the chain of causes.
fn why<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => DisplayErrorContext(error).to_string().chars().take(300).collect(),
    }
}

/// What a secret's name may hold; anything else becomes `=` and its hexadecimal digits.
fn safe(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_+.@-".contains(&byte) {
            name.push(byte.into());
        } else {
            name.push_str(&format!("={byte:02x}"));
        }
    }
    name
}

/// No core dump, and no other process of the same user may look into this one (H39). For every process that may hold
/// a secret, before it holds one.
pub fn harden() {
    // The hard limit stays: a database that is started from here gets its own back (H24).
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).map_or(0, |(_, hard)| hard);
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, hard);
    // SAFETY: a system call on plain values. If it fails, nothing got worse.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{host_with_imds, imds};
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::sync::{Arc, Mutex};
    use tde2hsm_protocol::{EscrowPrefix, Region, SecretArn, SecretVersion};

    /// Enough of Secrets Manager to keep a binary and to give a string, with a memory of what it was asked.
    fn service(damage: &'static str) -> (String, Arc<Mutex<Vec<serde_json::Value>>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            let mut kept: Option<serde_json::Value> = None;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut target, mut length, mut first) = (String::new(), 0, String::new());
                    if reader.read_line(&mut first).unwrap_or(0) == 0 {
                        break;
                    }
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line).unwrap();
                        let line = line.trim().to_owned();
                        let Some((name, value)) = line.split_once(':') else { break };
                        match name.to_ascii_lowercase().as_str() {
                            "x-amz-target" => target = value.trim().to_owned(),
                            "content-length" => length = value.trim().parse().unwrap(),
                            _ => {}
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    seen.lock().unwrap().push(body.clone());
                    let (status, answer) = match target.as_str() {
                        "secretsmanager.CreateSecret" if kept.is_some() => {
                            (400, serde_json::json!({"__type": "ResourceExistsException", "Message": "there"}))
                        }
                        "secretsmanager.CreateSecret" => {
                            kept = Some(body["SecretBinary"].clone());
                            (200, serde_json::json!({"ARN": "arn:x", "Name": body["Name"]}))
                        }
                        "secretsmanager.GetSecretValue" if body["SecretId"] == ARN => {
                            (200, serde_json::json!({"SecretString": "cu:S3cret!", "VersionId": body["VersionId"]}))
                        }
                        "secretsmanager.GetSecretValue" => {
                            let binary = if damage.is_empty() { kept.clone().unwrap() } else { damage.into() };
                            (200, serde_json::json!({"ARN": "arn:x", "SecretBinary": binary, "VersionId": body["VersionId"]}))
                        }
                        _ => (400, serde_json::json!({"__type": "InvalidRequestException"})),
                    };
                    let answer = answer.to_string();
                    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
                }
            }
        });
        (endpoint, asked)
    }

    const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/cloudhsm-AbCdEf";

    fn secrets(service: &str, arn: &str) -> Secrets {
        let role = r#"{"AccessKeyId":"AKIA1","SecretAccessKey":"role-secret-key","Token":"role-token"}"#;
        let mut identity = host_with_imds(&imds(vec![
            ("/latest/meta-data/iam/security-credentials/", "role".into()),
            ("/latest/meta-data/iam/security-credentials/role", role.into()),
        ]));
        identity.endpoints.secretsmanager = Some(service.to_owned());
        let version = SecretVersion::new("11111111-2222-3333-4444-555555555555").unwrap();
        Secrets::new(&identity, &[SecretRef { arn: SecretArn::new(arn).unwrap(), version }])
    }

    #[test]
    fn h13_a_secret_is_read_by_arn_and_version_and_redacted_from_then_on() {
        let (endpoint, asked) = service("");
        let mut secrets = secrets(&endpoint, ARN);
        let secret = secrets.get(0).unwrap();
        assert_eq!(secret.reveal(), "cu:S3cret!");
        assert_eq!(secrets.get(0).unwrap().reveal(), "cu:S3cret!");
        assert_eq!(asked.lock().unwrap().len(), 1, "read once");
        assert_eq!(asked.lock().unwrap()[0]["VersionId"], "11111111-2222-3333-4444-555555555555");
        assert_eq!(secrets.redact("IDENTIFIED BY \"cu:S3cret!\""), "IDENTIFIED BY \"*redacted*\"");
        assert_eq!(secrets.redact("key role-secret-key"), "key *redacted*");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(matches!(secrets.get(7), Err(SecretError::NoSuch(7))));
    }

    #[test]
    fn h13_a_secret_of_another_account_is_not_asked_for() {
        let (endpoint, asked) = service("");
        let mut secrets = secrets(&endpoint, "arn:aws:secretsmanager:us-east-1:210987654321:secret:tde/x-AbCdEf");
        assert!(matches!(secrets.get(0), Err(SecretError::Foreign { .. })));
        assert!(asked.lock().unwrap().is_empty());
    }

    #[test]
    fn h5_a_keystore_file_is_kept_read_back_and_kept_again_without_harm() {
        let (endpoint, asked) = service("");
        let mut secrets = secrets(&endpoint, ARN);
        let escrow =
            Escrow { prefix: EscrowPrefix::new("tde/escrow").unwrap(), replica_regions: vec![Region::new("us-west-2").unwrap()] };
        let sid = Sid::new("FIN$1").unwrap();
        let first = secrets.escrow(&escrow, &sid, "ewallet.p12", b"keystore").unwrap();
        assert_eq!(secrets.escrow(&escrow, &sid, "ewallet.p12", b"keystore").unwrap(), first);
        let digest = Digest::of(b"keystore").to_string();
        assert_eq!(first.name, format!("tde/escrow/i-0123456789abcdef0/FIN=241/ewallet.p12-{}", &digest[..16]));
        let create = asked.lock().unwrap()[0].clone();
        assert_eq!(
            (create["ClientRequestToken"].as_str(), create["AddReplicaRegions"][0]["Region"].as_str()),
            (Some(&*digest), Some("us-west-2"))
        );
        let large = vec![0; ESCROW_LIMIT + 1];
        assert!(matches!(secrets.escrow(&escrow, &sid, "ewallet.p12", &large), Err(SecretError::Escrow { .. })));
    }

    #[test]
    fn h5_what_reads_back_differently_is_not_escrowed() {
        let (endpoint, _) = service("b3RoZXI=");
        let escrow = Escrow { prefix: EscrowPrefix::new("tde/escrow").unwrap(), replica_regions: Vec::new() };
        let error = secrets(&endpoint, ARN).escrow(&escrow, &Sid::new("FIN").unwrap(), "ewallet.p12", b"keystore").unwrap_err();
        assert_eq!(error.code(), Code::ESCROW_FAILED);
    }
}
