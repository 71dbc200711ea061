//! ADMINISTER KEY MANAGEMENT, by its railroad diagrams (O§1): what the statement asks for, and nothing else
//! accepted.

use crate::error::{Ora, Result, ora};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word or number, as written.
    Word(String),
    /// '…'
    Single(String),
    /// "…"
    Double(String),
    Punct(char),
}

impl Token {
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(w) if w.eq_ignore_ascii_case(word))
    }
}

/// Splits a statement. ORA-01756 for a quote that does not end.
pub fn tokens(sql: &str) -> Result<Vec<Token>> {
    let mut out = Vec::new();
    let chars: Vec<char> = sql.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c.is_whitespace() {
            i += 1;
        } else if c == '\'' || c == '"' {
            let mut text = String::new();
            i += 1;
            loop {
                match chars.get(i) {
                    None => ora!(1756, "quoted string not properly terminated"),
                    Some(&q) if q == c => {
                        if c == '\'' && chars.get(i + 1) == Some(&'\'') {
                            text.push('\'');
                            i += 2;
                            continue;
                        }
                        i += 1;
                        break;
                    }
                    Some(&other) => text.push(other),
                }
                i += 1;
            }
            out.push(if c == '\'' { Token::Single(text) } else { Token::Double(text) });
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || "_$#".contains(chars[i])) {
                i += 1;
            }
            out.push(Token::Word(chars[start..i].iter().collect()));
        } else {
            out.push(Token::Punct(c));
            i += 1;
        }
    }
    Ok(out)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Password(String),
    ExternalStore,
}

/// The clauses that many forms share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clauses {
    pub credential: Option<Credential>,
    pub force: bool,
    /// WITH BACKUP, with the id of USING.
    pub backup: Option<Option<String>>,
    pub tag: Option<String>,
    /// CONTAINER = ALL.
    pub all: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Km {
    CreateKeystore { dir: Option<String>, clauses: Clauses },
    CreateAutoLogin { local: bool, dir: Option<String>, clauses: Clauses },
    Open { clauses: Clauses },
    Close { clauses: Clauses },
    BackupKeystore { id: Option<String>, to: Option<String>, clauses: Clauses },
    AlterPassword { new: String, clauses: Clauses },
    SetKey { clauses: Clauses },
    CreateKey { clauses: Clauses },
    UseKey { id: String, clauses: Clauses },
    Migrate { using: String, clauses: Clauses },
    ReverseMigrate { using: String, clauses: Clauses },
    AddSecret { update: bool, secret: String, client: String, clauses: Clauses },
    DeleteSecret { client: String, clauses: Clauses },
    Merge { from: String, from_password: Option<String>, into: String, clauses: Clauses },
}

impl Km {
    /// Class for counters and faults.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Km::CreateKeystore { .. } => "CREATE KEYSTORE",
            Km::CreateAutoLogin { .. } => "CREATE AUTO_LOGIN",
            Km::Open { .. } => "OPEN",
            Km::Close { .. } => "CLOSE",
            Km::BackupKeystore { .. } => "BACKUP KEYSTORE",
            Km::AlterPassword { .. } => "ALTER KEYSTORE PASSWORD",
            Km::SetKey { .. } => "SET KEY",
            Km::CreateKey { .. } => "CREATE KEY",
            Km::UseKey { .. } => "USE KEY",
            Km::Migrate { .. } => "MIGRATE",
            Km::ReverseMigrate { .. } => "REVERSE MIGRATE",
            Km::AddSecret { update: false, .. } => "ADD SECRET",
            Km::AddSecret { .. } => "UPDATE SECRET",
            Km::DeleteSecret { .. } => "DELETE SECRET",
            Km::Merge { .. } => "MERGE KEYSTORE",
        }
    }

    #[must_use]
    pub fn clauses(&self) -> &Clauses {
        match self {
            Km::CreateKeystore { clauses, .. }
            | Km::CreateAutoLogin { clauses, .. }
            | Km::Open { clauses }
            | Km::Close { clauses }
            | Km::BackupKeystore { clauses, .. }
            | Km::AlterPassword { clauses, .. }
            | Km::SetKey { clauses }
            | Km::CreateKey { clauses }
            | Km::UseKey { clauses, .. }
            | Km::Migrate { clauses, .. }
            | Km::ReverseMigrate { clauses, .. }
            | Km::AddSecret { clauses, .. }
            | Km::DeleteSecret { clauses, .. }
            | Km::Merge { clauses, .. } => clauses,
        }
    }
}

