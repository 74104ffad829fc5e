# Sourced by the other scripts: paths and required programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}
out=$target/perf
mkdir -p "$out"

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null || { echo "error: $1 is not installed ($2)" >&2; exit 1; }
}

# Prints the number behind a key of a JSON object of one line.
field() {
    sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"
}

# per COUNT MESSAGES
per() {
    awk -v n="$1" -v messages="$2" 'BEGIN { if (messages > 0) printf "%.4f", n / messages; else printf "-" }'
}
