//! `resume`: goes on where the journal ends. Hosts that failed are tried again; what was intended and has no answer is
//! looked up before anything is sent.

use super::status::{Pick, pick};
use crate::args::{NamedSecret, Resume};
use crate::context::Context;
use crate::drive::{Progress, drive};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::night::Night;
use std::collections::BTreeSet;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::{End, EventKind, Retry, State};
use tde2hsm_driver::{Driver, plan_of};
use tde2hsm_protocol::{Code, SecretRef, SecretVersion};

pub async fn run(context: &Context, args: Resume) -> Result<Exit, Failure> {
    let journal = context.existing_journal().await?;
    let campaign = pick(&journal, args.campaign, Pick::Unfinished).await?;
    let (plan, events, _) = plan_of(&journal, &campaign).await?;
    let state = State::replay(plan.clone(), &events);
    let (aws, anew) = context.aws_again(&state, &args.anew, &args.approval).await?;
    let night = Night::new(context, &aws, &plan, document(&state, anew.as_ref())).await;
    let progress = Progress::new(context.out);
    let mut driver = Driver::open(&journal, &night, &context.clock, &progress, campaign).await?;
    if driver.state().end() == Some(End::Superseded) {
        return Err(Failure::new(Code::JOURNAL_CONFLICT, "a newer controller has taken the campaign over"));
    }
    let frozen = driver.state().summary(context.now()).frozen;
    let mut events = vec![EventKind::Interrupted { why: "resumed".to_owned() }];
    events.extend(anew);
    let planned: Vec<&SecretRef> = plan.secrets.iter().map(|s| &s.secret).collect();
    for named in args.secrets {
        let secret = replaced(&planned, &frozen, &named)?;
        events.push(EventKind::SecretNamed { secret, version: named.version });
    }
    let retry = if driver.state().end().is_some() { Retry::Failed } else { Retry::Nothing };
    events.push(EventKind::Resumed { hosts: retry, window: None });
    driver.record(events).await?;
    drive(context, "resume", &night, &journal, &mut driver, args.approval.yes).await
}

/// Which of the plan's secrets a person means: the former version that they name, the only one there is, or the only one
/// that was refused. A guess could put one database's password before another's HSM.
fn replaced(planned: &[&SecretRef], frozen: &[SecretRef], named: &NamedSecret) -> Result<SecretRef, Failure> {
    let of = |secrets: &mut dyn Iterator<Item = &SecretRef>| -> BTreeSet<SecretVersion> {
        secrets.filter(|s| s.arn == named.arn).map(|s| s.version.clone()).collect()
    };
    let (all, refused) = (of(&mut planned.iter().copied()), of(&mut frozen.iter()));
    if all.is_empty() {
        let arns: BTreeSet<String> = planned.iter().map(|s| format!("`{}`", s.arn)).collect();
        let hint = format!("it uses {}", Vec::from_iter(arns).join(", "));
        return Err(Failure::usage(format!("the plan uses no secret `{}`", named.arn)).hint(hint));
    }
    let list =
        |versions: &BTreeSet<SecretVersion>| versions.iter().map(|version| format!("`{version}`")).collect::<Vec<_>>().join(", ");
    let hint = || format!("write `--secret ARN=FORMER:VERSION`, FORMER one of {}", list(&all));
    let version = match (&named.former, all.len(), refused.len()) {
        (Some(former), ..) if all.contains(former) || refused.contains(former) => former.clone(),
        (Some(former), ..) => {
            return Err(Failure::usage(format!("the plan uses no version `{former}` of `{}`", named.arn)).hint(hint()));
        }
        (None, 1, _) => all.into_iter().next().expect("one"),
        (None, _, 1) => refused.into_iter().next().expect("one"),
        (None, several, _) => {
            let message = format!("the plan uses {several} versions of `{}`, and which one is replaced is not said", named.arn);
            return Err(Failure::usage(message).hint(hint()));
        }
    };
    Ok(SecretRef { arn: named.arn.clone(), version })
}

/// The document in use, or the one that is about to be named.
pub fn document<'a>(state: &'a State, anew: Option<&'a EventKind>) -> &'a DocumentPin {
    match anew {
        Some(EventKind::DocumentNamed { document }) => document,
        _ => state.document(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::SecretArn;

    fn arn(name: &str) -> SecretArn {
        SecretArn::new(format!("arn:aws:secretsmanager:us-east-1:111122223333:secret:tde/{name}-AbCdEf")).unwrap()
    }

    fn version(n: u8) -> SecretVersion {
        SecretVersion::new(format!("00000000-0000-0000-0000-00000000000{n}")).unwrap()
    }

    #[test]
    fn a_second_version_of_a_secret_can_be_named_and_is_never_guessed() {
        let secret = |n| SecretRef { arn: arn("cu"), version: version(n) };
        let (first, second) = (secret(1), secret(2));
        let named = |former: Option<u8>| NamedSecret { arn: arn("cu"), former: former.map(version), version: version(9) };
        let both = [&first, &second];
        // The one that was refused, or the one that is said.
        assert_eq!(replaced(&both, &[secret(2)], &named(None)).unwrap(), second);
        assert_eq!(replaced(&both, &[], &named(Some(2))).unwrap(), second);
        assert_eq!(replaced(&both, &[secret(2)], &named(Some(1))).unwrap(), first);
        // One that a person named before, and that was refused as well.
        assert_eq!(replaced(&both, &[secret(7)], &named(None)).unwrap(), secret(7));
        for (frozen, former) in [(vec![], None), (vec![secret(1), secret(2)], None), (vec![], Some(5))] {
            let refused = replaced(&both, &frozen, &named(former)).unwrap_err();
            assert_eq!(refused.code, Some(Code::ARGUMENT));
            let hint = refused.hint.unwrap();
            assert!(hint.contains("FORMER:VERSION") && hint.contains(version(2).as_str()), "{hint}");
        }
        assert_eq!(replaced(&[&first], &[], &named(None)).unwrap(), first);
        let strange = replaced(&both, &[], &NamedSecret { arn: arn("other"), ..named(None) }).unwrap_err();
        assert!(strange.hint.unwrap().contains(arn("cu").as_str()));
    }
}
