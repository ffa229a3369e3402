//! Completions and man pages, from the definition of the arguments.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};

/// Prints completions for `shell`.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "netctl", &mut io::stdout());
    Ok(Exit::Done)
}

/// Writes `netctl.8`, and a page for each verb, into `directory`.
pub(crate) fn man(directory: &Path) -> Result<Exit, Failure> {
    std::fs::create_dir_all(directory)?;
    let mut command = Cli::command();
    command.build();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    for page in std::iter::once(&command).chain(verbs) {
        let name = page.get_display_name().unwrap_or("netctl").to_owned();
        let mut text = Vec::new();
        // Section 8: administration.
        clap_mangen::Man::new(page.clone()).section("8").render(&mut text)?;
        std::fs::write(directory.join(format!("{name}.8")), text)?;
    }
    Ok(Exit::Done)
}
