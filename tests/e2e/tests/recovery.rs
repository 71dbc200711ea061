//! What the product says of recovery points, and one point that is really restored: in worlds where the truth is the sandbox's.
//!
//! Time is the world's: copies take hours and restored clusters minutes, and the test moves the clock on. While a survey is under
//! way it stands still, since an order is valid for minutes.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tde2hsm_e2e::{Ran, World};

const DR: &str = "us-west-2";

/// A fleet that was migrated four hours before its cluster's next backup.
fn migrated(world: &World) -> Result<()> {
    world.advance("20h")?;
    world.setup()?.ok()?;
    world.setup_in(DR)?.ok()?;
    world.plan()?.ok()?;
    world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
    Ok(())
}

/// How long a survey of a busy machine's hosts may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the copy jobs until nothing is left to do; what failed is in the answer.
fn settle(world: &World) -> Result<Value> {
    let start = Instant::now();
    loop {
        let last = world.cli(&["dr", "copy", "--once", "--output", "json"])?.json()?;
        let n = |name: &str| last[name].as_u64().unwrap_or(u64::MAX);
        if n("surveys_open") > 0 {
            std::thread::sleep(Duration::from_millis(100));
        } else if n("snapshots_in_flight") + n("hsm_backups_in_flight") + n("hsm_backups_to_copy") > 0 {
            world.advance("30m")?;
        } else if n("gib_left") > 0 && n("snapshots_failed") == 0 {
            world.advance("5m")?;
        } else {
            return Ok(last);
        }
        ensure!(start.elapsed() < PATIENCE, "the copies do not settle: {last}");
    }
}

fn status(world: &World) -> Result<Value> {
    world.cli(&["dr", "status", "--output", "json"])?.json()
}

/// Codes of what is wrong with more than one database.
fn findings(status: &Value) -> Vec<&str> {
    status["findings"].as_array().into_iter().flatten().filter_map(|why| why["code"].as_str()).collect()
}

/// Verdict and causes of the newest point of a database; of one that is not proven, what is unknown. What cannot be told because
/// of a cause is no second cause.
fn newest_of(status: &Value, host: &str, sid: &str) -> Result<(String, Vec<String>)> {
    let mut rows = status["databases"].as_array().into_iter().flatten();
    let row = rows.find(|row| row["instance"] == host && row["sid"] == sid);
    let row = row.with_context(|| format!("{host}/{sid} is not in {status}"))?;
    let codes = |of: &str| -> Vec<String> {
        row[of].as_array().into_iter().flatten().filter_map(|why| why["code"].as_str().map(str::to_owned)).collect()
    };
    let causes = codes("causes");
    let causes = if causes.is_empty() { codes("unknowns") } else { causes };
    Ok((row["verdict"].as_str().unwrap_or_default().to_owned(), causes))
}

fn sids(world: &World) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for host in world.hosts()? {
        let oratab = std::fs::read_to_string(world.root(&host).join("etc/oratab"))?;
        let sid = oratab.lines().find_map(|line| line.split_once(':').filter(|_| !line.starts_with('#')));
        found.insert(host, sid.context("a database")?.0.to_owned());
    }
    Ok(found)
}

/// What is wrong with what `dr status` says of planted cases.
#[derive(Default)]
struct Planted {
    wrong: Vec<String>,
}

impl Planted {
    /// The newest point has this cause and no other.
    fn is(&mut self, status: &Value, host: &str, sid: &str, code: &str, what: &str) -> Result<()> {
        let (verdict, codes) = newest_of(status, host, sid)?;
        println!("{what}: {verdict} {codes:?}");
        if verdict == "opens" || codes != [code] {
            self.wrong.push(format!("{what}: {verdict} {codes:?}, not {code}"));
        }
        Ok(())
    }

    fn verdict(self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        Ok(())
    }
}

