//! The command line: every argument and every help text. It parses and refuses; it does nothing.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ledger_core::{Hash32, member::is_domain, operation::is_tenant_id};

use crate::{
    admin::{
        accounts::{KeyCommand, QuotaCommand, TenantCommand},
        signing::SigningKeyCommand,
    },
    network::card::is_read_url,
    output::EXIT_USAGE,
    place::MEMBERS_MAX,
};

/// Where `chopmark dev` keeps everything unless told otherwise.
const DATA_DEFAULT: &str = "chopmark-data";
/// Where gateways and committers look for their configuration unless told otherwise.
pub(crate) const CONFIG_DEFAULT: &str = "chopmark.toml";
/// Seconds that `submit` waits for the commit: many times the slowest block, short enough to
/// notice that nothing comes.
const WAIT_SECONDS_DEFAULT: u32 = 60;
/// More than this is a mistake of units.
const WAIT_SECONDS_MAX: u32 = 24 * 60 * 60;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "chopmark",
    version,
    arg_required_else_help = true,
    about = "Notarize files on a transparency ledger, and prove it offline",
    long_about = "Chopmark records the hash of a file on a ledger that several organisations keep together, and \
                  hands out a receipt that anybody can check offline, years later, without trusting whoever ran \
                  the service. The file itself never leaves your machine.",
    after_long_help = format!("\
Examples:
  chopmark dev                                   run a whole network on this machine
  chopmark submit contract.pdf --dev chopmark-data
                                                 notarize a file, save its receipt
  chopmark verify contract.pdf --policy chopmark-data/policy.txt
                                                 check the receipt, offline
  chopmark doctor                                find out what is wrong here

Exit status: 0 on success; {EXIT_USAGE} when the command line is wrong or a file cannot be read; else see the \
command's own --help.")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(DevArgs),
    Node(NodeArgs),
    /// Serves the API over a production deployment's queue, database, cache and nodes
    #[command(
        long_about = "Serves the API over a production deployment's queue, database, cache and nodes. It holds no \
                      state: run as many as you need behind a balancer; any may be stopped or killed at any time.",
        after_long_help = "\
Example:
  chopmark gateway --config /etc/chopmark/chopmark.toml

Exit status: 0 after a clean stop, 1 when it could not start or had to stop."
    )]
    Gateway(RoleArgs),
    /// Carries operations from the queue to the ledger, and verified blocks into the database
    #[command(
        long_about = "Carries operations from the queue to the ledger, and verified blocks into the database. It \
                      holds no state: run as many as you need; any may be stopped or killed at any time, and the \
                      others take over its share.",
        after_long_help = "\
Example:
  chopmark committer --config /etc/chopmark/chopmark.toml

Exit status: 0 after a clean stop, 1 when it could not start or had to stop."
    )]
    Committer(RoleArgs),
    /// Delivers webhooks.
    ///
    /// Claims what is due from the database, signs it (Standard Webhooks) and sends it, in order for each
    /// resource and for three days, to public addresses only. Any number of couriers may run, and any may be
    /// stopped or killed at any time.
    #[command(after_long_help = "Examples:
  chopmark courier --config /etc/chopmark/chopmark.toml

Exit status: 0 after a clean stop, 1 when it could not start or had to stop.")]
    Courier(RoleArgs),
    #[command(subcommand)]
    Network(NetworkCommand),
    Submit(SubmitArgs),
    Verify(VerifyArgs),
    Fsck(FsckArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Admin(AdminCommand),
    Version(VersionArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Runs a whole network on this machine: gateway, queue, database, committer and a node for every member
#[derive(Debug, Args)]
#[command(
    long_about = "Runs a whole network on this machine, in one process and in the foreground: gateway, queue, \
                  database, committer and a node for every member, with the formats, the API and the proofs of \
                  production. Everything lies in one folder; stop it with Ctrl-C and start it again, nothing \
                  is lost.\n\n\
                  When it is ready it writes DIR/dev.json (readable by you alone): addresses, an API key, the \
                  path of the policy. A port that is taken is replaced by the next free one.",
    after_long_help = "\
Examples:
  chopmark dev
  chopmark dev --members 4
  chopmark dev --data /var/tmp/ledger --listen 127.0.0.1:9000
  chopmark dev --log-format json 2>dev.log &

Exit status: 0 after a clean stop, 1 when it could not start or had to stop."
)]
pub(crate) struct DevArgs {
    /// Folder for everything; made if missing
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    pub(crate) data: PathBuf,

