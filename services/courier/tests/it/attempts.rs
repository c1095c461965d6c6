//! One attempt, whatever the receiver does.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chopmark_courier::{
    client::{Attempt, Client, ClientSettings, Message, Outcome, Resolve},
    egress::Egress,
    sign::{Secret, signature},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use crate::receiver::{Manner, Receiver};

const BODY: &str = r#"{"type":"evidence.committed"}"#;

fn own_machine() -> Arc<Egress> {
    Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]))
}

fn settings() -> ClientSettings {
    ClientSettings { connect_timeout: Duration::from_millis(500), timeout: Duration::from_secs(1), roots: Vec::new() }
}

fn message() -> Message<'static> {
    Message { id: "evt_a", timestamp: 1_795_334_400, signature: "v1,AAAA".to_owned(), body: BODY.into() }
}

async fn post(url: &str) -> Attempt {
    let client = Client::new(own_machine(), &settings()).unwrap();
    client.post(&own_machine().parse(url).unwrap(), &message()).await
}

async fn attempt(manner: Manner) -> Attempt {
    let receiver = Receiver::start(manner).await;
    post(&receiver.url()).await
}

#[tokio::test]
async fn a_message_is_sent_as_standard_webhooks_says() {
    let receiver = Receiver::start(Manner::status("204 No Content")).await;
    let sent = post(&receiver.url()).await;
    assert_eq!((sent.outcome, sent.status), (Outcome::Delivered, Some(204)));
    let requests = receiver.requests.lock().await;
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    for header in [
        "content-type: application/json",
        "webhook-id: evt_a",
        "webhook-timestamp: 1795334400",
        "webhook-signature: v1,aaaa",
        "user-agent: chopmark-webhooks/",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert_eq!(body, BODY);
}

#[tokio::test]
async fn the_status_decides() {
    for (status, outcome) in [
        ("200 OK", Outcome::Delivered),
        ("202 Accepted", Outcome::Delivered),
        ("301 Moved Permanently", Outcome::Failed),
        ("400 Bad Request", Outcome::Failed),
        ("404 Not Found", Outcome::Failed),
        ("410 Gone", Outcome::Gone),
        ("429 Too Many Requests", Outcome::Failed),
        ("500 Internal Server Error", Outcome::Failed),
        ("503 Service Unavailable", Outcome::Failed),
    ] {
        let sent = attempt(Manner::status(status)).await;
        assert_eq!(sent.outcome, outcome, "{status}");
        assert!(sent.detail.starts_with(&status[..3]), "{}", sent.detail);
    }
    let asked = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(attempt(Manner::Answers(asked.to_owned())).await.retry_after, Some(Duration::from_secs(120)));
    let date = "HTTP/1.1 503 No\r\nretry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(attempt(Manner::Answers(date.to_owned())).await.retry_after, None);
}

#[tokio::test]
async fn an_attempt_ends_whatever_the_receiver_does() {
    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const NO: &str = "HTTP/1.1 500 No\r\n\r\n";
    for (manner, outcome, status) in [
        (Manner::Hangs, Outcome::Failed, None),
        (Manner::Resets, Outcome::Failed, None),
        (Manner::Answers(String::new()), Outcome::Failed, None),
        (Manner::Answers("hello\r\n\r\n".to_owned()), Outcome::Failed, None),
        (Manner::Drips("HTTP/1.1 200 OK\r\nx-slow: "), Outcome::Failed, None),
        (Manner::Floods("HTTP/1.1 200 OK\r\nx-long: "), Outcome::Failed, None),
        (Manner::Drips(OK), Outcome::Delivered, Some(200)),
        (Manner::Floods(OK), Outcome::Delivered, Some(200)),
        (Manner::Floods(NO), Outcome::Failed, Some(500)),
        (Manner::Drips(NO), Outcome::Failed, Some(500)),
        (Manner::Drips("HTTP/1.1 410 Gone\r\n\r\n"), Outcome::Gone, Some(410)),
    ] {
        let sent = attempt(manner.clone()).await;
        assert_eq!((sent.outcome, sent.status), (outcome, status), "{manner:?}: {}", sent.detail);
        assert!(!sent.detail.is_empty() || outcome == Outcome::Delivered, "{manner:?}");
        assert!(sent.detail.chars().count() <= 300 && !sent.detail.contains(char::is_control));
    }
    // Nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sent = post(&format!("http://{closed}/")).await;
    assert_eq!((sent.outcome, sent.status), (Outcome::Failed, None));
    assert!(sent.detail.starts_with("could not connect"), "{}", sent.detail);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inside = Receiver::start(Manner::status("200 OK")).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("HTTP/1.1 {status}\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", inside.url());
        let sent = attempt(Manner::Answers(location)).await;
        assert_eq!(sent.outcome, Outcome::Failed);
        assert!(sent.detail.contains("redirects are not followed"), "{}", sent.detail);
    }
    assert!(inside.requests.lock().await.is_empty());
}

