//! The customer's own backup tool: multi-volume snapshots with tags of its own, as Data Lifecycle Manager makes them. The product
//! takes none; it finds these.

use crate::sandbox::Sandbox;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::sync::Arc;
use tde2hsm_model::{Caller, Principal, Request, Service};

const NAME: &str = "backup-tool";

/// Takes a set of each host and returns, by instance, the ids of its snapshots.
pub fn snapshot(
    sandbox: &Arc<Sandbox>,
    host: Option<&str>,
    exclude_data: bool,
    exclude: &[String],
    description: Option<&str>,
) -> Result<Value> {
    let hosts = match host {
        Some(name) => vec![sandbox.host(name)?],
        None => sandbox.hosts.clone(),
    };
    let arn = format!("arn:aws:sts::{}:assumed-role/AWSDataLifecycleManagerDefaultRole/{NAME}", crate::sandbox::ACCOUNT);
    let caller = Caller { principal: Principal::Function(NAME.to_owned()), arn, user_id: format!("AROABACKUPTOOL:{NAME}") };
    let mut taken = serde_json::Map::new();
    for host in hosts {
        if sandbox.cloud.is_lost(&host.region) {
            bail!("{} does not answer", host.region);
        }
        let mut query = json!({
            "InstanceSpecification.InstanceId": host.id.as_str(),
            "Description": description.unwrap_or("Created for policy: policy-0a1b2c3d4e5f60718 schedule: nightly"),
            "CopyTagsFromSource": "volume",
            "TagSpecification.1.ResourceType": "snapshot",
            "TagSpecification.1.Tag.1.Key": "dlm:managed",
            "TagSpecification.1.Tag.1.Value": "true",
            "TagSpecification.1.Tag.2.Key": "Name",
            "TagSpecification.1.Tag.2.Value": host.plan.name,
        });
        let init = host.namespace.init();
        // A device and its mount have the same place.
        let volumes = init.devices.iter().zip(&init.mounts).skip(1);
        let left_out = volumes.filter(|(_, mount)| exclude_data || exclude.contains(&mount.target));
        for (n, ((_, volume), _)) in left_out.enumerate() {
            query[format!("InstanceSpecification.ExcludeDataVolumeId.{}", n + 1)] = volume.as_str().into();
        }
        let reply = {
            let mut world = sandbox.cloud.world();
            world.grant(NAME, vec!["ec2:*".to_owned()]);
            let request = Request {
                caller: &caller,
                region: &host.region,
                service: Service::Ec2,
                operation: "CreateSnapshots",
                body: &query,
            };
            world.call(&request, sandbox.cloud.clock.now())
        };
        sandbox.carry();
        let set = reply.result.with_context(|| format!("a snapshot set of {}", host.plan.name))?;
        let ids: Vec<Value> = set["snapshotSet"].as_array().into_iter().flatten().map(|s| s["snapshotId"].clone()).collect();
        taken.insert(host.id.to_string(), ids.into());
    }
    sandbox.cloud.changed.notify_one();
    Ok(Value::Object(taken))
}
