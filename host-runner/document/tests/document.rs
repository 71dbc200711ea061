//! The document as the agent gets it, and its script as a shell runs it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tde2hsm_document::{
    Artefact, BucketName, DocumentSource, FileName, ObjectVersion, OsName, PARAMETER_FETCH, PARAMETER_ORDER, Package,
    PackageVersion, REMOVED, removal,
};
use tde2hsm_protocol::{Digest, Region};

fn artefact(file: &str, content: &[u8]) -> Artefact {
    Artefact {
        file: FileName::new(file).unwrap(),
        sha256: Digest::of(content),
        version: ObjectVersion::new("3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY").unwrap(),
    }
}

fn source() -> DocumentSource {
    DocumentSource {
        region: Region::new("eu-central-1").unwrap(),
        bucket: BucketName::new("tde2hsm-123456789012-eu-central-1").unwrap(),
        runner: artefact("host-runner", RUNNER),
        packages: vec![Package {
            os: OsName::new("rhel8").unwrap(),
            artefact: artefact("cloudhsm-pkcs11.rpm", b"a package"),
            name: FileName::new("cloudhsm-pkcs11").unwrap(),
            version: PackageVersion::new("5.17.0-1.el8").unwrap(),
        }],
        ca: Some(artefact("customerCA.crt", b"a certificate")),
    }
}

const RUNNER: &[u8] = b"#!/bin/sh\necho \"ran $1 with ${SSM_Order}\"\n";

/// Set TDE2HSM_BLESS to write the golden file anew; then read the difference.
#[test]
fn golden() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.json");
    let text = source().render().text + "\n";
    if std::env::var_os("TDE2HSM_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "the document changed; bless it if that is meant");
}

/// H34: the agent substitutes `{{ … }}` in steps. Nowhere but in a precondition may it find a parameter, and no
/// parameter may reach the script as text.
#[test]
fn h34_no_parameter_becomes_text_of_a_step() {
    let document: Value = serde_json::from_str(&source().render().text).unwrap();
    for step in document["mainSteps"].as_array().unwrap() {
        assert!(!step["inputs"].to_string().contains("{{"), "{step}");
    }
    assert_eq!(document["parameters"][PARAMETER_ORDER]["interpolationType"], "ENV_VAR");
    assert_eq!(document["parameters"][PARAMETER_FETCH]["allowedValues"], serde_json::json!(["runner", "client"]));
    let pattern = document["parameters"][PARAMETER_ORDER]["allowedPattern"].as_str().unwrap();
    assert!(pattern.starts_with('^') && pattern.ends_with('$'), "the agent does not anchor a pattern (A§1.7): {pattern}");
    assert!(!pattern.contains('{'), "Go's regexp knows no repeat count above 1,000: {pattern}");
}

#[test]
fn h34_every_digest_stands_in_the_text() {
    let source = source();
    let document: Value = serde_json::from_str(&source.render().text).unwrap();
    let steps = document["mainSteps"].as_array().unwrap();
    let script = steps.last().unwrap()["inputs"]["runCommand"].to_string();
    for artefact in [&source.runner, &source.packages[0].artefact, source.ca.as_ref().unwrap()] {
        assert!(script.contains(&format!("{} {}", artefact.file, artefact.sha256)), "{script}");
        let download =
            steps.iter().find(|s| s["inputs"]["sourceInfo"].as_str().is_some_and(|i| i.contains(artefact.file.as_str())));
        let info = download.unwrap()["inputs"]["sourceInfo"].as_str().unwrap();
        assert!(info.contains(&artefact.sha256.to_string()) && info.contains(artefact.version.as_str()), "{info}");
    }
    for code in ["137", "168", "169", "194"] {
        assert!(!script.contains(&format!("exit {code}")), "{code} means something else to the agent");
    }
}

#[test]
fn a_document_is_read_back_and_a_changed_one_is_not_ours() {
    let text = source().render().text;
    assert_eq!(DocumentSource::of_document(&text), Some(source()));
    assert_eq!(DocumentSource::of_document(&text.replace("umask 022", "umask 000")), None);
    assert_eq!(DocumentSource::of_document("{}"), None);
}

/// Runs the script in `root` as its file system would be: absolute places moved below it, ownership left alone
/// where the test does not run as root.
fn run(root: &Path, order: &str) -> Output {
    let document: Value = serde_json::from_str(&source().render().text).unwrap();
    let lines = document["mainSteps"].as_array().unwrap().last().unwrap()["inputs"]["runCommand"].as_array().unwrap().clone();
    let me = String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap();
    let script: Vec<String> = lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect();
    let script = script
        .join("\n")
        .replace("/opt/tde2hsm", &format!("{}/opt/tde2hsm", root.display()))
        .replace("-o root -g root", "")
        .replace("chown root:root \"$t\"; ", "")
        .replace("[ \"$(id -u)\" = 0 ]", "true")
        .replace("${4#0}:0", &format!("${{4#0}}:{}", me.trim()));
    let file = root.join("script.sh");
    std::fs::write(&file, script).unwrap();
    std::fs::create_dir_all(root.join("opt")).unwrap();
    Command::new("bash").arg(&file).current_dir(root).env("SSM_Order", order).output().unwrap()
}

