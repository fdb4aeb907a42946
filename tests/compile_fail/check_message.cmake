# cmake -D "compiler=<command>" -D source=<file> -D case=<n> -D "expected=<regex>" -P check_message.cmake
# The compiler has to refuse the case in one message of at most 15 lines, whose first line says the reason.
execute_process(COMMAND ${compiler} "-DCASE=${case}" "${source}" RESULT_VARIABLE failed OUTPUT_VARIABLE output
                ERROR_VARIABLE output)
string(REPLACE ";" "," output "${output}")
string(REPLACE "[" "(" output "${output}")  # a bracket that is not closed would join elements of a list
string(REPLACE "]" ")" output "${output}")
string(REPLACE "\\'" "'" output "${output}")
string(STRIP "${output}" output)
string(REGEX REPLACE "\n" ";" lines "${output}")
list(LENGTH lines count)
set(errors ${lines})
list(FILTER errors INCLUDE REGEX "error:")
list(LENGTH errors messages)
set(first "")
if(messages GREATER 0)
  list(GET errors 0 first)
endif()
if(NOT failed OR NOT messages EQUAL 1 OR count GREATER 15 OR NOT first MATCHES "${expected}")
  message(FATAL_ERROR "one message of at most 15 lines expected that says \"${expected}\" first, got ${count} lines with "
                      "${messages} messages:\n${output}")
endif()
