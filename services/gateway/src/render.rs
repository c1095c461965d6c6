//! From what the domain says to what a caller reads.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use chopmark_api::{
    Lang, Problem, ProblemCode,
    case::{CaseAccepted, CaseAppendAccepted, CaseView},
    digest::{Algorithm, Hash32 as ApiHash},
    evidence::{Digests as ApiDigests, EvidenceAccepted, EvidenceItemResult, EvidenceLinks, EvidenceView},
    explore::{BlockDetail, BlockSummary, HitKind, OutcomeView, SearchHit, SearchView},
    ids::{CaseId, EvidenceId, OperationId},
    ledger::{BlockView, CheckpointView, EntryRef},
    network::{MemberView, NetworkLinks, NetworkView, PolicyRef},
    operation::{OperationRef, OperationState as ApiState, OperationView, Rejection, ResourceRef, ResourceType},
    page::Page,
    signature::SubmitterSignatureView,
    time::Timestamp,
    verify::{VerifyLinks, VerifyRecord, VerifyView},
    warning::{Warning, WarningCode},
};
use chopmark_domain::{
    Services,
    access::Caller,
    explore::{BlockFacts, BlockPage, BlockRecord, Hit},
    id::{IdKind, Issued, ResourceKey},
    lookup::{CheckpointFacts, Found, NetworkFacts, PublicRecord},
    notarize::BatchAnswer,
    ports::BlockRef,
    read::{CaseRecord, Committed, EvidenceFacts, EvidenceRecord, OperationRecord},
    record::OperationState,
    signature::SubmitterSignature,
};
use ledger_core::{
    digests::{Algorithm as LedgerAlgorithm, Digests},
    hash::Hash32,
    operation::OperationType,
    outcome::{Outcome as LedgerOutcome, Verdict},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::refusal::{Outcome, Refusal};

/// Version of the ledger's rules; `protocol.set` entries will raise it.
const PROTOCOL: u64 = 1;

/// Renders what one caller reads.
pub(crate) struct Renderer<'a> {
    pub(crate) services: &'a Services,
    /// What links begin with.
    pub(crate) base: &'static str,
    pub(crate) caller: &'a Caller,
    pub(crate) lang: Lang,
}

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Outcome<HttpResponse> {
    let body = serde_json::to_vec(value).map_err(|_| Refusal::from(ProblemCode::InternalError))?;
    Ok(HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(body))
}

/// The status of a write that found its operation in this state.
pub(crate) const fn status_of(state: OperationState) -> StatusCode {
    match state {
        OperationState::Committed(_) => StatusCode::CREATED,
        OperationState::Accepted | OperationState::Rejected(_) => StatusCode::ACCEPTED,
    }
}

const fn api_state(state: OperationState) -> ApiState {
    match state {
        OperationState::Accepted => ApiState::Accepted,
        OperationState::Committed(_) => ApiState::Committed,
        OperationState::Rejected(_) => ApiState::Rejected,
    }
}

