//! Certificates for tests: authorities, the certificates they sign, and folders with the files of a node.
//! Tests of other crates also include this file.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use ropewalk_tls::TlsFiles;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// Host by which the nodes of a test are dialed.
pub const HOST: &str = "127.0.0.1";

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this host. It is valid from 100 days ago until this number of days from now.
    pub fn issue(&self, host: &str, days: i64) -> Issued {
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue_with(host, days, usages)
    }

    /// The same for a client: no side can be a server with it.
    pub fn issue_to_client(&self, name: &str, days: i64) -> Issued {
        self.issue_with(name, days, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue_with(&self, host: &str, days: i64, usages: Vec<ExtendedKeyUsagePurpose>) -> Issued {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.not_before = OffsetDateTime::now_utc() - Duration::days(100);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = usages;
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Files of one side.
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    /// Trusts these authorities, and presents this certificate.
    pub fn new(trusted: &[&Authority], own: &Issued) -> Folder {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder { dir };
        let bundle: String = trusted.iter().map(|authority| authority.pem()).collect();
        fs::write(folder.path("ca.pem"), bundle).expect("written");
        folder.put(own);
        folder
    }

    /// Presents another certificate from now on.
    pub fn put(&self, own: &Issued) {
        fs::write(self.path("cert.pem"), &own.cert).expect("written");
        fs::write(self.path("key.pem"), &own.key).expect("written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles::new(self.path("ca.pem")).with_own(self.path("cert.pem"), self.path("key.pem"))
    }
}
