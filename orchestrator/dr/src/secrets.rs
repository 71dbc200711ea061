//! Which version of a secret was current at a moment, as far as its stages still tell (H42).
//!
//! Versions that lost their stages are removed without a trace, so the newest version that is older than a moment need not
//! be the one that was current then. Only what AWSCURRENT and AWSPREVIOUS say is believed; everything older must have been
//! recorded while it could be seen ([`crate::records::SecretAt`]).

use crate::facts::{Secret, SecretVersionFact};
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

/// It is current, or was the last one that was: what was made lately may want it, whoever wrote that down.
pub fn is_young(fact: &SecretVersionFact) -> bool {
    fact.stages.contains(CURRENT) || fact.stages.contains(PREVIOUS)
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
    // A stage can be moved back to an older version. What was made after that one and was current as well may have been current
    // at the moment, and nothing tells from when to when.
    let newest = secret.versions.iter().filter(|fact| versions.contains(&fact.version)).filter_map(|fact| fact.created).max();
    let was_current = |fact: &SecretVersionFact| {
        fact.stages.contains(PREVIOUS) || fact.stages.contains(&stage_of(&fact.version)) && !fact.stages.contains(PENDING)
    };
    let between = |created: Timestamp| newest.is_some_and(|newest| created > newest) && created <= moment.plus(MARGIN);
    if secret.versions.iter().any(|fact| was_current(fact) && fact.created.is_some_and(between)) {
        versions.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::Region;

    const DAY: i64 = 86_400;

    fn version(n: u8) -> SecretVersion {
        SecretVersion::new(format!("{n:08}-0000-4000-8000-000000000000")).unwrap()
    }

    /// Version 1 of day 10, version 2 of day 20, with these stages.
    fn secret(stages: [&[&str]; 2]) -> Secret {
        let fact = |(n, stages): (usize, &&[&str])| SecretVersionFact {
            version: version(n as u8 + 1),
            stages: stages.iter().map(|stage| (*stage).to_owned()).collect(),
            created: Some(Timestamp((n as i64 + 1) * 10 * DAY)),
        };
        Secret {
            arn: SecretArn::new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/hsm-AbCdEf").unwrap(),
            region: Region::new("eu-central-1").unwrap(),
            versions: stages.iter().enumerate().map(fact).collect(),
            replicas: Default::default(),
            deleted: false,
            kms_key: None,
        }
    }

    fn told(secret: &Secret, day: i64) -> Vec<SecretVersion> {
        at(secret, Timestamp(day * DAY)).versions
    }

    /// H42: the stage was moved back to the older version. While the newer one was current a backup has its password, and the
    /// stages say the other.
    #[test]
    fn h42_a_stage_that_was_moved_back_tells_nothing_from_the_newer_version_on() {
        let moved_back = secret([&[CURRENT], &[PREVIOUS]]);
        assert_eq!(told(&moved_back, 15), [version(1)], "the newer one was not made yet");
        assert_eq!(at(&moved_back, Timestamp(20 * DAY - MARGIN - 1)).versions, [version(1)]);
        assert_eq!(at(&moved_back, Timestamp(20 * DAY - MARGIN)).versions, []);
        assert_eq!(told(&moved_back, 25), []);
        // Another rotation took AWSPREVIOUS from it; that it was kept says that it was current.
        let ours = stage_of(&version(2));
        assert_eq!(told(&secret([&[CURRENT], &[&ours]]), 25), []);
        // One that nobody ever took for current, such as a rotation that was given up, means nothing.
        assert_eq!(told(&secret([&[CURRENT], &[]]), 25), [version(1)]);
        assert_eq!(told(&secret([&[PREVIOUS], &[CURRENT]]), 25), [version(2)], "a rotation as usual");
    }
}
