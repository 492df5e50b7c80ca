#!/bin/sh
# Goal: show that the proofs of the log see each rule that the log rests on.
#
# Method: in a copy of the tree, one rule at a time is broken by a small edit, and the tests named beside it run. A rule
# that can be broken without a failing test is an error of this script: it says so and ends with 1.
#
# Usage: tests/log_mutations.sh [rule...]      CRASH_STATES=n for longer runs, CARGO_TARGET_DIR is kept apart
set -u

. "$(dirname "$0")/mutations.sh"
: "${CRASH_STATES:=20000}"
# Compiling counts for more than running here: most rules fall within seconds.
: "${CARGO_PROFILE_TEST_OPT_LEVEL:=0}"
: "${CARGO_PROFILE_TEST_DEBUG:=0}"
export CRASH_STATES CARGO_PROFILE_TEST_OPT_LEVEL CARGO_PROFILE_TEST_DEBUG
chosen=$*

# run_tests MODULE: those of one module of the program `log`, or a program of their own
run_tests() {
    case $1 in
        log_*) cargo test -q --features disk,testing --test "$1" ;;
        *) cargo test -q --features disk,testing --test log "$1::" ;;
    esac
}

# mutate <rule> <what it breaks> <file> <perl substitution> [module of tests...]
mutate() {
    rule=$1 what=$2 file=$3 edit=$4
    shift 4
    if [ -n "$chosen" ]; then
        case " $chosen " in *" $rule "*) ;; *) return ;; esac
    fi
    break_rule "$file" "$edit" "$rule" || return 0
    for test in "${@:-crash_states}"; do
        if (cd "$copy/tree" && run_tests "$test" >"$copy/out" 2>&1); then
            continue
        fi
        if grep -q '^error' "$copy/out" && ! grep -q 'test result' "$copy/out"; then
            echo "BROKEN   $rule: does not compile"
            grep -A8 '^error' "$copy/out" | head -20
            missed=$((missed + 1))
            return
        fi
        how=$(grep -m1 -oE 'CRASH_SEED=[0-9]+: .{1,90}' "$copy/out" || grep -m1 -A1 'panicked at' "$copy/out" | tail -1 | cut -c1-100)
        echo "caught   $rule ($what) by $test: $how"
        return
    done
    echo "MISSED   $rule: $what, and no test fails"
    missed=$((missed + 1))
}

. "$here/tests/log_mutations.rules"

finish
