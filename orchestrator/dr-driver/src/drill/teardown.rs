//! Takes a drill down: whatever carries its tag goes, and nothing else, whatever became of the drill itself.
//!
//! It looks, removes what it sees, and looks again until nothing is seen. What may have been asked for without an answer
//! is looked for several times more: a cluster that appears a minute late would cost for months.

use super::ports::{ClusterState, Consent, DrillCloud, Pace, Watcher};
use super::record::{Kept, Left};
use super::run::{LOOKS, Stop, Waits};
use super::words;
use crate::Cloud;
use std::collections::BTreeMap;
use tde2hsm_dr::drill::Action;
use tde2hsm_dr::facts::BackupState;

/// How long clusters and HSMs may take to go, in seconds.
const PATIENCE: i64 = 60 * 60;

/// How long something may be there without being listed, in seconds. AWS names no bound.
const LATE: i64 = 5 * 60;

/// Seconds between two looks for it.
const PAUSE: i64 = 5;

pub struct Teardown<'a> {
    pub cloud: &'a dyn Cloud,
    pub room: &'a dyn DrillCloud,
    pub pace: &'a dyn Pace,
    pub watcher: &'a dyn Watcher,
}

/// What a look found, and why it could not be removed where it could not.
struct Sweep {
    left: Vec<Left>,
    /// It goes on by itself or was just asked to go: worth another look.
    moving: bool,
}

