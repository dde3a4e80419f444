# shellcheck shell=bash
# What scripts in bench/ share; to be sourced.

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../launch/shared.sh"

# on_two_hosts "$@": the script again, with its arguments, on the hosts of two_hosts.sh; there,
# $work is its directory.
on_two_hosts() {
    if ! declare -F mpirun_hosts >/dev/null; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        "$root/bench/two_hosts.sh" "$work" "$(realpath "$0")" "$@"
        exit
    fi
    allow_root
    work=$dir
}

# keys KEY=VALUE...: the array `set`, of a --set for each.
keys() {
    local pair
    set=()
    for pair in "$@"; do set+=(--set "$pair"); done
}

# need_shards: fails unless $data_path is a directory of packed shards.
need_shards() {
    [ -n "$data_path" ] || usage '--data-path is needed'
    [[ -d $data_path && -n $(find "$data_path" -name '*.h5' -print -quit) ]] ||
        usage "--data-path: no shards (*.h5) in '$data_path'"
}

# vocabulary DIR: vocab_size of the shards in it.
vocabulary() {
    "$binary" info "$(find "$1" -name '*.h5' | sort | head -n 1)" |
        sed -n 's/^vocab_size *//p' | head -n 1
}

# once RUN COMMAND...: runs it unless it has made $out/RUN, which an interrupted one has not.
once() {
    local run=$out/$1
    shift
    [ ! -e "$run/done" ] || return 0
    rm -rf "$run"
    "$@" >&2
    touch "$run/done"
}

# value RUN KEY: the last one in $out/RUN/metrics.jsonl.
value() {
    sed -n "s/.*\"$2\":\([0-9.e+-]*\).*/\1/p" "$out/$1/metrics.jsonl" | tail -n 1
}

# losses_head WHAT [COLUMN...], losses NAME RUN [BASE [KEY]]: head and rows of a table of the
# held-out losses of RUN_seedN at their ends, for every N of $seeds, and their mean; with BASE, by
# how much it is above the mean of BASE_seedN; with KEY, its value at the end of the last.
losses_head() {
    local seed column line="| $1 |" rule='|---|'
    shift
    for seed in $seeds; do line+=" seed $seed |" rule+='---|'; done
    for column in mean "$@"; do line+=" $column |" rule+='---|'; done
    printf '%s\n%s\n' "$line" "$rule"
}
losses() {
    local name=$1 run=$2 base=${3:-$2} key=${4:-val_loss} seed
    for seed in $seeds; do
        echo "$(value "${run}_seed$seed" val_loss) $(value "${base}_seed$seed" val_loss)" \
            "$(value "${run}_seed$seed" "$key")"
    done | awk -v name="$name" -v columns=$# '
        { row = row sprintf(" %.4f |", $1); mean += $1; of_base += $2; extra = $3 }
        END {
            printf "| %s |%s %.4f |", name, row, mean / NR
            if (columns > 2) printf " %+.2f %% |", 100 * (mean / of_base - 1)
            if (columns > 3) printf " %d |", extra
            print ""
        }'
}
