//! Tenants, their keys, and what they may use.

use std::{
    io::Write as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use chopmark_api::time::Timestamp;
use chopmark_domain::{
    auth::ApiKey,
    ports::{LedgerReader as _, TenantAdmin},
    quota::{Limits, Rate},
    seal::KeyEncryptionKey,
    tenant::{ApiKeyRow, Scope, TenantRow},
};
use chopmark_store::PostgresRole;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;

use crate::{
    adapters,
    cli::{CONFIG_DEFAULT, parse_tenant},
    config::{Configured, load_key},
    ledger::remote::RemoteReader,
    output::Out,
    system::{self, System},
    tenants,
};

/// How long a rotated key lives on: a day's deployments reach everything that uses it.
const OVERLAP_HOURS_DEFAULT: u64 = 24;
const HOUR_MS: u64 = 3_600_000;
/// How long nodes may take to sign their first checkpoint.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(30);
const LEDGER_PAUSE: Duration = Duration::from_millis(200);

/// Tenants: the platforms that use the API
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    Create(TenantCreateArgs),
    List(ListArgs),
    Suspend(TenantArgs),
    Resume(TenantArgs),
}

/// Adds a tenant, to the database and to the ledger
#[derive(Debug, Args)]
#[command(
    long_about = "Adds a tenant: its secret to the database, its name to the ledger. The ledger takes it with the \
                  approval of a quorum of members, whose governance keys are named here. Repeating the command \
                  changes nothing.",
    after_long_help = "\
Example:
  chopmark admin tenant create ten_museum --config chopmark.toml \\
    --approve-with net/a.example/keys/governance.pem --approve-with net/b.example/keys/governance.pem

Exit status: 0 it is a tenant; 1 refused or failed."
)]
pub(crate) struct TenantCreateArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// Governance key of a member that approves; may be repeated
    #[arg(long, value_name = "KEY.pem")]
    approve_with: Vec<PathBuf>,
}

/// A tenant of the network in the configuration
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    /// Id of the tenant, `ten_` and a name
    #[arg(value_name = "TENANT", value_parser = parse_tenant)]
    tenant: String,

    #[command(flatten)]
    place: ConfigArgs,
}

/// Where the configuration is
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

impl TenantArgs {
    pub(super) fn id(&self) -> &str {
        &self.tenant
    }

    pub(super) fn config(&self) -> &Path {
        &self.place.config
    }
}

impl ConfigArgs {
    pub(super) fn config(&self) -> &Path {
        &self.config
    }
}

/// Lists what there is
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: ConfigArgs,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// API keys
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    Create(KeyCreateArgs),
    List(KeyListArgs),
    Revoke(KeyRevokeArgs),
    Rotate(KeyRotateArgs),
}

/// Makes an API key of a tenant and prints it, this once
#[derive(Debug, Args)]
#[command(
    long_about = "Makes an API key of a tenant and prints it. The database keeps a keyed hash: nobody can show the \
                  key again.",
    after_long_help = "\
Examples:
  chopmark admin key create --tenant ten_museum --config chopmark.toml
  chopmark admin key create --tenant ten_museum --scope read --expires 2027-01-01T00:00:00Z --allow 192.0.2.0/24

Exit status: 0 made; 1 refused or failed."
)]
pub(crate) struct KeyCreateArgs {
    /// The tenant
    #[arg(long, value_name = "TENANT", value_parser = parse_tenant)]
    tenant: String,

    /// What it may do, `read` or `write`; may be repeated [default: both]
    #[arg(long, value_name = "SCOPE", value_parser = parse_scope)]
    scope: Vec<Scope>,

    /// When it ends, a date and time of RFC 3339 [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Timestamp>,

    /// Network that it may be used from, in CIDR notation; may be repeated [default: anywhere]
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    allow: Vec<IpNet>,

    #[command(flatten)]
    place: ConfigArgs,
}

