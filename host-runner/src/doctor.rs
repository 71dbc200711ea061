//! Tells a person on the host what the runner sees: identity, provider, who may load it, reachability, keystores.
//! Reads only, and logs in nowhere: a doctor that tries passwords would lock the patient out (H10).

use crate::identity::Identity;
use crate::owner::Owner;
use crate::packages::Packages;
use crate::paths::Paths;
use crate::procs::Procs;
use crate::provider::Provider;
use std::collections::BTreeMap;
use std::io::Write;

pub fn examine(paths: &Paths, out: &mut dyn Write) -> std::io::Result<()> {
    match Identity::read(paths) {
        Ok(identity) => {
            writeln!(out, "host      {} of account {} in {}", identity.instance, identity.account, identity.region)?;
            for (name, url) in [("imds", &identity.endpoints.imds), ("secretsmanager", &identity.endpoints.secretsmanager)] {
                if let Some(url) = url {
                    writeln!(out, "          {name} is overridden: {url}")?;
                }
            }
            match identity.credentials() {
                Ok(_) => writeln!(out, "role      credentials are there")?,
                Err(error) => writeln!(out, "role      {}: {error}", error.code())?,
            }
        }
        Err(error) => writeln!(out, "host      {}: {error}", error.code())?,
    }
    let packages = Packages::new(paths);
    match packages.os() {
        Ok(os) => writeln!(out, "system    {} {} on {}", os.id, os.version, os.arch)?,
        Err(error) => writeln!(out, "system    {}: {error}", error.code())?,
    }
    match packages.cloudhsm() {
        Ok(found) if found.is_empty() => writeln!(out, "client    no cloudhsm package is installed")?,
        Ok(found) => writeln!(out, "client    {}", found.join(", "))?,
        Err(error) => writeln!(out, "client    {}: {error}", error.code())?,
    }

    let provider = Provider::new(paths);
    let libraries = match provider.libraries() {
        Ok(libraries) => libraries,
        Err(error) => {
            writeln!(out, "provider  {}: {error}", error.code())?;
            Vec::new()
        }
    };
    match libraries.len() {
        0 => writeln!(out, "provider  no library below /opt/oracle/extapi: Oracle answers ORA-28376")?,
        1 => {}
        n => writeln!(out, "provider  {n} libraries below /opt/oracle/extapi; exactly one must be there")?,
    }
    for library in &libraries {
        writeln!(out, "provider  {} {}:{} {:o} sha256 {}", library.path, library.uid, library.gid, library.mode, library.sha256)?;
    }
    match provider.mapped() {
        Ok(mapped) if mapped.is_empty() => writeln!(out, "mapped    by no process")?,
        Ok(mapped) => {
            for mapping in mapped {
                let sid = mapping.sid.map_or_else(|| "not of a database".to_owned(), |sid| sid.to_string());
                let gone = if mapping.deleted { ", which is gone from its path: it needs a restart" } else { "" };
                writeln!(out, "mapped    by process {} ({sid}): {}{gone}", mapping.pid, mapping.path)?;
            }
        }
        Err(error) => writeln!(out, "mapped    {}: {error}", error.code())?,
    }

    let procs = Procs::new(paths);
    let pmons = procs.pmons()?;
    if pmons.is_empty() {
        writeln!(out, "instance  none is running")?;
    }
    let mut owners: BTreeMap<u32, (Owner, crate::procs::Pmon)> = BTreeMap::new();
    for pmon in pmons {
        let home = pmon.env("ORACLE_HOME").unwrap_or("unknown").to_owned();
        writeln!(out, "instance  {} pid {} home {home} cgroup {}", pmon.sid, pmon.pid, pmon.cgroup)?;
        let tns_admin = pmon.env("TNS_ADMIN").map_or_else(|| format!("{home}/network/admin"), str::to_owned);
        match Owner::of_home(paths, &home) {
            Ok(owner) => {
                if owner.only_user {
                    writeln!(out, "owner     {}: this host maps one user only; no right can be dropped", owner.user)?;
                }
                let file = paths.at(&tns_admin).join("sqlnet.ora");
                match owner
                    .files()
                    .map_err(|error| error.to_string())
                    .and_then(|mut files| files.read(&file).map_err(|error| error.to_string()))
                {
                    Ok(None) => writeln!(out, "keystore  {tns_admin}/sqlnet.ora is not there")?,
                    Ok(Some(text)) => match crate::sqlnet::SqlnetFile::parse(&text).and_then(|parsed| parsed.wallet_location()) {
                        Ok(Some(location)) => {
                            let directory = location.directory.unwrap_or_else(|| "no directory".to_owned());
                            writeln!(out, "keystore  {tns_admin}/sqlnet.ora: {:?}, {directory}", location.method)?;
                        }
                        Ok(None) => writeln!(out, "keystore  {tns_admin}/sqlnet.ora names none")?,
                        Err(error) => writeln!(out, "keystore  {}: {tns_admin}/sqlnet.ora {error}", error.code())?,
                    },
                    Err(error) => writeln!(out, "keystore  {tns_admin}/sqlnet.ora: {error}")?,
                }
                owners.entry(owner.uid).or_insert((owner, pmon));
            }
            Err(error) => writeln!(out, "owner     {}: {error}", error.code())?,
        }
    }
    for (owner, pmon) in owners.values() {
        let current = libraries.first().map(|library| paths.at(&library.path));
        for library in current.into_iter().chain([provider.new_library()]) {
            if !library.is_file() {
                continue;
            }
            let name = library.display();
            match provider.loads(owner, Some(pmon), &library) {
                Ok(()) => writeln!(out, "load      {name}: every dependency resolves as {}", owner.user)?,
                Err(error) => writeln!(out, "load      {}: {name}: {error}", error.code())?,
            }
            match provider.probe_load(owner, Some(pmon), &library) {
                Ok(probe) => writeln!(out, "reach     {name}: {} ({})", probe.said, probe.library.unwrap_or_default())?,
                Err(error) => writeln!(out, "reach     {}: {name}: {error}", error.code())?,
            }
        }
    }
    match crate::journal::Journal::read(&paths.journal()) {
        Ok(entries) => {
            let held = entries.held_by().map_or_else(|| "no campaign".to_owned(), |campaign| campaign.to_string());
            writeln!(out, "journal   {} entries, held by {held}", entries.all().len())?;
        }
        Err(error) => writeln!(out, "journal   {}: {error}", error.code())?,
    }
    Ok(())
}
