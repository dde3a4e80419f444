/* The sample that stands for all tokens: probabilities, the draw, and the gradient it expects. */
#include "core/base/rng.h"
#include "core/model/collider.h"
#include "core/model/token_sample.h"
#include "support/model_fixture.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 11;

/* Scores of 200 tokens over three orders of magnitude, so that some are certain. */
enum { TOKENS = 200, COUNT = 130 };

static void make_probabilities(double *p)
{
    double scores[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        scores[t] = 0.001 + pow(nd_rng_uniform(seed, (uint64_t)t), 3.0);
    nd_token_probabilities(scores, TOKENS, COUNT, p);
}

Test(token_sample, probabilities_follow_the_scores_up_to_1_and_add_up_to_the_count)
{
    const double scores[] = {1.0, 2.0, 100.0, 1.0, 50.0, 4.0};
    const double expected[] = {0.125, 0.25, 1.0, 0.125, 1.0, 0.5};
    double p[TOKENS], sum = 0.0;
    nd_token_probabilities(scores, 6, 3, p);
    for (int t = 0; t < 6; t++)
        cr_assert_float_eq(p[t], expected[t], 1e-15, "token %d: %g", t, p[t]);
    make_probabilities(p);
    for (int t = 0; t < TOKENS; t++)
        sum += p[t];
    cr_assert_float_eq(sum, COUNT, 1e-10, "%.17g", sum);
}

Test(token_sample, all_tokens_are_certain_when_all_are_wanted)
{
    double scores[TOKENS], p[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        scores[t] = 0.1 + nd_rng_uniform(seed, (uint64_t)t);
    nd_token_probabilities(scores, TOKENS, TOKENS, p);
    for (int t = 0; t < TOKENS; t++)
        cr_assert_eq(p[t], 1.0, "token %d: %.17g", t, p[t]);
}

/* Over a grid of offsets, a token is drawn as often as its probability says, to within one
 * of them. */
Test(token_sample, draws_exactly_the_count_and_each_token_with_its_probability)
{
    enum { GRID = 1000 };
    double p[TOKENS];
    int32_t order[TOKENS], chosen[TOKENS];
    int drawn[TOKENS] = {0};
    make_probabilities(p);
    for (int t = 0; t < TOKENS; t++)
        order[t] = (t * 77) % TOKENS;
    for (int u = 0; u < GRID; u++) {
        int count = 0;
        nd_token_draw(p, TOKENS, COUNT, order, (double)u / GRID, chosen);
        for (int t = 0; t < TOKENS; t++) {
            count += chosen[t];
            drawn[t] += chosen[t];
        }
        cr_assert_eq(count, COUNT, "offset %d: %d tokens", u, count);
    }
    for (int t = 0; t < TOKENS; t++)
        cr_assert_leq(fabs(drawn[t] - p[t] * GRID), 1.0001, "token %d: %d for %g", t, drawn[t],
                      p[t]);
}

Test(token_sample, represents_a_run_of_the_order_by_its_share_to_within_one_token)
{
    double p[TOKENS];
    int32_t order[TOKENS], chosen[TOKENS];
    make_probabilities(p);
    for (int t = 0; t < TOKENS; t++)
        order[t] = t;
    nd_token_draw(p, TOKENS, COUNT, order, 0.3, chosen);
    for (int first = 0; first < TOKENS; first += 20) {
        double expected = 0.0;
        int found = 0;
        for (int t = first; t < first + 20; t++) {
            expected += p[t];
            found += chosen[t];
        }
        cr_assert_lt(fabs(found - expected), 1.0, "%d: %d for %g", first, found, expected);
    }
}

/* For gradients: only the sample's losses are masked and weighted; keys and values stay. */
static struct {
    nd_backend_ops ops;
    const nd_model *model;
    const double *weights; /* [tokens] */
} weighted;

static nd_status weighted_cross_entropy(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                        nd_cview targets, const nd_cross_entropy_params *params)
{
    const int64_t first =
        (const int32_t *)targets.data - (const int32_t *)weighted.model->targets.data;
    nd_cross_entropy_params p = *params;
    p.weight = nd_cview_of(weighted.weights + first, ND_F64, targets.rows, 1);
    return weighted.ops.cross_entropy(b, nll, total, logits, targets, &p);
}

static nd_model_config sampled_config(void)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F64);
    config.micro_batch = 3;
    config.seq_length = 21;
    config.collider = true;
    config.collider_params =
        (nd_collider_params){.rule = ND_COLLIDER_SAMPLE, .sparsity = 0.35, .seed = seed};
    return config;
}

/* Weights of a draw, 0 for tokens left out; `unweighted` leaves 1 instead of 1/p. Returns its total
 * loss. */
static double draw_weights(nd_model_fixture *sampled, int64_t sample, bool unweighted,
                           double *weights)
{
    nd_loss loss;
    nd_model *m = sampled->model;
    nd_model_set_draw(m, (nd_collider_draw){.sample = sample});
    ND_ASSERT_OK(nd_model_train(m, sampled->tokens, 1.0f,
                                nd_model_gradients_into(&m->params, sampled->gradients, false),
                                (nd_gradients_ready){NULL, NULL}, &loss));
    cr_assert_eq(loss.kept, m->tokens - (int64_t)(0.35 * (double)m->tokens));
    memset(weights, 0, (size_t)m->tokens * sizeof *weights);
    for (int64_t i = 0; i < loss.kept; i++) {
        const int32_t t = m->collider.kept[i];
        weights[t] = unweighted ? 1.0 : 1.0 / m->collider.probability[t];
    }
    return loss.total;
}

