//! Titles: several in one session, those that the first release stored, and what is known of each.

use crate::case::{BEGAN, Case, TITLE_MS, Watched, numbers, session};
use playback::history::{Entry, TitleState};
use playback::outcome::Counts;
use std::collections::{BTreeMap, HashMap};

fn titles(entries: &[Entry]) -> Vec<(u64, &str)> {
    numbers(entries).into_iter().zip(entries.iter().map(|entry| entry.view.title_id.as_str())).collect()
}

/// A name that lives as long as the tests.
fn name(number: u64) -> &'static str {
    format!("t{number}").leak()
}

pub(crate) async fn two_titles_of_a_session_are_two_items(case: Case) {
    let e1 = Watched::new(1, "e1").at(20_000).playing(20_000);
    let e2 = Watched::new(1, "e2").at(5_000).playing(5_000).received(9);
    case.watch(&[Watched::new(0, "e0"), e1, e1.seq(2), e2.seq(5), e2.seq(6).stopped()]).await;
    let ulid = session(1).ulid;
    assert_eq!(case.sort_keys().await[1..], [format!("{ulid}#use1#~e1"), format!("{ulid}#use1#~e2")]);
    let (entries, lengths) = case.history(1, false).await;
    assert_eq!(titles(&entries), [(1, "e2"), (1, "e1"), (0, "e0")], "the newest title of a session comes first");
    assert_eq!(lengths, [2, 1], "a session is not split");
    // 1, 3 and 4, whatever title they were of.
    assert_eq!(entries.iter().map(|entry| entry.missing).collect::<Vec<_>>(), [3, 3, 0]);
    assert_eq!(entries.iter().map(|entry| entry.view.events()).collect::<Vec<_>>(), [2, 2, 1]);
    for (title, position) in [("e1", 20_000), ("e2", 5_000)] {
        let resume = case.resume(title).await.unwrap();
        assert_eq!((resume.session_id, resume.view.position_ms()), (session(1), position));
    }
    assert_eq!(titles(&case.continued(10).await), [(1, "e2"), (1, "e1"), (0, "e0")]);
    // Hiding concerns the session, so both.
    case.views.set_hidden(&case.profile, &session(1), true, BEGAN).await.unwrap();
    assert_eq!(case.visible().await, [0]);
    assert_eq!(titles(&case.continued(10).await), [(0, "e0")]);
}

pub(crate) async fn session_with_more_titles_than_the_limit_is_a_page(case: Case) {
    // More rows than a page of 1 or 2 reads at first, and titles of several regions.
    const TITLES: u64 = 9;
    let mut expected = Vec::new();
    for number in (0..5).rev() {
        let count = if number % 2 == 1 { TITLES } else { 1 };
        for at in (0..count).rev() {
            let event = Watched::new(number, name(at)).seq(at as u16 * 2);
            case.watch(&[event]).await;
            if at % 3 == 0 {
                case.put([case.view_item(number, Some("euw1"), &event.seq(at as u16 * 2 + 1).view())]).await;
            }
            expected.push((number, name(at)));
        }
    }
    for limit in 1..=25 {
        let (entries, lengths) = case.history(limit, false).await;
        assert_eq!(titles(&entries), expected, "in pages of {limit}");
        let mut from = 0;
        for length in &lengths {
            let (page, rest) = entries[from..].split_at(*length);
            assert!(!page.is_empty(), "in pages of {limit}: {lengths:?}");
            let split = page.last().zip(rest.first()).is_some_and(|(a, b)| a.session_id == b.session_id);
            assert!(!split, "in pages of {limit}: {lengths:?}");
            from += length;
        }
        for entry in &entries {
            let is_part = (entry.view.latest.seq / 2).is_multiple_of(3);
            assert_eq!(entry.view.events(), if is_part { 2 } else { 1 }, "{entry:?}");
        }
    }
    assert_eq!(case.history(1, false).await.1, [1, 9, 1, 9, 1]);
    assert_eq!(case.history(10, false).await.1, [10, 10, 1]);
}

