//! `docs/openapi.yaml` says what the code does: the same routes, fields, codes and limits. The
//! golden requests and answers of `events/api`, which the functions themselves make, match it. So do
//! the examples in the documents for players.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use boon::{Compiler, Draft, Schemas};
use playback::contract::{Country, Kind};
use playback::contract::{
    MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES, MAX_DEVICE_KIND_BYTES, MAX_EVENTS, MAX_ID_BYTES, MAX_INSTANT,
    MAX_POSITION_MS, MAX_SEQ, MAX_TITLE_DURATION_MS, is_device_kind, is_id,
};
use playback::edge::{Adjustment, BodyText, Change, Code, Rejection, SessionWindow, Valid, parse_request, validate};
use playback::session::SessionId;
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use store::dynamodb::{MAX_PAGE, MAX_TITLES};

/// Unix milliseconds, a moment after the examples.
const NOW: u64 = 1_790_086_400_000;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> Value {
    yaml_serde::from_str(&read("docs/openapi.yaml")).unwrap()
}

/// The value at a JSON pointer.
fn at<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("docs/openapi.yaml has no {pointer}"))
}

/// A component's schema.
fn schema<'a>(document: &'a Value, name: &str) -> &'a Value {
    at(document, &format!("/components/schemas/{name}"))
}

/// Where a value is, or what it refers to.
fn resolved(document: &Value, pointer: String) -> String {
    match at(document, &pointer)["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => pointer.to_owned(),
        None => pointer,
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The strings of a list.
fn strings(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    let strings: BTreeSet<String> = list.iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    assert_eq!(strings.len(), list.len(), "something is there twice: {list:?}");
    strings
}

/// The names of an object's members.
fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().cloned().collect()
}

/// Where each operation is, by the key of its route.
fn operations(document: &Value) -> BTreeMap<String, String> {
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["get", "put", "post", "delete", "options", "head", "patch", "trace"].contains(&method.as_str()) {
                let pointer = format!("/paths/{}/{method}", escaped(path));
                operations.insert(format!("{} {path}", method.to_uppercase()), pointer);
            }
        }
    }
    operations
}

/// Validates values against the document's schemas.
struct Validator<'a> {
    document: &'a Value,
    compiler: RefCell<Compiler>,
    schemas: RefCell<Schemas>,
}

impl<'a> Validator<'a> {
    const PLACE: &'static str = "http://playhead.example/openapi.json";

    fn new(document: &'a Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource(Self::PLACE, document.clone()).unwrap();
        Self { document, compiler: RefCell::new(compiler), schemas: RefCell::new(Schemas::new()) }
    }

    /// Whether a value matches the schema at a JSON pointer, and if not, why.
    fn check(&self, pointer: &str, value: &Value) -> Result<(), String> {
        at(self.document, pointer);
        let (mut compiler, mut schemas) = (self.compiler.borrow_mut(), self.schemas.borrow_mut());
        let place = format!("{}#{}", Self::PLACE, pointer.replace('{', "%7B").replace('}', "%7D"));
        let compiled = compiler.compile(&place, &mut schemas).unwrap_or_else(|error| panic!("{error:#}"));
        schemas.validate(value, compiled).map_err(|error| format!("{error:#}\n{value}"))
    }

    /// The same for a component.
    fn check_component(&self, name: &str, value: &Value) -> Result<(), String> {
        self.check(&format!("/components/schemas/{name}"), value)
    }
}

/// The same document with objects that allow only the members they name. A description may leave
/// out none of an answer's members, but readers must accept new ones.
fn closed(mut document: Value) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                members.values_mut().for_each(close);
                if members.contains_key("type") && members.contains_key("properties") {
                    members.insert("additionalProperties".to_owned(), json!(false));
                }
            }
            Value::Array(list) => list.iter_mut().for_each(close),
            _ => {}
        }
    }
    close(&mut document["components"]["schemas"]);
    document
}

