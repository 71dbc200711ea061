//! What may go and what must stay (H45).
//!
//! Of each hour, day, week and month the point stands that opens, else one that is not proven, else one that opens where the
//! old HSM is: a worse one keeps no better one from staying. While no point of a database opens, none of it goes that may
//! open yet, and no HSM backup, since whatever heals it may need any of them. Nothing goes either while something that decides could not be asked. What a kept point opens with stays: copies,
//! HSM backup, secret versions, inventories. What is not ours by record is never touched.

use crate::facts::{BackupState, HsmBackup, SetId, SnapshotState};
use crate::points::{Ask, Cause, Common, Host, Judge, Maker, PartCopy, Point, Verdict};
use crate::records::SecretAt;
use crate::secrets;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{BackupId, InstanceId, MasterKeyId, Region, Retention, SecretVersion, Sid, SnapshotId, Timestamp};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    pub delete: Vec<Deletion>,
    pub keep: Vec<Kept>,
    /// Backups of the source region that we held off from the cluster's own purge and need not any more.
    pub may_expire: Vec<BackupId>,
    /// Secret versions that must carry a stage of ours ([`secrets::stage_of`]), by their ARN without its region
    /// ([`secrets::without_region`]). One that carries such a stage and is in no line here may lose it.
    pub staged: BTreeSet<(String, SecretVersion)>,
    /// While these have no point that opens, none of their points that may open yet goes, and no HSM backup at all. `None`: a host
    /// of which no database is known.
    pub nothing_opens: BTreeSet<(InstanceId, Option<Sid>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Item {
    Snapshot {
        id: SnapshotId,
        instance: InstanceId,
        set: SetId,
    },
    Backup {
        id: BackupId,
        region: Region,
    },
    Inventory {
        instance: InstanceId,
        taken_at: Timestamp,
    },
    /// Record of a snapshot's copy: goes when neither copy nor source is there.
    CopyRecord {
        source: SnapshotId,
    },
    HsmCopyRecord {
        source: BackupId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub item: Item,
    pub because: Because,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// Its whole point goes: it is not copied again.
    PointGoes,
    /// Another copy of the same snapshot stays.
    Spare,
    /// Nothing that stays needs it.
    Unneeded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub item: Item,
    pub why: Vec<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The newest point that opens, of some database.
    LastThatOpens,
    /// Nothing opens: until something does, the newest point stays whatever it lacks.
    NothingOpens,
    Held,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Count,
    Age,
    /// It is younger than the newest that opens and than [`YOUNG`]: it may open yet. Older ones stand for their days, weeks and
    /// months like any other, so that they do not pile up where nothing opens any more.
    Newer,
    /// A kept point needs it.
    Needed,
    /// It is not ours.
    NotOurs,
    /// Something of what decides could not be asked.
    NotAsked,
}

const DAY: i64 = 86_400;
/// Points newer than the last that opens are all kept for so many seconds, and inventories whatever the points say: sets may lean
/// on them that are not judged yet.
const YOUNG: i64 = 7 * DAY;

/// How good a point is for standing for its time: the least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Opens,
    NotProven,
    /// It opens where the old HSM is.
    WithOldHsm,
    /// Nothing that may still happen makes it open.
    Hopeless,
}

/// Which of these moments a policy keeps, and why. Of each hour, day, week and month the best, and of equals the newest.
pub(crate) fn buckets(points: impl Iterator<Item = (Timestamp, Rank)>, policy: &Retention) -> BTreeMap<Timestamp, BTreeSet<Why>> {
    let points: BTreeSet<(Timestamp, Rank)> = points.collect();
    let mut kept: BTreeMap<Timestamp, BTreeSet<Why>> = BTreeMap::new();
    type Bucket = fn(Timestamp) -> i64;
    let kinds: [(u16, Why, Bucket); 4] = [
        (policy.hourly, Why::Hourly, |at| at.0.div_euclid(3_600)),
        (policy.daily, Why::Daily, |at| at.0.div_euclid(DAY)),
        // 1970-01-01 was a Thursday; weeks begin on Monday.
        (policy.weekly, Why::Weekly, |at| (at.0.div_euclid(DAY) + 3).div_euclid(7)),
        (policy.monthly, Why::Monthly, month),
    ];
    // So many times among those that open; and again with those that are not proven, and so on: a worse point takes no place
    // from a better one.
    let levels: BTreeSet<Rank> = points.iter().map(|(_, rank)| *rank).collect();
    for (level, (count, why, bucket)) in levels.iter().flat_map(|level| kinds.map(|kind| (*level, kind))) {
        let mut best: BTreeMap<i64, (Rank, Timestamp)> = BTreeMap::new();
        for (at, rank) in points.iter().rev().filter(|(_, rank)| *rank <= level) {
            best.entry(bucket(*at))
                .and_modify(|(r, t)| {
                    if *rank < *r {
                        (*r, *t) = (*rank, *at)
                    }
                })
                .or_insert((*rank, *at));
        }
        for (_, at) in best.into_values().rev().take(usize::from(count)) {
            kept.entry(at).or_default().insert(why);
        }
    }
    for (at, _) in points.iter().rev().filter(|(_, rank)| *rank == Rank::Opens).take(usize::from(policy.count)) {
        kept.entry(*at).or_default().insert(Why::Count);
    }
    kept
}

/// Months since year 0, UTC.
fn month(at: Timestamp) -> i64 {
    let text = crate::points::moment(at);
    let mut parts = text.rsplitn(3, '-');
    let (_, month, year) = (parts.next(), parts.next(), parts.next());
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<i64>().ok()).unwrap_or(0);
    number(year) * 12 + number(month)
}

