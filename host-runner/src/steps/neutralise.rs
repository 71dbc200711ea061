//! `neutralise`: makes a copy of a host quiet, before anything of it starts (H44).
//!
//! A copy believes that it is production: it has its addresses, its passwords, its jobs, and it starts its databases when it
//! boots. Everything that would act by itself is taken out of the way first, then what a boot has started already is ended,
//! then the keystores that open by themselves go, and only then is the client told of the restored cluster. What must not be
//! reached is tried last, when nothing runs any more that could use it. Each thing is looked at before it is changed, so
//! a second run finds done what the first did. Nothing is deleted: files of root's lie in the runner's directory, those
//! of the database owner beside where they were.

use super::common::{all_places, subject};
use super::prepare_keystore::SSO;
use crate::drill;
use crate::files::{self, FileKind};
use crate::journal::Subject;
use crate::oracle::parameter_file::ParameterFiles;
use crate::oracle::{Db, Place};
use crate::owner::{Owner, Program};
use crate::step::{Context, Kind, StepBody, StepEnd, StepError};
use crate::survey;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tde2hsm_protocol::{Code, Digest, Sid, Target};

pub struct Neutralise;

impl StepBody for Neutralise {
    fn act(&self, ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        let places = all_places(ctx)?;
        autostarts(ctx, &places)?;
        listeners(ctx)?;
        for place in &places {
            down(ctx, place)?;
        }
        let places = at_rest(ctx)?;
        for place in &places {
            auto_login_aside(ctx, place, &places)?;
        }
        client(ctx, &places)?;
        unreachable(ctx)?;
        Ok(StepEnd::Done)
    }

    fn undo(&self, _ctx: &mut Context<'_>) -> Result<StepEnd, StepError> {
        Err(no_undo())
    }
}

pub fn no_undo() -> StepError {
    StepError::new(Kind::Final, Code::DRILL_NO_UNDO, "the host of a drill is thrown away, not undone")
}

fn not_quiet(message: impl Into<String>) -> StepError {
    StepError::new(Kind::Retriable, Code::DRILL_NOT_QUIET, message)
}

/// The drill's facts and the restored cluster: the order was refused without them.
fn ordered(ctx: &Context<'_>) -> Result<(tde2hsm_protocol::Drill, Target), StepError> {
    match drill::ordered(ctx.order) {
        Ok(Some(ordered)) => Ok((ordered.drill.clone(), ordered.target.clone())),
        Ok(None) => Err(StepError::new(Kind::Final, Code::DRILL_REFUSED, "the order is none for a drill")),
        Err(refusal) => Err(StepError::new(Kind::Final, refusal.code, refusal.message)),
    }
}

/// Where root's files of the copy are kept.
fn kept(ctx: &Context<'_>) -> PathBuf {
    ctx.paths.state().join("drill")
}

/// Where the owner's are: beside the directory they lay in.
pub fn beside(ctx: &Context<'_>, dir: &Path) -> PathBuf {
    super::prepare_keystore::aside(ctx, dir, "drill")
}

/// Moves one of root's files out of the way. The runner's directory may be on another file system.
fn move_aside(ctx: &mut Context<'_>, path: &Path, into: &str) -> Result<(), StepError> {
    let to = kept(ctx).join(into);
    ctx.intend(Subject::Host, "set aside", json!({ "file": path, "into": to }))?;
    let moved = match files::move_into(path, &to) {
        Ok(moved) => moved,
        Err(files::FileError::Io { source, .. }) if source.raw_os_error() == Some(libc::EXDEV) => {
            let copied = files::copy_into(path, &to)?;
            std::fs::remove_file(path)
                .map_err(|error| not_quiet(format!("`{}` cannot be moved aside: {error}", path.display())))?;
            copied
        }
        Err(error) => return Err(not_quiet(format!("`{}` cannot be moved aside: {error}", path.display()))),
    };
    ctx.observed(Subject::Host, "set aside", json!(moved))
}

