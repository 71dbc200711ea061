//! Where this host's files are and what time it is.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use sandbox_shim::host_path;

/// A path of the host as Oracle would name it: the test prefix taken off again.
#[must_use]
pub fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    match std::env::var(sandbox_shim::ROOT_ENV) {
        Ok(root) if !root.is_empty() => match text.strip_prefix(root.trim_end_matches('/')) {
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => text,
        },
        _ => text,
    }
}

/// A moment as the Julian day number SQL works with: date arithmetic in days is then plain arithmetic.
#[must_use]
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH_JULIAN + (since.as_secs_f64() + crate::sim::clock_offset_secs()) / 86_400.0
}

/// 1970-01-01T00:00 as a Julian day.
pub const UNIX_EPOCH_JULIAN: f64 = 2_440_587.5;

/// Where the Unix sockets of running instances lie; a name depends on the *literal* ORACLE_HOME, so that a
/// trailing slash finds another instance, as Oracle's shared-memory key does (O§5.3, ORA-01034).
#[must_use]
pub fn instance_socket(home: &str, sid: &str) -> PathBuf {
    use sha2::Digest as _;
    let hash = hex::encode(&sha2::Sha256::digest(home.as_bytes())[..4]);
    host_path("/var/tmp/.oracle").join(format!("{sid}.{hash}"))
}

/// Writes a file so that a kill at any moment leaves the old or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temp = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temp)?;
    file.write_all(bytes)?;
    drop(file);
    std::fs::rename(&temp, path)
}
