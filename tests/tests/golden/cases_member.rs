//! Requests to `query`: the member's API.

use crate::case::{Case, Expected, Function, Given, NOW, Part, Request};
use crate::player::{BEGAN, PROFILE, Session, received};
use crate::shape::{ApiRequest, service_token, token_for};
use serde_json::Value;

const HOUR_MS: u64 = 60 * 60 * 1000;
const HISTORY: &str = "/v1/profiles/{profile_id}/history";
const CONTINUE: &str = "/v1/profiles/{profile_id}/continue-watching";
const BOOKMARK: &str = "/v1/profiles/{profile_id}/titles/{title_id}/bookmark";
const HIDDEN: &str = "/v1/profiles/{profile_id}/history/{session_id}/hidden";

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [history(), continue_watching(), bookmark(), changes(), refused()].concat()
}

fn case(name: &str, about: &str, given: Given, request: ApiRequest) -> Case {
    let expected = Expected { about: about.to_owned(), function: Function::Query, given, expect: Value::Null };
    Case { trigger: "api".to_owned(), name: name.to_owned(), event: request.event(), expected }
}

/// A request about the profile of most cases, by its member. `with` fills the `{…}` of the route,
/// in order.
fn ask(method: &'static str, route: &'static str, with: &[&str]) -> ApiRequest {
    let mut path = route.replace("{profile_id}", PROFILE);
    for (name, value) in ["{title_id}", "{session_id}"].iter().filter(|name| route.contains(**name)).zip(with) {
        path = path.replace(name, value);
    }
    ApiRequest::new(method, route, path).authorized(token_for(&[PROFILE]))
}

fn hours_ago(hours: u64) -> u64 {
    BEGAN - hours * HOUR_MS
}

/// Watched to the end four hours ago: completed, with a hole in its sequence numbers.
fn finished() -> Session {
    Session::new(hours_ago(4), 4).of_title("t000002")
}

/// Watched two hours ago, on a TV.
fn older() -> Session {
    Session::new(hours_ago(2), 2).of_title("t000007").on("d00000309", "tv")
}

/// The same title an hour ago, on a phone.
fn newer() -> Session {
    Session::new(hours_ago(1), 1).of_title("t000007").on("d00000310", "phone")
}

/// One finished session, and two of another title; the older of these was updated after the newer.
fn evening() -> Vec<Request> {
    let last = finished().event(9, "stopped", 2_600_000, 10_000);
    vec![
        received(hours_ago(4) + 50_000, [finished().watched(0, 3), vec![last]].concat()),
        received(hours_ago(2) + 50_000, older().watched(0, 4)),
        received(hours_ago(1) + 50_000, newer().watched(0, 2)),
        received(NOW - 1_000, older().watched(5, 6)),
    ]
}

fn given() -> Given {
    Given { played: evening(), ..Given::default() }
}

fn history() -> Vec<Case> {
    let foreign = Session::new(hours_ago(3), 3).of_profile("p00000055");
    let with_foreign = [evening(), vec![received(hours_ago(3), foreign.watched(0, 1))]].concat();
    let hidden = || Given { hidden: vec![newer().place()], ..given() };
    vec![
        case(
            "history",
            "All sessions of the profile, newest first, and no other profile's.",
            Given { played: with_foreign, ..Given::default() },
            ask("GET", HISTORY, &[]),
        ),
        case("history-empty", "A profile that watched nothing.", Given::default(), ask("GET", HISTORY, &[])),
        case(
            "history-first-page",
            "Two sessions per page: the newest two, and a token for the rest.",
            given(),
            ask("GET", HISTORY, &[]).query("limit", "2"),
        ),
        case(
            "history-next-page",
            "The page after the token of history-first-page: the oldest session, and no further token.",
            given(),
            ask("GET", HISTORY, &[]).query("limit", "2").query("page_token", page_token(&older())),
        ),
        case("history-without-hidden", "A hidden session is not listed.", hidden(), ask("GET", HISTORY, &[])),
        case(
            "history-with-hidden",
            "A hidden session is listed on request.",
            hidden(),
            ask("GET", HISTORY, &[]).query("include_hidden", "true"),
        ),
        case(
            "history-after-erasure",
            "Erased up to three hours ago: what began before is not listed, although the item still exists.",
            Given { erased_at: [(PROFILE.to_owned(), hours_ago(3))].into(), ..given() },
            ask("GET", HISTORY, &[]),
        ),
        case(
            "history-by-service",
            "A backend's token may read every profile.",
            given(),
            ask("GET", HISTORY, &[]).authorized(service_token()).query("limit", "1"),
        ),
    ]
}