/// What would act by itself, at boot or by the clock. No list of words finds the job that sends last night's figures to another
/// system, so nothing that someone put on the host stays: a throw-away copy needs none of it.
fn autostarts(ctx: &mut Context<'_>, places: &[Place]) -> Result<(), StepError> {
    oratab(ctx)?;
    units(ctx, places)?;
    for (dir, into) in [
        ("/var/spool/cron", "cron"),
        ("/var/spool/cron/crontabs", "cron"),
        ("/etc/cron.d", "cron"),
        ("/etc/cron.hourly", "cron"),
        ("/etc/cron.daily", "cron"),
        ("/etc/cron.weekly", "cron"),
        ("/etc/cron.monthly", "cron"),
        ("/var/spool/at", "at"),
        ("/var/spool/cron/atjobs", "at"),
    ] {
        for info in files::list(&ctx.paths.at(dir)).ok().flatten().unwrap_or_default() {
            if info.kind == FileKind::File {
                move_aside(ctx, &info.path, into)?;
            }
        }
    }
    for file in ["/etc/crontab", "/etc/anacrontab", "/etc/rc.d/rc.local", "/etc/rc.local"] {
        let path = ctx.paths.at(file);
        if files::stat(&path)?.is_some_and(|info| info.kind == FileKind::File) {
            move_aside(ctx, &path, "cron")?;
        }
    }
    Ok(())
}

/// `SID:HOME:Y` becomes `N`: dbstart passes it by.
fn oratab(ctx: &mut Context<'_>) -> Result<(), StepError> {
    let path = ctx.paths.oratab();
    let Some(bytes) = files::read(&path)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let quiet = without_autostart(&text);
    if quiet == text {
        return Ok(());
    }
    let copy = files::copy_into(&path, &kept(ctx))?;
    ctx.intend(Subject::Host, "oratab without autostart", json!(copy))?;
    let digest = files::replace(&path, quiet.as_bytes(), Some(Digest::of(&bytes)))?;
    ctx.observed(Subject::Host, "oratab without autostart", json!({ "sha256": digest }))
}

fn without_autostart(text: &str) -> String {
    let line = |line: &str| -> String {
        let (live, comment) = line.find('#').map_or((line, ""), |at| line.split_at(at));
        let trimmed = live.trim_end();
        match trimmed.strip_suffix(['Y', 'y', 'W', 'w']).filter(|rest| rest.ends_with(':')) {
            Some(rest) => format!("{rest}N{}{comment}", &live[trimmed.len()..]),
            None => line.to_owned(),
        }
    };
    let mut quiet: String = text.lines().map(|text| line(text) + "\n").collect();
    if !text.ends_with('\n') {
        quiet.pop();
    }
    quiet
}

fn homes(places: &[Place]) -> Vec<String> {
    places.iter().map(|place| place.home.trim_end_matches('/').to_owned()).collect()
}

fn speaks_of_oracle(text: &str, homes: &[String]) -> bool {
    live(text).any(|line| {
        let lower = line.to_ascii_lowercase();
        let named = homes.iter().any(|home| line.contains(home.as_str()));
        named || ["dbstart", "lsnrctl", "tnslsnr", "srvctl", "sqlplus"].iter().any(|word| lower.contains(word))
    })
}

fn live(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']))
}

/// It, or a script that it names.
fn starts_oracle(ctx: &Context<'_>, text: &str, homes: &[String]) -> bool {
    let named = live(text).flat_map(|line| line.split(|c: char| c.is_whitespace() || "=\"';:&|<>()".contains(c)));
    speaks_of_oracle(text, homes)
        || named.filter(|word| word.starts_with('/') && !word.starts_with("/usr/bin/")).any(|word| {
            let path = ctx.paths.at(word);
            let small = std::fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= 1 << 20);
            small && std::fs::read(&path).is_ok_and(|bytes| speaks_of_oracle(&String::from_utf8_lossy(&bytes), homes))
        })
}

