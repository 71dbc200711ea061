//! Everything that is neither a query nor key management: ALTER SYSTEM and its family, start and stop.

use super::parse::{Token, tokens};
use super::sql::{self, Answer};
use super::{Instance, PdbMode, Run, Sess, State};
use crate::env::host_path;
use crate::error::{Ora, Result, ora};
use crate::params::{self, Config};
use crate::spec::TsStatus;

/// Class of a statement for counters and faults.
#[must_use]
pub fn class(sql: &str) -> String {
    let words: Vec<String> = sql.split_whitespace().take(4).map(|w| w.trim_end_matches(';').to_uppercase()).collect();
    let word = |i: usize| words.get(i).map_or("", String::as_str);
    match (word(0), word(1), word(2)) {
        ("SELECT" | "WITH", ..) => "SELECT".into(),
        ("ALTER", "SYSTEM", "SET") => "ALTER SYSTEM SET".into(),
        ("ALTER", "SYSTEM", "SWITCH") => "SWITCH LOGFILE".into(),
        ("ALTER", "SYSTEM", "ARCHIVE") => "ARCHIVE LOG".into(),
        ("ALTER", "SYSTEM", third) => third.to_owned(),
        ("ALTER", "DATABASE", third) => format!("ALTER DATABASE {third}"),
        ("ALTER", "PLUGGABLE", _) => "ALTER PLUGGABLE DATABASE".into(),
        (a, b, _) => format!("{a} {b}").trim().to_owned(),
    }
}

