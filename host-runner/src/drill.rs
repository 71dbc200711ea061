//! Whether this host may be drilled on, and the runner's own directory on a host that is a copy (H44).
//!
//! The segment `drill` stops databases by force and takes their keystores away, so whoever may send an order must not
//! thereby be able to send it to production. An order says nothing that is believed here: account, region and instance come
//! from the metadata service as ever, and the same service must say that AWS knows the instance as made for this drill. Until
//! then nothing on the host is touched.
//!
//! A copy brings the source's journal along, with the hold of whichever campaign was at work there. That is another host's
//! story: it is set aside whole, by a rename, before anything of this one is written.

use crate::files::{self, FileError};
use crate::identity::Identity;
use crate::journal::{Entries, Event, Journal, Subject};
use crate::lock::{Holder, Lock};
use crate::paths::Paths;
use crate::procs::Pmon;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;
use tde2hsm_protocol::{Code, Direction, Drill, DrillId, InstanceId, Order, Segment, Sid, Target, Work};

/// The tag that everything a drill makes carries.
pub const TAG: &str = "tde2hsm:drill";

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

fn refused<T>(code: Code, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Refusal {
        Refusal { code: error.code(), message: error.to_string() }
    }
}

/// The parts that an order for a drill has.
#[derive(Debug, Clone, Copy)]
pub struct Ordered<'a> {
    pub drill: &'a Drill,
    pub target: &'a Target,
}

/// The order's own shape. `None`: it is not one for a drill.
pub fn ordered(order: &Order) -> Result<Option<Ordered<'_>>, Refusal> {
    let Work::Run { segment, direction } = order.work else { return Ok(None) };
    match (segment, &order.drill) {
        (Segment::Drill, None) => refused(Code::DRILL_REFUSED, "the order does not say of what the host is a copy"),
        (Segment::Drill, Some(_)) if direction == Direction::Undo => {
            refused(Code::DRILL_NO_UNDO, "the host of a drill is thrown away, not undone")
        }
        (Segment::Drill, Some(drill)) => match order.target.as_ref().filter(|target| !target.hsms.is_empty()) {
            Some(target) => Ok(Some(Ordered { drill, target })),
            None => refused(Code::DRILL_REFUSED, "the order does not name the HSMs of a restored cluster"),
        },
        (_, None) => Ok(None),
        (segment, Some(_)) => refused(Code::DRILL_REFUSED, format!("the facts of a drill with the segment `{segment}`")),
    }
}

/// The host's own look at what it is. Changes nothing.
pub fn admit(order: &Order, identity: &Identity) -> Result<(), Refusal> {
    let Some(Ordered { drill, .. }) = ordered(order)? else { return Ok(()) };
    if identity.instance == drill.source {
        return refused(Code::DRILL_REFUSED, format!("{} is the source of the drill, not a copy of it", identity.instance));
    }
    if identity.region == drill.source_region {
        return refused(Code::DRILL_REFUSED, format!("the host is in {}, the region of the source", identity.region));
    }
    match identity.tag(TAG) {
        Ok(Some(id)) if id == drill.id.as_str() => Ok(()),
        Ok(Some(_)) => refused(Code::DRILL_REFUSED, format!("the instance was made for another drill than {}", drill.id)),
        Ok(None) => refused(Code::DRILL_REFUSED, format!("the metadata service shows no tag `{TAG}` of {}", identity.instance)),
        Err(error) => refused(Code::DRILL_REFUSED, format!("whether the instance carries `{TAG}` cannot be read: {error}")),
    }
}

/// The runner's directory belongs to this instance: written when it was begun anew.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    drill: DrillId,
    instance: InstanceId,
    /// Where the source's directory lies now.
    former: Option<PathBuf>,
}

fn marker(paths: &Paths) -> Result<Option<Marker>, FileError> {
    let bytes = files::read(&paths.state().join("drill.json"))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Sets the source's directory aside, once; the host has one of its own afterwards.
pub fn own_state(paths: &Paths, order: &Order, identity: &Identity) -> Result<(), Refusal> {
    let Some(Ordered { drill, .. }) = ordered(order)? else { return Ok(()) };
    let owned = || -> Result<bool, FileError> { Ok(marker(paths)?.is_some_and(|marker| marker.instance == identity.instance)) };
    if owned()? {
        return Ok(());
    }
    let state = paths.state();
    let io = |source: std::io::Error| Refusal {
        code: Code::FILE_WORK,
        message: format!("the runner's directory cannot be set aside: {source}"),
    };
    // Two deliveries decide one after the other.
    let beside = state.with_file_name(".tde2hsm-drill.lock");
    files::make_dir(state.parent().unwrap_or(&state), 0o755)?;
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(beside).map_err(io)?;
    let _one = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io(error.into()))?;
    if owned()? {
        return Ok(());
    }
    let mut former = None;
    if files::stat(&state)?.is_some() {
        // Its lock is the kernel's, and no process of the source runs here.
        if Lock::holder(paths).map_err(io)? != Holder::Nobody {
            return refused(Code::BUSY, "an operation is at work on the host");
        }
        let to = (0..100)
            .map(|n| match n {
                0 => state.with_file_name(format!("tde2hsm.of-{}", drill.source)),
                n => state.with_file_name(format!("tde2hsm.of-{}.{n}", drill.source)),
            })
            .find(|path| !path.exists());
        let Some(to) = to else { return refused(Code::FILE_WORK, "no name is free for the source's directory") };
        files::rename(&state, &to)?;
        former = Some(to);
    }
    files::make_dir(&state, 0o700)?;
    let marker = Marker { drill: drill.id.clone(), instance: identity.instance.clone(), former };
    let bytes = serde_json::to_vec(&marker).expect("plain data serialises");
    Ok(files::write_own(&state.join("drill.json"), &bytes, 0o600)?)
}

