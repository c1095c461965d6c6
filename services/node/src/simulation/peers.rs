//! Where a simulated node asks for tiles: another node, as far as it is reached, or one that lies.

use ledger_core::tile::TilePath;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{NodeHandle, PeerTiles};

/// Another node as it is in one moment.
pub(super) struct SimulatedPeer {
    name: String,
    node: Option<NodeHandle>,
    lies: bool,
    random: Mutex<ChaCha8Rng>,
}

impl SimulatedPeer {
    /// Without a node it is out of reach.
    pub(super) fn new(name: String, node: Option<NodeHandle>, lies: bool, seed: u64) -> Self {
        Self { name, node, lies, random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)) }
    }
}

impl PeerTiles for SimulatedPeer {
    fn name(&self) -> &str {
        &self.name
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        let node = self.node.as_ref().ok_or("out of reach")?;
        let ask = |path| node.tile(path).map_err(|error| error.to_string())?.ok_or_else(|| "not there".to_owned());
        let random = &mut *self.random.lock();
        match if self.lies { random.random_range(0..5) } else { 0 } {
            0 => ask(*path),
            1 => ask(TilePath { index: path.index ^ 1, ..*path }),
            2 => Ok(vec![0; random.random_range(0..20_000)]),
            _ => {
                let mut bytes = ask(*path)?;
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
                Ok(bytes)
            }
        }
    }
}
