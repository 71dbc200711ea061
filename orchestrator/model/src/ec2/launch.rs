//! Images, and instances and volumes that are made and removed.

use super::query::Query;
use super::snapshots::{SnapshotState, SourceVolume, exclusions, not_found};
use super::{Ec2, InstanceSpec, describe, invalid_value, malformed, tag_set};
use crate::kms::Kms;
use crate::world::Turn;
use crate::{ApiError, Effect, InstanceId, LaunchedVolume, Millis};
use serde_json::{Value, json};

/// A terminated instance is shown for about an hour.
const TERMINATED_SHOWN_MS: i64 = 3_600_000;

const IMAGE_FILTERS: super::FilterPaths = &[
    ("image-id", &["imageId"]),
    ("name", &["name"]),
    ("state", &["imageState"]),
    ("block-device-mapping.snapshot-id", &["blockDeviceMapping", "*", "ebs", "snapshotId"]),
];

/// Something an instance does of its own accord.
#[derive(Debug, Clone)]
pub(super) struct Change {
    instance: InstanceId,
    at: Millis,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Runs {
        image: String,
        volumes: Vec<LaunchedVolume>,
    },
    /// The key of a volume cannot be used: the launch is accepted and fails afterwards.
    NoKey,
    Ends,
    Forgotten,
}

/// One entry of a block device mapping.
#[derive(Debug, Clone)]
struct Device {
    name: String,
    snapshot: String,
    size: u32,
    keep: bool,
}

fn in_use(id: &str, image: &str) -> ApiError {
    ApiError::new("InvalidSnapshot.InUse", format!("The snapshot {id} is currently in use by {image}"))
}

impl Ec2 {
    pub(super) fn create_snapshots(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let id = query.required("InstanceSpecification.InstanceId")?;
        let instance = self.known(id)?;
        let root = instance["rootDeviceName"].clone();
        let (skip_root, excluded) = exclusions(query)?;
        let mut volumes = Vec::new();
        let mut left_out = Vec::new();
        for device in instance["blockDeviceMapping"].as_array().into_iter().flatten() {
            let volume = device["ebs"]["volumeId"].as_str().unwrap_or_default();
            let is_root = device["deviceName"] == root;
            if excluded.contains(&volume) {
                if is_root {
                    return Err(invalid_value("The root volume cannot be excluded as a data volume."));
                }
                left_out.push(volume);
            } else if !(is_root && skip_root) {
                volumes.push(self.source_volume(volume)?);
            }
        }
        if let Some(stranger) = excluded.iter().find(|v| !left_out.contains(v)) {
            return Err(invalid_value(format!("The volume {stranger} is not attached to the instance {id}")));
        }
        if volumes.is_empty() {
            return Err(invalid_value("No volume is left to take a snapshot of."));
        }
        let rows = self.snapshots.create(&volumes, query, true, turn)?;
        Ok(json!({"snapshotSet": rows}))
    }

    pub(super) fn create_snapshot(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let volume = self.source_volume(query.required("VolumeId")?)?;
        let mut rows = self.snapshots.create(&[volume], query, false, turn)?;
        Ok(rows.pop().unwrap_or_default())
    }

    fn source_volume(&self, id: &str) -> Result<SourceVolume, ApiError> {
        let volume = self.volumes.iter().find(|v| v["volumeId"] == id).ok_or_else(|| no_volume(id))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(SourceVolume {
            id: id.to_owned(),
            size_gib: volume["size"].as_u64().unwrap_or_default() as u32,
            encrypted: volume["encrypted"] == true,
            kms_key: text(&volume["kmsKeyId"]),
            instance: volume["attachmentSet"][0]["instanceId"].as_str().map(InstanceId::new),
            tags: super::tags(volume).filter_map(|t| Some((text(&t["key"])?, text(&t["value"])?))).collect(),
        })
    }

    pub(super) fn delete_snapshot(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let id = query.required("SnapshotId")?;
        let uses = |image: &&Value| devices_of(image).any(|d| d["ebs"]["snapshotId"] == id);
        if let Some(image) = self.images.iter().find(uses) {
            return Err(in_use(id, image["imageId"].as_str().unwrap_or_default()));
        }
        self.snapshots.delete(id, turn)
    }

