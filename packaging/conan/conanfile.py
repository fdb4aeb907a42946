"""Conan 2: `conan create packaging/conan` makes a package of this source tree and builds a program with it.

What pushpull links comes from the system, since the programs that it goes into have chosen a oneTBB and a CUDA Toolkit already:
`-c tools.system.package_manager:mode=install` installs what is missing.
"""

import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import copy, load
from conan.tools.system.package_manager import Apt


class Pushpull(ConanFile):
    name = "pushpull"
    description = "Parameter stores for trainers: gradients in, optimizer applied, new weights out"
    license = "Apache-2.0"
    topics = ("optimizer", "gradient", "parameter-server", "simd", "cuda", "header-only")
    package_type = "header-library"
    settings = "os", "compiler", "build_type", "arch"
    no_copy_source = True

    @property
    def _root(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        config = load(self, os.path.join(self._root, "include", "pushpull", "config.hpp"))
        self.version = re.search(r'PUSHPULL_VERSION_STRING "([0-9.]+)"', config).group(1)

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "include/*", "cmake/*", "packaging/pushpull.pc.in"):
            copy(self, pattern, src=self._root, dst=self.export_sources_folder)

    def system_requirements(self):
        Apt(self).install(["libtbb-dev", "libxsimd-dev"])

    def generate(self):
        toolchain = CMakeToolchain(self)
        for programs in ("TESTS", "EXAMPLES", "BENCHMARKS"):
            toolchain.cache_variables[f"PUSHPULL_BUILD_{programs}"] = False
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        CMake(self).install()

    def package_id(self):
        self.info.clear()

    def package_info(self):
        # The package brings its own pushpullConfig.cmake, which has the targets and finds what they link.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "pushpull")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
