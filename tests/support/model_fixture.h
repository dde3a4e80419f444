/* A small model with random weights on a CPU backend, its arenas and gradients. */
#pragma once

#include "core/model/model.h"

typedef struct nd_model_fixture {
    nd_backend *backend;
    nd_model *model;
    nd_arena weights, activations, gradient_arena, master_arena;
    nd_view *gradients; /* [params.count] */
    nd_view *masters;   /* [params.count] f64, or f32 when compute is not f64 */
    int32_t *tokens;    /* micro_batch sequences of seq_length + 1 */
} nd_model_fixture;

/* The configuration most tests use: 2 layers of 16, 4 heads over 2, vocabulary 11, 2 x 5 tokens. */
nd_model_config nd_model_fixture_config(nd_arch arch, nd_dtype compute);

/* Builds everything; masters are random from `seed` (norms near 1). */
nd_model_fixture nd_model_fixture_create(const nd_model_config *config, bool reference_only,
                                         uint64_t seed);
void nd_model_fixture_destroy(nd_model_fixture *fixture);

/* Loads all masters into the model. */
void nd_model_fixture_load(nd_model_fixture *fixture);

/* One training pass with gradient scale 1; returns the summed total loss. */
double nd_model_fixture_train(nd_model_fixture *fixture, bool accumulate);

/* sqrt(sum (a-b)^2 / sum b^2) over two float views. */
double nd_normalized_error(nd_cview a, nd_cview b);
