#!/usr/bin/env bash
# Checks the CUDA backend where there is a GPU, and measures it: in two calls of four and seven
# minutes, with programs that launch/gpu_pack.sh built elsewhere. Needs no network, and writes
# nothing outside --out, --build and a temporary folder. What hangs is killed at its limit; that
# for which no time is left is not run.
#
#   launch/gpu_check.sh --call 1|2 [--pack DIR] [--out DIR] [--seconds N]
#   launch/gpu_check.sh [--sections LIST] [--pack DIR | --deps DIR] [--build DIR] [--arch N] ...
#
#   --call 1         are the results right: smoke, conformance, gradients, losses, nccl, attention,
#                    graphs
#   --call 2         how fast is it: speed, seven, e3, ops, speed_bf16, attention_speed, seven_bf16
#   --sections LIST  these instead; also build, sanitizer, overlap (two GPUs)
#   --pack DIR       what launch/gpu_pack.sh filled (the folder of this script, where it lies in
#                    one)
#   --deps DIR       without a pack the programs are built here, with the packages that
#                    launch/gpu_deps.sh collected, or the system's
#   --build DIR      where they are built (build/gpu)
#   --arch N         CUDA architecture to build for (what nvidia-smi says the GPU is)
#   --out DIR        report.md; raw.txt, all output as it comes; runs.tar.gz, metrics and logs of
#                    all runs, after every section. With --call 1: report1.md and so on. ($OUT, or
#                    build/gpu_check)
#   --seconds N      the time of everything together (call 1: 235, call 2: 410, else 570)
#
# Exits 0 when every section passed, 1 when one failed, 3 when none failed and some were not run.
set -uo pipefail

right='smoke conformance gradients losses nccl attention graphs'
fast='speed seven e3 ops speed_bf16 attention_speed seven_bf16'
all="build $right $fast overlap sanitizer"
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")") || exit 1
call='' pack='' deps='' build='' out=${OUT:-} arch='' seconds='' sections=''
[ ! -e "$here/programs.tar.xz" ] || pack=$here
. "$here/shared.sh"
options 'call pack deps sections build out arch seconds' "$@"
sections=${sections//,/ }
case $call in
1) : "${sections:=$right}" "${seconds:=235}" ;;
2) : "${sections:=$fast}" "${seconds:=410}" ;;
'') : "${sections:=$all}" "${seconds:=570}" ;;
*) usage "--call is 1 or 2, not '$call'" ;;
esac
for section in $sections; do
    [[ " $all " == *" $section "* ]] || usage "no section '$section'"
done
[ -z "$pack" ] || pack=$(cd "$pack" && pwd) || exit 2
[ -z "$deps" ] || deps=$(cd "$deps" && pwd) || exit 2
root=$(dirname "$here") # the sources; a pack has its own configurations
: "${build:=$root/build/gpu}" "${out:=$root/build/gpu_check}"
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd) report=$out/report$call.md raw=$out/raw$call.txt
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/runs"
export PATH=$PATH:/usr/local/cuda/bin # nvcc and compute-sanitizer
cmake_arguments=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DND_CUDA=ON -DND_WERROR=OFF)
. "$here/gpu_libraries.sh"

