//! Certificates are reloaded from their files, and invalid ones leave those in use alone.

use std::fs;

use ropewalk_tls::{CertificateReloader, ClientAuth, Fault, TlsFiles};
use time::{Duration, OffsetDateTime};

#[allow(dead_code, reason = "each file of tests uses a part")]
mod certificates;
use certificates::{Authority, Folder, HOST};

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let keeper = CertificateReloader::open(folder.files(), ClientAuth::None)
        .await
        .expect("good files");
    let first = keeper.current();
    let in_ten_days = OffsetDateTime::now_utc() + Duration::days(10);
    let apart_ms =
        first.not_after_ms.expect("a certificate") - in_ten_days.unix_timestamp() * 1_000;
    assert!(apart_ms.abs() < 60_000, "{apart_ms}");
    assert!(!keeper.look().await, "nothing is new");

    let next = ours.issue(HOST, 20);
    let half = next.cert.len() / 2;
    let bad: [(&str, &str); 4] = [
        ("cert.pem", &next.cert), // the key is still the old one
        ("cert.pem", &next.cert[..half]),
        ("key.pem", "nonsense"),
        ("ca.pem", ""),
    ];
    for (name, text) in bad {
        let good = fs::read(folder.path(name)).expect("there");
        fs::write(folder.path(name), text).expect("written");
        for _ in 0..3 {
            assert!(!keeper.look().await, "{name}");
        }
        assert_eq!(keeper.current().not_after_ms, first.not_after_ms, "{name}");
        fs::write(folder.path(name), good).expect("written");
        assert!(!keeper.look().await);
    }
    fs::remove_file(folder.path("key.pem")).expect("there");
    assert!(!keeper.look().await);

    folder.put(&next);
    assert!(keeper.look().await);
    assert!(keeper.current().not_after_ms > first.not_after_ms);
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named() {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let (ca, cert, key) = (
        folder.path("ca.pem"),
        folder.path("cert.pem"),
        folder.path("key.pem"),
    );
    fs::write(folder.path("other.pem"), ours.issue(HOST, 10).key).expect("written");
    fs::write(folder.path("empty.pem"), "").expect("written");
    let (other, empty) = (folder.path("other.pem"), folder.path("empty.pem"));
    let wrong = [
        (TlsFiles::new(folder.path("nowhere.pem")), "nowhere.pem"),
        (TlsFiles::new(&empty), "empty.pem: no certificate"),
        (TlsFiles::new(&key), "key.pem: no certificate"),
        (
            TlsFiles::new(&ca).with_own(&key, &key),
            "key.pem: no certificate",
        ),
        (
            TlsFiles::new(&ca).with_own(&cert, &cert),
            "cert.pem: no private key",
        ),
        (TlsFiles::new(&ca).with_own(&cert, &other), "do not match"),
    ];
    for (files, why) in wrong {
        let error = CertificateReloader::open(files, ClientAuth::None)
            .await
            .expect_err("bad files");
        assert_eq!(error.fault(), Fault::Files);
        assert!(error.to_string().contains(why), "{error} ({why})");
    }
}

/// A private key on P-521, and a certificate for it.
const P521: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIB6+jnQNjCnqmuCFMI
pp87w/j5hfoZXkfzCP02hVhhleh3H5hP/EX3BmkNUu9R4DZrlb79vpjavx0DNv2h
2uD5+OehgYkDgYYABAFD1TIfGwvKDIFH3rQ/anw/pdxYQTa7sFqvNkdBK+wJO8eV
5DEDc85wcJAez/rRXoj6MhxB2HUjEjTXvj2qIOdt1wEYqXbfDs3EwgE8TLLWSdVz
jg3aXCECSqQSJ5nO+AmeGJtl2MQ79sXLh4/rvzbChU1utc2Pgxxi229ffbw2BwzE
Zw==
-----END PRIVATE KEY-----
",
    "-----BEGIN CERTIFICATE-----
