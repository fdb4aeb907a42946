#include "ptx/parser.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "execution/memory.hpp"
#include "instructions/decode.hpp"
#include "ptx/function_body.hpp"
#include "ptx/lexer.hpp"

namespace emulator {
namespace {

std::size_t size_of(std::string const& type) {
  if (type == ".pred") return 1;
  return static_cast<std::size_t>(std::atoi(type.c_str() + type.find_first_of("0123456789"))) / 8;
}

bool is_type(std::string const& word) {
  static std::vector<std::string> const types{".b8",  ".b16", ".b32",  ".b64",  ".b128", ".u8",  ".u16",
                                              ".u32", ".u64", ".s8",   ".s16",  ".s32",  ".s64", ".f16",
                                              ".f32", ".f64", ".bf16", ".pred", ".f16x2"};
  return std::find(types.begin(), types.end(), word) != types.end();
}

/// Takes `bytes` of a space that ends at `end`.
std::size_t place(std::size_t& end, std::size_t bytes, std::size_t alignment) {
  std::size_t const where = (end + alignment - 1) / alignment * alignment;
  end = where + bytes;
  return where;
}

struct variable {
  std::string name;
  std::size_t bytes = 0, alignment = 1;
  std::vector<std::uint8_t> initial;
  bool unsized = false;
};

class parser {
 public:
  parser(tokens t, ptx_module& m) : tokens_(std::move(t)), module_(m) {}
  void read_module();

 private:
  /// A branch whose labels come later in the text.
  struct jump {
    std::size_t from;
    std::string to;
  };

  std::string const& peek(std::size_t ahead = 0) const {
    static std::string const none;
    return at_ + ahead < tokens_.words.size() ? tokens_.words[at_ + ahead] : none;
  }
  std::string const& next() { return tokens_.words.at(at_++); }
  bool accept(char const* word) {
    if (peek() != word) return false;
    ++at_;
    return true;
  }
  void expect(char const* word) {
    if (!accept(word)) refuse(std::string(word) + " expected, got " + peek());
  }
  [[noreturn]] void refuse(std::string const& what) const {
    int const line = tokens_.lines.at(std::min(at_, tokens_.lines.size() - 1));
    throw std::runtime_error("PTX: " + what + " in line " + std::to_string(line));
  }
  void skip_behind(char const* word) {
    while (next() != word) continue;
  }

  variable read_variable();
  void read_initial_value(variable& v, std::size_t element_bytes);

  void read_function(bool entry);
  void read_parameters(function& f, function_body& body, bool results);
  void read_directives(function& f);
  void read_code(function& f, function_body& body);
  bool read_declaration(function& f, function_body& body);
  void read_registers(function_body& body);
  void read_label();
  void read_instruction(function& f, function_body& body);
  void read_call(instruction& i, std::vector<std::string> const& words, std::size_t at, function_body const& body);
  void resolve_labels(function& f);

  tokens tokens_;
  std::size_t at_ = 0;
  ptx_module& module_;
  std::vector<variable> shared_;  // of the module

