//! The faults of a sandbox, one row each: `sandbox fault --help` prints this table, and the README repeats it.
//!
//! A fault only makes happen what the field makes happen. What it changes is the world, never the product: there is no
//! row that writes into the product's own files.

use crate::databases;
use crate::sandbox::{Sandbox, SandboxHost, TOKENS};
use sandbox_shim::HsmState;
use sandbox_shim::admin::Token;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, PoisonError};
use tde2hsm_model::ssm::Node;
use tde2hsm_model::{CallFault, CommandId, Region, RegionState, Service};

type Apply = fn(&Sandbox, &[&str]) -> Result<String, String>;

struct Fault {
    name: &'static str,
    args: &'static str,
    about: &'static str,
    apply: Apply,
}

const fn row(name: &'static str, args: &'static str, about: &'static str, apply: Apply) -> Fault {
    Fault { name, args, about, apply }
}

const FAULTS: &[Fault] = &[
    row("throttle", "CALL TIMES", "the next calls are throttled", |s, a| call(s, a, CallFault::Throttle)),
    row("server-error", "CALL TIMES", "the next calls end in HTTP 500, nothing done", |s, a| call(s, a, CallFault::ServerError)),
    row("lose-reply", "CALL TIMES", "the next calls are carried out, their replies lost", |s, a| {
        call(s, a, CallFault::LoseReply)
    }),
    row("lose-request", "CALL TIMES", "the connection dies before the next calls are carried out", |s, a| {
        call(s, a, CallFault::LoseRequest)
    }),
    row("deny", "CALL TIMES", "the caller has no right to the next calls", |s, a| call(s, a, CallFault::Deny)),
    row("deliver-twice", "TIMES", "the next deliveries reach the agent twice (H31)", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.deliver_twice(number(times)?);
        Ok(format!("the next {times} deliveries come twice"))
    }),
    row("deliver-late", "TIMES SECONDS", "the next deliveries come late, also after their deadline (H31)", |s, a| {
        let [times, secs] = args(a)?;
        s.cloud.world().faults.deliver_late(number(times)?, i64::from(number::<u32>(secs)?) * 1000);
        Ok(format!("the next {times} deliveries come {secs} s late"))
    }),
    row("lose-terminal-reply", "TIMES", "the agent's next results are lost: work done, Delivery Timed Out (A§1.3)", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.lose_terminal_reply(number(times)?);
        Ok(format!("the next {times} terminal replies are lost"))
    }),
    row("redeliver", "COMMAND-ID|last HOST", "an old command is delivered once more, to any host (H31)", redeliver),
    row("agent-offline", "HOST|all", "the agent is not heard: deliveries and results wait", |s, a| {
        nodes(s, a, |node| node.online = false, "does not answer")
    }),
    row("agent-online", "HOST|all", "the agent is back", |s, a| nodes(s, a, |node| node.online = true, "is heard")),
    row("agent-undeliverable", "HOST|all", "each delivery fails at once as Undeliverable", |s, a| {
        nodes(s, a, |node| node.undeliverable = true, "is unreachable")
    }),
    row("agent-deliverable", "HOST|all", "deliveries work again", |s, a| {
        nodes(s, a, |node| node.undeliverable = false, "is reachable")
    }),
    row("agent-version", "HOST|all VERSION", "another version of the agent; before 3.3.2746.0 it knows no ENV_VAR", |s, a| {
        let [host, version] = args(a)?;
        nodes(s, &[host], |node| node.agent_version = (*version).to_owned(), "has another version")
    }),
    row("kill-scripts", "HOST|all", "what the agent is running is killed with its process group: exit 137", |s, a| {
        let [name] = args(a)?;
        let killed: usize = hosts(s, name)?.iter().map(|host| host.agent.kill_scripts()).sum();
        Ok(format!("{killed} scripts killed"))
    }),
    row("kill", "HOST|all PATTERN", "SIGKILL to each process of the host whose command line matches", |s, a| {
        let [name, pattern] = args(a)?;
        let mut hit = 0;
        for host in hosts(s, name)? {
            hit += usize::from(inside(&host, &["pkill", "-KILL", "-f", "--", pattern]).is_ok());
        }
        Ok(format!("matched on {hit} hosts"))
    }),
    row("crash", "HOST|all", "every process of the host dies at once; it stays down until `reboot`", |s, a| {
        let [name] = args(a)?;
        for host in hosts(s, name)? {
            node(s, &host, |node| node.online = false);
            host.namespace.kill();
        }
        Ok("crashed".to_owned())
    }),
    row("reboot", "HOST|all", "the host crashes, if it is up, and comes back with its databases down", |s, a| {
        let [name] = args(a)?;
        for host in hosts(s, name)? {
            host.namespace.kill();
            host.namespace.start().map_err(|e| e.to_string())?;
            crate::recovery::boot(&host.namespace);
            node(s, &host, |node| node.online = true);
        }
        Ok("up again, databases down".to_owned())
    }),
    row(
        "start-databases",
        "HOST|all",
        "the DBA starts the databases and opens their keystores with the passwords of the start",
        |s, a| {
            let [name] = args(a)?;
            for host in hosts(s, name)? {
                databases::start(s.users, &s.secrets_of(&host), &host.plan, &host.namespace).map_err(|e| format!("{e:#}"))?;
            }
            Ok("started".to_owned())
        },
    ),
    row("oracle", "HOST|all JSON", "merges switches and faults into /etc/oracle-sim.json (see oracle/README.md)", oracle),
    row("small-disk", "HOST|all PATH KIB", "PATH lies on a file system of this size, with what is there now", |s, a| {
        let [name, path, kib] = args(a)?;
        let size = number::<u64>(kib)?;
        shell(
            s,
            name,
            &format!(
                "t=$(mktemp -d /tmp/.disk.XXXXXX) && mkdir -p \"$1\" && cp -a \"$1/.\" \"$t/\" && mount -t tmpfs -o size={size}k,mode=755 tmpfs \"$1\" && cp -a \"$t/.\" \"$1/\"; r=$?; rm -rf \"$t\"; exit $r"
            ),
            path,
        )
    }),
    row("noexec", "HOST|all PATH", "nothing below PATH can be executed", |s, a| {
        let [name, path] = args(a)?;
        shell(s, name, "mkdir -p \"$1\" && mount --bind \"$1\" \"$1\" && mount -o remount,bind,noexec \"$1\"", path)
    }),
    row("unmount", "HOST|all PATH", "ends `small-disk` and `noexec`", |s, a| {
        let [name, path] = args(a)?;
        shell(s, name, "umount -l \"$1\"", path)
    }),
    row("instance-state", "HOST|all STATE", "what EC2 says of the instance: running, stopped, terminated …", |s, a| {
        let [name, state] = args(a)?;
        for host in hosts(s, name)? {
            region(s, |r| r.ec2.set_state(&host.id, state));
        }
        Ok(format!("now {state}"))
    }),
    row("detach-group", "HOST|all", "the instance loses the security group of the cluster", |s, a| {
        let [name] = args(a)?;
        for host in hosts(s, name)? {
            region(s, |r| r.ec2.detach_group(&host.id, &s.cluster_group));
        }
        Ok("detached".to_owned())
    }),
    row("no-routes", "", "the VPC's route tables lose their local route", |s, a| {
        let [] = args(a)?;
        region(s, |r| r.ec2.remove_routes(&s.vpc));
        Ok("routes removed".to_owned())
    }),
    row(
        "cluster-state",
        "STATE",
        "ACTIVE, DEGRADED, MODIFY_IN_PROGRESS … (while it changes, no token keys are made)",
        |s, a| {
            let [state] = args(a)?;
            region(s, |r| r.hsm.set_state(&s.cluster, state));
            let limited = matches!(*state, "MODIFY_IN_PROGRESS" | "ROLLBACK_IN_PROGRESS");
            token(s, TOKENS[1], |t| t.limited_write = limited)?;
            Ok(format!("the cluster is {state}"))
        },
    ),
    row("lose-hsm", "", "one HSM of the cluster dies", |s, a| {
        let [] = args(a)?;
        let id = region(s, |r| r.hsm.degrade_one(&s.cluster)).flatten().ok_or("no HSM is ACTIVE")?;
        token(s, TOKENS[1], |t| t.hsms.iter_mut().filter(|h| h.id == id).for_each(|h| h.active = false))?;
        Ok(format!("{id} is DEGRADED"))
    }),
    row("hsm-down", "STORE", "old-hsm or cloudhsm cannot be reached", |s, a| {
        let [store] = args(a)?;
        token(s, store, |t| t.reachable = false)
    }),
    row("hsm-up", "STORE", "it can be reached again, its user is not locked", |s, a| {
        let [store] = args(a)?;
        token(s, store, |t| {
            t.reachable = true;
            t.users.values_mut().for_each(|user| (user.failed, user.locked) = (0, false));
        })
    }),
    row("hsm-lock", "STORE", "the crypto user is locked", |s, a| {
        let [store] = args(a)?;
        token(s, store, |t| t.users.values_mut().for_each(|user| user.locked = true))
    }),
    row("hsm-limited-write", "STORE on|off", "token keys cannot be made (a cluster changing its type)", |s, a| {
        let [store, on] = args(a)?;
        let on = switch(on)?;
        token(s, store, |t| t.limited_write = on)
    }),
    row("hsm-replicate", "STORE on|off", "off: new keys stay on the first HSM", |s, a| {
        let [store, on] = args(a)?;
        let on = switch(on)?;
        token(s, store, |t| t.replicate = on)
    }),
    row("hsm-latency", "STORE MS", "each call takes so long", |s, a| {
        let [store, ms] = args(a)?;
        let ms = number(ms)?;
        token(s, store, |t| t.latency_ms = ms)
    }),
    row("secret", "NAME VALUE", "the current value is another under the same version: a wrong password (H10)", |s, a| {
        let [name, value] = args(a)?;
        let done = region(s, |r| r.secrets.tamper(name, value)).ok_or("the region is gone")?;
        done.map(|()| "overwritten".to_owned()).map_err(|e| e.to_string())
    }),
    row("rotate-secret", "NAME VALUE", "a new version of the secret (H13)", |s, a| {
        let [name, value] = args(a)?;
        let now = s.cloud.clock.now();
        let done = s.cloud.world().rotate_secret(&s.region, name, value, now);
        done.map(|version| format!("version {version}")).map_err(|e| e.to_string())
    }),
    row(
        "secret-versions-gone",
        "NAME",
        "every label but AWS's own is taken off, and versions that have none are removed (H42)",
        |s, a| {
            let [name] = args(a)?;
            let gone = s.cloud.world().lose_secret_versions(&s.region, name).map_err(|e| e.to_string())?;
            Ok(format!("gone: {}", gone.join(", ")))
        },
    ),
    row("snapshot-fails", "TIMES", "the next calls that take snapshots end in error, a set as a whole (A§3.1)", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.fail_snapshots(number(times)?);
        Ok(format!("the next {times} calls end in error"))
    }),
    row("copy-fails", "TIMES", "the next snapshot copies are accepted and end in error", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.fail_copies(number(times)?);
        Ok(format!("the next {times} copies fail"))
    }),
    row("copy-delayed", "TIMES SECONDS", "the next copies, of snapshots and of HSM backups, take so much longer", |s, a| {
        let [times, secs] = args(a)?;
        s.cloud.world().faults.delay_copies(number(times)?, i64::from(number::<u32>(secs)?) * 1000);
        Ok(format!("the next {times} copies take {secs} s more"))
    }),
    row("hsm-backup-copy-fails", "TIMES", "the next copies of HSM backups are accepted and end as DELETED (A§4.4)", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.fail_backup_copies(number(times)?);
        Ok(format!("the next {times} copies fail"))
    }),
    row("copies-in-flight", "N", "the wall: so many copies may be in flight into one region (A§3.3)", |s, a| {
        let [n] = args(a)?;
        s.cloud.world().options.copies_in_flight = number(n)?;
        Ok(format!("{n} at once"))
    }),
    row("events-lost", "TIMES", "the next events never arrive", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.lose_events(number(times)?);
        Ok(format!("the next {times} events are lost"))
    }),
    row("events-twice", "TIMES", "the next events arrive twice", |s, a| {
        let [times] = args(a)?;
        s.cloud.world().faults.repeat_events(number(times)?);
        Ok(format!("the next {times} events come twice"))
    }),
    row("events-late", "TIMES SECONDS", "the next events arrive late, after others that happened later", |s, a| {
        let [times, secs] = args(a)?;
        s.cloud.world().faults.delay_events(number(times)?, i64::from(number::<u32>(secs)?) * 1000);
        Ok(format!("the next {times} events come {secs} s late"))
    }),
    row("kms-key", "ID|copies|volumes|secrets STATE", "a KMS key is enabled, disabled or pending-deletion", kms_key),
    row("backup-retention", "DAYS|none", "the cluster's policy purges HSM backups after so many days (A§4.5)", |s, a| {
        let [days] = args(a)?;
        let days = if *days == "none" { None } else { Some(number(days)?) };
        region(s, |r| r.hsm.set_retention(&s.cluster, days));
        Ok("changed".to_owned())
    }),
    row("region-lost", "REGION", "nothing of a region answers: its services, its HSMs, its hosts", |s, a| {
        region_lost(s, a, true)
    }),
    row("region-back", "REGION", "ends `region-lost`; hosts come back with their databases down", |s, a| {
        region_lost(s, a, false)
    }),
    row("detach-cluster", "CLUSTER", "the HSMs of this cluster cannot be reached, a restored one too", |s, a| {
        cluster_reachable(s, a, false)
    }),
    row("attach-cluster", "CLUSTER", "ends `detach-cluster`", |s, a| cluster_reachable(s, a, true)),
    row("rotate-crypto-user", "PASSWORD", "the crypto user has another password, and its secret a new version (H42)", |s, a| {
        let [password] = args(a)?;
        let pin = format!("{}:{password}", s.secrets.cloudhsm_user);
        s.tokens.set_pin(&s.cluster, &pin).map_err(|e| format!("{e:#}"))?;
        let now = s.cloud.clock.now();
        let done = s.cloud.world().rotate_secret(&s.region, "tde/cloudhsm-cu", &pin, now);
        done.map(|version| format!("version {version}")).map_err(|e| e.to_string())
    }),
    row("rotate-key", "HOST SID", "someone sets a new master key by hand, in every container (H41)", |s, a| {
        on_database(s, a, databases::rotate_key)
    }),
    row(
        "local-auto-login-only",
        "HOST SID",
        "the keystore opens by a LOCAL auto-login alone: its ewallet.p12 is gone (H40)",
        |s, a| on_database(s, a, databases::local_auto_login_only),
    ),
    row(
        "move-controlfile",
        "HOST SID",
        "a control file lies on another volume, /u03, which `snapshot --exclude` can leave out",
        |s, a| on_database(s, a, databases::move_controlfile),
    ),
    row("autostart", "HOST|all", "the host starts its databases and a nightly job by itself when it boots (H44)", |s, a| {
        let [name] = args(a)?;
        for host in hosts(s, name)? {
            databases::plant_autostart(&host.namespace).map_err(|e| format!("{e:#}"))?;
        }
        Ok("planted".to_owned())
    }),
    row("clear", "", "disarms what is armed on calls and deliveries", |s, a| {
        let [] = args(a)?;
        s.cloud.world().faults.clear();
        Ok("nothing is armed".to_owned())
    }),
];

