# cmake -D tests=<folder> -P check_rule_ids.cmake
# Every rule of MXNet's and DJL's trainers that rule_ids.txt names is cited, by its id, in the name of a test.
cmake_minimum_required(VERSION 3.25)

file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/rule_ids.txt" ids REGEX "^[A-Z]")
file(GLOB_RECURSE sources "${tests}/*.cpp" "${tests}/*.hpp" "${tests}/*.cu" "${tests}/*.cmake")
set(cited "")
foreach(source IN LISTS sources)
  file(READ "${source}" text)
  string(REGEX REPLACE "[][;]" " " text "${text}")  # which CMake's lists would take for their own
  string(REGEX MATCHALL "TEST_CASE\\([ \n]*(\"[^\"]*\"[ \n]*)+" names "${text}")
  string(REGEX MATCHALL "[^A-Za-z0-9_.][ABC][0-9]+[.-]?[0-9]*" found " ${names}")
  list(APPEND cited ${found})
endforeach()
list(TRANSFORM cited REPLACE "^.(.*[0-9])[.-]?$" "\\1")
list(REMOVE_DUPLICATES cited)
list(REMOVE_ITEM ids ${cited})
if(ids)
  list(LENGTH ids count)
  list(JOIN ids " " ids)
  message(FATAL_ERROR "${count} rules that no test cites: ${ids}")
endif()
