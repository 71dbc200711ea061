//! The EC2 inventory of one region, as far as describe calls show it.
//!
//! A resource is kept in the names of the wire (`instanceId`, `tagSet`), so that what is described is what is stored;
//! a list is an array, which the XML writes as `<item>` elements.

mod launch;
mod query;
mod snapshots;

pub(crate) use snapshots::Verdict;
pub use snapshots::{Origin, Snapshot, SnapshotState, Snapshots};

use crate::kms::Kms;
use crate::page::page;
use crate::world::{Turn, unknown};
use crate::{AccountId, ApiError, InstanceId, Millis, Region, Service};
use launch::Change;
use query::Query;
use serde_json::{Map, Value, json};

/// What an instance is built from.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    pub id: InstanceId,
    pub image: String,
    pub kind: String,
    pub subnet: String,
    pub groups: Vec<String>,
    pub private_ip: String,
    pub profile: String,
    pub launched: Millis,
    pub tags: Vec<(String, String)>,
    /// Device name, volume id, size in GiB.
    pub volumes: Vec<(String, String, u32)>,
}

#[derive(Debug)]
pub struct Ec2 {
    account: AccountId,
    region: Region,
    instances: Vec<Value>,
    subnets: Vec<Value>,
    groups: Vec<Value>,
    route_tables: Vec<Value>,
    volumes: Vec<Value>,
    images: Vec<Value>,
    pub snapshots: Snapshots,
    changes: Vec<Change>,
    /// Client token, digest of its request, reply.
    tokens: Vec<(String, String, Value)>,
    /// How many addresses RunInstances gave out.
    addresses: u32,
}

/// A filter of a describe call and the place it looks at. `*` stands for every member of a list.
type FilterPaths = &'static [(&'static str, &'static [&'static str])];

const INSTANCE_FILTERS: FilterPaths = &[
    ("instance-id", &["instanceId"]),
    ("instance-state-name", &["instanceState", "name"]),
    ("instance-type", &["instanceType"]),
    ("vpc-id", &["vpcId"]),
    ("subnet-id", &["subnetId"]),
    ("availability-zone", &["placement", "availabilityZone"]),
    ("private-ip-address", &["privateIpAddress"]),
    ("instance.group-id", &["groupSet", "*", "groupId"]),
    ("block-device-mapping.volume-id", &["blockDeviceMapping", "*", "ebs", "volumeId"]),
];
const SUBNET_FILTERS: FilterPaths =
    &[("subnet-id", &["subnetId"]), ("vpc-id", &["vpcId"]), ("availability-zone", &["availabilityZone"]), ("state", &["state"])];
const GROUP_FILTERS: FilterPaths = &[("group-id", &["groupId"]), ("group-name", &["groupName"]), ("vpc-id", &["vpcId"])];
const ROUTE_TABLE_FILTERS: FilterPaths = &[
    ("route-table-id", &["routeTableId"]),
    ("vpc-id", &["vpcId"]),
    ("association.subnet-id", &["associationSet", "*", "subnetId"]),
    ("association.main", &["associationSet", "*", "main"]),
    ("association.route-table-id", &["associationSet", "*", "routeTableId"]),
];
const VOLUME_FILTERS: FilterPaths = &[
    ("volume-id", &["volumeId"]),
    ("status", &["status"]),
    ("attachment.instance-id", &["attachmentSet", "*", "instanceId"]),
    ("attachment.device", &["attachmentSet", "*", "device"]),
    ("availability-zone", &["availabilityZone"]),
    ("encrypted", &["encrypted"]),
];

impl Ec2 {
    pub(crate) fn new(account: &AccountId, region: &Region) -> Self {
        Self {
            account: account.clone(),
            region: region.clone(),
            instances: Vec::new(),
            subnets: Vec::new(),
            groups: Vec::new(),
            route_tables: Vec::new(),
            volumes: Vec::new(),
            images: Vec::new(),
            snapshots: Snapshots::new(account, region),
            changes: Vec::new(),
            tokens: Vec::new(),
            addresses: 0,
        }
    }