/// The environment that a database's pmon had on the source, by the journal that came with the copy: oratab does not know
/// TNS_ADMIN.
pub fn pmon_of_source(paths: &Paths, sid: &Sid) -> Option<Pmon> {
    let former = marker(paths).ok()??.former?;
    let entries: Entries = Journal::read(&former.join("journal")).ok()?;
    let wanted = Subject::Database(sid.clone());
    entries.all().iter().rev().find_map(|entry| match &entry.event {
        Event::Fact { subject, name, value } if *subject == wanted && name == "pmon" => {
            serde_json::from_value(value.clone()).ok()
        }
        _ => None,
    })
}

/// The client's port of an HSM (`A§8`, `O§6.2`).
const HSM_PORT: u16 = 2223;
/// How long an address may take to prove that it can be reached.
const REACH: Duration = Duration::from_secs(4);
/// Addresses that are tried at the same time.
const AT_ONCE: usize = 64;

/// What must not answer: what the order names, and the HSMs that the source's client was configured for. The restored
/// cluster may have been given an address that production has, too.
pub fn forbidden(drill: &Drill, target: &Target, former: &[String]) -> Vec<SocketAddr> {
    let of_client = former.iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, HSM_PORT));
    let mut all: Vec<SocketAddr> = drill.unreachable.iter().copied().chain(of_client).collect();
    all.retain(|address| !target.hsms.contains(&address.ip()));
    all.sort();
    all.dedup();
    all
}

/// Those that answer. A refused connection is an answer: a packet went there and came back.
pub fn reachable(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for some in addresses.chunks(AT_ONCE) {
        let tries: Vec<_> = some
            .iter()
            .map(|address| {
                let address = *address;
                (address, std::thread::spawn(move || answers(&address)))
            })
            .collect();
        // A try that died has shown nothing; taken for an answer it stops the drill, which is the safe side.
        found.extend(tries.into_iter().filter_map(|(address, thread)| thread.join().unwrap_or(true).then_some(address)));
    }
    found
}

