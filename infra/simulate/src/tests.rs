#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::event::{Device, EdgeEvent};
use super::expect::{Expected, SessionView, ShownDevice, check, expect};
use super::plan::PlannedEvent;
use super::*;
use playback::contract::{MAX_BODY_BYTES, MAX_EVENTS};
use playback::edge::{self, BodyText, SessionWindow};
use playback::envelope::{Stamp, group};
use playback::history::Rules;
use playback::view::{Sequence, View};
use std::collections::BTreeSet;

fn model(sessions: usize, faults: Faults) -> Model {
    Model { sessions, viewers: None, titles: 50, homes: vec!["use1".parse().unwrap()], travel: None, seed: 7, faults }
}

fn planned(model: &Model) -> Plan {
    Plan::new(model, DEFAULT_START_AT).unwrap()
}

fn trace(model: &Model) -> Vec<u8> {
    let mut bytes = Vec::new();
    planned(model).write_trace(&mut bytes).unwrap();
    bytes
}

fn views(model: &Model) -> Expected {
    expect(&planned(model), &BTreeSet::new())
}

const ROUGH: Faults = Faults { duplicates: 0.2, reorder: 0.3, late: 0.2, lost: 0.05, malformed: 0.1 };

#[test]
fn same_seed_makes_the_same_bytes() {
    let one = model(80, ROUGH);
    let other = Model { seed: 8, ..one.clone() };
    assert_eq!(trace(&one), trace(&one));
    assert_ne!(trace(&one), trace(&other));
}

#[test]
fn plan_that_ends_at_a_time_is_the_same_plan_shifted() {
    let model = model(40, ROUGH);
    let (one, moved) = (planned(&model), Plan::ending_at(&model, DEFAULT_START_AT).unwrap());
    assert_eq!(moved.posts.last().unwrap().at_ms, DEFAULT_START_AT);
    let shift = one.posts.last().unwrap().at_ms - DEFAULT_START_AT;
    assert_eq!(one.posts.len(), moved.posts.len());
    for (one, moved) in one.posts.iter().zip(&moved.posts) {
        assert_eq!(one.at_ms, moved.at_ms + shift);
        let shape = |p: &PlannedEvent| (p.event.seq, p.event.position_ms, p.rejected_as);
        assert!(one.events.iter().map(shape).eq(moved.events.iter().map(shape)));
    }
}

#[test]
fn contract_accepts_and_rejects_events_as_planned() {
    let plan = planned(&model(300, ROUGH));
    let (mut codes, mut adjusted) = (BTreeSet::new(), BTreeSet::new());
    for post in &plan.posts {
        let body = post.body().unwrap();
        assert!(!post.events.is_empty() && post.events.len() <= MAX_EVENTS && body.len() <= MAX_BODY_BYTES);
        let body = BodyText::new(&body);
        let raw = edge::parse_request(&body).unwrap().events;
        assert_eq!(raw.len(), post.events.len());
        for (raw, planned) in raw.into_iter().zip(&post.events) {
            let verdict = edge::validate(raw, post.at_ms as u64, SessionWindow::default());
            match (&verdict, planned.rejected_as) {
                (Ok(valid), None) => {
                    assert_eq!(valid.event.profile_id, post.profile_id);
                    adjusted.extend(valid.adjusted.iter().map(|one| (one.field, format!("{:?}", one.change))));
                }
                (Err(rejection), Some(code)) => assert_eq!(rejection.code.as_str(), code),
                _ => panic!("{verdict:?} where the plan says {:?}: {}", planned.rejected_as, raw.json.get()),
            }
            codes.extend(planned.rejected_as);
        }
    }
    assert_eq!(codes.len(), 9, "all defects occur: {codes:?}");
    assert_eq!(adjusted.len(), 3, "all oddities occur: {adjusted:?}");
}

#[test]
fn posts_stay_within_limits_at_the_highest_rates() {
    let faults = Faults { duplicates: 1.0, reorder: 1.0, late: 1.0, lost: 0.0, malformed: 1.0 };
    let plan = planned(&model(60, faults));
    let greatest = plan.posts.iter().map(|post| post.events.len()).max().unwrap();
    assert!(greatest > 100, "there is a backlog with all its copies: {greatest}");
    for post in &plan.posts {
        assert!(post.events.len() <= MAX_EVENTS && post.body().unwrap().len() <= MAX_BODY_BYTES);
    }
}

