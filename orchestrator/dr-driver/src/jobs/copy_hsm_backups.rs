//! Copies of the cluster's backups, and what must stay for them to be of use: the backup itself until its copy is READY (H45),
//! and the version of the crypto user's secret that was current at its time (H42).
//!
//! A restored HSM knows the password of the backup's time. Which version that was can be seen only for a while, so it is
//! written down with the intent; and a version without a stage is removed sooner or later, so it gets one of ours.

use crate::calls::{self, Sent, begin_hsm_copy};
use crate::passwords;
use crate::store::{self, HsmCopyRecord, Read};
use crate::world::{Asker, Records, bare};
use crate::{Hint, Unit};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::copying;
use tde2hsm_dr::facts::{BackupState, HsmBackup, Secret};
use tde2hsm_dr::points::{Common, SecretRole};
use tde2hsm_dr::records::HsmCopyIntent;
use tde2hsm_dr::secrets;
use tde2hsm_protocol::{BackupId, Code, SecretArn, SecretVersion, Severity};

pub async fn run(asker: &mut Asker<'_>, hint: &Hint) {
    let mut records = Records::default();
    if asker.hsm_copy_records(&mut records).await.is_none() {
        return;
    }
    let Some(sources) = asker.source_backups().await else { return };
    let ids: BTreeSet<BackupId> = sources.iter().map(|backup| backup.id.clone()).collect();
    let copies = asker.dr_backups(&ids).await;
    let uses = asker.secret_uses().await;
    let secrets: Vec<Secret> = passwords::of_now(asker, &uses.iter().map(|one| one.secret.clone()).collect()).await;
    let users = passwords::used(&uses, SecretRole::CryptoUser);
    let users: Vec<Secret> = secrets.iter().filter(|secret| users.contains(&secret.arn)).cloned().collect();
    passwords::complete(asker, &mut records.hsm_copies, &users).await;
    if let Some(copies) = copies {
        begin(asker, hint, &sources, &copies, &records, &users).await;
    }
    keep_versions(asker, &sources, &records, &secrets).await;
}

async fn begin(
    asker: &mut Asker<'_>,
    hint: &Hint,
    sources: &[HsmBackup],
    copies: &[HsmBackup],
    records: &Records,
    users: &[Secret],
) {
    let common = Common {
        backups: sources.iter().chain(copies).cloned().collect(),
        hsm_copies: records.hsm_copies.values().map(|read| read.value.intent.clone()).collect(),
        ..bare(asker.now, asker.config)
    };
    let mut plan = copying::plan_hsm(&common, asker.config.hsm_backup_retention_days);
    for list in [&mut plan.copy, &mut plan.keep] {
        list.retain(|id| !records.hsm_copies.get(id).is_some_and(|read| read.value.expired()));
    }
    // What is paused is held from its purge all the same.
    let paused = plan.copy.len();
    plan.copy.retain(|id| !records.hsm_copies.get(id).is_some_and(|read| calls::pauses(asker, hint, &read.value)));
    let mut waiting = plan.settling.len() + paused - plan.copy.len();
    let region = asker.config.source_region.clone();
    let by_id: BTreeMap<&BackupId, &HsmBackup> = sources.iter().map(|backup| (&backup.id, backup)).collect();
    let intent = |id: &BackupId| -> Option<HsmCopyIntent> {
        let backup = by_id.get(id)?;
        let created = backup.created?;
        Some(HsmCopyIntent {
            v: 1,
            source: backup.id.clone(),
            source_region: region.clone(),
            cluster: asker.config.cluster.clone(),
            created,
            attempts: Vec::new(),
            secrets: passwords::at(users, created),
            held: false,
        })
    };
    let to_copy: Vec<(BackupId, HsmCopyIntent)> = plan.copy.iter().filter_map(|id| Some((id.clone(), intent(id)?))).collect();
    let to_hold: Vec<(BackupId, HsmCopyIntent)> = plan.keep.iter().filter_map(|id| Some((id.clone(), intent(id)?))).collect();
    let mut known = records.hsm_copies.clone();
    for (id, intent) in to_hold {
        // What somebody else keeps from its purge stays theirs: we never take that mark away.
        if by_id.get(&id).is_none_or(|backup| backup.never_expires == Some(true)) {
            continue;
        }
        hold(asker, &id, intent, &mut known).await;
    }
    let mut order = to_copy.into_iter();
    for (id, intent) in order.by_ref() {
        if begin_hsm_copy(asker, known.get(&id).cloned(), intent).await == Sent::Full {
            waiting += 1;
            break;
        }
    }
    waiting += order.count();
    asker.outcome.metric("HsmCopiesWaiting", Unit::Count, waiting as f64, &[]);
}