#[test]
fn h42_each_planted_case_has_its_own_cause_in_dr_status() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "6", 81)?;
        migrated(&world)?;
        world.advance("5h")?;
        settle(&world)?;
        world.advance("10m")?;
        world.snapshot(&[])?;
        world.advance("15m")?;
        settle(&world)?;
        let sids = sids(&world)?;
        let hosts: Vec<&String> = sids.keys().collect();
        let [older, unseen, outside, volume, failed, not_copied] = hosts.as_slice() else { bail!("six hosts: {hosts:?}") };
        let before = status(&world)?;
        for host in &hosts {
            let (verdict, codes) = newest_of(&before, host, &sids[*host])?;
            ensure!(verdict == "opens", "{host} before anything was planted: {verdict} {codes:?}");
        }
        // How often sets are taken is not known after one, and nothing is guessed of the RPO that can be kept.
        ensure!(before["feasible"]["rpo_minutes"].is_null() && findings(&before).is_empty(), "{}", before["feasible"]);

        // What the next look at the hosts can see.
        let plant = |fault: &str, host: &str| world.fault(&[fault, host, &sids[host]]);
        plant("rotate-key", older)?;
        plant("rotate-key", not_copied)?;
        plant("move-controlfile", outside)?;
        world.advance("7h")?;
        settle(&world)?;
        world.advance("10m")?;
        // Behind everybody's back: after one look and before the next.
        plant("rotate-key", unseen)?;
        world.advance("10m")?;
        let mut planted = Planted::default();
        world.snapshot(&["--host", failed])?;
        world.advance("15m")?;
        world.fault(&["copy-fails", "1"])?;
        settle_surveys(&world)?;
        world.advance("6h")?;
        planted.is(&status(&world)?, failed, &sids[*failed], "TDE0805", "copy in error")?;
        for host in hosts.iter().filter(|host| *host != failed) {
            match host {
                host if host == volume => world.snapshot(&["--host", host, "--exclude-data"])?,
                host if host == outside => world.snapshot(&["--host", host, "--exclude", "/u03"])?,
                host => world.snapshot(&["--host", host])?,
            };
        }
        world.advance("15m")?;
        settle(&world)?;
        let seen = status(&world)?;
        planted.is(&seen, older, &sids[*older], "TDE0810", "backup older than a key")?;
        planted.is(&seen, unseen, &sids[*unseen], "TDE0811", "key rotated behind our back")?;
        planted.is(&seen, outside, &sids[*outside], "TDE0802", "control file on a volume outside the set")?;
        planted.is(&seen, volume, &sids[*volume], "TDE0801", "a volume of the set missing")?;
        // The sets of most hosts are more than thirteen hours apart: what can be kept is no less, and the RPO that is asked for is
        // said to be kept or not by that.
        let can = seen["feasible"]["rpo_minutes"].as_u64().with_context(|| seen["feasible"].to_string())?;
        ensure!(can > 13 * 60 && findings(&seen).is_empty() == (can <= 1_440), "{}: {:?}", seen["feasible"], findings(&seen));
        world.fleet_file("rpo_minutes = 1440", "rpo_minutes = 120")?;
        let hasty = status(&world)?;
        ensure!(hasty["feasible"]["rpo_minutes"] == can && findings(&hasty) == ["TDE0859"], "{hasty}");
        world.fleet_file("rpo_minutes = 120", "rpo_minutes = 1440")?;

        // The next backup has the rotated keys.
        world.advance("15h")?;
        world.snapshot(&["--host", not_copied])?;
        world.advance("15m")?;
        world.fault(&["hsm-backup-copy-fails", "1"])?;
        settle_surveys(&world)?;
        world.advance("3h")?;
        world.fault(&["hsm-backup-copy-fails", "1"])?;
        world.cli(&["dr", "copy", "--once"])?;
        planted.is(&status(&world)?, not_copied, &sids[*not_copied], "TDE0809", "set newer than any copied HSM backup")?;
        world.fault(&["clear"])?;
        settle(&world)?;

        // A copy that failed was made again, and the point opens; then its KMS key is switched off.
        let opens = |what: &str, host: &str| -> Result<()> {
            let (verdict, codes) = newest_of(&status(&world)?, host, &sids[host])?;
            ensure!(verdict == "opens", "{what}: {verdict} {codes:?}");
            Ok(())
        };
        opens("after another copy", failed)?;
        world.fault(&["kms-key", "copies", "disabled"])?;
        let (_, codes) = newest_of(&status(&world)?, failed, &sids[*failed])?;
        ensure!(!codes.is_empty() && codes.iter().all(|code| code == "TDE0807"), "KMS key disabled: {codes:?}");
        world.fault(&["kms-key", "copies", "enabled"])?;

        // The password of both backups has been another one for long, and its version stays because of our label alone; then
        // somebody takes that away.
        for n in 0..2 {
            world.advance("20m")?;
            world.fault(&["rotate-crypto-user", &format!("Rotated{n}Passw0rd")])?;
        }
        opens("after two rotations", not_copied)?;
        world.fault(&["secret-versions-gone", "tde/cloudhsm-cu"])?;
        planted.is(&status(&world)?, not_copied, &sids[*not_copied], "TDE0815", "secret rotated after the backup")?;
        planted.verdict()
    };
    run().expect("each case has its cause");
}

