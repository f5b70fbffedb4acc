//! Forgetting a title or a session, and the registers that an erasure takes along.

use crate::case::{BEGAN, Case, TITLE_MS, Watched, numbers, session};
use aws_sdk_dynamodb::types::AttributeValue;
use playback::fold::{ViewKey, fold};
use playback::history::TitleState;
use playback::outcome::Counts;
use std::time::Duration;
use store::testing::{settle_in_time, write_one};
use store::{Erasure, ViewTable as _};
use tokio::time::Instant;

const NOTHING: Counts = Counts { applied: 0, duplicate: 1 };

/// Two sessions; the first has two titles, one of them also as a part and as the first release
/// wrote it.
async fn begin(case: &Case) {
    case.watch(&[Watched::new(1, "t1"), Watched::new(1, "t2").seq(1), Watched::new(2, "t1")]).await;
    let more = |seq| Watched::new(1, "t1").seq(seq).view();
    case.put([case.view_item(1, Some("usw2"), &more(2)), case.first_release_item(1, None, &more(3))]).await;
    case.views.set_hidden(&case.profile, &session(1), true, BEGAN).await.unwrap();
    case.views.set_watched(&case.profile, "t1", true, BEGAN).await.unwrap();
    case.views.set_watched(&case.profile, "t2", true, BEGAN).await.unwrap();
}

fn sk(number: u64, rest: &str) -> String {
    format!("{}#{rest}", session(number).ulid)
}

/// The sessions and titles that a member sees in the history.
async fn sees(case: &Case) -> Vec<(u64, String)> {
    let (entries, _) = case.history(2, true).await;
    numbers(&entries).into_iter().zip(entries.into_iter().map(|entry| entry.view.title_id)).collect()
}

pub(crate) async fn forgotten_title_is_gone_and_its_siblings_stay(case: Case) {
    begin(&case).await;
    let other = case.of(format!("{}-2", case.profile));
    begin(&other).await;
    let forget = case.title_up_to("t1", 10);
    // The mark is enough for readers.
    assert!(!case.mark(&forget).await);
    assert_eq!(sees(&case).await, [(1, "t2".to_owned())]);
    assert_eq!(case.title("t1").await, TitleState::default());
    assert_eq!(case.titles(&["t1", "t3", "t4", "t5"]).await["t1"], TitleState::default());
    // Calling again finishes.
    case.erase(&forget).await;
    let left = [sk(1, "use1#~t2"), sk(1, "~hidden"), "~forgotten#t1".to_owned(), "~watched#t2".to_owned()];
    assert_eq!(case.sort_keys().await, left);
    // Late events are not written, in no session that began before.
    for late in [Watched::new(1, "t1").seq(8), Watched::new(2, "t1").seq(1), Watched::new(9, "t1")] {
        assert_eq!(case.settle(&[late.received(30)]).await, NOTHING);
    }
    assert_eq!(case.sort_keys().await, left);
    // Those of the other title are, and so is what begins afterwards.
    let after = [Watched::new(1, "t2").seq(9).received(31), Watched::new(11, "t1").received(32)];
    assert_eq!(case.settle(&after).await, Counts { applied: 2, duplicate: 0 });
    assert_eq!(sees(&case).await, [(11, "t1".to_owned()), (1, "t2".to_owned())]);
    assert_eq!(numbers(case.resume("t1").await.as_slice()), [11]);
    // The same command again, as a queue may deliver it, changes nothing of that.
    case.erase(&forget).await;
    assert_eq!(sees(&case).await, [(11, "t1".to_owned()), (1, "t2".to_owned())]);
    assert_eq!(sees(&other).await.len(), 3);
}

