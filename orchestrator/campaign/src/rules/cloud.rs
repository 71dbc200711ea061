//! Rules over what AWS says: agents, instances, the way to the HSMs, the cluster, secrets.

use super::*;
use crate::facts::{Peer, Permission, SecurityGroup};
use crate::fleet::ProtectMode;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tde2hsm_protocol::SecretArn;

/// The oldest agent that passes a parameter through the environment (`A§1.7`).
const AGENT: [u64; 4] = [3, 3, 2746, 0];
/// What clients speak to an HSM (`O§6.1`).
const PORTS: (u16, u16) = (2223, 2225);
/// Client connections of a cluster; with Client SDK 5 each process that loads the library is one (`O§6.2`).
const CONNECTIONS: u32 = 900;

pub(super) fn targets_empty(c: &Context<'_>, out: &mut Out<'_>) {
    if c.targets.is_empty() {
        out.say("the targets of the fleet file select no instance");
    }
}

pub(super) fn cluster_missing(c: &Context<'_>, out: &mut Out<'_>) {
    if c.facts.cluster(&c.fleet.cluster.id).is_none() {
        out.say(format!(
            "`{}` is not among the clusters of {} in {}",
            c.fleet.cluster.id, c.fleet.fleet.account, c.fleet.fleet.region
        ));
    }
}

fn changing(cluster: &Cluster) -> bool {
    matches!(cluster.state.as_str(), "MODIFY_IN_PROGRESS" | "ROLLBACK_IN_PROGRESS")
}

pub(super) fn cluster_not_active(cluster: &Cluster, _: Timestamp, out: &mut Out<'_>) {
    if cluster.state != "ACTIVE" && !changing(cluster) {
        out.say(format!("`{}` is {}", cluster.cluster, cluster.state));
    }
}

pub(super) fn cluster_changing(cluster: &Cluster, _: Timestamp, out: &mut Out<'_>) {
    if changing(cluster) {
        out.say(format!("`{}` is {}: keys cannot be created (`limited-write`)", cluster.cluster, cluster.state));
    }
}

pub(super) fn cluster_rollback(cluster: &Cluster, now: Timestamp, out: &mut Out<'_>) {
    if let Some(until) = cluster.rollback_expiration.filter(|t| *t > now) {
        out.say(format!("`{}` may roll back to its former HSM type until {}", cluster.cluster, crate::render::instant(until)));
    }
}

pub(super) fn cluster_hsms(cluster: &Cluster, _: Timestamp, out: &mut Out<'_>) {
    let active: Vec<_> = cluster.active_hsms().collect();
    if active.len() < 2 {
        out.say(format!("`{}` has {} of the two ACTIVE HSMs that it needs", cluster.cluster, active.len()));
        return;
    }
    let mut zones: Vec<_> = active.iter().filter_map(|(h, _)| h.az.as_deref()).collect();
    zones.sort_unstable();
    zones.dedup();
    if zones.len() < 2 {
        out.warn(format!("the ACTIVE HSMs of `{}` are not in two availability zones", cluster.cluster));
    }
}

pub(super) fn escrow_unnamed(c: &Context<'_>, out: &mut Out<'_>) {
    match &c.fleet.escrow {
        None => out.say("the fleet file has no `[escrow]`: the interim keystore would have one copy on one disk"),
        Some(escrow) if escrow.replica_regions.is_empty() => {
            out.warn("`[escrow]` names no `replica_regions`: the copies stay in the fleet's own region");
        }
        Some(_) => {}
    }
}

pub(super) fn protect_off(c: &Context<'_>, out: &mut Out<'_>) {
    if c.fleet.protect.mode == ProtectMode::Off {
        out.say("`[protect]` is off: waves follow each other while new keys may lie in the live HSMs alone, up to 24 hours");
    }
}

pub(super) fn protect_one_region(c: &Context<'_>, out: &mut Out<'_>) {
    if c.fleet.protect.mode != ProtectMode::Off && c.fleet.dr.is_none() {
        out.say(format!("the fleet file has no `[dr]`: a backup in {} has to do, and is lost with it", c.fleet.fleet.region));
    }
}

pub(super) fn document_facts(c: &Context<'_>, out: &mut Out<'_>) {
    if c.facts.document.is_none() {
        out.say(format!("the SSM document is not there in {} of {}", c.fleet.fleet.region, c.fleet.fleet.account));
    }
}

