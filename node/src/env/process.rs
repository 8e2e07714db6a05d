//! The operating system's figures about this process. They are read only if a node serves HTTP, which it does
//! not in the simulator.

use std::fs;

/// The process's use of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUse {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// Limit on open files and sockets, if there is one.
    pub max_fds: Option<u64>,
    /// Start time of the process, in seconds since 1970.
    pub began_s: f64,
}

/// Linux's unit of time in `/proc`. It is part of the kernel's interface and independent of its own clock.
const TICKS_A_SECOND: f64 = 100.0;
/// Positions in `/proc/self/stat` after the process's name, which may contain any characters: user time,
/// system time, and the start time since boot.
const USER: usize = 11;
const SYSTEM: usize = 12;
const BEGAN: usize = 19;

/// The process's present use; `None` on systems without Linux's `/proc`.
pub fn process_use() -> Option<ProcessUse> {
    let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let process = parse(
        &read("/proc/self/stat"),
        &read("/proc/self/status"),
        &read("/proc/stat"),
        &read("/proc/self/limits"),
    )?;
    let fds = fs::read_dir("/proc/self/fd");
    Some(ProcessUse {
        open_fds: fds.map_or(0, |fds| fds.count() as u64),
        ..process
    })
}

fn parse(stat: &str, status: &str, machine: &str, limits: &str) -> Option<ProcessUse> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let booted_s: f64 = after(machine, "btime")?.parse().ok()?;
    let resident_kib: u64 = after(status, "VmRSS:")?.parse().ok()?;
    let max_fds = after(limits, "Max open files");
    Some(ProcessUse {
        cpu_seconds: (ticks(USER)? + ticks(SYSTEM)?) / TICKS_A_SECOND,
        resident_bytes: resident_kib * 1024,
        open_fds: 0,
        max_fds: max_fds.and_then(|count| count.parse().ok()),
        began_s: booted_s + ticks(BEGAN)? / TICKS_A_SECOND,
    })
}

/// The first word after a prefix, in the first line that begins with it.
fn after<'a>(text: &'a str, begins: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(begins))?;
    rest.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read_all_the_same() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 9 0 1000 99 12 18446";
        let status = "Name:\ta ) b\nVmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n";
        let machine = "cpu 1 2 3\nbtime 1700000000\n";
        let limits = "Limit  Soft  Hard\nMax open files            1024     4096      files\n";
        let read = parse(stat, status, machine, limits).unwrap();
        let expected = ProcessUse {
            cpu_seconds: 3.0,
            resident_bytes: 2 << 20,
            open_fds: 0,
            max_fds: Some(1024),
            began_s: 1_700_000_010.0,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_not_as_linux_writes_it_is_no_panic() {
        for text in [
            "",
            ")",
            "7 (a) S",
            "7 (a) S x x x x x x x x x x x x x x x x x x x x x",
        ] {
            assert_eq!(parse(text, text, text, text), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_files_open_and_began_before_now() {
        let now = process_use().unwrap();
        assert!(now.open_fds > 2 && now.resident_bytes > 1 << 20, "{now:?}");
        assert!(now.began_s > 1e9, "{now:?}");
    }
}
