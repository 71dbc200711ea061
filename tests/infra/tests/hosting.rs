//! The functions where another hosts them: MiniStack runs the real program behind the rules and schedules of the templates, and
//! what they copy lies in a sandbox.

use anyhow::{Result, ensure};
use tde2hsm_conformance::programs;
use tde2hsm_e2e::World;
use tde2hsm_infra::{Server, Who, root, script};

#[test]
fn an_event_and_a_tick_alone_each_lead_to_verified_copies() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::up(&dir.path().join("world"), "small", 41)?;
    world.setup()?.ok()?;
    // MiniStack's clock is one of its own, so that its schedules come due when the test says so and not before.
    let clock = dir.path().join("hosting-clock");
    std::fs::write(&clock, 0i64.to_ne_bytes())?;
    let clock = clock.display().to_string();
    let preload = &world.env()["LD_PRELOAD"];
    let server = Server::up(Who::MiniStack, dir.path(), &[("LD_PRELOAD", preload), ("SANDBOX_CLOCK", &clock)])?;
    let programs = programs()?;
    let paths = [root().join("infra"), programs.join("bootstrap"), programs.join("sandbox"), world.dir.clone()];
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let words: Vec<&str> = std::iter::once(server.endpoint.as_str()).chain(paths.iter().map(String::as_str)).collect();
    let mut env: Vec<(&str, &str)> = world.env().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    env.push(("HOSTING_CLOCK", &clock));
    let (content, text) = script(Who::MiniStack, "host.py", &words, &env)?;
    println!("{text}");
    ensure!(content, "{text}\n{}", server.log());
    Ok(())
}
