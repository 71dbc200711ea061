//! What goes over the wire to the two regions, on the real SDK against a socket of this process.

mod common;

use common::{Log, Seen, Then, serve};
use std::collections::BTreeMap;
use tde2hsm_cloud::{Aws, DrAws, Effect as CloudEffect};
use tde2hsm_dr::facts::{BackupState, KmsState, SnapshotState};
use tde2hsm_dr_driver::{Cloud as _, CopySnapshot, DrConfig, Effect, Expiry, Put, Wrote};
use tde2hsm_protocol::{
    AccountId, BackupId, ClusterId, InstanceId, KmsKeyArn, Region, SecretArn, SecretVersion, SnapshotId, VolumeId,
};

struct Server {
    dr: DrAws,
    aws: Aws,
    log: Log,
}

fn source() -> Region {
    Region::new("eu-central-1").unwrap()
}
fn dr() -> Region {
    Region::new("eu-west-1").unwrap()
}
fn key() -> KmsKeyArn {
    KmsKeyArn::new("arn:aws:kms:eu-west-1:123456789012:key/0f1e").unwrap()
}
fn secret() -> SecretArn {
    SecretArn::new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/x-AbCdEf").unwrap()
}
fn backup() -> BackupId {
    BackupId::new("backup-abcdefghijk").unwrap()
}
fn cluster() -> ClusterId {
    ClusterId::new("cluster-abcdefghijk").unwrap()
}

impl Server {
    fn new(script: Vec<Then>) -> Server {
        let (config, log) = serve(script, "eu-west-1", |number| format!("etag: \"e-{number}\"\r\n"));
        let dr_config = DrConfig {
            account: AccountId::new("123456789012").unwrap(),
            fleet: "demo".to_owned(),
            fleet_tag: ("tde2hsm".to_owned(), "demo".to_owned()),
            source_region: source(),
            dr_region: dr(),
            cluster: cluster(),
            kms_key: key(),
            records_bucket: "records".to_owned(),
            secrets: vec![],
            rpo_minutes: 60,
            copies_in_flight: 20,
            timed: tde2hsm_dr::copying::Timed::Never,
            retention: "hourly=8,daily=14,weekly=5,monthly=12".parse().unwrap(),
            hsm_backup_retention_days: 90,
            retired: Default::default(),
            topic: Some("arn:aws:sns:eu-west-1:123456789012:alarms".to_owned()),
            document: None,
            expiry: Expiry::Delete,
        };
        Server { dr: DrAws::new(&config, &dr_config), aws: Aws::with(&config, dr()), log }
    }

    fn answer(body: &str) -> Server {
        Server::new(vec![Then::Answer(200, body.to_owned())])
    }

    fn seen(&self) -> Vec<Seen> {
        self.log.seen()
    }
}

fn copy() -> CopySnapshot {
    CopySnapshot {
        source: SnapshotId::new("snap-0123456789abcdef0").unwrap(),
        source_region: source(),
        description: "a copy".to_owned(),
        kms_key: key(),
        tags: BTreeMap::from([("tde2hsm:token".to_owned(), "t-1".to_owned())]),
        completion_minutes: None,
    }
}

