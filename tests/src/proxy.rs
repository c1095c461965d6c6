//! A TCP proxy between two nodes that can be slow, uneven, silent, reset or cut.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Bytes on their way in one direction: what a socket buffer would hold.
const CHUNKS_MAX: usize = 256;

/// Which of the two directions of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the node that connects.
    Forth = 0,
    /// To the node that connects.
    Back = 1,
}

#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    cut: bool,
    delay: Duration,
    /// Up to this much is added to the delay of each chunk.
    jitter: Duration,
    /// By direction: what arrives is held back.
    stalled: [bool; 2],
    resets: u64,
    /// By the direction that starts at an end: how often that end has closed what was open.
    left: [u64; 2],
}

/// A link between two nodes. Dropping it closes everything.
#[derive(Debug)]
pub struct Link {
    /// Where it listens.
    pub address: SocketAddr,
    conditions: watch::Sender<Conditions>,
}

impl Link {
    /// Listens at `from` and passes on to `to`. `seed` decides the jitter.
    pub async fn open(from: SocketAddr, to: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(from).await.with_context(|| format!("proxy at {from}"))?;
        let (conditions, seen) = watch::channel(Conditions::default());
        tokio::spawn(accept(listener, to, seen, ChaCha8Rng::seed_from_u64(seed)));
        Ok(Self { address: from, conditions })
    }

    /// Cuts the link: open connections end, new ones are refused at once.
    pub fn cut(&self, cut: bool) {
        self.conditions.send_modify(|conditions| conditions.cut = cut);
    }

    /// Every byte arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.conditions.send_modify(|conditions| conditions.delay = delay);
    }

    /// Every chunk arrives up to this much later, each by another time; the order stays.
    pub fn jitter(&self, jitter: Duration) {
        self.conditions.send_modify(|conditions| conditions.jitter = jitter);
    }

    /// Holds back what goes in one direction, as a network that loses every packet does: nobody is
    /// told, and what was sent arrives once it ends.
    pub fn stall(&self, direction: Direction, stalled: bool) {
        self.conditions.send_modify(|conditions| conditions.stalled[direction as usize] = stalled);
    }

    /// Closes the end of every open connection where this direction starts. The other end is not told:
    /// for it the connection goes on, and is silent.
    pub fn leave(&self, direction: Direction) {
        self.conditions.send_modify(|conditions| conditions.left[direction as usize] += 1);
    }

    /// Resets every open connection (RST) in the middle of the next chunk that it carries.
    pub fn reset(&self) {
        self.conditions.send_modify(|conditions| conditions.resets += 1);
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    mut conditions: watch::Receiver<Conditions>,
    mut random: ChaCha8Rng,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The link was dropped.
            Err(_) = conditions.wait_for(|_| false) => return,
        };
        let Ok((near, _)) = accepted else { return };
        if conditions.borrow().cut {
            continue;
        }
        let (conditions, seeds) = (conditions.clone(), [random.random(), random.random()]);
        tokio::spawn(async move {
            if let Ok(far) = TcpStream::connect(to).await {
                pass(near, far, conditions, seeds).await;
            }
        });
    }
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Closed,
    Reset,
    /// At the end where this direction starts.
    Left(Direction),
}

/// Passes both ways until one end closes, or the link is cut or reset.
async fn pass(near: TcpStream, far: TcpStream, mut conditions: watch::Receiver<Conditions>, seeds: [u64; 2]) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let way = |direction, seed| Way {
        direction,
        conditions: conditions.clone(),
        random: ChaCha8Rng::seed_from_u64(seed),
        resets_before: conditions.borrow().resets,
    };
    let (forth, back) = (way(Direction::Forth, seeds[0]), way(Direction::Back, seeds[1]));
    let mut ends = (near_in, near_out, far_in, far_out);
    let (mut leaving, left_before) = (conditions.clone(), conditions.borrow().left);
    let ended = tokio::select! {
        ended = forth.pass(&mut ends.0, &mut ends.3) => ended,
        ended = back.pass(&mut ends.2, &mut ends.1) => ended,
        _ = conditions.wait_for(|conditions| conditions.cut) => Ended::Closed,
        left = leaving.wait_for(|conditions| conditions.left != left_before) => left.map_or(Ended::Closed, |left| {
            Ended::Left(if left.left[0] == left_before[0] { Direction::Back } else { Direction::Forth })
        }),
    };
    if let Ended::Left(direction) = ended {
        let (near, far) = ((ends.0, ends.1), (ends.2, ends.3));
        let (closed, _held) = if direction == Direction::Forth { (near, far) } else { (far, near) };
        drop(closed);
        let _cut_or_gone = conditions.wait_for(|conditions| conditions.cut).await;
        return;
    }
    if ended == Ended::Reset {
        // Closing a socket that must not linger sends RST, and forgets what was not sent yet.
        for socket in [ends.0.as_ref(), ends.2.as_ref()] {
            let _closed_already = socket.set_zero_linger();
        }
    }
}

struct Way {
    direction: Direction,
    conditions: watch::Receiver<Conditions>,
    random: ChaCha8Rng,
    resets_before: u64,
}

impl Way {
    async fn pass(self, from: &mut tcp::OwnedReadHalf, to: &mut tcp::OwnedWriteHalf) -> Ended {
        let Self { direction, conditions, mut random, resets_before } = self;
        let mut stalled = conditions.clone();
        let (sender, mut arrived) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
        let read = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let Conditions { delay, jitter, .. } = *conditions.borrow();
                let due = Instant::now() + delay + jitter.mul_f64(random.random());
                if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                    return Ended::Closed;
                }
            }
            Ended::Closed
        };
        let write = async {
            while let Some((due, bytes)) = arrived.recv().await {
                sleep_until(due).await;
                let held = stalled.wait_for(|conditions| !conditions.stalled[direction as usize]).await;
                let reset = held.is_ok_and(|conditions| conditions.resets > resets_before);
                let sent = if reset { &bytes[..bytes.len() / 2] } else { &bytes[..] };
                let written = to.write_all(sent).await;
                if reset {
                    return Ended::Reset;
                }
                if written.is_err() {
                    return Ended::Closed;
                }
            }
            Ended::Closed
        };
        tokio::select! {
            ended = read => ended,
            ended = write => ended,
        }
    }
}
