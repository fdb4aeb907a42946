# cmake -D command=<list> -D seconds=<limit> -D message=<regular expression> -P check_fault.cmake
# The job ends by itself, in time, with a status that is not zero and with this message.
cmake_minimum_required(VERSION 3.25)

string(TIMESTAMP begin "%s")
execute_process(COMMAND ${command} TIMEOUT ${seconds} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
string(TIMESTAMP end "%s")
math(EXPR took "${end} - ${begin}")
message("${output}\nstatus ${status} after ${took} s")
if(status MATCHES "timeout")
  message(FATAL_ERROR "The job did not end within ${seconds} s")
elseif(status STREQUAL "0")
  message(FATAL_ERROR "The job ended as if nothing had happened")
elseif(NOT output MATCHES "${message}")
  message(FATAL_ERROR "No message of the job matches: ${message}")
endif()
