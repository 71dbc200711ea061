//! The client's package: installed, configured, removed again.
//!
//! What is installed is what the document of `tde2hsm setup` fetched and verified (H34); the manifest beside it names
//! each file's digest, which is checked again before root hands the file to the package tool.

use crate::files::{self, FileError};
use crate::owner::{Ended, Owner, OwnerError, Program};
use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tde2hsm_protocol::survey::Os;
use tde2hsm_protocol::{Code, Digest, KeyAvailabilityCheck, Target};

#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("no package for `{os}` in the manifest")]
    NoneForOs { os: String },
    #[error("the manifest `{path}` is not valid: {why}")]
    Manifest { path: PathBuf, why: String },
    #[error("`{file}` does not have the digest that the manifest names")]
    Digest { file: String },
    #[error("`{tool}` failed: {why}")]
    Tool { tool: String, why: String },
    #[error("the order names no HSM")]
    NoHsm,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Run(#[from] OwnerError),
}

impl PackageError {
    pub fn code(&self) -> Code {
        match self {
            PackageError::NoneForOs { .. } => Code::PACKAGE_NONE,
            PackageError::File(error) => error.code(),
            _ => Code::PACKAGE_WORK,
        }
    }
}

pub struct Packages {
    paths: Paths,
}

/// Before and after an installation; goes into the journal, for the undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// `name-version` of what was there before, if anything (H18).
    pub before: Option<String>,
    /// This call installed it.
    pub changed: bool,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    packages: Vec<Package>,
    ca: Option<Ca>,
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    os: String,
    file: String,
    name: String,
    version: String,
    sha256: Digest,
}

#[derive(Debug, Deserialize)]
struct Ca {
    file: String,
    sha256: Digest,
}

const QUERY_LIMIT: Duration = Duration::from_secs(60);
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// Which tool knows the packages of a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Rpm,
    Dpkg,
}

impl Packages {
    pub fn new(paths: &Paths) -> Packages {
        Packages { paths: paths.clone() }
    }

    /// ID and VERSION_ID of os-release, and the kernel's word on the machine.
    pub fn os(&self) -> Result<Os, PackageError> {
        let path = ["/etc/os-release", "/usr/lib/os-release"].map(|path| self.paths.at(path));
        let text = path.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        let word = |name: &str| std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
        Ok(Os {
            id: value("ID"),
            version: value("VERSION_ID"),
            arch: std::env::consts::ARCH.to_owned(),
            kernel: word("osrelease").trim().to_owned(),
            systemd: self.paths.at("/run/systemd/system").is_dir(),
        })
    }

