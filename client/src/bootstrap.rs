//! Addresses through which a client finds its cluster, and the environment variables that name them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::client::{Client, ClientBuilder};
use crate::error::{Error, Result};
use crate::tls::Tls;

/// Environment variables that [`Client::from_env`] reads. The command line reads the same ones.
const BOOTSTRAP: &str = "ROPEWALK_BOOTSTRAP";
const TLS_CA: &str = "ROPEWALK_TLS_CA";
const TLS_CERT: &str = "ROPEWALK_TLS_CERT";
const TLS_KEY: &str = "ROPEWALK_TLS_KEY";

/// Addresses of a cluster's nodes, each `host:port`. One reachable node is enough: it names the others.
///
/// It is made from one string, with commas between the addresses, or from a list of strings.
///
/// ```
/// use ropewalk_client::Bootstrap;
///
/// let one = Bootstrap::from("node-1:7101, node-2:7101");
/// assert_eq!(one, Bootstrap::from(["node-1:7101", "node-2:7101"]));
/// ```
///
/// [`ClientBuilder::connect`] checks the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap(Vec<String>);

impl Bootstrap {
    /// Checks the addresses, and returns them in their order.
    pub(crate) fn addresses(self) -> Result<Vec<String>> {
        if self.0.iter().all(String::is_empty) {
            return Err(Error::invalid(
                "no address to connect to; give the host:port of at least one node",
            ));
        }
        for address in &self.0 {
            check(address)?;
        }
        Ok(self.0)
    }
}

/// A scheme is refused where the connection is prepared.
fn check(address: &str) -> Result<()> {
    let fault = |fault: &str| {
        Err(Error::invalid(format!(
            "{address:?} is no address ({fault}); give host:port, and commas between several"
        )))
    };
    if address.is_empty() {
        return fault("it is empty");
    }
    if address.contains("://") {
        return Ok(());
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return fault("it has no port");
    };
    if host.is_empty() {
        return fault("it has no host");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => fault("its port is no number from 1 to 65535"),
    }
}

impl From<&str> for Bootstrap {
    fn from(addresses: &str) -> Bootstrap {
        let addresses = addresses.split(',').map(str::trim);
        Bootstrap(addresses.map(str::to_owned).collect())
    }
}

impl From<String> for Bootstrap {
    fn from(addresses: String) -> Bootstrap {
        Bootstrap::from(addresses.as_str())
    }
}

impl From<&String> for Bootstrap {
    fn from(addresses: &String) -> Bootstrap {
        Bootstrap::from(addresses.as_str())
    }
}

impl<A: Into<String>> From<Vec<A>> for Bootstrap {
    fn from(addresses: Vec<A>) -> Bootstrap {
        addresses.into_iter().collect()
    }
}

impl<A: Into<String>, const N: usize> From<[A; N]> for Bootstrap {
    fn from(addresses: [A; N]) -> Bootstrap {
        addresses.into_iter().collect()
    }
}

impl<A: Clone + Into<String>> From<&[A]> for Bootstrap {
    fn from(addresses: &[A]) -> Bootstrap {
        addresses.iter().cloned().collect()
    }
}

impl<A: Into<String>> FromIterator<A> for Bootstrap {
    fn from_iter<I: IntoIterator<Item = A>>(addresses: I) -> Bootstrap {
        Bootstrap(addresses.into_iter().map(Into::into).collect())
    }
}

impl Client {
    /// Connects to the cluster that the environment names, with the default settings. The variables are
    /// those of the command line:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `ROPEWALK_BOOTSTRAP` | addresses of nodes, `host:port,host:port`; required |
    /// | `ROPEWALK_TLS_CA` | PEM file with the CAs to trust; with it, every connection uses TLS |
    /// | `ROPEWALK_TLS_CERT`, `ROPEWALK_TLS_KEY` | PEM files of the client's certificate and its key |
    ///
    /// An empty variable counts as unset.
    ///
    /// # Errors
    /// As for [`ClientBuilder::from_env`] and [`ClientBuilder::connect`].
    pub async fn from_env() -> Result<Client> {
        ClientBuilder::from_env()?.connect().await
    }
}

impl ClientBuilder {
    /// Creates a builder from the variables that [`Client::from_env`] lists.
    ///
    /// # Errors
    /// `InvalidArgument` if `ROPEWALK_BOOTSTRAP` is not set, a variable is not valid Unicode, or the TLS
    /// variables are incomplete.
    pub fn from_env() -> Result<ClientBuilder> {
        builder(|name| env::var_os(name))
    }
}