impl Renderer<'_> {
    fn ids(&self, key: &ResourceKey) -> Issued {
        self.services.ids.ids(self.caller.tenant.id(), key)
    }

    pub(crate) fn evidence_id(&self, key: &ResourceKey) -> EvidenceId {
        EvidenceId::from_bytes(self.ids(key).bytes(IdKind::Evidence))
    }

    pub(crate) fn case_id(&self, key: &ResourceKey) -> CaseId {
        CaseId::from_bytes(self.ids(key).bytes(IdKind::Case))
    }

    fn warnings(&self, codes: &[WarningCode]) -> Vec<Warning> {
        codes.iter().map(|code| code.render(self.lang)).collect()
    }

    pub(crate) fn evidence_accepted(
        &self,
        key: &ResourceKey,
        state: OperationState,
        warnings: &[WarningCode],
    ) -> EvidenceAccepted {
        let ids = self.ids(key);
        EvidenceAccepted {
            id: EvidenceId::from_bytes(ids.bytes(IdKind::Evidence)),
            operation: self.operation_ref(&ids, state),
            warnings: self.warnings(warnings),
        }
    }

    pub(crate) fn batch_item(&self, at: usize, item: BatchAnswer, request_id: Option<&str>) -> EvidenceItemResult {
        match item.answer {
            Ok(accepted) => EvidenceItemResult::accepted(
                status_of(accepted.state).as_u16(),
                self.evidence_accepted(&accepted.key, accepted.state, &item.warnings),
            ),
            // The key of an item stands in the item.
            Err(problem) if problem.code() == ProblemCode::IdempotencyConflict => {
                let problem = Problem::pointer(problem.code(), format!("/items/{at}/idempotency_key"));
                EvidenceItemResult::refused(problem.render(self.lang, request_id))
            }
            Err(problem) => EvidenceItemResult::refused(problem.render(self.lang, request_id)),
        }
    }

    pub(crate) fn case_accepted(&self, key: &ResourceKey, state: OperationState) -> CaseAccepted {
        let ids = self.ids(key);
        let id = CaseId::from_bytes(ids.bytes(IdKind::Case));
        CaseAccepted { id, operation: self.operation_ref(&ids, state), warnings: Vec::new() }
    }

    pub(crate) fn append_accepted(
        &self,
        key: &ResourceKey,
        state: OperationState,
        case_id: CaseId,
        evidence_id: EvidenceId,
    ) -> CaseAppendAccepted {
        let operation = self.operation_ref(&self.ids(key), state);
        CaseAppendAccepted { case_id, evidence_id, operation, warnings: Vec::new() }
    }

    pub(crate) fn evidence(&self, record: EvidenceRecord, asked: &[WarningCode]) -> EvidenceView {
        let EvidenceRecord { operation, facts, private, committed } = record;
        let ids = self.ids(&operation.key);
        let id = EvidenceId::from_bytes(ids.bytes(IdKind::Evidence));
        let mut warnings = self.warnings(asked);
        warnings.extend(self.conflict_warning(&operation));
        EvidenceView {
            id,
            state: api_state(operation.state),
            operation: self.operation_ref(&ids, operation.state),
            digests: facts.as_ref().map(|facts| api_digests(&facts.digests)),
            size: facts.as_ref().and_then(|facts| facts.size),
            confidential: facts.as_ref().map(|facts| facts.confidential),
            links: committed.as_ref().map(|_| self.evidence_links(&id, facts.as_ref())),
            media_type: facts.and_then(|facts| facts.media_type),
            title: private.title,
            external_id: private.external_id,
            provenance: private.provenance,
            retained: private.retained,
            signature: private.signature.map(signature_view),
            created_at: operation.accepted_at,
            entry: committed
                .as_ref()
                .map(|committed| entry_ref(committed, self.href(&format!("/v1/evidence/{id}/entry")))),
            block: committed.as_ref().map(|committed| block_view(&committed.block)),
            checkpoint: committed.and_then(|committed| committed.checkpoint).map(checkpoint_view),
            warnings,
        }
    }

    pub(crate) fn operation(&self, record: &OperationRecord) -> OperationView {
        let ids = self.ids(&record.key);
        let rejection = match record.state {
            OperationState::Rejected(at) => Some(Rejection::of(at.code.as_str(), self.lang)),
            OperationState::Accepted | OperationState::Committed(_) => None,
        };
        OperationView {
            id: OperationId::from_bytes(ids.bytes(IdKind::Operation)),
            state: api_state(record.state),
            resource: self.resource(record),
            created_at: record.accepted_at,
            rejection,
            warnings: self.conflict_warning(record).into_iter().collect(),
        }
    }

    /// What the operation makes; of a link, the case once the ledger names it.
    fn resource(&self, record: &OperationRecord) -> Option<ResourceRef> {
        let of = |kind, path: &str, id: String| ResourceRef { kind, href: self.href(&format!("/v1/{path}/{id}")), id };
        let case = |key| of(ResourceType::Case, "cases", self.case_id(key).to_string());
        match record.kind? {
            OperationType::Evidence => {
                Some(of(ResourceType::Evidence, "evidence", self.evidence_id(&record.key).to_string()))
            }
            OperationType::CaseOpen => Some(case(&record.key)),
            OperationType::CaseAppend => record.case.as_ref().map(case),
            _ => None,
        }
    }

    fn conflict_warning(&self, record: &OperationRecord) -> Option<Warning> {
        record.conflicted.then(|| WarningCode::IdempotencyConflict.render(self.lang))
    }

    pub(crate) fn case(&self, record: CaseRecord) -> CaseView {
        let CaseRecord { operation, private, items, next_cursor } = record;
        let ids = self.ids(&operation.key);
        let entry = match operation.state {
            OperationState::Committed(at) => Some(EntryRef {
                id: api_hash(&at.entry),
                index: at.index,
                href: self.href(&format!("/v1/entries/{}/entry", at.index)),
            }),
            OperationState::Accepted | OperationState::Rejected(_) => None,
        };
        CaseView {
            id: CaseId::from_bytes(ids.bytes(IdKind::Case)),
            state: api_state(operation.state),
            operation: self.operation_ref(&ids, operation.state),
            title: private.title,
            external_id: private.external_id,
            signature: private.signature.map(signature_view),
            created_at: operation.accepted_at,
            entry,
            items,
            next_cursor,
        }
    }

    /// A path of this network.
    pub(crate) fn href(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn operation_ref(&self, ids: &Issued, state: OperationState) -> OperationRef {
        let id = OperationId::from_bytes(ids.bytes(IdKind::Operation));
        OperationRef { id, state: api_state(state), href: self.href(&format!("/v1/operations/{id}")) }
    }

    fn evidence_links(&self, id: &EvidenceId, facts: Option<&EvidenceFacts>) -> EvidenceLinks {
        let public = facts.filter(|facts| !facts.confidential);
        let first = public.and_then(|facts| facts.digests.iter().next());
        let at = |what: &str| self.href(&format!("/v1/evidence/{id}/{what}"));
        EvidenceLinks {
            receipt: at("receipt"),
            entry: at("entry"),
            proof: at("proof"),
            verify: first.map(|(algorithm, digest)| self.href(&format!("/v1/verify/{}/{digest}", algorithm.as_str()))),
        }
    }
}

