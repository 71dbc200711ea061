//! `stage-client`: the CloudHSM client is installed, configured and loads as the database owner, and each secret that
//! the order tells this host to prove has cost exactly one login (H10).
//!
//! No database is touched: the tree under extapi stays as it is. Where a process maps a file of `/opt/cloudhsm`, or an
//! SDK 3 is installed, the package would replace a live provider, and the step refuses (H18).

use super::common::{all_places, db as find, exchanged, orders, subject};
use super::swap_provider::configured_for_hsm;
use crate::journal::Subject;
use crate::oracle::Db;
use crate::packages::Installed;
use crate::provider::Probe;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::{Value, json};
use std::path::PathBuf;
use tde2hsm_protocol::{Code, DatabaseOrder, LoginResult, OperationId, Source};

pub struct StageClient;

impl StepBody for StageClient {
    /// A step that fails for good leaves a host as it found it: the client that it installed goes again.
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let mut error = match self.stage(ctx) {
            Err(error) if error.kind == Kind::Final => error,
            other => return other,
        };
        if let Err(left) = self.undo(ctx) {
            error.message = format!("{}; and the client stays: {}", error.message, left.message);
        }
        Err(error)
    }
    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.provider().is_swapped()? && in_use(ctx)? {
            let message = "the library of the client is in use under `/opt/oracle/extapi`";
            return Err(StepError::new(Kind::Final, Code::DATABASES_ON_CLOUDHSM, message));
        }
        let installed: Option<Installed> =
            ctx.recall(&Subject::Host, "client").and_then(|value| serde_json::from_value(value).ok());
        let Some(installed) = installed else { return Ok(StepEnd::AlreadyDone) };
        ctx.intend(Subject::Host, "remove client", json!(installed))?;
        ctx.packages().remove(&installed)?;
        ctx.remember(Subject::Host, "client", Value::Null)?;
        ctx.observed(Subject::Host, "remove client", json!({}))?;
        Ok(StepEnd::Undone)
    }
}

impl StageClient {
    fn stage(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let orders = orders(ctx);
        let Some(first) = orders.first() else { return Ok(StepEnd::Nothing) };
        let Some(target) = ctx.order.target.clone() else {
            return Err(StepError::new(Kind::Final, Code::PACKAGE_WORK, "the order names no cluster"));
        };
        if target.hsms.len() < 2 {
            let message = format!("{} has {} ACTIVE HSMs; two are wanted", target.cluster, target.hsms.len());
            return Err(StepError::new(Kind::Retriable, Code::HSM_FAILED, message));
        }
        let mut end = StepEnd::AlreadyDone;
        let swapped = exchanged(ctx)?;
        if !swapped {
            live_provider(ctx)?;
        }
        // What needs no new client is proven before anything is installed.
        prove_all(ctx, &orders, &mut end, |login| !matches!(login, Login::CloudHsm(_)))?;
        let db = find(ctx, &first.sid)?;
        let packages = ctx.packages();
        if !swapped {
            ctx.intend(Subject::Host, "install client", json!({ "before": packages.cloudhsm()? }))?;
            let installed = packages.install()?;
            ctx.observed(Subject::Host, "install client", json!(installed))?;
            if installed.changed {
                ctx.remember(Subject::Host, "client", serde_json::to_value(&installed).expect("plain data serialises"))?;
                end = StepEnd::Done;
            }
        }
        if !packages.is_configured(&target)? {
            ctx.intend(Subject::Host, "configure client", json!({ "cluster": target.cluster, "hsms": target.hsms }))?;
            packages.configure(&target, &db.owner)?;
            ctx.observed(Subject::Host, "configure client", json!({}))?;
            end = StepEnd::Done;
        }
        let provider = ctx.provider();
        let library = provider.new_library();
        let mut owners: Vec<u32> = Vec::new();
        for order in &orders {
            let db = find(ctx, &order.sid)?;
            if !owners.contains(&db.owner.uid) {
                owners.push(db.owner.uid);
                provider.loads(&db.owner, db.pmon(), &library).map_err(|error| StepError::from(error).of(&order.sid))?;
            }
        }
        prove_all(ctx, &orders, &mut end, |login| matches!(login, Login::CloudHsm(_)))?;
        Ok(end)
    }
}

