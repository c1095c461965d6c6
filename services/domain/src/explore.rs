//! What anybody may look through: the blocks, newest first, one block with the outcomes that it
//! decided, one entry by its place or its id, and a search over all of them. It knows the ledger
//! alone: no private part comes near this module.

use chopmark_api::{Problem, ProblemCode, query::PageQuery};
use ledger_core::{
    block::{Block, BlockError, Header},
    checkpoint::decimal_u63,
    digests::Algorithm,
    hash::Hash32,
    member::is_domain,
    merkle::LeafIndex,
    outcome::{Outcome, Verdict},
    vote::Certificate,
};
use tokio::task::spawn_blocking;

use crate::{
    cursor, failure,
    lookup::{PublicLedger, PublicRecord},
    ports::{LedgerBlock, PortError},
};

/// Operations after which a page of blocks ends early: blocks are read whole, and full ones have thousands.
const PAGE_OPERATIONS_MAX: usize = 20_000;

/// What a list says of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFacts {
    /// Height.
    pub height: u64,
    /// Header hash.
    pub hash: Hash32,
    /// Block time, Unix ms.
    pub time: u64,
    /// Size of the log after this block.
    pub tree_size: u64,
    /// Entries that it added to the log.
    pub entries: usize,
    /// Operations that became entries.
    pub committed: usize,
    /// Operations that were rejected.
    pub rejected: usize,
}

impl BlockFacts {
    fn of(found: &LedgerBlock) -> Self {
        let LedgerBlock { block, entries } = found;
        let committed = |verdict: &&Verdict| matches!(verdict, Verdict::Committed { .. });
        let committed = block.verdicts.iter().filter(committed).count();
        Self {
            height: block.header.height,
            hash: block.header.hash(),
            time: block.header.time,
            tree_size: block.header.tree_size,
            entries: entries.len(),
            committed,
            rejected: block.verdicts.len() - committed,
        }
    }
}

/// One page of blocks.
#[derive(Debug, Clone)]
pub struct BlockPage {
    /// Newest first.
    pub blocks: Vec<BlockFacts>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// One block with what it decided.
#[derive(Debug, Clone)]
pub struct BlockRecord {
    /// What a list says of it.
    pub facts: BlockFacts,
    /// What was agreed on.
    pub header: Header,
    /// The quorum's signatures.
    pub certificate: Certificate,
    /// In the order of the batch; the header's outcomes root holds for them.
    pub outcomes: Vec<Outcome>,
}

/// How an entry is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryName {
    /// By its place.
    Index(LeafIndex),
    /// By its id.
    Id(Hash32),
}

impl EntryName {
    /// Reads a leaf index in plain digits or 64 hexadecimal digits, as a search does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let index = decimal_u63(text).map(|index| Self::Index(LeafIndex(index)));
        index.or_else(|| Hash32::from_hex(&text.to_ascii_lowercase()).map(Self::Id))
    }
}

/// Something that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    /// A block of this height.
    Block(u64),
    /// An entry at this place.
    Entry(LeafIndex),
    /// A digest that at least one record has.
    Digest(Algorithm, Hash32),
    /// A member in force, by its domain.
    Member(String),
}

impl PublicLedger {
    /// Blocks from the cursor on, newest first; the genesis is none, for nobody decided it. A page
    /// may have fewer than asked for and be followed by another.
    pub async fn blocks(&self, page: &PageQuery) -> Result<BlockPage, Problem> {
        let scope: [&[u8]; 2] = [b"blocks-from", self.network.as_bytes()];
        let cursor = cursor::read(&self.ids, &scope, page.cursor.as_ref())?;
        let newest = self.status().await?.checkpoint_height;
        let mut height = cursor.map_or(newest, |from| from.min(newest));
        let (mut blocks, mut operations) = (Vec::new(), 0);
        while height > 0 && blocks.len() < usize::from(page.limit) && operations < PAGE_OPERATIONS_MAX {
            let found = self.block_at(height).await?.ok_or(ProblemCode::LedgerUnavailable)?;
            operations += found.block.verdicts.len();
            blocks.push(BlockFacts::of(&found));
            height -= 1;
        }
        let next_cursor = (height > 0).then(|| cursor::issue(&self.ids, &scope, height));
        Ok(BlockPage { blocks, next_cursor })
    }