/// What the first release wrote is only read: joined, found by title, counted, and erased.
pub(crate) async fn items_of_the_first_release_join_new_ones(case: Case) {
    let event = |number: u64, seq: u16| {
        let (at, received) = (10_000 + u64::from(seq) * 5_000, number + u64::from(seq));
        Watched::new(number, "t1").seq(seq).at(at).playing(5_000).received(received)
    };
    let mut old = event(1, 0).view();
    old.merge(&event(1, 1).view());
    let items = [
        case.first_release_item(1, None, &old),
        case.first_release_item(1, Some("usw2"), &event(1, 2).view()),
        case.first_release_item(2, Some("usw2"), &event(2, 0).view()),
    ];
    case.put(items.clone()).await;
    assert_eq!(titles(&case.history(1, false).await.0), [(2, "t1"), (1, "t1")]);
    let sees = async || {
        let one = |entry: Entry| {
            let Entry { session_id, view, missing, .. } = entry;
            (session_id, view.position_ms(), view.latest.watched_at, view.events(), view.played_ms(), missing)
        };
        let resume = case.resume("t1").await.map(one);
        (case.history(1, false).await.0.into_iter().map(one).collect::<Vec<_>>(), resume)
    };
    let first = sees().await;
    assert_eq!(first.0[1], (session(1), 20_000, BEGAN + 3_000, 3, 15_000, 0));
    assert_eq!(first.1.as_ref(), Some(&first.0[1]), "watched last");
    // A repeat does not know the old item, and yet changes nothing that a member sees.
    case.watch(&[event(1, 1).received(50), event(2, 0).received(50)]).await;
    assert_eq!(sees().await, first);
    // The session goes on, also with another title.
    case.watch(&[event(1, 3).received(60), Watched::new(1, "t2").seq(4).received(61)]).await;
    let (entries, _) = case.history(1, false).await;
    assert_eq!(titles(&entries), [(2, "t1"), (1, "t2"), (1, "t1")]);
    assert_eq!((entries[2].view.events(), entries[2].missing, entries[1].missing), (4, 0, 0));
    assert_eq!(case.resume("t1").await.unwrap().view.position_ms(), 25_000);
    assert_eq!(case.titles(&["t1", "t2", "t3", "t4"]).await["t1"].resume.as_ref().unwrap().view.events(), 4);
    let stored = case.items().await;
    assert!(items.iter().all(|item| stored.contains(item)), "the old items are as they were");
}

/// How the state of a title shows.
fn shown(state: &TitleState) -> (Option<(u64, u64)>, bool, Option<u64>) {
    let resume = state.resume.as_ref().map(|entry| (numbers(std::slice::from_ref(entry))[0], entry.view.position_ms()));
    (resume, state.watched, state.watched_at)
}

/// However many titles are asked for, the answers are the same, and continue watching lists those
/// that have a resume point.
async fn agreement(case: &Case, count: u64) -> BTreeMap<String, TitleState> {
    let all: Vec<&str> = (0..count).map(name).collect();
    let mut found: Vec<HashMap<String, TitleState>> = Vec::new();
    for size in [1, 3, 5, 100] {
        let mut of_size = HashMap::new();
        for some in all.chunks(size) {
            of_size.extend(case.titles(some).await);
        }
        assert_eq!(of_size.len(), all.len());
        found.push(of_size);
    }
    let (last, others) = found.split_last().unwrap();
    for other in others {
        for (title, state) in last {
            assert_eq!(shown(&other[title]), shown(state), "{title}");
        }
    }
    let newest = |entry: &&Entry| (entry.view.latest.watched_at, entry.session_id.clone());
    let mut listed: Vec<&Entry> =
        last.values().filter_map(|state| state.resume.as_ref()).filter(|entry| !entry.hidden).collect();
    listed.sort_by_key(|entry| std::cmp::Reverse(newest(entry)));
    let listed: Vec<(u64, String)> =
        listed.into_iter().map(|entry| (entry.view.position_ms(), entry.view.title_id.clone())).collect();
    for limit in [1, 7, 100] {
        let continued = case.continued(limit).await;
        let missing = continued.iter().map(|entry| (entry.session_id.clone(), entry.missing));
        let missing: HashMap<_, _> = missing.collect();
        let continued: Vec<(u64, String)> =
            continued.iter().map(|entry| (entry.view.position_ms(), entry.view.title_id.clone())).collect();
        assert_eq!(continued, listed[..limit.min(listed.len())], "the first {limit}");
        for entry in case.history(100, true).await.0 {
            let also = missing.get(&entry.session_id).copied().unwrap_or(entry.missing);
            assert_eq!(also, entry.missing, "{} of {:?}", entry.view.title_id, entry.session_id);
        }
    }
    last.iter().map(|(title, state)| (title.clone(), state.clone())).collect()
}

