//! The root directory of a host: an el8-like system whose programs are those of the machine.

use super::{HostError, io};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

/// The owner of Oracle's software and its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    pub oracle: u32,
    pub oinstall: u32,
    pub dba: u32,
}

impl Users {
    pub const FIELD: Self = Self { oracle: 54321, oinstall: 54321, dba: 54322 };
    /// Where only one id exists, everyone is root.
    pub const SINGLE: Self = Self { oracle: 0, oinstall: 0, dba: 0 };
}

#[derive(Debug)]
pub struct RootSpec<'a> {
    pub hostname: &'a str,
    pub ip: &'a str,
    pub users: Users,
    /// Text of `/etc/tde2hsm/endpoints.toml`.
    pub endpoints: &'a str,
}

const OS_RELEASE: &str = r#"NAME="Red Hat Enterprise Linux"
VERSION="8.10 (Ootpa)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="8.10"
PLATFORM_ID="platform:el8"
PRETTY_NAME="Red Hat Enterprise Linux 8.10 (Ootpa)"
CPE_NAME="cpe:/o:redhat:enterprise_linux:8::baseos"
"#;

const DIRS: [(&str, u32); 20] = [
    ("dev", 0o755),
    ("etc/alternatives", 0o755),
    ("etc/rpm", 0o755),
    ("etc/tde2hsm", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("etc/pki/tls/certs", 0o755),
    ("u01", 0o755),
    ("var/lib/amazon/ssm", 0o755),
    ("var/lib/rpm", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Makes the root, which must not exist yet.
pub fn make(root: &Path, spec: &RootSpec<'_>) -> Result<(), HostError> {
    for (dir, mode) in DIRS {
        let path = root.join(dir);
        fs::create_dir_all(&path).map_err(io(format!("making {}", path.display())))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io(format!("making {}", path.display())))?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).map_err(io("opening the root"))?;
    let Users { oracle, oinstall, dba } = spec.users;
    let files = [
        ("etc/os-release", OS_RELEASE.to_owned()),
        ("etc/redhat-release", "Red Hat Enterprise Linux release 8.10 (Ootpa)\n".to_owned()),
        (
            "etc/passwd",
            format!(
                "root:x:0:0:root:/root:/bin/bash\noracle:x:{oracle}:{oinstall}:Oracle owner:/home/oracle:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("etc/group", format!("root:x:0:\noinstall:x:{oinstall}:\ndba:x:{dba}:oracle\nnobody:x:65534:\n")),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        ("etc/hostname", format!("{}\n", spec.hostname)),
        ("etc/hosts", format!("127.0.0.1 localhost\n{} {}\n", spec.ip, spec.hostname)),
        ("etc/resolv.conf", String::new()),
        // A host without a single trusted root cannot build a TLS client, even for an endpoint that needs none.
        ("etc/pki/tls/certs/ca-bundle.crt", include_str!("../customerCA.crt").to_owned()),
        ("etc/rpm/macros", "%_dbpath /var/lib/rpm\n".to_owned()),
        ("etc/tde2hsm/endpoints.toml", spec.endpoints.to_owned()),
        ("etc/ld.so.preload", format!("{}\n", crate::recovery::CLOCK_LIBRARY)),
    ];
    for (name, text) in files {
        let path = root.join(name);
        fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(io(format!("writing {}", path.display())))?;
    }
    // The machine's programs look for their libraries and their other names here.
    for name in ["ld.so.cache", "ld.so.conf", "localtime"] {
        let from = Path::new("/etc").join(name);
        if from.exists() {
            fs::copy(&from, root.join("etc").join(name)).map_err(io(format!("copying {}", from.display())))?;
        }
    }
    for entry in fs::read_dir("/etc/alternatives").into_iter().flatten().flatten() {
        if let Ok(to) = fs::read_link(entry.path()) {
            let _ = symlink(to, root.join("etc/alternatives").join(entry.file_name()));
        }
    }
    let home = root.join("home/oracle");
    fs::create_dir_all(&home).map_err(io("making a home directory"))?;
    own(&home, oracle, oinstall)?;
    own(&root.join("u01"), oracle, oinstall)
}

/// Gives a path to a user of the host.
pub fn own(path: &Path, user: u32, group: u32) -> Result<(), HostError> {
    chown(path, Some(user), Some(group)).map_err(io(format!("giving {} to its owner", path.display())))
}
