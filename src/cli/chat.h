/* A conversation: lines of the standard input and the model's replies, in one context whose keys
 * and values are kept from turn to turn.
 *
 * Models trained here know no roles, so a turn is plain text:
 *
 *   USER_PREFIX line REPLY_PREFIX reply
 *
 * with a newline between two turns, and the document separator and the prompt, if any, before the
 * first. A reply ends at the stop text, at the document separator, or after max_tokens. */
#pragma once

#include "cli/sampler.h"

typedef struct nd_chat_options {
    const char *prompt; /* precedes the first turn */
    const char *user_prefix, *reply_prefix;
    int64_t max_tokens; /* of one reply */
} nd_chat_options;

/* Runs until the input ends or the context is full, which standard error reports. Prefixes are
 * shown when the input is a terminal; otherwise only replies are printed, each on its own line. */
nd_status nd_chat(nd_sampler *sampler, const nd_chat_options *options);
