//! EC2: which instances there are and whether they could reach the HSMs; snapshots and their copies ([`snapshots`]); what a
//! drill makes and removes ([`drill`]). A crate of its own because its SDK takes minutes to compile (`A§11.2`).
//!
//! What EC2 answers is filtered, never believed: an instance whose id is not one is left out, and one that is
//! terminated is no instance of the fleet.

#![forbid(unsafe_code)]

pub mod drill;
pub mod snapshots;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::types as ec2;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_campaign::facts::{Instance, Peer, Permission, Route, SecurityGroup, SubnetRoutes};
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_protocol::{AccountId, InstanceId};

#[derive(Debug, Clone)]
pub struct Ec2 {
    client: Client,
}

/// EC2 takes up to 200 values a filter, and ids of one call share its size limit.
const IDS_A_CALL: usize = 100;

const fn call(operation: &'static str) -> Call {
    Call { service: "ec2", operation }
}

fn filter(name: &str, values: impl IntoIterator<Item = String>) -> ec2::Filter {
    ec2::Filter::builder().name(name).set_values(Some(values.into_iter().collect())).build()
}

/// For a call without a client token: the SDK would send it three times over a dropped connection (`A§11.4`).
fn once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// Tags given in the call that makes the resource.
fn tags_of(kind: ec2::ResourceType, tags: &BTreeMap<String, String>) -> ec2::TagSpecification {
    let tags = tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build()).collect();
    ec2::TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build()
}

fn tag_map(tags: &[ec2::Tag]) -> BTreeMap<String, String> {
    tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))).collect()
}

/// An instance and the account that owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pub owner: Option<AccountId>,
    pub instance: Instance,
}

impl Ec2 {
    pub fn new(config: &SdkConfig, ledger: &Ledger) -> Ec2 {
        let config = aws_sdk_ec2::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Ec2 { client: Client::from_conf(config) }
    }

    /// Instances with one of these tags, as pairs of key and value.
    pub async fn instances_by_tag(&self, key: &str, value: &str) -> Result<Vec<Owned>, CloudError> {
        self.instances(vec![filter(&format!("tag:{key}"), [value.to_owned()])]).await
    }

    /// Instances with these ids. An id that does not exist is absent from the answer and no error: a filter is asked
    /// for, not the ids themselves.
    pub async fn instances_by_id(&self, ids: &[InstanceId]) -> Result<Vec<Owned>, CloudError> {
        let mut found = Vec::new();
        for ids in ids.chunks(IDS_A_CALL) {
            found.extend(self.instances(vec![filter("instance-id", ids.iter().map(ToString::to_string))]).await?);
        }
        Ok(found)
    }

    async fn instances(&self, filters: Vec<ec2::Filter>) -> Result<Vec<Owned>, CloudError> {
        let mut found = Vec::new();
        let mut pages = self.client.describe_instances().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeInstances"), e))?;
            for reservation in page.reservations() {
                let owner = reservation.owner_id().and_then(|id| AccountId::new(id).ok());
                let instances = reservation.instances().iter().filter_map(instance);
                found.extend(instances.map(|instance| Owned { owner: owner.clone(), instance }));
            }
        }
        found.sort_by(|a, b| a.instance.instance.cmp(&b.instance.instance));
        Ok(found)
    }

    pub async fn security_groups(&self, ids: &BTreeSet<String>) -> Result<Vec<SecurityGroup>, CloudError> {
        let ids: Vec<String> = ids.iter().cloned().collect();
        let mut found = Vec::new();
        for ids in ids.chunks(IDS_A_CALL) {
            let filters = vec![filter("group-id", ids.iter().cloned())];
            let mut pages = self.client.describe_security_groups().set_filters(Some(filters)).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|e| sort(call("DescribeSecurityGroups"), e))?;
                found.extend(page.security_groups().iter().filter_map(|group| {
                    Some(SecurityGroup {
                        id: group.group_id()?.to_owned(),
                        ingress: group.ip_permissions().iter().map(permission).collect(),
                        egress: group.ip_permissions_egress().iter().map(permission).collect(),
                    })
                }));
            }
        }
        Ok(found)
    }

    /// The routes of each of these subnets, given as (subnet, its VPC): its own table's, else its VPC's main table's.
    pub async fn routes(&self, subnets: &BTreeSet<(String, String)>) -> Result<Vec<SubnetRoutes>, CloudError> {
        let vpcs: BTreeSet<String> = subnets.iter().map(|(_, vpc)| vpc.clone()).collect();
        if vpcs.is_empty() {
            return Ok(Vec::new());
        }
        let mut own: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        let mut main: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        let filters = vec![filter("vpc-id", vpcs)];
        let mut pages = self.client.describe_route_tables().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeRouteTables"), e))?;
            for table in page.route_tables() {
                let routes: Vec<Route> = table.routes().iter().filter_map(route).collect();
                for association in table.associations() {
                    if let Some(subnet) = association.subnet_id() {
                        own.insert(subnet.to_owned(), routes.clone());
                    }
                    if let (Some(true), Some(vpc)) = (association.main(), table.vpc_id()) {
                        main.insert(vpc.to_owned(), routes.clone());
                    }
                }
            }
        }
        Ok(subnets
            .iter()
            .filter_map(|(subnet, vpc)| {
                let routes = own.get(subnet).or_else(|| main.get(vpc))?.clone();
                Some(SubnetRoutes { subnet: subnet.clone(), routes })
            })
            .collect())
    }
}

