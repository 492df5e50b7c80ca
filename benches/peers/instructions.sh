#!/usr/bin/env bash
# Instructions per publish and receive of one u64, uncontended, in one thread, counted by callgrind:
# (count of 60,000 messages - count of 10,000) / 50,000, minus the same of the empty loop.
# Exact and repeatable; ours against its bars, a few peers for scale. Exits 1 if a bar is missed.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet --bin instructions
binary=${CARGO_TARGET_DIR:-target}/release/instructions

count() { # NAME MESSAGES
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

per_message() { # NAME
    echo $((($(count "$1" 60000) - $(count "$1" 10000)) / 50000))
}

loop=$(per_message nothing)
missed=0
printf '%-22s %12s %5s\n' queue instructions bar
row() { # NAME [BAR]
    "$binary" "$1" 1 || { printf '%-22s %12s\n' "$1" absent; return; }
    local instructions=$(($(per_message "$1") - loop)) verdict=
    if [ $# -eq 2 ]; then
        verdict=met
        [ "$instructions" -le "$2" ] || { verdict=MISSED; missed=1; }
    fi
    printf '%-22s %12d %5s %s\n' "$1" "$instructions" "${2:-}" "$verdict"
}

row queue 90
row topic 130
row "queue, ack" 200
row "topic, ack" 200
for peer in disruptor rtrb kanal ArrayQueue "crossfire spsc" "crossfire mpmc" "omango spsc" "crossbeam-channel" \
    "tokio mpsc" "tokio broadcast"; do
    row "$peer"
done
exit $missed
