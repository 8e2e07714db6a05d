//! Output of the demo: one line for each step, in columns.

use std::time::Duration;

/// Prints a step and its result.
pub fn say(step: &str, what: impl AsRef<str>) {
    println!("  {step:<10}  {}", what.as_ref());
}

/// Formats `27004` as `27,004`.
pub fn number(value: impl TryInto<u64>) -> String {
    let digits = value.try_into().unwrap_or_default().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration as `1.2 s`.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(0_u64), "0");
        assert_eq!(number(999_u64), "999");
        assert_eq!(number(27_004_u64), "27,004");
        assert_eq!(number(1_000_000_u64), "1,000,000");
    }
}
