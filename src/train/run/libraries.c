#include "train/run/libraries.h"

#include "core/backend/backend.h"
#include "data/shards/hdf5_arrays.h"
#include "dist/comm.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>

void nd_program_libraries(char *text, size_t size)
{
    char mpi[128], hdf5[32], products[64];
    nd_comm_library(mpi, sizeof mpi);
    nd_hdf5_version(hdf5, sizeof hdf5);
    nd_cpu_backend_library(products, sizeof products);
    snprintf(text, size, "%s, HDF5 %s, %s, OpenSSL %s, jansson %s", mpi, hdf5, products,
             OpenSSL_version(OPENSSL_VERSION_STRING), jansson_version_str());
}
