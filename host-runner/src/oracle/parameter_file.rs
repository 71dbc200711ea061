//! The parameter files that a STARTUP of this instance would read, found as Oracle finds them.
//!
//! `spfileSID.ora`, then `spfile.ora`, then `initSID.ora`, the first that is there in `dbs`. An `initSID.ora` may be one line
//! that leads elsewhere: SPFILE and IFILE are read in their place, and of a parameter that stands there more than once the last
//! counts, one of this SID before one of all. Whoever looked at one name of these alone would take a database that is
//! configured for one that is not, and leave a keystore in its reach (H17, H44). So what cannot be read to its end is an
//! error, never a database without that parameter.

use crate::files::FileError;
use crate::oracle::Db;
use std::path::Path;
use tde2hsm_protocol::Sid;

/// Where keystores are, and what leads to where that stands: these are read whole or not at all.
const NAMES: [&str; 7] =
    ["wallet_root", "tde_configuration", "external_keystore_credential_location", "db_unique_name", "db_name", "spfile", "ifile"];

/// Oracle's own limit of files within files.
const DEPTH: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("{0}")]
    Owner(#[from] crate::owner::OwnerError),
    #[error("`{path}` cannot be read: {source}")]
    File {
        path: String,
        #[source]
        source: FileError,
    },
    #[error("`{by}` leads to `{path}`, which is not there")]
    Missing { path: String, by: String },
    #[error("`{by}` leads to `{path}`, which is no file of this host")]
    Elsewhere { path: String, by: String },
    #[error("`{path}` leads from file to file more than {DEPTH} times")]
    Deep { path: String },
    #[error("`{path}` breaks off within `{name}`")]
    Broken { path: String, name: String },
}

/// One parameter as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The instance that it is for. `None`: for each.
    sid: Option<String>,
    /// In lower case.
    pub name: String,
    /// As written, with its quotes.
    pub raw: String,
}

impl Entry {
    pub fn value(&self) -> &str {
        unquoted(&self.raw)
    }
    fn is_for(&self, sid: &Sid) -> bool {
        self.sid.as_ref().is_none_or(|of| of.eq_ignore_ascii_case(sid.as_str()))
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}={}", self.sid.as_deref().unwrap_or("*"), self.name, self.raw)
    }
}

/// What one stretch of the whole came from.
#[derive(Debug, Clone)]
pub enum Piece {
    Text(Vec<Entry>),
    /// Only Oracle reads it for certain; these are what can be seen of it.
    Spfile(String, Vec<Entry>),
}

#[derive(Debug, Clone)]
pub struct ParameterFiles {
    sid: Sid,
    /// In the order in which they are read.
    pub paths: Vec<String>,
    pub pieces: Vec<Piece>,
}

impl ParameterFiles {
    /// `None`: STARTUP finds none.
    pub fn of(db: &Db) -> Result<Option<ParameterFiles>, ParameterError> {
        let mut files = db.owner.files()?;
        find(&db.place.home, db.sid(), &mut |path| files.read(Path::new(path)))
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Text(entries) | Piece::Spfile(_, entries) => entries,
            })
            .filter(|entry| entry.is_for(&self.sid))
    }

    /// What the instance would start with.
    pub fn value(&self, name: &str) -> Option<&str> {
        let of_name = || self.entries().rev().filter(|entry| entry.name == name);
        of_name().find(|entry| entry.sid.is_some()).or_else(|| of_name().next()).map(Entry::value)
    }

    /// Whatever stands there of it, be it overridden or not.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.entries().filter(move |entry| entry.name == name).map(Entry::value)
    }
}

type Read<'a> = &'a mut dyn FnMut(&str) -> Result<Option<Vec<u8>>, FileError>;

