//! The private part of an operation, as it is sealed: one JSON document that holds the openings
//! of both commitments. Its own commitments on the ledger are over the exact canonical bytes of
//! the openings, so those must not change.

use std::collections::BTreeMap;

use chopmark_api::{
    case::CaseRequest,
    evidence::{EvidenceRequest, Provenance},
};
use ledger_core::{
    commitment::{self, EvidenceOpening},
    digests::Digests,
    hash::Hash32,
    json::to_canonical,
    operation::V1,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{message::SEALED_BYTES_MAX, ports::PortResult, seal, signature::SubmitterSignature};

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivateDocument {
    /// Opening of a confidential entry's commitment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) opening: Option<EvidenceOpening>,
    /// Opening of the entry's `private` commitment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) private: Option<PrivatePart>,
    /// Whether the original is in the object store.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) retained: bool,
    /// The submitter's signature.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) signature: Option<SubmitterSignature>,
    pub(crate) v: V1,
}

/// What the caller told us and the ledger must not show; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivatePart {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) external_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) provenance: BTreeMap<String, String>,
    /// 32 random bytes, so that nobody can find the rest by guessing.
    pub(crate) salt: Hash32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) title: Option<String>,
    pub(crate) v: V1,
}

impl PrivateDocument {
    /// `None` when there is nothing to seal.
    pub(crate) fn of(opening: Option<EvidenceOpening>, private: Option<PrivatePart>, retained: bool) -> Option<Self> {
        let something = opening.is_some() || private.is_some() || retained;
        something.then_some(Self { opening, private, retained, signature: None, v: V1 })
    }

    /// The document with a submitter's signature; a record without anything else to seal gets one for it.
    pub(crate) fn with_signature(document: Option<Self>, signature: Option<SubmitterSignature>) -> Option<Self> {
        match (document, signature) {
            (document, None) => document,
            (Some(document), signature) => Some(Self { signature, ..document }),
            (None, signature) => Some(Self { opening: None, private: None, retained: false, signature, v: V1 }),
        }
    }

