//! Other members' nodes as a source of tiles for repair, over what they serve to readers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use chopmark_node::PeerTiles;
use ledger_core::{entry::ENTRY_BYTES_MAX, tile::TilePath};
use reqwest::StatusCode;
use tokio::runtime::Handle;

use crate::network::peering::{Urls, bounded};

/// A full bundle of the longest entries, 4 MiB, over 4 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A full bundle of the longest entries, each behind two bytes of length.
const ANSWER_BYTES_MAX: usize = 256 * (ENTRY_BYTES_MAX + 2);

/// The nodes that this one knows by now, asked in turns.
pub(crate) struct KnownPeers {
    http: reqwest::Client,
    runtime: Handle,
    urls: Urls,
    turn: AtomicUsize,
}

impl KnownPeers {
    /// Made on a runtime, used beside it: the caller blocks while that runtime drives the connection.
    pub(crate) fn new(http: reqwest::Client, urls: Urls) -> Self {
        Self { http, runtime: Handle::current(), urls, turn: AtomicUsize::default() }
    }

    async fn fetch(&self, url: &str, path: &TilePath) -> anyhow::Result<Vec<u8>> {
        let response = self.http.get(format!("{url}/log/{}", path.path())).timeout(ANSWER_TIMEOUT).send().await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "{url} answers HTTP {}", response.status());
        bounded(response, ANSWER_BYTES_MAX).await
    }
}

impl PeerTiles for KnownPeers {
    fn name(&self) -> &str {
        "another node"
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        let urls = self.urls.lock().map(|urls| urls.clone()).unwrap_or_default();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let url = urls.get(turn % urls.len().max(1)).ok_or("no other node is known yet")?;
        self.runtime.block_on(self.fetch(url, path)).map_err(|error| format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    use ledger_core::tile::TileKind;

    use super::*;
    use crate::network::peering;

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
        format!("http://{address}")
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
        let peer = KnownPeers::new(peering::http().unwrap(), Arc::new(Mutex::new(vec![read_url])));
        let path = TilePath { kind: TileKind::Entries, index: 1234, width: 256 };
        let answers = tokio::task::spawn_blocking(move || [(); 5].map(|()| peer.tile(&path))).await.unwrap();
        assert_eq!(answers[0].as_deref(), Ok(&b"bytes"[..]));
        assert!(answers[1].as_ref().is_err_and(|error| error.contains("404")), "{:?}", answers[1]);
        assert!(answers[2].as_ref().is_err_and(|error| error.contains("302")), "{:?}", answers[2]);
        assert!(answers[3].is_err(), "a torn answer");
        assert!(answers[4].as_ref().is_err_and(|error| error.contains("more than")), "another end");
    }
}
