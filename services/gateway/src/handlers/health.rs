//! Health and metrics.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    ProblemCode,
    network::{HealthCheck, HealthStatus, HealthView},
};
use chopmark_domain::{Services, ports::PortResult};
use tokio::time::timeout;

use super::answer::text;
use crate::{auth::shared, refusal::Outcome, render::json, state::Shared};

/// A dependency that takes longer does not answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the process runs
#[utoipa::path(
    get, path = "/health/live", operation_id = "health_live", tag = "health",
    responses((status = 200, description = "It does.", body = HealthView)),
)]
pub(crate) async fn live() -> Outcome<HttpResponse> {
    json(StatusCode::OK, &HealthView { status: HealthStatus::Ok, checks: Vec::new() })
}

/// Whether requests should be sent here
#[utoipa::path(
    get, path = "/health/ready", operation_id = "health_ready", tag = "health",
    responses(
        (status = 200, description = "They should; `degraded` when some of them answer 503.", body = HealthView),
        (status = 503, description = "They should not.", body = HealthView),
    ),
)]
pub(crate) async fn ready(req: HttpRequest) -> Outcome<HttpResponse> {
    let shared = shared(&req)?;
    let services = shared.gateway_services();
    let (database, ledger) = tokio::join!(database(services), ledger(shared));
    let mut checks = vec![check("ledger", ledger, ProblemCode::LedgerUnavailable)];
    if let Some(services) = services {
        checks.insert(0, check("database", database, ProblemCode::DatabaseUnavailable));
        checks.push(check("queue", services.notary.queue_is_well(), ProblemCode::QueueUnavailable));
    }
    let well = checks.iter().filter(|check| check.status == HealthStatus::Ok).count();
    let status = match well {
        _ if shared.is_draining() || !database => HealthStatus::Unavailable,
        well if well == checks.len() => HealthStatus::Ok,
        _ => HealthStatus::Degraded,
    };
    let code = if status == HealthStatus::Unavailable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(code, &HealthView { status, checks })
}

/// Metrics in Prometheus' text format, with what answers right now; on the internal listener only.
pub(crate) async fn metrics(req: HttpRequest) -> Outcome<HttpResponse> {
    let shared = shared(&req)?;
    let services = shared.gateway_services();
    let (database, ledger) = tokio::join!(database(services), ledger(shared));
    let up = |dependency: &'static str, well: bool| {
        let up = if well { 1.0 } else { 0.0 };
        let network = shared.network.clone();
        metrics::gauge!("chopmark_gateway_dependency_up", "network" => network, "dependency" => dependency).set(up);
    };
    up("ledger", ledger);
    if let Some(services) = services {
        up("database", database);
        up("queue", services.notary.queue_is_well());
    }
    let rendered = (shared.metrics)();
    Ok(text("text/plain; version=0.0.4; charset=utf-8", "no-store", rendered))
}

/// A member's node has none to fail.
async fn database(services: Option<&Services>) -> bool {
    match services {
        Some(services) => answers(services.ports().projection.cursor(&services.network)).await,
        None => true,
    }
}

async fn ledger(shared: &Shared) -> bool {
    shared.ledger.is_well() && timeout(CHECK_TIMEOUT, shared.ledger.checkpoint()).await.is_ok_and(|read| read.is_ok())
}

async fn answers<T>(call: impl Future<Output = PortResult<T>>) -> bool {
    timeout(CHECK_TIMEOUT, call).await.is_ok_and(|result| result.is_ok())
}

fn check(name: &str, well: bool, code: ProblemCode) -> HealthCheck {
    HealthCheck {
        name: name.to_owned(),
        status: if well { HealthStatus::Ok } else { HealthStatus::Unavailable },
        code: (!well).then(|| code.as_str().to_owned()),
    }
}
