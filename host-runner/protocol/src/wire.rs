//! The two lines, encoded and decoded.
//!
//! Decoding treats its input as hostile (H36): the length is checked before and after inflating, unknown fields of an
//! order are errors, and text meant for people is reduced to printable ASCII.

use crate::{Chunk, ORDER_HOSTS, Order, PROTOCOL_VERSION, Report};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use std::io::{Read as _, Write as _};

/// The most characters of an order: a document's parameters count against 64 KB with everything else.
pub const ORDER_LIMIT: usize = 24 * 1024;
/// The most characters of a report, newline excluded.
pub const REPORT_LIMIT: usize = 2_000;
/// What a report's line starts with. The words after it are the outcome and the code, for the console's reader.
pub const REPORT_PREFIX: &str = "TDE2HSM/1";
/// What any of our deflated texts may grow to.
const INFLATED_LIMIT: u64 = 4 * 1024 * 1024;
const MESSAGE_LIMIT: usize = 240;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("an order of {0} characters is over the limit of {ORDER_LIMIT}; split the batch")]
    OrderTooLarge(usize),
    #[error("an order names {0} hosts; at most {ORDER_HOSTS} fit one command")]
    TooManyHosts(usize),
    #[error("no report found: the line does not start with `{REPORT_PREFIX}`")]
    NoReport,
    #[error("a report of {0} characters is over the limit of {REPORT_LIMIT}")]
    ReportTooLarge(usize),
    #[error("not base64url")]
    Base64(#[source] base64::DecodeError),
    #[error("not a deflated text, or one that grows beyond {INFLATED_LIMIT} bytes")]
    Inflate(#[source] std::io::Error),
    #[error("not the JSON that was expected")]
    Json(#[source] serde_json::Error),
    #[error("protocol version {0} is not the version {PROTOCOL_VERSION} of this program")]
    Version(u8),
    #[error("a detail's chunk {index} of {of} is missing or does not fit its digest")]
    Detail { index: usize, of: usize },
}

/// Deflates a text. Used for orders, reports and details alike.
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

pub fn inflate(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    let mut reader = DeflateDecoder::new(bytes).take(INFLATED_LIMIT + 1);
    reader.read_to_end(&mut out).map_err(WireError::Inflate)?;
    if out.len() as u64 > INFLATED_LIMIT {
        return Err(WireError::Inflate(std::io::Error::other("too large")));
    }
    Ok(out)
}

fn pack<T: serde::Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("protocol types serialise");
    URL_SAFE_NO_PAD.encode(deflate(&json))
}

fn unpack(text: &str) -> Result<Vec<u8>, WireError> {
    inflate(&URL_SAFE_NO_PAD.decode(text).map_err(WireError::Base64)?)
}

/// The version alone, read first so that an order of another version is refused as such and not as bad JSON.
#[derive(serde::Deserialize)]
struct Version {
    v: u8,
}

fn check_version(json: &[u8]) -> Result<(), WireError> {
    let Version { v } = serde_json::from_slice(json).map_err(WireError::Json)?;
    if v == PROTOCOL_VERSION { Ok(()) } else { Err(WireError::Version(v)) }
}

impl Order {
    pub fn encode(&self) -> Result<String, WireError> {
        if self.hosts.len() > ORDER_HOSTS {
            return Err(WireError::TooManyHosts(self.hosts.len()));
        }
        let text = pack(self);
        if text.len() > ORDER_LIMIT { Err(WireError::OrderTooLarge(text.len())) } else { Ok(text) }
    }

    pub fn decode(text: &str) -> Result<Order, WireError> {
        if text.len() > ORDER_LIMIT {
            return Err(WireError::OrderTooLarge(text.len()));
        }
        let json = unpack(text)?;
        check_version(&json)?;
        serde_json::from_slice(&json).map_err(WireError::Json)
    }
}

impl crate::DrillRead {
    fn names(&self) -> usize {
        self.with_p12.len() + self.unread.len()
    }
}

impl Report {
    /// One ASCII line without its newline. Drops, in this order, until it fits: the chunk, key observations, databases
    /// that ended well, the message's tail, all databases. What is left without them is a few hundred bytes.
    pub fn encode(&self) -> String {
        let mut report = self.clone();
        report.message = printable(&report.message, MESSAGE_LIMIT);
        loop {
            let text = report.line();
            if text.len() <= REPORT_LIMIT {
                return text;
            }
            report.shrink();
        }
    }

    fn line(&self) -> String {
        let code = self.outcome.code().map_or_else(|| "-".to_owned(), |code| code.to_string());
        format!("{REPORT_PREFIX} {} {code} {}", self.outcome.name(), pack(self))
    }

    fn shrink(&mut self) {
        if self.chunk.take().is_some() {
            return;
        }
        if let Some(database) = self.databases.iter_mut().rev().find(|d| !d.keys.is_empty()) {
            // Halving keeps the loop short for a host with hundreds of containers.
            let kept = database.keys.len() / 2;
            self.omitted = self.omitted.saturating_add((database.keys.len() - kept) as u16);
            database.keys.truncate(kept);
            return;
        }
        if let Some(drill) = self.databases.iter_mut().rev().filter_map(|d| d.drill.as_mut()).find(|d| d.names() > 0) {
            let names = drill.names();
            drill.with_p12.truncate(drill.with_p12.len() / 2);
            drill.unread.truncate(drill.unread.len() / 2);
            self.omitted = self.omitted.saturating_add((names - drill.names()) as u16);
            return;
        }
        if let Some(at) = self.databases.iter().rposition(|d| d.outcome.code().is_none()) {
            self.databases.remove(at);
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        if self.message.len() > 80 {
            self.message.truncate(80);
            return;
        }
        if self.databases.pop().is_some() {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        self.logins.clear();
        self.message.clear();
    }

    /// Finds the report in a command's output. Anything before the line is ignored: an agent may have spoken first.
    pub fn decode(output: &str) -> Result<Report, WireError> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.strip_prefix(REPORT_PREFIX).is_some_and(|rest| rest.starts_with(' ')))
            .ok_or(WireError::NoReport)?
            .trim_end();
        if line.len() > REPORT_LIMIT {
            return Err(WireError::ReportTooLarge(line.len()));
        }
        let json = unpack(line.rsplit(' ').next().unwrap_or_default())?;
        check_version(&json)?;
        let mut report: Report = serde_json::from_slice(&json).map_err(WireError::Json)?;
        report.message = printable(&report.message, MESSAGE_LIMIT);
        Ok(report)
    }
}

/// Printable ASCII only, at most `limit` characters: what a host says is shown on terminals (H36).
pub fn printable(text: &str, limit: usize) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(limit).collect()
}

