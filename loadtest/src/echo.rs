//! The yardstick: a bare actix-web echo of the same JSON, in a process of its own, pushed by the
//! same generator in the same run.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::ensure;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    push::{Plan, Schedule, body, histogram},
    target::client,
};

/// Longest echo run: it only has to be steady.
const LENGTH_MAX: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Digests {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    digests: Digests,
    size: u64,
    media_type: String,
}

#[derive(Serialize, Deserialize)]
struct Items {
    items: Vec<Item>,
}

/// Serves until killed.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let app = || {
        App::new()
            .app_data(web::JsonConfig::default().limit(4 << 20))
            .route("/one", web::post().to(|item: web::Json<Item>| async { HttpResponse::Ok().json(item) }))
            .route("/many", web::post().to(|items: web::Json<Items>| async { HttpResponse::Ok().json(items) }))
    };
    actix_web::rt::System::new().block_on(HttpServer::new(app).workers(2).bind(address)?.run())?;
    Ok(())
}

/// What the echo did.
pub(crate) struct Echoed {
    pub(crate) per_second: f64,
    pub(crate) latency: Histogram<u64>,
}

/// Pushes the plan's requests at an echo, as fast as the connections allow.
pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Echoed> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut server =
        Command::new(std::env::current_exe()?).args(["--echo", &address.to_string()]).stdin(Stdio::null()).spawn()?;
    let measured = run(plan, address).await;
    server.kill()?;
    server.wait()?;
    measured
}

async fn run(plan: &Plan, address: SocketAddr) -> anyhow::Result<Echoed> {
    let ready = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        ensure!(ready.elapsed() < Duration::from_secs(10), "the echo does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let plan = Plan { rate: 0.0, length: plan.length.min(LENGTH_MAX), ..plan.clone() };
    let (schedule, started) = (Schedule::new(&plan), Instant::now());
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..plan.connections {
        let (schedule, http, records) = (Arc::clone(&schedule), client()?, plan.records);
        workers.spawn(async move {
            let mut latency = histogram()?;
            while let Some((number, due)) = schedule.next().await {
                let (url, body) = if records == 1 {
                    (format!("http://{address}/one"), body(&format!("echo {number}"), None))
                } else {
                    let items: Vec<String> = (0..records)
                        .map(|item| body(&format!("echo {number} {item}"), Some("some-key-of-some-length")))
                        .collect();
                    (format!("http://{address}/many"), format!("{{\"items\":[{}]}}", items.join(",")))
                };
                let answer = http.post(url).header("Content-Type", "application/json").body(body).send().await?;
                answer.error_for_status()?.bytes().await?;
                latency.saturating_record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            anyhow::Ok(latency)
        });
    }
    let mut latency = histogram()?;
    while let Some(one) = workers.join_next().await {
        latency.add(&one??)?;
    }
    let records = latency.len() * plan.records;
    Ok(Echoed { per_second: records as f64 / started.elapsed().as_secs_f64(), latency })
}
