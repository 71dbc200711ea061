//! What an `ORA-` or `SP2-` code means in a migration (`O§5`).
//!
//! sqlplus' exit status lies (28416 modulo 256 is 0) and texts are translated, so an answer is judged by its codes
//! alone. A code that this table does not know is [`Class::Fatal`]: nothing goes on by itself after an answer that
//! nobody has thought about.

use std::fmt;
use tde2hsm_protocol::Code;

/// Which program speaks: the server, or sqlplus itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ora,
    Sp2,
}

/// One error line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OraError {
    pub family: Family,
    pub number: u32,
    /// The rest of the line, redacted.
    pub text: String,
}

impl fmt::Display for OraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::Ora => write!(f, "ORA-{:05}", self.number),
            Family::Sp2 => write!(f, "SP2-{:04}", self.number),
        }
    }
}

/// What may be done after a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing to do, as good as success.
    Ok,
    /// The step had been done before; its goal must be observed all the same.
    Done,
    /// Transient, for statements that carry no secret (H11).
    Retry,
    /// A person or another step must change something first.
    Fix,
    /// Nothing may go on by itself.
    Fatal,
}

#[derive(Debug, Clone, Copy)]
pub struct Meaning {
    pub ora: u32,
    pub class: Class,
    pub code: Code,
    pub says: &'static str,
}

const fn m(ora: u32, class: Class, code: Code, says: &'static str) -> Meaning {
    Meaning { ora, class, code, says }
}

