//! Rates as people write them: `1M/s`, `250k/s`, `90M/h`.

use anyhow::{Context as _, Result, bail};

/// Events per second of a text such as `1M/s`. Without a unit of time it is per second.
///
/// # Errors
/// If it is no rate above 0.
pub fn rate(text: &str) -> Result<f64> {
    let (amount, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per.trim() {
        "s" | "second" => 1.0,
        "min" | "minute" => 60.0,
        "h" | "hour" => 3_600.0,
        "d" | "day" => 86_400.0,
        other => bail!("{other:?} is no unit of time: s, min, h or day"),
    };
    let amount = amount.trim();
    let (digits, factor) = match amount.char_indices().last() {
        Some((at, 'k' | 'K')) => (&amount[..at], 1e3),
        Some((at, 'M')) => (&amount[..at], 1e6),
        Some((at, 'G')) => (&amount[..at], 1e9),
        _ => (amount, 1.0),
    };
    let number: f64 = digits.replace(['_', ','], "").parse().with_context(|| format!("{text:?} is no rate"))?;
    let rate = number * factor / seconds;
    anyhow::ensure!(rate > 0.0 && rate <= 1e9, "{text:?}: a rate is above 0 and at most 1G/s");
    Ok(rate)
}

/// A number above 0.
///
/// # Errors
/// If it is not.
pub fn positive(text: &str) -> Result<f64> {
    let number: f64 = text.parse().with_context(|| format!("{text:?} is no number"))?;
    anyhow::ensure!(number > 0.0 && number.is_finite(), "{text} is not above 0");
    Ok(number)
}

/// A share from 0 to 1, or a percentage such as `5%`.
///
/// # Errors
/// If it is neither.
pub fn share(text: &str) -> Result<f64> {
    let (digits, whole) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    let number: f64 = digits.parse().with_context(|| format!("{text:?} is no share"))?;
    let share = number / whole;
    anyhow::ensure!((0.0..=1.0).contains(&share), "{text} is not between 0 and 100%");
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, expected) in
            [("1M/s", 1e6), ("250k/s", 250e3), ("86.4G/day", 1e6), ("90M/h", 25e3), ("600/min", 10.0), ("1_000", 1e3)]
        {
            assert_eq!(rate(text).unwrap(), expected, "{text}");
        }
        for text in ["", "M/s", "1M/week", "-1/s", "0/s", "2T/s", "1e30"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_may_be_percentages() {
        assert_eq!((share("5%").unwrap(), share("0.05").unwrap()), (0.05, 0.05));
        assert!(share("101%").is_err() && share("-1").is_err() && positive("0").is_err());
    }
}
