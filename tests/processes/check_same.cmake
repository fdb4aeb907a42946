# cmake -D expected=<list> -D command=<list> -D arguments=<list> -D folder=<path> -P check_same.cmake
# Both commands, called with the arguments and the name of a file, write the same file, and print the same figures for each
# epoch and at the end.
cmake_minimum_required(VERSION 3.25)

foreach(job expected command)
  set(file_${job} "${folder}/weights_of_${job}")
  file(REMOVE "${file_${job}}")
  execute_process(COMMAND ${${job}} ${arguments} "${file_${job}}" TIMEOUT 50
                  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  message("${output}${errors}")
  if(NOT status STREQUAL "0")
    message(FATAL_ERROR "status ${status}: ${${job}}")
  endif()
  # MPI may give the program a terminal, where it draws a bar, the full one perhaps twice. Brackets would end CMake's lists.
  string(REGEX REPLACE "[][]" "" output "${output}")
  set(figures "(100%|[0-9]/[0-9]+)  loss [0-9.]+  accuracy [0-9.]+|test accuracy 0[.][0-9]+ .[0-9]+ of [0-9]+")
  string(REGEX MATCHALL "${figures}" figures_${job} "${output}")
  list(TRANSFORM figures_${job} REPLACE "^(100%|[0-9]/[0-9]+)  " "")
  list(REMOVE_DUPLICATES figures_${job})
  file(SHA256 "${file_${job}}" sum_${job})
endforeach()
list(LENGTH figures_expected count)
if(count LESS 2)
  message(FATAL_ERROR "No figures were printed")
elseif(NOT figures_expected STREQUAL figures_command)
  message(FATAL_ERROR "The figures differ: ${figures_expected} and ${figures_command}")
elseif(NOT sum_expected STREQUAL sum_command)
  message(FATAL_ERROR "The weights differ")
endif()
