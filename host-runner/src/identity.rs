//! Who this host is, and with which credentials it speaks: by IMDSv2 alone (H35).
//!
//! The client is a few lines over a socket on purpose. It is asked once an operation, before any runtime is started,
//! and it must not know any other source: no environment, no profile, no proxy can answer for the metadata service.

use crate::endpoints::Endpoints;
use crate::paths::Paths;
use serde::Deserialize;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tde2hsm_protocol::{AccountId, Code, InstanceId, Region};
use zeroize::Zeroizing;

/// Who this host is.
#[derive(Debug, Clone)]
pub struct Identity {
    pub account: AccountId,
    pub region: Region,
    pub instance: InstanceId,
    pub endpoints: Endpoints,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("IMDSv2 at `{endpoint}` does not answer: {source}")]
    Unreachable { endpoint: String, source: std::io::Error },
    #[error("IMDSv2 answered `{path}` with status {status}")]
    Status { path: String, status: u16 },
    #[error("IMDSv2 answered `{path}` with something else than was expected")]
    Unexpected { path: String },
    #[error(transparent)]
    Endpoints(#[from] crate::endpoints::EndpointsError),
}

impl IdentityError {
    pub fn code(&self) -> Code {
        match self {
            IdentityError::Endpoints(_) => Code::ENDPOINTS_UNSAFE,
            _ => Code::HOST_IDENTITY,
        }
    }
}

/// The role's temporary credentials.
pub struct Credentials {
    pub access_key: String,
    pub secret_key: Zeroizing<String>,
    pub session_token: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: String,
    region: String,
    instance_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl Identity {
    pub fn read(paths: &Paths) -> Result<Identity, IdentityError> {
        let endpoints = Endpoints::read(paths)?;
        let imds = Imds::open(&endpoints)?;
        let path = "/latest/dynamic/instance-identity/document";
        let unexpected = || IdentityError::Unexpected { path: path.to_owned() };
        let document: Document = serde_json::from_str(&imds.get(path)?).map_err(|_| unexpected())?;
        Ok(Identity {
            account: AccountId::new(document.account_id).map_err(|_| unexpected())?,
            region: Region::new(document.region).map_err(|_| unexpected())?,
            instance: InstanceId::new(document.instance_id).map_err(|_| unexpected())?,
            endpoints,
        })
    }

    /// A tag of the instance, where its metadata service may show tags (`InstanceMetadataTags`).
    pub fn tag(&self, key: &str) -> Result<Option<String>, IdentityError> {
        match Imds::open(&self.endpoints)?.get(&format!("/latest/meta-data/tags/instance/{key}")) {
            Ok(value) => Ok(Some(value.trim().to_owned())),
            Err(IdentityError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Read anew each time: they are good for hours, an operation may last longer than what is left of them.
    pub fn credentials(&self) -> Result<Credentials, IdentityError> {
        let imds = Imds::open(&self.endpoints)?;
        let path = "/latest/meta-data/iam/security-credentials/";
        let role = imds.get(path)?;
        let unexpected = || IdentityError::Unexpected { path: path.to_owned() };
        let role = role.lines().next().map(str::trim).filter(|role| !role.is_empty()).ok_or_else(unexpected)?;
        if !role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)) {
            return Err(unexpected());
        }
        let body = imds.get(&format!("{path}{role}"))?;
        let read: RoleCredentials = serde_json::from_str(&body).map_err(|_| unexpected())?;
        Ok(Credentials {
            access_key: read.access_key_id,
            secret_key: Zeroizing::new(read.secret_access_key),
            session_token: Zeroizing::new(read.token),
        })
    }
}

struct Imds {
    address: SocketAddr,
    endpoint: String,
    token: Zeroizing<String>,
}

const TRIES: usize = 3;
const TIME: Duration = Duration::from_secs(2);
const LIMIT: u64 = 64 * 1024;

impl Imds {
    fn open(endpoints: &Endpoints) -> Result<Imds, IdentityError> {
        let endpoint = endpoints.imds.clone().unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let address = address(&endpoint).ok_or_else(|| IdentityError::Unreachable {
            endpoint: endpoint.clone(),
            source: std::io::Error::other("not `http://ADDRESS:PORT`"),
        })?;
        let mut imds = Imds { address, endpoint, token: Zeroizing::new(String::new()) };
        imds.token = imds.ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 300")?;
        if imds.token.is_empty() || !imds.token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(IdentityError::Unexpected { path: "/latest/api/token".to_owned() });
        }
        Ok(imds)
    }

    fn get(&self, path: &str) -> Result<Zeroizing<String>, IdentityError> {
        let header = Zeroizing::new(format!("X-aws-ec2-metadata-token: {}", *self.token));
        self.ask("GET", path, &header)
    }

    fn ask(&self, method: &str, path: &str, header: &str) -> Result<Zeroizing<String>, IdentityError> {
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.exchange(method, path, header) {
                Ok(answer) => break answer,
                Err(_) if tries < TRIES => {}
                Err(source) => return Err(IdentityError::Unreachable { endpoint: self.endpoint.clone(), source }),
            }
        };
        let unexpected = || IdentityError::Unexpected { path: path.to_owned() };
        let (status, body) = parse(&answer).ok_or_else(unexpected)?;
        if status != 200 {
            return Err(IdentityError::Status { path: path.to_owned(), status });
        }
        String::from_utf8(body).map(Zeroizing::new).map_err(|_| unexpected())
    }

