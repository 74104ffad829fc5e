#!/usr/bin/env bash
# Counts system calls, wakes, context switches and allocations per message, both sides together.
# usage: perf/scripts/counts.sh --workload conc64 [other options of `ringmux-perf load`]
#
# The counts include a warm-up of 50 ms that the messages do not: 1 % too high with 5 seconds.
source "$(dirname "$0")/common.sh"
need perf linux-tools

cargo build --quiet --release -p ringmux-perf
cargo build --quiet --release -p ringmux-perf --features count-allocations --target-dir "$target/count-allocations"

events=raw_syscalls:sys_enter,sched:sched_wakeup,context-switches
if ! perf stat -e "$events" true >/dev/null 2>&1; then
    echo "warning: the kernel's tracepoints cannot be read (root? tracefs?): context switches only" >&2
    events=context-switches
fi
counts=$out/counts.csv
line=$(perf stat -x, -o "$counts" -e "$events" "$target/release/ringmux-perf" load "$@")
messages=$(field messages <<<"$line")
echo "$line"
for event in ${events//,/ }; do
    count=$(awk -F, -v event="$event" '$3 ~ "^" event { print $1 }' "$counts")
    printf '%-24s %12s  %s per message\n' "$event" "$count" "$(per "$count" "$messages")"
done

# A run of its own, because counting allocations slows both threads down.
line=$("$target/count-allocations/release/ringmux-perf" load "$@")
count=$(field allocations <<<"$line")
printf '%-24s %12s  %s per message\n' allocations "$count" "$(per "$count" "$(field messages <<<"$line")")"
