#!/usr/bin/env bash
# Fuzzes the readers of files that may come from anywhere with libFuzzer, under the address and
# undefined-behavior sanitizers. Needs clang with its runtime libraries (Debian: clang). Without
# it, tests/exchange/test_fuzz_corpus.c replays the corpus and mutates it blindly.
#
#   launch/fuzz.sh [--seconds N] [--keep] [gguf|safetensors|config_json|manifest|ini|shard_index]...
#
#   --seconds N  how long each reader is fuzzed (60); readers run one after another
#   --keep       add what reached new code to tests/fuzz/corpus, minimized
#
# A file that breaks a reader is left in build/fuzz, and the exit code is 1.
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
cd "$root"
all=(gguf safetensors config_json manifest ini shard_index) seconds=60 keep=''
options 'seconds keep! READER...' "$@"
readers=("${operands[@]}")
[ ${#readers[@]} -gt 0 ] || readers=("${all[@]}")
for reader in "${readers[@]}"; do
    [[ " ${all[*]} " = *" $reader "* ]] || usage "unknown reader '$reader'"
done
command -v clang >/dev/null || fail 'clang is missing (Debian: apt-get install clang)'

out=build/fuzz
mkdir -p $out
sources=(tests/support/fuzz_readers.c src/exchange/{gguf_read,gguf_print,ggml_types,mapped_file}.c
    src/exchange/{safetensors_read,safetensors_print,hf_config}.c src/train/checkpoint/{manifest,manifest_identity}.c
    src/data/shards/shard_index.c src/data/text/json.c src/core/base/*.c src/core/config/*.c
    src/core/model/{model_config,params}.c)
for reader in "${readers[@]}"; do
    echo "== $reader: building"
    # shellcheck disable=SC2046
    clang -std=gnu11 -g -O1 -D_GNU_SOURCE -DND_VERSION='"0"' -DND_BUILD_TYPE='"fuzz"' \
        -DND_HAVE_CUDA=0 -DND_HAVE_NCCL=0 -DND_HAVE_CUDNN=0 \
        -fsanitize=fuzzer,address,undefined,float-cast-overflow \
        -fno-sanitize-recover=undefined -Isrc -Itests -isystem /usr/include/iniparser \
        "tests/fuzz/fuzz_$reader.c" "${sources[@]}" \
        $(pkg-config --cflags --libs jansson libcrypto) -liniparser -lm -o "$out/fuzz_$reader"
    mkdir -p "$out/found_$reader"
    echo "== $reader: $seconds s"
    "$out/fuzz_$reader" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -max_len=16384 \
        -dict="tests/fuzz/$reader.dict" -artifact_prefix="$out/${reader}_" \
        -print_final_stats=1 -verbosity=1 \
        "$out/found_$reader" "tests/fuzz/corpus/$reader" >"$out/$reader.log" 2>&1 ||
        { tail -40 "$out/$reader.log"; exit 1; }
    grep -E '^(Done|stat::)|INITED' "$out/$reader.log"
    grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$out/$reader.log" | tail -1
    if [ -n "$keep" ]; then
        mkdir -p "$out/merged_$reader"
        "$out/fuzz_$reader" -merge=1 -max_len=4096 "$out/merged_$reader" "tests/fuzz/corpus/$reader" \
            "$out/found_$reader" >>"$out/$reader.log" 2>&1
        cp -n "$out/merged_$reader"/* "tests/fuzz/corpus/$reader/"
    fi
done
