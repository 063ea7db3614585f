# The image of trailcast: the program alone, on a base without a shell, for amd64 and arm64.
#
#     docker build --build-arg REVISION="$(git rev-parse --short=12 HEAD)" -t trailcast .
#
# Bases are tags, so that anybody can build at once, and a tag may come to mean another image. To pin them, give their digests,
# which the registry tells, for all platforms at once:
#
#     docker buildx imagetools inspect --format '{{.Manifest.Digest}}' gcr.io/distroless/cc-debian12:nonroot
#     docker build --build-arg RUN_DIGEST=sha256:… --build-arg RUST_DIGEST=sha256:… …
#
# A release does so (.github/workflows/release.yaml), and says in the image's labels which they were.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
ARG RUST_DIGEST=
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG RUN_DIGEST=

FROM ${RUST_IMAGE}${RUST_DIGEST:+@}${RUST_DIGEST} AS build
ARG CARGO_AUDITABLE=0.7.7
RUN cargo install --locked --root /usr/local "cargo-auditable@${CARGO_AUDITABLE}"
WORKDIR /usr/src/trailcast
ENV CARGO_TARGET_DIR=/usr/src/trailcast/target
# The dependencies, with nothing in place of the program: a layer that lasts until one of these files changes.
COPY Cargo.toml Cargo.lock ./
COPY packaging/build packaging/
RUN mkdir -p src tests/kafka tests/otlp \
    && touch src/lib.rs tests/kafka/main.rs tests/otlp/main.rs \
    && echo 'fn main() {}' >src/main.rs \
    && packaging/build \
    && cargo clean --quiet --release --package trailcast
COPY src src
# Below, so that another commit builds no dependency again.
ARG REVISION=
RUN TRAILCAST_REVISION="${REVISION}" packaging/build \
    && install -D target/release/trailcast /out/trailcast \
    && mkdir /out/state

FROM ${RUN_IMAGE}${RUN_DIGEST:+@}${RUN_DIGEST}
COPY --from=build /out/trailcast /usr/local/bin/trailcast
# Where a config that says nothing else keeps its state: a volume that is mounted there begins with this owner.
COPY --from=build --chown=65532:65532 /out/state /var/lib/trailcast
USER 65532:65532
# Runs on this base, or is no image.
RUN ["/usr/local/bin/trailcast", "--version"]
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/trailcast"]
ARG RUN_IMAGE
ARG RUN_DIGEST
ARG REVISION
ARG VERSION=
LABEL org.opencontainers.image.title="trailcast" \
    org.opencontainers.image.description="Carries GenAuth and SCloud audit logs into Kafka, OTLP and stdout: every event, once" \
    org.opencontainers.image.source="https://github.com/trailcast/trailcast" \
    org.opencontainers.image.documentation="https://github.com/trailcast/trailcast#readme" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${RUN_IMAGE}" \
    org.opencontainers.image.base.digest="${RUN_DIGEST}"
