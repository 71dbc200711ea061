//! Can the sandbox tell a wrong host-runner from a right one? Ten ways to do the migration wrong by hand, and the right way
//! as the control. The table of `docs/wrong-runners.md` is checked against the one here.

use anyhow::{Result, ensure};
use std::path::PathBuf;
use tde2hsm_e2e::{Verdict, World};

/// Script, and what must tell it.
const WRONG: [(&str, &[Verdict]); 10] = [
    ("no-forward-migrate", &[Verdict::NotOnCloudHsm, Verdict::NeedsOldKeystores, Verdict::ReadsWithoutTarget]),
    ("migrate-twice", &[Verdict::StatementRepeated]),
    ("swap-with-instance-up", &[Verdict::Unreadable, Verdict::NotOnCloudHsm, Verdict::LoginWasted, Verdict::StatementRepeated]),
    ("two-libraries", &[Verdict::NotOnCloudHsm, Verdict::NeedsOldKeystores, Verdict::ReadsWithoutTarget]),
    ("swap-not-done", &[Verdict::NotOnCloudHsm, Verdict::NeedsOldKeystores, Verdict::ReadsWithoutTarget]),
    ("old-pin-auto-login", &[Verdict::LoginWasted, Verdict::NotOnCloudHsm]),
    ("login-retried", &[Verdict::LoginWasted, Verdict::NotOnCloudHsm]),
    ("swap-after-abort", &[Verdict::Unreadable, Verdict::NotOnCloudHsm]),
    ("resend-after-timeout", &[Verdict::StatementRepeated]),
    ("undo-to-plain-hsm", &[Verdict::Unreadable]),
];

fn by_hand(script: &str) -> Result<Vec<Verdict>> {
    let dir = tde2hsm_e2e::scratch()?;
    let world = World::up(&dir.path().join("world"), "small", 7)?;
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wrong");
    let host = world.hosts()?.remove(0);
    let hand = world.root(&host).join("tmp/hand");
    std::fs::create_dir_all(&hand)?;
    for name in ["lib.sh", &format!("{script}.sh")] {
        std::fs::copy(scripts.join(name), hand.join(name))?;
    }
    std::fs::copy(world.client_package()?, hand.join("client.rpm"))?;
    std::fs::copy(world.path("packages/customerCA.crt"), hand.join("customerCA.crt"))?;
    let secret = |name: &str| world.secret(name);
    let variables = [
        format!("OLD_PIN={}", secret("old-hsm")?),
        format!("NEW_PIN={}", secret("cloudhsm")?),
        format!("SOFTWARE_PASSWORD={}", secret("software")?),
        "RPM=/tmp/hand/client.rpm".to_owned(),
        "CA=/tmp/hand/customerCA.crt".to_owned(),
        "HSM_IP=10.0.1.250".to_owned(),
    ];
    let mut command = vec!["env"];
    command.extend(variables.iter().map(String::as_str));
    let script = format!(". /tmp/hand/lib.sh; . /tmp/hand/{script}.sh");
    command.extend(["bash", "-c", &script]);
    let ran = world.exec(&host, &command)?;
    ensure!(ran.stdout.contains("keystore altered."), "the script did nothing: {}{}", ran.stdout, ran.stderr);
    world.verdicts()
}

#[test]
fn the_right_way_by_hand_passes_every_check() {
    assert_eq!(by_hand("right").expect("runs"), []);
}

#[test]
fn each_wrong_runner_is_told_from_a_right_one() {
    for (script, expected) in WRONG {
        let found = by_hand(script).unwrap_or_else(|error| panic!("{script}: {error:#}"));
        for verdict in expected {
            assert!(found.contains(verdict), "{script}: {verdict:?} was not noticed; found {found:?}");
        }
    }
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let page =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/wrong-runners.md")).expect("page");
    for (script, expected) in WRONG {
        let row =
            page.lines().find(|line| line.starts_with(&format!("| `{script}`"))).unwrap_or_else(|| panic!("no row for {script}"));
        for verdict in expected {
            assert!(row.contains(verdict.says()), "{script}: the row does not say `{}`", verdict.says());
        }
    }
}
