#!/usr/bin/env bash
# Builds the fuzz targets and runs them all, or TARGET, for SECONDS altogether; one line each. What crashes a target is
# kept below target/fuzz/crashes, and is run again with:  TARGET=name INPUT=file tests/fuzz/run.sh
set -euo pipefail
cd "$(dirname "$0")"
seconds=${SECONDS_ALL:-60}
work=$(cd ../.. && pwd)/target/fuzz
export CARGO_TERM_COLOR=never
export RUSTC_WRAPPER=$PWD/rustc.sh
counters="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares"

mkdir -p "$work/crashes"
if command -v c++ >/dev/null && COUNTERS=$counters CARGO_TARGET_DIR=$work/guided \
    cargo build --quiet --release --bin guided --features coverage 2>"$work/guided.log"; then
    how=guided
else
    # No C++ compiler, or libFuzzer does not link here: the same targets, corpus and time without coverage.
    how=plain
    echo "fuzz: without coverage, since libFuzzer cannot be built here (target/fuzz/guided.log)" >&2
    CARGO_TARGET_DIR=$work/plain cargo build --quiet --release --bin plain
fi
bin=$work/$how/release

if [ -n "${INPUT:-}" ]; then
    [ "$how" = guided ] || { echo "running one input needs libFuzzer: install a C++ compiler" >&2; exit 1; }
    exec "$bin/guided" "$INPUT"
fi
# Each has its corpus; the tests of host and runner see to that.
targets=${TARGET:-$(ls corpus)}
jobs=$(nproc)
each=$((seconds * jobs / $(wc -w <<<"$targets")))
if [ "$each" -lt 1 ]; then each=1; fi

one() {
    local target=$1 log=$work/$1.log found ok=ok
    mkdir -p "$work/corpus/$target"
    if [ "$how" = guided ]; then
        # What is found beyond the committed seeds is kept for the next run. A run of 25 s or 2 GiB is a crash, too.
        TARGET=$target "$bin/guided" "$work/corpus/$target" "corpus/$target" -max_total_time="$each" -timeout=25 \
            -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix="$work/crashes/$target-" \
            >"$log" 2>&1 || ok=CRASH
    else
        "$bin/plain" "$target" "corpus/$target" "$work/crashes" "$each" >"$log" 2>&1 || ok=CRASH
    fi
    # libFuzzer's last line:  #4711 DONE cov: 812 ft: 2100 corp: 120/9Kb ...
    found=$(sed -n 's/^#\([0-9]*\)[^c]*cov: \([0-9]*\).*corp: \([0-9]*\).*/\1 \2 \3/p' "$log" | tail -n 1)
    read -r runs cov corp <<<"${found:-0 0 0}"
    printf '%-18s %9s runs  %6s edges  %5s inputs  %s\n' "$target" "$runs" "$cov" "$corp" "$ok"
    if [ "$ok" = CRASH ]; then
        grep -E 'panicked|assertion|^ *(left|right)|ERROR: libFuzzer|Test unit written' "$log" >&2 || tail -n 20 "$log" >&2
        return 1
    fi
}
export -f one
export work bin how each
# shellcheck disable=SC2016  # $1 is the inner shell's
xargs -P "$jobs" -I {} bash -c 'set -euo pipefail; one "$1"' one {} <<<"$(tr ' ' '\n' <<<"$targets")"
