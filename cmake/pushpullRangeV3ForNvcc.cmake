# pushpull::range_v3_for_nvcc: makes range-v3, where it is installed, compile under nvcc.
#
# nvcc re-emits one line of range-v3's utility/semiregular_box.hpp, a using-declaration of a conversion operator, with a
# name that does not exist (https://github.com/ericniebler/range-v3/issues/1854), and every header of range-v3 includes
# that file. So a copy with this line written out goes in front of the installed header, for nvcc alone.

option(PUSHPULL_FIX_RANGE_V3 "Give nvcc a copy of one header of range-v3 that it can compile" ON)
find_path(PUSHPULL_RANGE_V3_INCLUDE_DIR range/v3/utility/semiregular_box.hpp HINTS "${range-v3_DIR}/../../../include")
mark_as_advanced(PUSHPULL_FIX_RANGE_V3 PUSHPULL_RANGE_V3_INCLUDE_DIR)

function(pushpull_fix_range_v3)
  set(header range/v3/utility/semiregular_box.hpp)
  set(broken "using ranges::reference_wrapper<T &>::operator T &;")
  set(mended "constexpr operator T &() const noexcept { return this->get(); }  // pushpull: the line changed for nvcc")

  file(READ "${PUSHPULL_RANGE_V3_INCLUDE_DIR}/${header}" text)
  string(FIND "${text}" "${broken}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR
      "pushpull: ${PUSHPULL_RANGE_V3_INCLUDE_DIR}/${header} does not have the line\n  ${broken}\n"
      "that has to be changed for nvcc. If nvcc compiles this range-v3 as it is, pass -DPUSHPULL_FIX_RANGE_V3=OFF.")
  endif()
  string(REPLACE "${broken}" "${mended}" text "${text}")

  # Written only when it changes, so that configuring again rebuilds nothing.
  set(copy "${CMAKE_BINARY_DIR}/pushpull_range_v3_for_nvcc")
  file(WRITE "${copy}/new" "#pragma GCC system_header\n${text}")
  file(MAKE_DIRECTORY "${copy}/include/range/v3/utility")
  file(COPY_FILE "${copy}/new" "${copy}/include/${header}" ONLY_IF_DIFFERENT)

  # Not a system directory: those are searched last, and this one has to come before the installed header's.
  set_target_properties(pushpull::range_v3_for_nvcc PROPERTIES IMPORTED_NO_SYSTEM TRUE)
  target_include_directories(pushpull::range_v3_for_nvcc INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${copy}/include>")
endfunction()

if(NOT TARGET pushpull::range_v3_for_nvcc)
  add_library(pushpull::range_v3_for_nvcc INTERFACE IMPORTED GLOBAL)
  if(PUSHPULL_FIX_RANGE_V3 AND PUSHPULL_RANGE_V3_INCLUDE_DIR AND TARGET CUDA::cudart)
    pushpull_fix_range_v3()
  endif()
endif()
