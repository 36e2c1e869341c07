#!/usr/bin/env bash
# Makes sure that gVisor's runtime is on this machine, and prints its path. Debian has it as a package.
set -euo pipefail
if ! command -v runsc >/dev/null; then
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends runsc >/dev/null 2>&1
fi
command -v runsc
