//! The truth beside the verdicts.

use crate::cloud::{Inner, copies_of};
use crate::estate::{HOSTS, PER_HOST};
use crate::schedule::{TrueSet, Year};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tde2hsm_dr::points::{Judge, Opening, Point, SecretRole, Unknown, Verdict};
use tde2hsm_dr_driver::world::Asker;
use tde2hsm_dr_driver::{Job, Outcome};
use tde2hsm_model::Millis;
use tde2hsm_model::truth::{self, Frozen, Mounted, Refusal, Token};
use tde2hsm_protocol::Timestamp;

/// What has been said and what was found.
#[derive(Default)]
pub struct Judging {
    pub wrong: Vec<String>,
    audits: u32,
    opens: u64,
    does_not: u64,
    /// Not proven, and the truth opens or does not.
    not_proven: [u64; 2],
    /// Points that truly open.
    truly: u64,
    causes: BTreeMap<String, u64>,
    unknowns: BTreeMap<String, u64>,
    /// Nothing of a disk changes after it was frozen, so MOUNT is done once.
    mounted: HashMap<(String, u8, String), Arc<Result<Mounted, Refusal>>>,
    kept: u64,
    /// Databases in breach, and how many messages were looked at.
    breached: BTreeMap<String, bool>,
    heard: usize,
    breaches: u64,
    predicted: u64,
    /// What jobs said, by code, and questions that went unanswered.
    said: BTreeMap<String, u64>,
    unasked: u64,
    blind_audit: bool,
}

impl Judging {
    pub fn said(&mut self, job: Job, outcome: &Outcome) {
        for message in &outcome.messages {
            *self.said.entry(message.code.to_string()).or_default() += 1;
        }
        self.unasked += outcome.unasked.len() as u64;
        if job == Job::AuditRecovery {
            self.blind_audit = !outcome.unasked.is_empty();
        }
    }

    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            ("audits".to_owned(), self.audits.to_string()),
            ("verdicts: opens".to_owned(), self.opens.to_string()),
            ("verdicts: does not open".to_owned(), self.does_not.to_string()),
            ("verdicts: not proven, and opens".to_owned(), self.not_proven[0].to_string()),
            ("verdicts: not proven, and does not open".to_owned(), self.not_proven[1].to_string()),
            ("last good points that stayed".to_owned(), self.kept.to_string()),
        ];
        rows.extend(self.causes.iter().map(|(code, n)| (format!("  cause {code}"), n.to_string())));
        rows.extend(self.unknowns.iter().map(|(code, n)| (format!("  unknown {code}"), n.to_string())));
        rows.extend(self.said.iter().map(|(code, n)| (format!("  said {code}"), n.to_string())));
        rows.push(("questions without an answer".to_owned(), self.unasked.to_string()));
        rows.push(("breaches".to_owned(), self.breaches.to_string()));
        rows.push(("breaches predicted".to_owned(), self.predicted.to_string()));
        rows
    }

    fn accuse(&mut self, what: String) {
        if self.wrong.len() < 40 {
            self.wrong.push(what);
        }
    }
}

/// What the second region has, whatever anybody says of it.
struct There {
    tokens: Vec<Arc<Token>>,
    pins: Vec<String>,
    passwords: Vec<String>,
}

fn region(inner: &Inner) -> &tde2hsm_model::RegionState {
    let region = tde2hsm_model::Region::new(inner.dr.as_str());
    inner.world.region(&region).expect("a region")
}