struct Cursor {
    tokens: Vec<Token>,
    at: usize,
}

impl Cursor {
    fn word(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.is(word));
        self.at += usize::from(found);
        found
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, word)| self.tokens.get(self.at + i).is_some_and(|t| t.is(word)));
        if found {
            self.at += words.len();
        }
        found
    }

    fn need(&mut self, words: &[&str]) -> Result<()> {
        if self.words(words) { Ok(()) } else { Err(Ora::new(28358)) }
    }

    fn single(&mut self) -> Result<String> {
        match self.tokens.get(self.at) {
            Some(Token::Single(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(Ora::new(28358)),
        }
    }

    fn maybe_single(&mut self) -> Option<String> {
        self.single().ok()
    }

    /// A password: a legal identifier or anything in double quotes (O§1.8).
    fn password(&mut self) -> Result<String> {
        let text = match self.tokens.get(self.at) {
            Some(Token::Double(text)) => text.clone(),
            Some(Token::Word(text)) if text.starts_with(|c: char| c.is_alphabetic()) => text.clone(),
            _ => ora!(28358),
        };
        self.at += 1;
        Ok(text)
    }

    fn end(&self) -> Result<()> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(Ora::new(922)) }
    }

    /// Clauses in any order; each at most once.
    fn clauses(&mut self, clauses: &mut Clauses) -> Result<()> {
        loop {
            if self.words(&["FORCE", "KEYSTORE"]) {
                clauses.force = true;
            } else if clauses.credential.is_none() && self.words(&["IDENTIFIED", "BY"]) {
                clauses.credential = Some(if self.words(&["EXTERNAL", "STORE"]) {
                    Credential::ExternalStore
                } else {
                    Credential::Password(self.password()?)
                });
            } else if clauses.backup.is_none() && self.words(&["WITH", "BACKUP"]) {
                clauses.backup = Some(if self.word("USING") { Some(self.single()?) } else { None });
            } else if self.words(&["USING", "TAG"]) {
                clauses.tag = Some(self.single()?);
            } else if self.words(&["USING", "ALGORITHM"]) {
                self.single()?;
            } else if self.word("CONTAINER") {
                if self.tokens.get(self.at) != Some(&Token::Punct('=')) {
                    ora!(28358);
                }
                self.at += 1;
                if self.word("ALL") {
                    clauses.all = true;
                } else if !self.word("CURRENT") {
                    ora!(28358);
                }
            } else {
                return Ok(());
            }
        }
    }
}

