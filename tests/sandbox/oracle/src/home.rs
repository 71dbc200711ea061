//! Installs an ORACLE_HOME into a host's root directory.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::spec::{Binaries, HomeSpec};

#[derive(Debug, thiserror::Error)]
#[error("cannot install `{path}`")]
pub struct InstallError {
    pub path: PathBuf,
    #[source]
    pub source: std::io::Error,
}

/// Mode of `bin/oracle`: setuid, as Oracle's installer leaves it.
const ORACLE_MODE: u32 = 0o6751;

/// Puts programs and directories of the home below `root`, which stands for `/` of the host.
pub fn install_home(root: &Path, spec: &HomeSpec, binaries: &Binaries) -> Result<(), InstallError> {
    let home = below(root, &spec.home);
    for dir in ["bin", "dbs", "network/admin", "sqlplus/admin"] {
        make_dirs(root, &home.join(dir), spec.owner)?;
    }
    for dir in ["admin", "diag"] {
        make_dirs(root, &below(root, &spec.base).join(dir), spec.owner)?;
    }
    for dir in ["/u01/oradata", "/u01/fast_recovery_area"] {
        make_dirs(root, &below(root, dir), spec.owner)?;
    }
    place(&binaries.oracle, &home.join("bin/oracle"), ORACLE_MODE, spec.owner, binaries.link)?;
    place(&binaries.sqlplus, &home.join("bin/sqlplus"), 0o751, spec.owner, binaries.link)?;
    let sockets = below(root, "/var/tmp/.oracle");
    std::fs::create_dir_all(&sockets).map_err(at(&sockets))?;
    std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o1777)).map_err(at(&sockets))?;
    let oratab = below(root, "/etc/oratab");
    if !oratab.exists() {
        let etc = below(root, "/etc");
        std::fs::create_dir_all(&etc).map_err(at(&etc))?;
        std::fs::write(&oratab, "# SID:ORACLE_HOME:Y|N\n#\n").map_err(at(&oratab))?;
        own(&oratab, 0o664, spec.owner)?;
    }
    Ok(())
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.to_path_buf();
    move |source| InstallError { path, source }
}

fn own(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), InstallError> {
    // chown drops the setuid bit, so the mode comes last.
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid)).map_err(at(path))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(at(path))
}

/// Makes a directory; every one that was missing below the root belongs to the owner.
fn make_dirs(root: &Path, dir: &Path, owner: Option<(u32, u32)>) -> Result<(), InstallError> {
    if dir.is_dir() || dir == root {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(root, parent, owner)?;
    }
    std::fs::create_dir(dir).map_err(at(dir))?;
    own(dir, 0o755, owner)
}

fn place(from: &Path, to: &Path, mode: u32, owner: Option<(u32, u32)>, link: bool) -> Result<(), InstallError> {
    let _ = std::fs::remove_file(to);
    if !link || std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).map_err(at(to))?;
    }
    own(to, mode, owner)
}
