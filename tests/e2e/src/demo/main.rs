//! `make demo`: the main job on the sandbox, from an empty directory to a table.
//!
//! Eight hosts and eleven databases are surveyed, planned and migrated with the shipped programs, no wave before the keys of the
//! one before lie in a copied HSM backup; then snapshots and HSM backups are copied to a second region, the first region is lost,
//! and one database is read in the second. Every figure in `target/demo/result.json` is the sandbox's own finding (`verify`,
//! `inspect`), never the product's word; where a figure is not what the mission promises, the demo fails.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod recovery;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use tde2hsm_e2e::{Inspection, Verification, World, target_dir};

fn main() {
    if let Err(error) = demo() {
        eprintln!("demo: {error:#}");
        std::process::exit(1);
    }
}

fn say(started: Instant, text: &str) {
    println!("[{:>5.1} s] {text}", started.elapsed().as_secs_f64());
}

fn demo() -> Result<()> {
    let started = Instant::now();
    let out = target_dir()?.join("demo");
    std::fs::create_dir_all(&out)?;
    let world = World::up_with_functions(&out.join("world"), "mixed", 1)?;
    let warned = std::fs::read_to_string(world.path("sandbox.log"))?;
    // The survey refuses an Oracle home that belongs to root.
    ensure!(!warned.contains("one and the same"), "every host needs users of its own; {}", warned.trim());
    let before = world.inspect()?;
    let sids = before.sids();
    say(started, &format!("sandbox up: {} databases", sids.len()));

    let hsm_sourced: Vec<String> =
        sids.iter().filter(|sid| before.active_stores(sid).iter().any(|store| store == "old-hsm")).cloned().collect();
    let baseline = world.verify("")?;
    for sid in &sids {
        ensure!(baseline.all_readable(sid), "{sid}: not every seeded row reads before anything was done");
    }
    let without_old_hsm = world.verify("old-hsm")?;
    say(started, "before: rows of HSM-sourced databases read only with the old HSM");

    // As a bank would have it: an HSM backup with the keys of each wave is made, not waited a day for.
    world.protect("force")?;
    world.setup()?.ok().context("tde2hsm setup")?;
    say(started, "tde2hsm setup: runner, client package and document are in place");
    let planned = world.plan()?;
    let file = std::fs::read(world.path("plan.json")).with_context(|| format!("no plan: {}", planned.stderr))?;
    let plan = serde_json::from_slice::<Value>(&file)?["plan"].take();
    std::fs::copy(world.path("plan.json"), out.join("plan.json"))?;
    print!("{}", world.cli(&["plan", "show", "plan.json"])?.ok()?.stdout);
    let calls_before_apply = world.inspect()?;
    let gates = apply(&world, &out)?;
    if world.journal().exists() {
        std::fs::copy(world.journal(), out.join("journal.db"))?;
    }
    say(
        started,
        &format!("tde2hsm apply: the campaign has ended; {} minutes of the world's time went into HSM backups", gates.minutes),
    );

    let after = world.inspect()?;
    let after_cut_off = world.verify("old-hsm,software")?;
    let without_target = world.verify("target")?;
    let planned_restarts = restarts(&plan)?;
    let moved: Vec<&String> = sids.iter().filter(|sid| after.on_cloudhsm(sid)).collect();
    let untouched: Vec<&String> = sids.iter().filter(|sid| same(&before, &after, sid)).collect();
    let rest: Vec<&String> = sids.iter().filter(|sid| !moved.contains(sid) && !untouched.contains(sid)).collect();
    let opens = world.verify("")?;
    let stuck: Vec<&&String> = rest.iter().filter(|sid| !opens.all_readable(sid)).collect();

    let sum = |verification: &Verification, of: &[&String]| of.iter().map(|sid| verification.readable(sid)).sum::<u64>();
    let rows_checked: u64 = moved.iter().map(|sid| after_cut_off.rows(sid)).sum();
    let hosts = world.hosts()?.len();
    let host_steps = host_steps(&plan)?;
    let api_calls = after.api_calls() - calls_before_apply.api_calls() - gates.api_calls;
    let recovered = recovery::tell(&world, &out, &moved, &after_cut_off, &|text| say(started, text))?;
    let result = json!({
        "hosts": hosts,
        "databases": sids.len(),
        "migrated": moved.len(),
        "refused": untouched.len(),
        "failed": rest.len() - stuck.len(),
        "stuck": stuck.len(),
        "rows_checked": rows_checked,
        "rows_readable_before_cut_off": sum(&without_old_hsm, &hsm_sourced.iter().collect::<Vec<_>>()),
        "rows_readable_after_cut_off": sum(&after_cut_off, &moved),
        "rows_readable_without_target": sum(&without_target, &moved),
        "restarts": sids.iter().map(|sid| (sid.clone(), json!({
            "planned": planned_restarts.get(sid.as_str()).and_then(Value::as_u64).unwrap_or(0),
            "seen": after.starts(sid) - before.starts(sid),
        }))).collect::<serde_json::Map<_, _>>(),
        "host_steps": host_steps,
        // Without those that waited for HSM backups between waves, when no host had a step.
        "api_calls": api_calls,
        "api_calls_at_gates": gates.api_calls,
        "api_calls_in_all": api_calls + gates.api_calls,
        "api_calls_per_host_step": api_calls as f64 / host_steps.max(1) as f64,
        // One SendCommand and one GetCommandInvocation for each step on each host, without a single extra poll.
        "api_calls_naive": host_steps * 2,
        "snapshots_copied": recovered.snapshots_copied,
        "hsm_backups_copied": recovered.hsm_backups_copied,
        "drill_rows_read": recovered.rows_read,
        "drill_rows_read_without_cluster": recovered.rows_read_without_cluster,
        "rpo_minutes": recovered.rpo_minutes,
    });
    std::fs::write(out.join("result.json"), serde_json::to_string_pretty(&result)? + "\n")?;
    table(&sids, &before, &after, &after_cut_off, &without_target, &result);
    recovered.print();
    check(&result, &after, &moved)?;
    recovered.check(&after_cut_off, &moved)?;
    say(started, &format!("every check holds; see {}", out.join("result.json").display()));
    Ok(())
}

