//! Snapshots and their copies (`A§3`).
//!
//! Every list is asked with owner `self`: a snapshot that someone shares with the account is none of ours, whatever its tags
//! say (H37). CopySnapshot is called in the region the copy is to lie in, and goes out once.

use crate::{Ec2, call, filter, once, tag_map, tags_of};
use aws_sdk_ec2::types as ec2;
use std::collections::BTreeMap;
use tde2hsm_cloud_call::{CloudError, Effect, sort};
use tde2hsm_dr::facts::{FleetInstance, Snapshot, SnapshotState};
use tde2hsm_protocol::{AccountId, Code, InstanceId, KmsKeyArn, Region, SnapshotId, Timestamp, VolumeId};

/// Values that EC2 takes in one filter.
const VALUES_A_FILTER: usize = 200;
/// Snapshots a page: the most EC2 answers.
const PAGE: i32 = 1_000;
/// What a copy has for its volume (`A§3.2`).
const NO_VOLUME: &str = "vol-ffffffff";

impl Ec2 {
    /// Instances with a tag that are not terminated and belong to this account, with what is attached to them.
    pub async fn fleet_instances(&self, key: &str, value: &str, account: &AccountId) -> Result<Vec<FleetInstance>, CloudError> {
        self.attached(filter(&format!("tag:{key}"), [value.to_owned()]), account).await
    }

    /// The same of instances by their ids; what is gone is left out.
    pub async fn instances_attached(&self, ids: &[InstanceId], account: &AccountId) -> Result<Vec<FleetInstance>, CloudError> {
        let mut found = Vec::new();
        for ids in ids.chunks(VALUES_A_FILTER) {
            found.extend(self.attached(filter("instance-id", ids.iter().map(ToString::to_string)), account).await?);
        }
        Ok(found)
    }

    async fn attached(&self, by: ec2::Filter, account: &AccountId) -> Result<Vec<FleetInstance>, CloudError> {
        let filters = vec![by];
        let mut found = Vec::new();
        let mut pages = self.client.describe_instances().set_filters(Some(filters)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeInstances"), e))?;
            let ours = page.reservations().iter().filter(|r| r.owner_id() == Some(account.as_str()));
            found.extend(ours.flat_map(|r| r.instances()).filter_map(fleet_instance));
        }
        found.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(found)
    }

    /// `None`: there is none with this id, or it is not ours. A filter is asked for, so that a stranger's id is no error.
    pub async fn snapshot(&self, region: &Region, id: &SnapshotId) -> Result<Option<Snapshot>, CloudError> {
        Ok(self.snapshots(region, vec![filter("snapshot-id", [id.to_string()])]).await?.pop())
    }

    pub async fn snapshots_of(&self, region: &Region, volumes: &[VolumeId]) -> Result<Vec<Snapshot>, CloudError> {
        let values: Vec<String> = volumes.iter().map(ToString::to_string).collect();
        self.snapshots_by(region, "volume-id", &values).await
    }

    pub async fn snapshots_tagged(&self, region: &Region, key: &str, values: &[String]) -> Result<Vec<Snapshot>, CloudError> {
        self.snapshots_by(region, &format!("tag:{key}"), values).await
    }

    /// Copies that are not finished. A snapshot that was taken of a volume names it.
    pub async fn copies_in_flight(&self, region: &Region) -> Result<Vec<Snapshot>, CloudError> {
        let mut pending = self.snapshots(region, vec![filter("status", ["pending".to_owned()])]).await?;
        pending.retain(|snapshot| snapshot.volume.is_none());
        Ok(pending)
    }

    async fn snapshots_by(&self, region: &Region, name: &str, values: &[String]) -> Result<Vec<Snapshot>, CloudError> {
        let mut found = Vec::new();
        for values in values.chunks(VALUES_A_FILTER) {
            found.extend(self.snapshots(region, vec![filter(name, values.iter().cloned())]).await?);
        }
        Ok(found)
    }

