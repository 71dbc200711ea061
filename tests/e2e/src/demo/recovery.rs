//! The second half: snapshots and HSM backups cross to the second region by the functions, the first region is lost, and one
//! database is read from what was copied.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use tde2hsm_e2e::{Inspection, Ran, Verification, World};

const SOURCE: &str = "us-east-1";
const DR: &str = "us-west-2";

/// What the fleet file promises.
const RPO_MINUTES: i64 = 1440;

/// Rounds of ten minutes that snapshots of this size may take to be copied and judged.
const ROUNDS: u32 = 24;

/// What the sandbox found.
pub struct Recovered {
    sid: String,
    pub snapshots_copied: u64,
    pub hsm_backups_copied: u64,
    pub rows_read: u64,
    pub rows_read_without_cluster: u64,
    pub rpo_minutes: i64,
    /// Database, and what `dr status` says of its newest point.
    verdicts: Vec<(String, String)>,
    drill_seconds: i64,
}

pub fn tell(world: &World, out: &Path, moved: &[&String], seeded: &Verification, say: &dyn Fn(&str)) -> Result<Recovered> {
    world.setup_in(DR)?.ok().context("tde2hsm setup in the second region")?;
    let sets = world.snapshot(&[])?;
    say(&format!("snapshots of {} hosts taken, as the backup tool of their owner does", world.hosts()?.len()));
    std::fs::write(out.join("snapshots.json"), sets.to_string())?;
    let minutes = copy(world, moved)?;
    let copied = world.inspect()?;
    let lacking = &copied.0["recovery"]["databases_whose_key_is_in_no_copied_backup"];
    ensure!(lacking.as_array().is_some_and(Vec::is_empty), "keys that no HSM backup in {DR} holds: {lacking}");
    let n = |of: &Inspection, name: &str| of.0["recovery"][name].as_u64().with_context(|| format!("no {name}"));
    let (snapshots_copied, hsm_backups_copied) = (n(&copied, "snapshots_copied")?, n(&copied, "hsm_backups_copied")?);
    say(&format!(
        "functions: {snapshots_copied} snapshots and {hsm_backups_copied} HSM backups copied to {DR} in {minutes} minutes of the world's time"
    ));

    world.fault(&["region-lost", SOURCE])?;
    say(&format!("{SOURCE} is lost"));
    let status = status(world)?;
    std::fs::write(out.join("dr-status.json"), &status.stdout)?;
    print!("{}", world.cli(&["dr", "status"])?.stdout);
    let verdicts = verdicts(&status.json()?)?;
    let rpo_minutes = world.inspect()?.0["recovery"]["oldest_of_them_minutes"].as_i64().context("a host has no whole set")?;

    let sid = largest(moved, seeded)?;
    let drilled = drill(world, &sid)?;
    std::fs::write(out.join("dr-drill.json"), drilled.to_string())?;
    let seen = world.inspect()?;
    let host = one(&seen.0["drills"], |_, drill| drill["state"] == "up").context("the drill's host")?;
    let cluster = one(&seen.0["logins"], |name, token| name.starts_with("cluster-") && token["gone"] != true);
    let cluster = cluster.context("the restored cluster")?;
    // Neither of the first region's HSMs is in reach of the drill's host; the software keystore's file is taken away on top.
    let rows_read = world.verify_host(&host, "old-hsm,software")?.readable(&sid);
    world.fault(&["detach-cluster", &cluster])?;
    let rows_read_without_cluster = world.verify_host(&host, "old-hsm,software")?.readable(&sid);
    world.fault(&["attach-cluster", &cluster])?;
    let id = drilled["drill"].as_str().context("the drill has no id")?;
    teardown(world, id)?;
    let drill_seconds = drilled["ending"]["seconds"].as_i64().context("the drill has no duration")?;
    say(&format!("tde2hsm dr drill: {sid} read in {DR} and everything removed again"));
    Ok(Recovered {
        sid,
        snapshots_copied,
        hsm_backups_copied,
        rows_read,
        rows_read_without_cluster,
        rpo_minutes,
        verdicts,
        drill_seconds,
    })
}

