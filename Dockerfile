# syntax=docker/dockerfile:1
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin walferry

FROM debian:trixie-slim
# pg_dump and pg_restore carry the schema; they must not be older than the source.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates postgresql-client \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/walferry /usr/local/bin/walferry
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/walferry/
# A fixed number, so that runAsNonRoot and volume owners can name it.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin walferry
USER 10001:10001
EXPOSE 9187
# walferry handles SIGTERM itself: it finishes its batch and confirms it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["walferry"]
# Others can reach this address: WALFERRY_LISTEN_TOKEN (or the file that
# WALFERRY_LISTEN_TOKEN_FILE names) says what their requests carry, or "none".
CMD ["run", "--listen", "0.0.0.0:9187"]
