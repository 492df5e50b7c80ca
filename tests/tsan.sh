#!/bin/sh
# The stress tests under ThreadSanitizer, without suppressions.
#
#   tests/tsan.sh [messages per publisher, default 2000]
#
# Needs: rustup component add rust-src --toolchain nightly
set -eu
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS=-Zsanitizer=thread
export RUSTDOCFLAGS=-Zsanitizer=thread
export TSAN_OPTIONS=halt_on_error=1
export RINGMQ_STRESS_MESSAGES="${1:-2000}"
cargo +nightly test -Zbuild-std --target "$target" --target-dir target/tsan --test stress
