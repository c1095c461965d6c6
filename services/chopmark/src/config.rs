//! `chopmark.toml`: how gateways and committers are run. One file for all roles of an operator; each
//! reads what it needs. `CHOPMARK__SECTION__KEY` in the environment overrides a key, secrets are
//! named as files.

use std::{
    collections::HashMap,
    env, fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use chopmark_domain::{id::IdIssuer, seal::KeyEncryptionKey};
use chopmark_queue::KafkaSettings;
use ipnet::IpNet;
use ledger_core::{SigningKey, genesis::Genesis};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secrets;

/// What kind of reason there is to refuse a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// There is no such file.
    Missing,
    /// It cannot be read as text.
    Unreadable,
    /// It is not TOML.
    Syntax,
    /// A key is not known.
    UnknownKey,
    /// Anything else about keys and values.
    Invalid,
}

/// Why a configuration is refused, without the values that stand in it.
#[derive(Debug)]
pub(crate) struct ReadError {
    pub(crate) fault: ReadFault,
    text: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ReadError {}

/// The configuration. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) ledger: LedgerSection,
    sandbox: Option<LedgerSection>,
    pub(crate) kafka: Option<KafkaSettings>,
    pub(crate) database: DatabaseSection,
    pub(crate) cache: CacheSection,
    pub(crate) secrets: SecretsSection,
    pub(crate) gateway: Option<GatewaySection>,
    pub(crate) committer: Option<CommitterSection>,
    pub(crate) courier: Option<CourierSection>,
    #[serde(default)]
    webhooks: WebhooksSection,
}

/// The network and the nodes that are asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerSection {
    /// `genesis.json` of the network, from a member's folder: what is trusted.
    genesis: PathBuf,
    /// Internal interfaces of nodes. Read from the first that answers, submitted to all.
    nodes: Vec<String>,
    /// Key that signs submissions (PEM); committers and `chopmark admin tenant create` need it.
    pub(crate) submitter_key_file: Option<PathBuf>,
}

/// A text that may hold a password: nothing prints it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseSection {
    /// `postgres://…` or `sqlite:PATH`.
    pub(crate) url: Option<Secret>,
    /// File that holds the URL, where it has a password in it.
    pub(crate) url_file: Option<PathBuf>,
}

/// The cache.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheSection {
    /// `redis://…` or `memory:`.
    pub(crate) url: Option<Secret>,
    /// File that holds the URL, where it has a password in it.
    pub(crate) url_file: Option<PathBuf>,
}

/// Secrets that all gateways share; `chopmark admin secrets` draws them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretsSection {
    /// Wraps the keys of tenants.
    pub(crate) key_encryption_key_file: PathBuf,
    /// Tags ids and cursors.
    pub(crate) ids_key_file: PathBuf,
    /// Hashes API keys.
    pub(crate) api_keys_key_file: PathBuf,
}

/// `chopmark gateway`.
#[derive(Debug, Clone, Deserialize)]
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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitterSection {
    /// Address of health and metrics; not for the public.
    pub(crate) internal: SocketAddr,
}

/// `chopmark courier`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CourierSection {
    /// Address of health and metrics; not for the public.
    pub(crate) internal: SocketAddr,
}

/// Where webhooks may go, for gateways and couriers alike.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhooksSection {
    /// Networks that are sent to though they are not public, over plain `http` too.
    #[serde(default)]
    pub(crate) allowed_networks: Vec<IpNet>,
    /// Certificates of authorities of one's own (PEM), besides the system's.
    #[serde(default)]
    pub(crate) ca_files: Vec<PathBuf>,
    /// Delays between attempts, instead of the thirteen over three days.
    pub(crate) retry_after_seconds: Option<Vec<u64>>,
}

impl WebhooksSection {
    /// Only these networks besides public ones.
    pub(crate) fn allowing(allowed_networks: Vec<IpNet>) -> Self {
        Self { allowed_networks, ..Self::default() }
    }
}

