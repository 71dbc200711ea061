//! Who this host is, by IMDSv2 alone (H35).

use crate::endpoints::Endpoints;
use crate::paths::Paths;
use tde2hsm_protocol::{AccountId, Code, InstanceId, Region};

#[derive(Debug, Clone)]
pub struct Identity {
    pub account: AccountId,
    pub region: Region,
    pub instance: InstanceId,
    pub endpoints: Endpoints,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("IMDSv2 at `{endpoint}` does not answer")]
    Unreachable {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    #[error("IMDSv2 answered `{path}` with status {status}")]
    Status { path: String, status: u16 },
    #[error("IMDSv2 answered `{path}` with something else than was expected")]
    Unexpected { path: String },
    #[error(transparent)]
    Endpoints(#[from] crate::endpoints::EndpointsError),
}

impl IdentityError {
    pub fn code(&self) -> Code {
        match self {
            IdentityError::Endpoints(_) => Code::ENDPOINTS_UNSAFE,
            _ => Code::HOST_IDENTITY,
        }
    }
}

impl Identity {
    pub fn read(_paths: &Paths) -> Result<Identity, IdentityError> {
        unimplemented!()
    }
}
