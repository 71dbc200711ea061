//! `undo`: surveys the hosts again, shows what undoing them means (H30), asks, and drives.

use super::plan::PROGRAM;
use super::resume::document;
use super::status::{Pick, pick};
use super::survey;
use crate::args::Undo;
use crate::context::Context;
use crate::drive::{Progress, approve, drive};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gather;
use crate::night::Night;
use tde2hsm_campaign::fleet::{
    ClusterChoice, DatabaseOverride, EscrowChoice, Fleet, HostOverride, Identity, Options, Protect, SecretChoice, Secrets,
    Targets, Waves, Window,
};
use tde2hsm_campaign::plan::{self, Plan, PlanInput};
use tde2hsm_campaign::reducer::{EventKind, State, UndoHost};
use tde2hsm_campaign::render;
use tde2hsm_driver::{Driver, plan_of};
use tde2hsm_journal::Journal as _;
use tde2hsm_protocol::{DatabaseOrder, InstanceId, Source};

pub async fn run(context: &Context, args: Undo) -> Result<Exit, Failure> {
    let journal = context.existing_journal().await?;
    let campaign = pick(&journal, args.campaign, Pick::Any).await?;
    let (done, events, _) = plan_of(&journal, &campaign).await?;
    let state = State::replay(done.clone(), &events);
    if let Some(stranger) = args.hosts.iter().find(|host| done.host(host).is_none()) {
        return Err(Failure::usage(format!("host `{stranger}` is not of campaign `{campaign}`")));
    }
    let (aws, anew) = context.aws_again(&state, &args.anew, &args.approval).await?;
    let document = document(&state, anew.as_ref());
    let fleet = fleet_of(&done);
    let facts = gather::facts(&aws, &fleet, &document.name, context.now(), context.out).await?;
    let hosts: Vec<InstanceId> = match args.hosts.is_empty() {
        true => done.hosts.iter().map(|host| host.instance.clone()).collect(),
        false => args.hosts,
    };
    let surveys = survey::of_hosts(context, &aws, &done.account, &done.region, document, &hosts, &facts.managed).await?;
    let undo = plan::build(&PlanInput {
        fleet: &fleet,
        facts: &facts,
        surveys: &surveys.surveys,
        now: context.now(),
        program: PROGRAM,
        undo_of: Some(&done),
        only: &hosts,
    })?;
    context.out.show(&render::plan(&undo));
    approve(context.out, args.approval.yes, &format!("Undo {} hosts?", undo.hosts.len()))?;

    let night = Night::new(context, &aws, &done, document).await;
    let progress = Progress::new(context.out);
    let mut driver = Driver::open(&journal, &night, &context.clock, &progress, campaign).await?;
    journal.keep(undo.digest(), &undo.to_json()).await?;
    let hosts = undo.hosts.iter().map(|host| UndoHost { instance: host.instance.clone(), saw: Some(host.saw) }).collect();
    let why = "undo was asked for".to_owned();
    let mut first = vec![EventKind::Interrupted { why }];
    first.extend(anew.clone());
    first.push(EventKind::UndoRequested { plan: undo.digest(), hosts });
    driver.record(first).await?;
    drive(context, "undo", &night, &journal, &mut driver, args.approval.yes).await
}

/// The fleet file that a plan would have come from: undo needs nothing but the journal, on whatever machine it is.
fn fleet_of(plan: &Plan) -> Fleet {
    let choice = |index: u16| {
        let planned = plan.secrets.get(usize::from(index))?;
        Some(SecretChoice { arn: planned.secret.arn.clone(), version: Some(planned.secret.version.clone()) })
    };
    let secrets = |order: &DatabaseOrder| Secrets {
        old_hsm: match order.source {
            Source::OldHsm { pin } => choice(pin),
            Source::Software => None,
        },
        cloudhsm: choice(order.cloudhsm),
        software: choice(order.software),
    };
    let database = |order: &DatabaseOrder| DatabaseOverride {
        sid: order.sid.clone(),
        auto_open: Some(order.auto_open),
        restart_proof: Some(order.restart_proof),
        backup_hours: Some(order.backup_hours),
        secrets: secrets(order),
    };
    let hosts = plan.hosts.iter().map(|host| HostOverride {
        instance: host.instance.clone(),
        auto_open: None,
        restart_proof: None,
        backup_hours: None,
        secrets: Secrets::default(),
        databases: host.databases.iter().map(|d| database(&d.order)).collect(),
    });
    Fleet {
        fleet: Identity { name: plan.fleet.clone(), account: plan.account.clone(), region: plan.region.clone() },
        cluster: ClusterChoice { id: plan.target.cluster.clone(), key_availability_check: plan.target.key_availability_check },
        secrets: Secrets::default(),
        escrow: Some(EscrowChoice { prefix: plan.escrow.prefix.clone(), replica_regions: plan.escrow.replica_regions.clone() }),
        options: Options {
            on_failure: plan.policy.on_failure,
            accept: plan.accepted.clone(),
            retries: plan.policy.retries,
            order_minutes: u16::try_from(plan.policy.order_seconds / 60).unwrap_or(u16::MAX),
            poll_seconds: u16::try_from(plan.policy.poll_seconds).unwrap_or(u16::MAX),
            ..Options::default()
        },
        waves: Waves {
            canary: plan.waves.canary,
            concurrency: plan.waves.concurrency,
            budget: plan.waves.budget,
            failure_domain: plan.waves.failure_domain.clone(),
        },
        window: Window::default(),
        targets: vec![Targets::Instances(plan.hosts.iter().map(|host| host.instance.clone()).collect())],
        hosts: hosts.collect(),
        dr: None,
        protect: Protect::default(),
    }
}
