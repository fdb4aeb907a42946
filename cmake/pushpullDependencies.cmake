# Finds what pushpull's targets link. The source tree includes this file, and so does the installed package, on the
# machine of its user: no path of the machine that made the package is ever in it.
#
# Defines pushpull::cccl, pushpull::xsimd, pushpull::range_v3_for_nvcc, and through their own packages TBB::tbb,
# Threads::Threads and, where they exist, CUDA::cudart, OpenMP::OpenMP_CXX, MPI::MPI_CXX, nlohmann_json::nlohmann_json,
# pushpull::libzmq, pushpull::libnccl, pushpull::libcblas, pushpull::liblapacke and pushpull::libtorch.
# Sets pushpull_missing to a list of what has to be installed first; empty if there is nothing.

set(pushpull_missing "")

get_property(pushpull_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(NOT "CXX" IN_LIST pushpull_languages)
  list(APPEND pushpull_missing "  * the language CXX: project(... LANGUAGES CXX), or LANGUAGES CXX CUDA")
  return()
endif()
find_package(Threads QUIET)
if(NOT TARGET Threads::Threads)
  list(APPEND pushpull_missing "  * a thread library")
endif()

find_package(TBB CONFIG QUIET)
if(NOT TARGET TBB::tbb)
  list(APPEND pushpull_missing "  * oneTBB: CMake package TBB not found (Debian: libtbb-dev)")
endif()

find_package(OpenMP QUIET COMPONENTS CXX)

find_package(MPI QUIET COMPONENTS CXX)

# CMake 3.25.1, which Debian 12 has, stops at a CUDA Toolkit 13 without nvToolsExt unless an older CMake is asked for.
set(pushpull_minimum "${CMAKE_MINIMUM_REQUIRED_VERSION}")
set(CMAKE_MINIMUM_REQUIRED_VERSION 3.24)
find_package(CUDAToolkit QUIET)
set(CMAKE_MINIMUM_REQUIRED_VERSION "${pushpull_minimum}")

find_package(nlohmann_json 3.11 CONFIG QUIET)

# NCCL 2.28 or newer, which has no package of CMake's.
find_path(PUSHPULL_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(PUSHPULL_NCCL_LIBRARY nccl HINTS "${CUDAToolkit_LIBRARY_DIR}")
mark_as_advanced(PUSHPULL_NCCL_INCLUDE_DIR PUSHPULL_NCCL_LIBRARY)
set(PUSHPULL_NCCL_HEADER FALSE)  # whether there is one that is new enough
if(PUSHPULL_NCCL_INCLUDE_DIR)
  file(STRINGS "${PUSHPULL_NCCL_INCLUDE_DIR}/nccl.h" pushpull_lines REGEX "^#define NCCL_(MAJOR|MINOR) ")
  string(REGEX MATCHALL "[0-9]+" pushpull_lines "${pushpull_lines}")
  string(JOIN "." pushpull_version ${pushpull_lines})
  if(pushpull_version VERSION_GREATER_EQUAL 2.28)
    set(PUSHPULL_NCCL_HEADER TRUE)
  endif()
endif()
if(PUSHPULL_NCCL_HEADER AND PUSHPULL_NCCL_LIBRARY AND NOT TARGET pushpull::libnccl)
  add_library(pushpull::libnccl UNKNOWN IMPORTED GLOBAL)
  set_target_properties(pushpull::libnccl PROPERTIES
    IMPORTED_LOCATION "${PUSHPULL_NCCL_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${PUSHPULL_NCCL_INCLUDE_DIR}")
endif()

# ZeroMQ: libzmq, and its C++ header cppzmq, whose packages not every system has.
find_path(PUSHPULL_CPPZMQ_INCLUDE_DIR zmq.hpp)
find_path(PUSHPULL_ZMQ_INCLUDE_DIR zmq.h)
find_library(PUSHPULL_ZMQ_LIBRARY zmq)
mark_as_advanced(PUSHPULL_CPPZMQ_INCLUDE_DIR PUSHPULL_ZMQ_INCLUDE_DIR PUSHPULL_ZMQ_LIBRARY)
if(PUSHPULL_CPPZMQ_INCLUDE_DIR AND PUSHPULL_ZMQ_INCLUDE_DIR AND PUSHPULL_ZMQ_LIBRARY AND NOT TARGET pushpull::libzmq)
  add_library(pushpull::libzmq UNKNOWN IMPORTED GLOBAL)
  set_target_properties(pushpull::libzmq PROPERTIES
    IMPORTED_LOCATION "${PUSHPULL_ZMQ_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${PUSHPULL_CPPZMQ_INCLUDE_DIR};${PUSHPULL_ZMQ_INCLUDE_DIR}")
endif()

# A BLAS with its C interface, whose header is not always there: BLA_VENDOR chooses among several (see CMake's FindBLAS).
find_package(BLAS QUIET)
find_path(PUSHPULL_CBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas)
mark_as_advanced(PUSHPULL_CBLAS_INCLUDE_DIR)
if(TARGET BLAS::BLAS AND PUSHPULL_CBLAS_INCLUDE_DIR AND NOT TARGET pushpull::libcblas)
  include(CheckCXXSymbolExists)
  include(CMakePushCheckState)
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_QUIET TRUE)
  if(NOT "${PUSHPULL_CBLAS_OF}" STREQUAL "${BLAS_LIBRARIES}")  # the answer for another BLAS
    unset(PUSHPULL_CBLAS_LINKS CACHE)
    set(PUSHPULL_CBLAS_OF "${BLAS_LIBRARIES}" CACHE INTERNAL "")
  endif()
  set(CMAKE_REQUIRED_INCLUDES "${PUSHPULL_CBLAS_INCLUDE_DIR}")
  set(CMAKE_REQUIRED_LIBRARIES BLAS::BLAS)
  set(CMAKE_REQUIRED_FLAGS -w)  # CMake's program has casts that somebody's flags may refuse
  check_cxx_symbol_exists(cblas_dgemm cblas.h PUSHPULL_CBLAS_LINKS)
  cmake_pop_check_state()
  if(PUSHPULL_CBLAS_LINKS)
    add_library(pushpull::libcblas INTERFACE IMPORTED GLOBAL)
    set_target_properties(pushpull::libcblas PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${PUSHPULL_CBLAS_INCLUDE_DIR}" INTERFACE_LINK_LIBRARIES "${BLAS_LIBRARIES};${BLAS_LINKER_FLAGS}")
  endif()
endif()

# A LAPACK with its C interface, which is a library of its own or part of the LAPACK.
if(TARGET pushpull::libcblas)
  find_package(LAPACK QUIET)
endif()
find_path(PUSHPULL_LAPACKE_INCLUDE_DIR lapacke.h PATH_SUFFIXES openblas)
find_library(PUSHPULL_LAPACKE_LIBRARY lapacke)
mark_as_advanced(PUSHPULL_LAPACKE_INCLUDE_DIR PUSHPULL_LAPACKE_LIBRARY)
if(TARGET LAPACK::LAPACK AND PUSHPULL_LAPACKE_INCLUDE_DIR AND NOT TARGET pushpull::liblapacke)
  include(CheckCXXSymbolExists)
  include(CMakePushCheckState)
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_QUIET TRUE)
  set(pushpull_lapacke "${LAPACK_LIBRARIES};${LAPACK_LINKER_FLAGS}")
  if(PUSHPULL_LAPACKE_LIBRARY)
    list(PREPEND pushpull_lapacke "${PUSHPULL_LAPACKE_LIBRARY}")
  endif()
  if(NOT "${PUSHPULL_LAPACKE_OF}" STREQUAL "${pushpull_lapacke}")  # the answer for another LAPACK
    unset(PUSHPULL_LAPACKE_LINKS CACHE)
    set(PUSHPULL_LAPACKE_OF "${pushpull_lapacke}" CACHE INTERNAL "")
  endif()
  set(CMAKE_REQUIRED_INCLUDES "${PUSHPULL_LAPACKE_INCLUDE_DIR}")
  set(CMAKE_REQUIRED_LIBRARIES ${pushpull_lapacke})
  set(CMAKE_REQUIRED_FLAGS -w)
  check_cxx_symbol_exists(LAPACKE_dsyevd lapacke.h PUSHPULL_LAPACKE_LINKS)
  cmake_pop_check_state()
  if(PUSHPULL_LAPACKE_LINKS)
    add_library(pushpull::liblapacke INTERFACE IMPORTED GLOBAL)
    set_target_properties(pushpull::liblapacke PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${PUSHPULL_LAPACKE_INCLUDE_DIR}" INTERFACE_LINK_LIBRARIES "${pushpull_lapacke}")
  endif()
endif()

# LibTorch, whose package configures much and may end with an error of its own: only where somebody asks for it.
if((PUSHPULL_TORCH OR TARGET torch OR "torch" IN_LIST pushpull_FIND_COMPONENTS) AND NOT TARGET pushpull::libtorch)
  find_package(Torch 1.13 QUIET)
  if(Torch_FOUND AND TARGET torch)
    add_library(pushpull::libtorch INTERFACE IMPORTED GLOBAL)
    separate_arguments(pushpull_flags NATIVE_COMMAND "${TORCH_CXX_FLAGS}")
    set_target_properties(pushpull::libtorch PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}" INTERFACE_LINK_LIBRARIES "${TORCH_LIBRARIES}"
      INTERFACE_COMPILE_OPTIONS "${pushpull_flags}")
  endif()
endif()

# xsimd: only its headers. Its target in Debian 12 links xtl, which its package does not bring.
find_path(PUSHPULL_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp)
mark_as_advanced(PUSHPULL_XSIMD_INCLUDE_DIR)
set(pushpull_version 0)
if(PUSHPULL_XSIMD_INCLUDE_DIR)
  file(STRINGS "${PUSHPULL_XSIMD_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp" pushpull_version
       REGEX "define XSIMD_VERSION_(MAJOR|MINOR) ")
  string(REGEX MATCHALL "[0-9]+" pushpull_version "${pushpull_version}")
  list(JOIN pushpull_version "." pushpull_version)
endif()
if(pushpull_version VERSION_LESS 8.1)
  list(APPEND pushpull_missing "  * xsimd 8.1 or newer: header xsimd/xsimd.hpp not found or older (Debian: libxsimd-dev)")
elseif(NOT TARGET pushpull::xsimd)
  add_library(pushpull::xsimd INTERFACE IMPORTED GLOBAL)
  target_include_directories(pushpull::xsimd INTERFACE "${PUSHPULL_XSIMD_INCLUDE_DIR}")
endif()

# CCCL (Thrust, CUB, libcu++): the CUDA Toolkit's, or an installed one. Only the include directories: the targets of
# its own package choose one of Thrust's systems for all code, and ours names the system in every call.
# A project that has found a CCCL before us gets that one: two in a program would break the one-definition rule.
unset(pushpull_cccl)
set(pushpull_cccl_package FALSE)
if(NOT CCCL_DIR)
  find_path(pushpull_cccl cuda/std/__cccl/version.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES cccl
            NO_DEFAULT_PATH NO_CACHE)
endif()
if(NOT pushpull_cccl)
  set(CCCL_ENABLE_DEFAULT_THRUST_TARGET OFF)
  find_package(CCCL 3.0 CONFIG QUIET)
  unset(CCCL_ENABLE_DEFAULT_THRUST_TARGET)
  set(pushpull_cccl "")
  set(pushpull_cccl_package TRUE)
  foreach(pushpull_target libcudacxx::libcudacxx CUB::CUB Thrust::Thrust)
    if(TARGET ${pushpull_target})
      get_target_property(pushpull_directories ${pushpull_target} INTERFACE_INCLUDE_DIRECTORIES)
      list(APPEND pushpull_cccl ${pushpull_directories})
    endif()
  endforeach()
  list(FILTER pushpull_cccl EXCLUDE REGEX "NOTFOUND$")
  list(REMOVE_DUPLICATES pushpull_cccl)
endif()
set(pushpull_version 0)
foreach(pushpull_directory IN LISTS pushpull_cccl)
  if(EXISTS "${pushpull_directory}/cuda/std/__cccl/version.h")
    file(STRINGS "${pushpull_directory}/cuda/std/__cccl/version.h" pushpull_version REGEX "define CCCL_VERSION ")
    string(REGEX MATCH "[0-9]+" pushpull_version "${pushpull_version}")
  endif()
endforeach()
if(pushpull_version LESS 3000000)
  string(JOIN ", " pushpull_toolkit ${CUDAToolkit_INCLUDE_DIRS})
  list(APPEND pushpull_missing
"  * CCCL 3.0 or newer (Thrust, CUB, libcu++). Looked for cuda/std/__cccl/version.h in the CUDA Toolkit
    (include directory: ${pushpull_toolkit}) and for the CMake package CCCL 3.0 (CCCL_DIR: ${CCCL_DIR}).
    Install the CUDA Toolkit 13.0 or newer (no GPU is needed), or unpack https://github.com/NVIDIA/cccl and pass
    -DCCCL_DIR=<cccl>/lib/cmake/cccl. Debian's libthrust-dev is too old")
elseif(NOT TARGET pushpull::cccl)
  add_library(pushpull::cccl INTERFACE IMPORTED GLOBAL)
  target_include_directories(pushpull::cccl INTERFACE ${pushpull_cccl})
  # nvcc looks into its own toolkit before it looks into system directories, which would find another CCCL.
  set_target_properties(pushpull::cccl PROPERTIES IMPORTED_NO_SYSTEM ${pushpull_cccl_package})
  target_include_directories(pushpull::cccl SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})  # cuda_fp16.h
endif()

include("${CMAKE_CURRENT_LIST_DIR}/pushpullRangeV3ForNvcc.cmake")
