//! ADMINISTER KEY MANAGEMENT: rules R3–R9 and R14–R17 of O§10.
//!
//! No statement here is atomic (H49). A rotation makes its key, re-wraps the column keys, the tablespace keys
//! one by one, and moves the pointer last; each effect is durable before the next begins, and between them the
//! statement may end for good.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::parse::{Clauses, Credential, Km};
use super::{FileOpen, HsmOpen, Instance, PdbMode, Run, Sess, State, WalletType};
use crate::crypto;
use crate::disk::{Active, KeyBirth, Tablespace};
use crate::env::{host_path, now};
use crate::error::{Ora, Result, ora};
use crate::keys::{KeyMeta, Kind, Mkid};
use crate::sim::Switches;
use crate::spec::TsStatus;
use crate::wallet::{self, Body, P12, SSO, SsoKind, WalletError, WalletKey};

/// Runs the statement; its answer is always `keystore altered.`
pub fn run(run: &Run<'_>, sess: &mut Sess, statement: &Km) -> Result<()> {
    let _one = run.shared.one_key_management();
    {
        let mut instance = run.shared.lock();
        instance.count(statement.class())?;
        if instance.state == State::Started {
            ora!(1507);
        }
    }
    run.phase("begin")?;
    match statement {
        Km::CreateKeystore { dir, clauses } => create_keystore(run, sess, dir.as_deref(), clauses),
        Km::CreateAutoLogin { local, dir, clauses } => create_auto_login(run, sess, *local, dir.as_deref(), clauses),
        Km::Open { clauses } => open(run, sess, clauses),
        Km::Close { clauses } => close(run, sess, clauses),
        Km::BackupKeystore { id, to, clauses } => backup(run, sess, id.as_deref(), to.as_deref(), clauses),
        Km::AlterPassword { new, clauses } => alter_password(run, sess, new, clauses),
        Km::SetKey { clauses } => set_key(run, sess, clauses),
        Km::CreateKey { clauses } => create_key(run, sess, clauses),
        Km::UseKey { id, clauses } => use_key(run, sess, id, clauses),
        Km::Migrate { using, clauses } => migrate(run, sess, Kind::Hsm, using, clauses),
        Km::ReverseMigrate { using, clauses } => migrate(run, sess, Kind::File, using, clauses),
        Km::AddSecret { update, secret, client, clauses } => put_secret(run, sess, *update, secret, client, clauses),
        Km::DeleteSecret { client, clauses } => delete_secret(run, sess, client, clauses),
        Km::Merge { from, from_password, into, clauses } => merge(run, from, from_password.as_deref(), into, clauses),
    }
}

fn switches() -> Switches {
    crate::sim::load().switches
}

/// The password in the statement; EXTERNAL STORE is not configured anywhere in the sandbox.
fn password(clauses: &Clauses) -> Result<String> {
    match &clauses.credential {
        Some(Credential::Password(text)) => Ok(text.clone()),
        Some(Credential::ExternalStore) => ora!(28353),
        None => ora!(28358),
    }
}

fn only_root(instance: &Instance, sess: &Sess) -> Result<()> {
    if sess.con == instance.root() { Ok(()) } else { Err(Ora::new(65040)) }
}

fn keystore_dir(instance: &Instance, sess: &Sess, dir: Option<&str>) -> Result<PathBuf> {
    match dir {
        Some(dir) => Ok(host_path(dir)),
        None => instance.config(sess).dir.ok_or_else(|| Ora::new(46690)),
    }
}

/// R14.
fn create_keystore(run: &Run<'_>, sess: &Sess, dir: Option<&str>, clauses: &Clauses) -> Result<()> {
    let instance = run.shared.lock();
    only_root(&instance, sess)?;
    let path = keystore_dir(&instance, sess, dir)?;
    let password = password(clauses)?;
    drop(instance);
    if path.join(P12).exists() || path.join(SSO).exists() {
        ora!(46630);
    }
    // WALLET_ROOT's own subdirectory is made when WALLET_ROOT is there.
    if dir.is_none() && path.parent().is_some_and(Path::is_dir) {
        let _ = std::fs::create_dir(&path);
    }
    if !path.is_dir() {
        return Err(Ora::new(switches().create_without_directory));
    }
    wallet::save(&path, &password, &Body::default()).map_err(|_| Ora::new(46633))?;
    run.phase("end")
}

