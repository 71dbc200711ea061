//! EBS snapshots of one region and their copies (A§3).
//!
//! What a snapshot holds is not kept here: [`Effect::SnapshotTaken`] freezes a volume for whoever keeps the content, and
//! [`Effect::SnapshotCopied`] says when a copy holds the same.

use super::query::{Filter, Query};
use super::{invalid_value, malformed, tag_set};
use crate::page::page;
use crate::world::Turn;
use crate::{AccountId, ApiError, Effect, InstanceId, Millis, Region};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Data volumes that one call may leave out.
const EXCLUDED_LIMIT: usize = 40;
/// Pending snapshots of one volume.
const PENDING_PER_VOLUME: usize = 5;
/// Pending snapshots of one region that CreateSnapshot made.
const PENDING_LIMIT: usize = 100;
/// MiB a second that time-based copies of one pair of regions may have together (A§3.2).
const THROUGHPUT: u64 = 2_000;
/// What a copy's volume is called.
const NO_VOLUME: &str = "vol-ffffffff";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    Pending,
    Completed,
    Error,
}

impl SnapshotState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Error => "error",
        }
    }
}

/// Where a copy came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub region: Region,
    pub snapshot: String,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub id: String,
    /// As it is shown.
    pub volume: String,
    /// The volume whose content it holds, through every copy: what decides whether a copy is incremental.
    pub lineage: String,
    pub size_gib: u32,
    pub state: SnapshotState,
    pub message: Option<String>,
    pub started: Millis,
    pub completed: Option<Millis>,
    pub encrypted: bool,
    pub kms_key: Option<String>,
    pub archived: bool,
    pub description: String,
    pub tags: Vec<(String, String)>,
    pub origin: Option<Origin>,
    pub completion_minutes: Option<u32>,
    incremental: bool,
    /// Until then DescribeSnapshots does not know it (A§3.4).
    visible: Millis,
    /// When its keys are looked at.
    check: Millis,
    due: Millis,
    /// Fails when it is due, for this reason.
    doomed: Option<&'static str>,
    /// The CreateSnapshots call that made it.
    set: Option<u64>,
    /// When an errored copy disappears by itself (A§3.2).
    vanishes: Option<Millis>,
}

/// What has come of a pending snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Waits,
    Done,
    Fails(&'static str),
}

#[derive(Debug)]
pub struct Snapshots {
    account: AccountId,
    region: Region,
    all: BTreeMap<String, Snapshot>,
    /// In the order in which they were begun.
    pending: Vec<String>,
    vanishing: Vec<String>,
    sets: u64,
    last_of_volume: BTreeMap<String, Millis>,
}

/// A volume as CreateSnapshot sees it.
pub(super) struct SourceVolume {
    pub(super) id: String,
    pub(super) size_gib: u32,
    pub(super) encrypted: bool,
    pub(super) kms_key: Option<String>,
    pub(super) instance: Option<InstanceId>,
    pub(super) tags: Vec<(String, String)>,
}

/// MiB a second that a copy done in so many minutes takes.
fn rate(size_gib: u32, minutes: u32) -> u64 {
    u64::from(size_gib) * 1024 / (u64::from(minutes) * 60)
}

impl Snapshot {
    /// Its time is up, one way or the other.
    pub(crate) fn is_due(&self, now: Millis) -> bool {
        self.due <= now
    }

    /// When it leaves `pending`, if nothing happens to it before. AWS tells nobody.
    pub fn due(&self) -> Millis {
        self.due
    }
}

impl Snapshots {
    pub(super) fn new(account: &AccountId, region: &Region) -> Self {
        Self {
            account: account.clone(),
            region: region.clone(),
            all: BTreeMap::new(),
            pending: Vec::new(),
            vanishing: Vec::new(),
            sets: 0,
            last_of_volume: BTreeMap::new(),
        }
    }

