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
    PLAN_UNREADABLE = 4, "the plan file cannot be read, or its hash does not fit its content", "check the path; a plan that was edited is not corrected by hand: take the original, or make another with `tde2hsm plan`";
    PLAN_REFUSED = 5, "no host can be migrated as planned", "read the findings with `tde2hsm plan show`";
    NOT_APPROVED = 6, "the plan was not approved", "run `tde2hsm apply` again and answer `yes`, or pass `--yes`";
    ARGUMENT_FILE = 7, "a file that the command line names cannot be used", "check the path, its permissions and the space left";
    ARGUMENT = 8, "the command line names something that is not there or does not fit", "compare what the message names with `tde2hsm COMMAND --help` and `tde2hsm status`";

    // 01xx: findings of surveys and cloud facts (campaign)
    AGENT_OFFLINE = 101, "the SSM agent of a host is not online", "start the agent, check its role and network, then survey again";
    AGENT_OLD = 102, "the SSM agent of a host is too old", "update the agent to 3.3.2746.0 or later";
    AGENT_PLATFORM = 103, "a host does not run Linux", "take the host out of the fleet file";
    INSTANCE_STATE = 104, "an instance is not running, or not known to EC2", "start the instance, or take it out of the fleet file";
    CLUSTER_MISSING = 105, "the CloudHSM cluster is not there", "check the cluster id, account and region in the fleet file";
    CLUSTER_NOT_ACTIVE = 106, "the CloudHSM cluster is not ACTIVE", "wait until it is, then plan again";
    CLUSTER_HSMS = 107, "the CloudHSM cluster has fewer than two ACTIVE HSMs in two zones", "add an HSM in another zone; a key on one HSM alone can be lost";
    CLUSTER_CHANGING = 108, "the CloudHSM cluster is changing its HSM type", "wait until it has ended: keys cannot be created before";
    CLUSTER_ROLLBACK = 109, "the CloudHSM cluster may still roll back to its former HSM type", "wait until the rollback window has ended: keys made in it can be lost";
    HSM_RULES = 110, "security groups do not let a host reach the HSMs", "allow TCP 2223-2225 from the host to the cluster's security group, on both sides";
    HSM_ROUTE = 111, "there is no route from a host to the HSMs", "add a route from the host's subnet to the addresses of the HSMs";
    SECRET_MISSING = 112, "a secret or a version of it is not there", "check the ARN in the fleet file; versions need a staging label to stay";
    SECRET_FOREIGN = 113, "a secret is of another account or region than the fleet", "use a secret of the fleet's own account and region";
    SECRET_ROTATED = 114, "a pinned secret version is no longer the current one", "name the version that is to be used, or leave it out to pin the current one";
    SECRET_UNNAMED = 115, "a database needs a secret that the fleet file does not name", "name it under `[secrets]`, or at the host or database";
    ESCROW_UNNAMED = 116, "the fleet file does not say where keystore files go off the host", "add `[escrow]` with a prefix and a second region";
    DOCUMENT_FACTS = 117, "the SSM document and its packages are not known", "run `tde2hsm setup` in this account and region";
    SURVEY_MISSING = 118, "a host has not been surveyed", "run `tde2hsm survey`";
    SURVEY_OLD = 119, "the survey of a host is too old", "run `tde2hsm survey` again";
    SURVEY_IDENTITY = 120, "a survey is of another host, account or region", "check account and region in the fleet file, then survey again";
    FACT_UNKNOWN = 121, "a fact that decides cannot be read", "see to what the message names, then survey again";
    VERSION_REFUSED = 122, "this Oracle version is not supported", "12.2 and 19c are supported; take the host out of the fleet file";
    RAC_REFUSED = 123, "Real Application Clusters are not supported", "take the host out of the fleet file";
    DATA_GUARD_REFUSED = 124, "Data Guard is not supported", "take the host out of the fleet file";
    CLUSTERWARE_REFUSED = 125, "Clusterware and Oracle Restart are not supported", "take the host out of the fleet file";
    ISOLATED_PDB_REFUSED = 126, "pluggable databases with a keystore of their own are not supported", "unite the keystores, or take the host out of the fleet file";
    LOGICAL_STANDBY_REFUSED = 127, "logical standby databases are not supported", "take the host out of the fleet file";
    ASM_KEYSTORE_REFUSED = 128, "a keystore in ASM is not supported", "move the keystore to a file system, or take the host out of the fleet file";
    HSM_112_REFUSED = 129, "an HSM as the source on Oracle 11.2 is not supported", "take the host out of the fleet file";
    SDK3_REFUSED = 130, "CloudHSM Client SDK 3 is in use", "take the host out of the fleet file; moving from SDK 3 is not supported";
    DATABASE_DOWN = 131, "a database that uses the provider is down or does not answer", "start it, or remove what ties it to an HSM";
    DATABASE_ROLE = 132, "a database is not a primary", "take the host out of the fleet file";
    DATABASE_MODE = 133, "a database is not open read-write", "open it read-write, then survey again";
    PDB_MODE = 134, "a pluggable database is not open read-write", "open it read-write, or drop it";
    KEYSTORE_IS_CLOSED = 135, "a keystore is closed", "open it, then survey again";
    KEY_STORE_UNKNOWN = 136, "where an active key lies is not known", "see that V$ENCRYPTION_KEYS names the active key of each container, then survey again";
    KEYS_MIXED = 137, "the containers of a database have their keys in different keystores", "finish the migration that was begun, then survey again";
    KEYSTORE_CONFIGURATION = 138, "the keystore configuration cannot be understood, or does not fit the keys", "correct what the message names, then survey again";
    NOTHING_TO_DO = 139, "no database of the host has keys to migrate", "take the host out of the fleet file";
    ALREADY_MIGRATED = 140, "a database has its keys in CloudHSM already", "nothing to do";
    OLD_KEY_TABLESPACE_HSM = 141, "a tablespace that cannot be written is under a key of the old HSM", "make it read-write and online, then survey again: its key cannot follow";
    OLD_KEY_TABLESPACE = 142, "a tablespace that cannot be written stays under the software key", "accept it, and keep the software keystore for ever; or make it read-write before";
    KEYSTORE_EPHEMERAL = 143, "a keystore lies on storage that does not outlive the instance", "move it to a volume that does";
    KEYSTORE_LARGE = 144, "a keystore file is too large to be kept off the host", "it must be at most 64 KiB";
    BACKUP_MISSING = 145, "there is no full backup that is recent enough", "take a full backup, or set `backup_hours = 0` to waive it";
    SQLNET_SHARED = 146, "databases share one `sqlnet.ora` that cannot serve each of them", "put `$ORACLE_SID` in its directory, or give each database its own TNS_ADMIN";
    LIBRARIES = 147, "the provider tree does not hold exactly one library", "leave the library that is in use, and move every other file out of `/opt/oracle/extapi`";
    LIBRARY_DELETED = 148, "a process maps a provider that is no longer at its path", "restart the database that the message names, then survey again";
    LIBRARY_STRANGER = 149, "a process that is of no surveyed database maps the provider", "end it, or put its database into `/etc/oratab`";
    CLOUDHSM_IN_USE = 150, "a process maps files of `/opt/cloudhsm`", "read the message: the client there is replaced within the swap only";
    AUTO_OPEN_UNDECIDED = 151, "a database opens by itself today, and the fleet file does not say whether it is to", "set `auto_open` to `enable` or `typed`";
    AUTO_OPEN_LOST = 152, "a database opens by itself today and will not after", "accept it, or set `auto_open` to `enable`";
    SPFILE_PENDING = 153, "a restart would activate parameters that someone has changed", "look at the parameters in the message, then accept the warning";
    SPFILE_NONE = 154, "a database runs without an spfile", "create an spfile and start from it";
    RESTRICTED = 155, "a database or container is in restricted session", "end the restriction, then survey again";
    HOME_REPLACED = 156, "the Oracle home was changed after the instance started", "restart the database in its window before, then survey again";
    ENVIRONMENT_DIFFERS = 157, "an instance runs with another environment than oratab says", "make `/etc/oratab` and the instance agree, then survey again";
    AUTOSTART = 158, "something may start a database in the middle of the swap", "stop it for the time of the change, then survey again";
    ARCHIVER_STUCK = 159, "the archiver is stuck", "free space for archived logs, then survey again";
    RECOVERY_AREA_FULL = 160, "the recovery area is nearly full", "free space in it, then survey again";
    NOARCHIVELOG = 161, "the database is in NOARCHIVELOG mode", "switch it to ARCHIVELOG mode and take a full backup";
    LONG_TRANSACTIONS = 162, "long transactions are at work", "wait for them, then survey again";
    JOBS_RUNNING = 163, "RMAN or Data Pump is at work", "wait for the jobs, then survey again";
    TABLESPACE_STATUS = 164, "the encryption of a tablespace is being changed", "wait until its STATUS is NORMAL, then survey again";
    DATAFILES_OFFLINE = 165, "datafiles are offline", "bring them online, then survey again";
    FILES_NEED_RECOVERY = 166, "files need recovery", "recover them, then survey again";
    RESTORE_POINT = 167, "a guaranteed restore point keeps redo of the former key", "drop it, then survey again";
    CAPTURE_ACTIVE = 168, "GoldenGate, LogMiner or Streams reads the redo", "stop the capture, and see that it can follow a new key";
    BACKUP_MODE = 169, "datafiles are in backup mode", "end the backup, then survey again";
    CONNECTIONS = 170, "the fleet's processes may be more than the cluster takes", "lower PROCESSES, or split the fleet over two clusters";
    KEY_QUOTA = 171, "the cluster may not have room for the keys", "split the fleet over two clusters";
    MATRIX = 172, "AWS has not given its word for this combination", "add the cell that the message names to `oracle_matrix`, once someone has tested it";
    SPACE = 173, "there is too little space", "free some, then survey again";
    NOEXEC = 174, "a file system that must run programs is mounted noexec", "mount it without noexec";
    READ_ONLY_MOUNT = 175, "a file system that must be written is mounted read-only", "mount it read-write";
    OS_PACKAGE = 176, "there is no client package for the operating system of a host", "give `tde2hsm setup` the package of that system (`--client-package OS=PATH`), then plan again";
    FLASHBACK = 177, "flashback logs under the former key cannot be used without it", "keep the old HSM, or turn flashback off before; then accept the warning";
    OWNER_ROOT = 178, "`bin/oracle` belongs to root", "give the home to its own user";
    KEYSTORE_SHARED = 179, "two databases use the same keystore directory", "give each its own";
    HOST_CGROUP = 180, "an instance runs in the SSM agent's cgroup", "it was started from SSM; restart it as it is started at boot";
    TAG_MISSING = 181, "a host does not have the tag of the failure domains", "tag the host, or leave `failure_domain` out";
    TARGETS_EMPTY = 182, "the targets select no instance", "check tag and ids in the fleet file";
    NOT_TO_UNDO = 183, "a host has nothing of the plan that could be undone", "leave it out";

    // 02xx: orders and the host's identity (host-runner)
    ORDER_UNREADABLE = 201, "the host cannot read the order", "a campaign goes on with the program version that made its plan (`tde2hsm plan show`); for a survey run `tde2hsm setup` with this one";
    ORDER_EXPIRED = 202, "the order came outside its validity window", "run `tde2hsm resume`; a new order is sent where one is needed";
    ORDER_NOT_MINE = 203, "the order is for another account, region or instance", "check which account and region the fleet file names";
    ORDER_SUPERSEDED = 204, "the order belongs to an older generation of the campaign", "use the controller that adopted the campaign";
    HOST_HELD = 205, "another campaign holds the host", "finish it, or end its hold with `tde2hsm release HOST`";
    PROTOCOL_VERSION = 206, "order and host-runner speak different versions", "go on with the program version that made the plan (`tde2hsm plan show`); a new campaign begins with `tde2hsm setup`";
    PLAN_STALE = 207, "the host is not what the plan saw", "survey again and make a new plan";
    BUSY = 208, "another operation is at work on the host", "wait for it with `tde2hsm status`";
    HOST_IDENTITY = 209, "the host cannot learn its own identity", "check that IMDSv2 answers on the host (`host-runner doctor`)";
    ENDPOINTS_UNSAFE = 210, "the file of endpoint overrides is not root's alone", "remove it, or give it to root with mode 0644";
    HOST_JOURNAL = 211, "the host's journal cannot be read or written", "check space and permissions of `/var/lib/tde2hsm` on the host";
    WORKER_DIED = 212, "the worker of the operation died before it reported", "run `tde2hsm resume`; the host looks at what is there and goes on";
    RUNNER_PANIC = 213, "host-runner met a defect of its own", "keep `/var/lib/tde2hsm` of the host and report the message";
    STILL_RUNNING = 214, "the operation is still at work", "ask again with `tde2hsm status`";
    OPERATION_UNKNOWN = 215, "the host knows no such operation", "run `tde2hsm resume`";
    DETAIL_UNKNOWN = 216, "the host does not keep that detail", "survey the host again";
    NOT_ROOT = 217, "host-runner does not run as root", "run it through the document of `tde2hsm setup`";

    // 03xx: files, provider, packages (host-runner)
    FILE_CHANGED = 301, "a file changed under the runner's hands", "find out who edits it, then resume";
    FILE_WORK = 302, "a file cannot be read or written", "check the path that the message names: space, permissions, mount";
    OWNER_WORK = 303, "a program or file of the database owner cannot be reached", "run `host-runner doctor` on the host";
    OWNER_IS_ROOT = 304, "`bin/oracle` belongs to root", "give the home to its own user; no program of it is run as root";
    PROVIDER_WORK = 305, "the provider tree cannot be read or changed", "check `/opt/oracle/extapi` on the host";
    PROVIDER_LIBRARIES = 306, "the provider tree does not hold exactly one library", "move every other file out of `/opt/oracle/extapi`";
    PROVIDER_MAPPED = 307, "a process still maps the provider", "stop the process that the message names, then resume";
    PROVIDER_LOAD = 308, "the new library does not load as the database owner", "read the message of `ldd` in the host's journal";
    PACKAGE_WORK = 309, "the client package cannot be installed or configured", "read the message of the package tool in the host's journal";
    PACKAGE_NONE = 310, "there is no client package for the operating system of the host", "give `tde2hsm setup` the package of that system (`--client-package OS=PATH`), then plan again";
    SQLNET_UNREADABLE = 311, "`sqlnet.ora` cannot be understood", "correct the line that the message names";

    // 04xx: Oracle and keystores (host-runner)
    STATEMENT_FAILED = 401, "a key management statement failed", "read the ORA code in the message and in the host's journal";
    STATEMENT_TIMEOUT = 402, "a statement did not answer in time", "look at the database's alert log, then resume; nothing was sent twice";
    SESSION_LOST = 403, "the server process of a statement died", "read the alert log, then resume; the host judges by what it finds";
    SESSION_STILL_RUNNING = 404, "a server session whose client is gone does not end", "find the session in V$SESSION by the numbers in the message; resume when it has ended";
    SQLPLUS_UNUSABLE = 405, "sqlplus cannot be used", "run sqlplus as the database owner with the ORACLE_HOME that the message names";
    DATABASE_ACCESS = 406, "the database refuses the connection", "let the owner of `bin/oracle` connect `/ as sysdba`";
    DATABASE_NOT_OPEN = 407, "a database is not open read-write", "read in the alert log whether it is being started or stopped, and let that end; then `tde2hsm resume`";
    CONTAINER_NOT_OPEN = 408, "a container is not open read-write", "open the pluggable database, or drop it from the database";
    VERSION_UNSUPPORTED = 409, "the Oracle version is not supported", "migrate this database by hand; 12.2 and 19c are supported";
    KEYSTORE_CLOSED = 410, "a keystore is closed", "open it as the message says, then resume";
    KEYSTORE_MISSING = 411, "there is no keystore at the configured place", "look for the directory that the message names; never make a new keystore in its place";
    KEYSTORE_REFUSED = 412, "a keystore does not open with what it was given", "do not try again: check password, directory and key with a person who knows them";
    KEYSTORE_OCCUPIED = 413, "a keystore of unknown password lies in the way", "find its password or its owner; it is never moved or deleted";
    KEYSTORE_NOT_WRITTEN = 414, "a keystore could not be written", "check disk space, owner and mode of the keystore directory";
    OLD_KEY_MISSING = 415, "data, redo or undo needs a master key that cannot be reached", "bring the former keystore back before anything else; start nothing on the new library";
    OLD_KEY_NEEDED = 416, "something still names a key of the old HSM", "make the tablespaces that the message names read-write, or open the containers, then resume";
    KEYS_NOT_PROVEN = 417, "the active keys are not where they should be", "read the container and the check in the message";
    REDO_NOT_CLEAN = 418, "redo under the former key is still needed", "wait for the archiver, drop the restore points that the message names, then resume";
    CONFIGURATION_REFUSED = 419, "the keystore configuration does not fit", "read the ORA code in the message";
    CONFIGURATION_SHARED = 420, "databases share a `sqlnet.ora` that cannot serve each of them", "put `$ORACLE_SID` in the directory or give each database its own TNS_ADMIN";
    NAME_NOT_QUOTABLE = 421, "a name or password holds a character that cannot be quoted", "change the password, or rename what the message names";
    PROVIDER_NOT_LOADED = 422, "the PKCS#11 library does not load in the server", "check owner, mode and dependencies of the one library under `/opt/oracle/extapi`, then restart the database";
    HSM_FAILED = 423, "the HSM answered with an error", "read the CKR word of the message with `tde2hsm explain TDE0423` before you resume: it may be a refused password";
    SHUTDOWN_HANGS = 424, "a database does not shut down", "look for long transactions and jobs, then resume; it is never aborted";
    START_FAILED = 425, "a database does not start as before", "read the alert log; the library in place is named in the message";
    BACKUP_TOO_OLD = 426, "there is no full backup that is recent enough", "take a full backup, or set `backup_hours = 0` to waive it";
    ROWS_UNREADABLE = 427, "an encrypted tablespace cannot be read", "read the ORA code in the message; keep every keystore and the old HSM";
    NOT_AUTO_OPEN = 428, "the keystore did not open by itself after a restart", "open it with the password; check the HSM_PASSWORD secret and the auto-login keystore";
    DATABASES_ON_CLOUDHSM = 429, "the former library cannot come back while databases are on CloudHSM", "undo the databases that the message names first";
    NOT_AFFECTED = 430, "the database is not in the state the step needs", "survey again and make a new plan";
    ANSWER_UNREADABLE = 431, "the database answered something that cannot be understood", "read the answer in the host's journal";
    BLOCKED = 432, "something stands in the way of a key change", "clear what the message names, then resume";
    DATABASE_UNKNOWN = 433, "the host has no such database", "survey again and make a new plan";
    DRILL_REFUSED = 440, "the host is not one that a drill may be made on", "read which check the message names; nothing on the host was touched";
    DRILL_REACHES_PRODUCTION = 441, "the host of a drill reaches an address that it must not", "cut the route that the message names, then drill again";
    DRILL_CONFIGURATION = 442, "the CloudHSM client of a drill host names another cluster than the restored one", "look at `cloudhsm-pkcs11.cfg` on the drill host; nothing was opened";
    DRILL_NOT_QUIET = 443, "something of the copied host cannot be switched off", "end what the message names on the drill host, then drill again";
    DRILL_NO_UNDO = 444, "a drill is not undone on its host", "tear it down with `tde2hsm dr drill --teardown ID`";
    DRILL_NOT_OPENED = 445, "the keystore of a copy did not open from the restored cluster; one login was spent", "compare the crypto user's password of the backup's time with the secret version of the point";
    DRILL_KEY_ABSENT = 446, "the restored cluster does not hold a key that the copy needs", "this point does not open; take one whose HSM backup is newer than its keys";
    DRILL_NOT_RECOVERED = 447, "the copy of a database does not open", "read the ORA code in the message; look whether the set holds every volume";
    DRILL_UNREAD = 448, "an encrypted tablespace of the copy cannot be read", "read which one and which code the report names";
    DRILL_PROVIDER = 449, "the copy is not one of a database on CloudHSM", "drill a point that was taken after the migration";

    // 05xx: secrets and logins (host-runner)
    SECRET_UNREADABLE = 501, "a secret version cannot be read from the host", "check the instance role and the secret's resource policy";
    LOGIN_REFUSED = 502, "a password was refused; one login was spent", "correct the secret, then name the new version with `tde2hsm resume --secret ARN=VERSION`";
    TOKEN_UNREACHABLE = 503, "the HSM cannot be asked; no login was spent", "check the cluster, the route and the security group";
    ESCROW_FAILED = 504, "a keystore file could not be kept off the host", "check the instance role's rights on the escrow prefix";
    SECRET_UNFIT = 505, "a secret cannot be given to Oracle in that form", "HSM secrets are `user:password`; quotes and line breaks are not possible";

    // 06xx: AWS (cloud, driver)
    AWS_DENIED = 601, "AWS refused a call", "compare with the permissions in `docs/permissions.md`";
    AWS_CREDENTIALS = 602, "there are no AWS credentials, or they have expired", "log in again, or correct the profile that `--profile` names, then repeat the command";
    AWS_UNREACHABLE = 603, "AWS does not answer", "check the network and the region's endpoint, then repeat the command; nothing is sent twice";
    AWS_THROTTLED = 604, "AWS throttles calls of this account", "wait a minute and run `tde2hsm resume`";
    AWS_INVALID = 605, "AWS calls a request invalid", "read AWS's words in the message; an id of the fleet file may be of another account or region";
    AWS_NOT_FOUND = 606, "something that AWS is asked about does not exist", "check the name or id in the fleet file, and account and region";
    AWS_FAILED = 607, "AWS failed inside", "run the command again; `tde2hsm resume` goes on where a campaign stood";
    DOCUMENT_MISSING = 608, "the SSM document is not there", "run `tde2hsm setup` in this account and region; a campaign then goes on with `tde2hsm resume --document`";
    DOCUMENT_CHANGED = 609, "the SSM document is not the one the plan names", "find out who changed the document; then plan again, or go on with `tde2hsm resume --document`";
    WRONG_ACCOUNT = 610, "the credentials belong to another account than the plan", "use a profile of the account that the plan names";
    WRONG_REGION = 611, "the region is another one than the plan's", "leave `--region` out, or name the plan's region";
    SEND_UNCERTAIN = 612, "whether a command was sent is not known yet", "run `tde2hsm resume`; the command is looked for by its token before anything is sent again";
    BUCKET_UNFIT = 613, "the bucket for the runner cannot be used", "name another bucket with `--bucket`, owned by this account, in this region, with versioning on";

    // 07xx: journal and campaign (journal, driver)
    JOURNAL_BROKEN = 701, "the campaign's journal does not verify", "keep the file, rebuild the journal with `tde2hsm adopt`";
    JOURNAL_OLDER = 702, "the journal was written by an older version of the program", "finish the campaign with the version that began it";
    JOURNAL_NEWER = 703, "the journal was written by a newer version of the program", "use that version or a newer one";
    JOURNAL_CONFLICT = 704, "another controller writes to the same campaign", "let one of the two go on and stop the other";
    JOURNAL_UNWRITABLE = 705, "the journal cannot be read or written", "check the path, its permissions and the space left, then resume";
    CAMPAIGN_UNKNOWN = 706, "the journal knows no such campaign", "list what it knows with `tde2hsm status`, or name another file with `--journal`";
    CAMPAIGN_AMBIGUOUS = 707, "the journal holds several campaigns", "name the one that is meant";
    CAMPAIGN_EXISTS = 708, "the plan is already being carried out", "go on with `tde2hsm resume`";
    ADOPT_IMPOSSIBLE = 709, "the hosts' journals do not give one campaign", "read which host disagrees, then finish it by hand or end its hold with `tde2hsm release HOST`";
    HOST_SILENT = 730, "a host does not answer", "see that the instance and its SSM agent run, then `tde2hsm resume`";
    NOT_AS_ASKED = 731, "a host answered something else than it was asked", "resume with the program version that made the plan (`tde2hsm plan show`); if it repeats, keep both journals and report it";

    // 08xx: recovery points: why one does not open, what is not proven (dr)
    POINT_VOLUME_MISSING = 801, "a snapshot set lacks a volume", "see why the volume was left out of that set; the next whole set heals it";
    POINT_FILE_OUTSIDE = 802, "a file of a database lies where no snapshot set reaches", "take that volume into the sets, or move the file";
    POINT_COPY_MISSING = 803, "a snapshot of a set has no copy in the DR region", "see with `tde2hsm dr copy` what it waits for";
    POINT_COPY_PENDING = 804, "a copy is not finished", "wait; `tde2hsm dr status` says when it ought to be done";
    POINT_COPY_FAILED = 805, "a copy failed", "read AWS's words beside the copy; it is made anew by itself";
    POINT_COPY_ARCHIVED = 806, "a copy lies in the archive tier", "restore it from the archive tier; that takes up to three days";
    POINT_COPY_KEY_UNUSABLE = 807, "the KMS key of a copy or a secret cannot be used", "enable the key, or cancel its deletion, at once";
    POINT_INCONSISTENT = 808, "the volumes of a set were not taken as one", "take sets with CreateSnapshots, or between BEGIN and END BACKUP";
    POINT_BACKUP_NOT_COPIED = 809, "the DR region has no HSM backup new enough for a key", "see with `tde2hsm dr copy` what the copy of the HSM backup waits for";
    POINT_KEY_IN_NO_BACKUP = 810, "no HSM backup is new enough for a key", "force a backup, or wait for the daily one; until then the key lives in the cluster alone";
    POINT_KEY_ROTATED_UNSEEN = 811, "a key was rotated between two looks, and no copied HSM backup has it", "find out who rotated; `tde2hsm dr copy` brings the next HSM backup over";
    POINT_KEY_IN_OLD_HSM = 812, "a key lies in another HSM than the fleet's cluster", "no restore in the DR region has it; keep the old HSM until `tde2hsm dr retire-when` says otherwise";
    POINT_KEY_IN_KEYSTORE_ONLY = 813, "a key lies in a software keystore that is not in the point", "put `ewallet.p12` where the sets reach it";
    POINT_LOCAL_AUTO_LOGIN = 814, "a keystore opens on its own host alone", "keep `ewallet.p12` with its password; a LOCAL auto-login file opens nowhere else";
    POINT_SECRET_GONE = 815, "the password of an HSM backup's time is gone", "wait for an HSM backup under the new password to be copied";
    POINT_SECRET_NOT_REPLICATED = 816, "a secret has no replica in the DR region", "replicate the secret to the DR region";
    POINT_KEYSTORE_PASSWORD_GONE = 817, "the password of a software keystore of that time is gone", "look for the password elsewhere; store it as a secret that is replicated";
    POINT_NO_INVENTORY = 818, "no inventory on one side of a set", "wait for the next survey, or order one; see that the host answers SSM";
    POINT_INVENTORY_BLIND = 819, "an inventory beside a set could not see everything", "open the container or start the database that the message names, then survey again";
    POINT_FILES_UNKNOWN = 820, "where files of a database lie is not known", "read which file the message names; ASM, NFS and the like cannot be followed";
    POINT_CONSISTENCY_UNKNOWN = 821, "how a set is consistent is not known", "tag the snapshots `tde2hsm:consistency`, or take sets with CreateSnapshots";
    POINT_KEY_PLACE_UNKNOWN = 822, "where a key lies, or whether it is needed, is not known", "open every keystore of the database, then survey again";
    POINT_KEY_IN_BACKUP_UNKNOWN = 823, "whether an HSM backup has a key is not known", "wait for the next HSM backup; the clocks are too near to tell";
    POINT_SECRET_UNKNOWN = 824, "which secret version opens a point is not known", "name the secrets in TDE2HSM_SECRETS; versions are recorded from then on";
    POINT_COPY_STATE_UNKNOWN = 825, "the state of a copy or of a KMS key is not known", "check the permission to describe the key";
    POINT_NOT_ASKED = 826, "AWS or the records gave no answer that a verdict needs", "check permissions and region, then look again";
    COPY_NOT_OURS = 827, "a snapshot claims to be a copy that we did not make", "find out who made it; it counts only if size and start fit, and is never deleted by us";
    RPO_BREACH = 828, "the newest point that opens is older than the RPO", "read with `tde2hsm dr status` why newer points do not open";
    RPO_BREACH_AHEAD = 829, "the newest point that opens will be older than the RPO before the next can open", "see with `tde2hsm dr copy` what is in flight";

    // 083x: drill, control plane's side (dr-driver, cli)
    DRILL_NO_POINT = 830, "there is no point that a drill can be made of", "read the causes with `tde2hsm dr status --points DATABASE`";
    DRILL_NOT_ISOLATED = 831, "the place of a drill could reach production", "use a subnet without peering, transit or VPN routes, and a security group of its own";
    DRILL_CLUSTER_FAILED = 832, "the cluster of a drill does not become usable", "read the cluster's state message, tear the drill down, and drill again";
    DRILL_HOST_FAILED = 833, "the host of a drill does not start, or its SSM agent does not come up", "check the endpoints of the drill's subnet and its instance profile, then `tde2hsm dr drill --resume ID`";
    DRILL_KEY_MISSING = 834, "the restored HSM backup lacks a key that the database needs", "wait for a newer HSM backup, or force one; this point does not open";
    DRILL_KEYSTORE_CLOSED = 835, "the keystore did not open from the restored cluster", "compare the crypto user's password of the backup's time with the secret version that the point pins";
    DRILL_ROWS_UNREAD = 836, "not every encrypted tablespace could be read in a drill", "read which tablespace and which ORA code the message names";
    DRILL_LEFT_OVER = 837, "something of a drill could not be removed and goes on costing", "run `tde2hsm dr drill --teardown ID` again";
    DRILL_UNFINISHED = 838, "a drill is not ended", "go on with `tde2hsm dr drill --resume ID`, or end it with `tde2hsm dr drill --teardown ID`";
    DRILL_UNKNOWN = 839, "the records know no such drill", "list them with `tde2hsm dr status`";

    // 084x-085x: the jobs of recovery (dr-driver, lambdas)
    FUNCTION_CONFIG = 840, "the environment of a function is incomplete", "correct the parameters that the message names, and deploy the template again";
    FUNCTION_UNKNOWN = 841, "the handler's name is none of the five functions", "set the handler to `copy-snapshots`, `copy-hsm-backups`, `settle-copies`, `expire-copies` or `audit-recovery`";
    EVENT_UNREADABLE = 842, "an event cannot be understood", "nothing: the next scheduled run does what the event was about";
    PARTLY_ASKED = 843, "a call of a recovery job gave no answer", "read which region and call; the next run asks again";
    RECORDS_AWAY = 844, "the records bucket cannot be read or written", "check the bucket's region, policy and KMS key: without records nothing is copied or deleted";
    RECORD_INVALID = 845, "a record cannot be understood", "compare the object with its earlier versions in the bucket; the product writes no such record";
    COPY_REFUSED = 846, "AWS refused to copy", "read AWS's words in the message; most are a permission, a KMS key or the state of the source";
    COPY_BROKE = 847, "a copy failed after it was accepted", "read AWS's words in the message; it is copied again with growing pauses";
    COPY_VANISHED = 848, "a copy is no longer there, and the product did not delete it", "find out who deleted it; it is copied again while the source is there";
    COPY_CLAIMED = 849, "something carries the product's tags and was not made by it", "find out who made it; it is never deleted by the product";
    COPY_UNFIT = 850, "a copy does not fit what it was made of", "do not use it; compare size and KMS key with the source";
    DELETE_REFUSED = 851, "something that was to be deleted is not the product's own", "read what is wrong with it; it was left alone";
    SECRET_UNKEPT = 852, "a secret version that a backup needs could not be kept", "take stages away from the secret (twenty fit), or grant `secretsmanager:UpdateSecretVersionStage`";
    HOST_UNSURVEYED = 853, "a host gives no survey", "see that instance and SSM agent run and that the document is the deployed one; without surveys its points stay unproven";
    ALARM_UNSENT = 854, "an alarm could not be published", "check the topic, its policy and its KMS key; it is sent again at the next run";
    NO_FLEET = 855, "no instance carries the fleet's tag", "check `FleetTagKey` and `FleetTagValue`, and the tags of the instances";
    COPIES_QUEUE = 856, "copies wait for a place in the region", "nothing: they are begun as others end; ask AWS for more concurrent copies if the RPO suffers";
    SNAPSHOT_UNUSABLE = 857, "a snapshot of the source region cannot be copied", "make a new set; a failed or archived snapshot cannot be copied";
    CALL_UNCERTAIN = 858, "whether a call went through is not known", "nothing: what it made is looked for before it is sent again";
    RPO_NOT_FEASIBLE = 859, "the RPO that is asked for cannot be kept as the fleet is", "change what the message says limits it, or ask for an RPO that can be kept";

    // 086x: `tde2hsm dr` (cli)
    DR_NOT_CONFIGURED = 860, "the fleet file names no second region", "add `[dr]` to the fleet file; `docs/recovery.md` shows it";
    RPO_BROKEN = 861, "a database has no point that opens and is young enough", "read the cause beside the database; then `tde2hsm dr copy`";
    RETIRE_NOT_COMPUTABLE = 862, "when the old HSM may be retired cannot be computed yet", "find out the facts that are named and declare them in a file for `--facts`";
    RETIRE_FACTS_INVALID = 863, "the file of declared facts is not valid", "correct the line that the message names; `docs/recovery.md` shows the form";
    RECORDS_UNREADABLE = 864, "the records of the DR region cannot be read", "check the bucket's name, its policy and KMS key, and the credentials";
    COPIES_FAILED = 865, "copies failed, or cannot be made", "read the cause beside each copy; most are a KMS key or a permission";
    DATABASE_NOT_INVENTORIED = 866, "no inventory knows this database", "check the name; inventories are taken by the scheduled surveys";
    POINT_UNKNOWN = 867, "there is no such recovery point", "list them with `tde2hsm dr status --points DATABASE`";
    DRILL_PLACE_UNNAMED = 868, "the fleet file does not say where a drill may be made", "add `[dr.drill]`; `docs/recovery.md` shows it";
    ASKED_IN_PART = 869, "not everything could be asked", "read what is missing; the verdicts count it as unknown";

    // 087x: the gate that keeps new keys (campaign, cli)
    PROTECT_OFF = 870, "nobody waits until the new keys are in a backup", "leave `[protect]` out, or set `mode = \"wait\"` or `\"force\"`";
    PROTECT_ONE_REGION = 871, "the new keys are waited for in backups of one region only", "name a second region in `[dr]` of the fleet file";
    NOT_PROTECTED = 872, "the new keys are not known to be in a backup that is new enough", "run `tde2hsm resume` to wait on; until then a loss of the cluster is a loss of these keys";
    PROTECTION_UNSEEN = 873, "HSM backups cannot be listed", "check the permission `cloudhsm:DescribeBackups` in both regions, then `tde2hsm resume`";
    FORCED_HSM_UNCERTAIN = 874, "whether an HSM was added for a backup is not known", "look who added the HSM that the message names, remove it if nobody wants it, then `tde2hsm resume`";
    FORCED_HSM_LEFT = 875, "the HSM that was added for a backup is still there", "see that as many HSMs are ACTIVE as before, then `tde2hsm resume`; it is removed then";
    FORCED_HSM_REFUSED = 876, "AWS added no HSM for a backup", "read AWS's words in the message; CloudHSM's own backup comes within 24 hours";
    BACKUP_NOT_COPIED = 877, "an HSM backup could not be copied into the second region", "read the cause in the message; the copy is asked for again by itself";
    INVENTORY_UNWRITTEN = 878, "a key inventory could not be written", "check the records bucket and the permissions for it; it is tried again after the next wave and at the end";
}
