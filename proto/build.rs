//! Compiles the `.proto` files with a compiler written in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(
        [
            "ropewalk/v1/client.proto",
            "ropewalk/v1/group.proto",
            "ropewalk/v1/meta.proto",
            "ropewalk/v1/peer.proto",
            "ropewalk/v1/raft.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
