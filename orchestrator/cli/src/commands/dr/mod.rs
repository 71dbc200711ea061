//! `dr`: recovery in the second region.
//!
//! Whatever these commands say of points is judged by `dr` over facts that `dr-driver` gathered, the same way as the
//! functions do it. A source region that does not answer is no failure of theirs: it is the day they are for.

mod copy;
mod drill;
mod expire;
mod retire;
mod status;

use crate::args::{DatabaseName, Dr};
use crate::context::{Context, read_fleet};
use crate::exit::Exit;
use crate::failure::Failure;
use std::path::Path;
use tde2hsm_campaign::fleet::{self, Fleet, SecretChoice, Secrets, Targets};
use tde2hsm_cloud::{Aws, DrAws};
use tde2hsm_dr::copying::Timed;
use tde2hsm_dr::points::{DatabasePoint, Judge, Point, SecretRole, SecretUse};
use tde2hsm_dr_driver::world::{Asker, World};
use tde2hsm_dr_driver::{DocumentPin, DrConfig, Expiry, Job, Outcome, Unasked};
use tde2hsm_protocol::{Code, InstanceId, Severity, Sid, Timestamp};

pub async fn run(context: &Context, command: Dr) -> Result<Exit, Failure> {
    match command {
        Dr::Status(args) => status::run(context, args).await,
        Dr::Copy(args) => copy::run(context, args).await,
        Dr::Expire(args) => expire::run(context, args).await,
        Dr::RetireWhen(args) => retire::run(context, args).await,
        Dr::Drill(args) => drill::run(context, args).await,
    }
}

/// A fleet with its second region.
struct Second {
    fleet: Fleet,
    dr: fleet::Dr,
    config: DrConfig,
    cloud: DrAws,
    /// The DR region by itself. Nothing of the source region is asked to get here.
    there: Aws,
}

impl Second {
    async fn open(context: &Context, path: &Path) -> Result<Second, Failure> {
        let fleet = read_fleet(path)?;
        let unnamed = |what: &str| Failure::new(Code::DR_NOT_CONFIGURED, format!("{}: {what}", path.display()));
        let dr = fleet.dr.clone().ok_or_else(|| unnamed("there is no `[dr]`"))?;
        let tag = fleet.targets.iter().find_map(|target| match target {
            Targets::Tag(tag) => Some((tag.key.clone(), tag.value.clone())),
            Targets::Instances(_) => None,
        });
        let tag = tag.ok_or_else(|| unnamed("no target is a tag, and copies find the fleet by one"))?;
        let config = config(&fleet, &dr, tag);
        let there = context.aws_of(&fleet.fleet.account, &dr.region).await?;
        let cloud = context.both_regions(&config).await;
        Ok(Second { fleet, dr, config, cloud, there })
    }

    /// Takes the document of the source region along, which surveys are ordered through.
    async fn with_document(mut self, context: &Context) -> Second {
        let name = self.dr.document.clone().unwrap_or_else(|| tde2hsm_document::DEFAULT_NAME.to_owned());
        let found = async {
            let here = context.aws(Some(&self.fleet.fleet.region)).await?;
            here.ssm.document(&name).await.map_err(Failure::from)
        };
        match found.await {
            Ok(Some(pin)) => {
                self.config.document = Some(DocumentPin { name: pin.name, version: pin.version, hash: pin.hash });
            }
            Ok(None) => context.out.warn(&format!("there is no SSM document `{name}` in the source region; no host is surveyed")),
            Err(failure) => context.out.warn(&format!("{}; no host is surveyed", failure.message)),
        }
        self
    }

    /// Everything that can be asked, judged.
    async fn look(&self, now: Timestamp) -> Result<Look, Failure> {
        self.look_for(Job::AuditRecovery, now).await
    }

    /// The same as a job sees it: what expires is decided with the source region's secrets as well.
    async fn look_for(&self, job: Job, now: Timestamp) -> Result<Look, Failure> {
        let mut asker = Asker::new(job, now, &self.config, &self.cloud);
        let world = asker.world().await;
        let Outcome { messages, unasked, .. } = asker.outcome;
        let Some(world) = world else {
            let why = messages.iter().find(|message| message.severity == Severity::Error).map(|message| message.text.clone());
            let why = why.unwrap_or_else(|| format!("the bucket `{}` does not answer", self.config.records_bucket));
            return Err(Failure::new(Code::RECORDS_UNREADABLE, why));
        };
        let judge = Judge::new(&world.common);
        let mut points: Vec<Point> = world.hosts.iter().flat_map(|host| judge.host(host)).collect();
        points.sort_by(|a, b| (&a.instance, a.taken, &a.set).cmp(&(&b.instance, b.taken, &b.set)));
        Ok(Look { world, points, unasked })
    }
}