impl Chunk {
    pub fn of(detail: &[u8], index: u16) -> Option<Chunk> {
        let piece = detail.chunks(crate::CHUNK_BYTES).nth(usize::from(index))?;
        Some(Chunk { index, data: URL_SAFE_NO_PAD.encode(piece) })
    }
}

impl crate::DetailRef {
    /// For a deflated detail.
    pub fn of(detail: &[u8]) -> crate::DetailRef {
        crate::DetailRef { digest: crate::Digest::of(detail), chunks: detail.len().div_ceil(crate::CHUNK_BYTES) as u16 }
    }

    /// Puts a detail together again, checks its digest and inflates it.
    pub fn assemble(&self, chunks: &[Chunk]) -> Result<Vec<u8>, WireError> {
        let of = usize::from(self.chunks);
        let mut bytes = Vec::new();
        for index in 0..of {
            let missing = WireError::Detail { index, of };
            let chunk = chunks.iter().find(|c| usize::from(c.index) == index).ok_or(missing)?;
            bytes.extend(URL_SAFE_NO_PAD.decode(&chunk.data).map_err(WireError::Base64)?);
        }
        if crate::Digest::of(&bytes) != self.digest {
            return Err(WireError::Detail { index: of, of });
        }
        inflate(&bytes)
    }
}
