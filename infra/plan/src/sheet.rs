//! Numbers that know how they were computed. A [`Term`] carries its formula with it, so what is
//! printed as a formula is what was computed: there is no second text that could disagree.

use crate::constants::{Constant, Constants};
use anyhow::Result;
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::{Add, Div, Mul, Sub};

/// How tightly the outermost operation of a formula binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Sum,
    Product,
    Name,
}

/// A number with its formula, in words and in figures.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    pub(crate) value: f64,
    words: String,
    figures: String,
    binding: Binding,
}

impl Term {
    fn named(name: &str, value: f64) -> Self {
        Self { value, words: name.to_owned(), figures: figure(value), binding: Binding::Name }
    }

    /// A number that needs no name.
    pub(crate) fn number(value: f64) -> Self {
        Self::named(&figure(value), value)
    }

    /// The next whole number.
    pub(crate) fn ceil(&self) -> Self {
        // A figure such as 3.0000000001 comes of computing, not of the case.
        self.call("up", (self.value - 1e-9).ceil())
    }

    /// The greater of the two.
    pub(crate) fn max(&self, other: impl Borrow<Self>) -> Self {
        self.call_with("max", other.borrow(), self.value.max(other.borrow().value))
    }

    /// The lesser of the two.
    pub(crate) fn min(&self, other: impl Borrow<Self>) -> Self {
        self.call_with("min", other.borrow(), self.value.min(other.borrow().value))
    }

    fn call(&self, function: &str, value: f64) -> Self {
        let apply = |text: &str| format!("{function}({text})");
        Self { value, words: apply(&self.words), figures: apply(&self.figures), binding: Binding::Name }
    }

    fn call_with(&self, function: &str, other: &Self, value: f64) -> Self {
        let apply = |one: &str, two: &str| format!("{function}({one}, {two})");
        let words = apply(&self.words, &other.words);
        Self { value, words, figures: apply(&self.figures, &other.figures), binding: Binding::Name }
    }

    fn join(&self, operator: char, other: &Self, value: f64) -> Self {
        let binding = if "+-".contains(operator) { Binding::Sum } else { Binding::Product };
        // `a - (b + c)` and `a / (b * c)` need their brackets.
        let other_needs = other.binding < binding || (other.binding == binding && "-/".contains(operator));
        let bracket = |text: &str, needs: bool| if needs { format!("({text})") } else { text.to_owned() };
        let join = |one: &str, two: &str| {
            format!("{} {operator} {}", bracket(one, self.binding < binding), bracket(two, other_needs))
        };
        let (words, figures) = (join(&self.words, &other.words), join(&self.figures, &other.figures));
        Self { value, words, figures, binding }
    }
}

macro_rules! operators {
    ($($operator:ident, $method:ident, $sign:literal;)*) => {$(
        impl<T: Borrow<Term>> $operator<T> for &Term {
            type Output = Term;
            fn $method(self, other: T) -> Term {
                self.join($sign, other.borrow(), self.value.$method(other.borrow().value))
            }
        }
        impl<T: Borrow<Term>> $operator<T> for Term {
            type Output = Term;
            fn $method(self, other: T) -> Term {
                (&self).$method(other)
            }
        }
    )*};
}

operators! {
    Add, add, '+';
    Sub, sub, '-';
    Mul, mul, '*';
    Div, div, '/';
}

/// A computed number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Computed {
    /// Which part of the plan it belongs to.
    pub part: &'static str,
    /// Unique in a plan: formulas refer to it.
    pub name: String,
    /// In [`Self::unit`].
    pub value: f64,
    /// Such as `/s`, `ms`, `$/month`.
    pub unit: &'static str,
    /// The formula in names of other lines, of arguments and of constants.
    pub formula: String,
    /// The same in figures.
    pub figures: String,
}

/// All that was computed, in order, and the constants that it needed.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    constants: &'a Constants,
    lines: Vec<Computed>,
    used: BTreeMap<String, Constant>,
}

impl<'a> Sheet<'a> {
    pub(crate) fn new(constants: &'a Constants) -> Self {
        Self { constants, lines: Vec::new(), used: BTreeMap::new() }
    }

    /// A constant by its key. Formulas refer to it by the key.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn get(&mut self, key: &str) -> Result<Term> {
        let constant = self.constants.get(key)?;
        self.used.insert(key.to_owned(), constant.clone());
        Ok(Term::named(key, constant.value))
    }

    /// A price or another figure "per million", for one.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn get_per_million(&mut self, key: &str) -> Result<Term> {
        Ok(self.get(key)? / Term::number(1e6))
    }

    /// What the user said, or what stands in for it.
    pub(crate) fn argument(&mut self, flag: &str, value: f64) -> Term {
        Term::named(flag, value)
    }

    /// Writes a line. Formulas that use the result refer to it by name.
    pub(crate) fn line(&mut self, part: &'static str, name: &str, unit: &'static str, term: Term) -> Term {
        let Term { value, words, figures, .. } = term;
        self.lines.push(Computed { part, name: name.to_owned(), value, unit, formula: words, figures });
        Term::named(name, value)
    }

    pub(crate) fn finish(self) -> (Vec<Computed>, BTreeMap<String, Constant>) {
        (self.lines, self.used)
    }
}

/// A number as people read it: `1,234,567`, `12.5`, `0.00123`.
#[must_use]
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    if value.abs() >= 1_000.0 {
        return grouped(value.round());
    }
    // Four significant digits, without trailing zeros.
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (3 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn grouped(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if whole < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formula_is_what_was_computed() {
        let [a, b, c] = [("a", 6.0), ("b", 2.0), ("c", 4.0)].map(|(name, value)| Term::named(name, value));
        let term = (&a + &b) / (&b * &c) - (&a - &c).max(Term::number(0.5)).ceil();
        assert_eq!(term.words, "(a + b) / (b * c) - up(max(a - c, 0.5))");
        assert_eq!(term.figures, "(6 + 2) / (2 * 4) - up(max(6 - 4, 0.5))");
        assert_eq!(term.value, 8.0 / 8.0 - 2.0);
    }

    #[test]
    fn figures_are_grouped_and_short() {
        for (value, text) in
            [(1_234_567.4, "1,234,567"), (1_000.0, "1,000"), (12.5, "12.5"), (0.001_234, "0.001234"), (0.0, "0")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