    /// Address of the API; a busy port gives way to the next free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Address of /metrics; a busy port gives way to the next free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8082")]
    pub(crate) metrics_listen: SocketAddr,

    /// Members of a new network, 1 to 7, a whole node each; a quorum is two thirds and one
    #[arg(long, value_name = "N", default_value = "1", value_parser = members)]
    pub(crate) members: usize,

    /// File that remembers what the node signed; keep it off the data's backups [default: DIR.guard]
    #[arg(long, value_name = "PATH")]
    pub(crate) guard: Option<PathBuf>,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Runs one member's node
#[derive(Debug, Args)]
#[command(
    long_about = "Runs one member's node in the foreground: agreement with the other members' nodes, the ledger, \
                  the read interface for anybody, and the internal one for the member's own committers. Its \
                  folder is made by `chopmark network init`; node.toml in it says where it listens and where the \
                  other members are.\n\n\
                  It ends by itself when the ledger has to stop, for instance on a full disk: run it under \
                  something that starts it again.",
    after_long_help = "\
Example:
  chopmark node --data /srv/ledger/court.example

Exit status: 0 after a clean stop, 1 when it could not start or had to stop."
)]
pub(crate) struct NodeArgs {
    /// The member's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// File that remembers what the node signed [default: as node.toml says]
    #[arg(long, value_name = "PATH")]
    pub(crate) guard: Option<PathBuf>,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Makes a consortium, and watches it
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    Init(NetworkInitArgs),
    Status(NetworkStatusArgs),
    Evidence(NetworkEvidenceArgs),
    Propose(NetworkProposeArgs),
    Approve(NetworkApproveArgs),
    Proposals(NetworkProposalsArgs),
    Join(NetworkJoinArgs),
    Snapshot(NetworkSnapshotArgs),
    Restore(NetworkRestoreArgs),
}

/// Writes every decided block of a network into one file
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  chopmark network snapshot ledger.snapshot --from http://10.0.0.1:26601

Blocks and checkpoints are public; there is no secret in the file.

Exit status: 0 written; 1 failed.")]
pub(crate) struct NetworkSnapshotArgs {
    /// The file; must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Read URL of a node
    #[arg(long, value_name = "URL", value_parser = parse_read_url)]
    pub(crate) from: String,
}

/// Makes a node's data from a snapshot, checking every block
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark network restore ledger.snapshot --data /srv/ledger/bank.example
  chopmark network restore ledger.snapshot --data /srv/ledger/court.example --chain 8c1d…07

DIR holds node.toml and the keys, as `network join` and `network init` make it. Where the data in it
were lost, move what is left of DIR/node away first; the guard stays where it is.

Exit status: 0 restored; 1 failed: what was taken over until then holds, and the node may be started.")]
pub(crate) struct NetworkRestoreArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) snapshot: PathBuf,

    /// The folder of this member; its node must not run
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Chain id of the network
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    pub(crate) chain: Option<Hash32>,
}

/// Proposes a change that a quorum of members has to approve, and approves it for this member
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark network propose add invitation.json --data /srv/ledger/court.example
  chopmark network propose remove archive.example --data /srv/ledger/court.example
  chopmark network propose rotate-keys --data /srv/ledger/court.example
  chopmark network propose set-policy policy.json --data /srv/ledger/court.example

Refused where the members that there would be, and whose nodes are at work, make no quorum.

Exit status: 0 proposed, or committed where this approval was the last one; 1 refused.")]
pub(crate) struct NetworkProposeArgs {
    #[command(subcommand)]
    pub(crate) change: ProposeChange,

    /// The folder of this member; its node has to run
    #[arg(long, value_name = "DIR", global = true, default_value = ".")]
    pub(crate) data: PathBuf,

    /// Heights from now during which the approvals hold
    #[arg(long, value_name = "HEIGHTS", global = true, default_value_t = 1_000_000)]
    pub(crate) expires_in: u64,
}

