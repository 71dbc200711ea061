//! One sqlplus, one conversation in lockstep (`O§7.9`).
//!
//! A statement is written only after the answer to the one before has been read to its end, which a PROMPT with a
//! random mark tells. So each answer belongs to one statement, whatever text is in it; nothing is ahead in the pipe
//! that could still run when an answer is bad; and `WHENEVER SQLERROR CONTINUE` is safe, which keeps the session (and a
//! file keystore that may be open in it alone, U8) through a harmless code such as 28354.
//!
//! An answer is judged by its codes (`oracle::errors`), never by exit status. A statement that takes longer than its
//! limit costs the client its life, never the database: the process group of sqlplus is killed, and the caller waits
//! for the *server* session, whose numbers were read at the start, to end before it looks what became of the
//! statement (H28). Nothing here sends anything twice.

use super::ddl::{Limits, QuoteError, Statement};
use super::errors::{Class, OraError, worst};
use crate::owner::{Child, OwnerError, Read};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tde2hsm_protocol::Code;
use zeroize::Zeroize;

/// A running sqlplus in a process group of its own.
pub trait Client {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OwnerError>;
    /// What comes next on standard output and error together.
    fn read(&mut self, within: Duration) -> Result<Read, OwnerError>;
    /// Ends the whole process group and reaps it; harmless when it has ended.
    fn kill(&mut self);
}

