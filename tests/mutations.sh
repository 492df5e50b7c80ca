# Breaking one rule of the code at a time, in a copy of the tree. Sourced by the scripts that do so, from beside it.
#
# A rule that can be broken without a failing test counts as missed; so does an edit that does not fit the code any more.
here=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
CARGO_TARGET_DIR=${MUTATIONS_TARGET_DIR:-$here/target/mutations}
export CARGO_TARGET_DIR
missed=0

# break_rule FILE PERL-SUBSTITUTION WHAT: leaves a fresh tree with that edit in $copy/tree
break_rule() {
    rm -rf "$copy/tree"
    mkdir "$copy/tree"
    # Without what was built, and as new files, so that what was built of the last tree is built again.
    (cd "$here" && tar --exclude=target -cf - Cargo.toml Cargo.lock README.md src tests benches examples) | tar -C "$copy/tree" -xmf -
    perl -0pi -e "$2" "$copy/tree/$1"
    if cmp -s "$here/$1" "$copy/tree/$1"; then
        echo "STALE    $3: the edit changes nothing in $1"
        missed=$((missed + 1))
        return 1
    fi
}

# finish: the result of the script
finish() {
    [ "$missed" -eq 0 ] || { echo "$missed rules are not guarded"; exit 1; }
}
