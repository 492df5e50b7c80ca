#!/usr/bin/env bash
# Breaks the rules of src/ring/counter.rs one at a time, in a copy of the tree, and expects that some model fails. A rule that can be broken without
# that is an error of this script: it says so and ends with 1. About a minute for each rule, most of it building.
#
#   tests/counter_mutations.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR="${MUTATIONS_TARGET_DIR:-$here/target/mutations}" RUSTFLAGS='--cfg ringmq_loom -Awarnings'
missed=0

for part in Cargo.toml Cargo.lock README.md src tests benches examples; do
    cp -R "$here/$part" "$copy/"
done
cd "$copy"

mutate() { # mutate WHAT PERL-SUBSTITUTION
    local binary failed bound
    cp "$here/src/ring/counter.rs" src/ring/counter.rs
    perl -0pi -e "$2" src/ring/counter.rs
    if cmp -s "$here/src/ring/counter.rs" src/ring/counter.rs; then
        echo "$1: the edit does not fit the code any more"
        missed=1
        return
    fi
    binary=$(cargo test --locked --release --lib --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    for bound in 1 2; do
        failed=$({ LOOM_MAX_PREEMPTIONS=$bound timeout 120 "$binary" ring::models 2>&1 || true; } |
            sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^thread .\(.*::models::[^ ]*\). .*panicked at.*/\1/p' | head -n 1)
        if [ -n "$failed" ]; then
            echo "$1: caught by $failed"
            return
        fi
    done
    echo "$1: NOT CAUGHT"
    missed=1
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
exit $missed
