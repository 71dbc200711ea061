//! Endpoint overrides, only from a file that root alone can write (H35).
//!
//! Neither argument nor environment nor order can send a secret's request elsewhere. On a host in the field the file
//! does not exist.

use crate::paths::Paths;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    pub imds: Option<String>,
    pub secretsmanager: Option<String>,
    pub s3: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    #[error("`{path}` is not root's alone to write")]
    Unsafe { path: PathBuf },
    #[error("`{path}` cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` is not valid: {why}")]
    Invalid { path: PathBuf, why: String },
}

impl Endpoints {
    /// AWS's own endpoints where there is no such file.
    pub fn read(paths: &Paths) -> Result<Endpoints, EndpointsError> {
        let path = paths.endpoints();
        let unreadable = |source| EndpointsError::Unreadable { path: path.clone(), source };
        let mut file = match std::fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Endpoints::default()),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(EndpointsError::Unsafe { path }),
            Err(error) => return Err(unreadable(error)),
        };
        let dir = path.parent().expect("a file has a directory");
        // Where we are not root ourselves (a test), the file may be ours: we could as well be another program.
        let me = nix::unistd::geteuid().as_raw();
        let safe = |meta: &std::fs::Metadata| (meta.uid() == 0 || meta.uid() == me) && meta.mode() & 0o022 == 0;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() || !safe(&meta) || !safe(&std::fs::metadata(dir).map_err(unreadable)?) {
            return Err(EndpointsError::Unsafe { path });
        }
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| EndpointsError::Invalid { path, why: error.message().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn h35_overrides_count_only_from_a_file_that_root_alone_can_write() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(Endpoints::read(&paths).unwrap(), Endpoints::default());
        let file = paths.endpoints();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&file, "imds = \"http://127.0.0.1:1\"\n").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Endpoints::read(&paths).unwrap().imds.as_deref(), Some("http://127.0.0.1:1"));

        for mode in [0o664, 0o646] {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Endpoints::read(&paths), Err(EndpointsError::Unsafe { .. })), "{mode:o}");
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(54321), None).unwrap();
            assert!(matches!(Endpoints::read(&paths), Err(EndpointsError::Unsafe { .. })));
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        }
        std::fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Endpoints::read(&paths), Err(EndpointsError::Unsafe { .. })));
        std::fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&file, "ec2 = \"http://127.0.0.1:1\"\n").unwrap();
        assert!(matches!(Endpoints::read(&paths), Err(EndpointsError::Invalid { .. })));
        std::fs::rename(&file, root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), &file).unwrap();
        assert!(matches!(Endpoints::read(&paths), Err(EndpointsError::Unsafe { .. })));
    }
}
