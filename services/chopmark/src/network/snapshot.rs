//! `chopmark network snapshot` and `restore`: every decided block of a network in one file, and a node
//! made from it. A snapshot needs no trust: whoever restores it executes every block again and checks
//! certificates and checkpoints from the genesis on.
//!
//! File: `CMSNAP01`, the genesis behind its length, then for each block a 1, the block and its checkpoint
//! (empty where there is none) behind their lengths; then a 0 and the number of blocks (u64). Integers
//! are big-endian, lengths u32.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, bail, ensure};
use chopmark_node::{BlockSource, Followed, NetworkConfig, NodeConfig, POOL_BYTES_MAX, keys::NodeKeys};
use ledger_core::genesis::Genesis;
use tokio::sync::watch;

use super::peering;
use crate::{
    cli::{NetworkRestoreArgs, NetworkSnapshotArgs},
    member::MemberFolder,
    output::{Out, plain, shown},
    unfinished::Unfinished,
};

const MAGIC: &[u8; 8] = b"CMSNAP01";
/// Blocks are read so many at a time.
const GROUP: usize = 64;

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_be_bytes())?;
    out.write_all(bytes)
}

fn read_bytes(from: &mut impl Read, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len))?;
    ensure!(len <= max, "a length of {len} bytes");
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) async fn snapshot(args: &NetworkSnapshotArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let (http, url) = (peering::http()?, &args.from);
    let (unfinished, file) = Unfinished::file(&args.file)?;
    let genesis = peering::genesis(&http, url).await?;
    let mut file = BufWriter::new(file);
    file.write_all(MAGIC)?;
    write_bytes(&mut file, &genesis.encode())?;
    let mut height = 0;
    loop {
        let blocks = peering::raw_blocks(&http, url, height + 1, peering::BLOCKS_TIMEOUT).await?;
        if blocks.is_empty() {
            break;
        }
        for (block, checkpoint) in blocks {
            file.write_all(&[1])?;
            write_bytes(&mut file, &block)?;
            write_bytes(&mut file, checkpoint.as_bytes())?;
            height += 1;
        }
    }
    file.write_all(&[0])?;
    file.write_all(&height.to_be_bytes())?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    unfinished.finish()?;
    writeln!(out, "{height} blocks of {} in {}, chain {}", genesis.origin, shown(&args.file), genesis.chain_id())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A snapshot that is being read.
struct Snapshot {
    file: Mutex<Reading>,
}

struct Reading {
    from: BufReader<File>,
    height: u64,
    /// Why nothing more comes: the end, or what is wrong.
    ended: Option<Result<(), String>>,
}

impl Snapshot {
    fn open(path: &Path) -> anyhow::Result<(Self, Genesis)> {
        let file = File::open(path).with_context(|| format!("open {}", shown(path)))?;
        let mut from = BufReader::new(file);
        let mut magic = [0; 8];
        from.read_exact(&mut magic)
            .ok()
            .filter(|()| magic == *MAGIC)
            .with_context(|| format!("{} is no snapshot", shown(path)))?;
        let genesis = read_bytes(&mut from, 64 << 10).and_then(|bytes| Ok(Genesis::parse(&bytes)?));
        let genesis = genesis.with_context(|| format!("the genesis in {}", shown(path)))?;
        Ok((Self { file: Mutex::new(Reading { from, height: 0, ended: None }) }, genesis))
    }

    /// Whether the file was read to its proper end.
    fn end(&self) -> anyhow::Result<()> {
        match self.file.lock().ok().and_then(|reading| reading.ended.clone()) {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => bail!("the snapshot is damaged: {}", plain(&reason)),
            None => bail!("the snapshot was not read to its end"),
        }
    }
}

impl Reading {
    /// The next block; `None` at the end of the file.
    fn next(&mut self) -> anyhow::Result<Option<Followed>> {
        let mut tag = [0];
        self.from.read_exact(&mut tag)?;
        if tag == [0] {
            let mut count = [0; 8];
            self.from.read_exact(&mut count)?;
            ensure!(u64::from_be_bytes(count) == self.height, "it names another number of blocks than it has");
            return Ok(None);
        }
        ensure!(tag == [1], "an unknown tag");
        let block = read_bytes(&mut self.from, peering::BLOCKS_BYTES_MAX)?;
        let checkpoint = String::from_utf8(read_bytes(&mut self.from, 1 << 20)?)?;
        self.height += 1;
        peering::followed(&block, checkpoint).map(Some)
    }
}

impl BlockSource for Snapshot {
    fn blocks(&self, height: u64) -> Vec<Followed> {
        let Ok(mut reading) = self.file.lock() else { return Vec::new() };
        let mut blocks = Vec::new();
        while reading.ended.is_none() && blocks.len() < GROUP {
            match reading.next() {
                // What the node has already.
                Ok(Some(block)) if block.proposal.header.height < height => {}
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => reading.ended = Some(Ok(())),
                Err(error) => {
                    let reason = format!("after block {}: {error:#}", reading.height);
                    reading.ended = Some(Err(reason));
                }
            }
        }
        blocks
    }

    fn blame(&self, reason: &str) {
        tracing::error!(reason, "the snapshot does not hold");
    }
}

pub(crate) async fn restore(args: &NetworkRestoreArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let folder = MemberFolder(args.data.clone());
    let file = folder.read()?;
    let guard = folder.guard(&file)?;
    let (snapshot, genesis) = Snapshot::open(&args.snapshot)?;
    let chain = genesis.chain_id();
    if let Some(expected) = args.chain {
        ensure!(chain == expected, "the snapshot is of chain {chain}, not of the one that was asked for");
    }
    if !folder.node().exists() {
        chopmark_node::init_again(&folder.node(), &guard, &genesis)?;
    }
    let config = NodeConfig {
        data: folder.node(),
        guard,
        keys: NodeKeys::load(&folder.keys())?,
        domain: file.node.domain.clone(),
        clock: folder.clock(&file)?,
        pool_bytes_max: POOL_BYTES_MAX,
        network: NetworkConfig { listen: file.node.listen, peers: Vec::new().into() },
        source: None,
        peer_tiles: Vec::new(),
        // No signal is caught here: what was restored so far is taken up the next time.
        stop: watch::Sender::new(false).subscribe(),
    };
    let snapshot = Arc::new(snapshot);
    let source: Arc<dyn BlockSource> = Arc::clone(&snapshot) as Arc<dyn BlockSource>;
    let restored = tokio::task::spawn_blocking(move || chopmark_node::restore(config, chain, source)).await?;
    let (height, size) = restored?;
    snapshot.end()?;
    writeln!(out, "height {height}, {} entries, every block executed and checked", size.0)?;
    writeln!(out, "Run it:  chopmark node --data {}", shown(&args.data))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
