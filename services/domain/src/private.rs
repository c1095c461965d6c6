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

use crate::ports::PortResult;

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
        something.then_some(Self { opening, private, retained, v: V1 })
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(to_canonical(self))
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
        let document = PrivateDocument::of(None, Some(part.clone()), true).unwrap();
        let read = PrivateDocument::decode(&document.encode()).unwrap();
        assert_eq!(read, document);
        assert_eq!(to_canonical(&read.private.unwrap()), opening);
        assert!(commitment::opens(&opening, &part.commit()));
        assert_eq!(part.provenance().as_deref(), Some(&provenance));
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
