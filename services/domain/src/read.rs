//! What a tenant reads of its own records: the database says where they stand, the ledger what
//! they say, the sealed part what only their owner may know.

use std::sync::Arc;

use chopmark_api::{
    Problem, ProblemCode,
    case::CaseItem,
    digest::Hash32 as ApiHash,
    evidence::Provenance,
    ids::{CaseId, EvidenceId, OperationId},
    operation::OperationState as ApiState,
    query::{DigestFilter, EvidenceQuery, PageQuery},
    time::Timestamp,
};
use futures_util::{StreamExt as _, stream};
use ledger_core::{
    commitment::{EvidenceOpening, opens},
    digests::{Algorithm, Digests},
    entry::{EvidenceEntry, entry_id},
    hash::Hash32,
    merkle::LeafIndex,
    operation::OperationType,
};

use crate::{
    access::Caller,
    cursor, failure,
    id::{IdIssuer, IdKind, ResourceKey},
    lookup::CheckpointFacts,
    ports::{BlockRef, LedgerReader, OperationStore},
    private::{PrivateDocument, PrivatePart},
    proof,
    record::{CommittedAt, ListQuery, OperationRow, OperationState, StateFilter},
    seal,
    signature::SubmitterSignature,
    tenant::Tenant,
};

/// Records whose details are fetched at a time for one page.
const DETAILS_AT_ONCE: usize = 16;
/// Leaf indexes that one query of the database is given.
const DIGEST_HITS_AT_ONCE: usize = 1000;

/// The reading use cases of a tenant.
pub struct Records {
    pub(crate) network: String,
    pub(crate) ids: IdIssuer,
    pub(crate) store: Arc<dyn OperationStore>,
    pub(crate) ledger: Arc<dyn LedgerReader>,
}

/// What the database says of an operation; little while no committer has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRecord {
    /// Key in ids.
    pub key: ResourceKey,
    /// Type, once known.
    pub kind: Option<OperationType>,
    /// When a committer first saw it.
    pub accepted_at: Option<Timestamp>,
    /// State.
    pub state: OperationState,
    /// Whether another request came under the same idempotency key.
    pub conflicted: bool,
    /// The case that a committed link belongs to.
    pub case: Option<ResourceKey>,
}

impl OperationRecord {
    fn unseen(key: ResourceKey) -> Self {
        let state = OperationState::Accepted;
        Self { key, kind: None, accepted_at: None, state, conflicted: false, case: None }
    }

    fn of(row: &OperationRow) -> Self {
        Self {
            key: row.key,
            kind: Some(row.kind),
            accepted_at: Some(Timestamp::from_unix_ms(row.accepted_at)),
            state: row.state,
            conflicted: row.conflicted,
            case: None,
        }
    }
}

/// One piece of evidence.
#[derive(Debug, Clone)]
pub struct EvidenceRecord {
    /// Its operation.
    pub operation: OperationRecord,
    /// What was recorded, once committed.
    pub facts: Option<EvidenceFacts>,
    /// What only the owner reads.
    pub private: PrivateFacts,
    /// Where it stands on the ledger, once committed.
    pub committed: Option<Committed>,
}

/// What an evidence entry, or its opening, says of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceFacts {
    /// Digests.
    pub digests: Digests,
    /// Bytes.
    pub size: Option<u64>,
    /// Media type.
    pub media_type: Option<String>,
    /// Whether the ledger has commitments only.
    pub confidential: bool,
}

/// The private part, opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrivateFacts {
    /// A name for people.
    pub title: Option<String>,
    /// The owner's identifier.
    pub external_id: Option<String>,
    /// How the evidence was obtained.
    pub provenance: Option<Box<Provenance>>,
    /// Whether the original is kept.
    pub retained: bool,
    /// What the request was signed with; not shown in lists.
    pub signature: Option<SubmitterSignature>,
}

/// Where a record stands on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Leaf index and entry id.
    pub at: CommittedAt,
    /// Its block.
    pub block: BlockRef,
    /// The checkpoint of its receipt; not fetched for lists.
    pub checkpoint: Option<CheckpointFacts>,
}

/// A case with one page of its links.
#[derive(Debug, Clone)]
pub struct CaseRecord {
    /// Its operation.
    pub operation: OperationRecord,
    /// What only the owner reads.
    pub private: PrivateFacts,
    /// Links in order.
    pub items: Vec<CaseItem>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

impl Records {
    /// One piece of evidence with its checkpoint.
    pub async fn evidence(&self, caller: &Caller, id: &EvidenceId) -> Result<EvidenceRecord, Problem> {
        let key = self.evidence_key(caller, id)?;
        match self.row(caller, key).await? {
            Some(row) => self.evidence_of(&caller.tenant, &row, true).await,
            None => Ok(EvidenceRecord {
                operation: OperationRecord::unseen(key),
                facts: None,
                private: PrivateFacts::default(),
                committed: None,
            }),
        }
    }