/// A viewing of each kind: long, short, finished, hidden, of two titles, marked, and by parts.
async fn various(case: &Case, count: u64) {
    let mut events = Vec::new();
    for number in 0..count * 2 {
        let title = name(number * 7 % count);
        let at = match number % 5 {
            0 => TITLE_MS,
            1 => 500,
            _ => 10_000 + number * 10,
        };
        // Watch times in another order than the sessions'.
        let received = 1_000 + number * 37 % 211;
        let event = Watched::new(number, title).at(at).playing(at.min(8_000)).received(received);
        events.push(event);
        if number % 6 == 0 {
            let next = name(number * 7 % count + 1);
            let event = Watched { title: next, ..event }.received(received + 1_000);
            events.push(event.seq(3).at(20_000).playing(6_000));
        }
    }
    case.watch(&events).await;
    for number in (0..count).step_by(9) {
        case.views.set_hidden(&case.profile, &session(number), true, BEGAN).await.unwrap();
    }
    for (number, watched) in (0..count).step_by(8).zip([true, false].into_iter().cycle()) {
        let at = BEGAN + 1_600_000;
        case.views.set_watched(&case.profile, name(number), watched, at).await.unwrap();
    }
}

pub(crate) async fn titles_agree_however_many_are_asked_for(case: Case) {
    various(&case, 60).await;
    let states = agreement(&case, 110).await;
    let count = |is: fn(&TitleState) -> bool| states.values().filter(|state| is(state)).count();
    assert!(count(|state| state.watched) > 5 && count(|state| state.resume.is_some()) > 20, "{states:?}");
    assert!(count(|state| state.resume.as_ref().is_some_and(|entry| entry.hidden)) > 1);
    assert!(count(|state| state.resume.is_none() && !state.watched) >= 49, "never watched");
}

pub(crate) async fn titles_agree_in_a_profile_of_over_500_entries(case: Case) {
    various(&case, 40).await;
    // Newer sessions of the same titles, too short to displace a resume point.
    let event = |number: u64| Watched::new(number, name(number % 41)).at(500).received(4_000 + number);
    let items = (200..800).map(|number| case.view_item(number, None, &event(number).view()));
    case.put(items).await;
    let page = case.page(100, None, false).await;
    assert_eq!(numbers(&page.entries[..1]), [799]);
    let states = agreement(&case, 45).await;
    let by_old = |state: &&TitleState| shown(state).0.is_some_and(|(number, _)| number < 200);
    assert!(states.values().filter(by_old).count() > 10, "the newest 500 do not know: {states:?}");
}

/// It was finished once, and then begun again more often than a title's newest sessions are read.
pub(crate) async fn often_watched_title_stays_watched_however_asked(case: Case) {
    const SESSIONS: u64 = 300;
    let event = |number: u64| Watched::new(number, "t0").at(500);
    let parts =
        (1..SESSIONS).flat_map(|number| [(number, None, 0), (number, Some("usw2"), 1), (number, Some("euw1"), 2)]);
    let parts = parts.map(|(number, writer, seq)| case.view_item(number, writer, &event(number).seq(seq).view()));
    let finished = case.view_item(0, None, &Watched::new(0, "t0").at(TITLE_MS).view());
    case.put(parts.chain([finished])).await;
    let states = agreement(&case, 5).await;
    assert_eq!(shown(&states["t0"]), (Some((SESSIONS - 1, 500)), true, Some(BEGAN)));
    assert_eq!(case.resume("t0").await.unwrap().view.events(), 3);
}

