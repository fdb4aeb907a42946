/// @file
/// A program that g++ compiles under a sanitizer holds fewer instances of the same templates, because it takes much longer
/// to compile. All of them are in the programs without one.
#pragma once

#include <tuple>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PUSHPULL_TEST_SANITIZED 1
#else
#define PUSHPULL_TEST_SANITIZED 0
#endif

namespace pushpull::test {

/// The list of types of a TEMPLATE_LIST_TEST_CASE: all, or under a sanitizer the first.
template <class First, class... More>
using first_if_sanitized = std::conditional_t<PUSHPULL_TEST_SANITIZED, std::tuple<First>, std::tuple<First, More...>>;

}  // namespace pushpull::test
