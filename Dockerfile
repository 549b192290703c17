# syntax=docker/dockerfile:1
# For amd64 and arm64. The gateway with the stock plugins: docker build -t sluicegate .
# The back end: docker build -t sluicegate-backend --target backend .

FROM rust:1.95.0-bookworm AS plugins
# The image's own toolchain, without fetching the components that rust-toolchain.toml names for those who write it.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN rustup target add wasm32-unknown-unknown
WORKDIR /src
COPY . .
RUN cargo xtask plugins

FROM rust:1.95.0-bookworm AS host
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package sluicegate --package sluicegate-backend

FROM debian:bookworm-slim AS system
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --shell /usr/sbin/nologin --home-dir /var/lib/sluicegate --create-home sluicegate
USER sluicegate
WORKDIR /var/lib/sluicegate
STOPSIGNAL SIGTERM

FROM system AS backend
COPY --from=host /src/target/release/sluicegate-backend /usr/bin/sluicegate-backend
# Without settings that name another database it writes ./backend.db.
VOLUME /var/lib/sluicegate
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["sluicegate-backend", "health"]
ENTRYPOINT ["sluicegate-backend"]
CMD ["run"]

FROM system AS gateway
COPY --from=host /src/target/release/sluicegate /usr/bin/sluicegate
# Files that a volume can replace while the gateway runs.
COPY --from=plugins /src/config/plugins/ /usr/share/sluicegate/plugins/
# The spool is written to ./spool: it holds what was acknowledged, so it must outlive the container; so must the last good builds in
# ./state.
VOLUME /var/lib/sluicegate
# Whether the process answers, not whether messages flow: while Redis or the broker is away the gateway must go on.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["sluicegate", "health", "--live"]
ENTRYPOINT ["sluicegate"]
CMD ["run"]