    /// `Tag.N` onto every `ResourceId.N`, all or none.
    pub(super) fn create_tags(&mut self, query: Query<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let tags = query.tags("Tag");
        super::check_tags(&tags)?;
        let ids = query.list("ResourceId");
        for id in &ids {
            self.tags_of(id)?;
        }
        for id in ids {
            self.change_tags(id, |have| {
                for (key, value) in &tags {
                    match have.iter_mut().find(|(old, _)| old == key) {
                        Some((_, old)) => old.clone_from(value),
                        None => have.push((key.clone(), value.clone())),
                    }
                }
            });
        }
        Ok(json!({"return": true}))
    }

    pub(super) fn delete_tags(&mut self, query: Query<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let ids = query.list("ResourceId");
        for id in &ids {
            self.tags_of(id)?;
        }
        let wanted: Vec<(&str, Option<&str>)> = query
            .structures("Tag")
            .iter()
            .map(|at| (query.text(&format!("{at}Key")).unwrap_or_default(), query.text(&format!("{at}Value"))))
            .collect();
        for id in ids {
            self.change_tags(id, |have| {
                have.retain(|(key, value)| {
                    !wanted.iter().any(|(k, v)| k == key && v.is_none_or(|v| v == value)) && !wanted.is_empty()
                });
            });
        }
        Ok(json!({"return": true}))
    }

    fn tags_of(&self, id: &str) -> Result<(), ApiError> {
        let known = self.snapshots.get(id).is_some()
            || self.images.iter().any(|r| r["imageId"] == id)
            || self.volumes.iter().any(|r| r["volumeId"] == id)
            || self.instances.iter().any(|r| r["instanceId"] == id);
        if known { Ok(()) } else { Err(ApiError::new("InvalidID", format!("The ID '{id}' is not valid"))) }
    }