static double *flat_gradient(const nd_model_fixture *f, int64_t *count)
{
    *count = 0;
    for (int64_t i = 0; i < f->model->params.count; i++)
        *count += nd_view_count(nd_as_const(f->gradients[i]));
    double *flat = calloc((size_t)*count, sizeof *flat), *at = flat;
    cr_assert_not_null(flat);
    for (int64_t i = 0; i < f->model->params.count; i++) {
        const size_t n = (size_t)nd_view_count(nd_as_const(f->gradients[i]));
        cr_assert_eq(f->gradients[i].dtype, ND_F64);
        memcpy(at, f->gradients[i].data, n * sizeof *at);
        at += n;
    }
    return flat;
}

/* |mean over draws - full gradient|^2 as a multiple of its expectation, the variance of one draw
 * divided by their number. */
static double excess_of_mean(bool unweighted)
{
    enum { DRAWS = 400 };
    nd_model_config config = sampled_config();
    nd_model_fixture sampled = nd_model_fixture_create(&config, true, seed);
    config.collider = false;
    nd_model_fixture whole = nd_model_fixture_create(&config, true, seed);
    int64_t count;
    nd_model_fixture_train(&whole, false);
    double *full = flat_gradient(&whole, &count);
    double *mean = calloc((size_t)count, sizeof *mean), weights[63], variance = 0.0, apart = 0.0;
    cr_assert_not_null(mean);
    cr_assert_eq(whole.model->tokens, 63);
    weighted.ops = whole.backend->ops;
    weighted.model = whole.model;
    weighted.weights = weights;
    whole.backend->ops.cross_entropy = weighted_cross_entropy;
    for (int d = 0; d < DRAWS; d++) {
        draw_weights(&sampled, d, unweighted, weights);
        nd_model_fixture_train(&whole, false);
        double *one = flat_gradient(&whole, &count);
        for (int64_t i = 0; i < count; i++) {
            variance += (one[i] - full[i]) * (one[i] - full[i]) / DRAWS;
            mean[i] += one[i] / DRAWS;
        }
        free(one);
    }
    for (int64_t i = 0; i < count; i++)
        apart += (mean[i] - full[i]) * (mean[i] - full[i]);
    free(full);
    free(mean);
    nd_model_fixture_destroy(&sampled);
    nd_model_fixture_destroy(&whole);
    cr_assert_gt(variance, 0.0);
    return apart / (variance / DRAWS);
}

Test(token_sample, the_mean_of_many_sampled_gradients_is_the_full_gradient)
{
    const double weighed = excess_of_mean(false), plain = excess_of_mean(true);
    cr_log_info("squared distance over its expectation: %g with weights, %g without", weighed,
                plain);
    cr_assert_lt(weighed, 4.0, "%g: more than two standard errors", weighed);
    cr_assert_gt(plain, 10.0, "%g: draws without their weights are biased", plain);
}

/* Also where further tokens have heads or blocks of their own, which compute kept tokens only. */
Test(token_sample, the_mean_of_many_sampled_totals_is_the_total_of_all_tokens)
{
    enum { DRAWS = 50 };
    for (int form = ND_MTP_SHARED; form <= ND_MTP_SEPARATE; form++) {
        double weights[63], mean = 0.0, squares = 0.0;
        nd_model_config config = sampled_config();
        config.mtp_form = (nd_mtp_form)form;
        config.mtp_tokens = 3;
        config.loss.offsets = form == ND_MTP_SHARED ? 3 : 1;
        config.loss.offset_weight[1] = 1.0f;
        config.loss.offset_weight[2] = 0.5f;
        nd_model_fixture sampled = nd_model_fixture_create(&config, true, seed);
        config.collider = false;
        nd_model_fixture whole = nd_model_fixture_create(&config, true, seed);
        const double full = nd_model_fixture_train(&whole, false);
        for (int d = 0; d < DRAWS; d++) {
            const double apart = draw_weights(&sampled, d, false, weights) - full;
            mean += apart / DRAWS;
            squares += apart * apart / DRAWS;
        }
        const double error = sqrt(fmax(squares - mean * mean, 0.0) / DRAWS);
        cr_assert_leq(fabs(mean), 3.0 * error + 1e-9 * full, "form %d: %g apart, %g expected", form,
                      mean, error);
        nd_model_fixture_destroy(&sampled);
        nd_model_fixture_destroy(&whole);
    }
}

Test(token_sample, the_draw_follows_from_seed_and_sample_alone)
{
    nd_model_config config = sampled_config();
    nd_model_fixture a = nd_model_fixture_create(&config, true, seed);
    nd_model_fixture b = nd_model_fixture_create(&config, true, seed);
    config.collider_params.seed = seed + 1;
    nd_model_fixture other = nd_model_fixture_create(&config, true, seed);
    double first[63], again[63], next[63], seeded[63];
    draw_weights(&a, 5, false, first);
    draw_weights(&b, 6, false, next);
    draw_weights(&b, 5, false, again);
    draw_weights(&other, 5, false, seeded);
    cr_assert_eq(memcmp(first, again, sizeof first), 0, "the same sample, another history");
    cr_assert_neq(memcmp(first, next, sizeof first), 0, "another sample");
    cr_assert_neq(memcmp(first, seeded, sizeof first), 0, "another seed");
    nd_model_fixture_destroy(&a);
    nd_model_fixture_destroy(&b);
    nd_model_fixture_destroy(&other);
}
