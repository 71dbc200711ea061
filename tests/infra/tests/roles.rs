//! One role a function, with nothing that it does not use, and one for a drill.

use anyhow::{Result, ensure};
use std::path::Path;
use tde2hsm_infra::{Who, changed, root, script};

fn roles(infra: &Path, readme: &Path) -> Result<(bool, String)> {
    let jobs = root().join("orchestrator/dr-driver/src/jobs");
    let permissions = root().join("docs/permissions.md");
    let words = [infra, readme, &jobs, &permissions].map(|path| path.to_string_lossy().into_owned());
    script(Who::MiniStack, "roles.py", &words.each_ref().map(String::as_str), &[])
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
        ("dr.yaml", "                  - ec2:DescribeVpcEndpoints\n", "", "operator calls ec2:DescribeVpcEndpoints"),
        (
            "dr.yaml",
            "Action: [ssm:DescribeDocument, ssm:SendCommand]",
            "Action: [ssm:DescribeDocument, ssm:GetDocument, ssm:SendCommand]",
            "operator may ssm:GetDocument",
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
        (
            "dr.yaml",
            "backup/*\n                Condition:\n                  StringEquals: {\"aws:ResourceTag/tde2hsm:fleet\": !Ref Fleet}\n                  \"Null\":",
            "backup/*\n                Condition:\n                  StringEquals: {\"aws:ResourceTag/tde2hsm:fleet\": !Ref Fleet}\n                  StringLike:",
            "may ['cloudhsm:DeleteBackup'] without token",
        ),
        (
            "dr.yaml",
            "ListArtefacts\n                Effect: Allow\n                Action: s3:ListBucket",
            "ListArtefacts\n                Effect: Allow\n                Action: s3:GetBucketAcl",
            "DrillHostRole: the agent fetches",
        ),
        (
            "dr.yaml",
            "Principal: \"*\"\n            Action: s3:ListBucket",
            "Principal: \"*\"\n            Action: s3:GetBucketAcl",
            "DrillS3Endpoint: the agent fetches",
        ),
        (
            "dr.yaml",
            "ArnEquals: {aws:PrincipalArn: !GetAtt DrillHostRole.Arn}",
            "StringEquals: {aws:PrincipalAccount: !Ref \"AWS::AccountId\"}",
            "DrillSsmEndpoint answers others than the drill host",
        ),
        (
            "dr.yaml",
            "- cloudhsm:TagResource\n                    - cloudhsm:UntagResource",
            "- cloudhsm:UntagResource",
            "may cloudhsm:TagResource on a cluster that is protected",
        ),
        ("dr.yaml", "secret:[A-Za-z0-9/_+=.@*-]+$", "secret:[A-Za-z0-9/_+=.@-]+$", "with pattern secrets: ReplicaSecretArns"),
        (
            "dr.yaml",
            "Action: secretsmanager:UpdateSecretVersionStage\n                Resource: !Ref SecretArns",
            "Action: secretsmanager:UpdateSecretVersionStage\n                Resource: !Ref SecretArns\n              - Sid: Ask\n                \
             Effect: Allow\n                Action: secretsmanager:DescribeSecret\n                Resource: !Ref ReplicaSecretArns",
            "with many secrets: ExpireCopiesRole: policies of",
        ),
        (
            "source.yaml",
            "[!Ref AskSecretVersions, !Ref ReadSourceKeys, !Ref LendSourceKeys]",
            "[!Ref AskSecretVersions]",
            "copy-snapshots: keys",
        ),
        (
            "source.yaml",
            "Bool: {kms:GrantIsForAWSResource: \"true\"}\n              StringEquals:",
            "StringEquals:",
            "copy-snapshots: a key without bounds",
        ),
        (
            "source.yaml",
            "          - Sid: LendSourceKeysToEbs",
            "          - {Sid: Too, Effect: Allow, Action: kms:DescribeKey, Resource: !Ref SourceKmsKeyArns}\n          - Sid: LendSourceKeysToEbs",
            "with many secrets: LendSourceKeys of",
        ),
        ("dr.yaml", "VersionStage: tde2hsm-*", "VersionStage: \"*\"", "expire-copies may move any stage of a secret"),
        // Alarms that could not fire, or that fire once for all.
        ("dr.yaml", "Period: 21600", "Period: 900", "ExpireCopiesFailed wants 2 of 3 times 900 s, and what runs every 21600 s"),
        ("source.yaml", "Period: 1800", "Period: 900", "CopyHsmBackupsFailed wants 3 of 4 times 900 s"),
        ("source.yaml", "rate(15 minutes)", "rate(2 hours)", "CopySnapshotsSilent takes the pause between two runs"),
        ("source.yaml", "NumberOfMessagesSent", "ApproximateNumberOfMessagesVisible", "would stay in alarm"),
        ("source.yaml", "Value: copy-hsm-backups}", "Value: copy-snapshots}", "nothing watches CallsFailed of copy-hsm-backups"),
        ("dr.yaml", "MetricName: HostsUnseen", "MetricName: HostsUnknown", "which no function emits"),
        ("dr.yaml", "MetricName: InstancesSeen", "MetricName: HostsUnseen", "nothing watches InstancesSeen"),
        (
            "dr.yaml",
            "LoggingConfig:\n        LogFormat: JSON\n        LogGroup: !Ref SettleCopiesLogs",
            "DeadLetterConfig: {TargetArn: !GetAtt DeadLetters.Arn}\n      LoggingConfig:\n        LogFormat: JSON\n        LogGroup: !Ref SettleCopiesLogs",
            "tde2hsm-settle-copies: woken by events and keeping letters",
        ),
        ("dr.yaml", "DeletionPolicy: RetainExceptOnCreate", "DeletionPolicy: Retain", "Records: DeletionPolicy Retain"),
        (
            "dr.yaml",
            "KMSMasterKeyID: !GetAtt OperationsKey.Arn",
            "KMSMasterKeyID: !Ref OperationsKeyAlias",
            "Records stays and refers to OperationsKeyAlias",
        ),
    ];
    for (file, from, to, told) in cases {
        changed(dir.path(), &[(file, from, to)])?;
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
