//! Files that are sent to us: their digests are computed as they stream by, on blocking
//! threads, and the file itself is not held anywhere unless the caller asks for it.

use bytes::{Bytes, BytesMut};
use chopmark_api::{
    Problem, ProblemCode,
    digest::Hash32 as ApiHash,
    evidence::{Digests as ApiDigests, FileMetadata},
};
use ledger_core::{
    digests::{Algorithm, Digester, Digests},
    hash::Hash32,
};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    accept::ledger_digests,
    failure,
    notarize::{Notarized, Notary, Write},
    ports::OriginalWriter,
};

/// Bytes that are hashed at a time: large beside the cost of a thread, small beside memory. An
/// intake holds three such chunks: one filling, one being hashed, one being written.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file on its way in.
pub struct Intake {
    filling: BytesMut,
    hashing: JoinHandle<Digester>,
    original: Option<Box<dyn OriginalWriter>>,
}

impl Notary {
    /// Begins to take in a file, whose original is kept when the metadata say so.
    pub async fn begin_file(&self, write: Write<'_>, metadata: &FileMetadata) -> Result<Intake, Problem> {
        let original = match (metadata.retain == Some(true), &self.originals) {
            (false, _) => None,
            (true, None) => return Err(Problem::pointer(ProblemCode::RetentionUnavailable, "/retain")),
            (true, Some(originals)) => {
                Some(originals.begin(write.caller.tenant.id()).await.map_err(|error| failure::port(&error))?)
            }
        };
        Ok(Intake { filling: BytesMut::new(), hashing: spawn_blocking(Digester::default), original })
    }

    /// Notarizes a file that was taken in whole.
    pub async fn notarize_file(
        &self,
        write: Write<'_>,
        key: &str,
        metadata: FileMetadata,
        intake: Intake,
    ) -> Result<Notarized, Problem> {
        let (digests, size, original) = intake.finish().await?;
        if let Err(problem) = compare(&metadata, &digests, size) {
            if let Some(original) = original {
                original.discard().await;
            }
            return Err(problem);
        }
        let retained = original.is_some();
        if let Some(original) = original {
            let sha256 = digests.sha256.ok_or_else(|| failure::broken("a file without its digest"))?;
            // Durable before the record is: a record never speaks of an original that is lost.
            original.keep(&sha256).await.map_err(|error| failure::port(&error))?;
        }
        self.notarize_as(write, key, metadata.into_request(api_digests(&digests), size), retained).await
    }
}

impl Intake {
    /// Takes the next bytes.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Problem> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.filling.len();
            let part = bytes.split_to(room.min(bytes.len()));
            self.filling.extend_from_slice(&part);
            if self.filling.len() == CHUNK_BYTES {
                self.hash_chunk().await?;
            }
        }
        Ok(())
    }

    /// Throws away what was taken in.
    pub async fn discard(self) {
        if let Some(original) = self.original {
            original.discard().await;
        }
    }

    async fn hash_chunk(&mut self) -> Result<(), Problem> {
        let chunk = std::mem::replace(&mut self.filling, BytesMut::with_capacity(CHUNK_BYTES)).freeze();
        let mut digester = joined((&mut self.hashing).await)?;
        let hashed = chunk.clone();
        self.hashing = spawn_blocking(move || {
            digester.update(&hashed);
            digester
        });
        if let Some(original) = &mut self.original {
            original.write(chunk).await.map_err(|error| failure::port(&error))?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(Digests, u64, Option<Box<dyn OriginalWriter>>), Problem> {
        if !self.filling.is_empty() {
            self.hash_chunk().await?;
        }
        let (digests, size) = joined(self.hashing.await)?.finish();
        Ok((digests, size, self.original))
    }
}

fn joined(digester: Result<Digester, tokio::task::JoinError>) -> Result<Digester, Problem> {
    digester.map_err(|_| failure::broken("a digest task ended early"))
}

/// The file must be what the metadata say it is.
fn compare(metadata: &FileMetadata, digests: &Digests, size: u64) -> Result<(), Problem> {
    let given = metadata.digests.as_ref().map(ledger_digests).unwrap_or_default();
    for (algorithm, digest) in given.iter() {
        if digests.get(algorithm) != Some(digest) {
            return Err(Problem::pointer(
                ProblemCode::FileDigestMismatch,
                format!("/digests/{}", Algorithm::as_str(algorithm)),
            ));
        }
    }
    if metadata.size.is_some_and(|given| given != size) {
        return Err(Problem::pointer(ProblemCode::FileSizeMismatch, "/size"));
    }
    Ok(())
}

fn api_digests(digests: &Digests) -> ApiDigests {
    let convert = |digest: Option<Hash32>| digest.map(|digest| ApiHash::from_bytes(digest.0));
    ApiDigests { sha256: convert(digests.sha256), sha3_256: convert(digests.sha3_256), sm3: convert(digests.sm3) }
}
