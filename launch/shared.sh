# shellcheck shell=bash
# What scripts share; to be sourced. Those that build or train do so from the root of the checkout.

unset CDPATH           # with it, cd goes elsewhere and prints
unset POSIXLY_CORRECT  # with it, grep and others take no options after files
export LC_ALL=C        # where numbers have a comma, awk reads 1.5 as 1, and sort takes 1.25 for more than 10.2

# The checkout, and the script that was started, maybe through a link: neither depends on where from.
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
this_script=$(readlink -f "$0")

fail() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

usage() { # wrong usage: what is wrong
    printf '%s: %s (see --help)\n' "$(basename "$0" .sh)" "$*" >&2
    exit 2
}

# The head of the script, without its first line.
print_help() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$this_script"; }

# options 'NAME FLAG! LIST+ ... [WORD...]' "$@": an option --a-name VALUE sets the variable a_name,
# --flag sets flag to yes, and --list VALUE, which may be repeated, adds to the array list; what
# follows -- goes to the array `more`. Other words go to the array `operands` where the names end in
# dots, and are errors elsewhere. --help prints the head of the script.
options() {
    local names=" $1 " name variable
    more=() operands=()
    shift
    while [ $# -gt 0 ]; do
        name=${1#--} variable=${1#--}
        variable=${variable//-/_}
        case $1 in
        --help | -h)
            print_help
            exit 0
            ;;
        --)
            shift
            more=("$@")
            return
            ;;
        -?*)
            if [[ $1 = --* && $names = *" $name! "* ]]; then
                printf -v "$variable" yes
                shift
                continue
            fi
            [[ $1 = --* && ($names = *" $name "* || $names = *" $name+ "*) ]] || usage "unknown option '$1'"
            [ $# -gt 1 ] || usage "$1 needs a value"
            if [[ $names = *" $name+ "* ]]; then
                local -n array=$variable
                array+=("$2")
                unset -n array
            else
                printf -v "$variable" %s "$2"
            fi
            shift 2
            ;;
        *)
            [[ $names = *'... ' ]] || usage "unknown argument '$1'"
            operands+=("$1")
            shift
            ;;
        esac
    done
}

# whole OPTION VALUE [LEAST]: wrong usage unless the value is a whole number from 1, or LEAST.
whole() {
    [[ $2 =~ ^(0|[1-9][0-9]*)$ && $2 -ge ${3:-1} ]] ||
        usage "$1 is '$2'; expected a whole number from ${3:-1}"
}

program=build/release/nanochat_dist

# How many cores this process may use. nproc obeys the two variables, which say how many threads it
# may have.
cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }

# CUDA's kernels take minutes to compile and are left out where no GPU is.
build_program() {
    [ -e build/release/build.ninja ] ||
        cmake --preset release -DBUILD_TESTING=OFF $([ -e /dev/nvidia0 ] || echo -DND_CUDA=OFF)
    cmake --build --preset release --parallel "$(cores)" --target nanochat_dist
}

# rust_tokenizer DIR [PIECES]: DIR/tokenizer.model, learned from the Rust sources of the package
# rust-src.
rust_tokenizer() {
    local corpus
    corpus=$(rust_sources) || exit 1
    mkdir -p "$1"
    if [ -e "$1/tokenizer.model" ]; then
        echo "reusing $1/tokenizer.model"
    else
        "$program" tokenizer train --input "$corpus" --glob '*.rs' --vocab-size "${2:-4096}" \
            --max-bytes 12M --threads "$(cores)" --output "$1/tokenizer.model"
    fi
}

# rust_shards DIR: DIR/shards, all of them packed with that tokenizer; 1 % of the documents is held
# out.
rust_shards() {
    local corpus
    corpus=$(rust_sources) || exit 1
    if [ -e "$1/shards/index.json" ]; then
        echo "reusing $1/shards"
    elif [ -e "$1/shards/train_00000.h5" ]; then # of an older version
        "$program" pack --index "$1/shards"
    else
        "$program" pack --tokenizer "$1/tokenizer.model" --out "$1/shards" --glob '*.rs' "$corpus"
    fi
}

# split_shards DIR GLOB INPUT: DIR/choose and DIR/report, the same training shards with other
# held-out documents (2 %, by their content, in order): by the first, recipes are chosen; on the
# second, they are judged.
split_shards() {
    local set
    [ ! -e "$1/report/index.json" ] || { echo "reusing $1/choose and $1/report"; return; }
    "$program" pack --tokenizer "$1/tokenizer.model" --out "$1/all" --glob "$2" \
        --val-fraction 0.02 --shard-tokens 220000 --overwrite "$3"
    for set in choose report; do
        mkdir -p "$1/$set"
        ln -f "$1/all"/train_*.h5 "$1/all/tokenizer.model" "$1/$set/"
    done
    ln -f "$1/all/val_00000.h5" "$1/choose/"
    ln -f "$1/all/val_00001.h5" "$1/report/val_00000.h5"
    for set in choose report; do "$program" pack --index "$1/$set"; done
}

rust_sources() {
    local corpus
    corpus=$(find /usr/src -maxdepth 1 -name 'rustc-*' | sort | tail -n 1)
    [ -n "$corpus" ] || fail 'no /usr/src/rustc-*: the package rust-src did not leave its sources there'
    echo "$corpus"
}

# Containers often run as root, which Open MPI wants said.
allow_root() {
    [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
}

# launcher RANKS: sets `launch` to what starts the program on so many ranks of this machine.
# --oversubscribe lets ranks share a core, and --bind-to none lets every rank use its share of many.
launcher() {
    allow_root
    launch=(mpirun --oversubscribe --bind-to none -np "$1")
}