/// What of a fleet goes and what stays.
pub fn expire(common: &Common, hosts: &[Host], points: &[Point], policy: &Retention, hsm_days: u16) -> Expiry {
    let mut expiry = Expiry::default();
    let frozen = common.unasked.iter().any(|ask| match ask {
        Ask::Records | Ask::Inventories | Ask::DrSnapshots | Ask::DrBackups | Ask::DrSecret(_) => true,
        Ask::SourceInstances | Ask::SourceSnapshots => true,
        Ask::SourceBackups => false,
    });
    let mut of: HashMap<&InstanceId, Vec<&Point>> = HashMap::new();
    for point in points {
        of.entry(&point.instance).or_default().push(point);
    }
    let mut backups: BTreeSet<&BackupId> = BTreeSet::new();
    for host in hosts {
        let points = of.remove(&host.instance).unwrap_or_default();
        let is_over = common.gone.contains(&host.instance) && points.is_empty();
        let (kept, none) = kept(common, host, &points, policy);
        expiry.nothing_opens.extend(none.into_iter().map(|sid| (host.instance.clone(), sid)));
        let mut standing = Vec::new();
        for point in points {
            let why = kept.get(&point.set);
            match why {
                Some(why) => {
                    standing.push(point);
                    keep_point(&mut expiry, &mut backups, point, why);
                }
                None if frozen => {
                    standing.push(point);
                    keep_point(&mut expiry, &mut backups, point, &BTreeSet::from([Why::NotAsked]));
                }
                None => let_go(&mut expiry, &mut standing, point),
            }
        }
        secrets_of(&mut expiry, host, &standing);
        records(common, &mut expiry, host, &standing, frozen, is_over);
    }
    // A look that goes needs nothing any more.
    let going: BTreeSet<(&InstanceId, Timestamp)> = expiry
        .delete
        .iter()
        .filter_map(|deletion| match &deletion.item {
            Item::Inventory { instance, taken_at } => Some((instance, *taken_at)),
            _ => None,
        })
        .collect();
    let judge = Judge::new(common);
    backups.extend(judge.backups_for_keys(hosts, |look| !going.contains(&(&look.instance, look.taken_at))));
    let nothing_opens = !expiry.nothing_opens.is_empty();
    hsm(common, &mut expiry, &backups, hsm_days, Frozen { asked: frozen, nothing_opens });
    expiry
}