/// A configuration with the folder that its paths are relative to.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) config: Config,
    /// The table that `config.ledger` is from: `ledger`, or `sandbox`.
    pub(crate) ledger_table: &'static str,
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
        Self::read_with(
            path,
            env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    fn read_with(path: &Path, variables: HashMap<String, String>) -> anyhow::Result<Self> {
        let refused = |fault, text| ReadError { fault, text };
        if !path.is_file() {
            let text = format!("{} is not there: name the configuration with --config", path.display());
            return Err(refused(ReadFault::Missing, text).into());
        }
        let text = fs::read_to_string(path)
            .map_err(|error| refused(ReadFault::Unreadable, format!("read {}: {error}", path.display())))?;
        // Not the library's own message: it quotes the line.
        if let Err(error) = text.parse::<toml::Table>() {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            let text = format!("{}, line {line}: {}", path.display(), unquoted(error.message()));
            return Err(refused(ReadFault::Syntax, text).into());
        }
        let mut builder = config::Config::builder().add_source(config::File::from_str(&text, config::FileFormat::Toml));
        for (variable, key) in LISTS {
            if let Some(list) = variables.get(variable).filter(|list| !list.is_empty()) {
                builder = builder.set_override(key, list.split(',').map(str::trim).collect::<Vec<_>>())?;
            }
        }
        let environment = config::Environment::with_prefix("CHOPMARK").prefix_separator("__").separator("__");
        let environment = environment.ignore_empty(true).source(Some(variables));
        let read = builder.add_source(environment).build().and_then(config::Config::try_deserialize);
        let config: Config = read.map_err(|error| {
            // serde's own words.
            let is_unknown = error.to_string().contains("unknown field");
            let fault = if is_unknown { ReadFault::UnknownKey } else { ReadFault::Invalid };
            let said = unquoted(&error.to_string());
            refused(fault, format!("{}, or what the environment overrides: {said}", path.display()))
        })?;
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        let configured = Self { config, ledger_table: "ledger", path };
        configured.nodes()?;
        if let Some(sandbox) = configured.sandbox() {
            sandbox.nodes()?;
        }
        Ok(configured)
    }

    /// The sandbox that gateways serve beside `ledger`: the same configuration with the other network.
    pub(crate) fn sandbox(&self) -> Option<Self> {
        let mut config = self.config.clone();
        config.ledger = config.sandbox.take()?;
        Some(Self { config, ledger_table: "sandbox", path: self.path.clone() })
    }

    /// A path of the file: relative ones start at the file's folder.
    pub(crate) fn at(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &Path {
        &self.path
    }

    /// URLs of the internal interfaces of nodes.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let (nodes, path) = (&self.config.ledger.nodes, self.path.display());
        if nodes.is_empty() {
            bail!("{path}: {}.nodes is empty: name at least one node's internal interface", self.ledger_table);
        }
        let mut known: Vec<reqwest::Url> = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let refused =
                |why: &str| anyhow::anyhow!("{path}: {}.nodes, number {}: {why}", self.ledger_table, number + 1);
            let form = "http://HOST:PORT or https://HOST:PORT is expected";
            let url = reqwest::Url::parse(node).map_err(|_| refused(form))?;
            if !matches!(url.scheme(), "http" | "https")
                || !url.has_host()
                || url.path() != "/"
                || url.query().is_some()
            {
                return Err(refused(form));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(refused("a name or a password is in it; nodes ask for none"));
            }
            if known.contains(&url) {
                return Err(refused("it is named twice; f + 1 nodes have to be different ones"));
            }
            known.push(url);
        }
        Ok(nodes.clone())
    }

    /// What is missing, by the name that it has in the file.
    pub(crate) fn missing(&self, key: &str, why: &str) -> anyhow::Error {
        anyhow::anyhow!("{} has no {key}: {why}", self.path.display())
    }

    pub(crate) fn genesis(&self) -> anyhow::Result<Genesis> {
        let path = self.at(&self.config.ledger.genesis);
        let table = self.ledger_table;
        let bytes = fs::read(&path).with_context(|| format!("read {table}.genesis, {}", path.display()))?;
        Genesis::parse(&bytes).with_context(|| format!("{table}.genesis: {} is no genesis", path.display()))
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

    /// What a courier needs of the secrets: it issues ids and opens the secrets of endpoints.
    pub(crate) fn courier_keys(&self) -> anyhow::Result<(IdIssuer, KeyEncryptionKey)> {
        let SecretsSection { key_encryption_key_file, ids_key_file, .. } = &self.config.secrets;
        let ids = IdIssuer::new(secrets::load(&self.at(ids_key_file))?, self.genesis()?.network.as_str());
        Ok((ids, KeyEncryptionKey::new(secrets::load(&self.at(key_encryption_key_file))?)))
    }

    /// URL of the database; it may hold a password.
    pub(crate) fn database(&self) -> anyhow::Result<Zeroizing<String>> {
        let DatabaseSection { url, url_file } = &self.config.database;
        let url = self.url("database", url.as_ref(), url_file.as_deref())?;
        match url.strip_prefix("sqlite:").filter(|file| !file.starts_with(':')) {
            Some(file) => Ok(Zeroizing::new(format!("sqlite:{}", self.at(Path::new(file)).display()))),
            None => Ok(url),
        }
    }

    /// URL of the cache; it may hold a password.
    pub(crate) fn cache(&self) -> anyhow::Result<Zeroizing<String>> {
        let CacheSection { url, url_file } = &self.config.cache;
        self.url("cache", url.as_ref(), url_file.as_deref())
    }

    fn url(&self, section: &str, url: Option<&Secret>, file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
        match (url, file) {
            (Some(Secret(url)), None) => Ok(Zeroizing::new(url.clone())),
            (None, Some(file)) => Ok(Zeroizing::new(secrets::read(&self.at(file))?.trim().to_owned())),
            _ => bail!("{} needs {section}.url or {section}.url_file, and not both", self.path.display()),
        }
    }

    /// Settings of the queue.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaSettings> {
        let missing = || self.missing("table [kafka]", "gateways and committers meet in a queue that both reach");
        let mut settings = self.config.kafka.clone().ok_or_else(missing)?;
        if let Some(tls) = &mut settings.tls {
            for file in [&mut tls.ca, &mut tls.certificate, &mut tls.key].into_iter().flatten() {
                *file = self.at(file);
            }
            if let Some(key) = &tls.key {
                secrets::read(key).context("kafka.tls.key")?;
            }
        }
        if let Some(sasl) = &mut settings.sasl {
            sasl.password_file = self.at(&sasl.password_file);
            secrets::read(&sasl.password_file).context("kafka.sasl.password_file")?;
        }
        Ok(settings)
    }

    pub(crate) fn gateway(&self) -> anyhow::Result<&GatewaySection> {
        self.config.gateway.as_ref().ok_or_else(|| self.missing("table [gateway]", "it says where to listen"))
    }

    pub(crate) fn originals(&self, gateway: &GatewaySection) -> Option<PathBuf> {
        let folder = gateway.originals.as_deref().map(|path| self.at(path))?;
        // What a sandbox keeps beside another network is never beside that one's.
        Some(if self.ledger_table == "sandbox" { folder.join("sandbox") } else { folder })
    }

    pub(crate) fn courier(&self) -> anyhow::Result<&CourierSection> {
        self.config.courier.as_ref().ok_or_else(|| self.missing("table [courier]", "it says where metrics are"))
    }

    pub(crate) const fn webhooks(&self) -> &WebhooksSection {
        &self.config.webhooks
    }

    /// Certificates that webhooks trust besides the system's.
    pub(crate) fn webhook_roots(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let files = self.config.webhooks.ca_files.iter().map(|file| self.at(file));
        files.map(|file| fs::read(&file).with_context(|| format!("webhooks.ca_files, {}", file.display()))).collect()
    }

    pub(crate) fn committer(&self) -> anyhow::Result<&CommitterSection> {
        self.config.committer.as_ref().ok_or_else(|| self.missing("table [committer]", "it says where metrics are"))
    }
}