/// Lists the keys of a tenant, without the keys themselves
#[derive(Debug, Args)]
pub(crate) struct KeyListArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Revokes a key: gateways refuse it within five seconds, and it never comes back
#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArgs {
    /// Id of the key, as `key list` shows it
    #[arg(value_name = "KEY")]
    key: String,

    #[command(flatten)]
    place: ConfigArgs,
}

/// Makes a key like another one, which ends a little later
#[derive(Debug, Args)]
#[command(
    long_about = "Makes a key with the scopes and networks of another one and prints it. Both live until the old one \
                  ends, so that everything that uses it can change over without a gap.",
    after_long_help = "\
Example:
  chopmark admin key rotate key_0123456789abcdef01234567 --tenant ten_museum --overlap-hours 48

Exit status: 0 made; 1 refused or failed."
)]
pub(crate) struct KeyRotateArgs {
    /// Id of the old key, as `key list` shows it
    #[arg(value_name = "KEY")]
    key: String,

    /// Its tenant
    #[arg(long, value_name = "TENANT", value_parser = parse_tenant)]
    tenant: String,

    /// Hours after which the old key ends
    #[arg(long, value_name = "HOURS", default_value_t = OVERLAP_HOURS_DEFAULT)]
    overlap_hours: u64,

    /// When the new key ends, a date and time of RFC 3339 [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Timestamp>,

    #[command(flatten)]
    place: ConfigArgs,
}

/// What tenants may use
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    Set(QuotaSetArgs),
}

/// Says what a tenant may use, over all gateways
#[derive(Debug, Args)]
#[command(
    long_about = "Says what a tenant may use, over all gateways that share a Redis. It replaces what was said \
                  before: a limit that is not named here is lifted. Gateways follow within five seconds.",
    after_long_help = "\
Examples:
  chopmark admin quota set ten_museum --requests-per-second 50 --burst 200 --records-per-day 100000
  chopmark admin quota set ten_museum          lifts all limits

Exit status: 0 set; 1 refused or failed."
)]
pub(crate) struct QuotaSetArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// Requests a second, of all its keys together
    #[arg(long, value_name = "N")]
    requests_per_second: Option<NonZeroU32>,

    /// Requests at once after a pause [default: two seconds' worth]
    #[arg(long, value_name = "N", requires = "requests_per_second")]
    burst: Option<NonZeroU32>,

    /// Records accepted in a UTC day
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX.unsigned_abs()))]
    records_per_day: Option<u64>,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "`read` or `write` is expected".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let refusal = "a date and time of RFC 3339 is expected, such as 2027-01-01T00:00:00Z";
    Timestamp::parse(text).ok_or_else(|| refusal.to_owned())
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let refusal = "a network in CIDR notation is expected, such as 192.0.2.0/24 or 2001:db8::/32";
    let network: IpNet = text.parse().map_err(|_| refusal.to_owned())?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("bits behind the prefix are set; {} is meant, or another prefix", network.trunc()))
    }
}

/// The database of a configuration, as an administrator.
pub(super) struct Books {
    configured: Configured,
    pub(super) network: &'static str,
    pub(super) tenants: Arc<dyn TenantAdmin>,
}

impl Books {
    pub(super) async fn open(config: &Path) -> anyhow::Result<Self> {
        let configured = Configured::read(config)?;
        let network = configured.genesis()?.network.as_str();
        let tenants = adapters::database(&configured, PostgresRole::Admin).await?.tenants;
        Ok(Self { configured, network, tenants })
    }

    pub(super) fn no_tenant(&self, tenant: &str) -> anyhow::Error {
        anyhow::anyhow!("{tenant} is not a tenant of {}: run `chopmark admin tenant create` first", self.network)
    }

    pub(super) async fn require_tenant(&self, tenant: &str) -> anyhow::Result<()> {
        if self.tenants.tenants(self.network).await?.iter().any(|row| row.id == tenant) {
            Ok(())
        } else {
            Err(self.no_tenant(tenant))
        }
    }

    async fn keys(&self, tenant: &str) -> anyhow::Result<Vec<ApiKeyRow>> {
        self.require_tenant(tenant).await?;
        Ok(self.tenants.api_keys(self.network, tenant).await?)
    }

