use super::*;

const MINIMAL: &str = r#"
[fleet]
name = "demo"
account = "123456789012"
region = "us-east-1"
[cluster]
id = "cluster-abcdefghijk"
[secrets]
cloudhsm = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/cloudhsm-AbCdEf" }
[[targets]]
tag = { key = "tde2hsm", value = "demo" }
"#;

fn refused(text: &str) -> FleetError {
    Fleet::parse(text).expect_err("refused")
}

#[test]
fn the_example_of_the_guide_is_read_with_all_its_values() {
    let text = include_str!("../../tests/fleet.toml");
    let fleet = Fleet::parse(text).expect("reads");
    assert_eq!(fleet.fleet.name.as_str(), "demo");
    assert_eq!(fleet.waves, Waves { canary: 1, concurrency: 4, budget: 2, failure_domain: Some("rack".to_owned()) });
    assert_eq!(fleet.options.auto_open, Some(AutoOpen::Enable));
    assert_eq!(fleet.window.not_before, Some(Timestamp(1_795_557_600)));
    assert_eq!(fleet.window.not_after, Some(Timestamp(1_795_579_200)));
    assert_eq!(fleet.targets.len(), 2);
    assert_eq!(fleet.hosts[0].databases[0].auto_open, Some(AutoOpen::Typed));
    assert_eq!(fleet.options.accept[1].why, "the archive is read-only for good");
    assert!(fleet.options.accept[1].sid.is_some() && fleet.options.accept[0].instance.is_none());
}

#[test]
fn what_is_left_out_has_the_default_that_is_safe() {
    let fleet = Fleet::parse(MINIMAL).expect("reads");
    assert_eq!(fleet.waves, Waves::default());
    assert_eq!((fleet.waves.canary, fleet.waves.budget), (1, 1));
    assert_eq!(fleet.options.restart_proof, RestartProof::Do);
    assert_eq!(fleet.options.on_failure, OnFailure::Undo);
    assert_eq!(fleet.options.auto_open, None, "H15: nobody chose");
    assert_eq!(fleet.cluster.key_availability_check, KeyAvailabilityCheck::On);
    assert_eq!(fleet.protect.mode, ProtectMode::Wait, "H8: to leave it out is a choice that somebody writes down");
}

#[test]
fn a_key_that_means_nothing_is_refused_with_its_place_and_a_suggestion() {
    let error = refused(&MINIMAL.replace("account =", "acount ="));
    assert_eq!((error.code, error.line, error.column), (Code::FLEET_UNKNOWN_KEY, 4, 1));
    assert_eq!(error.message, "`acount` means nothing in `fleet`; did you mean `account`?");

    let nested = refused(&format!(
        "{MINIMAL}\n[[hosts]]\ninstance = \"i-0123456789abcdef0\"\n[[hosts.databases]]\nsid = \"A\"\nauto_opne = \"typed\"\n"
    ));
    assert_eq!((nested.code, nested.line), (Code::FLEET_UNKNOWN_KEY, 17));
    assert!(nested.message.contains("did you mean `auto_open`"), "{}", nested.message);

    let inline = refused(&MINIMAL.replace("value = \"demo\"", "valeu = \"demo\""));
    assert!(inline.message.contains("in `targets.tag`; did you mean `value`"), "{}", inline.message);

    let elsewhere = refused(&format!("accept = []\n{MINIMAL}"));
    assert!(elsewhere.message.contains("belongs into `[options]`"), "{}", elsewhere.message);
}