/// Keeps a backup from its cluster's purge until its copy is READY (H45). That it was us is written down before, so that the
/// mark can be taken away again.
async fn hold(asker: &mut Asker<'_>, id: &BackupId, intent: HsmCopyIntent, known: &mut BTreeMap<BackupId, Read<HsmCopyRecord>>) {
    let (mut record, etag) = match known.get(id) {
        Some(read) => (read.value.clone(), Some(read.etag.clone())),
        None => (HsmCopyRecord::new(intent), None),
    };
    if !record.intent.held {
        record.intent.held = true;
        let Some(etag) = asker.write(&store::hsm_copy_key(id), &record, etag.as_deref()).await else { return };
        known.insert(id.clone(), Read { value: record, etag });
    }
    let region = asker.config.source_region.clone();
    let answer = asker.cloud.keep_hsm_backup(&region, id, true).await;
    if asker.note(&region, answer).is_some() {
        asker.outcome.add("backups-held", 1);
    }
}

/// Gives every version that is current, was it last, or was current for a backup that is still there a stage of ours. The last one
/// may be wanted by what was made while its secret gave no answer. Taken away again by expire-copies, when nothing needs the version.
async fn keep_versions(asker: &mut Asker<'_>, sources: &[HsmBackup], records: &Records, found: &[Secret]) {
    let there: BTreeSet<&BackupId> = sources
        .iter()
        .filter(|backup| !matches!(backup.state, BackupState::Deleted | BackupState::PendingDeletion))
        .map(|backup| &backup.id)
        .collect();
    let mut needed: BTreeSet<(SecretArn, SecretVersion)> = BTreeSet::new();
    for read in records.hsm_copies.values().filter(|read| !read.value.expired() || there.contains(&read.value.intent.source)) {
        for at in &read.value.intent.secrets {
            needed.extend(at.versions.iter().map(|version| (at.secret.clone(), version.clone())));
        }
    }
    for secret in found {
        let young = secret.versions.iter().filter(|version| secrets::is_young(version));
        needed.extend(young.map(|version| (secret.arn.clone(), version.version.clone())));
    }
    let region = asker.config.source_region.clone();
    let mut unkept = 0;
    for secret in found {
        for fact in &secret.versions {
            let stage = secrets::stage_of(&fact.version);
            if fact.stages.contains(&stage) || !needed.contains(&(secret.arn.clone(), fact.version.clone())) {
                continue;
            }
            match asker.cloud.stage_secret(&region, &secret.arn, &stage, None, Some(&fact.version)).await {
                Ok(()) => asker.outcome.add("versions-kept", 1),
                Err(error) => {
                    unkept += 1;
                    asker.outcome.failed += 1;
                    let text = format!("`{}` version `{}`: {error}", secret.arn, fact.version);
                    asker.outcome.say(Severity::Error, Code::SECRET_UNKEPT, text);
                }
            }
        }
    }
    // A secret takes twenty stages; a version that finds no place may be removed by AWS, and what was backed up under it cannot
    // be opened then.
    asker.outcome.metric("VersionsUnkept", Unit::Count, f64::from(unkept), &[]);
}