fn rank(verdict: &Verdict) -> Rank {
    let (causes, unknowns) = match verdict {
        Verdict::Opens(_) => return Rank::Opens,
        Verdict::NotProven { .. } => return Rank::NotProven,
        Verdict::DoesNotOpen { causes, unknowns } => (causes, unknowns),
    };
    if unknowns.is_empty() && causes.iter().all(|cause| matches!(cause, Cause::KeyInOldHsm { .. })) {
        return Rank::WithOldHsm;
    }
    let lasting = |cause: &Cause| {
        matches!(
            cause,
            Cause::VolumeMissing { .. }
                | Cause::FileOutside { .. }
                | Cause::FileOnNoVolume { .. }
                | Cause::Inconsistent
                | Cause::KeyInOldHsm { .. }
        )
    };
    // A copy may be finished, a KMS key enabled, a secret found: what may heal is as good as what is not known.
    if causes.iter().any(lasting) { Rank::Hopeless } else { Rank::NotProven }
}

/// Databases that are there as far as anybody knows. A week after the last look that lists one it is taken for dropped.
fn there<'h>(common: &Common, host: &'h Host) -> BTreeSet<&'h Sid> {
    let since = host.newest().map(|newest| newest.received_at.plus(-YOUNG));
    let recent = host.inventories.iter().filter(|look| since.is_none_or(|since| look.received_at >= since));
    let sids = recent.flat_map(|look| &look.databases).map(|database| &database.sid);
    sids.filter(|sid| !common.retired(&host.instance, Some(sid))).collect()
}

/// The sets of one instance that stay, and which of its databases have no point that opens.
fn kept(
    common: &Common,
    host: &Host,
    points: &[&Point],
    policy: &Retention,
) -> (BTreeMap<SetId, BTreeSet<Why>>, BTreeSet<Option<Sid>>) {
    let now = common.now;
    let there = there(common, host);
    let mut kept: BTreeMap<SetId, BTreeSet<Why>> = BTreeMap::new();
    let mut keep = |point: &Point, why: Why| {
        kept.entry(point.set.clone()).or_default().insert(why);
    };
    for point in points.iter().filter(|point| point.held) {
        keep(point, Why::Held);
    }
    let databases: BTreeSet<&Sid> = points.iter().flat_map(|point| &point.databases).map(|database| &database.sid).collect();
    let mut nothing_opens = BTreeSet::new();
    if databases.is_empty() && !points.is_empty() {
        points.iter().for_each(|point| keep(point, Why::NothingOpens));
        if !common.retired(&host.instance, None) {
            nothing_opens.insert(None);
        }
    }
    // Points come in the order of time.
    let settling = now.plus(-YOUNG.max(i64::from(policy.days) * DAY));
    for sid in databases {
        let ranked: Vec<(&Point, Rank)> =
            points.iter().filter_map(|point| point.database(sid).map(|d| (*point, rank(&d.verdict)))).collect();
        let newest = ranked.iter().filter(|(_, rank)| *rank == Rank::Opens).max_by_key(|(point, _)| (point.taken, &point.set));
        match newest {
            Some((newest, _)) => {
                keep(newest, Why::LastThatOpens);
                // Were they proven, the newest so many would stay by their count.
                let newer = ranked.iter().rev().filter(|(point, _)| point.taken > newest.taken);
                for (n, (point, rank)) in newer.enumerate() {
                    if point.taken >= settling || (n < usize::from(policy.count) && *rank < Rank::Hopeless) {
                        keep(point, Why::Newer);
                    }
                }
            }
            // What was dropped, or somebody retired, stands for its days like any other: nothing more is to come of it.
            None if !there.contains(sid) => {}
            None => {
                nothing_opens.insert(Some(sid.clone()));
                for (point, _) in ranked.iter().filter(|(_, rank)| *rank < Rank::WithOldHsm) {
                    keep(point, Why::NothingOpens);
                }
            }
        }
        // What is hopeless stands for nothing, unless there is nothing better of its time: parts of it are newer than what opens.
        let stands =
            |point: &Point, rank: Rank| rank < Rank::Hopeless || newest.is_none_or(|(newest, _)| point.taken > newest.taken);
        let standing = ranked.iter().filter(|(point, rank)| stands(point, *rank));
        let buckets = buckets(standing.map(|(point, rank)| (point.taken, *rank)), policy);
        let young = now.plus(-i64::from(policy.days) * DAY);
        for (point, rank) in &ranked {
            for why in buckets.get(&point.taken).filter(|_| stands(point, *rank)).into_iter().flatten() {
                keep(point, *why);
            }
            if policy.days > 0 && point.taken >= young && *rank == Rank::Opens {
                keep(point, Why::Age);
            }
        }
    }
    (kept, nothing_opens)
}