/// Plain files of a directory with their text; links and what is large are none.
fn texts(dir: &Path) -> Vec<(PathBuf, String)> {
    let infos = files::list(dir).ok().flatten().unwrap_or_default();
    infos
        .into_iter()
        .filter(|info| info.kind == FileKind::File && info.size <= 1 << 20)
        .filter_map(|info| Some((info.path.clone(), String::from_utf8_lossy(&std::fs::read(&info.path).ok()?).into_owned())))
        .collect()
}

/// What brings our orders; without it nobody hears how the drill ended.
fn is_agent(name: &str) -> bool {
    name.contains("amazon-ssm-agent")
}

/// A unit is masked: its name leads to `/dev/null`, whichever directory it came from, and an init script goes by the same name.
/// All that the host's people wrote themselves; of what packages brought, what speaks of Oracle or runs what does.
fn units(ctx: &mut Context<'_>, places: &[Place]) -> Result<(), StepError> {
    let homes = homes(places);
    let own = ctx.paths.at("/etc/systemd/system");
    let mut names = BTreeSet::new();
    for dir in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/etc/init.d"] {
        for (path, text) in texts(&ctx.paths.at(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let script = dir == "/etc/init.d";
            let unit = [".service", ".timer", ".path", ".socket"].iter().any(|kind| name.ends_with(kind));
            let local = dir == "/etc/systemd/system";
            if !(unit || script) || is_agent(name) || !(local || starts_oracle(ctx, &text, &homes)) {
                continue;
            }
            names.insert(if script { format!("{name}.service") } else { name.to_owned() });
        }
    }
    let found: Vec<String> = names.into_iter().collect();
    if found.is_empty() {
        return Ok(());
    }
    let failed = |name: &str, error: std::io::Error| not_quiet(format!("unit `{name}` cannot be masked: {error}"));
    for name in &found {
        let path = own.join(name);
        match std::fs::read_link(&path) {
            Ok(to) if to == Path::new("/dev/null") => continue,
            Ok(_) => std::fs::remove_file(&path).map_err(|error| failed(name, error))?,
            Err(_) if path.is_file() => move_aside(ctx, &path, "units")?,
            Err(_) => {}
        }
        files::make_dir(&own, 0o755)?;
        ctx.intend(Subject::Host, "mask", json!({ "unit": name }))?;
        std::os::unix::fs::symlink("/dev/null", &path).map_err(|error| failed(name, error))?;
    }
    if ctx.paths.at("/run/systemd/system").is_dir() {
        // Not stopped: what a unit does to stop a database may hang, and it is ended by force right after.
        for words in
            [vec!["daemon-reload"], [vec!["kill", "--signal=SIGKILL"], found.iter().map(String::as_str).collect()].concat()]
        {
            let mut program = Program::new("/usr/bin/systemctl", Duration::from_secs(60)).login();
            for word in words {
                program = program.arg(word);
            }
            let output = Owner::root(ctx.paths).run(&program, &[])?;
            ctx.observed(Subject::Host, "systemctl", json!({ "ended": format!("{:?}", output.ended) }))?;
        }
    }
    Ok(())
}

/// Ends processes and waits for it; asks first and then does not ask.
fn end(
    ctx: &mut Context<'_>,
    what: &str,
    mut pids: impl FnMut(&Context<'_>) -> Result<Vec<u32>, StepError>,
) -> Result<(), StepError> {
    use nix::sys::signal::{Signal, kill};
    for (signal, wait) in [(Signal::SIGTERM, Duration::from_secs(10)), (Signal::SIGKILL, Duration::from_secs(30))] {
        let found = pids(ctx)?;
        if found.is_empty() {
            return Ok(());
        }
        ctx.intend(Subject::Host, "end", json!({ "what": what, "pids": found, "signal": signal.as_str() }))?;
        for pid in found {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(nix::unistd::Pid::from_raw(pid), signal);
            }
        }
        let deadline = ctx.clock.monotonic() + wait;
        while ctx.clock.monotonic() < deadline && !pids(ctx)?.is_empty() {
            ctx.clock.pause(Duration::from_millis(100));
        }
    }
    match pids(ctx)?.first() {
        None => Ok(()),
        Some(pid) => Err(not_quiet(format!("{what}: process {pid} does not end"))),
    }
}

