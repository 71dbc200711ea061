//! boto3 drives the sandbox, and every raw response goes before botocore's models (H50).

use std::path::PathBuf;
use tde2hsm_conformance::{Served, check_responses, run_client, target_dir};

fn fresh(name: &str) -> PathBuf {
    let dir = target_dir().unwrap().join("conformance").join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.parent().expect("it has a parent")).unwrap();
    dir
}

#[test]
fn h50_boto3_is_served_and_every_response_fits_the_models() {
    let dir = fresh("boto3");
    let record = dir.with_extension("jsonl");
    let _ = std::fs::remove_file(&record);
    let served = Served::up(&dir, &["--fleet", "6", "--record", record.to_str().unwrap()]).unwrap();
    let client = run_client(&served.exports).unwrap();
    drop(served);
    let said = format!("{}{}", String::from_utf8_lossy(&client.stdout), String::from_utf8_lossy(&client.stderr));
    assert!(client.status.success(), "{said}");

    let checked = check_responses(&[&record]).unwrap();
    let report = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{report}{}", String::from_utf8_lossy(&checked.stderr));
    println!("{report}");

    // A judge that cannot say no is none: one planted error of each kind has to go red.
    let text = std::fs::read_to_string(&record).unwrap();
    let plants = [
        ("an enum", r#"\"PingStatus\":\"Online\""#, r#"\"PingStatus\":\"OnLine\""#, "is not one of"),
        ("a pattern", r#"\"AgentVersion\":\"3.3"#, r#"\"AgentVersion\":\"v3.3"#, "does not match"),
        ("a type", r#"\"TargetCount\":6"#, r#"\"TargetCount\":\"6\""#, "not an integer"),
        ("a name", r#"\"ClusterId\":"#, r#"\"ClusterID\":"#, "is not a member of"),
        ("a required member", r#"\"HsmId\":"#, r#"\"HsmName\":"#, "is missing"),
        ("an enum in XML", "<name>running</name>", "<name>sprinting</name>", "is not one of"),
        ("a snapshot's state", "<status>completed</status>", "<status>complete</status>", "is not one of"),
        ("a key's state", r#"\"KeyState\":\"Enabled\""#, r#"\"KeyState\":\"On\""#, "is not one of"),
        ("an element", "<instanceType>", "<instanceKind>", "no XML"),
        ("an error code", "InvalidInstanceId", "InvalidInstanceIdentity", "is not an error of this operation"),
    ];
    for (what, right, wrong, said) in plants {
        assert!(text.contains(right), "{what}: {right} was never sent");
        let planted = record.with_extension("planted.jsonl");
        std::fs::write(&planted, text.replacen(right, wrong, 1)).unwrap();
        let checked = check_responses(&[&planted]).unwrap();
        let report = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(!checked.status.success() && report.contains(said), "{what} was not noticed: {report}");
        std::fs::remove_file(&planted).unwrap();
    }
    let empty = record.with_extension("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    assert!(!check_responses(&[&empty]).unwrap().status.success(), "a check of nothing passed");
    std::fs::remove_file(&empty).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}
