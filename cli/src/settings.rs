//! The settings of `ropewalk node`: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use ropewalk_machines::meta::quantity;
use ropewalk_node::Config;
use ropewalk_node::cluster::check_config;
use ropewalk_node::config::{External, Limits};
use ropewalk_node::env::tls::TlsSettings;
use serde::{Deserialize, Serialize};

use crate::args::{Global, NodeArgs};
use crate::exit::usage;
use crate::parse::{Address, size};
use crate::tls::{self, TlsClientAuth, TlsMode, TlsOptions};

/// Prefix of the variables for single limits: `ROPEWALK_LIMITS_FETCH_BYTES=8MiB`.
pub const LIMITS_PREFIX: &str = "ROPEWALK_LIMITS_";
/// Similarity from which a known key is suggested for an unknown one.
const ALIKE: f64 = 0.75;
/// Maximum number of suggestions.
const OFFERED: usize = 3;

/// Content of a node's config file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<Address>,
    advertise: Option<Address>,
    http: Option<Address>,
    probes: Option<Address>,
    external_listen: Option<Address>,
    external_advertise: Option<Address>,
    seeds: Vec<Address>,
    rack: String,
    tls_mode: Option<TlsMode>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_auth: Option<TlsClientAuth>,
    limits: Limits,
}

/// Flags that were set, on the command line or through the environment.
#[derive(Debug, Serialize)]
struct Given<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: &'a Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_listen: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_advertise: &'a Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: &'a Option<Vec<Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_mode: &'a Option<TlsMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ca: &'a Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: &'a Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: &'a Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_client_auth: &'a Option<TlsClientAuth>,
}

/// Settings of a node.
#[derive(Debug)]
pub struct NodeSettings {
    /// Directory of its data.
    pub data_dir: PathBuf,
    /// TLS settings of its connections.
    pub tls: TlsSettings,
    /// All other settings.
    pub config: Config,
}

/// Collects the settings of a node; fails with the invalid one.
pub fn load(args: &NodeArgs, global: &Global) -> anyhow::Result<NodeSettings> {
    let mut layers = Figment::new();
    if let Some(path) = &args.config {
        let text = std::fs::read_to_string(path).map_err(|error| {
            usage(format!(
                "config file {} cannot be read: {error}",
                path.display()
            ))
        })?;
        layers = layers.merge(WithUnits(Toml::string(&text)));
    }
    let limits = Env::prefixed(LIMITS_PREFIX).map(|name| format!("limits.{name}").into());
    layers = layers
        .merge(WithUnits(limits))
        .merge(Serialized::defaults(given(args, global)));
    let file: File = layers
        .extract()
        .map_err(|error| usage(explain(error, args.config.as_deref())))?;
    complete(file)
}

fn given<'a>(args: &'a NodeArgs, global: &'a Global) -> Given<'a> {
    Given {
        data_dir: &args.data_dir,
        listen: &args.listen,
        advertise: &args.advertise,
        http: &args.http,
        probes: &args.probes,
        external_listen: &args.external_listen,
        external_advertise: &args.external_advertise,
        seeds: &args.seeds,
        rack: &args.rack,
        tls_mode: &args.tls_mode,
        tls_ca: &global.tls_ca,
        tls_cert: &global.tls_cert,
        tls_key: &global.tls_key,
        tls_client_auth: &args.tls_client_auth,
    }
}

/// Adds derived settings, and rejects invalid combinations.
fn complete(file: File) -> anyhow::Result<NodeSettings> {
    let data_dir = file.data_dir.filter(|dir| !dir.as_os_str().is_empty()).ok_or_else(|| {
        usage("data directory is not set; pass --data-dir DIR, or set ROPEWALK_DATA_DIR, or data_dir in the config file")
    })?;
    let listen = file.listen.map(String::from).ok_or_else(|| {
        usage("listen address is not set; pass --listen HOST:PORT, or set ROPEWALK_LISTEN, or listen in the config file")
    })?;
    let advertise = file.advertise.map_or_else(|| listen.clone(), String::from);
    check_reachable(&advertise, "--advertise")?;
    let external = external(file.external_listen, file.external_advertise)?;
    let mut seeds: Vec<String> = file.seeds.into_iter().map(String::from).collect();
    if seeds.is_empty() {
        seeds.push(advertise.clone());
    }
    let http = file.http.map(String::from);
    let probes = file.probes.map(String::from);
    let (rack, limits) = (file.rack, file.limits);
    let tls = tls::of_node(TlsOptions {
        mode: file.tls_mode,
        ca: file.tls_ca,
        cert: file.tls_cert,
        key: file.tls_key,
        client_auth: file.tls_client_auth,
    })?;
    let config = Config {
        advertise,
        listen,
        http,
        probes,
        external,
        seeds,
        rack,
        member_of: None,
        stops_with_all: false,
        limits,
    };
    config.limits.check().map_err(usage)?;
    // The cluster would reject it at each registration.
    check_config(&config).map_err(|error| usage(error.message))?;
    Ok(NodeSettings {
        data_dir,
        tls,
        config,
    })
}