fn find(home: &str, sid: &Sid, read: Read<'_>) -> Result<Option<ParameterFiles>, ParameterError> {
    let home = home.trim_end_matches('/');
    let mut found = ParameterFiles { sid: sid.clone(), paths: Vec::new(), pieces: Vec::new() };
    for (name, spfile) in [(format!("spfile{sid}.ora"), true), ("spfile.ora".to_owned(), true), (format!("init{sid}.ora"), false)]
    {
        let path = format!("{home}/dbs/{name}");
        let Some(bytes) = bytes_of(&path, read)? else { continue };
        if spfile {
            found.pieces.push(Piece::Spfile(path.clone(), of_spfile(&path, &bytes)?));
            found.paths.push(path);
        } else {
            text(home, sid, path, &bytes, DEPTH, &mut found, read)?;
        }
        return Ok(Some(found));
    }
    Ok(None)
}

fn bytes_of(path: &str, read: Read<'_>) -> Result<Option<Vec<u8>>, ParameterError> {
    read(path).map_err(|source| ParameterError::File { path: path.to_owned(), source })
}

fn text(
    home: &str,
    sid: &Sid,
    path: String,
    bytes: &[u8],
    depth: usize,
    found: &mut ParameterFiles,
    read: Read<'_>,
) -> Result<(), ParameterError> {
    found.paths.push(path.clone());
    let mut here = Vec::new();
    for entry in entries(&path, &String::from_utf8_lossy(bytes))? {
        let spfile = entry.name == "spfile";
        if !(spfile || entry.name == "ifile") {
            here.push(entry);
            continue;
        }
        let Some(depth) = depth.checked_sub(1) else { return Err(ParameterError::Deep { path }) };
        let leads = entry.value().replace('?', home).replace('@', sid.as_str());
        // The server process works in `dbs`; who reads an IFILE works anywhere.
        let leads = match leads.chars().next() {
            None => continue,
            Some('/') => leads,
            Some('+') => return Err(ParameterError::Elsewhere { path: leads, by: path }),
            Some(_) if spfile => format!("{home}/dbs/{leads}"),
            Some(_) => return Err(ParameterError::Elsewhere { path: leads, by: path }),
        };
        let Some(bytes) = bytes_of(&leads, read)? else {
            return Err(ParameterError::Missing { path: leads, by: path });
        };
        found.pieces.push(Piece::Text(std::mem::take(&mut here)));
        if spfile {
            found.pieces.push(Piece::Spfile(leads.clone(), of_spfile(&leads, &bytes)?));
            found.paths.push(leads);
        } else {
            text(home, sid, leads, &bytes, depth, found, read)?;
        }
    }
    found.pieces.push(Piece::Text(here));
    Ok(())
}

/// An spfile holds its parameters as text, in blocks that each begin with a header of Oracle's; a value may go on behind the
/// next one.
fn of_spfile(path: &str, bytes: &[u8]) -> Result<Vec<Entry>, ParameterError> {
    const BLOCK: usize = 512;
    const HEADER: usize = 20;
    const MAGIC: &[u8] = b"C\"";
    let in_blocks = bytes.len().is_multiple_of(BLOCK) && bytes.chunks(BLOCK).all(|block| block.starts_with(MAGIC));
    if !in_blocks {
        return entries(path, &String::from_utf8_lossy(bytes));
    }
    let mut text = Vec::new();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let payload = &block[HEADER..];
        let end = payload.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        text.extend_from_slice(&payload[..end]);
        if number == 0 {
            text.push(b'\n');
        }
    }
    entries(path, &String::from_utf8_lossy(&text))
}

/// The parameters of a text, wherever its lines end.
pub fn entries(path: &str, text: &str) -> Result<Vec<Entry>, ParameterError> {
    let mut rest = text;
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || c == ',');
        if rest.is_empty() {
            return Ok(found);
        }
        let word = rest.find(|c: char| c.is_whitespace() || c.is_control() || "=#".contains(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(word);
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=').filter(|_| !name.is_empty()) else {
            // A comment, or nothing of ours.
            rest = &rest[rest.find(['\n', '\0']).unwrap_or(rest.len())..];
            continue;
        };
        let (sid, name) = name.rsplit_once('.').unwrap_or(("*", name));
        let name = name.to_ascii_lowercase();
        let value = value.trim_start_matches([' ', '\t']);
        let Some(end) = end_of(value) else {
            if NAMES.contains(&name.as_str()) {
                return Err(ParameterError::Broken { path: path.to_owned(), name });
            }
            rest = &value[value.find(['\n', '\0']).unwrap_or(value.len())..];
            continue;
        };
        let raw = value[..end].trim_end().replace(['\n', '\r'], " ");
        found.push(Entry { sid: (sid != "*").then(|| sid.to_owned()), name, raw });
        rest = &value[end..];
    }
}