/// The page token of the page that ends with this session.
fn page_token(last: &Session) -> String {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let (_, ulid) = last.id.split_once('-').unwrap();
    BASE64_URL_SAFE_NO_PAD.encode(format!("1{ulid}"))
}

fn continue_watching() -> Vec<Case> {
    vec![
        case(
            "continue-watching",
            "The newest session of each title that is not completed.",
            given(),
            ask("GET", CONTINUE, &[]),
        ),
        case(
            "continue-watching-after-hiding",
            "The newest session of the title is hidden: an older one does not replace it.",
            Given { hidden: vec![newer().place()], ..given() },
            ask("GET", CONTINUE, &[]),
        ),
    ]
}

fn bookmark() -> Vec<Case> {
    vec![
        case(
            "bookmark",
            "Where to resume a title: in the session that was updated last, which is not the one that began last.",
            given(),
            ask("GET", BOOKMARK, &["t000007"]),
        ),
        case(
            "bookmark-completed",
            "A title that was watched to 95% or more.",
            given(),
            ask("GET", BOOKMARK, &["t000002"]),
        ),
        case(
            "bookmark-of-nothing",
            "A title that was never watched: 404.",
            given(),
            ask("GET", BOOKMARK, &["t000099"]),
        ),
        case(
            "bookmark-after-erasure",
            "A title that was watched only before the erasure: 404.",
            Given { erased_at: [(PROFILE.to_owned(), NOW - 500)].into(), ..given() },
            ask("GET", BOOKMARK, &["t000007"]),
        ),
    ]
}

fn changes() -> Vec<Case> {
    vec![
        case(
            "hide",
            "PUT hides a session: one conditional write of its register.",
            given(),
            ask("PUT", HIDDEN, &[&newer().id]),
        ),
        case(
            "unhide",
            "DELETE shows it again: it writes the same register rather than deleting it, so the later of the two wins everywhere.",
            given(),
            ask("DELETE", HIDDEN, &[&newer().id]),
        ),
        case(
            "erase",
            "Everything up to now: the mark is written first, then the items are deleted, including the registers of hidden sessions.",
            Given { hidden: vec![newer().place()], ..given() },
            ask("DELETE", HISTORY, &[]),
        ),
    ]
}

fn refused() -> Vec<Case> {
    let without_token = |method, route| ApiRequest::new(method, route, format!("/v1/profiles/{PROFILE}/history"));
    let foreign = |method, route: &'static str| {
        ApiRequest::new(method, route, route.replace("{profile_id}", "p00000055")).authorized(token_for(&[PROFILE]))
    };
    vec![
        case("history-without-token", "401, before the store is read.", given(), without_token("GET", HISTORY)),
        case("history-of-another-profile", "403, before the store is read.", given(), foreign("GET", HISTORY)),
        case("erase-another-profile", "403, and nothing is erased.", given(), foreign("DELETE", HISTORY)),
        case(
            "history-limit-out-of-range",
            "400 that names the parameter.",
            given(),
            ask("GET", HISTORY, &[]).query("limit", "101"),
        ),
        case(
            "history-bad-page-token",
            "400 that names the parameter.",
            given(),
            ask("GET", HISTORY, &[]).query("page_token", "x"),
        ),
        case("hide-bad-session-id", "400 that names the segment of the path.", given(), ask("PUT", HIDDEN, &["x"])),
        case(
            "bookmark-percent-encoded",
            "A title id with a colon, encoded as %3A: decoded, and 404 because it was never watched.",
            given(),
            ask("GET", BOOKMARK, &["series%3A1"]),
        ),
        case(
            "history-behind-a-mapping-key",
            "Behind a custom domain with a mapping key of two parts: the route key counts, not the path.",
            given(),
            ask("GET", HISTORY, &[]).query("limit", "1").behind("/watch/playhead"),
        ),
        case(
            "bookmark-encoded-twice",
            "An id that is encoded twice, as API Gateway needs it for some characters, is the same id.",
            given(),
            ask("GET", BOOKMARK, &["t%2530%30%2530007"]),
        ),
        case("history-post", "POST to the history: 405.", given(), ask("POST", HISTORY, &[])),
        case(
            "store-unavailable",
            "The store is unreachable: 503 and Retry-After, and no word about the store.",
            Given { away: [Part::Store].into(), ..Given::default() },
            ask("GET", HISTORY, &[]),
        ),
    ]
}