    async fn snapshots(&self, region: &Region, filters: Vec<ec2::Filter>) -> Result<Vec<Snapshot>, CloudError> {
        let mut found = Vec::new();
        let mut pages =
            self.client.describe_snapshots().owner_ids("self").set_filters(Some(filters)).into_paginator().page_size(PAGE).send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| sort(call("DescribeSnapshots"), e))?;
            found.extend(page.snapshots().iter().filter_map(|snapshot| read(region, snapshot)));
        }
        Ok(found)
    }

    /// Sends once. Tags are given in the call, so that there is no copy of ours without them.
    pub async fn copy_snapshot(&self, copy: &Copying<'_>) -> Result<SnapshotId, CloudError> {
        let answer = self
            .client
            .copy_snapshot()
            .source_region(copy.source_region.as_str())
            .source_snapshot_id(copy.source.as_str())
            .description(copy.description)
            .encrypted(true)
            .kms_key_id(copy.kms_key.as_str())
            .set_completion_duration_minutes(copy.completion_minutes.map(i32::from))
            .tag_specifications(tags_of(ec2::ResourceType::Snapshot, copy.tags))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|e| sort(call("CopySnapshot"), e))?;
        // An answer without an id is as good as a lost one.
        SnapshotId::new(answer.snapshot_id().unwrap_or_default()).map_err(|why| CloudError {
            effect: Effect::Ambiguous,
            ..CloudError::found(call("CopySnapshot"), Code::AWS_INVALID, why.to_string())
        })
    }

    /// Sends once. A snapshot that is gone is what was wanted.
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), CloudError> {
        let deleted = self.client.delete_snapshot().snapshot_id(id.as_str()).customize().config_override(once()).send().await;
        match deleted.map_err(|e| sort(call("DeleteSnapshot"), e)) {
            Ok(_) => Ok(()),
            Err(e) if e.is(&["InvalidSnapshot.NotFound"]) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// What CopySnapshot is told.
#[derive(Debug, Clone, Copy)]
pub struct Copying<'a> {
    pub source: &'a SnapshotId,
    pub source_region: &'a Region,
    pub description: &'a str,
    pub kms_key: &'a KmsKeyArn,
    pub tags: &'a BTreeMap<String, String>,
    pub completion_minutes: Option<u16>,
}

fn fleet_instance(found: &ec2::Instance) -> Option<FleetInstance> {
    let state = found.state()?.name()?;
    if matches!(state, ec2::InstanceStateName::Terminated | ec2::InstanceStateName::ShuttingDown) {
        return None;
    }
    let volumes = found
        .block_device_mappings()
        .iter()
        .filter_map(|mapping| Some((mapping.device_name()?.to_owned(), VolumeId::new(mapping.ebs()?.volume_id()?).ok()?)));
    Some(FleetInstance {
        instance: InstanceId::new(found.instance_id()?).ok()?,
        volumes: volumes.collect(),
        root_device: found.root_device_name().map(str::to_owned),
        name: tag_map(found.tags()).remove("Name"),
        instance_profile: found.iam_instance_profile().and_then(|p| p.arn()?.rsplit('/').next().map(str::to_owned)),
    })
}

/// `None` where the id is none, or where there is no StartTime: without one a snapshot cannot be placed in time.
fn read(region: &Region, found: &ec2::Snapshot) -> Option<Snapshot> {
    let start = found.start_time()?;
    Some(Snapshot {
        id: SnapshotId::new(found.snapshot_id()?).ok()?,
        region: region.clone(),
        volume: found.volume_id().filter(|id| *id != NO_VOLUME).and_then(|id| VolumeId::new(id).ok()),
        size_gib: found.volume_size().and_then(|size| u32::try_from(size).ok()).unwrap_or(0),
        state: match found.state() {
            Some(ec2::SnapshotState::Pending) => SnapshotState::Pending,
            Some(ec2::SnapshotState::Completed) => SnapshotState::Completed,
            Some(ec2::SnapshotState::Error) => SnapshotState::Error,
            Some(ec2::SnapshotState::Recoverable) => SnapshotState::Recoverable,
            Some(ec2::SnapshotState::Recovering) => SnapshotState::Recovering,
            _ => SnapshotState::Unknown,
        },
        state_message: found.state_message().filter(|text| !text.is_empty()).map(str::to_owned),
        progress: found.progress().and_then(|text| text.trim_end_matches('%').parse().ok()),
        started: Timestamp(start.secs()),
        started_ms: u16::try_from(start.subsec_nanos() / 1_000_000).unwrap_or(0),
        completed: found.completion_time().map(|at| Timestamp(at.secs())),
        encrypted: found.encrypted().unwrap_or(false),
        kms_key: found.kms_key_id().and_then(|arn| KmsKeyArn::new(arn).ok()),
        completion_minutes: found.completion_duration_minutes().and_then(|minutes| u16::try_from(minutes).ok()),
        archived: found.storage_tier() == Some(&ec2::StorageTier::Archive),
        description: found.description().unwrap_or_default().to_owned(),
        tags: tag_map(found.tags()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;

    fn copy() -> ec2::builders::SnapshotBuilder {
        ec2::Snapshot::builder()
            .snapshot_id("snap-0123456789abcdef0")
            .volume_id("vol-ffffffff")
            .state(ec2::SnapshotState::Pending)
            .start_time(DateTime::from_secs(1_795_500_000))
    }

    #[test]
    fn a_copy_has_no_volume_of_its_own() {
        let region = Region::new("eu-west-1").unwrap();
        let found = read(&region, &copy().progress("37%").volume_size(8).build()).unwrap();
        assert_eq!((found.volume, found.progress, found.size_gib), (None, Some(37), 8));
        let source = read(&region, &copy().volume_id("vol-0123456789abcdef0").build()).unwrap();
        assert_eq!(source.volume.unwrap().as_str(), "vol-0123456789abcdef0");
    }

    #[test]
    fn a_state_of_next_year_is_not_completed() {
        let region = Region::new("eu-west-1").unwrap();
        let state = |state| read(&region, &copy().state(state).build()).unwrap().state;
        assert_eq!(state(ec2::SnapshotState::Completed), SnapshotState::Completed);
        assert_eq!(state(ec2::SnapshotState::from("thawing")), SnapshotState::Unknown);
        assert_eq!(read(&region, &ec2::Snapshot::builder().snapshot_id("snap-0123456789abcdef0").build()), None);
    }

    #[test]
    fn an_instance_of_the_fleet_says_what_is_attached_to_it() {
        let ebs = |id: &str| ec2::EbsInstanceBlockDevice::builder().volume_id(id).build();
        let mapping =
            |device: &str, id: &str| ec2::InstanceBlockDeviceMapping::builder().device_name(device).ebs(ebs(id)).build();
        let state = ec2::InstanceState::builder().name(ec2::InstanceStateName::Stopped).build();
        let found = ec2::Instance::builder()
            .instance_id("i-0123456789abcdef0")
            .state(state)
            .root_device_name("/dev/xvda")
            .block_device_mappings(mapping("/dev/xvda", "vol-0123456789abcdef0"))
            .block_device_mappings(mapping("/dev/sdf", "vol-0123456789abcdef1"))
            .tags(ec2::Tag::builder().key("Name").value("ora-1").build())
            .build();
        let found = fleet_instance(&found).unwrap();
        assert_eq!(found.volumes.len(), 2, "a stopped instance has its volumes too");
        assert_eq!(found.volumes["/dev/sdf"].as_str(), "vol-0123456789abcdef1");
        assert_eq!((found.root_device.as_deref(), found.name.as_deref()), (Some("/dev/xvda"), Some("ora-1")));
    }
}
