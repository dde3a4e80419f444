#!/usr/bin/env bash
# The five configurations of the E3 suite, and muon_8bit.ini's sibling in 4 bits, on the same text,
# one after another, and a report of them: each claim beside what was measured, tables, loss curves
# and memory as pictures. By default the small ones (configs/e3/small), 25 minutes at most on two
# cores; --seeds 3 takes three times as long. What is claimed of 3 and 7 billion parameters, and the
# memory at the suite's own size (196M), are planned: `nanochat_dist plan` agrees with runs to the
# byte.
#
#   launch/benchmark_e3.sh [--full | --suite | --memory] [--own-size] [--large] [--out DIR]
#                          [--seeds N] [--ranks N] [--steps N] [--set KEY=VALUE]... [--data-path DIR]
#
#   --full           configs/e3, the real sizes: for a GPU
#   --suite          configs/e3/small/suite: the small sizes with the suite's own rates and momentum
#   --memory         train nothing: the claims of memory alone, in seconds
#   --own-size       also three steps of each configuration of configs/e3, for memory and time, and what
#                    Collider saves of a backward pass there: 7 GiB and twenty minutes
#   --large          also a real step of 3B and of 7B (bench/big_models.sh): 24 GiB, several minutes
#                    each
#   --out DIR        leave everything in DIR (benchmark_results_<time>); runs that finished there
#                    with the same command are not repeated, so an interrupted benchmark continues
#   --seeds N        every configuration with N seeds, 1234 and on (1)
#   --ranks N        processes that train together (1); with the small configurations, whose steps
#                    have two micro-batches, at most 2
#   --steps N        optimizer steps instead of the configurations' own, to try it out
#   --set KEY=VALUE  in every configuration, e.g. the suite's own training.muon_momentum=0.95
#   --data-path DIR  packed shards to train on instead of the Rust sources
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

configs=configs/e3/small full='' suite='' own_size='' large='' memory='' set=() sets=()
out='' seeds=1 ranks=1 steps='' data_path=''
options 'full! suite! own-size! large! memory! set+ out data-path seeds ranks steps' "$@"
names=(baseline mtp_only muon_8bit muon_4bit galore2 full)
[ -z "$suite" ] || { configs=configs/e3/small/suite names=(baseline mtp_only muon_8bit galore2 full); }
[ -z "$full" ] || configs=configs/e3
for pair in "${set[@]}"; do sets+=(--set "$pair"); done
whole --seeds "$seeds"
whole --ranks "$ranks"
[ -z "$steps" ] || whole --steps "$steps"
# The report tells the commands as they are typed in the checkout.
from_root() { (cd "$1" && pwd | sed "s|^$root/||"); }
if [ -n "$data_path" ]; then
    [ -d "$data_path" ] || usage "--data-path: no directory '$data_path'"
    data_path=$(from_root "$data_path")
fi
out=${out:-$root/benchmark_results_$(date +%Y%m%d_%H%M%S)}
mkdir -p "$out"
out=$(from_root "$out")
cd "$root"

say() { printf '\n== [%d s] %s\n' "$SECONDS" "$*"; }

say 'Debian packages that are missing'
launch/install_deps.sh --build --quickstart --report
say 'the release build, in build/release'
build_program
if [ -z "$data_path$memory" ]; then
    pieces=$(sed -n 's/^vocab_size *= *\([0-9]*\).*/\1/p' "$configs/baseline.ini")
    data=data/rust_$pieces
    [ "$pieces" = 4096 ] && data=data/quickstart # the same text, packed alike
    say "the Rust sources as shards of $pieces different tokens, in $data"
    rust_tokenizer "$data" "$pieces"
    if [ -n "$full" ]; then
        rust_shards "$data"
        data_path=$data/shards
    else
        mkdir -p data/e3
        cp "$data/tokenizer.model" data/e3/
        split_shards data/e3 '*.rs' "$(rust_sources)"
        data_path=data/e3/report # held-out documents that no recipe was chosen by
    fi
    [ -z "$full" ] || echo 'Twenty-two million tokens are seen many times over at this size; --data-path names more.'
fi

