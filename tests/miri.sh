#!/bin/sh
# The in-memory code under Miri, with its leak check: undefined behaviour, data races, weak memory.
#
#   tests/miri.sh          the short form: one borrow model, 4 seeds
#   LONG=1 tests/miri.sh   on demand: both borrow models, 64 seeds, and a 32-bit target
#
# Needs: rustup component add miri rust-src --toolchain nightly
# MESSAGES sets how many messages each publisher of a stress test has (default 8).
set -eu
cd "$(dirname "$0")/.."

seeds=0..4
models=stacked
if [ "${LONG:-}" ]; then
    seeds=0..64
    models='stacked tree'
fi
export RINGMQ_STRESS_MESSAGES="${MESSAGES:-8}"

miri() {
    echo "== $1 borrows, seeds $seeds: cargo miri test $2"
    flags="-Zmiri-disable-isolation -Zmiri-many-seeds=$seeds"
    [ "$1" = tree ] && flags="$flags -Zmiri-tree-borrows"
    # shellcheck disable=SC2086
    MIRIFLAGS="$flags" cargo +nightly miri test --target-dir target/miri $2
}

for model in $models; do
    miri "$model" '--lib'
    miri "$model" '--test stress'
done
if [ "${LONG:-}" ]; then
    miri stacked '--target i686-unknown-linux-gnu --lib --test stress'
fi
