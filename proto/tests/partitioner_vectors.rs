//! Keys never move: the committed vectors come from other implementations.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use ropewalk_proto::partitioner::Partitioner;

const COUNTS: [u32; 6] = [1, 3, 12, 13, 100, 1000];

fn check(vectors: &str, partitioner: fn(u32) -> Partitioner) {
    let partitioners = COUNTS.map(partitioner);
    let mut keys = 0;
    for line in vectors.lines() {
        let mut columns = line.split('\t');
        let key = unhex(columns.next().unwrap());
        for partitioner in &partitioners {
            let expected: u32 = columns.next().unwrap().parse().unwrap();
            assert_eq!(
                partitioner.partition(&key),
                expected,
                "{partitioner:?} {line}"
            );
        }
        assert_eq!(columns.next(), None);
        keys += 1;
    }
    assert_eq!(keys, 255);
}

fn unhex(text: &str) -> Vec<u8> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    assert!(odd.is_empty(), "{text}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
    pairs.iter().map(|pair| byte(pair).unwrap()).collect()
}

#[test]
fn the_ring_puts_every_key_where_it_always_was() {
    check(include_str!("vectors/ring.tsv"), Partitioner::ring);
}

#[test]
fn murmur2_puts_every_key_where_kafka_clients_do() {
    check(include_str!("vectors/murmur2.tsv"), Partitioner::murmur2);
}
