//! What every database back-end promises, sentence by sentence of the ports' documentation.
//!
//! The tests are generic; a back-end is one implementation of [`fixtures::Backend`] and one
//! `contract!` line, and gets all of them. `sqlite` holds what only a file can show,
//! `postgres` what only a server can.

#![expect(clippy::unwrap_used, reason = "what is called from a test only may fail it")]

mod fixtures;
mod listing;
mod model;
mod operations;
mod postgres;
mod projection;
mod sqlite;
mod tenants;
mod webhooks;

/// Instantiates every test of the suite for one back-end.
macro_rules! contract {
    ($name:ident: $backend:ty) => {
        mod $name {
            contract!(@module operations $backend:
                rows_come_back_in_the_order_asked
                the_same_request_again_changes_nothing
                another_request_marks_the_first_row
                another_tenant_under_the_same_key_is_a_conflict
                another_tenant_finds_nothing
                one_batch_may_repeat_itself
                a_settled_row_stays_settled
                attempts_keep_their_private_parts_until_one_is_settled
                a_private_part_needs_its_operations_first_key
                a_bad_row_leaves_its_batch_out
                networks_are_apart
                a_batch_may_be_large
                concurrent_inserts_of_the_same_rows_keep_one_each
                rows_survive_reopening
            );
            contract!(@module listing $backend:
                newest_first_in_pages
                filters_narrow_and_combine
                an_external_id_lists_the_attempt_that_holds_the_id
                leaf_indexes_narrow
                no_filter_shows_another_tenants_rows
                pages_are_stable_while_rows_arrive
                a_walk_shows_each_row_once_while_many_write
            );
            contract!(@module projection $backend:
                the_cursor_starts_at_nothing
                a_block_settles_its_operations
                losing_private_parts_are_removed
                a_missing_row_is_added
                another_request_takes_the_row_over
                the_same_height_again_changes_nothing
                a_gap_is_refused
                a_failing_block_changes_nothing
                an_outcome_is_final
                links_come_in_order
                reprojection_gives_equal_rows
                one_of_several_projectors_wins_each_height
                blocks_and_batches_interleave
            );
            contract!(@module tenants $backend:
                a_tenant_is_added_once
                a_key_is_found_by_its_hash
                a_key_may_be_added_again_but_not_changed
                a_key_needs_its_tenant
                a_key_is_revoked_by_id
                a_key_ends_at_the_earliest_time
                limits_and_suspension_are_kept
                everything_of_a_tenant_is_listed
                a_signing_key_is_its_tenants
                a_signing_key_is_revoked_for_ever
                a_tenant_may_have_to_sign
            );
            contract!(@module webhooks $backend:
                endpoints_are_kept
                a_block_is_told_to_those_who_ask
                nobody_is_told_twice
                a_conflict_is_told_once
                a_claim_is_nobody_elses_until_it_ends
                a_resource_is_told_of_in_order
                what_was_sent_is_sent_again
                a_disabled_endpoint_is_given_up
                what_comes_too_late_for_an_endpoint_is_given_up
                a_test_goes_to_one_endpoint
                pages_of_deliveries_are_a_tenants_own
                what_ended_long_ago_is_removed
                several_couriers_share_the_work
            );
            contract!(@module model $backend: random_histories_match_the_model);
        }
    };
    (@module $module:ident $backend:ty: $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(backend) = <$backend as crate::fixtures::Backend>::fresh().await else { return };
                    crate::$module::$test(&backend).await;
                }
            )*
        }
    };
}

contract!(on_sqlite: crate::sqlite::TempSqlite);
contract!(on_postgres: crate::postgres::TempPostgres);
