/* The libFuzzer program of the INI reader; launch/fuzz.sh builds it. */
#include "support/fuzz_readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nd_fuzz_ini(bytes, size);
    return 0;
}
