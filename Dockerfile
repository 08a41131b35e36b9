# Two stages: compile with the Rust image, run on a base that has glibc, CA certificates and
# nothing to break out with: no shell, no package manager, no root.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t mikrotik-backup .

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
COPY . .
# The cache mounts keep compiled dependencies between builds. Cargo compares modification times,
# and those of an older checkout would make it keep the program of a newer one: hence the touch.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin mikrotik-backup \
    && install -D --mode=0755 target/release/mikrotik-backup /out/mikrotik-backup

# Same glibc as the build stage; the certificates are what rustls reads as the system's.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mikrotik-backup" \
      org.opencontainers.image.description="Configuration backup for fleets of MikroTik RouterOS routers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/mikrotik-backup /usr/local/bin/mikrotik-backup
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/mikrotik-backup", "healthcheck"]
# In cluster mode it writes to DATA_DIR only, and only while neither NATS nor Redis can be reached:
# run it with --read-only and a volume there, writable for 65532. `docker stop` waits
# ten seconds by default; running exports want CONFIG_BACKUP_COMMAND_TIMEOUT, see --stop-timeout.
ENTRYPOINT ["/usr/local/bin/mikrotik-backup"]