fn download_runner(root: &Path, runner: &[u8]) {
    std::fs::create_dir_all(root.join("runner")).unwrap();
    std::fs::write(root.join("runner/host-runner"), runner).unwrap();
}

fn download(root: &Path, runner: &[u8], package: &[u8]) {
    download_runner(root, runner);
    std::fs::create_dir_all(root.join("client")).unwrap();
    std::fs::write(root.join("client/cloudhsm-pkcs11.rpm"), package).unwrap();
    std::fs::write(root.join("client/customerCA.crt"), b"a certificate").unwrap();
}

#[test]
fn a_good_download_is_installed_and_run_with_the_order_in_its_environment() {
    let dir = tempfile::tempdir().unwrap();
    download_runner(dir.path(), RUNNER);
    let out = run(dir.path(), "$(touch broken)`touch broken`\"; touch broken #");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "ran run with $(touch broken)`touch broken`\"; touch broken #\n", "{out:?}");
    assert!(out.status.success() && out.stderr.is_empty());
    assert!(!dir.path().join("broken").exists());
    assert!(!dir.path().join("opt/tde2hsm/packages").exists(), "packages come only when asked for");
}

/// The agent keeps a command's directory for two weeks, and a fleet is surveyed after each set of snapshots.
#[test]
fn a_download_goes_when_it_is_installed_and_when_it_was_already() {
    let dir = tempfile::tempdir().unwrap();
    for time in ["first", "second"] {
        download(dir.path(), RUNNER, b"a package");
        let out = run(dir.path(), "x");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "ran run with x\n", "{time}: {out:?}");
        for file in ["runner/host-runner", "client/cloudhsm-pkcs11.rpm", "client/customerCA.crt"] {
            assert!(!dir.path().join(file).exists(), "{time}: {file} is left");
        }
    }
}

#[test]
fn packages_and_manifest_are_installed_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    download(dir.path(), RUNNER, b"a package");
    let out = run(dir.path(), "x");
    assert!(out.status.success(), "{out:?}");
    let packages = dir.path().join("opt/tde2hsm/packages");
    let manifest: Value = serde_json::from_slice(&std::fs::read(packages.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["packages"][0]["file"], "cloudhsm-pkcs11.rpm");
    assert_eq!(manifest["packages"][0]["version"], "5.17.0-1.el8");
    assert_eq!(manifest["ca"]["sha256"], Digest::of(b"a certificate").to_string());
    assert_eq!(std::fs::read(packages.join("cloudhsm-pkcs11.rpm")).unwrap(), b"a package");
    let names: Vec<_> = std::fs::read_dir(&packages).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "no temporary file is left: {names:?}");
}

/// A file that is not what the document names is neither installed nor run, and what was there stays.
#[test]
fn h34_a_changed_download_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    download(dir.path(), b"#!/bin/sh\necho evil\n", b"a package");
    let out = run(dir.path(), "x");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("digest"), "{out:?}");
    assert!(!dir.path().join("opt/tde2hsm/host-runner").exists());

    download(dir.path(), RUNNER, b"another package");
    let out = run(dir.path(), "x");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(!dir.path().join("opt/tde2hsm/packages/manifest.json").exists());
    let left: Vec<_> = std::fs::read_dir(dir.path().join("opt/tde2hsm/packages")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn removal_leaves_nothing_of_ours_in_opt_and_is_content_with_nothing() {
    let document: Value = serde_json::from_str(&removal().text).unwrap();
    let lines = document["mainSteps"][0]["inputs"]["runCommand"].as_array().unwrap().clone();
    let dir = tempfile::tempdir().unwrap();
    download(dir.path(), RUNNER, b"a package");
    assert!(run(dir.path(), "x").status.success());
    std::fs::create_dir_all(dir.path().join("var/lib/tde2hsm/journal")).unwrap();
    for again in ["first", "second"] {
        let script = lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n");
        let script = script.replace("/opt/tde2hsm", &format!("{}/opt/tde2hsm", dir.path().display()));
        let out = Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains(REMOVED), "{again}: {out:?}");
        assert!(!dir.path().join("opt/tde2hsm").exists());
    }
    assert!(dir.path().join("var/lib/tde2hsm/journal").exists());
}

#[test]
fn a_missing_download_is_said_and_a_damaged_runner_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(dir.path(), "x");
    assert!(String::from_utf8_lossy(&out.stdout).contains("not downloaded"), "{out:?}");
    download(dir.path(), RUNNER, b"a package");
    std::fs::create_dir_all(dir.path().join("opt/tde2hsm")).unwrap();
    std::fs::write(dir.path().join("opt/tde2hsm/host-runner"), b"half of a ru").unwrap();
    let out = run(dir.path(), "x");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "ran run with x\n", "{out:?}");
}
