//! Progress of long work, on stderr, for people only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Redraw interval of a spinner.
const TICK: Duration = Duration::from_millis(120);

/// Progress bar for work of a known length. Shown only if stderr is a terminal.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    let template = "{msg} [{bar:30}] {percent}% {elapsed_precise} {prefix}";
    with_style(bar, template)
}

/// Progress bar for a known number of bytes.
pub fn bytes_bar(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    let template = "{msg} [{bar:30}] {percent}% {binary_bytes_per_sec} {prefix}";
    with_style(bar, template)
}

/// Spinner for work without a known end.
pub fn spinner(what: &'static str) -> ProgressBar {
    let spinner = with_style(
        ProgressBar::new_spinner(),
        "{spinner} {msg} {elapsed} {prefix}",
    )
    .with_message(what);
    spinner.enable_steady_tick(TICK);
    spinner
}

fn with_style(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
