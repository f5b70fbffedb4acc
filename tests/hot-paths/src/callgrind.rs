//! Counts what one path does, by running it in a process of its own under valgrind's callgrind, and
//! reads callgrind's output.
//!
//! What a run depends on beside the code is kept equal where that is possible: the environment has
//! only fixed variables, and the C library may use no instruction that some processors lack.

use crate::figures::Spent;
use crate::paths::HotPath;
use anyhow::{Context, Result, bail, ensure};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// Both match `counted`, however its symbol is mangled. Callgrind obeys only one of
/// two options that have the same pattern. `--toggle-collect` would not do: it limits what
/// instructions are counted, but not which calls.
const ENTERED: &str = "*hot_paths*counted*";
const LEFT: &str = "*paths*counted*";

/// How often a path is counted; the median is its figure.
const RUNS: usize = 5;

/// The C library picks variants of `memcpy` and the like by the processor. Without these features
/// it is everywhere the same one. Names that a version does not know are ignored.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-BMI2,\
                        -SSE4_2,-SSE4_1,-SSSE3,-ERMS,-FSRM";

/// The functions that allocate.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

const NOT_INSTALLED: &str = "valgrind is not installed. On Debian and Ubuntu: apt-get install valgrind; \
                             on Fedora: dnf install valgrind; there is none for macOS on Apple silicon";

/// Counts a path. The last profile is kept in `folder`, for `callgrind_annotate`.
pub(crate) fn count(path: &HotPath, folder: &Path) -> Result<Spent> {
    let mut runs = (0..RUNS).map(|_| count_once(path, folder)).collect::<Result<Vec<_>>>()?;
    runs.sort_by_key(|spent| spent.instructions);
    runs.get(RUNS / 2).copied().context("no run")
}

fn count_once(path: &HotPath, folder: &Path) -> Result<Spent> {
    // Callgrind adds `.1` for what it writes on leaving the function, and writes the rest without.
    let rest = folder.join(format!("{}.callgrind", path.name.replace('/', "-")));
    let profile = rest.with_extension("callgrind.1");
    // What an earlier run left must not be read for this one.
    if let Err(error) = std::fs::remove_file(&profile)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", profile.display()));
    }
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--compress-strings=no"])
        .arg(format!("--zero-before={ENTERED}"))
        .arg(format!("--dump-after={LEFT}"))
        .arg(format!("--callgrind-out-file={}", rest.display()))
        .arg(std::env::current_exe()?)
        .args(["--once", path.name])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES);
    let output = match valgrind.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(NOT_INSTALLED),
        output => output.context("starting valgrind")?,
    };
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&profile)
        .with_context(|| format!("reading {}: is there no symbol like {LEFT}?", profile.display()))?;
    std::fs::remove_file(&rest).with_context(|| format!("removing {}", rest.display()))?;
    read(&text).with_context(|| format!("in {}", profile.display()))
}

/// Reads a profile whose names are written out (`--compress-strings=no`).
///
/// An allocator's own calls are no further allocations: `realloc` may call `malloc`.
fn read(profile: &str) -> Result<Spent> {
    let mut spent = Spent::default();
    let (mut caller, mut callee) = ("", "");
    let mut events = None;
    for line in profile.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        let value = value.trim();
        match key {
            "events" => events = Some(value),
            "totals" => spent.instructions = value.parse().with_context(|| format!("reading `{line}`"))?,
            "fn" => caller = value,
            "cfn" => callee = value,
            "calls" if allocates(callee) && !allocates(caller) => {
                let calls = value.split(' ').next().unwrap_or_default();
                spent.allocations += calls.parse::<u64>().with_context(|| format!("reading `{line}`"))?;
            }
            _ => {}
        }
    }
    ensure!(events == Some("Ir"), "callgrind counted {events:?}, not only instructions (Ir)");
    ensure!(spent.instructions > 0, "nothing was counted");
    Ok(spent)
}

/// Whether a function allocates. Callgrind adds `'2` to a function that calls itself; a symbol may
/// have a version, and a prefix that makes it the library's own.
fn allocates(function: &str) -> bool {
    let name = function.split(['@', '\'']).next().unwrap_or_default();
    ALLOCATORS.contains(&name.trim_start_matches("__libc_").trim_start_matches("__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that matter, as valgrind 3.19 writes them.
    const PROFILE: &str = "\
version: 1
creator: callgrind-3.19.0
desc: Trigger: Program termination
positions: line
events: Ir
summary: 1310

ob=/target/release/hot-paths
fl=???
fn=hot_paths::paths::edge
0 700
cob=/lib/libc.so.6
cfi=./malloc/malloc.c
cfn=malloc
calls=3 3278
0 300
cfn=playback::edge::validate
calls=50 0
0 100

fn=alloc::raw_vec::finish_grow
0 10
cfn=realloc
calls=2 0
0 100
cfn=calloc@@GLIBC_2.2.5
calls=1 0
0 60

fn=realloc
0 20
cfn=malloc'2
calls=1 0
0 20

totals: 1310
";

    #[test]
    fn instructions_are_the_total_and_allocations_are_calls() {
        assert_eq!(read(PROFILE).unwrap(), Spent { instructions: 1310, allocations: 6 });
    }

    #[track_caller]
    fn fails(profile: &str, because: &str) {
        let error = read(profile).unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn profile_that_counts_nothing_or_something_else_is_an_error() {
        fails(&PROFILE.replace("totals: 1310", "totals: 0"), "nothing was counted");
        fails(&PROFILE.replace("totals: 1310", "totals: 1310 7"), "reading `totals: 1310 7`");
        fails(&PROFILE.replace("calls=3 3278", "calls=three 3278"), "reading `calls=three 3278`");
        fails(&PROFILE.replace("events: Ir", "events: Ir Dr"), "Ir Dr");
        fails("", "None");
    }

    #[test]
    fn allocators_are_known_by_all_their_names() {
        for name in ["malloc", "malloc'2", "__libc_malloc", "realloc@@GLIBC_2.2.5", "posix_memalign"] {
            assert!(allocates(name), "{name}");
        }
        for name in ["free", "_int_malloc", "my_crate::malloc", ""] {
            assert!(!allocates(name), "{name}");
        }
    }
}
