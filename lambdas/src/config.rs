//! What a function is told by its environment, which the template sets.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use tde2hsm_dr::copying::Timed;
use tde2hsm_dr::points::{SecretRole, SecretUse};
use tde2hsm_dr_driver::{DocumentPin, DrConfig, Expiry, Job};
use tde2hsm_protocol::{AccountId, Code, Digest, InstanceId, KmsKeyArn, Region, Retention, Retired, SecretArn, Sid};

pub const FLEET: &str = "TDE2HSM_FLEET";
pub const FLEET_TAG: &str = "TDE2HSM_FLEET_TAG";
pub const SOURCE_REGION: &str = "TDE2HSM_SOURCE_REGION";
pub const DR_REGION: &str = "TDE2HSM_DR_REGION";
pub const CLUSTER: &str = "TDE2HSM_CLUSTER";
pub const KMS_KEY: &str = "TDE2HSM_KMS_KEY";
pub const RECORDS_BUCKET: &str = "TDE2HSM_RECORDS_BUCKET";
pub const ACCOUNT: &str = "TDE2HSM_ACCOUNT";
pub const SECRETS: &str = "TDE2HSM_SECRETS";
pub const KEYSTORE_SECRETS: &str = "TDE2HSM_KEYSTORE_SECRETS";
pub const RPO_MINUTES: &str = "TDE2HSM_RPO_MINUTES";
pub const COPIES_IN_FLIGHT: &str = "TDE2HSM_COPIES_IN_FLIGHT";
pub const TIMED_COPIES_MIB_S: &str = "TDE2HSM_TIMED_COPIES_MIB_S";
pub const RETENTION: &str = "TDE2HSM_RETENTION";
pub const HSM_BACKUP_RETENTION_DAYS: &str = "TDE2HSM_HSM_BACKUP_RETENTION_DAYS";
pub const RETIRED: &str = "TDE2HSM_RETIRED";
pub const TOPIC: &str = "TDE2HSM_TOPIC";
pub const DOCUMENT: &str = "TDE2HSM_DOCUMENT";
pub const DRY_RUN: &str = "TDE2HSM_DRY_RUN";
/// Set by Lambda: which function this is.
pub const HANDLER: &str = "_HANDLER";

/// Everything that is wrong with an environment, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub code: Code,
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.problems.join("; "))
    }
}

/// `copy-snapshots`, or `anything.copy-snapshots`.
pub fn job(handler: Option<&str>) -> Result<Job, ConfigError> {
    let handler = handler.unwrap_or_default();
    let name = handler.rsplit('.').next().unwrap_or_default();
    Job::ALL.into_iter().find(|job| job.name() == name).ok_or_else(|| ConfigError {
        code: Code::FUNCTION_UNKNOWN,
        problems: vec![format!("`{HANDLER}` is `{}`", tde2hsm_protocol::wire::printable(handler, 60))],
    })
}

struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    missing: Vec<&'static str>,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// A variable that is set and not empty: a template leaves what it does not use empty.
    fn optional(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = self.optional(name) else {
            self.missing.push(name);
            return None;
        };
        self.checked(name, &text, parse)
    }

    fn parsed_or<T>(&mut self, name: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match self.optional(name) {
            None => Some(default),
            Some(text) => self.checked(name, &text, parse),
        }
    }

    fn checked<T>(&mut self, name: &'static str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problems.push(format!("`{name}`: {why}"));
                None
            }
        }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse::<T>().map_err(|e| e.to_string())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{}` is no number that fits", tde2hsm_protocol::wire::printable(text, 40)))
}

/// What the fleet file refuses too: no backup is kept for no day, and nothing is copied through no place.
fn at_least_one<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number: T = number(text)?;
    if number == T::default() { Err("it is at least 1".to_owned()) } else { Ok(number) }
}

/// Reads the environment through `get`. Every missing and every wrong variable is named.
pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<DrConfig, ConfigError> {
    let mut reader = Reader { get, missing: Vec::new(), problems: Vec::new() };
    let r = &mut reader;
    let fleet = r.parsed(FLEET, |text| Ok(text.to_owned()));
    let fleet_tag = r.parsed(FLEET_TAG, |text| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not `key=value`".to_owned()),
    });
    let source_region = r.parsed(SOURCE_REGION, id::<Region>);
    let dr_region = r.parsed(DR_REGION, id::<Region>);
    let cluster = r.parsed(CLUSTER, id);
    let kms_key = r.parsed(KMS_KEY, id::<KmsKeyArn>);
    let records_bucket = r.parsed(RECORDS_BUCKET, |text| Ok(text.to_owned()));
    let rpo_minutes = r.parsed(RPO_MINUTES, at_least_one::<u32>);
    let copies_in_flight = r.parsed_or(COPIES_IN_FLIGHT, 20, at_least_one::<u16>);
    let timed = r.parsed_or(TIMED_COPIES_MIB_S, Timed::Never, |text| number::<u32>(text).map(Timed::from_mib_s));
    let retention = r.parsed(RETENTION, |text| text.parse::<Retention>().map_err(|e| e.to_string()));
    let hsm_backup_retention_days = r.parsed_or(HSM_BACKUP_RETENTION_DAYS, 90, at_least_one::<u16>);
    let mut retired = BTreeSet::new();
    for entry in r.optional(RETIRED).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        retired.extend(r.checked(RETIRED, entry, id::<Retired>));
    }
    let account = match (r.optional(ACCOUNT), &kms_key) {
        (Some(text), _) => r.checked(ACCOUNT, &text, id::<AccountId>),
        // A key of the DR region is the account's own unless the variable says otherwise.
        (None, Some(key)) => key.as_str().split(':').nth(4).and_then(|account| AccountId::new(account).ok()),
        (None, None) => None,
    };
    let mut secrets = Vec::new();
    for (name, role) in [(SECRETS, SecretRole::CryptoUser), (KEYSTORE_SECRETS, SecretRole::Keystore)] {
        let entries = r.optional(name).unwrap_or_default();
        for entry in entries.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            secrets.extend(r.checked(name, entry, |entry| secret_use(entry, role)));
        }
    }
    let document = r.optional(DOCUMENT).and_then(|text| r.checked(DOCUMENT, &text, document_pin));
    let topic = r.optional(TOPIC);
    let expiry = r.parsed_or(DRY_RUN, Expiry::Delete, |text| match text {
        "true" => Ok(Expiry::DryRun),
        "false" => Ok(Expiry::Delete),
        _ => Err("it is neither `true` nor `false`".to_owned()),
    });
    if let (Some(source), Some(dr)) = (&source_region, &dr_region)
        && source == dr
    {
        r.problems.push(format!("`{DR_REGION}`: it is the source region"));
    }
    if let (Some(key), Some(dr)) = (&kms_key, &dr_region)
        && key.region() != *dr
    {
        r.problems.push(format!("`{KMS_KEY}`: it is no key of {dr}"));
    }
    let (missing, mut problems) = (std::mem::take(&mut reader.missing), std::mem::take(&mut reader.problems));
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
        problems.insert(0, format!("not set: {}", names.join(", ")));
    }
    let config = (|| {
        Some(DrConfig {
            account: account?,
            fleet: fleet?,
            fleet_tag: fleet_tag?,
            source_region: source_region?,
            dr_region: dr_region?,
            cluster: cluster?,
            kms_key: kms_key?,
            records_bucket: records_bucket?,
            secrets,
            rpo_minutes: rpo_minutes?,
            copies_in_flight: copies_in_flight?,
            timed: timed?,
            retention: retention?,
            hsm_backup_retention_days: hsm_backup_retention_days?,
            retired,
            topic,
            document,
            expiry: expiry?,
        })
    })();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError { code: Code::FUNCTION_CONFIG, problems }),
    }
}

/// An ARN, or `ARN@INSTANCE` or `ARN@INSTANCE/SID` for a secret of one host or database.
fn secret_use(entry: &str, role: SecretRole) -> Result<SecretUse, String> {
    if let Some((arn, of)) = entry.rsplit_once('@') {
        let (instance, sid) = match of.split_once('/') {
            Some((instance, sid)) => (instance, Some(sid)),
            None => (of, None),
        };
        // A secret's name may hold an `@` itself.
        if let Ok(instance) = InstanceId::new(instance) {
            let sid = sid.map(Sid::new).transpose().map_err(|e| e.to_string())?;
            return Ok(SecretUse { secret: id::<SecretArn>(arn)?, role, of: Some((instance, sid)) });
        }
    }
    Ok(SecretUse { secret: id::<SecretArn>(entry)?, role, of: None })
}

/// `NAME:VERSION:SHA256`: never a name alone, since whoever may change the document would then say what runs on hosts (H34).
fn document_pin(text: &str) -> Result<DocumentPin, String> {
    let wrong = || "it is not `NAME:VERSION:SHA256`".to_owned();
    let mut parts = text.rsplitn(3, ':');
    let (hash, version, name) = (parts.next(), parts.next(), parts.next());
    let (Some(hash), Some(version), Some(name)) = (hash, version, name) else { return Err(wrong()) };
    let hash: Digest = hash.parse().map_err(|_| wrong())?;
    if name.is_empty() || version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(DocumentPin { name: name.to_owned(), version: version.to_owned(), hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/hsm@prod-AbCdEf";

    fn environment() -> BTreeMap<&'static str, String> {
        let document = format!("tde2hsm-run:3:{}", Digest::of(b"document"));
        BTreeMap::from([
            (FLEET, "demo".to_owned()),
            (FLEET_TAG, "tde2hsm=demo".to_owned()),
            (SOURCE_REGION, "eu-central-1".to_owned()),
            (DR_REGION, "eu-west-1".to_owned()),
            (CLUSTER, "cluster-abcdefghijk".to_owned()),
            (KMS_KEY, "arn:aws:kms:eu-west-1:123456789012:key/0f1e".to_owned()),
            (RECORDS_BUCKET, "records".to_owned()),
            (SECRETS, ARN.to_owned()),
            (KEYSTORE_SECRETS, format!("{ARN}@i-0123456789abcdef0/ORCL, ")),
            (RPO_MINUTES, "1440".to_owned()),
            (RETENTION, "hourly=8,daily=14,weekly=5,monthly=12".to_owned()),
            (DOCUMENT, document),
            (TOPIC, String::new()),
        ])
    }

    fn of(environment: &BTreeMap<&'static str, String>) -> Result<DrConfig, ConfigError> {
        read(&|name| environment.get(name).cloned())
    }

    #[test]
    fn an_environment_becomes_a_configuration() {
        let config = of(&environment()).unwrap();
        assert_eq!(config.account.as_str(), "123456789012");
        assert_eq!((config.copies_in_flight, config.timed), (20, Timed::Never));
        assert_eq!(config.topic, None, "an empty variable is none");
        assert_eq!(config.expiry, Expiry::Delete);
        let [shared, own] = config.secrets.as_slice() else { panic!("{:?}", config.secrets) };
        assert_eq!((shared.secret.as_str(), shared.role, &shared.of), (ARN, SecretRole::CryptoUser, &None));
        let (instance, sid) = own.of.clone().unwrap();
        assert_eq!((own.role, instance.as_str(), sid.unwrap().as_str()), (SecretRole::Keystore, "i-0123456789abcdef0", "ORCL"));
    }

    /// A wrong name would leave alarming what somebody thinks is retired; a SID alone might be another host's.
    #[test]
    fn what_is_retired_is_named_with_its_host() {
        let mut environment = environment();
        assert_eq!(of(&environment).unwrap().retired, BTreeSet::new());
        environment.insert(RETIRED, "i-0123456789abcdef0/TST, i-0123456789abcdef1".to_owned());
        let retired: Vec<String> = of(&environment).unwrap().retired.iter().map(ToString::to_string).collect();
        assert_eq!(retired, ["i-0123456789abcdef0/TST", "i-0123456789abcdef1"]);
        environment.insert(RETIRED, "i-0123456789abcdef0/TST,TST".to_owned());
        let error = of(&environment).unwrap_err();
        assert!(error.problems[0].starts_with("`TDE2HSM_RETIRED`") && error.problems[0].contains("`TST`"), "{error}");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let mut environment = environment();
        for name in [FLEET, CLUSTER, RETENTION] {
            environment.remove(name);
        }
        environment.insert(RPO_MINUTES, "soon".to_owned());
        let error = of(&environment).unwrap_err();
        assert_eq!(error.code, Code::FUNCTION_CONFIG);
        assert_eq!(error.problems[0], "not set: `TDE2HSM_FLEET`, `TDE2HSM_CLUSTER`, `TDE2HSM_RETENTION`");
        assert!(error.problems[1].starts_with("`TDE2HSM_RPO_MINUTES`"), "{error}");
    }

    /// All zeros, or no day, would let go of everything but the last point that opens; the fleet file refuses them as well.
    #[test]
    fn h45_an_environment_that_keeps_nothing_is_refused() {
        for (name, value, words) in [
            (RETENTION, "hourly=0,daily=0,weekly=0,monthly=0", "at least one point is kept"),
            (HSM_BACKUP_RETENTION_DAYS, "0", "at least 1"),
            (COPIES_IN_FLIGHT, "0", "at least 1"),
            (RPO_MINUTES, "0", "at least 1"),
        ] {
            let mut environment = environment();
            environment.insert(name, value.to_owned());
            let error = of(&environment).unwrap_err();
            let [problem] = error.problems.as_slice() else { panic!("{error}") };
            assert!(problem.starts_with(&format!("`{name}`")) && problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn copies_are_bought_by_their_deadline_only_where_a_throughput_is_named() {
        let mut environment = environment();
        for (value, timed) in [("", Timed::Never), ("0", Timed::Never), ("2000", Timed::ByDeadline { throughput: 2_000 })] {
            environment.insert(TIMED_COPIES_MIB_S, value.to_owned());
            assert_eq!(of(&environment).unwrap().timed, timed, "{value}");
        }
        environment.insert(TIMED_COPIES_MIB_S, "fast".to_owned());
        assert!(of(&environment).is_err());
    }

    /// A variable that no template sets is never used, and one that nobody reads does nothing.
    #[test]
    fn the_templates_set_what_is_read_here_and_nothing_else() {
        let text = [include_str!("../../infra/source.yaml"), include_str!("../../infra/dr.yaml")].concat();
        let named = text.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
        let set: BTreeSet<&str> = named.filter(|name| name.starts_with("TDE2HSM_")).collect();
        let read_here = std::cell::RefCell::new(BTreeSet::new());
        let ask = |name: &str| {
            read_here.borrow_mut().insert(name.to_owned());
            None
        };
        assert!(read(&ask).is_err());
        let read_here = read_here.into_inner();
        assert_eq!(set, read_here.iter().map(String::as_str).collect());
    }

    /// No A→A, and no key that the copies' region cannot use.
    #[test]
    fn regions_that_do_not_fit_are_refused() {
        let mut environment = environment();
        environment.insert(DR_REGION, "eu-central-1".to_owned());
        let error = of(&environment).unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
    }

    #[test]
    fn h34_a_document_without_its_hash_is_refused() {
        let mut environment = environment();
        for text in ["tde2hsm-run", "tde2hsm-run:3", "tde2hsm-run:$LATEST:ab", "x:1:zz"] {
            environment.insert(DOCUMENT, text.to_owned());
            assert!(of(&environment).is_err(), "{text}");
        }
    }

    #[test]
    fn a_handler_is_a_name_alone_or_after_a_dot() {
        assert_eq!(job(Some("copy-snapshots")).unwrap(), Job::CopySnapshots);
        assert_eq!(job(Some("bootstrap.audit-recovery")).unwrap(), Job::AuditRecovery);
        for wrong in [None, Some(""), Some("copy"), Some("copy-snapshots.x")] {
            assert_eq!(job(wrong).unwrap_err().code, Code::FUNCTION_UNKNOWN, "{wrong:?}");
        }
    }
}
