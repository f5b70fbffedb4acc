//! Shows progress on standard error: a spinner on a terminal, otherwise one line per step.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a long step reports its progress without a terminal.
const DETAIL_EVERY: Duration = Duration::from_secs(10);

/// Shows the user what is being done.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    step: Mutex<Option<Step>>,
}

#[derive(Debug)]
struct Step {
    title: String,
    began: Instant,
    last_said: Instant,
}

impl Progress {
    /// A spinner if standard error is a terminal, otherwise lines.
    #[must_use]
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, lines: !terminal, step: Mutex::new(None) }
    }

    /// Prints nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self { bar: None, lines: false, step: Mutex::new(None) }
    }

    /// Ends the current step, if any, and starts this one.
    pub fn step(&self, title: impl Display) {
        self.finish();
        let (title, now) = (title.to_string(), Instant::now());
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_prefix(title.clone());
            bar.set_message("");
            bar.enable_steady_tick(Duration::from_millis(100));
        } else if self.lines {
            eprintln!("{title} ...");
        }
        *self.current() = Some(Step { title, began: now, last_said: now });
    }

    /// Shows what the current step is doing. Without a terminal, only now and then.
    pub fn detail(&self, text: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        } else if self.lines
            && let Some(step) = self.current().as_mut()
            && step.last_said.elapsed() >= DETAIL_EVERY
        {
            step.last_said = Instant::now();
            eprintln!("  {} s: {text}", step.began.elapsed().as_secs());
        }
    }

    /// Ends the current step, if any.
    pub fn finish(&self) {
        let Some(step) = self.current().take() else { return };
        let took = step.began.elapsed().as_secs_f32();
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.println(format!("✓ {} ({took:.1} s)", step.title));
            bar.set_prefix("");
            bar.set_message("");
        } else if self.lines {
            eprintln!("  done in {took:.1} s");
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Step>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
