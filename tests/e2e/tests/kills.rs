//! Twenty kills over one campaign, at least twelve of them in `cutover`, each followed by `resume`; under both values of each
//! switch for what is not known of Oracle (H48).

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tde2hsm_e2e::kill::{Victim, progress, strike};
use tde2hsm_e2e::{Verdict, World};

/// Three hosts.
const FLEET: &str = "3";
const KILLS: usize = 20;
const IN_CUTOVER: usize = 12;
/// Looks for the victim whose turn it is.
const PATIENCE: usize = 20;

/// Each phase of a key change takes a moment, so that kills fall between them. With the switches that would hide what those of
/// `FLIPPED` show.
const SLOW: &str = r#"{"phase_delay_ms":{"*":100},"switches":{"tde_configuration_needs_restart":true,"hsm_open_needs_active_key":true,
  "connection_in_shutdown":1090}}"#;

/// Every switch of H48 that this breadth meets, away from its default.
const FLIPPED: &str = r#"{"phase_delay_ms":{"*":100},"switches":{"file_keystore_per_session":true,"migrate_rotates_pdbs":false,"tde_configuration_needs_restart":true,
  "with_backup_refused":true,"repeated_migrate":28353,"repeated_reverse_migrate":28374,"open_burns_hsm_login":true}}"#;

/// Ctrl-C and this are one to the CLI, but whoever runs in the background of a shell has Ctrl-C ignored until it listens itself.
const SOFTLY: Signal = Signal::SIGTERM;

struct Campaign {
    world: World,
    cli: Option<Child>,
}

impl Campaign {
    fn start(&mut self, words: &[&str]) -> Result<()> {
        let said = std::fs::File::create(self.world.path("cli.stderr"))?;
        let child = self.world.tde2hsm().args(words).stdout(Stdio::null()).stderr(said).spawn()?;
        self.cli = Some(child);
        Ok(())
    }
    fn running(&mut self) -> bool {
        self.cli.as_mut().is_some_and(|cli| matches!(cli.try_wait(), Ok(None)))
    }
    /// How a CLI that nobody stopped ended, and what it said last.
    fn ended(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.cli.take().context("it was started")?.wait()?;
        let said = std::fs::read_to_string(self.world.path("cli.stderr"))?;
        let last: Vec<&str> = said.lines().rev().take(4).collect();
        Ok((status, format!("{status}: {}", last.join(" < "))))
    }
    /// Stops the CLI, softly or not, and waits for it.
    fn stop(&mut self, signal: Signal) -> Result<()> {
        if let Some(mut cli) = self.cli.take() {
            let _ = kill(Pid::from_raw(cli.id() as i32), signal);
            cli.wait()?;
        }
        Ok(())
    }
}

fn world(fleet: &str, physics: &str, seed: u64) -> Result<(tempfile::TempDir, World)> {
    let dir = tde2hsm_e2e::scratch()?;
    let world = World::up(&dir.path().join("world"), fleet, seed)?;
    // Not by hand: what lies below `hosts` is a layer of a file system that is mounted.
    world.fault(&["oracle", "all", physics])?;
    world.setup()?.ok()?;
    world.plan()?.ok()?;
    Ok((dir, world))
}

/// What is wrong with the end, a statement apart that was answered "not with this clause" and sent again without it (H11).
fn ends_badly(world: &World) -> Result<Vec<Verdict>> {
    Ok(world.verdicts()?.into_iter().filter(|verdict| *verdict != Verdict::StatementRepeated).collect())
}

