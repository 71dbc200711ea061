//! The sqlplus client, as a script on stdin meets it (O§7.9): statements, SP2- errors, the echo of a failing
//! statement with its secrets (R18), and exit codes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::engine::Privilege;
use crate::engine::ddl::Shutdown;
use crate::engine::sql::{Answer, Rows};
use crate::env::host_path;
use crate::wire::{Ask, Reply, Stage, receive, send};

/// What an input line may hold.
const MAX_LINE: usize = 2499;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Code(i32),
    SqlCode,
}

struct Settings {
    heading: bool,
    pagesize: usize,
    linesize: usize,
    /// Rows from which on a count is said; none when off.
    feedback: Option<usize>,
    colsep: String,
    define: bool,
    blank_lines: bool,
    trim: bool,
    csv: Option<char>,
    csv_quote: bool,
    null: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            heading: true,
            pagesize: 14,
            linesize: 80,
            feedback: Some(6),
            colsep: " ".into(),
            define: true,
            blank_lines: false,
            trim: false,
            csv: None,
            csv_quote: true,
            null: String::new(),
        }
    }
}

struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

struct Client {
    settings: Settings,
    silent: bool,
    server: Option<Server>,
    connected: bool,
    privilege: Privilege,
    on_sql_error: Option<Exit>,
    on_os_error: Option<Exit>,
    sql_code: u32,
    buffer: Vec<String>,
    variables: BTreeMap<String, String>,
    input: VecDeque<String>,
}

/// The program.
pub fn main() -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut client = Client {
        settings: Settings::default(),
        silent: false,
        server: None,
        connected: false,
        privilege: Privilege::Sysdba,
        on_sql_error: None,
        on_os_error: None,
        sql_code: 0,
        buffer: Vec::new(),
        variables: BTreeMap::new(),
        input: VecDeque::new(),
    };
    let mut logon: Vec<String> = Vec::new();
    let mut once = false;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_uppercase().as_str() {
            "-S" | "-SILENT" => client.silent = true,
            "-L" | "-LOGON" => once = true,
            "-V" | "-VERSION" => {
                say("\nSQL*Plus: Release 19.0.0.0.0 - Production\nVersion 19.3.0.0.0\n");
                return 0;
            }
            "-M" => {
                let markup = arguments.next().unwrap_or_default();
                client.markup(&markup.split_whitespace().collect::<Vec<_>>());
            }
            "-R" | "-C" | "-F" => {
                arguments.next();
            }
            _ => logon.push(argument),
        }
    }
    let home = std::env::var("ORACLE_HOME").unwrap_or_default();
    if home.is_empty() || !host_path(&home).join("bin/oracle").exists() {
        say("Error 6 initializing SQL*Plus");
        say("SP2-0667: Message file sp1<lang>.msb not found");
        say("SP2-0750: You may need to set ORACLE_HOME to your Oracle software directory");
        return 1;
    }
    if !client.silent {
        say("\nSQL*Plus: Release 19.0.0.0.0 - Production");
        say("Version 19.3.0.0.0\n\nCopyright (c) 1982, 2019, Oracle.  All rights reserved.\n");
    }
    client.glogin(&home);
    let logon = logon.join(" ");
    if !logon.is_empty() && !logon.eq_ignore_ascii_case("/nolog") {
        let failed = client.connect(&logon);
        if failed && once {
            say("SP2-0751: Unable to connect to Oracle.  Exiting SQL*Plus");
            return 1;
        }
    }
    let code = client.read_all();
    client.hang_up();
    code
}

fn say(text: &str) {
    // A reader that has gone away is no reason to stop: the script goes on to its end.
    let _ = writeln!(std::io::stdout(), "{text}");
    let _ = std::io::stdout().flush();
}

impl Client {
    fn glogin(&mut self, home: &str) {
        let path = host_path(home).join("sqlplus/admin/glogin.sql");
        if let Ok(text) = std::fs::read_to_string(path) {
            self.input.extend(text.lines().map(str::to_owned));
        }
    }

