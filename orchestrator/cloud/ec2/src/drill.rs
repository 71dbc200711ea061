//! What a drill makes in the DR region, and what removes it again.
//!
//! Everything carries its tags from the call that makes it. RunInstances has a client token and may be sent again with the
//! same one; RegisterImage has none and goes out once, its name being what it is found by. What is removed was found by the
//! drill's tag: there is no call here that removes something by another word.

use crate::{Ec2, call, filter, once, tag_map, tags_of};
use aws_sdk_ec2::types as ec2;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tde2hsm_cloud_call::{CloudError, Effect, sort};
use tde2hsm_protocol::{Code, InstanceId, SecurityGroupId, SnapshotId, SubnetId};

/// An image made of copied snapshots: all volumes of a set at their devices, so that one RunInstances makes them all.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Unique in account and region: a second RegisterImage with it is refused.
    pub name: &'a str,
    /// `x86_64` or `arm64`.
    pub architecture: &'a str,
    pub root_device: &'a str,
    /// Device to snapshot, the root's included.
    pub volumes: &'a BTreeMap<String, SnapshotId>,
    pub tags: &'a BTreeMap<String, String>,
}

/// One instance of an image.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The same for each try: a second RunInstances with it makes no second instance.
    pub client_token: &'a str,
    pub image: &'a str,
    pub instance_type: &'a str,
    pub subnet: &'a SubnetId,
    pub security_groups: &'a [&'a SecurityGroupId],
    /// Name of the instance profile.
    pub instance_profile: &'a str,
    pub tags: &'a BTreeMap<String, String>,
}

/// An instance that carries a drill's tag, whatever its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillInstance {
    pub instance: InstanceId,
    /// As AWS spells it: `pending`, `running`, …
    pub state: String,
    pub ip: Option<IpAddr>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillImage {
    pub image: String,
    pub name: String,
    /// `pending`, `available`, `failed`, …
    pub state: String,
    pub tags: BTreeMap<String, String>,
}

/// A volume that a drill's instance was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillVolume {
    pub volume: String,
    pub size_gib: u32,
    pub state: String,
    pub tags: BTreeMap<String, String>,
}

/// Where a subnet lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub subnet: String,
    pub vpc: String,
    pub az: String,
    /// It gives what starts in it a public address, unless told otherwise.
    pub public: bool,
}

/// A route of a table and what it leads to, as AWS names it: `local`, `igw-…`, `nat-…`, `pcx-…`, `tgw-…`, `vgw-…`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub destination: String,
    pub target: String,
    pub active: bool,
}

