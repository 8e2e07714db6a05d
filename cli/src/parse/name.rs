//! Addresses, partitions, settings and headers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `HOST:PORT`, with a port that can be listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let text = text.trim();
        if let Some((scheme, rest)) = text.split_once("://") {
            let bare = rest.split('/').next().unwrap_or_default();
            return Err(format!(
                "{text:?}: an address is HOST:PORT, without {scheme}://; write {bare}"
            ));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("{text:?} has no port; write HOST:PORT"))?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(format!("{text:?} has no host; write HOST:PORT"));
        }
        if host.contains(':') && !bracketed {
            return Err(format!(
                "{text:?}: an IPv6 address needs brackets, as in [::1]:7101"
            ));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Address(text.to_string())),
            _ => Err(format!(
                "{text:?}: the port must be a number from 1 to 65535"
            )),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Address, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `TOPIC/PARTITION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionName {
    pub topic: String,
    pub partition: u32,
}

impl FromStr for PartitionName {
    type Err = String;

    fn from_str(text: &str) -> Result<PartitionName, String> {
        let parts = text.rsplit_once('/').and_then(|(topic, number)| {
            let partition = number.parse().ok()?;
            (!topic.is_empty()).then(|| (topic.to_string(), partition))
        });
        let (topic, partition) = parts.ok_or("write TOPIC/PARTITION, as in flights/3")?;
        Ok(PartitionName { topic, partition })
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// `KEY=VALUE`: a topic setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        let (key, value) = pair(text, "retention=7d")?;
        if value.is_empty() {
            return Err(format!("{key} has no value; write {key}=VALUE"));
        }
        Ok(Setting { key, value })
    }
}

/// `K=V`: a record header. The value may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderArg {
    pub key: String,
    pub value: String,
}

impl FromStr for HeaderArg {
    type Err = String;

    fn from_str(text: &str) -> Result<HeaderArg, String> {
        let (key, value) = pair(text, "source=gate-7")?;
        Ok(HeaderArg { key, value })
    }
}

fn pair(text: &str, example: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_string(), value.to_string()))
        }
        _ => Err(format!("write KEY=VALUE, as in {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:7101", "node-1:7101", "[::1]:65535"] {
            assert_eq!(
                right.parse::<Address>().map(String::from).as_deref(),
                Ok(right)
            );
        }
        for wrong in [
            "",
            "7101",
            ":7101",
            "host:",
            "host:0",
            "host:65536",
            "::1:7101",
            "a b:1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_with_a_scheme_is_refused_for_its_scheme() {
        for (wrong, scheme) in [
            ("http://node-1:7101", "http"),
            ("https://node-1:7101/", "https"),
            ("ropewalk://node-1:7101/a?b", "ropewalk"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            let says = format!("HOST:PORT, without {scheme}://; write node-1:7101");
            assert!(error.ends_with(&says), "{error}");
        }
    }

    #[test]
    fn a_partition_is_a_topic_and_a_number() {
        let parsed: PartitionName = "flights/3".parse().unwrap();
        assert_eq!((parsed.topic.as_str(), parsed.partition), ("flights", 3));
        assert_eq!(parsed.to_string(), "flights/3");
        for wrong in ["flights", "/3", "flights/", "flights/-1", "flights/x"] {
            assert!(wrong.parse::<PartitionName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_header_may_be_empty_and_a_setting_may_not() {
        let header: HeaderArg = "a=b=c".parse().unwrap();
        assert_eq!((header.key.as_str(), header.value.as_str()), ("a", "b=c"));
        assert_eq!("a=".parse::<HeaderArg>().unwrap().value, "");
        assert!("a=".parse::<Setting>().is_err());
        assert!("=b".parse::<Setting>().is_err());
        assert!("a".parse::<HeaderArg>().is_err());
    }
}
