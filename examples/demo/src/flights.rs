//! Flights from New York's airports in January 2013, one record for each, read from `examples/data/`.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use flate2::read::GzDecoder;

/// Column used as the key: the aircraft. The events of one aircraft stay in order.
const KEY_COLUMN: &str = "tailnum";
/// Value of the column if the aircraft is unknown. Such a flight has no key.
const NO_KEY: &str = "NA";

/// One flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// Aircraft, if known.
    pub key: Option<String>,
    /// Line of the file.
    pub value: String,
}

/// Reads all flights, in the order of the file.
pub fn read(path: &Path) -> anyhow::Result<Vec<Flight>> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    parse(BufReader::new(GzDecoder::new(file)))
        .with_context(|| format!("reading {}", path.display()))
}

fn parse(input: impl BufRead) -> anyhow::Result<Vec<Flight>> {
    let mut lines = input.lines();
    let header = lines.next().context("the file is empty")??;
    let column = fields(&header)?
        .iter()
        .position(|name| name == KEY_COLUMN)
        .with_context(|| format!("there is no column {KEY_COLUMN}"))?;
    lines
        .map(|line| {
            let value = line?;
            let fields = fields(&value)?;
            let key = fields
                .get(column)
                .with_context(|| format!("a short line: {value}"))?;
            let key = (key != NO_KEY).then(|| key.to_string());
            Ok(Flight { key, value })
        })
        .collect()
}

fn fields(line: &str) -> anyhow::Result<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(line.as_bytes());
    reader
        .records()
        .next()
        .context("an empty line")?
        .context("not a line of CSV")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aircraft_is_the_key_and_an_unknown_one_is_none() {
        let flights = parse("year,tailnum\n2013,N14228\n2013,NA\n".as_bytes()).unwrap();
        let keys: Vec<_> = flights.iter().map(|flight| flight.key.as_deref()).collect();
        assert_eq!(keys, [Some("N14228"), None]);
        assert_eq!(flights[0].value, "2013,N14228");
    }

    #[test]
    fn the_file_holds_every_flight_of_the_month() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/flights-2013-01.csv.gz");
        assert_eq!(read(&path).unwrap().len(), 27_004);
    }
}
