//! The host's side of a drill (H44): a host that is a copy is made quiet, opened from a restored cluster with the keystore's file
//! away, and read; a host that is none is left alone.
//!
//! A migrated host of the fleet plays the copy: its metadata service, which this test stands in for, says that the instance
//! carries the drill's tag. What plays the restored cluster is a copy of the token under an address of its own.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use tde2hsm_e2e::{World, files_below};
use tde2hsm_protocol::{
    CampaignId, Code, Direction, Drill, DrillId, InstanceId, KeyAvailabilityCheck, OperationId, Order, OrderToken, Outcome,
    Region, Report, Segment, Step, Work,
};

const DRILL: &str = "drill-1";

/// Stands before the sandbox's metadata service and shows one tag more.
fn with_tag(endpoint: &str) -> Result<String> {
    let behind = endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let behind = behind.clone();
            std::thread::spawn(move || forward(stream, &behind));
        }
    });
    Ok(own)
}

fn forward(mut stream: TcpStream, behind: &str) -> Option<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    if request.starts_with(b"GET /latest/meta-data/tags/instance/tde2hsm:drill ") {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{DRILL}", DRILL.len());
        return stream.write_all(answer.as_bytes()).ok();
    }
    let mut to = TcpStream::connect(behind).ok()?;
    to.write_all(&request).ok()?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).ok()?;
    stream.write_all(&answer).ok()
}

struct Copy<'a> {
    world: &'a World,
    host: String,
    /// The cutover's order for it, which knows its databases and secrets.
    order: Order,
}

