//! Every key management statement the runner sends, and the one place where anything is quoted (H36).
//!
//! Bind variables do not exist in DDL (`O§7.9`), so names and secrets stand in the text. [`quote`] refuses what could
//! leave its quotes or be read by sqlplus itself instead of escaping it: a password with such a character is a finding
//! for a person, not a puzzle for a parser. A [`Statement`] carries the text for sqlplus' stdin, wiped when dropped, and
//! a second text with `*` for each secret, as the alert log has it (`O§1.1`), which is the only one that is ever shown.

use std::time::Duration;
use zeroize::Zeroizing;

/// sqlplus cuts or refuses longer lines (SP2-0027, `O§7.9`).
pub const LINE_LIMIT: usize = 2_499;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} holds a character that cannot be quoted: code {code}")]
    Character { what: &'static str, code: u32 },
    #[error("a statement of {0} characters is longer than sqlplus reads")]
    TooLong(usize),
}

fn check<'a>(text: &'a str, what: &'static str) -> Result<&'a str, QuoteError> {
    if text.is_empty() {
        return Err(QuoteError::Empty { what });
    }
    match text.chars().find(|&c| c == '"' || c == '&' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        Some(c) => Err(QuoteError::Character { what, code: c.into() }),
        None => Ok(text),
    }
}

/// The quoting function: `text` between double quotes, or a refusal.
pub fn quote(text: &str, what: &'static str) -> Result<Zeroizing<String>, QuoteError> {
    Ok(Zeroizing::new(format!("\"{}\"", check(text, what)?)))
}

/// The same for a string literal: `'` is doubled.
pub fn literal(text: &str, what: &'static str) -> Result<Zeroizing<String>, QuoteError> {
    Ok(Zeroizing::new(format!("'{}'", check(text, what)?.replace('\'', "''"))))
}

/// A secret may also not hold anything that two character sets could read differently.
fn secret(text: &str, what: &'static str) -> Result<Zeroizing<String>, QuoteError> {
    match text.chars().find(|c| !(' '..='~').contains(c)) {
        Some(c) => Err(QuoteError::Character { what, code: c.into() }),
        None => quote(text, what),
    }
}

/// What a statement may do when it is sent twice (`O§11.2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Reads, or sets what is set already.
    Harmless,
    /// Makes a key, a keystore or a secret: sent once, judged by observing (H28).
    Never,
}

/// One statement, one line.
pub struct Statement {
    text: Zeroizing<String>,
    shown: String,
    pub repeat: Repeat,
    pub limit: Duration,
}

impl Statement {
    /// A statement without secrets.
    pub fn plain(text: impl Into<String>, limit: Duration) -> Result<Statement, QuoteError> {
        let text = text.into();
        let parts = Parts { text: Zeroizing::new(text.clone()), shown: text };
        parts.finish(Repeat::Harmless, limit)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Safe to keep and to print.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Statement({})", self.shown)
    }
}

struct Parts {
    text: Zeroizing<String>,
    shown: String,
}

impl Parts {
    fn new(text: &str) -> Parts {
        Parts { text: Zeroizing::new(text.to_owned()), shown: text.to_owned() }
    }
    fn word(mut self, word: &str) -> Parts {
        for text in [&mut *self.text, &mut self.shown] {
            text.push(' ');
            text.push_str(word);
        }
        self
    }
    fn secret(mut self, quoted: &str) -> Parts {
        // A growing String leaves its former buffer behind; reserve first so that the wiped one is the only one.
        let mut longer = Zeroizing::new(String::with_capacity(self.text.len() + quoted.len() + 512));
        longer.push_str(&self.text);
        longer.push(' ');
        longer.push_str(quoted);
        self.text = longer;
        self.shown.push_str(" *");
        self
    }
    fn maybe(self, word: Option<&str>) -> Parts {
        match word {
            Some(word) => self.word(word),
            None => self,
        }
    }
    fn finish(self, repeat: Repeat, limit: Duration) -> Result<Statement, QuoteError> {
        if let Some(c) = self.text.chars().find(|c| c.is_control()) {
            return Err(QuoteError::Character { what: "a statement", code: c.into() });
        }
        if self.text.len() + 1 > LINE_LIMIT {
            return Err(QuoteError::TooLong(self.text.len()));
        }
        Ok(Statement { text: self.text, shown: self.shown, repeat, limit })
    }
}

