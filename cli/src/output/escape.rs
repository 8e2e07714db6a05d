//! Text of others on a terminal. Names, addresses and messages come from a server, and records from
//! anybody: a control character among them could write over what a person reads.

/// Bytes as people may see them on their terminal: control characters are shown, not sent.
pub fn shown(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes), |_| false)
}

/// The same, of text that has lines.
pub fn shown_lines(text: &str) -> String {
    escape(text, |character| character == '\n')
}

fn escape(text: &str, fine: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() && !fine(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(
            shown("a\u{1b}[2J\u{9b}é\n".as_bytes()),
            "a\\u{1b}[2J\\u{9b}é\\n"
        );
        assert_eq!(shown(b"\xff"), "\u{fffd}");
        assert_eq!(shown_lines("a\nb\r\u{7}"), "a\nb\\r\\u{7}");
    }
}
