//! Both templates, deployed DR first, then every resource asked through its own service's API.

use anyhow::{Result, ensure};
use std::path::Path;
use tde2hsm_infra::{Server, Who, changed, root, script};

fn deployed(who: Who, deploy: &Path, read: &Path) -> Result<(bool, String)> {
    let dir = tempfile::tempdir()?;
    let server = Server::up(who, dir.path(), &[])?;
    // Nothing of it runs here.
    let bootstrap = Path::new("/bin/true");
    let words = [who.name(), &server.endpoint, &deploy.to_string_lossy(), &read.to_string_lossy(), &bootstrap.to_string_lossy()];
    script(who, "deploy.py", &words, &[])
}

fn made_as_written(who: Who) -> Result<()> {
    let infra = root().join("infra");
    let (content, text) = deployed(who, &infra, &infra)?;
    println!("{text}");
    ensure!(content, "{} made something else of the templates:\n{text}", who.name());
    Ok(())
}

#[test]
fn moto_makes_of_the_templates_what_they_say() -> Result<()> {
    made_as_written(Who::Moto)
}

#[test]
fn ministack_makes_of_the_templates_what_they_say() -> Result<()> {
    made_as_written(Who::MiniStack)
}

/// The comparison itself: what was deployed from a changed template is not taken for the real one.
#[test]
fn a_deployment_of_another_template_is_told_from_ours() -> Result<()> {
    let infra = root().join("infra");
    let dir = tempfile::tempdir()?;
    let changes = [
        ("source.yaml", "event: [createSnapshots]", "event: [copySnapshot]", "SnapshotSetRule EventPattern"),
        ("source.yaml", "Default: rate(30 minutes)", "Default: rate(31 minutes)", "CopyHsmBackupsTick ScheduleExpression"),
        ("source.yaml", "ec2:CreateAction: CopySnapshot", "ec2:CreateAction: CreateSnapshot", "CopySnapshotsRole Policies"),
        ("dr.yaml", "BlockPublicPolicy: true", "BlockPublicPolicy: false", "Records PublicAccessBlockConfiguration"),
        ("dr.yaml", "EnableKeyRotation: true", "EnableKeyRotation: false", "CopiesKey EnableKeyRotation"),
        ("dr.yaml", "FromPort: 2223, ToPort: 2225", "FromPort: 0, ToPort: 65535", "DrillSecurityGroup SecurityGroupEgress"),
        ("dr.yaml", "Handler: expire-copies", "Handler: settle-copies", "ExpireCopies Handler"),
        ("dr.yaml", "TDE2HSM_DRY_RUN: !Ref ExpireDryRun", "TDE2HSM_DRY_RUN: !Ref DryRun", "ExpireCopies Environment"),
    ];
    changed(dir.path(), &changes.map(|(file, from, to, _)| (file, from, to)))?;
    let (content, text) = deployed(Who::MiniStack, dir.path(), &infra)?;
    ensure!(!content, "a changed template passed:\n{text}");
    for (_, _, to, told) in changes {
        ensure!(text.contains(&format!("{told}:")), "`{to}` was not noticed:\n{text}");
    }
    Ok(())
}
