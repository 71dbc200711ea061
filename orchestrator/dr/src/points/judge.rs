//! The verdicts. What is common to a fleet is sorted once; each host then costs its own facts.
//!
//! As long as a cluster only gains keys, three moments of a list sorted by CreateTimestamp say everything: the newest that is
//! READY, the newest whose password is not known to be gone, and the newest whose password is there. A key is proven absent
//! from everything older than the key less the margin, and proven present from the key plus the margin on; unless a look finds
//! it gone, see [`super::gone`]: then the newest backup from before counts.

use super::gone::Gaps;
use super::sets::{self, Set, Start};
use super::{
    Ask, BackupChoice, Cause, Common, DatabasePoint, Host, MARGIN, Opening, Part, Point, SecretRole, SecretUse, Unknown, Verdict,
};
use crate::facts::{BackupState, Consistency, HsmBackup, KmsState, Secret, SnapshotState};
use crate::inventory::{DatabaseInventory, FileKind, FilePlace, Inventory, KnownKey, NeededBy, Provider};
use crate::records::{HsmCopyIntent, SecretAt};
use crate::secrets;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tde2hsm_protocol::{
    BackupId, ContainerName, InstanceId, KmsKeyArn, MasterKeyId, Region, SecretArn, SecretRef, Sid, Store, Timestamp, VolumeId,
};

/// Of whom a secret is: a database, a host, or the fleet.
type Of<'a> = Option<(&'a InstanceId, Option<&'a Sid>)>;

pub struct Judge<'a> {
    common: &'a Common,
    kms: HashMap<&'a KmsKeyArn, KmsState>,
    /// Of the DR region, by what does not depend on the region.
    secrets: HashMap<String, &'a Secret>,
    uses: HashMap<(SecretRole, Of<'a>), Vec<&'a SecretArn>>,
    views: HashMap<Vec<&'a SecretArn>, HsmView>,
    /// The newest READY backup of either region.
    newest_anywhere: Option<Timestamp>,
}

/// The READY backups of the DR region in the eyes of whoever logs in with certain secrets.
#[derive(Default)]
struct HsmView {
    newest: Option<(Timestamp, Password)>,
    /// Not known to be gone.
    not_gone: Option<(Timestamp, BackupId, Password)>,
    /// The newest first.
    proven: Vec<(BackupChoice, Vec<SecretRef>)>,
    /// READY, and when it was made is not known.
    undated: Option<BackupId>,
}

/// Whether the password of a moment is there.
#[derive(Debug, Clone, Default)]
struct Password {
    versions: Vec<SecretRef>,
    gone: Vec<Cause>,
    unknown: Vec<Unknown>,
}

/// What the inventories of a host say of a key, all of them together: a key never moves and never changes its time.
#[derive(Default)]
struct KeyFacts {
    /// Host clock, of looks whose clock was right.
    made: Option<(Timestamp, Timestamp)>,
    activated: Option<(Timestamp, Timestamp)>,
    /// The latest moment, AWS time, at which the earliest look that shows it in an HSM can have been taken.
    shown: Option<Timestamp>,
    /// What was backed up until then was backed up before the last look that shows it in the cluster.
    seen: Option<Timestamp>,
    in_cluster: bool,
    in_other_hsm: bool,
    in_unknown_hsm: bool,
    in_keystore: bool,
    containers: BTreeSet<ContainerName>,
}

/// A look at a database that a point may lean on, between two moments of AWS time.
pub(super) struct Look<'a> {
    pub inventory: &'a Inventory,
    pub database: &'a DatabaseInventory,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// Every look at one database. Those that saw everything are asked first.
struct Looks<'a> {
    sid: &'a Sid,
    dbid: Option<u64>,
    clear: Side<'a>,
    dim: Side<'a>,
}

struct Side<'a> {
    /// By `not_after`.
    looks: Vec<Look<'a>>,
    /// The same by `not_before`.
    by_start: Vec<usize>,
}

/// The keys that a point needs.
#[derive(Default)]
struct Need {
    /// And whether the look before the set did not know it.
    sure: BTreeMap<MasterKeyId, bool>,
    perhaps: BTreeSet<MasterKeyId>,
}

/// One database in one set.
struct Case<'c, 'a> {
    judge: &'c Judge<'a>,
    host: &'c Host,
    set: &'c Set<'a>,
    keys: &'c HashMap<(&'a Sid, MasterKeyId), KeyFacts>,
    gaps: &'c Gaps<'a>,
    sid: &'a Sid,
    before: Option<&'c Look<'a>>,
    after: Option<&'c Look<'a>>,
    /// Volumes of the host's sets, by how many hold them.
    elsewhere: &'c HashMap<&'c VolumeId, usize>,
    /// The host has no other set.
    alone: bool,
}

#[derive(Default)]
struct Places<'p> {
    files: BTreeMap<&'p VolumeId, Vec<&'p FilePlace>>,
    /// On no volume, by how many looks say so; the last tells an instance store.
    nowhere: BTreeMap<(FileKind, &'p str, bool), usize>,
    /// Volumes that every look names.
    sure: BTreeSet<&'p VolumeId>,
    looks: usize,
}

#[derive(Default)]
struct Found {
    causes: BTreeSet<Cause>,
    unknowns: BTreeSet<Unknown>,
    backup: Option<BackupChoice>,
    secrets: Vec<(SecretRole, SecretRef)>,
    keystore: Option<String>,
    hsm_keys: BTreeSet<MasterKeyId>,
    software_keys: BTreeSet<MasterKeyId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Cluster,
    OtherHsm,
    Keystore,
    Unknown,
}