fn listeners(ctx: &mut Context<'_>) -> Result<(), StepError> {
    end(ctx, "listener", |ctx| {
        let procs = ctx.procs();
        let unreadable = |error: std::io::Error| not_quiet(format!("processes cannot be read: {error}"));
        let is = |pid: &u32| {
            let program = procs.command(*pid).and_then(|line| line.split(' ').next().map(str::to_owned)).unwrap_or_default();
            Path::new(&program).file_name().is_some_and(|name| name == "tnslsnr")
        };
        Ok(procs.pids().map_err(unreadable)?.into_iter().filter(is).collect())
    })
}

fn pmon_of(ctx: &Context<'_>, sid: &Sid) -> Result<Option<crate::procs::Pmon>, StepError> {
    ctx.procs().pmon(sid).map_err(|error| not_quiet(format!("processes cannot be read: {error}")).of(sid))
}

/// An instance that a boot has started is ended by force: it is a copy, and its recovery is what the drill wants to see. How it
/// was started is remembered, or looked up in what came along from the source.
pub fn down(ctx: &mut Context<'_>, place: &Place) -> Result<(), StepError> {
    let sid = place.sid.clone();
    let running = pmon_of(ctx, &sid)?;
    if ctx.recall(&subject(&sid), "pmon").is_none()
        && let Some(pmon) = running.clone().or_else(|| drill::pmon_of_source(ctx.paths, &sid))
    {
        ctx.remember(subject(&sid), "pmon", serde_json::to_value(pmon).expect("plain data serialises"))?;
    }
    if running.is_none() {
        return Ok(());
    }
    ctx.intend(subject(&sid), "shutdown abort", json!({}))?;
    let asked = super::common::db(ctx, &sid).and_then(|db| {
        let mut s = db.connect().map_err(|error| super::common::failed(&sid, error))?;
        let answer = s.command("SHUTDOWN ABORT", db.limits.query).map_err(|error| super::common::failed(&sid, error))?;
        s.close();
        Ok(answer.codes())
    });
    let said = asked.map_or_else(|error| json!(error.message), |codes| json!(codes));
    ctx.observed(subject(&sid), "shutdown abort", json!({ "said": said }))?;
    let name = format!("instance {sid}");
    // One that does not answer loses its pmon, and everything else of it ends after that.
    let deadline = ctx.clock.monotonic() + Duration::from_secs(30);
    while ctx.clock.monotonic() < deadline && pmon_of(ctx, &sid)?.is_some() {
        ctx.clock.pause(Duration::from_millis(100));
    }
    end(ctx, &name, |ctx| Ok(pmon_of(ctx, &sid)?.map(|pmon| pmon.pid).into_iter().collect()))
}

/// Every database with the environment that its pmon had: where `sqlnet.ora` lies is known from nothing else.
pub fn at_rest(ctx: &Context<'_>) -> Result<Vec<Place>, StepError> {
    let mut places = all_places(ctx)?;
    for place in places.iter_mut().filter(|place| place.pmon.is_none()) {
        place.pmon = ctx.recall(&subject(&place.sid), "pmon").and_then(|value| serde_json::from_value(value).ok());
    }
    Ok(places)
}