impl<'a> Copy<'a> {
    fn new(world: &'a World, sid: &str) -> Result<Copy<'a>> {
        for host in world.hosts()? {
            for file in files_below(&world.root(&host).join("var/lib/tde2hsm/operations"))? {
                if !file.ends_with("order.json") {
                    continue;
                }
                let mut order: Order = serde_json::from_slice(&std::fs::read(&file)?)?;
                order.hosts.retain(|h| h.instance.as_str() == host && h.databases.iter().any(|d| d.sid.as_str() == sid));
                let cutover = Work::Run { segment: Segment::Cutover, direction: Direction::Do };
                if order.work == cutover && !order.hosts.is_empty() {
                    return Ok(Copy { world, host, order });
                }
            }
        }
        anyhow::bail!("no host has {sid}")
    }

    fn root(&self) -> PathBuf {
        self.world.root(&self.host)
    }

    /// As a boot of the copy would find it, but for one thing: its client is told of another address than production's, because the
    /// network of the machine that runs this test may answer for any address. What must not answer is the test's own listener.
    fn prepare(&self) -> Result<()> {
        self.show_tag()?;
        let file = "/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg";
        let text = self.world.exec(&self.host, &["cat", file])?.ok()?.stdout;
        let table: Value = serde_json::from_slice(&std::fs::read(network(self.world)?.join("addresses.json"))?)?;
        let mut changed = text.clone();
        for address in table.as_object().context("a table")?.keys() {
            changed = changed.replace(address.as_str(), "10.99.0.5");
        }
        ensure!(changed != text, "{text}");
        self.write(file, &changed)
    }

    /// From within: a layer written to behind the back of its overlay may not show there.
    fn write(&self, file: &str, text: &str) -> Result<()> {
        self.world.exec(&self.host, &["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", text, file])?.ok().map(drop)
    }

    /// Its spfile lies where STARTUP finds it by another way than by its first name.
    fn move_spfile(&self, sid: &str, to: &str, init: Option<&str>) -> Result<()> {
        let dbs = "/u01/app/oracle/product/19.0.0/dbhome_1/dbs";
        let line =
            format!("mkdir -p $(dirname {to}) && mv {dbs}/spfile{sid}.ora {to} && chown -R oracle:oinstall $(dirname {to})");
        self.world.exec(&self.host, &["sh", "-c", &line])?.ok()?;
        let Some(init) = init else { return Ok(()) };
        self.write(&format!("{dbs}/init{sid}.ora"), init)
    }

    fn show_tag(&self) -> Result<()> {
        let file = "/etc/tde2hsm/endpoints.toml";
        let text = self.world.exec(&self.host, &["cat", file])?.ok()?.stdout;
        let line = text.lines().find(|line| line.starts_with("imds")).context("imds")?.to_owned();
        let endpoint = line.split('"').nth(1).context("an address")?;
        self.write(file, &text.replace(&line, &format!("imds = \"{}\"", with_tag(endpoint)?)))
    }

    fn drill(&self, number: u8, hsm: &str, change: impl FnOnce(&mut Order)) -> Result<Report> {
        let mut order = self.order.clone();
        order.campaign = CampaignId::new("drill-1")?;
        order.work = Work::Run { segment: Segment::Drill, direction: Direction::Do };
        order.token = OrderToken::new(format!("t-drill-{number}"))?;
        order.escrow = None;
        let target = order.target.as_mut().context("target")?;
        target.hsms = vec![hsm.parse()?];
        target.key_availability_check = KeyAvailabilityCheck::Off;
        order.hosts[0].operation = OperationId::new(format!("op-drill-{number}"))?;
        order.hosts[0].saw = None;
        order.drill = Some(Drill {
            id: DrillId::new(DRILL)?,
            source: InstanceId::new("i-0fedcba9876543210")?,
            source_region: Region::new("ap-southeast-2")?,
            unreachable: Vec::new(),
        });
        change(&mut order);
        let variable = format!("SSM_Order={}", order.encode()?);
        let ran = self.world.exec(&self.host, &["env", &variable, "/opt/tde2hsm/host-runner", "run"])?.ok()?;
        let report = Report::decode(&ran.stdout)?;
        println!("drill {number} of {}: {} {:?} {}", self.host, report.outcome.name(), report.outcome.code(), report.message);
        Ok(report)
    }

    fn read(&self, report: &Report, sid: &str) -> Result<tde2hsm_protocol::DrillRead> {
        let row = report.databases.iter().find(|d| d.sid.as_str() == sid).with_context(|| format!("{report:?}"))?;
        row.drill.clone().with_context(|| format!("{report:?}"))
    }

    fn names(&self, below: &str, ends: &str) -> Result<Vec<String>> {
        let files = files_below(&self.root().join(below))?;
        Ok(files.iter().map(|f| f.display().to_string()).filter(|f| f.ends_with(ends)).collect())
    }
}

/// The directory that hosts of the fleet see as `/run/hsm`.
fn network(world: &World) -> Result<PathBuf> {
    let files = files_below(&world.dir)?;
    let tables = files.iter().filter(|file| file.ends_with("addresses.json"));
    let mut filled = tables.filter(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("10.")));
    Ok(filled.next().context("no network")?.parent().context("a directory")?.to_owned())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    let meta = std::fs::metadata(from)?;
    std::os::unix::fs::chown(
        to,
        Some(std::os::unix::fs::MetadataExt::uid(&meta)),
        Some(std::os::unix::fs::MetadataExt::gid(&meta)),
    )?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            let meta = entry.metadata()?;
            std::os::unix::fs::chown(
                &target,
                Some(std::os::unix::fs::MetadataExt::uid(&meta)),
                Some(std::os::unix::fs::MetadataExt::gid(&meta)),
            )?;
        }
    }
    Ok(())
}

/// Gives an address to a token, or takes it away.
fn route(network: &Path, address: &str, token: Option<&str>) -> Result<()> {
    let file = network.join("addresses.json");
    let mut table: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let table_of = table.as_object_mut().context("a table")?;
    match token {
        Some(token) => table_of.insert(address.to_owned(), json!(token)),
        None => table_of.remove(address),
    };
    std::fs::write(&file, table.to_string())?;
    Ok(())
}

/// Good and failed logins at a token.
fn logins(token: &Path) -> Result<(u64, u64)> {
    let state: Value = serde_json::from_slice(&std::fs::read(token.join("state.json"))?)?;
    let of = |name: &str| state["logins"][name].as_u64().with_context(|| format!("{state}"));
    Ok((of("ok")?, of("failed")?))
}

