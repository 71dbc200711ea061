//! Every raw response that the sandbox gave in this suite, held against botocore's service models (H50). Named so that it runs
//! after the other files; alone it judges the few calls that it makes itself.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use tde2hsm_e2e::{World, records};

#[test]
fn h50_every_response_of_the_suite_fits_botocores_models() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        {
            let world = World::up(&dir.path().join("world"), "small", 13)?;
            world.setup()?.ok()?;
            world.plan()?.ok()?;
        }
        let files: Vec<PathBuf> = std::fs::read_dir(records()?)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let judged = tde2hsm_conformance::check_responses(&paths)?;
        let said = String::from_utf8_lossy(&judged.stdout);
        println!("{} recordings: {}", files.len(), said.lines().last().unwrap_or_default());
        ensure!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
        Ok(())
    };
    run().expect("every response is one that AWS could give");
}