    /// Draws a key, keeps its hash and prints it.
    async fn issue(&self, tenant: &str, wanted: KeyTerms) -> anyhow::Result<()> {
        let key = ApiKey::generate(self.network, &System)?;
        let hashing_key = self.configured.secrets()?.api_keys;
        tenants::insert_key(self.tenants.as_ref(), &key, &hashing_key, tenant, wanted, system::now_ms()).await?;
        writeln!(Out::lock(), "{}", key.reveal())?;
        Ok(())
    }
}

pub(super) async fn tenant(command: TenantCommand) -> anyhow::Result<ExitCode> {
    match command {
        TenantCommand::Create(args) => create_tenant(args).await?,
        TenantCommand::List(args) => {
            let books = Books::open(&args.place.config).await?;
            for row in books.tenants.tenants(books.network).await? {
                show(&tenant_view(&row), args.json)?;
            }
        }
        TenantCommand::Suspend(args) => set_active(&args, false).await?,
        TenantCommand::Resume(args) => set_active(&args, true).await?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn key(command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::Create(args) => {
            let books = Books::open(&args.place.config).await?;
            // Whose tenant is not there is told so before a key is drawn.
            books.keys(&args.tenant).await?;
            let scopes = if args.scope.is_empty() { vec![Scope::Read, Scope::Write] } else { args.scope };
            let expires_at = args.expires.map(not_past).transpose()?;
            books.issue(&args.tenant, KeyTerms { scopes, allowed: args.allow, expires_at }).await?;
        }
        KeyCommand::List(args) => {
            let books = Books::open(&args.of.place.config).await?;
            for row in books.keys(&args.of.tenant).await? {
                show(&key_view(&row), args.json)?;
            }
        }
        KeyCommand::Revoke(args) => {
            let books = Books::open(&args.place.config).await?;
            if !books.tenants.revoke_api_key(&args.key, system::now_ms()).await? {
                bail!("there is no key {}: `chopmark admin key list` shows a tenant's", args.key);
            }
            writeln!(Out::lock(), "{} is revoked", args.key)?;
        }
        KeyCommand::Rotate(args) => rotate(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn quota(command: QuotaCommand) -> anyhow::Result<ExitCode> {
    let QuotaCommand::Set(args) = command;
    let books = Books::open(&args.of.place.config).await?;
    let rate = args.requests_per_second.map(|per_second| {
        let burst = args.burst.unwrap_or(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Rate { per_second, burst }
    });
    let limits = Limits { rate, records_per_day: args.records_per_day };
    if !books.tenants.set_tenant_limits(books.network, &args.of.tenant, limits).await? {
        return Err(books.no_tenant(&args.of.tenant));
    }
    writeln!(Out::lock(), "{} may use: {}", args.of.tenant, limits_text(&limits))?;
    Ok(ExitCode::SUCCESS)
}

async fn create_tenant(args: TenantCreateArgs) -> anyhow::Result<()> {
    let tenant = &args.of.tenant;
    let configured = Configured::read(&args.of.place.config)?;
    let (genesis, submitter) = (configured.genesis()?, configured.submitter()?);
    let governance = args.approve_with.iter().map(|path| load_key(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let kek = KeyEncryptionKey::new(configured.secrets()?.key_encryption_key);
    let (network, stores) = (genesis.network.as_str(), adapters::database(&configured, PostgresRole::Admin).await?);
    let reader = RemoteReader::new(&configured.nodes()?, genesis)?;
    let (height, ledger) = (published_height(&reader).await?, reader.writer(submitter));
    // The database first: no entry of a tenant whose secret is not kept.
    tenants::insert(stores.tenants.as_ref(), &kek, &System, tenant, network, system::now_ms()).await?;
    tenants::register(&ledger, height, &governance, tenant).await?;
    writeln!(Out::lock(), "{tenant} is a tenant of {network}")?;
    Ok(())
}

/// The ledger's height; nodes that have just been started are waited for.
async fn published_height(reader: &RemoteReader) -> anyhow::Result<u64> {
    let begun = Instant::now();
    loop {
        match reader.status().await {
            Ok(status) => return Ok(status.height),
            Err(error) if begun.elapsed() > LEDGER_TIMEOUT => return Err(error.into()),
            Err(_) => tokio::time::sleep(LEDGER_PAUSE).await,
        }
    }
}

async fn set_active(args: &TenantArgs, active: bool) -> anyhow::Result<()> {
    let books = Books::open(&args.place.config).await?;
    if !books.tenants.set_tenant_active(books.network, &args.tenant, active).await? {
        return Err(books.no_tenant(&args.tenant));
    }
    let state = if active { "may write" } else { "may read and not write" };
    writeln!(Out::lock(), "{} {state}; gateways follow within five seconds", args.tenant)?;
    Ok(())
}

async fn rotate(args: KeyRotateArgs) -> anyhow::Result<()> {
    let books = Books::open(&args.place.config).await?;
    let keys = books.keys(&args.tenant).await?;
    let Some(old) = keys.into_iter().find(|row| row.id == args.key) else {
        bail!("{} has no key {}: `chopmark admin key list {0}` shows them", args.tenant, args.key);
    };
    if old.revoked_at.is_some() {
        bail!("{} is revoked: make a new key with `chopmark admin key create`", args.key);
    }
    let expires_at = args.expires.map(not_past).transpose()?;
    let ends =
        system::now_ms().saturating_add(args.overlap_hours.saturating_mul(HOUR_MS)).min(Timestamp::MAX.unix_ms());
    // The new one first: whoever is interrupted here has both, and can say it again.
    books.issue(&args.tenant, KeyTerms { scopes: old.scopes, allowed: old.allowed, expires_at }).await?;
    books.tenants.expire_api_key(&old.id, ends).await?;
    Ok(())
}

/// What a key is made with.
pub(crate) struct KeyTerms {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) allowed: Vec<IpNet>,
    pub(crate) expires_at: Option<u64>,
}

fn not_past(time: Timestamp) -> anyhow::Result<u64> {
    if time.unix_ms() <= system::now_ms() {
        bail!("--expires {time} has passed already");
    }
    Ok(time.unix_ms())
}

pub(super) fn time(ms: Option<u64>) -> Option<String> {
    ms.map(|ms| Timestamp::from_unix_ms(ms).to_string())
}

#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct View(pub(super) serde_json::Value);

fn tenant_view(row: &TenantRow) -> View {
    View(json!({
        "tenant": row.id,
        "network": row.network,
        "active": row.active,
        "signatures_required": row.signatures_required,
        "created_at": time(Some(row.created_at)),
        "requests_per_second": row.limits.rate.map(|rate| rate.per_second),
        "burst": row.limits.rate.map(|rate| rate.burst),
        "records_per_day": row.limits.records_per_day,
    }))
}

fn key_view(row: &ApiKeyRow) -> View {
    View(json!({
        "key": row.id,
        "tenant": row.tenant,
        "network": row.network,
        "scopes": row.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "allow": row.allowed,
        "created_at": time(Some(row.created_at)),
        "expires_at": time(row.expires_at),
        "revoked_at": time(row.revoked_at),
    }))
}

fn limits_text(limits: &Limits) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = limits.rate {
        parts.push(format!("{} requests a second, {} at once", rate.per_second, rate.burst));
    }
    if let Some(records) = limits.records_per_day {
        parts.push(format!("{records} records a day"));
    }
    if parts.is_empty() { "as much as it likes".to_owned() } else { parts.join("; ") }
}

/// A line of `name=value` for people, of JSON for programs.
pub(super) fn show(View(view): &View, as_json: bool) -> anyhow::Result<()> {
    let mut out = Out::lock();
    if as_json {
        out.json(view)?;
        return Ok(());
    }
    let members = view.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let line: Vec<_> = members
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={value}"),
        })
        .collect();
    writeln!(out, "{}", line.join("  "))?;
    Ok(())
}