fn answers(address: &SocketAddr) -> bool {
    match TcpStream::connect_timeout(address, REACH) {
        Ok(_) => true,
        Err(error) => matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionAborted
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::order;
    use crate::identity::tests::imds;
    use std::net::TcpListener;
    use tde2hsm_protocol::{CampaignId, ClusterId, Digest, Generation, KeyAvailabilityCheck, OrderToken, Region, Timestamp};

    fn drill_order() -> Order {
        let mut order = order(Segment::Drill, Direction::Do);
        order.drill = Some(Drill {
            id: DrillId::new("d-1").unwrap(),
            source: InstanceId::new("i-0fedcba9876543210").unwrap(),
            source_region: Region::new("eu-central-1").unwrap(),
            unreachable: Vec::new(),
        });
        order.target = Some(Target {
            cluster: ClusterId::new("cluster-abcdefghijk").unwrap(),
            hsms: vec!["10.9.0.5".parse().unwrap()],
            key_availability_check: KeyAvailabilityCheck::Off,
        });
        order
    }

    struct World {
        _dir: tempfile::TempDir,
        paths: Paths,
        identity: Identity,
    }

    fn world(tag: Option<&'static str>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let document = r#"{"accountId":"123456789012","region":"us-east-1","instanceId":"i-0123456789abcdef0"}"#;
        let mut answers = vec![("/latest/dynamic/instance-identity/document", document.into())];
        answers.extend(tag.map(|tag| ("/latest/meta-data/tags/instance/tde2hsm:drill", tag.into())));
        let imds = imds(answers);
        std::fs::create_dir_all(paths.endpoints().parent().unwrap()).unwrap();
        std::fs::write(paths.endpoints(), format!("imds = \"{imds}\"\n")).unwrap();
        let identity = Identity::read(&paths).unwrap();
        World { _dir: dir, paths, identity }
    }

    #[test]
    fn h44_only_a_host_that_aws_knows_as_made_for_the_drill_is_drilled_on() {
        let made = world(Some("d-1"));
        assert!(admit(&drill_order(), &made.identity).is_ok());
        let code = |change: &dyn Fn(&mut Order)| {
            let mut order = drill_order();
            change(&mut order);
            admit(&order, &made.identity).map_err(|refusal| refusal.code)
        };
        let drill = |change: &dyn Fn(&mut Drill)| code(&|order| change(order.drill.as_mut().unwrap()));
        let refused = Err(Code::DRILL_REFUSED);
        assert_eq!(drill(&|d| d.source = InstanceId::new("i-0123456789abcdef0").unwrap()), refused, "the source itself");
        assert_eq!(drill(&|d| d.source_region = Region::new("us-east-1").unwrap()), refused, "the source's region");
        assert_eq!(drill(&|d| d.id = DrillId::new("d-2").unwrap()), refused, "another drill");
        assert_eq!(code(&|order| order.drill = None), refused);
        assert_eq!(code(&|order| order.target = None), refused);
        assert_eq!(code(&|order| order.target.as_mut().unwrap().hsms.clear()), refused);
        let run = |segment, direction| Work::Run { segment, direction };
        assert_eq!(code(&|order| order.work = run(Segment::Cutover, Direction::Do)), refused, "its facts elsewhere");
        assert_eq!(code(&|order| order.work = run(Segment::Drill, Direction::Undo)), Err(Code::DRILL_NO_UNDO));
        assert_eq!(admit(&drill_order(), &world(None).identity).map_err(|refusal| refusal.code), refused, "no tag");
        assert!(admit(&order(Segment::Stage, Direction::Do), &world(None).identity).is_ok(), "a campaign's order");
    }

    #[test]
    fn h44_the_journal_of_the_source_is_set_aside_and_its_hold_with_it() {
        let world = world(Some("d-1"));
        let (paths, order) = (&world.paths, drill_order());
        let held = CampaignId::new("change-1").unwrap();
        let mut journal = Journal::open(&paths.journal()).unwrap();
        let accepted = Event::Accepted {
            plan: Digest::ZERO,
            generation: Generation(7),
            token: OrderToken::new("t-1").unwrap(),
            work: Work::Run { segment: Segment::Cutover, direction: Direction::Do },
            controller_head: Digest::ZERO,
        };
        journal.append(Timestamp(1), &held, None, accepted).unwrap();
        let sid = Sid::new("FIN").unwrap();
        let pmon = serde_json::json!({"pid": 7, "sid": "FIN", "uid": 1, "environ": [["TNS_ADMIN", "/etc/tns"]], "limits": [],
            "cgroup": "/", "started_at": 1, "exe": "/x"});
        let fact = Event::Fact { subject: Subject::Database(sid.clone()), name: "pmon".to_owned(), value: pmon };
        journal.append(Timestamp(2), &held, None, fact).unwrap();
        let before = std::fs::read(paths.journal().join("journal.jsonl")).unwrap();
        assert_eq!(Journal::read(&paths.journal()).unwrap().held_by(), Some(held));

        // The wrong host's stays where it is.
        let mut wrong = order.clone();
        wrong.drill = None;
        assert!(own_state(paths, &wrong, &world.identity).is_err());
        assert_eq!(std::fs::read(paths.journal().join("journal.jsonl")).unwrap(), before);

        own_state(paths, &order, &world.identity).unwrap();
        assert_eq!(Journal::read(&paths.journal()).unwrap().held_by(), None);
        let aside = paths.at("/var/lib/tde2hsm.of-i-0fedcba9876543210/journal/journal.jsonl");
        assert_eq!(std::fs::read(&aside).unwrap(), before, "renamed, not changed");
        assert_eq!(pmon_of_source(paths, &sid).unwrap().env("TNS_ADMIN"), Some("/etc/tns"));
        // A second order finds what the first began.
        std::fs::write(paths.state().join("mine"), "x").unwrap();
        own_state(paths, &order, &world.identity).unwrap();
        assert!(paths.state().join("mine").exists() && aside.exists());
        // A copy of a drill host is a copy again.
        let mut copy = world.identity.clone();
        copy.instance = InstanceId::new("i-00000000000000001").unwrap();
        own_state(paths, &order, &copy).unwrap();
        assert!(!paths.state().join("mine").exists());
        assert!(paths.at("/var/lib/tde2hsm.of-i-0fedcba9876543210.1/mine").exists());
    }

    #[test]
    fn h44_an_address_is_reached_even_where_it_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(reachable(&[open, closed]), [open, closed]);
        let order = drill_order();
        let (mut drill, target) = (order.drill.unwrap(), order.target.unwrap());
        drill.unreachable = vec!["10.9.0.5:2223".parse().unwrap(), "10.1.0.5:1792".parse().unwrap()];
        let all = forbidden(&drill, &target, &["10.1.0.7".to_owned(), "10.9.0.5".to_owned(), "hsm.example".to_owned()]);
        let wanted: Vec<SocketAddr> = vec!["10.1.0.5:1792".parse().unwrap(), "10.1.0.7:2223".parse().unwrap()];
        assert_eq!(all, wanted);
    }
}
