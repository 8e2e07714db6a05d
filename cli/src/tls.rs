//! Resolution of the TLS flags, variables and keys into settings; rejects contradictions.

use std::path::PathBuf;

use clap::ValueEnum;
use ropewalk_client::Tls;
use ropewalk_node::env::tls::{ClientAuth, TlsFiles, TlsSettings};
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::exit::usage;

/// TLS on the ports of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Plaintext only
    Off,
    /// TLS and plaintext, for the time of a migration
    Both,
    /// TLS only
    On,
}

/// Client certificates on a node's gRPC ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClientAuth {
    /// No client certificate is requested
    None,
    /// Every TLS connection presents a certificate signed by a CA of --tls-ca
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
                "TLS settings without a TLS mode; pass --tls-mode off, both or on, or set ROPEWALK_TLS_MODE, or tls_mode in the config file",
            ));
        }
        mode => mode.unwrap_or(TlsMode::Off),
    };
    if mode == TlsMode::Off {
        if client_auth == ClientAuth::Required {
            return Err(usage(
                "client certificates need TLS, which is off; set tls_mode to both or on, or tls_client_auth to none",
            ));
        }
        return Ok(TlsSettings::Off);
    }
    let (Some(ca), Some((cert, key))) = (ca, own) else {
        return Err(usage(
            "a node with TLS needs a certificate, its private key, and the CA of its peers; pass --tls-cert, --tls-key and --tls-ca",
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
            "a client certificate needs TLS, and no trusted CA is set; pass --tls-ca too",
        )),
        (None, None) => Ok(None),
    }
}

fn pair(cert: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(usage("--tls-cert without --tls-key; pass both")),
        (None, Some(_)) => Err(usage("--tls-key without --tls-cert; pass both")),
    }
}
