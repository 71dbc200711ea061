//! What a drill does, in order, and where it may be done (H44).
//!
//! A plan names only things of the DR region: the copies and the backup that the point's verdict named, and what the drill
//! itself makes. Everything it makes carries the drill's tag in the call that makes it, and teardown removes what carries
//! that tag and nothing else. The host is started in a place that [`violations`] finds nothing to say about, looked at
//! again right before the start: a drill host with a way to production would log in there with production's keystores.

use crate::facts::{SetId, tag};
use crate::points::{Opening, Point, SecretRole, Unknown, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::{
    BackupId, InstanceId, MasterKeyId, Region, SecretRef, SecurityGroupId, Sid, SnapshotId, SubnetId, Timestamp,
};

/// What the fleet file says of the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub subnet: SubnetId,
    pub security_group: SecurityGroupId,
    pub instance_profile: String,
    pub instance_type: String,
}

/// What AWS says of the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceFacts {
    pub subnet: SubnetId,
    pub vpc: String,
    pub availability_zone: String,
    pub assigns_public_addresses: bool,
    /// Of the route table that the subnet uses, main table included.
    pub routes: Vec<Route>,
    pub security_group: SecurityGroupId,
    pub egress: Vec<Egress>,
    /// Groups of the VPC's interface endpoints, and prefix lists of its gateway endpoints.
    pub endpoint_groups: BTreeSet<SecurityGroupId>,
    pub endpoint_prefix_lists: BTreeSet<String>,
    /// Names of the instance profiles of the fleet's own instances in the source region. `None`: it could not be asked; then
    /// the profile must be known otherwise not to be one of them.
    pub production_profiles: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// CIDR or prefix list.
    pub destination: String,
    pub target: RouteTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTarget {
    Local,
    GatewayEndpoint,
    /// Everything else by its id: internet gateway, NAT, peering, transit gateway, VPN, an interface, or what this program
    /// does not know.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Egress {
    pub to: EgressTo,
    pub ports: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressTo {
    Group(SecurityGroupId),
    PrefixList(String),
    Cidr(String),
}

/// Why a place is not fit for a drill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "violation")]
pub enum Violation {
    Route {
        destination: String,
        target: String,
    },
    PublicAddresses,
    Egress {
        to: String,
    },
    /// The instance profile is one that production uses.
    ProductionProfile {
        profile: String,
    },
    /// Which profiles production uses could not be asked.
    ProfilesUnknown,
    /// The facts are of another subnet or group than the fleet file names.
    OtherPlace {
        wanted: String,
        found: String,
    },
}

/// One thing to do. What it makes is known to later ones by the drill's tag and by what the executor recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Reads the place once more; any violation ends the drill before its first effect.
    CheckPlace,
    /// CreateCluster from the copied backup. No initialise or activate follows (`A§4.6`).
    CreateCluster {
        backup: BackupId,
        subnet: SubnetId,
        tags: BTreeMap<String, String>,
    },
    AwaitCluster,
    CreateHsm {
        availability_zone: String,
    },
    AwaitHsm,
    /// RegisterImage over every volume of the set, the root device first.
    RegisterImage {
        name: String,
        root_device: String,
        devices: Vec<Device>,
        tags: BTreeMap<String, String>,
    },
    /// In the drill's group and the restored cluster's own, which lets its members talk to the HSMs alone (`A§4.6`).
    /// Volumes go with the instance; IMDSv2 only; no user data.
    RunInstance {
        place: Place,
        tags: BTreeMap<String, String>,
    },
    AwaitManaged,
    /// The order to `neutralise`: before any database may start.
    Neutralise {
        databases: Vec<Sid>,
    },
    /// The order to `drill-open`, with one login.
    Open {
        sid: Sid,
        secret: Option<SecretRef>,
        keystore_secret: Option<SecretRef>,
    },
    Record,
    /// Teardown: each removes what carries the drill's tag.
    TerminateInstance,
    DeregisterImage,
    DeleteHsms,
    DeleteCluster,
    /// Removing the last HSM makes a backup of the restored cluster (`A§4.5`); nothing needs it.
    DeleteClusterBackups,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub snapshot: SnapshotId,
    pub size_gib: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub id: String,
    pub region: Region,
    pub instance: InstanceId,
    pub sid: Sid,
    pub set: SetId,
    pub taken: Timestamp,
    pub actions: Vec<Action>,
    /// Always run to its end, whatever became of the actions.
    pub teardown: Vec<Action>,
    /// Keys that the rows to be read are expected to need.
    pub hsm_keys: BTreeSet<MasterKeyId>,
    /// Keys that the interim keystore alone has: rows under them are not read while its `ewallet.p12` is aside, and the
    /// drill says so.
    pub software_keys: BTreeSet<MasterKeyId>,
    /// What was not known of the point when the drill was planned: empty for one that opens.
    #[serde(default)]
    pub unknowns: Vec<Unknown>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    #[error("`{0}` is no drill id (lower-case letters, digits and `-`, at most 40)")]
    BadId(String),
    #[error("the point has no database `{0}`")]
    NoDatabase(Sid),
    #[error("the point is not known to open")]
    DoesNotOpen(Box<Verdict>),
    #[error("no key of an HSM is needed: there is nothing that a drill would prove")]
    NoHsmKey,
    #[error("which volume is the root device is not recorded")]
    RootUnknown,
    #[error("the device name of volume `{0}` is not recorded")]
    DeviceUnknown(tde2hsm_protocol::VolumeId),
    #[error("the place is not fit for a drill")]
    Place(Vec<Violation>),
}

