// SPDX-License-Identifier: MIT
// The umbrella alone.
#include <hmoe/hmoe.hpp>

int main() {}
