//! What a copy into a second region meets: EBS, CloudHSM, KMS, secrets and topics of the model, through its calls.

use serde_json::{Value, json};
use tde2hsm_model::cloudhsm::ClusterSpec;
use tde2hsm_model::ec2::InstanceSpec;
use tde2hsm_model::kms::KeyState;
use tde2hsm_model::{
    AccountId, ApiError, CallFault, Caller, Effect, InstanceId, Millis, Principal, Region, Request, Service, World, WorldOptions,
};

const CLUSTER: &str = "cluster-abcdefghijk";
const INSTANCE: &str = "i-00000000000000001";
const DAY: i64 = 86_400_000;

struct Bed {
    world: World,
    now: Millis,
    caller: Caller,
    east: Region,
    west: Region,
    /// KMS key of the west.
    key: String,
}

fn bed() -> Bed {
    bed_with(WorldOptions { snapshot_lag_ms: 0, ..WorldOptions::default() })
}

fn bed_with(options: WorldOptions) -> Bed {
    let (east, west) = (Region::new("us-east-1"), Region::new("us-west-2"));
    let mut world = World::new(AccountId::new("123456789012"), &[east.clone(), west.clone()], 7, options);
    let mut ids = world.ids.clone();
    let state = world.region_mut(&east).unwrap();
    state.ec2.add_subnet("subnet-1", "vpc-1", "us-east-1a", "10.0.1.0/24");
    state.ec2.add_instance(&InstanceSpec {
        id: InstanceId::new(INSTANCE),
        image: "ami-1".into(),
        kind: "r6i.large".into(),
        subnet: "subnet-1".into(),
        groups: vec![],
        private_ip: "10.0.1.5".into(),
        profile: "arn".into(),
        launched: Millis(0),
        tags: vec![],
        volumes: ["/dev/xvda", "/dev/sdf", "/dev/sdg"]
            .iter()
            .zip(1..)
            .map(|(d, n)| ((*d).into(), format!("vol-{n:017x}"), 10))
            .collect(),
    });
    state.hsm.add_cluster(
        ClusterSpec {
            id: CLUSTER.into(),
            created: Millis(0),
            group: "sg-1".into(),
            vpc: "vpc-1".into(),
            subnets: vec![("us-east-1a".into(), "subnet-1".into())],
            certificate: "PEM".into(),
            addresses: vec!["10.0.9.10".into()],
        },
        &mut ids,
    );
    let state = world.region_mut(&west).unwrap();
    state.ec2.add_subnet("subnet-9", "vpc-9", "us-west-2a", "10.9.1.0/24");
    state.ec2.add_group("sg-9", "drill", "vpc-9", &[], &[]);
    let key = state.kms.add_key("alias/dr", Millis(0), &mut ids);
    state.sns.add_topic("alarms");
    world.ids = ids;
    let caller = Caller { principal: Principal::Operator, arn: "arn:operator".into(), user_id: "A".into() };
    Bed { world, now: Millis(0), caller, east, west, key }
}

impl Bed {
    fn call(&mut self, west: bool, service: Service, operation: &str, body: Value) -> Result<Value, ApiError> {
        let region = if west { self.west.clone() } else { self.east.clone() };
        let request = Request { caller: &self.caller, region: &region, service, operation, body: &body };
        self.world.call(&request, self.now).result
    }

    fn ec2(&mut self, west: bool, operation: &str, body: Value) -> Result<Value, ApiError> {
        self.call(west, Service::Ec2, operation, body)
    }

    fn hsm(&mut self, west: bool, operation: &str, body: Value) -> Result<Value, ApiError> {
        self.call(west, Service::CloudHsm, operation, body)
    }

    fn pass(&mut self, ms: i64) -> Vec<Effect> {
        self.now = self.now.plus_ms(ms);
        self.world.tick(self.now);
        self.world.take_effects()
    }

    /// A set of all volumes, completed; the snapshots' ids.
    fn set(&mut self) -> Vec<String> {
        let reply = self.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
        self.pass(500);
        texts(&reply["snapshotSet"], "snapshotId")
    }

    fn copy(&mut self, source: &str, more: Value) -> Result<String, ApiError> {
        let mut body =
            json!({"SourceRegion": "us-east-1", "SourceSnapshotId": source, "Encrypted": "true", "KmsKeyId": self.key});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.ec2(true, "CopySnapshot", body).map(|reply| reply["snapshotId"].as_str().unwrap().to_owned())
    }

    fn snapshot(&mut self, west: bool, id: &str) -> Value {
        self.ec2(west, "DescribeSnapshots", json!({"SnapshotId.1": id})).unwrap()["snapshotSet"][0].clone()
    }

    fn backups(&mut self, west: bool) -> Vec<(String, String)> {
        let reply = self.hsm(west, "DescribeBackups", json!({"SortAscending": true})).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        reply["Backups"].as_array().unwrap().iter().map(|b| (text(&b["BackupId"]), text(&b["BackupState"]))).collect()
    }
}

