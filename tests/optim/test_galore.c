/* Subspaces: what is projected, what a sketch finds, what moves along. */
#include "optim/galore_fixture.h"

static const int64_t sides[2][2] = {{96, 200}, {200, 96}};

Test(galore, projection_and_its_way_back_are_products_with_the_projector)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 24);
        const nd_galore *g = &f.shape;
        const nd_view gradient = random_matrix(&f, g->rows, g->cols, seed);
        const nd_view p = random_matrix(&f, 24, 96, seed + 1);
        const nd_view r = take(&f, nd_galore_reduced_rows(g), nd_galore_reduced_cols(g));
        const nd_view u = take(&f, g->rows, g->cols);
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, r, nd_as_const(p), nd_as_const(gradient), 0.0f));
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, r, nd_as_const(p), nd_as_const(gradient), 1.0f));
        for (int64_t i = 0; i < r.rows; i++)
            for (int64_t j = 0; j < r.cols; j++) {
                double sum = 0.0;
                for (int64_t k = 0; k < 96; k++)
                    sum += side == 0 ? (double)at(p, i, k) * (double)at(gradient, k, j)
                                     : (double)at(gradient, i, k) * (double)at(p, j, k);
                cr_assert_float_eq(at(r, i, j), 2.0 * sum, 1e-3);
            }
        ND_ASSERT_OK(nd_galore_lift(f.backend, g, u, nd_as_const(p), nd_as_const(r), -0.5f));
        for (int64_t i = 0; i < u.rows; i++)
            for (int64_t j = 0; j < u.cols; j++) {
                double sum = 0.0;
                for (int64_t k = 0; k < 24; k++)
                    sum += side == 0 ? (double)at(p, k, i) * (double)at(r, k, j)
                                     : (double)at(r, i, k) * (double)at(p, k, j);
                cr_assert_float_eq(at(u, i, j), -0.5 * sum, 1e-2);
            }
        destroy(&f);
    }
}

Test(galore, a_sketch_finds_what_the_exact_decomposition_finds_in_a_low_rank_gradient)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 12);
        const nd_view gradient = low_rank_with_noise(&f, 12, 0.0001f);
        const nd_view p = find(&f, gradient);
        assert_orthonormal(p, 1e-5);
        cr_assert_gt(captured(&f, p, gradient), (1.0 - 1e-5) * best(gradient, 12));
        destroy(&f);
    }
}

Test(galore, in_noise_it_finds_nearly_as_much)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 12);
        const nd_view gradient = low_rank_with_noise(&f, 6, 0.05f);
        const nd_view p = find(&f, gradient);
        const double found = captured(&f, p, gradient), most = best(gradient, 12);
        cr_assert_gt(found, 0.995 * most, "%g of %g", found, most);
        cr_assert_lt(found, 1.000001 * most);
        destroy(&f);
    }
}

Test(galore, sketches_of_parts_add_up_to_the_sketch_of_the_sum)
{
    fixture f = create(200, 96, 12);
    const nd_galore *g = &f.shape;
    const nd_view a = random_matrix(&f, 200, 96, seed), b = random_matrix(&f, 200, 96, seed + 1);
    const nd_view omega = random_matrix(&f, g->sketch, 200, seed + 2);
    const nd_view parts = take(&f, g->sketch, 96), whole = take(&f, g->sketch, 96);
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, parts, nd_as_const(omega), nd_as_const(a), 0.0f));
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, parts, nd_as_const(omega), nd_as_const(b), 1.0f));
    ND_ASSERT_OK(f.backend->ops.axpby(f.backend, a, 1.0f, nd_as_const(b), 1.0f));
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, whole, nd_as_const(omega), nd_as_const(a), 0.0f));
    for (int64_t i = 0; i < g->sketch; i++)
        for (int64_t j = 0; j < 96; j++)
            cr_assert_float_eq(at(parts, i, j), at(whole, i, j), 1e-3);
    destroy(&f);
}

Test(galore, directions_that_a_gradient_lacks_are_random_and_orthonormal)
{
    fixture f = create(96, 200, 24);
    const nd_view five = low_rank_with_noise(&f, 5, 0.0f);
    const nd_view p = find(&f, five);
    assert_orthonormal(p, 1e-5);
    cr_assert_gt(captured(&f, p, five), 0.99999 * best(five, 24));
    const nd_view zero = take(&f, 96, 200);
    assert_orthonormal(find(&f, zero), 1e-5);
    destroy(&f);
}

Test(galore, coordinates_turned_into_the_next_subspace_are_the_projection_onto_it)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 24);
        const nd_galore *g = &f.shape;
        const int64_t rows = nd_galore_reduced_rows(g), cols = nd_galore_reduced_cols(g);
        const nd_view old = take(&f, 24, 96), next = take(&f, 24, 96), c = take(&f, 24, 24);
        const nd_view m = random_matrix(&f, rows, cols, seed + 3);
        const nd_view moved = take(&f, rows, cols), expected = take(&f, rows, cols);
        const nd_view full = take(&f, g->rows, g->cols);
        ND_ASSERT_OK(nd_galore_random_subspace(f.backend, old, seed, &f.scratch));
        ND_ASSERT_OK(nd_galore_random_subspace(f.backend, next, seed + 1, &f.scratch));
        assert_orthonormal(old, 1e-5);
        ND_ASSERT_OK(nd_galore_rotation(f.backend, c, nd_as_const(next), nd_as_const(old)));
        ND_ASSERT_OK(nd_galore_rotate(f.backend, g, moved, nd_as_const(c), nd_as_const(m)));
        ND_ASSERT_OK(nd_galore_lift(f.backend, g, full, nd_as_const(old), nd_as_const(m), 1.0f));
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, expected, nd_as_const(next), nd_as_const(full), 0.0f));
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                cr_assert_float_eq(at(moved, i, j), at(expected, i, j), 1e-4);
        destroy(&f);
    }
}