#[test]
fn post_has_events_of_one_device_and_one_profile() {
    let faults = Faults { malformed: 0.0, ..ROUGH };
    let mut sessions_of_posts = BTreeSet::new();
    for post in planned(&model(200, faults)).posts {
        let one =
            |of: fn(&EdgeEvent) -> String| post.events.iter().map(|p| of(&p.event)).collect::<BTreeSet<_>>().len();
        assert_eq!(one(|e| e.device.id.clone()), 1);
        assert_eq!(one(|e| e.profile_id.clone().unwrap()), 1);
        sessions_of_posts.insert(one(|e| e.session_id.clone()));
    }
    assert!(sessions_of_posts.contains(&1) && sessions_of_posts.contains(&2), "{sessions_of_posts:?}");
}

#[test]
fn ideal_trace_is_complete_ordered_and_varied() {
    let plan = planned(&model(300, Faults::NONE));
    assert_eq!(plan.applied, Applied::default());
    let expected = expect(&plan, &BTreeSet::new());
    assert_eq!(expected.views.len(), 300);
    assert_eq!((expected.duplicates, expected.rejected.len()), (0, 0));
    assert_eq!(expected.distinct, plan.events().count());

    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    let mut devices: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for PlannedEvent { event, .. } in plan.events() {
        let next = next.entry(&event.session_id).or_default();
        assert_eq!(event.seq, *next, "{}", event.session_id);
        *next += 1;
        devices.entry(&event.session_id).or_default().insert(&event.device.id);
        *kinds.entry(&event.kind).or_default() += 1;
        let ulid = event.session_id.split_once('-').unwrap().1.parse::<ulid::Ulid>().unwrap();
        if event.seq == 0 {
            assert!((ulid.timestamp_ms() as i64 - event.occurred_at).abs() <= 12 * 3_600_000);
        }
    }
    for kind in ["started", "progressed", "paused", "resumed", "seeked", "stopped"] {
        assert!(kinds[kind] > 20, "{kinds:?}");
    }
    let views = expected.views.values();
    assert!(views.clone().all(|view| view.missing == 0));
    let completed = views.clone().filter(|view| view.completed).count();
    assert!((30..200).contains(&completed), "{completed} completed");
    assert!(devices.values().filter(|devices| devices.len() > 1).count() > 10);
    let profiles: BTreeSet<_> = expected.views.keys().map(|(profile, _)| profile).collect();
    assert!(profiles.len() < 150, "profiles have several sessions");
    let mut watched: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for ((profile, _), view) in &expected.views {
        *watched.entry((profile, &view.title_id)).or_default() += 1;
    }
    assert!(watched.values().any(|&sessions| sessions > 1), "a title is continued in a new session");
    let mut popularity: BTreeMap<&str, usize> = BTreeMap::new();
    views.for_each(|view| *popularity.entry(&view.title_id).or_default() += 1);
    assert!(popularity["t000001"] > 4 * 300 / 50, "{popularity:?}");
    // Time played twice counts once: for some session, the sum of plays is greater than their
    // union.
    let mut played: BTreeMap<&str, i64> = BTreeMap::new();
    plan.events().for_each(|p| *played.entry(&p.event.session_id).or_default() += p.event.played_ms);
    assert!(expected.views.iter().any(|((_, session), view)| view.played_ms < played[session.as_str()]));
}

#[test]
fn only_losses_change_the_expected_views() {
    let losing = Faults { lost: 0.05, ..Faults::NONE };
    let ideal = views(&model(150, losing));
    assert!(ideal.views.values().any(|view| view.missing > 0));
    for faults in [
        Faults { duplicates: 0.5, ..losing },
        Faults { reorder: 0.8, ..losing },
        Faults { late: 0.5, ..losing },
        Faults { malformed: 0.3, ..losing },
        Faults { duplicates: 0.3, reorder: 0.3, late: 0.3, malformed: 0.3, ..losing },
    ] {
        let views = views(&model(150, faults));
        assert_eq!(views.views, ideal.views, "{faults:?}");
        assert_eq!(views.distinct, ideal.distinct);
    }
}

#[test]
fn fault_rates_are_about_as_requested() {
    let about = |what: &str, part: usize, whole: usize, rate: f64| {
        let share = part as f64 / whole as f64;
        assert!((share / rate - 1.0).abs() < 0.25, "{what}: {share} instead of {rate}");
    };
    let faults = Faults { duplicates: 0.1, reorder: 0.1, late: 0.1, lost: 0.05, malformed: 0.05 };
    let all = model(500, faults);
    let plan = planned(&all);
    let expected = expect(&plan, &BTreeSet::new());
    let ideal = views(&model(500, Faults::NONE));
    let bad = plan.events().filter(|p| p.rejected_as.is_some()).count();
    about("lost", ideal.distinct - expected.distinct, ideal.distinct, 0.05);
    about("lost", plan.applied.lost, ideal.distinct, 0.05);
    about("malformed", plan.applied.malformed, expected.distinct, 0.05);
    about("duplicates", expected.duplicates, expected.distinct, 0.1);
    about("late", plan.applied.late_sessions, 500, 0.1);
    assert_eq!(plan.applied.repeated, expected.duplicates + bad - plan.applied.malformed);

    let reordering = planned(&model(500, Faults { reorder: 0.1, ..Faults::NONE }));
    about("reorder", reordering.applied.reordered_posts, planned(&model(500, Faults::NONE)).posts.len(), 0.1);
    let mut greatest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut behind = 0;
    for PlannedEvent { event, .. } in reordering.events() {
        let greatest = greatest.entry(&event.session_id).or_insert(-1);
        behind += usize::from(event.seq < *greatest);
        *greatest = event.seq.max(*greatest);
    }
    assert!(behind > reordering.applied.reordered_posts / 2, "{behind} events behind later ones");
}

