/* Orthonormal rows by Cholesky QR. */
#pragma once

#include "core/backend/backend.h"

/* y = T x with T lower triangular such that the rows of y are orthonormal: x xᵀ = D L Lᵀ D and T =
 * L⁻¹ D⁻¹, with D the norms of the rows, so that accuracy depends on the angles between rows only.
 * Zero rows stay zero; dependent rows become short rather than amplified (the Gram matrix gets 1e-6
 * on its unit diagonal). x, y: f32 [rank, n]; gram: f32 [rank, rank], overwritten; host: 2 rank^2
 * doubles. *largest (may be NULL): the largest squared norm of a row of x. */
nd_status nd_orthonormal_rows(nd_backend *b, nd_view y, nd_cview x, nd_view gram, double *host,
                              double *largest);