    /// Installed packages whose name starts with `cloudhsm`, as `name-version`.
    pub fn cloudhsm(&self) -> Result<Vec<String>, PackageError> {
        let mut found = Vec::new();
        for tool in [Tool::Rpm, Tool::Dpkg] {
            found.extend(self.query(tool)?.into_iter().map(|(name, version)| format!("{name}-{version}")));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn query(&self, tool: Tool) -> Result<Vec<(String, String)>, PackageError> {
        let (path, args): (&str, &[&str]) = match tool {
            Tool::Rpm => ("/usr/bin/rpm", &["-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n", "cloudhsm*"]),
            Tool::Dpkg => ("/usr/bin/dpkg-query", &["-W", "-f", "${Package} ${Version} ${db:Status-Status}\\n", "cloudhsm*"]),
        };
        let said = match self.run(path, args, QUERY_LIMIT) {
            Ok(said) => said,
            // No such tool, no such packages; dpkg-query ends with 1 where nothing matches.
            Err(PackageError::Run(OwnerError::Spawn { .. })) => return Ok(Vec::new()),
            Err(PackageError::Tool { .. }) if tool == Tool::Dpkg => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(said
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (name, version) = (words.next()?, words.next()?);
                let installed = tool == Tool::Rpm || words.next() == Some("installed");
                (installed && name.starts_with("cloudhsm")).then(|| (name.to_owned(), version.to_owned()))
            })
            .collect())
    }

    fn manifest(&self) -> Result<Manifest, PackageError> {
        let path = self.paths.packages().join("manifest.json");
        let bytes =
            files::read(&path)?.ok_or_else(|| PackageError::Manifest { path: path.clone(), why: "it is not there".into() })?;
        serde_json::from_slice(&bytes).map_err(|error| PackageError::Manifest { path, why: error.to_string() })
    }

    /// The path of a file of the manifest, its digest checked.
    fn verified(&self, file: &str, sha256: Digest) -> Result<PathBuf, PackageError> {
        let name = Path::new(file);
        let plain = name.components().count() == 1 && name.file_name().is_some_and(|n| n == name.as_os_str());
        let path = self.paths.packages().join(name);
        if plain && files::hash(&path)? == Some(sha256) { Ok(path) } else { Err(PackageError::Digest { file: file.to_owned() }) }
    }

    /// The manifest's package for this operating system.
    fn package(&self) -> Result<Package, PackageError> {
        let os = self.os()?;
        let wanted = os_name(&os);
        let package = self.manifest()?.packages.into_iter().find(|package| package.os == wanted);
        package.ok_or(PackageError::NoneForOs { os: wanted })
    }

    /// Name and version that [`Packages::install`] would bring.
    pub fn wanted(&self) -> Result<(String, String), PackageError> {
        self.package().map(|package| (package.name, package.version))
    }

    /// Installs the manifest's package for this operating system; nothing when that version is there.
    pub fn install(&self) -> Result<Installed, PackageError> {
        let package = self.package()?;
        let path = self.verified(&package.file, package.sha256)?;
        let tool = if package.file.ends_with(".deb") { Tool::Dpkg } else { Tool::Rpm };
        let there = self.query(tool)?.into_iter().find(|(name, _)| *name == package.name);
        let mut installed =
            Installed { name: package.name.clone(), version: package.version.clone(), before: None, changed: false };
        if let Some((name, version)) = there {
            if version == package.version {
                return Ok(installed);
            }
            installed.before = Some(format!("{name}-{version}"));
        }
        let path = path.to_string_lossy();
        match tool {
            Tool::Rpm => self.run("/usr/bin/rpm", &["-U", &path], INSTALL_LIMIT)?,
            Tool::Dpkg => self.run("/usr/bin/dpkg", &["-i", &path], INSTALL_LIMIT)?,
        };
        installed.changed = true;
        Ok(installed)
    }

    /// CA file and configuration, in this order; the owner can read `etc/` and write `run/` afterwards (`O§6.2`).
    pub fn configure(&self, target: &Target, owner: &Owner) -> Result<(), PackageError> {
        if let Some(ca) = self.manifest()?.ca {
            files::install(&self.verified(&ca.file, ca.sha256)?, &self.ca(), 0o644, None)?;
        }
        self.point_to(target, owner)
    }

    /// The same for a client that is there with its CA, such as that of a copied host.
    pub fn point_to(&self, target: &Target, owner: &Owner) -> Result<(), PackageError> {
        self.run_configure(target)?;
        self.open_to(owner)
    }

    /// A copy of the configuration as it is.
    pub fn keep_configuration(&self, into: &Path) -> Result<(), PackageError> {
        if files::stat(&self.cfg())?.is_some() {
            files::copy_into(&self.cfg(), into)?;
        }
        Ok(())
    }

    fn run_configure(&self, target: &Target) -> Result<(), PackageError> {
        let first = target.hsms.first().ok_or(PackageError::NoHsm)?.to_string();
        let all: Vec<String> = target.hsms.iter().map(IpAddr::to_string).collect();
        let tool = self.paths.cloudhsm().join("bin/configure-pkcs11").to_string_lossy().into_owned();
        let ca = self.ca().to_string_lossy().into_owned();
        let check = match target.key_availability_check {
            KeyAvailabilityCheck::On => "--enable-key-availability-check",
            KeyAvailabilityCheck::Off => "--disable-key-availability-check",
        };
        let args = |addresses: &[String]| -> Vec<String> {
            let mut args = vec!["-a".to_owned()];
            args.extend(addresses.iter().cloned());
            args.extend(["--hsm-ca-cert".to_owned(), ca.clone(), check.to_owned()]);
            args
        };
        // A client needs one address and learns the others from it; a tool that takes several is given them, so that
        // the first connection does not hang on the one HSM.
        if all.len() == 1 || self.run(&tool, &args(&all), QUERY_LIMIT).is_err() {
            self.run(&tool, &args(&[first]), QUERY_LIMIT)?;
        }
        Ok(())
    }

    /// The owner can read `etc/` and write `run/`.
    fn open_to(&self, owner: &Owner) -> Result<(), PackageError> {
        let cloudhsm = self.paths.cloudhsm();
        let set_mode = |path: &Path, mode: u32| -> Result<(), PackageError> {
            use std::os::unix::fs::PermissionsExt as _;
            let io = |source| PackageError::Io { path: path.to_owned(), what: "opened to the owner", source };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io)
        };
        // All of this is root's own tree: no link in it is anyone else's.
        for dir in [cloudhsm.clone(), cloudhsm.join("etc"), cloudhsm.join("lib")] {
            set_mode(&dir, 0o755)?;
        }
        for info in files::list(&cloudhsm.join("etc"))?.unwrap_or_default() {
            // Keys of a client certificate keep the mode that someone gave them.
            let name = info.path.to_string_lossy();
            if info.kind == files::FileKind::File && (name.ends_with(".cfg") || name.ends_with(".crt")) {
                set_mode(&info.path, info.mode | 0o444)?;
            }
        }
        let run = cloudhsm.join("run");
        files::make_dir(&run, 0o775)?;
        files::give(&run, owner.uid, owner.gid)?;
        set_mode(&run, 0o775)
    }

