//! Formats of printed records, and patterns of topics to read.

use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// Maximum memory of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

/// Part of a printed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Literal bytes.
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Headers,
    Time,
}

/// Value of `--format`: the parts of each record to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFormat(pub Vec<Piece>);

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<RecordFormat, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => match piece(characters.next())? {
                    None => plain.push('%'),
                    Some(piece) => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain).into_bytes()));
                        }
                        pieces.push(piece);
                    }
                },
                '\\' => plain.push(escaped(characters.next())?),
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into_bytes()));
        }
        Ok(RecordFormat(pieces))
    }
}

/// Piece for the letter after a percent sign; none for the percent sign itself.
fn piece(letter: Option<char>) -> Result<Option<Piece>, String> {
    Ok(Some(match letter {
        Some('%') => return Ok(None),
        Some('t') => Piece::Topic,
        Some('p') => Piece::Partition,
        Some('o') => Piece::Offset,
        Some('k') => Piece::Key,
        Some('v') => Piece::Value,
        Some('h') => Piece::Headers,
        Some('T') => Piece::Time,
        _ => {
            return Err(
                "invalid field; use %t %p %o %k %v %h or %T, or %% for a percent sign".into(),
            );
        }
    }))
}

fn escaped(letter: Option<char>) -> Result<char, String> {
    Ok(match letter {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('0') => '\0',
        Some('\\') => '\\',
        _ => return Err(r"invalid escape; use \n \t \r or \0, or \\ for a backslash".into()),
    })
}

/// Value of `--pattern`, which matches topics by their whole name.
#[derive(Debug, Clone)]
pub struct TopicPattern {
    text: String,
    whole: Regex,
}

impl TopicPattern {
    /// The pattern as the user gave it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns true if the pattern matches the topic's name.
    pub fn matches(&self, topic: &str) -> bool {
        self.whole.is_match(topic)
    }
}

impl FromStr for TopicPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<TopicPattern, String> {
        if text.is_empty() {
            return Err("an empty pattern matches no topic; .* matches all".into());
        }
        let whole = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(TopicPattern {
            text: text.to_owned(),
            whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_its_pieces_in_order() {
        let RecordFormat(pieces) = r"%t/%p@%o\t%k=%v %h%T 100%%\n".parse().unwrap();
        let text = |text: &str| Piece::Text(text.as_bytes().to_vec());
        let expected = [
            Piece::Topic,
            text("/"),
            Piece::Partition,
            text("@"),
            Piece::Offset,
            text("\t"),
            Piece::Key,
            text("="),
            Piece::Value,
            text(" "),
            Piece::Headers,
            Piece::Time,
            text(" 100%\n"),
        ];
        assert_eq!(pieces, expected);
        for wrong in ["%", "%x", r"\", r"\x"] {
            assert!(wrong.parse::<RecordFormat>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let pattern: TopicPattern = "flights|gate.".parse().unwrap();
        assert!(pattern.matches("flights") && pattern.matches("gates"));
        assert!(!pattern.matches("flights-old") && !pattern.matches("the-gates"));
        for wrong in ["", "(", "a{1000}{1000}{1000}"] {
            assert!(wrong.parse::<TopicPattern>().is_err(), "{wrong:?}");
        }
    }
}