/// R15.
fn create_auto_login(run: &Run<'_>, sess: &Sess, local: bool, dir: Option<&str>, clauses: &Clauses) -> Result<()> {
    let instance = run.shared.lock();
    only_root(&instance, sess)?;
    let path = keystore_dir(&instance, sess, dir)?;
    drop(instance);
    let body = wallet::open(&path, &password(clauses)?).map_err(|e| match e {
        WalletError::Absent => Ora::new(46632),
        _ => Ora::new(switches().auto_login_wrong_password),
    })?;
    let kind = if local { SsoKind::Local } else { SsoKind::Auto };
    wallet::save_sso(&path, kind, &body).map_err(|_| Ora::with(46635, "creation of an auto login keystore failed"))?;
    run.phase("end")
}

/// Where a keystore is opened or closed: here, or from the root everywhere.
fn scope(instance: &Instance, sess: &Sess, clauses: &Clauses) -> Result<BTreeSet<u32>> {
    if !clauses.all {
        return Ok(BTreeSet::from([sess.con]));
    }
    only_root(instance, sess)?;
    let mut all = BTreeSet::from([sess.con]);
    all.extend(instance.pdbs.iter().filter(|(_, mode)| **mode != PdbMode::Mounted).map(|(con, _)| *con));
    Ok(all)
}

/// R3 and R4.
fn open(run: &Run<'_>, sess: &mut Sess, clauses: &Clauses) -> Result<()> {
    let switches = switches();
    let password = password(clauses)?;
    let mut guard = run.shared.lock();
    let instance = &mut *guard;
    instance.auto_open(sess);
    let config = instance.config(sess);
    let cons = scope(instance, sess, clauses)?;
    if sess.con != instance.root()
        && !instance.is_open(sess, instance.root(), Kind::File)
        && !instance.is_open(sess, instance.root(), Kind::Hsm)
    {
        ora!(46661);
    }
    let file_open = cons.iter().all(|con| instance.is_open(sess, *con, Kind::File));
    let hsm_open = cons.iter().all(|con| instance.is_open(sess, *con, Kind::Hsm));
    let wants_file = config.has(Kind::File);
    let wants_hsm = config.has(Kind::Hsm);
    if (!wants_file || file_open) && (!wants_hsm || hsm_open) {
        ora!(28354);
    }
    let dir = config.dir.clone().unwrap_or_default();
    let mut file_error = None;
    if wants_file {
        match wallet::open(&dir, &password) {
            Ok(body) => {
                if wants_hsm && switches.open_burns_hsm_login && !hsm_open {
                    let _ = hsm_login(instance, &switches, &password);
                }
                if file_open {
                    ora!(28354);
                }
                let mut containers = cons;
                let slot = if switches.file_keystore_per_session { &mut sess.file } else { &mut instance.file };
                if let Some(open) = slot.as_ref() {
                    containers.extend(&open.containers);
                }
                *slot = Some(FileOpen { dir, kind: WalletType::Password, body, containers });
                instance.write_redo(sess)?;
                drop(guard);
                return run.phase("end");
            }
            Err(WalletError::Absent) => file_error = Some(switches.open_without_file),
            Err(_) => file_error = Some(28353),
        }
    }
    // R4: the password may be the other keystore's.
    if !wants_hsm || hsm_open {
        return Err(Ora::new(file_error.unwrap_or(28353)));
    }
    hsm_login(instance, &switches, &password)?;
    let root = instance.root();
    let active = instance.container(root)?.active.clone();
    if let Some(active) = active
        && (active.kind == Kind::Hsm || switches.hsm_open_needs_active_key)
    {
        let there = instance.provider.load(switches.two_libraries())?.has(&active.mkid)?;
        if !there {
            // R3, O§3.9: the active key is on another token.
            if instance.hsm.is_none()
                && let Ok(lib) = instance.provider.load(switches.two_libraries())
            {
                lib.logout();
            }
            ora!(28353);
        }
    }
    instance.hsm.get_or_insert_with(HsmOpen::default).containers.extend(cons);
    instance.write_redo(sess)?;
    drop(guard);
    run.phase("end")
}