/// The table as people read it.
pub fn table() -> String {
    let mut out = String::new();
    for fault in FAULTS {
        let _ = writeln!(out, "  {:<20} {:<22} {}", fault.name, fault.args, fault.about);
    }
    out.push_str(
        "\nCALL is SERVICE:OPERATION or SERVICE:*, with ssm, ec2, cloudhsm, secretsmanager, kms, sns, sts or s3. HOST is an instance id or a name such as ora-01.\n",
    );
    out
}

pub fn apply(sandbox: &Sandbox, name: &str, given: &[String]) -> Result<String, String> {
    let fault =
        FAULTS.iter().find(|f| f.name == name).ok_or_else(|| format!("there is no fault `{name}`; see: sandbox fault --help"))?;
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    (fault.apply)(sandbox, &given).map_err(|why| format!("{why} (usage: sandbox fault --dir DIR {} {})", fault.name, fault.args))
}

fn kms_key(sandbox: &Sandbox, given: &[&str]) -> Result<String, String> {
    use tde2hsm_model::kms::KeyState;
    let [id, state] = args(given)?;
    let to = match *state {
        "enabled" => KeyState::Enabled,
        "disabled" => KeyState::Disabled,
        "pending-deletion" => KeyState::PendingDeletion,
        other => return Err(format!("`{other}` is none of enabled, disabled, pending-deletion")),
    };
    let id = match *id {
        "copies" => sandbox.dr.key.as_str(),
        "volumes" => sandbox.volumes_key.as_str(),
        "secrets" => "alias/aws/secretsmanager",
        other => other,
    };
    let mut world = sandbox.cloud.world();
    // Every region has a key of that name; a recovery reads the replicas of the second one.
    if id.starts_with("alias/")
        && let Some(second) = world.region_mut(&sandbox.dr.region)
        && second.kms.set_state(id, to)
    {
        return Ok(format!("{id} of {} is {state}", sandbox.dr.region));
    }
    let regions: Vec<Region> = world.regions().cloned().collect();
    let found = regions.iter().any(|region| world.region_mut(region).is_some_and(|r| r.kms.set_state(id, to)));
    if found { Ok(format!("{id} is {state}")) } else { Err(format!("no region has a key `{id}`")) }
}

