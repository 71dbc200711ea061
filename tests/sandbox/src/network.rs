//! The networks of both regions: where the fleet lives, and where a drill may happen.

use crate::cloud::Cloud;
use crate::fleet::HostPlan;
use crate::imds::Identity;
use crate::sandbox::{ACCOUNT, AGENT_VERSION, CUSTOMER_CA, FLEET_TAG, ROLE};
use tde2hsm_model::cloudhsm::{ClusterSpec, base32};
use tde2hsm_model::ec2::InstanceSpec;
use tde2hsm_model::ssm::Node;
use tde2hsm_model::{InstanceId, Millis, Region};

/// The VPC of the fleet and its cluster.
pub struct Network {
    pub vpc: String,
    pub cluster: String,
    pub subnets: Vec<(String, String)>,
    pub groups: Vec<String>,
    pub image: String,
    pub launched: Millis,
    /// The KMS key that the fleet's volumes are encrypted with.
    pub key: String,
}

impl Network {
    pub fn draw(cloud: &Cloud, region: &Region) -> Self {
        let now = cloud.clock.now();
        let mut world = cloud.world();
        let ids = &mut world.ids;
        let vpc = format!("vpc-{}", ids.hex(17));
        let subnets: Vec<(String, String)> =
            ["a", "b"].iter().map(|zone| (format!("{region}{zone}"), format!("subnet-{}", ids.hex(17)))).collect();
        let groups = vec![format!("sg-{}", ids.hex(17)), format!("sg-{}", ids.hex(17))];
        let (table, cluster, image) =
            (format!("rtb-{}", ids.hex(17)), format!("cluster-{}", base32(ids, 11)), format!("ami-{}", ids.hex(17)));
        let mut cluster_ids = ids.clone();
        if let Some(state) = world.region_mut(region) {
            for (number, (zone, subnet)) in subnets.iter().enumerate() {
                state.ec2.add_subnet(subnet, &vpc, zone, &format!("10.0.{}.0/24", number + 1));
            }
            let names: Vec<&str> = subnets.iter().map(|(_, id)| id.as_str()).collect();
            state.ec2.add_route_table(&table, &vpc, "10.0.0.0/16", &names);
            state.ec2.add_group(&groups[0], "oracle-hosts", &vpc, &[(1521, 1521)], &[&groups[0]]);
            state.ec2.add_group(&groups[1], &format!("cloudhsm-{cluster}-sg"), &vpc, &[(2223, 2225)], &[&groups[1]]);
            let spec = ClusterSpec {
                id: cluster.clone(),
                created: now.plus_secs(-40 * 86_400),
                group: groups[1].clone(),
                vpc: vpc.clone(),
                subnets: subnets.clone(),
                certificate: CUSTOMER_CA.to_owned(),
                addresses: vec!["10.0.1.250".to_owned(), "10.0.2.250".to_owned()],
            };
            state.hsm.add_cluster(spec, &mut cluster_ids);
        }
        let key = world
            .region_mut(region)
            .map(|state| state.kms.add_key("alias/oracle-volumes", now.plus_secs(-400 * 86_400), &mut cluster_ids))
            .unwrap_or_default();
        world.ids = cluster_ids;
        Self { vpc, cluster, subnets, groups, image, launched: now.plus_secs(-30 * 86_400), key }
    }

