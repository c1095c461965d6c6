//! The checkpoint that covers what is projected: its note must hold under the policy of the
//! members in force at its height. The policy is derived from the verified member set, a pure
//! function byte-identical at every member, and never taken from the node that shows the note.

use chopmark_domain::ports::LedgerStatus;
use ledger_core::{
    member::MemberSet,
    policy_file::PolicyFile,
    verify::{Part, SignedCheckpoint, Verdict},
};

use crate::error::CheckError;

/// Checks that the note says what the status does, under the log's name, and that a quorum of
/// `members` signed it.
pub(crate) fn check(status: &LedgerStatus, origin: &str, members: &MemberSet) -> Result<(), CheckError> {
    let signed = SignedCheckpoint::parse(&status.checkpoint).map_err(CheckError::Checkpoint)?;
    if (signed.checkpoint.size, signed.checkpoint.root) != (status.size, status.root) {
        return Err(CheckError::Status);
    }
    let policy = PolicyFile::parse(&PolicyFile::text_of_members(origin, members))
        .map_err(|_| CheckError::Checkpoint(Verdict::UnknownFormat(Part::Policy)))?;
    let verify = || {
        signed.check_origin(&policy)?;
        signed.check_signatures(&policy)?.check_quorum(&policy)
    };
    verify().map_err(CheckError::Checkpoint)
}
