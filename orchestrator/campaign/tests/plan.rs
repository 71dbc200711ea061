//! The plan as a value, and as people read it.

mod common;

use common::*;
use tde2hsm_campaign::plan::{self, Plan, PlanError, PlanInput};
use tde2hsm_campaign::render;
use tde2hsm_protocol::survey::*;
use tde2hsm_protocol::*;

/// Five hosts: an HSM source of two databases, one typed; sqlnet on 12.2; software sources; one refused.
fn fleet_text() -> String {
    let mut text = FLEET.replace(
        "[options]",
        "[options]\noracle_matrix = [\"oracle-12.2/sdk-5/hsm2m.medium/rhel-8\"]\naccept = [\"TDE0172 tested in May\", \"TDE0152\"]",
    );
    text = text.replace("budget = 4", "budget = 2\nfailure_domain = \"rack\"");
    text.push_str(&format!(
        "[window]\nnot_before = 2026-11-24T22:00:00Z\nnot_after = 2026-11-25T02:00:00Z\n[[hosts]]\ninstance = \"{}\"\n[[hosts.databases]]\nsid = \"OE\"\nauto_open = \"typed\"\nrestart_proof = \"skip\"\n",
        instance(0)
    ));
    text
}

fn sqlnet(name: &str, seed: u64, method: &str) -> Database {
    let mut db = if method == "HSM" { database(name, seed) } else { software(name, seed) };
    db.keystore = KeystoreConfig::Sqlnet {
        file: "/u01/app/oracle/product/12.2.0/dbhome_1/network/admin/sqlnet.ora".to_owned(),
        method: method.to_owned(),
        directory: Some("/u01/app/oracle/admin/$ORACLE_SID/wallet".to_owned()),
        shared_by: vec![],
    };
    db.facts.as_mut().expect("facts").version = "12.2.0.1.0".to_owned();
    db
}

fn world() -> Vec<Survey> {
    let mut refused = database("RAC1", 7);
    refused.facts.as_mut().expect("facts").rac = true;
    vec![
        survey(0, vec![database("HR", 1), database("OE", 2)]),
        survey(1, vec![sqlnet("FIN", 3, "HSM")]),
        survey(2, vec![software("SW", 4)]),
        survey(3, vec![sqlnet("SWNET", 5, "FILE")]),
        survey(4, vec![refused]),
    ]
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("writes");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{path} differs; UPDATE_GOLDEN=1 writes it anew:\n{text}");
}

#[test]
fn plan_show_is_as_people_have_read_it() {
    let plan = plan_of(&fleet_text(), &facts(5), &world());
    let text = render::plan(&plan);
    // Values that change with every field a plan gains.
    golden("plan.txt", &text.replace(&plan.digest().to_string(), "DIGEST"));
}

#[test]
fn h27_restarts_are_stated_exactly_by_source_and_style() {
    let plan = plan_of(&fleet_text(), &facts(5), &world());
    let of = |sid: &str| {
        let mut all = plan.hosts.iter().flat_map(|h| &h.databases);
        let found = all.find(|d| d.order.sid.as_str() == sid).expect("planned");
        (found.restarts.swap, found.restarts.proof)
    };
    assert_eq!(of("HR"), (1, 1));
    assert_eq!(of("OE"), (1, 0), "its proof is waived");
    assert_eq!(of("FIN"), (1, 1));
    assert_eq!(of("SW"), (0, 1), "parameter style, nothing mapped");
    assert_eq!(of("SWNET"), (1, 1), "sqlnet style");
    let mut mapped = world();
    let library = mapped[2].provider.libraries[0].path.clone();
    mapped[2].provider.mapped = vec![Mapping { pid: 9, path: library, deleted: false, sid: Some(sid("SW")) }];
    let plan = plan_of(&fleet_text(), &facts(5), &mapped);
    let sw = plan.hosts.iter().flat_map(|h| &h.databases).find(|d| d.order.sid.as_str() == "SW").expect("planned");
    assert_eq!(sw.restarts.swap, 1, "it would keep the library that it has mapped");
}

#[test]
fn a_plan_reads_back_and_an_edited_one_is_refused() {
    let plan = plan_of(&fleet_text(), &facts(5), &world());
    let text = plan.to_json();
    assert_eq!(Plan::from_json(&text).expect("reads"), plan);
    let refused = |text: &str| Plan::from_json(text).expect_err("refused");
    for (from, to) in [("\"budget\": 2", "\"budget\": 9"), ("\"HR\"", "\"HX\""), (version(1).as_str(), version(2).as_str())] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        let error = refused(&edited);
        assert!(matches!(error, PlanError::Hash { .. }), "{error}");
        assert_eq!(error.code(), Code::PLAN_UNREADABLE);
    }
    assert!(matches!(refused(&text.replacen("\"tde2hsm_plan\": 1", "\"tde2hsm_plan\": 2", 1)), PlanError::Version(2)));
    assert!(matches!(refused(&text.replacen("\"waves\"", "\"wawes\"", 1)), PlanError::Json(_)));
    assert!(matches!(refused("{}"), PlanError::Json(_)));
    // Spacing is not content.
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(Plan::from_json(&value.to_string()).expect("reads").digest(), plan.digest());
}

#[test]
fn the_same_facts_make_the_same_plan() {
    let first = plan_of(&fleet_text(), &facts(5), &world());
    let mut turned = world();
    turned.reverse();
    let mut cloud = facts(5);
    cloud.instances.reverse();
    cloud.managed.reverse();
    assert_eq!(plan_of(&fleet_text(), &cloud, &turned).digest(), first.digest());
}

