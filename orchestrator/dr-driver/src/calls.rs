//! Calls without a client token, made once.
//!
//! The order is always the same: the intent with a token of its own goes into the record by a conditional write, then the
//! call goes out, then its result goes into the record. Of two runs that want the same thing, one loses the write and lets it
//! be. A run that ends in between leaves an attempt without a result; what it made is looked for by the token, and the
//! planner counts the attempt and lets a time pass before the next. So nothing is ever made twice because somebody did not
//! know, and nothing is lost but time.

use crate::store::{self, Came, CopyRecord, HsmCopyRecord, Intent, Read, Record, Refused};
use crate::world::Asker;
use crate::{CallError, CopySnapshot, Effect, Hint};
use std::collections::BTreeMap;
use tde2hsm_dr::facts::tag;
use tde2hsm_dr::records::{Attempt, CopyIntent, HsmCopyIntent};
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{Code, Digest, Severity, Timestamp};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Begun,
    /// The region takes no more now. Others need not be tried.
    Full,
    Refused,
    /// It may have gone out.
    Unknown,
    /// Another run was quicker, or the record could not be written: nothing went out.
    Not,
}

fn full(error: &CallError) -> bool {
    error.effect != Effect::Ambiguous && error.limited()
}

/// AWS refused it not long ago, and is not asked again yet. It counts as refused all the while: an alarm on what fails run after
/// run must not fall silent in between.
pub fn pauses<I: Intent>(asker: &mut Asker<'_>, hint: &Hint, record: &Record<I, I::Copy>) -> bool {
    let waits = |refused: &&Refused| *hint != Hint::Person && refused.until() > asker.now;
    let Some(refused) = record.refused.as_ref().filter(waits) else { return false };
    let code = refused.code.as_deref().unwrap_or("no code");
    let text = format!(
        "`{}`: refused {} times, last with {code}: {}; asked for again within three hours",
        record.intent.source(),
        refused.times,
        refused.message
    );
    asker.outcome.add("copies-paused", 1);
    asker.outcome.failed += 1;
    asker.outcome.say(Severity::Error, Code::COPY_REFUSED, text);
    true
}

/// Different for each attempt: no two attempts of one thing are of the same number and second.
fn token(fleet: &str, of: &str, attempts: usize, at: i64) -> String {
    Digest::of_json(&(fleet, of, attempts, at)).to_string()[..32].to_owned()
}

/// Writes one attempt more into the record: its token, and the ETag of what was written. `None`: another run was quicker, or
/// it could not be written, and nothing may go out.
async fn intend<I: Intent>(
    asker: &mut Asker<'_>,
    record: &mut Record<I, I::Copy>,
    etag: Option<&str>,
) -> Option<(String, String)> {
    let token = token(&asker.config.fleet, record.intent.source(), record.intent.attempts().len(), asker.now.0);
    record.intent.attempts_mut().push(Attempt { token: token.clone(), at: asker.now });
    let etag = asker.write(&record.intent.key(), record, etag).await?;
    Some((token, etag))
}

/// Writes down what came of a call. Where another run was quicker it has seen as much.
async fn conclude<I: Intent>(asker: &mut Asker<'_>, record: &Record<I, I::Copy>, etag: &str) {
    let wrote = store::write(asker.cloud, &record.intent.key(), record, Some(etag)).await;
    asker.note_records(wrote);
}