/// How far a value goes: words, quoted texts and lists in brackets, with commas between them. `None`: it breaks off.
fn end_of(value: &str) -> Option<usize> {
    let bytes = value.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at).copied() {
        match byte {
            b'\'' | b'"' => {
                let close = bytes[at + 1..].iter().position(|b| *b == byte || matches!(b, b'\n' | 0))?;
                at += 1 + close;
                if bytes[at] != byte {
                    return None;
                }
            }
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            0 if depth > 0 => return None,
            b',' if depth == 0 => {
                let next = bytes[at + 1..].iter().position(|b| !b.is_ascii_whitespace()).map_or(bytes.len(), |n| at + 1 + n);
                at = next;
                continue;
            }
            b' ' | b'\t' if depth == 0 => {
                // The list goes on behind its comma, else the value has ended.
                let next = bytes[at..].iter().position(|b| !matches!(b, b' ' | b'\t')).map_or(bytes.len(), |n| at + n);
                if bytes.get(next) != Some(&b',') {
                    return Some(at);
                }
                at = next;
                continue;
            }
            b'#' | b'\n' | b'\r' | 0 if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(bytes.len())
}

fn unquoted(raw: &str) -> &str {
    ['\'', '"'].into_iter().find_map(|quote| raw.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const HOME: &str = "/u01/home";

    fn found(files: &[(&str, &str)]) -> Result<Option<ParameterFiles>, ParameterError> {
        let files: BTreeMap<String, &str> = files
            .iter()
            .map(
                |(name, text)| {
                    if name.starts_with('/') { ((*name).to_owned(), *text) } else { (format!("{HOME}/dbs/{name}"), *text) }
                },
            )
            .collect();
        find(HOME, &Sid::new("FIN").unwrap(), &mut |path| Ok(files.get(path).map(|text| text.as_bytes().to_vec())))
    }

    fn root(files: &[(&str, &str)]) -> Option<String> {
        found(files).unwrap().and_then(|found| found.value("wallet_root").map(str::to_owned))
    }

    #[test]
    fn h44_the_files_of_a_start_are_looked_for_as_oracle_looks_for_them() {
        let spfile_sid = ("spfileFIN.ora", "*.wallet_root='/sid'\n");
        let spfile = ("spfile.ora", "*.wallet_root='/any'\n");
        let init = ("initFIN.ora", "wallet_root=/init\n");
        let other = ("initHR.ora", "wallet_root=/other\n");
        assert_eq!(root(&[other, init, spfile, spfile_sid]).as_deref(), Some("/sid"));
        assert_eq!(root(&[other, init, spfile]).as_deref(), Some("/any"));
        assert_eq!(root(&[other, init]).as_deref(), Some("/init"));
        assert!(found(&[other]).unwrap().is_none());
    }

    #[test]
    fn h44_an_init_ora_leads_to_other_files_and_the_last_word_counts() {
        let files = [
            (
                "initFIN.ora",
                "# *.wallet_root='/no'\nwallet_root=/before\nSPFILE = '?/dbs/sp@.ora'  # there\nifile=\"/etc/more.ora\"\n",
            ),
            ("spFIN.ora", "*.wallet_root='/of/spfile'\n*.db_name='FIN'\n"),
            ("/etc/more.ora", "db_unique_name = FIN_A\n"),
        ];
        let all = found(&files).unwrap().unwrap();
        assert_eq!(all.paths, ["/u01/home/dbs/initFIN.ora", "/u01/home/dbs/spFIN.ora", "/etc/more.ora"]);
        assert_eq!(all.value("wallet_root"), Some("/of/spfile"));
        assert_eq!(all.values("wallet_root").collect::<Vec<_>>(), ["/before", "/of/spfile"]);
        assert_eq!((all.value("db_name"), all.value("db_unique_name")), (Some("FIN"), Some("FIN_A")));
        // Without a directory it lies in `dbs`.
        assert_eq!(root(&[("initFIN.ora", "spfile=x.ora"), ("x.ora", "wallet_root=/w")]).as_deref(), Some("/w"));
        let fails = |files: &[(&str, &str)]| found(files).unwrap_err();
        assert!(matches!(fails(&[("initFIN.ora", "spfile='/gone'\n")]), ParameterError::Missing { .. }));
        assert!(matches!(fails(&[("initFIN.ora", "spfile='+DATA/fin/spfile.ora'\n")]), ParameterError::Elsewhere { .. }));
        assert!(matches!(fails(&[("initFIN.ora", "ifile=common.ora\n")]), ParameterError::Elsewhere { .. }));
        assert!(matches!(fails(&[("initFIN.ora", "ifile=/a"), ("/a", "ifile=/a")]), ParameterError::Deep { .. }));
    }

    #[test]
    fn h17_a_parameter_of_this_sid_is_before_one_of_all_and_none_of_another() {
        let text = "FIN.wallet_root='/fin'\n*.wallet_root='/all'\nHR.wallet_root='/hr'\nHR.db_name='HR'\n";
        let all = found(&[("spfileFIN.ora", text)]).unwrap().unwrap();
        assert_eq!((all.value("wallet_root"), all.value("db_name")), (Some("/fin"), None));
    }

    #[test]
    fn h17_what_stands_in_a_text_is_read_wherever_its_lines_end() {
        let text = "db_name = FIN processes=300 # wallet_root=/no\ncontrol_files = ('/a',\n  '/b') wallet_root=\"/w\"\n\
            listener=(ADDRESS=\n (PORT=1))\n*.x='a', 'b'\nnothing here\n*.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'\n";
        let shown: Vec<String> = entries("f", text).unwrap().iter().map(Entry::to_string).collect();
        assert_eq!(
            shown,
            [
                "*.db_name=FIN",
                "*.processes=300",
                "*.control_files=('/a',   '/b')",
                "*.wallet_root=\"/w\"",
                "*.listener=(ADDRESS=  (PORT=1))",
                "*.x='a', 'b'",
                "*.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'",
            ]
        );
    }

    #[test]
    fn h17_an_spfile_is_read_over_the_headers_of_its_blocks_or_not_at_all() {
        let text = b"C\x00\x00\x01*.processes=300\n*.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'\nORCL.wallet_root='/w'\n\x00\x00";
        let seen: Vec<String> = of_spfile("f", text).unwrap().iter().map(Entry::to_string).collect();
        assert_eq!(seen[1..], ["*.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'", "ORCL.wallet_root='/w'"]);

        let header = |number: u8| {
            let mut block = vec![0; 20];
            block[..5].copy_from_slice(&[b'C', b'"', 0, 0, number]);
            block
        };
        let mut file = header(1);
        file.resize(512, 0);
        let mut line = b"*.db_name='FIN'\n".to_vec();
        line.resize(470, b'#');
        line.extend_from_slice(b"\n*.wallet_root='/u01/app/oracle/keys'\n");
        for (number, part) in line.chunks(492).enumerate() {
            file.extend(header(u8::try_from(number).unwrap() + 2));
            file.extend_from_slice(part);
            file.resize(512 * (number + 2), 0);
        }
        assert_eq!(file.len(), 3 * 512);
        let seen = of_spfile("f", &file).unwrap();
        assert_eq!(seen.last().unwrap().value(), "/u01/app/oracle/keys");
        // Blocks that are none of these: the half of a directory would be another directory.
        file[512] = b'D';
        assert!(matches!(of_spfile("f", &file), Err(ParameterError::Broken { .. })));
    }
}