    /// Launches the instance of a host and registers its agent.
    pub fn launch(&self, cloud: &Cloud, region: &Region, number: usize, plan: &HostPlan) -> (Identity, [String; 2]) {
        let mut world = cloud.world();
        let id = InstanceId::new(format!("i-{}", world.ids.hex(17)));
        let ids = [format!("vol-{}", world.ids.hex(17)), format!("vol-{}", world.ids.hex(17))];
        let volumes = vec![("/dev/xvda".to_owned(), ids[0].clone(), 50), ("/dev/xvdf".to_owned(), ids[1].clone(), 500)];
        let at = number % self.subnets.len();
        let (zone, subnet) = self.subnets[at].clone();
        let private_ip = format!("10.0.{}.{}", at + 1, 10 + number / 2 % 200);
        let spec = InstanceSpec {
            id: id.clone(),
            image: self.image.clone(),
            kind: "r6i.xlarge".to_owned(),
            subnet,
            groups: self.groups.clone(),
            private_ip: private_ip.clone(),
            profile: format!("arn:aws:iam::{ACCOUNT}:instance-profile/{ROLE}"),
            launched: self.launched,
            tags: vec![("Name".to_owned(), plan.name.clone()), (FLEET_TAG.0.to_owned(), FLEET_TAG.1.to_owned())],
            volumes,
        };
        if let Some(state) = world.region_mut(region) {
            state.ec2.add_instance(&spec);
            for volume in &ids {
                state.ec2.encrypt_volume(volume, &self.key);
            }
            state.ssm.register(Node {
                instance: id.clone(),
                agent_version: AGENT_VERSION.to_owned(),
                online: true,
                undeliverable: false,
                platform_name: "Red Hat Enterprise Linux".to_owned(),
                platform_version: "8.10".to_owned(),
                computer_name: plan.name.clone(),
                ip: private_ip.clone(),
                role: ROLE.to_owned(),
                registered: self.launched,
                last_ping: cloud.clock.now(),
            });
        }
        let identity = Identity {
            instance: id,
            region: region.clone(),
            zone,
            kind: spec.kind,
            image: spec.image,
            private_ip,
            role: ROLE.to_owned(),
            launched: self.launched,
        };
        (identity, ids)
    }
}

/// What lies ready in the second region before anything is copied there: what the template of that region makes.
#[derive(Debug, Clone)]
pub struct DrPlace {
    pub region: Region,
    /// ARN of the KMS key for copies.
    pub key: String,
    pub bucket: String,
    /// ARN.
    pub topic: String,
    /// A drill's subnet, in a VPC whose only route is the local one.
    pub subnet: String,
    pub group: String,
    pub vpc: String,
}

/// Name of the drill's instance profile and its role.
pub const DRILL_ROLE: &str = "tde2hsm-drill";

impl DrPlace {
    pub fn draw(cloud: &Cloud, region: &Region) -> Self {
        let now = cloud.clock.now();
        let mut world = cloud.world();
        // Apart from the world's own identifiers, so that those of the fleet stay what they were.
        let mut ids = world.ids.clone();
        let vpc = format!("vpc-{}", ids.hex(17));
        let subnets: Vec<String> = (0..2).map(|_| format!("subnet-{}", ids.hex(17))).collect();
        let (group, table) = (format!("sg-{}", ids.hex(17)), format!("rtb-{}", ids.hex(17)));
        let mut place = Self {
            region: region.clone(),
            key: String::new(),
            bucket: format!("tde2hsm-records-{ACCOUNT}-{region}"),
            topic: String::new(),
            subnet: subnets[0].clone(),
            group: group.clone(),
            vpc: vpc.clone(),
        };
        if let Some(state) = world.region_mut(region) {
            for (number, (subnet, zone)) in subnets.iter().zip(["a", "b"]).enumerate() {
                state.ec2.add_subnet(subnet, &vpc, &format!("{region}{zone}"), &format!("10.9.{}.0/24", number + 1));
            }
            state.ec2.add_route_table(&table, &vpc, "10.9.0.0/16", &subnets.iter().map(String::as_str).collect::<Vec<_>>());
            state.ec2.add_group(&group, "tde2hsm-drill", &vpc, &[], &[]);
            state.ec2.limit_egress(&group, "10.9.0.0/16");
            place.key = state.kms.add_key("alias/tde2hsm-copies", now.plus_secs(-30 * 86_400), &mut ids);
            place.topic = state.sns.add_topic("tde2hsm-alarms");
        }
        world.ids = ids;
        cloud.s3.make(&place.bucket, region.as_str());
        place
    }
}