fn signature_view(kept: SubmitterSignature) -> Box<SubmitterSignatureView> {
    let SubmitterSignature { algorithm, base, body, body_bytes, item, key_id, public_key, signature } = kept;
    let public_key = api_hash(&public_key);
    Box::new(SubmitterSignatureView {
        algorithm,
        key_id,
        public_key,
        signature,
        signature_base: base,
        body,
        body_bytes,
        item,
    })
}

fn entry_ref(committed: &Committed, href: String) -> EntryRef {
    EntryRef { id: api_hash(&committed.at.entry), index: committed.at.index, href }
}

fn block_view(block: &BlockRef) -> BlockView {
    BlockView { height: block.height, time: Timestamp::from_unix_ms(block.time), hash: api_hash(&block.hash) }
}

fn checkpoint_view(facts: CheckpointFacts) -> CheckpointView {
    CheckpointView {
        size: facts.size.0,
        root: api_hash(&facts.root),
        time: Timestamp::from_unix_ms(facts.time.saturating_mul(1000)),
        cosigners: facts.cosigners,
    }
}

/// A digest look-up. Links begin with `base`, here and below.
pub(crate) fn found(base: &str, algorithm: Algorithm, digest: ApiHash, found: Found) -> Outcome<VerifyView> {
    let Found { records, next_cursor, statement, complete_to } = found;
    let records = records.into_iter().map(|found| record(base, found)).collect::<Outcome<Vec<_>>>()?;
    Ok(VerifyView { algorithm, digest, records, next_cursor, statement, tree_size: complete_to.0 })
}

/// One record, as anybody may read it.
pub(crate) fn record(base: &str, record: PublicRecord) -> Outcome<VerifyRecord> {
    let PublicRecord { index, entry, entry_id, block, checkpoint } = record;
    let at = |what: &str| format!("{base}/v1/entries/{}/{what}", index.0);
    Ok(VerifyRecord {
        entry_id: api_hash(&entry_id),
        index: index.0,
        block: block.as_ref().map(block_view),
        entry: raw(entry)?,
        checkpoint: checkpoint_view(checkpoint),
        links: VerifyLinks { receipt: at("receipt"), entry: at("entry"), proof: at("proof") },
    })
}

/// Canonical JSON of the ledger, byte for byte.
fn raw(json: Vec<u8>) -> Outcome<Box<RawValue>> {
    let text = String::from_utf8(json).ok();
    let value = text.and_then(|text| RawValue::from_string(text).ok());
    value.ok_or_else(|| ProblemCode::StoredDataDamaged.into())
}

/// One page of blocks.
pub(crate) fn block_page(page: BlockPage) -> Page<BlockSummary> {
    Page { items: page.blocks.iter().map(block_summary).collect(), next_cursor: page.next_cursor }
}

fn block_summary(facts: &BlockFacts) -> BlockSummary {
    BlockSummary {
        height: facts.height,
        hash: api_hash(&facts.hash),
        time: Timestamp::from_unix_ms(facts.time),
        tree_size: facts.tree_size,
        entries: facts.entries as u64,
        operations: (facts.committed + facts.rejected) as u64,
        committed: facts.committed as u64,
        rejected: facts.rejected as u64,
    }
}