pub(crate) async fn forgotten_session_is_gone_and_others_stay(case: Case) {
    begin(&case).await;
    let forget = case.session_erased(1);
    assert!(!case.mark(&forget).await);
    assert_eq!(sees(&case).await, [(2, "t1".to_owned())]);
    assert_eq!(case.resume("t2").await, None);
    case.erase(&forget).await;
    let left = [sk(1, "~forgotten"), sk(2, "use1#~t1"), "~watched#t1".to_owned(), "~watched#t2".to_owned()];
    assert_eq!(case.sort_keys().await, left);
    // Whenever its events arrive, and of whatever title they are.
    for late in [Watched::new(1, "t1").seq(7), Watched::new(1, "t2").seq(8), Watched::new(1, "t3").seq(9)] {
        assert_eq!(case.settle(&[late.received(100_000)]).await, NOTHING);
    }
    assert_eq!(case.sort_keys().await, left);
    // A writer that did not ask in time is not seen, also in a list of one title, and deleted again.
    write_one(&case.views, &case.key_of(1, "t3"), &Watched::new(1, "t3").view(), None).await.unwrap();
    assert_eq!(sees(&case).await, [(2, "t1".to_owned())]);
    assert_eq!(case.resume("t3").await, None);
    case.erase(&forget).await;
    assert_eq!(case.sort_keys().await, left);
    assert_eq!(case.settle(&[Watched::new(2, "t1").seq(1)]).await, Counts { applied: 1, duplicate: 0 });
}

pub(crate) async fn erasing_everything_takes_registers_along(case: Case) {
    begin(&case).await;
    case.erase(&case.title_up_to("t2", 3)).await;
    case.erase(&case.session_erased(2)).await;
    // Written by the first release, which took any session id: the year 10889.
    let mut hidden = case.keys("7ZZZZZZZZZ0000000000000000#~hidden");
    hidden.insert("hidden".to_owned(), AttributeValue::Bool(true));
    hidden.insert("changed_at".to_owned(), AttributeValue::N(BEGAN.to_string()));
    case.put([hidden]).await;
    // Of a session that begins later, but said before; and said later.
    case.views.set_hidden(&case.profile, &session(40), true, BEGAN + 4_000).await.unwrap();
    case.views.set_hidden(&case.profile, &session(41), true, BEGAN + 6_000).await.unwrap();
    case.views.set_watched(&case.profile, "t5", true, BEGAN + 5_000).await.unwrap();
    case.views.set_watched(&case.profile, "t6", true, BEGAN + 5_001).await.unwrap();
    let all = case.everything(5);
    // The mark is enough for readers, of registers too.
    assert!(!case.mark(&all).await);
    let states = case.titles(&["t1", "t2", "t5", "t6"]).await;
    let watched = |title: &str| states[title].watched;
    assert_eq!(["t1", "t2", "t5", "t6"].map(watched), [false, false, false, true]);
    assert!(case.sort_keys().await.len() > 8, "nothing is deleted yet");
    case.erase(&all).await;
    assert_eq!(case.sort_keys().await, [sk(41, "~hidden"), "~erased".to_owned(), "~watched#t6".to_owned()]);
    let late = [Watched::new(1, "t1").seq(5), Watched::new(1, "t2").seq(6), Watched::new(2, "t1").seq(7)];
    assert_eq!(case.settle(&late.map(|one| one.received(9))).await, Counts { applied: 0, duplicate: 3 });
    case.erase(&case.everything(6)).await;
    assert_eq!(case.sort_keys().await, ["~erased"]);
}

