//! `sqlnet.ora`, read and printed without loss: one parameter changes, every other byte stays (H16).
//!
//! The file is never built anew. It is kept as the bytes it is, cut into entries where Oracle cuts them (a parameter
//! starts in the first column, what is indented continues it, `O§2.1`), and an edit replaces the few bytes that say
//! METHOD or DIRECTORY. Where the text could be read in two ways (set twice, an IFILE, brackets that do not close, the
//! name in a place where it sets nothing) it is refused, because the server's reading decides which keystore it opens.

use std::ops::Range;
use winnow::ascii::till_line_ending;
use winnow::combinator::{alt, cut_err, delimited, preceded, repeat, terminated};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::LocatingSlice;
use winnow::token::take_while;

/// Where a keystore is, as ENCRYPTION_WALLET_LOCATION says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletLocation {
    pub method: Method,
    pub directory: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    File,
    Hsm,
    /// Anything else (OKV, ORACLE_HSM, …), in its own spelling.
    Other(String),
}

impl Method {
    fn text(&self) -> &str {
        match self {
            Method::File => "FILE",
            Method::Hsm => "HSM",
            Method::Other(text) => text,
        }
    }
    fn read(text: &str) -> Method {
        match text.to_ascii_uppercase().as_str() {
            "FILE" => Method::File,
            "HSM" => Method::Hsm,
            _ => Method::Other(text.to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlnetError {
    #[error("line {line}: {why}")]
    Syntax { line: usize, why: String },
    #[error("`{name}` is set {times} times")]
    Duplicate { name: String, times: usize },
    #[error("line {line} includes another file, which may set the parameter too")]
    Included { line: usize },
    #[error("`{text}` cannot be written into `sqlnet.ora`")]
    Unfit { text: String },
}

impl SqlnetError {
    pub fn code(&self) -> tde2hsm_protocol::Code {
        tde2hsm_protocol::Code::SQLNET_UNREADABLE
    }
}

pub const WALLET_LOCATION: &str = "ENCRYPTION_WALLET_LOCATION";

/// A parsed file. [`SqlnetFile::print`] gives back exactly what was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlnetFile {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

/// A parameter: where its name is, and where its text after `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    line: usize,
    /// From the name's first byte to the last one that is not a line ending.
    span: Range<usize>,
    value: Range<usize>,
}

/// `(KEY = …)`, positions counted from the start of the file.
#[derive(Debug)]
struct Group {
    span: Range<usize>,
    key: Range<usize>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Word(Range<usize>),
    Groups(Vec<Group>),
}

impl SqlnetFile {
    pub fn parse(text: &[u8]) -> Result<SqlnetFile, SqlnetError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut at = 0;
        for (index, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
            let (start, end) = (at, at + content(line));
            at += line.len();
            match kind(&text[start..end]) {
                Line::Empty => {}
                Line::Continues => match entries.last_mut() {
                    Some(entry) => entry.span.end = end,
                    None if mentions(&text[start..end]) => {
                        let why = "it continues nothing, although it names the parameter".to_owned();
                        return Err(SqlnetError::Syntax { line: index + 1, why });
                    }
                    None => {}
                },
                Line::Starts => {
                    entries.push(Entry { name: String::new(), line: index + 1, span: start..end, value: end..end });
                }
            }
        }
        for entry in &mut entries {
            let raw = &text[entry.span.clone()];
            let equals = first_equals(raw).unwrap_or(raw.len());
            entry.name = String::from_utf8_lossy(&without_comments(&raw[..equals])).trim().to_ascii_uppercase();
            entry.value = (entry.span.start + equals + 1).min(entry.span.end)..entry.span.end;
            let elsewhere = entry.name != WALLET_LOCATION && mentions(&without_comments(raw));
            if elsewhere || (entry.name == WALLET_LOCATION && equals == raw.len()) {
                let why = format!("`{WALLET_LOCATION}` stands where it sets nothing");
                return Err(SqlnetError::Syntax { line: entry.line, why });
            }
        }
        Ok(SqlnetFile { text: text.to_owned(), entries })
    }

    pub fn print(&self) -> Vec<u8> {
        self.text.clone()
    }

    /// `None` when the parameter is absent.
    pub fn wallet_location(&self) -> Result<Option<WalletLocation>, SqlnetError> {
        let Some(entry) = self.find(WALLET_LOCATION)? else { return Ok(None) };
        let parts = self.parts(entry)?;
        Ok(Some(WalletLocation {
            method: Method::read(&self.word(&parts.method)),
            directory: parts.directory.as_ref().map(|(word, _)| self.word(word)),
        }))
    }

    /// Sets or adds the parameter; nothing else changes.
    pub fn set_wallet_location(&mut self, location: &WalletLocation) -> Result<(), SqlnetError> {
        for text in [Some(location.method.text()), location.directory.as_deref()].into_iter().flatten() {
            if text.is_empty() || text.bytes().any(|b| b.is_ascii_control() || b" ()=#\"',".contains(&b)) {
                return Err(SqlnetError::Unfit { text: text.chars().filter(|c| !c.is_control()).take(80).collect() });
            }
        }
        let Some(entry) = self.find(WALLET_LOCATION)? else {
            self.append(location);
            return self.parse_again();
        };
        let parts = self.parts(entry)?;
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        match (&location.directory, &parts.directory) {
            (Some(new), Some((word, _))) if self.word(word) != *new => edits.push((word.clone(), new.clone())),
            (Some(new), None) => edits.push(match &parts.data {
                // Just before its closing bracket.
                Some(data) => (data.end - 1..data.end - 1, format!("(DIRECTORY={new})")),
                None => (parts.method_group.end..parts.method_group.end, format!("(METHOD_DATA=(DIRECTORY={new}))")),
            }),
            (None, Some((_, alone))) => edits.push((alone.clone(), String::new())),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if Method::read(&self.word(&parts.method)) != location.method {
            edits.push((parts.method, location.method.text().to_owned()));
        }
        // From the back to the front, so that the positions before stay true.
        edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        for (span, text) in edits {
            self.splice(span, &text);
        }
        self.parse_again()
    }

    /// Takes the parameter out, its line with it.
    pub fn remove_wallet_location(&mut self) -> Result<(), SqlnetError> {
        let Some(entry) = self.find(WALLET_LOCATION)? else { return Ok(()) };
        let mut span = entry.span.clone();
        let rest = &self.text[span.end..];
        span.end += if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
        self.splice(span, "");
        self.parse_again()
    }

    /// Any other parameter's text, by name in any case, without comments and blanks around it.
    pub fn parameter(&self, name: &str) -> Result<Option<String>, SqlnetError> {
        let entry = self.find(&name.to_ascii_uppercase())?;
        Ok(entry.map(|entry| String::from_utf8_lossy(&without_comments(&self.text[entry.value.clone()])).trim().to_owned()))
    }

    fn find(&self, name: &str) -> Result<Option<&Entry>, SqlnetError> {
        if let Some(include) = self.entries.iter().find(|entry| entry.name == "IFILE") {
            return Err(SqlnetError::Included { line: include.line });
        }
        let mut found = self.entries.iter().filter(|entry| entry.name == name);
        let first = found.next();
        match found.count() {
            0 => Ok(first),
            more => Err(SqlnetError::Duplicate { name: name.to_owned(), times: more + 1 }),
        }
    }

    fn word(&self, span: &Range<usize>) -> String {
        String::from_utf8_lossy(&self.text[span.clone()]).into_owned()
    }

    fn splice(&mut self, span: Range<usize>, with: &str) {
        self.text.splice(span, with.bytes());
    }

    fn parse_again(&mut self) -> Result<(), SqlnetError> {
        *self = SqlnetFile::parse(&self.text)?;
        Ok(())
    }

    fn append(&mut self, location: &WalletLocation) {
        let ending = if self.text.windows(2).any(|two| two == b"\r\n") { "\r\n" } else { "\n" };
        if !self.text.is_empty() && !self.text.ends_with(b"\n") {
            self.text.extend(ending.bytes());
        }
        let data = location.directory.as_ref().map(|dir| format!("(METHOD_DATA=(DIRECTORY={dir}))")).unwrap_or_default();
        let line = format!("{WALLET_LOCATION}=(SOURCE=(METHOD={}){data}){ending}", location.method.text());
        self.text.extend(line.bytes());
    }

    fn parts(&self, entry: &Entry) -> Result<Parts, SqlnetError> {
        let wrong = |why: &str| SqlnetError::Syntax { line: entry.line, why: why.to_owned() };
        let groups = parse_groups(&self.text[entry.value.clone()], entry.value.start).map_err(|(at, why)| {
            let line = entry.line + self.text[entry.span.start..at].iter().filter(|b| **b == b'\n').count();
            SqlnetError::Syntax { line, why }
        })?;
        let source = self.one(&groups, "SOURCE").map_err(|why| wrong(&why))?.ok_or_else(|| wrong("SOURCE is missing"))?;
        let Body::Groups(source) = &source.body else { return Err(wrong("SOURCE holds no METHOD")) };
        let method = self.one(source, "METHOD").map_err(|why| wrong(&why))?.ok_or_else(|| wrong("METHOD is missing"))?;
        let Body::Word(method_word) = &method.body else { return Err(wrong("METHOD is not a word")) };
        let data = self.one(source, "METHOD_DATA").map_err(|why| wrong(&why))?;
        let mut directory = None;
        let mut data_place = None;
        if let Some(data) = data {
            let Body::Groups(inside) = &data.body else { return Err(wrong("METHOD_DATA holds no DIRECTORY")) };
            if let Some(group) = self.one(inside, "DIRECTORY").map_err(|why| wrong(&why))? {
                let Body::Word(word) = &group.body else { return Err(wrong("DIRECTORY is not a path")) };
                let alone = if inside.len() == 1 { data.span.clone() } else { group.span.clone() };
                directory = Some((word.clone(), alone));
            }
            data_place = Some(data.span.clone());
        }
        Ok(Parts { method: method_word.clone(), method_group: method.span.clone(), directory, data: data_place })
    }

    /// The one group with a key; more than one is an error.
    fn one<'a>(&self, groups: &'a [Group], key: &str) -> Result<Option<&'a Group>, String> {
        let mut found = groups.iter().filter(|group| self.word(&group.key).eq_ignore_ascii_case(key));
        let first = found.next();
        if found.next().is_some() { Err(format!("{key} is there twice")) } else { Ok(first) }
    }
}

struct Parts {
    method: Range<usize>,
    method_group: Range<usize>,
    /// The path, and what to take out when there shall be none.
    directory: Option<(Range<usize>, Range<usize>)>,
    /// METHOD_DATA with its brackets.
    data: Option<Range<usize>>,
}

enum Line {
    /// Blank or a comment.
    Empty,
    Continues,
    Starts,
}

fn kind(line: &[u8]) -> Line {
    match line.iter().find(|b| !b.is_ascii_whitespace()) {
        None | Some(b'#') => Line::Empty,
        // No parameter's name starts with a bracket: in the first column, too, it can only go on.
        Some(b'(' | b')') => Line::Continues,
        Some(_) if line[0].is_ascii_whitespace() => Line::Continues,
        Some(_) => Line::Starts,
    }
}

/// Length of a line without its ending.
fn content(line: &[u8]) -> usize {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).len()
}

