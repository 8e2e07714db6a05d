# The image the chart runs: make image. It has a shell, since the chart's hooks and test are scripts of
# the ropewalk command.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libclang-dev make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /ropewalk
COPY . .
# Which commit this is, for ropewalk --version: the build itself knows no git.
ARG COMMIT=""
ENV ROPEWALK_COMMIT=$COMMIT
# RocksDB takes most of the time, and stays in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/ropewalk/target \
    cargo build --release --locked -p ropewalk --bin ropewalk \
 && objcopy --strip-debug target/release/ropewalk /usr/local/bin/ropewalk

FROM debian:bookworm-slim
ARG COMMIT=""
LABEL org.opencontainers.image.title="Ropewalk" \
      org.opencontainers.image.description="A replicated log" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$COMMIT
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/ropewalk --shell /usr/sbin/nologin ropewalk \
 && install -d -o ropewalk -g ropewalk -m 0750 /var/lib/ropewalk
COPY --from=build /usr/local/bin/ropewalk /usr/local/bin/ropewalk
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
ENV ROPEWALK_DATA_DIR=/var/lib/ropewalk
VOLUME /var/lib/ropewalk
# Clients and other nodes; metrics and health.
EXPOSE 7101 7201
# Hands over what it leads, flushes, and exits 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/ropewalk"]
CMD ["--help"]