fn texts(rows: &Value, member: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row[member].as_str().unwrap().to_owned()).collect()
}

fn events(effects: &[Effect]) -> Vec<Value> {
    effects.iter().filter_map(|e| if let Effect::Event { detail, .. } = e { Some(detail.clone()) } else { None }).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code
}

#[test]
fn a_set_has_one_start_and_no_id_and_leaves_out_what_it_is_told_a3_1() {
    let mut bed = bed();
    let body = json!({"InstanceSpecification.InstanceId": INSTANCE, "InstanceSpecification.ExcludeDataVolumeId.1": "vol-00000000000000003",
        "TagSpecification.1.ResourceType": "snapshot", "TagSpecification.1.Tag.1.Key": "k", "TagSpecification.1.Tag.1.Value": "v"});
    let reply = bed.ec2(false, "CreateSnapshots", body).unwrap();
    assert_eq!(texts(&reply["snapshotSet"], "volumeId"), ["vol-00000000000000001", "vol-00000000000000002"]);
    assert_eq!(reply["snapshotSet"][0]["startTime"], reply["snapshotSet"][1]["startTime"]);
    assert_eq!(reply["snapshotSet"][0]["state"], "pending");
    let effects = bed.world.take_effects();
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::SnapshotTaken { instance: Some(_), .. })).count(), 2);
    let events = events(&bed.pass(500));
    assert_eq!(events.len(), 1, "one event for the set: {events:?}");
    assert_eq!(events[0]["detail-type"], "EBS Multi-Volume Snapshots Completion Status");
    assert_eq!(events[0]["detail"]["event"], "createSnapshots");
    assert_eq!(events[0]["detail"]["snapshots"][0]["status"], "completed");
    let by_tag = bed
        .ec2(false, "DescribeSnapshots", json!({"Owner.1": "self", "Filter.1.Name": "tag:k", "Filter.1.Value.1": "v"}))
        .unwrap();
    assert_eq!(by_tag["snapshotSet"].as_array().unwrap().len(), 2);
    // Naming the root among the data volumes fails, and a failed call leaves nothing.
    let root = json!({"InstanceSpecification.InstanceId": INSTANCE, "InstanceSpecification.ExcludeDataVolumeId.1": "vol-00000000000000001"});
    assert_eq!(code(bed.ec2(false, "CreateSnapshots", root)), "InvalidParameterValue");
    let only = json!({"InstanceSpecification.InstanceId": INSTANCE, "InstanceSpecification.ExcludeBootVolume": "true"});
    assert_eq!(bed.ec2(false, "CreateSnapshots", only).unwrap()["snapshotSet"].as_array().unwrap().len(), 2);
}

#[test]
fn a_set_fails_as_a_whole_and_its_leftovers_stay() {
    let mut bed = bed();
    bed.world.faults.fail_snapshots(1);
    bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
    let events = events(&bed.pass(500));
    assert_eq!(events[0]["detail"]["result"], "failed");
    let all = bed.ec2(false, "DescribeSnapshots", json!({})).unwrap();
    assert!(texts(&all["snapshotSet"], "status").iter().all(|s| s == "error"));
    assert_eq!(all["snapshotSet"].as_array().unwrap().len(), 3);
}

#[test]
fn a_copy_takes_its_tags_at_the_call_and_tells_its_own_region_when_it_is_done() {
    let mut bed = bed();
    let source = bed.set()[1].clone();
    let tag = json!({"TagSpecification.1.ResourceType": "snapshot", "TagSpecification.1.Tag.1.Key": "k", "TagSpecification.1.Tag.1.Value": "v"});
    let copy = bed.copy(&source, tag).unwrap();
    let row = bed.snapshot(true, &copy);
    assert_eq!((&row["volumeId"], &row["status"]), (&json!("vol-ffffffff"), &json!("pending")));
    assert_eq!(row["tagSet"], json!([{"key": "k", "value": "v"}]));
    assert_eq!(bed.pass(600), [], "the keys are in order, nothing to say yet");
    let effects = bed.pass(1_000);
    assert!(effects.contains(&Effect::SnapshotCopied {
        from: bed.east.clone(),
        source: source.clone(),
        region: bed.west.clone(),
        snapshot: copy.clone()
    }));
    let event = &events(&effects)[0];
    assert_eq!(event["region"], "us-west-2");
    assert_eq!(event["detail"]["event"], "copySnapshot");
    assert_eq!(event["detail"]["source"], format!("arn:aws:ec2::us-east-1:snapshot/{source}"));
    assert_eq!(event["detail"]["snapshot_id"], format!("arn:aws:ec2::us-west-2:snapshot/{copy}"));
    assert_eq!(event["detail"]["Incremental"], "false");
    assert_eq!(bed.snapshot(true, &copy)["kmsKeyId"], bed.key.as_str());
    // The next copy of that volume under the same key moves only the difference.
    let next = bed.set()[1].clone();
    bed.copy(&next, json!({})).unwrap();
    assert_eq!(events(&bed.pass(2_000))[0]["detail"]["Incremental"], "true");
}

