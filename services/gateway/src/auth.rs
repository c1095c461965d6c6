//! Extractors that say who is calling. A handler that takes a [`Writer`] cannot run for anybody
//! who may not write; one that takes none of these serves nothing.

use std::{future::ready, net::IpAddr};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{AUTHORIZATION, HeaderMap},
    },
    web::Data,
};
use chopmark_api::{Problem, ProblemCode};
use chopmark_domain::{access::Caller, tenant::Scope};
use futures_util::future::LocalBoxFuture;

use crate::{
    limit::{Standing, Standings, check_tenant},
    refusal::{Outcome, Refusal},
    signature,
    state::Shared,
};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// A caller that may read its own records.
pub(crate) struct Reader(pub(crate) Caller);

/// A caller that may write.
pub(crate) struct Writer(pub(crate) Caller);

/// Anybody, within the limit of public look-ups.
pub(crate) struct Visitor;

/// Anybody, within the limit of reads of the log.
pub struct LogReader;

/// Everything that the gateway shares.
pub(crate) fn shared(req: &HttpRequest) -> Outcome<&Data<Shared>> {
    req.app_data::<Data<Shared>>().ok_or_else(|| ProblemCode::InternalError.into())
}

impl FromRequest for Reader {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Outcome<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move { authenticate(&req, Scope::Read).await.map(Self) })
    }
}

impl FromRequest for Writer {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Outcome<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move { authenticate(&req, Scope::Write).await.map(Self) })
    }
}

impl FromRequest for Visitor {
    type Error = Refusal;
    type Future = std::future::Ready<Outcome<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(shared(req).and_then(|shared| {
            let standing = shared.limits.public.check_address(address(req, shared))?;
            note(req, standing);
            Ok(Self)
        }))
    }
}

impl FromRequest for LogReader {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = shared(req).and_then(|shared| {
            let standing = shared.limits.log.check_address(address(req, shared))?;
            note(req, standing);
            Ok(Self)
        });
        ready(read.map_err(Into::into))
    }
}

async fn authenticate(req: &HttpRequest, scope: Scope) -> Outcome<Caller> {
    let shared = shared(req)?;
    let caller = match bearer(req.headers()) {
        Ok(key) => shared.services()?.access.authenticate(key).await.map_err(at_header),
        Err(problem) => Err(problem),
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => {
            if problem.status() == StatusCode::UNAUTHORIZED.as_u16() {
                // Whoever tries out keys meets the limit of the public.
                shared.limits.public.check_address(address(req, shared))?;
            }
            return Err(problem.into());
        }
    };
    caller.require_address(address(req, shared))?;
    note(req, shared.limits.keys.check_key(caller.key_id())?);
    note(req, check_tenant(shared.services()?.ports().quotas.as_ref(), &caller).await?);
    caller.require(scope).map_err(at_header)?;
    signature::examine(req, &shared.services()?.access, &caller, scope).await?;
    Ok(caller)
}

/// The key's text, out of exactly one `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refused = |code| Problem::header(code, "Authorization");
    let mut values = headers.get_all(AUTHORIZATION);
    let value = values.next().ok_or_else(|| refused(ProblemCode::ApiKeyMissing))?;
    if values.next().is_some() {
        return Err(refused(ProblemCode::ApiKeyMalformed));
    }
    let text = value.to_str().map_err(|_| refused(ProblemCode::ApiKeyMalformed))?;
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused(ProblemCode::AuthorizationSchemeUnsupported));
    }
    Ok(key.trim_matches(' '))
}

/// A refusal of the key names the header that it came in; a dependency's failure does not.
fn at_header(problem: Problem) -> Problem {
    match (problem.status(), problem.code()) {
        (401, code) => Problem::header(code, "Authorization"),
        _ => problem,
    }
}

/// The client's address: the peer's, or what the outermost proxy of our own saw.
fn address(req: &HttpRequest, shared: &Shared) -> IpAddr {
    let peer = req.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
    let Some(hop) = shared.config.trusted_proxies.checked_sub(1) else { return peer };
    let forwarded = req.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    hops.iter().rev().nth(hop).and_then(|hop| hop.trim().parse().ok()).unwrap_or(peer)
}

fn note(req: &HttpRequest, standing: Option<Standing>) {
    if let Some(standing) = standing {
        let mut extensions = req.extensions_mut();
        match extensions.get_mut::<Standings>() {
            Some(standings) => standings.0.push(standing),
            None => {
                extensions.insert(Standings(vec![standing]));
            }
        }
    }
}
