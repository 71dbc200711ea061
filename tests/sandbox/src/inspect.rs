//! What `sandbox inspect` prints: the state of the world as the sandbox itself sees it, never as the product says.

use crate::databases;
use crate::sandbox::Sandbox;
use anyhow::{Context as _, Result};
use sandbox_shim::admin::Token;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub fn inspect(sandbox: &Sandbox) -> Result<Value> {
    let found = sandbox.on_each_host(crate::sandbox::WIDTH, |host| {
        databases::inspect(sandbox.users, &host.plan, &host.namespace).with_context(|| format!("host {}", host.plan.name))
    });
    let (mut all, mut statements) = (Map::new(), BTreeMap::<String, u64>::new());
    let mut unseen = Map::new();
    for (host, found) in sandbox.hosts.iter().zip(found) {
        match found {
            Ok(Value::Object(found)) => {
                for (sid, database) in found {
                    for (class, count) in database["statements"].as_object().into_iter().flatten() {
                        *statements.entry(class.clone()).or_default() += count.as_u64().unwrap_or(0);
                    }
                    all.insert(sid, database);
                }
            }
            Ok(_) => {}
            Err(why) => {
                unseen.insert(host.plan.name.clone(), format!("{why:#}").into());
            }
        }
    }
    let mut logins = Map::new();
    for token in crate::sandbox::TOKENS {
        let state = Token::at(&sandbox.layout.hsm(token)).state()?;
        logins.insert(token.to_owned(), json!({"ok": state.logins.ok, "failed": state.logins.failed}));
    }
    let world = sandbox.cloud.world();
    let mut out = json!({
        "databases": all,
        "logins": logins,
        "statements": statements,
        "api_calls": world.calls(true),
        "api_calls_of_hosts": world.calls(false),
    });
    if !unseen.is_empty() {
        out["not_seen"] = Value::Object(unseen);
    }
    Ok(out)
}
