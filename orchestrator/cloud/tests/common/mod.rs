//! A server in this process that answers by a script and keeps what it was asked, and an SDK configuration that leads to it.

#![allow(dead_code, reason = "each test file uses its part")]

use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::retry::RetryConfig;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
    pub fn target(&self) -> String {
        self.headers.get("x-amz-target").cloned().unwrap_or_default()
    }
}

/// What the server does with the next request.
#[derive(Debug, Clone)]
pub enum Then {
    /// Reads it and hangs up.
    Drop,
    Answer(u16, String),
}

#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }
}

/// Answers requests in the order of `script`, the last of it again and again. `headers` are those of the answer to the
/// request of this number, each with its line end.
pub fn serve(script: Vec<Then>, region: &'static str, headers: fn(usize) -> String) -> (SdkConfig, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log(Arc::default());
    let seen = Arc::clone(&log.0);
    let script = Arc::new(script);
    // Each client keeps a connection of its own.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, script, seen) = (stream.unwrap(), Arc::clone(&script), Arc::clone(&seen));
            std::thread::spawn(move || {
                while let Some(request) = read(&mut stream) {
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request);
                        seen.len() - 1
                    };
                    match &script[number.min(script.len() - 1)] {
                        Then::Drop => break,
                        Then::Answer(status, body) => {
                            let length = body.len();
                            let head = format!("HTTP/1.1 {status} x\r\n{}content-length: {length}\r\n\r\n", headers(number));
                            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                        }
                    }
                }
            });
        }
    });
    let credentials = Credentials::new("AKIDEXAMPLE", "not-a-secret", None, None, "test");
    // As the program's own configuration, but for pauses that no test should sit through.
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(AwsRegion::new(region))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
        .build();
    (config, log)
}

fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    loop {
        let mut text = String::new();
        if reader.read_line(&mut text).ok()? == 0 {
            return None;
        }
        let text = text.trim_end();
        if text.is_empty() {
            break;
        }
        match text.split_once(": ") {
            Some((name, value)) if !line.is_empty() => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
            _ => line = text.to_owned(),
        }
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { line, headers, body: String::from_utf8(body).unwrap() })
}