MIICBjCCAWigAwIBAgIUDqe7JBfi9m0W9MNiBC2i14J8bTUwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyODE4MzAwNFoYDzIxMjYxMTA0
MTgzMDA0WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwgZswEAYHKoZIzj0CAQYFK4EE
ACMDgYYABAFD1TIfGwvKDIFH3rQ/anw/pdxYQTa7sFqvNkdBK+wJO8eV5DEDc85w
cJAez/rRXoj6MhxB2HUjEjTXvj2qIOdt1wEYqXbfDs3EwgE8TLLWSdVzjg3aXCEC
SqQSJ5nO+AmeGJtl2MQ79sXLh4/rvzbChU1utc2Pgxxi229ffbw2BwzEZ6NTMFEw
HQYDVR0OBBYEFLo3m+ZkY/0fyvYvc2jeaQT0XWN3MB8GA1UdIwQYMBaAFLo3m+Zk
Y/0fyvYvc2jeaQT0XWN3MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDgYsA
MIGHAkFdDgVQRylAQfaa8H8aCLn4MU7nJqVjIqI8nvufa+UYhSS9KPALVsw5dj8S
iHpmLnZyema8w1IhX1jvAjxUBv/miAJCATXfSL0BIB52BxCXZ7rpgJGYpIqxTB3I
ytJGht/19vMenCEc3jnqMTLniZ9cszjqcgB9K3PiaiTyFB+u+Rw5P3HG
-----END CERTIFICATE-----
",
];

/// A private key with a passphrase, in the current format and in the one before it.
const ENCRYPTED: [&str; 2] = [
    "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAihrCkhquwuLAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEB4IbUGHgZ9bvAgg+GrkZVwEgZD0
50xY+3i8VIFj6ywrwTsecqewCLrMkhnksk+ORzH/KZcp4k1k3tLChD8gZ7HMv9YW
CghBfMVK3pUYfKDkUmXRTt/IecSiNXsbxl7xNjhp2Y7xfWfEU1dwfLR6eN/fJs+k
tCPbG6gywkD+v+Vnc+xF/PgYV9kPCHwsa45m2BHvs0JiRNPdvyX2dllL/L7WA2M=
-----END ENCRYPTED PRIVATE KEY-----
",
    "-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,2D7C0C4B5F8E8C1F9A4B1E0E6A7D3C55

3q2+7w==
-----END EC PRIVATE KEY-----
",
];

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told_for_what_it_is() {
    let ours = Authority::new("ours");
    let own = ours.issue(HOST, 10);
    let folder = Folder::new(&[&ours], &own);
    let reversed = format!("{}{}", ours.pem(), own.cert);
    let other = ours.issue(HOST, 10);
    let chain = format!("{}{}", own.cert, ours.pem());
    let wrong = [
        (own.cert.as_str(), ENCRYPTED[0], "key is encrypted"),
        (&own.cert, ENCRYPTED[1], "key is encrypted"),
        (
            P521[1],
            P521[0],
            "key.pem is a private key of an unsupported kind",
        ),
        (
            &reversed,
            &own.key,
            "cert.pem has its certificates in the wrong order",
        ),
        (&chain, &other.key, "do not match"),
    ];
    for (cert, key, why) in wrong {
        fs::write(folder.path("cert.pem"), cert).expect("written");
        fs::write(folder.path("key.pem"), key).expect("written");
        let opened = CertificateReloader::open(folder.files(), ClientAuth::None).await;
        let error = opened.expect_err("bad files").to_string();
        assert!(error.contains(why), "{error} ({why})");
        assert!(!error.contains("items"), "{error}");
    }
    fs::write(folder.path("cert.pem"), chain).expect("written");
    fs::write(folder.path("key.pem"), own.key).expect("written");
    let opened = CertificateReloader::open(folder.files(), ClientAuth::None).await;
    opened.expect("a chain in its order");
}