    /// VPC, availability zone and network (`10.0.9`) of a subnet.
    pub(crate) fn subnet(&self, id: &str) -> Option<(String, String, String)> {
        let subnet = self.subnets.iter().find(|s| s["subnetId"] == id)?;
        let text = |member: &str| subnet[member].as_str().unwrap_or_default().to_owned();
        let cidr = text("cidrBlock");
        let network = cidr.rsplit_once('.').map_or_else(String::new, |(network, _)| network.to_owned());
        Some((text("vpcId"), text("availabilityZone"), network))
    }

    /// Attaches another volume to an instance, as its owner does long before anyone calls.
    pub fn attach_volume(&mut self, instance: &InstanceId, device: &str, volume: &str, size: u32, key_arn: &str, now: Millis) {
        let Some(row) = self.instances.iter_mut().find(|i| i["instanceId"] == instance.as_str()) else { return };
        if let Some(devices) = row["blockDeviceMapping"].as_array_mut() {
            devices.push(json!({"deviceName": device, "ebs": {"volumeId": volume, "status": "attached", "attachTime": now.iso(), "deleteOnTermination": false}}));
        }
        let zone = row["placement"]["availabilityZone"].clone();
        self.volumes.push(json!({
            "volumeId": volume,
            "size": size,
            "snapshotId": "",
            "availabilityZone": zone,
            "status": "in-use",
            "createTime": now.iso(),
            "attachmentSet": [{"volumeId": volume, "instanceId": instance.as_str(), "device": device, "status": "attached", "attachTime": now.iso(), "deleteOnTermination": false}],
            "volumeType": "gp3",
            "iops": 3000,
            "encrypted": true,
            "kmsKeyId": key_arn,
            "multiAttachEnabled": false,
            "tagSet": [],
        }));
    }

    /// The key that a volume is encrypted with.
    pub fn encrypt_volume(&mut self, id: &str, key_arn: &str) {
        if let Some(volume) = self.volumes.iter_mut().find(|v| v["volumeId"] == id) {
            volume["encrypted"] = true.into();
            volume["kmsKeyId"] = key_arn.into();
        }
    }

    pub fn add_subnet(&mut self, id: &str, vpc: &str, zone: &str, cidr: &str) {
        self.subnets.push(json!({
            "subnetId": id,
            "subnetArn": format!("arn:aws:ec2:{}:{}:subnet/{id}", self.region, self.account),
            "state": "available",
            "ownerId": self.account.as_str(),
            "vpcId": vpc,
            "cidrBlock": cidr,
            "availableIpAddressCount": 250,
            "availabilityZone": zone,
            "defaultForAz": false,
            "mapPublicIpOnLaunch": false,
            "assignIpv6AddressOnCreation": false,
            "tagSet": [],
        }));
    }

    /// A security group that admits TCP `ports` from `sources` (other groups) and lets everything out.
    pub fn add_group(&mut self, id: &str, name: &str, vpc: &str, ports: &[(u16, u16)], sources: &[&str]) {
        let pairs: Vec<Value> = sources.iter().map(|g| json!({"groupId": g, "userId": self.account.as_str()})).collect();
        let inbound: Vec<Value> = ports
            .iter()
            .map(|(from, to)| {
                json!({"ipProtocol": "tcp", "fromPort": from, "toPort": to, "groups": pairs, "ipRanges": [], "ipv6Ranges": [], "prefixListIds": []})
            })
            .collect();
        self.groups.push(json!({
            "ownerId": self.account.as_str(),
            "groupId": id,
            "groupName": name,
            "groupDescription": name,
            "vpcId": vpc,
            "ipPermissions": inbound,
            "ipPermissionsEgress": [{"ipProtocol": "-1", "groups": [], "ipRanges": [{"cidrIp": "0.0.0.0/0"}], "ipv6Ranges": [], "prefixListIds": []}],
            "tagSet": [],
        }));
    }

    /// Lets a group out to one network and nowhere else.
    pub fn limit_egress(&mut self, id: &str, cidr: &str) {
        for group in self.groups.iter_mut().filter(|group| group["groupId"] == id) {
            group["ipPermissionsEgress"] = json!([
                {"ipProtocol": "tcp", "fromPort": 443, "toPort": 443, "groups": [], "ipRanges": [{"cidrIp": cidr}], "ipv6Ranges": [], "prefixListIds": []},
                {"ipProtocol": "tcp", "fromPort": 2223, "toPort": 2225, "groups": [], "ipRanges": [{"cidrIp": cidr}], "ipv6Ranges": [], "prefixListIds": []},
            ]);
        }
    }