say() { printf '%s\n' "$@" | tee -a "$report"; }
failed=() not_run=() first_failure=''
not_run() { # SECTION REASON
    say '' "## $1" '' "$1: not run: $2"
    not_run+=("$1")
}
# Ends what is left of a process group. Programs of ours leave in good order when they are asked to,
# and not at all when the GPU does not answer.
end_group() {
    local i
    kill -TERM -- "-$1" 2>/dev/null || return
    for ((i = 0; i < 50; i++)); do
        kill -0 -- "-$1" 2>/dev/null || return
        sleep 0.1
    done
    kill -KILL -- "-$1" 2>/dev/null
}
# What the report keeps of a section's output: of one that failed what its checks said, else its
# last lines.
excerpt() { # FILE CODE
    local kept='Assertion Failed|\[FAIL\]|TOO FAR|NOT THE SAME|[Ee]rror|failed|expected|stopped after'
    [ "$2" -eq 0 ] || [ "$2" -eq 77 ] || grep -E -A 2 "$kept" "$1" | head -n 40
    grep -vE ', seed [0-9]+$|^\[(RUN |PASS)\]' "$1" | tail -n 90
}
# Metrics and logs of all runs so far, whole at any time.
keep_runs() {
    (cd "$work" && find runs -type f \( -name '*.jsonl' -o -name '*.log' -o \
        -name '*.txt' -o -name '*.ini' \) \
        -size -4M -print0 | tar -czf "$out/runs.part" --null -T - 2>/dev/null &&
        mv "$out/runs.part" "$out/runs$call.tar.gz")
}
# run SECTION SECONDS command...: its output goes to raw.txt as it comes, and an excerpt into the
# report. A command that exits with 77 says that there was nothing to run.
run() {
    local name=$1 limit=$2 started=$SECONDS code child watchdog before
    shift 2
    # Of the time of everything some is kept for ending what hangs.
    [ "$limit" -le $((seconds - 10 - SECONDS)) ] || limit=$((seconds - 10 - SECONDS))
    if [ "$name" != build ] && [ "$gpus" -eq 0 ]; then
        not_run "$name" 'no GPU'
        return
    elif [ "$name" != build ] && [[ " ${failed[*]} " == *' build '* ]]; then
        not_run "$name" 'no build'
        return
    elif [ "$limit" -le 0 ]; then
        not_run "$name" 'no time left'
        return
    fi
    printf '\n== %s, after %d s\n' "$name" $SECONDS >>"$raw"
    before=$(stat -c %s "$raw")
    set -m # process groups of their own, which can be ended whole
    "$@" >>"$raw" 2>&1 </dev/null & # at its end, where the watchdog writes too
    child=$!
    # Holds no output of the script's open: who reads that waits for its end.
    (sleep "$limit"; echo "stopped after $limit s" >>"$raw"; kill -TERM -- "-$child") >/dev/null 2>&1 &
    watchdog=$!
    set +m
    wait $child
    code=$?
    kill -KILL -- "-$watchdog" 2>/dev/null
    wait $watchdog 2>/dev/null
    end_group $child
    tail -c "+$((before + 1))" "$raw" >"$work/section"
    say '' "## $name" '' '```' "$(excerpt "$work/section" $code)" '```'
    case $code in
    0) say "$name: passed, $((SECONDS - started)) s" ;;
    77)
        say "$name: not run, $((SECONDS - started)) s"
        not_run+=("$name")
        ;;
    *)
        say "$name: FAILED (exit $code), $((SECONDS - started)) s"
        failed+=("$name")
        [ -n "$first_failure" ] ||
            first_failure=$(grep -m 1 -A 2 -E 'Assertion Failed|TOO FAR|NOT THE SAME|[Ee]rror' "$work/section")
        ;;
    esac
    keep_runs
}
wanted() { [[ " $sections " == *" $1 "* ]]; }

