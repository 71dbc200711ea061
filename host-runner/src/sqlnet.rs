//! `sqlnet.ora`, read and printed without loss: one parameter changes, every other byte stays (H16).

/// Where a keystore is, as ENCRYPTION_WALLET_LOCATION says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletLocation {
    pub method: Method,
    pub directory: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    File,
    Hsm,
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlnetError {
    #[error("line {line}: {why}")]
    Syntax { line: usize, why: String },
    #[error("`{name}` is set {times} times")]
    Duplicate { name: String, times: usize },
}

/// A parsed file. [`SqlnetFile::print`] gives back exactly what was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlnetFile {
    text: Vec<u8>,
}

impl SqlnetFile {
    pub fn parse(text: &[u8]) -> Result<SqlnetFile, SqlnetError> {
        Ok(SqlnetFile { text: text.to_owned() })
    }
    pub fn print(&self) -> Vec<u8> {
        self.text.clone()
    }
    /// `None` when the parameter is absent.
    pub fn wallet_location(&self) -> Result<Option<WalletLocation>, SqlnetError> {
        unimplemented!()
    }
    /// Sets or adds the parameter; nothing else changes.
    pub fn set_wallet_location(&mut self, _location: &WalletLocation) -> Result<(), SqlnetError> {
        unimplemented!()
    }
    /// Any other parameter's text, by name in any case.
    pub fn parameter(&self, _name: &str) -> Result<Option<String>, SqlnetError> {
        unimplemented!()
    }
}
