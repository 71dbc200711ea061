//! From fleet file, facts and surveys to a plan: everything that can be chosen is chosen here.

use super::*;
use crate::fleet::{SecretChoice, Targets};
use crate::rules::{self, Class, Context, Effective};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_protocol::survey::{Database, KeystoreConfig};
use tde2hsm_protocol::{AutoOpen, RestartProof};

/// How long an uncertain command is looked for, unless the fleet file says otherwise, is in [`crate::fleet::Options`];
/// these two are the product's own.
const CLUSTER_SECONDS: u32 = 60;
const ASKS: u8 = 5;

pub(super) fn targets(fleet: &Fleet, facts: &CloudFacts) -> Vec<InstanceId> {
    let mut selected = BTreeSet::new();
    for target in &fleet.targets {
        match target {
            Targets::Instances(ids) => selected.extend(ids.iter().cloned()),
            Targets::Tag(tag) => {
                let tagged = facts.instances.iter().filter(|i| i.tags.get(&tag.key) == Some(&tag.value));
                let alive = tagged.filter(|i| !matches!(i.state.as_str(), "terminated" | "shutting-down"));
                selected.extend(alive.map(|i| i.instance.clone()));
            }
        }
    }
    selected.into_iter().collect()
}

pub(super) fn build(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    let mut targets = match input.undo_of {
        Some(done) => done.hosts.iter().map(|h| h.instance.clone()).collect(),
        None => targets(input.fleet, input.facts),
    };
    if !input.only.is_empty() {
        targets.retain(|t| input.only.contains(t));
    }
    let context = Context {
        fleet: input.fleet,
        facts: input.facts,
        surveys: input.surveys,
        targets: &targets,
        now: input.now,
        undo_of: input.undo_of,
    };
    let mut findings = rules::fleet(&context);
    let mut refused = Vec::new();
    let mut accepted_hosts = Vec::new();
    for instance in &targets {
        let found = rules::host(&context, instance);
        if found.iter().any(rules::Finding::is_error) {
            refused.push(Refused { instance: instance.clone(), findings: found });
        } else {
            accepted_hosts.push(instance.clone());
            findings.extend(found);
        }
    }
    let parts = cluster_and_document(input);
    let (Some((target, document)), false, false) =
        (parts, findings.iter().any(rules::Finding::is_error), accepted_hosts.is_empty())
    else {
        findings.extend(refused.into_iter().flat_map(|r| r.findings));
        return Err(PlanError::Refused { findings });
    };
    let mut hosts = Vec::new();
    let mut secrets = Table::new(input);
    for instance in &accepted_hosts {
        let Some(survey) = input.surveys.iter().find(|s| s.instance == *instance) else { continue };
        hosts.extend(host(input, survey, &mut secrets));
    }
    if hosts.is_empty() {
        findings.extend(refused.into_iter().flat_map(|r| r.findings));
        return Err(PlanError::Refused { findings });
    }
    // The canary should say most while it risks least: few databases, and an HSM source before a software source.
    let software_only = |h: &HostPlan| h.databases.iter().all(|d| d.order.source == Source::Software);
    hosts.sort_by(|a, b| {
        (software_only(a), a.databases.len(), &a.instance).cmp(&(software_only(b), b.databases.len(), &b.instance))
    });
    let choice = &input.fleet.waves;
    let mut waves = Waves {
        canary: choice.canary,
        concurrency: choice.concurrency,
        budget: choice.budget,
        failure_domain: choice.failure_domain.clone(),
        expected: Vec::new(),
    };
    waves.expected = expected(&waves, &hosts);
    let options = &input.fleet.options;
    let escrow = match (input.undo_of, &input.fleet.escrow) {
        (Some(done), _) => done.escrow.clone(),
        (None, Some(choice)) => Escrow { prefix: choice.prefix.clone(), replica_regions: choice.replica_regions.clone() },
        (None, None) => return Err(PlanError::Refused { findings }), // ESCROW_UNNAMED is among them.
    };
    Ok(Plan::seal(PlanBody {
        program: input.program.to_owned(),
        fleet: input.fleet.fleet.name.clone(),
        direction: if input.undo_of.is_some() { Direction::Undo } else { Direction::Do },
        made_at: input.now,
        account: input.fleet.fleet.account.clone(),
        region: input.fleet.fleet.region.clone(),
        document,
        target,
        secrets: secrets.finish(&hosts, input.surveys),
        escrow,
        window: Window { not_before: input.fleet.window.not_before, not_after: input.fleet.window.not_after },
        waves,
        policy: Policy {
            on_failure: options.on_failure,
            retries: options.retries,
            order_seconds: u32::from(options.order_minutes) * 60,
            poll_seconds: u32::from(options.poll_seconds),
            find_seconds: u32::from(options.find_seconds),
            cluster_seconds: CLUSTER_SECONDS,
            asks: ASKS,
        },
        protect: input.undo_of.is_none().then(|| protect(input.fleet)),
        hosts,
        refused,
        findings,
        accepted: options.accept.clone(),
    }))
}

