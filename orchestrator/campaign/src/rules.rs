//! What stands in the way, found before anything is touched.

use serde::{Deserialize, Serialize};
use tde2hsm_protocol::{Code, ContainerName, InstanceId, Severity, Sid};

/// What a rule says of a survey or of the cloud. The way out is the code's hint, made concrete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub code: Code,
    pub severity: Severity,
    /// `None`: the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Sid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
    pub message: String,
    pub way_out: String,
    /// The fleet file accepts it.
    #[serde(default)]
    pub accepted: bool,
}