fn there(inner: &Inner) -> There {
    let dr = region(inner);
    let texts = |name: &str| dr.secrets.readable(name).into_iter().map(|(_, text)| text).collect();
    let mut tokens: Vec<Arc<Token>> = Vec::new();
    for (id, token) in &inner.tokens {
        if dr.hsm.backup_state(id) == Some("READY") && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    There { tokens, pins: texts("tde/cu"), passwords: texts("tde/keystore") }
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A copy's content, if a volume can be made of it now.
fn restorable(inner: &Inner, copy: &str) -> Option<Frozen> {
    let dr = region(inner);
    let snapshot = dr.ec2.snapshots.get(copy)?;
    let ready = snapshot.state == tde2hsm_model::ec2::SnapshotState::Completed && !snapshot.archived;
    let key = snapshot.kms_key.as_ref().is_none_or(|key| dr.kms.usable(key));
    if ready && key { inner.frozen.get(copy).cloned() } else { None }
}

/// Whatever of a set can be restored, by copies of anybody.
fn restore(inner: &Inner, set: &TrueSet) -> (Vec<Frozen>, u8) {
    let mut volumes = Vec::new();
    let mut mask = 0;
    for (n, (source, _)) in set.parts.iter().enumerate() {
        let copies: Vec<String> = copies_of(&inner.world, &inner.dr, source).map(|s| s.id.clone()).collect();
        if let Some(volume) = copies.iter().find_map(|copy| restorable(inner, copy)) {
            volumes.push(volume);
            mask |= 1 << n;
        }
    }
    (volumes, mask)
}

impl Judging {
    fn mount(&mut self, set: &TrueSet, volumes: &[Frozen], mask: u8, sid: &str) -> Arc<Result<Mounted, Refusal>> {
        let key = (set.parts[0].0.clone(), mask, sid.to_owned());
        self.mounted.entry(key).or_insert_with(|| Arc::new(truth::mount(volumes, sid))).clone()
    }

    /// Whether a database opens at all with anything there is.
    fn opens(
        &mut self,
        inner: &Inner,
        there: &There,
        set: &TrueSet,
        restored: &(Vec<Frozen>, u8),
        sid: &str,
    ) -> Result<(), Refusal> {
        let _ = inner;
        let mounted = self.mount(set, &restored.0, restored.1, sid);
        let mounted = mounted.as_ref().as_ref().map_err(Clone::clone)?;
        let (pins, passwords) = (refs(&there.pins), refs(&there.passwords));
        let mut last = mounted.open(None, &pins, &passwords);
        for token in &there.tokens {
            if last.is_ok() {
                break;
            }
            last = mounted.open(Some(token), &pins, &passwords);
        }
        last
    }

    /// Whether it opens with exactly the parts that a verdict names.
    fn opens_with(&mut self, inner: &Inner, set: &TrueSet, sid: &str, opening: &Opening) -> Result<(), String> {
        let dr = region(inner);
        let mut volumes = Vec::new();
        let mut mask = 0;
        for snapshot in &opening.snapshots {
            let volume = restorable(inner, snapshot.as_str()).ok_or_else(|| format!("{snapshot} cannot be restored"))?;
            let part = set
                .parts
                .iter()
                .position(|(_, v)| *v == volume.volume)
                .ok_or_else(|| format!("{snapshot} is of another host"))?;
            mask |= 1 << part;
            volumes.push(volume);
        }
        let token = match &opening.backup {
            None => None,
            Some(choice) if dr.hsm.backup_state(choice.id.as_str()) != Some("READY") => {
                return Err(format!("{} is not READY", choice.id));
            }
            Some(choice) => inner.tokens.get(choice.id.as_str()),
        };
        let mut texts: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        for (role, secret) in &opening.secrets {
            let readable = dr.secrets.readable(secret.arn.as_str());
            let text = readable.into_iter().find(|(version, _)| version == secret.version.as_str());
            let (_, text) = text.ok_or_else(|| format!("{} is not there in version {}", secret.arn, secret.version))?;
            texts[usize::from(*role == SecretRole::Keystore)].push(text);
        }
        let mounted = self.mount(set, &volumes, mask, sid);
        let mounted = mounted.as_ref().as_ref().map_err(ToString::to_string)?;
        mounted.open(token.map(Arc::as_ref), &refs(&texts[0]), &refs(&texts[1])).map_err(|e| e.to_string())
    }
}

fn describe(point: &Point, sid: &str, now: Millis) -> String {
    let age = (now.0 / 1000 - point.taken.0) / 3600;
    format!("{sid} of {} at {} ({age} h ago)", point.instance, Millis(point.taken.0 * 1000).iso_secs())
}

impl Year {
    fn points(&mut self) -> Vec<Point> {
        let now = Timestamp(self.cloud.inner().now.0 / 1000);
        self.cloud.inner().function = Job::AuditRecovery.name().to_owned();
        let armed = std::mem::take(&mut self.cloud.inner().world.faults);
        let mut asker = Asker { now, config: &self.config, cloud: &self.cloud, outcome: Outcome::new(Job::AuditRecovery, now) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let world = runtime.block_on(asker.world()).expect("the records can be read");
        self.cloud.inner().world.faults = armed;
        let judge = Judge::new(&world.common);
        world.hosts.iter().flat_map(|host| judge.host(host)).collect()
    }

    /// Every verdict of every point against the truth.
    pub fn audit(&mut self) {
        let points = self.points();
        self.alarms(&points);
        let inner = self.cloud.inner();
        let there = there(&inner);
        let now = inner.now;
        let judging = &mut self.judging;
        judging.audits += 1;
        let by_part: HashMap<&str, usize> =
            self.sets.iter().enumerate().flat_map(|(n, set)| set.parts.iter().map(move |(part, _)| (part.as_str(), n))).collect();
        for point in &points {
            let Some(set) = point.parts.iter().find_map(|part| by_part.get(part.source.as_str())).map(|n| &self.sets[*n]) else {
                judging.accuse(format!("nobody ever took the set {:?}", point.set));
                continue;
            };
            let restored = restore(&inner, set);
            for database in &point.databases {
                let sid = database.sid.as_str();
                let truly = judging.opens(&inner, &there, set, &restored, sid);
                judging.truly += u64::from(truly.is_ok());
                match &database.verdict {
                    Verdict::Opens(opening) => {
                        judging.opens += 1;
                        if let Err(why) = judging.opens_with(&inner, set, sid, opening) {
                            judging.accuse(format!("{} is said to open and does not: {why}", describe(point, sid, now)));
                        }
                    }
                    Verdict::DoesNotOpen { causes, .. } => {
                        judging.does_not += 1;
                        for cause in causes {
                            *judging.causes.entry(cause.code().to_string()).or_default() += 1;
                        }
                        if truly.is_ok() {
                            let said: Vec<String> = causes.iter().map(ToString::to_string).collect();
                            judging.accuse(format!(
                                "{} opens, and is said not to: {}",
                                describe(point, sid, now),
                                said.join("; ")
                            ));
                        }
                    }
                    Verdict::NotProven { unknowns } => {
                        judging.not_proven[usize::from(truly.is_err())] += 1;
                        for unknown in unknowns {
                            *judging.unknowns.entry(unknown.code().to_string()).or_default() += 1;
                            if let Err(why) = missing(&inner, point, unknown) {
                                judging.accuse(format!(
                                    "{} is not proven for no reason: {unknown}: {why}",
                                    describe(point, sid, now)
                                ));
                            }
                        }
                        if unknowns.is_empty() {
                            judging.accuse(format!("{} is not proven, and nothing is named", describe(point, sid, now)));
                        }
                    }
                }
            }
        }
    }

    /// Every breach is told once when it begins, and its end once. A breach is reckoned here from the verdicts, which were
    /// held against the truth.
    fn alarms(&mut self, points: &[Point]) {
        let inner = self.cloud.inner();
        let now = inner.now.0 / 1000;
        let messages = region(&inner).sns.published();
        let judging = &mut self.judging;
        let new: Vec<&str> = messages[judging.heard..].iter().map(|m| m.subject.as_str()).collect();
        judging.heard = messages.len();
        judging.predicted += new.iter().filter(|subject| subject.contains("will be breached")).count() as u64;
        let mut newest: BTreeMap<String, Option<i64>> = BTreeMap::new();
        for point in points {
            for database in &point.databases {
                let at = newest.entry(format!("{} on {}", database.sid, point.instance)).or_default();
                if database.verdict.opens().is_some() {
                    *at = (*at).max(Some(point.taken.0));
                }
            }
        }
        let blind = judging.blind_audit;
        for (name, at) in newest {
            let breached = at.is_none_or(|at| now - at > crate::schedule::RPO_HOURS * 3_600);
            let heard = |what: &str| new.iter().filter(|subject| subject.contains(&format!("{what}: {name}"))).count();
            let (begun, over) = (heard("RPO breached"), heard("RPO kept again"));
            let before = judging.breached.insert(name.clone(), breached).unwrap_or(false);
            judging.breaches += u64::from(breached && !before);
            let expected = (usize::from(breached && !before), usize::from(!breached && before));
            if blind && (begun, over) == (0, 0) {
                // It could not see, and said nothing: the next one must.
                judging.breached.insert(name, before);
            } else if begun != expected.0 || over > 1 || over < expected.1 {
                judging.accuse(format!(
                    "{name} at {now}: in breach {before}, then {breached}; told {begun} times that it began and {over} that it is over"
                ));
            }
        }
    }

    /// The newest set of each database that opens, by the truth alone.
    pub fn newest_that_open(&mut self) -> BTreeMap<String, usize> {
        let inner = self.cloud.inner();
        let there = there(&inner);
        let mut newest = BTreeMap::new();
        for host in 0..HOSTS {
            let mut lacking: Vec<String> = inner.hosts[host].databases.iter().map(|d| d.sid.clone()).collect();
            for (n, set) in self.sets.iter().enumerate().rev().filter(|(_, set)| set.host == host) {
                if lacking.is_empty() || inner.now.since(set.at) > 200 * crate::schedule::DAY {
                    break;
                }
                let restored = restore(&inner, set);
                if restored.0.is_empty() {
                    continue;
                }
                lacking.retain(|sid| {
                    let opens = self.judging.opens(&inner, &there, set, &restored, sid).is_ok();
                    if opens {
                        newest.insert(sid.clone(), n);
                    }
                    !opens
                });
            }
        }
        newest
    }

    /// None of them was lost.
    pub fn still_open(&mut self, before: &BTreeMap<String, usize>) {
        let inner = self.cloud.inner();
        let there = there(&inner);
        for (sid, n) in before {
            let set = &self.sets[*n];
            let restored = restore(&inner, set);
            match self.judging.opens(&inner, &there, set, &restored, sid) {
                Ok(()) => self.judging.kept += 1,
                Err(why) => self.judging.accuse(format!("the last good point of {sid}, of {}, was lost: {why}", set.at.iso())),
            }
        }
    }

    /// The year was one in which something could have gone wrong, and verdicts said something.
    pub fn suffices(&self) {
        let judging = &self.judging;
        let databases = (HOSTS * PER_HOST) as u64;
        assert!(judging.opens > 10 * databases, "hardly anything was said to open");
        assert!(
            judging.opens * 10 >= judging.truly * 7,
            "of {} points that open only {} were proven to",
            judging.truly,
            judging.opens
        );
    }
}

/// That what is said to be unknown is not known.
fn missing(inner: &Inner, point: &Point, unknown: &Unknown) -> Result<(), String> {
    let prefix = format!("inventories/{}/", point.instance);
    let times = || {
        let keys = inner.keys(&prefix);
        keys.iter().filter_map(|key| key[prefix.len()..].trim_end_matches(".json").parse::<i64>().ok()).collect::<Vec<i64>>()
    };
    match unknown {
        Unknown::NoInventoryBefore => match times().iter().any(|at| *at < point.taken.0 - 900) {
            true => Err("there is one".into()),
            false => Ok(()),
        },
        Unknown::NoInventoryAfter => match times().iter().any(|at| *at > point.taken.0 + 900) {
            true => Err("there is one".into()),
            false => Ok(()),
        },
        _ => Ok(()),
    }
}
