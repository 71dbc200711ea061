//! Command documents: versions, hashes, parameters (A§1.7).

use super::{Ssm, put, text};
use crate::world::WorldOptions;
use crate::{ApiError, Millis};
use regex::Regex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The document every account has.
pub const RUN_SHELL_SCRIPT: &str = "AWS-RunShellScript";

const MAX_CONTENT: usize = 64 * 1024;
const RESERVED: [&str; 6] = ["aws", "amazon", "amzn", "AWSEC2", "AWSConfigRemediation", "AWSSupport"];

#[derive(Debug, Clone)]
pub struct DocumentVersion {
    pub number: u32,
    pub name: Option<String>,
    pub text: String,
    pub content: Value,
    pub format: &'static str,
    pub created: Millis,
}

impl DocumentVersion {
    /// SHA-256 of the text as it was given.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    fn status(&self, now: Millis, options: &WorldOptions) -> &'static str {
        if now.since(self.created) < options.document_lag_ms {
            if self.number == 1 { "Creating" } else { "Updating" }
        } else {
            "Active"
        }
    }
}

#[derive(Debug, Clone)]
pub struct Document {
    pub name: String,
    pub owner: String,
    pub versions: Vec<DocumentVersion>,
    pub default: u32,
    pub tags: Value,
}

impl Document {
    fn latest(&self) -> &DocumentVersion {
        self.versions.last().expect("a document has at least the version it was created with")
    }

    /// `$DEFAULT`, `$LATEST` or a number; absent is the default.
    pub fn version(&self, wanted: Option<&str>) -> Result<&DocumentVersion, ApiError> {
        let found = match wanted.unwrap_or("$DEFAULT") {
            "" | "$DEFAULT" => self.versions.iter().find(|v| v.number == self.default),
            "$LATEST" => Some(self.latest()),
            number => number.parse().ok().and_then(|n: u32| self.versions.iter().find(|v| v.number == n)),
        };
        found.ok_or_else(|| {
            ApiError::new(
                "InvalidDocumentVersion",
                format!("The document version {} is not valid or does not exist", wanted.unwrap_or("")),
            )
        })
    }
}

pub(super) fn owned_by_amazon() -> Vec<Document> {
    let content = json!({
        "schemaVersion": "1.2",
        "description": "Run a shell script or specify the commands to run.",
        "parameters": {
            "commands": {
                "type": "StringList",
                "description": "(Required) Specify a shell script or a command to run.",
                "minItems": 1,
                "displayType": "textarea"
            },
            "workingDirectory": {
                "type": "String",
                "default": "",
                "description": "(Optional) The path to the working directory on your instance.",
                "maxChars": 4096
            },
            "executionTimeout": {
                "type": "String",
                "default": "3600",
                "description": "(Optional) The time in seconds for a command to complete before it is considered to have failed.",
                "allowedPattern": "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)"
            }
        },
        "runtimeConfig": {
            "aws:runShellScript": {
                "properties": [{
                    "id": "0.aws:runShellScript",
                    "runCommand": "{{ commands }}",
                    "workingDirectory": "{{ workingDirectory }}",
                    "timeoutSeconds": "{{ executionTimeout }}"
                }]
            }
        }
    });
    let version =
        DocumentVersion { number: 1, name: None, text: content.to_string(), content, format: "JSON", created: Millis(0) };
    vec![Document {
        name: RUN_SHELL_SCRIPT.to_owned(),
        owner: "Amazon".to_owned(),
        versions: vec![version],
        default: 1,
        tags: json!([]),
    }]
}

impl Ssm {
    /// A document by name or by ARN.
    pub fn document(&self, name: &str) -> Result<&Document, ApiError> {
        let short = match name.rsplit_once(":document/") {
            Some((arn, short))
                if arn == format!("arn:aws:ssm:{}:{}", self.region, self.account)
                    || arn == format!("arn:aws:ssm:{}:", self.region) =>
            {
                short
            }
            Some(_) => "",
            None => name,
        };
        self.documents
            .get(short)
            .ok_or_else(|| ApiError::new("InvalidDocument", format!("Document with name {name} does not exist.")))
    }

    fn own_document(&mut self, name: &str) -> Result<&mut Document, ApiError> {
        let short = self.document(name)?.name.clone();
        match self.documents.get_mut(&short) {
            Some(document) if document.owner != "Amazon" => Ok(document),
            _ => Err(ApiError::new(
                "InvalidDocumentOperation",
                format!("You cannot change the document {name}: it is owned by Amazon."),
            )),
        }
    }

