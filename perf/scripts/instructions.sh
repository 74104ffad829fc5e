#!/usr/bin/env bash
# Counts instructions of the parts that make no system call: two sessions over a pipe in memory.
# usage: perf/scripts/instructions.sh [TIMES]
#
# Each part runs TIMES and twice as often; the difference is the cost of one.
source "$(dirname "$0")/common.sh"
need valgrind valgrind

times=${1:-2048}
# Valgrind does not know every instruction of the newest processors.
RUSTFLAGS="" cargo build --quiet --release -p ringmux-perf --example instructions
program=$target/release/examples/instructions

# instructions PART TIMES
instructions() {
    local log=$out/callgrind.$1.log
    valgrind --tool=callgrind --callgrind-out-file="$out/callgrind.$1" --log-file="$log" "$program" "$1" "$2"
    sed -n 's/.*Collected : //p' "$log"
}

for part in round-trip pipelined concurrent open-close calls open-close-with calls-with rpc-call rpc-calls rpc-feed; do
    once=$(instructions "$part" "$times")
    twice=$(instructions "$part" $((2 * times)))
    printf '%-16s %8d instructions\n' "$part" $(((twice - once) / times))
done
echo "where: callgrind_annotate $out/callgrind.PART"
