//! The second region: what is in snapshots and backups, and what can be opened with it, without the product.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use tde2hsm_conformance::{Served, python};

const SANDBOX: &str = env!("CARGO_BIN_EXE_sandbox");

struct World {
    dir: tempfile::TempDir,
    _served: Served,
    env: BTreeMap<String, String>,
    fleet: toml::Table,
}

impl World {
    fn up(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::up(dir.path(), args).unwrap();
        let env = served.exports.iter().cloned().collect();
        let fleet = std::fs::read_to_string(dir.path().join("fleet.toml")).unwrap().parse().unwrap();
        Self { dir, _served: served, env, fleet }
    }

    fn run(&self, verb: &str, args: &[&str]) -> Output {
        Command::new(SANDBOX).arg(verb).arg("--dir").arg(self.dir.path()).args(args).output().unwrap()
    }

    fn ask(&self, verb: &str, args: &[&str]) -> Value {
        let output = self.run(verb, args);
        assert!(output.status.success(), "{verb} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn sh(&self, host: &str, line: &str) -> String {
        let output = self.run("exec", &[host, "--", "bash", "-c", line]);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Something the operator does by boto3.
    fn operator(&self, args: &[&str]) -> Value {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recovery.py");
        let mut command = Command::new(python().unwrap());
        command.arg(script).args(args).envs(&self.env).env("SANDBOX", SANDBOX).env("DIR", self.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn dr(&self, path: &[&str]) -> String {
        let mut at = &self.fleet["dr"];
        for name in path {
            at = &at[name];
        }
        at.as_str().unwrap().to_owned()
    }

    /// Readable and all encrypted rows of a host's databases.
    fn rows(&self, host: &str, cut_off: &str) -> (u64, u64) {
        let mut args = vec!["--host", host];
        if !cut_off.is_empty() {
            args.extend(["--cut-off", cut_off]);
        }
        let found = self.ask("verify", &args);
        let sum = |name: &str| found["databases"].as_object().unwrap().values().map(|d| d[name].as_u64().unwrap()).sum();
        (sum("rows_readable"), sum("rows_total"))
    }

    /// Moves the one database of `ora-01` into CloudHSM by hand.
    fn migrate(&self) {
        let text = |name: &str| {
            std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../e2e/wrong").join(name)).unwrap()
        };
        let secrets: Value = serde_json::from_slice(&std::fs::read(self.dir.path().join("truth/secrets.json")).unwrap()).unwrap();
        let packages = self.dir.path().join("packages");
        let rpm =
            std::fs::read_dir(&packages).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "rpm"));
        let put = |from: PathBuf, to: &str| {
            use std::io::Write as _;
            let mut child = Command::new(SANDBOX)
                .args(["exec", "--dir"])
                .arg(self.dir.path())
                .args(["ora-01", "--", "sh", "-c", "cat > \"$1\"", "sh", to])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&std::fs::read(from).unwrap()).unwrap();
            assert!(child.wait().unwrap().success());
        };
        put(rpm.unwrap(), "/tmp/client.rpm");
        put(packages.join("customerCA.crt"), "/tmp/ca.crt");
        let secret = |name: &str| secrets[name].as_str().unwrap().to_owned();
        let script = format!(
            "OLD_PIN='{}' NEW_PIN='{}' SOFTWARE_PASSWORD='{}' RPM=/tmp/client.rpm CA=/tmp/ca.crt HSM_IP=10.0.1.250\n{}\n{}",
            secret("old-hsm"),
            secret("cloudhsm"),
            secret("software"),
            text("lib.sh"),
            text("right.sh")
        );
        assert!(self.sh("ora-01", &script).contains("keystore altered."));
    }

    /// A set of `ora-01`: snapshots of root and data volume.
    fn snapshot(&self) -> [String; 2] {
        let taken = self.ask("snapshot", &["--host", "ora-01"]);
        let ids = taken.as_object().unwrap().values().next().unwrap().as_array().unwrap();
        [0, 1].map(|n| ids[n].as_str().unwrap().to_owned())
    }

    fn copies(&self, set: &[String; 2]) -> [String; 2] {
        let found = self.operator(&["copy_set", &self.dr(&["kms_key"]), &set[0], &set[1]]);
        [0, 1].map(|n| {
            assert_eq!(found[&set[n]]["state"], "completed");
            found[&set[n]]["copy"].as_str().unwrap().to_owned()
        })
    }

    fn backup(&self) -> String {
        let found = self.operator(&["copy_backup"]);
        assert_eq!(found["state"], "READY");
        found["backup"].as_str().unwrap().to_owned()
    }

    /// The cluster and the address of its HSM.
    fn restore(&self, backup: &str) -> (String, String) {
        let found = self.operator(&["restore", &self.dr(&["drill", "subnet"]), "us-west-2a", backup]);
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("cluster"), text("address"))
    }

