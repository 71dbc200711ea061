//! The DR region as a drill needs it: EC2, CloudHSM and SSM of one region, and one question to the source region.

use crate::cloudhsm::Restore;
use crate::dr::call_error;
use crate::{Aws, CloudHsm, Ec2};
use async_trait::async_trait;
use std::collections::BTreeSet;
use tde2hsm_campaign::facts::{Peer, Permission, Ping};
use tde2hsm_cloud_ec2::drill as ec2;
use tde2hsm_dr::drill::{Egress, EgressTo, Place, PlaceFacts, Route, RouteTarget};
use tde2hsm_dr::facts::tag;
use tde2hsm_dr_driver::drill::{
    ClusterState, DrillCloud, MadeCluster, MadeHsm, MadeImage, MadeInstance, MadeVolume, NewImage, NewInstance, Tags,
};
use tde2hsm_dr_driver::{CallError, DrConfig, Effect, Result};
use tde2hsm_protocol::{BackupId, ClusterId, DrillId, InstanceId, SecurityGroupId};

/// host-runner is built for this alone.
const ARCHITECTURE: &str = "x86_64";

#[derive(Debug)]
pub struct DrillAws {
    there: Aws,
    source: Aws,
    fleet_tag: (String, String),
    /// Profiles that production is known to have used, for when the source region is gone.
    recorded: BTreeSet<String>,
}

impl DrillAws {
    pub fn new(there: &Aws, source: Aws, config: &DrConfig, recorded: BTreeSet<String>) -> DrillAws {
        DrillAws { there: there.clone(), source, fleet_tag: config.fleet_tag.clone(), recorded }
    }

    fn ec2(&self) -> &Ec2 {
        &self.there.ec2
    }

    fn cloudhsm(&self) -> &CloudHsm {
        &self.there.cloudhsm
    }
}

fn found(call: &str, message: String) -> CallError {
    CallError { call: call.to_owned(), effect: Effect::Refused, aws_code: None, message }
}

#[async_trait]
impl DrillCloud for DrillAws {
    async fn place(&self, place: &Place) -> Result<PlaceFacts> {
        let subnet = self.ec2().subnet(&place.subnet).await.map_err(call_error)?;
        let subnet = subnet.ok_or_else(|| found("ec2:DescribeSubnets", format!("there is no subnet `{}`", place.subnet)))?;
        let ways = self.ec2().ways(&subnet).await.map_err(call_error)?;
        let group = place.security_group.to_string();
        let groups = self.ec2().security_groups(&BTreeSet::from([group.clone()])).await.map_err(call_error)?;
        let seen = groups.into_iter().find(|one| one.id == group);
        let seen = seen.ok_or_else(|| found("ec2:DescribeSecurityGroups", format!("there is no security group `{group}`")))?;
        let egress: Vec<Egress> = seen.egress.iter().flat_map(egress).collect();
        // Asked only where a rule leans on it.
        let names_others = egress.iter().any(|one| matches!(&one.to, EgressTo::Group(other) if *other != place.security_group));
        let endpoint_groups = match names_others {
            true => self.ec2().endpoint_groups(&subnet.vpc).await.map_err(call_error)?,
            false => BTreeSet::new(),
        };
        let to_endpoint = |way: &&ec2::Way| way.target.starts_with("vpce-") && way.destination.starts_with("pl-");
        let asked = self.source.ec2.instance_profiles(&self.fleet_tag.0, &self.fleet_tag.1).await.ok();
        let known = asked.into_iter().flatten().chain(self.recorded.iter().cloned()).collect::<BTreeSet<_>>();
        Ok(PlaceFacts {
            subnet: place.subnet.clone(),
            availability_zone: subnet.az.clone(),
            assigns_public_addresses: subnet.public,
            endpoint_prefix_lists: ways.iter().filter(to_endpoint).map(|way| way.destination.clone()).collect(),
            routes: ways.into_iter().map(route).collect(),
            vpc: subnet.vpc,
            security_group: place.security_group.clone(),
            egress,
            endpoint_groups,
            // A fleet without a single known profile is one that could not be asked.
            production_profiles: (!known.is_empty()).then_some(known),
        })
    }

