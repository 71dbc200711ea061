//! `tde2hsm`: the operator's program.
//!
//! It parses, connects, prints, and leaves every decision to the crates below it.

mod args;
mod asking;
mod commands;
mod context;
mod drive;
mod exit;
mod failure;
mod gather;
mod night;
mod out;
mod text;

use args::{Cli, Command};
use clap::Parser as _;
use context::Context;
use exit::Exit;
use failure::Failure;
use std::process::ExitCode;
use tde2hsm_protocol::Code;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Traces of the SDK are for those who ask for them. An order holds no secret, so neither can they.
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("TDE2HSM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let context = Context::new(&cli.global);
    let name = cli.command.name();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&context, cli.command)),
        Err(e) => Err(Failure::internal(format!("the program cannot start its threads: {e}"))),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(mut failure) => {
            // AWS's own words leave it out where the profile is not there, or has no login.
            if let (Some(Code::AWS_CREDENTIALS), Some(profile)) = (failure.code, &cli.global.profile) {
                failure.message = format!("profile `{profile}`: {}", failure.message);
            }
            context.out.fail(name, &failure);
            failure.exit.into()
        }
    }
}

async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    context.clock.stop_on_signals(context.out);
    match command {
        Command::Setup(args) => commands::setup::run(context, args).await,
        Command::Discover(args) => commands::discover::run(context, args).await,
        Command::Survey(args) => commands::survey::run(context, args).await,
        Command::Plan(args) => commands::plan::run(context, args).await,
        Command::Apply(args) => commands::apply::run(context, args).await,
        Command::Resume(args) => commands::resume::run(context, args).await,
        Command::Status(args) => commands::status::run(context, args).await,
        Command::Undo(args) => commands::undo::run(context, args).await,
        Command::Adopt(args) => commands::adopt::run(context, args).await,
        Command::Release(args) => commands::release::run(context, args).await,
        Command::Clean(args) => commands::clean::run(context, args).await,
        Command::Dr(command) => commands::dr::run(context, command).await,
        Command::Explain(args) => commands::explain::run(context, &args),
    }
}