fn protect(fleet: &Fleet) -> Protect {
    Protect {
        mode: fleet.protect.mode,
        wait_seconds: u32::from(fleet.protect.wait_hours) * 3_600,
        second: fleet.dr.as_ref().map(|dr| Second {
            region: dr.region.clone(),
            records_bucket: dr.records_bucket.clone(),
            kms_key: dr.kms_key.clone(),
        }),
    }
}

fn cluster_and_document(input: &PlanInput<'_>) -> Option<(Target, DocumentPin)> {
    let document = input.facts.document.as_ref()?;
    let pin = DocumentPin { name: document.name.clone(), version: document.version.clone(), hash: document.hash };
    let cluster = match (input.facts.cluster(&input.fleet.cluster.id), input.undo_of) {
        (Some(cluster), _) => cluster,
        // What is not on the cluster yet can be undone without it.
        (None, Some(done)) => return Some((done.target.clone(), pin)),
        (None, None) => return None,
    };
    let mut hsms: Vec<_> = cluster.active_hsms().map(|(_, ip)| ip).collect();
    hsms.sort_unstable();
    Some((
        Target { cluster: cluster.cluster.clone(), hsms, key_availability_check: input.fleet.cluster.key_availability_check },
        pin,
    ))
}

/// The secrets of the plan, each version once.
struct Table<'a> {
    facts: &'a CloudFacts,
    undo_of: Option<&'a Plan>,
    rows: Vec<(SecretRef, SecretPurpose)>,
}