/// Directories of a database that may hold keystores: what is configured, WALLET_ROOT with what is below it, where an HSM's
/// password may lie outside of it, and what the home and ORACLE_BASE have by default.
fn keystore_dirs(ctx: &Context<'_>, place: &Place, places: &[Place]) -> Result<(Db, Vec<PathBuf>), StepError> {
    let db = Db::new(ctx.paths, place.clone())?;
    let keystore = survey::keystore(&db, None, places);
    let mut dirs: Vec<PathBuf> = Vec::new();
    let unique = survey::unique_name(&db);
    dirs.extend(survey::keystore_dir(&keystore, &db.place, unique.as_deref(), places).map(PathBuf::from));
    // Every root that stands in its parameter files, be it overridden or not; one that cannot be read has no keystore that is
    // known, and is not started.
    let parameters = ParameterFiles::of(&db).ok().flatten();
    let named = |name: &str| -> Vec<PathBuf> {
        let values = parameters.iter().flat_map(|found| found.values(name));
        values.filter(|value| value.starts_with('/')).map(PathBuf::from).collect()
    };
    let mut files = db.owner.files()?;
    let mut todo: Vec<(PathBuf, u8)> = named("wallet_root").into_iter().map(|root| (root, 0)).collect();
    while let Some((dir, depth)) = todo.pop() {
        for info in files.list(&dir)?.unwrap_or_default() {
            let ours = info.path.file_name().is_some_and(|name| name == "tde2hsm");
            if info.kind == FileKind::Directory && depth < 3 && !ours {
                todo.push((info.path, depth + 1));
            }
        }
        dirs.push(dir);
    }
    dirs.extend(named("external_keystore_credential_location"));
    if let Some(base) = db.place.base() {
        dirs.push(PathBuf::from(format!("{base}/admin/{}/wallet", place.sid)));
    }
    dirs.push(PathBuf::from(db.place.tns_admin()));
    dirs.sort();
    dirs.dedup();
    Ok((db, dirs))
}

/// Every `cwallet.sso` goes: one may hold the password of production's HSM (H12, H44).
pub fn auto_login_aside(ctx: &mut Context<'_>, place: &Place, places: &[Place]) -> Result<(), StepError> {
    let (db, dirs) = keystore_dirs(ctx, place, places)?;
    let mut files = db.owner.files()?;
    for dir in dirs {
        let path = dir.join(SSO);
        if files.stat(&path)?.is_some() {
            let to = beside(ctx, &dir);
            ctx.intend(subject(&place.sid), "move auto-login aside", json!({ "file": path, "to": to }))?;
            let moved = files.move_into(&path, &to)?;
            ctx.observed(subject(&place.sid), "move auto-login aside", json!(moved))?;
        }
    }
    Ok(())
}

/// The CloudHSM client of the copy, told of the restored cluster and of nothing else.
fn client(ctx: &mut Context<'_>, places: &[Place]) -> Result<(), StepError> {
    let (_, target) = ordered(ctx)?;
    let packages = ctx.packages();
    if ctx.recall(&Subject::Host, "former-hsms").is_none() {
        let former = packages.servers()?.unwrap_or_default();
        ctx.remember(Subject::Host, "former-hsms", json!(former))?;
        packages.keep_configuration(&kept(ctx))?;
    }
    if !ctx.provider().is_swapped()? {
        let message = "the library in the provider tree is not the CloudHSM client's";
        return Err(StepError::new(Kind::Final, Code::DRILL_PROVIDER, message));
    }
    let first = places.first().map(|place| Owner::of_home(ctx.paths, &place.home)).transpose()?;
    let owner = first.ok_or_else(|| StepError::new(Kind::Final, Code::DATABASE_UNKNOWN, "the copy has no database"))?;
    ctx.intend(Subject::Host, "configure the client", json!({ "cluster": target.cluster, "hsms": target.hsms }))?;
    let result = packages.point_to(&target, &owner);
    ctx.observed(Subject::Host, "configure the client", json!({ "ok": result.is_ok() }))?;
    result.map_err(|error| StepError::new(Kind::Retriable, Code::DRILL_CONFIGURATION, error.to_string()).caused_by(error))?;
    names_only(&packages.servers()?, &target)
}

