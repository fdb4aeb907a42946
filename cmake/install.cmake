# Installs the headers, a CMake package and a pkg-config file. Export sets of their own for what needs CUDA, OpenMP, MPI, NCCL,
# ZeroMQ, a BLAS or LAPACK, LibTorch or nlohmann-json, which the user's machine may lack.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_directory ${CMAKE_INSTALL_DATADIR}/cmake/pushpull)
foreach(target pushpull pushpull_cuda pushpull_openmp pushpull_mpi pushpull_nccl pushpull_checkpoint pushpull_profile pushpull_zmq
    pushpull_blas pushpull_lapack pushpull_cublas pushpull_cusolver pushpull_torch)
  install(TARGETS ${target} EXPORT ${target} FILE_SET HEADERS)
  install(EXPORT ${target} NAMESPACE pushpull:: FILE ${target}_targets.cmake DESTINATION ${package_directory})
endforeach()

configure_package_config_file(cmake/pushpullConfig.cmake.in "${PROJECT_BINARY_DIR}/pushpullConfig.cmake"
  INSTALL_DESTINATION ${package_directory} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/pushpullConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
  FILES "${PROJECT_BINARY_DIR}/pushpullConfig.cmake" "${PROJECT_BINARY_DIR}/pushpullConfigVersion.cmake"
        cmake/pushpullDependencies.cmake cmake/pushpullRangeV3ForNvcc.cmake
  DESTINATION ${package_directory})

# As seen from the folder of the pkg-config file, so that the installed files can be moved.
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_DATADIR BASE_DIRECTORY /prefix OUTPUT_VARIABLE pushpull_data)
cmake_path(IS_ABSOLUTE CMAKE_INSTALL_INCLUDEDIR pushpull_absolute)
if(pushpull_absolute)
  set(pushpull_includedir "${CMAKE_INSTALL_INCLUDEDIR}")
else()
  set(pushpull_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
cmake_path(IS_ABSOLUTE CMAKE_INSTALL_DATADIR pushpull_absolute)
if(pushpull_absolute)
  set(pushpull_prefix "${CMAKE_INSTALL_PREFIX}")
else()
  set(pushpull_prefix /prefix)
  cmake_path(RELATIVE_PATH pushpull_prefix BASE_DIRECTORY "${pushpull_data}/pkgconfig")
  set(pushpull_prefix "\${pcfiledir}/${pushpull_prefix}")
endif()
configure_file(packaging/pushpull.pc.in "${PROJECT_BINARY_DIR}/pushpull.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/pushpull.pc" DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