    fn launch(&self, copies: &[String; 2]) -> String {
        let devices = [format!("/dev/xvda={}", copies[0]), format!("/dev/xvdf={}", copies[1])];
        let (subnet, group) = (self.dr(&["drill", "subnet"]), self.dr(&["drill", "security_group"]));
        let found = self.operator(&["launch", &subnet, &group, &devices[0], &devices[1]]);
        found["instance"].as_str().unwrap().to_owned()
    }

    /// Points a host's CloudHSM client at an HSM.
    fn point(&self, host: &str, address: &str) {
        let line = format!("/opt/cloudhsm/bin/configure-pkcs11 -a {address} --disable-key-availability-check");
        self.sh(host, &line);
    }

    fn logins(&self, store: &str) -> (u64, u64) {
        let row = &self.ask("inspect", &[])["logins"][store];
        (row["ok"].as_u64().unwrap(), row["failed"].as_u64().unwrap())
    }
}

#[test]
fn each_volume_of_a_host_is_a_file_system_that_names_its_ebs_volume() {
    let world = World::up(&["--fleet", "1"]);
    let device = |path: &str| world.sh("ora-01", &format!("stat -c %d {path}"));
    assert_ne!(device("/"), device("/u01/oradata/DB001"));
    assert_eq!(device("/"), device("/opt"));
    let source = |target: &str| {
        world.sh("ora-01", &format!("awk '$5 == \"{target}\" {{print $(NF - 1)}}' /proc/self/mountinfo | tail -1"))
    };
    assert_eq!((source("/"), source("/u01/oradata")), ("/dev/nvme0n1p1".to_owned(), "/dev/nvme1n1".to_owned()));
    let links = world.sh("ora-01", "cd /dev/disk/by-id && for l in *; do echo $l $(readlink -f $l); done");
    let links: BTreeMap<&str, &str> = links.lines().filter_map(|l| l.split_once(' ')).map(|(link, to)| (to, link)).collect();
    let volume = |device: &str| links[device].trim_start_matches("nvme-Amazon_Elastic_Block_Store_").to_owned();
    assert!(volume("/dev/nvme0n1p1").ends_with("-part1"));
    assert_eq!(volume("/dev/nvme0n1p1").trim_end_matches("-part1"), volume("/dev/nvme0n1"));
    assert!(volume("/dev/nvme1n1").starts_with("vol") && volume("/dev/nvme1n1") != volume("/dev/nvme0n1"));
}