/// Every secret that the fleet file names, once, with the versions it pins.
fn named<'a>(fleet: &'a Fleet) -> BTreeMap<&'a SecretArn, Vec<&'a SecretChoice>> {
    let mut named: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut add = |secrets: &'a Secrets| {
        for choice in [&secrets.old_hsm, &secrets.cloudhsm, &secrets.software].into_iter().flatten() {
            let choices = named.entry(&choice.arn).or_default();
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        }
    };
    add(&fleet.secrets);
    for host in &fleet.hosts {
        add(&host.secrets);
        host.databases.iter().for_each(|d| add(&d.secrets));
    }
    named
}

fn at_home(arn: &SecretArn, fleet: &Fleet) -> bool {
    arn.account() == fleet.fleet.account && arn.region() == fleet.fleet.region
}

pub(super) fn secret_missing(c: &Context<'_>, out: &mut Out<'_>) {
    for (arn, choices) in named(c.fleet).into_iter().filter(|(arn, _)| at_home(arn, c.fleet)) {
        let Some(secret) = c.facts.secret(arn).filter(|s| !s.deleted) else {
            out.say(format!("{arn} is not there, or is to be deleted"));
            continue;
        };
        for choice in choices {
            match (&choice.version, &secret.current) {
                (Some(version), _) if !secret.versions.contains(version) => {
                    out.say(format!("{arn} has no version {version} with a label"))
                }
                (None, None) => out.say(format!("{arn} has no current version")),
                _ => {}
            }
        }
    }
}

pub(super) fn secret_foreign(c: &Context<'_>, out: &mut Out<'_>) {
    for arn in named(c.fleet).into_keys().filter(|arn| !at_home(arn, c.fleet)) {
        out.say(format!("{arn} is not of {} in {}", c.fleet.fleet.account, c.fleet.fleet.region));
    }
}

pub(super) fn secret_rotated(c: &Context<'_>, out: &mut Out<'_>) {
    for (arn, choices) in named(c.fleet) {
        let Some(current) = c.facts.secret(arn).and_then(|s| s.current.as_ref()) else { continue };
        for version in choices.iter().filter_map(|choice| choice.version.as_ref()).filter(|v| *v != current) {
            out.say(format!("{arn} is pinned at {version}; its current version is {current}"));
        }
    }
}

fn migrating<'a>(c: &'a Context<'a>) -> impl Iterator<Item = &'a Facts> {
    let surveys = c.surveys.iter().filter(|s| c.targets.contains(&s.instance));
    surveys.flat_map(|s| {
        s.databases.iter().filter(|d| matches!(class(d, s), Class::OldHsm | Class::Software)).filter_map(|d| d.facts.as_ref())
    })
}

pub(super) fn connections(c: &Context<'_>, out: &mut Out<'_>) {
    let processes: u32 = migrating(c).map(|f| f.processes).fold(0, u32::saturating_add);
    if processes > CONNECTIONS {
        out.say(format!("the databases of the plan run {processes} processes; a cluster takes {CONNECTIONS} connections"));
    }
}

pub(super) fn key_quota(c: &Context<'_>, out: &mut Out<'_>) {
    let Some(cluster) = c.facts.cluster(&c.fleet.cluster.id) else { return };
    let quota = match cluster.hsm_type.as_str() {
        "hsm1.medium" => 3_300,
        "hsm2m.medium" => 16_666,
        other => {
            out.say(format!("how many keys an HSM of type `{other}` holds is not known"));
            return;
        }
    };
    // A key and the object that names it, for each container.
    let keys: usize = migrating(c).map(|f| f.containers.iter().filter(|c| c.key.is_some()).count() * 2).sum();
    if keys > quota {
        out.say(format!("the plan makes {keys} objects; an HSM of type `{}` holds {quota}", cluster.hsm_type));
    }
}

pub(super) fn instance_state(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    match instance_of(c, instance) {
        None => out.say("EC2 does not know the instance"),
        Some(found) if found.state != "running" => out.say(format!("the instance is {}", found.state)),
        Some(_) => {}
    }
}

pub(super) fn agent_offline(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    match managed_of(c, instance) {
        None => out.say("SSM does not manage the instance"),
        Some(managed) if managed.ping != crate::facts::Ping::Online => out.say("SSM has lost the agent of the instance"),
        Some(_) => {}
    }
}

pub(super) fn agent_old(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    let Some(managed) = managed_of(c, instance) else { return };
    let parts: Option<Vec<u64>> = managed.agent_version.split('.').map(|p| p.parse().ok()).collect();
    match parts {
        Some(parts) if parts.len() == 4 && parts.as_slice() >= AGENT.as_slice() => {}
        _ => out.say(format!(
            "the agent has version `{}`; 3.3.2746.0 is the oldest that passes orders safely",
            managed.agent_version
        )),
    }
}