    pub(super) fn create_document(&mut self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let name = body["Name"].as_str().unwrap_or_default();
        let good = Regex::new(r"^[a-zA-Z0-9_\-.]{3,128}$").expect("the pattern is a constant");
        if !good.is_match(name) {
            return Err(ApiError::validation(format!(
                "1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9_\\-.]{{3,128}}$"
            )));
        }
        if RESERVED.iter().any(|prefix| name.to_lowercase().starts_with(&prefix.to_lowercase())) {
            return Err(ApiError::validation(format!("Document name {name} starts with a reserved prefix")));
        }
        if self.documents.contains_key(name) {
            return Err(ApiError::new("DocumentAlreadyExists", format!("Document with same name {name} already exists")));
        }
        let version = read_content(body, 1, now)?;
        let tags = if body["Tags"].is_array() { body["Tags"].clone() } else { json!([]) };
        let document =
            Document { name: name.to_owned(), owner: self.account.to_string(), versions: vec![version], default: 1, tags };
        let described = describe(&document, document.latest(), "Creating");
        self.documents.insert(name.to_owned(), document);
        Ok(json!({"DocumentDescription": described}))
    }

    pub(super) fn update_document(&mut self, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let document = self.own_document(body["Name"].as_str().unwrap_or_default())?;
        let wanted = text(body, "DocumentVersion", 8)?;
        if wanted.is_some_and(|v| v != "$LATEST") && document.version(wanted)?.number != document.latest().number {
            return Err(ApiError::new("InvalidDocumentVersion", "The document version is not the latest version."));
        }
        let version = read_content(body, document.latest().number + 1, now)?;
        if document.versions.iter().any(|old| old.text == version.text) {
            return Err(ApiError::new(
                "DuplicateDocumentContent",
                "The content of the association document matches another document. Change the content of the document and try again.",
            ));
        }
        document.versions.push(version);
        Ok(json!({"DocumentDescription": describe(document, document.latest(), "Updating")}))
    }

    pub(super) fn update_document_default_version(&mut self, body: &Value) -> Result<Value, ApiError> {
        let document = self.own_document(body["Name"].as_str().unwrap_or_default())?;
        let number = document.version(body["DocumentVersion"].as_str())?.number;
        document.default = number;
        Ok(json!({"Description": {"Name": document.name, "DefaultVersion": number.to_string()}}))
    }

    pub(super) fn describe_document(&self, body: &Value, now: Millis, options: &WorldOptions) -> Result<Value, ApiError> {
        let document = self.document(body["Name"].as_str().unwrap_or_default())?;
        let version = document.version(body["DocumentVersion"].as_str())?;
        Ok(json!({"Document": describe(document, version, version.status(now, options))}))
    }

    pub(super) fn get_document(&self, body: &Value, now: Millis, options: &WorldOptions) -> Result<Value, ApiError> {
        let document = self.document(body["Name"].as_str().unwrap_or_default())?;
        let version = document.version(body["DocumentVersion"].as_str())?;
        let mut reply = json!({
            "Name": document.name,
            "CreatedDate": version.created.epoch(),
            "DocumentVersion": version.number.to_string(),
            "Status": version.status(now, options),
            "Content": version.text,
            "DocumentType": "Command",
            "DocumentFormat": version.format,
        });
        put(&mut reply, "VersionName", version.name.clone().map(Value::from));
        Ok(reply)
    }

    pub(super) fn delete_document(&mut self, body: &Value) -> Result<Value, ApiError> {
        let document = self.own_document(body["Name"].as_str().unwrap_or_default())?;
        let Some(wanted) = body["DocumentVersion"].as_str() else {
            let name = document.name.clone();
            self.documents.remove(&name);
            return Ok(json!({}));
        };
        let number = document.version(Some(wanted))?.number;
        if number == document.default {
            return Err(ApiError::new("InvalidDocumentOperation", "Default version of the document can't be deleted."));
        }
        document.versions.retain(|version| version.number != number);
        Ok(json!({}))
    }

    /// Whether the version may be sent already.
    pub(super) fn usable(version: &DocumentVersion, now: Millis, options: &WorldOptions) -> bool {
        version.status(now, options) == "Active"
    }
}

fn read_content(body: &Value, number: u32, now: Millis) -> Result<DocumentVersion, ApiError> {
    let text = body["Content"].as_str().unwrap_or_default();
    if text.len() > MAX_CONTENT {
        return Err(ApiError::new("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB."));
    }
    if body["DocumentType"].as_str().is_some_and(|kind| kind != "Command") {
        return Err(ApiError::validation("Only documents of type Command are known here"));
    }
    let format = match body["DocumentFormat"].as_str().unwrap_or("JSON") {
        "JSON" => "JSON",
        "YAML" => "YAML",
        other => return Err(ApiError::validation(format!("The document format {other} is not valid"))),
    };
    let invalid = |why: String| ApiError::new("InvalidDocumentContent", why);
    // Every JSON text is a YAML text; a YAML document that is no JSON is beyond this model and says so.
    let content: Value = serde_json::from_str(text).map_err(|e| match format {
        "YAML" => invalid(format!("only YAML in its JSON form is understood here: {e}")),
        _ => invalid(format!("JSON not well-formed. {e}")),
    })?;
    if content["schemaVersion"] != "2.2" {
        return Err(invalid(format!(
            "Document schema version, {}, is not supported by documents of this kind",
            content["schemaVersion"]
        )));
    }
    let Some(steps) = content["mainSteps"].as_array().filter(|steps| !steps.is_empty()) else {
        return Err(invalid("The document has no mainSteps".to_owned()));
    };
    let step_name = Regex::new(r"^[a-zA-Z0-9_]{3,128}$").expect("the pattern is a constant");
    let mut names = std::collections::BTreeSet::new();
    for step in steps {
        let name = step["name"].as_str().unwrap_or_default();
        if !step_name.is_match(name) || !names.insert(name) {
            return Err(invalid(format!("The step name {name:?} is not valid or not unique")));
        }
        match step["action"].as_str().unwrap_or_default() {
            "aws:runShellScript" | "aws:downloadContent" => {}
            other => return Err(invalid(format!("The action {other:?} of step {name} is not known here"))),
        }
    }
    for (name, parameter) in content["parameters"].as_object().into_iter().flatten() {
        match parameter["type"].as_str() {
            Some("String" | "StringList" | "Boolean" | "Integer" | "MapList" | "StringMap") => {}
            other => return Err(invalid(format!("The type {other:?} of parameter {name} is not valid"))),
        }
        if let Some(pattern) = parameter["allowedPattern"].as_str()
            && let Err(e) = Regex::new(pattern)
        {
            return Err(invalid(format!("The allowedPattern of parameter {name} is no regular expression: {e}")));
        }
    }
    Ok(DocumentVersion {
        number,
        name: body["VersionName"].as_str().map(str::to_owned),
        text: text.to_owned(),
        content,
        format,
        created: now,
    })
}

