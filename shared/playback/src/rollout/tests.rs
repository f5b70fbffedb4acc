use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn profiles() -> impl Iterator<Item = String> {
    (0..100_000).map(|number| format!("p{number:08}"))
}

fn rollout(salt: &str, asynchronous: Share, shadow: Share) -> Rollout {
    Rollout::new(salt, asynchronous, shadow, Lists::default()).unwrap()
}

fn parsed(form: Value) -> Result<Rollout, String> {
    serde_json::from_value(form).map_err(|error| error.to_string())
}

fn share() -> impl Strategy<Value = Share> {
    (0..=BUCKETS).prop_map(Share)
}

/// Two shares, the smaller one first.
fn shares() -> impl Strategy<Value = (Share, Share)> {
    (share(), share()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

const ID: &str = "[a-z0-9][a-zA-Z0-9_.:-]{0,63}";

proptest! {
    #[test]
    fn a_profiles_bucket_decides_its_path(salt in ID, profile in ID, (a, b) in shares()) {
        let bucket = bucket(&salt, &profile);
        prop_assert!(bucket < BUCKETS);
        let expected = if bucket < a.0 { Path::Async } else if bucket < b.0 { Path::Shadow } else { Path::Legacy };
        let rollout = rollout(&salt, a, b);
        prop_assert_eq!(rollout.path(&profile), expected);
        let of_all = Path::ALL.into_iter().map(|path| rollout.share_of(path).buckets());
        prop_assert_eq!(of_all.sum::<u16>(), BUCKETS, "the shares of the paths add up to 100%");
        prop_assert!(rollout.share_of(expected) > Share::NONE);
    }

    #[test]
    fn raising_a_share_moves_nobody_back(
        salt in ID,
        (a, more_a) in shares(),
        (b, more_b) in shares(),
        profiles in prop::collection::vec(ID, 1..50),
    ) {
        let (before, after) = (rollout(&salt, a, b.max(a)), rollout(&salt, more_a, more_b.max(more_a)));
        for profile in &profiles {
            prop_assert!(after.path(profile) >= before.path(profile));
        }
        prop_assert!(before.moves(&after, profiles.iter().map(String::as_str)).all(|one| one.from < one.to));
    }

    #[test]
    fn lists_win_over_buckets(salt in ID, profile in ID, other in ID, (a, b) in shares(), path in 0..3usize) {
        let mut form = serde_json::to_value(rollout(&salt, a, b)).unwrap();
        form["always"] = json!({ Path::ALL[path].as_str(): [profile] });
        let listed = parsed(form).unwrap();
        prop_assert_eq!(listed.path(&profile), Path::ALL[path]);
        if other != profile {
            prop_assert_eq!(listed.path(&other), rollout(&salt, a, b).path(&other));
        }
    }

    #[test]
    fn share_round_trips(share in share()) {
        prop_assert_eq!(share.to_string().parse(), Ok(share));
    }

    #[test]
    fn rollout_round_trips(salt in ID, (a, b) in shares(), ids in prop::collection::btree_set(ID, 0..6)) {
        let mut always = Lists::default();
        for (index, id) in ids.into_iter().enumerate() {
            [&mut always.legacy, &mut always.shadow, &mut always.r#async][index % 3].insert(id);
        }
        let rollout = Rollout::new(salt, a, b, always).unwrap();
        prop_assert_eq!(parsed(serde_json::to_value(&rollout).unwrap()), Ok(rollout));
    }

    #[test]
    fn parsing_any_share_never_panics(text in ".{0,12}") {
        let _ = text.parse::<Share>();
    }
}

/// Pearson's chi-square over 100 groups of 100 buckets. Its mean is 99 and its standard deviation
/// 14. The ids and salts are fixed.
#[test]
fn buckets_are_even() {
    for salt in ["2026-11", "a", "spring"] {
        let mut counts = [0.0f64; 100];
        for profile in profiles() {
            counts[usize::from(bucket(salt, &profile) / 100)] += 1.0;
        }
        let chi_square: f64 = counts.iter().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!((50.0..160.0).contains(&chi_square), "{chi_square} with {salt}");
    }
}

#[test]
fn a_share_holds_its_percentage_of_profiles() {
    let all: Vec<String> = profiles().take(20_000).collect();
    let check = |text: &str| {
        let share: Share = text.parse().unwrap();
        let expected = f64::from(share.0) / f64::from(BUCKETS) * all.len() as f64;
        let rollout = rollout("2026-11", share, Share::ALL);
        let found = all.iter().filter(|profile| rollout.path(profile) == Path::Async).count() as f64;
        // Five standard deviations of a count with that mean.
        assert!((found - expected).abs() <= 5.0 * expected.sqrt(), "{found} for {text}, expected {expected}");
    };
    for text in ["0%", "0.01%", "0.5%", "1%", "25%", "50%", "99.99%", "100%"] {
        check(text);
    }
}

/// Of the profiles that are async under one salt, the usual share is async under another.
#[test]
fn another_salt_reshuffles_buckets() {
    let share: Share = "10%".parse().unwrap();
    let (one, other) = (rollout("2026-11", share, share), rollout("2026-12", share, share));
    let all: Vec<String> = profiles().collect();
    let chosen: Vec<&String> = all.iter().filter(|profile| one.path(profile) == Path::Async).collect();
    let again = chosen.iter().filter(|profile| other.path(profile) == Path::Async).count() as f64;
    let expected = chosen.len() as f64 / 10.0;
    assert!((again - expected).abs() <= 5.0 * expected.sqrt(), "{again} of {} again", chosen.len());
}

#[test]
fn moves_list_exactly_the_profiles_that_move() {
    let (old, new) = (rollout("s", Share::NONE, Share::NONE), rollout("s", "30%".parse().unwrap(), Share::ALL));
    let all: Vec<String> = profiles().take(1000).collect();
    let moves: Vec<Move<'_>> = old.moves(&new, all.iter().map(String::as_str)).collect();
    assert_eq!(moves.len(), 1000, "every profile leaves the legacy path");
    assert!(moves.iter().all(|one| one.from == Path::Legacy && one.to == new.path(one.profile_id)));
    assert!(moves.iter().any(|one| one.to == Path::Async) && moves.iter().any(|one| one.to == Path::Shadow));
    assert_eq!(new.moves(&new, all.iter().map(String::as_str)).count(), 0);
}

#[test]
fn omitted_fields_have_defaults() {
    let all_legacy = parsed(json!({"salt": "s"})).unwrap();
    assert_eq!((all_legacy.async_share(), all_legacy.shadow_share()), (Share::NONE, Share::NONE));
    let no_shadow = parsed(json!({"salt": "s", "async": "12.5%"})).unwrap();
    assert_eq!((no_shadow.async_share(), no_shadow.shadow_share()), (Share(1250), Share(1250)));
    assert_eq!(serde_json::to_value(&no_shadow).unwrap(), json!({"salt": "s", "async": "12.5%", "shadow": "12.5%"}));
}

#[test]
fn shares_are_percentages_with_at_most_two_decimals() {
    let check = |text: &str, expected: Option<u16>| {
        assert_eq!(text.parse::<Share>().ok().map(Share::buckets), expected, "{text}");
    };
    for (text, buckets) in
        [("0%", 0), ("0.01%", 1), ("1%", 100), ("12.5%", 1250), ("99.99%", 9999), ("100.00%", 10_000)]
    {
        check(text, Some(buckets));
    }
    for text in ["", "%", "25", "25 %", "0.001%", ".5%", "5.%", "-1%", "+1%", "100.01%", "1000%", "1e2%", "٣%", "25%%"]
    {
        check(text, None);
    }
}

#[test]
fn an_invalid_rollout_names_its_field() {
    let check = |form: Value, expected: &[&str]| {
        let error = parsed(form.clone()).unwrap_err();
        assert!(expected.iter().all(|word| error.contains(word)), "{form}: {error}");
    };
    check(json!({}), &["salt"]);
    check(json!({"salt": ""}), &["`rollout.salt`"]);
    check(json!({"salt": 7}), &["`rollout.salt`"]);
    check(json!({"salt": "a\u{0}b"}), &["`rollout.salt`"]);
    check(json!({"salt": "s", "async": 0.5}), &["`rollout.async`", "expected a string"]);
    check(json!({"salt": "s", "async": "half"}), &["`rollout.async`", "half", "0.01%"]);
    check(json!({"salt": "s", "shadow": "101%"}), &["`rollout.shadow`", "101%"]);
    check(json!({"salt": "s", "shadow": null}), &["`rollout.shadow`"]);
    check(
        json!({"salt": "s", "async": "25%", "shadow": "10%"}),
        &["`rollout.shadow` is 10%", "`rollout.async`", "25%"],
    );
    check(json!({"salt": "s", "shaddow": "100%"}), &["shaddow"]);
    check(json!({"salt": "s", "always": {"asink": []}}), &["`rollout.always`", "asink"]);
    check(json!({"salt": "s", "always": {"shadow": ["p 1"]}}), &["`rollout.always.shadow`", "p 1"]);
    check(
        json!({"salt": "s", "always": {"legacy": ["p1", "p2"], "async": ["p3", "p2"]}}),
        &["profile p2", "`rollout.always.legacy`", "`rollout.always.async`"],
    );
}

/// Another implementation made the file; its own text says how.
#[test]
fn golden_vectors_hold() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../events/rollout/vectors.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let buckets = vectors["buckets"].as_array().unwrap();
    for vector in buckets {
        let found = bucket(&text(&vector["salt"]), &text(&vector["profile_id"]));
        assert_eq!(json!(found), vector["bucket"], "{vector}");
    }
    let mut paths = 0;
    for case in vectors["paths"].as_array().unwrap() {
        let rollout = parsed(case["rollout"].clone()).unwrap();
        for (profile, path) in case["profiles"].as_object().unwrap() {
            assert_eq!(json!(rollout.path(profile).as_str()), *path, "{profile} of {}", case["rollout"]);
            paths += 1;
        }
    }
    assert!(buckets.len() >= 12 && paths >= 24, "{} buckets, {paths} paths", buckets.len());
}