/// What went into waiting at gates between waves: minutes of the world's time, and calls.
#[derive(Default)]
struct Gates {
    minutes: u64,
    api_calls: u64,
}

/// Runs the campaign, and moves the world's time on while nothing but an HSM backup is waited for.
fn apply(world: &World, out: &Path) -> Result<Gates> {
    let mut command = world.tde2hsm();
    command.args(["apply", "plan.json", "--yes", "--output", "json"]);
    let mut cli = command.stdout(File::create(out.join("apply.json"))?).stderr(File::create(out.join("apply.log"))?).spawn()?;
    let mut gates = Gates::default();
    let mut at_gate: Option<u64> = None;
    let calls = || Ok::<_, anyhow::Error>(world.inspect()?.api_calls());
    let status = loop {
        if let Some(status) = cli.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(250));
        // Before the journal is there, and after the end, there is nothing to look at.
        let status = world.cli(&["status", "--output", "json"])?.json().unwrap_or_default();
        let works = |standing: &str| ["staging", "cutting-over", "proving", "undoing"].contains(&standing);
        let at_rest = status["counts"].as_object().is_some_and(|counts| !counts.keys().any(|standing| works(standing)));
        let waits = at_rest && status["protection"]["standing"] == "waits";
        match at_gate {
            None if waits => at_gate = Some(calls()?),
            Some(before) if !waits => {
                gates.api_calls += calls()? - before;
                at_gate = None;
            }
            _ => {}
        }
        if waits {
            world.advance("3m")?;
            gates.minutes += 3;
        }
    };
    let log = || std::fs::read_to_string(out.join("apply.log")).unwrap_or_default();
    ensure!(status.success(), "tde2hsm apply: {status}\n{}", log());
    if let Some(before) = at_gate {
        gates.api_calls += calls()? - before;
    }
    Ok(gates)
}

