//! Requests to `ingest`: POST /v1/events and POST /v1/sessions.

use crate::case::{Case, Expected, Function, Given, NOW, Part};
use crate::player::{BEGAN, EXAMPLE, PROFILE, Session};
use crate::shape::{ApiRequest, SECRET, bearer, expires, service_token, token_for};
use playback::contract::{MAX_DECOMPRESSED_BYTES, MAX_EVENTS, MAX_POSITION_MS};
use playhead_tests::sample;
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [accepted(), adjusted(), partly_accepted(), bodies(), senders(), beacons(), limits(), sessions(), elsewhere()]
        .concat()
}

fn case(name: &str, about: &str, request: ApiRequest) -> Case {
    case_of(name, about, request.event())
}

fn case_of(name: &str, about: &str, event: Value) -> Case {
    let expected =
        Expected { about: about.to_owned(), function: Function::Ingest, given: Given::default(), expect: Value::Null };
    Case { trigger: "api".to_owned(), name: name.to_owned(), event, expected }
}

/// POST /v1/events with the token of the example's profile and no body yet.
fn post() -> ApiRequest {
    ApiRequest::new("POST", "/v1/events", "/v1/events").authorized(token_for(&[PROFILE]))
}

fn post_events(events: impl IntoIterator<Item = Value>) -> ApiRequest {
    post().json(&request(events))
}

fn request(events: impl IntoIterator<Item = Value>) -> Value {
    json!({"events": events.into_iter().collect::<Vec<_>>()})
}

fn accepted() -> Vec<Case> {
    let example = Session::example();
    let other = Session::new(BEGAN, 2).of_title("t000007").on("d00000309", "tv");
    let mut ahead = example.event(0, "started", 0, 0);
    ahead["bitrate"] = json!({"kbps": 4000});
    let sparse = json!({"session_id": EXAMPLE, "profile_id": PROFILE, "title_id": "t000002", "seq": 0, "kind": "started",
        "position_ms": 0});
    let mut nulls = sparse.clone();
    for field in ["played_ms", "title_duration_ms", "credits_ms", "occurred_at", "device", "country"] {
        nulls[field] = Value::Null;
    }
    let next = example.clone().of_title("t000003");
    let next = vec![next.event(2, "started", 0, 0), next.event(3, "progressed", 10_000, 10_000)];
    let mut fast = example.watched(0, 1);
    for event in &mut fast {
        event["occurred_at"] = json!(event["occurred_at"].as_u64().unwrap() + 15 * 60_000);
    }
    let traced = post_events(example.watched(0, 1))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    vec![
        case("good-events", "Four events of one session: one record on the log.", post_events(example.watched(0, 3))),
        case(
            "two-sessions",
            "Events of two sessions, mixed in one request: a record on the log for each session, in the order of their first events.",
            post_events([example.watched(0, 0), other.watched(0, 1), example.watched(1, 1)].concat()),
        ),
        case(
            "every-kind",
            "One event of each kind, with a pause, a seek back and a change of device in between.",
            post_events([
                example.event(0, "started", 0, 0),
                example.event(1, "progressed", 60_000, 60_000),
                example.event(2, "paused", 75_000, 15_000),
                example.event(3, "resumed", 75_000, 0),
                example.event(4, "seeked", 30_000, 0),
                example.clone().on("d00000310", "phone").event(5, "stopped", 50_000, 20_000),
            ]),
        ),
        case("unknown-fields", "A newer player sends an unknown field: it is ignored.", post_events([ahead])),
        case(
            "optional-fields-absent",
            "Only what identifies and places an event: `played_ms` is 0, the rest is unknown, and nothing is adjusted.",
            post_events([sparse]),
        ),
        case(
            "optional-fields-null",
            "The optional fields are null, as in the JSON of a live stream, whose duration is Infinity: as if they were absent.",
            post_events([nulls]),
        ),
        case(
            "two-titles",
            "A session that goes on with another title: a record on the log for each title, under the same key.",
            post_events([example.watched(0, 1), next].concat()),
        ),
        case(
            "sent-at",
            "The device's clock when it sent the request goes into the envelope. It is 15 minutes fast, like the events' clock.",
            post().json(&json!({"sent_at": NOW + 15 * 60_000, "events": fast})),
        ),
        case("no-events", "An empty list is a valid request; nothing is appended.", post_events([])),
        case("traced", "The trace id of the header `traceparent` goes into the envelope.", traced),
        case_of(
            "every-documented-field",
            "With all fields that API Gateway can send, such as cookies, stage variables, a client certificate and an authorizer's claims: all are ignored.",
            with_every_field(post_events(example.watched(0, 0)).event()),
        ),
        away(case(
            "log-unavailable",
            "The log does not acknowledge: 503 and Retry-After. Nothing is accepted, and the device keeps its events.",
            post_events(example.watched(0, 1)),
        )),
    ]
}