impl Ec2 {
    /// Sends once. The image's name is what it is looked for by where the answer is lost.
    pub async fn register_image(&self, image: &Image<'_>) -> Result<String, CloudError> {
        let mappings = image.volumes.iter().map(|(device, snapshot)| {
            // A volume of a drill goes with its instance: what is left over costs and holds production data.
            let ebs = ec2::EbsBlockDevice::builder()
                .snapshot_id(snapshot.as_str())
                .volume_type(ec2::VolumeType::Gp3)
                .delete_on_termination(true)
                .build();
            ec2::BlockDeviceMapping::builder().device_name(device).ebs(ebs).build()
        });
        let answer = self
            .client
            .register_image()
            .name(image.name)
            .architecture(ec2::ArchitectureValues::from(image.architecture))
            .root_device_name(image.root_device)
            .virtualization_type("hvm")
            .ena_support(true)
            .imds_support(ec2::ImdsSupportValues::V20)
            .set_block_device_mappings(Some(mappings.collect()))
            .tag_specifications(tags_of(ec2::ResourceType::Image, image.tags))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|e| sort(call("RegisterImage"), e))?;
        answer.image_id().map(str::to_owned).ok_or_else(|| lost("RegisterImage", "the answer names no image"))
    }

    pub async fn images_tagged(&self, key: &str, value: &str) -> Result<Vec<DrillImage>, CloudError> {
        let filters = vec![filter(&format!("tag:{key}"), [value.to_owned()])];
        let mut found = Vec::new();
        let mut pages = self.client.describe_images().owners("self").set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeImages"), e))?;
            found.extend(page.images().iter().filter_map(|image| {
                Some(DrillImage {
                    image: image.image_id()?.to_owned(),
                    name: image.name().unwrap_or_default().to_owned(),
                    state: image.state().map(|s| s.as_str().to_owned()).unwrap_or_default(),
                    tags: tag_map(image.tags()),
                })
            }));
        }
        Ok(found)
    }

    pub async fn deregister_image(&self, image: &str) -> Result<(), CloudError> {
        match self.client.deregister_image().image_id(image).send().await.map_err(|e| sort(call("DeregisterImage"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"]) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// One instance, without a public address, with IMDSv2 alone. Volumes and network interface carry the tags too.
    pub async fn start_instance(&self, start: &Start<'_>) -> Result<InstanceId, CloudError> {
        let profile = ec2::IamInstanceProfileSpecification::builder().name(start.instance_profile).build();
        let interface = ec2::InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .subnet_id(start.subnet.as_str())
            .set_groups(Some(start.security_groups.iter().map(ToString::to_string).collect()))
            .associate_public_ip_address(false)
            .delete_on_termination(true)
            .build();
        let metadata = ec2::InstanceMetadataOptionsRequest::builder()
            .http_tokens(ec2::HttpTokensState::Required)
            .http_endpoint(ec2::InstanceMetadataEndpointState::Enabled)
            // The host asks for the drill's tag before it lets anything be done to it.
            .instance_metadata_tags(ec2::InstanceMetadataTagsState::Enabled)
            .build();
        let tags = |kind| tags_of(kind, start.tags);
        let answer = self
            .client
            .run_instances()
            .client_token(start.client_token)
            .image_id(start.image)
            .instance_type(ec2::InstanceType::from(start.instance_type))
            .min_count(1)
            .max_count(1)
            .network_interfaces(interface)
            .iam_instance_profile(profile)
            .metadata_options(metadata)
            .instance_initiated_shutdown_behavior(ec2::ShutdownBehavior::Stop)
            .tag_specifications(tags(ec2::ResourceType::Instance))
            .tag_specifications(tags(ec2::ResourceType::Volume))
            .tag_specifications(tags(ec2::ResourceType::NetworkInterface))
            .send()
            .await
            .map_err(|e| sort(call("RunInstances"), e))?;
        let id = answer.instances().first().and_then(|instance| instance.instance_id()).unwrap_or_default();
        InstanceId::new(id).map_err(|why| lost("RunInstances", &why.to_string()))
    }

    /// Instances with a tag, terminated ones left out.
    pub async fn instances_tagged(&self, key: &str, value: &str) -> Result<Vec<DrillInstance>, CloudError> {
        let filters = vec![filter(&format!("tag:{key}"), [value.to_owned()])];
        let mut found = Vec::new();
        let mut pages = self.client.describe_instances().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeInstances"), e))?;
            found.extend(page.reservations().iter().flat_map(|r| r.instances()).filter_map(|instance| {
                let state = instance.state()?.name()?.as_str().to_owned();
                (state != "terminated").then_some(())?;
                Some(DrillInstance {
                    instance: InstanceId::new(instance.instance_id()?).ok()?,
                    state,
                    ip: instance.private_ip_address().and_then(|ip| ip.parse().ok()),
                    tags: tag_map(instance.tags()),
                })
            }));
        }
        Ok(found)
    }

    pub async fn terminate_instance(&self, instance: &InstanceId) -> Result<(), CloudError> {
        let ended = self.client.terminate_instances().instance_ids(instance.as_str()).send().await;
        match ended.map_err(|e| sort(call("TerminateInstances"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&["InvalidInstanceID.NotFound"]) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Volumes with a tag: after the instance is gone there should be none.
    pub async fn volumes_tagged(&self, key: &str, value: &str) -> Result<Vec<DrillVolume>, CloudError> {
        let filters = vec![filter(&format!("tag:{key}"), [value.to_owned()])];
        let mut found = Vec::new();
        let mut pages = self.client.describe_volumes().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeVolumes"), e))?;
            found.extend(page.volumes().iter().filter_map(|volume| {
                Some(DrillVolume {
                    volume: volume.volume_id()?.to_owned(),
                    size_gib: volume.size().and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
                    state: volume.state().map(|s| s.as_str().to_owned()).unwrap_or_default(),
                    tags: tag_map(volume.tags()),
                })
            }));
        }
        Ok(found)
    }

    pub async fn delete_volume(&self, volume: &str) -> Result<(), CloudError> {
        match self.client.delete_volume().volume_id(volume).send().await.map_err(|e| sort(call("DeleteVolume"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&["InvalidVolume.NotFound"]) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// `None`: there is no such subnet.
    pub async fn subnet(&self, id: &SubnetId) -> Result<Option<Subnet>, CloudError> {
        let filters = vec![filter("subnet-id", [id.to_string()])];
        let answer = self
            .client
            .describe_subnets()
            .set_filters(Some(filters))
            .send()
            .await
            .map_err(|e| sort(call("DescribeSubnets"), e))?;
        Ok(answer.subnets().first().and_then(|found| {
            Some(Subnet {
                subnet: found.subnet_id()?.to_owned(),
                vpc: found.vpc_id()?.to_owned(),
                az: found.availability_zone()?.to_owned(),
                public: found.map_public_ip_on_launch() != Some(false),
            })
        }))
    }

    /// Security groups of a VPC's interface endpoints.
    pub async fn endpoint_groups(&self, vpc: &str) -> Result<BTreeSet<SecurityGroupId>, CloudError> {
        let filters = vec![filter("vpc-id", [vpc.to_owned()])];
        let mut found = BTreeSet::new();
        let mut pages = self.client.describe_vpc_endpoints().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeVpcEndpoints"), e))?;
            let groups = page.vpc_endpoints().iter().flat_map(|endpoint| endpoint.groups());
            found.extend(groups.filter_map(|group| SecurityGroupId::new(group.group_id()?).ok()));
        }
        Ok(found)
    }

    /// Names of the instance profiles of the instances with a tag.
    pub async fn instance_profiles(&self, key: &str, value: &str) -> Result<BTreeSet<String>, CloudError> {
        let filters = vec![filter(&format!("tag:{key}"), [value.to_owned()])];
        let mut found = BTreeSet::new();
        let mut pages = self.client.describe_instances().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeInstances"), e))?;
            let profiles = page.reservations().iter().flat_map(|r| r.instances()).filter_map(|i| i.iam_instance_profile()?.arn());
            found.extend(profiles.filter_map(|arn| arn.rsplit('/').next().map(str::to_owned)));
        }
        Ok(found)
    }

    /// Every route of a subnet and what it leads to: its own table's, else its VPC's main table's (H44).
    pub async fn ways(&self, subnet: &Subnet) -> Result<Vec<Way>, CloudError> {
        let filters = vec![filter("vpc-id", [subnet.vpc.clone()])];
        let (mut own, mut main) = (None, None);
        let mut pages = self.client.describe_route_tables().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeRouteTables"), e))?;
            for table in page.route_tables() {
                let associations = table.associations();
                if associations.iter().any(|a| a.subnet_id() == Some(subnet.subnet.as_str())) {
                    own = Some(table.routes().iter().map(way).collect());
                } else if associations.iter().any(|a| a.main() == Some(true)) {
                    main = Some(table.routes().iter().map(way).collect());
                }
            }
        }
        own.or(main)
            .ok_or_else(|| CloudError::found(call("DescribeRouteTables"), Code::AWS_NOT_FOUND, "the subnet has no route table"))
    }
}

/// A target that this program does not know keeps its place with an empty name, so that nobody takes it for `local`.
fn way(found: &ec2::Route) -> Way {
    let targets = [
        found.gateway_id(),
        found.nat_gateway_id(),
        found.transit_gateway_id(),
        found.vpc_peering_connection_id(),
        found.local_gateway_id(),
        found.carrier_gateway_id(),
        found.egress_only_internet_gateway_id(),
        found.core_network_arn(),
        found.network_interface_id(),
        found.instance_id(),
    ];
    let destinations = [found.destination_cidr_block(), found.destination_ipv6_cidr_block(), found.destination_prefix_list_id()];
    Way {
        destination: destinations.into_iter().flatten().next().unwrap_or_default().to_owned(),
        target: targets.into_iter().flatten().next().unwrap_or_default().to_owned(),
        active: found.state() != Some(&ec2::RouteState::Blackhole),
    }
}

fn lost(operation: &'static str, why: &str) -> CloudError {
    CloudError { effect: Effect::Ambiguous, ..CloudError::found(call(operation), Code::AWS_INVALID, why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h44_a_way_out_is_never_taken_for_a_local_one() {
        let local = way(&ec2::Route::builder().destination_cidr_block("10.0.0.0/16").gateway_id("local").build());
        assert_eq!((local.destination.as_str(), local.target.as_str()), ("10.0.0.0/16", "local"));
        let peering = ec2::Route::builder().destination_cidr_block("10.9.0.0/16").vpc_peering_connection_id("pcx-1");
        assert_eq!(way(&peering.build()).target, "pcx-1");
        let unknown = way(&ec2::Route::builder().destination_cidr_block("0.0.0.0/0").build());
        assert_eq!((unknown.target.as_str(), unknown.active), ("", true));
    }
}
