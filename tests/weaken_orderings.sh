#!/usr/bin/env bash
# Weakens every atomic ordering in src/ring, src/wait and src/topic by one step, one at a time, and expects that some model fails. Prints a
# table: caught, by which model; or not caught.
#
#   tests/weaken_orderings.sh [part of a path]        e.g. tests/weaken_orderings.sh ring/queue
#
# AcqRel is weakened to Acquire and to Release, Acquire and Release to Relaxed. The models are built once: the orderings are weakened while they
# run (see src/sync/weakened.rs). Those that no tool shows to be needed are argued for in the tables of src/ring/mod.rs and src/wait/mod.rs.
# Each mutation is tried with one preemption first, which takes seconds, then with LOOM_MAX_PREEMPTIONS (default 2); SECONDS_EACH (default 60, for
# one group of models) bounds the work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
only="${1:-}"
seconds="${SECONDS_EACH:-60}"
most="${LOOM_MAX_PREEMPTIONS:-2}"
export RUST_BACKTRACE=0

built=$(RUSTFLAGS='--cfg ringmq_loom' cargo test --locked --profile models --lib --target-dir target/loom --no-run 2>&1 | tee >(cat >&2) |
    sed -n 's/.*Executable.*(\(.*\))$/\1/p')
# Copies, so that the tree may be built meanwhile.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binary=$work/models places=$work/places
cp "$built" "$binary"

# Where the models of a file's accesses are, those that fail fastest first.
models_for() {
    case "$1" in
        src/ring/queue.rs) echo 'ring::models::queue topic::models' ;;
        src/ring/slots.rs) echo 'ring::models::queue ring::models::window ring::models::moving' ;;
        src/ring/counter.rs) echo 'ring::models::counter ring::models::scan ring::models::window ring::models::credit topic::models' ;;
        src/ring/credit.rs) echo 'ring::models::credit topic::models' ;;
        src/ring/window/cursor.rs) echo 'ring::models::overtaking ring::models::window ring::models::scan ring::models::moving' ;;
        src/ring/window/scan.rs) echo 'ring::models::scan ring::models::window ring::models::overtaking ring::models::moving' ;;
        src/ring/window/*) echo 'ring::models::window ring::models::overtaking ring::models::scan ring::models::moving topic::models' ;;
        src/wait/*) echo 'wait::models topic::models' ;;
        *) echo 'topic::models' ;;
    esac
}

# The first model of a group that fails with this mutation. It panics, or panics in the destructors that follow and aborts.
first_failure() {
    { RINGMQ_WEAKEN="$1" LOOM_MAX_PREEMPTIONS="$3" timeout -k 1 "$seconds" "$binary" "$2" --test-threads=1 2>&1 & echo "process $!"; wait || true; } |
        awk '/^process/ { process = $2 } /^thread .*::models::.* panicked at/ { print $2; system("kill " process); exit }' 2>/dev/null | tr -d "'"
}

judge() { # judge FILE MUTATION
    local group failed bound
    for bound in 1 "$most"; do
        for group in $(models_for "$1"); do
            failed=$(first_failure "$2" "$group" "$bound")
            if [ -n "$failed" ]; then
                echo "caught: $failed"
                return
            fi
        done
    done
    echo 'NOT CAUGHT'
}

echo 'looking which orderings the models come past' >&2
RINGMQ_ORDERINGS="$places" LOOM_MAX_PREEMPTIONS=1 "$binary" models >/dev/null 2>&1
chosen=$(sort -u "$places" | grep -F -- "$only" | grep -v '/models') || {
    echo "no model comes past an ordering in a path with '$only' in it" >&2
    exit 1
}
sort -k1,1 -k2,2n <<<"$chosen" | while read -r file line argument from; do
    case "$from" in
        AcqRel) weaker='Acquire Release' ;;
        Acquire | Release) weaker=Relaxed ;;
        *) continue ;;
    esac
    for to in $weaker; do
        printf '%-30s %4s.%s  %-7s -> %-8s %s\n' "$file" "$line" "$argument" "$from" "$to" "$(judge "$file" "$file:$line:$argument:$to")"
    done
done
