//! What a drill does, in words for the person who allows it.

use tde2hsm_dr::drill::{Action, Violation};

/// It makes or removes something, or moves something on a host: somebody must allow it.
pub fn effect(action: &Action) -> bool {
    match action {
        Action::CheckPlace
        | Action::AwaitCluster
        | Action::AwaitHsm
        | Action::AwaitManaged
        | Action::Open { .. }
        | Action::Record => false,
        Action::CreateCluster { .. }
        | Action::CreateHsm { .. }
        | Action::RegisterImage { .. }
        | Action::RunInstance { .. }
        | Action::Neutralise { .. }
        | Action::TerminateInstance
        | Action::DeregisterImage
        | Action::DeleteHsms
        | Action::DeleteCluster
        | Action::DeleteClusterBackups => true,
    }
}

/// It makes something that costs until it is removed.
pub(super) fn makes(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateCluster { .. } | Action::CreateHsm { .. } | Action::RegisterImage { .. } | Action::RunInstance { .. }
    )
}

/// One line a plan is printed by.
pub fn describe(action: &Action) -> String {
    match action {
        Action::CheckPlace => "look at routes, security groups and profile of the drill's place once more".to_owned(),
        Action::CreateCluster { backup, subnet, .. } => format!("CreateCluster from {backup} in {subnet}"),
        Action::AwaitCluster => "wait for the cluster".to_owned(),
        Action::CreateHsm { availability_zone } => format!("CreateHsm in {availability_zone} (billed by the hour)"),
        Action::AwaitHsm => "wait until the cluster is ACTIVE".to_owned(),
        Action::RegisterImage { name, root_device, devices, .. } => {
            let volumes: Vec<String> =
                devices.iter().map(|device| format!("{} {} {} GiB", device.name, device.snapshot, device.size_gib)).collect();
            format!("RegisterImage `{name}`, root {root_device}: {}", volumes.join(", "))
        }
        Action::RunInstance { place, .. } => format!(
            "RunInstances: one {} in {} with {} and profile `{}`",
            place.instance_type, place.subnet, place.security_group, place.instance_profile
        ),
        Action::AwaitManaged => "wait for its SSM agent".to_owned(),
        Action::Neutralise { databases } => {
            let sids: Vec<&str> = databases.iter().map(|sid| sid.as_str()).collect();
            format!("order over SSM: neutralise the host ({}), then open with one login and read", sids.join(", "))
        }
        Action::Open { sid, secret, .. } => {
            let version = secret.as_ref().map(|secret| format!(", secret version {}", secret.version)).unwrap_or_default();
            format!("collect what was read of `{sid}` with `ewallet.p12` aside{version}")
        }
        Action::Record => "record rows and duration".to_owned(),
        Action::TerminateInstance => "TerminateInstances, volumes with it".to_owned(),
        Action::DeregisterImage => "DeregisterImage".to_owned(),
        Action::DeleteHsms => "DeleteHsm".to_owned(),
        Action::DeleteCluster => "DeleteCluster".to_owned(),
        Action::DeleteClusterBackups => "DeleteBackup of what the drill's own cluster made".to_owned(),
    }
}

pub(super) fn begins(action: &Action) -> String {
    describe(action)
}

pub fn violation(violation: &Violation) -> String {
    match violation {
        Violation::Route { destination, target } => format!("its route to `{destination}` leads to `{target}`"),
        Violation::PublicAddresses => "its subnet gives public addresses".to_owned(),
        Violation::Egress { to } => format!("its security group lets it out to `{to}`"),
        Violation::ProductionProfile { profile } => format!("production uses the instance profile `{profile}`"),
        Violation::ProfilesUnknown => "which instance profiles production uses is not known".to_owned(),
        Violation::OtherPlace { wanted, found } => format!("`{wanted}` was asked about and `{found}` answered"),
    }
}
