//! The function beside the same job in Python and boto3: cold start to first result, and the most memory.
//!
//! Both run as the same process under the same fake runtime API against the same sandbox, without any latency put in, one
//! after the other in turn, so that what else the machine does falls on both. Both must make the same calls; that is counted.
//! Memory is the kernel's own high-water mark of the process (VmHWM), read before it is ended.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tde2hsm_e2e::World;

/// What the figures have to be: times faster, times smaller.
const FASTER: f64 = 15.0;
const SMALLER: f64 = 3.0;
/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    ms: f64,
    kib: u64,
    answer: Value,
}

fn main() -> Result<()> {
    let mut n = 30usize;
    let mut program = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} wants a value"));
        match word.as_str() {
            "-n" => n = value()?.parse()?,
            "--program" => program = Some(PathBuf::from(value()?)),
            _ => bail!("usage: bench [-n RUNS] [--program BOOTSTRAP]"),
        }
    }
    let target = tde2hsm_conformance::target_dir()?;
    // Only the program that goes into Lambda is worth a figure; another one is a rehearsal.
    let judged = program.is_none();
    let program = program.unwrap_or_else(|| target.join("x86_64-unknown-linux-gnu/dist/bootstrap"));
    ensure!(program.is_file(), "{} is not there; run `make dist` first", program.display());
    let python = tde2hsm_conformance::python()?;
    let twin = Path::new(env!("CARGO_MANIFEST_DIR")).join("settle_copies.py");

    let dir = tempfile::tempdir()?;
    let world = World::up_with_functions(&dir.path().join("world"), "small", 47)?;
    // Copies of two sets and of an HSM backup, all settled: what a run finds at nearly any time.
    world.setup()?.ok()?;
    for _ in 0..2 {
        world.snapshot(&[])?;
        for _ in 0..3 {
            world.advance("2h")?;
            world.tick()?;
        }
    }
    let env = environment(&world)?;
    let ours = || run(Command::new(&program), &env);
    let theirs = || {
        let mut command = Command::new(&python);
        command.arg(&twin);
        run(command, &env)
    };
    // One of each that is not counted: the file cache is warm for both, and Python has written its bytecode. And the calls.
    let before = calls(&world)?;
    let (warm, between) = (ours()?, calls(&world)?);
    let (twin_warm, after) = (theirs()?, calls(&world)?);
    let (made, twin_made) = (difference(&before, &between), difference(&between, &after));
    ensure!(
        made == twin_made && !made.is_empty(),
        "not the same job: {made:?} and {twin_made:?}\n{}\n{}",
        warm.answer,
        twin_warm.answer
    );
    ensure!(warm.answer["unasked"].as_array().is_some_and(Vec::is_empty), "the function could not ask: {}", warm.answer);

    let (mut rust, mut boto3) = (Vec::new(), Vec::new());
    for _ in 0..n {
        rust.push(ours()?);
        boto3.push(theirs()?);
    }
    let result = report(&made, &rust, &boto3);
    let out = target.join("bench");
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("result.json"), serde_json::to_vec_pretty(&result)?)?;
    let (faster, smaller) =
        (result["times_faster"].as_f64().unwrap_or_default(), result["times_smaller"].as_f64().unwrap_or_default());
    if judged {
        ensure!(n >= 30, "{n} runs are too few for a figure");
        ensure!(faster >= FASTER && smaller >= SMALLER, "wanted at least {FASTER} times faster and {SMALLER} times smaller");
    }
    Ok(())
}

