//! The software keystore: `ewallet.p12` under a password, `cwallet.sso` without one.
//!
//! Not PKCS#12 but a format of our own: JSON whose body is sealed under the stretched password, with the ids
//! of the keys in clear and authenticated (real tools list them without a password from the sso, too). An sso
//! is sealed under a key every installation has, which is what "auto-login" means; a LOCAL one under the
//! host's name as well, so a copy opens on no other host (H40).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::crypto;
use crate::env::write_atomic;
use crate::keys::{KeyMeta, Mkid};

pub const P12: &str = "ewallet.p12";
pub const SSO: &str = "cwallet.sso";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WalletKey {
    /// Hex of the 32 bytes.
    pub key: String,
    pub meta: KeyMeta,
}

/// What is inside.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Body {
    pub keys: BTreeMap<Mkid, WalletKey>,
    pub secrets: BTreeMap<String, String>,
    pub fully_backed_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SsoKind {
    Auto,
    Local,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    ids: Vec<String>,
    salt: String,
    sealed: String,
}

#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    #[error("no keystore file")]
    Absent,
    #[error("the password does not fit")]
    Password,
    #[error("made on another host")]
    OtherHost,
    #[error("not a keystore")]
    Malformed,
    #[error("`{0}`")]
    Io(PathBuf, #[source] std::io::Error),
}

const P12_FORMAT: &str = "sandbox ewallet 1";
const AUTO_FORMAT: &str = "sandbox cwallet 1";
const LOCAL_FORMAT: &str = "sandbox cwallet 1 local";
/// What an auto-login file begins with, before what is ours: tools tell a LOCAL one by it.
const AUTO_MAGIC: [u8; 4] = [0xa1, 0xf8, 0x4e, 0x36];
const LOCAL_MAGIC: [u8; 4] = [0xa1, 0xf8, 0x4e, 0x38];
const SSO_SECRET: &str = "every installation has this";

/// Set for `verify --cut-off software`: no keystore file is to be found by this process.
pub const CUT_OFF_ENV: &str = "SANDBOX_SOFTWARE_CUT_OFF";

fn read(path: &Path) -> Result<File, WalletError> {
    if std::env::var_os(CUT_OFF_ENV).is_some() {
        return Err(WalletError::Absent);
    }
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => WalletError::Absent,
        _ => WalletError::Io(path.into(), e),
    })?;
    let plain = [AUTO_MAGIC, LOCAL_MAGIC].iter().find_map(|magic| bytes.strip_prefix(magic)).unwrap_or(&bytes);
    serde_json::from_slice(plain).map_err(|_| WalletError::Malformed)
}

fn unseal(file: &File, secret: &str) -> Result<Body, WalletError> {
    let salt = hex::decode(&file.salt).map_err(|_| WalletError::Malformed)?;
    let sealed = hex::decode(&file.sealed).map_err(|_| WalletError::Malformed)?;
    let key = crypto::stretch(secret, &salt);
    let plain = crypto::open(&key, file.ids.join(",").as_bytes(), &sealed).ok_or(WalletError::Password)?;
    serde_json::from_slice(&plain).map_err(|_| WalletError::Malformed)
}

fn seal(path: &Path, format: &str, secret: &str, body: &Body) -> Result<(), WalletError> {
    let salt: [u8; 16] = crypto::random();
    let ids: Vec<String> = body.keys.keys().map(|id| id.key_id(crate::keys::Kind::File)).collect();
    let plain = serde_json::to_vec(body).map_err(|_| WalletError::Malformed)?;
    let sealed = crypto::seal(&crypto::stretch(secret, &salt), ids.join(",").as_bytes(), &plain);
    let file = File { format: format.into(), ids, salt: hex::encode(salt), sealed: hex::encode(sealed) };
    let mut text = match format {
        AUTO_FORMAT => AUTO_MAGIC.to_vec(),
        LOCAL_FORMAT => LOCAL_MAGIC.to_vec(),
        _ => Vec::new(),
    };
    text.extend(serde_json::to_vec_pretty(&file).map_err(|_| WalletError::Malformed)?);
    write_atomic(path, &text, 0o600).map_err(|e| WalletError::Io(path.into(), e))
}

/// Opens `ewallet.p12` of `dir`.
pub fn open(dir: &Path, password: &str) -> Result<Body, WalletError> {
    open_file(&dir.join(P12), password)
}

/// Opens a keystore file by its path: backups have names of their own.
pub fn open_file(path: &Path, password: &str) -> Result<Body, WalletError> {
    unseal(&read(path)?, password)
}

/// Replaces `ewallet.p12`.
pub fn save(dir: &Path, password: &str, body: &Body) -> Result<(), WalletError> {
    seal(&dir.join(P12), P12_FORMAT, password, body)
}

fn sso_secret(kind: SsoKind) -> String {
    match kind {
        SsoKind::Auto => SSO_SECRET.into(),
        SsoKind::Local => format!("{SSO_SECRET} {}", host_name()),
    }
}

/// The name a LOCAL keystore is bound to.
#[must_use]
pub fn host_name() -> String {
    if let Ok(name) = std::fs::read_to_string(crate::env::host_path("/etc/hostname")) {
        return name.trim().to_owned();
    }
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

/// Opens `cwallet.sso` of `dir`.
pub fn open_sso(dir: &Path) -> Result<(SsoKind, Body), WalletError> {
    let file = read(&dir.join(SSO))?;
    let kind = if file.format == LOCAL_FORMAT { SsoKind::Local } else { SsoKind::Auto };
    match unseal(&file, &sso_secret(kind)) {
        Err(WalletError::Password) => Err(WalletError::OtherHost),
        other => other.map(|body| (kind, body)),
    }
}

/// Writes `cwallet.sso`, a copy of the password keystore at this moment.
pub fn save_sso(dir: &Path, kind: SsoKind, body: &Body) -> Result<(), WalletError> {
    let format = match kind {
        SsoKind::Auto => AUTO_FORMAT,
        SsoKind::Local => LOCAL_FORMAT,
    };
    seal(&dir.join(SSO), format, &sso_secret(kind), body)
}

/// Key ids of every keystore file of `dir`, without a password; `inspect` counts by them.
#[must_use]
pub fn ids(dir: &Path) -> Vec<String> {
    read(&dir.join(P12)).map(|f| f.ids).unwrap_or_default()
}
