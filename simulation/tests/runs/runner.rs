//! The simulator's command line: a process that starts processes.

use std::process::{Command, Output};

fn simulator(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk-sim"));
    let command = command.args(arguments.split(' ')).env_remove("RUST_LOG");
    command.output().expect("it runs")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn a_seed_in_two_processes_is_the_same_run_on_both_disks() {
    for disk in ["memory", "rocksdb"] {
        let output = simulator(&format!("twice --seeds 1..3 --seconds 6 --disk {disk}"));
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn one_seed_is_run_for_minutes_with_the_faults_that_are_asked_for() {
    let output = simulator("run --seed 13 --minutes 1 --faults clock -o json");
    let said = said(&output);
    let summary = said.lines().find(|line| line.starts_with('{'));
    let summary: serde_json::Value =
        serde_json::from_str(summary.expect("a summary")).expect("json");
    let simulated_ms = summary["simulated_ms"].as_u64().expect("a number");
    assert!(simulated_ms >= 60_000, "{said}");
    let fell = summary["faults"].as_object().expect("faults");
    let clocks = fell.keys().filter(|kind| kind.starts_with("clock-"));
    assert!(!fell.is_empty() && clocks.count() == fell.len(), "{said}");
    assert!(
        summary["failing"]
            .as_object()
            .is_some_and(|failing| failing.is_empty()),
        "{said}"
    );
}

#[test]
fn a_fault_that_does_not_exist_is_refused_with_those_that_do() {
    let output = simulator("run --seed 3 --faults network,earthquake");
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    for part in [
        "earthquake: there is no such fault",
        "operation",
        "one-way-partition",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_run_that_hangs_is_ended_and_told_with_the_command_that_shows_it() {
    let output = simulator("run --seeds 7..8 --seconds 600 --disk memory --bound 1");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "seed 7 on memory: hang: not done after 1s by the wall",
        "-- replay --seed 7 --seconds 600 --disk memory",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
