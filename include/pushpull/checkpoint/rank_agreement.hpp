/// @file
/// Calls that take effect on all ranks of a store, or on none.
#pragma once

#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/exchange/rank_group.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// The texts of all ranks, in their order. All ranks call it.
inline std::vector<std::string> gather_texts(pushpull::detail::owning_ranks const& ranks, std::string_view own) {
  if (ranks.group == nullptr) return {std::string(own)};
  std::vector<std::string> result;
  try {
    for (auto const& bytes : ranks.group->gather_all(std::as_bytes(std::span(own))))
      result.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  } catch (...) {
    ranks.group->note(std::current_exception());
    throw;
  }
  return result;
}

/// f(), which throws on all ranks if it throws on one. All ranks call it.
/// @throws what f throws; file_error that names another rank and its error
template <class F>
void all_or_none(pushpull::detail::owning_ranks const& ranks, char const* call, F const& f) {
  if (ranks.group == nullptr) return f();
  std::exception_ptr own;
  std::string text;
  try {
    f();
  } catch (comm_error const&) {  // which all ranks meet
    throw;
  } catch (std::exception const& error) {
    own = std::current_exception();
    text = std::string("x") + error.what();  // never empty
  }
  auto const all = gather_texts(ranks, text);
  if (own) std::rethrow_exception(own);
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (!all[rank].empty())
      throw file_error(std::string(call) + ": rank " + std::to_string(rank) + ": " + all[rank].substr(1));
}

}  // namespace pushpull::checkpoint::detail
