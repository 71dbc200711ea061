//! H8: a key made in a wave lives in the live HSMs alone until a backup holds it, so no wave begins before the keys of the
//! wave before it are in one, and no campaign is done before its last keys are.
//!
//! A backup counts when it is READY and was begun more than five minutes after a report said that its keys are there,
//! both on AWS's clock; where a second region is named, a READY copy of that very backup has to lie there too.
//!
//! An HSM that is added for a backup is paid for and holds every key. So its adding is intended before it is asked for
//! and asked for once; it is removed by the id that our own CreateHsm answered and by no other; and it stays while fewer
//! HSMs are ACTIVE than were before. An answer that was lost gives no id: the list of HSMs can show that none was added,
//! but never that a new one is ours.

use super::decide::Need;
use super::*;
use crate::facts::{Backup, BackupCopy};
use crate::fleet::ProtectMode;
use crate::plan::Protect;
use std::ops::ControlFlow;
use tde2hsm_protocol::BackupId;

/// A backup that is begun this soon after the report may have been begun before the key, as clocks and AWS's own steps go.
const MARGIN: i64 = 300;
/// Where AWS's clock was not seen: it refuses what is signed on a clock that differs by more.
const SKEW: i64 = 300;
/// Clocks are compared to the second, over a network.
const SLACK: i64 = 5;
/// The longest pause between two looks, in seconds.
const SELDOM: i64 = 300;
/// The oldest view of the cluster on which an HSM is added or removed, in seconds (H23).
const CLUSTER_VIEW: i64 = 60;
/// CreateHsm is asked for this often where AWS refuses it, in one zone after the other.
const TRIES: u8 = 3;
/// How long the cluster is looked at for an HSM whose CreateHsm gave no answer, at least.
const LOOK: i64 = 300;
/// How much longer than a wave may wait an HSM of ours is given to go.
const REMOVAL: i64 = 3_600;

/// What is about to be added, and the cluster as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmIntent {
    pub wave: u16,
    pub zone: String,
    /// Every HSM of the cluster, in whatever state.
    pub before: BTreeSet<String>,
    /// How many of them were ACTIVE.
    pub active: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Guard {
    mark: Option<Mark>,
    /// Since when the gate waits, or someone last looked.
    since: Timestamp,
    /// The last look at the backups, whether or not it succeeded, and the last that did.
    looked: Option<Timestamp>,
    seen: Option<Timestamp>,
    /// Seconds that AWS's clock is ahead of the controller's.
    ahead: Option<i64>,
    backups: Vec<Backup>,
    copies: Vec<BackupCopy>,
    /// Since when a backup that would do is seen on its way.
    #[serde(default)]
    moving: Option<Timestamp>,
    trouble: Option<String>,
    copied: Option<Timestamp>,
    copy_trouble: Option<String>,
    covered: Option<Covered>,
    /// What each wave's keys were found in.
    waves: BTreeMap<u16, Covered>,
    forced: Option<Forced>,
    stuck: Option<Failure>,
}

/// The newest moment at which a key may have been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    wave: u16,
    /// Receipt of the report, on the controller's clock and on AWS's.
    at: Timestamp,
    aws_at: Option<Timestamp>,
}

impl Mark {
    /// A backup has to be begun after this, on AWS's clock.
    fn needed(&self) -> Timestamp {
        self.aws_at.unwrap_or(self.at.plus(SKEW)).plus(MARGIN)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Covered {
    backup: BackupId,
    created: Timestamp,
    copy: Option<BackupId>,
    seen: Timestamp,
}

/// The HSM that is added for a wave's backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Forced {
    intent: HsmIntent,
    at: Timestamp,
    tries: u8,
    not_before: Timestamp,
    step: Forcing,
    why: String,
    /// The HSMs before a CreateHsm of this wave that gave no answer and showed no effect, should that come late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Forcing {
    /// Intended, or the answer was lost.
    Uncertain,
    /// CreateHsm answered with this id.
    Added {
        hsm: HsmId,
        at: Timestamp,
    },
    Removing {
        hsm: HsmId,
        asked: Timestamp,
    },
    NotAdded,
    Removed,
    /// A person has looked at what could not be known.
    Left,
}

impl Forced {
    fn open(&self) -> bool {
        matches!(self.step, Forcing::Uncertain | Forcing::Added { .. } | Forcing::Removing { .. })
    }

