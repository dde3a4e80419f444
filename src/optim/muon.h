/* Muon: momentum, orthogonalized (Jordan et al. 2024; scale of arXiv:2502.16982). */
#pragma once

#include "core/backend/backend.h"
#include "core/config/config.h"
#include "optim/state_codec.h"

typedef struct nd_muon_params {
    float momentum; /* beta */
    bool nesterov;
    nd_orthogonalization method;
    int iterations;
    float learning_rate;
    float weight_decay;
    bool cautious_decay;
    float gradient_scale; /* factor from gradient clipping */
    uint64_t rounding_key;
} nd_muon_params;

/* Working memory for one update of a [rows, cols] matrix, shared by all matrices of a rank. The
 * iteration runs in `compute` (f32 or bf16). */
typedef struct nd_muon_scratch {
    nd_view update;         /* f32 [rows, cols] */
    nd_view x[2];           /* compute [rows, cols] */
    nd_view gram[2];        /* compute [min, min] */
    nd_view norm;           /* f64 [1, 1] */
    nd_view momentum;       /* f32 [rows, cols], aliases x, which is needed only later */
    nd_state_scratch state; /* of the momentum's codec */
} nd_muon_scratch;

/* The scratch of the largest matrix with views of this shape. */
nd_muon_scratch nd_muon_scratch_shaped(const nd_muon_scratch *scratch, int64_t rows, int64_t cols);

/* o := the nearest semi-orthogonal matrix to `update`, approximately: singular values end up in
 * about [0.7, 1.2]. Iterates on XXᵀ or XᵀX, whichever is smaller. *o is the result, one of
 * scratch->x; `update` is overwritten. A zero update gives zero. */
nd_status nd_muon_orthogonalize(nd_backend *b, nd_orthogonalization method, int iterations,
                                const nd_muon_scratch *scratch, nd_view *o);

/* m = beta m + g; u = g + beta m (Nesterov); *o = orthogonalize(u), one of scratch->x.   g: f32. */
nd_status nd_muon_direction(nd_backend *b, const nd_state *m, nd_cview g,
                            const nd_muon_params *params, const nd_muon_scratch *scratch,
                            nd_view *o);

/* w = w - lr wd w - lr 0.2 sqrt(max(rows, cols)) o.   w: f32 or bf16 [rows, cols]. */
nd_status nd_muon_apply(nd_backend *b, nd_view w, nd_cview o, const nd_muon_params *params);

/* nd_muon_direction, then nd_muon_apply. */
nd_status nd_muon_update(nd_backend *b, nd_view w, const nd_state *m, nd_cview g,
                         const nd_muon_params *params, const nd_muon_scratch *scratch);

/* FLOPs of one orthogonalization: iterations * (4 m^2 n + 2 m^3), m = min(rows, cols). For long
 * matrices in f32 fewer are executed (muon.c). */
double nd_muon_flops(int64_t rows, int64_t cols, int iterations);
