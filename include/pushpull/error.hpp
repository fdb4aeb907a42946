/// @file
/// The exceptions that pushpull throws. Catch `pushpull::error` for all of them.
///
/// They have the same names whatever the instruction set, so that any part of a program catches those of another.
#pragma once

#include <stdexcept>
#include <string>

#include <pushpull/config.hpp>

namespace pushpull {

/// Base of every exception of this library. After any of them the object that threw holds what it held before.
class error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument that can never be right: a bad hyperparameter, an empty device list, a negative extent.
class invalid_argument : public error {
 public:
  using error::error;
};

/// A key that was never given to `init`.
class unknown_key : public error {
 public:
  using error::error;
};

/// A key that was given to `init` before.
class duplicate_key : public error {
 public:
  using error::error;
};

/// A tensor whose shape is not the key's, or ranges whose lengths do not agree.
class shape_mismatch : public error {
 public:
  using error::error;
};

/// A device that the store does not have.
class unknown_device : public error {
 public:
  using error::error;
};

/// One list names a device twice.
class duplicate_device : public error {
 public:
  using error::error;
};

/// Memory that a device could not provide.
class out_of_memory : public error {
 public:
  using error::error;
};

/// A table whose capacity is less than the rows that a call needs, and that evicts none, or not enough.
class table_full : public error {
 public:
  using error::error;
};

/// A file that cannot be read or written, or that is damaged, truncated or foreign. The message names its path.
class file_error : public error {
 public:
  using error::error;
};

/// A call to other ranks that failed. `rank()` is the rank that it failed for, or -1 if that is not known. The store that
/// made the call may hold a step of which only parts are done: see docs/distribution.md.
class comm_error : public error {
 public:
  comm_error(int rank, std::string const& what) : error(what), rank_(rank) {}
  int rank() const noexcept { return rank_; }

 private:
  int rank_;
};

/// A rank that did not take part in a call before the deadline.
class comm_timeout : public comm_error {
 public:
  using comm_error::comm_error;
};

/// A server that did not answer for longer than a worker waits. `rank()` is its number. Calls go on when it is back; pushes
/// that were not acknowledged may be applied or not.
class server_lost : public comm_error {
 public:
  using comm_error::comm_error;
};

/// A key whose step a rule could not compute: its gradient or a state is not finite, or a decomposition failed. The message
/// names the key.
class update_error : public error {
 public:
  using error::error;
};

/// A CUDA call that failed. `code()` is its cudaError_t.
class cuda_error : public error {
 public:
  cuda_error(int code, std::string const& what) : error(what), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

/// A call that cannot become part of a CUDA graph, while a stream is being captured; or one that captured steps forbid. The
/// capture stays valid.
class capture_error : public error {
 public:
  using error::error;
};

/// A call that needs a bound executor group or module.
class not_bound : public error {
 public:
  using error::error;
};

/// A call that needs parameters with values.
class not_initialized : public error {
 public:
  using error::error;
};

/// A call that needs an optimizer.
class no_optimizer : public error {
 public:
  using error::error;
};

/// A call that needs a group or module that was bound for training, or gradients that it was not asked for.
class not_training : public error {
 public:
  using error::error;
};

/// A step without a backward pass since the last one.
class stale_gradients : public error {
 public:
  using error::error;
};

/// A name without a value among those that were given. The message lists all of them.
class missing_param : public error {
 public:
  using error::error;
};

/// A value whose name nobody has. The message lists all of them.
class extra_param : public error {
 public:
  using error::error;
};

/// A tensor whose element type is not the expected one.
class dtype_mismatch : public error {
 public:
  using error::error;
};

/// Arrays of one batch whose numbers of rows do not agree.
class batch_mismatch : public error {
 public:
  using error::error;
};

/// A device without rows, where this is not permitted.
class empty_slice : public error {
 public:
  using error::error;
};

/// A loss that is no finite number.
class diverged : public error {
 public:
  using error::error;
};

/// An option that does not go with the other options of a call.
class bad_option : public invalid_argument {
 public:
  using invalid_argument::invalid_argument;
};

}  // namespace pushpull

namespace pushpull::inline PUSHPULL_ABI::detail {

template <class Error, class Message>
[[noreturn]] void raise(Message const& message) {
  throw Error(message);
}

/// Throws `Error` with `message()` unless `condition`; the message is only built when it is needed. Always inline: every
/// call has a message of its own type, and would be one more function to compile.
template <class Error, class Message>
[[gnu::always_inline]] inline void expects(bool condition, Message&& message) {
  if (!condition) raise<Error>(message());
}

}  // namespace pushpull::detail