    fn hsm(&self) -> Option<&HsmId> {
        match &self.step {
            Forcing::Added { hsm, .. } | Forcing::Removing { hsm, .. } => Some(hsm),
            _ => None,
        }
    }
}

/// What the gate wants done now.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub decisions: Vec<Decision>,
    pub observe_cluster: bool,
    /// Nothing more before this.
    pub until: Option<Timestamp>,
}

impl Wanted {
    fn later(&mut self, at: Timestamp) {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
    }
}

impl State {
    fn gated(&self) -> Option<&Protect> {
        self.plan.protect.as_ref().filter(|protect| protect.mode != ProtectMode::Off)
    }

    fn uncovered(&self) -> Option<&Mark> {
        let guard = &self.core.guard;
        let mark = guard.mark.as_ref()?;
        let covered = guard.covered.as_ref().is_some_and(|covered| covered.created > mark.needed());
        (!covered).then_some(mark)
    }

    /// Keys were made that are in no backup yet, or an HSM of ours is still there: no wave begins, nothing is done.
    pub(super) fn unprotected(&self) -> bool {
        self.forcing() || self.gated().is_some() && self.uncovered().is_some()
    }

    /// An HSM that was added, or may have been, is not known to be gone: no end before it is, or a person has to look.
    pub(super) fn forcing(&self) -> bool {
        self.gated().is_some() && self.core.guard.forced.as_ref().is_some_and(Forced::open)
    }

    fn wave_now(&self) -> u16 {
        u16::try_from(self.core.waves.len()).unwrap_or(u16::MAX).max(1)
    }

    fn limit(&self, protect: &Protect) -> Timestamp {
        let spare = if self.forcing() { REMOVAL } else { 0 };
        self.core.guard.since.plus(i64::from(protect.wait_seconds)).plus(spare)
    }

    /// Looks become rarer the longer nothing moves: a day costs hundreds of calls, not thousands.
    fn pause_after(&self, at: Timestamp) -> i64 {
        let guard = &self.core.guard;
        // With an HSM of ours a backup is begun, so from then on something moves.
        let ours = guard.forced.as_ref().filter(|f| !matches!(f.step, Forcing::Uncertain | Forcing::NotAdded)).map(|f| f.at);
        let since = guard.moving.unwrap_or(guard.since.max(ours.unwrap_or(guard.since)));
        (at.since(since) / 20).clamp(self.poll().min(SELDOM), SELDOM)
    }

