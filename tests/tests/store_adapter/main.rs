//! The store's adapter against DynamoDB: each case runs on the emulator that the local cloud uses, and on DynamoDB Local, AWS's own.
//!
//! The second needs Java and Maven, so one asks for it: `PLAYHEAD_TEST_DYNAMODB_LOCAL=1`. Where the two differ, DynamoDB Local is right.
//! What neither can be made to do (throttle, fail, leave keys unprocessed) comes from a server of ours, in [`faults`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browsing;
mod case;
mod continuing;
mod erasing;
mod fake;
mod faults;
mod hiding;
mod history;
mod paging;
mod reading;
mod writing;

use case::{Case, Table};
use local::LocalDynamoDb;
use std::env::VarError;
use std::io::Write as _;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

const OPT_IN: &str = "PLAYHEAD_TEST_DYNAMODB_LOCAL";

/// One for all tests: a client's connections belong to the runtime on which they were opened.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Started by the first test that needs it, for all of them; it ends with this process.
struct Backend {
    _server: LocalDynamoDb,
    table: Table,
}

type Started = LazyLock<Result<Backend, String>>;

static EMULATOR: Started = LazyLock::new(|| RUNTIME.block_on(start(LocalDynamoDb::emulator("store-tests-emulator"))));

static DYNAMODB_LOCAL: Started =
    LazyLock::new(|| RUNTIME.block_on(start(LocalDynamoDb::dynamodb_local("store-tests-dynamodb-local"))));

static OPTED_IN: LazyLock<bool> = LazyLock::new(|| match std::env::var(OPT_IN) {
    Ok(value) if value == "1" => true,
    Err(VarError::NotPresent) => {
        // Past the test harness, which keeps what passing tests print to itself.
        let said = writeln!(
            std::io::stderr(),
            "\n*** SKIPPED: every test of `dynamodb_local::`. To run the store's adapter against AWS's own DynamoDB Local, \
             install Java 17 and Maven, and set {OPT_IN}=1. ***\n"
        );
        said.unwrap();
        false
    }
    // A misspelt wish must not pass for a test.
    other => panic!("{OPT_IN} is {other:?}: set it to 1, or leave it unset to skip DynamoDB Local"),
});

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

/// Makes two tests of every case, one a backend.
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
        a_lost_race_against_a_deleted_item_returns_nothing_and_makes_no_item
        concurrent_writers_of_one_session_lose_nothing_and_count_each_event_once
        attributes_that_we_do_not_know_survive_an_update
        a_title_that_turns_out_different_moves_in_the_index;
    reading:
        no_keys_are_no_call
        more_than_a_hundred_keys_come_in_order_with_the_absent_ones
        the_largest_view_is_written_and_read_back
        more_than_one_answer_can_carry_is_asked_for_again
        a_corrupt_item_is_told_from_a_newer_one_and_both_from_their_neighbours;
    history:
        a_profile_without_a_history_has_one_empty_page
        sessions_come_newest_first_with_all_that_is_known_of_them
        a_page_never_splits_a_session
        rows_beyond_a_megabyte_make_whole_pages
        an_unreadable_item_hides_no_other
        another_profile_never_appears;
    paging:
        pages_of_any_limit_are_the_list_that_a_model_gives
        a_request_that_finds_too_much_hidden_says_where_to_go_on
        a_request_that_stops_within_a_session_leaves_it_to_the_next;
    hiding:
        hidden_sessions_are_left_out_of_full_pages
        a_session_can_be_hidden_before_it_is_there
        what_was_said_later_wins_in_whatever_order_it_arrives;
    continuing:
        the_newest_session_of_each_title_continues
        a_bookmark_is_of_the_session_heard_of_last
        a_bookmark_joins_the_parts_of_a_session_and_needs_only_one;
    erasing:
        nothing_is_visible_or_stored_after
        late_events_of_an_erased_session_stay_invisible
        without_time_to_delete_the_mark_is_enough
        a_session_minted_ahead_of_time_is_erased_too
        more_than_one_batch_is_deleted
        an_older_erasure_takes_nothing_back;
    browsing:
        a_walk_in_pages_of_any_size_meets_every_view_once
        between_two_sort_keys_are_the_views_and_nothing_else
        a_view_that_cannot_be_read_is_counted_and_stops_no_walk;
}