/// A campaign without any kill: how many lines its hosts' journals have, and between which lines some host was in cutover.
fn measure(physics: &str) -> Result<(usize, usize, usize)> {
    let (_dir, world) = world(FLEET, physics, 11)?;
    let mut campaign = Campaign { world, cli: None };
    campaign.start(&["apply", "plan.json", "--yes"])?;
    let (mut first, mut last) = (usize::MAX, 0);
    while campaign.running() {
        let now = progress(&campaign.world)?;
        if now.in_cutover {
            first = first.min(now.lines);
            last = last.max(now.lines);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let verdicts = ends_badly(&campaign.world)?;
    ensure!(verdicts.is_empty(), "the measured campaign did not end well: {verdicts:?}");
    ensure!(first < last, "no host was seen in cutover");
    Ok((progress(&campaign.world)?.lines, first, last))
}

fn killed(physics: &str, seed: u64) -> Result<()> {
    let (whole, first, last) = measure(physics)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Thirteen points in the measured cutover, which are waited for until some host is in it, and seven over the whole.
    let mut points: Vec<(usize, bool)> = (0..IN_CUTOVER + 1).map(|_| (rng.random_range(first..last), true)).collect();
    points.extend((0..KILLS - IN_CUTOVER - 1).map(|_| (rng.random_range(1..whole), false)));
    points.sort_unstable();
    let (_dir, world) = world(FLEET, physics, seed)?;
    let mut campaign = Campaign { world, cli: None };
    campaign.start(&["apply", "plan.json", "--yes"])?;
    let (mut hits, mut in_cutover, mut by_victim, mut waited) = (0, 0, [0usize; 4], 0);
    let victims = [Victim::Worker, Victim::Sqlplus, Victim::SsmSide, Victim::Cli];
    let deadline = Instant::now() + Duration::from_secs(400);
    let (mut points, mut resumed, mut ends) = (points.into_iter().peekable(), 0, Vec::new());
    while let Some((point, cutover)) = points.peek() {
        ensure!(Instant::now() < deadline, "kill {hits} of {KILLS} found no moment; {:?}", progress(&campaign.world)?);
        if !campaign.running() {
            let (status, said) = campaign.ended()?;
            ends.push(said);
            // A check takes seconds, in which the hosts go on without anyone to strike at.
            if status.success() && ends_badly(&campaign.world)?.is_empty() {
                break;
            }
            resumed += 1;
            let stands = || campaign.world.cli(&["status"]).map_or_else(|e| e.to_string(), |ran| ran.stdout);
            ensure!(resumed <= 20, "it ends and ends, after {hits} kills: {}", stands());
            campaign.start(&["resume", "--yes"])?;
        }
        let now = progress(&campaign.world)?;
        if now.lines < *point || (*cutover && !now.in_cutover) {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        // Whoever was killed least; after some looks whoever is there, since the moment of a short-lived process may not come again.
        let mut order = victims;
        order.sort_by_key(|victim| by_victim[*victim as usize]);
        let looked_for = if waited < PATIENCE { &order[..1] } else { &order[..] };
        let hit = looked_for.iter().copied().find(|victim| match victim {
            Victim::Cli => campaign.running(),
            victim => strike(&campaign.world, *victim),
        });
        let Some(victim) = hit else {
            waited += 1;
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        waited = 0;
        campaign.stop(if victim == Victim::Cli { Signal::SIGKILL } else { SOFTLY })?;
        hits += 1;
        in_cutover += usize::from(now.in_cutover);
        by_victim[victim as usize] += 1;
        points.next();
        resumed = 0;
        campaign.start(&["resume", "--yes"])?;
    }
    ensure!(
        hits == KILLS,
        "the campaign was over after {hits} kills, {in_cutover} in cutover: {by_victim:?}; ends: {ends:?}; {whole} {first} {last}"
    );
    let mut cli = campaign.cli.take().context("a resume runs")?;
    let mut status = cli.wait()?;
    for _ in 0..3 {
        if status.success() {
            break;
        }
        status = campaign.world.cli(&["resume", "--yes"])?.status;
    }
    println!(
        "{hits} kills, {in_cutover} in cutover; cli {}, SSM side {}, worker {}, sqlplus {}",
        by_victim[0], by_victim[1], by_victim[2], by_victim[3]
    );
    ensure!(by_victim.iter().all(|kills| *kills >= 2), "somebody was hardly ever killed: {by_victim:?}");
    ensure!(in_cutover >= IN_CUTOVER, "only {in_cutover} kills in cutover");
    ensure!(status.success(), "the last resume ended with {status}: {}", campaign.world.cli(&["status"])?.stdout);

    let world = &campaign.world;
    let inspection = world.inspect()?;
    for sid in inspection.sids() {
        for (container, _) in inspection.containers(&sid) {
            // One key a direction, and at most one orphan for each statement that a kill interrupted.
            for (store, statement) in [("software", "REVERSE MIGRATE"), ("cloudhsm", "MIGRATE")] {
                let (keys, ran) = (inspection.keys(&sid, &container, store), inspection.statements(&sid, statement));
                ensure!(keys >= 1 && keys <= ran.max(1), "{sid}/{container}: {keys} keys in {store} after {ran} × {statement}");
            }
        }
        ensure!(inspection.on_cloudhsm(&sid), "{sid}: the active key is not in CloudHSM");
    }
    let (open, cut, without) = (world.verify("")?, world.verify("old-hsm,software")?, world.verify("target")?);
    for sid in inspection.sids() {
        ensure!(open.all_readable(&sid), "{sid}: {} of {} rows read", open.readable(&sid), open.rows(&sid));
        ensure!(
            cut.all_readable(&sid),
            "{sid}: {} of {} rows read without the old keystores",
            cut.readable(&sid),
            cut.rows(&sid)
        );
        ensure!(without.readable(&sid) == 0, "{sid}: rows read without CloudHSM");
    }
    ensure!(inspection.logins("old-hsm").1 == 0 && inspection.logins("cloudhsm").1 == 0, "a login failed");
    Ok(())
}

#[test]
fn twenty_kills_end_done() {
    killed(SLOW, 20).expect("every kill is survived");
}

#[test]
fn h48_the_whole_fleet_migrates_where_oracle_behaves_otherwise() {
    let run = || -> Result<()> {
        let (_dir, world) = world("mixed", FLIPPED, 22)?;
        world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
        let (inspection, cut, without) = (world.inspect()?, world.verify("old-hsm,software")?, world.verify("target")?);
        let moved: Vec<String> = inspection.sids().into_iter().filter(|sid| inspection.on_cloudhsm(sid)).collect();
        ensure!(moved.len() == 10, "{moved:?}");
        for sid in moved {
            ensure!(cut.all_readable(&sid) && without.readable(&sid) == 0, "{sid}");
        }
        // Where both hold, that a keystore is open for one session alone and that an OPEN is put to the HSM as well, a CDB
        // costs one login, which the MIGRATE's own clears; nothing else may cost one.
        let cdbs = inspection.sids().iter().filter(|sid| inspection.containers(sid).len() > 1).count() as u64;
        let (old, new) = (inspection.logins("old-hsm").1, inspection.logins("cloudhsm").1);
        ensure!(old == 0 && new <= cdbs, "{old} and {new} logins failed; {cdbs} CDBs");
        Ok(())
    };
    run().expect("migrated");
}

#[test]
fn h48_twenty_kills_end_done_where_oracle_behaves_otherwise() {
    killed(FLIPPED, 21).expect("every kill is survived");
}

/// A step before the swap stops a database for its configuration's sake, and the start is refused: the next turn finds it down,
/// stopped cleanly by this campaign, with its keys still in the old HSM.
#[test]
fn h01_a_restart_that_broke_off_is_not_the_swaps() {
    const BROKEN: &str = r#"{"switches":{"tde_configuration_needs_restart":true},
      "faults":[{"id":"f","at":"STARTUP:begin","do":"crash-instance","times":1}]}"#;
    let run = || -> Result<()> {
        let (_dir, world) = world("small", BROKEN, 23)?;
        let applied = world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
        let inspection = world.inspect()?;
        for sid in inspection.sids() {
            ensure!(inspection.on_cloudhsm(&sid), "{sid}: {}{}", applied.stdout, applied.stderr);
        }
        ensure!(ends_badly(&world)?.is_empty(), "{:?}", ends_badly(&world)?);
        ensure!(inspection.logins("old-hsm").1 == 0 && inspection.logins("cloudhsm").1 == 0, "a login failed");
        Ok(())
    };
    run().expect("it goes on where it was");
}
