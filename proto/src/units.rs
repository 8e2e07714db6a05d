//! Numbers as operators read and write them, for errors, tables and the reference.

/// Units of a size in bytes, the largest first.
const SIZES: [(u64, &str); 4] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

/// Formats a size in the largest unit that keeps the number whole: `8MiB`, `1023B`.
pub fn size(bytes: u64) -> String {
    let whole = |(unit, _): &&(u64, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match SIZES.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_comes_in_the_largest_unit_that_keeps_it_whole() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(1_023), "1023B");
        assert_eq!(size(1 << 10), "1KiB");
        assert_eq!(size(8 << 20), "8MiB");
        assert_eq!(size((8 << 20) + 1), "8388609B");
        assert_eq!(size(3 << 40), "3TiB");
    }
}
