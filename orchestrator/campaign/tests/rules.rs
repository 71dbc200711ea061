//! A test a rule: one thing planted makes exactly that finding, a clean fleet makes none, and a rule without a test here is
//! a failure of its own.

mod common;

use common::*;
use std::collections::BTreeSet;
use tde2hsm_campaign::facts::*;
use tde2hsm_campaign::plan;
use tde2hsm_campaign::rules::{self, Context, Finding};
use tde2hsm_protocol::survey::*;
use tde2hsm_protocol::*;

struct World {
    fleet: String,
    facts: CloudFacts,
    surveys: Vec<Survey>,
}

impl World {
    fn clean() -> World {
        World { fleet: FLEET.to_owned(), facts: facts(1), surveys: vec![survey(0, vec![database("HR", 1)])] }
    }

    fn db(&mut self) -> &mut Database {
        &mut self.surveys[0].databases[0]
    }

    fn facts(&mut self) -> &mut Facts {
        self.db().facts.as_mut().expect("facts")
    }

    fn options(&mut self, line: &str) {
        self.fleet = self.fleet.replace("[options]", &format!("[options]\n{line}"));
    }

    fn find(&self) -> Vec<Finding> {
        let fleet = fleet(&self.fleet);
        let targets = plan::targets(&fleet, &self.facts);
        rules::all(&Context {
            fleet: &fleet,
            facts: &self.facts,
            surveys: &self.surveys,
            targets: &targets,
            now: NOW,
            undo_of: None,
        })
    }
}

type Plant = fn(&mut World);

fn become_software(w: &mut World) {
    w.surveys = vec![survey(0, vec![software("HR", 1)])];
}

fn become_112(w: &mut World) {
    w.facts().version = "11.2.0.4.0".to_owned();
    w.options("oracle_matrix = [\"oracle-11/sdk-5/hsm2m.medium/rhel-8\"]");
}