#[test]
fn a_source_that_is_not_completed_cannot_be_copied() {
    let mut bed = bed();
    let reply = bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
    let id = reply["snapshotSet"][0]["snapshotId"].as_str().unwrap().to_owned();
    assert_eq!(code(bed.copy(&id, json!({}))), "IncorrectState");
    bed.pass(500);
    bed.ec2(false, "ModifySnapshotTier", json!({"SnapshotId": id, "StorageTier": "archive"})).unwrap();
    assert_eq!(code(bed.copy(&id, json!({}))), "IncorrectState");
}

#[test]
fn a_key_that_cannot_be_used_is_found_out_after_the_call_a3_2() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    let key = bed.key.clone();
    bed.world.region_mut(&bed.west.clone()).unwrap().kms.set_state(&key, KeyState::Disabled);
    let disabled = bed.copy(&source, json!({})).unwrap();
    let unknown = bed.copy(&source, json!({"KmsKeyId": "11111111-2222-4333-8444-555555555555"})).unwrap();
    assert_eq!(bed.snapshot(true, &disabled)["status"], "pending");
    let effects = bed.pass(600);
    for copy in [&disabled, &unknown] {
        let row = bed.snapshot(true, copy);
        assert_eq!((&row["status"], &row["statusMessage"]), (&json!("error"), &json!("Given key ID is not accessible")));
    }
    assert_eq!(events(&effects)[0]["detail"]["cause"], "Given key ID is not accessible");
    assert!(bed.copy(&source, json!({"Encrypted": "false"})).is_err());
    // The key of the source counts as well, and a key that goes while a copy is under way.
    bed.world.region_mut(&bed.west.clone()).unwrap().kms.set_state(&key, KeyState::Enabled);
    let copy = bed.copy(&source, json!({})).unwrap();
    bed.pass(700);
    let old = bed.snapshot(false, &source)["kmsKeyId"].as_str().unwrap().to_owned();
    bed.world.region_mut(&bed.east.clone()).unwrap().kms.set_state(&old, KeyState::PendingDeletion);
    bed.pass(2_000);
    assert_eq!(bed.snapshot(true, &copy)["status"], "error");
    assert_eq!(
        bed.call(false, Service::Kms, "DescribeKey", json!({"KeyId": old})).unwrap()["KeyMetadata"]["KeyState"],
        "PendingDeletion"
    );
}

#[test]
fn a_copy_in_error_may_disappear_by_itself() {
    let mut bed = bed_with(WorldOptions { failed_copy_vanishes_ms: Some(1_000), snapshot_lag_ms: 0, ..WorldOptions::default() });
    let source = bed.set()[0].clone();
    bed.world.faults.fail_copies(1);
    let copy = bed.copy(&source, json!({})).unwrap();
    bed.pass(1_200);
    assert_eq!(bed.snapshot(true, &copy)["status"], "error");
    assert!(bed.pass(1_000).contains(&Effect::SnapshotDeleted { region: bed.west.clone(), snapshot: copy.clone() }));
    assert_eq!(code(bed.ec2(true, "DescribeSnapshots", json!({"SnapshotId.1": copy}))), "InvalidSnapshot.NotFound");
}

#[test]
fn a_wrong_source_region_stays_pending_and_fails_late() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    let copy = bed.copy(&source, json!({"SourceRegion": "us-west-2"})).unwrap();
    bed.pass(4_000);
    assert_eq!(bed.snapshot(true, &copy)["status"], "pending");
    let effects = bed.pass(1_000);
    assert_eq!(events(&effects)[0]["detail"]["cause"], "Source snapshot ID is not valid");
    // So does a copy whose source is deleted under it.
    let copy = bed.copy(&source, json!({})).unwrap();
    bed.ec2(false, "DeleteSnapshot", json!({"SnapshotId": source})).unwrap();
    bed.pass(2_000);
    assert_eq!(bed.snapshot(true, &copy)["status"], "error");
}

#[test]
fn the_wall_refuses_and_makes_nothing_a3_3() {
    let mut bed = bed_with(WorldOptions { copies_in_flight: 2, snapshot_lag_ms: 0, ..WorldOptions::default() });
    let set = bed.set();
    bed.copy(&set[0], json!({})).unwrap();
    bed.copy(&set[1], json!({})).unwrap();
    let refused = bed.copy(&set[2], json!({})).unwrap_err();
    assert_eq!(refused.code, "ResourceLimitExceeded");
    assert!(refused.message.contains("The limit is 2 for this destination region"));
    assert_eq!(bed.ec2(true, "DescribeSnapshots", json!({})).unwrap()["snapshotSet"].as_array().unwrap().len(), 2);
    bed.pass(2_000);
    bed.copy(&set[2], json!({})).unwrap();
}