#[test]
fn a_value_is_refused_where_it_stands() {
    for (from, to, line, words) in [
        ("123456789012\"\nregion", "12345\"\nregion", 4, "an AWS account number"),
        ("cluster-abcdefghijk", "abcdefghijk", 7, "a CloudHSM cluster id"),
        (
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/cloudhsm-AbCdEf",
            "tde/cloudhsm",
            9,
            "a full Secrets Manager ARN",
        ),
        ("name = \"demo\"", "name = \"Demo fleet\"", 3, "a fleet name"),
    ] {
        let error = refused(&MINIMAL.replacen(from, to, 1));
        assert_eq!((error.code, error.line), (Code::FLEET_INVALID, line), "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    for (lines, words) in [
        ("[waves]\nbudget = 0", "admits no host"),
        ("[waves]\ncanary = 0", "at least one host"),
        ("[window]\nnot_before = 2026-11-24T22:00:00Z\nnot_after = 2026-11-24T21:00:00Z", "closes before it opens"),
        ("[window]\nnot_before = \"tonight\"", "RFC 3339"),
        ("[options]\noracle_matrix = [\"12.2\"]", "a cell of the support matrix"),
        ("[options]\naccept = [\"TDE9999\"]", "a code of this program"),
        ("[options]\npoll_seconds = 0", "once a second"),
        ("[protect]\nmode = \"wait\"\nwait_hours = 0", "say `mode = \"off\"`"),
        ("[protect]\nmode = \"never\"", "unknown variant"),
        ("[[hosts]]\ninstance = \"i-0123456789abcdef0\"\n[[hosts]]\ninstance = \"i-0123456789abcdef0\"", "two entries"),
    ] {
        let error = refused(&format!("{MINIMAL}{lines}\n"));
        assert_eq!(error.code, Code::FLEET_INVALID, "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(error.line > 10, "{error}");
    }
    assert!(refused("[fleet").line == 1);
}

const SECOND: &str = r#"
[dr]
region = "us-west-2"
kms_key = "arn:aws:kms:us-west-2:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e11"
records_bucket = "records-123456789012"
rpo_minutes = 60
"#;

#[test]
fn a_fleet_without_a_second_region_has_none_and_one_with_it_has_the_limits_of_aws() {
    assert_eq!(Fleet::parse(MINIMAL).expect("reads").dr, None);
    let dr = Fleet::parse(&format!("{MINIMAL}{SECOND}")).expect("reads").dr.expect("named");
    assert_eq!((dr.copies_in_flight, dr.hsm_backup_retention_days, dr.rpo_minutes), (20, 90, 60));
    assert_eq!(dr.retention, Retention::default());
    assert_eq!(dr.timed_copies_mib_s, 0, "copies done by a time cost money");
    assert_eq!((dr.topic, dr.document, dr.drill), (None, None, None));
    assert!(dr.retired.is_empty());
    let full = Fleet::parse(include_str!("../../tests/fleet.toml")).expect("reads").dr.expect("named");
    assert_eq!(full.timed_copies_mib_s, 2_000);
    assert_eq!(full.retired.first().expect("named").to_string(), "i-0123456789abcdef0/TST");
    assert_eq!(full.drill.expect("named").subnet.as_str(), "subnet-0123456789abcdef0");
}

#[test]
fn a_second_region_that_could_not_serve_is_refused_where_it_stands() {
    const DRILL: &str = "[dr.drill]\nsubnet = \"subnet-0123456789abcdef0\"\nsecurity_group = \"sg-0123456789abcdef0\"\ninstance_profile = \"p\"\ninstance_type = \"m6i.xlarge\"\n";
    let whole = format!(
        "{MINIMAL}{SECOND}retention = \"daily=7\"\nhsm_backup_retention_days = 90\nretired = [\"i-0123456789abcdef0/TST\"]\ncopies_in_flight = 20\ntopic = \"arn:aws:sns:us-west-2:123456789012:alarms\"\ndocument = \"tde2hsm-run\"\n{DRILL}"
    );
    assert!(Fleet::parse(&whole).is_ok());
    for (from, to, words) in [
        ("region = \"us-west-2\"", "region = \"us-east-1\"", "another one than the fleet's"),
        ("kms:us-west-2", "kms:us-east-1", "a key of that region"),
        ("records-123456789012", "Records", "not the name of a bucket"),
        ("rpo_minutes = 60", "rpo_minutes = 0", "at least one minute"),
        ("daily=7", "daily=0", "at least one point"),
        ("daily=7", "dayly=7", "is not a part of a retention"),
        ("daily=7", "daily=7,daily=8", "stands twice"),
        ("retention_days = 90", "retention_days = 0", "at least one day"),
        ("i-0123456789abcdef0/TST", "TST", "neither an instance nor a database"),
        ("in_flight = 20", "in_flight = 0", "at least one copy"),
        ("sns:us-west-2", "sns:us-east-1", "is not an SNS topic of"),
        ("\"tde2hsm-run\"", "\"my document\"", "name of an SSM document"),
        ("subnet-0123", "net-0123", "a subnet id"),
        ("sg-0123", "group-0123", "a security group id"),
        ("profile = \"p\"", "profile = \"a/b\"", "name of an instance profile"),
        ("m6i.xlarge", "large", "not an instance type"),
    ] {
        let broken = whole.replacen(from, to, 1);
        assert_ne!(broken, whole, "{from}");
        let error = refused(&broken);
        assert_eq!(error.code, Code::FLEET_INVALID, "{error}");
        assert!(error.message.contains(words) && error.line > 11, "{error}");
    }
}

/// A key that the schema knows and the type does not, or the other way round, would be refused or ignored by one of them.
#[test]
fn schema_and_type_know_the_same_keys() {
    let full = include_str!("../../tests/fleet.toml");
    let mut keys = 0;
    for line in full.lines() {
        let Some((key, _)) = line.split_once('=') else { continue };
        let key = key.trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        keys += 1;
        let broken = full.replacen(&format!("\n{line}"), &format!("\n{}", line.replacen(key, &format!("{key}_"), 1)), 1);
        assert_eq!(refused(&broken).code, Code::FLEET_UNKNOWN_KEY, "{line}");
    }
    assert!(keys > 30, "the example holds every key: {keys}");
}
