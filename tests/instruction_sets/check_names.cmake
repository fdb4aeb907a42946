# cmake -D nm=<program> -D first=<object> -D second=<object> -P check_names.cmake
# Fails if both objects define a function of the library under one name. Classes of error.hpp may have the same names.
cmake_minimum_required(VERSION 3.25)

# Sets `result` to the names in `object` that contain the library's namespace, as the linker sees them.
function(names_of object result)
  set(file "${CMAKE_CURRENT_BINARY_DIR}/names.txt")
  execute_process(COMMAND "${nm}" --defined-only --format=just-symbols "${object}" OUTPUT_FILE "${file}"
                  COMMAND_ERROR_IS_FATAL ANY)
  file(STRINGS "${file}" lines REGEX "8pushpull")
  set(${result} ${lines} PARENT_SCOPE)
endfunction()

names_of("${first}" names)
names_of("${second}" others)
list(LENGTH names count)
if(count LESS 100)
  message(FATAL_ERROR "${first} defines ${count} functions of the library: far too few")
endif()
foreach(name IN LISTS names)
  set("defined_${name}" ON)
endforeach()

# error.hpp: members, virtual tables and type information of its classes.
set(errors "error|invalid_argument|unknown_key|duplicate_key|shape_mismatch|unknown_device|duplicate_device|out_of_memory|[a-z]+_error")
set(common "")
foreach(name IN LISTS others)
  if(DEFINED "defined_${name}" AND NOT name MATCHES "^_Z(TV|TI|TS)?N8pushpull[0-9]+(${errors})([CDE].*)?$")
    string(APPEND common "\n  ${name}")
  endif()
endforeach()
if(common)
  message(FATAL_ERROR "Defined for both instruction sets:${common}")
endif()
