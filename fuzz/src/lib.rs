//! Parts that the fuzz targets share: inputs of several pieces, and the inputs that a run begins with.

use std::path::PathBuf;

use bytes::Bytes;

/// Variable with the folder for the first inputs.
const SEEDS: &str = "FUZZ_SEEDS";

/// Writes the inputs that a run begins with into the folder of `FUZZ_SEEDS`, if it is set.
pub fn write_seeds(inputs: impl IntoIterator<Item = Vec<u8>>) {
    let Some(folder) = std::env::var_os(SEEDS).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&folder).expect("a folder for the first inputs");
    for (number, input) in inputs.into_iter().enumerate() {
        let file = folder.join(format!("seed-{number}"));
        std::fs::write(file, input).expect("a first input");
    }
}

/// The pieces of an input. Each follows its length in two bytes; the input may end within the last one.
pub fn pieces(input: &[u8]) -> impl Iterator<Item = Bytes> + '_ {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (piece, after) = after.split_at(length);
        rest = after;
        Some(Bytes::copy_from_slice(piece))
    })
}

/// An input of these pieces, which have at most 65,535 bytes.
pub fn joined(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        let length = u16::try_from(piece.len()).expect("a short piece");
        input.extend_from_slice(&length.to_be_bytes());
        input.extend_from_slice(piece);
    }
    input
}