fn same(before: &Inspection, after: &Inspection, sid: &str) -> bool {
    before.0["databases"][sid]["containers"] == after.0["databases"][sid]["containers"] && before.starts(sid) == after.starts(sid)
}

/// What the plan promised, by SID: the sum over its causes.
fn restarts(plan: &Value) -> Result<serde_json::Map<String, Value>> {
    let hosts = plan["hosts"].as_array().context("plan.json has hosts")?;
    hosts
        .iter()
        .flat_map(|host| host["databases"].as_array().into_iter().flatten())
        .map(|database| {
            let sid = database["order"]["sid"].as_str().context("a database has a sid")?;
            let causes = database["restarts"].as_object().context("restarts are planned by cause")?;
            Ok((sid.to_owned(), json!(causes.values().filter_map(Value::as_u64).sum::<u64>())))
        })
        .collect()
}

/// Steps that the plan gives its hosts: what the calls are set against.
fn host_steps(plan: &Value) -> Result<u64> {
    let hosts = plan["hosts"].as_array().context("plan.json has hosts")?;
    let segments = hosts.iter().flat_map(|host| host["segments"].as_array().into_iter().flatten());
    let steps: usize = segments.map(|segment| segment["steps"].as_array().map_or(0, Vec::len)).sum();
    ensure!(steps > 0, "the plan has no steps");
    Ok(steps as u64)
}

fn table(sids: &[String], before: &Inspection, after: &Inspection, cut: &Verification, without: &Verification, result: &Value) {
    println!(
        "\n{:<12} {:<10} {:<10} {:>6} {:>22} {:>16} {:>10}",
        "database", "keys were", "keys are", "rows", "read, old ones cut off", "read, no CloudHSM", "restarts"
    );
    for sid in sids {
        let stores = |i: &Inspection| {
            let mut stores = i.active_stores(sid);
            stores.dedup();
            stores.join(",")
        };
        println!(
            "{:<12} {:<10} {:<10} {:>6} {:>22} {:>16} {:>10}",
            sid,
            stores(before),
            stores(after),
            cut.rows(sid),
            cut.readable(sid),
            without.readable(sid),
            format!("{} of {}", result["restarts"][sid]["seen"], result["restarts"][sid]["planned"]),
        );
    }
    println!();
}

/// The promise of the demo. A figure that is off fails it, with the figure.
fn check(result: &Value, after: &Inspection, moved: &[&String]) -> Result<()> {
    let n = |name: &str| result[name].as_u64().unwrap_or(u64::MAX);
    ensure!(
        n("hosts") == 8 && n("databases") == 11,
        "the fleet has {} hosts and {} databases, not 8 and 11",
        n("hosts"),
        n("databases")
    );
    ensure!(n("migrated") == 10, "{} databases migrated, not 10", n("migrated"));
    ensure!(
        n("refused") == 1 && n("failed") == 0 && n("stuck") == 0,
        "refused {}, failed {}, stuck {}",
        n("refused"),
        n("failed"),
        n("stuck")
    );
    ensure!(
        n("rows_readable_before_cut_off") == 0,
        "{} rows of HSM-sourced databases read without the old HSM before the migration: the sandbox proves nothing",
        n("rows_readable_before_cut_off")
    );
    ensure!(
        n("rows_checked") > 0 && n("rows_readable_after_cut_off") == n("rows_checked"),
        "{} of {} rows read with old HSM and software keystores cut off",
        n("rows_readable_after_cut_off"),
        n("rows_checked")
    );
    ensure!(n("rows_readable_without_target") == 0, "{} rows read without CloudHSM", n("rows_readable_without_target"));
    for (sid, row) in result["restarts"].as_object().context("restarts")? {
        ensure!(row["planned"] == row["seen"], "{sid}: {} restarts planned, {} seen", row["planned"], row["seen"]);
    }
    for sid in moved {
        ensure!(
            after.active_stores(sid).iter().all(|store| store == "cloudhsm"),
            "{sid}: an active key is not on the CloudHSM token"
        );
    }
    Ok(())
}
