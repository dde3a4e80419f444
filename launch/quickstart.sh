#!/usr/bin/env bash
# From a fresh checkout to a language model that writes Rust: installs, builds, trains a tokenizer,
# packs text, trains, evaluates, samples. It measures the speed of a step first and trains for as
# many steps as end within six minutes of its start, or within ten where six are too few. A second
# start reuses the tokenizer and the shards and continues from the newest checkpoint.
#
#   launch/quickstart.sh [--steps N] [--ranks N] [--dir DIR]
#
#   --steps N   optimizer steps (total_steps of configs/quickstart.ini, or what fits the time)
#   --ranks N   processes that train together (2)
#   --dir DIR   keep tokenizer, shards and run in DIR (data/quickstart and runs/quickstart)
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

steps='' ranks=2 dir=''
options 'steps ranks dir' "$@"
[ -z "$steps" ] || whole --steps "$steps"
whole --ranks "$ranks"
if [ -n "$dir" ]; then
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
fi
from=$PWD
cd "$root"
data=${dir:-data/quickstart}
run=${dir:+$dir/run}
run=${run:-runs/quickstart}

summary='' stage='' stage_start=0 stages=0
begin() {
    end
    stage=$1 stage_start=$SECONDS stages=$((stages + 1))
    printf '\n== %d/7 %s\n' "$stages" "$2"
}
end() {
    [ -z "$stage" ] && return
    summary+=$(printf '  %-10s %4d s' "$stage" $((SECONDS - stage_start)))$'\n'
}

# choose_steps: as many as end within six minutes of the script's start, but 400 when ten minutes
# are enough for them, and never more than the configuration's. An interrupted run keeps its own
# number.
choose_steps() {
    local whole probe ms left
    whole=$(sed -n 's/^total_steps *= *//p' configs/quickstart.ini)
    if [ -e "$run/config.ini" ]; then
        steps=$(sed -n 's/^total_steps *= *//p' "$run/config.ini")
        return
    fi
    probe=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory that it is now
    trap "rm -rf '$probe'" EXIT
    trap 'exit 130' INT
    "${launch[@]}" "$program" --config configs/quickstart.ini --data-path "$data/shards" \
        --run-dir "$probe/run" --total-steps 9 --set logging.eval_interval=0 >"$probe/log" 2>&1 || {
        cat "$probe/log" >&2
        fail 'the first steps failed'
    }
    ms=$(sed -n 's/.*"step": *[3-9],.*"step_ms": *\([0-9]*\).*/\1/p' "$probe/run/metrics.jsonl" |
        sort -n | sed -n 4p)
    rm -r "$probe"
    trap - EXIT INT
    left=$SECONDS # evaluations and checkpoints on the way cost 5 %, what comes after training 20 s; 15 s are in reserve
    steps=$(awk -v ms="$ms" -v spent="$left" -v whole="$whole" '
        function fit(seconds) { n = int((seconds - 20 - spent) * 1000 / (ms * 1.05) / 50) * 50
                                return n < 100 ? 100 : n > whole ? whole : n }
        BEGIN { few = fit(345); many = fit(585); print (few >= 400 ? few : many > 400 ? 400 : many) }')
    echo "a step takes $ms ms: $steps of $whole steps fit the time"
}

begin install 'Debian packages that are missing'
launch/install_deps.sh --build --quickstart

begin build "the release build, in build/release"
build_program

begin tokenizer '4096 pieces of text, learned from 12 MB of the Rust sources'
rust_tokenizer "$data"

begin pack 'all of the Rust sources as shards of tokens; 1 % of the documents is held out'
rust_shards "$data"

begin train "configs/quickstart.ini on $ranks rank(s) and $(cores) core(s); after a Ctrl-C, start again to resume"
launcher "$ranks"
[ -n "$steps" ] || choose_steps
"${launch[@]}" "$program" --config configs/quickstart.ini \
    --data-path "$data/shards" --run-dir "$run" --resume auto --total-steps "$steps"

begin evaluate 'the held-out documents'
"$program" eval --checkpoint "$run" --data-path "$data/shards"
echo 'on the way there, bits per byte of a part of them:'
sed -n 's/.*"step": *\([0-9]*\).*"val_bpb": *\([0-9.]*\).*/  step \1  \2/p' "$run/metrics.jsonl"

begin sample 'what the model writes after "impl Iterator for "'
"$program" sample --checkpoint "$run" --prompt 'impl Iterator for ' --max-tokens 120 --seed 1
end

[ "$from" -ef "$root" ] && place='' || place="In $root:"$'\n'
printf -v typed %q "$run"
cat <<END

== Done in $SECONDS s
$summary
  $run/training.log        what you saw above
  $run/metrics.jsonl       every step as one JSON object
  $run/tensorboard         for: tensorboard --logdir $typed/tensorboard
  $run/checkpoints/latest  the model; info, eval, sample and grad read it

${place}Ask it for more:   $program sample --checkpoint $typed --prompt 'pub fn '
Train it longer:   launch/quickstart.sh${dir:+ --dir ${typed%/run}} --steps 2000
All commands:      $program --help
END