impl<'a> Table<'a> {
    fn new(input: &PlanInput<'a>) -> Table<'a> {
        // A plan to undo refers to the secrets of the plan it undoes, by the same index.
        let rows = input.undo_of.map_or_else(Vec::new, |p| p.secrets.iter().map(|s| (s.secret.clone(), s.purpose)).collect());
        Table { facts: input.facts, undo_of: input.undo_of, rows }
    }

    fn index(&mut self, choice: Option<&SecretChoice>, purpose: SecretPurpose) -> Option<u16> {
        let choice = choice?;
        let version = match &choice.version {
            Some(version) => version.clone(),
            None => self.facts.secret(&choice.arn)?.current.clone()?,
        };
        let secret = SecretRef { arn: choice.arn.clone(), version };
        let at = self.rows.iter().position(|(s, p)| *s == secret && *p == purpose).unwrap_or_else(|| {
            self.rows.push((secret, purpose));
            self.rows.len() - 1
        });
        u16::try_from(at).ok()
    }

    /// Who can prove what, before anything is touched: an old PIN where its provider is in place, the new PIN anywhere, a
    /// software password where a keystore opens with it today.
    fn finish(self, hosts: &[HostPlan], _surveys: &[Survey]) -> Vec<PlannedSecret> {
        let provers = |index: u16, purpose: SecretPurpose| {
            let proves = |d: &DatabasePlan| match purpose {
                SecretPurpose::OldHsm => d.order.source == Source::OldHsm { pin: index },
                SecretPurpose::Cloudhsm => d.order.cloudhsm == index,
                SecretPurpose::Software => d.order.software == index && d.order.source == Source::Software,
            };
            hosts.iter().filter(|h| h.databases.iter().any(proves)).map(|h| h.instance.clone()).collect()
        };
        let undo = self.undo_of.is_some();
        let row = |(at, (secret, purpose)): (usize, (SecretRef, SecretPurpose))| {
            let provers = if undo { Vec::new() } else { u16::try_from(at).map_or_else(|_| Vec::new(), |i| provers(i, purpose)) };
            PlannedSecret { secret, purpose, provers }
        };
        self.rows.into_iter().enumerate().map(row).collect()
    }
}

fn host(input: &PlanInput<'_>, survey: &Survey, secrets: &mut Table<'_>) -> Option<HostPlan> {
    let databases: Vec<DatabasePlan> = match input.undo_of {
        Some(done) => {
            let planned = done.host(&survey.instance)?;
            planned.databases.iter().map(|d| undo_database(d, survey)).collect()
        }
        None => survey.databases.iter().filter_map(|d| database(input, survey, d, secrets)).collect(),
    };
    if databases.is_empty() {
        return None;
    }
    let sids: Vec<_> = databases.iter().map(|d| d.order.sid.clone()).collect();
    let domain =
        input.fleet.waves.failure_domain.as_ref().and_then(|key| input.facts.instance(&survey.instance)?.tags.get(key).cloned());
    let segments = segments(&databases, if input.undo_of.is_some() { Direction::Undo } else { Direction::Do });
    Some(HostPlan {
        instance: survey.instance.clone(),
        domain: domain.unwrap_or_default(),
        saw: survey.saw(&sids),
        databases,
        segments,
    })
}

fn database(input: &PlanInput<'_>, survey: &Survey, database: &Database, secrets: &mut Table<'_>) -> Option<DatabasePlan> {
    let class = rules::class(database, survey);
    let facts = database.facts.as_ref()?;
    let options = rules::effective(input.fleet, &survey.instance, &database.sid);
    let source = match class {
        Class::OldHsm => Source::OldHsm { pin: secrets.index(options.old_hsm, SecretPurpose::OldHsm)? },
        Class::Software => Source::Software,
        _ => return None,
    };
    let style = match database.keystore {
        KeystoreConfig::WalletRoot { .. } => ConfigurationStyle::WalletRoot,
        _ => ConfigurationStyle::Sqlnet,
    };
    let order = DatabaseOrder {
        sid: database.sid.clone(),
        source,
        software: secrets.index(options.software, SecretPurpose::Software)?,
        cloudhsm: secrets.index(options.cloudhsm, SecretPurpose::Cloudhsm)?,
        auto_open: options.auto_open.unwrap_or(AutoOpen::Typed),
        restart_proof: options.restart_proof,
        backup_hours: options.backup_hours,
    };
    let containers = facts.containers.iter().filter(|c| c.key.is_some()).count();
    Some(DatabasePlan {
        restarts: Restarts {
            swap: u16::from(swap_restarts(database, survey)),
            proof: u16::from(options.restart_proof == RestartProof::Do),
        },
        version: facts.version.clone(),
        home: database.home.clone(),
        style,
        containers: u16::try_from(containers).unwrap_or(u16::MAX),
        reversible: reversible(&facts.version),
        typed: typed(&order, facts.cdb),
        keeps: keeps(&options, source, database),
        order,
    })
}

/// H27: an HSM source is restarted on the new library. A software source is not, but for one whose configuration lies in
/// `sqlnet.ora` or one that has a library mapped, which it would keep.
fn swap_restarts(database: &Database, survey: &Survey) -> bool {
    let hsm_source = rules::class(database, survey) != Class::Software;
    let parameters = matches!(database.keystore, KeystoreConfig::WalletRoot { .. });
    hsm_source || !parameters || rules::tied_to_hsm(database, survey)
}

/// Reverse migration exists from 12.1 on (`O§1.2`).
fn reversible(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 12)
}