    fn exchange(&self, method: &str, path: &str, header: &str) -> std::io::Result<Zeroizing<Vec<u8>>> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIME)?;
        stream.set_read_timeout(Some(TIME))?;
        stream.set_write_timeout(Some(TIME))?;
        let request = Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        ));
        stream.write_all(request.as_bytes())?;
        let mut answer = Zeroizing::new(Vec::new());
        stream.take(LIMIT).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn address(endpoint: &str) -> Option<SocketAddr> {
    let host = endpoint.strip_prefix("http://")?.trim_end_matches('/');
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.trim_matches(['[', ']']).parse().ok()?, 80)))
}

/// Status and body of an HTTP/1.1 answer that is whole.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..split]).ok()?;
    let mut body = &answer[split + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        lines.clone().find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()))
    };
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let mut whole = Vec::new();
        loop {
            let end = body.windows(2).position(|two| two == b"\r\n")?;
            let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            body = &body[end + 2..];
            if size == 0 {
                return Some((status, whole));
            }
            whole.extend_from_slice(body.get(..size)?);
            body = body.get(size + 2..)?;
        }
    }
    match header("content-length") {
        Some(length) => Some((status, body.get(..length.parse().ok()?)?.to_vec())),
        None => Some((status, body.to_vec())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    /// A metadata service that insists on version 2. `answers`: path and body.
    pub fn imds(answers: Vec<(&'static str, String)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap());
                let request = lines.next().unwrap_or_default();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (status, body) = if request.starts_with("PUT /latest/api/token ") {
                    (200, "TOKEN==".to_owned())
                } else if !headers.iter().any(|h| h.eq_ignore_ascii_case("x-aws-ec2-metadata-token: TOKEN==")) {
                    (401, String::new())
                } else {
                    match answers.iter().find(|(p, _)| *p == path) {
                        Some((_, body)) => (200, body.clone()),
                        None => (404, String::new()),
                    }
                };
                let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        endpoint
    }

    pub fn host_with_imds(endpoint: &str) -> Identity {
        Identity {
            account: AccountId::new("123456789012").unwrap(),
            region: Region::new("us-east-1").unwrap(),
            instance: InstanceId::new("i-0123456789abcdef0").unwrap(),
            endpoints: Endpoints { imds: Some(endpoint.to_owned()), ..Endpoints::default() },
        }
    }

    #[test]
    fn h35_identity_and_credentials_come_from_version_2() {
        let endpoint = imds(vec![
            ("/latest/meta-data/iam/security-credentials/", "tde-role\n".into()),
            (
                "/latest/meta-data/iam/security-credentials/tde-role",
                r#"{"Code":"Success","AccessKeyId":"AKIA1","SecretAccessKey":"s3cr3t","Token":"t0ken","Expiration":"2030-01-01T00:00:00Z"}"#.into(),
            ),
        ]);
        let identity = host_with_imds(&endpoint);
        let credentials = identity.credentials().ok().unwrap();
        assert_eq!((credentials.access_key.as_str(), credentials.secret_key.as_str()), ("AKIA1", "s3cr3t"));
        let without_role = host_with_imds(&imds(Vec::new()));
        assert!(matches!(without_role.credentials(), Err(IdentityError::Status { status: 404, .. })));
    }

    #[test]
    fn h35_no_answer_is_no_identity() {
        // A port that nobody listens on.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = host_with_imds(&endpoint).credentials().err().unwrap();
        assert!(matches!(error, IdentityError::Unreachable { .. }));
        assert_eq!(error.code(), Code::HOST_IDENTITY);
        assert!(address("https://169.254.169.254").is_none() && address("http://evil.example").is_none());
        assert_eq!(address("http://[fd00:ec2::254]").unwrap().port(), 80);
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((200, b"abcde".to_vec())));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), None);
        assert_eq!(parse(b"HTTP/1.0 401 No\r\n\r\n"), Some((401, Vec::new())));
        assert_eq!(parse(b"hello"), None);
    }
}