#[test]
fn time_based_copies_come_in_quarters_of_an_hour_and_share_a_throughput_a3_2() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    assert_eq!(code(bed.copy(&source, json!({"CompletionDurationMinutes": "20"}))), "InvalidParameterValue");
    let copy = bed.copy(&source, json!({"CompletionDurationMinutes": "15"})).unwrap();
    let row = bed.snapshot(true, &copy);
    assert_eq!((&row["transferType"], &row["completionDurationMinutes"]), (&json!("time-based"), &json!(15)));
}

#[test]
fn what_was_bought_comes_in_time_while_the_throughput_has_room_for_it_a3_2() {
    let options =
        WorldOptions { snapshot_lag_ms: 0, copy_ms_per_gib: 10_000, throughput_code: "NoMore", ..WorldOptions::default() };
    let mut bed = bed_with(options);
    let large = InstanceId::new("i-00000000000000002");
    let volumes = (0..6).map(|n| (format!("/dev/sd{n}"), format!("vol-{:017x}", 100 + n), 5_000)).collect();
    let east = bed.east.clone();
    bed.world.region_mut(&east).unwrap().ec2.add_instance(&InstanceSpec {
        id: large.clone(),
        image: "ami-1".into(),
        kind: "r6i.large".into(),
        subnet: "subnet-1".into(),
        groups: vec![],
        private_ip: "10.0.1.6".into(),
        profile: "arn".into(),
        launched: Millis(0),
        tags: vec![],
        volumes,
    });
    let reply = bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": large.to_string()})).unwrap();
    bed.pass(3_600_000);
    let set = texts(&reply["snapshotSet"], "snapshotId");
    // 474 MiB/s each: four have room, of the fifth a part is left, and for the sixth there is nothing.
    let timed = json!({"CompletionDurationMinutes": "180"});
    let copies: Vec<String> = set[..5].iter().map(|source| bed.copy(source, timed.clone()).unwrap()).collect();
    assert_eq!(code(bed.copy(&set[5], timed.clone())), "NoMore");
    assert_eq!(
        code(bed.copy(&set[5], json!({"CompletionDurationMinutes": "165"}))),
        "InvalidParameterValue",
        "500 MiB/s at most"
    );
    let slow = bed.copy(&set[5], json!({})).unwrap();
    bed.pass(180 * 60_000);
    let states: Vec<Value> = copies.iter().map(|copy| bed.snapshot(true, copy)["status"].clone()).collect();
    assert_eq!(states, ["completed", "completed", "completed", "completed", "pending"]);
    assert_eq!(bed.snapshot(true, &slow)["status"], "pending");
}

#[test]
fn a_new_snapshot_may_be_unknown_for_a_while() {
    let mut bed = bed_with(WorldOptions { snapshot_lag_ms: 10_000, ..WorldOptions::default() });
    let mut unknown = 0;
    for _ in 0..5 {
        let id = bed.set()[0].clone();
        unknown += i32::from(bed.ec2(false, "DescribeSnapshots", json!({"SnapshotId.1": id})).is_err());
        bed.pass(10_000);
        assert_eq!(bed.snapshot(false, &id)["snapshotId"], id.as_str());
    }
    assert!(unknown > 0);
}

#[test]
fn describe_snapshots_pages_and_refuses_what_it_does_not_know() {
    let mut bed = bed();
    bed.set();
    bed.pass(1);
    bed.set();
    let first = bed.ec2(false, "DescribeSnapshots", json!({"MaxResults": "5"})).unwrap();
    assert_eq!(first["snapshotSet"].as_array().unwrap().len(), 5);
    let rest = bed.ec2(false, "DescribeSnapshots", json!({"MaxResults": "5", "NextToken": first["nextToken"]})).unwrap();
    assert_eq!(rest["snapshotSet"].as_array().unwrap().len(), 1);
    assert!(rest.get("nextToken").is_none());
    assert_eq!(
        code(bed.ec2(false, "DescribeSnapshots", json!({"Filter.1.Name": "colour", "Filter.1.Value.1": "red"}))),
        "InvalidParameterValue"
    );
    let mut many = json!({"Filter.1.Name": "volume-id"});
    for n in 1..=201 {
        many[format!("Filter.1.Value.{n}")] = json!(format!("vol-{n:017x}"));
    }
    assert_eq!(code(bed.ec2(false, "DescribeSnapshots", many)), "FilterLimitExceeded");
    assert_eq!(bed.ec2(false, "DescribeSnapshots", json!({"Owner.1": "999999999999"})).unwrap()["snapshotSet"], json!([]));
}

#[test]
fn events_get_lost_come_twice_and_come_late_a2_1() {
    let mut bed = bed();
    bed.world.faults.lose_events(1);
    bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
    assert_eq!(events(&bed.pass(500)), Vec::<Value>::new());
    bed.world.faults.repeat_events(1);
    bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
    assert_eq!(events(&bed.pass(500)).len(), 2);
    bed.world.faults.delay_events(1, 60_000);
    bed.ec2(false, "CreateSnapshots", json!({"InstanceSpecification.InstanceId": INSTANCE})).unwrap();
    assert_eq!(events(&bed.pass(500)).len(), 0);
    assert_eq!(events(&bed.pass(60_000)).len(), 1);
}

