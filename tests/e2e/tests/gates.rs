//! What a host does when the second of its databases cannot follow the first (H29), and when a database is not what the
//! swap needs (H1): nothing is lost, everything reads, and the campaign says so.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tde2hsm_e2e::{Ran, World, files_below};

/// How long a busy machine may take to come to what a test waits for.
const WITHIN: Duration = Duration::from_secs(120);

/// A plan for this host alone.
fn plan_for(world: &World, host: &str) -> Result<()> {
    let file = world.path("fleet.toml");
    let text = std::fs::read_to_string(&file)?;
    let (before, rest) = text.split_once("[[targets]]").context("targets")?;
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    std::fs::write(&file, format!("{before}[[targets]]\ninstances = [\"{host}\"]\n\n{after}"))?;
    world.plan()?.ok().map(drop)
}

fn status(world: &World) -> Result<Value> {
    Ok(world.cli(&["status", "--output", "json"])?.json()?["hosts"][0].clone())
}

/// As the DBA does it, with the password of this secret where the text says `PIN`.
fn sql(world: &World, host: &str, sid: &str, pin: &str, script: &str) -> Result<Ran> {
    let oratab = std::fs::read_to_string(world.root(host).join("etc/oratab"))?;
    let home = oratab.lines().find_map(|line| line.strip_prefix(sid)?.strip_prefix(':')?.split(':').next());
    let home = home.with_context(|| format!("{sid} is not in oratab"))?;
    let script = format!("CONNECT / AS SYSDBA\n{}\nEXIT\n", script.replace("PIN", pin));
    let run = format!(
        "printf %s \"$1\" | setpriv --reuid oracle --regid oinstall --init-groups env ORACLE_SID={sid} ORACLE_HOME={home} {home}/bin/sqlplus -S -L /nolog"
    );
    world.exec(host, &["sh", "-c", &run, "sh", &script])?.ok()
}

/// Files of the provider's tree of a host.
fn provider(world: &World, host: &str) -> Result<Vec<String>> {
    let root = world.root(host);
    let files = files_below(&root.join("opt/oracle/extapi"))?;
    files.iter().map(|file| Ok(file.strip_prefix(&root)?.display().to_string())).collect()
}

#[test]
fn h29_a_second_database_that_cannot_follow_leaves_its_host_parked_and_every_row_readable() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "mixed", 41)?;
        world.setup()?.ok()?;
        let host = world.host_of("SALES")?;
        ensure!(world.host_of("STOCK")? == host, "two hosts");
        plan_for(&world, &host)?;
        let hang = r#"{"faults":[{"id":"h29","sid":"STOCK","at":"MIGRATE:begin","do":"hang","times":1}]}"#;
        world.fault(&["oracle", &host, hang])?;
        let mut cli = world.spawn(&["apply", "plan.json", "--yes"])?;
        world.until("SALES is on CloudHSM", WITHIN, &mut cli, || Ok(world.inspect()?.on_cloudhsm("SALES").then_some(())))?;
        // The cluster is gone between the two.
        world.fault(&["hsm-down", "cloudhsm"])?;
        world.fault(&["oracle", &host, r#"{"faults":[]}"#])?;
        let ended = cli.wait()?;
        ensure!(!ended.success(), "{}", world.said());
        let parked = status(&world)?;
        ensure!(parked["standing"] == "parked", "{parked}\n{}", world.said());
        let now = world.inspect()?;
        ensure!(now.on_cloudhsm("SALES") && now.active_stores("STOCK") == ["software"], "{}", now.0["databases"]);
        ensure!(now.starts("SALES") == now.starts("STOCK"), "a database was restarted alone");
        let library = provider(&world, &host)?;
        ensure!(library.iter().any(|file| file.contains("cloudhsm")), "the provider was changed: {library:?}");
        // Open and reading, while the cluster is away: in their own sessions, as their users have them.
        for sid in ["SALES", "STOCK"] {
            let read = sql(&world, &host, sid, "", "SELECT open_mode FROM v$database;")?;
            ensure!(read.stdout.contains("READ WRITE"), "{sid}: {}", read.stdout);
        }
        world.fault(&["hsm-up", "cloudhsm"])?;
        let open = world.verify("")?;
        for sid in ["SALES", "STOCK"] {
            ensure!(open.all_readable(sid), "{sid}: {} of {}", open.readable(sid), open.rows(sid));
        }
        let resumed = world.cli(&["resume", "--yes"])?;
        ensure!(resumed.status.success(), "{}{}", resumed.stdout, resumed.stderr);
        let now = world.inspect()?;
        ensure!(now.on_cloudhsm("SALES") && now.on_cloudhsm("STOCK"), "{}", now.0["databases"]);
        let (open, without) = (world.verify("")?, world.verify("target")?);
        for sid in ["SALES", "STOCK"] {
            ensure!(open.all_readable(sid) && without.readable(sid) == 0, "{sid}");
        }
        Ok(())
    };
    run().expect("parked, and done");
}