/// The function's environment, as its template has it.
fn environment(world: &World) -> Result<Vec<(String, String)>> {
    let fleet: toml::Table = std::fs::read_to_string(world.path("fleet.toml"))?.parse()?;
    let text = |path: &[&str]| -> Result<String> {
        let mut value: Option<&toml::Value> = fleet.get(path[0]);
        for key in &path[1..] {
            value = value.and_then(|value| value.get(key));
        }
        Ok(value.and_then(toml::Value::as_str).with_context(|| format!("fleet.toml has no {path:?}"))?.to_owned())
    };
    let dr = text(&["dr", "region"])?;
    let mut env: BTreeMap<String, String> = world.env().clone();
    env.extend(
        [
            ("TDE2HSM_ACCOUNT", text(&["fleet", "account"])?),
            ("TDE2HSM_FLEET", text(&["fleet", "name"])?),
            ("TDE2HSM_FLEET_TAG", "tde2hsm:fleet=demo".to_owned()),
            ("TDE2HSM_SOURCE_REGION", text(&["fleet", "region"])?),
            ("TDE2HSM_DR_REGION", dr.clone()),
            ("TDE2HSM_CLUSTER", text(&["cluster", "id"])?),
            ("TDE2HSM_KMS_KEY", text(&["dr", "kms_key"])?),
            ("TDE2HSM_RECORDS_BUCKET", text(&["dr", "records_bucket"])?),
            ("TDE2HSM_TOPIC", text(&["dr", "topic"])?),
            ("TDE2HSM_RPO_MINUTES", "1440".to_owned()),
            ("TDE2HSM_RETENTION", "hourly=8,daily=14,weekly=5,monthly=12".to_owned()),
            ("_HANDLER", "settle-copies".to_owned()),
            ("AWS_REGION", dr.clone()),
            ("AWS_DEFAULT_REGION", dr),
            ("AWS_LAMBDA_FUNCTION_NAME", "tde2hsm-settle-copies".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "bench".to_owned()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench".to_owned()),
            ("PATH", "/usr/bin:/bin".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(env.into_iter().collect())
}

/// Calls that the sandbox has answered, by name.
fn calls(world: &World) -> Result<BTreeMap<String, u64>> {
    let inspected = world.inspect()?.0;
    let counts = inspected["api_calls"].as_object().context("the sandbox counts no calls")?;
    Ok(counts.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect())
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after.iter().map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0)));
    more.filter(|(_, count)| *count > 0).collect()
}

/// One cold start: from before the process is made until its answer has arrived.
fn run(mut command: Command, env: &[(String, String)]) -> Result<Run> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let api = listener.local_addr()?.to_string();
    command.env_clear().envs(env.iter().map(|(name, value)| (name, value))).env("AWS_LAMBDA_RUNTIME_API", api);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let answered = serve(&listener, &mut child, started + PATIENCE);
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    child.kill()?;
    child.wait()?;
    // Its last question hung on this connection until here: it lived when the kernel was asked.
    let (answer, _open) = answered?;
    let kib = status?
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .context("the kernel tells no high-water mark")?;
    Ok(Run { ms, kib, answer })
}

/// The runtime API for one invocation: an event for who asks, the answer from who has it.
fn serve(listener: &TcpListener, child: &mut Child, until: Instant) -> Result<(Value, TcpStream)> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                if let Some(answer) = connection(stream)? {
                    return Ok(answer);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if let Some(status) = child.try_wait()? {
                    bail!("it ended with {status} before it answered");
                }
                ensure!(Instant::now() < until, "no answer after {PATIENCE:?}");
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn connection(mut stream: TcpStream) -> Result<Option<(Value, TcpStream)>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let (mut length, mut chunked) = (0usize, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            chunked |= line.strip_prefix("transfer-encoding:").is_some_and(|value| value.trim() == "chunked");
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16)?;
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        if first.starts_with("GET ") {
            let event = r#"{"source":"tde2hsm.schedule"}"#;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nlambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                 lambda-runtime-deadline-ms: 9999999999999\r\n\
                 lambda-runtime-invoked-function-arn: arn:aws:lambda:us-west-2:123456789012:function:tde2hsm-settle-copies\r\n\
                 content-length: {}\r\n\r\n{event}",
                event.len()
            )?;
            continue;
        }
        let answer: Value = serde_json::from_slice(&body)?;
        ensure!(first.contains("/response"), "it failed: {answer}");
        return Ok(Some((answer, stream)));
    }
}

fn report(made: &BTreeMap<String, u64>, rust: &[Run], boto3: &[Run]) -> Value {
    let middle = |values: Vec<f64>, part: f64| -> f64 {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        values.get(((values.len().max(1) - 1) as f64 * part).round() as usize).copied().unwrap_or_default()
    };
    let ms = |runs: &[Run], part| middle(runs.iter().map(|run| run.ms).collect(), part);
    let mib = |runs: &[Run]| runs.iter().map(|run| run.kib).max().unwrap_or_default() as f64 / 1024.0;
    let (faster, smaller) = (ms(boto3, 0.5) / ms(rust, 0.5), mib(boto3) / mib(rust));
    println!("settle-copies, cold start to first result, {} runs each in turn, calls: {made:?}", rust.len());
    println!("{:<16} {:>12} {:>12} {:>12} {:>14}", "", "median ms", "least ms", "95 % ms", "most RSS MiB");
    for (name, runs) in [("tde2hsm", rust), ("Python + boto3", boto3)] {
        let (half, least, most) = (ms(runs, 0.5), ms(runs, 0.0), ms(runs, 0.95));
        println!("{name:<16} {half:>12.1} {least:>12.1} {most:>12.1} {:>14.1}", mib(runs));
    }
    println!("{:<16} {faster:>11.1}x {:>12} {:>12} {smaller:>13.1}x", "ratio", "", "");
    let side = |runs: &[Run]| json!({"median_ms": ms(runs, 0.5), "least_ms": ms(runs, 0.0), "p95_ms": ms(runs, 0.95), "max_rss_mib": mib(runs)});
    json!({"function": "settle-copies", "runs": rust.len(), "calls": made, "tde2hsm": side(rust), "boto3": side(boto3),
        "times_faster": faster, "times_smaller": smaller})
}
