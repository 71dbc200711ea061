//! H42: which version of a secret was current is written down, whenever the secret answers.

mod common;

use common::{VERSION, *};
use std::collections::BTreeSet;
use std::time::Duration;
use tde2hsm_dr::inventory::*;
use tde2hsm_dr::points::{Judge, SecretRole, SecretUse, Unknown, Verdict};
use tde2hsm_dr_driver::world::Asker;
use tde2hsm_dr_driver::*;
use tde2hsm_protocol::*;

const DAY: i64 = 86_400;

/// The one secret is the crypto user's and the keystores'.
fn both() -> DrConfig {
    let one = |role| SecretUse { secret: secret_arn(), role, of: None };
    DrConfig { secrets: vec![one(SecretRole::CryptoUser), one(SecretRole::Keystore)], document: None, ..config() }
}

/// A database of the first host, with a key of last month, that was looked at before its set and after.
fn looked_at() -> Memory {
    let memory = Memory::new();
    let container = ContainerName::new("CDB$ROOT").unwrap();
    let key = MasterKeyId([1; 16]);
    let activated = Some(START.plus(-30 * DAY));
    let place = |what, path: &str, n| FilePlace { what, path: path.to_owned(), volume: Some(volume(0, n)), ephemeral: false };
    for taken_at in [START.plus(-6_000), START.plus(-1_200)] {
        let inventory = Inventory {
            v: 1,
            instance: instance(0),
            taken_at,
            received_at: taken_at.plus(60),
            ordered_at: Some(taken_at.plus(-60)),
            provider: Some(Provider::CloudHsm { servers: Some(BTreeSet::from(["10.0.1.5".to_owned()])) }),
            databases: vec![DatabaseInventory {
                sid: Sid::new("ORCL").unwrap(),
                dbid: Some(1),
                needs: vec![KeyNeed { key, store: Some(Store::Hsm), needed_by: NeededBy::Container(container.clone()) }],
                known: vec![KnownKey {
                    key,
                    store: Some(Store::Hsm),
                    container: Some(container.clone()),
                    created: activated,
                    activated,
                }],
                blind: BTreeSet::new(),
                files: vec![
                    place(FileKind::Datafile, "/u02/users01.dbf", 1),
                    place(FileKind::Controlfile, "/u02/control01.ctl", 1),
                    place(FileKind::RedoLog, "/u02/redo01.log", 1),
                    place(FileKind::KeystoreDir, "/etc/oracle/wallets", 0),
                ],
                keystore: KeystoreFacts::default(),
                unreadable: vec![],
            }],
            files: vec![place(FileKind::Oratab, "/etc/oratab", 0), place(FileKind::CloudHsmClient, "/opt/cloudhsm", 0)],
            unreadable: vec![],
        };
        let body = serde_json::to_vec(&inventory).unwrap();
        memory.world().objects.insert(store::inventory_key(&inventory.instance, taken_at), (body, 0, taken_at));
    }
    memory
}

async fn verdict(memory: &Memory, config: &DrConfig) -> Verdict {
    let now = memory.world().now;
    let mut asker = Asker::new(Job::AuditRecovery, now, config, memory);
    let world = asker.world().await.unwrap();
    let judge = Judge::new(&world.common);
    let host = world.hosts.iter().find(|host| host.instance == instance(0)).unwrap();
    judge.host(host).last().unwrap().databases[0].verdict.clone()
}

/// What each record of a copy says of the secret: of two backups and snapshots of two hosts.
fn written(memory: &Memory) -> Vec<Option<Vec<String>>> {
    let world = memory.world();
    let records = world.objects.keys().filter(|key| key.starts_with("copies/") || key.starts_with("hsm-copies/"));
    let versions = |record: serde_json::Value| {
        let at = record["secrets"].as_array().unwrap().first().cloned()?;
        Some(at["versions"].as_array().unwrap().iter().map(|version| version.as_str().unwrap().to_owned()).collect())
    };
    records.map(|key| versions(world.record(key))).collect()
}

