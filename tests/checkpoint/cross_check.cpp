/// @file
/// The half of cross_check.py and adamw_check.py that uses pushpull:
///   cross_check write <file>   writes the tensors that the script expects
///   cross_check states <file>  writes a store's optimizer states
///   cross_check read <file>    prints what is in a file, as JSON
///   cross_check step <weights> <states> <gradients> <new weights> <new states>
///                              a step of AdamW on two devices; states "-" are those of the first step
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

/// The matrix of that name in a file.
pp::tensor<float> read_tensor(cp::safetensors_file const& file, std::string const& name) {
  pp::tensor<float> result(pp::cpu_device<>(), file.find(name).shape);
  cp::copy(file.find(name), result.view());
  return result;
}

/// One step with the gradients of a file, on the second device; those of the first are zeros.
void step(std::vector<std::string> const& files) {
  cp::safetensors_file const weights(files[0]), gradients(files[2]);
  pp::kv_store<float, pp::cpu_device<>, pp::update::adamw, pp::synchronous> store{pp::cpu_devices(2)};
  for (std::string const& name : weights.names()) store.init(name, read_tensor(weights, name));
  if (files[1] != "-") cp::load_optimizer_states(store, files[1]);
  std::vector<pp::tensor<float>> results;
  std::vector<cp::entry> entries;
  results.reserve(weights.names().size());
  for (std::string const& name : weights.names()) {
    std::vector<pp::tensor<float>> sources;
    sources.emplace_back(pp::cpu_device<>(), weights.find(name).shape);
    sources.push_back(read_tensor(gradients, name));
    results.emplace_back(pp::cpu_device<>(), weights.find(name).shape);
    store.pushpull(name, sources, results.back());
    entries.push_back(cp::entry_of(name, results.back()));
  }
  cp::write_safetensors(files[3], entries, {});
  cp::save_optimizer_states(store, files[4]);
}

}  // namespace

int main(int argc, char* argv[]) try {
  std::vector<std::string> const arguments(argv, argv + argc);
  if (argc == 7 && arguments[1] == "step") {
    step({arguments.begin() + 2, arguments.end()});
    return 0;
  }
  if (argc != 3) throw pp::invalid_argument("write <file>, states <file>, read <file> or step and five files expected");
  arguments[1] == "write" ? write(arguments[2]) : arguments[1] == "states" ? states(arguments[2]) : read(arguments[2]);
} catch (std::exception const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