    pub fn remove_group(&mut self, id: &str) {
        self.groups.retain(|group| group["groupId"] != id);
    }

    pub fn add_route_table(&mut self, id: &str, vpc: &str, cidr: &str, subnets: &[&str]) {
        let mut associations: Vec<Value> = subnets
            .iter()
            .enumerate()
            .map(|(n, subnet)| {
                json!({"routeTableAssociationId": format!("rtbassoc-{n:017x}"), "routeTableId": id, "subnetId": subnet, "main": false, "associationState": {"state": "associated"}})
            })
            .collect();
        associations.push(json!({"routeTableAssociationId": "rtbassoc-0fffffffffffffff0", "routeTableId": id, "main": true, "associationState": {"state": "associated"}}));
        self.route_tables.push(json!({
            "routeTableId": id,
            "vpcId": vpc,
            "ownerId": self.account.as_str(),
            "routeSet": [{"destinationCidrBlock": cidr, "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}],
            "associationSet": associations,
            "propagatingVgwSet": [],
            "tagSet": [],
        }));
    }

    /// Takes the local route out of every route table of `vpc`.
    pub fn remove_routes(&mut self, vpc: &str) {
        for table in self.route_tables.iter_mut().filter(|table| table["vpcId"] == vpc) {
            table["routeSet"] = json!([]);
        }
    }

    /// An instance that runs, and its volumes.
    pub fn add_instance(&mut self, spec: &InstanceSpec) {
        let subnet = self.subnets.iter().find(|s| s["subnetId"] == spec.subnet.as_str()).cloned().unwrap_or_default();
        for (device, volume, size) in &spec.volumes {
            self.volumes.push(json!({
                "volumeId": volume,
                "size": size,
                "snapshotId": "",
                "availabilityZone": subnet["availabilityZone"],
                "status": "in-use",
                "createTime": spec.launched.iso(),
                "attachmentSet": [{"volumeId": volume, "instanceId": spec.id.as_str(), "device": device, "status": "attached", "attachTime": spec.launched.iso(), "deleteOnTermination": false}],
                "volumeType": "gp3",
                "iops": 3000,
                "encrypted": true,
                "kmsKeyId": crate::kms::default_key(&self.account, &self.region),
                "multiAttachEnabled": false,
                "tagSet": [],
            }));
        }
        let row = self.instance_row(spec);
        self.instances.push(row);
    }

    fn instance_row(&self, spec: &InstanceSpec) -> Value {
        let subnet = self.subnets.iter().find(|s| s["subnetId"] == spec.subnet.as_str()).cloned().unwrap_or_default();
        let group_set: Vec<Value> = spec
            .groups
            .iter()
            .map(|id| {
                let name =
                    self.groups.iter().find(|g| g["groupId"] == id.as_str()).map_or(Value::Null, |g| g["groupName"].clone());
                json!({"groupId": id, "groupName": name})
            })
            .collect();
        let devices: Vec<Value> = spec
            .volumes
            .iter()
            .map(|(device, volume, _)| {
                json!({"deviceName": device, "ebs": {"volumeId": volume, "status": "attached", "attachTime": spec.launched.iso(), "deleteOnTermination": false}})
            })
            .collect();
        json!({
            "instanceId": spec.id.as_str(),
            "imageId": spec.image,
            "instanceState": {"code": 16, "name": "running"},
            "privateDnsName": format!("ip-{}.ec2.internal", spec.private_ip.replace('.', "-")),
            "dnsName": "",
            "amiLaunchIndex": 0,
            "instanceType": spec.kind,
            "launchTime": spec.launched.iso(),
            "placement": {"availabilityZone": subnet["availabilityZone"], "groupName": "", "tenancy": "default"},
            "monitoring": {"state": "disabled"},
            "subnetId": spec.subnet,
            "vpcId": subnet["vpcId"],
            "privateIpAddress": spec.private_ip,
            "sourceDestCheck": true,
            "groupSet": group_set,
            "architecture": "x86_64",
            "rootDeviceType": "ebs",
            "rootDeviceName": spec.volumes.first().map_or("/dev/xvda", |v| v.0.as_str()),
            "blockDeviceMapping": devices,
            "virtualizationType": "hvm",
            "tagSet": tag_set(&spec.tags),
            "hypervisor": "xen",
            "iamInstanceProfile": {"arn": spec.profile, "id": "AIPAEXAMPLEEXAMPLE01"},
            "ebsOptimized": true,
            "enaSupport": true,
            "metadataOptions": {"state": "applied", "httpTokens": "required", "httpPutResponseHopLimit": 1, "httpEndpoint": "enabled"},
        })
    }

    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`; `None` when there is no such instance.
    pub fn state(&self, id: &InstanceId) -> Option<&str> {
        self.instance(id)?["instanceState"]["name"].as_str()
    }

    pub fn set_state(&mut self, id: &InstanceId, name: &str) {
        let code = match name {
            "pending" => 0,
            "running" => 16,
            "shutting-down" => 32,
            "terminated" => 48,
            "stopping" => 64,
            _ => 80,
        };
        if let Some(instance) = self.instances.iter_mut().find(|i| i["instanceId"] == id.as_str()) {
            instance["instanceState"] = json!({"code": code, "name": name});
        }
    }

    /// Takes a security group off an instance.
    pub fn detach_group(&mut self, id: &InstanceId, group: &str) {
        if let Some(instance) = self.instances.iter_mut().find(|i| i["instanceId"] == id.as_str())
            && let Some(groups) = instance["groupSet"].as_array_mut()
        {
            groups.retain(|g| g["groupId"] != group);
        }
    }

    pub fn tag(&self, id: &InstanceId, key: &str) -> Option<&str> {
        let tags = self.instance(id)?["tagSet"].as_array()?;
        tags.iter().find(|tag| tag["key"] == key)?["value"].as_str()
    }

    /// A tag as the instance's own metadata service shows it: where RunInstances let it (`InstanceMetadataTags`).
    pub fn tag_in_metadata(&self, id: &InstanceId, key: &str) -> Option<&str> {
        let shown = self.instance(id)?["metadataOptions"]["instanceMetadataTags"] == "enabled";
        self.tag(id, key).filter(|_| shown)
    }

    pub fn instance(&self, id: &InstanceId) -> Option<&Value> {
        self.instances.iter().find(|i| i["instanceId"] == id.as_str())
    }

    /// CopySnapshot is not among them: it needs the region of its source, see `World`.
    pub(crate) fn call(&mut self, operation: &str, query: &Value, kms: &Kms, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        let asked = Query::new(query);
        match operation {
            "CreateSnapshot" => self.create_snapshot(asked, turn),
            "CreateSnapshots" => self.create_snapshots(asked, turn),
            "DescribeSnapshots" => self.snapshots.describe(asked, turn.now),
            "DeleteSnapshot" => self.delete_snapshot(asked, turn),
            "ModifySnapshotTier" => self.snapshots.modify_tier(asked, turn.now),
            "CreateTags" => self.create_tags(asked),
            "DeleteTags" => self.delete_tags(asked),
            "RegisterImage" => self.register_image(asked, turn),
            "DeregisterImage" => self.deregister_image(asked),
            "DescribeImages" => self.describe_images(query),
            "RunInstances" => self.run_instances(asked, kms, turn),
            "TerminateInstances" => self.terminate_instances(asked, turn),
            "CreateVolume" => self.create_volume(asked, turn),
            "DeleteVolume" => self.delete_volume(asked),
            _ => self.inventory(operation, query),
        }
    }

    fn inventory(&self, operation: &str, query: &Value) -> Result<Value, ApiError> {
        match operation {
            "DescribeInstances" => self.describe_instances(query),
            "DescribeSubnets" => {
                describe(&self.subnets, query, "SubnetId", "subnetId", "subnetSet", SUBNET_FILTERS, "InvalidSubnetID.NotFound")
            }
            "DescribeSecurityGroups" => {
                describe(&self.groups, query, "GroupId", "groupId", "securityGroupInfo", GROUP_FILTERS, "InvalidGroup.NotFound")
            }
            "DescribeRouteTables" => describe(
                &self.route_tables,
                query,
                "RouteTableId",
                "routeTableId",
                "routeTableSet",
                ROUTE_TABLE_FILTERS,
                "InvalidRouteTableID.NotFound",
            ),
            "DescribeVolumes" => {
                describe(&self.volumes, query, "VolumeId", "volumeId", "volumeSet", VOLUME_FILTERS, "InvalidVolume.NotFound")
            }
            other => Err(unknown(Service::Ec2, other)),
        }
    }

    fn describe_instances(&self, query: &Value) -> Result<Value, ApiError> {
        let reply = describe(
            &self.instances,
            query,
            "InstanceId",
            "instanceId",
            "instances",
            INSTANCE_FILTERS,
            "InvalidInstanceID.NotFound",
        )?;
        let reservations: Vec<Value> = reply["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|instance| {
                let digits = instance["instanceId"].as_str().unwrap_or_default().trim_start_matches("i-");
                json!({"reservationId": format!("r-{digits}"), "ownerId": self.account.as_str(), "groupSet": [], "instancesSet": [instance]})
            })
            .collect();
        let mut out = json!({"reservationSet": reservations});
        if let Some(token) = reply.get("nextToken") {
            out["nextToken"] = token.clone();
        }
        Ok(out)
    }
}

fn invalid_value(why: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", why)
}

/// An identifier is its prefix and 8 or 17 hexadecimal digits.
fn malformed(id: &str, prefix: &str, code: &str) -> Result<(), ApiError> {
    let digits = id.strip_prefix(prefix).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ApiError::new(code, format!("Invalid id: \"{id}\"")));
    }
    Ok(())
}

/// Tags as EC2 takes them: at most 50, keys of 127 and values of 255 characters, none of them twice and none of AWS's own.
fn check_tags(tags: &[(String, String)]) -> Result<(), ApiError> {
    if tags.len() > 50 {
        return Err(ApiError::new("TagLimitExceeded", "The maximum number of tags for a resource has been reached."));
    }
    for (n, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > 127 || value.chars().count() > 255 || key.starts_with("aws:") {
            return Err(invalid_value(format!("Tag `{key}` is invalid: at most 127 characters of key and 255 of value.")));
        }
        if tags[..n].iter().any(|(other, _)| other == key) {
            return Err(invalid_value(format!("Duplicate tag key '{key}' specified.")));
        }
    }
    Ok(())
}

fn tag_set(tags: &[(String, String)]) -> Vec<Value> {
    tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

/// Members `NAME.1`, `NAME.2`, … of a query.
fn numbered<'a>(query: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    (1..).map_while(|n| query.get(&format!("{name}.{n}"))).filter_map(Value::as_str).collect()
}

fn describe(
    all: &[Value],
    query: &Value,
    id_param: &str,
    id_field: &str,
    set: &str,
    paths: FilterPaths,
    not_found: &str,
) -> Result<Value, ApiError> {
    let empty = Map::new();
    let query = query.as_object().unwrap_or(&empty);
    let ids = numbered(query, id_param);
    if let Some(missing) = ids.iter().find(|id| !all.iter().any(|row| row[id_field] == **id)) {
        let noun = id_field.trim_end_matches("Id");
        return Err(ApiError::new(not_found, format!("The {noun} ID '{missing}' does not exist")));
    }
    let max = match query.get("MaxResults").and_then(Value::as_str).map(str::parse::<usize>) {
        None => 1000,
        Some(_) if !ids.is_empty() => {
            return Err(ApiError::new(
                "InvalidParameterCombination",
                format!("The parameter {id_param}s cannot be used with the parameter maxResults"),
            ));
        }
        Some(Ok(n)) if (5..=1000).contains(&n) => n,
        Some(_) => {
            return Err(ApiError::new(
                "InvalidParameterValue",
                "Value for parameter maxResults is invalid. Expecting a value between 5 and 1000.",
            ));
        }
    };
    let mut filters = Vec::new();
    for n in (1..).take_while(|n| query.contains_key(&format!("Filter.{n}.Name"))) {
        let name = query[&format!("Filter.{n}.Name")].as_str().unwrap_or_default();
        filters.push((name, numbered(query, &format!("Filter.{n}.Value"))));
    }
    let mut rows = Vec::new();
    for row in all.iter().filter(|row| ids.is_empty() || ids.iter().any(|id| row[id_field] == *id)) {
        let mut fits = true;
        for (name, values) in &filters {
            let found = if let Some(key) = name.strip_prefix("tag:") {
                tags(row).filter(|tag| tag["key"] == key).filter_map(|tag| tag["value"].as_str().map(str::to_owned)).collect()
            } else if *name == "tag-key" {
                tags(row).filter_map(|tag| tag["key"].as_str().map(str::to_owned)).collect()
            } else {
                let (_, path) = paths
                    .iter()
                    .find(|(known, _)| known == name)
                    .ok_or_else(|| ApiError::new("InvalidParameterValue", format!("The filter '{name}' is invalid")))?;
                look(row, path)
            };
            fits &= values.iter().any(|pattern| found.iter().any(|text| wildcard(pattern, text)));
        }
        if fits {
            rows.push(row.clone());
        }
    }
    let scope = format!("{set}{filters:?}");
    let (rows, next) = page(&rows, &scope, max, query.get("NextToken").and_then(Value::as_str), "InvalidNextToken")?;
    let mut reply = json!({set: rows});
    crate::ssm::put(&mut reply, "nextToken", next.map(Value::from));
    Ok(reply)
}

fn tags(row: &Value) -> impl Iterator<Item = &Value> {
    row["tagSet"].as_array().into_iter().flatten()
}

fn look(value: &Value, path: &[&str]) -> Vec<String> {
    match path.split_first() {
        None => match value {
            Value::Null => Vec::new(),
            Value::String(text) => vec![text.clone()],
            other => vec![other.to_string()],
        },
        Some((&"*", rest)) => value.as_array().into_iter().flatten().flat_map(|item| look(item, rest)).collect(),
        Some((member, rest)) => look(&value[*member], rest),
    }
}

/// `*` for any text, `?` for one character.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| wildcard(chars.as_str(), &text[at..])),
        Some(first) => {
            let mut rest = text.chars();
            rest.next().is_some_and(|c| (first == '?' || first == c) && wildcard(chars.as_str(), rest.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> Ec2 {
        let mut ec2 = Ec2::new(&AccountId::new("123456789012"), &Region::new("us-east-1"));
        ec2.add_subnet("subnet-1", "vpc-1", "us-east-1a", "10.0.0.0/24");
        for n in 0..7 {
            ec2.add_instance(&InstanceSpec {
                id: InstanceId::new(format!("i-{n:017x}")),
                image: "ami-1".into(),
                kind: "r6i.large".into(),
                subnet: "subnet-1".into(),
                groups: vec![],
                private_ip: format!("10.0.0.{n}"),
                profile: "arn".into(),
                launched: Millis(0),
                tags: vec![("Name".into(), format!("ora-{n}"))],
                volumes: vec![("/dev/xvda".into(), format!("vol-{n}"), 8)],
            });
        }
        ec2
    }

    #[test]
    fn describe_instances_pages_through_all_of_them() {
        let ec2 = world();
        let mut query = json!({"MaxResults": "5"});
        let first = ec2.inventory("DescribeInstances", &query).unwrap();
        assert_eq!(first["reservationSet"].as_array().unwrap().len(), 5);
        query["NextToken"] = first["nextToken"].clone();
        let second = ec2.inventory("DescribeInstances", &query).unwrap();
        assert_eq!(second["reservationSet"].as_array().unwrap().len(), 2);
        assert!(second.get("nextToken").is_none());
        query["Filter.1.Name"] = json!("instance-id");
        query["Filter.1.Value.1"] = json!("i-*");
        assert_eq!(ec2.inventory("DescribeInstances", &query).unwrap_err().code, "InvalidNextToken");
    }

    #[test]
    fn filters_take_wildcards_and_refuse_what_they_do_not_know() {
        let ec2 = world();
        let count = |name: &str, value: &str| {
            let query = json!({"Filter.1.Name": name, "Filter.1.Value.1": value});
            ec2.inventory("DescribeInstances", &query).map(|r| r["reservationSet"].as_array().unwrap().len())
        };
        assert_eq!(count("tag:Name", "ora-*").unwrap(), 7);
        assert_eq!(count("tag:Name", "ora-3").unwrap(), 1);
        assert_eq!(count("instance-state-name", "stopped").unwrap(), 0);
        assert_eq!(count("block-device-mapping.volume-id", "vol-2").unwrap(), 1);
        assert_eq!(count("colour", "red").unwrap_err().code, "InvalidParameterValue");
    }
}
