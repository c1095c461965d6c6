use crate::world::*;
use chopmark_gateway::GatewayConfig;
use tokio::{io::{AsyncReadExt as _, AsyncWriteExt as _}, net::TcpStream};
fn cpu() -> f64 { let s = std::fs::read_to_string("/proc/self/stat").unwrap(); let f: Vec<&str> = s.rsplit(") ").next().unwrap().split(' ').collect(); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 }
async fn run(address: std::net::SocketAddr, key: String, path: &'static str, n: usize, conns: usize) -> (f64, f64) {
    let c0 = cpu(); let t0 = std::time::Instant::now();
    let tasks: Vec<_> = (0..conns).map(|c| { let key = key.clone(); tokio::spawn(async move {
        let mut s = TcpStream::connect(address).await.unwrap(); s.set_nodelay(true).unwrap();
        let mut buf = vec![0u8; 16384];
        for i in 0..n {
            let body = format!(r#"{{"digests":{{"sha256":"{DIGEST}"}},"size":48213,"external_idx":"{c:03}{i:06}"}}"#).replace(&format!(r#","external_idx":"{c:03}{i:06}""#), "");
            let req = format!("POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: k-{path}-{c:03}-{i:06}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            s.write_all(req.as_bytes()).await.unwrap();
            let n = s.read(&mut buf).await.unwrap();
            assert!(buf.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&buf[..n]));
        }
    }) }).collect();
    for t in tasks { t.await.unwrap(); }
    (t0.elapsed().as_secs_f64() * 1e6 / (n * conns) as f64, (cpu() - c0) * 1e6 / (n * conns) as f64)
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench() {
    let world = Builder { config: GatewayConfig { key_limit: None, ..Default::default() }, ..Builder::default() }.start().await;
    let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); let a = l.local_addr().unwrap();
    #[derive(serde::Deserialize, serde::Serialize)] struct E { digests: std::collections::BTreeMap<String, String>, size: u64 }
    let srv = actix_web::HttpServer::new(|| actix_web::App::new().route("/echo", actix_web::web::post().to(|b: actix_web::web::Json<E>| async move { actix_web::HttpResponse::Ok().json(b.into_inner()) }))).workers(2).disable_signals().listen(l).unwrap().run();
    tokio::spawn(srv);
    for _ in 0..3 {
        println!("echo  {:?}", run(a, world.key.clone(), "/echo", 3000, 16).await);
        println!("post  {:?}", run(world.address, world.key.clone(), "/v1/evidence", 3000, 16).await);
        println!("publications {} messages {} finds {}", world.queue.publications.load(std::sync::atomic::Ordering::Relaxed), world.published(), world.store.finds.load(std::sync::atomic::Ordering::Relaxed));
        world.queue.messages.lock().clear(); world.cache.forget();
    }
}
