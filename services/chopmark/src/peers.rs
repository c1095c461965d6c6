//! Other members' nodes as a source of tiles for repair, over what they serve to readers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use chopmark_node::PeerTiles;
use ledger_core::{entry::ENTRY_BYTES_MAX, tile::TilePath};
use reqwest::StatusCode;
use tokio::{runtime::Handle, sync::watch};

use crate::network::peering::{Urls, bounded};

/// A full bundle of the longest entries, 4 MiB, over 4 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A full bundle of the longest entries, each behind two bytes of length.
const ANSWER_BYTES_MAX: usize = 256 * (ENTRY_BYTES_MAX + 2);

/// The nodes that this one knows by now. One is asked until it does not help: whoever had a tile has
/// the others too, and what belongs together comes from one node.
pub(crate) struct KnownPeers {
    http: reqwest::Client,
    runtime: Handle,
    urls: Urls,
    turn: AtomicUsize,
    stop: watch::Receiver<bool>,
}

impl KnownPeers {
    /// Made on a runtime, used beside it: the caller blocks while that runtime drives the connection,
    /// until `stop` turns true.
    pub(crate) fn new(http: reqwest::Client, urls: Urls, stop: watch::Receiver<bool>) -> Self {
        Self { http, runtime: Handle::current(), urls, turn: AtomicUsize::default(), stop }
    }

    async fn fetch_unless_stopped(&self, url: &str, path: &TilePath) -> anyhow::Result<Vec<u8>> {
        let mut stop = self.stop.clone();
        tokio::select! {
            answer = self.fetch(url, path) => answer,
            // Where nobody can say it any more, it is not said.
            Ok(_) = stop.wait_for(|stop| *stop) => anyhow::bail!("this node stops"),
        }
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
        let turn = self.turn.load(Ordering::Relaxed);
        let url = urls.get(turn % urls.len().max(1)).ok_or("no other node is known yet")?;
        let answer = self.runtime.block_on(self.fetch_unless_stopped(url, path));
        answer.inspect_err(|_| self.blame()).map_err(|error| format!("{error:#}"))
    }

    fn blame(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
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

    const SOUND: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nbytes";

    #[tokio::test]
    async fn a_node_that_is_away_keeps_nobody_from_being_asked_for_everything() {
        let away = "http://127.0.0.1:1".to_owned();
        let urls = Arc::new(Mutex::new(vec![away, serve(vec![SOUND.to_vec(); 3])]));
        let stop = watch::Sender::new(false);
        let peer = KnownPeers::new(peering::http().unwrap(), urls, stop.subscribe());
        let path = TilePath { kind: TileKind::Entries, index: 1234, width: 256 };
        let (answers, blamed) = tokio::task::spawn_blocking(move || {
            let answers = [(); 4].map(|()| peer.tile(&path).is_ok());
            peer.blame();
            (answers, peer.tile(&path).is_ok())
        })
        .await
        .unwrap();
        assert_eq!((answers, blamed), ([false, true, true, true], false));
    }

    #[tokio::test]
    async fn a_node_that_never_answers_is_not_waited_for_at_the_end() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let urls = Arc::new(Mutex::new(vec![format!("http://{}", silent.local_addr().unwrap())]));
        let stop = watch::Sender::new(false);
        let peer = KnownPeers::new(peering::http().unwrap(), urls, stop.subscribe());
        let path = TilePath { kind: TileKind::Entries, index: 1234, width: 256 };
        let asked = tokio::task::spawn_blocking(move || peer.tile(&path));
        let _connected = tokio::task::spawn_blocking(move || silent.accept()).await.unwrap().unwrap();
        stop.send_replace(true);
        assert_eq!(asked.await.unwrap(), Err("this node stops".to_owned()));
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirects_are_not_followed() {
        let long = [&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &vec![7; ANSWER_BYTES_MAX + 1]].concat();
        let read_url = serve(vec![
            SOUND.to_vec(),
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                .to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\ntorn".to_vec(),
            long,
        ]);
        let (stop, urls) = (watch::Sender::new(false), Arc::new(Mutex::new(vec![read_url])));
        let peer = KnownPeers::new(peering::http().unwrap(), urls, stop.subscribe());
        let path = TilePath { kind: TileKind::Entries, index: 1234, width: 256 };
        let answers = tokio::task::spawn_blocking(move || [(); 5].map(|()| peer.tile(&path))).await.unwrap();
        assert_eq!(answers[0].as_deref(), Ok(&b"bytes"[..]));
        assert!(answers[1].as_ref().is_err_and(|error| error.contains("404")), "{:?}", answers[1]);
        assert!(answers[2].as_ref().is_err_and(|error| error.contains("302")), "{:?}", answers[2]);
        assert!(answers[3].is_err(), "a torn answer");
        assert!(answers[4].as_ref().is_err_and(|error| error.contains("more than")), "another end");
    }
}
