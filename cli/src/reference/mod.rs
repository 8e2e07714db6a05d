//! The pages of `docs/reference`, generated from the code that they describe. A test compares each page with
//! its file, and writes the file instead if the variable `UPDATE` is 1.

mod command_line;
mod errors;
mod metrics;
mod settings;

use std::path::Path;
use std::{env, fs};

const GENERATED: &str = "<!-- Generated from the code by `UPDATE=1 cargo test --release -p ropewalk reference`: edit the code. -->\n\n";

/// Compares a page with its file in `docs/reference`, or writes the file.
fn check(name: &str, page: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let page = format!("{GENERATED}{}\n", page.trim_end());
    let path = folder.join(name);
    if env::var("UPDATE").is_ok_and(|value| value == "1") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let mut lines = found.lines().zip(page.lines());
    let difference = lines.find(|(found, expected)| found != expected);
    assert!(
        found == page,
        "docs/reference/{name} differs from the code; `UPDATE=1 cargo test --release -p ropewalk reference` writes it. \
         First difference: {difference:?}"
    );
}

/// A Markdown table.
fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ")).replace("  ", " ");
    let headings: Vec<String> = headings.iter().map(|one| (*one).to_owned()).collect();
    let mut table = line(&headings) + &"|---".repeat(headings.len()) + "|\n";
    for row in rows {
        assert_eq!(row.len(), headings.len(), "{row:?}");
        table.push_str(&line(&row));
    }
    table
}

/// Text in a cell of a table, on one line.
fn text(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").replace('\\', "\\\\");
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// A name or a value in a cell of a table; nothing if it is empty.
fn code(code: &str) -> String {
    match code {
        "" => String::new(),
        code => format!("`{}`", code.replace('|', "\\|")),
    }
}
