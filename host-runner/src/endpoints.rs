//! Endpoint overrides, only from a file that root alone can write (H35).

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