/// One statement of a session.
pub fn execute(run: &mut Run<'_>, sess: &mut Sess, text: &str) -> Result<Answer> {
    let text = text.trim().trim_end_matches(';').trim();
    let upper = text.to_uppercase();
    run.class = class(text);
    run.shared.lock().plant(&crate::sim::load());
    if upper.starts_with("ADMINISTER") {
        let statement = super::parse::parse(text)?;
        run.class = statement.class().into();
        if let Some(row) = run.shared.lock().sessions.get_mut(&sess.sid) {
            row.running.clone_from(&run.class);
        }
        super::akm::run(run, sess, &statement)?;
        return Ok(Answer::message("keystore altered."));
    }
    if upper.starts_with("SELECT") || upper.starts_with("WITH ") {
        return sql::select(&mut run.shared.lock(), sess, text);
    }
    if sess.hello.privilege == super::Privilege::Syskm {
        ora!(1031);
    }
    let all = tokens(text)?;
    let words: Vec<String> = all
        .iter()
        .map(|t| match t {
            Token::Word(w) => w.to_uppercase(),
            Token::Single(_) => "'".into(),
            Token::Double(_) => "\"".into(),
            Token::Punct(c) => c.to_string(),
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["COMMIT", ..] => Ok(Answer::message("Commit complete.")),
        ["ROLLBACK", ..] => Ok(Answer::message("Rollback complete.")),
        ["ALTER", "SESSION", "SET", "CONTAINER", "=", ..] => {
            set_container(run, sess, all.get(5))?;
            Ok(Answer::message("Session altered."))
        }
        ["ALTER", "SESSION", "SET", ..] => Ok(Answer::message("Session altered.")),
        ["ALTER", "SYSTEM", "SET" | "RESET", ..] => {
            set_parameter(run, sess, &all[2..])?;
            Ok(Answer::message("System altered."))
        }
        ["ALTER", "SYSTEM", rest @ ..] => {
            alter_system(run, sess, rest)?;
            Ok(Answer::message("System altered."))
        }
        ["ALTER", "DATABASE", "OPEN", rest @ ..] => {
            run.phase("begin")?;
            let read_write = !rest.starts_with(&["READ", "ONLY"]);
            run.shared.lock().open(sess, read_write)?;
            run.phase("end")?;
            Ok(Answer::message("Database altered."))
        }
        ["ALTER", "DATABASE", "MOUNT"] => {
            run.shared.lock().mount()?;
            Ok(Answer::message("Database altered."))
        }
        ["ALTER", "DATABASE", "BACKUP", "CONTROLFILE", rest @ ..] => {
            backup_controlfile(run, rest, &all)?;
            Ok(Answer::message("Database altered."))
        }
        ["ALTER", "DATABASE", verb @ ("BEGIN" | "END"), "BACKUP"] => {
            let mut instance = run.shared.lock();
            instance.control()?;
            instance.backup_mode = *verb == "BEGIN";
            Ok(Answer::message("Database altered."))
        }
        ["ALTER", "PLUGGABLE", "DATABASE", rest @ ..] => {
            alter_pdb(run, sess, rest, &all[3..])?;
            Ok(Answer::message("Pluggable database altered."))
        }
        ["ALTER", "TABLESPACE", _, rest @ ..] => {
            alter_tablespace(run, sess, &all[2], rest)?;
            Ok(Answer::message("Tablespace altered."))
        }
        ["CREATE", "PFILE", ..] | ["CREATE", "SPFILE", ..] => {
            let instance = run.shared.lock();
            create_file(&instance.home, &instance.sid, Some(&instance.memory), &all)?;
            Ok(Answer::message("File created."))
        }
        _ => Err(Ora::new(900)),
    }
}

fn name_of(token: Option<&Token>) -> Result<String> {
    match token {
        Some(Token::Word(w)) => Ok(w.to_uppercase()),
        Some(Token::Double(w) | Token::Single(w)) => Ok(w.clone()),
        _ => Err(Ora::new(65000)),
    }
}

fn set_container(run: &Run<'_>, sess: &mut Sess, token: Option<&Token>) -> Result<()> {
    // CDB$ROOT is one word for the tokeniser.
    let name = name_of(token)?;
    let instance = run.shared.lock();
    let control = instance.control()?;
    if !control.cdb {
        ora!(65090);
    }
    let found = control.containers.iter().find(|c| c.name.eq_ignore_ascii_case(&name)).ok_or_else(|| Ora::new(65011))?;
    sess.con = found.con_id;
    drop(instance);
    if let Some(row) = run.shared.lock().sessions.get_mut(&sess.sid) {
        row.con = sess.con;
    }
    Ok(())
}

/// ALTER SYSTEM SET name = value [SCOPE = …] [SID = '*'].
fn set_parameter(run: &Run<'_>, sess: &Sess, all: &[Token]) -> Result<()> {
    let reset = all.first().is_some_and(|t| t.is("RESET"));
    let name = name_of(all.get(1))?.to_lowercase();
    let tail = |t: &Token| ["SCOPE", "SID", "COMMENT", "CONTAINER", "DEFERRED"].iter().any(|w| t.is(w));
    let from = if reset { 2 } else { 3 };
    let to = all.iter().skip(from).position(tail).map_or(all.len(), |at| at + from);
    let value: String = all
        .get(from..to)
        .unwrap_or_default()
        .iter()
        .map(|t| match t {
            Token::Word(w) | Token::Single(w) | Token::Double(w) => w.clone(),
            Token::Punct(c) => c.to_string(),
        })
        .collect();
    let scope = all.iter().position(|t| t.is("SCOPE")).map(|at| name_of(all.get(at + 2))).transpose()?;
    let mut guard = run.shared.lock();
    let instance = &mut *guard;
    instance.count("ALTER SYSTEM SET")?;
    if !params::known(&instance.version()).iter().any(|(known, ..)| *known == name) && !name.starts_with('_') {
        ora!(2065);
    }
    if sess.con > 1 {
        ora!(65040);
    }
    let spfile = instance.parameter_file.spfile.clone();
    let scope = scope.unwrap_or_else(|| if spfile.is_some() { "BOTH" } else { "MEMORY" }.into());
    let (memory, file) = match scope.as_str() {
        "BOTH" => (true, true),
        "MEMORY" => (true, false),
        "SPFILE" => (false, true),
        _ => ora!(2065),
    };
    if file && spfile.is_none() {
        ora!(32001);
    }
    if memory && !reset && params::is_static(&name) {
        ora!(2095);
    }
    if name == "tde_configuration" && !reset {
        Config::parse_tde(&value).map_err(|e| Ora::new(2097).and(e))?;
        if memory && instance.memory.get("wallet_root").is_none_or(String::is_empty) {
            return Err(Ora::new(2097).and(Ora::new(46693)));
        }
    }
    if let Some(file_name) = spfile.filter(|_| file) {
        let mut values = params::read(&file_name)?;
        if reset {
            values.remove(&name);
        } else {
            values.insert(name.clone(), value.clone());
        }
        params::write(&file_name, &values).map_err(|e| Ora::new(32017).and(e))?;
    }
    if memory && !reset {
        instance.memory.insert(name, value);
    }
    drop(guard);
    run.phase("end")
}

fn need_open(instance: &Instance) -> Result<()> {
    if instance.state < State::OpenReadOnly { Err(Ora::new(1109)) } else { Ok(()) }
}

fn alter_system(run: &Run<'_>, sess: &Sess, rest: &[&str]) -> Result<()> {
    match rest {
        ["SWITCH", "LOGFILE"] | ["ARCHIVE", "LOG", "CURRENT"] => {
            need_open(&run.shared.lock())?;
            let archive = rest[0] == "ARCHIVE";
            if archive && !run.shared.lock().control()?.archivelog {
                ora!(258, "manual archiving in NOARCHIVELOG mode must identify log");
            }
            run.phase("begin")?;
            if archive {
                let instance = run.shared.lock();
                if instance.archiver_stuck(&crate::sim::load()) {
                    let sequence = instance.control()?.logs.iter().find(|l| l.current).map_or(0, |l| l.sequence);
                    return Err(Ora::with(16038, format!("log 1 sequence# {sequence} cannot be archived")).and(Ora::new(19809)));
                }
            }
            switch(run, sess)?;
            run.phase("end")
        }
        ["ARCHIVE", "LOG", "ALL"] => Ok(()),
        ["CHECKPOINT", ..] => {
            need_open(&run.shared.lock())?;
            run.phase("begin")?;
            run.shared.lock().checkpoint()?;
            run.phase("end")
        }
        ["ENABLE", "RESTRICTED", "SESSION"] => {
            run.shared.lock().restricted = true;
            Ok(())
        }
        ["DISABLE", "RESTRICTED", "SESSION"] => {
            run.shared.lock().restricted = false;
            Ok(())
        }
        ["REGISTER"] | ["FLUSH", ..] => Ok(()),
        _ => Err(Ora::new(2065)),
    }
}

/// Switches the log, waiting while every log is waiting for the archiver (H21).
pub fn switch(run: &Run<'_>, sess: &Sess) -> Result<()> {
    while !run.shared.lock().switch_log(sess)? {
        run.wait(50)?;
    }
    Ok(())
}

fn backup_controlfile(run: &Run<'_>, rest: &[&str], all: &[Token]) -> Result<()> {
    let instance = run.shared.lock();
    instance.control()?;
    let Some(Token::Single(target)) = all.iter().find(|t| matches!(t, Token::Single(_))) else {
        return if rest.starts_with(&["TO", "TRACE"]) { Ok(()) } else { Err(Ora::new(933)) };
    };
    let path = host_path(target);
    if path.exists() && !rest.contains(&"REUSE") {
        return Err(Ora::with(1580, format!("error creating control backup file {target}"))
            .and(Ora::with(27038, "created file already exists")));
    }
    let bytes = std::fs::read(&instance.files.control).map_err(|e| Ora::io(&instance.files.control, &e))?;
    crate::env::write_atomic(&path, &bytes, 0o640)
        .map_err(|e| Ora::with(1580, format!("error creating control backup file {target}")).and(Ora::io(&path, &e)))
}

fn alter_pdb(run: &Run<'_>, sess: &Sess, rest: &[&str], all: &[Token]) -> Result<()> {
    let mut guard = run.shared.lock();
    let instance = &mut *guard;
    if !instance.control()?.cdb {
        ora!(65090);
    }
    need_open(instance)?;
    // In a PDB the name may be left out.
    let (name, rest) = match rest {
        ["OPEN" | "CLOSE" | "SAVE", ..] => (None, rest),
        ["ALL", rest @ ..] => (Some("ALL".to_owned()), rest),
        [_, rest @ ..] => (Some(name_of(all.first())?), rest),
        [] => ora!(65000),
    };
    let targets: Vec<u32> = match name.as_deref() {
        None if sess.con > 1 => vec![sess.con],
        None => ora!(65000),
        Some("ALL") => instance.pdbs.keys().copied().filter(|con| *con > 2).collect(),
        Some(name) => vec![
            instance
                .control()?
                .containers
                .iter()
                .find(|c| c.con_id > 2 && c.name.eq_ignore_ascii_case(name))
                .ok_or_else(|| Ora::new(65011))?
                .con_id,
        ],
    };
    let all_of_them = name.as_deref() == Some("ALL");
    let mode = match rest {
        ["OPEN", "READ", "ONLY", ..] => PdbMode::ReadOnly,
        ["OPEN", ..] if instance.state == State::OpenReadOnly => PdbMode::ReadOnly,
        ["OPEN", ..] => PdbMode::ReadWrite,
        ["CLOSE", ..] => PdbMode::Mounted,
        ["SAVE" | "DISCARD", "STATE", ..] => return Ok(()),
        _ => ora!(922),
    };
    for con in targets {
        let now = instance.pdbs.get(&con).copied().unwrap_or(PdbMode::Mounted);
        if mode == PdbMode::Mounted {
            if now == PdbMode::Mounted && !all_of_them {
                ora!(65020);
            }
        } else if now != PdbMode::Mounted && now != mode || now == mode {
            if !all_of_them {
                ora!(65019);
            }
            continue;
        }
        instance.pdbs.insert(con, mode);
        if rest.contains(&"RESTRICTED") {
            instance.restricted_pdbs.insert(con);
        } else {
            instance.restricted_pdbs.remove(&con);
        }
    }
    Ok(())
}

fn alter_tablespace(run: &Run<'_>, sess: &Sess, name: &Token, rest: &[&str]) -> Result<()> {
    let name = name_of(Some(name))?;
    let mut guard = run.shared.lock();
    let instance = &mut *guard;
    need_open(instance)?;
    let status = match rest {
        ["READ", "ONLY"] => TsStatus::ReadOnly,
        ["READ", "WRITE"] | ["ONLINE"] => TsStatus::Online,
        ["OFFLINE", ..] => TsStatus::Offline,
        _ => ora!(2142, "missing or invalid ALTER TABLESPACE option"),
    };
    let ts = instance
        .control_mut()?
        .tablespaces
        .iter_mut()
        .find(|t| t.con_id == sess.con && t.name == name)
        .ok_or_else(|| Ora::with(959, format!("tablespace '{name}' does not exist")))?;
    ts.status = status;
    instance.save_control()
}

/// The same without an instance, where there is no MEMORY to make one from.
pub fn create_parameter_file(home: &str, sid: &str, text: &str) -> Result<Answer> {
    let all = tokens(text.trim().trim_end_matches(';').trim())?;
    if !all.get(1).is_some_and(|t| t.is("PFILE") || t.is("SPFILE")) {
        return Err(Ora::new(1034).and(Ora::new(27101)));
    }
    create_file(home, sid, None, &all)?;
    Ok(Answer::message("File created."))
}

/// CREATE PFILE = '…' FROM SPFILE | MEMORY, and CREATE SPFILE FROM PFILE.
fn create_file(home: &str, sid: &str, memory: Option<&params::Values>, all: &[Token]) -> Result<()> {
    let from = all.iter().position(|t| t.is("FROM")).ok_or_else(|| Ora::new(933))?;
    let to_spfile = all[1].is("SPFILE");
    let target = all[..from]
        .iter()
        .find_map(|t| match t {
            Token::Single(name) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_else(|| if to_spfile { params::spfile_name(home, sid) } else { params::pfile_name(home, sid) });
    let source = all.get(from + 1).ok_or_else(|| Ora::new(933))?;
    let named = all[from..].iter().find_map(|t| match t {
        Token::Single(name) => Some(name.clone()),
        _ => None,
    });
    let mut values = if source.is("MEMORY") {
        memory.cloned().ok_or_else(|| Ora::new(1034))?
    } else if source.is("SPFILE") {
        params::read(&named.unwrap_or_else(|| params::spfile_name(home, sid)))?
    } else if source.is("PFILE") {
        params::read(&named.unwrap_or_else(|| params::pfile_name(home, sid)))?
    } else {
        ora!(933)
    };
    values.remove("spfile");
    params::write(&target, &values)
}

/// How an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Shutdown {
    Normal,
    Transactional,
    Immediate,
    Abort,
}

/// Stops the instance up to the point where its process may end; each line is said when it is true.
pub fn shutdown(run: &mut Run<'_>, mode: Shutdown, say: &mut dyn FnMut(&str)) -> Result<()> {
    run.class = "SHUTDOWN".into();
    run.shared.lock().count(if mode == Shutdown::Abort { "SHUTDOWN ABORT" } else { "SHUTDOWN" })?;
    if mode == Shutdown::Abort {
        return Ok(());
    }
    run.phase("begin")?;
    while mode == Shutdown::Normal && run.shared.lock().sessions.len() > 1 {
        run.wait(50)?;
    }
    run.shared.lock().shutting_down = true;
    // A key management statement under way is waited for.
    let _one = run.shared.one_key_management();
    let stopped = close(run, say);
    if stopped.is_err() {
        run.shared.lock().shutting_down = false;
    }
    stopped
}

fn close(run: &Run<'_>, say: &mut dyn FnMut(&str)) -> Result<()> {
    run.phase("close")?;
    let mut instance = run.shared.lock();
    if instance.backup_mode {
        ora!(1149);
    }
    match instance.state {
        State::OpenReadOnly | State::OpenReadWrite => {
            instance.close_cleanly()?;
            say("Database closed.");
            say("Database dismounted.");
        }
        State::Mounted => {
            say("ORA-01109: database not open\n\n");
            say("Database dismounted.");
        }
        State::Started => say("ORA-01507: database not mounted\n\n"),
    }
    instance.control = None;
    instance.state = State::Started;
    drop(instance);
    run.phase("end")
}