#[test]
fn an_image_holds_its_snapshots_and_a_token_runs_one_instance() {
    let mut bed = bed();
    let set = bed.set();
    let copies: Vec<String> = set.iter().map(|id| bed.copy(id, json!({})).unwrap()).collect();
    bed.pass(2_000);
    let image = json!({"Name": "drill", "RootDeviceName": "/dev/xvda", "BlockDeviceMapping.1.DeviceName": "/dev/xvda",
        "BlockDeviceMapping.1.Ebs.SnapshotId": copies[0]});
    let image = bed.ec2(true, "RegisterImage", image).unwrap()["imageId"].clone();
    assert_eq!(code(bed.ec2(true, "DeleteSnapshot", json!({"SnapshotId": copies[0]}))), "InvalidSnapshot.InUse");
    let run = json!({"ImageId": image, "InstanceType": "r6i.large", "MinCount": "1", "MaxCount": "1", "SubnetId": "subnet-9",
        "SecurityGroupId.1": "sg-9", "ClientToken": "t", "BlockDeviceMapping.1.DeviceName": "/dev/sdf",
        "BlockDeviceMapping.1.Ebs.SnapshotId": copies[1], "TagSpecification.1.ResourceType": "instance",
        "TagSpecification.1.Tag.1.Key": "tde2hsm:drill", "TagSpecification.1.Tag.1.Value": "d1"});
    let first = bed.ec2(true, "RunInstances", run.clone()).unwrap();
    assert_eq!(first["instancesSet"][0]["instanceState"]["name"], "pending");
    assert_eq!(bed.ec2(true, "RunInstances", run.clone()).unwrap(), first, "the token's own instance");
    let mut other = run;
    other["InstanceType"] = json!("m5.large");
    assert_eq!(code(bed.ec2(true, "RunInstances", other)), "IdempotentParameterMismatch");
    let effects = bed.pass(1_000);
    let launched =
        effects.iter().find_map(|e| if let Effect::InstanceLaunched { volumes, .. } = e { Some(volumes) } else { None });
    let volumes: Vec<(&str, &str)> = launched.unwrap().iter().map(|v| (v.device.as_str(), v.snapshot.as_str())).collect();
    assert_eq!(volumes, [("/dev/xvda", copies[0].as_str()), ("/dev/sdf", copies[1].as_str())]);
    let id = first["instancesSet"][0]["instanceId"].clone();
    bed.ec2(true, "TerminateInstances", json!({"InstanceId.1": id})).unwrap();
    assert!(bed.world.take_effects().iter().any(|e| matches!(e, Effect::InstanceTerminated { .. })));
    bed.pass(1_000);
    let left = bed.ec2(true, "DescribeVolumes", json!({})).unwrap();
    assert_eq!(left["volumeSet"], json!([]), "volumes of a launch go with it");
    bed.ec2(true, "DeregisterImage", json!({"ImageId": image})).unwrap();
    bed.ec2(true, "DeleteSnapshot", json!({"SnapshotId": copies[0]})).unwrap();
}

#[test]
fn a_launch_whose_key_is_gone_ends_by_itself() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    let copy = bed.copy(&source, json!({})).unwrap();
    bed.pass(2_000);
    let image = json!({"Name": "x", "RootDeviceName": "/dev/xvda", "BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.SnapshotId": copy});
    let image = bed.ec2(true, "RegisterImage", image).unwrap()["imageId"].clone();
    let key = bed.key.clone();
    bed.world.region_mut(&bed.west.clone()).unwrap().kms.set_state(&key, KeyState::Disabled);
    let run = json!({"ImageId": image, "MinCount": "1", "MaxCount": "1", "SubnetId": "subnet-9"});
    bed.ec2(true, "RunInstances", run).unwrap();
    let effects = bed.pass(1_000);
    assert!(!effects.iter().any(|e| matches!(e, Effect::InstanceLaunched { .. })));
    let rows = bed.ec2(true, "DescribeInstances", json!({})).unwrap();
    assert_eq!(rows["reservationSet"][0]["instancesSet"][0]["instanceState"]["name"], "terminated");
}