/// Gives one list of addresses after the other, and then the last one again.
struct Changing(Vec<Vec<IpAddr>>, AtomicUsize);

#[async_trait]
impl Resolve for Changing {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        let at = self.1.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.get(at).or(self.0.last()).cloned().unwrap_or_default())
    }
}

#[tokio::test]
async fn a_name_is_judged_by_all_of_its_addresses_at_every_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 16]).await;
        }
    });
    // One that is not public either, but allowed here, so that nothing leaves this machine.
    let public = IpAddr::from([127, 0, 0, 2]);
    let (loopback, metadata) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([169, 254, 169, 254]));
    let egress = Arc::new(Egress::new(vec!["127.0.0.2/32".parse().unwrap()]));
    for addresses in [vec![loopback], vec![public, loopback], vec![metadata, public], vec!["::1".parse().unwrap()]] {
        let resolver = Arc::new(Changing(vec![addresses.clone()], AtomicUsize::new(0)));
        let client = Client::with_resolver(Arc::clone(&egress), &settings(), resolver).unwrap();
        let sent = client.post(&egress.parse("https://hooks.shop.cn:8443/").unwrap(), &message()).await;
        assert_eq!(sent.outcome, Outcome::Refused, "{addresses:?}: {}", sent.detail);
    }
    // Rebinding: public while the URL was registered and at the first attempt, the machine itself afterwards.
    let resolver = Arc::new(Changing(vec![vec![public], vec![loopback]], AtomicUsize::new(0)));
    let client = Client::with_resolver(Arc::clone(&egress), &settings(), resolver).unwrap();
    let url = egress.parse("https://hooks.shop.cn:8443/").unwrap();
    assert_eq!(client.post(&url, &message()).await.outcome, Outcome::Failed, "nothing is there");
    assert_eq!(client.post(&url, &message()).await.outcome, Outcome::Refused);
    assert_eq!(connections.load(Ordering::Relaxed), 0);
    // The listener would have noticed.
    drop(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    while connections.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_address_that_became_forbidden_is_not_sent_to() {
    let receiver = Receiver::start(Manner::status("200 OK")).await;
    let url = own_machine().parse(&receiver.url()).unwrap();
    let client = Client::new(Arc::new(Egress::default()), &settings()).unwrap();
    assert_eq!(client.post(&url, &message()).await.outcome, Outcome::Refused);
    assert!(receiver.requests.lock().await.is_empty());
}

#[tokio::test]
async fn certificates_are_checked() {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.key_pair.serialize_der());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    for listener in [first, second] {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            }
        });
    }
    let url = |address: &str| own_machine().parse(&format!("https://{address}:{port}/")).unwrap();
    let unknown = Client::new(own_machine(), &settings()).unwrap();
    let sent = unknown.post(&url("127.0.0.1"), &message()).await;
    assert_eq!(sent.outcome, Outcome::Failed);
    assert!(sent.detail.contains("certificate"), "{}", sent.detail);
    let roots = vec![certified.cert.pem().into_bytes()];
    let trusting = Client::new(own_machine(), &ClientSettings { roots, ..settings() }).unwrap();
    assert_eq!(trusting.post(&url("127.0.0.1"), &message()).await.outcome, Outcome::Delivered);
    // The same server under another name than that in its certificate.
    let sent = trusting.post(&url("127.0.0.2"), &message()).await;
    assert_eq!(sent.outcome, Outcome::Failed);
    assert!(sent.detail.contains("not valid for name"), "{}", sent.detail);
}

#[test]
fn signatures_are_over_what_is_sent() {
    let secret = Secret::from_bytes(&[7; 32]).unwrap();
    let signed = signature(&[&secret], "evt_a", 1, BODY.as_bytes());
    assert_ne!(signed, signature(&[&secret], "evt_b", 1, BODY.as_bytes()));
    assert_ne!(signed, signature(&[&secret], "evt_a", 2, BODY.as_bytes()));
    assert_ne!(signed, signature(&[&secret], "evt_a", 1, b"{}"));
}
