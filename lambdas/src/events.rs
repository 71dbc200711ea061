//! Events, as hints (H37): ids are taken out of them and nothing else.
//!
//! Every field is optional and whatever AWS may spell in two ways is taken in both (`A§2.3`): ARNs of snapshots have the region
//! in the account's place in some events and in its own in others, so only what follows the last `/` counts; times are
//! `startTime` or `StartTime`; a source may be a bare number. An event that cannot be understood is a tick: the job then looks
//! at everything.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use tde2hsm_dr_driver::{Hint, Job};
use tde2hsm_protocol::SnapshotId;

#[derive(Debug, Default, Deserialize)]
struct Event {
    source: Option<String>,
    resources: Option<Vec<Value>>,
    detail: Option<Detail>,
}

#[derive(Debug, Default, Deserialize)]
struct Detail {
    event: Option<String>,
    snapshot_id: Option<Value>,
    snapshots: Option<Vec<Value>>,
}

/// What an event is for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Run(Hint),
    /// Nothing of it can be understood: looked at everything, and said.
    Unreadable,
    /// It is none of this job's events.
    Ignore,
}

/// Events that wake a job. `copySnapshot` is none of copy-snapshots': a copy must never lead to a copy.
fn wakes(job: Job, event: &str) -> bool {
    match job {
        Job::CopySnapshots => matches!(event, "createSnapshot" | "createSnapshots"),
        Job::SettleCopies => event == "copySnapshot",
        Job::CopyHsmBackups | Job::ExpireCopies | Job::AuditRecovery => false,
    }
}

pub fn read(job: Job, payload: &Value) -> Call {
    // A schedule's or a person's payload has no `detail`.
    if payload.get("detail").is_none() {
        return Call::Run(Hint::Tick);
    }
    let Ok(event) = Event::deserialize(payload) else { return Call::Unreadable };
    if event.source.as_deref().is_some_and(|source| source != "aws.ec2") {
        return scheduled(&event);
    }
    let Some(detail) = event.detail else { return Call::Unreadable };
    match &detail.event {
        Some(name) if !wakes(job, name) => return Call::Ignore,
        _ => {}
    }
    let of_set = detail.snapshots.iter().flatten().filter_map(|one| one.get("snapshot_id"));
    let named = detail.snapshot_id.iter().chain(of_set).chain(event.resources.iter().flatten());
    let ids: BTreeSet<SnapshotId> = named.filter_map(Value::as_str).filter_map(snapshot_id).collect();
    if ids.is_empty() { Call::Unreadable } else { Call::Run(Hint::Snapshots(ids)) }
}

/// A rule with a schedule sends `aws.events` with an empty detail.
fn scheduled(event: &Event) -> Call {
    match event.source.as_deref() {
        Some("aws.events" | "aws.scheduler") => Call::Run(Hint::Tick),
        _ => Call::Ignore,
    }
}

