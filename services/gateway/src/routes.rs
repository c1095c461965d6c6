//! The routes. Every path says here, once, which methods it has; the rest is 405 with `Allow`.

use actix_web::{
    HttpRequest, Resource, Route,
    guard::{self, Guard as _},
    http::header::{ALLOW, HeaderValue},
    web::{self, ServiceConfig},
};
use chopmark_api::{
    ProblemCode,
    problem::{Arg, Fault},
};

use crate::{
    edge::RouteMetrics,
    handlers::{cases, evidence, explore, files, health, log, operations, pages, verify, webhooks},
    refusal::{Outcome, Refusal},
};

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
const GET_POST: &[&str] = &["GET", "HEAD", "POST"];
const GET_PATCH_DELETE: &[&str] = &["GET", "HEAD", "PATCH", "DELETE"];

/// Paths of the public listener with their methods; the OpenAPI document has the same.
pub(crate) const PUBLIC: &[(&str, &[&str])] = &[
    ("/v1/evidence", GET_POST),
    ("/v1/evidence/batch", POST),
    ("/v1/evidence/files", POST),
    ("/v1/evidence/{id}", GET),
    ("/v1/evidence/{id}/receipt", GET),
    ("/v1/evidence/{id}/entry", GET),
    ("/v1/evidence/{id}/proof", GET),
    ("/v1/operations/{id}", GET),
    ("/v1/cases", POST),
    ("/v1/cases/{id}", GET),
    ("/v1/cases/{id}/evidence", POST),
    ("/v1/webhooks/endpoints", GET_POST),
    ("/v1/webhooks/endpoints/{id}", GET_PATCH_DELETE),
    ("/v1/webhooks/endpoints/{id}/secret", POST),
    ("/v1/webhooks/endpoints/{id}/test", POST),
    ("/v1/webhooks/endpoints/{id}/replay", POST),
    ("/v1/webhooks/deliveries", GET),
    ("/v1/webhooks/deliveries/{id}", GET),
    ("/v1/webhooks/deliveries/{id}/replay", POST),
    ("/v1/verify/batch", POST),
    ("/v1/verify/{algorithm}/{digest}", GET),
    ("/v1/blocks", GET),
    ("/v1/blocks/{height}", GET),
    ("/v1/entries/{id}", GET),
    ("/v1/entries/{index}/receipt", GET),
    ("/v1/entries/{index}/entry", GET),
    ("/v1/entries/{index}/proof", GET),
    ("/v1/search", GET),
    ("/v1/network", GET),
    ("/log/checkpoint", GET),
    ("/log/policy", GET),
    ("/log/policies/{first_size}", GET),
    ("/log/tile/{path}", GET),
    ("/errors", GET),
    ("/errors/{code}", GET),
    ("/openapi.yaml", GET),
    ("/health/live", GET),
    ("/health/ready", GET),
];

/// Begin of the paths that need a key, a database or a queue.
pub(crate) const OF_TENANTS: [&str; 4] = ["/v1/evidence", "/v1/operations", "/v1/cases", "/v1/webhooks"];

