//! The page of the command line: every command with its arguments, and the flags that all of them take.

use std::fmt::Write;

use clap::{Arg, Command};

use super::{check, code, table, text};
use crate::args;
use crate::exit::{BAD_USAGE, FAILED};

const HEADINGS: [&str; 4] = ["argument", "default", "environment", "meaning"];

/// An argument as typed: `-p, --partitions N`, or `NAME`.
pub fn typed(arg: &Arg) -> String {
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        names.push(format!("--{long}"));
    }
    let mut typed = names.join(", ");
    if arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default();
        for value in values {
            if !typed.is_empty() {
                typed.push(' ');
            }
            typed.push_str(value.as_str());
        }
    }
    typed
}

/// The help of an argument, without the default that it may state.
pub fn meaning(arg: &Arg) -> String {
    let (help, _) = help_and_default(arg);
    let values = match arg.get_action().takes_values() {
        true => arg.get_possible_values(),
        false => Vec::new(),
    };
    let described: Vec<String> = values
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("{} ({})", code(value.get_name()), text(&help.to_string())),
            None => code(value.get_name()),
        })
        .collect();
    match described.is_empty() {
        true => help,
        false => format!("{}: {}", help.trim_end_matches('.'), described.join(", ")),
    }
}

/// The default of an argument: its own, or the one that its help states. An argument without which the command
/// fails is required, even if an environment variable or a file may give it too.
pub fn default(arg: &Arg) -> String {
    let defaults = arg.get_default_values().iter();
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() {
        return code(&defaults.join(","));
    }
    if arg.is_required_set() {
        return "required".to_owned();
    }
    help_and_default(arg).1
}

/// The environment variable of an argument.
pub fn variable(arg: &Arg) -> String {
    let name = arg.get_env().map(|name| name.to_string_lossy());
    code(&name.unwrap_or_default())
}

/// The help of an argument as one paragraph, and the default that it states.
fn help_and_default(arg: &Arg) -> (String, String) {
    let whole = arg.get_long_help().or(arg.get_help());
    let whole = whole.map(ToString::to_string).unwrap_or_default();
    let whole = whole.replace("[required]", "[default: required]");
    let (before, stated) = whole.split_once("[default: ").unwrap_or((&whole, "]"));
    let (default, after) = stated.split_once(']').unwrap_or((stated, ""));
    let paragraphs = before.split("\n\n").chain(after.split("\n\n"));
    let mut help = String::new();
    for paragraph in paragraphs.map(text).filter(|text| !text.is_empty()) {
        if !help.is_empty() {
            help.push_str(if help.ends_with(['.', ':', ';']) {
                " "
            } else {
                ". "
            });
        }
        help.push_str(&paragraph);
    }
    (help, text(default))
}

fn arguments(command: &Command) -> String {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let rows = args.map(|arg| {
        let name = code(&typed(arg));
        vec![name, default(arg), variable(arg), meaning(arg)]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&HEADINGS, rows) + "\n",
    }
}

/// Examples of a command, from the end of its help.
fn examples(command: &Command) -> String {
    let help = command.get_after_long_help();
    let help = help.map(ToString::to_string).unwrap_or_default();
    let (_, examples) = help.split_once("Examples:\n").unwrap_or_default();
    let lines: Vec<&str> = examples.lines().map(str::trim).collect();
    format!("```sh\n{}\n```\n\n", lines.join("\n"))
}

/// The section of a command and those of its subcommands. `built` is the same command, complete for parsing.
fn section(page: &mut String, path: &str, command: &Command, built: &mut Command) {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let usage = built.render_usage().to_string();
    let usage = usage.trim().trim_start_matches("Usage: ");
    // Writing to a String cannot fail.
    let _ = write!(page, "## `{path}`\n\n{about}\n\n```\n{usage}\n```\n\n");
    let (parent, _) = path.rsplit_once(' ').unwrap_or_default();
    for alias in command.get_visible_aliases() {
        let _ = write!(page, "Alias: `{parent} {alias}`.\n\n");
    }
    page.push_str(&arguments(command));
    page.push_str(&examples(command));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        let built = built.find_subcommand_mut(name).unwrap();
        section(page, &format!("{path} {name}"), verb, built);
    }
}

fn page() -> String {
    let mut page = format!(
        "# Command line

Results go to stdout, logs and errors to stderr. The exit code is 0 if the command was done, {FAILED} if the cluster
refused or failed it, and {BAD_USAGE} for invalid input.

A flag overrides its environment variable. Durations are `250ms`, `30s`, `10m`, `6h` or `7d`. Sizes are `64KiB`,
`8MiB` or `1GiB`.

## Global options

Every command takes these, before or after its name.

"
    );
    let command = args::command();
    let mut built = args::command();
    built.build();
    page.push_str(&arguments(&command));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        let built = built.find_subcommand_mut(name).unwrap();
        section(&mut page, &format!("ropewalk {name}"), verb, built);
    }
    page
}

#[test]
fn the_page_of_the_command_line_is_as_the_code_says() {
    let page = page();
    assert!(page.contains("## `ropewalk topic create`"), "{page}");
    assert!(page.contains("`ROPEWALK_BOOTSTRAP`"), "{page}");
    check("cli.md", &page);
}