/// Somebody moves a database back to the old HSM between its reverse migrate and the swap, and is cut off half-way: tablespaces
/// are under a key of the old HSM while the software keystore has the active one. The library must not go.
#[test]
fn h01_a_half_moved_database_is_not_swapped_away_from_its_keys() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "small", 42)?;
        world.setup()?.ok()?;
        world.plan()?.ok()?;
        let host = world.hosts()?.remove(0);
        let (before, library) = (world.inspect()?, provider(&world, &host)?);
        // Its worker stands still while the keystore is to go off the host: the AWS call is tried again meanwhile.
        world.fault(&["throttle", "secretsmanager:CreateSecret", "2"])?;
        let mut cli = world.spawn(&["apply", "plan.json", "--yes"])?;
        let worker = std::cell::Cell::new(None);
        world.until("the escrow", WITHIN, &mut cli, || {
            let journals = tde2hsm_e2e::kill::journals(&world)?;
            let lines: String = journals.iter().filter_map(|journal| std::fs::read_to_string(journal).ok()).collect();
            if lines.lines().any(|line| line.contains("\"escrow\"")) {
                worker.set(tde2hsm_e2e::kill::hold(&world, tde2hsm_e2e::kill::Victim::Worker));
            }
            Ok(worker.get().map(drop))
        })?;
        let cut_off = r#"{"faults":[{"id":"h01","sid":"ORCL1","at":"MIGRATE:tablespaces","do":"kill-server","times":1}]}"#;
        world.fault(&["oracle", &host, cut_off])?;
        let (pin, software) = (world.secret("old-hsm")?, world.secret("software")?);
        let back = format!(
            "ALTER SYSTEM SET TDE_CONFIGURATION='KEYSTORE_CONFIGURATION=HSM|FILE' SCOPE=BOTH;\n\
             ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"PIN\" MIGRATE USING \"{software}\" WITH BACKUP;"
        );
        let broken = sql(&world, &host, "ORCL1", &pin, &back)?;
        ensure!(broken.stdout.contains("ORA-03113") || broken.stdout.contains("ORA-03114"), "{}", broken.stdout);
        world.fault(&["oracle", &host, r#"{"faults":[]}"#])?;
        tde2hsm_e2e::kill::go_on(worker.get().context("held")?)?;
        // Refused by the gate, before anything stopped; the next attempt finishes the rotation first, and then swaps.
        let ended = cli.wait()?;
        let said = world.said();
        ensure!(said.contains("failed TDE0417 in swap-provider: ORCL1"), "the gate did not refuse:\n{said}");
        ensure!(ended.success(), "{said}");
        let after = world.inspect()?;
        ensure!(after.starts("ORCL1") == before.starts("ORCL1") + 2, "{} starts", after.starts("ORCL1"));
        ensure!(provider(&world, &host)? != library, "the library was never exchanged");
        let (open, cut) = (world.verify("")?, world.verify("old-hsm,software")?);
        ensure!(open.all_readable("ORCL1") && cut.all_readable("ORCL1"), "a row is under a key that is gone");
        Ok(())
    };
    run().expect("refused, then done");
}

/// Every host may go at once and fail, and nothing is tried a second time.
fn all_at_once(world: &World) -> Result<()> {
    world.fleet_file("canary = 1", "canary = 8")?;
    world.fleet_file("budget = 4", "budget = 8")?;
    world.fleet_file("poll_seconds = 1", "poll_seconds = 1\nretries = 0")
}