fn hsm_login(instance: &mut Instance, switches: &Switches, pin: &str) -> Result<()> {
    instance
        .provider
        .load(switches.two_libraries())?
        .login(pin)
        .map_err(|e| if e.code() == 28407 && switches.unreachable_hsm != 28407 { Ora::new(switches.unreachable_hsm) } else { e })
}

/// R5.
fn close(run: &Run<'_>, sess: &mut Sess, clauses: &Clauses) -> Result<()> {
    let mut guard = run.shared.lock();
    let instance = &mut *guard;
    let config = instance.config(sess);
    let cons = scope(instance, sess, clauses)?;
    let core = instance
        .control()?
        .containers
        .iter()
        .filter(|c| cons.contains(&c.con_id))
        .any(|c| instance.files.load_dictionary(c).is_ok_and(|d| d.header.is_some()))
        || instance.control()?.tablespaces.iter().any(|t| cons.contains(&t.con_id) && t.contents == "UNDO" && t.encrypted);
    if core && instance.state > State::Mounted {
        ora!(28439);
    }
    let given = match &clauses.credential {
        Some(Credential::Password(text)) => Some(text.clone()),
        _ => None,
    };
    let mut closed = false;
    if let Some(open) = instance.file_open(sess).cloned()
        && open.containers.intersection(&cons).next().is_some()
    {
        match (open.kind, &given) {
            (WalletType::Password, None) => ora!(28357),
            (WalletType::Password, Some(text)) => {
                let fits = wallet::open(&open.dir, text).is_ok();
                if !fits && config.primary == Some(Kind::File) {
                    ora!(28353);
                }
                if fits {
                    closed = true;
                }
            }
            // The context stays while its file is gone (R13).
            (_, None) if !open.dir.join(SSO).exists() => ora!(28389),
            (_, _) => closed = true,
        }
        if closed {
            for slot in [&mut instance.file, &mut sess.file] {
                if let Some(open) = slot.as_mut() {
                    open.containers.retain(|con| !cons.contains(con));
                    if open.containers.is_empty() {
                        *slot = None;
                    }
                }
            }
        }
    }
    let pin = match &instance.provider {
        crate::hsm::Provider::Loaded(lib) => lib.pin.clone(),
        _ => None,
    };
    if let Some(open) = instance.hsm.as_mut()
        && open.containers.intersection(&cons).next().is_some()
    {
        if given.is_none() && !open.auto {
            ora!(28357);
        }
        if given.is_none() || given == pin {
            open.containers.retain(|con| !cons.contains(con));
            closed = true;
            if open.containers.is_empty() {
                instance.hsm = None;
                if let crate::hsm::Provider::Loaded(lib) = &mut instance.provider {
                    lib.logout();
                }
            }
        } else if !closed {
            ora!(28353);
        }
    }
    if !closed {
        return Err(Ora::new(if given.is_none() { 28390 } else { 28365 }));
    }
    instance.sga_keys.retain(|(con, _), _| !cons.contains(con));
    drop(guard);
    run.phase("end")
}

/// O§1.5: `ewallet_<timestamp>[_<id>].p12`.
fn backup_copy(dir: &Path, to: &Path, id: Option<&str>) -> Result<()> {
    let stamp = super::sql::format_date(now(), "YYYYMMDDHH24MISSFF4");
    let name = match id {
        Some(id) => format!("ewallet_{stamp}_{id}.p12"),
        None => format!("ewallet_{stamp}.p12"),
    };
    let target = to.join(name);
    if target.exists() {
        ora!(46625);
    }
    let bytes = std::fs::read(dir.join(P12)).map_err(|_| Ora::new(46632))?;
    crate::env::write_atomic(&target, &bytes, 0o600).map_err(|_| Ora::with(46620, "backup for the keystore cannot be taken"))
}

