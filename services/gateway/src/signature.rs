//! Signatures of requests (RFC 9421, Ed25519). Whoever may call is examined here once more where a
//! request is signed: it is verified, or refused. The head is verified before any byte of the body is
//! read; the body has to have the digest that the head was signed with (RFC 9530), whoever reads it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::header::{HeaderMap, HeaderName},
};
use bytes::Bytes;
use chopmark_api::{
    Problem, ProblemCode,
    problem::{Arg, Fault},
};
use chopmark_domain::{
    access::{Access, Caller},
    signature::{BASE_BYTES_MAX, BODY_KEPT_BYTES_MAX, RequestSignature},
    tenant::Scope,
};
use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use ledger_core::hash::Hash32;
use sha2::{Digest as _, Sha256};

use self::message::{Flaw, Request, Signature, content_digest, joined};

mod message;

const SIGNATURE_INPUT: &str = "Signature-Input";
const SIGNATURE: &str = "Signature";
const CONTENT_DIGEST: &str = "Content-Digest";
/// How far `created` may lie from this clock: as long as a request may be under way, with clocks of
/// machines that nobody looks after.
const AGE_SECONDS_MAX: u64 = 300;
/// The scheme ends at a proxy, which need not say which it was.
const SCHEMES: [&str; 2] = ["https", "http"];

/// The verified head of a signed request.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    key_id: String,
    public_key: Hash32,
    signature: [u8; 64],
    base: String,
    /// What the body has to have; `None` where the signature covers none.
    digest: Option<[u8; 32]>,
}

/// Verifies the head of a request that is signed, and refuses one that has to be and is not.
pub(crate) async fn examine(req: &HttpRequest, access: &Access, caller: &Caller, scope: Scope) -> Result<(), Problem> {
    let request = Request { method: req.method().as_str(), uri: req.uri(), headers: req.headers() };
    let signed = verify(&request, access, caller).await?;
    match signed {
        Some(signed) => drop(req.extensions_mut().insert(signed)),
        None if scope == Scope::Write && caller.must_sign() => {
            return Err(Problem::header(ProblemCode::SignatureRequired, SIGNATURE));
        }
        None => {}
    }
    Ok(())
}

/// The verified head of this request, if it is signed.
pub(crate) fn of(req: &HttpRequest) -> Option<Signed> {
    req.extensions().get::<Signed>().cloned()
}

async fn verify(request: &Request<'_>, access: &Access, caller: &Caller) -> Result<Option<Signed>, Problem> {
    let Some(signature) = read(request.headers).map_err(refused)? else { return Ok(None) };
    check_time(&signature, access.now_ms() / 1000)?;
    let key = access.signing_key(caller, &signature.key_id).await.map_err(at_key)?;
    let base = verified_base(&signature, request, &key.public_key)?;
    let digest = if signature.covers("content-digest") { Some(digest_of(request.headers)?) } else { None };
    let Signature { key_id, bytes, .. } = signature;
    Ok(Some(Signed { key_id, public_key: key.public_key, signature: bytes, base, digest }))
}

fn read(headers: &HeaderMap) -> Result<Option<Signature>, Flaw> {
    let header = |name: &'static str| joined(headers, &HeaderName::from_static(name));
    let signature = match (header("signature-input")?, header("signature")?) {
        (None, None) => return Ok(None),
        (Some(inputs), Some(signatures)) => Signature::read(&inputs, &signatures)?,
        _ => return Err(Flaw::Malformed),
    };
    signature.check_coverage(headers)?;
    Ok(Some(signature))
}

fn check_time(signature: &Signature, now_s: u64) -> Result<(), Problem> {
    let now = i64::try_from(now_s).unwrap_or(i64::MAX);
    let fresh = signature.created.abs_diff(now) <= AGE_SECONDS_MAX;
    if fresh && signature.expires.is_none_or(|expires| expires > now) {
        return Ok(());
    }
    let fault = Fault::new(ProblemCode::SignatureExpired).with("limit", Arg::Number(AGE_SECONDS_MAX));
    Err(Problem::header(fault, SIGNATURE_INPUT))
}

