//! What `sandbox verify` does: fresh instances over throw-away copies of every host, and every seeded row read.
//!
//! The copy is an overlay, so the running fleet is neither stopped nor touched, and what a fresh instance writes is
//! gone with it. Key stores are cut off for the fresh instances alone.

use crate::host::{InitArgs, Mount, Namespace};
use crate::sandbox::{Sandbox, SandboxHost};
use crate::{databases, host::HostError};
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const STORES: [&str; 4] = ["old-hsm", "software", "target", "cloudhsm"];

/// `host`: that one alone, which may be a drill's; its rows are compared with the truth of the host whose volumes it was made from.
pub fn verify(sandbox: &Sandbox, cut_off: &[String], host: Option<&str>) -> Result<Value> {
    if let Some(unknown) = cut_off.iter().find(|store| !STORES.contains(&store.as_str())) {
        bail!("`{unknown}` cannot be cut off; the stores are old-hsm, software and target");
    }
    let results = match host {
        Some(name) => vec![verify_host(sandbox, &*sandbox.host(name)?, cut_off)],
        None => sandbox.on_each_host(crate::sandbox::WIDTH, |host| {
            verify_host(sandbox, host, cut_off).with_context(|| format!("host {}", host.plan.name))
        }),
    };
    let mut databases = Map::new();
    for found in results {
        if let Value::Object(found) = found? {
            databases.extend(found);
        }
    }
    Ok(json!({"cut_off": cut_off, "databases": databases}))
}

fn verify_host(sandbox: &Sandbox, host: &SandboxHost, cut_off: &[String]) -> Result<Value> {
    let scratch = tempfile::Builder::new().prefix("verify-").tempdir_in(sandbox.layout.scratch())?;
    let root = scratch.path().join("root");
    fs::create_dir_all(&root).map_err(crate::host::io("making a root"))?;
    let args = throw_away(&host.namespace.init(), root, scratch.path());
    let copy = Namespace::new(&sandbox.program, &args);
    copy.start().map_err(|e: HostError| anyhow::anyhow!("{e}"))?;
    let truth = sandbox.layout.truth(&sandbox.source_of(&host.id));
    let result = databases::verify(sandbox.users, &host.plan, &copy, &truth, &sandbox.secrets_of(host), cut_off);
    copy.kill();
    result
}

/// The same host once more, its volumes the lower layers of new ones.
fn throw_away(host: &InitArgs, root: PathBuf, scratch: &Path) -> InitArgs {
    let mounts = host.mounts.iter().enumerate().map(|(n, mount)| Mount {
        lower: std::iter::once(&mount.upper).chain(&mount.lower).cloned().collect(),
        upper: scratch.join(format!("upper-{n}")),
        work: scratch.join(format!("work-{n}")),
        ..mount.clone()
    });
    InitArgs { root, mounts: mounts.collect(), ..host.clone() }
}
