//! The memory of all processes of a local cloud over time, and whether the functions' stays flat.
//!
//! The functions' must: their environments live for hours and have nothing to remember. It is
//! judged on the environment of each function that was seen for the longest time. Growth that has
//! stopped is no leak: an allocator keeps what the largest batch took. The emulator, a broker in
//! memory and this command keep what was sent, so theirs grows with it.

use crate::usage::allocated_memory;
use anyhow::Result;
use local::LocalCloud;
use local::functions::Environments;
use operate::Endpoints;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What an environment has loaded by then is what it needs.
const WARM_AFTER: Duration = Duration::from_secs(30);
/// More than a tenth and more than this is growth, bytes.
const SLACK: u64 = 1024 * 1024;
/// Growth has stopped if it was less than this share of what is allowed in the last half. A leak that rises steadily and
/// is just above what is allowed makes a third of its growth there.
const STOPPED: u64 = 4;
/// An environment is judged if it was seen for at least this share of the soak.
const JUDGED_SHARE: f64 = 0.3;

/// One process: when it was seen, and how much memory it had allocated, bytes.
type Samples = Vec<(Duration, u64)>;

/// The memory of all processes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By function, then by process id.
    functions: BTreeMap<&'static str, BTreeMap<u32, Samples>>,
    /// Everything else, by name.
    programs: BTreeMap<String, Samples>,
    last: Duration,
}

/// The memory of a function, from the environment that was seen for the longest time.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct OfFunction {
    pub(super) function: &'static str,
    /// Environments that were seen.
    pub(super) environments: usize,
    /// How long that one was seen, seconds.
    pub(super) seconds: u64,
    /// The medians of the first quarter of that time, once it was warm, of the third and of the last, bytes.
    pub(super) start: u64,
    pub(super) late: u64,
    pub(super) end: u64,
    /// Absent if it was not seen for long enough.
    pub(super) flat: Option<bool>,
    /// Each look at it: seconds since the start, bytes.
    pub(super) looks: Vec<(u64, u64)>,
}

