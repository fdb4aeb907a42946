# Tests of GPUs on the emulator: with one device, with three that reach each other's memory, and with three that do not.
set(PUSHPULL_EMULATED "1;3;3_apart" CACHE STRING "Ways to run the tests of GPUs on the emulator: each a part of their names")
set(PUSHPULL_EMULATOR_FOLDER "${CMAKE_CURRENT_BINARY_DIR}/cuda_emulator/lib")

# pushpull_discover_emulated_tests(<target> <prefix>): every test, once in each way of PUSHPULL_EMULATED.
function(pushpull_discover_emulated_tests target prefix)
  add_dependencies(${target} pushpull.test.cuda_emulator)
  foreach(way IN LISTS PUSHPULL_EMULATED)
    string(REGEX MATCH "^[0-9]+" devices "${way}")
    string(REGEX MATCH "_apart" apart "${way}")
    set(environment "PUSHPULL_EMULATOR_DEVICES=${devices}" PUSHPULL_EMULATOR_STRICT=1 PUSHPULL_EMULATOR_SUMMARY=1)
    if(apart)
      list(APPEND environment PUSHPULL_EMULATOR_PEERS=0)
    endif()
    # The name of the run sets this discovery of tests apart from the others of the target.
    catch_discover_tests(${target} TEST_PREFIX "${prefix}/emulated.${way}/" TEST_LIST tests_of_${target}.${way}
      EXTRA_ARGS --name emulated.${way})
    # Read by ctest behind the tests' own file: only there can a property be a list.
    set(properties "${CMAKE_CURRENT_BINARY_DIR}/${target}.${way}.cmake")
    file(CONFIGURE OUTPUT "${properties}" @ONLY CONTENT [[
if(tests_of_@target@.@way@)
  set_tests_properties(${tests_of_@target@.@way@} PROPERTIES LABELS "gpu;emulated" TIMEOUT 300 ENVIRONMENT "@environment@"
    FAIL_REGULAR_EXPRESSION "skipped: no CUDA device"
    ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:@PUSHPULL_EMULATOR_FOLDER@")
endif()
]])
    set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${properties}")
  endforeach()
endfunction()
