/// @file
/// Decompositions of matrices on a device, by a LAPACK.
#pragma once

#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/device/matrix_products.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The products and decompositions of a rule's `transform`, on a device of type D. One per store and device.
/// Has:  the members of matrix_products; add_square(n, inner, alpha, a, beta, A* c): c = alpha a a^T + beta c, for a symmetric c of
///       n x n and a of n x inner; int eigenvectors(n, A* a, A* values): the eigenvalues of the symmetric a, ascending,
///       and in its place its eigenvectors, one per row; int orthogonalize(n, A* a, A* scratch): in the place of a's rows
///       those of the Q of a^T = Q R, with n numbers of scratch. Both are 0, or LAPACK's `info` where they have failed.
/// Defined by device/cpu_matrix_factorizations.hpp for CPUs.
template <class D>
class matrix_factorizations;

}  // namespace pushpull