    /// One page of a tenant's evidence, newest first.
    pub async fn list(
        &self,
        caller: &Caller,
        query: &EvidenceQuery,
    ) -> Result<(Vec<EvidenceRecord>, Option<String>), Problem> {
        let tenant = caller.tenant.id();
        let filters = format!("{:?}", (query.digest, &query.external_id, query.state, query.from, query.to));
        let scope = [b"evidence", self.network.as_bytes(), tenant.as_bytes(), filters.as_bytes()];
        let before = cursor::read(&self.ids, &scope, query.page.cursor.as_ref())?;
        let limit = u32::from(query.page.limit);
        let list = ListQuery {
            network: self.network.clone(),
            tenant: tenant.to_owned(),
            kind: OperationType::Evidence,
            before,
            limit: limit + 1,
            state: query.state.map(state_filter),
            from: query.from.map(Timestamp::unix_ms),
            to: query.to.map(Timestamp::unix_ms),
            external_index: query.external_id.as_ref().map(|text| caller.tenant.external_index(text)),
            indexes: None,
        };
        let mut rows = match query.digest {
            None => self.store.list(list).await.map_err(|error| failure::port(&error))?,
            Some(filter) => self.rows_of_digest(&list, filter).await?,
        };
        let more = rows.len() > usize::from(query.page.limit);
        rows.truncate(usize::from(query.page.limit));
        let next = rows.last().filter(|_| more).map(|row| cursor::issue(&self.ids, &scope, row.sequence));
        let details = stream::iter(&rows).map(|row| self.evidence_of(&caller.tenant, row, false));
        let records: Vec<_> = details.buffered(DETAILS_AT_ONCE).collect().await;
        Ok((records.into_iter().collect::<Result<_, _>>()?, next))
    }

    /// One operation.
    pub async fn operation(&self, caller: &Caller, id: &OperationId) -> Result<OperationRecord, Problem> {
        let key = self.ids.recognise_bytes(IdKind::Operation, caller.tenant.id(), id.as_bytes());
        let key = key.ok_or(ProblemCode::OperationNotFound)?;
        let Some(row) = self.row(caller, key).await? else { return Ok(OperationRecord::unseen(key)) };
        let mut record = OperationRecord::of(&row);
        if let (OperationType::CaseAppend, OperationState::Committed(at)) = (row.kind, row.state) {
            record.case = Some(case_of(&self.entry_at(at).await?)?);
        }
        Ok(record)
    }

    /// A case and one page of its links.
    pub async fn case(&self, caller: &Caller, id: &CaseId, page: &PageQuery) -> Result<CaseRecord, Problem> {
        let tenant = caller.tenant.id();
        let key = self.ids.recognise_bytes(IdKind::Case, tenant, id.as_bytes()).ok_or(ProblemCode::CaseNotFound)?;
        let scope = [b"case", self.network.as_bytes(), &key.0[..]];
        let after = cursor::read(&self.ids, &scope, page.cursor.as_ref())?.unwrap_or(0);
        let Some(row) = self.row(caller, key).await? else {
            let operation = OperationRecord::unseen(key);
            return Ok(CaseRecord {
                operation,
                private: PrivateFacts::default(),
                items: Vec::new(),
                next_cursor: None,
            });
        };
        let limit = u32::from(page.limit);
        let links = self.store.case_links(&self.network, tenant, &key, after, limit + 1).await;
        let mut links = links.map_err(|error| failure::port(&error))?;
        let more = links.len() > usize::from(page.limit);
        links.truncate(usize::from(page.limit));
        let next_cursor = links.last().filter(|_| more).map(|link| cursor::issue(&self.ids, &scope, link.position));
        let item = |link: crate::record::CaseLink| CaseItem {
            position: link.position,
            evidence_id: EvidenceId::from_bytes(self.ids.ids(tenant, &link.evidence).bytes(IdKind::Evidence)),
            entry_id: api_hash(&link.entry),
            index: link.index,
            previous: api_hash(&link.previous),
            time: Timestamp::from_unix_ms(link.time),
        };
        let private = private_facts(self.private_document(&caller.tenant, &row).await?);
        let items = links.into_iter().map(item).collect();
        Ok(CaseRecord { operation: OperationRecord::of(&row), private, items, next_cursor })
    }