/// One block.
pub(crate) fn block(record: BlockRecord) -> Outcome<BlockDetail> {
    let BlockRecord { facts, header, certificate, outcomes } = record;
    let BlockSummary { height, hash, time, tree_size, entries, operations, committed, rejected } =
        block_summary(&facts);
    Ok(BlockDetail {
        height,
        hash,
        time,
        tree_size,
        entries,
        operations,
        committed,
        rejected,
        members: api_hash(&header.members),
        header: raw(header.encode())?,
        certificate: raw(certificate.encode())?,
        outcomes: outcomes.iter().map(outcome_view).collect(),
    })
}

fn outcome_view(outcome: &LedgerOutcome) -> OutcomeView {
    let (op, request) = (api_hash(&outcome.op), api_hash(&outcome.request));
    match outcome.verdict {
        Verdict::Committed { index, entry } => {
            let (index, entry_id) = (Some(index), Some(api_hash(&entry)));
            OutcomeView { op, request, state: ApiState::Committed, index, entry_id, code: None }
        }
        Verdict::Rejected(code) => {
            let code = Some(code.as_str().to_owned());
            OutcomeView { op, request, state: ApiState::Rejected, index: None, entry_id: None, code }
        }
    }
}

/// What a search found.
pub(crate) fn search(base: &str, query: String, hits: Vec<Hit>) -> SearchView {
    SearchView { query, hits: hits.into_iter().map(|hit| search_hit(base, hit)).collect() }
}

fn search_hit(base: &str, hit: Hit) -> SearchHit {
    let of = |kind: HitKind, path: String| {
        let href = format!("{base}{path}");
        let (height, index, algorithm, digest, name) = (None, None, None, None, None);
        SearchHit { kind, height, index, algorithm, digest, name, href }
    };
    match hit {
        Hit::Block(height) => SearchHit { height: Some(height), ..of(HitKind::Block, format!("/v1/blocks/{height}")) },
        Hit::Entry(index) => {
            SearchHit { index: Some(index.0), ..of(HitKind::Entry, format!("/v1/entries/{}", index.0)) }
        }
        Hit::Digest(algorithm, digest) => SearchHit {
            algorithm: Some(api_algorithm(algorithm)),
            digest: Some(api_hash(&digest)),
            ..of(HitKind::Digest, format!("/v1/verify/{}/{digest}", algorithm.as_str()))
        },
        Hit::Member(domain) => SearchHit { name: Some(domain), ..of(HitKind::Member, "/v1/network".to_owned()) },
    }
}

/// The network.
pub(crate) fn network(base: &str, facts: NetworkFacts) -> NetworkView {
    let members = facts.members.into_iter().map(|member| MemberView {
        name: member.name,
        log_key: member.log_key,
        cosigner_key: member.cosigner_key,
        statement_key: member.statement_key,
    });
    let policies = facts.policies.iter();
    let policies = policies.map(|(first_size, sha256)| PolicyRef { first_size: *first_size, sha256: api_hash(sha256) });
    NetworkView {
        network: facts.network,
        chain_id: api_hash(&facts.chain),
        origin: facts.origin,
        protocol: PROTOCOL,
        height: facts.height,
        checkpoint: checkpoint_view(facts.checkpoint),
        members: members.collect(),
        quorum: u32::try_from(facts.quorum).unwrap_or(u32::MAX),
        policy_sha256: api_hash(&facts.policy_sha256),
        policies: policies.collect(),
        links: NetworkLinks { checkpoint: format!("{base}/log/checkpoint"), policy: format!("{base}/log/policy") },
    }
}

fn api_hash(hash: &Hash32) -> ApiHash {
    ApiHash::from_bytes(hash.0)
}

const fn api_algorithm(algorithm: LedgerAlgorithm) -> Algorithm {
    match algorithm {
        LedgerAlgorithm::Sha256 => Algorithm::Sha256,
        LedgerAlgorithm::Sha3_256 => Algorithm::Sha3_256,
        LedgerAlgorithm::Sm3 => Algorithm::Sm3,
    }
}

fn api_digests(digests: &Digests) -> ApiDigests {
    let convert = |digest: Option<Hash32>| digest.as_ref().map(api_hash);
    ApiDigests { sha256: convert(digests.sha256), sha3_256: convert(digests.sha3_256), sm3: convert(digests.sm3) }
}
