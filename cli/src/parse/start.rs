//! Start position of reading.

use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::quantity::duration;

/// A position in a log, as `--from` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record kept.
    Beginning,
    /// After the newest record.
    End,
    /// This offset.
    Offset(u64),
    /// The first record at or after this time, in milliseconds since 1970.
    TimeMs(i64),
    /// The first record of the last `n` milliseconds.
    AgoMs(i64),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<StartAt, String> {
        const HELP: &str = "write beginning, end, @OFFSET, a timestamp such as 2026-01-31T00:00:00Z, or a relative time such as -1h";
        match text {
            "beginning" => return Ok(StartAt::Beginning),
            "end" => return Ok(StartAt::End),
            _ => {}
        }
        if let Some(offset) = text.strip_prefix('@') {
            return offset.parse().map(StartAt::Offset).map_err(|_| HELP.into());
        }
        if let Some(ago) = text.strip_prefix('-') {
            let ago = duration(ago).map_err(|_| HELP)?;
            let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| HELP)?;
            return Ok(StartAt::AgoMs(ago_ms));
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| HELP)?;
        let time_ms = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000));
        time_ms.map(StartAt::TimeMs).map_err(|_| HELP.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_place_reads() {
        assert_eq!("beginning".parse(), Ok(StartAt::Beginning));
        assert_eq!("end".parse(), Ok(StartAt::End));
        assert_eq!("@42".parse(), Ok(StartAt::Offset(42)));
        assert_eq!("-1h".parse(), Ok(StartAt::AgoMs(3_600_000)));
        assert_eq!(
            "2026-01-31T00:00:00Z".parse(),
            Ok(StartAt::TimeMs(1_769_817_600_000))
        );
        assert_eq!(
            "2026-01-31T01:00:00+01:00".parse(),
            Ok(StartAt::TimeMs(1_769_817_600_000))
        );
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for wrong in [
            "",
            "start",
            "@",
            "@-1",
            "@x",
            "-",
            "-1",
            "1h",
            "2026-01-31",
            "2026-13-01T00:00:00Z",
        ] {
            assert!(wrong.parse::<StartAt>().is_err(), "{wrong:?}");
        }
    }
}
