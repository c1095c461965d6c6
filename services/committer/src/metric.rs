//! The committer's metrics. Every one carries the label `network`. After a restart the queue
//! delivers again, so the counters of the submit loop count deliveries, not distinct operations.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Messages whose operation has an outcome.
pub(crate) const SUBMITTED: &str = "chopmark_committer_submitted_total";
/// Those of them that ended as a rejection; label `code`.
pub(crate) const REJECTED: &str = "chopmark_committer_rejected_total";
/// Those of them whose operation id another request holds.
pub(crate) const CONFLICTS: &str = "chopmark_committer_conflicts_total";
/// Messages put aside; label `reason`.
pub(crate) const DEAD_LETTERED: &str = "chopmark_committer_dead_lettered_total";
/// Outcomes projected; label `state`.
pub(crate) const PROJECTED: &str = "chopmark_committer_projected_total";
/// Calls tried again; label `port`.
pub(crate) const RETRIES: &str = "chopmark_committer_retries_total";
/// Loops that stopped on a broken invariant; labels `loop` and `cause`. Any increase is an alarm.
pub(crate) const STOPPED: &str = "chopmark_committer_stopped_total";
/// From poll to committed positions.
pub(crate) const BATCH_SECONDS: &str = "chopmark_committer_batch_seconds";
/// Verification of a group of blocks.
pub(crate) const VERIFY_SECONDS: &str = "chopmark_committer_verify_seconds";
/// One block's database transaction.
pub(crate) const PROJECT_SECONDS: &str = "chopmark_committer_project_seconds";
/// Messages behind the newest.
pub(crate) const QUEUE_LAG: &str = "chopmark_committer_queue_lag";
/// Messages under way.
pub(crate) const IN_FLIGHT: &str = "chopmark_committer_in_flight";
/// Last projected height.
pub(crate) const PROJECTED_HEIGHT: &str = "chopmark_committer_projected_height";
/// Height that the newest checkpoint covers.
pub(crate) const CHECKPOINT_HEIGHT: &str = "chopmark_committer_checkpoint_height";

/// From submission to outcome.
pub(crate) const LEDGER_SECONDS: &str = "chopmark_committer_ledger_seconds";
/// From a block's time to its projection.
pub(crate) const PROJECTED_SECONDS: &str = "chopmark_committer_projected_seconds";
/// Whether the last call succeeded; label `dependency`.
pub(crate) const DEPENDENCY_UP: &str = "chopmark_committer_dependency_up";

/// Registers names, units and help texts with the installed recorder.
pub fn describe_metrics() {
    describe_counter!(SUBMITTED, Unit::Count, "Messages whose operation has an outcome");
    describe_counter!(REJECTED, Unit::Count, "Messages whose operation was rejected, by code");
    describe_counter!(CONFLICTS, Unit::Count, "Messages whose operation id another request holds");
    describe_counter!(DEAD_LETTERED, Unit::Count, "Messages put aside, by reason");
    describe_counter!(PROJECTED, Unit::Count, "Outcomes written to the database, by state");
    describe_counter!(RETRIES, Unit::Count, "Calls tried again, by port");
    describe_counter!(STOPPED, Unit::Count, "Loops stopped by a broken invariant, by loop and cause");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "From poll to committed queue positions");
    describe_histogram!(VERIFY_SECONDS, Unit::Seconds, "Verification of one group of blocks");
    describe_histogram!(PROJECT_SECONDS, Unit::Seconds, "Database transaction of one block");
    describe_histogram!(LEDGER_SECONDS, Unit::Seconds, "From submission to outcome");
    describe_histogram!(PROJECTED_SECONDS, Unit::Seconds, "From a block's time to its projection");
    describe_gauge!(DEPENDENCY_UP, Unit::Count, "Whether the last call succeeded, by dependency");
    describe_gauge!(QUEUE_LAG, Unit::Count, "Messages behind the newest");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Messages taken from the queue and not yet committed");
    describe_gauge!(PROJECTED_HEIGHT, Unit::Count, "Last projected height");
    describe_gauge!(CHECKPOINT_HEIGHT, Unit::Count, "Height that the newest checkpoint covers");
}

/// Notes whether a dependency answered.
pub(crate) fn answered(network: &'static str, dependency: &'static str, well: bool) {
    let up = if well { 1.0 } else { 0.0 };
    metrics::gauge!(DEPENDENCY_UP, "network" => network, "dependency" => dependency).set(up);
}

/// How long ago a time of the ledger was (Unix ms); zero where the members' clocks are ahead.
#[expect(clippy::disallowed_methods, reason = "a figure for people, which decides nothing")]
pub(crate) fn since(time_ms: u64) -> std::time::Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(std::time::Duration::from_millis(time_ms))
}

/// A gauge's value: heights and counts stay far below 2^53, where a float stops being exact.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) const fn gauge_value(value: u64) -> f64 {
    value as f64
}