fn builder(variable: impl Fn(&str) -> Option<OsString>) -> Result<ClientBuilder> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let bootstrap = set(BOOTSTRAP).ok_or_else(|| {
        Error::invalid(format!(
            "{BOOTSTRAP} is not set; set it to the addresses of nodes, as in host:port,host:port"
        ))
    })?;
    let bootstrap = bootstrap.into_string().map_err(|value| {
        Error::invalid(format!(
            "{BOOTSTRAP} is not valid Unicode ({value:?}); set it to host:port,host:port"
        ))
    })?;
    let builder = Client::builder(bootstrap);
    let file = |name| set(name).map(PathBuf::from);
    Ok(match tls(file(TLS_CA), file(TLS_CERT), file(TLS_KEY))? {
        Some(tls) => builder.tls(tls),
        None => builder,
    })
}

fn tls(ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Tls>> {
    let lacks = |given: &str, lacking: &str| {
        Err(Error::invalid(format!(
            "{given} is set without {lacking}; set {lacking} too"
        )))
    };
    match (ca, cert, key) {
        (None, None, None) => Ok(None),
        (Some(ca), None, None) => Ok(Some(Tls::new(ca))),
        (Some(ca), Some(cert), Some(key)) => Ok(Some(Tls::new(ca).identity(cert, key))),
        (_, Some(_), None) => lacks(TLS_CERT, TLS_KEY),
        (_, None, Some(_)) => lacks(TLS_KEY, TLS_CERT),
        (None, Some(_), Some(_)) => lacks(TLS_CERT, TLS_CA),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(bootstrap: impl Into<Bootstrap>) -> std::result::Result<Vec<String>, String> {
        let addresses = bootstrap.into().addresses();
        addresses.map_err(|error| error.to_string())
    }

    fn from(variables: &[(&str, &str)]) -> std::result::Result<ClientBuilder, String> {
        let built = builder(|name| {
            let mut found = variables.iter().filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| OsString::from(value))
        });
        built.map_err(|error| error.to_string())
    }

    #[test]
    fn one_string_and_a_list_name_the_same_addresses() {
        let expected = Ok(vec!["a:1".to_owned(), "[::1]:2".to_owned()]);
        assert_eq!(addresses("a:1,[::1]:2"), expected);
        assert_eq!(addresses(String::from(" a:1 , [::1]:2 ")), expected);
        assert_eq!(addresses(["a:1", "[::1]:2"]), expected);
        assert_eq!(addresses(vec!["a:1", "[::1]:2"]), expected);
        assert_eq!(addresses(&["a:1", "[::1]:2"][..]), expected);
        assert_eq!(
            addresses(Bootstrap::from_iter(["a:1", "[::1]:2"])),
            expected
        );
    }

    #[test]
    fn a_malformed_list_is_refused_with_its_fault() {
        let faults = [
            ("", "no address to connect to"),
            (" , ", "no address to connect to"),
            ("a:1,", "\"\" is no address (it is empty)"),
            ("a:1,b", "\"b\" is no address (it has no port)"),
            (":1", "\":1\" is no address (it has no host)"),
            ("a:0", "\"a:0\" is no address (its port"),
            ("a:x", "\"a:x\" is no address (its port"),
        ];
        for (list, fault) in faults {
            let error = addresses(list).unwrap_err();
            assert!(error.starts_with(fault), "{list:?}: {error}");
        }
    }

    #[test]
    fn the_environment_names_the_nodes_and_the_certificates() {
        let error = from(&[]).unwrap_err();
        assert!(
            error.starts_with("ROPEWALK_BOOTSTRAP is not set"),
            "{error}"
        );
        let nodes = (BOOTSTRAP, "a:1,b:1");
        let ca = (TLS_CA, "ca.pem");
        let (cert, key) = ((TLS_CERT, "me.pem"), (TLS_KEY, "me.key"));
        for whole in [&[nodes][..], &[nodes, ca][..], &[nodes, ca, cert, key][..]] {
            assert!(from(whole).is_ok(), "{whole:?}");
        }
        let incomplete = [
            (&[nodes, ca, cert][..], "without ROPEWALK_TLS_KEY"),
            (&[nodes, ca, key][..], "without ROPEWALK_TLS_CERT"),
            (&[nodes, cert, key][..], "without ROPEWALK_TLS_CA"),
        ];
        for (variables, lacking) in incomplete {
            let error = from(variables).unwrap_err();
            assert!(error.contains(lacking), "{error}");
        }
    }
}