impl<'a> Judge<'a> {
    pub fn new(common: &'a Common) -> Judge<'a> {
        let mut uses: HashMap<_, Vec<&SecretArn>> = HashMap::new();
        for SecretUse { secret, role, of } in &common.uses {
            let of = of.as_ref().map(|(instance, sid)| (instance, sid.as_ref()));
            uses.entry((*role, of)).or_default().push(secret);
        }
        for list in uses.values_mut() {
            list.sort();
            list.dedup();
        }
        let mut judge = Judge {
            common,
            kms: common.kms.iter().map(|key| (&key.arn, key.state)).collect(),
            secrets: common
                .secrets
                .iter()
                .filter(|secret| secret.region == common.dr_region)
                .map(|secret| (secrets::without_region(&secret.arn), secret))
                .collect(),
            uses,
            views: HashMap::new(),
            newest_anywhere: None,
        };
        let records: HashMap<&BackupId, &HsmCopyIntent> =
            common.hsm_copies.iter().map(|record| (&record.source, record)).collect();
        let ready = |backup: &&HsmBackup| backup.state == BackupState::Ready && common.of_cluster(backup);
        judge.newest_anywhere = common.backups.iter().filter(ready).filter_map(|backup| backup.created).max();
        let mut copied: Vec<&HsmBackup> =
            common.backups.iter().filter(ready).filter(|backup| backup.region == common.dr_region).collect();
        copied.sort_by_key(|backup| std::cmp::Reverse((backup.created, &backup.id)));
        let lists: BTreeSet<Vec<&SecretArn>> = judge
            .uses
            .iter()
            .filter(|((role, _), _)| *role == SecretRole::CryptoUser)
            .map(|(_, list)| list.clone())
            .chain([Vec::new()])
            .collect();
        for list in lists {
            let view = judge.view(&copied, &records, &list);
            judge.views.insert(list, view);
        }
        judge
    }

    fn view(&self, copied: &[&HsmBackup], records: &HashMap<&BackupId, &HsmCopyIntent>, list: &[&'a SecretArn]) -> HsmView {
        let mut view = HsmView::default();
        for backup in copied {
            let record = records.get(backup.source_backup.as_ref().unwrap_or(&backup.id)).copied();
            let Some(created) = backup.created.or(record.map(|record| record.created)) else {
                view.undated.get_or_insert_with(|| backup.id.clone());
                continue;
            };
            let recorded = record.map_or(&[][..], |record| record.secrets.as_slice());
            let password = self.password(SecretRole::CryptoUser, list, recorded.iter(), created);
            let (gone, known) = (!password.gone.is_empty(), password.unknown.is_empty());
            if view.newest.is_none() {
                view.newest = Some((created, password.clone()));
            }
            if !gone && view.not_gone.is_none() {
                view.not_gone = Some((created, backup.id.clone(), password.clone()));
            }
            if !gone && known {
                let choice = BackupChoice { id: backup.id.clone(), source: backup.source_backup.clone(), created };
                view.proven.push((choice, password.versions));
            }
        }
        view
    }

    /// Whether the passwords of a moment are in the DR region.
    fn password<'r>(
        &self,
        role: SecretRole,
        list: &[&'a SecretArn],
        recorded: impl Iterator<Item = &'r SecretAt>,
        moment: Timestamp,
    ) -> Password {
        let mut found = Password::default();
        if list.is_empty() {
            found.unknown.push(Unknown::NoSecretNamed { role });
        }
        let recorded: Vec<&SecretAt> = recorded.collect();
        for arn in list {
            let secret = (*arn).clone();
            let Some(replica) = self.secrets.get(&secrets::without_region(arn)) else {
                if self.common.unasked.contains(&Ask::DrSecret(secret.clone())) {
                    found.unknown.push(Unknown::NotAsked { what: Ask::DrSecret(secret) });
                } else {
                    found.gone.push(Cause::SecretNotReplicated { role, secret });
                }
                continue;
            };
            // Whichever version it is, without the key nobody reads it.
            match replica.kms_key.as_ref().and_then(|key| self.kms.get(key).map(|state| (key, *state))) {
                Some((_, KmsState::Enabled)) => {}
                Some((key, state @ (KmsState::Disabled | KmsState::PendingDeletion | KmsState::NotFound))) => {
                    found.gone.push(Cause::SecretKeyUnusable { role, secret, key: key.clone(), state });
                    continue;
                }
                Some((_, KmsState::Unknown)) | None => {
                    let key = replica.kms_key.clone();
                    found.unknown.push(Unknown::SecretKey { role, secret: secret.clone(), key });
                }
            }
            let written = recorded.iter().find(|at| secrets::same(&at.secret, arn) && !at.versions.is_empty());
            let versions = match written {
                Some(at) => at.versions.clone(),
                None => secrets::at(replica, moment).versions,
            };
            let mut there = Vec::new();
            let mut unstaged = Vec::new();
            let mut gone = Vec::new();
            for version in &versions {
                match replica.versions.iter().find(|fact| fact.version == *version && !replica.deleted) {
                    Some(fact) if !fact.stages.is_empty() => {
                        there.push(SecretRef { arn: replica.arn.clone(), version: version.clone() });
                    }
                    Some(_) => {
                        unstaged.push(Unknown::SecretUnstaged { role, secret: secret.clone(), version: version.clone() });
                    }
                    None => {
                        gone.push(Cause::SecretVersionGone { role, secret: secret.clone(), version: version.clone() });
                    }
                }
            }
            match (versions.len(), there.len(), gone.len()) {
                (1, 1, _) => found.versions.append(&mut there),
                // None of what it can have been is there.
                (n, _, lost) if n > 0 && lost == n => found.gone.append(&mut gone),
                (1, ..) => found.unknown.append(&mut unstaged),
                _ => found.unknown.push(Unknown::SecretVersion { role, secret }),
            }
        }
        found
    }

    /// The secrets of a role that a database uses: those named for it, else for its host, else for the fleet.
    fn secrets_of(&self, role: SecretRole, instance: &InstanceId, sid: &Sid) -> Vec<&'a SecretArn> {
        [Some((instance, Some(sid))), Some((instance, None)), None]
            .into_iter()
            .find_map(|of| self.uses.get(&(role, of)))
            .cloned()
            .unwrap_or_default()
    }

    /// The points of a host, the oldest first.
    pub fn host(&self, host: &'a Host) -> Vec<Point> {
        let mut all: BTreeMap<&Sid, Vec<Look<'_>>> = BTreeMap::new();
        let mut keys: HashMap<(&Sid, MasterKeyId), KeyFacts> = HashMap::new();
        for look in host.inventories.iter().flat_map(Look::all) {
            self.note_keys(&mut keys, &look);
            all.entry(&look.database.sid).or_default().push(look);
        }
        let gaps = Gaps::new(self.common, host.inventories.iter());
        let all: Vec<Looks<'_>> = all.into_iter().map(|(sid, looks)| Looks::new(sid, looks)).collect();
        let sets = sets::sets(self.common, &self.kms, host);
        let held: HashMap<&VolumeId, usize> = sets.iter().flat_map(|set| &set.parts).fold(HashMap::new(), |mut held, part| {
            *held.entry(&part.volume).or_default() += 1;
            held
        });
        let alone = sets.len() == 1;
        let databases: Vec<Vec<DatabasePoint>> = sets
            .iter()
            .map(|set| {
                let of = |looks: &Looks<'_>| {
                    let (before, after) = (looks.before(set.first), looks.after(set.last));
                    let (sid, keys) = (looks.sid, &keys);
                    let case = Case { judge: self, host, set, keys, gaps: &gaps, sid, before, after, elsewhere: &held, alone };
                    DatabasePoint {
                        sid: sid.clone(),
                        dbid: looks.dbid,
                        before: before.map(|look| look.inventory.taken_at),
                        after: after.map(|look| look.inventory.taken_at),
                        verdict: case.verdict(),
                    }
                };
                all.iter().map(of).collect()
            })
            .collect();
        let point = |(set, databases): (Set<'_>, Vec<DatabasePoint>)| Point {
            instance: host.instance.clone(),
            taken: set.first,
            consistency: set.consistency.over(&set.parts.iter().map(Start::of).collect()).unwrap_or(Consistency::None),
            set: set.id,
            parts: set.parts,
            held: set.held,
            databases,
        };
        sets.into_iter().zip(databases).map(point).collect()
    }