/// R17.
fn backup(run: &Run<'_>, sess: &mut Sess, id: Option<&str>, to: Option<&str>, clauses: &Clauses) -> Result<()> {
    let instance = run.shared.lock();
    only_root(&instance, sess)?;
    let config = instance.config(sess);
    drop(instance);
    if !config.has(Kind::File) {
        return Err(match switches().backup_of_hsm {
            600 => Ora::with(
                600,
                "internal error code, arguments: [kzckmbkup: invalid keystore location], [4], [], [], [], [], [], []",
            ),
            code => Ora::new(code),
        });
    }
    let dir = config.dir.unwrap_or_default();
    let password = password(clauses)?;
    let mut body = open_body(&dir, &password)?;
    let target = to.map_or_else(|| dir.clone(), host_path);
    backup_copy(&dir, &target, id)?;
    body.fully_backed_up = true;
    write_body(run, sess, &dir, &password, &body, false)?;
    run.phase("end")
}

fn open_body(dir: &Path, password: &str) -> Result<Body> {
    wallet::open(dir, password).map_err(|e| match e {
        WalletError::Absent => Ora::new(46632),
        WalletError::Password => Ora::new(46627),
        _ => Ora::new(28353),
    })
}

/// Writes the keystore and everything that mirrors it: the open context, and the sso where FORCE refreshes it.
fn write_body(run: &Run<'_>, sess: &mut Sess, dir: &Path, password: &str, body: &Body, refresh_sso: bool) -> Result<()> {
    wallet::save(dir, password, body).map_err(|_| Ora::new(28395))?;
    if refresh_sso && let Ok((kind, _)) = wallet::open_sso(dir) {
        wallet::save_sso(dir, kind, body).map_err(|_| Ora::new(28395))?;
    }
    let mut instance = run.shared.lock();
    let mirrors = |open: &FileOpen| open.dir == dir && (open.kind == WalletType::Password || refresh_sso);
    for open in [instance.file.as_mut(), sess.file.as_mut()].into_iter().flatten() {
        if mirrors(open) {
            open.body = body.clone();
        }
    }
    Ok(())
}

fn alter_password(run: &Run<'_>, sess: &mut Sess, new: &str, clauses: &Clauses) -> Result<()> {
    let (dir, body) = {
        let instance = run.shared.lock();
        only_root(&instance, sess)?;
        let dir = instance.config(sess).dir.unwrap_or_default();
        let body = open_body(&dir, &password(clauses)?)?;
        (dir, body)
    };
    let Some(backup) = &clauses.backup else { ora!(46631) };
    backup_copy(&dir, &dir, backup.as_deref())?;
    write_body(run, sess, &dir, new, &body, clauses.force)?;
    run.phase("end")
}

/// What every change of the software keystore checks first (R6, R9).
struct SoftwareKeystore {
    dir: PathBuf,
    password: String,
    body: Body,
    /// An auto-login keystore is refreshed: the statement said FORCE KEYSTORE.
    refresh: bool,
}

fn software(instance: &mut Instance, sess: &Sess, password: &str, clauses: &Clauses) -> Result<SoftwareKeystore> {
    instance.auto_open(sess);
    let config = instance.config(sess);
    let dir = config.dir.unwrap_or_default();
    match instance.file_open(sess) {
        None if !clauses.force => ora!(28365),
        Some(open) if open.kind != WalletType::Password && !clauses.force => ora!(28417),
        _ => {}
    }
    let body = open_body(&dir, password)?;
    Ok(SoftwareKeystore { dir, password: password.into(), body, refresh: clauses.force })
}

