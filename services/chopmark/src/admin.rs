//! `chopmark admin`: what an operator does by hand, with the node stopped.

use std::{io::Write as _, process::ExitCode};

use anyhow::bail;
use chopmark_node::guard::Guard;

use crate::{
    cli::{AdminCommand, GuardCommand},
    output::{Out, shown},
    place::Place,
};

pub(crate) fn run(command: AdminCommand) -> anyhow::Result<ExitCode> {
    match command {
        AdminCommand::Guard(GuardCommand::Adopt(args)) => {
            let place = Place::new(&args.data, Some(&args.guard))?;
            if !args.yes {
                bail!(
                    "adopting makes {} trust whatever {} holds. If newer checkpoints were ever signed with these \
                     keys, this member will have signed two histories, which is fraud in the eyes of every verifier. \
                     Say --yes if the newer data is lost for good and no other copy of this node runs",
                    place.guard.display(),
                    place.data.display()
                );
            }
            let promise = chopmark_node::promise_of_data(&place.node())?;
            Guard::adopt(&place.guard, promise)?;
            writeln!(
                Out::lock(),
                "{} now starts from tree size {} and height {}",
                shown(&place.guard),
                promise.size.0,
                promise.height
            )?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