/// `O§5.1` to `O§5.3`, sorted by code.
const MEANINGS: &[Meaning] = &[
    m(600, Class::Fatal, Code::STATEMENT_FAILED, "internal error of the server"),
    m(922, Class::Fatal, Code::STATEMENT_FAILED, "this version does not know the clause"),
    m(942, Class::Fatal, Code::VERSION_UNSUPPORTED, "this version does not have the view"),
    m(1012, Class::Retry, Code::DATABASE_NOT_OPEN, "the session is gone, as in a shutdown"),
    m(1017, Class::Fix, Code::DATABASE_ACCESS, "the database refuses the connection"),
    m(1031, Class::Fix, Code::DATABASE_ACCESS, "the database owner is not in the OSDBA group"),
    m(1033, Class::Retry, Code::DATABASE_NOT_OPEN, "a start or shutdown is in progress"),
    m(1034, Class::Fix, Code::DATABASE_NOT_OPEN, "the instance is down"),
    m(1081, Class::Ok, Code::DATABASE_NOT_OPEN, "the instance runs already"),
    m(1089, Class::Retry, Code::DATABASE_NOT_OPEN, "a shutdown is in progress"),
    m(1090, Class::Retry, Code::DATABASE_NOT_OPEN, "a shutdown is in progress"),
    m(1100, Class::Ok, Code::DATABASE_NOT_OPEN, "the database is mounted already"),
    m(1109, Class::Retry, Code::DATABASE_NOT_OPEN, "the database is not open"),
    m(1507, Class::Retry, Code::DATABASE_NOT_OPEN, "the database is not mounted"),
    m(1531, Class::Ok, Code::DATABASE_NOT_OPEN, "the database is open already"),
    m(2095, Class::Fix, Code::CONFIGURATION_REFUSED, "the parameter takes effect after a restart only"),
    m(2097, Class::Fix, Code::CONFIGURATION_REFUSED, "the parameter's value is refused"),
    m(3113, Class::Fatal, Code::SESSION_LOST, "the server process died"),
    m(3114, Class::Fatal, Code::SESSION_LOST, "the server process is gone"),
    m(3135, Class::Fatal, Code::SESSION_LOST, "the server process is gone"),
    m(7445, Class::Fatal, Code::SESSION_LOST, "the server process crashed, perhaps in the PKCS#11 library"),
    m(12162, Class::Fix, Code::DATABASE_ACCESS, "ORACLE_SID is not set"),
    m(12547, Class::Fatal, Code::SESSION_LOST, "the server process ended while connecting"),
    m(16280, Class::Fatal, Code::STATEMENT_FAILED, "a logical standby cannot change its master key"),
    m(24324, Class::Fix, Code::DATABASE_ACCESS, "not connected"),
    m(28304, Class::Fatal, Code::OLD_KEY_MISSING, "undo is still encrypted under a key that is not reachable"),
    m(28353, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore does not open: password, path, login or missing key"),
    m(28354, Class::Ok, Code::KEYSTORE_REFUSED, "the keystore is open already"),
    m(28356, Class::Fatal, Code::STATEMENT_FAILED, "open syntax"),
    m(28357, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore's password is needed"),
    m(28358, Class::Fatal, Code::STATEMENT_FAILED, "set key syntax"),
    m(28361, Class::Fix, Code::KEYSTORE_CLOSED, "the container has no master key"),
    m(28362, Class::Fatal, Code::OLD_KEY_MISSING, "the master key is not in the keystore"),
    m(28365, Class::Fix, Code::KEYSTORE_CLOSED, "the keystore is closed in this container"),
    m(28367, Class::Fix, Code::KEYSTORE_MISSING, "there is no keystore at the configured place"),
    m(28368, Class::Fix, Code::KEYSTORE_MISSING, "the keystore cannot be created"),
    m(28374, Class::Fatal, Code::OLD_KEY_MISSING, "data, redo or undo needs a master key that is not reachable"),
    m(28376, Class::Fix, Code::PROVIDER_NOT_LOADED, "no usable PKCS#11 library under extapi; the failure stays until a restart"),
    m(28377, Class::Done, Code::CONFIGURATION_REFUSED, "the active key is in the HSM already"),
    m(28388, Class::Fix, Code::DATABASE_NOT_OPEN, "the database is not open read-write"),
    m(28389, Class::Fix, Code::KEYSTORE_REFUSED, "the auto-login keystore stays open until a restart"),
    m(28390, Class::Ok, Code::KEYSTORE_REFUSED, "the auto-login keystore is not open"),
    m(28391, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore is in use"),
    m(28395, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the new key could not be written: disk, permission or HSM"),
    m(28396, Class::Fatal, Code::OLD_KEY_MISSING, "a column key needs a master key that is not reachable"),
    m(28407, Class::Fix, Code::HSM_FAILED, "the HSM answered with a PKCS#11 error"),
    m(28410, Class::Done, Code::CONFIGURATION_REFUSED, "the active key is in the software keystore already"),
    m(28414, Class::Fix, Code::CONFIGURATION_REFUSED, "the active key is in the HSM, the configuration says file"),
    m(28415, Class::Fix, Code::CONFIGURATION_REFUSED, "the active key is in the software keystore, the configuration says HSM"),
    m(28417, Class::Fix, Code::KEYSTORE_CLOSED, "only the auto-login keystore is open"),
    m(28418, Class::Fix, Code::KEYSTORE_CLOSED, "the HSM is open by auto-login only"),
    m(28429, Class::Fix, Code::STATEMENT_FAILED, "encryption of a standby datafile"),
    m(28439, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore of an encrypted SYSTEM, SYSAUX, UNDO or TEMP cannot be closed"),
    m(28441, Class::Fix, Code::KEYSTORE_REFUSED, "an RMAN clone instance cannot open the keystore"),
    m(28442, Class::Fix, Code::DATABASE_NOT_OPEN, "no key change in restricted mode"),
    m(32001, Class::Fix, Code::CONFIGURATION_REFUSED, "the instance was started without an spfile"),
    m(32004, Class::Ok, Code::START_FAILED, "a parameter is obsolete or deprecated"),
    m(32006, Class::Ok, Code::START_FAILED, "a parameter is deprecated"),
    m(32017, Class::Fix, Code::CONFIGURATION_REFUSED, "the spfile could not be written"),
    m(46603, Class::Fatal, Code::STATEMENT_FAILED, "key management syntax"),
    m(46620, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the keystore backup was not completed"),
    m(46623, Class::Retry, Code::STATEMENT_FAILED, "WITH BACKUP is not possible here"),
    m(46625, Class::Retry, Code::KEYSTORE_NOT_WRITTEN, "a keystore backup of this name exists"),
    m(46627, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore's password is refused"),
    m(46629, Class::Fix, Code::KEYSTORE_CLOSED, "the keystore is not open after the change"),
    m(46630, Class::Done, Code::KEYSTORE_OCCUPIED, "a keystore lies in the directory already"),
    m(46631, Class::Retry, Code::STATEMENT_FAILED, "WITH BACKUP is wanted"),
    m(46632, Class::Fix, Code::KEYSTORE_MISSING, "there is no password keystore"),
    m(46633, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the keystore was not created"),
    m(46634, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the local auto-login keystore was not created"),
    m(46635, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the auto-login keystore was not created"),
    m(46648, Class::Fatal, Code::KEYSTORE_NOT_WRITTEN, "the keys were not committed to the keystore"),
    m(46658, Class::Fix, Code::KEYSTORE_CLOSED, "the keystore is closed in the container"),
    m(46659, Class::Fix, Code::OLD_KEY_MISSING, "the container's master keys are not in the keystore"),
    m(46665, Class::Fix, Code::CONTAINER_NOT_OPEN, "some pluggable databases have a new key, some not"),
    m(46670, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the secret was not written to the keystore"),
    m(46690, Class::Fix, Code::KEYSTORE_NOT_WRITTEN, "the keystore directory is missing or not writable"),
    m(46692, Class::Fix, Code::KEYSTORE_REFUSED, "the keystore is in use"),
    m(46693, Class::Fix, Code::CONFIGURATION_REFUSED, "WALLET_ROOT is missing or invalid"),
    m(46695, Class::Fatal, Code::CONFIGURATION_REFUSED, "TDE_CONFIGURATION is invalid"),
    m(46699, Class::Fix, Code::CONTAINER_NOT_OPEN, "a pluggable database is not open read-write"),
    m(46715, Class::Fix, Code::CONFIGURATION_REFUSED, "the pluggable database's keystore must be closed first"),
    m(46716, Class::Ok, Code::STATEMENT_FAILED, "an external keystore has no backup"),
    m(65019, Class::Ok, Code::CONTAINER_NOT_OPEN, "the pluggable database is open already"),
    m(65020, Class::Ok, Code::CONTAINER_NOT_OPEN, "the pluggable database is closed already"),
    m(65040, Class::Fatal, Code::STATEMENT_FAILED, "not allowed in a pluggable database"),
];

impl OraError {
    pub fn is(&self, ora: u32) -> bool {
        self.family == Family::Ora && self.number == ora
    }

    pub fn meaning(&self) -> Option<&'static Meaning> {
        (self.family == Family::Ora).then(|| MEANINGS.iter().find(|row| row.ora == self.number)).flatten()
    }

    pub fn class(&self) -> Class {
        self.meaning().map_or(Class::Fatal, |row| row.class)
    }

    /// The code a person sees.
    pub fn code(&self) -> Code {
        match self.family {
            Family::Sp2 => Code::SQLPLUS_UNUSABLE,
            Family::Ora => self.meaning().map_or(Code::STATEMENT_FAILED, |row| row.code),
        }
    }

    /// `ORA-28365 (the keystore is closed in this container)`.
    pub fn explain(&self) -> String {
        match self.meaning() {
            Some(row) => format!("{self} ({})", row.says),
            None => format!("{self} ({})", self.text.chars().filter(|c| !c.is_control()).take(120).collect::<String>()),
        }
    }

    /// The codes of an answer's lines. Only a line that *begins* with one counts, so that a row or an echoed statement
    /// cannot pose as an error.
    pub fn of_line(line: &str) -> Option<OraError> {
        let (family, rest) = match line.strip_prefix("ORA-") {
            Some(rest) => (Family::Ora, rest),
            None => (Family::Sp2, line.strip_prefix("SP2-")?),
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(4..=5).contains(&digits) {
            return None;
        }
        let number = rest[..digits].parse().ok()?;
        Some(OraError { family, number, text: rest[digits..].trim_start_matches(':').trim().to_owned() })
    }
}

/// The worst of several codes: what decides when an answer names more than one.
pub fn worst(errors: &[OraError]) -> Option<&OraError> {
    errors.iter().max_by_key(|error| error.class())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> OraError {
        OraError::of_line(line).expect("an error line")
    }

    #[test]
    fn codes_are_read_from_the_lines_of_the_transcripts() {
        let error = parse("ORA-65040: operation not allowed from within a pluggable database");
        assert_eq!((error.family, error.number, error.class()), (Family::Ora, 65040, Class::Fatal));
        assert_eq!(error.text, "operation not allowed from within a pluggable database");
        assert_eq!(parse("SP2-0640: Not connected").code(), Code::SQLPLUS_UNUSABLE);
        assert_eq!(parse("ORA-00600: internal error code, arguments: [kzckmbkup: invalid keystore location], [4]").number, 600);
        assert!(OraError::of_line(" ADMINISTER KEY MANAGEMENT CREATE KEYSTORE 'ORA-00001'").is_none());
        assert!(OraError::of_line("ORA-1: no").is_none());
        assert!(OraError::of_line("    Help: https://docs.oracle.com/error-help/db/ora-28365/").is_none());
    }

    #[test]
    fn an_unknown_code_is_fatal_and_the_worst_code_decides() {
        assert_eq!(parse("ORA-28435: whatever").class(), Class::Fatal);
        let errors = [parse("ORA-28354: open"), parse("ORA-28407: CKR_GENERAL_ERROR(5)")];
        assert_eq!(worst(&errors).expect("one").number, 28407);
    }

    #[test]
    fn the_table_is_sorted_and_has_each_code_once() {
        assert!(MEANINGS.windows(2).all(|pair| pair[0].ora < pair[1].ora));
    }

    #[test]
    fn h11_nothing_that_may_be_a_bad_pin_is_a_retry() {
        for ora in [28353, 28407, 46627, 28418, 28417] {
            assert_eq!(MEANINGS.iter().find(|row| row.ora == ora).expect("row").class, Class::Fix, "ORA-{ora}");
        }
    }
}
