//! Health and metrics.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    ProblemCode,
    network::{HealthCheck, HealthStatus, HealthView},
};
use chopmark_domain::{Services, ports::PortResult};
use futures_util::future::join_all;
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
    let of = |shared| async move { (shared, Wellness::of(shared).await) };
    let found = join_all(shared.networks().map(of)).await;
    // Both networks are in one database.
    let database = found.iter().all(|(_, wellness)| wellness.database);
    let mut checks = Vec::new();
    for (of, wellness) in &found {
        let beside = of.network != shared.network;
        let name = |part: &str| if beside { format!("{}/{part}", of.network) } else { part.to_owned() };
        if let Some(queue) = wellness.queue {
            if !beside {
                checks.push(check(name("database"), database, ProblemCode::DatabaseUnavailable));
            }
            checks.push(check(name("ledger"), wellness.ledger, ProblemCode::LedgerUnavailable));
            checks.push(check(name("queue"), queue, ProblemCode::QueueUnavailable));
        } else {
            checks.push(check(name("ledger"), wellness.ledger, ProblemCode::LedgerUnavailable));
        }
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
    for shared in shared.networks() {
        let Wellness { database, ledger, queue } = Wellness::of(shared).await;
        let up = |dependency: &'static str, well: bool| {
            let up = if well { 1.0 } else { 0.0 };
            metrics::gauge!(
                "chopmark_gateway_dependency_up", "network" => shared.network, "dependency" => dependency
            )
            .set(up);
        };
        up("ledger", ledger);
        if let Some(queue) = queue {
            up("database", database);
            up("queue", queue);
        }
    }
    let rendered = (shared.metrics)();
    Ok(text("text/plain; version=0.0.4; charset=utf-8", "no-store", rendered))
}

/// What answers of a network's dependencies.
struct Wellness {
    database: bool,
    ledger: bool,
    /// `None` of a member's node, which has neither queue nor database.
    queue: Option<bool>,
}

impl Wellness {
    async fn of(shared: &Shared) -> Self {
        let services = shared.gateway_services();
        let (database, ledger) = tokio::join!(database(services), ledger(shared));
        Self { database, ledger, queue: services.map(|services| services.notary.queue_is_well()) }
    }
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

fn check(name: String, well: bool, code: ProblemCode) -> HealthCheck {
    HealthCheck {
        name,
        status: if well { HealthStatus::Ok } else { HealthStatus::Unavailable },
        code: (!well).then(|| code.as_str().to_owned()),
    }
}