    /// With what a point that is not proven can be tried: the newest HSM backup whose password is there, and the passwords of
    /// that time. `None`: some volume is not copied, or there is no such backup. Nothing here is a promise that it opens.
    pub fn attempt(&self, host: &Host, point: &Point, sid: &Sid) -> Option<Opening> {
        if !point.copied() {
            return None;
        }
        let copies = || point.parts.iter().filter_map(|part| part.copy.as_ref());
        let of = |role| self.secrets_of(role, &host.instance, sid);
        let (backup, versions) = self.views.get(&of(SecretRole::CryptoUser))?.proven.first()?;
        let of_point = host.copies.iter().filter(|intent| point.parts.iter().any(|part| part.source == intent.source));
        let recorded = of_point.flat_map(|intent| &intent.secrets);
        let keystore = self.password(SecretRole::Keystore, &of(SecretRole::Keystore), recorded, point.taken).versions;
        let versions = versions.iter().map(|version| (SecretRole::CryptoUser, version.clone()));
        Some(Opening {
            snapshots: copies().map(|copy| copy.id.clone()).collect(),
            kms_keys: copies().filter_map(|copy| copy.kms_key.clone()).collect(),
            backup: Some(backup.clone()),
            secrets: versions.chain(keystore.into_iter().map(|version| (SecretRole::Keystore, version))).collect(),
            keystore: None,
            hsm_keys: BTreeSet::new(),
            software_keys: BTreeSet::new(),
        })
    }

    /// The looks on either side of where the HSM ceased, or began again, to list one of these keys: by when they were taken.
    pub fn looks_at_gone_keys(common: &Common, host: &Host, keys: &BTreeSet<(&Sid, MasterKeyId)>) -> BTreeSet<Timestamp> {
        Gaps::new(common, host.inventories.iter()).looks(|key| keys.contains(&key))
    }

    /// READY backups of either region that no other stands for: the newest whose password is there; and for each key that
    /// inventories need or list, the newest from before it was last seen in the HSM, the first since, and all from while it went.
    /// A backup of the source region is one of them only where it has no READY copy.
    pub fn backups_for_keys(&self, hosts: &'a [Host], stays: impl Fn(&Inventory) -> bool) -> BTreeSet<&BackupId> {
        let common = self.common;
        let ready = |backup: &&HsmBackup| backup.state == BackupState::Ready && common.of_cluster(backup);
        let of = |region: &'a Region| common.backups.iter().filter(ready).filter(move |backup| backup.region == *region);
        let copied: BTreeSet<&BackupId> = of(&common.dr_region).filter_map(|backup| backup.source_backup.as_ref()).collect();
        let dated = |backup: &'a HsmBackup| Some((backup.created?, &backup.id));
        let alone = of(&common.source_region).filter(|backup| !copied.contains(&backup.id)).filter_map(dated);
        let alone: Dated<'_> = alone.collect();
        let here = sorted(of(&common.dr_region).filter_map(dated));
        // Those that are there, that open, and that would open once they were copied: the best of each may be another.
        let lists: HashMap<&[&SecretArn], [Dated<'_>; 2]> = self
            .views
            .iter()
            .map(|(secrets, view)| {
                let proven = sorted(view.proven.iter().map(|(one, _)| (one.created, &one.id)));
                let with_alone = sorted(proven.iter().chain(&alone).copied());
                (secrets.as_slice(), [proven, with_alone])
            })
            .collect();
        let mut kept: BTreeSet<&BackupId> = lists.values().filter_map(|[proven, _]| proven.last()).map(|(_, id)| *id).collect();
        for host in hosts {
            let looks = || host.inventories.iter().filter(|inventory| stays(inventory));
            let gaps = Gaps::new(common, looks());
            let mut keys: HashMap<(&Sid, MasterKeyId), KeyFacts> = HashMap::new();
            looks().flat_map(Look::all).for_each(|look| self.note_keys(&mut keys, &look));
            for ((sid, key), facts) in &keys {
                let Some(seen) = facts.seen else { continue };
                let gaps = gaps.of(sid, *key);
                let secrets = self.secrets_of(SecretRole::CryptoUser, &host.instance, sid);
                for list in lists.get(secrets.as_slice()).into_iter().flatten().chain([&here]) {
                    let before = list.partition_point(|(created, _)| *created <= seen);
                    let held = |created: Timestamp| gaps.iter().any(|gap| gap.holds(created));
                    kept.extend(list[..before].iter().rev().find(|(created, _)| !held(*created)).map(|(_, id)| *id));
                    kept.extend(list.get(before).map(|(_, id)| *id));
                    if !gaps.is_empty() {
                        let may = list.iter().filter(|(created, _)| gaps.iter().any(|gap| gap.may_have(*created)));
                        kept.extend(may.map(|(_, id)| *id));
                    }
                }
            }
        }
        kept
    }

    fn note_keys(&self, keys: &mut HashMap<(&'a Sid, MasterKeyId), KeyFacts>, look: &Look<'a>) {
        let Look { inventory, database, not_before, not_after } = *look;
        let clock = clock_off(inventory).is_none();
        let place = |facts: &mut KeyFacts, store: Option<Store>| match store {
            Some(Store::Software) => facts.in_keystore = true,
            Some(Store::Hsm) if inventory.provider == Some(Provider::Other) => facts.in_other_hsm = true,
            Some(Store::Hsm) if cluster_proven(self.common, inventory) => facts.in_cluster = true,
            Some(Store::Hsm) => facts.in_unknown_hsm = true,
            None => {}
        };
        for known in &database.known {
            let facts = keys.entry((&database.sid, known.key)).or_default();
            place(facts, known.store);
            if known.store == Some(Store::Hsm) {
                facts.shown = Some(facts.shown.map_or(not_after, |shown| shown.min(not_after)));
                if cluster_seen(self.common, inventory) {
                    facts.seen = facts.seen.max(Some(not_before.plus(-MARGIN)));
                }
            }
            facts.containers.extend(known.container.clone());
            if clock {
                widen(&mut facts.activated, known.activated);
                widen(&mut facts.made, known.created.or(known.activated));
            }
        }
        for need in &database.needs {
            place(keys.entry((&database.sid, need.key)).or_default(), need.store);
        }
    }
}

/// Backups by when they were made.
type Dated<'b> = Vec<(Timestamp, &'b BackupId)>;

fn sorted<'b>(backups: impl Iterator<Item = (Timestamp, &'b BackupId)>) -> Dated<'b> {
    let mut sorted: Dated<'b> = backups.collect();
    sorted.sort_unstable();
    sorted
}

