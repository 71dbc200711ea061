//! Puts Oracle into a host: homes, the old HSM's client, seeded databases, running instances.
//!
//! What was seeded is written outside the fleet (H46): `verify` compares with it, and nothing in a host can.

use crate::fleet::{Database, HostPlan, Release, Source};
use crate::host::Namespace;
use crate::host::rootfs::{Users, own};
use crate::sandbox::{Sandbox, SandboxHost, Secrets};
use anyhow::{Context as _, Result, bail};
use sandbox_oracle::spec::{PdbSpec, Planted, Style, TableSpec, TablespaceSpec, TsStatus};
use sandbox_oracle::{Binaries, DatabaseSpec, HomeSpec, Truth, install_home};
use sandbox_shim::Vendor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BASE: &str = "/u01/app/oracle";
const PROVIDER: &str = "/opt/oracle/extapi/64/hsm/oldhsm/7.4.0";
/// Rows of a table, and hours since the last full backup (H7).
const ROWS: u32 = 24;
const BACKUP_HOURS: f64 = 6.0;

impl Release {
    pub const fn home(self) -> &'static str {
        match self {
            Self::R19 => "/u01/app/oracle/product/19.0.0/dbhome_1",
            Self::R122 => "/u01/app/oracle/product/12.2.0/dbhome_1",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::R19 => "19.0.0.0.0",
            Self::R122 => "12.2.0.1.0",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::R19 => Style::WalletRoot,
            Self::R122 => Style::Sqlnet,
        }
    }
}

/// The programs a host gets, found beside the sandbox's own.
#[derive(Debug)]
pub struct Programs {
    oracle: PathBuf,
    sqlplus: PathBuf,
    old_hsm: PathBuf,
    pub cloudhsm: PathBuf,
}

impl Programs {
    /// Finds them, or says in one line what to build.
    pub fn find(sandbox: &Path, scratch: &Path) -> Result<Self> {
        let dir = sandbox.parent().context("the sandbox's own directory is unknown")?;
        let find = |name: &str, package: &str| {
            let path = dir.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} is missing; build it with: cargo build -p {package}", path.display())
            }
        };
        if !Path::new(sandbox_shim::SOFTHSM).exists() {
            bail!("{} is missing; install Debian's package softhsm2", sandbox_shim::SOFTHSM);
        }
        // A private copy, because hosts get links to it, and with them its owner and mode.
        let copy = |from: PathBuf| -> Result<PathBuf> {
            let to = scratch.join(from.file_name().context("a program has a name")?);
            fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
            Ok(to)
        };
        copy(find("libsandbox_clock.so", "sandbox-clock")?)?;
        Ok(Self {
            oracle: copy(find("oracle", "sandbox-oracle")?)?,
            sqlplus: copy(find("sqlplus", "sandbox-oracle")?)?,
            old_hsm: find(Vendor::OldHsm.library_name(), "sandbox-old-hsm")?,
            cloudhsm: find(Vendor::CloudHsm.library_name(), "sandbox-cloudhsm")?,
        })
    }
}

/// Everything a host's databases are made from.
#[derive(Debug)]
pub struct Site<'a> {
    pub programs: &'a Programs,
    pub users: Users,
    pub secrets: &'a Secrets,
    pub seed: u64,
    /// Addresses of the old HSM.
    pub old_hsm: &'a [&'a str],
}

/// Where a database's own sqlnet.ora lies, if it has one (H16).
pub fn tns_admin(database: &Database) -> Option<String> {
    database.own_tns_admin.then(|| format!("{BASE}/admin/{}/network", database.sid))
}

/// The words that make a command of the host run as the owner of Oracle's software.
pub fn as_oracle(users: Users) -> Vec<String> {
    if users == Users::SINGLE {
        return Vec::new();
    }
    ["setpriv", "--reuid", &users.oracle.to_string(), "--regid", &users.oinstall.to_string(), "--init-groups"]
        .map(str::to_owned)
        .into()
}