/// Secrets Manager is away when the copies are begun, and the password is changed meanwhile. Nothing waits for it; what was not
/// told is told later, and the version stays through whatever rotation comes then.
#[tokio::test]
async fn h42_a_secret_that_gives_no_answer_holds_up_no_copy_and_is_written_down_when_it_does() {
    let (memory, config) = (looked_at(), both());
    memory.world().denied = BTreeSet::from(["secretsmanager:DescribeSecret".to_owned()]);
    memory.ticks(&config, 4).await;
    let copied = |world: &World| (world.copies().len(), world.hsm_copies().len());
    assert_eq!(copied(&memory.world()), (4, 1));
    assert_eq!(written(&memory), vec![None; 5], "nobody knows yet, and no record says otherwise");
    assert!(matches!(verdict(&memory, &config).await, Verdict::NotProven { .. }));
    memory.rotate(2);
    let outcomes = memory.ticks(&config, 2).await;
    for job in [Job::CopySnapshots, Job::CopyHsmBackups] {
        assert!(outcomes[&job].failed > 0, "it is told while it lasts: {:?}", outcomes[&job]);
    }
    memory.world().denied.clear();
    // Whoever runs first.
    let now = memory.world().now;
    run(Job::ExpireCopies, now, &config, &memory, &Hint::Tick).await;
    memory.ticks(&config, 1).await;
    assert_eq!(written(&memory), vec![Some(vec![VERSION.to_owned()]); 5]);
    for n in 3..6 {
        memory.rotate(n);
        memory.ticks(&config, 8).await;
    }
    let verdict = verdict(&memory, &config).await;
    let opens = verdict.opens().unwrap_or_else(|| panic!("{verdict:?}"));
    assert_eq!(opens.secrets.iter().map(|(_, secret)| secret.version.as_str()).collect::<Vec<_>>(), [VERSION]);
}

/// The stages are asked too late: after two rotations they no longer tell. The record says so, and the point is not proven.
#[tokio::test]
async fn h42_what_the_stages_no_longer_tell_is_not_guessed() {
    let (memory, config) = (looked_at(), both());
    memory.world().denied = BTreeSet::from(["secretsmanager:DescribeSecret".to_owned()]);
    memory.ticks(&config, 2).await;
    memory.rotate(2);
    memory.ticks(&config, 2).await;
    memory.rotate(3);
    memory.world().denied.clear();
    memory.ticks(&config, 2).await;
    assert_eq!(written(&memory), vec![Some(vec![]); 5]);
    let verdict = verdict(&memory, &config).await;
    let Verdict::NotProven { unknowns } = &verdict else { panic!("{verdict:?}") };
    assert!(unknowns.iter().any(|unknown| matches!(unknown, Unknown::SecretVersion { .. })), "{verdict:?}");
    // Nor is it asked for ever.
    let asked = memory.world().asked.len();
    let now = memory.world().now;
    run(Job::CopySnapshots, now, &config, &memory, &Hint::Tick).await;
    let asked = memory.world().asked[asked..].iter().filter(|(_, call)| call == "secretsmanager:DescribeSecret").count();
    assert_eq!(asked, 0);
}

/// One of two secrets hangs: the other is told, and whoever asked still has time to begin copies.
#[tokio::test]
async fn h42_a_secret_that_hangs_keeps_no_other_back_and_no_copy() {
    let memory = Memory::new();
    let hangs = SecretArn::new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/hangs-AbCdEf").unwrap();
    memory.world().stuck.insert(hangs.clone());
    let config = config();
    for job in [Job::CopySnapshots, Job::ExpireCopies] {
        let mut asker = Asker::new(job, START, &config, &memory).with_patience(Duration::from_millis(200));
        let arns = BTreeSet::from([hangs.clone(), secret_arn()]);
        let answered = tokio::time::timeout(Duration::from_secs(20), asker.secrets(&source(), &arns)).await;
        assert_eq!(answered.expect("it waits for ever").into_keys().collect::<Vec<_>>(), [secret_arn()]);
        assert_eq!(asker.outcome.unasked.len(), 1, "{:?}", asker.outcome);
        assert!(!asker.secrets(&source(), &BTreeSet::from([secret_arn()])).await.is_empty(), "{job:?}: one secret is no region");
    }
}