/// Lists among the keys; in the environment they have commas.
const LISTS: [(&str, &str); 3] = [
    ("CHOPMARK__LEDGER__NODES", "ledger.nodes"),
    ("CHOPMARK__SANDBOX__NODES", "sandbox.nodes"),
    ("CHOPMARK__KAFKA__BROKERS", "kafka.brokers"),
];

/// A message without the values that it quotes: any may be a password that stands in the wrong place.
fn unquoted(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts.map(|(number, part)| if number % 2 == 0 { part } else { "\"…\"" }).collect()
}

/// Loads a key from `NAME.pem`.
pub(crate) fn load_key(path: &Path) -> anyhow::Result<SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pem"));
    let name = name.with_context(|| format!("{} is not named NAME.pem, as keys are", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(chopmark_node::keys::load(folder, name)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PLAIN: &str = r#"
        [ledger]
        genesis = "net/genesis.json"
        nodes = ["http://127.0.0.1:1", "https://node.example/"]
        [kafka]
        brokers = ["127.0.0.1:2"]
        [kafka.tls]
        ca = "tls/ca.pem"
        [kafka.sasl]
        mechanism = "SCRAM-SHA-512"
        user = "chopmark"
        password_file = "kafka.password"
        [database]
        url = "sqlite:data/chopmark.db"
        [cache]
        url = "redis://:hunter2@127.0.0.1:3"
        [secrets]
        key_encryption_key_file = "kek.key"
        ids_key_file = "ids.key"
        api_keys_key_file = "api.key"
    "#;

    fn read(text: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, anyhow::Result<Configured>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chopmark.toml");
        fs::write(&path, text).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = Configured::read_with(&path, variables);
        (folder, read)
    }

    fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
        format!("{:#}", read(text, variables).1.unwrap_err())
    }

    #[test]
    fn paths_begin_at_the_files_folder() {
        let (folder, read) = read(PLAIN, &[]);
        let configured = read.unwrap();
        let expected = folder.path().join("data/chopmark.db");
        assert_eq!(*configured.database().unwrap(), format!("sqlite:{}", expected.display()));
        let password = folder.path().join("kafka.password");
        assert!(format!("{:#}", configured.kafka().unwrap_err()).contains("kafka.sasl.password_file"));
        fs::write(&password, "secret\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(format!("{:#}", configured.kafka().unwrap_err()).contains("can be read by others"));
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let kafka = configured.kafka().unwrap();
        assert_eq!(kafka.sasl.unwrap().password_file, password);
        assert_eq!(kafka.tls.unwrap().ca.unwrap(), folder.path().join("tls/ca.pem"));
    }

    #[test]
    fn the_environment_overrides_and_changes_no_text() {
        let (_folder, read) = read(
            PLAIN,
            &[
                ("CHOPMARK__LEDGER__NODES", "http://127.0.0.1:7, http://127.0.0.1:8"),
                ("CHOPMARK__KAFKA__PARTITIONS", "6"),
                ("CHOPMARK__KAFKA__SASL__USER", "0123"),
                ("CHOPMARK__DATABASE__URL", ""),
                ("CHOPMARK_OTHER", "x"),
            ],
        );
        let configured = read.unwrap();
        assert_eq!(configured.nodes().unwrap(), ["http://127.0.0.1:7", "http://127.0.0.1:8"]);
        let kafka = configured.config.kafka.as_ref().unwrap();
        assert_eq!((kafka.partitions, kafka.sasl.as_ref().unwrap().user.as_str()), (6, "0123"));
        assert!(configured.database().unwrap().contains("chopmark.db"), "an empty variable overrides nothing");
    }

    #[test]
    fn no_message_and_no_debug_output_holds_a_secret() {
        let (_folder, whole) = read(PLAIN, &[]);
        assert!(!format!("{:?}", whole.unwrap()).contains("hunter2"));
        for (good, bad) in [
            // A quote that is missing, a value that stands in the wrong place, a key that is none.
            ("3\"\n", "3\n"),
            ("[kafka]", "[kafka]\npartitions = \"hunter2\""),
            ("[cache]", "[cache]\npassword = \"hunter2\""),
            ("[cache]", "[cache]\nurl_file = [\"hunter2\"]"),
            ("[secrets]", "[secrets"),
            ("mechanism = \"SCRAM-SHA-512\"", "mechanism = \"hunter2"),
        ] {
            let text = refusal(&PLAIN.replacen(good, bad, 1), &[]);
            assert!(!text.contains("hunter2") && text.contains("chopmark.toml"), "{bad}: {text}");
        }
        let text = refusal(PLAIN, &[("CHOPMARK__KAFKA__PARTITIONS", "hunter2")]);
        assert!(!text.contains("hunter2") && text.contains("environment"), "{text}");
    }

    #[test]
    fn nodes_that_are_none_are_refused_by_number() {
        for (nodes, expected) in [
            ("[]", "ledger.nodes is empty"),
            (r#"["127.0.0.1:1"]"#, "number 1: http://HOST:PORT"),
            (r#"["http://a:1", "ftp://b:1"]"#, "number 2: http://HOST:PORT"),
            (r#"["http://a:1/internal"]"#, "number 1: http://HOST:PORT"),
            (r#"["http://me:hunter2@a:1"]"#, "number 1: a name or a password"),
            (r#"["http://a:80", "http://b:1", "http://A"]"#, "number 3: it is named twice"),
        ] {
            let text = PLAIN.replacen(r#"["http://127.0.0.1:1", "https://node.example/"]"#, nodes, 1);
            let refusal = refusal(&text, &[]);
            assert!(refusal.contains(expected) && !refusal.contains("hunter2"), "{nodes}: {refusal}");
        }
    }
}
