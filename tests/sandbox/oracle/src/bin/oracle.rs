//! `$ORACLE_HOME/bin/oracle`: what it is depends on the name it is started under, as with the real one.
//! `ora_pmon_<SID>` is an instance, `oracle<SID> (DESCRIPTION=…)` a server process; `sim-…` is for the sandbox.

use std::io::Read as _;
use std::process::{Command, Stdio};

use sandbox_oracle::{DatabaseSpec, Verified, VerifyDatabase, VerifySpec};
use sandbox_oracle::{inspect, process, seed, verify};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or(name);
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let code = if let Some(sid) = name.strip_prefix("ora_pmon_") {
        process::pmon_main(sid)
    } else {
        match words.as_slice() {
            [description, ..] if description.starts_with("(DESCRIPTION=") => {
                process::server_main(name.strip_prefix("oracle").unwrap_or_default())
            }
            ["sim-seed", path] => finish(sim_seed(path)),
            ["sim-verify", path] => finish(sim_verify(path)),
            ["sim-verify-one"] => finish(sim_verify_one()),
            ["sim-inspect"] => finish(print(&inspect::inspect())),
            _ => {
                eprintln!("usage: oracle sim-seed SPEC.json | sim-verify SPEC.json | sim-inspect");
                2
            }
        }
    };
    std::process::exit(code);
}

fn finish(result: Result<(), String>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("oracle: {error}");
            1
        }
    }
}

fn print(value: &impl serde::Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    println!("{text}");
    Ok(())
}

/// A file, or stdin for `-`.
fn read(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if path == "-" {
        std::io::stdin().read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|e| format!("{path}: {e}"))
}

fn sim_seed(path: &str) -> Result<(), String> {
    let spec: DatabaseSpec = serde_json::from_slice(&read(path)?).map_err(|e| format!("{path}: {e}"))?;
    print(&seed::seed(&spec).map_err(|e| e.to_string())?)
}

/// Each database has a process of its own: a library is loaded once per process, and cutting off is by process.
fn sim_verify(path: &str) -> Result<(), String> {
    let spec: VerifySpec = serde_json::from_slice(&read(path)?).map_err(|e| format!("{path}: {e}"))?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut all = std::collections::BTreeMap::new();
    for database in &spec.databases {
        let mut child = Command::new(&program)
            .arg("sim-verify-one")
            .envs(verify::environment(&spec, database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        if let Some(input) = child.stdin.take() {
            serde_json::to_writer(input, database).map_err(|e| e.to_string())?;
        }
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        let verified: Verified = serde_json::from_slice(&output.stdout).map_err(|e| format!("{}: {e}", database.truth.sid))?;
        all.insert(database.truth.sid.clone(), verified);
    }
    print(&all)
}

fn sim_verify_one() -> Result<(), String> {
    let database: VerifyDatabase = serde_json::from_slice(&read("-")?).map_err(|e| e.to_string())?;
    print(&verify::verify(&database))
}
