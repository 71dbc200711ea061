//! Undo, after success and days later, and after a failure at each step (invariants 3 and 10, H4, H30).

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tde2hsm_e2e::{Inspection, World, files_below};
use tde2hsm_protocol::Digest;

/// Keystore files of a host: path below its root -> digest.
fn keystores(world: &World, host: &str) -> Result<BTreeMap<PathBuf, Digest>> {
    let root = world.root(host);
    let mut found = BTreeMap::new();
    for path in [files_below(&root.join("u01"))?, files_below(&root.join("var/lib/tde2hsm"))?].concat() {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("ewallet") || name.starts_with("cwallet") {
            found.insert(path.strip_prefix(&root)?.to_owned(), Digest::of(&std::fs::read(&path)?));
        }
    }
    Ok(found)
}

/// What configures the keystore of each database, as the files and the instance have it.
fn configuration(world: &World, host: &str) -> Result<BTreeMap<String, String>> {
    let root = world.root(host);
    let mut found = BTreeMap::new();
    let places = ["u01/app/oracle/product", "u01/app/oracle/admin", "opt/oracle/extapi"];
    for path in places.map(|place| files_below(&root.join(place))).into_iter().collect::<Result<Vec<_>>>()?.concat() {
        let name = path.strip_prefix(&root)?.display().to_string();
        if name.ends_with("sqlnet.ora") || name.contains("/spfile") {
            found.insert(name, std::fs::read_to_string(&path)?);
        } else if name.starts_with("opt/oracle/extapi") {
            found.insert(name, Digest::of(&std::fs::read(&path)?).to_string());
        }
    }
    Ok(found)
}

/// The one difference that H4 allows: a keystore configuration that names the interim keystore beside the HSM.
fn without_h4(text: &str) -> String {
    let mut text: String = text.split_whitespace().collect::<String>().to_uppercase();
    text = text.replace("HSM|FILE", "HSM");
    while let Some(at) = text.find("(METHOD_DATA=(DIRECTORY=") {
        let Some(end) = text[at..].find("))") else { break };
        text.replace_range(at..at + end + 2, "");
    }
    text
}

struct Before {
    inspection: Inspection,
    configuration: BTreeMap<String, BTreeMap<String, String>>,
}

fn before(world: &World) -> Result<Before> {
    let configuration =
        world.hosts()?.into_iter().map(|host| Ok((host.clone(), configuration(world, &host)?))).collect::<Result<_>>()?;
    Ok(Before { inspection: world.inspect()?, configuration })
}

/// Every row reads on fresh instances, each active key is in the kind of store it was in, no database is down, the
/// provider is the former one, and the configuration is as before but for H4.
fn is_undone(world: &World, before: &Before) -> Result<()> {
    let (now, open) = (world.inspect()?, world.verify("")?);
    let without_target = world.verify("target")?;
    for sid in now.sids() {
        ensure!(open.all_readable(&sid), "{sid}: {} of {} rows read", open.readable(&sid), open.rows(&sid));
        ensure!(without_target.all_readable(&sid), "{sid}: needs CloudHSM after the undo");
        let stores = |i: &Inspection| i.active_stores(&sid).into_iter().collect::<BTreeSet<_>>();
        ensure!(
            stores(&now) == stores(&before.inspection),
            "{sid}: active keys in {:?}, were in {:?}",
            stores(&now),
            stores(&before.inspection)
        );
        for (container, _) in before.inspection.containers(&sid) {
            for store in ["old-hsm", "software", "cloudhsm"] {
                let (then, now) = (before.inspection.keys(&sid, &container, store), now.keys(&sid, &container, store));
                ensure!(now >= then, "{sid}/{container}: {store} had {then} keys and has {now}");
            }
        }
    }
    for (host, then) in &before.configuration {
        let ran = world
            .exec(host, &["sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done"])?
            .ok()?;
        let running = ran.stdout.lines().filter(|line| line.starts_with("ora_pmon_")).count();
        let sids = std::fs::read_to_string(world.root(host).join("etc/oratab"))?;
        let expected = sids.lines().filter(|line| !line.starts_with('#') && line.contains(':')).count();
        ensure!(running == expected, "{host}: {running} of {expected} databases run");
        let now = configuration(world, host)?;
        for (file, text) in then {
            let found = now.get(file).with_context(|| format!("{host}: {file} is gone"))?;
            ensure!(without_h4(found) == without_h4(text), "{host}: {file} is not as before:\n{found}\nwas:\n{text}");
        }
        for file in now.keys().filter(|name| name.starts_with("opt/oracle/extapi")) {
            ensure!(then.contains_key(file), "{host}: {file} is left in the provider's tree");
        }
    }
    Ok(())
}

/// No keystore file that was there ever goes: each content is still somewhere on the host.
fn none_lost(world: &World, host: &str, then: &BTreeMap<PathBuf, Digest>) -> Result<()> {
    let now: BTreeSet<Digest> = keystores(world, host)?.into_values().collect();
    for (path, digest) in then {
        ensure!(now.contains(digest), "{host}: the content of {} is nowhere any more", path.display());
    }
    Ok(())
}