#[test]
fn hosts_and_operator_have_the_time_of_the_world() {
    let world = World::up(&["--fleet", "1"]);
    let before: i64 = world.sh("ora-01", "date +%s").parse().unwrap();
    world.ask("clock", &["--advance", "3d"]);
    let after: i64 = world.sh("ora-01", "date +%s").parse().unwrap();
    assert!((3 * 86_400..3 * 86_400 + 60).contains(&(after - before)), "{before} {after}");
    let own = Command::new("date").arg("+%s").envs(&world.env).output().unwrap();
    let own: i64 = String::from_utf8_lossy(&own.stdout).trim().parse().unwrap();
    assert!((own - after).abs() < 60);
    // Oracle tells it too: it is when a key was made.
    let asked = "printf 'CONNECT / AS SYSDBA\\nSELECT to_char(sysdate, '\\''YYYY-MM-DD'\\'') FROM dual;\\nEXIT\\n'";
    let home = "/u01/app/oracle/product/19.0.0/dbhome_1";
    let sysdate = world.sh(
        "ora-01",
        &format!("{asked} | setpriv --reuid oracle --regid oinstall --init-groups env ORACLE_HOME={home} ORACLE_SID=DB001 {home}/bin/sqlplus -S -L /nolog"),
    );
    let day = world.sh("ora-01", "date -u +%Y-%m-%d");
    assert!(sysdate.contains(&day), "{sysdate}");
    // A backup a day, with its keys in it.
    assert!(std::fs::read_dir(world.dir.path().join("hsm-backups")).unwrap().count() >= 43);
}

#[test]
fn h44_a_restored_host_opens_with_the_restored_cluster_alone() {
    let world = World::up(&["--fleet", "1"]);
    // A backup from before any key of the fleet was in the cluster.
    let early = world.backup();
    world.migrate();
    world.ask("fault", &["autostart", "ora-01"]);
    assert_eq!(world.rows("ora-01", "old-hsm,software"), (96, 96));
    let set = world.snapshot();
    let copies = world.copies(&set);
    world.ask("clock", &["--advance", "1d"]);
    let late = world.backup();
    let ((cluster, address), (_, without_key)) = (world.restore(&late), world.restore(&early));
    let production = world.logins("cloudhsm");

    let drill = world.launch(&copies);
    // It started what it starts by itself, and got nowhere: production's addresses lead nowhere from here.
    world.sh(&drill, "for i in $(seq 100); do [ -e /var/log/nightly-feed.ran ] && exit; sleep 0.05; done; exit 1");
    assert_eq!(world.rows(&drill, "").0, 0, "its client still names production's HSMs");
    world.point(&drill, &address);
    assert_eq!(world.rows(&drill, ""), (96, 96));
    assert_eq!(world.rows(&drill, "software"), (96, 96), "the interim keystore is not what opens it");
    assert_eq!(world.rows(&drill, "target").0, 0);

    world.ask("fault", &["detach-cluster", &cluster]);
    assert_eq!(world.rows(&drill, "software").0, 0);
    world.ask("fault", &["attach-cluster", &cluster]);
    // A backup that is older than the key opens nothing.
    world.point(&drill, &without_key);
    assert_eq!(world.rows(&drill, "software").0, 0);
    world.point(&drill, &address);

    // The first region goes, and its HSMs with it.
    assert_eq!(world.operator(&["answers", "us-east-1"])["answers"], true);
    world.ask("fault", &["region-lost", "us-east-1"]);
    assert_eq!(world.operator(&["answers", "us-east-1"])["answers"], false);
    assert_eq!(world.operator(&["answers", "us-west-2"])["answers"], true);
    assert_eq!(world.rows(&drill, "software"), (96, 96));
    assert_eq!(world.rows("ora-01", "software").0, 0);

    let inspected = world.ask("inspect", &[]);
    assert_eq!(inspected["drills"][&drill]["state"], "up");
    assert_eq!(world.logins("cloudhsm"), production, "nothing of this reached production");
    world.operator(&["terminate", &drill]);
    assert_eq!(world.ask("inspect", &[])["drills"][&drill]["state"], "gone");
    assert!(!world.run("exec", &[&drill, "--", "true"]).status.success());
}