#[test]
fn h13_secrets_are_pinned_each_once_with_those_who_can_prove_them() {
    let plan = plan_of(&fleet_text(), &facts(5), &world());
    let names: Vec<_> = plan.secrets.iter().map(|s| (s.secret.arn.clone(), s.secret.version.clone())).collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|(_, v)| *v == version(1)));
    let of = |name: &str| plan.secrets.iter().find(|s| s.secret.arn == arn(name)).expect("pinned").provers.clone();
    assert_eq!(of("cloudhsm").len(), 4);
    let mut old = of("old-hsm");
    old.sort();
    assert_eq!(old, vec![instance(0), instance(1)], "only where the old provider is in place");
    let mut software = of("software");
    software.sort();
    assert_eq!(software, vec![instance(2), instance(3)], "only where a keystore opens with it today");
}

#[test]
fn a_plan_without_a_host_is_refused_with_what_stands_in_the_way() {
    let fleet = fleet(FLEET);
    let mut surveys = surveys(2);
    for survey in &mut surveys {
        survey.databases[0].facts.as_mut().expect("facts").rac = true;
    }
    let cloud = facts(2);
    let input =
        PlanInput { fleet: &fleet, facts: &cloud, surveys: &surveys, now: NOW, program: "0.1.0", undo_of: None, only: &[] };
    let error = plan::build(&input).expect_err("refused");
    assert_eq!(error.code(), Code::PLAN_REFUSED);
    assert_eq!(error.findings().iter().map(|f| f.code).collect::<Vec<_>>(), vec![Code::RAC_REFUSED; 2]);
    let clean = common::surveys(2);
    let mut changing = facts(2);
    changing.clusters[0].state = "MODIFY_IN_PROGRESS".to_owned();
    let input = PlanInput { facts: &changing, surveys: &clean, ..input };
    assert!(plan::build(&input).is_err(), "an error on the fleet refuses every host");
}

#[test]
fn h30_the_plan_to_undo_names_the_same_databases_with_the_directions_swapped() {
    let done = plan_of(&fleet_text(), &facts(5), &world());
    let fleet = fleet(&fleet_text());
    let cloud = facts(5);
    let mut surveys = world();
    for survey in &mut surveys {
        survey.provider.libraries[0].path = "/opt/oracle/extapi/64/hsm/libcloudhsm_pkcs11.so".to_owned();
        for database in &mut survey.databases {
            if let KeystoreConfig::WalletRoot { tde_configuration, .. } = &mut database.keystore {
                *tde_configuration = Some("KEYSTORE_CONFIGURATION=HSM|FILE".to_owned());
            }
            if let KeystoreConfig::Sqlnet { method, .. } = &mut database.keystore {
                *method = "HSM".to_owned();
            }
            let facts = database.facts.as_mut().expect("facts");
            facts.wallet.iter_mut().for_each(|r| r.wrl_type = "HSM".to_owned());
            for container in &mut facts.containers {
                if let Some(active) = &mut container.key {
                    *active = ActiveKey { id: key(900 + u64::from(container.con_id)), store: Some(Store::Hsm), activated: None };
                }
            }
        }
    }
    let later = NOW.plus(3 * 86_400);
    surveys.iter_mut().for_each(|s| s.taken_at = later);
    let input = PlanInput {
        fleet: &fleet,
        facts: &cloud,
        surveys: &surveys,
        now: later,
        program: "0.1.0",
        undo_of: Some(&done),
        only: &[],
    };
    let undo = plan::build(&input).unwrap_or_else(|e| panic!("{e}: {:#?}", e.findings()));
    assert_eq!(undo.direction, Direction::Undo);
    assert_eq!(undo.hosts.len(), done.hosts.len());
    for host in &undo.hosts {
        let before = done.host(&host.instance).expect("planned");
        assert_ne!(host.saw, before.saw, "the host is another one by now");
        for (now, then) in host.databases.iter().zip(&before.databases) {
            assert_eq!(now.order, then.order, "the same order, by the same secrets");
            assert_eq!((now.restarts.swap, now.restarts.proof), (1, 0));
        }
    }
    golden("undo.txt", &render::plan(&undo).replace(&undo.digest().to_string(), "DIGEST"));
    let only = [instance(2)];
    let one = plan::build(&PlanInput { only: &only, ..input }).expect("plans");
    assert_eq!(one.hosts.len(), 1);
}

#[test]
fn h08_the_plan_says_what_a_wave_waits_for_and_what_it_costs() {
    let text = |protect: &str| {
        let fleet = FLEET.replace("[waves]", &format!("{protect}\n[waves]"));
        render::plan(&plan_of(&fleet, &facts(2), &surveys(2)))
    };
    let wait = text("[protect]\nwait_hours = 6");
    assert!(wait.contains("READY and its copy in us-west-2") && wait.contains("after 6 h without it"), "{wait}");
    let force = text("[protect]\nmode = \"force\"");
    assert!(force.contains("one HSM is added and removed again, once a wave: 2 HSMs, each billed by the hour"), "{force}");
    let off = text("[protect]\nmode = \"off\"");
    assert!(off.contains("NOBODY WAITS for a backup of the new keys") && off.contains("TDE0870 warning"), "{off}");
}
