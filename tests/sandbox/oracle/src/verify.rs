//! `oracle sim-verify`: a fresh engine over the files of a host's copy, as after a crash, reading every seeded
//! row (H46). It asks nobody: not the product, not the running instance.
//!
//! It looks through the host's own configuration and the library it finds below extapi, and leaves no trace
//! on the tokens, which the living fleet is using.

use std::collections::BTreeMap;

use sandbox_shim::Vendor;

use crate::engine::{FileOpen, Hello, HsmOpen, Instance, PdbMode, Privilege, Sess, WalletType};
use crate::error::{Ora, Result};
use crate::hsm::{self, TwoLibraries};
use crate::keys::Kind;
use crate::spec::{TruthTable, TsStatus, Verified, VerifyDatabase, VerifySpec};
use crate::{params, wallet};

/// The environment in which a child verifies one database; cutting off is per process.
#[must_use]
pub fn environment(spec: &VerifySpec, database: &VerifyDatabase) -> BTreeMap<String, String> {
    let mut cut: Vec<&str> =
        spec.cut_off.iter().map(String::as_str).map(|name| if name == "target" { "cloudhsm" } else { name }).collect();
    cut.sort_unstable();
    let mut environment = BTreeMap::from([
        ("ORACLE_HOME".to_owned(), database.truth.home.clone()),
        ("ORACLE_SID".to_owned(), database.truth.sid.clone()),
        (sandbox_shim::OBSERVER_ENV.to_owned(), "1".to_owned()),
        (sandbox_shim::CUT_OFF_ENV.to_owned(), cut.join(",")),
    ]);
    if cut.contains(&"software") {
        environment.insert(wallet::CUT_OFF_ENV.to_owned(), "1".to_owned());
    }
    environment
}

/// Verifies one database; the process' environment is that of `environment`.
#[must_use]
pub fn verify(database: &VerifyDatabase) -> Verified {
    let mut verified = Verified::default();
    let opened = open(database);
    let mut opened = match opened {
        Ok(opened) => Some(opened),
        Err(error) => {
            verified.open_error = Some(error.to_string());
            None
        }
    };
    for (name, tables) in &database.truth.containers {
        let container = verified.containers.entry(name.clone()).or_default();
        for (table, truth) in tables {
            let rows = truth.rows.len() as u64;
            let (readable, cause) = match &mut opened {
                Some((instance, sess)) => read(instance, sess, name, table, truth),
                None => (0, verified.open_error.clone()),
            };
            if truth.encrypted {
                verified.rows_total += rows;
                verified.rows_readable += readable;
            } else {
                verified.plain_rows_total += rows;
                verified.plain_rows_readable += readable;
            }
            container.rows_total += rows;
            container.rows_readable += readable;
            if let Some(cause) = cause {
                container.causes.entry(cause).or_default().push(table.clone());
            } else {
                container.rows_wrong += rows - readable;
            }
        }
    }
    verified
}

fn open(database: &VerifyDatabase) -> Result<(Instance, Sess)> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let truth = &database.truth;
    let mut instance = Instance::start(&truth.home, &truth.sid, environment.clone(), false, None)?;
    let mut sess = instance.log_on(Hello {
        os_user: "oracle".into(),
        machine: wallet::host_name(),
        client_pid: 0,
        server_pid: 0,
        privilege: Privilege::Sysdba,
        sqlnet: params::read_sqlnet(&environment),
        environment,
    });
    instance.mount()?;
    sess.con = instance.root();
    open_keystores(&mut instance, &sess, database);
    instance.open(&sess, true)?;
    let control = instance.control_mut()?;
    control.planted.datafiles_offline.clear();
    for ts in &mut control.tablespaces {
        if ts.status == TsStatus::Offline {
            ts.status = TsStatus::Online;
        }
    }
    for mode in instance.pdbs.values_mut() {
        *mode = PdbMode::ReadWrite;
    }
    Ok((instance, sess))
}

/// Opens what the configuration names and the passwords fit; what does not open shows in the rows.
fn open_keystores(instance: &mut Instance, sess: &Sess, database: &VerifyDatabase) {
    let config = instance.config(sess);
    let everywhere: std::collections::BTreeSet<u32> =
        instance.control.iter().flat_map(|c| c.containers.iter().map(|c| c.con_id)).collect();
    if config.has(Kind::File)
        && let Some(dir) = &config.dir
    {
        let body = database.software.iter().find_map(|p| wallet::open(dir, p).ok());
        let body = body.or_else(|| wallet::open_sso(dir).ok().map(|(_, body)| body));
        if let Some(body) = body {
            instance.file = Some(FileOpen { dir: dir.clone(), kind: WalletType::Password, body, containers: everywhere.clone() });
        }
    }
    let vendor = hsm::libraries().iter().find_map(|path| {
        let name = path.file_name()?.to_str()?;
        [Vendor::OldHsm, Vendor::CloudHsm].into_iter().find(|v| v.library_name() == name)
    });
    if config.has(Kind::Hsm)
        && let Some(pin) = vendor.and_then(|v| database.pins.get(v.name()))
    {
        let login = instance.provider.load(TwoLibraries::Error).and_then(|lib| lib.login(pin));
        if login.is_ok() {
            instance.hsm = Some(HsmOpen { containers: everywhere, auto: false });
        }
    }
}

fn read(instance: &mut Instance, sess: &Sess, container: &str, table: &str, truth: &TruthTable) -> (u64, Option<String>) {
    let con = instance.control.as_ref().and_then(|c| c.containers.iter().find(|c| c.name == container)).map(|c| c.con_id);
    let rows = con.ok_or_else(|| Ora::new(65011)).and_then(|con| instance.read_table(sess, con, table));
    match rows {
        Ok(rows) => {
            let right = rows
                .iter()
                .zip(&truth.rows)
                .filter(|(row, digest)| crate::crypto::sha256_hex(row.as_bytes()) == **digest)
                .count();
            (right as u64, None)
        }
        Err(error) => (0, Some(error.to_string())),
    }
}