impl Client for Child {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OwnerError> {
        Child::write(self, bytes)
    }
    fn read(&mut self, within: Duration) -> Result<Read, OwnerError> {
        Child::read(self, within)
    }
    fn kill(&mut self) {
        Child::kill(self);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Launch(#[from] OwnerError),
    /// The statement's client is gone; what became of the statement is not known.
    #[error("sqlplus ended in `{statement}`{hint}")]
    Lost { statement: String, hint: String },
    #[error("`{statement}` gave no answer within {} s", limit.as_secs())]
    Timeout { statement: String, limit: Duration },
    #[error("{} in `{statement}`", error.explain())]
    Refused { statement: String, error: OraError },
    #[error("`{statement}` answered a row of {found} fields in place of {wanted}")]
    Row { statement: String, wanted: usize, found: usize },
    #[error("`{statement}` answered {what}")]
    Answer { statement: String, what: String },
    #[error("the instance is down")]
    Idle,
    #[error(transparent)]
    Quote(#[from] QuoteError),
}

impl SessionError {
    pub fn code(&self) -> Code {
        match self {
            SessionError::Launch(_) => Code::SQLPLUS_UNUSABLE,
            SessionError::Lost { .. } => Code::SESSION_LOST,
            SessionError::Timeout { .. } => Code::STATEMENT_TIMEOUT,
            SessionError::Refused { error, .. } => error.code(),
            SessionError::Row { .. } | SessionError::Answer { .. } => Code::ANSWER_UNREADABLE,
            SessionError::Idle => Code::DATABASE_NOT_OPEN,
            SessionError::Quote(_) => Code::NAME_NOT_QUOTABLE,
        }
    }

    /// Whether the statement may still be running, or may have been done, on the server (H28).
    pub fn unknown_outcome(&self) -> bool {
        match self {
            SessionError::Lost { .. } | SessionError::Timeout { .. } => true,
            SessionError::Refused { error, .. } => error.code() == Code::SESSION_LOST,
            _ => false,
        }
    }

    pub fn ora(&self) -> Option<u32> {
        match self {
            SessionError::Refused { error, .. } if error.family == super::errors::Family::Ora => Some(error.number),
            _ => None,
        }
    }
}

/// The server side of a session, by which its end is recognised (H28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSession {
    pub sid: u32,
    pub serial: u32,
    /// Process id of the server process on this host.
    pub spid: u32,
}

/// What a statement was answered with. Echoes of the statement are not in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub rows: Vec<Vec<String>>,
    pub errors: Vec<OraError>,
    /// Other lines, such as `keystore altered.` and `Database mounted.`
    pub notes: Vec<String>,
}

impl Answer {
    pub fn worst(&self) -> Option<&OraError> {
        worst(&self.errors)
    }
    pub fn has(&self, ora: u32) -> bool {
        self.errors.iter().any(|error| error.is(ora))
    }
    pub fn notes_say(&self, words: &str) -> bool {
        self.notes.iter().any(|note| note.to_ascii_lowercase().contains(&words.to_ascii_lowercase()))
    }
    /// The codes in short, for the journal.
    pub fn codes(&self) -> Vec<String> {
        self.errors.iter().map(ToString::to_string).collect()
    }
}

/// Rows are told from talk by their brackets, fields by a separator that no name, path or status holds. `|` alone is
/// part of `HSM|FILE`. A value that does hold it makes the count of fields wrong, and the answer is refused.
pub const ROW: &str = "~>";
pub const FIELD: &str = "~|~";
pub const END: &str = "<~";

/// `SELECT '~>'||a||'~|~'||b||'<~' FROM …`: `rest` is everything behind the select list.
pub fn select(fields: &[&str], rest: &str) -> String {
    format!("SELECT '{ROW}'||{}||'{END}' {rest}", fields.join(&format!("||'{FIELD}'||")))
}

pub struct Session {
    client: Box<dyn Client>,
    lines: VecDeque<String>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    mark: String,
    count: u32,
    limits: Limits,
    server: Option<ServerSession>,
    idle: bool,
    ended: bool,
}

const PROLOGUE: [&str; 3] = [
    "WHENEVER OSERROR EXIT FAILURE",
    "WHENEVER SQLERROR CONTINUE",
    "SET DEFINE OFF ECHO OFF VERIFY OFF FEEDBACK ON HEADING OFF PAGESIZE 0 LINESIZE 32767 TRIMSPOOL ON TRIMOUT ON TAB OFF SQLBLANKLINES ON",
];

impl Session {
    /// Connects `/ AS SYSDBA`. A session to an instance that is down is one too: [`Session::idle`].
    pub fn connect(client: Box<dyn Client>, mark: &str, limits: Limits) -> Result<Session, SessionError> {
        let mut session = Session {
            client,
            lines: VecDeque::new(),
            partial: Vec::new(),
            mark: format!("tde2hsm-{mark}"),
            count: 0,
            limits,
            server: None,
            idle: false,
            ended: false,
        };
        for line in PROLOGUE {
            session.send(line, line)?;
        }
        let answer = session.converse("CONNECT / AS SYSDBA", "CONNECT / AS SYSDBA", limits.query)?;
        session.idle = answer.notes_say("idle instance") || answer.has(1034);
        if let Some(error) = answer.worst().filter(|_| !session.idle) {
            return Err(SessionError::Refused { statement: "CONNECT / AS SYSDBA".into(), error: error.clone() });
        }
        if !session.idle {
            session.identify()?;
        }
        Ok(session)
    }

