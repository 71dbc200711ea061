//! What a vendor's client reads from `/opt`: where its HSM is and how strict it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host_path;

/// The two vendors a host can talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    OldHsm,
    #[serde(rename = "cloudhsm")]
    CloudHsm,
}

impl Vendor {
    /// The store's name, as `inspect` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Vendor::OldHsm => "old-hsm",
            Vendor::CloudHsm => "cloudhsm",
        }
    }

    #[must_use]
    pub fn library_name(self) -> &'static str {
        match self {
            Vendor::OldHsm => "libcryptoki_oldhsm.so",
            Vendor::CloudHsm => "libcloudhsm_pkcs11.so",
        }
    }

    /// `C_GetInfo`'s manufacturer.
    #[must_use]
    pub fn manufacturer(self) -> &'static str {
        match self {
            Vendor::OldHsm => "Old HSM Vendor",
            Vendor::CloudHsm => "Marvell Semiconductors, Inc.",
        }
    }

    #[must_use]
    pub fn from_manufacturer(manufacturer: &str) -> Option<Vendor> {
        [Vendor::OldHsm, Vendor::CloudHsm].into_iter().find(|v| v.manufacturer() == manufacturer.trim())
    }

    /// The configuration file inside a host.
    #[must_use]
    pub fn config_path(self) -> &'static str {
        match self {
            Vendor::OldHsm => "/opt/oldhsm/etc/pkcs11.cfg",
            Vendor::CloudHsm => "/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg",
        }
    }

    fn default_dir(self) -> PathBuf {
        match self {
            Vendor::OldHsm => "/run/hsm/old-hsm".into(),
            Vendor::CloudHsm => "/run/hsm/cloudhsm".into(),
        }
    }
}

/// The JSON of a configuration file; keys it does not know are left to the vendor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientConfig {
    /// The "network" to the HSM: a directory with `state.json` and `tokens/`.
    #[serde(default)]
    pub hsm_dir: Option<PathBuf>,
    /// CloudHSM: a key must lie on two active HSMs before it is used (R20, A: on by default).
    #[serde(default = "yes")]
    pub key_availability_check: bool,
    /// CloudHSM: the trust anchor; unreadable means no connection.
    #[serde(default)]
    pub hsm_ca_file: Option<PathBuf>,
    /// Where the client was told to connect to; empty means nowhere yet. Absent is not checked. Without `hsm_dir` these decide
    /// which token answers, see [`ADDRESSES`].
    #[serde(default)]
    pub servers: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}

/// Why a vendor's client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read `{0}`")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("`{0}` is not the JSON this client expects")]
    Malformed(PathBuf, #[source] serde_json::Error),
    #[error("no HSM is configured in `{0}`")]
    NoServer(PathBuf),
    #[error("none of the HSMs in `{0}` can be reached from here")]
    NoRoute(PathBuf),
    #[error("the trust anchor `{0}` cannot be read")]
    NoTrustAnchor(PathBuf, #[source] std::io::Error),
}

impl ClientConfig {
    /// Reads and checks the vendor's file of this host.
    pub fn load(vendor: Vendor) -> Result<ClientConfig, ConfigError> {
        let path = host_path(vendor.config_path());
        let text = std::fs::read(&path).map_err(|e| ConfigError::Unreadable(path.clone(), e))?;
        let config: ClientConfig = serde_json::from_slice(&text).map_err(|e| ConfigError::Malformed(path.clone(), e))?;
        if config.servers.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::NoServer(path));
        }
        if vendor == Vendor::CloudHsm {
            let ca = config.hsm_ca_file.clone().unwrap_or_else(|| "/opt/cloudhsm/etc/customerCA.crt".into());
            let ca = prefixed(&ca);
            std::fs::File::open(&ca).map_err(|e| ConfigError::NoTrustAnchor(ca, e))?;
        }
        Ok(config)
    }

    /// The token directory as this process sees it: the configured one, else that of the first configured address which the
    /// network knows. An address that it does not know is not reached (H44).
    pub fn token_dir(&self, vendor: Vendor) -> Result<PathBuf, ConfigError> {
        if let Some(dir) = &self.hsm_dir {
            return Ok(prefixed(dir));
        }
        let network = prefixed(Path::new(ADDRESSES));
        let text = match std::fs::read(&network) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(prefixed(&vendor.default_dir())),
            Err(e) => return Err(ConfigError::Unreadable(network, e)),
        };
        let known: BTreeMap<String, String> =
            serde_json::from_slice(&text).map_err(|e| ConfigError::Malformed(network.clone(), e))?;
        let token = self.servers.iter().flatten().find_map(|address| known.get(address));
        token.map(|name| network.with_file_name(name)).ok_or_else(|| ConfigError::NoRoute(host_path(vendor.config_path())))
    }
}

/// What a host's network leads to: addresses of HSMs and the token directory beside this file that answers there. Where there
/// is no such file every address is the vendor's one token.
pub const ADDRESSES: &str = "/run/hsm/addresses.json";

/// A configured path, under the test prefix unless it already lies there.
fn prefixed(path: &Path) -> PathBuf {
    match std::env::var_os(crate::ROOT_ENV) {
        Some(root) if path.starts_with(&root) => path.to_path_buf(),
        _ => host_path(&path.to_string_lossy()),
    }
}