fn keep_point<'p>(expiry: &mut Expiry, backups: &mut BTreeSet<&'p BackupId>, point: &'p Point, why: &BTreeSet<Why>) {
    for part in &point.parts {
        if let Some(copy) = &part.copy {
            let mut why: Vec<Why> = why.iter().copied().collect();
            if copy.maker != Maker::Ours {
                why.push(Why::NotOurs);
            }
            expiry.keep.push(Kept { item: snapshot(point, copy), why });
        }
        for other in &part.others {
            let finished = part.copied() && part.copy.as_ref().is_some_and(|copy| !copy.archived);
            match other.maker == Maker::Ours && finished && other.state != SnapshotState::Pending {
                true => expiry.delete.push(Deletion {
                    item: snapshot(point, other),
                    because: Because::Spare,
                    why: match other.state {
                        SnapshotState::Completed => String::from("a second copy of the same snapshot"),
                        _ => String::from("it failed, and another copy of the same snapshot is finished"),
                    },
                }),
                false => expiry.keep.push(Kept {
                    item: snapshot(point, other),
                    why: vec![if other.maker == Maker::Ours { Why::Needed } else { Why::NotOurs }],
                }),
            }
        }
    }
    let openings = point.databases.iter().filter_map(|database| database.verdict.opens());
    backups.extend(openings.filter_map(|opening| opening.backup.as_ref()).map(|backup| &backup.id));
}

fn let_go<'p>(expiry: &mut Expiry, standing: &mut Vec<&'p Point>, point: &'p Point) {
    let mut left = false;
    for copy in point.parts.iter().flat_map(|part| part.copy.iter().chain(&part.others)) {
        // A pending copy takes its place whatever is asked of it; it goes when it has settled.
        match (copy.maker, copy.state) {
            (Maker::Ours, state) if state != SnapshotState::Pending => expiry.delete.push(Deletion {
                item: snapshot(point, copy),
                because: Because::PointGoes,
                why: String::from("retention keeps no point of that time, or a better one stands for it"),
            }),
            (maker, _) => {
                left = true;
                let why = vec![if maker == Maker::Ours { Why::Needed } else { Why::NotOurs }];
                expiry.keep.push(Kept { item: snapshot(point, copy), why });
            }
        }
    }
    // Until its copies are gone, it may be judged again.
    if left || point.parts.iter().any(|part| part.source_state.is_some()) {
        standing.push(point);
    }
}

fn snapshot(point: &Point, copy: &PartCopy) -> Item {
    Item::Snapshot { id: copy.id.clone(), instance: point.instance.clone(), set: point.set.clone() }
}

fn versions(at: &SecretAt) -> impl Iterator<Item = (String, SecretVersion)> + '_ {
    at.versions.iter().map(|version| (secrets::without_region(&at.secret), version.clone()))
}

/// Versions that points which stand may want: what they open with, and what was recorded of their time.
fn secrets_of(expiry: &mut Expiry, host: &Host, standing: &[&Point]) {
    let sources: BTreeSet<&SnapshotId> = standing.iter().flat_map(|point| &point.parts).map(|part| &part.source).collect();
    for intent in host.copies.iter().filter(|intent| sources.contains(&intent.source)) {
        expiry.staged.extend(intent.secrets.iter().flat_map(versions));
    }
    for opening in standing.iter().flat_map(|point| &point.databases).filter_map(|database| database.verdict.opens()) {
        let versions = opening.secrets.iter().map(|(_, secret)| (secrets::without_region(&secret.arn), secret.version.clone()));
        expiry.staged.extend(versions);
    }
}