#[test]
fn tags_are_changed_and_taken_away() {
    let mut bed = bed();
    let id = bed.set()[0].clone();
    let tag = |value: &str| json!({"ResourceId.1": id, "Tag.1.Key": "tde2hsm:hold", "Tag.1.Value": value});
    bed.ec2(false, "CreateTags", tag("a")).unwrap();
    bed.ec2(false, "CreateTags", tag("b")).unwrap();
    assert_eq!(bed.snapshot(false, &id)["tagSet"], json!([{"key": "tde2hsm:hold", "value": "b"}]));
    bed.ec2(false, "DeleteTags", tag("a")).unwrap();
    assert_eq!(bed.snapshot(false, &id)["tagSet"].as_array().unwrap().len(), 1, "another value stays");
    bed.ec2(false, "DeleteTags", json!({"ResourceId.1": id, "Tag.1.Key": "tde2hsm:hold"})).unwrap();
    assert_eq!(bed.snapshot(false, &id)["tagSet"], json!([]));
    bed.ec2(false, "CreateTags", json!({"ResourceId.1": INSTANCE, "Tag.1.Key": "k", "Tag.1.Value": "v"})).unwrap();
    let found = bed.ec2(false, "DescribeInstances", json!({"Filter.1.Name": "tag:k", "Filter.1.Value.1": "v"})).unwrap();
    assert_eq!(found["reservationSet"].as_array().unwrap().len(), 1);
}

#[test]
fn adding_and_removing_an_hsm_take_time_and_make_a_backup_a4_5() {
    let mut bed = bed();
    let reply = bed.hsm(false, "CreateHsm", json!({"ClusterId": CLUSTER, "AvailabilityZone": "us-east-1a"})).unwrap();
    assert_eq!(reply["Hsm"]["State"], "CREATE_IN_PROGRESS");
    assert!(bed.world.take_effects().iter().any(|e| matches!(e, Effect::BackupTaken { .. })));
    assert_eq!(bed.backups(false)[1].1, "CREATE_IN_PROGRESS");
    assert!(bed.pass(1_500).iter().any(|e| matches!(e, Effect::HsmsChanged { .. })));
    assert_eq!(bed.backups(false)[1].1, "READY");
    bed.hsm(false, "DeleteHsm", json!({"ClusterId": CLUSTER, "HsmId": reply["Hsm"]["HsmId"]})).unwrap();
    assert_eq!(bed.backups(false).len(), 3);
}

#[test]
fn a_cluster_that_changes_its_type_takes_no_hsm_a4_7() {
    let mut bed = bed();
    let east = bed.east.clone();
    bed.world.region_mut(&east).unwrap().hsm.set_state(CLUSTER, "MODIFY_IN_PROGRESS");
    assert!(bed.world.region(&east).unwrap().hsm.limited_write(CLUSTER));
    let refused = bed.hsm(false, "CreateHsm", json!({"ClusterId": CLUSTER, "AvailabilityZone": "us-east-1a"}));
    assert_eq!(code(refused), "CloudHsmInvalidRequestException");
}

#[test]
fn h45_the_service_purges_by_policy_but_never_the_newest_nor_what_never_expires_nor_a_copy() {
    let mut bed = bed();
    bed.world.region_mut(&bed.east.clone()).unwrap().hsm.set_retention(CLUSTER, Some(7));
    let first = bed.backups(false)[0].0.clone();
    bed.hsm(false, "ModifyBackupAttributes", json!({"BackupId": first, "NeverExpires": true})).unwrap();
    for _ in 0..4 {
        bed.pass(DAY);
    }
    let second = bed.backups(false)[1].0.clone();
    bed.hsm(false, "CopyBackupToRegion", json!({"DestinationRegion": "us-west-2", "BackupId": second})).unwrap();
    for _ in 0..6 {
        bed.pass(DAY);
    }
    let states: Vec<String> = bed.backups(false).into_iter().map(|b| b.1).collect();
    assert_eq!(states[..5], ["READY", "PENDING_DELETION", "PENDING_DELETION", "PENDING_DELETION", "READY"]);
    bed.hsm(false, "RestoreBackup", json!({"BackupId": second})).unwrap();
    bed.hsm(false, "ModifyBackupAttributes", json!({"BackupId": second, "NeverExpires": true})).unwrap();
    let mut gone = 0;
    for _ in 0..30 {
        gone += bed.pass(DAY).iter().filter(|e| matches!(e, Effect::BackupGone { .. })).count();
    }
    assert_eq!(gone, 40 - 15 - 1 + 2 - 1, "all but the last two weeks and the two that never expire");
    let left = bed.backups(false);
    assert!(left.iter().any(|b| b.0 == first) && left.iter().any(|b| b.0 == second));
    assert_eq!(bed.backups(true).len(), 1, "a copy stays until it is deleted");
    // A cluster that makes no more backups keeps its newest.
    bed.world.region_mut(&bed.east.clone()).unwrap().hsm.degrade_one(CLUSTER).unwrap();
    for _ in 0..30 {
        bed.pass(DAY);
    }
    let newest = left.last().unwrap().0.clone();
    assert_eq!(bed.backups(false).into_iter().map(|b| b.0).collect::<Vec<_>>(), [first, second, newest]);
}

