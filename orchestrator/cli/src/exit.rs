//! How the program ends. Public: scripts rely on it.

use tde2hsm_protocol::Code;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for holds.
    Ok = 0,
    /// A fault of this program.
    Internal = 1,
    /// The command line, or a file that it names, cannot be used.
    Usage = 2,
    /// Findings stand in the way; nothing was changed.
    Refused = 3,
    /// Hosts failed.
    HostsFailed = 4,
    /// Hosts are stuck and need a person.
    HostsStuck = 5,
    /// AWS refused a call or does not answer.
    Aws = 6,
    /// The journal cannot be used.
    Journal = 7,
    /// The campaign waits: for an approval, or for its window.
    Waits = 8,
    /// Recovery is not as it should be: an RPO that is broken, a drill that failed, a date that cannot be computed.
    NotRecoverable = 9,
    /// Interrupted; `tde2hsm resume` goes on.
    Interrupted = 130,
}

impl Exit {
    pub fn of(code: Code) -> Exit {
        match code.number() {
            5 => Exit::Refused,
            6 => Exit::Waits,
            // A file or name on the command line.
            839 | 860 | 863 | 866..=868 => Exit::Usage,
            830 | 831 | 838 => Exit::Refused,
            864 => Exit::Aws,
            0..=99 => Exit::Usage,
            100..=199 => Exit::Refused,
            600..=699 => Exit::Aws,
            700..=799 => Exit::Journal,
            440..=449 | 800..=869 => Exit::NotRecoverable,
            _ => Exit::HostsFailed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_end_the_program_by_their_century() {
        assert_eq!(Exit::of(Code::FLEET_INVALID), Exit::Usage);
        assert_eq!(Exit::of(Code::PLAN_REFUSED), Exit::Refused);
        assert_eq!(Exit::of(Code::NOT_APPROVED), Exit::Waits);
        assert_eq!(Exit::of(Code::AWS_DENIED), Exit::Aws);
        assert_eq!(Exit::of(Code::JOURNAL_CONFLICT), Exit::Journal);
        assert_eq!(Exit::of(Code::LOGIN_REFUSED), Exit::HostsFailed);
        for code in [Code::RPO_BROKEN, Code::RETIRE_NOT_COMPUTABLE, Code::DRILL_KEY_MISSING, Code::DRILL_UNREAD] {
            assert_eq!(Exit::of(code), Exit::NotRecoverable, "{code}");
        }
        assert_eq!(Exit::of(Code::DR_NOT_CONFIGURED), Exit::Usage);
        assert_eq!(Exit::of(Code::DRILL_NOT_ISOLATED), Exit::Refused);
        assert_eq!(Exit::of(Code::RECORDS_UNREADABLE), Exit::Aws);
    }
}