#[test]
fn held_back_tail_comes_last() {
    let plan = planned(&model(100, Faults { late: 0.2, ..Faults::NONE }));
    let end_of_ideal = planned(&model(100, Faults::NONE)).posts.last().unwrap().at_ms;
    let late: BTreeSet<&str> = plan
        .posts
        .iter()
        .filter(|post| post.at_ms > end_of_ideal)
        .flat_map(|post| post.events.iter().map(|p| p.event.session_id.as_str()))
        .collect();
    assert!(late.len() >= plan.applied.late_sessions - 1 && plan.applied.late_sessions > 5, "{late:?}");
}

#[test]
fn too_few_viewers_are_refused() {
    let model = Model { viewers: Some(1), ..model(2_000, Faults::NONE) };
    let error = Plan::new(&model, DEFAULT_START_AT).unwrap_err();
    assert!(error.to_string().contains("allow more viewers"), "{error}");
}

fn event(seq: i64, position_ms: i64, played_ms: i64, device: &str, country: &'static str) -> PlannedEvent {
    let event = EdgeEvent {
        session_id: "s".to_owned(),
        profile_id: Some("p".to_owned()),
        title_id: "t".to_owned(),
        seq,
        kind: "progressed".into(),
        position_ms,
        played_ms,
        title_duration_ms: 100_000,
        occurred_at: 0,
        device: Device { id: device.to_owned(), kind: "tv".into() },
        country: country.into(),
    };
    PlannedEvent { event, rejected_as: None }
}

fn by_hand() -> Plan {
    let post = |events: Vec<PlannedEvent>| plan::Post {
        at_ms: 0,
        through: "use1".parse().unwrap(),
        profile_id: "p".to_owned(),
        events,
    };
    let mut bad = event(9, 0, 0, "d9", "ZZ");
    bad.rejected_as = Some("kind_unknown");
    let posts = vec![
        post(vec![event(4, 95_000, 10_000, "d2", "CA"), bad]),
        post(vec![event(1, 20_000, 20_000, "d1", "US"), event(2, 30_000, 15_000, "d1", "US")]),
        post(vec![event(1, 20_000, 20_000, "d1", "US")]),
        post(vec![event(6, 99_000, 0, "d3", "US")]),
    ];
    Plan { posts, applied: Applied::default() }
}

#[test]
fn travelling_changes_only_the_region_of_posts() {
    let homes = ["use1", "usw2", "euw1"].map(|home| home.parse().unwrap()).to_vec();
    let stay = planned(&Model { homes: homes.clone(), ..model(200, ROUGH) });
    let mut travel = planned(&Model { homes, travel: Some(0.3), ..model(200, ROUGH) });
    assert!(stay.travelled().is_empty());
    let share = travel.travelled().len() as f64 / 200.0;
    assert!((0.2..0.5).contains(&share), "{share}: sessions that shared a POST with a traveller went along");
    let elsewhere = travel.posts.iter().zip(&stay.posts).filter(|(there, here)| there.through != here.through).count();
    assert!(elsewhere > 0);
    for (post, at_home) in travel.posts.iter_mut().zip(&stay.posts) {
        post.through = at_home.through.clone();
    }
    assert_eq!(travel, stay, "nothing else changed");
    let nowhere = Model { travel: Some(0.3), ..model(200, ROUGH) };
    assert!(Plan::new(&nowhere, plan::DEFAULT_START_AT).unwrap_err().to_string().contains("at least two homes"));
}

#[test]
fn expectation_matches_a_hand_computed_case() {
    let key = ("p".to_owned(), "s".to_owned());
    let without_last = expect(&by_hand(), &BTreeSet::from([3]));
    let view = &without_last.views[&key];
    assert_eq!((view.events, view.missing), (3, 2));
    assert_eq!((view.position_ms, view.played_ms, view.completed), (95_000, 40_000, true));
    assert_eq!((view.device.id.as_deref(), view.country.as_str()), (Some("d2"), "US"));
    assert_eq!((without_last.accepted, without_last.distinct, without_last.duplicates), (4, 3, 1));
    assert_eq!(without_last.rejected, BTreeMap::from([("kind_unknown".to_owned(), 1)]));
    let all = expect(&by_hand(), &BTreeSet::new());
    assert_eq!((all.views[&key].events, all.views[&key].missing, all.views[&key].position_ms), (4, 3, 99_000));
}

