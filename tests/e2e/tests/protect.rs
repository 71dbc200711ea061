//! H8 with the real programs: no wave begins before the keys of the wave before lie in a copied backup, and a campaign whose
//! operator goes home goes on where it stood.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tde2hsm_e2e::{World, files_below};

/// How long a busy machine may take to come to what a test waits for.
const WITHIN: Duration = Duration::from_secs(180);

/// A world of two hosts whose plan has the gate in this mode.
fn planned(mode: &str, seed: u64) -> Result<(tempfile::TempDir, World)> {
    let dir = tde2hsm_e2e::scratch()?;
    let world = World::up(&dir.path().join("world"), "2", seed)?;
    world.protect(mode)?;
    world.setup()?.ok()?;
    world.plan()?.ok()?;
    Ok((dir, world))
}

/// What `status` says of the gate.
fn gate(world: &World) -> Result<Value> {
    Ok(world.cli(&["status", "--output", "json"])?.json()?["protection"].clone())
}

/// When a host was handed its cutover, on this machine's clock.
fn cut_over_at(world: &World, host: &str) -> Result<Option<SystemTime>> {
    let mut at: Option<SystemTime> = None;
    for file in files_below(&world.root(host).join("var/lib/tde2hsm/operations"))? {
        if file.file_name().is_none_or(|name| name != "order.json") {
            continue;
        }
        let order: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        if order["work"]["run"]["segment"] == "cutover" {
            let written = std::fs::metadata(&file)?.modified()?;
            at = Some(at.map_or(written, |at| at.min(written)));
        }
    }
    Ok(at)
}

/// Objects that a backup holds, and when it was laid down.
fn backup(dir: &Path) -> Result<(usize, SystemTime)> {
    let files = files_below(dir)?;
    let objects = files.iter().filter(|file| file.extension().is_some_and(|e| e == "object"));
    Ok((objects.count(), std::fs::metadata(dir)?.modified()?))
}

fn backups(world: &World) -> Result<Vec<(PathBuf, usize, SystemTime)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(world.path("hsm-backups"))? {
        let dir = entry?.path();
        let (objects, at) = backup(&dir)?;
        found.push((dir, objects, at));
    }
    found.sort_by_key(|(_, _, at)| *at);
    Ok(found)
}

/// Both hosts, the one that was cut over first before the other.
fn waves(world: &World) -> Result<[String; 2]> {
    let mut hosts = world.hosts()?;
    hosts.sort_by_key(|host| {
        cut_over_at(world, host).ok().flatten().unwrap_or(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40))
    });
    hosts.try_into().map_err(|hosts| anyhow::anyhow!("not two hosts: {hosts:?}"))
}

