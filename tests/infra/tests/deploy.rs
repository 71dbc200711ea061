//! `infra/deploy` as a person runs it: refusals before any call, a look that changes nothing, then both stacks, with the real
//! command line of AWS against MiniStack.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tde2hsm_conformance::without_aws;
use tde2hsm_infra::{ACCOUNT, Server, Who, archive, root};

const SECRET: &str = "CryptoUserSecrets=arn:aws:secretsmanager:eu-central-1:123456789012:secret:hsm/crypto-user-AbCdEf";
const FLEET: &str = "Fleet=bank\nFleetTagKey=tde2hsm\nFleetTagValue=bank\nCluster=cluster-abcdefghijk\n";
const DR: &str = "# the second region\nSourceRegion=eu-central-1\nDrillZones=eu-west-1a,eu-west-1b\n\
SecretsKeyArns=arn:aws:kms:eu-west-1:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e12\n\
DrillOperatorArns=arn:aws:iam::123456789012:role/recovery\nArtifactBucket=tde2hsm-artefacts-dr\n";
const SOURCE: &str = "DrRegion=eu-west-1\nDocumentVersion=3\n\
DocumentHash=abababababababababababababababababababababababababababababababab\n\
SourceKmsKeyArns=arn:aws:kms:eu-central-1:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e11\n";