/// Registers the routes of the public listener.
pub(crate) fn public(config: &mut ServiceConfig, networks: &[&'static str]) {
    register(config, networks, |_| true);
}

/// Registers the routes of a member's node: those that need nothing but the ledger.
pub(crate) fn reader(config: &mut ServiceConfig, networks: &[&'static str]) {
    register(config, networks, |path| !OF_TENANTS.iter().any(|begin| path.starts_with(begin)));
}

fn register(config: &mut ServiceConfig, networks: &[&'static str], serves: impl Fn(&str) -> bool) {
    for (path, methods) in PUBLIC.iter().filter(|(path, _)| serves(path)) {
        let resource = resource(path, methods, networks);
        config.service(match *path {
            "/v1/evidence" => resource.route(get().to(evidence::list)).route(web::post().to(evidence::create)),
            "/v1/evidence/batch" => resource.route(web::post().to(evidence::create_batch)),
            "/v1/evidence/files" => resource.route(web::post().to(files::create)),
            "/v1/evidence/{id}" => resource.route(get().to(evidence::read)),
            "/v1/evidence/{id}/receipt" => resource.route(get().to(evidence::receipt)),
            "/v1/evidence/{id}/entry" => resource.route(get().to(evidence::entry)),
            "/v1/evidence/{id}/proof" => resource.route(get().to(evidence::proof)),
            "/v1/operations/{id}" => resource.route(get().to(operations::read)),
            "/v1/cases" => resource.route(web::post().to(cases::open)),
            "/v1/cases/{id}" => resource.route(get().to(cases::read)),
            "/v1/cases/{id}/evidence" => resource.route(web::post().to(cases::append)),
            "/v1/webhooks/endpoints" => {
                resource.route(get().to(webhooks::list)).route(web::post().to(webhooks::create))
            }
            "/v1/webhooks/endpoints/{id}" => resource
                .route(get().to(webhooks::read))
                .route(web::patch().to(webhooks::change))
                .route(web::delete().to(webhooks::delete)),
            "/v1/webhooks/endpoints/{id}/secret" => resource.route(web::post().to(webhooks::rotate)),
            "/v1/webhooks/endpoints/{id}/test" => resource.route(web::post().to(webhooks::test)),
            "/v1/webhooks/endpoints/{id}/replay" => resource.route(web::post().to(webhooks::replay_range)),
            "/v1/webhooks/deliveries" => resource.route(get().to(webhooks::deliveries)),
            "/v1/webhooks/deliveries/{id}" => resource.route(get().to(webhooks::delivery)),
            "/v1/webhooks/deliveries/{id}/replay" => resource.route(web::post().to(webhooks::replay)),
            "/v1/verify/batch" => resource.route(web::post().to(verify::look_up_batch)),
            "/v1/verify/{algorithm}/{digest}" => resource.route(get().to(verify::look_up)),
            "/v1/blocks" => resource.route(get().to(explore::blocks)),
            "/v1/blocks/{height}" => resource.route(get().to(explore::block)),
            "/v1/entries/{id}" => resource.route(get().to(explore::entry)),
            "/v1/entries/{index}/receipt" => resource.route(get().to(verify::receipt)),
            "/v1/entries/{index}/entry" => resource.route(get().to(verify::entry)),
            "/v1/entries/{index}/proof" => resource.route(get().to(verify::proof)),
            "/v1/search" => resource.route(get().to(explore::search)),
            "/v1/network" => resource.route(get().to(verify::network)),
            "/log/checkpoint" => resource.route(get().to(log::checkpoint)),
            "/log/policy" => resource.route(get().to(log::policy)),
            "/log/policies/{first_size}" => resource.route(get().to(log::policy_from)),
            "/log/tile/{path}" => resource.route(get().to(log::tile)),
            "/errors" => resource.route(get().to(pages::error_index)),
            "/errors/{code}" => resource.route(get().to(pages::error_page)),
            "/openapi.yaml" => resource.route(get().to(pages::openapi)),
            "/health/live" => resource.route(get().to(health::live)),
            "/health/ready" => resource.route(get().to(health::ready)),
            // A path without handlers answers 405 to everything; a test calls every path.
            _ => resource,
        });
    }
    config.default_service(web::to(not_found));
}

/// Registers the routes of the internal listener.
pub(crate) fn internal(config: &mut ServiceConfig, networks: &[&'static str]) {
    config
        .service(resource("/metrics", GET, networks).route(get().to(health::metrics)))
        .service(resource("/health/live", GET, networks).route(get().to(health::live)))
        .service(resource("/health/ready", GET, networks).route(get().to(health::ready)))
        .default_service(web::to(not_found));
}

fn resource(path: &'static str, methods: &'static [&'static str], networks: &[&'static str]) -> Resource {
    // A tile's path has slashes of its own.
    let pattern = if path == "/log/tile/{path}" { "/log/tile/{path:.*}" } else { path };
    web::resource(pattern)
        .app_data(RouteMetrics::new(path, networks))
        .default_service(web::to(move || std::future::ready(method_not_allowed(methods))))
}

fn get() -> Route {
    web::route().guard(guard::fn_guard(|head| guard::Get().check(head) || guard::Head().check(head)))
}

fn method_not_allowed(methods: &'static [&'static str]) -> Outcome<String> {
    let fault = Fault::new(ProblemCode::MethodNotAllowed).with("allowed", Arg::Names(methods));
    let allow = HeaderValue::try_from(methods.join(", ")).unwrap_or_else(|_| HeaderValue::from_static("GET"));
    Err(Refusal::from(fault).with(ALLOW, allow))
}

async fn not_found(_: HttpRequest) -> Outcome<String> {
    Err(ProblemCode::RouteNotFound.into())
}