fn snapshot_id(arn: &str) -> Option<SnapshotId> {
    SnapshotId::new(arn.rsplit('/').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(call: Call) -> Vec<String> {
        match call {
            Call::Run(Hint::Snapshots(ids)) => ids.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn created() -> Value {
        json!({"version": "0", "id": "x", "detail-type": "EBS Snapshot Notification", "source": "aws.ec2", "region": "us-east-1",
            "resources": ["arn:aws:ec2::us-west-2:snapshot/snap-01234567"],
            "detail": {"event": "createSnapshot", "result": "succeeded", "cause": "", "request-id": "",
                "snapshot_id": "arn:aws:ec2::us-west-2:snapshot/snap-01234567",
                "source": "arn:aws:ec2::us-west-2:volume/vol-01234567",
                "startTime": "2026-11-24T08:00:00Z", "endTime": "2026-11-24T08:01:00Z"}})
    }

    #[test]
    fn a_snapshot_is_named_by_what_follows_the_last_slash() {
        assert_eq!(ids(read(Job::CopySnapshots, &created())), ["snap-01234567"]);
        let mut proper = created();
        proper["detail"]["snapshot_id"] = json!("arn:aws:ec2:us-east-1:123456789012:snapshot/snap-0123456789abcdef0");
        proper["resources"] = Value::Null;
        assert_eq!(ids(read(Job::CopySnapshots, &proper)), ["snap-0123456789abcdef0"]);
    }

    #[test]
    fn either_spelling_of_the_times_will_do() {
        let mut event = created();
        event["detail"]["StartTime"] = json!("2026-11-24T08:00:00Z");
        assert_eq!(ids(read(Job::CopySnapshots, &event)), ["snap-01234567"], "both at once, too");
        let detail = event["detail"].as_object_mut().unwrap();
        detail.remove("startTime");
        detail.remove("endTime");
        assert_eq!(ids(read(Job::CopySnapshots, &event)), ["snap-01234567"]);
    }

    #[test]
    fn a_set_names_every_snapshot_of_it() {
        let member = |id: &str| {
            json!({"snapshot_id": format!("arn:aws:ec2::us-east-1:snapshot/{id}"),
            "source": "arn:aws:ec2::us-east-1:volume/vol-01234567", "status": "completed"})
        };
        let event = json!({"detail-type": "EBS Multi-Volume Snapshots Completion Status", "source": "aws.ec2",
            "detail": {"event": "createSnapshots", "result": "succeeded", "cause": "", "request-id": "", "startTime": "",
                "endTime": "", "snapshots": [member("snap-01234567"), member("snap-01234568")]}});
        assert_eq!(ids(read(Job::CopySnapshots, &event)), ["snap-01234567", "snap-01234568"]);
    }

    /// No loop between regions: a copy wakes those who settle copies and nobody who makes them.
    #[test]
    fn a_copy_never_leads_to_a_copy() {
        let mut event = created();
        event["detail"]["event"] = json!("copySnapshot");
        event["detail"]["Incremental"] = json!("true");
        assert_eq!(read(Job::CopySnapshots, &event), Call::Ignore);
        assert_eq!(ids(read(Job::SettleCopies, &event)), ["snap-01234567"]);
        for job in [Job::CopyHsmBackups, Job::ExpireCopies, Job::AuditRecovery] {
            assert_eq!(read(job, &event), Call::Ignore);
        }
    }

    #[test]
    fn what_is_shared_or_locked_wakes_nobody() {
        let event = json!({"source": "aws.ec2", "detail": {"event": "shareSnapshot", "result": "succeeded", "cause": "",
            "request-id": "", "snapshot_id": "arn:aws:ec2::us-west-2:snapshot/snap-01234567", "source": 12_345_678_901_u64}});
        let mut locked = event.clone();
        locked["detail"]["event"] = json!("lockSnapshot");
        for job in Job::ALL {
            assert_eq!(read(job, &event), Call::Ignore);
            assert_eq!(read(job, &locked), Call::Ignore);
        }
    }

    #[test]
    fn a_schedule_is_a_tick_whatever_it_says() {
        let scheduled = json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
        for payload in [json!({}), Value::Null, json!("tick"), json!({"schedule": "copy"}), json!([1, 2]), scheduled] {
            assert_eq!(read(Job::CopySnapshots, &payload), Call::Run(Hint::Tick), "{payload}");
        }
    }

    /// H37: what is no id is none, and an event of nobody knows what is looked into and said.
    #[test]
    fn h37_an_event_is_a_hint_that_can_be_anything() {
        for detail in [json!("createSnapshot"), json!({"event": "createSnapshot"}), json!({"event": 7}), json!([]), Value::Null] {
            let event = json!({"source": "aws.ec2", "detail": detail});
            assert_eq!(read(Job::CopySnapshots, &event), Call::Unreadable, "{event}");
        }
        let mut event = created();
        event["detail"]["snapshot_id"] = json!("arn:aws:ec2:::snapshot/snap-0; rm -rf /");
        event["resources"] = json!([{"ARN": 1}]);
        assert_eq!(read(Job::CopySnapshots, &event), Call::Unreadable);
        let foreign = json!({"source": "aws.ssm", "detail": {"status": "Success"}});
        assert_eq!(read(Job::CopySnapshots, &foreign), Call::Ignore);
    }
}
