//! Requests to `query`: the member's API.

use crate::case::{Case, Expected, Function, Given, Marked, NOW, Part, Request};
use crate::player::{BEGAN, PROFILE, Session, received, sent};
use crate::shape::{ApiRequest, service_token, token_for};
use serde_json::Value;
use store::Erase;

const HOUR_MS: u64 = 60 * 60 * 1000;
const HISTORY: &str = "/v1/profiles/{profile_id}/history";
const CONTINUE: &str = "/v1/profiles/{profile_id}/continue-watching";
const BOOKMARK: &str = "/v1/profiles/{profile_id}/titles/{title_id}/bookmark";
const TITLES: &str = "/v1/profiles/{profile_id}/titles";
const TITLE: &str = "/v1/profiles/{profile_id}/titles/{title_id}";
const WATCHED: &str = "/v1/profiles/{profile_id}/titles/{title_id}/watched";
const SESSION: &str = "/v1/profiles/{profile_id}/history/{session_id}";
const HIDDEN: &str = "/v1/profiles/{profile_id}/history/{session_id}/hidden";
const ACTIVITY: &str = "/activity";
const ACTIVITY_FILE: &str = "/activity/{file}";

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [history(), continue_watching(), bookmark(), titles(), changes(), erasures(), refused(), activity()].concat()
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
            "history-of-two-titles",
            "A session that went on with another title: an entry for each title, the newest first; the missing number is the session's.",
            Given { played: two_titles(), ..Given::default() },
            ask("GET", HISTORY, &[]),
        ),
        case(
            "history-by-watch-time",
            "Watched offline on a device whose clock is 15 minutes fast, uploaded an hour later: watch times are corrected by the device's own clock, `sent_at`.",
            Given { played: vec![offline()], ..Given::default() },
            ask("GET", HISTORY, &[]),
        ),
        case(
            "history-after-forgetting",
            "A title and a session that the member forgot are not listed, although the items still exist.",
            Given { forgotten: vec![forget_title(), forget_session()], ..given() },
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

/// Two titles of one session, without number 3.
fn two_titles() -> Vec<Request> {
    let first = older();
    let second = older().of_title("t000008");
    let events = vec![second.event(4, "started", 0, 0), second.event(5, "progressed", 10_000, 10_000)];
    vec![received(hours_ago(2) + 50_000, [first.watched(0, 2), events].concat())]
}

/// A minute that was watched an hour ago. The device's clock is 15 minutes fast.
fn offline() -> Request {
    const FAST_MS: u64 = 15 * 60_000;
    let mut events = newer().watched(0, 6);
    for (seq, event) in (0..).zip(&mut events) {
        event["occurred_at"] = (hours_ago(1) + seq * 10_000 + FAST_MS).into();
    }
    sent(NOW + FAST_MS, received(NOW, events))
}

fn forget_title() -> Erase {
    Erase { profile_id: PROFILE.to_owned(), at: NOW - 500, title_id: Some("t000002".to_owned()), session_id: None }
}

fn forget_session() -> Erase {
    let session_id = older().id.parse().ok();
    Erase { profile_id: PROFILE.to_owned(), at: NOW - 500, title_id: None, session_id }
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
            "The title that is not finished, in the session that was watched last; it is not the one that began last.",
            given(),
            ask("GET", CONTINUE, &[]),
        ),
        case(
            "continue-watching-after-hiding",
            "The session with the resume point is hidden: the title is not listed, and no other session replaces it.",
            Given { hidden: vec![older().place()], ..given() },
            ask("GET", CONTINUE, &[]),
        ),
    ]
}

fn bookmark() -> Vec<Case> {
    vec![
        case(
            "bookmark",
            "Where to resume a title: in the session that was watched last, which is not the one that began last.",
            given(),
            ask("GET", BOOKMARK, &["t000007"]),
        ),
        case(
            "bookmark-completed",
            "A title that was watched to 95% or more: nothing to resume, and watched.",
            given(),
            ask("GET", BOOKMARK, &["t000002"]),
        ),
        case(
            "bookmark-of-nothing",
            "A title that was never watched: nothing to resume, and not watched.",
            given(),
            ask("GET", BOOKMARK, &["t000099"]),
        ),
        case(
            "bookmark-after-erasure",
            "A title that was watched only before the erasure: as if it was never watched.",
            Given { erased_at: [(PROFILE.to_owned(), NOW - 500)].into(), ..given() },
            ask("GET", BOOKMARK, &["t000007"]),
        ),
    ]
}

fn mark(title_id: &str, watched: bool, at: u64) -> Marked {
    Marked { profile_id: PROFILE.to_owned(), title_id: title_id.to_owned(), watched, at }
}