/// Mapped, or what a database would load when it starts.
fn in_use(ctx: &Context<'_>) -> Result<bool, StepError> {
    if !ctx.provider().mapped()?.is_empty() {
        return Ok(true);
    }
    for place in all_places(ctx)? {
        if configured_for_hsm(ctx, &place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// H18.
fn live_provider(ctx: &Context<'_>) -> Result<(), StepError> {
    if ctx.provider().cloudhsm_mapped()? {
        let message = "a process maps a file below `/opt/cloudhsm`: the package would replace a live provider";
        return Err(StepError::new(Kind::Final, Code::PROVIDER_MAPPED, message));
    }
    let old: Vec<_> = ctx.packages().cloudhsm()?.into_iter().filter(|package| package.starts_with("cloudhsm-client")).collect();
    if old.is_empty() {
        return Ok(());
    }
    let message = format!("Client SDK 3 is installed: {}", old.join(", "));
    Err(StepError::new(Kind::Final, Code::PACKAGE_WORK, message))
}

/// What kind of secret an index is, and which database's owner and environment its login takes.
enum Login {
    CloudHsm(Db),
    OldHsm(Db),
    /// A keystore opens with it today. Its proof needs no login anywhere (H14).
    Software(Db, DatabaseOrder),
}

fn login_of(ctx: &Context<'_>, index: u16, orders: &[DatabaseOrder]) -> Result<Option<Login>, StepError> {
    for order in orders {
        if order.cloudhsm == index {
            return Ok(Some(Login::CloudHsm(find(ctx, &order.sid)?)));
        }
        if order.source == (Source::OldHsm { pin: index }) {
            return Ok(Some(Login::OldHsm(find(ctx, &order.sid)?)));
        }
        // A password that only a keystore of ours will have cannot be wrong before there is one.
        if order.software == index && order.source == Source::Software {
            return Ok(Some(Login::Software(find(ctx, &order.sid)?, order.clone())));
        }
    }
    Ok(None)
}

/// The logins of the order that are of a kind.
fn prove_all(
    ctx: &mut Context<'_>,
    orders: &[DatabaseOrder],
    end: &mut StepEnd,
    kind: impl Fn(&Login) -> bool,
) -> Result<(), StepError> {
    for index in ctx.host.prove_logins.clone() {
        if login_of(ctx, index, orders)?.as_ref().is_none_or(&kind) && prove(ctx, index, orders)? {
            *end = StepEnd::Done;
        }
    }
    Ok(())
}

/// The password of a keystore that is in use: no login is spent, but a refused one is not tried again either.
fn prove_software(ctx: &mut Context<'_>, index: u16, fact: &str, db: &Db, order: &DatabaseOrder) -> Result<bool, StepError> {
    match earlier(ctx.recall(&Subject::Host, fact).as_ref(), &ctx.host.operation) {
        Earlier::Proven => {
            ctx.results.login(index, LoginResult::Proven);
            return Ok(false);
        }
        Earlier::Refused => {
            ctx.results.login(index, LoginResult::Refused);
            return Err(login_refused(db, "an earlier try of this version was refused"));
        }
        Earlier::Doubt | Earlier::Begun | Earlier::Nothing => {}
    }
    (ctx.permit)()?;
    let (word, result, error) = match super::prepare_keystore::prove_in_stage(ctx, db, order) {
        Ok(()) => ("proven", LoginResult::Proven, None),
        Err(error) if error.code == Code::LOGIN_REFUSED => ("refused", LoginResult::Refused, Some(error)),
        Err(error) => ("unreachable", LoginResult::Unreachable, Some(error)),
    };
    ctx.remember(Subject::Host, fact, json!(format!("{word} {}", ctx.host.operation)))?;
    ctx.results.login(index, result);
    error.map_or(Ok(true), Err)
}

/// What this host knows of its login with a secret version.
#[derive(Debug, PartialEq, Eq)]
enum Earlier {
    Nothing,
    Begun,
    Proven,
    Refused,
    /// It was made, and what was said to it is no word about the password.
    Doubt,
}

/// A word and the operation that it was said to. A refusal is one for ever. A proof or a doubt of another operation is
/// none of this one: a host is asked to prove a version a second time only when a person has named it since (`resume
/// --secret`), and that person allows one login more.
fn earlier(fact: Option<&Value>, operation: &OperationId) -> Earlier {
    let Some(fact) = fact.and_then(Value::as_str) else { return Earlier::Nothing };
    let (word, by) = fact.split_once(' ').unwrap_or((fact, ""));
    match word {
        "unreachable" => Earlier::Nothing,
        "begun" => Earlier::Begun,
        "proven" | "doubt" if by != operation.as_str() => Earlier::Nothing,
        "proven" => Earlier::Proven,
        "doubt" => Earlier::Doubt,
        _ => Earlier::Refused,
    }
}

/// No answer, CKR_FUNCTION_FAILED and CKR_GENERAL_ERROR count as a login spent and are no word about the password: they
/// can be throttling or a lost link (`O§5.1`, `O§6.2`).
fn word_of(probe: &Probe) -> &'static str {
    match probe.login {
        LoginResult::Proven => "proven",
        LoginResult::Unreachable => "unreachable",
        LoginResult::Refused if probe.said.contains("CKR_PIN") || probe.said.contains("CKR_USER") => "refused",
        LoginResult::Refused => "doubt",
    }
}

/// Exactly one login for a secret version until a person names it again: one that was made, whatever it said and even if
/// nobody was left to hear it, is not made again (H10); what it said is read from the probe then.
fn prove(ctx: &mut Context<'_>, index: u16, orders: &[DatabaseOrder]) -> Result<bool, StepError> {
    let Some(secret) = ctx.order.secret(index).cloned() else {
        return Err(StepError::new(Kind::Final, Code::SECRET_UNREADABLE, format!("the order has no secret number {index}")));
    };
    let fact = format!("login {} {}", secret.arn, secret.version);
    let provider = ctx.provider();
    let (library, db) = match login_of(ctx, index, orders)? {
        None => return Ok(false),
        Some(Login::Software(db, order)) => return prove_software(ctx, index, &fact, &db, &order),
        Some(Login::CloudHsm(db)) => (provider.new_library(), db),
        Some(Login::OldHsm(db)) => {
            let libraries = provider.libraries()?;
            let [library] = libraries.as_slice() else {
                let message = format!("{} libraries below `/opt/oracle/extapi`", libraries.len());
                return Err(StepError::new(Kind::Final, Code::PROVIDER_LIBRARIES, message));
            };
            (PathBuf::from(&library.path), db)
        }
    };
    let known = earlier(ctx.recall(&Subject::Host, &fact).as_ref(), &ctx.host.operation);
    match known {
        Earlier::Proven => {
            ctx.results.login(index, LoginResult::Proven);
            return Ok(false);
        }
        Earlier::Refused => {
            ctx.results.login(index, LoginResult::Refused);
            return Err(login_refused(&db, "an earlier login with this version was refused"));
        }
        Earlier::Doubt => {
            ctx.results.login(index, LoginResult::Refused);
            return Err(login_doubtful(&db, "an earlier login with this version had none"));
        }
        Earlier::Begun | Earlier::Nothing => {}
    }
    // A worker that died in the middle left a probe that said itself how it ended.
    let ended = if known == Earlier::Begun { provider.last_probe(&fact)? } else { None };
    let probe = match ended {
        Some(probe) => probe,
        None => {
            (ctx.permit)()?;
            let value = ctx.secrets.get(index)?;
            ctx.remember(Subject::Host, &fact, json!("begun"))?;
            provider.probe(&fact, &db.owner, db.pmon(), &library, &value)?
        }
    };
    let word = word_of(&probe);
    ctx.remember(Subject::Host, &fact, json!(format!("{word} {}", ctx.host.operation)))?;
    ctx.observed(subject(db.sid()), "login proof", json!({ "secret": index, "said": probe.said, "library": probe.library }))?;
    ctx.results.login(index, probe.login);
    match probe.login {
        LoginResult::Proven => Ok(true),
        LoginResult::Refused if word == "doubt" => Err(login_doubtful(&db, &probe.said)),
        LoginResult::Refused => Err(login_refused(&db, &probe.said)),
        LoginResult::Unreachable => {
            let message = format!("the HSM cannot be asked: {}", probe.said);
            Err(StepError::new(Kind::Retriable, Code::TOKEN_UNREACHABLE, message).of(db.sid()))
        }
    }
}

/// The fleet is frozen as by a refusal: a login may have been spent (H10).
fn login_doubtful(db: &Db, said: &str) -> StepError {
    let message = format!("a login had no clear answer and counts as spent: {said}");
    StepError::new(Kind::Final, Code::LOGIN_REFUSED, message).of(db.sid())
}

fn login_refused(db: &Db, said: &str) -> StepError {
    StepError::new(Kind::Final, Code::LOGIN_REFUSED, format!("a login was refused: {said}")).of(db.sid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(name: &str) -> OperationId {
        OperationId::new(name).unwrap()
    }

    fn word(said: &str) -> &'static str {
        word_of(&Probe { login: LoginResult::Refused, said: said.to_owned(), library: None })
    }

    #[test]
    fn h10_a_doubt_is_one_login_until_a_person_names_the_version_again_and_a_refusal_is_one_for_ever() {
        let (first, named) = (operation("op-1"), operation("op-2"));
        for said in [
            "C_Login answered CKR_FUNCTION_FAILED",
            "C_Login answered CKR_GENERAL_ERROR",
            "no answer to C_Login: the probe gave no answer within 60 s",
        ] {
            let fact = json!(format!("{} {first}", word(said)));
            assert_eq!(earlier(Some(&fact), &first), Earlier::Doubt, "{said}: the same operation spends no second one");
            assert_eq!(earlier(Some(&fact), &named), Earlier::Nothing, "{said}: a person has named it since");
        }
        for said in ["C_Login answered CKR_PIN_INCORRECT", "C_Login answered CKR_PIN_LOCKED"] {
            let fact = json!(format!("{} {first}", word(said)));
            for operation in [&first, &named] {
                assert_eq!(earlier(Some(&fact), operation), Earlier::Refused, "{said}");
            }
        }
    }

    #[test]
    fn h10_a_version_that_is_named_after_it_was_refused_in_a_cutover_is_proven_anew() {
        let (first, named) = (operation("op-1"), operation("op-2"));
        let fact = json!(format!("proven {first}"));
        assert_eq!(earlier(Some(&fact), &first), Earlier::Proven);
        assert_eq!(earlier(Some(&fact), &named), Earlier::Nothing);
        assert_eq!(earlier(None, &first), Earlier::Nothing);
        // Nobody knows how it ended: its probe is read first.
        assert_eq!(earlier(Some(&json!("begun")), &named), Earlier::Begun);
    }
}