/// Whether the HSM that a look's host was on is the fleet's cluster for sure: its client names HSMs of that and no other.
fn cluster_proven(common: &Common, inventory: &Inventory) -> bool {
    match (&inventory.provider, &common.cluster_addresses) {
        (Some(Provider::CloudHsm { servers: Some(servers) }), Some(cluster)) => !servers.is_empty() && servers.is_subset(cluster),
        _ => false,
    }
}

/// Whether the HSM that a look's host was on may be the fleet's cluster.
pub(super) fn cluster_seen(common: &Common, inventory: &Inventory) -> bool {
    match &inventory.provider {
        Some(Provider::CloudHsm { servers }) => match (servers, &common.cluster_addresses) {
            // HSMs are exchanged, and their addresses with them: strange addresses prove nothing.
            (Some(servers), Some(cluster)) => !servers.is_disjoint(cluster),
            _ => true,
        },
        Some(Provider::Other) | None => false,
    }
}

/// Files that a database without a key in their store opens without.
fn only_for_keys(what: FileKind) -> bool {
    matches!(what, FileKind::KeystoreDir | FileKind::Provider | FileKind::CloudHsmClient)
}

fn widen(span: &mut Option<(Timestamp, Timestamp)>, at: Option<Timestamp>) {
    let Some(at) = at else { return };
    *span = Some(span.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
}

/// By how much a host's clock was off for sure, in seconds: its own time of the look lies outside order and receipt.
fn clock_off(inventory: &Inventory) -> Option<i64> {
    let ahead = inventory.taken_at.since(inventory.received_at);
    let behind = inventory.ordered_at.map_or(0, |ordered| ordered.since(inventory.taken_at));
    Some(ahead.max(behind)).filter(|off| *off > MARGIN)
}

/// Between which moments of AWS time a look was taken.
fn between(inventory: &Inventory) -> (Timestamp, Timestamp) {
    let ordered = inventory.ordered_at.unwrap_or(Timestamp(i64::MIN));
    match clock_off(inventory) {
        Some(_) => (ordered, inventory.received_at),
        None => (ordered.max(inventory.taken_at.plus(-MARGIN)), inventory.received_at.min(inventory.taken_at.plus(MARGIN))),
    }
}

impl<'a> Look<'a> {
    /// One for each database of an inventory.
    pub fn all(inventory: &'a Inventory) -> impl Iterator<Item = Look<'a>> {
        let (not_before, not_after) = between(inventory);
        inventory.databases.iter().map(move |database| Look { inventory, database, not_before, not_after })
    }

    pub fn clear(&self) -> bool {
        self.database.unreadable.is_empty()
            && self.database.blind.is_empty()
            && self.inventory.unreadable.is_empty()
            && clock_off(self.inventory).is_none()
    }

    fn dimness(&self, unknowns: &mut BTreeSet<Unknown>) {
        let at = self.inventory.taken_at;
        unknowns.extend(clock_off(self.inventory).map(|seconds| Unknown::ClockOff { at, seconds }));
        unknowns.extend(self.database.blind.iter().map(|container| Unknown::Blind { at, container: container.clone() }));
        let what = self.database.unreadable.iter().chain(&self.inventory.unreadable);
        unknowns.extend(what.map(|what| Unknown::Unreadable { at, what: what.clone() }));
    }

    fn needs(&self) -> impl Iterator<Item = (MasterKeyId, &NeededBy)> {
        self.database.needs.iter().map(|need| (need.key, &need.needed_by))
    }

    /// Of a key that is listed twice, the first row.
    fn known(&self) -> BTreeMap<MasterKeyId, &KnownKey> {
        let mut known = BTreeMap::new();
        for row in &self.database.known {
            known.entry(row.key).or_insert(row);
        }
        known
    }

    fn files(&self) -> impl Iterator<Item = &FilePlace> {
        self.database.files.iter().chain(&self.inventory.files)
    }
}

impl<'a> Looks<'a> {
    fn new(sid: &'a Sid, looks: Vec<Look<'a>>) -> Looks<'a> {
        let dbid = looks.iter().max_by_key(|look| look.not_after).and_then(|look| look.database.dbid);
        let (clear, dim): (Vec<Look<'a>>, Vec<Look<'a>>) = looks.into_iter().partition(Look::clear);
        Looks { sid, dbid, clear: Side::new(clear), dim: Side::new(dim) }
    }

    /// The last look from before a moment. One that saw everything is worth more than a nearer one: whatever was rotated
    /// in between, the look after the set knows.
    fn before(&self, moment: Timestamp) -> Option<&Look<'a>> {
        self.clear.before(moment).or_else(|| self.dim.before(moment))
    }

    fn after(&self, moment: Timestamp) -> Option<&Look<'a>> {
        self.clear.after(moment).or_else(|| self.dim.after(moment))
    }
}

impl<'a> Side<'a> {
    fn new(mut looks: Vec<Look<'a>>) -> Side<'a> {
        looks.sort_by_key(|look| (look.not_after, look.not_before));
        let mut by_start: Vec<usize> = (0..looks.len()).collect();
        by_start.sort_by_key(|index| looks[*index].not_before);
        Side { looks, by_start }
    }

    fn before(&self, moment: Timestamp) -> Option<&Look<'a>> {
        let count = self.looks.partition_point(|look| look.not_after <= moment);
        self.looks[..count].last()
    }