#[test]
fn a_backup_copy_names_no_id_and_is_found_by_its_source_a4_4() {
    let mut bed = bed();
    let source = bed.backups(false)[0].0.clone();
    let copy = json!({"DestinationRegion": "us-west-2", "BackupId": source, "TagList": [{"Key": "k", "Value": "v"}]});
    let reply = bed.hsm(false, "CopyBackupToRegion", copy.clone()).unwrap();
    assert!(!reply.to_string().contains("BackupId"), "{reply}");
    let find = json!({"Filters": {"sourceBackupIds": [source]}});
    let found = bed.hsm(true, "DescribeBackups", find.clone()).unwrap()["Backups"][0].clone();
    assert_eq!((&found["BackupState"], &found["ClusterId"]), (&json!("CREATE_IN_PROGRESS"), &json!(CLUSTER)));
    assert_eq!(found["TagList"], json!([{"Key": "k", "Value": "v"}]), "a tag list replaces the source's tags");
    assert!(bed.pass(800).iter().any(|e| matches!(e, Effect::BackupCopied { .. })));
    // Another call makes another copy, or is refused: a switch.
    bed.hsm(false, "CopyBackupToRegion", copy.clone()).unwrap();
    assert_eq!(bed.hsm(true, "DescribeBackups", find.clone()).unwrap()["Backups"].as_array().unwrap().len(), 2);
    bed.world.options.duplicate_backup_copies = false;
    assert_eq!(code(bed.hsm(false, "CopyBackupToRegion", copy)), "CloudHsmInvalidRequestException");
}

#[test]
fn a_failed_backup_copy_shows_as_deleted() {
    let mut bed = bed();
    let source = bed.backups(false)[0].0.clone();
    bed.world.faults.fail_backup_copies(1);
    bed.hsm(false, "CopyBackupToRegion", json!({"DestinationRegion": "us-west-2", "BackupId": source})).unwrap();
    bed.pass(800);
    let (copy, state) = bed.backups(true)[0].clone();
    assert_eq!(state, "DELETED");
    let restore = json!({"HsmType": "hsm2m.medium", "SubnetIds": ["subnet-9"], "SourceBackupId": copy});
    assert_eq!(code(bed.hsm(true, "CreateCluster", restore)), "CloudHsmInvalidRequestException");
}

#[test]
fn a_cluster_is_restored_without_hsms_and_goes_when_it_has_none() {
    let mut bed = bed();
    let source = bed.backups(false)[0].0.clone();
    bed.hsm(false, "CopyBackupToRegion", json!({"DestinationRegion": "us-west-2", "BackupId": source})).unwrap();
    bed.pass(800);
    let copy = bed.backups(true)[0].0.clone();
    let restore = json!({"HsmType": "hsm2m.medium", "SubnetIds": ["subnet-9"], "SourceBackupId": copy, "TagList": [{"Key": "tde2hsm:drill", "Value": "d1"}]});
    let made = bed.hsm(true, "CreateCluster", restore).unwrap()["Cluster"].clone();
    let cluster = made["ClusterId"].as_str().unwrap().to_owned();
    assert_eq!(made["State"], "CREATE_IN_PROGRESS");
    let hsm = json!({"ClusterId": cluster, "AvailabilityZone": "us-west-2a"});
    assert_eq!(code(bed.hsm(true, "CreateHsm", hsm.clone())), "CloudHsmInvalidRequestException");
    let effects = bed.pass(1_000);
    assert!(effects.contains(&Effect::ClusterRestored { region: bed.west.clone(), cluster: cluster.clone(), backup: copy }));
    let made = bed.hsm(true, "CreateHsm", hsm).unwrap()["Hsm"].clone();
    assert_eq!(made["EniIp"], "10.9.1.20", "an address of its own subnet");
    bed.pass(1_500);
    let row = bed.hsm(true, "DescribeClusters", json!({})).unwrap()["Clusters"][0].clone();
    assert_eq!((&row["State"], &row["Certificates"]["ClusterCertificate"]), (&json!("ACTIVE"), &json!("PEM")));
    assert_eq!(code(bed.hsm(true, "DeleteCluster", json!({"ClusterId": cluster}))), "CloudHsmInvalidRequestException");
    bed.hsm(true, "DeleteHsm", json!({"ClusterId": cluster, "HsmId": made["HsmId"]})).unwrap();
    bed.pass(1_500);
    bed.hsm(true, "DeleteCluster", json!({"ClusterId": cluster})).unwrap();
    assert!(bed.pass(1_000).contains(&Effect::ClusterGone { region: bed.west.clone(), cluster }));
}

