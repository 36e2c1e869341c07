#!/usr/bin/env bash
# Makes a Debian image with the tools that a seccomp profile is likeliest to break. Does nothing when it is there.
set -euo pipefail
name=$1
docker image inspect "$name" >/dev/null 2>&1 && exit 0
if ! command -v mmdebstrap >/dev/null; then
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null 2>&1
fi
mmdebstrap --quiet --variant=minbase --include=git,python3,python3-venv,python3-pip,nodejs,npm,gcc,libc6-dev,make \
    bookworm - 2>/dev/null | docker import - "$name" >/dev/null
