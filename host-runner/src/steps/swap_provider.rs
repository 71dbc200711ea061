//! `swap-provider`: every database that has or will have the library mapped goes down, the library is exchanged, and
//! each starts as before.
//!
//! Safe because of its order. Nothing stops before the gate has seen, in each affected database, that the software
//! keystore holds every active key and that nothing names another (H1, H3), that its redo is clean (H2), and that the
//! new library loads. Nothing moves before all are down, cleanly and seen by us; one that hangs costs only the start of
//! those already down, on the library they had (H26). Auto-login files are aside and the configuration says FILE
//! before the first start (H12). A turn that a crash broke off begins again by looking: a database that is down
//! without our record of a clean stop is started on the old library first, while that is in place.

use super::common::{all_places, connect, credentials, db as find, exchanged, failed, observe, orders, subject};
use super::config::{self, Keystore, Style, Want};
use super::enable_auto_open::move_aside;
use super::restart::{self, Stopped};
use super::{redo, rotate};
use crate::journal::Subject;
use crate::oracle::parameter_file::ParameterFiles;
use crate::oracle::state::OldKeys;
use crate::oracle::{Db, Place};
use crate::provider::Swap;
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::{Value, json};
use std::path::Path;
use tde2hsm_protocol::{Code, DatabaseOrder, Sid, Source, Store};

pub struct SwapProvider;

/// A database of the order that has to stop for the swap (H17, H27).
struct Affected {
    order: DatabaseOrder,
    keystore: Keystore,
}

impl StepBody for SwapProvider {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.databases().is_empty() {
            return Ok(StepEnd::Nothing);
        }
        if exchanged(ctx)? {
            return after(ctx);
        }
        let affected = gate(ctx)?;
        foreign(ctx)?;
        loads(ctx)?;
        let stamp = stamp(ctx);
        configure_file(ctx, &affected)?;
        all_down(ctx, &affected)?;
        let result = exchange(ctx, &affected, &stamp);
        if let Err(error) = result {
            // The old tree is in place, or the swap would have gone on: they start on what they had.
            start_all(ctx, &affected)?;
            return Err(error);
        }
        start_all(ctx, &affected)?;
        Ok(StepEnd::Done)
    }

    fn undo(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.databases().is_empty() {
            return Ok(StepEnd::Nothing);
        }
        let provider = ctx.provider();
        let noted: Option<Swap> = ctx.recall(&Subject::Host, "swap").and_then(|value| serde_json::from_value(value).ok());
        // A worker that died right after the exchange wrote nothing down; the disk still tells.
        let ours = match noted.clone() {
            Some(swap) => Some(swap),
            None => provider.swapped(&stamp(ctx))?,
        };
        let begun = match &ours {
            Some(swap) => provider.is_swapped()? || provider.is_between(swap)?,
            None => false,
        };
        let Some(swap) = ours.filter(|_| begun) else {
            for order in orders(ctx) {
                restart::ensure_up(ctx, &order)?;
                auto_login_again(ctx, &order)?;
            }
            return Ok(if noted.is_some() { StepEnd::Undone } else { StepEnd::AlreadyDone });
        };
        let affected = gate_back(ctx)?;
        foreign(ctx)?;
        configure_file(ctx, &affected)?;
        all_down(ctx, &affected)?;
        for member in &affected {
            move_aside(ctx, &member.order.sid, "the library goes back")?;
        }
        ctx.intend(Subject::Host, "swap back", json!(swap))?;
        let stamp = stamp(ctx);
        let result = ctx.provider().swap_back(&swap, &stamp);
        if let Err(error) = result {
            start_all(ctx, &affected)?;
            return Err(error.into());
        }
        ctx.observed(Subject::Host, "swap back", json!({}))?;
        start_all(ctx, &affected)?;
        for order in orders(ctx) {
            auto_login_again(ctx, &order)?;
        }
        Ok(StepEnd::Undone)
    }
}

/// The same in every attempt of a campaign: a second one goes on where a crash left the first.
fn stamp(ctx: &Context<'_>) -> String {
    ctx.order.campaign.to_string()
}

/// The swap is done: whatever is down comes up.
fn after(ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
    let mut end = StepEnd::AlreadyDone;
    for order in orders(ctx) {
        let db = find(ctx, &order.sid)?;
        super::common::settle(ctx, &db)?;
        if restart::is_down(&db)? {
            end = StepEnd::Done;
        }
        if restart::stop_begun(ctx, &order.sid) {
            start_one(ctx, &order)?;
            end = StepEnd::Done;
        } else {
            restart::ensure_up(ctx, &order)?;
        }
    }
    Ok(end)
}

/// A database that this campaign has taken down already: what is known of it was remembered before.
fn down(ctx: &Context<'_>, order: DatabaseOrder) -> Result<Affected, StepError> {
    let sid = &order.sid;
    let unknown =
        || StepError::new(Kind::Stuck, Code::KEYSTORE_MISSING, format!("{sid}: down, and its keystore is not known")).of(sid);
    let keystore = config::remembered(ctx, sid).ok_or_else(unknown)?;
    Ok(Affected { order, keystore })
}