// -------------------------------------------------------------------------------- routes and codes

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = document();
    let described: BTreeSet<String> = operations(&document).into_keys().collect();
    let served: BTreeSet<String> = ingest::route_keys().chain(query::route_keys()).map(str::to_owned).collect();
    assert_eq!(described, served);
    // The names in a path are its parameters, and each operation has a name of its own.
    for (path, item) in document["paths"].as_object().unwrap() {
        let count = item["parameters"].as_array().map_or(0, Vec::len);
        let place = |index| resolved(&document, format!("/paths/{}/parameters/{index}", escaped(path)));
        let parameters: BTreeSet<&str> =
            (0..count).map(|index| at(&document, &place(index))["name"].as_str().unwrap()).collect();
        let named: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(parameters, named, "{path}");
    }
    let ids = operations(&document).into_values().map(|place| at(&document, &place)["operationId"].to_string());
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), served.len());
}

#[test]
fn every_code_is_described_and_nothing_else() {
    let document = document();
    let rejected = schema(&document, "Rejected");
    assert_eq!(strings(&rejected["properties"]["code"]["enum"]), Code::ALL.map(|code| code.as_str().to_owned()).into());
    let retryable = Code::ALL.into_iter().filter(|code| code.is_retryable()).map(|code| code.as_str().to_owned());
    assert_eq!(strings(at(rejected, "/allOf/0/if/properties/code/enum")), retryable.collect());
    let changes = [Change::PositionPastEnd, Change::Clamped, Change::Rounded, Change::Normalised, Change::Dropped];
    let changes = changes.map(|change| {
        // A new change must be added to the list above.
        match change {
            Change::PositionPastEnd | Change::Clamped | Change::Rounded | Change::Normalised | Change::Dropped => {}
        }
        serde_json::to_value(change).unwrap().as_str().unwrap().to_owned()
    });
    let adjusted = strings(&schema(&document, "Adjusted")["properties"]["code"]["enum"]);
    assert_eq!(adjusted, changes.clone().into());
    let problems = problems_in_code();
    assert_eq!(problems_described(&document), problems);
    let api = read("docs/api.md");
    let codes = problems.into_iter().map(|(_, code)| code).chain(changes);
    let missing: Vec<String> = codes.filter(|code| !api.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/api.md does not name {missing:?}");
}

/// Status and code of every problem that a response describes.
fn problems_described(document: &Value) -> BTreeSet<(u16, String)> {
    let mut described = BTreeSet::new();
    let operations = operations(document);
    let responses = operations.values().map(|place| at(document, place)["responses"].as_object().unwrap());
    let mut statuses: BTreeSet<(String, String)> = responses
        .flatten()
        .filter_map(|(status, response)| {
            let name = response["$ref"].as_str()?.strip_prefix("#/components/responses/")?;
            Some((name.to_owned(), status.clone()))
        })
        .collect();
    // The gateway lets no request come to these.
    statuses.extend([("NotFound", "404"), ("MethodNotAllowed", "405")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let used: BTreeSet<String> = statuses.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(used, keys(at(document, "/components/responses")), "unused, or used and absent");
    for (name, status) in statuses {
        let response = at(document, &format!("/components/responses/{name}"));
        if let Some(problem) = response.pointer("/content/application~1problem+json/schema") {
            let codes = strings(&problem["properties"]["code"]["enum"]);
            described.extend(codes.into_iter().map(|code| (status.parse().unwrap(), code)));
        }
    }
    described
}

/// Status and code of every problem that the code of the two functions makes.
fn problems_in_code() -> BTreeSet<(u16, String)> {
    let places = ["functions/ingest/src", "functions/query/src", "shared/lambda/src"];
    let mut code = String::new();
    for place in places {
        read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(place), &mut code);
    }
    // A constructor, perhaps with a status, and its first text or constant.
    let made = Regex::new(
        r#"(?:Problem|Self)::(new|bad_request|unauthorized|too_many_requests|unavailable)\(\s*(?:StatusCode::([A-Z_]+),\s*)?(?:"([a-z_]+)"|Code::([A-Za-z]+)\.as_str\(\))"#,
    );
    let mut problems = BTreeSet::new();
    for one in made.unwrap().captures_iter(&code) {
        let status = match (&one[1], one.get(2).map(|status| status.as_str())) {
            ("bad_request", _) => 400,
            ("unauthorized", _) => 401,
            ("too_many_requests", _) => 429,
            ("unavailable", _) => 503,
            (_, Some("FORBIDDEN")) => 403,
            (_, Some("NOT_FOUND")) => 404,
            (_, Some("METHOD_NOT_ALLOWED")) => 405,
            (_, Some("PAYLOAD_TOO_LARGE")) => 413,
            (_, Some("UNSUPPORTED_MEDIA_TYPE")) => 415,
            (_, Some("BAD_GATEWAY")) => 502,
            other => panic!("which status is {other:?}?"),
        };
        let constant = |name: &str| Code::ALL.into_iter().find(|code| format!("{code:?}") == name).unwrap().as_str();
        let code = one.get(3).map_or_else(|| constant(&one[4]), |code| code.as_str());
        problems.insert((status, code.to_owned()));
    }
    problems
}

/// Adds the code of a folder, without its tests.
fn read_folder(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(&path, code);
        } else if path.file_name().unwrap() != "tests.rs" {
            code.push_str(fs::read_to_string(&path).unwrap().split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

// --------------------------------------------------------------------------- the event's fields

/// An event with every field.
fn event() -> Value {
    json!({"session_id": "use1-01M3250V3TW3KG5DD5CEVSMJCC", "profile_id": "p00000054", "title_id": "t000002", "seq": 1,
        "kind": "progressed", "position_ms": 604_800_000, "played_ms": 10_000, "title_duration_ms": 604_800_000,
        "credits_ms": 604_000_000, "occurred_at": 1_790_000_010_122_u64,
        "device": {"id": "d00000308", "kind": "tablet"}, "country": "US"})
}

/// The event with one field set, or removed.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut event = event();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(field.to_owned(), value),
        None => parent.remove(field),
    };
    event
}

fn check(event: &Value) -> Result<Valid, Rejection> {
    let body = json!({"events": [event]}).to_string();
    let body = BodyText::new(body.as_bytes());
    validate(parse_request(&body).unwrap().events[0], NOW, SessionWindow::default())
}

/// Whether the event is accepted as it stands.
fn is_clean(event: &Value) -> bool {
    check(event).is_ok_and(|valid| valid.adjusted.is_empty())
}

#[test]
fn fields_of_an_event_are_those_that_the_code_reads() {
    let document = document();
    let (validator, described) = (Validator::new(&document), schema(&document, "Event"));
    let matches = |event: &Value| validator.check_component("Event", event);
    assert!(is_clean(&event()));
    let required = strings(&described["required"]);
    let properties = keys(&described["properties"]);
    assert_eq!(properties, keys(&event()), "the event above has every field");
    let mut adjusted = BTreeSet::new();
    for field in &properties {
        let pointer = format!("/{field}");
        let (absent, odd) = (with(&pointer, None), with(&pointer, Some(json!([1]))));
        if required.contains(field) {
            assert_eq!(check(&absent).unwrap_err().code, Code::FieldMissing, "{field}");
            assert_eq!(check(&odd).unwrap_err().code, Code::FieldType, "{field}");
        } else {
            assert!(is_clean(&absent) && is_clean(&with(&pointer, Some(Value::Null))), "{field}");
            adjusted.extend(notes(&odd));
        }
        assert_eq!(matches(&absent).is_err(), required.contains(field), "{field}");
        assert!(matches(&odd).is_err(), "{field}");
    }
    for field in ["id", "kind"] {
        let pointer = format!("/device/{field}");
        let (absent, odd) = (with(&pointer, None), with(&pointer, Some(json!([1]))));
        assert!(is_clean(&absent) && matches(&absent).is_ok(), "{field}");
        assert!(matches(&odd).is_err(), "{field}");
        adjusted.extend(notes(&odd));
    }
    assert_eq!(keys(&described["properties"]["device"]["properties"]), ["id", "kind"].map(str::to_owned).into());
    // The position is adjusted too, and so is one member of the request.
    adjusted.extend(["position_ms", "sent_at"].map(str::to_owned));
    assert_eq!(strings(&schema(&document, "Adjusted")["properties"]["field"]["enum"]), adjusted);
    // And the code reads no other field.
    let code = read("shared/playback/src/edge.rs");
    let of = |name: &str| {
        let fields = code.split_once(&format!("struct {name}<'a> {{")).unwrap().1.split_once("\n}").unwrap().0;
        let lines = fields.lines().filter_map(|line| Some(line.trim().split_once(": ")?.0.to_owned()));
        lines.collect::<BTreeSet<String>>()
    };
    assert_eq!(of("Fields"), properties);
    assert_eq!(of("DeviceFields"), ["id", "kind"].map(str::to_owned).into());
}

/// The fields that were adjusted.
fn notes(event: &Value) -> BTreeSet<String> {
    let notes = check(event).unwrap().adjusted.into_iter();
    notes.map(|Adjustment { field, .. }| field.to_owned()).collect()
}

// ------------------------------------------------------------------------------- limits and ids

#[test]
fn limits_and_ids_are_those_of_the_code() {
    let document = document();
    let number = |pointer: &str| at(&document, pointer).as_u64().unwrap_or_else(|| panic!("{pointer}: no number"));
    let body = "/paths/~1v1~1events/post/requestBody";
    assert_eq!(number(&format!("{body}/x-max-bytes")), MAX_BODY_BYTES as u64);
    assert_eq!(number(&format!("{body}/x-max-decompressed-bytes")), MAX_DECOMPRESSED_BYTES as u64);
    let of = |schema: &str| format!("/components/schemas/{schema}");
    assert_eq!(number(&of("EventsRequest/properties/events/maxItems")), MAX_EVENTS as u64);
    assert_eq!(number(&of("Accepted/properties/accepted/maximum")), MAX_EVENTS as u64);
    assert_eq!(number(&of("Id/maxLength")), MAX_ID_BYTES as u64);
    assert_eq!(number(&of("Instant/maximum")), MAX_INSTANT);
    assert_eq!(number(&of("Session/properties/events/maximum")), MAX_SEQ + 1);
    assert_eq!(number("/components/parameters/Limit/schema/maximum"), MAX_PAGE as u64);
    let ids = at(&document, "/paths/~1v1~1profiles~1{profile_id}~1titles/get/parameters/0/schema/maxItems");
    assert_eq!(ids.as_u64(), Some(MAX_TITLES as u64));
    assert_eq!(number(&of("Titles/properties/titles/maxItems")), MAX_TITLES as u64);
    // The least and the greatest number of each field are accepted as they stand, and no others.
    let validator = Validator::new(&document);
    let long = "k".repeat(MAX_DEVICE_KIND_BYTES);
    assert!(is_clean(&with("/device/kind", Some(json!(long)))));
    for (field, most) in [
        ("seq", MAX_SEQ),
        ("position_ms", MAX_POSITION_MS),
        ("played_ms", MAX_TITLE_DURATION_MS),
        ("title_duration_ms", MAX_TITLE_DURATION_MS),
        ("credits_ms", MAX_TITLE_DURATION_MS),
        ("occurred_at", MAX_INSTANT),
    ] {
        let bounds = schema(&document, "Event").pointer(&format!("/properties/{field}")).unwrap();
        assert_eq!(bounds["maximum"].as_u64(), Some(most), "{field}");
        let least = bounds["minimum"].as_i64().unwrap();
        for value in [json!(least - 1), json!(least), json!(most), json!(most + 1)] {
            let mut event = event();
            // Only this field can be at fault.
            for other in ["title_duration_ms", "played_ms"].iter().filter(|other| **other != field) {
                event.as_object_mut().unwrap().remove(*other);
            }
            if field == "title_duration_ms" {
                event["position_ms"] = json!(0);
            }
            event[field] = value.clone();
            let described = validator.check_component("Event", &event).is_ok();
            assert_eq!(is_clean(&event), described, "{field} = {value}");
        }
    }
    let sent_at = schema(&document, "EventsRequest").pointer("/properties/sent_at").unwrap();
    assert_eq!((&sent_at["minimum"], &sent_at["maximum"]), (&json!(1), &json!(MAX_INSTANT)));
    assert_eq!(strings(&schema(&document, "Kind")["enum"]), Kind::ALL.map(|kind| kind.as_str().to_owned()).into());
}

#[test]
fn described_forms_accept_what_the_code_accepts() {
    let document = document();
    let texts: Vec<String> = (0..=0x17f_u32)
        .filter_map(char::from_u32)
        .flat_map(|letter| [format!("{letter}"), format!("a{letter}"), format!("{letter}9"), format!("a{letter}b")])
        .chain(["", "..", "...", "~", "a~", "crid://a.example/b", "10.5240/7791-8534"].map(str::to_owned))
        .chain(["urn:uuid:8b1f2c9e", "a\nb", "a\n", "é", "电视"].map(str::to_owned))
        .chain([32, 33, 128, 129].map(|length| "k".repeat(length)))
        .chain(["US", "us", "U", "USA", "U1", "ÜS"].map(str::to_owned))
        .collect();
    let validator = Validator::new(&document);
    let agree = |pointer: &str, accepts: &dyn Fn(&str) -> bool| {
        for text in &texts {
            assert_eq!(validator.check(pointer, &json!(text)).is_ok(), accepts(text), "{text:?} at {pointer}");
        }
    };
    agree("/components/schemas/Id", &is_id);
    agree("/components/schemas/Event/properties/device/properties/kind", &is_device_kind);
    agree("/components/schemas/Event/properties/country", &|text| text.parse::<Country>().is_ok());
    let ulid = "01M3250V3TW3KG5DD5CEVSMJCC";
    let homes = ["use1", "apse2", "usgw1", "a1", "u", "1", "us", "USE1", "use1x", "abcdefg1", "abcdefgh1", "", "us-1"];
    let ulids = [
        ulid,
        "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "80000000000000000000000000",
        "01m3250v3tw3kg5dd5cevsmjcc",
        "01M3250V3TW3KG5DD5CEVSMJC",
        "01M3250V3TW3KG5DD5CEVSMJCCC",
        "01M3250V3TW3KG5DD5CEVSMJCU",
        "O1M3250V3TW3KG5DD5CEVSMJCC",
    ];
    let ids = homes.map(|home| format!("{home}-{ulid}")).into_iter().chain(ulids.map(|ulid| format!("use1-{ulid}")));
    let mut accepted = 0;
    for id in ids.chain([ulid, "use1", "", "use1_01M3250V3TW3KG5DD5CEVSMJCC"].map(str::to_owned)) {
        let accepts = id.parse::<SessionId>().is_ok();
        assert_eq!(validator.check_component("SessionId", &json!(id)).is_ok(), accepts, "{id:?}");
        accepted += usize::from(accepts);
    }
    assert_eq!(accepted, 7);
}

// ---------------------------------------------------------------------- golden events and examples

/// The golden requests, with what is expected, by name.
fn golden() -> BTreeMap<String, (Value, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("events/api");
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".expected.json") {
            let parse = |suffix: &str| serde_json::from_str(&read(&format!("events/api/{name}{suffix}"))).unwrap();
            cases.insert(name.to_owned(), (parse(".json"), parse(".expected.json")));
        }
    }
    assert!(cases.len() > 60, "only {} golden requests were found", cases.len());
    cases
}