fn external(
    listen: Option<Address>,
    advertise: Option<Address>,
) -> anyhow::Result<Option<External>> {
    let (listen, advertise) = match (listen, advertise) {
        (None, None) => return Ok(None),
        (Some(listen), Some(advertise)) => (String::from(listen), String::from(advertise)),
        _ => {
            return Err(usage(
                "external clients need two addresses; pass --external-listen HOST:PORT, on which the node listens, and \
                 --external-advertise HOST:PORT, at which clients reach it",
            ));
        }
    };
    check_reachable(&advertise, "--external-advertise")?;
    Ok(Some(External { listen, advertise }))
}

fn check_reachable(advertise: &str, flag: &str) -> anyhow::Result<()> {
    let anywhere = ["0.0.0.0:", "[::]:"]
        .iter()
        .any(|any| advertise.starts_with(any));
    if anywhere {
        return Err(usage(format!(
            "address {advertise} is not reachable for others; pass {flag} HOST:PORT with an address that is"
        )));
    }
    Ok(())
}

/// Allows a unit in the value of a limit: `fetch_wait_ms = "30s"`, `fetch_bytes = "4MiB"`.
struct WithUnits<P>(P);

impl<P: Provider> Provider for WithUnits<P> {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut profiles = self.0.data()?;
        for dict in profiles.values_mut() {
            if let Some(Value::Dict(_, limits)) = dict.get_mut("limits") {
                for (name, value) in limits {
                    plain_number(name, value).map_err(figment::Error::from)?;
                }
            }
        }
        Ok(profiles)
    }
}

fn plain_number(name: &str, value: &mut Value) -> Result<(), String> {
    use ropewalk_node::config::Unit;
    let Value::String(tag, text) = &*value else {
        return Ok(());
    };
    let parsed = match Unit::of(name) {
        Unit::Milliseconds => quantity::duration_ms(text)
            .map(i64::unsigned_abs)
            .map_err(str::to_owned),
        Unit::Bytes | Unit::BytesPerSecond => size(text),
        Unit::Count => return Ok(()),
    };
    let number = parsed.map_err(|error| format!("limits.{name} = {text:?}: {error}"))?;
    *value = Value::Num(*tag, number.into());
    Ok(())
}

/// Describes an invalid setting in a sentence.
fn explain(error: figment::Error, path: Option<&Path>) -> String {
    let place = path.map_or("the environment".into(), |path| path.display().to_string());
    let key = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(name, known) => {
            let full = match error.path.iter().any(|part| part == name) || key.is_empty() {
                true if key.is_empty() => name.clone(),
                true => key,
                false => format!("{key}.{name}"),
            };
            format!("{place}: unknown setting {full}; {}", nearest(name, known))
        }
        Kind::Message(message) if key.is_empty() => format!("{place}: {message}"),
        Kind::InvalidType(given, wanted) | Kind::InvalidValue(given, wanted)
            if is_integer(wanted) =>
        {
            format!("{place}: {key}: found {given}; write a whole number, 0 or more")
        }
        kind => format!("{place}: {key}: {kind}"),
    }
}

/// Returns true for the name of an integer type, which means nothing to the user.
fn is_integer(wanted: &str) -> bool {
    let bits = wanted.strip_prefix(['u', 'i']).unwrap_or_default();
    bits == "size" || bits.parse::<u8>().is_ok()
}

