#include "exchange/mapped_file.h"

#include "core/base/close.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

nd_status nd_mapped_file_open(const char *path, nd_mapped_file *file)
{
    struct stat info;
    *file = (nd_mapped_file){NULL, 0};
    ND_CLEANUP(nd_close_descriptor) int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ND_FAIL_IF(descriptor < 0, ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
    ND_FAIL_IF(fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode), ND_EDATA,
               "%s: not a regular file", path);
    ND_FAIL_IF(info.st_size == 0, ND_EDATA, "%s: the file is empty", path);
    void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    ND_FAIL_IF(bytes == MAP_FAILED, ND_EDATA, "%s: cannot map this file: %s", path,
               strerror(errno));
    *file = (nd_mapped_file){bytes, (size_t)info.st_size};
    return ND_OK;
}

void nd_mapped_file_close(nd_mapped_file *file)
{
    if (file->bytes)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (nd_mapped_file){NULL, 0};
}