    fn after(&self, moment: Timestamp) -> Option<&Look<'a>> {
        let first = self.by_start.partition_point(|index| self.looks[*index].not_before < moment);
        self.by_start.get(first).map(|index| &self.looks[*index])
    }
}

impl KeyFacts {
    fn home(&self) -> Home {
        let hsm = [self.in_cluster, self.in_other_hsm, self.in_unknown_hsm];
        match (self.in_keystore, hsm) {
            (true, [false, false, false]) => Home::Keystore,
            (false, [true, false, _]) => Home::Cluster,
            (false, [false, true, _]) => Home::OtherHsm,
            _ => Home::Unknown,
        }
    }

    /// A backup made before the first is proven to lack the key, one made at or after the second to have it.
    fn bounds(&self) -> (Timestamp, Timestamp) {
        let (never, always) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let lower = self.made.map_or(never, |(from, _)| from.plus(-MARGIN));
        let upper =
            self.made.map_or(always, |(_, to)| to.plus(MARGIN)).min(self.shown.map_or(always, |shown| shown.plus(MARGIN)));
        // Seen in an HSM before the host says that it was made: one of the clocks was wrong then.
        if lower > upper { (never, always) } else { (lower, upper) }
    }
}

impl<'a> Case<'_, 'a> {
    fn verdict(&self) -> Verdict {
        let mut found = Found::default();
        let common = self.judge.common;
        if common.unasked.contains(&Ask::Records) {
            found.unknowns.insert(Unknown::NotAsked { what: Ask::Records });
        }
        match self.before {
            None => drop(found.unknowns.insert(Unknown::NoInventoryBefore)),
            Some(look) => look.dimness(&mut found.unknowns),
        }
        match self.after {
            None => drop(found.unknowns.insert(Unknown::NoInventoryAfter)),
            Some(look) => look.dimness(&mut found.unknowns),
        }
        if let (Some(before), Some(after)) = (self.before, self.after)
            && let (Some(a), Some(b)) = (before.database.dbid, after.database.dbid)
            && a != b
        {
            found.unknowns.insert(Unknown::OtherDatabase { at: after.inventory.taken_at });
        }
        let places = self.places();
        self.files(&places, &mut found);
        self.keys(&places, &mut found);
        let Found { causes, unknowns, backup, secrets, keystore, hsm_keys, software_keys } = found;
        if !causes.is_empty() {
            return Verdict::DoesNotOpen { causes: causes.into_iter().collect(), unknowns: unknowns.into_iter().collect() };
        }
        if !unknowns.is_empty() {
            return Verdict::NotProven { unknowns: unknowns.into_iter().collect() };
        }
        let copies: Vec<_> =
            self.set.parts.iter().filter_map(|part| part.copy.as_ref()).filter(|c| c.state == SnapshotState::Completed).collect();
        let replicas = secrets.iter().filter_map(|(_, one)| self.judge.secrets.get(&secrets::without_region(&one.arn)));
        let of_secrets = replicas.filter_map(|replica| replica.kms_key.clone());
        Verdict::Opens(Opening {
            snapshots: copies.iter().map(|copy| copy.id.clone()).collect(),
            kms_keys: copies.iter().filter_map(|copy| copy.kms_key.clone()).chain(of_secrets).collect(),
            backup,
            secrets,
            keystore,
            hsm_keys,
            software_keys,
        })
    }

    fn looks(&self) -> impl Iterator<Item = &Look<'a>> {
        self.before.into_iter().chain(self.after)
    }

    /// Volumes that files of the database lie on: which of them all looks name, and what is there.
    fn places(&self) -> Places<'_> {
        let mut places = Places::default();
        let looks = self.looks().count();
        let mut named: BTreeMap<&VolumeId, (usize, usize)> = BTreeMap::new();
        for (index, look) in self.looks().enumerate() {
            for file in look.files() {
                match (&file.volume, file.ephemeral) {
                    (Some(volume), _) => {
                        let (count, last) = named.entry(volume).or_insert((0, usize::MAX));
                        if *last != index {
                            (*count, *last) = (*count + 1, index);
                        }
                        places.files.entry(volume).or_default().push(file);
                    }
                    (None, ephemeral) => {
                        let count = places.nowhere.entry((file.what, file.path.as_str(), ephemeral)).or_insert(0);
                        *count += 1;
                    }
                }
            }
        }
        places.sure = named.iter().filter(|(_, (count, _))| *count == looks).map(|(volume, _)| *volume).collect();
        places.looks = looks;
        places
    }

    fn files(&self, places: &Places<'_>, found: &mut Found) {
        for look in self.looks() {
            for what in [FileKind::Datafile, FileKind::Controlfile, FileKind::RedoLog] {
                if !look.database.files.iter().any(|file| file.what == what) {
                    found.unknowns.insert(Unknown::NoFilesKnown { at: look.inventory.taken_at, what });
                }
            }
        }
        for ((what, path, ephemeral), count) in &places.nowhere {
            if only_for_keys(*what) {
                continue;
            }
            self.nowhere(*what, path, *ephemeral && *count >= places.looks, found);
        }
        let mut starts = BTreeSet::new();
        for (volume, files) in &places.files {
            if files.iter().all(|file| only_for_keys(file.what)) {
                continue;
            }
            starts.extend(self.part(volume).map(Start::of));
            self.volume(volume, files, places.sure.contains(volume), found);
        }
        if starts.is_empty() {
            starts.extend(self.set.parts.iter().map(Start::of));
        }
        match self.set.consistency.over(&starts) {
            Some(Consistency::BackupMode) if !self.redo_comes_last(places) => {
                found.unknowns.insert(Unknown::Consistency);
            }
            Some(Consistency::CrashConsistent | Consistency::BackupMode) => {}
            Some(Consistency::None) => drop(found.causes.insert(Cause::Inconsistent)),
            None => drop(found.unknowns.insert(Unknown::Consistency)),
        }
    }

    /// In backup mode recovery reads on to END BACKUP: redo of before the data does not have it, and a control file of before
    /// the data does not know of it.
    fn redo_comes_last(&self, places: &Places<'_>) -> bool {
        let starts = |of: fn(FileKind) -> bool| {
            let volumes = places.files.iter().filter(move |(_, files)| files.iter().any(|file| of(file.what)));
            volumes.filter_map(|(volume, _)| self.part(volume)).map(Start::of)
        };
        let data: Vec<Start> = starts(|what| what == FileKind::Datafile).collect();
        starts(|what| matches!(what, FileKind::RedoLog | FileKind::Controlfile | FileKind::ArchivedLogs | FileKind::RecoveryArea))
            .all(|late| data.iter().all(|data| late == *data || late.follows(*data)))
    }

    fn part(&self, volume: &VolumeId) -> Option<&Part> {
        self.set.parts.iter().find(|part| part.volume == *volume)
    }

    /// Whether a volume of the point is there, finished and readable.
    fn volume(&self, volume: &VolumeId, files: &[&FilePlace], sure: bool, found: &mut Found) {
        let (mut causes, mut unknowns) = (Vec::new(), Vec::new());
        match self.part(volume) {
            None => causes.push(self.absent(volume, files)),
            Some(part) => self.copy(part, &mut causes, &mut unknowns),
        }
        if sure {
            found.causes.extend(causes);
            found.unknowns.extend(unknowns);
        } else if !causes.is_empty() || !unknowns.is_empty() {
            found.unknowns.insert(Unknown::VolumePerhapsMissing { volume: volume.clone() });
        }
    }

    fn absent(&self, volume: &VolumeId, files: &[&FilePlace]) -> Cause {
        let control = files.iter().find(|file| file.what == FileKind::Controlfile);
        // One set alone does not tell whether sets leave the volume out or this one did.
        let outside = !self.elsewhere.contains_key(volume) && (!self.alone || control.is_some());
        match control.or_else(|| files.iter().min()).filter(|_| outside) {
            Some(file) => Cause::FileOutside { volume: volume.clone(), what: file.what, path: file.path.clone() },
            None => {
                let kinds: BTreeSet<FileKind> = files.iter().map(|file| file.what).collect();
                Cause::VolumeMissing { volume: volume.clone(), files: kinds.into_iter().collect() }
            }
        }
    }

    fn copy(&self, part: &Part, causes: &mut Vec<Cause>, unknowns: &mut Vec<Unknown>) {
        let Some(copy) = &part.copy else {
            match self.judge.common.unasked.contains(&Ask::DrSnapshots) {
                true => unknowns.push(Unknown::NotAsked { what: Ask::DrSnapshots }),
                false => causes.push(Cause::CopyMissing { source: part.source.clone() }),
            }
            return;
        };
        let id = copy.id.clone();
        match copy.state {
            SnapshotState::Completed if copy.archived => causes.push(Cause::CopyArchived { copy: id.clone() }),
            SnapshotState::Completed => {}
            SnapshotState::Pending => causes.push(Cause::CopyPending { copy: id.clone() }),
            SnapshotState::Error | SnapshotState::Recoverable | SnapshotState::Recovering => {
                causes.push(Cause::CopyFailed { copy: id.clone() });
            }
            SnapshotState::Unknown => unknowns.push(Unknown::CopyState { copy: id.clone() }),
        }
        if copy.state != SnapshotState::Completed || !copy.encrypted {
            return;
        }
        let state = copy.kms_key.as_ref().and_then(|key| self.judge.kms.get(key).map(|state| (key, *state)));
        match state {
            Some((_, KmsState::Enabled)) => {}
            Some((key, state @ (KmsState::Disabled | KmsState::PendingDeletion | KmsState::NotFound))) => {
                causes.push(Cause::CopyKeyUnusable { copy: id, key: key.clone(), state });
            }
            Some((_, KmsState::Unknown)) | None => unknowns.push(Unknown::CopyKey { copy: id, key: copy.kms_key.clone() }),
        }
    }

    fn keys(&self, places: &Places<'_>, found: &mut Found) {
        // With a look on one side only, any key of it may have been rotated away or in: nothing is needed for sure.
        let (Some(before), Some(after)) = (self.before, self.after) else { return };
        let need = self.need(before, after);
        let mut cluster = Need::default();
        let mut software = Need::default();
        let all = need.sure.iter().map(|(key, unseen)| (*key, Some(*unseen))).chain(need.perhaps.iter().map(|key| (*key, None)));
        for (key, sure) in all {
            let home = self.keys.get(&(self.sid, key)).map_or(Home::Unknown, KeyFacts::home);
            let side = match home {
                Home::Cluster => &mut cluster,
                Home::Keystore => &mut software,
                Home::OtherHsm => {
                    match sure {
                        Some(_) => drop(found.causes.insert(Cause::KeyInOldHsm { key })),
                        None => drop(found.unknowns.insert(Unknown::KeyPerhapsNeeded { key })),
                    }
                    continue;
                }
                Home::Unknown => {
                    found.unknowns.insert(Unknown::KeyPlace { key });
                    continue;
                }
            };
            match sure {
                Some(unseen) => drop(side.sure.insert(key, unseen)),
                None => drop(side.perhaps.insert(key)),
            }
        }
        if !cluster.is_empty() {
            self.client(places, found);
            self.hsm(&cluster, found);
            found.hsm_keys = cluster.all().collect();
        }
        if !software.is_empty() {
            self.keystore(&software, before, after, places, found);
            found.software_keys = software.all().collect();
        }
    }

    /// Which keys the set needs, see the module's first comment.
    fn need(&self, before: &Look<'_>, after: &Look<'_>) -> Need {
        // Redo of a former key may be checkpointed by now: it is never needed for sure.
        let firmly = |look: &Look<'_>| -> BTreeSet<MasterKeyId> {
            look.needs().filter(|(_, by)| !matches!(by, NeededBy::Redo(_))).map(|(key, _)| key).collect()
        };
        let (firm_before, firm_after) = (firmly(before), firmly(after));
        let of_before: BTreeSet<MasterKeyId> = before.needs().map(|(key, _)| key).collect();
        let of_after: BTreeSet<MasterKeyId> = after.needs().map(|(key, _)| key).collect();
        let (known_before, known_after) = (before.known(), after.known());
        let all: BTreeSet<MasterKeyId> = known_before.keys().chain(known_after.keys()).copied().collect();
        let rotated: BTreeSet<MasterKeyId> =
            known_after.values().filter(|known| rotated_in(known, before, &known_before)).map(|known| known.key).collect();
        let mut need = Need::default();
        for key in of_before.iter().chain(&of_after).chain(&rotated).copied() {
            let facts = self.keys.get(&(self.sid, key));
            let activated = facts.and_then(|facts| facts.activated);
            let unseen = !of_before.contains(&key) && !known_before.contains_key(&key);
            // Nothing of the set can be written under a key that came into use after it.
            if !of_before.contains(&key) && activated.is_some_and(|(from, _)| from > self.set.last.plus(MARGIN)) {
                continue;
            }
            let kept = firm_before.contains(&key) && firm_after.contains(&key);
            if kept || self.active(key, before, after, &all) {
                need.perhaps.remove(&key);
                need.sure.insert(key, unseen);
            } else if !need.sure.contains_key(&key) {
                need.perhaps.insert(key);
            }
        }
        need
    }

    /// Whether a key was the active one of a container for sure while the set was taken. `known`: by either look.
    fn active(&self, key: MasterKeyId, before: &Look<'_>, after: &Look<'_>, known: &BTreeSet<MasterKeyId>) -> bool {
        let (first, last) = (self.set.first, self.set.last);
        let facts = |key: MasterKeyId| self.keys.get(&(self.sid, key));
        let Some(own) = facts(key) else { return false };
        let Some((from, to)) = own.activated else { return false };
        if to.plus(MARGIN) > first || own.containers.len() != 1 {
            return false;
        }
        let named = before
            .needs()
            .chain(after.needs())
            .any(|(k, by)| k == key && matches!(by, NeededBy::Container(container) if own.containers.contains(container)));
        // A key that no look calls active was active between them if it was activated there.
        let between = from >= before.inventory.taken_at;
        (named || between)
            && known.iter().filter(|other| **other != key).all(|other| {
                let Some(other) = facts(*other) else { return false };
                if !other.containers.is_empty() && other.containers.is_disjoint(&own.containers) {
                    return true;
                }
                match other.activated {
                    Some((begin, end)) => end < from || begin > last.plus(MARGIN),
                    // Made and never used.
                    None => other.made.is_some(),
                }
            })
    }

    /// The library and the client's configuration are needed where a key of the HSM is.
    fn client(&self, places: &Places<'_>, found: &mut Found) {
        let of_client = |what: FileKind| matches!(what, FileKind::Provider | FileKind::CloudHsmClient);
        for (volume, files) in &places.files {
            // What lies beside other files was looked at with them.
            if files.iter().any(|file| of_client(file.what)) && files.iter().all(|file| only_for_keys(file.what)) {
                self.volume(volume, files, places.sure.contains(volume), found);
            }
        }
        for ((what, path, ephemeral), count) in places.nowhere.iter().filter(|((what, ..), _)| of_client(*what)) {
            self.nowhere(*what, path, *ephemeral && *count >= places.looks, found);
        }
    }

    fn nowhere(&self, what: FileKind, path: &str, lost: bool, found: &mut Found) {
        let path = path.to_owned();
        match lost {
            true => drop(found.causes.insert(Cause::FileOnNoVolume { what, path })),
            false => drop(found.unknowns.insert(Unknown::FilePlace { what, path })),
        }
    }

    fn hsm(&self, need: &Need, found: &mut Found) {
        let common = self.judge.common;
        if common.unasked.contains(&Ask::DrBackups) {
            found.unknowns.insert(Unknown::NotAsked { what: Ask::DrBackups });
            return;
        }
        let list = self.judge.secrets_of(SecretRole::CryptoUser, &self.host.instance, self.sid);
        let Some(view) = self.judge.views.get(&list) else { return };
        let bounds = |key: &MasterKeyId| {
            self.keys.get(&(self.sid, *key)).map_or((Timestamp(i64::MIN), Timestamp(i64::MAX)), KeyFacts::bounds)
        };
        let newest = view.newest.as_ref().map(|(created, _)| *created);
        let beyond = |at: Option<Timestamp>, key: &MasterKeyId| at.is_none_or(|at| at < bounds(key).0);
        let mut absent = false;
        for (key, unseen) in need.sure.iter().filter(|(key, _)| beyond(newest, key)) {
            absent = true;
            if let Some(undated) = &view.undated {
                found.unknowns.insert(Unknown::KeyInBackup { key: *key, backup: Some(undated.clone()) });
                continue;
            }
            found.causes.insert(self.missing(*key, *unseen, newest, beyond(self.judge.newest_anywhere, key)));
        }
        if absent {
            return;
        }
        let not_gone = view.not_gone.as_ref().map(|(created, ..)| *created);
        if need.sure.keys().any(|key| beyond(not_gone, key)) {
            let gone = view.newest.iter().flat_map(|(_, password)| &password.gone);
            match &view.undated {
                None => found.causes.extend(gone.cloned()),
                Some(undated) => {
                    let backup = Some(undated.clone());
                    found.unknowns.extend(need.sure.keys().map(|key| Unknown::KeyInBackup { key: *key, backup: backup.clone() }));
                }
            }
            return;
        }
        let gap = |key: MasterKeyId, at: Timestamp| self.gaps.of(self.sid, key).iter().find(|gap| gap.holds(at));
        let has = |key: MasterKeyId, at: Timestamp| at >= bounds(&key).1 && gap(key, at).is_none();
        let seen = |key: MasterKeyId| self.keys.get(&(self.sid, key)).and_then(|facts| facts.seen);
        let mut usable = view.proven.iter().filter(|(choice, _)| need.all().all(|key| has(key, choice.created))).peekable();
        let newest = usable.peek().copied();
        // One from before a look that still shows every key is worth more than one that was made since: nobody may look any more
        // at a host whose keys are then taken out of the HSM.
        let looked_at = usable.find(|(choice, _)| need.all().all(|key| Some(choice.created) <= seen(key)));
        if let Some((choice, versions)) = looked_at.or(newest) {
            found.backup = Some(choice.clone());
            found.secrets.extend(versions.iter().map(|version| (SecretRole::CryptoUser, version.clone())));
            return;
        }
        let proven = view.proven.first().map(|(choice, _)| (choice.created, choice.id.clone()));
        if let Some((created, _, password)) = &view.not_gone
            && proven.as_ref().is_none_or(|(at, _)| at < created)
        {
            found.unknowns.extend(password.unknown.iter().cloned());
        }
        let at = proven.or_else(|| view.not_gone.as_ref().map(|(created, id, _)| (*created, id.clone())));
        for key in need.all() {
            let (lower, upper) = bounds(&key);
            match &at {
                Some((at, id)) if *at >= lower && *at < upper => {
                    found.unknowns.insert(Unknown::KeyInBackup { key, backup: Some(id.clone()) });
                }
                Some((at, id)) if *at >= lower => {
                    let gone = |missed| Unknown::KeyNoLongerListed { key, backup: id.clone(), missed };
                    found.unknowns.extend(gap(key, *at).map(|gap| gone(gap.missed)));
                }
                _ if need.perhaps.contains(&key) => drop(found.unknowns.insert(Unknown::KeyPerhapsNeeded { key })),
                _ => {}
            }
        }
    }

    fn missing(&self, key: MasterKeyId, unseen: bool, newest_copied: Option<Timestamp>, nowhere: bool) -> Cause {
        let facts = self.keys.get(&(self.sid, key));
        let activated = facts.and_then(|facts| facts.activated).map(|(_, to)| to);
        if let Some(activated) = activated.filter(|_| unseen) {
            let container = facts.and_then(|facts| facts.containers.first().cloned());
            return Cause::KeyRotatedUnseen { key, container, activated, newest_copied };
        }
        match nowhere && !self.judge.common.unasked.contains(&Ask::SourceBackups) {
            true => Cause::KeyInNoBackup { key, newest: self.judge.newest_anywhere },
            false => Cause::BackupNotCopied { key, newest_copied },
        }
    }

    /// Keys of the software keystore: its file and its password, or nothing. An auto-login file that opens anywhere may be
    /// older than a key.
    fn keystore(&self, need: &Need, before: &Look<'_>, after: &Look<'_>, places: &Places<'_>, found: &mut Found) {
        let (was, is) = (&before.database.keystore, &after.database.keystore);
        let directory = is.directory.clone().or_else(|| was.directory.clone());
        let mut causes: Vec<fn(MasterKeyId, Option<String>) -> Cause> = Vec::new();
        let mut other_causes = Vec::new();
        let mut doubts: Vec<fn(MasterKeyId, Option<String>) -> Unknown> = Vec::new();
        let mut unknowns = Vec::new();
        let only: fn(MasterKeyId, Option<String>) -> Cause = |key, directory| Cause::KeyInKeystoreOnly { key, directory };
        let local: fn(MasterKeyId, Option<String>) -> Cause = |key, directory| Cause::LocalAutoLoginOnly { key, directory };
        let kind: fn(MasterKeyId, Option<String>) -> Unknown = |key, directory| Unknown::KeystoreKind { key, directory };
        let content: fn(MasterKeyId, Option<String>) -> Unknown = |key, directory| Unknown::AutoLoginContent { key, directory };

        // The directory must be in the set.
        let mut known = false;
        for (volume, files) in &places.files {
            if !files.iter().any(|file| file.what == FileKind::KeystoreDir) {
                continue;
            }
            known = true;
            match self.part(volume) {
                None if places.sure.contains(volume) => causes.push(only),
                None => unknowns.push(Unknown::VolumePerhapsMissing { volume: (*volume).clone() }),
                Some(part) => {
                    let (mut of_copy, mut of_doubt) = (Vec::new(), Vec::new());
                    self.copy(part, &mut of_copy, &mut of_doubt);
                    other_causes.append(&mut of_copy);
                    unknowns.append(&mut of_doubt);
                }
            }
        }
        for (what, path, ephemeral) in places.nowhere.keys().filter(|(what, ..)| *what == FileKind::KeystoreDir) {
            known = true;
            match ephemeral {
                true => causes.push(only),
                false => unknowns.push(Unknown::FilePlace { what: *what, path: (*path).to_owned() }),
            }
        }
        if !known {
            unknowns.push(Unknown::NoFilesKnown { at: after.inventory.taken_at, what: FileKind::KeystoreDir });
        }

        let list = self.judge.secrets_of(SecretRole::Keystore, &self.host.instance, self.sid);
        let recorded = self.set.secrets.iter().copied();
        let password = self.judge.password(SecretRole::Keystore, &list, recorded, self.set.first);
        let auto_login = was.auto_login && is.auto_login;
        let opens_elsewhere = if was.local == is.local { is.local.map(|local| !local) } else { None };
        match (was.p12, is.p12) {
            (true, true) if password.gone.is_empty() && password.unknown.is_empty() => {}
            (true, true) => match (auto_login, opens_elsewhere, password.gone.is_empty()) {
                // Nobody has a password, and what opens without one opens on its own host alone.
                (true, Some(false), true) if list.is_empty() => causes.push(local),
                (_, _, true) => unknowns.extend(password.unknown.iter().cloned()),
                (true, Some(false), false) => {
                    causes.push(local);
                    other_causes.extend(password.gone.iter().cloned());
                }
                (true, Some(true), false) => doubts.push(content),
                (true, None, false) => doubts.push(kind),
                (false, ..) => other_causes.extend(password.gone.iter().cloned()),
            },
            (false, false) => match (was.auto_login, is.auto_login, opens_elsewhere) {
                (false, false, _) => causes.push(only),
                (true, true, Some(false)) => causes.push(local),
                (true, true, Some(true)) => doubts.push(content),
                _ => doubts.push(kind),
            },
            _ => doubts.push(kind),
        }
        if causes.is_empty() && other_causes.is_empty() && doubts.is_empty() && unknowns.is_empty() {
            found.keystore = directory;
            found.secrets.extend(password.versions.into_iter().map(|version| (SecretRole::Keystore, version)));
            return;
        }
        if need.sure.is_empty() {
            found.unknowns.extend(need.perhaps.iter().map(|key| Unknown::KeyPerhapsNeeded { key: *key }));
            return;
        }
        for key in need.sure.keys() {
            found.causes.extend(causes.iter().map(|cause| cause(*key, directory.clone())));
            found.unknowns.extend(doubts.iter().map(|doubt| doubt(*key, directory.clone())));
        }
        found.causes.extend(other_causes);
        found.unknowns.extend(unknowns);
    }
}

impl Need {
    fn is_empty(&self) -> bool {
        self.sure.is_empty() && self.perhaps.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = MasterKeyId> {
        self.sure.keys().chain(&self.perhaps).copied()
    }
}

/// Whether a key that neither look needs may have been in use between them. `known_before`: to the look before.
fn rotated_in(known: &KnownKey, before: &Look<'_>, known_before: &BTreeMap<MasterKeyId, &KnownKey>) -> bool {
    match known.activated {
        // A host's times are compared with each other, without a margin.
        Some(activated) => activated >= before.inventory.taken_at,
        // Made and never used, or it was there before; else its time cannot be read.
        None => known.created.is_none() && !known_before.contains_key(&known.key),
    }
}
