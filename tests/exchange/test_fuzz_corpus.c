/* Readers of files that may come from anywhere over the fuzzers' corpus, and over blind mutations
 * of it: what launch/fuzz.sh does with libFuzzer, for any compiler. Nothing may crash, hang, or (in
 * the asan build) read beyond a file. */
#include "core/base/rng.h"
#include "support/fuzz_readers.h"
#include "support/support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FILES_MAX = 1024, MUTATIONS_MAX = 8, SECONDS = 1 };

typedef struct corpus {
    uint8_t *files[FILES_MAX];
    size_t sizes[FILES_MAX];
    int count;
} corpus;

typedef void (*reader)(const uint8_t *bytes, size_t size);

static corpus load(const char *name)
{
    char directory[4096], path[8192];
    corpus c = {.count = 0};
    struct dirent **entries;
    snprintf(directory, sizeof directory, "%s/tests/fuzz/corpus/%s", ND_SOURCE_DIR, name);
    const int count = scandir(directory, &entries, NULL, alphasort);
    cr_assert(count > 2, "%s holds no files", directory);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.' && c.count < FILES_MAX) {
            snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
            c.files[c.count] = (uint8_t *)nd_test_read_file(path, &c.sizes[c.count]);
            cr_assert(c.files[c.count] != NULL, "%s cannot be read", path);
            c.count++;
        }
        free(entries[i]);
    }
    free(entries);
    return c;
}

static void release(corpus *c)
{
    for (int i = 0; i < c->count; i++)
        free(c->files[i]);
}

/* Reads a copy of exactly `size` bytes, so that asan sees the first byte beyond. */
static void read_exactly(reader read, const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    cr_assert(copy != NULL);
    memcpy(copy, bytes, size);
    read(copy, size);
    free(copy);
}

static uint64_t draw(uint64_t *position, uint64_t below)
{
    return (uint64_t)(nd_rng_uniform(nd_rng_key(42, "mutations"), (*position)++) * (double)below);
}

/* One change: a byte, a number at the ends of its range, a cut, or a piece of another file. */
static size_t mutate(uint8_t *bytes, size_t size, size_t capacity, const corpus *c,
                     uint64_t *position)
{
    static const uint64_t ends[] = {0,         1,          0x7f,      0xff,       0xffff,
                                    INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 62};
    if (size == 0)
        return 0;
    const size_t at = draw(position, size);
    switch (draw(position, 5)) {
    case 0:
        bytes[at] = (uint8_t)draw(position, 256);
        return size;
    case 1:
        bytes[at] = (uint8_t)(bytes[at] ^ 1u << draw(position, 8));
        return size;
    case 2:
        if (size - at >= 8)
            memcpy(bytes + at, &ends[draw(position, 10)], draw(position, 2) ? 8 : 4);
        return size;
    case 3:
        return at;
    default: {
        const int other = (int)draw(position, (uint64_t)c->count);
        const size_t most = c->sizes[other] < capacity - at ? c->sizes[other] : capacity - at;
        const size_t bytes_taken = draw(position, most + 1);
        memcpy(bytes + at, c->files[other] + c->sizes[other] - bytes_taken, bytes_taken);
        return at + bytes_taken > size ? at + bytes_taken : size;
    }
    }
}

static void replay_and_mutate(reader read, const char *name)
{
    corpus c = load(name);
    size_t capacity = 0;
    uint64_t position = 0, tried = 0;
    for (int i = 0; i < c.count; i++) {
        read_exactly(read, c.files[i], c.sizes[i]);
        capacity = c.sizes[i] > capacity ? c.sizes[i] : capacity;
    }
    uint8_t *bytes = malloc(2 * capacity);
    cr_assert(bytes != NULL);
    for (const time_t end = time(NULL) + SECONDS; time(NULL) <= end; tried++) {
        const int file = (int)draw(&position, (uint64_t)c.count);
        size_t size = c.sizes[file];
        memcpy(bytes, c.files[file], size);
        for (uint64_t left = 1 + draw(&position, MUTATIONS_MAX); left > 0; left--)
            size = mutate(bytes, size, 2 * capacity, &c, &position);
        read_exactly(read, bytes, size);
    }
    printf("%s: %d files and %llu mutations of them, seed 42\n", name, c.count,
           (unsigned long long)tried);
    free(bytes);
    release(&c);
}

Test(fuzz_corpus, the_gguf_reader_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_gguf, "gguf");
}

Test(fuzz_corpus, the_safetensors_reader_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_safetensors, "safetensors");
}

Test(fuzz_corpus, the_reader_of_config_json_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_config_json, "config_json");
}

Test(fuzz_corpus, the_reader_of_manifests_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_manifest, "manifest");
}

Test(fuzz_corpus, the_reader_of_ini_files_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_ini, "ini");
}

Test(fuzz_corpus, the_reader_of_the_index_of_shards_survives_the_corpus_and_mutations_of_it)
{
    replay_and_mutate(nd_fuzz_shard_index, "shard_index");
}

/* A stand-in for clang compiles and links as the script does, without libFuzzer. */
Test(fuzz_corpus, the_script_compiles_all_that_a_reader_needs)
{
    static char output[16384];
    nd_test_shell(output, sizeof output,
                  "cd $(mktemp -d) && cat > clang <<'END'\n"
                  "#!/bin/bash\n"
                  "for o; do shift; case $o in -fsanitize*|-fno-sanitize*|-g|-O1) ;; *) set -- "
                  "\"$@\" \"$o\";; esac; done\n"
                  "here=$(dirname \"$0\")\n"
                  "echo 'int LLVMFuzzerTestOneInput(const char *, long); int main(void) "
                  "{ return LLVMFuzzerTestOneInput(\"\", 0); }' > $here/main.c\n"
                  "gcc -w -O0 $here/main.c \"$@\" -o $here/reader && exit 77\nEND\n"
                  "chmod +x clang; PATH=$PWD:$PATH; cp -r %s/launch %s/src %s/tests .; "
                  "launch/fuzz.sh manifest; "
                  "echo \"ended with $?\"; rm -r \"$PWD\"",
                  ND_SOURCE_DIR, ND_SOURCE_DIR, ND_SOURCE_DIR);
    cr_assert(strstr(output, "ended with 77") != NULL, "%s", output);
}
