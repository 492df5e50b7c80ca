#!/usr/bin/env bash
# Breaks the rules by which counters go from one thread to another (src/ring/counter.rs), and values out of a window (src/ring/window/), one at a time,
# in a copy of the tree, and expects that some model fails. A rule that can be broken without that is an error of this script: it says so and ends
# with 1. About a minute for each rule, most of it building.
#
#   tests/ring_mutations.sh           all of them
#   tests/ring_mutations.sh window    only those of files whose names hold this word
set -euo pipefail
. "$(dirname "$0")/mutations.sh"
export RUSTFLAGS='--cfg ringmq_loom -Awarnings'

only=${1:-}

mutate() { # mutate WHAT PERL-SUBSTITUTION, in $file
    local binary failed bound status said=$copy/said
    [[ $file == *"$only"* ]] || return 0
    break_rule "$file" "$2" "$1" || return 0
    binary=$(cd "$copy/tree" && cargo test --locked --profile models --lib --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    for bound in 1 2; do
        status=0
        LOOM_MAX_PREEMPTIONS=$bound timeout 120 "$binary" ring::models >"$said" 2>&1 || status=$?
        failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^thread .\(.*::models::[^ ]*\). .*panicked at.*/\1/p' "$said" | head -n 1)
        # A value that is dropped twice may end the process before any model says so.
        if [ -z "$failed" ] && [ "$status" -gt 128 ]; then
            failed="the end of the process by signal $((status - 128))"
        fi
        if [ -n "$failed" ]; then
            echo "caught   $1 by $failed"
            return
        fi
    done
    echo "MISSED   $1: no model fails"
    missed=$((missed + 1))
}

file=src/ring/counter.rs
mutate 'the holder passes no fence' 's/        fence::light\(\);\n//'
mutate 'whoever revokes passes no fence' 's/        fence::heavy\(\);\n//'
mutate 'the holder does not look twice' 's/\(self\.hot\.held\.load\(Relaxed\) == address\(this\)\)\.then_some\(inside\)/Some(inside)/'
mutate 'nobody waits for the holder' 's/while holder\.inside\.load/while false && holder.inside.load/'
mutate 'the holder leaves without Release' 's/self\.0\.inside\.store\(0, Release\)/self.0.inside.store(0, Relaxed)/'
mutate 'its leaving is seen without Acquire' 's/holder\.inside\.load\(Acquire\)/holder.inside.load(Relaxed)/'
mutate 'a sleeper does not meet the holder' 's/self\.wait_outside\(holder\.as_ref\(\)\?\);/holder.as_ref()?;/'
mutate 'rivals do not revoke' 's/            if word & BIASED != 0 \{\n                word = self\.revoke\(\);\n            \}\n//'
mutate 'a sleeper changes nothing' 's/\} else if self\.hot\.word\.compare_exchange\(word, word, AcqRel, Relaxed\)\.is_ok\(\) \{/} else {/'

file=src/ring/window/scan.rs
mutate 'a cursor joins beside one that moves values out' 's/        registry\.stop_moving\(\);\n(        registry\.joined)/$1/'
mutate 'a cursor that moves values out is moved back as it is' 's/        registry\.stop_moving\(\);\n(        let to =)/$1/'
mutate 'moving does not end with its cursor' 's/        registry\.stop_moving\(\);\n(        registry\.cursors\.retain)/$1/'
mutate 'nobody remembers who may read beside a cursor that left' 's/(Some\(LEFT\)\)\.unwrap_or\(LEFT\);\n.*?)        registry\.read_by_others = [^\n]*\n/$1/s'
mutate 'nobody remembers who may read beside a cursor that was moved back' 's/(forgotten = forget\([^\n]*\);\n)        registry\.read_by_others = [^\n]*\n/$1/'
mutate 'a cursor starts at what was moved out' 's/freed\.max\(moved\.end\)/freed/'
mutate 'the scan takes out what was moved out' 's/if registry\.has_moved\(f\)/if false/'
mutate 'what is given back counts as moved out' 's/if given && registry\.moved\.end == claimed\.end/if false/'
mutate 'what was to be moved out is never given back' 's/word & !MOVES == claimed\.end << 1/word == claimed.end << 1/'
mutate 'moving begins beside those who read' 's/to >= registry\.read_by_others && //'
mutate 'moving begins anywhere' 's/\(word == to << 1\)\.then_some\(word \| MOVES\)/Some(word | MOVES)/'
mutate 'what was moved out counts as read by nobody' 's/ - registry\.moved_within\(freed\.\.to\)//'

file=src/ring/window/cursor.rs
mutate 'what was told of a loss is not noted' 's/        self\.told\.store\(next, Relaxed\);\n//'
mutate 'the ring is open again while a loss is not told' 's/self\.overtaken_by\(word\)\.is_none\(\)\.then_some\(word & !BEHIND\)/Some(word & !BEHIND)/'

file=src/ring/window/mod.rs
mutate 'a window drops what was moved out' 's/if registry\.has_moved\(p\)/if false/'
mutate 'what cannot be given back is left behind' 's/        if self\.moves \{\n(            \/\/ SAFETY: I7: nobody)/        if false {\n$1/'
finish