/// What is to change
#[derive(Debug, Subcommand)]
pub(crate) enum ProposeChange {
    /// Takes in a new member
    Add {
        /// What `chopmark network join` of the new member has written
        #[arg(value_name = "INVITATION")]
        invitation: PathBuf,
    },
    /// Lets a member go
    Remove {
        /// Its domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
    /// Draws new keys for this member; they count from the height at which the change does
    RotateKeys,
    /// Replaces the policy
    SetPolicy {
        /// The new policy as JSON, with the next version
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Approves a proposal for this member; the approval that makes a quorum submits it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  chopmark network approve 4f0c…e1 --data /srv/ledger/notary.example

Exit status: 0 approved, and committed where this made a quorum; 1 refused.")]
pub(crate) struct NetworkApproveArgs {
    /// Id of the proposal
    #[arg(value_name = "ID", value_parser = parse_hash)]
    pub(crate) id: Hash32,

    /// The folder of this member; its node has to run
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
}

/// Shows what waits for approvals
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  chopmark network proposals --data /srv/ledger/notary.example

Exit status: 0 shown; 1 failed.")]
pub(crate) struct NetworkProposalsArgs {
    /// The folder of this member; its node has to run
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// A JSON object for each instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

/// Makes the folder of a new member or observer, for a network that runs
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark network join /srv/ledger/bank.example --domain bank.example --listen 10.0.0.5:26600 \\
    --from http://10.0.0.1:26601 --chain 8c1d…07
  chopmark network join /srv/observer --domain press.example --listen 127.0.0.1:26600 --observer \\
    --from https://court.example --chain 8c1d…07

Learn the chain id from somebody that you trust: it is all that a new node believes.

Exit status: 0 made; 1 failed; 64 for arguments that make no sense.")]
pub(crate) struct NetworkJoinArgs {
    /// Folder for the node; must not exist
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,

    /// Domain of the new member, or the name of the observer
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub(crate) domain: String,

    /// Address of the node; the next three ports are its read, internal and metrics ones
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,

    /// Where the others reach the node, if not at that address
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) advertised: Option<SocketAddr>,

    /// Where the others read from this node, if not at the port above that address
    #[arg(long, value_name = "URL", value_parser = parse_read_url)]
    pub(crate) read_url: Option<String>,

    /// Read URL of a member's node
    #[arg(long, value_name = "URL", required = true, value_parser = parse_read_url)]
    pub(crate) from: Vec<String>,

    /// Chain id of the network
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    pub(crate) chain: Hash32,

    /// Follow and serve without ever becoming a member
    #[arg(long)]
    pub(crate) observer: bool,
}

pub(crate) fn parse_tenant(text: &str) -> Result<String, String> {
    let refusal = "`ten_` and then 1 to 60 of a-z and 0-9 are expected";
    if is_tenant_id(text) { Ok(text.to_owned()) } else { Err(refusal.to_owned()) }
}

fn parse_hash(text: &str) -> Result<Hash32, String> {
    Hash32::from_hex(text).ok_or_else(|| "64 lower-case hexadecimal characters are expected".to_owned())
}

fn parse_domain(text: &str) -> Result<String, String> {
    if is_domain(text) { Ok(text.to_owned()) } else { Err("a lower-case DNS name with a dot is expected".to_owned()) }
}

/// Without the slashes at its end.
fn parse_read_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let refused = || "http://HOST:PORT or https://HOST is expected, without a path".to_owned();
    if is_read_url(url) { Ok(url.to_owned()) } else { Err(refused()) }
}

/// Makes a new network: a folder for every member, with its keys
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  chopmark network init ledger --domain log.example \\
    --member court.example=10.0.0.1:26600 --member notary.example=10.0.0.2:26600 \\
    --member operator.example=10.0.0.3:26600 --member archive.example=10.0.0.4:26600

Exit status: 0 made; 1 failed; 64 for arguments that make no sense.")]
pub(crate) struct NetworkInitArgs {
    /// Folder for the members' folders; must not exist
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,

    /// Domain of the network: its log is DOMAIN/log
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub(crate) domain: String,

    /// A member and the address of its node; the next three ports are its read, internal and metrics ones
    #[arg(long = "member", value_name = "DOMAIN=IP:PORT", required = true)]
    pub(crate) members: Vec<String>,

    /// A network for production, not a sandbox
    #[arg(long)]
    pub(crate) live: bool,
}

/// Shows the equivocations that this node has seen: two histories signed by one key
#[derive(Debug, Args)]
#[command(
    long_about = "Shows the equivocations that this node has seen, one JSON document a line: a member's key signed \
                  two votes, two proposals or two roots where it may sign one. Message and signature of both are in \
                  it, so that anybody can check them with Ed25519 alone.",
    after_long_help = "\
Example:
  chopmark network evidence --data /srv/ledger/court.example

Exit status: 0 none; 1 there are some, or they could not be read."
)]
pub(crate) struct NetworkEvidenceArgs {
    /// The folder of this member
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
}

