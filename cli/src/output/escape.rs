//! Escapes text of others for terminals and logs. Names, addresses and messages come from a server, and
//! records from anybody. A control character in them could overwrite the user's screen, or start a line that
//! looks like another.

/// Escapes bytes for a terminal: control characters and line breaks are shown instead of sent.
pub fn shown(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes), |_| false)
}

/// Like [`shown`], but keeps line feeds.
pub fn shown_lines(text: &str) -> String {
    escape(text, |character| character == '\n')
}

fn escape(text: &str, fine: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let controls = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        match controls && !fine(character) {
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

    #[test]
    fn what_comes_from_outside_adds_no_line_to_the_log() {
        let forged = "node a\n2026-01-01 ERROR all is lost\r\u{1b}[2J\u{2028} in Zürich";
        let line = shown(forged.as_bytes());
        assert!(
            !line.contains(|c: char| c.is_control() || c == '\u{2028}'),
            "{line}"
        );
        assert!(
            line.contains(r"a\n2026") && line.contains("Zürich"),
            "{line}"
        );
    }
}