    /// The receipt; of confidential evidence it carries the opening.
    pub async fn receipt(&self, caller: &Caller, id: &EvidenceId) -> Result<String, Problem> {
        let row = self.committed_row(caller, id).await?;
        let entry = self.entry_at(row.1).await?;
        self.owner_receipt(&caller.tenant, &row.0, row.1, &entry).await
    }

    /// The entry, byte for byte.
    pub async fn entry(&self, caller: &Caller, id: &EvidenceId) -> Result<Vec<u8>, Problem> {
        let (_, at) = self.committed_row(caller, id).await?;
        self.entry_at(at).await
    }

    /// The bundle with everything that an offline verifier needs.
    pub async fn bundle(&self, caller: &Caller, id: &EvidenceId) -> Result<Vec<u8>, Problem> {
        let (row, at) = self.committed_row(caller, id).await?;
        let entry = self.entry_at(at).await?;
        let receipt = self.owner_receipt(&caller.tenant, &row, at, &entry).await?;
        let policy = self.ledger.policy().await.map_err(|error| failure::port(&error))?;
        proof::bundle(&entry, &receipt, &policy)
    }

    async fn owner_receipt(
        &self,
        tenant: &Tenant,
        row: &OperationRow,
        at: CommittedAt,
        entry: &[u8],
    ) -> Result<String, Problem> {
        let found = self.ledger.receipt(LeafIndex(at.index)).await.map_err(|error| failure::port(&error))?;
        let mut receipt = found.ok_or(ProblemCode::NotCommittedYet)?.receipt;
        let evidence = parse_entry(entry)?;
        if let Some(commitment) = evidence.commitment {
            let document = self.private_document(tenant, row).await?;
            let opening = document.and_then(|document| document.opening).map(|opening| opening.encode());
            if opening.as_ref().is_some_and(|opening| !opens(opening, &commitment)) {
                return Err(failure::broken("a sealed opening that does not open its entry"));
            }
            receipt.extra = opening;
        }
        Ok(receipt.render())
    }

    async fn evidence_of(&self, tenant: &Tenant, row: &OperationRow, whole: bool) -> Result<EvidenceRecord, Problem> {
        let document = self.private_document(tenant, row).await?;
        let mut record = EvidenceRecord {
            operation: OperationRecord::of(row),
            facts: None,
            private: PrivateFacts::default(),
            committed: None,
        };
        if let OperationState::Committed(at) = row.state {
            let entry = self.entry_at(at).await?;
            let opening = document.as_ref().and_then(|document| document.opening.as_ref());
            record.facts = Some(facts(&parse_entry(&entry)?, opening));
            record.committed = Some(self.committed(at, whole).await?);
        }
        record.private = private_facts(document);
        if !whole {
            // Each may have a copy of its request.
            record.private.signature = None;
        }
        Ok(record)
    }

    async fn committed(&self, at: CommittedAt, whole: bool) -> Result<Committed, Problem> {
        let block = self.ledger.block_of(LeafIndex(at.index)).await.map_err(|error| failure::port(&error))?;
        let block = block.ok_or(ProblemCode::LedgerUnavailable)?;
        let checkpoint = if whole {
            let receipt = self.ledger.receipt(LeafIndex(at.index)).await.map_err(|error| failure::port(&error))?;
            receipt.map(|receipt| CheckpointFacts::of_receipt(&receipt))
        } else {
            None
        };
        Ok(Committed { at, block, checkpoint })
    }

    /// The entry that the database names, if the ledger agrees.
    async fn entry_at(&self, at: CommittedAt) -> Result<Vec<u8>, Problem> {
        let entry = self.ledger.entry(LeafIndex(at.index)).await.map_err(|error| failure::port(&error))?;
        let entry = entry.ok_or(ProblemCode::LedgerUnavailable)?;
        if entry_id(&entry) == at.entry { Ok(entry) } else { Err(failure::broken("an entry unlike the projected one")) }
    }

    async fn committed_row(&self, caller: &Caller, id: &EvidenceId) -> Result<(OperationRow, CommittedAt), Problem> {
        let row = self.row(caller, self.evidence_key(caller, id)?).await?.ok_or(ProblemCode::NotCommittedYet)?;
        match row.state {
            OperationState::Committed(at) => Ok((row, at)),
            OperationState::Accepted => Err(ProblemCode::NotCommittedYet.into()),
            OperationState::Rejected(_) => Err(ProblemCode::OperationRejected.into()),
        }
    }