/// Before any migration: two databases whose keys lie in a software keystore.
#[test]
fn h40_a_software_keystore_that_cannot_be_opened_elsewhere_is_the_cause() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "mixed", 84)?;
        world.setup()?.ok()?;
        let (web, arch) = (world.host_of("WEB")?, world.host_of("ARCH")?);
        world.fault(&["local-auto-login-only", &web, "WEB"])?;
        // Open in memory, and the file lies where no snapshot goes.
        let away = "mkdir /run/away && mv /u01/app/oracle/admin/ARCH/wallet/ewallet.p12 /run/away";
        world.exec(&arch, &["sh", "-c", away])?.ok()?;
        settle(&world)?;
        world.advance("10m")?;
        world.snapshot(&["--host", &web])?;
        world.snapshot(&["--host", &arch])?;
        world.advance("15m")?;
        settle(&world)?;
        let seen = status(&world)?;
        let mut planted = Planted::default();
        planted.is(&seen, &web, "WEB", "TDE0814", "LOCAL auto-login only")?;
        planted.is(&seen, &arch, "ARCH", "TDE0813", "key in the interim keystore only")?;
        planted.verdict()
    };
    run().expect("each case has its cause");
}

/// The copy jobs until no survey is under way, the clock standing still.
fn settle_surveys(world: &World) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = world.cli(&["dr", "copy", "--once", "--output", "json"])?.json()?;
        if answer["surveys_open"] == 0 {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "a survey does not end: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// With the role that the DR region's template makes for it, and with nothing beside that.
const OPERATOR: &str = "tde2hsm-drill-operator";

fn drill(world: &World, args: &[&str]) -> Result<Ran> {
    let mut command = world.as_role(OPERATOR)?;
    command.args(["dr", "drill", "--output", "json", "--yes"]).args(args);
    world.while_time_passes(|| tde2hsm_e2e::run(&mut command))
}

/// What the drill operator is said to call, by when: rows of `docs/permissions.md`.
fn said_of_the_operator() -> Result<BTreeMap<String, String>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/permissions.md");
    let text = std::fs::read_to_string(file)?;
    let section = text.split("## The drill operator").nth(1).and_then(|rest| rest.split("\n## ").next()).context("a section")?;
    let mut said = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [calls, _, when, _] = cells.as_slice() else { bail!("not four cells: {row}") };
        for call in calls.split(", ") {
            said.insert(call.trim_matches('`').to_owned(), (*when).to_owned());
        }
    }
    Ok(said)
}

