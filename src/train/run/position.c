#include "train/run/position.h"

void nd_position_advance(nd_position *p, const nd_config *config)
{
    p->step++;
    p->next_sample += config->training.batch_size;
    p->tokens += config->training.batch_size * config->training.seq_length;
}

void nd_position_roll_back(nd_position *p, const nd_position *before)
{
    p->next_sample = before->next_sample;
    p->data_start = before->data_start;
    p->restarts = before->restarts;
}

void nd_position_begin_data(nd_position *p, int64_t windows)
{
    p->next_sample = (p->next_sample + windows - 1) / windows * windows;
    p->data_start = p->next_sample;
}