/// Inventories and copy records. `is_over`: the host is gone and has no point any more.
fn records(common: &Common, expiry: &mut Expiry, host: &Host, standing: &[&Point], frozen: bool, is_over: bool) {
    let mut needed: BTreeSet<Timestamp> =
        standing.iter().flat_map(|point| &point.databases).flat_map(|d| d.before.into_iter().chain(d.after)).collect();
    needed.extend(host.newest().filter(|_| !is_over).map(|inventory| inventory.taken_at));
    // Where a key lies, and since when, the earliest look that shows it tells best. One that came and went between two looks is in
    // neither's needs, and a set from between them may need it.
    let since: BTreeMap<(&Sid, Timestamp), Timestamp> = standing
        .iter()
        .flat_map(|point| &point.databases)
        .filter_map(|database| Some(((&database.sid, database.after?), database.before?)))
        .collect();
    let mut keys: BTreeSet<(&Sid, MasterKeyId)> = BTreeSet::new();
    for inventory in host.inventories.iter().filter(|inventory| needed.contains(&inventory.taken_at)) {
        for database in &inventory.databases {
            keys.extend(database.needs.iter().map(|need| (&database.sid, need.key)));
            let Some(before) = since.get(&(&database.sid, inventory.taken_at)) else { continue };
            let between = database.known.iter().filter(|known| known.activated.is_none_or(|activated| activated >= *before));
            keys.extend(between.map(|known| (&database.sid, known.key)));
        }
    }
    // And which of them the HSM lists no more, the looks on either side of that.
    needed.extend(Judge::looks_at_gone_keys(common, host, &keys));
    let mut earliest: BTreeMap<(&Sid, MasterKeyId), (Timestamp, Timestamp)> = BTreeMap::new();
    for inventory in &host.inventories {
        for database in &inventory.databases {
            for known in database.known.iter().filter(|known| keys.contains(&(&database.sid, known.key))) {
                let look = (inventory.received_at, inventory.taken_at);
                earliest.entry((&database.sid, known.key)).and_modify(|first| *first = look.min(*first)).or_insert(look);
            }
        }
    }
    needed.extend(earliest.into_values().map(|(_, taken_at)| taken_at));
    let oldest = standing.iter().map(|point| point.taken).min();
    for inventory in &host.inventories {
        let item = Item::Inventory { instance: host.instance.clone(), taken_at: inventory.taken_at };
        let young = inventory.received_at >= common.now.plus(-YOUNG);
        // Between two points that stand lie sets that may yet be judged only if their source is there; those stand, too.
        match (needed.contains(&inventory.taken_at), young, frozen || oldest.is_none() && !is_over) {
            (true, ..) => expiry.keep.push(Kept { item, why: vec![Why::Needed] }),
            (_, true, _) => expiry.keep.push(Kept { item, why: vec![Why::Age] }),
            (_, _, true) => expiry.keep.push(Kept { item, why: vec![Why::NotAsked] }),
            _ => expiry.delete.push(Deletion { item, because: Because::Unneeded, why: String::from("no point leans on it") }),
        }
    }
    let sources: BTreeSet<&SnapshotId> =
        host.snapshots.iter().filter(|s| s.region == common.source_region).map(|snapshot| &snapshot.id).collect();
    let copied: BTreeSet<&str> = host
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.region == common.dr_region)
        .filter_map(|snapshot| snapshot.tags.get(crate::facts::tag::SOURCE_SNAPSHOT))
        .map(String::as_str)
        .collect();
    for intent in &host.copies {
        let settled = intent.attempts.last().is_none_or(|attempt| attempt.at <= common.now.plus(-DAY));
        let used = sources.contains(&intent.source) || copied.contains(intent.source.as_str());
        if !frozen && settled && !used {
            let item = Item::CopyRecord { source: intent.source.clone() };
            expiry.delete.push(Deletion {
                item,
                because: Because::Unneeded,
                why: String::from("neither the snapshot nor a copy of it is there any more"),
            });
        }
    }
}

/// Why no HSM backup goes at all: something could not be asked, or some database has no point that opens.
#[derive(Clone, Copy)]
struct Frozen {
    asked: bool,
    nothing_opens: bool,
}