/// A `dist` with a small program in each function's archive: nothing of it runs here.
fn dist(dir: &Path) -> Result<PathBuf> {
    let dist = dir.join("dist");
    fs::create_dir_all(dist.join("lambdas"))?;
    fs::create_dir_all(dist.join("templates"))?;
    let mut files = Vec::new();
    for name in ["copy-snapshots", "copy-hsm-backups", "settle-copies", "expire-copies", "audit-recovery"] {
        archive(Path::new("/bin/true"), &dist.join(format!("lambdas/{name}.zip")))?;
        files.push(format!("lambdas/{name}.zip"));
    }
    for name in ["source", "dr"] {
        fs::copy(root().join(format!("infra/{name}.yaml")), dist.join(format!("templates/{name}.yaml")))?;
        files.push(format!("templates/{name}.yaml"));
    }
    let sums = Command::new("sha256sum").args(&files).current_dir(&dist).output()?;
    ensure!(sums.status.success(), "sha256sum");
    fs::write(dist.join("SHA256SUMS"), sums.stdout)?;
    Ok(dist)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn deploy(path: &Path, endpoint: &str, args: &[&str]) -> Result<Output> {
    let paths = std::env::join_paths(
        std::iter::once(path.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").context("PATH")?)),
    )?;
    let mut command = Command::new(root().join("infra/deploy"));
    without_aws(&mut command);
    command.args(args).env("PATH", paths).env("AWS_ENDPOINT_URL", endpoint).env("AWS_ACCESS_KEY_ID", ACCOUNT);
    command.env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_CONFIG_FILE", "/dev/null").stdin(Stdio::null());
    Ok(command.output()?)
}

#[test]
fn what_is_wrong_is_refused_before_any_call() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dist = dist(dir.path())?.display().to_string();
    // An `aws` that only notes that it was called.
    let (bin, calls) = (dir.path().join("bin"), dir.path().join("calls"));
    fs::create_dir(&bin)?;
    fs::write(bin.join("aws"), format!("#!/bin/sh\necho \"$@\" >>{}\nexit 1\n", calls.display()))?;
    fs::set_permissions(bin.join("aws"), fs::Permissions::from_mode(0o755))?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let right = file("right", &format!("{FLEET}{DR}{SECRET}\n"))?;
    let cut = file("cut", &format!("{FLEET}{DR}{SECRET}\nno value\n"))?;
    let twice = file("twice", &format!("{FLEET}{DR}{SECRET}\nFleet=other\n"))?;
    let unknown = file("unknown", &format!("{FLEET}{DR}{SECRET}\nRpoMinute=5\n"))?;
    let secretless = file("secretless", &format!("{FLEET}{DR}"))?;
    let without = file("without", FLEET)?;
    let secret =
        |n: u32| format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tde/oracle-host-{n:02}-keystore-AbCdEf");
    let secrets = |n: u32| (0..n).map(secret).collect::<Vec<_>>().join(",");
    let many = file("many", &format!("{FLEET}{DR}CryptoUserSecrets={}\nSecretArns=x\n", secrets(40)))?;
    let more = file("more", &format!("{FLEET}{DR}SecretArns={}\n", secrets(50)))?;
    let both = file("both", &format!("{FLEET}{DR}CryptoUserSecrets={}\n", secrets(60)))?;
    // Short enough as it is given, and not as it is made for the other region.
    let near = secrets(45);
    let longer = format!("{FLEET}{}SecretArns={near}\n", DR.replace("eu-west-1", "ap-southeast-3"));
    let far = file("far", &format!("{FLEET}{}{SECRET}\n", DR.replace("kms:eu-west-1", "kms:eu-central-1")))?;
    let longer = file("longer", &longer)?;
    let keys = ["arn:aws:kms:eu-west-1:123456789012:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e12"; 60].join(",");
    let keys = file("keys", &format!("{FLEET}{}SecretsKeyArns={keys}\n{SECRET}\n", DR.replace("SecretsKeyArns", "#")))?;
    let lacking = file("lacking", &format!("{FLEET}{}{SECRET}\n", DR.replace("ArtifactBucket", "#")))?;
    let elsewhere = file("elsewhere", &format!("{FLEET}{DR}{}\n", SECRET.replace("eu-central-1", "eu-west-1")))?;
    let base = ["--region", "eu-west-1", "--code-bucket", "b", "--dist", &dist];
    let dr = |rest: &[&str]| -> Vec<String> { [&["dr"], &base[..], rest].concat().iter().map(|s| s.to_string()).collect() };
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|s| s.to_string()).collect() };
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (words(&[]), 64, "the first word is"),
        (words(&["both"]), 64, "the first word is"),
        (words(&["dr", "--region", "eu-west-1"]), 64, "--code-bucket is missing"),
        (words(&["dr", "--code-bucket", "b", "--parameters", &right]), 64, "--region is missing"),
        (dr(&[]), 64, "--parameters is missing"),
        (dr(&["--parameters"]), 64, "wants a value"),
        (dr(&["--parameters", &right, "--force"]), 64, "`--force` is not an option"),
        (dr(&["--parameters", &right, "--tag", "=x"]), 64, "is not KEY=VALUE"),
        (dr(&["--parameters", "/nonexistent"]), 66, "cannot read"),
        (dr(&["--parameters", &cut]), 65, "is not NAME=VALUE"),
        (dr(&["--parameters", &twice]), 65, "gives Fleet a second time"),
        (dr(&["--parameters", &unknown]), 65, "has no parameter RpoMinute"),
        (dr(&["--parameters", &without]), 65, "does not give SourceRegion"),
        (dr(&["--parameters", &right, "--region", "eu-central-1"]), 65, "are both eu-central-1"),
        (dr(&["--parameters", &secretless]), 65, "names no secret"),
        (dr(&["--parameters", &many]), 65, "name them in secrets.json"),
        (
            dr(&["--parameters", &more]),
            65,
            "SecretArns has 4549 characters, and CloudFormation takes 4096: give SecretArns as patterns",
        ),
        (dr(&["--parameters", &both]), 65, "name them in secrets.json"),
        (
            dr(&["--region", "ap-southeast-3", "--parameters", &longer]),
            65,
            "ReplicaSecretArns has 4184 characters, and CloudFormation takes 4096: give SecretArns as patterns",
        ),
        (dr(&["--parameters", &keys]), 65, "SecretsKeyArns has 4559 characters, and CloudFormation takes 4096\n"),
        (
            dr(&["--parameters", &elsewhere]),
            65,
            "SecretArns: arn:aws:secretsmanager:eu-west-1:123456789012:secret:hsm/crypto-user-AbCdEf is not of eu-central-1",
        ),
        (dr(&["--parameters", &far]), 65, "1d1b4b4d5e12 is not of eu-west-1"),
        (dr(&["--parameters", &lacking]), 65, "does not give ArtifactBucket, and it has no default"),
        (dr(&["--parameters", &right, "--dist", "/nonexistent"]), 66, "run `make dist` first"),
    ];
    for (args, code, says) in &cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = deploy(&bin, "http://127.0.0.1:1", &args)?;
        ensure!(output.status.code() == Some(*code), "{args:?}: {}\n{}", output.status, text(&output));
        ensure!(text(&output).contains(says), "{args:?} does not say `{says}`:\n{}", text(&output));
        ensure!(!calls.exists(), "{args:?} called aws {}", fs::read_to_string(&calls)?);
    }
    // One byte more in one archive, and the same command that would have gone on.
    let args = dr(&["--parameters", &right]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let zip = Path::new(&dist).join("lambdas/settle-copies.zip");
    let mut bytes = fs::read(&zip)?;
    bytes.push(0);
    fs::write(&zip, &bytes)?;
    let output = deploy(&bin, "http://127.0.0.1:1", &args)?;
    ensure!(output.status.code() == Some(65) && text(&output).contains("is not what `make dist` made"), "{}", text(&output));
    ensure!(!calls.exists(), "a changed archive got as far as a call");
    bytes.pop();
    fs::write(&zip, &bytes)?;
    let output = deploy(&bin, "http://127.0.0.1:1", &args)?;
    ensure!(!output.status.success() && calls.exists(), "the right command called nothing:\n{}", text(&output));
    Ok(())
}