fn actual(expected: &Expected) -> BTreeMap<String, Vec<SessionView>> {
    let mut actual: BTreeMap<String, Vec<SessionView>> = BTreeMap::new();
    for ((profile, session_id), view) in &expected.views {
        let mut json = serde_json::to_value(view).unwrap();
        json["session_id"] = session_id.clone().into();
        json["hidden"] = false.into();
        actual.entry(profile.clone()).or_default().push(serde_json::from_value(json).unwrap());
    }
    actual
}

/// Two folds that share no code: the pipeline's join of the trace, POST by POST as it arrives,
/// gives the views that the simulator expects.
#[test]
fn the_join_and_the_naive_fold_agree() {
    let plan = planned(&model(300, ROUGH));
    let mut joined: BTreeMap<(String, String), View> = BTreeMap::new();
    for post in &plan.posts {
        let (body, received_at) = (post.body().unwrap(), post.at_ms as u64);
        let body = BodyText::new(&body);
        let valid = edge::parse_request(&body).unwrap().events.into_iter();
        let valid = valid.filter_map(|raw| edge::validate(raw, received_at, SessionWindow::default()).ok());
        let events = valid.map(|valid| valid.event).collect();
        let stamp =
            Stamp { received_at, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow: false };
        for envelope in group(events, &stamp) {
            let view = View::of_envelope(&envelope).unwrap();
            let key = (envelope.profile_id, envelope.session_id.to_string());
            joined.entry(key).and_modify(|joined| joined.merge(&view)).or_insert(view);
        }
    }
    let mut actual: BTreeMap<String, Vec<SessionView>> = BTreeMap::new();
    let mut sizes: Vec<usize> = Vec::new();
    for ((profile_id, session_id), view) in joined {
        sizes.push(view.pack().len());
        actual.entry(profile_id).or_default().push(SessionView {
            session_id,
            position_ms: view.position_ms() as i64,
            played_ms: view.played_ms() as i64,
            title_duration_ms: view.title_duration_ms().map(|duration| duration as i64),
            completed: Rules::default().is_finished(&view),
            device: ShownDevice { id: view.latest.device.id.clone(), kind: view.latest.device.kind.clone() },
            country: view.first.country.map(|country| country.to_string()),
            events: view.events() as i64,
            missing: Sequence::of([&view]).missing() as i64,
            hidden: false,
            title_id: view.title_id,
        });
    }
    assert_eq!(check(&expect(&plan, &BTreeSet::new()), &actual), []);
    sizes.sort_unstable();
    assert!(sizes[sizes.len() / 2] < 500, "a typical packed view stays well under 1 KB: {sizes:?}");
}

#[test]
fn difference_names_session_and_field() {
    let expected = expect(&by_hand(), &BTreeSet::new());
    let right = actual(&expected);
    assert_eq!(check(&expected, &right), []);
    let differs = |field: &str, change: fn(&mut SessionView)| {
        let mut wrong = right.clone();
        change(&mut wrong.get_mut("p").unwrap()[0]);
        let differences = check(&expected, &wrong);
        let named: Vec<_> = differences.iter().map(|d| (d.session_id.as_str(), d.field)).collect();
        assert_eq!(named, [("s", field)], "{differences:?}");
    };
    differs("title_id", |view| view.title_id.push('x'));
    differs("country", |view| view.country = None);
    differs("device.id", |view| view.device.id = Some("x".to_owned()));
    differs("device.kind", |view| view.device.kind = None);
    differs("completed", |view| view.completed = false);
    differs("title_duration_ms", |view| view.title_duration_ms = Some(1));
    differs("position_ms", |view| view.position_ms += 1);
    differs("played_ms", |view| view.played_ms -= 1);
    differs("events", |view| view.events += 1);
    differs("missing", |view| view.missing -= 1);

    let one = check(&expected, &BTreeMap::new());
    assert_eq!(one[0].to_string(), "p s: session is absent, expected present");
    let mut twice = right.clone();
    let again = twice["p"][0].clone();
    twice.get_mut("p").unwrap().push(again.clone());
    assert_eq!(check(&expected, &twice)[0].actual, "again");
    let stranger = BTreeMap::from([("q".to_owned(), vec![again])]);
    let fields: Vec<_> = check(&expected, &stranger).into_iter().map(|d| (d.profile_id, d.actual)).collect();
    assert_eq!(fields, [("q".to_owned(), "present".to_owned()), ("p".to_owned(), "absent".to_owned())]);
}
