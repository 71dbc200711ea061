//! The five jobs.

mod audit;
mod copy_hsm_backups;
mod copy_snapshots;
mod expire;
mod settle;

use crate::world::Asker;
use crate::{Cloud, DrConfig, Hint, Job, Outcome};
use tde2hsm_protocol::Timestamp;

/// Begins copies of the sets that should be in the DR region, and orders and collects surveys.
pub async fn copy_snapshots(now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, hint: &Hint) -> Outcome {
    let mut asker = asker(Job::CopySnapshots, now, config, cloud);
    copy_snapshots::run(&mut asker, hint).await;
    asker.outcome
}

/// Begins copies of the cluster's backups, and keeps the secret versions of their time.
pub async fn copy_hsm_backups(now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, _hint: &Hint) -> Outcome {
    let mut asker = asker(Job::CopyHsmBackups, now, config, cloud);
    copy_hsm_backups::run(&mut asker).await;
    asker.outcome
}

/// Looks what became of each copy that was begun.
pub async fn settle_copies(now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, hint: &Hint) -> Outcome {
    let mut asker = asker(Job::SettleCopies, now, config, cloud);
    settle::run(&mut asker, hint).await;
    asker.outcome
}

/// Deletes what may go, keeps what must stay.
pub async fn expire_copies(now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, _hint: &Hint) -> Outcome {
    let mut asker = asker(Job::ExpireCopies, now, config, cloud);
    expire::run(&mut asker).await;
    asker.outcome
}

/// Judges every point, and tells each breach once.
pub async fn audit_recovery(now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, _hint: &Hint) -> Outcome {
    let mut asker = asker(Job::AuditRecovery, now, config, cloud);
    audit::run(&mut asker).await;
    asker.outcome
}

/// Runs a job. Never fails as a whole: what could not be asked or done is in the outcome.
pub async fn run(job: Job, now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, hint: &Hint) -> Outcome {
    match job {
        Job::CopySnapshots => copy_snapshots(now, config, cloud, hint).await,
        Job::CopyHsmBackups => copy_hsm_backups(now, config, cloud, hint).await,
        Job::SettleCopies => settle_copies(now, config, cloud, hint).await,
        Job::ExpireCopies => expire_copies(now, config, cloud, hint).await,
        Job::AuditRecovery => audit_recovery(now, config, cloud, hint).await,
    }
}

fn asker<'a>(job: Job, now: Timestamp, config: &'a DrConfig, cloud: &'a dyn Cloud) -> Asker<'a> {
    Asker { now, config, cloud, outcome: Outcome::new(job, now) }
}
