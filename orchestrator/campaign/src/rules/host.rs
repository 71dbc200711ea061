//! Rules over a host as it says of itself: its system, its file systems, the provider it shares.

use super::*;
use crate::fleet::MatrixCell;
use tde2hsm_protocol::survey::{InstanceState, Os};

/// Backups, packages and the runner's journal fit into this with room to spare.
const SPACE: u64 = 256 * 1024 * 1024;

pub(super) fn survey_missing(c: &Context<'_>, instance: &InstanceId, out: &mut Out<'_>) {
    if !c.surveys.iter().any(|s| s.instance == *instance) {
        out.say("the host has not been surveyed");
    }
}

pub(super) fn survey_old(h: &HostContext<'_>, out: &mut Out<'_>) {
    let age = h.all.now.since(h.survey.taken_at);
    if age > i64::from(h.all.fleet.options.survey_hours) * 3600 {
        out.say(format!("the survey is {} hours old", age / 3600));
    }
}

pub(super) fn survey_identity(h: &HostContext<'_>, out: &mut Out<'_>) {
    let fleet = &h.all.fleet.fleet;
    if h.survey.account != fleet.account || h.survey.region != fleet.region {
        out.say(format!("the host says it is of {} in {}", h.survey.account, h.survey.region));
    }
}

pub(super) fn fact_unknown(h: &HostContext<'_>, out: &mut Out<'_>) {
    for unreadable in &h.survey.unreadable {
        out.say(format!("{}: {}", unreadable.what, unreadable.why));
    }
    for (database, class) in &h.classes {
        if class.in_scope() && database.pmon.is_none() {
            out.of_database(&database.sid, "its pmon process could not be looked at");
        }
    }
}

pub(super) fn clusterware(h: &HostContext<'_>, out: &mut Out<'_>) {
    if h.survey.clusterware {
        out.say("Clusterware or Oracle Restart is configured on the host");
    }
}

pub(super) fn sdk3(h: &HostContext<'_>, out: &mut Out<'_>) {
    for package in h.survey.provider.packages.iter().filter(|p| p.starts_with("cloudhsm-client")) {
        out.say(format!("`{package}` is installed"));
    }
}

/// How the manifest names the operating system a client package is for: `rhel8`, `amzn2023`, `ubuntu22.04`. Rebuilds of Red
/// Hat's system take its package. host-runner names it the same way.
pub fn package_os(os: &Os) -> String {
    let major = os.version.split('.').next().unwrap_or_default();
    match os.id.as_str() {
        "rhel" | "centos" | "ol" | "rocky" | "almalinux" => format!("rhel{major}"),
        "ubuntu" => format!("ubuntu{}", os.version),
        id => format!("{id}{major}"),
    }
}

pub(super) fn os_package(h: &HostContext<'_>, out: &mut Out<'_>) {
    let Some(document) = &h.all.facts.document else { return };
    let wanted = package_os(&h.survey.os);
    if !document.packages.contains(&wanted) {
        out.say(format!("the document brings no client package for `{wanted}` ({} {})", h.survey.os.id, h.survey.os.version));
    }
}

/// Cells that AWS has given its word for (`O§6.1`): 19c, Client SDK 5.9 or later, either HSM type, these systems.
pub(super) fn matrix(h: &HostContext<'_>, out: &mut Out<'_>) {
    let Some(cluster) = h.all.facts.cluster(&h.all.fleet.cluster.id) else { return };
    let os = &h.survey.os;
    let major = os.version.split('.').next().unwrap_or_default();
    let minor: u32 = os.version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0);
    let system = match (os.id.as_str(), major) {
        ("amzn", "2" | "2023") | ("rhel", "10") | ("ubuntu", "22" | "24") => true,
        ("rhel", "8") => minor >= 3,
        ("rhel", "9") => minor >= 2,
        _ => false,
    };
    let mut cells: Vec<(String, bool)> = Vec::new();
    for (database, class) in &h.classes {
        let Some(facts) = database.facts.as_ref().filter(|_| matches!(class, Class::OldHsm | Class::Software)) else { continue };
        let mut parts = facts.version.split('.');
        let release = match (parts.next(), parts.next()) {
            (Some("12"), Some(minor)) => format!("12.{minor}"),
            (Some(release), _) => release.to_owned(),
            (None, _) => "unknown".to_owned(),
        };
        let word = system && release == "19" && matches!(cluster.hsm_type.as_str(), "hsm1.medium" | "hsm2m.medium");
        let cell = format!("oracle-{release}/sdk-5/{}/{}-{major}", cluster.hsm_type, os.id);
        if !cells.iter().any(|(c, _)| *c == cell) {
            cells.push((cell, word));
        }
    }
    for (cell, _) in cells.into_iter().filter(|(_, word)| !word) {
        match MatrixCell::new(cell.clone()) {
            Ok(named) if h.all.fleet.options.oracle_matrix.contains(&named) => {
                out.warn_with_way_out(
                    format!("`{cell}` is used on the fleet file's word alone"),
                    format!("add `{}` to `accept` in `[options]` to have read this", Code::MATRIX),
                );
            }
            _ => out.with_way_out(
                format!("AWS has not given its word for `{cell}`"),
                format!("once someone has tested it, add `oracle_matrix = [\"{cell}\"]` to `[options]`"),
            ),
        }
    }
}

pub(super) fn space(h: &HostContext<'_>, out: &mut Out<'_>) {
    for fs in h.survey.filesystems.iter().filter(|fs| fs.free_bytes < SPACE) {
        out.say(format!("{} MiB are free for `{}`; {} are needed", fs.free_bytes >> 20, fs.path, SPACE >> 20));
    }
}