/// Every call of the role stands in the table, and every one that each drill makes was made.
fn as_said(world: &World) -> Result<()> {
    let said = said_of_the_operator()?;
    let seen = world.inspect()?.0["api_calls_of_functions"][OPERATOR].clone();
    let action = |call: &str| match call {
        "s3:ListObjectsV2" | "s3:HeadBucket" => "s3:ListBucket".to_owned(),
        "s3:HeadObject" => "s3:GetObject".to_owned(),
        other => other.to_owned(),
    };
    let made: BTreeSet<String> = seen.as_object().context("calls of the role")?.keys().map(|call| action(call)).collect();
    println!("a drill's operator called {made:?}");
    let unsaid: Vec<&String> = made.iter().filter(|call| said.get(*call).is_none_or(|when| when == "AWS")).collect();
    let unmade: Vec<&String> =
        said.iter().filter(|(call, when)| *when == "always" && !made.contains(*call)).map(|(c, _)| c).collect();
    ensure!(unsaid.is_empty() && unmade.is_empty(), "not in the table: {unsaid:?}; in it and not called: {unmade:?}");
    Ok(())
}

/// Nothing that a drill made is there any more, as the sandbox sees it.
fn gone(world: &World) -> Result<()> {
    let inspected = world.inspect()?.0;
    for (host, drill) in inspected["drills"].as_object().into_iter().flatten() {
        ensure!(drill["state"] == "gone", "{host} is left: {drill}");
    }
    let tokens = inspected["logins"].as_object().context("logins")?;
    let left: Vec<&String> = tokens
        .iter()
        .filter(|(token, row)| token.starts_with("cluster-") && row["gone"] != true)
        .map(|(token, _)| token)
        .collect();
    ensure!(left.is_empty(), "clusters are left: {left:?}");
    Ok(())
}

