//! Which members are in force at a height, found without reading every block.
//!
//! Trust goes from a known set to the next through the last block that the known set decided:
//! its certified header names the hash of the next set, and the set's bytes stand in the block
//! before. A node that lies about the blocks in between can only make this fail.

use std::sync::Arc;

use ledger_core::{hash::Hash32, member::MemberSet};

use crate::{
    chain::announced,
    error::{CheckError, CommitterError},
    source::Source,
};

impl Source {
    /// The members in force after block `target`, given those in force after block `known_at`.
    ///
    /// Takes one block where they are the same, and 2 + log2(heights) for every change between.
    pub(crate) async fn members_after(
        &self,
        chain: &Hash32,
        known: Arc<MemberSet>,
        known_at: u64,
        target: u64,
    ) -> Result<Arc<MemberSet>, CommitterError> {
        let (mut known, mut low) = (known, known_at);
        while low < target && self.next_members(target).await? != known.hash() {
            let last = self.last_decided_by(&known, low, target).await?;
            known = Arc::new(self.successor(chain, &known, last).await?);
            low = last;
        }
        Ok(known)
    }

    /// The first height found above `low` after which other members than `known` are in force;
    /// `known` is in force after `low` and not after `high`.
    async fn last_decided_by(&self, known: &MemberSet, low: u64, high: u64) -> Result<u64, CommitterError> {
        let (hash, mut low, mut high) = (known.hash(), low, high);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.next_members(middle).await? == hash { low = middle } else { high = middle }
        }
        Ok(high)
    }

    /// The members after `height`, the last block that `known` decided.
    async fn successor(&self, chain: &Hash32, known: &MemberSet, height: u64) -> Result<MemberSet, CommitterError> {
        let last = self.block(height).await?.block;
        let verified = last.certificate.verify(chain, height, &last.header.hash(), known);
        verified.map_err(|error| CheckError::Certificate(error).at(height))?;
        let before = height.checked_sub(1).filter(|before| *before > 0);
        let before = before.ok_or_else(|| CheckError::MembersUnknown.at(height))?;
        let set = announced(&self.block(before).await?.block).map_err(|check| check.at(before))?;
        // The hash is what is trusted, so it does not matter who showed the set.
        set.filter(|set| set.hash() == last.header.next_members).ok_or_else(|| CheckError::MembersUnknown.at(before))
    }

    async fn next_members(&self, height: u64) -> Result<Hash32, CommitterError> {
        Ok(self.block(height).await?.block.header.next_members)
    }
}
