//! What every request passes on its way in and every answer on its way out: its id, the bounds
//! of its head, its language, its metrics, and the one place where problems become documents.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Instant};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::BoxBody,
    dev::{Extensions, ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use chopmark_api::{
    Lang, ProblemCode,
    problem::{Fault, PROBLEM_MEDIA_TYPE},
};

use chopmark_domain::auth::key_network;

use crate::{auth::bearer, body::Incoming, limit::Standings, refusal::Refusal, state::Shared};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id of a caller's own.
const REQUEST_ID_CHARS_MAX: usize = 64;
/// Longest path with query: seven filters, percent-encoded, stay below half of it.
pub(crate) const URI_BYTES_MAX: usize = 8 * 1024;
/// Largest head: we need less than 2 KiB; browsers send their cookies too.
pub(crate) const HEADERS_BYTES_MAX: usize = 32 * 1024;

/// The route that a request met, with its metrics in each network; one for each worker.
pub(crate) struct RouteMetrics {
    pub(crate) route: &'static str,
    networks: Vec<NetworkMetrics>,
}

struct NetworkMetrics {
    network: &'static str,
    seconds: metrics::Histogram,
    requests: RefCell<BTreeMap<u16, metrics::Counter>>,
}

impl RouteMetrics {
    pub(crate) fn new(route: &'static str, networks: &[&'static str]) -> Self {
        let of = |network: &&'static str| NetworkMetrics {
            network,
            seconds: metrics::histogram!("chopmark_gateway_request_seconds", "network" => *network, "route" => route),
            requests: RefCell::default(),
        };
        Self { route, networks: networks.iter().map(of).collect() }
    }

    fn count(&self, network: &str, status: StatusCode, begun: Instant) {
        let Some(of) = self.networks.iter().find(|of| of.network == network) else { return };
        of.seconds.record(begun.elapsed());
        let mut requests = of.requests.borrow_mut();
        let counter = requests.entry(status.as_u16()).or_insert_with(|| {
            metrics::counter!(
                "chopmark_gateway_requests_total",
                "network" => of.network, "route" => self.route, "status" => status.as_u16().to_string()
            )
        });
        counter.increment(1);
    }
}

/// The name of an exchange, in its answer and in the log.
struct RequestId(String);

/// The middleware.
pub(crate) async fn edge(
    mut req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let begun = Instant::now();
    let shared = req.app_data::<Data<Shared>>().cloned();
    let id = own_request_id(req.headers()).or_else(|| shared.as_ref().map(|shared| shared.next_request_id()));
    let id = id.unwrap_or_default();
    req.extensions_mut().insert(RequestId(id.clone()));
    if let Some(sandbox) = shared.as_deref().and_then(|shared| key_selects(req.headers(), shared)) {
        let mut container = Extensions::new();
        container.insert(Data::from(sandbox));
        req.add_data_container(Rc::new(container));
    }
    Incoming::hold(&mut req);
    let mut res = match check_head(&req, shared.as_deref().map(std::convert::AsRef::as_ref)) {
        Ok(()) => match next.call(req).await {
            Ok(res) => res,
            // Whatever fails beside the handlers is a fault of ours.
            Err(error) => return Err(error),
        },
        Err(refusal) => {
            let response = refusal.error_response();
            req.into_response(response)
        }
    };
    let refusal = res.response().extensions().get::<Refusal>().cloned();
    if let Some(refusal) = refusal {
        let response = render(&refusal, res.request(), &id);
        res = res.into_response(response);
    }
    finish(&mut res, &id);
    observe(&res, &id, begun);
    Ok(Incoming::release(res))
}

fn check_head(req: &ServiceRequest, shared: Option<&Shared>) -> Result<(), Refusal> {
    if req.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > URI_BYTES_MAX) {
        return Err(Fault::new(ProblemCode::UriTooLong).limit("limit", URI_BYTES_MAX).into());
    }
    let bytes: usize = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(Fault::new(ProblemCode::HeaderTooLarge).limit("limit", HEADERS_BYTES_MAX).into());
    }
    if shared.is_some_and(Shared::is_draining) && !req.path().starts_with("/health/") {
        return Err(ProblemCode::ShuttingDown.into());
    }
    Ok(())
}

/// The network beside this one, where the key is one of its keys. What the key is worth is found out later.
fn key_selects(headers: &HeaderMap, shared: &Shared) -> Option<Arc<Shared>> {
    let beside = shared.beside.as_ref()?;
    let network = bearer(headers).ok().and_then(key_network)?;
    (network == beside.network).then(|| Arc::clone(beside))
}

/// The caller's own id, where it is harmless to repeat.
fn own_request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let tame = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let harmless = (1..=REQUEST_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(tame);
    harmless.then(|| text.to_owned())
}

/// The id of this exchange.
pub(crate) fn request_id(req: &HttpRequest) -> Option<String> {
    req.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// The language of the caller's texts.
pub(crate) fn lang(req: &HttpRequest) -> Lang {
    Lang::negotiate(req.headers().get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()))
}

fn render(refusal: &Refusal, req: &HttpRequest, id: &str) -> HttpResponse {
    let lang = lang(req);
    let Refusal { problem, headers } = refusal;
    let body = serde_json::to_vec(&problem.render(lang, Some(id))).unwrap_or_default();
    let mut response = HttpResponse::build(refusal.status_code());
    response
        .insert_header((header::CONTENT_TYPE, PROBLEM_MEDIA_TYPE))
        .insert_header((header::CONTENT_LANGUAGE, lang.tag()))
        .insert_header((header::VARY, "Accept-Language"))
        .insert_header((header::CACHE_CONTROL, "no-store"));
    if problem.status() == StatusCode::UNAUTHORIZED.as_u16() {
        let challenge = match problem.code() {
            ProblemCode::ApiKeyMissing => "Bearer realm=\"chopmark\"",
            _ => "Bearer realm=\"chopmark\", error=\"invalid_token\"",
        };
        response.insert_header((header::WWW_AUTHENTICATE, challenge));
    }
    if let Some(seconds) = problem.retry_after() {
        response.insert_header((header::RETRY_AFTER, seconds.to_string()));
    }
    for (name, value) in headers {
        response.insert_header((name.clone(), value.clone()));
    }
    let network = req.app_data::<Data<Shared>>().map_or("", |shared| shared.network);
    metrics::counter!(
        "chopmark_gateway_problems_total", "code" => problem.code().as_str(), "network" => network
    )
    .increment(1);
    response.body(body)
}

fn finish(res: &mut ServiceResponse<BoxBody>, id: &str) {
    let standings = res.request().extensions_mut().remove::<Standings>();
    let headers = res.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(standings) = standings
        && !headers.contains_key(crate::limit::RATE_LIMIT)
    {
        standings.show(headers);
    }
}

/// The log names the route and never the path or the query, where people put names and numbers.
fn observe(res: &ServiceResponse<BoxBody>, id: &str, begun: Instant) {
    let status = res.status();
    let route = res.request().app_data::<RouteMetrics>();
    if let (Some(route), Some(shared)) = (route, res.request().app_data::<Data<Shared>>()) {
        route.count(shared.network, status, begun);
    }
    let route = route.map_or("unmatched", |route| route.route);
    let ms = begun.elapsed().as_millis();
    if status.is_server_error() {
        tracing::warn!(request_id = id, route, status = status.as_u16(), ms, "request failed");
    } else {
        tracing::debug!(request_id = id, route, status = status.as_u16(), ms, "request");
    }
}
