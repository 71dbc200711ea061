//! The canary scan (H39): are secrets anywhere but where they belong?
//!
//! The scan knows each secret in the forms a careless program leaves it in, and looks at whole files as bytes. It is worth as
//! much as its self-test, which plants one leak of each form in each class of artefact and wants every one found.

use crate::files_below;
use anyhow::Result;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::Digest;

/// One secret and the bytes to look for.
pub struct Canary {
    pub name: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    pub place: PathBuf,
    pub secret: String,
    pub form: &'static str,
}

impl Canary {
    pub fn new(name: &str, secret: &str) -> Canary {
        let mut forms: Vec<(&'static str, Vec<u8>)> = vec![
            ("plain", secret.into()),
            ("hex", hex(secret, false)),
            ("HEX", hex(secret, true)),
            ("URL", url(secret)),
            ("JSON", serde_json::to_string(secret).unwrap_or_default().trim_matches('"').into()),
            ("doubled quotes", secret.replace('\'', "''").replace('"', "\"\"").into()),
            ("UTF-16", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ];
        // Base64 of a longer text shows the secret in one of three alignments; the characters that only it decides are looked for.
        for (shift, form) in ["base64", "base64 +1", "base64 +2"].into_iter().enumerate() {
            forms.push((form, base64_core(secret.as_bytes(), shift)));
        }
        let mut seen = BTreeSet::new();
        forms.retain(|(_, bytes)| bytes.len() >= 8 && seen.insert(bytes.clone()));
        Canary { name: name.to_owned(), forms }
    }

    pub fn forms(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.forms.iter().map(|(form, bytes)| (*form, bytes.as_slice()))
    }

    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| *name)
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&b| b == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn hex(text: &str, upper: bool) -> Vec<u8> {
    text.bytes().flat_map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }.into_bytes()).collect()
}

fn url(text: &str) -> Vec<u8> {
    text.bytes()
        .flat_map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { vec![b] } else { format!("%{b:02X}").into_bytes() })
        .collect()
}

fn base64_core(secret: &[u8], shift: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut padded = vec![0; shift];
    padded.extend_from_slice(secret);
    let bits = |at: usize| {
        (0..6).fold(0usize, |acc, i| acc << 1 | padded.get((at + i) / 8).map_or(0, |b| usize::from(b >> (7 - (at + i) % 8) & 1)))
    };
    // Whole characters from the first that lies inside the secret to the last that does.
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    (first..last).map(|i| ALPHABET[bits(i * 6)]).collect()
}

/// Looks through every regular file below `root` that `skip` does not name.
pub fn scan(root: &Path, canaries: &[Canary], skip: &dyn Fn(&Path) -> bool) -> Result<(Vec<Leak>, usize)> {
    let mut leaks = Vec::new();
    let mut files = 0;
    // Each host and each command has its copy of the runner: one content is searched once.
    let mut searched: HashMap<Digest, Vec<(String, &'static str)>> = HashMap::new();
    for path in files_below(root)?.into_iter().filter(|path| !skip(path)) {
        // A file may go while we look: a temp file of a process that still runs.
        let Ok(bytes) = fs::read(&path) else { continue };
        files += 1;
        let found = searched.entry(Digest::of(&bytes)).or_insert_with(|| {
            canaries.iter().filter_map(|canary| canary.found_in(&bytes).map(|form| (canary.name.clone(), form))).collect()
        });
        leaks.extend(found.iter().map(|(secret, form)| Leak { place: path.clone(), secret: secret.clone(), form }));
    }
    leaks.sort();
    Ok((leaks, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_in_the_middle_of_something() {
        let secret = "tde_cu:It's-\"k7RmQ2 w9";
        let canary = Canary::new("cu", secret);
        for (form, bytes) in canary.forms() {
            let mut noise = b"before \xff\x00 ".to_vec();
            noise.extend_from_slice(bytes);
            noise.extend_from_slice(b" after");
            assert!(canary.found_in(&noise).is_some(), "{form}");
        }
        assert_eq!(canary.found_in(b"tde_cu:It's-\"k7RmQ2 w8 and dGRlX2N1"), None);
    }

    #[test]
    fn base64_is_found_at_any_alignment() {
        use std::process::{Command, Stdio};
        let canary = Canary::new("pin", "oracle_tde:Old-abcdEFGH2345");
        for prefix in ["", "x", "xy", "xyz", "IDENTIFIED BY \""] {
            let mut child =
                Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("base64");
            std::io::Write::write_all(
                &mut child.stdin.take().expect("piped"),
                format!("{prefix}oracle_tde:Old-abcdEFGH2345\";").as_bytes(),
            )
            .expect("write");
            let out = child.wait_with_output().expect("base64").stdout;
            assert!(canary.found_in(&out).is_some_and(|form| form.starts_with("base64")), "{prefix:?}");
        }
    }
}
