//! The read functions of a disk that changes only the commits of another one.

/// Functions of a [`Disk`](ropewalk_raft_store::disk::Disk) that reads from its field `inner`.
macro_rules! reads_of_inner {
    () => {
        fn get(
            &self,
            key: bytes::Bytes,
        ) -> futures_util::future::BoxFuture<
            '_,
            Result<Option<bytes::Bytes>, ropewalk_raft_store::disk::DiskError>,
        > {
            self.inner.get(key)
        }

        fn scan(
            &self,
            range: std::ops::Range<bytes::Bytes>,
            limit: ropewalk_raft_store::disk::ScanLimit,
        ) -> futures_util::future::BoxFuture<
            '_,
            Result<Vec<(bytes::Bytes, bytes::Bytes)>, ropewalk_raft_store::disk::DiskError>,
        > {
            self.inner.scan(range, limit)
        }

        fn last(
            &self,
            range: std::ops::Range<bytes::Bytes>,
        ) -> futures_util::future::BoxFuture<
            '_,
            Result<Option<(bytes::Bytes, bytes::Bytes)>, ropewalk_raft_store::disk::DiskError>,
        > {
            self.inner.last(range)
        }
    };
}
