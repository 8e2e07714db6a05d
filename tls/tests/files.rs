//! Certificates are followed in their files, and bad ones leave those in use alone.

use std::fs;

use ropewalk_tls::{ClientAuth, Fault, Keeper, TlsFiles};
use time::{Duration, OffsetDateTime};

#[allow(dead_code, reason = "each file of tests uses a part")]
mod certificates;
use certificates::{Authority, Folder, HOST};

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let keeper = Keeper::open(folder.files(), ClientAuth::None)
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
        (
            TlsFiles::new(&ca).with_own(&cert, &other),
            "do not go together",
        ),
    ];
    for (files, why) in wrong {
        let error = Keeper::open(files, ClientAuth::None)
            .await
            .expect_err("bad files");
        assert_eq!(error.fault(), Fault::Files);
        assert!(error.to_string().contains(why), "{error} ({why})");
    }
}
