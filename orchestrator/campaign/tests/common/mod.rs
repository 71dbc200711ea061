//! A fleet in which nothing is wrong, to plant one thing in.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub mod sim;

use std::collections::BTreeMap;
use tde2hsm_campaign::facts::*;
use tde2hsm_campaign::fleet::Fleet;
use tde2hsm_campaign::plan::{self, Plan, PlanInput};
use tde2hsm_protocol::survey::*;
use tde2hsm_protocol::*;

pub const NOW: Timestamp = Timestamp(1_795_600_000);

pub const FLEET: &str = r#"
[fleet]
name = "demo"
account = "123456789012"
region = "us-east-1"
[cluster]
id = "cluster-abcdefghijk"
[secrets]
old_hsm = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/old-hsm-AbCdEf" }
cloudhsm = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/cloudhsm-AbCdEf" }
software = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/software-AbCdEf" }
[escrow]
prefix = "tde/escrow"
replica_regions = ["us-west-2"]
[options]
auto_open = "enable"
[waves]
concurrency = 4
budget = 4
[dr]
region = "us-west-2"
kms_key = "arn:aws:kms:us-west-2:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e11"
records_bucket = "records-123456789012"
rpo_minutes = 480
[[targets]]
tag = { key = "tde2hsm", value = "demo" }
"#;

pub fn instance(n: usize) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).expect("id")
}

pub fn sid(name: &str) -> Sid {
    Sid::new(name).expect("sid")
}