fn typed(order: &DatabaseOrder, cdb: bool) -> Vec<String> {
    match order.auto_open {
        AutoOpen::Enable => Vec::new(),
        AutoOpen::Typed => {
            let all = if cdb { " CONTAINER = ALL" } else { "" };
            vec![format!("ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"crypto user:password\"{all};")]
        }
    }
}

fn keeps(options: &Effective<'_>, source: Source, database: &Database) -> Vec<String> {
    let software = options.software.map_or_else(String::new, |s| format!(" and its password in {}", s.arn));
    let mut keeps = Vec::new();
    match source {
        Source::OldHsm { .. } => {
            let pin = options.old_hsm.map_or_else(String::new, |s| format!(", the PIN in {}", s.arn));
            keeps.push(format!("the old HSM with its keys, its client on the host{pin}"));
            keeps.push(format!("the interim keystore{software}"));
        }
        Source::Software => {
            let dir = database.keystore_dir.as_ref().map_or_else(String::new, |d| format!(" in `{d}`"));
            keeps.push(format!("the software keystore{dir}{software}"));
        }
    }
    keeps
}

fn undo_database(done: &DatabasePlan, survey: &Survey) -> DatabasePlan {
    let mut undo = done.clone();
    // Both sources are on the library that is to go, and a proof is not made of a state that was proven for years.
    let maps = survey.database(&done.order.sid).is_none_or(|d| rules::tied_to_hsm(d, survey));
    undo.restarts = Restarts { swap: u16::from(maps), proof: 0 };
    undo.typed = Vec::new();
    undo
}

fn segments(databases: &[DatabasePlan], direction: Direction) -> Vec<SegmentPlan> {
    let any = |test: fn(&DatabaseOrder) -> bool| databases.iter().any(|d| test(&d.order));
    let needed = |step: &Step| match step {
        Step::ReverseMigrate => any(|o| matches!(o.source, Source::OldHsm { .. })),
        Step::EnableAutoOpen => any(|o| o.auto_open == AutoOpen::Enable),
        Step::RestartProof => any(|o| o.restart_proof == RestartProof::Do),
        _ => true,
    };
    let of = |segment| Step::of(segment).filter(needed).collect::<Vec<_>>();
    match direction {
        Direction::Do => Segment::ALL.into_iter().map(|segment| SegmentPlan { segment, steps: of(segment) }).collect(),
        Direction::Undo => [Segment::Cutover, Segment::Stage]
            .into_iter()
            .map(|segment| SegmentPlan { segment, steps: of(segment).into_iter().rev().collect() })
            .collect(),
    }
}

/// The waves if nothing fails, by the rule that the reducer follows when something does.
fn expected(waves: &Waves, hosts: &[HostPlan]) -> Vec<Vec<InstanceId>> {
    let mut left: Vec<&HostPlan> = hosts.iter().collect();
    let mut expected = Vec::new();
    while !left.is_empty() {
        let width = usize::from(if expected.is_empty() { waves.canary.min(waves.concurrency) } else { waves.concurrency }.max(1));
        let mut domains: BTreeMap<&str, u16> = BTreeMap::new();
        let mut wave = Vec::new();
        left.retain(|host| {
            let in_flight = domains.entry(host.domain.as_str()).or_default();
            let admitted = wave.len() < width && *in_flight < waves.budget;
            if admitted {
                *in_flight += 1;
                wave.push(host.instance.clone());
            }
            !admitted
        });
        if wave.is_empty() {
            break; // A budget of nothing admits nothing.
        }
        expected.push(wave);
    }
    expected
}