pub(super) fn noexec(h: &HostContext<'_>, out: &mut Out<'_>) {
    let runs = |path: &str| ["/opt", "/var/lib/amazon/ssm", "/var/lib/tde2hsm"].iter().any(|p| path.starts_with(p));
    for fs in h.survey.filesystems.iter().filter(|fs| fs.noexec && runs(&fs.path)) {
        out.say(format!("`{}` is mounted noexec", fs.path));
    }
}

pub(super) fn read_only_mount(h: &HostContext<'_>, out: &mut Out<'_>) {
    for fs in h.survey.filesystems.iter().filter(|fs| fs.readonly) {
        out.say(format!("`{}` is mounted read-only", fs.path));
    }
}

pub(super) fn autostart(h: &HostContext<'_>, out: &mut Out<'_>) {
    for name in &h.survey.autostarts {
        out.say(format!("`{name}` may start a database during the swap"));
    }
}

pub(super) fn libraries(h: &HostContext<'_>, out: &mut Out<'_>) {
    let found = &h.survey.provider.libraries;
    let needed = h.classes.iter().any(|(_, class)| matches!(class, Class::OldHsm | Class::OnCloudHsm));
    if found.len() > 1 {
        let paths: Vec<&str> = found.iter().map(|l| l.path.as_str()).collect();
        out.say(format!("{} libraries lie in the tree: {}", found.len(), paths.join(", ")));
    } else if found.is_empty() && needed {
        out.say("a database has its keys in an HSM, and no library lies in the tree");
    }
}

pub(super) fn library_deleted(h: &HostContext<'_>, out: &mut Out<'_>) {
    for mapping in h.survey.provider.mapped.iter().filter(|m| m.deleted) {
        let who = mapping.sid.as_ref().map_or_else(|| "no database".to_owned(), |s| format!("`{s}`"));
        out.say(format!("process {} of {who} maps `{}`, which is gone from its path", mapping.pid, mapping.path));
    }
}

pub(super) fn library_stranger(h: &HostContext<'_>, out: &mut Out<'_>) {
    for mapping in &h.survey.provider.mapped {
        let known = mapping.sid.as_ref().is_some_and(|sid| h.survey.database(sid).is_some());
        if !known {
            out.say(format!("process {} maps `{}` and is of no database of the survey", mapping.pid, mapping.path));
        }
    }
}

pub(super) fn cloudhsm_in_use(h: &HostContext<'_>, out: &mut Out<'_>) {
    if h.survey.provider.cloudhsm_mapped && !h.classes.iter().any(|(_, c)| *c == Class::OnCloudHsm) {
        out.say("a process maps a file of `/opt/cloudhsm`, and no database of the host has its keys there");
    }
}

pub(super) fn keystore_shared(h: &HostContext<'_>, out: &mut Out<'_>) {
    for (at, (database, _)) in h.classes.iter().enumerate() {
        let Some(dir) = &database.keystore_dir else { continue };
        let before = h.classes.iter().take(at).map(|(d, _)| *d);
        if let Some(other) = before.into_iter().find(|d| d.keystore_dir.as_ref() == Some(dir)) {
            out.of_database(&database.sid, format!("`{}` uses the same keystore directory `{dir}`", other.sid));
        }
    }
}

pub(super) fn database_down(h: &HostContext<'_>, out: &mut Out<'_>) {
    for (database, class) in &h.classes {
        if *class == Class::Down {
            let how = match database.state {
                InstanceState::Down => "is down",
                InstanceState::Unreadable => "does not answer",
                InstanceState::Started | InstanceState::Mounted => "is not open",
                InstanceState::OpenReadOnly | InstanceState::OpenReadWrite => "could not be asked",
            };
            out.of_database(&database.sid, format!("it {how}, and is configured for a keystore or maps the provider"));
        }
    }
}

pub(super) fn key_store_unknown(h: &HostContext<'_>, out: &mut Out<'_>) {
    for (database, class) in &h.classes {
        if *class == Class::Unclear {
            out.of_database(&database.sid, "the store of an active key is not known, or there is none where one should be");
        }
    }
}

pub(super) fn keys_mixed(h: &HostContext<'_>, out: &mut Out<'_>) {
    for (database, class) in &h.classes {
        if *class == Class::Mixed {
            out.of_database(&database.sid, "some active keys are in an HSM and some in a software keystore");
        }
    }
}

pub(super) fn already_migrated(h: &HostContext<'_>, out: &mut Out<'_>) {
    for (database, class) in &h.classes {
        if *class == Class::OnCloudHsm {
            out.of_database(&database.sid, "its active keys are in CloudHSM already");
        }
    }
}

pub(super) fn nothing_to_do(h: &HostContext<'_>, out: &mut Out<'_>) {
    if h.classes.iter().all(|(_, class)| matches!(class, Class::Plain | Class::OnCloudHsm)) {
        out.say("no database of the host has keys to migrate");
    }
}

/// A plan to undo is about what the plan before it did, and about nothing else.
pub(super) fn not_to_undo(h: &HostContext<'_>, out: &mut Out<'_>) {
    let Some(done) = h.all.undo_of else { return };
    match done.host(h.instance) {
        None => out.say("the plan to undo does not name the host"),
        Some(planned) => {
            for database in planned.databases.iter().filter(|d| h.survey.database(&d.order.sid).is_none()) {
                out.of_database(&database.order.sid, "the plan to undo names the database, and the host has none of that name");
            }
        }
    }
}
