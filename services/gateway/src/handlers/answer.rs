//! What the handlers have in common.

use std::{str::FromStr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header};
use chopmark_api::{
    ProblemCode,
    problem::{Arg, Fault, FieldError, Place},
};
use chopmark_domain::access::Caller;
use utoipa::IntoParams;

use crate::{
    auth::shared,
    edge::lang,
    refusal::{Outcome, Refusal},
    render::Renderer,
};

/// Never changes: an entry's bytes, its first receipt, a full tile.
pub(crate) const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Results of writes, as [`crate::state::Shared::count_writes`] counts them.
pub(crate) const ACCEPTED: &str = "accepted";
pub(crate) const REFUSED_QUOTA: &str = "refused_quota";

/// An id out of the path.
pub(crate) fn path_id<T: FromStr>(req: &HttpRequest, form: &'static str) -> Outcome<T> {
    let parsed = req.match_info().get("id").and_then(|id| id.parse().ok());
    parsed.ok_or_else(|| malformed("id", Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Name(form))))
}

pub(crate) fn malformed(name: &'static str, fault: Fault) -> Refusal {
    let problem: chopmark_api::Problem = FieldError { place: Place::Parameter(name.into()), fault }.into();
    problem.into()
}

pub(crate) fn renderer<'a>(req: &'a HttpRequest, caller: &'a Caller) -> Outcome<Renderer<'a>> {
    let shared = shared(req)?;
    Ok(Renderer { services: shared.services()?, base: shared.base, caller, lang: lang(req) })
}

/// Says that a `Prefer: wait` was heard (RFC 7240).
pub(crate) fn applied(mut response: HttpResponse, wait: Duration) -> HttpResponse {
    if !wait.is_zero()
        && let Ok(value) = header::HeaderValue::try_from(format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert(header::HeaderName::from_static("preference-applied"), value);
    }
    response
}

/// Says where the resource of a write is.
pub(crate) fn located(req: &HttpRequest, mut response: HttpResponse, path: &str) -> HttpResponse {
    let base = shared(req).map_or("", |shared| shared.base);
    if let Ok(value) = header::HeaderValue::try_from(format!("{base}{path}")) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// A text that is not JSON.
pub(crate) fn text(content_type: &'static str, cache: &'static str, body: impl Into<Vec<u8>>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CACHE_CONTROL, cache))
        .body(body.into())
}

/// A bundle, named for whoever saves it.
pub(crate) fn bundle(name: &str, cache: &'static str, body: Vec<u8>) -> HttpResponse {
    let disposition = format!("attachment; filename=\"{name}.zip\"");
    let mut response = text("application/zip", cache, body);
    if let Ok(value) = header::HeaderValue::try_from(disposition) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// Headers of a write that names itself in a header.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that are read by hand")]
pub(crate) struct WriteHeaders {
    /// Names the operation for ever; repeat it when you retry. 1 to 255 visible ASCII characters.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, example = "order-2026-0017")]
    idempotency_key: String,
    /// `wait=N`, 0 to 30 seconds: hold the answer until the operation is committed.
    #[param(rename = "Prefer", required = false, example = "wait=10")]
    prefer: Option<String>,
}

/// The header of a write that takes effect at once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that are read by hand")]
pub(crate) struct WriteKey {
    /// Names the write for ever; repeat it when you retry. 1 to 255 visible ASCII characters.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, example = "hooks-of-the-shop")]
    idempotency_key: String,
}

/// Headers of a batch, whose items name themselves.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that are read by hand")]
pub(crate) struct BatchHeaders {
    /// `wait=N`, 0 to 30 seconds: hold the answer until every operation is committed.
    #[param(rename = "Prefer", required = false, example = "wait=10")]
    prefer: Option<String>,
}