#[test]
fn golden_requests_and_answers_match_the_description() {
    let (open, closed) = (document(), closed(document()));
    let (requests, answers) = (Validator::new(&open), Validator::new(&closed));
    let operations = operations(&open);
    let (mut answered, mut compared) = (BTreeSet::new(), 0);
    for (name, (request, expected)) in golden() {
        let key = request["routeKey"].as_str().unwrap();
        let response = &expected["expect"]["response"];
        let status = response["statusCode"].as_u64().unwrap().to_string();
        let described = match (status.as_str(), operations.get(key)) {
            // The gateway answers these by itself, unless it is set up in another way.
            ("404", None) => "/components/responses/NotFound".to_owned(),
            ("405", _) => "/components/responses/MethodNotAllowed".to_owned(),
            (_, Some(operation)) => format!("{operation}/responses/{status}"),
            (_, None) => panic!("{name}: {key} is not described"),
        };
        assert!(open.pointer(&described).is_some(), "{name}: {key} describes no {status}");
        let described = resolved(&open, described);
        check_answer(&answers, &described, response).unwrap_or_else(|why| panic!("{name}: {why}"));
        answered.insert((key.to_owned(), status));
        if key == "POST /v1/events" && request["isBase64Encoded"] == false {
            compared += check_request(&requests, &request, response).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
    assert!(compared > 50, "only {compared} events were compared");
    for (key, operation) in &operations {
        let statuses = at(&open, operation)["responses"].as_object().unwrap().keys();
        let mut successes = statuses.filter(|status| status.starts_with('2'));
        let is_shown = successes.any(|status| answered.contains(&(key.clone(), status.clone())));
        assert!(is_shown, "no golden event shows a success of {key}");
    }
}

/// Checks headers and body of an answer against its description.
fn check_answer(validator: &Validator<'_>, described: &str, response: &Value) -> Result<(), String> {
    let headers = response["headers"].as_object().ok_or("no headers")?;
    let response_described = at(validator.document, described);
    for name in response_described["headers"].as_object().into_iter().flat_map(Map::keys) {
        let header = resolved(validator.document, format!("{described}/headers/{}", escaped(name)));
        if at(validator.document, &header)["required"] == true && !headers.contains_key(&name.to_lowercase()) {
            return Err(format!("lacks the header {name}"));
        }
    }
    // Only files without anything of a member may be kept. A problem's description names no header.
    let kept = if response_described["headers"]["Cache-Control"].is_null() {
        json!("no-store")
    } else {
        let header = resolved(validator.document, format!("{described}/headers/Cache-Control"));
        at(validator.document, &header)["schema"]["const"].clone()
    };
    if headers.get("cache-control") != Some(&kept) {
        return Err(format!("may be kept differently from {kept}"));
    }
    if response_described["content"].is_null() {
        return if response["body"] == "" { Ok(()) } else { Err("has a body".to_owned()) };
    }
    let sent = headers.get("content-type").and_then(Value::as_str).ok_or("no content-type")?;
    let schema = format!("{described}/content/{}/schema", escaped(sent));
    if validator.document.pointer(&schema).is_none() {
        return Err(format!("{sent} is not described"));
    }
    let mut body = response["body"].clone();
    // Golden events replace what is random.
    if body["session_id"].as_str().is_some_and(|id| id.starts_with('<')) {
        body["session_id"] = event()["session_id"].clone();
    }
    validator.check(&schema, &body)
}

/// Checks a request for events against the answer: the description accepts exactly what the code
/// accepted as it stands. Returns the number of events compared.
fn check_request(validator: &Validator<'_>, request: &Value, response: &Value) -> Result<usize, String> {
    let is_beacon = request["headers"]["content-type"].as_str().is_some_and(|sent| sent.starts_with("text/plain"));
    let whole = if is_beacon { "BeaconRequest" } else { "EventsRequest" };
    let Ok(body) = serde_json::from_str::<Value>(request["body"].as_str().unwrap_or_default()) else {
        return Ok(0);
    };
    match response["statusCode"].as_u64() {
        Some(202) => {}
        Some(400 | 413) => {
            let is_refused = validator.check_component(whole, &body).is_err();
            return if is_refused { Ok(0) } else { Err("the description accepts a malformed request".to_owned()) };
        }
        _ => return Ok(0),
    }
    let of = |list: &str| {
        let list = response["body"][list].as_array().into_iter().flatten();
        let by_index = |one: &Value| Some((one["index"].as_u64()? as usize, one.clone()));
        list.filter_map(by_index).collect::<BTreeMap<usize, Value>>()
    };
    let (rejected, adjusted) = (of("rejected"), of("adjusted"));
    let events = body["events"].as_array().ok_or("no events")?;
    for (index, event) in events.iter().enumerate() {
        // What a schema cannot know: the clock, the token, the other events, the other fields.
        let context = ["session_too_old", "session_too_far_ahead", "profile_forbidden", "too_many_sessions"];
        let is_of_context = |one: &Value| context.iter().any(|code| one["code"] == *code);
        let is_of_others = |one: &Value| {
            one["code"] == "position_past_end" || (one["code"] == "clamped" && one["field"] == "played_ms")
        };
        let is_expected =
            rejected.get(&index).is_none_or(is_of_context) && adjusted.get(&index).is_none_or(is_of_others);
        let described = validator.check_component("Event", event);
        if described.is_ok() != is_expected {
            return Err(format!("event {index} should match: {is_expected}, but {described:?}\n{event}"));
        }
    }
    let is_untouched = |list: &str| response["body"][list].as_array().is_some_and(Vec::is_empty);
    if is_untouched("rejected") && is_untouched("adjusted") {
        validator.check_component(whole, &body)?;
    }
    Ok(events.len())
}

#[test]
fn examples_of_the_description_match_it() {
    let document = closed(document());
    let validator = Validator::new(&document);
    let mut seen = 0;
    // Wherever there is a schema and an example beside it.
    let mut rest = vec![String::new()];
    while let Some(pointer) = rest.pop() {
        let value = at(&document, &pointer);
        let schema = format!("{pointer}/schema");
        let mut examples: Vec<&Value> = value.get("example").into_iter().collect();
        for name in value.get("examples").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            examples.push(&at(&document, &resolved(&document, format!("{pointer}/examples/{name}")))["value"]);
        }
        if value.get("schema").is_some() {
            for example in examples {
                validator.check(&schema, example).unwrap();
                seen += 1;
            }
        }
        match value {
            Value::Object(members) => rest.extend(members.keys().map(|name| format!("{pointer}/{}", escaped(name)))),
            Value::Array(list) => rest.extend((0..list.len()).map(|index| format!("{pointer}/{index}"))),
            _ => {}
        }
    }
    assert!(seen >= 12, "only {seen} examples were found");
}

/// The JSON blocks of a document.
fn blocks(path: &str) -> Vec<Value> {
    let text = read(path);
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{path}: {error}\n{block}"))).collect()
}

#[test]
fn examples_for_players_are_accepted_unchanged() {
    let document = document();
    let validator = Validator::new(&document);
    let requests = blocks("docs/players.md");
    assert!(requests.len() >= 7, "only {} examples were found", requests.len());
    for request in &requests {
        let text = request.to_string();
        let body = BodyText::new(text.as_bytes());
        let parsed = parse_request(&body).unwrap();
        let sent_at = parsed.sent_at.expect("an example shows `sent_at`");
        assert!(!parsed.events.is_empty());
        for event in parsed.events {
            let valid = validate(event, sent_at + 100, SessionWindow::default());
            let adjusted = valid.unwrap_or_else(|rejection| panic!("{rejection}: {}", event.json)).adjusted;
            assert!(adjusted.is_empty(), "{adjusted:?}: {}", event.json);
        }
        let is_beacon = request.get("token").is_some();
        validator.check_component(if is_beacon { "BeaconRequest" } else { "EventsRequest" }, request).unwrap();
    }
}

#[test]
fn examples_of_the_api_page_match_the_description() {
    let document = closed(document());
    let validator = Validator::new(&document);
    let mut seen = BTreeSet::new();
    for example in blocks("docs/api.md") {
        let has = |member: &str| example.get(member).is_some();
        let name = match () {
            () if has("accepted") => "Accepted",
            () if has("events") && has("hidden") => "Session",
            () if has("events") => "EventsRequest",
            () if has("resume") => "Title",
            () if has("detail") => "Problem",
            () => panic!("what is this? {example}"),
        };
        validator.check_component(name, &example).unwrap();
        seen.insert(name);
    }
    assert_eq!(seen.len(), 5, "only {seen:?} were found");
}

#[test]
fn a_wrong_description_is_noticed() {
    let (document, closed) = (document(), closed(document()));
    let (open, strict) = (Validator::new(&document), Validator::new(&closed));
    let example = at(&document, "/components/responses/Sessions/content/application~1json/example/sessions/0");
    let fails = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut altered = example.as_object().unwrap().clone();
        change(&mut altered);
        strict.check_component("Session", &Value::Object(altered)).is_err()
    };
    assert!(open.check_component("Session", example).is_ok() && !fails(&|_| {}));
    assert!(fails(&|session| drop(session.remove("missing"))));
    assert!(fails(&|session| drop(session.insert("new".to_owned(), json!(1)))));
    assert!(fails(&|session| session["device"]["name"] = json!("x")));
    assert!(fails(&|session| session["hidden"] = json!("no")));
    assert!(fails(&|session| session["session_id"] = json!("x")));
}
