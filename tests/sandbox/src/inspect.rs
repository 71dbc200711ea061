//! What `sandbox inspect` prints.

use crate::sandbox::Sandbox;
use anyhow::Result;
use serde_json::{Value, json};

pub fn inspect(sandbox: &Sandbox) -> Result<Value> {
    let world = sandbox.cloud.world();
    Ok(json!({
        "databases": {},
        "api_calls": world.calls(true),
        "api_calls_of_hosts": world.calls(false),
    }))
}
