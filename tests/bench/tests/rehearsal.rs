//! The comparison runs, with two runs each of the program as built for tests: no figure is judged here.

use std::process::Command;

#[test]
fn function_and_twin_make_the_same_calls_and_are_both_measured() {
    let bootstrap = tde2hsm_conformance::programs().expect("programs").join("bootstrap");
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(["-n", "2", "--program"]).arg(bootstrap).output().expect("bench");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Python + boto3") && text.contains("\"s3:ListObjectsV2\": 2"), "{text}");
}
