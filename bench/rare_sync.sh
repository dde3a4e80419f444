#!/usr/bin/env bash
# Held-out loss of workers that synchronize every so many steps against every-step synchronization,
# at equal tokens and over several seeds: a table on standard output. One process carries all
# workers, one after another, which gives the bits that as many ranks give.
#
#   bench/rare_sync.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...'] [--cases 'KxH KxH ...']
#                      [--config NAME] [--wire NAME] [--start STEP] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/rare_sync); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds          default: '1 2 3'
#   --cases          workers x steps of a round; default: 1x1, the run without workers, is always there, and
#                    1, 2, 4, 8 workers with rounds of 10, 30, 100 steps
#   --config NAME    of configs/e3/small (default: baseline)
#   --wire NAME      outer_comm_dtype (default: int4)
#   --start STEP     workers begin where the 1x1 run stands after this step (default: from the start)
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/rare_sync binary=build/release/nanochat_dist seeds='1 2 3' config=baseline wire=int4 start=0
cases='4x30 1x10 1x30 1x100 2x10 2x30 2x100 4x10 4x100 8x10 8x30 8x100'
options 'data-path out binary seeds cases config wire start' "$@"
need_shards
mkdir -p "$out"

for seed in $seeds; do
    for case in 1x1 $cases; do
        keys "model.vocab_size=$(vocabulary "$data_path")" training.micro_batch_size=2 hardware.threads=1 \
            logging.checkpoint_at_end=false logging.tensorboard=false "training.seed=$seed" \
            "dist.workers=${case%x*}" "dist.sync_every=${case#*x}" "dist.outer_comm_dtype=$wire"
        from=none
        if [ "$case" = 1x1 ]; then
            set+=(--set "logging.checkpoint_interval=$start" --set logging.checkpoint_keep=0)
        elif [ "$start" -gt 0 ]; then
            from=$(printf '%s/1x1_seed%s/checkpoints/step_%08d' "$out" "$seed" "$start")
        fi
        once "${case}_seed$seed" "$binary" --config "$root/configs/e3/small/$config.ini" \
            --data-path "$data_path" --run-dir "$out/${case}_seed$seed" --resume "$from" "${set[@]}" "${more[@]}"
    done
done

losses_head 'workers x steps of a round' 'above 1x1'
for case in 1x1 $cases; do losses "$case" "$case" 1x1; done
