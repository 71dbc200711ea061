//! stdout is data, stderr is talk. A reader who goes away early is no error.

use crate::failure::Failure;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};
use tde2hsm_protocol::wire::printable;

/// Version of what `--output json` prints.
pub const OUTPUT_VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy)]
pub struct Out {
    pub format: Format,
}

/// What JSON answers start with.
#[derive(Serialize)]
struct Answer<'a, T> {
    /// `tde2hsm/COMMAND/VERSION`
    schema: String,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a Failure,
}

/// Between programs a code is a number; whoever reads an answer looks for `TDE0107`.
fn spell_codes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(spell_codes),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_u64() {
                    Some(number) if name == "code" => *field = Value::from(format!("TDE{number:04}")),
                    _ => spell_codes(field),
                }
            }
        }
        _ => {}
    }
}

impl Out {
    /// The one answer of a command.
    pub fn answer<T: Serialize>(&self, command: &str, value: &T, human: &str) -> Result<(), Failure> {
        match self.format {
            Format::Human => self.stdout(human),
            Format::Json => self.json(command, value),
        }
    }

    fn json<T: Serialize>(&self, command: &str, value: &T) -> Result<(), Failure> {
        let answer = Answer { schema: format!("tde2hsm/{command}/{OUTPUT_VERSION}"), value };
        let wrong = |e: serde_json::Error| Failure::internal(format!("the answer cannot be written: {e}"));
        let mut value = serde_json::to_value(&answer).map_err(wrong)?;
        spell_codes(&mut value);
        self.stdout(&serde_json::to_string_pretty(&value).map_err(wrong)?)
    }

    fn stdout(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::internal(format!("stdout cannot be written: {e}"))),
            _ => Ok(()),
        }
    }

    /// A line of progress. Text of hosts and of AWS is in it: printable ASCII only (H36).
    pub fn say(&self, text: &str) {
        let now = jiff::Timestamp::now().strftime("%H:%M:%S");
        self.stderr(&format!("{now} {}", printable(text, 400)));
    }

    pub fn warn(&self, text: &str) {
        self.stderr(&format!("warning: {}", printable(text, 400)));
    }

    /// A text of this program's own, several lines of it.
    pub fn show(&self, text: &str) {
        self.stderr(text.trim_end());
    }

    fn stderr(&self, line: &str) {
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// For a command whose answer is on stdout already: the failure is in it, and is said on stderr alone.
    pub fn complain(&self, failure: &Failure) {
        let code = failure.code.map(|code| format!("[{code}]")).unwrap_or_default();
        self.stderr(&format!("error{code}: {}", printable(&failure.message, 1_000)));
        for finding in &failure.findings {
            self.stderr(&crate::text::finding(finding));
        }
        if let Some(hint) = &failure.hint {
            self.stderr(&format!("hint: {hint}"));
        }
    }

    pub fn fail(&self, command: &str, failure: &Failure) {
        self.complain(failure);
        if self.format == Format::Json {
            let _ = self.json(command, &Failed { error: failure });
        }
    }

    /// Asks on the terminal. `None`: there is no one to ask.
    pub fn ask(&self, question: &str) -> Option<String> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question} ").and_then(|()| stderr.flush()).ok()?;
        drop(stderr);
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_wherever_they_stand() {
        let mut value =
            serde_json::json!({"code": 107, "findings": [{"code": 5, "count": 5}], "outcome": {"failed": {"code": 502}}});
        spell_codes(&mut value);
        let spelled = serde_json::json!({
            "code": "TDE0107", "findings": [{"code": "TDE0005", "count": 5}], "outcome": {"failed": {"code": "TDE0502"}}
        });
        assert_eq!(value, spelled);
    }
}
