/* The position of a run: what it has trained on, and its next sample. */
#pragma once

#include "core/config/config.h"

typedef struct nd_position {
    int64_t step;        /* completed steps */
    int64_t tokens;      /* trained on so far */
    int64_t next_sample; /* the loader's whole state: first sample of the next step */
    int64_t data_start;  /* the first sample of the data at hand: epochs are counted from there */
    int64_t restarts;
} nd_position;

/* A step of this configuration was done. */
void nd_position_advance(nd_position *p, const nd_config *config);

/* After a rollback: the data continues where it was in `before`, so that skipped samples stay skipped. */
void nd_position_roll_back(nd_position *p, const nd_position *before);

/* New data of `windows` samples begins at its first epoch of which no sample was used. */
void nd_position_begin_data(nd_position *p, int64_t windows);
