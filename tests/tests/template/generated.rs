//! `infra/observability.yaml` is what `infra/observe` makes; every metric is watched; every alarm
//! has its section in the runbook; and saved queries name fields that our logs have.

use std::collections::{BTreeMap, BTreeSet};

use lambda::metrics::{Metric, NAMESPACE};
use observe::alarms::Severity;
use observe::queries::Logs;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use super::{TEMPLATES, object, observability, of_type, properties, root, template};

/// `PLAYHEAD_BLESS=1 cargo test -p playhead-tests --test template -- generated` writes it again.
#[test]
fn observability_is_generated_from_its_types() {
    let path = root().join(TEMPLATES[1]);
    if std::env::var_os("PLAYHEAD_BLESS").is_some() {
        std::fs::write(&path, observe::template()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == observe::template(), "write it again with PLAYHEAD_BLESS=1");
}

/// Each name after `of ours` in an alarm or on the dashboard. The compiler holds each to the enum
/// already; here the file is held to it.
#[test]
fn every_metric_is_watched_and_every_watched_metric_exists() {
    let observability = observability();
    let mut watched = BTreeSet::new();
    for alarm in of_type(&observability, "AWS::CloudWatch::Alarm").into_values() {
        collect(&alarm, &mut watched);
    }
    let dashboard = properties(&observability, "Dashboard")["DashboardBody"]["Fn::Sub"][0].as_str().unwrap().to_owned();
    let dashboard: Value = serde_json::from_str(&dashboard.replace(r"${Mappings}", "a")).unwrap();
    for widget in dashboard["widgets"].as_array().unwrap() {
        for line in widget["properties"]["metrics"].as_array().into_iter().flatten() {
            if line[0] == NAMESPACE {
                watched.insert(line[1].as_str().unwrap().to_owned());
            }
            let search = line[0]["expression"].as_str().filter(|text| text.contains(&format!("{{{NAMESPACE},")));
            let name = search.and_then(|text| text.split_once("MetricName=\"")?.1.split('"').next());
            watched.extend(name.map(str::to_owned));
        }
    }
    let all: BTreeSet<String> = Metric::iter().map(|metric| metric.name().to_owned()).collect();
    assert_eq!(watched, all, "watched (left), in the enum (right)");
}

/// The names of our metrics anywhere in an alarm.
fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if fields.get("Namespace").is_some_and(|namespace| namespace == NAMESPACE) {
                names.insert(fields["MetricName"].as_str().unwrap().to_owned());
            }
            fields.values().for_each(|value| collect(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

/// The sections of the runbook by their heading, each up to the next heading.
fn runbook() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("docs/operate.md")).unwrap();
    let sections = text.split("\n### ").skip(1).map(|section| section.split("\n## ").next().unwrap());
    let part = |section: &str| {
        let (heading, body) = section.split_once('\n').unwrap();
        (heading.trim_matches('`').to_owned(), body.to_owned())
    };
    sections.map(part).collect()
}

#[test]
fn every_alarm_has_a_section_that_says_four_things() {
    let runbook = runbook();
    let alarms = of_type(&observability(), "AWS::CloudWatch::Alarm");
    for id in alarms.keys() {
        let section = runbook.get(id).unwrap_or_else(|| panic!("docs/operate.md has no section {id}"));
        let mut rest = section.as_str();
        for part in ["**Means.**", "**Look at.**", "**Do.**", "**Over when.**"] {
            let (before, after) = rest.split_once(part).unwrap_or_else(|| panic!("{id}: {part} is missing"));
            assert!(part == "**Means.**" || before.trim().len() > 20, "{id}: too little before {part}");
            rest = after;
        }
        assert!(rest.trim().len() > 20, "{id} does not say how to prove that it is over");
    }
    let of_alarms = runbook.keys().filter(|heading| heading.ends_with("Alarm"));
    assert_eq!(of_alarms.collect::<BTreeSet<_>>(), alarms.keys().collect(), "sections (left), alarms (right)");
}

#[test]
fn every_alarm_links_to_its_section_and_says_how_severe_it_is() {
    let known = template()["Parameters"]["RunbookUrl"]["Default"].clone();
    assert!(root().join(known.as_str().unwrap()).exists(), "the default is the runbook of this repository");
    let runbook = runbook();
    let mut severities = BTreeSet::new();
    for (id, alarm) in of_type(&observability(), "AWS::CloudWatch::Alarm") {
        let description = alarm["AlarmDescription"]["Fn::Sub"].as_str().unwrap();
        let severity = Severity::ALL.into_iter().find(|one| description.starts_with(&format!("[{one}] ")));
        severities.insert(severity.unwrap_or_else(|| panic!("{id} does not say how severe it is")));
        let (_, anchor) = description.rsplit_once(" Runbook: ${RunbookUrl}#").unwrap();
        // A heading of one word has that word in lower case as its anchor.
        assert!(runbook.keys().any(|heading| heading.to_ascii_lowercase() == anchor), "{id} links to {anchor}");
        assert_eq!(anchor, id.to_ascii_lowercase());
    }
    assert_eq!(severities.len(), Severity::ALL.len());
}

/// Fields of the log lines that queries name: of Lambda and Logs Insights, of our lines, of our
/// metrics, and of the API's access log.
#[test]
fn saved_queries_name_fields_that_our_logs_have() {
    let code: String = ["functions", "shared"].into_iter().map(|folder| sources(&root().join(folder))).collect();
    let logged = logged_fields(&code);
    assert!(logged.contains("trace_id") && !logged.contains("unit"), "these are fields of log lines: {logged:?}");
    let access = properties(&template(), "ApiStage")["AccessLogSettings"]["Format"].as_str().unwrap().to_owned();
    let access: Value = serde_json::from_str(&access).unwrap();
    let of_the_line = ["level", "message", "span.requestId"];
    let names_of_metrics: BTreeSet<&str> = Metric::iter().map(Metric::name).collect();
    let mut checked = 0;
    for query in observe::queries::all() {
        for field in fields(query.text) {
            let known = match query.logs {
                Logs::Api => access.get(&field).is_some(),
                Logs::Functions => {
                    of_the_line.contains(&field.as_str())
                        || names_of_metrics.contains(field.as_str())
                        || ["Code", "Reason"].contains(&field.as_str())
                        || logged.contains(&field)
                }
            };
            assert!(known, "{}: no log line has a field {field}", query.name);
            checked += 1;
        }
        for message in query.text.split('[').skip(1).filter_map(|rest| rest.split_once(']')) {
            for message in message.0.split('"').skip(1).step_by(2) {
                assert!(code.contains(&format!("{message:?}")), "{}: nothing logs {message:?}", query.name);
            }
        }
    }
    assert!(checked > 15, "only {checked} fields were found");
}

/// The fields that log lines are written with: `%error`, `?source`, `reason = why` or `trace_id`.
fn logged_fields(code: &str) -> BTreeSet<String> {
    let call = regex_lite::Regex::new(r"(?s)tracing::(?:error|warn|info|debug)!\((.*?)\);").unwrap();
    let field = regex_lite::Regex::new(r"(?:^|,)\s*[%?]?([a-z][a-z0-9_]*)\s*(?:,|=)").unwrap();
    let mut fields = BTreeSet::new();
    for call in call.captures_iter(code) {
        // Two fields share the comma between them, so each search begins at the last one.
        let mut rest = &call[1];
        while let Some(found) = field.captures(rest) {
            fields.insert(found[1].to_owned());
            rest = &rest[found.get(0).unwrap().end() - 1..];
        }
    }
    fields
}

/// The fields that a query reads, without those that CloudWatch itself adds (`@…`) and those that
/// the query makes.
fn fields(query: &str) -> BTreeSet<String> {
    let mut text = String::new();
    // Texts and patterns are no fields.
    for (at, part) in query.split('"').enumerate() {
        text.push_str(if at % 2 == 0 { part } else { " " });
    }
    let text = text.split('/').step_by(2).collect::<Vec<_>>().join(" ");
    let words: Vec<&str> = text
        .split(|letter: char| !letter.is_alphanumeric() && !['_', '@', '.'].contains(&letter))
        .filter(|word| !word.is_empty())
        .collect();
    let made: BTreeSet<&str> = words.windows(2).filter(|pair| pair[0] == "as").map(|pair| pair[1]).collect();
    let language = [
        "filter",
        "fields",
        "stats",
        "sort",
        "limit",
        "by",
        "as",
        "in",
        "desc",
        "asc",
        "count",
        "sum",
        "latest",
        "bin",
        "ispresent",
        "like",
    ];
    let is_field = |word: &&&str| {
        !language.contains(word) && !made.contains(*word) && !word.starts_with(['@', '0', '1', '2', '3', '4', '5'])
    };
    words.iter().filter(is_field).map(|word| (*word).to_owned()).collect()
}

/// All Rust under a folder, as text.
fn sources(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn saved_queries_read_the_log_groups_of_the_functions() {
    let (template, observability) = (template(), observability());
    let queries = of_type(&observability, "AWS::Logs::QueryDefinition");
    assert!(queries.len() >= 6);
    for (id, query) in queries {
        for group in query["LogGroupNames"].as_array().unwrap() {
            let group = group.get("Fn::If").map_or(group, |choice| &choice[1]);
            let Some(name) = group.get("Fn::Sub") else {
                assert_eq!(*group, json!({ "Ref": "ApiLogs" }), "{id}");
                continue;
            };
            // The group is named like the function.
            let function = name.as_str().unwrap().strip_prefix("/aws/lambda/${").unwrap().strip_suffix('}').unwrap();
            let logs = properties(&template, &function.replace("Function", "Logs"))["LogGroupName"].clone();
            let of = properties(&template, function)["FunctionName"]["Fn::Sub"].as_str().unwrap().to_owned();
            assert_eq!(logs, json!({ "Fn::Sub": format!("/aws/lambda/{of}") }), "{id}");
        }
        let named = object(&query["Name"])["Fn::Sub"].as_str().unwrap();
        assert!(named.starts_with("playhead/${Stage}/"), "{id}");
    }
}

#[test]
fn dashboard_asks_four_questions_first() {
    let titles: Vec<&str> = observe::dashboard::sections().iter().map(|section| section.title).collect();
    let questions = ["Are members served?", "Is anything lost?", "How far behind?", "What does it cost?"];
    assert_eq!(titles, [&questions[..], &["Regions", "Migration", "Change feed"]].concat());
    for section in observe::dashboard::sections() {
        assert!(section.text.len() > 60 && section.widgets.len() >= 3, "{}", section.title);
    }
}