/// Standing, code and message of a database's host.
fn of(world: &World, all: &Value, sid: &str) -> Result<(String, String, String)> {
    let host = world.host_of(sid)?;
    let found = all["hosts"].as_array().and_then(|hosts| hosts.iter().find(|h| h["instance"] == host.as_str()));
    let found = found.with_context(|| format!("{sid}: {host} is not in {all}"))?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Ok((text("standing"), text("code"), text("message")))
}

/// What nobody saw at the plan, for it came up afterwards: each host looks again and says what, and whatever it had begun it
/// takes back.
#[test]
fn h03_h07_h19_h21_what_came_up_after_the_plan_is_refused_on_the_host() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "mixed", 43)?;
        world.setup()?.ok()?;
        all_at_once(&world)?;
        world.plan()?.ok()?;
        let before = world.inspect()?;
        let on = |sid: &str, script: &str| -> Result<()> {
            let ran = sql(&world, &world.host_of(sid)?, sid, "", script)?;
            ensure!(!ran.stdout.contains("ORA-"), "{sid}: {}", ran.stdout);
            Ok(())
        };
        let plant = |sid: &str, planted: &str| {
            let text = format!(r#"{{"planted":{{"{sid}":{planted}}}}}"#);
            world.fault(&["oracle", &world.host_of(sid)?, &text])
        };
        plant("STOCK", r#"{"last_full_backup_hours":60}"#)?;
        on("LEDGER", "ALTER TABLESPACE HISTORY READ ONLY;")?;
        on("CRM", "ALTER SESSION SET CONTAINER = CRMUS;\nALTER TABLESPACE HISTORY OFFLINE;")?;
        on("BILL", "ALTER PLUGGABLE DATABASE BILLA CLOSE IMMEDIATE;")?;
        let up = r#"{"last_full_backup_hours":6,"capture":true,"datafiles_offline":["USERS"],"recovery_area_used":10300000000,"memory_parameters":{"cluster_database":"TRUE"}}"#;
        plant("TAX", up)?;
        on("TAX", "ALTER SYSTEM SET log_archive_config='DG_CONFIG=(TAX,TAX_STBY)';\nALTER DATABASE BEGIN BACKUP;")?;

        let applied = world.cli(&["apply", "plan.json", "--yes"])?;
        ensure!(!applied.status.success(), "{}{}", applied.stdout, applied.stderr);
        let all = world.cli(&["status", "--output", "json"])?.json()?;
        let blockers = "it is a RAC instance, Data Guard is configured, a capture process reads its redo, its recovery area is full, \
                        files need recovery, datafiles are in backup mode";
        let mut wrong = Vec::new();
        for (sid, standing, code, says) in [
            ("STOCK", "failed", "TDE0426", "STOCK: the newest full backup is 60 h old; 24 h are wanted"),
            ("LEDGER", "failed-undone", "TDE0416", "would keep the former key: HISTORY"),
            ("CRM", "failed-undone", "TDE0432", "CRM: datafiles are offline"),
            ("BILL", "failed-undone", "TDE0408", "BILLA is MOUNTED"),
            ("TAX", "failed-undone", "TDE0432", blockers),
            ("WEB", "done", "", ""),
            ("ARCH", "done", "", ""),
        ] {
            let (found, why, message) = of(&world, &all, sid)?;
            if found != standing || why != code || !message.contains(says) {
                wrong.push(format!("{sid}: {found} {why} {message}"));
            }
        }
        ensure!(wrong.is_empty(), "{}\n{}{}", wrong.join("\n"), applied.stdout, applied.stderr);
        // Gone again: everything reads, on the keystores it was on, and nothing was stopped.
        plant("TAX", r#"{"last_full_backup_hours":6}"#)?;
        on("TAX", "ALTER DATABASE END BACKUP;")?;
        on("CRM", "ALTER SESSION SET CONTAINER = CRMUS;\nALTER TABLESPACE HISTORY ONLINE;")?;
        let (now, open) = (world.inspect()?, world.verify("")?);
        for sid in ["SALES", "STOCK", "LEDGER", "CRM", "HR", "PAYR", "TAX", "BILL"] {
            ensure!(now.active_stores(sid) == before.active_stores(sid), "{sid}: {:?}", now.active_stores(sid));
            ensure!(now.starts(sid) == before.starts(sid), "{sid} was restarted");
            ensure!(open.all_readable(sid), "{sid}: {} of {}", open.readable(sid), open.rows(sid));
        }
        Ok(())
    };
    run().expect("each refused, and back");
}