pub struct Request<'a> {
    pub id: &'a str,
    pub region: &'a Region,
    pub fleet: &'a str,
    pub point: &'a Point,
    pub sid: &'a Sid,
    /// With what it is tried where it is not proven: what nobody knows a drill can find out. `None`: it must open.
    pub attempt: Option<&'a Opening>,
    pub place: &'a Place,
    pub facts: &'a PlaceFacts,
}

/// Tags of everything a drill makes.
pub fn tags(id: &str, fleet: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(tag::DRILL.to_owned(), id.to_owned()), (tag::FLEET.to_owned(), fleet.to_owned())])
}

pub fn plan(request: &Request<'_>) -> Result<Plan, NoPlan> {
    let Request { id, region, fleet, point, sid, attempt, place, facts } = *request;
    let fits = !id.is_empty() && id.len() <= 40 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        return Err(NoPlan::BadId(id.chars().filter(|c| !c.is_control()).take(80).collect()));
    }
    let database = point.database(sid).ok_or_else(|| NoPlan::NoDatabase(sid.clone()))?;
    let (opening, unknowns) = match (&database.verdict, attempt) {
        (Verdict::Opens(opening), _) => (opening, Vec::new()),
        (Verdict::NotProven { unknowns }, Some(attempt)) => (attempt, unknowns.clone()),
        (other, _) => return Err(NoPlan::DoesNotOpen(Box::new(other.clone()))),
    };
    let backup = opening.backup.as_ref().ok_or(NoPlan::NoHsmKey)?;
    let violations = violations(place, facts);
    if !violations.is_empty() {
        return Err(NoPlan::Place(violations));
    }
    let (root_device, devices) = devices(point, opening)?;
    let tags = tags(id, fleet);
    let secret_of = |role| opening.secrets.iter().find(|(r, _)| *r == role).map(|(_, secret)| secret.clone());
    let actions = vec![
        Action::CheckPlace,
        Action::CreateCluster { backup: backup.id.clone(), subnet: place.subnet.clone(), tags: tags.clone() },
        Action::AwaitCluster,
        Action::CreateHsm { availability_zone: facts.availability_zone.clone() },
        Action::AwaitHsm,
        Action::RegisterImage { name: format!("tde2hsm-drill-{id}"), root_device, devices, tags: tags.clone() },
        // Making a cluster takes long enough for somebody to add a route.
        Action::CheckPlace,
        Action::RunInstance { place: place.clone(), tags },
        Action::AwaitManaged,
        Action::Neutralise { databases: point.databases.iter().map(|d| d.sid.clone()).collect() },
        Action::Open {
            sid: sid.clone(),
            secret: secret_of(SecretRole::CryptoUser),
            keystore_secret: secret_of(SecretRole::Keystore),
        },
        Action::Record,
    ];
    let teardown = vec![
        Action::TerminateInstance,
        Action::DeregisterImage,
        Action::DeleteHsms,
        Action::DeleteCluster,
        Action::DeleteClusterBackups,
    ];
    Ok(Plan {
        id: id.to_owned(),
        region: region.clone(),
        instance: point.instance.clone(),
        sid: sid.clone(),
        set: point.set.clone(),
        taken: point.taken,
        actions,
        teardown,
        hsm_keys: opening.hsm_keys.clone(),
        software_keys: opening.software_keys.clone(),
        unknowns,
    })
}