/// Begins the copy of one snapshot.
pub async fn begin_copy(
    asker: &mut Asker<'_>,
    known: Option<Read<CopyRecord>>,
    intent: CopyIntent,
    completion_minutes: Option<u16>,
) -> Sent {
    let (mut record, etag) = match known {
        Some(read) => (read.value, Some(read.etag)),
        None => (CopyRecord::new(intent), None),
    };
    let before = record.refused.take().filter(|_| record.intent.kms_key == asker.config.kms_key);
    // A key that was changed since applies to this attempt.
    record.intent.kms_key = asker.config.kms_key.clone();
    let intent = record.intent.clone();
    let Some((token, etag)) = intend(asker, &mut record, etag.as_deref()).await else { return Sent::Not };
    let mut tags = BTreeMap::from([
        (tag::FLEET, asker.config.fleet.clone()),
        (tag::SET, intent.set.0.clone()),
        (tag::TOKEN, token.clone()),
        (tag::SOURCE_SNAPSHOT, intent.source.to_string()),
        (tag::SOURCE_REGION, intent.source_region.to_string()),
        (tag::SOURCE_VOLUME, intent.volume.to_string()),
        (tag::SOURCE_STARTED, intent.started.0.to_string()),
        (tag::INSTANCE, intent.instance.to_string()),
    ]);
    if let Some(name) = intent.consistency.and_then(|word| serde_json::to_value(word).ok()) {
        tags.insert(tag::CONSISTENCY, name.as_str().unwrap_or_default().to_owned());
    }
    let mut copy = CopySnapshot {
        source: intent.source.clone(),
        source_region: intent.source_region.clone(),
        description: format!("tde2hsm {} {} of {}", intent.source, intent.volume, intent.instance),
        kms_key: asker.config.kms_key.clone(),
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        completion_minutes,
    };
    let mut answer = asker.cloud.copy_snapshot(&asker.config.dr_region, &copy).await;
    // Which word AWS has for a throughput that is used up is not known (`A§12`), and a copy that takes its time is better than
    // none. A refusal made nothing, so the same attempt may go out again.
    if let Err(error) = &answer
        && error.effect == Effect::Refused
        && !error.throttled()
        && let Some(minutes) = copy.completion_minutes.take()
    {
        let text = format!("`{}` in {minutes} min: {error}; asked for again without a time", intent.source);
        answer = asker.cloud.copy_snapshot(&asker.config.dr_region, &copy).await;
        // Turned away again: it was not the time, there is no place for either.
        if !answer.as_ref().is_err_and(full) {
            asker.outcome.say(Severity::Warning, Code::COPY_REFUSED, text);
        }
    }
    if answer.is_ok() && copy.completion_minutes.is_some() {
        asker.outcome.add("copies-timed", 1);
    }
    let sent = judge(asker, &answer, intent.source.as_str());
    match answer {
        Ok(copy) => drop(record.results.insert(token, Came::Made { copy, at: asker.now })),
        Err(error) if error.effect == Effect::Ambiguous => return sent,
        Err(error) => take_back(&mut record, &token, &error, before, asker.now),
    }
    conclude(asker, &record, &etag).await;
    sent
}

/// Begins the copy of one HSM backup. The answer names no id: what it made is found by its source (`A§4.4`).
pub async fn begin_hsm_copy(asker: &mut Asker<'_>, known: Option<Read<HsmCopyRecord>>, intent: HsmCopyIntent) -> Sent {
    let (mut record, etag) = match known {
        Some(read) => (read.value, Some(read.etag)),
        None => (HsmCopyRecord::new(intent), None),
    };
    let intent = record.intent.clone();
    let before = record.refused.take();
    let Some((token, etag)) = intend(asker, &mut record, etag.as_deref()).await else { return Sent::Not };
    let tags = BTreeMap::from(
        [
            (tag::FLEET, asker.config.fleet.clone()),
            (tag::TOKEN, token.clone()),
            (tag::SOURCE_BACKUP, intent.source.to_string()),
            (tag::SOURCE_REGION, intent.source_region.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let (source, dr) = (asker.config.source_region.clone(), asker.config.dr_region.clone());
    let answer = asker.cloud.copy_hsm_backup(&source, &intent.source, &dr, &tags).await;
    let sent = judge(asker, &answer, intent.source.as_str());
    if let Err(error) = answer
        && error.effect != Effect::Ambiguous
    {
        take_back(&mut record, &token, &error, before, asker.now);
        conclude(asker, &record, &etag).await;
    }
    sent
}

fn judge<T>(asker: &mut Asker<'_>, answer: &Result<T, CallError>, of: &str) -> Sent {
    match answer {
        Ok(_) => {
            asker.outcome.add("copies-begun", 1);
            Sent::Begun
        }
        Err(error) if error.effect == Effect::Ambiguous => {
            asker.outcome.add("calls-uncertain", 1);
            asker.outcome.say(Severity::Warning, Code::CALL_UNCERTAIN, format!("`{of}`: {error}"));
            Sent::Unknown
        }
        Err(error) if full(error) => {
            asker.outcome.say(Severity::Note, Code::COPIES_QUEUE, error.to_string());
            Sent::Full
        }
        Err(error) => {
            asker.outcome.add("copies-refused", 1);
            asker.outcome.failed += 1;
            asker.outcome.say(Severity::Error, Code::COPY_REFUSED, format!("`{of}`: {error}"));
            Sent::Refused
        }
    }
}

/// Nothing happened, so there was no attempt. Only what AWS refused is asked for less and less: what was never sent, or found no
/// place, says nothing of what was asked for.
fn take_back<I: Intent>(record: &mut Record<I, I::Copy>, token: &str, error: &CallError, before: Option<Refused>, at: Timestamp) {
    record.intent.attempts_mut().retain(|attempt| attempt.token != token);
    if error.effect != Effect::Refused || full(error) {
        record.refused = before;
        return;
    }
    let times = before.map_or(0, |before| before.times).saturating_add(1);
    let message = printable(&error.message, 300);
    record.refused = Some(Refused { at, code: error.aws_code.clone(), message, times });
}
