#!/usr/bin/env bash
# Builds the default image `lazaret-agent` from this folder. Does nothing when the image is up to date. The base is
# Debian's slim image; where no registry answers, mmdebstrap makes one.
set -euo pipefail
cd "$(dirname "$0")"

name=${1:-lazaret-agent}
digest=$(cat Dockerfile packages.txt | sha256sum | cut -c1-16)
say() { echo "lazaret: $*" >&2; }

built=$(docker image inspect --format '{{index .Config.Labels "lazaret.source"}}' "$name" 2>/dev/null || true)
if [ "$built" = "$digest" ]; then exit 0; fi

base=debian:bookworm-slim
fetch() {
    say "fetching $base (up to a minute)..."
    timeout 60 docker pull -q "$base" >/dev/null 2>&1
}
if ! docker image inspect "$base" >/dev/null 2>&1 && ! fetch; then
    base=lazaret-base:$(sha256sum <packages.txt | cut -c1-16)
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        say "no registry answers; making a Debian base with mmdebstrap (about a minute)..."
        if ! command -v mmdebstrap >/dev/null; then
            if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
                say "mmdebstrap is missing: install it as root with  apt-get install mmdebstrap"
                exit 1
            fi
            apt-get update -qq >/dev/null
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1
        fi
        packages=$(paste -sd, packages.txt)
        mmdebstrap --quiet --variant=minbase --include="$packages" bookworm - 2>/dev/null |
            docker import - "$base" >/dev/null
    fi
fi

say "building the image $name from $base (first time: about a minute)..."
# The classic builder is asked for by name: it is there in every engine since 20.10.
DOCKER_BUILDKIT=0 docker build --quiet --build-arg BASE_IMAGE="$base" --label "lazaret.source=$digest" \
    --tag "$name" . >/dev/null 2>&1 || {
    say "the build failed:"
    DOCKER_BUILDKIT=0 docker build --build-arg BASE_IMAGE="$base" --tag "$name" . >&2
    exit 1
}
say "the image $name is ready ($(docker image inspect --format '{{.Id}}' "$name" | cut -c8-19))"
