//! What goes wrong, as a person reads it: a code, one sentence, and a `hint:` line with the next command.

use crate::exit::Exit;
use serde::Serialize;
use tde2hsm_campaign::fleet::FleetError;
use tde2hsm_campaign::plan::PlanError;
use tde2hsm_campaign::rules::Finding;
use tde2hsm_cloud::CloudError;
use tde2hsm_driver::{DriverError, OpenError};
use tde2hsm_journal::JournalError;
use tde2hsm_protocol::{Code, describe};

#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    #[serde(skip)]
    pub exit: Exit,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        let hint = describe(code).map(|info| info.hint.to_owned());
        Failure { exit: Exit::of(code), code: Some(code), message: message.into(), hint, findings: Vec::new() }
    }

    /// A wrong command line that the parser could not see.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Code::ARGUMENT, message)
    }

    /// What no code stands for: how the program ended says it all.
    pub fn plain(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, code: None, message: message.into(), hint: None, findings: Vec::new() }
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::plain(Exit::Internal, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

/// An error and its causes, in one line. A cause that its effect already names is not said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        let next = this.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = this.source();
    }
    text
}

macro_rules! coded {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::new(error.code(), chain(&error))
            }
        }
    )*};
}
coded!(JournalError, OpenError, DriverError);

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Failure {
        Failure::new(error.code, chain(&error))
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Failure {
        Failure::new(error.code, error.to_string())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        Failure { findings: error.findings().to_vec(), ..Failure::new(error.code(), chain(&error)) }
    }
}

/// A file that could not be read or written.
pub fn file(doing: &str, path: &std::path::Path, code: Code, error: &std::io::Error) -> Failure {
    let failure = Failure::new(code, format!("`{}` cannot be {doing}: {error}", path.display()));
    match code {
        // Its own hint is about what is in it.
        Code::PLAN_UNREADABLE => failure.hint("check the path and the file's permissions"),
        _ => failure,
    }
}
