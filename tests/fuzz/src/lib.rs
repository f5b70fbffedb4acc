//! What must hold whatever bytes a decoder is given.
//!
//! Each target is a function of bytes. It panics if the decoder panics, or if what it made of the
//! bytes breaks a promise that the target's header states. Where a decoder feeds a whole function,
//! the target is that function with its ports in memory.
//!
//! libFuzzer looks for inputs (`libfuzzer/`). Those worth keeping are in `corpus/`, by target, and a
//! test runs them all on stable Rust.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edge;
mod envelope;
#[cfg(feature = "functions")]
mod functions;
#[cfg(not(feature = "functions"))]
mod functions {
    pub(crate) const TARGETS: [(&str, crate::Target); 0] = [];
}
mod routing;
mod view;

/// A target.
pub type Target = fn(&[u8]);

/// The targets of the domain, which need nothing else.
const OF_THE_DOMAIN: [(&str, Target); 4] =
    [("edge", edge::run), ("envelope", envelope::run), ("routing", routing::run), ("view", view::run)];

/// Every target. Its name is that of its binary and of its folder in `corpus/`.
pub fn targets() -> impl Iterator<Item = (&'static str, Target)> {
    OF_THE_DOMAIN.into_iter().chain(functions::TARGETS)
}

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    targets().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("there is no target {name}")).1
}

/// When every input is received, Unix milliseconds. The sessions of the golden events began before.
const NOW: u64 = 1_790_000_010_200;
