//! One role a function, with nothing that it does not use.

use anyhow::{Result, ensure};
use std::path::Path;
use tde2hsm_infra::{Who, root, script};

fn roles(infra: &Path, readme: &Path) -> Result<(bool, String)> {
    let jobs = root().join("orchestrator/dr-driver/src/jobs");
    script(Who::MiniStack, "roles.py", &[&infra.to_string_lossy(), &readme.to_string_lossy(), &jobs.to_string_lossy()], &[])
}

#[test]
fn roles_hold_the_calls_of_their_functions_neither_more_nor_fewer() -> Result<()> {
    let (content, text) = roles(&root().join("infra"), &root().join("lambdas/README.md"))?;
    println!("{text}");
    ensure!(content, "{text}");
    Ok(())
}

#[test]
fn one_right_more_or_less_is_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let readme = std::fs::read_to_string(root().join("lambdas/README.md"))?;
    let templates = [("source.yaml", root().join("infra/source.yaml")), ("dr.yaml", root().join("infra/dr.yaml"))];
    let cases = [
        ("dr.yaml", "MetricName: DatabasesBreached", "MetricName: DatabasesBreach", "which no function emits"),
        (
            "dr.yaml",
            "Action: sns:Publish\n                Resource: !Ref Alarms\n        - PolicyName: keys",
            "Action: [sns:Publish, sns:Subscribe]\n                Resource: !Ref Alarms\n        - PolicyName: keys",
            "may ('sns:Subscribe', 'DR')",
        ),
        ("dr.yaml", "Action: ec2:DeleteSnapshot", "Action: ec2:DescribeVolumes", "calls ('ec2:DeleteSnapshot', 'DR')"),
        (
            "dr.yaml",
            "cloudhsm:${AWS::Region}:${AWS::AccountId}:backup/*\n                Condition:\n                  StringEquals: {\"aws:ResourceTag",
            "cloudhsm:*:${AWS::AccountId}:backup/*\n                Condition:\n                  StringEquals: {\"aws:ResourceTag",
            "may ('cloudhsm:DeleteBackup', '*')",
        ),
        (
            "source.yaml",
            "[secretsmanager:DescribeSecret, secretsmanager:ListSecretVersionIds]",
            "[secretsmanager:DescribeSecret, secretsmanager:GetSecretValue, secretsmanager:ListSecretVersionIds]",
            "may ('secretsmanager:GetSecretValue', 'source')",
        ),
        ("source.yaml", "${RecordsBucket}/surveys/*", "${RecordsBucket}/*", "may ('s3:PutObject', '*')"),
        ("source.yaml", "Principal: {Service: lambda.amazonaws.com}", "Principal: {AWS: \"*\"}", "trusted by"),
        (
            "source.yaml",
            "Bool: {kms:GrantIsForAWSResource: \"true\"}\n                  StringEquals: {kms:ViaService",
            "StringEquals: {kms:ViaService",
            "a key without bounds",
        ),
        (
            "source.yaml",
            "Action: [kms:DescribeKey, kms:Decrypt, kms:ReEncryptFrom]",
            "Action: [kms:DescribeKey, kms:Decrypt, kms:Encrypt, kms:ReEncryptFrom]",
            "the README says",
        ),
    ];
    for (file, from, to, told) in cases {
        for (name, path) in &templates {
            let mut text = std::fs::read_to_string(path)?;
            if *name == file {
                ensure!(text.contains(from), "{file} no longer says `{from}`");
                text = text.replace(from, to);
            }
            std::fs::write(dir.path().join(name), text)?;
        }
        let (content, text) = roles(dir.path(), &root().join("lambdas/README.md"))?;
        ensure!(!content && text.contains(told), "`{to}` was not told as `{told}`:\n{text}");
    }
    // A call that the table has and no role.
    let more = readme.replace(
        "| `settle-copies` | `sns:Publish` |",
        "| `settle-copies` | `ec2:DescribeVolumes` | DR | `*` |\n| `settle-copies` | `sns:Publish` |",
    );
    std::fs::write(dir.path().join("README.md"), more)?;
    let (content, text) = roles(&root().join("infra"), &dir.path().join("README.md"))?;
    ensure!(!content && text.contains("settle-copies calls ('ec2:DescribeVolumes', 'DR')"), "{text}");
    Ok(())
}
