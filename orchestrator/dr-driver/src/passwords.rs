//! Which version of each secret was current when a snapshot or a backup was made (H42).
//!
//! It is written down with the intent of the copy, as far as the secrets are answered for. No copy waits for them: its source may
//! be purged meanwhile, and a version can still be told later, while it is AWSCURRENT or AWSPREVIOUS. So a secret that gave no
//! answer has no line in the record, which says that nobody knows yet, and the line is added by the first run that gets one.
//! A line without a version says that the stages tell nothing, and stays.

use crate::store::{Intent, Read, Record};
use crate::world::Asker;
use std::collections::{BTreeMap, BTreeSet};
use tde2hsm_dr::facts::Secret;
use tde2hsm_dr::points::{SecretRole, SecretUse};
use tde2hsm_dr::records::SecretAt;
use tde2hsm_dr::secrets;
use tde2hsm_protocol::{Code, SecretArn, Severity, Timestamp};

/// Records written by one run: a secret that is named anew is lacking in all of them.
const RECORDS: usize = 100;

/// Secrets as the source region has them. One that gave no answer is left out.
pub async fn of_now(asker: &mut Asker<'_>, arns: &BTreeSet<SecretArn>) -> Vec<Secret> {
    let region = asker.config.source_region.clone();
    let answers = asker.secrets(&region, arns).await;
    let mut found = Vec::new();
    for (arn, secret) in answers {
        match secret {
            Some(secret) => found.push(secret),
            None => {
                let text = format!("there is no secret `{arn}` in {region}");
                asker.outcome.say(Severity::Error, Code::SECRET_UNKEPT, text);
            }
        }
    }
    found
}

/// Those that are used for this.
pub fn used(uses: &[SecretUse], role: SecretRole) -> BTreeSet<SecretArn> {
    uses.iter().filter(|one| one.role == role).map(|one| one.secret.clone()).collect()
}

/// What is known of a moment.
pub fn at(found: &[Secret], moment: Timestamp) -> Vec<SecretAt> {
    found.iter().map(|secret| secrets::at(secret, moment)).collect()
}

/// The record says nothing yet of one of these secrets.
pub fn lacks<I: Intent>(record: &Record<I, I::Copy>, arns: &BTreeSet<SecretArn>) -> bool {
    let told = |arn: &SecretArn| record.intent.secrets().iter().any(|at| secrets::same(&at.secret, arn));
    !record.expired() && !arns.iter().all(told)
}

/// Adds what the records lack of these secrets.
pub async fn complete<I: Intent>(
    asker: &mut Asker<'_>,
    records: &mut BTreeMap<I::Copy, Read<Record<I, I::Copy>>>,
    found: &[Secret],
) {
    let arns: BTreeSet<SecretArn> = found.iter().map(|secret| secret.arn.clone()).collect();
    for read in records.values_mut().filter(|read| lacks(&read.value, &arns)).take(RECORDS) {
        let mut record = read.value.clone();
        let moment = record.intent.moment();
        for secret in found {
            if !record.intent.secrets().iter().any(|at| secrets::same(&at.secret, &secret.arn)) {
                record.intent.secrets_mut().push(secrets::at(secret, moment));
            }
        }
        let Some(etag) = asker.write(&record.intent.key(), &record, Some(&read.etag)).await else { continue };
        *read = Read { value: record, etag };
        asker.outcome.add("records-completed", 1);
    }
}
