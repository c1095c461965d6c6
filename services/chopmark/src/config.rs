//! `chopmark.toml`: how gateways and committers are run. One file for all roles of an operator; each
//! reads what it needs. `CHOPMARK__SECTION__KEY` in the environment overrides a key, secrets are
//! named as files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use chopmark_queue::KafkaSettings;
use ledger_core::{SigningKey, genesis::Genesis};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secrets;

/// The configuration. Unknown keys are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) ledger: LedgerSection,
    pub(crate) kafka: Option<KafkaSettings>,
    pub(crate) database: DatabaseSection,
    pub(crate) cache: CacheSection,
    pub(crate) secrets: SecretsSection,
    pub(crate) gateway: Option<GatewaySection>,
    pub(crate) committer: Option<CommitterSection>,
}

/// The network and the nodes that are asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerSection {
    /// `genesis.json` of the network, from a member's folder: what is trusted.
    genesis: PathBuf,
    /// Internal interfaces of nodes. Read from the first that answers, submitted to all.
    pub(crate) nodes: Vec<String>,
    /// Key that signs submissions (PEM); committers and `chopmark admin tenant create` need it.
    submitter_key_file: Option<PathBuf>,
}

/// The database.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseSection {
    /// `postgres://…` or `sqlite:PATH`.
    url: Option<String>,
    /// File that holds the URL, where it has a password in it.
    url_file: Option<PathBuf>,
}

/// The cache.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheSection {
    /// `redis://…` or `memory:`.
    url: Option<String>,
    /// File that holds the URL, where it has a password in it.
    url_file: Option<PathBuf>,
}

/// Secrets that all gateways share; `chopmark admin secrets` draws them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretsSection {
    /// Wraps the keys of tenants.
    key_encryption_key_file: PathBuf,
    /// Tags ids and cursors.
    ids_key_file: PathBuf,
    /// Hashes API keys.
    api_keys_key_file: PathBuf,
}

/// `chopmark gateway`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaySection {
    /// Address of the API.
    pub(crate) listen: SocketAddr,
    /// Address of health and metrics; not for the public.
    pub(crate) internal: SocketAddr,
    /// Folder for originals that callers want kept; without it they are not kept. All gateways need
    /// the same one.
    originals: Option<PathBuf>,
    /// Proxies of our own in front. Default 0.
    #[serde(default)]
    pub(crate) trusted_proxies: usize,
    /// Worker threads. Default: as many as cores.
    pub(crate) workers: Option<usize>,
}

/// `chopmark committer`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitterSection {
    /// Address of health and metrics; not for the public.
    pub(crate) internal: SocketAddr,
}

/// A configuration with the folder that its paths are relative to.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) config: Config,
    path: PathBuf,
}

/// What an operator's gateways share, and what hashes API keys: never shown, never replaced.
pub(crate) struct Secrets {
    pub(crate) key_encryption_key: Zeroizing<[u8; 32]>,
    pub(crate) ids: Zeroizing<[u8; 32]>,
    pub(crate) api_keys: Zeroizing<[u8; 32]>,
}

impl Configured {
    /// Reads the file and what the environment overrides.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.is_file() {
            bail!("{} is not there: name the configuration with --config", path.display());
        }
        let environment = config::Environment::with_prefix("CHOPMARK").prefix_separator("__").separator("__");
        // A list is given with commas.
        let environment = environment
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("ledger.nodes")
            .with_list_parse_key("kafka.brokers");
        let file = config::File::from(path).format(config::FileFormat::Toml);
        let read = config::Config::builder().add_source(file).add_source(environment).build();
        let read = read.with_context(|| format!("read {}", path.display()))?;
        let config: Config = read.try_deserialize().with_context(|| format!("{} cannot be used", path.display()))?;
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        Ok(Self { config, path })
    }

    /// A path of the file: relative ones start at the file's folder.
    fn at(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }

    /// What is missing, by the name that it has in the file.
    pub(crate) fn missing(&self, key: &str, why: &str) -> anyhow::Error {
        anyhow::anyhow!("{} has no {key}: {why}", self.path.display())
    }

    pub(crate) fn genesis(&self) -> anyhow::Result<Genesis> {
        let path = self.at(&self.config.ledger.genesis);
        let bytes = fs::read(&path).with_context(|| format!("read ledger.genesis, {}", path.display()))?;
        Genesis::parse(&bytes).with_context(|| format!("ledger.genesis: {} is no genesis", path.display()))
    }

    pub(crate) fn submitter(&self) -> anyhow::Result<SigningKey> {
        let Some(path) = &self.config.ledger.submitter_key_file else {
            return Err(self.missing("ledger.submitter_key_file", "nobody takes a submission that is not signed"));
        };
        load_key(&self.at(path)).context("ledger.submitter_key_file")
    }

    pub(crate) fn secrets(&self) -> anyhow::Result<Secrets> {
        let SecretsSection { key_encryption_key_file, ids_key_file, api_keys_key_file } = &self.config.secrets;
        Ok(Secrets {
            key_encryption_key: secrets::load(&self.at(key_encryption_key_file))?,
            ids: secrets::load(&self.at(ids_key_file))?,
            api_keys: secrets::load(&self.at(api_keys_key_file))?,
        })
    }

    /// URL of the database; it may hold a password.
    pub(crate) fn database(&self) -> anyhow::Result<Zeroizing<String>> {
        let DatabaseSection { url, url_file } = &self.config.database;
        self.url("database", url.as_deref(), url_file.as_deref())
    }

    /// URL of the cache; it may hold a password.
    pub(crate) fn cache(&self) -> anyhow::Result<Zeroizing<String>> {
        let CacheSection { url, url_file } = &self.config.cache;
        self.url("cache", url.as_deref(), url_file.as_deref())
    }

    fn url(&self, section: &str, url: Option<&str>, file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
        match (url, file) {
            (Some(url), None) => Ok(Zeroizing::new(url.to_owned())),
            (None, Some(file)) => Ok(Zeroizing::new(secrets::read(&self.at(file))?.trim().to_owned())),
            _ => bail!("{} needs {section}.url or {section}.url_file, and not both", self.path.display()),
        }
    }

    /// Settings of the queue.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaSettings> {
        let missing = || self.missing("table [kafka]", "gateways and committers meet in a queue that both reach");
        self.config.kafka.clone().ok_or_else(missing)
    }

    pub(crate) fn gateway(&self) -> anyhow::Result<&GatewaySection> {
        self.config.gateway.as_ref().ok_or_else(|| self.missing("table [gateway]", "it says where to listen"))
    }

    pub(crate) fn originals(&self, gateway: &GatewaySection) -> Option<PathBuf> {
        gateway.originals.as_deref().map(|path| self.at(path))
    }

    pub(crate) fn committer(&self) -> anyhow::Result<&CommitterSection> {
        self.config.committer.as_ref().ok_or_else(|| self.missing("table [committer]", "it says where metrics are"))
    }
}

/// Loads a key from `NAME.pem`.
pub(crate) fn load_key(path: &Path) -> anyhow::Result<SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pem"));
    let name = name.with_context(|| format!("{} is not named NAME.pem, as keys are", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(chopmark_node::keys::load(folder, name)?)
}