    async fn clusters(&self, drill: &DrillId) -> Result<Vec<MadeCluster>> {
        let clusters = self.cloudhsm().clusters_tagged(tag::DRILL, drill.as_str()).await.map_err(call_error)?;
        Ok(clusters
            .into_iter()
            .map(|cluster| MadeCluster {
                state: state(&cluster.state),
                state_message: None,
                security_group: cluster.security_group.and_then(|id| SecurityGroupId::new(id).ok()),
                hsms: cluster
                    .hsms
                    .into_iter()
                    .filter(|hsm| hsm.state != "DELETED")
                    .map(|hsm| MadeHsm {
                        active: hsm.state == "ACTIVE",
                        deleting: hsm.state == "DELETE_IN_PROGRESS",
                        id: hsm.id,
                        ip: hsm.ip,
                    })
                    .collect(),
                id: cluster.cluster,
            })
            .collect())
    }

    async fn create_cluster(&self, backup: &BackupId, place: &Place, tags: &Tags) -> Result<ClusterId> {
        let kind = self.cloudhsm().backup_kind(backup).await.map_err(call_error)?;
        let (hsm_type, mode) =
            kind.ok_or_else(|| found("cloudhsmv2:DescribeBackups", format!("there is no HSM backup `{backup}` with a type")))?;
        let subnets = BTreeSet::from([place.subnet.clone()]);
        let restore = Restore { backup, hsm_type: &hsm_type, mode: mode.as_deref(), subnets: &subnets, tags };
        self.cloudhsm().restore_cluster(&restore).await.map_err(call_error)
    }

    async fn create_hsm(&self, cluster: &ClusterId, availability_zone: &str) -> Result<()> {
        self.cloudhsm().create_hsm(cluster, availability_zone).await.map(drop).map_err(call_error)
    }

    async fn delete_hsm(&self, cluster: &ClusterId, hsm: &str) -> Result<()> {
        self.cloudhsm().delete_hsm(cluster, hsm).await.map_err(call_error)
    }

    async fn delete_cluster(&self, cluster: &ClusterId) -> Result<()> {
        self.cloudhsm().delete_cluster(cluster).await.map_err(call_error)
    }

    async fn images(&self, drill: &DrillId) -> Result<Vec<MadeImage>> {
        let images = self.ec2().images_tagged(tag::DRILL, drill.as_str()).await.map_err(call_error)?;
        Ok(images.into_iter().map(|image| MadeImage { id: image.image, name: image.name, state: image.state }).collect())
    }

    async fn register_image(&self, image: &NewImage<'_>) -> Result<String> {
        let volumes = image.devices.iter().map(|device| (device.name.clone(), device.snapshot.clone())).collect();
        let image = ec2::Image {
            name: image.name,
            architecture: ARCHITECTURE,
            root_device: image.root_device,
            volumes: &volumes,
            tags: image.tags,
        };
        self.ec2().register_image(&image).await.map_err(call_error)
    }

    async fn deregister_image(&self, id: &str) -> Result<()> {
        self.ec2().deregister_image(id).await.map_err(call_error)
    }

    async fn instances(&self, drill: &DrillId) -> Result<Vec<MadeInstance>> {
        let instances = self.ec2().instances_tagged(tag::DRILL, drill.as_str()).await.map_err(call_error)?;
        Ok(instances.into_iter().map(|one| MadeInstance { id: one.instance, state: one.state }).collect())
    }

    async fn run_instance(&self, new: &NewInstance<'_>) -> Result<InstanceId> {
        let start = ec2::Start {
            client_token: new.client_token,
            image: new.image,
            instance_type: &new.place.instance_type,
            subnet: &new.place.subnet,
            security_groups: &[&new.place.security_group, new.cluster_group],
            instance_profile: &new.place.instance_profile,
            tags: new.tags,
        };
        self.ec2().start_instance(&start).await.map_err(call_error)
    }