/// HSM backups of the DR region, which have no purge of their own, and the marks on those of the source region.
fn hsm(common: &Common, expiry: &mut Expiry, needed: &BTreeSet<&BackupId>, days: u16, frozen: Frozen) {
    let tokens: HashMap<&BackupId, BTreeSet<&str>> = common
        .hsm_copies
        .iter()
        .map(|record| (&record.source, record.attempts.iter().map(|attempt| attempt.token.as_str()).collect()))
        .collect();
    let ours = |backup: &HsmBackup| {
        let token = backup.tags.get(crate::facts::tag::TOKEN).map(String::as_str);
        let known = backup.source_backup.as_ref().and_then(|source| tokens.get(source));
        token.zip(known).is_some_and(|(token, known)| known.contains(token))
    };
    let copies: Vec<&HsmBackup> = common
        .backups
        .iter()
        .filter(|backup| backup.region == common.dr_region && backup.state == BackupState::Ready)
        .filter(|backup| common.of_cluster(backup))
        .collect();
    // The newest is what the next points open with; the one before it, should the newest prove to be none.
    let mut by_time: Vec<&HsmBackup> = copies.clone();
    by_time.sort_by_key(|backup| std::cmp::Reverse((backup.created, &backup.id)));
    let newest: BTreeSet<&BackupId> = by_time.iter().take(2).map(|backup| &backup.id).collect();
    let young = common.now.plus(-i64::from(days) * DAY);
    let mut stay: BTreeSet<&BackupId> = BTreeSet::new();
    for backup in copies {
        let item = Item::Backup { id: backup.id.clone(), region: backup.region.clone() };
        let mut why = Vec::new();
        let rules = [
            (backup.tags.contains_key(crate::facts::tag::HOLD), Why::Held),
            (needed.contains(&backup.id), Why::Needed),
            (newest.contains(&backup.id), Why::Newer),
            (backup.created.is_none_or(|created| created >= young), Why::Age),
            (!ours(backup), Why::NotOurs),
            (frozen.asked, Why::NotAsked),
            (frozen.nothing_opens, Why::NothingOpens),
        ];
        why.extend(rules.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why));
        if why.is_empty() {
            let why = String::from("no kept point opens with it, and it is older than HSM backups are kept");
            expiry.delete.push(Deletion { item, because: Because::Unneeded, why });
        } else {
            stay.extend(&backup.source_backup);
            expiry.keep.push(Kept { item, why });
        }
    }
    let there: BTreeSet<&BackupId> = common
        .backups
        .iter()
        .filter(|backup| {
            backup.region == common.dr_region && !matches!(backup.state, BackupState::Deleted | BackupState::PendingDeletion)
        })
        .filter_map(|backup| backup.source_backup.as_ref())
        .collect();
    for record in &common.hsm_copies {
        let source = common.backups.iter().find(|b| b.region == common.source_region && b.id == record.source);
        let settled = record.attempts.last().is_none_or(|attempt| attempt.at <= common.now.plus(-DAY));
        let copied = there.contains(&record.source);
        // A password of a backup that may yet be copied must stay as well.
        if copied || source.is_some() || !settled {
            expiry.staged.extend(record.secrets.iter().flat_map(versions));
        } else if !frozen.asked && !common.unasked.contains(&Ask::SourceBackups) {
            let item = Item::HsmCopyRecord { source: record.source.clone() };
            expiry.delete.push(Deletion {
                item,
                because: Because::Unneeded,
                why: String::from("neither the backup nor a copy of it is there any more"),
            });
        }
        // Once the copy is READY, the source may follow the cluster's own retention again (H45); and when it is so old that a copy
        // would not be kept either, and nothing needs it.
        let old = source.is_some_and(|source| source.created.is_some_and(|created| created < young));
        let unneeded = old && !needed.contains(&record.source) && !frozen.asked && !frozen.nothing_opens;
        let done = stay.contains(&record.source) || unneeded;
        if record.held && done && source.is_some_and(|source| source.never_expires == Some(true)) {
            expiry.may_expire.push(record.source.clone());
        }
    }
}
