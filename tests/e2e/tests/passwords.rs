//! One wrong password costs one login, fleet-wide (invariant 7, H10, H11, H14).

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use tde2hsm_e2e::{World, files_below};

/// What a host may have changed when a campaign stopped in `stage`: the runner's own directories and the package database;
/// the agent's own; and what the database writes by itself while it runs.
fn may_change(path: &str) -> bool {
    [
        "var/lib/tde2hsm/",
        "opt/tde2hsm/",
        "var/lib/rpm/",
        "var/lib/amazon/ssm/",
        "u01/app/oracle/diag/",
        "tmp/",
        "var/tmp/",
        "run/",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// Path -> content hash of every regular file below a host's root.
fn tree(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for path in files_below(root)? {
        let name = path.strip_prefix(root)?.display().to_string();
        if !may_change(&name) {
            let content = std::fs::read(&path).unwrap_or_default();
            files.insert(name, tde2hsm_protocol::Digest::of(&content).to_string());
        }
    }
    Ok(files)
}

/// The secret of this name is wrong on all eight hosts. `token` is where a login would fail; the software keystore has none.
fn wrong(secret: &str, token: Option<&str>) -> Result<()> {
    let dir = tde2hsm_e2e::scratch()?;
    let world = World::up(&dir.path().join("world"), "mixed", 3)?;
    world.setup()?.ok()?;
    let value = world.secret(secret)?;
    let name = match secret {
        "cloudhsm" => "tde/cloudhsm-cu".to_owned(),
        other => format!("tde/{other}"),
    };
    world.fault(&["secret", &name, &format!("{value}x")])?;
    let planned = world.plan()?;
    ensure!(planned.status.success(), "{}", planned.stderr);
    let before_logins = world.inspect()?;
    let trees: Vec<_> =
        world.hosts()?.iter().map(|host| tree(&world.root(host)).map(|tree| (host.clone(), tree))).collect::<Result<_>>()?;

    let applied = world.cli(&["apply", "plan.json", "--yes"])?;
    ensure!(!applied.status.success(), "a campaign with a wrong password ended well");
    ensure!(applied.stdout.contains("TDE0") || applied.stderr.contains("TDE0"), "no code: {}{}", applied.stdout, applied.stderr);
    let failed = |world: &World| -> Result<[u64; 2]> {
        let inspection = world.inspect()?;
        let of = |name| inspection.logins(name).1 - before_logins.logins(name).1;
        Ok([of("old-hsm"), of("cloudhsm")])
    };
    let expected = [u64::from(token == Some("old-hsm")), u64::from(token == Some("cloudhsm"))];
    ensure!(
        failed(&world)? == expected,
        "{secret}: failed logins {:?}, not {expected:?}\n{}{}",
        failed(&world)?,
        applied.stdout,
        applied.stderr
    );
    for _ in 0..2 {
        let resumed = world.cli(&["resume", "--yes"])?;
        ensure!(!resumed.status.success(), "a resume with the same wrong password ended well");
        ensure!(failed(&world)? == expected, "{secret}: a resume spent another login: {:?}", failed(&world)?);
    }
    let after = world.inspect()?;
    for sid in after.sids() {
        ensure!(!after.on_cloudhsm(&sid), "{sid} was migrated");
        ensure!(after.starts(&sid) == before_logins.starts(&sid), "{sid} was restarted");
        for statement in ["SET KEY", "MIGRATE", "REVERSE MIGRATE"] {
            ensure!(after.statements(&sid, statement) == before_logins.statements(&sid, statement), "{sid}: {statement} ran");
        }
    }
    for (host, before) in trees {
        let now = tree(&world.root(&host))?;
        let moved: Vec<_> = before
            .keys()
            .chain(now.keys())
            .filter(|path| before.get(*path) != now.get(*path))
            // Redo and control file of a running database move by themselves.
            .filter(|path| !path.starts_with("u01/oradata/"))
            .collect();
        ensure!(moved.is_empty(), "{host}: changed outside the runner's own directories: {moved:?}");
    }
    Ok(())
}

#[test]
fn h10_a_wrong_old_pin_costs_one_login() {
    wrong("old-hsm", Some("old-hsm")).expect("one login");
}

#[test]
fn h10_a_wrong_new_pin_costs_one_login() {
    wrong("cloudhsm", Some("cloudhsm")).expect("one login");
}

#[test]
fn h14_a_wrong_software_password_stops_in_stage() {
    wrong("software", None).expect("no login");
}
