#include "exchange/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

nd_status nd_mapped_file_open(const char *path, nd_mapped_file *file)
{
    struct stat info;
    nd_status status = ND_OK;
    *file = (nd_mapped_file){NULL, 0};
    const int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ND_FAIL_IF(descriptor < 0, ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = ND_FAIL(ND_EDATA, "%s: not a regular file", path);
    } else if (info.st_size == 0) {
        status = ND_FAIL(ND_EDATA, "%s: the file is empty", path);
    } else {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED)
            status = ND_FAIL(ND_EDATA, "%s: cannot map this file: %s", path, strerror(errno));
        else
            *file = (nd_mapped_file){bytes, (size_t)info.st_size};
    }
    close(descriptor);
    return status;
}

void nd_mapped_file_close(nd_mapped_file *file)
{
    if (file->bytes)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (nd_mapped_file){NULL, 0};
}