fn describe(document: &Document, version: &DocumentVersion, status: &str) -> Value {
    let parameters: Vec<Value> = version.content["parameters"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, parameter)| {
            let kind = if parameter["type"] == "StringList" { "StringList" } else { "String" };
            let mut row = json!({"Name": name, "Type": kind});
            put(&mut row, "Description", parameter.get("description").cloned());
            put(&mut row, "DefaultValue", parameter.get("default").map(|d| Value::from(plain(d))));
            row
        })
        .collect();
    let mut reply = json!({
        "Hash": version.hash(),
        "HashType": "Sha256",
        "Name": document.name,
        "Owner": document.owner,
        "CreatedDate": version.created.epoch(),
        "Status": status,
        "DocumentVersion": version.number.to_string(),
        "Parameters": parameters,
        "PlatformTypes": ["Linux", "MacOS"],
        "DocumentType": "Command",
        "SchemaVersion": version.content["schemaVersion"],
        "LatestVersion": document.latest().number.to_string(),
        "DefaultVersion": document.default.to_string(),
        "DocumentFormat": version.format,
        "Tags": document.tags,
    });
    put(&mut reply, "VersionName", version.name.clone().map(Value::from));
    put(&mut reply, "Description", version.content.get("description").cloned());
    reply
}

/// A parameter value as text: a string as it is, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Checks parameters against a document and fills in its defaults. The values come as lists of strings, and leave as
/// what the document declares: a string for `String`, a list for `StringList`.
pub(super) fn check_parameters(content: &Value, given: &Value) -> Result<BTreeMap<String, Value>, ApiError> {
    let invalid = |why: String| ApiError::new("InvalidParameters", why);
    let empty = serde_json::Map::new();
    let declared = content["parameters"].as_object().unwrap_or(&empty);
    let given = given.as_object().unwrap_or(&empty);
    if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
        return Err(invalid(format!("The parameter {unknown} is not declared in the document")));
    }
    let mut out = BTreeMap::new();
    for (name, declaration) in declared {
        let kind = declaration["type"].as_str().unwrap_or("String");
        let Some(value) = given.get(name) else {
            let default = declaration.get("default").ok_or_else(|| invalid(format!("The parameter {name} has no value")))?;
            out.insert(name.clone(), default.clone());
            continue;
        };
        let list: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let in_bounds = |low: &str, high: &str, n: usize| {
            declaration[low].as_u64().is_none_or(|m| n as u64 >= m) && declaration[high].as_u64().is_none_or(|m| n as u64 <= m)
        };
        if kind == "StringList" && !in_bounds("minItems", "maxItems", list.len()) {
            return Err(invalid(format!("The parameter {name} has a wrong number of values")));
        }
        if kind != "StringList" && list.len() != 1 {
            return Err(invalid(format!("The parameter {name} takes one value")));
        }
        for item in &list {
            if kind == "String" && !in_bounds("minChars", "maxChars", item.chars().count()) {
                return Err(invalid(format!("The parameter {name} has a wrong length")));
            }
            if !matches_declaration(declaration, item) {
                return Err(invalid(format!("The value of parameter {name} is not allowed by the document")));
            }
        }
        out.insert(name.clone(), if kind == "StringList" { json!(list) } else { json!(list[0]) });
    }
    Ok(out)
}

/// `allowedPattern`, unanchored as the agent checks it (A§1.7), and `allowedValues`.
fn matches_declaration(declaration: &Value, item: &str) -> bool {
    let pattern = declaration["allowedPattern"].as_str();
    let values = declaration["allowedValues"].as_array();
    pattern.is_none_or(|p| Regex::new(p).is_ok_and(|r| r.is_match(item)))
        && values.is_none_or(|values| values.iter().any(|value| plain(value) == item))
}
