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
