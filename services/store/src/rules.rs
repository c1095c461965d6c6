//! What every back-end checks in the same way.

use chopmark_domain::{
    id::ResourceKey,
    record::{AcceptedOperation, ProjectedBlock, ProjectionCursor},
};

use crate::failure::Failure;

/// Rows per transaction: more cost hardly less each, and a projection waits for them.
pub(crate) const TRANSACTION_ROWS_MAX: usize = 10_000;

/// The genesis has height 0 and no operation: a projection starts at it or behind it.
pub(crate) const FIRST_HEIGHT_MAX: u64 = 1;

/// A private part hangs on the row of its operation's first item.
pub(crate) fn check_private_keys(rows: &[AcceptedOperation]) -> Result<(), Failure> {
    let wrong = rows.iter().find(|row| row.private.is_some() && row.key != ResourceKey::of(&row.op, 0));
    wrong.map_or(Ok(()), |row| {
        Err(Failure::Invariant(format!("private part of {} under the key of another row", row.op)))
    })
}

/// Why the cursor did not move to `block`: `Ok(false)` where it has been projected already.
pub(crate) fn not_advanced(block: &ProjectedBlock, at: Option<ProjectionCursor>) -> Result<bool, Failure> {
    match at {
        Some(cursor) if cursor.height >= block.height => Ok(false),
        at => {
            let at = at.map_or("nothing".to_owned(), |cursor| format!("height {}", cursor.height));
            Err(Failure::Invariant(format!("height {} does not follow {at}", block.height)))
        }
    }
}