fn region_lost(sandbox: &Sandbox, given: &[&str], lost: bool) -> Result<String, String> {
    let [name] = args(given)?;
    let region = Region::new(*name);
    if sandbox.cloud.world().region(&region).is_none() {
        return Err(format!("`{name}` is no region of this world"));
    }
    sandbox.cloud.lose(&region, lost);
    let mut tokens: Vec<Token> =
        sandbox.tokens.clusters().into_values().filter(|c| c.region == region).map(|c| c.token).collect();
    if region == sandbox.region {
        // The old HSM stands in the same place as its hosts.
        tokens.push(Token::at(&sandbox.layout.hsm(TOKENS[0])));
    }
    for token in tokens {
        token.modify(|state| state.reachable = !lost).map_err(|e| e.to_string())?;
    }
    let drills = sandbox.drills.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>();
    for host in sandbox.hosts.iter().chain(&drills).filter(|host| host.region == region) {
        node(sandbox, host, |node| node.online = !lost);
        if lost {
            host.namespace.kill();
        } else {
            host.namespace.start().map_err(|e| e.to_string())?;
            crate::recovery::boot(&host.namespace);
        }
    }
    Ok(format!("{name} {}", if lost { "does not answer any more" } else { "is back" }))
}

fn cluster_reachable(sandbox: &Sandbox, given: &[&str], reachable: bool) -> Result<String, String> {
    let [id] = args(given)?;
    let cluster = sandbox.tokens.cluster(id).ok_or_else(|| format!("there is no cluster {id}"))?;
    cluster.token.modify(|state| state.reachable = reachable).map_err(|e| e.to_string())?;
    Ok(format!("{id} {} be reached", if reachable { "can" } else { "cannot" }))
}