    /// The document's bytes, within the bound of a queue message: what is private comes before a copy of
    /// the request's body, which is left out where both do not fit.
    pub(crate) fn encode(&mut self) -> Zeroizing<Vec<u8>> {
        let bytes = Zeroizing::new(to_canonical(self));
        if bytes.len() + seal::OVERHEAD_BYTES <= SEALED_BYTES_MAX {
            return bytes;
        }
        match self.signature.as_mut().and_then(|signature| signature.body.take()) {
            Some(_) => Zeroizing::new(to_canonical(self)),
            None => bytes,
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl PrivatePart {
    /// Of evidence; `None` when it has nothing private.
    pub(crate) fn of_evidence(
        request: &EvidenceRequest,
        salt: impl FnOnce() -> PortResult<Hash32>,
    ) -> PortResult<Option<Self>> {
        let EvidenceRequest { title, external_id, provenance, .. } = request;
        let provenance = provenance.as_deref().map(provenance_map).unwrap_or_default();
        Self::of(external_id.clone(), provenance, title.clone(), salt)
    }

    /// Of a case.
    pub(crate) fn of_case(request: CaseRequest, salt: impl FnOnce() -> PortResult<Hash32>) -> PortResult<Option<Self>> {
        Self::of(request.external_id, BTreeMap::new(), request.title, salt)
    }

    fn of(
        external_id: Option<String>,
        provenance: BTreeMap<String, String>,
        title: Option<String>,
        salt: impl FnOnce() -> PortResult<Hash32>,
    ) -> PortResult<Option<Self>> {
        if external_id.is_none() && provenance.is_empty() && title.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { external_id, provenance, salt: salt()?, title, v: V1 }))
    }

    /// What the entry carries.
    pub(crate) fn commit(&self) -> Digests {
        commitment::commit_sha256(&to_canonical(self))
    }

    /// Provenance as the API writes it.
    pub(crate) fn provenance(&self) -> Option<Box<Provenance>> {
        let map = &self.provenance;
        if map.is_empty() {
            return None;
        }
        let value = serde_json::to_value(map).ok()?;
        serde_json::from_value(value).ok().map(Box::new)
    }
}

/// All members of provenance are strings; in order of their names they are canonical.
fn provenance_map(provenance: &Provenance) -> BTreeMap<String, String> {
    let value = serde_json::to_value(provenance).unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_keep_their_bytes_through_sealing() {
        let provenance = Provenance {
            source: Some("https://example.com/\u{1f4c4}\"\\".to_owned()),
            notes: Some("两行\n\t文字".to_owned()),
            ..Provenance::default()
        };
        let request = EvidenceRequest {
            digests: chopmark_api::evidence::Digests::default(),
            size: None,
            media_type: None,
            title: Some("合同 \u{7f}".to_owned()),
            confidential: None,
            provenance: Some(Box::new(provenance.clone())),
            external_id: None,
        };
        let part = PrivatePart::of_evidence(&request, || Ok(Hash32([7; 32]))).unwrap().unwrap();
        let opening = to_canonical(&part);
        ledger_core::json::Value::parse(&opening).unwrap();
        let mut document = PrivateDocument::of(None, Some(part.clone()), true).unwrap();
        let read = PrivateDocument::decode(&document.encode()).unwrap();
        assert_eq!(read, document);
        assert_eq!(to_canonical(&read.private.unwrap()), opening);
        assert!(commitment::opens(&opening, &part.commit()));
        assert_eq!(part.provenance().as_deref(), Some(&provenance));
    }

    fn signature(base: &str, body: &str) -> SubmitterSignature {
        SubmitterSignature {
            algorithm: crate::signature::ALGORITHM.to_owned(),
            base: base.to_owned(),
            body: Some(body.to_owned()),
            body_bytes: body.len() as u64,
            item: Some(u64::from(u32::MAX)),
            key_id: format!("sgk_{}", "0".repeat(24)),
            public_key: Hash32([255; 32]),
            signature: "f".repeat(128),
        }
    }

    #[test]
    fn a_signature_keeps_its_bytes_and_is_left_out_where_there_is_none() {
        let kept = signature("\"@method\": POST\n\"@path\": /合", "{\"title\":\"合同 \\\\ \u{7f}\"}\n");
        let mut document = PrivateDocument::with_signature(None, Some(kept.clone())).unwrap();
        let read = PrivateDocument::decode(&document.encode()).unwrap();
        assert_eq!(read.signature, Some(kept));
        assert_eq!(PrivateDocument::with_signature(None, None), None);
        let mut unsigned = PrivateDocument::of(None, None, true).unwrap();
        assert_eq!(unsigned.encode().as_slice(), br#"{"retained":true,"v":1}"#);
    }

    /// Whatever a request may hold at most fits into a queue message beside the longest base, which the
    /// committer's reader of messages relies on. The body goes first.
    #[test]
    fn the_largest_private_part_fits_beside_a_signature() {
        let (line, lines) = (|chars: usize| "\u{10ffff}".repeat(chars), |chars: usize| "\u{10ffff}".repeat(chars));
        let short = || Some(line(256));
        let provenance = Provenance {
            source: short(),
            device: short(),
            application: short(),
            operator: short(),
            method: short(),
            captured_at: Some("2026-11-22T08:00:00.000Z".to_owned()),
            time_source: short(),
            environment_checks: Some(lines(2000)),
            tool_version: short(),
            notes: Some(lines(2000)),
        };
        let request = EvidenceRequest {
            digests: chopmark_api::evidence::Digests::default(),
            size: None,
            media_type: None,
            title: short(),
            confidential: None,
            provenance: Some(Box::new(provenance)),
            external_id: Some(line(128)),
        };
        let part = PrivatePart::of_evidence(&request, || Ok(Hash32([7; 32]))).unwrap();
        let digests =
            Digests { sha256: Some(Hash32([1; 32])), sha3_256: Some(Hash32([2; 32])), sm3: Some(Hash32([3; 32])) };
        let media_type = Some("m".repeat(127));
        let opening = EvidenceOpening { digests, media_type, salt: Hash32([7; 32]), size: Some(1 << 52), v: V1 };
        // A base is ASCII, and every third of its characters may need an escape.
        let base = "\"a\"".repeat(crate::signature::BASE_BYTES_MAX / 3);
        let document = PrivateDocument::of(Some(opening), part, true);
        let mut document =
            PrivateDocument::with_signature(document, Some(signature(&base, &"{".repeat(16 * 1024)))).unwrap();
        let bytes = document.encode();
        assert!(bytes.len() + seal::OVERHEAD_BYTES <= SEALED_BYTES_MAX, "{}", bytes.len());
        let kept = PrivateDocument::decode(&bytes).unwrap().signature.unwrap();
        assert_eq!((kept.body, kept.body_bytes, kept.base), (None, 16 * 1024, base));
    }

    #[test]
    fn nothing_private_is_nothing_sealed() {
        let request = EvidenceRequest {
            digests: chopmark_api::evidence::Digests::default(),
            size: Some(1),
            media_type: Some("text/plain".to_owned()),
            title: None,
            confidential: None,
            provenance: Some(Box::default()),
            external_id: None,
        };
        let part = PrivatePart::of_evidence(&request, || Ok(Hash32([7; 32]))).unwrap();
        assert_eq!(part, None);
        assert_eq!(PrivateDocument::of(None, part, false), None);
    }
}
