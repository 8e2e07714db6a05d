# Image of the chart, built by make image. The chart's hooks and test are shell scripts, so it contains a shell.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libclang-dev make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /ropewalk
COPY . .
# Commit in ropewalk --version. The build does not use git.
ARG COMMIT=""
ENV ROPEWALK_COMMIT=$COMMIT
# The cache keeps RocksDB, which takes most of the build time.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/ropewalk/target \
    cargo build --release --locked -p ropewalk --bin ropewalk \
 && objcopy --strip-debug target/release/ropewalk /usr/local/bin/ropewalk

FROM debian:bookworm-slim
ARG COMMIT=""
LABEL org.opencontainers.image.title="Ropewalk" \
      org.opencontainers.image.description="Distributed, replicated log of keyed records" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$COMMIT
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/ropewalk --shell /usr/sbin/nologin ropewalk \
 && install -d -o ropewalk -g ropewalk -m 0750 /var/lib/ropewalk
COPY --from=build /usr/local/bin/ropewalk /usr/local/bin/ropewalk
# Numeric, so that Kubernetes can verify that the user is not root.
USER 10001:10001
ENV ROPEWALK_DATA_DIR=/var/lib/ropewalk
VOLUME /var/lib/ropewalk
# 7101: clients and other nodes. 7201: metrics and health.
EXPOSE 7101 7201
# At SIGTERM, a node hands over its leaderships, flushes and exits with 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/ropewalk"]
CMD ["--help"]