  // Of the function that is read.
  std::size_t parameter_end_ = 0;
  std::unordered_map<std::string, std::int64_t> labels_;
  std::unordered_map<std::string, std::vector<std::string>> branch_targets_;
  std::vector<jump> jumps_, indirect_jumps_;
};

/// What follows a state space: [.align n] [.ptr ...] .type name[[n]] [= value]
variable parser::read_variable() {
  variable v;
  std::size_t element_bytes = 1;
  while (peek()[0] == '.') {
    if (accept(".align")) {
      v.alignment = std::stoul(next());
    } else if (std::string const& word = next(); is_type(word)) {
      element_bytes = size_of(word);
    }
  }
  v.name = next();
  v.bytes = element_bytes;
  v.alignment = std::max(v.alignment, element_bytes);
  while (accept("[")) {
    if (peek() == "]") {
      v.unsized = true;
      v.bytes = 0;
    } else {
      v.bytes *= std::stoul(next());
    }
    expect("]");
  }
  if (accept("=")) read_initial_value(v, element_bytes);
  return v;
}

void parser::read_initial_value(variable& v, std::size_t element_bytes) {
  auto const read_element = [&] {
    bool const minus = accept("-");
    std::string const word = next();
    std::uint64_t x = 0;
    if (is_number(word)) {
      x = number(word);
    } else if (auto const global = module_.globals.find(word); global != module_.globals.end()) {
      x = global->second.address;
    } else if (word == "generic") {
      expect("(");
      x = module_.globals.at(next()).address;
      expect(")");
    } else {
      refuse("initial value " + word);
    }
    if (minus) x = 0 - x;
    for (std::size_t b = 0; b < element_bytes; ++b) v.initial.push_back(static_cast<std::uint8_t>(x >> 8 * b));
  };
  if (accept("{")) {
    while (!accept("}")) {
      read_element();
      accept(",");
    }
  } else {
    read_element();
  }
  v.initial.resize(std::max(v.initial.size(), v.bytes));
  if (v.unsized) v.bytes = v.initial.size();
}

void parser::read_module() {
  while (at_ < tokens_.words.size()) {
    std::string const word = next();
    if (word == ".version" || word == ".target") {
      next();
      while (accept(",")) next();
    } else if (word == ".address_size") {
      next();
    } else if (word == ".extern") {
      if (peek() == ".func" || peek() == ".entry") skip_behind(";");
    } else if (word == ".global" || word == ".const") {
      variable v = read_variable();
      expect(";");
      v.initial.resize(v.bytes);
      module_.globals[v.name] = {allocate_variable(v.bytes, v.alignment, v.name, v.initial.data()), v.bytes};
    } else if (word == ".shared") {
      shared_.push_back(read_variable());
      expect(";");
    } else if (word == ".entry" || word == ".func") {
      read_function(word == ".entry");
    } else if (word == ".file" || word == ".pragma") {
      skip_behind(";");
    } else if (word == ".section") {
      skip_behind("}");
    } else if (word != ".visible" && word != ".weak" && word != ".common" && word != ";") {
      refuse(word);
    }
  }
}

void parser::read_function(bool entry) {
  auto owned = std::make_unique<function>();
  function& f = *owned;
  f.entry = entry;
  function_body body(f, module_);
  parameter_end_ = 0;
  if (!entry && accept("(")) read_parameters(f, body, true);
  f.name = next();
  if (accept("(")) read_parameters(f, body, false);
  read_directives(f);
  if (accept(";")) return;  // a declaration
  for (auto const& v : shared_)
    body.declare_symbol(v.name, v.unsized ? 0 : place(f.shared_bytes, v.bytes, v.alignment));
  read_code(f, body);
  f.parameter_bytes = parameter_end_;
  std::string const name = f.name;
  module_.functions[name] = std::move(owned);
}

/// Results come first among the parameters.
void parser::read_parameters(function& f, function_body& body, bool results) {
  while (!accept(")")) {
    accept(",");
    if (peek() == ".reg") refuse(".reg parameter");
    expect(".param");
    variable const v = read_variable();
    std::size_t const where = place(parameter_end_, v.bytes, v.alignment);
    body.declare_symbol(v.name, where);
    f.parameters.insert(results ? f.parameters.begin() : f.parameters.end(), {v.name, where, v.bytes});
  }
}

void parser::read_directives(function& f) {
  while (peek() != "{" && peek() != ";") {
    std::string const word = next();
    if (word == ".maxntid" || word == ".reqntid") {
      f.max_threads = std::stoi(next());
      while (accept(",")) f.max_threads *= std::stoi(next());
    } else if (word == ".minnctapersm" || word == ".maxnreg" || word == ".maxclusterrank") {
      next();
    }
  }
}

void parser::read_code(function& f, function_body& body) {
  labels_.clear();
  branch_targets_.clear();
  jumps_.clear();
  indirect_jumps_.clear();
  expect("{");
  for (int depth = 1; depth > 0;) {
    if (accept("{")) {
      ++depth;
      body.open_scope();
    } else if (accept("}")) {
      --depth;
      body.close_scope();
    } else if (peek(1) == ":") {
      labels_[peek()] = static_cast<std::int64_t>(f.code.size());
      read_label();
    } else if (!accept(";") && !read_declaration(f, body)) {
      read_instruction(f, body);
    }
  }
  instruction end;
  decode(end, "ret", {}, body);
  end.text = "(end)";
  f.code.push_back(end);
  resolve_labels(f);
}

void parser::read_label() {
  std::string const name = next();
  expect(":");
  if (!accept(".branchtargets")) return;
  while (!accept(";")) {
    branch_targets_[name].push_back(next());
    accept(",");
  }
}

/// False if an instruction follows.
bool parser::read_declaration(function& f, function_body& body) {
  if (accept(".reg")) {
    read_registers(body);
  } else if (peek() == ".local" || peek() == ".shared" || peek() == ".param") {
    std::string const space = next();
    variable const v = read_variable();
    expect(";");
    std::size_t& end = space == ".local" ? f.local_bytes : space == ".shared" ? f.shared_bytes : parameter_end_;
    body.declare_symbol(v.name, place(end, v.bytes, v.alignment));
    f.calls = f.calls || space == ".param";
  } else if (peek() == ".pragma" || peek() == ".callprototype") {
    skip_behind(";");
  } else if (accept(".loc")) {
    at_ += 3;
    while (accept(",")) at_ += 2;
  } else {
    return false;
  }
  return true;
}

void parser::read_registers(function_body& body) {
  next();  // the type
  do {
    std::string const name = next();
    if (accept("<")) {
      body.declare_registers(name, std::stoi(next()));
      expect(">");
    } else {
      body.declare_register(name);
    }
  } while (accept(","));
  expect(";");
}

void parser::read_instruction(function& f, function_body& body) {
  instruction i;
  i.line = tokens_.lines.at(at_);
  std::vector<std::string> words;
  while (peek() != ";") words.push_back(next());
  expect(";");
  i.text = join(words);
  std::size_t at = 0;
  if (words.at(0) == "@") {
    ++at;
    if (words.at(at) == "!") {
      i.guard_negated = true;
      ++at;
    }
    i.guard = body.find_register(words.at(at++));
  }
  std::string const opcode = words.at(at++);
  if (opcode.starts_with("call")) {
    read_call(i, words, at, body);
  } else {
    std::vector<operand> operands;
    while (at < words.size()) {
      if (words[at] == ",") ++at;
      operands.push_back(body.read_operand(words, at));
    }
    if (opcode.starts_with("bra")) jumps_.push_back({f.code.size(), operands.at(0).name});
    if (opcode.starts_with("brx")) indirect_jumps_.push_back({f.code.size(), operands.at(1).name});
    for (auto& o : operands)
      if (o.negated) o.reg = -3 - o.reg;
    decode(i, opcode, operands, body);
  }
  f.code.push_back(std::move(i));
}

/// (results), name, (arguments): all of them variables in parameter space.
void parser::read_call(instruction& i, std::vector<std::string> const& words, std::size_t at,
                       function_body const& body) {
  auto const read_list = [&] {
    std::vector<std::uint64_t> places;
    for (; words.at(at) != ")"; ++at) {
      if (words[at] == "(" || words[at] == ",") continue;
      std::uint64_t place = 0;
      if (!body.find_symbol(words[at], place)) refuse("call with " + words[at]);
      places.push_back(place);
    }
    ++at;
    if (at < words.size() && words[at] == ",") ++at;
    return places;
  };
  call_arguments call;
  call.module = &module_;
  if (words.at(at) == "(") call.results = read_list();
  call.callee = words.at(at++);
  if (at < words.size() && words[at] == ",") ++at;
  if (at < words.size() && words[at] == "(") call.arguments = read_list();
  decode_call(i, std::move(call));
}

void parser::resolve_labels(function& f) {
  for (auto const& j : jumps_) f.code[j.from].offset = labels_.at(j.to);
  for (auto const& j : indirect_jumps_)
    for (auto const& target : branch_targets_.at(j.to))
      f.code[j.from].list.push_back(static_cast<std::int32_t>(labels_.at(target)));
}

}  // namespace

std::unique_ptr<ptx_module> parse(std::string const& text) {
  auto m = std::make_unique<ptx_module>();
  parser(split_into_tokens(text), *m).read_module();
  return m;
}

}  // namespace emulator