#[test]
fn h08_wave_2_waits_for_a_copied_backup_that_holds_the_keys_of_wave_1() {
    let run = || -> Result<()> {
        let (_dir, world) = planned("force", 31)?;
        let before = world.inspect()?;
        let first = backups(&world)?.last().map_or(0, |(_, objects, _)| *objects);
        let mut cli = world.spawn(&["apply", "plan.json", "--yes"])?;
        let waits = |world: &World| Ok(Some(gate(world)?).filter(|gate| gate["standing"] == "waits"));
        let seen = world.until("the gate", WITHIN, &mut cli, || waits(&world))?;
        let why = seen["why"]["waits_for"].as_str().unwrap_or_default();
        ensure!(why.contains("keys of wave 1"), "{seen}");
        // Backups are judged on AWS's clock: nothing can hold the keys before five minutes have passed there.
        let looks = |world: &World| Ok::<_, anyhow::Error>(world.inspect()?.api_call("cloudhsm:DescribeBackups"));
        let before_these = looks(&world)?;
        world.until("another look", WITHIN, &mut cli, || Ok((looks(&world)? > before_these).then_some(())))?;
        let [canary, other] = waves(&world)?;
        ensure!(cut_over_at(&world, &canary)?.is_some() && cut_over_at(&world, &other)?.is_none(), "wave 2 did not wait");
        ensure!(world.inspect()?.0["hsms"] == before.0["hsms"], "an HSM came too early for its backup to count");
        world.advance("6m")?;
        // The second wave's own gate.
        world.until("wave 2", WITHIN, &mut cli, || cut_over_at(&world, &other))?;
        world.until("the gate after wave 2", WITHIN, &mut cli, || {
            let waves = gate(&world)?["waves"].as_array().map_or(0, Vec::len);
            Ok(waits(&world)?.filter(|gate| waves == 1 && gate["why"]["waits_for"].to_string().contains("keys of wave 2")))
        })?;
        world.advance("6m")?;
        let status = cli.wait()?;
        ensure!(status.success(), "{status}\n{}", world.said());

        let after = world.inspect()?;
        ensure!(after.0["hsms"] == before.0["hsms"], "other HSMs than before: {} {}", before.0["hsms"], after.0["hsms"]);
        ensure!(after.api_call("cloudhsm:CreateHsm") == 2, "{}", after.0["api_calls"]);
        ensure!(after.api_call("cloudhsm:DeleteHsm") == 2, "{}", after.0["api_calls"]);
        ensure!(after.0["recovery"]["hsm_backups_copied"].as_u64() >= Some(2), "{}", after.0["recovery"]);
        // By the content: a backup with more keys than the first lay there, and its copy, before wave 2 was sent its cutover.
        let began = cut_over_at(&world, &other)?.context("wave 2 was cut over")?;
        let grown = backups(&world)?.into_iter().filter(|(_, objects, at)| *objects > first && *at < began).count();
        ensure!(grown >= 2, "a backup with the keys of wave 1 and its copy were not there in time: {:?}", backups(&world)?);
        let gate = gate(&world)?;
        ensure!(gate["standing"] == "protected" && gate["waves"].as_array().map_or(0, Vec::len) == 2, "{gate}");
        let verdicts = world.verdicts()?;
        ensure!(verdicts.is_empty(), "{verdicts:?}");

        // H41: what the hosts need now is written down in the second region.
        let inventories: Vec<Value> = files_below(&world.path("s3"))?
            .into_iter()
            .filter_map(|file| serde_json::from_slice::<Value>(&std::fs::read(file).ok()?).ok())
            .filter(|object| object["received_at"].is_number() && object["databases"].is_array())
            .collect();
        for host in [&canary, &other] {
            let of_host: Vec<&Value> = inventories.iter().filter(|i| i["instance"] == **host).collect();
            ensure!(of_host.len() == 1, "{} inventories of {host}", of_host.len());
            ensure!(of_host[0]["databases"][0]["needs"].as_array().is_some_and(|needs| !needs.is_empty()), "{}", of_host[0]);
        }
        Ok(())
    };
    run().expect("the gate holds");
}

#[test]
fn h08_the_operator_goes_home_and_the_next_days_backup_opens_the_gate() {
    let run = || -> Result<()> {
        let (_dir, world) = planned("wait", 32)?;
        let before = world.inspect()?;
        let mut cli = world.spawn(&["apply", "plan.json", "--yes"])?;
        world.until("the gate", WITHIN, &mut cli, || Ok(Some(gate(&world)?).filter(|gate| gate["standing"] == "waits")))?;
        let status = std::process::Command::new("kill").args(["-INT", &cli.id().to_string()]).status()?;
        ensure!(status.success(), "kill: {status}");
        ensure!(cli.wait()?.code() == Some(130), "{}", world.said());
        let human = world.cli(&["status"])?.ok()?.stdout;
        ensure!(human.contains("keys: not protected: wait for an HSM backup with the keys of wave 1"), "{human}");
        world.advance("1d1h")?;
        let mut cli = world.spawn(&["resume", "--yes"])?;
        let [_, other] = waves(&world)?;
        world.until("wave 2", WITHIN, &mut cli, || cut_over_at(&world, &other))?;
        world.until("the gate after wave 2", WITHIN, &mut cli, || {
            Ok(gate(&world)?["why"]["waits_for"].as_str().filter(|why| why.contains("keys of wave 2")).map(drop))
        })?;
        world.advance("1d1h")?;
        let status = cli.wait()?;
        ensure!(status.success(), "{status}\n{}", world.said());
        let after = world.inspect()?;
        ensure!(after.api_call("cloudhsm:CreateHsm") == 0 && after.0["hsms"] == before.0["hsms"], "{}", after.0["hsms"]);
        ensure!(after.0["recovery"]["hsm_backups_copied"].as_u64() >= Some(2), "{}", after.0["recovery"]);
        let verdicts = world.verdicts()?;
        ensure!(verdicts.is_empty(), "{verdicts:?}");
        Ok(())
    };
    run().expect("the gate opens");
}
