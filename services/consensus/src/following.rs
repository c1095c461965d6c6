//! Following without a vote: decided blocks and their checkpoints as members serve them to
//! everybody. Nothing is believed: certificate, execution and checkpoint are checked here.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ledger_core::vote::Certificate;

use crate::{Application, Consensus, EngineError, Failure, Proposal, STARTED};

/// Time between two questions while there is nothing new.
const PAUSE: Duration = Duration::from_millis(250);
/// Questions in a row without a new block, after which there is none: each may go to others.
const EMPTY_ANSWERS: u32 = 8;
/// How soon a node that is to stop sees it.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// A decided block as somebody serves it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Header and batch.
    pub proposal: Proposal,
    /// Who decided it.
    pub certificate: Certificate,
    /// The first checkpoint of exactly the log's size after this block, where there is one.
    pub checkpoint: Option<String>,
}

/// Where decided blocks come from.
pub trait BlockSource: Send + Sync {
    /// Blocks from `height` on, in order; none where nobody asked has more. Takes seconds at most.
    fn blocks(&self, height: u64) -> Vec<Followed>;

    /// What the last call brought does not hold: somebody else is to be asked.
    fn blame(&self, reason: &str);
}

/// Follows as long as the node is to.
pub struct Following {
    /// Who is asked.
    pub source: Arc<dyn BlockSource>,
}

impl Following {
    /// Takes over all that the source has now, whoever this node is. An error names the first block that
    /// does not hold.
    pub fn catch_up(&mut self, application: &mut dyn Application) -> Result<(), Failure> {
        loop {
            let blocks = self.source.blocks(application.height());
            if blocks.is_empty() {
                return Ok(());
            }
            for block in blocks {
                let height = application.height();
                take(application, block)?.map_err(|reason| EngineError(format!("at height {height}: {reason}")))?;
                application.outbox();
            }
        }
    }
}

impl Consensus for Following {
    fn run(&mut self, application: &mut dyn Application) -> Result<(), Failure> {
        let mut empty = 0;
        while !application.is_stopping() && application.follows() {
            application.tick(STARTED.elapsed())?;
            // Whoever follows says nothing to the members.
            application.outbox();
            let blocks = self.source.blocks(application.height());
            if blocks.is_empty() {
                empty += 1;
                if empty >= EMPTY_ANSWERS {
                    application.caught_up();
                }
                rest(application);
            } else {
                empty = 0;
            }
            for block in blocks {
                if application.is_stopping() {
                    break;
                }
                if let Err(reason) = take(application, block)? {
                    self.source.blame(reason);
                    break;
                }
            }
        }
        Ok(())
    }
}

fn rest(application: &dyn Application) {
    let until = Instant::now() + PAUSE;
    while !application.is_stopping() && Instant::now() < until {
        thread::sleep(STOP_INTERVAL);
    }
}

/// Takes over a block, or says what is wrong with it.
fn take(application: &mut dyn Application, block: Followed) -> Result<Result<(), &'static str>, Failure> {
    let Followed { proposal, certificate, checkpoint } = block;
    let (height, value) = (application.height(), proposal.header.hash());
    let chain = application.signer().chain();
    if certificate.verify(&chain, height, &value, &application.members()).is_err() {
        return Ok(Err("a block without the members' certificate"));
    }
    if !application.take_block(proposal, certificate)? {
        return Ok(Err("a block with another batch"));
    }
    match checkpoint {
        Some(note) if !application.take_checkpoint(&note)? => Ok(Err("a checkpoint that does not hold")),
        _ => Ok(Ok(())),
    }
}
