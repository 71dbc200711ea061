//! The SSM Command document that brings host-runner to a host and starts it.
//!
//! Whoever may send a command must not thereby be root (H34). So everything that decides what runs stands in the
//! document's text: bucket, key, VersionId and sha256 of each file; and SendCommand pins the document's version and
//! hash. The order reaches the script as an environment variable (`interpolationType: ENV_VAR`, `A§1.7`), never as
//! text of the script, and only host-runner, which believes nothing, reads it. The other parameter is one of two words
//! and is read by preconditions alone.
//!
//! The text itself cannot be broken out of either: each part is a newtype over an alphabet without quotes, blanks,
//! `$`, backquotes, braces or newlines. Exit codes 137, 168, 169 and 194 mean something else to the agent
//! (`A§1.7`): the script itself exits 1 only, and host-runner 0.

#![forbid(unsafe_code)]

mod parts;
mod script;

pub use parts::{BucketName, FileName, ObjectVersion, OsName, PackageVersion, PartError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
pub use tde2hsm_protocol::Fetch;
use tde2hsm_protocol::{Digest, ORDER_LIMIT, Region};

/// Name of the document where `setup` is not told another.
pub const DEFAULT_NAME: &str = "tde2hsm-run";
/// Name of the one step whose output is a report.
pub const STEP_RUN: &str = "runOrder";
/// Parameter that carries the order.
pub const PARAMETER_ORDER: &str = "Order";
/// Parameter that says what to download.
pub const PARAMETER_FETCH: &str = "Fetch";
/// How long the agent lets the script run, in seconds. An operation that takes longer answers `waiting` well before.
pub const EXECUTION_TIMEOUT: u32 = 3_600;

/// One file in the bucket, under a key that its content alone decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    pub file: FileName,
    pub sha256: Digest,
    pub version: ObjectVersion,
}

impl Artefact {
    pub fn key(&self) -> String {
        object_key(self.sha256, &self.file)
    }
}

/// The key of a file of this content. A different file can only have a different key.
pub fn object_key(sha256: Digest, file: &FileName) -> String {
    format!("tde2hsm/{sha256}/{file}")
}

/// A client package for one operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    pub os: OsName,
    pub artefact: Artefact,
    /// Name in the package's own header.
    pub name: FileName,
    /// Version and release in the package's own header.
    pub version: PackageVersion,
}

/// All that the document's text is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentSource {
    pub region: Region,
    pub bucket: BucketName,
    pub runner: Artefact,
    pub packages: Vec<Package>,
    pub ca: Option<Artefact>,
}

/// A rendered document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub text: String,
    /// What SendCommand's DocumentHash has to be.
    pub sha256: Digest,
}

/// A document without parameters that takes the runner and its packages off a host.
pub fn removal() -> Document {
    let document = json!({
        "schemaVersion": "2.2",
        "description": "Takes host-runner of tde2hsm off a host; its journal and backups stay",
        "mainSteps": [{
            "action": "aws:runShellScript",
            "name": STEP_RUN,
            "precondition": {"StringEquals": ["platformType", "Linux"]},
            "inputs": {
                "timeoutSeconds": "60",
                "onFailure": "exit",
                "runCommand": script::REMOVE.lines().collect::<Vec<_>>(),
            },
        }],
    });
    let text = serde_json::to_string_pretty(&document).expect("a JSON value serialises");
    let sha256 = Digest::of(text.as_bytes());
    Document { text, sha256 }
}

/// What the removal's script prints when it has done its work.
pub const REMOVED: &str = "tde2hsm: removed";

/// Directory below the command's own download directory.
const RUNNER_DIR: &str = "runner";
const CLIENT_DIR: &str = "client";

