# cmake -D include_directory=<folder> -P check_floors.cmake
# A header includes headers of its own folder and of the floors below it, never of a floor above or of a folder beside it:
# what stands below can be read, and used, without what stands above. Umbrellas, which belong to no folder, are free.
cmake_minimum_required(VERSION 3.25)

# From the ground up; folders of one floor are joined by a comma and do not include each other.
set(floors
    "detail"                  # what no user names, and config.hpp and error.hpp
    "element,launch,profile"  # element types, shapes, counts of bytes; places of processes; counters and traces
    "registers"               # packs and blocks of elements, and how they reach memory
    "concepts"                # what types must do
    "device"                  # memory, streams and loops over task numbers
    "tensor"                  # elements on a device
    "comm,reduce,schedule"    # between processes; between sources; when operations run
    "pass"                    # the one pass, and what it reads
    "update"                  # rules and transforms
    "compress,lr_schedule"    # gradients on their way; hyperparameters over time
    "compat"                  # other libraries' optimizers and schedulers
    "store"                   # keys, calls, stores
    "checkpoint,interop"      # files; other libraries' tensors
    "remote,train"            # servers and their workers; batches, executors, modules
)
set(ground config.hpp error.hpp)
set(umbrellas pushpull.hpp pushpull.cuh concepts.hpp lr_schedule.hpp train.hpp)

set(height 0)
foreach(floor IN LISTS floors)
  math(EXPR height "${height} + 1")
  string(REPLACE "," ";" folders "${floor}")
  foreach(folder IN LISTS folders)
    set(height_of_${folder} ${height})
  endforeach()
endforeach()

# folder_of(<header> <variable>): its room; detail folders belong to the folder that they are in.
function(folder_of header variable)
  if(header IN_LIST ground)
    set(${variable} detail PARENT_SCOPE)
  else()
    string(REGEX REPLACE "/.*" "" folder "${header}")
    set(${variable} ${folder} PARENT_SCOPE)
  endif()
endfunction()

set(root "${include_directory}/pushpull")
file(GLOB_RECURSE headers RELATIVE "${root}" "${root}/*.hpp" "${root}/*.cuh")
list(REMOVE_ITEM headers ${umbrellas})
set(faults "")
foreach(header IN LISTS headers)
  folder_of(${header} folder)
  if(NOT DEFINED height_of_${folder})
    string(APPEND faults "\n  ${header}: the floors of check_floors.cmake do not name its folder")
    continue()
  endif()
  file(STRINGS "${root}/${header}" lines REGEX "^ *# *include *<pushpull/")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE ".*<pushpull/([^>]+)>.*" "\\1" included "${line}")
    if(included IN_LIST umbrellas)
      string(APPEND faults "\n  ${header} includes the umbrella ${included}")
      continue()
    endif()
    folder_of(${included} below)
    if(folder STREQUAL below)
      continue()
    endif()
    if(NOT DEFINED height_of_${below} OR NOT height_of_${below} LESS height_of_${folder})
      string(APPEND faults "\n  ${header} includes ${included}, which is not below it")
    endif()
  endforeach()
endforeach()
if(faults)
  message(FATAL_ERROR "Includes that run back up:${faults}")
endif()