/// Parses the whole statement.
pub fn parse(sql: &str) -> Result<Km> {
    let mut c = Cursor { tokens: tokens(sql)?, at: 0 };
    c.need(&["ADMINISTER", "KEY", "MANAGEMENT"])?;
    let mut clauses = Clauses::default();
    let statement = if c.words(&["CREATE", "KEYSTORE"]) {
        let dir = c.maybe_single();
        c.clauses(&mut clauses)?;
        Km::CreateKeystore { dir, clauses }
    } else if c.words(&["CREATE", "LOCAL", "AUTO_LOGIN", "KEYSTORE"]) {
        auto_login(&mut c, true)?
    } else if c.words(&["CREATE", "AUTO_LOGIN", "KEYSTORE"]) {
        auto_login(&mut c, false)?
    } else if c.words(&["SET", "KEYSTORE", "OPEN"]) {
        c.clauses(&mut clauses)?;
        Km::Open { clauses }
    } else if c.words(&["SET", "KEYSTORE", "CLOSE"]) || c.words(&["FORCE", "KEYSTORE", "CLOSE"]) {
        c.clauses(&mut clauses)?;
        Km::Close { clauses }
    } else if c.words(&["BACKUP", "KEYSTORE"]) {
        let id = if c.word("USING") { Some(c.single()?) } else { None };
        c.clauses(&mut clauses)?;
        let to = if c.word("TO") { Some(c.single()?) } else { None };
        Km::BackupKeystore { id, to, clauses }
    } else if c.words(&["ALTER", "KEYSTORE", "PASSWORD"]) {
        c.clauses(&mut clauses)?;
        c.need(&["SET"])?;
        let new = c.password()?;
        c.clauses(&mut clauses)?;
        Km::AlterPassword { new, clauses }
    } else if c.word("SET") {
        c.word("ENCRYPTION");
        c.need(&["KEY"])?;
        c.clauses(&mut clauses)?;
        if c.words(&["REVERSE", "MIGRATE", "USING"]) {
            let using = c.password()?;
            c.clauses(&mut clauses)?;
            Km::ReverseMigrate { using, clauses }
        } else if c.words(&["MIGRATE", "USING"]) {
            let using = c.password()?;
            c.clauses(&mut clauses)?;
            Km::Migrate { using, clauses }
        } else {
            Km::SetKey { clauses }
        }
    } else if c.words(&["CREATE", "KEY"]) || c.words(&["CREATE", "ENCRYPTION", "KEY"]) {
        c.clauses(&mut clauses)?;
        Km::CreateKey { clauses }
    } else if c.words(&["USE", "KEY"]) || c.words(&["USE", "ENCRYPTION", "KEY"]) {
        let id = c.single()?;
        c.clauses(&mut clauses)?;
        Km::UseKey { id, clauses }
    } else if c.words(&["ADD", "SECRET"]) {
        secret(&mut c, false)?
    } else if c.words(&["UPDATE", "SECRET"]) {
        secret(&mut c, true)?
    } else if c.words(&["DELETE", "SECRET", "FOR", "CLIENT"]) {
        let client = c.single()?;
        c.clauses(&mut clauses)?;
        Km::DeleteSecret { client, clauses }
    } else if c.words(&["MERGE", "KEYSTORE"]) {
        let from = c.single()?;
        let from_password = if c.words(&["IDENTIFIED", "BY"]) { Some(c.password()?) } else { None };
        c.need(&["INTO", "EXISTING", "KEYSTORE"])?;
        let into = c.single()?;
        c.clauses(&mut clauses)?;
        Km::Merge { from, from_password, into, clauses }
    } else {
        ora!(28358);
    };
    c.end()?;
    let migrates = matches!(statement, Km::Migrate { .. } | Km::ReverseMigrate { .. });
    // O§1.2: neither migrate form has a CONTAINER or TAG clause.
    if migrates && (statement.clauses().all || statement.clauses().tag.is_some()) {
        ora!(922);
    }
    Ok(statement)
}

fn auto_login(c: &mut Cursor, local: bool) -> Result<Km> {
    let mut clauses = Clauses::default();
    c.need(&["FROM", "KEYSTORE"])?;
    let dir = c.maybe_single();
    c.clauses(&mut clauses)?;
    Ok(Km::CreateAutoLogin { local, dir, clauses })
}

fn secret(c: &mut Cursor, update: bool) -> Result<Km> {
    let mut clauses = Clauses::default();
    let secret = c.single()?;
    c.need(&["FOR", "CLIENT"])?;
    let client = c.single()?;
    c.clauses(&mut clauses)?;
    Ok(Km::AddSecret { update, secret, client, clauses })
}
