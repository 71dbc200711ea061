//! The truth beside the verdicts.

use crate::cloud::{Inner, copies_of};
use crate::estate::{HOSTS, PER_HOST};
use crate::reasons::{self, Case};
use crate::schedule::{Act, DAY, Gone, HOUR, MINUTE, RPO_HOURS, TrueSet, Year};
use crate::tally::KEYLESS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tde2hsm_dr::points::{Cause, Judge, Opening, Point, SecretRole, Unknown, Verdict};
use tde2hsm_dr_driver::world::Asker;
use tde2hsm_dr_driver::{Job, Outcome};
use tde2hsm_model::Millis;
use tde2hsm_model::truth::{self, Frozen, Key, Mounted, Refusal, Token};
use tde2hsm_protocol::Timestamp;

/// Volume and moment of all that is restored, and the database.
type Restored = (Vec<(String, Millis)>, String);

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
    mounted: HashMap<Restored, Arc<Result<Mounted, Refusal>>>,
    kept: u64,
    /// How many messages were looked at, and what they say of each database.
    heard: usize,
    told: BTreeMap<String, Told>,
    /// Databases that are in breach by the truth.
    broken: BTreeSet<String>,
    alarms: Alarms,
    /// What jobs said, by code, and questions that went unanswered.
    said: BTreeMap<String, u64>,
    unasked: u64,
    blind_audit: bool,
    /// Points that need a key that is gone from the HSM: said to open, and not proven.
    with_gone: [u64; 2],
    /// Of those, at each expiry, that still opened after it.
    kept_gone: u64,
}

/// What the truth says of a prediction when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foretold {
    /// If nothing changes no newer point opens in time.
    Sure,
    /// One opens already, and is not proven to.
    Unproven,
    /// One may.
    Open,
}

/// What messages say of a database.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    breached: bool,
    /// A prediction stands.
    predicted: bool,
    /// The newest point that was proven at the last audit that saw everything.
    seen: Option<i64>,
}

#[derive(Debug, Default)]
struct Alarms {
    /// By the truth alone.
    breaches: u64,
    told: u64,
    over: u64,
    /// Audits at which a database was called in breach, and opened with a point that was not proven.
    unproven: u64,
    predicted: u64,
    /// The truth says as well that it would come if nothing changed.
    predicted_truly: u64,
    /// At the hour that was foretold no newer point opened, or one did.
    came: u64,
    averted: u64,
    /// Of those: for want of proof.
    averted_unproven: u64,
    /// And those of which the truth had seen that they need not come.
    in_vain: u64,
    /// Audits at which the truth saw a breach ahead, and the product knew all that it takes to see it.
    ahead: u64,
}

impl Judging {
    pub fn said(&mut self, job: Job, outcome: &Outcome) {
        for message in &outcome.messages {
            *self.said.entry(message.code.to_string()).or_default() += 1;
        }
        self.unasked += outcome.unasked.len() as u64;
        if job == Job::AuditRecovery && !outcome.unasked.is_empty() && std::env::var("YEAR_ALARMS").is_ok() {
            eprintln!("{} audit not answered: {:?}", Millis(outcome.at.0 * 1_000).iso(), outcome.unasked);
        }
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
            ("of points whose key is gone: verdicts: opens".to_owned(), self.with_gone[0].to_string()),
            ("of points whose key is gone: verdicts: not proven".to_owned(), self.with_gone[1].to_string()),
            ("of points whose key is gone: stayed".to_owned(), self.kept_gone.to_string()),
        ];
        rows.extend(self.causes.iter().map(|(code, n)| (format!("  cause {code}"), n.to_string())));
        rows.extend(self.unknowns.iter().map(|(code, n)| (format!("  unknown {code}"), n.to_string())));
        rows.extend(self.said.iter().map(|(code, n)| (format!("  said {code}"), n.to_string())));
        rows.push(("questions without an answer".to_owned(), self.unasked.to_string()));
        let alarms = &self.alarms;
        for (name, n) in [
            ("breaches by the truth", alarms.breaches),
            ("breaches told", alarms.told),
            ("breaches told to be over", alarms.over),
            ("  audits in breach for want of proof alone", alarms.unproven),
            ("breaches predicted", alarms.predicted),
            ("  and sure to come, by the truth of that hour", alarms.predicted_truly),
            ("  came", alarms.came),
            ("  averted", alarms.averted),
            ("    for want of proof alone", alarms.averted_unproven),
            ("    and the truth had seen that they need not come", alarms.in_vain),
            ("audits at which the truth saw a breach ahead", alarms.ahead),
        ] {
            rows.push((name.to_owned(), n.to_string()));
        }
        rows
    }

    fn accuse(&mut self, what: String) {
        if self.wrong.len() < 40 && !self.wrong.contains(&what) {
            self.wrong.push(what);
        }
    }
}

