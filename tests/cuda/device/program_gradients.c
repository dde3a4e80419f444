/* What launch/gpu_check.sh needs of HDF5 files, in C because a bare machine's Python cannot read
 * them.
 *
 *   PROGRAM tokens FILE             /tokens: drawn integers below 4096, [2, 65]
 *   PROGRAM compare A B LIMIT       gradients of two files of `nanochat_dist grad`: exits 0 if
 *                                   |a - b| <= LIMIT |a| (Euclidean norm) in every tensor */
#include "data/shards/hdf5_arrays.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 2, COLS = 65 };

static int write_tokens(const char *path)
{
    int32_t tokens[ROWS * COLS];
    uint32_t state = 5;
    nd_hdf5_out *out = NULL;
    for (int i = 0; i < ROWS * COLS; i++) {
        state = state * 1664525u + 1013904223u;
        tokens[i] = (int32_t)(state >> 20); /* twelve bits */
    }
    nd_status status = nd_hdf5_out_create(path, "/tokens", &out);
    if (status == ND_OK)
        status = nd_hdf5_out_write(out, "/tokens", nd_cview_of(tokens, ND_I32, ROWS, COLS));
    if (out && nd_hdf5_out_close(out, status == ND_OK) != ND_OK)
        status = ND_EDATA;
    if (status != ND_OK)
        fprintf(stderr, "%s\n", nd_error_get()->message);
    return status != ND_OK;
}

/* The values of a tensor; NULL when it cannot be read. The caller frees. */
static double *read_gradient(hid_t group, const char *name, hssize_t *count)
{
    double *values = NULL;
    const hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
    if (set < 0)
        return NULL;
    const hid_t space = H5Dget_space(set);
    *count = H5Sget_simple_extent_npoints(space);
    values = *count > 0 ? malloc((size_t)*count * sizeof *values) : NULL;
    if (values && H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
        free(values);
        values = NULL;
    }
    H5Sclose(space);
    H5Dclose(set);
    return values;
}

typedef struct comparison {
    hid_t other;
    double worst;
    char where[256];
    int64_t tensors;
} comparison;

/* Of each tensor in turn; negative ends it. */
static herr_t compare_tensor(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    comparison *c = context;
    hssize_t count = 0, others = 0;
    double *a = read_gradient(group, name, &count), *b = read_gradient(c->other, name, &others);
    double norm = 0.0, difference = 0.0;
    (void)info;
    const bool comparable = a && b && count == others;
    for (hssize_t i = 0; comparable && i < count; i++) {
        norm += a[i] * a[i];
        difference += (a[i] - b[i]) * (a[i] - b[i]);
    }
    free(a);
    free(b);
    if (!comparable) {
        fprintf(stderr, "%s: not the same tensor in both files\n", name);
        return -1;
    }
    const double relative = difference == 0.0 ? 0.0 : sqrt(difference / norm);
    c->tensors++;
    if (!(relative <= c->worst)) { /* NaN too */
        c->worst = isnan(relative) ? INFINITY : relative;
        snprintf(c->where, sizeof c->where, "%s", name);
    }
    return 0;
}

static int compare(const char *first, const char *second, double limit)
{
    comparison c = {.other = -1};
    const hid_t a = H5Fopen(first, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t b = H5Fopen(second, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t group = a < 0 ? -1 : H5Gopen2(a, "/gradients", H5P_DEFAULT);
    c.other = b < 0 ? -1 : H5Gopen2(b, "/gradients", H5P_DEFAULT);
    if (group < 0 || c.other < 0) {
        fprintf(stderr, "no gradients in %s\n", group < 0 ? first : second);
        return 1;
    }
    const bool all = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, compare_tensor, &c) >= 0;
    H5Gclose(group);
    H5Gclose(c.other);
    H5Fclose(a);
    H5Fclose(b);
    printf("largest relative difference of %lld gradients: %.2g (%s)\n", (long long)c.tensors,
           c.worst, c.where);
    return !(all && c.tensors > 0 && c.worst <= limit);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "tokens") == 0)
        return write_tokens(argv[2]);
    if (argc == 5 && strcmp(argv[1], "compare") == 0)
        return compare(argv[2], argv[3], strtod(argv[4], NULL));
    fprintf(stderr, "usage: %s tokens FILE | compare A B LIMIT\n", argv[0]);
    return 2;
}
