//! A TCP proxy between two nodes that can be slow, or cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Bytes on their way in one direction: what a socket buffer would hold.
const CHUNKS_MAX: usize = 256;

/// One way from a node to another. Dropping it closes everything.
#[derive(Debug)]
pub struct Link {
    cut: watch::Sender<bool>,
    delay_ms: Arc<AtomicU64>,
}

impl Link {
    /// Listens at `from` and passes on to `to`.
    pub async fn open(from: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(from).await.with_context(|| format!("proxy at {from}"))?;
        let (cut, seen) = watch::channel(false);
        let delay_ms = Arc::new(AtomicU64::new(0));
        tokio::spawn(accept(listener, to, seen, Arc::clone(&delay_ms)));
        Ok(Self { cut, delay_ms })
    }

    /// Cuts the way: open connections are reset, new ones refused at once.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Every byte arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, mut cut: watch::Receiver<bool>, delay_ms: Arc<AtomicU64>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The link was dropped.
            Err(_) = cut.wait_for(|_| false) => return,
        };
        let Ok((near, _)) = accepted else { return };
        if *cut.borrow() {
            continue;
        }
        let (cut, delay_ms) = (cut.clone(), Arc::clone(&delay_ms));
        tokio::spawn(async move {
            if let Ok(far) = TcpStream::connect(to).await {
                pass(near, far, cut, delay_ms).await;
            }
        });
    }
}

/// Passes both ways until one end closes or the link is cut.
async fn pass(near: TcpStream, far: TcpStream, mut cut: watch::Receiver<bool>, delay_ms: Arc<AtomicU64>) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = one_way(near_in, far_out, Arc::clone(&delay_ms)) => {}
        () = one_way(far_in, near_out, delay_ms) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

async fn one_way(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay_ms: Arc<AtomicU64>) {
    let (sender, mut arrived) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = arrived.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
