#include "cli/cli.h"
#include "core/backend/backend.h"
#include "core/base/build_info.h"
#include "data/hdf5_arrays.h"

#include <jansson.h>
#include <openssl/crypto.h>

void nd_cli_print_version(FILE *out)
{
    char options[256], mpi[128], hdf5[32], products[64];
    nd_build_options(options, sizeof options);
    nd_comm_library(mpi, sizeof mpi);
    nd_hdf5_version(hdf5, sizeof hdf5);
    nd_cpu_backend_library(products, sizeof products);
    fprintf(out, "nanochat_dist %s\ncommit     %s\nbuild      %s\n", nd_build_version(),
            nd_build_commit(), options);
    fprintf(out, "libraries  %s, HDF5 %s, %s, OpenSSL %s, jansson %s\n", mpi, hdf5, products,
            OpenSSL_version(OPENSSL_VERSION_STRING), jansson_version_str());
}
