//! The functions of the DR half, run as Lambda runs them.

use crate::sandbox::Sandbox;
use serde_json::Value;
use std::sync::Arc;
use tde2hsm_model::Region;

#[derive(Debug, Default)]
pub struct Functions {}

impl Functions {
    pub fn inspect(&self) -> Value {
        serde_json::json!({})
    }

    /// An event reaches the bus of a region.
    pub fn event(&self, _sandbox: &Arc<Sandbox>, _region: &Region, _detail: Value) {}
}