/// The environment a DBA has for a database.
pub fn environment(database: &Database) -> Vec<(String, String)> {
    let home = database.release.home();
    let mut env: Vec<(String, String)> = [
        ("HOME", "/home/oracle".to_owned()),
        ("USER", "oracle".to_owned()),
        ("LOGNAME", "oracle".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("ORACLE_BASE", BASE.to_owned()),
        ("ORACLE_HOME", home.to_owned()),
        ("ORACLE_SID", database.sid.clone()),
        ("LD_LIBRARY_PATH", format!("{home}/lib")),
        ("NLS_LANG", "AMERICAN_AMERICA.AL32UTF8".to_owned()),
        ("PATH", format!("{home}/bin:{}", crate::host::PATH)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    env.extend(tns_admin(database).map(|dir| ("TNS_ADMIN".to_owned(), dir)));
    env
}

/// A command of a host as the owner of Oracle's software, in the environment of a database.
pub fn command(namespace: &Namespace, users: Users, database: &Database, argv: &[&str]) -> Result<Command> {
    let mut words = as_oracle(users);
    words.extend(argv.iter().map(|&arg| arg.to_owned()));
    let mut command = Command::new(namespace.program());
    command.args(namespace.exec_args(&words, Some("/home/oracle"))?).env_clear().envs(environment(database));
    Ok(command)
}

/// Runs a command with `input` on its stdin.
pub fn run(mut command: Command, input: &[u8]) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}{text}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Homes and the old vendor's client; the host need not run yet.
pub fn install(site: &Site<'_>, plan: &HostPlan, root: &Path) -> Result<()> {
    let owner = (site.users.oracle, site.users.oinstall);
    let binaries = Binaries { oracle: site.programs.oracle.clone(), sqlplus: site.programs.sqlplus.clone(), link: true };
    for release in [Release::R19, Release::R122] {
        if plan.databases.iter().any(|d| d.release == release) {
            let spec = HomeSpec { home: release.home().to_owned(), base: BASE.to_owned(), owner: Some(owner) };
            install_home(root, &spec, &binaries)?;
        }
    }
    if plan.databases.iter().any(|d| d.source == Source::OldHsm) {
        let provider = root.join(PROVIDER.trim_start_matches('/')).join(Vendor::OldHsm.library_name());
        let library = root.join("opt/oldhsm/lib").join(Vendor::OldHsm.library_name());
        let config = root.join(Vendor::OldHsm.config_path().trim_start_matches('/'));
        for path in [&provider, &library, &config] {
            fs::create_dir_all(path.parent().context("it has a parent")?)?;
        }
        for path in [&provider, &library] {
            fs::copy(&site.programs.old_hsm, path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let text = json!({"hsm_dir": "/run/hsm/old-hsm", "servers": site.old_hsm, "vendor": "Old HSM client 7.4.0"});
        fs::write(&config, format!("{text:#}\n"))?;
        // From /opt/oracle down to the library everything is the database owner's.
        let mut path = provider.as_path();
        while path != root.join("opt") {
            own(path, owner.0, owner.1)?;
            path = path.parent().context("it lies below /opt")?;
        }
    }
    Ok(())
}

fn spec(site: &Site<'_>, database: &Database) -> DatabaseSpec {
    let table = |name: &str, encrypted_columns: &[&str]| TableSpec {
        name: name.to_owned(),
        rows: ROWS,
        encrypted_columns: encrypted_columns.iter().map(|&c| c.to_owned()).collect(),
    };
    let tablespace =
        |name: &str, encrypted, tables| TablespaceSpec { name: name.to_owned(), encrypted, status: TsStatus::Online, tables };
    let encrypted_tables = || {
        vec![
            tablespace("DATA", true, vec![table("APP.ORDERS", &[]), table("APP.CUSTOMERS", &[])]),
            tablespace("HISTORY", true, vec![table("APP.EVENTS", &[])]),
            tablespace("USERS", false, vec![table("APP.CARDS", &["PAYLOAD"]), table("APP.NOTES", &[])]),
        ]
    };
    let cdb = !database.pdbs.is_empty();
    let source = match database.source {
        Source::OldHsm => sandbox_oracle::Source::Hsm { pin: site.secrets.old_pin(), auto_open: None },
        Source::Software => sandbox_oracle::Source::Software { password: site.secrets.software.clone(), auto_login: None },
    };
    DatabaseSpec {
        sid: database.sid.clone(),
        home: database.release.home().to_owned(),
        base: BASE.to_owned(),
        version: database.release.version().to_owned(),
        db_unique_name: None,
        style: database.release.style(),
        source,
        wallet_dir: None,
        cdb,
        tablespaces: if cdb { vec![tablespace("COMMON", true, vec![table("C##APP.AUDITED", &[])])] } else { encrypted_tables() },
        pdbs: database
            .pdbs
            .iter()
            .map(|name| (name, encrypted_tables()))
            .chain(database.plain_pdbs.iter().map(|name| (name, vec![tablespace("USERS", false, vec![table("APP.NOTES", &[])])])))
            .map(|(name, tablespaces)| PdbSpec { name: name.clone(), tablespaces, isolated: false })
            .collect(),
        encrypted_system: false,
        encrypted_undo: false,
        archivelog: true,
        autostart: true,
        parameters: BTreeMap::new(),
        no_spfile: false,
        planted: Planted { last_full_backup_hours: Some(BACKUP_HOURS), data_guard: database.standby, ..Planted::default() },
        seed: site.seed,
    }
}

/// Creates the databases of a host that runs, and writes down outside what is in them.
pub fn seed(site: &Site<'_>, plan: &HostPlan, namespace: &Namespace, truth_dir: &Path) -> Result<()> {
    fs::create_dir_all(truth_dir)?;
    for database in &plan.databases {
        let program = format!("{}/bin/oracle", database.release.home());
        let input = serde_json::to_vec(&spec(site, database))?;
        let text = run(command(namespace, site.users, database, &[&program, "sim-seed", "-"])?, &input)
            .with_context(|| format!("seeding {}", database.sid))?;
        let truth: Truth = serde_json::from_str(&text).with_context(|| format!("what was seeded in {}", database.sid))?;
        fs::write(truth_dir.join(format!("{}.json", database.sid)), serde_json::to_vec_pretty(&truth)?)?;
    }
    for database in plan.databases.iter().filter(|d| d.own_tns_admin) {
        give_tns_admin(site.users, database, &namespace.outside("/"))?;
    }
    Ok(())
}

/// Moves the home's keystore configuration into a sqlnet.ora of the database's own.
fn give_tns_admin(users: Users, database: &Database, root: &Path) -> Result<()> {
    let home = root.join(database.release.home().trim_start_matches('/')).join("network/admin/sqlnet.ora");
    let dir = root.join(tns_admin(database).unwrap_or_default().trim_start_matches('/'));
    fs::create_dir_all(&dir)?;
    let text = fs::read_to_string(&home)?;
    let shared = root.join(database.release.home().trim_start_matches('/')).join("network/admin/sqlnet.ora.sample");
    if !shared.exists() {
        fs::write(&shared, &text)?;
    }
    let own_file = dir.join("sqlnet.ora");
    fs::write(&own_file, text.replace("$ORACLE_SID", &database.sid))?;
    for path in [dir.as_path(), own_file.as_path(), shared.as_path()] {
        own(path, users.oracle, users.oinstall)?;
    }
    Ok(())
}

/// What a DBA types to open a database's keystore: the PIN of the HSM whose library is in place, or the software password.
fn password(secrets: &Secrets, database: &Database, namespace: &Namespace) -> String {
    let below = |vendor: Vendor| find(&namespace.outside("/opt/oracle/extapi"), vendor.library_name());
    match database.source {
        _ if below(Vendor::CloudHsm) => secrets.new_pin(),
        Source::OldHsm => secrets.old_pin(),
        Source::Software => secrets.software.clone(),
    }
}

fn find(dir: &Path, name: &str) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| entry.file_name() == name || find(&entry.path(), name))
}

/// Starts the databases of a host and opens their keystores, as its DBA would after a reboot or a crash: recovery may need
/// the keys, so the keystore comes before the database (H25).
pub fn start(users: Users, secrets: &Secrets, plan: &HostPlan, namespace: &Namespace) -> Result<()> {
    for database in &plan.databases {
        let password = password(secrets, database, namespace);
        let open = format!("ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"{password}\";\n");
        let mut script = format!("CONNECT / AS SYSDBA\nSTARTUP MOUNT\n{open}ALTER DATABASE OPEN;\n");
        if !database.pdbs.is_empty() {
            script.push_str("ALTER PLUGGABLE DATABASE ALL OPEN;\n");
        }
        for pdb in database.pdbs.iter().chain(&database.plain_pdbs) {
            script.push_str(&format!("ALTER SESSION SET CONTAINER = {pdb};\n{open}"));
        }
        script.push_str("EXIT\n");
        let sqlplus = format!("{}/bin/sqlplus", database.release.home());
        let text = run(command(namespace, users, database, &[&sqlplus, "-S", "-L", "/nolog"])?, script.as_bytes())
            .with_context(|| format!("starting {}", database.sid))?;
        // ORA-28354: it has opened by itself.
        let wrong = |line: &&str| (line.contains("ORA-") || line.contains("SP2-")) && !line.contains("ORA-28354");
        if let Some(line) = text.lines().find(wrong) {
            bail!("{} did not start: {line}", database.sid);
        }
    }
    Ok(())
}

/// Sets a new master key in each container of a database, as its DBA may do at any time.
pub fn rotate_key(sandbox: &Sandbox, host: &SandboxHost, database: &Database) -> Result<String> {
    let seen = inspect(sandbox.users, &host.plan, &host.namespace)?;
    let containers = &seen[&database.sid]["containers"];
    let secrets = sandbox.secrets_of(host);
    let mut script = "CONNECT / AS SYSDBA\n".to_owned();
    let names = containers.as_object().into_iter().flat_map(|c| c.keys());
    for name in names {
        let store = containers[name]["active"]["store"].as_str().unwrap_or_default();
        let password = match store {
            "old-hsm" => secrets.old_pin(),
            "cloudhsm" => secrets.new_pin(),
            "software" => secrets.software.clone(),
            _ => continue,
        };
        if !database.pdbs.is_empty() {
            script.push_str(&format!("ALTER SESSION SET CONTAINER = {name};\n"));
        }
        let backup = if store == "software" { " WITH BACKUP" } else { "" };
        script.push_str(&format!("ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"{password}\"{backup};\n"));
    }
    by_hand(sandbox, host, database, &script)?;
    Ok(format!("{} has a new key in each container", database.sid))
}

/// Where a volume lies that the backup tool may be told to leave out.
pub const OTHER_DIR: &str = "/u03";

/// Moves the last control file of a database to a volume of its own, which is attached and mounted first. The host's databases go
/// down and come back.
pub fn move_controlfile(sandbox: &Sandbox, host: &SandboxHost, database: &Database) -> Result<String> {
    for each in &host.plan.databases {
        by_hand(sandbox, host, each, "CONNECT / AS SYSDBA\nSHUTDOWN IMMEDIATE\n").ok();
    }
    if !host.namespace.init().mounts.iter().any(|mount| mount.target == OTHER_DIR) {
        sandbox.attach_volume(host, OTHER_DIR)?;
        // What the boot has started by itself.
        for each in &host.plan.databases {
            by_hand(sandbox, host, each, "CONNECT / AS SYSDBA\nSHUTDOWN IMMEDIATE\n").ok();
        }
    }
    let ask = "CONNECT / AS SYSDBA\nSTARTUP NOMOUNT\nSELECT 'at '||value FROM v$parameter WHERE name = 'control_files';\n";
    let said = by_hand(sandbox, host, database, ask)?;
    let line =
        said.lines().find_map(|line| line.trim().strip_prefix("at ")).context("the database does not name its control files")?;
    let mut files: Vec<String> = line.split(',').map(|file| file.trim().to_owned()).collect();
    let last = files.pop().context("the database has a control file")?;
    let moved = format!("{OTHER_DIR}/{}/{}", database.sid, last.rsplit('/').next().unwrap_or_default());
    files.push(moved.clone());
    let list: Vec<String> = files.iter().map(|file| format!("'{file}'")).collect();
    let set =
        format!("CONNECT / AS SYSDBA\nALTER SYSTEM SET control_files={} SCOPE=SPFILE;\nSHUTDOWN IMMEDIATE\n", list.join(","));
    // ORA-01507: what was never mounted is shut down all the same.
    let said = hand(sandbox, host, database, &set)?;
    if let Some(line) = said.lines().find(|line| line.contains("ORA-") && !line.contains("ORA-01507")) {
        bail!("{}: {line}", database.sid);
    }
    let words = [
        "sh",
        "-c",
        "mkdir -p \"${2%/*}\" && mv \"$1\" \"$2\" && chown -R --reference=\"$3\" \"${2%/*}\"",
        "sh",
        &last,
        &moved,
        OTHER_DIR,
    ];
    let output = host.namespace.command(&words)?.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    start(sandbox.users, &sandbox.secrets_of(host), &host.plan, &host.namespace)?;
    Ok(format!("{} has a control file at {moved}", database.sid))
}

/// Leaves a keystore that opens by itself on this host and nowhere else, and for which nobody has a password any more.
pub fn local_auto_login_only(sandbox: &Sandbox, host: &SandboxHost, database: &Database) -> Result<String> {
    let seen = inspect(sandbox.users, &host.plan, &host.namespace)?;
    let dir = seen[&database.sid]["keystore_dir"].as_str().context("the database has no keystore directory")?;
    let password = &sandbox.secrets_of(host).software;
    let script = format!(
        "CONNECT / AS SYSDBA\nADMINISTER KEY MANAGEMENT CREATE LOCAL AUTO_LOGIN KEYSTORE FROM KEYSTORE '{dir}' IDENTIFIED BY \"{password}\";\n"
    );
    by_hand(sandbox, host, database, &script)?;
    fs::remove_file(host.namespace.outside(dir).join("ewallet.p12")).context("removing ewallet.p12")?;
    Ok(format!("{dir} holds a LOCAL auto-login alone"))
}

/// Runs statements as the DBA; the first that fails is an error.
fn by_hand(sandbox: &Sandbox, host: &SandboxHost, database: &Database, script: &str) -> Result<String> {
    let text = hand(sandbox, host, database, script)?;
    match text.lines().find(|line| line.contains("ORA-") || line.contains("SP2-")) {
        Some(line) => bail!("{}: {line}", database.sid),
        None => Ok(text),
    }
}

fn hand(sandbox: &Sandbox, host: &SandboxHost, database: &Database, script: &str) -> Result<String> {
    let sqlplus = format!("{}/bin/sqlplus", database.release.home());
    let command = command(&host.namespace, sandbox.users, database, &[&sqlplus, "-S", "-L", "/nolog"])?;
    run(command, format!("{script}EXIT\n").as_bytes())
}

/// What many hosts have: a unit that starts every database of oratab marked `Y`, and a job that talks to the world.
pub fn plant_autostart(namespace: &Namespace) -> Result<()> {
    const START: &str = "#!/bin/sh\n# Starts what oratab marks with Y.\nsed -n 's/^\\([^#:]*\\):\\([^:]*\\):Y.*/\\1 \\2/p' /etc/oratab | while read -r sid home; do\n  export ORACLE_SID=$sid ORACLE_HOME=$home\n  printf 'CONNECT / AS SYSDBA\\nSTARTUP\\nEXIT\\n' | setpriv --reuid oracle --regid oinstall --init-groups env ORACLE_SID=$sid ORACLE_HOME=$home $home/bin/sqlplus -S -L /nolog\ndone\nexit 0\n";
    const FEED: &str = "#!/bin/sh\n# Sends the night's figures to the data warehouse.\ndate >> /var/log/nightly-feed.ran\n";
    let units = [("dbora", "/opt/dba/bin/dbora", START), ("nightly-feed", "/opt/dba/bin/nightly-feed", FEED)];
    let wants = namespace.outside("/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    for (name, program, text) in units {
        let file = namespace.outside(program);
        fs::create_dir_all(file.parent().context("it has a parent")?)?;
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let unit = format!(
            "[Unit]\nDescription={name}\n\n[Service]\nType=oneshot\nExecStart={program}\n\n[Install]\nWantedBy=multi-user.target\n"
        );
        fs::write(namespace.outside(&format!("/etc/systemd/system/{name}.service")), unit)?;
        let link = wants.join(format!("{name}.service"));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("/etc/systemd/system/{name}.service"), link)?;
    }
    Ok(())
}

/// What `sim-inspect` says of a host: facts by SID.
pub fn inspect(users: Users, plan: &HostPlan, namespace: &Namespace) -> Result<Value> {
    let Some(first) = plan.databases.first() else { return Ok(json!({})) };
    let program = format!("{}/bin/oracle", first.release.home());
    let text = run(command(namespace, users, first, &[&program, "sim-inspect"])?, b"")?;
    Ok(serde_json::from_str(&text)?)
}

/// Reads every seeded row of a host's databases in `namespace`, a throw-away copy.
pub fn verify(
    users: Users,
    plan: &HostPlan,
    namespace: &Namespace,
    truth_dir: &Path,
    secrets: &Secrets,
    cut_off: &[String],
) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for database in &plan.databases {
        let truth = fs::read(truth_dir.join(format!("{}.json", database.sid))).context("reading what was seeded")?;
        let truth: Truth = serde_json::from_slice(&truth)?;
        let input = json!({
            "databases": [{
                "truth": truth,
                "pins": {
                    Vendor::OldHsm.name(): secrets.old_pin(),
                    Vendor::CloudHsm.name(): secrets.new_pin(),
                },
                "software": [secrets.software],
            }],
            "cut_off": cut_off,
        });
        let program = format!("{}/bin/oracle", database.release.home());
        let text = run(command(namespace, users, database, &[&program, "sim-verify", "-"])?, input.to_string().as_bytes())
            .with_context(|| format!("verifying {}", database.sid))?;
        let found: serde_json::Map<String, Value> = serde_json::from_str(&text)?;
        all.extend(found);
    }
    Ok(Value::Object(all))
}
