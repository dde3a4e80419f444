/* The rows of bad_input_rows.h about flags given twice and a standard output that takes nothing. */
#ifndef ND_TESTS_CLI_BAD_USAGE_ROWS_H
#define ND_TESTS_CLI_BAD_USAGE_ROWS_H

#include "cli/bad_input_rows.h"

static const bad_input bad_usages[] = {
    {"command lines",
     "a flag given twice",
     "",
     "$B --config $D/ok.ini --total-steps 1 --run-dir $W/run --total-steps 2",
     2,
     {"--total-steps is given twice"}},
    {"command lines",
     "a flag of pack given twice",
     "",
     "$B pack --tokenizer $D/tok.model --out $W/a --out=$W/b $S/src",
     2,
     {"--out is given twice"}},
    {"command lines",
     "a flag of tokenizer given twice",
     "",
     "$B tokenizer encode --model $D/tok.model --model $D/other.model",
     2,
     {"--model is given twice"}},
    {"command lines",
     "a standard output that is full",
     "",
     "$B info $D/run > /dev/full",
     1,
     {"cannot write to standard output: No space left on device"}},
    {"command lines",
     "a standard output that is closed",
     "",
     "$B plan --config $D/ok.ini >&-",
     1,
     {"cannot write to standard output: Bad file descriptor"}},
};
enum { BAD_USAGES = sizeof bad_usages / sizeof bad_usages[0] };

#endif