/// The known keys that resemble an unknown one, or else all known keys.
fn nearest(name: &str, known: &[&str]) -> String {
    let mut alike: Vec<(f64, &str)> = known
        .iter()
        .map(|key| (strsim::jaro_winkler(name, key), *key))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    let offered: Vec<&str> = alike.iter().take(OFFERED).map(|(_, key)| *key).collect();
    match offered.is_empty() {
        true => format!("known settings are {}", known.join(", ")),
        false => format!("did you mean {}?", offered.join(", or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, CliCommand};
    use clap::Parser;
    use ropewalk_node::env::tls::{ClientAuth, TlsFiles};
    use std::io::Write;

    fn load_with(toml: &str, flags: &[&str]) -> Result<NodeSettings, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let line = ["ropewalk", "node", "--config", path]
            .into_iter()
            .chain(flags.iter().copied());
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        match cli.verb {
            CliCommand::Node(args) => load(&args, &cli.global).map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    const PLAIN: &str = "data_dir = '/var/lib/ropewalk'\nlisten = '10.0.0.1:7101'\n";

    #[test]
    fn a_file_alone_is_enough_and_a_flag_wins_over_it() {
        let settings = load_with(PLAIN, &["--listen", "10.0.0.2:7101"]).unwrap();
        assert_eq!(settings.data_dir, Path::new("/var/lib/ropewalk"));
        assert_eq!(settings.config.listen, "10.0.0.2:7101");
        assert_eq!(settings.config.advertise, "10.0.0.2:7101");
        assert_eq!(settings.config.seeds, ["10.0.0.2:7101"]);
    }

    #[test]
    fn the_port_for_probes_is_off_unless_a_file_or_a_flag_names_it() {
        let probes = |toml: &str, flags: &[&str]| load_with(toml, flags).unwrap().config.probes;
        assert_eq!(probes(PLAIN, &[]), None);
        let in_file = format!("{PLAIN}probes = '10.0.0.1:7202'\n");
        assert_eq!(probes(&in_file, &[]).as_deref(), Some("10.0.0.1:7202"));
        let given = probes(&in_file, &["--probes", "10.0.0.1:7302"]);
        assert_eq!(given.as_deref(), Some("10.0.0.1:7302"));
    }

    #[test]
    fn limits_are_numbers_or_carry_their_unit() {
        let toml = format!(
            "{PLAIN}[limits]\nfetch_wait_ms = '10s'\nfetch_bytes = '8MiB'\nheartbeat_ms = 50\n"
        );
        let limits = load_with(&toml, &[]).unwrap().config.limits;
        assert_eq!(
            (limits.fetch_wait_ms, limits.fetch_bytes),
            (10_000, 8 << 20)
        );
        assert_eq!(limits.heartbeat_ms, 50);
        assert_eq!(limits.connections, Limits::default().connections);
    }

    #[test]
    fn limits_that_no_node_can_work_with_are_refused_by_name() {
        let loaded = |limits: &str| load_with(&format!("{PLAIN}[limits]\n{limits}\n"), &[]);
        let limits = loaded("request_bytes = '1KiB'\nrebalance_bytes_per_s = '10M'").unwrap();
        let limits = limits.config.limits;
        assert_eq!(
            (limits.request_bytes, limits.rebalance_bytes_per_s),
            (1_024, 10 << 20)
        );
        let wrong = [
            ("node_dead_after_ms = 1", "limits.node_dead_after_ms = 1 is"),
            ("election_timeout_ms = '400ms'", "limits.heartbeat_ms = 300"),
            ("heartbeat_ms = '100us'", "limits.heartbeat_ms = \"100us\""),
            ("connections = 0", "limits.connections = 0 is out of bounds"),
            (
                "connections = '1K'",
                "limits.connections: found string \"1K\"; write a whole number",
            ),
            ("fetch_bytes = 1.5", "limits.fetch_bytes: found float"),
            ("streams = -1", "limits.streams: found"),
            ("request_bytes = true", "limits.request_bytes: found bool"),
        ];
        for (limits, says) in wrong {
            let error = loaded(limits).unwrap_err();
            assert!(error.contains(says), "{limits}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_beside_the_nearest_one() {
        let error = load_with("lisen = '10.0.0.1:7101'\n", &[]).unwrap_err();
        assert!(
            error.contains("unknown setting lisen; did you mean listen"),
            "{error}"
        );
        let error = load_with(&format!("{PLAIN}[limits]\nhartbeat_ms = 5\n"), &[]).unwrap_err();
        assert!(
            error.contains("unknown setting limits.hartbeat_ms; did you mean heartbeat_ms"),
            "{error}"
        );
        let error = load_with("xyzzy = 1\n", &[]).unwrap_err();
        assert!(
            error.contains("unknown setting xyzzy; known settings are data_dir, listen"),
            "{error}"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let wrong = [
            ("listen = '10.0.0.1:7101'", "--data-dir"),
            ("data_dir = '/d'", "--listen"),
            ("data_dir = '/d'\nlisten = '10.0.0.1'", "listen"),
            ("data_dir = '/d'\nlisten = '0.0.0.0:7101'", "--advertise"),
            (
                "data_dir = '/d'\nlisten = 'a:1'\nexternal_listen = 'a:2'",
                "--external-advertise",
            ),
            (
                "data_dir = '/d'\nlisten = 'a:1'\nexternal_advertise = 'a:2'",
                "--external-listen",
            ),
            (
                "data_dir = '/d'\nlisten = 'a:1'\nexternal_listen = 'a:2'\nexternal_advertise = '0.0.0.0:2'",
                "--external-advertise",
            ),
            (
                "data_dir = '/d'\nlisten = 'a:1'\n[limits]\nfetch_bytes = 'lots'",
                "limits.fetch_bytes",
            ),
            (
                "data_dir = '/d'\nlisten = 'a:1'\n[limits]\nfetch_bytes = -1",
                "limits.fetch_bytes",
            ),
            ("data_dir = '/d'\nlisten = 'a/b:1'", "address"),
            ("data_dir = '/d'\nlisten = 'a:1'\nrack = \"a\\nb\"", "rack"),
            ("data_dir = ", "TOML"),
        ];
        for (toml, named) in wrong {
            let error = load_with(toml, &[]).unwrap_err();
            assert!(error.contains(named), "{toml:?}: {error}");
        }
    }

    #[test]
    fn tls_is_said_in_full_or_not_at_all() {
        let files = "tls_ca = 'ca'\ntls_cert = 'cert'\ntls_key = 'key'\n";
        let on = load_with(&format!("{PLAIN}{files}tls_mode = 'on'\n"), &[]).unwrap();
        let expected = TlsFiles::new("ca").with_own("cert", "key");
        assert_eq!(on.tls, TlsSettings::On(expected, ClientAuth::None));
        let both = ["--tls-mode", "both", "--tls-client-auth", "required"];
        let both = load_with(&format!("{PLAIN}{files}tls_mode = 'on'\n"), &both).unwrap();
        assert!(matches!(
            both.tls,
            TlsSettings::Both(_, ClientAuth::Required)
        ));
        // After a return from TLS to plaintext, the file settings may stay.
        let off = load_with(&format!("{PLAIN}{files}tls_mode = 'off'\n"), &[]).unwrap();
        assert_eq!(off.tls, TlsSettings::Off);
        assert_eq!(load_with(PLAIN, &[]).unwrap().tls, TlsSettings::Off);

        let wrong = [
            (files, "--tls-mode"),
            ("tls_mode = 'on'", "--tls-cert"),
            ("tls_mode = 'both'\ntls_ca = 'ca'", "--tls-cert"),
            ("tls_mode = 'on'\ntls_cert = 'c'\ntls_key = 'k'", "--tls-ca"),
            (
                "tls_mode = 'on'\ntls_ca = 'ca'\ntls_cert = 'c'",
                "--tls-key",
            ),
            ("tls_mode = 'off'\ntls_key = 'k'", "--tls-cert"),
            ("tls_mode = 'off'\ntls_client_auth = 'required'", "tls_mode"),
            ("tls_client_auth = 'required'", "--tls-mode"),
            ("tls_mode = 'maybe'", "tls_mode"),
        ];
        for (toml, named) in wrong {
            let error = load_with(&format!("{PLAIN}{toml}\n"), &[]).unwrap_err();
            assert!(error.contains(named), "{toml:?}: {error}");
        }
    }
}