/// The memory of another program at its first and last sample, bytes.
#[derive(Debug, Serialize)]
pub(super) struct OfProgram {
    pub(super) program: String,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Memory {
    /// Looks at all processes.
    ///
    /// # Errors
    /// If the list of processes cannot be read.
    pub(super) fn sample(&mut self, cloud: &mut LocalCloud, at: Duration) -> Result<()> {
        self.last = at;
        let endpoints = cloud.endpoints().clone();
        for (function, name) in functions(&endpoints) {
            for id in Environments::of(&endpoints, name).ids()? {
                let id = id.as_raw_nonzero().get().unsigned_abs();
                // It may end meanwhile.
                if let Ok(bytes) = allocated_memory(id) {
                    self.functions.entry(function).or_default().entry(id).or_default().push((at, bytes));
                }
            }
        }
        let own = [("this command: viewers, pollers".to_owned(), std::process::id())];
        let others = cloud.processes().into_iter().map(|(name, id)| (name, id.as_raw_nonzero().get().unsigned_abs()));
        for (name, id) in others.chain(own) {
            if let Ok(bytes) = allocated_memory(id) {
                self.programs.entry(name).or_default().push((at, bytes));
            }
        }
        Ok(())
    }

    /// The memory of each function that was seen.
    pub(super) fn of_functions(&self) -> Vec<OfFunction> {
        let long_enough = self.last.mul_f64(JUDGED_SHARE).max(2 * WARM_AFTER);
        let of = |(function, environments): (&&'static str, &BTreeMap<u32, Samples>)| {
            let oldest = environments.values().max_by_key(|samples| seen_for(samples))?;
            let seen = seen_for(oldest);
            let [start, _, late, end] = quarters(oldest);
            let flat = (seen >= long_enough).then(|| is_flat(start, late, end));
            let (environments, seconds) = (environments.len(), seen.as_secs());
            let looks = oldest.iter().map(|(at, bytes)| (at.as_secs(), *bytes)).collect();
            Some(OfFunction { function, environments, seconds, start, late, end, flat, looks })
        };
        self.functions.iter().filter_map(of).collect()
    }

    /// The memory of everything else.
    pub(super) fn of_programs(&self) -> Vec<OfProgram> {
        let bytes = |sample: Option<&(Duration, u64)>| sample.map(|(_, bytes)| *bytes).unwrap_or_default();
        let of = |(program, samples): (&String, &Samples)| OfProgram {
            program: program.clone(),
            start: bytes(samples.first()),
            end: bytes(samples.last()),
        };
        self.programs.iter().map(of).collect()
    }
}

/// The functions that members and logs keep busy.
fn functions(endpoints: &Endpoints) -> impl Iterator<Item = (&'static str, &str)> {
    let always = [
        ("ingest", &endpoints.ingest_function),
        ("process", &endpoints.process_function),
        ("retry", &endpoints.retry_function),
        ("query", &endpoints.query_function),
    ];
    let publish = endpoints.publish_function.as_ref().map(|name| ("publish", name));
    always.into_iter().chain(publish).map(|(function, name)| (function, name.as_str()))
}

fn seen_for(samples: &Samples) -> Duration {
    let at = |sample: Option<&(Duration, u64)>| sample.map(|(at, _)| *at).unwrap_or_default();
    at(samples.last()).saturating_sub(at(samples.first()))
}

/// The medians of the four quarters of the time after warming up.
fn quarters(samples: &Samples) -> [u64; 4] {
    let warm = samples.first().map(|(at, _)| *at + WARM_AFTER).unwrap_or_default();
    let cold = samples.iter().take_while(|(at, _)| *at < warm).count();
    // One that did not live to be warm is judged by all that was seen.
    let warm = if cold < samples.len() { &samples[cold..] } else { samples };
    let quarter = warm.len().div_ceil(4);
    std::array::from_fn(|n| {
        let from = n * (warm.len() - quarter) / 3;
        median(&warm[from..from + quarter])
    })
}

fn median(samples: &[(Duration, u64)]) -> u64 {
    let mut bytes: Vec<u64> = samples.iter().map(|(_, bytes)| *bytes).collect();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied().unwrap_or_default()
}

fn is_flat(start: u64, late: u64, end: u64) -> bool {
    let allowed = SLACK.max(start / 10);
    end <= start + allowed || end <= late + allowed / STOPPED
}

#[cfg(test)]
impl Memory {
    /// Ten minutes in which these functions' stayed as it was.
    pub(super) fn flat(functions: &[&'static str]) -> Self {
        let samples = || (0..20).map(|n| (Duration::from_secs(30 * n), SLACK)).collect();
        let functions = functions.iter().map(|function| (*function, BTreeMap::from([(1, samples())]))).collect();
        Self { functions, last: Duration::from_secs(600), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn memory(environments: &[&[u64]]) -> Memory {
        let samples = |mib: &&[u64]| (0..).zip(*mib).map(|(n, mib)| (Duration::from_secs(30 * n), mib * MIB)).collect();
        let environments = (1..).zip(environments.iter().map(samples)).collect();
        Memory {
            functions: BTreeMap::from([("process", environments)]),
            last: Duration::from_secs(600),
            ..Memory::default()
        }
    }

    fn judged(environments: &[&[u64]]) -> (u64, u64, Option<bool>) {
        let of = &memory(environments).of_functions()[0];
        (of.start / MIB, of.end / MIB, of.flat)
    }

    #[test]
    fn memory_that_grows_while_it_is_warm_is_not_flat() {
        // It is warm after the first sample.
        assert_eq!(judged(&[&[10, 20, 20, 20, 20, 20, 20, 20, 21, 21]]), (20, 21, Some(true)));
        assert_eq!(judged(&[&[10, 20, 20, 22, 24, 26, 28, 30, 32, 34]]), (20, 32, Some(false)));
        // A little is a page or two of the allocator's.
        assert_eq!(judged(&[&[1, 2, 2, 2, 2, 2, 2, 2, 3, 3]]), (2, 3, Some(true)));
        assert_eq!(judged(&[&[10, 20, 18, 16, 14, 12, 10, 8, 6, 4]]).2, Some(true));
    }

    #[test]
    fn growth_that_has_stopped_is_no_leak() {
        let leaks = |of: &[u64]| judged(&[of]).2 == Some(false);
        // The largest batch came early, or in the middle.
        assert!(!leaks(&[4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]));
        assert!(!leaks(&[4, 4, 4, 4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6]));
        // Nobody can tell whether what grew last would have stopped.
        assert!(leaks(&[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 6, 6, 6, 6]));
        assert!(leaks(&[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6, 7]));
        assert!(leaks(&[4, 4, 4, 4, 6, 6, 6, 6, 8, 8, 8, 8, 10, 10, 10, 10]));
        assert!(leaks(&[4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 7, 7, 7]));
    }

    #[test]
    fn the_environment_that_lived_longest_is_judged() {
        let grows: &[u64] = &[10, 20, 30, 40, 50];
        let flat: &[u64] = &[10; 12];
        assert_eq!(judged(&[grows, flat]), (10, 10, Some(true)));
        assert_eq!(memory(&[grows, flat]).of_functions()[0].environments, 2);
    }

    #[test]
    fn nothing_is_said_of_environments_that_did_not_live_for_long() {
        assert_eq!(judged(&[&[10, 20, 30, 40]]).2, None);
        assert_eq!(judged(&[&[10]]), (10, 10, None));
    }
}