/// Shows every member's node: height, size, last cosignature, warnings
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  chopmark network status --data /srv/ledger/court.example

Exit status: 0 all well; 1 with warnings.")]
pub(crate) struct NetworkStatusArgs {
    /// The folder of this member
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// JSON instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

fn members(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(members @ 1..=MEMBERS_MAX) => Ok(members),
        _ => Err(format!("one process runs 1 to {MEMBERS_MAX} members")),
    }
}

/// Notarizes files: hashes them here, sends the hashes, saves the receipts
#[derive(Debug, Args)]
#[command(
    override_usage = "chopmark submit FILE... --dev DIR [OPTIONS]\n       \
                      chopmark submit FILE... --server URL --key-file F [OPTIONS]",
    long_about = "Computes SHA-256, SHA3-256 and SM3 of every file on this machine, has them recorded, waits until \
                  the record is committed, and saves the proof beside the file: FILE.tlog-proof (the receipt) \
                  and FILE.entry.json (the ledger entry). The file itself is never sent.\n\n\
                  Submitting is safe to repeat. The idempotency key is derived from what is asked for (digests, \
                  size, media type, title, external id, --confidential), not from the path or the time: the same \
                  command again, or the same file under another name, finds the same record, and its receipt is \
                  fetched again. Another title or external id makes another record; so does --idempotency-key.\n\n\
                  A receipt that is there already and differs is never overwritten without --force.",
    after_long_help = "\
Examples:
  chopmark submit contract.pdf --dev chopmark-data
  chopmark submit *.jpg --server https://notary.example --key-file ~/.chopmark-key
  CHOPMARK_API_KEY=cm_test_… chopmark submit will.pdf --server https://notary.example --confidential

Exit status: 0 every file is recorded and its receipt saved (with --wait 0: accepted); 1 a file was refused, or \
failed; 75 accepted, but not committed in time: run the same command again to fetch the receipt; 64 the command \
line is wrong or a file cannot be read."
)]
pub(crate) struct SubmitArgs {
    /// Files to notarize
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Address of the service, such as https://notary.example
    #[arg(long, value_name = "URL", conflicts_with = "dev")]
    pub(crate) server: Option<String>,

    // The key itself is never an option: every user of a machine can read its command lines.
    /// File that holds the API key, and nothing else [default: the variable CHOPMARK_API_KEY]
    #[arg(long, value_name = "F", conflicts_with = "dev")]
    pub(crate) key_file: Option<PathBuf>,

    /// Use the server that `chopmark dev --data DIR` runs
    #[arg(long, value_name = "DIR")]
    pub(crate) dev: Option<PathBuf>,

    /// A name for people; sealed, never on the ledger
    #[arg(long, value_name = "T")]
    pub(crate) title: Option<String>,

    /// Your own identifier, to find the record by; sealed, never on the ledger
    #[arg(long, value_name = "X")]
    pub(crate) external_id: Option<String>,

    /// Media type of the files, such as application/pdf
    #[arg(long, value_name = "TYPE")]
    pub(crate) media_type: Option<String>,

    /// Put only salted commitments on the ledger: for contents that could be guessed
    #[arg(long)]
    pub(crate) confidential: bool,