    async fn terminate_instance(&self, id: &InstanceId) -> Result<()> {
        self.ec2().terminate_instance(id).await.map_err(call_error)
    }

    async fn managed(&self, id: &InstanceId) -> Result<bool> {
        let managed = self.there.ssm.managed(std::slice::from_ref(id)).await.map_err(call_error)?;
        Ok(managed.iter().any(|one| one.instance == *id && one.ping == Ping::Online))
    }

    async fn volumes(&self, drill: &DrillId) -> Result<Vec<MadeVolume>> {
        let volumes = self.ec2().volumes_tagged(tag::DRILL, drill.as_str()).await.map_err(call_error)?;
        let volumes = volumes.into_iter().filter(|volume| !matches!(volume.state.as_str(), "deleting" | "deleted"));
        Ok(volumes.map(|one| MadeVolume { id: one.volume, size_gib: one.size_gib, state: one.state }).collect())
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        self.ec2().delete_volume(id).await.map_err(call_error)
    }
}

fn route(way: ec2::Way) -> Route {
    let target = match way.target.as_str() {
        "local" => RouteTarget::Local,
        target if target.starts_with("vpce-") && way.destination.starts_with("pl-") => RouteTarget::GatewayEndpoint,
        // A route that leads nowhere now may lead somewhere in a minute.
        "" => RouteTarget::Other("a target that this program does not know".to_owned()),
        target => RouteTarget::Other(target.to_owned()),
    };
    Route { destination: way.destination, target }
}

fn egress(permission: &Permission) -> Vec<Egress> {
    let ports = match (permission.from_port, permission.to_port) {
        (Some(from), Some(to)) if from == to => format!("{} {from}", permission.protocol),
        (Some(from), Some(to)) => format!("{} {from}-{to}", permission.protocol),
        _ => permission.protocol.clone(),
    };
    let to = permission.peers.iter().map(|peer| match peer {
        Peer::Group(id) => SecurityGroupId::new(id.as_str()).map_or_else(|_| EgressTo::Cidr(id.clone()), EgressTo::Group),
        Peer::Cidr(range) => EgressTo::Cidr(range.clone()),
        Peer::PrefixList(id) => EgressTo::PrefixList(id.clone()),
    });
    to.map(|to| Egress { to, ports: ports.clone() }).collect()
}

/// A cluster made from a backup needs neither initialisation nor activation: it waits for its first HSM (`A§4.6`).
fn state(text: &str) -> ClusterState {
    match text {
        "UNINITIALIZED" | "INITIALIZED" => ClusterState::Ready,
        "ACTIVE" => ClusterState::Active,
        "CREATE_IN_PROGRESS"
        | "INITIALIZE_IN_PROGRESS"
        | "UPDATE_IN_PROGRESS"
        | "MODIFY_IN_PROGRESS"
        | "ROLLBACK_IN_PROGRESS" => ClusterState::Coming,
        "DEGRADED" => ClusterState::Degraded,
        "DELETE_IN_PROGRESS" => ClusterState::Deleting,
        _ => ClusterState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h44_whatever_is_not_known_to_stay_inside_leads_out() {
        let way = |target: &str, destination: &str| ec2::Way {
            destination: destination.to_owned(),
            target: target.to_owned(),
            active: false,
        };
        assert_eq!(route(way("local", "10.9.0.0/16")).target, RouteTarget::Local);
        assert_eq!(route(way("vpce-1", "pl-1")).target, RouteTarget::GatewayEndpoint);
        for (target, destination) in [("", "10.0.0.0/8"), ("pcx-1", "10.0.0.0/16"), ("vpce-1", "0.0.0.0/0")] {
            assert!(matches!(route(way(target, destination)).target, RouteTarget::Other(_)), "{target} {destination}");
        }
    }

    #[test]
    fn a_word_of_next_year_is_no_usable_cluster() {
        assert_eq!(state("UNINITIALIZED"), ClusterState::Ready);
        assert_eq!(state("SOMETHING_NEW"), ClusterState::Unknown);
    }
}
