//! Rules over one database that is to be migrated, or whose migration is to be undone.

use super::*;
use tde2hsm_protocol::survey::{Access, InstanceState, WalletRow};

/// What Secrets Manager takes (H5).
const ESCROW_LIMIT: u64 = 64 * 1024;
const RECOVERY_AREA: u32 = 90;
/// PDB$SEED: never opened read-write, never rekeyed.
const SEED: u32 = 2;

pub(super) fn secret_unnamed(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let mut need = |name: &str, choice: Option<&SecretChoice>| {
        if choice.is_none() {
            out.say(format!("no secret `{name}` is named for it"));
        }
    };
    need("software", d.options.software);
    need("cloudhsm", d.options.cloudhsm);
    if d.class == Class::OldHsm {
        need("old_hsm", d.options.old_hsm);
    }
}

pub(super) fn version(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let version = &d.facts.version;
    let supported = version.starts_with("12.2.") || version.starts_with("19.");
    if !supported && !hsm_on_112(d) {
        out.say(format!("it is version {version}"));
    }
}

fn hsm_on_112(d: &DatabaseContext<'_>) -> bool {
    d.facts.version.starts_with("11.2.") && d.class == Class::OldHsm
}

pub(super) fn hsm_112(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if hsm_on_112(d) {
        out.say(format!("it is version {} with its keys in an HSM", d.facts.version));
    }
}

pub(super) fn rac(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.rac {
        out.say("it is a database of Real Application Clusters");
    }
}

pub(super) fn data_guard(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.data_guard {
        out.say("it has a standby destination or a Data Guard configuration");
    }
}

pub(super) fn logical_standby(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.role == "LOGICAL STANDBY" {
        out.say("it is a logical standby database");
    }
}

pub(super) fn role(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.role != "PRIMARY" && d.facts.role != "LOGICAL STANDBY" {
        out.say(format!("its role is {}", d.facts.role));
    }
}

pub(super) fn isolated_pdb(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    for row in d.facts.wallet.iter().filter(|r| r.keystore_mode.as_deref() == Some("ISOLATED")) {
        match container(d, row.con_id) {
            Some(name) => out.of_container(&name, "it has a keystore of its own"),
            None => out.say(format!("container {} has a keystore of its own", row.con_id)),
        }
    }
}

fn container(d: &DatabaseContext<'_>, con_id: u32) -> Option<ContainerName> {
    d.facts.containers.iter().find(|c| c.con_id == con_id).map(|c| c.name.clone())
}

pub(super) fn asm_keystore(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let configured = match &d.database.keystore {
        KeystoreConfig::Sqlnet { directory, .. } => directory.as_deref(),
        KeystoreConfig::WalletRoot { wallet_root, .. } => Some(wallet_root.as_str()),
        KeystoreConfig::None | KeystoreConfig::Unreadable { .. } => None,
    };
    if let Some(path) = configured.filter(|p| p.starts_with('+')) {
        out.say(format!("its keystore is in ASM, at `{path}`"));
    }
}

pub(super) fn mode(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.database.state != InstanceState::OpenReadWrite || d.facts.open_mode != "READ WRITE" {
        out.say(format!("its open mode is {}", d.facts.open_mode));
    }
}

pub(super) fn pdb_mode(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    for pdb in d.facts.containers.iter().filter(|c| c.con_id > SEED && c.open_mode != "READ WRITE") {
        out.of_container(&pdb.name, format!("its open mode is {}", pdb.open_mode));
    }
}

pub(super) fn restricted(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.restricted {
        out.say("it is in restricted session");
    }
    for pdb in d.facts.containers.iter().filter(|c| c.con_id > SEED && c.restricted) {
        out.of_container(&pdb.name, "it is in restricted session");
    }
}

pub(super) fn keystore_configuration(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let hsm = |text: &str| text.to_ascii_uppercase().contains("HSM");
    let hsm_keys = matches!(d.class, Class::OldHsm | Class::OnCloudHsm);
    match &d.database.keystore {
        KeystoreConfig::None => out.say("it has keys, and no keystore is configured"),
        KeystoreConfig::Unreadable { why } => out.say(why.clone()),
        KeystoreConfig::Sqlnet { file, method, .. } if d.class.in_scope() && hsm(method) != hsm_keys => {
            out.say(format!("`{file}` says METHOD={method}, which is not where its keys are"));
        }
        KeystoreConfig::WalletRoot { tde_configuration: None, .. } => out.say("WALLET_ROOT is set and TDE_CONFIGURATION is not"),
        KeystoreConfig::WalletRoot { tde_configuration: Some(value), .. } => {
            let value = value.to_ascii_uppercase();
            let value = value.rsplit('=').next().unwrap_or_default();
            let primary = value.split('|').next().unwrap_or_default();
            if d.class.in_scope() && (primary == "HSM") != hsm_keys {
                out.say(format!("TDE_CONFIGURATION is {value}, which is not where its keys are"));
            } else if value.contains("OKV") {
                out.say("TDE_CONFIGURATION names Oracle Key Vault");
            }
        }
        KeystoreConfig::Sqlnet { .. } => {}
    }
}

