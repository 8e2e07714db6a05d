//! Builds `files.cc` against the linked RocksDB, prebuilt or not. Every RocksDB library contains the fault
//! injection that it uses, but only RocksDB's sources have the headers that declare it.

use std::env;
use std::path::Path;

const SOURCE: &str = "src/disk/files.cc";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    let crate_dir = env::var("DEP_ROCKSDB_CARGO_MANIFEST_DIR");
    let crate_dir = crate_dir.expect("librocksdb-sys says where its sources are");
    let sources = Path::new(&crate_dir).join("rocksdb");
    let mut build = cc::Build::new();
    // The same flags as in librocksdb-sys: the same headers must result in the same classes.
    build
        .cpp(true)
        .std("c++20")
        .include(sources.join("include"))
        .include(&sources)
        .define("NDEBUG", Some("1"))
        .define("HAVE_ALIGNED_NEW", None)
        .define("HAVE_UINT128_EXTENSION", None)
        .define("ROCKSDB_PLATFORM_POSIX", None)
        .define("ROCKSDB_LIB_IO_POSIX", None)
        .flag("-include")
        .flag("cstdint")
        .warnings(false);
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => build.define("OS_LINUX", None),
        Ok("macos") => build.define("OS_MACOSX", None),
        other => panic!("the simulator is not built for {other:?}"),
    };
    build.file(SOURCE).compile("ropewalk_files");
}