    /// Backups that would hold the keys, oldest first.
    fn fit<'a>(&'a self, mark: &Mark) -> impl Iterator<Item = &'a Backup> {
        let needed = mark.needed();
        let live = |b: &&Backup| matches!(b.state.as_str(), "READY" | "CREATE_IN_PROGRESS");
        self.core.guard.backups.iter().filter(live).filter(move |b| b.created > needed)
    }

    fn copy_of<'a>(&'a self, backup: &Backup) -> Option<&'a BackupCopy> {
        let copies = || self.core.guard.copies.iter().filter(|c| c.source == backup.id);
        copies().find(|c| c.state == "READY").or_else(|| copies().find(|c| c.state == "CREATE_IN_PROGRESS"))
    }

    /// What to do for the gate when the wave has ended (`idle`). `still`: surely no host is at work, so that a change of the
    /// cluster meets no statement and no login.
    pub(super) fn guard(&self, now: Timestamp, idle: bool, still: bool) -> Wanted {
        let mut wanted = Wanted::default();
        let Some(protect) = self.gated() else { return wanted };
        let guard = &self.core.guard;
        if guard.stuck.is_some() || now >= self.limit(protect) {
            return wanted;
        }
        if let Some(mark) = self.uncovered().filter(|_| idle) {
            let due = guard.looked.map_or(now, |looked| looked.plus(self.pause_after(looked)));
            if due <= now {
                let second = protect.second.as_ref().map(|second| second.region.clone());
                wanted.decisions.push(Decision::ObserveProtection { second, after: mark.needed() });
            }
            wanted.later(due.max(now.plus(1)));
            let fit: Vec<&Backup> = self.fit(mark).collect();
            let ready = fit.iter().find(|b| b.state == "READY");
            if protect.second.is_some() && ready.is_some() && fit.iter().all(|b| self.copy_of(b).is_none()) {
                let due = guard.copied.map_or(now, |copied| copied.plus(self.pause_after(copied).max(10)));
                if due <= now {
                    wanted.decisions.push(Decision::CopyBackups);
                }
                wanted.later(due.max(now.plus(1)));
            }
            if still && protect.mode == ProtectMode::Force && fit.is_empty() && guard.seen.is_some_and(|seen| seen >= mark.at) {
                self.add(mark, now, &mut wanted);
            }
        }
        if self.forcing() {
            self.take_away(now, still, &mut wanted);
        }
        wanted
    }

    /// Adds an HSM, once a wave. Only when the backup that adding makes is late enough for the keys.
    fn add(&self, mark: &Mark, now: Timestamp, wanted: &mut Wanted) {
        let guard = &self.core.guard;
        let wave = self.wave_now();
        let before = guard.forced.as_ref().filter(|forced| forced.intent.wave == wave);
        let tries = before.map_or(0, |forced| forced.tries);
        let again = before.is_none_or(|forced| forced.step == Forcing::NotAdded && forced.tries < TRIES);
        if !again || self.forcing() {
            return;
        }
        // Where AWS's clock was not seen it may be behind by as much as it may be ahead.
        let ahead = guard.ahead.or(mark.aws_at.map(|aws| aws.since(mark.at))).unwrap_or(-SKEW);
        let earliest = mark.needed().plus(SLACK - ahead).max(before.map_or(now, |forced| forced.not_before));
        if now < earliest {
            return wanted.later(earliest);
        }
        match self.cluster_need(now, CLUSTER_VIEW) {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(Need::Later { until, .. }) => return wanted.later(until),
            ControlFlow::Break(_) => {
                wanted.observe_cluster = true;
                return;
            }
        }
        let Some(cluster) = self.core.cluster.as_ref().and_then(|view| view.seen.as_ref().ok()) else { return };
        let zones: BTreeSet<&str> = cluster.active_hsms().filter_map(|(hsm, _)| hsm.az.as_deref()).collect();
        let zones: Vec<&str> = zones.into_iter().collect();
        let Some(zone) = zones.get(usize::from(tries) % zones.len().max(1)) else { return };
        wanted.decisions.push(Decision::AddHsm(HsmIntent {
            wave,
            zone: (*zone).to_owned(),
            before: cluster.hsms.iter().map(|hsm| hsm.id.clone()).collect(),
            active: active(cluster, None),
        }));
    }

    /// Removes the HSM that was added, and looks until it is gone.
    fn take_away(&self, now: Timestamp, still: bool, wanted: &mut Wanted) {
        let Some(forced) = self.core.guard.forced.as_ref().filter(|forced| forced.open()) else { return };
        let view = self.core.cluster.as_ref();
        if let Forcing::Added { hsm, at } = &forced.step {
            let fresh = view.filter(|view| view.at >= *at && (0..=CLUSTER_VIEW).contains(&now.since(view.at)));
            let ready = fresh.and_then(|view| view.seen.as_ref().ok()).is_some_and(|cluster| removable(cluster, hsm, forced));
            if ready && still && now >= forced.not_before {
                wanted.decisions.push(Decision::RemoveHsm { hsm: hsm.clone() });
                return;
            }
        }
        let since = match &forced.step {
            Forcing::Added { at, .. } => *at,
            Forcing::Removing { asked, .. } => *asked,
            _ => forced.at,
        };
        let due = view.map_or(now, |view| if view.at < since { now } else { view.at.plus(self.poll().min(SELDOM)) });
        wanted.observe_cluster |= due <= now;
        wanted.later(due.max(now.plus(1)));
    }

    /// A report, or the end of a host that gave none, after which its cutover may have made keys.
    pub(super) fn keys_made(&mut self, place: usize, at: Timestamp, aws_at: Option<Timestamp>) {
        if self.gated().is_none() {
            return;
        }
        let wave = self.core.hosts[place].wave.unwrap_or_else(|| self.wave_now());
        let mark = Mark { wave, at, aws_at };
        let guard = &mut self.core.guard;
        guard.waves.remove(&wave);
        if guard.mark.as_ref().is_none_or(|before| before.needed() <= mark.needed()) {
            guard.since = at;
            guard.looked = None;
            guard.moving = None;
            guard.mark = Some(mark);
        }
    }

    /// A campaign taken over: whatever keys there are were made before now.
    pub(super) fn guard_adopted(&mut self, at: Timestamp) {
        self.core.guard = Guard::default();
        let touched = self.core.hosts.iter().position(|host| host.cutover != Phase::Untouched);
        if let Some(place) = touched {
            self.keys_made(place, at, None);
        }
    }

    pub(super) fn guard_apply(&mut self, kind: &EventKind, at: Timestamp) {
        let find = i64::from(self.plan.policy.find_seconds);
        let poll = self.poll();
        match kind {
            EventKind::ProtectionObserved { aws_at, backups, copies } => self.observed(*aws_at, backups, copies, at),
            EventKind::ProtectionUnknown { why } => {
                self.core.guard.looked = Some(at);
                self.core.guard.trouble = Some(apply::clean(why));
            }
            EventKind::BackupsCopied { failed } => {
                self.core.guard.copied = Some(at);
                self.core.guard.copy_trouble = failed.as_deref().map(apply::clean);
            }
            EventKind::HsmIntended(intent) => {
                let before = self.core.guard.forced.take();
                let same = before.as_ref().filter(|f| f.intent.wave == intent.wave);
                let (tries, lost) = same.map_or((0, None), |f| (f.tries, f.lost.clone()));
                self.core.guard.forced = match before {
                    // One at a time: the first would no longer be known.
                    Some(open) if open.open() => Some(open),
                    _ => Some(Forced {
                        intent: intent.clone(),
                        at,
                        tries: tries.saturating_add(1),
                        not_before: at,
                        step: Forcing::Uncertain,
                        why: String::new(),
                        lost,
                    }),
                };
            }
            EventKind::HsmAdded { hsm } => {
                if let Some(forced) = self.uncertain().filter(|forced| !forced.intent.before.contains(hsm.as_str())) {
                    forced.step = Forcing::Added { hsm: hsm.clone(), at };
                }
            }
            EventKind::HsmNotAdded { why } => {
                if let Some(forced) = self.uncertain() {
                    forced.step = Forcing::NotAdded;
                    forced.not_before = at.plus(4 * poll);
                    forced.why = apply::clean(why);
                }
            }
            EventKind::HsmAmbiguous { why } => {
                if let Some(forced) = self.uncertain() {
                    forced.why = apply::clean(why);
                }
            }
            EventKind::HsmRemovalIntended { hsm } => {
                if let Some(forced) = self.core.guard.forced.as_mut()
                    && matches!(&forced.step, Forcing::Added { hsm: ours, .. } if ours == hsm)
                {
                    forced.step = Forcing::Removing { hsm: hsm.clone(), asked: at };
                }
            }
            EventKind::HsmNotRemoved { hsm, why } => {
                if let Some(forced) = self.core.guard.forced.as_mut()
                    && matches!(&forced.step, Forcing::Removing { hsm: ours, .. } if ours == hsm)
                {
                    forced.step = Forcing::Added { hsm: hsm.clone(), at };
                    forced.not_before = at.plus(4 * poll);
                    forced.why = apply::clean(why);
                }
            }
            EventKind::ClusterObserved { cluster } if cluster.cluster == self.plan.target.cluster => {
                self.looked_at(cluster, find, at)
            }
            EventKind::Resumed { .. } => {
                let guard = &mut self.core.guard;
                guard.since = at;
                guard.looked = None;
                guard.copied = None;
                let looked = guard.stuck.take().is_some();
                if let Some(forced) = &mut guard.forced {
                    match forced.step {
                        // Whoever resumes has read what was said of it.
                        Forcing::Uncertain if looked => forced.step = Forcing::Left,
                        Forcing::NotAdded => forced.tries = 0,
                        _ => {}
                    }
                    if looked {
                        forced.lost = None;
                    }
                }
            }
            _ => {}
        }
    }

    fn uncertain(&mut self) -> Option<&mut Forced> {
        self.core.guard.forced.as_mut().filter(|forced| forced.step == Forcing::Uncertain)
    }

    fn observed(&mut self, aws_at: Option<Timestamp>, backups: &[Backup], copies: &[BackupCopy], at: Timestamp) {
        let second = self.gated().is_some_and(|protect| protect.second.is_some());
        let guard = &mut self.core.guard;
        guard.looked = Some(at);
        guard.seen = Some(at);
        guard.trouble = None;
        guard.ahead = aws_at.map(|aws| aws.since(at)).or(guard.ahead);
        guard.backups = backups.to_vec();
        guard.copies = copies.to_vec();
        let Some(mark) = self.uncovered() else { return };
        let moving = self.fit(mark).next().map(|_| self.core.guard.moving.unwrap_or(at));
        let covered = self.fit(mark).filter(|b| b.state == "READY").find_map(|backup| {
            let copy = match second {
                true => Some(self.copy_of(backup).filter(|copy| copy.state == "READY")?.id.clone()),
                false => None,
            };
            Some(Covered { backup: backup.id.clone(), created: backup.created, copy, seen: at })
        });
        self.core.guard.moving = moving;
        let Some(covered) = covered else { return };
        let flying: BTreeSet<u16> = self.core.hosts.iter().filter(|h| h.in_flight()).filter_map(|h| h.wave).collect();
        for wave in (1..=self.wave_now()).filter(|wave| !flying.contains(wave)) {
            self.core.guard.waves.entry(wave).or_insert_with(|| covered.clone());
        }
        self.core.guard.covered = Some(covered);
    }

    /// What the list of HSMs says of the one that was added, or may have been.
    fn looked_at(&mut self, cluster: &Cluster, find: i64, at: Timestamp) {
        let wave = self.wave_now();
        let Some(forced) = self.core.guard.forced.as_mut().filter(|f| f.open() || f.intent.wave == wave) else { return };
        let new = |before: &BTreeSet<String>, ours: Option<&HsmId>| -> Vec<&str> {
            let ids = cluster.hsms.iter().map(|h| h.id.as_str());
            ids.filter(|id| !before.contains(*id) && ours.is_none_or(|ours| ours.as_str() != *id)).collect()
        };
        let before = if forced.step == Forcing::Uncertain { Some(&forced.intent.before) } else { None };
        let strange = forced.lost.as_ref().or(before).map(|before| new(before, forced.hsm())).unwrap_or_default();
        if !strange.is_empty() {
            let message = format!(
                "CreateHsm in {} gave no answer, and the cluster has {} that was not there before: whose it is cannot be told",
                forced.intent.zone,
                strange.join(", ")
            );
            self.core.guard.stuck = Some(Failure { code: Code::FORCED_HSM_UNCERTAIN, message, step: None, at });
            return;
        }
        match &forced.step {
            Forcing::Uncertain if at.since(forced.at) >= find.max(LOOK) => {
                forced.step = Forcing::NotAdded;
                forced.why = "CreateHsm gave no answer, and the cluster shows no new HSM".to_owned();
                forced.lost.get_or_insert_with(|| forced.intent.before.clone());
            }
            // Lists may lag behind an answer.
            Forcing::Added { hsm, at: added }
                if state_of(cluster, hsm).is_none_or(|s| s == "DELETED") && at.since(*added) >= find =>
            {
                forced.step = Forcing::Removed;
                forced.why = "it is no longer there, though nobody here removed it".to_owned();
            }
            Forcing::Removing { hsm, asked } => match state_of(cluster, hsm) {
                None | Some("DELETED") => forced.step = Forcing::Removed,
                Some("DELETE_IN_PROGRESS") => {}
                // DeleteHsm names the HSM, so that asking again harms nothing.
                Some(_) if at.since(*asked) >= find => forced.step = Forcing::Added { hsm: hsm.clone(), at },
                Some(_) => {}
            },
            _ => {}
        }
    }

    pub(super) fn protection(&self, now: Timestamp) -> Option<Protection> {
        let protect = self.plan.protect.as_ref()?;
        let guard = &self.core.guard;
        let waves = guard.waves.iter().map(|(wave, covered)| WaveProtection {
            wave: *wave,
            backup: covered.backup.clone(),
            created: covered.created,
            copy: covered.copy.clone(),
            seen: covered.seen,
        });
        let standing = match () {
            () if protect.mode == ProtectMode::Off => Protected::Off,
            () if guard.mark.is_none() => Protected::NoKeys,
            () if !self.unprotected() => Protected::Protected,
            () if guard.stuck.is_some() => Protected::Stuck,
            () => Protected::Waits,
        };
        Some(Protection {
            mode: protect.mode,
            standing,
            second: protect.second.as_ref().map(|second| second.region.clone()),
            waves: waves.collect(),
            hsm: guard.forced.as_ref().and_then(Forced::hsm).cloned(),
            why: self.protection_why(now),
        })
    }

    /// What the gate waits for, since when, and what unblocks it.
    pub(super) fn protection_why(&self, now: Timestamp) -> Option<Why> {
        let protect = self.gated().filter(|_| self.unprotected())?;
        let guard = &self.core.guard;
        let why = |waits_for: String, unblocked_by: &str, code| {
            Some(Why { waits_for, since: guard.since, unblocked_by: unblocked_by.to_owned(), code })
        };
        if let Some(stuck) = &guard.stuck {
            let by = "`tde2hsm explain CODE`, then `tde2hsm resume`";
            return why(format!("a person: {}", stuck.message), by, Some(stuck.code));
        }
        let late = now >= self.limit(protect);
        if let Some(forced) = guard.forced.as_ref().filter(|forced| forced.open()) {
            let zone = &forced.intent.zone;
            let left = late.then_some(Code::FORCED_HSM_LEFT);
            return match &forced.step {
                Forcing::Added { hsm, .. } => {
                    let view = self.core.cluster.as_ref().and_then(|view| view.seen.as_ref().ok());
                    let fewer = view.is_some_and(|cluster| active(cluster, Some(hsm)) < forced.intent.active);
                    match (fewer, forced.why.as_str()) {
                        (true, _) => why(
                            format!("another HSM to be ACTIVE again; {hsm}, added for a backup, stays until then"),
                            "the cluster",
                            Some(left.unwrap_or(Code::FORCED_HSM_LEFT)),
                        ),
                        (_, "") => {
                            why(format!("{hsm} in {zone}, added for a backup, to be ACTIVE and removed"), "the cluster", left)
                        }
                        (_, refused) => why(format!("{hsm}, added for a backup, to be removed: {refused}"), "time", left),
                    }
                }
                Forcing::Removing { hsm, .. } => {
                    why(format!("{hsm}, added for a backup, to be gone from the cluster"), "the cluster", left)
                }
                _ => why(format!("word whether an HSM was added in {zone}"), "the cluster's list of HSMs", None),
            };
        }
        let mark = self.uncovered()?;
        let keys = format!("the keys of wave {}", mark.wave);
        let code = |soft: Option<Code>| if late { Some(Code::NOT_PROTECTED) } else { soft };
        if let Some(trouble) = &guard.trouble {
            let by = "AWS; it is asked again soon";
            return why(format!("the list of HSM backups: {trouble}"), by, code(Some(Code::PROTECTION_UNSEEN)));
        }
        let fit: Vec<&Backup> = self.fit(mark).collect();
        let ready = fit.iter().find(|b| b.state == "READY");
        let copied = fit.iter().find_map(|b| Some((b, self.copy_of(b)?)));
        match (protect.second.as_ref(), copied, ready, fit.first()) {
            (Some(second), Some((backup, copy)), ..) if backup.state == "READY" => {
                why(format!("copy {} of {} to be READY in {}: {keys}", copy.id, backup.id, second.region), "CloudHSM", code(None))
            }
            (Some(second), _, Some(backup), _) => {
                let trouble = guard.copy_trouble.as_ref().map_or_else(String::new, |trouble| format!(" ({trouble})"));
                let soft = guard.copy_trouble.as_ref().map(|_| Code::BACKUP_NOT_COPIED);
                let waits = format!("a copy of {} in {}: {keys}{trouble}", backup.id, second.region);
                why(waits, "the copy, which is asked for again soon", code(soft))
            }
            (.., Some(backup)) => why(format!("{} to be READY: {keys}", backup.id), "CloudHSM", code(None)),
            (.., None) => {
                let waits = format!("an HSM backup with {keys}, begun after {}", crate::render::instant(mark.needed()));
                let refused = guard.forced.as_ref().filter(|f| f.step == Forcing::NotAdded && f.intent.wave == self.wave_now());
                match (protect.mode, refused) {
                    (ProtectMode::Force, Some(forced)) if forced.tries < TRIES => why(
                        format!("{waits}; no HSM was added for one: {}", forced.why),
                        "CreateHsm, which is tried again soon",
                        code(None),
                    ),
                    (ProtectMode::Force, Some(forced)) => why(
                        format!("{waits}; no HSM was added for one: {}", forced.why),
                        "CloudHSM, which makes one at least every 24 hours",
                        code(Some(Code::FORCED_HSM_REFUSED)),
                    ),
                    (ProtectMode::Force, None) if guard.forced.as_ref().is_none_or(|f| f.intent.wave != self.wave_now()) => {
                        why(waits, "an HSM that is added and removed from then on", code(None))
                    }
                    _ => why(waits, "CloudHSM, which makes one at least every 24 hours", code(None)),
                }
            }
        }
    }
}

