# The image holds Sluice, the libraries it needs and the authorities that TLS trusts; no shell, no package manager.
#   docker build -t eventsluice/sluice:0.1.0 .
#   docker run --rm --read-only -v ./my-stream:/etc/sluice:ro -v sluice-data:/var/lib/sluice eventsluice/sluice:0.1.0
# `config/image` is what the last step of the build runs; tests run it as well, without a container engine.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates libssl-dev make perl pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin sluice && config/image target/release/sluice /image

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="An EventBridge-compatible event router: Kafka, NATS, HTTP, rules, nothing lost" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /var/lib/sluice
VOLUME /var/lib/sluice
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
EXPOSE 4566 4567
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/bin/sluice", "health"]
ENTRYPOINT ["/usr/bin/sluice"]
CMD ["run", "--config", "/etc/sluice"]