    /// Names this request, for one file; the same key again is the same record
    #[arg(long, value_name = "K")]
    pub(crate) idempotency_key: Option<String>,

    /// Seconds to wait for the commit of each file; 0 returns once it is accepted
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(WAIT_SECONDS_MAX)))]
    pub(crate) wait: u32,

    /// Also save the policy that the server publishes (compare it before you trust it)
    #[arg(long, value_name = "F")]
    pub(crate) policy_out: Option<PathBuf>,

    /// Overwrite receipts, entries and policies that differ
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON object a file
    #[arg(long)]
    pub(crate) json: bool,
}

/// Checks files against their receipts, offline
#[derive(Debug, Args)]
#[command(
    override_usage = "chopmark verify FILE... --policy F|DIR [OPTIONS]",
    long_about = "Checks that a file is the one recorded, that the record is in the log, and that the log's \
                  checkpoint is cosigned by a quorum of the members that your policy trusts. Needs four things: \
                  the file, its entry, its receipt, and your policy. Never contacts a server.\n\n\
                  Without --receipt, --entry or --bundle it looks for FILE.tlog-proof and FILE.entry.json, which \
                  `chopmark submit` saves.\n\n\
                  The policy says whose signatures count, so it has to come from somebody you trust, such as a \
                  court or a notary office that is a member: a policy handed over together with the receipt \
                  proves nothing against whoever handed it over. A folder of policies holds the network's \
                  history as <first-size>.txt, each in force from that log size on; the one for the receipt's \
                  size is taken.",
    after_long_help = "\
Examples:
  chopmark verify contract.pdf --policy policy.txt
  chopmark verify *.jpg --policy policies/
  chopmark verify contract.pdf --bundle contract-proof.zip --policy policy.txt
  chopmark verify contract.pdf --receipt r.tlog-proof --entry e.json --policy policy.txt --json
  zcat backup.gz | chopmark verify - --receipt r.tlog-proof --entry e.json --policy policy.txt

The last line of standard output is the verdict, and the exit status says the same:
  0   VALID index=I size=S cosigners=K/N time=T: all holds; the file existed no later than T
  1   INVALID check=C: a check failed, one of receipt, checkpoint, origin, file, opening,
      signature, inclusion
  2   INCOMPLETE missing=M: nothing is wrong, but log, quorum or opening is missing
  3   UNKNOWN-FORMAT what=W: this version cannot read receipt, policy, entry, entry-type or bundle
  64  no verdict: the command line is wrong, or a file cannot be read
Of several files each has its own line, FILE: VERDICT, and the last line is the worst verdict (INVALID, then \
UNKNOWN-FORMAT, then INCOMPLETE; of VALID ones the latest time), or NO-VERDICT files=N where N of them could not be \
read. With --json every line is an object with the same \
keys."
)]
pub(crate) struct VerifyArgs {
    /// Files to check; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Your policy: one file, or a folder of <first-size>.txt
    #[arg(long, value_name = "F|DIR")]
    pub(crate) policy: Option<PathBuf>,

    /// The receipt, for one file [default: FILE.tlog-proof]
    #[arg(long, value_name = "F")]
    pub(crate) receipt: Option<PathBuf>,

    /// The ledger entry, for one file [default: FILE.entry.json]
    #[arg(long, value_name = "F")]
    pub(crate) entry: Option<PathBuf>,

    /// A proof bundle (zip) with receipt and entry, for one file; the policy in it is not trusted
    #[arg(long, value_name = "F", conflicts_with_all = ["receipt", "entry"])]
    pub(crate) bundle: Option<PathBuf>,

    /// The opening of a confidential entry, where the receipt does not carry it
    #[arg(long, value_name = "F")]
    pub(crate) opening: Option<PathBuf>,

    /// Print one JSON object a line: verdict, index, size, cosigners, witnesses, time, check, missing, what
    #[arg(long)]
    pub(crate) json: bool,
}

/// Checks that a stored ledger is sound: derives everything again and compares
#[derive(Debug, Args)]
#[command(
    long_about = "Derives tiles, index, state and every checkpoint's root again from the block log and compares them \
                  with what is stored, and the guard with both; in a folder of `chopmark dev`, those of every \
                  member. Changes nothing. The node must not be running.",
    after_long_help = "\
Examples:
  chopmark fsck chopmark-data
  chopmark fsck /srv/chopmark --guard /mnt/guard/chopmark.guard --json

