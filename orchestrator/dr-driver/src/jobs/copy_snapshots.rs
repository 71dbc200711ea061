//! Copies of the sets that should be in the DR region: begun, never waited for.
//!
//! What is wanted is every set of the fleet's snapshots that the source region holds; what is there is what the DR region says
//! and what the records know. The difference, in the planner's order, is begun until the region takes no more.

use crate::calls::{self, Sent, begin_copy};
use crate::world::{Asker, Records, bare, believed, volumes};
use crate::{Hint, Unit, passwords, survey};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::copying::{self, CopyPlan, CopyStatus, Limits, Timed, WaitsFor};
use tde2hsm_dr::facts::{Consistency, FleetInstance, Secret, Snapshot, SnapshotState, tag};
use tde2hsm_dr::points::{Judge, Point, SecretRole, gather};
use tde2hsm_dr::records::CopyIntent;
use tde2hsm_protocol::{Code, Severity, SnapshotId};

/// How often in one run others are chosen for places that were refused.
const ROUNDS: usize = 5;

pub async fn run(asker: &mut Asker<'_>, hint: &Hint) {
    let Some(instances) = asker.instances().await else { return };
    if let Hint::Snapshots(ids) = hint
        && !any_of_the_fleet(asker, ids, &instances).await
    {
        asker.outcome.add("hints-foreign", 1);
        return;
    }
    let attached = volumes(&instances, &Records::default(), std::iter::empty());
    let Some(sources) = asker.source_snapshots(&attached).await else { return };
    // Copies whose record says how they went need not be known beyond the sources that still are there.
    let ids: BTreeSet<SnapshotId> = sources.iter().map(|snapshot| snapshot.id.clone()).collect();
    let Some(mut records) = asker.copy_records(Some(&ids)).await else { return };
    let known = asker.dr_snapshots().await;
    // Without the list of copies there is no telling what is lacking.
    if let Some(copies) = known {
        let copies = believed(copies, &records, &mut asker.outcome);
        begin(asker, hint, &instances, &sources, copies, &mut records).await;
    }
    if let Some(document) = asker.config.document.clone() {
        survey::step(asker, &document, &instances, &survey::set_times(&instances, &sources)).await;
    }
}

/// H37: an event names ids; each is described again, and only one of a volume of the fleet counts. What could not be asked is
/// looked into.
async fn any_of_the_fleet(asker: &mut Asker<'_>, ids: &BTreeSet<SnapshotId>, instances: &[FleetInstance]) -> bool {
    let attached = volumes(instances, &Records::default(), std::iter::empty());
    let region = asker.config.source_region.clone();
    for id in ids {
        let answer = asker.cloud.snapshot(&region, id).await;
        match asker.note(&region, answer) {
            Some(Some(found)) if found.volume.as_ref().is_some_and(|volume| attached.contains(volume)) => return true,
            Some(_) => {}
            None => return true,
        }
    }
    false
}

