//! Shell completions and manual pages, from the one definition of the command line.

use std::{fs, io::Write as _};

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs, Shell},
    output::{Out, shown},
};

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs, out: &mut Out) -> anyhow::Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script).context("cannot write the script")
}

/// Prints the manual page, or writes all of them into a folder.
pub(crate) fn man(args: &ManArgs, out: &mut Out) -> anyhow::Result<()> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        return clap_mangen::Man::new(command).render(out).context("cannot write the manual page");
    };
    let context = || format!("cannot write manual pages into {}", shown(dir));
    fs::create_dir_all(dir).with_context(context)?;
    clap_mangen::generate_to(command, dir).with_context(context)
}
