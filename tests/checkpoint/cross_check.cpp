/// @file
/// The half of cross_check.py that uses pushpull:
///   cross_check write <file>   writes the tensors that the script expects
///   cross_check states <file>  writes a store's optimizer states
///   cross_check read <file>    prints what is in a file, as JSON
#include <pushpull/checkpoint/optimizer_states.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <tuple>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;

using elements = std::tuple<float, double, pp::half, pp::bfloat16, std::int32_t, std::int64_t, std::uint8_t>;

/// Calls `f` with an element of each type.
void for_each_type(auto const& f) {
  std::apply([&](auto... element) { (f(element), ...); }, elements{});
}

void write(std::string const& path) {
  std::vector<cp::entry> entries;
  // 0, 1.5, 3, ..., less what the type has not
  auto const values = std::apply(
      [](auto... element) {
        auto const six = [](auto e) {
          std::array<decltype(e), 6> result{};
          for (std::size_t i = 0; i < 6; ++i) result[i] = pp::convert<decltype(e)>(1.5F * static_cast<float>(i));
          return result;
        };
        return std::tuple{six(element)...};
      },
      elements{});
  auto const add = [&](auto const& six) {
    std::string const name = cp::entry_of("", six).dtype;
    entries.push_back(cp::entry_of(name + "/matrix", pp::tensor_view(six.data(), pp::shape{2, 3})));
    entries.push_back(cp::entry_of(name + "/scalar", pp::tensor_view(six.data() + 2, pp::shape{})));
    entries.push_back(cp::entry_of(name + "/empty", pp::tensor_view(six.data(), pp::shape{0, 5})));
  };
  std::apply([&](auto const&... six) { (add(six), ...); }, values);
  cp::write_safetensors(path, entries, {{"step", "12"}, {"größe", "\"€\"\n"}});
}

void read(std::string const& path) {
  cp::safetensors_file const file(path);
  nlohmann::json result;
  result["metadata"] = file.metadata();
  for (auto const& e : file.entries()) {
    auto& tensor = result["tensors"][e.name];
    tensor["dtype"] = e.dtype;
    tensor["shape"] = std::vector<std::int64_t>(e.shape.begin(), e.shape.end());
    for_each_type([&]<class T>(T) {
      if (e.dtype != cp::safetensors_dtype<T>::name) return;
      std::vector<double> values;
      for (std::size_t i = 0; i < e.shape.size(); ++i) {
        T element;
        std::memcpy(static_cast<void*>(&element), e.bytes.data() + i * sizeof(T), sizeof(T));
        values.push_back(pp::convert<double>(element));
      }
      tensor["values"] = values;
    });
  }
  std::puts(result.dump().c_str());
}

/// Two steps of momentum with gradients of 1: 1, then 1.9.
void states(std::string const& path) {
  pp::kv_store<float, pp::cpu_device<>, pp::update::momentum, pp::synchronous> store{pp::cpu_devices(2)};
  store.init("fc1.weight", pp::tensor<float>(pp::cpu_device<>(), pp::shape{3, 5}));
  pp::tensor<float> gradient(pp::cpu_device<>(), pp::shape{3, 5});
  std::fill_n(gradient.data(), 15, 1.0F);
  for (int t = 0; t < 2; ++t) store.push("fc1.weight", gradient);
  cp::save_optimizer_states(store, path);
}

}  // namespace

int main(int argc, char* argv[]) try {
  std::vector<std::string> const arguments(argv, argv + argc);
  if (argc != 3) throw pp::invalid_argument("write <file>, states <file> or read <file> expected");
  arguments[1] == "write" ? write(arguments[2]) : arguments[1] == "states" ? states(arguments[2]) : read(arguments[2]);
} catch (std::exception const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
