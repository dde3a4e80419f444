/* The position of a run in its data: how much it has trained on, and its next sample. */
#pragma once

#include "core/config/config.h"

typedef struct nd_position {
    int64_t step;        /* completed steps */
    int64_t tokens;      /* trained on so far */
    int64_t next_sample; /* first sample of the next step, the whole state of the loader */
    int64_t data_start;  /* first sample of the current data, from which epochs are counted */
    int64_t restarts;
} nd_position;

/* Advances by one step of this configuration. */
void nd_position_advance(nd_position *p, const nd_config *config);

/* After a rollback: continues in the data where `before` was; skipped samples stay skipped. */
void nd_position_roll_back(nd_position *p, const nd_position *before);

/* Begins new data of `windows` samples at its first epoch without used samples. */
void nd_position_begin_data(nd_position *p, int64_t windows);
