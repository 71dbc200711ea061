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
        ("[[hosts]]\ninstance = \"i-0123456789abcdef0\"\n[[hosts]]\ninstance = \"i-0123456789abcdef0\"", "two entries"),
    ] {
        let error = refused(&format!("{MINIMAL}{lines}\n"));
        assert_eq!(error.code, Code::FLEET_INVALID, "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(error.line > 10, "{error}");
    }
    assert!(refused("[fleet").line == 1);
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