pub fn arn(name: &str) -> SecretArn {
    SecretArn::new(format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/{name}-AbCdEf")).expect("arn")
}

pub fn version(n: u32) -> SecretVersion {
    SecretVersion::new(format!("{n:08}-1111-1111-1111-111111111111")).expect("version")
}

pub fn fleet(text: &str) -> Fleet {
    Fleet::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

pub fn key(n: u64) -> MasterKeyId {
    let digest = Digest::of(&n.to_le_bytes());
    MasterKeyId(digest.as_bytes()[..16].try_into().expect("16 bytes"))
}

pub fn cluster() -> Cluster {
    let hsm = |id: &str, az: &str, ip: &str| Hsm {
        id: id.to_owned(),
        state: "ACTIVE".to_owned(),
        az: Some(az.to_owned()),
        ip: Some(ip.parse().expect("ip")),
    };
    Cluster {
        cluster: ClusterId::new("cluster-abcdefghijk").expect("id"),
        state: "ACTIVE".to_owned(),
        hsm_type: "hsm2m.medium".to_owned(),
        mode: Some("FIPS".to_owned()),
        rollback_expiration: None,
        vpc: Some("vpc-1".to_owned()),
        security_group: Some("sg-hsm".to_owned()),
        hsms: vec![hsm("hsm-a", "us-east-1a", "10.0.1.5"), hsm("hsm-b", "us-east-1b", "10.0.2.5")],
    }
}

pub fn facts(hosts: usize) -> CloudFacts {
    let permission = |peers| Permission { protocol: "tcp".to_owned(), from_port: Some(2223), to_port: Some(2225), peers };
    CloudFacts {
        account: AccountId::new("123456789012").expect("id"),
        region: Region::new("us-east-1").expect("id"),
        gathered_at: NOW,
        managed: (0..hosts)
            .map(|n| ManagedInstance {
                instance: instance(n),
                ping: Ping::Online,
                agent_version: "3.3.3572.0".to_owned(),
                platform: "Linux".to_owned(),
            })
            .collect(),
        instances: (0..hosts)
            .map(|n| Instance {
                instance: instance(n),
                state: "running".to_owned(),
                tags: BTreeMap::from([("tde2hsm".to_owned(), "demo".to_owned()), ("rack".to_owned(), format!("r{}", n % 2))]),
                vpc: Some("vpc-1".to_owned()),
                subnet: Some("subnet-1".to_owned()),
                az: Some("us-east-1a".to_owned()),
                private_ip: Some("10.0.3.7".parse().expect("ip")),
                security_groups: vec!["sg-db".to_owned()],
            })
            .collect(),
        security_groups: vec![
            SecurityGroup {
                id: "sg-hsm".to_owned(),
                ingress: vec![permission(vec![Peer::Group("sg-db".to_owned())])],
                egress: vec![],
            },
            SecurityGroup {
                id: "sg-db".to_owned(),
                ingress: vec![],
                egress: vec![permission(vec![Peer::Cidr("10.0.0.0/16".to_owned())])],
            },
        ],
        routes: vec![],
        clusters: vec![cluster()],
        secrets: ["old-hsm", "cloudhsm", "software"]
            .iter()
            .map(|name| Secret {
                arn: arn(name),
                current: Some(version(1)),
                versions: vec![version(1)],
                replicas: vec![],
                deleted: false,
            })
            .collect(),
        document: Some(DocumentFact {
            name: "tde2hsm-run".to_owned(),
            version: "3".to_owned(),
            hash: Digest::of(b"document"),
            packages: vec!["rhel8".to_owned()],
            client_version: Some("5.17.0-1".to_owned()),
        }),
    }
}

/// A 19c container database with one PDB, WALLET_ROOT style, its keys in the old HSM.
pub fn database(name: &str, seed: u64) -> Database {
    let container = |con_id, name: &str, mode: &str| Container {
        con_id,
        name: ContainerName::new(name).expect("name"),
        open_mode: mode.to_owned(),
        restricted: false,
        key: (con_id != 2).then(|| ActiveKey {
            id: key(seed * 10 + u64::from(con_id)),
            store: Some(Store::Hsm),
            activated: Some(NOW.plus(-90_000)),
        }),
    };
    let row = |con_id| WalletRow {
        con_id,
        wrl_type: "HSM".to_owned(),
        wrl_parameter: None,
        status: "OPEN".to_owned(),
        wallet_type: "HSM".to_owned(),
        wallet_order: "SINGLE".to_owned(),
        keystore_mode: Some(if con_id == 1 { "NONE" } else { "UNITED" }.to_owned()),
    };
    let home = "/u01/app/oracle/product/19.0.0/dbhome_1".to_owned();
    Database {
        sid: sid(name),
        tns_admin: format!("{home}/network/admin"),
        home: home.clone(),
        owner: Owner { user: "oracle".to_owned(), uid: 54321, gid: 54321 },
        in_oratab: true,
        state: InstanceState::OpenReadWrite,
        pmon: Some(Pmon {
            pid: 1000 + seed as u32,
            oracle_home: Some(home),
            tns_admin: None,
            started_at: NOW.plus(-1_000_000),
            cgroup: "/system.slice/dbora.service".to_owned(),
            memlock: Some(u64::MAX),
            binary_replaced: false,
        }),
        facts: Some(Facts {
            dbid: 4_000_000 + seed,
            name: name.to_owned(),
            unique_name: name.to_owned(),
            version: "19.0.0.0.0".to_owned(),
            role: "PRIMARY".to_owned(),
            open_mode: "READ WRITE".to_owned(),
            cdb: true,
            log_mode: "ARCHIVELOG".to_owned(),
            restricted: false,
            rac: false,
            data_guard: false,
            capture: false,
            flashback: false,
            spfile: Some(format!("/u01/app/oracle/product/19.0.0/dbhome_1/dbs/spfile{name}.ora")),
            pending: vec![],
            wallet: vec![row(1), row(2), row(3)],
            containers: vec![
                container(1, "CDB$ROOT", "READ WRITE"),
                container(2, "PDB$SEED", "READ ONLY"),
                container(3, "PDB1", "READ WRITE"),
            ],
            tablespaces: vec![EncryptedTablespace {
                con_id: 3,
                name: "SECRETS".to_owned(),
                key: key(seed * 10 + 3),
                access: Access::ReadWrite,
                status: "NORMAL".to_owned(),
            }],
            column_keys: vec![],
            redo: vec![RedoLog { group: 1, status: "CURRENT".to_owned(), archived: false }],
            restore_points: vec![],
            blockers: Blockers { recovery_area_used: Some(40), ..Blockers::default() },
            last_full_backup: Some(NOW.plus(-3600)),
            processes: 80,
            processes_limit: 300,
            opens_by_itself: true,
            keys: None,
            kept: None,
        }),
        keystore: KeystoreConfig::WalletRoot {
            wallet_root: format!("/u01/app/oracle/admin/{name}/wallet"),
            tde_configuration: Some("KEYSTORE_CONFIGURATION=HSM|FILE".to_owned()),
        },
        keystore_dir: Some(format!("/u01/app/oracle/admin/{name}/wallet/tde")),
        keystore_files: vec![],
        auto_login: None,
        files: None,
    }
}

/// The same with its keys in a software keystore.
pub fn software(name: &str, seed: u64) -> Database {
    let mut database = database(name, seed);
    database.keystore = KeystoreConfig::WalletRoot {
        wallet_root: format!("/u01/app/oracle/admin/{name}/wallet"),
        tde_configuration: Some("KEYSTORE_CONFIGURATION=FILE".to_owned()),
    };
    database.keystore_files = vec![KeystoreFile {
        name: "ewallet.p12".to_owned(),
        size: 4_000,
        sha256: Digest::of(b"keystore"),
        uid: 54321,
        mode: 0o600,
        filesystem: "xfs".to_owned(),
    }];
    let facts = database.facts.as_mut().expect("facts");
    for row in &mut facts.wallet {
        row.wrl_type = "FILE".to_owned();
        row.wallet_type = "PASSWORD".to_owned();
    }
    for container in &mut facts.containers {
        if let Some(key) = &mut container.key {
            key.store = Some(Store::Software);
        }
    }
    database
}

pub fn survey(n: usize, databases: Vec<Database>) -> Survey {
    let tied = |d: &&Database| {
        matches!(&d.keystore, KeystoreConfig::WalletRoot { tde_configuration: Some(t), .. } if t.contains("HSM"))
            || matches!(&d.keystore, KeystoreConfig::Sqlnet { method, .. } if method == "HSM")
    };
    let library = "/opt/oracle/extapi/64/hsm/oldhsm/7.4.0/libcryptoki_oldhsm.so";
    let fs = |path: &str| Filesystem {
        path: path.to_owned(),
        kind: "xfs".to_owned(),
        free_bytes: 10 << 30,
        noexec: false,
        readonly: false,
        ephemeral: false,
    };
    Survey {
        v: 1,
        taken_at: NOW.plus(-600),
        instance: instance(n),
        account: AccountId::new("123456789012").expect("id"),
        region: Region::new("us-east-1").expect("id"),
        runner_version: "0.1.0".to_owned(),
        os: Os {
            id: "rhel".to_owned(),
            version: "8.10".to_owned(),
            arch: "x86_64".to_owned(),
            kernel: "4.18.0".to_owned(),
            systemd: true,
        },
        clusterware: false,
        autostarts: vec![],
        provider: Provider {
            libraries: vec![Library {
                path: library.to_owned(),
                size: 100_000,
                sha256: Digest::of(b"library"),
                uid: 54321,
                gid: 54321,
                mode: 0o755,
                symlink: false,
            }],
            mapped: databases
                .iter()
                .filter(tied)
                .map(|d| Mapping { pid: 5, path: library.to_owned(), deleted: false, sid: Some(d.sid.clone()) })
                .collect(),
            packages: vec![],
            cloudhsm_mapped: false,
            vendor: None,
            cloudhsm_servers: None,
        },
        filesystems: vec![fs("/"), fs("/u01"), fs("/opt"), fs("/var/lib/tde2hsm")],
        databases,
        unreadable: vec![],
        files: None,
        mounts: vec![],
    }
}

/// A survey of one database a host, from the old HSM.
pub fn surveys(hosts: usize) -> Vec<Survey> {
    (0..hosts).map(|n| survey(n, vec![database(&format!("DB{n}"), n as u64)])).collect()
}

pub fn plan_of(text: &str, facts: &CloudFacts, surveys: &[Survey]) -> Plan {
    let fleet = fleet(text);
    let input = PlanInput { fleet: &fleet, facts, surveys, now: NOW, program: "0.1.0", undo_of: None, only: &[] };
    plan::build(&input).unwrap_or_else(|e| panic!("{e}: {:?}", e.findings()))
}