/// What the second region has, whatever anybody says of it.
pub struct There {
    pub tokens: Vec<Arc<Token>>,
    pins: Vec<String>,
    passwords: Vec<String>,
    /// Versions without any stage, by secret.
    bare: BTreeSet<(&'static str, String)>,
}

impl There {
    pub fn bare(&self, secret: &'static str, version: &str) -> bool {
        self.bare.contains(&(secret, version.to_owned()))
    }
}

pub fn region(inner: &Inner) -> &tde2hsm_model::RegionState {
    let region = tde2hsm_model::Region::new(inner.dr.as_str());
    inner.world.region(&region).expect("a region")
}

fn there(inner: &mut Inner) -> There {
    let mut bare = BTreeSet::new();
    for name in ["tde/cu", "tde/keystore"] {
        let staged = inner.staged(name);
        let ids = region(inner).secrets.readable(name).into_iter().map(|(id, _)| id);
        bare.extend(ids.filter(|id| !staged.contains_key(id)).map(|id| (name, id)));
    }
    let texts = |name: &str| region(inner).secrets.readable(name).into_iter().map(|(_, text)| text).collect();
    There { tokens: tokens(inner), pins: texts("tde/cu"), passwords: texts("tde/keystore"), bare }
}

/// The same without what may be gone tomorrow: versions that have no stage.
fn lasting(inner: &mut Inner) -> There {
    let [pins, passwords] = ["tde/cu", "tde/keystore"].map(|name| inner.staged(name).into_values().collect());
    There { tokens: tokens(inner), pins, passwords, bare: BTreeSet::new() }
}

/// Content of the HSM backups that could be restored in the second region.
fn tokens(inner: &Inner) -> Vec<Arc<Token>> {
    let dr = region(inner);
    let mut tokens: Vec<Arc<Token>> = Vec::new();
    for (id, token) in &inner.tokens {
        if dr.hsm.backup_state(id) == Some("READY") && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    tokens
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A copy's content, if a volume can be made of it now.
pub fn restorable(inner: &Inner, copy: &str) -> Option<Frozen> {
    let dr = region(inner);
    let snapshot = dr.ec2.snapshots.get(copy)?;
    let ready = snapshot.state == tde2hsm_model::ec2::SnapshotState::Completed && !snapshot.archived;
    let key = snapshot.kms_key.as_ref().is_none_or(|key| dr.kms.usable(key));
    if ready && key { inner.frozen.get(copy).cloned() } else { None }
}

/// Whatever of a set can be restored, by copies of anybody.
fn restore(inner: &Inner, set: &TrueSet) -> Vec<Frozen> {
    let part = |(source, _): &(String, String)| {
        let copies: Vec<String> = copies_of(&inner.world, &inner.dr, source).map(|s| s.id.clone()).collect();
        copies.iter().find_map(|copy| restorable(inner, copy))
    };
    set.parts.iter().filter_map(part).collect()
}

/// The newest HSM backup that could be restored in the second region.
fn newest_token(inner: &Inner) -> Option<&Arc<Token>> {
    let dr = region(inner);
    let ready = inner.tokens.iter().filter(|(id, _)| dr.hsm.backup_state(id) == Some("READY"));
    ready
        .filter_map(|(id, token)| Some((dr.hsm.backup_created(id)?, token)))
        .max_by_key(|(created, _)| *created)
        .map(|(_, token)| token)
}

impl Judging {
    /// Keys that a database of a set needs.
    fn needs(&mut self, volumes: &[Frozen], sid: &str) -> BTreeSet<Key> {
        self.mount(volumes, sid).as_ref().as_ref().map(|mounted| mounted.needs.clone()).unwrap_or_default()
    }

    fn mount(&mut self, volumes: &[Frozen], sid: &str) -> Arc<Result<Mounted, Refusal>> {
        let mut restored: Vec<(String, Millis)> = volumes.iter().map(|v| (v.volume.clone(), v.at)).collect();
        restored.sort();
        self.mounted.entry((restored, sid.to_owned())).or_insert_with(|| Arc::new(truth::mount(volumes, sid))).clone()
    }

    /// Whether a database opens at all with anything there is.
    fn opens(&mut self, there: &There, volumes: &[Frozen], sid: &str) -> Result<(), Refusal> {
        let mounted = self.mount(volumes, sid);
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

    /// Whether it may open before `limit` if nothing changes: with copies in flight and still to be begun, with backups of
    /// either region and the next one. `sees_ends`: when a copy ends is known, which only the model knows.
    fn may_open(&mut self, inner: &Inner, there: &There, set: &TrueSet, sid: &str, limit: Millis, sees_ends: bool) -> bool {
        let dr = region(inner);
        if !dr.kms.usable(&inner.kms_key) {
            return false;
        }
        let source_region = tde2hsm_model::Region::new(inner.source.as_str());
        let east = inner.world.region(&source_region).expect("a region");
        let mut volumes = restore(inner, set);
        for (source, volume) in
            set.parts.iter().filter(|(_, volume)| !volumes.iter().any(|v| v.volume == *volume)).collect::<Vec<_>>()
        {
            let pending = tde2hsm_model::ec2::SnapshotState::Pending;
            let mut flying = dr
                .ec2
                .snapshots
                .all()
                .filter(|s| s.state == pending && s.origin.as_ref().is_some_and(|origin| origin.snapshot == *source));
            let late = flying.next().is_some_and(|copy| sees_ends && copy.due() > limit);
            let failed = east
                .ec2
                .snapshots
                .get(source)
                .is_none_or(|s| s.state == tde2hsm_model::ec2::SnapshotState::Error || s.volume != *volume);
            if !late && !failed {
                volumes.extend(inner.frozen.get(source).cloned());
            }
        }
        let mounted = self.mount(&volumes, sid);
        let Ok(mounted) = mounted.as_ref() else { return false };
        let (pins, passwords) = (refs(&there.pins), refs(&there.passwords));
        let opens = |token: Option<&Token>| mounted.open(token, &pins, &passwords).is_ok();
        let alive =
            |id: &str| matches!(dr.hsm.backup_state(id).or(east.hsm.backup_state(id)), Some("READY" | "CREATE_IN_PROGRESS"));
        let next = crate::schedule::next_backup(inner.now);
        opens(None)
            || inner.tokens.iter().any(|(id, token)| alive(id) && opens(Some(token)))
            || next <= limit && opens(Some(inner.hsms.cluster.token()))
    }

    /// Whether it opens with exactly the parts that a verdict names.
    fn opens_with(&mut self, inner: &Inner, set: &TrueSet, sid: &str, opening: &Opening) -> Result<(), String> {
        let dr = region(inner);
        let mut volumes = Vec::new();
        for snapshot in &opening.snapshots {
            volumes.push(restorable(inner, snapshot.as_str()).ok_or_else(|| format!("{snapshot} cannot be restored"))?);
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
        let mounted = self.mount(&volumes, sid);
        let mounted = mounted.as_ref().as_ref().map_err(ToString::to_string)?;
        mounted.open(token.map(Arc::as_ref), &refs(&texts[0]), &refs(&texts[1])).map_err(|e| e.to_string())?;
        // It opens. It must be of the moment that the point is named by.
        let of = |snapshot: &str| dr.ec2.snapshots.get(snapshot).and_then(|s| s.origin.as_ref()).map(|o| o.snapshot.clone());
        match opening.snapshots.iter().find(|s| !set.parts.iter().any(|(part, _)| of(s.as_str()).as_ref() == Some(part))) {
            Some(other) => Err(format!("{other} is of another set")),
            None => Ok(()),
        }
    }
}

fn describe(point: &Point, sid: &str) -> String {
    format!("{sid} of {} at {}", point.instance, Millis(point.taken.0 * 1000).iso_secs())
}

impl Year {
    fn points(&mut self) -> Vec<Point> {
        let now = Timestamp(self.cloud.inner().now.0 / 1000);
        self.cloud.inner().function = Job::AuditRecovery.name().to_owned();
        let armed = std::mem::take(&mut self.cloud.inner().world.faults);
        let mut asker = Asker::new(Job::AuditRecovery, now, &self.config, &self.cloud);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let world = runtime.block_on(asker.world()).expect("the records can be read");
        self.cloud.inner().world.faults = armed;
        let judge = Judge::new(&world.common);
        world.hosts.iter().flat_map(|host| judge.host(host)).collect()
    }

    /// Every verdict of every point against the truth.
    pub fn audit(&mut self) {
        let points = self.points();
        let mut inner = self.cloud.inner();
        let there = there(&mut inner);
        let now = inner.now;
        let judging = &mut self.judging;
        judging.audits += 1;
        let by_part: HashMap<&str, usize> =
            self.sets.iter().enumerate().flat_map(|(n, set)| set.parts.iter().map(move |(part, _)| (part.as_str(), n))).collect();
        let (mut any, mut keyless) = (false, false);
        // Databases with a recent point that opens and is not proven to.
        let mut unproven: BTreeSet<String> = BTreeSet::new();
        // Keys that are gone, as verdicts saw it.
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        let newest = newest_token(&inner);
        let lacks = |gone: &&&Gone| newest.is_some_and(|token| !token.keys.contains(&gone.key));
        for point in &points {
            let Some(set) = point.parts.iter().find_map(|part| by_part.get(part.source.as_str())).map(|n| &self.sets[*n]) else {
                judging.accuse(format!("nobody ever took the set {:?}", point.set));
                continue;
            };
            let restored = restore(&inner, set);
            for database in &point.databases {
                let sid = database.sid.as_str();
                let truly = judging.opens(&there, &restored, sid);
                judging.truly += u64::from(truly.is_ok());
                any |= truly.is_ok();
                let case = Case { inner: &inner, there: &there, spells: &self.spells, gone: &self.gone, set, point, sid };
                let mut gone = self.gone.iter().filter(|gone| gone.sid == sid && gone.back.is_none()).peekable();
                let needs = if gone.peek().is_some() { judging.needs(&restored, sid) } else { BTreeSet::new() };
                let gone: Vec<&Gone> = gone.filter(|gone| needs.contains(&gone.key)).collect();
                match &database.verdict {
                    Verdict::Opens(opening) => {
                        judging.opens += 1;
                        judging.with_gone[0] += u64::from(!gone.is_empty());
                        // By an older backup than it would be by if the key were still there.
                        seen.extend(gone.iter().filter(|gone| lacks(gone)).map(|gone| gone.key));
                        if let Err(why) = judging.opens_with(&inner, set, sid, opening) {
                            judging.accuse(format!("{} is said to open and does not: {why}", describe(point, sid)));
                        }
                    }
                    Verdict::DoesNotOpen { causes, .. } => {
                        judging.does_not += 1;
                        for cause in causes {
                            *judging.causes.entry(cause.code().to_string()).or_default() += 1;
                            keyless |= matches!(cause, Cause::CopyKeyUnusable { .. });
                            if let Err(why) = reasons::cause(&case, cause) {
                                judging.accuse(format!("{} does not open, says `{cause}`: {why}", describe(point, sid)));
                            }
                        }
                        if truly.is_ok() {
                            let said: Vec<String> = causes.iter().map(ToString::to_string).collect();
                            judging.accuse(format!("{} opens, and is said not to: {}", describe(point, sid), said.join("; ")));
                        }
                    }
                    Verdict::NotProven { unknowns } => {
                        judging.not_proven[usize::from(truly.is_err())] += 1;
                        judging.with_gone[1] += u64::from(!gone.is_empty());
                        if truly.is_ok() && now.since(set.at) <= RPO_HOURS * HOUR {
                            unproven.insert(sid.to_owned());
                        }
                        for unknown in unknowns {
                            *judging.unknowns.entry(unknown.code().to_string()).or_default() += 1;
                            if let Unknown::KeyNoLongerListed { key, .. } = unknown {
                                seen.insert(key.0);
                            }
                            if let Err(why) = reasons::unknown(&case, unknown) {
                                judging.accuse(format!("{} is not proven for no reason: {unknown}: {why}", describe(point, sid)));
                            }
                        }
                        if unknowns.is_empty() {
                            judging.accuse(format!("{} is not proven, and nothing is named", describe(point, sid)));
                        }
                    }
                }
            }
        }
        self.gone.iter_mut().filter(|gone| seen.contains(&gone.key)).for_each(|gone| gone.seen = true);
        if keyless && !any {
            self.tally.strike(KEYLESS, 1);
        }
        drop(inner);
        self.alarms(&points, &unproven);
    }

    /// Every breach is told once when it begins and once when it ends, and what is told is so. Which databases are in breach is
    /// reckoned here twice: from the verdicts, which were held against the truth, and from the sets as they were taken.
    fn alarms(&mut self, points: &[Point], unproven: &BTreeSet<String>) {
        let mut guard = self.cloud.inner();
        let there = there(&mut guard);
        let inner = &*guard;
        let newest = newest(&mut self.judging, inner, &there, &self.sets);
        let now = inner.now;
        let messages = &region(inner).sns.published()[self.judging.heard..];
        if std::env::var("YEAR_ALARMS").is_ok() {
            messages.iter().for_each(|m| eprintln!("{} {} | {}", now.iso(), m.subject, m.message));
        }
        let blind = self.judging.blind_audit;
        let mut due = Vec::new();
        for (host, sid) in inner.hosts.iter().enumerate().flat_map(|(n, host)| host.databases.iter().map(move |d| (n, &d.sid))) {
            let name = format!("{sid} on {}", inner.hosts[host].id);
            let verdict = |point: &'_ Point| -> Option<Verdict> {
                let of_host = point.instance.as_str() == inner.hosts[host].id;
                point.databases.iter().find(|d| of_host && d.sid.as_str() == sid).map(|d| d.verdict.clone())
            };
            let proven =
                points.iter().filter(|p| verdict(p).is_some_and(|v| v.opens().is_some())).map(|p| p.taken.0 * 1_000).max();
            let truly = newest.get(sid).map(|n| self.sets[*n].at);
            let old = |at: Option<i64>| at.is_none_or(|at| now.0 / 1_000 - at / 1_000 > RPO_HOURS * 3_600);
            let (breached, broken) = (old(proven), old(truly.map(|at| at.0)));
            let heard = |what: &str| messages.iter().filter(|m| m.subject.contains(&format!("{what}: {name}"))).count();
            let (begun, over) = (heard("RPO breached"), heard("RPO kept again"));
            let (predicted, averted) = (heard("RPO will be breached"), heard("RPO out of danger"));
            let judging = &mut self.judging;
            judging.alarms.told += begun as u64;
            judging.alarms.over += over as u64;
            let told = judging.told.get(&name).copied().unwrap_or_default();
            let expected = (usize::from(breached && !told.breached), usize::from(!breached && told.breached));
            let silent = begun + over + predicted + averted == 0;
            // What was last seen to open grows old while nothing newer can be seen.
            let grown_old = blind && begun == 1 && over == 0 && !told.breached && old(told.seen);
            let breached = breached || grown_old;
            if blind && silent || grown_old {
                // It could not see, and said nothing, or what it knew: the next one must tell.
            } else if begun != expected.0 || over > 1 || over < expected.1 {
                let before = told.breached;
                judging.accuse(format!(
                    "{name} at {}: in breach {before}, then {breached}; told {begun} times that it began and {over} that it is over",
                    now.iso()
                ));
            }
            let stands = if silent { told.breached } else { breached };
            if broken && !judging.broken.contains(sid) {
                judging.alarms.breaches += 1;
                judging.broken.insert(sid.clone());
            } else if !broken {
                judging.broken.remove(sid);
            }
            if !blind && broken && !stands {
                judging.accuse(format!("{name} at {}: no set opens within the RPO, and nobody was told", now.iso()));
            }
            if !blind && stands && !broken {
                judging.alarms.unproven += 1;
                if !unproven.contains(sid) {
                    judging.accuse(format!(
                        "{name} at {}: said to be in breach, and a recent set opens and is not unproven",
                        now.iso()
                    ));
                }
            }

            let limit = |at: i64| Millis(at).plus_ms(RPO_HOURS * HOUR);
            let newer = |at: i64| {
                self.sets
                    .iter()
                    .rev()
                    .take_while(move |set| now.since(set.at) < 3 * DAY)
                    .filter(move |set| set.host == host && set.at.0 / 1_000 > at / 1_000)
            };
            // The next set comes too late.
            let too_late = |limit: Millis| crate::schedule::next_set(now, host).plus_ms(30 * MINUTE) > limit;
            let mut stands = told.predicted && averted + begun == 0;
            if predicted > 0 {
                judging.alarms.predicted += predicted as u64;
                let at = proven.unwrap_or_default();
                let by = limit(at);
                let sure = too_late(by) && !newer(at).any(|set| judging.may_open(inner, &there, set, sid, by, true));
                let opens = truly.is_some_and(|truly| truly.0 / 1_000 > at / 1_000);
                let foretold = match (sure, opens && unproven.contains(sid)) {
                    (true, _) => Foretold::Sure,
                    (_, true) => Foretold::Unproven,
                    _ => Foretold::Open,
                };
                judging.alarms.predicted_truly += u64::from(sure);
                if predicted > 1 || breached || told.predicted && averted == 0 && over == 0 {
                    judging.accuse(format!("{name} at {}: a breach was predicted that was told already", now.iso()));
                }
                stands = true;
                due.push((by.plus_ms(1_000), Act::Due { sid: sid.clone(), at: Millis(at), foretold }));
            }
            // What should have been predicted: nothing that is there can open in time, and the product knows of each set that it
            // does not open.
            if let Some(at) = truly.filter(|at| !broken && proven.is_some_and(|proven| proven / 1_000 == at.0 / 1_000)) {
                let by = limit(at.0);
                let known = points
                    .iter()
                    .filter(|p| p.taken.0 > at.0 / 1_000)
                    .all(|p| verdict(p).is_none_or(|v| matches!(v, Verdict::DoesNotOpen { .. })));
                let ahead = newer(at.0).next().is_some()
                    && known
                    && too_late(by)
                    && !newer(at.0).any(|set| judging.may_open(inner, &there, set, sid, by, false));
                if ahead && !blind {
                    judging.alarms.ahead += 1;
                    if !stands {
                        let why: Vec<String> = points
                            .iter()
                            .filter(|p| p.taken.0 > at.0 / 1_000)
                            .filter_map(|p| match verdict(p)? {
                                Verdict::DoesNotOpen { causes, .. } => {
                                    Some(causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
                                }
                                _ => None,
                            })
                            .collect();
                        judging.accuse(format!(
                            "{name} at {}: a breach at {} is ahead and was not predicted: {}",
                            now.iso(),
                            by.iso(),
                            why.join(" / ")
                        ));
                    }
                }
            }
            let breached = if blind && silent { told.breached } else { breached };
            judging
                .told
                .insert(name, Told { breached, predicted: stands && !breached, seen: if blind { told.seen } else { proven } });
        }
        self.judging.heard += messages.len();
        drop(guard);
        due.into_iter().for_each(|(at, act)| self.then(at, act));
    }

    /// The hour for which a breach was foretold. `at`: the newest point that opened then.
    pub fn due(&mut self, sid: &str, at: Millis, foretold: Foretold) {
        let mut inner = self.cloud.inner();
        let there = there(&mut inner);
        let newest = newest(&mut self.judging, &inner, &there, &self.sets);
        let came = newest.get(sid).is_none_or(|n| self.sets[*n].at.0 / 1_000 <= at.0 / 1_000);
        let alarms = &mut self.judging.alarms;
        alarms.came += u64::from(came);
        alarms.averted += u64::from(!came);
        alarms.averted_unproven += u64::from(!came && foretold == Foretold::Unproven);
        if !came && foretold == Foretold::Open {
            alarms.in_vain += 1;
            if std::env::var("YEAR_ALARMS").is_ok() {
                eprintln!("{} {sid}: foretold in vain", inner.now.iso());
            }
        }
    }

    /// The newest set of each database that opens with what lasts, by the truth alone.
    pub fn newest_that_open(&mut self) -> BTreeMap<String, usize> {
        let mut inner = self.cloud.inner();
        let there = lasting(&mut inner);
        newest(&mut self.judging, &inner, &there, &self.sets)
    }

    /// Sets that open and need a key that is gone from the HSM: with how many volumes.
    pub fn that_need_gone_keys(&mut self) -> Vec<(String, usize, usize)> {
        let mut inner = self.cloud.inner();
        let there = lasting(&mut inner);
        let now = inner.now;
        let mut found = Vec::new();
        for gone in self.gone.iter().filter(|gone| gone.back.is_none() && now.since(gone.at) < 90 * DAY) {
            let of_host = self.sets.iter().enumerate().filter(|(_, set)| set.host == gone.host && now.since(set.at) < 90 * DAY);
            for (n, set) in of_host {
                let restored = restore(&inner, set);
                let needed = self.judging.needs(&restored, &gone.sid).contains(&gone.key);
                if needed && self.judging.opens(&there, &restored, &gone.sid).is_ok() {
                    found.push((gone.sid.clone(), n, restored.len()));
                }
            }
        }
        found
    }

    /// Those whose copies are all still there still open: the backup that has their key was not taken from them.
    pub fn open_with_gone_keys(&mut self, before: &[(String, usize, usize)]) {
        let mut inner = self.cloud.inner();
        let there = lasting(&mut inner);
        for (sid, n, volumes) in before {
            let set = &self.sets[*n];
            let restored = restore(&inner, set);
            if restored.len() < *volumes {
                continue;
            }
            match self.judging.opens(&there, &restored, sid) {
                Ok(()) => self.judging.kept_gone += 1,
                Err(why) => {
                    self.judging.accuse(format!("{sid} of {} was kept without what it needs: {why}", set.at.iso()));
                }
            }
        }
    }

    /// None of them was lost.
    pub fn still_open(&mut self, before: &BTreeMap<String, usize>) {
        let mut inner = self.cloud.inner();
        let there = lasting(&mut inner);
        for (sid, n) in before {
            let set = &self.sets[*n];
            let restored = restore(&inner, set);
            match self.judging.opens(&there, &restored, sid) {
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
        let short = self.tally.short();
        assert!(short.is_empty(), "faults that did not strike: {}", short.join("; "));
        if self.days < 300 {
            return;
        }
        let unplanted = self.tally.unplanted();
        assert!(unplanted.is_empty(), "faults that nobody planted: {}", unplanted.join("; "));
        let [opens, not_proven] = judging.with_gone;
        assert!(opens > 0 && not_proven > 0 && judging.kept_gone > 0, "no verdict was about a key that is gone");
        let alarms = &judging.alarms;
        assert!(alarms.breaches > 0 && alarms.told >= alarms.breaches, "breaches: {alarms:?}");
        assert!(alarms.in_vain * 20 <= alarms.predicted, "breaches are foretold that need not come: {alarms:?}");
        assert!(alarms.came > 0 && alarms.ahead > 0, "no breach was seen coming: {alarms:?}");
    }
}

/// The newest set of each database that opens.
fn newest(judging: &mut Judging, inner: &Inner, there: &There, sets: &[TrueSet]) -> BTreeMap<String, usize> {
    let mut newest = BTreeMap::new();
    for host in 0..HOSTS {
        let mut lacking: Vec<String> = inner.hosts[host].databases.iter().map(|d| d.sid.clone()).collect();
        for (n, set) in sets.iter().enumerate().rev().filter(|(_, set)| set.host == host) {
            if lacking.is_empty() || inner.now.since(set.at) > 200 * DAY {
                break;
            }
            let restored = restore(inner, set);
            if restored.is_empty() {
                continue;
            }
            lacking.retain(|sid| {
                let opens = judging.opens(there, &restored, sid).is_ok();
                if opens {
                    newest.insert(sid.clone(), n);
                }
                !opens
            });
        }
    }
    newest
}
