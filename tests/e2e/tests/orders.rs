//! Orders that must move nothing (H31, H34), and a laptop that is lost (H32).

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tde2hsm_e2e::World;
use tde2hsm_e2e::kill::progress;
use tde2hsm_protocol::{
    AccountId, CampaignId, Code, Direction, Generation, InstanceId, OperationId, Order, OrderToken, Outcome, Region, Report,
    Segment, Timestamp, Work,
};

/// The orders that a host has kept, oldest file first.
fn kept(world: &World, host: &str) -> Result<Vec<Order>> {
    let mut orders = Vec::new();
    for operation in std::fs::read_dir(world.root(host).join("var/lib/tde2hsm/operations"))? {
        let file = operation?.path().join("order.json");
        orders.push(serde_json::from_slice::<Order>(&std::fs::read(&file).with_context(|| file.display().to_string())?)?);
    }
    orders.sort_by_key(|order| order.not_before);
    Ok(orders)
}

/// Hands an order to a host as the document does.
fn deliver(world: &World, host: &str, order: &Order) -> Result<Report> {
    let variable = format!("SSM_Order={}", order.encode()?);
    let ran = world.exec(host, &["env", &variable, "/opt/tde2hsm/host-runner", "run"])?;
    ensure!(ran.code() == 0, "exit {}: {}{}", ran.code(), ran.stdout, ran.stderr);
    ensure!(ran.stderr.is_empty(), "it spoke on stderr: {}", ran.stderr);
    Ok(Report::decode(&ran.stdout)?)
}

fn migrated(fleet: &str, seed: u64) -> Result<(tempfile::TempDir, World)> {
    let dir = tde2hsm_e2e::scratch()?;
    let world = World::up(&dir.path().join("world"), fleet, seed)?;
    world.setup()?.ok()?;
    world.plan()?.ok()?;
    world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
    Ok((dir, world))
}

/// Everything the sandbox knows that an order could have moved.
fn state(world: &World) -> Result<Value> {
    let mut inspection = world.inspect()?.0;
    for gone in ["api_calls", "api_calls_of_hosts", "logins"] {
        if let Some(map) = inspection.as_object_mut() {
            map.remove(gone);
        }
    }
    // Reading is allowed; it opens nothing and changes nothing.
    Ok(inspection)
}

#[test]
fn h31_a_late_repeated_old_or_foreign_order_moves_nothing_and_says_why() {
    let run = || -> Result<()> {
        let (_dir, world) = migrated("2", 8)?;
        let hosts = world.hosts()?;
        let host = &hosts[0];
        let cutover = kept(&world, host)?
            .into_iter()
            .find(|order| matches!(order.work, Work::Run { segment: Segment::Cutover, direction: Direction::Do }))
            .context("a cutover order is kept")?;
        let then = state(&world)?;
        let fresh = |number: u8| -> Result<Order> {
            let mut order = cutover.clone();
            // Undoing is what would move most.
            order.work = Work::Run { segment: Segment::Cutover, direction: Direction::Undo };
            order.token = OrderToken::new(format!("t-test-{number}"))?;
            order.hosts.retain(|h| h.instance.as_str() == host);
            order.hosts[0].operation = OperationId::new(format!("op-test-{number}"))?;
            Ok(order)
        };
        // Twice: the recorded report, no work.
        let again = deliver(&world, host, &cutover)?;
        ensure!(
            again.outcome == Outcome::Done
                && Some(&again.operation) == cutover.host(&InstanceId::new(host.clone())?).map(|h| &h.operation),
            "{again:?}"
        );

        let mut late = fresh(1)?;
        (late.not_before, late.not_after) = (Timestamp(late.not_before.0 - 90_000), Timestamp(late.not_before.0 - 86_400));
        let mut early = fresh(2)?;
        (early.not_before, early.not_after) = (early.not_before.plus(86_400), early.not_after.plus(90_000));
        let mut other_account = fresh(3)?;
        other_account.account = AccountId::new("999999999999")?;
        let mut other_region = fresh(4)?;
        other_region.region = Region::new("eu-west-3")?;
        let mut other_instance = fresh(5)?;
        other_instance.hosts[0].instance = InstanceId::new("i-0000000000000000f")?;
        let mut older = fresh(6)?;
        older.generation = Generation(0);
        let mut other_campaign = fresh(7)?;
        other_campaign.campaign = CampaignId::new("another-campaign")?;
        let mut other_version = fresh(8)?;
        other_version.v = 2;
        let refused: [(&str, Order, &[Code]); 8] = [
            ("late", late, &[Code::ORDER_EXPIRED]),
            ("early", early, &[Code::ORDER_EXPIRED]),
            ("account", other_account, &[Code::ORDER_NOT_MINE]),
            ("region", other_region, &[Code::ORDER_NOT_MINE]),
            ("instance", other_instance, &[Code::ORDER_NOT_MINE]),
            ("generation", older, &[Code::ORDER_SUPERSEDED]),
            ("campaign", other_campaign, &[Code::HOST_HELD]),
            ("version", other_version, &[Code::PROTOCOL_VERSION]),
        ];
        for (what, order, codes) in refused {
            let report = deliver(&world, host, &order)?;
            let code = report.outcome.code().with_context(|| format!("{what}: {report:?}"))?;
            ensure!(codes.contains(&code), "{what}: {code} {}", report.message);
            ensure!(state(&world)? == then, "{what}: something moved");
        }
        // The real one, to another instance of the fleet that it does not name.
        let mut narrow = fresh(9)?;
        narrow.work = cutover.work;
        let report = deliver(&world, &hosts[1], &narrow)?;
        ensure!(report.outcome.code() == Some(Code::ORDER_NOT_MINE), "{report:?}");
        ensure!(state(&world)? == then, "something moved");
        Ok(())
    };
    run().expect("nothing moves");
}

#[test]
fn h32_a_lost_journal_is_adopted_in_the_middle_of_a_campaign() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "3", 9)?;
        world.setup()?.ok()?;
        world.plan()?.ok()?;
        let mut cli =
            world.tde2hsm().args(["apply", "plan.json", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let deadline = Instant::now() + Duration::from_secs(120);
        while !progress(&world)?.in_cutover {
            ensure!(Instant::now() < deadline && cli.try_wait()?.is_none(), "no host came to cutover");
            std::thread::sleep(Duration::from_millis(5));
        }
        cli.kill()?;
        cli.wait()?;
        for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let _ = std::fs::remove_file(world.path(name));
        }
        ensure!(!world.cli(&["resume", "--yes"])?.status.success(), "a resume without a journal must not go on");
        let adopted = world.cli(&["adopt", "plan.json"])?;
        ensure!(adopted.status.success(), "{}{}", adopted.stdout, adopted.stderr);
        let resumed = world.cli(&["resume", "--yes"])?;
        ensure!(resumed.status.success(), "{}{}", resumed.stdout, resumed.stderr);
        let verdicts = world.verdicts()?;
        ensure!(verdicts.is_empty(), "{verdicts:?}");
        // The new controller is of a later generation, and every host was told.
        for host in world.hosts()? {
            let newest = kept(&world, &host)?.into_iter().map(|order| order.generation).max().context("orders")?;
            ensure!(newest >= Generation(2), "{host} has only seen generation {newest}");
        }
        Ok(())
    };
    run().expect("adopted");
}
