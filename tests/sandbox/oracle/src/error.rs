//! Oracle's errors: codes and texts of O§5. Several may answer one statement.

use std::fmt;

/// What a statement failed with: one or more `ORA-` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ora {
    pub lines: Vec<(u32, String)>,
}

impl Ora {
    #[must_use]
    pub fn new(code: u32) -> Ora {
        Ora { lines: vec![(code, text(code).to_owned())] }
    }

    #[must_use]
    pub fn with(code: u32, text: impl Into<String>) -> Ora {
        Ora { lines: vec![(code, text.into())] }
    }

    #[must_use]
    pub fn and(mut self, other: Ora) -> Ora {
        self.lines.extend(other.lines);
        self
    }

    /// The first code, which is the one people quote.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.lines.first().map_or(0, |(code, _)| *code)
    }

    /// A disk that fails, as Oracle reports it.
    #[must_use]
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Ora {
        Ora::with(1565, format!("error in identifying file '{}' ({error})", crate::env::shown(path)))
    }
}

impl fmt::Display for Ora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (code, text)) in self.lines.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if text.starts_with("LRM-") {
                write!(f, "{text}")?;
            } else {
                write!(f, "ORA-{code:05}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Ora {}

pub type Result<T> = std::result::Result<T, Ora>;

/// `return Err(Ora::new(code))`.
macro_rules! ora {
    ($code:expr) => {
        return Err($crate::error::Ora::new($code))
    };
    ($code:expr, $($text:tt)+) => {
        return Err($crate::error::Ora::with($code, format!($($text)+)))
    };
}
pub(crate) use ora;

#[must_use]
pub fn text(code: u32) -> &'static str {
    match code {
        27 => "cannot kill current session",
        600 => "internal error code, arguments: [], [], [], [], [], [], [], []",
        900 => "invalid SQL statement",
        904 => "invalid identifier",
        907 => "missing right parenthesis",
        911 => "invalid character",
        922 => "missing or invalid option",
        923 => "FROM keyword not found where expected",
        933 => "SQL command not properly ended",
        936 => "missing expression",
        942 => "table or view does not exist",
        955 => "name is already used by an existing object",
        959 => "tablespace does not exist",
        1017 => "invalid username/password; logon denied",
        1031 => "insufficient privileges",
        1033 => "ORACLE initialization or shutdown in progress",
        1034 => "ORACLE not available",
        1035 => "ORACLE only available to users with RESTRICTED SESSION privilege",
        1078 => "failure in processing system parameters",
        1081 => "cannot start already-running ORACLE - shut it down first",
        1089 => "immediate shutdown or close in progress - no operations are permitted",
        1090 => "shutdown in progress - connection is not permitted",
        1092 => "ORACLE instance terminated. Disconnection forced",
        1100 => "database already mounted",
        1109 => "database not open",
        1113 => "file needs media recovery",
        1126 => "database must be mounted in this instance and not open in any instance",
        1149 => "cannot shutdown - file 1 has online backup set",
        1157 => "cannot identify/lock data file - see DBWR trace file",
        1219 => "database or pluggable database not open: queries allowed on fixed tables or views only",
        1507 => "database not mounted",
        1531 => "a database already open by the instance",
        1539 => "tablespace is not online",
        1542 => "tablespace is offline, cannot allocate space in it",
        1565 => "error in identifying file",
        1722 => "invalid number",
        2065 => "illegal option for ALTER SYSTEM",
        2095 => "specified initialization parameter cannot be modified",
        2097 => "parameter cannot be modified because specified value is invalid",
        2248 => "invalid option for ALTER SESSION",
        3113 => "end-of-file on communication channel",
        3114 => "not connected to ORACLE",
        12162 => "TNS:net service name is incorrectly specified",
        12547 => "TNS:lost contact",
        16038 => "log cannot be archived",
        19809 => "limit exceeded for recovery files",
        27101 => "shared memory realm does not exist",
        28304 => "Oracle encrypted block is corrupt",
        28353 => "failed to open wallet",
        28354 => "Encryption wallet, auto login wallet, or HSM is already open",
        28357 => "password required to open the wallet",
        28358 => "improper set key syntax",
        28361 => "master key not yet set",
        28362 => "master key not found",
        28365 => "wallet is not open",
        28367 => "wallet does not exist",
        28374 => "typed master key not found in wallet",
        28376 => "cannot find PKCS11 library",
        28377 => "No need to migrate from wallet to HSM",
        28388 => "database is not open in read/write mode",
        28389 => "cannot close auto login wallet",
        28390 => "auto login wallet is not open but the password wallet may be open",
        28395 => "could not write the new master key to the wallet",
        28396 => "rekey of enc$ dictionary table failed",
        28407 => "Hardware Security Module failed with PKCS#11 error CKR_GENERAL_ERROR(5)",
        28410 => "no need to migrate from HSM to wallet",
        28414 => "specified keys are in HSM",
        28415 => "specified keys are in wallet",
        28417 => "password-based keystore is not open",
        28418 => "password-based HSM is not open",
        28439 => "cannot close wallet when SYSTEM, SYSAUX, UNDO, or TEMP tablespaces are encrypted",
        28442 => "master key rekey is not permitted in restricted mode",
        32001 => "write to SPFILE requested but no SPFILE is in use",
        32017 => "failure in updating SPFILE",
        39726 => "unsupported add/drop column operation on compressed tables",
        44001 => "invalid schema",
        46603 => "invalid CREATE command",
        46623 => "cannot backup the keystore",
        46625 => "backup keystore already exists",
        46627 => "keystore password mismatch",
        46630 => "keystore cannot be created at the specified location",
        46631 => "keystore needs to be backed up",
        46632 => "password-based keystore does not exist",
        46633 => "creation of a password-based keystore failed",
        46655 => "no valid keys in the file from which keys are to be imported",
        46658 => "keystore not open in the container",
        46659 => "master keys for the given PDB not found",
        46661 => "keystore not open in root container",
        46665 => "master keys not activated for all PDBs during REKEY",
        46670 => "Client secret keystore operation failed",
        46690 => "could not create wallet",
        46692 => "cannot close wallet",
        46693 => "The WALLET_ROOT location is missing or invalid",
        46695 => "TDE_CONFIGURATION is invalid",
        46716 => "Backup of keystore is not allowed when using external keystore",
        65000 => "missing or invalid pluggable database name",
        65011 => "Pluggable database does not exist",
        65019 => "pluggable database already open",
        65020 => "pluggable database already closed",
        65040 => "operation not allowed from within a pluggable database",
        65054 => "cannot open a pluggable database in the desired mode",
        65086 => "cannot open/close the pluggable database",
        65090 => "operation only allowed in a container database",
        _ => "unspecified error",
    }
}
