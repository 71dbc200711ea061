//! Which version of a secret was current at a moment, as far as its stages still tell (H42).
//!
//! Versions that lost their stages are removed without a trace, so the newest version that is older than a moment need not
//! be the one that was current then. Only what AWSCURRENT and AWSPREVIOUS say is believed; everything older must have been
//! recorded while it could be seen ([`crate::records::SecretAt`]).

use crate::facts::Secret;
use crate::points::MARGIN;
use crate::records::SecretAt;
use tde2hsm_protocol::{SecretArn, SecretVersion, Timestamp};

pub const CURRENT: &str = "AWSCURRENT";
pub const PREVIOUS: &str = "AWSPREVIOUS";
pub const PENDING: &str = "AWSPENDING";

/// The stage that keeps a version: one for each version, since a stage is on one version at a time.
pub fn stage_of(version: &SecretVersion) -> String {
    format!("tde2hsm-{version}")
}

/// The version that was current at `moment`. Empty: the stages do not tell. Several: it was rotated around that moment.
pub fn at(secret: &Secret, moment: Timestamp) -> SecretAt {
    let staged = |stage: &str| secret.versions.iter().find(|version| version.stages.contains(stage));
    let mut versions: Vec<SecretVersion> = Vec::new();
    let (current, previous, pending) = (staged(CURRENT), staged(PREVIOUS), staged(PENDING));
    if let Some(current) = current
        && let Some(created) = current.created
    {
        if created <= moment.plus(MARGIN) {
            versions.push(current.version.clone());
        }
        if created > moment.plus(-MARGIN)
            && let Some(previous) = previous
            && let Some(earlier) = previous.created
        {
            // Older than the previous one, or not far enough from it: what was before that is no longer told.
            if earlier <= moment.plus(-MARGIN) {
                versions.push(previous.version.clone());
            } else {
                versions.clear();
            }
        }
        if created > moment.plus(-MARGIN) && previous.is_none() {
            versions.clear();
        }
    }
    // A rotation under way: the password may be either.
    if let Some(pending) = pending
        && Some(&pending.version) != current.map(|c| &c.version)
        && !versions.is_empty()
        && pending.created.is_none_or(|created| created <= moment.plus(MARGIN))
    {
        versions.push(pending.version.clone());
    }
    SecretAt { secret: secret.arn.clone(), versions }
}

/// The parts of an ARN but for its region: a replica's ARN differs in the region alone.
fn parts(arn: &SecretArn) -> impl Iterator<Item = &str> {
    arn.as_str().split(':').enumerate().filter(|(index, _)| *index != 3).map(|(_, part)| part)
}

/// What is left of an ARN without its region.
pub fn without_region(arn: &SecretArn) -> String {
    parts(arn).collect::<Vec<_>>().join(":")
}

/// The same secret, be it in another region.
pub fn same(a: &SecretArn, b: &SecretArn) -> bool {
    parts(a).eq(parts(b))
}
