//! What client, server process and instance say to each other: a JSON value a line.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::engine::ddl::Shutdown;
use crate::engine::sql::Answer;
use crate::engine::{Hello, Privilege};
use crate::error::Ora;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    NoMount,
    Mount,
    Open,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Client to server process.
    Connect(Privilege),
    /// Server process to instance.
    Hello(Box<Hello>),
    Startup {
        stage: Stage,
        restrict: bool,
        /// PFILE=…: this file in place of the one that is looked for.
        pfile: Option<String>,
    },
    Shutdown(Shutdown),
    Sql(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// More follows.
    Line(String),
    Answer(Answer),
    Error(Vec<(u32, String)>),
    Ok,
    /// Connected, but no instance runs.
    Idle,
}

impl Reply {
    #[must_use]
    pub fn error(error: &Ora) -> Reply {
        Reply::Error(error.lines.clone())
    }
}

pub fn send<T: Serialize>(to: &mut impl Write, value: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// The next value, or none at the end.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