# Leaves RUN/ of the program, and beside it RUN/command.txt (what was run, how it ended) and
# RUN/output.txt (what the terminal showed, with the errors that training.log does not hold).
runs=()
train() { # directory, arguments
    local run=$1 code=0 started=$SECONDS command=()
    shift
    launcher "$ranks"
    [ "$ranks" -eq 1 ] || command=("${launch[@]}")
    command+=("$program" --run-dir "$run" --checkpoint-interval 0 "$@")
    mkdir -p "$run"
    runs+=("$run")
    echo "${command[*]}"
    if { read -r before && read -r ended; } 2>/dev/null <"$run/command.txt" && [ "$before" = "${command[*]}" ] &&
        [[ $ended == '# ended with 0 '* ]]; then
        echo 'finished before; not repeated'
        return
    fi
    "${command[@]}" 2>&1 </dev/null | tee -i "$run/output.txt" || code=${PIPESTATUS[0]}
    {
        echo "${command[*]}"
        echo "# ended with $code after $((SECONDS - started)) s"
        [ "$code" -eq 0 ] || sed -n 's/^.*error: /# error: /p' "$run/output.txt"
    } >"$run/command.txt"
    [ "$code" -eq 0 ] || echo "benchmark_e3: $run ended with $code; continuing with the others" >&2
    # 75: stopped on a signal, which was meant for all of it.
    [ "$code" -ne 75 ] && [ "$code" -ne 130 ]
}

failed=''
[ -z "$memory" ] || seeds=0
for ((seed = 1234; seed < 1234 + seeds; seed++)); do
    for name in "${names[@]}"; do
        run=$out/$name
        [ "$seed" -eq 1234 ] || run+=_seed_$seed
        say "$name, seed $seed"
        train "$run" --config "$configs/$name.ini" --data-path "$data_path" --set training.seed="$seed" \
            ${steps:+--total-steps "$steps"} "${sets[@]}" || break 2
    done
done
if [ -n "$own_size" ]; then
    for name in "${names[@]}"; do
        say "$name, three steps at the suite's own size"
        train "$out/${name}_196m" --config "configs/e3/$name.ini" --dataset synthetic --n-samples 64 \
            --total-steps 3 --set training.micro_batch_size=1 --set training.warmup_steps=0 \
            --set logging.eval_interval=0 --set logging.log_interval=1 \
            --set logging.checkpoint_at_end=false "${sets[@]}" || break
    done
fi
for run in "${runs[@]}"; do
    grep -q '^# ended with 0 ' "$run/command.txt" || failed+=" $(basename "$run")"
done

# collider ARGUMENTS: leaves what bench_collider prints with them where the report finds it.
collider() {
    say 'the backward pass with Collider'
    cmake --build --preset release --parallel "$(cores)" --target bench_collider
    build/release/bench/bench_collider --set data.dataset=synthetic --set data.n_samples=64 "$@" |
        tee "$out/muon_8bit/collider.txt"
}

# plan NAME CONFIGURATION [SECTION.KEY=VALUE...]: leaves the configuration, these keys changed, and
# what `plan` says of it, in a directory that the report reads beside the runs.
plan() {
    local directory=$out/$1 file=$2 pair key command
    shift 2
    command=("$program" plan --config "$file" --ranks 1)
    mkdir -p "$directory"
    cp "$file" "$directory/config.ini"
    for pair in "$@"; do
        command+=(--set "$pair")
        key=${pair%%=*} key=${key#*.}
        grep -q "^$key = " "$directory/config.ini" || sed -i "/^\[${pair%%.*}\]/a $key =" "$directory/config.ini"
        sed -i "s/^$key =.*/$key = ${pair#*=}/" "$directory/config.ini"
    done
    "${command[@]}" >"$directory/plan.txt"
    echo "${command[*]}" >"$directory/command.txt"
    runs+=("$directory")
}
if [ -d "$out/muon_8bit" ] && [ -n "$own_size" ]; then
    collider --config configs/e3/baseline.ini --rounds 3 --set training.optimizer_type=adamw \
        --set training.batch_size=1 --set training.micro_batch_size=1
elif [ -d "$out/muon_8bit" ]; then
    collider --config "$configs/baseline.ini" --rounds 7
fi
say 'memory of the real sizes, planned'
for name in "${names[@]}"; do [ -n "$own_size" ] || plan "${name}_196m" "configs/e3/$name.ini"; done
off=(training.use_mtp=false training.use_collider=false training.use_async_loader=false)
plain=(training.use_galore=false hardware.gradient_checkpointing=false)
plan baseline_3b configs/models/medium_3b.ini "${off[@]}" training.use_8bit_optim=false "${plain[@]}"
plan muon_8bit_3b configs/models/medium_3b.ini "${plain[@]}"
plan galore2_3b configs/models/medium_3b.ini training.use_8bit_optim=false hardware.gradient_checkpointing=false
plan full_3b configs/models/medium_3b.ini
plan full_7b configs/models/7b.ini
plan muon_4bit_3b configs/models/medium_3b.ini training.use_8bit_optim=false "${plain[@]}" optimizer.state_bits=4
[ -z "$large" ] || bench/big_models.sh | tee "$out/large.md"

say 'the report'
"$program" report "${runs[@]}" --claims configs/e3/claims.ini --out "$out"
printf '\n== %d s for %d runs\n' "$SECONDS" ${#runs[@]}
[ -z "$failed" ] || fail "did not finish:$failed (each one's output.txt says why)"