/// The keystore that has the active keys must be open in every container that has one.
pub(super) fn keystore_closed(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let kind = match d.class {
        Class::OldHsm | Class::OnCloudHsm => "HSM",
        Class::Software => "FILE",
        _ => return,
    };
    let rows: Vec<&WalletRow> = d.facts.wallet.iter().filter(|r| r.wrl_type == kind).collect();
    if rows.is_empty() {
        out.say(format!("V$ENCRYPTION_WALLET has no row of type {kind}"));
    }
    for row in rows.into_iter().filter(|r| r.con_id != SEED && r.status != "OPEN") {
        let has_key = d.facts.containers.iter().any(|c| c.con_id == row.con_id && c.key.is_some()) || row.con_id <= 1;
        if !has_key && row.status == "OPEN_NO_MASTER_KEY" {
            continue;
        }
        match container(d, row.con_id) {
            Some(name) => out.of_container(&name, format!("its keystore of type {kind} is {}", row.status)),
            None => out.say(format!("its keystore of type {kind} is {}", row.status)),
        }
    }
}

/// H16: one `sqlnet.ora` speaks for every SID that reads it.
pub(super) fn sqlnet_shared(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let KeystoreConfig::Sqlnet { file, directory, shared_by, .. } = &d.database.keystore else { return };
    let others: Vec<&str> = shared_by.iter().filter(|sid| **sid != d.database.sid).map(Sid::as_str).collect();
    // Without a DIRECTORY the interim keystore gets one of its own for each SID.
    let one_for_all = directory.as_deref().is_some_and(|dir| !dir.contains("ORACLE_SID"));
    if !others.is_empty() && one_for_all {
        out.say(format!("`{file}` is read by {} as well, and its DIRECTORY does not hold `$ORACLE_SID`", others.join(", ")));
    }
}

pub(super) fn keystore_ephemeral(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let Some(dir) = &d.database.keystore_dir else { return };
    let within = |path: &str| path == "/" || dir == path || dir.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let place = d.host.survey.filesystems.iter().filter(|fs| within(&fs.path)).max_by_key(|fs| fs.path.len());
    match place {
        Some(fs) if fs.ephemeral => out.say(format!("its keystore directory `{dir}` lies on {} at `{}`", fs.kind, fs.path)),
        Some(_) => {}
        None => out.say(format!("on which storage its keystore directory `{dir}` lies is not known")),
    }
}

pub(super) fn keystore_large(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let kept = |name: &str| name.ends_with(".p12") || name.ends_with(".sso");
    for file in d.database.keystore_files.iter().filter(|f| kept(&f.name) && f.size > ESCROW_LIMIT) {
        out.say(format!("`{}` has {} bytes", file.name, file.size));
    }
}

/// H3: a key that no statement re-wraps cannot follow, and what is under it dies with its HSM.
pub(super) fn old_key_tablespace_hsm(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if matches!(d.class, Class::OldHsm | Class::OnCloudHsm) {
        unwritable(d, |message| out.say(message));
    }
}

pub(super) fn old_key_tablespace(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.class == Class::Software {
        unwritable(d, |message| out.say(message));
    }
}

fn unwritable(d: &DatabaseContext<'_>, mut say: impl FnMut(String)) {
    for tablespace in &d.facts.tablespaces {
        let how = match tablespace.access {
            Access::ReadWrite => continue,
            Access::ReadOnly => "read-only",
            Access::Offline => "offline",
        };
        let place = container(d, tablespace.con_id).map_or_else(String::new, |name| format!(" of {name}"));
        say(format!("tablespace {}{place} is {how} and under key {}", tablespace.name, tablespace.key));
    }
}

pub(super) fn tablespace_status(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    for tablespace in d.facts.tablespaces.iter().filter(|t| t.status != "NORMAL") {
        out.say(format!("tablespace {} has STATUS {}", tablespace.name, tablespace.status));
    }
}

