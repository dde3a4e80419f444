/* Multi-token prediction without parameters of its own: one head, several targets. This is the
 * schedule of the weights of targets beyond the next token (after modded-nanogpt, which weighs
 * offsets 1, 1/2, 1/4 and drops them by thirds of the run). */
#pragma once

#include "core/backend/backend.h"
#include "core/config/config.h"

/* weights[j], 1 <= j < mtp_n_tokens, at `step` of total_steps: mtp_weight * 2^(1-j) times the
 * schedule's factor; weights[0] is 1. All others are 0 without use_mtp. */
void nd_mtp_weights(const nd_config *config, int64_t step, float weights[ND_OFFSETS_MAX]);