#[test]
fn h42_stages_reach_the_replica_and_a_bare_version_goes_in_both_regions() {
    let mut bed = bed();
    let made = json!({"Name": "pin", "SecretString": "one", "AddReplicaRegions": [{"Region": "us-west-2"}]});
    let made = bed.call(false, Service::Secrets, "CreateSecret", made).unwrap();
    for value in ["two", "three"] {
        bed.call(false, Service::Secrets, "PutSecretValue", json!({"SecretId": "pin", "SecretString": value})).unwrap();
    }
    let label = json!({"SecretId": "pin", "VersionStage": "kept", "MoveToVersionId": made["VersionId"]});
    bed.call(false, Service::Secrets, "UpdateSecretVersionStage", label).unwrap();
    let stages = bed.call(true, Service::Secrets, "DescribeSecret", json!({"SecretId": "pin"})).unwrap();
    assert_eq!(stages["VersionIdsToStages"][made["VersionId"].as_str().unwrap()], json!(["kept"]));
    bed.call(false, Service::Secrets, "PutSecretValue", json!({"SecretId": "pin", "SecretString": "four"})).unwrap();
    bed.pass(2 * DAY);
    let west = bed.world.region(&bed.west).unwrap().secrets.readable("pin");
    let texts: Vec<&str> = west.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one", "three", "four"]);
}

/// H42: a replica has a key of its own region, and without it nobody reads a value, whatever stages it has.
#[test]
fn h42_a_replica_cannot_be_read_without_its_key() {
    let mut bed = bed();
    let mut ids = tde2hsm_model::Ids::new(7);
    let key = bed.world.region_mut(&bed.west.clone()).unwrap().kms.add_key("alias/secrets", Millis(0), &mut ids);
    let replica = json!([{"Region": "us-west-2", "KmsKeyId": key}]);
    let made = json!({"Name": "pin", "SecretString": "one", "AddReplicaRegions": replica});
    bed.call(false, Service::Secrets, "CreateSecret", made).unwrap();
    let id = json!({"SecretId": "pin"});
    assert_eq!(bed.call(true, Service::Secrets, "DescribeSecret", id.clone()).unwrap()["KmsKeyId"], json!(key));
    assert!(bed.call(false, Service::Secrets, "DescribeSecret", id.clone()).unwrap().get("KmsKeyId").is_none());
    bed.call(true, Service::Secrets, "GetSecretValue", id.clone()).unwrap();
    let west = bed.west.clone();
    bed.world.region_mut(&west).unwrap().kms.set_state(&key, tde2hsm_model::kms::KeyState::Disabled);
    assert_eq!(code(bed.call(true, Service::Secrets, "GetSecretValue", id.clone())), "DecryptionFailure");
    bed.call(false, Service::Secrets, "GetSecretValue", id).unwrap();
}

#[test]
fn a_topic_keeps_what_was_published() {
    let mut bed = bed();
    let topic = "arn:aws:sns:us-west-2:123456789012:alarms";
    bed.call(true, Service::Sns, "Publish", json!({"TopicArn": topic, "Subject": "s", "Message": "m"})).unwrap();
    assert_eq!(bed.world.region(&bed.west).unwrap().sns.published()[0].message, "m");
    assert_eq!(
        code(bed.call(true, Service::Sns, "Publish", json!({"TopicArn": topic, "Subject": "two\nlines", "Message": "m"}))),
        "InvalidParameter"
    );
    assert_eq!(code(bed.call(false, Service::Sns, "Publish", json!({"TopicArn": topic, "Message": "m"}))), "NotFound");
}

#[test]
fn a_function_may_call_what_its_role_names_and_nothing_else() {
    let mut bed = bed();
    bed.caller.principal = Principal::Function("settle-copies".into());
    assert_eq!(code(bed.ec2(true, "DescribeSnapshots", json!({}))), "UnauthorizedOperation");
    bed.world.grant("settle-copies", vec!["ec2:Describe*".into(), "s3:ListBucket".into()]);
    bed.ec2(true, "DescribeSnapshots", json!({})).unwrap();
    assert_eq!(code(bed.ec2(true, "DeleteSnapshot", json!({"SnapshotId": "snap-1"}))), "UnauthorizedOperation");
    assert!(bed.world.admit(&bed.caller.clone(), Service::S3, "ListObjectsV2").is_ok());
    assert_eq!(bed.world.function_calls("settle-copies")["ec2:DescribeSnapshots"], 2);
    assert!(bed.world.calls(true).is_empty());
}

#[test]
fn a_lost_reply_leaves_the_copy_behind() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    bed.world.faults.arm(CallFault::LoseReply, Service::Ec2, "CopySnapshot", 1);
    bed.copy(&source, json!({})).unwrap();
    assert_eq!(bed.world.region(&bed.west).unwrap().ec2.snapshots.copies_in_flight(), 1);
}

#[test]
fn the_world_knows_when_something_happens_next() {
    let mut bed = bed();
    let source = bed.set()[0].clone();
    bed.copy(&source, json!({})).unwrap();
    let mut steps = 0;
    while let Some(at) = bed.world.next_due().filter(|at| *at < Millis(DAY / 2)) {
        assert!(at >= bed.now, "{at:?} lies behind {:?}", bed.now);
        bed.now = at;
        bed.world.tick(at);
        steps += 1;
        assert!(steps < 10);
    }
    assert_eq!(steps, 2, "the look at the keys, then the end of the copy");
    assert_eq!(bed.world.region(&bed.west).unwrap().ec2.snapshots.copies_in_flight(), 0);
}