    /// One block that a checkpoint covers, with its outcomes checked against its header.
    pub async fn block(&self, height: u64) -> Result<BlockRecord, Problem> {
        let found = self.block_at(height).await?.ok_or(ProblemCode::BlockNotFound)?;
        let facts = BlockFacts::of(&found);
        // A full batch takes tens of milliseconds to read.
        let read = spawn_blocking(move || outcomes_of(found.block)).await;
        let read = read.map_err(|_| failure::broken("a thread that reads a block"))?;
        let (block, outcomes) = read.map_err(|error| damaged(&error))?;
        Ok(BlockRecord { facts, header: block.header, certificate: block.certificate, outcomes })
    }

    async fn block_at(&self, height: u64) -> Result<Option<LedgerBlock>, Problem> {
        if height == 0 {
            return Ok(None);
        }
        let found = self.ledger.blocks(height, 1).await.map_err(|error| failure::port(&error))?;
        Ok(found.into_iter().next())
    }

    /// One entry that a checkpoint covers, with what proves it.
    pub async fn entry_record(&self, name: EntryName) -> Result<PublicRecord, Problem> {
        let index = match name {
            EntryName::Index(index) => index,
            EntryName::Id(id) => self.place_of(&id).await?.ok_or(ProblemCode::EntryNotFound)?,
        };
        self.record(index).await
    }

    async fn place_of(&self, id: &Hash32) -> Result<Option<LeafIndex>, Problem> {
        self.ledger.find_entry(id).await.map_err(|error| failure::port(&error))
    }

    /// What a height, leaf index, entry id, digest or member's domain leads to; hashes and domains
    /// in lower or upper case. Header hashes are not indexed. An id of evidence leads nowhere: only
    /// its tenant may know which entry it stands for.
    pub async fn search(&self, query: &str) -> Result<Vec<Hit>, Problem> {
        if let Some(number) = decimal_u63(query) {
            return self.search_number(number).await;
        }
        let folded = query.to_ascii_lowercase();
        if let Some(hash) = Hash32::from_hex(&folded) {
            return self.search_hash(&hash).await;
        }
        if is_domain(&folded) { self.search_member(folded).await } else { Ok(Vec::new()) }
    }

    async fn search_number(&self, number: u64) -> Result<Vec<Hit>, Problem> {
        let status = self.status().await?;
        let block = (1..=status.checkpoint_height).contains(&number).then_some(Hit::Block(number));
        let entry = (number < status.size.0).then_some(Hit::Entry(LeafIndex(number)));
        Ok(block.into_iter().chain(entry).collect())
    }

    async fn search_hash(&self, hash: &Hash32) -> Result<Vec<Hit>, Problem> {
        let mut hits: Vec<Hit> = self.place_of(hash).await?.map(Hit::Entry).into_iter().collect();
        for algorithm in Algorithm::ALL {
            let found = self.ledger.find_digest(algorithm, hash, LeafIndex(0), 1).await;
            if !found.map_err(|error| failure::port(&error))?.indexes.is_empty() {
                hits.push(Hit::Digest(algorithm, *hash));
            }
        }
        Ok(hits)
    }

    async fn search_member(&self, domain: String) -> Result<Vec<Hit>, Problem> {
        let known = self.network().await?.members.iter().any(|member| member.name == domain);
        Ok(known.then_some(Hit::Member(domain)).into_iter().collect())
    }
}

fn outcomes_of(block: Block) -> Result<(Block, Vec<Outcome>), BlockError> {
    let outcomes = block.outcomes()?;
    Ok((block, outcomes))
}

/// The problem of a block that contradicts itself.
fn damaged(error: &BlockError) -> Problem {
    failure::port(&PortError::Broken { port: "ledger", reason: error.to_string() })
}
