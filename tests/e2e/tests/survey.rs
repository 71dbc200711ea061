//! What a survey says for recovery, against what the sandbox made: files, volumes, keys (H40, H41).

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_e2e::World;
use tde2hsm_protocol::survey::{AutoLogin, FileKind, FilePlace, Survey, Vendor};
use tde2hsm_protocol::{Store, VolumeId, wire};

/// Takes a survey on the host and puts its detail together from the host's own files, with its number of chunks.
fn survey(world: &World, host: &str) -> Result<(Survey, usize)> {
    let before = details(world, host)?;
    world.exec(host, &["/opt/tde2hsm/host-runner", "survey"])?.ok()?;
    let after = details(world, host)?;
    let new = after.difference(&before).next().context("no new detail")?;
    let bytes = std::fs::read(world.root(host).join("var/lib/tde2hsm/details").join(new))?;
    let chunks = bytes.len().div_ceil(tde2hsm_protocol::CHUNK_BYTES);
    Ok((serde_json::from_slice(&wire::inflate(&bytes)?)?, chunks))
}

fn details(world: &World, host: &str) -> Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(world.root(host).join("var/lib/tde2hsm/details")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn volumes(survey: &Survey, file: &FilePlace) -> Result<BTreeSet<VolumeId>> {
    let disks = survey.disks(file).with_context(|| format!("{file:?} is followed to no disk"))?;
    disks.into_iter().map(|disk| disk.volume.clone().with_context(|| format!("{disk:?} says no volume"))).collect()
}

#[test]
fn h40_h41_a_survey_follows_every_file_to_its_volume_and_names_every_key() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "2", 21)?;
        world.setup()?.ok()?;
        world.plan()?.ok()?;
        let hosts = world.hosts()?;
        let (before, chunks) = survey(&world, &hosts[0])?;
        println!("a survey before the migration takes {chunks} chunks for {} databases", before.databases.len());
        ensure!(before.provider.vendor == Some(Vendor::Other), "{:?}", before.provider);
        ensure!(before.unreadable.is_empty(), "{:?}", before.unreadable);

        let mut attached: BTreeSet<VolumeId> = BTreeSet::new();
        for database in &before.databases {
            let files = database.files.as_ref().context("files")?;
            let mut by_kind: BTreeMap<FileKind, BTreeSet<VolumeId>> = BTreeMap::new();
            for file in files {
                ensure!(world.root(&hosts[0]).join(file.path.trim_start_matches('/')).starts_with(world.root(&hosts[0])));
                by_kind.entry(file.what).or_default().extend(volumes(&before, file)?);
            }
            for kind in [
                FileKind::Datafile,
                FileKind::Controlfile,
                FileKind::RedoLog,
                FileKind::RecoveryArea,
                FileKind::ParameterFile,
                FileKind::PasswordFile,
                FileKind::NetworkConfig,
                FileKind::OracleHome,
            ] {
                ensure!(by_kind.contains_key(&kind), "{}: no {kind:?} in {files:?}", database.sid);
            }
            // One copy of the control file lies beside the data, the other does not.
            ensure!(by_kind[&FileKind::Datafile].len() == 1 && by_kind[&FileKind::Controlfile].len() == 2, "{by_kind:?}");
            ensure!(by_kind[&FileKind::Datafile] != by_kind[&FileKind::OracleHome], "{by_kind:?}");
            attached.extend(by_kind.into_values().flatten());

            let facts = database.facts.as_ref().context("facts")?;
            let keys = facts.keys.as_ref().context("keys")?;
            let active: Vec<_> =
                facts.containers.iter().filter_map(|container| Some((&container.name, container.key.as_ref()?))).collect();
            ensure!(!active.is_empty(), "{}: no key", database.sid);
            for (name, key) in active {
                let known = keys.iter().find(|known| known.key == key.id).with_context(|| format!("{name}: {keys:?}"))?;
                ensure!(
                    known.container.as_ref() == Some(name) && known.store == key.store && known.activated.is_some(),
                    "{known:?}"
                );
            }
            let kept = facts.kept.as_ref().context("kept")?;
            ensure!(kept.record_keep_days == Some(7) && kept.archived_logs.is_some() && kept.flashback.is_some(), "{kept:?}");
            ensure!(kept.backups.is_some_and(|span| span.count > 0 && span.oldest.is_some()), "{kept:?}");
        }
        let of_host: BTreeSet<FileKind> = before.files.iter().flatten().map(|file| file.what).collect();
        ensure!(of_host.contains(&FileKind::Provider) && of_host.contains(&FileKind::Oratab), "{of_host:?}");
        let inspected = &world.inspect()?.0["volumes"][&hosts[0]];
        if let Some(map) = inspected.as_object() {
            let truth: BTreeSet<String> = map.values().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            ensure!(attached.iter().all(|volume| truth.contains(volume.as_str())), "{attached:?} {truth:?}");
        }
        ensure!(attached.len() == 2, "{attached:?}");
        ensure!(chunks <= 10, "{chunks} chunks");

        world.cli(&["apply", "plan.json", "--yes"])?.ok()?;
        let (after, chunks) = survey(&world, &hosts[0])?;
        println!("a survey after the migration takes {chunks} chunks");
        ensure!(chunks <= 10, "{chunks} chunks");
        ensure!(after.provider.vendor == Some(Vendor::CloudHsm), "{:?}", after.provider);
        ensure!(after.provider.cloudhsm_servers.as_ref().is_some_and(|servers| !servers.is_empty()), "{:?}", after.provider);
        ensure!(after.files.iter().flatten().any(|file| file.what == FileKind::CloudHsmClient), "{:?}", after.files);
        for database in &after.databases {
            ensure!(database.auto_login != Some(AutoLogin::Local), "{database:?}");
            ensure!(database.files.iter().flatten().any(|file| file.what == FileKind::KeystoreDir), "{:?}", database.files);
            let keys = database.facts.as_ref().and_then(|facts| facts.keys.as_ref()).context("keys")?;
            // The interim keystore's keys beside those of CloudHSM.
            for store in [Store::Software, Store::Hsm] {
                ensure!(keys.iter().any(|key| key.store == Some(store)), "{}: {keys:?}", database.sid);
            }
        }
        Ok(())
    };
    run().expect("a whole survey");
}