#[test]
fn h30_undo_days_after_success_brings_everything_back() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "mixed", 5)?;
        world.setup()?.ok()?;
        let then = before(&world)?;
        world.plan()?.ok()?;
        world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
        let moved = world.inspect()?;
        ensure!(moved.sids().iter().filter(|sid| moved.on_cloudhsm(sid)).count() == 10, "not ten databases were migrated");
        world.advance("5d")?;
        // Meanwhile the client was patched, as by a monthly update: the library in the tree is no longer the installed one.
        for host in world.hosts()? {
            let patch = "f=/opt/cloudhsm/lib/libcloudhsm_pkcs11.so; [ ! -f $f ] || printf patched >> $f";
            world.exec(&host, &["sh", "-c", patch])?.ok()?;
        }
        let held: Vec<_> =
            world.hosts()?.into_iter().map(|host| Ok((host.clone(), keystores(&world, &host)?))).collect::<Result<_>>()?;
        let undone = world.cli(&["undo", "--yes"])?;
        ensure!(undone.status.success(), "{}{}", undone.stdout, undone.stderr);
        is_undone(&world, &then)?;
        for (host, files) in held {
            none_lost(&world, &host, &files)?;
        }
        Ok(())
    };
    run().expect("undone");
}

/// The pinned document is taken away after the campaign, and another one is there: nothing goes out by it before somebody has
/// approved what it brings.
#[test]
fn h34_a_campaign_whose_document_is_gone_is_undone_by_the_one_that_is_approved() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "small", 9)?;
        world.setup()?.ok()?;
        let then = before(&world)?;
        world.plan()?.ok()?;
        world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
        world.cli(&["clean", "--yes"])?.ok()?;
        // The same programs with another CA file: another document.
        let ca = world.path("packages/customerCA.crt");
        let text = std::fs::read_to_string(&ca)?;
        std::fs::write(&ca, format!("{text}\n"))?;
        world.setup()?.ok()?;
        let refused = world.cli(&["undo", "--yes"])?;
        ensure!(!refused.status.success(), "it went out by a document that nobody approved");
        ensure!(refused.stderr.contains("TDE0608") || refused.stderr.contains("TDE0609"), "{}", refused.stderr);
        let undone = world.cli(&["undo", "--document", "--yes"])?;
        ensure!(undone.status.success(), "{}{}", undone.stdout, undone.stderr);
        ensure!(undone.stderr.contains("host-runner sha256") && undone.stderr.contains("going on with"), "{}", undone.stderr);
        is_undone(&world, &then)
    };
    run().expect("undone by the approved document");
}

/// A step and what makes it fail for good.
const FAILURES: [(&str, &[&[&str]]); 9] = [
    (
        "back-up",
        &[&[
            "oracle",
            "all",
            r#"{"faults":[{"id":"f","at":"ALTER DATABASE BACKUP CONTROLFILE:begin","do":"error","code":1580,"times":9},{"id":"g","at":"BACKUP CONTROLFILE:begin","do":"error","code":1580,"times":9}]}"#,
        ]],
    ),
    ("stage-client", &[&["noexec", "all", "/opt/cloudhsm"], &["hsm-down", "cloudhsm"]]),
    (
        "prepare-keystore",
        &[&["oracle", "all", r#"{"faults":[{"id":"f","at":"CREATE KEYSTORE:begin","do":"error","code":46633,"times":99}]}"#]],
    ),
    (
        "reverse-migrate",
        &[&["oracle", "all", r#"{"faults":[{"id":"f","at":"REVERSE MIGRATE:columns","do":"error","code":28396,"times":99}]}"#]],
    ),
    ("escrow", &[&["deny", "secretsmanager:CreateSecret", "99"], &["deny", "secretsmanager:PutSecretValue", "99"]]),
    (
        "swap-provider",
        &[&["oracle", "all", r#"{"faults":[{"id":"f","at":"ARCHIVE LOG:begin","do":"error","code":16014,"times":99}]}"#]],
    ),
    ("migrate", &[&["oracle", "all", r#"{"faults":[{"id":"f","at":"MIGRATE:begin","do":"error","code":28395,"times":99}]}"#]]),
    (
        "enable-auto-open",
        &[&[
            "oracle",
            "all",
            r#"{"faults":[{"id":"f","at":"CREATE AUTO_LOGIN:begin","do":"error","code":46635,"times":99},{"id":"g","at":"ADD SECRET:begin","do":"error","code":46670,"times":99}]}"#,
        ]],
    ),
    (
        "restart-proof",
        &[&["oracle", "all", r#"{"faults":[{"id":"f","at":"SHUTDOWN:begin","do":"error","code":1013,"times":1}]}"#]],
    ),
];

#[test]
fn a_failure_at_each_step_is_undone() {
    let mut met = 0;
    for (step, faults) in FAILURES {
        let run = || -> Result<bool> {
            let dir = tde2hsm_e2e::scratch()?;
            let world = World::up(&dir.path().join("world"), "small", 6)?;
            world.setup()?.ok()?;
            let then = before(&world)?;
            let host = world.hosts()?.remove(0);
            let held = keystores(&world, &host)?;
            world.plan()?.ok()?;
            for fault in faults {
                world.fault(fault)?;
            }
            let applied = world.cli(&["apply", "plan.json", "--yes", "--output", "json"])?;
            // The fault goes, then whatever is not undone yet is undone by request.
            world.fault(&["clear"])?;
            world.fault(&["hsm-up", "cloudhsm"])?;
            world.fault(&["oracle", "all", r#"{"faults":[]}"#])?;
            let failed = !applied.status.success();
            let undone = world.cli(&["undo", "--yes"])?;
            ensure!(undone.status.success(), "{}{}\napply: {}{}", undone.stdout, undone.stderr, applied.stdout, applied.stderr);
            is_undone(&world, &then)?;
            none_lost(&world, &host, &held)?;
            Ok(failed)
        };
        match run() {
            Ok(failed) => met += usize::from(failed),
            Err(error) => panic!("{step}: {error:#}"),
        }
    }
    println!("{met} of {} faults made their step fail", FAILURES.len());
    assert!(met >= 7, "only {met} faults made a campaign fail: they are not where the steps are");
}
