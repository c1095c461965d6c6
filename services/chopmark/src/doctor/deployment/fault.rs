//! Everything that `chopmark doctor --config` may find. `docs/runbooks/doctor.md` is this table in Markdown,
//! and a test seeds every line of it (`tests/faults/doctor`).

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Does not work, or must not stay so.
    Fail,
    /// Works, but look at it.
    Warn,
    /// Whether it is right cannot be told.
    Unknown,
}

impl Severity {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
        }
    }
}

/// What is always true of a fault.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// Never changes: alarms and scripts know it.
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    /// What is wrong, and what comes of it.
    pub(super) cause: &'static str,
    /// What to do.
    pub(super) fix: &'static str,
}

macro_rules! faults {
    ($($fault:ident $name:literal $severity:ident $cause:literal, $fix:literal;)*) => {
        /// A fault by its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fault { $($fault,)* }

        impl Fault {
            pub(super) const ALL: &[Self] = &[$(Self::$fault,)*];

            pub(super) const fn entry(self) -> Entry {
                match self {
                    $(Self::$fault => {
                        Entry { name: $name, severity: Severity::$severity, cause: $cause, fix: $fix }
                    })*
                }
            }
        }
    };
}

faults! {
    // The configuration.
    ConfigMissing "config-missing" Fail
        "There is no such file.", "Name the configuration with `--config`; `docs/CONFIGURATION.md` says what is in it.";
    ConfigUnreadable "config-unreadable" Fail
        "The file cannot be read as text by this user.", "Run as the user that the role runs as, or change owner and mode of the file; it is UTF-8.";
    ConfigSyntax "config-syntax" Fail
        "The file is not TOML.", "Repair the line that is named.";
    ConfigUnknownKey "config-unknown-key" Fail
        "A key is not known, so that what it was to change is not changed; no role starts.", "Correct or remove it. Variables `CHOPMARK__…` of the environment count too.";
    ConfigInvalid "config-invalid" Fail
        "A key is missing, has a value that cannot be, or contradicts another.", "Correct it; `docs/CONFIGURATION.md` lists the keys.";
    ConfigTableMissing "config-table-missing" Fail
        "A table that this role needs is not there.", "Add it, or name another role with `--role`.";
    ConfigPasswordExposed "config-password-exposed" Fail
        "The file holds a password and others can read it.", "`chmod 600` on it and change the password; better, keep the URL in a file of its own (`url_file`).";
    GenesisUnusable "genesis-unusable" Fail
        "`ledger.genesis` cannot be read or is no genesis: it says which network is trusted.", "Copy `node/genesis.json` from a member's folder.";
    ApiKeyNetwork "api-key-network" Fail
        "The API key is of the other network, or is none: its prefix is not that of the network of the genesis.", "Use a `cm_test_` key on a sandbox and a `cm_live_` key on a live network; `chopmark admin key create` makes one.";
    // Secrets and keys.
    SecretMissing "secret-missing" Fail
        "A file with a secret or a key is not there.", "Restore it from where it is kept. Never draw another in its place: what was sealed or issued under it would be lost.";
    SecretExposed "secret-exposed" Fail
        "Others can read a secret, or change the folder of a key.", "`chmod 600` on the file, `chmod 700` on the folder of a key; replace it if anybody else had access.";
    SecretMalformed "secret-malformed" Fail
        "A file does not hold what it should: 64 hexadecimal digits, a PEM key named `NAME.pem`, a URL or a password.", "Restore it from where it is kept.";
    SubmitterKeyUnknown "submitter-key-unknown" Warn
        "The genesis names no such submitter key: nodes refuse submissions, unless the members have changed keys since.", "Name the key file `submitter.pem` of a member's folder, the newest rotation of it.";
    // TLS files.
    TlsFileUnusable "tls-file-unusable" Fail
        "A file with certificates cannot be read, or has none.", "Name a PEM file that this user may read.";
    TlsExpired "tls-expired" Fail
        "A certificate has ended or does not begin yet: connections that need it fail.", "Put a valid one in its place, and restart the role.";
    TlsExpiresSoon "tls-expires-soon" Warn
        "A certificate ends within 30 days.", "Put its successor in its place, and restart the role.";
    // This machine.
    ListenerTaken "listener-taken" Fail
        "Another program has the address, so that the role cannot start.", "Stop it (`ss -ltnp` shows it), or choose another port.";
    ListenerUnusable "listener-unusable" Fail
        "This machine has no such address, or this user may not listen there.", "Give an address of this machine, and a port from 1024 on.";
    ListenerShared "listener-shared" Fail
        "Two listeners of the role have one address.", "Give `gateway.internal` another port.";
    FolderUnusable "folder-unusable" Fail
        "The path is no folder, or none can be made there.", "Name another, or move away what is there.";
    FolderReadOnly "folder-read-only" Fail
        "This user may not write to the folder, or its file system is read-only.", "Change the owner of the folder or the mount; run doctor as the user that the role runs as.";
    DiskFull "disk-full" Fail
        "Less than 256 MiB are free.", "Make room, or move the folder to a larger disk: `docs/runbooks/disk-full.md`.";
    DiskLow "disk-low" Warn
        "Less than 4 GiB are free.", "Make room before it is urgent: `docs/runbooks/disk-full.md`.";
    OpenFilesFew "open-files-few" Fail
        "The process may open fewer than 1024 files: connections are refused under ordinary load.", "`LimitNOFILE` in the service's unit, or `ulimit -n 4096`; and start doctor as the role is started.";
    OpenFilesLow "open-files-low" Warn
        "The process may open fewer than 4096 files: connections may be refused under load.", "As for `open-files-few`.";
    ClockSkew "clock-skew" Fail
        "This machine's clock and another's differ by more than 2 s: blocks are refused, keys end too early or too late.", "Keep the clocks of both set: systemd-timesyncd, chrony or ntpd.";
    // PostgreSQL.
    DatabaseUrl "database-url" Fail
        "The URL of the database cannot be one.", "`postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?PARAMETERS]`, or `sqlite:PATH`.";
    DatabaseUnreachable "database-unreachable" Fail
        "Nobody answers at the database's address.", "Start the server; check host, port, firewall and `listen_addresses`.";
    DatabaseHangs "database-hangs" Fail
        "The database's address takes connections and says nothing in time.", "Look at the server, and at proxies and firewalls on the way.";
    DatabaseOtherProtocol "database-other-protocol" Fail
        "Whoever answers at the database's address is not PostgreSQL.", "Correct host and port.";
    DatabaseTls "database-tls" Fail
        "No encrypted connection to the database as `sslmode` and `sslrootcert` ask for it.", "Check both, and certificate and name of the server.";
    DatabaseAuthentication "database-authentication" Fail
        "The server refuses user or password, or this address (`pg_hba.conf`).", "Correct the URL, or `ALTER ROLE … PASSWORD`; `schemas/roles/postgres.sql` makes the roles.";
    DatabaseMissing "database-missing" Fail
        "The server has no such database.", "`createdb --owner chopmark_owner --template template0 --encoding UTF8 NAME`, then `chopmark admin migrate`.";
    DatabaseFull "database-full" Fail
        "All connections that the server, the database or the role may have are taken.", "Raise `max_connections`, run fewer processes (8 connections each), or pool.";
    DatabaseConnectionsFew "database-connections-few" Warn
        "Fewer connections are left than one more process takes (8).", "As for `database-full`.";
    DatabaseSchemaBehind "database-schema-behind" Fail
        "The schema lacks migrations that this program needs: no role starts.", "`chopmark admin migrate`, as `chopmark_owner`.";
    DatabaseSchemaNewer "database-schema-newer" Fail
        "A newer program has migrated the schema: this one refuses it.", "Install that version here.";
    DatabaseRolePrivileged "database-role-privileged" Fail
        "The login is a superuser, may bypass row-level security, or owns tables: nothing but queries would keep tenants apart.", "Log in as the role of this process.";
    DatabaseRoleOther "database-role-other" Fail
        "The login is not, or not only, the role of this process.", "Gateways log in as `chopmark_app`, committers, couriers and `admin` as `chopmark_committer`, `chopmark_courier`, `chopmark_admin`.";
    DatabaseRlsUnforced "database-rls-unforced" Fail
        "Row-level security is not forced on a table with tenants' data, or the table is missing.", "As `chopmark_owner`: `ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`.";
    DatabaseEncoding "database-encoding" Fail
        "The database is not in UTF8: some texts cannot be stored.", "Make it anew with `--encoding UTF8`, and load a dump into it.";
    DatabaseSynchronousCommit "database-synchronous-commit" Warn
        "By default the server acknowledges commits that are not durable. Our sessions ask for more; whatever else writes there does not.", "`ALTER DATABASE … RESET synchronous_commit`, or in `postgresql.conf`.";
    DatabaseFsyncOff "database-fsync-off" Fail
        "The server runs with `fsync = off`: what it acknowledges may be gone after a crash.", "Turn it on and reload.";
    DatabaseMessages "database-messages" Fail
        "The server's messages are not in English, and causes are told apart by them.", "`ALTER ROLE … SET lc_messages = 'C'`, as `schemas/roles/postgres.sql` does.";
    DatabaseUnknown "database-unknown" Unknown
        "The database took the connection and refused the questions.", "Look at its log.";
    // Kafka.
    KafkaSettings "kafka-settings" Fail
        "Keys of `[kafka]` contradict each other, or a file of theirs cannot be used.", "Correct what is named.";
    KafkaDurabilityLow "kafka-durability-low" Warn
        "On a live network fewer than 3 replicas, or fewer than 2 in sync, are asked for: one broken disk may lose what was acknowledged.", "`replicas = 3` and `min_insync_replicas = 2`, and topics to match.";
    KafkaUnreachable "kafka-unreachable" Fail
        "No broker answers.", "Start them; check `kafka.brokers`, `advertised.listeners` and firewalls.";
    KafkaHangs "kafka-hangs" Fail
        "A broker's address takes connections and says nothing in time.", "Look at the brokers, and at proxies and firewalls on the way. Where a listener wants TLS, add `[kafka.tls]`.";
    KafkaOtherProtocol "kafka-other-protocol" Fail
        "Whoever answers at a broker's address is not Kafka.", "Correct `kafka.brokers`.";
    KafkaTls "kafka-tls" Fail
        "No encrypted connection to the brokers comes about.", "Check `[kafka.tls]`, the brokers' certificates and names, and whether the listener has TLS.";
    KafkaAuthentication "kafka-authentication" Fail
        "The brokers refuse user, password or mechanism, or the user may not ask for the topics.", "Check `[kafka.sasl]`; grant the topics and the group.";
    KafkaTopicMissing "kafka-topic-missing" Fail
        "A topic does not exist, and `create_topics` is off.", "Make it as the finding says, or set `create_topics`.";
    KafkaPartitions "kafka-partitions" Fail
        "The topic has another number of partitions than `kafka.partitions`: gateways that disagree mix up the order of a key.", "Set the topic's number everywhere, or drain the queue and make the topic anew.";
    KafkaReplicas "kafka-replicas" Fail
        "A partition has fewer replicas than `kafka.replicas`.", "`kafka-reassign-partitions.sh`, or accept it by a lower `replicas`.";
    KafkaMinInsyncReplicas "kafka-min-insync-replicas" Fail
        "`min.insync.replicas` of the topic is below `kafka.min_insync_replicas`: too few brokers acknowledge.", "Raise it with `kafka-configs.sh`.";
    KafkaCleanupPolicy "kafka-cleanup-policy" Fail
        "`cleanup.policy` is not `delete`: compaction removes messages that nobody has seen.", "Set it with `kafka-configs.sh`.";
    KafkaRetention "kafka-retention" Fail
        "`retention.ms` or `retention.bytes` lets messages go before the ledger has decided them.", "Set both to -1 with `kafka-configs.sh`.";
    KafkaUncleanElection "kafka-unclean-election" Fail
        "`unclean.leader.election.enable` is on: a broker that missed messages may become leader.", "Turn it off with `kafka-configs.sh`.";
    KafkaMessageBytes "kafka-message-bytes" Fail
        "`max.message.bytes` is smaller than our batches: full ones would be refused.", "Raise it with `kafka-configs.sh`.";
    // Redis.
    CacheUrl "cache-url" Fail
        "The URL of the cache cannot be one.", "`redis://HOST:PORT`, `rediss://HOST:PORT` or `memory:`.";
    CacheUnreachable "cache-unreachable" Fail
        "Nobody answers at Redis' address: repeated requests cost a look-up, and each gateway counts quotas alone.", "Start it; check host, port and firewall.";
    CacheHangs "cache-hangs" Fail
        "Redis' address takes connections and says nothing in time.", "Look at the server, and at proxies and firewalls on the way. A port without TLS says nothing to `rediss:`.";
    CacheOtherProtocol "cache-other-protocol" Fail
        "Whoever answers at the cache's address is not Redis.", "Correct host and port.";
    CacheTls "cache-tls" Fail
        "No encrypted connection to Redis comes about.", "Check whether the port has TLS, and the server's certificate and name; the system's authorities are trusted.";
    CacheAuthentication "cache-authentication" Fail
        "Redis refuses user or password, or the user may not run commands.", "Correct the URL; `+@read +@write +@scripting +@connection` are needed.";
    CacheVersionOld "cache-version-old" Fail
        "Redis is older than 5: the quotas' script is refused there, and each gateway counts alone.", "Install Redis 7.";
    CacheEvicts "cache-evicts" Warn
        "Redis forgets keys when its memory is full. Answers to repeated requests cost a look-up then; but a tenant whose count of the day is forgotten may record more than its quota.", "`maxmemory-policy noeviction`, and memory for all keys. A full server makes gateways count alone until keys end.";
    CacheReadOnly "cache-read-only" Fail
        "The server is a replica, which refuses writes.", "Name the master, or an address that follows it.";
    CacheUnknown "cache-unknown" Unknown
        "Redis does not say its version, role, time or memory settings to this user.", "Allow `INFO`, `TIME` and `CONFIG GET`, or check by hand what is named.";
    // Nodes.
    NodeUnreachable "node-unreachable" Fail
        "Nobody answers at a node's internal interface.", "Start the node; check `ledger.nodes`, the node's `internal` and firewalls.";
    NodeHangs "node-hangs" Fail
        "A node's internal interface takes connections and says nothing in time.", "Look at the node's log and its machine.";
    NodeOtherProtocol "node-other-protocol" Fail
        "Whoever answers is not a node's internal interface.", "Name the address of `internal` in `node.toml`: not `listen`, `read` or `metrics`.";
    NodeOtherChain "node-other-chain" Fail
        "The node is of another network: it has another genesis.", "Correct `ledger.genesis` or `ledger.nodes`.";
    NodeRepeated "node-repeated" Fail
        "Two URLs lead to one member's node: f + 1 nodes that agree have to be different ones.", "Name each node once.";
    NodeVersion "node-version" Warn
        "The node's program is of another version than this one.", "Finish the upgrade.";
    NodeStopped "node-stopped" Fail
        "The node's ledger has stopped by a fault.", "Look at its log, repair the cause and start it again.";
    NodeNotVoting "node-not-voting" Warn
        "The node of a member does not vote: one fault less is tolerated.", "`docs/runbooks/members.md`.";
    NodeBehind "node-behind" Warn
        "The node is more than 10 blocks behind the highest.", "Wait for it if it catches up; else look at its log, its disk and its network.";
    NodeDamaged "node-damaged" Warn
        "Parts of the node's stored data are damaged and not healed yet.", "`docs/runbooks/damage.md`.";
    NodeEquivocations "node-equivocations" Warn
        "The node has seen a member sign two contradicting votes or proposals.", "`chopmark network evidence` shows it; the members have to decide about that member.";
    NodesBelowQuorum "nodes-below-quorum" Fail
        "Fewer members' nodes answer than decide a block: nothing is committed.", "Start the others; see the findings about each.";
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _, path::Path};

    use super::*;

    #[test]
    fn names_are_stable_and_told_apart() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.entry().name).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase())));
    }

    /// `UPDATE=1` writes the table anew.
    #[test]
    fn the_runbook_has_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks/doctor.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once("<!-- findings -->\n").unwrap();
        let (_, tail) = rest.split_once("<!-- end -->\n").unwrap();
        let mut table = "| finding | | cause | fix |\n|---|---|---|---|\n".to_owned();
        for Entry { name, severity, cause, fix } in Fault::ALL.iter().map(|fault| fault.entry()) {
            writeln!(table, "| `{name}` | {} | {cause} | {fix} |", severity.as_str()).unwrap();
        }
        let whole = format!("{head}<!-- findings -->\n{table}<!-- end -->\n{tail}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &whole).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "UPDATE=1 writes the table anew");
    }
}