/// Odd values that only decorate an event, or that have one meaning all the same.
fn adjusted() -> Vec<Case> {
    let example = Session::example();
    let odd = |seq: u64, fields: Value| {
        let mut event = example.event(seq, "progressed", seq * 10_000, 10_000);
        for (field, value) in fields.as_object().unwrap() {
            event[field] = value.clone();
        }
        event
    };
    vec![
        case(
            "adjusted",
            "Odd values: each event is kept, and the answer names what was clamped, rounded, normalised or dropped.",
            post_events([
                odd(1, json!({"title_duration_ms": 9_999})),
                odd(2, json!({"played_ms": 20_001})),
                odd(3, json!({"position_ms": 30_000.5, "played_ms": 9_999.9})),
                odd(4, json!({"device": {"id": "d00000308", "kind": "Android TV"}, "country": "us"})),
                odd(5, json!({"device": {"id": "#", "kind": 7}, "country": "USA"})),
                odd(6, json!({"device": "tablet", "occurred_at": "2026-09-21T14:13:30Z"})),
                odd(7, json!({"title_duration_ms": 0, "credits_ms": -1, "played_ms": -1})),
            ]),
        ),
        case(
            "numbers-in-another-spelling",
            "`10000.0` and `1e4` are the number 10000: nothing is adjusted.",
            post().text(
                "application/json",
                request([example.event(1, "progressed", 10_000, 10_000)])
                    .to_string()
                    .replacen(":10000,", ":10000.0,", 1)
                    .replacen(":10000,", ":1e4,", 1),
            ),
        ),
        case(
            "sent-at-not-understood",
            "A clock that cannot be read is dropped; the answer says so without an index, since it concerns the request.",
            post().json(&json!({"sent_at": "now", "events": example.watched(0, 0)})),
        ),
    ]
}

fn away(mut case: Case) -> Case {
    case.expected.given.away.insert(Part::Log);
    case
}

/// Adds the fields of AWS's example event that the template's API does not use.
fn with_every_field(mut event: Value) -> Value {
    event["cookies"] = json!(["cookie1=value1", "cookie2=value2"]);
    event["stageVariables"] = json!({"stageVariable1": "value1", "stageVariable2": "value2"});
    event["requestContext"]["authentication"] = json!({"clientCert": {
        "clientCertPem": "CERT_CONTENT",
        "subjectDN": "www.example.com",
        "issuerDN": "Example issuer",
        "serialNumber": "a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1:a1",
        "validity": {"notBefore": "May 28 12:30:02 2019 GMT", "notAfter": "Aug  5 09:36:04 2021 GMT"},
    }});
    event["requestContext"]["authorizer"] =
        json!({"jwt": {"claims": {"claim1": "value1", "claim2": "value2"}, "scopes": ["scope1", "scope2"]}});
    event
}

fn partly_accepted() -> Vec<Case> {
    let example = Session::example();
    let altered = |seq: u64, field: &str, value: Value| {
        let mut event = example.event(seq, "progressed", seq * 10_000, 10_000);
        event[field] = value;
        event
    };
    let mut without_seq = example.event(7, "progressed", 70_000, 0);
    without_seq.as_object_mut().unwrap().remove("seq");
    let not_utf8 = with_byte_ff(request([0, 1, 2].map(|seq| match seq {
        1 => altered(1, "app", json!("?")),
        seq => example.event(seq, "progressed", (seq + 1) * 10_000, 10_000),
    })));
    let old = Session::new(BEGAN - 31 * DAY_MS, 1);
    let offline = Session::new(BEGAN - 29 * DAY_MS, 2);
    let ahead = Session::new(BEGAN + 11 * 60_000, 3);
    let little_ahead = Session::new(BEGAN + 9 * 60_000, 4);
    let foreign = Session::new(BEGAN, 5).of_profile("p00000055");
    vec![
        case(
            "one-malformed-among-good",
            "A bad event rejects only itself: the ones before and after it are accepted, and the answer names its index.",
            post_events([
                example.event(0, "started", 0, 0),
                altered(1, "position_ms", json!(-1)),
                example.event(2, "progressed", 20_000, 10_000),
            ]),
        ),
        case(
            "not-utf8-among-good",
            "One event has a byte that is not UTF-8, in a field that is ignored: only this event is rejected.",
            post().header("content-encoding", "gzip").binary(EVENTS_TYPE, &gzip(&not_utf8)),
        ),
        case(
            "every-rule-broken-once",
            "Each event breaks one rule, except the last, which is valid.",
            post_events([
                json!("no object"),
                without_seq,
                altered(1, "seq", json!("1")),
                altered(1, "seq", json!(1.5)),
                altered(1, "title_id", json!(2)),
                altered(1, "session_id", json!("01M3250V3TW3KG5DD5CEVSMJCC")),
                altered(1, "profile_id", json!("p 54")),
                altered(1, "title_id", json!("")),
                altered(1, "seq", json!(65_536)),
                altered(1, "seq", json!(-1)),
                altered(1, "kind", json!("rewound")),
                altered(1, "position_ms", json!(-1)),
                altered(1, "position_ms", json!(MAX_POSITION_MS + 1)),
                example.event(2, "progressed", 20_000, 10_000),
            ]),
        ),
        case(
            "sessions-outside-the-window",
            "Sessions that began 31 days ago or begin in 11 minutes are rejected; 29 days and 9 minutes are accepted.",
            post_events(
                [old.watched(0, 0), offline.watched(0, 0), ahead.watched(0, 0), little_ahead.watched(0, 0)].concat(),
            ),
        ),
        case(
            "one-event-of-another-profile",
            "One event of another profile among events of the token's: it is rejected, the others are accepted.",
            post_events([example.watched(0, 0), foreign.watched(0, 0), example.watched(1, 1)].concat()),
        ),
    ]
}