Exit status: 0 sound; 1 something differs, each finding names file and place; 2 it could not be checked."
)]
pub(crate) struct FsckArgs {
    /// Data folder of `chopmark dev`, or of a node
    #[arg(value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// The guard [default: DIR.guard, where there is one]; the other members' lie beside it
    #[arg(long, value_name = "PATH")]
    pub(crate) guard: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Looks for what is wrong on this machine, and says what to do
#[derive(Debug, Args)]
#[command(
    long_about = "Looks at permissions, key files, free disk space, the guard, the server and its health, the clock, \
                  ports, OpenSSL and limits. Each line says OK, WARN or FAIL; what is not OK has its cause and what \
                  to do. Changes nothing.\n\nWith --config it looks at a deployment instead, as one of its roles \
                  would find it when it starts: configuration, secrets, certificates, listeners, folders, limits, \
                  clocks, PostgreSQL, Kafka and its topics, Redis, the members' nodes. It says only what is wrong; \
                  each finding has a stable name, its cause and what to do (docs/runbooks/doctor.md). Every wait has \
                  a bound, and no secret is shown.",
    after_long_help = "\
Examples:
  chopmark doctor
  chopmark doctor --data /srv/chopmark --json
  chopmark doctor --config /etc/chopmark/gateway.toml
  chopmark doctor --config chopmark.toml --role committer --json

Exit status: 0 nothing failed (there may be warnings); 1 something failed; with --config, 2 nothing failed, and \
                       something could not be looked at."
)]
pub(crate) struct DoctorArgs {
    /// Data folder to look at
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT, conflicts_with = "config")]
    pub(crate) data: PathBuf,

    /// Configuration of a role of a deployment to look at
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Which role the configuration is for [default: the one that it has a table for, admin if none]
    #[arg(long, value_enum, requires = "config")]
    pub(crate) role: Option<DoctorRole>,

    /// An API key that has to be of the configuration's network
    #[arg(long, value_name = "FILE", requires = "config")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// List everything that --config may find
    #[arg(long, conflicts_with_all = ["config", "data"])]
    pub(crate) findings: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A role of a deployment, as doctor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorRole {
    /// `chopmark gateway`
    Gateway,
    /// `chopmark committer`
    Committer,
    /// `chopmark courier`
    Courier,
    /// `chopmark admin`
    Admin,
}

impl DoctorRole {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Committer => "committer",
            Self::Courier => "courier",
            Self::Admin => "admin",
        }
    }
}

/// Options of a role that runs over a configuration
#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// The configuration; docs/CONFIGURATION.md lists its keys
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub(crate) config: PathBuf,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Acts that need a person's decision
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    Secrets(SecretsArgs),
    #[command(subcommand)]
    Tenant(TenantCommand),
    #[command(subcommand)]
    Key(KeyCommand),
    #[command(subcommand)]
    SigningKey(SigningKeyCommand),
    #[command(subcommand)]
    Quota(QuotaCommand),
    #[command(subcommand)]
    Guard(GuardCommand),
    Migrate(MigrateArgs),
}

/// Brings a PostgreSQL database to the schema of this program
#[derive(Debug, Args)]
#[command(
    override_usage = "chopmark admin migrate --database-file F\n       \
                      chopmark admin migrate --database URL",
    long_about = "Applies the migrations that a PostgreSQL database lacks: all of them in one transaction, or none. \
                  Two at once wait for each other. The roles have to be there (schemas/roles/postgres.sql), and \
                  the URL has to log in as chopmark_owner or as somebody who may become it.\n\n\
                  Migrate before you start a newer version of the other roles: they refuse a database that is \
                  behind. The previous version goes on running on the new schema. SQLite migrates itself.",
    after_long_help = "\
Examples:
  chopmark admin migrate --database-file /etc/chopmark/database-owner
  chopmark admin migrate --database 'postgres://chopmark_owner@db.internal/chopmark?sslmode=verify-full'