type OnDatabase = fn(&Sandbox, &SandboxHost, &crate::fleet::Database) -> anyhow::Result<String>;

fn on_database(sandbox: &Sandbox, given: &[&str], what: OnDatabase) -> Result<String, String> {
    let [host, sid] = args(given)?;
    let host = sandbox.host(host).map_err(|e| e.to_string())?;
    let database =
        host.plan.databases.iter().find(|d| d.sid == *sid).ok_or_else(|| format!("{} has no database {sid}", host.plan.name))?;
    what(sandbox, &host, database).map_err(|e| format!("{e:#}"))
}

fn args<'a, 'b, const N: usize>(given: &'a [&'b str]) -> Result<&'a [&'b str; N], String> {
    given.try_into().map_err(|_| format!("{N} arguments are needed"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("`{other}` is neither on nor off")),
    }
}

fn hosts(sandbox: &Sandbox, name: &str) -> Result<Vec<Arc<SandboxHost>>, String> {
    if name == "all" {
        return Ok(sandbox.hosts.clone());
    }
    sandbox.host(name).map(|host| vec![host]).map_err(|e| e.to_string())
}

fn region<T>(sandbox: &Sandbox, change: impl FnOnce(&mut RegionState) -> T) -> Option<T> {
    sandbox.cloud.world().region_mut(&sandbox.region).map(change)
}

