//! What `sandbox verify` does.

use crate::sandbox::Sandbox;
use anyhow::Result;
use serde_json::{Value, json};

pub fn verify(_sandbox: &Sandbox, _cut_off: &[String]) -> Result<Value> {
    Ok(json!({"databases": {}}))
}