/// The base that the signature holds over, whichever scheme the caller used.
fn verified_base(signature: &Signature, request: &Request<'_>, public_key: &Hash32) -> Result<String, Problem> {
    let invalid = || Problem::header(ProblemCode::SignatureInvalid, SIGNATURE);
    let key = VerifyingKey::from_bytes(&public_key.0).map_err(|_| invalid())?;
    let bytes = Ed25519Signature::from_bytes(&signature.bytes);
    for scheme in SCHEMES {
        let base = signature.base(request, scheme).map_err(refused)?;
        if key.verify_strict(base.as_bytes(), &bytes).is_ok() {
            return Ok(base);
        }
    }
    Err(invalid())
}

fn digest_of(headers: &HeaderMap) -> Result<[u8; 32], Problem> {
    let invalid = || Problem::header(ProblemCode::ContentDigestInvalid, CONTENT_DIGEST);
    let text = joined(headers, &HeaderName::from_static("content-digest")).ok().flatten().ok_or_else(invalid)?;
    content_digest(&text).ok_or_else(invalid)
}

fn refused(flaw: Flaw) -> Problem {
    let fault = match flaw {
        Flaw::Malformed => Fault::new(ProblemCode::SignatureMalformed).limit("limit", BASE_BYTES_MAX),
        Flaw::Component => ProblemCode::SignatureComponentUnknown.into(),
        Flaw::Lacks(what) => lacks(what),
        Flaw::Algorithm => ProblemCode::SignatureAlgorithmUnsupported.into(),
        Flaw::Key => ProblemCode::SignatureKeyUnknown.into(),
    };
    Problem::header(fault, SIGNATURE_INPUT)
}

fn lacks(what: &'static str) -> Fault {
    Fault::new(ProblemCode::SignatureIncomplete).with("missing", Arg::Name(what))
}

/// A refusal of the key names the header that named it; a dependency's failure does not.
fn at_key(problem: Problem) -> Problem {
    match problem.code() {
        code @ (ProblemCode::SignatureKeyUnknown | ProblemCode::SignatureKeyRevoked) => {
            Problem::header(code, SIGNATURE_INPUT)
        }
        _ => problem,
    }
}

impl Signed {
    /// Whether a body may be read at all: one that the signature does not cover is nobody's.
    pub(crate) fn check_covers_body(&self) -> Result<(), Problem> {
        if self.digest.is_some() {
            return Ok(());
        }
        Err(Problem::header(lacks("content-digest"), SIGNATURE_INPUT))
    }

    /// The signature of a request whose whole body is at hand.
    pub(crate) fn over(self, body: &[u8]) -> Result<Arc<RequestSignature>, Problem> {
        let text = (body.len() <= BODY_KEPT_BYTES_MAX).then(|| std::str::from_utf8(body).ok()).flatten();
        self.settle(Sha256::digest(body).into(), body.len() as u64, text.map(str::to_owned))
    }

    /// The signature of a request whose body has streamed by.
    pub(crate) fn over_streamed(self, tally: &Tally) -> Result<Arc<RequestSignature>, Problem> {
        let (hasher, bytes) = tally.0.borrow().clone();
        self.settle(hasher.finalize().into(), bytes, None)
    }

    fn settle(self, found: [u8; 32], body_bytes: u64, body: Option<String>) -> Result<Arc<RequestSignature>, Problem> {
        self.check_covers_body()?;
        if self.digest != Some(found) {
            return Err(Problem::header(ProblemCode::ContentDigestMismatch, CONTENT_DIGEST));
        }
        let Self { key_id, public_key, signature, base, digest: _ } = self;
        Ok(Arc::new(RequestSignature { key_id, public_key, signature, base, body_bytes, body }))
    }
}

/// Digest and length of a body as it streams by. A chunk is a few packets, some tens of microseconds
/// of hashing.
#[derive(Clone, Default)]
pub(crate) struct Tally(Rc<RefCell<(Sha256, u64)>>);

impl Tally {
    pub(crate) fn add(&self, chunk: &Bytes) {
        let (hasher, bytes) = &mut *self.0.borrow_mut();
        hasher.update(chunk);
        *bytes += chunk.len() as u64;
    }
}
