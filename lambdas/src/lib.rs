//! Event in, job of `dr-driver`, answer out. Thin: nothing is decided here.
//!
//! An event is a hint; the job looks at what there is. A job that could do part of its work answers with what it could not
//! do; an invocation fails only where Lambda's own second try may do better, which is when nothing could be begun at all.

#![forbid(unsafe_code)]

pub mod config;
pub mod emf;
pub mod events;

use serde_json::Value;
use tde2hsm_dr_driver::{Cloud, DrConfig, Job, Message, Outcome};
use tde2hsm_protocol::{Code, Severity, Timestamp};

/// An invocation that is to be tried again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .outcome.messages.iter().map(|m| format!("{}: {}", m.code, m.text)).collect::<Vec<_>>().join("; "))]
pub struct TryAgain {
    pub outcome: Outcome,
}

/// One invocation of one function.
pub async fn handle(job: Job, event: &Value, now: Timestamp, cloud: &dyn Cloud, config: &DrConfig) -> Result<Outcome, TryAgain> {
    let (hint, unreadable) = match events::read(job, event) {
        events::Call::Run(hint) => (hint, false),
        events::Call::Unreadable => (tde2hsm_dr_driver::Hint::Tick, true),
        events::Call::Ignore => {
            let mut outcome = Outcome::new(job, now);
            outcome.counts.insert("events-ignored".to_owned(), 1);
            return Ok(outcome);
        }
    };
    let mut outcome = tde2hsm_dr_driver::run(job, now, config, cloud, &hint).await;
    if unreadable {
        let text = "the event names no snapshot; looked at everything instead".to_owned();
        outcome.messages.push(Message { severity: Severity::Note, code: Code::EVENT_UNREADABLE, text });
    }
    let nothing_begun = outcome.messages.iter().any(|message| message.code == Code::RECORDS_AWAY) && outcome.counts.is_empty();
    if nothing_begun { Err(TryAgain { outcome }) } else { Ok(outcome) }
}