#[test]
fn h44_a_copy_is_made_quiet_and_read_from_the_restored_cluster_alone() {
    let run = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let world = World::up(&dir.path().join("world"), "mixed", 31)?;
        world.setup()?.ok()?;
        let network = network(&world)?;
        let table: Value = serde_json::from_slice(&std::fs::read(network.join("addresses.json"))?)?;
        let cluster = table.as_object().and_then(|t| t.values().next()?.as_str()).context("a cluster")?.to_owned();
        // Before any key was made in it: the backup that lacks them.
        copy_dir(&network.join(&cluster), &network.join("too-old"))?;
        // A tablespace that no migration moves stays under its software key (H3).
        let read_only = "printf 'CONNECT / AS SYSDBA\\nALTER TABLESPACE HISTORY READ ONLY;\\nEXIT\\n' | \
            setpriv --reuid oracle --regid oinstall --init-groups env ORACLE_SID=WEB \
            ORACLE_HOME=/u01/app/oracle/product/19.0.0/dbhome_1 /u01/app/oracle/product/19.0.0/dbhome_1/bin/sqlplus -S -L /nolog";
        let said = world.exec(&world.host_of("WEB")?, &["sh", "-c", read_only])?.ok()?;
        ensure!(said.stdout.contains("Tablespace altered"), "{}", said.stdout);
        world.fault(&["autostart", "all"])?;
        world.plan()?.ok()?;
        world.cli(&["apply", "plan.json", "--yes"])?;
        copy_dir(&network.join(&cluster), &network.join("restored"))?;
        route(&network, "10.99.0.5", Some("restored"))?;
        let production = logins(&network.join(&cluster))?;

        // No tag: nothing moves.
        let crm = Copy::new(&world, "CRM")?;
        let journal = std::fs::read(crm.root().join("var/lib/tde2hsm/journal/journal.jsonl"))?;
        let report = crm.drill(1, "10.99.0.5", |_| {})?;
        ensure!(report.outcome.code() == Some(Code::DRILL_REFUSED), "{report:?}");
        ensure!(std::fs::read(crm.root().join("var/lib/tde2hsm/journal/journal.jsonl"))? == journal, "the journal moved");
        crm.prepare()?;
        crm.move_spfile("CRM", "/u01/app/oracle/product/19.0.0/dbhome_1/dbs/spfile.ora", None)?;
        // The tag, but the host is the source itself.
        let report = crm.drill(2, "10.99.0.5", |order| {
            let host = order.hosts[0].instance.clone();
            order.drill.as_mut().expect("drill").source = host;
        })?;
        ensure!(report.outcome.code() == Some(Code::DRILL_REFUSED), "{report:?}");
        ensure!(!crm.root().join("var/lib/tde2hsm.of-i-0fedcba9876543210").exists(), "set aside");

        // A container database, its journal and its hold the source's.
        let before = logins(&network.join("restored"))?;
        let report = crm.drill(3, "10.99.0.5", |_| {})?;
        ensure!(report.outcome == Outcome::Done, "{report:?}");
        let read = crm.read(&report, "CRM")?;
        println!("CRM: {read:?}");
        ensure!(
            read.rows > 0 && read.tablespaces >= 3 && read.columns > 0 && read.with_p12.is_empty() && read.unread.is_empty(),
            "{read:?}"
        );
        let after = logins(&network.join("restored"))?;
        ensure!((after.0 - before.0, after.1) == (1, before.1), "one login for one database: {before:?} {after:?}");
        let aside = crm.root().join("var/lib/tde2hsm.of-i-0fedcba9876543210/journal/journal.jsonl");
        ensure!(std::fs::read(&aside)? == journal, "the source's journal is kept as it was");
        let oratab = std::fs::read_to_string(crm.root().join("etc/oratab"))?;
        ensure!(
            oratab.lines().any(|l| l.starts_with("CRM:") && l.ends_with(":N")) && !oratab.lines().any(|l| l.ends_with(":Y")),
            "{oratab}"
        );
        // One starts the databases, the other speaks of nothing that a word would find.
        for unit in ["dbora", "nightly-feed"] {
            let path = crm.root().join(format!("etc/systemd/system/{unit}.service"));
            ensure!(std::fs::read_link(&path).is_ok_and(|to| to == Path::new("/dev/null")), "{unit} is not masked");
        }
        let mut keystores = crm.names("u01/app/oracle/admin", "/ewallet.p12")?;
        keystores.extend(crm.names("u01/app/oracle/admin", "/cwallet.sso")?);
        ensure!(!keystores.is_empty() && keystores.iter().all(|name| name.contains("/tde2hsm/")), "{keystores:?}");

        // The cluster is away: nothing is read, and it is said why.
        route(&network, "10.99.0.5", None)?;
        let report = crm.drill(4, "10.99.0.5", |_| {})?;
        ensure!(report.outcome.code() == Some(Code::DRILL_NOT_OPENED) && report.step == Some(Step::DrillOpen), "{report:?}");
        ensure!(crm.read(&report, "CRM")?.rows == 0, "{report:?}");
        // A backup that is older than the keys.
        route(&network, "10.99.0.5", Some("too-old"))?;
        let report = crm.drill(5, "10.99.0.5", |_| {})?;
        ensure!(report.outcome.code() == Some(Code::DRILL_KEY_ABSENT) && report.message.contains("key is not in"), "{report:?}");
        ensure!(crm.read(&report, "CRM")?.rows == 0, "{report:?}");
        route(&network, "10.99.0.5", Some("restored"))?;
        let report =
            crm.drill(6, "10.99.0.5", |order| order.work = Work::Run { segment: Segment::Drill, direction: Direction::Undo })?;
        ensure!(report.outcome.code() == Some(Code::DRILL_NO_UNDO), "{report:?}");
        let listening = TcpListener::bind("127.0.0.1:0")?;
        let address = listening.local_addr()?;
        let report = crm.drill(7, "10.99.0.5", |order| order.drill.as_mut().expect("drill").unreachable = vec![address])?;
        ensure!(
            report.outcome.code() == Some(Code::DRILL_REACHES_PRODUCTION) && report.step == Some(Step::Neutralise),
            "{report:?}"
        );
        let report = crm.drill(8, "10.99.0.5", |_| {})?;
        ensure!(report.outcome == Outcome::Done && crm.read(&report, "CRM")?.rows == read.rows, "{report:?}");

        // What the migration left under the software key is read in a second phase, and by name.
        let web = Copy::new(&world, "WEB")?;
        web.prepare()?;
        let elsewhere = "/u01/app/oracle/admin/WEB/pfile/web.ora";
        web.move_spfile("WEB", elsewhere, Some(&format!("# here\nSPFILE='{elsewhere}'\n")))?;
        let report = web.drill(9, "10.99.0.5", |_| {})?;
        let read = web.read(&report, "WEB")?;
        println!("WEB: {read:?}");
        ensure!(report.outcome == Outcome::Done, "{report:?}");
        ensure!(
            read.rows > 0 && read.rows_with_p12 > 0 && read.with_p12 == ["WEB.HISTORY"] && read.unread.is_empty(),
            "{read:?}"
        );

        // Two of three share nothing but the host: `sqlnet.ora` in a TNS_ADMIN of their own, and 12.2.
        let hr = Copy::new(&world, "PAYR")?;
        hr.prepare()?;
        let report = hr.drill(10, "10.99.0.5", |_| {})?;
        ensure!(report.outcome == Outcome::Done, "{report:?}");
        for sid in ["HR", "PAYR", "TAX"] {
            let read = hr.read(&report, sid)?;
            println!("{sid}: {read:?}");
            ensure!(read.rows > 0 && read.unread.is_empty() && read.with_p12.is_empty(), "{sid}: {read:?}");
        }
        let now = logins(&network.join(&cluster))?;
        ensure!(now == production, "logins reached the production cluster: {production:?} {now:?}");
        Ok(())
    };
    run().expect("a drill of a copy");
}
