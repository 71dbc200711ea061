//! Sizes hold by construction (design §1): an order for 50 hosts, a report for 12 databases of 40 PDBs, whatever the text in them.

use proptest::prelude::*;
use tde2hsm_protocol::*;

fn key(seed: u64) -> MasterKeyId {
    let digest = Digest::of(&seed.to_le_bytes());
    MasterKeyId(digest.as_bytes()[..16].try_into().expect("16 bytes"))
}

fn report(databases: usize, pdbs: usize, message: String, seed: u64) -> Report {
    let outcomes = [
        Outcome::Done,
        Outcome::Failed { code: Code::STATEMENT_FAILED, retriable: Retriable::No },
        Outcome::Parked { code: Code::STATEMENT_FAILED },
    ];
    Report {
        v: PROTOCOL_VERSION,
        instance: InstanceId::new("i-0123456789abcdef0").expect("id"),
        campaign: CampaignId::new("campaign-2026-11-24-2200").expect("id"),
        generation: Generation(3),
        operation: OperationId::new("op-0123456789abcdef0123456789abcdef").expect("id"),
        at: Timestamp(1_790_000_000),
        outcome: outcomes[seed as usize % 3].clone(),
        step: Some(Step::Migrate),
        message,
        databases: (0..databases)
            .map(|d| DatabaseReport {
                sid: Sid::new(format!("PRODUCTION{d}")).expect("sid"),
                outcome: outcomes[(seed as usize + d) % 3].clone(),
                starts: 2,
                away: 312,
                keys: (0..pdbs)
                    .map(|p| KeyObservation {
                        container: ContainerName::new(format!("PDB_{seed}_{p}")).expect("name"),
                        key: key(seed ^ (d * 1000 + p) as u64),
                        store: Store::Hsm,
                        activated: Timestamp(1_790_000_000 + (seed % 9999) as i64 + p as i64),
                    })
                    .collect(),
                orphans: 1,
                drill: None,
            })
            .collect(),
        logins: vec![LoginProof { secret: 0, result: LoginResult::Proven }],
        journal_head: Digest::of(&seed.to_be_bytes()),
        saw: Some(Digest::of(b"saw").short()),
        detail: Some(DetailRef { digest: Digest::of(&[1]), chunks: 12 }),
        chunk: Chunk::of(&[7; 3000], 1),
        omitted: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_report_always_fits_one_line_and_reads_back(databases in 0usize..=12, pdbs in 0usize..=40, message in "\\PC{0,400}", seed in any::<u64>()) {
        let sent = report(databases, pdbs, message, seed);
        let line = sent.encode();
        prop_assert!(line.len() <= REPORT_LIMIT, "{} characters", line.len());
        prop_assert!(line.is_ascii() && !line.contains('\n'));
        let read = Report::decode(&format!("an agent's own words\n{line}\n")).expect("decodes");
        prop_assert_eq!(&read.outcome, &sent.outcome);
        prop_assert_eq!(&read.operation, &sent.operation);
        prop_assert_eq!(read.journal_head, sent.journal_head);
        prop_assert_eq!(read.detail, sent.detail);
        let kept: usize = read.databases.iter().map(|d| d.keys.len()).sum();
        prop_assert_eq!(read.omitted == 0, read.databases.len() == databases && kept == databases * pdbs);
    }

    #[test]
    fn a_detail_survives_its_chunks_in_any_order(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let detail = wire::deflate(&bytes);
        let whole = DetailRef::of(&detail);
        let mut chunks: Vec<Chunk> = (0..whole.chunks).map(|i| Chunk::of(&detail, i).expect("in range")).collect();
        chunks.reverse();
        prop_assert_eq!(whole.assemble(&chunks).expect("whole"), bytes);
        for chunk in &chunks {
            let mut carrier = report(0, 0, String::new(), 1);
            carrier.chunk = Some(chunk.clone());
            let read = Report::decode(&carrier.encode()).expect("decodes");
            prop_assert_eq!(read.chunk.as_ref(), Some(chunk), "a chunk alone must never be dropped");
        }
        if whole.chunks > 0 {
            chunks.pop();
            prop_assert!(whole.assemble(&chunks).is_err());
        }
    }

    #[test]
    fn nothing_but_an_order_is_read_as_one(text in "[A-Za-z0-9_-]{0,200}") {
        prop_assert!(Order::decode(&text).is_err());
    }
}

#[test]
fn an_order_for_fifty_hosts_of_twelve_databases_fits() {
    let secret = |n: u32| SecretRef {
        arn: SecretArn::new(format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/host-{n}/keystore-AbCdEf"))
            .expect("arn"),
        version: SecretVersion::new(uuid(n)).expect("version"),
    };
    let mut order = Order {
        v: PROTOCOL_VERSION,
        account: AccountId::new("123456789012").expect("id"),
        region: Region::new("eu-central-1").expect("id"),
        campaign: CampaignId::new("change-4711").expect("id"),
        plan: Digest::of(b"plan"),
        generation: Generation(1),
        token: OrderToken::new("t-0123456789abcdef").expect("id"),
        not_before: Timestamp(1_790_000_000),
        not_after: Timestamp(1_790_014_400),
        journal_head: Digest::of(b"head"),
        work: Work::Run { segment: Segment::Cutover, direction: Direction::Do },
        target: Some(Target {
            cluster: ClusterId::new("cluster-abcdefghijk").expect("id"),
            hsms: vec!["10.0.1.5".parse().expect("ip"), "10.0.2.5".parse().expect("ip")],
            key_availability_check: KeyAvailabilityCheck::On,
        }),
        secrets: (0..52).map(secret).collect(),
        escrow: Some(Escrow {
            prefix: EscrowPrefix::new("tde/escrow").unwrap(),
            replica_regions: vec![Region::new("us-west-2").unwrap()],
        }),
        drill: None,
        hosts: Vec::new(),
    };
    for h in 0..50u32 {
        order.hosts.push(HostOrder {
            instance: InstanceId::new(format!("i-{:017x}", u64::from(h) * 0x9e37_79b9_7f4a)).expect("id"),
            operation: OperationId::new(format!("op-{}", &Digest::of(&h.to_le_bytes()).to_string()[..24])).expect("id"),
            saw: Some(Digest::of(&h.to_be_bytes()).short()),
            prove_logins: vec![],
            databases: (0..12)
                .map(|d| DatabaseOrder {
                    sid: Sid::new(format!("PRD{h}X{d}")).expect("sid"),
                    source: Source::OldHsm { pin: 0 },
                    software: h as u16 + 2,
                    cloudhsm: 1,
                    auto_open: AutoOpen::Enable,
                    restart_proof: RestartProof::Do,
                    backup_hours: 24,
                })
                .collect(),
            detail: None,
        });
    }
    let text = order.encode().expect("fits");
    assert!(text.len() <= ORDER_LIMIT, "{}", text.len());
    assert_eq!(Order::decode(&text).expect("reads back"), order);
    order.hosts.push(order.hosts[0].clone());
    assert!(matches!(order.encode(), Err(WireError::TooManyHosts(51))));
}

fn uuid(n: u32) -> String {
    let d = Digest::of(&n.to_le_bytes()).to_string();
    format!("{}-{}-{}-{}-{}", &d[..8], &d[8..12], &d[12..16], &d[16..20], &d[20..32])
}

#[test]
fn h34_an_order_holds_no_path_command_or_unknown_field() {
    let text = r#"{"v":1,"sql":"drop"}"#;
    let packed = {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(wire::deflate(text.as_bytes()))
    };
    assert!(Order::decode(&packed).is_err());
    for bad in ["PROD/../x", "PROD;ls", "PROD ", "1PROD", "", "PROD\n", "\"PROD\""] {
        assert!(Sid::new(bad).is_err(), "{bad:?}");
    }
    for bad in ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:a b", "tde/old-hsm", "arn:aws:s3:::x"] {
        assert!(SecretArn::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn master_key_ids_are_read_in_all_three_spellings() {
    // The example of O§3.8.
    let id: MasterKeyId = "77D947203C1B4F84BF26F9CE81F32EDE".parse().expect("raw");
    assert_eq!("0677D947203C1B4F84BF26F9CE81F32EDE".parse::<MasterKeyId>().expect("hsm"), id);
    assert_eq!("AXfZRyA8G0+Evyb5zoHzLt4AAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse::<MasterKeyId>().expect("software"), id);
}

#[test]
fn a_fetch_of_fifty_hosts_with_a_detail_each_fits_one_command() {
    let hosts = (0..50u32).map(|h| HostOrder {
        instance: InstanceId::new(format!("i-{:017x}", u64::from(h) * 0x9e37_79b9_7f4a)).expect("id"),
        operation: OperationId::new(format!("op-{}", &Digest::of(&h.to_le_bytes()).to_string()[..24])).expect("id"),
        saw: None,
        prove_logins: vec![],
        databases: vec![],
        detail: Some(Digest::of(&h.to_be_bytes())),
    });
    let order = Order {
        v: PROTOCOL_VERSION,
        account: AccountId::new("123456789012").expect("id"),
        region: Region::new("eu-central-1").expect("id"),
        campaign: CampaignId::new("survey-0123456789ab").expect("id"),
        plan: Digest::ZERO,
        generation: Generation(0),
        token: OrderToken::new("t-0123456789abcdef").expect("id"),
        not_before: Timestamp(1_790_000_000),
        not_after: Timestamp(1_790_014_400),
        journal_head: Digest::ZERO,
        work: Work::Fetch { chunk: 65_535 },
        target: None,
        secrets: vec![],
        escrow: None,
        drill: None,
        hosts: hosts.collect(),
    };
    assert_eq!(Order::decode(&order.encode().expect("fits")).expect("reads back"), order);
}

/// A scheduled survey pays one SSM command a chunk.
#[test]
fn h41_the_survey_of_a_typical_host_takes_at_most_ten_chunks() {
    use tde2hsm_protocol::survey::*;
    let text = |n: u64| Digest::of(&n.to_le_bytes()).to_string();
    let id = |n: u64| -> MasterKeyId { text(n)[..32].parse().expect("a key id") };
    let at = |n: u64| Timestamp(1_790_000_000 + (n as i64 * 7919) % 30_000_000);
    let place = |what, path: String, mount: &str| FilePlace { what, path, mounts: Some(vec![mount.to_owned()]) };
    // Four container databases of three PDBs, each container with two encrypted tablespaces and five keys in its past.
    let database = |d: u64| {
        let sid = format!("PRD{d}");
        let home = "/u01/app/oracle/product/19.0.0/dbhome_1".to_owned();
        let name =
            |c: u64| ContainerName::new(if c == 1 { "CDB$ROOT".to_owned() } else { format!("{sid}PDB{c}") }).expect("name");
        let cons = [1_u64, 3, 4, 5];
        let key = |c: u64, n: u64| id(d * 1000 + c * 10 + n);
        let row = |con_id: u64, wrl: &str| WalletRow {
            con_id: con_id as u32,
            wrl_type: wrl.into(),
            wrl_parameter: (wrl == "FILE" && con_id == 1).then(|| format!("/u01/app/oracle/admin/{sid}/wallet/tde/")),
            status: "OPEN".into(),
            wallet_type: if wrl == "FILE" { "AUTOLOGIN" } else { "HSM" }.into(),
            wallet_order: "PRIMARY".into(),
            keystore_mode: Some("UNITED".into()),
        };
        Database {
            sid: Sid::new(sid.clone()).expect("sid"),
            owner: Owner { user: "oracle".into(), uid: 54321, gid: 54321 },
            tns_admin: format!("{home}/network/admin"),
            in_oratab: true,
            state: InstanceState::OpenReadWrite,
            pmon: None,
            keystore: KeystoreConfig::WalletRoot {
                wallet_root: format!("/u01/app/oracle/admin/{sid}/wallet"),
                tde_configuration: Some("KEYSTORE_CONFIGURATION=HSM|FILE".into()),
            },
            keystore_dir: Some(format!("/u01/app/oracle/admin/{sid}/wallet/tde")),
            keystore_files: (0..6)
                .map(|n| KeystoreFile {
                    name: format!("ewallet_20260101{n}_tde2hsm.p12"),
                    size: 4000 + n,
                    sha256: Digest::of(&(d * 10 + n).to_le_bytes()),
                    uid: 54321,
                    mode: 0o600,
                    filesystem: "xfs".into(),
                })
                .collect(),
            auto_login: Some(AutoLogin::Anywhere),
            files: Some(vec![
                place(FileKind::Datafile, format!("/u02/oradata/{sid}"), "/u02"),
                place(FileKind::Datafile, format!("/u03/oradata/{sid}/{}", text(d)), "/u03"),
                place(FileKind::Controlfile, format!("/u02/oradata/{sid}/control01.ctl"), "/u02"),
                place(FileKind::Controlfile, format!("/u04/fra/{sid}/control02.ctl"), "/u04"),
                place(FileKind::RedoLog, format!("/u05/redo/{sid}"), "/u05"),
                place(FileKind::RecoveryArea, "/u04/fra".into(), "/u04"),
                place(FileKind::ParameterFile, format!("{home}/dbs/spfile{sid}.ora"), "/u01"),
                place(FileKind::PasswordFile, format!("{home}/dbs/orapw{sid}"), "/u01"),
                place(FileKind::NetworkConfig, format!("{home}/network/admin"), "/u01"),
                place(FileKind::KeystoreDir, format!("/u01/app/oracle/admin/{sid}/wallet/tde"), "/u01"),
                place(FileKind::OracleHome, home.clone(), "/u01"),
            ]),
            home,
            facts: Some(Facts {
                dbid: 4_000_000 + d,
                name: sid.clone(),
                unique_name: sid.clone(),
                version: "19.0.0.0.0".into(),
                role: "PRIMARY".into(),
                open_mode: "READ WRITE".into(),
                cdb: true,
                log_mode: "ARCHIVELOG".into(),
                restricted: false,
                rac: false,
                data_guard: false,
                capture: false,
                flashback: false,
                spfile: None,
                pending: vec![],
                wallet: cons.iter().flat_map(|c| [row(*c, "HSM"), row(*c, "FILE")]).collect(),
                containers: cons
                    .iter()
                    .map(|c| Container {
                        con_id: *c as u32,
                        name: name(*c),
                        open_mode: "READ WRITE".into(),
                        restricted: false,
                        key: Some(ActiveKey { id: key(*c, 4), store: Some(Store::Hsm), activated: Some(at(d * 100 + c)) }),
                    })
                    .collect(),
                tablespaces: cons
                    .iter()
                    .flat_map(|c| ["DATA", "HISTORY"].map(|space| (*c, space)))
                    .map(|(c, space)| EncryptedTablespace {
                        con_id: c as u32,
                        name: space.into(),
                        key: key(c, 4),
                        access: Access::ReadWrite,
                        status: "NORMAL".into(),
                    })
                    .collect(),
                column_keys: cons.iter().map(|c| ColumnKey { con_id: *c as u32, key: key(*c, 4), tables: 3 }).collect(),
                redo: (1..=4).map(|group| RedoLog { group, status: "INACTIVE".into(), archived: true }).collect(),
                restore_points: vec![],
                blockers: Blockers::default(),
                last_full_backup: Some(at(d)),
                processes: 80,
                processes_limit: 300,
                opens_by_itself: true,
                keys: Some(
                    cons.iter()
                        .flat_map(|c| (0..5).map(|n| (*c, n)))
                        .map(|(c, n)| KnownKey {
                            key: key(c, n),
                            store: Some(if n < 3 { Store::Software } else { Store::Hsm }),
                            container: Some(name(c)),
                            created: Some(at(c * n + d)),
                            activated: Some(at(c * n + d + 1)),
                        })
                        .collect(),
                ),
                kept: Some(Kept::default()),
            }),
        }
    };
    let mount = |n: u64| Mount {
        point: format!("/u0{n}"),
        source: format!("/dev/nvme{n}n1"),
        disks: Some(vec![Disk {
            name: format!("nvme{n}n1"),
            volume: Some(VolumeId::new(format!("vol-{}", &text(n)[..17])).expect("id")),
            ephemeral: false,
        }]),
    };
    let survey = Survey {
        v: 1,
        taken_at: at(1),
        instance: InstanceId::new("i-0123456789abcdef0").expect("id"),
        account: AccountId::new("123456789012").expect("id"),
        region: Region::new("eu-central-1").expect("id"),
        runner_version: "0.1.0".into(),
        os: Os { id: "rhel".into(), version: "8.10".into(), arch: "x86_64".into(), kernel: "4.18.0".into(), systemd: true },
        clusterware: false,
        autostarts: vec![],
        provider: Provider {
            libraries: vec![],
            mapped: vec![],
            packages: vec!["cloudhsm-pkcs11-5.17.0-1".into()],
            cloudhsm_mapped: true,
            vendor: Some(Vendor::CloudHsm),
            cloudhsm_servers: Some(vec!["10.0.1.5".into(), "10.0.2.5".into()]),
        },
        filesystems: vec![],
        databases: (1..=4).map(database).collect(),
        unreadable: vec![],
        files: Some(vec![place(FileKind::Provider, "/opt/oracle/extapi".into(), "/")]),
        mounts: (1..=5).map(mount).collect(),
    };
    let json = serde_json::to_vec(&survey).expect("serialises");
    let chunks = wire::deflate(&json).len().div_ceil(CHUNK_BYTES);
    println!("{} bytes of JSON are {chunks} chunks", json.len());
    assert!(chunks <= 10, "{chunks} chunks");
    assert_eq!(serde_json::from_slice::<Survey>(&json).expect("reads back"), survey);
    // One of a runner that did not look: not known, and no error.
    let mut old: serde_json::Value = serde_json::from_slice(&json).expect("json");
    old.as_object_mut().expect("object").retain(|name, _| name != "files" && name != "mounts");
    old["provider"].as_object_mut().expect("object").retain(|name, _| name != "vendor" && name != "cloudhsm_servers");
    old["databases"].as_array_mut().expect("array").iter_mut().for_each(|database| {
        database.as_object_mut().expect("object").retain(|name, _| name != "files" && name != "auto_login");
        database["facts"].as_object_mut().expect("object").retain(|name, _| name != "keys" && name != "kept");
    });
    let old: Survey = serde_json::from_value(old).expect("an older survey still reads");
    assert!(old.files.is_none() && old.databases[0].files.is_none() && old.provider.vendor.is_none());
    assert!(
        old.databases
            .iter()
            .all(|d| d.auto_login.is_none() && d.facts.as_ref().is_some_and(|f| f.keys.is_none() && f.kept.is_none()))
    );
}