/// R16.
fn put_secret(run: &Run<'_>, sess: &mut Sess, update: bool, secret: &str, client: &str, clauses: &Clauses) -> Result<()> {
    let password = password(clauses)?;
    let mut guard = run.shared.lock();
    only_root(&guard, sess)?;
    let mut store = software(&mut guard, sess, &password, clauses).map_err(|e| match e.code() {
        28365 => Ora::new(46670),
        _ => e,
    })?;
    drop(guard);
    let Some(backup) = &clauses.backup else { ora!(46631) };
    if store.body.secrets.contains_key(client) != update {
        return Err(Ora::new(switches().repeated_add_secret));
    }
    backup_copy(&store.dir, &store.dir, backup.as_deref())?;
    store.body.secrets.insert(client.into(), secret.into());
    write_body(run, sess, &store.dir, &store.password, &store.body, store.refresh)?;
    run.phase("end")
}

fn delete_secret(run: &Run<'_>, sess: &mut Sess, client: &str, clauses: &Clauses) -> Result<()> {
    let password = password(clauses)?;
    let mut guard = run.shared.lock();
    only_root(&guard, sess)?;
    let mut store = software(&mut guard, sess, &password, clauses)?;
    drop(guard);
    let Some(backup) = &clauses.backup else { ora!(46631) };
    if store.body.secrets.remove(client).is_none() {
        ora!(46670);
    }
    backup_copy(&store.dir, &store.dir, backup.as_deref())?;
    write_body(run, sess, &store.dir, &store.password, &store.body, store.refresh)?;
    run.phase("end")
}

fn merge(run: &Run<'_>, from: &str, from_password: Option<&str>, into: &str, clauses: &Clauses) -> Result<()> {
    let (from, into) = (host_path(from), host_path(into));
    let source = match from_password {
        Some(password) => open_body(&from, password)?,
        None => wallet::open_sso(&from).map_err(|_| Ora::new(46632))?.1,
    };
    let password = password(clauses)?;
    let mut target = open_body(&into, &password)?;
    if let Some(backup) = &clauses.backup {
        backup_copy(&into, &into, backup.as_deref())?;
    } else {
        ora!(46631);
    }
    for (id, key) in source.keys {
        target.keys.entry(id).or_insert(key);
    }
    wallet::save(&into, &password, &target).map_err(|_| Ora::new(28395))?;
    run.phase("end")
}

/// The destination of a new key, proven and ready.
enum Destination {
    File(SoftwareKeystore),
    Hsm,
}

impl Destination {
    fn kind(&self) -> Kind {
        match self {
            Destination::File(_) => Kind::File,
            Destination::Hsm => Kind::Hsm,
        }
    }
}

fn check_open(instance: &Instance, con: u32) -> Result<()> {
    if !instance.read_write(con) {
        ora!(28388);
    }
    if instance.restricted {
        ora!(28442);
    }
    if instance.control()?.planted.role.contains("LOGICAL STANDBY") {
        ora!(16280, "cannot perform requested operation on a logical standby database");
    }
    Ok(())
}

/// R6.
fn set_key(run: &Run<'_>, sess: &mut Sess, clauses: &Clauses) -> Result<()> {
    let password = password(clauses)?;
    let (mut destination, cons) = {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        check_open(instance, sess.con)?;
        let cons: Vec<u32> = if clauses.all {
            only_root(instance, sess)?;
            std::iter::once(sess.con).chain(instance.pdbs.keys().copied().filter(|con| *con > 2)).collect()
        } else {
            vec![sess.con]
        };
        let config = instance.config(sess);
        instance.auto_open(sess);
        let primary = config.primary.ok_or_else(|| Ora::new(28365))?;
        let root = instance.root();
        if let Some(active) = &instance.container(root)?.active {
            match (primary, active.kind) {
                (Kind::File, Kind::Hsm) => ora!(28414),
                (Kind::Hsm, Kind::File) => ora!(28415),
                _ => {}
            }
        }
        let destination = destination(instance, sess, primary, &password, clauses)?;
        (destination, cons)
    };
    before_file_change(&destination, clauses)?;
    let mut skipped = Vec::new();
    for con in cons {
        let (mode_fits, opened) = {
            let instance = run.shared.lock();
            (instance.read_write(con), instance.is_open(sess, con, destination.kind()))
        };
        if !mode_fits || !opened {
            skipped.push(con);
            continue;
        }
        rotate(run, sess, con, &mut destination, clauses)?;
    }
    if skipped.is_empty() { run.phase("end") } else { Err(Ora::new(46665)) }
}