fn names_only(servers: &Option<Vec<String>>, target: &Target) -> Result<(), StepError> {
    let wrong = |message: String| Err(StepError::new(Kind::Final, Code::DRILL_CONFIGURATION, message));
    let Some(servers) = servers else { return wrong("the client's configuration cannot be read".to_owned()) };
    let strange = |text: &&String| !text.parse().is_ok_and(|ip: std::net::IpAddr| target.hsms.contains(&ip));
    match servers.iter().find(strange) {
        Some(other) => wrong(format!("the client's configuration names `{other}`, which is not of {}", target.cluster)),
        None if servers.is_empty() => wrong("the client's configuration names no HSM".to_owned()),
        None => Ok(()),
    }
}

/// Nothing of production answers (H44).
fn unreachable(ctx: &mut Context<'_>) -> Result<(), StepError> {
    let (drill, target) = ordered(ctx)?;
    let former = ctx.recall(&Subject::Host, "former-hsms").and_then(|value| serde_json::from_value(value).ok());
    let former: Vec<String> = former.unwrap_or_default();
    let addresses = drill::forbidden(&drill, &target, &former);
    let reached = drill::reachable(&addresses);
    ctx.observed(Subject::Host, "addresses that must not answer", json!({ "tried": addresses, "answered": reached }))?;
    match reached.first() {
        None => Ok(()),
        Some(address) => {
            let more = if reached.len() > 1 { format!(" and {} more", reached.len() - 1) } else { String::new() };
            let message = format!("{address}{more} can be reached from the host");
            Err(StepError::new(Kind::Final, Code::DRILL_REACHES_PRODUCTION, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::{ClusterId, KeyAvailabilityCheck};

    #[test]
    fn h44_oratab_keeps_everything_but_the_autostart() {
        let text =
            "# Y\nFIN:/u01/app/oracle/product/19.0.0/dbhome_1:Y\nHR:/u01/b:W  # main:Y\n+ASM:/u01/grid:N\n*:/u01/x:y\nbad Y\n";
        let quiet =
            "# Y\nFIN:/u01/app/oracle/product/19.0.0/dbhome_1:N\nHR:/u01/b:N  # main:Y\n+ASM:/u01/grid:N\n*:/u01/x:N\nbad Y\n";
        assert_eq!(without_autostart(text), quiet);
        assert_eq!(without_autostart(quiet), quiet);
        assert_eq!(without_autostart("A:/b:Y"), "A:/b:N");
    }

    #[test]
    fn h44_whatever_starts_something_of_oracle_is_found() {
        let homes = ["/u01/app/oracle/product/19.0.0/dbhome_1".to_owned()];
        for starts in [
            "ExecStart=/home/oracle/dbstart.sh",
            "ExecStart=/u01/app/oracle/product/19.0.0/dbhome_1/bin/lsnrctl start",
            "*/5 * * * * oracle /u01/app/oracle/product/19.0.0/dbhome_1/rman.sh",
            "0 1 * * * sqlplus / as sysdba @job",
        ] {
            assert!(speaks_of_oracle(starts, &homes), "{starts}");
        }
        assert!(!speaks_of_oracle("# dbstart\n; lsnrctl\nExecStart=/usr/sbin/sshd\n", &homes));
    }

    #[test]
    fn h44_a_configuration_with_any_other_address_is_refused() {
        let target = Target {
            cluster: ClusterId::new("cluster-abcdefghijk").unwrap(),
            hsms: vec!["10.9.0.5".parse().unwrap()],
            key_availability_check: KeyAvailabilityCheck::Off,
        };
        let of = |servers: &[&str]| names_only(&Some(servers.iter().map(|s| (*s).to_owned()).collect()), &target);
        assert!(of(&["10.9.0.5"]).is_ok());
        for wrong in [&["10.9.0.5", "10.0.1.5"][..], &["hsm.example"], &[]] {
            assert_eq!(of(wrong).map_err(|error| error.code), Err(Code::DRILL_CONFIGURATION), "{wrong:?}");
        }
        assert!(names_only(&None, &target).is_err());
    }
}
