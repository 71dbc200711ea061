//! A whole sandbox, driven by the programs and the SDK that the product is driven with.

use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ssm::types::{CommandInvocation, CommandInvocationStatus, DocumentFormat, DocumentType};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tde2hsm_conformance::Served;

const SANDBOX: &str = env!("CARGO_BIN_EXE_sandbox");
const DEADLINE: Duration = Duration::from_secs(60);

struct World {
    dir: tempfile::TempDir,
    served: Served,
    env: BTreeMap<String, String>,
}

impl World {
    fn up(fleet: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::up(dir.path(), &["--fleet", fleet]).unwrap();
        let env = served.exports.iter().cloned().collect();
        Self { dir, served, env }
    }

    fn run(&self, verb: &str, args: &[&str]) -> Output {
        Command::new(SANDBOX).arg(verb).arg("--dir").arg(self.dir.path()).args(args).output().unwrap()
    }

    fn ask(&self, verb: &str, args: &[&str]) -> Value {
        let output = self.run(verb, args);
        assert!(output.status.success(), "{verb} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn fault(&self, args: &[&str]) {
        self.ask("fault", args);
    }

    /// What a shell line prints in a host.
    fn sh(&self, host: &str, line: &str) -> String {
        let output = self.run("exec", &[host, "--", "sh", "-c", line]);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn ssm(&self) -> aws_sdk_ssm::Client {
        let (access, secret) = (&self.env["AWS_ACCESS_KEY_ID"], &self.env["AWS_SECRET_ACCESS_KEY"]);
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.env["AWS_REGION"].clone()))
            .endpoint_url(&self.env["AWS_ENDPOINT_URL"])
            .retry_config(RetryConfig::disabled())
            .credentials_provider(Credentials::new(access, secret, None, None, "test"))
            .build();
        aws_sdk_ssm::Client::from_conf(config)
    }

    fn root(&self) -> PathBuf {
        let host = std::fs::read_dir(self.dir.path().join("hosts")).unwrap().next().unwrap().unwrap();
        host.path().join("root")
    }

    fn instance(&self) -> String {
        self.root().parent().unwrap().file_name().unwrap().to_string_lossy().into_owned()
    }
}

