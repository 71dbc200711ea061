//! The functions as Lambda runs them: environment, role and triggers are those of the templates. The function here is one of the
//! tests' own, so that what is shown is the sandbox's doing.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tde2hsm_conformance::{Served, python};

const SANDBOX: &str = env!("CARGO_BIN_EXE_sandbox");
const FIVE: [&str; 5] = ["audit-recovery", "copy-hsm-backups", "copy-snapshots", "expire-copies", "settle-copies"];

struct World {
    dir: tempfile::TempDir,
    programs: tempfile::TempDir,
    env: BTreeMap<String, String>,
    _served: Served,
}

impl World {
    fn up(more: &[&str]) -> Self {
        let (dir, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = programs.path().join("bootstrap");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/function.py");
        std::fs::write(&program, format!("#!/bin/sh\nexec {} {}\n", python().unwrap().display(), script.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut args = vec!["--fleet", "1", "--functions", program.to_str().unwrap()];
        args.extend(more);
        let served = Served::up(dir.path(), &args).unwrap();
        let env = served.exports.iter().cloned().collect();
        Self { dir, programs, env, _served: served }
    }

    fn run(&self, verb: &str, args: &[&str], input: Option<&Value>) -> Output {
        let mut command = Command::new(SANDBOX);
        command.arg(verb).arg("--dir").arg(self.dir.path()).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        if let Some(input) = input {
            stdin.write_all(input.to_string().as_bytes()).unwrap();
        }
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn ask(&self, verb: &str, args: &[&str]) -> Value {
        let output = self.run(verb, args, None);
        assert!(output.status.success(), "{verb} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn invoke(&self, name: &str, event: &Value) -> Value {
        let output = self.run("function", &[name, "--event", "-"], Some(event));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn invoked(&self, name: &str, by: &str) -> u64 {
        self.ask("inspect", &[])["functions"]["invoked"][name]["by"][by].as_u64().unwrap_or(0)
    }

    fn until(&self, what: impl Fn(&Self) -> (bool, String)) {
        let start = Instant::now();
        loop {
            let (done, seen) = what(self);
            if done {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "gave up waiting; last seen: {seen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_function_has_the_environment_and_the_role_of_its_template() {
    let world = World::up(&[]);
    let fleet: toml::Table = std::fs::read_to_string(world.dir.path().join("fleet.toml")).unwrap().parse().unwrap();
    let dr = &fleet["dr"];
    let first = world.invoke("copy-snapshots", &json!({}));
    let env = &first["answer"]["env"];
    assert_eq!(first["answer"]["arn"], "arn:aws:lambda:us-east-1:123456789012:function:tde2hsm-copy-snapshots");
    for (name, value) in [
        ("_HANDLER", "copy-snapshots"),
        ("AWS_REGION", "us-east-1"),
        ("TDE2HSM_DR_REGION", "us-west-2"),
        ("TDE2HSM_FLEET_TAG", "tde2hsm:fleet=demo"),
        ("TDE2HSM_KMS_KEY", dr["kms_key"].as_str().unwrap()),
        ("TDE2HSM_RECORDS_BUCKET", dr["records_bucket"].as_str().unwrap()),
        ("TDE2HSM_CLUSTER", fleet["cluster"]["id"].as_str().unwrap()),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    assert!(env.get("HOME").is_none(), "nothing of this process's environment");
    let far = world.invoke("tde2hsm-settle-copies", &json!({}));
    assert_eq!(far["answer"]["env"]["AWS_REGION"], "us-west-2");
    assert_eq!(far["answer"]["env"]["TDE2HSM_RECORDS_BUCKET"], dr["records_bucket"].as_str().unwrap());

    // It stays warm, until something goes wrong in it.
    let second = world.invoke("copy-snapshots", &json!({}));
    assert_eq!((&first["cold"], &second["cold"], &second["answer"]["served"]), (&json!(true), &json!(false), &json!(2)));
    let failed = world.invoke("copy-snapshots", &json!({"do": "fail"}));
    assert_eq!((&failed["ok"], &failed["error"]["errorType"]), (&json!(false), &json!("Wanted")));
    let died = world.invoke("copy-snapshots", &json!({"do": "die"}));
    assert_eq!(died["error"]["errorType"], "Runtime.ExitError");
    assert!(died["log"].as_str().unwrap().contains("serving"));
    assert_eq!(world.invoke("copy-snapshots", &json!({}))["cold"], true);

    // The role: what the template allows, where it allows it.
    let called = |function: &str, call: &str, region: &str, with: Value| {
        let event = json!({"call": call, "region": region, "with": with});
        world.invoke(function, &event)["answer"]["called"].as_str().unwrap().to_owned()
    };
    assert_eq!(called("copy-snapshots", "ec2:describe_snapshots", "us-west-2", json!({"OwnerIds": ["self"]})), "ok");
    assert_eq!(
        called("copy-snapshots", "ec2:terminate_instances", "us-east-1", json!({"InstanceIds": ["i-0"]})),
        "UnauthorizedOperation"
    );
    assert_eq!(called("copy-hsm-backups", "ec2:describe_snapshots", "us-east-1", json!({})), "UnauthorizedOperation");
    let copy = json!({"SourceRegion": "us-east-1", "SourceSnapshotId": "snap-0123456789abcdef0"});
    assert_eq!(
        called("copy-snapshots", "ec2:copy_snapshot", "us-west-2", copy),
        "UnauthorizedOperation",
        "without the fleet's tag"
    );
    let bucket = dr["records_bucket"].as_str().unwrap();
    assert_eq!(called("audit-recovery", "s3:list_objects_v2", "us-west-2", json!({"Bucket": bucket})), "ok");
    assert_eq!(called("audit-recovery", "s3:delete_object", "us-west-2", json!({"Bucket": bucket, "Key": "k"})), "AccessDenied");
    let secret = json!({"SecretId": "tde/cloudhsm-cu"});
    for function in FIVE {
        assert_eq!(
            called(function, "secretsmanager:get_secret_value", "us-west-2", secret.clone()),
            "AccessDeniedException",
            "{function}"
        );
    }
    assert!(!world.run("function", &["no-such"], None).status.success());
    let program = world.programs.path().join("bootstrap");
    let broken = ["copy-snapshots", "--program", program.to_str().unwrap(), "--cold", "--parameter", "Fleet=broken"];
    assert_eq!(world.ask("function", &broken)["error"]["errorMessage"], "broken");
}

#[test]
fn rules_and_schedules_of_the_templates_reach_the_functions() {
    let world = World::up(&["--cold"]);
    let ticked = world.ask("tick", &[]);
    let names: BTreeSet<&str> = ticked.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(FIVE));
    assert!(ticked.as_object().unwrap().values().all(|row| row["ok"] == true && row["cold"] == true), "{ticked:#}");

    // One event for the set; as it happens, as often as it comes, or not at all.
    let snapshot = || world.ask("snapshot", &[]);
    let events = |n: u64| {
        world.until(|w| (w.invoked("copy-snapshots", "event") >= n, format!("{:#}", w.ask("inspect", &[])["functions"])))
    };
    world.ask("fault", &["events-lost", "100"]);
    snapshot();
    world.ask("clock", &["--advance", "1h"]);
    world.ask("fault", &["clear"]);
    let taken = snapshot();
    world.ask("clock", &["--advance", "1h"]);
    events(1);
    assert_eq!(world.invoked("settle-copies", "event"), 0);

    // A copy is an event of the other region.
    let source = taken.as_object().unwrap().values().next().unwrap()[0].as_str().unwrap().to_owned();
    let copy = "import boto3, sys; boto3.client('ec2', region_name='us-west-2').copy_snapshot(SourceRegion='us-east-1', SourceSnapshotId=sys.argv[1])";
    let done = Command::new(python().unwrap()).args(["-c", copy, &source]).envs(&world.env).status().unwrap();
    assert!(done.success());
    world.ask("clock", &["--advance", "6h"]);
    world.until(|w| (w.invoked("settle-copies", "event") == 1, format!("{:#}", w.ask("inspect", &[])["functions"])));
    assert!(world.ask("inspect", &[])["functions"]["events"]["us-east-1"]["arrived"].as_u64().unwrap() > 0);

    // What fails is tried again as often as the template says; what waits longer than it says is dropped.
    let program = world.programs.path().join("bootstrap").display().to_string();
    world.ask("tick", &["--program", &program, "--cold", "--parameter", "Fleet=broken"]);
    let retried = FIVE.map(|name| world.invoked(name, "retry"));
    assert_eq!(retried, [2, 2, 1, 2, 1], "of {FIVE:?}");
    let templates = world.programs.path().join("infra");
    std::fs::create_dir(&templates).unwrap();
    for name in ["source.yaml", "dr.yaml"] {
        let text = std::fs::read_to_string(format!("{}/../../infra/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        std::fs::write(templates.join(name), text.replace("MaximumEventAgeInSeconds: 300\n", "MaximumEventAgeInSeconds: 0\n"))
            .unwrap();
    }
    let ticked = world.ask("tick", &["--program", &program, "--cold", "--templates", templates.to_str().unwrap()]);
    assert_eq!((&ticked["settle-copies"]["ok"], &ticked["audit-recovery"]["ok"]), (&json!(false), &json!(true)), "{ticked:#}");
    assert_eq!(FIVE.map(|name| world.invoked(name, "dropped")), [0, 0, 1, 0, 1]);

    // A region that is lost runs nothing.
    world.ask("fault", &["region-lost", "us-east-1"]);
    let ticked = world.ask("tick", &[]);
    assert_eq!((&ticked["copy-snapshots"]["ok"], &ticked["settle-copies"]["ok"]), (&json!(false), &json!(true)));
}