/// Code, severity, what is planted.
const CASES: &[(Code, Severity, Plant)] = &[
    (Code::TARGETS_EMPTY, Severity::Error, |w| w.facts.instances.clear()),
    (Code::CLUSTER_MISSING, Severity::Error, |w| w.facts.clusters.clear()),
    (Code::CLUSTER_NOT_ACTIVE, Severity::Error, |w| w.facts.clusters[0].state = "UPDATE_IN_PROGRESS".to_owned()),
    (Code::CLUSTER_HSMS, Severity::Error, |w| w.facts.clusters[0].hsms[1].state = "DEGRADED".to_owned()),
    (Code::CLUSTER_HSMS, Severity::Warning, |w| w.facts.clusters[0].hsms[1].az = Some("us-east-1a".to_owned())),
    (Code::CLUSTER_CHANGING, Severity::Error, |w| w.facts.clusters[0].state = "MODIFY_IN_PROGRESS".to_owned()),
    (Code::CLUSTER_CHANGING, Severity::Error, |w| w.facts.clusters[0].state = "ROLLBACK_IN_PROGRESS".to_owned()),
    (Code::CLUSTER_ROLLBACK, Severity::Error, |w| w.facts.clusters[0].rollback_expiration = Some(NOW.plus(60))),
    (Code::ESCROW_UNNAMED, Severity::Error, |w| {
        w.fleet = w.fleet.replace("[escrow]\nprefix = \"tde/escrow\"\nreplica_regions = [\"us-west-2\"]\n", "");
    }),
    (Code::ESCROW_UNNAMED, Severity::Warning, |w| w.fleet = w.fleet.replace("[\"us-west-2\"]", "[]")),
    (Code::PROTECT_OFF, Severity::Warning, |w| w.fleet = w.fleet.replace("[waves]", "[protect]\nmode = \"off\"\n[waves]")),
    (Code::PROTECT_ONE_REGION, Severity::Warning, |w| {
        let (from, to) = (w.fleet.find("[dr]").expect("there"), w.fleet.find("[[targets]]").expect("there"));
        w.fleet.replace_range(from..to, "");
    }),
    (Code::DOCUMENT_FACTS, Severity::Error, |w| w.facts.document = None),
    (Code::SECRET_MISSING, Severity::Error, |w| w.facts.secrets.retain(|s| s.arn != arn("old-hsm"))),
    (Code::SECRET_MISSING, Severity::Error, |w| w.facts.secrets[1].deleted = true),
    (Code::SECRET_MISSING, Severity::Error, |w| w.facts.secrets[1].current = None),
    (Code::SECRET_FOREIGN, Severity::Error, |w| {
        w.fleet = w.fleet.replace("us-east-1:123456789012:secret:tde/software", "us-west-2:123456789012:secret:tde/software");
    }),
    (Code::SECRET_ROTATED, Severity::Warning, |w| {
        w.fleet = w.fleet.replace("old-hsm-AbCdEf\"", &format!("old-hsm-AbCdEf\", version = \"{}\"", version(1)));
        w.facts.secrets[0].current = Some(version(2));
    }),
    (Code::CONNECTIONS, Severity::Error, |w| w.facts().processes = 901),
    (Code::KEY_QUOTA, Severity::Error, |w| {
        let facts = w.facts();
        let (mut pdb, mut row) = (facts.containers[2].clone(), facts.wallet[2].clone());
        for n in 4..8400 {
            pdb.con_id = n;
            pdb.name = ContainerName::new(format!("PDB{n}")).expect("name");
            row.con_id = n;
            facts.containers.push(pdb.clone());
            facts.wallet.push(row.clone());
        }
    }),
    (Code::KEY_QUOTA, Severity::Error, |w| {
        w.facts.clusters[0].hsm_type = "hsm9.large".to_owned();
        w.options("oracle_matrix = [\"oracle-19/sdk-5/hsm9.large/rhel-8\"]");
    }),
    (Code::INSTANCE_STATE, Severity::Error, |w| w.facts.instances[0].state = "stopped".to_owned()),
    (Code::AGENT_OFFLINE, Severity::Error, |w| w.facts.managed[0].ping = Ping::ConnectionLost),
    (Code::AGENT_OFFLINE, Severity::Error, |w| w.facts.managed.clear()),
    (Code::AGENT_OLD, Severity::Error, |w| w.facts.managed[0].agent_version = "3.3.2745.9999".to_owned()),
    (Code::AGENT_OLD, Severity::Error, |w| w.facts.managed[0].agent_version = "unknown".to_owned()),
    (Code::AGENT_PLATFORM, Severity::Error, |w| w.facts.managed[0].platform = "Windows".to_owned()),
    (Code::HSM_RULES, Severity::Error, |w| w.facts.security_groups[0].ingress[0].to_port = Some(2224)),
    (Code::HSM_RULES, Severity::Error, |w| w.facts.security_groups[1].egress.clear()),
    (Code::HSM_RULES, Severity::Error, |w| {
        w.facts.security_groups[0].ingress[0].peers = vec![Peer::PrefixList("pl-1".to_owned())]
    }),
    (Code::HSM_RULES, Severity::Error, |w| w.facts.clusters[0].security_group = None),
    (Code::HSM_ROUTE, Severity::Error, |w| w.facts.instances[0].vpc = Some("vpc-2".to_owned())),
    (Code::HSM_ROUTE, Severity::Error, |w| {
        w.facts.instances[0].vpc = Some("vpc-2".to_owned());
        let route = |cidr: &str, active| Route { cidr: cidr.to_owned(), active };
        let routes = vec![route("10.0.1.0/24", true), route("10.0.2.0/24", false), route("0.0.0.0/0", true)];
        w.facts.routes = vec![SubnetRoutes { subnet: "subnet-1".to_owned(), routes }];
    }),
    (Code::TAG_MISSING, Severity::Warning, |w| w.fleet = w.fleet.replace("[waves]", "[waves]\nfailure_domain = \"site\"")),
    (Code::SURVEY_MISSING, Severity::Error, |w| w.surveys.clear()),
    (Code::SURVEY_OLD, Severity::Error, |w| {
        w.surveys[0].taken_at = NOW.plus(-25 * 3600);
    }),
    (Code::SURVEY_IDENTITY, Severity::Error, |w| w.surveys[0].account = AccountId::new("999999999999").expect("id")),
    (Code::FACT_UNKNOWN, Severity::Error, |w| {
        w.surveys[0].unreadable.push(Unreadable { what: "/proc".to_owned(), why: "permission denied".to_owned() });
    }),
    (Code::FACT_UNKNOWN, Severity::Error, |w| w.db().pmon = None),
    (Code::CLUSTERWARE_REFUSED, Severity::Error, |w| w.surveys[0].clusterware = true),
    (Code::SDK3_REFUSED, Severity::Error, |w| w.surveys[0].provider.packages = vec!["cloudhsm-client-3.4.4".to_owned()]),
    (Code::OS_PACKAGE, Severity::Error, |w| w.facts.document.as_mut().expect("document").packages.clear()),
    (Code::MATRIX, Severity::Error, |w| w.surveys[0].os.id = "ol".to_owned()),
    (Code::MATRIX, Severity::Error, |w| w.facts().version = "12.2.0.1.0".to_owned()),
    (Code::MATRIX, Severity::Error, |w| w.surveys[0].os.version = "8.2".to_owned()),
    (Code::MATRIX, Severity::Warning, |w| {
        w.facts().version = "12.2.0.1.0".to_owned();
        w.options("oracle_matrix = [\"oracle-12.2/sdk-5/hsm2m.medium/rhel-8\"]");
    }),
    (Code::SPACE, Severity::Error, |w| w.surveys[0].filesystems[2].free_bytes = 1 << 20),
    (Code::NOEXEC, Severity::Error, |w| w.surveys[0].filesystems[2].noexec = true),
    (Code::READ_ONLY_MOUNT, Severity::Error, |w| w.surveys[0].filesystems[3].readonly = true),
    (Code::AUTOSTART, Severity::Warning, |w| w.surveys[0].autostarts = vec!["dbora.service".to_owned()]),
    (Code::LIBRARIES, Severity::Error, |w| {
        let mut second = w.surveys[0].provider.libraries[0].clone();
        second.path = "/opt/oracle/extapi/64/hsm/oldhsm/7.3.0/libcryptoki_oldhsm.so.bak".to_owned();
        w.surveys[0].provider.libraries.push(second);
    }),
    (Code::LIBRARIES, Severity::Error, |w| w.surveys[0].provider.libraries.clear()),
    (Code::LIBRARY_DELETED, Severity::Error, |w| w.surveys[0].provider.mapped[0].deleted = true),
    (Code::LIBRARY_STRANGER, Severity::Error, |w| {
        let mut mapping = w.surveys[0].provider.mapped[0].clone();
        mapping.sid = None;
        w.surveys[0].provider.mapped.push(mapping);
    }),
    (Code::CLOUDHSM_IN_USE, Severity::Error, |w| w.surveys[0].provider.cloudhsm_mapped = true),
    (Code::KEYSTORE_SHARED, Severity::Error, |w| {
        let mut second = database("OE", 2);
        second.keystore_dir = w.db().keystore_dir.clone();
        w.surveys[0] = survey(0, vec![w.db().clone(), second]);
    }),
    (Code::DATABASE_DOWN, Severity::Error, |w| {
        let mut second = database("OE", 2);
        second.state = InstanceState::Down;
        second.facts = None;
        second.pmon = None;
        let mapped = w.surveys[0].provider.mapped.clone();
        w.surveys[0] = survey(0, vec![w.db().clone(), second]);
        w.surveys[0].provider.mapped = mapped;
    }),
    (Code::KEY_STORE_UNKNOWN, Severity::Error, |w| w.facts().containers[2].key.as_mut().expect("key").store = None),
    (Code::KEYS_MIXED, Severity::Error, |w| w.facts().containers[2].key.as_mut().expect("key").store = Some(Store::Software)),
    (Code::NOTHING_TO_DO, Severity::Error, |w| {
        let db = w.db();
        db.keystore = KeystoreConfig::None;
        let facts = w.facts();
        facts.tablespaces.clear();
        facts.containers.iter_mut().for_each(|c| c.key = None);
        w.surveys[0].provider.mapped.clear();
    }),
    (Code::SECRET_UNNAMED, Severity::Error, |w| {
        let line = w.fleet.lines().find(|l| l.starts_with("old_hsm")).expect("line").to_owned();
        w.fleet = w.fleet.replace(&line, "");
    }),
    (Code::VERSION_REFUSED, Severity::Error, |w| {
        w.facts().version = "18.0.0.0.0".to_owned();
        w.options("oracle_matrix = [\"oracle-18/sdk-5/hsm2m.medium/rhel-8\"]");
    }),
    (Code::HSM_112_REFUSED, Severity::Error, become_112),
    (Code::RAC_REFUSED, Severity::Error, |w| w.facts().rac = true),
    (Code::DATA_GUARD_REFUSED, Severity::Error, |w| w.facts().data_guard = true),
    (Code::LOGICAL_STANDBY_REFUSED, Severity::Error, |w| w.facts().role = "LOGICAL STANDBY".to_owned()),
    (Code::ISOLATED_PDB_REFUSED, Severity::Error, |w| w.facts().wallet[2].keystore_mode = Some("ISOLATED".to_owned())),
    (Code::ASM_KEYSTORE_REFUSED, Severity::Error, |w| {
        let tde_configuration = Some("KEYSTORE_CONFIGURATION=HSM|FILE".to_owned());
        w.db().keystore = KeystoreConfig::WalletRoot { wallet_root: "+DATA/HR/wallet".to_owned(), tde_configuration };
        w.db().keystore_dir = None;
    }),
    (Code::DATABASE_ROLE, Severity::Error, |w| w.facts().role = "PHYSICAL STANDBY".to_owned()),
    (Code::DATABASE_MODE, Severity::Error, |w| {
        w.db().state = InstanceState::OpenReadOnly;
        w.facts().open_mode = "READ ONLY".to_owned();
    }),
    (Code::PDB_MODE, Severity::Error, |w| w.facts().containers[2].open_mode = "MOUNTED".to_owned()),
    (Code::RESTRICTED, Severity::Error, |w| w.facts().containers[2].restricted = true),
    (Code::RESTRICTED, Severity::Error, |w| w.facts().restricted = true),
    (Code::KEYSTORE_CONFIGURATION, Severity::Error, |w| {
        w.db().keystore = KeystoreConfig::WalletRoot {
            wallet_root: "/u01/app/oracle/admin/HR/wallet".to_owned(),
            tde_configuration: Some("KEYSTORE_CONFIGURATION=FILE|HSM".to_owned()),
        };
    }),
    (Code::KEYSTORE_CONFIGURATION, Severity::Error, |w| {
        w.db().keystore = KeystoreConfig::Unreadable { why: "two values for METHOD".to_owned() };
    }),
    (Code::KEYSTORE_IS_CLOSED, Severity::Error, |w| w.facts().wallet[2].status = "CLOSED".to_owned()),
    (Code::KEYSTORE_IS_CLOSED, Severity::Error, |w| w.facts().wallet.clear()),
    (Code::SQLNET_SHARED, Severity::Error, |w| {
        w.db().keystore = KeystoreConfig::Sqlnet {
            file: "/u01/app/oracle/product/19.0.0/dbhome_1/network/admin/sqlnet.ora".to_owned(),
            method: "HSM".to_owned(),
            directory: Some("/u01/app/oracle/admin/wallet".to_owned()),
            shared_by: vec![sid("HR"), sid("OE")],
        };
    }),
    (Code::KEYSTORE_EPHEMERAL, Severity::Error, |w| w.surveys[0].filesystems[1].ephemeral = true),
    (Code::KEYSTORE_EPHEMERAL, Severity::Error, |w| w.surveys[0].filesystems.clear()),
    (Code::KEYSTORE_LARGE, Severity::Error, |w| {
        become_software(w);
        w.db().keystore_files[0].size = 65_537;
    }),
    (Code::OLD_KEY_TABLESPACE_HSM, Severity::Error, |w| w.facts().tablespaces[0].access = Access::ReadOnly),
    (Code::OLD_KEY_TABLESPACE_HSM, Severity::Error, |w| w.facts().tablespaces[0].access = Access::Offline),
    (Code::OLD_KEY_TABLESPACE, Severity::Warning, |w| {
        become_software(w);
        w.facts().tablespaces[0].access = Access::ReadOnly;
    }),
    (Code::TABLESPACE_STATUS, Severity::Error, |w| w.facts().tablespaces[0].status = "REKEYING".to_owned()),
    (Code::BACKUP_MISSING, Severity::Error, |w| w.facts().last_full_backup = None),
    (Code::BACKUP_MISSING, Severity::Error, |w| w.facts().last_full_backup = Some(NOW.plus(-25 * 3600))),
    (Code::NOARCHIVELOG, Severity::Error, |w| w.facts().log_mode = "NOARCHIVELOG".to_owned()),
    (Code::ARCHIVER_STUCK, Severity::Error, |w| w.facts().blockers.archiver_stuck = true),
    (Code::RECOVERY_AREA_FULL, Severity::Error, |w| w.facts().blockers.recovery_area_used = Some(95)),
    (Code::RESTORE_POINT, Severity::Error, |w| {
        w.facts().restore_points = vec![RestorePoint { name: "BEFORE".to_owned(), guaranteed: true, time: None }];
    }),
    (Code::FLASHBACK, Severity::Error, |w| w.facts().flashback = true),
    (Code::FLASHBACK, Severity::Warning, |w| {
        become_software(w);
        w.facts().flashback = true;
    }),
    (Code::CAPTURE_ACTIVE, Severity::Error, |w| w.facts().capture = true),
    (Code::DATAFILES_OFFLINE, Severity::Error, |w| w.facts().blockers.offline_datafiles = 1),
    (Code::FILES_NEED_RECOVERY, Severity::Error, |w| w.facts().blockers.files_needing_recovery = 1),
    (Code::BACKUP_MODE, Severity::Warning, |w| w.facts().blockers.backup_mode_files = 1),
    (Code::LONG_TRANSACTIONS, Severity::Warning, |w| w.facts().blockers.long_transactions = 1),
    (Code::JOBS_RUNNING, Severity::Warning, |w| w.facts().blockers.rman_jobs = 1),
    (Code::JOBS_RUNNING, Severity::Warning, |w| w.facts().blockers.data_pump_jobs = 1),
    (Code::AUTO_OPEN_UNDECIDED, Severity::Error, |w| w.fleet = w.fleet.replace("auto_open = \"enable\"", "")),
    (Code::AUTO_OPEN_LOST, Severity::Warning, |w| w.fleet = w.fleet.replace("\"enable\"", "\"typed\"")),
    (Code::SPFILE_NONE, Severity::Error, |w| w.facts().spfile = None),
    (Code::SPFILE_PENDING, Severity::Warning, |w| w.facts().pending = vec!["sga_target".to_owned()]),
    (Code::OWNER_ROOT, Severity::Error, |w| w.db().owner.uid = 0),
    (Code::HOME_REPLACED, Severity::Error, |w| w.db().pmon.as_mut().expect("pmon").binary_replaced = true),
    (Code::ENVIRONMENT_DIFFERS, Severity::Error, |w| {
        w.db().pmon.as_mut().expect("pmon").oracle_home = Some("/u01/app/oracle/product/19.0.0/dbhome_2".to_owned());
    }),
    (Code::ENVIRONMENT_DIFFERS, Severity::Error, |w| {
        w.db().pmon.as_mut().expect("pmon").tns_admin = Some("/etc/oracle".to_owned())
    }),
    (Code::ENVIRONMENT_DIFFERS, Severity::Error, |w| w.db().in_oratab = false),
    (Code::HOST_CGROUP, Severity::Warning, |w| {
        w.db().pmon.as_mut().expect("pmon").cgroup = "/system.slice/amazon-ssm-agent.service".to_owned();
    }),
];