    fn next_line(&mut self) -> Option<String> {
        if let Some(line) = self.input.pop_front() {
            return Some(line);
        }
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
        }
    }

    fn read_all(&mut self) -> i32 {
        while let Some(mut line) = self.next_line() {
            if line.len() > MAX_LINE {
                say("SP2-0027: Input is too long (> 2499 characters) - line ignored");
                continue;
            }
            // A hyphen at the end continues the line, inside a statement as well (O§1.8).
            while line.ends_with('-')
                && let Some(more) = self.next_line()
            {
                line.pop();
                line = format!("{} {more}", line.trim_end());
            }
            if let Some(code) = self.line(&line) {
                return code;
            }
        }
        0
    }

    /// Takes a line; a code ends the program.
    fn line(&mut self, raw: &str) -> Option<i32> {
        let line = raw.trim();
        if !self.buffer.is_empty() {
            if line == "/" {
                return self.execute();
            }
            if line == "." || (line.is_empty() && !self.settings.blank_lines) {
                self.buffer.clear();
                return None;
            }
            if line.starts_with('#') {
                return None;
            }
            return self.add(raw);
        }
        if line.is_empty() || line.starts_with("--") {
            return None;
        }
        if let Some(rest) = line.strip_prefix('#') {
            return self.line(rest);
        }
        let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
        let first = words.first().map(|w| w.to_uppercase()).unwrap_or_default();
        match first.as_str() {
            "/" => {
                say("SP2-0103: Nothing in SQL buffer to run.");
                None
            }
            "REM" | "REMARK" | "SPOOL" | "SPO" | "COLUMN" | "COL" | "TTITLE" | "BTITLE" | "CLEAR" | "BREAK" | "TIMING"
            | "PAUSE" | "UNDEFINE" => None,
            "DEFINE" | "DEF" => {
                if let Some((name, value)) = line[first.len()..].split_once('=') {
                    let value = value.trim().trim_matches(['"', '\'']).to_owned();
                    self.variables.insert(name.trim().to_uppercase(), value);
                }
                None
            }
            "PROMPT" | "PRO" => {
                say(line[first.len()..].trim_start());
                None
            }
            "SET" if !is_set_statement(&words) => {
                self.set(&words[1..]);
                None
            }
            "WHENEVER" => {
                self.whenever(&words);
                None
            }
            "EXIT" | "QUIT" => Some(self.exit_code(words.get(1).copied())),
            "CONNECT" | "CONN" => {
                self.connect(line.trim_end_matches(';')[first.len()..].trim());
                None
            }
            "DISCONNECT" | "DISC" => {
                self.hang_up();
                None
            }
            "SHOW" | "SHO" => self.show(&words[1..]),
            "STARTUP" => self.startup(&words[1..]),
            "SHUTDOWN" => self.shutdown(&words[1..]),
            "HOST" | "!" => {
                say("SP2-0738: Restricted command \"host\" not available");
                None
            }
            "ARCHIVE" => self.archive_log_list(),
            "SELECT" | "WITH" | "ALTER" | "ADMINISTER" | "CREATE" | "DROP" | "INSERT" | "UPDATE" | "DELETE" | "MERGE"
            | "COMMIT" | "ROLLBACK" | "GRANT" | "REVOKE" | "BEGIN" | "DECLARE" | "EXPLAIN" | "LOCK" | "TRUNCATE" | "CALL"
            | "ANALYZE" | "AUDIT" | "FLASHBACK" | "PURGE" | "SAVEPOINT" | "SET" => self.add(raw),
            _ => {
                let shown: String = line.chars().take(10).collect();
                let dots = if line.chars().count() > 10 { "..." } else { "" };
                say(&format!("SP2-0734: unknown command beginning \"{shown}{dots}\" - rest of line ignored."));
                None
            }
        }
    }

    /// Adds a line to the statement; a `;` at its end runs it, inside quotes as well (O§1.8).
    fn add(&mut self, raw: &str) -> Option<i32> {
        let line = self.substitute(raw);
        let plsql = self.buffer.first().map_or(line.trim(), |l| l.trim()).to_uppercase();
        let plsql = plsql.starts_with("BEGIN") || plsql.starts_with("DECLARE");
        let trimmed = line.trim_end();
        match trimmed.strip_suffix(';') {
            Some(statement) if !plsql => {
                self.buffer.push(statement.to_owned());
                self.execute()
            }
            _ => {
                self.buffer.push(line);
                None
            }
        }
    }

    fn substitute(&mut self, line: &str) -> String {
        if !self.settings.define || !line.contains('&') {
            return line.to_owned();
        }
        let mut out = String::new();
        let mut rest = line;
        while let Some(at) = rest.find('&') {
            out += &rest[..at];
            rest = rest[at..].trim_start_matches('&');
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_$#".contains(c))).unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
            let known = self.variables.get(&name.to_uppercase()).cloned();
            let value = known.unwrap_or_else(|| {
                say(&format!("Enter value for {}: ", name.to_lowercase()));
                self.next_line().unwrap_or_default()
            });
            out += &value;
        }
        out + rest
    }

    fn execute(&mut self) -> Option<i32> {
        let lines = std::mem::take(&mut self.buffer);
        if !self.connected {
            say("SP2-0640: Not connected");
            return None;
        }
        let text = lines.join("\n");
        match self.ask(&Ask::Sql(text)) {
            Reply::Answer(answer) => {
                self.sql_code = 0;
                self.print(&answer);
                None
            }
            Reply::Error(errors) => {
                say(lines.first().map_or("", String::as_str));
                say("*");
                say("ERROR at line 1:");
                self.failed(&errors)
            }
            _ => None,
        }
    }

    /// Prints ORA- lines and does what WHENEVER SQLERROR says.
    fn failed(&mut self, errors: &[(u32, String)]) -> Option<i32> {
        for (code, text) in errors {
            if text.starts_with("LRM-") {
                say(text);
            } else {
                say(&format!("ORA-{code:05}: {text}"));
            }
        }
        let first = errors.first().map_or(0, |(code, _)| *code);
        if first == 1034 {
            say("Process ID: 0\nSession ID: 0 Serial number: 0");
        }
        if first == 3113 {
            self.connected = false;
        }
        say("\n");
        self.sql_code = first;
        match self.on_sql_error {
            Some(Exit::Code(code)) => Some(code),
            // A code is a byte: 28416 is success to the shell (O§5.3).
            Some(Exit::SqlCode) => Some((first % 256) as i32),
            None => None,
        }
    }

    fn ask(&mut self, ask: &Ask) -> Reply {
        let lost = || Reply::Error(vec![(3113, crate::error::text(3113).to_owned())]);
        let Some(server) = &mut self.server else { return lost() };
        let Some(input) = &mut server.input else { return lost() };
        if send(input, ask).is_err() {
            return lost();
        }
        loop {
            match receive::<Reply>(&mut server.output) {
                Ok(Some(Reply::Line(line))) => say(&line),
                Ok(Some(reply)) => return reply,
                _ => return lost(),
            }
        }
    }

    /// CONNECT; `true` if it failed.
    fn connect(&mut self, logon: &str) -> bool {
        self.hang_up();
        let upper = logon.to_uppercase();
        let words: Vec<&str> = upper.split_whitespace().collect();
        self.privilege = match words.as_slice() {
            ["/", "AS", "SYSDBA"] => Privilege::Sysdba,
            ["/", "AS", "SYSKM"] => Privilege::Syskm,
            _ => {
                say("ERROR:\nORA-01017: invalid username/password; logon denied\n\n");
                return true;
            }
        };
        let home = std::env::var("ORACLE_HOME").unwrap_or_default();
        let sid = std::env::var("ORACLE_SID").unwrap_or_default();
        let spawned = Command::new(host_path(&home).join("bin/oracle"))
            .arg0(format!("oracle{sid}"))
            .arg("(DESCRIPTION=(LOCAL=YES)(ADDRESS=(PROTOCOL=beq)))")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = spawned else {
            say("ERROR:\nORA-12547: TNS:lost contact\n\n");
            return true;
        };
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return true;
        };
        self.server = Some(Server { child, input: Some(input), output: BufReader::new(output) });
        match self.ask(&Ask::Connect(self.privilege)) {
            Reply::Ok => {
                self.connected = true;
                if !self.silent {
                    say("Connected.");
                }
                false
            }
            Reply::Idle => {
                self.connected = true;
                say("Connected to an idle instance.");
                false
            }
            Reply::Error(errors) => {
                say("ERROR:");
                // WHENEVER SQLERROR does not fire for a failed CONNECT (O§7.9).
                let rule = self.on_sql_error.take();
                self.failed(&errors);
                self.on_sql_error = rule;
                self.hang_up();
                true
            }
            _ => true,
        }
    }

    fn hang_up(&mut self) {
        self.connected = false;
        if let Some(mut server) = self.server.take() {
            drop(server.input.take());
            let _ = server.child.wait();
        }
    }

    fn exit_code(&self, word: Option<&str>) -> i32 {
        match word.map(str::to_uppercase).as_deref() {
            None | Some("SUCCESS" | "COMMIT" | "ROLLBACK") => 0,
            Some("FAILURE") => 1,
            Some("WARNING") => 2,
            Some("SQL.SQLCODE") => (self.sql_code % 256) as i32,
            Some(other) => other.parse::<i32>().map_or(0, |n| n & 255),
        }
    }

    fn whenever(&mut self, words: &[&str]) {
        let upper: Vec<String> = words.iter().map(|w| w.to_uppercase()).collect();
        let rule = match upper.get(2).map(String::as_str) {
            Some("EXIT") => Some(match upper.get(3).map(String::as_str) {
                Some("SQL.SQLCODE") => Exit::SqlCode,
                word => Exit::Code(self.exit_code(word)),
            }),
            Some("CONTINUE") => None,
            _ => {
                say("SP2-0042: unknown command \"WHENEVER\" - rest of line ignored.");
                return;
            }
        };
        match upper.get(1).map(String::as_str) {
            Some("SQLERROR") => self.on_sql_error = rule,
            _ => self.on_os_error = rule,
        }
    }

    fn startup(&mut self, words: &[&str]) -> Option<i32> {
        if self.server.is_none() || !self.connected {
            say("SP2-0640: Not connected");
            return None;
        }
        if self.privilege != Privilege::Sysdba {
            return self.failed(&[(1031, crate::error::text(1031).to_owned())]);
        }
        let mut stage = Stage::Open;
        let mut restrict = false;
        let mut pfile = None;
        for word in words {
            if let Some((name, value)) = word.split_once('=')
                && name.eq_ignore_ascii_case("PFILE")
            {
                pfile = Some(value.trim_matches(['\'', '"']).to_owned());
                continue;
            }
            match word.to_uppercase().as_str() {
                "NOMOUNT" => stage = Stage::NoMount,
                "MOUNT" => stage = Stage::Mount,
                "OPEN" => stage = Stage::Open,
                "RESTRICT" => restrict = true,
                "FORCE" | "QUIET" => {}
                _ => {
                    say("SP2-0714: invalid combination of STARTUP options");
                    return None;
                }
            }
        }
        match self.ask(&Ask::Startup { stage, restrict, pfile }) {
            Reply::Error(errors) => self.failed(&errors),
            _ => None,
        }
    }

    fn shutdown(&mut self, words: &[&str]) -> Option<i32> {
        if !self.connected {
            say("SP2-0640: Not connected");
            return None;
        }
        if self.privilege != Privilege::Sysdba {
            return self.failed(&[(1031, crate::error::text(1031).to_owned())]);
        }
        let mode = match words.first().map(|w| w.to_uppercase()).as_deref() {
            None | Some("NORMAL") => Shutdown::Normal,
            Some("IMMEDIATE") => Shutdown::Immediate,
            Some("ABORT") => Shutdown::Abort,
            Some("TRANSACTIONAL") => Shutdown::Transactional,
            Some(_) => {
                say("SP2-0717: illegal SHUTDOWN option");
                return None;
            }
        };
        match self.ask(&Ask::Shutdown(mode)) {
            Reply::Error(errors) => self.failed(&errors),
            _ => None,
        }
    }

    fn show(&mut self, words: &[&str]) -> Option<i32> {
        let first = words.first().map(|w| w.to_uppercase()).unwrap_or_default();
        match first.as_str() {
            "USER" => {
                if self.connected {
                    let user = if self.privilege == Privilege::Sysdba { "SYS" } else { "SYSKM" };
                    say(&format!("USER is \"{user}\""));
                } else {
                    say("USER is \"\"");
                }
                None
            }
            "CON_NAME" => self.shown("CON_NAME", "SELECT sys_context('USERENV','CON_NAME') FROM dual"),
            "CON_ID" => self.shown("CON_ID", "SELECT sys_context('USERENV','CON_ID') FROM dual"),
            "PARAMETER" | "PARAMETERS" => {
                let name = words.get(1).copied().unwrap_or_default().to_lowercase();
                let name = name.replace('\'', "");
                let sql = format!(
                    "SELECT name, decode(type, 1, 'boolean', 2, 'string', 3, 'integer', 6, 'big integer', 'string') type, display_value value FROM v$parameter WHERE name LIKE '%{name}%' ORDER BY name"
                );
                if !self.connected {
                    say("SP2-0640: Not connected");
                    return None;
                }
                match self.ask(&Ask::Sql(sql)) {
                    Reply::Answer(Answer::Rows(rows)) => {
                        if self.settings.heading && self.settings.pagesize > 0 {
                            say("\nNAME                                 TYPE        VALUE");
                            say(&format!("{} {} {}", "-".repeat(36), "-".repeat(11), "-".repeat(30)));
                        }
                        for row in rows.rows {
                            let cell = |n: usize| row.get(n).cloned().flatten().unwrap_or_default();
                            say(format!("{:<36} {:<11} {}", cell(0), cell(1), cell(2)).trim_end());
                        }
                        None
                    }
                    Reply::Error(errors) => self.failed(&errors),
                    _ => None,
                }
            }
            "PDBS" => {
                self.buffer = vec!["SELECT con_id, name con_name, open_mode, restricted FROM v$pdbs ORDER BY con_id".into()];
                self.execute()
            }
            "RELEASE" | "REL" => {
                say("release 1900000000");
                None
            }
            "SQLCODE" => {
                say(&format!("sqlcode {}", self.sql_code));
                None
            }
            "ERRORS" | "ERR" => {
                say("No errors.");
                None
            }
            _ => {
                say(&format!("SP2-0158: unknown SHOW option \"{}\"", words.join(" ")));
                None
            }
        }
    }

    fn shown(&mut self, name: &str, sql: &str) -> Option<i32> {
        if !self.connected {
            say("SP2-0640: Not connected");
            return None;
        }
        match self.ask(&Ask::Sql(sql.into())) {
            Reply::Answer(Answer::Rows(rows)) => {
                let value = rows.rows.first().and_then(|r| r.first().cloned().flatten());
                say(&format!("\n{name}\n------------------------------\n{}", value.unwrap_or_default()));
                None
            }
            Reply::Error(errors) => self.failed(&errors),
            _ => None,
        }
    }

    fn archive_log_list(&mut self) -> Option<i32> {
        if !self.connected {
            say("SP2-0640: Not connected");
            return None;
        }
        let sql = "SELECT d.log_mode, min(l.sequence#), max(l.sequence#) FROM v$database d, v$log l GROUP BY d.log_mode";
        match self.ask(&Ask::Sql(sql.into())) {
            Reply::Answer(Answer::Rows(rows)) => {
                if let Some([mode, oldest, current]) = rows.rows.first().map(Vec::as_slice) {
                    let on = mode.as_deref() == Some("ARCHIVELOG");
                    let text = |v: &Option<String>| v.clone().unwrap_or_default();
                    say(&format!(
                        "Database log mode\t       {}\nAutomatic archival\t       {}\nOldest online log sequence     {}\nCurrent log sequence\t       {}",
                        if on { "Archive Mode" } else { "No Archive Mode" },
                        if on { "Enabled" } else { "Disabled" },
                        text(oldest),
                        text(current)
                    ));
                }
                None
            }
            Reply::Error(errors) => self.failed(&errors),
            _ => None,
        }
    }

    /// Several options on a line, as a prologue has them.
    fn set(&mut self, words: &[&str]) {
        let mut i = 0;
        while i < words.len() {
            let name = words[i].to_uppercase();
            let value = words.get(i + 1).copied().unwrap_or_default();
            let upper = value.to_uppercase();
            let on = upper == "ON";
            i += 2;
            match name.as_str() {
                "HEADING" | "HEA" => self.settings.heading = on,
                "PAGESIZE" | "PAGES" => self.settings.pagesize = value.parse().unwrap_or(14),
                "LINESIZE" | "LIN" | "LINES" => {
                    self.settings.linesize = value.parse().unwrap_or(80);
                }
                "FEEDBACK" | "FEED" => {
                    self.settings.feedback = match upper.as_str() {
                        "ON" => Some(1),
                        "OFF" | "0" => None,
                        n => n.parse().ok(),
                    };
                    if words.get(i).is_some_and(|w| w.eq_ignore_ascii_case("SQL_ID")) {
                        i += 1;
                    }
                }
                "COLSEP" => {
                    self.settings.colsep = value.trim_matches(['"', '\'']).to_owned();
                }
                "DEFINE" | "DEF" | "SCAN" => self.settings.define = upper != "OFF",
                "SQLBLANKLINES" | "SQLBL" => self.settings.blank_lines = on,
                "TRIMSPOOL" | "TRIMS" | "TRIMOUT" | "TRIM" => self.settings.trim = on,
                "NULL" => self.settings.null = value.trim_matches(['"', '\'']).to_owned(),
                "MARKUP" | "MARK" => {
                    self.markup(&words[i - 1..]);
                    return;
                }
                "SERVEROUTPUT" | "SERVEROUT" => return,
                "ECHO" | "VERIFY" | "VER" | "TERMOUT" | "TERM" | "TAB" | "TIMING" | "TIMI" | "TIME" | "AUTOCOMMIT" | "LONG"
                | "LONGCHUNKSIZE" | "LONGC" | "NEWPAGE" | "NEWP" | "WRAP" | "NUMWIDTH" | "NUM" | "NUMFORMAT" | "ARRAYSIZE"
                | "SQLPROMPT" | "SQLP" | "EXITCOMMIT" | "UNDERLINE" | "UND" | "AUTOTRACE" | "SQLTERMINATOR" | "SQLPREFIX"
                | "SQLNUMBER" | "SQLN" | "ERRORLOGGING" | "ESCAPE" | "CONCAT" | "RECSEP" | "SHOWMODE" | "HISTORY"
                | "ROWLIMIT" | "STATEMENTCACHE" | "EMBEDDED" | "FLUSH" | "APPINFO" | "LOBPREFETCH" | "ROWPREFETCH" => {}
                _ => {
                    say(&format!("SP2-0158: unknown SET option \"{}\"", words[i - 2]));
                    return;
                }
            }
        }
    }

    /// MARKUP CSV ON [DELIM[ITER] c] [QUOTE ON|OFF]; since 12.2.
    fn markup(&mut self, words: &[&str]) {
        let upper: Vec<String> = words.iter().map(|w| w.to_uppercase()).collect();
        if upper.first().map(String::as_str) != Some("CSV") {
            return;
        }
        let on = upper.get(1).map(String::as_str) == Some("ON");
        let delimiter = upper
            .iter()
            .position(|w| w.starts_with("DELIM"))
            .and_then(|at| words.get(at + 1))
            .and_then(|w| w.trim_matches(['"', '\'']).chars().next());
        self.settings.csv = on.then(|| delimiter.unwrap_or(','));
        let quote = upper.iter().position(|w| w == "QUOTE").and_then(|at| upper.get(at + 1));
        self.settings.csv_quote = quote.is_none_or(|w| w != "OFF");
    }

    fn print(&self, answer: &Answer) {
        match answer {
            Answer::Message(text) => {
                if self.settings.feedback.is_some() {
                    say(&format!("\n{text}\n"));
                }
            }
            Answer::Rows(rows) => {
                if self.settings.csv.is_some() {
                    self.print_csv(rows)
                } else {
                    self.print_rows(rows)
                }
                self.print_count(rows.rows.len());
            }
        }
    }

    fn print_count(&self, count: usize) {
        let Some(threshold) = self.settings.feedback else { return };
        if count == 0 {
            say("\nno rows selected\n");
        } else if count >= threshold {
            let s = if count == 1 { "row" } else { "rows" };
            say(&format!("\n{count} {s} selected.\n"));
        } else {
            say("");
        }
    }

    fn print_csv(&self, rows: &Rows) {
        let delimiter = self.settings.csv.unwrap_or(',').to_string();
        let quote = |text: &str, numeric: bool| {
            if self.settings.csv_quote && !numeric { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
        };
        if rows.rows.is_empty() {
            return;
        }
        if self.settings.heading && self.settings.pagesize > 0 {
            let names: Vec<String> = rows.columns.iter().map(|c| quote(c, false)).collect();
            say(&format!("\n{}", names.join(&delimiter)));
        }
        for row in &rows.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&rows.numeric)
                .map(|(cell, numeric)| match cell {
                    Some(text) => quote(text, *numeric),
                    None => String::new(),
                })
                .collect();
            say(&cells.join(&delimiter));
        }
    }

    fn print_rows(&self, rows: &Rows) {
        if rows.rows.is_empty() {
            return;
        }
        let heading = self.settings.heading && self.settings.pagesize > 0;
        let widths: Vec<usize> = rows
            .columns
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let longest = rows.rows.iter().map(|row| row[i].as_ref().map_or(0, |t| t.chars().count())).max().unwrap_or(0);
                let name = if heading { name.chars().count() } else { 1 };
                let least = if rows.numeric[i] { 10 } else { 1 };
                longest.max(name).max(least)
            })
            .collect();
        let line = |cells: Vec<String>| {
            let text = cells.join(&self.settings.colsep);
            let text = text.trim_end();
            let cut: String = text.chars().take(self.settings.linesize.max(1)).collect();
            let rest: String = text.chars().skip(self.settings.linesize.max(1)).collect();
            say(&cut);
            if !rest.is_empty() {
                say(&rest);
            }
        };
        let pad = |text: &str, i: usize| {
            if rows.numeric[i] { format!("{text:>w$}", w = widths[i]) } else { format!("{text:<w$}", w = widths[i]) }
        };
        if heading {
            say("");
            line(rows.columns.iter().enumerate().map(|(i, c)| pad(c, i)).collect());
            line(widths.iter().map(|w| "-".repeat(*w)).collect());
        }
        for row in &rows.rows {
            line(row.iter().enumerate().map(|(i, cell)| pad(cell.as_deref().unwrap_or(&self.settings.null), i)).collect());
        }
    }
}

/// SET ROLE and SET TRANSACTION are SQL.
fn is_set_statement(words: &[&str]) -> bool {
    words.get(1).is_some_and(|w| ["ROLE", "TRANSACTION", "CONSTRAINT", "CONSTRAINTS"].iter().any(|s| w.eq_ignore_ascii_case(s)))
}