async fn begin(
    asker: &mut Asker<'_>,
    hint: &Hint,
    instances: &[FleetInstance],
    sources: &[Snapshot],
    copies: Vec<Snapshot>,
    records: &mut Records,
) {
    let pending = in_flight(asker, &copies).await;
    let in_flight = pending.len();
    asker.outcome.metric("CopiesInFlight", Unit::Count, in_flight as f64, &[]);
    let limits = Limits { timed: asker.config.timed.left(&pending), ..asker.config.limits() };
    let intents = records.copies.values().map(|read| read.value.intent.clone()).collect();
    let all = sources.iter().cloned().chain(copies).collect();
    let (hosts, _) = gather(&asker.config.source_region, instances.to_vec(), all, Vec::new(), intents);
    let common = bare(asker.now, asker.config);
    let judge = Judge::new(&common);
    let (mut points, mut wanted) = (Vec::new(), Vec::new());
    for host in &hosts {
        let of_host = judge.host(host);
        wanted.extend(copying::wanted(host, &of_host, &asker.config.retention));
        points.extend(of_host);
    }
    let mut waiting = 0;
    wanted.retain(|one| {
        let there = matches!(one.copy, CopyStatus::Completed | CopyStatus::Pending);
        // A refusal under another KMS key says nothing of this one.
        let known = records.copies.get(&one.source).map(|read| &read.value);
        let known = known.filter(|record| record.intent.kms_key == asker.config.kms_key);
        let paused = !there && known.is_some_and(|record| calls::pauses(asker, hint, record));
        waiting += usize::from(paused);
        !paused
    });
    let mut places_taken = in_flight;
    let mut limits = limits;
    let mut plan = copying::plan(&wanted, u16::try_from(places_taken).unwrap_or(u16::MAX), asker.now, &limits);
    let secrets = secrets_of_now(asker, &plan, records).await;
    let by_id: BTreeMap<&SnapshotId, &Snapshot> = sources.iter().map(|source| (&source.id, source)).collect();
    for _ in 0..ROUNDS {
        let mut refused = BTreeSet::new();
        let mut full = false;
        for (n, one) in plan.begin.iter().enumerate() {
            let Some((source, point)) =
                by_id.get(&one.source).zip(points.iter().find(|p| p.parts.iter().any(|part| part.source == one.source)))
            else {
                continue;
            };
            let Some(mut intent) = intent(asker, source, point, &secrets) else { continue };
            intent.instance_profile =
                instances.iter().find(|one| one.instance == point.instance).and_then(|one| one.instance_profile.clone());
            let known = records.copies.get(&one.source).cloned();
            match begin_copy(asker, known, intent, one.minutes).await {
                Sent::Full => {
                    waiting += plan.begin.len() - n;
                    full = true;
                    break;
                }
                Sent::Refused => drop(refused.insert(one.source.clone())),
                Sent::Begun | Sent::Unknown | Sent::Not => places_taken += 1,
            }
        }
        if full || refused.is_empty() {
            break;
        }
        // What is refused leaves its place to others: else a host whose copies are refused for good, and which goes first because
        // nothing of it is copied, would keep the whole fleet waiting.
        wanted.retain(|one| !refused.contains(&one.source) && !plan.begin.iter().any(|begun| begun.source == one.source));
        // What throughput is left is known at the next run.
        limits.timed = Timed::Never;
        plan = copying::plan(&wanted, u16::try_from(places_taken).unwrap_or(u16::MAX), asker.now, &limits);
    }
    waiting += plan.waiting.len();
    asker.outcome.metric("CopiesWaiting", Unit::Count, waiting as f64, &[]);
    if waiting > 0 {
        asker.outcome.add("copies-waiting", waiting as u64);
    }
    for one in &plan.waiting {
        if one.why == WaitsFor::SourceUnusable {
            let text = format!("`{}` of the set `{}` failed or is archived", one.source, one.set.0);
            asker.outcome.say(Severity::Warning, Code::SNAPSHOT_UNUSABLE, text);
        }
    }
}

/// Every copy that takes a place in the DR region: ours, and whatever else the account copies there, which the limit counts as
/// well (`A§3.3`). Where that cannot be asked, ours alone: then the wall is met, and queues.
async fn in_flight(asker: &mut Asker<'_>, copies: &[Snapshot]) -> Vec<Snapshot> {
    let region = asker.config.dr_region.clone();
    let question = asker.cloud.copies_in_flight(&region);
    let all = asker.ask(&region, "ec2:DescribeSnapshots", question).await.unwrap_or_default();
    let ours = copies.iter().filter(|copy| copy.state == SnapshotState::Pending).cloned();
    let by_id: BTreeMap<SnapshotId, Snapshot> = all.into_iter().chain(ours).map(|copy| (copy.id.clone(), copy)).collect();
    by_id.into_values().collect()
}

/// Secrets of software keystores as they are now, to note which version a set was taken under (H42), where something is begun or a
/// record lacks it.
async fn secrets_of_now(asker: &mut Asker<'_>, plan: &CopyPlan, records: &mut Records) -> Vec<Secret> {
    let keystores = passwords::used(&asker.secret_uses().await, SecretRole::Keystore);
    if plan.begin.is_empty() && !records.copies.values().any(|read| passwords::lacks(&read.value, &keystores)) {
        return Vec::new();
    }
    let found = passwords::of_now(asker, &keystores).await;
    passwords::complete(asker, &mut records.copies, &found).await;
    found
}

fn intent(asker: &Asker<'_>, source: &Snapshot, point: &Point, keystore_secrets: &[Secret]) -> Option<CopyIntent> {
    let part = point.parts.iter().find(|part| part.source == source.id)?;
    let consistency = source.tags.get(tag::CONSISTENCY).and_then(|word| consistency(word));
    Some(CopyIntent {
        v: 1,
        source: source.id.clone(),
        source_region: asker.config.source_region.clone(),
        set: point.set.clone(),
        instance: point.instance.clone(),
        volume: part.volume.clone(),
        device: part.device.clone(),
        root: part.root,
        instance_profile: None,
        size_gib: source.size_gib,
        started: source.started,
        started_ms: Some(source.started_ms),
        consistency,
        kms_key: asker.config.kms_key.clone(),
        attempts: Vec::new(),
        secrets: passwords::at(keystore_secrets, source.started),
        expired: None,
    })
}

fn consistency(word: &str) -> Option<Consistency> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