    fn change_tags(&mut self, id: &str, change: impl FnOnce(&mut Vec<(String, String)>)) {
        if let Some(tags) = self.snapshots.tags_mut(id) {
            return change(tags);
        }
        let images = self.images.iter_mut().filter(|r| r["imageId"] == id);
        let volumes = self.volumes.iter_mut().filter(|r| r["volumeId"] == id);
        let instances = self.instances.iter_mut().filter(|r| r["instanceId"] == id);
        if let Some(row) = images.chain(volumes).chain(instances).next() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut tags = super::tags(row).map(|t| (text(&t["key"]), text(&t["value"]))).collect();
            change(&mut tags);
            row["tagSet"] = tag_set(&tags).into();
        }
    }

    pub(super) fn register_image(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let name = query.required("Name")?;
        if self.images.iter().any(|image| image["name"] == name) {
            return Err(ApiError::new("InvalidAMIName.Duplicate", format!("AMI name {name} is already in use")));
        }
        let root = query.required("RootDeviceName")?;
        let devices = self.devices(query, &[])?;
        if !devices.iter().any(|d| d.name == root && !d.snapshot.is_empty()) {
            return Err(invalid_value("The root device must be in the block device mapping with a snapshot."));
        }
        let id = format!("ami-{}", turn.ids.hex(17));
        let mapping: Vec<Value> = devices
            .iter()
            .map(|d| {
                json!({"deviceName": d.name, "ebs": {"snapshotId": d.snapshot, "volumeSize": d.size, "deleteOnTermination": !d.keep, "volumeType": "gp3", "encrypted": self.snapshots.get(&d.snapshot).is_some_and(|s| s.encrypted)}})
            })
            .collect();
        self.images.push(json!({
            "imageId": id,
            "imageLocation": format!("{}/{name}", self.account),
            "imageState": "available",
            "imageOwnerId": self.account.as_str(),
            "isPublic": false,
            "architecture": query.text("Architecture").unwrap_or("x86_64"),
            "imageType": "machine",
            "name": name,
            "description": query.text("Description").unwrap_or_default(),
            "rootDeviceType": "ebs",
            "rootDeviceName": root,
            "blockDeviceMapping": mapping,
            "virtualizationType": query.text("VirtualizationType").unwrap_or("hvm"),
            "tagSet": tag_set(&query.tags_for("image")?),
            "hypervisor": "xen",
            "enaSupport": query.flag("EnaSupport"),
            "creationDate": turn.now.iso(),
        }));
        Ok(json!({"imageId": id}))
    }

    pub(super) fn deregister_image(&mut self, query: Query<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let id = query.required("ImageId")?;
        let at = self.images.iter().position(|image| image["imageId"] == id).ok_or_else(|| no_image(id))?;
        self.images.remove(at);
        Ok(json!({"return": true}))
    }

    pub(super) fn describe_images(&self, query: &Value) -> Result<Value, ApiError> {
        describe(&self.images, query, "ImageId", "imageId", "imagesSet", IMAGE_FILTERS, "InvalidAMIID.NotFound")
    }

    /// `BlockDeviceMapping` of a request over the one of an image.
    fn devices(&self, query: Query<'_>, image: &[Value]) -> Result<Vec<Device>, ApiError> {
        let mut devices: Vec<Device> = image
            .iter()
            .map(|d| Device {
                name: d["deviceName"].as_str().unwrap_or_default().to_owned(),
                snapshot: d["ebs"]["snapshotId"].as_str().unwrap_or_default().to_owned(),
                size: d["ebs"]["volumeSize"].as_u64().unwrap_or_default() as u32,
                keep: d["ebs"]["deleteOnTermination"] == false,
            })
            .collect();
        for at in query.structures("BlockDeviceMapping") {
            let text = |member: &str| query.text(&format!("{at}{member}"));
            let name = text("DeviceName").unwrap_or_default().to_owned();
            let old = devices.iter().position(|d| d.name == name).map(|n| devices.remove(n));
            let snapshot = text("Ebs.SnapshotId").map(str::to_owned).or(old.map(|d| d.snapshot)).unwrap_or_default();
            let least = if snapshot.is_empty() { 0 } else { self.usable_snapshot(&snapshot)? };
            let size = query.number(&format!("{at}Ebs.VolumeSize"))?.unwrap_or(least);
            if size < least || size == 0 {
                return Err(ApiError::new(
                    "InvalidBlockDeviceMapping",
                    format!("Volume of size {size}GB is smaller than snapshot '{snapshot}', expect size>= {least}GB"),
                ));
            }
            devices.push(Device { name, snapshot, size, keep: text("Ebs.DeleteOnTermination") == Some("false") });
        }
        Ok(devices)
    }

    /// The size of a snapshot that a volume can be made of.
    fn usable_snapshot(&self, id: &str) -> Result<u32, ApiError> {
        malformed(id, "snap-", "InvalidSnapshotID.Malformed")?;
        let snapshot = self.snapshots.get(id).ok_or_else(|| not_found(id))?;
        if snapshot.state != SnapshotState::Completed || snapshot.archived {
            return Err(ApiError::new("IncorrectState", format!("Snapshot {id} is not in a state that allows this")));
        }
        Ok(snapshot.size_gib)
    }

    fn volume_of(&self, id: &str, device: &Device, zone: &Value, instance: Option<&str>, now: Millis) -> Value {
        let source = self.snapshots.get(&device.snapshot);
        let key = source.and_then(|s| s.kms_key.clone());
        let attachment = instance.map(|instance| {
            json!({"volumeId": id, "instanceId": instance, "device": device.name, "status": "attached", "attachTime": now.iso(), "deleteOnTermination": !device.keep})
        });
        let mut row = json!({
            "volumeId": id,
            "size": device.size,
            "snapshotId": device.snapshot,
            "availabilityZone": zone,
            "status": if instance.is_some() { "in-use" } else { "available" },
            "createTime": now.iso(),
            "attachmentSet": attachment.into_iter().collect::<Vec<_>>(),
            "volumeType": "gp3",
            "iops": 3000,
            "encrypted": key.is_some(),
            "multiAttachEnabled": false,
            "tagSet": [],
        });
        crate::ssm::put(&mut row, "kmsKeyId", key.map(Value::from));
        row
    }

    pub(super) fn run_instances(&mut self, query: Query<'_>, kms: &Kms, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let image_id = query.required("ImageId")?;
        let token = query.text("ClientToken").unwrap_or_default();
        if let Some((_, request, reply)) = self.tokens.iter().find(|(have, _, _)| !token.is_empty() && have == token) {
            if *request != query.digest() {
                return Err(ApiError::new(
                    "IdempotentParameterMismatch",
                    "The request uses the same client token as a previous, but non-identical request.",
                ));
            }
            return Ok(reply.clone());
        }
        if [query.text("MinCount"), query.text("MaxCount")] != [Some("1"), Some("1")] {
            return Err(invalid_value("This world runs one instance a call: MinCount and MaxCount are 1."));
        }
        let image = self.images.iter().find(|i| i["imageId"] == image_id).cloned().ok_or_else(|| no_image(image_id))?;
        let interface = "NetworkInterface.1.";
        let subnet_id = query
            .text("SubnetId")
            .or_else(|| query.text(&format!("{interface}SubnetId")))
            .ok_or_else(|| ApiError::new("MissingInput", "No subnets found for the default VPC. Please specify a subnet."))?;
        let subnet =
            self.subnets.iter().find(|s| s["subnetId"] == subnet_id).cloned().ok_or_else(|| {
                ApiError::new("InvalidSubnetID.NotFound", format!("The subnet ID '{subnet_id}' does not exist"))
            })?;
        let mut groups: Vec<String> = query.list("SecurityGroupId").into_iter().map(str::to_owned).collect();
        groups.extend(query.list(&format!("{interface}SecurityGroupId")).into_iter().map(str::to_owned));
        if let Some(missing) = groups.iter().find(|id| !self.groups.iter().any(|g| g["groupId"] == id.as_str())) {
            return Err(ApiError::new("InvalidGroup.NotFound", format!("The security group '{missing}' does not exist")));
        }
        let none = Vec::new();
        let devices = self.devices(query, image["blockDeviceMapping"].as_array().unwrap_or(&none))?;
        for device in devices.iter().filter(|d| !d.snapshot.is_empty()) {
            self.usable_snapshot(&device.snapshot)?;
        }
        let id = InstanceId::new(format!("i-{}", turn.ids.hex(17)));
        let mut launched = Vec::new();
        let volume_tags = tag_set(&query.tags_for("volume")?);
        let mut key_fails = false;
        for device in &devices {
            let volume = format!("vol-{}", turn.ids.hex(17));
            let mut row = self.volume_of(&volume, device, &subnet["availabilityZone"], Some(id.as_str()), turn.now);
            key_fails |= row["kmsKeyId"].as_str().is_some_and(|key| !kms.usable(key));
            row["tagSet"] = volume_tags.clone().into();
            self.volumes.push(row);
            launched.push(LaunchedVolume { device: device.name.clone(), volume, snapshot: device.snapshot.clone() });
        }
        self.addresses += 1;
        let cidr = subnet["cidrBlock"].as_str().unwrap_or_default();
        let network = cidr.rsplit_once('.').map_or("10.255.255", |(network, _)| network);
        let profile = query.text("IamInstanceProfile.Arn").map(str::to_owned).or_else(|| {
            query.text("IamInstanceProfile.Name").map(|name| format!("arn:aws:iam::{}:instance-profile/{name}", self.account))
        });
        let mut row = self.instance_row(&InstanceSpec {
            id: id.clone(),
            image: image_id.to_owned(),
            kind: query.text("InstanceType").unwrap_or("m1.small").to_owned(),
            subnet: subnet_id.to_owned(),
            groups,
            private_ip: format!("{network}.{}", 100 + self.addresses % 150),
            profile: profile.clone().unwrap_or_default(),
            launched: turn.now,
            tags: query.tags_for("instance")?,
            volumes: launched.iter().zip(&devices).map(|(l, d)| (l.device.clone(), l.volume.clone(), d.size)).collect(),
        });
        row["rootDeviceName"] = image["rootDeviceName"].clone();
        if let (None, Some(row)) = (profile, row.as_object_mut()) {
            row.remove("iamInstanceProfile");
        }
        let shows_tags = query.text("MetadataOptions.InstanceMetadataTags").unwrap_or("disabled");
        row["metadataOptions"]["instanceMetadataTags"] = shows_tags.into();
        row["instanceState"] = json!({"code": 0, "name": "pending"});
        row["clientToken"] = token.into();
        for (device, shown) in devices.iter().zip(row["blockDeviceMapping"].as_array_mut().into_iter().flatten()) {
            shown["ebs"]["deleteOnTermination"] = (!device.keep).into();
        }
        let reply = json!({"reservationId": format!("r-{}", id.as_str().trim_start_matches("i-")), "ownerId": self.account.as_str(), "groupSet": [], "instancesSet": [row]});
        self.instances.push(row);
        let what = if key_fails { What::NoKey } else { What::Runs { image: image_id.to_owned(), volumes: launched } };
        self.changes.push(Change { instance: id, at: turn.now.plus_ms(turn.options.instance_ms), what });
        if !token.is_empty() {
            self.tokens.push((token.to_owned(), query.digest(), reply.clone()));
        }
        Ok(reply)
    }

    pub(super) fn terminate_instances(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let ids = query.list("InstanceId");
        for id in &ids {
            self.known(id)?;
        }
        let mut rows = Vec::new();
        for id in ids {
            let id = InstanceId::new(id);
            let previous = self.instance(&id).map(|i| i["instanceState"].clone()).unwrap_or_default();
            if !matches!(previous["name"].as_str(), Some("shutting-down" | "terminated")) {
                self.set_state(&id, "shutting-down");
                self.changes.retain(|change| change.instance != id);
                self.changes.push(Change {
                    instance: id.clone(),
                    at: turn.now.plus_ms(turn.options.instance_ms),
                    what: What::Ends,
                });
                turn.effects.push(Effect::InstanceTerminated { region: self.region.clone(), instance: id.clone() });
            }
            let current = self.instance(&id).map(|i| i["instanceState"].clone()).unwrap_or_default();
            rows.push(json!({"instanceId": id.as_str(), "currentState": current, "previousState": previous}));
        }
        Ok(json!({"instancesSet": rows}))
    }

    pub(super) fn create_volume(&mut self, query: Query<'_>, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let zone = query.required("AvailabilityZone")?;
        if !self.subnets.iter().any(|s| s["availabilityZone"] == zone) {
            return Err(ApiError::new("InvalidZone.NotFound", format!("The zone '{zone}' does not exist.")));
        }
        let snapshot = query.text("SnapshotId").unwrap_or_default().to_owned();
        let least = if snapshot.is_empty() { 0 } else { self.usable_snapshot(&snapshot)? };
        let size = query.number("Size")?.unwrap_or(least);
        if size < least || size == 0 {
            return Err(invalid_value(format!("The volume size is invalid for the snapshot: {size}")));
        }
        let id = format!("vol-{}", turn.ids.hex(17));
        let device = Device { name: String::new(), snapshot, size, keep: true };
        let mut row = self.volume_of(&id, &device, &zone.into(), None, turn.now);
        row["tagSet"] = tag_set(&query.tags_for("volume")?).into();
        self.volumes.push(row.clone());
        Ok(row)
    }

    pub(super) fn delete_volume(&mut self, query: Query<'_>) -> Result<Value, ApiError> {
        query.dry_run()?;
        let id = query.required("VolumeId")?;
        let at = self.volumes.iter().position(|v| v["volumeId"] == id).ok_or_else(|| no_volume(id))?;
        if self.volumes[at]["status"] != "available" {
            return Err(ApiError::new("VolumeInUse", format!("Volume {id} is currently attached")));
        }
        self.volumes.remove(at);
        Ok(json!({"return": true}))
    }

    fn known(&self, id: &str) -> Result<&Value, ApiError> {
        malformed(id, "i-", "InvalidInstanceID.Malformed")?;
        self.instance(&InstanceId::new(id))
            .ok_or_else(|| ApiError::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist")))
    }

    pub(crate) fn next_change(&self) -> Option<Millis> {
        self.changes.iter().map(|change| change.at).min()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change.what, What::Forgotten))
    }

    /// Instances that came up or went away since.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        let due: Vec<Change> = self.changes.iter().filter(|c| c.at <= turn.now).cloned().collect();
        if due.is_empty() {
            return;
        }
        self.changes.retain(|c| c.at > turn.now);
        for change in due {
            let id = change.instance;
            match change.what {
                What::Runs { image, volumes } => {
                    self.set_state(&id, "running");
                    turn.effects.push(Effect::InstanceLaunched { region: self.region.clone(), instance: id, image, volumes });
                }
                What::NoKey | What::Ends => {
                    self.set_state(&id, "terminated");
                    if matches!(change.what, What::NoKey)
                        && let Some(row) = self.instances.iter_mut().find(|i| i["instanceId"] == id.as_str())
                    {
                        row["stateReason"] =
                            json!({"code": "Client.InternalError", "message": "Client.InternalError: Client error on launch"});
                    }
                    let gone = |v: &Value| {
                        let attached = &v["attachmentSet"][0];
                        attached["instanceId"] == id.as_str() && attached["deleteOnTermination"] == true
                    };
                    self.volumes.retain(|v| !gone(v));
                    for volume in self.volumes.iter_mut().filter(|v| v["attachmentSet"][0]["instanceId"] == id.as_str()) {
                        volume["attachmentSet"] = json!([]);
                        volume["status"] = "available".into();
                    }
                    let at = turn.now.plus_ms(TERMINATED_SHOWN_MS);
                    self.changes.push(Change { instance: id, at, what: What::Forgotten });
                }
                What::Forgotten => self.instances.retain(|i| i["instanceId"] != id.as_str()),
            }
        }
    }
}

fn devices_of(image: &Value) -> impl Iterator<Item = &Value> {
    image["blockDeviceMapping"].as_array().into_iter().flatten()
}

fn no_volume(id: &str) -> ApiError {
    ApiError::new("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
}

fn no_image(id: &str) -> ApiError {
    ApiError::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
}