impl DocumentSource {
    pub fn render(&self) -> Document {
        let mut steps = vec![self.download("fetchRunner", &self.runner, RUNNER_DIR, None)];
        let client = self.packages.iter().map(|package| &package.artefact).chain(&self.ca);
        for (number, artefact) in client.enumerate() {
            steps.push(self.download(&format!("fetchClient{number}"), artefact, CLIENT_DIR, Some(Fetch::Client)));
        }
        steps.push(json!({
            "action": "aws:runShellScript",
            "name": STEP_RUN,
            "precondition": {"StringEquals": ["platformType", "Linux"]},
            "inputs": {
                "timeoutSeconds": EXECUTION_TIMEOUT.to_string(),
                "onFailure": "exit",
                "runCommand": script::lines(self),
            },
        }));
        let document = json!({
            "schemaVersion": "2.2",
            "description": "Brings host-runner of tde2hsm, verified by its digest, and hands it one work order",
            "parameters": {
                PARAMETER_ORDER: {
                    "type": "String",
                    "description": "A work order: deflated JSON in base64url",
                    "interpolationType": "ENV_VAR",
                    // The agent's regular expressions know no repeat count above 1,000; `maxChars` bounds the length.
                    "allowedPattern": "^[A-Za-z0-9_-]+$",
                    "maxChars": ORDER_LIMIT,
                },
                PARAMETER_FETCH: {
                    "type": "String",
                    "description": "What to download: host-runner, or the client packages too",
                    "allowedValues": [Fetch::Runner.as_str(), Fetch::Client.as_str()],
                    "default": Fetch::Runner.as_str(),
                },
            },
            "mainSteps": steps,
        });
        let text = serde_json::to_string_pretty(&document).expect("a JSON value serialises");
        let sha256 = Digest::of(text.as_bytes());
        Document { text, sha256 }
    }

    /// Reads a document's text back. It is one of ours only if rendering what it says it was made from gives the same
    /// text again.
    pub fn of_document(text: &str) -> Option<DocumentSource> {
        let document: Value = serde_json::from_str(text).ok()?;
        let lines = document["mainSteps"].as_array()?.last()?["inputs"]["runCommand"].as_array()?;
        let made_from = lines.iter().find_map(|line| line.as_str()?.strip_prefix(script::MADE_FROM))?;
        let source: DocumentSource = serde_json::from_str(made_from).ok()?;
        (source.render().text == text).then_some(source)
    }

    /// The agent has no checksum for what it downloads (`A§1.8`): the script's `sha256sum -c` is what counts. Its S3
    /// source also goes by the key alone, so that the key, too, holds the digest.
    fn download(&self, name: &str, artefact: &Artefact, directory: &str, only_for: Option<Fetch>) -> Value {
        let url =
            format!("https://s3.{}.amazonaws.com/{}/{}?versionId={}", self.region, self.bucket, artefact.key(), artefact.version);
        let mut step = json!({
            "action": "aws:downloadContent",
            "name": name,
            "inputs": {
                "sourceType": "S3",
                "sourceInfo": json!({"path": url}).to_string(),
                "destinationPath": format!("{directory}/{}", artefact.file),
                "onFailure": "exit",
            },
        });
        if let Some(fetch) = only_for {
            let parameter = format!("{{{{ {PARAMETER_FETCH} }}}}");
            step["precondition"] = json!({"StringEquals": [parameter, fetch.as_str()]});
        }
        step
    }

    /// What `/opt/tde2hsm/packages/manifest.json` says, in one line.
    fn manifest(&self) -> String {
        let packages: Vec<Value> = self
            .packages
            .iter()
            .map(|package| {
                json!({
                    "os": package.os.as_str(),
                    "file": package.artefact.file.as_str(),
                    "name": package.name.as_str(),
                    "version": package.version.as_str(),
                    "sha256": package.artefact.sha256,
                })
            })
            .collect();
        let ca = self.ca.as_ref().map(|ca| json!({"file": ca.file.as_str(), "sha256": ca.sha256}));
        json!({"packages": packages, "ca": ca}).to_string()
    }
}