/// How long a statement may take before its client is killed (`O§7.9`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub query: Duration,
    pub open: Duration,
    pub key_change: Duration,
    pub shutdown: Duration,
    pub startup: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            query: Duration::from_secs(60),
            open: Duration::from_secs(300),
            key_change: Duration::from_secs(1_800),
            // While one hangs, the others of its host are down with it (H26).
            shutdown: Duration::from_secs(300),
            startup: Duration::from_secs(900),
        }
    }
}

/// WITH BACKUP of a statement that changes a software keystore (`O§1.5`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithBackup {
    /// With an id that no other statement has (ORA-46625).
    Id(String),
    /// After ORA-46623 only: the runner has copied the files itself.
    Without,
}

impl WithBackup {
    /// `purpose` and `unique` are the runner's own words: letters, digits and `_`.
    pub fn unique(purpose: &str, unique: &str) -> WithBackup {
        let clean: String =
            format!("tde2hsm_{purpose}_{unique}").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        WithBackup::Id(clean)
    }
    fn clause(&self) -> Option<String> {
        match self {
            WithBackup::Id(id) => Some(format!("WITH BACKUP USING '{id}'")),
            WithBackup::Without => None,
        }
    }
}

/// Which containers an OPEN, CLOSE or SET KEY is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers {
    /// A non-CDB, or the container the session is in.
    Current,
    /// From CDB$ROOT.
    All,
}

impl Containers {
    fn clause(self) -> Option<&'static str> {
        (self == Containers::All).then_some("CONTAINER = ALL")
    }
}

/// FORCE KEYSTORE (`O§1.6`): wanted when the software side is open by auto-login or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

impl Force {
    fn clause(self) -> Option<&'static str> {
        (self == Force::Yes).then_some("FORCE KEYSTORE")
    }
}

/// The two keystore kinds' credentials. They differ in type so that one cannot stand in the other's place.
#[derive(Clone, Copy)]
pub struct SoftwarePassword<'a>(pub &'a str);
/// `user:password`.
#[derive(Clone, Copy)]
pub struct HsmPin<'a>(pub &'a str);

const AKM: &str = "ADMINISTER KEY MANAGEMENT";

