//! The store's adapter against DynamoDB. Each case runs on the emulator that the local cloud uses,
//! and on AWS's own DynamoDB Local.
//!
//! The second needs Java and Maven, so it runs only on request: `PLAYHEAD_TEST_DYNAMODB_LOCAL=1`.
//! Where the two differ, DynamoDB Local is right. Neither can be made to throttle, fail or leave
//! keys unprocessed: a fake server does that, in [`faults`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browsing;
mod case;
mod continuing;
mod erasing;
mod fake;
mod faults;
mod forgetting;
mod hiding;
mod history;
mod paging;
mod reading;
mod titles;
mod writing;

use case::{Case, Table};
use local::LocalDynamoDb;
use playhead_tests::opted_in;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

const OPT_IN: &str = "PLAYHEAD_TEST_DYNAMODB_LOCAL";

/// One for all tests: a client's connections belong to the runtime that opened them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Started by the first test that needs it, for all tests. It ends with this process.
struct Backend {
    _server: LocalDynamoDb,
    table: Table,
}

type Started = LazyLock<Result<Backend, String>>;

static EMULATOR: Started = LazyLock::new(|| RUNTIME.block_on(start(LocalDynamoDb::emulator("store-tests-emulator"))));

static DYNAMODB_LOCAL: Started =
    LazyLock::new(|| RUNTIME.block_on(start(LocalDynamoDb::dynamodb_local("store-tests-dynamodb-local"))));

static OPTED_IN: LazyLock<bool> = LazyLock::new(|| opted_in(OPT_IN, "DynamoDB Local (it needs Java 17 and Maven)"));

async fn start(server: impl Future<Output = anyhow::Result<LocalDynamoDb>>) -> Result<Backend, String> {
    let begun = async {
        let server = server.await?;
        let table = Table::create(&server).await?;
        anyhow::Ok(Backend { _server: server, table })
    };
    begun.await.map_err(|error| format!("{error:#}"))
}

fn run<F: Future<Output = ()>>(backend: &'static Started, name: &str, case: impl FnOnce(Case) -> F) {
    let backend = backend.as_ref().unwrap_or_else(|error| panic!("it did not start: {error}"));
    RUNTIME.block_on(case(backend.table.case(name)));
}

/// Makes two tests of every case, one per backend.
macro_rules! cases {
    ($($module:ident: $($name:ident)+;)+) => {
        mod emulator {
            $(mod $module { $(#[test] fn $name() {
                crate::run(&crate::EMULATOR, stringify!($name), crate::$module::$name);
            })+ })+
        }
        mod dynamodb_local {
            $(mod $module { $(#[test] fn $name() {
                if *crate::OPTED_IN {
                    crate::run(&crate::DYNAMODB_LOCAL, stringify!($name), crate::$module::$name);
                }
            })+ })+
        }
    };
}

cases! {
    writing:
        a_view_is_written_where_there_is_none
        a_view_is_written_if_its_version_is_as_expected
        a_lost_race_returns_what_is_stored_and_changes_nothing
        lost_race_against_a_deleted_item_makes_no_item
        concurrent_writers_count_each_event_once
        view_of_too_many_ranges_is_refused_and_stays_as_it_was
        unknown_attributes_survive_an_update
        each_title_of_a_session_is_found_by_the_index;
    reading:
        reading_no_keys_makes_no_call
        over_a_hundred_keys_come_in_order_with_absent_ones
        the_largest_view_is_written_and_read_back
        views_of_any_size_are_written_together
        what_one_answer_cannot_carry_is_requested_again
        corrupt_and_newer_items_are_told_apart;
    history:
        a_profile_without_a_history_has_one_empty_page
        sessions_come_newest_first_with_every_field
        a_page_never_splits_a_session
        rows_beyond_a_megabyte_make_whole_pages
        an_unreadable_item_hides_no_other
        another_profile_never_appears;
    paging:
        pages_of_any_limit_match_a_model
        too_many_hidden_rows_end_the_page_with_a_token
        page_that_stops_within_a_session_leaves_it_to_the_next;
    hiding:
        hidden_sessions_are_left_out_of_full_pages
        session_can_be_hidden_before_it_exists
        later_hide_or_unhide_wins_in_any_order;
    continuing:
        the_newest_session_of_each_title_continues
        bookmark_is_of_the_session_updated_last
        a_bookmark_joins_the_parts_of_a_session_and_needs_only_one;
    erasing:
        nothing_is_visible_or_stored_after_erasing
        late_events_of_an_erased_session_are_not_written
        without_time_to_delete_the_mark_is_enough
        a_session_minted_ahead_of_time_is_erased_too
        more_than_one_batch_is_deleted
        older_erasure_reverts_nothing;
    forgetting:
        forgotten_title_is_gone_and_its_siblings_stay
        forgotten_session_is_gone_and_others_stay
        erasing_everything_takes_registers_along
        interrupted_erasures_are_finished_by_calling_again
        an_erasure_amid_writes_leaves_nothing
        erasures_of_many_views_come_in_order;
    titles:
        two_titles_of_a_session_are_two_items
        session_with_more_titles_than_the_limit_is_a_page
        items_of_the_first_release_join_new_ones
        titles_agree_however_many_are_asked_for
        titles_agree_in_a_profile_of_over_500_entries
        often_watched_title_stays_watched_however_asked
        later_mark_of_watched_wins_in_any_order
        odd_identifiers_work_everywhere;
    browsing:
        a_walk_in_pages_of_any_size_meets_every_view_once
        range_of_sort_keys_has_views_and_nothing_else
        unreadable_view_is_counted_and_stops_no_walk;
}
