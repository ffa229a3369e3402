//! The operator's tool. Every verb is a few lines over netcore's front door; here is only how it
//! is asked and how it answers.

mod attachments;
mod cli;
mod docker;
mod docker_api;
mod docker_rules;
mod docker_tables;
mod doctor;
mod exit;
mod output;
mod overlay;
mod pages;
mod plan;
mod repair;
mod stop;
mod supervisor;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use netcore::Engine;

use crate::cli::{Cli, Verb};
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(answer(&cli)));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("netctl: {}", failure.message);
            failure.exit.into()
        }
    }
}

async fn answer(cli: &Cli) -> Result<Exit, Failure> {
    let json = cli.json;
    match &cli.verb {
        Verb::RepairChains(arguments) => {
            allow_many_files();
            repair::repair_chains(&Engine::open()?, arguments, json).await
        }
        Verb::Watch(arguments) => {
            allow_many_files();
            watch::watch(&Engine::open()?, arguments, json).await
        }
        Verb::Ls(arguments) => attachments::ls(&Engine::open()?, arguments.network.as_ref(), json),
        Verb::Show { attachment } => attachments::show(&Engine::open()?, attachment, json).await,
        Verb::Doctor(arguments) => doctor::doctor(&Engine::open()?, arguments, json).await,
        Verb::Plan(arguments) => plan::plan(&Engine::open()?, arguments, json).await,
        Verb::Overlay(verb) => {
            allow_many_files();
            overlay::answer(verb, json).await
        }
        Verb::Completions { shell } => pages::completions(*shell),
        Verb::Man { directory } => pages::man(directory),
    }
}

/// A repair holds a lock for each attachment it mends; the usual 1024 files are not enough for a
/// full host.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // With fewer, a repair that needs more says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
