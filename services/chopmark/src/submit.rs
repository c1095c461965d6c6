//! `chopmark submit`: hash here, have the hashes recorded, wait, save the proof beside the file.
//!
//! The file is read, never sent. What comes back is checked against the file before it is saved;
//! whose signatures it bears is for `chopmark verify` and the user's own policy to say.

mod save;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chopmark_api::{
    digest::Hash32 as ApiHash,
    evidence::{Digests as ApiDigests, EvidenceAccepted, EvidenceRequest, EvidenceView},
    headers::{IDEMPOTENCY_KEY, PREFER},
    limits::WAIT_SECONDS_MAX,
    operation::{OperationState, OperationView, Rejection},
    request::Request as _,
    warning::Warning,
};
use ledger_core::{
    commitment::{EvidenceOpening, opens},
    entry::{EvidenceEntry, entry_id},
    hash::tagged,
    json::from_canonical,
    merkle::{leaf_hash, verify_inclusion},
    receipt::Receipt,
    verify::{FileFacts, SignedCheckpoint},
};
use serde::Serialize;

use self::save::{refuse_overwriting, save};
use crate::{
    cli::SubmitArgs,
    client::{Client, dev_file, key_from_file},
    output::{EXIT_TRY_LATER, EXIT_USAGE, Out, Usage, plain, shown},
    verify::{ENTRY_SUFFIX, RECEIPT_SUFFIX, beside, file_facts},
};

/// How long requests other than waiting for the commit are tried again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between questions after an operation.
const POLL_FIRST: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(2);

/// The server, and what is known of it here.
struct Service {
    client: Client,
    policy: Option<PathBuf>,
}

/// What came of one file.
#[derive(Serialize)]
struct Done {
    file: String,
    id: String,
    operation: String,
    state: OperationState,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<Rejection>,
    warnings: Vec<Warning>,
}

/// Submits every file, one after the other.
pub(crate) async fn run(args: &SubmitArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    if args.idempotency_key.is_some() && args.files.len() > 1 {
        return Err(Usage("--idempotency-key names one request; submit the files one by one".to_owned()).into());
    }
    let service = service(args)?;
    let mut worst = 0;
    for file in &args.files {
        let code = match submit(args, &service, file).await {
            Ok(done) => {
                show(args, out, &service, file, &done)?;
                match done.state {
                    OperationState::Committed => 0,
                    OperationState::Accepted if args.wait == 0 => 0,
                    OperationState::Accepted => EXIT_TRY_LATER,
                    OperationState::Rejected => 1,
                }
            }
            Err(error) => {
                eprintln!("error: {}: {error:#}", shown(file));
                if args.json {
                    out.json(&serde_json::json!({ "file": shown(file), "error": format!("{error:#}") }))?;
                }
                if error.is::<Usage>() { EXIT_USAGE } else { 1 }
            }
        };
        worst = worse(worst, code);
    }
    if let Some(path) = &args.policy_out {
        policy(args, &service.client, path).await?;
    }
    out.flush()?;
    Ok(ExitCode::from(worst))
}

/// A failure outweighs a fault of the command line, and that a delay.
fn worse(a: u8, b: u8) -> u8 {
    let rank = |code| [0, EXIT_TRY_LATER, EXIT_USAGE, 1].iter().position(|known| *known == code);
    if rank(b) > rank(a) { b } else { a }
}

fn service(args: &SubmitArgs) -> anyhow::Result<Service> {
    if let Some(dir) = &args.dev {
        let dev = dev_file(dir)?.with_context(|| {
            format!(
                "{0}/dev.json is missing: no server runs there; start it with `chopmark dev --data {0}`",
                shown(dir)
            )
        })?;
        let client = Client::new(&dev.base_url, Some(&dev.api_key))?;
        return Ok(Service { client, policy: Some(dev.policy_path) });
    }
    let Some(server) = &args.server else {
        let text = "submit where? Give --dev DIR for the server that `chopmark dev --data DIR` runs, or --server URL \
                    with --key-file F";
        return Err(Usage(text.to_owned()).into());
    };
    let key = match &args.key_file {
        Some(path) => key_from_file(path)?,
        None => std::env::var("CHOPMARK_API_KEY").map_err(|_| {
            Usage(
                "an API key is needed: put it into a file and name that with --key-file, or set CHOPMARK_API_KEY"
                    .to_owned(),
            )
        })?,
    };
    Ok(Service { client: Client::new(server, Some(&key))?, policy: None })
}

