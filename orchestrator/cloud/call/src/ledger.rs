//! How often each operation was sent, the SDK's own retries included: what the control plane costs AWS, as AWS would
//! count it.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Ledger {
    /// Requests sent so far, by `service:Operation`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, service: &str, operation: &str) {
        let service: String = service.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let key = format!("{}:{operation}", service.to_ascii_lowercase());
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}

#[dyn_dispatch_hint]
impl Intercept for Ledger {
    fn name(&self) -> &'static str {
        "Ledger"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(metadata) = cfg.load::<Metadata>() {
            self.count(metadata.service(), metadata.name());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_one_spelling() {
        let ledger = Ledger::default();
        ledger.count("CloudHSM V2", "DescribeClusters");
        ledger.count("SSM", "SendCommand");
        ledger.count("SSM", "SendCommand");
        let counts: Vec<_> = ledger.counts().into_iter().collect();
        assert_eq!(counts, [("cloudhsmv2:DescribeClusters".to_owned(), 1), ("ssm:SendCommand".to_owned(), 2)]);
    }
}