/// ACTIVE HSMs but for one.
fn active(cluster: &Cluster, but: Option<&HsmId>) -> u16 {
    let others = cluster.hsms.iter().filter(|h| h.state == "ACTIVE" && but.is_none_or(|but| but.as_str() != h.id));
    u16::try_from(others.count()).unwrap_or(u16::MAX)
}

fn state_of<'a>(cluster: &'a Cluster, hsm: &HsmId) -> Option<&'a str> {
    cluster.hsms.iter().find(|h| h.id == hsm.as_str()).map(|h| h.state.as_str())
}

/// It has come to life, and without it as many are ACTIVE as before it.
fn removable(cluster: &Cluster, hsm: &HsmId, forced: &Forced) -> bool {
    cluster.state == "ACTIVE"
        && matches!(state_of(cluster, hsm), Some("ACTIVE" | "DEGRADED"))
        && active(cluster, Some(hsm)) >= forced.intent.active
}

/// How the keys of a campaign are kept, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    pub mode: ProtectMode,
    pub standing: Protected,
    /// Where a copy is waited for, too.
    pub second: Option<tde2hsm_protocol::Region>,
    pub waves: Vec<WaveProtection>,
    /// The HSM that was added for a backup and is not known to be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsm: Option<HsmId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protected {
    /// Nobody looks.
    Off,
    /// No key was made yet.
    NoKeys,
    Waits,
    Stuck,
    Protected,
}

/// The backup that holds the keys of a wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaveProtection {
    pub wave: u16,
    pub backup: BackupId,
    pub created: Timestamp,
    pub copy: Option<BackupId>,
    pub seen: Timestamp,
}
