//! The certificates of a cluster and its clients, in one folder: `ca.pem`, and for each of them its
//! certificate and key.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use ropewalk_client::Tls;

/// File of the trusted CAs.
pub const TRUSTED: &str = "ca.pem";

/// A CA, which signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Authority {
    pub fn new(name: &str) -> anyhow::Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let own = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Authority(own))
    }
}

impl Folder {
    pub fn new(dir: &Path) -> anyhow::Result<Folder> {
        let folder = dir.join("tls");
        std::fs::create_dir_all(&folder)?;
        Ok(Folder(folder))
    }

    /// Path of a file in the folder.
    pub fn path(&self, file: &str) -> String {
        self.0.join(file).to_string_lossy().into_owned()
    }

    /// Replaces the trusted CAs with this one and those in `also`, which is PEM.
    pub fn trust(&self, authority: &Authority, also: &str) -> anyhow::Result<()> {
        self.put(TRUSTED, &format!("{}{also}", authority.0.pem()))
    }

    /// The trusted CAs, as PEM.
    pub fn trusted(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.0.join(TRUSTED))?)
    }

    /// Issues a new certificate for a name at this address.
    pub fn issue(&self, by: &Authority, name: &str, host: &str) -> anyhow::Result<()> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &by.0)?;
        self.put(&format!("{name}.pem"), &certificate.pem())?;
        self.put(&format!("{name}.key"), &key.serialize_pem())
    }

    /// Certificate and trusted CAs of a client.
    pub fn client(&self, name: &str) -> Tls {
        let path = |file: String| self.0.join(file);
        let (certificate, key) = (path(format!("{name}.pem")), path(format!("{name}.key")));
        Tls::new(self.0.join(TRUSTED)).identity(certificate, key)
    }

    /// Replaces a file as a whole, so that no reader sees half of it.
    fn put(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let whole = self.0.join(format!("{file}.new"));
        std::fs::write(&whole, text)?;
        Ok(std::fs::rename(whole, self.0.join(file))?)
    }
}