/// More than one query and one batch of each, and the deadline in the midst of it.
pub(crate) async fn interrupted_erasures_are_finished_by_calling_again(case: Case) {
    let views = |number: u64| case.view_item(number, None, &Watched::new(number, "t1").view());
    let marks = |number: u64| {
        let mut item = case.keys(&format!("~watched#t{number}"));
        item.insert("watched".to_owned(), AttributeValue::Bool(true));
        item.insert("changed_at".to_owned(), AttributeValue::N(BEGAN.to_string()));
        item
    };
    // A session with 120 titles, 300 sessions of one title, and 300 registers. The title's are older
    // than its erasure up to number 200, and its register goes, too; each command leaves its own.
    const TITLES: u16 = 120;
    let of_session: Vec<Watched> = (0..TITLES).map(|at| Watched::new(900, format!("s{at}").leak()).seq(at)).collect();
    case.put((0..300).map(views).chain((0..300).map(marks))).await;
    case.watch(&of_session).await;
    let commands = [case.session_erased(900), case.title_up_to("t1", 200), case.everything(1_000)];
    for (command, left) in commands.into_iter().zip([601, 400, 1]) {
        let (mut calls, mut patience) = (0, Duration::ZERO);
        while !case.views.erase(&command, Instant::now() + patience).await.unwrap() {
            calls += 1;
            patience += Duration::from_millis(15);
        }
        assert!(calls > 0, "{command:?} was never interrupted");
        assert_eq!(case.sort_keys().await.len(), left, "{command:?}");
    }
}

/// Writers go on while everything is erased, and a title and a session are forgotten.
pub(crate) async fn an_erasure_amid_writes_leaves_nothing(case: Case) {
    const WRITERS: u16 = 6;
    const ROUNDS: u16 = 12;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let case = case.clone();
            tokio::spawn(async move {
                let mut total = Counts::default();
                for round in 0..ROUNDS {
                    let event = |number| {
                        let title = ["t1", "t2", "t3"][usize::from(round) % 3];
                        Watched::new(number, title).seq(round * WRITERS + writer).received(60).at(TITLE_MS)
                    };
                    let envelopes = (0..12).map(|number| event(number).envelope(&case.profile));
                    let (settled, _) = settle_in_time(&case.views, fold(envelopes.enumerate())).await;
                    for (_, counts) in settled.into_iter().flat_map(|one| one.result.unwrap()) {
                        total += counts;
                    }
                }
                total
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let commands = [case.title_up_to("t2", 20), case.session_erased(3), case.everything(20)];
    for command in &commands {
        case.erase(command).await;
    }
    let mut total = Counts::default();
    for writer in writers {
        total += writer.await.unwrap();
    }
    assert_eq!(total.applied + total.duplicate, u64::from(WRITERS * ROUNDS) * 12);
    assert!(total.applied > 0 && total.duplicate > 0, "the erasure came before or after all writes: {total:?}");
    assert_eq!(sees(&case).await, []);
    // As the queue repeats them.
    for command in &commands {
        case.erase(command).await;
    }
    case.erase(&case.everything(20)).await;
    let left = case.sort_keys().await;
    assert!(left.iter().all(|sk| sk == "~erased" || sk.contains("~forgotten")), "{left:?}");
    assert_eq!(sees(&case).await, []);
}

/// Asked of more views than one BatchGetItem takes, in an order that the table does not have.
pub(crate) async fn erasures_of_many_views_come_in_order(case: Case) {
    case.mark(&case.title_up_to("t4", 20)).await;
    case.mark(&case.session_erased(5)).await;
    let mut item = case.keys(&sk(6, "~forgotten#t4"));
    item.insert("forgotten_at".to_owned(), AttributeValue::N(BEGAN.to_string()));
    case.put([item]).await;
    let keys: Vec<ViewKey> = (0..130u64).map(|at| case.key_of(at * 7 % 13, &format!("t{}", at * 11 % 10))).collect();
    let expect = |erased_at: Option<u64>| {
        let one = |key: &ViewKey| {
            let is = |number: u64, title: Option<&str>| {
                key.session_id == session(number) && title.is_none_or(|title| key.title_id == title)
            };
            let title = (key.title_id == "t4").then_some(BEGAN + 20_000);
            Ok(Erasure { everything: erased_at, title, whole: is(5, None) || is(6, Some("t4")) })
        };
        keys.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(case.views.erasures(&keys).await, expect(None));
    case.mark(&case.everything(10)).await;
    assert_eq!(case.views.erasures(&keys).await, expect(Some(BEGAN + 10_000)));
    assert_eq!(case.of("nobody").views.erasures(&[]).await, []);
}