pub(super) fn agent_platform(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    if let Some(managed) = managed_of(c, instance).filter(|m| m.platform != "Linux") {
        out.say(format!("the platform is `{}`", managed.platform));
    }
}

pub(super) fn tag_missing(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    let Some(key) = &c.fleet.waves.failure_domain else { return };
    if instance_of(c, instance).is_some_and(|i| !i.tags.contains_key(key)) {
        out.say(format!("the instance has no tag `{key}`; it counts in a failure domain without a name"));
    }
}

/// TCP 2223-2225 from the host to each HSM: out of the host's groups and into the cluster's.
pub(super) fn hsm_rules(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    let (Some(host), Some(cluster)) = (instance_of(c, instance), c.facts.cluster(&c.fleet.cluster.id)) else { return };
    let Some(group) = &cluster.security_group else {
        out.say("the cluster's security group is not known");
        return;
    };
    let Some(cluster_group) = c.facts.security_group(group) else {
        out.say(format!("the rules of the cluster's security group `{group}` are not known"));
        return;
    };
    // A host that is itself in the cluster's group is served by that group's rule for itself, which AWS makes (`A§4.6`).
    let inward = cluster_group.ingress.iter().any(|p| {
        allows(p)
            && p.peers.iter().any(|peer| match peer {
                Peer::Group(id) => host.security_groups.contains(id),
                Peer::Cidr(cidr) => host.private_ip.is_some_and(|ip| covers(cidr, ip)),
                Peer::PrefixList(_) => false,
            })
    });
    if !inward {
        out.say(format!("`{group}` does not let the host in on TCP {}-{}", PORTS.0, PORTS.1));
    }
    let groups: Vec<&SecurityGroup> = host.security_groups.iter().filter_map(|id| c.facts.security_group(id)).collect();
    let outward = cluster.active_hsms().all(|(_, ip)| {
        groups.iter().flat_map(|g| &g.egress).any(|p| {
            allows(p)
                && p.peers.iter().any(|peer| match peer {
                    Peer::Group(id) => id == group,
                    Peer::Cidr(cidr) => covers(cidr, ip),
                    Peer::PrefixList(_) => false,
                })
        })
    });
    if !outward {
        out.say(format!("the host's security groups do not let it out to the HSMs on TCP {}-{}", PORTS.0, PORTS.1));
    }
}

fn allows(permission: &Permission) -> bool {
    match permission.protocol.as_str() {
        "-1" => true,
        "tcp" | "6" => permission.from_port.is_some_and(|p| p <= PORTS.0) && permission.to_port.is_some_and(|p| p >= PORTS.1),
        _ => false,
    }
}

pub(super) fn hsm_route(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    let (Some(host), Some(cluster)) = (instance_of(c, instance), c.facts.cluster(&c.fleet.cluster.id)) else { return };
    if host.vpc.is_some() && host.vpc == cluster.vpc {
        return; // Every subnet of a VPC routes to every other.
    }
    let routes = host.subnet.as_ref().and_then(|subnet| c.facts.routes.iter().find(|r| r.subnet == *subnet));
    let Some(routes) = routes else {
        out.say("the host is not in the cluster's VPC, and the routes of its subnet are not known");
        return;
    };
    for (_, ip) in cluster.active_hsms() {
        // The default route leads to the internet; an HSM is never there.
        let found = routes.routes.iter().any(|r| r.active && r.cidr != "0.0.0.0/0" && r.cidr != "::/0" && covers(&r.cidr, ip));
        if !found {
            out.say(format!("subnet `{}` has no active route to the HSM at {ip}", routes.subnet));
        }
    }
}

/// Whether an address lies in a CIDR block. What cannot be read covers nothing.
fn covers(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, bits)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_block_covers_its_addresses_and_no_others() {
        let ip = |t: &str| t.parse().expect("address");
        assert!(
            covers("10.0.0.0/8", ip("10.255.0.1")) && covers("0.0.0.0/0", ip("1.2.3.4")) && covers("10.0.0.5/32", ip("10.0.0.5"))
        );
        assert!(
            !covers("10.0.0.0/8", ip("11.0.0.1"))
                && !covers("10.0.0.5/32", ip("10.0.0.6"))
                && !covers("10.0.0.0/40", ip("10.0.0.1"))
        );
        assert!(covers("fd00::/8", ip("fd12::1")) && !covers("fd00::/8", ip("10.0.0.1")) && !covers("nonsense", ip("10.0.0.1")));
    }
}
