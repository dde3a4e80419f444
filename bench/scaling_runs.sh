# What the two halves of bench/scaling.sh share; to be sourced with program, data, work, config_dir,
# configs, steps and micro_batch set. Every run is a line of $work/runs.jsonl.

say() { printf '[%d s] %s\n' "$SECONDS" "$*"; }

# Configurations to run: NAME CONFIG MORE ARGUMENTS. Beside each of those asked for, the same with
# what it sends made smaller, where this build has the keys.
variants() {
    local name
    for name in $configs; do
        echo "$name $name"
        ! has_key grad_comm_dtype || echo "${name}_bf16 $name --set dist.deterministic=off" \
            "--set dist.grad_comm_dtype=bf16"
        ! has_key weight_sync || echo "${name}_int8 $name --set dist.deterministic=off" \
            "--set dist.grad_comm_dtype=int8 --set dist.weight_sync=delta" \
            "--set dist.embedding_sync=int8_delta"
    done
}
has_key() { "$program" train --list-keys | grep -w "$1" >/dev/null; }

# settings CONFIG BATCH: sets `arguments` to what a run of this size is given. One thread a rank;
# nothing but steps is in it, and every step filters as many tokens and predicts as many ahead.
settings() {
    arguments=(--config "$config_dir/$1.ini" --set "training.batch_size=$2")
    local set
    for set in "training.micro_batch_size=$micro_batch" training.warmup_steps=1 hardware.target=cpu \
        training.collider_until=1 training.mtp_until=1 training.mtp_schedule=constant hardware.threads=1 \
        "data.data_path=$data" logging.eval_interval=0 \
        logging.checkpoint_interval=0 logging.checkpoint_at_end=false logging.tensorboard=false \
        dist.replica_check_interval=0; do
        arguments+=(--set "$set")
    done
}

# train RUN CONFIG BATCH STEPS MORE...: trains in $work/RUN, started by `launch`.
train() {
    local run=$1 config=$2 batch=$3 count=$4
    shift 4
    settings "$config" "$batch"
    "${launch[@]}" "$program" "${arguments[@]}" --set training.total_steps="$count" \
        --run-dir "$work/$run" --resume none "$@" </dev/null >"$work/$run.log" 2>&1 || {
        tail -n 20 "$work/$run.log" >&2
        echo "scaling: $run ended with an error; $work/$run.log" >&2
        return 1
    }
}

# record KEY=VALUE...: a line of runs.jsonl; values are JSON.
record() {
    local pair line=''
    for pair in "$@"; do
        line+="${line:+, }\"${pair%%=*}\": ${pair#*=}"
    done
    echo "{$line}" >>"$work/runs.jsonl"
}