impl Teardown<'_> {
    /// Answers what could not be removed; it stands in the record too.
    pub async fn run(&self, kept: &mut Kept) -> Result<Vec<Left>, Stop> {
        let mut allowed = Vec::new();
        for action in &kept.record.plan.teardown {
            if self.watcher.allows(action).await == Consent::Yes {
                self.watcher.says(&words::describe(action));
                allowed.push(action.clone());
            }
        }
        kept.record.teardown_begun = Some(self.pace.now());
        kept.save(self.cloud, self.pace).await?;
        // What was begun and never ended may come into sight late, and so may what was made a moment ago.
        let now = self.pace.now();
        let uncertain = kept.record.steps.iter().any(|step| {
            step.done.is_none_or(|done| now.since(done) < LATE)
                && kept.record.plan.actions.get(step.action).is_some_and(words::makes)
        });
        let wanted = if uncertain { LOOKS } else { 1 };
        let mut waits = Waits::new(self.pace, PATIENCE);
        let mut nothing = 0;
        let left = loop {
            let sweep = self.sweep(kept, &allowed).await?;
            let costs = sweep.left.iter().any(|left| left.what != BACKUP);
            nothing = if costs || sweep.moving { 0 } else { nothing + 1 };
            if nothing >= wanted || (costs && !sweep.moving) || self.pace.stopping() {
                break sweep.left;
            }
            // What may still come into sight is looked for however long the rest took to go.
            if nothing > 0 {
                self.pace.pause(PAUSE).await;
            } else if !waits.next().await {
                break sweep.left;
            }
        };
        kept.record.left.clone_from(&left);
        // Backups cost nothing, and the role for drills may well not delete any: they do not keep a drill open.
        if left.iter().all(|left| left.what == BACKUP) && nothing >= wanted {
            kept.record.torn_down = Some(self.pace.now());
        }
        kept.save(self.cloud, self.pace).await?;
        match self.pace.stopping() && kept.record.torn_down.is_none() {
            true => Err(Stop::Interrupted),
            false => Ok(left),
        }
    }

    async fn sweep(&self, kept: &mut Kept, allowed: &[Action]) -> Result<Sweep, Stop> {
        let mut sweep = Sweep { left: Vec::new(), moving: false };
        let may = |action: Action| allowed.contains(&action);
        let id = kept.record.id.clone();
        let hour = |place: &str| format!("the hourly price of {place}");
        let kind = kept.record.plan.actions.iter().find_map(|action| match action {
            Action::RunInstance { place, .. } => Some(place.instance_type.clone()),
            _ => None,
        });
        let kind = kind.unwrap_or_else(|| "its type".to_owned());

        match self.room.instances(&id).await {
            Err(error) => sweep.unknown("instances", &hour(&kind), &error),
            Ok(found) => {
                for instance in found {
                    let ended = match (instance.state.as_str(), may(Action::TerminateInstance)) {
                        ("shutting-down", _) => Ok(()),
                        (_, true) => self.room.terminate_instance(&instance.id).await.map_err(|e| e.to_string()),
                        (_, false) => Err(DECLINED.to_owned()),
                    };
                    sweep.still("instance", instance.id.as_str(), hour(&kind), ended);
                }
            }
        }
        match self.room.images(&id).await {
            Err(error) => sweep.unknown("images", "nothing by itself", &error),
            Ok(found) => {
                for image in found {
                    let gone = match may(Action::DeregisterImage) {
                        true => self.room.deregister_image(&image.id).await.map_err(|e| e.to_string()),
                        false => Err(DECLINED.to_owned()),
                    };
                    sweep.still("image", &image.id, "nothing by itself".to_owned(), gone);
                }
            }
        }
        match self.room.volumes(&id).await {
            Err(error) => sweep.unknown("volumes", "the monthly price of each GiB", &error),
            Ok(found) => {
                for volume in found {
                    let gone = match (volume.state.as_str(), may(Action::TerminateInstance)) {
                        ("available" | "error", true) => self.room.delete_volume(&volume.id).await.map_err(|e| e.to_string()),
                        (_, true) => Ok(()),
                        (_, false) => Err(DECLINED.to_owned()),
                    };
                    sweep.still("volume", &volume.id, format!("the monthly price of {} GiB", volume.size_gib), gone);
                }
            }
        }
        self.clusters(kept, allowed, &mut sweep).await?;
        Ok(sweep)
    }

    async fn clusters(&self, kept: &mut Kept, allowed: &[Action], sweep: &mut Sweep) -> Result<(), Stop> {
        const HSM: &str = "the hourly price of an HSM";
        let may = |action: Action| allowed.contains(&action);
        let host_is_there = sweep.left.iter().any(|left| left.what == "instance" || left.what == "instances");
        let found = match self.room.clusters(&kept.record.id).await {
            Ok(found) => found,
            Err(error) => {
                sweep.unknown("clusters", HSM, &error);
                return Ok(());
            }
        };
        let found: Vec<_> = found.into_iter().filter(|cluster| cluster.id != kept.record.production).collect();
        // Written down before it is deleted: afterwards only the record knows whose backups are to go.
        let known = kept.record.made.clusters.len();
        for cluster in &found {
            if !kept.record.made.clusters.contains(&cluster.id) {
                kept.record.made.clusters.push(cluster.id.clone());
            }
        }
        if kept.record.made.clusters.len() > known {
            kept.save(self.cloud, self.pace).await?;
        }
        for cluster in &found {
            for hsm in &cluster.hsms {
                let gone = match (hsm.deleting, may(Action::DeleteHsms)) {
                    (true, _) => Ok(()),
                    (false, true) => self.room.delete_hsm(&cluster.id, &hsm.id).await.map_err(|e| e.to_string()),
                    (false, false) => Err(DECLINED.to_owned()),
                };
                sweep.still("HSM", &hsm.id, HSM.to_owned(), gone);
            }
            let gone = match (cluster.state, may(Action::DeleteCluster)) {
                (ClusterState::Deleting, _) => Ok(()),
                (_, false) => Err(DECLINED.to_owned()),
                // The host is in the cluster's group, which cannot go before it.
                (_, true) if host_is_there || !cluster.hsms.is_empty() => Ok(()),
                (_, true) => self.room.delete_cluster(&cluster.id).await.map_err(|e| e.to_string()),
            };
            sweep.still("cluster", cluster.id.as_str(), "nothing without an HSM; one of the region's four".to_owned(), gone);
        }
        if found.is_empty() {
            self.backups(kept, may(Action::DeleteClusterBackups), sweep).await;
        }
        Ok(())
    }

    /// Backups that AWS made of the drill's own cluster. A copy that a point needs names the production cluster, so that it
    /// is never among them.
    async fn backups(&self, kept: &Kept, may: bool, sweep: &mut Sweep) {
        const FREE: &str = "nothing that AWS names";
        let region = &kept.record.plan.region;
        let restored = kept.record.plan.actions.iter().find_map(|action| match action {
            Action::CreateCluster { backup, .. } => Some(backup.clone()),
            _ => None,
        });
        for cluster in kept.record.made.clusters.iter().filter(|cluster| **cluster != kept.record.production) {
            let found = match self.cloud.hsm_backups(region, cluster).await {
                Ok(found) => found,
                Err(error) => {
                    sweep.unknown(BACKUP, FREE, &error);
                    continue;
                }
            };
            let of_it = found.into_iter().filter(|backup| {
                backup.cluster.as_ref() == Some(cluster)
                    && backup.source_backup.is_none()
                    && Some(&backup.id) != restored.as_ref()
            });
            for backup in of_it {
                let gone = match backup.state {
                    BackupState::Deleted | BackupState::PendingDeletion => continue,
                    BackupState::CreateInProgress => Ok(()),
                    BackupState::Ready | BackupState::Unknown if may => {
                        self.cloud.delete_hsm_backup(region, &backup.id).await.map_err(|e| e.to_string())
                    }
                    BackupState::Ready | BackupState::Unknown => Err(DECLINED.to_owned()),
                };
                let moving = sweep.moving || gone.is_ok();
                sweep.still(BACKUP, backup.id.as_str(), FREE.to_owned(), gone);
                sweep.moving = moving;
            }
        }
    }
}

/// What AWS itself makes of a cluster whose last HSM goes (`A§4.5`).
const BACKUP: &str = "HSM backup";
const DECLINED: &str = "nobody allowed it";

impl Sweep {
    /// It was there at this look. Whatever was asked to go is looked for again.
    fn still(&mut self, what: &str, id: &str, cost: String, asked: Result<(), String>) {
        let why = match asked {
            Ok(()) => "it is still going".to_owned(),
            Err(why) => why,
        };
        self.moving |= why != DECLINED;
        self.left.push(Left { what: what.to_owned(), id: id.to_owned(), cost, why });
    }

    fn unknown(&mut self, what: &str, cost: &str, error: &crate::CallError) {
        self.moving = true;
        self.left.push(Left { what: what.to_owned(), id: "unknown".to_owned(), cost: cost.to_owned(), why: error.to_string() });
    }
}

/// What is left, by kind, for one line.
pub fn summary(left: &[Left]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in left {
        kinds.entry(&one.what).or_default().push(&one.id);
    }
    let words: Vec<String> = kinds.iter().map(|(what, ids)| format!("{what} {}", ids.join(" "))).collect();
    words.join(", ")
}