#[test]
fn h44_a_host_of_a_drill_reaches_no_other_region() {
    let world = World::up(&["--fleet", "1"]);
    let set = world.snapshot();
    let copies = world.copies(&set);
    let drill = world.launch(&copies);
    let secrets = |region: &str| {
        let script = "import os, sys, urllib.request, json, boto3\n\
            imds, region = sys.argv[1], sys.argv[2]\n\
            def ask(path, method='GET', **h):\n    return urllib.request.urlopen(urllib.request.Request(imds + path, method=method, headers=h)).read().decode()\n\
            token = ask('/latest/api/token', 'PUT', **{'X-aws-ec2-metadata-token-ttl-seconds': '60'})\n\
            role = ask('/latest/meta-data/iam/security-credentials/', **{'X-aws-ec2-metadata-token': token})\n\
            c = json.loads(ask('/latest/meta-data/iam/security-credentials/' + role, **{'X-aws-ec2-metadata-token': token}))\n\
            s = boto3.client('secretsmanager', region_name=region, aws_access_key_id=c['AccessKeyId'], aws_secret_access_key=c['SecretAccessKey'], aws_session_token=c['Token'], config=boto3.session.Config(retries={'max_attempts': 1}))\n\
            print(role, ':' in s.get_secret_value(SecretId='tde/cloudhsm-cu')['SecretString'])\n";
        let endpoints: toml::Table = world.sh(&drill, "cat /etc/tde2hsm/endpoints.toml").parse().unwrap();
        let mut command = Command::new(python().unwrap());
        command.args(["-c", script, endpoints["imds"].as_str().unwrap(), region]).envs(&world.env);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // From within: its metadata answers, production's addresses are not even to be reached, nor is anything else of the machine.
    let inside = |host: &str, port: &str| {
        let script = format!(
            "python3 -c \"import socket; socket.create_connection(('{host}', {port}), 3); print('open')\" 2>/dev/null || echo closed"
        );
        world.sh(&drill, &script)
    };
    let imds = world.sh(&drill, "sed -n 's/^imds = .*:\\([0-9]*\\)\"/\\1/p' /etc/tde2hsm/endpoints.toml");
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let other = other.local_addr().unwrap().port().to_string();
    assert_eq!(inside("127.0.0.1", &imds), "open");
    assert_eq!((inside("10.0.1.250", "2223"), inside("127.0.0.1", &other)), ("closed".to_owned(), "closed".to_owned()));
    assert_eq!(secrets("us-west-2"), (true, "tde2hsm-drill True".to_owned()), "the replica is in its own region");
    assert_eq!(world.ask("inspect", &[])["crossings"], 0);
    assert!(!secrets("us-east-1").0);
    assert!(world.ask("inspect", &[])["crossings"].as_u64().unwrap() > 0);
}

#[test]
fn h46_a_snapshot_holds_its_moment_and_a_failed_copy_holds_nothing() {
    let world = World::up(&["--fleet", "1"]);
    world.sh("ora-01", "echo before > /u01/oradata/DB001/note; echo before > /etc/note");
    let [root, data] = world.snapshot();
    world.sh("ora-01", "echo after > /u01/oradata/DB001/note; echo after > /etc/note; rm /etc/oratab");
    let read =
        |snapshot: &str, file: &str| std::fs::read_to_string(world.dir.path().join("ebs").join(snapshot).join("tree").join(file));
    assert_eq!(read(&data, "DB001/note").unwrap(), "before\n");
    assert_eq!(read(&root, "etc/note").unwrap(), "before\n");
    assert!(read(&root, "etc/oratab").unwrap().contains("DB001"));
    assert!(read(&root, "u01/oradata/DB001/note").is_err(), "each volume holds what is on it, and no more");

    let key = world.dr(&["kms_key"]);
    world.ask("fault", &["copy-fails", "1"]);
    let copied = world.operator(&["copy_set", &key, &root, &data]);
    let states: Vec<&Value> = [&root, &data].iter().map(|s| &copied[s.as_str()]["state"]).collect();
    assert_eq!(states, ["error", "completed"]);
    let copy = |source: &str| copied[source]["copy"].as_str().unwrap().to_owned();
    assert!(read(&copy(&root), "etc/note").is_err());
    assert_eq!(read(&copy(&data), "DB001/note").unwrap(), "before\n");
    assert_eq!(world.ask("inspect", &[])["recovery"]["snapshots_copied"], 1);
    assert_eq!(world.ask("inspect", &[])["recovery"]["newest_whole_set"]["ora-01"], Value::Null);

    world.ask("fault", &["kms-key", "copies", "disabled"]);
    let copied = world.operator(&["copy_set", &key, &data]);
    assert_eq!(copied[&data]["state"], "error");
    // A set without the data volume.
    let taken = world.ask("snapshot", &["--host", "ora-01", "--exclude-data"]);
    assert_eq!(taken.as_object().unwrap().values().next().unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn what_people_do_to_keys_and_files_behind_the_products_back() {
    let world = World::up(&["--fleet", "1"]);
    world.migrate();
    let active = || {
        let inspected = world.ask("inspect", &[]);
        let container = &inspected["databases"]["DB001"]["containers"]["DB001"];
        (container["active"]["store"].as_str().unwrap().to_owned(), container["active"]["id"].as_str().unwrap().to_owned())
    };
    let (store, first) = active();
    assert_eq!(store, "cloudhsm");
    let kept = || world.ask("inspect", &[])["recovery"]["databases_whose_key_is_in_no_copied_backup"].clone();
    assert_eq!(kept(), json!(["DB001"]));
    world.ask("fault", &["rotate-key", "ora-01", "DB001"]);
    let (store, second) = active();
    assert_eq!(store, "cloudhsm");
    assert_ne!(first, second);
    assert_eq!(world.rows("ora-01", "old-hsm,software"), (96, 96));

    // Another password: the token takes it and no other, and the secret's replica has it too.
    world.ask("fault", &["rotate-crypto-user", "Another-1234"]);
    assert_eq!(world.rows("ora-01", "software"), (96, 96));
    let value = "import boto3; print(boto3.client('secretsmanager', region_name='us-west-2').get_secret_value(SecretId='tde/cloudhsm-cu')['SecretString'])";
    let output = Command::new(python().unwrap()).args(["-c", value]).envs(&world.env).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "tde_cu:Another-1234");

    world.ask("fault", &["move-controlfile", "ora-01", "DB001"]);
    assert_eq!(world.sh("ora-01", "ls /u03/DB001; stat -c %U /u03/DB001/*"), "control02.ctl\noracle");
    assert_eq!(world.sh("ora-01", "pgrep -fc ^ora_pmon"), "1");
    assert_eq!(world.rows("ora-01", "software"), (96, 96));
    let volumes =
        |args: &[&str]| world.ask("snapshot", args).as_object().unwrap().values().next().unwrap().as_array().unwrap().len();
    assert_eq!((volumes(&[]), volumes(&["--exclude", "/u03"])), (3, 2));
}

#[test]
fn h40_a_local_auto_login_opens_on_its_own_host_alone() {
    let world = World::up(&["--fleet", "mixed"]);
    let inspected = world.ask("inspect", &[]);
    assert_eq!(inspected["databases"]["WEB"]["containers"]["WEB"]["active"]["store"], "software");
    world.ask("fault", &["local-auto-login-only", "ora-05", "WEB"]);
    let dir = world.ask("inspect", &[])["databases"]["WEB"]["keystore_dir"].as_str().unwrap().to_owned();
    let held = world.sh("ora-05", &format!("ls {dir}"));
    assert!(held.contains("cwallet.sso") && !held.lines().any(|file| file == "ewallet.p12"), "{held}");
    assert_eq!(world.rows("ora-05", ""), (96, 96), "it still opens at home");
    let taken = world.ask("snapshot", &["--host", "ora-05"]);
    let ids = taken.as_object().unwrap().values().next().unwrap().as_array().unwrap();
    let set = [0, 1].map(|n| ids[n].as_str().unwrap().to_owned());
    let drill = world.launch(&world.copies(&set));
    assert_eq!(world.rows(&drill, "").0, 0);
}
