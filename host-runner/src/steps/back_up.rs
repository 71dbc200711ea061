//! `back-up`: copies and hashes of everything a person would need to put a host back by hand, and a control file copy;
//! and the question whether a full backup is recent enough (H7). Copies are never replaced and never removed.

use super::common::{connect, failed, orders, subject, unique};
use super::config::{self, Style};
use super::restart;
use crate::journal::Subject;
use crate::oracle::{Db, Session, ddl, views};
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use serde_json::json;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::{Code, DatabaseOrder, Digest};

pub struct BackUp;

impl StepBody for BackUp {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        if ctx.databases().is_empty() {
            return Ok(StepEnd::Nothing);
        }
        let libraries = ctx.provider().libraries()?;
        let tree = json!(libraries);
        if ctx.recall(&Subject::Host, "provider-tree").as_ref() != Some(&tree) {
            ctx.remember(Subject::Host, "provider-tree", tree)?;
        }
        let mut end = StepEnd::AlreadyDone;
        for order in orders(ctx) {
            if back_up(ctx, &order)? {
                end = StepEnd::Done;
            }
        }
        Ok(end)
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Ok(StepEnd::Nothing)
    }
}

fn back_up(ctx: &mut Context<'_>, order: &DatabaseOrder) -> Result<bool, StepError> {
    let sid = &order.sid;
    let db = super::common::db(ctx, sid)?;
    let mut s = connect(&db)?;
    recent_enough(order, &mut s)?;
    restart::remember(ctx, &db, &mut s)?;
    let keystore = config::keystore(ctx, &db, &mut s)?;
    let mut sources: Vec<PathBuf> = Vec::new();
    if let Style::Sqlnet { file } = &keystore.style {
        sources.push(file.clone());
    }
    sources.push(PathBuf::from(db.place.sqlnet_ora()));
    let mut files = db.owner.files()?;
    for info in files.list(&keystore.dir)?.unwrap_or_default() {
        let name = info.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if info.kind == crate::files::FileKind::File && (name.ends_with(".p12") || name.ends_with(".sso")) {
            sources.push(info.path);
        }
    }
    sources.sort();
    sources.dedup();
    let to = copies(ctx, &db);
    let mut seen = Vec::new();
    for path in &sources {
        if let Some(kept) = files.keep(path, &to)? {
            seen.push(json!(kept));
        }
    }
    // What the files are now decides whether a second run has anything to do.
    let of: Vec<_> = seen.iter().map(|kept| (kept["from"].clone(), kept["sha256"].clone())).collect();
    let done = json!({ "files": Digest::of_json(&of) });
    if ctx.recall(&subject(sid), "backed-up").as_ref() == Some(&done) {
        s.close();
        return Ok(false);
    }
    ctx.observed(subject(sid), "copies", json!(seen))?;
    written_by_server(ctx, &db, &mut s)?;
    s.close();
    ctx.remember(subject(sid), "backed-up", done)?;
    Ok(true)
}

fn copies(ctx: &Context<'_>, db: &Db) -> PathBuf {
    ctx.paths.copies().join(ctx.order.campaign.as_str()).join(db.sid().as_str())
}

/// H7. Zero hours: the fleet file waives it.
fn recent_enough(order: &DatabaseOrder, s: &mut Session) -> Result<(), StepError> {
    if order.backup_hours == 0 {
        return Ok(());
    }
    let sid = &order.sid;
    let age = views::full_backup_age(s).map_err(|error| failed(sid, error))?;
    let limit = i64::from(order.backup_hours) * 3600;
    let why = match age {
        Some(age) if age <= limit => return Ok(()),
        Some(age) => format!("{sid}: the newest full backup is {} h old; {} h are wanted", age / 3600, order.backup_hours),
        None => format!("{sid}: RMAN knows of no full backup"),
    };
    Err(StepError::new(Kind::Final, Code::BACKUP_TOO_OLD, why).of(sid))
}

/// The server writes these itself, so they go where its owner may write and nobody else may look; then they are copied and
/// hashed like the rest.
fn written_by_server(ctx: &mut Context<'_>, db: &Db, s: &mut Session) -> Result<(), StepError> {
    let sid = db.sid().clone();
    let dir = crate::files::scratch(ctx.paths, db.owner.uid, db.owner.gid)?.join(ctx.order.campaign.as_str()).join(sid.as_str());
    let mut files = db.owner.files()?;
    files.make_dir(&dir, 0o700)?;
    let word = unique(ctx);
    let spfile = views::parameters(s, &["spfile"]).map_err(|error| failed(&sid, error))?.contains_key("spfile");
    let mut wanted = vec![
        (format!("control-{word}.ctl"), "ALTER DATABASE BACKUP CONTROLFILE TO", ""),
        (format!("memory-{word}.ora"), "CREATE PFILE =", " FROM MEMORY"),
    ];
    if spfile {
        wanted.push((format!("spfile-{word}.ora"), "CREATE PFILE =", " FROM SPFILE"));
    }
    let to = copies(ctx, db);
    for (name, before, behind) in wanted {
        let path = dir.join(name);
        let quoted = ddl::literal(&path.display().to_string(), "a path").map_err(|error| failed(&sid, error.into()))?;
        let statement =
            ddl::Statement::plain(format!("{before} {}{behind}", *quoted), db.limits.open).map_err(|e| failed(&sid, e.into()))?;
        ctx.intend(subject(&sid), "copy by the server", json!({ "statement": statement.shown() }))?;
        s.run(&statement).map_err(|error| failed(&sid, error))?;
        let kept = keep(&mut files, &path, &to)?;
        ctx.observed(subject(&sid), "copy by the server", json!(kept))?;
    }
    Ok(())
}

fn keep(files: &mut crate::owner::OwnerFiles, path: &Path, to: &Path) -> Result<Option<crate::files::Kept>, StepError> {
    // A control file may be larger than what is read into memory at once: its hash there is enough then.
    match files.keep(path, to) {
        Ok(kept) => Ok(kept),
        Err(crate::files::FileError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