fn node(sandbox: &Sandbox, host: &SandboxHost, change: impl FnOnce(&mut Node)) {
    let now = sandbox.cloud.clock.now();
    let mut world = sandbox.cloud.world();
    if let Some(node) = world.region_mut(&host.region).and_then(|r| r.ssm.node_mut(&host.id)) {
        // The last sign of life is the moment before the change.
        if node.online {
            node.last_ping = now;
        }
        change(node);
    }
}

fn nodes(sandbox: &Sandbox, given: &[&str], change: impl Fn(&mut Node), says: &str) -> Result<String, String> {
    let [name] = args(given)?;
    for host in hosts(sandbox, name)? {
        node(sandbox, &host, &change);
    }
    Ok(format!("{name} {says}"))
}

fn token(sandbox: &Sandbox, store: &str, change: impl FnOnce(&mut HsmState)) -> Result<String, String> {
    if !TOKENS.contains(&store) {
        return Err(format!("`{store}` is no store; they are old-hsm and cloudhsm"));
    }
    Token::at(&sandbox.layout.hsm(store)).modify(change).map(|_| format!("{store} changed")).map_err(|e| e.to_string())
}

/// Runs something inside a host as root; its output, or why it failed.
fn inside(host: &SandboxHost, argv: &[&str]) -> Result<String, String> {
    let output = host.namespace.command(argv).map_err(|e| e.to_string())?.output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn shell(sandbox: &Sandbox, name: &str, script: &str, path: &str) -> Result<String, String> {
    for host in hosts(sandbox, name)? {
        inside(&host, &["sh", "-c", script, "sh", path])?;
    }
    Ok(format!("done on {name}"))
}

fn call(sandbox: &Sandbox, given: &[&str], fault: CallFault) -> Result<String, String> {
    let [what, times] = args(given)?;
    let (service, operation) = what.split_once(':').ok_or("the call is written SERVICE:OPERATION")?;
    let service = Service::from_prefix(service).ok_or_else(|| format!("there is no service `{service}`"))?;
    sandbox.cloud.world().faults.arm(fault, service, operation, number(times)?);
    Ok(format!("armed on the next {times} of {what}"))
}

fn redeliver(sandbox: &Sandbox, given: &[&str]) -> Result<String, String> {
    let [command, host] = args(given)?;
    let host = sandbox.host(host).map_err(|e| e.to_string())?;
    let done = region(sandbox, |r| {
        let id = match *command {
            "last" => r.ssm.sent().last().map(|(id, _)| id.clone())?,
            id => CommandId::new(id),
        };
        r.ssm.redeliver(&id, &host.id).then_some(id)
    });
    sandbox.cloud.changed.notify_one();
    done.flatten()
        .map(|id| format!("{id} is on its way to {}", host.plan.name))
        .ok_or_else(|| format!("no command {command} was sent"))
}

/// Objects are merged, anything else is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(into), Some(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = from.clone(),
    }
}