#[test]
fn both_stacks_are_looked_at_then_made_from_what_was_built() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dist = dist(dir.path())?.display().to_string();
    let server = Server::up(Who::MiniStack, dir.path(), &[])?;
    let bin = Who::MiniStack.python()?.parent().context("a directory")?.to_owned();
    let (dr_file, source_file) = (dir.path().join("dr"), dir.path().join("source"));
    fs::write(&dr_file, format!("{FLEET}{DR}{SECRET}\n"))?;
    fs::write(&source_file, format!("{FLEET}{SOURCE}{SECRET}\n"))?;
    let aws = |region: &str, args: &[&str]| -> Result<String> {
        let mut command = Command::new(bin.join("aws"));
        command.args(["--region", region, "--endpoint-url", &server.endpoint, "--output", "text"]).args(args);
        command.env("AWS_ACCESS_KEY_ID", ACCOUNT).env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_CONFIG_FILE", "/dev/null");
        let output = command.output()?;
        ensure!(output.status.success(), "aws {args:?}: {}", text(&output));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    for region in ["eu-west-1", "eu-central-1"] {
        let place = format!("LocationConstraint={region}");
        let bucket = format!("code-{region}");
        aws(region, &["s3api", "create-bucket", "--bucket", &bucket, "--create-bucket-configuration", &place])?;
    }
    let dr_file = dr_file.display().to_string();
    let source_file = source_file.display().to_string();
    let dr = ["dr", "--region", "eu-west-1", "--code-bucket", "code-eu-west-1", "--parameters", &dr_file, "--dist", &dist];
    let source = [
        "source",
        "--region",
        "eu-central-1",
        "--code-bucket",
        "code-eu-central-1",
        "--parameters",
        &source_file,
        "--dist",
        &dist,
    ];
    let execute = |args: &[&str]| deploy(&bin, &server.endpoint, &[args, &["--execute"]].concat());

    let output = deploy(&bin, &server.endpoint, &dr)?;
    ensure!(text(&output).contains("is not versioned"), "an unversioned bucket for code passed:\n{}", text(&output));
    for region in ["eu-west-1", "eu-central-1"] {
        let bucket = format!("code-{region}");
        aws(region, &["s3api", "put-bucket-versioning", "--bucket", &bucket, "--versioning-configuration", "Status=Enabled"])?;
    }
    let output = execute(&source)?;
    ensure!(!output.status.success(), "source was deployed before dr:\n{}", text(&output));

    let output = deploy(&bin, &server.endpoint, &dr)?;
    ensure!(output.status.success() && text(&output).contains("nothing was changed"), "{}", text(&output));
    ensure!(text(&output).contains("AuditRecovery"), "the change set does not name what it makes:\n{}", text(&output));
    let functions = ["lambda", "list-functions", "--query", "Functions[].[FunctionName,CodeSha256]"];
    ensure!(aws("eu-west-1", &functions)?.is_empty(), "a look made something");

    let dr_parameters = |more: &str| fs::write(&dr_file, format!("{FLEET}{DR}{SECRET}\n{more}"));
    dr_parameters("ExpireDryRun=false\nRetention=daily=3\n")?;
    let output = execute(&[&dr[..], &["--tag", "cost-centre=4711", "--tag", "owner=night shift"]].concat())?;
    ensure!(output.status.success(), "{}", text(&output));
    let tagged = aws("eu-west-1", &["cloudformation", "describe-stacks", "--query", "Stacks[0].Tags[].[Key,Value]"])?;
    ensure!(tagged == "cost-centre\t4711\nowner\tnight shift", "{tagged}");
    let deletes = || -> Result<(String, String)> {
        let environment = |name: &str| {
            let query = format!("Environment.Variables.TDE2HSM_{name}");
            let function = "tde2hsm-expire-copies";
            aws("eu-west-1", &["lambda", "get-function-configuration", "--function-name", function, "--query", &query])
        };
        Ok((environment("DRY_RUN")?, environment("RETENTION")?))
    };
    ensure!(deletes()? == ("false".to_owned(), "daily=3".to_owned()), "{:?}", deletes()?);
    // What the file no longer says is no longer so.
    dr_parameters("")?;
    let output = execute(&dr)?;
    ensure!(output.status.success(), "{}", text(&output));
    ensure!(deletes()? == ("true".to_owned(), "hourly=8,daily=14,weekly=5,monthly=12".to_owned()), "{:?}", deletes()?);
    let output = execute(&source)?;
    ensure!(
        text(&output).contains("is not replicated to eu-west-1") || text(&output).contains("ResourceNotFound"),
        "a secret that is not in the DR region passed:\n{}",
        text(&output)
    );
    let create = ["secretsmanager", "create-secret", "--name", "hsm/crypto-user", "--secret-string", "x", "--query", "ARN"];
    let arn = aws("eu-central-1", &create)?;
    let replica = ["--secret-id", &arn, "--add-replica-regions", "Region=eu-west-1"];
    aws("eu-central-1", &[&["secretsmanager", "replicate-secret-to-regions"][..], &replica].concat())?;
    fs::write(&source_file, format!("{FLEET}{SOURCE}CryptoUserSecrets={arn}@i-0123456789abcdef0/ORCL\n"))?;
    let output = execute(&source)?;
    ensure!(output.status.success(), "{}", text(&output));

    let want = Command::new("sh")
        .args(["-c", "openssl dgst -sha256 -binary \"$0\" | base64 -w0"])
        .arg(Path::new(&dist).join("lambdas/copy-snapshots.zip"))
        .output()?;
    let want = String::from_utf8(want.stdout)?;
    let mut made: Vec<String> = Vec::new();
    for region in ["eu-west-1", "eu-central-1"] {
        for line in aws(region, &functions)?.lines() {
            let (name, digest) = line.split_once('\t').context("name and digest")?;
            ensure!(digest == want, "{name} runs another code than was built");
            made.push(name.to_owned());
        }
    }
    made.sort();
    ensure!(
        made == [
            "tde2hsm-audit-recovery",
            "tde2hsm-copy-hsm-backups",
            "tde2hsm-copy-snapshots",
            "tde2hsm-expire-copies",
            "tde2hsm-settle-copies"
        ],
        "{made:?}"
    );
    // What source needs of dr came from dr's outputs.
    let environment = ["lambda", "get-function-configuration", "--function-name", "tde2hsm-copy-snapshots", "--query"];
    let bucket = aws("eu-central-1", &[&environment[..], &["Environment.Variables.TDE2HSM_RECORDS_BUCKET"]].concat())?;
    ensure!(bucket == format!("tde2hsm-records-{ACCOUNT}-eu-west-1"), "{bucket}");
    Ok(())
}