#[test]
fn h44_a_drill_reads_rows_without_the_source_and_none_without_its_cluster() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "small", 82)?;
        world.cli(&["dr", "copy", "--once"])?.ok()?;
        // A backup of the cluster from before any key of the fleet was in it.
        world.advance("1h")?;
        let early = backups(&world)?;
        migrated(&world)?;
        world.fault(&["autostart", "all"])?;
        world.advance("26h")?;
        settle(&world)?;
        world.advance("10m")?;
        world.snapshot(&[])?;
        // It ends when there is nothing left to do, the look that comes ten minutes after the set included.
        world.while_time_passes(|| world.cli(&["dr", "copy"]))?.ok()?;
        let (host, sid) = sids(&world)?.pop_first().context("a host")?;
        let rows = world.verify("")?.rows(&sid);
        ensure!(rows > 0);
        let production = (world.inspect()?.logins("cloudhsm"), world.inspect()?.logins("old-hsm"));

        // A set of which the loss of the region leaves no look.
        world.snapshot(&[])?;
        world.advance("1m")?;
        world.cli(&["dr", "copy", "--once"])?.ok()?;

        // The role for drills orders nothing in the source region.
        let mut survey = world.as_role(OPERATOR)?;
        let refused = tde2hsm_e2e::run(survey.args(["survey", "fleet.toml", "-o", "refused.json"]))?;
        let said = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(refused.code() != 0 && said.contains("not authorized"), "{} {said}", refused.code());

        // Everything that the drill may use is in the second region.
        world.fault(&["region-lost", "us-east-1"])?;
        world.fault(&["hsm-down", "old-hsm"])?;
        world.advance("3h")?;
        let seen = status(&world)?;
        let (verdict, unknowns) = newest_of(&seen, &host, &sid)?;
        ensure!(verdict == "not proven" && unknowns == ["TDE0818"], "{verdict} {unknowns:?} {seen}");
        ensure!(!seen["unasked"].as_array().context("unasked")?.is_empty(), "{seen}");
        // Whoever names it is shown a plan with what is not known of it, and nothing is done without a yes.
        let listed = world.cli(&["dr", "status", "--points", &sid, "--output", "json"])?.json()?;
        let unseen = listed["points"].as_array().into_iter().flatten().find(|point| point["verdict"] == "not proven");
        let point = unseen.and_then(|point| point["point"].as_str()).context("a point")?;
        let shown = world.cli(&["dr", "drill", "--database", &sid, "--point", point])?;
        let text = format!("{}{}", shown.stdout, shown.stderr);
        ensure!(shown.code() != 0 && text.contains(point) && text.contains("[TDE0818]"), "{} {text}", shown.code());
        ensure!(text.contains("cluster"), "it says what it would do: {text}");
        // Unasked, the newest that opens is taken.
        let done = drill(&world, &["--database", &sid, "--keep"])?;
        let answer = done.json()?;
        ensure!(done.code() == 0 && answer["ending"]["outcome"] == "read", "{answer}\n{}", done.stderr);
        ensure!(answer["reading"]["rows"].as_u64() == Some(rows), "{rows} rows are seeded: {answer}");
        ensure!(answer["ending"]["seconds"].as_i64().is_some_and(|seconds| seconds > 0), "{answer}");
        ensure!(world.inspect()?.0["crossings"] == 0, "something crossed the regions");

        // As the sandbox has it: the same rows, from the restored cluster and from nothing else.
        let id = answer["drill"].as_str().context("an id")?.to_owned();
        let inspected = world.inspect()?.0;
        let drills = inspected["drills"].as_object().context("drills")?;
        let made = drills.iter().find(|(_, drill)| drill["state"] == "up").context("a drill's host")?.0.clone();
        let restored = inspected["logins"].as_object().context("logins")?;
        let restored = restored.iter().find(|(token, _)| token.starts_with("cluster-")).context("a restored cluster")?;
        ensure!(restored.1["ok"] == 1 && restored.1["failed"] == 0, "one login: {}", restored.1);
        let cluster = restored.0.clone();
        ensure!(world.verify_host(&made, "software")?.readable(&sid) == rows);
        world.fault(&["detach-cluster", &cluster])?;
        ensure!(world.verify_host(&made, "software")?.readable(&sid) == 0, "rows read with the cluster detached");
        world.fault(&["attach-cluster", &cluster])?;
        ensure!(
            production == (world.inspect()?.logins("cloudhsm"), world.inspect()?.logins("old-hsm")),
            "production saw a login"
        );

        // One drill at a time; then it goes, whole.
        let second = world.cli(&["dr", "drill", "--database", &sid, "--yes"])?;
        ensure!(second.code() == 3 && second.stderr.contains("TDE0838"), "{}", second.stderr);
        let ended = drill(&world, &["--teardown", &id])?;
        ensure!(ended.code() == 0 && ended.json()?["torn_down"].is_i64(), "{}{}", ended.stdout, ended.stderr);
        gone(&world)?;

        // A backup from before the key: it fails, says so, and leaves nothing.
        let failed = drill(&world, &["--database", &sid, "--backup", &early])?;
        ensure!(failed.code() == 9 && failed.stderr.contains("TDE0834"), "{} {}{}", failed.code(), failed.stdout, failed.stderr);
        ensure!(failed.json()?["torn_down"].is_i64(), "{}", failed.stdout);
        gone(&world)?;
        as_said(&world)?;
        ensure!(
            production == (world.inspect()?.logins("cloudhsm"), world.inspect()?.logins("old-hsm")),
            "production saw a login"
        );
        Ok(())
    };
    run().expect("a drill");
}

/// The one HSM backup that lies in the DR region so far.
fn backups(world: &World) -> Result<String> {
    let seen = status(world)?;
    match seen["hsm_backups"].as_array().context("backups")?.as_slice() {
        [one] => Ok(one["id"].as_str().context("an id")?.to_owned()),
        other => bail!("not one copied backup: {other:?}"),
    }
}