fn oracle(sandbox: &Sandbox, given: &[&str]) -> Result<String, String> {
    let [name, text] = args(given)?;
    let more: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
    for host in hosts(sandbox, name)? {
        let path = host.namespace.outside("/etc/oracle-sim.json");
        let mut now: Value =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| json!({}));
        merge(&mut now, &more);
        // The simulator refuses what it does not know, and every later statement with it: better here.
        serde_json::from_value::<sandbox_oracle::sim::Sim>(now.clone()).map_err(|e| e.to_string())?;
        let beside = path.with_extension("json.new");
        fs::write(&beside, format!("{now:#}\n")).and_then(|()| fs::rename(&beside, &path)).map_err(|e| e.to_string())?;
    }
    Ok(format!("changed on {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_readme_names_every_fault() {
        let readme = include_str!("../README.md");
        let names: BTreeSet<&str> = FAULTS.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), FAULTS.len(), "two faults have one name");
        for fault in FAULTS {
            assert!(readme.contains(&format!("| `{}`", fault.name)), "{} is not in the README", fault.name);
        }
    }

    #[test]
    fn switches_are_merged_and_faults_replaced() {
        let mut now = json!({"switches": {"a": 1, "b": 2}, "faults": [1]});
        merge(&mut now, &json!({"switches": {"b": 3}, "faults": []}));
        assert_eq!(now, json!({"switches": {"a": 1, "b": 3}, "faults": []}));
    }
}