The URL is postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE, with libpq's parameters after a question mark. \
Every user of a machine can read its command lines: a URL with a password belongs into a file. Without \
sslmode=verify-full (and sslrootcert, where the authority is your own) the server is not authenticated.

Exit status: 0 the database is at this program's version; 1 refused or failed, and nothing was changed."
)]
pub(crate) struct MigrateArgs {
    /// URL of the database, without a password
    #[arg(long, value_name = "URL", required_unless_present = "database_file", conflicts_with = "database_file")]
    pub(crate) database: Option<String>,

    /// File that holds the URL, and nothing else
    #[arg(long, value_name = "F")]
    pub(crate) database_file: Option<PathBuf>,
}

/// Draws the secrets that all gateways of a deployment share
#[derive(Debug, Args)]
#[command(
    long_about = "Draws the secrets that all gateways of a deployment share: kek.key wraps the keys of tenants, \
                  ids.key tags ids, api-keys.key hashes API keys. Files that are there are left alone. Keep copies \
                  in a safe place: without kek.key no private part can ever be read again.",
    after_long_help = "\
Example:
  chopmark admin secrets --out /etc/chopmark/secrets

Exit status: 0 drawn or there already; 1 failed."
)]
pub(crate) struct SecretsArgs {
    /// Folder for the files; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// The guard: what a node remembers of its own signatures
#[derive(Debug, Subcommand)]
pub(crate) enum GuardCommand {
    Adopt(GuardAdoptArgs),
}

/// Makes a new guard from what the data shows, in place of one that is lost
#[derive(Debug, Args)]
#[command(
    long_about = "The guard remembers what the node has signed and voted for, outside its data, so that a restored \
                  backup cannot sign a second history. A guard that is missing, or that knows more than the data, \
                  keeps the node from starting.\n\n\
                  This command writes a guard that promises only what the data shows. If the data is an old copy, \
                  or another copy of this node is running, the node will then sign two histories: evidence of \
                  fraud, which others keep. Use it only when the guard is lost for good, the data is the newest \
                  there is, and no other copy runs.",
    after_long_help = "\
Example:
  chopmark admin guard adopt --data chopmark-data --guard chopmark-data.guard --yes

Exit status: 0 adopted; 1 refused or failed."
)]
pub(crate) struct GuardAdoptArgs {
    /// Data folder of the node
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// The guard to write
    #[arg(long, value_name = "PATH")]
    pub(crate) guard: PathBuf,

    /// I know that the guard is lost for good and that no other copy of this node signs
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Prints the version, and the versions of the formats
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark completions bash > ~/.local/share/bash-completion/completions/chopmark
  chopmark completions zsh > ~/.zfunc/_chopmark
  chopmark completions fish > ~/.config/fish/completions/chopmark.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the manual page, or writes one for every command
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark man | man -l -
  chopmark man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write chopmark.1, chopmark-verify.1, … into this folder; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Where a data folder's guard lies unless told otherwise: beside it, so that one backup or one
/// `rm -r` does not take both.
pub(crate) fn guard_beside(data: &Path) -> PathBuf {
    // Without a trailing slash; a folder such as `.` or `..` has no name of its own to extend.
    let tidy: PathBuf = data.components().collect();
    let named = if tidy.file_name().is_some() { tidy } else { tidy.canonicalize().unwrap_or(tidy) };
    let mut name = named.file_name().unwrap_or_default().to_owned();
    name.push(".guard");
    named.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        fn visit(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no about", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn the_guard_lies_beside_the_data() {
        assert_eq!(guard_beside(Path::new("chopmark-data")), Path::new("chopmark-data.guard"));
        assert_eq!(guard_beside(Path::new("/srv/ledger/")), Path::new("/srv/ledger.guard"));
        let here = Path::new(".").canonicalize().unwrap();
        assert_eq!(guard_beside(Path::new(".")).parent(), here.parent());
    }

    #[test]
    fn one_to_seven_members() {
        assert_eq!(members("1"), Ok(1));
        assert_eq!(members("7"), Ok(7));
        for refused in ["0", "8", "-1", "300", "one", ""] {
            assert!(members(refused).unwrap_err().contains("1 to 7"), "{refused}");
        }
    }
}