#[test]
fn a_clean_fleet_has_no_finding() {
    assert_eq!(World::clean().find(), vec![]);
    let mut software = World::clean();
    become_software(&mut software);
    assert_eq!(software.find(), vec![]);
}

#[test]
fn each_planted_thing_makes_exactly_its_own_finding() {
    let mut tried = 0;
    for (number, (code, severity, plant)) in CASES.iter().enumerate() {
        let mut world = World::clean();
        plant(&mut world);
        let found = world.find();
        let own: Vec<_> = found.iter().filter(|f| f.code == *code).collect();
        assert!(!own.is_empty(), "case {number}: {code} was not found, but {found:#?}");
        assert!(
            own.iter().all(|f| f.severity == *severity && !f.message.is_empty() && !f.way_out.is_empty()),
            "case {number}: {own:#?}"
        );
        // An HSM type that nobody knows, or a version that is not supported, is also a cell without AWS's word: a warning.
        let others: Vec<_> = found
            .iter()
            .filter(|f| f.code != *code)
            .filter(|f| !(f.code == Code::MATRIX && f.severity == Severity::Warning))
            .collect();
        assert!(others.is_empty(), "case {number}: planting {code} made {others:#?}");
        tried += 1;
    }
    println!("{tried} things planted");
}

#[test]
fn every_code_of_a_finding_has_a_case() {
    let planted: BTreeSet<u16> = CASES.iter().map(|(code, _, _)| code.number()).collect();
    let elsewhere = [Code::ALREADY_MIGRATED, Code::NOT_TO_UNDO].map(Code::number);
    let missing: Vec<_> = CATALOGUE
        .iter()
        .map(|info| info.code)
        .filter(|c| (100..200).contains(&c.number()) && !planted.contains(&c.number()) && !elsewhere.contains(&c.number()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_database_on_cloudhsm_is_a_note_and_its_host_is_planned_for_the_others() {
    let mut world = World::clean();
    world.surveys[0].provider.libraries[0].path = "/opt/oracle/extapi/64/hsm/libcloudhsm_pkcs11.so".to_owned();
    let codes: Vec<_> = world.find().iter().map(|f| (f.code, f.severity)).collect();
    assert_eq!(codes, vec![(Code::ALREADY_MIGRATED, Severity::Note), (Code::NOTHING_TO_DO, Severity::Error)]);
}

#[test]
fn only_warnings_can_be_accepted_and_only_where_they_were_named() {
    let mut world = World::clean();
    world.surveys[0].autostarts = vec!["dbora.service".to_owned()];
    world.facts().rac = true;
    world.options(&format!("accept = [\"TDE0158 {} stopped by hand\", \"TDE0123\"]", instance(0)));
    let found = world.find();
    let accepted: Vec<_> = found.iter().map(|f| (f.code, f.accepted)).collect();
    assert_eq!(accepted, vec![(Code::AUTOSTART, true), (Code::RAC_REFUSED, false)]);
    world.fleet = world.fleet.replace(instance(0).as_str(), instance(7).as_str());
    assert!(world.find().iter().all(|f| !f.accepted));
}

#[test]
fn h15_a_choice_at_the_database_settles_what_the_fleet_left_open() {
    let mut world = World::clean();
    world.fleet = world.fleet.replace("auto_open = \"enable\"", "");
    world.fleet.push_str(&format!(
        "[[hosts]]\ninstance = \"{}\"\n[[hosts.databases]]\nsid = \"HR\"\nauto_open = \"enable\"\n",
        instance(0)
    ));
    assert_eq!(world.find(), vec![]);
}

#[test]
fn h16_a_directory_of_its_own_for_each_sid_is_no_finding() {
    let mut world = World::clean();
    world.db().keystore = KeystoreConfig::Sqlnet {
        file: "/x/sqlnet.ora".to_owned(),
        method: "HSM".to_owned(),
        directory: Some("/u01/app/oracle/admin/$ORACLE_SID/wallet".to_owned()),
        shared_by: vec![sid("HR"), sid("OE")],
    };
    assert_eq!(world.find(), vec![]);
}

#[test]
fn h36_control_characters_of_a_host_do_not_reach_a_message() {
    let mut world = World::clean();
    world.surveys[0].unreadable.push(Unreadable { what: "\u{1b}[2Jx".to_owned(), why: "a\nb".to_owned() });
    assert!(world.find().iter().all(|f| !f.message.chars().any(char::is_control)));
}

#[test]
fn h30_an_undo_plan_looks_the_other_way() {
    let done = plan_of(FLEET, &facts(1), &World::clean().surveys);
    let mut world = World::clean();
    world.surveys[0].provider.libraries[0].path = "/opt/oracle/extapi/64/hsm/libcloudhsm_pkcs11.so".to_owned();
    world.surveys[0].provider.cloudhsm_mapped = true;
    let find = |world: &World| {
        let fleet = fleet(&world.fleet);
        let targets = vec![instance(0)];
        let context = Context {
            fleet: &fleet,
            facts: &world.facts,
            surveys: &world.surveys,
            targets: &targets,
            now: NOW,
            undo_of: Some(&done),
        };
        rules::all(&context).into_iter().map(|f| f.code).collect::<Vec<_>>()
    };
    assert_eq!(find(&world), vec![]);
    world.facts().tablespaces[0].access = Access::ReadOnly;
    assert_eq!(find(&world), vec![Code::OLD_KEY_TABLESPACE_HSM], "H3 with the directions swapped");
    world.facts().tablespaces[0].access = Access::ReadWrite;
    world.facts().containers[2].key.as_mut().expect("key").store = Some(Store::Software);
    world.facts.clusters[0].state = "DEGRADED".to_owned();
    let warnings = {
        let fleet = fleet(&world.fleet);
        let targets = vec![instance(0)];
        let context = Context {
            fleet: &fleet,
            facts: &world.facts,
            surveys: &world.surveys,
            targets: &targets,
            now: NOW,
            undo_of: Some(&done),
        };
        rules::all(&context)
    };
    let codes: Vec<_> = warnings.iter().map(|f| (f.code, f.severity)).collect();
    let warns = |code| (code, Severity::Warning);
    assert_eq!(
        codes,
        vec![warns(Code::CLUSTER_NOT_ACTIVE), warns(Code::KEYS_MIXED)],
        "a half-done state is no reason not to undo it"
    );
    world.db().sid = sid("OTHER");
    assert!(find(&world).contains(&Code::NOT_TO_UNDO));
}
