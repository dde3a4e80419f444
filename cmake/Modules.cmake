# Warnings, sanitizers and coverage for the project's own files.
add_library(nd_warnings INTERFACE)
target_compile_options(nd_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
    -Wmissing-prototypes -Wno-sign-conversion -fno-math-errno>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
if(ND_WERROR)
    target_compile_options(nd_warnings INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()
target_compile_definitions(nd_warnings INTERFACE _GNU_SOURCE ND_HAVE_CUDA=${ND_HAVE_CUDA}
    ND_HAVE_NCCL=${ND_HAVE_NCCL} ND_HAVE_CUDNN=${ND_HAVE_CUDNN} ND_FAULT_POINTS=$<BOOL:$<TARGET_PROPERTY:ND_FAULT_POINTS>>
    ND_VERSION="${PROJECT_VERSION}")

# The commit, in an object of the program alone: a commit must not link every test anew.
set(commit_file ${CMAKE_BINARY_DIR}/generated/commit.c)
add_custom_target(nd_find_commit BYPRODUCTS ${commit_file}
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} -DFILE=${commit_file}
            -P ${CMAKE_SOURCE_DIR}/cmake/Commit.cmake
    VERBATIM)
add_library(nd_commit OBJECT ${commit_file})
add_dependencies(nd_commit nd_find_commit)

if(ND_SANITIZE)
    # -g1: functions and lines, which is what a report names; more only makes compiling longer.
    add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${ND_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all;-g1>")
    add_link_options(-fsanitize=${ND_SANITIZE})
    # What they are told; -u takes it from its archive into every program.
    add_library(nd_sanitizer STATIC ${CMAKE_SOURCE_DIR}/tests/sanitizers/defaults.c)
    add_link_options(-Wl,-u,nd_sanitizer_defaults)
    link_libraries(nd_sanitizer)
endif()
if(ND_COVERAGE)
    add_compile_options(--coverage -O1)
    add_link_options(--coverage)
endif()

# Generated code and the C++ shim keep their own, laxer flags.
set(ND_GENERATED ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${ND_GENERATED})
add_custom_command(
    OUTPUT ${ND_GENERATED}/event.pb-c.c ${ND_GENERATED}/event.pb-c.h
    COMMAND ${PROTOC_C} --c_out=${ND_GENERATED} --proto_path=${CMAKE_SOURCE_DIR}/src/train/log
            ${CMAKE_SOURCE_DIR}/src/train/log/event.proto
    DEPENDS ${CMAKE_SOURCE_DIR}/src/train/log/event.proto
    VERBATIM)
add_library(nd_events STATIC ${ND_GENERATED}/event.pb-c.c)
target_include_directories(nd_events SYSTEM PUBLIC ${ND_GENERATED})
target_link_libraries(nd_events PUBLIC PkgConfig::PROTOBUF_C)

add_library(nd_sentencepiece STATIC src/data/tokenizer/sentencepiece_shim.cc)
target_include_directories(nd_sentencepiece PRIVATE src)
target_link_libraries(nd_sentencepiece PRIVATE PkgConfig::SENTENCEPIECE sentencepiece_train)

# nd_add_module(name USES targets...): the static library nd_<name> of src/<name>/**.c. A file named
# *_avx2.c, *_avx2_vnni.c, *_avx512.c, *_avx512_vnni.c, *_avx512_bf16.c, *_amx.c or *_dotprod.c is
# compiled for that instruction set and only entered after asking the CPU.
function(nd_add_module name)
    cmake_parse_arguments(MODULE "" "" "USES" ${ARGN})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.c)
    list(FILTER sources EXCLUDE REGEX "/(main|device_none)\\.c$")
    add_library(nd_${name} STATIC ${sources})
    target_include_directories(nd_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(nd_${name} PUBLIC ${MODULE_USES} PRIVATE nd_warnings)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        set(avx2 -mavx2 -mfma -mf16c)
        set(avx2_vnni ${avx2} -mavxvnni)
        set(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
            -mprefer-vector-width=512)
        set(avx512_vnni ${avx512} -mavx512vnni)
        set(avx512_bf16 ${avx512} -mavx512bf16)
        set(amx ${avx512} -mamx-tile -mamx-int8 -mamx-bf16)
        foreach(source ${sources})
            if(source MATCHES "_((avx2|avx512)(_vnni|_bf16)?|amx)\\.c$")
                set_source_files_properties(${source} PROPERTIES
                    COMPILE_OPTIONS "${${CMAKE_MATCH_1}}")
            endif()
        endforeach()
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
        list(FILTER sources INCLUDE REGEX "_dotprod\\.c$")
        if(sources)
            set_source_files_properties(${sources} PROPERTIES
                COMPILE_OPTIONS -march=armv8.2-a+dotprod)
        endif()
    endif()
endfunction()
