//! `chopmark admin`: what an operator does by hand.

pub(crate) mod accounts;
pub(crate) mod signing;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use chopmark_node::guard::Guard;
use chopmark_store::PostgresStore;

use crate::{
    cli::{AdminCommand, GuardCommand, MigrateArgs, SecretsArgs},
    output::{Out, shown},
    place::{Place, SECRETS},
    secrets,
    system::System,
};

pub(crate) async fn run(command: AdminCommand) -> anyhow::Result<ExitCode> {
    match command {
        AdminCommand::Secrets(args) => draw_secrets(&args),
        AdminCommand::Tenant(command) => accounts::tenant(command).await,
        AdminCommand::Key(command) => accounts::key(command).await,
        AdminCommand::SigningKey(command) => signing::run(command).await,
        AdminCommand::Quota(command) => accounts::quota(command).await,
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
        AdminCommand::Migrate(args) => {
            let applied = PostgresStore::migrate(&database_url(args)?).await?;
            let mut out = Out::lock();
            if applied.is_empty() {
                writeln!(out, "the database is at this program's version; nothing to do")?;
            } else {
                writeln!(out, "applied to the database: {}", applied.join(", "))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn draw_secrets(args: &SecretsArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.out;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).with_context(|| format!("create {}", folder.display()))?;
    let mode = fs::metadata(folder).with_context(|| format!("read {}", folder.display()))?.permissions().mode();
    if mode & 0o022 != 0 {
        bail!("others can change {}: run `chmod 700` on it", folder.display());
    }
    for name in SECRETS {
        let path = folder.join(name);
        let is_there = path.exists();
        secrets::draw(&path, &System)?;
        writeln!(Out::lock(), "{} {}", shown(&path), if is_there { "was there" } else { "is new" })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// It may hold a password, so that nothing ever prints it.
fn database_url(args: MigrateArgs) -> anyhow::Result<String> {
    let Some(file) = args.database_file else { return Ok(args.database.unwrap_or_default()) };
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
