//! Every code a person can see. One page each in `docs/errors/`, printed by `tde2hsm explain CODE`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A code such as `TDE0107`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Note,
    Warning,
    Error,
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct CodeInfo {
    pub code: Code,
    pub title: &'static str,
    /// The next thing to do, as a sentence without a full stop.
    pub hint: &'static str,
}

impl Code {
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("TDE{:04}", self.0))
    }
}
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TDE{:04}", self.0)
    }
}
impl FromStr for Code {
    type Err = crate::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("TDE").filter(|d| d.len() == 4).and_then(|d| d.parse().ok()).map(Code);
        number.filter(|code| describe(*code).is_some()).ok_or_else(|| crate::IdError {
            text: text.chars().take(20).collect(),
            expected: "a code of this program, such as `TDE0107`",
        })
    }
}

pub fn describe(code: Code) -> Option<&'static CodeInfo> {
    CATALOGUE.iter().find(|info| info.code == code)
}

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $hint:literal;)*) => {
        impl Code {
            $(#[doc = $title] pub const $name: Code = Code($number);)*
        }
        pub const CATALOGUE: &[CodeInfo] = &[$(CodeInfo { code: Code($number), title: $title, hint: $hint }),*];
    };
}

codes! {
    // 00xx: command line, fleet file, plan file (campaign, cli)
    FLEET_UNREADABLE = 1, "the fleet file cannot be read", "check the path and the file's permissions";
    FLEET_INVALID = 2, "the fleet file is not valid", "correct the line that the message names";
    FLEET_UNKNOWN_KEY = 3, "the fleet file has a key that means nothing", "use the key that the message suggests";
    PLAN_UNREADABLE = 4, "the plan file cannot be read, or its hash does not fit its content", "make the plan again with `tde2hsm plan`";
    PLAN_REFUSED = 5, "no host can be migrated as planned", "read the findings with `tde2hsm plan show`";
    NOT_APPROVED = 6, "the plan was not approved", "run `tde2hsm apply` again and answer `yes`, or pass `--yes`";

    // 01xx: findings of surveys and cloud facts (campaign)
    AGENT_OFFLINE = 101, "the SSM agent of a host is not online", "start the agent, check its role and network, then survey again";

    // 02xx: orders and the host's identity (host-runner)
    ORDER_UNREADABLE = 201, "the host cannot read the order", "check that `tde2hsm setup` has installed the document of this version";
    ORDER_EXPIRED = 202, "the order came outside its validity window", "run `tde2hsm resume`; a new order is sent where one is needed";
    ORDER_NOT_MINE = 203, "the order is for another account, region or instance", "check which account and region the fleet file names";
    ORDER_SUPERSEDED = 204, "the order belongs to an older generation of the campaign", "use the controller that adopted the campaign";
    HOST_HELD = 205, "another campaign holds the host", "finish it, or end its hold with `tde2hsm release HOST`";
    PROTOCOL_VERSION = 206, "order and host-runner speak different versions", "run `tde2hsm setup` with this version of the program";
    PLAN_STALE = 207, "the host is not what the plan saw", "survey again and make a new plan";
    BUSY = 208, "another operation is at work on the host", "wait for it with `tde2hsm status`";

    // 03xx: files, provider, packages (host-runner)
    FILE_CHANGED = 301, "a file changed under the runner's hands", "find out who edits it, then resume";

    // 04xx: Oracle and keystores (host-runner)
    STATEMENT_FAILED = 401, "a key management statement failed", "read the ORA code in the message and in the host's journal";

    // 05xx: secrets and logins (host-runner)
    SECRET_UNREADABLE = 501, "a secret version cannot be read from the host", "check the instance role and the secret's resource policy";
    LOGIN_REFUSED = 502, "a password was refused; one login was spent", "correct the secret, then name the new version in the fleet file";

    // 06xx: AWS (cloud, driver)
    AWS_DENIED = 601, "AWS refused a call", "check the permissions that `docs/` lists for the operator";

    // 07xx: journal and campaign (journal, driver)
    JOURNAL_BROKEN = 701, "the campaign's journal does not verify", "keep the file, rebuild the journal with `tde2hsm adopt`";
}