/// Facts that a bank's people would write down.
fn facts(host: &str, except: &str) -> String {
    let mut text = String::from("undo_until = 2026-12-31T00:00:00Z\n");
    for (thing, needs) in [
        ("rman-pieces", "2027-03-01T00:00:00Z"),
        ("archived-logs", "2027-01-15T00:00:00Z"),
        ("restore-points", "2027-01-10T00:00:00Z"),
        ("flashback-logs", "none"),
        ("transparent-dumps", "2027-06-30T00:00:00Z"),
        ("unplugged-pdbs", "none"),
    ] {
        if thing != except {
            text.push_str(&format!(
                "[[facts]]\ndatabase = \"{host}\"\nthing = \"{thing}\"\nneeds = \"{needs}\"\nby = \"keeper of the backups\"\nat = \"AT\"\n"
            ));
        }
    }
    text
}

#[test]
fn h43_retire_when_gives_a_date_or_names_each_fact_that_is_missing() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "small", 83)?;
        migrated(&world)?;
        world.advance("1h")?;
        let host = world.hosts()?.remove(0);
        world.cli(&["survey", "fleet.toml", "-o", "surveys.json"])?.ok()?;
        let surveys: Value = serde_json::from_str(&std::fs::read_to_string(world.path("surveys.json"))?)?;
        let at = surveys["surveys"][0]["taken_at"].as_i64().context("a time")? - 60;
        let ask = |surveys: &Value, facts: &str| -> Result<(Ran, Value)> {
            std::fs::write(world.path("surveys.json"), surveys.to_string())?;
            std::fs::write(world.path("facts.toml"), facts.replace("AT", &time_of(at)?))?;
            let ran =
                world.cli(&["dr", "retire-when", "--surveys", "surveys.json", "--facts", "facts.toml", "--output", "json"])?;
            let answer = ran.json()?;
            Ok((ran, answer))
        };
        let (ran, answer) = ask(&surveys, &facts(&host, ""))?;
        ensure!(ran.code() == 0 && answer["answer"] == "from", "{answer}\n{}", ran.stderr);
        // The dumps are the last to need it.
        ensure!(answer["when"] == json!(1_814_313_600), "{answer}");
        let reasons = answer["reasons"].as_array().context("reasons")?;
        ensure!(reasons[0]["text"].as_str().is_some_and(|t| t.contains("declared by keeper of the backups")), "{answer}");

        for (thing, words) in [
            ("rman-pieces", "RMAN pieces"),
            ("archived-logs", "archived logs"),
            ("restore-points", "restore points"),
            ("transparent-dumps", "TRANSPARENT Data Pump dumps"),
            ("unplugged-pdbs", "unplugged PDBs"),
        ] {
            // A host whose control file could not be read for it, and nobody who knows.
            let mut blind = surveys.clone();
            for database in blind["surveys"][0]["databases"].as_array_mut().context("databases")? {
                database["facts"]["kept"] = Value::Null;
            }
            let (ran, answer) = ask(&blind, &facts(&host, thing))?;
            ensure!(ran.code() == 9 && answer["answer"] == "not-yet-computable", "{thing}: {answer}\n{}", ran.stderr);
            let missing = answer["missing"].as_array().context("missing")?;
            ensure!(missing.len() == 1 && missing[0]["thing"] == thing, "{thing}: {answer}");
            let human = world.cli(&["dr", "retire-when", "--surveys", "surveys.json", "--facts", "facts.toml"])?;
            ensure!(human.stdout.contains("not yet computable") && human.stdout.contains(words), "{}", human.stdout);
        }
        Ok(())
    };
    run().expect("a date or what is missing");
}

fn time_of(at: i64) -> Result<String> {
    let shown = std::process::Command::new("date").args(["-u", "-d", &format!("@{at}"), "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    Ok(String::from_utf8(shown.stdout)?.trim().to_owned())
}