/// The functions' schedules, round by round, until each host's set is whole in the second region and an operator would see that
/// each migrated database opens there; says how many minutes that took.
fn copy(world: &World, moved: &[&String]) -> Result<u32> {
    let mut minutes = 0;
    for _ in 0..ROUNDS {
        // An order to a host lives for minutes: what was sent is done and collected before the world's time goes on.
        loop {
            let sent = surveys_sent(world)?;
            world.tick()?;
            world.settle()?;
            if surveys_sent(world)? == sent {
                break;
            }
        }
        let seen = world.inspect()?.0["recovery"].take();
        let whole = seen["oldest_of_them_minutes"].is_i64() && seen["snapshot_copies_not_completed"] == 0;
        if whole && all_open(&verdicts(&status(world)?.json()?)?, moved) {
            return Ok(minutes);
        }
        world.advance("10m")?;
        minutes += 10;
    }
    bail!("not copied after {minutes} minutes of the world's time: {}", world.inspect()?.0["recovery"])
}

fn status(world: &World) -> Result<Ran> {
    world.cli(&["dr", "status", "--output", "json"])
}

fn all_open(verdicts: &[(String, String)], sids: &[&String]) -> bool {
    sids.iter().all(|sid| verdicts.iter().any(|(name, verdict)| name == *sid && verdict == "opens"))
}

fn surveys_sent(world: &World) -> Result<u64> {
    Ok(world.inspect()?.0["api_calls_of_functions"]["copy-snapshots"]["ssm:SendCommand"].as_u64().unwrap_or(0))
}

/// Database, and the verdict on its newest point with the codes of what speaks against it.
fn verdicts(status: &Value) -> Result<Vec<(String, String)>> {
    let rows = status["databases"].as_array().context("dr status tells of databases")?;
    let codes = |row: &Value, of: &str| -> Vec<String> {
        row[of].as_array().into_iter().flatten().filter_map(|why| why["code"].as_str().map(str::to_owned)).collect()
    };
    let verdict = |row: &Value| -> Option<(String, String)> {
        let against = [codes(row, "causes"), codes(row, "unknowns")].concat();
        let verdict = [&[row["verdict"].as_str()?.to_owned()][..], &against].concat().join(" ");
        Some((row["sid"].as_str()?.to_owned(), verdict))
    };
    rows.iter().map(|row| verdict(row).with_context(|| format!("no verdict: {row}"))).collect()
}

/// The database with most encrypted rows.
fn largest(of: &[&String], seen: &Verification) -> Result<String> {
    let largest = of.iter().max_by_key(|sid| seen.rows(sid)).context("no database was migrated")?;
    Ok((*largest).clone())
}

fn drill(world: &World, sid: &str) -> Result<Value> {
    let done =
        world.while_time_passes(|| world.cli(&["dr", "drill", "--database", sid, "--keep", "--yes", "--output", "json"]))?;
    done.ok().context("tde2hsm dr drill")?.json()
}

fn teardown(world: &World, id: &str) -> Result<()> {
    let done = world.while_time_passes(|| world.cli(&["dr", "drill", "--teardown", id, "--yes", "--output", "json"]))?;
    done.ok().context("tde2hsm dr drill --teardown")?;
    let left = one(&world.inspect()?.0["drills"], |_, drill| drill["state"] != "gone");
    ensure!(left.is_none(), "{left:?} of the drill is left");
    Ok(())
}

fn one(map: &Value, is: impl Fn(&str, &Value) -> bool) -> Option<String> {
    map.as_object()?.iter().find(|(name, value)| is(name, value)).map(|(name, _)| name.clone())
}

impl Recovered {
    pub fn print(&self) {
        println!("{:<12} newest point in {DR}, {SOURCE} lost", "database");
        for (sid, verdict) in &self.verdicts {
            println!("{sid:<12} {verdict}");
        }
        println!(
            "\n{}: {} rows read in {DR} from the restored cluster, {} without it; the drill took {} s of the world's time\n",
            self.sid, self.rows_read, self.rows_read_without_cluster, self.drill_seconds
        );
    }

    /// `rows` is what is seeded.
    pub fn check(&self, rows: &Verification, moved: &[&String]) -> Result<()> {
        ensure!(self.snapshots_copied > 0 && self.hsm_backups_copied > 0, "nothing was copied");
        let seeded = rows.rows(&self.sid);
        ensure!(seeded > 0 && self.rows_read == seeded, "the drill's host reads {} of {seeded} rows", self.rows_read);
        ensure!(self.rows_read_without_cluster == 0, "{} rows read without a cluster", self.rows_read_without_cluster);
        ensure!((0..=RPO_MINUTES).contains(&self.rpo_minutes), "the oldest whole set is {} minutes old", self.rpo_minutes);
        ensure!(all_open(&self.verdicts, moved), "not every migrated database opens in the second region: {:?}", self.verdicts);
        Ok(())
    }
}
