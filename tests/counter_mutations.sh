#!/usr/bin/env bash
# Breaks the rules of src/ring/counter.rs one at a time, in a copy of the tree, and expects that some model fails. A rule that can be broken without
# that is an error of this script: it says so and ends with 1. About a minute for each rule, most of it building.
#
#   tests/counter_mutations.sh
set -euo pipefail
. "$(dirname "$0")/mutations.sh"
export RUSTFLAGS='--cfg ringmq_loom -Awarnings'

mutate() { # mutate WHAT PERL-SUBSTITUTION
    local binary failed bound
    break_rule src/ring/counter.rs "$2" "$1" || return 0
    binary=$(cd "$copy/tree" && cargo test --locked --release --lib --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    for bound in 1 2; do
        failed=$({ LOOM_MAX_PREEMPTIONS=$bound timeout 120 "$binary" ring::models 2>&1 || true; } |
            sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^thread .\(.*::models::[^ ]*\). .*panicked at.*/\1/p' | head -n 1)
        if [ -n "$failed" ]; then
            echo "caught   $1 by $failed"
            return
        fi
    done
    echo "MISSED   $1: no model fails"
    missed=$((missed + 1))
}

mutate 'the holder passes no fence' 's/        fence::light\(\);\n//'
mutate 'whoever revokes passes no fence' 's/        fence::heavy\(\);\n//'
mutate 'the holder does not look twice' 's/\(self\.hot\.held\.load\(Relaxed\) == address\(this\)\)\.then_some\(inside\)/Some(inside)/'
mutate 'nobody waits for the holder' 's/while holder\.inside\.load/while false && holder.inside.load/'
mutate 'the holder leaves without Release' 's/self\.0\.inside\.store\(0, Release\)/self.0.inside.store(0, Relaxed)/'
mutate 'its leaving is seen without Acquire' 's/holder\.inside\.load\(Acquire\)/holder.inside.load(Relaxed)/'
mutate 'a sleeper does not meet the holder' 's/self\.wait_outside\(holder\.as_ref\(\)\?\);/holder.as_ref()?;/'
mutate 'rivals do not revoke' 's/            if word & BIASED != 0 \{\n                word = self\.revoke\(\);\n            \}\n//'
mutate 'a sleeper changes nothing' 's/\} else if self\.hot\.word\.compare_exchange\(word, word, AcqRel, Relaxed\)\.is_ok\(\) \{/} else {/'
finish