async fn submit(args: &SubmitArgs, service: &Service, file: &Path) -> anyhow::Result<Done> {
    if file.as_os_str() == "-" {
        return Err(Usage("standard input has no name to save its receipt by; submit a file".to_owned()).into());
    }
    let facts = file_facts(file).map_err(|error| Usage(format!("{error:#}")))?;
    let request = request(args, &facts);
    if let Some(fault) = request.validate().first() {
        let fault = &fault.fault;
        return Err(Usage(format!("{} {}", fault.detail(LANG), fault.fix(LANG))).into());
    }
    let key = args.idempotency_key.clone().unwrap_or_else(|| idempotency_key(&request));
    let client = &service.client;
    let started = Instant::now();
    let accepted = accept(args, client, &request, &key).await?;
    let mut done = Done::accepted(file, &accepted);
    if accepted.operation.state == OperationState::Accepted && args.wait > 0 {
        let deadline = started + Duration::from_secs(u64::from(args.wait));
        let operation = wait(client, &accepted, deadline).await?;
        done.state = operation.state;
        done.rejection = operation.rejection;
    }
    match done.state {
        OperationState::Accepted => {}
        OperationState::Committed => fetch(args, client, file, &facts, &mut done).await?,
        OperationState::Rejected if done.rejection.is_none() => {
            done.rejection = client.get(&accepted.operation.href, soon()).await?.json::<OperationView>()?.rejection;
        }
        OperationState::Rejected => {}
    }
    Ok(done)
}

/// Texts of ours are in English on the command line.
const LANG: chopmark_api::Lang = chopmark_api::Lang::En;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn request(args: &SubmitArgs, facts: &FileFacts) -> EvidenceRequest {
    let hash = |digest: Option<ledger_core::Hash32>| digest.map(|digest| ApiHash::from_bytes(digest.0));
    let ledger_core::digests::Digests { sha256, sha3_256, sm3 } = facts.digests;
    EvidenceRequest {
        digests: ApiDigests { sha256: hash(sha256), sha3_256: hash(sha3_256), sm3: hash(sm3) },
        size: Some(facts.size),
        media_type: args.media_type.clone(),
        title: args.title.clone(),
        confidential: args.confidential.then_some(true),
        provenance: None,
        external_id: args.external_id.clone(),
    }
}

/// The same for the same request, whatever the file is called and whenever it is sent: so a lost
/// answer, a second run and a copy of the file all find the one record. Everything that the
/// server compares goes in, since another request under the same key is refused.
fn idempotency_key(request: &EvidenceRequest) -> String {
    let digest = |digest: Option<ApiHash>| digest.map_or([0; 32], |digest| *digest.as_bytes());
    let text = |text: &Option<String>| text.as_ref().map_or_else(Vec::new, |text| text.as_bytes().to_vec());
    let ApiDigests { sha256, sha3_256, sm3 } = request.digests;
    let hash = tagged(
        "chopmark/submit-key/v1",
        &[
            &digest(sha256),
            &digest(sha3_256),
            &digest(sm3),
            &request.size.unwrap_or_default().to_be_bytes(),
            &text(&request.media_type),
            &text(&request.title),
            &text(&request.external_id),
            &[u8::from(request.is_confidential())],
        ],
    );
    format!("submit-v1-{hash}")
}

async fn accept(
    args: &SubmitArgs,
    client: &Client,
    request: &EvidenceRequest,
    key: &str,
) -> anyhow::Result<EvidenceAccepted> {
    let body = serde_json::to_vec(request).context("cannot write the request")?;
    let wait = format!("wait={}", args.wait.min(WAIT_SECONDS_MAX));
    let headers = [(IDEMPOTENCY_KEY, key), (PREFER, wait.as_str())];
    // 201 carries the whole record, of which these are the first members.
    client.post("/v1/evidence", &body, &headers, soon()).await?.json()
}