fn destination(instance: &mut Instance, sess: &Sess, kind: Kind, password: &str, clauses: &Clauses) -> Result<Destination> {
    let switches = switches();
    match kind {
        Kind::File => Ok(Destination::File(software(instance, sess, password, clauses)?)),
        Kind::Hsm => {
            if !instance.is_open(sess, sess.con, Kind::Hsm) && !clauses.force {
                ora!(28365);
            }
            hsm_login(instance, &switches, password)?;
            instance.hsm.get_or_insert_with(HsmOpen::default).containers.insert(sess.con);
            Ok(Destination::Hsm)
        }
    }
}

/// WITH BACKUP, and that it is there (R6).
fn before_file_change(destination: &Destination, clauses: &Clauses) -> Result<()> {
    if let Destination::File(store) = destination {
        let Some(backup) = &clauses.backup else { ora!(46631) };
        backup_copy(&store.dir, &store.dir, backup.as_deref())?;
    }
    Ok(())
}

fn create_key(run: &Run<'_>, sess: &mut Sess, clauses: &Clauses) -> Result<()> {
    let password = password(clauses)?;
    let mut destination = {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        check_open(instance, sess.con)?;
        let primary = instance.config(sess).primary.ok_or_else(|| Ora::new(28365))?;
        destination(instance, sess, primary, &password, clauses)?
    };
    before_file_change(&destination, clauses)?;
    make_key(run, sess, sess.con, &mut destination, clauses)?;
    run.phase("end")
}

fn use_key(run: &Run<'_>, sess: &mut Sess, id: &str, clauses: &Clauses) -> Result<()> {
    let password = password(clauses)?;
    let (destination, mkid) = {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        check_open(instance, sess.con)?;
        let primary = instance.config(sess).primary.ok_or_else(|| Ora::new(28365))?;
        let destination = destination(instance, sess, primary, &password, clauses)?;
        let found = match &destination {
            Destination::File(store) => store.body.keys.keys().find(|k| k.key_id(Kind::File) == id).cloned(),
            Destination::Hsm => {
                let lib = instance.provider.load(switches().two_libraries())?;
                lib.list()?.into_iter().map(|(k, _)| k).find(|k| k.key_id(Kind::Hsm) == id)
            }
        };
        (destination, found.ok_or_else(|| Ora::new(28362))?)
    };
    before_file_change(&destination, clauses)?;
    rewrap(run, sess, sess.con, &destination, &mkid)?;
    run.phase("end")
}

/// R7 and R8: a rotation into the other keystore.
fn migrate(run: &Run<'_>, sess: &mut Sess, to: Kind, using: &str, clauses: &Clauses) -> Result<()> {
    let switches = switches();
    let password = password(clauses)?;
    let (mut destination, cons) = {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        only_root(instance, sess)?;
        check_open(instance, sess.con)?;
        instance.auto_open(sess);
        let active = instance.container(sess.con)?.active.clone();
        let destination = match to {
            Kind::File => reverse(instance, sess, &switches, &password, using, clauses, active)?,
            Kind::Hsm => forward(instance, sess, &switches, &password, using, clauses, active)?,
        };
        let mut cons = vec![sess.con];
        if switches.migrate_rotates_pdbs {
            cons.extend(
                instance
                    .pdbs
                    .iter()
                    .filter(|(con, mode)| {
                        **con > 2
                            && **mode == PdbMode::ReadWrite
                            && instance.container(**con).is_ok_and(|c| !c.isolated)
                            && instance.is_open(sess, **con, Kind::File)
                            && instance.is_open(sess, **con, Kind::Hsm)
                    })
                    .map(|(con, _)| *con),
            );
        }
        (destination, cons)
    };
    if let Some(id) = &clauses.backup {
        if to == Kind::Hsm && switches.with_backup_refused {
            ora!(46623);
        }
        let dir = run.shared.lock().config(sess).dir.unwrap_or_default();
        backup_copy(&dir, &dir, id.as_deref())?;
    }
    for con in cons {
        let has_key = run.shared.lock().container(con)?.active.is_some();
        if has_key || con == sess.con {
            rotate(run, sess, con, &mut destination, clauses)?;
        }
    }
    if to == Kind::File {
        // O§1.2: "Switching out all online logs for migrating from HSM to wallet."
        let groups = run.shared.lock().control()?.logs.len();
        for _ in 1..groups {
            super::ddl::switch(run, sess)?;
        }
        // They are out when they are archived: a stuck archiver holds the statement (H21).
        while !run.shared.lock().all_archived()? {
            run.wait(50)?;
        }
        run.phase("logs")?;
    }
    run.phase("end")
}

