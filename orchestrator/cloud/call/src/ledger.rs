//! How often each operation was sent, the SDK's own retries included: what the control plane costs AWS, as AWS would
//! count it. And what AWS's own clock says, from the answers' `Date`: backups bear its time and no other (H8).

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Seconds that AWS's clock was ahead of this machine's when it answered last.
    ahead: Arc<Mutex<Option<i64>>>,
}

impl Ledger {
    /// Requests sent so far, by `service:Operation`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time on AWS's clock, in seconds since 1970; `None` before its first answer.
    pub fn aws_now(&self) -> Option<i64> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).map(|ahead| seconds() + ahead)
    }

    fn dated(&self, date: &str) {
        if let Ok(date) = DateTime::from_str(date, Format::HttpDate) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(date.secs() - seconds());
        }
    }

    fn count(&self, service: &str, operation: &str) {
        let service: String = service.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let key = format!("{}:{operation}", service.to_ascii_lowercase());
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.dated(date);
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

    #[test]
    fn aws_time_is_that_of_its_last_answer_moved_on() {
        let ledger = Ledger::default();
        assert_eq!(ledger.aws_now(), None);
        let date = |ahead: i64| DateTime::from_secs(seconds() + ahead).fmt(Format::HttpDate).expect("a date");
        for ahead in [0, 7_200, -400] {
            ledger.dated(&date(ahead));
            let seen = ledger.aws_now().expect("seen") - seconds();
            assert!((ahead - 2..=ahead + 2).contains(&seen), "{seen} for {ahead}");
        }
        ledger.dated("yesterday");
        assert!(ledger.aws_now().is_some(), "a date that is none changes nothing");
    }
}
