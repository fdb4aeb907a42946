/// @file
/// Keys and values that all ranks of a store are given alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// FNV-1a, 64 bits (Fowler, Noll, Vo): the same on every rank.
inline std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (char const c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

/// A reference to a function of any type.
template <class R, class... A>
class called_function {
 public:
  template <class F>
  explicit called_function(F const& f)
      : function_(&f),
        call_([](void const* function, A... a) -> R { return (*static_cast<F const*>(function))(a...); }) {}

  R operator()(A... a) const { return call_(function_, a...); }

 private:
  void const* function_;
  R (*call_)(void const*, A...);
};

/// The work of expect_agreement, compiled once for all functions.
template <class = void>
void expect_alike(rank_group& ranks, std::string const& call, std::size_t count,
                  called_function<std::string, std::size_t> text) {
  std::vector<std::uint64_t> own(count);
  for (std::size_t i = 0; i < count; ++i) own[i] = hash_of(text(i));
  auto const all = ranks.gather_all(std::as_bytes(std::span(own)));
  auto const number_of = [&](std::size_t rank, std::size_t i) {
    std::uint64_t number = 0;
    if (i < all[rank].size() / sizeof(number))
      std::memcpy(&number, all[rank].data() + i * sizeof(number), sizeof(number));
    return number;
  };
  std::size_t most = 0;
  for (auto const& numbers : all) most = std::max(most, numbers.size() / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < most; ++i)
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (number_of(rank, i) != number_of(0, i)) {
        std::string const mine = i < count ? text(i) : "nothing";
        auto const texts = ranks.gather_all(std::as_bytes(std::span(mine)));
        auto const of = [&](std::size_t r) {
          return std::string(reinterpret_cast<char const*>(texts[r].data()), texts[r].size());
        };
        throw invalid_argument(call + ": ranks disagree: rank 0 came with " + of(0) + ", rank " + std::to_string(rank) +
                               " with " + of(rank));
      }
}

/// Compares a list of texts over all ranks. All ranks call it, and all throw or none.
/// @param text  text(i) -> std::string, for i in [0, count).
/// @throws invalid_argument that names the first text that differs, as rank 0 and the first other rank have it
template <class Text>
void expect_agreement(rank_group& ranks, std::string const& call, std::size_t count, Text const& text) {
  expect_alike(ranks, call, count, called_function<std::string, std::size_t>(text));
}

/// No more texts to compare.
struct no_texts {
  template <class Result>
  std::vector<std::string> operator()(Result const&) const {
    return {};
  }
};

/// The work of prepared_alike, compiled once for all results.
template <class = void>
void prepare_alike(rank_group& ranks, std::string const& call, std::string what, called_function<void> prepare,
                   called_function<std::vector<std::string>> more) {
  std::exception_ptr failure;
  try {
    prepare();
  } catch (comm_error const&) {
    throw;
  } catch (std::exception const& error) {
    failure = std::current_exception();
    what += ", which fails with: " + std::string(error.what());
  }
  std::vector<std::string> texts;
  if (!failure) texts = more();
  texts.insert(texts.begin(), std::move(what));
  expect_agreement(ranks, call, texts.size(), [&](std::size_t i) { return texts[i]; });
  if (failure) std::rethrow_exception(failure);
}

/// The result of prepare(), if `what`, the text of its arguments, and the texts of more(result) are the same on all ranks.
/// All ranks call it, and all throw or none.
/// @throws what prepare throws; invalid_argument if ranks disagree, or if it fails on some of them only
template <class Prepare, class More>
auto prepared_alike(rank_group& ranks, std::string const& call, std::string what, Prepare const& prepare,
                    More const& more) {
  decltype(prepare()) result{};
  auto const keep = [&] { result = prepare(); };
  auto const words = [&] { return more(std::as_const(result)); };
  prepare_alike(ranks, call, std::move(what), called_function<void>(keep),
                called_function<std::vector<std::string>>(words));
  return result;
}

/// A key in words. @param dtype  Empty: none. @param gradient  ", with a gradient" or the like. @param group  Of parameters.
template <class = void>
std::string text_of_key(std::string text, pushpull::shape const& shape, std::string_view dtype,
                        std::string_view gradient, bool mirrored, std::size_t group) {
  text.append(" of shape ").append(to_string(shape));
  if (!dtype.empty()) text.append(" of ").append(dtype);
  text.append(gradient);
  if (!mirrored) text.append(", without mirrors");
  if (group > 0) text.append(", in parameter group ").append(std::to_string(group));
  return text;
}

/// @param store  The store in words: devices, element type, rule. @param rules  Its hyperparameters, in words.
/// @param group  group(key) -> the number of its parameter group.
/// @throws invalid_argument on all ranks unless their stores are alike and they name the same keys, in one order, of the same
/// shapes, element types, needs of gradients and options, or if `group` throws on some of them; what it throws on all
template <class KeyView, class View, class Group>
void expect_agreed_keys(rank_group& ranks, std::string const& store, std::vector<std::string> const& rules,
                        std::span<KeyView const> keys, std::span<View const> values,
                        std::vector<bool> const& needs_gradient, key_options options, Group const& group) {
  auto const groups_of_keys = [&] {
    std::vector<std::size_t> groups;
    for (KeyView const& key : keys) groups.push_back(static_cast<std::size_t>(group(key)));
    return groups;
  };
  prepared_alike(ranks, "init", counted(keys.size(), "key") + " of a store of " + store, groups_of_keys,
                 [&](std::vector<std::size_t> const& groups) {
                   std::vector<std::string> texts = rules;
                   std::string_view dtype, gradient;
                   if constexpr (requires { typename View::value_type; })
                     dtype = dtype_traits<std::remove_const_t<typename View::value_type>>::name;
                   for (std::size_t i = 0; i < keys.size(); ++i) {
                     if (i < needs_gradient.size())
                       gradient = needs_gradient[i] ? ", with a gradient" : ", without a gradient";
                     texts.push_back(text_of_key(key_text(keys[i]), values[i].shape(), dtype, gradient,
                                                 options.mirrored, groups[i]));
                   }
                   return texts;
                 });
}

/// Adds the parts of all local mirrors whose masters other processes have to a step that writes them.
/// @param whole  The key's masters, which device number 0 reaches. @param copies  For after the step.
template <class Table>
void add_distant_mirrors(Table const& table, typename Table::pull_step& step, std::vector<staged_copy>& copies,
                         typename Table::record const& r, typename Table::W* whole) {
  std::vector<typename Table::T*> mirrors;
  for_each_owner(
      table, r, [](auto const&) {},
      [&](distant_part const& part) {
        auto run = whole_key_run<typename Table::pull_step::run_type>(r, whole + part.offset);
        run.size = part.size;
        mirrors.clear();
        for (std::size_t m = 0; m < table.devices().size(); ++m) {
          auto* const mirror = Table::mirror(r, m) + part.offset;
          if (table.reach()(0, m))
            mirrors.push_back(mirror);
          else
            copies.push_back({0, mirror, Table::mirror(r, 0) + part.offset,
                              static_cast<std::size_t>(part.size) * sizeof(typename Table::T)});
        }
        step.add(0, run, {}, mirrors);
      });
}
/// Writes them.
template <class Table>
void fill_distant_mirrors(Table const& table, typename Table::record const& r, typename Table::W* whole) {
  typename Table::pull_step step(table.devices().size());
  std::vector<staged_copy> copies;
  add_distant_mirrors(table, step, copies, r, whole);
  step.commit(table.devices());
  step.run(table.devices());
  copy_behind(table.devices(), copies);
}

/// Initial values that each rank receives from rank 0 when a key is made: one at a time, in the order of the keys. Those of
/// keys without mirrors come in pieces.
template <class Table, class View>
auto values_of_rank_0(Table const& table, std::span<View const> values) {
  using U = std::remove_const_t<typename View::value_type>;
  using D = typename Table::device_type;
  using W = typename Table::W;
  auto const fill = [&table, &values](std::size_t i) {
    return [&table, value = &values[i]](typename Table::record& r) {
      constexpr std::int64_t piece = std::int64_t{1} << 18;
      bool const is_mirrored = r.arena->resident();
      std::int64_t const step = is_mirrored ? std::max<std::int64_t>(r.size(), 1) : piece;
      std::vector<U> elements(static_cast<std::size_t>(std::min(step, r.size())));
      for (std::int64_t first = 0; first < r.size(); first += step) {
        std::int64_t const size = std::min(step, r.size() - first);
        auto const part = std::span(elements).first(static_cast<std::size_t>(size));
        if (table.owners().rank() == 0)
          copy_bytes(cpu_device<>(), part.data(), value->device(), value->data() + first, part.size_bytes());
        table.ranks().broadcast(std::as_writable_bytes(part));
        table.store_value(r, tensor_view<U const, cpu_device<>>(part.data(), pushpull::shape{size}), first);
      }
      if (!is_mirrored) return;
      auto const& device = table.devices().front();
      buffer<D> const masters(device, static_cast<std::size_t>(padded(r.shape.size())) * sizeof(W));  // read by blocks
      auto* const whole = static_cast<W*>(masters.data());
      copy(tensor_view<U const, cpu_device<>>(elements.data(), r.shape), tensor_view<W, D>(whole, r.shape, device));
      fill_distant_mirrors(table, r, whole);
    };
  };
  std::vector<filled_value<decltype(fill(0))>> result;
  for (std::size_t i = 0; i < values.size(); ++i) result.push_back({values[i].shape(), fill(i)});
  return result;
}

}  // namespace pushpull::detail
