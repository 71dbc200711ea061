//! Redo that still needs a former key is gone before anything else happens (H2).
//!
//! Redo written under a key needs it for crash recovery (ORA-28374, the database stays MOUNTED). So after each key
//! change: archive the current log, checkpoint, and wait until no log that is as old as the change is CURRENT or
//! ACTIVE. Only crash recovery is made independent by this; what else still needs the former key (restore points,
//! flashback logs) is refused before the change, where that key will be out of reach.

use super::common::{failed, subject};
use crate::oracle::state::OldKeys;
use crate::oracle::{Db, Session, ddl, views};
use crate::step::{Context, Kind, StepError};
use serde_json::json;
use std::time::Duration;
use tde2hsm_protocol::{Code, Sid};

fn blocked(sid: &Sid, kind: Kind, why: impl std::fmt::Display) -> StepError {
    StepError::new(kind, Code::REDO_NOT_CLEAN, format!("{sid}: {why}")).of(sid)
}

/// Before a change after which the former key cannot be reached any more.
pub fn nothing_older(db: &Db, s: &mut Session, old_keys: OldKeys) -> Result<(), StepError> {
    if old_keys == OldKeys::Reachable {
        return Ok(());
    }
    let sid = db.sid();
    let points = views::restore_points(s, None).map_err(|error| failed(sid, error))?;
    // One that is not guaranteed is a name for a time; it keeps no logs of its own.
    let names: Vec<_> = points.iter().filter(|point| point.guaranteed).map(|point| point.name.as_str()).collect();
    if !names.is_empty() {
        return Err(blocked(sid, Kind::Final, format!("restore points need the former key: {}", names.join(", "))));
    }
    if views::database(s).map_err(|error| failed(sid, error))?.flashback {
        return Err(blocked(sid, Kind::Final, "flashback logs need the former key: FLASHBACK is on"));
    }
    Ok(())
}

pub fn clean(ctx: &mut Context<'_>, db: &Db, s: &mut Session) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let fail = |error| failed(&sid, error);
    if views::instance(s).map_err(fail)?.archiver_stuck {
        return Err(blocked(&sid, Kind::Waiting, "the archiver is stuck"));
    }
    let logs = views::redo(s).map_err(fail)?;
    let newest = logs.iter().map(|(_, sequence)| *sequence).max().unwrap_or_default();
    let archives = views::database(s).map_err(fail)?.log_mode == "ARCHIVELOG";
    let switch = if archives { "ALTER SYSTEM ARCHIVE LOG CURRENT" } else { "ALTER SYSTEM SWITCH LOGFILE" };
    for text in [switch, "ALTER SYSTEM CHECKPOINT"] {
        let statement = ddl::Statement::plain(text, db.limits.open).map_err(|error| failed(&sid, error.into()))?;
        match s.run(&statement) {
            Ok(_) => {}
            // An archiver that cannot write holds the statement; it changes nothing and waits on the server (H21).
            Err(error) if error.unknown_outcome() => {
                return Err(blocked(&sid, Kind::Waiting, format!("`{text}` does not come back: {error}")));
            }
            Err(error) if matches!(error.ora(), Some(16038 | 257 | 19809 | 19504)) => {
                return Err(blocked(&sid, Kind::Waiting, format!("logs cannot be archived: {error}")));
            }
            Err(error) => return Err(failed(&sid, error)),
        }
    }
    let deadline = ctx.clock.monotonic() + db.limits.open;
    let mut pause = Duration::from_millis(50);
    loop {
        let logs = views::redo(s).map_err(|error| failed(&sid, error))?;
        let old: Vec<String> = logs
            .iter()
            .filter(|(log, sequence)| *sequence <= newest && matches!(log.status.as_str(), "CURRENT" | "ACTIVE"))
            .map(|(log, sequence)| format!("group {} sequence {sequence} is {}", log.group, log.status))
            .collect();
        if old.is_empty() {
            return ctx.observed(subject(&sid), "redo clean", json!({ "up to sequence": newest }));
        }
        if ctx.clock.monotonic() >= deadline {
            return Err(blocked(&sid, Kind::Waiting, old.join(", ")));
        }
        ctx.clock.pause(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
