//! Values that must not be seen.

use crate::identity::Identity;
use crate::redact::Redactor;
use serde_json::Value;
use std::rc::Rc;
use tde2hsm_protocol::{Code, Digest, Escrow, SecretRef};
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the order has no secret number {0}")]
    NoSuch(u16),
    #[error("secret `{name}` cannot be read: {why}")]
    Unreadable { name: String, why: String },
    #[error("secret `{name}` belongs to another account or region")]
    Foreign { name: String },
    #[error("secret `{name}` is not text, or empty")]
    NotText { name: String },
    #[error("`{name}` cannot be kept in Secrets Manager: {why}")]
    Escrow { name: String, why: String },
}

impl SecretError {
    pub fn code(&self) -> Code {
        match self {
            SecretError::Escrow { .. } => Code::ESCROW_FAILED,
            SecretError::NotText { .. } => Code::SECRET_UNFIT,
            SecretError::NoSuch(_) | SecretError::Unreadable { .. } | SecretError::Foreign { .. } => Code::SECRET_UNREADABLE,
        }
    }
}

/// A secret's value. No Debug, no Display, no Clone; zeroised when dropped.
pub struct Secret {
    value: Zeroizing<String>,
}

impl Secret {
    pub fn new(value: String) -> Secret {
        Secret { value: Zeroizing::new(value) }
    }
    /// The value, for sqlplus' standard input or C_Login and nothing else (H39).
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub struct Secrets {
    redactor: Redactor,
}

/// A keystore file off the host (H5).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Escrowed {
    pub name: String,
    pub version: String,
    pub sha256: Digest,
}

impl Secrets {
    /// Reads nothing yet.
    pub fn new(_identity: &Identity, _refs: &[SecretRef]) -> Secrets {
        Secrets { redactor: Redactor::default() }
    }
    /// By the order's index; read once and kept for the process's life.
    pub fn get(&mut self, _index: u16) -> Result<Rc<Secret>, SecretError> {
        unimplemented!()
    }
    /// Keeps bytes (at most 64 KiB) under `PREFIX/INSTANCE/SID/FILE`, reads them back by version and compares.
    pub fn escrow(&mut self, _escrow: &Escrow, _name: &str, _bytes: &[u8]) -> Result<Escrowed, SecretError> {
        unimplemented!()
    }
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }
    pub fn redact_json(&self, value: Value) -> Value {
        self.redactor.redact_json(value)
    }
}
