//! The command line of a suite: `[SCENARIO …] [--slice K/N] [--seed N] [--rate N]`.

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};

/// What a suite can play.
pub trait Scenario: Copy + 'static {
    /// All of them, in the order in which they are played.
    const ALL: &'static [Self];

    /// Its name on the command line and in the table.
    fn name(self) -> &'static str;

    /// What breaks in it, in words.
    fn what(self) -> &'static str;
}

/// What the simulated devices send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Seeds the simulator, and everything else that is random in a scenario.
    pub seed: u64,
    /// POSTs per second.
    pub rate: f64,
}

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(super) struct Args<S> {
    pub(super) scenarios: Vec<S>,
    pub(super) slice: Option<Slice>,
    pub(super) load: Load,
}

impl<S: Scenario> Args<S> {
    /// Reads the words after the program's name. Without a scenario's name, all are chosen.
    pub(super) fn read(mut given: impl Iterator<Item = String>, rate: f64) -> Result<Self> {
        let mut args = Self { scenarios: Vec::new(), slice: None, load: Load { seed: 1, rate } };
        while let Some(word) = given.next() {
            let mut value = || given.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--seed" => args.load.seed = value()?.parse().context("--seed")?,
                "--rate" => args.load.rate = value()?.parse().context("--rate")?,
                "--slice" => args.slice = Some(value()?.parse().context("--slice")?),
                "--nocapture" => {} // nothing is captured
                name => args.scenarios.push(named(name)?),
            }
        }
        ensure!(args.load.rate > 0.0 && args.load.rate.is_finite(), "--rate must be above 0");
        if args.scenarios.is_empty() {
            args.scenarios = S::ALL.to_vec();
        }
        if let Some(slice) = args.slice {
            let of = args.scenarios.len();
            args.scenarios = slice.of(&args.scenarios);
            ensure!(!args.scenarios.is_empty(), "slice {slice} of {of} scenarios is empty");
        }
        Ok(args)
    }

    /// Which scenarios were chosen, and how to run the rest.
    pub(super) fn selection(&self) -> String {
        let names: Vec<&str> = self.scenarios.iter().map(|scenario| scenario.name()).collect();
        let chosen = format!("{} of {} scenarios: {}", names.len(), S::ALL.len(), names.join(", "));
        match self.slice {
            Some(slice) => {
                let others: Vec<String> = slice.others().map(|other| format!("--slice {other}")).collect();
                format!("Slice {slice}, {chosen}.\nThe rest: {}.", others.join(", "))
            }
            None => format!("{chosen}."),
        }
    }
}

fn named<S: Scenario>(name: &str) -> Result<S> {
    let found = S::ALL.iter().copied().find(|scenario| scenario.name() == name);
    let names = || S::ALL.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ");
    found.with_context(|| format!("unknown scenario {name:?}; there are {}", names()))
}

/// One of several parts that together hold every scenario once. Written `K/N`: the `K`th of `N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    number: usize,
    count: usize,
}

impl Slice {
    /// Every `N`th item, from the `K`th on. So neighbours, which often take equally long, are in
    /// different slices.
    #[must_use]
    pub fn of<T: Clone>(self, items: &[T]) -> Vec<T> {
        items.iter().skip(self.number - 1).step_by(self.count).cloned().collect()
    }

    /// The other slices of the same set.
    fn others(self) -> impl Iterator<Item = Self> {
        (1..=self.count).filter(move |number| *number != self.number).map(move |number| Self { number, ..self })
    }
}

impl FromStr for Slice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, count) = text.split_once('/').with_context(|| format!("{text:?} is not K/N"))?;
        let slice = Self { number: number.parse()?, count: count.parse()? };
        ensure!((1..=slice.count).contains(&slice.number), "{text}: K must be from 1 to N");
        Ok(slice)
    }
}

impl std::fmt::Display for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Weather {
        Rain,
        Hail,
        Snow,
    }

    impl Scenario for Weather {
        const ALL: &'static [Self] = &[Self::Rain, Self::Hail, Self::Snow];

        fn name(self) -> &'static str {
            match self {
                Self::Rain => "rain",
                Self::Hail => "hail",
                Self::Snow => "snow",
            }
        }

        fn what(self) -> &'static str {
            "something falls"
        }
    }

    fn read(line: &str) -> Result<Args<Weather>> {
        Args::read(line.split_whitespace().map(str::to_owned), 20.0)
    }

    #[test]
    fn slices_partition_the_scenarios_for_any_count() {
        for len in 0..20 {
            let all: Vec<usize> = (0..len).collect();
            for count in 1..=25 {
                let slices = (1..=count).map(|number| Slice { number, count }.of(&all));
                let slices: Vec<Vec<usize>> = slices.collect();
                let mut together = slices.concat();
                together.sort_unstable();
                assert_eq!(together, all, "{count} slices of {len}");
                let lengths = slices.iter().map(Vec::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1, "{count} slices of {len}");
            }
        }
    }

    #[test]
    fn a_slice_is_of_what_is_named_or_of_all() {
        let scenarios = |line| read(line).unwrap().scenarios;
        assert_eq!(scenarios(""), Weather::ALL);
        assert_eq!(scenarios("snow rain --nocapture"), [Weather::Snow, Weather::Rain]);
        assert_eq!(scenarios("--slice 1/2"), [Weather::Rain, Weather::Snow]);
        assert_eq!(scenarios("snow rain --slice 2/2"), [Weather::Rain]);
        let said = read("--slice 2/3").unwrap().selection();
        assert_eq!(said, "Slice 2/3, 1 of 3 scenarios: hail.\nThe rest: --slice 1/3, --slice 3/3.");
    }

    #[test]
    fn a_wrong_command_line_is_refused_in_words() {
        for (line, says) in [
            ("sun", "unknown scenario \"sun\"; there are rain, hail, snow"),
            ("--slice 0/2", "K must be from 1 to N"),
            ("--slice 3/2", "K must be from 1 to N"),
            ("--slice 2", "\"2\" is not K/N"),
            ("--slice", "--slice needs a value"),
            ("--slice 4/4", "slice 4/4 of 3 scenarios is empty"),
            ("--rate 0", "--rate must be above 0"),
            ("--seed x", "--seed"),
        ] {
            let error = format!("{:#}", read(line).unwrap_err());
            assert!(error.contains(says), "{line}: {error}");
        }
        let load = read("--seed 7 --rate 2.5").unwrap().load;
        assert_eq!((load.seed, load.rate), (7, 2.5));
    }
}
