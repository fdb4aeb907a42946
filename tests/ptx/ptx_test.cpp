/// @file
/// What the compiler made of the Adam pass: one entry, no local memory, 16-byte accesses (8-byte ones of 8-bit elements),
/// each operand once. And of the passes of all other rules: no local memory. And of all passes, over memory of any layout:
/// what they read and write as global memory is global.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptx/address_spaces.hpp"
#include "support/catch.hpp"

namespace {

std::string contents(char const* path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string("cannot read ") + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(std::string const& text, std::string const& pattern) {
  std::regex const expression(pattern);
  return static_cast<std::size_t>(
      std::distance(std::sregex_iterator(text.begin(), text.end(), expression), std::sregex_iterator()));
}

/// Of Adam itself, not of a rule around it; seven, of which one rounds and adds earlier sums. And 43 rules in two sets of types.
std::string const adam = "pushpull.*bodyINS[0-9A-Z]*_6update4adamE.*", unrounded = ".*Lb0ELb0E";
constexpr std::size_t passes_in_arenas = 7 + 2 * 43;

/// The bodies of the entries whose names match, up to the next entry.
std::vector<std::string> entries(std::string const& ptx, std::string const& name) {
  std::vector<std::string> found;
  for (std::size_t at = ptx.find(".entry"); at != std::string::npos; at = ptx.find(".entry", at + 1)) {
    std::string const body = ptx.substr(at, ptx.find(".entry", at + 1) - at);
    if (count(body.substr(0, body.find('\n')), name) > 0) found.push_back(body);
  }
  return found;
}

/// `wide`: 16-byte accesses of a float operand per block. A pass has 8 guarded sources and one in a loop behind them,
/// and as many mirrors, each of one access, of 8 bytes if `narrow`; the master and two states have `wide` each.
void check(std::string const& body, std::size_t wide, bool narrow) {
  std::size_t const operands = 9, owned = 3;
  REQUIRE(count(body, R"(\.local|\bld\.local|\bst\.local)") == 0);
  // An operand behind the eighth is found through a table, so its address space is generic.
  std::size_t const wide_loads = count(body, R"(\bld\.(global\.)?v4\.[a-z]32|\bld\.(global\.)?v2\.[a-z]64)");
  std::size_t const wide_stores =
      count(body, R"(\bst\.(global\.)?(wb\.)?v4\.[a-z]32|\bst\.(global\.)?(wb\.)?v2\.[a-z]64)");
  std::size_t const narrow_loads = count(body, R"(\bld\.(global\.)?v2\.[a-z]32)");
  std::size_t const narrow_stores = count(body, R"(\bst\.(global\.)?(wb\.)?v2\.[a-z]32)");
  REQUIRE(wide_loads == (narrow ? 0 : operands) + owned * wide);
  REQUIRE(wide_stores == (narrow ? 0 : operands) + owned * wide);
  REQUIRE(narrow_loads == (narrow ? operands : 0) + 1);  // which rule the key has, and a prepared scalar beside it
  REQUIRE(narrow_stores == (narrow ? operands : 0));
  // What else is read: the rule's two hyperparameters, the other prepared scalar, a pointer in each of two tables.
  std::size_t const loads = count(body, R"(\bld\.(?!param|const|shared)[a-z0-9.]+)");
  REQUIRE(loads - wide_loads - narrow_loads == 2 + 1 + 2);
  REQUIRE(count(body, R"(\bst\.(?!param|shared)[a-z0-9.]+)") == wide_stores + narrow_stores);
}

}  // namespace

TEST_CASE("the Adam pass is one entry whose accesses are 16 bytes wide", "[ptx]") {
  std::string const ptx = contents(PUSHPULL_PTX);
  auto const bfloat16 = entries(ptx, adam + "bfloat16" + unrounded);
  REQUIRE(bfloat16.size() == 1);
  auto const float8 = entries(ptx, adam + "fp8_e5m2" + unrounded);
  REQUIRE(float8.size() == 1);
  auto const all = entries(ptx, adam + unrounded);
  REQUIRE(all.size() == 6);
  auto const decoding = entries(ptx, adam + "(_code|coded_states)" + unrounded);
  REQUIRE(decoding.size() == 3);
  for (auto const& body : decoding) REQUIRE(count(body, R"(\.local|\bld\.local|\bst\.local)") == 0);
  for (auto const& body : all)
    if (std::find(decoding.begin(), decoding.end(), body) == decoding.end())
      check(body, body == bfloat16[0] || body == float8[0] ? 2 : 1, body == float8[0]);
}

TEST_CASE("the Adam pass over states of 8 bits reads and writes each code once, four at a time", "[ptx]") {
  auto const coded = entries(contents(PUSHPULL_PTX), adam + "coded_states" + unrounded);
  REQUIRE(coded.size() == 1);
  std::size_t const operands = 9, parts = 2, states = 2;
  // A source without others has a path of its own, with a part of which the compiler may join the other path.
  std::size_t const wide_loads = count(coded[0], R"(\bld\.(global\.)?v4\.[a-z]32)");
  CHECK((wide_loads >= (operands + 1) * parts && wide_loads <= (operands + 2) * parts));
  CHECK(count(coded[0], R"(\bst\.(global\.)?v4\.[a-z]32)") == (operands + 1) * parts);
  // Words of codes, and a unit of each state.
  CHECK(count(coded[0], R"(\bld\.global\.[a-z]32)") == states * (parts + 1) + 1);  // and a prepared scalar
  CHECK(count(coded[0], R"(\bst\.(global\.)?[a-z]32)") == states * (parts + 1));
}

TEST_CASE("the pass of no rule spills or has a stack", "[ptx]") {
  std::string const usage = contents(PUSHPULL_USAGE);
  std::size_t const rules = count(usage, "Compiling entry function '[^']*pushpull[^']*body");
  REQUIRE(rules == passes_in_arenas);
  REQUIRE(count(usage, "bytes stack frame") >= rules);
  REQUIRE(count(usage, "bytes stack frame") ==
          count(usage, "\\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"));
}

TEST_CASE("an address of local or shared memory or of an argument is found in an access of global memory", "[ptx]") {
  auto const found = [](std::string const& address, std::string const& access) {
    return pushpull::test::misplaced_accesses(R"(.entry f(
	.param .u64 f_param_0
)
{
	.local .align 64 .b8 	__local_depot1[64];
	.shared .align 4 .b8 scratch[16];
	mov.u64 	%SPL, __local_depot1;
	cvta.local.u64 	%SP, %SPL;
	ld.param.u64 	%rd1, [f_param_0];
	)" + address + R"(
	@%p1 bra 	$L__BB1_1;
	add.s64 	%rd3, %rd2, 16;
	)" + access + "\n}")
        .size();
  };
  REQUIRE(found("add.u64 	%rd2, %SP, 0;", "st.global.wb.v4.u32 [%rd3], {%r1,%r2,%r3,%r4};") == 1);
  REQUIRE(found("cvta.shared.u64 	%rd2, %rd9;", "@%p2 ld.global.f32 	%f1, [%rd3+4];") == 1);
  REQUIRE(found("mov.u64 	%rd2, scratch;", "atom.global.add.u32 	%r1, [%rd3], %r2;") == 1);
  REQUIRE(found("mov.b64 	%rd2, f_param_0;", "ld.global.nc.f32 	%f1, [%rd3];") == 1);
  REQUIRE(found("cvta.to.global.u64 	%rd2, %rd1;", "st.global.wb.v4.u32 [%rd3], {%r1,%r2,%r3,%r4};") == 0);
  REQUIRE(found("add.u64 	%rd2, %SP, 0;", "st.v2.u32 	[%rd3], {%r1,%r2};") == 0);
  REQUIRE(found("add.u64 	%rd2, %SPL, 0;", "ld.local.f32 	%f1, [%rd3];") == 0);
}

TEST_CASE("no pass has an array in local memory or reads or writes it as global memory", "[ptx]") {
  struct file {
    char const* path;
    std::size_t passes;
  };
  for (file const f : {file{PUSHPULL_PTX, passes_in_arenas}, {PUSHPULL_LAYOUTS_PTX, 66}}) {
    auto const passes = entries(contents(f.path), "pushpull");
    CHECK(passes.size() == f.passes);
    for (auto const& body : passes) {
      INFO(body.substr(0, body.find('\n')));
      CHECK(body.find("__local_depot") == std::string::npos);
      CHECK(pushpull::test::misplaced_accesses(body) == std::vector<std::string>());
    }
  }
}