fn instance(found: &ec2::Instance) -> Option<Instance> {
    let state = found.state()?.name()?.as_str().to_owned();
    if matches!(state.as_str(), "terminated" | "shutting-down") {
        return None;
    }
    Some(Instance {
        instance: InstanceId::new(found.instance_id()?).ok()?,
        state,
        tags: tag_map(found.tags()),
        vpc: found.vpc_id().map(str::to_owned),
        subnet: found.subnet_id().map(str::to_owned),
        az: found.placement().and_then(|p| p.availability_zone()).map(str::to_owned),
        private_ip: found.private_ip_address().and_then(|ip| ip.parse().ok()),
        security_groups: found.security_groups().iter().filter_map(|g| g.group_id().map(str::to_owned)).collect(),
    })
}

fn permission(found: &ec2::IpPermission) -> Permission {
    let port = |port: Option<i32>| port.and_then(|p| u16::try_from(p).ok());
    let groups = found.user_id_group_pairs().iter().filter_map(|pair| pair.group_id().map(|id| Peer::Group(id.to_owned())));
    let v4 = found.ip_ranges().iter().filter_map(|range| range.cidr_ip().map(|cidr| Peer::Cidr(cidr.to_owned())));
    let v6 = found.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6().map(|cidr| Peer::Cidr(cidr.to_owned())));
    let lists = found.prefix_list_ids().iter().filter_map(|list| list.prefix_list_id().map(|id| Peer::PrefixList(id.to_owned())));
    Permission {
        protocol: found.ip_protocol().unwrap_or_default().to_owned(),
        from_port: port(found.from_port()),
        to_port: port(found.to_port()),
        peers: groups.chain(v4).chain(v6).chain(lists).collect(),
    }
}

fn route(found: &ec2::Route) -> Option<Route> {
    let cidr = found.destination_cidr_block().or_else(|| found.destination_ipv6_cidr_block())?;
    Some(Route { cidr: cidr.to_owned(), active: found.state() == Some(&ec2::RouteState::Active) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(id: &str, state: ec2::InstanceStateName) -> ec2::Instance {
        let tag = ec2::Tag::builder().key("tde2hsm").value("demo").build();
        let state = ec2::InstanceState::builder().name(state).build();
        ec2::Instance::builder().instance_id(id).state(state).tags(tag).private_ip_address("10.0.1.10").build()
    }

    #[test]
    fn a_terminated_instance_is_none_of_the_fleet() {
        let id = "i-0123456789abcdef0";
        let seen = instance(&running(id, ec2::InstanceStateName::Running)).unwrap();
        assert_eq!((seen.instance.as_str(), seen.state.as_str(), seen.tags["tde2hsm"].as_str()), (id, "running", "demo"));
        assert_eq!(instance(&running(id, ec2::InstanceStateName::Terminated)), None);
        assert!(instance(&running(id, ec2::InstanceStateName::Stopped)).is_some(), "it exists; a rule judges its state");
    }

    /// H36: what AWS or a proxy in between answers is not an id because it stands where one should.
    #[test]
    fn h36_an_id_that_is_none_is_left_out() {
        assert_eq!(instance(&running("i-0; rm -rf /", ec2::InstanceStateName::Running)), None);
    }

    #[test]
    fn every_peer_of_a_permission_counts() {
        let found = ec2::IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(2223)
            .to_port(2225)
            .ip_ranges(ec2::IpRange::builder().cidr_ip("10.0.0.0/16").build())
            .user_id_group_pairs(ec2::UserIdGroupPair::builder().group_id("sg-1").build())
            .prefix_list_ids(ec2::PrefixListId::builder().prefix_list_id("pl-1").build())
            .build();
        let peers = [Peer::Group("sg-1".into()), Peer::Cidr("10.0.0.0/16".into()), Peer::PrefixList("pl-1".into())];
        let permission = permission(&found);
        assert_eq!((permission.from_port, permission.to_port), (Some(2223), Some(2225)));
        assert_eq!(permission.peers, peers);
    }

    #[test]
    fn a_black_hole_is_no_active_route() {
        let at = |state| route(&ec2::Route::builder().destination_cidr_block("10.0.0.0/16").state(state).build()).unwrap().active;
        assert!(at(ec2::RouteState::Active));
        assert!(!at(ec2::RouteState::Blackhole));
    }
}