/// Asks after the operation until it has ended, or time is up.
async fn wait(client: &Client, accepted: &EvidenceAccepted, deadline: Instant) -> anyhow::Result<OperationView> {
    let mut pause = POLL_FIRST;
    loop {
        let operation: OperationView = client.get(&accepted.operation.href, soon().max(deadline)).await?.json()?;
        if operation.state != OperationState::Accepted || Instant::now() + pause > deadline {
            return Ok(operation);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Gets the proof of a committed record, checks it against the file, and saves it.
async fn fetch(
    args: &SubmitArgs,
    client: &Client,
    file: &Path,
    facts: &FileFacts,
    done: &mut Done,
) -> anyhow::Result<()> {
    let record = format!("/v1/evidence/{}", done.id);
    let view: EvidenceView = client.get(&record, soon()).await?.json()?;
    let receipt = client.get(&format!("{record}/receipt"), soon()).await?.body;
    let entry = client.get(&format!("{record}/entry"), soon()).await?.body;
    let checked = check(facts, &entry, &receipt, &view).with_context(|| {
        format!("{} is recorded, but the proof that came back is wrong, and was not saved", done.id)
    })?;
    let (receipt_path, entry_path) = (beside(file, RECEIPT_SUFFIX), beside(file, ENTRY_SUFFIX));
    let unsaved = || format!("{} is recorded, but its proof was not saved", done.id);
    if !args.force {
        refuse_overwriting(&receipt_path, &receipt).with_context(unsaved)?;
        refuse_overwriting(&entry_path, &entry).with_context(unsaved)?;
    }
    // The opening of a confidential entry says what the file was: as private as the file.
    let private = checked.extra.is_some();
    save(&entry_path, &entry, false).with_context(unsaved)?;
    save(&receipt_path, &receipt, private).with_context(unsaved)?;
    done.entry_id = Some(entry_id(&entry).to_string());
    done.index = Some(checked.index.0);
    done.height = view.block.as_ref().map(|block| block.height);
    done.block_time = view.block.as_ref().map(|block| block.time.to_string());
    done.time = view.checkpoint.as_ref().map(|checkpoint| checkpoint.time.to_string());
    done.receipt = Some(shown(&receipt_path));
    done.entry = Some(shown(&entry_path));
    Ok(())
}

/// Whether entry and receipt are of this file and of each other. Signatures are left to
/// `chopmark verify`: there is no policy here that would be worth trusting.
fn check(facts: &FileFacts, entry: &[u8], receipt: &[u8], view: &EvidenceView) -> anyhow::Result<Receipt> {
    let receipt = Receipt::parse(std::str::from_utf8(receipt).context("the receipt is not text")?)?;
    let recorded: EvidenceEntry<'_> = serde_json::from_slice(entry).context("the entry is not one of evidence")?;
    let ours = |(algorithm, digest)| facts.digests.get(algorithm) == Some(digest);
    let of_file = match (&recorded.digests, &recorded.commitment, &receipt.extra) {
        (Some(digests), ..) => !digests.is_empty() && digests.iter().all(ours),
        (None, Some(commitment), Some(opening)) => {
            let read = from_canonical::<EvidenceOpening>(opening).context("the opening is damaged")?;
            opens(opening, commitment) && read.digests.iter().all(ours)
        }
        _ => false,
    };
    anyhow::ensure!(of_file, "the entry is not of this file");
    let named = view.entry.as_ref().context("the record names no entry")?;
    anyhow::ensure!(named.id.as_bytes() == &entry_id(entry).0, "the entry is not the one that the record names");
    anyhow::ensure!(named.index == receipt.index.0, "the receipt is of another entry");
    let signed = SignedCheckpoint::parse(&receipt.checkpoint).map_err(|verdict| anyhow::anyhow!("{verdict}"))?;
    let checkpoint = &signed.checkpoint;
    verify_inclusion(&leaf_hash(entry), receipt.index, checkpoint.size, &receipt.path, &checkpoint.root)
        .map_err(|_| anyhow::anyhow!("the receipt does not lead from the entry to the checkpoint"))?;
    Ok(receipt)
}

async fn policy(args: &SubmitArgs, client: &Client, path: &Path) -> anyhow::Result<()> {
    let policy = client.get("/log/policy", soon()).await?.body;
    if !args.force {
        refuse_overwriting(path, &policy)?;
    }
    save(path, &policy, false)?;
    eprintln!(
        "warning: {} came from the server whose receipts it would judge: on its own it proves nothing against that \
         server. Compare it with a copy from a member that you trust",
        shown(path)
    );
    Ok(())
}

impl Done {
    fn accepted(file: &Path, accepted: &EvidenceAccepted) -> Self {
        Self {
            file: shown(file),
            id: accepted.id.to_string(),
            operation: accepted.operation.id.to_string(),
            state: accepted.operation.state,
            entry_id: None,
            index: None,
            height: None,
            block_time: None,
            time: None,
            receipt: None,
            entry: None,
            rejection: None,
            warnings: accepted.warnings.clone(),
        }
    }
}

fn show(args: &SubmitArgs, out: &mut Out, service: &Service, file: &Path, done: &Done) -> anyhow::Result<()> {
    if args.json {
        return Ok(out.json(done)?);
    }
    writeln!(out, "{}", done.file)?;
    let mut line = |head: &str, text: &str| writeln!(out, "  {head:<10} {}", plain(text));
    line("id", &done.id)?;
    for warning in &done.warnings {
        line("warning", &warning.detail)?;
    }
    match (done.state, &done.rejection) {
        (OperationState::Accepted, _) => {
            line("state", "accepted, not committed yet; the same command again fetches the receipt")?;
        }
        (OperationState::Rejected, rejection) => {
            let reason = rejection.as_ref().map(|rejection| format!("{}: {}", rejection.code, rejection.reason));
            line("state", &format!("rejected, for good: {}", reason.unwrap_or_default()))?;
        }
        (OperationState::Committed, _) => {
            for (head, text) in [
                ("entry id", &done.entry_id),
                ("index", &done.index.map(|index| index.to_string())),
                ("block", &done.height.map(|height| height.to_string())),
                ("time", &done.block_time),
                ("existed", &done.time.as_ref().map(|time| format!("no later than {time}, says the quorum"))),
                ("receipt", &done.receipt),
                ("entry", &done.entry),
            ] {
                if let Some(text) = text {
                    line(head, text)?;
                }
            }
            let policy = service.policy.as_deref().map_or_else(|| "YOUR-POLICY".to_owned(), shown);
            line("verify", &format!("chopmark verify {} --policy {policy}", shown(file)))?;
        }
    }
    Ok(())
}