    fn ca(&self) -> PathBuf {
        self.paths.cloudhsm().join("etc/customerCA.crt")
    }

    fn cfg(&self) -> PathBuf {
        self.paths.cloudhsm().join("etc/cloudhsm-pkcs11.cfg")
    }

    /// The client's configuration; `None`: there is none, or none that can be read as what it should be.
    fn configuration(&self) -> Result<Option<serde_json::Value>, PackageError> {
        let Some(bytes) = files::read(&self.cfg())? else { return Ok(None) };
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Addresses of HSMs in the client's configuration, of every cluster in it (`O§6.2`).
    pub fn servers(&self) -> Result<Option<Vec<String>>, PackageError> {
        let Some(configuration) = self.configuration()? else { return Ok(None) };
        let mut found = Vec::new();
        servers_in(&configuration, &mut found);
        found.sort();
        found.dedup();
        Ok(Some(found))
    }

    /// Files that the configuration names outside the client's own tree: a CA, a client's certificate and key.
    pub fn files_named(&self) -> Result<Vec<String>, PackageError> {
        let mut found = Vec::new();
        if let Some(configuration) = self.configuration()? {
            strings_in(&configuration, &mut |text| {
                let own = Path::new(text).starts_with(crate::paths::CLOUDHSM);
                if text.starts_with('/') && !own && self.paths.at(text).is_file() {
                    found.push(text.to_owned());
                }
            });
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The configuration names these HSMs, at least the first, and the CA is in place.
    pub fn is_configured(&self, target: &Target) -> Result<bool, PackageError> {
        let Some(cfg) = files::read(&self.cfg())? else { return Ok(false) };
        let ca = match self.manifest()?.ca {
            Some(ca) => files::hash(&self.ca())? == Some(ca.sha256),
            None => files::stat(&self.ca())?.is_some(),
        };
        let text = String::from_utf8_lossy(&cfg).into_owned();
        let named = target.hsms.first().is_some_and(|hsm| text.contains(&format!("\"{hsm}\"")));
        Ok(ca && named)
    }

    /// Removes what `install` and `configure` added. A package that was there before stays, as does what someone else
    /// put below `/opt/cloudhsm`.
    pub fn remove(&self, installed: &Installed) -> Result<(), PackageError> {
        if !installed.changed || installed.before.is_some() {
            return Ok(());
        }
        for tool in [Tool::Rpm, Tool::Dpkg] {
            if self.query(tool)?.iter().any(|(name, _)| *name == installed.name) {
                match tool {
                    Tool::Rpm => self.run("/usr/bin/rpm", &["-e", &installed.name], INSTALL_LIMIT)?,
                    Tool::Dpkg => self.run("/usr/bin/dpkg", &["-P", &installed.name], INSTALL_LIMIT)?,
                };
            }
        }
        let cloudhsm = self.paths.cloudhsm();
        let ours = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name == "customerCA.crt" || name.starts_with("cloudhsm-pkcs11.")
        };
        for dir in ["etc", "run", "bin", "lib", ""].map(|dir| cloudhsm.join(dir)) {
            for info in files::list(&dir)?.unwrap_or_default() {
                // Configuration, CA and logs: no key is in them.
                if info.kind == files::FileKind::File && ours(&info.path) {
                    let gone = |source| PackageError::Io { path: info.path.clone(), what: "removed", source };
                    std::fs::remove_file(&info.path).map_err(gone)?;
                }
            }
            // Goes only when it is empty.
            let _ = std::fs::remove_dir(&dir);
        }
        Ok(())
    }

    /// A tool as root; what it said, or the end of what it said when it failed.
    fn run(&self, tool: &str, args: &[impl AsRef<str>], limit: Duration) -> Result<String, PackageError> {
        let mut program = Program::new(tool, limit).env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").login();
        for arg in args {
            program = program.arg(arg.as_ref());
        }
        let output = Owner::root(&self.paths).run(&program, &[])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.ended {
            Ended::Exit(0) => Ok(said),
            ended => {
                let words = format!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
                let last = words.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
                let tool = Path::new(tool).file_name().unwrap_or_default().to_string_lossy().into_owned();
                Err(PackageError::Tool { tool, why: format!("it {}: {last}", crate::provider::death(ended)) })
            }
        }
    }
}

/// Every member of every array `servers`: an object with a `hostname`, or the address itself.
fn servers_in(value: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Array(servers) if name == "servers" => {
                        let address =
                            |server: &Value| server.as_str().or_else(|| server.get("hostname")?.as_str()).map(str::to_owned);
                        found.extend(servers.iter().filter_map(address));
                    }
                    value => servers_in(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| servers_in(value, found)),
        _ => {}
    }
}

fn strings_in(value: &serde_json::Value, visit: &mut impl FnMut(&str)) {
    use serde_json::Value;
    match value {
        Value::String(text) => visit(text),
        Value::Array(values) => values.iter().for_each(|value| strings_in(value, visit)),
        Value::Object(fields) => fields.values().for_each(|value| strings_in(value, visit)),
        _ => {}
    }
}

/// The manifest's name of an operating system (`O§6.2`): the rebuilds of RHEL take its package.
fn os_name(os: &Os) -> String {
    let major = os.version.split('.').next().unwrap_or_default();
    match os.id.as_str() {
        "rhel" | "centos" | "ol" | "rocky" | "almalinux" => format!("rhel{major}"),
        "amzn" => format!("amzn{major}"),
        "ubuntu" => format!("ubuntu{}", os.version),
        id => format!("{id}{major}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operating_system_has_one_name() {
        let name = |id: &str, version: &str| {
            os_name(&Os { id: id.into(), version: version.into(), arch: "x86_64".into(), kernel: String::new(), systemd: true })
        };
        assert_eq!(name("rhel", "8.10"), "rhel8");
        assert_eq!(name("ol", "9.4"), "rhel9");
        assert_eq!(name("amzn", "2023"), "amzn2023");
        assert_eq!(name("ubuntu", "22.04"), "ubuntu22.04");
        assert_eq!(name("debian", "12"), "debian12");
    }

    #[test]
    fn h40_the_configuration_says_which_hsms_and_which_files_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let packages = Packages::new(&paths);
        assert_eq!(packages.servers().unwrap(), None);
        for name in ["/opt/cloudhsm/etc", "/etc/pki"] {
            std::fs::create_dir_all(paths.at(name)).unwrap();
        }
        std::fs::write(paths.at("/etc/pki/client.key"), "x").unwrap();
        let text = r#"{"clusters":[{"type":"hsm2m.medium","cluster":{"hsm_ca_file":"/opt/cloudhsm/etc/customerCA.crt",
            "servers":[{"hostname":"10.0.1.5","port":2223,"enable":true},{"hostname":"10.0.2.5","port":2223,"enable":true}]}},
            {"cluster":{"servers":[{"hostname":"10.9.9.9"}]}}],
            "client_key":"/etc/pki/client.key","logging":{"log_file":"/opt/cloudhsm/run/cloudhsm-pkcs11.log"}}"#;
        std::fs::write(packages.cfg(), text).unwrap();
        assert_eq!(packages.servers().unwrap().unwrap(), ["10.0.1.5", "10.0.2.5", "10.9.9.9"]);
        assert_eq!(packages.files_named().unwrap(), ["/etc/pki/client.key"]);
        std::fs::write(packages.cfg(), "not json").unwrap();
        assert_eq!(packages.servers().unwrap(), None);
    }

    #[test]
    fn h34_only_the_manifests_own_bytes_are_installed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(paths.packages()).unwrap();
        std::fs::create_dir_all(paths.at("/etc")).unwrap();
        std::fs::write(paths.at("/etc/os-release"), "ID=\"rhel\"\nVERSION_ID=\"8.10\"\n").unwrap();
        let packages = Packages::new(&paths);
        assert!(matches!(packages.wanted(), Err(PackageError::Manifest { .. })));
        let manifest = |file: &str, os: &str| {
            let text = serde_json::json!({"packages": [{"os": os, "file": file, "name": "cloudhsm-pkcs11",
                "version": "5.17.0-1", "sha256": Digest::of(b"rpm").to_string()}]});
            std::fs::write(paths.packages().join("manifest.json"), text.to_string()).unwrap();
        };
        manifest("client.rpm", "rhel8");
        assert_eq!(packages.wanted().unwrap(), ("cloudhsm-pkcs11".to_owned(), "5.17.0-1".to_owned()));
        std::fs::write(paths.packages().join("client.rpm"), "another rpm").unwrap();
        assert!(matches!(packages.install(), Err(PackageError::Digest { .. })));
        std::fs::write(paths.packages().join("client.rpm"), "rpm").unwrap();
        assert!(packages.verified("client.rpm", Digest::of(b"rpm")).is_ok());
        std::fs::write(paths.at("/outside.rpm"), "rpm").unwrap();
        assert!(packages.verified("../../../outside.rpm", Digest::of(b"rpm")).is_err());
        manifest("client.rpm", "rhel9");
        assert_eq!(packages.install().unwrap_err().code(), Code::PACKAGE_NONE);
    }
}
