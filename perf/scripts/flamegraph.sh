#!/usr/bin/env bash
# Records where one workload spends its time, on both sides, kernel included.
# usage: perf/scripts/flamegraph.sh --workload conc64 [other options of `ringmux-perf load`]
source "$(dirname "$0")/common.sh"
need perf linux-tools

# Without frame pointers a stack of Rust ends at its first function.
RUSTFLAGS="-C force-frame-pointers=yes ${RUSTFLAGS:-}" \
    cargo build --release -p ringmux-perf --target-dir "$target/frame-pointers"
data=$out/flame.data
perf record -F 997 --call-graph fp -o "$data" \
    "$target/frame-pointers/release/ringmux-perf" load "$@"

if command -v inferno-collapse-perf >/dev/null; then
    perf script -i "$data" 2>/dev/null | inferno-collapse-perf | inferno-flamegraph >"$out/flame.svg"
    echo "flame graph: $out/flame.svg"
else
    perf report -i "$data" --stdio --no-children --sort comm,symbol -g caller,0.5 2>/dev/null >"$out/flame.txt"
    echo "inferno is not installed (cargo install inferno), so here is a tree: $out/flame.txt"
fi