/// H1 to H3, looked at again. Gives the databases that have to stop.
fn gate(ctx: &mut Context<'_>) -> Result<Vec<Affected>, StepError> {
    let mapped = ctx.provider().mapped()?;
    let mut affected = Vec::new();
    for order in orders(ctx) {
        let sid = order.sid.clone();
        if restart::in_window(ctx, &sid)? {
            affected.push(down(ctx, order)?);
            continue;
        }
        let member = super::reverse_migrate::member(ctx, order.clone())?;
        let mut s = connect(&member.db)?;
        let from_hsm = matches!(order.source, Source::OldHsm { .. });
        if from_hsm {
            s.close();
            rotate::prove(ctx, &member, Store::Software, OldKeys::Gone)?;
            s = connect(&member.db)?;
        }
        let maps = mapped.iter().any(|mapping| mapping.sid.as_ref() == Some(&sid));
        // A software source restarts where its configuration is in `sqlnet.ora`, or where something of it may have tried
        // the library: a failed load is cached until the instance stops (H27).
        let sqlnet = matches!(member.keystore.style, Style::Sqlnet { .. });
        let names_hsm = config::now(&member.db, &member.keystore, &mut s)?.names_hsm();
        if from_hsm || maps || sqlnet || names_hsm {
            if from_hsm {
                redo::nothing_older(&member.db, &mut s, OldKeys::Gone)?;
            }
            redo::clean(ctx, &member.db, &mut s)?;
            affected.push(Affected { order, keystore: member.keystore });
        }
        s.close();
    }
    Ok(affected)
}

/// Before the former library comes back: no active key is in CloudHSM, in any database of the host (H29).
fn gate_back(ctx: &mut Context<'_>) -> Result<Vec<Affected>, StepError> {
    let mapped = ctx.provider().mapped()?;
    let mut affected = Vec::new();
    let mut on_cloudhsm = Vec::new();
    for order in orders(ctx) {
        let sid = order.sid.clone();
        if restart::in_window(ctx, &sid)? {
            affected.push(down(ctx, order)?);
            continue;
        }
        let member = super::reverse_migrate::member(ctx, order.clone())?;
        let mut s = connect(&member.db)?;
        let state = observe(&member.db, &mut s)?;
        if state.any_in(Store::Hsm) {
            on_cloudhsm.push(sid.to_string());
            continue;
        }
        s.close();
        rotate::prove(ctx, &member, Store::Software, OldKeys::Gone)?;
        let from_hsm = matches!(order.source, Source::OldHsm { .. });
        let maps = mapped.iter().any(|mapping| mapping.sid.as_ref() == Some(&sid));
        if from_hsm || maps {
            let mut s = connect(&member.db)?;
            redo::clean(ctx, &member.db, &mut s)?;
            s.close();
            affected.push(Affected { order, keystore: member.keystore });
        }
    }
    if on_cloudhsm.is_empty() {
        return Ok(affected);
    }
    let message = format!("still on CloudHSM: {}", on_cloudhsm.join(", "));
    Err(StepError::new(Kind::Parked, Code::DATABASES_ON_CLOUDHSM, message))
}

/// Databases outside the order that the swap would reach (H17): mapped, or configured for an HSM, running or not.
fn foreign(ctx: &mut Context<'_>) -> Result<(), StepError> {
    let named: Vec<Sid> = ctx.databases().iter().map(|order| order.sid.clone()).collect();
    for mapping in ctx.provider().mapped()? {
        let ours = mapping.sid.as_ref().is_some_and(|sid| named.contains(sid));
        if !ours {
            let who = mapping.sid.as_ref().map_or_else(|| format!("process {}", mapping.pid), ToString::to_string);
            let message = format!("{who} maps `{}` and is not in the plan", mapping.path);
            return Err(StepError::new(Kind::Final, Code::PROVIDER_MAPPED, message));
        }
    }
    for place in all_places(ctx)?.into_iter().filter(|place| !named.contains(&place.sid)) {
        if configured_for_hsm(ctx, &place)? {
            let message = format!("{} is configured for an HSM and is not in the plan", place.sid);
            return Err(StepError::new(Kind::Final, Code::PROVIDER_MAPPED, message).of(&place.sid));
        }
    }
    Ok(())
}

/// By its `sqlnet.ora` and what it would start with, which is readable while it is down.
pub(super) fn configured_for_hsm(ctx: &Context<'_>, place: &Place) -> Result<bool, StepError> {
    let db = Db::new(ctx.paths, place.clone())?;
    let found = ParameterFiles::of(&db).map_err(|error| {
        let message = format!("{} is not in the plan, and whether it is configured for an HSM is not known: {error}", place.sid);
        StepError::new(Kind::Final, Code::PROVIDER_MAPPED, message).of(&place.sid).caused_by(error)
    })?;
    let hsm = |value: &str| value.to_ascii_uppercase().contains("HSM");
    if found.is_some_and(|found| found.values("tde_configuration").any(hsm)) {
        return Ok(true);
    }
    let mut files = db.owner.files()?;
    let Some(bytes) = files.read(Path::new(&place.sqlnet_ora()))? else { return Ok(false) };
    let unreadable = |error: crate::sqlnet::SqlnetError| {
        let message = format!("`{}`: {error}", place.sqlnet_ora());
        StepError::new(Kind::Final, Code::SQLNET_UNREADABLE, message).of(&place.sid)
    };
    let location = crate::sqlnet::SqlnetFile::parse(&bytes).map_err(unreadable)?.wallet_location().map_err(unreadable)?;
    Ok(location.is_some_and(|location| location.method == crate::sqlnet::Method::Hsm))
}