pub(crate) async fn later_mark_of_watched_wins_in_any_order(case: Case) {
    case.watch(&[Watched::new(10, "t1").at(50_000), Watched::new(20, "done").at(TITLE_MS)]).await;
    let mark = async |title: &str, watched, at| {
        case.views.set_watched(&case.profile, title, watched, BEGAN + at).await.unwrap();
    };
    let sees = async |title| shown(&case.title(title).await);
    let resume = Some((10, 50_000));
    assert_eq!(sees("t1").await, (resume, false, None));
    mark("t1", true, 30_000).await;
    assert_eq!(sees("t1").await, (None, true, Some(BEGAN + 30_000)));
    assert_eq!(numbers(&case.continued(10).await), [0; 0]);
    mark("t1", false, 20_000).await;
    assert_eq!(sees("t1").await, (None, true, Some(BEGAN + 30_000)), "an older command");
    mark("t1", false, 30_000).await;
    assert_eq!(sees("t1").await, (resume, false, None), "in the same millisecond, the later call wins");
    mark("t1", true, 9_000).await;
    assert_eq!(sees("t1").await, (resume, false, None), "numbers are compared as numbers");
    // Finished, then unmarked; then finished again.
    assert_eq!(sees("done").await, (None, true, Some(BEGAN + 20_000)));
    mark("done", false, 25_000).await;
    assert_eq!(sees("done").await, (None, false, None));
    case.watch(&[Watched::new(40, "done").at(TITLE_MS)]).await;
    assert_eq!(sees("done").await, (None, true, Some(BEGAN + 40_000)));
    // Marked and watched again: both a resume point and watched. Case 13 of the field.
    case.watch(&[Watched::new(50, "done").at(30_000).playing(30_000)]).await;
    assert_eq!(sees("done").await, (Some((50, 30_000)), true, Some(BEGAN + 40_000)));
    // A title that was never watched here.
    mark("elsewhere", true, 1).await;
    assert_eq!(sees("elsewhere").await, (None, true, Some(BEGAN + 1)));
    let many = case.titles(&["t1", "done", "elsewhere", "never", "never"]).await;
    assert_eq!(many.len(), 4, "each once");
    assert_eq!(shown(&many["elsewhere"]), (None, true, Some(BEGAN + 1)));
    assert_eq!(shown(&many["never"]), (None, false, None));
    assert!(case.sort_keys().await.contains(&"~watched#elsewhere".to_owned()));
}

/// The identifiers of other systems: URNs, paths, separators, and as long as they may be.
pub(crate) async fn odd_identifiers_work_everywhere(case: Case) {
    let long: &'static str = format!("crid://{}", "a(b)*".repeat(24)).leak();
    let odd = ["urn:x/y@z", "a~b", "~'", "watched", "erased", long, "x/../y;z=1&$!+", "use1", "0"];
    let odd: Vec<&'static str> = odd.into_iter().filter(|id| playback::contract::is_id(id)).collect();
    assert_eq!(odd.len(), 8, "one begins with ~");
    for profile in ["urn:x/y@z", "a=b&c(d)", long] {
        let case = case.of(profile);
        let events = odd.iter().zip(0..).map(|(&title, at)| Watched::new(1, title).seq(at).received(u64::from(at) + 1));
        let events: Vec<Watched> = events.collect();
        assert_eq!(case.settle(&events).await, Counts { applied: 8, duplicate: 0 });
        assert_eq!(case.settle(&events).await, Counts { applied: 0, duplicate: 8 });
        let (entries, _) = case.history(1, false).await;
        assert_eq!(titles(&entries), odd.iter().rev().map(|&title| (1, title)).collect::<Vec<_>>());
        assert!(entries.iter().all(|entry| entry.missing == 0));
        for &title in &odd {
            case.views.set_watched(&case.profile, title, true, BEGAN).await.unwrap();
            let TitleState { resume, watched, .. } = case.title(title).await;
            assert_eq!((resume.unwrap().view.title_id.as_str(), watched), (title, true));
        }
        for (&title, left) in odd.iter().zip((0..odd.len()).rev()) {
            case.erase(&case.title_up_to(title, 60)).await;
            assert_eq!(case.history(1, true).await.0.len(), left);
        }
        let register = |title: &&str| format!("~forgotten#{title}");
        let mut expected: Vec<String> = odd.iter().map(register).collect();
        expected.sort();
        assert_eq!(case.sort_keys().await, expected);
        case.erase(&case.everything(60)).await;
        assert_eq!(case.sort_keys().await, ["~erased"]);
    }
}
