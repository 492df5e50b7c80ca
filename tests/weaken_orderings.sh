#!/bin/sh
# Weakens every atomic ordering in src/ring, src/wait and src/topic by one step, one at a time and in a copy of the tree, and
# expects that some model fails. Prints a table: caught, by which model; or not caught.
#
#   tests/weaken_orderings.sh [part of a path]        e.g. tests/weaken_orderings.sh ring/queue
#
# AcqRel is weakened to Acquire and to Release, Acquire and Release to Relaxed. What no model catches is tried under Miri on the stress
# tests if MIRI=1. The orderings that no tool shows to be needed are argued for in the tables of src/ring/mod.rs and src/wait/mod.rs.
# LOOM_MAX_PREEMPTIONS (default 2) and SECONDS_EACH (default 60, for all models of one mutation) bound the work.
set -eu
cd "$(dirname "$0")/.."
only="${1:-}"
copy=target/weakened
seconds="${SECONDS_EACH:-60}"

mkdir -p "$copy"
cp -r Cargo.toml Cargo.lock src tests "$copy/"
[ -d examples ] && cp -r examples "$copy/"
[ -d benches ] && cp -r benches "$copy/"
[ -f README.md ] && cp README.md "$copy/"
export RUST_BACKTRACE=0

# Where the models of a file's accesses are, those that fail fastest first.
models_for() {
    case "$1" in
        src/ring/queue.rs) echo 'ring::models::queue topic::models' ;;
        src/ring/slots.rs) echo 'ring::models::queue ring::models::window' ;;
        src/ring/credit.rs) echo 'ring::models::credit' ;;
        src/ring/window/cursor.rs) echo 'ring::models::overtaking ring::models::window' ;;
        src/ring/window/scan.rs) echo 'ring::models::scan ring::models::window ring::models::overtaking' ;;
        src/ring/window/*) echo 'ring::models::window ring::models::overtaking ring::models::scan topic::models' ;;
        src/wait/*) echo 'wait::models topic::models' ;;
        *) echo 'topic::models' ;;
    esac
}

# One mutation per line: file, line, column of the ordering, from, to.
mutations() {
    grep -rnobE '\b(AcqRel|Acquire|Release)\b' src/ring src/wait src/topic --include='*.rs' |
        grep -v '/models' |
        while IFS=: read -r file line _ from; do
            text=$(sed -n "${line}p" "$file")
            case "$text" in
                *'//'*"$from"*) continue ;;
            esac
            case "$from" in
                AcqRel) echo "$file $line AcqRel Acquire"; echo "$file $line AcqRel Release" ;;
                *) echo "$file $line $from Relaxed" ;;
            esac
        done | sort -u
}

run_models() {
    ( cd "$copy" && RUSTFLAGS='--cfg ringmq_loom' cargo test --release --lib --target-dir ../loom --no-run >build.log 2>&1 ) || { echo 'does not build'; return; }
    binary=$(ls -t target/loom/release/deps/ringmq-* | grep -v '\.d$' | head -1)
    for models in $(models_for "$1"); do
        if ! timeout "$seconds" "$binary" "$models" --test-threads=2 >"$copy/models.log" 2>&1; then
            # A model that hangs or overflows its branches has noticed too, unless it was only slow.
            if grep -qE 'panicked at|SIGABRT' "$copy/models.log"; then
                echo "caught: $(grep -m1 -oE "thread '[^']*models[^']*'" "$copy/models.log" | sed "s/thread //")"
                return
            fi
        fi
    done
    if [ "${MIRI:-}" ] && ! ( cd "$copy" && MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-many-seeds=0..4' \
        cargo +nightly miri test --target-dir ../miri --test stress >miri.log 2>&1 ); then
        echo 'caught: Miri'
        return
    fi
    echo 'NOT CAUGHT'
}

mutations | grep -F -- "$only" | while read -r file line from to; do
    cp "$file" "$copy/$file"
    # The first occurrence in the line only; a compare_exchange has its orderings in order, so the failure ordering comes second.
    sed -i "${line}s/\b$from\b/$to/" "$copy/$file"
    printf '%-30s %4s  %-7s -> %-8s %s\n' "$file" "$line" "$from" "$to" "$(run_models "$file")"
    cp "$file" "$copy/$file"
done