pub(super) fn backup_missing(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    let hours = i64::from(d.options.backup_hours);
    if hours == 0 {
        return;
    }
    match d.facts.last_full_backup {
        None => out.say("no full backup is known"),
        Some(end) if d.all.now.since(end) > hours * 3600 => {
            out.say(format!("its newest full backup is {} hours old; {hours} are allowed", d.all.now.since(end) / 3600));
        }
        Some(_) => {}
    }
}

pub(super) fn noarchivelog(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.log_mode != "ARCHIVELOG" {
        out.say(format!("its log mode is {}", d.facts.log_mode));
    }
}

pub(super) fn archiver_stuck(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.blockers.archiver_stuck {
        out.say("its archiver is stuck");
    }
}

pub(super) fn recovery_area_full(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if let Some(used) = d.facts.blockers.recovery_area_used.filter(|used| *used >= RECOVERY_AREA) {
        out.say(format!("{used} % of its recovery area are used and cannot be reclaimed"));
    }
}

pub(super) fn restore_point(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    for point in d.facts.restore_points.iter().filter(|p| p.guaranteed) {
        out.say(format!("restore point {} is guaranteed", point.name));
    }
}

/// H2: flashback logs under a key of the old HSM keep the redo from ever being clean.
pub(super) fn flashback(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.flashback {
        match d.class {
            Class::OldHsm | Class::OnCloudHsm => out.say("flashback is on: its logs need the former key"),
            _ => out.warn("flashback is on: its logs need the software keystore"),
        }
    }
}

pub(super) fn capture(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.capture {
        out.say("GoldenGate, LogMiner or Streams reads its redo");
    }
}

pub(super) fn datafiles_offline(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    count(out, d.facts.blockers.offline_datafiles, "datafiles are offline");
}

pub(super) fn files_need_recovery(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    count(out, d.facts.blockers.files_needing_recovery, "files need recovery");
}

pub(super) fn backup_mode(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    count(out, d.facts.blockers.backup_mode_files, "datafiles are in backup mode");
}

pub(super) fn long_transactions(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    count(out, d.facts.blockers.long_transactions, "long transactions are at work");
}

pub(super) fn jobs_running(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    count(out, d.facts.blockers.rman_jobs, "RMAN jobs are at work");
    count(out, d.facts.blockers.data_pump_jobs, "Data Pump jobs are at work");
}

fn count(out: &mut Out<'_>, n: u32, what: &str) {
    if n > 0 {
        out.say(format!("{n} {what}"));
    }
}

pub(super) fn auto_open_undecided(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.opens_by_itself && d.options.auto_open.is_none() {
        out.say("its keystore opens by itself after a restart today, and the fleet file does not say whether it is to");
    }
}

pub(super) fn auto_open_lost(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.opens_by_itself && d.options.auto_open == Some(AutoOpen::Typed) {
        out.say("its keystore opens by itself after a restart today; after the migration someone types the password");
    }
}

pub(super) fn spfile_none(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.facts.spfile.as_deref().is_none_or(str::is_empty) {
        out.say("it runs without an spfile");
    }
}

pub(super) fn spfile_pending(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if !d.facts.pending.is_empty() {
        out.say(format!("a restart would change {}", d.facts.pending.join(", ")));
    }
}

pub(super) fn owner_root(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.database.owner.uid == 0 {
        out.say(format!("`{}/bin/oracle` belongs to root", d.database.home));
    }
}

pub(super) fn home_replaced(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.database.pmon.as_ref().is_some_and(|p| p.binary_replaced) {
        out.say(format!("`{}/bin/oracle` was replaced after the instance started", d.database.home));
    }
}

pub(super) fn environment_differs(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if !d.database.in_oratab {
        out.say("it is not in `/etc/oratab`");
    }
    let Some(pmon) = &d.database.pmon else { return };
    if let Some(home) =
        pmon.oracle_home.as_ref().filter(|home| home.trim_end_matches('/') != d.database.home.trim_end_matches('/'))
    {
        out.say(format!("its instance runs with ORACLE_HOME `{home}`, not `{}`", d.database.home));
    }
    if let Some(admin) =
        pmon.tns_admin.as_ref().filter(|dir| dir.trim_end_matches('/') != d.database.tns_admin.trim_end_matches('/'))
    {
        out.say(format!("its instance runs with TNS_ADMIN `{admin}`, not `{}`", d.database.tns_admin));
    }
}

pub(super) fn host_cgroup(d: &DatabaseContext<'_>, out: &mut Out<'_>) {
    if d.database.pmon.as_ref().is_some_and(|p| p.cgroup.contains("amazon-ssm-agent")) {
        out.say("its instance runs in the SSM agent's cgroup");
    }
}