/// What the jobs are told of a fleet, as the functions' environment would have it.
fn config(fleet: &Fleet, dr: &fleet::Dr, fleet_tag: (String, String)) -> DrConfig {
    DrConfig {
        account: fleet.fleet.account.clone(),
        fleet: fleet.fleet.name.to_string(),
        fleet_tag,
        source_region: fleet.fleet.region.clone(),
        dr_region: dr.region.clone(),
        cluster: fleet.cluster.id.clone(),
        kms_key: dr.kms_key.clone(),
        records_bucket: dr.records_bucket.clone(),
        secrets: secret_uses(fleet),
        rpo_minutes: dr.rpo_minutes,
        copies_in_flight: dr.copies_in_flight,
        timed: Timed::from_mib_s(dr.timed_copies_mib_s),
        retention: dr.retention,
        hsm_backup_retention_days: dr.hsm_backup_retention_days,
        retired: dr.retired.clone(),
        topic: dr.topic.clone(),
        document: None,
        expiry: Expiry::DryRun,
    }
}

/// Which secret is for what: the fleet's own, and what a host or database has in place of it.
fn secret_uses(fleet: &Fleet) -> Vec<SecretUse> {
    let of = |secrets: &Secrets, of: Option<(InstanceId, Option<Sid>)>| {
        let roles = [(SecretRole::CryptoUser, &secrets.cloudhsm), (SecretRole::Keystore, &secrets.software)];
        let named = |(role, choice): (SecretRole, &Option<SecretChoice>)| {
            choice.as_ref().map(|choice| SecretUse { secret: choice.arn.clone(), role, of: of.clone() })
        };
        roles.into_iter().filter_map(named).collect::<Vec<_>>()
    };
    let mut uses = of(&fleet.secrets, None);
    for host in &fleet.hosts {
        uses.extend(of(&host.secrets, Some((host.instance.clone(), None))));
        for database in &host.databases {
            uses.extend(of(&database.secrets, Some((host.instance.clone(), Some(database.sid.clone())))));
        }
    }
    uses
}

/// Points and what each is to one database.
type PointsOf<'a> = Vec<(&'a Point, &'a DatabasePoint)>;

/// What a look at both regions gave.
struct Look {
    world: World,
    points: Vec<Point>,
    unasked: Vec<Unasked>,
}

impl Look {
    /// Points of one database, oldest first. A name without an instance must be of one host only.
    fn of(&self, name: &DatabaseName) -> Result<(InstanceId, PointsOf<'_>), Failure> {
        let fits = |instance: &InstanceId| name.instance.as_ref().is_none_or(|wanted| wanted == instance);
        let found: PointsOf<'_> = self
            .points
            .iter()
            .filter(|point| fits(&point.instance))
            .filter_map(|point| Some((point, point.database(&name.sid)?)))
            .collect();
        let inventoried = self.world.hosts.iter().filter(|host| {
            fits(&host.instance) && host.inventories.iter().any(|i| i.databases.iter().any(|database| database.sid == name.sid))
        });
        let mut instances: Vec<&InstanceId> =
            found.iter().map(|(point, _)| &point.instance).chain(inventoried.map(|host| &host.instance)).collect();
        instances.sort();
        instances.dedup();
        match instances.as_slice() {
            [] => Err(Failure::new(Code::DATABASE_NOT_INVENTORIED, format!("no inventory knows `{name}`"))),
            [one] => Ok(((*one).clone(), found)),
            several => {
                let all: Vec<String> = several.iter().map(|instance| format!("`{instance}/{}`", name.sid)).collect();
                Err(Failure::new(Code::DATABASE_NOT_INVENTORIED, format!("`{name}` may be {}", all.join(" or "))))
            }
        }
    }
}

/// A time as people of all zones read it.
fn when(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0).map_or_else(|_| at.0.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// `3 d 4 h`, `2 h 5 min`, `40 s`: the two largest parts.
fn long(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = include_str!("../../../../campaign/tests/fleet.toml");

    #[test]
    fn the_jobs_are_told_what_the_fleet_file_says() {
        let fleet = Fleet::parse(FLEET).expect("reads");
        let dr = fleet.dr.clone().expect("named");
        let config = config(&fleet, &dr, ("tde2hsm".to_owned(), "demo".to_owned()));
        assert_eq!(config.dr_region.as_str(), "us-west-2");
        assert_eq!(config.retention.to_string(), "hourly=8,daily=14,weekly=5,monthly=12");
        assert_eq!(config.timed, Timed::ByDeadline { throughput: 2_000 });
        let roles: Vec<(SecretRole, bool)> = config.secrets.iter().map(|one| (one.role, one.of.is_some())).collect();
        // The old HSM's is no secret that a point needs.
        assert_eq!(roles, [(SecretRole::CryptoUser, false), (SecretRole::Keystore, false), (SecretRole::Keystore, true)]);
    }

    #[test]
    fn an_age_is_said_in_its_two_largest_parts() {
        for (seconds, words) in [(-5, "0 s"), (59, "59 s"), (3_599, "59 min"), (7_500, "2 h 5 min"), (273_600, "3 d 4 h")] {
            assert_eq!(long(seconds), words);
        }
    }
}