fn mentions(text: &[u8]) -> bool {
    text.to_ascii_uppercase().windows(WALLET_LOCATION.len()).any(|window| window == WALLET_LOCATION.as_bytes())
}

/// The first `=` that is not in a comment.
fn first_equals(text: &[u8]) -> Option<usize> {
    let mut comment = false;
    text.iter().position(|b| {
        match b {
            b'#' => comment = true,
            b'\n' => comment = false,
            _ => {}
        }
        *b == b'=' && !comment
    })
}

fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|b| *b == b'\n') {
        let end = line.iter().position(|b| *b == b'#').unwrap_or(line.len());
        clean.extend_from_slice(&line[..end]);
        if end < line.len() {
            clean.push(b'\n');
        }
    }
    clean
}

type Input<'a> = LocatingSlice<&'a [u8]>;

/// `(A=(B=c)(D=(E=f)))` with blanks, line ends and comments anywhere between. Positions are moved by `base`.
fn parse_groups(text: &[u8], base: usize) -> Result<Vec<Group>, (usize, String)> {
    // The parser recurses; a text that is all brackets shall not end the stack.
    let mut depth = 0_usize;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > 16 {
            return Err((base + at, "brackets are nested too deep".to_owned()));
        }
    }
    let mut groups = terminated(groups, filler).parse(LocatingSlice::new(text)).map_err(|error| {
        let offset = error.offset();
        let why = error.into_inner().to_string();
        let why = if why.is_empty() { "the text cannot be understood".to_owned() } else { why.replace('\n', ", ") };
        (base + offset, why)
    })?;
    move_groups(&mut groups, base);
    Ok(groups)
}

