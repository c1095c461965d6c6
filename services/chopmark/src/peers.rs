//! Other members' nodes as a source of tiles for repair, over what they serve to readers.

use std::time::Duration;

use anyhow::Context as _;
use chopmark_node::PeerTiles;
use ledger_core::{entry::ENTRY_BYTES_MAX, tile::TilePath};
use reqwest::{Response, StatusCode, Url, redirect::Policy};
use tokio::runtime::Handle;

use crate::{client::is_local, member::PeerSection};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A full bundle of the longest entries, 4 MiB, over 4 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A full bundle of the longest entries, each behind two bytes of length.
const ANSWER_BYTES_MAX: usize = 256 * (ENTRY_BYTES_MAX + 2);

/// A member's node that serves readers at an address.
pub(crate) struct RemotePeer {
    name: String,
    log: Url,
    http: reqwest::Client,
    runtime: Handle,
}

impl RemotePeer {
    /// Made on a runtime, used beside it: the caller blocks while that runtime drives the connection.
    pub(crate) fn new(peer: &PeerSection) -> anyhow::Result<Self> {
        // Fails only where a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = format!("{}/log/", peer.read_url.trim_end_matches('/'));
        let log = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let log = log.with_context(|| format!("read_url of {} is not the address of a server", peer.domain))?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("chopmark/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(Policy::none());
        if is_local(&log) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("make a client for peers")?;
        Ok(Self { name: peer.domain.clone(), log, http, runtime: Handle::current() })
    }

    async fn fetch(&self, path: &TilePath) -> anyhow::Result<Vec<u8>> {
        let response = self.http.get(self.log.join(&path.path())?).send().await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "it answers HTTP {}", response.status());
        bounded(response).await
    }
}

impl PeerTiles for RemotePeer {
    fn name(&self) -> &str {
        &self.name
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        self.runtime.block_on(self.fetch(path)).map_err(|error| format!("{error:#}"))
    }
}

async fn bounded(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        anyhow::ensure!(body.len() + chunk.len() <= ANSWER_BYTES_MAX, "the answer is longer than any bundle");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use ledger_core::{Hash32, tile::TileKind};

    use super::*;

    /// Answers each connection with one of these, in turn.
    fn serve(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 4096];
                let len = stream.read(&mut head).unwrap();
                assert!(head[..len].starts_with(b"GET /log/tile/entries/x001/234 HTTP/1.1"), "another path");
                // The client hangs up on what is too long.
                let _hung_up = stream.write_all(&answer);
            }
        });
        format!("http://{address}/")
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirects_are_not_followed() {
        let long = [&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &vec![7; ANSWER_BYTES_MAX + 1]].concat();
        let read_url = serve(vec![
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nbytes".to_vec(),
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                .to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\ntorn".to_vec(),
            long,
        ]);
        let peer = PeerSection {
            domain: "court.test".to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            network_key: Hash32::ZERO,
            read_url,
        };
        let peer = RemotePeer::new(&peer).unwrap();
        let path = TilePath { kind: TileKind::Entries, index: 1234, width: 256 };
        let answers = tokio::task::spawn_blocking(move || [(); 5].map(|()| peer.tile(&path))).await.unwrap();
        assert_eq!(answers[0].as_deref(), Ok(&b"bytes"[..]));
        assert!(answers[1].as_ref().is_err_and(|error| error.contains("404")), "{:?}", answers[1]);
        assert!(answers[2].as_ref().is_err_and(|error| error.contains("302")), "{:?}", answers[2]);
        assert!(answers[3].is_err(), "a torn answer");
        assert!(answers[4].as_ref().is_err_and(|error| error.contains("longer than any")), "another end");
    }
}