/// Waits for a state, and tells the last one seen when it never comes.
fn until<T: std::fmt::Debug>(mut look: impl FnMut() -> (bool, T)) -> T {
    let start = Instant::now();
    loop {
        let (done, seen) = look();
        if done {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "gave up waiting; last seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a document on the one host and returns its invocation once it has ended.
async fn run(ssm: &aws_sdk_ssm::Client, instance: &str, document: &str, parameters: &[(&str, &str)]) -> CommandInvocation {
    let mut send = ssm.send_command().instance_ids(instance).document_name(document);
    for (name, value) in parameters {
        send = send.parameters(*name, vec![(*value).to_owned()]);
    }
    let sent = send.send().await.unwrap();
    ended(ssm, sent.command().unwrap().command_id().unwrap()).await
}

async fn ended(ssm: &aws_sdk_ssm::Client, command: &str) -> CommandInvocation {
    let start = Instant::now();
    loop {
        let page = ssm.list_command_invocations().command_id(command).details(true).send().await.unwrap();
        let found = page.command_invocations().first().cloned();
        let status = found.as_ref().and_then(|i| i.status().cloned());
        let open = [CommandInvocationStatus::Pending, CommandInvocationStatus::InProgress, CommandInvocationStatus::Delayed];
        if status.as_ref().is_some_and(|s| !open.contains(s)) {
            return found.unwrap();
        }
        assert!(start.elapsed() < DEADLINE, "gave up waiting; last seen: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create(ssm: &aws_sdk_ssm::Client, name: &str, content: &Value) {
    let request = ssm.create_document().name(name).content(content.to_string());
    request.document_type(DocumentType::Command).document_format(DocumentFormat::Json).send().await.unwrap();
    let start = Instant::now();
    loop {
        let described = ssm.describe_document().name(name).send().await.unwrap();
        if described.document().unwrap().status().unwrap().as_str() == "Active" {
            return;
        }
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn step(name: &str, inputs: Value) -> Value {
    json!({"action": "aws:runShellScript", "name": name, "inputs": inputs})
}

fn outputs(invocation: &CommandInvocation) -> BTreeMap<String, (i32, String)> {
    let plugins = invocation.command_plugins().iter();
    plugins
        .map(|p| (p.name().unwrap().to_owned(), (p.response_code(), p.output().unwrap_or_default().trim().to_owned())))
        .collect()
}

#[test]
fn a_host_is_a_machine_of_its_own() {
    let world = World::up("2");
    assert_eq!(world.sh("ora-01", "hostname"), "ora-01");
    assert_eq!(world.sh("ora-02", "hostname"), "ora-02");
    assert_eq!(world.sh("ora-01", "ps -e -o args= | grep -c '^ora_pmon_'"), "1");
    assert!(world.sh("ora-01", "touch /usr/x 2>&1 || true").contains("Read-only"));
    assert_eq!(world.sh("ora-01", "stat -c %a:%U:%G /u01/app/oracle/product/19.0.0/dbhome_1/bin/oracle"), "6751:oracle:oinstall");
    assert_eq!(world.sh("ora-01", "id -un 54321; id -Gn oracle"), "oracle\noinstall dba");
    assert_eq!(
        world.sh("ora-01", "find /opt/oracle/extapi -type f"),
        "/opt/oracle/extapi/64/hsm/oldhsm/7.4.0/libcryptoki_oldhsm.so"
    );
    assert!(world.run("exec", &["ora-01", "--", "sh", "-c", "exit 3"]).status.code() == Some(3));
    assert!(!world.run("exec", &["ora-99", "--", "true"]).status.success());
    // What was seeded is nowhere in a host.
    assert_eq!(world.sh("ora-01", "ls -d /truth /*/truth 2>/dev/null || true"), "");
}

#[test]
fn h46_without_the_key_store_no_encrypted_row_is_read() {
    let world = World::up("mixed");
    let read = |cut_off: &str| -> BTreeMap<String, (u64, u64)> {
        let args: &[&str] = if cut_off.is_empty() { &[] } else { &["--cut-off", cut_off] };
        let found = world.ask("verify", args);
        let rows = |v: &Value| (v["rows_readable"].as_u64().unwrap(), v["rows_total"].as_u64().unwrap());
        found["databases"].as_object().unwrap().iter().map(|(sid, v)| (sid.clone(), rows(v))).collect()
    };
    let all = read("");
    assert_eq!(all.len(), 11);
    assert!(all.values().all(|(readable, total)| readable == total && *total > 0), "{all:?}");
    let without_hsm = read("old-hsm");
    for (sid, (readable, total)) in &without_hsm {
        let expected = if matches!(sid.as_str(), "WEB" | "ARCH") { *total } else { 0 };
        assert_eq!(*readable, expected, "{sid}");
    }
    let without_any = read("old-hsm,software");
    assert!(without_any.values().all(|(readable, _)| *readable == 0), "{without_any:?}");
    assert!(!world.run("verify", &["--cut-off", "moon"]).status.success());
    // Looking costs nothing: no login, no start, no key.
    let inspected = world.ask("inspect", &[]);
    assert_eq!(inspected["logins"]["old-hsm"]["failed"], 0);
    assert!(inspected["databases"].as_object().unwrap().values().all(|d| d["starts"] == 1), "{inspected:#}");
    assert_eq!(std::fs::read_dir(world.dir.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn the_agent_keeps_the_traps_of_the_real_one() {
    let world = World::up("1");
    let instance = world.instance();
    runtime().block_on(async {
        let ssm = world.ssm();
        let steps = |list: Vec<Value>| json!({"schemaVersion": "2.2", "mainSteps": list});

        // Later steps run after a failed one, unless the failed one says otherwise.
        let failing = step("first", json!({"runCommand": ["exit 1"]}));
        let second = step("second", json!({"runCommand": ["echo went on"]}));
        create(&ssm, "goes-on", &steps(vec![failing, second.clone()])).await;
        let goes_on = run(&ssm, &instance, "goes-on", &[]).await;
        assert_eq!(goes_on.status(), Some(&CommandInvocationStatus::Failed));
        assert_eq!(outputs(&goes_on)["second"], (0, "went on".into()));
        let exits = step("first", json!({"runCommand": ["exit 1"], "onFailure": "exit"}));
        create(&ssm, "stops", &steps(vec![exits, second.clone()])).await;
        assert_eq!(outputs(&run(&ssm, &instance, "stops", &[]).await)["second"].1, "");
        // 168: this step is fine, skip the rest.
        let enough = step("first", json!({"runCommand": ["exit 168"]}));
        create(&ssm, "enough", &steps(vec![enough, second])).await;
        let enough = run(&ssm, &instance, "enough", &[]).await;
        assert_eq!(enough.status(), Some(&CommandInvocationStatus::Success));
        assert_eq!(outputs(&enough)["second"].1, "");

        // 194: the host reboots and the same script starts again from the top.
        let reboots = "n=$(cat /root/n 2>/dev/null || echo 0); echo $((n + 1)) > /root/n; [ $n -ge 1 ] && pgrep -fc ^ora_pmon; [ $n -ge 1 ] || exit 194";
        create(&ssm, "reboots", &steps(vec![step("again", json!({"runCommand": [reboots]}))])).await;
        assert_eq!(outputs(&run(&ssm, &instance, "reboots", &[]).await)["again"].1, "0", "databases are down after a reboot");
        assert_eq!(world.sh("ora-01", "cat /root/n"), "2");

        // A time-out kills the group; a child that made a session of its own survives (invariant 8).
        let outlives = "setsid sh -c 'sleep 7; touch /root/survived' >/dev/null 2>&1 </dev/null & sleep 60";
        create(&ssm, "outlives", &steps(vec![step("slow", json!({"timeoutSeconds": "5", "runCommand": [outlives]}))])).await;
        let outlives = run(&ssm, &instance, "outlives", &[]).await;
        assert_eq!((outlives.status_details(), outputs(&outlives)["slow"].0), (Some("ExecutionTimedOut"), 137));
        until(|| (world.root().join("root/survived").exists(), ()));
        assert_eq!(world.sh("ora-01", "pgrep -c 'sleep' || true"), "0");

        // An older agent knows no ENV_VAR.
        let mut env_var = steps(vec![step("shows", json!({"runCommand": ["echo \"[${SSM_Word-unset}]\""]}))]);
        env_var["parameters"] = json!({"Word": {"type": "String", "interpolationType": "ENV_VAR"}});
        create(&ssm, "env-var", &env_var).await;
        let hostile = "a; touch /root/injected";
        let shown = outputs(&run(&ssm, &instance, "env-var", &[("Word", hostile)]).await);
        assert_eq!(shown["shows"].1, format!("[{hostile}]"));
        world.fault(&["agent-version", "all", "3.3.987.0"]);
        assert_eq!(outputs(&run(&ssm, &instance, "env-var", &[("Word", hostile)]).await)["shows"].1, "[unset]");
        assert!(!world.root().join("root/injected").exists());
    });
}

#[test]
fn a_lost_reply_leaves_a_command_that_runs_and_can_be_found() {
    let world = World::up("2");
    let instance = world.instance();
    runtime().block_on(async {
        let ssm = world.ssm();
        world.fault(&["lose-reply", "ssm:SendCommand", "1"]);
        let send = ssm.send_command().instance_ids(&instance).document_name("AWS-RunShellScript");
        let sent = send.comment("op-1").parameters("commands", vec!["echo x >> /root/runs".to_owned()]).send().await;
        assert!(sent.unwrap_err().as_service_error().is_none(), "the connection died, the service said nothing");
        let start = Instant::now();
        let found = loop {
            let page = ssm.list_commands().send().await.unwrap();
            if let Some(command) = page.commands().iter().find(|c| c.comment() == Some("op-1")) {
                break command.command_id().unwrap().to_owned();
            }
            assert!(start.elapsed() < DEADLINE);
        };
        ended(&ssm, &found).await;
        let runs = world.root().join("root/runs");
        assert_eq!(std::fs::read_to_string(&runs).unwrap(), "x\n");
        // And delivered once more it runs once more (H31): only the host itself can tell.
        world.fault(&["redeliver", &found, &instance]);
        until(|| (std::fs::read_to_string(&runs).unwrap() == "x\nx\n", ()));
        assert_eq!(world.ask("inspect", &[])["api_calls"]["ssm:SendCommand"], 1);
    });
}

#[test]
fn h35_metadata_wants_a_token_and_its_credentials_open_secrets_alone() {
    let world = World::up("1");
    let endpoints = std::fs::read_to_string(world.root().join("etc/tde2hsm/endpoints.toml")).unwrap();
    let endpoints: toml::Table = endpoints.parse().unwrap();
    let imds = endpoints["imds"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let get = |request: &str| -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(&imds).unwrap();
        write!(stream, "{request}\r\nHost: {imds}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    };
    let path = "/latest/meta-data/iam/security-credentials/tde2hsm-host";
    assert_eq!(get(&format!("GET {path} HTTP/1.1")).0, 401);
    assert_eq!(get("GET /latest/api/token HTTP/1.1").0, 405);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    assert_eq!(get(&format!("PUT /latest/api/token HTTP/1.1\r\n{ttl}\r\nX-Forwarded-For: 10.0.0.1")).0, 403);
    let (status, token) = get(&format!("PUT /latest/api/token HTTP/1.1\r\n{ttl}"));
    assert_eq!(status, 200);
    let with = format!("X-aws-ec2-metadata-token: {token}");
    let (_, document) = get(&format!("GET /latest/dynamic/instance-identity/document HTTP/1.1\r\n{with}"));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["instanceId"].as_str().unwrap(), world.instance());
    let (_, credentials) = get(&format!("GET {path} HTTP/1.1\r\n{with}"));
    let credentials: Value = serde_json::from_str(&credentials).unwrap();
    let text = |name: &str| credentials[name].as_str().unwrap().to_owned();

    let config = |token: Option<String>| {
        aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(world.env["AWS_REGION"].clone()))
            .endpoint_url(&world.env["AWS_ENDPOINT_URL"])
            .credentials_provider(Credentials::new(text("AccessKeyId"), text("SecretAccessKey"), token, None, "imds"))
            .build()
    };
    runtime().block_on(async {
        let client = aws_sdk_secretsmanager::Client::from_conf(config(Some(text("Token"))));
        assert!(client.get_secret_value().secret_id("tde/software").send().await.is_ok());
        let denied = client.describe_secret().secret_id("tde/software").send().await.unwrap_err();
        assert_eq!(denied.raw_response().map(|r| r.status().as_u16()), Some(400));
        let no_token = aws_sdk_secretsmanager::Client::from_conf(config(None));
        assert!(no_token.get_secret_value().secret_id("tde/software").send().await.is_err());
    });
    let calls = world.ask("inspect", &[]);
    assert_eq!(calls["api_calls_of_hosts"]["secretsmanager:GetSecretValue"], 1);
}

#[test]
fn a_crashed_host_stays_down_until_it_is_started_again() {
    let world = World::up("1");
    world.fault(&["crash", "ora-01"]);
    assert!(!world.run("exec", &["ora-01", "--", "true"]).status.success());
    assert!(world.ask("inspect", &[])["not_seen"]["ora-01"].is_string());
    world.fault(&["reboot", "ora-01"]);
    assert_eq!(world.sh("ora-01", "pgrep -fc ^ora_pmon || true"), "0");
    world.fault(&["start-databases", "ora-01"]);
    assert_eq!(world.sh("ora-01", "pgrep -fc ^ora_pmon"), "1");
    assert_eq!(world.ask("inspect", &[])["databases"]["DB001"]["starts"], 2);
}

#[test]
fn a_killed_sandbox_leaves_no_process_behind() {
    let mut world = World::up("2");
    let dir = world.dir.path().to_owned();
    assert!(processes_of(&dir) >= 3, "the sandbox and two hosts");
    world.served.kill().unwrap();
    until(|| {
        let left = processes_of(&dir);
        (left == 0, left)
    });
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*dir.to_string_lossy()), "{mounts}");
}

/// Processes whose command line names the directory, or whose root lies in it.
fn processes_of(dir: &Path) -> usize {
    let text = dir.to_string_lossy().into_owned();
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok());
    pids.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(&text)))
        .count()
}

#[test]
fn one_directory_is_one_world() {
    let world = World::up("1");
    let again = Command::new(SANDBOX).args(["up", "--dir"]).arg(world.dir.path()).output().unwrap();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("holds a sandbox already"));
    assert!(!world.run("clean", &[]).status.success(), "it still serves");
    let before = world.ask("clock", &["--advance", "0s"]);
    let after = world.ask("clock", &["--advance", "3d"]);
    assert_eq!(after["ahead_secs"].as_u64().unwrap() - before["ahead_secs"].as_u64().unwrap(), 3 * 86_400);
}