#[tokio::test]
async fn copy_snapshot_goes_out_once_with_key_and_tags() {
    let server = Server::answer("<CopySnapshotResponse><snapshotId>snap-0123456789abcdef1</snapshotId></CopySnapshotResponse>");
    assert_eq!(server.dr.copy_snapshot(&dr(), &copy()).await.unwrap().as_str(), "snap-0123456789abcdef1");
    let body = server.seen()[0].body.clone();
    for part in [
        "Action=CopySnapshot",
        "SourceRegion=eu-central-1",
        "SourceSnapshotId=snap-0123456789abcdef0",
        "Encrypted=true",
        "KmsKeyId=arn%3Aaws%3Akms%3Aeu-west-1%3A123456789012%3Akey%2F0f1e",
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=tde2hsm%3Atoken",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert!(server.seen()[0].headers["authorization"].contains("/eu-west-1/ec2/"), "signed for the DR region");
    assert!(!body.contains("CompletionDurationMinutes"), "it costs money: {body}");
    let answer = "<CopySnapshotResponse><snapshotId>snap-0123456789abcdef1</snapshotId></CopySnapshotResponse>";
    let server = Server::answer(answer);
    server.dr.copy_snapshot(&dr(), &CopySnapshot { completion_minutes: Some(45), ..copy() }).await.unwrap();
    assert!(server.seen()[0].body.contains("CompletionDurationMinutes=45"), "{}", server.seen()[0].body);
    for then in [Then::Drop, Then::Answer(503, "<Response/>".to_owned()), Then::Answer(200, "<CopySnapshotResponse/>".to_owned())]
    {
        let server = Server::new(vec![then]);
        let error = server.dr.copy_snapshot(&dr(), &copy()).await.unwrap_err();
        assert_eq!((error.effect, server.seen().len()), (Effect::Ambiguous, 1), "{error}");
    }
    let full =
        "<Response><Errors><Error><Code>ResourceLimitExceeded</Code><Message>Too many</Message></Error></Errors></Response>";
    let server = Server::new(vec![Then::Answer(400, full.to_owned())]);
    let error = server.dr.copy_snapshot(&dr(), &copy()).await.unwrap_err();
    assert_eq!((error.effect, error.is(&["ResourceLimitExceeded"])), (Effect::Refused, true), "{error}");
}

/// A backup is copied by a call in the source region, once.
#[tokio::test]
async fn copy_backup_to_region_goes_out_once_in_the_source_region() {
    let tags = BTreeMap::from([("tde2hsm:token".to_owned(), "t-1".to_owned())]);
    for then in [Then::Drop, Then::Answer(500, r#"{"__type":"CloudHsmInternalFailureException"}"#.to_owned())] {
        let server = Server::new(vec![then]);
        let error = server.dr.copy_hsm_backup(&source(), &backup(), &dr(), &tags).await.unwrap_err();
        assert_eq!((error.effect, server.seen().len()), (Effect::Ambiguous, 1), "{error}");
        let seen = &server.seen()[0];
        assert!(seen.headers["authorization"].contains("/eu-central-1/cloudhsm/"), "{:?}", seen.headers);
        let body = seen.json();
        assert_eq!(body["DestinationRegion"], "eu-west-1");
        assert_eq!(body["TagList"][0]["Key"], "tde2hsm:token");
    }
}

/// Asked by a filter: an id that AWS knows no more would be an error of the call otherwise, and no answer about the others.
#[tokio::test]
async fn which_instances_are_there_is_asked_whatever_their_tags() {
    let ids = ["i-0123456789abcdef0", "i-0123456789abcdef1", "i-0123456789abcdef2"].map(|id| InstanceId::new(id).unwrap());
    let item = |id: &InstanceId, state: &str| {
        format!("<item><instanceId>{id}</instanceId><instanceState><name>{state}</name></instanceState></item>")
    };
    let items = item(&ids[0], "stopped") + &item(&ids[1], "terminated");
    let server = Server::answer(&format!(
        "<DescribeInstancesResponse><reservationSet><item><ownerId>123456789012</ownerId>\
         <instancesSet>{items}</instancesSet></item></reservationSet></DescribeInstancesResponse>"
    ));
    let there = server.dr.instances_there(&source(), &ids).await.unwrap();
    assert_eq!(there.into_iter().collect::<Vec<_>>(), [ids[0].clone()]);
    let body = server.seen()[0].body.clone();
    assert!(
        body.contains("Filter.1.Name=instance-id") && body.contains("i-0123456789abcdef2") && !body.contains("tag"),
        "{body}"
    );
}

/// H37: whatever is asked for, only what the account owns is answered.
#[tokio::test]
async fn h37_snapshots_are_asked_for_with_owner_self_page_by_page() {
    let item = |id: &str, state: &str| {
        format!(
            "<item><snapshotId>{id}</snapshotId><volumeId>vol-ffffffff</volumeId><status>{state}</status><startTime>2026-11-24T08:00:00.137Z</startTime>\
             <volumeSize>8</volumeSize><encrypted>true</encrypted><tagSet><item><key>tde2hsm:fleet</key><value>demo</value></item></tagSet></item>"
        )
    };
    let page = |items: &str, next: &str| {
        format!("<DescribeSnapshotsResponse><snapshotSet>{items}</snapshotSet>{next}</DescribeSnapshotsResponse>")
    };
    let server = Server::new(vec![
        Then::Answer(200, page(&item("snap-0123456789abcdef0", "completed"), "<nextToken>more</nextToken>")),
        Then::Answer(200, page(&item("snap-0123456789abcdef1", "pending"), "")),
    ]);
    let found = server.dr.snapshots_tagged(&dr(), "tde2hsm:fleet", &["demo".to_owned()]).await.unwrap();
    let states: Vec<SnapshotState> = found.iter().map(|snapshot| snapshot.state).collect();
    assert_eq!(states, [SnapshotState::Completed, SnapshotState::Pending]);
    assert_eq!((found[0].volume.as_ref(), found[0].tags["tde2hsm:fleet"].as_str()), (None, "demo"));
    assert_eq!((found[0].started.0, found[0].started_ms), (1_795_507_200, 137), "calls within one second are told apart");
    for seen in server.seen() {
        assert!(seen.body.contains("Owner.1=self"), "{}", seen.body);
    }
    assert!(server.seen()[1].body.contains("NextToken=more"));
    let server = Server::answer(&page("", ""));
    let volumes: Vec<VolumeId> = (0..401).map(|n| VolumeId::new(format!("vol-{n:017x}")).unwrap()).collect();
    server.dr.snapshots_of(&source(), &volumes).await.unwrap();
    assert_eq!(server.seen().len(), 3, "two hundred values a filter");
}

#[tokio::test]
async fn a_record_is_written_once_and_only_where_it_may_be() {
    let server = Server::answer("");
    let wrote = server.dr.put("copies/x.json", b"{}", &Put::New).await.unwrap();
    assert_eq!(wrote, Wrote::Yes("\"e-0\"".to_owned()));
    let seen = &server.seen()[0];
    assert!(seen.line.starts_with("PUT /records/copies/x.json"), "{}", seen.line);
    assert_eq!(seen.headers["if-none-match"], "*");
    assert_eq!(seen.headers["x-amz-expected-bucket-owner"], "123456789012");
    server.dr.put("copies/x.json", b"{}", &Put::Over("\"e-0\"".to_owned())).await.unwrap();
    assert_eq!(server.seen()[1].headers["if-match"], "\"e-0\"");
    let refusal = |code: &str| format!("<Error><Code>{code}</Code></Error>");
    for (status, code) in [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict"), (404, "NoSuchKey")] {
        let server = Server::new(vec![Then::Answer(status, refusal(code))]);
        assert_eq!(server.dr.put("x", b"{}", &Put::New).await.unwrap(), Wrote::Lost, "{code}");
    }
    let server = Server::new(vec![Then::Answer(404, refusal("NoSuchBucket"))]);
    assert_eq!(server.dr.put("x", b"{}", &Put::New).await.unwrap_err().effect, Effect::Refused);
    // Sent again after a lost answer it would be told that it lost to itself.
    for then in [Then::Drop, Then::Answer(500, refusal("InternalError"))] {
        let server = Server::new(vec![then]);
        assert_eq!(server.dr.put("x", b"{}", &Put::New).await.unwrap_err().effect, Effect::Ambiguous);
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::new(vec![Then::Answer(404, refusal("NoSuchKey"))]);
    assert_eq!(server.dr.get("x").await.unwrap(), None);
    let server = Server::answer("{}");
    let object = server.dr.get("x").await.unwrap().unwrap();
    assert_eq!((object.body.as_slice(), object.etag.as_str()), (b"{}".as_slice(), "\"e-0\""));
}

/// H42: a version gets our stage; a replica is asked for under its own region's ARN; no call reads a value.
#[tokio::test]
async fn h42_versions_are_listed_with_those_that_have_no_stage() {
    let described = r#"{"ARN":"x","ReplicationStatus":[{"Region":"eu-west-1"}]}"#;
    let listed = r#"{"Versions":[
        {"VersionId":"11111111-1111-1111-1111-111111111111","VersionStages":["AWSCURRENT"],"CreatedDate":1795500000.5},
        {"VersionId":"22222222-2222-2222-2222-222222222222"}]}"#;
    let key = "arn:aws:kms:eu-west-1:123456789012:key/0f1e";
    let of_alias = format!(r#"{{"KeyMetadata":{{"KeyId":"0f1e","Arn":"{key}","KeyState":"Disabled"}}}}"#);
    let answers = [described, listed, &of_alias].map(|body| Then::Answer(200, body.to_owned()));
    let server = Server::new(answers.into());
    let found = server.dr.secret(&dr(), &secret()).await.unwrap().unwrap();
    // Where no key is named it is AWS's own, which may be asked about by its alias.
    assert_eq!(found.kms_key.unwrap().as_str(), key);
    assert!(server.seen()[2].body.contains(r#""KeyId":"alias/aws/secretsmanager""#), "{}", server.seen()[2].body);
    assert_eq!(found.versions.len(), 2);
    assert_eq!(found.versions[0].created.unwrap().0, 1_795_500_000);
    assert!(found.versions[1].stages.is_empty());
    assert!(found.replicas.contains(&dr()));
    let targets: Vec<String> = server.seen().iter().map(Seen::target).collect();
    assert_eq!(targets, ["secretsmanager.DescribeSecret", "secretsmanager.ListSecretVersionIds", "TrentService.DescribeKey"]);
    for seen in &server.seen()[..2] {
        assert!(seen.body.contains("arn:aws:secretsmanager:eu-west-1:123456789012:secret:tde/x-AbCdEf"), "{}", seen.body);
    }
    assert!(server.seen()[1].body.contains(r#""IncludeDeprecated":true"#));
    // One that is named by its ARN needs no question, and in the source region nobody has to read the value in a hurry.
    let described = format!(r#"{{"ARN":"x","KmsKeyId":"{key}"}}"#);
    for (region, expected) in [(dr(), Some(key)), (source(), None)] {
        let server = Server::new(vec![Then::Answer(200, described.clone()), Then::Answer(200, listed.to_owned())]);
        let found = server.dr.secret(&region, &secret()).await.unwrap().unwrap();
        assert_eq!(found.kms_key.as_ref().map(|key| key.as_str()), expected);
        assert_eq!(server.seen().len(), 2);
    }
    let server = Server::answer("{}");
    let version = SecretVersion::new("11111111-1111-1111-1111-111111111111").unwrap();
    server.dr.stage_secret(&source(), &secret(), "tde2hsm-1", None, Some(&version)).await.unwrap();
    let body = server.seen()[0].json();
    assert_eq!((body["VersionStage"].as_str(), body["MoveToVersionId"].as_str()), (Some("tde2hsm-1"), Some(version.as_str())));
    assert!(body.get("RemoveFromVersionId").is_none());
}

#[tokio::test]
async fn copies_of_backups_are_found_by_their_source() {
    let body = r#"{"Backups":[{"BackupId":"backup-abcdefghijm","BackupState":"READY","ClusterId":"cluster-abcdefghijk",
        "CreateTimestamp":1795500000,"SourceBackup":"backup-abcdefghijk","SourceRegion":"eu-central-1",
        "TagList":[{"Key":"tde2hsm:token","Value":"t-1"}]},{"BackupId":"nonsense","BackupState":"READY"}]}"#;
    let server = Server::answer(body);
    let found = server.dr.hsm_copies(&dr(), &[backup()]).await.unwrap();
    assert_eq!(found.len(), 1, "H36: an id that is none is left out");
    assert_eq!((found[0].state, found[0].source_backup.as_ref()), (BackupState::Ready, Some(&backup())));
    assert_eq!(found[0].tags["tde2hsm:token"], "t-1");
    let asked = server.seen()[0].json();
    assert_eq!(asked["Filters"], serde_json::json!({"sourceBackupIds": ["backup-abcdefghijk"]}));
}

#[tokio::test]
async fn a_key_that_is_gone_or_closed_is_a_state_and_a_silent_region_is_none() {
    let state =
        async |status: u16, body: &str| Server::new(vec![Then::Answer(status, body.to_owned())]).dr.kms_key(&dr(), &key()).await;
    let metadata = |state: &str| format!(r#"{{"KeyMetadata":{{"KeyId":"k","KeyState":"{state}"}}}}"#);
    assert_eq!(state(200, &metadata("Enabled")).await.unwrap().state, KmsState::Enabled);
    assert_eq!(state(200, &metadata("Disabled")).await.unwrap().state, KmsState::Disabled);
    assert_eq!(state(400, r#"{"__type":"NotFoundException"}"#).await.unwrap().state, KmsState::NotFound);
    assert_eq!(state(400, r#"{"__type":"AccessDeniedException"}"#).await.unwrap().state, KmsState::Unknown);
    assert!(state(500, r#"{"__type":"KMSInternalException"}"#).await.is_err());
}

/// Nothing is sent to a region that is neither of the two.
#[tokio::test]
async fn a_third_region_is_refused_before_anything_is_sent() {
    let server = Server::answer("");
    let elsewhere = Region::new("us-east-1").unwrap();
    assert_eq!(server.dr.copy_snapshot(&elsewhere, &copy()).await.unwrap_err().effect, Effect::NotSent);
    assert!(server.seen().is_empty());
}

/// H8: an HSM is added once, and whatever came of it is found out by looking.
#[tokio::test]
async fn h8_create_and_delete_hsm_go_out_once() {
    for then in [Then::Drop, Then::Answer(500, r#"{"__type":"CloudHsmInternalFailureException"}"#.to_owned())] {
        let server = Server::new(vec![then]);
        assert_eq!(server.aws.cloudhsm.create_hsm(&cluster(), "eu-west-1a").await.unwrap_err().effect, CloudEffect::Ambiguous);
        assert_eq!(
            server.aws.cloudhsm.delete_hsm(&cluster(), "hsm-abcdefghijk").await.unwrap_err().effect,
            CloudEffect::Ambiguous
        );
        assert_eq!(server.seen().len(), 2);
    }
    let gone = r#"{"__type":"CloudHsmResourceNotFoundException"}"#;
    let server = Server::new(vec![Then::Answer(400, gone.to_owned())]);
    server.aws.cloudhsm.delete_hsm(&cluster(), "hsm-abcdefghijk").await.unwrap();
}

#[tokio::test]
async fn a_message_has_a_subject_that_sns_takes() {
    let server = Server::answer("<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>");
    server.dr.publish("RPO\nbreached", "text").await.unwrap();
    let body = server.seen()[0].body.clone();
    assert!(body.contains("Subject=RPO%3Fbreached") && body.contains("TopicArn=arn%3Aaws%3Asns"), "{body}");
}