fn move_groups(groups: &mut [Group], base: usize) {
    let shift = |span: &mut Range<usize>| *span = span.start + base..span.end + base;
    for group in groups {
        shift(&mut group.span);
        shift(&mut group.key);
        match &mut group.body {
            Body::Word(word) => shift(word),
            Body::Groups(inside) => move_groups(inside, base),
        }
    }
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn filler(input: &mut Input<'_>) -> ModalResult<()> {
    let blank = take_while(1.., |b: u8| b.is_ascii_whitespace()).void();
    let comment = (b'#', till_line_ending).void();
    repeat(0.., alt((blank, comment))).parse_next(input)
}

fn groups(input: &mut Input<'_>) -> ModalResult<Vec<Group>> {
    repeat(1.., preceded(filler, group)).parse_next(input)
}

fn group(input: &mut Input<'_>) -> ModalResult<Group> {
    let inside = (
        terminated(word, (filler, b'=')).context(expected("a name and `=`")),
        alt((groups.map(Body::Groups), preceded(filler, word).map(Body::Word))).context(expected("a value or `(`")),
    );
    let closed = delimited((b'(', filler), cut_err(inside), cut_err((filler, b')')).context(expected("`)`")));
    let ((key, body), span) = closed.with_span().parse_next(input)?;
    Ok(Group { span, key, body })
}

/// A word without blanks at its ends; it may hold blanks.
fn word(input: &mut Input<'_>) -> ModalResult<Range<usize>> {
    let (bytes, span) =
        take_while(1.., |b: u8| !b.is_ascii_control() && !b"()=#\"',".contains(&b)).with_span().parse_next(input)?;
    let blanks = bytes.iter().rev().take_while(|b| b.is_ascii_whitespace()).count();
    if blanks == bytes.len() {
        return Err(ErrMode::Backtrack(ContextError::new()));
    }
    Ok(span.start..span.end - blanks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn location(method: Method, directory: Option<&str>) -> WalletLocation {
        WalletLocation { method, directory: directory.map(str::to_owned) }
    }

    fn read(text: &str) -> Result<Option<WalletLocation>, SqlnetError> {
        SqlnetFile::parse(text.as_bytes()).and_then(|file| file.wallet_location())
    }

    fn edited(text: &str, to: &WalletLocation) -> String {
        let mut file = SqlnetFile::parse(text.as_bytes()).unwrap();
        file.set_wallet_location(to).unwrap();
        String::from_utf8(file.print()).unwrap()
    }

    const ODD: &str = "# wallet\r\nNAMES.DIRECTORY_PATH= (TNSNAMES, EZCONNECT)\r\n\
        Encryption_Wallet_Location =   # see ticket 12\r\n  (source =\r\n\r\n    (Method = hsm ) # old vendor (do not close here\r\n\
        # in the first column\r\n    (method_data=\r\n\t( DIRECTORY = /u01/app/oracle/admin/$ORACLE_SID/wallet )\r\n))\r\n\
        SQLNET.EXPIRE_TIME=10 # last, without a line end";

    #[test]
    fn what_oracle_accepts_is_read() {
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("# encryption_wallet_location=(source=(method=hsm))\n").unwrap(), None);
        let file = location(Method::File, Some("/u01/w"));
        assert_eq!(
            read("ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=FILE)(METHOD_DATA=(DIRECTORY=/u01/w)))").unwrap(),
            Some(file.clone())
        );
        assert_eq!(read("encryption_wallet_location=(source=(method=hsm))").unwrap(), Some(location(Method::Hsm, None)));
        let directory = "/u01/app/oracle/admin/$ORACLE_SID/wallet";
        assert_eq!(read(ODD).unwrap(), Some(location(Method::Hsm, Some(directory))));
        assert_eq!(
            read("ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD_DATA=(DIRECTORY=/u01/w))(METHOD=FILE))").unwrap(),
            Some(file)
        );
        let parsed = SqlnetFile::parse(ODD.as_bytes()).unwrap();
        assert_eq!(parsed.parameter("sqlnet.expire_time").unwrap().as_deref(), Some("10"));
        assert_eq!(parsed.parameter("absent").unwrap(), None);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let line = "ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM))\n";
        assert!(matches!(read(&format!("{line}{line}")), Err(SqlnetError::Duplicate { times: 2, .. })));
        assert!(matches!(read(&format!("ifile=/etc/other.ora\n{line}")), Err(SqlnetError::Included { line: 1 })));
        let wrong = [
            ("A=1\nENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM)\n", 2), // one bracket is missing
            ("ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM)))\n", 1),
            ("ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM)(METHOD=FILE))\n", 1),
            ("ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD_DATA=(DIRECTORY=/x)))\n", 1),
            ("ENCRYPTION_WALLET_LOCATION=HSM\n", 1),
            ("ENCRYPTION_WALLET_LOCATION\n", 1),
            ("A=1\n ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM))\n", 1), // continues A
            ("  ENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM))\n", 1),
            ("ENCRYPTION_WALLET_LOCATION=(SOURCE=\n(METHOD=)\n)\n", 2),
        ];
        for (text, line) in wrong {
            match read(text) {
                Err(SqlnetError::Syntax { line: at, .. }) => assert_eq!(at, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(read(&format!("ENCRYPTION_WALLET_LOCATION={}", "(A=".repeat(100_000))).is_err());
        let mut file = SqlnetFile::parse(line.as_bytes()).unwrap();
        for path in ["/a)(METHOD=FILE", "/a b\n", "", "/a#b", "/a\"b"] {
            let unfit = file.set_wallet_location(&location(Method::File, Some(path)));
            assert!(matches!(unfit, Err(SqlnetError::Unfit { .. })), "{path}");
        }
        assert_eq!(file.print(), line.as_bytes());
    }

    #[test]
    fn h16_one_parameter_changes_and_every_other_byte_stays() {
        let directory = "/u01/app/oracle/admin/$ORACLE_SID/wallet";
        let file = edited(ODD, &location(Method::File, Some(directory)));
        assert_eq!(file, ODD.replace("Method = hsm )", "Method = FILE )"));
        assert_eq!(edited(&file, &location(Method::Hsm, Some("/w"))), ODD.replace("hsm )", "HSM )").replace(directory, "/w"));
        let plain = edited(ODD, &location(Method::Hsm, None));
        assert!(!plain.contains("method_data") && plain.contains("# old vendor (do not close here"));
        assert_eq!(edited(&plain, &location(Method::Hsm, None)), plain);

        let short = "encryption_wallet_location=(source=(method=hsm))\nA=1";
        assert_eq!(
            edited(short, &location(Method::File, Some("/w"))),
            "encryption_wallet_location=(source=(method=FILE)(METHOD_DATA=(DIRECTORY=/w)))\nA=1"
        );
        assert_eq!(
            edited("A=1", &location(Method::Hsm, Some("/w"))),
            "A=1\nENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM)(METHOD_DATA=(DIRECTORY=/w)))\n"
        );
        assert!(
            edited("A=1\r\nB=2", &location(Method::Hsm, None))
                .ends_with("B=2\r\nENCRYPTION_WALLET_LOCATION=(SOURCE=(METHOD=HSM))\r\n")
        );
        let mut back = SqlnetFile::parse(edited("A=1\n", &location(Method::Hsm, None)).as_bytes()).unwrap();
        back.remove_wallet_location().unwrap();
        assert_eq!(back.print(), b"A=1\n");
    }

    /// Blanks, line ends with an indent, comments: what may stand between any two tokens.
    fn filler() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just(String::new()),
            2 => Just(" ".to_owned()),
            1 => Just("\t".to_owned()),
            1 => Just("\n ".to_owned()),
            1 => Just("\r\n\t".to_owned()),
            1 => Just(" # a comment (with = brackets\n  ".to_owned()),
            1 => Just("\n# in the first column )\n ".to_owned()),
        ];
        prop::collection::vec(piece, 0..2).prop_map(|pieces| pieces.concat())
    }

    fn any_case(word: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(any::<bool>(), word.len()).prop_map(move |upper| {
            word.chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
        })
    }

    fn path() -> impl Strategy<Value = String> {
        "/[a-zA-Z0-9_$/.-]{0,30}"
    }

    fn any_location() -> impl Strategy<Value = WalletLocation> {
        let method = prop_oneof![Just(Method::File), Just(Method::Hsm), Just(Method::Other("OKV".to_owned()))];
        (method, prop::option::of(path())).prop_map(|(method, directory)| WalletLocation { method, directory })
    }

    /// The parameter in some spelling.
    fn spelled(location: WalletLocation) -> impl Strategy<Value = String> {
        let fillers = prop::collection::vec(filler(), 20);
        (fillers, any_case("encryption_wallet_location"), any_case("source"), any_case("method"), any_case("method_data"))
            .prop_map(move |(f, name, source, method, data)| {
                let tail = location.directory.as_ref().map_or(String::new(), |dir| {
                    format!("{}({}{data}{}={}({}Directory{}={}{dir}{}){})", f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8])
                });
                format!(
                    "{name}{}={}({}{source}{}={}({}{method}{}={}{}{}){tail}{})",
                    f[9],
                    f[10],
                    f[11],
                    f[12],
                    f[13],
                    f[14],
                    f[15],
                    f[16],
                    location.method.text(),
                    f[17],
                    f[18]
                )
            })
    }

    fn others() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("# a comment\n".to_owned()),
            Just("\n".to_owned()),
            Just("  \r\n".to_owned()),
            Just("NAMES.DIRECTORY_PATH=\n  (TNSNAMES,\n  EZCONNECT)\n".to_owned()),
            Just("WALLET_LOCATION=(SOURCE=(METHOD=FILE)(METHOD_DATA=(DIRECTORY=/tls)))\r\n".to_owned()),
            "[A-Z][A-Z_.]{0,20} ?= ?[a-z0-9/]{0,12}\n".prop_filter("another parameter", |l| !l.starts_with("IFILE")),
        ];
        prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_printed_as_they_were_or_refused(text in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(file) = SqlnetFile::parse(&text) {
                prop_assert_eq!(file.print(), text);
                let _ = file.wallet_location();
            }
        }

        #[test]
        fn h16_any_spelling_is_read_and_edited_in_place(
            (was, text) in any_location().prop_flat_map(|was| (Just(was.clone()), spelled(was))),
            to in any_location(), before in others(), after in others(),
        ) {
            let whole = format!("{before}{text}\n{after}");
            let mut file = SqlnetFile::parse(whole.as_bytes()).unwrap();
            prop_assert_eq!(file.wallet_location().unwrap(), Some(was.clone()));
            file.set_wallet_location(&to).unwrap();
            prop_assert_eq!(file.wallet_location().unwrap(), Some(to.clone()));
            let printed = file.print();
            let end = format!("\n{after}");
            prop_assert!(printed.starts_with(before.as_bytes()) && printed.ends_with(end.as_bytes()));
            // Twice is once.
            let mut again = file.clone();
            again.set_wallet_location(&to).unwrap();
            prop_assert_eq!(again.print(), printed);
            // There and back leaves the bytes as they were, unless METHOD_DATA came or went; METHOD then is in our spelling.
            if was.directory.is_some() == to.directory.is_some() {
                file.set_wallet_location(&was).unwrap();
                prop_assert_eq!(file.print(), whole.into_bytes());
            }
        }

        #[test]
        fn a_missing_parameter_is_added_and_taken_out_again(to in any_location(), text in others()) {
            let mut file = SqlnetFile::parse(text.as_bytes()).unwrap();
            file.set_wallet_location(&to).unwrap();
            prop_assert_eq!(file.wallet_location().unwrap(), Some(to));
            file.remove_wallet_location().unwrap();
            prop_assert_eq!(file.print(), text.into_bytes());
        }
    }
}
