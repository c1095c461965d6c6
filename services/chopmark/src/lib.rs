//! What the one binary of Chopmark does: its subcommands are the roles and the tools. A library, so that a
//! test can start a role in its own process; nothing else calls it.

mod adapters;
mod admin;
mod bundle;
mod cli;
mod client;
mod committer;
mod completions;
mod config;
mod courier;
mod dev;
mod doctor;
mod fsck;
mod gateway;
mod internal;
mod ledger;
mod member;
mod network;
mod node;
mod output;
mod peers;
mod place;
mod reader;
mod secrets;
mod signals;
mod submit;
mod system;
mod telemetry;
mod tenants;
#[cfg(feature = "unfiltered")]
mod unfiltered;
mod unfinished;
mod verify;
mod version;

use std::{future::Future, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "unfiltered")]
pub use self::unfiltered::unfiltered_gateway;
use self::{
    cli::{Cli, Command},
    output::{EXIT_USAGE, Out, Usage},
};

/// Runs the command that the process was started with; its exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where even the terminal is gone, the exit status is all that is left to say.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let code_of_failure = code_of_failure(&cli.command);
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(if error.is::<Usage>() { EXIT_USAGE } else { code_of_failure })
        }
    }
}

/// An error with its causes; one that the text before it ends with already is not said again.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        said if said.ends_with(&cause) => said.to_owned(),
        said => format!("{said}: {cause}"),
    })
}

/// What a command ends with when it could not do its work; statuses that mean something else are
/// kept clear of it.
const fn code_of_failure(command: &Command) -> u8 {
    match command {
        Command::Verify(_) => EXIT_USAGE,
        Command::Fsck(_) => fsck::CANNOT_CHECK,
        Command::Doctor(args) if args.config.is_some() => doctor::CANNOT_TELL,
        _ => 1,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(args) => block_on(&mut Builder::new_multi_thread(), dev::run(args)),
        Command::Node(args) => block_on(&mut Builder::new_multi_thread(), node::run(args)),
        Command::Gateway(args) => block_on(&mut Builder::new_multi_thread(), gateway::run(args)),
        Command::Committer(args) => block_on(&mut Builder::new_multi_thread(), committer::run(args)),
        Command::Courier(args) => block_on(&mut Builder::new_multi_thread(), courier::run(args)),
        Command::Network(command) => {
            block_on(&mut Builder::new_current_thread(), network::run(command, &mut Out::lock()))
        }
        Command::Admin(command) => block_on(&mut Builder::new_current_thread(), admin::run(command)),
        Command::Submit(args) => block_on(&mut Builder::new_current_thread(), submit::run(&args, &mut Out::lock())),
        Command::Doctor(args) => {
            let runtime = runtime(&mut Builder::new_current_thread())?;
            let code = runtime.block_on(doctor::run(&args, &mut Out::lock()));
            // A thread that still waits for a server that hangs is not waited for.
            runtime.shutdown_background();
            code
        }
        Command::Verify(args) => verify::run(&args, &mut Out::lock()),
        Command::Fsck(args) => fsck::run(&args, &mut Out::lock()),
        Command::Version(args) => version::run(&args, &mut Out::lock()).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => completions::completions(&args, &mut Out::lock()).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => completions::man(&args, &mut Out::lock()).map(|()| ExitCode::SUCCESS),
    }
}

fn block_on<T>(runtime: &mut Builder, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    self::runtime(runtime)?.block_on(work)
}

fn runtime(builder: &mut Builder) -> anyhow::Result<Runtime> {
    builder.enable_all().build().context("cannot start the async runtime")
}
