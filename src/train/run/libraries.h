/* Versions of the libraries that this program runs with. */
#pragma once

#include <stddef.h>

/* "Open MPI 4.1.4, HDF5 1.10.8, oneDNN 2.6.3, OpenSSL 3.0.17, jansson 2.14", as loaded. */
void nd_program_libraries(char *text, size_t size);