/// Every volume of the set under its own device name, the root device first.
fn devices(point: &Point, opening: &Opening) -> Result<(String, Vec<Device>), NoPlan> {
    let mut root = None;
    let mut devices = Vec::new();
    for part in &point.parts {
        let Some(copy) = part.copy.as_ref().filter(|copy| opening.snapshots.contains(&copy.id)) else { continue };
        let name = part.device.clone().ok_or_else(|| NoPlan::DeviceUnknown(part.volume.clone()))?;
        if part.root {
            root = Some(name.clone());
        }
        devices.push(Device { name, snapshot: copy.id.clone(), size_gib: part.size_gib });
    }
    let root = root.ok_or(NoPlan::RootUnknown)?;
    devices.sort_by(|a, b| (a.name != root, &a.name).cmp(&(b.name != root, &b.name)));
    Ok((root, devices))
}

/// A range within one that the route table keeps inside of the VPC.
fn local(facts: &PlaceFacts, range: &str) -> bool {
    let routes = facts.routes.iter().filter(|route| route.target == RouteTarget::Local);
    routes.filter_map(|route| cidr(&route.destination)).any(|(network, bits)| {
        cidr(range).is_some_and(|(inner, longer)| longer >= bits && bits > 0 && inner >> (32 - bits) == network >> (32 - bits))
    })
}

/// An IPv4 range as its first address and the length of its prefix. IPv6 is never taken for local.
fn cidr(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
    Some((address.parse::<std::net::Ipv4Addr>().ok()?.into(), bits))
}

/// Everything about a place that would let a drill host reach more than the restored cluster and AWS's own endpoints.
pub fn violations(place: &Place, facts: &PlaceFacts) -> Vec<Violation> {
    let mut found = Vec::new();
    if place.subnet != facts.subnet {
        found.push(Violation::OtherPlace { wanted: place.subnet.to_string(), found: facts.subnet.to_string() });
    }
    if place.security_group != facts.security_group {
        found.push(Violation::OtherPlace { wanted: place.security_group.to_string(), found: facts.security_group.to_string() });
    }
    if facts.assigns_public_addresses {
        found.push(Violation::PublicAddresses);
    }
    for route in &facts.routes {
        if let RouteTarget::Other(target) = &route.target {
            found.push(Violation::Route { destination: route.destination.clone(), target: target.clone() });
        }
    }
    for egress in &facts.egress {
        // An address range is no promise about who has the address, unless it is the VPC's own: routes out of it are looked
        // at by themselves.
        let refused = match &egress.to {
            EgressTo::Group(group) if *group == facts.security_group => None,
            EgressTo::Group(group) => (!facts.endpoint_groups.contains(group)).then(|| group.to_string()),
            EgressTo::PrefixList(list) => (!facts.endpoint_prefix_lists.contains(list)).then(|| list.clone()),
            EgressTo::Cidr(range) => (!local(facts, range)).then(|| range.clone()),
        };
        found.extend(refused.map(|to| Violation::Egress { to }));
    }
    match &facts.production_profiles {
        None => found.push(Violation::ProfilesUnknown),
        Some(profiles) if profiles.contains(&place.instance_profile) => {
            found.push(Violation::ProductionProfile { profile: place.instance_profile.clone() });
        }
        Some(_) => {}
    }
    found
}
