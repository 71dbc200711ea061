//! The five jobs.

mod audit;
mod copy_hsm_backups;
mod copy_snapshots;
mod expire;
mod settle;

pub use expire::Due;

use crate::world::Asker;
use crate::{Cloud, DrConfig, Hint, Job, Outcome, Unit};
use tde2hsm_protocol::Timestamp;

/// Runs a job. Never fails as a whole: what could not be asked or done is in the outcome.
pub async fn run(job: Job, now: Timestamp, config: &DrConfig, cloud: &dyn Cloud, hint: &Hint) -> Outcome {
    let mut asker = Asker::new(job, now, config, cloud);
    match job {
        // Begins copies of the sets that should be in the DR region, and orders and collects surveys.
        Job::CopySnapshots => copy_snapshots::run(&mut asker, hint).await,
        // Begins copies of the cluster's backups, and keeps the secret versions of their time.
        Job::CopyHsmBackups => copy_hsm_backups::run(&mut asker, hint).await,
        // Looks what became of each copy that was begun.
        Job::SettleCopies => settle::run(&mut asker, hint).await,
        // Deletes what may go, keeps what must stay.
        Job::ExpireCopies => expire::run(&mut asker).await,
        // Judges every point, and tells each breach once.
        Job::AuditRecovery => audit::run(&mut asker).await,
    }
    let mut outcome = asker.outcome;
    let failed = outcome.failed as f64;
    outcome.metric("CallsFailed", Unit::Count, failed, &[("function", job.name())]);
    outcome
}