/// The new library loads for each owner, before anything stops.
fn loads(ctx: &mut Context<'_>) -> Result<(), StepError> {
    let provider = ctx.provider();
    let library = provider.new_library();
    let mut done: Vec<u32> = Vec::new();
    for order in orders(ctx) {
        let db = find(ctx, &order.sid)?;
        if !done.contains(&db.owner.uid) {
            provider.loads(&db.owner, db.pmon(), &library).map_err(|error| StepError::from(error).of(&order.sid))?;
            done.push(db.owner.uid);
        }
    }
    Ok(())
}

/// Nothing can log in to anything at the next start (H12).
fn configure_file(ctx: &mut Context<'_>, affected: &[Affected]) -> Result<(), StepError> {
    for member in affected {
        if restart::in_window(ctx, &member.order.sid)? {
            continue;
        }
        let db = find(ctx, &member.order.sid)?;
        let mut s = connect(&db)?;
        config::configure(ctx, &db, &member.keystore, &mut s, Want::File)?;
        s.close();
    }
    Ok(())
}

fn all_down(ctx: &mut Context<'_>, affected: &[Affected]) -> Result<(), StepError> {
    for member in affected {
        let sid = &member.order.sid;
        let db = find(ctx, sid)?;
        let failed = match restart::stop(ctx, &db) {
            Ok(Stopped::Clean) => None,
            Ok(Stopped::Found) => {
                let message = format!("{sid} went down by itself; it is started on the library it had");
                Some(StepError::new(Kind::Retriable, Code::DATABASE_NOT_OPEN, message).of(sid))
            }
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            for other in affected {
                if other.order.sid != *sid || error.code == Code::DATABASE_NOT_OPEN {
                    start_one(ctx, &other.order)?;
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

fn exchange(ctx: &mut Context<'_>, affected: &[Affected], stamp: &str) -> Result<(), StepError> {
    for member in affected {
        let sid = &member.order.sid;
        move_aside(ctx, sid, "the library is exchanged")?;
    }
    let first = orders(ctx)
        .first()
        .map(|order| order.sid.clone())
        .ok_or_else(|| StepError::new(Kind::Final, Code::DATABASE_UNKNOWN, "the order names no database"))?;
    let owner = find(ctx, &first)?.owner;
    ctx.intend(Subject::Host, "swap", json!({ "stamp": stamp }))?;
    let swap = ctx.provider().swap(&owner, stamp)?;
    ctx.remember(Subject::Host, "swap", serde_json::to_value(&swap).expect("plain data serialises"))?;
    ctx.observed(Subject::Host, "swap", json!({ "sha256": swap.sha256 }))
}

fn start_all(ctx: &mut Context<'_>, affected: &[Affected]) -> Result<(), StepError> {
    let mut first = None;
    for member in affected {
        // One that does not start keeps no other down.
        if let Err(error) = start_one(ctx, &member.order) {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

fn start_one(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<(), StepError> {
    let db = find(ctx, &order.sid)?;
    let credentials = credentials(ctx, order)?;
    restart::start(ctx, &db, &credentials)?;
    let db = find(ctx, &order.sid)?;
    let mut s = connect(&db)?;
    let wallet = super::common::Wallet::read(&db, &mut s)?;
    super::common::open_everywhere(ctx, &db, &mut s, &wallet, Store::Software, &credentials)?;
    restart::reads(ctx, &db, &mut s)?;
    s.close();
    Ok(())
}

/// A software source that opened by itself does so again, with an auto-login keystore of what is in it now.
fn auto_login_again(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<(), StepError> {
    let sid = &order.sid;
    if order.source != Source::Software || ctx.recall(&subject(sid), "had-auto-login") != Some(Value::Bool(true)) {
        return Ok(());
    }
    let db = find(ctx, sid)?;
    let mut s = connect(&db)?;
    let keystore = config::keystore(ctx, &db, &mut s)?;
    if db.owner.files()?.stat(&keystore.dir.join(super::prepare_keystore::SSO))?.is_none() {
        let software = ctx.secrets.get(order.software)?;
        let password = crate::oracle::ddl::SoftwarePassword(software.reveal());
        let dir = keystore.dir.display().to_string();
        let statement = crate::oracle::ddl::create_auto_login(&dir, password, &s.limits()).map_err(|e| failed(sid, e.into()))?;
        super::common::send_once_ok(ctx, &db, &mut s, "create auto-login keystore", &statement)?;
    }
    s.close();
    Ok(())
}
