# How our own tests, examples and benchmarks are compiled. Nothing here reaches whoever uses the library.
include(CheckCXXCompilerFlag)
include(CheckLanguage)

find_program(PUSHPULL_CCACHE ccache)
mark_as_advanced(PUSHPULL_CCACHE)
if(PUSHPULL_CCACHE)
  if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    # What it asks for to keep units with precompiled headers.
    set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros "${PUSHPULL_CCACHE}")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
    endif()
  endif()
  if(NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${PUSHPULL_CCACHE}")
  endif()
endif()

# Options that nobody set are no cache entries: an nvcc or a GPU that comes later is used.
if(NOT DEFINED PUSHPULL_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(PUSHPULL_CUDA ON)
  else()
    set(PUSHPULL_CUDA OFF)
  endif()
endif()
if(PUSHPULL_CUDA)
  # Without a GPU, tests run on the emulator in tests/cuda_emulator, which reads PTX.
  execute_process(COMMAND nvidia-smi --list-gpus OUTPUT_VARIABLE gpus ERROR_QUIET)
  if(gpus MATCHES "GPU 0")
    set(no_gpu OFF)
  else()
    set(no_gpu ON)
  endif()
  if(NOT DEFINED PUSHPULL_EMULATE_CUDA)
    set(PUSHPULL_EMULATE_CUDA ${no_gpu})
  endif()
  if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    if(PUSHPULL_EMULATE_CUDA)
      set(CMAKE_CUDA_ARCHITECTURES 90-virtual)  # the emulator reads PTX, and a driver translates it
    elseif(no_gpu)
      set(CMAKE_CUDA_ARCHITECTURES 90)  # machine code and PTX
    else()
      set(CMAKE_CUDA_ARCHITECTURES native)
    endif()
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # CUDA::cudart, which pushpull::cuda links, is the shared one
  enable_language(CUDA)
endif()

set(CMAKE_CXX_EXTENSIONS OFF)  # -std=c++20 is what the library promises to compile with

# g++ spends about a tenth of its time on collecting garbage, of which templates leave little.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(heap --param=ggc-min-heapsize=1500000)  # in KiB
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:${heap}> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${heap}>)
endif()

add_library(pushpull_warnings INTERFACE)
target_compile_options(pushpull_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-Wconversion>)

check_cxx_compiler_flag(-march=native PUSHPULL_HAS_MARCH_NATIVE)

# pushpull_own_program(<target>): warnings, PTX that the emulator can read, and code for this machine's processor where
# PUSHPULL_NATIVE asks for it.
# A program with a .cu file is left portable: its .cpp and .cu files share inline functions, of which the linker keeps
# one, so all have to be compiled for the same processor.
function(pushpull_own_program target)
  target_link_libraries(${target} PRIVATE pushpull_warnings)
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ${PUSHPULL_WERROR})
  if(PUSHPULL_EMULATE_CUDA)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-compress-mode=none>)
    target_link_options(${target} PRIVATE LINKER:--enable-new-dtags)  # LD_LIBRARY_PATH comes before the runpath
  endif()
  get_target_property(sources ${target} SOURCES)
  if(PUSHPULL_NATIVE AND PUSHPULL_HAS_MARCH_NATIVE AND NOT "${sources}" MATCHES "\\.cu(;|$)")
    target_compile_options(${target} PRIVATE -march=native)
  endif()
endfunction()