build_all() {
    cmake -S "$root" -B "$build" "${cmake_arguments[@]}" &&
        cmake --build "$build" --parallel "$(cores)" \
            --target nanochat_dist bench_throughput \
            bench_ops bench_gpu_attention device_tests
}
# One run, under $launcher and with the settings $without of what does not work:
# NAME TARGET CONFIG STEPS [SETTING]...
launcher=() without=()
train() {
    local name=$1 target=$2 config=$3 steps=$4 settings=()
    shift 4
    for setting in "${without[@]}" "$@"; do settings+=(--set "$setting"); done
    "${launcher[@]}" "$build/nanochat_dist" --config "$root/$config" --run-dir "$work/runs/$name" \
        --dataset synthetic --n-samples 4096 --total-steps "$steps" \
        --set "hardware.target=$target" \
        --set logging.checkpoint_at_end=false --set logging.eval_interval=0 "${settings[@]}" \
        >"$work/runs/$name.txt" 2>&1 || { tail -n 5 "$work/runs/$name.txt"; return 1; }
}
# Whether both runs have left metrics.
both() { # NAME A B, A and B below runs/
    [ -s "$work/runs/$2/metrics.jsonl" ] && [ -s "$work/runs/$3/metrics.jsonl" ] ||
        { echo "$1: not compared, a run has no metrics"; return 1; }
}
# Losses of two runs: the largest difference over the steps and that of the last five in the mean.
# After 50 steps of E3's small models the loss hardly falls any more. Where it falls, roundings alone
# move it: the last twenty of two CPUs' runs differ by up to 0.06, the last five by 0.013.
compare() { # NAME A B TOLERANCE
    both "$@" || return 1
    python - "$1" "$work/runs/$2/metrics.jsonl" "$work/runs/$3/metrics.jsonl" "$4" <<'P'
import json, sys
a, b = ([json.loads(l)["loss"] for l in open(f)] for f in sys.argv[2:4])
worst = max(abs(x - y) for x, y in zip(a, b))
n = min(5, len(a))
end = abs(sum(a[-n:]) - sum(b[-n:])) / n
ok = len(a) == len(b) and end <= float(sys.argv[4])
print(f"{sys.argv[1]}: {len(a)} steps, {a[0]:.4f} -> {a[-1]:.4f} and {b[-1]:.4f}, "
      f"largest difference {worst:.2g}, of the last {n} in the mean {end:.2g}", "" if ok else "TOO FAR")
sys.exit(not ok)
P
}
# Losses and norms of two runs: the same bits; and how long a step took in each.
same() { # NAME A B
    both "$@" || return 1
    python - "$1" "$work/runs/$2/metrics.jsonl" "$work/runs/$3/metrics.jsonl" <<'P'
import json, statistics, sys
a, b = ([json.loads(l) for l in open(f)] for f in sys.argv[2:4])
ok = len(a) == len(b) > 0 and all(
    x[k] == y[k] for x, y in zip(a, b) for k in ("loss", "total_loss", "grad_norm"))
ms, wait = ([statistics.median(r[k] for r in rows[len(rows) // 2:]) for rows in (a, b)]
            for k in ("step_ms", "comm_wait_ms"))
print(f"{sys.argv[1]}: {len(a)} steps, {ms[0]:.1f} and {ms[1]:.1f} ms a step, of which the host waited "
      f"for the wire {wait[0]:.1f} and {wait[1]:.1f}", "" if ok else "NOT THE SAME")
sys.exit(not ok)
P
}

# Whether a step runs at all, and on what.
smoke() {
    nvidia-smi
    cat "$work/libraries"
    echo "libraries: $LD_LIBRARY_PATH"
    "$build/nanochat_dist" --version
    "$build/tests/cuda/device/cuda_program_libraries" # a run may need fewer: it says which
    if train smoke cuda configs/e3/small/baseline.ini 3; then
        cat "$work/runs/smoke.txt"
        ! grep -q 'int8 products by wgmma: .*mma.sync is used' "$work/runs/smoke.txt" && return 0
        echo 'Error: the int8 kernel for compute capability 9.0 is wrong here and not used'
        return 1
    fi
    echo 'again without the int8 kernels for compute capability 9.0 (ND_CUDA_INT8=mma)'
    if ND_CUDA_INT8=mma train smoke_again cuda configs/e3/small/baseline.ini 3; then
        : >"$work/without_wgmma"
    else
        echo 'again without cuDNN (attention_backend = builtin)'
        train smoke_again cuda configs/e3/small/baseline.ini 3 hardware.attention_backend=builtin || return 1
        : >"$work/without_cudnn"
    fi
    cat "$work/runs/smoke_again.txt"
    echo 'that runs: the other sections do without it as well'
    return 1
}
conformance() {
    local code=0 suite
    for suite in conformance products int8 kept_rows state code_kernels; do
        "$build/tests/cuda/device/cuda_device_$suite" || code=1
    done
    return $code
}
# Gradients of one batch on both, in f32, also with unquantized activations: another order of sums
# moves the code of an activation that lies at a tie, and with it gradients by up to 0.03 of their
# norm, also between two CPU layers.
gradients() {
    local program=$build/tests/cuda/device/cuda_program_gradients target code=0
    train seed cpu configs/e3/small/baseline.ini 1 hardware.precision=fp32 \
        logging.checkpoint_at_end=true || return 1
    "$program" tokens "$work/tokens.h5" || return 1
    for target in cpu cuda; do
        local grad=("$build/nanochat_dist" grad --checkpoint "$work/runs/seed" --precision fp32
            --target $target --tokens "$work/tokens.h5")
        "${grad[@]}" --out "$work/$target.h5" || return 1
        "${grad[@]}" --no-activation-quant --out "$work/$target.whole.h5" || return 1
    done
    "$program" compare "$work/cpu.whole.h5" "$work/cuda.whole.h5" 1e-3 || code=1
    "$program" compare "$work/cpu.h5" "$work/cuda.h5" 0.1 || code=1
    return $code
}
# 50 steps beside those of a CPU in fp32, which a pack brings along.
losses() {
    local code=0 name
    for name in baseline full; do
        if [ -d "$build/losses/$name.cpu" ]; then
            cp -r "$build/losses/$name.cpu" "$work/runs/"
        else
            train "$name.cpu" cpu "configs/e3/small/$name.ini" 50 hardware.precision=fp32 || code=1
        fi
        train "$name.gpu" cuda "configs/e3/small/$name.ini" 50 || code=1
        compare "$name" "$name.cpu" "$name.gpu" 0.05 || code=1
    done
    train baseline.int8 cuda configs/e3/small/baseline.ini 50 hardware.backward_precision=int8 || code=1
    compare 'baseline, gradients in 8 bits' baseline.gpu baseline.int8 0.05 || code=1
    return $code
}
lacks() { # cuDNN or NCCL: those of ND_NAME_INCLUDE_DIR
    grep -q "^ND_$1_INCLUDE_DIR:.*NOTFOUND" "$build/CMakeCache.txt" && echo "built without $1"
}
nccl() {
    ! lacks NCCL || return 77
    "$build/tests/cuda/device/cuda_program_nccl"
}
# cuDNN's attention: against the reference, the losses of a run beside those of the project's
# kernels, the same bits twice and as a graph.
attention() {
    local code=0 kind
    ! lacks CUDNN || return 77
    "$build/tests/cuda/device/cuda_device_cudnn" || code=1
    for kind in builtin auto; do
        train "attention.$kind" cuda configs/e3/small/baseline.ini 60 "hardware.attention_backend=$kind" ||
            code=1
    done
    for kind in attention attention_backward; do # else builtin would be compared with builtin
        grep -E "device +$kind of .*: cuDNN engine" "$work/runs/attention.auto.txt" ||
            { echo "Error: cuDNN does not compute $kind: the log names no engine"; code=1; }
    done
    grep -E ' device +' "$work/runs/attention.auto.txt"
    compare 'builtin kernels and cuDNN' attention.builtin attention.auto 0.05 || code=1
    train attention.again cuda configs/e3/small/baseline.ini 60 hardware.attention_backend=auto || code=1
    same 'cuDNN twice' attention.auto attention.again || code=1
    return $code
}
# A micro-batch's ops one by one, and as a CUDA graph.
graphs() {
    local code=0 name
    for name in baseline mtp_only; do
        train "$name.ops" cuda "configs/e3/small/$name.ini" 40 training.micro_batch_size=1 || code=1
        train "$name.graphs" cuda "configs/e3/small/$name.ini" 40 training.micro_batch_size=1 \
            hardware.cuda_graphs=true || code=1
        grep 'CUDA graphs are off' "$work/runs/$name.graphs.txt" && code=1
        same "$name, ops and graphs" "$name.ops" "$name.graphs" || code=1
    done
    return $code
}
model() { # NAME STEPS SETTING...
    local name=$1 steps=$2 settings=()
    shift 2
    for setting in "${without[@]}" "$@"; do settings+=(--set "$setting"); done
    echo "== $name"
    "$build/bench/bench_throughput" --steps "$steps" --set hardware.target=cuda \
        --set data.dataset=synthetic --set model.vocab_size=32000 "${settings[@]}"
}
small_model() {
    model 125M 6 model.hidden_dim=768 model.num_layers=12 model.num_heads=12 model.num_kv_heads=4 \
        model.ffn_mult=4 training.seq_length=1024 training.batch_size=64 training.micro_batch_size=16
}
# Muon's iterations cost a step the same whatever its tokens: 131072 of them, as is usual.
medium_model() { # BACKWARD
    model "1.5B, backward_precision = $1" 3 model.hidden_dim=2048 model.num_layers=28 \
        model.num_heads=16 model.num_kv_heads=4 model.ffn_mult=3.5 model.max_seq_len=2048 \
        training.seq_length=2048 training.batch_size=64 training.micro_batch_size=8 \
        dist.deterministic=off "hardware.backward_precision=$1"
}
# With every system, for 24 GB: the plan's, the workspace and CUDA's own beside them.
large_model() { # BACKWARD
    model "7B, every system, backward_precision = $1" 2 model.hidden_dim=4096 \
        model.num_layers=32 model.num_heads=32 model.num_kv_heads=8 model.ffn_mult=3.5 \
        model.max_seq_len=2048 training.seq_length=2048 training.batch_size=16 \
        training.micro_batch_size=2 training.use_8bit_optim=true training.use_galore=true \
        training.galore_rank=256 training.use_collider=true \
        hardware.gradient_checkpointing=true hardware.recompute_attention=true \
        hardware.pack_ternary_weights=true \
        optimizer.master_precision=bf16 dist.deterministic=off "hardware.backward_precision=$1"
}
seven() { large_model int8; }
seven_bf16() { large_model same; }
speed_bf16() { medium_model same; }
ops() { "$build/bench/bench_ops" --target cuda; }
attention_speed() { "$build/bench/bench_gpu_attention" --target cuda; }
speed() {
    local code=0
    medium_model int8 || code=1
    small_model || code=1
    return $code
}
e3() {
    local code=0 name
    for name in baseline full muon_8bit galore2 mtp_only; do
        train "e3.$name" cuda "configs/e3/$name.ini" 6 || { code=1; echo "$name: failed"; continue; }
        python - "$name" "$work/runs/e3.$name/metrics.jsonl" <<'P' || code=1
import json, math, sys
rows = [json.loads(l) for l in open(sys.argv[2])]
losses = [r["loss"] for r in rows]
print(f"{sys.argv[1]}: {len(rows)} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}, "
      f"{rows[-1]['step_ms']:.0f} ms a step", flush=True)
sys.exit(not all(map(math.isfinite, losses)))
P
    done
    return $code
}
# Some tests of each suite: under the sanitizer a kernel takes a hundred times as long.
sanitizer() {
    local code=0 tool
    command -v compute-sanitizer >/dev/null || { echo 'no compute-sanitizer here'; return 77; }
    for tool in memcheck racecheck; do
        for only in conformance:rmsnorm conformance:swiglu conformance:codes conformance:cross \
            products:group_scales products:large_scores products:symmetric int8:finite \
            kept_rows:agrees state:tiles state:adamw code_kernels:scales_of_groups code_kernels:stand_one_behind; do
            echo "== $tool, ${only#*:}"
            compute-sanitizer --tool "$tool" --error-exitcode 3 --print-limit 5 \
                "$build/tests/cuda/device/cuda_device_${only%%:*}" --only "${only#*:}" || code=1
        done
    done
    return $code
}
# Gradients that travel beside the backward pass and after it, and NCCL's all-reduce.
overlap() {
    local code=0 name on
    [ "$gpus" -ge 2 ] || { echo "$gpus GPU, and this takes two"; return 77; }
    command -v mpirun >/dev/null || { echo 'no mpirun'; return 77; }
    ! lacks NCCL || return 77
    launcher=(mpirun --allow-run-as-root --oversubscribe -np 2)
    for name in baseline galore2; do
        for on in true false; do
            train "$name.tree.$on" cuda "configs/e3/small/$name.ini" 50 "dist.overlap_grad_reduce=$on" || code=1
            train "$name.any.$on" cuda "configs/e3/small/$name.ini" 50 "dist.overlap_grad_reduce=$on" \
                dist.deterministic=off || code=1
        done
        same "$name, in the tree's order, beside and after" "$name.tree.true" "$name.tree.false" ||
            code=1
        same "$name, in any order, beside and after" "$name.any.true" "$name.any.false" || code=1
        train "$name.all" cuda "configs/e3/small/$name.ini" 50 dist.deterministic=off \
            dist.grad_reduction=allreduce || code=1
        compare "$name, to owners and to all" "$name.any.true" "$name.all" 0.05 || code=1
    done
    "${launcher[@]}" "$build/tests/cuda/device/cuda_program_nccl" || code=1
    return $code
}

: >"$report"
: >"$raw"
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
say "# GPU check: ${gpu:-no GPU}"
say '' "$(nvcc --version 2>/dev/null | grep release), $(uname -r), $(cores) cores, sections: $sections"
if [ -z "$arch" ]; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
fi
cmake_arguments+=("-DCMAKE_CUDA_ARCHITECTURES=${arch:-90}-real")
if [ -n "$pack" ] && ! unpack_programs >"$work/unpacking" 2>&1; then
    say "$(cat "$work/unpacking")" "the programs of $pack do not run on this system${deps:+; building them}"
    [ -n "$deps" ] || exit 1
    pack='' root=$(dirname "$here") build=$(dirname "$here")/build/gpu
fi
if [ -z "$pack" ]; then
    mkdir -p "$build"
    build=$(cd "$build" && pwd)
    [ -z "$deps" ] || use_packages >"$work/unpacking" 2>&1 || {
        say "$(cat "$work/unpacking")" 'the packages could not be unpacked, or do not run on this system'
        exit 1
    }
    [ -z "$call" ] || sections="build $sections"
fi
find_nvidia >"$work/libraries"

wanted build && [ -z "$pack" ] && run build 300 build_all
# How many seconds each of the others may take.
declare -A limits=([smoke]=40 [conformance]=80 [gradients]=40 [losses]=60 [nccl]=30 [attention]=80 [graphs]=50
    [speed]=100 [seven]=120 [e3]=90 [ops]=40 [speed_bf16]=60 [attention_speed]=60 [seven_bf16]=120 [overlap]=150
    [sanitizer]=150)
for section in $sections; do
    [ ! -e "$work/without_wgmma" ] || export ND_CUDA_INT8=mma
    [ ! -e "$work/without_cudnn" ] || without=(hardware.attention_backend=builtin)
    [ "$section" = build ] || run "$section" "${limits[$section]}" "$section"
done

say ''
[ -z "$first_failure" ] || say 'the first failure:' "$first_failure" ''
if [ ${#failed[@]} -gt 0 ]; then
    say "failed: ${failed[*]}${not_run[*]:+; not run: ${not_run[*]}}; $SECONDS s"
    exit 1
elif [ ${#not_run[@]} -gt 0 ]; then
    say "nothing failed, but not run: ${not_run[*]}; $SECONDS s"
    exit 3
fi
say "all sections passed, $SECONDS s"