fn reverse(
    instance: &mut Instance,
    sess: &Sess,
    switches: &Switches,
    password: &str,
    using: &str,
    clauses: &Clauses,
    active: Option<Active>,
) -> Result<Destination> {
    let config = instance.config(sess);
    if config.primary != Some(Kind::File) {
        ora!(28414);
    }
    match active {
        Some(Active { kind: Kind::File, .. }) => {
            return Err(Ora::new(switches.repeated_reverse_migrate));
        }
        None => ora!(28361),
        Some(_) => {}
    }
    let store = software(instance, sess, password, clauses)?;
    if clauses.backup.is_none() && !switches.reverse_migrate_without_backup {
        ora!(46631);
    }
    hsm_login(instance, switches, using)?;
    let root = sess.con;
    let everywhere: BTreeSet<u32> = std::iter::once(root).chain(instance.pdbs.keys().copied()).collect();
    instance.hsm.get_or_insert_with(HsmOpen::default).containers.extend(everywhere);
    Ok(Destination::File(store))
}

fn forward(
    instance: &mut Instance,
    sess: &Sess,
    switches: &Switches,
    password: &str,
    using: &str,
    clauses: &Clauses,
    active: Option<Active>,
) -> Result<Destination> {
    let config = instance.config(sess);
    if config.primary != Some(Kind::Hsm) {
        ora!(28415);
    }
    if let Some(Active { kind: Kind::Hsm, .. }) = active {
        return Err(Ora::new(switches.repeated_migrate));
    }
    if !config.has(Kind::File) {
        return Err(Ora::new(switches.migrate_without_file));
    }
    if active.is_some() {
        // The source must be open with its password (R9), and USING must fit it.
        match instance.file_open(sess) {
            None if !clauses.force => ora!(28365),
            Some(open) if open.kind != WalletType::Password && !clauses.force => ora!(28417),
            _ => {}
        }
        let dir = config.dir.unwrap_or_default();
        let body = open_body(&dir, using)?;
        if instance.file_open(sess).is_none() {
            instance.file = Some(FileOpen { dir, kind: WalletType::Password, body, containers: BTreeSet::from([sess.con]) });
        }
    }
    hsm_login(instance, switches, password)?;
    let everywhere: BTreeSet<u32> = std::iter::once(sess.con).chain(instance.pdbs.keys().copied()).collect();
    instance.hsm.get_or_insert_with(HsmOpen::default).containers.extend(everywhere);
    let ignore = sess.hello.environment.get("CLOUDHSM_IGNORE_CKA_MODIFIABLE_FALSE");
    if switches.client_sdk == 3 && ignore.map(String::as_str) != Some("TRUE") {
        ora!(28407, "Hardware Security Module failed with PKCS#11 error CKR_ATTRIBUTE_VALUE_INVALID(19)");
    }
    Ok(Destination::Hsm)
}

/// A new master key for a container, and everything of the container moved to it.
fn rotate(run: &Run<'_>, sess: &mut Sess, con: u32, destination: &mut Destination, clauses: &Clauses) -> Result<()> {
    let mkid = make_key(run, sess, con, destination, clauses)?;
    run.phase("key")?;
    rewrap(run, sess, con, destination, &mkid)
}

fn store_name(instance: &Instance, kind: Kind) -> String {
    match kind {
        Kind::File => "software".into(),
        Kind::Hsm => instance.provider.vendor().map_or("hsm", |v| v.name()).into(),
    }
}

