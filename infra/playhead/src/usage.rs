//! What a process has used so far, from `/proc`: CPU of all its threads, and memory.
//!
//! `schedstat` counts in nanoseconds, but only for threads that still exist. `stat` counts threads
//! that have ended too, in ticks. So the first is used unless a thread ended in between.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A tick of `/proc/<pid>/stat`: Linux shows 100 per second to programs on every architecture that
/// Lambda has.
const TICK: Duration = Duration::from_millis(10);

/// The CPU that a process has used since it started.
#[derive(Debug, Clone)]
pub(crate) struct Cpu {
    /// By thread, nanoseconds.
    threads: BTreeMap<u32, u64>,
    /// User and system time, with threads that have ended.
    total: Duration,
}

impl Cpu {
    /// Reads it.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let total = total(&stat).with_context(|| format!("/proc/{pid}/stat has another form: {stat}"))?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).context("reading the threads of a function")? {
            let entry = entry?;
            // A thread may end while we read.
            let Ok(line) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let id = entry.file_name().to_string_lossy().parse();
            if let (Ok(id), Some(nanoseconds)) = (id, line.split(' ').next().and_then(|field| field.parse().ok())) {
                threads.insert(id, nanoseconds);
            }
        }
        Ok(Self { threads, total })
    }

    /// What it used after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let all_live = earlier.threads.keys().all(|thread| self.threads.contains_key(thread));
        if !all_live || self.threads.is_empty() {
            return self.total.saturating_sub(earlier.total);
        }
        let sum = |cpu: &Self| cpu.threads.values().sum::<u64>();
        Duration::from_nanos(sum(self).saturating_sub(sum(earlier)))
    }
}

/// The greatest memory that a process has had resident, bytes.
pub(crate) fn peak_memory(pid: u32) -> Result<u64> {
    bytes(&read(&format!("/proc/{pid}/status"))?, "VmHWM:").context("/proc has no VmHWM")
}

/// The memory that a process has allocated and resident, bytes: without files that it has mapped, such as its own code.
pub(crate) fn allocated_memory(pid: u32) -> Result<u64> {
    bytes(&read(&format!("/proc/{pid}/status"))?, "RssAnon:").context("/proc has no RssAnon")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path} (this needs Linux)"))
}

/// The user and system time in `/proc/<pid>/stat`: fields 14 and 15. The second field is the name
/// in parentheses, which may have spaces.
fn total(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
    Some(TICK * (times.next()?? + times.next()??))
}

/// A value of `/proc/<pid>/status`.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 4 0 1 2 3";
        assert_eq!(total(stat), Some(Duration::from_secs(3)));
        assert_eq!(total("7 (a"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nRssAnon:\t 1 kB\n";
        assert_eq!((bytes(status, "VmHWM:"), bytes(status, "RssAnon:")), (Some(2 * 1024 * 1024), Some(1024)));
        assert_eq!(bytes("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn an_ended_thread_makes_ticks_count() {
        let cpu = |threads: &[(u32, u64)], total| Cpu {
            threads: threads.iter().copied().collect(),
            total: Duration::from_millis(total),
        };
        let earlier = cpu(&[(1, 1_000), (2, 500)], 0);
        assert_eq!(cpu(&[(1, 3_000), (2, 500), (3, 100)], 10).since(&earlier), Duration::from_nanos(2_100));
        assert_eq!(cpu(&[(1, 3_000)], 10).since(&earlier), Duration::from_millis(10));
    }

    #[test]
    fn own_process_has_used_something() {
        let own = std::process::id();
        assert!(peak_memory(own).unwrap() >= allocated_memory(own).unwrap());
        assert!(allocated_memory(own).unwrap() > 0);
        let before = Cpu::of(own).unwrap();
        assert!(before.since(&before) == Duration::ZERO && !before.threads.is_empty());
    }
}