    fn evidence_key(&self, caller: &Caller, id: &EvidenceId) -> Result<ResourceKey, Problem> {
        let key = self.ids.recognise_bytes(IdKind::Evidence, caller.tenant.id(), id.as_bytes());
        key.ok_or_else(|| ProblemCode::EvidenceNotFound.into())
    }

    async fn row(&self, caller: &Caller, key: ResourceKey) -> Result<Option<OperationRow>, Problem> {
        let rows = self.store.find(&self.network, caller.tenant.id(), &[key]).await;
        let mut rows = rows.map_err(|error| failure::port(&error))?;
        Ok(rows.pop().flatten())
    }

    /// The sealed part, opened. One that is gone (erased) or does not open leaves the public
    /// facts readable; the log says so.
    async fn private_document(&self, tenant: &Tenant, row: &OperationRow) -> Result<Option<PrivateDocument>, Problem> {
        let sealed = self.store.sealed_private(&self.network, tenant.id(), &row.op, &row.operation_hash).await;
        let Some(sealed) = sealed.map_err(|error| failure::port(&error))? else { return Ok(None) };
        let document = seal::open(tenant, &row.op, &row.operation_hash, &sealed).ok();
        let document = document.and_then(|plain| PrivateDocument::decode(&plain));
        if document.is_none() {
            tracing::error!(op = %row.op, "sealed private part does not open");
        }
        Ok(document)
    }

    /// Rows of one tenant with a digest, newest first. Others may have recorded the same digest any
    /// number of times, so all positions are asked for.
    async fn rows_of_digest(&self, list: &ListQuery, filter: DigestFilter) -> Result<Vec<OperationRow>, Problem> {
        let digest = Hash32(*filter.digest.as_bytes());
        let mut rows: Vec<OperationRow> = Vec::new();
        for algorithm in Algorithm::ALL {
            if filter.algorithm.is_some_and(|wanted| wanted.name() != algorithm.as_str()) {
                continue;
            }
            let mut from = LeafIndex(0);
            loop {
                let hits = self.ledger.find_digest(algorithm, &digest, from, DIGEST_HITS_AT_ONCE).await;
                let indexes = hits.map_err(|error| failure::port(&error))?.indexes;
                let Some(last) = indexes.last().copied() else { break };
                let some = ListQuery { indexes: Some(indexes.iter().map(|at| at.0).collect()), ..list.clone() };
                rows.extend(self.store.list(some).await.map_err(|error| failure::port(&error))?);
                rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.sequence));
                rows.dedup_by_key(|row| row.sequence);
                rows.truncate(list.limit as usize);
                if indexes.len() < DIGEST_HITS_AT_ONCE {
                    break;
                }
                from = LeafIndex(last.0 + 1);
            }
        }
        Ok(rows)
    }
}

pub(crate) fn api_hash(hash: &Hash32) -> ApiHash {
    ApiHash::from_bytes(hash.0)
}

const fn state_filter(state: ApiState) -> StateFilter {
    match state {
        ApiState::Accepted => StateFilter::Accepted,
        ApiState::Committed => StateFilter::Committed,
        ApiState::Rejected => StateFilter::Rejected,
    }
}

fn parse_entry(entry: &[u8]) -> Result<EvidenceEntry<'_>, Problem> {
    serde_json::from_slice(entry).map_err(|_| failure::broken("an evidence entry that is none"))
}

/// The case that a `case.append` entry names.
fn case_of(entry: &[u8]) -> Result<ResourceKey, Problem> {
    #[derive(serde::Deserialize)]
    struct Append {
        case: Hash32,
    }
    let Append { case } = serde_json::from_slice(entry).map_err(|_| failure::broken("a link's entry that is none"))?;
    Ok(ResourceKey::of(&case, 0))
}

fn facts(entry: &EvidenceEntry<'_>, opening: Option<&EvidenceOpening>) -> EvidenceFacts {
    let confidential = entry.commitment.is_some();
    match opening.filter(|_| confidential) {
        Some(opening) => EvidenceFacts {
            digests: opening.digests,
            size: opening.size,
            media_type: opening.media_type.clone(),
            confidential,
        },
        None => EvidenceFacts {
            digests: entry.digests.unwrap_or_default(),
            size: entry.size,
            media_type: entry.media_type.map(str::to_owned),
            confidential,
        },
    }
}

fn private_facts(document: Option<PrivateDocument>) -> PrivateFacts {
    let Some(PrivateDocument { private, retained, signature, .. }) = document else { return PrivateFacts::default() };
    let provenance = private.as_ref().and_then(PrivatePart::provenance);
    let (title, external_id) = private.map(|part| (part.title, part.external_id)).unwrap_or_default();
    PrivateFacts { title, external_id, provenance, retained, signature }
}