fn titles() -> Vec<Case> {
    let marked = |title_id, watched, at| Given { marked: vec![mark(title_id, watched, at)], ..given() };
    vec![
        case("title", "The same answer as the bookmark's.", given(), ask("GET", TITLE, &["t000007"])),
        case(
            "titles",
            "Three titles in the order asked for: one to resume, one that is finished, one that is unknown. Each is read by itself.",
            given(),
            ask("GET", TITLES, &[]).query("ids", "t000007,t000002,crid:1"),
        ),
        case(
            "titles-many",
            "From four titles on, the newest sessions are read once for all.",
            given(),
            ask("GET", TITLES, &[]).query("ids", "t000002,t000007,t000001,t000003"),
        ),
        case(
            "title-watched-again",
            "Finished, and begun again an hour ago: there is a place to resume, and it stays watched.",
            Given { played: [evening(), vec![again()]].concat(), ..Given::default() },
            ask("GET", TITLE, &["t000002"]),
        ),
        case(
            "title-short-session",
            "A later session that played 20 s, less than 3% of the title, does not displace the resume point.",
            Given { played: short_after_long(), ..Given::default() },
            ask("GET", TITLE, &["t000009"]),
        ),
        case(
            "title-marked-watched",
            "Marked as watched after the last session: nothing to resume, and watched since then.",
            marked("t000007", true, NOW),
            ask("GET", TITLE, &["t000007"]),
        ),
        case(
            "title-marked-unwatched",
            "A finished title that the member marked as not watched.",
            marked("t000002", false, NOW),
            ask("GET", TITLE, &["t000002"]),
        ),
        case(
            "titles-malformed",
            "400 that names the parameter: there is an empty id.",
            given(),
            ask("GET", TITLES, &[]).query("ids", "t000007,,t000002"),
        ),
        case("titles-missing", "400 that names the parameter.", given(), ask("GET", TITLES, &[])),
    ]
}

/// The finished title, again from its beginning.
fn again() -> Request {
    let again = Session::new(hours_ago(1), 5).of_title("t000002");
    received(hours_ago(1) + 300_000, vec![again.event(0, "started", 0, 0), again.event(1, "stopped", 200_000, 200_000)])
}

/// Twenty minutes, and later 20 s from the beginning.
fn short_after_long() -> Vec<Request> {
    let [long, short] = [(3, 6), (1, 7)].map(|(hours, id)| Session::new(hours_ago(hours), id).of_title("t000009"));
    let long = vec![long.event(0, "started", 0, 0), long.event(1, "stopped", 1_200_000, 1_200_000)];
    vec![received(hours_ago(3) + 1_200_000, long), received(hours_ago(1) + 30_000, short.watched(0, 2))]
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
            "hide-ahead-of-time",
            "A session that begins in the year 10889 is refused: nothing could ever remove its register.",
            given(),
            ask("PUT", HIDDEN, &["use1-7ZZZZZZZZZ0000000000000000"]),
        ),
        case(
            "mark-watched",
            "PUT marks a title as watched, whether there is a session of it or not: one conditional write of its register.",
            given(),
            ask("PUT", WATCHED, &["t000007"]),
        ),
        case(
            "mark-unwatched",
            "DELETE marks it as not watched in the same register, so the later of the two wins everywhere.",
            given(),
            ask("DELETE", WATCHED, &["t000002"]),
        ),
    ]
}

/// Everything, a title, or a session. The mark is written first, then the message that makes sure
/// of the rest, then the items are deleted.
fn erasures() -> Vec<Case> {
    let mark = mark("t000007", true, NOW - 2_000);
    let foreign =
        ApiRequest::new("DELETE", TITLE, TITLE.replace("{profile_id}", "p00000055").replace("{title_id}", "t1"));
    vec![
        case(
            "erase",
            "Everything up to now: the mark is written first, then the items are deleted, including the registers of hidden sessions.",
            Given { hidden: vec![newer().place()], marked: vec![mark.clone()], ..given() },
            ask("DELETE", HISTORY, &[]),
        ),
        case(
            "erase-not-handed-over",
            "The queue `retry` does not accept the message: 503, so that the member's client sends it again, and nothing is deleted yet. What was marked is not shown any more.",
            Given { away: [Part::RetryQueue].into(), ..given() },
            ask("DELETE", HISTORY, &[]),
        ),
        case(
            "forget-title",
            "A title's sessions and its mark as watched are deleted, other titles stay.",
            Given { hidden: vec![newer().place()], marked: vec![mark], ..given() },
            ask("DELETE", TITLE, &["t000007"]),
        ),
        case(
            "forget-session",
            "A session is deleted with all its titles and the register that hides it.",
            Given { played: two_titles(), hidden: vec![older().place()], ..Given::default() },
            ask("DELETE", SESSION, &[&older().id]),
        ),
        case(
            "forget-session-ahead-of-time",
            "A session that begins in the year 10889 is refused.",
            given(),
            ask("DELETE", SESSION, &["use1-7ZZZZZZZZZ0000000000000000"]),
        ),
        case(
            "forget-title-of-another-profile",
            "403, and nothing is erased.",
            given(),
            foreign.authorized(token_for(&[PROFILE])),
        ),
    ]
}

/// The member's page, which needs no token and asks nothing of the store.
fn activity() -> Vec<Case> {
    let file = |name: &str| ApiRequest::new("GET", ACTIVITY_FILE, ACTIVITY_FILE.replace("{file}", name));
    vec![
        case(
            "activity",
            "The member's page, without a token: that is in the address's fragment, which no browser sends.",
            Given::default(),
            ApiRequest::new("GET", ACTIVITY, ACTIVITY),
        ),
        case("activity-file", "A file that the page loads.", Given::default(), file("icon.svg")),
        case(
            "activity-file-known",
            "304: the browser has the file.",
            Given::default(),
            file("icon.svg").header("if-none-match", "*"),
        ),
        case(
            "activity-file-compressed",
            "With gzip.",
            Given::default(),
            file("icon.svg").header("accept-encoding", "gzip"),
        ),
        case("activity-no-such-file", "404: only the page's own files.", Given::default(), file("index.html")),
        case(
            "activity-behind-a-mapping-key",
            "Behind a custom domain with a mapping key: the page's addresses are relative.",
            Given::default(),
            file("icon.svg").behind("/watch/playhead"),
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
            "A title id with a colon, encoded as %3A: decoded.",
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