/// The bytes of a body, with the byte 0xFF in place of the only `?`.
fn with_byte_ff(body: Value) -> Vec<u8> {
    let mut bytes = body.to_string().into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xFF;
    bytes
}

/// The media type of a compressed body, which API Gateway treats as binary. It treats
/// `application/json` as text.
const EVENTS_TYPE: &str = "application/vnd.playhead.events+json";

fn bodies() -> Vec<Case> {
    let body = request(Session::example().watched(0, 3)).to_string();
    let zipped = || post().header("content-encoding", "gzip");
    let spoilt = String::from_utf8_lossy(&gzip(body.as_bytes())).into_owned();
    let bomb = gzip(&vec![b' '; 4 * MAX_DECOMPRESSED_BYTES]);
    let too_many = vec![json!(0); MAX_EVENTS + 1];
    vec![
        case(
            "gzip",
            "The body of good-events, gzip: the same records.",
            zipped().binary(EVENTS_TYPE, &gzip(body.as_bytes())),
        ),
        case("gzip-bomb", "4 KB that decompress to 4 MiB: refused at 1 MiB.", zipped().binary(EVENTS_TYPE, &bomb)),
        case(
            "gzip-cut-off",
            "The compressed body is truncated.",
            zipped().binary(EVENTS_TYPE, &gzip(body.as_bytes())[..64]),
        ),
        case(
            "gzip-decompressed-on-the-way",
            "The header says gzip, but something in between has decompressed the body: accepted.",
            zipped().text("application/json", body.as_str()),
        ),
        case(
            "gzip-taken-for-text",
            "Compressed bytes of the type application/json that were decoded as UTF-8 in transit are lost: the answer says how to fix it.",
            zipped().text("application/json", spoilt),
        ),
        case(
            "base64-without-gzip",
            "A body in base64 that is not compressed, as API Gateway sends a type that it treats as binary.",
            post().binary("application/json", body.as_bytes()),
        ),
        case(
            "unknown-encoding",
            "Brotli is not supported.",
            post().header("content-encoding", "br").binary("application/json", b"\x0b"),
        ),
        case("wrong-content-type", "XML is not supported.", post().text("text/xml", "<events/>")),
        case("not-json", "The body is not JSON.", post().text("application/json", "{\"events\": [")),
        case("no-list-of-events", "JSON, but not in the contract's format.", post().json(&json!({"event": {}}))),
        case("too-many-events", "501 events are too many; none of them is read.", post_events(too_many)),
        case("no-body", "A request without a body.", post()),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    sample::gzip(bytes).unwrap()
}

fn senders() -> Vec<Case> {
    let body = request(Session::example().watched(0, 1));
    let by = |token: String| ApiRequest::new("POST", "/v1/events", "/v1/events").authorized(token).json(&body);
    let claims = json!({"profiles": [PROFILE], "exp": expires()});
    vec![
        case("no-token", "401.", ApiRequest::new("POST", "/v1/events", "/v1/events").json(&body)),
        case(
            "another-secret",
            "A token that is signed with another secret: 401.",
            by(bearer("another-secret-of-more-than-thirty-two-bytes", &claims)),
        ),
        case(
            "expired-token",
            "A token that expired in 2001: 401.",
            by(bearer(SECRET, &json!({"profiles": [PROFILE], "exp": 1_000_000_000}))),
        ),
        case(
            "token-of-nobody",
            "A token with neither `profiles` nor `scope`: 401.",
            by(bearer(SECRET, &json!({"exp": expires()}))),
        ),
        case(
            "another-profile",
            "All events belong to a profile that the token does not list: 403.",
            by(token_for(&["p00000055"])),
        ),
        case("service-token", "A backend's token may write every profile.", by(service_token())),
        case(
            "service-scope-in-a-list",
            "A backend's token whose scopes are a list, named `scp`, as some providers have it.",
            by(bearer(SECRET, &json!({"scp": ["read", "service"], "exp": expires()}))),
        ),
        case(
            "scope-of-another-form",
            "A member's token whose `scope` is a list without the service scope: valid for its profiles.",
            by(bearer(SECRET, &json!({"profiles": [PROFILE], "scope": ["openid"], "exp": expires()}))),
        ),
        case(
            "algorithm-not-allowed",
            "A token that says `alg: none`: 401 that names the algorithm and those that are allowed.",
            by("Bearer eyJhbGciOiJub25lIn0.e30.".to_owned()),
        ),
    ]
}

/// What `navigator.sendBeacon` sends: text, without an `authorization` header.
fn beacons() -> Vec<Case> {
    let with_token = |token: Option<String>| {
        let mut body = request(Session::example().watched(0, 1));
        if let Some(token) = token {
            body["token"] = json!(token.trim_start_matches("Bearer "));
        }
        body.to_string()
    };
    let plain = |body: String| {
        ApiRequest::new("POST", "/v1/events", "/v1/events")
            .header("origin", "https://play.example.com")
            .text("text/plain;charset=UTF-8", body)
    };
    vec![
        case(
            "beacon",
            "A page that closes sends text, with the token in the body: accepted.",
            plain(with_token(Some(token_for(&[PROFILE])))),
        ),
        case(
            "beacon-without-token",
            "A beacon without a token: 401, and no word about the body.",
            plain(with_token(None)),
        ),
        case(
            "beacon-with-header",
            "Text with an `authorization` header is no beacon: 415.",
            plain(with_token(Some(token_for(&[PROFILE])))).authorized(token_for(&[PROFILE])),
        ),
    ]
}

fn limits() -> Vec<Case> {
    // 51 sessions that begin a second apart, and then another event of the first one.
    let sessions = || (0..51).map(|n| Session::new(BEGAN - u64::from(n) * 1_000, n));
    let many = || sessions().flat_map(|session| session.watched(0, 0)).chain(Session::new(BEGAN, 0).watched(1, 1));
    let mut over_budget = case(
        "too-many-events-per-minute",
        "The same request as a moment ago; the two have more events than the profile's budget: 429 that names the profile.",
        post_events(Session::example().watched(0, 1)),
    );
    over_budget.expected.given.budget = Some(3);
    vec![
        case(
            "too-many-sessions",
            "Events of 51 sessions by a member: those of the last session are rejected, to be sent again later.",
            post_events(many()),
        ),
        case(
            "many-sessions-of-a-backend",
            "The same by a backend: all accepted.",
            ApiRequest::new("POST", "/v1/events", "/v1/events").authorized(service_token()).json(&request(many())),
        ),
        over_budget,
    ]
}

fn sessions() -> Vec<Case> {
    let mint = || ApiRequest::new("POST", "/v1/sessions", "/v1/sessions");
    vec![
        case(
            "mint-session",
            "A new session id, of this region and this moment.",
            mint().authorized(token_for(&[PROFILE])),
        ),
        case("mint-session-without-token", "401.", mint()),
    ]
}

fn elsewhere() -> Vec<Case> {
    let token = || token_for(&[PROFILE]);
    vec![
        case(
            "method-not-allowed",
            "GET /v1/events: 405.",
            ApiRequest::new("GET", "/v1/events", "/v1/events").authorized(token()),
        ),
        case(
            "nothing-there",
            "POST /v2/events: 404.",
            ApiRequest::new("POST", "/v2/events", "/v2/events").authorized(token()),
        ),
        case(
            "behind-a-mapping-key",
            "Behind a custom domain with the mapping key `playhead`: the route key counts, not the path.",
            post_events(Session::example().watched(0, 0)).behind("/playhead"),
        ),
        case(
            "on-a-named-stage",
            "On the stage `prod`, which the path begins with.",
            post_events(Session::example().watched(0, 0)).on_stage("prod", "/prod"),
        ),
    ]
}