pub fn create_keystore(dir: &str, password: SoftwarePassword<'_>, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("CREATE KEYSTORE")
        .word(&literal(dir, "the keystore directory")?)
        .word("IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .finish(Repeat::Never, limits.open)
}

pub fn open_software(password: SoftwarePassword<'_>, containers: Containers, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET KEYSTORE OPEN IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .maybe(containers.clause())
        .finish(Repeat::Never, limits.open)
}

pub fn open_hsm(pin: HsmPin<'_>, containers: Containers, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET KEYSTORE OPEN IDENTIFIED BY")
        .secret(&secret(pin.0, "the HSM's PIN")?)
        .maybe(containers.clause())
        .finish(Repeat::Never, limits.open)
}

/// BACKUP KEYSTORE checks the password even of a keystore that is open (H14).
pub fn backup_keystore(
    id: &str,
    password: SoftwarePassword<'_>,
    to: &str,
    force: Force,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("BACKUP KEYSTORE USING")
        .word(&literal(id, "a backup id")?)
        .maybe(force.clause())
        .word("IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .word("TO")
        .word(&literal(to, "the backup directory")?)
        .finish(Repeat::Never, limits.open)
}

/// Opens `from` with its password and copies its keys into `into`; it activates nothing (`O§1.3`).
pub fn merge_keystore(
    from: &str,
    from_password: SoftwarePassword<'_>,
    into: &str,
    into_password: SoftwarePassword<'_>,
    backup: &WithBackup,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("MERGE KEYSTORE")
        .word(&literal(from, "a keystore directory")?)
        .word("IDENTIFIED BY")
        .secret(&secret(from_password.0, "the software keystore's password")?)
        .word("INTO EXISTING KEYSTORE")
        .word(&literal(into, "a keystore directory")?)
        .word("IDENTIFIED BY")
        .secret(&secret(into_password.0, "the software keystore's password")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.open)
}

/// HSM to software keystore. IDENTIFIED BY is the destination's password, USING the source's (`O§1.2`).
pub fn reverse_migrate(
    to: SoftwarePassword<'_>,
    from: HsmPin<'_>,
    force: Force,
    backup: &WithBackup,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET ENCRYPTION KEY IDENTIFIED BY")
        .secret(&secret(to.0, "the software keystore's password")?)
        .maybe(force.clause())
        .word("REVERSE MIGRATE USING")
        .secret(&secret(from.0, "the HSM's PIN")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.key_change)
}

/// Software keystore to HSM.
pub fn migrate(
    to: HsmPin<'_>,
    from: SoftwarePassword<'_>,
    force: Force,
    backup: &WithBackup,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET ENCRYPTION KEY IDENTIFIED BY")
        .secret(&secret(to.0, "the HSM's PIN")?)
        .maybe(force.clause())
        .word("MIGRATE USING")
        .secret(&secret(from.0, "the software keystore's password")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.key_change)
}

/// SET KEY in the session's container, for one whose active key is not yet in the destination (`O§1.2`).
pub fn set_key_software(
    password: SoftwarePassword<'_>,
    force: Force,
    backup: &WithBackup,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET KEY")
        .maybe(force.clause())
        .word("IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.key_change)
}

pub fn set_key_hsm(pin: HsmPin<'_>, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("SET KEY IDENTIFIED BY")
        .secret(&secret(pin.0, "the HSM's PIN")?)
        .finish(Repeat::Never, limits.key_change)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretVerb {
    Add,
    Update,
}

/// `ADD SECRET 'user:password' FOR CLIENT 'HSM_PASSWORD'` (`O§1.7`): both are single-quoted strings.
pub fn hsm_secret(
    verb: SecretVerb,
    pin: HsmPin<'_>,
    password: SoftwarePassword<'_>,
    backup: &WithBackup,
    limits: &Limits,
) -> Result<Statement, QuoteError> {
    let verb = match verb {
        SecretVerb::Add => "ADD SECRET",
        SecretVerb::Update => "UPDATE SECRET",
    };
    secret(pin.0, "the HSM's PIN")?;
    Parts::new(AKM)
        .word(verb)
        .secret(&literal(pin.0, "the HSM's PIN")?)
        .word("FOR CLIENT 'HSM_PASSWORD' FORCE KEYSTORE IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.open)
}

pub fn delete_hsm_secret(password: SoftwarePassword<'_>, backup: &WithBackup, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("DELETE SECRET FOR CLIENT 'HSM_PASSWORD' FORCE KEYSTORE IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .maybe(backup.clause().as_deref())
        .finish(Repeat::Never, limits.open)
}

pub fn create_auto_login(dir: &str, password: SoftwarePassword<'_>, limits: &Limits) -> Result<Statement, QuoteError> {
    Parts::new(AKM)
        .word("CREATE AUTO_LOGIN KEYSTORE FROM KEYSTORE")
        .word(&literal(dir, "the keystore directory")?)
        .word("IDENTIFIED BY")
        .secret(&secret(password.0, "the software keystore's password")?)
        .finish(Repeat::Never, limits.open)
}

/// TDE_CONFIGURATION's values that a migration uses (`O§2.2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdeConfiguration {
    File,
    Hsm,
    FileHsm,
    HsmFile,
}

impl TdeConfiguration {
    pub fn value(self) -> &'static str {
        match self {
            TdeConfiguration::File => "FILE",
            TdeConfiguration::Hsm => "HSM",
            TdeConfiguration::FileHsm => "FILE|HSM",
            TdeConfiguration::HsmFile => "HSM|FILE",
        }
    }

    /// Reads the parameter as a database shows it: `KEYSTORE_CONFIGURATION=HSM|FILE`, any case, more attributes behind `;`.
    pub fn parse(text: &str) -> Option<TdeConfiguration> {
        text.split(';').find_map(|attribute| {
            let (name, value) = attribute.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("KEYSTORE_CONFIGURATION") {
                return None;
            }
            let value: String = value.chars().filter(|c| !c.is_whitespace()).collect();
            [TdeConfiguration::File, TdeConfiguration::Hsm, TdeConfiguration::FileHsm, TdeConfiguration::HsmFile]
                .into_iter()
                .find(|known| known.value().eq_ignore_ascii_case(&value))
        })
    }
}

pub fn set_tde_configuration(value: TdeConfiguration, limits: &Limits) -> Result<Statement, QuoteError> {
    Statement::plain(
        format!("ALTER SYSTEM SET TDE_CONFIGURATION='KEYSTORE_CONFIGURATION={}' SCOPE=BOTH SID='*'", value.value()),
        limits.query,
    )
}

pub fn set_container(name: &str, limits: &Limits) -> Result<Statement, QuoteError> {
    Statement::plain(format!("ALTER SESSION SET CONTAINER={}", *quote(name, "a container name")?), limits.query)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        query: Duration::from_secs(1),
        open: Duration::from_secs(1),
        key_change: Duration::from_secs(1),
        shutdown: Duration::from_secs(1),
        startup: Duration::from_secs(1),
    };

    #[test]
    fn h36_what_could_leave_its_quotes_is_refused() {
        for bad in ["a\"b", "a\0b", "a\nb", "a\rb", "a&b", "a\tb", "a\u{2028}b", ""] {
            assert!(quote(bad, "a name").is_err(), "{bad:?}");
            assert!(literal(bad, "a name").is_err(), "{bad:?}");
            assert!(create_keystore("/w", SoftwarePassword(bad), &LIMITS).is_err(), "{bad:?}");
            assert!(set_container(bad, &LIMITS).is_err(), "{bad:?}");
        }
        assert!(secret("pass\u{e9}", "x").is_err());
        assert_eq!(*quote("it's; -- $ok-", "a name").expect("quotes"), "\"it's; -- $ok-\"");
        assert_eq!(*literal("it's", "a name").expect("quotes"), "'it''s'");
    }

    #[test]
    fn statements_have_the_documented_form_and_show_no_secret() {
        let backup = WithBackup::unique("rm", "op-1");
        let reverse = reverse_migrate(SoftwarePassword("sw pw"), HsmPin("u:p'w"), Force::No, &backup, &LIMITS).expect("builds");
        assert_eq!(
            reverse.text(),
            "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"sw pw\" REVERSE MIGRATE USING \"u:p'w\" WITH BACKUP USING 'tde2hsm_rm_op_1'"
        );
        assert_eq!(
            reverse.shown(),
            "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY * REVERSE MIGRATE USING * WITH BACKUP USING 'tde2hsm_rm_op_1'"
        );
        let forward = migrate(HsmPin("u:pw"), SoftwarePassword("sw"), Force::Yes, &WithBackup::Without, &LIMITS).expect("builds");
        assert_eq!(
            forward.text(),
            "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"u:pw\" FORCE KEYSTORE MIGRATE USING \"sw\""
        );
        let add = hsm_secret(SecretVerb::Add, HsmPin("u:p'w"), SoftwarePassword("sw"), &backup, &LIMITS).expect("builds");
        assert!(
            add.text().contains("ADD SECRET 'u:p''w' FOR CLIENT 'HSM_PASSWORD' FORCE KEYSTORE IDENTIFIED BY \"sw\" WITH BACKUP")
        );
        for statement in [&reverse, &forward, &add] {
            assert_eq!(statement.repeat, Repeat::Never);
            assert!(!statement.shown().contains("pw") && !format!("{statement:?}").contains("pw"), "{}", statement.shown());
        }
    }

    #[test]
    fn h36_a_line_longer_than_sqlplus_reads_is_refused() {
        let long = "d".repeat(LINE_LIMIT);
        assert!(matches!(create_keystore(&long, SoftwarePassword("x"), &LIMITS), Err(QuoteError::TooLong(_))));
        assert!(Statement::plain("SELECT 1\nFROM dual", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn tde_configuration_reads_as_the_database_shows_it() {
        assert_eq!(TdeConfiguration::parse("keystore_configuration=HSM|file"), Some(TdeConfiguration::HsmFile));
        assert_eq!(TdeConfiguration::parse("KEYSTORE_CONFIGURATION=FILE;CONTAINER=PDB1"), Some(TdeConfiguration::File));
        assert_eq!(TdeConfiguration::parse("KEYSTORE_CONFIGURATION=OKV|FILE"), None);
        assert_eq!(TdeConfiguration::parse(""), None);
    }
}
