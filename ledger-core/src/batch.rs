//! Batches: the operations of one block, in order, with the signatures that admit them.
//!
//! A *submission* is what one submitter key signed at once. An operation that got its outcome
//! meanwhile is carried as its hash alone, so that the submission's signature still verifies.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::{
    codec::{DecodeError, Reader, Writer},
    hash::{Hash32, signing_message, tagged},
    operation::SignedOperation,
};

/// Largest encoded batch. The consensus engine's sync responses are bounded well above it.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most operations in one submission.
pub const SUBMISSION_OPERATIONS_MAX: usize = 4096;
/// Largest encoded submission: one that still fits into a batch of its own.
pub const SUBMISSION_BYTES_MAX: usize = BATCH_BYTES_MAX - 4;
/// Most submissions in one batch.
pub const BATCH_SUBMISSIONS_MAX: usize = 16 * 1024;

/// One operation of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// To be executed.
    Full(SignedOperation),
    /// Known already: only its [`SignedOperation::hash`].
    Omitted(Hash32),
}

impl Item {
    /// Hash of the operation and its signatures: what the submission's signature covers.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        match self {
            Self::Full(signed) => signed.hash(),
            Self::Omitted(hash) => *hash,
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Full(signed) => 1 + 4 + signed.operation.len() + 4 + 96 * signed.signatures.len(),
            Self::Omitted(_) => 33,
        }
    }
}

/// Operations under one submitter's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Submitter key (Ed25519), listed in the member set.
    pub key: Hash32,
    /// Signature over [`Submission::message`].
    pub signature: [u8; 64],
    /// The operations in order.
    pub items: Vec<Item>,
}

impl Submission {
    /// Signs `operations` as a submitter of `chain`.
    #[must_use]
    pub fn sign(chain: &Hash32, key: &SigningKey, operations: Vec<SignedOperation>) -> Self {
        let items: Vec<Item> = operations.into_iter().map(Item::Full).collect();
        let signature = key.sign(&Self::message(chain, &items)).to_bytes();
        Self { key: Hash32(key.verifying_key().to_bytes()), signature, items }
    }

    /// What the submitter signs: chain id and the hashes of all items, in order.
    ///
    /// The items' own signatures are covered too: a proposer who could drop a tenant's signature
    /// or an approval would turn a good operation into a final rejection.
    #[must_use]
    pub fn message(chain: &Hash32, items: &[Item]) -> Vec<u8> {
        let hashes: Vec<u8> = items.iter().flat_map(|item| item.hash().0).collect();
        signing_message("chopmark/submission/v1", &[&chain.0, &hashes])
    }

    /// Whether the signature holds.
    #[must_use]
    pub fn verify(&self, chain: &Hash32) -> bool {
        VerifyingKey::from_bytes(&self.key.0).is_ok_and(|key| {
            key.verify_strict(&Self::message(chain, &self.items), &Signature::from_bytes(&self.signature)).is_ok()
        })
    }

    /// Bytes of its encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        32 + 64 + 4 + self.items.iter().map(Item::encoded_len).sum::<usize>()
    }

    fn encode_into(&self, writer: &mut Writer) {
        writer.fixed(&self.key.0).fixed(&self.signature).count(self.items.len());
        for item in &self.items {
            match item {
                Item::Full(signed) => signed.encode_into(writer.u8(0)),
                Item::Omitted(hash) => {
                    writer.u8(1).fixed(&hash.0);
                }
            }
        }
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (key, signature) = (Hash32(reader.array()?), reader.array()?);
        let mut items = Vec::new();
        for _ in 0..reader.count(SUBMISSION_OPERATIONS_MAX)? {
            items.push(match reader.u8()? {
                0 => Item::Full(SignedOperation::decode(reader)?),
                1 => Item::Omitted(Hash32(reader.array()?)),
                _ => return Err(DecodeError::Range("item tag")),
            });
        }
        Ok(Self { key, signature, items })
    }

    /// Its own encoding, for the way from a committer to a node.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.encode_into(&mut writer);
        writer.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SUBMISSION_BYTES_MAX {
            return Err(DecodeError::Range("submission"));
        }
        let mut reader = Reader::new(bytes);
        let submission = Self::decode_from(&mut reader)?;
        reader.end()?;
        Ok(submission)
    }
}

/// The submissions of one block, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The submissions.
    pub submissions: Vec<Submission>,
}

impl Batch {
    /// Canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.submissions.len());
        for submission in &self.submissions {
            submission.encode_into(&mut writer);
        }
        writer.finish()
    }

    /// Reads a batch of at most [`BATCH_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(DecodeError::Range("batch"));
        }
        let mut reader = Reader::new(bytes);
        let mut submissions = Vec::new();
        for _ in 0..reader.count(BATCH_SUBMISSIONS_MAX)? {
            submissions.push(Submission::decode_from(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { submissions })
    }

    /// The operations to execute, in order.
    pub fn operations(&self) -> impl Iterator<Item = &SignedOperation> {
        self.submissions.iter().flat_map(|submission| &submission.items).filter_map(|item| match item {
            Item::Full(signed) => Some(signed),
            Item::Omitted(_) => None,
        })
    }
}

/// Hash of batch bytes, as the header has it.
#[must_use]
pub fn batch_hash(bytes: &[u8]) -> Hash32 {
    tagged("chopmark/batch/v1", &[bytes])
}
