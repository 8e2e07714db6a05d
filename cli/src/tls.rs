//! Resolution of the TLS flags, variables and keys into settings; rejects contradictions.

use std::path::PathBuf;

use clap::ValueEnum;
use ropewalk_client::Tls;
use ropewalk_node::env::tls::{ClientAuth, TlsFiles, TlsSettings};
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::exit::usage;

/// Whether the ports of a node take TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// All connections are plain
    Off,
    /// TLS with those who speak it, plain with the rest: while a cluster is switched
    Both,
    /// Nothing but TLS
    On,
}

/// Whether those who connect to a node's gRPC port show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClientAuth {
    /// They are not asked for one
    None,
    /// One that is signed by a CA of --tls-ca, in every TLS connection
    Required,
}

/// TLS options as the user gave them.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    pub mode: Option<TlsMode>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_auth: Option<TlsClientAuth>,
}

/// Settings of a node.
pub fn of_node(options: TlsOptions) -> anyhow::Result<TlsSettings> {
    let TlsOptions {
        mode,
        ca,
        cert,
        key,
        client_auth,
    } = options;
    let own = pair(cert, key)?;
    let client_auth = match client_auth {
        Some(TlsClientAuth::Required) => ClientAuth::Required,
        Some(TlsClientAuth::None) | None => ClientAuth::None,
    };
    let mode = match mode {
        None if ca.is_some() || own.is_some() || client_auth == ClientAuth::Required => {
            return Err(usage(
                "TLS has settings, but is neither on nor off: pass --tls-mode off, both or on, or set ROPEWALK_TLS_MODE, or tls_mode in the config file",
            ));
        }
        mode => mode.unwrap_or(TlsMode::Off),
    };
    if mode == TlsMode::Off {
        if client_auth == ClientAuth::Required {
            return Err(usage(
                "nobody shows a certificate while TLS is off: set tls_mode to both or on, or tls_client_auth to none",
            ));
        }
        return Ok(TlsSettings::Off);
    }
    let (Some(ca), Some((cert, key))) = (ca, own) else {
        return Err(usage(
            "a node that speaks TLS needs a certificate, its key, and the CA that signed those of its peers: pass --tls-cert, --tls-key and --tls-ca",
        ));
    };
    let files = TlsFiles::new(ca).with_own(cert, key);
    Ok(match mode {
        TlsMode::On => TlsSettings::On(files, client_auth),
        _ => TlsSettings::Both(files, client_auth),
    })
}

/// Settings of a client; `None` for plaintext.
pub fn of_client(global: &Global) -> anyhow::Result<Option<Tls>> {
    let own = pair(global.tls_cert.clone(), global.tls_key.clone())?;
    match (&global.tls_ca, own) {
        (Some(ca), Some((cert, key))) => Ok(Some(Tls::new(ca).identity(cert, key))),
        (Some(ca), None) => Ok(Some(Tls::new(ca))),
        (None, Some(_)) => Err(usage(
            "a certificate is shown in TLS only, and whom to trust there is not named: pass --tls-ca",
        )),
        (None, None) => Ok(None),
    }
}

fn pair(cert: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(usage("a certificate without its key: pass --tls-key too")),
        (None, Some(_)) => Err(usage("a key without its certificate: pass --tls-cert too")),
    }
}
