//! What `sandbox inspect` prints: the state of the world as the sandbox itself sees it, never as the product says.

use crate::databases;
use crate::sandbox::Sandbox;
use anyhow::{Context as _, Result};
use sandbox_shim::admin::Token;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use tde2hsm_model::ec2::SnapshotState;
use tde2hsm_model::{Millis, World};

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
    for (cluster, (ok, failed)) in sandbox.tokens.former() {
        logins.insert(cluster, json!({"ok": ok, "failed": failed, "gone": true}));
    }
    for (id, cluster) in sandbox.tokens.clusters().into_iter().filter(|(id, _)| *id != sandbox.cluster) {
        let state = cluster.token.state()?;
        logins.insert(id, json!({"ok": state.logins.ok, "failed": state.logins.failed}));
    }
    let drills = drills(sandbox);
    let functions = sandbox.functions.inspect();
    let roles: Vec<String> = sandbox.functions.names().into_iter().chain(sandbox.assumed()).collect();
    let world = sandbox.cloud.world();
    let mut out = json!({
        "drills": drills,
        "functions": functions,
        "recovery": recovery(sandbox, &world, &all),
        "hsms": hsms(sandbox, &world),
        "crossings": sandbox.cloud.crossings(),
        "api_calls_of_functions": roles.into_iter().map(|n| (n.clone(), json!(world.function_calls(&n)))).collect::<Map<_, _>>(),
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

/// Every instance that was ever launched, and what runs on those that are there.
fn drills(sandbox: &Sandbox) -> Map<String, Value> {
    let launches = sandbox.launches.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let here = sandbox.drills.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut all = Map::new();
    for (id, launch) in launches {
        let mut row = json!({"region": launch.region.as_str(), "source": launch.source.as_ref().map(|s| s.as_str())});
        row["state"] = match (&launch.failed, here.get(&id)) {
            (Some(why), _) => format!("failed: {why}").into(),
            (None, None) => "gone".into(),
            (None, Some(_)) => "up".into(),
        };
        if let Some(host) = here.get(&id) {
            match databases::inspect(sandbox.users, &host.plan, &host.namespace) {
                Ok(found) => row["databases"] = found,
                Err(why) => row["not_seen"] = format!("{why:#}").into(),
            }
        }
        all.insert(id.to_string(), row);
    }
    all
}

/// HSMs of the fleet's cluster that have come to life, and which of them are ACTIVE.
fn hsms(sandbox: &Sandbox, world: &World) -> Map<String, Value> {
    let hsms = world.region(&sandbox.region).map(|region| region.hsm.hsms(&sandbox.cluster)).unwrap_or_default();
    hsms.into_iter().map(|(id, active)| (id, active.into())).collect()
}

/// How Oracle labels a master key in an HSM.
const LABEL: &str = "ORACLE.TDE.HSM.MK.";

/// What is really there in the second region: copies with content, for each host the moment of the newest set that is whole, and
/// the databases whose active key no copied HSM backup holds.
/// A set is what one call took; that of a host is whole when every volume the host has is in it and its copy is complete.
fn recovery(sandbox: &Sandbox, world: &World, databases: &Map<String, Value>) -> Value {
    let now = sandbox.cloud.clock.now();
    let Some(dr) = world.region(&sandbox.dr.region) else { return json!({}) };
    let copies: Vec<_> = dr.ec2.snapshots.all().filter(|s| s.origin.is_some()).collect();
    let mut held: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut with_content = 0;
    for copy in copies.iter().filter(|c| c.state == SnapshotState::Completed) {
        let Some(content) = sandbox.ebs.content(&copy.id) else { continue };
        with_content += 1;
        held.entry((content.instance.to_string(), content.taken)).or_default().insert(content.volume);
    }
    let mut newest = Map::new();
    let mut oldest_minutes: Option<i64> = Some(0);
    for host in &sandbox.hosts {
        let volumes: BTreeSet<String> = host.namespace.init().devices.iter().map(|(_, volume)| volume.clone()).collect();
        let whole = held.iter().filter(|((id, _), have)| *id == host.id.as_str() && volumes.is_subset(have));
        let at = whole.filter_map(|((_, taken), _)| Millis::parse_iso(taken)).max();
        oldest_minutes = oldest_minutes.zip(at).map(|(oldest, at)| oldest.max(now.since(at) / 60_000));
        newest.insert(host.plan.name.clone(), at.map(|at| at.iso()).into());
    }
    let hsm_copies: Vec<String> =
        sandbox.tokens.backups().into_iter().filter(|id| dr.hsm.backup_state(id) == Some("READY")).collect();
    let kept: BTreeSet<String> = hsm_copies
        .iter()
        .filter_map(|id| Token::at(&sandbox.layout.hsm_backup(id)).state().ok())
        .flat_map(|state| state.keys.into_keys())
        .collect();
    let lacks = |database: &Value| {
        let mut active = database["containers"].as_object().into_iter().flatten().map(|(_, container)| &container["active"]);
        active.any(|key| {
            let label = format!("{LABEL}{}", key["id"].as_str().unwrap_or_default());
            key["store"] == "cloudhsm" && !kept.contains(&label)
        })
    };
    let lacking: Vec<&String> = databases.iter().filter(|(_, database)| lacks(database)).map(|(sid, _)| sid).collect();
    json!({
        "snapshots_copied": with_content,
        "snapshot_copies_not_completed": copies.len() - copies.iter().filter(|c| c.state == SnapshotState::Completed).count(),
        "hsm_backups_copied": hsm_copies.len(),
        "databases_whose_key_is_in_no_copied_backup": lacking,
        "newest_whole_set": newest,
        "oldest_of_them_minutes": oldest_minutes,
    })
}
