//! Compiles the `.proto` files with a compiler written in Rust, so that no `protoc` is needed. Also writes
//! the table of fields that hold messages, for `src/shape.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;

use protox::prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor,
};

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
    let pool = DescriptorPool::from_file_descriptor_set(files.clone())?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(format!("{out}/shapes.rs"), shapes(&pool)?)?;
    let services = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        .bytes(".")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}

/// The tables of `src/shape.rs`.
fn shapes(pool: &DescriptorPool) -> Result<String, std::fmt::Error> {
    let messages: Vec<MessageDescriptor> = pool.all_messages().collect();
    let names = messages
        .iter()
        .map(|message| message.full_name().to_owned());
    let numbers: BTreeMap<String, usize> = names.zip(0..).collect();
    let mut text = String::from("static MESSAGES: &[&[(u32, Content)]] = &[\n");
    for message in &messages {
        let mut fields = String::new();
        for field in message.fields() {
            if let Some(content) = content(&field, &numbers) {
                write!(fields, "({}, {content}), ", field.number())?;
            }
        }
        writeln!(text, "    &[{fields}], // {}", message.full_name())?;
    }
    text.push_str("];\nstatic CALLS: &[(&str, usize)] = &[\n");
    for service in pool.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let input = numbers.get(method.input().full_name()).copied();
            writeln!(text, "    ({path:?}, {}),", input.unwrap_or(usize::MAX))?;
        }
    }
    text.push_str("];\n");
    Ok(text)
}

/// Content of a field that may hold more than one value; `None` for other fields.
fn content(field: &FieldDescriptor, numbers: &BTreeMap<String, usize>) -> Option<String> {
    match field.kind() {
        Kind::Message(message) => {
            let number = numbers.get(message.full_name())?;
            Some(format!("Content::Message({number})"))
        }
        Kind::String | Kind::Bytes => None,
        _ if field.cardinality() == Cardinality::Repeated => Some("Content::Packed".to_owned()),
        _ => None,
    }
}
