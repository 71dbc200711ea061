//! `discover`: what AWS knows of the hosts a fleet file names. Asks AWS only.

use crate::args::Discover;
use crate::context::{Context, read_fleet};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gather;
use serde::Serialize;
use std::fmt::Write as _;
use tde2hsm_campaign::facts::{Instance, ManagedInstance, Ping};

#[derive(Serialize)]
struct Discovered {
    instances: Vec<Instance>,
    managed: Vec<ManagedInstance>,
}

pub async fn run(context: &Context, args: Discover) -> Result<Exit, Failure> {
    let fleet = read_fleet(&args.fleet)?;
    let aws = context.aws_of(&fleet.fleet.account, &fleet.fleet.region).await?;
    let instances = gather::instances(&aws, &fleet).await?;
    let ids: Vec<_> = instances.iter().map(|i| i.instance.clone()).collect();
    let managed = aws.ssm.managed(&ids).await?;
    let mut human = String::new();
    for instance in &instances {
        let agent = managed.iter().find(|m| m.instance == instance.instance);
        let ping = match agent.map(|m| m.ping) {
            Some(Ping::Online) => "online",
            Some(Ping::ConnectionLost) => "connection lost",
            Some(Ping::Inactive) => "inactive",
            Some(Ping::Unknown) => "unknown",
            None => "not managed by SSM",
        };
        let version = agent.map_or("-", |m| m.agent_version.as_str());
        let name = instance.tags.get("Name").map_or("", String::as_str);
        let name = tde2hsm_protocol::wire::printable(name, 60);
        let _ = writeln!(human, "{:<20} {:<10} agent {ping} {version} {name}", instance.instance, instance.state);
    }
    let _ = writeln!(human, "{} instances, {} managed by SSM", instances.len(), managed.len());
    context.out.answer("discover", &Discovered { instances, managed }, &human)?;
    Ok(Exit::Ok)
}