    /// The instance is down.
    pub fn idle(&self) -> bool {
        self.idle
    }
    pub fn server(&self) -> Option<ServerSession> {
        self.server
    }
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn identify(&mut self) -> Result<(), SessionError> {
        let sql = select(
            &["s.sid", "s.serial#", "p.spid"],
            "FROM v$session s, v$process p WHERE p.addr = s.paddr AND s.sid = TO_NUMBER(SYS_CONTEXT('USERENV','SID'))",
        );
        match self.query(&sql, 3) {
            Ok(rows) => {
                let row = rows.first().ok_or_else(|| SessionError::Answer { statement: sql.clone(), what: "no row".into() })?;
                let number = |text: &str| {
                    text.trim()
                        .parse::<u32>()
                        .map_err(|_| SessionError::Answer { statement: sql.clone(), what: format!("`{text}` for a number") })
                };
                self.server = Some(ServerSession { sid: number(&row[0])?, serial: number(&row[1])?, spid: number(&row[2])? });
                Ok(())
            }
            Err(error) if error.ora() == Some(1034) => {
                self.idle = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Rows of a query made with [`select`], each of `width` fields.
    pub fn query(&mut self, sql: &str, width: usize) -> Result<Vec<Vec<String>>, SessionError> {
        let statement = Statement::plain(sql, self.limits.query)?;
        let answer = self.execute(&statement)?;
        if let Some(error) = answer.worst() {
            return Err(SessionError::Refused { statement: sql.to_owned(), error: error.clone() });
        }
        match answer.rows.iter().find(|row| row.len() != width) {
            Some(row) => Err(SessionError::Row { statement: sql.to_owned(), wanted: width, found: row.len() }),
            None => Ok(answer.rows),
        }
    }

    /// Sends one statement and gives its answer, whatever codes are in it.
    pub fn execute(&mut self, statement: &Statement) -> Result<Answer, SessionError> {
        let mut line = zeroize::Zeroizing::new(String::with_capacity(statement.text().len() + 1));
        line.push_str(statement.text());
        line.push(';');
        self.converse(&line, statement.shown(), statement.limit)
    }

    /// The same, where only a success or a code of class [`Class::Ok`] will do.
    pub fn run(&mut self, statement: &Statement) -> Result<Answer, SessionError> {
        let answer = self.execute(statement)?;
        match answer.worst().filter(|error| error.class() > Class::Ok) {
            Some(error) => Err(SessionError::Refused { statement: statement.shown().to_owned(), error: error.clone() }),
            None => Ok(answer),
        }
    }

    /// A command of sqlplus itself: STARTUP, SHUTDOWN. No `;`.
    pub fn command(&mut self, command: &str, limit: Duration) -> Result<Answer, SessionError> {
        self.converse(command, command, limit)
    }

    fn send(&mut self, line: &str, shown: &str) -> Result<(), SessionError> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let written = if self.ended { None } else { self.client.write(&bytes).ok() };
        bytes.zeroize();
        written.ok_or_else(|| {
            self.end();
            SessionError::Lost { statement: shown.to_owned(), hint: String::new() }
        })
    }

    fn converse(&mut self, line: &str, shown: &str, limit: Duration) -> Result<Answer, SessionError> {
        self.count += 1;
        let mark = format!("{}-{}", self.mark, self.count);
        let deadline = Instant::now() + limit;
        self.send(line, shown)?;
        self.send(&format!("PROMPT {mark}"), shown)?;
        let mut answer = Answer::default();
        let echo = EchoFilter::new(line);
        loop {
            match self.line(deadline) {
                Line::Text(text) if text == mark => return Ok(answer),
                Line::Text(mut text) => {
                    if let Some(row) = text.strip_prefix(ROW).and_then(|row| row.strip_suffix(END)) {
                        answer.rows.push(row.split(FIELD).map(str::to_owned).collect());
                    } else if let Some(error) = OraError::of_line(&text) {
                        answer.errors.push(OraError { text: echo.scrub(&error.text), ..error });
                    } else if !echo.is_echo(&text) {
                        let note = text.trim();
                        if !note.is_empty() && answer.notes.len() < 64 {
                            answer.notes.push(echo.scrub(note));
                        }
                    }
                    text.zeroize();
                }
                Line::Late => {
                    self.end();
                    return Err(SessionError::Timeout { statement: shown.to_owned(), limit });
                }
                Line::End => {
                    self.end();
                    let hint = match answer.worst() {
                        Some(error) => format!(": {}", error.explain()),
                        None => answer.notes.last().map(|note| format!(": {note}")).unwrap_or_default(),
                    };
                    return Err(SessionError::Lost { statement: shown.to_owned(), hint });
                }
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Line {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Line::Text(line);
            }
            match self.client.read(deadline.saturating_duration_since(Instant::now())) {
                Ok(Read::Some(mut bytes)) => {
                    for byte in &bytes {
                        match byte {
                            b'\n' => {
                                while self.partial.last() == Some(&b'\r') {
                                    self.partial.pop();
                                }
                                self.lines.push_back(String::from_utf8_lossy(&self.partial).into_owned());
                                self.partial.zeroize();
                            }
                            byte => self.partial.push(*byte),
                        }
                    }
                    bytes.zeroize();
                }
                Ok(Read::Nothing) if Instant::now() < deadline => {}
                Ok(Read::Nothing) => return Line::Late,
                Ok(Read::End) | Err(_) => return Line::End,
            }
        }
    }

    /// Leaves in good order: sqlplus has ended before this returns, or is killed.
    pub fn close(mut self) {
        if !self.ended && self.client.write(b"EXIT\n").is_ok() {
            let deadline = Instant::now() + Duration::from_secs(10);
            while let Line::Text(_rest) = self.line(deadline) {}
        }
        self.end();
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.client.kill();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// sqlplus prints a failing line again, passwords included, even with ECHO OFF (`O§1.1`).
struct EchoFilter<'a> {
    secret: Vec<&'a str>,
    line: &'a str,
}

impl<'a> EchoFilter<'a> {
    fn new(line: &'a str) -> EchoFilter<'a> {
        // Whatever stands between quotes in a statement may be a secret, and nothing of it is worth keeping.
        let mut secret: Vec<&str> = Vec::new();
        if line.starts_with("ADMINISTER") {
            secret.extend(line.split('"').skip(1).step_by(2).filter(|text| text.len() > 3));
            secret.extend(line.split('\'').skip(1).step_by(2).filter(|text| text.contains(':')));
        }
        EchoFilter { secret, line: line.trim_end_matches(';') }
    }
    fn is_echo(&self, text: &str) -> bool {
        let text = text.trim();
        text == "*"
            || text.starts_with("ERROR at line")
            || text == "ERROR:"
            || (!text.is_empty() && self.line.contains(text))
            || text.trim_end_matches(';').contains(self.line)
    }
    fn scrub(&self, text: &str) -> String {
        let mut text: String = text.chars().filter(|c| !c.is_control()).take(240).collect();
        for secret in &self.secret {
            text = text.replace(secret, "*");
            if let Some((_, password)) = secret.split_once(':').filter(|(_, password)| password.len() > 3) {
                text = text.replace(password, "*");
            }
        }
        text
    }
}

enum Line {
    Text(String),
    /// The deadline has passed.
    Late,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::ddl;
    use std::io::Write as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;

    /// A sqlplus that answers from a script: the only way to make it die or hang at a chosen place.
    struct Scripted {
        child: Child,
        output: mpsc::Receiver<Vec<u8>>,
    }
    impl Scripted {
        /// `cases` are cases of a shell's `case` over the line that was sent.
        fn boxed(connected: &str, cases: &str) -> Box<dyn Client> {
            let program = format!(
                r#"while IFS= read -r line; do case "$line" in
                PROMPT*) echo "${{line#PROMPT }}";;
                WHENEVER*|SET*) ;;
                CONNECT*) echo '{connected}';;
                *USERENV*) echo '~>12~|~345~|~6789<~';;
                {cases}
                esac; done"#
            );
            let mut child = Command::new("/bin/sh")
                .arg("-c")
                .arg(program)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("a shell");
            let mut stdout = child.stdout.take().expect("piped");
            let (sender, output) = mpsc::channel();
            std::thread::spawn(move || {
                let mut bytes = [0; 100];
                while let Ok(n @ 1..) = std::io::Read::read(&mut stdout, &mut bytes) {
                    let _ = sender.send(bytes[..n].to_vec());
                }
            });
            Box::new(Scripted { child, output })
        }
    }
    impl Client for Scripted {
        fn write(&mut self, bytes: &[u8]) -> Result<(), OwnerError> {
            let stdin = self.child.stdin.as_mut().expect("piped");
            stdin.write_all(bytes).map_err(|source| OwnerError::Talk { program: "sqlplus".into(), source })
        }
        fn read(&mut self, within: Duration) -> Result<Read, OwnerError> {
            Ok(match self.output.recv_timeout(within) {
                Ok(bytes) => Read::Some(bytes),
                Err(mpsc::RecvTimeoutError::Timeout) => Read::Nothing,
                Err(mpsc::RecvTimeoutError::Disconnected) => Read::End,
            })
        }
        fn kill(&mut self) {
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }

    fn connect(script: &str) -> Session {
        Session::connect(Scripted::boxed("Connected.", script), "x", Limits::default()).expect("connects")
    }

    #[test]
    fn rows_are_told_from_talk_and_the_server_session_is_known() {
        let mut session = connect("*wallet*) echo '~>1~|~HSM|FILE~|~<~'; echo; echo '1 row selected.';;");
        assert_eq!(session.server(), Some(ServerSession { sid: 12, serial: 345, spid: 6789 }));
        assert_eq!(session.query("SELECT wallet", 3).expect("rows"), [["1", "HSM|FILE", ""]]);
        assert!(matches!(session.query("SELECT wallet", 2), Err(SessionError::Row { wanted: 2, found: 3, .. })));
    }

    #[test]
    fn h39_a_failing_statement_is_echoed_by_sqlplus_but_not_kept() {
        let mut session = connect(
            r#"ADMINISTER*) printf ' %s\n *\nERROR at line 1:\nORA-28353: failed to open wallet cu:Passw0rd\n' "${line%;}";;"#,
        );
        let statement = ddl::open_hsm(ddl::HsmPin("cu:Passw0rd"), ddl::Containers::Current, &Limits::default()).expect("builds");
        let answer = session.execute(&statement).expect("an answer");
        assert!(answer.has(28353));
        assert!(!format!("{answer:?}").contains("Passw0rd"), "{answer:?}");
        assert_eq!(answer.notes, Vec::<String>::new());
        let error = session.run(&statement).expect_err("refused");
        assert!(!error.to_string().contains("Passw0rd") && error.to_string().contains("ORA-28353"), "{error}");
        assert!(!error.unknown_outcome());
    }

    #[test]
    fn a_harmless_code_leaves_the_session_in_use() {
        let mut session = connect("ADMINISTER*) echo 'ORA-28354: already open';; *next*) echo '~>1<~';;");
        let statement =
            ddl::open_software(ddl::SoftwarePassword("password"), ddl::Containers::All, &Limits::default()).expect("ok");
        assert!(session.run(&statement).expect("ok").has(28354));
        assert_eq!(session.query("SELECT next", 1).expect("rows"), [["1"]]);
    }

    #[test]
    fn h28_a_dead_and_a_silent_client_leave_the_outcome_unknown() {
        let mut session = connect("ADMINISTER*) exit 0;;");
        let statement = Statement::plain("ADMINISTER x", Duration::from_secs(20)).expect("ok");
        assert!(session.execute(&statement).expect_err("lost").unknown_outcome());
        assert!(matches!(session.execute(&statement), Err(SessionError::Lost { .. })), "nothing is sent to a dead client");

        let mut session = connect("ADMINISTER*) sleep 1000;;");
        let statement = Statement::plain("ADMINISTER x", Duration::from_millis(50)).expect("ok");
        assert!(session.execute(&statement).expect_err("silent").unknown_outcome());
        assert!(session.execute(&statement).expect_err("gone").unknown_outcome());
    }

    #[test]
    fn an_instance_that_is_down_is_an_idle_session() {
        let client = Scripted::boxed("Connected to an idle instance.", "X) ;;");
        let session = Session::connect(client, "x", Limits::default()).expect("connects");
        assert!(session.idle() && session.server().is_none());
    }
}
