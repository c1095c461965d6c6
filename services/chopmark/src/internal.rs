//! The internal listener of roles that serve nothing else: health and metrics.

use std::net::TcpListener;

use actix_web::{App, HttpResponse, HttpServer, web};

use crate::telemetry::Metrics;

/// A process that runs is live: what it waits for, metrics tell.
pub(crate) fn serve(listener: TcpListener, metrics: Metrics) -> anyhow::Result<actix_web::dev::Server> {
    let metrics = web::Data::new(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::clone(&metrics))
            .route(
                "/health/live",
                web::get().to(async || HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))),
            )
            .route("/metrics", web::get().to(render))
    });
    Ok(server.workers(1).disable_signals().shutdown_timeout(1).listen(listener)?.run())
}

async fn render(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}
