//! Columns for people, and numbers in readable units.

use comfy_table::{Cell, ContentArrangement, Table, presets};
use ropewalk_proto::units;

use super::shown;

/// Placeholder of an empty cell.
pub const NONE: &str = "-";

/// Formats aligned columns under their headings, without rules, so that they can be cut and searched. On a
/// terminal that is too narrow for them, formats each row as a block of lines.
pub fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    columns_within(Table::new().width().map(usize::from), headings, rows)
}

/// Like [`columns`], for a terminal of this width.
pub fn columns_within(width: Option<usize>, headings: &[&str], rows: &[Vec<String>]) -> String {
    let fits = |text: &str| {
        let mut lines = text.lines();
        width.is_none_or(|width| lines.all(|line| line.chars().count() <= width))
    };
    let whole = aligned(headings, rows);
    if fits(&whole) {
        return whole;
    }
    // A column without any value is omitted.
    let says = |column: &usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(*column));
        cells.any(|cell| !cell.is_empty() && cell != NONE)
    };
    let kept: Vec<usize> = (0..headings.len()).filter(says).collect();
    let kept_of = |row: &Vec<String>| kept.iter().filter_map(|at| row.get(*at).cloned()).collect();
    let fewer: Vec<&str> = kept
        .iter()
        .filter_map(|at| headings.get(*at).copied())
        .collect();
    let short = aligned(&fewer, &rows.iter().map(kept_of).collect::<Vec<_>>());
    match fits(&short) {
        true => short,
        false => blocks(headings, rows),
    }
}

fn aligned(headings: &[&str], rows: &[Vec<String>]) -> String {
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
        table.add_row(row.iter().map(|cell| shown(cell.as_bytes())));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Formats each row as lines with a heading and a cell.
fn blocks(headings: &[&str], rows: &[Vec<String>]) -> String {
    let widest = headings.iter().map(|heading| heading.len()).max();
    let width = widest.unwrap_or(0);
    let block = |row: &Vec<String>| {
        let lines = headings.iter().zip(row).map(|(heading, cell)| {
            let line = format!(
                "{:width$}  {}",
                heading.to_uppercase(),
                shown(cell.as_bytes())
            );
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// Formats ids as `1,2,3`, or a dash for none.
pub fn list(ids: &[u64]) -> String {
    match ids {
        [] => NONE.into(),
        ids => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Formats a duration setting: `7d`, or `unlimited`.
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

/// Formats a number of bytes, rounded: `1.5MiB`.
pub fn about(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (value as f64, "B");
    for next in UNITS {
        // 1023.96 would round to 1024.0.
        if size < 1_023.95 {
            break;
        }
        (size, unit) = (size / 1_024.0, next);
    }
    match unit {
        "B" => format!("{value}B"),
        unit => format!("{size:.1}{unit}"),
    }
}

/// Formats a size setting: `64MiB`, or `unlimited`. Uses the largest unit that divides the size.
pub fn bytes(value: i64) -> String {
    match u64::try_from(value) {
        Ok(value) => units::size(value),
        Err(_) => "unlimited".into(),
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
    fn a_table_that_is_too_wide_leaves_out_what_says_nothing_and_then_breaks_into_blocks() {
        let rows = [
            vec!["1".to_string(), "-".into(), "10.0.0.1:7101".into()],
            vec!["2".into(), "-".into(), "10.0.0.2:7101".into()],
        ];
        let within = |width| columns_within(Some(width), &["node", "rack", "address"], &rows);
        let whole = "NODE  RACK  ADDRESS\n1     -     10.0.0.1:7101\n2     -     10.0.0.2:7101";
        assert_eq!(within(25), whole);
        let fewer = "NODE  ADDRESS\n1     10.0.0.1:7101\n2     10.0.0.2:7101";
        assert_eq!(within(24), fewer);
        let blocks = "NODE     1\nRACK     -\nADDRESS  10.0.0.1:7101\n\n\
                      NODE     2\nRACK     -\nADDRESS  10.0.0.2:7101";
        assert_eq!(within(18), blocks);
        assert_eq!(columns_within(Some(3), &["node"], &[]), "");
    }

    #[test]
    fn a_cell_cannot_write_over_the_terminal_nor_break_its_line() {
        let rows = [vec!["a\u{1b}[2J\nb".to_string()]];
        assert_eq!(columns(&["name"], &rows), "NAME\na\\u{1b}[2J\\nb");
    }

    #[test]
    fn settings_read_as_they_are_written() {
        assert_eq!(millis(604_800_000), "7d");
        assert_eq!(millis(-1), "unlimited");
        assert_eq!(millis(90_000), "1m 30s");
        assert_eq!(bytes(64 << 20), "64MiB");
        assert_eq!(bytes(1_000), "1000B");
        assert_eq!(bytes(-1), "unlimited");
        assert_eq!(about(1_000), "1000B");
        assert_eq!(about(1_536 << 10), "1.5MiB");
        assert_eq!(about((1 << 20) - 1), "1.0MiB");
        assert_eq!(about(u64::MAX), "16.0EiB");
        assert_eq!(list(&[]), "-");
        assert_eq!(list(&[1, 2]), "1,2");
    }
}
