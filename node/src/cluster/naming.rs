//! Limits on the strings that nodes report about themselves: the metadata keeps them, clients receive them,
//! and logs show them. Pure. Commands in the log are never checked by these limits: those of older builds
//! stay valid.

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{FoundCluster, RegisterNode};

use crate::config::Config;

/// Maximum length of an address in bytes: a domain name of full length, a colon and a port.
const ADDRESS_BYTES: usize = 260;
/// Maximum length of a rack or version in bytes.
const NAME_BYTES: usize = 255;

/// Refuses settings that no cluster would accept from the node.
pub fn check_config(config: &Config) -> Result<(), WireError> {
    let external = config.external.as_ref();
    check_registration(&RegisterNode {
        address: config.advertise.clone(),
        http: config.http.clone().unwrap_or_default(),
        rack: config.rack.clone(),
        external: external.map(|external| external.advertise.clone()),
        ..RegisterNode::default()
    })
}

/// Refuses a registration with a field that is too long or malformed.
pub(super) fn check_registration(node: &RegisterNode) -> Result<(), WireError> {
    check_address("address", &node.address)?;
    let optional = [
        ("http", Some(&node.http)),
        ("external", node.external.as_ref()),
    ];
    for (name, address) in optional {
        if let Some(address) = address.filter(|address| !address.is_empty()) {
            check_address(name, address)?;
        }
    }
    check_name("rack", &node.rack)?;
    check_name("version", &node.version)
}

/// Refuses a founding plan with a malformed address.
pub(super) fn check_founding(plan: &FoundCluster) -> Result<(), WireError> {
    check_name("cluster id", &plan.cluster_id)?;
    let mut nodes = plan.nodes.iter();
    nodes.try_for_each(|node| check_address("address", &node.address))
}

/// Refuses a string that is not a `host:port`.
pub(super) fn check_address(name: &str, address: &str) -> Result<(), WireError> {
    let wrong = |why: &str| Err(refused(name, address, why));
    if address.len() > ADDRESS_BYTES {
        return wrong(&format!("is longer than {ADDRESS_BYTES} bytes"));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return wrong("has no port; write HOST:PORT");
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let fits = |c: char| c.is_ascii_graphic() && !"/?#@[]\\".contains(c);
    let whole = match bare {
        Some(v6) => !v6.is_empty() && v6.chars().all(fits),
        None => !host.is_empty() && host.chars().all(|c| fits(c) && c != ':'),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match whole && digits && port.parse::<u16>().is_ok_and(|port| port > 0) {
        true => Ok(()),
        false => wrong("is not HOST:PORT with a port from 1 to 65535"),
    }
}

fn check_name(name: &str, text: &str) -> Result<(), WireError> {
    if text.len() > NAME_BYTES {
        let why = format!("is longer than {NAME_BYTES} bytes");
        return Err(refused(name, text, &why));
    }
    match text.chars().any(is_unprintable) {
        true => Err(refused(name, text, "contains control characters")),
        false => Ok(()),
    }
}

/// True for control characters, and for those that break a line or change its direction.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The refusal of a string. It quotes only the beginning.
fn refused(name: &str, text: &str, why: &str) -> WireError {
    let shown: String = text.chars().take(64).collect();
    WireError::new(
        ErrorCode::InvalidRequest,
        format!("registration is invalid: its {name} {shown:?} {why}; correct the node's settings"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> RegisterNode {
        RegisterNode {
            address: "node-1.example.com:7101".into(),
            http: "10.0.0.1:7201".into(),
            rack: "Zürich, room 3".into(),
            version: "1.2.3-rc.1+build".into(),
            external: Some("[2001:db8::1]:7102".into()),
            ..RegisterNode::default()
        }
    }

    #[test]
    fn what_nodes_of_before_have_told_stays_valid() {
        assert_eq!(check_registration(&node()), Ok(()));
        let bare = RegisterNode {
            address: "[::1]:7101".into(),
            external: Some(String::new()),
            ..RegisterNode::default()
        };
        assert_eq!(check_registration(&bare), Ok(()));
        let longest = format!("{}:65535", "x".repeat(253));
        assert_eq!(check_address("address", &longest), Ok(()));
        for real in [
            "localhost:7101",
            "node_1:1",
            "fe80--1.ipv6-literal.net:7101",
            "[fe80::1%eth0]:1",
        ] {
            assert_eq!(check_address("address", real), Ok(()), "{real}");
        }
    }

    #[test]
    fn what_is_too_long_or_no_address_or_breaks_a_line_is_refused() {
        let long = "x".repeat(15 << 20);
        let wrong_addresses = [
            "",
            "host",
            ":7101",
            "host:",
            "host:0",
            "host:70000",
            "a b:1",
            "a\nb:1",
            "a/b:1",
            "::1:7101",
            "user@host:1",
            "höst:1",
            "[]:1",
            "host:1\n",
            "host:+1",
            &long,
        ];
        for address in wrong_addresses {
            assert!(check_address("address", address).is_err(), "{address:.40?}");
        }
        let wrong_names = ["a\nb", "\u{1b}[31m", "\u{2028}", "\u{202e}x", "\0", &long];
        for text in wrong_names {
            let text = text.to_owned();
            let in_rack = RegisterNode {
                rack: text.clone(),
                ..node()
            };
            let in_version = RegisterNode {
                version: text.clone(),
                ..node()
            };
            let in_http = RegisterNode {
                http: text.clone(),
                ..node()
            };
            let in_external = RegisterNode {
                external: Some(text),
                ..node()
            };
            for one in [in_rack, in_version, in_http, in_external] {
                let error = check_registration(&one).unwrap_err();
                assert_eq!(error.code, ErrorCode::InvalidRequest);
                assert!(error.message.len() < 1_000);
                assert!(!error.message.contains(char::is_control), "{error}");
            }
        }
    }
}
