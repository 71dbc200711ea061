//! The program as a terminal and a script see it. No call leaves this machine: nothing here gets as far as AWS.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tde2hsm(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tde2hsm"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("TDE2HSM_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).env("HOME", dir).env("AWS_EC2_METADATA_DISABLED", "true").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    tde2hsm(dir.path()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Set TDE2HSM_BLESS to write the golden file anew; then read the difference.
#[test]
fn golden_help() {
    let commands = [
        "",
        "setup",
        "discover",
        "survey",
        "plan",
        "apply",
        "resume",
        "status",
        "undo",
        "adopt",
        "release",
        "clean",
        "dr",
        "dr status",
        "dr copy",
        "dr expire",
        "dr retire-when",
        "dr drill",
        "explain",
    ];
    let mut help = String::new();
    for command in commands {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).filter(|a| !a.is_empty()).collect();
        let out = run(&args);
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        help.push_str(&format!("$ tde2hsm {}\n{}\n", args.join(" "), text(&out.stdout)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("TDE2HSM_BLESS").is_some() {
        std::fs::write(&path, &help).unwrap();
    }
    assert_eq!(help, std::fs::read_to_string(&path).unwrap(), "the help changed; bless it if that is meant");
}

#[test]
fn every_code_of_the_catalogue_is_explained() {
    for info in tde2hsm_protocol::CATALOGUE {
        let out = run(&["explain", &info.code.to_string()]);
        assert_eq!(out.status.code(), Some(0), "{}", info.code);
        assert!(text(&out.stdout).contains(&info.code.to_string()), "{}: {}", info.code, text(&out.stdout));
    }
    let out = run(&["explain", "TDE9999"]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(said.starts_with("error[TDE0008]") && said.contains("hint:") && out.stdout.is_empty(), "{said}");
}

#[test]
fn a_wrong_file_is_a_usage_error_with_code_and_hint() {
    let out = run(&["plan", "missing.toml"]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(said.contains("error[TDE0001]: `missing.toml` cannot be read") && said.contains("hint: "), "{said}");
    assert!(out.stdout.is_empty(), "stdout is data");
}

#[test]
fn a_misspelt_path_is_said_to_be_one() {
    for (args, code, hint) in [
        (&["setup", "--runner", "nofile"][..], "TDE0007", "check the path"),
        (&["apply", "paln.json"], "TDE0004", "check the path"),
        (&["plan", "show", "paln.json"], "TDE0004", "check the path"),
        (&["adopt", "paln.json"], "TDE0004", "check the path"),
    ] {
        let out = run(args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("error[{code}]: `{}`", args.last().unwrap())), "{said}");
        assert!(said.contains(&format!("hint: {hint}")), "{said}");
    }
}

#[test]
fn an_error_in_json_goes_to_stdout_and_to_stderr() {
    let out = run(&["status", "--output", "json"]);
    assert_eq!(out.status.code(), Some(7));
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["schema"], "tde2hsm/status/1");
    assert_eq!(answer["error"]["code"], "TDE0706");
    assert!(text(&out.stderr).starts_with("error[TDE0706]"));
}

#[test]
fn a_plan_that_was_edited_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("plan.json"), r#"{"tde2hsm_plan": 99, "hash": "x", "plan": {}}"#).unwrap();
    let out = tde2hsm(dir.path()).args(["plan", "show"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("error[TDE0004]"), "{}", text(&out.stderr));
}

#[test]
fn without_credentials_the_program_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("runner"), b"x").unwrap();
    let out = tde2hsm(dir.path()).args(["setup", "--runner", "runner", "--region", "us-east-1"]).output().unwrap();
    assert_eq!(out.status.code(), Some(6), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(said.contains("error[TDE0602]"), "{said}");
    // Where it was looked for is said to the end.
    assert!(said.contains("Ec2InstanceMetadata: ") && said.lines().next().unwrap().ends_with("set to `true`"), "{said}");
    let out = tde2hsm(dir.path()).args(["setup", "--runner", "runner"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("no AWS region is named"), "{}", text(&out.stderr));
}

/// Keys of the account that was worked in last must not take the place of the profile that is named now.
#[test]
fn a_profile_that_is_named_wins_over_keys_in_the_environment_or_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("runner"), b"x").unwrap();
    std::fs::write(dir.path().join("config"), "[profile other]\nregion = us-east-1\n").unwrap();
    // Nothing listens there: who asks it has found credentials.
    let ask = |profile: &[&str]| {
        let out = tde2hsm(dir.path())
            .args(["setup", "--runner", "runner", "--region", "us-east-1"])
            .args(profile)
            .env("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT00000")
            .env("AWS_SECRET_ACCESS_KEY", "of the environment")
            .env("AWS_CONFIG_FILE", dir.path().join("config"))
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .output()
            .unwrap();
        (out.status.code(), text(&out.stderr))
    };
    let (code, said) = ask(&[]);
    assert!(code == Some(6) && said.contains("error[TDE0603]"), "{said}");
    for profile in ["nosuch", "other"] {
        let (code, said) = ask(&["--profile", profile]);
        assert!(code == Some(6) && said.contains("error[TDE0602]"), "{said}");
        assert!(said.contains(&format!("error[TDE0602]: profile `{profile}`: ")) && said.contains("hint: "), "{said}");
    }
}

/// A reader that goes away early, such as `head`, is no error and no panic.
#[test]
fn a_broken_pipe_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = tde2hsm(dir.path()).args(["explain", "TDE0107"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(!text(&out.stderr).contains("panicked"), "{}", text(&out.stderr));
    assert_eq!(out.status.code(), Some(0));
}
