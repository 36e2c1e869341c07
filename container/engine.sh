#!/usr/bin/env bash
# Makes sure that a container engine answers. An engine that answers is used as it is. Otherwise this script shows the
# commands that install and start Docker. As root it asks before it runs them; without a terminal it runs them at once.
set -euo pipefail

answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

if answers; then exit 0; fi

commands=()
if ! command -v dockerd >/dev/null; then
    commands+=("apt-get update -qq" "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io")
fi
if [ -d /run/systemd/system ]; then
    commands+=("systemctl start docker")
else
    commands+=("setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &")
fi

echo "lazaret: no container engine answers. These commands install and start Docker:" >&2
printf '    %s\n' "${commands[@]}" >&2

if [ "$(id -u)" -ne 0 ]; then
    echo "lazaret: run them as root, and add yourself to the group docker; then try again." >&2
    exit 1
fi
if [ -t 0 ]; then
    read -r -p "Run them now? [y/N] " answer
    case "$answer" in [yY]*) ;; *) exit 1 ;; esac
else
    echo "lazaret: there is no terminal to ask on, so they run now." >&2
fi

for command in "${commands[@]}"; do
    echo "lazaret: running: $command" >&2
    # A package manager's output helps only when the command fails.
    if ! output=$(eval "$command" 2>&1); then
        printf '%s\n' "$output" >&2
        echo "lazaret: this command failed: $command" >&2
        exit 1
    fi
done

for _ in $(seq 60); do
    if answers; then
        echo "lazaret: the engine is up ($(docker version --format '{{.Server.Version}}'))." >&2
        exit 0
    fi
    sleep 0.5
done
echo "lazaret: the engine does not answer 30 seconds after its start; read /var/log/dockerd.log or run: journalctl -u docker" >&2
exit 1
