//! The `sandbox` program.

use clap::{Parser, Subcommand};
use sandbox::clock::parse_duration;
use sandbox::control::{self, Ask};
use sandbox::fleet::Size;
use sandbox::functions::Setup;
use sandbox::host::{ExecArgs, InitArgs, run_exec, run_init};
use sandbox::layout::Layout;
use sandbox::sandbox::{Sandbox, UpOptions};
use sandbox::userns::become_root;
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A cloud on one machine: AWS on loopback, hosts as namespaces, Oracle as a simulator that really encrypts.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version)]
struct Args {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Build a world and serve it until stopped; prints export lines, then `ready`.
    Up {
        #[arg(long)]
        dir: PathBuf,
        /// small (1 host), mixed (8 hosts, 11 databases) or a number of small hosts.
        #[arg(long, default_value = "small")]
        fleet: Size,
        /// Everything random is drawn from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Append every raw response to this file, one JSON line each.
        #[arg(long)]
        record: Option<PathBuf>,
        /// Port of the services; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// The functions' program: events and `tick` then reach the functions that the templates declare.
        #[arg(long)]
        functions: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Invoke a function once and print its answer and its log.
    Function {
        #[arg(long)]
        dir: PathBuf,
        /// Such as copy-snapshots.
        name: String,
        /// The event, from a file; `-` reads it from standard input.
        #[arg(long, conflicts_with = "schedule")]
        event: Option<PathBuf>,
        /// What its schedule gives it (the default).
        #[arg(long)]
        schedule: bool,
        /// The functions' program, unless `up` was told.
        #[arg(long)]
        program: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Print keys of a role of the DR region's template; what it does not allow is refused.
    Assume {
        #[arg(long)]
        dir: PathBuf,
        /// Such as tde2hsm-drill-operator.
        role: String,
    },
    /// Invoke every schedule once, as when its time has come; also waits for events that are on their way.
    Tick {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        program: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Start fresh instances over throw-away copies and read every seeded row; JSON per database.
    Verify {
        #[arg(long)]
        dir: PathBuf,
        /// Key stores that are gone: old-hsm, software, target.
        #[arg(long, value_delimiter = ',')]
        cut_off: Vec<String>,
        /// This host alone; an instance that a drill made is read with its own files and its own network.
        #[arg(long)]
        host: Option<String>,
    },
    /// Take a snapshot set of each host, as the customer's backup tool does.
    Snapshot {
        #[arg(long)]
        dir: PathBuf,
        /// This host alone.
        #[arg(long)]
        host: Option<String>,
        /// Leave the data volumes out.
        #[arg(long)]
        exclude_data: bool,
        /// Leave out the volume that is mounted here, such as /u03.
        #[arg(long)]
        exclude: Vec<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Print what is: keys, starts, logins, calls.
    Inspect {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Make something go wrong.
    #[command(after_help = fault_help())]
    Fault {
        #[arg(long)]
        dir: PathBuf,
        name: String,
        #[arg(allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Wait until no command runs on any host and no event is on its way to a function: moving the clock ends what is under way.
    Settle {
        #[arg(long)]
        dir: PathBuf,
        /// After so long it is an error.
        #[arg(long, default_value = "2m", value_parser = parse_duration)]
        within: Duration,
    },
    /// Move the world's clock ahead.
    Clock {
        #[arg(long)]
        dir: PathBuf,
        /// Such as 3d, 12h, 1d12h.
        #[arg(long, value_parser = parse_duration)]
        advance: Duration,
    },
    /// Run a command inside a host, as root.
    Exec {
        #[arg(long)]
        dir: PathBuf,
        host: String,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Remove the directory of a sandbox that was stopped, also what other users of its hosts own.
    Clean {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Process 1 of a host.
    #[command(hide = true)]
    HostInit {
        #[arg(long)]
        args: String,
    },
    /// Enter a host.
    #[command(hide = true)]
    HostExec {
        #[arg(long)]
        pid: i32,
        #[arg(long)]
        cd: Option<String>,
        #[arg(last = true)]
        argv: Vec<String>,
    },
}

/// How functions run.
#[derive(Debug, Clone, clap::Args)]
struct How {
    /// Each invocation gets a new process.
    #[arg(long)]
    cold: bool,
    /// Directory of the templates that declare the functions.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra"))]
    templates: PathBuf,
    /// A parameter of the templates, NAME=VALUE.
    #[arg(long, value_parser = pair)]
    parameter: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))
}

impl How {
    fn with(self, program: &std::path::Path) -> std::io::Result<Setup> {
        Ok(Setup {
            program: program.canonicalize()?,
            templates: self.templates.canonicalize()?,
            cold: self.cold,
            parameters: self.parameter.into_iter().collect(),
        })
    }
}

fn fault_help() -> String {
    format!("Faults:\n{}", sandbox::fault::table())
}

/// The exit status for "this machine cannot do it".
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    match Args::parse().command {
        Cmd::HostInit { args } => match serde_json::from_str::<InitArgs>(&args) {
            Ok(args) => code(run_init(&args)),
            Err(e) => fail(1, &e.to_string()),
        },
        Cmd::HostExec { pid, cd, argv } => code(run_exec(&ExecArgs { pid, dir: cd, argv })),
        Cmd::Function { dir, name, event, schedule: _, program, how } => {
            let ask = || -> Result<Ask, String> {
                let read = |path: PathBuf| {
                    if path.as_os_str() == "-" {
                        std::io::read_to_string(std::io::stdin())
                    } else {
                        std::fs::read_to_string(path)
                    }
                };
                let event = event.map(read).transpose().map_err(|e| e.to_string())?;
                let event = event
                    .map(|text| serde_json::from_str(&text))
                    .transpose()
                    .map_err(|e| format!("the event is no JSON: {e}"))?;
                let setup = program.map(|program| how.with(&program)).transpose().map_err(|e| e.to_string())?;
                Ok(Ask::Function { name, event, setup })
            };
            print(ask().and_then(|ask| control::ask(&Layout::new(&dir).control(), &ask)))
        }
        Cmd::Assume { dir, role } => print(control::ask(&Layout::new(&dir).control(), &Ask::Assume { role })),
        Cmd::Tick { dir, program, how } => {
            let setup = program.map(|program| how.with(&program)).transpose().map_err(|e| e.to_string());
            print(setup.and_then(|setup| control::ask(&Layout::new(&dir).control(), &Ask::Tick { setup })))
        }
        Cmd::Up { dir, fleet, seed, record, port, functions, how } => {
            let templates = how.templates.clone();
            let functions = match functions.map(|program| how.with(&program)).transpose() {
                Ok(functions) => functions,
                Err(e) => return fail(UNAVAILABLE, &format!("the functions cannot be run: {e}")),
            };
            let rights = match become_root() {
                Ok(rights) => rights,
                Err(why) => return fail(UNAVAILABLE, &why),
            };
            let borrowed = sandbox::userns::is_borrowed();
            up(&UpOptions { dir, fleet, seed, record, rights, borrowed, port, functions, templates })
        }
        Cmd::Clean { dir } => {
            if let Err(why) = become_root() {
                return fail(UNAVAILABLE, &why);
            }
            clean(&dir)
        }
        Cmd::Inspect { dir } => print(control::ask(&Layout::new(&dir).control(), &Ask::Inspect)),
        Cmd::Verify { dir, cut_off, host } => print(control::ask(&Layout::new(&dir).control(), &Ask::Verify { cut_off, host })),
        Cmd::Snapshot { dir, host, exclude_data, exclude, description } => {
            print(control::ask(&Layout::new(&dir).control(), &Ask::Snapshot { host, exclude_data, exclude, description }))
        }
        Cmd::Fault { dir, name, args } => print(control::ask(&Layout::new(&dir).control(), &Ask::Fault { name, args })),
        Cmd::Settle { dir, within } => {
            print(control::ask(&Layout::new(&dir).control(), &Ask::Settle { within_secs: within.as_secs() }))
        }
        Cmd::Clock { dir, advance } => {
            print(control::ask(&Layout::new(&dir).control(), &Ask::Clock { advance_secs: advance.as_secs() }))
        }
        Cmd::Exec { dir, host, argv } => match control::ask(&Layout::new(&dir).control(), &Ask::Exec { host, argv }) {
            Ok(value) => code(i32::try_from(value["code"].as_i64().unwrap_or(1)).unwrap_or(1)),
            Err(why) => fail(1, &why),
        },
    }
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

fn fail(status: u8, why: &str) -> ExitCode {
    eprintln!("sandbox: {why}");
    ExitCode::from(status)
}

fn print(answer: Result<Value, String>) -> ExitCode {
    match answer {
        Ok(Value::String(text)) => {
            eprintln!("{text}");
            ExitCode::SUCCESS
        }
        Ok(value) => {
            let text = serde_json::to_string_pretty(&value).unwrap_or_default();
            // A reader that has seen enough is no error.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(why) => fail(1, &why),
    }
}

fn up(options: &UpOptions) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(1, &e.to_string()),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SANDBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,s3s=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    runtime.block_on(async {
        let sandbox = match Sandbox::up(options).await {
            Ok(sandbox) => sandbox,
            Err(e) => return fail(1, &format!("{e:#}")),
        };
        match UnixListener::bind(sandbox.layout.control()) {
            Ok(listener) => control::serve(sandbox.clone(), listener),
            Err(e) => {
                sandbox.down();
                return fail(1, &format!("the control socket could not be made: {e}"));
            }
        }
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "{}ready", sandbox.exports()).and_then(|()| stdout.flush());
        stopped().await;
        sandbox.down();
        ExitCode::SUCCESS
    })
}

/// Returns at SIGINT or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

fn clean(dir: &std::path::Path) -> ExitCode {
    let layout = Layout::new(dir);
    if !layout.hosts().exists() {
        return fail(1, &format!("{} holds no sandbox", dir.display()));
    }
    if std::os::unix::net::UnixStream::connect(layout.control()).is_ok() {
        return fail(1, "the sandbox still serves; stop it first");
    }
    match std::fs::remove_dir_all(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(1, &format!("{}: {e}", dir.display())),
    }
}
