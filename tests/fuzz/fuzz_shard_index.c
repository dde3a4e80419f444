/* The libFuzzer program of the reader of index.json; launch/fuzz.sh builds it. */
#include "support/fuzz_readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nd_fuzz_shard_index(bytes, size);
    return 0;
}
