//! The courier's metrics. Every one carries the label `network`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Attempts; label `result`.
pub(crate) const ATTEMPTS: &str = "chopmark_courier_attempts_total";
/// One attempt.
pub(crate) const ATTEMPT_SECONDS: &str = "chopmark_courier_attempt_seconds";
/// From the event to its delivery.
pub(crate) const DELIVERED_SECONDS: &str = "chopmark_courier_delivered_seconds";
/// Deliveries given up.
pub(crate) const DEAD_LETTERED: &str = "chopmark_courier_dead_lettered_total";
/// Deliveries that are pending.
pub(crate) const BACKLOG: &str = "chopmark_courier_backlog";
/// Age of the oldest of them.
pub(crate) const OLDEST_SECONDS: &str = "chopmark_courier_oldest_seconds";
/// Endpoints; label `state`.
pub(crate) const ENDPOINTS: &str = "chopmark_courier_endpoints";
/// Whether the last call succeeded; label `dependency`.
pub(crate) const DEPENDENCY_UP: &str = "chopmark_courier_dependency_up";

/// Registers names, units and help texts with the installed recorder.
pub fn describe_metrics() {
    describe_counter!(ATTEMPTS, Unit::Count, "Attempts to deliver a webhook, by result");
    describe_counter!(DEAD_LETTERED, Unit::Count, "Webhook deliveries given up");
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "One attempt to deliver a webhook");
    describe_histogram!(DELIVERED_SECONDS, Unit::Seconds, "From an event to its delivery");
    describe_gauge!(BACKLOG, Unit::Count, "Webhook deliveries that are pending");
    describe_gauge!(OLDEST_SECONDS, Unit::Seconds, "Age of the oldest pending webhook delivery");
    describe_gauge!(ENDPOINTS, Unit::Count, "Webhook endpoints, by state");
    describe_gauge!(DEPENDENCY_UP, Unit::Count, "Whether the last call of a dependency succeeded");
}
