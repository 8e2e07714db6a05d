"""Prints where keys belong, computed apart from the code under test.

Made with xxhash 4.1.0 and the murmur2 of kafka-python 3.0.12:

    pip install xxhash kafka-python
    python3 make.py ring > ring.tsv; python3 make.py murmur2 > murmur2.tsv

The files are fixed for ever: a change in them moves keys away from their records. Columns: key in
hexadecimal, and its partition among 1, 3, 12, 13, 100 and 1000.
"""

import bisect
import struct
import sys

import xxhash
from kafka.partitioner.default import murmur2

POINTS_PER_PARTITION = 512
COUNTS = [1, 3, 12, 13, 100, 1000]

KEYS = [b"", b"\x00", b"\xff" * 7, b"N14228", "Schlüssel".encode(), bytes(range(256))]
KEYS += [b"x" * length for length in range(1, 41)]
KEYS += [struct.pack("<II", partition, point) for partition in (0, 2, 11) for point in (0, 1, 511)]
KEYS += [f"key-{number}".encode() for number in range(200)]


def ring(partitions):
    points = sorted(
        (xxhash.xxh64_intdigest(struct.pack("<II", partition, point), seed=0), partition)
        for partition in range(partitions)
        for point in range(POINTS_PER_PARTITION)
    )
    hashes = [point[0] for point in points]

    def partition(key):
        at = bisect.bisect_left(hashes, xxhash.xxh64_intdigest(key, seed=0))
        return points[at % len(points)][1]

    return partition


def modulo(partitions):
    return lambda key: (murmur2(key) & 0x7FFFFFFF) % partitions


mapping = {"ring": ring, "murmur2": modulo}[sys.argv[1]]
columns = [mapping(count) for count in COUNTS]
for key in KEYS:
    print(key.hex(), *(column(key) for column in columns), sep="\t")