fn make_key(run: &Run<'_>, sess: &mut Sess, con: u32, destination: &mut Destination, clauses: &Clauses) -> Result<Mkid> {
    let mkid = Mkid::random();
    let mut instance = run.shared.lock();
    let container = instance.container(con)?.clone();
    let meta = KeyMeta {
        created: now(),
        con_id: con,
        container: container.name.clone(),
        pdb_guid: container.guid.clone(),
        db_name: instance.control()?.db_name.clone(),
        dbid: container.dbid,
        tag: clauses.tag.clone(),
    };
    let birth = KeyBirth {
        mkid: mkid.clone(),
        kind: destination.kind(),
        store: store_name(&instance, destination.kind()),
        container: container.name,
    };
    instance.ledger.keys.push(birth);
    instance.save_ledger()?;
    match destination {
        Destination::Hsm => {
            instance.provider.load(switches().two_libraries())?.generate(&mkid, &meta)?;
        }
        Destination::File(store) => {
            let key: [u8; 32] = crypto::random();
            store.body.keys.insert(mkid.clone(), WalletKey { key: hex::encode(key), meta });
            store.body.fully_backed_up = false;
            drop(instance);
            write_body(run, sess, &store.dir, &store.password, &store.body, store.refresh)?;
        }
    }
    Ok(mkid)
}

/// Columns, tablespaces, pointer: each durable before the next (H49).
fn rewrap(run: &Run<'_>, sess: &Sess, con: u32, destination: &Destination, mkid: &Mkid) -> Result<()> {
    let kind = destination.kind();
    let body = match destination {
        Destination::File(store) => Some(&store.body),
        Destination::Hsm => None,
    };
    {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        let container = instance.container(con)?.clone();
        let mut dictionary = instance.files.load_dictionary(&container)?;
        for row in &mut dictionary.enc {
            let key = instance.unwrap(sess, con, &row.key).map_err(|e| Ora::new(28396).and(e))?;
            row.key = instance.wrap(kind, mkid, body, &key)?;
        }
        if let Some(header) = &dictionary.header {
            let key = instance.unwrap(sess, con, header)?;
            dictionary.header = Some(instance.wrap(kind, mkid, body, &key)?);
        }
        instance.files.save_dictionary(&container, &dictionary)?;
    }
    run.phase("columns")?;
    let spaces: Vec<Tablespace> = run
        .shared
        .lock()
        .control()?
        .tablespaces
        .iter()
        // O§7.5: read-only and offline tablespaces stay on the old key.
        .filter(|t| t.con_id == con && t.encrypted && t.status == TsStatus::Online && t.name != "SYSTEM")
        .cloned()
        .collect();
    for (i, ts) in spaces.iter().enumerate() {
        {
            let mut guard = run.shared.lock();
            let instance = &mut *guard;
            let mut data = instance.files.load_data(ts)?;
            let Some(header) = &data.header else { continue };
            let key = instance.unwrap(sess, con, header)?;
            data.header = Some(instance.wrap(kind, mkid, body, &key)?);
            instance.files.save_data(ts, &data)?;
        }
        if i == 0 {
            run.phase("tablespace")?;
        }
    }
    run.phase("tablespaces")?;
    {
        let mut guard = run.shared.lock();
        let instance = &mut *guard;
        let container = instance.container(con)?.clone();
        let key = match &container.db_key {
            Some(old) => instance.unwrap(sess, con, old)?,
            None => crypto::random(),
        };
        let wrapped = instance.wrap(kind, mkid, body, &key)?;
        let store = store_name(instance, kind);
        let container = instance.container_mut(con)?;
        container.migrated |= container.active.as_ref().is_some_and(|a| a.kind != kind);
        container.db_key = Some(wrapped);
        container.active = Some(Active { mkid: mkid.clone(), kind, store });
        container.activations.insert(mkid.clone(), now());
        instance.save_control()?;
        instance.write_redo(sess)?;
    }
    run.phase("pointer")
}
