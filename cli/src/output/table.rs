//! Columns for people, and numbers as people read them.

use comfy_table::{Cell, ContentArrangement, Table, presets};

/// Aligned columns under their headings, without lines, so that they can be cut and searched.
pub fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            headings
                .iter()
                .map(|heading| Cell::new(heading.to_uppercase())),
        );
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// `1,2,3`, or a dash for none.
pub fn list(ids: &[u64]) -> String {
    match ids {
        [] => "-".into(),
        ids => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(","),
    }
}

/// A duration setting: `7d`, or `unlimited`.
pub fn millis(value_ms: i64) -> String {
    match u64::try_from(value_ms) {
        Ok(value_ms) => {
            let duration = std::time::Duration::from_millis(value_ms);
            humantime::format_duration(duration)
                .to_string()
                .replace("days", "d")
                .replace("day", "d")
        }
        Err(_) => "unlimited".into(),
    }
}

/// A size setting: `64MiB`, or `unlimited`. Only what is whole in a unit is shown in it.
pub fn bytes(value: i64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let Ok(value) = u64::try_from(value) else {
        return "unlimited".into();
    };
    let whole = |(size, _): &&(u64, &str)| value >= *size && value.is_multiple_of(*size);
    match UNITS.iter().find(whole) {
        Some((size, unit)) => format!("{}{unit}", value / size),
        None => format!("{value}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_carry_no_trailing_blanks() {
        let rows = [
            vec!["flights".to_string(), "12".into()],
            vec!["a".into(), "1".into()],
        ];
        let expected = "TOPIC    PARTITIONS\nflights  12\na        1";
        assert_eq!(columns(&["topic", "partitions"], &rows), expected);
    }

    #[test]
    fn settings_read_as_they_are_written() {
        assert_eq!(millis(604_800_000), "7d");
        assert_eq!(millis(-1), "unlimited");
        assert_eq!(millis(90_000), "1m 30s");
        assert_eq!(bytes(64 << 20), "64MiB");
        assert_eq!(bytes(1_000), "1000B");
        assert_eq!(bytes(-1), "unlimited");
        assert_eq!(list(&[]), "-");
        assert_eq!(list(&[1, 2]), "1,2");
    }
}
