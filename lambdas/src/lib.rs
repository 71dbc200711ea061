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

/// Of the answer to one invocation: Lambda takes 6 MB, and a run whose answer is larger counts as failed and is made again. The log
/// has all of them.
const ANSWERED: usize = 1_000;

/// What an invocation answers.
pub fn answer(mut outcome: Outcome) -> Result<Value, serde_json::Error> {
    let more = outcome.messages.len().saturating_sub(ANSWERED);
    if more > 0 {
        outcome.messages.truncate(ANSWERED);
        outcome.counts.insert("messages-left-to-the-log".to_owned(), more as u64);
    }
    serde_json::to_value(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_never_larger_than_lambda_takes() {
        let mut outcome = Outcome::new(Job::SettleCopies, Timestamp(0));
        let message =
            |n| Message { severity: Severity::Error, code: Code::COPY_VANISHED, text: format!("{n}: {}", "x".repeat(300)) };
        outcome.messages.extend((0..73_000).map(message));
        let answer = answer(outcome).unwrap();
        assert!(answer.to_string().len() < 1_000_000, "{}", answer.to_string().len());
        assert_eq!(answer["counts"]["messages-left-to-the-log"], 72_000);
    }
}
