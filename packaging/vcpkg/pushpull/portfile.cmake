# An overlay port: vcpkg install pushpull --overlay-ports=<source tree>/packaging/vcpkg. It packs the source tree that it lies in.
# CCCL comes from an installed CUDA Toolkit, which vcpkg does not build.
set(VCPKG_BUILD_TYPE release)  # headers only
cmake_path(SET SOURCE_PATH NORMALIZE "${CMAKE_CURRENT_LIST_DIR}/../../..")

vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_EXAMPLES=OFF -DPUSHPULL_BUILD_BENCHMARKS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/pushpull)
vcpkg_fixup_pkgconfig()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug" "${CURRENT_PACKAGES_DIR}/lib")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