    pub fn get(&self, id: &str) -> Option<&Snapshot> {
        self.all.get(id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Snapshot> {
        self.all.values()
    }

    /// Those that DescribeSnapshots knows by now, without the detour of a request.
    pub fn visible(&self, now: Millis) -> impl Iterator<Item = &Snapshot> {
        self.all.values().filter(move |s| s.visible <= now)
    }

    pub(super) fn tags_mut(&mut self, id: &str) -> Option<&mut Vec<(String, String)>> {
        self.all.get_mut(id).map(|snapshot| &mut snapshot.tags)
    }

    /// Copies in flight into this region.
    pub fn copies_in_flight(&self) -> usize {
        self.pending.iter().filter(|id| self.all.get(*id).is_some_and(|s| s.origin.is_some())).count()
    }

    pub(super) fn create(
        &mut self,
        volumes: &[SourceVolume],
        query: Query<'_>,
        as_set: bool,
        turn: &mut Turn<'_>,
    ) -> Result<Vec<Value>, ApiError> {
        let tags = query.tags_for("snapshot")?;
        // The whole call is refused before anything is made.
        for volume in volumes {
            let pending = self.pending.iter().filter(|id| self.all.get(*id).is_some_and(|s| s.volume == volume.id)).count();
            if pending >= PENDING_PER_VOLUME {
                return Err(ApiError::new(
                    "ConcurrentSnapshotLimitExceeded",
                    "Maximum allowed in-progress snapshots for a single volume exceeded.",
                ));
            }
            let last = self.last_of_volume.get(&volume.id);
            if last.is_some_and(|at| turn.now.since(*at) < turn.options.snapshot_spacing_ms) {
                return Err(ApiError::new(
                    "SnapshotCreationPerVolumeRateExceeded",
                    "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable sleep interval between requests.",
                ));
            }
        }
        if self.pending.len() - self.copies_in_flight() + volumes.len() > PENDING_LIMIT {
            return Err(ApiError::new(
                "PendingSnapshotLimitExceeded",
                "The maximum number of pending snapshots has been reached.",
            ));
        }
        let set = as_set.then(|| {
            self.sets += 1;
            self.sets
        });
        let doomed = turn.faults.fail_next_snapshots().then_some("An internal error has occurred");
        let mut rows = Vec::new();
        for volume in volumes {
            let mut own = tags.clone();
            if query.text("CopyTagsFromSource") == Some("volume") {
                own.extend(volume.tags.iter().filter(|(key, _)| !tags.iter().any(|(have, _)| have == key)).cloned());
            }
            let snapshot = Snapshot {
                id: format!("snap-{}", turn.ids.hex(17)),
                volume: volume.id.clone(),
                lineage: volume.id.clone(),
                size_gib: volume.size_gib,
                state: SnapshotState::Pending,
                message: None,
                started: turn.now,
                completed: None,
                encrypted: volume.encrypted,
                kms_key: volume.kms_key.clone(),
                archived: false,
                description: query.text("Description").unwrap_or_default().to_owned(),
                tags: own,
                origin: None,
                completion_minutes: None,
                incremental: false,
                visible: turn.now.plus_ms(turn.ids.between(0, turn.options.snapshot_lag_ms)),
                check: turn.now,
                due: turn.now.plus_ms(turn.options.snapshot_ms),
                doomed,
                set,
                vanishes: None,
            };
            turn.effects.push(Effect::SnapshotTaken {
                region: self.region.clone(),
                snapshot: snapshot.id.clone(),
                instance: volume.instance.clone(),
                volume: volume.id.clone(),
            });
            let mut row = self.describe_one(&snapshot);
            // SnapshotInfo says `state` where DescribeSnapshots says `status`; CreateSnapshot answers with a Snapshot.
            if as_set && let Some(row) = row.as_object_mut() {
                let state = row.remove("status").unwrap_or_default();
                row.insert("state".to_owned(), state);
                for member in ["kmsKeyId", "storageTier", "transferType", "fullSnapshotSizeInBytes"] {
                    row.remove(member);
                }
            }
            rows.push(row);
            self.last_of_volume.insert(volume.id.clone(), turn.now);
            self.pending.push(snapshot.id.clone());
            self.all.insert(snapshot.id.clone(), snapshot);
        }
        Ok(rows)
    }

    /// CopySnapshot in its destination. `source`: the snapshot where there is one in the region that was named.
    pub(crate) fn copy(
        &mut self,
        from: &Region,
        source: Option<&Snapshot>,
        body: &Value,
        resolved_key: Option<String>,
        turn: &mut Turn<'_>,
    ) -> Result<Value, ApiError> {
        let query = Query::new(body);
        query.dry_run()?;
        let wanted = query.required("SourceSnapshotId")?;
        malformed(wanted, "snap-", "InvalidSnapshotID.Malformed")?;
        let tags = query.tags_for("snapshot")?;
        let key = query.text("KmsKeyId");
        let encrypt = query.flag("Encrypted");
        if key.is_some() && !encrypt {
            return Err(ApiError::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        if query.text("Encrypted") == Some("false") {
            return Err(invalid_value("Value (false) for parameter Encrypted is invalid."));
        }
        if let Some(source) = source {
            if source.state != SnapshotState::Completed {
                return Err(ApiError::new("IncorrectState", format!("The snapshot '{wanted}' is not in the 'completed' state")));
            }
            if source.archived {
                return Err(ApiError::new("IncorrectState", format!("The snapshot '{wanted}' is archived")));
            }
        }
        let size = source.map_or(0, |s| s.size_gib);
        let minutes = query.number("CompletionDurationMinutes")?;
        if let Some(minutes) = minutes {
            let least = 15.max((u64::from(size) * 1024).div_ceil(500 * 60)) as u32;
            if !(15..=2_880).contains(&minutes) || minutes % 15 != 0 || minutes < least {
                return Err(invalid_value(format!("Value ({minutes}) for parameter CompletionDurationMinutes is invalid.")));
            }
            if self.throughput() >= THROUGHPUT {
                return Err(ApiError::new(
                    turn.options.throughput_code,
                    "The request exceeds the cumulative copy throughput of the source and destination Regions.",
                ));
            }
        }
        let limit = turn.options.copies_in_flight;
        if self.copies_in_flight() >= limit {
            return Err(ApiError::new(
                "ResourceLimitExceeded",
                format!("Too many snapshot copies in progress. The limit is {limit} for this destination region."),
            ));
        }
        let kms_key = match (source.is_some_and(|s| s.encrypted), encrypt) {
            (false, false) => None,
            _ => Some(resolved_key.unwrap_or_else(|| crate::kms::default_key(&self.account, &self.region))),
        };
        let lineage = source.map(|s| s.lineage.clone()).unwrap_or_default();
        // Only after a copy of the same volume under the same key, and while that one is not archived.
        let incremental = self.all.values().any(|s| {
            s.lineage == lineage
                && s.state == SnapshotState::Completed
                && !s.archived
                && s.kms_key == kms_key
                && s.origin.is_some()
        });
        let moved = if incremental { size.div_ceil(10) } else { size };
        let takes = turn.options.copy_ms + turn.options.copy_ms_per_gib * i64::from(moved) + turn.faults.copy_delay();
        // What was bought comes in time, where the throughput has room for all of it.
        let takes = match minutes {
            Some(minutes) if self.throughput() + rate(size, minutes) <= THROUGHPUT => takes.min(i64::from(minutes) * 60_000),
            _ => takes,
        };
        // A second copy of the same snapshot waits for the one that is pending.
        let origin = Origin { region: from.clone(), snapshot: wanted.to_owned() };
        let ahead = self.all.values().filter(|s| s.state == SnapshotState::Pending && s.origin.as_ref() == Some(&origin));
        let start = ahead.map(|s| s.due).max().unwrap_or(turn.now).max(turn.now);
        let due = match source {
            // What is not there is found out late (A§3.2).
            None => turn.now.plus_ms(turn.options.wrong_source_ms),
            Some(_) => start.plus_ms(takes),
        };
        let doomed = turn.faults.fail_next_copies().then_some("An internal error has occurred");
        let snapshot = Snapshot {
            id: format!("snap-{}", turn.ids.hex(17)),
            volume: NO_VOLUME.to_owned(),
            lineage,
            size_gib: size,
            state: SnapshotState::Pending,
            message: None,
            started: turn.now,
            completed: None,
            encrypted: kms_key.is_some(),
            kms_key,
            archived: false,
            description: query.text("Description").unwrap_or_default().to_owned(),
            tags,
            origin: Some(origin),
            completion_minutes: minutes,
            incremental,
            visible: turn.now.plus_ms(turn.ids.between(0, turn.options.snapshot_lag_ms)),
            check: turn.now.plus_ms(turn.options.key_check_ms),
            due,
            doomed,
            set: None,
            vanishes: None,
        };
        let reply = json!({"snapshotId": snapshot.id, "tagSet": tag_set(&snapshot.tags)});
        self.pending.push(snapshot.id.clone());
        self.all.insert(snapshot.id.clone(), snapshot);
        Ok(reply)
    }

    /// MiB a second that the time-based copies in flight take.
    fn throughput(&self) -> u64 {
        let pending = self.pending.iter().filter_map(|id| self.all.get(id));
        pending.filter_map(|s| Some(rate(s.size_gib, s.completion_minutes?))).sum()
    }

    pub(super) fn describe(&self, query: Query<'_>, now: Millis) -> Result<Value, ApiError> {
        let wanted = query.list("SnapshotId");
        for id in &wanted {
            malformed(id, "snap-", "InvalidSnapshotID.Malformed")?;
            if self.all.get(*id).is_none_or(|s| s.visible > now) {
                return Err(not_found(id));
            }
        }
        let owners = query.list("Owner");
        let max = match query.number("MaxResults")? {
            None => usize::MAX,
            Some(_) if !wanted.is_empty() => {
                return Err(ApiError::new(
                    "InvalidParameterCombination",
                    "The parameter SnapshotIds cannot be used with the parameter maxResults",
                ));
            }
            Some(n) if (5..=1000).contains(&n) => n as usize,
            Some(_) => {
                return Err(invalid_value("Value for parameter maxResults is invalid. Expecting a value between 5 and 1000."));
            }
        };
        let filters = query.filters()?;
        let mut rows = Vec::new();
        let ours = owners.is_empty() || owners.iter().any(|o| *o == "self" || *o == self.account.as_str());
        for snapshot in self.all.values().filter(|s| ours && s.visible <= now) {
            if !wanted.is_empty() && !wanted.contains(&snapshot.id.as_str()) {
                continue;
            }
            let mut fits = true;
            for filter in &filters {
                fits = fits && self.fits(snapshot, filter)?;
            }
            if fits {
                rows.push(snapshot);
            }
        }
        let scope = format!("snapshots{filters:?}");
        let (rows, next) = page(&rows, &scope, max, query.text("NextToken"), "InvalidNextToken")?;
        let rows: Vec<Value> = rows.iter().map(|s| self.describe_one(s)).collect();
        let mut reply = json!({"snapshotSet": rows});
        crate::ssm::put(&mut reply, "nextToken", next.map(Value::from));
        Ok(reply)
    }

    fn fits(&self, s: &Snapshot, filter: &Filter<'_>) -> Result<bool, ApiError> {
        if let Some(key) = filter.name.strip_prefix("tag:") {
            return Ok(s.tags.iter().any(|(have, value)| have == key && filter.fits(value)));
        }
        Ok(match filter.name {
            "snapshot-id" => filter.fits(&s.id),
            "volume-id" => filter.fits(&s.volume),
            "status" => filter.fits(s.state.name()),
            "description" => filter.fits(&s.description),
            "owner-id" => filter.fits(self.account.as_str()),
            "encrypted" => filter.fits(if s.encrypted { "true" } else { "false" }),
            "storage-tier" => filter.fits(if s.archived { "archive" } else { "standard" }),
            "transfer-type" => filter.fits(if s.completion_minutes.is_some() { "time-based" } else { "standard" }),
            "volume-size" => filter.fits(&s.size_gib.to_string()),
            "start-time" => filter.fits(&s.started.iso()),
            "progress" => filter.fits(progress(s)),
            "tag-key" => s.tags.iter().any(|(key, _)| filter.fits(key)),
            name => return Err(invalid_value(format!("The filter '{name}' is invalid"))),
        })
    }

    fn describe_one(&self, s: &Snapshot) -> Value {
        let mut row = json!({
            "snapshotId": s.id,
            "volumeId": s.volume,
            "status": s.state.name(),
            "startTime": s.started.iso(),
            "progress": progress(s),
            "ownerId": self.account.as_str(),
            "description": s.description,
            "volumeSize": s.size_gib,
            "encrypted": s.encrypted,
            "storageTier": if s.archived { "archive" } else { "standard" },
            "tagSet": tag_set(&s.tags),
        });
        crate::ssm::put(&mut row, "statusMessage", s.message.clone().map(Value::from));
        crate::ssm::put(&mut row, "completionTime", s.completed.map(|at| at.iso().into()));
        crate::ssm::put(&mut row, "kmsKeyId", s.kms_key.clone().map(Value::from));
        if s.origin.is_some() {
            row["transferType"] = if s.completion_minutes.is_some() { "time-based" } else { "standard" }.into();
            crate::ssm::put(&mut row, "completionDurationMinutes", s.completion_minutes.map(Value::from));
        }
        if s.state == SnapshotState::Completed {
            row["fullSnapshotSizeInBytes"] = (u64::from(s.size_gib) << 30).into();
        }
        row
    }

    pub(super) fn delete(&mut self, id: &str, turn: &mut Turn<'_>) -> Result<Value, ApiError> {
        malformed(id, "snap-", "InvalidSnapshotID.Malformed")?;
        if self.all.remove(id).is_none() {
            return Err(not_found(id));
        }
        self.pending.retain(|pending| pending != id);
        turn.effects.push(Effect::SnapshotDeleted { region: self.region.clone(), snapshot: id.to_owned() });
        Ok(json!({"return": true}))
    }

    pub(super) fn modify_tier(&mut self, query: Query<'_>, now: Millis) -> Result<Value, ApiError> {
        let id = query.required("SnapshotId")?;
        let snapshot = self.all.get_mut(id).ok_or_else(|| not_found(id))?;
        if query.text("StorageTier").is_some_and(|tier| tier != "archive") {
            return Err(invalid_value("The only supported value for the storage tier is archive."));
        }
        if snapshot.state != SnapshotState::Completed {
            return Err(ApiError::new("IncorrectState", format!("The snapshot '{id}' is not in the 'completed' state")));
        }
        snapshot.archived = true;
        Ok(json!({"snapshotId": id, "tieringStartTime": now.iso()}))
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// When something of its own accord happens next.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        let pending = self.pending.iter().filter_map(|id| self.all.get(id));
        let vanishing = self.vanishing.iter().filter_map(|id| self.all.get(id)?.vanishes);
        pending.map(|s| if s.origin.is_some() { s.due.min(s.check.max(s.started)) } else { s.due }).chain(vanishing).min()
    }

    /// The pending ones for which `judge` has to say something now.
    pub(crate) fn to_judge(&self, now: Millis) -> Vec<Snapshot> {
        let pending = self.pending.iter().filter_map(|id| self.all.get(id));
        pending.filter(|s| s.due <= now || s.origin.is_some() && s.check <= now).cloned().collect()
    }

    pub(crate) fn is_due(&self, now: Millis) -> bool {
        self.next_due().is_some_and(|at| at <= now)
    }

    /// Whether it fails by an armed fault once its time has come.
    pub(crate) fn doom(snapshot: &Snapshot, now: Millis) -> Option<&'static str> {
        snapshot.doomed.filter(|_| snapshot.due <= now)
    }

    /// Carries a verdict out.
    pub(crate) fn settle(&mut self, id: &str, verdict: &Verdict, turn: &mut Turn<'_>) {
        let Some(snapshot) = self.all.get_mut(id) else { return };
        match verdict {
            Verdict::Waits => {
                snapshot.check = snapshot.due;
                return;
            }
            Verdict::Done => {
                snapshot.state = SnapshotState::Completed;
                snapshot.completed = Some(snapshot.due.min(turn.now));
                if let Some(origin) = &snapshot.origin {
                    turn.effects.push(Effect::SnapshotCopied {
                        from: origin.region.clone(),
                        source: origin.snapshot.clone(),
                        region: self.region.clone(),
                        snapshot: id.to_owned(),
                    });
                }
            }
            Verdict::Fails(why) => {
                snapshot.state = SnapshotState::Error;
                snapshot.message = Some((*why).to_owned());
                if let Some(after) = turn.options.failed_copy_vanishes_ms.filter(|_| snapshot.origin.is_some()) {
                    snapshot.vanishes = Some(turn.now.plus_ms(after));
                    self.vanishing.push(id.to_owned());
                }
            }
        }
        let snapshot = snapshot.clone();
        self.pending.retain(|pending| pending != id);
        let ended = snapshot.completed.unwrap_or(turn.now);
        match snapshot.set {
            None => {
                let event = self.event_of_one(&snapshot, verdict, ended, turn.ids.uuid());
                turn.events.push((self.region.clone(), event));
            }
            Some(set) => {
                let members: Vec<&Snapshot> = self.all.values().filter(|s| s.set == Some(set)).collect();
                if members.iter().all(|s| s.state != SnapshotState::Pending) {
                    let event = self.event_of_set(&members, ended, turn.ids.uuid());
                    turn.events.push((self.region.clone(), event));
                }
            }
        }
    }

    pub(crate) fn vanish(&mut self, turn: &mut Turn<'_>) {
        let due =
            |all: &BTreeMap<String, Snapshot>, id: &str| all.get(id).is_none_or(|s| s.vanishes.is_some_and(|at| at <= turn.now));
        let gone: Vec<String> = self.vanishing.iter().filter(|id| due(&self.all, id)).cloned().collect();
        for id in gone {
            self.vanishing.retain(|other| *other != id);
            if self.all.remove(&id).is_some() {
                turn.effects.push(Effect::SnapshotDeleted { region: self.region.clone(), snapshot: id });
            }
        }
    }

    fn envelope(&self, kind: &str, resources: Vec<String>, detail: Value, at: Millis, id: String) -> Value {
        json!({
            "version": "0",
            "id": id,
            "detail-type": kind,
            "source": "aws.ec2",
            "account": self.account.as_str(),
            "time": at.iso_secs(),
            "region": self.region.as_str(),
            "resources": resources,
            "detail": detail,
        })
    }

    fn event_of_one(&self, s: &Snapshot, verdict: &Verdict, at: Millis, id: String) -> Value {
        // The account's place holds the region (A§2.3).
        let arn = format!("arn:aws:ec2::{}:snapshot/{}", self.region, s.id);
        let (result, cause) = match verdict {
            Verdict::Fails(why) => ("failed", *why),
            _ => ("succeeded", ""),
        };
        let mut detail = json!({
            "event": if s.origin.is_some() { "copySnapshot" } else { "createSnapshot" },
            "result": result,
            "cause": cause,
            "request-id": "",
            "snapshot_id": arn,
            "source": match &s.origin {
                Some(origin) => format!("arn:aws:ec2::{}:snapshot/{}", origin.region, origin.snapshot),
                None => format!("arn:aws:ec2::{}:volume/{}", self.region, s.volume),
            },
            "startTime": s.started.iso_secs(),
            "endTime": at.iso_secs(),
        });
        if s.origin.is_some() && result == "succeeded" {
            detail["Incremental"] = if s.incremental { "true" } else { "false" }.into();
        }
        self.envelope("EBS Snapshot Notification", vec![arn], detail, at, id)
    }

    fn event_of_set(&self, members: &[&Snapshot], at: Millis, id: String) -> Value {
        let arn = |s: &Snapshot| format!("arn:aws:ec2::{}:snapshot/{}", self.region, s.id);
        let failed = members.iter().find(|s| s.state == SnapshotState::Error);
        let rows: Vec<Value> = members
            .iter()
            .map(|s| {
                let source = format!("arn:aws:ec2::{}:volume/{}", self.region, s.volume);
                json!({"snapshot_id": arn(s), "source": source, "status": s.state.name()})
            })
            .collect();
        let started = members.first().map_or(at, |s| s.started);
        let detail = json!({
            "event": "createSnapshots",
            "result": if failed.is_some() { "failed" } else { "succeeded" },
            "cause": failed.map(|s| format!("Snapshot {} is in status error", s.id)).unwrap_or_default(),
            "request-id": "",
            "startTime": started.iso_secs(),
            "endTime": at.iso_secs(),
            "snapshots": rows,
        });
        self.envelope("EBS Multi-Volume Snapshots Completion Status", members.iter().map(|s| arn(s)).collect(), detail, at, id)
    }
}

fn progress(s: &Snapshot) -> &'static str {
    if s.state == SnapshotState::Completed { "100%" } else { "0%" }
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::new("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist."))
}

pub(super) fn exclusions<'a>(query: Query<'a>) -> Result<(bool, Vec<&'a str>), ApiError> {
    let volumes = query.list("InstanceSpecification.ExcludeDataVolumeId");
    if volumes.len() > EXCLUDED_LIMIT {
        return Err(invalid_value("At most 40 data volumes can be excluded."));
    }
    Ok((query.flag("InstanceSpecification.ExcludeBootVolume"), volumes))
}
